//! A history, cut and bent wherever it may be: what lies before is kept, and nothing wrong is delivered.

use super::*;

struct Xorshift(u64);

impl Xorshift {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

fn skip() -> JournalOptions {
    JournalOptions {
        on_damage: DamagePolicy::Skip,
        ..small()
    }
}

/// Index in `files` of the last segment with records.
fn last_used(files: &[(PathBuf, Vec<u8>)], stored: &[(u64, Location)]) -> usize {
    let segment = stored.last().unwrap().1.segment;
    let name = format!("{segment:08x}.seg");
    files
        .iter()
        .position(|(path, _)| path.ends_with(&name))
        .unwrap()
}

// Proves: INT-3, DLV-1
#[test]
fn a_tail_cut_or_zeroed_anywhere_keeps_exactly_what_lies_before() {
    let place = Place::new();
    let (files, stored) = history(&place, false);
    let last = last_used(&files, &stored);
    let segment = stored.last().unwrap().1.segment;
    let end = stored.last().map(|(_, at)| end_of(*at)).unwrap();
    let path = place.0.clone();
    let mut random = Xorshift(0xc07);
    let mut cuts: Vec<usize> = (0..240).map(|_| random.below(end as usize + 64)).collect();
    cuts.extend([0, 1, BLOCK as usize, end as usize, end as usize - 1]);
    for (round, cut) in cuts.into_iter().enumerate() {
        let mut damaged = files.clone();
        if round % 2 == 0 {
            damaged[last].1.truncate(cut);
        } else {
            damaged[last].1[cut..].fill(0);
        }
        place.restore(&damaged);
        // What lies before the cut must be there; a cut commit record takes its group along.
        let whole = |at: &Location| at.segment < segment || last_octet(*at) <= cut;
        let want: Vec<u64> = stored
            .iter()
            .filter(|(_, at)| whole(at))
            .map(|(number, _)| *number)
            .collect();
        let path = path.clone();
        run(async move {
            let (found, recovered) = reopen(&path, &small()).await.unwrap();
            assert_eq!(numbers(&found), want, "cut at {cut}");
            assert_eq!(recovered.damaged_places, 0);
            let (again, recovered) = reopen(&path, &small()).await.unwrap();
            assert_eq!(
                numbers(&again),
                want,
                "the second start finds the same, cut at {cut}"
            );
            assert_eq!(recovered.torn, None, "the tail was cut off for good");
            // And life goes on.
            let (mut client, _) = Client::open(&path, &small()).await;
            client.next = 100_000;
            client.append(3);
            client.settle().await;
            client.journal.abandon().await;
            let (found, recovered) = reopen(&path, &small()).await.unwrap();
            assert_eq!(recovered.damaged_places, 0);
            assert_eq!(numbers(&found).len(), want.len() + 3);
        });
    }
}

/// End of the last octet a checksum covers; what pads it to 8 means nothing.
fn last_octet(at: Location) -> usize {
    (at.offset + HEADER + at.len) as usize
}

fn end_of(at: Location) -> u32 {
    at.offset + format::record_bytes(at.len).unwrap()
}

// Proves: INT-3
#[test]
fn a_bit_flipped_in_the_tail_never_delivers_a_wrong_record_and_keeps_what_lies_before() {
    let place = Place::new();
    let (files, stored) = history(&place, false);
    let last = last_used(&files, &stored);
    let (segment, end) = stored
        .last()
        .map(|(_, at)| (at.segment, end_of(*at)))
        .unwrap();
    let path = place.0.clone();
    let mut random = Xorshift(0xf11b);
    let (mut torn, mut refused) = (0, 0);
    for _ in 0..260 {
        let bit = random.below((end - BLOCK) as usize * 8);
        let at = BLOCK as usize + bit / 8;
        let mut damaged = files.clone();
        damaged[last].1[at] ^= 1 << (bit % 8);
        place.restore(&damaged);
        let path = path.clone();
        let stored = stored.clone();
        let outcome = run(async move {
            let strict = reopen(&path, &small()).await;
            let (found, recovered) = match strict {
                Ok(opened) => opened,
                Err(JournalError::Damaged { .. }) => {
                    let opened = reopen(&path, &skip()).await.unwrap();
                    assert!(opened.1.damaged_places > 0);
                    opened
                }
                Err(other) => panic!("{other}"),
            };
            let found = numbers(&found);
            let before = stored
                .iter()
                .filter(|(_, place)| place.segment < segment || last_octet(*place) <= at);
            let before: Vec<u64> = before.map(|(number, _)| *number).collect();
            if recovered.damaged_places == 0 && recovered.torn.is_some() {
                // Torn: everything of the groups before, and nothing behind the flip.
                assert!(
                    before.starts_with(&found),
                    "nothing behind the first invalid record"
                );
            } else {
                // Corruption in the middle: at most the record with the bit is missing.
                let missing = stored.len() - found.len();
                assert!(missing <= 1, "{missing} records lost to one bit at {at}");
            }
            (
                recovered.torn.is_some(),
                recovered.damaged_places > 0,
                found.len() < stored.len(),
            )
        });
        match outcome {
            (true, false, _) => torn += 1,
            (_, true, _) => refused += 1,
            // A bit in the padding behind a group's end changes nothing.
            (false, false, lost) => assert!(!lost, "a loss without a word at {at}"),
        }
    }
    assert!(
        torn > 5 && refused > 50,
        "both verdicts are reached: {torn} {refused}"
    );
}

// Proves: INT-3
#[test]
fn after_a_close_every_flip_of_a_live_octet_is_reported_and_costs_one_record_at_most() {
    let place = Place::new();
    let (files, stored) = history(&place, true);
    let mut random = Xorshift(0xdead);
    let path = place.0.clone();
    for round in 0..220 {
        let (number, at) = stored[random.below(stored.len())];
        let live = 32 + at.len as usize;
        let offset = at.offset as usize + random.below(live);
        let name = format!("{:08x}.seg", at.segment);
        let mut damaged = files.clone();
        let file = damaged
            .iter_mut()
            .find(|(path, _)| path.ends_with(&name))
            .unwrap();
        file.1[offset] ^= 1 << random.below(8);
        place.restore(&damaged);
        let path = path.clone();
        let count = stored.len();
        run(async move {
            let error = reopen(&path, &small()).await.unwrap_err();
            assert!(matches!(error, JournalError::Damaged { .. }), "{error}");
            let sentence = error.to_string();
            assert!(
                sentence.contains(&name) && sentence.contains("on_damage"),
                "{sentence}"
            );
            for _ in 0..1 + round % 2 {
                let (found, recovered) = reopen(&path, &skip()).await.unwrap();
                let found = numbers(&found);
                assert_eq!(found.len(), count - 1);
                assert!(!found.contains(&number));
                assert_eq!(recovered.damaged[0].segment, at.segment);
                assert_eq!(recovered.damaged[0].offset, at.offset);
                assert_eq!(recovered.torn, None);
            }
        });
    }
}

#[test]
fn a_lost_group_in_the_middle_is_noticed_though_nothing_is_left_of_it() {
    let place = Place::new();
    let (files, stored) = history(&place, false);
    // Groups begin at blocks; zero the blocks of one that is neither first nor last.
    let victim = stored[stored.len() / 2].1;
    let key = key_of(&files).unwrap();
    let group = |at: &Location| {
        let bytes = &files
            .iter()
            .find(|(path, _)| path.ends_with(format!("{:08x}.seg", at.segment)));
        let bytes = &bytes.unwrap().1;
        let blocks = (1..=at.offset / BLOCK).rev().map(|block| block * BLOCK);
        let mut starts = blocks.filter(|&start| {
            let found = format::read(
                &bytes[start as usize..],
                format::position(at.segment, start),
                key,
            );
            found.is_some_and(|found| format::as_commit(&found).is_some())
        });
        starts.next().unwrap()
    };
    let start = group(&victim);
    let mates: Vec<Location> = stored
        .iter()
        .map(|&(_, at)| at)
        .filter(|at| at.segment == victim.segment && group(at) == start)
        .collect();
    let end = format::block_up(end_of(*mates.last().unwrap()));
    let mut damaged = files.clone();
    let name = format!("{:08x}.seg", victim.segment);
    let file = damaged
        .iter_mut()
        .find(|(path, _)| path.ends_with(&name))
        .unwrap();
    file.1[start as usize..end as usize].fill(0);
    place.restore(&damaged);
    let path = place.0.clone();
    let left = stored.len() - mates.len();
    run(async move {
        let error = reopen(&path, &small()).await.unwrap_err();
        assert!(matches!(error, JournalError::Damaged { .. }), "{error}");
        let (found, recovered) = reopen(&path, &skip()).await.unwrap();
        assert_eq!(recovered.damaged_places, 1);
        assert_eq!(numbers(&found).len(), left);
    });
}
