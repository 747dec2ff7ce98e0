//! Questions to the shards of a running engine, and the order to push.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "the surroundings of these tests are plain blocking threads and must work"
)]

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::judge::{self, ENGINE, ports};
use crate::operators::{Socket, ctl, said, wait_for};
use crate::program::{Directory, Engine, accepted, deposit, volley, words};

/// The judge with phones that hold their sessions; ended with the test.
pub(crate) struct Phones(Child);

impl Phones {
    /// Phones for the engine of [`judge::config`] whose ports begin at `first`.
    pub(crate) fn start(first: u16, scenario: &str, more: &[&str]) -> Self {
        let mut command: Command = volley();
        command
            .args(["judge", "run", "--quiet", "--scenario", scenario])
            .args(["--engine", &format!("127.0.0.1:{}", first + ENGINE)])
            .args(["--scscf-listen", &format!("127.0.0.1:{first}")])
            .args(["--msrp-listen", &format!("127.0.0.1:{}", first + 20)])
            .args(more)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    /// Its exit code, once it has ended.
    pub(crate) fn end(&mut self) -> Option<i32> {
        self.0.wait().unwrap().code()
    }
}

impl Drop for Phones {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A configuration for phones, with a socket.
pub(crate) fn config_with(
    directory: &Directory,
    first: u16,
    socket: &Socket,
    changes: &[(&str, &str)],
) -> PathBuf {
    let push = "linger_ms = 600000\nmax_session_s = 3600";
    let mut config =
        judge::config(directory, first, (1, 1), push).replace("[node]\n", "[node]\nshards = 2\n");
    for (from, to) in changes {
        assert!(config.contains(from), "{from}");
        config = config.replace(from, to);
    }
    let path = directory.0.join("asked.toml");
    let admin = format!("[admin]\nsocket = \"{}\"\n", socket.0.display());
    fs::write(&path, format!("{config}{admin}")).unwrap();
    path
}

/// An engine for phones, with its socket.
fn engine_with(
    directory: &Directory,
    first: u16,
    socket: &Socket,
    changes: &[(&str, &str)],
) -> Engine {
    Engine::start(&config_with(directory, first, socket, changes))
}

pub(crate) fn json(socket: &Path, arguments: &[&str]) -> Option<Value> {
    let output = ctl(socket, &[arguments, &["--json"]].concat());
    serde_json::from_slice(&output.stdout).ok()
}

#[test]
fn a_user_is_shown_with_its_queue_and_who_is_none_with_a_sentence() {
    let (directory, first, socket) = (Directory::new(), ports(30), Socket::new("user"));
    let engine = engine_with(&directory, first, &socket, &[]);
    let mut stream = TcpStream::connect(engine.sip()).unwrap();
    for number in 1..=2 {
        stream.write_all(&deposit(number)).unwrap();
    }
    assert_eq!(accepted(&mut stream, 2), 2);

    // Whatever shard it is on, and however it is written.
    for number in [
        "tel:+15550000001",
        "sip:+15550000002@home.example",
        "+15550000001",
    ] {
        let user = json(&socket.0, &["user", number]).unwrap();
        assert_eq!(user["messages"].as_array().unwrap().len(), 1, "{user:#}");
        assert_eq!(user["messages"][0]["durable"], true);
        assert!(user["messages"][0]["age_s"].as_f64().unwrap() < 20.0);
        assert_eq!(user["bytes"], user["messages"][0]["bytes"]);
        assert_eq!(user["devices"], Value::Array(Vec::new()));
        assert_ne!(user["registration"]["subscription"], "active");
        assert_eq!(user["selected"], 0);
    }
    let shard = |number: &str| json(&socket.0, &["user", number]).unwrap()["shard"].as_u64();
    assert_ne!(
        shard("+15550000001"),
        shard("+15550000002"),
        "the two users are on two shards, or this shows less than it should"
    );
    let text = said(&ctl(&socket.0, &["user", "tel:+15550000001"]));
    assert!(text.contains("queue         1 messages"), "{text}");

    let stranger = ctl(&socket.0, &["user", "tel:+19"]);
    assert_eq!(stranger.status.code(), Some(4));
    assert!(
        words(&stranger).contains("nobody of that identity"),
        "{}",
        words(&stranger)
    );
    assert_eq!(ctl(&socket.0, &["push", "tel:+19"]).status.code(), Some(4));
    let sessions = ctl(&socket.0, &["sessions", "--user", "tel:+19"]);
    assert_eq!(sessions.status.code(), Some(4));
    let wrong = ctl(&socket.0, &["user", "mailto:a@b"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(
        words(&wrong).contains("no public identity"),
        "{}",
        words(&wrong)
    );
}

// Proves: SEL-3
#[test]
fn an_order_to_push_makes_the_decision_that_a_dry_run_only_shows() {
    let (directory, first, socket) = (Directory::new(), ports(30), Socket::new("push"));
    // Nothing is decided by itself twice within the window, and the first decision is to do nothing.
    let policy = directory.0.join("policy.toml");
    fs::write(&policy, "[provider]\nstopped = true\n").unwrap();
    let late = "policy = \"policy.toml\"\ncoalesce_ms = 3600000";
    let engine = engine_with(&directory, first, &socket, &[("coalesce_ms = 0", late)]);
    let more = ["--users", "6", "--duration-s", "60"];
    let _phones = Phones::start(first, "sessions", &more);
    let one = "tel:+15550000003";
    let invited = || json(&socket.0, &["sessions", "--user", one]);
    wait_for("its phone is registered", || {
        let user = json(&socket.0, &["user", one])?;
        let waits = user["messages"].as_array()?.len() == 1;
        let decided = !user["decided_ago_s"].is_null();
        (waits && decided && user["devices"][0]["active"] == true).then_some(())
    });
    let stopped = json(&socket.0, &["push", one]).unwrap();
    assert_eq!(stopped["verdict"], "S-STOPPED", "{stopped:#}");
    fs::write(&policy, "[provider]\nfanout = 1\n").unwrap();
    let reload = json(&socket.0, &["reload"]).unwrap();
    assert_eq!(reload["in_force"], Value::Array(Vec::new()), "{reload:#}");
    let dry = json(&socket.0, &["push", one, "--dry-run"]).unwrap();
    assert_eq!(dry["devices"][0]["verdict"], "SELECTED", "{dry:#}");
    assert_eq!(dry["dry_run"], true);
    assert_eq!(invited().unwrap()["sessions"], Value::Array(Vec::new()));

    let push = json(&socket.0, &["push", one]).unwrap();
    assert_eq!(push["started"].as_array().unwrap().len(), 1, "{push:#}");
    let delivered = wait_for("the message is delivered", || {
        let user = json(&socket.0, &["user", one])?;
        let session = &user["pushes"][0];
        (user["messages"].as_array()?.is_empty() && session["messages"] == 1).then(|| user.clone())
    });
    assert_eq!(delivered["pushes"][0]["state"], "delivering");
    assert_eq!(
        delivered["pushes"][0]["call_id"],
        push["started"][0]["call_id"]
    );
    assert!(delivered["pushes"][0]["octets"].as_u64().unwrap() > 0);
    let again = json(&socket.0, &["push", one]).unwrap();
    assert_eq!(again["verdict"], "M-NONE", "{again:#}");
    assert_eq!(again["started"], Value::Array(Vec::new()));
    // The others were not decided on.
    let all = json(&socket.0, &["sessions"]).unwrap();
    assert_eq!(all["sessions"].as_array().unwrap().len(), 1, "{all:#}");
    drop(engine);
}

#[test]
fn sessions_timers_and_memory_are_counted_on_all_shards() {
    let (directory, first, socket) = (Directory::new(), ports(30), Socket::new("count"));
    let _engine = engine_with(&directory, first, &socket, &[]);
    let _phones = Phones::start(first, "sessions", &["--users", "40", "--duration-s", "60"]);
    let all = wait_for("all sessions are there", || {
        let all = json(&socket.0, &["sessions", "--limit", "1000"])?;
        let rows = all["sessions"].as_array()?;
        let done = rows.iter().filter(|row| row["messages"] == 1).count();
        (done == 40).then(|| all.clone())
    });
    assert_eq!(all["more"], false);
    let rows = all["sessions"].as_array().unwrap();
    for shard in 0..2 {
        assert!(
            rows.iter().any(|row| row["shard"] == shard),
            "shard {shard}"
        );
    }
    for row in rows {
        assert_eq!(row["refresher"], "us", "{row:#}");
        let device = row["device"].as_str().unwrap();
        assert!(device.starts_with("urn:uuid:"), "{row:#}");
        assert!(row["target"].as_str().unwrap().contains(device), "{row:#}");
        let (left, interval) = (row["timer_in_s"].as_f64(), row["interval_s"].as_f64());
        assert!(left.unwrap() < interval.unwrap(), "{row:#}");
    }
    let some = json(&socket.0, &["sessions", "--limit", "7"]).unwrap();
    assert_eq!(some["sessions"].as_array().unwrap().len(), 7);
    assert_eq!(some["more"], true);

    // A shard that rests is woken for a question, and does not answer at its next tick only.
    let start = Instant::now();
    for _ in 0..20 {
        json(&socket.0, &["sessions", "--limit", "1"]).unwrap();
    }
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "{:?}",
        start.elapsed()
    );

    let timers = json(&socket.0, &["timers"]).unwrap();
    assert_eq!(timers["kinds"]["push"]["armed"], 40, "{timers:#}");
    assert!(timers["kinds"]["push"]["next_in_s"].as_f64().unwrap() > 0.0);
    let memory = json(&socket.0, &["mem"]).unwrap();
    assert_eq!(memory["sessions"], 40, "{memory:#}");
    assert_eq!(memory["components"]["push_slots"]["count"], 40);
    assert_eq!(memory["components"]["devices"]["count"], 40);
    assert_eq!(memory["components"]["users"]["count"], 40);
    // Of what the drivers and the stores hold, each has its row.
    let of = |name: &str| memory["components"][name]["bytes"].as_u64();
    assert!(
        of("store_writes") >= Some(2 << 20),
        "two groups: {memory:#}"
    );
    assert!(of("receive_buffers") > Some(0), "{memory:#}");
    for name in ["executors", "recorders", "send_buffers", "store_reads"] {
        assert!(of(name).is_some(), "{name}: {memory:#}");
    }
    let components = memory["components"].as_object().unwrap().values();
    let sum: u64 = components.filter_map(|held| held["bytes"].as_u64()).sum();
    assert_eq!(Some(sum), memory["total_bytes"].as_u64());
    let each = memory["bytes_per_session"].as_u64().unwrap();
    assert!((1000..20_000).contains(&each), "{memory:#}");
    for question in ["sessions", "timers", "mem"] {
        let text = said(&ctl(&socket.0, &[question]));
        assert!(text.lines().count() > 5, "{text}");
    }
}

#[test]
fn questions_to_an_engine_that_is_gone_say_so() {
    let socket = PathBuf::from("/nowhere/admin.sock");
    for question in [
        &["user", "tel:+1"][..],
        &["sessions"],
        &["timers"],
        &["mem"],
    ] {
        let output = ctl(&socket, question);
        assert_eq!(output.status.code(), Some(1));
        assert!(words(&output).contains("no engine answers there"));
    }
}
