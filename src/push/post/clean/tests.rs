use crate::store::op::{Evidence, MarkKind};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::*;
use crate::base::map::MapKeys;
use crate::base::slab::Key;
use crate::base::surface::StoreBatch;
use crate::base::time::UnixMillis;
use crate::push::post::PostOptions;
use crate::store::index::{Marked, NewEntry, Quota};
use crate::store::op::{Deposit, RemovalReason};

struct Xorshift(u64);

impl Xorshift {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound.max(1)
    }
}

/// What recovery would know of each message: the devices that have it.
type Known = BTreeMap<u64, BTreeSet<u64>>;

/// A store in memory: records by place, and those on their way.
struct Disk {
    records: BTreeMap<(u32, u32), Vec<u8>>,
    pending: VecDeque<StoreBatch>,
    at: (u32, u32),
    /// What every record together says, the reclaimed ones included.
    truth: Known,
    copies: u64,
    copied_bytes: u64,
    reclaimed: u64,
}

fn apply(known: &mut Known, payload: &[u8]) {
    match record::decode(payload).expect("written by us") {
        Record::Deposit(deposit) => {
            known.entry(deposit.number).or_default();
        }
        Record::Mark(mark) => match mark.kind {
            MarkKind::Delivered { device, .. } => {
                if let Some(devices) = known.get_mut(&mark.number) {
                    devices.insert(device);
                }
            }
            MarkKind::Removed { .. } => {
                known.remove(&mark.number);
            }
            MarkKind::Refused { .. } => {}
        },
        Record::Part(_) => unreachable!("not in this test"),
    }
}

impl Disk {
    const PER_SEGMENT: u32 = 12;

    fn replay(&self) -> Known {
        let mut known = Known::new();
        for payload in self.records.values() {
            apply(&mut known, payload);
        }
        known
    }

    /// Makes one batch durable and lets its effects happen, as the shard does.
    fn commit(&mut self, post: &mut Post) {
        let Some(batch) = self.pending.pop_front() else {
            return;
        };
        let mut rest = &batch.bytes[..];
        for &(ticket, len) in &batch.appends {
            let (payload, behind) = rest.split_at(len as usize);
            rest = behind;
            self.at.1 += 1;
            if self.at.1 == Self::PER_SEGMENT {
                self.at = (self.at.0 + 1, 0);
            }
            let place = Location {
                segment: self.at.0,
                offset: self.at.1,
                len,
            };
            self.records.insert(self.at, payload.to_vec());
            let is_copy = matches!(record::decode(payload), Ok(Record::Deposit(deposit))
                if deposit.flags.contains(crate::store::op::DepositFlags::COPY));
            self.copies += u64::from(is_copy);
            self.copied_bytes += if is_copy { u64::from(len) } else { 0 };
            if !is_copy || self.truth_has(payload) {
                apply(&mut self.truth, payload);
            }
            while let Some(after) = post.take_after(ticket) {
                settle(post, after, place);
            }
            post.forget_moved(ticket);
        }
        for &(number, location) in &batch.reads {
            let found = self.records.get(&(location.segment, location.offset));
            let payload = found.cloned().unwrap_or_default();
            assert!(
                post.take_for_cleaning(number, &payload),
                "only cleaning reads here"
            );
        }
        for &segment in &batch.dead_segments {
            assert!(segment < self.at.0, "the newest is being written");
            self.records.retain(|&(at, _), _| at != segment);
            self.reclaimed += 1;
            assert_eq!(self.replay(), self.truth, "without segment {segment}");
        }
        assert_eq!(self.replay(), self.truth);
    }

    /// A copy says nothing new; of a message that is removed already there must be none.
    fn truth_has(&self, payload: &[u8]) -> bool {
        match record::decode(payload) {
            Ok(Record::Deposit(deposit)) => {
                assert!(
                    self.truth.contains_key(&deposit.number),
                    "a copy of nothing"
                );
                true
            }
            Ok(Record::Mark(_) | Record::Part(_)) | Err(_) => true,
        }
    }
}

fn settle(post: &mut Post, after: After, place: Location) {
    match after {
        After::Deposit { user, number, .. } => {
            post.mailbox(user.slot).stored(number, place);
            post.segments.deposit(place);
        }
        After::Mark { of, removes } => {
            let of = post.moved(of);
            post.segments.mark(place, Some(of));
            if removes.is_some() {
                post.segments.dead(of);
            }
        }
        After::Closed { .. } | After::Expired { .. } | After::Part { .. } | After::Reply(_) => {
            unreachable!("not in this test")
        }
        After::Copied { slot, number, from } => post.copied(slot, number, from, place),
        After::Freed { of } => post.freed(of),
    }
}

const USERS: u64 = 5;

fn identity(slot: u64) -> Vec<u8> {
    format!("+1555{slot}").into_bytes()
}

fn deposit(post: &mut Post, slot: u64) {
    let number = post.take_number(UnixMillis(0), false);
    let user = identity(slot);
    let new = NewEntry {
        number,
        expires_s: u32::MAX,
        bytes: 1,
        ..NewEntry::default()
    };
    let slot = u32::try_from(slot).unwrap();
    post.mailbox(slot).admit(&Quota::default(), 0, &new);
    let deposit = Deposit {
        user: &user,
        identity: b"sip:a@b",
        number,
        cpim: b"some octets of a body",
        ..Deposit::default()
    };
    let key = Key {
        slot,
        generation: 0,
    };
    let appended = post.append_deposit(Timestamp::ZERO, key, &deposit, None);
    appended.unwrap();
}

/// Something happens to a message that lies on the disk.
fn mark(post: &mut Post, random: &mut Xorshift, slot: u64) {
    let user = identity(slot);
    let mailbox = post.mailbox(u32::try_from(slot).unwrap());
    let at = random.below(mailbox.len() as u64);
    let entry = mailbox.iter().nth(usize::try_from(at).unwrap()).copied();
    let Some(entry) = entry else { return };
    let Some(location) = entry.location() else {
        return;
    };
    let device = 1 + random.below(3);
    let removes = random.below(3) > 0;
    let kind = if removes {
        mailbox.remove(entry.number());
        MarkKind::Removed {
            reason: RemovalReason::Delivered,
        }
    } else {
        if mailbox.mark(entry.number(), device, Fate::Delivered) != Marked::Recorded {
            return;
        }
        MarkKind::Delivered {
            device,
            by: Evidence::Report,
        }
    };
    let mark = Mark {
        user: &user,
        number: entry.number(),
        at: UnixMillis(1),
        kind,
    };
    post.append_mark(&mark, location, removes);
}

fn new_post(bytes_per_s: u64) -> Post {
    let options = PostOptions {
        clean: CleanOptions {
            segment_bytes: 1200,
            slack_segments: 1,
            bytes_per_s,
            ..CleanOptions::default()
        },
        ..PostOptions::default()
    };
    Post::new(&options, MapKeys([1; 4]), UnixMillis(1))
}

/// One life of a store; the segments in use at its end, and the disk.
fn live(seed: u64, steps: u64, bytes_per_s: u64) -> (usize, Disk) {
    let mut random = Xorshift(seed);
    let mut post = new_post(bytes_per_s);
    let mut disk = Disk {
        records: BTreeMap::new(),
        pending: VecDeque::new(),
        at: (1, 0),
        truth: Known::new(),
        copies: 0,
        copied_bytes: 0,
        reclaimed: 0,
    };
    for step in 0..steps {
        let now = Timestamp::from_millis(10 * step);
        let slot = random.below(USERS);
        // A few users' messages stay for long, so that most segments hold something.
        match random.below(5) {
            0 | 1 => deposit(&mut post, slot),
            _ => mark(&mut post, &mut random, slot.max(1)),
        }
        if step % 20 == 0 && slot != 0 {
            mark(&mut post, &mut random, 0);
        }
        post.consider_cleaning(now);
        post.clean(now);
        let mut batch = StoreBatch::default();
        if post.poll_store(&mut batch) {
            disk.pending.push_back(batch);
        }
        for _ in 0..random.below(3) {
            disk.commit(&mut post);
        }
    }
    while !disk.pending.is_empty() {
        disk.commit(&mut post);
    }
    let entries: usize = post
        .mailboxes
        .warm_values()
        .map(|mailbox| mailbox.len())
        .sum();
    assert_eq!(entries, disk.truth.len(), "index and disk agree");
    let segments: BTreeSet<u32> = disk.records.keys().map(|&(segment, _)| segment).collect();
    (segments.len(), disk)
}

// Proves: LIFE-3, DLV-8
#[test]
fn whatever_is_cleaned_when_no_message_comes_back_none_is_lost_and_no_mark_is_forgotten() {
    let (mut copies, mut reclaimed) = (0, 0);
    for seed in 1..60 {
        let (_, disk) = live(seed, 900, 1 << 20);
        copies += disk.copies;
        reclaimed += disk.reclaimed;
    }
    assert!(copies > 1000 && reclaimed > 1000, "{copies} {reclaimed}");
}

#[test]
fn cleaning_keeps_the_store_small_where_a_few_old_messages_would_keep_everything() {
    let (without, _) = live(5, 6000, 0);
    let (with, disk) = live(5, 6000, 1 << 20);
    assert!(
        with * 3 < without,
        "{with} segments instead of {without}, {} copies",
        disk.copies
    );
}

#[test]
fn cleaning_copies_no_faster_than_it_may() {
    let per_step = 10;
    let (_, disk) = live(9, 3000, 100 * per_step);
    assert!(disk.copies > 20, "{}", disk.copies);
    let most = 3000 * per_step + 1000;
    assert!(disk.copied_bytes <= most, "{}", disk.copied_bytes);
}
