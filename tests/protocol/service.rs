//! What the network around us asks of a server: overload of our own, trust, charging, priority, and
//! features that are demanded of clients.

use crate::harness::script::{Answer, Contact, PHONE_A, PHONE_B, USER};
use crate::harness::text::Sip;
use crate::harness::{Bench, addr, options};
use volley::base::surface::LinkKind;

fn others(bench: &mut Bench, n: usize) -> Vec<String> {
    let to = |at: usize| format!("sip:+1555020{at}@ims.example.net");
    (0..n)
        .map(|at| bench.deposit_text(&to(at), "hello", ""))
        .collect()
}

fn statuses(sent: &[Sip]) -> Vec<&str> {
    sent.iter()
        .filter(|sip| sip.start.starts_with("SIP/2.0"))
        .map(Sip::what)
        .collect()
}

// Proves: OVL-7, AMB-10, SUB-9
#[test]
fn a_store_that_is_behind_refuses_messages_and_nothing_else() {
    let mut options = options();
    options.post.unsettled_max = 8;
    let mut bench = Bench::with(options);
    let (session, mut notifier, _) = bench.sending();
    bench.durable = false;
    for text in others(&mut bench, 4) {
        bench.sip_in(&text);
    }
    bench.expect_quiet();
    let one_more = bench.deposit_text(USER, "one more", "");
    bench.sip_in(&one_more);
    let refused = bench.expect("503");
    assert!(!refused.has("Retry-After"), "no participant, no time");
    bench.notify(&mut notifier, "full", &[Contact::of(PHONE_A)]);
    let bye = bench.in_dialog(&session, "BYE", 1, "", "");
    bench.sip_in(&bye);
    bench.expect("200");
    assert_eq!(bench.counter("deposits_overload_total"), 1);
    bench.release();
    bench.durable = true;
    assert_eq!(statuses(&bench.take_sip()), ["202"; 4]);
    let again = one_more.replace("branch=z9hG4bKm", "branch=z9hG4bKx");
    bench.sip_in(&again);
    bench.expect_some("202");
}

// Proves: OVL-7
#[test]
fn a_store_that_is_slow_refuses_messages_until_it_answers() {
    let mut bench = Bench::new();
    bench.durable = false;
    let texts = others(&mut bench, 3);
    bench.sip_in(&texts[0]);
    bench.run_s(9);
    bench.sip_in(&texts[1]);
    bench.expect_quiet();
    bench.run_s(2);
    bench.sip_in(&texts[2]);
    let refused = bench.expect("503");
    assert!(!refused.has("Retry-After"));
    bench.release();
    bench.take_sip();
    bench.sip_in(&texts[2].replace("branch=z9hG4bKm", "branch=z9hG4bKx"));
    bench.release();
    bench.expect_some("202");
}

// Proves: SUB-9
#[test]
fn a_notify_too_many_is_acknowledged_and_its_state_asked_for_later() {
    let mut options = options();
    options.campaign.registry.documents_per_turn = 1;
    let mut bench = Bench::with(options);
    let (invite, mut notifier) = bench.invited();
    bench.reply(&invite, "486 Busy Here", "");
    bench.expect("ACK");
    let both = [Contact::of(PHONE_A), Contact::of(PHONE_B)];
    bench.notify(&mut notifier, "full", &both);
    bench.notify(&mut notifier, "full", &both);
    assert_eq!(bench.counter("notifies_postponed_total"), 2);
    bench.run_ms(900);
    bench.expect_quiet();
    bench.run_ms(200);
    let refresh = bench.expect("SUBSCRIBE");
    bench.expect_quiet();
    assert_eq!(
        refresh.call_id(),
        notifier.call_id,
        "the subscription lives"
    );
    bench.reply_as(&refresh, "200 OK", &notifier.tag, "Expires: 600000\n", "");
    bench.run_s(1);
    bench.notify(&mut notifier, "full", &both);
    let invite = bench.expect("INVITE");
    assert!(invite.uri().ends_with(PHONE_B));
    bench.reply(&invite, "486 Busy Here", "");
    bench.expect("ACK");
    bench.run_s(30);
    bench.expect_quiet();
}

// Proves: RSP-17, AMB-14
#[test]
fn three_480s_in_a_row_drop_what_was_demanded_of_the_client() {
    let mut options = options();
    options.profile.accept_require = true;
    options.profile.accept_explicit = true;
    let mut bench = Bench::with(options);
    bench.deposit("hello");
    let mut notifier = bench.subscribed(&[Contact::of(PHONE_A)]);
    for cseq in 2..=4 {
        let invite = bench.expect("INVITE");
        let accept = invite.get("Accept-Contact");
        assert!(accept.ends_with(";require;explicit"), "{accept}");
        bench.reply(&invite, "480 Temporarily Unavailable", "");
        bench.expect("ACK");
        if cseq < 4 {
            bench.run_s(60);
            bench.expect_quiet();
            let mut contact = Contact::of(PHONE_A);
            contact.cseq = cseq;
            bench.notify(&mut notifier, "full", &[contact]);
            bench.run_s(1);
        }
    }
    let refresh = bench.expect_some("SUBSCRIBE");
    assert_eq!(
        refresh.call_id(),
        notifier.call_id,
        "full state is asked for"
    );
    bench.run_s(1);
    let invite = bench.expect_some("INVITE");
    assert!(!invite.get("Accept-Contact").contains("require"));
    assert!(!invite.get("Accept-Contact").contains("explicit"));
    assert!(invite.get("Accept-Contact").contains("+g.3gpp.icsi-ref"));
    bench.bound(&invite, &Answer::active());
    let send = bench.expect_msrp("SEND");
    bench.take_message(&send);
    assert_eq!(bench.messages(), 0);
}

// Proves: IMS-2
#[test]
fn identities_count_only_from_peers_that_are_trusted() {
    let mut bench = Bench::new();
    let link = bench.open(LinkKind::SipInbound, addr("203.0.113.9:5060"));
    let text = bench.deposit_text(USER, "hello", "");
    bench.feed(link, text.as_bytes());
    assert!(!bench.is_open(link));
    bench.expect_quiet();
    assert_eq!(bench.messages(), 0, "whatever it asserts");
    // What a sender would prefer to be is not what it is.
    let lines = "P-Preferred-Identity: <sip:boss@ims.example.net>\n\
                 P-Preferred-Service: urn:urn-7:3gpp-service.ims.icsi.mmtel\n\
                 Content-Type: text/plain\n";
    let text = bench.raw_deposit(USER, lines, "plain words").replace(
        "P-Asserted-Identity: <sip:+15550177@ims.example.net>\r\n",
        "",
    );
    bench.sip_in(&text);
    bench.expect("202");
    let subscribe = bench.expect("SUBSCRIBE");
    let mut notifier = bench.notifier(&subscribe);
    bench.notify(&mut notifier, "full", &[Contact::of(PHONE_A)]);
    let invite = bench.expect("INVITE");
    bench.bound(&invite, &Answer::active());
    let send = bench.expect_msrp("SEND");
    assert!(send.body.contains("From: <sip:+15550177@ims.example.net>"));
    for text in [&subscribe.text, &invite.text, &send.text] {
        assert!(
            !text.contains("boss") && !text.contains("P-Preferred"),
            "{text}"
        );
    }
}

const CHARGED: &str = "P-Charging-Vector: icid-value=\"AyretyU0dm+6O2IrT5tAFrbHLso=\";\
    icid-generated-at=192.0.2.77;orig-ioi=home1.example.net\n\
    P-Charging-Function-Addresses: ccf=192.0.2.31;ecf=192.0.2.32\n\
    Resource-Priority: wps.2\n";

// Proves: IMS-4, IMS-5, OVL-11, AMB-20
#[test]
fn charging_and_priority_of_the_message_are_repeated_in_its_push() {
    for charging in [true, false] {
        let fresh = || {
            let mut options = options();
            options.post.charging = charging;
            options
        };
        let mut bench = Bench::with(fresh());
        let text = bench.deposit_text(USER, "hello", CHARGED);
        bench.sip_in(&text);
        bench.expect("202");
        let records = bench.records.clone();
        for restart in [false, true] {
            if restart {
                bench = Bench::restarted(fresh(), &records, 2);
                bench.run_s(1);
            }
            bench.subscribed(&[Contact::of(PHONE_A)]);
            let invite = bench.expect("INVITE");
            let vector = invite.get("P-Charging-Vector");
            let related = ";related-icid=\"AyretyU0dm+6O2IrT5tAFrbHLso=\"";
            assert_eq!(vector.ends_with(related), charging, "{vector}");
            let addresses = invite.all("P-Charging-Function-Addresses");
            let expected: &[&str] = if charging {
                &["ccf=192.0.2.31;ecf=192.0.2.32"]
            } else {
                &[]
            };
            assert_eq!(addresses, expected);
            assert_eq!(invite.get("Resource-Priority"), "wps.2");
            bench.bound(&invite, &Answer::active());
            let send = bench.expect_msrp("SEND");
            bench.take_message(&send);
            assert_eq!(bench.messages(), 0);
        }
    }
}

// Proves: IMS-4, IMS-5
#[test]
fn charging_values_that_would_not_stand_in_a_header_are_left_out() {
    for vector in [
        "icid-value=\"a\\\"b\"",
        "icid-value=\"\"",
        "other=\"x\"",
        "icid-value",
        "\"icid-value\"",
    ] {
        let mut options = options();
        options.post.charging = true;
        let mut bench = Bench::with(options);
        let lines = format!("P-Charging-Vector: {vector}\n");
        let text = bench.deposit_text(USER, "hello", &lines);
        bench.sip_in(&text);
        bench.expect("202");
        bench.subscribed(&[Contact::of(PHONE_A)]);
        let invite = bench.expect("INVITE");
        let ours = invite.get("P-Charging-Vector");
        assert!(!ours.contains("related-icid"), "{vector}: {ours}");
    }
}

// Proves: OVL-11
#[test]
fn a_message_with_priority_goes_in_spite_of_overload_control() {
    for (lines, goes) in [("Resource-Priority: wps.2\n", true), ("", false)] {
        let mut bench = Bench::new();
        let text = bench.deposit_text(USER, "hello", lines);
        bench.sip_in(&text);
        bench.expect("202");
        let mut notifier = bench.subscribed(&[Contact::of(PHONE_A)]);
        let invite = bench.expect("INVITE");
        let halt = ";oc=100;oc-algo=\"loss\";oc-validity=60000;oc-seq=1.1";
        bench.reply_with_wish(&invite, "180 Ringing", halt);
        bench.run_ms(300);
        let both = [Contact::of(PHONE_A), Contact::of(PHONE_B)];
        bench.notify(&mut notifier, "full", &both);
        bench.run_ms(300);
        let sent = bench.take_sip();
        let invites = sent.iter().filter(|sip| sip.what() == "INVITE").count();
        assert_eq!(invites == 1, goes, "{lines:?}");
    }
}
