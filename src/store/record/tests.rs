use super::*;

fn sample() -> Deposit<'static> {
    Deposit {
        user: b"+4930123",
        identity: b"tel:+4930123",
        number: 0x0102_0304_0506_0708,
        received: UnixMillis(1_700_000_000_000),
        expires: UnixMillis(1_700_000_060_000),
        flags: DepositFlags::IMDN_NEGATIVE.with(DepositFlags::LARGE_MODE),
        sender: b"sip:a@x",
        imdn_message_id: b"m1",
        conversation_id: b"cv",
        contribution_id: b"ct",
        in_reply_to: b"",
        related_icid: b"",
        lines: b"",
        target_instance: 0xAA,
        content_type: b"text/plain",
        cpim: b"From: <sip:a@x>\r\n\r\nhello",
    }
}

const PART: Part<'static> = Part {
    number: 9,
    index: 2,
    bytes: b"octets",
};

const KINDS: [MarkKind; 9] = [
    MarkKind::Delivered {
        device: 7,
        by: Evidence::HopAck,
    },
    MarkKind::Delivered {
        device: 0,
        by: Evidence::Imdn,
    },
    MarkKind::Delivered {
        device: u64::MAX,
        by: Evidence::Report,
    },
    MarkKind::Refused {
        device: 1,
        status: 413,
    },
    MarkKind::Refused {
        device: 1,
        status: 0,
    },
    MarkKind::Removed {
        reason: RemovalReason::Delivered,
    },
    MarkKind::Removed {
        reason: RemovalReason::Expired,
    },
    MarkKind::Removed {
        reason: RemovalReason::Purged,
    },
    MarkKind::Removed {
        reason: RemovalReason::Rejected,
    },
];

fn mark(kind: MarkKind) -> Mark<'static> {
    Mark {
        user: b"+4930123",
        number: 258,
        at: UnixMillis(5),
        kind,
    }
}

#[test]
fn deposit_has_golden_bytes() {
    let mut out = vec![0xEE];
    encode_deposit(&sample(), &mut out).unwrap();
    let mut want = vec![0xEE, 1, 1, 9, 0, 8, 7, 6, 5, 4, 3, 2, 1];
    want.extend_from_slice(&[0x00, 0x68, 0xe5, 0xcf, 0x8b, 0x01, 0, 0]);
    want.extend_from_slice(&[0x60, 0x52, 0xe6, 0xcf, 0x8b, 0x01, 0, 0]);
    want.extend_from_slice(&[0xAA, 0, 0, 0, 0, 0, 0, 0]);
    want.extend_from_slice(b"\x08\x00+4930123\x0c\x00tel:+4930123\x07\x00sip:a@x\x02\x00m1");
    want.extend_from_slice(b"\x02\x00cv\x02\x00ct\x00\x00\x0a\x00text/plain");
    want.extend_from_slice(b"\x18\x00\x00\x00From: <sip:a@x>\r\n\r\nhello");
    assert_eq!(
        out, want,
        "a change of these bytes needs a new record version"
    );
    assert_eq!(decode(&out[1..]), Ok(Record::Deposit(sample())));
}

#[test]
fn marks_have_golden_bytes_and_survive_a_round_trip() {
    let mut out = Vec::new();
    encode_mark(
        &mark(MarkKind::Refused {
            device: 7,
            status: 413,
        }),
        &mut out,
    )
    .unwrap();
    let want = b"\x01\x02\x02\x00\x9d\x01\x02\x01\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\
        \x08\0+4930123";
    assert_eq!(
        out, want,
        "a change of these bytes needs a new record version"
    );
    for kind in KINDS {
        out.clear();
        encode_mark(&mark(kind), &mut out).unwrap();
        assert_eq!(decode(&out), Ok(Record::Mark(mark(kind))));
    }
}

#[test]
fn refuses_to_write_what_it_could_not_read() {
    let long = vec![b'x'; FIELD_BYTES_MAX + 1];
    let body = vec![b'x'; BODY_BYTES_MAX + 1];
    let table = [
        (
            Deposit {
                user: b"",
                ..sample()
            },
            RecordErrorKind::Empty,
        ),
        (
            Deposit {
                identity: b"",
                ..sample()
            },
            RecordErrorKind::Empty,
        ),
        (
            Deposit {
                content_type: &long,
                ..sample()
            },
            RecordErrorKind::TooLong,
        ),
        (
            Deposit {
                cpim: &body,
                ..sample()
            },
            RecordErrorKind::TooLong,
        ),
    ];
    let mut out = vec![1, 2, 3];
    for (deposit, kind) in table {
        assert_eq!(encode_deposit(&deposit, &mut out).unwrap_err().kind, kind);
        assert_eq!(out, [1, 2, 3], "nothing is left behind");
    }
    let nobody = Mark {
        user: b"",
        ..mark(KINDS[0])
    };
    assert_eq!(
        encode_mark(&nobody, &mut out).unwrap_err().kind,
        RecordErrorKind::Empty
    );
    assert_eq!(out, [1, 2, 3]);
}

#[test]
fn the_longest_record_fits_its_bound() {
    let field = vec![b'x'; FIELD_BYTES_MAX];
    let body = vec![b'x'; BODY_BYTES_MAX];
    let deposit = Deposit {
        user: &field,
        identity: &field,
        sender: &field,
        imdn_message_id: &field,
        conversation_id: &field,
        contribution_id: &field,
        in_reply_to: &field,
        related_icid: &field,
        lines: &field,
        flags: DepositFlags::RARE_FIELDS,
        content_type: &field,
        cpim: &body,
        ..sample()
    };
    let mut out = Vec::new();
    encode_deposit(&deposit, &mut out).unwrap();
    assert_eq!(out.len(), RECORD_BYTES_MAX);
    assert_eq!(decode(&out), Ok(Record::Deposit(deposit)));
}

#[test]
fn few_deposits_have_fields_more_and_the_others_pay_nothing_for_them() {
    let (mut plain, mut rare) = (Vec::new(), Vec::new());
    let odd = Deposit {
        related_icid: b"icid",
        lines: b"X: y\r\n",
        ..sample()
    };
    encode_deposit(&sample(), &mut plain).unwrap();
    let mut unflagged = Vec::new();
    encode_deposit(&odd, &mut unflagged).unwrap();
    assert_eq!(plain, unflagged, "the flag decides");
    let odd = Deposit {
        flags: odd.flags.with(DepositFlags::RARE_FIELDS),
        ..odd
    };
    encode_deposit(&odd, &mut rare).unwrap();
    assert_eq!(rare.len(), plain.len() + 2 + 4 + 2 + 6);
    assert_eq!(decode(&rare), Ok(Record::Deposit(odd)));
    for payload in [&plain, &rare] {
        assert_eq!(content_of(payload), Some((odd.content_type, odd.cpim)));
    }
}

#[test]
fn every_cut_and_every_extra_octet_is_refused() {
    let mut deposit = Vec::new();
    encode_deposit(&sample(), &mut deposit).unwrap();
    let mut rare = Vec::new();
    let flags = DepositFlags::RARE_FIELDS;
    encode_deposit(&Deposit { flags, ..sample() }, &mut rare).unwrap();
    let mut small = Vec::new();
    encode_mark(&mark(KINDS[0]), &mut small).unwrap();
    let mut part = Vec::new();
    encode_part(&PART, &mut part);
    assert_eq!(decode(&part), Ok(Record::Part(PART)));
    assert_eq!(part_bytes(&part), Some(PART.bytes));
    assert_eq!(part_bytes(&deposit), None);
    for bytes in [&mut deposit, &mut rare, &mut small, &mut part] {
        for cut in 0..bytes.len() {
            let error = decode(&bytes[..cut]).unwrap_err();
            assert_eq!(error.kind, RecordErrorKind::Truncated, "cut at {cut}");
        }
        bytes.push(0);
        assert_eq!(decode(bytes).unwrap_err().kind, RecordErrorKind::Trailing);
        bytes.pop();
        bytes[0] = RECORD_VERSION + 1;
        assert_eq!(
            decode(bytes).unwrap_err().kind,
            RecordErrorKind::UnknownVersion
        );
    }
}

struct Xorshift(u64);

impl Xorshift {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}

#[test]
fn mutated_payloads_never_panic_and_what_decodes_encodes_to_the_same_bytes() {
    let mut random = Xorshift(0x5eed);
    let mut seeds = vec![Vec::new()];
    encode_deposit(&sample(), &mut seeds[0]).unwrap();
    for kind in KINDS {
        let mut out = Vec::new();
        encode_mark(&mark(kind), &mut out).unwrap();
        seeds.push(out);
    }
    let (mut accepted, mut again) = (0, Vec::new());
    for _ in 0..20_000 {
        let pick = random.below(seeds.len());
        let mut bytes = seeds[pick].clone();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes[at] = [0, 1, 0x7f, 0xff][random.below(4)],
                2 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, bytes[at / 2]),
            }
        }
        if let Ok(record) = decode(&bytes) {
            accepted += 1;
            again.clear();
            match record {
                Record::Deposit(deposit) => encode_deposit(&deposit, &mut again).unwrap(),
                Record::Mark(mark) => encode_mark(&mark, &mut again).unwrap(),
                Record::Part(part) => encode_part(&part, &mut again),
            }
            assert_eq!(again, bytes, "one meaning, one encoding");
        }
    }
    assert!(
        accepted > 1000,
        "the mutations must reach past the header: {accepted}"
    );
}
