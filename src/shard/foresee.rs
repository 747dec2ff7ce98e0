//! What the next message is about is asked for while this one is handled.
//!
//! A push leaves the caches between two of its messages, and so does a user between two documents. Messages
//! come many in a read, and each names its push or user near its front: enough to ask for that memory a
//! message ahead, and, when its turn has come, for what it leads to, while its head is compared.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::base::slab::Key;
use crate::base::token::{Claim, TOKEN_LEN, TokenKind};
use crate::push::Push;
use crate::shard::Shard;
use crate::sip::scan::find_near;

/// Octets of a response in which its branch is looked for.
const RESPONSE_BYTES: usize = 256;
/// Octets of an MSRP frame in which its first line ends.
const FIRST_LINE_BYTES: usize = 64;
/// Octets of a request in which its To tag is looked for.
const REQUEST_BYTES: usize = 1024;
/// Tags of a request that are looked at: that of From comes first, as a rule.
const TAGS_MAX: usize = 3;

static BRANCH: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"z9hG4bK"));
static TAG: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b";tag="));

/// What the next message is about, by what it says itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Foreseen {
    #[default]
    Nothing,
    Push(Key),
    User(Key),
}

impl Shard {
    /// Asks for what the message at the front of `rest` is about, which is next.
    #[inline]
    pub(super) fn foresee_next(&mut self, rest: &[u8]) {
        self.desk.foreseen = self.foreseen(rest);
    }

    /// Asks for what the message at the front of `rest` is about; says what that is.
    #[inline]
    pub(super) fn foreseen(&self, rest: &[u8]) -> Foreseen {
        let claim = if rest.starts_with(b"SIP/2.0 ") {
            let head = &rest[..rest.len().min(RESPONSE_BYTES)];
            let at = BRANCH.find(head).map(|at| at + 7);
            at.and_then(|at| Claim::read(head.get(at..at + TOKEN_LEN)?))
        } else if rest.starts_with(b"NOTIFY ") {
            let head = &rest[..rest.len().min(REQUEST_BYTES)];
            let mut tags = TAG.find_iter(head).take(TAGS_MAX).map(|at| at + 5);
            tags.find_map(|at| Claim::read(head.get(at..at + TOKEN_LEN)?))
        } else if rest.starts_with(b"MSRP ") {
            self.msrp_claim(rest)
        } else {
            None
        };
        // Not held against its seal: it leads to memory, and to nothing else.
        let claim = claim.filter(|claim| claim.parts.shard == self.env.shard);
        let Some(parts) = claim.map(|claim| claim.parts) else {
            return Foreseen::Nothing;
        };
        if parts.kind == TokenKind::PushBranch {
            self.pushes.foresee(parts.key.slot, Push::FRONT_BYTES);
            return Foreseen::Push(parts.key);
        }
        if parts.kind == TokenKind::SubscribeTag {
            self.registry.foresee(parts.key);
            return Foreseen::User(parts.key);
        }
        if matches!(
            parts.kind,
            TokenKind::MsrpTransaction | TokenKind::MsrpSession
        ) {
            self.pushes.foresee(parts.key.slot, size_of::<Push>());
            return Foreseen::Push(parts.key);
        }
        Foreseen::Nothing
    }

    /// The transaction or session of ours that an MSRP frame names: a response in its first line, a request in
    /// its path.
    fn msrp_claim(&self, frame: &[u8]) -> Option<Claim> {
        let transaction = frame.get(5..5 + TOKEN_LEN).and_then(Claim::read);
        if transaction.is_some() {
            return transaction;
        }
        let head = &frame[..frame.len().min(FIRST_LINE_BYTES)];
        let end = find_near(head, b'\n')?;
        let path = frame[end + 1..].strip_prefix(b"To-Path: ")?;
        let session = path.strip_prefix(&self.env.msrp_prefix[..])?;
        Claim::read(session.get(..TOKEN_LEN)?)
    }

    /// Asks for a user and its queue.
    #[inline]
    pub(super) fn foresee_user(&self, user: Key) {
        self.registry.foresee(user);
        self.post.foresee(user.slot);
    }

    /// Of users that come next in some row: of the third one its own memory, of the second what that leads to, of
    /// the first what that leads to in turn.
    #[inline]
    pub(super) fn foresee_users(&self, [first, second, third]: [Option<Key>; 3]) {
        if let Some(user) = first {
            self.post.foresee_memories(user.slot);
        }
        if let Some(user) = second {
            self.registry.foresee_merge(user);
            self.post.foresee_entries(user.slot);
        }
        if let Some(user) = third {
            self.foresee_user(user);
        }
    }

    /// Of the records read back that come next: of the third one's push its own memory, of the second one's
    /// what that leads to, of the first one's what that leads to in turn.
    #[inline]
    pub(super) fn foresee_loaded(&self, next: &[(u64, u32, u32)]) {
        let waiter = |at: usize| self.post.waiter(next.get(at)?.0);
        let user = |at: usize| self.pushes.lookup_warm(waiter(at)?)?.user;
        if let Some(user) = user(0) {
            self.post.foresee_entries(user.slot);
        }
        if let Some(push) = waiter(1).and_then(|key| self.pushes.lookup_warm(key)) {
            push.foresee();
            if let Some(user) = push.user {
                self.foresee_user(user);
            }
        }
        if let Some(key) = waiter(2) {
            self.pushes.foresee(key.slot, size_of::<Push>());
        }
    }

    /// The message whose push or user was asked for is next: asks for what that leads to.
    #[inline]
    pub(super) fn foresee_more(&mut self) {
        let foreseen = core::mem::take(&mut self.desk.foreseen);
        self.probe.messages_foreseen_total += u64::from(foreseen != Foreseen::Nothing);
        match foreseen {
            Foreseen::Nothing => {}
            Foreseen::Push(key) => {
                let Some(push) = self.pushes.lookup_warm(key) else {
                    return;
                };
                push.foresee();
                if let Some((timer, _)) = push.armed {
                    self.wheel.foresee(timer);
                }
                if let Some(user) = push.user.filter(|_| !push.reported) {
                    self.registry.foresee(user);
                    if push.has_session() {
                        self.post.foresee_entries(user.slot);
                    }
                }
            }
            Foreseen::User(key) => self.registry.foresee_merge(key),
        }
    }
}
