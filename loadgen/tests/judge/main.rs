//! The judge against a tiny scripted engine over real sockets: an honest one passes, and each
//! misbehaviour is seen and ends with its exit code.
#![expect(
    clippy::disallowed_methods,
    reason = "the scripted engine has a thread and sleeps"
)]
#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]
#![expect(
    clippy::cast_possible_truncation,
    reason = "numbers of test users and pushes are small"
)]

mod blaster;
mod engine;
mod phones;
mod relay;
mod schema;
mod validity;
mod workers;

use std::ffi::OsString;
use std::path::PathBuf;

use engine::{Engine, Fault};
use serde_json::Value;

/// Runs the judge in this process; gives its exit code and its JSON.
fn judge(name: &str, fault: Fault, args: &[&str]) -> (i32, Value) {
    let engine = Engine::start(fault);
    let path: PathBuf =
        std::env::temp_dir().join(format!("judge-{}-{name}.json", std::process::id()));
    let mut all: Vec<OsString> = [
        "volley-loadgen",
        "run",
        "--quiet",
        "--scscf-listen",
        "127.0.0.1:0",
        "--msrp-listen",
        "127.0.0.1:0",
        "--connections",
        "2",
        "--engine",
    ]
    .iter()
    .map(OsString::from)
    .collect();
    all.push(engine.address.to_string().into());
    all.push("--json".into());
    all.push(path.clone().into());
    all.extend(args.iter().map(OsString::from));
    let code = volley_loadgen::cli_main(all);
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let _ = std::fs::remove_file(&path);
    (code, serde_json::from_str(&text).unwrap_or(Value::Null))
}

/// Runs the judge with these arguments and gives its exit code.
fn command(args: &[&str]) -> i32 {
    let all = ["volley-loadgen"].iter().chain(args);
    volley_loadgen::cli_main(all.map(OsString::from).collect())
}

/// What a busy machine makes of a run and no fault of the judge or the engine does.
const BUSY: &[&str] = &[
    "stood-still",
    "sent-share",
    "send-lag",
    "generator-waited",
    "engine-waited",
    "steal",
    "generator-busy",
];

/// The run ended with this code, or was invalid because this machine had other things to do. What an
/// idle machine must never say is looked at in `validity`, on figures and not on this machine.
fn ended(code: i32, wanted: i32, report: &Value) {
    if code == 3 {
        let reasons = report["invalid_reasons"].as_array().unwrap();
        let codes: Vec<&str> = reasons
            .iter()
            .map(|reason| reason["code"].as_str().unwrap())
            .collect();
        assert!(!codes.is_empty(), "{report:#}");
        assert!(codes.iter().all(|code| BUSY.contains(code)), "{codes:?}");
        return;
    }
    assert_eq!(code, wanted, "{report:#}");
}

/// So many triggers fell due, and no more than a machine that is late at a step's end adds.
fn due(report: &Value, wanted: u64) {
    let due = report["counters"]["triggers_due"].as_u64().unwrap();
    let bound = if report["valid"] == true { 30 } else { 300 };
    assert!(
        (wanted..=wanted + bound).contains(&due),
        "{due} of {wanted}"
    );
}

fn broken(report: &Value) -> Vec<&str> {
    report["broken"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["rule"].as_str().unwrap())
        .collect()
}

const SMALL: &[&str] = &[
    "--kind",
    "full",
    "--users",
    "30",
    "--messages",
    "2",
    "--drain-s",
    "1",
];

// Proves: PUSH-a, PUSH-i, OK-2, OK-3, MSRP-1, MSRP-5, CPIM-1, CPIM-5
#[test]
fn an_honest_engine_is_conformant_and_the_ledger_balances() {
    let sizes = ["--body-bytes", "20,300,5000", "--phone", "mixed"];
    let (code, report) = judge("honest", Fault::None, &[SMALL, &sizes].concat());
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(schema::complaints(&report), [""; 0]);
    let ledger = &report["ledger"];
    assert_eq!(ledger["expected"], ledger["delivered"]);
    assert_eq!(ledger["deposited"], 60);
    assert!(report["counters"]["msrp_opened"].as_u64().unwrap() > 0);
}

#[test]
fn signalling_keeps_every_message_and_the_sweep_fetches_it() {
    let args = [
        "--kind",
        "signalling",
        "--users",
        "20",
        "--devices",
        "4",
        "--warmup-s",
        "0.2",
        "--duration-s",
        "0.5",
        "--users-in-flight",
        "8",
        "--sweep",
        "true",
    ];
    let (code, report) = judge("signalling", Fault::None, &args);
    assert_eq!(report["broken"], Value::Array(Vec::new()), "{report:#}");
    assert_eq!(report["ledger"]["delivered"], 80);
    assert!(report["counters"]["pushes"].as_u64().unwrap() > 200);
    ended(code, 0, &report);
}

#[test]
fn steady_mode_pushes_each_deposit_to_registered_users() {
    let args = [
        "--kind",
        "steady",
        "--users",
        "20",
        "--devices",
        "2",
        "--warmup-s",
        "0.1",
        "--duration-s",
        "0.5",
        "--rate",
        "400",
        "--lag-bound-ms",
        "200",
        "--pressure-bound",
        "1",
    ];
    let (code, report) = judge("steady", Fault::None, &args);
    assert_eq!(report["broken"], Value::Array(Vec::new()), "{report:#}");
    assert_eq!(report["ledger"]["expected"], report["ledger"]["delivered"]);
    assert!(report["ledger"]["delivered"].as_u64().unwrap() > 200);
    ended(code, 0, &report);
}

#[test]
fn an_open_loop_measures_from_the_intended_time() {
    let args = [
        "--kind",
        "signalling",
        "--users",
        "300",
        "--devices",
        "2",
        "--warmup-s",
        "0.1",
        "--duration-s",
        "0.5",
        "--rate",
        "400",
        "--lag-bound-ms",
        "2000",
        "--pressure-bound",
        "1",
        "--objective",
        "p50_trigger_to_invite_ms=0.000001",
    ];
    let (code, report) = judge("rate", Fault::None, &args);
    assert_eq!(report["conformant"], true, "{report:#}");
    assert_eq!(schema::complaints(&report), [""; 0]);
    assert!(report["series"]["slots"].as_array().unwrap().len() >= 4);
    assert_eq!(report["ledger"]["kept"], 600);
    assert_eq!(report["objectives_met"], false);
    ended(code, 1, &report);
    // 300 users come, and 120 of them again in 0.6 s: a user has two devices.
    due(&report, 420);
}

#[test]
fn a_silent_engine_loses_everything() {
    let (code, report) = judge("silent", Fault::Silent, SMALL);
    assert_eq!(code, 4, "{report:#}");
    assert_eq!(report["ledger"]["delivered"], 0);
    assert_eq!(report["ledger"]["lost"], report["ledger"]["expected"]);
}

#[test]
fn a_lost_message_is_seen() {
    let (code, report) = judge("lose", Fault::Lose, SMALL);
    assert_eq!(code, 4);
    assert_eq!(report["ledger"]["lost"], 1, "{report:#}");
    assert!(broken(&report).contains(&"OK-3"));
}

#[test]
fn a_duplicate_is_seen() {
    let (code, report) = judge("duplicate", Fault::Duplicate, SMALL);
    assert_eq!(code, 4);
    assert_eq!(
        report["ledger"]["duplicated"], report["ledger"]["expected"],
        "{report:#}"
    );
    assert_eq!(report["ledger"]["lost"], 0);
}

#[test]
fn a_changed_octet_is_seen() {
    let (code, report) = judge("corrupt", Fault::Corrupt, SMALL);
    assert_eq!(code, 4);
    assert_eq!(
        report["ledger"]["corrupted"], report["ledger"]["expected"],
        "{report:#}"
    );
    assert_eq!(broken(&report), ["CPIM-1"]);
}

#[test]
fn misbehaviour_in_the_dialog_trips_its_rule() {
    for (name, fault, rule) in [
        ("target", Fault::OldTarget, "OK-2"),
        ("automata", Fault::NoAutomata, "PUSH-e"),
        ("plain", Fault::PlainAnswer, "INT-2"),
        ("noack", Fault::NoAck, "OK-0"),
    ] {
        let (code, report) = judge(name, fault, SMALL);
        assert_eq!(code, 4, "{name}");
        assert_eq!(broken(&report), [rule], "{name}");
    }
}

#[test]
fn wrong_usage_and_an_absent_engine_have_their_exit_codes() {
    let run = command;
    assert_eq!(run(&["run"]), 2);
    assert_eq!(run(&["run", "--engine", "nonsense"]), 2);
    assert_eq!(
        run(&[
            "run",
            "--engine",
            "127.0.0.1:9",
            "--scenario",
            "nowhere.toml"
        ]),
        2
    );
    assert_eq!(run(&["rules"]), 0);
    assert_eq!(run(&["--help"]), 0);
}

/// Cost of the judge per push; run by hand in release mode.
#[test]
#[ignore = "a measurement"]
fn capacity() {
    let engine = blaster::start(4).to_string();
    let args = [
        "volley-loadgen",
        "run",
        "--engine",
        &engine,
        "--kind",
        "signalling",
        "--users",
        "20000",
        "--devices",
        "4",
        "--tel-share",
        "0",
        "--duration-s",
        "5",
        "--connections",
        "1",
        "--users-in-flight",
        "256",
        "--run-id",
        "1",
        "--scscf-listen",
        "127.0.0.1:0",
        "--msrp-listen",
        "127.0.0.1:0",
    ];
    let code = volley_loadgen::cli_main(args.iter().map(OsString::from).collect());
    assert!(code == 0 || code == 3, "exit {code}");
}
