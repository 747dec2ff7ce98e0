//! What each final response to a push INVITE leads to (RSP-1..30): when the phone is tried again,
//! and what must happen first.

use crate::harness::script::{Answer, Contact, Notifier, PHONE_A, USER};
use crate::harness::text::Sip;
use crate::harness::{Bench, SCSCF, SPARE, addr, hop, options};
use volley::push::hops::HopTransport;

/// What follows a refusal.
#[derive(Clone, Copy, Debug)]
enum Then {
    /// Tried again by itself, not before and not after this many seconds.
    Retry(u64, u64),
    /// Tried again when the registration changes.
    Wait,
    /// Tried again when the phone starts anew (another Call-ID), not on a mere refresh.
    Quarantine,
}

use Then::{Quarantine, Retry, Wait};

/// One refused INVITE; the bench afterwards.
fn refused(status: &str, lines: &str) -> (Bench, Notifier) {
    let mut bench = Bench::new();
    let (invite, notifier) = bench.invited();
    bench.reply(&invite, status, lines);
    let ack = bench.expect("ACK");
    assert_eq!(ack.branch(), invite.branch());
    (bench, notifier)
}

fn reregister(bench: &mut Bench, notifier: &mut Notifier, call_id: &str, cseq: u32) {
    let mut contact = Contact::of(PHONE_A);
    call_id.clone_into(&mut contact.call_id);
    contact.cseq = cseq;
    bench.notify(notifier, "full", &[contact]);
    bench.run_s(1);
}

fn invites(bench: &mut Bench) -> usize {
    bench
        .take_sip()
        .iter()
        .filter(|message| message.what() == "INVITE")
        .count()
}

fn check(status: &str, lines: &str, then: Then) {
    let (mut bench, mut notifier) = refused(status, lines);
    let old = Contact::of(PHONE_A).call_id;
    assert_eq!(
        bench.messages(),
        1,
        "{status}: no response removes a message"
    );
    match then {
        Retry(least, most) => {
            bench.run_ms(least * 1000 - 10);
            assert_eq!(invites(&mut bench), 0, "{status} {lines}: too early");
            bench.run_ms((most - least) * 1000 + 100);
            assert_eq!(invites(&mut bench), 1, "{status} {lines}: not in time");
        }
        Wait => {
            bench.run_s(2 * 3600);
            assert_eq!(invites(&mut bench), 0, "{status} {lines}: not by itself");
            reregister(&mut bench, &mut notifier, &old, 2);
            assert_eq!(invites(&mut bench), 1, "{status} {lines}: after a change");
        }
        Quarantine => {
            bench.run_s(2 * 3600);
            assert_eq!(invites(&mut bench), 0, "{status} {lines}: not by itself");
            reregister(&mut bench, &mut notifier, &old, 2);
            assert_eq!(
                invites(&mut bench),
                0,
                "{status} {lines}: not for a refresh"
            );
            reregister(&mut bench, &mut notifier, "anew", 1);
            assert_eq!(
                invites(&mut bench),
                1,
                "{status} {lines}: for a new binding"
            );
        }
    }
}

// Proves: RSP-4, RSP-5, RSP-6, RSP-8, RSP-11, RSP-12, RSP-14, RSP-15, RSP-30
#[test]
fn refusals_of_the_request_itself_hold_for_the_binding() {
    for status in [
        "400 Bad Request",
        "401 Unauthorized",
        "403 Forbidden",
        "405 Method Not Allowed",
        "406 Not Acceptable",
        "407 Proxy Authentication Required",
        "413 Request Entity Too Large",
        "415 Unsupported Media Type",
        "416 Unsupported URI Scheme",
        "420 Bad Extension",
        "423 Interval Too Brief",
        "428 Use Identity Header",
        "429 Provide Referrer Identity",
        "433 Anonymity Disallowed",
        "470 Consent Needed",
        "484 Address Incomplete",
        "489 Bad Event",
        "493 Undecipherable",
        "494 Security Agreement Required",
        "501 Not Implemented",
        "505 Version Not Supported",
        "513 Message Too Large",
        "580 Precondition Failure",
    ] {
        check(status, "", Quarantine);
    }
}

// Proves: RSP-3, RSP-10, RSP-16, RSP-17, DLG-13
#[test]
fn refusals_for_want_of_a_binding_wait_for_its_change() {
    for status in [
        "302 Moved Temporarily",
        "410 Gone",
        "430 Flow Failed",
        "439 First Hop Lacks Outbound Support",
        "480 Temporarily Unavailable",
    ] {
        check(status, "Contact: <sip:evil@203.0.113.9>\n", Wait);
    }
}

// Proves: RSP-9, RSP-11, RSP-17, RSP-18, RSP-21, RSP-22, OVL-6
#[test]
fn passing_troubles_are_tried_again() {
    for (status, lines, least, most) in [
        ("408 Request Timeout", "", 24, 36),
        (
            "413 Request Entity Too Large",
            "Retry-After: 100\n",
            100,
            121,
        ),
        (
            "480 Temporarily Unavailable",
            "Retry-After: 300 (later);duration=9\n",
            300,
            361,
        ),
        ("481 Call/Transaction Does Not Exist", "", 24, 36),
        ("486 Busy Here", "", 48, 72),
        ("486 Busy Here", "Retry-After: 120\n", 120, 145),
        ("487 Request Terminated", "", 24, 36),
        ("491 Request Pending", "", 2, 5),
        ("500 Server Internal Error", "", 24, 36),
        ("500 Server Internal Error", "Retry-After: 90\n", 90, 109),
        ("600 Busy Everywhere", "", 24, 36),
    ] {
        check(status, lines, Retry(least, most));
    }
}

// Proves: RSP-7
#[test]
fn a_404_asks_the_registrar_and_waits() {
    let (mut bench, mut notifier) = refused("404 Not Found", "");
    let refresh = bench.expect("SUBSCRIBE");
    assert_eq!(refresh.call_id(), notifier.call_id, "in the same dialog");
    bench.reply(&refresh, "200 OK", "Expires: 600000\n");
    bench.notify(&mut notifier, "full", &[Contact::of(PHONE_A)]);
    bench.run_s(3600);
    bench.expect_quiet();
    let old = Contact::of(PHONE_A).call_id;
    reregister(&mut bench, &mut notifier, &old, 2);
    bench.expect("INVITE");
}

// Proves: RSP-29
#[test]
fn a_decline_holds_even_against_a_new_registration() {
    for status in ["603 Decline", "604 Does Not Exist Anywhere"] {
        let (mut bench, mut notifier) = refused(status, "");
        bench.run_s(600);
        reregister(&mut bench, &mut notifier, "anew", 1);
        assert_eq!(invites(&mut bench), 0, "{status}: within the hour");
        bench.run_s(2900);
        assert_eq!(invites(&mut bench), 0, "{status}: within the hour");
        bench.run_s(110);
        assert_eq!(invites(&mut bench), 1, "{status}: after it");
    }
}

fn two_hops() -> Bench {
    let mut options = options();
    options.hops.push(hop(SPARE, HopTransport::Tcp));
    Bench::with(options)
}

/// `again` is `first` once more, by the spare hop, as a new transaction.
#[track_caller]
fn moved(bench: &Bench, first: &Sip, again: &Sip) {
    assert_eq!(bench.peer_of(first.link), addr(SCSCF));
    assert_eq!(bench.peer_of(again.link), addr(SPARE));
    assert_ne!(again.branch(), first.branch());
    assert_eq!(again.call_id(), first.call_id());
    assert_eq!(again.sender_tag(), first.sender_tag());
    assert_eq!(again.get("CSeq"), first.get("CSeq"));
}

// Proves: RSP-28, NH-3
#[test]
fn a_503_to_a_subscribe_moves_it_to_the_next_hop_and_silences_the_first() {
    let mut bench = two_hops();
    bench.deposit("hello");
    let first = bench.expect("SUBSCRIBE");
    bench.reply(&first, "503 Service Unavailable", "Retry-After: 60\n");
    let again = bench.expect("SUBSCRIBE");
    moved(&bench, &first, &again);
    let mut notifier = bench.notifier(&again);
    bench.notify(&mut notifier, "full", &[Contact::of(PHONE_A)]);
    let invite = bench.expect("INVITE");
    assert_eq!(
        bench.peer_of(invite.link),
        addr(SPARE),
        "the first wants nothing"
    );
    // No hop is tried twice for one request.
    let mut bench = two_hops();
    bench.deposit("hello");
    for _ in 0..2 {
        let subscribe = bench.expect("SUBSCRIBE");
        bench.reply(&subscribe, "503 Service Unavailable", "");
    }
    bench.run_s(10);
    bench.expect_quiet();
    bench.run_s(60);
    bench.expect("SUBSCRIBE");
}

// Proves: NH-3, RSP-9
#[test]
fn a_subscribe_that_nobody_answers_moves_to_the_next_hop() {
    let mut bench = two_hops();
    bench.deposit("hello");
    let first = bench.expect("SUBSCRIBE");
    bench.run_ms(31_990);
    bench.expect_quiet();
    bench.run_ms(20);
    let again = bench.expect("SUBSCRIBE");
    moved(&bench, &first, &again);
    // Its NOTIFY has as long as that of the first.
    bench.run_s(20);
    let mut notifier = bench.notifier(&again);
    bench.notify(&mut notifier, "full", &[Contact::of(PHONE_A)]);
    bench.expect("INVITE");
}

/// A message expired, and its sender is told.
fn told(bench: &mut Bench) -> Sip {
    let text = bench
        .deposit_text(USER, "short life", "Expires: 50\nConversation-ID: conv-1\n")
        .replace("positive-delivery", "negative-delivery");
    bench.sip_in(&text);
    bench.expect("202");
    let subscribe = bench.expect("SUBSCRIBE");
    bench.reply(&subscribe, "480 Gone", "");
    bench.run_s(60);
    bench.expect("MESSAGE")
}

// Proves: RSP-28, NH-3
#[test]
fn a_503_to_a_notice_moves_it_to_the_next_hop_and_silences_the_first() {
    let mut bench = two_hops();
    let first = told(&mut bench);
    bench.reply(&first, "503 Service Unavailable", "Retry-After: 60\n");
    let again = bench.expect("MESSAGE");
    moved(&bench, &first, &again);
    assert_eq!(again.body, first.body);
    bench.reply(&again, "503 Service Unavailable", "");
    bench.expect_quiet();
    // As a request that was refused it is sent anew, to who wants something.
    bench.run_s(62);
    let anew = bench.expect("MESSAGE");
    assert_ne!(anew.call_id(), first.call_id());
    bench.reply(&anew, "200 OK", "");
    bench.run_s(1000);
    bench.expect_quiet();
    let mut bench = two_hops();
    let first = told(&mut bench);
    bench.run_s(33);
    let again = bench.expect("MESSAGE");
    moved(&bench, &first, &again);
}

// Proves: RSP-28, NH-3, OVL-6
#[test]
fn a_503_moves_the_request_to_the_next_hop() {
    let mut bench = two_hops();
    let (invite, _) = bench.invited();
    assert_eq!(bench.peer_of(invite.link), addr(SCSCF));
    bench.reply(&invite, "503 Service Unavailable", "Retry-After: 60\n");
    bench.expect("ACK");
    let again = bench.expect("INVITE");
    assert_eq!(bench.peer_of(again.link), addr(SPARE));
    assert_ne!(again.branch(), invite.branch());
    assert_eq!(again.call_id(), invite.call_id());
    assert_eq!(again.sender_tag(), invite.sender_tag());
    assert_eq!(again.get("CSeq"), invite.get("CSeq"));
    bench.reply(&again, "503 Service Unavailable", "");
    bench.expect("ACK");
    bench.run_s(10);
    bench.expect_quiet();
    assert_eq!(bench.messages(), 1);
    bench.run_s(40);
    let later = bench.expect("INVITE");
    assert_ne!(later.call_id(), invite.call_id());
    assert_eq!(
        bench.peer_of(later.link),
        addr(SPARE),
        "the first is still avoided"
    );
}

// Proves: RSP-28
#[test]
fn answers_of_the_hop_that_was_left_do_not_matter() {
    let mut bench = two_hops();
    let (invite, _) = bench.invited();
    bench.reply(&invite, "503 Service Unavailable", "Retry-After: 60\n");
    bench.expect("ACK");
    let again = bench.expect("INVITE");
    bench.reply(&invite, "486 Busy Here", "");
    assert_eq!(bench.pushes(), 1, "the live transaction goes on");
    bench.take_sip();
    bench.bound(&again, &Answer::active());
    let send = bench.expect_msrp("SEND");
    bench.take_message(&send);
    let bye = bench.finish();
    assert_eq!(bench.peer_of(bye.link), addr(SPARE));
    assert_eq!(bench.messages(), 0);
}

// Proves: NH-3, TX-11
#[test]
fn silence_of_a_hop_moves_the_request_to_the_next() {
    let mut bench = two_hops();
    let (invite, _) = bench.invited();
    bench.run_s(33);
    let again = bench.expect("INVITE");
    assert_eq!(bench.peer_of(again.link), addr(SPARE));
    assert_eq!(again.call_id(), invite.call_id());
    assert_ne!(again.branch(), invite.branch());
}

// Proves: TX-11
#[test]
fn a_hop_that_cannot_be_reached_is_passed_over() {
    let mut bench = two_hops();
    let first = bench.trunks[&addr(SCSCF)];
    bench.refused.push(addr(SCSCF));
    bench.close(first);
    bench.deposit_by(SPARE, "hello");
    let subscribe = bench.expect_some("SUBSCRIBE");
    assert_eq!(bench.peer_of(subscribe.link), addr(SPARE));
}

// Proves: OVL-9
#[test]
fn no_hop_gets_more_invites_than_it_may_have_open() {
    let mut options = options();
    options.hops[0].invite_inflight_max = 1;
    let mut bench = Bench::with(options);
    bench.deposit("hello");
    let contacts = [
        Contact::of(PHONE_A),
        Contact::of(crate::harness::script::PHONE_B),
    ];
    bench.subscribed(&contacts);
    let first = bench.expect("INVITE");
    bench.run_s(5);
    bench.expect_quiet();
    bench.reply(&first, "486 Busy Here", "");
    bench.expect("ACK");
    bench.run_s(1);
    let second = bench.expect("INVITE");
    assert_ne!(second.uri(), first.uri());
}

// Proves: REG-5, RSP-6
#[test]
fn an_answer_to_a_former_binding_says_nothing_about_the_new_one() {
    let (mut bench, mut notifier) = {
        let mut bench = Bench::new();
        bench.deposit("hello");
        let notifier = bench.subscribed(&[Contact::of(PHONE_A)]);
        (bench, notifier)
    };
    let old = bench.expect("INVITE");
    // The phone starts anew and registers before its former self's refusal gets here.
    let mut contact = Contact::of(PHONE_A);
    contact.call_id = "restarted".to_owned();
    bench.notify(&mut notifier, "partial", &[contact.clone()]);
    bench.run_s(1);
    bench.reply(&old, "403 Forbidden", "");
    bench.expect("ACK");
    bench.run_s(1);
    let new = bench.expect("INVITE");
    // The new one's own refusal counts.
    bench.reply(&new, "403 Forbidden", "");
    bench.expect("ACK");
    contact.cseq = 2;
    bench.notify(&mut notifier, "partial", &[contact]);
    bench.run_s(60);
    bench.expect_quiet();
}
