//! Hosts that forbid io_uring: the engine says so once and serves all the same.
//!
//! A filter for system calls belongs to the thread that applies it and to the processes which that starts,
//! so every test forbids io_uring to a thread of its own and starts the engine from there.
#![expect(
    clippy::unwrap_used,
    reason = "the surroundings of these tests are plain blocking threads and must work"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;

use rustix::process::Signal;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use serde_json::Value;

use crate::judge;
use crate::program::{Directory, Engine, accepted, any, deposit, volley, words};

/// What a kernel says that does not have io_uring, and what a container's profile says.
const REFUSALS: [i32; 2] = [libc::ENOSYS, libc::EPERM];

/// Calls `work` in a thread in which io_uring fails with `error`.
fn without_io_uring<T: Send>(error: i32, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(move || {
            forbid(error);
            work()
        });
        thread.join().unwrap()
    })
}

fn forbid(error: i32) {
    let rules = BTreeMap::from([(libc::SYS_io_uring_setup, Vec::new())]);
    let refuse = SeccompAction::Errno(error.unsigned_abs());
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

/// `volley run` with `config`, and how it ended or what it said until it was ready.
fn run(config: &Path) -> Command {
    let mut command = volley();
    command.args(["run", "--config"]).arg(config);
    command
}

/// Starts `command`, stops it once it is ready: what it said on standard error, but for the word on how
/// many files whoever runs these tests may open.
fn said_until_ready(mut command: Command) -> Vec<String> {
    use std::io::{BufRead as _, BufReader};
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = Vec::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        let ready = line.contains("ready: ");
        if !line.contains("limits.connections_max: RLIMIT_NOFILE") {
            lines.push(line);
        }
        if ready {
            break;
        }
    }
    let pid = i32::try_from(child.id()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let _ = rustix::process::kill_process(pid, Signal::TERM);
    assert!(child.wait().unwrap().success(), "{lines:?}");
    lines
}

#[test]
fn the_fallback_is_told_in_one_line_with_reason_cost_and_remedy() {
    let directory = Directory::new();
    let config = directory.config_on("auto", &directory.store(), any());
    for error in REFUSALS {
        let lines = without_io_uring(error, || said_until_ready(run(&config)));
        let [line, ready] = &lines[..] else {
            panic!("one line and the ready one: {lines:?}");
        };
        for part in [
            "backend mmsg, without io_uring",
            "seccomp",
            "io_uring_setup",
            "system calls a turn",
        ] {
            assert!(line.contains(part), "{part}: {line}");
        }
        assert!(ready.contains("ready: backend mmsg;"), "{ready}");
    }
    // As a wish, without any need.
    let config = directory.config_on("mmsg", &directory.store(), any());
    let lines = said_until_ready(run(&config));
    assert!(lines[0].contains("the configuration says so"), "{lines:?}");
    assert_eq!(lines.len(), 2, "{lines:?}");
}

#[test]
fn where_too_little_memory_may_be_locked_the_engine_falls_back() {
    let directory = Directory::new();
    let config = directory.config_on("auto", &directory.store(), any());
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -l 64 && exec \"$0\" run --config \"$1\""])
        .arg(env!("CARGO_BIN_EXE_volley"))
        .arg(&config)
        .stdin(Stdio::null());
    let lines = said_until_ready(command);
    assert!(lines[0].contains("RLIMIT_MEMLOCK"), "{lines:?}");
    assert!(lines[1].contains("ready: backend mmsg;"), "{lines:?}");
}

#[test]
fn an_engine_that_is_to_have_io_uring_or_nothing_stops_with_one_sentence() {
    let directory = Directory::new();
    let config = directory.config_on("io_uring", &directory.store(), any());
    for error in REFUSALS {
        let output: Output = without_io_uring(error, || run(&config).output().unwrap());
        let words = words(&output);
        assert_eq!(output.status.code(), Some(1), "{words}");
        assert_eq!(words.lines().count(), 1, "{words}");
        assert!(words.contains("seccomp"), "{words}");
    }
}

// Proves: INT-3
#[test]
fn an_engine_without_io_uring_delivers_every_message() {
    let (directory, first) = (Directory::new(), judge::ports(30));
    let config = judge::config(&directory, first, (1, 1), "linger_ms = 0")
        .replace("backend = \"io_uring\"", "backend = \"auto\"");
    let path = directory.0.join("judged.toml");
    fs::write(&path, config).unwrap();
    let engine = without_io_uring(libc::EPERM, || Engine::start(&path));
    assert_eq!(engine.said("/backend"), "mmsg");
    let (code, report) = judge::judge(&directory, ("full", first), &["--users", "300"]);
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(report["ledger"]["lost"], 0);
    assert_eq!(report["ledger"]["expected"], report["ledger"]["delivered"]);
    drop(engine);
}

#[test]
fn operators_see_which_backend_it_is() {
    let directory = Directory::new();
    let config = directory.config_on("auto", &directory.store(), any());
    let socket = std::env::temp_dir().join(format!("volley-mmsg-{}.sock", std::process::id()));
    let text = fs::read_to_string(&config).unwrap();
    let admin = format!("{text}[admin]\nsocket = \"{}\"\n", socket.display());
    fs::write(&config, admin).unwrap();
    let mut engine = without_io_uring(libc::EPERM, || Engine::start(&config));
    let ctl = |verb: &[&str]| {
        let mut command = volley();
        command.arg("ctl").arg("--socket").arg(&socket).args(verb);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let status = ctl(&["status"]);
    assert!(status.contains(" on mmsg, up "), "{status}");
    let status: Value = serde_json::from_str(&ctl(&["status", "--json"])).unwrap();
    assert_eq!(status["backend"], "mmsg");
    let reason = status["backend_reason"].as_str().unwrap();
    assert!(reason.contains("seccomp"), "{reason}");
    assert!(ctl(&["metrics"]).contains(",backend=\"mmsg\"} 1"));
    engine.signal(Signal::TERM);
    assert_eq!(engine.end(), Some(0));
    let doctor = without_io_uring(libc::EPERM, || {
        let mut command = volley();
        command.args(["doctor", "--json"]);
        command.output().unwrap()
    });
    let found: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let mut found = found.as_array().unwrap().iter();
    let ring = found.find(|found| found["id"] == "io-uring").unwrap();
    let current = ring["current"].as_str().unwrap();
    assert!(
        current.starts_with("backend mmsg, as a fallback"),
        "{current}"
    );
    assert_eq!(ring["severity"], "warning");
}

#[test]
fn a_backend_of_the_command_line_is_no_change_of_the_file() {
    let directory = Directory::new();
    let config = directory.config_on("auto", &directory.store(), any());
    let socket = std::env::temp_dir().join(format!("volley-line-{}.sock", std::process::id()));
    let text = fs::read_to_string(&config).unwrap();
    let text = format!("{text}[admin]\nsocket = \"{}\"\n", socket.display());
    fs::write(&config, &text).unwrap();
    let mut engine = Engine::start_with(&config, &["--backend", "mmsg"]);
    let reload = || {
        let mut command = volley();
        command.arg("ctl").arg("--socket").arg(&socket);
        let output = command.args(["reload", "--json"]).output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    assert_eq!(reload()["needs_restart"], serde_json::json!([]));
    fs::write(&config, text.replace("drain_s", "shards = 2\ndrain_s")).unwrap();
    assert_eq!(
        reload()["needs_restart"],
        serde_json::json!(["node.shards"])
    );
    engine.signal(Signal::TERM);
    assert_eq!(engine.end(), Some(0));
}

// Proves: INT-3
#[test]
fn a_store_goes_from_one_backend_to_the_other_and_back() {
    const SHARE: u32 = 200;
    let directory = Directory::new();
    let mut held = 0;
    for (round, backend) in (0..).zip(["io_uring", "mmsg", "io_uring", "mmsg"]) {
        let config = directory.config_on(backend, &directory.store(), any());
        let mut engine = Engine::start(&config);
        assert_eq!(engine.said("/backend"), backend);
        assert_eq!(engine.recovered(), held, "{backend}");
        let mut stream = TcpStream::connect(engine.sip()).unwrap();
        for number in round * SHARE..(round + 1) * SHARE {
            stream.write_all(&deposit(number)).unwrap();
        }
        assert_eq!(accepted(&mut stream, SHARE as usize), SHARE as usize);
        held += u64::from(SHARE);
        // Once in good order, once not.
        engine.signal(if round < 2 {
            Signal::TERM
        } else {
            Signal::KILL
        });
        engine.end();
    }
    let stats = without_io_uring(libc::ENOSYS, || {
        let mut command = volley();
        command.args(["store", "stats", "--json", "--dir"]);
        command.arg(directory.store()).output().unwrap()
    });
    let found: Value = serde_json::from_slice(&stats.stdout).unwrap();
    assert_eq!(found["pending_messages"], held, "{}", words(&stats));
}
