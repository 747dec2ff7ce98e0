use core::time::Duration;

use super::*;
use crate::base::shape::tests::scribbled;
use crate::sip::message::HeaderTable;
use crate::sip::parser::parse;
use crate::sip::session_timer::glare_delay;

const CONTACT: &str = "Contact: <sip:+15550100@ims.example.net;gr=urn:uuid:f81d4fae>;\
                       +g.3gpp.icsi-ref=\"urn%3Aurn-7%3Acpm.deferred\"\r\n";
const ROUTES: &str = "Record-Route: <sip:mt@pcscf1.ims.example.net:5060;lr>, \
                      <sip:mt@scscf1.ims.example.net:5060;transport=tcp;lr>;x=\"a,b\"\r\n";

/// A 200 to our INVITE with these Record-Route and Contact lines.
fn accepted(tag: &str, routes: &str, contact: &str) -> Vec<u8> {
    format!(
        "SIP/2.0 200 OK\r\nVia: SIP/2.0/TCP pf1.ims.example.net:5060;branch=z9hG4bK-1\r\n\
         From: <sip:cpm-pf@ims.example.net>;tag=pf7d21c0aa\r\n\
         To: \"tag=x\" <sip:+15550100@ims.example.net>{tag}\r\nCall-ID: 5f0c@pf1.ims.example.net\r\n\
         CSeq: 3 INVITE\r\n{routes}{contact}Content-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

fn with<R>(bytes: &[u8], run: impl FnOnce(&Message<'_>) -> R) -> R {
    let mut table = HeaderTable::new();
    let message = parse(bytes, &mut table).expect("a well-formed message");
    run(&message)
}

fn establish(dialog: &mut Dialog, routes: &str, contact: &str) -> Result<(), DialogError> {
    with(&accepted(";tag=ue-9c41b7", routes, contact), |message| {
        dialog.establish(message, &mut Peers::new())
    })
}

fn text(bytes: &[u8]) -> &str {
    core::str::from_utf8(bytes).unwrap()
}

// Proves: OK-2, DLG-1, DLG-2
#[test]
fn a_loose_route_set_is_reversed_and_the_contact_is_the_request_uri() {
    let mut dialog = Dialog::default();
    establish(&mut dialog, ROUTES, CONTACT).unwrap();
    assert!(dialog.is_confirmed());
    assert_eq!(
        text(dialog.request_uri()),
        "sip:+15550100@ims.example.net;gr=urn:uuid:f81d4fae"
    );
    assert_eq!(
        text(dialog.route_lines()),
        "Route: <sip:mt@scscf1.ims.example.net:5060;transport=tcp;lr>;x=\"a,b\"\r\n\
         Route: <sip:mt@pcscf1.ims.example.net:5060;lr>\r\n"
    );
    assert_eq!(
        text(dialog.to_value()),
        "\"tag=x\" <sip:+15550100@ims.example.net>;tag=ue-9c41b7"
    );
    assert_eq!(text(dialog.remote_tag()), "ue-9c41b7");
}

// Proves: DLG-2
#[test]
fn a_strict_first_route_becomes_the_request_uri_and_the_target_the_last_route() {
    let routes = "Record-Route: <sip:p2.example;lr>\r\n\
                  Record-Route: <sip:a;b@p1.example;method=INVITE;transport=tcp?x=y>\r\n";
    let mut dialog = Dialog::default();
    establish(&mut dialog, routes, "Contact: <sip:ue@host>\r\n").unwrap();
    assert_eq!(
        text(dialog.request_uri()),
        "sip:a;b@p1.example;transport=tcp"
    );
    assert_eq!(
        text(dialog.route_lines()),
        "Route: <sip:p2.example;lr>\r\nRoute: <sip:ue@host>\r\n"
    );
    assert!(dialog.refresh_target(b"sip:ue@elsewhere:5070"));
    assert_eq!(text(dialog.remote_target()), "sip:ue@elsewhere:5070");
    assert_eq!(
        text(dialog.route_lines()),
        "Route: <sip:p2.example;lr>\r\nRoute: <sip:ue@elsewhere:5070>\r\n"
    );
    assert_eq!(
        text(dialog.request_uri()),
        "sip:a;b@p1.example;transport=tcp"
    );
}

// Proves: DLG-2
#[test]
fn without_record_route_there_is_no_route() {
    let mut dialog = Dialog::default();
    establish(&mut dialog, "", CONTACT).unwrap();
    assert_eq!(dialog.route_lines(), b"");
}

#[test]
fn folded_lines_of_the_peer_are_one_line_of_ours() {
    let routes = "Record-Route: <sip:p1.example;lr>\r\n ;a=b,\r\n\t<sip:p2.example;lr>\r\n";
    let bytes = accepted("\r\n ;tag=t", routes, CONTACT);
    let mut dialog = Dialog::default();
    with(&bytes, |message| {
        dialog.establish(message, &mut Peers::new())
    })
    .unwrap();
    assert!(!dialog.to_value().contains(&b'\n'));
    assert_eq!(text(dialog.remote_tag()), "t");
    let lines = text(dialog.route_lines());
    assert_eq!(lines.matches('\n').count(), 2, "{lines}");
    assert_eq!(lines.matches("\r\n").count(), 2, "{lines}");
}

// Proves: OK-2a
#[test]
fn another_contact_replaces_the_remote_target_when_it_is_usable() {
    let mut dialog = Dialog::default();
    assert!(!dialog.refresh_target(b"sip:ue@new"), "no dialog yet");
    establish(&mut dialog, ROUTES, CONTACT).unwrap();
    let routes = dialog.route_lines().to_vec();
    assert!(dialog.refresh_target(b"sip:ue@new.example;gr"));
    assert_eq!(text(dialog.request_uri()), "sip:ue@new.example;gr");
    assert_eq!(dialog.route_lines(), routes);
    for bad in [
        &b"sip:a b"[..],
        b"*",
        b"",
        b"tel:+1",
        b"sip:a\r\nX: y@h",
        &[b'a'; 2000],
    ] {
        assert!(!dialog.refresh_target(bad));
        assert_eq!(text(dialog.request_uri()), "sip:ue@new.example;gr");
    }
}

// Proves: OK-2b, BAD-24
#[test]
fn a_2xx_that_cannot_make_a_dialog_says_why_and_leaves_nothing() {
    let long = format!("Contact: <sip:{}@h>\r\n", "a".repeat(1100));
    let mut many = String::new();
    for index in 0..33 {
        many.push_str(&format!("Record-Route: <sip:p{index}.example;lr>\r\n"));
    }
    let cases = [
        ("", "", DialogError::NoContact),
        ("", "Contact: *\r\n", DialogError::BadContact),
        ("", "Contact: <sip:a b>\r\n", DialogError::BadContact),
        ("", "Contact: <tel:+1>\r\n", DialogError::BadContact),
        ("", &long, DialogError::BadContact),
        (&many, CONTACT, DialogError::TooManyRoutes),
        (
            "Record-Route: <sip:p 1;lr>\r\n",
            CONTACT,
            DialogError::BadRoute,
        ),
        ("Record-Route: <tel:+1>\r\n", CONTACT, DialogError::BadRoute),
    ];
    for (routes, contact, expected) in cases {
        let mut dialog = Dialog::default();
        dialog.set_local_cseq(3);
        let bytes = accepted(";tag=t", routes, contact);
        let mut table = HeaderTable::new();
        // The parser may refuse the whole response; then there is no dialog either.
        if let Ok(message) = parse(&bytes, &mut table) {
            assert_eq!(
                dialog.establish(&message, &mut Peers::new()),
                Err(expected),
                "{routes}{contact}"
            );
        }
        assert!(!dialog.is_confirmed());
        assert!(dialog.request_uri().is_empty() && dialog.route_lines().is_empty());
        assert_eq!(dialog.local_cseq(), 3);
    }
}

// Proves: BAD-24
#[test]
fn thirty_two_route_entries_are_allowed() {
    let mut routes = String::new();
    for index in 0..32 {
        routes.push_str(&format!("Record-Route: <sip:p{index}.example;lr>\r\n"));
    }
    let mut dialog = Dialog::default();
    establish(&mut dialog, &routes, CONTACT).unwrap();
    assert!(text(dialog.route_lines()).starts_with("Route: <sip:p31.example;lr>\r\n"));
    assert!(text(dialog.route_lines()).ends_with("Route: <sip:p0.example;lr>\r\n"));
}

#[test]
fn a_provisional_or_failed_response_makes_no_dialog() {
    let bytes = accepted(";tag=t", "", CONTACT);
    let early = text(&bytes).replace("200 OK", "183 Progress");
    let mut dialog = Dialog::default();
    let result = with(early.as_bytes(), |message| {
        dialog.establish(message, &mut Peers::new())
    });
    assert_eq!(result, Err(DialogError::NotAccepted));
}

// Proves: DLG-4
#[test]
fn a_fork_is_told_by_its_to_tag() {
    let mut dialog = Dialog::default();
    let ours = accepted(";tag=ue-9c41b7", "", CONTACT);
    with(&ours, |message| assert!(!dialog.is_same_fork(message)));
    establish(&mut dialog, "", CONTACT).unwrap();
    with(&ours, |message| assert!(dialog.is_same_fork(message)));
    for tag in [";tag=other", "", ";tag=ue-9c41b"] {
        with(&accepted(tag, "", CONTACT), |message| {
            assert!(!dialog.is_same_fork(message))
        });
    }
}

// Proves: DLG-5
#[test]
fn our_cseq_rises_by_one_and_the_peers_must_not_fall() {
    let mut dialog = Dialog::default();
    dialog.set_local_cseq(3);
    establish(&mut dialog, "", CONTACT).unwrap();
    assert_eq!(
        (dialog.next_cseq(), dialog.next_cseq(), dialog.local_cseq()),
        (4, 5, 5)
    );
    assert_eq!(dialog.accept_remote_cseq(70), Ok(()));
    assert_eq!(dialog.accept_remote_cseq(69), Err(OutOfOrder));
    assert_eq!(dialog.accept_remote_cseq(u32::MAX), Ok(()));
    assert_eq!(dialog.accept_remote_cseq(0), Err(OutOfOrder));
}

// Proves: DLG-11
#[test]
fn glare_is_answered_491_or_500_with_retry_after() {
    let mut dice = Jitter::new(1);
    assert_eq!(judge_glare(false, false, &mut dice), Glare::Clear);
    assert_eq!(judge_glare(true, false, &mut dice), Glare::Pending);
    for _ in 0..100 {
        let Glare::Unanswered { retry_after_s } = judge_glare(true, true, &mut dice) else {
            panic!("the peer's own comes first");
        };
        assert!(retry_after_s <= 10);
        let delay = glare_delay(&mut dice);
        assert!(delay >= Duration::from_millis(2100) && delay <= Duration::from_millis(4000));
    }
}

// Proves: DLG-8, DLG-9
#[test]
fn a_lost_dialog_is_told_by_its_status_and_an_ended_one_is_not_confirmed() {
    assert!(ends_dialog(408) && ends_dialog(481));
    assert!(!ends_dialog(500) && !ends_dialog(200));
    let mut dialog = Dialog::default();
    establish(&mut dialog, "", CONTACT).unwrap();
    dialog.end();
    assert!(!dialog.is_confirmed());
    assert!(
        !dialog.request_uri().is_empty(),
        "the BYE's repeats still need it"
    );
}

#[test]
fn a_warm_dialog_reuses_its_buffer() {
    let mut dialog = Dialog::default();
    establish(&mut dialog, ROUTES, CONTACT).unwrap();
    let capacity = dialog.text.capacity();
    let place = dialog.text.as_ptr();
    for _ in 0..100 {
        dialog.reset();
        establish(&mut dialog, ROUTES, CONTACT).unwrap();
    }
    assert_eq!(
        (dialog.text.capacity(), dialog.text.as_ptr()),
        (capacity, place)
    );
}

/// 20,000 mutated responses: no panic, and no line break ever gets into our requests.
#[test]
fn mutated_responses_never_inject_a_line() {
    let seed = accepted(";tag=ue-9c41b7", ROUTES, CONTACT);
    let strict = accepted(
        ";tag=1",
        "Record-Route: <sip:p;x?a=b>, <sip:q>\r\n",
        CONTACT,
    );
    let mut dice = Jitter::new(9);
    let mut dialog = Dialog::default();
    let mut table = HeaderTable::new();
    let mut built = 0;
    for round in 0..20_000 {
        let mut bytes = if round % 2 == 0 {
            seed.clone()
        } else {
            strict.clone()
        };
        for _ in 0..=dice.below(3) {
            let at = usize::try_from(dice.below(bytes.len() as u64)).unwrap();
            let picks = b"\r\n <>;,=?@:\"\\ \x00\xffa";
            let pick = picks[usize::try_from(dice.below(picks.len() as u64)).unwrap()];
            match dice.below(3) {
                0 => bytes[at] = pick,
                1 => bytes.insert(at, pick),
                _ => drop(bytes.remove(at)),
            }
        }
        let Ok(message) = parse(&bytes, &mut table) else {
            continue;
        };
        if dialog.establish(&message, &mut Peers::new()).is_err() {
            continue;
        }
        built += 1;
        for part in [dialog.request_uri(), dialog.to_value(), dialog.remote_tag()] {
            assert!(!part.contains(&b'\r') && !part.contains(&b'\n'));
        }
        for line in dialog.route_lines().split_inclusive(|byte| *byte == b'\n') {
            assert!(line.starts_with(b"Route: ") && line.ends_with(b"\r\n"));
            assert!(!line[..line.len() - 2].contains(&b'\r'));
        }
        assert!(!dialog.request_uri().contains(&b' '));
    }
    assert!(built > 1000, "the mutations leave some usable: {built}");
}

#[test]
fn a_dialog_by_what_peers_wrote_before_is_the_one_that_reading_makes() {
    let mut dice = Jitter::new(9);
    let samples = [
        (ROUTES, CONTACT),
        (
            "Record-Route: <sip:10.0.0.1;lr;did=a1.b2>\r\n",
            "Contact: <sip:ue@10.1.2.3:5060;transport=tcp>;expires=600;q=0.5\r\n",
        ),
        ("", "Contact: \"A, B\" <sip:a%41b@h;x=%41>\r\n"),
        (
            "Record-Route: <sip:strict.example>\r\n",
            "Contact: sip:ue@h;p=1, <sip:b@h>\r\n",
        ),
        (
            "Record-Route: <sip:a.example;lr>\r\nRecord-Route: <sip:b.example;lr=on>\r\n",
            "Contact: <sips:ue@h>\r\n",
        ),
    ];
    for (routes, contact) in samples {
        let original = accepted(";tag=ue-9c41b7", routes, contact);
        let lines = memchr::memmem::find(&original, b"INVITE\r\n").unwrap() + 8;
        let end = memchr::memmem::find(&original, b"Content-Length").unwrap();
        let mut peers = Peers::new();
        let mut made = 0;
        for round in 0..20_000 {
            let bytes = match round {
                0 => original.clone(),
                _ => scribbled(&mut dice, &original, lines..end),
            };
            let mut table = HeaderTable::new();
            let Ok(message) = parse(&bytes, &mut table) else {
                continue;
            };
            let (mut read, mut known) = (Dialog::default(), Dialog::default());
            let want = read.establish(&message, &mut Peers::new());
            let readable = String::from_utf8_lossy(&bytes);
            assert_eq!(known.establish(&message, &mut peers), want, "{readable}");
            assert_eq!(format!("{known:?}"), format!("{read:?}"), "{readable}");
            made += u32::from(want.is_ok());
        }
        assert!(made > 5_000, "{made} dialogs");
    }
}

#[test]
fn other_phones_of_one_kind_need_no_reading() {
    let mut peers = Peers::new();
    let contact = CONTACT.trim_start_matches("Contact: ").trim_end();
    let routes = ROUTES.trim_start_matches("Record-Route: ").trim_end();
    assert!(peers.contact(contact.as_bytes()).is_some());
    assert!(peers.routes(routes.as_bytes()).is_none());
    peers.learn_routes(routes.as_bytes());
    let other = contact
        .replace("15550100", "15559999")
        .replace("f81d4fae", "00aabbcc");
    let uri = &b"sip:+15559999@ims.example.net;gr=urn:uuid:00aabbcc"[..];
    assert_eq!(peers.contact(other.as_bytes()), Some(uri));
    let other = routes.replace("scscf1", "scscf7").replace("a,b", "z,9");
    let known = peers.routes(other.as_bytes()).unwrap();
    assert_eq!(known.places().len(), 2);
    for bad in ["5060;lr>", "sip:mt@p", ";lr"] {
        let odd = routes.replacen(bad, &bad.replace([';', ':'], "%"), 1);
        assert!(peers.routes(odd.as_bytes()).is_none(), "{odd}");
    }
}
