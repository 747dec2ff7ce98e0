use super::*;
use crate::base::entropy::Jitter;
use crate::registry::device::Outcome;
use crate::registry::outcome::{DeviceState, Facts, OutcomeOptions, classify};

const CASES: &str = include_str!("../../reginfo/cases/merge.txt");
const TWO_DEVICES: &[u8] = include_bytes!("../../reginfo/cases/two_devices.xml");

/// A user, a clock, and options; one per case, kept over its steps.
struct World {
    user: User,
    options: RegistryOptions,
    now: Timestamp,
    document: Document,
    lists: KnownLists,
    xml: String,
}

impl World {
    fn new() -> Self {
        let mut user = User::default();
        user.reset(b"alice@ims.example");
        user.identity.extend_from_slice(b"sip:alice@ims.example");
        Self {
            user,
            options: RegistryOptions::default(),
            now: Timestamp::from_millis(1_000_000),
            document: Document::new(),
            lists: KnownLists::default(),
            xml: String::new(),
        }
    }

    fn step(&mut self, input: &str) -> String {
        let mut out = String::new();
        let mut open = false;
        for line in input
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
        {
            let words: Vec<_> = line.split_whitespace().collect();
            match words[0] {
                "doc" => {
                    self.xml = format!(
                        "<reginfo xmlns='urn:ietf:params:xml:ns:reginfo' \
                         xmlns:gr='urn:ietf:params:xml:ns:gruuinfo' version='{}' state='{}'>",
                        words[1], words[2]
                    );
                }
                "reg" => {
                    self.close(&mut open);
                    let state = words.get(3).unwrap_or(&"active");
                    self.xml += &format!(
                        "<registration id='{}' aor='{}' state='{state}'>",
                        words[1], words[2]
                    );
                    open = true;
                }
                "con" => self.xml += &contact(&words[1..]),
                "policy" => self.options.gruu = policy(words[1]),
                "strict-version" => self.options.full_at_equal_version = false,
                "restart" => self.user.registration.restart(),
                "later" => self.now = self.now + core::time::Duration::from_secs(seconds(words[1])),
                "outcome" => self.outcome(words[1], words[2].parse().unwrap()),
                "target" => {
                    let key = fnv_lower(words[1].as_bytes());
                    assert!(self.user.device(key).is_some());
                    let target = self.user.target_for(key, words[2].as_bytes());
                    out += &target.map_or_else(
                        || "none\n".to_owned(),
                        |target| {
                            let uri = String::from_utf8_lossy(target.uri);
                            format!("{} {uri}\n", target.rule.as_str())
                        },
                    );
                }
                other => panic!("unknown: {other}"),
            }
        }
        if !self.xml.is_empty() {
            self.close(&mut open);
            self.xml += "</reginfo>";
            out += &self.apply();
            self.xml.clear();
        }
        out
    }

    fn close(&mut self, open: &mut bool) {
        if core::mem::take(open) {
            self.xml += "</registration>";
        }
    }

    fn outcome(&mut self, instance: &str, status: u16) {
        let now = self.now;
        let device = self
            .user
            .device_mut(fnv_lower(instance.as_bytes()))
            .unwrap();
        let outcome = Outcome {
            class: classify(
                status,
                None,
                Facts {
                    alternate_tried: true,
                    ..Facts::default()
                },
            ),
            status,
            binding: device.binding,
            required: false,
            code: "",
            note: b"",
        };
        let _ = device.record(
            now,
            outcome,
            &mut Jitter::new(1),
            &OutcomeOptions::default(),
        );
    }

    fn apply(&mut self) -> String {
        self.document.parse(self.xml.as_bytes()).unwrap();
        let applied = self
            .user
            .apply(self.now, &self.document, &self.options, &mut self.lists);
        if let Some(discarded) = applied.discarded {
            return format!("discarded {discarded:?}\n");
        }
        let mut out = format!("triggers={}", applied.new_or_rebound_devices);
        for (flag, name) in [
            (applied.changed, "changed"),
            (applied.needs_refresh, "refresh"),
        ] {
            if flag {
                out += &format!(" {name}");
            }
        }
        for (count, name) in [
            (applied.gruu_refused, "refused"),
            (applied.overflow, "overflow"),
        ] {
            if count > 0 {
                out += &format!(" {name}={count}");
            }
        }
        out += "\n";
        for device in self.user.devices.iter().filter(|device| device.key != 0) {
            let name = match self.user.instance(device) {
                [] => self.user.contact_uri(device.key),
                instance => instance,
            };
            let left = device.expires_at.since(self.now).as_secs();
            out += &match device.active {
                false => format!("{} gone", String::from_utf8_lossy(name)),
                true => format!(
                    "{} {} q={} left={left}",
                    String::from_utf8_lossy(name),
                    device.rule.as_str(),
                    device.q
                ),
            };
            out += match device.history {
                DeviceState::Ready => "\n",
                DeviceState::Backoff { .. } => " B\n",
                DeviceState::WaitRegistration { .. } => " W\n",
                DeviceState::Quarantine { .. } => " Q\n",
            };
        }
        out
    }
}

fn seconds(text: &str) -> u64 {
    text.parse().unwrap()
}

fn policy(name: &str) -> GruuPolicy {
    match name {
        "strict" => GruuPolicy::Strict,
        "composed" => GruuPolicy::Composed,
        "contact-instance" => GruuPolicy::ContactByInstance,
        "contact" => GruuPolicy::Contact,
        "aor-instance" => GruuPolicy::AorByInstance,
        other => panic!("unknown: {other}"),
    }
}

/// `<id> <state> <event> key=value...`
fn contact(words: &[&str]) -> String {
    let mut attributes = format!(
        "id='{}' state='{}' event='{}'",
        words[0], words[1], words[2]
    );
    let mut inside = String::new();
    for word in &words[3..] {
        let (name, value) = word.split_once('=').unwrap();
        match name {
            "uri" => inside += &format!("<uri> {value} </uri>"),
            "gruu" => inside += &format!("<gr:pub-gruu uri='{value}'/>"),
            "temp" => inside += &format!("<gr:temp-gruu uri='{value}'/>"),
            "instance" => {
                inside += &format!(
                    "<unknown-param name='+sip.instance'>\"&lt;{value}&gt;\"</unknown-param>"
                );
            }
            _ => attributes += &format!(" {name}='{value}'"),
        }
    }
    format!("<contact {attributes}>{inside}</contact>")
}

// Proves: REG-2, REG-3, REG-4, REG-5, REG-6, REG-8, REG-9, REG-10, PUSH-a1, PUSH-a2, BAD-23
#[test]
fn documents_change_the_devices_as_the_cases_say() {
    let mut steps = 0;
    let mut failures = String::new();
    for case in CASES.split("\n====\n") {
        let mut world = World::new();
        for step in case.split("\n\n").filter(|step| !step.trim().is_empty()) {
            let (input, want) = step.split_once("----\n").expect("a step has two halves");
            let found = world.step(input);
            if found.trim_end() != want.trim_end() {
                failures += &format!("\n{input}---- found\n{found}---- wanted\n{want}\n");
            }
            steps += 1;
        }
    }
    assert!(failures.is_empty(), "{failures}");
    assert!(steps >= 30, "{steps}");
}

fn two_devices() -> (User, Document) {
    let mut user = User::default();
    user.reset(b"+15550100");
    user.identity
        .extend_from_slice(b"sip:+15550100@ims.example.net");
    let mut document = Document::new();
    document.parse(TWO_DEVICES).unwrap();
    (user, document)
}

// Proves: REG-9, PUSH-a, REG-7
#[test]
fn two_devices_under_two_identities_are_two_devices() {
    let (mut user, document) = two_devices();
    let applied = user.apply(
        Timestamp::from_millis(1),
        &document,
        &RegistryOptions::default(),
        &mut KnownLists::default(),
    );
    assert_eq!(
        (applied.active_devices, applied.new_or_rebound_devices),
        (2, 2)
    );
    assert_eq!(user.devices.len(), 2);
    let device = &user.devices[0];
    assert_eq!(device.features.icsi, 3);
    let sip = b"sip:+15550100@ims.example.net;gr=urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6";
    let gruu_for = |aor: &[u8]| user.target_for(device.key, aor).map(|target| target.uri);
    assert_eq!(
        gruu_for(b"sip:+15550100@ims.example.net"),
        Some(sip.as_slice())
    );
    assert_eq!(
        gruu_for(b"sip:unknown@ims.example.net"),
        Some(sip.as_slice())
    );
    let tel = b"sip:+15550100@ims.example.net;user=phone;\
        gr=urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6";
    assert_eq!(gruu_for(b"tel:+15550100"), Some(tel.as_slice()));
}

#[test]
fn a_warm_merge_moves_no_buffer() {
    let (mut user, mut document) = two_devices();
    let mut lists = KnownLists::default();
    let options = RegistryOptions::default();
    let _ = user.apply(Timestamp::from_millis(1), &document, &options, &mut lists);
    let parse = |document: &mut Document, version: u8| {
        let text = core::str::from_utf8(TWO_DEVICES)
            .unwrap()
            .replace(
                "reg-A-1@",
                &format!("reg-A-{}@", char::from(b'a' + version)),
            )
            .replace("version=\"0\"", &format!("version=\"{version}\""));
        document.parse(text.as_bytes()).unwrap();
        let rows = document.contacts.as_ptr() as usize;
        (
            rows,
            document.params.as_ptr() as usize,
            document.registrations.as_ptr() as usize,
        )
    };
    let rows = parse(&mut document, 0);
    let before = user.buffers();
    for version in 1..10 {
        assert_eq!(parse(&mut document, version), rows);
        let applied = user.apply(Timestamp::from_millis(2), &document, &options, &mut lists);
        assert!(applied.changed && applied.discarded.is_none());
        assert_eq!(
            user.buffers(),
            before,
            "text, bindings and their capacity stay"
        );
    }
}

// Proves: BAD-23
#[test]
fn a_gruu_taken_before_the_home_was_known_is_judged_again() {
    let mut world = World::new();
    world.user.identity.clear();
    let document = |version: u32| {
        format!(
            "doc {version} full\nreg r tel:+1555\ncon 1 active created expires=60 instance=urn:x \
             gruu=sip:+1555@evil.example;user=phone;gr=urn:x\n"
        )
    };
    let said = world.step(&document(0));
    assert!(said.contains("urn:x pub-gruu"), "{said}");
    world
        .user
        .identity
        .extend_from_slice(b"sip:+1555@ims.example");
    let said = world.step(&document(1));
    assert!(
        said.contains("refused=1") && said.contains("urn:x none"),
        "{said}"
    );
}

// Proves: BAD-22, REG-6
#[test]
fn texts_that_change_at_each_document_are_kept_apart_and_packed() {
    let mut world = World::new();
    let uri =
        |round: usize, n: usize| format!("sip:{}@192.0.2.{n}", "x".repeat((round * 7 + n) % 90));
    for round in 0..200 {
        let mut document = format!("doc {round} full\nreg r sip:alice@ims.example\n");
        for n in (0..5).filter(|n| (round + n) % 7 != 0) {
            document += &format!(
                "con c{n} active registered callid={round} expires=60 instance=urn:x{n} uri={} \
                 gruu=sip:alice@ims.example;gr={}{n}\n",
                uri(round, n),
                "g".repeat((round + n) % 50 + 1),
            );
        }
        let said = world.step(&document);
        assert!(
            !said.contains("overflow") && !said.contains("refused"),
            "{said}"
        );
        for n in (0..5).filter(|n| (round + n) % 7 != 0) {
            let key = fnv_lower(format!("urn:x{n}").as_bytes());
            let target = world.user.target_for(key, b"").unwrap().uri;
            let want = format!(
                "sip:alice@ims.example;gr={}{n}",
                "g".repeat((round + n) % 50 + 1)
            );
            assert_eq!(target, want.as_bytes());
            assert_eq!(world.user.contact_uri(key), uri(round, n).as_bytes());
            let device = world.user.device(key).unwrap();
            assert_eq!(world.user.instance(device), format!("urn:x{n}").as_bytes());
        }
        assert!(world.user.buffers()[1] <= 8192, "the text is packed");
    }
}

// Proves: BAD-22
#[test]
fn identities_and_bindings_are_bounded() {
    let mut world = World::new();
    let mut overflows = 0;
    for round in 0..300 {
        let said = world.step(&format!(
            "doc {round} partial\nreg r{round} sip:alice{}@ims.example\ncon c{round} active \
             created expires=60 instance=urn:x uri=sip:192.0.2.1\n",
            round % 70
        ));
        overflows += usize::from(said.contains("overflow=1"));
    }
    assert_eq!(overflows, 300 - 32, "one place for each registration");
    // A full document has room beside what it replaces.
    let mut document = String::from("doc 300 full\n");
    for n in 0..32 {
        document +=
            &format!("reg q{n} sip:alice{n}@ims.example\ncon c{n} active created instance=urn:x\n");
    }
    let said = world.step(&document);
    assert!(!said.contains("overflow"), "{said}");
}

// Proves: RSP-17
#[test]
fn three_unmatched_480s_drop_require() {
    let (mut user, document) = two_devices();
    let now = Timestamp::from_millis(1);
    let _ = user.apply(
        now,
        &document,
        &RegistryOptions::default(),
        &mut KnownLists::default(),
    );
    let device = &mut user.devices[0];
    let outcome = Outcome {
        class: classify(480, None, Facts::default()),
        status: 480,
        binding: device.binding,
        required: true,
        code: "",
        note: b"Warning text",
    };
    let options = OutcomeOptions::default();
    let mut jitter = Jitter::new(1);
    for _ in 0..2 {
        let followup = device.record(now, outcome, &mut jitter, &options);
        assert!(!followup.drop_require && !device.no_require);
    }
    let followup = device.record(now, outcome, &mut jitter, &options);
    assert!(followup.drop_require && followup.refresh_subscription && device.no_require);
    assert_eq!(device.history, DeviceState::Ready);
    assert_eq!(device.note(), b"Warning text");
}

// Proves: REG-5
#[test]
fn a_failure_of_an_old_registration_does_not_hold_the_new_one() {
    let (mut user, document) = two_devices();
    let now = Timestamp::from_millis(1);
    let _ = user.apply(
        now,
        &document,
        &RegistryOptions::default(),
        &mut KnownLists::default(),
    );
    let device = &mut user.devices[0];
    let old = BindingId {
        call_id: 1,
        register: 2,
    };
    let outcome = Outcome {
        class: classify(404, None, Facts::default()),
        status: 404,
        binding: old,
        required: false,
        code: "",
        note: b"",
    };
    let followup = device.record(
        now,
        outcome,
        &mut Jitter::new(1),
        &OutcomeOptions::default(),
    );
    assert!(followup.refresh_subscription);
    assert_eq!(device.history, DeviceState::Ready);
}

// Proves: BAD-22
#[test]
fn devices_are_bounded_and_one_with_a_history_outlives_one_without() {
    let mut world = World::new();
    for round in 0..100 {
        let contact = format!(
            "con c{round} active registered instance=urn:x{round} expires=60 \
             gruu=sip:alice@ims.example;gr=urn:x{round}"
        );
        let _ = world.step(&format!(
            "doc {round} full\nreg r sip:alice@ims.example\n{contact}\n"
        ));
        if round == 0 {
            world.outcome("urn:x0", 403);
        }
    }
    assert!(
        world.user.devices.len() <= DEVICES_EASY + 1,
        "{}",
        world.user.devices.len()
    );
    assert!(
        world.user.device(fnv_lower(b"urn:x0")).is_some(),
        "the quarantined one is kept"
    );
}

// Proves: BAD-23, PUSH-a
#[test]
fn hostile_corpus_makes_only_sound_devices_reachable() {
    let Some(directory) = torture_directory() else {
        println!("skipped: VOLLEY_TORTURE_DIR is not set");
        return;
    };
    let index = std::fs::read_to_string(directory.join("INDEX-own.tsv")).unwrap();
    let unreachable = [
        "gruu-temp-only.xml",
        "gruu-wrong-ns.xml",
        "contact-terminated.xml",
        "contact-expired-active.xml",
        "reg-terminated-contact-active.xml",
        "gruu-8k.xml",
    ];
    for line in index.lines().filter(|line| line.starts_with("own-reginfo")) {
        let columns: Vec<_> = line.split('\t').collect();
        let (name, verdict) = (columns[1], columns[5]);
        let bytes = std::fs::read(directory.join("own-reginfo").join(name)).unwrap();
        let mut world = World::new();
        if world.document.parse(&bytes).is_err() {
            continue;
        }
        let applied =
            world
                .user
                .apply(world.now, &world.document, &world.options, &mut world.lists);
        let reachable = world
            .user
            .devices
            .iter()
            .filter(|device| world.user.target_for(device.key, b"").is_some())
            .count();
        let want = usize::from(verdict != "reject" && !unreachable.contains(&name));
        assert_eq!(reachable, want, "{name}");
        let refuses = name.starts_with("gruu-") && verdict == "reject";
        assert!(!refuses || applied.gruu_refused == 1, "{name}: counted");
        assert_eq!(applied.needs_refresh, name == "partial-first.xml", "{name}");
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the corpus is not part of the repository"
)]
fn torture_directory() -> Option<std::path::PathBuf> {
    std::env::var("VOLLEY_TORTURE_DIR")
        .ok()
        .map(std::path::PathBuf::from)
}
