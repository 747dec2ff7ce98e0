//! The worked examples, message by message: what the engine sends in the flow is the example's text,
//! header by header in its order, but for the identifiers of this run.

use crate::harness::script::{Answer, Contact, PHONE_A, USER, example};
use crate::harness::text::{Msrp, Sip, normalised, normalised_msrp};
use crate::harness::{Bench, PHONE, addr, options};
use volley::base::surface::LinkKind;

#[track_caller]
fn same(message: &Sip, name: &str) {
    assert_eq!(
        normalised(&message.text),
        normalised(&example(name)),
        "{name}"
    );
}

#[track_caller]
fn same_frame(frame: &Msrp, name: &str) {
    assert_eq!(
        normalised_msrp(&frame.text),
        normalised_msrp(&example(name)),
        "{name}"
    );
}

/// An example response, with the identifiers of the request it answers.
fn answer_with(bench: &mut Bench, request: &Sip, name: &str) {
    let text = example(name);
    let (head, body) = text.split_once("\r\n\r\n").expect("a header section");
    let head: Vec<String> = head
        .split("\r\n")
        .map(|line| match line.split_once(": ") {
            Some(("Via", via)) => {
                let rest = via.split_once(";oc").map_or("", |(_, rest)| rest);
                let own = request.get("Via").split_once(";oc").expect("oc is on").0;
                format!("Via: {own};oc{rest}")
            }
            Some(("From", _)) => format!("From: {}", request.get("From")),
            Some(("Call-ID", _)) => format!("Call-ID: {}", request.call_id()),
            _ => line.to_owned(),
        })
        .collect();
    let text = format!("{}\r\n\r\n{body}", head.join("\r\n"));
    bench.feed(request.link, text.as_bytes());
}

/// An example NOTIFY, in the subscription that `subscribe` opened.
fn notify_with(bench: &mut Bench, subscribe: &Sip, name: &str) -> Sip {
    let text = example(name)
        .replace("tag=pfsub01", &format!("tag={}", subscribe.sender_tag()))
        .replace("reg-0b7c5d1e2f@pf1.ims.example.net", subscribe.call_id());
    bench.sip_in(&text);
    bench.expect("200")
}

/// f6-01 is taken and the user turns out to have phone A.
fn message_for_phone_a(bench: &mut Bench) -> Sip {
    bench.sip_in(&example("f6-01-message-in.txt"));
    same(&bench.expect("202"), "f6-02-202-message.txt");
    bench.subscribed(&[Contact::of(PHONE_A)]);
    bench.expect("INVITE")
}

// Proves: PUSH-a, PUSH-b, PUSH-c, PUSH-d, PUSH-e, PUSH-f, PUSH-g, PUSH-h, PUSH-i, PUSH-j, PUSH-l
// Proves: OK-0, OK-2, OK-3, DLG-1, MSRP-1, MSRP-5, MSRP-7, CPIM-1, CPIM-5, INT-2
#[test]
fn f1_a_push_delivers_two_messages_and_ends() {
    let mut bench = Bench::new();
    bench.sip_in(&example("f6-01-message-in.txt"));
    same(&bench.expect("202"), "f6-02-202-message.txt");
    let chunks = ["f1-10-msrp-send-2a.txt", "f1-11-msrp-send-2b.txt"];
    let second: String = chunks.map(|name| chunk_of(&example(name))).concat();
    let second = bench.raw_deposit(USER, "Content-Type: message/cpim\n", &second);
    bench.sip_in(&second);
    bench.expect_some("202");
    bench.subscribed(&[Contact::of(PHONE_A)]);
    let invite = bench.expect("INVITE");
    same(&invite, "f1-01-invite.txt");
    answer_with(&mut bench, &invite, "f1-02-100.txt");
    bench.expect_quiet();
    answer_with(&mut bench, &invite, "f1-03-200-invite.txt");
    let ack = bench.expect("ACK");
    same(&ack, "f1-04-ack.txt");
    assert_ne!(
        ack.branch(),
        invite.branch(),
        "the ACK to a 2xx is its own transaction"
    );

    let link = bench.open(LinkKind::MsrpInbound, addr("198.51.100.7:49152"));
    let bind = example("f1-05-msrp-bind-send.txt").replace(
        "msrp://192.0.2.10:2855/k9Qv3tZs1mXbW7aEoR2y;tcp",
        invite.path(),
    );
    bench.feed(link, bind.as_bytes());
    same_frame(&bench.expect_msrp("200"), "f1-06-msrp-bind-200.txt");
    let first = bench.expect_msrp("SEND");
    same_frame(&first, "f1-07-msrp-send-1.txt");
    let (a, b) = (bench.expect_msrp("SEND"), bench.expect_msrp("SEND"));
    same_frame(&a, chunks[0]);
    same_frame(&b, chunks[1]);
    assert_eq!(a.get("Message-ID"), b.get("Message-ID"));
    for frame in [&first, &a, &b] {
        assert_eq!(frame.get("From-Path"), invite.path());
        bench.msrp_reply(frame, "200 OK");
    }
    bench.msrp_report(&first, "1-493/493", "200 OK");
    bench.msrp_report(&b, "1-3515/3515", "200 OK");
    assert_eq!(bench.messages(), 0, "both are delivered");
    bench.expect_quiet();
    bench.run_s(2);
    let bye = bench.expect("BYE");
    same(&bye, "f1-15-bye.txt");
    answer_with(&mut bench, &bye, "f1-16-200-bye.txt");
    bench.run_s(40);
    bench.expect_quiet();
    assert_eq!(bench.pushes(), 0);
}

fn chunk_of(text: &str) -> String {
    let (_, rest) = text.split_once("\r\n\r\n").expect("a body");
    let end = rest.rfind("\r\n-------").expect("an end-line");
    rest[..end].to_owned()
}

// Proves: RSP-13, ST-2, TX-5
#[test]
fn f2_a_422_is_retried_with_the_larger_interval() {
    let mut options = options();
    options.push.timer.ask_s = Some(600);
    options.profile.session_expires_s = Some(600);
    let mut bench = Bench::with(options);
    let invite = message_for_phone_a(&mut bench);
    same(&invite, "f2-01-invite-se600.txt");
    answer_with(&mut bench, &invite, "f2-02-422.txt");
    let ack = bench.expect("ACK");
    same(&ack, "f2-03-ack-non2xx.txt");
    assert_eq!(ack.branch(), invite.branch());
    let retry = bench.expect("INVITE");
    same(&retry, "f2-04-invite-retry.txt");
    assert_eq!(retry.call_id(), invite.call_id());
    assert_eq!(retry.sender_tag(), invite.sender_tag());
    assert_ne!(retry.branch(), invite.branch());
    assert_eq!(retry.body, invite.body, "o= unchanged");
    let icid = |sip: &Sip| sip.get("P-Charging-Vector").to_owned();
    assert_eq!(icid(&retry), icid(&invite), "one charging id per attempt");
}

// Proves: OK-1, ST-8, ST-9, ST-10, ST-12, DLG-9, DLG-5
#[test]
fn f3_refreshes_go_out_at_half_time_and_a_481_ends_the_dialog() {
    let mut bench = Bench::patient();
    let invite = message_for_phone_a(&mut bench);
    let agreed = bench.now;
    let session = bench.bound(&invite, &Answer::active());
    let send = bench.expect_msrp("SEND");
    bench.take_message(&send);
    bench.run_s(854);
    bench.expect_quiet();
    bench.run_s(46);
    let update = bench.expect("UPDATE");
    let at = update.at.since(agreed).as_secs();
    assert!((855..=900).contains(&at), "refresh after {at} s");
    same(&update, "f3-01-update.txt");
    assert_eq!(session.ack.call_id(), update.call_id());
    answer_with(&mut bench, &update, "f3-02-200-update.txt");
    bench.expect_quiet();

    // A second bench whose phone knows no UPDATE.
    let mut bench = Bench::patient();
    let invite = message_for_phone_a(&mut bench);
    let mut answer = Answer::active();
    answer.allow = "INVITE, ACK, CANCEL, BYE";
    bench.bound(&invite, &answer);
    let send = bench.expect_msrp("SEND");
    bench.take_message(&send);
    bench.run_s(900);
    let reinvite = bench.expect("INVITE");
    let golden = example("f3-03-reinvite.txt").replace("CSeq: 3", "CSeq: 2");
    assert_eq!(normalised(&reinvite.text), normalised(&golden));
    assert_eq!(reinvite.body, invite.body, "the whole offer is unchanged");
    answer_with_cseq(&mut bench, &reinvite, "f3-04-481-reinvite.txt");
    let ack = bench.expect("ACK");
    let golden = example("f3-05-ack-481.txt").replace("CSeq: 3", "CSeq: 2");
    assert_eq!(normalised(&ack.text), normalised(&golden));
    assert_eq!(ack.branch(), reinvite.branch());
    let bye = bench.expect("BYE");
    let golden = example("f3-06-bye.txt").replace("CSeq: 4", "CSeq: 3");
    assert_eq!(normalised(&bye.text), normalised(&golden));
}

// A provisional answer stops Timer B, and the session that would have guarded what follows is over.
#[test]
fn a_reinvite_that_outlives_its_session_is_given_up_though_it_was_answered_100() {
    for by_phone in [false, true] {
        let mut bench = Bench::patient();
        let invite = message_for_phone_a(&mut bench);
        let mut answer = Answer::active();
        answer.allow = "INVITE, ACK, CANCEL, BYE";
        let session = bench.bound(&invite, &answer);
        let send = bench.expect_msrp("SEND");
        bench.take_message(&send);
        bench.run_s(900);
        let reinvite = bench.expect("INVITE");
        if by_phone {
            let bye = bench.in_dialog(&session, "BYE", 1, "", "");
            bench.sip_in(&bye);
            bench.expect("200");
        } else {
            bench.close(session.link);
            let bye = bench.expect("BYE");
            bench.reply(&bye, "200 OK", "");
        }
        assert_eq!(bench.pushes(), 1);
        bench.reply(&reinvite, "100 Trying", "");
        bench.run_s(31);
        assert_eq!(bench.pushes(), 1);
        bench.run_s(2);
        assert_eq!(bench.pushes(), 0);
    }
}

fn answer_with_cseq(bench: &mut Bench, request: &Sip, name: &str) {
    let text = example(name);
    let status = text.lines().next().expect("a status line");
    let status = status
        .strip_prefix("SIP/2.0 ")
        .expect("a status line")
        .to_owned();
    bench.reply(request, status.trim_end(), "");
}

// Proves: ISC-1, ISC-4, SUB-1, SUB-4, SUB-8, REG-2, REG-9, PUSH-0a
#[test]
fn f4_a_registration_leads_to_a_subscription_and_a_gap_to_its_refresh() {
    let mut bench = Bench::new();
    bench.sip_in(&example("f6-01-message-in.txt"));
    bench.expect("202");
    let first = bench.expect("SUBSCRIBE");
    bench.reply(&first, "480 Temporarily Unavailable", "");
    bench.expect_quiet();
    bench.sip_in(&example("f4-01-3p-register.txt"));
    same(&bench.expect("200"), "f4-02-200-3p-register.txt");
    let subscribe = bench.expect("SUBSCRIBE");
    same(&subscribe, "f4-03-subscribe.txt");
    assert_ne!(subscribe.call_id(), first.call_id());
    answer_with(&mut bench, &subscribe, "f4-04-200-subscribe.txt");
    let ok = notify_with(&mut bench, &subscribe, "f4-05-notify-full-2dev.txt");
    same(&ok, "f4-06-200-notify.txt");
    let (a, b) = (bench.expect("INVITE"), bench.expect("INVITE"));
    same(&a, "f5-01-invite-A.txt");
    same(&b, "f5-02-invite-B.txt");
    bench.expect_quiet();
    notify_with(&mut bench, &subscribe, "f4-07-notify-partial-1.txt");
    notify_with(&mut bench, &subscribe, "f4-08-notify-partial-3-gap.txt");
    let refresh = bench.expect("SUBSCRIBE");
    same(&refresh, "f4-09-subscribe-refresh.txt");
    assert_eq!(refresh.call_id(), subscribe.call_id());
    assert_eq!(refresh.sender_tag(), subscribe.sender_tag());
}

// Proves: PUSH-0a, PUSH-0b, OK-4, RSP-21, SDP-14, MSRP-17, MSRP-4, TX-5
#[test]
fn f5_a_busy_phone_is_tried_again_and_the_other_one_served() {
    let mut bench = Bench::new();
    bench.sip_in(&example("f6-01-message-in.txt"));
    bench.expect("202");
    let subscribe = bench.expect("SUBSCRIBE");
    answer_with(&mut bench, &subscribe, "f4-04-200-subscribe.txt");
    notify_with(&mut bench, &subscribe, "f4-05-notify-full-2dev.txt");
    let (a, b) = (bench.expect("INVITE"), bench.expect("INVITE"));
    assert_ne!(a.call_id(), b.call_id());
    assert_ne!(a.sender_tag(), b.sender_tag());
    assert_ne!(a.branch(), b.branch());
    assert_ne!(a.path(), b.path());
    let origin = |sip: &Sip| sip.body.split("\r\n").nth(1).map(str::to_owned);
    assert_ne!(origin(&a), origin(&b), "o= session ids differ");
    let refused = bench.now;
    answer_with(&mut bench, &b, "f5-03-486-B.txt");
    same(&bench.expect("ACK"), "f5-04-ack-B.txt");
    answer_with(&mut bench, &a, "f5-05-200-A.txt");
    same(&bench.expect("ACK"), "f5-06-ack-A.txt");
    assert_eq!(bench.connects, [addr(PHONE)]);
    let send = bench.expect_msrp("SEND");
    same_frame(&send, "f5-07-msrp-first-send.txt");
    bench.take_message(&send);
    assert_eq!(bench.messages(), 1, "B still waits for it");
    let bye = bench.finish();
    assert_eq!(bye.call_id(), a.call_id());
    bench.run_s(117);
    bench.expect_quiet();
    bench.run_s(30);
    let retry = bench.expect("INVITE");
    assert!(retry.at.since(refused).as_secs() >= 120);
    same(&retry, "f5-08-invite-B-retry.txt");
    assert_ne!(retry.call_id(), b.call_id());
    let session = bench.bound(&retry, &Answer::active());
    let again = bench.expect_msrp("SEND");
    assert_eq!(again.get("Message-ID"), send.get("Message-ID"));
    assert_eq!(again.body, send.body);
    assert_eq!(again.link, session.link);
    bench.take_message(&again);
    assert_eq!(bench.messages(), 0);
}

// Proves: RSP-2, SDP-11, SDP-12
#[test]
fn f7_unusable_answers_are_acknowledged_and_ended() {
    for name in [
        "f7-01-200-port0.txt",
        "f7-02-200-inactive.txt",
        "f7-04-200-nopath.txt",
        "f7-05-200-types.txt",
    ] {
        let mut bench = Bench::new();
        let invite = message_for_phone_a(&mut bench);
        answer_with(&mut bench, &invite, name);
        same(&bench.expect("ACK"), "f7-06-ack.txt");
        same(&bench.expect("BYE"), "f7-07-bye.txt");
        assert!(bench.connects.is_empty(), "{name}");
        assert_eq!(bench.messages(), 1, "{name}: the message stays");
    }
    let mut bench = Bench::new();
    let invite = message_for_phone_a(&mut bench);
    answer_with(&mut bench, &invite, "f7-03-200-sendrecv.txt");
    same(&bench.expect("ACK"), "f7-06-ack.txt");
    bench.expect_quiet();
    assert_eq!(bench.pushes(), 1, "a missing direction is tolerated");
}

// Proves: TX-4, TX-13, RSP-22
#[test]
fn f8_no_answer_ends_in_a_cancel() {
    let mut bench = Bench::new();
    let invite = message_for_phone_a(&mut bench);
    same(&invite, "f8-01-invite.txt");
    answer_with(&mut bench, &invite, "f8-02-180.txt");
    bench.run_ms(59_900);
    bench.expect_quiet();
    bench.run_ms(200);
    let cancel = bench.expect("CANCEL");
    same(&cancel, "f8-03-cancel.txt");
    assert_eq!(cancel.branch(), invite.branch());
    answer_with(&mut bench, &cancel, "f8-04-200-cancel.txt");
    bench.expect_quiet();
    answer_with(&mut bench, &invite, "f8-05-487.txt");
    let ack = bench.expect("ACK");
    same(&ack, "f8-06-ack-487.txt");
    assert_eq!(ack.branch(), invite.branch());
    assert_eq!(bench.messages(), 1);
}

// Proves: RSP-28, OVL-6
#[test]
fn f9_a_503_silences_the_hop_for_its_time() {
    let mut bench = Bench::new();
    let invite = message_for_phone_a(&mut bench);
    answer_with(&mut bench, &invite, "f9-01-503.txt");
    let ack = bench.expect("ACK");
    same(&ack, "f9-02-ack-503.txt");
    assert_eq!(ack.branch(), invite.branch());
    bench.run_ms(7_900);
    bench.expect_quiet();
    assert_eq!(bench.messages(), 1);
    bench.run_s(60);
    bench.expect("INVITE");
}

// Proves: MSRP-16, MSRP-15, MSRP-26, BAD-27
#[test]
fn fa_hostile_frames_get_their_answers_and_change_nothing() {
    let mut bench = Bench::new();
    let invite = message_for_phone_a(&mut bench);
    let stranger = bench.open(LinkKind::MsrpInbound, addr("203.0.113.66:9"));
    bench.feed(
        stranger,
        example("fa-01-msrp-unknown-session.txt").as_bytes(),
    );
    same_frame(&bench.expect_msrp("481"), "fa-02-msrp-481.txt");

    let session = bench.bound(&invite, &Answer::active());
    let send = bench.expect_msrp("SEND");
    let ours = "msrp://192.0.2.10:2855/k9Qv3tZs1mXbW7aEoR2y;tcp";
    let second = example("fa-03-msrp-second-conn.txt").replace(ours, invite.path());
    bench.feed(stranger, second.as_bytes());
    let refused = bench.expect_msrp("506");
    assert_eq!(refused.link, stranger);
    same_frame(&refused, "fa-04-msrp-506.txt");
    let unknown = example("fa-06-msrp-unknown-method.txt").replace(ours, invite.path());
    bench.feed(session.link, unknown.as_bytes());
    same_frame(&bench.expect_msrp("501"), "fa-07-msrp-501.txt");
    bench.take_message(&send);
    assert_eq!(bench.messages(), 0, "the session went on");
}

// Proves: MSRP-13, MSRP-3, LIFE-4
#[test]
fn fa_a_413_stops_its_message_and_no_other() {
    let mut bench = Bench::new();
    bench.deposit(&"0123456789".repeat(5000));
    bench.deposit("short");
    bench.subscribed(&[Contact::of(PHONE_A)]);
    let invite = bench.expect("INVITE");
    bench.bound(&invite, &Answer::passive());
    let chunks = bench.take_msrp();
    assert_eq!(chunks.len(), 8, "the window is full");
    let stop = example("fa-05-msrp-413.txt").replace("c1Rm84TfLq20VxNa", &chunks[0].tid);
    let stop = stop
        .replace(
            "msrp://192.0.2.10:2855/k9Qv3tZs1mXbW7aEoR2y;tcp",
            invite.path(),
        )
        .replace(
            "From-Path: msrp://198.51.100.7:2855/Zt4hVd0PqL8nKx2cJf6u;tcp",
            &format!("From-Path: {}", chunks[0].get("To-Path")),
        );
    bench.feed(chunks[0].link, stop.as_bytes());
    for chunk in &chunks[1..] {
        bench.msrp_reply(chunk, "413 Stop");
    }
    let after = bench.take_msrp();
    assert!(
        after
            .iter()
            .all(|frame| frame.get("Message-ID") != chunks[0].get("Message-ID")),
        "no chunk after the 413"
    );
    assert_eq!(after.len(), 1);
    assert!(after[0].body.ends_with("short"));
    bench.take_message(&after[0]);
    bench.finish();
    bench.run_s(4000);
    bench.expect_quiet();
}
