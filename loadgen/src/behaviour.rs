//! What phones do with a push, drawn from a mix with a seed: the same phone does the same on its nth
//! push in every run of a seed.

use crate::world::Random;

/// What a phone does with an INVITE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Behaviour {
    /// 480: nobody there.
    Absent,
    /// 200 at once.
    #[default]
    Answer,
    /// 486.
    Busy,
    /// 603.
    Decline,
    /// 183 of another phone first, then 200: only the dialog of the 200 counts.
    Fork,
    /// 200, and BYE of the phone soon after.
    HangUp,
    /// 200 after a while, without 180.
    Late,
    /// 488.
    NotAcceptable,
    /// 180, and 200 after a while.
    Ring,
    /// 100 and nothing more, until CANCEL.
    Silent,
    /// 422 once, then 200.
    TooSmall,
    /// 503.
    Unavailable,
}

/// What a phone does with a SEND.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Receiver {
    /// Closes the connection in the middle of a message.
    Abort,
    /// Reports in parts that overlap, the last octets first.
    Partial,
    /// Answers and reports at once.
    #[default]
    Read,
    /// 413: no room.
    Refuse,
    /// Resets the connection in the middle of a message.
    Reset,
    /// Answers and reports after a while.
    Slow,
}

/// Who refreshes a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Refresher {
    /// The engine, as it asked.
    #[default]
    Engine,
    /// The phone, which said so.
    Phone,
    /// Nobody: the phone said it would.
    Silent,
}

/// Names of those who refresh, as in `--refreshers`.
pub const REFRESHERS: &[(&str, Refresher)] = &[
    ("engine", Refresher::Engine),
    ("phone", Refresher::Phone),
    ("silent", Refresher::Silent),
];

/// What a phone that opened a connection for a session does with it when the engine's BYE has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Leaver {
    /// Closes it.
    #[default]
    Close,
    /// Waits for the engine to close it; closes it itself when that takes long.
    Wait,
}

/// Names of leavers, as in `--leavers`.
pub const LEAVERS: &[(&str, Leaver)] = &[("close", Leaver::Close), ("wait", Leaver::Wait)];

/// What a next hop does with an INVITE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hop {
    /// 503 with Retry-After.
    Busy,
    /// Closes its connection without an answer.
    Close,
    /// Passes it on.
    #[default]
    Good,
    /// Passes it on and asks for a tenth less (`oc` in Via).
    Oc,
    /// Passes it on and asks for so many new requests a second at most (`oc` in Via).
    Rate,
}

/// Names of what a hop does, as in `--hops`.
pub const HOPS: &[(&str, Hop)] = &[
    ("busy", Hop::Busy),
    ("close", Hop::Close),
    ("good", Hop::Good),
    ("oc", Hop::Oc),
    ("rate", Hop::Rate),
];

/// What the registrar does with a trigger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Registrar {
    /// The subscription ends: deactivated.
    Deactivated,
    /// Full state with new bindings.
    #[default]
    Full,
    /// A partial document that leaves out a version.
    Gap,
    /// The subscription ends: giveup, for a while.
    Giveup,
    /// Contacts that are gone.
    Gone,
    /// Contacts without a GRUU.
    GruuLess,
    /// The subscription ends: invariant.
    Invariant,
    /// The subscription ends: noresource.
    Noresource,
    /// A partial document with one device.
    Partial,
    /// The subscription ends: probation, for a while.
    Probation,
    /// Contacts that were refreshed.
    Refresh,
    /// The subscription ends: rejected.
    Rejected,
    /// A document of an old version.
    Stale,
    /// Many documents that say the same.
    Storm,
    /// The subscription ends: timeout.
    Timeout,
}

/// Names of what a registrar does, as in `--registrar`.
pub const REGISTRARS: &[(&str, Registrar)] = &[
    ("deactivated", Registrar::Deactivated),
    ("full", Registrar::Full),
    ("gap", Registrar::Gap),
    ("giveup", Registrar::Giveup),
    ("gone", Registrar::Gone),
    ("gruu-less", Registrar::GruuLess),
    ("invariant", Registrar::Invariant),
    ("noresource", Registrar::Noresource),
    ("partial", Registrar::Partial),
    ("probation", Registrar::Probation),
    ("refresh", Registrar::Refresh),
    ("rejected", Registrar::Rejected),
    ("stale", Registrar::Stale),
    ("storm", Registrar::Storm),
    ("timeout", Registrar::Timeout),
];

impl Registrar {
    /// Why the subscription ends, when it does (RFC 6665 section 4.1.3).
    pub fn reason(self) -> Option<&'static str> {
        Some(match self {
            Self::Deactivated => "deactivated",
            Self::Giveup => "giveup",
            Self::Invariant => "invariant",
            Self::Noresource => "noresource",
            Self::Probation => "probation",
            Self::Rejected => "rejected",
            Self::Timeout => "timeout",
            Self::Full
            | Self::Gap
            | Self::Gone
            | Self::GruuLess
            | Self::Partial
            | Self::Refresh
            | Self::Stale
            | Self::Storm => return None,
        })
    }

    /// Whether the engine may subscribe again after a while only.
    pub fn retries_later(self) -> bool {
        matches!(self, Self::Giveup | Self::Probation)
    }

    /// Whether the engine may subscribe again only after another REGISTER.
    pub fn waits_for_register(self) -> bool {
        matches!(self, Self::Invariant | Self::Noresource | Self::Rejected)
    }
}

/// Names of behaviours, as in `--mix`.
pub const BEHAVIOURS: &[(&str, Behaviour)] = &[
    ("absent", Behaviour::Absent),
    ("answer", Behaviour::Answer),
    ("busy", Behaviour::Busy),
    ("decline", Behaviour::Decline),
    ("fork", Behaviour::Fork),
    ("hang-up", Behaviour::HangUp),
    ("late", Behaviour::Late),
    ("not-acceptable", Behaviour::NotAcceptable),
    ("ring", Behaviour::Ring),
    ("silent", Behaviour::Silent),
    ("too-small", Behaviour::TooSmall),
    ("unavailable", Behaviour::Unavailable),
];

/// Names of receivers, as in `--receivers`.
pub const RECEIVERS: &[(&str, Receiver)] = &[
    ("abort", Receiver::Abort),
    ("partial", Receiver::Partial),
    ("read", Receiver::Read),
    ("refuse", Receiver::Refuse),
    ("reset", Receiver::Reset),
    ("slow", Receiver::Slow),
];

/// Behaviours with their weights.
#[derive(Clone, Debug)]
pub struct Mix<T> {
    weighted: Vec<(T, f64)>,
    seed: u64,
}

impl<T: Copy + PartialEq + 'static> Mix<T> {
    /// Reads `name:weight` pairs; nothing means the first of `otherwise`.
    pub fn parse(
        flag: &str,
        texts: &[String],
        known: &[(&str, T)],
        otherwise: T,
        seed: u64,
    ) -> Result<Self, String> {
        let mut weighted = Vec::new();
        for text in texts {
            let (name, weight) = text.split_once(':').unwrap_or((text, "1"));
            let (name, weight) = (name.trim(), weight.trim().parse::<f64>());
            let Some(&(_, one)) = known.iter().find(|(known, _)| *known == name) else {
                let names = known.iter().map(|&(known, _)| known);
                let near = crate::scenario::nearest(name, names.clone());
                let list: Vec<&str> = names.collect();
                return Err(match near {
                    Some(near) => format!("--{flag}: unknown `{name}`; did you mean `{near}`?"),
                    None => format!("--{flag}: unknown `{name}`; one of {}", list.join(", ")),
                });
            };
            let Ok(weight @ 0.0..) = weight else {
                return Err(format!("--{flag}: `{text}` is not NAME:WEIGHT"));
            };
            weighted.push((one, weight));
        }
        if weighted.is_empty() {
            weighted.push((otherwise, 1.0));
        }
        if weighted.iter().map(|&(_, weight)| weight).sum::<f64>() <= 0.0 {
            return Err(format!("--{flag}: all weights are zero"));
        }
        Ok(Self { weighted, seed })
    }

    /// Whether there is but one behaviour, and it is `one`.
    pub fn is_only(&self, one: T) -> bool {
        self.weighted
            .iter()
            .all(|&(known, weight)| known == one || weight == 0.0)
    }

    /// What device number `device` does the `nth` time.
    #[inline]
    pub fn draw(&self, device: usize, nth: u32) -> T {
        if let [(only, _)] = self.weighted.as_slice() {
            return *only;
        }
        let key = self.seed ^ (device as u64) << 24 ^ u64::from(nth);
        let mut left = Random::new(key).unit() * self.weighted.iter().map(|(_, w)| w).sum::<f64>();
        for &(one, weight) in &self.weighted {
            if left < weight {
                return one;
            }
            left -= weight;
        }
        self.weighted[0].0
    }
}

impl Behaviour {
    /// Status line and header lines of a refusal; nothing for phones that answer.
    pub fn refusal(self) -> Option<(&'static [u8], &'static [u8])> {
        Some(match self {
            Self::Absent => (b"480 Temporarily Unavailable", b""),
            Self::Busy => (b"486 Busy Here", b"Retry-After: 30\r\n"),
            Self::Decline => (b"603 Decline", b""),
            Self::NotAcceptable => (b"488 Not Acceptable Here", b""),
            Self::TooSmall => (b"422 Session Interval Too Small", b"Min-SE: 3600\r\n"),
            Self::Unavailable => (b"503 Service Unavailable", b""),
            Self::Answer | Self::Fork | Self::HangUp | Self::Late | Self::Ring | Self::Silent => {
                return None;
            }
        })
    }
}

/// Min-SE of a phone that finds the interval too small, seconds.
pub const MIN_SE_S: u32 = 3600;

#[cfg(test)]
mod tests {
    use super::*;

    fn mix(texts: &[&str], seed: u64) -> Result<Mix<Behaviour>, String> {
        let texts: Vec<String> = texts.iter().map(|&text| text.to_owned()).collect();
        Mix::parse("mix", &texts, BEHAVIOURS, Behaviour::Answer, seed)
    }

    #[test]
    fn draws_by_weight_and_the_same_for_one_seed() {
        let one = mix(&["answer:7", "busy:2", "silent:1", "fork:0"], 5).unwrap();
        let count = |wanted: Behaviour| {
            (0..20_000)
                .filter(|&device| one.draw(device, 3) == wanted)
                .count()
        };
        assert!((13_600..14_400).contains(&count(Behaviour::Answer)));
        assert!((3_700..4_300).contains(&count(Behaviour::Busy)));
        assert_eq!(count(Behaviour::Fork), 0);
        let draws = |mix: &Mix<Behaviour>| -> Vec<Behaviour> {
            (0..100).map(|nth| mix.draw(9, nth)).collect()
        };
        let again = mix(&["answer:7", "busy:2", "silent:1", "fork:0"], 5).unwrap();
        assert_eq!(draws(&one), draws(&again));
        let other = mix(&["answer:7", "busy:2", "silent:1", "fork:0"], 6).unwrap();
        assert_ne!(draws(&one), draws(&other));
        assert!(mix(&[], 1).unwrap().is_only(Behaviour::Answer));
    }

    #[test]
    fn a_typo_gets_a_suggestion() {
        assert_eq!(
            mix(&["bussy:3"], 1).unwrap_err(),
            "--mix: unknown `bussy`; did you mean `busy`?"
        );
        assert!(mix(&["busy:x"], 1).is_err() && mix(&["busy:-1"], 1).is_err());
        assert!(mix(&["busy:0"], 1).unwrap_err().contains("zero"));
    }
}
