//! Why a message is not with a device: the stable codes of SEL-6, each with its counter (layer 3).

use crate::metrics::probe::Probe;

/// Why a device will not get a message, or nobody will get it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageReason {
    /// Larger than the `max-size` of the device's answer (SDP-18).
    TooLarge,
    /// Of a type that the device's answer leaves out (SDP-19).
    Type,
    /// Refused in the session with this status: 400, 403, 413, 415 or 423.
    Rejected(u16),
    /// The device lost its connection over it too often (BAD-30).
    Poison,
    /// Its life ended (LIFE-3).
    Expired,
    /// It was a repeat of one taken before (INT-4).
    Duplicate,
}

impl MessageReason {
    /// The code: public, never renamed.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooLarge => "M-TOO-LARGE-FOR-DEVICE",
            Self::Type => "M-TYPE",
            Self::Rejected(403) => "M-REJ-403",
            Self::Rejected(413) => "M-REJ-413",
            Self::Rejected(415) => "M-REJ-415",
            Self::Rejected(423) => "M-REJ-423",
            Self::Rejected(_) => "M-REJ-400",
            Self::Poison => "M-POISON",
            Self::Expired => "M-EXPIRED",
            Self::Duplicate => "M-DUPLICATE",
        }
    }

    /// The status that a durable mark of the refusal bears; zero when no status was said.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::TooLarge => 413,
            Self::Type => 415,
            Self::Rejected(status) => status,
            Self::Poison | Self::Expired | Self::Duplicate => 0,
        }
    }

    /// The counter of this reason.
    pub const fn counter(self, probe: &mut Probe) -> &mut u64 {
        match self {
            Self::TooLarge => &mut probe.refused_too_large_total,
            Self::Type => &mut probe.refused_type_total,
            Self::Rejected(403) => &mut probe.refused_403_total,
            Self::Rejected(413) => &mut probe.refused_413_total,
            Self::Rejected(415) => &mut probe.refused_415_total,
            Self::Rejected(423) => &mut probe.refused_423_total,
            Self::Rejected(_) => &mut probe.refused_400_total,
            Self::Poison => &mut probe.refused_poison_total,
            Self::Expired => &mut probe.messages_expired_total,
            Self::Duplicate => &mut probe.deposits_duplicate_total,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Proves: SEL-6
    #[test]
    fn every_reason_has_a_code_and_a_counter_of_its_own() {
        let reasons = [
            MessageReason::TooLarge,
            MessageReason::Type,
            MessageReason::Rejected(400),
            MessageReason::Rejected(403),
            MessageReason::Rejected(413),
            MessageReason::Rejected(415),
            MessageReason::Rejected(423),
            MessageReason::Poison,
            MessageReason::Expired,
            MessageReason::Duplicate,
        ];
        let mut probe = Probe::default();
        for (value, reason) in (1..).zip(reasons) {
            *reason.counter(&mut probe) = value;
        }
        let mut codes: Vec<&str> = reasons.iter().map(|reason| reason.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), reasons.len());
        assert!(codes.iter().all(|code| code.starts_with("M-")));
        let values: Vec<u64> = probe.iter().map(|(_, value)| value).collect();
        for value in 1..=reasons.len() as u64 {
            assert!(values.contains(&value), "no two share a counter");
        }
    }
}
