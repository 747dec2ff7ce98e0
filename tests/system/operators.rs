//! What operators see of a running engine: metrics over TCP, questions and orders over its socket.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "the surroundings of these tests are plain blocking threads and must work"
)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::program::{Directory, Engine, PATIENCE, accepted, any, deposit, volley, words};

/// A socket's path is short: not beside the build, but where temporary files are.
pub(crate) struct Socket(pub(crate) PathBuf);

impl Socket {
    pub(crate) fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("volley-{name}-{}.sock", std::process::id())))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn config(directory: &Directory, admin: &str) -> PathBuf {
    let path = directory.config(&directory.store(), any());
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{text}[admin]\n{admin}\n")).unwrap();
    path
}

pub(crate) fn ctl(socket: &Path, arguments: &[&str]) -> Output {
    let mut command = volley();
    command.arg("ctl").arg("--socket").arg(socket);
    command.args(arguments).output().unwrap()
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn scrape(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Looks again until `value` is what is wanted: snapshots are about a second old.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_running_engine_answers_its_operators_and_drains_when_told() {
    let directory = Directory::new();
    let socket = Socket::new("orders");
    let admin = format!(
        "socket = \"{}\"\nmetrics = \"127.0.0.1:0\"",
        socket.0.display()
    );
    let mut engine = Engine::start(&config(&directory, &admin));
    let metrics: SocketAddr = engine
        .said("/admin/metrics")
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(
        fs::metadata(&socket.0).unwrap().permissions().mode() & 0o777,
        0o600
    );

    let mut stream = TcpStream::connect(engine.sip()).unwrap();
    stream.write_all(&deposit(1)).unwrap();
    assert_eq!(accepted(&mut stream, 1), 1);
    let text = wait_for("the deposit is counted", || {
        let text = scrape(metrics, "/metrics");
        text.contains("\nvolley_deposits_total{shard=\"0\"} 1\n")
            .then_some(text)
    });
    assert!(text.starts_with("HTTP/1.1 200 OK\r\nContent-Type: application/openmetrics-text"));
    assert!(text.ends_with("\n# EOF\n"));
    assert!(text.contains("\nvolley_messages_pending{shard=\"0\"} 1\n"));
    assert!(scrape(metrics, "/health").starts_with("HTTP/1.1 200 "));
    // The network sees figures, and gives no orders.
    assert!(scrape(metrics, "/status").starts_with("HTTP/1.1 404 "));
    assert!(scrape(metrics, "/drain").starts_with("HTTP/1.1 404 "));

    let status = ctl(&socket.0, &["status", "--json"]);
    let value: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(value["ledger"]["deposited"], 1);
    assert_eq!(value["draining"], false);
    assert_eq!(value["dropped"]["sip_dropped"]["response"], 0);
    assert!(value["oldest"]["pending_s"].as_f64().unwrap() > 0.0);
    assert!(text.contains("\nvolley_sip_dropped_total{shard=\"0\",reason=\"response\"} 0\n"));
    assert!(said(&ctl(&socket.0, &["status"])).contains("1 deposited"));
    assert!(said(&ctl(&socket.0, &["shards"])).lines().count() == 2);
    let top = volley()
        .args(["top", "--interval", "0.1", "--count", "2", "--socket"])
        .arg(&socket.0)
        .output()
        .unwrap();
    assert!(
        said(&top).contains("per second: deposits 0"),
        "{}",
        said(&top)
    );

    let once = volley()
        .args(["top", "--interval", "0.1", "--once", "--json", "--socket"])
        .arg(&socket.0)
        .output()
        .unwrap();
    let look: Value = serde_json::from_str(&said(&once)).unwrap();
    assert_eq!(look["per_second"]["deposits"], 0.0);
    assert_eq!(said(&ctl(&socket.0, &["health"])), "serving\n");
    let health = said(&ctl(&socket.0, &["health", "--json"]));
    let health: Value = serde_json::from_str(&health).unwrap();
    assert_eq!(health["serving"], true);

    let drain = ctl(&socket.0, &["drain"]);
    assert!(drain.status.success());
    assert!(said(&drain).starts_with("draining"));
    assert_eq!(engine.end(), Some(0));
    assert!(!socket.0.exists(), "it cleans up behind itself");
    let gone = ctl(&socket.0, &["health"]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(
        words(&gone).contains("no engine answers there"),
        "{}",
        words(&gone)
    );
}

#[test]
fn a_socket_of_the_dead_is_replaced_and_one_of_the_living_is_not() {
    let directory = Directory::new();
    let socket = Socket::new("living");
    let admin = format!("socket = \"{}\"", socket.0.display());
    let path = config(&directory, &admin);
    let mut engine = Engine::start(&path);
    engine.signal(rustix::process::Signal::KILL);
    engine.end();
    assert!(socket.0.exists());
    let engine = Engine::start(&path);
    assert!(ctl(&socket.0, &["health"]).status.success());

    let other = Directory::new();
    let output = volley()
        .args(["run", "--config"])
        .arg(config(&other, &admin))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = words(&output);
    assert!(
        said.contains("admin.socket") && said.contains("another engine answers"),
        "{said}"
    );
    assert!(ctl(&socket.0, &["health"]).status.success());
    drop(engine);
}

#[test]
fn the_host_is_examined_and_a_capacity_worked_out_without_an_engine() {
    let doctor = volley().args(["doctor", "--json"]).output().unwrap();
    let found: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let worst = |severity: &str| {
        let all = found.as_array().unwrap().iter();
        all.filter(|finding| finding["severity"] == severity)
            .count()
    };
    let code = match (worst("critical"), worst("warning")) {
        (0, 0) => 0,
        (0, _) => 1,
        (_, _) => 3,
    };
    assert_eq!(doctor.status.code(), Some(code));
    let kernel = found.as_array().unwrap().iter();
    assert_eq!(
        kernel.filter(|finding| finding["id"] == "kernel").count(),
        1
    );

    let script = volley()
        .args(["tune", "--script", "--advice"])
        .output()
        .unwrap();
    assert!(said(&script).starts_with("#!/bin/sh\n"));
    let nothing = volley().arg("tune").output().unwrap();
    assert_eq!(nothing.status.code(), Some(2));
    let journal = std::env::temp_dir().join("volley-no-such-journal");
    let revert = volley()
        .args(["tune", "--revert", "--journal"])
        .arg(&journal)
        .output()
        .unwrap();
    assert_eq!(revert.status.code(), Some(1));
    assert!(
        words(&revert).contains("no journal to take back"),
        "{}",
        words(&revert)
    );

    let plan = |users: &str| -> Value {
        let output = volley()
            .args(["plan", "--json", "--users", users])
            .output()
            .unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let (small, large) = (plan("1000000"), plan("10000000"));
    let times = |key: &str| large[key].as_f64().unwrap() / small[key].as_f64().unwrap();
    assert!((times("pushes_per_s") - 10.0).abs() < 0.01);
    // Eleven segments a shard come on top of what lives.
    let living = |plan: &Value| {
        plan["disk_gib"].as_f64().unwrap() - plan["shards"].as_f64().unwrap() * 0.6875
    };
    assert!((living(&large) / living(&small) - 10.0).abs() < 0.01);
    assert!(times("memory_gib") > 6.0 && times("memory_gib") < 10.0);
    assert_eq!(large["inputs"]["message_size_octets"], 300.0);
    let assumed = &large["assumed"];
    assert!(assumed["measured"].as_str().unwrap().contains("AMD EPYC"));
    let units = assumed.as_object().unwrap();
    for (name, unit) in units.iter().filter(|(name, _)| *name != "measured") {
        let option = format!("--{}", name.replace('_', "-"));
        let own = if name == "load" { "0.25" } else { "3" };
        let output = volley()
            .args(["plan", "--json", "--users", "1e7", &option, own])
            .output()
            .unwrap();
        let own: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(own["assumed"][name]["given"], true, "{name}");
        assert_ne!(own["assumed"][name]["value"], unit["value"], "{name}");
        let result = |of: &Value| {
            let mut of = of.clone();
            of.as_object_mut().unwrap().remove("assumed");
            of
        };
        assert_ne!(result(&own), result(&large), "{name} counts for something");
    }
    let wrong = volley().args(["plan", "--users", "-3"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
}

/// Subcommands that a help lists.
fn subcommands(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let lines = lines.take_while(|line| !line.trim().is_empty());
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next());
    names
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_command_has_examples_in_its_help_and_json_where_it_reports() {
    // What these print has a form of its own.
    const OWN_FORM: [&str; 4] = ["config", "policy", "ctl metrics", "store export"];
    let mut open: Vec<Vec<String>> = vec![Vec::new()];
    let mut seen = 0;
    while let Some(path) = open.pop() {
        let output = volley().args(&path).arg("--help").output().unwrap();
        let help = said(&output);
        let name = path.join(" ");
        assert!(help.contains("\nExample"), "volley {name} --help:\n{help}");
        let inner = subcommands(&help);
        if inner.is_empty() {
            seen += 1;
            let whole = ["store"].contains(&path[0].as_str());
            let json = help.contains("--json") || whole;
            assert!(json || OWN_FORM.contains(&name.as_str()), "volley {name}");
        }
        open.extend(inner.into_iter().map(|inner| {
            let mut path = path.clone();
            path.push(inner);
            path
        }));
    }
    assert!(seen > 25, "{seen} commands");
}
