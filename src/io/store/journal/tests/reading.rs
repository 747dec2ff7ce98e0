//! Records that are read back: together, ahead, and from places where there is none.

use super::*;

/// Segments with room for a read made ahead.
fn roomy() -> JournalOptions {
    JournalOptions {
        segment_bytes: 512 << 10,
        ..small()
    }
}

#[test]
fn records_are_read_back_and_neighbours_share_a_read() {
    let place = Place::new();
    let path = place.0.clone();
    run(async move {
        let (mut client, _) = Client::open(&path, &small()).await;
        for _ in 0..30 {
            client.append(10);
            client.settle().await;
        }
        let stored = client.stored.clone();
        for &(ticket, at) in stored.iter().rev() {
            client.batch.reads.push((ticket.0, at));
        }
        assert!(client.journal.submit(&mut client.batch));
        client.settle().await;
        client.loaded.sort();
        assert_eq!(client.loaded.len(), 300);
        for (number, bytes) in &client.loaded {
            assert_eq!(*bytes, payload(*number));
        }
        let totals = client.journal.totals();
        assert!(totals.read_windows < 40, "{totals:?}");
        let wrong = Location {
            len: stored[0].1.len + 1,
            ..stored[0].1
        };
        client.loaded.clear();
        client.read(1, wrong);
        client.read(
            2,
            Location {
                segment: 99,
                ..stored[0].1
            },
        );
        client.read(
            3,
            Location {
                offset: u32::MAX - 8,
                ..stored[0].1
            },
        );
        client.read(
            4,
            Location {
                offset: stored[0].1.offset + 8,
                ..stored[0].1
            },
        );
        client.settle().await;
        client.loaded.sort();
        let unreadable: Vec<_> = (1..=4).map(|token| (token, Vec::new())).collect();
        assert_eq!(
            client.loaded, unreadable,
            "unreadable is empty, never something else"
        );
        client.journal.close().await;
    });
}

/// A few places at which reads go forward, as those of users who come in the order of their messages.
#[test]
fn reads_that_go_forward_are_made_ahead_and_bring_the_right_records() {
    let place = Place::new();
    let path = place.0.clone();
    run(async move {
        let (mut client, _) = Client::open(&path, &roomy()).await;
        for _ in 0..120 {
            client.append(25);
            client.settle().await;
        }
        let stored = client.stored.clone();
        let (trails, each) = (5, 600);
        for step in 0..each {
            for trail in 0..trails {
                let (ticket, at) = stored[trail * each + step];
                client.read(ticket.0, at);
            }
            // At times the next ones are asked for while these are being read.
            if step % 3 != 0 {
                client.settle().await;
            }
        }
        client.settle().await;
        client.loaded.sort();
        assert_eq!(client.loaded.len(), trails * each, "each is answered once");
        for (number, bytes) in &client.loaded {
            assert_eq!(*bytes, payload(*number));
        }
        let totals = client.journal.totals();
        assert!(totals.read_windows < 300, "{totals:?}");
        assert_eq!(totals.reads_failed, 0);
        client.journal.close().await;
    });
}

#[test]
fn what_is_written_behind_a_read_made_ahead_is_read_when_it_is_there() {
    let place = Place::new();
    let path = place.0.clone();
    run(async move {
        let (mut client, _) = Client::open(&path, &roomy()).await;
        for round in 0..60 {
            client.append(10);
            client.settle().await;
            let stored = client.stored[client.stored.len() - 10..].to_vec();
            client.loaded.clear();
            for &(ticket, at) in &stored {
                client.read(ticket.0, at);
                client.settle().await;
            }
            assert_eq!(client.loaded.len(), 10, "round {round}");
            for (number, bytes) in &client.loaded {
                assert_eq!(*bytes, payload(*number), "round {round}");
            }
        }
        client.journal.close().await;
    });
}

/// What cannot be read is answered, also while a read that seems to cover it is under way.
#[test]
fn a_wrong_place_within_a_read_made_ahead_is_unreadable_and_holds_up_nobody() {
    let place = Place::new();
    let path = place.0.clone();
    run(async move {
        let (mut client, _) = Client::open(&path, &roomy()).await;
        for _ in 0..20 {
            client.append(25);
            client.settle().await;
        }
        let stored = client.stored.clone();
        for &(ticket, at) in &stored {
            client.read(ticket.0, at);
            let offset = at.offset + 8;
            client.read(1_000_000 + ticket.0, Location { offset, ..at });
            if ticket.0 % 4 == 0 {
                client.settle().await;
            }
        }
        client.settle().await;
        assert_eq!(client.loaded.len(), 2 * stored.len());
        for (number, bytes) in &client.loaded {
            match number.checked_sub(1_000_000) {
                Some(_) => assert!(bytes.is_empty()),
                None => assert_eq!(*bytes, payload(*number)),
            }
        }
        client.journal.close().await;
    });
}
