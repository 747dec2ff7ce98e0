//! SDP for one MSRP media line: judging answers, answering offers (layer 1).
//!
//! RFC 8866 for the grammar, RFC 3264 for offer and answer, RFC 4975 section 8, RFC 6135 and
//! RFC 6714 for MSRP. Our own offer is rendered by `sip::template`; here the peer's text is read.
//!
//! What this does **not** do: media other than `message`, TLS (an `msrps` answer is refused),
//! names (only numeric hosts become addresses), and any attribute that has no effect on a push.

mod address;
mod answer;
mod familiar;
mod offer;
mod scan;

pub use address::address_allowed;
pub use answer::{Answer, Role, judge_answer, list_covers};
pub use familiar::Answers;
pub use offer::{
    LocalMedia, OfferAnswer, OfferOutcome, answer_offer, answer_sending_offer, judge_offer,
    judge_sending_offer, may_hold_sdp,
};

/// Who opens the connection (RFC 4145 section 4, RFC 6135 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// The writer connects.
    Active,
    /// The writer leaves the choice to the answerer; only offers may say so.
    Actpass,
    /// Nobody connects for now; MSRP has no use for it.
    Holdconn,
    /// The writer waits for a connection.
    Passive,
}

impl Setup {
    /// The attribute's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Actpass => "actpass",
            Self::Holdconn => "holdconn",
            Self::Passive => "passive",
        }
    }

    fn parse(value: &[u8]) -> Option<Self> {
        [Self::Active, Self::Actpass, Self::Holdconn, Self::Passive]
            .into_iter()
            .find(|setup| value.eq_ignore_ascii_case(setup.as_str().as_bytes()))
    }
}

/// The direction of a stream, as its writer sees it (RFC 8866 section 6.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Nothing flows for now.
    Inactive,
    /// The writer only receives: what a push expects of its answer.
    Recvonly,
    /// The writer only sends.
    Sendonly,
    /// Both ways; also what a missing attribute means.
    Sendrecv,
}

impl Direction {
    /// The attribute's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Recvonly => "recvonly",
            Self::Sendonly => "sendonly",
            Self::Sendrecv => "sendrecv",
        }
    }

    fn parse(name: &[u8]) -> Option<Self> {
        [
            Self::Inactive,
            Self::Recvonly,
            Self::Sendonly,
            Self::Sendrecv,
        ]
        .into_iter()
        .find(|direction| name == direction.as_str().as_bytes())
    }
}

/// Why a body cannot carry a push. Each has a reason code for counters and the inspection output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SdpError {
    /// No usable address: c= missing or odd, or a host that is not numeric where we must connect.
    Addr,
    /// The direction forbids our sending, or two directions contradict each other.
    Dir,
    /// No SDP at all, or text that is not SDP.
    None,
    /// `a=path` missing, repeated or not made of plain `msrp` URIs with host and port.
    Path,
    /// The media line was refused with port 0.
    Port0,
    /// Not exactly one media line `message` over `TCP/MSRP`.
    Proto,
    /// A setup role that an answer may not have, or that leaves nobody to connect.
    Setup,
    /// `message/cpim` is not acceptable to the peer.
    Type,
}

impl SdpError {
    /// The reason code of the inspection interface.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Addr => "R-SDP-ADDR",
            Self::Dir => "R-SDP-DIR",
            Self::None => "R-SDP-NONE",
            Self::Path => "R-SDP-PATH",
            Self::Port0 => "R-SDP-PORT0",
            Self::Proto => "R-SDP-PROTO",
            Self::Setup => "R-SDP-SETUP",
            Self::Type => "R-SDP-TYPE",
        }
    }
}

#[cfg(test)]
mod tests;
