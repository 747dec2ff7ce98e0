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
    /// Asks for what the message at the front of `rest` is about.
    #[inline]
    pub(super) fn foresee(&mut self, rest: &[u8]) {
        self.desk.foreseen = Foreseen::Nothing;
        let claim = if rest.starts_with(b"SIP/2.0 ") {
            let head = &rest[..rest.len().min(RESPONSE_BYTES)];
            let at = BRANCH.find(head).map(|at| at + 7);
            at.and_then(|at| Claim::read(head.get(at..at + TOKEN_LEN)?))
        } else if rest.starts_with(b"NOTIFY ") {
            let head = &rest[..rest.len().min(REQUEST_BYTES)];
            let mut tags = TAG.find_iter(head).take(TAGS_MAX).map(|at| at + 5);
            tags.find_map(|at| Claim::read(head.get(at..at + TOKEN_LEN)?))
        } else {
            None
        };
        // Not held against its seal: it leads to memory, and to nothing else.
        let Some(parts) = claim.map(|claim| claim.parts) else {
            return;
        };
        if parts.shard != self.env.shard {
            return;
        }
        if parts.kind == TokenKind::PushBranch {
            self.pushes.foresee(parts.key, Push::FRONT_BYTES);
            self.desk.foreseen = Foreseen::Push(parts.key);
        } else if parts.kind == TokenKind::SubscribeTag {
            self.registry.foresee(parts.key);
            self.desk.foreseen = Foreseen::User(parts.key);
        }
    }

    /// Asks for the push that the MSRP frame at the front of `rest` is about: a response names it by its
    /// transaction, a request by its path.
    #[inline]
    pub(super) fn foresee_msrp(&mut self, rest: &[u8]) {
        self.desk.foreseen = Foreseen::Nothing;
        let claim = rest.get(5..5 + TOKEN_LEN).and_then(Claim::read);
        let claim = claim.or_else(|| {
            let head = &rest[..rest.len().min(FIRST_LINE_BYTES)];
            let end = find_near(head, b'\n')?;
            let path = rest[end + 1..].strip_prefix(b"To-Path: ")?;
            let session = path.strip_prefix(&self.env.msrp_prefix[..])?;
            Claim::read(session.get(..TOKEN_LEN)?)
        });
        let Some(parts) = claim.map(|claim| claim.parts) else {
            return;
        };
        let is_push = matches!(
            parts.kind,
            TokenKind::MsrpTransaction | TokenKind::MsrpSession
        );
        if is_push && parts.shard == self.env.shard {
            self.pushes.foresee(parts.key, size_of::<Push>());
            self.desk.foreseen = Foreseen::Push(parts.key);
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
                }
            }
            Foreseen::User(key) => self.registry.foresee_merge(key),
        }
    }
}
