use super::*;

const NONE: Facts = Facts {
    cancelled: false,
    alternate_tried: false,
    min_se_exhausted: false,
    can_drop_extension: false,
};

fn letter(class: Class) -> char {
    match class {
        Class::Provisional => '-',
        Class::Session => 'S',
        Class::Cancelled => 'C',
        Class::RetryNow(_) => 'R',
        Class::Backoff { .. } => 'B',
        Class::Wait { .. } => 'W',
        Class::Quarantine { .. } => 'Q',
        Class::NextHop(_) => 'H',
    }
}

// Proves: RSP-1, RSP-2, RSP-3, RSP-4, RSP-5, RSP-6, RSP-7, RSP-8, RSP-9, RSP-10, RSP-11, RSP-12
// Proves: RSP-13, RSP-14, RSP-15, RSP-16, RSP-17, RSP-18, RSP-19, RSP-20, RSP-21, RSP-22, RSP-23
// Proves: RSP-24, RSP-25, RSP-26, RSP-27, RSP-28, RSP-29
#[test]
fn every_status_has_the_class_of_the_table() {
    let table: [(&[u16], char); 9] = [
        (&[100, 180, 183, 199], '-'),
        (&[200, 202, 299], 'S'),
        (
            &[300, 302, 380, 404, 410, 430, 439, 480, 603, 604, 607, 699],
            'W',
        ),
        (
            &[
                400, 401, 402, 403, 405, 406, 407, 413, 415, 416, 420, 421, 423, 428, 429,
            ],
            'Q',
        ),
        (
            &[
                433, 436, 437, 438, 470, 484, 485, 489, 493, 494, 499, 501, 505, 513, 580,
            ],
            'Q',
        ),
        (&[408, 481, 486, 487, 491, 500, 599, 600], 'B'),
        (&[422, 488, 606], 'R'),
        (&[482, 483, 502, 503, 504], 'H'),
        (&[0, 99, 700, 999], 'B'),
    ];
    for (statuses, want) in table {
        for &status in statuses {
            assert_eq!(letter(classify(status, None, NONE)), want, "{status}");
        }
    }
}

// Proves: RSP-11, RSP-12, RSP-13, RSP-17, RSP-22, RSP-23
#[test]
fn facts_and_retry_after_move_a_status_to_its_other_class() {
    let cancelled = Facts {
        cancelled: true,
        ..NONE
    };
    let tried = Facts {
        alternate_tried: true,
        ..NONE
    };
    let exhausted = Facts {
        min_se_exhausted: true,
        ..NONE
    };
    let droppable = Facts {
        can_drop_extension: true,
        ..NONE
    };
    for (status, after, facts, want) in [
        (487, None, cancelled, 'C'),
        (486, None, cancelled, 'B'),
        (488, None, tried, 'Q'),
        (606, None, tried, 'Q'),
        (422, None, exhausted, 'Q'),
        (420, None, droppable, 'R'),
        (413, Some(5), NONE, 'B'),
        (480, Some(5), NONE, 'B'),
        (404, Some(5), NONE, 'W'),
    ] {
        assert_eq!(letter(classify(status, after, facts)), want, "{status}");
    }
    let hold = Some(RETRY_AFTER_MAX);
    let class = classify(503, Some(u32::MAX), NONE);
    assert_eq!(
        class,
        Class::NextHop(HopTrouble::Unavailable { hold }),
        "capped at a day"
    );
}

const BOUND: BindingId = BindingId {
    call_id: 1,
    register: 10,
};
const NOW: Timestamp = Timestamp::from_millis(1_000_000);

fn after(state: DeviceState, status: u16, retry_after_s: Option<u32>) -> DeviceState {
    let class = classify(status, retry_after_s, NONE);
    state.after(
        class,
        NOW,
        BOUND,
        &mut Jitter::new(7),
        &OutcomeOptions::default(),
    )
}

fn waits(state: DeviceState) -> Duration {
    state.until(NOW).since(NOW)
}

// Proves: RSP-9, RSP-21, RSP-24, RSP-25, AMB-11
#[test]
fn backoff_doubles_from_thirty_seconds_to_an_hour_within_a_fifth() {
    let mut state = DeviceState::Ready;
    for tries in 1..24u32 {
        state = after(state, 408, None);
        let nominal = (30u64 << (tries - 1).min(20)).min(3600);
        let wait = u64::try_from(waits(state).as_millis()).unwrap();
        assert!(
            wait >= nominal * 800 && wait <= nominal * 1200,
            "{tries}: {wait}"
        );
    }
    let spent = after(state, 408, None);
    assert!(
        matches!(spent, DeviceState::WaitRegistration { .. }),
        "AMB-11: 24 tries, then W"
    );
    assert!(waits(after(DeviceState::Ready, 486, None)) >= Duration::from_secs(60));
    let glare = waits(after(DeviceState::Ready, 491, None));
    assert!(glare >= Duration::from_millis(2100) && glare <= Duration::from_secs(4));
    assert!(waits(after(DeviceState::Ready, 500, Some(7))) >= Duration::from_secs(7));
    assert!(waits(after(DeviceState::Ready, 500, Some(700))) >= Duration::from_secs(700));
    assert_eq!(after(state, 200, None), DeviceState::Ready);
    assert_eq!(after(state, 180, None), state);
}

// Proves: RSP-6, RSP-10, RSP-29, REG-5
#[test]
fn a_registration_releases_what_the_class_says() {
    let renewed = Change {
        registered: true,
        ..Change::default()
    };
    let restarted = Change {
        registered: true,
        restarted: true,
        reappeared: false,
    };
    let reappeared = Change {
        reappeared: true,
        ..Change::default()
    };
    let none = Change::default();
    let w = after(DeviceState::Ready, 410, None);
    let q = after(DeviceState::Ready, 403, None);
    let b = after(DeviceState::Ready, 408, None);
    let firm = after(DeviceState::Ready, 408, Some(900));
    for (state, change, want) in [
        (w, none, w),
        (w, renewed, DeviceState::Ready),
        (w, reappeared, DeviceState::Ready),
        (q, renewed, q),
        (q, reappeared, q),
        (q, restarted, DeviceState::Ready),
        (b, renewed, b),
        (b, restarted, DeviceState::Ready),
        (firm, renewed, firm),
    ] {
        assert_eq!(
            state.after_registration(NOW, change),
            want,
            "{state:?} {change:?}"
        );
    }
    assert_eq!(
        firm.after_registration(NOW, restarted).until(NOW),
        firm.until(NOW)
    );
    let declined = after(DeviceState::Ready, 603, None).after_registration(NOW, restarted);
    assert_eq!(
        waits(declined),
        Duration::from_secs(3600),
        "decline_hold holds even then"
    );
    assert_eq!(waits(q), Duration::from_secs(24 * 3600));
    assert!(w.until(NOW).is_never());
}
