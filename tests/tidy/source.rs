//! Files of the repository, and Rust text with comments, strings and test modules blanked.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// One Rust file.
#[derive(Debug)]
pub(crate) struct Source {
    /// From the root, with `/`.
    pub path: String,
    pub text: String,
    /// `text` with comments and the contents of strings blanked; line by line the same.
    pub code: String,
    /// `code` with `#[cfg(test)]` items blanked too; empty in files of tests.
    pub shipped: String,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let code = blank(text);
        let shipped = if is_test_file(path) {
            String::new()
        } else {
            without_tests(&code)
        };
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            code,
            shipped,
        }
    }
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every Rust file of the engine, the judge, the tests and the benches.
pub(crate) fn sources() -> &'static [Source] {
    static SOURCES: OnceLock<Vec<Source>> = OnceLock::new();
    SOURCES.get_or_init(|| {
        let mut found = Vec::new();
        for top in ["src", "loadgen", "tests", "benches"] {
            walk(&root().join(top), &mut |path| {
                if path.extension().is_some_and(|extension| extension == "rs") {
                    let text = fs::read_to_string(path).expect("Rust files are UTF-8");
                    found.push(Source::new(&relative(path), &text));
                }
            });
        }
        assert!(found.len() > 20, "the walk must find the sources");
        found
    })
}

/// Every file of the repository that is text.
pub(crate) fn texts() -> Vec<(String, String)> {
    let mut found = Vec::new();
    walk(root(), &mut |path| {
        if let Ok(text) = fs::read_to_string(path) {
            found.push((relative(path), text));
        }
    });
    found
}

fn relative(path: &Path) -> String {
    let path = path.strip_prefix(root()).expect("walked from the root");
    path.to_string_lossy().replace('\\', "/")
}

/// Visits files in the order of their names; build output and Git's own files are left out.
fn walk(directory: &Path, visit: &mut dyn FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_symlink() || ["target", ".git", "volley-report"].contains(&&*name) {
            continue;
        }
        if path.is_dir() {
            walk(&path, visit);
        } else {
            visit(&path);
        }
    }
}

/// Files that hold nothing but tests.
pub(crate) fn is_test_file(path: &str) -> bool {
    path.starts_with("tests/")
        || path.starts_with("benches/")
        || path.starts_with("loadgen/tests/")
        || path.ends_with("/tests.rs")
        || path.contains("/tests/")
}

/// Replaces comments and the contents of strings and characters by blanks; keeps line ends.
pub(crate) fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => line_end(bytes, at),
            b'/' if bytes[at..].starts_with(b"/*") => comment_end(bytes, at),
            b'r' | b'b' | b'c' if !is_word(bytes.get(at.wrapping_sub(1))) => {
                match raw_string_end(bytes, at) {
                    Some(end) => end,
                    None => {
                        at += 1;
                        continue;
                    }
                }
            }
            b'"' => string_end(bytes, at),
            b'\'' => match char_end(bytes, at) {
                Some(end) => end,
                None => {
                    at += 1;
                    continue;
                }
            },
            _ => {
                at += 1;
                continue;
            }
        };
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8(out).expect("whole characters are blanked")
}

fn is_word(byte: Option<&u8>) -> bool {
    byte.is_some_and(|&byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..]
        .iter()
        .position(|&byte| byte == b'\n')
        .map_or(bytes.len(), |length| at + length)
}

fn comment_end(bytes: &[u8], at: usize) -> usize {
    let (mut depth, mut here) = (0, at);
    while here < bytes.len() {
        if bytes[here..].starts_with(b"/*") {
            depth += 1;
            here += 2;
        } else if bytes[here..].starts_with(b"*/") {
            depth -= 1;
            here += 2;
            if depth == 0 {
                return here;
            }
        } else {
            here += 1;
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut here = at + 1;
    while here < bytes.len() {
        match bytes[here] {
            b'\\' => here += 2,
            b'"' => return here + 1,
            _ => here += 1,
        }
    }
    bytes.len()
}

/// The end of `r".."`, `br#".."#` and the like.
fn raw_string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut here = at;
    while matches!(bytes.get(here), Some(b'b' | b'c')) {
        here += 1;
    }
    if bytes.get(here) != Some(&b'r') {
        return None;
    }
    here += 1;
    let hashes = bytes[here..]
        .iter()
        .take_while(|&&byte| byte == b'#')
        .count();
    here += hashes;
    if bytes.get(here) != Some(&b'"') {
        return None;
    }
    let mut close = vec![b'"'];
    close.resize(hashes + 1, b'#');
    let rest = &bytes[here + 1..];
    let length = rest.windows(close.len()).position(|window| window == close);
    Some(length.map_or(bytes.len(), |length| here + 1 + length + close.len()))
}

/// The end of a character literal; `None` for a lifetime.
fn char_end(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at + 1) == Some(&b'\\') {
        let length = bytes[at + 3..].iter().position(|&byte| byte == b'\'')?;
        return Some(at + 3 + length + 1);
    }
    // One character of up to four octets, then the quote.
    let first = *bytes.get(at + 1)?;
    let width = match first {
        0x00..=0x7f => 1,
        0x80..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xff => 4,
    };
    (bytes.get(at + 1 + width) == Some(&b'\'')).then_some(at + width + 2)
}

/// Blanks every item that follows `#[cfg(test)]` (also with further conditions in `all`).
pub(crate) fn without_tests(code: &str) -> String {
    let mut out = code.as_bytes().to_vec();
    let mut from = 0;
    while let Some(found) = code[from..].find("#[cfg(") {
        let at = from + found;
        from = at + 6;
        let condition = &code[from..code[from..].find(']').map_or(code.len(), |end| from + end)];
        let names_test = words(condition).any(|(_, word)| word == "test");
        if !names_test || condition.contains("not(test") {
            continue;
        }
        let end = item_end(code.as_bytes(), at);
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        from = end;
    }
    String::from_utf8(out).expect("whole items are blanked")
}

/// The end of the item at `at`: its semicolon, or the brace that closes its block.
fn item_end(code: &[u8], at: usize) -> usize {
    let (mut braces, mut others) = (0, 0);
    for (offset, byte) in code[at..].iter().enumerate() {
        match byte {
            b'(' | b'[' => others += 1,
            b')' | b']' => others -= 1,
            b'{' => braces += 1,
            b'}' => {
                braces -= 1;
                if braces <= 0 && others == 0 {
                    return at + offset + 1;
                }
            }
            b';' if braces == 0 && others == 0 => return at + offset + 1,
            _ => {}
        }
    }
    code.len()
}

/// Identifiers with their offsets.
pub(crate) fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let bytes = code.as_bytes();
    let mut at = 0;
    core::iter::from_fn(move || {
        while at < bytes.len() && !is_word(bytes.get(at)) {
            at += 1;
        }
        let start = at;
        while is_word(bytes.get(at)) {
            at += 1;
        }
        (start < at).then(|| (start, &code[start..at]))
    })
}

/// The line number of an offset, from 1.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Every path that begins with `head::`, groups expanded: `a::{b, c::d}` gives two.
pub(crate) fn paths_from<'a>(code: &'a str, head: &str) -> Vec<(usize, Vec<&'a str>)> {
    let mut found = Vec::new();
    for (at, word) in words(code) {
        let is_head =
            word == head && !code[..at].trim_end().ends_with("::") && !code[..at].ends_with('$');
        if is_head || (word == head && code[..at].ends_with("$")) {
            expand(code, at + word.len(), &mut Vec::new(), at, &mut found);
        }
    }
    found
}

/// Follows `::segment` and `::{...}` from `at`; returns where the path ends.
fn expand<'a>(
    code: &'a str,
    at: usize,
    path: &mut Vec<&'a str>,
    origin: usize,
    found: &mut Vec<(usize, Vec<&'a str>)>,
) -> usize {
    let rest = &code[at..];
    let skipped = rest.len() - rest.trim_start().len();
    let Some(after) = rest.trim_start().strip_prefix("::") else {
        if !path.is_empty() {
            found.push((origin, path.clone()));
        }
        return at;
    };
    let blanks = after.len() - after.trim_start().len();
    let here = at + skipped + 2 + blanks;
    if code[here..].starts_with('{') {
        return expand_group(code, here + 1, path, origin, found);
    }
    match words(&code[here..]).next() {
        Some((0, word)) => {
            path.push(word);
            let end = expand(code, here + word.len(), path, origin, found);
            path.pop();
            end
        }
        _ => {
            // A glob or a turbofish: what was read so far is the path.
            if !path.is_empty() {
                found.push((origin, path.clone()));
            }
            here
        }
    }
}

fn expand_group<'a>(
    code: &'a str,
    mut here: usize,
    path: &mut Vec<&'a str>,
    origin: usize,
    found: &mut Vec<(usize, Vec<&'a str>)>,
) -> usize {
    loop {
        let rest = &code[here..];
        let trimmed = rest.trim_start();
        here += rest.len() - trimmed.len();
        match trimmed.as_bytes().first() {
            None => return here,
            Some(b'}') => return here + 1,
            Some(b',') => here += 1,
            Some(_) => match words(trimmed).next() {
                Some((0, "as")) => {
                    // The name after `as` is ours, not a part of the path.
                    let (start, name) = words(&trimmed[2..]).next().unwrap_or_default();
                    here += 2 + start + name.len();
                }
                Some((0, word)) => {
                    path.push(word);
                    here = expand(code, here + word.len(), path, origin, found);
                    path.pop();
                }
                _ => here += 1,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_are_blanked_and_lines_stay() {
        let text = "a /* x /* y */ z */ b // c\n\"d\\\"e\" r#\"f\"g\"# 'h' '\\'' 'life b\"i\" j";
        let code = blank(text);
        assert_eq!(code.len(), text.len());
        let left: Vec<&str> = words(&code).map(|(_, word)| word).collect();
        assert_eq!(left, ["a", "b", "life", "b", "j"]);
        assert_eq!(code.matches('\n').count(), 1);
        assert_eq!(
            blank("let e = 'é'; x").trim_end().len(),
            blank("let e = 'é'; x").len()
        );
    }

    #[test]
    fn test_items_are_blanked() {
        let code = "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { x(); } }\nfn c() {}\n\
            #[cfg(test)]\nmod more;\n#[cfg(all(test, x))] fn d() {}\n#[cfg(not(test))] fn e() {}";
        let shipped = without_tests(code);
        let left: Vec<&str> = words(&shipped).map(|(_, word)| word).collect();
        assert_eq!(
            left,
            ["fn", "a", "fn", "c", "cfg", "not", "test", "fn", "e"]
        );
    }

    #[test]
    fn groups_expand_to_paths() {
        let code = "use crate::{a::b, c::{d, e as f, g::*}};\ncrate::h::i(crate::j);";
        let paths: Vec<String> = paths_from(code, "crate")
            .into_iter()
            .map(|(_, path)| path.join("::"))
            .collect();
        assert_eq!(paths, ["a::b", "c::d", "c::e", "c::g", "h::i", "j"]);
    }
}
