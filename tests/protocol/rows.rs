//! Options and small rows: taking messages back, notices that a message is stored, the way of notices,
//! registrations that come along, who failed, and what is never said.

use crate::harness::script::{Answer, Contact, PHONE_A, USER, message};
use crate::harness::text::crlf;
use crate::harness::{Bench, options};

const SENDER: &str = "sip:+15550177@ims.example.net";

fn revoke(bench: &mut Bench, sender: &str, id: &str) -> String {
    let body = format!(
        "<?xml version=\"1.0\"?><imRevoke xmlns=\"urn:gsma:params:xml:ns:rcs:rcs:imrevoke\">\
         <Message-ID>{id}</Message-ID></imRevoke>"
    );
    let lines = "Content-Type: application/vnd.gsma.rcsrevoke+xml\n";
    let text = bench
        .raw_deposit(USER, lines, &body)
        .replace(SENDER, sender);
    bench.sip_in(&text);
    let sent = bench.take_sip();
    let answer = sent.iter().find(|m| m.start.starts_with("SIP/2.0"));
    answer.expect("an answer").what().to_owned()
}

// Proves: DLV-7
#[test]
fn a_sender_takes_back_what_is_not_being_sent() {
    let mut options = options();
    options.post.revoke = true;
    let mut bench = Bench::with(options.clone());
    bench.deposit("one");
    bench.deposit("two");
    let subscribe = bench.expect("SUBSCRIBE");
    assert_eq!(bench.messages(), 2);
    assert_eq!(
        revoke(&mut bench, "sip:+15550178@ims.example.net", "m1"),
        "404",
        "not its own"
    );
    assert_eq!(revoke(&mut bench, SENDER, "m9"), "404");
    assert_eq!(revoke(&mut bench, SENDER, "m1"), "200");
    assert_eq!(bench.messages(), 1);
    assert_eq!(revoke(&mut bench, SENDER, "m1"), "404", "gone");
    let records = bench.records.clone();
    assert_eq!(
        Bench::restarted(options, &records, 2).messages(),
        1,
        "for good"
    );
    let mut notifier = bench.notifier(&subscribe);
    bench.notify(&mut notifier, "full", &[Contact::of(PHONE_A)]);
    let invite = bench.expect("INVITE");
    bench.bound(&invite, &Answer::active());
    let send = bench.expect_msrp("SEND");
    assert!(send.body.ends_with("two"));
    assert_eq!(revoke(&mut bench, SENDER, "m3"), "410", "too late");
    bench.take_message(&send);
    bench.finish();
    assert_eq!(bench.counter("delivered_total"), 1);
}

// Proves: DLV-7
#[test]
fn without_the_option_nobody_takes_anything_back() {
    let mut bench = Bench::new();
    bench.deposit("one");
    bench.take_sip();
    assert_eq!(revoke(&mut bench, SENDER, "m1"), "415");
    assert_eq!(bench.messages(), 1);
}

/// A message that asks for these notices.
fn asking(bench: &mut Bench, wanted: &str) -> String {
    bench
        .deposit_text(USER, "hello", "")
        .replace("positive-delivery", wanted)
}

fn fitted(text: &str) -> String {
    let (head, body) = text.split_once("\r\n\r\n").expect("a message");
    let lines: Vec<_> = head
        .split("\r\n")
        .filter(|line| !line.starts_with("Content-Length"))
        .collect();
    format!(
        "{}\r\nContent-Length: {}\r\n\r\n{body}",
        lines.join("\r\n"),
        body.len()
    )
}

// Proves: IMDN-5, IMDN-3
#[test]
fn a_stored_notice_goes_out_once_if_asked_for_and_allowed() {
    for (allowed, wanted, expected) in [
        (true, "processing", 1),
        (true, "positive-delivery, processing", 1),
        (true, "positive-delivery", 0),
        (false, "processing", 0),
    ] {
        let mut options = options();
        options.post.stored_notices = allowed;
        let mut bench = Bench::with(options);
        bench.durable = false;
        let text = fitted(&asking(&mut bench, wanted));
        bench.sip_in(&text);
        assert!(bench.take_sip().is_empty(), "not before it is stored");
        bench.release();
        bench.durable = true;
        let again = text
            .replace("branch=z9hG4bKm", "branch=z9hG4bKx")
            .replace("Call-ID: msg", "Call-ID: x");
        bench.sip_in(&again);
        let sent = bench.take_sip();
        let notices: Vec<_> = sent.iter().filter(|m| m.what() == "MESSAGE").collect();
        assert_eq!(notices.len(), expected, "{allowed} {wanted}");
        for notice in notices {
            assert_eq!(notice.uri(), SENDER);
            assert!(notice.body.contains("<stored/>"), "{}", notice.body);
            assert!(notice.body.contains("<processing-notification>"));
            assert!(notice.body.contains("<message-id>m1</message-id>"));
            assert!(!notice.body.contains("Disposition-Notification"));
        }
    }
}

const PF: &str = "sip:cpm-pf@ims.example.net";

fn routed_notice(way: &str) -> String {
    crlf(&format!(
        "From: <{USER}>\nTo: <{SENDER}>\nNS: imdn <urn:ietf:params:imdn>\n\
         imdn.Message-ID: n1\n{way}\nContent-Type: message/imdn+xml\n\
         Content-Disposition: notification\n\n\
         <imdn xmlns=\"urn:ietf:params:xml:ns:imdn\"><message-id>m1</message-id>\
         <datetime>2026-11-22T05:58:01Z</datetime><display-notification><status><displayed/>\
         </status></display-notification></imdn>"
    ))
}

// Proves: IMDN-2
#[test]
fn notices_come_back_over_us_and_go_on_to_the_next_on_their_way() {
    let mut options = options();
    options.post.imdn_route = PF.as_bytes().to_vec();
    let mut bench = Bench::with(options);
    let (session, _, send) = bench.sending();
    let ours = format!("imdn.IMDN-Record-Route: <{PF}>\r\n");
    assert_eq!(send.body.matches(&ours).count(), 1, "{}", send.body);
    bench.take_message(&send);
    bench.take_sip();
    // In the session of the push.
    let way = format!("imdn.IMDN-Route: <{PF}>\nimdn.IMDN-Route: <sip:next@ims.example.net>\n");
    let body = routed_notice(&way);
    let len = body.len();
    let text = format!(
        "MSRP note0001 SEND\r\nTo-Path: {}\r\nFrom-Path: {}\r\nMessage-ID: N1\r\n\
         Byte-Range: 1-{len}/{len}\r\nContent-Type: message/cpim\r\n\r\n{body}\r\n-------note0001$\r\n",
        session.invite.path(),
        session.answer.path
    );
    bench.feed(session.link, text.as_bytes());
    let passed = bench.expect_some("MESSAGE");
    assert_eq!(passed.uri(), "sip:next@ims.example.net");
    assert!(!passed.body.contains(PF), "{}", passed.body);
    assert!(
        passed
            .body
            .contains("imdn.IMDN-Route: <sip:next@ims.example.net>")
    );
    bench.reply(&passed, "200 OK", "");
    // As a MESSAGE to us by name.
    let body = routed_notice(&format!("imdn.IMDN-Route: <{PF}>\n"));
    let text = bench.raw_deposit(PF, "Content-Type: message/cpim\n", &body);
    bench.sip_in(&text);
    let sent = bench.take_sip();
    let passed = sent
        .iter()
        .find(|m| m.what() == "MESSAGE")
        .expect("passed on");
    assert_eq!(passed.uri(), SENDER, "the last one goes to whom it is for");
    assert!(!passed.body.contains("IMDN-Route"));
    assert!(sent.iter().any(|m| m.what() == "202"));
    // Not over us: no business of ours.
    let body = routed_notice("imdn.IMDN-Route: <sip:other@ims.example.net>\n");
    let text = bench.raw_deposit(PF, "Content-Type: message/cpim\n", &body);
    bench.sip_in(&text);
    bench.expect("404");
}

// Proves: IMDN-2
#[test]
fn without_the_option_messages_pass_as_they_came() {
    let mut bench = Bench::new();
    let (_, _, send) = bench.sending();
    assert!(!send.body.contains("IMDN-Record-Route"));
}

/// A third-party REGISTER with copies of the UE's REGISTER and of its answer.
fn register(bench: &mut Bench, contact: &str) -> String {
    bench.serial += 1;
    let n = bench.serial;
    let answer = message(
        &format!(
            "SIP/2.0 200 OK\nVia: SIP/2.0/UDP 198.51.100.7:5060;branch=z9hG4bKue\n\
             From: <{USER}>;tag=ue\nTo: <{USER}>;tag=scscf\nCall-ID: ue-reg\nCSeq: 4 REGISTER\n\
             Contact: {contact}\n"
        ),
        "",
    );
    let asked = message(
        &format!(
            "REGISTER sip:ims.example.net SIP/2.0\nVia: SIP/2.0/UDP 198.51.100.7:5060;branch=z9hG4bKue\n\
             From: <{USER}>;tag=ue\nTo: <{USER}>\nCall-ID: ue-reg\nCSeq: 4 REGISTER\n"
        ),
        "",
    );
    let body = format!(
        "--copy\r\nContent-Type: message/sip\r\n\r\n{asked}\r\n--copy\r\n\
         Content-Type: message/sip\r\n\r\n{answer}\r\n--copy--\r\n"
    );
    message(
        &format!(
            "REGISTER sip:pf1.ims.example.net SIP/2.0\n\
             Via: SIP/2.0/TCP 192.0.2.20:5060;branch=z9hG4bKr{n}\nMax-Forwards: 70\n\
             From: <sip:scscf1.ims.example.net>;tag=s{n}\nTo: <{USER}>\nCall-ID: reg{n}@scscf\n\
             CSeq: 1 REGISTER\nContact: <sip:scscf1.ims.example.net>\nExpires: 600000\n\
             Content-Type: multipart/mixed;boundary=copy\n"
        ),
        &body,
    )
}

// Proves: ISC-3, BAD-23
#[test]
fn contacts_that_come_with_the_register_spare_the_subscription() {
    let good = format!(
        "<sip:+15550100@198.51.100.7:5060>;+sip.instance=\"<{PHONE_A}>\";\
         +g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.deferred\";\
         pub-gruu=\"{USER};gr={PHONE_A}\";expires=3600"
    );
    let evil = good.replace(";gr=", ";x=\\\"&<\";gr=");
    for (trusted, contact, invited) in [
        (true, &good, true),
        (false, &good, false),
        (true, &evil, false),
    ] {
        let mut options = options();
        options.subscribe.trust_register_body = trusted;
        let mut bench = Bench::with(options);
        let text = register(&mut bench, contact);
        bench.sip_in(&text);
        bench.expect("200");
        let text = bench.deposit_text(USER, "hello", "");
        bench.sip_in(&text);
        bench.run_ms(300);
        let sent = bench.take_sip();
        let count = |what: &str| sent.iter().filter(|m| m.what() == what).count();
        assert_eq!(count("INVITE"), usize::from(invited), "{trusted} {contact}");
        if invited {
            assert_eq!(count("SUBSCRIBE"), 0);
            let invite = sent.iter().find(|m| m.what() == "INVITE").expect("counted");
            assert_eq!(invite.uri(), format!("{USER};gr={PHONE_A}"));
        }
    }
}

// Proves: IMS-8
#[test]
fn failures_say_who_failed_if_wanted() {
    for wanted in [true, false] {
        let mut options = options();
        if wanted {
            options.profile.response_source = "urn:3gpp:fe:as.cpm".into();
        }
        let mut bench = Bench::with(options);
        let bad = bench.raw_deposit(USER, "Content-Type: image/png\n", "x");
        bench.sip_in(&bad);
        let refused = bench.expect("415");
        assert_eq!(refused.has("Response-Source"), wanted);
        if wanted {
            assert_eq!(
                refused.get("Response-Source"),
                "fe=\"<urn:3gpp:fe:as.cpm>\""
            );
        }
        let stray = bad.replace("MESSAGE", "BYE");
        bench.sip_in(&stray);
        assert_eq!(bench.expect("481").has("Response-Source"), wanted);
        bench.durable = false;
        let text = bench.deposit_text(USER, "hello", "");
        bench.sip_in(&text);
        bench.fail_store();
        assert_eq!(bench.expect("503").has("Response-Source"), wanted);
        let mut bench = Bench::new();
        let text = bench.deposit_text(USER, "hello", "");
        bench.sip_in(&text);
        assert!(!bench.expect("202").has("Response-Source"), "no failure");
    }
}

// Proves: BAD-5
#[test]
fn the_last_hop_is_allowed_to_be_us() {
    let mut bench = Bench::new();
    let zero = |text: String| {
        assert!(text.contains("Max-Forwards: 66"));
        text.replace("Max-Forwards: 66", "Max-Forwards: 0")
    };
    let text = bench.deposit_text(USER, "hello", "");
    bench.sip_in(&zero(text));
    bench.expect("202");
    assert_eq!(bench.messages(), 1);
    bench.take_sip();
    let text = bench.raw_deposit(USER, "", "");
    bench.sip_in(&zero(text).replace("MESSAGE", "OPTIONS"));
    bench.expect("200");
}

// Proves: BAD-8
#[test]
fn nothing_is_demanded_of_a_peer_that_says_nothing_of_extensions() {
    let mut bench = Bench::new();
    for method in [
        "MESSAGE",
        "OPTIONS",
        "INVITE",
        "REGISTER",
        "NOTIFY",
        "SUBSCRIBE",
        "BYE",
        "UPDATE",
        "INFO",
        "PUBLISH",
        "REFER",
        "PRACK",
        "FETCH",
    ] {
        for lines in ["", "Supported: \n", "Supported: 100rel, gruu\n"] {
            let lines = format!("{lines}Content-Type: text/plain\n");
            let text = bench
                .raw_deposit(USER, &lines, "x")
                .replace("MESSAGE", method);
            bench.sip_in(&text);
            for sent in bench.take_sip() {
                assert_ne!(sent.what(), "421", "{method}");
                let is_answer = sent.start.starts_with("SIP/2.0");
                assert!(!(is_answer && sent.has("Require")), "{}", sent.text);
            }
        }
    }
}

// Proves: AMB-15
#[test]
fn a_document_with_the_version_that_is_known_changes_nothing() {
    for strict in [true, false] {
        let mut options = options();
        options.campaign.registry.full_at_equal_version = !strict;
        let mut bench = Bench::with(options);
        let (_, mut notifier, send) = bench.sending();
        bench.take_message(&send);
        bench.finish();
        bench.run_s(5);
        // Its device is gone, says a document with the old version.
        let mut gone = Contact::of(PHONE_A);
        gone.state = "terminated";
        gone.event = "unregistered";
        gone.cseq += 1;
        notifier.version -= 1;
        bench.notify(&mut notifier, "partial", &[gone]);
        bench.deposit("later");
        let invite = bench.expect("INVITE");
        bench.reply(&invite, "486 Busy Here", "");
        bench.expect("ACK");
        // A full one is a registrar whose version stands still, unless the operator knows better.
        notifier.version -= 1;
        bench.notify(&mut notifier, "full", &[]);
        bench.run_s(120);
        let tried = bench.take_sip().iter().any(|m| m.what() == "INVITE");
        assert_eq!(tried, strict);
    }
}

// Proves: IMS-3
#[test]
fn the_service_that_the_core_asserts_decides_and_its_absence_is_tolerated() {
    let mut bench = Bench::new();
    let service = |name: &str| {
        format!(
            "P-Asserted-Service: urn:urn-7:3gpp-service.ims.icsi.{name}\nContent-Type: text/plain\n"
        )
    };
    for lines in [
        "Content-Type: text/plain\n".to_owned(),
        service("oma.cpm.msg"),
        service("oma.cpm.deferred"),
    ] {
        let text = bench.raw_deposit(USER, &lines, "x");
        bench.sip_in(&text);
        bench.expect_some("202");
    }
    bench.take_sip();
    let sdp = crlf(
        "v=0\no=- 1 1 IN IP4 192.0.2.30\ns=-\nc=IN IP4 192.0.2.30\nt=0 0\nm=message 2855 TCP/MSRP *\n\
         a=path:msrp://192.0.2.30:2855/s;tcp\na=accept-types:message/cpim\na=setup:active\na=sendonly\n",
    );
    let wish = "Accept-Contact: *;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.largemsg\"\n";
    for (asserted, wished, expected) in [
        ("oma.cpm.largemsg", false, "200"),
        ("oma.cpm.deferred", false, "200"),
        ("oma.cpm.msg", true, "488"),
        ("mmtel", true, "488"),
        ("", true, "200"),
        ("", false, "488"),
    ] {
        let mut lines = "Contact: <sip:s@192.0.2.30>\nContent-Type: application/sdp\n".to_owned();
        if !asserted.is_empty() {
            lines += &format!("P-Asserted-Service: urn:urn-7:3gpp-service.ims.icsi.{asserted}\n");
        }
        if wished {
            lines += wish;
        }
        let text = bench
            .raw_deposit(USER, &lines, &sdp)
            .replace("MESSAGE", "INVITE");
        bench.sip_in(&text);
        bench.expect(expected);
    }
}
