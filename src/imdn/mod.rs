//! Disposition notifications (RFC 5438): what a sender asked for, when one of ours is due, its
//! text, and reading those of others. Layer 1.
//!
//! We never say `delivered` or `displayed`: those come from the device and are only forwarded
//! (IMDN-3). The type [`NoticeStatus`] has no such variant.

mod notice;
mod xml;

use crate::cpim::{self, Cpim};

pub use notice::{NoticeFields, encode_failed, encode_notice};
pub use xml::{Imdn, ImdnError, ImdnStatus, parse};

/// Which notifications a sender asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requested {
    /// `positive-delivery`.
    pub positive_delivery: bool,
    /// `negative-delivery`.
    pub negative_delivery: bool,
    /// `processing`.
    pub processing: bool,
    /// `display`.
    pub display: bool,
}

impl Requested {
    /// Reads a `Disposition-Notification` value; unknown words are skipped (RFC 5438 section 6.2).
    #[must_use]
    pub fn read(value: &[u8]) -> Self {
        let mut requested = Self::default();
        for item in value.split(|&c| c == b',') {
            let end = memchr::memchr(b';', item).unwrap_or(item.len());
            let word = item[..end].trim_ascii();
            if word.eq_ignore_ascii_case(b"positive-delivery") {
                requested.positive_delivery = true;
            } else if word.eq_ignore_ascii_case(b"negative-delivery") {
                requested.negative_delivery = true;
            } else if word.eq_ignore_ascii_case(b"processing") {
                requested.processing = true;
            } else if word.eq_ignore_ascii_case(b"display") {
                requested.display = true;
            }
        }
        requested
    }

    /// What the sender of `cpim` asked for.
    #[must_use]
    pub fn of(cpim: &Cpim<'_>) -> Self {
        cpim.find_imdn(b"Disposition-Notification")
            .map(Self::read)
            .unwrap_or_default()
    }
}

/// What a notification of ours may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeStatus {
    /// Delivery: an error of ours.
    Error,
    /// Delivery: not delivered in its life.
    Failed,
    /// Delivery: refused by policy.
    Forbidden,
    /// Processing: stored for later (IMDN-5).
    Stored,
}

/// How a message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A device has it.
    Delivered,
    /// Its life was over.
    Expired,
    /// Policy or every device refused it for good.
    Refused,
    /// It never was taken: the sender got a non-2xx.
    RefusedAtIntake,
}

/// The notification due when a message ends, if any (IMDN-3, IMDN-4, IMDN-7).
///
/// `is_notice`: the message itself carries a notification; `already_sent`: a negative one went out.
#[must_use]
pub const fn notice_due(
    requested: Requested,
    ending: Ending,
    is_notice: bool,
    already_sent: bool,
) -> Option<NoticeStatus> {
    if !requested.negative_delivery || is_notice || already_sent {
        return None;
    }
    match ending {
        Ending::Expired => Some(NoticeStatus::Failed),
        Ending::Refused => Some(NoticeStatus::Forbidden),
        Ending::Delivered | Ending::RefusedAtIntake => None,
    }
}

/// Whether `content_type` is that of a notification.
#[must_use]
pub fn is_notice_type(content_type: &[u8]) -> bool {
    cpim::is_type(content_type, b"message/imdn+xml")
}

/// Whether `cpim` carries a notification.
#[must_use]
pub fn is_notice(cpim: &Cpim<'_>) -> bool {
    is_notice_type(cpim.content_type())
}

/// The notification inside `bytes` of type `content_type`: bare or wrapped in CPIM.
///
/// `None` when it is something else or malformed.
#[must_use]
pub fn extract<'a>(content_type: &[u8], bytes: &'a [u8]) -> Option<Imdn<'a>> {
    if is_notice_type(content_type) {
        return parse(bytes).ok();
    }
    if !cpim::is_type(content_type, b"message/cpim") {
        return None;
    }
    let cpim = cpim::parse(bytes).ok()?;
    if is_notice(&cpim) {
        parse(cpim.content()).ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
