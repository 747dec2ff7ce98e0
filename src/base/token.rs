//! Identifiers that find their owner: 32 characters that carry kind, shard, slot, generation and a
//! MAC, so that a response needs no table and a forged one needs 2^80 guesses.
//!
//! Layout of the 160 bits: kind 4, shard 8, slot 26, generation 28, sequence 14, MAC 80. The MAC is
//! SipHash-2-4-128 under a key drawn at each start, truncated; hence two runs never mint the same
//! token and every token is worth 80 random bits to an outsider (SDP-4, MSRP-2, TX-8). The text is
//! base 32 in lower case: valid as SIP token, MSRP session-id and MSRP transaction id alike, and
//! safe against peers that fold case.

use core::hash::Hasher;
use siphasher::sip128::{Hasher128, SipHasher24};

use crate::base::slab::Key;

/// Characters of a token's text.
pub const TOKEN_LEN: usize = 32;
/// Values of the sequence field; it wraps.
pub const SEQUENCE_MODULUS: u16 = 1 << 14;

/// What a token names. Two tokens of one slot and different kinds share no visible bit of the MAC.
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
    /// `icid-value` of P-Charging-Vector.
    ChargingId = 11,
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
            _ => return None,
        })
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
}

/// Mints and verifies tokens under one key. One per shard; all shards of a process share the key.
#[derive(Clone, Debug)]
pub struct Minter {
    key: [u8; 16],
}

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const INVALID: u8 = 0xff;
const DECODE: [u8; 256] = decode_table();

const fn decode_table() -> [u8; 256] {
    let mut table = [INVALID; 256];
    let mut v = 0u8;
    while v < 32 {
        let c = ALPHABET[v as usize];
        table[c as usize] = v;
        table[c.to_ascii_uppercase() as usize] = v;
        v += 1;
    }
    table
}

impl Minter {
    /// A minter under `key`, which must come from a CSPRNG and be new at every start.
    #[must_use]
    pub const fn new(key: [u8; 16]) -> Self {
        Self { key }
    }

    /// The text of `parts`. Deterministic: minting again gives the same text.
    #[must_use]
    pub fn mint(&self, parts: TokenParts) -> Token {
        let id = pack(parts);
        let mac = self.mac(id);
        let mut text = [0; TOKEN_LEN];
        put_base32(id, &mut text[..16]);
        put_base32(mac, &mut text[16..]);
        Token(text)
    }

    /// The parts of `text`, if it is a token this minter made. Case is ignored.
    #[must_use]
    pub fn verify(&self, text: &[u8]) -> Option<TokenParts> {
        let text: &[u8; TOKEN_LEN] = text.try_into().ok()?;
        let id = take_base32(&text[..16])?;
        let mac = take_base32(&text[16..])?;
        // Compared as one integer: no early exit to time.
        (self.mac(id) == mac).then(|| unpack(id))?
    }

    fn mac(&self, id: u128) -> u128 {
        let mut hasher = SipHasher24::new_with_key(&self.key);
        hasher.write(&id.to_le_bytes());
        hasher.finish128().as_u128() & MASK80
    }
}

/// The shard named by `text` without checking its MAC: for forwarding mis-steered messages only.
#[must_use]
pub fn peek_shard(text: &[u8]) -> Option<u8> {
    let text: &[u8; TOKEN_LEN] = text.try_into().ok()?;
    unpack(take_base32(&text[..16])?).map(|parts| parts.shard)
}

const MASK80: u128 = (1 << 80) - 1;

fn pack(parts: TokenParts) -> u128 {
    debug_assert!(parts.key.slot < 1 << 26 && parts.key.generation < 1 << 28);
    let mut id = u128::from(parts.kind as u8 & 0xf);
    id = id << 8 | u128::from(parts.shard);
    id = id << 26 | u128::from(parts.key.slot & 0x03ff_ffff);
    id = id << 28 | u128::from(parts.key.generation & 0x0fff_ffff);
    id << 14 | u128::from(parts.sequence & (SEQUENCE_MODULUS - 1))
}

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

/// Two characters for each ten bits, so that a token takes sixteen look-ups.
const PAIRS: [[u8; 2]; 1024] = pairs();

const fn pairs() -> [[u8; 2]; 1024] {
    let mut table = [[0; 2]; 1024];
    let mut v = 0;
    while v < 1024 {
        table[v] = [ALPHABET[v >> 5], ALPHABET[v & 31]];
        v += 1;
    }
    table
}

/// Writes the low 80 bits of `value`: two halves of 40 bits in registers of their own.
fn put_base32(value: u128, out: &mut [u8]) {
    let (high, low) = out.split_at_mut(8);
    put_half((value >> 40 & MASK40) as u64, high);
    put_half((value & MASK40) as u64, low);
}

fn put_half(value: u64, out: &mut [u8]) {
    for (at, pair) in (0u32..).zip(out.chunks_exact_mut(2)) {
        pair.copy_from_slice(&PAIRS[(value >> (30 - 10 * at) & 0x3ff) as usize]);
    }
}

fn take_base32(text: &[u8]) -> Option<u128> {
    let (high, low) = text.split_at(8);
    Some(u128::from(take_half(high)?) << 40 | u128::from(take_half(low)?))
}

fn take_half(text: &[u8]) -> Option<u64> {
    let mut value = 0;
    let mut bad = 0;
    for &c in text {
        let v = DECODE[usize::from(c)];
        bad |= v;
        value = value << 5 | u64::from(v & 31);
    }
    (bad & 0x80 == 0).then_some(value)
}

const MASK40: u128 = (1 << 40) - 1;

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
    fn every_single_changed_character_is_refused() {
        let minter = Minter::new([2; 16]);
        let token = minter.mint(parts(TokenKind::PushTag, 5, 1));
        for at in 0..TOKEN_LEN {
            let mut forged = token.0;
            forged[at] = if forged[at] == b'a' { b'b' } else { b'a' };
            assert_eq!(minter.verify(&forged), None, "position {at}");
        }
        assert_eq!(minter.verify(b"short"), None);
        assert_eq!(minter.verify(&[b'!'; 32]), None);
    }

    #[test]
    fn another_start_mints_other_tokens() {
        let want = parts(TokenKind::PushCallId, 5, 1);
        let (a, b) = (Minter::new([3; 16]), Minter::new([4; 16]));
        assert_ne!(a.mint(want), b.mint(want));
        assert_eq!(b.verify(a.mint(want).as_bytes()), None);
    }
}
