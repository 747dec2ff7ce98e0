//! Bytes of the records (layer 1): a version, a kind, fixed fields, then counted fields.
//!
//! Little-endian, no padding. The store's engine adds length, place and checksum around a payload;
//! this module trusts none of them: decoding is bounded and never panics.
//!
//! ```text
//! Deposit  01 01 flags:u8 00 number:u64 received:u64 expires:u64 target:u64
//!          [related-icid lines]  with the flag RARE_FIELDS only
//!          user identity sender imdn conversation contribution in-reply-to type  (u16 length each)
//!          cpim (u32 length)
//! Part     01 03 zero:u16 index:u32 number:u64 octets (u32 length)
//! Mark     01 02 what:u8 detail:u8 status:u16 number:u64 at:u64 device:u64 user (u16 length)
//! ```

use crate::base::limits::SIP_MESSAGE_BYTES_MAX;
use crate::base::time::UnixMillis;
use crate::store::op::{Deposit, DepositFlags, Evidence, Mark, MarkKind, Part, RemovalReason};
use crate::store::parts::PART_BYTES;

/// Version every payload starts with.
pub const RECORD_VERSION: u8 = 1;
/// Longest counted field except the body, octets.
pub const FIELD_BYTES_MAX: usize = 4096;
/// Longest body of a deposit, octets.
pub const BODY_BYTES_MAX: usize = SIP_MESSAGE_BYTES_MAX;
/// Longest payload either kind can have, octets.
pub const RECORD_BYTES_MAX: usize = 36 + 10 * (2 + FIELD_BYTES_MAX) + 4 + BODY_BYTES_MAX;

const _: () = assert!(
    FIELD_BYTES_MAX <= u16::MAX as usize,
    "a field's length has 16 bits"
);
const _: () = assert!(
    RECORD_BYTES_MAX <= u32::MAX as usize,
    "a record's length has 32 bits"
);

/// Octets of a deposit before its first counted field.
const DEPOSIT_FIXED_BYTES: usize = 36;
/// Counted fields of a deposit before the CPIM.
const DEPOSIT_FIELDS: usize = 8;
/// Counted fields before these that few deposits have.
const RARE_FIELDS: usize = 2;

const KIND_DEPOSIT: u8 = 1;
const KIND_MARK: u8 = 2;
const KIND_PART: u8 = 3;
/// Octets of a part's record before its own.
const PART_FIXED_BYTES: usize = 20;

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordErrorKind {
    /// A fixed field has a value without a meaning.
    BadValue,
    /// A field that must not be empty is.
    Empty,
    /// A field or the body is longer than its limit.
    TooLong,
    /// Octets after the last field.
    Trailing,
    /// The payload ends inside a field.
    Truncated,
    /// A version this build does not know.
    UnknownVersion,
}

/// Why a payload cannot be written or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RecordError {
    /// What is wrong.
    pub kind: RecordErrorKind,
    /// Octets from the payload's start; when encoding, the payload's length so far.
    pub at: u32,
}

/// A decoded payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// A message was taken in.
    Deposit(Deposit<'a>),
    /// Something became of one.
    Mark(Mark<'a>),
    /// A piece of a large message.
    Part(Part<'a>),
}

/// Appends the payload of `deposit` to `out`.
///
/// # Errors
/// [`RecordErrorKind::TooLong`] or [`RecordErrorKind::Empty`]; `out` is then as it was.
pub fn encode_deposit(deposit: &Deposit<'_>, out: &mut Vec<u8>) -> Result<(), RecordError> {
    let start = out.len();
    let mut fixed = [0; DEPOSIT_FIXED_BYTES];
    let (head, numbers) = fixed.split_at_mut(4);
    head.copy_from_slice(&[RECORD_VERSION, KIND_DEPOSIT, deposit.flags.bits(), 0]);
    let values = [
        deposit.number,
        deposit.received.0,
        deposit.expires.0,
        deposit.target_instance,
    ];
    for (slot, value) in numbers.chunks_exact_mut(8).zip(values) {
        slot.copy_from_slice(&value.to_le_bytes());
    }
    out.extend_from_slice(&fixed);
    let fields = [
        deposit.user,
        deposit.identity,
        deposit.sender,
        deposit.imdn_message_id,
        deposit.conversation_id,
        deposit.contribution_id,
        deposit.in_reply_to,
        deposit.content_type,
    ];
    let mut result = Ok(());
    if deposit.flags.contains(DepositFlags::RARE_FIELDS) {
        result = put_field(deposit.related_icid, false, start, out)
            .and_then(|()| put_field(deposit.lines, false, start, out));
    }
    for (index, field) in fields.into_iter().enumerate() {
        result = result.and_then(|()| put_field(field, index < 2, start, out));
    }
    result = result.and_then(|()| match u32::try_from(deposit.cpim.len()) {
        Ok(len) if deposit.cpim.len() <= BODY_BYTES_MAX => {
            out.extend_from_slice(&len.to_le_bytes());
            out.extend_from_slice(deposit.cpim);
            Ok(())
        }
        Ok(_) | Err(_) => Err(error(RecordErrorKind::TooLong, out.len() - start)),
    });
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// Appends the payload of `part` to `out`.
///
/// # Panics
/// When the part is longer than [`PART_BYTES`]: whoever cuts them knows the bound.
pub fn encode_part(part: &Part<'_>, out: &mut Vec<u8>) {
    assert!(part.bytes.len() <= PART_BYTES, "parts are cut to this size");
    let len = u32::try_from(part.bytes.len()).expect("bounded just now");
    out.extend_from_slice(&[RECORD_VERSION, KIND_PART, 0, 0]);
    out.extend_from_slice(&part.index.to_le_bytes());
    out.extend_from_slice(&part.number.to_le_bytes());
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(part.bytes);
}

/// Appends the payload of `mark` to `out`.
///
/// # Errors
/// [`RecordErrorKind::TooLong`] or [`RecordErrorKind::Empty`]; `out` is then as it was.
pub fn encode_mark(mark: &Mark<'_>, out: &mut Vec<u8>) -> Result<(), RecordError> {
    let start = out.len();
    let (what, detail, status, device) = match mark.kind {
        MarkKind::Delivered { device, by } => {
            let by = match by {
                Evidence::HopAck => 1,
                Evidence::Imdn => 2,
                Evidence::Report => 3,
            };
            (1, by, 0, device)
        }
        MarkKind::Refused { device, status } => (2, 0, status, device),
        MarkKind::Removed { reason } => {
            let reason = match reason {
                RemovalReason::Delivered => 1,
                RemovalReason::Expired => 2,
                RemovalReason::Purged => 3,
                RemovalReason::Rejected => 4,
            };
            (3, reason, 0, 0)
        }
    };
    out.extend_from_slice(&[RECORD_VERSION, KIND_MARK, what, detail]);
    out.extend_from_slice(&u16::to_le_bytes(status));
    for number in [mark.number, mark.at.0, device] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    let result = put_field(mark.user, true, start, out);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn put_field(
    field: &[u8],
    required: bool,
    start: usize,
    out: &mut Vec<u8>,
) -> Result<(), RecordError> {
    if required && field.is_empty() {
        return Err(error(RecordErrorKind::Empty, out.len() - start));
    }
    let len = u16::try_from(field.len())
        .ok()
        .filter(|_| field.len() <= FIELD_BYTES_MAX);
    let Some(len) = len else {
        return Err(error(RecordErrorKind::TooLong, out.len() - start));
    };
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(field);
    Ok(())
}

fn error(kind: RecordErrorKind, at: usize) -> RecordError {
    RecordError {
        kind,
        at: u32::try_from(at).unwrap_or(u32::MAX),
    }
}

/// Reads a payload. The result borrows from it.
///
/// # Errors
/// Every payload that [`encode_deposit`] or [`encode_mark`] cannot have written.
pub fn decode(payload: &[u8]) -> Result<Record<'_>, RecordError> {
    let mut reader = Reader { payload, at: 0 };
    let [version, kind] = reader.take()?;
    if version != RECORD_VERSION {
        return Err(error(RecordErrorKind::UnknownVersion, 0));
    }
    let record = match kind {
        KIND_DEPOSIT => Record::Deposit(reader.deposit()?),
        KIND_MARK => Record::Mark(reader.mark()?),
        KIND_PART => Record::Part(reader.part()?),
        _ => return Err(error(RecordErrorKind::BadValue, 1)),
    };
    if reader.at == payload.len() {
        Ok(record)
    } else {
        Err(error(RecordErrorKind::Trailing, reader.at))
    }
}

/// Content type and CPIM of a deposit's payload, without a look at the other fields: for payloads that
/// [`decode`] took or [`encode_deposit`] wrote. `None` for anything that is too short, or no deposit.
#[must_use]
pub fn content_of(payload: &[u8]) -> Option<(&[u8], &[u8])> {
    if payload.get(1) != Some(&KIND_DEPOSIT) {
        return None;
    }
    let mut rest = payload.get(DEPOSIT_FIXED_BYTES..)?;
    let mut content_type = &rest[..0];
    let rare = payload[2] & DepositFlags::RARE_FIELDS.bits() != 0;
    let fields = DEPOSIT_FIELDS + if rare { RARE_FIELDS } else { 0 };
    for _ in 0..fields {
        let (len, field) = rest.split_first_chunk::<2>()?;
        (content_type, rest) = field.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
    }
    let (_, cpim) = rest.split_first_chunk::<4>()?;
    Some((content_type, cpim))
}

/// The octets of a part's payload, for payloads that [`encode_part`] wrote. `None` for anything else.
#[must_use]
pub fn part_bytes(payload: &[u8]) -> Option<&[u8]> {
    if payload.get(1) != Some(&KIND_PART) {
        return None;
    }
    payload.get(PART_FIXED_BYTES..)
}

/// Whether a deposit's payload has a list of parts in place of its body ([`DepositFlags::LARGE_MODE`]).
#[must_use]
pub fn is_large(payload: &[u8]) -> bool {
    let large = DepositFlags::LARGE_MODE.bits();
    payload.get(2).is_some_and(|flags| flags & large != 0)
}

/// Marks a deposit's payload as a copy. False, and nothing is changed, when it is no deposit.
pub fn mark_copy(payload: &mut [u8]) -> bool {
    if payload.len() < DEPOSIT_FIXED_BYTES || payload[1] != KIND_DEPOSIT {
        return false;
    }
    payload[2] |= DepositFlags::COPY.bits();
    true
}

struct Reader<'a> {
    payload: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let bytes = self
            .payload
            .get(self.at..)
            .and_then(|rest| rest.first_chunk::<N>());
        let bytes = bytes.ok_or_else(|| error(RecordErrorKind::Truncated, self.at))?;
        self.at += N;
        Ok(*bytes)
    }

    fn number(&mut self) -> Result<u64, RecordError> {
        Ok(u64::from_le_bytes(self.take()?))
    }

    fn slice(&mut self, len: usize, most: usize) -> Result<&'a [u8], RecordError> {
        if len > most {
            return Err(error(RecordErrorKind::TooLong, self.at));
        }
        let bytes = self.payload.get(self.at..).and_then(|rest| rest.get(..len));
        let bytes = bytes.ok_or_else(|| error(RecordErrorKind::Truncated, self.at))?;
        self.at += len;
        Ok(bytes)
    }

    fn field(&mut self) -> Result<&'a [u8], RecordError> {
        let len = usize::from(u16::from_le_bytes(self.take()?));
        self.slice(len, FIELD_BYTES_MAX)
    }

    fn required(&mut self) -> Result<&'a [u8], RecordError> {
        let at = self.at;
        match self.field()? {
            [] => Err(error(RecordErrorKind::Empty, at)),
            field => Ok(field),
        }
    }

    fn body(&mut self) -> Result<&'a [u8], RecordError> {
        let len = u32::from_le_bytes(self.take()?);
        self.slice(usize::try_from(len).unwrap_or(usize::MAX), BODY_BYTES_MAX)
    }

    fn deposit(&mut self) -> Result<Deposit<'a>, RecordError> {
        let [flags, zero] = self.take()?;
        let flags = DepositFlags::from_bits(flags).filter(|_| zero == 0);
        let flags = flags.ok_or_else(|| error(RecordErrorKind::BadValue, 2))?;
        let is_rare = flags.contains(DepositFlags::RARE_FIELDS);
        // Fields are read in the order they are written here.
        Ok(Deposit {
            flags,
            number: self.number()?,
            received: UnixMillis(self.number()?),
            expires: UnixMillis(self.number()?),
            target_instance: self.number()?,
            related_icid: if is_rare { self.field()? } else { b"" },
            lines: if is_rare { self.field()? } else { b"" },
            user: self.required()?,
            identity: self.required()?,
            sender: self.field()?,
            imdn_message_id: self.field()?,
            conversation_id: self.field()?,
            contribution_id: self.field()?,
            in_reply_to: self.field()?,
            content_type: self.field()?,
            cpim: self.body()?,
        })
    }

    fn part(&mut self) -> Result<Part<'a>, RecordError> {
        if self.take()? != [0, 0] {
            return Err(error(RecordErrorKind::BadValue, 2));
        }
        let index = u32::from_le_bytes(self.take()?);
        let number = self.number()?;
        let len = u32::from_le_bytes(self.take()?);
        let bytes = self.slice(usize::try_from(len).unwrap_or(usize::MAX), PART_BYTES)?;
        Ok(Part {
            number,
            index,
            bytes,
        })
    }

    fn mark(&mut self) -> Result<Mark<'a>, RecordError> {
        let [what, detail] = self.take()?;
        let status = u16::from_le_bytes(self.take()?);
        let number = self.number()?;
        let at = UnixMillis(self.number()?);
        let device = self.number()?;
        let kind = match (what, detail, status, device) {
            (1, 1, 0, _) => MarkKind::Delivered {
                device,
                by: Evidence::HopAck,
            },
            (1, 2, 0, _) => MarkKind::Delivered {
                device,
                by: Evidence::Imdn,
            },
            (1, 3, 0, _) => MarkKind::Delivered {
                device,
                by: Evidence::Report,
            },
            (2, 0, _, _) => MarkKind::Refused { device, status },
            (3, 1, 0, 0) => MarkKind::Removed {
                reason: RemovalReason::Delivered,
            },
            (3, 2, 0, 0) => MarkKind::Removed {
                reason: RemovalReason::Expired,
            },
            (3, 3, 0, 0) => MarkKind::Removed {
                reason: RemovalReason::Purged,
            },
            (3, 4, 0, 0) => MarkKind::Removed {
                reason: RemovalReason::Rejected,
            },
            _ => return Err(error(RecordErrorKind::BadValue, 2)),
        };
        Ok(Mark {
            user: self.required()?,
            number,
            at,
            kind,
        })
    }
}

#[cfg(test)]
mod tests;
