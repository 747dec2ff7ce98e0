//! Which hop a user's requests go to, and where requests inside a dialog go.

use std::net::IpAddr;

use volley::base::surface::Input;
use volley::push::hops::{HopOptions, HopTransport, SetOptions};
use volley::push::names::NameOptions;
use volley::shard::ShardOptions;

use crate::harness::script::{
    Answer, Contact, PHONE_A, PHONE_B, PHONE_PATH, USER, example, reginfo, sdp,
};
use crate::harness::text::Sip;
use crate::harness::{Bench, SCSCF, SPARE, addr, hop, options};

/// A second S-CSCF with hops of its own, and a host the operator trusts.
const SECOND: &str = "192.0.2.22:5060";
const EDGE: &str = "192.0.2.30:5060";
const PHONE_C: &str = "urn:uuid:3c1e7a52-90d4-4c1b-8a55-1b7d2f60c9aa";

fn two_scscfs() -> ShardOptions {
    let mut options = options();
    options.hops.push(HopOptions {
        set: 1,
        ..hop(SECOND, HopTransport::Tcp)
    });
    options.sets = vec![SetOptions {
        hosts: vec![("scscf2.ims.example.net".into(), None)],
        route: Some("<sip:scscf2.ims.example.net;lr>".into()),
    }];
    options.trusted_peers.push(addr(SECOND).ip());
    options
}

/// A third-party REGISTER in which the S-CSCF calls itself `name`.
fn register(bench: &mut Bench, name: &str) {
    let n = bench.serial;
    bench.serial += 1;
    let text = example("f4-01-3p-register.txt")
        .replace("z9hG4bKs4a", &format!("z9hG4bKreg{n}"))
        .replace("scscf1.ims.example.net:5060", name)
        .replace("scscf1.ims.example.net", name);
    bench.sip_in(&text);
    bench.expect("200");
}

fn sent_to(bench: &Bench, message: &Sip, hop: &str) -> bool {
    bench.trunks.get(&addr(hop)) == Some(&message.link)
}

// Proves: NH-1
#[test]
fn a_user_of_another_scscf_is_reached_by_its_hops_and_its_route() {
    let mut bench = Bench::with(two_scscfs());
    bench.deposit("hello");
    let first = bench.expect("SUBSCRIBE");
    assert!(
        sent_to(&bench, &first, SCSCF),
        "nobody said where the user is"
    );
    bench.reply(&first, "480 Temporarily Unavailable", "");
    register(&mut bench, "scscf2.ims.example.net");
    let subscribe = bench.expect("SUBSCRIBE");
    assert!(sent_to(&bench, &subscribe, SECOND));
    assert_eq!(subscribe.get("Route"), "<sip:scscf2.ims.example.net;lr>");
    let mut notifier = bench.notifier(&subscribe);
    let lines = "Event: reg\nSubscription-State: active;expires=599999\n\
                 Content-Type: application/reginfo+xml\n";
    let document = reginfo(0, "full", &[Contact::of(PHONE_A)]);
    let text = bench.notify_text(&mut notifier, lines, &document);
    bench.sip_in(&text.replace("scscf1.ims", "scscf2.ims"));
    bench.expect("200");
    let invite = bench.expect("INVITE");
    assert!(sent_to(&bench, &invite, SECOND));
    assert_eq!(invite.get("Route"), "<sip:scscf2.ims.example.net;lr>");
    // CANCEL goes where its INVITE went, with the same Route.
    bench.reply(&invite, "180 Ringing", "");
    bench.run_s(61);
    let cancel = bench.expect("CANCEL");
    assert!(sent_to(&bench, &cancel, SECOND));
    assert_eq!(cancel.get("Route"), invite.get("Route"));
}

// Proves: NH-1
#[test]
fn after_a_restart_the_notify_says_whose_user_it_is() {
    let mut bench = Bench::with(two_scscfs());
    bench.deposit("hello");
    let subscribe = bench.expect("SUBSCRIBE");
    assert!(sent_to(&bench, &subscribe, SCSCF));
    let mut notifier = bench.notifier(&subscribe);
    let lines = "Event: reg\nSubscription-State: active;expires=599999\n\
                 Content-Type: application/reginfo+xml\n";
    let document = reginfo(0, "full", &[Contact::of(PHONE_A)]);
    let text = bench.notify_text(&mut notifier, lines, &document);
    bench.sip_in(&text.replace("scscf1.ims", "scscf2.ims"));
    bench.expect("200");
    let invite = bench.expect("INVITE");
    assert!(sent_to(&bench, &invite, SECOND));
}

// Proves: NH-1
#[test]
fn a_set_that_is_down_holds_up_its_own_users_only() {
    let mut bench = Bench::with(two_scscfs());
    bench.refused.push(addr(SECOND));
    bench.close(bench.trunks[&addr(SECOND)]);
    bench.deposit("hello");
    let subscribe = bench.expect("SUBSCRIBE");
    let mut notifier = bench.notifier(&subscribe);
    let lines = "Event: reg\nSubscription-State: active;expires=599999\n\
                 Content-Type: application/reginfo+xml\n";
    let document = reginfo(0, "full", &[Contact::of(PHONE_A)]);
    let text = bench.notify_text(&mut notifier, lines, &document);
    bench.sip_in(&text.replace("scscf1.ims", "scscf2.ims"));
    bench.expect("200");
    bench.run_ms(500);
    bench.expect_quiet();
    assert_eq!(bench.messages(), 1, "it waits for its own hops");
    bench.refused.clear();
    bench.run_s(40);
    let invite = bench.expect("INVITE");
    assert!(sent_to(&bench, &invite, SECOND));
}

// Proves: NH-1
#[test]
fn hops_of_one_priority_share_by_weight() {
    let mut options = options();
    options.hops[0].weight = 3;
    options.hops.push(HopOptions {
        priority: 0,
        ..hop(SPARE, HopTransport::Tcp)
    });
    options.campaign.policy.devices_max = 32;
    let mut bench = Bench::with(options);
    let contacts: Vec<Contact> = (0..20)
        .map(|at| {
            let urn = format!("urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6{at:03}");
            Contact::of(Box::leak(urn.into_boxed_str()))
        })
        .collect();
    bench.deposit("hello");
    bench.subscribed(&contacts);
    let invites = bench.take_sip();
    let first = invites
        .iter()
        .filter(|invite| sent_to(&bench, invite, SCSCF))
        .count();
    assert_eq!((invites.len(), first), (20, 15));
}

/// The INVITE is accepted with this first Record-Route.
fn accept_by(bench: &mut Bench, invite: &Sip, route: &str) {
    let lines = format!(
        "Record-Route: <sip:far.example.org;lr>, <{route}>\nContact: <{USER};gr={PHONE_A}>\n\
         Content-Type: application/sdp\n"
    );
    let body = sdp(PHONE_PATH, "active", "");
    bench.reply_as(invite, "200 OK", "t", &lines, &body);
}

fn with_names(names: NameOptions) -> Bench {
    let mut options = options();
    options.trusted_peers.push(addr(EDGE).ip());
    options.names = names;
    Bench::with(options)
}

fn resolving() -> Bench {
    with_names(NameOptions {
        resolve: true,
        ..NameOptions::default()
    })
}

// Proves: NH-2
#[test]
fn requests_in_a_dialog_go_to_the_host_of_the_first_route() {
    for (route, expected) in [
        // A trusted peer, another port of a hop, the hop itself, and hosts nobody vouches for.
        ("sip:mt@192.0.2.30;lr", EDGE),
        ("sip:mt@192.0.2.30:5060;transport=tcp;lr", EDGE),
        ("sip:mt@192.0.2.20:5072;lr", "192.0.2.20:5072"),
        ("sip:mt@192.0.2.20:5060;lr", SCSCF),
        ("sip:mt@203.0.113.5:5060;lr", SCSCF),
        ("sip:mt@edge.example:5060;lr", EDGE),
        ("sip:mt@pcscf.example;maddr=192.0.2.30;lr", EDGE),
        ("sip:mt@nowhere.example;lr", SCSCF),
        ("sip:scscf1.ims.example.net:5060;transport=tcp;lr", SCSCF),
        // A strict router.
        ("sip:192.0.2.30", EDGE),
    ] {
        let mut bench = with_names(NameOptions {
            hosts: vec![("Edge.example".into(), vec![addr(EDGE).ip()])],
            ..NameOptions::default()
        });
        let (invite, _) = bench.invited();
        accept_by(&mut bench, &invite, route);
        let ack = bench.expect("ACK");
        assert!(sent_to(&bench, &ack, expected), "{route}");
        // The device takes nothing: BYE, and so its answer, by the same way.
        bench.run_s(60);
        let bye = bench.expect("BYE");
        assert!(sent_to(&bench, &bye, expected), "{route}");
        bench.reply(&bye, "200 OK", "");
        bench.run_s(60);
        assert_eq!(bench.pushes(), 0, "{route}");
    }
}

// Proves: NH-2
#[test]
fn a_name_is_looked_up_beside_the_shard_and_kept_for_its_time() {
    let mut bench = resolving();
    let (invite, mut notifier) = bench.invited();
    accept_by(&mut bench, &invite, "sip:edge.example:5060;lr");
    bench.expect_quiet();
    let query = bench.queries.pop().expect("a name to look up");
    assert_eq!(query.name, "edge.example");
    // The shard works on meanwhile; repeats of the 2xx wait with the first.
    accept_by(&mut bench, &invite, "sip:edge.example:5060;lr");
    bench.expect_quiet();
    bench.answer(query.token, &[addr(EDGE).ip()]);
    let ack = bench.expect("ACK");
    assert!(sent_to(&bench, &ack, EDGE));
    bench.expect_quiet();
    accept_by(&mut bench, &invite, "sip:edge.example:5060;lr");
    let again = bench.expect("ACK");
    assert_eq!((&again.text, again.link), (&ack.text, ack.link));
    assert!(bench.queries.is_empty(), "asked once");

    // Within its time nobody is asked; after it the old answer serves until the new one is there.
    for (phone, wait_s, queries) in [(PHONE_B, 200, 0), (PHONE_C, 101, 1)] {
        bench.run_s(wait_s);
        bench.take_sip();
        bench.notify(
            &mut notifier,
            "full",
            &[Contact::of(PHONE_A), Contact::of(phone)],
        );
        let sent = bench.take_sip();
        let is_new = |message: &&Sip| message.what() == "INVITE" && message.uri().contains(phone);
        let invite = sent
            .iter()
            .find(is_new)
            .expect("an INVITE to the new phone");
        accept_by(&mut bench, invite, "sip:edge.example:5060;lr");
        assert_eq!(bench.queries.len(), queries, "after {wait_s} s");
        let ack = bench.expect("ACK");
        assert!(sent_to(&bench, &ack, EDGE), "answered without waiting");
    }
}

// Proves: NH-2
#[test]
fn a_name_nobody_knows_or_answers_for_leaves_the_way_of_the_invite() {
    let mut bench = resolving();
    let (invite, _) = bench.invited();
    accept_by(&mut bench, &invite, "sip:gone.example;lr");
    bench.run_ms(2900);
    bench.expect_quiet();
    bench.run_ms(200);
    let ack = bench.expect("ACK");
    assert!(sent_to(&bench, &ack, SCSCF));

    let mut bench = resolving();
    let (invite, _) = bench.invited();
    accept_by(&mut bench, &invite, "sip:gone.example;lr");
    let query = bench.queries.pop().expect("a name to look up");
    bench.answer(query.token, &[]);
    assert!(sent_to(&bench, &bench.peek("ACK"), SCSCF));

    // An answer that leads to somebody we do not talk to.
    let mut bench = resolving();
    let (invite, _) = bench.invited();
    accept_by(&mut bench, &invite, "sip:evil.example;lr");
    let query = bench.queries.pop().expect("a name to look up");
    bench.answer(query.token, &[IpAddr::from([127, 0, 0, 1])]);
    assert!(sent_to(&bench, &bench.peek("ACK"), SCSCF));
    assert!(!bench.trunks.contains_key(&addr("127.0.0.1:5060")));
}

// Proves: NH-2
#[test]
fn a_route_that_cannot_be_connected_leaves_the_way_of_the_invite() {
    let mut bench = with_names(NameOptions::default());
    bench.refused.push(addr(EDGE));
    let (invite, _) = bench.invited();
    accept_by(&mut bench, &invite, "sip:192.0.2.30;lr");
    assert!(sent_to(&bench, &bench.peek("ACK"), SCSCF));

    let mut bench = with_names(NameOptions::default());
    bench.silent.push(addr(EDGE));
    let (invite, _) = bench.invited();
    accept_by(&mut bench, &invite, "sip:192.0.2.30;lr");
    bench.run_ms(2900);
    bench.expect_quiet();
    bench.run_ms(200);
    assert!(sent_to(&bench, &bench.peek("ACK"), SCSCF));
}

// Proves: NH-2
#[test]
fn what_demands_tls_is_refused_and_never_sent_without() {
    for (route, contact) in [
        ("sips:mt@192.0.2.30;lr", USER),
        ("sip:mt@192.0.2.30;transport=tls;lr", USER),
        ("sip:mt@192.0.2.30;lr", "sips:+15550100@198.51.100.7"),
    ] {
        let mut bench = with_names(NameOptions::default());
        let (invite, _) = bench.invited();
        let lines = format!(
            "Record-Route: <{route}>\nContact: <{contact}>\nContent-Type: application/sdp\n"
        );
        let body = sdp(PHONE_PATH, "active", "");
        bench.reply_as(&invite, "200 OK", "t", &lines, &body);
        // Acknowledged as what makes no dialog is (BAD-24): to the INVITE's target, by its way.
        let ack = bench.expect("ACK");
        assert_eq!(ack.uri(), invite.uri());
        assert!(sent_to(&bench, &ack, SCSCF));
        bench.run_s(20);
        bench.expect_quiet();
        assert!(!bench.trunks.contains_key(&addr(EDGE)), "{route}");
        assert_eq!(bench.messages(), 1);
    }
    // A re-INVITE's or UPDATE's Contact does not move the target there either.
    let mut bench = Bench::new();
    let (session, _, send) = bench.sending();
    let update = bench.in_dialog(
        &session,
        "UPDATE",
        1,
        "Contact: <sips:+15550100@198.51.100.99>\nSupported: timer\n",
        "",
    );
    bench.sip_in(&update);
    bench.expect("200");
    bench.take_message(&send);
    assert_eq!(bench.finish().uri(), session.ack.uri());
}

// Proves: NH-5
#[test]
fn a_notify_of_sixty_thousand_octets_is_read_on_either_transport() {
    for mut bench in [Bench::new(), Bench::udp()] {
        bench.deposit("hello");
        let subscribe = bench.expect("SUBSCRIBE");
        let mut notifier = bench.notifier(&subscribe);
        let document = reginfo(0, "full", &[Contact::of(PHONE_A)]);
        // Elements that nobody knows, as long as it takes.
        let filler = format!("<x xmlns=\"urn:x\">{}</x></reginfo>", "a".repeat(58_000));
        let document = document.replace("</reginfo>", &filler);
        let lines = "Event: reg\nSubscription-State: active;expires=599999\n\
                     Content-Type: application/reginfo+xml\n";
        let text = bench.notify_text(&mut notifier, lines, &document);
        assert!((58_500..65_536).contains(&text.len()), "{}", text.len());
        bench.sip_in(&text);
        bench.expect("200");
        bench.expect("INVITE");
    }
}

// Proves: NH-5
#[test]
fn a_message_longer_than_the_configured_limit_is_refused_and_its_stream_closed() {
    let mut options = options();
    options.message_max = 70_000;
    for (length, taken) in [(69_000, true), (70_001, false), (1_000_000, false)] {
        let mut bench = Bench::with(options.clone());
        let body = "a".repeat(length);
        let text = bench.raw_deposit(USER, "Content-Type: text/plain\n", &body);
        let link = bench.trunks[&addr(SCSCF)];
        // Whole, and with only the head there yet.
        for cut in [text.len(), 1000] {
            let mut bench = Bench::with(options.clone());
            bench.feed(link, &text.as_bytes()[..cut]);
            let sent = bench.take_sip();
            if taken && cut == 1000 {
                assert!(sent.is_empty(), "it waits for the rest");
            } else {
                // Too long for a pager-mode message, or for anything.
                let status = if taken { "413" } else { "513" };
                assert_eq!(sent[0].what(), status, "{length} cut at {cut}");
                assert_eq!(bench.is_closed(link), !taken, "{length} cut at {cut}");
            }
        }
    }
}

/// A phone that answers with its own address and no Record-Route is reached by the INVITE's hop, and
/// one that is told to use our proxy is too.
// Proves: NH-2
#[test]
fn a_target_is_followed_like_a_route() {
    for (contact, expected) in [
        ("sip:ue@198.51.100.7:5071;transport=tcp", SCSCF),
        ("sip:ue@192.0.2.30:5060;transport=tcp", EDGE),
    ] {
        let mut bench = with_names(NameOptions::default());
        let (invite, _) = bench.invited();
        let lines = format!("Contact: <{contact}>\nContent-Type: application/sdp\n");
        bench.reply_as(
            &invite,
            "200 OK",
            "t",
            &lines,
            &sdp(PHONE_PATH, "active", ""),
        );
        let ack = bench.expect("ACK");
        assert!(sent_to(&bench, &ack, expected), "{contact}");
    }
}

/// Over datagrams a Route may ask for a stream: Via and Contact say so.
// Proves: NH-2
#[test]
fn the_transport_of_a_route_is_honoured() {
    let mut options = crate::harness::udp_options();
    options.trusted_peers.push(addr(EDGE).ip());
    for (parameter, via) in [("", "SIP/2.0/UDP"), (";transport=tcp", "SIP/2.0/TCP")] {
        let mut bench = Bench::with(options.clone());
        let (invite, _) = bench.invited();
        accept_by(
            &mut bench,
            &invite,
            &format!("sip:192.0.2.30{parameter};lr"),
        );
        let ack = bench.expect("ACK");
        assert!(ack.get("Via").starts_with(via), "{}", ack.text);
        match ack.to {
            Some(to) => assert_eq!(to, addr(EDGE)),
            None => assert!(sent_to(&bench, &ack, EDGE)),
        }
    }
}

/// What the engine asked for before is of no use to the next test.
#[test]
fn a_late_answer_of_the_resolver_changes_nothing() {
    let mut bench = resolving();
    let answer = Answer::active();
    let (invite, _) = bench.invited();
    bench.bound(&invite, &answer);
    let addresses = [addr(EDGE).ip()];
    let input = Input::Resolved {
        token: 99,
        addresses: &addresses,
    };
    bench.shard.handle(bench.now, input);
    bench.pump();
    assert!(!bench.trunks.contains_key(&addr(EDGE)));
}
