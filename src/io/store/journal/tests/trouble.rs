//! What the system refuses for a while, and what must not be lost over it.

use std::pin::pin;
use std::task::Poll;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::checkpoint::{Index, open_index, until_checkpoints, with_checkpoints};
use super::*;

/// `None` when `future` takes longer than any of these tests should.
async fn soon<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut limit = pin!(exec::sleep(Duration::from_secs(20)));
    std::future::poll_fn(|context| {
        if let Poll::Ready(value) = future.as_mut().poll(context) {
            return Poll::Ready(Some(value));
        }
        limit.as_mut().poll(context).map(|()| None)
    })
    .await
}

/// Fails rather than waits for ever when it does not close.
async fn closes(client: Client) {
    let closed = soon(client.journal.close()).await;
    assert!(closed.is_some(), "it closes");
}

async fn until(client: &mut Client, what: &str, done: impl Fn(&Client) -> bool) {
    for _ in 0..4000 {
        client.collect();
        if done(client) {
            return;
        }
        exec::sleep(Duration::from_millis(5)).await;
    }
    panic!("{what}: {:?}", client.journal.totals());
}

#[test]
fn a_segment_that_cannot_be_made_is_tried_again_and_nothing_fails_meanwhile() {
    let place = Place::new();
    let path = place.0.clone();
    run(async move {
        let (mut client, _) = Client::open(&path, &small()).await;
        let last = client.journal.current_segment() + small().spare_segments;
        let there = segment::path(&path, last);
        until(&mut client, "spares", |_| there.exists()).await;
        let obstacle = segment::path(&path, last + 1);
        fs::create_dir(&obstacle).unwrap();
        while client.room != Some(Room::NoSegment) {
            assert!(client.next < 5000, "the obstacle is met");
            client.append(5);
            client.settle().await;
        }
        // What is there is used up, and then it waits.
        for _ in 0..150 {
            client.append(5);
            exec::sleep(Duration::from_millis(2)).await;
            client.collect();
            assert_eq!(client.failed_from, None, "waiting is no failure");
        }
        assert_eq!(client.journal.health(), Health::SpaceLow);
        assert!((client.stored.len() as u64) + 1 < client.next, "it waits");
        fs::remove_dir(&obstacle).unwrap();
        until(&mut client, "well again", |client| {
            client.room == Some(Room::Enough)
        })
        .await;
        client.settle().await;
        assert_eq!(client.journal.health(), Health::Well);
        assert_eq!(client.stored.len() as u64 + 1, client.next);
        let count = client.next;
        client.journal.close().await;
        let (found, _) = reopen(&path, &small()).await.unwrap();
        assert_eq!(numbers(&found), (1..count).collect::<Vec<_>>());
    });
}

#[test]
fn a_file_in_the_place_of_a_new_segment_is_left_alone_and_an_unfinished_one_goes() {
    let place = Place::new();
    let path = place.0.clone();
    run(async move {
        let plan = |number, bytes| segment::Plan {
            number,
            bytes,
            stamp: Stamp::default(),
            shard: 0,
        };
        let other = segment::path(&path, 7);
        fs::write(&other, b"another's").unwrap();
        segment::create(&path, plan(7, 32 << 10)).await.unwrap_err();
        assert_eq!(fs::read(&other).unwrap(), b"another's");
        // Nor is it written over by one that is made of an earlier segment.
        let kept = segment::free_path(&path, 3);
        fs::write(&kept, vec![0; 32 << 10]).unwrap();
        let renewed = segment::renew(&path, 3, plan(7, 32 << 10)).await;
        assert!(renewed.unwrap_err().to_string().contains("00000007.seg"));
        assert_eq!(fs::read(&other).unwrap(), b"another's");
        assert!(!kept.exists());
        // No octets cannot be allocated.
        segment::create(&path, plan(8, 0)).await.unwrap_err();
        assert!(!segment::path(&path, 8).exists());
    });
}

#[test]
fn what_the_system_answers_keeps_its_number() {
    let place = Place::new();
    let path = place.0.clone();
    run(async move {
        let number = |error: io::Error| error.raw_os_error();
        let none = path.join("none");
        let missing = exec::OpenOptions::default().open(&none).await;
        assert_eq!(number(missing.unwrap_err()), Some(libc::ENOENT));
        let missing = exec::sync_directory(&none).await;
        assert_eq!(number(missing.unwrap_err()), Some(libc::ENOENT));
        let options = exec::OpenOptions {
            write: true,
            create_new: true,
            ..exec::OpenOptions::default()
        };
        let file = options.open(&none).await.unwrap();
        let nothing = file.allocate(0).await;
        assert_eq!(number(nothing.unwrap_err()), Some(libc::EINVAL));
        let there = options.open(&none).await;
        assert_eq!(number(there.unwrap_err()), Some(libc::EEXIST));
    });
}

#[test]
fn a_failed_journal_with_dead_segments_in_its_queue_closes() {
    let place = Place::new();
    let path = place.0.clone();
    run(async move {
        let (mut client, _) = Client::open(&path, &small()).await;
        client.append(2);
        client.settle().await;
        let long = vec![7; small().payload_max() + 1];
        client.batch.bytes.extend_from_slice(&long);
        let append = (StoreTicket(3), long.len() as u32);
        client.batch.appends.push(append);
        client.batch.dead_segments.push(1);
        assert!(client.journal.submit(&mut client.batch));
        closes(client).await;
    });
}

#[test]
fn a_dead_segment_that_the_checkpoint_needs_does_not_keep_a_journal_from_closing() {
    let place = Place::new();
    let path = place.0.clone();
    run(async move {
        let options = with_checkpoints();
        let (mut client, mut index) = open_index(&path, &options).await;
        until_checkpoints(&mut client, &mut index, 1).await;
        let (floor, _) = client.journal.shared.state().checkpoint.unwrap();
        let floor = format::split(floor).0;
        client.batch.dead_segments.push(floor);
        assert!(client.journal.submit(&mut client.batch));
        closes(client).await;
        assert!(segment::path(&path, floor).exists());
    });
}

#[test]
fn no_segment_is_removed_before_one_that_died_earlier() {
    let place = Place::new();
    let path = place.0.clone();
    run(async move {
        let (mut client, before) = with_segments(&path).await;
        let [first, second] = [before[1], before[2]].map(|at| segment::path(&path, at));
        let aside = path.join("aside");
        fs::rename(&first, &aside).unwrap();
        fs::create_dir(&first).unwrap();
        client.batch.dead_segments.extend(&before[1..3]);
        assert!(client.journal.submit(&mut client.batch));
        client.settle().await;
        exec::sleep(Duration::from_millis(300)).await;
        assert!(second.exists(), "it waits for the one before");
        assert_eq!(client.journal.totals().reclaimed, 0);
        fs::remove_dir(&first).unwrap();
        fs::rename(&aside, &first).unwrap();
        until(&mut client, "removed", |client| {
            client.journal.totals().reclaimed == 2
        })
        .await;
        assert!(!first.exists() && !second.exists());
        // Nor does one that stays for good keep the journal from closing.
        let third = segment::path(&path, before[3]);
        fs::remove_file(&third).unwrap();
        fs::create_dir(&third).unwrap();
        client.batch.dead_segments.push(before[3]);
        assert!(client.journal.submit(&mut client.batch));
        closes(client).await;
    });
}

/// Runs in a process of its own: the limit on open files would hit other tests.
#[test]
#[ignore = "started by the test below"]
fn child_makes_a_checkpoint_without_a_descriptor_for_the_directory() {
    let place = Place::new();
    let path = place.0.clone();
    run(async move {
        let options = with_checkpoints();
        let (mut client, mut index) = open_index(&path, &options).await;
        let usual = getrlimit(Resource::Nofile);
        while !path.join("checkpoint").exists() {
            assert!(client.next < 20_000, "a checkpoint is made");
            until_a_piece_is_wanted(&mut client, &mut index).await;
            let Some(at) = client.journal.wants_piece() else {
                exec::sleep(Duration::from_micros(100)).await;
                continue;
            };
            if at > 0 {
                // Its file is open by now; nothing more can be opened.
                let none = Rlimit {
                    current: Some(3),
                    ..usual
                };
                setrlimit(Resource::Nofile, none).unwrap();
            }
            let mut piece = Vec::new();
            let next = index.save(at, &mut piece);
            client.journal.take_piece(&mut piece, next);
            exec::sleep(Duration::from_micros(100)).await;
        }
        exec::sleep(Duration::from_millis(100)).await;
        setrlimit(Resource::Nofile, usual).unwrap();
        assert_eq!(client.journal.totals().checkpoints, 0, "not for certain");
        let floor = format::split(client.journal.shared.state().floor).0;
        while client.journal.current_segment() < floor + 2 {
            assert!(client.next < 20_000, "it is written on");
            client.append(5);
            client.settle().await;
        }
        let written: Vec<u32> = (floor..client.journal.current_segment()).collect();
        client.batch.dead_segments.extend(&written);
        assert!(client.journal.submit(&mut client.batch));
        exec::sleep(Duration::from_secs(2)).await;
        for number in written {
            let path = segment::path(&path, number);
            assert!(path.exists(), "the next start may need {number}");
        }
        client.journal.close().await;
    });
}

async fn until_a_piece_is_wanted(client: &mut Client, index: &mut Index) {
    if client.journal.wants_piece().is_none()
        && matches!(client.journal.shared.state().walk, Walk::Idle)
    {
        client.append(5);
        client.settle().await;
    }
    client.collect();
    for (ticket, at) in client.stored.drain(..) {
        index.held.insert(ticket.0, at);
    }
}

#[test]
fn a_checkpoint_whose_name_may_be_there_keeps_the_segments_it_needs() {
    child(concat!(
        module_path!(),
        "::child_makes_a_checkpoint_without_a_descriptor_for_the_directory"
    ));
}
