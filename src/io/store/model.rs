//! Tests of what the disk may do, on a disk in memory: thousands of cuts and flipped bits within
//! seconds. Groups, formats and recovery are the shipped ones; only the file system is not there.
#![expect(
    clippy::cast_possible_truncation,
    reason = "small numbers of the tests"
)]

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::base::surface::{Location, StoreTicket};
use crate::io::store::checkpoint;
use crate::io::store::error::JournalError;
use crate::io::store::format::{self, BLOCK, COMMIT, HEADER, Key, SegmentHeader, Stamp};
use crate::io::store::group::{Group, Sizes};
use crate::io::store::recover::{self, Outcome, Records, Recovery, Source};

const SIZES: Sizes = Sizes {
    segment_bytes: 32 << 10,
    commit_bytes: 12 << 10,
};

struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// What a disk holds.
#[derive(Clone, Default)]
struct Image(BTreeMap<u32, Vec<u8>>);

/// What the records of every disk here are made with.
const KEY: Key = Key(0x5eed_0123_4567_89ab);

impl Source for Image {
    fn numbers(&self) -> Result<Vec<u32>, JournalError> {
        Ok(self.0.keys().copied().collect())
    }

    async fn load(&mut self, number: u32, bytes: &mut Vec<u8>) -> Result<(), JournalError> {
        bytes.clear();
        bytes.extend_from_slice(&self.0[&number]);
        Ok(())
    }

    async fn load_head(&mut self, number: u32, bytes: &mut Vec<u8>) -> Result<(), JournalError> {
        self.load(number, bytes).await?;
        bytes.truncate(BLOCK as usize);
        Ok(())
    }
}

/// Runs what never waits.
fn now<T>(work: impl Future<Output = T>) -> T {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("a disk in memory never waits"),
    }
}

type Found = Vec<(Location, Vec<u8>)>;

fn read_back(image: &mut Image) -> (Found, Outcome) {
    let mut found = Vec::new();
    let mut visit = |at: Location, payload: &[u8]| found.push((at, payload.to_vec()));
    let outcome = now(recover::scan(image, 0, None, &mut Records(&mut visit))).unwrap();
    (found, outcome)
}

fn payload(number: u64, dice: &mut Dice) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    let len = 8 + dice.below(700) as usize;
    while bytes.len() < len {
        bytes.push(dice.below(256) as u8);
    }
    bytes
}

/// One process writing to the disk.
struct Life {
    image: Image,
    group: Group,
    stamp: Stamp,
    before: u64,
    /// What files hold that are kept to be written over.
    free: Vec<Vec<u8>>,
}

impl Life {
    /// Opens the disk as a journal does: finds the end, cuts the tail, begins a segment.
    fn open(mut image: Image) -> (Self, Found, Outcome) {
        let (found, outcome) = read_back(&mut image);
        let empty = outcome.empty.iter();
        let mut free: Vec<_> = empty.filter_map(|number| image.0.remove(number)).collect();
        // As if what lies there had been written before, to a segment that died since.
        free.extend(image.0.values().filter(|bytes| is_whole(bytes)).cloned());
        free.retain(|bytes| is_whole(bytes));
        let (last, end) = format::split(outcome.before);
        if let Some(bytes) = image.0.get_mut(&last) {
            bytes.truncate(end as usize);
        }
        let current = outcome.newest + 1;
        let life = Self {
            group: Group::new(current, SIZES),
            stamp: Stamp {
                epoch: outcome.recovered.epoch + 1,
                key: KEY,
            },
            free,
            before: outcome.before,
            image,
        };
        (life, found, outcome)
    }

    /// Gathers `count` records.
    fn gather(&mut self, first: u64, count: u64, dice: &mut Dice) -> Vec<Vec<u8>> {
        let mut gathered = Vec::new();
        for number in first..first + count {
            let payload = payload(number, dice);
            if !self
                .group
                .push(StoreTicket(number), &payload, self.stamp, SIZES)
            {
                break;
            }
            gathered.push(payload);
        }
        gathered
    }

    /// What the write of the gathered group would do: segment, place, octets. The segment is there,
    /// its header is part of the write when it is new.
    fn seal(&mut self) -> (u32, u32, Vec<u8>) {
        let (segment, start) = (self.group.segment, self.group.start);
        let mut out = vec![0; self.group.padded() as usize];
        let end = format::position(segment, self.group.end());
        let before = core::mem::replace(&mut self.before, end);
        self.group.seal(before, self.stamp, &mut out);
        if !self.image.0.contains_key(&segment) {
            let fresh = || vec![0; SIZES.segment_bytes as usize];
            let mut bytes = self.free.pop().unwrap_or_else(fresh);
            let header = SegmentHeader {
                stamp: self.stamp,
                shard: 0,
            };
            format::write_segment_header(&mut bytes[..BLOCK as usize], segment, header);
            self.image.0.insert(segment, bytes);
        }
        (segment, start, out)
    }

    fn next_group(&mut self) {
        let (segment, end) = (self.group.segment, format::block_up(self.group.end()));
        self.group.reset(segment, end, SIZES);
    }

    /// The write and its sync succeed.
    fn commit(&mut self) -> Vec<(StoreTicket, Location)> {
        let (segment, start, bytes) = self.seal();
        let stored = self.group.stored.clone();
        let disk = self.image.0.get_mut(&segment).unwrap();
        disk[start as usize..start as usize + bytes.len()].copy_from_slice(&bytes);
        self.next_group();
        stored
    }

    /// The power goes while the write is under way: of its sectors some are on the disk, in any
    /// order.
    fn cut(mut self, dice: &mut Dice) -> Image {
        let (segment, start, bytes) = self.seal();
        let disk = self.image.0.get_mut(&segment).unwrap();
        let sector = [512, 4096][dice.below(2) as usize];
        let chance = dice.below(5);
        for (index, part) in bytes.chunks(sector).enumerate() {
            if dice.below(4) < chance {
                let at = start as usize + index * sector;
                disk[at..at + part.len()].copy_from_slice(part);
            }
        }
        self.image
    }
}

/// Whether a segment was never cut, so that it can be written over.
fn is_whole(bytes: &[u8]) -> bool {
    bytes.len() == SIZES.segment_bytes as usize
}

#[test]
fn thousands_of_cuts_lose_nothing_acknowledged_and_bring_back_nothing_that_was_not_written() {
    let mut dice = Dice(0x5eed_0001);
    let (mut cuts, mut torn, mut survived) = (0, 0, 0);
    for _ in 0..130 {
        let mut acknowledged: Vec<Vec<u8>> = Vec::new();
        let mut image = Image::default();
        let mut number = 1;
        for _ in 0..20 {
            let (mut life, _, _) = Life::open(image);
            for _ in 0..dice.below(6) {
                let gathered = life.gather(number, 1 + dice.below(20), &mut dice);
                number += gathered.len() as u64;
                let stored = life.commit();
                assert_eq!(stored.len(), gathered.len());
                acknowledged.extend(gathered);
            }
            let fresh = life.gather(number, 1 + dice.below(20), &mut dice);
            number += fresh.len() as u64;
            image = life.cut(&mut dice);
            cuts += 1;
            // Nothing acknowledged is lost or altered; of the group under way there may be some.
            let (found, outcome) = read_back(&mut image.clone());
            let recovered = &outcome.recovered;
            assert_eq!(
                recovered.damaged_places, 0,
                "a cut is no damage: {recovered:?}"
            );
            torn += usize::from(recovered.torn.is_some());
            let payloads: Vec<_> = found.into_iter().map(|(_, payload)| payload).collect();
            let (old, new) = payloads.split_at(acknowledged.len().min(payloads.len()));
            assert!(
                old == acknowledged,
                "what was acknowledged is there, in order"
            );
            let mut rest = fresh.iter();
            for payload in new {
                assert!(
                    rest.any(|was| was == payload),
                    "nothing that was not written"
                );
                survived += 1;
            }
            // What survived is as good as acknowledged: it must not vanish later.
            acknowledged = payloads;
        }
    }
    println!("{cuts} cuts, {torn} torn tails, {survived} records survived without an answer");
    assert!(cuts >= 2000 && torn > 500 && survived > 500);
}

/// A disk with a known history that ended in order, and every record on it.
fn history(dice: &mut Dice) -> (Image, Found) {
    let mut all = Vec::new();
    let mut image = Image::default();
    let mut number = 1;
    for _ in 0..3 {
        let (mut life, ..) = Life::open(image);
        for _ in 0..10 {
            let gathered = life.gather(number, 1 + dice.below(16), dice);
            number += gathered.len() as u64;
            let stored = life.commit();
            all.extend(stored.into_iter().map(|(_, at)| at).zip(gathered));
        }
        // The empty group that marks a clean end.
        life.group.push_nothing(SIZES);
        life.commit();
        image = life.image;
    }
    (image, all)
}

#[test]
fn thousands_of_flipped_bits_in_every_kind_of_record_are_told_and_none_is_delivered() {
    let mut dice = Dice(0x5eed_0002);
    let mut kinds = BTreeMap::new();
    let mut flips = 0;
    for _ in 0..5 {
        let (image, all) = history(&mut dice);
        let places: Vec<(u32, u32, u32, &str)> = live_places(&image, &all);
        for _ in 0..500 {
            let (segment, from, to, kind) = places[dice.below(places.len() as u64) as usize];
            let at = from + dice.below(u64::from(to - from)) as u32;
            let mut flipped = image.clone();
            flipped.0.get_mut(&segment).unwrap()[at as usize] ^= 1 << dice.below(8);
            let (found, outcome) = read_back(&mut flipped);
            flips += 1;
            *kinds.entry(kind).or_insert(0) += 1;
            let what = format!("{kind} in segment {segment} at {at}");
            let recovered = &outcome.recovered;
            assert!(
                recovered.damaged_places > 0,
                "{what} is told: {recovered:?}"
            );
            let mut expected = all.iter();
            for record in &found {
                assert!(
                    expected.any(|was| was == record),
                    "{what}: nothing altered, in order"
                );
            }
            let missing = all.len() - found.len();
            let most = usize::from(kind == "record" || kind == "header");
            assert!(missing <= most, "{what} costs {missing} records");
        }
    }
    println!("{flips} flips: {kinds:?}");
    assert!(flips >= 2000 && kinds.len() == 5 && kinds.values().all(|&count| count > 50));
}

/// Octets of every record, by kind. The clean end of the last life and the last segment's header
/// with nothing behind it are live, too.
fn live_places(image: &Image, all: &[(Location, Vec<u8>)]) -> Vec<(u32, u32, u32, &'static str)> {
    let mut places = Vec::new();
    for (at, payload) in all {
        let body = at.offset + HEADER;
        places.push((at.segment, at.offset, body, "header"));
        places.push((at.segment, body, body + payload.len() as u32, "record"));
    }
    let last = image.0.keys().next_back().copied().unwrap();
    for (&segment, bytes) in &image.0 {
        // Twice, since there are few.
        let header = (segment, 0, HEADER + 16, "segment");
        places.extend([header; 4]);
        let mut at = BLOCK;
        while at + COMMIT <= bytes.len() as u32 {
            let found = format::read(&bytes[at as usize..], format::position(segment, at), KEY);
            if let Some(commit) = found.as_ref().and_then(format::as_commit) {
                // The very last group cannot be told from a torn one: it holds no record.
                let empty = commit.records == 0;
                if !(empty && segment == last) {
                    let kind = if empty { "end" } else { "commit" };
                    let times = if empty { 8 } else { 1 };
                    for _ in 0..times {
                        places.push((segment, at, at + COMMIT, kind));
                    }
                }
            }
            at += BLOCK;
        }
    }
    places
}

/// Counts what it is given.
#[derive(Default)]
struct Pieces(Vec<Vec<u8>>);

impl Recovery for Pieces {
    fn piece(&mut self, bytes: &[u8]) -> bool {
        self.0.push(bytes.to_vec());
        true
    }

    fn record(&mut self, _: Location, _: &[u8]) {}
}

#[test]
fn a_thousand_flipped_bits_in_a_checkpoint_make_it_unusable() {
    let mut dice = Dice(0x5eed_0003);
    let pieces: Vec<Vec<u8>> = (0..12).map(|number| payload(number, &mut dice)).collect();
    let floor = format::position(7, 8192);
    let (bytes, used) = checkpoint::image(&pieces, floor, 3, 0);
    let mut seen = Pieces::default();
    let end = checkpoint::read_image(&bytes, &mut seen).expect("it is whole");
    assert_eq!((end.floor, end.epoch, end.pieces), (floor, 3, 12));
    assert_eq!(seen.0, pieces);
    for _ in 0..1000 {
        let at = dice.below(used as u64) as usize;
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << dice.below(8);
        let mut seen = Pieces::default();
        let zeros = is_padding(&pieces, at);
        let end = checkpoint::read_image(&flipped, &mut seen);
        assert!(zeros || end.is_none(), "octet {at}");
        assert!(
            pieces.starts_with(&seen.0),
            "octet {at}: only what was written is handed out"
        );
    }
    for cut in (0..used).step_by(7) {
        let mut seen = Pieces::default();
        assert!(
            checkpoint::read_image(&bytes[..cut], &mut seen).is_none(),
            "cut at {cut}"
        );
    }
}

/// Whether an octet is between two records.
fn is_padding(pieces: &[Vec<u8>], at: usize) -> bool {
    let mut from = 0;
    for piece in pieces {
        let end = from + HEADER as usize + piece.len();
        from = end.next_multiple_of(8);
        if (end..from).contains(&at) {
            return true;
        }
    }
    false
}
