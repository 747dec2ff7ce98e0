//! The session timer (RFC 4028) as the phone sees it.

use crate::harness::Bench;
use crate::harness::script::{Answer, Session};

/// A session whose only message is delivered and whose timer runs.
fn idle_session(session_expires: Option<&'static str>, allow: &'static str) -> (Bench, Session) {
    let mut bench = Bench::patient();
    let (invite, _) = bench.invited();
    let mut answer = Answer::active();
    answer.session_expires = session_expires;
    answer.allow = allow;
    let session = bench.bound(&invite, &answer);
    let send = bench.expect_msrp("SEND");
    bench.take_message(&send);
    (bench, session)
}

const UPDATES: &str = "INVITE, ACK, BYE, UPDATE";
const NO_UPDATES: &str = "INVITE, ACK, BYE";

// Proves: OK-1, ST-8
#[test]
fn the_interval_of_the_response_counts() {
    let (mut bench, session) = idle_session(Some("120;refresher=uac"), UPDATES);
    bench.run_s(70);
    let update = bench.expect("UPDATE");
    let after = update.at.since(session.ack.at).as_millis();
    assert!((57_000..=60_020).contains(&after), "{after} ms");
    assert!(
        update
            .get("Session-Expires")
            .starts_with("120;refresher=uac")
    );
    assert!(update.body.is_empty());
}

// Proves: ST-6, OK-1a
#[test]
fn a_phone_without_session_timer_is_refreshed_as_asked() {
    let (mut bench, session) = idle_session(None, UPDATES);
    bench.run_s(901);
    let update = bench.expect("UPDATE");
    let after = update.at.since(session.ack.at).as_secs();
    assert!((855..=900).contains(&after), "{after} s");
}

// Proves: ST-5, ST-13, AMB-18
#[test]
fn a_phone_that_should_refresh_and_does_not_gets_a_bye_in_time() {
    let (mut bench, session) = idle_session(Some("90;refresher=uas"), UPDATES);
    bench.run_s(59);
    bench.expect_quiet();
    bench.run_s(2);
    let bye = bench.expect("BYE");
    let after = bye.at.since(session.ack.at).as_millis();
    assert!((60_000..=60_050).contains(&after), "{after} ms");
    let (mut bench, session) = idle_session(Some("1800;refresher=uas"), UPDATES);
    bench.run_s(1800);
    let bye = bench.expect("BYE");
    assert_eq!(bye.at.since(session.ack.at).as_secs(), 1768);
}

// Proves: ST-14, ST-5
#[test]
fn a_refresh_of_the_phone_is_answered_and_moves_the_end() {
    let (mut bench, session) = idle_session(Some("90;refresher=uas"), UPDATES);
    bench.run_s(45);
    let lines = "Supported: timer\nSession-Expires: 90;refresher=uac\n";
    let update = bench.in_dialog(&session, "UPDATE", 1, lines, "");
    bench.sip_in(&update);
    let ok = bench.expect("200");
    assert_eq!(ok.get("Session-Expires"), "90;refresher=uac");
    assert_eq!(ok.get("Require"), "timer");
    assert!(!ok.has("Min-SE"));
    bench.run_s(59);
    bench.expect_quiet();
    bench.run_s(2);
    bench.expect("BYE");
}

// Proves: BAD-16, ST-14
#[test]
fn a_refresh_with_too_small_an_interval_is_refused() {
    let (mut bench, session) = idle_session(Some("1800;refresher=uac"), UPDATES);
    let lines = "Supported: timer\nSession-Expires: 60;refresher=uac\n";
    let update = bench.in_dialog(&session, "UPDATE", 1, lines, "");
    bench.sip_in(&update);
    let refused = bench.expect("422");
    let min: u32 = refused.get("Min-SE").parse().expect("a number");
    assert!(min >= 90);
}

// Proves: ST-12
#[test]
fn a_refused_update_falls_back_to_reinvite() {
    let (mut bench, session) = idle_session(Some("120;refresher=uac"), UPDATES);
    bench.run_s(60);
    let update = bench.expect("UPDATE");
    bench.reply(&update, "405 Method Not Allowed", "");
    bench.run_s(20);
    let reinvite = bench.expect("INVITE");
    assert_eq!(reinvite.body, session.invite.body);
    let lines = "Contact: <sip:ue@198.51.100.7>\nAllow: INVITE, ACK, BYE\nRequire: timer\n\
                 Session-Expires: 120;refresher=uac\nContent-Type: application/sdp\n";
    bench.reply_as(&reinvite, "200 OK", "", lines, &session.answer.sdp);
    let ack = bench.expect("ACK");
    assert_eq!(ack.cseq(), reinvite.cseq());
    assert_eq!(ack.uri(), "sip:ue@198.51.100.7");
    bench.run_s(55);
    bench.expect_quiet();
    bench.run_s(6);
    bench.expect("INVITE");
}

// Proves: ST-12, ST-11, ST-13
#[test]
fn refreshes_that_keep_failing_end_in_a_bye() {
    let (mut bench, session) = idle_session(Some("180;refresher=uac"), UPDATES);
    let mut refreshes = 0;
    let bye = loop {
        bench.run_s(1);
        let mut bye = None;
        for message in bench.take_sip() {
            match message.what() {
                "UPDATE" => {
                    refreshes += 1;
                    bench.reply(&message, "500 Server Internal Error", "");
                }
                "BYE" => bye = Some(message),
                other => panic!("unexpected {other}"),
            }
        }
        assert!(bench.passed_ms(session.ack.at) < 180_000, "never ended");
        if let Some(bye) = bye {
            break bye;
        }
    };
    assert!((1..=3).contains(&refreshes), "{refreshes} refreshes");
    let after = bye.at.since(session.ack.at).as_secs();
    assert!((147..=149).contains(&after), "BYE after {after} s");
}

// Proves: ST-12, DLG-9
#[test]
fn a_refresh_nobody_answers_ends_the_dialog() {
    let (mut bench, session) = idle_session(Some("300;refresher=uac"), NO_UPDATES);
    bench.run_s(150);
    bench.expect("INVITE");
    bench.run_s(33);
    let bye = bench.expect("BYE");
    assert!(bye.at.since(session.ack.at).as_secs() < 200);
}

// Proves: DLG-11
#[test]
fn glare_is_resolved_by_waiting() {
    let mut delays = Vec::new();
    for _ in 0..3 {
        let (mut bench, session) = idle_session(Some("120;refresher=uac"), NO_UPDATES);
        bench.run_s(60);
        let reinvite = bench.expect("INVITE");
        let update = bench.in_dialog(&session, "UPDATE", 1, "Supported: timer\n", "");
        bench.sip_in(&update);
        bench.expect("491");
        bench.reply(&reinvite, "491 Request Pending", "");
        bench.expect("ACK");
        let from = bench.now;
        bench.run_s(5);
        let again = bench.expect("INVITE");
        let delay = again.at.since(from).as_millis();
        assert!((2100..=4020).contains(&delay), "{delay} ms");
        delays.push(delay);
    }
    assert_eq!(delays.len(), 3);
}

// Proves: ST-3, RSP-13
#[test]
fn a_422_without_a_usable_minimum_is_not_retried() {
    for lines in ["", "Min-SE: 90000\n", "Min-SE: 4294967295\n"] {
        let mut bench = Bench::new();
        let (invite, _) = bench.invited();
        bench.reply(&invite, "422 Session Interval Too Small", lines);
        bench.expect("ACK");
        bench.run_s(10);
        bench.expect_quiet();
        assert_eq!(bench.messages(), 1);
    }
}

// Proves: ST-2, ST-4
#[test]
fn each_larger_minimum_is_tried_three_times_at_most() {
    let mut bench = Bench::new();
    let (mut invite, _) = bench.invited();
    for min in [2000, 2100, 2200] {
        bench.reply(
            &invite,
            "422 Session Interval Too Small",
            &format!("Min-SE: {min}\n"),
        );
        bench.expect("ACK");
        let retry = bench.expect("INVITE");
        assert_eq!(retry.get("Min-SE"), min.to_string());
        assert!(retry.get("Session-Expires").starts_with(&min.to_string()));
        assert_eq!(retry.cseq(), invite.cseq() + 1);
        invite = retry;
    }
    bench.reply(&invite, "422 Session Interval Too Small", "Min-SE: 2300\n");
    bench.expect("ACK");
    bench.expect_quiet();
}

// Proves: ST-4
#[test]
fn a_refresh_after_an_initial_422_carries_no_minimum() {
    let mut bench = Bench::patient();
    let (invite, _) = bench.invited();
    bench.reply(&invite, "422 Session Interval Too Small", "Min-SE: 2000\n");
    bench.expect("ACK");
    let retry = bench.expect("INVITE");
    let mut answer = Answer::active();
    answer.session_expires = Some("2000;refresher=uac");
    bench.bound(&retry, &answer);
    let send = bench.expect_msrp("SEND");
    bench.take_message(&send);
    bench.run_s(1001);
    let update = bench.expect("UPDATE");
    assert!(!update.has("Min-SE"));
}

// Proves: ST-16, DLG-6
#[test]
fn after_a_restart_the_old_dialog_is_unknown() {
    let mut bench = Bench::new();
    let (session, _, send) = bench.sending();
    let records = bench.records.clone();
    let mut fresh = Bench::restarted(crate::harness::options(), &records, 2);
    let bye = bench.in_dialog(&session, "BYE", 1, "", "");
    fresh.run_s(1);
    fresh.expect("SUBSCRIBE");
    fresh.sip_in(&bye);
    fresh.expect("481");
    drop(send);
}
