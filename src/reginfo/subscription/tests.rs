use super::*;

struct Bench {
    now: Timestamp,
    jitter: Jitter,
    options: SubscribeOptions,
    subscription: Subscription,
    cseq: u32,
}

impl Bench {
    fn new() -> Self {
        let mut options = SubscribeOptions::default();
        options.transaction.reliable = true;
        Self {
            now: Timestamp::from_millis(1_000_000),
            jitter: Jitter::new(3),
            options,
            subscription: Subscription::default(),
            cseq: 0,
        }
    }

    fn with<R>(
        &mut self,
        step: impl FnOnce(&mut Subscription, &mut SubscribeContext<'_>) -> R,
    ) -> R {
        let mut context = SubscribeContext {
            now: self.now,
            jitter: &mut self.jitter,
            options: &self.options,
        };
        step(&mut self.subscription, &mut context)
    }

    fn respond(&mut self, status: u16) -> Action {
        let response = SubscribeResponse {
            status,
            ..Default::default()
        };
        self.with(|s, c| s.handle_response(c, response))
    }

    fn admit(&mut self, from_tag: &[u8], cseq: u32) -> Result<(), u16> {
        self.subscription.admit_notify(NotifyHead {
            from_tag,
            cseq,
            event_is_reg: true,
            state_present: true,
        })
    }

    fn notify(&mut self, notify: Notify) -> Action {
        self.cseq += 1;
        let cseq = self.cseq;
        self.admit(b"tag", cseq).unwrap();
        self.with(|s, c| s.handle_notify(c, notify))
    }

    fn active(expires_s: u32) -> Self {
        let mut bench = Self::new();
        let started = bench.with(|s, c| s.wanted(c));
        assert_eq!(started, Action::Subscribe(SubscribeKind::Initial));
        let granted = SubscribeResponse {
            status: 200,
            expires_s: Some(expires_s),
            ..Default::default()
        };
        assert_eq!(
            bench.with(|s, c| s.handle_response(c, granted)),
            Action::None
        );
        assert_eq!(bench.notify(in_force(Some(expires_s), GOOD)), Action::None);
        assert_eq!(bench.subscription.state(), SubscriptionState::Active);
        bench
    }

    /// Waits for the next deadline and takes what it brings.
    fn elapse(&mut self) -> (Duration, Action) {
        let before = self.now;
        self.now = self.subscription.deadline();
        assert!(!self.now.is_never(), "something is armed");
        (
            self.now.since(before),
            self.with(|s, c| s.handle_timeout(c)),
        )
    }
}

const GOOD: NotifyBody = NotifyBody::Applied {
    needs_refresh: false,
    registered: true,
};
const INITIAL: Action = Action::Subscribe(SubscribeKind::Initial);
const REFRESH: Action = Action::Subscribe(SubscribeKind::Refresh);

fn in_force(expires_s: Option<u32>, body: NotifyBody) -> Notify {
    Notify {
        state: NotifyState::Active,
        expires_s,
        reason: TerminationReason::Unstated,
        retry_after_s: None,
        body,
    }
}

fn terminated(reason: &[u8], retry_after_s: Option<u32>, registered: bool) -> Notify {
    Notify {
        state: NotifyState::Terminated,
        expires_s: Some(77),
        reason: TerminationReason::parse(reason),
        retry_after_s,
        body: NotifyBody::Applied {
            needs_refresh: false,
            registered,
        },
    }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

// Proves: SUB-2, ISC-1, ISC-4
#[test]
fn an_absent_user_is_not_asked_about_again_until_it_registers() {
    let mut bench = Bench::new();
    assert_eq!(bench.with(|s, c| s.wanted(c)), INITIAL);
    assert_eq!(bench.respond(480), Action::Ended(Ended::NotRegistered));
    assert!(bench.subscription.deadline().is_never());
    assert_eq!(bench.with(|s, c| s.wanted(c)), Action::None);
    let before = bench.subscription.sequence();
    assert_eq!(bench.with(|s, c| s.registered(c)), INITIAL);
    assert_ne!(bench.subscription.sequence(), before, "a new Call-ID");
    assert_eq!(bench.respond(403), Action::Ended(Ended::NotAuthorised));
}

// Proves: SUB-3
#[test]
fn a_silent_notifier_fails_the_subscription_after_64_t1() {
    let mut bench = Bench::new();
    assert_eq!(bench.with(|s, c| s.wanted(c)), INITIAL);
    assert_eq!(bench.respond(202), Action::None);
    assert_eq!(bench.elapse(), (secs(32), Action::Ended(Ended::Failed)));
    let (wait, action) = bench.elapse();
    assert_eq!(action, INITIAL);
    assert!(wait >= secs(24) && wait <= secs(36), "{wait:?}");
    assert_eq!(
        bench.notify(in_force(None, GOOD)),
        Action::None,
        "NOTIFY before the 2xx"
    );
    assert_eq!(bench.subscription.state(), SubscriptionState::Active);
    assert_eq!(bench.respond(200), Action::None);
    assert_eq!(bench.respond(200), Action::None, "a repeat");
}

#[test]
fn over_udp_the_subscribe_is_repeated_until_it_is_answered() {
    let mut bench = Bench::new();
    bench.options.transaction.reliable = false;
    assert_eq!(bench.with(|s, c| s.wanted(c)), INITIAL);
    assert_eq!(
        bench.elapse(),
        (Duration::from_millis(500), Action::Retransmit)
    );
    assert_eq!(
        bench.elapse(),
        (Duration::from_millis(1000), Action::Retransmit)
    );
    assert_eq!(bench.respond(480), Action::Ended(Ended::NotRegistered));
    assert_eq!(bench.with(|s, c| s.registered(c)), INITIAL);
    let mut repeats = 0;
    let mut end = bench.elapse().1;
    while end == Action::Retransmit {
        repeats += 1;
        end = bench.elapse().1;
    }
    assert_eq!((repeats, end), (10, Action::Ended(Ended::Failed)));
}

// Proves: SUB-5
#[test]
fn refresh_comes_at_the_later_of_half_and_all_but_ten_minutes() {
    for (granted, low, high) in [
        (600, 285, 300),
        (600_000, 599_100, 599_400),
        (1000, 475, 500),
    ] {
        let (wait, action) = Bench::active(granted).elapse();
        assert_eq!(action, REFRESH);
        assert!(
            wait >= secs(low) && wait <= secs(high),
            "{granted}: {wait:?}"
        );
    }
    let mut bench = Bench::active(600_000);
    assert_eq!(
        bench.notify(in_force(Some(600), GOOD)),
        Action::None,
        "the smaller one counts"
    );
    assert!(bench.elapse().0 <= secs(300));
}

// Proves: SUB-6
#[test]
fn a_refused_refresh_ends_the_dialog_or_leaves_it_to_expire() {
    for status in [
        404, 405, 410, 416, 480, 481, 482, 483, 484, 485, 489, 501, 604,
    ] {
        let mut bench = Bench::active(600);
        let first = bench.subscription.sequence();
        assert_eq!(bench.elapse().1, REFRESH);
        let action = bench.respond(status);
        if status == 481 {
            assert_eq!(action, INITIAL);
        } else {
            assert_eq!(action, Action::Ended(Ended::Failed), "{status}");
            assert_eq!(bench.elapse().1, INITIAL, "{status}");
        }
        assert_ne!(
            bench.subscription.sequence(),
            first,
            "{status}: a new Call-ID"
        );
    }
    for status in [400, 403, 408, 500, 503, 603] {
        let mut bench = Bench::active(600);
        assert_eq!(bench.elapse().1, REFRESH);
        assert_eq!(bench.respond(status), Action::None, "{status}");
        assert_eq!(bench.elapse().1, REFRESH, "{status}: same dialog");
    }
    let mut bench = Bench::active(600);
    assert_eq!(bench.elapse().1, REFRESH);
    let brief = SubscribeResponse {
        status: 423,
        min_expires_s: Some(700_000),
        ..Default::default()
    };
    assert_eq!(bench.with(|s, c| s.handle_response(c, brief)), REFRESH);
    assert_eq!(bench.subscription.asked_expires_s(), 700_000);
    assert_eq!(
        bench.with(|s, c| s.handle_response(c, brief)),
        Action::None,
        "no loop"
    );
}

// Proves: SUB-7
#[test]
fn each_reason_of_an_end_has_its_consequence() {
    for (reason, after, registered, want, wait) in [
        ("deactivated", None, true, INITIAL, None),
        ("timeout", None, true, INITIAL, None),
        (
            "probation",
            Some(90),
            true,
            Action::Ended(Ended::Failed),
            Some(90),
        ),
        (
            "giveup",
            Some(90),
            true,
            Action::Ended(Ended::Failed),
            Some(90),
        ),
        (
            "rejected",
            None,
            true,
            Action::Ended(Ended::NotRegistered),
            None,
        ),
        (
            "noresource",
            None,
            false,
            Action::Ended(Ended::NotRegistered),
            None,
        ),
        (
            "invariant",
            None,
            false,
            Action::Ended(Ended::NotRegistered),
            None,
        ),
        ("whatever", None, true, INITIAL, None),
        (
            "",
            None,
            false,
            Action::Ended(Ended::NotRegistered),
            Some(30),
        ),
    ] {
        let mut bench = Bench::active(600);
        bench.now = bench.now + secs(60);
        assert_eq!(
            bench.notify(terminated(reason.as_bytes(), after, registered)),
            want,
            "{reason}"
        );
        match (want, wait) {
            (Action::Ended(_), Some(wait)) => assert_eq!(bench.elapse(), (secs(wait), INITIAL)),
            (Action::Ended(_), None) => assert!(bench.subscription.deadline().is_never()),
            (_, _) => assert_eq!(bench.elapse().0, secs(32)),
        }
    }
    let mut bench = Bench::active(600);
    let at_once = bench.notify(terminated(b"deactivated", None, true));
    assert_eq!(
        at_once,
        Action::Ended(Ended::Failed),
        "a flapping notifier is not chased"
    );
}

// Proves: SUB-4, SUB-10, SUB-8
#[test]
fn foreign_and_late_notifies_are_refused_with_their_status() {
    let mut bench = Bench::active(600);
    assert_eq!(bench.admit(b"other", 9), Err(481));
    assert_eq!(bench.admit(b"tag", 1), Err(500));
    assert_eq!(bench.admit(b"tag", 0), Err(500));
    let head = NotifyHead {
        from_tag: b"tag",
        cseq: 9,
        event_is_reg: true,
        state_present: true,
    };
    let other = NotifyHead {
        event_is_reg: false,
        ..head
    };
    assert_eq!(bench.subscription.admit_notify(other), Err(489));
    let bare = NotifyHead {
        state_present: false,
        ..head
    };
    assert_eq!(bench.subscription.admit_notify(bare), Err(400));
    assert_eq!(bench.admit(b"tag", 9), Ok(()));
    let mut idle = Bench::new();
    assert_eq!(idle.admit(b"tag", 1), Err(481));
}

// Proves: REG-2, REG-11, SUB-8
#[test]
fn missing_or_unusable_documents_are_asked_for_again_ever_more_rarely() {
    let mut bench = Bench::active(600_000);
    let gap = in_force(
        None,
        NotifyBody::Applied {
            needs_refresh: true,
            registered: true,
        },
    );
    assert_eq!(bench.notify(gap), REFRESH);
    assert_eq!(bench.respond(200), Action::None);
    assert_eq!(
        bench.notify(gap),
        Action::None,
        "still a gap: not at once again"
    );
    let (wait, action) = bench.elapse();
    assert_eq!(action, REFRESH);
    assert!(wait >= secs(48) && wait <= secs(72), "{wait:?}");
    assert_eq!(bench.respond(200), Action::None);
    assert_eq!(bench.notify(in_force(None, GOOD)), Action::None);
    assert_eq!(
        bench.notify(in_force(None, NotifyBody::Refused)),
        Action::None
    );
    let (wait, action) = bench.elapse();
    assert_eq!(action, REFRESH);
    assert!(wait >= secs(24) && wait <= secs(36), "{wait:?}");
}

#[test]
fn a_refresh_asked_for_during_a_refresh_follows_it() {
    let mut bench = Bench::active(600_000);
    assert_eq!(bench.with(|s, c| s.refresh(c)), REFRESH);
    assert_eq!(bench.with(|s, c| s.refresh(c)), Action::None);
    assert_eq!(bench.notify(in_force(None, GOOD)), REFRESH);
    assert_eq!(bench.notify(in_force(None, GOOD)), Action::None);
}

#[test]
fn unsubscribing_ends_with_the_last_notify_or_by_time() {
    let mut bench = Bench::active(600);
    let bye = bench.with(|s, c| s.unsubscribe(c));
    assert_eq!(bye, Action::Subscribe(SubscribeKind::Unsubscribe));
    assert_eq!(bench.subscription.asked_expires_s(), 0);
    assert_eq!(bench.respond(200), Action::None);
    let ended = Action::Ended(Ended::Unsubscribed);
    assert_eq!(bench.notify(terminated(b"timeout", None, true)), ended);
    let mut bench = Bench::active(600);
    let _ = bench.with(|s, c| s.unsubscribe(c));
    assert_eq!(bench.respond(200), Action::None);
    assert_eq!(bench.elapse(), (secs(32), ended));
    assert_eq!(bench.subscription.state(), SubscriptionState::Idle);
}

// Proves: ISC-5
#[test]
fn a_subscription_that_nobody_refreshes_starts_anew_at_its_expiry() {
    let mut bench = Bench::active(600);
    let start = bench.now;
    let mut actions = Vec::new();
    while bench.now.since(start) < secs(600) {
        let action = bench.elapse().1;
        if action == REFRESH {
            let _ = bench.respond(500);
        }
        actions.push(action);
    }
    assert_eq!(actions.last(), Some(&INITIAL));
}
