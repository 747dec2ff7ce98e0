//! The policy file and `volley explain`, from outside.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "the surroundings of these tests are plain blocking threads and must work"
)]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Longest wait for a line.
const PATIENCE: Duration = Duration::from_secs(20);

/// A directory that goes away with the test.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let name = format!("policy-{}-{name}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn volley() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_volley"));
    command.stdin(Stdio::null());
    command
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/flows")
        .join(name)
}

fn explain(policy: &Path, more: &[&str]) -> Output {
    volley()
        .arg("explain")
        .arg("--policy")
        .arg(policy)
        .arg("--notify")
        .arg(example("f4-05-notify-full-2dev.txt"))
        .args(["--at", "2026-11-25T12:00:00Z"])
        .args(more)
        .output()
        .unwrap()
}

// Proves: SEL-3
#[test]
fn explain_says_who_gets_a_push_and_its_exit_code_whether_anybody_does() {
    let directory = Directory::new("explain");
    let fine = directory.write("fine.toml", "[provider]\nfanout = \"first\"\n");
    let output = explain(&fine, &[]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("SELECTED: is pushed to, number 1"), "{text}");
    assert!(text.contains("D-FANOUT-CUT: step 14"), "{text}");

    let hold = directory.write(
        "hold.toml",
        "[[preferences]]\nusers = [\"*\"]\nquiet = [\"11:00-13:00\"]\n",
    );
    let output = explain(&hold, &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["verdict"], "U-PREF-HOLD");
    assert_eq!(json["step"], 3);
    assert_eq!(json["preference_line"], 1);
    assert!(
        json["until"]
            .as_str()
            .unwrap()
            .starts_with("2026-11-25T13:00")
    );

    let wrong = directory.write("wrong.toml", "[provider]\nfanut = 1\n");
    let output = explain(&wrong, &[]);
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{words}");
    assert!(
        words.contains("wrong.toml:2") && words.contains("did you mean `fanout`?"),
        "{words}"
    );
}

#[test]
fn the_policy_command_shows_and_checks_files() {
    let shown = volley().args(["policy", "--example"]).output().unwrap();
    let directory = Directory::new("check");
    let path = directory.write("policy.toml", &String::from_utf8(shown.stdout).unwrap());
    let checked = volley()
        .args(["policy", "--check"])
        .arg(&path)
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&checked.stdout);
    assert!(
        words.contains("fine, 1 overrides, 1 preferences"),
        "{words}"
    );
}

pub(crate) struct Engine {
    child: Child,
    lines: Receiver<String>,
}

impl Engine {
    fn start(config: &Path) -> Self {
        Self::start_with(config, &[])
    }

    pub(crate) fn start_with(config: &Path, more: &[&str]) -> Self {
        let mut child = volley()
            .args(["run", "--lifeline", "--config"])
            .arg(config)
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let words = child.stderr.take().unwrap();
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(words).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { child, lines }
    }

    /// The next line that has `part` in it.
    pub(crate) fn says(&self, part: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("it does not say: {part}"));
            if line.contains(part) {
                return line;
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// Proves: SEL-1
#[test]
fn a_changed_policy_file_is_taken_on_sighup_and_a_wrong_one_is_not() {
    let directory = Directory::new("sighup");
    let store = directory.0.join("store");
    let config = directory.write(
        "volley.toml",
        &format!(
            "[node]\ndrain_s = 2\n[sip]\nlisten = \"127.0.0.1:0\"\n\
             next_hops = [{{ address = \"127.0.0.1:9\" }}]\n\
             [identity]\npf_uri = \"sip:pf@home.example\"\ndomains = [\"home.example\"]\n\
             [msrp]\nlisten = \"127.0.0.1:0\"\n[selection]\npolicy = \"policy.toml\"\n\
             [store]\ndir = \"{}\"\nsegment_mib = 4\n\
             [limits]\nusers_max = 10000\npushes_max = 10000\n",
            store.display()
        ),
    );
    directory.write("policy.toml", "[provider]\nstopped = true\n");
    let mut engine = Engine::start(&config);
    engine.says("ready:");
    directory.write(
        "policy.toml",
        "[[override]]\nusers = [\"*@home.example\"]\nfanout = 1\n",
    );
    engine.signal(Signal::HUP);
    let line = engine.says("read again");
    assert!(line.contains("rules with 1 overrides"), "{line}");
    directory.write("policy.toml", "[provider]\nfanout = 0\n");
    engine.signal(Signal::HUP);
    let line = engine.says("stays as it was");
    assert!(
        line.contains("ERROR") && line.contains("policy.toml:2"),
        "{line}"
    );
    engine.signal(Signal::TERM);
    engine.says("stopped");
    assert_eq!(engine.child.wait().unwrap().code(), Some(0));

    // And it does not start with such a file.
    let output = volley()
        .args(["run", "--config"])
        .arg(&config)
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{words}");
    assert!(words.contains("policy.toml:2"), "{words}");
}
