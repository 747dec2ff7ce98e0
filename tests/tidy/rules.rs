//! Forbidden names, stray `unsafe`, sizes, and paths of a machine.

use crate::layers::{layer_of, module_of};
use crate::source::{Source, line_of, paths_from, words};

/// Longest file, lines.
const FILE_LINES_MAX: usize = 1200;
/// Longest function of shipped code, lines.
const FUNCTION_LINES_MAX: usize = 100;
/// The one module with `unsafe`: this file and the folder of its parts.
const UNSAFE_FILE: &str = "src/io/sys.rs";
const UNSAFE_FOLDER: &str = "src/io/sys/";
/// What another file may say: that it keeps its side of a bargain with that one.
const UNSAFE_PROMISE: (&str, &str) = ("src/io/poll.rs", "unsafe { OpenFd::new(");
/// Parts of `std` that the core does without.
const STD: &[&str] = &["fs", "net", "thread"];
/// Words that the core does without.
const WORDS: &[&str] = &[
    "async",
    "await",
    "crossbeam",
    "glommio",
    "io_uring",
    "tokio",
    "tokio_uring",
];
/// Crates whose types stay in `io`.
const RUNTIMES: &[&str] = &["glommio", "io_uring", "tokio", "tokio_uring"];
/// First layer that may talk to the system.
const SYSTEM_LAYER: u8 = 5;

/// Layers 0 to 4 name no runtime, no system and store no callback; runtime types stay in `io`.
pub(crate) fn forbidden_names(source: &Source) -> Vec<String> {
    let Some(module) = module_of(&source.path) else {
        return Vec::new();
    };
    let core = layer_of(&module).is_none_or(|(layer, _)| layer < SYSTEM_LAYER);
    let banned: &[&str] = match (core, module[0]) {
        (true, _) => WORDS,
        (false, "io") => &[],
        (false, _) => RUNTIMES,
    };
    let mut found: Vec<(usize, String)> = words(&source.shipped)
        .filter(|(_, word)| banned.contains(word))
        .map(|(at, word)| (at, word.to_owned()))
        .collect();
    if core {
        for (at, path) in paths_from(&source.shipped, "std") {
            if path.first().is_some_and(|part| STD.contains(part)) {
                found.push((at, format!("std::{}", path[0])));
            }
        }
        let callbacks = ["dyn Fn", "dyn core::ops::Fn", "dyn std::ops::Fn"];
        for callback in callbacks {
            for (at, _) in source.shipped.match_indices(callback) {
                found.push((at, "a boxed or borrowed callback".to_owned()));
            }
        }
    }
    found
        .into_iter()
        .map(|(at, what)| {
            let line = line_of(&source.shipped, at);
            format!("{}:{line}: {what} has no place here", source.path)
        })
        .collect()
}

/// `unsafe` in shipped code outside the one module.
pub(crate) fn stray_unsafe(source: &Source) -> Vec<String> {
    if source.path == UNSAFE_FILE || source.path.starts_with(UNSAFE_FOLDER) {
        return Vec::new();
    }
    words(&source.shipped)
        .filter(|(_, word)| *word == "unsafe")
        .filter(|&(at, _)| {
            let (file, promise) = UNSAFE_PROMISE;
            source.path != file || !source.shipped[at..].starts_with(promise)
        })
        .map(|(at, _)| {
            let line = line_of(&source.shipped, at);
            format!("{}:{line}: unsafe outside {UNSAFE_FILE}", source.path)
        })
        .collect()
}

/// Files and functions that are too long.
pub(crate) fn sizes(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    let lines = source.text.lines().count();
    if lines > FILE_LINES_MAX {
        findings.push(format!(
            "{}: {lines} lines, at most {FILE_LINES_MAX}",
            source.path
        ));
    }
    for (at, name, lines) in functions(&source.shipped) {
        if lines > FUNCTION_LINES_MAX {
            let line = line_of(&source.shipped, at);
            findings.push(format!(
                "{}:{line}: {name} has {lines} lines, at most {FUNCTION_LINES_MAX}",
                source.path
            ));
        }
    }
    findings
}

/// Every function with a body: offset, name, lines from `fn` to the closing brace.
fn functions(code: &str) -> Vec<(usize, &str, usize)> {
    let mut found = Vec::new();
    let mut named = words(code).peekable();
    while let Some((at, word)) = named.next() {
        if word != "fn" {
            continue;
        }
        let Some(&(name_at, name)) = named.peek() else {
            continue;
        };
        // `fn(` is a type: the next word is not its name.
        if !code[at + 2..name_at].trim().is_empty() {
            continue;
        }
        if let Some(end) = body_end(&code[name_at..]) {
            let lines = code[at..name_at + end].matches('\n').count() + 1;
            found.push((at, name, lines));
        }
    }
    found
}

/// The end of the body that follows a name; `None` for a declaration.
fn body_end(code: &str) -> Option<usize> {
    let (mut braces, mut others) = (0, 0);
    for (at, byte) in code.bytes().enumerate() {
        match byte {
            b'(' | b'[' => others += 1,
            b')' | b']' => others -= 1,
            b';' if braces == 0 && others == 0 => return None,
            b'{' => braces += 1,
            b'}' => {
                braces -= 1;
                if braces == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// Paths that exist on one machine only.
pub(crate) fn machine_paths(path: &str, text: &str) -> Vec<String> {
    // Put together here, so that this file does not find itself.
    let banned = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];
    text.lines()
        .enumerate()
        .filter(|(_, line)| {
            banned.iter().any(|banned| {
                line.match_indices(banned).any(|(at, _)| {
                    // Within a longer path it is not a root.
                    !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-".contains(c))
                })
            })
        })
        .map(|(index, _)| format!("{path}:{}: a path of one machine", index + 1))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &str, text: &str) -> usize {
        forbidden_names(&Source::new(path, text)).len()
    }

    #[test]
    fn runtimes_and_the_system_are_found_in_the_core() {
        for text in [
            "async fn f() {}",
            "fn f() { g().await; }",
            "use std::net::SocketAddr;",
            "use std::{io, fs::File};",
            "fn f() { std::thread::yield_now(); }",
            "use glommio::Task;",
            "use ::io_uring::IoUring;",
            "use tokio::time;",
            "use crossbeam::queue::ArrayQueue;",
            "struct S { f: Box<dyn Fn()> }",
            "fn f(g: &mut dyn FnMut(u8)) {}",
        ] {
            assert_eq!(names("src/shard/mod.rs", text), 1, "{text}");
        }
        assert_eq!(
            names(
                "src/shard/mod.rs",
                "use core::net::IpAddr; use std::io::Write;"
            ),
            0
        );
        assert_eq!(
            names("src/shard/mod.rs", "// async\nconst A: &str = \"tokio\";"),
            0
        );
        assert_eq!(names("src/shard/tests.rs", "use std::fs;"), 0);
    }

    #[test]
    fn runtime_types_stay_in_io() {
        assert_eq!(names("src/admin/mod.rs", "use glommio::Task;"), 1);
        assert_eq!(names("src/sim/mod.rs", "use io_uring::IoUring;"), 1);
        assert_eq!(
            names(
                "src/admin/mod.rs",
                "use std::thread; use crossbeam::queue::Q;"
            ),
            0
        );
        assert_eq!(
            names("src/io/host.rs", "use glommio::Task; async fn f() {}"),
            0
        );
    }

    #[test]
    fn unsafe_is_found_outside_its_file() {
        let text = "fn f() { unsafe { g() } }";
        assert_eq!(stray_unsafe(&Source::new("src/io/tcp.rs", text)).len(), 1);
        assert_eq!(
            stray_unsafe(&Source::new("loadgen/src/main.rs", text)).len(),
            1
        );
        assert_eq!(stray_unsafe(&Source::new(UNSAFE_FILE, text)).len(), 0);
        let (file, promise) = UNSAFE_PROMISE;
        let promised = format!("fn f() {{ {promise}fd) }} }}");
        assert_eq!(stray_unsafe(&Source::new(file, &promised)).len(), 0);
        assert_eq!(stray_unsafe(&Source::new(file, text)).len(), 1);
        for (path, found) in [("src/io/sys/ethtool.rs", 0), ("src/io/sys_other.rs", 1)] {
            assert_eq!(
                stray_unsafe(&Source::new(path, text)).len(),
                found,
                "{path}"
            );
        }
        let lint = "#![deny(unsafe_code)] // unsafe";
        assert_eq!(stray_unsafe(&Source::new("src/io/tcp.rs", lint)).len(), 0);
    }

    #[test]
    fn long_files_and_functions_are_found() {
        let long_file = "\n".repeat(FILE_LINES_MAX + 1);
        assert_eq!(sizes(&Source::new("src/a.rs", &long_file)).len(), 1);
        let body = |lines: usize| format!("fn f() {{\n{}}}\n", "g();\n".repeat(lines));
        assert_eq!(
            sizes(&Source::new("src/a.rs", &body(FUNCTION_LINES_MAX - 1))).len(),
            1
        );
        assert_eq!(
            sizes(&Source::new("src/a.rs", &body(FUNCTION_LINES_MAX - 2))).len(),
            0
        );
        let declared = format!(
            "trait T {{ fn f(&self, x: [u8; 2]);\n{}}}",
            "\n".repeat(200)
        );
        assert_eq!(sizes(&Source::new("src/a.rs", &declared)).len(), 0);
        let kind = format!("type F = fn(u8);\nmod m {{\n{}}}", "\n".repeat(200));
        assert_eq!(sizes(&Source::new("src/a.rs", &kind)).len(), 0);
    }

    #[test]
    fn machine_paths_are_found() {
        let bad = format!("dir = \"{}x\"", concat!("/wo", "rk/"));
        assert_eq!(machine_paths("a.md", &bad).len(), 1);
        assert_eq!(
            machine_paths("a.md", concat!("ls /ro", "ot/.cargo")).len(),
            1
        );
        assert_eq!(
            machine_paths("a.md", concat!("see src/wo", "rk/queue.rs")).len(),
            0
        );
    }
}
