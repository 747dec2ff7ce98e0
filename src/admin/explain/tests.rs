use std::path::Path;

use super::*;
use crate::config::policy::{self, Base};
use crate::registry::device_key;

const CASES: &str = include_str!("../cases/explain.txt");
/// 2026-11-25, a Wednesday, 12:00:00 UTC.
const NOON: u64 = 1_795_608_000;

fn instance(name: &str) -> String {
    format!("urn:uuid:0000000{name}-0000-1000-8000-000000000000")
}

struct Case {
    policy: String,
    contacts: String,
    aor: String,
    waiting: Vec<Waiting>,
    pasts: Vec<(u64, Past)>,
    domains: Vec<Vec<u8>>,
    tokens: u32,
    at: u64,
    names: Vec<String>,
}

impl Case {
    fn new() -> Self {
        Self {
            policy: String::new(),
            contacts: String::new(),
            aor: "sip:alice@ims.example.net".to_owned(),
            waiting: vec![Waiting::default()],
            pasts: Vec::new(),
            domains: Vec::new(),
            tokens: 100,
            at: NOON,
            names: Vec::new(),
        }
    }

    fn line(&mut self, line: &str) {
        let (head, rest) = line.split_once(' ').unwrap_or((line, ""));
        let words: Vec<(&str, &str)> = rest
            .split_whitespace()
            .map(|word| word.split_once('=').unwrap_or((word, "")))
            .collect();
        match head {
            "|" => {
                self.policy += rest;
                self.policy.push('\n');
            }
            "user" => self.aor = rest.to_owned(),
            "domain" => self.domains.push(rest.as_bytes().to_vec()),
            "tokens" => self.tokens = rest.parse().unwrap(),
            "at" => self.at = NOON + rest.parse::<u64>().unwrap(),
            "none" => self.waiting.clear(),
            "message" => self.waiting[0] = message(&words),
            "past" => self.past(rest),
            "dev" => self.device(&words),
            _ => panic!("unknown: {line}"),
        }
    }

    fn past(&mut self, rest: &str) {
        let (name, state) = rest.split_once(' ').unwrap();
        let past = match state.split_once(' ') {
            None if state == "busy" => Past::Busy,
            None if state == "roaming" => Past::Roaming,
            None => Past::Wait,
            Some(("backoff", seconds)) => Past::Backoff(seconds.parse().unwrap()),
            Some((_, seconds)) => Past::Quarantine(seconds.parse().unwrap()),
        };
        self.pasts
            .push((device_key(instance(name).as_bytes()), past));
    }

    fn device(&mut self, words: &[(&str, &str)]) {
        let name = words[0].0;
        self.names.push(name.to_owned());
        let of = |key| words.iter().find(|word| word.0 == key).map(|word| word.1);
        let icsi = of("icsi").unwrap_or("deferred");
        let icsi: Vec<String> = icsi
            .split(',')
            .map(|name| format!("urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.{name}"))
            .collect();
        let id = instance(name);
        let mut params =
            format!("<unknown-param name=\"+sip.instance\">\"&lt;{id}&gt;\"</unknown-param>");
        if of("silent").is_none() {
            params += &format!(
                "<unknown-param name=\"+g.3gpp.icsi-ref\">\"{}\"</unknown-param>",
                icsi.join(",")
            );
        }
        if let Some(methods) = of("methods") {
            params += &format!("<unknown-param name=\"methods\">\"{methods}\"</unknown-param>");
        }
        if of("no-gruu").is_none() {
            params += &format!("<gr:pub-gruu uri=\"{};gr={id}\"/>", self.aor);
        }
        self.contacts += &format!(
            "<contact id=\"{name}\" state=\"{}\" event=\"registered\" callid=\"c{name}\" cseq=\"1\" \
             expires=\"{}\" q=\"{}\"><uri>sip:u@198.51.100.1</uri>{params}</contact>",
            if of("gone").is_some() {
                "terminated"
            } else {
                "active"
            },
            of("expires").unwrap_or("3600"),
            of("q").unwrap_or("1.0"),
        );
    }

    fn document(&self) -> String {
        format!(
            "<?xml version=\"1.0\"?><reginfo xmlns=\"urn:ietf:params:xml:ns:reginfo\" \
             xmlns:gr=\"urn:ietf:params:xml:ns:gruuinfo\" version=\"0\" state=\"full\">\
             <registration aor=\"{}\" id=\"r\" state=\"active\">{}</registration></reginfo>",
            self.aor, self.contacts
        )
    }

    fn explain(&self) -> Explanation {
        let base = Base::default();
        let rules = policy::parse(Path::new("policy.toml"), &self.policy, &base)
            .unwrap_or_else(|error| panic!("{error}"));
        let registry = RegistryOptions {
            accepted_icsi: base.icsis.into_iter().map(String::into_bytes).collect(),
            ..RegistryOptions::default()
        };
        explain(&Inputs {
            notify: self.document().as_bytes(),
            rules: &rules,
            registry: &registry,
            dialects: &[],
            domains: &self.domains,
            waiting: &self.waiting,
            pasts: &self.pasts,
            at: UnixMillis::from_secs(self.at),
            tokens: self.tokens,
        })
        .unwrap()
    }

    fn summary(&self) -> String {
        let explanation = self.explain();
        let user = &explanation.user;
        let step = |verdict: crate::selection::Verdict| {
            verdict
                .rule()
                .0
                .map_or_else(|| "-".to_owned(), |step| step.to_string())
        };
        let until = |until: Option<UnixMillis>| {
            until.map_or_else(String::new, |until| {
                format!(" until +{}", until.as_secs() - self.at)
            })
        };
        let mut out = String::new();
        if let Some(verdict) = user.verdict {
            let (code, until) = (verdict.code(), until(user.until));
            out += &format!("user {code} step {}{until}\n", step(verdict));
        }
        for (name, device) in self.names.iter().zip(&user.devices) {
            assert_eq!(device.instance, instance(name));
            let (code, until) = (device.verdict.code(), until(device.until));
            let place = device
                .place
                .map_or_else(String::new, |place| format!(" #{}", place + 1));
            out += &format!(
                "{name} {code} step {}{until}{place}\n",
                step(device.verdict)
            );
        }
        assert_eq!(explanation.selects(), out.contains("SELECTED"));
        out
    }
}

fn message(words: &[(&str, &str)]) -> Waiting {
    let mut message = Waiting::default();
    for (key, value) in words {
        match *key {
            "size" => message.bytes = value.parse().unwrap(),
            "type" => message.content_type = value.as_bytes().to_vec(),
            "expires" => message.life_s = value.parse().unwrap(),
            "for" => message.target = device_key(instance(value).as_bytes()),
            _ => panic!("unknown: {key}"),
        }
    }
    message
}

// Proves: PUSH-0, SEL-3, SEL-5, REG-10
#[test]
fn explanations_equal_the_oracle_of_the_procedure() {
    let mut steps = std::collections::BTreeSet::new();
    for text in CASES.split("\n\n").filter(|case| !case.trim().is_empty()) {
        let (input, want) = text.split_once("----\n").expect("a case has two halves");
        let mut case = Case::new();
        let lines = input
            .lines()
            .filter(|line| !(line.starts_with('#') || line.is_empty()));
        lines.for_each(|line| case.line(line));
        let shown = case.summary();
        assert_eq!(shown.trim_end(), want.trim_end(), "\nin case:\n{text}");
        for line in shown.lines() {
            steps.extend(
                line.split(' ')
                    .skip_while(|word| *word != "step")
                    .nth(1)
                    .map(str::to_owned),
            );
        }
    }
    assert_eq!(steps.len(), 16, "each step decides in some case: {steps:?}");
}

#[test]
fn the_text_and_the_json_say_who_and_why() {
    let mut case = Case::new();
    for line in [
        "dev A",
        "dev B icsi=session",
        "| [[preferences]]",
        "| users = [\"sip:alice@ims.example.net\"]",
    ] {
        case.line(line);
    }
    let explanation = case.explain();
    let text = explanation.text();
    for part in [
        "at 2026-11-25T12:00:00",
        "user alice@ims.example.net (sip:alice@ims.example.net)",
        "policy: the provider's own",
        "accepted: deferred largemsg msg",
        "preferences: those at line 1",
        "message: 300 octets, text/plain, 3600 s left",
        "SELECTED: is pushed to, number 1",
        "services: session",
        "D-NO-CPM: step 8, registered no accepted service",
        "1 of 2 devices selected",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let json = explanation.json();
    assert_eq!(json["selected"], 1);
    assert_eq!(json["devices"][1]["verdict"], "D-NO-CPM");
    assert_eq!(json["devices"][1]["step"], 8);
    assert_eq!(json["devices"][0]["place"], 1);
}

#[test]
fn the_end_of_the_last_attempt_is_told_by_its_code_and_in_words() {
    let mut case = Case::new();
    case.line("dev A");
    let mut explanation = case.explain();
    let device = &mut explanation.user.devices[0];
    device.last_ago = Some(core::time::Duration::from_secs(7));
    (device.last.status, device.last.code) = (486, "R-SIP");
    let words = "the INVITE was refused with the status that is shown";
    let text = explanation.text();
    let line = format!("last attempt 7 s ago: 486 R-SIP ({words})");
    assert!(text.contains(&line), "{text}");
    let json = explanation.json();
    assert_eq!(json["devices"][0]["last"]["meaning"], words, "{json:#}");
    assert!(!json["devices"][0]["rule"].as_str().unwrap_or("").is_empty());
}

#[test]
fn a_whole_notify_is_read_as_well_as_its_document() {
    let mut case = Case::new();
    case.line("dev A");
    let document = case.document();
    let notify = format!(
        "NOTIFY sip:pf@h SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bKn\r\nMax-Forwards: 70\r\n\
         From: <sip:alice@ims.example.net>;tag=a\r\nTo: <sip:pf@h>;tag=b\r\nCall-ID: c\r\n\
         CSeq: 1 NOTIFY\r\nContact: <sip:s@h>\r\nEvent: reg\r\nContent-Length: {}\r\n\r\n{document}",
        document.len()
    );
    let registry = RegistryOptions::default();
    let rules = RuleBook::default();
    let with = |notify: &[u8]| {
        explain(&Inputs {
            notify,
            rules: &rules,
            registry: &registry,
            dialects: &[],
            domains: &[],
            waiting: &[Waiting::default()],
            pasts: &[],
            at: UnixMillis::from_secs(NOON),
            tokens: 1,
        })
    };
    assert_eq!(with(notify.as_bytes()), with(document.as_bytes()));
    assert!(with(notify.as_bytes()).unwrap().selects());
    assert_eq!(with(b"NOTIFY\r\n\r\n"), Err(ExplainError::Message));
    assert!(matches!(with(b"<reginfo>"), Err(ExplainError::Document(_))));
    let nobody = document.replace("sip:alice", "mailto:alice");
    assert_eq!(with(nobody.as_bytes()), Err(ExplainError::Nobody));
}
