#![expect(
    clippy::cast_possible_truncation,
    reason = "small numbers of the tests"
)]

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::store::checkpoint::{self, Item, SavedEntry};

struct Xorshift(u64);

impl Xorshift {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn new(number: u64) -> NewEntry {
    NewEntry {
        number,
        dedupe: 1000 + number,
        expires_s: 100,
        bytes: 10,
        ..NewEntry::default()
    }
}

fn at(segment: u32, offset: u32) -> Location {
    Location {
        segment,
        offset,
        len: 1,
    }
}

fn filled(count: u64) -> Mailbox {
    let mut mailbox = Mailbox::default();
    for number in 1..=count {
        assert_eq!(
            mailbox.admit(&Quota::default(), 0, &new(number)),
            Admission::Accepted
        );
        assert!(mailbox.stored(number, at(1, number as u32)));
    }
    mailbox
}

fn numbers(mailbox: &Mailbox, device: u64) -> Vec<u64> {
    mailbox.pending(device, 0).map(Entry::number).collect()
}

// Proves: INT-9
#[test]
fn a_full_mailbox_refuses_by_count_and_by_bytes_until_there_is_room() {
    let quota = Quota {
        messages_max: 2,
        bytes_max: 25,
    };
    let mut mailbox = Mailbox::default();
    assert_eq!(mailbox.admit(&quota, 0, &new(1)), Admission::Accepted);
    let big = NewEntry {
        bytes: 16,
        ..new(2)
    };
    assert_eq!(
        mailbox.admit(&quota, 0, &big),
        Admission::Full,
        "in flight counts"
    );
    assert_eq!(
        mailbox.admit(&quota, 0, &NewEntry { bytes: 15, ..big }),
        Admission::Accepted
    );
    let empty = NewEntry { bytes: 0, ..new(3) };
    assert_eq!(
        mailbox.admit(&quota, 0, &empty),
        Admission::Full,
        "by count"
    );
    assert!(mailbox.cancel(1), "its deposit failed");
    assert_eq!((mailbox.len(), mailbox.bytes()), (1, 15));
    assert_eq!(mailbox.admit(&quota, 0, &new(3)), Admission::Accepted);
}

// Proves: INT-4
#[test]
fn a_repeat_is_recognised_in_flight_stored_and_after_it_left_until_its_life_ends() {
    let (mut mailbox, quota) = (Mailbox::default(), Quota::default());
    let repeat = |number| NewEntry {
        dedupe: 5,
        ..new(number)
    };
    assert_eq!(mailbox.admit(&quota, 0, &repeat(1)), Admission::Accepted);
    let known = |durable| Admission::Repeat { number: 1, durable };
    assert_eq!(mailbox.admit(&quota, 0, &repeat(2)), known(false));
    mailbox.stored(1, at(1, 1));
    assert_eq!(mailbox.admit(&quota, 0, &repeat(2)), known(true));
    mailbox.remove(1).unwrap();
    assert_eq!(
        mailbox.admit(&quota, 99, &repeat(2)),
        Admission::RepeatOfRemoved
    );
    assert_eq!(
        mailbox.admit(&quota, 100, &repeat(2)),
        Admission::Accepted,
        "its life is over"
    );
    let nameless = |number| NewEntry {
        dedupe: 0,
        ..new(number)
    };
    assert_eq!(mailbox.admit(&quota, 0, &nameless(3)), Admission::Accepted);
    assert_eq!(mailbox.admit(&quota, 0, &nameless(4)), Admission::Accepted);
}

// Proves: LIFE-4, DLV-1
#[test]
fn order_is_oldest_first_and_a_refusal_holds_up_nothing() {
    let mut mailbox = filled(5);
    assert_eq!(mailbox.mark(2, 7, Fate::Refused), Marked::Recorded);
    assert_eq!(numbers(&mailbox, 7), [1, 3, 4, 5]);
    assert_eq!(
        numbers(&mailbox, 8),
        [1, 2, 3, 4, 5],
        "another device still wants it"
    );
    assert_eq!(mailbox.next_pending(7, 1, 0).unwrap().number(), 3);
    assert_eq!(mailbox.mark(2, 7, Fate::Refused), Marked::Repeated);
    assert_eq!(
        mailbox.mark(2, 7, Fate::Delivered),
        Marked::Recorded,
        "delivered outweighs"
    );
    assert_eq!(mailbox.mark(2, 7, Fate::Refused), Marked::Repeated);
    assert_eq!(mailbox.mark(9, 7, Fate::Delivered), Marked::Unknown);
}

#[test]
fn what_is_in_flight_is_not_pending_and_comes_in_order_once_stored() {
    let (mut mailbox, quota) = (Mailbox::default(), Quota::default());
    for number in [1, 2] {
        assert_eq!(mailbox.admit(&quota, 0, &new(number)), Admission::Accepted);
    }
    assert!(numbers(&mailbox, 7).is_empty());
    mailbox.stored(2, at(1, 2));
    mailbox.stored(1, at(1, 1));
    assert_eq!(numbers(&mailbox, 7), [1, 2]);
    assert!(!mailbox.stored(3, at(1, 3)));
}

// Proves: LIFE-2, LIFE-3
#[test]
fn an_expired_message_is_not_pending_and_comes_out_once() {
    let mut mailbox = filled(2);
    let late = NewEntry {
        expires_s: 200,
        ..new(3)
    };
    assert_eq!(
        mailbox.admit(&Quota::default(), 0, &late),
        Admission::Accepted
    );
    mailbox.stored(3, at(1, 3));
    assert_eq!(mailbox.next_expiry_s(), Some(100));
    assert!(mailbox.poll_expired(99).is_none());
    assert_eq!(mailbox.next_expiry_s(), Some(100));
    assert_eq!(mailbox.next_pending(7, 0, 100).unwrap().number(), 3);
    assert_eq!(mailbox.poll_expired(100).unwrap().number(), 1);
    assert_eq!(mailbox.poll_expired(100).unwrap().number(), 2);
    assert!(mailbox.poll_expired(100).is_none());
    assert_eq!((mailbox.len(), mailbox.next_expiry_s()), (1, Some(200)));
}

#[test]
fn a_queue_is_looked_at_when_a_life_ends_and_not_before() {
    let mut mailbox = Mailbox::default();
    assert_eq!(mailbox.next_expiry_s(), None);
    mailbox.admit(&Quota::default(), 0, &new(1));
    assert_eq!(mailbox.next_expiry_s(), None, "not durable");
    mailbox.stored(1, at(1, 1));
    assert_eq!(mailbox.next_expiry_s(), Some(100), "of the first message");
    mailbox.remove(1).unwrap();
    assert_eq!(mailbox.next_expiry_s(), None, "the last one left");
    let late = NewEntry {
        expires_s: 300,
        ..new(2)
    };
    mailbox.admit(&Quota::default(), 0, &late);
    mailbox.stored(2, at(1, 2));
    assert_eq!(mailbox.next_expiry_s(), Some(300), "and its time with it");
    let mut gone = Vec::new();
    mailbox.forget_absent(&[], &mut gone);
    assert_eq!((gone, mailbox.next_expiry_s()), (vec![2], None));
}

// Proves: DLV-3, AMB-1
#[test]
fn a_message_leaves_by_goal() {
    // Fates of devices 1 and 2 (D delivered, R refused, - nothing), selected, any, each-selected.
    let table: &[(&str, &[u64], bool, bool)] = &[
        ("--", &[1, 2], false, false),
        ("D-", &[1, 2], true, false),
        ("DD", &[1, 2], true, true),
        ("DR", &[1, 2], true, true),
        ("RR", &[1, 2], false, false),
        ("R-", &[1], false, false),
        ("D-", &[1], true, true),
        ("D-", &[], true, true),
        ("-D", &[1], true, false),
        ("--", &[], false, false),
    ];
    for &(fates, selected, any, each) in table {
        let mut mailbox = filled(1);
        for (device, fate) in (1..).zip(fates.chars()) {
            match fate {
                'D' => assert_eq!(mailbox.mark(1, device, Fate::Delivered), Marked::Recorded),
                'R' => assert_eq!(mailbox.mark(1, device, Fate::Refused), Marked::Recorded),
                _ => {}
            }
        }
        assert_eq!(
            mailbox.is_settled(1, Goal::Any, selected),
            any,
            "{fates} {selected:?}"
        );
        assert_eq!(
            mailbox.is_settled(1, Goal::EachSelected, selected),
            each,
            "{fates}"
        );
    }
}

#[test]
fn a_targeted_message_is_pending_for_its_device_only() {
    let mut mailbox = filled(1);
    let only = NewEntry {
        target: 7,
        ..new(2)
    };
    assert_eq!(
        mailbox.admit(&Quota::default(), 0, &only),
        Admission::Accepted
    );
    mailbox.stored(2, at(1, 2));
    assert_eq!(numbers(&mailbox, 7), [1, 2]);
    assert_eq!(numbers(&mailbox, 8), [1]);
    mailbox.mark(2, 7, Fate::Delivered);
    assert!(
        mailbox.is_settled(2, Goal::EachSelected, &[7, 8]),
        "8 does not wait for it"
    );
}

#[test]
fn device_slots_are_bounded_and_reused_without_a_loss() {
    let mut mailbox = filled(2);
    for device in 1..=MAILBOX_DEVICES_MAX as u64 {
        assert_eq!(mailbox.mark(1, device, Fate::Delivered), Marked::Recorded);
    }
    assert!(!mailbox.has_place(100, 0), "nobody's slot is taken away");
    assert!(mailbox.has_place(1, 0) && mailbox.names(32));
    assert!(
        mailbox.is_settled(1, Goal::EachSelected, &[1, 100]),
        "nor does a message wait for who finds no place"
    );
    let only = NewEntry {
        target: 100,
        ..new(3)
    };
    let admitted = mailbox.admit(&Quota::default(), 0, &only);
    assert_eq!(admitted, Admission::Full);
    // Records of an earlier version may say so all the same.
    assert_eq!(
        mailbox.mark(1, 100, Fate::Delivered),
        Marked::Recorded,
        "the first slot is reused"
    );
    assert_eq!(numbers(&mailbox, 100), [2]);
    assert_eq!(numbers(&mailbox, 1), [1, 2], "at most a repeat");
    mailbox.remove(1).unwrap();
    assert_eq!(mailbox.places(), MAILBOX_DEVICES_MAX);
    assert!(mailbox.has_place(101, 31) && !mailbox.has_place(101, 32));
    for device in 0..u64::from(MAILBOX_TARGETS_MAX) {
        let only = NewEntry {
            target: 200 + device,
            ..new(10 + device)
        };
        assert_eq!(
            mailbox.admit(&Quota::default(), 0, &only),
            Admission::Accepted
        );
    }
    let one_more = NewEntry {
        target: 300,
        ..new(50)
    };
    assert_eq!(
        mailbox.admit(&Quota::default(), 0, &one_more),
        Admission::Full
    );
    for device in 400..500 {
        assert_eq!(
            mailbox.mark(2, device, Fate::Delivered),
            Marked::Recorded,
            "a device that took a message finds a slot"
        );
    }
    assert!(
        mailbox.restore(&one_more, at(1, 1)),
        "recovery keeps what was accepted"
    );
    assert!(!mailbox.restore(&one_more, at(1, 1)), "but not twice");
    assert_eq!(
        numbers(&mailbox, 499).last(),
        Some(&50),
        "for every device rather than for none"
    );
}

#[test]
fn a_saved_queue_with_too_many_targets_gives_the_last_ones_to_everybody() {
    let mut piece = Vec::new();
    checkpoint::put_user(b"+1", b"sip:a@b", &mut piece);
    let devices: Vec<u64> = (0..32).map(|slot| 200 + slot).collect();
    checkpoint::put_devices(&devices, &mut piece);
    checkpoint::put_recent([].into_iter(), &mut piece);
    checkpoint::put_count(32, &mut piece);
    for slot in 0..32_u8 {
        let entry = SavedEntry {
            number: 1 + u64::from(slot),
            dedupe: 0,
            location: at(1, u32::from(slot)),
            expires_s: 1000,
            bytes: 1,
            delivered: 0,
            refused: 0,
            target: 1 + slot,
            hints: Hints::default(),
            flags: DepositFlags::empty(),
        };
        checkpoint::put_entry(&entry, &mut piece);
    }
    let mut items = checkpoint::items(&piece);
    let Some(Ok(Item::User(saved))) = items.next() else {
        panic!("a user was saved");
    };
    let mut mailbox = Mailbox::default();
    mailbox.load(&saved, |_, _| {});
    assert_eq!(mailbox.len(), 32);
    assert_eq!(numbers(&mailbox, 200)[..2], [1, 9]);
    let last = u64::from(MAILBOX_TARGETS_MAX) + 1;
    assert_eq!(numbers(&mailbox, 999), (last..=32).collect::<Vec<_>>());
    assert_eq!(mailbox.mark(32, 999, Fate::Delivered), Marked::Recorded);
}

#[test]
fn what_is_put_off_waits_for_its_device_and_nothing_that_is_kept_says_so() {
    let mut mailbox = filled(2);
    mailbox.mark(2, 8, Fate::Delivered);
    let saved = |mailbox: &Mailbox| {
        let mut piece = Vec::new();
        mailbox.save(b"+1", b"sip:a@b", &mut piece);
        piece
    };
    mailbox.mark(2, 7, Fate::Refused);
    let before = saved(&mailbox);
    mailbox.put_off(1, 7);
    mailbox.put_off(9, 7);
    assert_eq!(numbers(&mailbox, 7), [] as [u64; 0]);
    assert_eq!(numbers(&mailbox, 8), [1], "another device gets it");
    assert_eq!(mailbox.next_pending(7, 0, 0), None);
    assert_eq!(mailbox.next_fitting(7, 0, 0, MediaLimit::NONE), None);
    assert_eq!(mailbox.fates(1).count(), 0);
    assert_eq!(saved(&mailbox), before);
    mailbox.mark(1, 8, Fate::Delivered);
    let settled = |devices: &[u64]| mailbox.is_settled(1, Goal::EachSelected, devices);
    assert!(settled(&[8]) && !settled(&[7, 8]));
    // It is forgotten with the message.
    mailbox.remove(1).unwrap();
    let again = NewEntry {
        dedupe: 0,
        ..new(1)
    };
    assert!(mailbox.restore(&again, at(1, 1)));
    assert_eq!(numbers(&mailbox, 7), [1]);
}

#[test]
fn reset_leaves_nothing_of_the_user_before() {
    let mut mailbox = filled(3);
    mailbox.mark(1, 7, Fate::Delivered);
    mailbox.remove(2).unwrap();
    mailbox.reset();
    assert!(mailbox.is_empty());
    assert_eq!((mailbox.bytes(), mailbox.next_expiry_s()), (0, None));
    assert_eq!(
        mailbox.admit(&Quota::default(), 0, &new(2)),
        Admission::Accepted,
        "no repeat"
    );
    mailbox.stored(2, at(1, 1));
    assert_eq!(numbers(&mailbox, 7), [2]);
}

#[test]
fn a_warm_mailbox_keeps_its_buffers() {
    let mut mailbox = filled(8);
    for number in 1..=8 {
        mailbox.mark(number, 7, Fate::Delivered);
        mailbox.remove(number).unwrap();
    }
    for number in 100..100 + RECENT_MAX as u64 {
        assert_eq!(
            mailbox.admit(&Quota::default(), 0, &new(number)),
            Admission::Accepted
        );
        mailbox.remove(number).unwrap();
    }
    let extra = |mailbox: &Mailbox| {
        let extra = mailbox.extra.as_ref().unwrap();
        (extra.recent.capacity(), extra.devices.capacity())
    };
    let warm = (mailbox.entries.capacity(), extra(&mailbox));
    for round in 0..1000u64 {
        mailbox.reset();
        for number in 1..=8 {
            let entry = NewEntry {
                dedupe: round * 100 + number,
                ..new(number)
            };
            assert_eq!(
                mailbox.admit(&Quota::default(), 0, &entry),
                Admission::Accepted
            );
            mailbox.stored(number, at(1, 1));
            mailbox.mark(number, 7, Fate::Delivered);
            mailbox.remove(number).unwrap();
        }
    }
    assert_eq!((mailbox.entries.capacity(), extra(&mailbox)), warm);
}

/// The simplest thing that could be right; four devices, so that no slot is ever reused.
#[derive(Default)]
struct Model {
    messages: BTreeMap<u64, (NewEntry, bool)>,
    decided: BTreeSet<(u64, u64)>,
    delivered: BTreeSet<u64>,
    removed: Vec<NewEntry>,
}

impl Model {
    fn admit(&self, quota: &Quota, now_s: u32, new: &NewEntry) -> Admission {
        let same = |other: &NewEntry| other.dedupe != 0 && other.dedupe == new.dedupe;
        if let Some((entry, durable)) = self.messages.values().find(|(entry, _)| same(entry)) {
            return Admission::Repeat {
                number: entry.number,
                durable: *durable,
            };
        }
        let mut recent = self.removed.iter().rev().take(RECENT_MAX);
        if recent.any(|gone| same(gone) && now_s < gone.expires_s) {
            return Admission::RepeatOfRemoved;
        }
        let bytes: u64 = self
            .messages
            .values()
            .map(|(entry, _)| u64::from(entry.bytes))
            .sum();
        let full = self.messages.len() >= quota.messages_max as usize
            || bytes + u64::from(new.bytes) > quota.bytes_max;
        if full {
            Admission::Full
        } else {
            Admission::Accepted
        }
    }

    fn pending(&self, device: u64, now_s: u32) -> Vec<u64> {
        let wanted = |(number, (entry, durable)): (&u64, &(NewEntry, bool))| {
            let wants = *durable
                && now_s < entry.expires_s
                && (entry.target == 0 || entry.target == device)
                && !self.decided.contains(&(*number, device));
            wants.then_some(*number)
        };
        self.messages.iter().filter_map(wanted).collect()
    }

    fn remove(&mut self, number: u64) -> Option<NewEntry> {
        let (entry, _) = self.messages.remove(&number)?;
        if entry.dedupe != 0 {
            self.removed.push(entry);
        }
        Some(entry)
    }
}

// Proves: LIFE-3, LIFE-4, INT-4, INT-9
#[test]
fn agrees_with_a_naive_model_over_random_work() {
    let mut random = Xorshift(0x2545_f491);
    let quota = Quota {
        messages_max: 24,
        bytes_max: 400,
    };
    let mut seen = [0u32; 8];
    for _round in 0..60 {
        let (mut mailbox, mut model) = (Mailbox::default(), Model::default());
        let (mut number, mut now_s) = (0, 1000);
        for _step in 0..400 {
            let pick = 1 + random.below(number + 1);
            let device = 1 + random.below(4);
            match random.below(10) {
                0..=3 => {
                    number += 1;
                    let entry = NewEntry {
                        number,
                        dedupe: random.below(30),
                        expires_s: now_s + random.below(60) as u32,
                        bytes: random.below(40) as u32,
                        target: if random.below(5) == 0 { device } else { 0 },
                        pushes: 0,
                        flags: DepositFlags::empty(),
                        hints: Hints::default(),
                    };
                    let want = model.admit(&quota, now_s, &entry);
                    assert_eq!(mailbox.admit(&quota, now_s, &entry), want);
                    match want {
                        Admission::Accepted => {
                            model.messages.insert(number, (entry, false));
                            seen[0] += 1;
                        }
                        Admission::Full => seen[1] += 1,
                        Admission::Repeat { .. } => seen[2] += 1,
                        Admission::RepeatOfRemoved => seen[3] += 1,
                    }
                }
                4 | 5 => {
                    let known = model.messages.get_mut(&pick);
                    assert_eq!(mailbox.stored(pick, at(1, pick as u32)), known.is_some());
                    if let Some((_, durable)) = known {
                        *durable = true;
                    }
                }
                6 => {
                    let fate = if device < 3 {
                        Fate::Delivered
                    } else {
                        Fate::Refused
                    };
                    let want = if !model.messages.contains_key(&pick) {
                        Marked::Unknown
                    } else if model.decided.insert((pick, device)) {
                        Marked::Recorded
                    } else {
                        Marked::Repeated
                    };
                    if fate == Fate::Delivered && want != Marked::Unknown {
                        model.delivered.insert(pick);
                    }
                    assert_eq!(mailbox.mark(pick, device, fate), want);
                    seen[4] += u32::from(want == Marked::Recorded);
                }
                7 => {
                    let gone = mailbox.remove(pick).map(|entry| entry.number());
                    assert_eq!(gone, model.remove(pick).map(|entry| entry.number));
                    seen[5] += u32::from(gone.is_some());
                }
                8 => {
                    now_s += random.below(15) as u32;
                    let due =
                        |(entry, durable): &&(NewEntry, bool)| *durable && entry.expires_s <= now_s;
                    while let Some((entry, _)) = model.messages.values().find(due) {
                        let want = entry.number;
                        assert!(mailbox.next_expiry_s().unwrap() <= now_s, "never late");
                        assert_eq!(mailbox.poll_expired(now_s).unwrap().number(), want);
                        model.remove(want);
                        seen[6] += 1;
                    }
                    assert!(mailbox.poll_expired(now_s).is_none());
                }
                _ => {
                    let want =
                        model.messages.contains_key(&pick) && model.delivered.contains(&pick);
                    assert_eq!(mailbox.is_settled(pick, Goal::Any, &[]), want);
                    seen[7] += u32::from(want);
                }
            }
            assert_eq!(mailbox.len(), model.messages.len());
            let pending: Vec<u64> = mailbox.pending(device, now_s).map(Entry::number).collect();
            assert_eq!(pending, model.pending(device, now_s));
            let walked = walk(&mailbox, device, now_s);
            assert_eq!(walked, pending, "one at a time gives the same");
        }
    }
    assert!(
        seen.iter().all(|&count| count > 50),
        "every outcome is reached: {seen:?}"
    );
}

/// What is pending, asked for one by one.
fn walk(mailbox: &Mailbox, device: u64, now_s: u32) -> Vec<u64> {
    let (mut after, mut walked) = (0, Vec::new());
    while let Some(entry) = mailbox.next_pending(device, after, now_s) {
        after = entry.number();
        walked.push(after);
    }
    walked
}

#[derive(Clone, Copy)]
enum Logged {
    Deposit(u64),
    Mark { number: u64, removed: bool },
}

/// Replays what is left of a journal into a fresh table; returns the live messages.
fn replay(journal: &BTreeMap<(u32, u32), Logged>) -> (BTreeMap<u64, Location>, SegmentTable) {
    let (mut live, mut table) = (BTreeMap::new(), SegmentTable::default());
    for (&(segment, offset), &record) in journal {
        let place = at(segment, offset);
        match record {
            Logged::Deposit(number) => {
                live.insert(number, place);
                table.deposit(place);
            }
            Logged::Mark { number, removed } => {
                table.mark(place, live.get(&number).copied());
                if removed && let Some(of) = live.remove(&number) {
                    table.dead(of);
                }
            }
        }
    }
    (live, table)
}

// Proves: LIFE-3, DLV-8
#[test]
fn reclaiming_segments_never_brings_a_message_back_nor_loses_one() {
    let mut random = Xorshift(77);
    let (mut reclaimed, mut restarts) = (0, 0);
    for _round in 0..40 {
        let mut journal: BTreeMap<(u32, u32), Logged> = BTreeMap::new();
        let mut table = SegmentTable::default();
        let mut live: BTreeMap<u64, Location> = BTreeMap::new();
        let (mut segment, mut offset, mut number) = (1, 0, 0);
        for _step in 0..600 {
            offset += 1;
            if offset == 8 {
                (segment, offset) = (segment + 1, 0);
            }
            let place = at(segment, offset);
            let old = random.below(live.len() as u64 + 1) as usize;
            let picked = live.iter().nth(old).map(|(&number, &of)| (number, of));
            if let Some((number, of)) = picked.filter(|_| random.below(2) == 0) {
                let removed = random.below(4) != 0;
                journal.insert((segment, offset), Logged::Mark { number, removed });
                table.mark(place, Some(of));
                if removed {
                    live.remove(&number);
                    table.dead(of);
                }
            } else {
                number += 1;
                journal.insert((segment, offset), Logged::Deposit(number));
                live.insert(number, place);
                table.deposit(place);
            }
            if random.below(3) == 0 {
                while let Some(dead) = table.poll_dead() {
                    assert!(dead < segment, "the newest is being written");
                    journal.retain(|&(segment, _), _| segment != dead);
                    reclaimed += 1;
                    assert_eq!(replay(&journal).0, live, "after every single one");
                }
            }
            if random.below(50) == 0 {
                let (again, fresh) = replay(&journal);
                assert_eq!(again, live);
                assert_eq!(fresh.live(), table.live());
                table = fresh;
                (segment, offset) = (segment + 1, 0);
                restarts += 1;
            }
        }
        assert_eq!(table.live(), live.len() as u64);
    }
    assert!(
        reclaimed > 500,
        "segments must die in this test: {reclaimed}"
    );
    assert!(restarts > 100);
}

#[test]
fn a_segment_of_marks_waits_for_the_deposits_they_speak_of() {
    let mut table = SegmentTable::default();
    table.deposit(at(1, 1));
    table.deposit(at(1, 2));
    table.mark(at(2, 1), Some(at(1, 1)));
    table.dead(at(1, 1));
    table.deposit(at(3, 1));
    assert_eq!(
        table.poll_dead(),
        None,
        "1 lives, and 2 keeps its first message from coming back"
    );
    table.mark(at(3, 2), Some(at(1, 2)));
    table.dead(at(1, 2));
    assert_eq!(table.poll_dead(), Some(1));
    assert_eq!(table.poll_dead(), Some(2));
    assert_eq!((table.poll_dead(), table.len()), (None, 1));
}
