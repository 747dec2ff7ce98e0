//! Handset dialects: golden INVITEs of each, who gets which, and what a dialect changes in a session.

use crate::harness::script::{Answer, Contact, PHONE_A, PHONE_B, USER, reginfo};
use crate::harness::text::Sip;
use crate::harness::{Bench, options};
use volley::push::dialect::DialectOptions;
use volley::push::options::Grouping;
use volley::registry::features::{AgentPatterns, DialectRule};
use volley::shard::ShardOptions;

const LARGEMSG: &str = "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg";
const SENDER: &str = "sip:+15550177@ims.example.net";

fn dialects() -> Vec<DialectOptions> {
    vec![
        DialectOptions::default(),
        DialectOptions {
            name: "gsma-standfw".into(),
            asserted_identity: Some("sip:rcse-standfw@ims.example.net".into()),
            referred_by: true,
            grouping: Some(Grouping::Message),
            ..DialectOptions::default()
        },
        DialectOptions {
            name: "largemsg".into(),
            icsi: Some(LARGEMSG.into()),
            ..DialectOptions::default()
        },
    ]
}

fn with(dialects: Vec<DialectOptions>, rules: Vec<DialectRule>) -> ShardOptions {
    let mut options = options();
    options.profile.user_agent = "CPM-serv/OMA2.2 volley".into();
    options.push.dialects = dialects;
    options.campaign.registry.dialects.rules = rules;
    options
}

/// Every device speaks this one.
fn all(dialect: u8) -> Vec<DialectRule> {
    vec![DialectRule {
        dialect,
        ..DialectRule::default()
    }]
}

const IDS: &str = "Conversation-ID: 6d0f4a0c-1b5e-4f0b-9f0f-0a6f6b1a2c3d\n\
                   Contribution-ID: 0b9f8a7e-6d5c-4b3a-8291-706f5e4d3c2b\n";

fn deposit(bench: &mut Bench, lines: &str) {
    let message = bench.deposit_text(USER, "hello", lines);
    bench.sip_in(&message);
    bench.expect_some("202");
}

fn invited(options: ShardOptions) -> (Bench, Sip) {
    let mut bench = Bench::with(options);
    deposit(&mut bench, IDS);
    bench.subscribed(&[Contact::of(PHONE_A)]);
    let invite = bench.expect("INVITE");
    (bench, invite)
}

// Proves: AMB-4, AMB-16, PUSH-b, PUSH-d, PUSH-j
#[test]
fn invites_of_the_built_in_dialects_are_the_golden_bytes() {
    let golden: [(&str, &[u8]); 3] = [
        ("plain", include_bytes!("../data/dialects/plain.txt")),
        (
            "gsma-standfw",
            include_bytes!("../data/dialects/gsma-standfw.txt"),
        ),
        ("largemsg", include_bytes!("../data/dialects/largemsg.txt")),
    ];
    for (dialect, (name, want)) in (0_u8..).zip(golden) {
        let (_, invite) = invited(with(dialects(), all(dialect)));
        if std::env::var_os("VOLLEY_GOLDEN").is_some() {
            let path = format!(
                "{}/tests/data/dialects/{name}.txt",
                env!("CARGO_MANIFEST_DIR")
            );
            std::fs::write(path, &invite.text).expect("the file is there");
            continue;
        }
        let want = String::from_utf8_lossy(want);
        assert_eq!(invite.text, want, "{name}:\n{}", invite.text);
    }
}

// Proves: AMB-4
#[test]
fn a_phone_that_registered_only_largemsg_is_called_with_largemsg() {
    let fallback = DialectRule {
        dialect: 2,
        icsi: 0b10,
        lacks: 0b01,
        ..DialectRule::default()
    };
    let mut bench = Bench::with(with(dialects(), vec![fallback]));
    bench.deposit("hello");
    let subscribe = bench.expect("SUBSCRIBE");
    let mut notifier = bench.notifier(&subscribe);
    let document = reginfo(0, "full", &[Contact::of(PHONE_A), Contact::of(PHONE_B)]);
    let document = document.replacen("cpm.deferred", "cpm.largemsg", 1);
    let text = bench.notify_text(
        &mut notifier,
        "Event: reg\nSubscription-State: active;expires=599999\n\
         Content-Type: application/reginfo+xml\n",
        &document,
    );
    bench.sip_in(&text);
    bench.expect("200");
    for (phone, tag) in [(PHONE_A, "largemsg"), (PHONE_B, "deferred")] {
        let invite = bench.expect("INVITE");
        assert!(invite.start.contains(phone));
        for header in ["Accept-Contact", "Contact"] {
            assert!(
                invite.get(header).contains(&format!("cpm.{tag}\"")),
                "{}",
                invite.text
            );
        }
        let service = invite.get("P-Asserted-Service");
        assert!(service.ends_with(tag), "{service}");
    }
}

#[test]
fn a_phone_known_by_its_user_agent_gets_its_dialect_from_the_next_push_on() {
    let mut options = with(
        dialects(),
        vec![DialectRule {
            dialect: 1,
            agents: 1,
            ..DialectRule::default()
        }],
    );
    options.push.reads_agents = true;
    options.push.agents = AgentPatterns(vec![b"*acme*".to_vec()]);
    let (mut bench, invite) = invited(options);
    assert!(!invite.has("Referred-By"));
    let mut answer = Answer::passive();
    answer.allow = "INVITE, ACK, CANCEL, BYE, UPDATE\nUser-Agent: CPM-client/OMA2.0 ACME/1";
    bench.bound(&invite, &answer);
    let send = bench.expect_msrp("SEND");
    bench.take_message(&send);
    bench.finish();
    bench.run_s(1);
    deposit(&mut bench, IDS);
    let invite = bench.expect("INVITE");
    assert_eq!(invite.get("Referred-By"), format!("<{SENDER}>"));
}

// Proves: AMB-16
#[test]
fn the_sender_in_from_stays_there_throughout_the_dialog() {
    let sender = DialectOptions {
        from_sender: true,
        grouping: Some(Grouping::Message),
        ..DialectOptions::default()
    };
    let (mut bench, invite) = invited(with(vec![sender], Vec::new()));
    let from = format!("<{SENDER}>;tag=");
    assert!(invite.get("From").starts_with(&from), "{}", invite.text);
    assert_eq!(invite.get("P-Asserted-Identity"), format!("<{SENDER}>"));
    let session = bench.bound(&invite, &Answer::passive());
    assert_eq!(session.ack.get("From"), invite.get("From"));
    let send = bench.expect_msrp("SEND");
    bench.take_message(&send);
    let bye = bench.expect("BYE");
    assert_eq!(bye.get("From"), invite.get("From"));
}

#[test]
fn a_refusal_and_a_cancel_carry_the_same_from() {
    let sender = DialectOptions {
        from_sender: true,
        ..DialectOptions::default()
    };
    let (mut bench, invite) = invited(with(vec![sender.clone()], Vec::new()));
    bench.reply(&invite, "486 Busy Here", "");
    assert_eq!(bench.expect("ACK").get("From"), invite.get("From"));
    let (mut bench, invite) = invited(with(vec![sender], Vec::new()));
    bench.reply(&invite, "180 Ringing", "");
    bench.run_s(61);
    assert_eq!(bench.expect("CANCEL").get("From"), invite.get("From"));
}

#[test]
fn without_success_reports_the_next_hops_200_is_enough_at_once() {
    let quiet = DialectOptions {
        success_report: false,
        ..DialectOptions::default()
    };
    let (mut bench, invite) = invited(with(vec![quiet], Vec::new()));
    bench.bound(&invite, &Answer::passive());
    let send = bench.expect_msrp("SEND");
    assert_ne!(send.get("Success-Report"), "yes", "{}", send.text);
    assert_eq!(bench.messages(), 1);
    bench.msrp_reply(&send, "200 OK");
    bench.run_ms(100);
    assert_eq!(bench.messages(), 0);
    assert_eq!(bench.counter("delivered_hop_ack_total"), 1);
}

// Proves: AMB-2
#[test]
fn with_one_conversation_a_session_the_others_come_next() {
    let mut options = options();
    options.push.grouping = Grouping::Conversation;
    let mut bench = Bench::with(options);
    let ids = |conversation: &str| format!("Conversation-ID: {conversation}\nContribution-ID: x\n");
    for (conversation, text) in [("c-one", "1"), ("c-two", "2"), ("c-one", "3")] {
        let message = bench.deposit_text(USER, text, &ids(conversation));
        bench.sip_in(&message);
        bench.expect_some("202");
    }
    bench.subscribed(&[Contact::of(PHONE_A)]);
    let invite = bench.expect("INVITE");
    assert_eq!(invite.get("Conversation-ID"), "c-one");
    bench.bound(&invite, &Answer::passive());
    for text in ["1", "3"] {
        let send = bench.expect_msrp("SEND");
        assert!(
            send.text.contains(&format!("\r\n\r\n{text}\r\n")),
            "{}",
            send.text
        );
        bench.take_message(&send);
    }
    // No linger while another conversation waits.
    let bye = bench.expect("BYE");
    bench.reply(&bye, "200 OK", "");
    bench.run_s(1);
    let invite = bench.expect("INVITE");
    assert_eq!(invite.get("Conversation-ID"), "c-two");
    bench.bound(&invite, &Answer::passive());
    let send = bench.expect_msrp("SEND");
    bench.take_message(&send);
    bench.finish();
    bench.run_s(1);
    bench.expect_quiet();
}

// Proves: AMB-1
#[test]
fn by_the_goal_any_the_first_device_is_enough_and_until_expiry_none_is() {
    use volley::store::index::Goal;
    for (goal, left) in [
        (Goal::Any, 0),
        (Goal::EachSelected, 1),
        (Goal::UntilExpiry, 1),
    ] {
        let mut options = options();
        options.campaign.goal = goal;
        let mut bench = Bench::with(options);
        bench.deposit("hello");
        bench.subscribed(&[Contact::of(PHONE_A), Contact::of(PHONE_B)]);
        let (first, second) = (bench.expect("INVITE"), bench.expect("INVITE"));
        bench.bound(&first, &Answer::passive());
        let send = bench.expect_msrp("SEND");
        bench.take_message(&send);
        assert_eq!(bench.messages(), left, "{goal:?}");
        if goal == Goal::Any {
            continue;
        }
        bench.bound(&second, &Answer::passive());
        let send = bench.expect_msrp("SEND");
        bench.take_message(&send);
        let kept = usize::from(goal == Goal::UntilExpiry);
        assert_eq!(bench.messages(), kept, "{goal:?}");
    }
}
