use super::*;
use crate::registry::outcome::BindingId;

const CASES: &str = include_str!("cases/procedure.txt");

struct World {
    user: (bool, bool, bool, u64),
    allow: Vec<u64>,
    deny: Vec<u64>,
    priority: u64,
    names: Vec<String>,
    devices: Vec<DeviceView>,
    queue: QueueView,
    policy: Policy,
    moment: Moment,
}

fn secs(text: &str) -> Timestamp {
    Timestamp::from_millis(text.parse::<u64>().unwrap() * 1000)
}

fn key(name: &str) -> u64 {
    u64::from(name.as_bytes()[0])
}

impl World {
    fn new() -> Self {
        Self {
            user: (true, false, false, 0),
            allow: Vec::new(),
            deny: Vec::new(),
            priority: 0,
            names: Vec::new(),
            devices: Vec::new(),
            queue: QueueView {
                live: 1,
                fitting: u32::MAX,
                ..QueueView::default()
            },
            policy: Policy::default(),
            moment: Moment {
                now: Timestamp::from_millis(100_000),
                wall: UnixMillis::from_secs(100),
                tokens: 100,
            },
        }
    }

    fn line(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let head = words.next().unwrap();
        if head == "dev" {
            let name = words.next().unwrap();
            self.names.push(name.to_owned());
            self.devices.push(device(name, words));
            return;
        }
        for word in words {
            let (what, value) = word.split_once('=').unwrap_or((word, ""));
            match (head, what) {
                ("user", "unserved") => self.user.0 = false,
                ("user", "barred") => self.user.1 = true,
                ("user", "hold") => self.user.2 = true,
                ("user", "quiet") => self.user.3 = value.parse().unwrap(),
                ("user", "allow") => self.allow = value.split(',').map(key).collect(),
                ("user", "deny") => self.deny = value.split(',').map(key).collect(),
                ("user", "priority") => self.priority = key(value),
                ("queue", "live") => self.queue.live = value.parse().unwrap(),
                ("queue", "unfit") => {
                    for name in value.split(',') {
                        self.queue.fitting &= !(1 << (key(name) - u64::from(b'A')));
                    }
                }
                ("queue", "unplaced") => {
                    for name in value.split(',') {
                        self.queue.unplaced |= 1 << (key(name) - u64::from(b'A'));
                    }
                }
                ("queue", "places") => self.queue.places = value.parse().unwrap(),
                ("policy", "stopped") => self.policy.stopped = true,
                ("policy", "silent") => self.policy.assume_when_silent = true,
                ("policy", "no-roaming") => self.policy.allow_roaming = false,
                ("policy", "first") => self.policy.fanout = Fanout::First,
                ("policy", "best") => self.policy.fanout = Fanout::Best(value.parse().unwrap()),
                ("policy", "max") => self.policy.devices_max = value.parse().unwrap(),
                ("moment", "tokens") => self.moment.tokens = value.parse().unwrap(),
                ("moment", "now") => self.moment.now = secs(value),
                _ => panic!("unknown: {line}"),
            }
        }
    }

    fn decide(&self) -> String {
        let user = UserView {
            served: self.user.0,
            barred: self.user.1,
            hold: self.user.2,
            quiet_until: UnixMillis::from_secs(self.user.3),
            allow: &self.allow,
            deny: &self.deny,
            priority: self.priority,
        };
        let mut selection = Selection::default();
        evaluate(
            &user,
            &self.devices,
            &self.queue,
            &self.policy,
            self.moment,
            &mut selection,
        );
        let mut out = String::new();
        if let Some(verdict) = selection.user_verdict() {
            assert!(verdict.is_for_user());
            out.push_str(&format!("user {}\n", verdict.code()));
        }
        for (name, verdict) in self.names.iter().zip(selection.verdicts()) {
            out.push_str(&format!("{name} {}\n", verdict.code()));
        }
        let chosen: Vec<_> = selection
            .selected()
            .map(|index| self.names[index].as_str())
            .collect();
        out.push_str(&format!("push [{}]\n", chosen.join(" ")));
        if !selection.again_at().is_never() {
            out.push_str(&format!(
                "again {}\n",
                selection.again_at().as_millis() / 1000
            ));
        }
        out
    }
}

fn device<'a>(name: &str, words: impl Iterator<Item = &'a str>) -> DeviceView {
    let mut view = DeviceView {
        key: key(name),
        active: true,
        expires_at: Timestamp::NEVER,
        registered_at: Timestamp::ZERO,
        q: 1000,
        rule: GruuRule::PubGruu,
        icsi: 1,
        speaks: true,
        refuses_invite: false,
        roaming: None,
        pushing: false,
        history: DeviceState::Ready,
    };
    let binding = BindingId::default();
    for word in words {
        let (what, value) = word.split_once('=').unwrap_or((word, ""));
        match what {
            "gone" => view.active = false,
            "expires" => view.expires_at = secs(value),
            "registered" => view.registered_at = secs(value),
            "no-gruu" => view.rule = GruuRule::None,
            "no-cpm" => view.icsi = 0,
            "silent" => (view.icsi, view.speaks) = (0, false),
            "no-invite" => view.refuses_invite = true,
            "roaming" => view.roaming = Some(true),
            "home" => view.roaming = Some(false),
            "busy" => view.pushing = true,
            "q" => view.q = value.parse().unwrap(),
            "wait" => {
                view.history = DeviceState::WaitRegistration {
                    binding,
                    not_before: Timestamp::ZERO,
                };
            }
            "quarantine" => {
                view.history = DeviceState::Quarantine {
                    binding,
                    until: secs(value),
                };
            }
            "backoff" => {
                view.history = DeviceState::Backoff {
                    until: secs(value),
                    tries: 1,
                    firm: false,
                };
            }
            _ => panic!("unknown: {word}"),
        }
    }
    view
}

// Proves: PUSH-0, SEL-3, SEL-5, RSP-31, PUSH-a2
#[test]
fn the_procedure_gives_the_reasons_of_its_table() {
    let mut cases = 0;
    for case in CASES.split("\n\n").filter(|case| !case.trim().is_empty()) {
        let (input, want) = case.split_once("----\n").expect("a case has two halves");
        let mut world = World::new();
        for line in input
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
        {
            world.line(line);
        }
        assert_eq!(
            world.decide().trim_end(),
            want.trim_end(),
            "\nin case:\n{case}"
        );
        cases += 1;
    }
    assert!(cases >= 20, "{cases}");
}

// Proves: SEL-2
#[test]
fn changes_close_together_make_one_more_decision_at_the_windows_end() {
    let window = Duration::from_millis(250);
    let at = Timestamp::from_millis;
    let mut debounce = Debounce::default();
    assert_eq!(debounce.trigger(at(1000), window), Decide::Now);
    assert!(debounce.deadline().is_never());
    for millis in [1010, 1100, 1249] {
        assert_eq!(debounce.trigger(at(millis), window), Decide::At(at(1250)));
    }
    assert!(!debounce.handle_timeout(at(1249), window));
    assert!(debounce.handle_timeout(at(1250), window));
    assert!(!debounce.handle_timeout(at(1250), window), "once");
    assert_eq!(debounce.trigger(at(1300), window), Decide::At(at(1500)));
    assert!(debounce.handle_timeout(at(1500), window));
    assert_eq!(debounce.trigger(at(9000), window), Decide::Now);
}

#[test]
fn indices_are_dense_and_codes_are_distinct() {
    let at = Timestamp::ZERO;
    let all = [
        Verdict::UserNotServed,
        Verdict::UserBarred,
        Verdict::UserPrefHold { until: None },
        Verdict::NoMessage,
        Verdict::Stopped,
        Verdict::NotActive,
        Verdict::NoGruu,
        Verdict::NoCpm,
        Verdict::PrefExcluded,
        Verdict::Roaming,
        Verdict::BusyPush,
        Verdict::Wait,
        Verdict::Quarantine { until: at },
        Verdict::Backoff { until: at },
        Verdict::NothingForIt,
        Verdict::FanoutCut,
        Verdict::Throttled,
        Verdict::Selected,
        Verdict::NoPlace,
    ];
    assert_eq!(all.len(), VERDICTS);
    let mut probe = Probe::default();
    for (index, verdict) in all.iter().enumerate() {
        assert_eq!(verdict.index(), index);
        *verdict.counter(&mut probe) += 1;
        assert!(
            all[..index]
                .iter()
                .all(|other| other.code() != verdict.code())
        );
    }
    let counted: Vec<u64> = probe
        .iter()
        .filter(|(name, _)| name.starts_with("verdict_"))
        .map(|(_, count)| count)
        .collect();
    assert_eq!(counted, [1; VERDICTS], "each has a counter of its own");
}

// Proves: DLV-3
#[test]
fn a_message_waits_for_silent_devices_only_where_they_are_pushed_to() {
    let silent = device("a", ["silent"].into_iter());
    let strict = Policy::default();
    let lenient = Policy {
        assume_when_silent: true,
        ..strict
    };
    assert!(
        silent.icsi == 0 && !silent.speaks,
        "the case is what it says"
    );
    assert!(!strict.is_capable(&silent));
    assert!(lenient.is_capable(&silent));
    let unreachable = DeviceView {
        rule: GruuRule::None,
        ..silent
    };
    assert!(!lenient.is_capable(&unreachable));
    let refuses = DeviceView {
        refuses_invite: true,
        ..silent
    };
    assert!(!lenient.is_capable(&refuses));
}
