//! Phones that ring, refuse, want more time, hang up; receivers that are slow or refuse.

use serde_json::Value;

use crate::engine::Fault;
use crate::{broken, judge};

const BASE: &[&str] = &[
    "--kind",
    "full",
    "--users",
    "40",
    "--devices",
    "1",
    "--messages",
    "1",
    "--drain-s",
    "3",
    "--ring-ms",
    "2000",
    "--late-ms",
    "2000",
    "--slow-ms",
    "40",
];

fn count(report: &Value, name: &str) -> u64 {
    report["counters"][name].as_u64().unwrap()
}

#[test]
fn phones_that_ring_are_late_or_fork_get_everything() {
    let mix = [
        "--mix",
        "answer:1,ring:1,late:1,fork:1",
        "--receivers",
        "read:1,slow:1",
    ];
    let (code, report) = judge("ringing", Fault::None, &[BASE, &mix].concat());
    assert_eq!(broken(&report), [""; 0], "{report:#}");
    assert_eq!(report["ledger"]["delivered"], 40);
    assert_eq!(code, 0, "{report:#}");
    // The time a phone rings is not the engine's: it counts from the 200.
    let rows = report["latencies"].as_array().unwrap();
    let ack = rows
        .iter()
        .find(|row| row["stage"] == "answer_to_ack")
        .unwrap();
    assert!(ack["max"].as_f64().unwrap() < 2000.0, "{ack}");
}

#[test]
fn what_phones_refuse_stays_with_the_engine_and_is_counted() {
    let mix = ["--mix", "busy:1,absent:1,decline:1,not-acceptable:1"];
    let (code, report) = judge("refusing", Fault::None, &[BASE, &mix].concat());
    assert_eq!(broken(&report), [""; 0], "{report:#}");
    assert_eq!(count(&report, "refused"), 40);
    assert_eq!(report["ledger"]["kept"], 40);
    assert_eq!(report["ledger"]["delivered"], 0);
    // No push was completed, so there is nothing to believe about speed.
    assert!(code == 0 || code == 3, "{report:#}");
}

#[test]
fn an_interval_too_small_is_tried_again_with_a_larger_one() {
    let mix = ["--mix", "too-small:1"];
    let (code, report) = judge("interval", Fault::None, &[BASE, &mix].concat());
    assert_eq!(broken(&report), [""; 0], "{report:#}");
    assert_eq!(report["ledger"]["delivered"], 40);
    assert_eq!(code, 0, "{report:#}");
}

#[test]
fn a_refused_message_is_kept_and_excuses_the_early_end() {
    let receivers = ["--receivers", "refuse:1"];
    let (code, report) = judge("full-phone", Fault::None, &[BASE, &receivers].concat());
    assert_eq!(broken(&report), [""; 0], "{report:#}");
    assert_eq!(count(&report, "sends_refused"), 40);
    assert_eq!(report["ledger"]["kept"], 40);
    assert_eq!(code, 0, "{report:#}");
}

const HELD: &[&str] = &[
    "--scenario",
    "sessions",
    "--users",
    "40",
    "--devices",
    "1",
    "--duration-s",
    "0.3",
    "--users-in-flight",
    "8",
    "--drain-s",
    "1",
    "--hang-up",
];

// Proves: DLG-8
#[test]
fn phones_hang_up_what_stood_and_the_message_follows_its_users_register() {
    let (code, report) = judge("hang-up", Fault::Linger, HELD);
    assert_eq!(broken(&report), [""; 0], "{report:#}");
    assert_eq!(count(&report, "hung_up"), 40, "{report:#}");
    assert_eq!(count(&report, "sessions_held"), 40, "they stood before");
    assert_eq!(report["ledger"]["delivered"], 40);
    assert_eq!(code, 0, "{report:#}");
    let steps = report["phases"].as_array().unwrap();
    let names: Vec<&str> = steps
        .iter()
        .map(|step| step["name"].as_str().unwrap())
        .collect();
    assert!(names.contains(&"hang-up"), "{names:?}");
    // No message waited on the engine's disk for its user to come.
    assert!(!names.contains(&"deposit"), "{names:?}");
}

#[test]
fn an_engine_that_knows_nothing_of_a_session_that_stands_is_not_conformant() {
    let (code, report) = judge("hang-up-deaf", Fault::LingerDeaf, HELD);
    assert_eq!(broken(&report), ["DLG-8"], "{report:#}");
    assert_eq!(code, 4, "{report:#}");
}

// Proves: DLG-6
#[test]
fn a_refresh_that_crosses_the_bye_of_a_phone_is_nobodys_fault() {
    let (code, report) = judge("hang-up-cross", Fault::LingerCross, HELD);
    assert_eq!(broken(&report), [""; 0], "{report:#}");
    assert_eq!(count(&report, "updates_crossed"), 40, "{report:#}");
    assert_eq!(code, 0, "{report:#}");
}

#[test]
fn a_bye_without_an_answer_ends_the_run_and_it_says_so() {
    let (code, report) = judge("hang-up-mute", Fault::LingerMute, HELD);
    assert_eq!(count(&report, "hung_up"), 0, "{report:#}");
    assert_ne!(code, 0, "{report:#}");
}
