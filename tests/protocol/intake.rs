//! Intake of messages: what is taken, what is refused, how long it lives.

use crate::harness::script::{Answer, Contact, PHONE_A, PHONE_B, USER};
use crate::harness::text::crlf;
use crate::harness::{Bench, WALL_S, options};

/// Sends one MESSAGE to the user and gives the status of its answer.
fn status(bench: &mut Bench, lines: &str, body: &str) -> String {
    let text = bench.raw_deposit(USER, lines, body);
    answered(bench, &text)
}

fn answered(bench: &mut Bench, text: &str) -> String {
    bench.sip_in(text);
    let sent = bench.take_sip();
    let answers: Vec<_> = sent
        .iter()
        .filter(|m| m.start.starts_with("SIP/2.0"))
        .collect();
    assert_eq!(answers.len(), 1, "one answer");
    answers[0].what().to_owned()
}

/// `YYYY` of HTTP dates is enough for the tests of one day.
fn date_at(offset_s: i64) -> String {
    // The 22nd of November 2026 began at this second.
    let midnight = 1_795_305_600;
    let now = i64::try_from(WALL_S).expect("small") + offset_s;
    let (day, at) = (
        22 + (now - midnight).div_euclid(86_400),
        (now - midnight).rem_euclid(86_400),
    );
    let names = ["Sat", "Sun", "Mon"];
    let name = names[usize::try_from(day - 21).expect("near")];
    format!(
        "Date: {name}, {day} Nov 2026 {:02}:{:02}:{:02} GMT\n",
        at / 3600,
        at / 60 % 60,
        at % 60
    )
}

// Proves: INT-1, BAD-15
#[test]
fn large_message_mode_is_not_served() {
    let mut bench = Bench::new();
    let text = bench
        .raw_deposit(USER, "Content-Type: application/sdp\n", "v=0\r\n")
        .replace("MESSAGE", "INVITE");
    bench.sip_in(&text);
    let answer = bench.expect("488");
    assert!(answer.has("Warning"));
}

// Proves: INT-3, SUB-8, AMB-12
#[test]
fn the_202_waits_for_the_store() {
    let mut bench = Bench::new();
    bench.durable = false;
    let text = bench.deposit_text(USER, "hello", "");
    bench.sip_in(&text);
    bench.run_s(5);
    bench.expect_quiet();
    bench.release();
    bench.expect("202");
    bench.expect("SUBSCRIBE");
}

// Proves: INT-3, INT-9, AMB-10
#[test]
fn a_store_that_fails_turns_the_202_into_a_503() {
    let mut bench = Bench::new();
    bench.durable = false;
    let text = bench.deposit_text(USER, "hello", "");
    bench.sip_in(&text);
    bench.fail_store();
    let refused = bench.expect("503");
    assert!(!refused.has("Retry-After"));
    assert_eq!(bench.messages(), 0);
    let text = bench.deposit_text(USER, "more", "");
    assert_eq!(answered(&mut bench, &text), "503");
}

// Proves: SX-1
#[test]
fn over_datagrams_the_503_in_place_of_a_202_is_repeated_with_the_request() {
    let mut bench = Bench::udp();
    bench.durable = false;
    let text = bench.deposit_text(USER, "hello", "");
    bench.sip_in(&text);
    bench.run_s(1);
    bench.sip_in(&text);
    bench.expect_quiet();
    bench.fail_store();
    let refused = bench.expect("503");
    // It was lost: RFC 3261 section 17.2.2.
    for _ in 0..2 {
        bench.run_s(2);
        bench.sip_in(&text);
        assert_eq!(bench.expect("503").text, refused.text);
    }
    assert_eq!(bench.messages(), 0);
}

// Proves: INT-4
#[test]
fn a_repeat_in_another_transaction_is_accepted_and_kept_once() {
    let mut bench = Bench::new();
    let text = bench.deposit_text(USER, "hello", "");
    assert_eq!(answered(&mut bench, &text), "202");
    let again = text
        .replace("branch=z9hG4bKm", "branch=z9hG4bKx")
        .replace("Call-ID: msg", "Call-ID: x");
    assert_eq!(answered(&mut bench, &again), "202");
    assert_eq!(bench.messages(), 1);
    assert_eq!(bench.records.len(), 1);
}

// Proves: INT-4
#[test]
fn a_repeat_while_the_first_is_being_written_waits_for_it() {
    let mut bench = Bench::new();
    bench.durable = false;
    let text = bench.deposit_text(USER, "hello", "");
    bench.sip_in(&text);
    let again = text
        .replace("branch=z9hG4bKm", "branch=z9hG4bKx")
        .replace("Call-ID: msg", "Call-ID: x");
    bench.sip_in(&again);
    bench.expect_quiet();
    bench.release();
    assert_eq!(
        bench
            .take_sip()
            .iter()
            .filter(|m| m.what() == "202")
            .count(),
        2
    );
    assert_eq!(bench.messages(), 1);
}

// Proves: INT-4
#[test]
fn a_repeat_of_a_delivered_message_is_accepted_and_not_delivered_again() {
    let mut bench = Bench::new();
    let text = bench.deposit_text(USER, "hello", "");
    bench.sip_in(&text);
    bench.expect("202");
    bench.subscribed(&[Contact::of(PHONE_A)]);
    let invite = bench.expect("INVITE");
    bench.bound(&invite, &Answer::active());
    let send = bench.expect_msrp("SEND");
    bench.take_message(&send);
    bench.finish();
    let again = text
        .replace("branch=z9hG4bKm", "branch=z9hG4bKx")
        .replace("Call-ID: msg", "Call-ID: x");
    assert_eq!(answered(&mut bench, &again), "202");
    bench.run_s(60);
    bench.expect_quiet();
}

// Proves: INT-5, BAD-10, BAD-9
#[test]
fn only_our_own_users_get_mail() {
    let mut bench = Bench::new();
    for (to, expected) in [
        ("sip:+15550100@other.example", "404"),
        ("sip:ims.example.net", "404"),
        ("http://ims.example.net/x", "416"),
        ("sip:alice@ims.example.net", "202"),
    ] {
        let text = bench.deposit_text(to, "hello", "");
        assert_eq!(answered(&mut bench, &text), expected, "{to}");
    }
}

// Proves: INT-6, BAD-13
#[test]
fn the_largest_body_is_taken_and_one_octet_more_is_not() {
    let mut options = options();
    options.pager_max = 1300;
    let mut bench = Bench::with(options);
    for (len, expected) in [(1300, "202"), (1301, "413")] {
        let body = "x".repeat(len);
        assert_eq!(
            status(&mut bench, "Content-Type: text/plain\n", &body),
            expected
        );
    }
}

// Proves: INT-7, INT-14, BAD-11, BAD-17
#[test]
fn content_that_cannot_be_delivered_is_refused() {
    let mut bench = Bench::new();
    for (lines, expected, header) in [
        ("Content-Type: image/png\n", "415", "Accept"),
        (
            "Content-Type: multipart/mixed;boundary=b\n",
            "415",
            "Accept",
        ),
        (
            "Content-Type: text/plain\nContent-Encoding: gzip\n",
            "415",
            "Accept-Encoding",
        ),
        ("Content-Type: application/pkcs7-mime\n", "493", ""),
        ("", "400", ""),
    ] {
        let text = bench.raw_deposit(USER, lines, "body");
        bench.sip_in(&text);
        let answer = bench.expect(expected);
        assert!(header.is_empty() || answer.has(header), "{lines}");
    }
    assert_eq!(bench.messages(), 0);
}

// Proves: CPIM-2
#[test]
fn a_cpim_that_demands_the_unknown_is_refused() {
    let mut bench = Bench::new();
    let body =
        crlf("From: <sip:a@b>\nTo: <sip:c@d>\nRequire: Magic\n\nContent-Type: text/plain\n\nx");
    let answer = status(&mut bench, "Content-Type: message/cpim\n", &body);
    assert!(["400", "415"].contains(&answer.as_str()), "{answer}");
    let answer = status(
        &mut bench,
        "Content-Type: message/cpim\n",
        "no header at all",
    );
    assert!(["400", "415"].contains(&answer.as_str()), "{answer}");
}

// Proves: CPIM-3, CPIM-4
#[test]
fn plain_text_is_wrapped_and_anonymity_kept() {
    for (privacy, from) in [
        ("", "From: <sip:+15550177@ims.example.net>"),
        ("Privacy: id\n", "From: "),
    ] {
        let mut bench = Bench::new();
        let lines = format!("Content-Type: text/plain\n{privacy}");
        let text = bench.raw_deposit(USER, &lines, "plain words");
        bench.sip_in(&text);
        bench.expect("202");
        bench.subscribed(&[Contact::of(PHONE_A)]);
        let invite = bench.expect("INVITE");
        bench.bound(&invite, &Answer::active());
        let send = bench.expect_msrp("SEND");
        assert!(send.body.contains(from));
        assert!(send.body.contains("To: <sip:+15550100@ims.example.net>"));
        assert!(send.body.contains("DateTime: 2026-11-22T05:58:0"));
        assert!(send.body.ends_with("plain words"));
        assert_eq!(send.body.contains("+15550177"), privacy.is_empty());
    }
}

// Proves: INT-8, LIFE-1
#[test]
fn a_message_that_came_too_late_is_accepted_and_gone() {
    let mut bench = Bench::new();
    let lines = format!("{}Expires: 60\n", date_at(-86_400));
    let text = bench.deposit_text(USER, "late", &lines);
    bench.sip_in(&text);
    bench.expect("202");
    bench.run_s(2);
    assert_eq!(bench.messages(), 0);
    assert_eq!(bench.counter("messages_expired_total"), 1);
}

// Proves: INT-9
#[test]
fn a_full_mailbox_is_no_trouble_for_others() {
    let mut options = options();
    options.post.quota.messages_max = 2;
    let mut bench = Bench::with(options);
    bench.deposit("one");
    bench.deposit("two");
    bench.take_sip();
    let text = bench.deposit_text(USER, "three", "");
    bench.sip_in(&text);
    let full = bench.expect("480");
    assert!(full.has("Retry-After"));
    let text = bench.deposit_text("sip:+15550101@ims.example.net", "other", "");
    bench.sip_in(&text);
    bench.expect("202");
}

// Proves: INT-10
#[test]
fn a_registered_user_gets_the_push_at_once() {
    let mut bench = Bench::new();
    let (_, _, send) = bench.sending();
    bench.take_message(&send);
    bench.finish();
    bench.run_s(10);
    let from = bench.now;
    bench.deposit("later");
    let invite = bench.expect("INVITE");
    assert_eq!(invite.at, from);
}

// Proves: INT-11, REG-9
#[test]
fn mail_to_any_form_of_the_number_arrives_in_one_session() {
    let mut bench = Bench::new();
    for to in [
        "tel:+15550100",
        "tel:+1-555-0100",
        "sip:+15550100@ims.example.net;user=phone",
        USER,
    ] {
        let text = bench.deposit_text(to, to, "");
        bench.sip_in(&text);
        bench.expect_some("202");
    }
    let subscribe = bench.expect("SUBSCRIBE");
    bench.expect_quiet();
    let mut notifier = bench.notifier(&subscribe);
    bench.notify(&mut notifier, "full", &[Contact::of(PHONE_A)]);
    let invite = bench.expect("INVITE");
    bench.expect_quiet();
    bench.bound(&invite, &Answer::active());
    let sends = bench.take_msrp();
    assert_eq!(sends.len(), 4);
}

// Proves: INT-12, INT-9, DLV-1
#[test]
fn messages_for_phones_that_nobody_has_do_not_make_others_come_again() {
    let mut bench = Bench::new();
    for n in 0..32 {
        let lines = format!("Accept-Contact: *;+sip.instance=\"<urn:uuid:nobody-{n}>\"\n");
        let text = bench.deposit_text(USER, "for nobody", &lines);
        bench.sip_in(&text);
        bench.expect_some(if n < 8 { "202" } else { "480" });
    }
    bench.deposit("for everybody");
    bench.subscribed(&[Contact::of(PHONE_A)]);
    let (mut invites, mut sends) = (0, 0);
    for _ in 0..60 {
        for sip in bench.take_sip() {
            match sip.what() {
                "INVITE" => {
                    invites += 1;
                    bench.send_200(&sip, &Answer::passive());
                }
                "BYE" => bench.reply(&sip, "200 OK", ""),
                _ => {}
            }
        }
        for frame in bench.take_msrp() {
            assert!(frame.body.ends_with("for everybody"));
            sends += 1;
            bench.take_message(&frame);
        }
        bench.run_s(1);
    }
    assert_eq!((invites, sends), (1, 1));
    assert_eq!(bench.messages(), 8, "the others wait for their phones");
}

// Proves: INT-12
#[test]
fn a_message_for_one_instance_goes_to_that_phone_only() {
    let mut bench = Bench::new();
    let lines = format!("Accept-Contact: *;+sip.instance=\"<{PHONE_B}>\";require;explicit\n");
    let text = bench.deposit_text(USER, "for B", &lines);
    bench.sip_in(&text);
    bench.expect("202");
    bench.subscribed(&[Contact::of(PHONE_A), Contact::of(PHONE_B)]);
    let invite = bench.expect("INVITE");
    assert!(invite.uri().ends_with(PHONE_B));
    bench.expect_quiet();
    bench.bound(&invite, &Answer::active());
    let send = bench.expect_msrp("SEND");
    bench.take_message(&send);
    assert_eq!(bench.messages(), 0);
}

// Proves: LIFE-1
#[test]
fn life_counts_from_the_date_and_is_bounded() {
    for (lines, lives_s, dies_s) in [
        (format!("{}Expires: 100\n", date_at(-40)), 59, 62),
        ("Expires: 100\n".to_owned(), 99, 102),
        (format!("{}Expires: 100\n", date_at(3600)), 99, 102),
        (String::new(), 7 * 86_400 - 1, 7 * 86_400 + 2),
        (
            "Expires: 4294967295\n".to_owned(),
            30 * 86_400 - 1,
            30 * 86_400 + 2,
        ),
    ] {
        let mut bench = Bench::new();
        let text = bench.deposit_text(USER, "x", &lines);
        bench.sip_in(&text);
        let sent = bench.take_sip();
        let subscribe = sent
            .iter()
            .find(|m| m.what() == "SUBSCRIBE")
            .expect("asked");
        bench.reply(subscribe, "480 Gone", "");
        bench.run_s(lives_s);
        assert_eq!(bench.messages(), 1, "{lines:?}");
        bench.run_s(dies_s - lives_s);
        assert_eq!(bench.messages(), 0, "{lines:?}");
    }
}

// Proves: LIFE-2, LIFE-3
#[test]
fn an_expired_message_is_gone_for_good() {
    let mut bench = Bench::new();
    let text = bench.deposit_text(USER, "short life", "Expires: 50\n");
    bench.sip_in(&text);
    bench.expect("202");
    let subscribe = bench.expect("SUBSCRIBE");
    let mut notifier = bench.notifier(&subscribe);
    bench.notify(&mut notifier, "full", &[]);
    bench.run_s(51);
    bench.notify(&mut notifier, "full", &[Contact::of(PHONE_A)]);
    bench.run_s(60);
    assert_eq!(bench.counter("invites_sent_total"), 0);
    assert_eq!(bench.messages(), 0);
    let records = bench.records.clone();
    let fresh = Bench::restarted(options(), &records, 2);
    assert_eq!(fresh.messages(), 0);
    assert_eq!(bench.counter("messages_expired_total"), 1);
}

// Proves: LIFE-2
#[test]
fn a_message_in_transfer_may_finish_after_its_expiry() {
    let mut bench = Bench::new();
    let text = bench.deposit_text(USER, "short life", "Expires: 20\n");
    bench.sip_in(&text);
    bench.expect("202");
    bench.subscribed(&[Contact::of(PHONE_A)]);
    let invite = bench.expect("INVITE");
    bench.bound(&invite, &Answer::active());
    let send = bench.expect_msrp("SEND");
    bench.run_s(21);
    bench.take_message(&send);
    assert_eq!(bench.messages(), 0);
    bench.finish();
}

// Proves: BAD-7
#[test]
fn an_unknown_extension_that_is_required_is_refused() {
    let mut bench = Bench::new();
    let lines = "Require: timer, nothing, tricks\nContent-Type: text/plain\n";
    let text = bench.raw_deposit(USER, lines, "x");
    bench.sip_in(&text);
    let refused = bench.expect("420");
    assert_eq!(refused.get("Unsupported"), "nothing, tricks");
    assert_eq!(bench.messages(), 0);
}

// Proves: BAD-6, AMB-9
#[test]
fn our_own_push_that_comes_back_is_a_loop() {
    let mut bench = Bench::new();
    let (invite, _) = bench.invited();
    let via = "Via: SIP/2.0/TCP 192.0.2.20:5060;branch=z9hG4bKloop\r\nVia: ";
    let back = invite.text.replacen("Via: ", via, 1);
    bench.sip_in(&back);
    bench.expect("482");
}

// Proves: OVL-10
#[test]
fn a_restart_asks_about_users_with_mail_at_the_pace_that_is_set() {
    let mut bench = Bench::new();
    for user in 0..20 {
        let to = format!("sip:+155501{user:05}@ims.example.net");
        let text = bench.deposit_text(&to, "one", "");
        bench.sip_in(&text);
    }
    assert_eq!(bench.messages(), 20);
    let paced = volley::shard::ShardOptions {
        subscribe_pace_per_s: 2,
        ..options()
    };
    let records = bench.records.clone();
    let mut fresh = Bench::restarted(paced, &records, 2);
    let mut asked = 0;
    for second in 1..=11 {
        fresh.run_s(1);
        let texts = fresh.take_sip();
        asked += texts.iter().filter(|sip| sip.what() == "SUBSCRIBE").count();
        assert!(asked <= 2 * second + 1, "{asked} after {second} s");
    }
    assert_eq!(asked, 20, "everybody is asked about in the end");
}
