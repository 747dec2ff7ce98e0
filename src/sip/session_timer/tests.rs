use super::*;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn secs(value: u64) -> Timestamp {
    Timestamp::from_millis(1000 * value)
}

fn expires(interval_s: u32, refresher: Option<Refresher>) -> Option<SessionExpires> {
    Some(SessionExpires {
        interval_s,
        refresher,
    })
}

const POLICY: SessionTimerOptions = SessionTimerOptions {
    ask_s: Some(1800),
    min_se_s: 90,
    cap_s: 86_400,
    keep_when_unsupported: true,
};

/// A timer together with what it is handed.
struct Bench {
    timer: SessionTimer,
    options: SessionTimerOptions,
    dice: Jitter,
}

impl Bench {
    fn new(asked_s: Option<u32>, answered: Option<SessionExpires>, updates: bool) -> Self {
        let mut bench = Self {
            timer: SessionTimer::default(),
            options: POLICY,
            dice: Jitter::new(3),
        };
        bench.establish(asked_s, answered, updates);
        bench
    }

    fn establish(&mut self, asked_s: Option<u32>, answered: Option<SessionExpires>, updates: bool) {
        let agreement = Agreement {
            options: &self.options,
            dice: &mut self.dice,
        };
        self.timer
            .on_2xx(secs(0), asked_s, answered, updates, agreement);
    }

    fn outcome(&mut self, now: Timestamp, outcome: RefreshOutcome) -> SessionAction {
        let agreement = Agreement {
            options: &self.options,
            dice: &mut self.dice,
        };
        self.timer.refresh_outcome(now, &outcome, agreement)
    }

    fn fails(&mut self, now: Timestamp, status: u16) -> SessionAction {
        self.outcome(now, answer(status))
    }

    fn peer(&mut self, now: Timestamp, request: PeerRefresh) -> PeerAnswer {
        let agreement = Agreement {
            options: &self.options,
            dice: &mut self.dice,
        };
        self.timer.handle_peer_refresh(now, &request, agreement)
    }

    /// Goes to the deadline.
    fn fire(&mut self) -> (Timestamp, SessionAction) {
        let now = self.timer.deadline();
        assert!(!now.is_never(), "something is armed");
        (now, self.timer.handle_timeout(now))
    }

    fn refresh(&mut self) -> (Timestamp, Refresh) {
        match self.fire() {
            (now, SessionAction::Refresh(refresh)) => (now, refresh),
            (now, other) => panic!("{other:?} at {now:?}"),
        }
    }
}

fn answer(status: u16) -> RefreshOutcome {
    RefreshOutcome {
        status,
        answered: None,
        min_se_s: None,
        retry_after_s: None,
    }
}

// Proves: ST-1
#[test]
fn policies_below_90_s_or_below_their_own_minimum_are_refused() {
    assert!(POLICY.is_valid());
    assert!(
        SessionTimerOptions {
            ask_s: None,
            ..POLICY
        }
        .is_valid()
    );
    assert!(
        !SessionTimerOptions {
            ask_s: Some(89),
            ..POLICY
        }
        .is_valid()
    );
    assert!(
        !SessionTimerOptions {
            min_se_s: 60,
            ..POLICY
        }
        .is_valid()
    );
    assert!(
        !SessionTimerOptions {
            min_se_s: 2000,
            ..POLICY
        }
        .is_valid()
    );
    assert!(
        !SessionTimerOptions {
            ask_s: Some(90_000),
            ..POLICY
        }
        .is_valid()
    );
}

// Proves: ST-2
#[test]
fn a_422_is_retried_with_the_larger_interval() {
    let options = SessionTimerOptions {
        ask_s: Some(600),
        ..POLICY
    };
    let mut initial = InitialMinSe::new(&options);
    assert_eq!(
        (initial.session_expires_s, initial.min_se_s),
        (Some(600), None)
    );
    assert_eq!(initial.handle_422(Some(900), &options), InitialRetry::Retry);
    assert_eq!(
        (initial.session_expires_s, initial.min_se_s),
        (Some(900), Some(900))
    );
    assert_eq!(
        initial.handle_422(Some(900), &options),
        InitialRetry::GiveUp
    );
}

// Proves: ST-2
#[test]
fn at_most_three_422_are_retried_and_a_smaller_min_se_keeps_the_asked_interval() {
    let mut initial = InitialMinSe::new(&POLICY);
    assert_eq!(initial.handle_422(Some(900), &POLICY), InitialRetry::Retry);
    assert_eq!(
        (initial.session_expires_s, initial.min_se_s),
        (Some(1800), Some(900))
    );
    assert_eq!(initial.handle_422(Some(2000), &POLICY), InitialRetry::Retry);
    assert_eq!(initial.handle_422(Some(3000), &POLICY), InitialRetry::Retry);
    assert_eq!(
        initial.handle_422(Some(4000), &POLICY),
        InitialRetry::GiveUp
    );
    assert_eq!(initial.session_expires_s, Some(3000));
}

// Proves: ST-3
#[test]
fn a_422_without_min_se_or_above_the_cap_is_not_retried() {
    let mut initial = InitialMinSe::new(&POLICY);
    assert_eq!(initial.handle_422(None, &POLICY), InitialRetry::GiveUp);
    assert_eq!(
        initial.handle_422(Some(86_401), &POLICY),
        InitialRetry::GiveUp
    );
    assert_eq!(
        initial.handle_422(Some(u32::MAX), &POLICY),
        InitialRetry::GiveUp
    );
    assert_eq!(
        initial.handle_422(Some(86_400), &POLICY),
        InitialRetry::Retry
    );
}

// Proves: OK-1, ST-5, ST-8, ST-16
#[test]
fn refreshes_at_half_of_the_answered_interval_less_five_percent_jitter() {
    for refresher in [Some(Refresher::Uac), None] {
        for seed in 0..200 {
            let mut bench = Bench::new(None, None, true);
            bench.dice = Jitter::new(seed);
            bench.establish(Some(1800), expires(120, refresher), true);
            let (now, refresh) = bench.refresh();
            assert!(now >= secs(57) && now <= secs(60), "{now:?}");
            assert_eq!(refresh.refresher, Refresher::Uac);
        }
    }
}

// Proves: ST-4, ST-10
#[test]
fn a_refresh_carries_no_min_se_of_before_the_dialog() {
    let mut bench = Bench::new(Some(900), expires(900, Some(Refresher::Uac)), true);
    let (_, refresh) = bench.refresh();
    assert_eq!((refresh.session_expires_s, refresh.min_se_s), (900, None));
}

// Proves: OK-1a, ST-6
#[test]
fn a_peer_without_timers_is_refreshed_all_the_same_and_nothing_expires() {
    let mut bench = Bench::new(Some(90), None, false);
    for round in 1..=3 {
        let (now, refresh) = bench.refresh();
        assert!(now > secs(42 * round) && now <= secs(45 * round));
        assert_eq!(refresh.session_expires_s, 90);
        assert!(bench.timer.deadline().is_never(), "no expiry is enforced");
        assert_eq!(bench.fails(now, 200), SessionAction::Nothing);
    }
    bench.options.keep_when_unsupported = false;
    bench.establish(Some(90), None, false);
    assert!(bench.timer.deadline().is_never());
    assert_eq!(bench.timer.interval_s(), None);
}

// Proves: OK-1a, ST-12
#[test]
fn a_kept_session_survives_errors_and_ends_on_481() {
    let mut bench = Bench::new(Some(1800), None, false);
    for _ in 0..7 {
        let (now, _) = bench.refresh();
        assert_eq!(bench.fails(now, 500), SessionAction::Nothing);
    }
    let (now, _) = bench.refresh();
    assert_eq!(bench.fails(now, 481), SessionAction::Expire);
}

#[test]
fn a_kept_session_does_not_wait_longer_than_half_its_interval() {
    let mut bench = Bench::new(Some(1800), None, false);
    let (now, _) = bench.refresh();
    let outcome = RefreshOutcome {
        retry_after_s: Some(u32::MAX),
        ..answer(503)
    };
    assert_eq!(bench.outcome(now, outcome), SessionAction::Nothing);
    assert_eq!(bench.timer.deadline(), now + Duration::from_secs(900));
}

// Proves: ST-7
#[test]
fn the_answered_interval_is_clamped_to_90_s_and_to_what_was_asked() {
    for (answered, used) in [
        (3600, 1800),
        (30, 90),
        (0, 90),
        (u32::MAX, 1800),
        (1000, 1000),
    ] {
        let bench = Bench::new(Some(1800), expires(answered, None), true);
        assert_eq!(bench.timer.interval_s(), Some(used));
    }
    let unasked = Bench::new(None, expires(u32::MAX, None), true);
    assert_eq!(unasked.timer.interval_s(), Some(86_400));
}

// Proves: ST-9
#[test]
fn refreshes_with_update_only_when_the_peer_allows_it() {
    let agreed = expires(1800, Some(Refresher::Uac));
    let (_, refresh) = Bench::new(Some(1800), agreed, true).refresh();
    assert_eq!(refresh.method, RefreshMethod::Update);
    let mut bench = Bench::new(Some(1800), agreed, false);
    let (now, refresh) = bench.refresh();
    assert_eq!(refresh.method, RefreshMethod::Reinvite);
    bench.timer.set_peer_updates(true);
    bench.outcome(
        now,
        RefreshOutcome {
            answered: agreed,
            ..answer(200)
        },
    );
    assert_eq!(bench.refresh().1.method, RefreshMethod::Update);
}

// Proves: ST-5, ST-13
#[test]
fn a_guarded_session_ends_before_its_expiry() {
    for (interval, bye) in [(90, 60), (1800, 1768), (96, 64)] {
        let mut bench = Bench::new(Some(1800), expires(interval, Some(Refresher::Uas)), true);
        assert_eq!(bench.timer.request_fields().unwrap().1, Refresher::Uas);
        assert_eq!(bench.fire(), (secs(bye), SessionAction::Expire));
        assert!(bench.timer.deadline().is_never());
    }
}

// Proves: ST-11
#[test]
fn only_a_2xx_moves_the_expiry_and_it_may_change_roles_or_switch_off() {
    let mut bench = Bench::new(Some(1800), expires(1800, None), true);
    let (now, _) = bench.refresh();
    let before = bench.timer.deadline();
    assert_eq!(
        before,
        secs(1768),
        "the expiry guards while the refresh is on its way"
    );
    let outcome = RefreshOutcome {
        min_se_s: Some(2400),
        ..answer(422)
    };
    let SessionAction::Refresh(again) = bench.outcome(now, outcome) else {
        panic!("the 422 is retried at once");
    };
    assert_eq!(
        (again.session_expires_s, again.min_se_s),
        (2400, Some(2400))
    );
    assert_eq!(bench.timer.deadline(), before, "the 422 moved nothing");
    let swapped = RefreshOutcome {
        answered: expires(2400, Some(Refresher::Uas)),
        ..answer(200)
    };
    assert_eq!(bench.outcome(secs(900), swapped), SessionAction::Nothing);
    assert_eq!(bench.timer.deadline(), secs(900 + 2400 - 32));
    assert_eq!(bench.timer.request_fields().unwrap().1, Refresher::Uas);

    let mut bench = Bench::new(Some(1800), expires(1800, None), true);
    let (now, _) = bench.refresh();
    assert_eq!(bench.fails(now, 200), SessionAction::Nothing);
    assert!(bench.timer.deadline().is_never(), "no header: switched off");
}

// Proves: ST-12
#[test]
fn a_lost_dialog_or_a_timeout_ends_the_session() {
    for status in [408, 481] {
        let mut bench = Bench::new(Some(1800), expires(1800, None), true);
        let (now, _) = bench.refresh();
        assert_eq!(bench.fails(now, status), SessionAction::Expire);
        assert!(bench.timer.deadline().is_never());
    }
}

// Proves: ST-12
#[test]
fn a_refused_update_falls_back_to_reinvite_for_good() {
    for status in [405, 501] {
        let mut bench = Bench::new(Some(1800), expires(1800, None), true);
        let (now, _) = bench.refresh();
        let SessionAction::Refresh(again) = bench.fails(now, status) else {
            panic!("falls back at once");
        };
        assert_eq!(again.method, RefreshMethod::Reinvite);
        bench.outcome(
            now,
            RefreshOutcome {
                answered: expires(1800, None),
                ..answer(200)
            },
        );
        assert_eq!(bench.refresh().1.method, RefreshMethod::Reinvite);
    }
}

// Proves: ST-12, ST-13
#[test]
fn errors_are_retried_thrice_with_pauses_and_then_the_session_ends() {
    let mut bench = Bench::new(Some(1800), expires(1800, None), true);
    let mut sent = Vec::new();
    let end = loop {
        match bench.fire() {
            (now, SessionAction::Refresh(_)) => {
                sent.push(now);
                assert_eq!(bench.fails(now, 500), SessionAction::Nothing);
            }
            (now, action) => break (now, action),
        }
    };
    assert_eq!(sent.len(), 3);
    assert_eq!(end, (secs(1768), SessionAction::Expire));
    for pair in sent.windows(2) {
        assert!(pair[1].since(pair[0]) >= secs(1768).since(pair[0]) / 8);
    }
}

// Proves: ST-12
#[test]
fn retry_after_is_obeyed_unless_it_lies_behind_the_expiry() {
    let mut bench = Bench::new(Some(1800), expires(1800, None), true);
    let (now, _) = bench.refresh();
    bench.outcome(
        now,
        RefreshOutcome {
            retry_after_s: Some(300),
            ..answer(503)
        },
    );
    assert_eq!(bench.timer.deadline(), now + Duration::from_secs(300));
    let (now, _) = bench.refresh();
    bench.outcome(
        now,
        RefreshOutcome {
            retry_after_s: Some(u32::MAX),
            ..answer(503)
        },
    );
    assert_eq!(bench.fire(), (secs(1768), SessionAction::Expire));
}

// Proves: DLG-11, ST-12
#[test]
fn a_491_is_retried_after_2_1_to_4_s_in_steps_of_10_ms() {
    for seed in 0..20 {
        let mut bench = Bench::new(Some(1800), expires(1800, None), true);
        bench.dice = Jitter::new(seed);
        let (now, _) = bench.refresh();
        assert_eq!(bench.fails(now, 491), SessionAction::Nothing);
        let pause = bench.timer.deadline().since(now);
        assert!(pause >= Duration::from_millis(2100) && pause <= Duration::from_millis(4000));
        assert_eq!(pause.as_nanos() % 10_000_000, 0);
    }
    let mut bench = Bench::new(Some(1800), expires(1800, None), true);
    let mut sent = 0;
    while let (now, SessionAction::Refresh(_)) = bench.fire() {
        sent += 1;
        bench.fails(now, 491);
    }
    assert!(
        sent <= u32::from(GLARES_MAX) + u32::from(TRIES_MAX),
        "{sent} sent in a row"
    );
}

#[test]
fn a_422_to_a_refresh_without_a_larger_value_is_not_repeated() {
    for min_se_s in [None, Some(u32::MAX), Some(0)] {
        let mut bench = Bench::new(Some(1800), expires(1800, None), true);
        let (now, _) = bench.refresh();
        let outcome = RefreshOutcome {
            min_se_s,
            ..answer(422)
        };
        assert_eq!(bench.outcome(now, outcome), SessionAction::Nothing);
        assert_eq!(bench.fire(), (secs(1768), SessionAction::Expire));
    }
}

#[test]
fn a_late_outcome_changes_nothing() {
    let mut bench = Bench::new(Some(1800), expires(1800, None), true);
    let before = bench.timer.deadline();
    assert_eq!(bench.fails(at(5), 481), SessionAction::Nothing);
    assert_eq!(bench.timer.deadline(), before);
}

// Proves: ST-14, ST-15
#[test]
fn a_peers_refresh_is_answered_by_table_2() {
    let uac = Some(Refresher::Uac);
    let uas = Some(Refresher::Uas);
    // (lists timer, refresher asked, we guarded before) -> refresher answered.
    let table = [
        (true, uac, true, Refresher::Uac),
        (true, uas, true, Refresher::Uas),
        (true, None, true, Refresher::Uac),
        (true, None, false, Refresher::Uas),
        (false, None, true, Refresher::Uas),
        (false, uac, true, Refresher::Uas),
    ];
    for (lists_timer, asked, guarded, answered) in table {
        let role = if guarded { uas } else { uac };
        let mut bench = Bench::new(Some(1800), expires(1800, role), true);
        let request = PeerRefresh {
            session_expires: expires(600, asked),
            min_se_s: None,
            lists_timer,
        };
        let expected = PeerAnswer::Accept {
            session_expires: Some((600, answered)),
            require_timer: lists_timer,
        };
        assert_eq!(bench.peer(secs(100), request), expected);
        if answered == Refresher::Uac {
            assert_eq!(bench.timer.deadline(), secs(100 + 600 - 32), "we guard");
        } else {
            assert!(bench.timer.deadline() <= secs(400), "we refresh");
        }
    }
}

// Proves: ST-4, ST-14
#[test]
fn a_peers_interval_is_refused_when_too_small_and_kept_in_bounds_otherwise() {
    let mut bench = Bench::new(Some(1800), expires(1800, None), true);
    let mut request = PeerRefresh {
        session_expires: expires(60, None),
        min_se_s: None,
        lists_timer: true,
    };
    let before = bench.timer.deadline();
    assert_eq!(
        bench.peer(secs(1), request),
        PeerAnswer::TooSmall { min_se_s: 90 }
    );
    assert_eq!(bench.timer.deadline(), before, "a 422 changes nothing");
    request.lists_timer = false;
    let PeerAnswer::Accept {
        session_expires,
        require_timer,
    } = bench.peer(secs(1), request)
    else {
        panic!("a 422 would not be understood");
    };
    assert_eq!(
        (session_expires, require_timer),
        (Some((90, Refresher::Uas)), false)
    );
    request = PeerRefresh {
        session_expires: expires(u32::MAX, Some(Refresher::Uas)),
        min_se_s: Some(200),
        lists_timer: true,
    };
    bench.peer(secs(2), request);
    assert_eq!(bench.timer.interval_s(), Some(86_400));
    let (_, refresh) = bench.refresh();
    assert_eq!(refresh.min_se_s, Some(200), "in-dialog values count");
}

// Proves: ST-14
#[test]
fn a_peer_request_without_the_header_keeps_what_was_agreed() {
    let silent = PeerRefresh {
        session_expires: None,
        min_se_s: None,
        lists_timer: false,
    };
    let nothing = PeerAnswer::Accept {
        session_expires: None,
        require_timer: false,
    };
    let mut off = Bench::new(None, None, true);
    assert_eq!(off.peer(secs(1), silent), nothing);
    let mut kept = Bench::new(Some(1800), None, true);
    let before = kept.timer.deadline();
    assert_eq!(kept.peer(secs(1), silent), nothing);
    assert_eq!(kept.timer.deadline(), before);
    let mut ours = Bench::new(Some(1800), expires(1800, None), true);
    let listed = PeerRefresh {
        lists_timer: true,
        ..silent
    };
    let expected = PeerAnswer::Accept {
        session_expires: Some((1800, Refresher::Uas)),
        require_timer: true,
    };
    assert_eq!(ours.peer(secs(1), listed), expected);
}

/// Any order of inputs: no panic, every wait ends, and the assertions on armed timers hold.
#[test]
fn survives_any_order_of_inputs() {
    for seed in 0..2000 {
        let mut dice = Jitter::new(seed);
        let mut bench = Bench::new(Some(90), expires(90, None), true);
        let mut now = secs(0);
        for _ in 0..60 {
            let interval = [0, 60, 90, 1800, u32::MAX][usize::try_from(dice.below(5)).unwrap()];
            let refresher = [None, Some(Refresher::Uac), Some(Refresher::Uas)]
                [usize::try_from(dice.below(3)).unwrap()];
            let maybe = if dice.below(2) == 0 {
                None
            } else {
                expires(interval, refresher)
            };
            now = now + Duration::from_millis(dice.below(20_000));
            match dice.below(4) {
                0 => {
                    let statuses = [100, 200, 405, 408, 422, 481, 491, 500, 503];
                    let status = statuses[usize::try_from(dice.below(9)).unwrap()];
                    let outcome = RefreshOutcome {
                        status,
                        answered: maybe,
                        min_se_s: Some(interval),
                        retry_after_s: Some(interval),
                    };
                    bench.outcome(now, outcome);
                }
                1 => {
                    let request = PeerRefresh {
                        session_expires: maybe,
                        min_se_s: Some(interval),
                        lists_timer: dice.below(2) == 0,
                    };
                    bench.peer(now, request);
                }
                _ => {
                    now = now.max(bench.timer.deadline().min(now + Duration::from_secs(60)));
                    bench.timer.handle_timeout(now);
                }
            }
        }
    }
}
