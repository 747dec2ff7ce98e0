//! What a push keeps once its session is described again: by an offer of the peer, or by another
//! one of ours (layer 3).
//!
//! Most sessions are described once and never see this. So it is one pointer of [`Push`], made when
//! the first new description is due; the rest of the push stays as small as it was.
//!
//! [`Push`]: crate::push::Push

use core::net::SocketAddr;

use crate::base::outbox::Destination;
use crate::base::time::Timestamp;
use crate::sip::transaction::server_invite::{ServerInvite, ServerInviteState};

/// Where an offer of ours stands that is made for another reason than a refresh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OwnOffer {
    /// None is wanted.
    #[default]
    None,
    /// It met a request of the peer and is repeated then.
    Due(Timestamp),
    /// Its re-INVITE waits for an answer.
    InFlight,
}

/// Descriptions after the first, and the peer's INVITE until its ACK. Owner: the push.
#[derive(Debug)]
pub struct Negotiation {
    /// The peer's INVITE whose final response awaits its ACK.
    pub answering: Option<ServerInvite>,
    /// `CSeq` number of the INVITE that was answered last.
    pub peer_cseq: Option<u32>,
    /// The octets of that answer, and where they go.
    pub response: Vec<u8>,
    /// Where responses to that INVITE go.
    pub way_back: Option<Destination>,
    /// That answer carried an offer of ours; the ACK must bring what the peer says to it.
    pub asked: bool,
    /// A BYE waits for that ACK (DLG-8).
    pub bye_due: bool,
    /// The stream is inactive: no SEND starts (DLG-10).
    pub paused: bool,
    /// Our descriptions go without `a=msrp-cema` from here on (SDP-16).
    pub without_cema: bool,
    /// Our own offer.
    pub offer: OwnOffer,
    /// 491 in a row to our own offer.
    pub glares: u8,
    /// `CSeq` number and branch sequence of the ACK before our own offer: the 2xx it was for may be
    /// repeated meanwhile (DLG-3).
    pub earlier_ack: Option<(u32, u16)>,
    /// How often the session moved to another connection; tells connects apart.
    pub moves: u8,
    /// Where the connection under way goes to, since the session moved.
    pub connect_to: Option<SocketAddr>,
    /// The o= version of our last description (SDP-2).
    version: u32,
    /// Of that description without its o= line.
    digest: u64,
    /// That description.
    description: Vec<u8>,
}

impl Negotiation {
    /// After the offer of the INVITE, which `render` writes for a given version.
    pub fn new(render: impl FnOnce(u32, &mut Vec<u8>)) -> Self {
        let mut description = Vec::new();
        render(1, &mut description);
        Self {
            answering: None,
            peer_cseq: None,
            response: Vec::new(),
            way_back: None,
            asked: false,
            bye_due: false,
            paused: false,
            without_cema: false,
            offer: OwnOffer::None,
            glares: 0,
            earlier_ack: None,
            moves: 0,
            connect_to: None,
            version: 1,
            digest: digest_of(&description),
            description,
        }
    }

    /// Writes our next description. Its version is the last one's while the text is the same, and one
    /// more when it is not (RFC 3264 section 8).
    pub fn describe(&mut self, render: impl Fn(u32, &mut Vec<u8>)) -> &[u8] {
        self.description.clear();
        render(self.version, &mut self.description);
        let digest = digest_of(&self.description);
        if digest != self.digest {
            self.digest = digest;
            self.version = self.version.wrapping_add(1);
            self.description.clear();
            render(self.version, &mut self.description);
        }
        &self.description
    }

    /// The o= version of our last description.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// `true` while our 2xx to the peer's INVITE is not acknowledged.
    #[must_use]
    pub fn awaits_ack(&self) -> bool {
        self.answering
            .as_ref()
            .is_some_and(|invite| invite.state() == ServerInviteState::Accepted)
    }

    /// The peer ended the dialog: no answer is repeated and none awaited.
    pub fn stop(&mut self) {
        self.answering = None;
        self.asked = false;
        self.bye_due = false;
        self.offer = OwnOffer::None;
    }

    /// When something is due.
    #[must_use]
    pub fn deadline(&self) -> Timestamp {
        let answer = self
            .answering
            .as_ref()
            .map_or(Timestamp::NEVER, ServerInvite::deadline);
        match self.offer {
            OwnOffer::Due(at) => answer.min(at),
            OwnOffer::None | OwnOffer::InFlight => answer,
        }
    }
}

/// FNV-1a of a description without its second line, which is o=.
fn digest_of(description: &[u8]) -> u64 {
    let lines = description.split_inclusive(|&byte| byte == b'\n');
    let kept = lines.enumerate().filter(|(number, _)| *number != 1);
    kept.flat_map(|(_, line)| line)
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(version: u32, rest: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("v=0\r\no=- 7 {version} IN IP4 h\r\n{rest}\r\n").as_bytes());
    }

    // Proves: SDP-2
    #[test]
    fn the_version_grows_by_one_when_the_text_changes_and_only_then() {
        let mut session = Negotiation::new(|version, out| text(version, "a=sendonly", out));
        for (rest, version) in [
            ("a=sendonly", 1),
            ("a=inactive", 2),
            ("a=inactive", 2),
            ("a=sendonly", 3),
        ] {
            let mut expected = Vec::new();
            text(version, rest, &mut expected);
            let written = session.describe(|version, out| text(version, rest, out));
            assert_eq!(written, expected);
            assert_eq!(session.version(), version);
        }
    }
}
