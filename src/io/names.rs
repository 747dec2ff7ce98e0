//! Looks host names up, beside the shards: the system's resolver blocks, and a shard never waits.
//!
//! One thread per process asks `getaddrinfo` (files, A and AAAA, as the host is configured), one name
//! after the other. Questions and answers lie in bounded queues; a question that finds its queue full is
//! answered with nothing at once, and the core asks again later. What found no room is counted, by the shard
//! that asked. The resolver tells no TTL, so how long an answer holds is the core's matter.

use core::net::IpAddr;
use core::sync::atomic::{AtomicU64, Ordering};
use std::io;
use std::net::ToSocketAddrs as _;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use crossbeam::queue::ArrayQueue;

use crate::base::surface::NameQuery;

use super::driver::Shared;

/// Questions that may wait for the thread.
const QUESTIONS_MAX: usize = 256;
/// Answers that may wait for one shard.
const ANSWERS_MAX: usize = 256;
/// Most addresses of one answer.
const ADDRESSES_MAX: usize = 8;

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// The token of the question.
    pub token: u64,
    /// Best first; empty when nobody knows.
    pub addresses: Vec<IpAddr>,
}

/// A question and the shard that has it.
#[derive(Debug)]
struct Question {
    shard: usize,
    query: NameQuery,
}

/// What a shard asked in vain since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dropped {
    /// Questions that found their queue full.
    pub unasked: u64,
    /// Answers of the resolver that found theirs full.
    pub unheard: u64,
}

/// Answers on their way to one shard, and what it asked in vain.
#[derive(Debug)]
struct Lane {
    answers: ArrayQueue<Answer>,
    unasked: AtomicU64,
    unheard: AtomicU64,
}

impl Lane {
    fn new() -> Self {
        Self {
            answers: ArrayQueue::new(ANSWERS_MAX),
            unasked: AtomicU64::new(0),
            unheard: AtomicU64::new(0),
        }
    }
}

/// Answers on their way to the shards.
#[derive(Debug)]
pub(super) struct Answers(Vec<Lane>);

impl Answers {
    pub(super) fn new(shards: usize) -> Self {
        Self((0..shards).map(|_| Lane::new()).collect())
    }

    pub(super) fn pop(&self, shard: usize) -> Option<Answer> {
        self.0.get(shard)?.answers.pop()
    }

    pub(super) fn is_empty_for(&self, shard: usize) -> bool {
        let lane = self.0.get(shard);
        lane.is_none_or(|lane| lane.answers.is_empty())
    }

    /// What `shard` asked in vain so far. Two loads that order nothing.
    pub(super) fn dropped(&self, shard: usize) -> Dropped {
        self.0
            .get(shard)
            .map_or_else(Dropped::default, |lane| Dropped {
                unasked: lane.unasked.load(Ordering::Relaxed),
                unheard: lane.unheard.load(Ordering::Relaxed),
            })
    }

    /// One that finds the queue full is dropped and counted: the core's wait for it ends by itself.
    fn push(&self, shard: usize, answer: Answer) {
        if let Some(lane) = self.0.get(shard)
            && lane.answers.push(answer).is_err()
        {
            lane.unheard.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Answers with nothing what nobody was asked. Where there is no room for that either, it is one name
    /// that was dropped still.
    fn refuse(&self, shard: usize, token: u64) {
        if let Some(lane) = self.0.get(shard) {
            lane.unasked.fetch_add(1, Ordering::Relaxed);
            let addresses = Vec::new();
            let _ = lane.answers.push(Answer { token, addresses });
        }
    }
}

/// A shard's way to the thread.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    questions: SyncSender<Question>,
    shared: Arc<Shared>,
    shard: usize,
}

impl Asker {
    /// Hands the question on, or answers it with nothing when there are too many.
    pub(super) fn ask(&self, query: NameQuery) {
        let shard = self.shard;
        match self.questions.try_send(Question { shard, query }) {
            Ok(()) => {}
            Err(TrySendError::Full(question) | TrySendError::Disconnected(question)) => {
                self.shared.answers.refuse(shard, question.query.token);
            }
        }
    }
}

/// Starts the thread; it ends with the last of the askers, one per shard.
pub(super) fn start(shared: &Arc<Shared>, shards: usize) -> io::Result<Vec<Asker>> {
    let (questions, asked) = sync_channel(QUESTIONS_MAX);
    let thread_shared = Arc::clone(shared);
    std::thread::Builder::new()
        .name("names".to_owned())
        .spawn(move || serve(&asked, &thread_shared))?;
    let asker = |shard| Asker {
        questions: questions.clone(),
        shared: Arc::clone(shared),
        shard,
    };
    Ok((0..shards).map(asker).collect())
}

fn serve(asked: &Receiver<Question>, shared: &Shared) {
    while let Ok(Question { shard, query }) = asked.recv() {
        let addresses = look_up(&query.name);
        let token = query.token;
        shared.answers.push(shard, Answer { token, addresses });
        shared.mesh.wake(shard).notify();
    }
}

/// The addresses of `name`, in the resolver's order (RFC 6724), each once.
fn look_up(name: &str) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    // Any port: only the addresses are looked at.
    if let Ok(found) = (name, 0).to_socket_addrs() {
        for address in found {
            let ip = address.ip();
            if addresses.len() < ADDRESSES_MAX && !addresses.contains(&ip) {
                addresses.push(ip);
            }
        }
    }
    addresses
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::io::mesh::Mesh;
    use core::sync::atomic::AtomicBool;

    fn shared() -> Arc<Shared> {
        Arc::new(Shared {
            asked: vec![AtomicBool::new(false)],
            mesh: Mesh::new(2).unwrap(),
            answers: Answers::new(2),
            stop: AtomicBool::new(false),
        })
    }

    fn query(token: u64, name: &str) -> NameQuery {
        NameQuery {
            token,
            name: name.to_owned(),
        }
    }

    fn wait_for(shared: &Shared, shard: usize) -> Answer {
        loop {
            if let Some(answer) = shared.answers.pop(shard) {
                return answer;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_name_of_the_hosts_file_is_found_and_told_to_the_shard_that_asked() {
        let shared = shared();
        let askers = start(&shared, 2).unwrap();
        askers[1].ask(query(7, "localhost"));
        let answer = wait_for(&shared, 1);
        assert_eq!(answer.token, 7);
        assert!(answer.addresses.iter().any(IpAddr::is_loopback));
        assert!(shared.answers.is_empty_for(0));
    }

    #[test]
    fn what_is_no_name_has_no_address() {
        let shared = shared();
        let askers = start(&shared, 2).unwrap();
        askers[0].ask(query(1, "no name at all"));
        assert!(wait_for(&shared, 0).addresses.is_empty());
    }

    /// An asker for shard 0 whose questions are taken by nobody while the other half lives: there is room
    /// for one.
    pub(in crate::io) fn unheard_asker(shared: &Arc<Shared>) -> (Asker, impl Sized + use<>) {
        let (questions, asked) = sync_channel(1);
        let asker = Asker {
            questions,
            shared: Arc::clone(shared),
            shard: 0,
        };
        (asker, asked)
    }

    #[test]
    fn a_question_too_many_is_answered_with_nothing_and_counted() {
        let shared = shared();
        let (asker, asked) = unheard_asker(&shared);
        asker.ask(query(1, "a.example"));
        asker.ask(query(2, "b.example"));
        assert_eq!(wait_for(&shared, 0).token, 2, "nobody takes the first");
        drop(asked);
        for token in 3..3000 {
            asker.ask(query(token, "c.example"));
        }
        let mut waiting = 0;
        while shared.answers.pop(0).is_some() {
            waiting += 1;
        }
        assert_eq!(waiting, ANSWERS_MAX);
        let unasked = Dropped {
            unasked: 1 + 2997,
            unheard: 0,
        };
        assert_eq!(shared.answers.dropped(0), unasked, "each once");
        assert_eq!(shared.answers.dropped(1), Dropped::default());
    }

    #[test]
    fn an_answer_that_finds_its_queue_full_is_counted_at_the_shard_that_asked() {
        let shared = shared();
        let (questions, asked) = sync_channel(QUESTIONS_MAX);
        let count = u64::try_from(ANSWERS_MAX).unwrap() + 3;
        std::thread::scope(|scope| {
            let beside = &shared;
            scope.spawn(move || serve(&asked, beside));
            for token in 0..count {
                let query = query(token, "no name at all");
                questions.send(Question { shard: 1, query }).unwrap();
            }
            drop(questions);
        });
        let unheard = Dropped {
            unasked: 0,
            unheard: 3,
        };
        assert_eq!(shared.answers.dropped(1), unheard);
        assert_eq!(shared.answers.dropped(0), Dropped::default());
    }
}
