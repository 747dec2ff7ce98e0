//! Segments that are written over: what their files held before never passes for a record.

use super::*;
use crate::io::store::format::Commit;

/// Names of the files that are kept to be written over.
fn free(place: &Path) -> Vec<u32> {
    directory::free(place).unwrap()
}

/// Lets the journal know that all segments before `border` are dead.
async fn bury(client: &mut Client, path: &Path, border: u32) {
    let dead = directory::segments(path).unwrap().into_iter();
    client
        .batch
        .dead_segments
        .extend(dead.filter(|&number| number < border));
    assert!(client.journal.submit(&mut client.batch));
    client.settle().await;
}

/// Appends until the journal has gone on to `count` more segments.
async fn fill(client: &mut Client, count: u32) {
    let target = client.journal.current_segment() + count;
    while client.journal.current_segment() < target {
        assert!(client.append(7));
        client.settle().await;
    }
}

// Proves: INT-3
#[test]
fn dead_segments_are_written_over_and_nothing_they_held_comes_back() {
    let place = Place::new();
    let path = place.0.clone();
    run(async move {
        let (mut next, mut live): (u64, Vec<(u64, Location)>) = (1, Vec::new());
        let mut renewed = 0;
        for life in 0..8 {
            let (mut client, found) = Client::open(&path, &small()).await;
            let mut wanted = live.iter().map(|&(number, at)| (at, payload(number)));
            assert!(
                found.iter().cloned().eq(wanted.by_ref()),
                "life {life}: the live ones, in order"
            );
            let recovered = client.journal.recovered();
            assert_eq!((recovered.torn, recovered.damaged_places), (None, 0));
            client.next = next;
            for _ in 0..6 {
                fill(&mut client, 2).await;
                let border = client.journal.current_segment() - 2;
                bury(&mut client, &path, border).await;
            }
            next = client.next;
            live.extend(client.stored.iter().map(|&(ticket, at)| (ticket.0, at)));
            let border = client.journal.current_segment() - 2;
            live.retain(|(_, at)| at.segment >= border);
            // What is read back is what was written last.
            for (token, &(number, at)) in (0..).zip(&live) {
                client.read(token, at);
                client.settle().await;
                let (_, bytes) = client.loaded.pop().unwrap();
                assert_eq!(bytes, payload(number), "life {life}");
            }
            renewed += client.journal.totals().renewed;
            if life % 2 == 0 {
                client.journal.abandon().await;
            } else {
                client.journal.close().await;
            }
            let most = free_max(&small(), 8);
            assert!(free(&path).len() <= most, "{:?}", free(&path));
        }
        assert!(renewed > 60, "of some 110 segments: {renewed}");
    });
}

#[test]
fn what_an_earlier_life_made_ahead_is_kept_if_it_has_the_right_size_and_any_is_wanted() {
    let place = Place::new();
    let path = place.0.clone();
    run(async move {
        let (mut client, _) = Client::open(&path, &small()).await;
        fill(&mut client, 4).await;
        let border = client.journal.current_segment();
        bury(&mut client, &path, border).await;
        let last = client.stored.last().unwrap().1.segment;
        assert_eq!(client.journal.totals().renewed, 0);
        client.journal.abandon().await;
        assert!(free(&path).len() >= 3, "{:?}", free(&path));
        let (client, _) = Client::open(&path, &small()).await;
        let highest = client.journal.current_segment();
        assert!(highest > last + 2, "above the spares of the life before");
        assert_eq!(client.journal.totals().renewed, 1);
        client.journal.abandon().await;
        // Kept files alone keep numbers from going back.
        let last_free = *free(&path).last().unwrap();
        for number in directory::segments(&path).unwrap() {
            fs::remove_file(segment::path(&path, number)).unwrap();
        }
        let (client, _) = Client::open(&path, &small()).await;
        assert!(client.journal.current_segment() > last_free);
        client.journal.abandon().await;
        let larger = JournalOptions {
            segment_bytes: 64 << 10,
            ..small()
        };
        reopen(&path, &larger).await.unwrap();
        assert_eq!(free(&path), [0; 0], "of another size");
        reopen(&path, &larger).await.unwrap();
        let none = JournalOptions {
            free_segments: 0,
            ..larger
        };
        let (mut client, _) = Client::open(&path, &none).await;
        assert_eq!(free(&path), [0; 0], "none is wanted");
        fill(&mut client, 2).await;
        let border = client.journal.current_segment();
        bury(&mut client, &path, border).await;
        assert_eq!(client.journal.totals().renewed, 0);
        assert_eq!(free(&path), [0; 0]);
        client.journal.close().await;
    });
}

/// A whole group of one record, as the segment of that number would begin with.
fn forged(segment: u32, stamp: Stamp, payload: &[u8]) -> Vec<u8> {
    let mut group = Group::new(segment, small().sizes());
    assert!(group.push(StoreTicket(1), payload, stamp, small().sizes()));
    let mut out = vec![0; group.padded() as usize];
    group.seal(0, stamp, &mut out);
    out
}

/// Plants `group` at the start of every file kept, and lets the journal go on there with nothing written;
/// what the next start finds.
fn found_after(place: &Place, key: impl Fn(Key) -> Key) -> usize {
    let path = place.0.clone();
    let old = Key(0x0bad_cafe);
    run({
        let path = path.clone();
        async move {
            let (mut client, _) = Client::open(&path, &small()).await;
            fill(&mut client, 2).await;
            let border = client.journal.current_segment();
            bury(&mut client, &path, border).await;
            client.journal.abandon().await;
        }
    });
    let stamp = Stamp {
        epoch: 9,
        key: key(key_of(&place.snapshot()).unwrap_or(old)),
    };
    let newest = directory::segments(&path).unwrap().pop().unwrap();
    let newest = newest.max(free(&path).pop().unwrap_or(0));
    for number in free(&path) {
        let file = segment::free_path(&path, number);
        let mut bytes = fs::read(&file).unwrap();
        // Which of them goes on under which number is not ours to know: a place for each.
        for (index, segment) in (newest + 1..newest + 6).enumerate() {
            let group = forged(segment, stamp, &payload(77));
            let at = (index + 1) * BLOCK as usize;
            bytes[at..at + group.len()].copy_from_slice(&group);
            if index == 0 {
                continue;
            }
            // At its own place, too, which is the first block of that segment.
            let mut own = vec![0; COMMIT as usize];
            let commit = Commit {
                before: 0,
                bytes: COMMIT,
                records: 0,
            };
            let place = format::position(segment, u32::try_from(at).unwrap());
            format::write_commit(&mut own, place, stamp, commit);
            bytes[at..at + own.len()].copy_from_slice(&own);
        }
        fs::write(&file, bytes).unwrap();
    }
    run(async move {
        let (client, before) = Client::open(&path, &small()).await;
        client.journal.abandon().await;
        let skip = JournalOptions {
            on_damage: DamagePolicy::Skip,
            ..small()
        };
        let (found, recovered) = reopen(&path, &skip).await.unwrap();
        found.len() - before.len() + usize::try_from(recovered.damaged_places).unwrap()
    })
}

#[test]
fn a_forged_record_in_a_file_that_is_written_over_is_none_without_the_key() {
    let place = Place::new();
    assert_eq!(found_after(&place, |_| Key::NONE), 0);
    let place = Place::new();
    assert_eq!(found_after(&place, |Key(key)| Key(key ^ 1)), 0);
    let place = Place::new();
    assert!(
        found_after(&place, |key| key) > 0,
        "with the key it would be one: this test can fail"
    );
}

#[test]
fn without_any_header_nothing_is_read_and_nothing_removed() {
    let place = Place::new();
    let (files, stored) = history(&place, true);
    let mut headless = files.clone();
    for (path, bytes) in &mut headless {
        if path.extension().is_some_and(|ending| ending == "seg") {
            bytes[..64].fill(0);
        }
    }
    place.restore(&headless);
    let path = place.0.clone();
    run({
        let path = path.clone();
        async move {
            for options in [
                small(),
                JournalOptions {
                    on_damage: DamagePolicy::Skip,
                    ..small()
                },
            ] {
                let error = reopen(&path, &options).await.unwrap_err();
                assert!(matches!(error, JournalError::Headless { .. }), "{error}");
                assert!(error.to_string().contains("from a copy"), "{error}");
            }
        }
    });
    let same = place.snapshot();
    assert!(same == headless, "all is as it was");
    // One header is enough for all of them.
    let (last, bytes) = files.last().unwrap();
    fs::write(last, bytes).unwrap();
    run(async move {
        let skip = JournalOptions {
            on_damage: DamagePolicy::Skip,
            ..small()
        };
        let (found, recovered) = reopen(&path, &skip).await.unwrap();
        assert_eq!(found.len(), stored.len());
        assert!(recovered.damaged_places > 0);
    });
}

#[test]
fn a_segment_of_another_store_is_refused() {
    let (place, other) = (Place::new(), Place::new());
    let (files, _) = history(&place, true);
    let (others, _) = history(&other, true);
    let (last, _) = files.last().unwrap();
    let number = segment::number(last.file_name().unwrap().to_str().unwrap()).unwrap() + 1;
    // Its own number, or its header would not be whole.
    let (_, bytes) = others.last().unwrap();
    let mut bytes = bytes.clone();
    let header = format::SegmentHeader {
        stamp: Stamp {
            epoch: 1,
            key: key_of(&others).unwrap(),
        },
        shard: 0,
    };
    format::write_segment_header(&mut bytes[..BLOCK as usize], number, header);
    fs::write(segment::path(&place.0, number), bytes).unwrap();
    let path = place.0.clone();
    run(async move {
        let error = reopen(&path, &small()).await.unwrap_err();
        assert!(matches!(error, JournalError::OtherStore { .. }), "{error}");
        assert!(error.to_string().contains("move it out"), "{error}");
    });
    assert_ne!(key_of(&files), key_of(&others), "each store has its own");
}
