//! The judge tells its own limits from the engine's, and a stall from a slow engine.
//!
//! The engine is a process of its own here, so that it can be stopped and pinned: this test program
//! starts itself again with [`engine_process`] as its only test.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::PoisonError;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::engine::{Engine, Fault};

#[expect(clippy::disallowed_types, reason = "a queue for tests, not for shards")]
type Turnstile = std::sync::Mutex<()>;

/// These tests load the machine, and one looks at rare latencies: one at a time.
fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ALONE: Turnstile = Turnstile::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The scripted engine as a child; it ends when this is dropped.
struct Process {
    child: Child,
    _lifeline: ChildStdin,
    address: SocketAddr,
}

impl Process {
    fn start(cpu: Option<usize>) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "validity::engine_process",
                "--ignored",
                "--nocapture",
            ])
            .env(
                "ENGINE_CPU",
                cpu.map_or_else(String::new, |cpu| cpu.to_string()),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lifeline = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines
            .map_while(Result::ok)
            .find_map(|line| line.rsplit_once("ENGINE ")?.1.parse().ok())
            .unwrap();
        Self {
            child,
            _lifeline: lifeline,
            address,
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::CONT);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pin(cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    let _ = rustix::thread::sched_setaffinity(None, &set);
}

/// Not a test: the engine of the others, until standard input ends.
#[test]
#[ignore = "the engine process of other tests"]
fn engine_process() {
    use std::io::Write as _;
    if let Ok(cpu) = std::env::var("ENGINE_CPU").unwrap_or_default().parse() {
        pin(cpu);
    }
    let engine = Engine::start(Fault::None);
    let _ = writeln!(std::io::stdout(), "ENGINE {}", engine.address);
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

fn judge(engine: &Process, name: &str, args: &[&str]) -> (i32, Value) {
    let path = std::env::temp_dir().join(format!("judge-{}-{name}.json", std::process::id()));
    let (address, pid) = (engine.address.to_string(), engine.child.id().to_string());
    let file = path.display().to_string();
    let mut all = vec![
        "run",
        "--quiet",
        "--scscf-listen",
        "127.0.0.1:0",
        "--msrp-listen",
        "127.0.0.1:0",
        "--kind",
        "signalling",
        "--devices",
        "1",
        "--tel-share",
        "0",
        "--engine",
        &address,
        "--engine-pid",
        &pid,
        "--json",
        &file,
    ];
    all.extend(args);
    let code = crate::command(&all);
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let _ = std::fs::remove_file(&path);
    (code, serde_json::from_str(&text).unwrap_or(Value::Null))
}

fn quantile(report: &Value, stage: &str, quantile: &str) -> f64 {
    let rows = report["latencies"].as_array().unwrap();
    let row = rows.iter().find(|row| row["stage"] == stage).unwrap();
    row[quantile].as_f64().unwrap()
}

fn codes(report: &Value) -> Vec<&str> {
    let reasons = report["invalid_reasons"].as_array().unwrap();
    reasons
        .iter()
        .map(|reason| reason["code"].as_str().unwrap())
        .collect()
}

#[test]
fn a_stalled_engine_shows_from_the_intended_time_and_not_to_a_waiting_client() {
    let _alone = alone();
    let engine = Process::start(None);
    let args = [
        "--users",
        "2500",
        "--rate",
        "600",
        "--warmup-s",
        "0.5",
        "--duration-s",
        "9",
        "--drain-s",
        "10",
        // What is looked at is the stall, not how busy the machine of this test is.
        "--lag-bound-ms",
        "1000",
        "--pressure-bound",
        "1",
    ];
    // Another program that takes this machine's CPUs meanwhile makes the judge late as well, and then
    // there is nothing to tell apart: once more.
    let mut seen = Vec::new();
    let told_apart = (0..4).any(|_| {
        let [corrected, uncorrected, lag] = stalled(&engine, &args);
        // Who was stopped for three seconds cannot have been quicker.
        assert!(corrected >= 2500.0, "corrected p99.9 {corrected} ms");
        seen.push((corrected, uncorrected, lag));
        corrected > 3.0 * uncorrected && corrected > 10.0 * lag
    });
    assert!(told_apart, "{seen:?}");
}

/// The p99.9 from the intended time, the one from the sending, and the p99 of the send lag of a run in
/// which the engine stood still for three seconds, in milliseconds.
fn stalled(engine: &Process, args: &[&str]) -> [f64; 3] {
    let progress = std::env::temp_dir().join(format!("judge-{}-stall.ndjson", std::process::id()));
    let file = progress.display().to_string();
    let args = [args, &["--ndjson", &file]].concat();
    let report = std::thread::scope(|scope| {
        let judge = scope.spawn(|| judge(engine, "stall", &args).1);
        let measuring = || {
            let text = std::fs::read_to_string(&progress).unwrap_or_default();
            text.contains("\"step\":\"measure\"")
        };
        while !measuring() && !judge.is_finished() {
            std::thread::sleep(Duration::from_millis(50));
        }
        std::thread::sleep(Duration::from_secs(1));
        engine.signal(Signal::STOP);
        std::thread::sleep(Duration::from_secs(3));
        engine.signal(Signal::CONT);
        judge.join().unwrap()
    });
    let _ = std::fs::remove_file(&progress);
    assert_eq!(report["conformant"], true, "{report:#}");
    [
        quantile(&report, "trigger_to_invite", "p999"),
        quantile(&report, "trigger_to_invite_uncorrected", "p999"),
        quantile(&report, "send_lag", "p99"),
    ]
}

#[test]
fn a_starved_generator_is_invalid_and_says_so() {
    let _alone = alone();
    let engine = Process::start(Some(0));
    let args = [
        "--users",
        "20000",
        "--rate",
        "150000",
        "--warmup-s",
        "0.2",
        "--duration-s",
        "1.5",
        "--drain-s",
        "60",
        "--cpu",
        "0",
    ];
    let (code, report) = judge(&engine, "starved", &args);
    assert_eq!(code, 3, "{report:#}");
    assert_eq!(report["valid"], false);
    let codes = codes(&report);
    assert!(
        codes.contains(&"generator-waited") || codes.contains(&"send-lag"),
        "{codes:?}"
    );
}

#[test]
fn too_few_users_for_the_rate_is_invalid_and_says_so() {
    let _alone = alone();
    let engine = Process::start(None);
    engine.signal(Signal::CONT);
    let args = [
        "--users",
        "2",
        "--rate",
        "20000",
        "--warmup-s",
        "0.1",
        "--duration-s",
        "0.5",
        "--lag-bound-ms",
        "1000",
        "--pressure-bound",
        "1",
        "--late",
        "skip",
        "--late-bound-ms",
        "1000",
    ];
    let (code, report) = judge(&engine, "users", &args);
    assert_eq!(code, 3, "{report:#}");
    assert_eq!(codes(&report), ["sent-share"]);
    let counters = &report["counters"];
    let of = |name: &str| counters[name].as_u64().unwrap();
    // Every slot is accounted for.
    assert_eq!(
        of("triggers_due"),
        of("triggers_sent") + of("missed_late") + of("missed_no_user")
    );
    assert!(of("missed_no_user") > of("triggers_sent"));
}

#[test]
fn an_engine_that_is_not_there_has_its_exit_code() {
    // An address of loopback that nothing else of these tests listens on or is given a port of.
    let address = "127.0.78.1:5060";
    let code = crate::command(&[
        "run",
        "--quiet",
        "--engine",
        address,
        "--scscf-listen",
        "127.0.0.1:0",
        "--msrp-listen",
        "127.0.0.1:0",
        "--users",
        "1",
        "--reach-s",
        "0.3",
    ]);
    assert_eq!(code, 6);
}
