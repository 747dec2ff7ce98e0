use super::*;
use crate::base::entropy::Jitter;
use crate::base::shape::tests::scribbled;

const SDP: Option<&[u8]> = Some(b"application/sdp");

const HANDSET: &str = "v=0\r\n\
    o=- 3973000001 1 IN IP4 203.0.113.20\r\n\
    s=-\r\n\
    c=IN IP4 203.0.113.20\r\n\
    t=0 0\r\n\
    m=message 20855 TCP/MSRP *\r\n\
    a=path:msrp://203.0.113.20:20855/kkkkkkkkkkkk;tcp\r\n\
    a=accept-types:message/cpim\r\n\
    a=accept-wrapped-types:text/plain *\r\n\
    a=max-size:10240\r\n\
    a=setup:active\r\n\
    a=file-selector:x 1\r\n\
    a=msrp-cema\r\n\
    a=recvonly\r\n";

fn samples() -> Vec<String> {
    let with = |old: &str, new: &str| {
        assert!(HANDSET.contains(old), "{old}");
        HANDSET.replace(old, new)
    };
    vec![
        HANDSET.to_owned(),
        with("message 20855", "message 0"),
        with("203.0.113.20:20855", "[2001:db8::20]:20855"),
        with("203.0.113.20:20855", "phone1.example:20855"),
        with("path:", "path:msrp://192.0.2.7:9000/a;tcp "),
        with("c=IN IP4 203.0.113.20", "c=IN IP6 2001:db8::20"),
        with(
            "c=IN IP4 203.0.113.20\r\n",
            "c=IN IP4 203.0.113.20\r\nc=IN IP4 203.0.113.20\r\n",
        ),
        with(
            "a=setup",
            "a=path:msrp://203.0.113.20:20855/kkkkkkkkkkkk;tcp\r\na=setup",
        ),
        with("\r\n", "\n"),
        with("a=msrp-cema", "a=msrp-cema:1"),
    ]
}

fn knows(sample: &str) -> Answers {
    let mut answers = Answers::new();
    let first = answers.judge(sample.as_bytes(), SDP);
    assert_eq!(first, judge_answer(sample.as_bytes(), SDP));
    assert!(answers.0.recall(sample.as_bytes()).is_some(), "{sample}");
    answers
}

fn recalls(answers: &mut Answers, body: &[u8]) -> bool {
    let noted = answers.0.recall(body);
    noted.is_some_and(|noted| noted.resolve(body).is_some())
}

#[test]
fn what_is_recalled_is_what_judging_would_say_whatever_octets_changed() {
    let mut dice = Jitter::new(5);
    for sample in samples() {
        let mut answers = knows(&sample);
        let mut taken = 0;
        for _ in 0..30_000 {
            let text = scribbled(&mut dice, sample.as_bytes(), 0..sample.len());
            if !recalls(&mut answers, &text) {
                // A memory that misses falls asleep.
                answers = knows(&sample);
                continue;
            }
            taken += 1;
            let readable = String::from_utf8_lossy(&text);
            assert_eq!(
                answers.judge(&text, SDP),
                judge_answer(&text, SDP),
                "{readable}"
            );
        }
        assert!(taken > 1_000, "{taken} of\n{sample}");
    }
}

#[test]
fn other_addresses_ports_and_sessions_are_recalled() {
    let mut answers = knows(HANDSET);
    let other = HANDSET
        .replace("203.0.113.20", "198.5.100.17")
        .replace("20855", "41999")
        .replace("kkkkkkkkkkkk", "Zt4hVd0PqL8n")
        .replace("3973000001 1", "9999999999 7")
        .replace("x 1", "y z");
    assert!(recalls(&mut answers, other.as_bytes()));
    let answer = answers.judge(other.as_bytes(), SDP).unwrap();
    assert_eq!((answer.host, answer.port), (&b"198.5.100.17"[..], 41_999));
    assert_eq!(answer.path, b"msrp://198.5.100.17:41999/Zt4hVd0PqL8n;tcp");
}

#[test]
fn a_refusal_with_another_path_is_recalled_unless_it_has_two() {
    let refusal = HANDSET.replace("message 20855", "message 0");
    let other = |text: &str| text.replacen("kkkkkkkkkkkk", "Zt4hVd0PqL8n", 1);
    let mut answers = knows(&refusal);
    let (same, spoilt) = (
        other(&refusal),
        refusal.replace("kkkkkkkkkkkk", "kkkkkk kkkkk"),
    );
    assert!(recalls(&mut answers, same.as_bytes()));
    assert_eq!(answers.judge(same.as_bytes(), SDP), Err(SdpError::Port0));
    assert!(!recalls(&mut answers, spoilt.as_bytes()));
    let path = "a=path:msrp://203.0.113.20:20855/kkkkkkkkkkkk;tcp\r\n";
    let twice = refusal.replace(path, &path.repeat(2));
    let mut answers = knows(&twice);
    assert!(!recalls(&mut answers, other(&twice).as_bytes()));
    assert_eq!(
        answers.judge(other(&twice).as_bytes(), SDP),
        Err(SdpError::Path)
    );
}

#[test]
fn what_changes_the_verdict_is_judged_anew() {
    let mut answers = knows(HANDSET);
    for (old, new, error) in [
        ("message 20855", "message 00000", SdpError::Port0),
        ("message 20855", "message 99999", SdpError::None),
        ("20:20855", "20:00000", SdpError::Path),
        ("20:20855", "20:70000", SdpError::Path),
        ("setup:active", "setup:actpas", SdpError::Setup),
        ("a=recvonly", "a=sendonly", SdpError::Dir),
        ("message/cpim", "message/cpin", SdpError::Type),
        ("TCP/MSRP", "TCP/MSRX", SdpError::Proto),
        (";tcp", ";tls", SdpError::Path),
    ] {
        let text = HANDSET.replacen(old, new, 1);
        assert_ne!(text, HANDSET, "{old}");
        assert_eq!(answers.judge(text.as_bytes(), SDP), Err(error), "{new}");
    }
    // Of another type the same octets are no description.
    let verdict = answers.judge(HANDSET.as_bytes(), Some(b"text/plain"));
    assert_eq!(verdict, Err(SdpError::None));
}
