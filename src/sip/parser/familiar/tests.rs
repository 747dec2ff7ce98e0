use super::*;
use crate::base::entropy::Jitter;
use crate::base::shape::tests::scribbled;
use crate::sip::parser::parse;
use crate::sip::parser::tests::messages;

/// Messages with all that may be free, or must not be.
const MORE: [&[u8]; 4] = [
    b"REGISTER sip:as.home.example SIP/2.0\r\n\
      Via: SIP/2.0/TCP s.home.example;branch=z9hG4bKas7d98;rport=5060;received=192.0.2.7\r\n\
      Max-Forwards: 70\r\n\
      From: \"S-CSCF\" <sip:scscf%41b%40c@home.example>;tag=q1\r\n\
      To: Alice <sip:+15550123;phone-context=%2b1@home.example:5070;user=phone?a=b>\r\n\
      Call-ID: 12-ab.cd@10.0.0.1\r\n\
      CSeq: 2147483646 REGISTER\r\n\
      Expires: 600000\r\n\
      P-Visited-Network-ID: \"a b\", other\r\n\
      Content-Length: 0\r\n\
      \r\n",
    b"SIP/2.0 180 Ringing\r\n\
      v: SIP/2.0/UDP h;branch=z9hG4bK0;x=\"a,b\", SIP/2.0/UDP [2001:db8::1]:5060\r\n\
      f: x\r\n\
      t: tel:+15550123;tag=a\r\n\
      i: a b c\r\n\
      CSeq: 007 INVITE\r\n\
      l: 003\r\n\
      \r\n\
      abc",
    b"BYE sip:u%41%5ax:pw@192.0.2.1:5060;transport=tcp SIP/2.0\r\n\
      Via: SIP/2.0/TCP 192.0.2.9:5061;branch=old-style\r\n\
      From: sip:a@x.example;tag=1;y=2\r\n\
      To: <sips:b@x.example>;tag=z9\r\n\
      Call-ID: c@x.example\r\n\
      CSeq: 99 BYE\r\n\
      Subject: : odd  blanks\r\n\
      Content-Length: 0\r\n\
      \r\n",
    b"MESSAGE tel:+15550123 SIP/2.0\r\n\
      Via: SIP/2.0/TCP a.b:1;branch=z9hG4bKaq4tz2mxv7c3k5w6n2p5r7s2dq4wz6yb;oc=0\r\n\
      From: <sip:a@x.example;p=%41>;tag=1\r\n\
      To: <tel:+15550123>\r\n\
      Call-ID: c\r\n\
      CSeq: 5 MESSAGE\r\n\
      Max-Forwards: 1\r\n\
      Content-Type: text/plain\r\n\
      Content-Length: 2\r\n\
      \r\n\
      hi",
];

fn samples() -> Vec<&'static [u8]> {
    let mut all = vec![
        messages::OK_INVITE,
        messages::INVITE,
        messages::TRYING,
        messages::OK_BYE,
        messages::NOTIFY,
    ];
    all.extend(MORE);
    all
}

/// A head that a `Familiar` has learned from `sample`, whether or not another one is there.
fn knows(sample: &[u8]) -> Familiar {
    let mut familiar = Familiar::new();
    let mut table = HeaderTable::new();
    assert_eq!(familiar.recall(sample, &mut table), None);
    familiar.learn(&parse(sample, &mut table).unwrap());
    familiar
}

/// All that a table says.
fn said(table: &HeaderTable) -> String {
    let HeaderTable {
        start,
        method,
        body,
        headers_end,
        unfolded,
        facts,
        ..
    } = table;
    let lines = table.entries();
    format!("{start:?} {method:?} {body:?} {headers_end} {unfolded} {facts:?} {lines:?}")
}

#[test]
fn a_message_is_recalled_as_it_was_read() {
    for sample in samples() {
        let mut familiar = knows(sample);
        let (mut read, mut recalled) = (HeaderTable::new(), HeaderTable::new());
        parse(sample, &mut read).unwrap();
        assert_eq!(familiar.recall(sample, &mut recalled), Some(sample.len()));
        assert_eq!(said(&recalled), said(&read));
        let longer = [sample, b"SIP/2.0 "].concat();
        assert_eq!(familiar.recall(&longer, &mut recalled), Some(sample.len()));
        let cut = &sample[..sample.len() - 1];
        assert_eq!(familiar.recall(cut, &mut recalled), None);
    }
}

#[test]
fn what_is_recalled_is_what_the_parser_would_say_whatever_octets_changed() {
    let mut dice = Jitter::new(11);
    let (mut read, mut recalled) = (HeaderTable::new(), HeaderTable::new());
    let mut taken = 0;
    for sample in samples() {
        let mut familiar = knows(sample);
        for _ in 0..30_000 {
            let text = scribbled(&mut dice, sample, 0..sample.len());
            let mine = familiar.recall(&text, &mut recalled);
            // A memory that misses falls asleep.
            if mine.is_none() {
                familiar = knows(sample);
            }
            let Some(len) = mine else { continue };
            taken += 1;
            let readable = String::from_utf8_lossy(&text);
            assert!(
                parse(&text[..len], &mut read).is_ok(),
                "refused, but recalled:\n{readable}"
            );
            assert_eq!(said(&recalled), said(&read), "{readable}");
        }
    }
    assert!(taken > 20_000, "only {taken} were recalled");
}

#[test]
fn other_users_branches_numbers_and_lengths_are_recalled() {
    let mut familiar = knows(messages::OK_INVITE);
    let text = String::from_utf8(messages::OK_INVITE.to_vec()).unwrap();
    let other = text
        .replace("+15550123", "+15559876")
        .replace(
            "aq4tz2mxv7c3k5w6n2p5r7s2dq4wz6yb",
            "aq5tz2mxv7c3k5w6n2p5r7s2dq4wz777",
        )
        .replace("tag=phone-5d2f01", "tag=phone-99aa00")
        .replace("CSeq: 1 ", "CSeq: 4 ")
        .replace("a=recvonly\r\n", "a=recvonly\r\na=x\r\n")
        .replace("Length: 203", "Length: 208");
    let mut table = HeaderTable::new();
    assert_eq!(
        familiar.recall(other.as_bytes(), &mut table),
        Some(text.len() + 5)
    );
    let message = crate::sip::parser::recalled(other.as_bytes(), &table);
    assert_eq!(message.cseq().unwrap().number, 4);
    assert_eq!(message.to_tag(), Some(&b"phone-99aa00"[..]));
    assert!(message.body().ends_with(b"a=x\r\n"));
}

#[test]
fn what_gives_lines_or_parts_another_meaning_is_not_recalled() {
    let text = String::from_utf8(messages::OK_INVITE.to_vec()).unwrap();
    let mut familiar = knows(messages::OK_INVITE);
    let mut table = HeaderTable::new();
    for (old, new) in [
        ("200 OK", "202 OK"),
        ("INVITE\r\nRecord", "UPDATE\r\nRecord"),
        ("z9hG4bKaq4", "z9hG4bLaq4"),
        ("Allow: ", "Xllow: "),
        ("Allow: ", "Allow:  "),
        ("home.example>;tag=phone", "home.exbmple>;tag=phone"),
        ("CSeq: 1 INVITE", "CSeq: x INVITE"),
        ("timer\r\nRequire", "time\x01\r\nRequire"),
        ("timer\r\nRequire", "time\x7f\r\nRequire"),
        ("timer\r\nRequire", "tim\u{e9}\r\nRequire"),
    ] {
        assert_eq!(text.matches(old).count(), 1, "{old}");
        let other = text.replace(old, new);
        assert_eq!(familiar.recall(other.as_bytes(), &mut table), None, "{new}");
    }
}

#[test]
fn many_shapes_are_kept_and_strangers_cost_little() {
    let with = |length: usize| {
        let text = String::from_utf8(messages::OK_BYE.to_vec()).unwrap();
        text.replace("Call-ID: ", &format!("Call-ID: {}", "x".repeat(length)))
    };
    let mut familiar = Familiar::new();
    let mut table = HeaderTable::new();
    let mut recalled = |text: &str| {
        let known = familiar.recall(text.as_bytes(), &mut table).is_some();
        if !known {
            familiar.learn(&parse(text.as_bytes(), &mut table).unwrap());
        }
        known
    };
    let texts: Vec<String> = (0..WAYS).map(with).collect();
    for round in 0..4 {
        for text in &texts {
            assert_eq!(recalled(text), round > 0);
        }
    }
    // Nobody comes twice: the set falls asleep, and wakes up again.
    let strangers = (0..2_000).filter(|n| recalled(&with(100 + n % 900)));
    assert!(strangers.count() < 40);
    let again = (0..2_000).filter(|_| recalled(&texts[3]));
    assert!(again.count() > 900);
}
