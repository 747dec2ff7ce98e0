//! Instruments of a running engine: the flight recorder, its dumps, the log, and reading the files again.
#![expect(
    clippy::unwrap_used,
    reason = "the surroundings of these tests are plain blocking threads and must work"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::judge::{ENGINE, ports};
use crate::operators::{Socket, ctl, said, wait_for};
use crate::policy;
use crate::program::{Directory, Engine, PATIENCE, accepted, deposit, volley, words};
use crate::questions::{Phones, config_with, json};

/// What the judge finds in a capture: messages, pushes, and what it said.
fn checked(file: &Path) -> (u64, u64, String) {
    let output = volley()
        .args(["judge", "check"])
        .arg(file)
        .output()
        .unwrap();
    let text = said(&output);
    assert_eq!(output.status.code(), Some(0), "{text}{}", words(&output));
    let figure = |name: &str| {
        let before = text.split(name).next().unwrap();
        let number = before.trim_end().rsplit(' ').next().unwrap();
        number.parse().unwrap()
    };
    (figure(" messages"), figure(" pushes"), text)
}

fn trace(socket: &Socket, file: &Path, more: &[&str]) {
    let file = file.to_str().unwrap();
    let output = ctl(&socket.0, &[&["trace", "--pcap", file], more].concat());
    assert_eq!(output.status.code(), Some(0), "{}", words(&output));
}

/// Call-IDs of the INVITEs that tshark sees; `None` where there is no tshark.
fn seen_by_tshark(file: &Path, ports: &[u16]) -> Option<usize> {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(file);
    for port in ports {
        command.arg("-d").arg(format!("tcp.port=={port},sip"));
    }
    let output = command
        .args([
            "-Y",
            "sip.Method == \"INVITE\"",
            "-T",
            "fields",
            "-e",
            "sip.Call-ID",
        ])
        .stdin(Stdio::null())
        .output();
    let Ok(output) = output else {
        eprintln!("SKIPPED: tshark is not installed, so it did not read the capture");
        return None;
    };
    assert!(output.status.success(), "{}", words(&output));
    Some(
        said(&output)
            .lines()
            .filter(|line| !line.is_empty())
            .count(),
    )
}

#[test]
fn what_was_on_the_wire_is_a_capture_that_the_judge_and_tshark_read() {
    let (directory, first, socket) = (Directory::new(), ports(30), Socket::new("trace"));
    let brief = [
        ("linger_ms = 600000", "linger_ms = 0"),
        (
            "[push]\n",
            "[instruments]\nflight_recorder = \"4 MiB\"\n[push]\n",
        ),
    ];
    let config = config_with(&directory, first, &socket, &brief);
    let _engine = Engine::start(&config);
    let mut phones = Phones::start(first, "full", &["--users", "30"]);
    let code = phones.end();
    assert!(code == Some(0) || code == Some(3), "{code:?}");

    let all = directory.0.join("all.pcap");
    trace(&socket, &all, &[]);
    let mode = fs::metadata(&all).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (messages, pushes, text) = checked(&all);
    assert!(pushes >= 30 && messages > 8 * pushes, "{text}");
    let bytes = fs::read(&all).unwrap();
    assert!(
        memchr::memmem::find(&bytes, b"Content-Type: message/cpim\r\n\r\n....").is_some(),
        "bodies of MSRP are blanked"
    );
    if let Some(seen) = seen_by_tshark(&all, &[first, first + ENGINE]) {
        assert_eq!(seen as u64, pushes);
    }

    let one = directory.0.join("one.pcap");
    trace(&socket, &one, &["tel:+15550000003"]);
    let (few, own, text) = checked(&one);
    assert!(own >= 1 && own < pushes && few < messages, "{text}");
    let bytes = fs::read(&one).unwrap();
    assert!(memchr::memmem::find(&bytes, b"+15550000003").is_some());
    assert!(memchr::memmem::find(&bytes, b"+15550000004").is_none());
    assert!(
        memchr::memmem::find(&bytes, b"MSRP ").is_some(),
        "the session of the user's push belongs to it"
    );
    let none = directory.0.join("none.pcap");
    let alone = |more: &[&str]| {
        let mut command = volley();
        command.args(["trace", "--pcap"]).arg(&none);
        command.arg("--socket").arg(&socket.0).args(more);
        command.output().unwrap()
    };
    let stranger = alone(&["tel:+19", "--last", "5m"]);
    assert_eq!(stranger.status.code(), Some(4), "{}", words(&stranger));
    let quiet = alone(&["tel:+15550000003", "--last", "0ms"]);
    assert_eq!(quiet.status.code(), Some(1), "{}", words(&quiet));
    assert!(words(&quiet).contains("among what was recorded"));
    assert!(!none.exists(), "what is empty is not written");
    let again = alone(&["+15550000003", "--json"]);
    let report: Value = serde_json::from_str(&said(&again)).unwrap();
    let octets = fs::metadata(&none).unwrap().len();
    assert_eq!(report["octets"].as_u64(), Some(octets));
}

#[test]
fn an_engine_that_records_nothing_says_so() {
    let (directory, first, socket) = (Directory::new(), ports(30), Socket::new("off"));
    let _engine = Engine::start(&config_with(&directory, first, &socket, &[]));
    let file = directory.0.join("none.pcap");
    let output = ctl(&socket.0, &["trace", "--pcap", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        words(&output).contains("instruments.flight_recorder"),
        "{}",
        words(&output)
    );
    assert!(!file.exists());
}

fn dumps(directory: &Directory) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory.0.join("dumps"));
    let entries = entries.into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn recorders_are_dumped_on_a_signal_and_when_invites_are_late() {
    let (directory, first, socket) = (Directory::new(), ports(30), Socket::new("dump"));
    // Five INVITEs a second: most are later than the objective.
    let late = [
        ("[push]\n", "[push]\npace_per_s = 5\n"),
        (
            "[selection]\n",
            "[instruments]\nflight_recorder = \"2 MiB\"\ndump_dir = \"dumps\"\nobjective_trigger_to_invite_ms = 100\n\
             [selection]\n",
        ),
    ];
    let engine = policy::Engine::start_with(&config_with(&directory, first, &socket, &late), &[]);
    engine.says("ready:");
    engine.signal(Signal::USR2);
    let line = engine.says("flight recorder dumped");
    assert!(line.contains("on a signal"), "{line}");
    assert_eq!(dumps(&directory).len(), 1);
    let _phones = Phones::start(first, "sessions", &["--users", "30", "--duration-s", "60"]);
    let line = engine.says("INVITEs left late");
    assert!(
        line.contains("WARN") && line.contains("objective_ms=100"),
        "{line}"
    );
    let line = engine.says("flight recorder dumped");
    assert!(line.contains("because of late INVITEs"), "{line}");
    let files = dumps(&directory);
    assert_eq!(files.len(), 2);
    let newest = files.iter().max().unwrap();
    assert!(checked(newest).0 > 10);
}

#[test]
fn the_log_has_the_form_and_the_levels_that_are_asked_for() {
    let (directory, first, socket) = (Directory::new(), ports(30), Socket::new("log"));
    let config = config_with(&directory, first, &socket, &[]);
    let engine = policy::Engine::start_with(&config, &["--log-format", "json"]);
    let ready: Value = serde_json::from_str(&engine.says("ready:")).unwrap();
    assert_eq!(ready["level"], "info");
    assert_eq!(ready["module"].as_str(), Some("cli::run"), "{ready:#}");

    // An order is logged, and whom it was about not in clear.
    assert_eq!(
        ctl(&socket.0, &["push", "tel:+15551234"]).status.code(),
        Some(4)
    );
    let order: Value = serde_json::from_str(&engine.says("an operator's order")).unwrap();
    assert!(
        order["user"].as_str().unwrap().starts_with("id:"),
        "{order:#}"
    );

    // Figures are numbers, not one text.
    let sip = SocketAddr::from(([127, 0, 0, 1], first + ENGINE));
    let mut stream = TcpStream::connect(sip).unwrap();
    stream.write_all(&deposit(7)).unwrap();
    assert_eq!(accepted(&mut stream, 1), 1);
    let figures = core::iter::from_fn(|| Some(engine.says("\"figures\"")));
    let mut figures = figures.map(|line| serde_json::from_str::<Value>(&line).unwrap());
    let counted = figures.find(|figures| figures["deposits"] == 1).unwrap();
    assert_eq!(counted["messages_pending"], 1, "{counted:#}");
    assert!(counted["oldest_pending_s"].is_number() && counted.get("words").is_none());

    let nobody = ctl(&socket.0, &["log", "debug", "--module", "figure"]);
    assert_eq!(nobody.status.code(), Some(2));
    let why = words(&nobody);
    assert!(
        why.contains("did you mean figures?") && why.contains("io::store::keeper"),
        "{why}"
    );
    let wrong = ctl(&socket.0, &["log", "loud"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(words(&wrong).contains("error, warn, info and debug"));
    let set = ctl(&socket.0, &["log", "error"]);
    assert!(said(&set).contains("all modules: error"), "{}", said(&set));
    ctl(&socket.0, &["push", "tel:+15551234"]);
    assert!(
        ctl(&socket.0, &["log", "info", "--module", "admin::api"])
            .status
            .success()
    );
    // What came next after the order that was kept quiet is the change of the level.
    let lines = core::iter::from_fn(|| serde_json::from_str::<Value>(&engine.says("{")).ok());
    let mut others = lines.filter(|line| line["module"] != "figures");
    let next = others.next().unwrap();
    assert_eq!(next["message"], "the log's level was changed", "{next:#}");
    engine.signal(Signal::TERM);
}

/// The status line of the answer to a deposit to one user.
fn status_of_deposit(address: SocketAddr, number: u32) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let text = String::from_utf8(deposit(number)).unwrap();
    let text = text.replace(
        &format!("+{}", 15_550_000_000_u64 + u64::from(number)),
        "+15550000000",
    );
    stream.write_all(text.as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

#[test]
fn a_reload_puts_in_force_what_can_change_and_names_the_rest() {
    let (directory, first, socket) = (Directory::new(), ports(30), Socket::new("reload"));
    let small = [("[store]\n", "[store]\nquota_messages = 1\n")];
    let path = config_with(&directory, first, &socket, &small);
    let engine = Engine::start(&path);
    let sip = engine.sip();
    let mut stream = TcpStream::connect(sip).unwrap();
    stream.write_all(&deposit(7)).unwrap();
    assert_eq!(accepted(&mut stream, 1), 1);
    assert!(status_of_deposit(sip, 1).contains(" 202 "));
    assert!(
        status_of_deposit(sip, 2).contains(" 480 "),
        "the mailbox is full"
    );

    // A mistake changes nothing.
    let fine = fs::read_to_string(&path).unwrap();
    let larger = fine.replace("quota_messages = 1", "quota_messages = 5");
    fs::write(&path, larger.replace("segment_mib", "segment_mob")).unwrap();
    let refused = ctl(&socket.0, &["reload"]);
    assert_eq!(refused.status.code(), Some(2));
    let sentence = words(&refused);
    assert!(
        sentence.contains("asked.toml:") && sentence.contains("`segment_mib`?"),
        "{sentence}"
    );
    assert!(status_of_deposit(sip, 3).contains(" 480 "));

    fs::write(&path, larger.replace("shards = 2", "shards = 1")).unwrap();
    let done = json(&socket.0, &["reload"]).unwrap();
    assert_eq!(
        done["in_force"],
        serde_json::json!(["store.quota_messages"])
    );
    assert_eq!(done["needs_restart"], serde_json::json!(["node.shards"]));
    wait_for("the new quota holds", || {
        status_of_deposit(sip, 4).contains(" 202 ").then_some(())
    });
    let shards = said(&ctl(&socket.0, &["shards"]));
    assert_eq!(shards.lines().count(), 3, "{shards}");
    let again = said(&ctl(&socket.0, &["reload"]));
    assert!(
        again.contains("in force: nothing") && again.contains("node.shards"),
        "{again}"
    );
}
