//! The real binary from outside: what it says, how it ends, and what survives.
//!
//! Every test has its own directory, ports chosen by the kernel, and children that end with it.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "the surroundings of these tests are plain blocking threads and must work"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn volley() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_volley"));
    command.stdin(Stdio::null());
    command
}

/// A directory that goes away with the test. Beside the build, which is on a real disk.
pub(crate) struct Directory(pub(crate) PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("program-{}-{number}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// A configuration file with `store` as its store and `sip` as its address.
    pub(crate) fn config(&self, store: &Path, sip: SocketAddr) -> PathBuf {
        self.config_on(&backend(), store, sip)
    }

    /// The same for shards that run on `backend`.
    pub(crate) fn config_on(&self, backend: &str, store: &Path, sip: SocketAddr) -> PathBuf {
        let path = self.0.join("volley.toml");
        let text = format!(
            "[node]\ndrain_s = 2\nbackend = \"{backend}\"\n[sip]\nlisten = \"{sip}\"\n\
             next_hops = [{{ address = \"127.0.0.1:9\" }}]\n\
             [identity]\npf_uri = \"sip:pf@home.example\"\ndomains = [\"home.example\"]\n\
             [msrp]\nlisten = \"127.0.0.1:0\"\n\
             [store]\ndir = \"{}\"\nsegment_mib = 4\n\
             [limits]\nusers_max = 10000\npushes_max = 10000\n",
            store.display()
        );
        fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.0.join("store")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What engines run on unless a test says otherwise; `.ci/run` runs all tests a second time on another.
pub(crate) fn backend() -> String {
    std::env::var("VOLLEY_TEST_BACKEND").unwrap_or_else(|_| "io_uring".to_owned())
}

pub(crate) fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// `volley run`, killed with the test.
pub(crate) struct Engine {
    child: Child,
    lines: Receiver<String>,
    ready: Value,
}

impl Engine {
    pub(crate) fn start(config: &Path) -> Self {
        Self::start_with(config, &[])
    }

    /// The same with more on its command line.
    pub(crate) fn start_with(config: &Path, more: &[&str]) -> Self {
        let mut child = volley()
            .args(["run", "--json", "--lifeline", "--config"])
            .arg(config)
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = child.stdout.take().unwrap();
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let first = lines.recv_timeout(PATIENCE).expect("a first line");
        let first: Value = serde_json::from_str(&first).unwrap();
        Self {
            child,
            lines,
            ready: first["ready"].clone(),
        }
    }

    pub(crate) fn sip(&self) -> SocketAddr {
        let address = self.ready["shards"][0]["sip_tcp"].as_str().unwrap();
        address.parse().unwrap()
    }

    /// What its first line says of `name`.
    pub(crate) fn said(&self, pointer: &str) -> &Value {
        self.ready.pointer(pointer).unwrap_or(&Value::Null)
    }

    pub(crate) fn recovered(&self) -> u64 {
        self.ready["recovered_messages"].as_u64().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Waits for its end; its exit code.
    pub(crate) fn end(&mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(start.elapsed() < PATIENCE, "it does not end");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The counters it showed last, after its end.
    pub(crate) fn last(&self) -> Value {
        let mut last = String::from("{}");
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            last = line;
        }
        serde_json::from_str(&last).unwrap()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn words(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// `volley run` on a configuration that cannot work: what it said in exactly one line.
fn refused(config: &Path, code: i32) -> String {
    let output = volley()
        .args(["run", "--config"])
        .arg(config)
        .output()
        .unwrap();
    let words = words(&output);
    assert_eq!(output.status.code(), Some(code), "{words}");
    assert_eq!(words.lines().count(), 1, "one sentence: {words}");
    words
}

/// A pager-mode message with a text for a user of its own.
pub(crate) fn deposit(number: u32) -> Vec<u8> {
    let user = 15_550_000_000_u64 + u64::from(number);
    let body = format!(
        "From: <sip:+15550177@home.example>\r\nTo: <sip:+{user}@home.example>\r\n\
         DateTime: 2026-11-22T05:58:01Z\r\nNS: imdn <urn:ietf:params:imdn>\r\n\
         imdn.Message-ID: m{number}\r\n\r\n\
         Content-Type: text/plain; charset=UTF-8\r\n\r\nmessage {number}"
    );
    format!(
        "MESSAGE sip:+{user}@home.example SIP/2.0\r\n\
         Via: SIP/2.0/TCP 127.0.0.1:5060;branch=z9hG4bKd{number}\r\nMax-Forwards: 66\r\n\
         From: <sip:+15550177@home.example>;tag=t{number}\r\nTo: <sip:+{user}@home.example>\r\n\
         Call-ID: c{number}\r\nCSeq: 1 MESSAGE\r\nExpires: 86400\r\n\
         P-Asserted-Identity: <sip:+15550177@home.example>\r\n\
         Conversation-ID: 4f93f0fe-86d6-462c-9ba2-{number:012x}\r\n\
         Contribution-ID: 94d850fb-ed40-437e-9609-{number:012x}\r\n\
         Content-Type: message/cpim\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Reads until the end, or until `enough` deposits are accepted: how many were.
pub(crate) fn accepted(stream: &mut TcpStream, enough: usize) -> usize {
    const ACCEPTED: &[u8] = b"SIP/2.0 202 ";
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut all = Vec::new();
    let mut part = [0; 16_384];
    let count = |all: &[u8]| {
        all.windows(ACCEPTED.len())
            .filter(|at| *at == ACCEPTED)
            .count()
    };
    while count(&all) < enough {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(len) => all.extend_from_slice(&part[..len]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("{error}"),
        }
    }
    count(&all)
}

#[test]
fn says_what_it_is_and_how_it_is_used() {
    let version = volley().arg("--version").output().unwrap();
    assert!(version.status.success());
    assert_eq!(
        String::from_utf8(version.stdout).unwrap(),
        format!("volley {}\n", env!("CARGO_PKG_VERSION"))
    );
    for (arguments, wanted) in [
        (vec!["--help"], vec!["run", "config", "demo", "Examples:"]),
        (
            vec!["run", "--help"],
            vec!["--config", "--json", "Exit codes"],
        ),
        (vec!["config", "--help"], vec!["--example", "--check"]),
        (
            vec!["demo", "--help"],
            vec!["--users", "--keep", "--json", "Exit codes"],
        ),
    ] {
        let help = volley().args(&arguments).output().unwrap();
        assert!(help.status.success(), "{arguments:?}");
        let text = String::from_utf8(help.stdout).unwrap();
        for word in wanted {
            assert!(text.contains(word), "{arguments:?} without {word}: {text}");
        }
    }
    let output = volley().arg("serve").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_wrong_configuration_names_file_line_key_and_remedy() {
    let directory = Directory::new();
    let path = directory.config(&directory.store(), any());
    let good = fs::read_to_string(&path).unwrap();
    for (from, to, line, said) in [
        (
            "drain_s",
            "drain_sec",
            2,
            vec!["`drain_sec`", "did you mean `drain_s`?"],
        ),
        (
            "segment_mib = 4",
            "segment_mib = 4096",
            14,
            vec!["store.segment_mib", "1 to 1024"],
        ),
        ("\"127.0.0.1:0\"", "\"somewhere\"", 5, vec!["remedy"]),
        ("[identity]", "[identity", 7, vec!["remedy"]),
    ] {
        fs::write(&path, good.replacen(from, to, 1)).unwrap();
        for arguments in [["run", "--config"], ["config", "--check"]] {
            let output = volley().args(arguments).arg(&path).output().unwrap();
            let words = words(&output);
            assert_eq!(output.status.code(), Some(2), "{words}");
            let place = format!("{}:{line}", path.display());
            assert!(words.contains(&place), "{place}: {words}");
            for said in &said {
                assert!(words.contains(said), "{said}: {words}");
            }
        }
    }
    let missing = directory.0.join("missing.toml");
    let output = volley()
        .args(["run", "--config"])
        .arg(&missing)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        words(&output).contains("missing.toml"),
        "{}",
        words(&output)
    );
}

#[test]
fn the_example_configuration_is_accepted() {
    let directory = Directory::new();
    let output = volley().args(["config", "--example"]).output().unwrap();
    let path = directory.0.join("example.toml");
    fs::write(&path, output.stdout).unwrap();
    let output = volley()
        .args(["config", "--check"])
        .arg(&path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", words(&output));
}

#[test]
fn a_taken_port_is_named_in_one_sentence() {
    let directory = Directory::new();
    let holder = TcpListener::bind(any()).unwrap();
    let address = holder.local_addr().unwrap();
    let words = refused(&directory.config(&directory.store(), address), 1);
    assert!(
        words.contains(&address.to_string()) && words.contains("in use"),
        "{words}"
    );
}

#[test]
fn a_second_engine_on_the_same_store_is_refused() {
    let directory = Directory::new();
    let config = directory.config(&directory.store(), any());
    let first = Engine::start(&config);
    let words = refused(&config, 1);
    let holder = format!("process {}", first.child.id());
    assert!(
        words.contains(&holder) && words.contains("store.dir"),
        "{words}"
    );
    // The first is none the worse for it.
    TcpStream::connect(first.sip()).unwrap();
}

#[test]
fn a_store_that_cannot_be_written_is_named_in_one_sentence() {
    let directory = Directory::new();
    let file = directory.0.join("file");
    fs::write(&file, "").unwrap();
    let words = refused(&directory.config(&file.join("store"), any()), 1);
    assert!(
        words.contains(&file.display().to_string()) && words.contains("store.dir"),
        "{words}"
    );
}

#[test]
fn too_few_file_descriptors_are_named_with_the_remedy() {
    let directory = Directory::new();
    for backend in ["auto", "io_uring", "mmsg"] {
        let config = directory.config_on(backend, &directory.store(), any());
        let output = Command::new("sh")
            .args(["-c", "ulimit -n 12 && exec \"$0\" run --config \"$1\""])
            .arg(env!("CARGO_BIN_EXE_volley"))
            .arg(&config)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let words = words(&output);
        assert_eq!(output.status.code(), Some(1), "{backend}: {words}");
        assert_eq!(words.lines().count(), 1, "{backend}: {words}");
        assert!(words.contains("RLIMIT_NOFILE"), "{backend}: {words}");
    }
}

#[test]
fn ends_in_order_when_asked_and_when_its_parent_is_gone() {
    let directory = Directory::new();
    for (backend, signal) in [
        ("io_uring", Some(Signal::TERM)),
        ("io_uring", Some(Signal::INT)),
        ("io_uring", None),
        ("mmsg", Some(Signal::TERM)),
        ("mmsg", None),
    ] {
        let config = directory.config_on(backend, &directory.store(), any());
        let mut engine = Engine::start(&config);
        match signal {
            Some(signal) => engine.signal(signal),
            None => drop(engine.child.stdin.take()),
        }
        assert_eq!(engine.end(), Some(0), "{signal:?}");
        assert_eq!(engine.last()["held"]["messages"], 0);
    }
}

// The default of `store.dir` is relative.
#[test]
fn a_relative_store_directory_works() {
    let directory = Directory::new();
    let config = directory.config(Path::new("data"), any());
    let mut child = volley()
        .args(["run", "--json", "--quiet", "--config"])
        .arg(&config)
        .current_dir(&directory.0)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut first).unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM);
    assert!(child.wait().unwrap().success());
    assert!(first.contains("ready"), "{first}");
    assert!(directory.0.join("data/shard-000").is_dir());
}

// Proves: INT-3
#[test]
fn what_was_acknowledged_is_there_after_a_kill() {
    kills("io_uring");
}

// Proves: INT-3
#[test]
fn what_was_acknowledged_without_io_uring_is_there_after_a_kill() {
    kills("mmsg");
}

fn kills(backend: &str) {
    const SENT: u32 = 4000;
    let directory = Directory::new();
    let config = directory.config_on(backend, &directory.store(), any());
    let mut acknowledged = 0;
    let mut sent = 0;
    for round in 0..3 {
        let mut engine = Engine::start(&config);
        assert!(
            engine.recovered() >= acknowledged,
            "round {round}: messages are missing"
        );
        assert!(
            engine.recovered() <= u64::from(sent),
            "round {round}: messages of nobody"
        );
        let mut stream = TcpStream::connect(engine.sip()).unwrap();
        let mut writer = stream.try_clone().unwrap();
        let numbers = sent..sent + SENT;
        sent = numbers.end;
        let feeding = thread::spawn(move || {
            for number in numbers {
                // The engine dies in the middle of this.
                if writer.write_all(&deposit(number)).is_err() {
                    break;
                }
            }
        });
        let before = accepted(&mut stream, 300 * (round + 1));
        engine.signal(Signal::KILL);
        let after = accepted(&mut stream, usize::MAX);
        feeding.join().unwrap();
        assert!(before >= 300, "round {round}: {before} accepted");
        acknowledged += (before + after) as u64;
        assert_eq!(engine.end(), None, "killed");
    }
    let mut engine = Engine::start(&config);
    let recovered = engine.recovered();
    assert!(recovered >= acknowledged && recovered <= u64::from(sent));
    engine.signal(Signal::TERM);
    assert_eq!(engine.end(), Some(0));
    assert_eq!(
        engine.last()["held"]["messages"],
        recovered,
        "all are pending"
    );
}

#[cfg(feature = "demo")]
#[test]
fn a_small_demo_passes_and_leaves_only_its_reports() {
    let directory = Directory::new();
    let output = volley()
        .args(["demo", "--users", "300", "--json", "--backend", &backend()])
        .current_dir(&directory.0)
        .env("TMPDIR", &directory.0)
        .output()
        .unwrap();
    let words = words(&output);
    assert_eq!(output.status.code(), Some(0), "{words}");
    assert!(words.contains("PASSED"), "{words}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ledger"]["lost"], 0);
    assert_eq!(report["ledger"]["expected"], report["ledger"]["delivered"]);
    let mut left: Vec<String> = fs::read_dir(&directory.0)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["volley-report"]);
    for name in ["report.txt", "report.json", "engine.json", "engine.log"] {
        assert!(
            directory.0.join("volley-report").join(name).is_file(),
            "{name}"
        );
    }
}

#[cfg(feature = "demo")]
#[test]
fn an_interrupted_demo_leaves_nothing_running() {
    let directory = Directory::new();
    let mut child = volley()
        .args(["demo", "--users", "200000"])
        .current_dir(&directory.0)
        .env("TMPDIR", &directory.0)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let engine = lines
        .by_ref()
        .map_while(Result::ok)
        .find_map(|line| {
            let rest = line
                .trim_start()
                .strip_prefix("engine  process ")?
                .to_owned();
            rest.split(',').next()?.parse::<u32>().ok()
        })
        .expect("the engine's process");
    thread::sleep(Duration::from_millis(300));
    let pid = i32::try_from(child.id()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::INT).unwrap();
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    assert!(
        !Path::new(&format!("/proc/{engine}")).exists(),
        "the engine lives"
    );
    let left: Vec<_> = fs::read_dir(&directory.0).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

/// Connects to `address` from 127.0.0.`last` and begins to speak: who opens an MSRP connection and says nothing is
/// accepted a second later.
fn connected_from(last: u8, address: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let own = SocketAddr::from(([127, 0, 0, last], 0));
    socket.bind(&own.into()).unwrap();
    socket.connect(&address.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    let _ = stream.write_all(b"M"); // One that was refused may be gone.
    stream
}

/// How many of these connections are still open a moment later.
fn open_of(streams: &mut [TcpStream]) -> usize {
    let wait = Duration::from_millis(300);
    let is_open = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(wait)).unwrap();
        let read = stream.read(&mut [0]);
        read.is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    };
    streams.iter_mut().map(is_open).filter(|&open| open).count()
}

// Proves: MSRP-19, BAD-28
#[test]
fn one_address_gets_so_many_connections_and_an_sbc_that_is_named_gets_more() {
    let directory = Directory::new();
    let config = directory.config(&directory.store(), any());
    let text = fs::read_to_string(&config).unwrap();
    let limits = "[limits]\nconnections_per_source_max = 3\nuncapped_sources = [\"127.0.0.9\"]\n";
    fs::write(&config, text.replace("[limits]\n", limits)).unwrap();
    let mut engine = Engine::start(&config);
    let msrp = engine.said("/shards/0/msrp").as_str().unwrap();
    let places = [msrp.parse().unwrap(), engine.sip()];
    // The next hop is at 127.0.0.1, so judges and demos of one host have no cap.
    for (last, open) in [(2, 3), (9, 8), (1, 8), (3, 3)] {
        let open_now = |at: usize| {
            let mut streams: Vec<_> = (0..8).map(|_| connected_from(last, places[at])).collect();
            open_of(&mut streams)
        };
        let at = usize::from(last % 2);
        assert_eq!(open_now(at), open, "127.0.0.{last}");
    }
    // Those that are gone count no more.
    let start = Instant::now();
    while open_of(&mut [connected_from(2, places[0])]) == 0 {
        assert!(start.elapsed() < PATIENCE, "there is room again");
    }
    engine.signal(Signal::TERM);
    assert_eq!(engine.end(), Some(0));
    let last = engine.last();
    assert!(
        last["driver"][0]["refused_of_source"].as_u64() >= Some(10),
        "{last}"
    );
}

/// The first line and what was said on standard error of an engine that a shell starts after `limit`.
fn started_after(limit: &str) -> (Value, String) {
    let directory = Directory::new();
    let config = directory.config(&directory.store(), any());
    let mut child = Command::new("sh")
        .args([
            "-c",
            &format!("{limit} && exec \"$0\" run --json --lifeline --config \"$1\""),
        ])
        .arg(env!("CARGO_BIN_EXE_volley"))
        .arg(&config)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut first).unwrap();
    let first: Value = serde_json::from_str(&first).unwrap();
    // It ends with its standard input.
    let output = child.wait_with_output().unwrap();
    (first, words(&output))
}

#[test]
fn connections_are_bounded_by_what_the_limit_of_open_files_leaves_and_that_is_said() {
    let (first, said) = started_after("ulimit -n 300");
    assert_eq!(first["ready"]["connections_max"], 300 - 64 - 128, "{first}");
    let line = said.lines().find(|line| line.contains("connections_max"));
    let line = line.expect("it is said");
    assert!(line.contains("a shard takes 108 connections"), "{line}");
    assert!(line.contains("raise it to 130192"), "{line}");
    // The soft limit is only where a process starts.
    let (first, said) = started_after("ulimit -Sn 300");
    assert!(
        first["ready"]["connections_max"].as_u64() > Some(1000),
        "{first}"
    );
    assert!(!said.contains("takes 108 connections"), "{said}");
}
