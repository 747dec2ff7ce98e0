//! What the store records: messages taken in, and what became of them (layer 1).
//!
//! Two durable records per message and set of devices: a [`Deposit`] with the body once, and small
//! [`Mark`]s. State that can be rebuilt (sending, hop-acked, timers) is never recorded (DLV-1).

use core::hash::Hasher;

use siphasher::sip::SipHasher24;

use crate::base::time::UnixMillis;
use crate::store::parts::Manifest;

/// Facts about a message that the queue needs without reading its body. A set of bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DepositFlags(u8);

impl DepositFlags {
    /// The sender asked for `negative-delivery` notices (IMDN-4).
    pub const IMDN_NEGATIVE: Self = Self(1);
    /// The sender asked for `positive-delivery` notices.
    pub const IMDN_POSITIVE: Self = Self(2);
    /// The message is itself a notice (IMDN-7): lower priority, expires silently.
    pub const IS_IMDN: Self = Self(4);
    /// Taken in by large message mode (INT-13).
    pub const LARGE_MODE: Self = Self(8);
    /// The record has [`Deposit::related_icid`] and [`Deposit::lines`].
    pub const RARE_FIELDS: Self = Self(16);
    /// It came with Resource-Priority (OVL-11).
    pub const PRIORITY: Self = Self(32);
    /// The record is a copy, made to free the segment of the first one: no other message.
    pub const COPY: Self = Self(64);
    /// Every bit that has a meaning.
    pub const ALL: Self = Self(127);

    /// No flag set.
    #[must_use]
    pub const fn empty() -> Self {
        Self(0)
    }

    /// The flags of `bits`; bits without a meaning are an error of the record.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        if bits & !Self::ALL.0 == 0 {
            Some(Self(bits))
        } else {
            None
        }
    }

    /// As a byte.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The flags of this set that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// `true` when every flag of `other` is set here.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The top-level media type of a message: what rules about types are written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MediaClass {
    /// None of the others, or unknown.
    #[default]
    Other,
    /// `application/*`.
    Application,
    /// `audio/*`.
    Audio,
    /// `image/*`.
    Image,
    /// `message/*`, notices among them.
    Message,
    /// `multipart/*`.
    Multipart,
    /// `text/*`.
    Text,
    /// `video/*`.
    Video,
}

impl MediaClass {
    /// Every class with the word it stands for; the word of [`Self::Other`] is no media type.
    pub const ALL: [(Self, &'static str); 8] = [
        (Self::Other, "other"),
        (Self::Application, "application"),
        (Self::Audio, "audio"),
        (Self::Image, "image"),
        (Self::Message, "message"),
        (Self::Multipart, "multipart"),
        (Self::Text, "text"),
        (Self::Video, "video"),
    ];

    /// The class of a Content-Type value.
    #[must_use]
    pub fn of(content_type: &[u8]) -> Self {
        // Most messages are text in the usual spelling.
        if content_type.starts_with(b"text/") {
            return Self::Text;
        }
        let end = content_type.iter().position(|&c| c == b'/').unwrap_or(0);
        let word = content_type[..end].trim_ascii();
        let known = Self::ALL.iter().skip(1);
        known
            .filter(|(_, name)| word.eq_ignore_ascii_case(name.as_bytes()))
            .map(|&(class, _)| class)
            .next()
            .unwrap_or_default()
    }

    /// Its bit in a set of classes.
    #[must_use]
    pub const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// What decisions look at beside [`DepositFlags`] without reading the record: the media class, and five
/// bits of a hash of the conversation, which tell most conversations apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Hints(u8);

impl Hints {
    /// The hints of a message.
    #[must_use]
    pub fn of(content_type: &[u8], conversation_id: &[u8]) -> Self {
        // FNV-1a, folded.
        let hash = conversation_id.iter().fold(0x811c_9dc5_u32, |hash, &byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
        let bits = (hash ^ hash >> 15) & 0x1f;
        Self(MediaClass::of(content_type) as u8 | u8::try_from(bits << 3).expect("five bits"))
    }

    /// From a byte that [`Hints::bits`] gave.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// As a byte.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The bit of the message's [`MediaClass`].
    #[must_use]
    pub const fn media_bit(self) -> u8 {
        1 << (self.0 & 7)
    }

    /// False when the two are certainly of different conversations.
    #[must_use]
    pub const fn may_share_conversation(self, other: Self) -> bool {
        self.0 >> 3 == other.0 >> 3
    }
}

/// Which messages a device takes, as far as its user's preferences say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MediaLimit {
    /// Largest body, octets.
    pub bytes_max: u32,
    /// Bits of the [`MediaClass`]es taken.
    pub classes: u8,
}

impl MediaLimit {
    /// Everything.
    pub const NONE: Self = Self {
        bytes_max: u32::MAX,
        classes: u8::MAX,
    };

    /// Whether a message of this size with these hints is taken.
    #[must_use]
    pub const fn takes(self, bytes: u32, hints: Hints) -> bool {
        bytes <= self.bytes_max && self.classes & hints.media_bit() != 0
    }
}

impl Default for MediaLimit {
    fn default() -> Self {
        Self::NONE
    }
}

/// A message taken into the queue. Every slice may be empty unless its line says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deposit<'a> {
    /// Canonical identity of the recipient, the key of the mailbox (INT-11). Not empty.
    pub user: &'a [u8],
    /// Address of record the message was sent to, for `To` of our INVITE. Not empty.
    pub identity: &'a [u8],
    /// Place in the shard's order of intake; ascending, unique within the store (LIFE-4).
    pub number: u64,
    /// When the message was taken in.
    pub received: UnixMillis,
    /// From when on no SEND may start (LIFE-1, LIFE-2).
    pub expires: UnixMillis,
    /// Facts needed without the body.
    pub flags: DepositFlags,
    /// Asserted identity of the sender.
    pub sender: &'a [u8],
    /// `imdn.Message-ID`; survives restarts, so that a device can drop a repeat (DLV-4).
    pub imdn_message_id: &'a [u8],
    /// `Conversation-ID`.
    pub conversation_id: &'a [u8],
    /// `Contribution-ID`.
    pub contribution_id: &'a [u8],
    /// `InReplyTo-Contribution-ID`.
    pub in_reply_to: &'a [u8],
    /// `icid-value` of the message, for charging (IMS-4). Recorded with [`DepositFlags::RARE_FIELDS`].
    pub related_icid: &'a [u8],
    /// Header lines, each with CRLF, that its push repeats (IMS-5, OVL-11). Recorded with
    /// [`DepositFlags::RARE_FIELDS`].
    pub lines: &'a [u8],
    /// Key of the only device that may get it (INT-12), or zero for every device.
    pub target_instance: u64,
    /// Content type of the part the CPIM wraps, matched with a peer's `accept-wrapped-types`.
    pub content_type: &'a [u8],
    /// The message/cpim body as it will be sent.
    pub cpim: &'a [u8],
}

impl<'a> Deposit<'a> {
    /// The list of parts, of a message that lies in parts.
    #[must_use]
    pub fn parts(&self) -> Option<Manifest<'a>> {
        let is_large = self.flags.contains(DepositFlags::LARGE_MODE);
        Manifest::read(self.cpim).filter(|_| is_large)
    }

    /// Octets of the message, as counted by the quota.
    #[must_use]
    pub fn body_bytes(&self) -> u64 {
        let parts = self.parts();
        parts.map_or(self.cpim.len() as u64, |list| list.total)
    }

    /// The message, or of one in parts its header sections.
    #[must_use]
    pub fn head(&self) -> &'a [u8] {
        self.parts().map_or(self.cpim, |list| list.head)
    }

    /// Keyed hash of what makes a repeat of the same message within one mailbox (INT-4): the sender
    /// with `imdn.Message-ID`, or `Contribution-ID` when there is none. Zero: cannot be recognised.
    ///
    /// The keys are drawn anew by each run and never recorded: recovery computes the hash again, and
    /// a sender cannot aim for another sender's hash.
    #[must_use]
    pub fn dedupe(&self, keys: [u64; 2]) -> u64 {
        let (kind, id) = match (self.imdn_message_id, self.contribution_id) {
            ([], []) => return 0,
            ([], contribution) => (2, contribution),
            (message, _) => (1, message),
        };
        let [k0, k1] = keys;
        let mut hasher = SipHasher24::new_with_keys(k0, k1);
        hasher.write_u8(kind);
        hasher.write_usize(self.sender.len());
        hasher.write(self.sender);
        hasher.write(id);
        // Zero means "none"; one hash in 2^64 shares the value of its neighbour.
        hasher.finish().max(1)
    }
}

/// Why a device is believed to have a message (DLV-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Evidence {
    /// The next hop took every octet and no report came in time.
    HopAck,
    /// A positive-delivery IMDN.
    Imdn,
    /// A REPORT `000 200` covering the whole message.
    Report,
}

/// Why a message left the store. The ledger counts each apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RemovalReason {
    /// The goal of delivery was reached (DLV-3).
    Delivered,
    /// Its life ended (LIFE-3).
    Expired,
    /// Removed by an operator or revoked by its sender.
    Purged,
    /// Refused for good.
    Rejected,
}

/// The books of a store, counted when records are durable: every message that was ever deposited
/// is pending or left for one reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Deposits.
    pub deposited: u64,
    /// Removed because the goal of delivery was reached.
    pub delivered: u64,
    /// Removed because their life ended.
    pub expired: u64,
    /// Removed by an operator or their sender.
    pub purged: u64,
    /// Refused for good.
    pub rejected: u64,
}

impl Ledger {
    /// Counts a message that left.
    pub const fn removed(&mut self, reason: RemovalReason) {
        match reason {
            RemovalReason::Delivered => self.delivered += 1,
            RemovalReason::Expired => self.expired += 1,
            RemovalReason::Purged => self.purged += 1,
            RemovalReason::Rejected => self.rejected += 1,
        }
    }

    /// Messages that left.
    #[must_use]
    pub const fn gone(&self) -> u64 {
        self.delivered + self.expired + self.purged + self.rejected
    }

    /// The law: everything deposited is pending or gone.
    #[must_use]
    pub const fn balances(&self, pending: u64) -> bool {
        self.deposited == self.gone() + pending
    }

    /// Both together, as of two stores.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            deposited: self.deposited + other.deposited,
            delivered: self.delivered + other.delivered,
            expired: self.expired + other.expired,
            purged: self.purged + other.purged,
            rejected: self.rejected + other.rejected,
        }
    }
}

/// Status of a refusal whose mark was written again from the index, which keeps no status.
pub const STATUS_UNKNOWN: u16 = u16::MAX;

/// Set in the number of a message that is itself a notice: notices come after every other message of a
/// mailbox (IMDN-7, AMB-19). The clock's part of a number stays far below.
pub const NOTICE_NUMBERS: u64 = 1 << 63;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MarkKind {
    /// A device has it.
    Delivered {
        /// Key of the device.
        device: u64,
        /// How we know.
        by: Evidence,
    },
    /// A device will not take this message; others may.
    Refused {
        /// Key of the device.
        device: u64,
        /// Status it refused with (MSRP or SIP), for the operator; zero: it lost three sessions over it;
        /// [`STATUS_UNKNOWN`] in a copy.
        status: u16,
    },
    /// The message is gone from the store.
    Removed {
        /// Why.
        reason: RemovalReason,
    },
}

/// A change of a message already deposited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark<'a> {
    /// Canonical identity of the recipient; finds the mailbox on recovery. Not empty.
    pub user: &'a [u8],
    /// Number of the deposit.
    pub number: u64,
    /// When it happened.
    pub at: UnixMillis,
    /// What happened.
    pub kind: MarkKind,
}

/// A piece of a message that is too large for one record (INT-13). A series of parts becomes a message
/// only with the [`Deposit`] that names their places; one without it was never accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// Number of the message it belongs to.
    pub number: u64,
    /// Its place in the message, from zero.
    pub index: u32,
    /// The octets: as many as every part but the last has.
    pub bytes: &'a [u8],
}

/// Bounds on the life of a message (LIFE-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LifeOptions {
    /// Life of a message without `Expires`, seconds. Default: 7 days.
    pub default_life_s: u32,
    /// Longest life after receipt, seconds. Default: 30 days.
    pub max_life_s: u32,
    /// Longest life of a message that is itself a notice, seconds (IMDN-7). Default: 2 days.
    pub notice_life_s: u32,
    /// How far in the future a `Date` is believed, seconds. Default: 60.
    pub future_max_s: u32,
}

impl Default for LifeOptions {
    fn default() -> Self {
        Self {
            default_life_s: 7 * 86_400,
            max_life_s: 30 * 86_400,
            notice_life_s: 2 * 86_400,
            future_max_s: 60,
        }
    }
}

impl LifeOptions {
    /// The bounds for messages that are notices themselves (IMDN-7).
    #[must_use]
    pub fn of_notices(self) -> Self {
        Self {
            default_life_s: self.default_life_s.min(self.notice_life_s),
            max_life_s: self.max_life_s.min(self.notice_life_s),
            ..self
        }
    }

    /// When a message received at `received` expires (LIFE-1; RFC 3428 section 7).
    ///
    /// `date` and `expires_s` are the sender's `Date` and `Expires`. May lie before `received`: then
    /// the message is expired on arrival (INT-8). Without `Expires` the life counts from receipt, so
    /// that a sender's wrong clock cannot end a message that asked for no end.
    #[must_use]
    pub fn expiry(
        &self,
        received: UnixMillis,
        date: Option<UnixMillis>,
        expires_s: Option<u32>,
    ) -> UnixMillis {
        let latest = received.plus_secs(u64::from(self.max_life_s));
        let Some(expires_s) = expires_s else {
            return received
                .plus_secs(u64::from(self.default_life_s))
                .min(latest);
        };
        let believed = received.plus_secs(u64::from(self.future_max_s));
        let base = date.filter(|&date| date <= believed).unwrap_or(received);
        base.plus_secs(u64::from(expires_s)).min(latest)
    }
}

crate::fold_fields!(MediaLimit { bytes_max, classes });

impl crate::base::fold::Fold for Hints {
    fn fold(&self, out: &mut crate::base::fold::Writer<'_>) {
        self.0.fold(out);
    }

    fn unfold(&mut self, from: &mut crate::base::fold::Reader<'_>) {
        self.0.unfold(from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_keep_the_media_class_and_tell_most_conversations_apart() {
        for (class, word) in MediaClass::ALL {
            let upper = format!("{}/x; a=b", word.to_ascii_uppercase());
            for text in [format!("{word}/plain"), upper] {
                assert_eq!(MediaClass::of(text.as_bytes()), class, "{text}");
                assert_eq!(Hints::of(text.as_bytes(), b"c").media_bit(), class.bit());
            }
        }
        assert_eq!(MediaClass::of(b"text"), MediaClass::Other);
        let one = Hints::of(b"text/plain", b"conversation-1");
        assert!(one.may_share_conversation(Hints::of(b"image/png", b"conversation-1")));
        let others = (0..320).map(|n| Hints::of(b"text/plain", format!("c{n}").as_bytes()));
        let shared = others
            .filter(|other| other.may_share_conversation(one))
            .count();
        assert!((1..40).contains(&shared), "{shared} of 320");
    }

    #[test]
    fn a_limit_takes_what_is_neither_too_large_nor_of_another_class() {
        let limit = MediaLimit {
            bytes_max: 100,
            classes: MediaClass::Text.bit() | MediaClass::Image.bit(),
        };
        assert!(limit.takes(100, Hints::of(b"text/plain", b"")));
        assert!(!limit.takes(101, Hints::of(b"text/plain", b"")));
        assert!(!limit.takes(1, Hints::of(b"video/mp4", b"")));
        assert!(MediaLimit::NONE.takes(u32::MAX, Hints::of(b"?", b"")));
    }

    // Proves: LIFE-1
    #[test]
    fn expiry_counts_from_date_then_receipt_and_is_capped() {
        let life = LifeOptions::default();
        let now = UnixMillis::from_secs(1_000_000_000);
        let at = |secs: i64| UnixMillis::from_secs(now.as_secs().saturating_add_signed(secs));
        let table = [
            (None, Some(60), 60),
            (Some(at(-100)), Some(60), -40),
            (Some(at(30)), Some(60), 90),
            (Some(at(60)), Some(60), 120),
            (Some(at(61)), Some(60), 60),
            (None, None, 7 * 86_400),
            (Some(at(-30 * 86_400)), None, 7 * 86_400),
            (None, Some(u32::MAX), 30 * 86_400),
            (Some(at(-86_400)), Some(60), -86_340),
            (None, Some(0), 0),
        ];
        for (date, expires, want) in table {
            assert_eq!(
                life.expiry(now, date, expires),
                at(want),
                "{date:?} {expires:?}"
            );
        }
        let short = LifeOptions {
            max_life_s: 10,
            ..life
        };
        assert_eq!(
            short.expiry(now, None, None),
            at(10),
            "the cap holds for the default too"
        );
    }

    // Proves: INT-4
    #[test]
    fn dedupe_depends_on_sender_and_message_id_and_falls_back_to_the_contribution() {
        let keys = [7, 9];
        let base = Deposit {
            sender: b"sip:a@x",
            imdn_message_id: b"m1",
            contribution_id: b"c1",
            ..Deposit::default()
        };
        let hash = base.dedupe(keys);
        assert_eq!(
            hash,
            Deposit {
                contribution_id: b"c2",
                cpim: b"x",
                ..base
            }
            .dedupe(keys)
        );
        assert_ne!(
            hash,
            Deposit {
                imdn_message_id: b"m2",
                ..base
            }
            .dedupe(keys)
        );
        assert_ne!(
            hash,
            Deposit {
                sender: b"sip:b@x",
                ..base
            }
            .dedupe(keys)
        );
        assert_ne!(hash, base.dedupe([7, 10]), "the key counts");
        let split = Deposit {
            sender: b"sip:a@",
            imdn_message_id: b"xm1",
            ..base
        };
        assert_ne!(
            hash,
            split.dedupe(keys),
            "the border between the parts counts"
        );
        let by_contribution = Deposit {
            imdn_message_id: b"",
            ..base
        };
        assert_ne!(by_contribution.dedupe(keys), 0);
        let crossed = Deposit {
            imdn_message_id: b"c1",
            ..base
        };
        assert_ne!(
            by_contribution.dedupe(keys),
            crossed.dedupe(keys),
            "kinds do not mix"
        );
        let nameless = Deposit {
            contribution_id: b"",
            ..by_contribution
        };
        assert_eq!(nameless.dedupe(keys), 0, "nothing to recognise it by");
    }
}
