#![expect(clippy::cast_possible_truncation, reason = "test data is small")]

use super::*;

mod profile;

macro_rules! flow {
    ($name:literal) => {
        include_bytes!(concat!("../../../tests/data/flows/", $name))
    };
}

const GRUU_A: &[u8] =
    b"sip:+15550100@ims.example.net;gr=urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6";
const GRUU_B: &[u8] =
    b"sip:+15550100@ims.example.net;gr=urn:uuid:2ad8950e-48a5-4a74-8d99-ad76cc7fc74c";
const USER: &[u8] = b"sip:+15550100@ims.example.net";
const ROUTES: &[u8] = b"Route: <sip:mt@scscf1.ims.example.net:5060;transport=tcp;lr>\r\n\
    Route: <sip:mt@pcscf1.ims.example.net:5060;lr>\r\n";

fn templates() -> Templates {
    Templates::compile(&Profile::default()).expect("the default profile is valid")
}

fn compile(edit: impl FnOnce(&mut Profile)) -> Result<Templates, ProfileError> {
    let mut profile = Profile::default();
    edit(&mut profile);
    Templates::compile(&profile)
}

#[track_caller]
fn assert_bytes(got: &[u8], want: &[u8]) {
    if got != want {
        assert_eq!(String::from_utf8_lossy(got), String::from_utf8_lossy(want));
    }
}

fn invite_f1() -> InviteFields<'static> {
    InviteFields {
        request_uri: GRUU_A,
        branch: b"-1-7a1f03c2d4e5b697",
        from_tag: b"pf7d21c0aa",
        to_uri: USER,
        call_id: b"5f0c6a1e9d2b4c7781aa",
        cseq: 1,
        icid: b"7c1e0f5a9b",
        session_expires_s: Some(1800),
        min_se: None,
        conversation_id: b"4f93f0fe-86d6-462c-9ba2-e4bc3d1cafcc",
        contribution_id: b"94d850fb-ed40-437e-9609-de9ea0e393d9",
        sdp_session: 3_973_000_001,
        sdp_version: 1,
        msrp_session: b"k9Qv3tZs1mXbW7aEoR2y",
        no_require: false,
        related_icid: b"",
        extra_accept_contact: b"",
        extra_headers: b"",
        from_uri: b"",
    }
}

/// The usual case of production: every identifier is a token.
fn invite_tokens() -> InviteFields<'static> {
    InviteFields {
        branch: b"abcdefghijklmnopqrstuvwxyz234567",
        from_tag: b"bcdefghijklmnopqrstuvwxyz234567a",
        call_id: b"cdefghijklmnopqrstuvwxyz234567ab",
        icid: b"defghijklmnopqrstuvwxyz234567abc",
        msrp_session: b"efghijklmnopqrstuvwxyz234567abcd",
        ..invite_f1()
    }
}

fn invite_f2() -> InviteFields<'static> {
    InviteFields {
        branch: b"-2-11aa22bb33cc44dd",
        from_tag: b"pf3a90e17b",
        call_id: b"a1d4e7f0b3c6492582bb",
        icid: b"7c1e0f5a9c",
        session_expires_s: Some(600),
        sdp_session: 3_973_000_002,
        msrp_session: b"Yc5wTr8uIo1pAs3dFg6h",
        ..invite_f1()
    }
}

fn dialog_f1() -> DialogFields<'static> {
    DialogFields {
        request_uri: GRUU_A,
        branch: b"-1-9c3e55d0b7a81f42",
        route_lines: ROUTES,
        from_tag: b"pf7d21c0aa",
        to_value: b"<sip:+15550100@ims.example.net>;tag=ue-9c41b7",
        call_id: b"5f0c6a1e9d2b4c7781aa",
        cseq: 1,
        session_expires: None,
        min_se: None,
        reason: b"",
        sdp_session: 3_973_000_001,
        sdp_version: 1,
        msrp_session: b"k9Qv3tZs1mXbW7aEoR2y",
        from_uri: b"",
    }
}

/// Every form of an INVITE gives the same bytes; returns them.
#[track_caller]
fn invite_all_ways(templates: &Templates, fields: &InviteFields<'_>) -> Vec<u8> {
    let mut contiguous = Vec::new();
    templates.invite(fields, &mut contiguous);
    let mut numbers = Numbers::new();
    let mut values = invite_values(fields);
    numbers.put(&templates.invite, &invite_figures(fields), &mut values);
    let mut general = Vec::new();
    templates.invite.encode_general(&values, &mut general);
    assert_bytes(&contiguous, &general);
    let mut scratch = Scratch::new();
    let mut parts = Parts::new();
    templates.invite_vectored(fields, &mut scratch, &mut parts);
    assert!(parts.as_slices().iter().all(|part| !part.is_empty()));
    assert_bytes(&parts.as_slices().concat(), &contiguous);
    contiguous
}

fn content_length_is_true(message: &[u8]) -> bool {
    let text = core::str::from_utf8(message).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head end");
    let (_, length) = head.rsplit_once("Content-Length: ").expect("a length");
    // As text: no zeros before it.
    length == body.len().to_string()
}

fn text_of(fields: &InviteFields<'_>, edit: impl FnOnce(&mut Profile)) -> String {
    let message = invite_all_ways(&compile(edit).expect("valid"), fields);
    assert!(content_length_is_true(&message));
    String::from_utf8(message).expect("text")
}

// Proves: PUSH-0a, PUSH-a, PUSH-b, PUSH-b1, PUSH-c, PUSH-d, PUSH-e, PUSH-f, PUSH-f1, PUSH-f2, PUSH-f3
// Proves: PUSH-g, PUSH-h, PUSH-i, PUSH-j, PUSH-k, PUSH-l, OVL-1, IMS-1
// Proves: SDP-1, SDP-2, SDP-3, SDP-4, SDP-5, SDP-6, SDP-8, SDP-9, SDP-10, MSRP-28, AMB-7, AMB-16
#[test]
fn initial_invites_equal_the_worked_flows() {
    let templates = templates();
    let f5 = InviteFields {
        branch: b"-5-aaaaaaaa11111111",
        from_tag: b"pfA5",
        call_id: b"c0ffee00a1b2c3d4e5f6",
        icid: b"7c1e0f5aa0",
        sdp_session: 3_973_000_005,
        msrp_session: b"Aa1Bb2Cc3Dd4Ee5Ff6Gg",
        ..invite_f1()
    };
    let cases: &[(InviteFields<'_>, &[u8])] = &[
        (invite_f1(), flow!("f1-01-invite.txt")),
        (invite_f2(), flow!("f2-01-invite-se600.txt")),
        (f5, flow!("f5-01-invite-A.txt")),
        (
            InviteFields {
                request_uri: GRUU_B,
                branch: b"-5-bbbbbbbb22222222",
                from_tag: b"pfB5",
                call_id: b"c0ffee01a1b2c3d4e5f7",
                icid: b"7c1e0f5aa1",
                sdp_session: 3_973_000_006,
                msrp_session: b"Hh7Ii8Jj9Kk0Ll1Mm2Nn",
                ..f5
            },
            flow!("f5-02-invite-B.txt"),
        ),
        (
            InviteFields {
                request_uri: GRUU_B,
                branch: b"-5-dddddddd44444444",
                from_tag: b"pfB5r",
                call_id: b"c0ffee02a1b2c3d4e5f7",
                icid: b"7c1e0f5aa2",
                sdp_session: 3_973_000_007,
                msrp_session: b"Vv9Ww0Xx1Yy2Zz3aa4bb",
                ..f5
            },
            flow!("f5-08-invite-B-retry.txt"),
        ),
        (
            InviteFields {
                branch: b"-8-1357135724682468",
                from_tag: b"pf8",
                call_id: b"0badc0de00112233",
                icid: b"7c1e0f5aa8",
                sdp_session: 3_973_000_008,
                msrp_session: b"Cc7Dd8Ee9Ff0Gg1Hh2Ii",
                ..f5
            },
            flow!("f8-01-invite.txt"),
        ),
    ];
    for (fields, want) in cases {
        assert_bytes(&invite_all_ways(&templates, fields), want);
    }
}

// Proves: ST-2, PUSH-k
#[test]
fn the_retry_after_422_equals_the_worked_flow() {
    let retry = InviteFields {
        branch: b"-2-55ee66ff77aa88bb",
        cseq: 2,
        session_expires_s: Some(900),
        min_se: Some(900),
        ..invite_f2()
    };
    assert_bytes(
        &invite_all_ways(&templates(), &retry),
        flow!("f2-04-invite-retry.txt"),
    );
}

// Proves: DLG-2, DLG-3
#[test]
fn acks_to_2xx_equal_the_worked_flows() {
    let templates = templates();
    let cases: &[(DialogFields<'_>, &[u8])] = &[
        (dialog_f1(), flow!("f1-04-ack.txt")),
        (
            DialogFields {
                branch: b"-5-cccccccc33333333",
                from_tag: b"pfA5",
                to_value: b"<sip:+15550100@ims.example.net>;tag=ueA-200",
                call_id: b"c0ffee00a1b2c3d4e5f6",
                ..dialog_f1()
            },
            flow!("f5-06-ack-A.txt"),
        ),
        (
            DialogFields {
                branch: b"-7-5656565678787878",
                from_tag: b"pf7",
                to_value: b"<sip:+15550100@ims.example.net>;tag=ue7",
                call_id: b"deadbeef00112233",
                ..dialog_f1()
            },
            flow!("f7-06-ack.txt"),
        ),
    ];
    for (fields, want) in cases {
        let mut out = Vec::new();
        templates.ack(fields, &mut out);
        assert_bytes(&out, want);
    }
}

// Proves: DLG-2, PUSH-f2
#[test]
fn byes_equal_the_worked_flows() {
    let templates = templates();
    let cases: &[(DialogFields<'_>, &[u8])] = &[
        (
            DialogFields {
                branch: b"-1-e0b1c2d3a4958677",
                cseq: 2,
                reason: b"SIP;cause=200;text=\"deferred queue drained\"",
                ..dialog_f1()
            },
            flow!("f1-15-bye.txt"),
        ),
        (
            DialogFields {
                branch: b"-3-fedcba9876543210",
                cseq: 4,
                reason: b"SIP;cause=481;text=\"refresh failed\"",
                ..dialog_f1()
            },
            flow!("f3-06-bye.txt"),
        ),
        (
            DialogFields {
                branch: b"-7-9a9a9a9abcbcbcbc",
                from_tag: b"pf7",
                to_value: b"<sip:+15550100@ims.example.net>;tag=ue7",
                call_id: b"deadbeef00112233",
                cseq: 2,
                reason: b"SIP;cause=488;text=\"answer not acceptable\"",
                ..dialog_f1()
            },
            flow!("f7-07-bye.txt"),
        ),
    ];
    for (fields, want) in cases {
        let mut out = Vec::new();
        templates.bye(fields, &mut out);
        assert_bytes(&out, want);
    }
}

// Proves: ST-9, ST-10, PUSH-e, SDP-2
#[test]
fn refreshes_equal_the_worked_flows_and_repeat_the_offer() {
    let templates = templates();
    let refresh = DialogFields {
        branch: b"-3-0011223344556677",
        cseq: 2,
        session_expires: Some((1800, Refresher::Uac)),
        ..dialog_f1()
    };
    let mut out = Vec::new();
    templates.update(&refresh, &mut out);
    assert_bytes(&out, flow!("f3-01-update.txt"));
    let again = DialogFields {
        branch: b"-3-8899aabbccddeeff",
        cseq: 3,
        ..refresh
    };
    out.clear();
    templates.reinvite(&again, &mut out);
    assert_bytes(&out, flow!("f3-03-reinvite.txt"));
    let body = |message: &[u8]| {
        let head = memchr::memmem::find(message, b"\r\n\r\n").expect("a head end");
        message[head..].to_vec()
    };
    let mut invite = Vec::new();
    templates.invite(&invite_f1(), &mut invite);
    assert_bytes(&body(&out), &body(&invite));

    let guarded = DialogFields {
        session_expires: Some((90, Refresher::Uas)),
        min_se: Some(120),
        ..refresh
    };
    out.clear();
    templates.update(&guarded, &mut out);
    let text = String::from_utf8(out).expect("text");
    assert!(text.contains("\r\nSession-Expires: 90;refresher=uas\r\nMin-SE: 120\r\n"));
}

#[test]
fn requests_over_datagrams_fill_their_size_class_behind_the_branch() {
    let plain = templates();
    let filled = compile(|profile| profile.datagram_max = 1600).unwrap();
    let mut filler_seen = [false; SIZE_CLASS];
    // URIs of all lengths, so that each remainder comes up.
    for more in 0..SIZE_CLASS {
        let uri = [USER, &vec![b'x'; more][..]].concat();
        let invite = InviteFields {
            request_uri: &uri,
            ..invite_tokens()
        };
        let bye = DialogFields {
            request_uri: &uri,
            branch: b"abcdefghijklmnopqrstuvwxyz234567",
            from_tag: b"bcdefghijklmnopqrstuvwxyz234567a",
            to_value: USER,
            call_id: b"cdefghijklmnopqrstuvwxyz234567ab",
            cseq: 2,
            route_lines: ROUTES,
            ..DialogFields::default()
        };
        let all = |templates: &Templates| {
            let mut outs: [Vec<u8>; 4] = Default::default();
            let fillers = [
                templates.invite(&invite, &mut outs[0]),
                templates.reinvite(&bye, &mut outs[1]),
            ];
            templates.bye(&bye, &mut outs[2]);
            templates.ack(&bye, &mut outs[3]);
            (outs, fillers)
        };
        let (short, none) = all(&plain);
        let (long, fillers) = all(&filled);
        assert_eq!(none, [0, 0]);
        for (short, long) in short.iter().zip(&long) {
            assert_eq!(long.len() % SIZE_CLASS, 0);
            let filler = long.len() - short.len();
            assert!(filler < SIZE_CLASS);
            filler_seen[filler] = true;
            let at = memchr::memmem::find(short, b";branch=").unwrap() + 8 + 7 + 32;
            assert_bytes(
                &[&short[..at], &FILLER[..filler], &short[at..]].concat(),
                long,
            );
        }
        assert_eq!(usize::from(fillers[0]), long[0].len() - short[0].len());
        assert_eq!(usize::from(fillers[1]), long[1].len() - short[1].len());
        let mut scratch = Scratch::new();
        let mut parts = Parts::new();
        filled.invite_vectored(&invite, &mut scratch, &mut parts);
        assert_bytes(&parts.as_slices().concat(), &long[0]);
    }
    assert!(
        filler_seen.iter().all(|&seen| seen),
        "every remainder came up"
    );
}

#[test]
fn filler_never_makes_a_datagram_too_large_for_the_path() {
    let mut plain = Vec::new();
    templates().invite(&invite_tokens(), &mut plain);
    let class = plain.len().next_multiple_of(SIZE_CLASS);
    assert!(class > plain.len(), "the case needs filler");
    for (max, want) in [(class, class), (class - 1, plain.len())] {
        let templates = compile(|profile| profile.datagram_max = max as u16).unwrap();
        let mut out = Vec::new();
        templates.invite(&invite_tokens(), &mut out);
        assert_eq!(out.len(), want);
    }
}

// Proves: TX-5
#[test]
fn acks_to_failures_equal_the_worked_flows() {
    let templates = templates();
    let initial = AckFields {
        request_uri: GRUU_A,
        branch: b"-2-11aa22bb33cc44dd",
        route_lines: None,
        from_tag: b"pf3a90e17b",
        to_value: b"<sip:+15550100@ims.example.net>;tag=scscf-77e0",
        call_id: b"a1d4e7f0b3c6492582bb",
        cseq: 1,
        from_uri: b"",
    };
    let cases: &[(AckFields<'_>, &[u8])] = &[
        (initial, flow!("f2-03-ack-non2xx.txt")),
        (
            AckFields {
                branch: b"-3-8899aabbccddeeff",
                route_lines: Some(ROUTES),
                from_tag: b"pf7d21c0aa",
                to_value: b"<sip:+15550100@ims.example.net>;tag=ue-9c41b7",
                call_id: b"5f0c6a1e9d2b4c7781aa",
                cseq: 3,
                ..initial
            },
            flow!("f3-05-ack-481.txt"),
        ),
        (
            AckFields {
                request_uri: GRUU_B,
                branch: b"-5-bbbbbbbb22222222",
                from_tag: b"pfB5",
                to_value: b"<sip:+15550100@ims.example.net>;tag=ueB-486",
                call_id: b"c0ffee01a1b2c3d4e5f7",
                ..initial
            },
            flow!("f5-04-ack-B.txt"),
        ),
        (
            AckFields {
                branch: b"-8-1357135724682468",
                from_tag: b"pf8",
                to_value: b"<sip:+15550100@ims.example.net>;tag=ue8",
                call_id: b"0badc0de00112233",
                ..initial
            },
            flow!("f8-06-ack-487.txt"),
        ),
        (
            AckFields {
                branch: b"-9-2468246813571357",
                from_tag: b"pf9",
                to_value: b"<sip:+15550100@ims.example.net>;tag=sc9",
                call_id: b"0ver10ad00112233",
                ..initial
            },
            flow!("f9-02-ack-503.txt"),
        ),
    ];
    for (fields, want) in cases {
        let mut out = Vec::new();
        templates.ack_failure(fields, &mut out);
        assert_bytes(&out, want);
    }
}

// Proves: TX-13
#[test]
fn the_cancel_equals_the_worked_flow() {
    let mut out = Vec::new();
    templates().cancel(
        &CancelFields {
            request_uri: GRUU_A,
            branch: b"-8-1357135724682468",
            from_tag: b"pf8",
            to_uri: USER,
            call_id: b"0badc0de00112233",
            cseq: 1,
            reason: b"SIP;cause=408;text=\"no answer\"",
            from_uri: b"",
        },
        &mut out,
    );
    assert_bytes(&out, flow!("f8-03-cancel.txt"));
}

// Proves: SUB-1
#[test]
fn subscribes_equal_the_worked_flows() {
    let templates = templates();
    let initial = SubscribeFields {
        request_uri: USER,
        branch: b"-4-a0a1a2a3a4a5a6a7",
        route_lines: None,
        from_tag: b"pfsub01",
        to_value: b"<sip:+15550100@ims.example.net>",
        call_id: b"reg-0b7c5d1e2f",
        cseq: 1,
        expires_s: 600_000,
        icid: b"7c1e0f5a9d",
    };
    let mut out = Vec::new();
    templates.subscribe(&initial, &mut out);
    assert_bytes(&out, flow!("f4-03-subscribe.txt"));
    let refresh = SubscribeFields {
        request_uri: b"sip:scscf1.ims.example.net:5060;transport=tcp",
        branch: b"-4-b0b1b2b3b4b5b6b7",
        route_lines: Some(b""),
        to_value: b"<sip:+15550100@ims.example.net>;tag=scnot01",
        cseq: 2,
        ..initial
    };
    out.clear();
    templates.subscribe(&refresh, &mut out);
    assert_bytes(&out, flow!("f4-09-subscribe-refresh.txt"));
}

// Proves: IMS-1, PUSH-f2
#[test]
fn the_imdn_message_equals_the_worked_flow() {
    let want = flow!("f6-03-imdn-failed.txt");
    let head = memchr::memmem::find(want, b"\r\n\r\n").expect("a head end");
    let mut out = Vec::new();
    templates().message(
        &MessageFields {
            request_uri: b"sip:+15550177@ims.example.net",
            branch: b"-6-0f1e2d3c4b5a6978",
            from_uri: USER,
            from_tag: b"pfi1",
            to_uri: b"sip:+15550177@ims.example.net",
            call_id: b"imdn-77aa01",
            cseq: 1,
            asserted_identity: USER,
            conversation_id: b"4f93f0fe-86d6-462c-9ba2-e4bc3d1cafcc",
            contribution_id: b"6e2b8f0c-1d35-4a77-9c11-0b5e7f3a2d94",
            extra_headers: b"",
            content_type: b"message/cpim",
            body: &want[head + 4..],
        },
        &mut out,
    );
    assert_bytes(&out, want);
}

// Proves: PUSH-f2
#[test]
fn options_probe_has_what_a_request_needs() {
    let mut out = Vec::new();
    templates().options(
        &OptionsFields {
            request_uri: b"sip:scscf1.ims.example.net",
            branch: b"b",
            from_tag: b"t",
            to_uri: b"sip:scscf1.ims.example.net",
            call_id: b"c",
            cseq: 42,
        },
        &mut out,
    );
    let want = "OPTIONS sip:scscf1.ims.example.net SIP/2.0\r\n\
        Via: SIP/2.0/TCP pf1.ims.example.net:5060;branch=z9hG4bKb;oc;oc-algo=\"loss,rate\"\r\n\
        Max-Forwards: 70\r\nFrom: <sip:cpm-pf@ims.example.net>;tag=t\r\n\
        To: <sip:scscf1.ims.example.net>\r\nCall-ID: c@pf1.ims.example.net\r\n\
        CSeq: 42 OPTIONS\r\nContact: <sip:push@pf1.ims.example.net:5060;transport=tcp>\r\n\
        Accept: application/sdp\r\nSupported: timer\r\n\
        User-Agent: CPM-serv/OMA2.2 volley/0.1.0\r\nContent-Length: 0\r\n\r\n";
    assert_bytes(&out, want.as_bytes());
}

// Proves: PUSH-0a
#[test]
fn the_fast_program_serves_tokens_and_gives_the_general_ones_bytes() {
    let templates = templates();
    let fields = invite_tokens();
    let is_usual = |f: &InviteFields<'_>| {
        let usual = templates
            .invite
            .usual(&invite_values(f), &invite_figures(f));
        usual.is_some()
    };
    assert!(is_usual(&fields), "production takes the fast program");
    let message = invite_all_ways(&templates, &fields);
    assert!(content_length_is_true(&message));
    assert!(!message.contains(&b'?'), "no filler is left");
    // Any field of another width takes the general program.
    type Edit = fn(&mut InviteFields<'static>);
    let edits: &[Edit] = &[
        |f| f.branch = b"x",
        |f| f.from_tag = b"bcdefghijklmnopqrstuvwxyz234567ab",
        |f| f.call_id = b"cdefghijklmnopqrstuvwxyz234567a",
        |f| f.icid = b"",
        |f| f.related_icid = b"x",
        |f| f.cseq = 10,
        |f| f.session_expires_s = None,
        |f| f.session_expires_s = Some(600),
        |f| f.session_expires_s = Some(100_000),
        |f| f.min_se = Some(90),
        |f| f.conversation_id = b"",
        |f| f.contribution_id = b"short",
        |f| f.sdp_session = u64::MAX,
        |f| f.sdp_session = 10_000_000_000_000_000,
        |f| f.sdp_version = 10,
        |f| f.sdp_version = u32::MAX,
        |f| f.msrp_session = b"0123456789",
        |f| f.extra_accept_contact = b"*;+sip.instance=\"<urn:x>\";require;explicit",
        |f| f.extra_headers = b"Referred-By: <sip:a@b>\r\nX: y\r\n",
    ];
    for edit in edits {
        let mut edited = fields;
        edit(&mut edited);
        assert!(!is_usual(&edited));
        assert!(content_length_is_true(&invite_all_ways(
            &templates, &edited
        )));
    }
}

#[test]
fn the_fast_program_writes_every_o_line_and_every_usual_length() {
    let templates = templates();
    let mut random = XorShift(11);
    let mut sessions: Vec<u64> = vec![0, 9, 10, 9_999_999_999_999_999];
    for digits in 0..16 {
        let power = 10_u64.pow(digits);
        let some = random.below(usize::try_from(power).unwrap() * 9) as u64;
        sessions.extend([power - 1, power, power + some]);
    }
    for session in sessions {
        let fields = InviteFields {
            sdp_session: session,
            sdp_version: u32::try_from(session % 10).unwrap(),
            ..invite_tokens()
        };
        let usual = templates
            .invite
            .usual(&invite_values(&fields), &invite_figures(&fields));
        assert!(usual.is_some(), "{session}");
        let message = invite_all_ways(&templates, &fields);
        assert!(content_length_is_true(&message));
        let line = format!("\r\no=- {session} {} IN", fields.sdp_version);
        assert!(memchr::memmem::find(&message, line.as_bytes()).is_some());
    }
    // A body whose length has two, three and four digits.
    for len in [0, 1, 9, 10, 99, 100, 101, 505, 998, 999, 1000] {
        let mut out = Vec::new();
        let fields = MessageFields {
            branch: b"abcdefghijklmnopqrstuvwxyz234567",
            from_tag: b"bcdefghijklmnopqrstuvwxyz234567a",
            call_id: b"cdefghijklmnopqrstuvwxyz234567ab",
            conversation_id: b"4f93f0fe-86d6-462c-9ba2-e4bc3d1cafcc",
            contribution_id: b"94d850fb-ed40-437e-9609-de9ea0e393d9",
            body: &vec![b'x'; len],
            ..MessageFields::default()
        };
        templates.message(&fields, &mut out);
        assert!(content_length_is_true(&out), "{len}");
    }
}

// Proves: PUSH-f, PUSH-f2, PUSH-i
#[test]
fn optional_headers_leave_no_trace_when_absent() {
    let fields = InviteFields {
        session_expires_s: None,
        conversation_id: b"",
        contribution_id: b"",
        ..invite_f1()
    };
    let text = text_of(&fields, |_| {});
    for absent in [
        "Session-Expires",
        "Min-SE",
        "Conversation-ID",
        "Contribution-ID",
    ] {
        assert!(!text.contains(absent), "{absent}");
    }
    assert!(text.contains("\r\nSupported: timer\r\nContent-Type: application/sdp\r\n"));
}

struct XorShift(u64);

impl XorShift {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "a line end or NUL")]
fn debug_builds_stop_on_a_line_end_in_a_value() {
    let fields = InviteFields {
        request_uri: b"sip:a@b SIP/2.0\r\nX: y",
        ..invite_f1()
    };
    templates().invite(&fields, &mut Vec::new());
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "lines for ExtraHeaders must be complete")]
fn debug_builds_stop_on_extra_headers_that_end_the_head() {
    let fields = InviteFields {
        extra_headers: b"X: y\r\n\r\n",
        ..invite_f1()
    };
    templates().invite(&fields, &mut Vec::new());
}

#[test]
fn numbers_are_written_as_the_standard_library_writes_them() {
    let mut random = XorShift(7);
    let mut values: Vec<u64> = vec![0, 9, 10, 99, 100, 101, 999, 1000, u64::MAX];
    values.extend((0..10_000).map(|round| (random.below(usize::MAX) as u64) >> (round % 64)));
    for value in values {
        assert_eq!(Text::number(value).as_bytes(), value.to_string().as_bytes());
    }
}
