//! Large message mode: intake by INVITE and MSRP, storage in parts, push from parts.

use crate::harness::script::{Answer, Contact, PHONE_A, USER, message};
use crate::harness::text::{Msrp, Sip, crlf};
use crate::harness::{Bench, SCSCF, addr, options};
use volley::base::surface::{LinkId, LinkKind};
use volley::shard::ShardOptions;

const PATH: &str = "msrp://192.0.2.30:2855/sender1;tcp";
const PART: usize = 65_536;

fn offer(setup: &str, direction: &str) -> String {
    crlf(&format!(
        "v=0\no=- 1 1 IN IP4 192.0.2.30\ns=-\nc=IN IP4 192.0.2.30\nt=0 0\n\
         m=message 2855 TCP/MSRP *\na=path:{PATH}\na=accept-types:message/cpim\n\
         a=setup:{setup}\na={direction}\n"
    ))
}

fn invite(bench: &mut Bench, lines: &str, sdp: &str) -> String {
    bench.serial += 1;
    let n = bench.serial;
    let transport = if bench.udp.is_some() { "UDP" } else { "TCP" };
    message(
        &format!(
            "INVITE {USER} SIP/2.0\n\
             Via: SIP/2.0/{transport} 192.0.2.20:5060;branch=z9hG4bKi{n}\n\
             Record-Route: <sip:mo@scscf1.ims.example.net:5060;transport=tcp;lr>\n\
             Max-Forwards: 66\nFrom: <sip:+15550177@ims.example.net>;tag=snd{n}\n\
             To: <{USER}>\nCall-ID: inv{n}@sender\nCSeq: 7 INVITE\n\
             Contact: <sip:sender@192.0.2.30:5060>\nSupported: timer\n\
             P-Asserted-Identity: <sip:+15550177@ims.example.net>\n\
             Conversation-ID: conv1\nContribution-ID: contr{n}\n{lines}\
             Content-Type: application/sdp\n"
        ),
        sdp,
    )
}

const LARGE: &str =
    "Accept-Contact: *;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.largemsg\"\n";

/// The sender's side of an agreed session.
struct Sender {
    invite: String,
    ok: Sip,
    link: LinkId,
    serial: u32,
}

fn ack_of(invite: &str, ok: &Sip, method: &str, cseq: u32) -> String {
    let line = |name: &str| {
        let start = format!("{name}: ");
        let found = invite.split("\r\n").find_map(|l| l.strip_prefix(&*start));
        found.expect("the header is there").to_owned()
    };
    message(
        &format!(
            "{method} sip:push@pf1.ims.example.net:5060 SIP/2.0\n\
             Via: {}x{cseq}{method}\nMax-Forwards: 70\nFrom: {}\nTo: {}\nCall-ID: {}\n\
             CSeq: {cseq} {method}\n",
            line("Via"),
            line("From"),
            ok.get("To"),
            line("Call-ID")
        ),
        "",
    )
}

fn start(bench: &mut Bench) -> Sender {
    let invite = invite(bench, LARGE, &offer("active", "sendonly"));
    bench.sip_in(&invite);
    let ok = bench.expect("200");
    bench.sip_in(&ack_of(&invite, &ok, "ACK", 7));
    let link = bench.open(LinkKind::MsrpInbound, addr("192.0.2.30:40000"));
    Sender {
        invite,
        ok,
        link,
        serial: 0,
    }
}

impl Sender {
    /// One SEND, with `range` as it is written.
    fn chunk(&mut self, bench: &mut Bench, id: &str, range: &str, body: &str, flag: char) -> Msrp {
        self.chunk_of(bench, ("message/cpim", id, range), body, flag);
        let mut frames = bench.take_msrp();
        assert!(!frames.is_empty(), "a chunk is answered");
        let frame = frames.remove(0);
        for rest in frames.into_iter().rev() {
            bench.put_back(rest);
        }
        frame
    }

    fn chunk_of(
        &mut self,
        bench: &mut Bench,
        (content_type, id, range): (&str, &str, &str),
        body: &str,
        flag: char,
    ) {
        self.serial += 1;
        let tid = format!("snd{:08}", self.serial);
        let text = format!(
            "MSRP {tid} SEND\r\nTo-Path: {}\r\nFrom-Path: {PATH}\r\nMessage-ID: {id}\r\n\
             Success-Report: yes\r\nByte-Range: {range}\r\nContent-Type: {content_type}\r\n\r\n\
             {body}\r\n-------{tid}{flag}\r\n",
            self.ok.path()
        );
        bench.feed(self.link, text.as_bytes());
    }

    /// A whole message in chunks of 8 KiB, each of which is taken.
    fn send(&mut self, bench: &mut Bench, id: &str, text: &str) {
        let total = text.len();
        let mut at = 0;
        while at < total {
            let end = (at + 8192).min(total);
            let flag = if end == total { '$' } else { '+' };
            let range = format!("{}-{end}/{total}", at + 1);
            let answer = self.chunk(bench, id, &range, &text[at..end], flag);
            assert_eq!(answer.what, "200", "{}", answer.text);
            at = end;
        }
    }

    fn bye(&self, bench: &mut Bench) {
        bench.sip_in(&ack_of(&self.invite, &self.ok, "BYE", 8));
        bench.expect_some("200");
    }
}

/// A CPIM whose content has `len` octets.
fn letter(id: &str, len: usize) -> String {
    let head = crlf(&format!(
        "From: <sip:+15550177@ims.example.net>\nTo: <{USER}>\n\
         DateTime: 2026-11-22T05:58:01Z\nNS: imdn <urn:ietf:params:imdn>\n\
         imdn.Message-ID: {id}\n\nContent-Type: text/plain\n\n"
    ));
    let content: String = (0..len)
        .map(|at| char::from(b"abcdefghijklmnopqrstuvwxyz\n"[(at * 7 + at / 911) % 27]))
        .collect();
    format!("{head}{content}")
}

/// The phone takes everything that is sent, in as many windows as it needs; gives the octets.
fn take_all(bench: &mut Bench) -> String {
    let mut text = String::new();
    loop {
        let frames = bench.take_msrp();
        let sends: Vec<_> = frames.iter().filter(|frame| frame.what == "SEND").collect();
        if sends.is_empty() {
            return text;
        }
        for send in sends {
            let (start, end, total) = send.range();
            assert_eq!(start, text.len() as u64 + 1, "in order, without a gap");
            text += &send.body;
            assert_eq!(end, text.len() as u64);
            bench.msrp_reply(send, "200 OK");
            if send.flag == '$' {
                assert_eq!(end, total);
                bench.msrp_report(send, &format!("1-{total}/{total}"), "200 OK");
            }
        }
    }
}

fn parts(bench: &Bench) -> usize {
    bench
        .records
        .iter()
        .filter(|(_, payload)| payload[1] == 3)
        .count()
}

fn roomy() -> ShardOptions {
    let mut options = options();
    options.post.quota.bytes_max = 32 << 20;
    options
}

// Proves: INT-13, INT-1, SDP-14
#[test]
fn an_invite_that_announces_a_large_message_is_answered_recvonly() {
    let mut bench = Bench::new();
    let service = "P-Asserted-Service: urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg\n";
    for (lines, setup, direction, ours) in [
        (LARGE, "active", "sendonly", "passive"),
        (service, "active", "sendrecv", "passive"),
        (service, "passive", "sendonly", "active"),
        (LARGE, "actpass", "sendonly", "active"),
    ] {
        let text = invite(&mut bench, lines, &offer(setup, direction));
        bench.sip_in(&text);
        let ok = bench.expect("200");
        assert!(ok.body.contains("a=recvonly\r\n"), "{}", ok.body);
        assert!(ok.body.contains(&format!("a=setup:{ours}\r\n")));
        assert!(
            ok.body.contains("a=max-size:8388608\r\n"),
            "the quota bounds it"
        );
        assert!(ok.body.contains("a=accept-types:message/cpim\r\n"));
        assert!(ok.has("Contact") && ok.has("Record-Route"));
        assert!(!ok.to_tag().is_empty());
        let frames = bench.take_msrp();
        assert_eq!(
            frames.len(),
            usize::from(ours == "active"),
            "MSRP-17: bound at once"
        );
    }
}

// Proves: INT-13, BAD-15
#[test]
fn what_announces_no_message_or_cannot_send_one_is_refused() {
    let mut bench = Bench::new();
    for (lines, sdp, status) in [
        ("", offer("active", "sendonly"), "488"),
        (LARGE, offer("active", "recvonly"), "488"),
        (LARGE, offer("active", "inactive"), "488"),
        (
            LARGE,
            offer("active", "sendonly").replace("message/cpim", "image/png"),
            "488",
        ),
        (
            LARGE,
            offer("active", "sendonly").replace("2855 TCP/MSRP", "0 TCP/MSRP"),
            "488",
        ),
        (
            LARGE,
            offer("passive", "sendonly").replace("192.0.2.30", "127.0.0.1"),
            "488",
        ),
        (LARGE, String::new(), "488"),
    ] {
        let text = invite(&mut bench, lines, &sdp);
        bench.sip_in(&text);
        let refused = bench.expect(status);
        assert!(refused.has("Warning"), "{}", refused.text);
    }
    let text = invite(
        &mut bench,
        &format!("{LARGE}Session-Expires: 60\n"),
        &offer("active", "sendonly"),
    );
    bench.sip_in(&text);
    assert_eq!(bench.expect("422").get("Min-SE"), "90");
    let other = invite(&mut bench, LARGE, &offer("active", "sendonly"))
        .replace(USER, "sip:+15550100@other.example");
    bench.sip_in(&other);
    bench.expect("404");
    let text = invite(&mut bench, LARGE, &offer("active", "sendonly"))
        .replace("application/sdp", "text/plain");
    bench.sip_in(&text);
    bench.expect("415");
    let mut options = options();
    options.post.large.bytes_max = 0;
    let mut bench = Bench::with(options);
    let text = invite(&mut bench, LARGE, &offer("active", "sendonly"));
    bench.sip_in(&text);
    bench.expect("488");
}

// Proves: INT-13, DLV-3
#[test]
fn a_large_message_is_stored_in_parts_reported_and_pushed_octet_by_octet() {
    let mut bench = Bench::with(roomy());
    let mut sender = start(&mut bench);
    let text = letter("big1", 300_000);
    sender.send(&mut bench, "M1", &text);
    let report = bench.expect_msrp("REPORT");
    assert_eq!(report.get("Status"), "000 200 OK");
    assert_eq!(report.get("Message-ID"), "M1");
    assert_eq!(report.range(), (1, text.len() as u64, text.len() as u64));
    sender.bye(&mut bench);
    assert!(!bench.is_open(sender.link));
    assert_eq!(parts(&bench), text.len() / PART + 1);
    assert!(bench.records.iter().all(|(place, _)| place.len <= 70_000));
    bench.subscribed(&[Contact::of(PHONE_A)]);
    let invite = bench.expect("INVITE");
    assert_eq!(invite.get("Conversation-ID"), "conv1");
    bench.bound(&invite, &Answer::active());
    let got = take_all(&mut bench);
    let (head, content) = got.split_once("\r\n\r\n").expect("a CPIM");
    assert!(
        head.contains("cpm.Conversation-ID: conv1"),
        "CPIM-5: {head}"
    );
    assert_eq!(content, text.split_once("\r\n\r\n").expect("a CPIM").1);
    assert_eq!(bench.messages(), 0);
    bench.finish();
}

// Proves: INT-13
#[test]
fn nothing_is_reported_or_pushed_before_the_record_that_makes_it_a_message() {
    let mut bench = Bench::with(roomy());
    let mut sender = start(&mut bench);
    bench.durable = false;
    let text = letter("big1", 100_000);
    sender.send(&mut bench, "M1", &text);
    bench.run_s(5);
    bench.expect_quiet();
    assert_eq!(bench.messages(), 0);
    bench.release();
    bench.expect_quiet();
    assert_eq!(bench.messages(), 0, "the parts alone are no message");
    bench.release();
    bench.expect_msrp("REPORT");
    bench.expect("SUBSCRIBE");
    assert_eq!(bench.messages(), 1);
}

// Proves: INT-13
#[test]
fn a_sender_is_not_read_from_while_the_store_is_behind() {
    let mut bench = Bench::with(roomy());
    let mut sender = start(&mut bench);
    bench.durable = false;
    let text = letter("big1", 1_000_000);
    let mut at = 0;
    while !bench.is_held(sender.link) {
        let end = at + 8192;
        let range = format!("{}-{end}/{}", at + 1, text.len());
        sender.chunk(&mut bench, "M1", &range, &text[at..end], '+');
        at = end;
        assert!(at < 6 * PART, "no more than a few parts wait");
    }
    assert!(at >= 4 * PART, "and not fewer than configured");
    bench.release();
    assert!(!bench.is_held(sender.link));
}

// Proves: INT-13
#[test]
fn an_abandoned_message_is_not_delivered_and_gives_its_parts_back() {
    let options = roomy();
    for how in ["bye", "lost", "aborted", "silent"] {
        let mut bench = Bench::with(options.clone());
        let mut sender = start(&mut bench);
        let text = letter("big1", 200_000);
        let mut at = 0;
        while at + 8192 < text.len() {
            let range = format!("{}-{}/{}", at + 1, at + 8192, text.len());
            sender.chunk(&mut bench, "M1", &range, &text[at..at + 8192], '+');
            at += 8192;
        }
        assert!(parts(&bench) > 0);
        match how {
            "bye" => sender.bye(&mut bench),
            "lost" => bench.close(sender.link),
            "aborted" => {
                let range = format!("{}-*/{}", at + 1, text.len());
                sender.chunk(&mut bench, "M1", &range, "", '#');
                sender.bye(&mut bench);
            }
            _ => bench.run_s(31),
        }
        if how == "lost" || how == "silent" {
            let bye = bench.expect("BYE");
            assert_eq!(bye.uri(), "sip:sender@192.0.2.30:5060");
            assert_eq!(
                bye.get("Route"),
                "<sip:mo@scscf1.ims.example.net:5060;transport=tcp;lr>"
            );
            assert_eq!(bye.get("From"), sender.ok.get("To"));
            assert_eq!(bye.get("To"), sender.ok.get("From"));
            bench.reply(&bye, "200 OK", "");
            bench.run_s(40);
        }
        bench.expect_quiet();
        assert_eq!(bench.messages(), 0, "{how}");
        assert_eq!(bench.shard.population().users, 0, "{how}: nothing is kept");
        assert_eq!(bench.counter("large_abandoned_total"), 1, "{how}");
        // A message of another user in the next segment: nothing holds the first any more.
        bench.segment = 2;
        let other = bench.deposit_text("sip:+15550101@ims.example.net", "text", "");
        bench.sip_in(&other);
        bench.expect_some("202");
        assert_eq!(bench.given_back, [1], "{how}");
        let records = bench.records.clone();
        let fresh = Bench::restarted(options.clone(), &records, 2);
        assert_eq!(fresh.messages(), 1, "{how}: nor after a restart");
    }
}

// Proves: INT-13, INT-3, DLV-1
#[test]
fn a_restart_finds_whole_messages_and_pushes_them() {
    let options = roomy();
    let mut bench = Bench::with(options.clone());
    let mut sender = start(&mut bench);
    let text = letter("big1", 150_000);
    sender.send(&mut bench, "M1", &text);
    bench.expect_msrp("REPORT");
    let records = bench.records.clone();
    // The deposit that makes it a message is the last record: without it there is none.
    let torn = Bench::restarted(options.clone(), &records[..records.len() - 1], 2);
    assert_eq!(torn.messages(), 0);
    let mut bench = Bench::restarted(options, &records, 3);
    assert_eq!(bench.messages(), 1);
    bench.run_s(1);
    bench.subscribed(&[Contact::of(PHONE_A)]);
    let invite = bench.expect("INVITE");
    bench.bound(&invite, &Answer::active());
    let got = take_all(&mut bench);
    assert!(got.ends_with(text.split_once("\r\n\r\n").expect("a CPIM").1));
    assert_eq!(bench.messages(), 0);
    let records = bench.records.clone();
    let fresh = Bench::restarted(roomy(), &records, 4);
    assert_eq!(fresh.messages(), 0, "and it does not come back");
}

// Proves: INT-13
#[test]
fn what_is_too_large_or_of_another_type_or_out_of_order_is_refused() {
    let mut options = options();
    options.post.large.bytes_max = 100_000;
    let mut bench = Bench::with(options);
    let mut sender = start(&mut bench);
    assert!(sender.ok.body.contains("a=max-size:100000\r\n"));
    let head = letter("big1", 100);
    let answer = sender.chunk(&mut bench, "M1", "1-20/100001", &head[..20], '+');
    assert_eq!(answer.what, "413");
    let answer = sender.chunk(&mut bench, "M2", "99990-*/*", &head[..20], '+');
    assert_eq!(answer.what, "413");
    sender.chunk_of(&mut bench, ("image/png", "M3", "1-4/4"), "\u{1}png", '$');
    assert_eq!(bench.take_msrp()[0].what, "415");
    let answer = sender.chunk(&mut bench, "M4", "100-119/1000", &head[..20], '+');
    assert_eq!(answer.what, "400", "a gap");
    sender.chunk(&mut bench, "M8", "1-20/1000", &head[..20], '+');
    let answer = sender.chunk(&mut bench, "M8", "22-41/1000", &head[21..41], '+');
    assert_eq!(answer.what, "400", "a gap of one octet");
    let (end, more) = (head.len(), head.len() + 50);
    let answer = sender.chunk(&mut bench, "M9", &format!("1-{end}/{more}"), &head, '$');
    assert_eq!(answer.what, "400", "an end before the end");
    let answer = sender.chunk(&mut bench, "M5", "1-20/20", &head[..20], '$');
    assert_eq!(answer.what, "400", "no CPIM");
    // A session that was refused its messages still takes one.
    sender.send(&mut bench, "M6", &head);
    bench.expect_msrp("REPORT");
    assert_eq!(bench.messages(), 1);
    // Octets that came before may come again.
    let text = letter("big2", 1000);
    let total = text.len();
    sender.chunk(
        &mut bench,
        "M7",
        &format!("1-600/{total}"),
        &text[..600],
        '+',
    );
    let again = sender.chunk(
        &mut bench,
        "M7",
        &format!("101-{total}/{total}"),
        &text[100..],
        '$',
    );
    assert_eq!(again.what, "200");
    bench.expect_msrp("REPORT");
    assert_eq!(bench.messages(), 2);
}

// Proves: INT-13, INT-9
#[test]
fn the_quota_bounds_what_is_offered_and_what_is_taken() {
    let mut options = options();
    options.post.quota.bytes_max = 90_000;
    let mut bench = Bench::with(options);
    let mut sender = start(&mut bench);
    assert!(sender.ok.body.contains("a=max-size:90000\r\n"));
    let text = letter("big1", 80_000);
    sender.send(&mut bench, "M1", &text);
    bench.expect_msrp("REPORT");
    bench.take_sip();
    let next = invite(&mut bench, LARGE, &offer("active", "sendonly"));
    bench.sip_in(&next);
    let ok = bench.expect("200");
    let left: u64 = ok
        .body
        .split("\r\n")
        .find_map(|line| line.strip_prefix("a=max-size:"))
        .expect("a bound")
        .parse()
        .expect("a number");
    assert!(left < 10_000, "what is there counts: {left}");
    // Agreed before the first message was there: refused when it turns out not to fit.
    let answer = sender.chunk(
        &mut bench,
        "M2",
        &format!("1-8000/{}", text.len()),
        &letter("big2", 80_000)[..8000],
        '+',
    );
    assert_eq!(answer.what, "413");
}

// Proves: INT-13, INT-4
#[test]
fn a_repeat_is_reported_and_kept_once() {
    let mut bench = Bench::with(roomy());
    let text = letter("big1", 70_000);
    for _ in 0..2 {
        let mut sender = start(&mut bench);
        sender.send(&mut bench, "M1", &text);
        bench.expect_msrp("REPORT");
        sender.bye(&mut bench);
        bench.take_sip();
    }
    assert_eq!(bench.messages(), 1);
    assert_eq!(bench.counter("deposits_duplicate_total"), 1);
}

// Proves: INT-13
#[test]
fn a_repeat_is_not_reported_before_the_first_is_durable() {
    let mut bench = Bench::with(roomy());
    let text = letter("big1", 70_000);
    let mut sender = start(&mut bench);
    bench.durable = false;
    sender.send(&mut bench, "M1", &text);
    let mut again = start(&mut bench);
    again.send(&mut bench, "M1", &text);
    assert!(bench.take_msrp().is_empty(), "nothing is reported yet");
    bench.durable = true;
    bench.release();
    bench.release();
    let reports = bench.take_msrp();
    assert_eq!(
        reports.len(),
        1,
        "of the first only: the second was not sure"
    );
    assert_eq!(bench.messages(), 1);
}

/// The same message in pager mode, in a transaction of its own.
fn pager(bench: &mut Bench, text: &str) -> String {
    bench.raw_deposit(USER, "Content-Type: message/cpim\n", text)
}

// Proves: INT-3, INT-4, INT-13
#[test]
fn a_message_that_repeats_half_a_large_one_is_not_accepted_before_that_is_whole() {
    for comes_whole in [true, false] {
        let mut bench = Bench::with(roomy());
        let text = letter("X", 10_000);
        let mut sender = start(&mut bench);
        let (half, total) = (8_000, text.len());
        let answer = sender.chunk(
            &mut bench,
            "M1",
            &format!("1-{half}/{total}"),
            &text[..half],
            '+',
        );
        assert_eq!(answer.what, "200");
        let copy = pager(&mut bench, &text);
        bench.sip_in(&copy);
        // What others store is no reason.
        let other = bench.deposit_text("sip:+15550101@ims.example.net", "text", "");
        bench.sip_in(&other);
        bench.run_s(1);
        let accepted = |sent: Vec<Sip>| sent.iter().filter(|sip| sip.what() == "202").count();
        assert_eq!(accepted(bench.take_sip()), 1, "the other one");
        if comes_whole {
            let range = format!("{}-{total}/{total}", half + 1);
            bench.durable = false;
            sender.chunk(&mut bench, "M1", &range, &text[half..], '$');
            assert_eq!(accepted(bench.take_sip()), 0, "the record is not durable");
            bench.durable = true;
            bench.release();
            assert_eq!(accepted(bench.take_sip()), 1);
            assert_eq!(bench.messages(), 2, "one copy");
            continue;
        }
        bench.close(sender.link);
        let refused = bench.expect("500");
        assert_eq!(refused.get("CSeq"), "1 MESSAGE");
        bench.expect("BYE");
        assert_eq!(bench.messages(), 1);
        // It is no repeat any more.
        let again = pager(&mut bench, &text);
        bench.sip_in(&again);
        bench.expect("202");
        assert_eq!(bench.messages(), 2);
    }
}

// Proves: INT-3, INT-4
#[test]
fn few_answers_wait_for_one_large_message() {
    let mut bench = Bench::with(roomy());
    let text = letter("X", 10_000);
    let mut sender = start(&mut bench);
    let range = format!("1-8000/{}", text.len());
    sender.chunk(&mut bench, "M1", &range, &text[..8_000], '+');
    for n in 0..10 {
        let copy = pager(&mut bench, &text);
        bench.sip_in(&copy);
        let refused = bench
            .take_sip()
            .iter()
            .filter(|sip| sip.what() == "500")
            .count();
        assert_eq!(refused, usize::from(n >= 4));
    }
}

// Proves: RSP-30
#[test]
fn a_list_of_parts_that_makes_no_sense_is_not_sent_and_ends_nothing() {
    let mut bench = Bench::with(roomy());
    let mut sender = start(&mut bench);
    sender.send(&mut bench, "M1", &letter("big1", 70_000));
    let mut records = bench.records.clone();
    let (_, deposit) = records.last_mut().expect("the deposit is the last record");
    let head = b"From: <sip:+15550177";
    let at = deposit.windows(head.len()).position(|text| text == head);
    // Before the head its length stands in four octets, and that of the whole in eight.
    let total = &mut deposit[at.expect("a head") - 12..][..8];
    total.copy_from_slice(&(65_536_u64 * 4097).to_le_bytes());
    let mut bench = Bench::restarted(roomy(), &records, 2);
    bench.run_s(1);
    bench.subscribed(&[Contact::of(PHONE_A)]);
    let invite = bench.expect("INVITE");
    bench.bound(&invite, &Answer::active());
    bench.run_s(30);
    assert!(bench.take_msrp().is_empty());
    assert_eq!(bench.counter("store_put_off_total"), 1);
    assert_eq!(bench.counter("invites_sent_total"), 1);
    assert_eq!(bench.messages(), 1);
}

// Proves: INT-13, DLV-3
#[test]
fn octets_that_come_again_are_taken_once() {
    let mut bench = Bench::with(roomy());
    let mut sender = start(&mut bench);
    let text = letter("big1", 90_000);
    let total = text.len();
    // Each chunk begins some octets before the end of the one before.
    let mut at = 0;
    while at < total {
        let (start, end) = (at.saturating_sub(at / 100 % 50), (at + 8000).min(total));
        let flag = if end == total { '$' } else { '+' };
        let range = format!("{}-{end}/{total}", start + 1);
        let answer = sender.chunk(&mut bench, "M1", &range, &text[start..end], flag);
        assert_eq!(answer.what, "200");
        at = end;
    }
    bench.expect_msrp("REPORT");
    sender.bye(&mut bench);
    bench.subscribed(&[Contact::of(PHONE_A)]);
    let invite = bench.expect("INVITE");
    bench.bound(&invite, &Answer::active());
    let got = take_all(&mut bench);
    let content = text.split_once("\r\n\r\n").expect("a CPIM").1;
    assert!(got.ends_with(content), "each octet once");
}

// Proves: INT-13, SX-4
#[test]
fn a_200_without_ack_is_repeated_and_the_session_ended() {
    let mut bench = Bench::with(roomy());
    let text = invite(&mut bench, LARGE, &offer("active", "sendonly"));
    bench.sip_in(&text);
    let ok = bench.expect("200");
    bench.run_ms(500);
    let again = bench.expect("200");
    assert_eq!(ok.text, again.text);
    bench.run_s(40);
    let sent = bench.take_sip();
    let byes: Vec<_> = sent.iter().filter(|m| m.what() == "BYE").collect();
    assert_eq!(
        byes.len(),
        1,
        "{:?}",
        sent.iter().map(|m| m.what()).collect::<Vec<_>>()
    );
    assert!(sent.iter().filter(|m| m.what() == "200").count() >= 4);
}

// Proves: INT-13
#[test]
fn an_agreed_session_whose_connection_never_comes_ends() {
    let mut bench = Bench::with(roomy());
    let text = invite(&mut bench, LARGE, &offer("active", "sendonly"));
    bench.sip_in(&text);
    let ok = bench.expect("200");
    bench.sip_in(&ack_of(&text, &ok, "ACK", 7));
    bench.run_s(14);
    bench.expect_quiet();
    bench.run_s(2);
    let bye = bench.expect("BYE");
    bench.reply(&bye, "200 OK", "");
    assert_eq!(bench.shard.population().users, 0);
    // The path is of no use any more.
    let link = bench.open(LinkKind::MsrpInbound, addr("192.0.2.30:40001"));
    let late = crlf(&format!(
        "MSRP late0001 SEND\nTo-Path: {}\nFrom-Path: {PATH}\nMessage-ID: M1\n\
         Byte-Range: 1-0/0\n-------late0001$\n",
        ok.path()
    ));
    bench.feed(link, late.as_bytes());
    bench.expect_msrp("481");
}

// Proves: INT-13, MSRP-16
#[test]
fn a_session_is_bound_to_its_first_connection() {
    let mut bench = Bench::with(roomy());
    let mut sender = start(&mut bench);
    let text = letter("big1", 100);
    let answer = sender.chunk(&mut bench, "M1", "1-50/*", &text[..50], '+');
    assert_eq!(answer.what, "200");
    let first = sender.link;
    sender.link = bench.open(LinkKind::MsrpInbound, addr("192.0.2.30:40001"));
    let answer = sender.chunk(&mut bench, "M1", "51-60/*", &text[50..60], '+');
    assert_eq!(answer.what, "506");
    sender.link = first;
    let answer = sender.chunk(&mut bench, "M1", "51-60/*", &text[50..60], '+');
    assert_eq!(answer.what, "200");
}

// Proves: INT-13, ST-14
#[test]
fn a_refresh_of_the_sender_is_answered_with_the_same_description() {
    let mut bench = Bench::with(roomy());
    let lines = format!("{LARGE}Session-Expires: 1800\n");
    let text = invite(&mut bench, &lines, &offer("active", "sendonly"));
    bench.sip_in(&text);
    let ok = bench.expect("200");
    assert_eq!(ok.get("Session-Expires"), "1800;refresher=uac");
    assert_eq!(ok.get("Require"), "timer");
    bench.sip_in(&ack_of(&text, &ok, "ACK", 7));
    bench.sip_in(&ack_of(&text, &ok, "UPDATE", 8));
    let refreshed = bench.expect("200");
    assert!(refreshed.body.is_empty());
    bench.sip_in(&ack_of(&text, &ok, "INVITE", 9));
    let again = bench.expect("200");
    assert_eq!(again.body, ok.body);
    bench.sip_in(&ack_of(&text, &ok, "BYE", 5));
    bench.expect("500");
    let stranger = ack_of(&text, &ok, "BYE", 10).replace("tag=snd", "tag=other");
    bench.sip_in(&stranger);
    bench.expect("481");
}

// Proves: INT-13, SX-4
#[test]
fn a_200_to_a_refresh_is_repeated_until_its_own_ack() {
    let mut bench = Bench::with(crate::harness::udp_options());
    let text = invite(&mut bench, LARGE, &offer("active", "sendonly"));
    bench.sip_in(&text);
    let ok = bench.expect("200");
    bench.sip_in(&ack_of(&text, &ok, "ACK", 7));
    let link = bench.open(LinkKind::MsrpInbound, addr("192.0.2.30:40000"));
    let mut sender = Sender {
        invite: text.clone(),
        ok: ok.clone(),
        link,
        serial: 0,
    };
    sender.chunk(&mut bench, "M1", "1-10/*", &letter("big1", 100)[..10], '+');
    let refresh = ack_of(&text, &ok, "INVITE", 9);
    bench.sip_in(&refresh);
    let again = bench.expect("200");
    assert_eq!(again.body, ok.body);
    // The table absorbs the repeats of the request; the 200 is repeated by its own timer.
    bench.sip_in(&refresh);
    bench.expect_quiet();
    bench.run_ms(499);
    bench.expect_quiet();
    bench.run_ms(1);
    assert_eq!(bench.expect("200").text, again.text);
    bench.sip_in(&ack_of(&text, &ok, "INVITE", 10));
    let busy = bench.expect("500");
    assert!(busy.has("Retry-After"));
    bench.sip_in(&ack_of(&text, &ok, "ACK", 7).replace("xACK", "late"));
    bench.run_ms(1000);
    bench.expect("200");
    bench.sip_in(&ack_of(&text, &ok, "ACK", 9));
    bench.run_s(20);
    bench.expect_quiet();
    // Without an ACK the session ends.
    bench.sip_in(&ack_of(&text, &ok, "INVITE", 11));
    sender.chunk(
        &mut bench,
        "M1",
        "11-20/*",
        &letter("big1", 100)[10..20],
        '+',
    );
    bench.run_s(20);
    sender.chunk(
        &mut bench,
        "M1",
        "21-30/*",
        &letter("big1", 100)[20..30],
        '+',
    );
    bench.run_s(11);
    assert!(bench.take_sip().iter().all(|sip| sip.what() == "200"));
    bench.run_s(2);
    let bye = bench.expect_some("BYE");
    bench.reply(&bye, "200 OK", "");
    bench.run_s(40);
    bench.take_sip();
    assert_eq!(bench.shard.population().users, 0);
}

// Proves: INT-13, BAD-16
#[test]
fn a_refresh_with_too_short_an_interval_is_refused() {
    let mut bench = Bench::with(roomy());
    let sender = start(&mut bench);
    for method in ["INVITE", "UPDATE"] {
        let text = ack_of(&sender.invite, &sender.ok, method, 8);
        let short = "Supported: timer\r\nSession-Expires: 60\r\nMax-Forwards";
        bench.sip_in(&text.replacen("Max-Forwards", short, 1));
        let refused = bench.expect("422");
        assert_eq!(refused.get("Min-SE"), "90", "{method}");
    }
    sender.bye(&mut bench);
}

// RFC 4028 section 9: only who lists timer knows what a 422 wants of it.
// Proves: ST-14, BAD-16
#[test]
fn a_sender_without_session_timers_is_never_refused_for_its_interval() {
    let mut bench = Bench::with(roomy());
    let lines = format!("{LARGE}Session-Expires: 60\n");
    let text = invite(&mut bench, &lines, &offer("active", "sendonly"));
    bench.sip_in(&text.replace("Supported: timer\r\n", ""));
    let ok = bench.expect("200");
    assert!(!ok.has("Session-Expires") && !ok.has("Require"));
    let mut bench = Bench::with(roomy());
    let sender = start(&mut bench);
    for method in ["INVITE", "UPDATE"] {
        let text = ack_of(&sender.invite, &sender.ok, method, 8);
        let short = "Session-Expires: 60\r\nMax-Forwards";
        bench.sip_in(&text.replacen("Max-Forwards", short, 1));
        assert!(!bench.expect("200").has("Session-Expires"), "{method}");
    }
    sender.bye(&mut bench);
}

// Proves: SDP-18, SEL-6
#[test]
fn a_phone_that_takes_less_is_not_sent_a_large_message() {
    let mut bench = Bench::with(roomy());
    let mut sender = start(&mut bench);
    sender.send(&mut bench, "M1", &letter("big1", 100_000));
    bench.expect_msrp("REPORT");
    sender.bye(&mut bench);
    bench.subscribed(&[Contact::of(PHONE_A)]);
    let invite = bench.expect("INVITE");
    let mut answer = Answer::active();
    answer.sdp = answer
        .sdp
        .replace("a=recvonly", "a=max-size:50000\r\na=recvonly");
    bench.bound(&invite, &answer);
    assert!(bench.take_msrp().is_empty());
    assert_eq!(bench.counter("refused_too_large_total"), 1);
    assert_eq!(bench.messages(), 1, "another phone may take it");
}

// Proves: INT-13
#[test]
fn two_phones_read_the_same_parts_each_at_its_own_pace() {
    let mut bench = Bench::with(roomy());
    let mut sender = start(&mut bench);
    let text = letter("big1", 200_000);
    sender.send(&mut bench, "M1", &text);
    bench.expect_msrp("REPORT");
    sender.bye(&mut bench);
    bench.subscribed(&[
        Contact::of(PHONE_A),
        Contact::of(crate::harness::script::PHONE_B),
    ]);
    let (one, two) = (bench.expect("INVITE"), bench.expect("INVITE"));
    bench.bound(&one, &Answer::active());
    let first = bench.take_msrp();
    assert_eq!(first.len(), 8, "a window");
    let mut other = Answer::active();
    other.tag = "ue-other";
    bench.bound(&two, &other);
    let got = take_all(&mut bench);
    assert!(got.len() > 200_000);
    assert_eq!(bench.messages(), 1, "the slow one still waits");
    for send in &first {
        bench.msrp_reply(send, "200 OK");
    }
    let mut rest: String = first.iter().map(|send| send.body.as_str()).collect();
    loop {
        let sends = bench.take_msrp();
        if sends.is_empty() {
            break;
        }
        for send in sends {
            rest += &send.body;
            bench.msrp_reply(&send, "200 OK");
        }
    }
    assert_eq!(rest, got);
}

// Proves: INT-13
#[test]
fn over_datagrams_a_repeated_invite_is_one_session() {
    let mut bench = Bench::udp();
    let text = invite(&mut bench, LARGE, &offer("active", "sendonly"));
    bench.datagram(addr(SCSCF), text.as_bytes());
    let ok = bench.expect("200");
    bench.datagram(addr(SCSCF), text.as_bytes());
    bench.expect_quiet();
    bench.run_ms(500);
    let again = bench.expect("200");
    assert_eq!(ok.text, again.text, "repeated by its own timer");
    let ack = ack_of(&text, &ok, "ACK", 7);
    bench.datagram(addr(SCSCF), ack.as_bytes());
    bench.run_s(10);
    bench.expect_quiet();
}

// Proves: INT-13, DLV-1
#[test]
fn a_crash_after_any_record_leaves_a_whole_message_or_none() {
    let mut bench = Bench::with(roomy());
    let mut sender = start(&mut bench);
    sender.send(&mut bench, "M1", &letter("big1", 200_000));
    bench.expect_msrp("REPORT");
    let closed = bench.records.len();
    sender.send(&mut bench, "M2", &letter("big2", 70_000));
    bench.expect_msrp("REPORT");
    let second = bench.records.len();
    sender.bye(&mut bench);
    bench.take_sip();
    let text = bench.deposit_text(USER, "small", "");
    bench.sip_in(&text);
    bench.expect_some("202");
    bench.run_s(60);
    let records = bench.records.clone();
    assert!(closed >= 5 && second >= closed + 3);
    for cut in 0..=records.len() {
        let fresh = Bench::restarted(roomy(), &records[..cut], 2);
        let expected =
            usize::from(cut >= closed) + usize::from(cut >= second) + usize::from(cut > second);
        assert_eq!(fresh.messages(), expected, "after {cut} records");
    }
    // Parts that came to lie after the messages of others change nothing.
    let mut mixed = records[closed..].to_vec();
    mixed.extend_from_slice(&records[..closed]);
    assert_eq!(Bench::restarted(roomy(), &mixed, 3).messages(), 3);
}

// Proves: MSRP-6
#[test]
fn a_large_message_leaves_a_shared_connection_to_others_after_each_window() {
    let mut options = roomy();
    options.push.msrp_reuse = true;
    let mut bench = Bench::with(options);
    let mut sender = start(&mut bench);
    sender.send(&mut bench, "M1", &letter("big1", 500_000));
    bench.expect_msrp("REPORT");
    sender.bye(&mut bench);
    bench.subscribed(&[
        Contact::of(PHONE_A),
        Contact::of(crate::harness::script::PHONE_B),
    ]);
    let (one, two) = (bench.expect("INVITE"), bench.expect("INVITE"));
    bench.bound(&one, &Answer::passive());
    let first = bench.take_msrp();
    let mut other = Answer::passive();
    other.tag = "ue-other";
    bench.bound(&two, &other);
    let second = bench.take_msrp();
    assert_eq!((first.len(), second.len()), (8, 8), "a window each");
    assert_eq!(first[0].link, second[0].link, "on one connection");
    let octets: u64 = first.iter().map(|send| send.body.len() as u64).sum();
    assert_eq!(
        octets,
        16 * 1024,
        "no more of one message is ahead of the others"
    );
}

// Proves: INT-13, MSRP-19, BAD-26
#[test]
fn a_long_chunk_is_taken_piece_by_piece_and_one_too_long_is_not() {
    for (len, taken) in [(200_000, true), (300_000, false)] {
        let mut bench = Bench::with(roomy());
        let sender = start(&mut bench);
        let text = letter("big1", len);
        let total = text.len();
        let frame = format!(
            "MSRP long0001 SEND\r\nTo-Path: {}\r\nFrom-Path: {PATH}\r\nMessage-ID: M1\r\n\
             Success-Report: yes\r\nByte-Range: 1-*/{total}\r\nContent-Type: message/cpim\r\n\r\n\
             {text}\r\n-------long0001$\r\n",
            sender.ok.path()
        );
        for piece in frame.as_bytes().chunks(5000) {
            bench.feed(sender.link, piece);
        }
        let frames = bench.take_msrp();
        let what: Vec<_> = frames.iter().map(|frame| frame.what.as_str()).collect();
        assert_eq!(what, if taken { vec!["200", "REPORT"] } else { vec![] });
        assert_eq!(bench.messages(), usize::from(taken));
        assert_eq!(bench.is_open(sender.link), taken);
    }
}

// Proves: INT-13
#[test]
fn a_sender_that_hangs_up_before_the_report_has_sent_its_message_all_the_same() {
    let mut bench = Bench::with(roomy());
    let mut sender = start(&mut bench);
    bench.durable = false;
    sender.send(&mut bench, "M1", &letter("big1", 100_000));
    sender.bye(&mut bench);
    assert!(!bench.is_open(sender.link));
    bench.release();
    bench.release();
    assert_eq!(bench.messages(), 1);
    bench.expect("SUBSCRIBE");
    bench.run_s(60);
    assert_eq!(bench.counter("byes_sent_total"), 0);
}
