//! What the profile decides, and what it may not.

use super::*;
use crate::sdp::Setup;

// Proves: PUSH-a2, PUSH-b1, PUSH-b2, AMB-14
#[test]
fn accept_contact_follows_the_profile_and_the_device() {
    let base = invite_f1();
    let both = text_of(&base, |p| {
        p.accept_require = true;
        p.accept_explicit = true;
    });
    assert!(both.contains("oma.cpm.deferred\";require;explicit\r\n"));
    let plain = text_of(&base, |_| {});
    assert!(!plain.contains(";require") && !plain.contains(";explicit"));
    let several = text_of(&base, |p| p.feature_value = "urn:a:b,urn:c".into());
    assert!(several.contains("Accept-Contact: *;+g.3gpp.icsi-ref=\"urn%3Aa%3Ab,urn%3Ac\"\r\n"));
    let bare = text_of(&base, |p| {
        p.feature_name = "+g.oma.sip-im".into();
        p.feature_value.clear();
    });
    assert!(bare.contains("Accept-Contact: *;+g.oma.sip-im\r\n"));
    assert!(bare.contains(">;+g.oma.sip-im;automata\r\n"));
    let instance = InviteFields {
        extra_accept_contact: b"*;+sip.instance=\"<urn:uuid:1>\";require;explicit",
        ..base
    };
    let text = text_of(&instance, |_| {});
    assert!(text.contains(
        "deferred\"\r\nAccept-Contact: *;+sip.instance=\"<urn:uuid:1>\";require;explicit\r\nP-A"
    ));
}

// Proves: PUSH-g.i/ii, SDP-7, SDP-8, SDP-9, SDP-10, SDP-1, SDP-3, AMB-13
#[test]
fn the_offer_follows_the_profile() {
    let base = invite_f1();
    let session = text_of(&base, |p| {
        p.direction_level = Level::Session;
        p.cema = false;
        p.max_size = Some(16_384);
        p.setup = Setup::Active;
    });
    assert!(session.contains("t=0 0\r\na=sendonly\r\nm=message 2855 TCP/MSRP *\r\n"));
    assert!(
        session.ends_with("a=accept-wrapped-types:*\r\na=max-size:16384\r\na=setup:active\r\n")
    );
    assert_eq!(session.matches("sendonly").count(), 1);
    let v6 = text_of(&base, |p| {
        p.msrp_host = "2001:db8::10".parse().expect("literal");
        p.msrp_port = 4000;
    });
    assert!(v6.contains("o=- 3973000001 1 IN IP6 2001:db8::10\r\n"));
    assert!(v6.contains("c=IN IP6 2001:db8::10\r\n"));
    assert!(v6.contains("m=message 4000 TCP/MSRP *\r\na=path:msrp://[2001:db8::10]:4000/k9Q"));
    assert_eq!(v6.matches("sendonly").count(), 1);
}

// Proves: IMS-7, OVL-1, TX-15, PUSH-j
#[test]
fn via_and_trust_follow_the_profile() {
    let base = invite_f1();
    let outside = text_of(&base, |p| {
        p.trusted = false;
        p.oc = false;
        p.rport = true;
        p.transport = "UDP".into();
    });
    assert!(!outside.contains("\r\nP-"));
    assert!(outside.contains(
        "Via: SIP/2.0/UDP pf1.ims.example.net:5060;branch=z9hG4bK-1-7a1f03c2d4e5b697;rport\r\n"
    ));
    let dialect = text_of(&base, |p| {
        p.asserted_identity = Some("sip:rcse-standfw@ims.example.net".into());
        p.asserted_service = None;
    });
    assert!(dialect.contains("P-Asserted-Identity: <sip:rcse-standfw@ims.example.net>\r\nP-Ch"));
    assert!(dialect.contains("From: <sip:cpm-pf@ims.example.net>"));
}

// Proves: ST-1, SDP-8, PUSH-h, IMS-1
#[test]
fn profiles_that_break_a_rule_are_refused() {
    type Edit = fn(&mut Profile);
    let cases: &[(&str, ProfileProblem, Edit)] = &[
        ("session_expires_s", ProfileProblem::Range, |p| {
            p.session_expires_s = Some(89)
        }),
        ("setup", ProfileProblem::Range, |p| p.setup = Setup::Passive),
        ("setup", ProfileProblem::Range, |p| {
            p.setup = Setup::Holdconn
        }),
        ("msrp_port", ProfileProblem::Range, |p| p.msrp_port = 0),
        ("msrp_host", ProfileProblem::Range, |p| {
            p.msrp_host = [0, 0, 0, 0].into()
        }),
        ("route", ProfileProblem::Syntax, |p| {
            p.route = "<sip:s.example>".into()
        }),
        ("route", ProfileProblem::Syntax, |p| {
            p.route = "sip:s.example;lr".into()
        }),
        ("route", ProfileProblem::Syntax, |p| {
            p.route = "<sip:s.example;lr;orig>".into()
        }),
        ("route", ProfileProblem::Character, |p| {
            p.route = "<sip:a;lr>, <sip:b;lr>".into()
        }),
        ("originating_route", ProfileProblem::Syntax, |p| {
            p.originating_route = "<sip:s.example;lr>".into();
        }),
        ("pf_uri", ProfileProblem::Syntax, |p| {
            p.pf_uri = "http:x".into()
        }),
        ("pf_uri", ProfileProblem::Syntax, |p| {
            p.pf_uri = "sip:".into()
        }),
        ("contact_uri", ProfileProblem::Empty, |p| {
            p.contact_uri.clear()
        }),
        ("sent_by", ProfileProblem::Character, |p| {
            p.sent_by = "a;b".into()
        }),
        ("feature_value", ProfileProblem::Syntax, |p| {
            p.feature_value = "a,,b".into()
        }),
        ("feature_value", ProfileProblem::Character, |p| {
            p.feature_value = "a\"b".into()
        }),
        ("user_agent", ProfileProblem::TooLong, |p| {
            p.user_agent = "x".repeat(513)
        }),
        ("orig_ioi", ProfileProblem::Character, |p| {
            p.orig_ioi = "a\\".into()
        }),
        ("call_id_host", ProfileProblem::Character, |p| {
            p.call_id_host = "a@b".into()
        }),
    ];
    for (field, problem, edit) in cases {
        let error = compile(edit).expect_err("must be refused");
        assert_eq!((error.field, error.problem), (*field, *problem));
        assert!(error.to_string().contains(field));
    }
}

const TEXT_FIELDS: &[fn(&mut Profile) -> &mut String] = &[
    |p| &mut p.sent_by,
    |p| &mut p.transport,
    |p| &mut p.route,
    |p| &mut p.originating_route,
    |p| &mut p.pf_uri,
    |p| p.asserted_identity.get_or_insert_default(),
    |p| &mut p.contact_uri,
    |p| &mut p.feature_name,
    |p| &mut p.feature_value,
    |p| &mut p.message_feature_value,
    |p| &mut p.user_agent,
    |p| &mut p.server,
    |p| &mut p.allow,
    |p| p.asserted_service.get_or_insert_default(),
    |p| p.message_asserted_service.get_or_insert_default(),
    |p| &mut p.icid_generated_at,
    |p| &mut p.orig_ioi,
    |p| &mut p.accept_types,
    |p| &mut p.accept_wrapped_types,
    |p| &mut p.call_id_host,
];

fn header_names(message: &[u8]) -> Vec<String> {
    let text = core::str::from_utf8(message).expect("text");
    let (head, _) = text.split_once("\r\n\r\n").expect("a head end");
    head.split("\r\n")
        .skip(1)
        .map(|line| line.split_once(": ").expect("a header line").0.to_owned())
        .collect()
}

// Proves: BAD-23
#[test]
fn no_hostile_profile_adds_a_header_or_ends_a_line() {
    let mut random = XorShift(0x0123_4567_89ab_cdef);
    let hostile = [
        "\r\n", "\n", "\r", "\0", "\r\nX: y", "\u{7f}", "\t", "\u{e9}",
    ];
    for field in TEXT_FIELDS {
        for poison in hostile {
            for place in 0..3 {
                let error = compile(|p| {
                    let value = field(p);
                    if value.is_empty() {
                        value.push_str("sip:a");
                    }
                    let at = [0, value.len() / 2, value.len()][place];
                    value.insert_str(at, poison);
                });
                assert!(error.is_err(), "{poison:?} at {place}");
            }
        }
    }
    // Random text: refused, or harmless.
    let names = header_names(&invite_all_ways(&templates(), &invite_f1()));
    let alphabet: Vec<char> = "ab1:;,<>\"\\ @%=./-+*?#&()[]{}\t\r\n\0\u{7f}\u{e9}"
        .chars()
        .collect();
    let mut accepted = 0;
    for round in 0..20_000 {
        let field = TEXT_FIELDS[round % TEXT_FIELDS.len()];
        let count = 1 + random.below(3);
        let compiled = compile(|p| {
            let value = field(p);
            for _ in 0..count {
                let at = value.floor_char_boundary(random.below(value.len() + 1));
                value.insert(at, alphabet[random.below(alphabet.len())]);
            }
        });
        if let Ok(templates) = compiled {
            accepted += 1;
            let message = invite_all_ways(&templates, &invite_f1());
            assert_eq!(header_names(&message), names);
            assert!(content_length_is_true(&message));
            assert!(message.iter().all(|c| c.is_ascii() && *c != 0));
        }
    }
    assert!(accepted > 1_000, "some edits must be harmless: {accepted}");
}
