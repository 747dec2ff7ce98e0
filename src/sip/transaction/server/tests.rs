use super::*;
use crate::sip::message::HeaderTable;
use crate::sip::parser::parse;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn table(bound: usize) -> ServerTable {
    let options = ServerOptions {
        transactions_max: bound,
        ..ServerOptions::default()
    };
    ServerTable::new(&options, MapKeys([1, 2, 3, 4]))
}

/// The parts of a request that tell transactions apart.
#[derive(Clone, Copy)]
struct Ask {
    method: &'static str,
    via: &'static str,
    from_tag: &'static str,
    to: &'static str,
    cseq: u32,
    uri: &'static str,
}

const NOTIFY: Ask = Ask {
    method: "NOTIFY",
    via: "SIP/2.0/UDP scscf.example:5060;branch=z9hG4bK-1",
    from_tag: "f1",
    to: "<sip:pf@example>",
    cseq: 7,
    uri: "sip:pf@example",
};

const INVITE: Ask = Ask {
    method: "INVITE",
    to: "<sip:pf@example>;tag=us",
    ..NOTIFY
};

impl Ask {
    fn bytes(&self) -> Vec<u8> {
        let Self {
            method,
            via,
            from_tag,
            to,
            cseq,
            uri,
        } = self;
        format!(
            "{method} {uri} SIP/2.0\r\nVia: {via}\r\nMax-Forwards: 70\r\n\
             From: <sip:a@example>;tag={from_tag}\r\nTo: {to}\r\nCall-ID: c1@example\r\n\
             CSeq: {cseq} {method}\r\nContact: <sip:a@example>\r\nContent-Length: 0\r\n\r\n"
        )
        .into_bytes()
    }
}

/// What the table said, with owned octets.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Ack(ServerKey),
    Cancel(ServerKey, Option<ServerKey>),
    Again(String),
    New(ServerKey),
    Other(&'static str),
}

fn ask(table: &mut ServerTable, now: Timestamp, ask: &Ask) -> Said {
    let bytes = ask.bytes();
    let mut headers = HeaderTable::new();
    let message = parse(&bytes, &mut headers).expect("a well-formed request");
    match table.lookup(now, &message) {
        Lookup::Ack(key) => Said::Ack(key),
        Lookup::Cancel { key, target } => Said::Cancel(key, target),
        Lookup::DialogAck => Said::Other("dialog ack"),
        Lookup::Full => Said::Other("full"),
        Lookup::Merged => Said::Other("merged"),
        Lookup::New(key) => Said::New(key),
        Lookup::Retransmission { response, .. } => {
            Said::Again(String::from_utf8(response.to_vec()).unwrap())
        }
        Lookup::Unusable => Said::Other("unusable"),
    }
}

fn new_key(table: &mut ServerTable, now: Timestamp, request: &Ask) -> ServerKey {
    let said = ask(table, now, request);
    let (Said::New(key) | Said::Cancel(key, _)) = said else {
        panic!("not new: {said:?}");
    };
    key
}

fn response(status: u16) -> String {
    format!("SIP/2.0 {status} Text\r\n\r\n")
}

fn answer(table: &mut ServerTable, now: Timestamp, key: ServerKey, status: u16) -> bool {
    table.store_response(now, key, response(status).as_bytes())
}

/// Every row is named by its maps and by the queue; the octets are counted.
fn check(table: &ServerTable) {
    assert_eq!(table.by_digest.len(), table.rows.len());
    let mut bytes = 0;
    let mut merges = 0;
    for key in table.rows.keys() {
        let row = table.rows.lookup(key).unwrap();
        assert_eq!(table.by_digest.get(&row.digest), Some(&key));
        if let Some(merge) = row.merge_digest {
            assert_eq!(table.by_merge.get(&merge), Some(&key));
            merges += 1;
        }
        assert!(
            table.expiry.contains(&(row.deadline, key)),
            "each wait has an end"
        );
        bytes += row.response.len();
    }
    assert_eq!(
        (table.by_merge.len(), table.response_bytes),
        (merges, bytes)
    );
}

// Proves: SX-1
#[test]
fn a_repeated_request_gets_the_same_octets_until_timer_j() {
    let mut table = table(8);
    let key = new_key(&mut table, at(0), &NOTIFY);
    assert_eq!(
        ask(&mut table, at(100), &NOTIFY),
        Said::Again(String::new()),
        "still working"
    );
    assert!(answer(&mut table, at(200), key, 200));
    for millis in [500, 1500, 3500, 32_199] {
        table.advance(at(millis));
        assert_eq!(
            ask(&mut table, at(millis), &NOTIFY),
            Said::Again(response(200))
        );
    }
    assert_eq!(
        table.deadline(),
        at(32_200),
        "the guard of the unanswered request is past"
    );
    table.advance(at(32_200));
    check(&table);
    assert!(table.is_empty());
    assert!(table.deadline().is_never());
    assert!(matches!(ask(&mut table, at(32_201), &NOTIFY), Said::New(_)));
}

// Proves: SX-1
#[test]
fn over_tcp_the_row_ends_with_the_final_response() {
    let mut table = table(8);
    let request = Ask {
        via: "SIP/2.0/TCP scscf.example;branch=z9hG4bK-1",
        ..NOTIFY
    };
    let key = new_key(&mut table, at(0), &request);
    assert!(answer(&mut table, at(1), key, 200));
    assert!(table.is_empty());
    check(&table);
    assert!(!answer(&mut table, at(2), key, 200), "the key is stale");
    assert!(table.is_answered(key));
}

// Proves: SX-2
#[test]
fn transactions_differ_by_branch_sent_by_and_method() {
    let same = [
        "SIP/2.0/UDP scscf.example:5060;branch=z9hG4bK-1",
        "SIP/2.0/UDP SCSCF.Example:5060;branch=z9hG4bK-1;rport",
    ];
    let others = [
        "SIP/2.0/UDP scscf.example:5061;branch=z9hG4bK-1",
        "SIP/2.0/UDP scscf2.example:5060;branch=z9hG4bK-1",
        "SIP/2.0/UDP scscf.example:5060;branch=z9hG4bK-2",
    ];
    let mut table = table(8);
    let request = Ask {
        to: "<sip:pf@example>;tag=us",
        ..NOTIFY
    };
    new_key(&mut table, at(0), &request);
    for via in same {
        assert!(matches!(
            ask(&mut table, at(1), &Ask { via, ..request }),
            Said::Again(_)
        ));
    }
    for via in others {
        assert!(
            matches!(
                ask(&mut table, at(1), &Ask { via, ..request }),
                Said::New(_)
            ),
            "{via}"
        );
    }
    let method = Ask {
        method: "MESSAGE",
        ..request
    };
    assert!(matches!(ask(&mut table, at(1), &method), Said::New(_)));
    check(&table);
}

// Proves: SX-2
#[test]
fn requests_without_the_cookie_are_matched_by_the_old_rules() {
    let old = Ask {
        via: "SIP/2.0/UDP old.example:5060;branch=1",
        to: "<sip:pf@example>;tag=us",
        ..NOTIFY
    };
    let mut table = table(16);
    new_key(&mut table, at(0), &old);
    assert!(matches!(ask(&mut table, at(1), &old), Said::Again(_)));
    for other in [
        Ask { cseq: 8, ..old },
        Ask {
            from_tag: "f2",
            ..old
        },
        Ask {
            uri: "sip:other@example",
            ..old
        },
        Ask {
            to: "<sip:pf@example>;tag=other",
            ..old
        },
        Ask {
            via: "SIP/2.0/UDP old.example:5060",
            ..old
        },
    ] {
        assert!(matches!(ask(&mut table, at(1), &other), Said::New(_)));
    }
    let invite = Ask {
        method: "INVITE",
        to: "<sip:pf@example>",
        cseq: 9,
        ..old
    };
    let key = new_key(&mut table, at(2), &invite);
    answer(&mut table, at(3), key, 486);
    let ack = Ask {
        method: "ACK",
        to: "<sip:pf@example>;tag=ours",
        ..invite
    };
    assert_eq!(ask(&mut table, at(4), &ack), Said::Ack(key));
}

// The machine of SX-4, not on the wire yet.
#[test]
fn an_ack_belongs_to_the_transaction_only_after_a_failure() {
    let ack = Ask {
        method: "ACK",
        ..INVITE
    };
    let mut table = table(8);
    assert_eq!(ask(&mut table, at(0), &ack), Said::Other("dialog ack"));
    let key = new_key(&mut table, at(0), &INVITE);
    assert!(table.is_invite(key));
    assert!(answer(&mut table, at(0), key, 100));
    assert_eq!(ask(&mut table, at(1), &INVITE), Said::Again(response(100)));
    assert_eq!(ask(&mut table, at(1), &ack), Said::Other("dialog ack"));
    assert!(answer(&mut table, at(2), key, 491));
    assert_eq!(ask(&mut table, at(3), &INVITE), Said::Again(response(491)));
    assert_eq!(ask(&mut table, at(4), &ack), Said::Ack(key));
    assert_eq!(
        ask(&mut table, at(5), &INVITE),
        Said::Again(String::new()),
        "confirmed"
    );
    assert_eq!(
        ask(&mut table, at(6), &ack),
        Said::Ack(key),
        "absorbed by the machine"
    );
}

// The machine of SX-4, not on the wire yet.
#[test]
fn a_repeated_invite_is_absorbed_after_a_2xx_also_over_tcp() {
    let mut table = table(8);
    let invite = Ask {
        via: "SIP/2.0/TCP ue.example;branch=z9hG4bK-9",
        ..INVITE
    };
    let key = new_key(&mut table, at(0), &invite);
    assert!(answer(&mut table, at(10), key, 200));
    assert_eq!(ask(&mut table, at(20), &invite), Said::Again(String::new()));
    let ack = Ask {
        method: "ACK",
        ..invite
    };
    assert_eq!(ask(&mut table, at(30), &ack), Said::Other("dialog ack"));
    table.advance(at(32_010));
    assert!(table.is_empty(), "timer L");
}

// Proves: SX-5
#[test]
fn a_cancel_names_what_it_cancels_or_nothing() {
    let mut table = table(8);
    let cancel = Ask {
        method: "CANCEL",
        ..INVITE
    };
    let Said::Cancel(key, None) = ask(&mut table, at(0), &cancel) else {
        panic!("nothing to cancel: 481");
    };
    answer(&mut table, at(0), key, 481);
    assert_eq!(ask(&mut table, at(1), &cancel), Said::Again(response(481)));
    let via = "SIP/2.0/UDP scscf.example:5060;branch=z9hG4bK-5";
    let invite = new_key(&mut table, at(2), &Ask { via, ..INVITE });
    let Said::Cancel(_, Some(target)) = ask(&mut table, at(3), &Ask { via, ..cancel }) else {
        panic!("the INVITE is pending");
    };
    assert_eq!(target, invite);
    assert!(!table.is_answered(target), "so it gets a 487");
    let via = "SIP/2.0/UDP scscf.example:5060;branch=z9hG4bK-6";
    let bye = new_key(
        &mut table,
        at(4),
        &Ask {
            method: "BYE",
            via,
            ..INVITE
        },
    );
    let Said::Cancel(_, Some(target)) = ask(&mut table, at(5), &Ask { via, ..cancel }) else {
        panic!("the BYE exists");
    };
    assert_eq!(target, bye);
    check(&table);
}

// Proves: SX-6
#[test]
fn an_unanswered_request_is_forgotten_without_an_answer() {
    let mut table = table(8);
    let key = new_key(&mut table, at(0), &NOTIFY);
    assert_eq!(table.deadline(), at(32_000));
    table.advance(at(31_999));
    assert!(!table.is_answered(key));
    table.advance(at(32_000));
    assert!(table.is_empty());
    assert!(
        !answer(&mut table, at(32_001), key, 200),
        "too late to matter"
    );
}

// Proves: SX-6
#[test]
#[should_panic(expected = "408 to non-INVITE")]
fn a_408_to_a_non_invite_is_our_error() {
    let mut table = table(8);
    let key = new_key(&mut table, at(0), &NOTIFY);
    answer(&mut table, at(1), key, 408);
}

// Proves: SX-6
#[test]
#[should_panic(expected = "provisional to non-INVITE")]
fn a_100_to_a_non_invite_is_our_error() {
    let mut table = table(8);
    let key = new_key(&mut table, at(0), &NOTIFY);
    answer(&mut table, at(1), key, 100);
}

// Proves: SX-7
#[test]
fn the_same_request_by_another_path_is_merged() {
    let mut table = table(8);
    let key = new_key(&mut table, at(0), &NOTIFY);
    let other_path = Ask {
        via: "SIP/2.0/UDP other.example:5060;branch=z9hG4bK-77",
        ..NOTIFY
    };
    assert_eq!(ask(&mut table, at(1), &other_path), Said::Other("merged"));
    answer(&mut table, at(2), key, 200);
    assert_eq!(ask(&mut table, at(3), &other_path), Said::Other("merged"));
    let next = Ask {
        cseq: 8,
        ..other_path
    };
    assert!(matches!(ask(&mut table, at(4), &next), Said::New(_)));
    table.advance(at(40_000));
    assert!(matches!(
        ask(&mut table, at(40_000), &other_path),
        Said::New(_)
    ));
    let in_dialog = Ask {
        to: "<sip:pf@example>;tag=us",
        cseq: 20,
        ..NOTIFY
    };
    let via = "SIP/2.0/UDP other.example:5060;branch=z9hG4bK-78";
    let via1 = "SIP/2.0/UDP other.example:5060;branch=z9hG4bK-79";
    assert!(matches!(
        ask(&mut table, at(40_001), &Ask { via, ..in_dialog }),
        Said::New(_)
    ));
    let twin = Ask {
        via: via1,
        ..in_dialog
    };
    assert!(
        matches!(ask(&mut table, at(40_001), &twin), Said::New(_)),
        "has a To tag"
    );
}

#[test]
fn a_full_table_refuses_new_requests_and_still_answers_old_ones() {
    let mut table = table(2);
    let vias = [
        "SIP/2.0/UDP a.example;branch=z9hG4bK-1",
        "SIP/2.0/UDP a.example;branch=z9hG4bK-2",
        "SIP/2.0/UDP a.example;branch=z9hG4bK-3",
    ];
    let requests = vias.map(|via| Ask { via, ..INVITE });
    let first = new_key(&mut table, at(0), &requests[0]);
    new_key(&mut table, at(0), &requests[1]);
    assert_eq!(ask(&mut table, at(1), &requests[2]), Said::Other("full"));
    answer(&mut table, at(1), first, 486);
    assert_eq!(
        ask(&mut table, at(2), &requests[0]),
        Said::Again(response(486))
    );
    assert!(table.forget(first));
    assert!(!table.forget(first));
    assert!(matches!(ask(&mut table, at(3), &requests[2]), Said::New(_)));
    check(&table);
}

// Proves: SX-1
#[test]
fn a_full_table_forgets_what_was_answered_longest_ago_once_nobody_asks_for_it_again() {
    let mut table = table(3);
    let vias = [
        "SIP/2.0/UDP a.example;branch=z9hG4bK-1",
        "SIP/2.0/UDP a.example;branch=z9hG4bK-2",
        "SIP/2.0/UDP a.example;branch=z9hG4bK-3",
        "SIP/2.0/UDP a.example;branch=z9hG4bK-4",
        "SIP/2.0/UDP a.example;branch=z9hG4bK-5",
    ];
    let mut cseq = 7;
    let [unanswered, first, second, third, fourth] = vias.map(|via| {
        cseq += 1;
        Ask {
            via,
            cseq,
            ..NOTIFY
        }
    });
    new_key(&mut table, at(0), &unanswered);
    for one in [&first, &second] {
        let key = new_key(&mut table, at(0), one);
        answer(&mut table, at(1000), key, 200);
    }
    // Twice T2 after the answer, not after the request.
    assert_eq!(ask(&mut table, at(8999), &third), Said::Other("full"));
    assert_eq!(
        ask(&mut table, at(8999), &first),
        Said::Again(response(200)),
        "nothing was forgotten in vain"
    );
    new_key(&mut table, at(9000), &third);
    assert_eq!(table.forgotten(), 1);
    check(&table);
    assert_eq!(
        ask(&mut table, at(9000), &second),
        Said::Again(response(200)),
        "one at a time, the oldest"
    );
    assert_eq!(
        ask(&mut table, at(9000), &unanswered),
        Said::Again(String::new()),
        "what has no answer yet is not forgotten"
    );
    let key = new_key(&mut table, at(9000), &fourth);
    answer(&mut table, at(9000), key, 200);
    // None of the three is both answered and old.
    assert_eq!(ask(&mut table, at(16_999), &first), Said::Other("full"));
    new_key(&mut table, at(17_000), &first);
    assert_eq!(table.forgotten(), 3);
    check(&table);
}

/// A row is settled after 8 s, and 10 s of requests fill the table: from then on each takes the place of another,
/// without a look at all of them each time.
#[test]
fn a_table_that_stays_full_is_not_swept_for_each_request() {
    const ROWS: usize = 1000;
    for wait_ms in [0, 3] {
        let mut table = table(ROWS);
        let mut sweeps = 0;
        for number in 0..4 * ROWS {
            let request = Ask {
                via: format!("SIP/2.0/UDP a.example;branch=z9hG4bK-{number}").leak(),
                cseq: u32::try_from(number).unwrap(),
                ..NOTIFY
            };
            sweeps += u32::from(table.expiry.len() + 2 > 2 * ROWS);
            let now = 10 * number as u64;
            let key = new_key(&mut table, at(now), &request);
            answer(&mut table, at(now + wait_ms), key, 200);
        }
        assert!(table.forgotten() > 2 * ROWS as u64);
        assert!(sweeps < 20, "{sweeps} for {wait_ms} ms");
        check(&table);
    }
}

#[test]
fn kept_responses_have_a_bound_in_octets() {
    let options = ServerOptions {
        response_bytes_max: 30,
        ..ServerOptions::default()
    };
    let mut table = ServerTable::new(&options, MapKeys([5; 4]));
    let first = new_key(&mut table, at(0), &NOTIFY);
    answer(&mut table, at(0), first, 200);
    let other = Ask {
        cseq: 8,
        via: "SIP/2.0/UDP scscf.example:5060;branch=z9hG4bK-2",
        ..NOTIFY
    };
    let second = new_key(&mut table, at(0), &other);
    assert!(answer(&mut table, at(0), second, 200));
    assert_eq!(ask(&mut table, at(1), &NOTIFY), Said::Again(response(200)));
    assert_eq!(
        ask(&mut table, at(1), &other),
        Said::Again(String::new()),
        "absorbed"
    );
    check(&table);
}

#[test]
fn buffers_come_back_and_the_queue_stays_bounded() {
    let mut table = table(4);
    let mut now = 0;
    for round in 0_u32..1000 {
        let cseq = 100 + round;
        let via = [
            "SIP/2.0/UDP a.example;branch=z9hG4bK-1",
            "SIP/2.0/TCP b.example;branch=z9hG4bK-2",
            "SIP/2.0/UDP a.example;branch=z9hG4bK-3",
        ][round as usize % 3];
        let request = Ask {
            cseq,
            via,
            ..NOTIFY
        };
        if let Said::New(key) = ask(&mut table, at(now), &request) {
            answer(&mut table, at(now), key, 200);
        }
        now += 1000;
        if round % 50 == 0 {
            table.advance(at(now));
        }
        check(&table);
        assert!(table.expiry.len() <= 8, "twice the rows");
        assert!(table.pool.len() <= 4);
    }
    assert!(table.rows.len() + table.pool.len() <= 4);
}
