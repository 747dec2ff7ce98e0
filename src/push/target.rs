//! Whom the initial INVITE of a push addresses, and in what conversation: texts that are written once
//! and read for each request outside the dialog, kept as one buffer.

use crate::base::foresee;
/// The parts of a [`Target`], in the order in which they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Part {
    ConversationId,
    ContributionId,
    ToUri,
    RequestUri,
    AcceptContact,
}

const PARTS: usize = Part::AcceptContact as usize + 1;

/// Addresses and identifiers of an initial INVITE. The buffer is reused by the slot's next push.
#[derive(Debug, Default)]
pub struct Target {
    text: Vec<u8>,
    ends: [u32; PARTS],
    /// What few messages have: the related charging identifier, then header lines.
    rare: Vec<u8>,
    icid_end: u32,
    /// End of the lines, where the sender for From begins.
    lines_end: u32,
}

impl Target {
    /// Asks for the first `octets` of its text.
    pub(crate) fn foresee(&self, octets: usize) {
        foresee::bring(&self.text[..], octets);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.text.clear();
        self.ends = [0; PARTS];
        self.rare.clear();
        self.icid_end = 0;
        self.lines_end = 0;
    }

    /// Octets that it owns beside its place.
    #[must_use]
    pub const fn memory(&self) -> usize {
        self.text.capacity() + self.rare.capacity()
    }

    /// Writes what the INVITE repeats of its first message: the charging identifier, and whole header
    /// lines.
    ///
    /// # Panics
    /// When they have 4 GiB or more; they come from messages of bounded size.
    pub fn repeat(&mut self, related_icid: &[u8], lines: &[u8]) {
        self.rare.clear();
        self.rare.extend_from_slice(related_icid);
        self.icid_end = offset(self.rare.len());
        self.rare.extend_from_slice(lines);
        self.lines_end = offset(self.rare.len());
    }

    /// Names the sender of the first message: in a Referred-By line, as From, or both. Comes after
    /// [`Target::repeat`].
    ///
    /// # Panics
    /// As [`Target::repeat`].
    pub fn name_sender(&mut self, sender: &[u8], referred_by: bool, from: bool) {
        self.rare.truncate(self.lines_end as usize);
        if referred_by {
            self.rare.extend_from_slice(b"Referred-By: <");
            self.rare.extend_from_slice(sender);
            self.rare.extend_from_slice(b">\r\n");
            self.lines_end = offset(self.rare.len());
        }
        if from {
            self.rare.extend_from_slice(sender);
        }
    }

    /// URI of From where the dialect leaves it open; else empty.
    #[must_use]
    pub fn from_uri(&self) -> &[u8] {
        &self.rare[self.lines_end as usize..]
    }

    /// `icid-value` of the first message (IMS-4); mostly empty.
    #[must_use]
    pub fn related_icid(&self) -> &[u8] {
        &self.rare[..self.icid_end as usize]
    }

    /// Header lines with CRLF repeated from the first message (IMS-5, OVL-11); mostly empty.
    #[must_use]
    pub fn lines(&self) -> &[u8] {
        &self.rare[self.icid_end as usize..self.lines_end as usize]
    }

    /// Writes all parts; `accept_contact` appends an extra Accept-Contact value, or nothing.
    ///
    /// # Panics
    /// When they have 4 GiB or more; they come from messages and documents of bounded size.
    pub fn write(
        &mut self,
        ids: (&[u8], &[u8]),
        to_uri: &[u8],
        request_uri: &[u8],
        accept_contact: impl FnOnce(&mut Vec<u8>),
    ) {
        self.text.clear();
        let parts = [ids.0, ids.1, to_uri, request_uri];
        for (part, end) in parts.into_iter().zip(&mut self.ends) {
            self.text.extend_from_slice(part);
            *end = offset(self.text.len());
        }
        accept_contact(&mut self.text);
        self.ends[Part::AcceptContact as usize] = offset(self.text.len());
    }

    fn part(&self, part: Part) -> &[u8] {
        let at = part as usize;
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.text[start as usize..self.ends[at] as usize]
    }

    /// Conversation-ID of the first message (PUSH-i).
    #[must_use]
    pub fn conversation_id(&self) -> &[u8] {
        self.part(Part::ConversationId)
    }

    /// Contribution-ID of the first message (PUSH-i).
    #[must_use]
    pub fn contribution_id(&self) -> &[u8] {
        self.part(Part::ContributionId)
    }

    /// URI of To: the user's public identity (PUSH-l).
    #[must_use]
    pub fn to_uri(&self) -> &[u8] {
        self.part(Part::ToUri)
    }

    /// Request-URI: the device's public GRUU (PUSH-a).
    #[must_use]
    pub fn request_uri(&self) -> &[u8] {
        self.part(Part::RequestUri)
    }

    /// Extra Accept-Contact value for a device without GRUU; empty otherwise (PUSH-a2).
    #[must_use]
    pub fn accept_contact(&self) -> &[u8] {
        self.part(Part::AcceptContact)
    }
}

fn offset(len: usize) -> u32 {
    u32::try_from(len).expect("texts of an INVITE are bounded far below 4 GiB")
}

crate::fold_fields!(Target {
    text,
    ends,
    rare,
    icid_end,
    lines_end
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back_as_written_and_a_second_target_replaces_the_first() {
        let mut target = Target::default();
        assert_eq!(target.request_uri(), b"");
        target.write((b"conv", b"contrib"), b"sip:to@x", b"sip:gruu@x", |out| {
            out.extend_from_slice(b"*;a");
        });
        assert_eq!(target.conversation_id(), b"conv");
        assert_eq!(target.contribution_id(), b"contrib");
        assert_eq!(target.to_uri(), b"sip:to@x");
        assert_eq!(target.request_uri(), b"sip:gruu@x");
        assert_eq!(target.accept_contact(), b"*;a");
        target.write((b"", b"c"), b"t", b"", |_| {});
        assert_eq!(
            (target.conversation_id(), target.contribution_id()),
            (&b""[..], &b"c"[..])
        );
        assert_eq!(
            (target.to_uri(), target.request_uri()),
            (&b"t"[..], &b""[..])
        );
        assert_eq!(target.accept_contact(), b"");
        target.repeat(b"icid", b"X: y\r\n");
        assert_eq!(target.related_icid(), b"icid");
        assert_eq!(target.lines(), b"X: y\r\n");
        target.name_sender(b"sip:s@x", true, true);
        assert_eq!(target.lines(), b"X: y\r\nReferred-By: <sip:s@x>\r\n");
        assert_eq!(target.from_uri(), b"sip:s@x");
        target.clear();
        assert_eq!(target.from_uri(), b"");
        assert_eq!(
            (target.related_icid(), target.lines()),
            (&b""[..], &b""[..])
        );
        assert_eq!(target.to_uri(), b"");
    }
}
