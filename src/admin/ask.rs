//! Questions to running shards: a bounded queue each, answered between two turns.
//!
//! A question is put into its shard's queue, then the shard is knocked for; it looks at one flag a turn,
//! so that nobody pays for questions that are not asked. Whoever asks waits for two seconds at most: a
//! shard that does not answer by then says something by that, too.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Sender, bounded};
use crossbeam::queue::ArrayQueue;

use crate::base::time::Timestamp;
use crate::io::clock::Clock;
use crate::io::host::Knocker;
use crate::io::recorder::{Recorder, events};
use crate::shard::questions::{Answer, Memory, Question, SessionReport, Timers};
use crate::shard::{Shard, owner};
use crate::sip::uri;

/// Questions that may wait for one shard.
const QUESTIONS_MAX: usize = 16;
/// How long an answer may take.
pub const ANSWER_MAX: Duration = Duration::from_secs(2);
/// How long all pages of one question may take together: less than who asked waits for them.
const PAGES_MAX: Duration = Duration::from_secs(20);

#[derive(Debug)]
enum Asked {
    /// Of the shard.
    Core(Question, Sender<Answer>),
    /// Of its flight recorder: the oldest chunk from this number on.
    Recorded(u64, Sender<Option<Chunk>>),
}

/// A chunk of a flight recorder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Its number.
    pub number: u64,
    /// The clock of its shard when it was copied.
    pub now: Timestamp,
    /// Its octets; see [`events`].
    pub bytes: Vec<u8>,
}

/// The queues. The shards hold one end of it, who asks the other.
#[derive(Clone, Debug)]
pub struct Questions(Arc<Vec<ArrayQueue<Asked>>>);

impl Questions {
    /// No questions to `shards` shards.
    #[must_use]
    pub fn new(shards: usize) -> Self {
        let queue = |_| ArrayQueue::new(QUESTIONS_MAX);
        Self(Arc::new((0..shards).map(queue).collect()))
    }

    /// Lets `core` answer the oldest question to `shard`; true when more wait.
    pub fn attend(
        &self,
        shard: u8,
        (core, recorder): (&mut Shard, &Recorder),
        now: Timestamp,
    ) -> bool {
        let queue = &self.0[usize::from(shard)];
        // Who asked may have gone meanwhile.
        match queue.pop() {
            Some(Asked::Core(question, answer)) => {
                let _ = answer.try_send(core.ask(now, &question));
            }
            Some(Asked::Recorded(from, answer)) => {
                let chunk = recorder.read(from).map(|(number, bytes)| Chunk {
                    number,
                    now,
                    bytes: bytes.to_vec(),
                });
                let _ = answer.try_send(chunk);
            }
            None => {}
        }
        !queue.is_empty()
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskError {
    /// No identity of a user.
    BadIdentity,
    /// Too many others ask.
    Busy {
        /// The shard.
        shard: u8,
    },
    /// The shard has ended.
    Gone {
        /// The shard.
        shard: u8,
    },
    /// It took too long.
    Late {
        /// The shard.
        shard: u8,
    },
    /// The walk through all pages took too long; what was found by then is not shown as the whole.
    Long {
        /// The shard.
        shard: u8,
    },
    /// What was recorded has nothing of what was asked for.
    Nothing,
    /// Nothing is recorded.
    Off,
    /// No shard knows the user.
    Unknown,
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadIdentity => {
                f.write_str("this is no public identity; give a sip: URI, a tel: URI or a number that starts with +")
            }
            Self::Busy { shard } => {
                write!(f, "shard {shard} has {QUESTIONS_MAX} questions to answer; ask again")
            }
            Self::Gone { shard } => write!(f, "shard {shard} has ended"),
            Self::Late { shard } => write!(
                f,
                "shard {shard} did not answer within {} s; is it stuck? see `volley ctl shards`",
                ANSWER_MAX.as_secs()
            ),
            Self::Long { shard } => write!(
                f,
                "shard {shard} holds more than can be looked through in {} s; narrow the question",
                PAGES_MAX.as_secs()
            ),
            Self::Nothing => f.write_str(
                "nothing of it is among what was recorded; ask for a longer time, or give the recorder more \
                 (instruments.flight_recorder)",
            ),
            Self::Off => f.write_str(
                "there is no flight recorder: set instruments.flight_recorder and start again",
            ),
            Self::Unknown => f.write_str(
                "nobody of that identity is known: no message waits, and no registration was told",
            ),
        }
    }
}

impl std::error::Error for AskError {}

/// A URI, also for who writes a number or an address as this interface shows them.
fn written(identity: &str) -> String {
    let scheme = match identity {
        _ if identity.contains(':') => "",
        _ if identity.starts_with('+') => "tel:",
        _ => "sip:",
    };
    format!("{scheme}{identity}")
}

/// Asks the shards of a running engine.
#[derive(Clone, Debug)]
pub struct Line {
    questions: Questions,
    knocker: Knocker,
}

impl Line {
    /// A line to the shards that attend to `questions`.
    #[must_use]
    pub const fn new(questions: Questions, knocker: Knocker) -> Self {
        Self { questions, knocker }
    }

    fn shards(&self) -> u8 {
        u8::try_from(self.questions.0.len() - 1).expect("at most 256 shards")
    }

    fn put<T>(&self, shard: u8, asked: impl FnOnce(Sender<T>) -> Asked) -> Result<T, AskError> {
        use crossbeam::channel::RecvTimeoutError;
        let (sender, receiver) = bounded(1);
        let queue = &self.questions.0[usize::from(shard)];
        queue
            .push(asked(sender))
            .map_err(|_| AskError::Busy { shard })?;
        self.knocker.knock(shard);
        receiver
            .recv_timeout(ANSWER_MAX)
            .map_err(|error| match error {
                RecvTimeoutError::Timeout => AskError::Late { shard },
                RecvTimeoutError::Disconnected => AskError::Gone { shard },
            })
    }

    /// Asks one shard.
    ///
    /// # Errors
    /// When it is busy, or does not answer in time.
    pub fn ask(&self, shard: u8, question: Question) -> Result<Answer, AskError> {
        self.put(shard, |answer| Asked::Core(question, answer))
    }

    /// What the flight recorder of each shard has, oldest first; nothing of a shard that records nothing.
    ///
    /// # Errors
    /// As [`Line::ask`].
    pub fn recorded(&self) -> Result<Vec<(u8, Chunk)>, AskError> {
        let mut chunks = Vec::new();
        for shard in 0..=self.shards() {
            let mut from = 0;
            let mut began = None;
            while let Some(chunk) = self.put(shard, |answer| Asked::Recorded(from, answer))? {
                let now = *began.get_or_insert(chunk.now);
                from = chunk.number + 1;
                // What is recorded while this walks is of another time.
                let enough = events(&chunk.bytes).any(|(event, _)| event.at > now);
                chunks.push((shard, chunk));
                if enough {
                    break;
                }
            }
        }
        Ok(chunks)
    }

    /// Asks about a user: first the shard that owns the identity, then the others, since only the user's
    /// own shard knows the other identities of an implicit set. The answer, and whose it is.
    ///
    /// # Errors
    /// As [`Line::ask`]; [`AskError::Unknown`] when no shard knows the user.
    pub fn ask_about(
        &self,
        identity: &str,
        question: impl Fn(Vec<u8>) -> Question,
    ) -> Result<(u8, Answer), AskError> {
        let identity = &written(identity);
        let mut canonical = Vec::new();
        uri::canonical_identity(identity.as_bytes(), &mut canonical)
            .map_err(|_| AskError::BadIdentity)?;
        let first = owner(&canonical, self.questions.0.len());
        let others = (0..=self.shards()).filter(|&shard| shard != first);
        for shard in core::iter::once(first).chain(others) {
            let answer = self.ask(shard, question(identity.as_bytes().to_vec()))?;
            if answer != Answer::Unknown {
                return Ok((shard, answer));
            }
        }
        Err(AskError::Unknown)
    }

    /// Walks through all pages of one shard; `take` says where to go on.
    fn walk(
        &self,
        shard: u8,
        mut next: impl FnMut(Answer) -> Option<Question>,
        first: Question,
    ) -> Result<(), AskError> {
        let begun = Clock.now();
        let mut question = first;
        loop {
            let answer = self.ask(shard, question)?;
            let Some(more) = next(answer) else {
                return Ok(());
            };
            if Clock.now().since(begun) > PAGES_MAX {
                return Err(AskError::Long { shard });
            }
            question = more;
        }
    }

    /// The first `limit` established sessions, shard by shard, and whether there are more.
    ///
    /// # Errors
    /// As [`Line::ask`].
    pub fn sessions(&self, limit: usize) -> Result<(Vec<SessionReport>, bool), AskError> {
        let mut all = Vec::new();
        let mut more = false;
        for shard in 0..=self.shards() {
            let ask = |from, room| Question::Sessions {
                user: None,
                from,
                limit: room,
            };
            let take = |answer| {
                let Answer::Sessions(rows, next) = answer else {
                    return None;
                };
                all.extend(rows);
                let room = limit.saturating_sub(all.len());
                if room == 0 {
                    more |= next.is_some();
                    return None;
                }
                next.map(|from| ask(from, room))
            };
            self.walk(shard, take, ask(0, limit))?;
            if all.len() >= limit {
                more |= shard < self.shards();
                break;
            }
        }
        Ok((all, more))
    }

    /// Armed timers of each shard.
    ///
    /// # Errors
    /// As [`Line::ask`].
    pub fn timers(&self) -> Result<Vec<Timers>, AskError> {
        let shards = 0..=self.shards();
        let timers = shards.map(|shard| {
            let mut sum = Timers::default();
            let take = |answer| {
                let Answer::Timers(timers, next) = answer else {
                    return None;
                };
                sum.merge(&timers);
                next.map(|from| Question::Timers { from })
            };
            self.walk(shard, take, Question::Timers { from: 0 })?;
            Ok(sum)
        });
        timers.collect()
    }

    /// What each shard holds in memory.
    ///
    /// # Errors
    /// As [`Line::ask`].
    pub fn memory(&self) -> Result<Vec<Memory>, AskError> {
        let shards = 0..=self.shards();
        let memories = shards.map(|shard| {
            let mut sum = Memory::default();
            let take = |answer| {
                let Answer::Memory(memory, next) = answer else {
                    return None;
                };
                sum.merge(&memory);
                next.map(|from| Question::Memory { from })
            };
            self.walk(shard, take, Question::Memory { from: 0 })?;
            Ok(sum)
        });
        memories.collect()
    }
}
