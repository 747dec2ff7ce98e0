//! The judge's scenarios against the real engine, small.
#![expect(
    clippy::unwrap_used,
    reason = "the surroundings of these tests are plain blocking threads and must work"
)]

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::Value;

use crate::program::{Directory, Engine, backend, volley};

/// Where the engine listens, from the first port of a test on: datagrams and streams on one port.
pub(crate) const ENGINE: u16 = 26;

/// Ports in a row that nobody listens on just now, below those the kernel gives out; no two tests of a
/// process get the same.
pub(crate) fn ports(count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let place = NEXT.fetch_add(400, Ordering::Relaxed);
    let mut first = 20_000 + u16::try_from(std::process::id() % 8000).unwrap() + place;
    loop {
        let free = |port: u16| TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port))).is_ok();
        if (first..first + count).all(free) {
            return first;
        }
        first += count;
    }
}

/// An engine whose S-CSCFs listen from `first` on, one for each worker; `more` goes to `[push]`.
pub(crate) fn config(
    directory: &Directory,
    first: u16,
    (workers, hops): (u16, u16),
    more: &str,
) -> String {
    let hop = |port: u16| format!("{{ address = \"127.0.0.1:{port}\", connections = 2 }}");
    let of = |worker: u16| {
        let hops = (0..hops).map(|at| hop(first + worker + at * workers));
        hops.collect::<Vec<_>>().join(", ")
    };
    let scscf = |worker: u16| {
        format!(
            "{{ names = [\"127.0.0.1:{}\"], next_hops = [{}] }}",
            first + worker,
            of(worker)
        )
    };
    let others: Vec<String> = (1..workers).map(scscf).collect();
    format!(
        "[node]\nbackend = \"{}\"\ndrain_s = 2\n[sip]\nlisten = \"127.0.0.1:{}\"\nnext_hops = [{}]\nscscf = [{}]\n\
         [identity]\npf_uri = \"sip:cpm-pf@home.example\"\ndomains = [\"home.example\"]\n\
         [push]\n{more}\n[msrp]\nlisten = \"127.0.0.1:0\"\nguard = false\nreuse = true\n\
         [store]\ndir = \"{}\"\nsegment_mib = 4\n[selection]\ncoalesce_ms = 0\nbackoff_ms = 1000\n\
         [limits]\nusers_max = 10000\npushes_max = 10000\n",
        backend(),
        first + ENGINE,
        of(0),
        others.join(", "),
        directory.store().display()
    )
}

/// Runs a scenario; gives the exit code and the report.
fn judged(
    directory: &Directory,
    config: &str,
    scenario: (&str, u16),
    more: &[&str],
) -> (Option<i32>, Value) {
    let path = directory.0.join("judged.toml");
    fs::write(&path, config).unwrap();
    let _engine = Engine::start(&path);
    judge(directory, scenario, more)
}

/// Runs a scenario against the engine that is there.
pub(crate) fn judge(
    directory: &Directory,
    (scenario, first): (&str, u16),
    more: &[&str],
) -> (Option<i32>, Value) {
    let report = directory.0.join("report.json");
    let output = volley()
        .args(["judge", "run", "--quiet", "--scenario", scenario])
        .args(["--engine", &format!("127.0.0.1:{}", first + ENGINE)])
        .args(["--scscf-listen", &format!("127.0.0.1:{first}")])
        .args(["--msrp-listen", &format!("127.0.0.1:{}", first + 20)])
        .args(["--json", report.to_str().unwrap()])
        .args(more)
        .output()
        .unwrap();
    let text = read(&report);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = serde_json::from_str(&text).unwrap_or(Value::String(words));
    (output.status.code(), report)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn count(report: &Value, name: &str) -> u64 {
    report["counters"][name].as_u64().unwrap_or(0)
}

// Proves: NH-1
#[test]
fn the_users_of_each_worker_are_reached_by_their_own_scscf() {
    let (directory, first) = (Directory::new(), ports(30));
    let config = config(&directory, first, (3, 1), "linger_ms = 0");
    let more = ["--workers", "3", "--users", "300"];
    let (code, report) = judged(&directory, &config, ("full", first), &more);
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(report["ledger"]["expected"], report["ledger"]["delivered"]);
    assert_eq!(report["users"], 300);
    assert_eq!(count(&report, "strays"), 0);
}

#[test]
fn more_shards_than_cores_serve_everyone() {
    let (directory, first) = (Directory::new(), ports(30));
    let config = config(&directory, first, (1, 1), "linger_ms = 0");
    let config = config.replace("[node]\n", "[node]\nshards = 6\n");
    let (code, report) = judged(&directory, &config, ("full", first), &["--users", "300"]);
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(report["ledger"]["expected"], report["ledger"]["delivered"]);
    assert_eq!(report["users"], 300);
}

#[test]
fn a_judge_that_gathers_what_it_reads_counts_the_wait_against_the_engine() {
    let (directory, first) = (Directory::new(), ports(30));
    let config = config(&directory, first, (1, 1), "linger_ms = 0");
    let more = ["--users", "300", "--gather-us", "8000"];
    let (code, report) = judged(&directory, &config, ("full", first), &more);
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(report["ledger"]["expected"], report["ledger"]["delivered"]);
    let rows = report["latencies"].as_array().unwrap();
    let stage = rows.iter().find(|row| row["stage"] == "trigger_to_invite");
    // Read every 8 ms, an INVITE has waited for 4 of them.
    assert!(stage.unwrap()["p50"].as_f64() > Some(2.0), "{stage:?}");
}

// Proves: OVL-3, OVL-4
#[test]
fn a_hop_that_wants_so_many_requests_a_second_gets_them_and_no_more() {
    // Two shards are one client to the hop.
    for shards in ["1", "2"] {
        let (directory, first) = (Directory::new(), ports(30));
        let config = config(&directory, first, (1, 1), "linger_ms = 0")
            .replace("[node]\n", &format!("[node]\nshards = {shards}\n"));
        let more = ["--users", "100", "--users-in-flight", "4"];
        let more = [&more[..], &["--devices", "2", "--hops", "rate:1"]].concat();
        let (code, report) = judged(&directory, &config, ("full", first), &more);
        assert_eq!(code, Some(0), "{report:#}");
        assert_eq!(report["ledger"]["delivered"], 200);
        assert!(count(&report, "hop_wishes") >= 200);
        // A hundred SUBSCRIBEs and two hundred INVITEs, but for those of before its first word.
        let phases = report["phases"].as_array().unwrap();
        let step = phases.iter().find(|step| step["name"] == "register");
        let seconds = step.unwrap()["seconds"].as_f64().unwrap();
        assert!(seconds > 2.0, "{step:?}");
    }
}

// Proves: NH-3, SUB-7, REG-2, MSRP-22
#[test]
fn nothing_is_lost_in_chaos() {
    let (directory, first) = (Directory::new(), ports(30));
    let config = config(&directory, first, (1, 3), "linger_ms = 0");
    let more = ["--users", "120", "--next-hops", "3", "--dead-hops", "1"];
    let (code, report) = judged(&directory, &config, ("chaos", first), &more);
    assert_eq!(report["broken"], Value::Array(Vec::new()), "{report:#}");
    assert_eq!(report["ledger"]["lost"], 0, "{report:#}");
    assert_eq!(report["ledger"]["duplicated"], 0);
    // A busy machine may make the generator late; nothing else may be wrong.
    assert!(code == Some(0) || code == Some(3), "{report:#}");
    for name in ["registrar_faults", "media_broken", "refused"] {
        assert!(count(&report, name) > 0, "{name} was not reached");
    }
}

// Proves: ST-8, ST-13, ST-14, ST-15
#[test]
fn sessions_are_refreshed_by_whom_and_when_they_should_and_end_when_nobody_does() {
    let (directory, first) = (Directory::new(), ports(30));
    let push = "linger_ms = 600000\nmax_session_s = 3600";
    let config = config(&directory, first, (1, 1), push);
    let more = ["--users", "60", "--duration-s", "66"];
    let (_, report) = judged(&directory, &config, ("refresh", first), &more);
    assert_eq!(report["broken"], Value::Array(Vec::new()), "{report:#}");
    assert_eq!(report["ledger_balances"], true, "{report:#}");
    for name in [
        "updates",
        "phone_refreshes",
        "sessions_held",
        "sessions_expired",
    ] {
        assert!(count(&report, name) > 0, "{name} was not reached");
    }
}

#[test]
fn as_many_sessions_as_phones_are_held_and_their_memory_is_told() {
    let (directory, first) = (Directory::new(), ports(30));
    let push = "linger_ms = 600000\nmax_session_s = 3600";
    let config = config(&directory, first, (1, 1), push);
    let more = ["--users", "400", "--duration-s", "2"];
    let (code, report) = judged(&directory, &config, ("sessions", first), &more);
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(count(&report, "sessions_held"), 400);
    assert!(report["own_peak_kib"].as_u64().unwrap() > 0);
}

// Proves: TX-7, SX-1
#[test]
fn lost_doubled_and_late_datagrams_lose_no_message() {
    let (directory, first) = (Directory::new(), ports(30));
    let config = config(&directory, first, (1, 1), "linger_ms = 0")
        .replace("[sip]\n", "[sip]\ntransport = \"udp\"\npath_mtu = 65535\n");
    let path = directory.0.join("judged.toml");
    fs::write(&path, &config).unwrap();
    let more = [
        "--users",
        "200",
        "--transport",
        "udp",
        "--path-mtu",
        "65535",
        "--loss",
        "0.03",
        "--duplicate",
        "0.02",
        "--delay",
        "0.03",
        "--drain-s",
        "40",
    ];
    let (code, report) = judged(&directory, &config, ("full", first), &more);
    assert_eq!(report["broken"], Value::Array(Vec::new()), "{report:#}");
    assert_eq!(report["ledger"]["expected"], report["ledger"]["delivered"]);
    assert!(code == Some(0) || code == Some(3), "{report:#}");
    for name in [
        "requests_resent",
        "answers_resent",
        "repeats",
        "answers_again",
    ] {
        assert!(count(&report, name) > 0, "{name} was not reached");
    }
}

/// Arguments of `run` for an engine and a judge on the ports from `first` on.
fn addresses(first: u16) -> String {
    format!(
        "--engine 127.0.0.1:{} --scscf-listen 127.0.0.1:{first} --msrp-listen 127.0.0.1:{}",
        first + ENGINE,
        first + 20
    )
}

#[test]
fn two_engines_take_turns_of_milliseconds_and_both_end_with_the_comparison() {
    let (a, b) = (Directory::new(), Directory::new());
    let (first, second) = (ports(30), ports(30));
    let mut commands = Vec::new();
    for (directory, first) in [(&a, first), (&b, second)] {
        let path = directory.0.join("judged.toml");
        fs::write(&path, config(directory, first, (1, 1), "linger_ms = 0")).unwrap();
        let program = volley().get_program().to_str().unwrap().to_owned();
        commands.push(format!("{program} run --config {}", path.display()));
    }
    let run = addresses(first);
    let output = volley()
        .args(["judge", "ab", "--rounds", "3", "--slice-ms", "40"])
        .args(["--a", &commands[0], "--b", &commands[1]])
        .args(["--fresh", a.store().to_str().unwrap()])
        .args(["--b-fresh", b.store().to_str().unwrap()])
        .args(["--b-run", &addresses(second), "--"])
        .args(run.split(' '))
        .args("--kind signalling --users 60 --users-in-flight 20".split(' '))
        .args("--warmup-s 0.2 --duration-s 1".split(' '))
        .output()
        .unwrap();
    let (said, shown) = (
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout),
    );
    // Both are the same program; on a disturbed machine the verdict may still be any.
    assert!(matches!(output.status.code(), Some(0 | 5)), "{said}{shown}");
    assert_eq!(said.matches("LEDGER balances").count(), 6, "{said}");
    assert!(shown.contains("engine_us_per_push"), "{shown}");
    assert!(!shown.contains("trigger_to_invite"), "{shown}");
    for first in [first, second] {
        let address = SocketAddr::from(([127, 0, 0, 1], first + ENGINE));
        assert!(TcpListener::bind(address).is_ok(), "an engine was left");
    }
}

#[test]
fn a_search_starts_an_engine_for_each_trial() {
    let (directory, first) = (Directory::new(), ports(30));
    let path = directory.0.join("judged.toml");
    fs::write(&path, config(&directory, first, (1, 1), "linger_ms = 0")).unwrap();
    let program = volley().get_program().to_str().unwrap().to_owned();
    let output = volley()
        .args(["judge", "search", "--min", "20", "--max", "40"])
        .args("--initial-s 0.5 --final-s 0.5 --sum-s 1 --within-ms 1000 --start".split(' '))
        .arg(format!("{program} run --config {}", path.display()))
        .args(["--fresh", directory.store().to_str().unwrap(), "--"])
        .args(addresses(first).split(' '))
        .args("--kind signalling --users 60 --warmup-s 0.2".split(' '))
        .output()
        .unwrap();
    let (said, shown) = (
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout),
    );
    assert!(matches!(output.status.code(), Some(0 | 1)), "{said}{shown}");
    assert!(shown.contains("relevant lower bound"), "{shown}");
    // Each met an engine that knew nobody.
    let trials = said.matches("trial ").count();
    assert!(trials >= 2, "{said}");
    assert_eq!(said.matches("LEDGER balances").count(), trials, "{said}");
}
