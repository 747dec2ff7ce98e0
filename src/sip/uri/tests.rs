#![expect(
    clippy::cast_possible_truncation,
    reason = "random picks fit by construction"
)]

use super::*;
use crate::sip::parser::tests::{Random, mutate};

fn key(text: &str) -> Option<(IdentityKind, String)> {
    let mut out = Vec::new();
    let kind = canonical_identity(text.as_bytes(), &mut out).ok()?;
    Some((kind, String::from_utf8(out).unwrap()))
}

#[test]
fn reads_every_part() {
    let uri = parse(b"sip:+1555;ext=9:pw@[2001:db8::1]:5070;user=phone;gr=urn:uuid:x;lr?a=b&c=%20")
        .unwrap();
    assert_eq!(uri.scheme, Scheme::Sip);
    assert_eq!(uri.user, Some(&b"+1555;ext=9"[..]));
    assert_eq!(uri.password, Some(&b"pw"[..]));
    assert_eq!((uri.host, uri.port), (&b"[2001:db8::1]"[..], Some(5070)));
    assert_eq!(uri.param(b"GR"), Some(&b"urn:uuid:x"[..]));
    assert_eq!(uri.param(b"lr"), Some(&b""[..]));
    assert_eq!(uri.param(b"user"), Some(&b"phone"[..]));
    assert_eq!(uri.param(b"x"), None);
    assert_eq!(uri.headers, b"a=b&c=%20");
    let tel = parse(b"TEL:+1-(555).0100;phone-context=x").unwrap();
    assert_eq!(
        (tel.scheme, tel.user),
        (Scheme::Tel, Some(&b"+1-(555).0100"[..]))
    );
    assert_eq!(tel.param(b"phone-context"), Some(&b"x"[..]));
    let other = parse(b"urn:ipaddr:122.1.2.3").unwrap();
    assert_eq!(
        (other.scheme, other.host),
        (Scheme::Other, &b"ipaddr:122.1.2.3"[..])
    );
    assert_eq!(parse(b"sip:host.example").unwrap().user, None);
}

// Proves: NH-8
#[test]
fn refuses_what_is_no_uri() {
    for text in [
        "",
        "sip",
        "sip:",
        "sip:@h",
        "sip:u@",
        "sip:u@h:",
        "sip:u@h:0",
        "sip:u@h:65536",
        "sip:a b@h",
        "sip:u@h;",
        "sip:u@h;;lr",
        "sip:u@h?",
        "sip:u@h;a=%4",
        "sip:%zz@h",
        "sip:u@h>",
        "sip:<u@h",
        "sip:u@[::1",
        "sip:2001:db8::10",
        "sip:u@h\r\n",
        "sip:u@h\t",
        "sip:a@b@h",
        "tel:",
        "tel:abcx",
        "tel:+",
        "1x:y",
        ":x",
        "x:",
        "sip:u@h;\u{fc}",
        "sip:u\0@h",
    ] {
        assert!(parse(text.as_bytes()).is_err(), "{text:?}");
    }
}

// Proves: NH-8
#[test]
fn equality_follows_the_examples_of_section_19_1_4() {
    let equal = [
        (
            "sip:%61lice@atlanta.com;transport=TCP",
            "sip:alice@AtlanTa.CoM;Transport=tcp",
        ),
        ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"),
        (
            "sip:carol@chicago.com;security=on",
            "sip:carol@chicago.com;newparam=5",
        ),
        (
            "sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
            "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com",
        ),
        (
            "sip:alice@atlanta.com?subject=project%20x&priority=urgent",
            "sip:alice@atlanta.com?priority=urgent&subject=project%20x",
        ),
        ("tel:+1-555-0100", "tel:+15550100"),
        ("sip:a@h;gr=urn:uuid:X", "sip:a@H;gr=urn:uuid:x"),
    ];
    for (a, b) in equal {
        assert!(equivalent(a.as_bytes(), b.as_bytes()), "{a} {b}");
        assert!(equivalent(b.as_bytes(), a.as_bytes()), "{b} {a}");
    }
    let different = [
        (
            "SIP:ALICE@AtLanTa.CoM;Transport=udp",
            "sip:alice@AtLanTa.CoM;Transport=UDP",
        ),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
        ("sip:bob@biloxi.com", "sips:bob@biloxi.com"),
        (
            "sip:carol@chicago.com",
            "sip:carol@chicago.com?Subject=next%20meeting",
        ),
        (
            "sip:carol@chicago.com;security=on",
            "sip:carol@chicago.com;security=off",
        ),
        ("sip:a@h;gr=1", "sip:a@h"),
        ("sip:a@h;gr=1", "sip:a@h;gr=2"),
        ("sip:a:x@h", "sip:a@h"),
        ("tel:+15550100", "tel:+15550101"),
        ("not a uri", "not a uri"),
    ];
    for (a, b) in different {
        assert!(!equivalent(a.as_bytes(), b.as_bytes()), "{a} {b}");
        assert!(!equivalent(b.as_bytes(), a.as_bytes()), "{b} {a}");
    }
}

// Proves: BAD-23
#[test]
fn only_a_clean_sip_uri_with_gr_is_a_public_gruu() {
    assert!(is_public_gruu(
        b"sip:+15550100@x.example;gr=urn:uuid:f81d4fae-7dec-11d0"
    ));
    assert!(is_public_gruu(b"sip:+15550100@x.example;user=phone;gr=1"));
    assert!(
        is_public_gruu(b"sip:a%0d%0aX@x.example;gr=1"),
        "escaped octets are plain text"
    );
    let long = format!("sip:a@x.example;gr={}", "g".repeat(URI_BYTES_MAX));
    for text in [
        "sip:a@x.example",
        "sip:a@x.example;gr",
        "sip:x.example;gr=1",
        "tel:+1555;gr=1",
        "sip:a@x.example;gr=1\r\nX: y",
        "sip:a@x.example;gr=1 SIP/2.0",
        "<sip:a@x.example;gr=1>",
        "sip:a@x.example;gr=1?Route=x",
        "sip:a\t@x.example;gr=1",
        "",
        &long,
    ] {
        assert!(!is_public_gruu(text.as_bytes()), "{text:?}");
    }
}

// Proves: INT-11
#[test]
fn all_spellings_of_an_identity_share_one_key() {
    let number = Some((IdentityKind::Number, "+15550100".to_owned()));
    for text in [
        "tel:+15550100",
        "tel:+1-555-0100;x=y",
        "sip:+15550100@ims.example",
        "sip:+15550100@IMS.example;user=phone;gr=urn:uuid:1",
        "sips:+1.555.(0100)@other.example:5061",
        "sip:%2B15550100@ims.example",
        "sip:+15550100;phone-context=x@ims.example;user=phone",
    ] {
        assert_eq!(key(text), number, "{text}");
    }
    let address = |text: &str| Some((IdentityKind::Address, text.to_owned()));
    assert_eq!(
        key("sip:Alice@IMS.Example:5060;gr=1;x=y"),
        address("Alice@ims.example")
    );
    assert_eq!(key("sip:%41lice@ims.example"), address("Alice@ims.example"));
    assert_eq!(
        key("sip:a%40b%0a@ims.example"),
        address("a%40b%0A@ims.example")
    );
    assert_eq!(key("sip:ims.example"), address("ims.example"));
    assert_eq!(key("sip:+1x@ims.example"), address("+1x@ims.example"));
    assert_eq!(key("sip:+@ims.example"), address("+@ims.example"));
    for text in [
        "tel:5550100;phone-context=+1",
        "http://x",
        "",
        "sip:",
        "mailto:a@b",
    ] {
        assert_eq!(key(text), None, "{text}");
    }
}

#[test]
fn no_mutation_panics_and_what_parses_is_printable() {
    const SPICE: &[u8] = b"\r\n\0 :;@?&=%[]+-<>aF0\x80";
    let seeds: [&[u8]; 3] = [
        b"sip:+1555;e=1:pw@[2001:db8::1]:5070;user=phone;gr=urn:uuid:x;lr?a=b&c=%20",
        b"tel:+1-555-0100;phone-context=example.com",
        b"sip:alice%40x@host.example;transport=tcp",
    ];
    let mut state = 0x5eed_0002_u64;
    let mut random = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound as u64) as usize
    };
    let mut accepted = 0;
    for round in 0..20_000 {
        let mut bytes = seeds[round % 3].to_vec();
        for _ in 0..=random(3) {
            let at = random(bytes.len());
            match random(3) {
                0 => bytes[at] = SPICE[random(SPICE.len())],
                1 => bytes.insert(at, SPICE[random(SPICE.len())]),
                _ => drop(bytes.remove(at)),
            }
        }
        let mut out = Vec::new();
        let named = canonical_identity(&bytes, &mut out).is_ok();
        if parse(&bytes).is_ok() {
            accepted += 1;
            assert!(bytes.iter().all(u8::is_ascii_graphic));
            let seed = seeds[round % 3];
            assert_eq!(equivalent(&bytes, seed), equivalent(seed, &bytes));
            assert!(out.iter().all(u8::is_ascii_graphic));
        } else {
            assert!(!named && !is_public_gruu(&bytes));
        }
    }
    assert!(accepted > 1_000, "{accepted}");
}

#[test]
fn the_usual_form_reads_as_all_others_do() {
    let seeds: [&[u8]; 4] = [
        b"sip:+15550123@home.example;gr=urn:uuid:0f3c2b1a-7dec-11d0-a765-00a0c91e0001",
        b"sip:core.home.example:5060;transport=tcp;lr",
        b"sip:a@192.0.2.1",
        b"sip:push@push1.home.example:5060;x=1=2",
    ];
    let mut random = Random(0x5eed_0006);
    let mut taken = 0;
    for round in 0..40_000 {
        let mut bytes = seeds[round % seeds.len()].to_vec();
        mutate(&mut random, &mut bytes);
        let Some(uri) = parse_usual(&bytes) else {
            continue;
        };
        taken += 1;
        assert_eq!(
            Ok(uri),
            parse_any(&bytes),
            "{}",
            String::from_utf8_lossy(&bytes)
        );
    }
    assert!(taken > 5_000, "{taken} in the usual form");
}
