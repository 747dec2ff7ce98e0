//! The store's promises, kept by the real binary, and its tools.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Output, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::program::{Directory, Engine, accepted, any, deposit, volley, words};

/// `volley store ..` with a JSON result.
fn store(verb: &[&str], dir: &Path) -> (Option<i32>, Value) {
    let output = volley()
        .args(["store", "--json"])
        .args(verb)
        .arg("--dir")
        .arg(dir)
        .output()
        .expect("the program starts");
    let value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), value)
}

/// An engine that took `count` deposits and ended in order.
fn filled(directory: &Directory, count: u32) {
    let config = directory.config(&directory.store(), any());
    let mut engine = Engine::start(&config);
    let mut stream = TcpStream::connect(engine.sip()).expect("the engine listens");
    for number in 0..count {
        stream
            .write_all(&deposit(number))
            .expect("the engine reads");
    }
    assert_eq!(accepted(&mut stream, count as usize), count as usize);
    engine.signal(Signal::TERM);
    assert_eq!(engine.end(), Some(0));
    let last = engine.last();
    assert_eq!(last["ledger"]["deposited"], count);
    assert_eq!(last["ledger"]["pending"], count);
    assert_eq!(last["ledger"]["balances"], true);
}

#[test]
fn a_store_is_told_about_verified_copied_and_compacted_and_a_live_one_is_refused() {
    const COUNT: u32 = 300;
    let directory = Directory::new();
    filled(&directory, COUNT);
    let dir = directory.store();
    let (code, stats) = store(&["stats"], &dir);
    assert_eq!(
        (code, &stats["pending_messages"]),
        (Some(0), &Value::from(COUNT))
    );
    assert_eq!(stats["users"], COUNT);
    let (code, verify) = store(&["verify"], &dir);
    assert_eq!(
        (code, &verify["fine"]),
        (Some(0), &Value::Bool(true)),
        "{verify}"
    );
    // A copy by way of JSON lines is the same store.
    let exported = volley()
        .args(["store", "export", "--dir"])
        .arg(&dir)
        .stdout(Stdio::piped())
        .output()
        .unwrap();
    let lines = String::from_utf8(exported.stdout).unwrap();
    assert_eq!(lines.lines().count(), COUNT as usize);
    let file = directory.0.join("export.jsonl");
    fs::write(&file, &lines).unwrap();
    let copy = directory.0.join("copy");
    let path = file.to_str().unwrap();
    let (code, import) = store(&["import", path], &copy);
    assert_eq!(
        (code, &import["imported"]),
        (Some(0), &Value::from(COUNT)),
        "{import}"
    );
    let (_, again) = store(&["import", path], &copy);
    assert_eq!(again["already_there"], COUNT, "{again}");
    let (code, compact) = store(&["compact"], &copy);
    assert_eq!(
        (code, &compact["messages"]),
        (Some(0), &Value::from(COUNT)),
        "{compact}"
    );
    assert_eq!(store(&["verify"], &copy).0, Some(0));
    let exported = volley()
        .args(["store", "export", "--dir"])
        .arg(&copy)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(exported.stdout).unwrap(), lines);
    // An engine serves the copy; meanwhile the tools keep off.
    let config = directory.config(&copy, any());
    let mut engine = Engine::start(&config);
    assert_eq!(engine.recovered(), u64::from(COUNT));
    for verb in ["stats", "verify", "export", "compact"] {
        let output: Output = volley()
            .args(["store", verb, "--dir"])
            .arg(&copy)
            .output()
            .unwrap();
        let said = words(&output);
        assert_eq!(output.status.code(), Some(1), "{verb}: {said}");
        assert!(said.contains("is locked by process"), "{verb}: {said}");
    }
    engine.signal(Signal::TERM);
    assert_eq!(engine.end(), Some(0));
}

#[test]
fn verify_tells_of_a_flipped_bit() {
    let directory = Directory::new();
    filled(&directory, 50);
    let dir = directory.store().join("shard-000");
    let segment = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "seg"))
        .min()
        .unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    let at = memchr_text(&bytes, b"message 17");
    bytes[at] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let (code, verify) = store(&["verify"], &directory.store());
    assert_eq!(
        (code, &verify["fine"]),
        (Some(3), &Value::Bool(false)),
        "{verify}"
    );
    assert_eq!(verify["damaged_places"], 1, "{verify}");
}

fn memchr_text(bytes: &[u8], text: &[u8]) -> usize {
    bytes
        .windows(text.len())
        .position(|at| at == text)
        .expect("the message is in the first segment")
}

#[cfg(feature = "demo")]
fn chaos(arguments: &[&str]) -> Value {
    let directory = Directory::new();
    let output = volley()
        .args(["chaos", "--json", "--dir"])
        .arg(directory.0.join("chaos"))
        .args(arguments)
        .output()
        .expect("the program starts");
    let said = words(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let table: Value = serde_json::from_slice(&output.stdout).expect("a JSON table");
    assert_eq!(table["fine"], true, "{table}");
    table["rows"].clone()
}

// Proves: INT-3
#[cfg(feature = "demo")]
#[test]
fn fifteen_kills_under_load_lose_nothing_acknowledged_and_repeat_only_what_was_fresh() {
    let rows = chaos(&["--kills", "15", "--round-ms", "600", "--seed", "15"]);
    let row = &rows[0];
    assert_eq!(
        (&row["rounds"], &row["lost"]),
        (&Value::from(15), &Value::from(0))
    );
    assert!(row["acknowledged"].as_u64().unwrap() > 100, "{row}");
}

#[cfg(feature = "demo")]
#[test]
fn a_drain_under_load_and_a_process_that_was_stopped_lose_nothing() {
    let rows = chaos(&[
        "--kills",
        "0",
        "--terms",
        "2",
        "--stops",
        "1",
        "--round-ms",
        "400",
    ]);
    assert_eq!(rows.as_array().unwrap().len(), 2);
}

#[cfg(feature = "demo")]
#[test]
fn cuts_of_power_and_a_full_disk_lose_nothing() {
    let rows = chaos(&[
        "--kills",
        "0",
        "--power-cuts",
        "2",
        "--full-disks",
        "1",
        "--round-ms",
        "400",
    ]);
    for row in rows.as_array().unwrap() {
        if let Some(why) = row["skipped"].as_str() {
            println!("SKIPPED: {}: {why}", row["fault"]);
            continue;
        }
        assert_eq!(row["lost"], 0, "{row}");
    }
}
