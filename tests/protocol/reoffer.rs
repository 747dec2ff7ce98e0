//! Sessions that are described again: offers of the phone, and ours without CEMA.

use std::time::Duration;

use crate::harness::script::{Answer, PHONE_PATH, Session, USER, message, sdp};
use crate::harness::text::{Msrp, Sip, crlf};
use crate::harness::{Bench, PHONE, addr, patient_options, udp_options};

/// Another endpoint of the phone.
const MOVED_PATH: &str = "msrp://198.51.100.8:2900/Qw8uM1zXcV5bN7aSdF3g;tcp";

/// The phone's offer with its direction and whatever else.
fn offer(path: &str, setup: &str, direction: &str) -> String {
    sdp(path, setup, "").replace("recvonly", direction)
}

/// A session of a bench whose pushes stay open, with one message delivered.
fn idle(bench: &mut Bench) -> Session {
    let (session, _, send) = bench.sending();
    bench.take_message(&send);
    bench.expect_quiet();
    session
}

impl Bench {
    fn patient_udp() -> Self {
        let mut options = udp_options();
        options.push.linger = patient_options().push.linger;
        options.push.max_session = patient_options().push.max_session;
        Self::with(options)
    }

    /// The phone's request with an offer.
    fn offered(&mut self, session: &Session, method: &str, cseq: u32, body: &str) -> String {
        let lines = "Contact: <sip:ue@198.51.100.7:5060>\nSupported: timer\n\
                     Content-Type: application/sdp\n";
        self.in_dialog(session, method, cseq, lines, body)
    }

    fn reinvited(&mut self, session: &Session, cseq: u32, body: &str) -> Sip {
        let invite = self.offered(session, "INVITE", cseq, body);
        self.sip_in(&invite);
        self.expect("200")
    }

    fn acked(&mut self, session: &Session, cseq: u32) {
        let ack = self.in_dialog(session, "ACK", cseq, "", "");
        self.sip_in(&ack);
    }

    fn msrp_quiet_for(&mut self, seconds: u64) {
        self.run_s(seconds);
        assert!(self.take_msrp().is_empty(), "MSRP on a paused stream");
    }
}

/// The o= version, and the description without the o= line.
fn version(body: &str) -> (u32, String) {
    let origin = body
        .split("\r\n")
        .find(|line| line.starts_with("o="))
        .expect("an origin");
    let version = origin.split(' ').nth(2).expect("a version");
    (
        version.parse().expect("a number"),
        body.replace(origin, "o="),
    )
}

fn directions(body: &str) -> Vec<&str> {
    let known = ["a=sendonly", "a=recvonly", "a=sendrecv", "a=inactive"];
    let lines = body.split("\r\n");
    lines.filter(|line| known.contains(line)).collect()
}

// Proves: DLG-10, SX-4, ST-14, SDP-2
#[test]
fn a_reinvite_of_the_phone_is_answered_at_once_and_keeps_our_direction() {
    for (mut bench, setup) in [
        (Bench::patient(), "passive"),
        (Bench::patient_udp(), "actpass"),
    ] {
        let session = idle(&mut bench);
        let mut seen = None;
        for (cseq, direction) in [(7, "sendrecv"), (8, "recvonly"), (20, "sendrecv")] {
            let ok = bench.reinvited(&session, cseq, &offer(PHONE_PATH, setup, direction));
            assert_eq!(directions(&ok.body), ["a=sendonly"], "{direction}");
            assert_eq!(ok.get("CSeq"), format!("{cseq} INVITE"));
            assert_eq!(ok.get("Content-Type"), "application/sdp");
            assert!(ok.get("Contact").contains("sip:push@pf1.ims.example.net"));
            assert_eq!(ok.get("Require"), "timer");
            assert!(ok.get("Session-Expires").starts_with("1800;"));
            assert!(ok.get("Allow").contains("UPDATE"));
            assert!(ok.body.contains(session.invite.path()), "{}", ok.body);
            assert!(ok.body.contains("a=setup:active\r\n"));
            // The setup differs from our offer's, so the text is new once and the same afterwards.
            let text = version(&ok.body);
            assert_eq!(text.0, 2);
            assert_eq!(seen.get_or_insert_with(|| text.clone()), &text);
            bench.acked(&session, cseq);
            bench.run_s(5);
            bench.expect_quiet();
        }
        // The connection is the one it was.
        bench.deposit("more");
        let send = bench.expect_msrp("SEND");
        assert_eq!(send.link, session.link);
        bench.take_message(&send);
        assert_eq!(bench.connects.len(), 1);
    }
}

// Proves: SX-4
#[test]
fn a_2xx_without_ack_is_repeated_over_every_transport_and_ends_in_a_bye() {
    for mut bench in [Bench::patient(), Bench::patient_udp()] {
        let session = idle(&mut bench);
        let ok = bench.reinvited(&session, 1, &offer(PHONE_PATH, "passive", "recvonly"));
        bench.run(Duration::from_millis(31_900));
        let repeats = bench.take_sip();
        let times: Vec<u128> = repeats
            .iter()
            .map(|repeat| repeat.at.since(ok.at).as_millis())
            .collect();
        let expected = [
            500, 1500, 3500, 7500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500,
        ];
        assert_eq!(times.len(), expected.len(), "{times:?}");
        for (time, expected) in times.iter().zip(expected) {
            assert!((expected..=expected + 110).contains(time), "{times:?}");
        }
        assert!(repeats.iter().all(|repeat| repeat.text == ok.text));
        bench.run_ms(300);
        let bye = bench.expect("BYE");
        let after = bye.at.since(ok.at).as_millis();
        assert!((32_000..32_050).contains(&after), "{after} ms");
        bench.reply(&bye, "200 OK", "");
        bench.run_s(40);
        assert_eq!(bench.pushes(), 0);
    }
}

// Proves: SX-4
#[test]
fn repeats_of_the_request_cause_nothing_and_the_ack_stops_ours() {
    for mut bench in [Bench::patient(), Bench::patient_udp()] {
        let session = idle(&mut bench);
        let invite = bench.offered(
            &session,
            "INVITE",
            1,
            &offer(PHONE_PATH, "passive", "recvonly"),
        );
        bench.sip_in(&invite);
        bench.expect("200");
        bench.sip_in(&invite);
        bench.sip_in(&invite);
        bench.expect_quiet();
        // An ACK of another number is not the one.
        bench.acked(&session, 3);
        bench.run_ms(600);
        bench.expect("200");
        bench.acked(&session, 1);
        bench.sip_in(&invite);
        bench.run_s(40);
        bench.expect_quiet();
        assert_eq!(bench.pushes(), 1);
    }
}

// Proves: SX-4
#[test]
fn a_refusal_over_datagrams_is_repeated_until_its_ack() {
    let mut bench = Bench::patient_udp();
    let session = idle(&mut bench);
    let invite = bench.offered(
        &session,
        "INVITE",
        1,
        &offer(PHONE_PATH, "holdconn", "recvonly"),
    );
    bench.sip_in(&invite);
    let refused = bench.expect("488");
    bench.run_ms(3900);
    for after in [500, 1500, 3500] {
        let again = bench.expect("488");
        assert_eq!(again.text, refused.text);
        let passed = again.at.since(refused.at).as_millis();
        assert!((after..after + 60).contains(&passed), "{passed} ms");
    }
    bench.expect_quiet();
    let ack = invite
        .replace("INVITE ", "ACK ")
        .replace("1 INVITE", "1 ACK");
    let ack = ack.split("Contact").next().expect("a head").to_owned();
    bench.sip_in(&format!("{ack}Content-Length: 0\r\n\r\n"));
    bench.sip_in(&invite);
    bench.run_s(40);
    bench.expect_quiet();
    assert_eq!(bench.pushes(), 1);
    // Nobody acknowledges: it ends after 64*T1 and the session goes on.
    let invite = invite
        .replace("1 INVITE", "2 INVITE")
        .replace("branch=z9hG4bKd", "branch=z9hG4bKx");
    bench.sip_in(&invite);
    bench.run_s(40);
    let sent = bench.take_sip();
    assert_eq!(sent.len(), 11, "{sent:#?}");
    assert!(sent.iter().all(|message| message.what() == "488"));
    assert_eq!(bench.pushes(), 1);
}

// Proves: DLG-10
#[test]
fn an_inactive_stream_pauses_delivery_until_it_is_taken_up_again() {
    for method in ["INVITE", "UPDATE"] {
        for hold in ["inactive", "sendonly"] {
            let mut bench = Bench::patient();
            let session = idle(&mut bench);
            let request = bench.offered(&session, method, 1, &offer(PHONE_PATH, "passive", hold));
            bench.sip_in(&request);
            let ok = bench.expect("200");
            assert_eq!(directions(&ok.body), ["a=inactive"]);
            assert!(ok.body.contains("m=message 2855 TCP/MSRP *"));
            if method == "INVITE" {
                bench.acked(&session, 1);
            }
            bench.deposit("while on hold");
            bench.msrp_quiet_for(40);
            let request = bench.offered(
                &session,
                method,
                2,
                &offer(PHONE_PATH, "passive", "recvonly"),
            );
            bench.sip_in(&request);
            let resumed = bench.expect("200");
            assert_eq!(directions(&resumed.body), ["a=sendonly"]);
            assert_eq!(version(&resumed.body).0, version(&ok.body).0 + 1);
            let send = bench.expect_msrp("SEND");
            assert!(send.body.contains("while on hold"));
            bench.take_message(&send);
            assert_eq!(bench.messages(), 0);
        }
    }
}

// Proves: DLG-10
#[test]
fn a_message_under_way_stops_at_a_chunk_and_goes_on_after_the_pause() {
    let mut bench = Bench::patient();
    let session = idle(&mut bench);
    bench.deposit(&"x".repeat(40_000));
    let first: Vec<Msrp> = bench.take_msrp();
    let taken = first.len();
    assert!(
        first.iter().any(|frame| frame.flag == '+'),
        "{taken} chunks"
    );
    bench.reinvited(&session, 1, &offer(PHONE_PATH, "passive", "inactive"));
    bench.acked(&session, 1);
    for frame in &first {
        bench.msrp_reply(frame, "200 OK");
    }
    bench.msrp_quiet_for(20);
    bench.reinvited(&session, 2, &offer(PHONE_PATH, "passive", "recvonly"));
    bench.acked(&session, 2);
    let mut last = first.last().expect("chunks").clone();
    let (_, _, total) = last.range();
    while last.range().1 < total {
        let frame = bench.expect_msrp("SEND");
        assert_eq!(frame.range().0, last.range().1 + 1);
        bench.msrp_reply(&frame, "200 OK");
        last = frame;
    }
    bench.msrp_report(&last, &format!("1-{total}/{total}"), "200 OK");
    assert_eq!(bench.messages(), 0);
}

// Proves: DLG-10, DLG-8
#[test]
fn a_stream_with_port_0_is_answered_and_ended_after_the_ack() {
    for mut bench in [Bench::patient(), Bench::patient_udp()] {
        let session = idle(&mut bench);
        let body = offer(PHONE_PATH, "passive", "recvonly").replace("message 2855", "message 0");
        let ok = bench.reinvited(&session, 1, &body);
        assert!(ok.body.contains("m=message 0 TCP/MSRP *"), "{}", ok.body);
        bench.run_ms(400);
        bench.expect_quiet();
        bench.acked(&session, 1);
        let bye = bench.expect("BYE");
        bench.reply(&bye, "200 OK", "");
        bench.run_s(40);
        bench.expect_quiet();
        assert_eq!(bench.pushes(), 0);
    }
    // An UPDATE has no ACK to wait for.
    let mut bench = Bench::patient();
    let session = idle(&mut bench);
    let body = offer(PHONE_PATH, "passive", "recvonly").replace("message 2855", "message 0");
    let update = bench.offered(&session, "UPDATE", 1, &body);
    bench.sip_in(&update);
    bench.expect("200");
    bench.expect("BYE");
}

// Proves: DLG-8
#[test]
fn our_bye_waits_for_the_ack_of_our_2xx() {
    let mut bench = Bench::patient();
    let session = idle(&mut bench);
    let ok = bench.reinvited(&session, 1, &offer(PHONE_PATH, "passive", "recvonly"));
    bench.close(session.link);
    bench.run_ms(400);
    bench.expect_quiet();
    bench.run_ms(200);
    assert_eq!(bench.expect("200").text, ok.text);
    bench.acked(&session, 1);
    let bye = bench.expect("BYE");
    bench.reply(&bye, "200 OK", "");
    bench.run_s(1);
    assert_eq!(bench.pushes(), 0);
    // The ACK never comes: the BYE waits for the end of its wait, no longer.
    let mut bench = Bench::patient();
    let session = idle(&mut bench);
    let ok = bench.reinvited(&session, 1, &offer(PHONE_PATH, "passive", "recvonly"));
    bench.close(session.link);
    bench.run_s(33);
    let bye = bench.expect_some("BYE");
    assert_eq!(bye.at.since(ok.at).as_secs(), 32);
    bench.take_sip();
    bench.reply(&bye, "200 OK", "");
    assert_eq!(bench.pushes(), 0);
    // The phone's own BYE ends all of it.
    let mut bench = Bench::patient();
    let session = idle(&mut bench);
    bench.reinvited(&session, 1, &offer(PHONE_PATH, "passive", "recvonly"));
    bench.close(session.link);
    let bye = bench.in_dialog(&session, "BYE", 2, "", "");
    bench.sip_in(&bye);
    bench.expect("200");
    bench.run_s(40);
    bench.expect_quiet();
    assert_eq!(bench.pushes(), 0);
}

// Proves: DLG-10
#[test]
fn media_we_do_not_know_are_answered_with_port_0() {
    let mut bench = Bench::patient();
    let session = idle(&mut bench);
    let ours = offer(PHONE_PATH, "passive", "sendrecv");
    let (head, stream) = ours.split_at(ours.find("m=message").expect("a stream"));
    let audio = "m=audio 40000 RTP/AVP 0 8\r\na=rtpmap:0 PCMU/8000\r\n";
    let video = "m=video 40002 RTP/AVP 96\r\n";
    let ok = bench.reinvited(&session, 1, &format!("{head}{audio}{stream}{video}"));
    let media: Vec<&str> = ok
        .body
        .split("\r\n")
        .filter(|line| line.starts_with("m="))
        .collect();
    assert_eq!(
        media,
        [
            "m=audio 0 RTP/AVP 0 8",
            "m=message 2855 TCP/MSRP *",
            "m=video 0 RTP/AVP 96"
        ]
    );
    assert_eq!(directions(&ok.body), ["a=sendonly"]);
    bench.acked(&session, 1);
}

// Proves: DLG-10
#[test]
fn a_phone_that_moves_its_path_gets_the_rest_there() {
    let mut bench = Bench::patient();
    let (session, _, send) = bench.sending();
    let body = offer(MOVED_PATH, "passive", "recvonly");
    let ok = bench.reinvited(&session, 1, &body);
    assert!(ok.body.contains("a=setup:active\r\n"));
    bench.acked(&session, 1);
    assert_eq!(
        bench.connects,
        [addr(PHONE), addr("198.51.100.8:2900")],
        "another path is another connection"
    );
    assert!(!bench.is_open(send.link));
    let again = bench.expect_msrp("SEND");
    assert_eq!(again.get("To-Path"), MOVED_PATH);
    assert_eq!(again.get("Message-ID"), send.get("Message-ID"));
    assert_eq!(again.body, send.body);
    bench.take_message(&again);
    assert_eq!(bench.messages(), 0);
    bench.expect_quiet();
}

// Proves: DLG-10, SDP-21
#[test]
fn offers_that_cannot_be_answered_leave_the_session_as_it_was() {
    let mut bench = Bench::patient();
    let session = idle(&mut bench);
    let good = offer(PHONE_PATH, "passive", "recvonly");
    let inside = "msrp://127.0.0.1:22/abcdefgh;tcp";
    let bad = [
        good.replace("a=path", "a=pfad"),
        good.replace("message/cpim", "text/plain"),
        good.replace("setup:passive", "setup:holdconn"),
        good.replace("m=message", "m=audio"),
        good.replace(PHONE_PATH, inside),
        "v=0\r\nnonsense".to_owned(),
        "\0".to_owned(),
    ];
    for (number, body) in bad.iter().enumerate() {
        for method in ["INVITE", "UPDATE"] {
            let cseq = 2 * u32::try_from(number).expect("few") + u32::from(method == "UPDATE") + 1;
            let request = bench.offered(&session, method, cseq, body);
            bench.sip_in(&request);
            let refused = bench.expect("488");
            assert!(refused.get("Warning").contains("R-SDP-"), "{body}");
            bench.run_s(1);
            bench.expect_quiet();
        }
    }
    let text = bench.in_dialog(&session, "INVITE", 100, "Content-Type: text/plain\n", "hi");
    bench.sip_in(&text);
    assert_eq!(bench.expect("415").get("Accept"), "application/sdp");
    let small = "Supported: timer\nSession-Expires: 60\nContent-Type: application/sdp\n";
    let small = bench.in_dialog(&session, "INVITE", 101, small, &good);
    bench.sip_in(&small);
    assert!(bench.expect("422").has("Min-SE"));
    let old = bench.offered(&session, "INVITE", 99, &good);
    bench.sip_in(&old);
    bench.expect("500");
    assert_eq!(bench.connects.len(), 1);
    bench.deposit("still here");
    let send = bench.expect_msrp("SEND");
    assert_eq!(send.link, session.link);
    // No refusal was a description of ours.
    let ok = bench.reinvited(&session, 102, &good);
    assert_eq!(version(&ok.body).0, 2);
}

// Proves: DLG-11
#[test]
fn offers_that_meet_are_refused() {
    let body = offer(PHONE_PATH, "passive", "recvonly");
    for mut bench in [Bench::patient(), Bench::patient_udp()] {
        let session = idle(&mut bench);
        let ok = bench.reinvited(&session, 1, &body);
        for method in ["INVITE", "UPDATE"] {
            let cseq = 2 + u32::from(method == "UPDATE");
            let early = bench.offered(&session, method, cseq, &body);
            bench.sip_in(&early);
            let refused = bench.expect("500");
            let wait: u32 = refused.get("Retry-After").parse().expect("a number");
            assert!(wait <= 10);
        }
        // The 2xx is repeated all the same.
        bench.run_ms(600);
        assert_eq!(bench.expect("200").text, ok.text);
        bench.acked(&session, 1);
        bench.run_s(5);
        bench.expect_quiet();
        bench.reinvited(&session, 4, &body);
        bench.acked(&session, 4);
    }
    // Ours is under way.
    let (mut bench, session, reinvite) = anchored();
    for (cseq, method) in [(1, "INVITE"), (2, "UPDATE")] {
        let request = bench.offered(&session, method, cseq, &body);
        bench.sip_in(&request);
        bench.expect("491");
    }
    bench.reply(&reinvite, "491 Request Pending", "");
    bench.expect("ACK");
}

// Proves: DLG-10
#[test]
fn a_reinvite_without_offer_gets_ours_and_its_ack_brings_the_answer() {
    let mut bench = Bench::patient();
    let session = idle(&mut bench);
    let ok = bench.reinvited(&session, 1, "");
    assert_eq!(ok.body, session.invite.body, "nothing changed");
    let body = offer(PHONE_PATH, "passive", "inactive");
    let lines = "Content-Type: application/sdp\n";
    let ack = bench.in_dialog(&session, "ACK", 1, lines, &body);
    bench.sip_in(&ack);
    bench.deposit("on hold");
    bench.msrp_quiet_for(5);
    bench.expect_quiet();
    bench.reinvited(&session, 2, &offer(PHONE_PATH, "passive", "recvonly"));
    bench.acked(&session, 2);
    bench.expect_msrp("SEND");
    // Our offer stands without an answer: the session cannot go on.
    bench.reinvited(&session, 3, "");
    bench.acked(&session, 3);
    bench.expect("BYE");
}

// Proves: SDP-2, ST-9
#[test]
fn a_refresh_after_the_phones_offer_has_a_version_of_its_own() {
    let mut bench = Bench::patient();
    let (invite, _) = bench.invited();
    let mut answer = Answer::passive();
    answer.allow = "INVITE, ACK, BYE";
    answer.session_expires = Some("120;refresher=uac");
    let mut session = bench.bound(&invite, &answer);
    let send = bench.expect_msrp("SEND");
    session.link = send.link;
    bench.take_message(&send);
    let ok = bench.reinvited(&session, 1, &offer(PHONE_PATH, "passive", "recvonly"));
    bench.acked(&session, 1);
    assert_eq!(version(&ok.body).0, 2);
    let mut refreshes = Vec::new();
    for _ in 0..2 {
        bench.run_s(60);
        let refresh = bench.expect("INVITE");
        let lines = "Contact: <sip:ue@198.51.100.7>\nAllow: INVITE, ACK, BYE\nRequire: timer\n\
                     Session-Expires: 120;refresher=uac\nContent-Type: application/sdp\n";
        bench.reply_as(&refresh, "200 OK", "", lines, &session.answer.sdp);
        bench.expect("ACK");
        refreshes.push(refresh.body);
    }
    assert_eq!(version(&refreshes[0]).0, 3);
    assert_eq!(refreshes[0], refreshes[1]);
    assert_eq!(version(&refreshes[0]).1, version(&session.invite.body).1);
}

/// An answer through an anchor that knows no CEMA: c= and m= are its own, the path is the phone's, and
/// the phone is to connect. Gives our second INVITE.
fn anchored() -> (Bench, Session, Sip) {
    let mut bench = Bench::patient();
    let (invite, _) = bench.invited();
    let mut answer = Answer::active();
    answer.sdp = anchor(&answer.sdp);
    let ack = bench.accept(&invite, &answer);
    let reinvite = bench.expect("INVITE");
    let session = Session {
        invite,
        ack: ack.clone(),
        answer,
        link: ack.link,
    };
    (bench, session, reinvite)
}

fn anchor(sdp: &str) -> String {
    sdp.replace("c=IN IP4 198.51.100.7", "c=IN IP4 203.0.113.5")
        .replace("m=message 2855", "m=message 30000")
}

const ACCEPT: &str = "Contact: <sip:ue@198.51.100.7>\nAllow: INVITE, ACK, BYE, UPDATE\n\
                      Require: timer\nSession-Expires: 1800;refresher=uac\n\
                      Content-Type: application/sdp\n";

// Proves: SDP-16, SDP-2
#[test]
fn an_anchor_without_cema_gets_one_more_offer_without_it() {
    let (mut bench, session, reinvite) = anchored();
    assert!(session.invite.body.contains("a=msrp-cema\r\n"));
    let (first, text) = version(&session.invite.body);
    let (second, without) = version(&reinvite.body);
    assert_eq!((first, second), (1, 2));
    assert_eq!(without, text.replace("a=msrp-cema\r\n", ""));
    assert_eq!(reinvite.cseq(), session.invite.cseq() + 1);
    assert_eq!(reinvite.to_tag(), session.answer.tag);
    assert_eq!(
        reinvite.get("Session-Expires"),
        "1800;refresher=uac",
        "a re-INVITE is a refresh too"
    );
    // The first 2xx comes again: its ACK was lost. The same ACK answers it.
    bench.send_200(&session.invite, &session.answer);
    assert_eq!(bench.expect("ACK").text, session.ack.text);
    bench.expect_quiet();
    // The anchor now speaks for the phone, still with its own address: no third offer.
    let sdp = anchor(&Answer::active().sdp);
    bench.reply_as(&reinvite, "200 OK", "", ACCEPT, &sdp);
    let ack = bench.expect("ACK");
    assert_eq!(ack.cseq(), reinvite.cseq());
    assert_eq!(ack.uri(), "sip:ue@198.51.100.7");
    bench.run_s(2);
    bench.expect_quiet();
    // What we say from here on is without it as well.
    let ok = bench.reinvited(&session, 1, &sdp.replace("a=recvonly", "a=msrp-cema"));
    assert!(!ok.body.contains("cema"), "{}", ok.body);
    assert!(ok.body.contains("a=setup:passive\r\n"));
    bench.acked(&session, 1);
    assert_eq!(bench.counter("reoffers_sent_total"), 1);
}

// Proves: SDP-16
#[test]
fn answers_that_agree_with_their_path_need_no_second_offer() {
    let plain = Answer::active().sdp;
    let port_9 = plain.replace("m=message 2855", "m=message 9");
    let cema = anchor(&plain).replace("a=recvonly", "a=msrp-cema\r\na=recvonly");
    // We connect, so we go by the path and nobody has to find us.
    let passive = anchor(&Answer::passive().sdp);
    for sdp in [plain, port_9, cema, passive] {
        let mut bench = Bench::patient();
        let (invite, _) = bench.invited();
        let mut answer = Answer::active();
        answer.sdp = sdp;
        bench.accept(&invite, &answer);
        assert!(bench.sent().is_empty(), "{:?}", bench.sent());
    }
}

// Proves: SDP-16
#[test]
fn an_address_or_a_port_of_the_anchors_own_is_enough_for_a_second_offer() {
    let plain = Answer::active().sdp;
    let host = plain.replace("c=IN IP4 198.51.100.7", "c=IN IP4 203.0.113.5");
    let port = plain.replace("m=message 2855", "m=message 2856");
    let longer = plain.replace("m=message 2855", "m=message 28555");
    for sdp in [host, port, longer] {
        let mut bench = Bench::patient();
        let (invite, _) = bench.invited();
        let mut answer = Answer::active();
        answer.sdp = sdp;
        bench.accept(&invite, &answer);
        assert!(!bench.expect("INVITE").body.contains("cema"));
    }
}

// Proves: DLG-10
#[test]
fn a_phone_that_moves_before_it_is_connected_is_met_at_the_new_place() {
    let mut bench = Bench::patient();
    bench.silent.push(addr(PHONE));
    let (invite, _) = bench.invited();
    let answer = Answer::passive();
    let ack = bench.accept(&invite, &answer);
    let mut session = Session {
        invite,
        link: ack.link,
        ack,
        answer,
    };
    bench.reinvited(&session, 1, &offer(MOVED_PATH, "passive", "recvonly"));
    bench.acked(&session, 1);
    let send = bench.expect_msrp("SEND");
    assert_eq!(send.get("To-Path"), MOVED_PATH);
    assert_eq!(bench.peer_of(send.link), addr("198.51.100.8:2900"));
    bench.take_message(&send);
    session.link = send.link;
    // It takes over the part that connects: the path is new again, and we wait.
    let path = MOVED_PATH.replace("2900", "2901");
    bench.reinvited(&session, 2, &offer(&path, "active", "recvonly"));
    bench.acked(&session, 2);
    bench.deposit("later");
    assert!(bench.take_msrp().is_empty());
    assert_eq!(bench.connects.len(), 2);
    bench.run_s(15);
    bench.expect("BYE");
}

// Proves: SDP-16, DLG-9, DLG-11
#[test]
fn a_failed_second_offer_leaves_the_session_unless_the_dialog_is_gone() {
    let (mut bench, session, reinvite) = anchored();
    bench.reply(&reinvite, "488 Not Acceptable Here", "");
    bench.expect("ACK");
    bench.run_s(1);
    bench.expect_quiet();
    let bind = crlf(&format!(
        "MSRP b1ndabcd SEND\nTo-Path: {}\nFrom-Path: {PHONE_PATH}\nMessage-ID: b1\n\
         Byte-Range: 1-0/0\n-------b1ndabcd$\n",
        session.invite.path()
    ));
    let kind = volley::base::surface::LinkKind::MsrpInbound;
    let link = bench.open(kind, addr("203.0.113.5:40000"));
    bench.feed(link, bind.as_bytes());
    bench.expect_msrp("200");
    bench.expect_msrp("SEND");

    let (mut bench, _, reinvite) = anchored();
    bench.reply(&reinvite, "481 Call/Transaction Does Not Exist", "");
    bench.expect("ACK");
    bench.expect("BYE");

    let (mut bench, _, reinvite) = anchored();
    bench.reply(&reinvite, "491 Request Pending", "");
    bench.expect("ACK");
    let from = bench.now;
    bench.run_s(5);
    let again = bench.expect("INVITE");
    let delay = again.at.since(from).as_millis();
    assert!((2100..=4020).contains(&delay), "{delay} ms");
    assert_eq!(again.body, reinvite.body, "the same description");
    assert_eq!(again.cseq(), reinvite.cseq() + 1);

    let (mut bench, _, reinvite) = anchored();
    let refused = Answer::active().sdp.replace("message 2855", "message 0");
    bench.reply_as(&reinvite, "200 OK", "", ACCEPT, &refused);
    bench.expect("ACK");
    bench.expect("BYE");
}

// Proves: DLG-9
#[test]
fn a_second_offer_nobody_answers_ends_and_nothing_is_left() {
    // A provisional answer stops every timer of the transaction; the BYE must not wait for more.
    let mut options = patient_options();
    options.push.max_session = Duration::from_secs(60);
    let mut bench = Bench::with(options);
    let (invite, _) = bench.invited();
    let mut answer = Answer::active();
    answer.sdp = anchor(&answer.sdp);
    bench.accept(&invite, &answer);
    let reinvite = bench.expect("INVITE");
    bench.reply(&reinvite, "100 Trying", "");
    bench.run_s(20);
    let bye = bench.expect("BYE");
    bench.reply(&bye, "200 OK", "");
    assert_eq!(bench.pushes(), 1);
    bench.run_s(30);
    // What is left is the next try.
    let sent = bench.take_sip();
    let tries = sent.iter().filter(|message| message.what() == "INVITE");
    assert_eq!(bench.pushes(), tries.count());
}

// Proves: DLG-6
#[test]
fn an_offer_outside_a_live_session_is_not_answered_with_one() {
    let mut bench = Bench::new();
    let (session, _, send) = bench.sending();
    bench.take_message(&send);
    bench.run_s(2);
    bench.expect("BYE");
    let body = offer(PHONE_PATH, "passive", "recvonly");
    let late = bench.offered(&session, "INVITE", 1, &body);
    bench.sip_in(&late);
    bench.expect("481");
    let stray = message(
        &format!(
            "ACK sip:push@pf1.ims.example.net SIP/2.0\nVia: SIP/2.0/TCP 192.0.2.20;branch=z9hG4bKs\n\
             Max-Forwards: 70\nFrom: <{USER}>;tag=x\nTo: <{USER}>;tag=y\nCall-ID: q\nCSeq: 1 ACK\n"
        ),
        "",
    );
    bench.sip_in(&stray);
    bench.expect_quiet();
}
