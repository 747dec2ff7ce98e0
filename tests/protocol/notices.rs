//! Notices of our own about messages whose life ended, and messages that are notices themselves.

use crate::harness::script::{Answer, Contact, PHONE_A, PHONE_B, USER, example};
use crate::harness::text::{Sip, crlf};
use crate::harness::{Bench, SCSCF, addr, options};

/// A message whose sender asked for `wanted`, with a life of 50 s.
fn short_lived(bench: &mut Bench, wanted: &str) {
    let text = bench
        .deposit_text(USER, "short life", "Expires: 50\nConversation-ID: conv-1\n")
        .replace("positive-delivery", wanted);
    // The body's length changed with the words.
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let head: Vec<&str> = head
        .split("\r\n")
        .filter(|line| !line.starts_with("Content-Length"))
        .collect();
    let text = format!(
        "{}\r\nContent-Length: {}\r\n\r\n{body}",
        head.join("\r\n"),
        body.len()
    );
    bench.sip_in(&text);
    bench.expect("202");
}

/// The registrar knows nobody.
fn absent(bench: &mut Bench) {
    let subscribe = bench.expect("SUBSCRIBE");
    bench.reply(&subscribe, "480 Gone", "");
}

fn messages(sent: Vec<Sip>) -> Vec<Sip> {
    sent.into_iter()
        .filter(|sip| sip.what() == "MESSAGE")
        .collect()
}

/// `text` between `from` and `to`.
fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let rest = text.split_once(from).map_or("", |(_, rest)| rest);
    rest.split_once(to).map_or("", |(found, _)| found)
}

// Proves: IMDN-4, IMDN-6, IMS-1, LIFE-3
#[test]
fn a_sender_who_asked_is_told_once_that_a_message_expired() {
    let mut bench = Bench::new();
    bench.sip_in(&example("f6-01-message-in.txt"));
    bench.expect("202");
    absent(&mut bench);
    bench.run_s(86_400 - 10);
    assert!(messages(bench.take_sip()).is_empty(), "not before its end");
    bench.run_s(20);
    let sent = messages(bench.take_sip());
    assert_eq!(sent.len(), 1);
    let (notice, model) = (&sent[0], example("f6-03-imdn-failed.txt"));
    assert_eq!(notice.uri(), "sip:+15550177@ims.example.net");
    // Header by header as the worked example, but for what is new each time.
    let (head, body) = model.split_once("\r\n\r\n").expect("a head");
    for line in head.split("\r\n").skip(1) {
        let (name, value) = line.split_once(": ").expect("a header");
        match name {
            "Via" | "Call-ID" | "Contribution-ID" | "Content-Length" => assert!(notice.has(name)),
            "From" => assert!(
                notice
                    .get(name)
                    .starts_with(value.split(';').next().unwrap())
            ),
            _ => assert_eq!(notice.get(name), value, "{name}"),
        }
    }
    let fresh = |text: &str| {
        let id = between(text, "imdn.Message-ID: ", "\r\n").to_owned();
        let when = between(text, "DateTime: ", "\r\n").to_owned();
        assert!(!id.is_empty() && !when.is_empty());
        text.replace(&id, "*").replacen(&when, "*", 1)
    };
    let ours = fresh(&notice.body);
    assert_eq!(ours, fresh(&crlf(body)), "the text of the worked example");
    assert!(!ours.contains("Disposition-Notification"));
    bench.reply(notice, "200 OK", "");
    bench.run_s(100_000);
    assert!(messages(bench.take_sip()).is_empty(), "never a second one");
    assert_eq!(bench.messages(), 0);
    assert_eq!(bench.counter("notices_failed_total"), 1);
    // Nor after a restart: the removal is the evidence.
    let records = bench.records.clone();
    let mut fresh = Bench::restarted(options(), &records, 2);
    fresh.run_s(100_000);
    assert!(messages(fresh.take_sip()).is_empty());
    assert_eq!(fresh.messages(), 0);
}

// Proves: IMDN-4
#[test]
fn nobody_is_told_who_did_not_ask() {
    for wanted in ["positive-delivery", "display, processing"] {
        let mut bench = Bench::new();
        short_lived(&mut bench, wanted);
        absent(&mut bench);
        bench.run_s(1000);
        assert!(messages(bench.take_sip()).is_empty(), "{wanted}");
        assert_eq!(bench.counter("messages_expired_total"), 1);
    }
}

// Proves: LIFE-3, IMDN-4
#[test]
fn the_notice_waits_for_the_durable_removal() {
    let mut bench = Bench::new();
    short_lived(&mut bench, "negative-delivery");
    absent(&mut bench);
    let before = bench.records.clone();
    bench.durable = false;
    bench.run_s(60);
    assert!(
        messages(bench.take_sip()).is_empty(),
        "the mark is not durable"
    );
    assert_eq!(bench.messages(), 0, "but it is gone from every queue");
    bench.release();
    assert_eq!(messages(bench.take_sip()).len(), 1);

    // A crash before the mark: the next life sees the message expire, and tells once.
    let mut fresh = Bench::restarted(options(), &before, 2);
    fresh.run_s(60);
    assert_eq!(messages(fresh.take_sip()).len(), 1);
    assert_eq!(fresh.messages(), 0);
}

// Proves: IMDN-4
#[test]
fn a_record_that_is_not_in_memory_is_read_for_its_notice() {
    let mut options = options();
    options.post.cache_bytes_max = 1;
    let mut bench = Bench::with(options);
    for _ in 0..200 {
        short_lived(&mut bench, "negative-delivery");
        bench.take_sip();
    }
    bench.run_s(60);
    let sent = messages(bench.take_sip());
    let mut about: Vec<&str> = sent
        .iter()
        .map(|sip| between(&sip.body, "<message-id>", "<"))
        .collect();
    about.sort_unstable();
    about.dedup();
    assert_eq!(about.len(), 200, "each message once");
    assert_eq!(sent.len(), 200);
    assert_eq!(bench.counter("notices_dropped_total"), 0);
}

#[test]
fn a_notice_whose_message_cannot_be_read_is_dropped_and_counted_for_that() {
    let mut options = options();
    options.post.cache_bytes_max = 1;
    let mut bench = Bench::with(options);
    for _ in 0..3 {
        short_lived(&mut bench, "negative-delivery");
        bench.take_sip();
    }
    bench.unreadable = true;
    bench.run_s(60);
    let told = messages(bench.take_sip()).len() as u64;
    let dropped = bench.dropped("notices_dropped", "record");
    assert!(dropped > 0, "the records of some are not in memory");
    assert_eq!(told + dropped, 3);
    assert_eq!(bench.counter("notices_dropped_total"), dropped);
}

// Proves: IMDN-8
#[test]
fn a_notice_waits_for_a_hop_as_long_as_it_takes_and_then_has_all_its_tries() {
    let mut bench = Bench::new();
    short_lived(&mut bench, "negative-delivery");
    absent(&mut bench);
    bench.refused.push(addr(SCSCF));
    let trunk = bench.trunks[&addr(SCSCF)];
    bench.close(trunk);
    bench.run_s(60);
    assert_eq!(bench.counter("messages_expired_total"), 1);
    // More waits of 30 s than an octet counts.
    bench.run_s(7_700);
    assert!(messages(bench.take_sip()).is_empty());
    bench.refused.clear();
    let mut sent = 0;
    for _ in 0..200 {
        bench.run_s(30);
        for notice in messages(bench.take_sip()) {
            bench.reply(&notice, "480 Gone", "");
            sent += 1;
        }
    }
    assert_eq!(sent, 5);
}

// Proves: IMDN-4, LIFE-2
#[test]
fn a_message_that_a_phone_took_owes_no_notice() {
    let mut bench = Bench::new();
    short_lived(&mut bench, "negative-delivery");
    bench.subscribed(&[Contact::of(PHONE_A)]);
    let invite = bench.expect("INVITE");
    bench.bound(&invite, &Answer::active());
    let send = bench.expect_msrp("SEND");
    bench.run_s(25);
    bench.msrp_reply(&send, "200 OK");
    bench.run_ms(9_000);
    assert_eq!(bench.messages(), 1);
    // It expires while it waits for its report.
    let mut bench = Bench::new();
    short_lived(&mut bench, "negative-delivery");
    bench.run_s(30);
    bench.subscribed(&[Contact::of(PHONE_A)]);
    let invite = bench.expect("INVITE");
    bench.bound(&invite, &Answer::active());
    let send = bench.expect_msrp("SEND");
    bench.run_s(22);
    assert_eq!(bench.messages(), 1, "in transfer, though its life is over");
    bench.take_message(&send);
    assert_eq!(bench.messages(), 0);
    assert_eq!(bench.counter("delivered_total"), 1);
    bench.run_s(100);
    assert!(messages(bench.take_sip()).is_empty());
}

// Proves: IMDN-4, LIFE-3
#[test]
fn what_one_phone_has_and_another_missed_was_not_lost() {
    let mut bench = Bench::new();
    short_lived(&mut bench, "negative-delivery");
    bench.subscribed(&[Contact::of(PHONE_A), Contact::of(PHONE_B)]);
    let (a, b) = (bench.expect("INVITE"), bench.expect("INVITE"));
    bench.reply(&b, "486 Busy Here", "");
    bench.expect("ACK");
    bench.bound(&a, &Answer::active());
    let send = bench.expect_msrp("SEND");
    bench.take_message(&send);
    assert_eq!(bench.messages(), 1, "the other one waits for it");
    bench.run_s(60);
    assert_eq!(bench.messages(), 0);
    assert_eq!(bench.counter("messages_expired_total"), 1);
    assert!(messages(bench.take_sip()).is_empty());
}

// Proves: IMDN-4, LIFE-2
#[test]
fn a_transfer_that_fails_after_the_end_of_life_is_the_end() {
    let mut bench = Bench::new();
    short_lived(&mut bench, "negative-delivery");
    bench.run_s(30);
    bench.subscribed(&[Contact::of(PHONE_A)]);
    let invite = bench.expect("INVITE");
    bench.bound(&invite, &Answer::active());
    bench.expect_msrp("SEND");
    bench.run_s(100);
    assert_eq!(bench.messages(), 0);
    assert_eq!(messages(bench.take_sip()).len(), 1, "told once");
    assert_eq!(bench.counter("invites_sent_total"), 1);
}

/// A notice of somebody else for the user, as the MESSAGE it comes in.
fn foreign_notice(bench: &mut Bench, n: u32, lines: &str) {
    let xml = "<?xml version=\"1.0\"?><imdn xmlns=\"urn:ietf:params:xml:ns:imdn\"><message-id>x</message-id>\
         <datetime>2026-11-22T05:58:01Z</datetime><delivery-notification><status><delivered/></status>\
         </delivery-notification></imdn>";
    let body = crlf(&format!(
        "From: <sip:+15550177@ims.example.net>\nTo: <{USER}>\nDateTime: 2026-11-22T05:58:09Z\n\
         NS: imdn <urn:ietf:params:imdn>\nimdn.Message-ID: n{n}\n\
         imdn.Disposition-Notification: negative-delivery\n\n\
         Content-Type: message/imdn+xml\nContent-Disposition: notification\n\
         Content-Length: {}\n\n{xml}",
        xml.len()
    ));
    let lines = format!("Content-Type: message/cpim\n{lines}");
    let text = bench.raw_deposit(USER, &lines, &body);
    bench.sip_in(&text);
    bench.expect_some("202");
}

// Proves: IMDN-7, AMB-19
#[test]
fn notices_for_an_absent_user_wait_and_come_after_the_messages() {
    let mut bench = Bench::patient();
    foreign_notice(&mut bench, 1, "");
    bench.deposit("first");
    foreign_notice(&mut bench, 2, "");
    bench.deposit("second");
    let records = bench.records.clone();
    for restart in [false, true] {
        if restart {
            bench = Bench::restarted(crate::harness::patient_options(), &records, 2);
            bench.run_s(1);
        }
        bench.serial += 100;
        let late = bench.deposit_text(USER, "late", "");
        bench.sip_in(&late);
        bench.expect_some("202");
        bench.subscribed(&[Contact::of(PHONE_A)]);
        let invite = bench.expect("INVITE");
        bench.bound(&invite, &Answer::active());
        let sends = bench.take_msrp();
        let ends = ["first", "second", "late", "</imdn>", "</imdn>"];
        assert_eq!(sends.len(), ends.len());
        for (send, end) in sends.iter().zip(ends) {
            assert!(send.body.ends_with(end), "{end} in its turn");
            bench.take_message(send);
        }
        // In the same session a later message still goes, and so does a later notice.
        bench.deposit("third");
        let send = bench.expect_msrp("SEND");
        assert!(send.body.ends_with("third"));
        bench.take_message(&send);
        foreign_notice(&mut bench, 3, "");
        let send = bench.expect_msrp("SEND");
        bench.take_message(&send);
        assert_eq!(bench.messages(), 0);
    }
}

// Proves: IMDN-7, IMDN-4
#[test]
fn a_notice_has_a_life_of_its_own_and_expires_silently() {
    let mut bench = Bench::new();
    foreign_notice(&mut bench, 1, "Expires: 600000\n");
    absent(&mut bench);
    bench.deposit("a message lives on");
    bench.run_s(2 * 86_400 - 5);
    assert_eq!(bench.messages(), 2);
    bench.run_s(10);
    assert_eq!(bench.messages(), 1);
    assert_eq!(bench.counter("messages_expired_total"), 1);
    assert!(
        messages(bench.take_sip()).is_empty(),
        "no notice about a notice"
    );
}
