//! Several worker threads: one world shared out, one report.

use crate::engine::Fault;
use crate::{broken, due, ended, judge, schema};

const BASE: &[&str] = &[
    "--kind",
    "full",
    "--users",
    "90",
    "--devices",
    "1-3",
    "--phone",
    "mixed",
    "--messages",
    "2",
    "--drain-s",
    "2",
];

#[test]
fn three_workers_share_the_users_and_their_books_add_up_to_those_of_one() {
    let (code, one) = judge("one-worker", Fault::None, BASE);
    assert_eq!(code, 0, "{one:#}");
    let (code, three) = judge(
        "three-workers",
        Fault::None,
        &[BASE, &["--workers", "3"]].concat(),
    );
    assert_eq!(broken(&three), [""; 0], "{three:#}");
    assert_eq!(schema::complaints(&three), [""; 0]);
    assert_eq!(code, 0, "{three:#}");
    assert_eq!(three["ledger"], one["ledger"]);
    assert_eq!(three["users"], 90);
    assert_eq!(three["devices"], one["devices"]);
    for name in ["pushes", "deposits", "reports", "triggers_due"] {
        assert_eq!(three["counters"][name], one["counters"][name], "{name}");
    }
    let series = three["series"]["slots"].as_array().unwrap();
    let pushes: u64 = series
        .iter()
        .map(|slot| slot["pushes"].as_u64().unwrap())
        .sum();
    assert_eq!(Some(pushes), three["counters"]["pushes"].as_u64());
}

#[test]
fn a_rate_is_shared_out_and_kept() {
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
        "1",
        "--rate",
        "400",
        "--workers",
        "2",
        "--lag-bound-ms",
        "2000",
        "--pressure-bound",
        "1",
    ];
    let (code, report) = judge("rate-workers", Fault::None, &args);
    ended(code, 0, &report);
    due(&report, 520);
}

#[test]
fn what_one_worker_finds_is_in_the_report_of_all() {
    let args = [BASE, &["--workers", "3"]].concat();
    let (code, report) = judge("lost-worker", Fault::Lose, &args);
    assert_eq!(code, 4, "{report:#}");
    assert_eq!(report["ledger"]["lost"], 1);
    let (code, report) = judge("tags-workers", Fault::NoAutomata, &args);
    assert_eq!(code, 4);
    assert_eq!(broken(&report), ["PUSH-e"]);
    assert_eq!(report["broken"][0]["count"], report["counters"]["invites"]);
    let offenders = report["offenders"].as_array().unwrap().len();
    assert_eq!(offenders, 10, "ten of each rule, not of each worker");
}
