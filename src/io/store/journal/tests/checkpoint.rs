//! Checkpoints: made, used, passed over, waited for.

use std::collections::BTreeMap;

use super::*;

/// Keeps payloads by number, as an index would; a checkpoint of it is their list.
#[derive(Default)]
pub(super) struct Index {
    pub(super) held: BTreeMap<u64, Location>,
    pieces: usize,
    records: usize,
}

impl Index {
    /// Three numbers a piece.
    pub(super) fn save(&self, at: u64, out: &mut Vec<u8>) -> Option<u64> {
        let mut rest = self.held.range(at..);
        for (number, location) in rest.by_ref().take(3) {
            out.extend_from_slice(&number.to_le_bytes());
            for word in [location.segment, location.offset, location.len] {
                out.extend_from_slice(&word.to_le_bytes());
            }
        }
        rest.next().map(|(&number, _)| number)
    }
}

impl Recovery for Index {
    fn piece(&mut self, bytes: &[u8]) -> bool {
        self.pieces += 1;
        let word = |at: &[u8]| u32::from_le_bytes(*at.first_chunk().unwrap());
        for entry in bytes.chunks_exact(20) {
            let number = u64::from_le_bytes(*entry.first_chunk().unwrap());
            let location = Location {
                segment: word(&entry[8..]),
                offset: word(&entry[12..]),
                len: word(&entry[16..]),
            };
            self.held.insert(number, location);
        }
        true
    }

    fn restart(&mut self) {
        *self = Self::default();
    }

    fn record(&mut self, at: Location, payload: &[u8]) {
        self.records += 1;
        let number = u64::from_le_bytes(*payload.first_chunk().unwrap());
        self.held.insert(number, at);
    }
}

pub(super) async fn open_index(path: &Path, options: &JournalOptions) -> (Client, Index) {
    let mut index = Index::default();
    let journal = Journal::open_with(path, options, &mut index).await.unwrap();
    (Client::new(journal), index)
}

/// Appends and lets the journal make checkpoints, until it has made `count`.
pub(super) async fn until_checkpoints(client: &mut Client, index: &mut Index, count: u64) {
    while client.journal.totals().checkpoints < count {
        assert!(client.next < 20_000, "checkpoints are made");
        client.append(5);
        for _ in 0..4 {
            client.settle().await;
            for (ticket, at) in client.stored.drain(..) {
                index.held.insert(ticket.0, at);
            }
            if let Some(at) = client.journal.wants_piece() {
                let mut piece = Vec::new();
                let next = index.save(at, &mut piece);
                client.journal.take_piece(&mut piece, next);
            }
            exec::sleep(Duration::from_micros(100)).await;
        }
    }
}

pub(super) fn with_checkpoints() -> JournalOptions {
    JournalOptions {
        checkpoint_after_bytes: 64 << 10,
        ..small()
    }
}

#[test]
fn a_checkpoint_and_the_records_behind_it_are_the_whole_journal() {
    let place = Place::new();
    let path = place.0.clone();
    run(async move {
        let options = with_checkpoints();
        let (mut client, mut index) = open_index(&path, &options).await;
        until_checkpoints(&mut client, &mut index, 2).await;
        let expected = index.held.clone();
        client.journal.abandon().await;
        let (client, found) = open_index(&path, &options).await;
        assert_eq!(found.held, expected);
        assert!(found.pieces > 10, "pieces were read");
        assert!(
            found.records < expected.len() / 2,
            "{} records of {} were read again",
            found.records,
            expected.len()
        );
        assert!(client.journal.recovered().checkpoint_bytes > 0);
        client.journal.close().await;
        // Who cannot take pieces gets every record.
        let (all, _) = reopen(&path, &small()).await.unwrap();
        assert_eq!(all.len(), expected.len());
    });
}

#[test]
fn a_damaged_checkpoint_is_passed_over_and_costs_nothing_but_time() {
    let place = Place::new();
    let path = place.0.clone();
    run(async move {
        let options = with_checkpoints();
        let (mut client, mut index) = open_index(&path, &options).await;
        until_checkpoints(&mut client, &mut index, 1).await;
        let expected = index.held.clone();
        client.journal.abandon().await;
        let file = path.join("checkpoint");
        let whole = fs::read(&file).unwrap();
        let used = whole.iter().rposition(|&byte| byte != 0).unwrap();
        for at in [0, 5, 40, used / 2, used - 20, used] {
            let mut damaged = whole.clone();
            damaged[at] ^= 4;
            fs::write(&file, &damaged).unwrap();
            let (client, found) = open_index(&path, &options).await;
            assert_eq!(found.held, expected, "octet {at}");
            assert!(client.journal.recovered().checkpoint_refused, "octet {at}");
            client.journal.abandon().await;
        }
        fs::write(&file, &whole[..used / 2]).unwrap();
        let (client, found) = open_index(&path, &options).await;
        assert_eq!(found.held, expected);
        client.journal.close().await;
    });
}

#[test]
fn dead_segments_that_a_checkpoint_needs_stay_until_the_next_one() {
    let place = Place::new();
    let path = place.0.clone();
    run(async move {
        let options = with_checkpoints();
        let (mut client, mut index) = open_index(&path, &options).await;
        until_checkpoints(&mut client, &mut index, 1).await;
        let mut last = 0;
        while last < client.journal.shared.state().acknowledged_to >> 32 {
            last = client.journal.shared.state().acknowledged_to >> 32;
            client.append(20);
            client.settle().await;
        }
        let floor = client.journal.shared.state().checkpoint.unwrap().0 >> 32;
        let numbers = directory::segments(&path).unwrap();
        let behind: Vec<u32> = numbers
            .iter()
            .copied()
            .filter(|&number| u64::from(number) >= floor && u64::from(number) < last)
            .collect();
        assert!(!behind.is_empty(), "{numbers:?} floor {floor} last {last}");
        client.batch.dead_segments.extend(&behind);
        client.batch.dead_segments.push(numbers[0]);
        assert!(client.journal.submit(&mut client.batch));
        client.settle().await;
        let left = directory::segments(&path).unwrap();
        assert!(!left.contains(&numbers[0]), "one before the floor goes");
        assert!(behind.iter().all(|number| left.contains(number)));
        until_checkpoints(&mut client, &mut index, 2).await;
        client.settle().await;
        exec::sleep(Duration::from_millis(100)).await;
        let left = directory::segments(&path).unwrap();
        assert!(!behind.iter().any(|number| left.contains(number)));
        client.journal.close().await;
    });
}
