//! The table of server transactions: which request is new, which one came before and what was
//! answered (RFC 3261 section 17.2.2 and 17.2.3; RFC 4320).
//!
//! A row lives from the first copy of a request until repeats of it can no longer come: 64*T1 after
//! the final response (Timer J, and L for INVITE); over a reliable transport it ends with the
//! response, except for INVITE. A request that is never answered is forgotten after 64*T1 as well,
//! because its client gave up then and a 408 would only harm (RFC 4320 section 4.2).
//!
//! When the table is full, the request answered longest ago makes room, if that was a while ago: over UDP
//! a client whose answer was lost asks again within T2, so what it does not ask for in twice that time it has.
//!
//! Rows are found by a keyed 128-bit digest of what identifies the transaction, so that no octet of
//! the peer's is stored. The wait is the same for all rows, so expiry is a queue, not a heap.

use core::hash::{BuildHasher, Hasher};
use core::time::Duration;
use std::collections::VecDeque;

use crate::base::map::{Map, MapKeys, new_map};
use crate::base::slab::{Key, Slab};
use crate::base::time::Timestamp;
use crate::sip::header::HeaderName;
use crate::sip::message::{Message, Method, Via};

#[cfg(test)]
mod tests;

/// Most rows forgotten in one call of [`ServerTable::advance`].
const EXPIRE_PER_CALL_MAX: usize = 256;
/// Buffers above this size are not pooled, octets.
const POOLED_BYTES_MAX: usize = 4096;
/// T1s after which an answered row may make room for another: twice T2, as T2 is 8 T1 by default (RFC 3261
/// section 17.1.2.2).
const SETTLED_T1: u32 = 16;
/// Rows made at the start, if the bound is not lower.
const WARM_ROWS: usize = 65_536;
/// Rows looked at, in the order of their deadlines, for one that may make room.
const LOOKED_AT_MAX: usize = 8;

/// Bounds of a [`ServerTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerOptions {
    /// T1 of the next hops towards us; rows live 64 times as long.
    pub t1: Duration,
    /// Most transactions at a time. With all of them answered less than 16 T1 ago or not at all, more are
    /// refused as [`Lookup::Full`].
    pub transactions_max: usize,
    /// Most octets of kept responses together; beyond it responses are not kept, and repeats of
    /// their requests are absorbed in silence.
    pub response_bytes_max: usize,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            t1: Duration::from_millis(500),
            transactions_max: 262_144,
            response_bytes_max: 64 * 1024 * 1024,
        }
    }
}

/// Names one server transaction; refused by the table once it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServerKey(Key);

/// What a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup<'a> {
    /// The ACK for our final response other than 2xx: feed the INVITE's machine, answer nothing.
    Ack(ServerKey),
    /// A new CANCEL: answer 200 when `target` exists, else 481; a pending INVITE then gets 487.
    Cancel {
        /// The CANCEL's own transaction.
        key: ServerKey,
        /// What it wants cancelled.
        target: Option<ServerKey>,
    },
    /// An ACK of no transaction: for a 2xx, so the dialog's affair, or stray. Never answered.
    DialogAck,
    /// No room: refuse statelessly (503) or drop.
    Full,
    /// The same request came by another path: answer 482 statelessly.
    Merged,
    /// Handle it, then call [`ServerTable::store_response`].
    New(ServerKey),
    /// It came before: send `response` again; nothing when that is empty.
    Retransmission {
        /// The transaction.
        key: ServerKey,
        /// The last response.
        response: &'a [u8],
    },
    /// Not a request, or one without the parts that identify it.
    Unusable,
}

#[derive(Debug, Default)]
struct Row {
    digest: u128,
    merge_digest: Option<u128>,
    deadline: Timestamp,
    response: Vec<u8>,
    /// Of the last response; 0 before the first.
    status: u16,
    is_invite: bool,
    is_reliable: bool,
    is_acked: bool,
}

impl Row {
    /// Answered; and acknowledged, where that is due.
    const fn is_over(&self) -> bool {
        self.status >= 200 && (self.is_acked || !self.is_invite)
    }
}

/// All server transactions of a shard. Owner: the shard's routing, which asks it about each request
/// first. Allocates in `new`, and for response buffers until its pool is warm.
#[derive(Debug)]
pub struct ServerTable {
    rows: Slab<Row>,
    by_digest: Map<u128, Key>,
    by_merge: Map<u128, Key>,
    /// Rows in the order of their deadlines; one that was answered later than it came is in it twice.
    expiry: VecDeque<(Timestamp, Key)>,
    pool: Vec<Vec<u8>>,
    response_bytes: usize,
    forgotten: u64,
    wait: Duration,
    /// Of `wait`, what is left when a row is settled.
    spare: Duration,
    response_bytes_max: usize,
    hashers: [ahash::RandomState; 2],
}

impl ServerTable {
    /// An empty table.
    ///
    /// # Panics
    /// When `transactions_max` is zero or above 2^26.
    #[must_use]
    pub fn new(options: &ServerOptions, keys: MapKeys) -> Self {
        let bound = options.transactions_max;
        let [a, b, c, d] = keys.0;
        let other = MapKeys([c.rotate_left(17), !d, a.rotate_left(31), !b]);
        Self {
            rows: Slab::new(bound, bound.min(WARM_ROWS)),
            by_digest: new_map(keys, bound),
            by_merge: new_map(keys, bound),
            expiry: VecDeque::with_capacity(2 * bound),
            pool: Vec::with_capacity(bound),
            response_bytes: 0,
            forgotten: 0,
            wait: options.t1 * 64,
            spare: options.t1 * (64 - SETTLED_T1),
            response_bytes_max: options.response_bytes_max,
            hashers: [keys.hasher(), other.hasher()],
        }
    }

    /// Says what `request` is and opens a row when it is new. `now` must not go back.
    pub fn lookup(&mut self, now: Timestamp, request: &Message<'_>) -> Lookup<'_> {
        let Ok(via) = request.via_top() else {
            return Lookup::Unusable;
        };
        if !request.is_request() {
            return Lookup::Unusable;
        }
        let method = request.method();
        let Some(digest) = self.digest(request, &via, method, request.method_bytes()) else {
            return Lookup::Unusable;
        };
        if let Some(key) = self.by_digest.get(&digest).copied() {
            return self.known(key, method == Method::Ack);
        }
        if method == Method::Ack {
            return Lookup::DialogAck;
        }
        let merge_digest = self.merge_digest(request);
        if merge_digest.is_some_and(|merge| self.by_merge.contains_key(&merge)) {
            return Lookup::Merged;
        }
        let Some(key) = self.open(now, digest, merge_digest) else {
            return Lookup::Full;
        };
        let row = self.rows.lookup_mut(key).expect("just opened");
        row.is_invite = method == Method::Invite;
        row.is_reliable = !via.transport.eq_ignore_ascii_case(b"UDP");
        if method == Method::Cancel {
            let target = self.cancel_target(request, &via).map(ServerKey);
            let key = ServerKey(key);
            return Lookup::Cancel { key, target };
        }
        Lookup::New(ServerKey(key))
    }

    /// Remembers the octets just sent in answer to `key`'s request: for its repeats, or, when they
    /// are final and the transport is reliable, only ends the row. `false` when the row is gone.
    ///
    /// # Panics
    /// On our own errors: not a response, a provisional one or a 408 to other than INVITE (RFC 4320
    /// section 4), or a second final one.
    pub fn store_response(&mut self, now: Timestamp, key: ServerKey, response: &[u8]) -> bool {
        let status = status_of(response);
        let Some(row) = self.rows.lookup_mut(key.0) else {
            return false;
        };
        assert!(row.is_invite || status >= 200, "provisional to non-INVITE");
        assert!(row.is_invite || status != 408, "408 to non-INVITE");
        assert!(row.status < 200, "one final response per request");
        row.status = status;
        if status >= 200 && row.is_reliable && !row.is_invite {
            self.close(key.0);
            return true;
        }
        let deadline = now + self.wait;
        // Answered in the turn it came in, it has its place already. One of each row at most is live, so that
        // half of a full queue can always be thrown out.
        if status >= 200 && row.deadline != deadline {
            row.deadline = deadline;
            self.expiry.push_back((deadline, key.0));
        }
        self.keep(key.0, response);
        true
    }

    /// `true` when a final response was stored for `key`, or the row is gone.
    #[must_use]
    pub fn is_answered(&self, key: ServerKey) -> bool {
        self.rows.lookup(key.0).is_none_or(|row| row.status >= 200)
    }

    /// `true` while `key` is a live INVITE transaction.
    #[must_use]
    pub fn is_invite(&self, key: ServerKey) -> bool {
        self.rows.lookup(key.0).is_some_and(|row| row.is_invite)
    }

    /// Forgets `key` at once; for a request that is not to be answered. `false` when it was gone.
    pub fn forget(&mut self, key: ServerKey) -> bool {
        let live = self.rows.lookup(key.0).is_some();
        if live {
            self.close(key.0);
        }
        live
    }

    /// Forgets rows whose time is over, at most 256 per call.
    pub fn advance(&mut self, now: Timestamp) {
        for _ in 0..EXPIRE_PER_CALL_MAX {
            match self.expiry.front().copied() {
                Some((deadline, key)) if deadline <= now => {
                    self.expiry.pop_front();
                    let row = self.rows.lookup(key);
                    if row.is_some_and(|row| row.deadline == deadline) {
                        self.close(key);
                    }
                }
                Some(_) | None => return,
            }
        }
    }

    /// When to call [`ServerTable::advance`]; `NEVER` when nothing waits.
    #[must_use]
    pub fn deadline(&self) -> Timestamp {
        self.expiry
            .front()
            .map_or(Timestamp::NEVER, |entry| entry.0)
    }

    /// Live transactions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// `true` when none is live.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn known(&mut self, key: Key, is_ack: bool) -> Lookup<'_> {
        let row = self.rows.lookup_mut(key).expect("the map names live rows");
        if is_ack {
            if row.status < 300 {
                return Lookup::DialogAck;
            }
            row.is_acked = true;
            return Lookup::Ack(ServerKey(key));
        }
        // A 2xx to INVITE is repeated by its own timer, and after the ACK nothing is.
        let absorbs = row.is_invite && (row.is_acked || (200..300).contains(&row.status));
        let response: &[u8] = if absorbs { &[] } else { &row.response };
        Lookup::Retransmission {
            key: ServerKey(key),
            response,
        }
    }

    fn open(&mut self, now: Timestamp, digest: u128, merge: Option<u128>) -> Option<Key> {
        self.trim_expiry();
        let deadline = now + self.wait;
        if self.rows.room() == 0 {
            self.make_room(now);
        }
        let (key, row) = self.rows.insert()?;
        row.digest = digest;
        row.merge_digest = merge;
        row.deadline = deadline;
        row.status = 0;
        row.is_acked = false;
        assert!(row.response.is_empty(), "closing emptied it");
        self.by_digest.insert(digest, key);
        if let Some(merge) = merge {
            self.by_merge.insert(merge, key);
        }
        self.expiry.push_back((deadline, key));
        Some(key)
    }

    /// Keeps room in the queue for one more row and its answer: an entry may outlive its row, or be that of a
    /// row that was prolonged.
    fn trim_expiry(&mut self) {
        let rows = &self.rows;
        let is_live = |&(deadline, key): &(Timestamp, Key)| {
            rows.lookup(key).is_some_and(|row| row.deadline == deadline)
        };
        while self.expiry.front().is_some_and(|entry| !is_live(entry)) {
            self.expiry.pop_front();
        }
        // Behind a request that waits long for its answer.
        if self.expiry.len() + 2 > 2 * (rows.len() + rows.room()) {
            self.expiry.retain(is_live);
        }
    }

    /// Forgets the row that was answered longest ago, if no repeat of its request is on the way.
    fn make_room(&mut self, now: Timestamp) {
        let settled = now + self.spare;
        let mut oldest = self.expiry.iter().take(LOOKED_AT_MAX).copied();
        let found = oldest.find(|&(deadline, key)| {
            let row = self.rows.lookup(key);
            deadline <= settled && row.is_some_and(|row| row.deadline == deadline && row.is_over())
        });
        if let Some((_, key)) = found {
            self.close(key);
            self.forgotten += 1;
        }
    }

    /// Rows that made room for others, since the start.
    #[must_use]
    pub const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    fn keep(&mut self, key: Key, response: &[u8]) {
        let row = self.rows.lookup_mut(key).expect("checked by the caller");
        self.response_bytes -= row.response.len();
        row.response.clear();
        if self.response_bytes + response.len() > self.response_bytes_max {
            return;
        }
        if row.response.capacity() == 0 {
            row.response = self.pool.pop().unwrap_or_default();
        }
        row.response.extend_from_slice(response);
        self.response_bytes += response.len();
    }

    fn close(&mut self, key: Key) {
        let row = self.rows.lookup_mut(key).expect("a live row");
        let mut buffer = core::mem::take(&mut row.response);
        self.response_bytes -= buffer.len();
        let (digest, merge) = (row.digest, row.merge_digest.take());
        buffer.clear();
        if (1..=POOLED_BYTES_MAX).contains(&buffer.capacity()) {
            self.pool.push(buffer);
        }
        let removed = self.by_digest.remove(&digest);
        assert!(removed == Some(key), "one row per digest");
        if let Some(merge) = merge {
            self.by_merge.remove(&merge);
        }
        self.rows.remove(key);
    }

    fn cancel_target(&self, request: &Message<'_>, via: &Via<'_>) -> Option<Key> {
        const TARGETS: [Method; 12] = [
            Method::Invite,
            Method::Message,
            Method::Notify,
            Method::Update,
            Method::Register,
            Method::Options,
            Method::Subscribe,
            Method::Bye,
            Method::Info,
            Method::Prack,
            Method::Publish,
            Method::Refer,
        ];
        TARGETS.into_iter().find_map(|method| {
            let digest = self.digest(request, via, method, method.as_str().as_bytes())?;
            self.by_digest.get(&digest).copied()
        })
    }

    /// Digest of branch, sent-by and method; without the magic cookie of what RFC 2543 compared.
    /// An ACK has the digest of its INVITE.
    fn digest(
        &self,
        request: &Message<'_>,
        via: &Via<'_>,
        method: Method,
        method_bytes: &[u8],
    ) -> Option<u128> {
        let method_bytes = if method == Method::Ack {
            b"INVITE"
        } else {
            method_bytes
        };
        let cseq = request.cseq().ok()?;
        let branch = via.branch.filter(|_| via.has_rfc3261_branch());
        let first_via = request.values(HeaderName::Via).next()?;
        Some(self.hash(|hasher| {
            part(hasher, method_bytes);
            if let Some(branch) = branch {
                hasher.write_u8(1);
                part(hasher, branch);
                lower_part(hasher, via.host);
                hasher.write_u32(via.port.map_or(0, |port| u32::from(port) + 1));
                return;
            }
            hasher.write_u8(2);
            part(hasher, request.request_uri());
            part(hasher, request.from_tag().unwrap_or_default());
            part(hasher, request.call_id());
            hasher.write_u32(cseq.number);
            part(hasher, first_via);
            // The ACK's To tag is the one of our response, not the INVITE's.
            if method_bytes != b"INVITE" {
                part(hasher, request.to_tag().unwrap_or_default());
            }
        }))
    }

    /// What two copies of one request have in common that took different paths (RFC 3261 section
    /// 8.2.2.2); `None` for requests to which the rule does not apply.
    fn merge_digest(&self, request: &Message<'_>) -> Option<u128> {
        if request.method() == Method::Cancel || request.to_tag().is_some() {
            return None;
        }
        let tag = request.from_tag()?;
        let cseq = request.cseq().ok()?;
        Some(self.hash(|hasher| {
            part(hasher, tag);
            part(hasher, request.call_id());
            hasher.write_u32(cseq.number);
            part(hasher, cseq.method_bytes);
        }))
    }

    fn hash(&self, feed: impl Fn(&mut ahash::AHasher)) -> u128 {
        let [high, low] = [0, 1].map(|index: usize| {
            let mut hasher = self.hashers[index].build_hasher();
            feed(&mut hasher);
            hasher.finish()
        });
        u128::from(high) << 64 | u128::from(low)
    }
}

/// Feeds `bytes` so that neighbours cannot be confused.
fn part(hasher: &mut ahash::AHasher, bytes: &[u8]) {
    hasher.write_usize(bytes.len());
    hasher.write(bytes);
}

/// The same for text that is compared without case.
fn lower_part(hasher: &mut ahash::AHasher, bytes: &[u8]) {
    hasher.write_usize(bytes.len());
    for chunk in bytes.chunks(64) {
        let mut lower = [0; 64];
        let lower = &mut lower[..chunk.len()];
        lower.copy_from_slice(chunk);
        lower.make_ascii_lowercase();
        hasher.write(lower);
    }
}

/// The status of a response that we encoded ourselves.
fn status_of(response: &[u8]) -> u16 {
    let digits = response
        .strip_prefix(b"SIP/2.0 ")
        .and_then(|rest| rest.get(..3))
        .expect("our encoder writes a status line");
    let status = digits
        .iter()
        .fold(0, |value, digit| value * 10 + u16::from(digit - b'0'));
    assert!((100..=699).contains(&status), "a SIP status");
    status
}
