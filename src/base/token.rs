//! Identifiers that find their owner: 32 characters that carry kind, shard, slot, generation and a
//! MAC, so that a response needs no table and a forged one needs 2^80 guesses.
//!
//! Layout of the 160 bits: kind 4, shard 8, slot 26, generation 28, sequence 14, MAC 80. The MAC is
//! SipHash-2-4-128 under a key drawn at each start, truncated; hence two runs never mint the same
//! token and every token is worth 80 random bits to an outsider (SDP-4, MSRP-2, TX-8). It covers the
//! owner and the [`Domain`] of the kind, not the sequence: an owner computes it once ([`Seal`]) for
//! all its tokens, and a token that names the owner is checked against the seal it keeps. Who holds
//! one token of a domain can write the others of that domain and owner; it is the peer they were
//! sent to. Sequences are compared with the owner's state anyway.
//!
//! The text is base 32 in lower case: valid as SIP token, MSRP session-id and MSRP transaction id
//! alike, and safe against peers that fold case.

use core::hash::Hasher;
use siphasher::sip128::{Hasher128, SipHasher24};

use crate::base::slab::Key;

/// Characters of a token's text.
pub const TOKEN_LEN: usize = 32;
/// Most characters of filler behind a token, see [`without_filler`].
pub const FILLER_MAX: usize = 63;
/// What filler is made of; no character of a token.
pub const FILLER: [u8; FILLER_MAX] = [b'0'; FILLER_MAX];
/// Values of the sequence field; it wraps.
pub const SEQUENCE_MODULUS: u16 = 1 << 14;

/// Kinds that share a MAC: what one peer gets to see of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Domain {
    /// SIP of a push.
    Push = 1,
    /// MSRP of a push.
    Media = 2,
    /// A subscription.
    Subscription = 3,
    /// Requests and responses outside of both.
    Other = 4,
}

/// What a token names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TokenKind {
    /// Via branch of a request within a push (INVITE, ACK, BYE, UPDATE; CANCEL shares INVITE's).
    PushBranch = 1,
    /// Call-ID of a push dialog.
    PushCallId = 2,
    /// Our tag in a push dialog.
    PushTag = 3,
    /// MSRP session-id in our `a=path`.
    MsrpSession = 4,
    /// MSRP transaction id of a SEND; the sequence numbers the chunk.
    MsrpTransaction = 5,
    /// Via branch of a SUBSCRIBE.
    SubscribeBranch = 6,
    /// Call-ID of a subscription.
    SubscribeCallId = 7,
    /// Our tag in a subscription.
    SubscribeTag = 8,
    /// Via branch of a request outside any dialog (IMDN MESSAGE, OPTIONS probe).
    OtherBranch = 9,
    /// Tag we add as server outside a dialog.
    ServerTag = 10,
    /// `icid-value` of P-Charging-Vector of a push.
    ChargingId = 11,
    /// `icid-value` of P-Charging-Vector of a subscription.
    SubscribeChargingId = 12,
    /// Call-ID of a request outside any dialog.
    OtherCallId = 13,
    /// Via branch of an OPTIONS that probes a next hop.
    HopBranch = 14,
    /// A session in which a large message is taken in: our tag, the session-id of our path, and the
    /// branch of our BYE.
    LargeSession = 15,
}

impl TokenKind {
    const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            1 => Self::PushBranch,
            2 => Self::PushCallId,
            3 => Self::PushTag,
            4 => Self::MsrpSession,
            5 => Self::MsrpTransaction,
            6 => Self::SubscribeBranch,
            7 => Self::SubscribeCallId,
            8 => Self::SubscribeTag,
            9 => Self::OtherBranch,
            10 => Self::ServerTag,
            11 => Self::ChargingId,
            12 => Self::SubscribeChargingId,
            13 => Self::OtherCallId,
            14 => Self::HopBranch,
            15 => Self::LargeSession,
            _ => return None,
        })
    }

    /// Whose MAC it carries.
    #[must_use]
    pub const fn domain(self) -> Domain {
        match self {
            Self::PushBranch | Self::PushCallId | Self::PushTag | Self::ChargingId => Domain::Push,
            Self::MsrpSession | Self::MsrpTransaction => Domain::Media,
            Self::SubscribeBranch
            | Self::SubscribeCallId
            | Self::SubscribeTag
            | Self::SubscribeChargingId => Domain::Subscription,
            Self::OtherBranch
            | Self::ServerTag
            | Self::OtherCallId
            | Self::HopBranch
            | Self::LargeSession => Domain::Other,
        }
    }
}

/// The fields of a token, without its MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenParts {
    /// What is named.
    pub kind: TokenKind,
    /// The owning shard.
    pub shard: u8,
    /// The owner's slot and generation.
    pub key: Key,
    /// Counts within the owner, modulo [`SEQUENCE_MODULUS`].
    pub sequence: u16,
}

/// A token's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Token(pub [u8; TOKEN_LEN]);

impl Token {
    /// The text as bytes, all ASCII alphanumeric.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The token of another kind and sequence; the kind must be of the same [`Domain`]. Costs a fraction
    /// of minting: four characters are others.
    #[inline]
    #[must_use]
    pub fn sibling(mut self, parts: TokenParts) -> Self {
        let id = pack(parts);
        self.0[0] = letter((id >> 75 & 0x1f) as u8);
        self.0[13] = letter((id >> 10 & 0x1f) as u8);
        self.0[14] = letter((id >> 5 & 0x1f) as u8);
        self.0[15] = letter((id & 0x1f) as u8);
        self
    }
}

/// The MAC of one owner in one domain, as text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seal([u8; 16]);

impl Seal {
    /// The token of `parts`; the seal must be that of its owner and domain.
    #[inline]
    #[must_use]
    pub fn mint(&self, parts: TokenParts) -> Token {
        let mut text = [0; TOKEN_LEN];
        let (id, mac) = text.split_at_mut(16);
        id.copy_from_slice(&put_base32(pack(parts)));
        mac.copy_from_slice(&self.0);
        Token(text)
    }

    /// Whether `claim` carries this seal.
    #[inline]
    #[must_use]
    pub fn confirms(&self, claim: &Claim) -> bool {
        // Compared as one integer: no early exit to time.
        u128::from_ne_bytes(self.0) == u128::from_ne_bytes(claim.mac)
    }
}

/// A token as read, before its MAC was looked at.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// What the token says.
    pub parts: TokenParts,
    mac: [u8; 16],
}

impl Claim {
    /// Reads a token; `None` when `text` is none by its form. Case is ignored.
    #[inline]
    #[must_use]
    pub fn read(text: &[u8]) -> Option<Self> {
        let text: &[u8; TOKEN_LEN] = text.try_into().ok()?;
        let (id, mac) = text.split_first_chunk::<16>()?;
        Some(Self {
            parts: unpack(take_base32(id)?)?,
            mac: fold(mac.try_into().ok()?),
        })
    }
}

/// Mints and verifies tokens under one key. One per shard; all shards of a process share the key.
#[derive(Clone, Debug)]
pub struct Minter {
    key: [u8; 16],
}

impl Minter {
    /// A minter under `key`, which must come from a CSPRNG and be new at every start.
    #[must_use]
    pub const fn new(key: [u8; 16]) -> Self {
        Self { key }
    }

    /// The seal of an owner.
    #[must_use]
    pub fn seal(&self, domain: Domain, shard: u8, key: Key) -> Seal {
        debug_assert!(key.slot < 1 << 26 && key.generation < 1 << 28);
        let owner = u64::from(shard) << 32 | u64::from(key.slot);
        let mut hasher = SipHasher24::new_with_key(&self.key);
        hasher.write_u64(owner << 8 | u64::from(domain as u8));
        hasher.write_u64(u64::from(key.generation));
        Seal(put_base32(hasher.finish128().as_u128() & MASK80))
    }

    /// The text of `parts`. Deterministic: minting again gives the same text.
    #[must_use]
    pub fn mint(&self, parts: TokenParts) -> Token {
        self.seal(parts.kind.domain(), parts.shard, parts.key)
            .mint(parts)
    }

    /// The parts of `claim`, if this minter sealed it.
    #[must_use]
    pub fn confirm(&self, claim: &Claim) -> Option<TokenParts> {
        let parts = claim.parts;
        let seal = self.seal(parts.kind.domain(), parts.shard, parts.key);
        seal.confirms(claim).then_some(parts)
    }

    /// The parts of `text`, if it is a token this minter made. Case is ignored.
    #[must_use]
    pub fn verify(&self, text: &[u8]) -> Option<TokenParts> {
        self.confirm(&Claim::read(text)?)
    }
}

/// The token in front of filler, or `text` itself. Filler lengthens a token so that requests of
/// about the same size get the same size and travel together; it says nothing.
#[inline]
#[must_use]
pub fn without_filler(text: &[u8]) -> &[u8] {
    match text.split_at_checked(TOKEN_LEN) {
        Some((token, filler))
            if filler.len() <= FILLER_MAX && filler.iter().all(|&octet| octet == FILLER[0]) =>
        {
            token
        }
        Some(_) | None => text,
    }
}

/// A token with filler behind it.
#[derive(Clone, Copy, Debug)]
pub struct FilledToken {
    text: [u8; TOKEN_LEN + FILLER_MAX],
    len: usize,
}

impl FilledToken {
    /// `token` with `filler` characters, at most [`FILLER_MAX`].
    #[must_use]
    pub fn new(token: Token, filler: u8) -> Self {
        let mut text = [FILLER[0]; TOKEN_LEN + FILLER_MAX];
        if let Some(start) = text.first_chunk_mut() {
            *start = token.0;
        }
        let len = TOKEN_LEN + usize::from(filler).min(FILLER_MAX);
        Self { text, len }
    }

    /// The text as bytes, all ASCII alphanumeric.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[..self.len]
    }
}

/// The shard named by `text` without checking its MAC: for forwarding mis-steered messages only.
#[must_use]
pub fn peek_shard(text: &[u8]) -> Option<u8> {
    Claim::read(text).map(|claim| claim.parts.shard)
}

const MASK80: u128 = (1 << 80) - 1;
const MASK40: u128 = (1 << 40) - 1;

#[inline]
fn pack(parts: TokenParts) -> u128 {
    debug_assert!(parts.key.slot < 1 << 26 && parts.key.generation < 1 << 28);
    let mut id = u128::from(parts.kind as u8 & 0xf);
    id = id << 8 | u128::from(parts.shard);
    id = id << 26 | u128::from(parts.key.slot & 0x03ff_ffff);
    id = id << 28 | u128::from(parts.key.generation & 0x0fff_ffff);
    id << 14 | u128::from(parts.sequence & (SEQUENCE_MODULUS - 1))
}

#[inline]
fn unpack(id: u128) -> Option<TokenParts> {
    Some(TokenParts {
        kind: TokenKind::from_bits((id >> 76 & 0xf) as u8)?,
        shard: (id >> 68 & 0xff) as u8,
        key: Key {
            slot: (id >> 42 & 0x03ff_ffff) as u32,
            generation: (id >> 14 & 0x0fff_ffff) as u32,
        },
        sequence: (id & 0x3fff) as u16,
    })
}

/// The same octet in each place of a word.
const fn each(octet: u8) -> u64 {
    u64::from_ne_bytes([octet; 8])
}

/// The low 80 bits of `value`, five to a character. Eight characters are worked on in one word.
#[inline]
fn put_base32(value: u128) -> [u8; 16] {
    let mut text = [0; 16];
    let (high, low) = text.split_at_mut(8);
    high.copy_from_slice(&letters(spread((value >> 40 & MASK40) as u64)).to_le_bytes());
    low.copy_from_slice(&letters(spread((value & MASK40) as u64)).to_le_bytes());
    text
}

/// 40 bits as eight octets of five, the highest in the lowest octet.
#[inline]
const fn spread(value: u64) -> u64 {
    let halves = value >> 20 | (value & 0xf_ffff) << 32;
    let quarters = (halves >> 10 & 0x0000_03ff_0000_03ff) | (halves & 0x0000_03ff_0000_03ff) << 16;
    (quarters >> 5 & each_pair(0x1f)) | (quarters & each_pair(0x1f)) << 8
}

/// What `spread` did, backwards.
#[inline]
const fn gather(fives: u64) -> u64 {
    let quarters = (fives & each_pair(0x1f)) << 5 | (fives >> 8 & each_pair(0x1f));
    let halves =
        (quarters & 0x0000_03ff_0000_03ff) << 10 | (quarters >> 16 & 0x0000_03ff_0000_03ff);
    (halves & 0xf_ffff) << 20 | halves >> 32
}

/// The same 16 bits in each quarter of a word.
const fn each_pair(value: u16) -> u64 {
    value as u64 * 0x0001_0001_0001_0001
}

/// Values 0 to 25 become `a` to `z`, 26 to 31 become `2` to `7`.
#[inline]
const fn letters(values: u64) -> u64 {
    let digit = (values + each(128 - 26)) >> 7 & each(1);
    values + each(b'a') - digit * (b'a' - (b'2' - 26)) as u64
}

/// A value below 32 as a character.
#[inline]
const fn letter(value: u8) -> u8 {
    letters(value as u64).to_le_bytes()[0]
}

/// Letters in lower case; all else as it is.
#[inline]
const fn lower(word: u64) -> u64 {
    word | (word >> 6 & each(1)) << 5
}

fn fold(text: [u8; 16]) -> [u8; 16] {
    const LETTER: u128 = u128::from_ne_bytes([1; 16]);
    let word = u128::from_ne_bytes(text);
    (word | (word >> 6 & LETTER) << 5).to_ne_bytes()
}

#[inline]
fn take_base32(text: &[u8; 16]) -> Option<u128> {
    let (high, low) = text.split_at(8);
    let half = |part: &[u8]| take_half(u64::from_le_bytes(part.try_into().ok()?));
    Some(u128::from(half(high)?) << 40 | u128::from(half(low)?))
}

#[inline]
const fn take_half(word: u64) -> Option<u64> {
    let word = lower(word);
    let letter = word >> 6 & each(1);
    let offsets = each(b'2' - 26) + letter * (b'a' - (b'2' - 26)) as u64;
    let values = word.wrapping_sub(offsets) & each(0x1f);
    // Whatever is not in the alphabet does not come back as it was.
    if letters(values) == word {
        Some(gather(values))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(kind: TokenKind, slot: u32, sequence: u16) -> TokenParts {
        TokenParts {
            kind,
            shard: 3,
            key: Key {
                slot,
                generation: 9,
            },
            sequence,
        }
    }

    #[test]
    fn a_sibling_is_what_would_have_been_minted() {
        let minter = Minter::new([7; 16]);
        let kinds = [
            TokenKind::PushBranch,
            TokenKind::PushCallId,
            TokenKind::PushTag,
            TokenKind::ChargingId,
        ];
        for (slot, generation, shard) in [(0, 0, 0), (5, 1, 3), ((1 << 26) - 1, (1 << 28) - 1, 255)]
        {
            let parts = |kind, sequence| TokenParts {
                kind,
                shard,
                key: Key { slot, generation },
                sequence,
            };
            for from in kinds {
                let token = minter.mint(parts(from, 77));
                for (kind, sequence) in kinds
                    .map(|kind| [(kind, 0), (kind, 9), (kind, SEQUENCE_MODULUS - 1)])
                    .into_iter()
                    .flatten()
                {
                    let wanted = parts(kind, sequence);
                    assert_eq!(token.sibling(wanted), minter.mint(wanted));
                }
            }
        }
    }

    #[test]
    fn a_token_decodes_to_what_was_minted_in_either_case() {
        let minter = Minter::new([1; 16]);
        for kind in [
            TokenKind::PushBranch,
            TokenKind::MsrpSession,
            TokenKind::ChargingId,
        ] {
            let want = parts(kind, 0x03ff_fff1, 16383);
            let token = minter.mint(want);
            assert_eq!(minter.verify(token.as_bytes()), Some(want));
            assert_eq!(minter.verify(&token.0.to_ascii_uppercase()), Some(want));
            assert_eq!(peek_shard(token.as_bytes()), Some(3));
        }
    }

    #[test]
    fn a_changed_character_is_refused_or_names_the_same_owner() {
        let minter = Minter::new([2; 16]);
        let want = parts(TokenKind::PushTag, 5, 1);
        let token = minter.mint(want);
        for at in 0..TOKEN_LEN {
            let mut forged = token.0;
            forged[at] = if forged[at] == b'a' { b'b' } else { b'a' };
            let read = minter.verify(&forged);
            // Kind (of the same domain) and sequence are the first four and the last fourteen bits.
            let open = at == 0 || (13..16).contains(&at);
            assert!(read.is_none() || open, "position {at}");
            assert!(
                read.is_none_or(|read| read.key == want.key),
                "position {at}"
            );
        }
        assert_eq!(minter.verify(b"short"), None);
        assert_eq!(minter.verify(&[b'!'; 32]), None);
    }

    #[test]
    fn filler_behind_a_token_is_passed_over_and_nothing_else_is() {
        let minter = Minter::new([6; 16]);
        let want = parts(TokenKind::PushBranch, 5, 1);
        let token = minter.mint(want);
        for filler in 0..=u8::try_from(FILLER_MAX).unwrap() {
            let filled = FilledToken::new(token, filler);
            assert_eq!(filled.as_bytes().len(), TOKEN_LEN + usize::from(filler));
            let read = without_filler(filled.as_bytes());
            assert_eq!(minter.verify(read), Some(want), "{filler}");
            // Not as a whole: where no filler is expected it is no token.
            assert_eq!(minter.verify(filled.as_bytes()).is_some(), filler == 0);
        }
        let mut long = token.0.to_vec();
        long.resize(TOKEN_LEN + FILLER_MAX + 1, FILLER[0]);
        assert_eq!(without_filler(&long).len(), long.len(), "too much");
        for end in [&b"1"[..], b"a", b"00-", b"000000001", b"O"] {
            let text = [&token.0[..], end].concat();
            assert_eq!(without_filler(&text), text);
        }
        assert_eq!(without_filler(b"0000"), b"0000");
        // No token ends in what could be filler.
        assert_eq!(take_half(u64::from_le_bytes(*b"aaaaaaa0")), None);
    }

    #[test]
    fn every_octet_is_read_as_a_table_would_read_it() {
        const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        for octet in 0..=u8::MAX {
            let value = ALPHABET
                .iter()
                .position(|&c| c == octet.to_ascii_lowercase());
            for at in 0..8 {
                let mut text = *b"c3c3c3c3";
                text[at] = octet;
                let want = value.map(|_| {
                    text.iter().fold(0, |sum, c| {
                        let digit = ALPHABET.iter().position(|a| *a == c.to_ascii_lowercase());
                        sum << 5 | digit.unwrap() as u64
                    })
                });
                assert_eq!(take_half(u64::from_le_bytes(text)), want, "{octet} at {at}");
            }
        }
    }

    #[test]
    fn domains_and_owners_have_seals_of_their_own() {
        let minter = Minter::new([5; 16]);
        let key = |slot, generation| Key { slot, generation };
        let seals = [
            minter.seal(Domain::Push, 0, key(1, 2)),
            minter.seal(Domain::Media, 0, key(1, 2)),
            minter.seal(Domain::Push, 1, key(1, 2)),
            minter.seal(Domain::Push, 0, key(2, 2)),
            minter.seal(Domain::Push, 0, key(1, 3)),
        ];
        for (at, seal) in seals.iter().enumerate() {
            assert!(!seals[..at].contains(seal), "{at}");
        }
    }

    #[test]
    fn another_start_mints_other_tokens() {
        let want = parts(TokenKind::PushCallId, 5, 1);
        let (a, b) = (Minter::new([3; 16]), Minter::new([4; 16]));
        assert_ne!(a.mint(want), b.mint(want));
        assert_eq!(b.verify(a.mint(want).as_bytes()), None);
    }
}
