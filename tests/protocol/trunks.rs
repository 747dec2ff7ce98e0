//! What becomes of requests when connections to the hops are lost and made.

use volley::base::surface::LinkKind;
use volley::push::hops::HopTransport;

use crate::harness::script::{Answer, Contact, PHONE_A, USER};
use crate::harness::text::Sip;
use crate::harness::{Bench, SCSCF, SPARE, addr, hop, options};

// Proves: NH-9
#[test]
fn an_invite_that_a_lost_trunk_took_along_goes_out_again_to_the_same_hop() {
    let mut bench = Bench::new();
    let (invite, _) = bench.invited();
    let trunk = bench.trunks[&addr(SCSCF)];
    bench.close(trunk);
    bench.run_s(1);
    let again = bench.expect("INVITE");
    assert_ne!(again.link, trunk, "connected again");
    assert_eq!(again.text, invite.text, "to be known as a repeat");
    bench.run_s(10);
    bench.expect_quiet();
    bench.accept(&again, &Answer::active());
    assert_eq!(bench.pushes(), 1);
}

// Proves: NH-9
#[test]
fn an_invite_with_an_answer_is_not_repeated_after_the_loss_of_its_trunk() {
    let mut bench = Bench::new();
    let (mut invite, _) = bench.invited();
    bench.reply(&invite, "100 Trying", "");
    bench.close(bench.trunks[&addr(SCSCF)]);
    bench.run_s(10);
    bench.expect_quiet();
    // The answer comes by a connection of the hop's own.
    invite.link = bench.open(LinkKind::SipInbound, addr(SCSCF));
    bench.accept(&invite, &Answer::active());
}

// Proves: NH-9
#[test]
fn a_bye_that_a_lost_trunk_took_along_goes_out_again_by_the_next_one() {
    let mut bench = Bench::new();
    let (_, _, send) = bench.sending();
    bench.take_message(&send);
    bench.run_s(2);
    let bye = bench.expect("BYE");
    let trunk = bench.trunks[&addr(SCSCF)];
    bench.close(trunk);
    bench.run_s(1);
    let again = bench.expect("BYE");
    assert_ne!(again.link, trunk);
    assert_eq!(
        again.text, bye.text,
        "the same request, to be known as a repeat"
    );
    bench.run_s(20);
    bench.expect_quiet();
    bench.reply(&again, "200 OK", "");
    bench.run_s(1);
    assert_eq!(bench.pushes(), 0);
}

// Proves: NH-9
#[test]
fn a_bye_that_found_no_connection_leaves_before_what_is_new_when_one_is_back() {
    let mut bench = Bench::new();
    let (_, _, send) = bench.sending();
    bench.take_message(&send);
    bench.refused.push(addr(SCSCF));
    bench.close(bench.trunks[&addr(SCSCF)]);
    // The linger ends, the BYE finds nobody; mail comes by a connection of the core's own.
    bench.run_s(3);
    bench.expect_quiet();
    let inbound = bench.open(LinkKind::SipInbound, addr(SCSCF));
    let message = bench.deposit_text(USER, "more", "");
    bench.feed(inbound, message.as_bytes());
    bench.expect_some("202");
    bench.refused.clear();
    bench.run_s(40);
    let sent = bench.take_sip();
    let order: Vec<_> = sent.iter().map(Sip::what).take(2).collect();
    assert_eq!(order, ["BYE", "INVITE"]);
    assert_eq!(sent[0].at, sent[1].at, "neither waits for the other");
}

/// Two hops, so that what one cannot take finds the other.
fn two_hops() -> Bench {
    let mut options = options();
    options.hops.push(hop(SPARE, HopTransport::Tcp));
    Bench::with(options)
}

// Proves: NH-9
#[test]
fn a_request_stays_with_the_trunk_that_took_it_while_others_come_and_go() {
    let mut bench = two_hops();
    let (_, _, send) = bench.sending();
    bench.take_message(&send);
    let lost = bench.trunks[&addr(SCSCF)];
    bench.refused.push(addr(SCSCF));
    bench.close(lost);
    bench.run_s(3);
    let bye = bench.expect("BYE");
    assert_eq!(bench.peer_of(bye.link), addr(SPARE));
    // The hop of the INVITE is back: what the other one carries is not lost.
    bench.refused.clear();
    bench.run_s(10);
    let back = bench.trunks[&addr(SCSCF)];
    assert_ne!(back, lost);
    bench.expect_quiet();
    // With its own trunk it is.
    bench.close(bye.link);
    let again = bench.expect("BYE");
    assert_eq!((again.link, &again.text), (back, &bye.text));
    bench.run_s(10);
    bench.expect_quiet();
}

// Proves: NH-9
#[test]
fn an_invite_repeated_by_a_new_trunk_is_not_repeated_for_the_sake_of_another() {
    let mut bench = two_hops();
    let (invite, _) = bench.invited();
    bench.close(invite.link);
    bench.run_s(1);
    let again = bench.expect("INVITE");
    assert_ne!(again.link, invite.link);
    assert_eq!(again.link, bench.trunks[&addr(SCSCF)]);
    // Another hop's connection is lost and made again.
    let other = bench.trunks[&addr(SPARE)];
    bench.close(other);
    bench.run_s(10);
    assert_ne!(bench.trunks[&addr(SPARE)], other);
    bench.expect_quiet();
}

// Proves: RSP-31, DLG-8, REG-5
#[test]
fn a_session_that_breaks_after_its_phone_started_anew_is_ended_before_the_next_begins() {
    let mut bench = Bench::with(options());
    let (_, mut notifier, send) = bench.sending();
    let mut contact = Contact::of(PHONE_A);
    contact.call_id = "restarted".to_owned();
    bench.notify(&mut notifier, "partial", &[contact]);
    bench.run_s(1);
    bench.expect_quiet();
    bench.close(send.link);
    let sent = bench.take_sip();
    let order: Vec<_> = sent.iter().map(Sip::what).collect();
    assert_eq!(order, ["BYE", "INVITE"]);
    assert_eq!(sent[0].at, sent[1].at, "at once");
}
