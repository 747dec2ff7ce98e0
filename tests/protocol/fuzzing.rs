//! The fuzz targets' cases on mutations of known messages: the same every time.
//!
//! `VOLLEY_FUZZ_ROUNDS=100000` runs more of them than an ordinary run.

#[path = "../fuzz/cases.rs"]
mod cases;

use std::fs;
use std::path::Path;

use volley::base::entropy::Jitter;

/// Mutations of each seed in an ordinary run.
const ROUNDS: u64 = 60;
/// Pieces that mean something to one of the parsers.
const PIECES: &[&[u8]] = &[
    b"\r\n",
    b"\r\n\r\n",
    b"\r",
    b"\n",
    b"\0",
    b" ",
    b"\t",
    b";",
    b",",
    b"<",
    b">",
    b"\"",
    b"\\",
    b"%00",
    b"$",
    b"+",
    b"Content-Length: 4294967296\r\n",
    b"-------",
    b"<!DOCTYPE a>",
    b"<![CDATA[",
    b"&#x0;",
    b"&amp;",
    b"\xff\xfe",
    b"*",
    b"1-*/*",
    b"99999999999999999999",
    b":",
    b"@",
    b"[::1]",
    b"z9hG4bK",
];

fn seeds() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/flows");
    let mut paths: Vec<_> = fs::read_dir(folder)
        .expect("the flows are part of the repository")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|end| end == "txt"))
        .collect();
    paths.sort();
    let mut seeds = Vec::new();
    for path in paths {
        let message = fs::read(path).expect("readable");
        // The body alone is a seed too: SDP, CPIM, IMDN and reginfo come in one.
        if let Some(at) = message.windows(4).position(|four| four == b"\r\n\r\n") {
            seeds.push(message[at + 4..].to_vec());
        }
        seeds.push(message);
    }
    assert!(seeds.len() > 50, "{} seeds", seeds.len());
    seeds
}

fn below(dice: &mut Jitter, limit: usize) -> usize {
    usize::try_from(dice.below(limit.max(1) as u64)).expect("below a usize")
}

fn mutate(dice: &mut Jitter, seed: &[u8]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=dice.below(4) {
        let at = below(dice, bytes.len() + 1);
        let end = (at + below(dice, 40)).min(bytes.len());
        match dice.below(6) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let piece = PIECES[below(dice, PIECES.len())];
                drop(bytes.splice(at..at, piece.iter().copied()));
            }
            3 => {
                let again = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, again));
            }
            4 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
            _ if at < bytes.len() => bytes[at] = u8::try_from(dice.below(256)).expect("an octet"),
            _ => {}
        }
    }
    bytes
}

#[test]
fn no_mutation_of_a_known_message_breaks_a_parser_or_a_machine() {
    let rounds =
        std::env::var_os("VOLLEY_FUZZ_ROUNDS").and_then(|text| text.to_str()?.parse().ok());
    let mut dice = Jitter::new(20_261_125);
    for seed in seeds() {
        for _ in 0..rounds.unwrap_or(ROUNDS) {
            let bytes = mutate(&mut dice, &seed);
            for (name, case) in cases::CASES {
                let run = std::panic::catch_unwind(|| case(&bytes));
                assert!(
                    run.is_ok(),
                    "{name} fails for {:?}",
                    bytes.escape_ascii().to_string()
                );
            }
        }
    }
}

#[test]
fn no_sequence_of_operations_breaks_a_machine() {
    let mut dice = Jitter::new(7);
    for _ in 0..20_000 {
        let len = below(&mut dice, 240);
        let bytes: Vec<u8> = (0..len)
            .map(|_| u8::try_from(dice.below(256)).expect("an octet"))
            .collect();
        cases::invite_transaction(&bytes);
        cases::msrp_session(&bytes);
    }
}
