//! The store's promises, kept by the real binary, and its tools.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Output, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::program::{Directory, Engine, PATIENCE, accepted, any, backend, deposit, volley, words};

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

/// An engine that took `count` deposits, so many unanswered at a time, and ended in order: its last words.
fn deposited(directory: &Directory, count: u32, unanswered: u32) -> Value {
    let config = directory.config(&directory.store(), any());
    let mut engine = Engine::start(&config);
    let mut stream = TcpStream::connect(engine.sip()).expect("the engine listens");
    for first in (0..count).step_by(unanswered as usize) {
        let end = count.min(first + unanswered);
        for number in first..end {
            stream
                .write_all(&deposit(number))
                .expect("the engine reads");
        }
        let some = (end - first) as usize;
        assert_eq!(accepted(&mut stream, some), some);
    }
    engine.signal(Signal::TERM);
    assert_eq!(engine.end(), Some(0));
    engine.last()
}

/// An engine that took `count` deposits and ended in order.
fn filled(directory: &Directory, count: u32) {
    let last = deposited(directory, count, count);
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
fn a_store_at_work_does_not_send_the_datapath_to_wait_in_the_executor() {
    const COUNT: u32 = 200;
    let directory = Directory::new();
    let last = deposited(&directory, COUNT, 1);
    let driver = &last["driver"][0];
    let figure = |name: &str| driver[name].as_u64().expect("a figure");
    assert!(figure("waits") >= u64::from(COUNT), "{driver}");
    // What the store says of itself: a record for each message, written one by one.
    assert!(figure("store_records") >= u64::from(COUNT), "{driver}");
    assert!(figure("store_syncs") >= u64::from(COUNT), "{driver}");
    assert!(
        figure("store_written_bytes") >= 4096 * figure("store_syncs"),
        "{driver}"
    );
    assert_eq!(
        figure("store_segments"),
        3,
        "one in use and two ahead: {driver}"
    );
    if backend() == "mmsg" {
        assert_eq!(figure("parks"), figure("waits"), "{driver}");
        return;
    }
    // A write and a sync each; the executor makes segments, at the start above all.
    assert!(
        figure("file_operations") >= 2 * u64::from(COUNT),
        "{driver}"
    );
    assert!(figure("parks") * 4 < figure("waits"), "{driver}");
}

/// Reads until `text` came; all that came.
fn until(stream: &mut TcpStream, text: &[u8]) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut all = Vec::new();
    let mut part = [0; 16_384];
    while !all.windows(text.len()).any(|at| at == text) {
        let len = match stream.read(&mut part) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other.expect("it answers"),
        };
        assert!(len > 0, "the engine closed: {}", all.escape_ascii());
        all.extend_from_slice(&part[..len]);
    }
    all
}

/// A large message by INVITE and MSRP, with `content`, until the engine reports that it is stored.
fn deposit_large(sip: &mut TcpStream, number: u32, content: &[u8]) {
    let user = format!("sip:+1555900{number:04}@home.example");
    let same = format!(
        "Via: SIP/2.0/TCP 127.0.0.1:5060;branch=z9hG4bKl{number}\r\nMax-Forwards: 66\r\n\
         From: <sip:+15550177@home.example>;tag=l{number}\r\nCall-ID: l{number}\r\n"
    );
    let sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
               m=message 2855 TCP/MSRP *\r\na=path:msrp://127.0.0.1:2855/s;tcp\r\n\
               a=accept-types:message/cpim\r\na=setup:active\r\na=sendonly\r\n";
    let invite = format!(
        "INVITE {user} SIP/2.0\r\n{same}To: <{user}>\r\nCSeq: 1 INVITE\r\n\
         Contact: <sip:s@127.0.0.1:5060>\r\n\
         P-Asserted-Identity: <sip:+15550177@home.example>\r\n\
         P-Asserted-Service: urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg\r\n\
         Conversation-ID: c{number}\r\nContribution-ID: d{number}\r\n\
         Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
        sdp.len()
    );
    sip.write_all(invite.as_bytes()).expect("the engine reads");
    let answer = String::from_utf8(until(sip, b"a=path:")).expect("text");
    let rest = String::from_utf8(until_line(sip, &answer)).expect("text");
    let answer = answer + &rest;
    let line = |start: &str| {
        let found = answer
            .split("\r\n")
            .find_map(|line| line.strip_prefix(start));
        found.expect("it is in the answer").to_owned()
    };
    let (path, to) = (line("a=path:"), line("To: "));
    let target = path
        .strip_prefix("msrp://")
        .and_then(|rest| rest.split('/').next());
    let ack = format!(
        "ACK sip:s@127.0.0.1 SIP/2.0\r\n{same}To: {to}\r\nCSeq: 1 ACK\r\nContent-Length: 0\r\n\r\n"
    );
    sip.write_all(ack.as_bytes()).expect("the engine reads");
    let mut media = TcpStream::connect(target.expect("an address")).expect("it listens");
    let mut body = format!(
        "From: <sip:+15550177@home.example>\r\nTo: <{user}>\r\n\
         DateTime: 2026-11-22T05:58:01Z\r\nNS: imdn <urn:ietf:params:imdn>\r\n\
         imdn.Message-ID: large{number}\r\n\r\nContent-Type: application/octet-stream\r\n\r\n"
    )
    .into_bytes();
    body.extend_from_slice(content);
    let total = body.len();
    let mut start = 1;
    for piece in body.chunks(20_000) {
        let end = start + piece.len() - 1;
        let flag = if end == total { '$' } else { '+' };
        let head = format!(
            "MSRP tid{start:08} SEND\r\nTo-Path: {path}\r\n\
             From-Path: msrp://127.0.0.1:2855/s;tcp\r\nMessage-ID: m{number}\r\n\
             Success-Report: yes\r\nByte-Range: {start}-{end}/{total}\r\n\
             Content-Type: message/cpim\r\n\r\n"
        );
        media.write_all(head.as_bytes()).expect("the engine reads");
        media.write_all(piece).expect("the engine reads");
        let end_line = format!("\r\n-------tid{start:08}{flag}\r\n");
        media
            .write_all(end_line.as_bytes())
            .expect("the engine reads");
        start = end + 1;
    }
    until(&mut media, b" REPORT\r\n");
}

/// The rest of the last, perhaps unfinished line.
fn until_line(stream: &mut TcpStream, so_far: &str) -> Vec<u8> {
    let last = so_far.rsplit("a=path:").next().expect("it was waited for");
    if last.contains('\n') {
        return Vec::new();
    }
    until(stream, b"\n")
}

fn exported(dir: &Path) -> String {
    let output = volley()
        .args(["store", "export", "--dir"])
        .arg(dir)
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(0), "{}", words(&output));
    String::from_utf8(output.stdout).expect("JSON lines")
}

#[test]
fn large_messages_are_exported_imported_and_compacted_with_their_parts() {
    let directory = Directory::new();
    let dir = directory.store();
    let config = directory.config(&dir, any());
    let mut engine = Engine::start(&config);
    let mut stream = TcpStream::connect(engine.sip()).expect("the engine listens");
    // Text, octets of every value, and less than a part; small ones between them.
    let letters = (b'a'..=b'z').chain(b'0'..=b'6');
    let text: Vec<u8> = letters.cycle().step_by(7).take(200_000).collect();
    let octets: Vec<u8> = (0..=u8::MAX).cycle().step_by(3).take(150_000).collect();
    for (number, content) in [(1, &text[..]), (2, &octets[..]), (3, &text[..1000])] {
        deposit_large(&mut stream, number, content);
        stream
            .write_all(&deposit(number))
            .expect("the engine reads");
        assert_eq!(accepted(&mut stream, 1), 1);
    }
    engine.signal(Signal::TERM);
    assert_eq!(engine.end(), Some(0));
    let lines = exported(&dir);
    let parts = lines.lines().filter(|line| line.contains("\"part_of\":"));
    assert_eq!(
        (lines.lines().count(), parts.count()),
        (6 + 4 + 3 + 1, 4 + 3 + 1)
    );
    let file = directory.0.join("export.jsonl");
    fs::write(&file, &lines).expect("room");
    let path = file.to_str().expect("text");
    // A copy says the same, and so does what is left of it after it was written anew.
    let copy = directory.0.join("copy");
    let (code, import) = store(&["import", path], &copy);
    assert_eq!(
        (code, &import["imported"]),
        (Some(0), &Value::from(6)),
        "{import}"
    );
    assert_eq!(exported(&copy), lines);
    let (code, again) = store(&["import", path], &copy);
    assert_eq!(
        (code, &again["already_there"]),
        (Some(0), &Value::from(6)),
        "{again}"
    );
    for _ in 0..2 {
        let (code, compact) = store(&["compact"], &copy);
        assert_eq!(
            (code, &compact["messages"]),
            (Some(0), &Value::from(6)),
            "{compact}"
        );
        assert_eq!(store(&["verify"], &copy).0, Some(0));
        let sorted = |text: &str| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&exported(&copy)), sorted(&lines));
    }
    // A message whose parts are not all there is refused, and so is a part out of its order.
    for wrong in [1, 2] {
        let cut: Vec<&str> = lines
            .lines()
            .enumerate()
            .filter_map(|(at, line)| (at != wrong).then_some(line))
            .collect();
        fs::write(&file, cut.join("\n")).expect("room");
        let broken = directory.0.join(format!("broken{wrong}"));
        let output = volley()
            .args(["store", "import", path, "--dir"])
            .arg(&broken)
            .output()
            .expect("the program starts");
        assert_eq!(output.status.code(), Some(1));
        assert!(
            words(&output).contains("not a message"),
            "{}",
            words(&output)
        );
    }
    // An engine serves the copy: it has all of it.
    let config = directory.config(&copy, any());
    let mut engine = Engine::start(&config);
    assert_eq!(engine.recovered(), 6);
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
        .args(["--backend", &backend()])
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
        "6",
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
