use super::*;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(1_000_000 + millis)
}

fn range(start: u64, end: u64, total: u64) -> ByteRange {
    ByteRange {
        start,
        end: Some(end),
        total: Some(total),
    }
}

fn calm() -> Session {
    Session::default()
}

/// Starts a message and takes its chunks while the window allows.
fn send(session: &mut Session, now: Timestamp, handle: u32, total: u64) -> Vec<Chunk> {
    session.start_message(handle, total);
    core::iter::from_fn(|| session.poll_chunk(now)).collect()
}

// Proves: MSRP-5, MSRP-6, MSRP-3
#[test]
fn chunks_are_in_order_gapless_and_at_most_2048_octets() {
    for total in [0, 1, 2047, 2048, 2049, 3515, 8 * 2048] {
        let chunks = send(&mut calm(), at(0), 7, total);
        let mut next = 1;
        for (index, chunk) in chunks.iter().enumerate() {
            assert_eq!((chunk.start, chunk.total, chunk.handle), (next, total, 7));
            assert!(chunk.len <= 2048);
            let last = index + 1 == chunks.len();
            assert_eq!(chunk.continuation == Continuation::Complete, last);
            assert!(last || chunk.len == 2048);
            next += u64::from(chunk.len);
        }
        assert_eq!(next, total + 1);
    }
}

// Proves: MSRP-7
#[test]
fn the_window_holds_eight_unanswered_sends() {
    let mut session = calm();
    let chunks = send(&mut session, at(0), 1, 2048 * 20);
    assert_eq!(chunks.len(), MSRP_WINDOW);
    assert!(!session.has_chunk());
    assert_eq!(
        session.handle_response(at(1), chunks[3].sequence, 200),
        Outcome::None
    );
    let ninth = session.poll_chunk(at(1)).unwrap();
    assert_eq!(ninth.start, 8 * 2048 + 1);
    assert_eq!(session.poll_chunk(at(1)), None);
    let sequences: Vec<u16> = chunks.iter().map(|chunk| chunk.sequence).collect();
    assert!(!sequences.contains(&ninth.sequence));
}

#[test]
fn messages_follow_without_waiting_until_all_slots_await_reports() {
    let mut session = calm();
    for handle in 0..32 {
        assert!(session.can_start());
        let chunks = send(&mut session, at(0), handle, 100);
        assert_eq!(
            session.handle_response(at(1), chunks[0].sequence, 200),
            Outcome::HopAcked { handle }
        );
    }
    assert!(!session.can_start());
    assert_eq!(
        session.handle_report(at(2), 17, range(1, 100, 100), 200),
        Outcome::Delivered {
            handle: 17,
            by: Evidence::Report
        }
    );
    assert!(session.can_start());
}

// Proves: MSRP-10, DLV-1, DLV-2
#[test]
fn a_200_is_a_hop_ack_and_a_report_is_delivery() {
    let mut session = calm();
    let chunks = send(&mut session, at(0), 5, 3515);
    assert_eq!(
        session.handle_response(at(1), chunks[0].sequence, 200),
        Outcome::None
    );
    assert_eq!(
        session.handle_response(at(1), chunks[0].sequence, 200),
        Outcome::None,
        "repeated"
    );
    assert_eq!(
        session.handle_response(at(2), chunks[1].sequence, 200),
        Outcome::HopAcked { handle: 5 }
    );
    assert_eq!(session.messages(), 1);
    let report = session.handle_report(at(3), 5, range(1, 3515, 3515), 200);
    assert_eq!(
        report,
        Outcome::Delivered {
            handle: 5,
            by: Evidence::Report
        }
    );
    assert!(session.is_idle());
    assert_eq!(
        session.handle_report(at(4), 5, range(1, 3515, 3515), 200),
        Outcome::None
    );
    assert!(session.deadline().is_never());
}

// Proves: MSRP-22
#[test]
fn reports_of_parts_count_when_together_they_cover_the_message() {
    let parts = [
        (1501, 2000),
        (1, 500),
        (3001, 3515),
        (1001, 1500),
        (400, 900),
        (2001, 3000),
    ];
    let mut session = calm();
    send(&mut session, at(0), 9, 3515);
    for (start, end) in parts {
        assert_eq!(
            session.handle_report(at(1), 9, range(start, end, 3515), 200),
            Outcome::None
        );
    }
    for useless in [
        ByteRange {
            start: 1,
            end: None,
            total: Some(3515),
        },
        range(901, 1000, 3516),
        range(901, 999, 3515),
        range(u64::MAX, u64::MAX, 3515),
    ] {
        assert_eq!(session.handle_report(at(1), 9, useless, 200), Outcome::None);
    }
    let other_2xx = session.handle_report(at(1), 9, range(1, 3515, 3515), 202);
    assert_eq!(other_2xx, Outcome::None, "only 200 covers");
    let last = ByteRange {
        start: 1000,
        end: Some(1000),
        total: None,
    };
    assert_eq!(
        session.handle_report(at(1), 9, last, 200),
        Outcome::Delivered {
            handle: 9,
            by: Evidence::Report
        }
    );
}

// Proves: DLV-2
#[test]
fn a_report_ahead_of_the_octets_delivers_nothing() {
    let mut session = calm();
    let total = 2048 * 10;
    let first = send(&mut session, at(0), 2, total);
    assert_eq!(
        session.handle_report(at(1), 2, range(1, total, total), 200),
        Outcome::None
    );
    for chunk in first {
        assert_eq!(
            session.handle_response(at(1), chunk.sequence, 200),
            Outcome::None
        );
    }
    while session.poll_chunk(at(2)).is_some() {}
    assert_eq!(
        session.handle_report(at(3), 2, range(8 * 2048, total, total), 200),
        Outcome::Delivered {
            handle: 2,
            by: Evidence::Report
        },
        "the first report counted up to what had been sent"
    );
    assert!(!session.is_idle(), "two 200s are still owed");
}

// Proves: DLV-2
#[test]
fn hop_acks_count_after_the_report_wait_if_they_may() {
    for (accept_hop_ack, expected) in [
        (
            true,
            Outcome::Delivered {
                handle: 3,
                by: Evidence::HopAck,
            },
        ),
        (false, Outcome::Unconfirmed { handle: 3 }),
    ] {
        let mut session = calm();
        session.reset(&SessionOptions {
            accept_hop_ack,
            ..SessionOptions::default()
        });
        let chunks = send(&mut session, at(0), 3, 10);
        let acked = session.handle_response(at(500), chunks[0].sequence, 200);
        assert_eq!(acked, Outcome::HopAcked { handle: 3 });
        assert_eq!(session.deadline(), at(10_500));
        assert_eq!(session.handle_timeout(at(10_499)), Outcome::None);
        assert_eq!(session.handle_timeout(at(10_500)), expected);
        assert_eq!(session.handle_timeout(at(10_500)), Outcome::None);
        assert!(session.is_idle());
    }
}

#[test]
fn without_a_report_wait_the_last_200_delivers() {
    let mut session = calm();
    session.reset(&SessionOptions {
        report_wait: Duration::ZERO,
        ..SessionOptions::default()
    });
    let chunks = send(&mut session, at(0), 3, 10);
    assert_eq!(
        session.handle_response(at(1), chunks[0].sequence, 200),
        Outcome::Delivered {
            handle: 3,
            by: Evidence::HopAck
        }
    );
}

// Proves: DLV-2
#[test]
fn a_positive_notification_is_evidence_once_all_is_sent() {
    let mut session = calm();
    let chunks = send(&mut session, at(0), 4, 2048 * 9);
    assert_eq!(session.confirm(4), Outcome::None, "not all sent");
    assert_eq!(
        session.handle_response(at(1), chunks[0].sequence, 200),
        Outcome::None
    );
    assert!(session.poll_chunk(at(1)).is_some());
    assert_eq!(
        session.confirm(4),
        Outcome::Delivered {
            handle: 4,
            by: Evidence::Imdn
        }
    );
    assert_eq!(session.confirm(4), Outcome::None);
}

// Proves: MSRP-9
#[test]
fn thirty_seconds_of_silence_after_the_last_octet_fail_the_session() {
    let mut session = calm();
    send(&mut session, at(0), 1, 100);
    assert_eq!(session.deadline(), at(30_000));
    session.handle_sent(at(700));
    assert_eq!(
        session.deadline(),
        at(30_700),
        "counted from the kernel's hand-over"
    );
    session.handle_sent(at(900));
    assert_eq!(session.deadline(), at(30_700), "which comes once");
    assert_eq!(session.handle_timeout(at(30_699)), Outcome::None);
    let failed = Outcome::SessionFailed {
        reason: SessionFailure::Timeout,
    };
    assert_eq!(session.handle_timeout(at(30_700)), failed);
    assert_eq!(session.handle_timeout(at(30_700)), Outcome::None, "once");
    assert!(!session.can_start());
    let back = Unfinished {
        handle: 1,
        hop_acked: false,
    };
    assert_eq!(session.take_unfinished(), Some(back));
    assert_eq!(session.take_unfinished(), None);
    assert!(session.is_idle());
}

#[test]
fn a_moment_between_milliseconds_is_never_early() {
    let mut session = calm();
    session.start_message(1, 1);
    session.poll_chunk(Timestamp::from_nanos(5));
    session.handle_sent(Timestamp::from_nanos(6));
    let due = session.deadline();
    assert!(due >= Timestamp::from_nanos(6) + Duration::from_secs(30));
    assert!(due <= Timestamp::from_nanos(6) + Duration::from_millis(30_001));
}

#[test]
fn evidence_that_is_due_comes_before_the_session_falls() {
    let mut session = calm();
    let first = send(&mut session, at(0), 1, 10);
    send(&mut session, at(0), 2, 10);
    let acked = session.handle_response(at(1), first[0].sequence, 200);
    assert_eq!(acked, Outcome::HopAcked { handle: 1 });
    let by = Evidence::HopAck;
    assert_eq!(
        session.handle_timeout(at(99_000)),
        Outcome::Delivered { handle: 1, by }
    );
    let reason = SessionFailure::Timeout;
    assert_eq!(
        session.handle_timeout(at(99_000)),
        Outcome::SessionFailed { reason }
    );
}

fn refused(status: u16) -> Outcome {
    Outcome::MessageRefused { handle: 1, status }
}

fn failed(status: u16) -> Outcome {
    Outcome::MessageFailed { handle: 1, status }
}

const fn over(reason: SessionFailure) -> Outcome {
    Outcome::SessionFailed { reason }
}

/// Status, outcome as response while sending, and as REPORT on a message that awaits it.
fn table() -> Vec<(u16, Outcome, Outcome)> {
    let delivered = Outcome::Delivered {
        handle: 1,
        by: Evidence::Report,
    };
    let mut rows = vec![
        (200, Outcome::None, delivered),
        (202, Outcome::None, Outcome::None),
    ];
    for status in [400, 423, 0, 100, 300, 404, 500, 999] {
        rows.push((status, failed(status), failed(status)));
    }
    for status in [403, 413, 415] {
        rows.push((status, refused(status), refused(status)));
    }
    for (status, reason) in [
        (408, SessionFailure::Timeout),
        (481, SessionFailure::NoSession),
        (501, SessionFailure::NotImplemented),
        (506, SessionFailure::InUse),
    ] {
        rows.push((status, over(reason), over(reason)));
    }
    rows
}

// Proves: MSRP-10, MSRP-11, MSRP-12, MSRP-13, MSRP-14, MSRP-15, MSRP-23
#[test]
fn each_status_has_its_outcome_in_each_state() {
    for (status, as_response, as_report) in table() {
        // Sending: chunks taken, more to come.
        let mut session = calm();
        let chunks = send(&mut session, at(0), 1, 2048 * 10);
        let got = session.handle_response(at(1), chunks[0].sequence, status);
        assert_eq!(got, as_response, "{status} while sending");
        let goes_on = as_response == Outcome::None;
        assert_eq!(
            session.poll_chunk(at(1)).is_some(),
            goes_on,
            "{status}: no further chunk"
        );
        if !goes_on {
            for chunk in &chunks[1..] {
                let late = session.handle_response(at(2), chunk.sequence, status);
                let session_level = matches!(as_response, Outcome::SessionFailed { .. });
                assert_eq!(
                    late,
                    Outcome::None,
                    "{status} again on a message that is gone"
                );
                assert_eq!(session.is_failed(), session_level);
            }
        }
        // Awaiting a REPORT.
        let mut session = calm();
        let chunks = send(&mut session, at(0), 1, 10);
        let acked = session.handle_response(at(1), chunks[0].sequence, 200);
        assert_eq!(acked, Outcome::HopAcked { handle: 1 });
        let got = session.handle_report(at(2), 1, range(1, 10, 10), status);
        assert_eq!(got, as_report, "{status} reported");
        // Gone: nothing comes of it.
        if as_report != Outcome::None {
            let again = session.handle_report(at(3), 1, range(1, 10, 10), status);
            assert_eq!(again, Outcome::None);
        }
        // Unknown transactions and messages.
        let mut session = calm();
        send(&mut session, at(0), 1, 10);
        assert_eq!(session.handle_response(at(1), 999, status), Outcome::None);
        assert_eq!(
            session.handle_report(at(1), 77, range(1, 10, 10), status),
            Outcome::None
        );
        assert_eq!(session.messages(), 1);
    }
}

// Proves: MSRP-11, MSRP-15
#[test]
fn a_second_bad_request_ends_the_session_and_other_messages_go_on_before() {
    let mut session = calm();
    let one = send(&mut session, at(0), 1, 4096);
    let two = send(&mut session, at(0), 2, 10);
    let three = send(&mut session, at(0), 3, 10);
    assert_eq!(
        session.handle_response(at(1), one[0].sequence, 400),
        failed(400)
    );
    assert_eq!(
        session.handle_response(at(1), one[1].sequence, 400),
        Outcome::None,
        "the same one"
    );
    assert_eq!(
        session.handle_response(at(1), two[0].sequence, 200),
        Outcome::HopAcked { handle: 2 }
    );
    let second = session.handle_response(at(1), three[0].sequence, 423);
    assert_eq!(second, over(SessionFailure::BadRequests));
    let back: Vec<Unfinished> = core::iter::from_fn(|| session.take_unfinished()).collect();
    assert_eq!(
        back,
        [
            Unfinished {
                handle: 2,
                hop_acked: true
            },
            Unfinished {
                handle: 3,
                hop_acked: false
            }
        ]
    );
}

// Proves: MSRP-16, MSRP-17
#[test]
fn a_bind_request_is_answered_or_fails_the_session() {
    for (status, outcome) in [
        (200, Outcome::Bound),
        (400, over(SessionFailure::BindRefused)),
        (403, over(SessionFailure::BindRefused)),
        (481, over(SessionFailure::NoSession)),
        (506, over(SessionFailure::InUse)),
    ] {
        let mut session = calm();
        let sequence = session.poll_bind(at(0)).unwrap();
        assert!(!session.is_idle());
        assert_eq!(session.handle_response(at(1), sequence, status), outcome);
    }
    let mut session = calm();
    session.poll_bind(at(0));
    assert_eq!(
        session.handle_timeout(at(30_000)),
        over(SessionFailure::Timeout)
    );
}

// Proves: MSRP-2
#[test]
fn a_colliding_transaction_takes_another_sequence() {
    let mut session = calm();
    let chunks = send(&mut session, at(0), 1, 10);
    let fresh = session.renumber(chunks[0].sequence);
    assert_ne!(fresh, chunks[0].sequence);
    assert_eq!(
        session.handle_response(at(1), chunks[0].sequence, 200),
        Outcome::None
    );
    assert_eq!(
        session.handle_response(at(1), fresh, 200),
        Outcome::HopAcked { handle: 1 }
    );
}

#[test]
fn an_abandoned_message_sends_nothing_more_but_its_silence_counts() {
    let mut session = calm();
    let chunks = send(&mut session, at(0), 1, 2048 * 10);
    session.abandon(1);
    assert_eq!(session.poll_chunk(at(1)), None);
    assert!(session.can_start());
    assert!(!session.is_idle());
    for chunk in &chunks[1..] {
        assert_eq!(
            session.handle_response(at(1), chunk.sequence, 200),
            Outcome::None
        );
    }
    assert_eq!(
        session.handle_timeout(at(30_000)),
        over(SessionFailure::Timeout)
    );
}

#[test]
fn sequences_wrap_and_survive_a_reset() {
    let mut session = calm();
    let mut last = None;
    for _ in 0..40_000 {
        session.reset(&SessionOptions::default());
        let chunk = send(&mut session, at(0), 1, 1)[0];
        assert!(chunk.sequence < SEQUENCE_MODULUS);
        assert_ne!(Some(chunk.sequence), last);
        last = Some(chunk.sequence);
    }
}

#[test]
fn a_session_is_small() {
    assert!(size_of::<Session>() <= 1024, "{}", size_of::<Session>());
}

/// Random inputs: conservation. Every message has exactly one final outcome or is unfinished.
// Proves: DLV-1
#[test]
fn no_message_is_lost_or_ends_twice_under_random_inputs() {
    const STATUSES: [u16; 12] = [200, 200, 200, 200, 200, 200, 202, 403, 413, 500, 400, 481];
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut below = |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) % bound
    };
    let mut finals = [0u32; 4];
    for _ in 0..3_000 {
        let mut session = calm();
        let mut now = 0;
        let mut open: Vec<u16> = Vec::new();
        let mut started: Vec<(u32, u64)> = Vec::new();
        let mut ended: Vec<u32> = Vec::new();
        for _ in 0..60 {
            now += below(800);
            let pick = usize::try_from(below(64)).unwrap();
            let status = STATUSES[pick % STATUSES.len()];
            let outcome = match below(6) {
                0 if session.can_start() => {
                    let handle = u32::try_from(started.len()).unwrap();
                    let total = below(9000);
                    started.push((handle, total));
                    session.start_message(handle, total);
                    Outcome::None
                }
                1 | 2 => {
                    open.extend(session.poll_chunk(at(now)).map(|chunk| chunk.sequence));
                    Outcome::None
                }
                3 | 4 if !open.is_empty() => {
                    let sequence = open.swap_remove(pick % open.len());
                    session.handle_response(at(now), sequence, status)
                }
                5 if !started.is_empty() => {
                    let (handle, total) = started[pick % started.len()];
                    let start = 1 + below(total.max(1));
                    let end = (start + below(6000)).min(total);
                    session.handle_report(at(now), handle, range(start, end, total), status)
                }
                _ => session.handle_timeout(at(now)),
            };
            match outcome {
                Outcome::Delivered { handle, .. } | Outcome::Unconfirmed { handle } => {
                    ended.push(handle);
                    finals[0] += 1;
                }
                Outcome::MessageRefused { handle, .. } | Outcome::MessageFailed { handle, .. } => {
                    ended.push(handle);
                    finals[1] += 1;
                }
                Outcome::SessionFailed { .. } => finals[2] += 1,
                Outcome::HopAcked { .. } => finals[3] += 1,
                Outcome::None | Outcome::Bound => {}
            }
            assert!(open.len() <= MSRP_WINDOW || session.is_failed());
            assert!(session.is_failed() || session.is_idle() || session.messages() <= 32);
            let waits = session.pending != 0 || session.acked != 0;
            assert_eq!(session.deadline().is_never(), session.failed || !waits);
        }
        ended.extend(core::iter::from_fn(|| session.take_unfinished()).map(|left| left.handle));
        ended.sort_unstable();
        let all: Vec<u32> = started.iter().map(|row| row.0).collect();
        assert_eq!(ended, all);
    }
    assert!(
        finals.iter().all(|&count| count > 300),
        "all kinds are reached: {finals:?}"
    );
}

#[test]
fn a_session_of_months_times_its_messages_as_on_its_first_day() {
    let mut session = Session::default();
    let start = at(0);
    for (handle, days) in [(1, 0), (2, 49), (3, 50), (4, 400)] {
        let now = start + Duration::from_secs(days * 86_400);
        let chunk = send(&mut session, now, handle, 10)[0];
        assert_eq!(
            session.deadline(),
            now + Duration::from_secs(30),
            "day {days}"
        );
        assert_eq!(session.handle_timeout(now), Outcome::None, "day {days}");
        let taken = session.handle_response(now, chunk.sequence, 200);
        assert_eq!(taken, Outcome::HopAcked { handle });
        let delivered = session.handle_report(now, handle, range(1, 10, 10), 200);
        let by = Evidence::Report;
        assert_eq!(delivered, Outcome::Delivered { handle, by });
    }
}
