use super::*;
use crate::sip::parser::tests::messages;

fn all_frames(stream: &[u8], step: usize) -> Result<Vec<Frame>, FrameError> {
    let mut frames = Vec::new();
    let (mut start, mut end, mut seen) = (0, 0, 0);
    loop {
        let skip = match frame(&stream[start..end], seen)? {
            Frame::Incomplete { need_at_least } => {
                assert!(need_at_least > end - start);
                if end == stream.len() {
                    return Ok(frames);
                }
                seen = end - start;
                end = stream.len().min(end + step);
                continue;
            }
            Frame::Ping => (Frame::Ping, 4),
            Frame::Message { len } => (Frame::Message { len }, len),
            Frame::Pong { len } => (Frame::Pong { len }, len),
        };
        frames.push(skip.0);
        start += skip.1;
        seen = 0;
    }
}

// Proves: NH-6
#[test]
fn a_stream_is_cut_alike_however_it_arrives() {
    let mut stream = b"\r\n\r\n".to_vec();
    stream.extend_from_slice(messages::INVITE);
    stream.extend_from_slice(b"\r\n");
    stream.extend_from_slice(messages::OK_INVITE);
    stream.extend_from_slice(messages::OK_INVITE);
    let expected = [
        Frame::Ping,
        Frame::Message {
            len: messages::INVITE.len(),
        },
        Frame::Pong { len: 2 },
        Frame::Message {
            len: messages::OK_INVITE.len(),
        },
        Frame::Message {
            len: messages::OK_INVITE.len(),
        },
    ];
    for step in [1, 2, 3, 7, 100, 1000, stream.len()] {
        assert_eq!(
            all_frames(&stream, step).unwrap(),
            expected,
            "steps of {step}"
        );
    }
    let hundred = messages::OK_INVITE.repeat(100);
    assert_eq!(all_frames(&hundred, hundred.len()).unwrap().len(), 100);
}

#[test]
fn waits_for_the_announced_body_and_says_how_long() {
    let whole = messages::OK_INVITE;
    let cut = &whole[..whole.len() - 5];
    assert_eq!(
        frame(cut, 0),
        Ok(Frame::Incomplete {
            need_at_least: whole.len()
        })
    );
    // Shown before or not: a blank line inside the body is never taken for the end of the headers.
    let text = b"MESSAGE sip:a SIP/2.0\r\nl: 11\r\n\r\na\r\n\r\nb\r\n\r\nc";
    let len = text.len();
    assert_eq!(
        frame(&text[..40], 0),
        Ok(Frame::Incomplete { need_at_least: len })
    );
    assert_eq!(frame(text, 40), Ok(Frame::Message { len }));
}

#[test]
fn content_length_is_found_wherever_and_however_it_is_written() {
    for (text, body) in [
        (
            "A sip:a SIP/2.0\r\nContent-Length: 3\r\nX: y\r\n\r\n",
            Ok(3),
        ),
        ("A sip:a SIP/2.0\r\nl\t : 3\r\n\r\n", Ok(3)),
        (
            "A sip:a SIP/2.0\r\nCONTENT-LENGTH\r\n :\r\n 3\r\nX:\r\n y\r\n\r\n",
            Ok(3),
        ),
        ("A sip:a SIP/2.0\r\n  l: 3\r\n\r\n", Ok(3)),
        (
            "A sip:a SIP/2.0\r\nX: y\r\n l: 3\r\n\r\n",
            Err(FrameError::MissingContentLength),
        ),
        (
            "A sip:a SIP/2.0\r\nX: y\r\n\r\n",
            Err(FrameError::MissingContentLength),
        ),
        (
            "A sip:a SIP/2.0\r\n\r\n",
            Err(FrameError::MissingContentLength),
        ),
        (
            "A sip:a SIP/2.0\r\nl: -1\r\n\r\n",
            Err(FrameError::BadContentLength),
        ),
        (
            "A sip:a SIP/2.0\r\nl: 99999999999\r\n\r\n",
            Err(FrameError::BadContentLength),
        ),
        (
            "A sip:a SIP/2.0\r\nl: 999999999\r\n\r\n",
            Err(FrameError::MessageTooLong),
        ),
        (
            "A sip:a SIP/2.0\r\nl:\r\n\r\n",
            Err(FrameError::BadContentLength),
        ),
    ] {
        let expected = body.map(|len| Frame::Incomplete {
            need_at_least: text.len() + len,
        });
        assert_eq!(frame(text.as_bytes(), 0), expected, "{text:?}");
    }
}

// Proves: BAD-12
#[test]
fn what_is_not_sip_or_too_long_is_refused_early() {
    for text in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"\n",
        b"\0",
        b"\rX",
        b"MSRP a1b2 SEND\r\n",
        b"OPTIONS sip:a SIP/2.0\nVia: x\n\n",
        b"<xml/>",
        b"\x16\x03\x01\x02\x00",
    ] {
        assert_eq!(frame(text, 0), Err(FrameError::NotSip), "{text:?}");
    }
    assert_eq!(frame(&[b'A'; 300], 0), Err(FrameError::NotSip));
    let long_line = [b"A ".as_slice(), &vec![b'u'; SIP_LINE_BYTES_MAX]].concat();
    assert_eq!(frame(&long_line, 0), Err(FrameError::HeaderTooLong));
    let mut head = b"A sip:a SIP/2.0\r\n".to_vec();
    while head.len() <= SIP_HEADER_SECTION_BYTES_MAX {
        head.extend_from_slice(
            b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n",
        );
    }
    assert_eq!(frame(&head, 0), Err(FrameError::HeaderTooLong));
    head.extend_from_slice(b"\r\n");
    assert_eq!(frame(&head, 0), Err(FrameError::HeaderTooLong));
}

#[test]
fn keep_alives_are_told_apart_once_they_are_whole() {
    assert_eq!(frame(b"", 0), Ok(Frame::Incomplete { need_at_least: 1 }));
    assert_eq!(frame(b"\r", 0), Ok(Frame::Incomplete { need_at_least: 2 }));
    assert_eq!(
        frame(b"\r\n", 0),
        Ok(Frame::Incomplete { need_at_least: 4 })
    );
    assert_eq!(
        frame(b"\r\n\r", 0),
        Ok(Frame::Incomplete { need_at_least: 4 })
    );
    assert_eq!(frame(b"\r\n\r\n", 0), Ok(Frame::Ping));
    assert_eq!(frame(b"\r\nS", 0), Ok(Frame::Pong { len: 2 }));
}

#[test]
fn no_noise_panics() {
    let mut state = 0x5eed_0003_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap()
    };
    const SPICE: &[u8] = b"\r\n \t:lL0-9SIP/2.\0\xff";
    for round in 0..20_000 {
        let mut bytes = if round % 2 == 0 {
            messages::INVITE
        } else {
            messages::OK_INVITE
        }
        .to_vec();
        for _ in 0..=random() % 4 {
            let at = random() % bytes.len();
            bytes[at] = SPICE[random() % SPICE.len()];
        }
        bytes.truncate(random() % (bytes.len() * 2));
        let seen = random() % (bytes.len() + 1);
        if let Ok(Frame::Message { len }) = frame(&bytes, seen) {
            assert!(len <= bytes.len());
            assert_eq!(frame(&bytes, 0), Ok(Frame::Message { len }));
        }
    }
}
