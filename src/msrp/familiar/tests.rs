use super::*;
use crate::base::entropy::Jitter;
use crate::base::shape::tests::scribbled;
use crate::msrp::frame::{Parsed, parse};

const PATHS: &str = "To-Path: msrp://10.0.0.2:2855/kaiaad5maaaaaaaabbrrjit5ts4gkoge;tcp\r\n\
    From-Path: msrp://10.0.0.1:2855/Zt4hVd0PqL8n;tcp\r\n";

fn samples() -> Vec<String> {
    let frame = |start: &str, more: &str| {
        format!("MSRP kaiaad5m {start}\r\n{PATHS}{more}-------kaiaad5m$\r\n")
    };
    vec![
        frame("200 OK", ""),
        frame("200", "").replace('$', "+"),
        frame(
            "REPORT",
            "Message-ID: m1.2\r\nByte-Range: 1-760/760\r\nStatus: 000 200 OK\r\n",
        ),
        frame(
            "SEND",
            "Message-ID: 87652491\r\nByte-Range: 1-0/0\r\nX-Other: a b\r\nFailure-Report: no\r\n",
        ),
        frame(
            "SEND",
            "byte-range:  5-*/*\r\nmessage-id: x  \r\nSuccess-Report: yes\r\n",
        )
        .replace("/Zt4hVd0PqL8n;tcp", "/Zt;tcp msrp://h:1/s;tcp"),
    ]
}

fn read(text: &[u8]) -> Option<(Frame<'_>, usize)> {
    match parse(text, 0) {
        Ok(Parsed::Frame { frame, len }) => Some((frame, len)),
        Ok(Parsed::Incomplete) | Err(_) => None,
    }
}

fn knows(sample: &str) -> Frames {
    let mut frames = Frames::new();
    let text = sample.as_bytes();
    assert_eq!(frames.recall(text), None);
    let (frame, len) = read(text).unwrap();
    frames.learn(text, &frame, len);
    assert_eq!(frames.recall(text), Some((frame, len)), "{sample}");
    frames
}

#[test]
fn what_is_recalled_is_what_reading_would_say_whatever_octets_changed() {
    let mut dice = Jitter::new(7);
    for sample in samples() {
        let mut frames = knows(&sample);
        let mut taken = 0;
        for _ in 0..30_000 {
            let mut text = scribbled(&mut dice, sample.as_bytes(), 0..sample.len());
            text.extend_from_slice(b"MSRP behind");
            let readable = String::from_utf8_lossy(&text).into_owned();
            match frames.recall(&text) {
                Some(known) => {
                    assert_eq!(Some(known), read(&text), "{readable}");
                    taken += 1;
                }
                // A memory that misses falls asleep.
                None => frames = knows(&sample),
            }
        }
        assert!(taken > 10_000, "{taken} of\n{sample}");
    }
}

#[test]
fn other_sessions_ids_and_ranges_are_recalled_and_two_ids_are_not() {
    let report = &samples()[2];
    let mut frames = knows(report);
    let other = report
        .replace("kaiaad5m", "zz19x-0q".replace('-', "7").as_str())
        .replace("m1.2", "q9.9")
        .replace("1-760/760", "2-750/900")
        .replace("Zt4hVd0PqL8n", "AAAAVd0PqL8n");
    let (frame, len) = frames.recall(other.as_bytes()).unwrap();
    assert_eq!(Some((frame, len)), read(other.as_bytes()));
    assert_eq!(frame.message_id, Some(&b"q9.9"[..]));
    let range = frame.byte_range.unwrap();
    assert_eq!(
        (range.start, range.end, range.total),
        (2, Some(750), Some(900))
    );
    for (old, new) in [
        ("-------kaiaad5m", "-------kaiaad5n"),
        ("1-760/760", "7-160/100"),
        ("000 200", "000 201"),
        ("REPORT", "REPORX"),
        ("$\r\n", "#\r\n"),
    ] {
        let other = report.replace(old, new);
        assert_ne!(&other, report);
        assert_eq!(frames.recall(other.as_bytes()), None, "{new}");
    }
    assert_eq!(frames.recall(&report.as_bytes()[..report.len() - 1]), None);
}

#[test]
fn bodies_and_faults_are_read_each_time() {
    let body = samples()[3].replace("-------", "Content-Type: text/plain\r\n\r\nhi\r\n-------");
    let fault = samples()[2].replace("1-760/760", "9-760/100");
    for text in [body, fault] {
        let mut frames = Frames::new();
        let (frame, len) = read(text.as_bytes()).unwrap();
        assert!(frame.body.is_some() || frame.fault.is_some());
        assert_eq!(frames.recall(text.as_bytes()), None);
        frames.learn(text.as_bytes(), &frame, len);
        assert_eq!(frames.recall(text.as_bytes()), None);
    }
}
