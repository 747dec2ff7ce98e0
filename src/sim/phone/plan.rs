//! What a device does with an INVITE, and how that is drawn.

use core::time::Duration;

use super::Phone;

/// How a device confirms messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reports {
    /// Only the 200s.
    None,
    /// In two pieces, the second first.
    Pieces,
    /// One REPORT for the whole.
    Whole,
}

/// What goes wrong in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The connection breaks.
    Cut,
    /// It is switched off: no answer to anything, and a new binding later.
    Die,
    /// It reports part of a message twice, then breaks.
    HalfReport,
    /// It ends the session.
    HangUp,
    /// It does not answer any more.
    Mute,
    /// Active, but it never connects.
    NeverBind,
    /// Nothing.
    None,
    /// It answers 481 to a refresh.
    NoRefresh,
    /// Passive, but it takes no connection.
    RefuseConnect,
    /// It answers 413 to a message.
    TooLarge,
    /// It answers 481 to a message.
    Unknown,
}

/// What a device does with an INVITE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Answers, after `wait`, with `setup:active` or passive.
    Answer {
        /// Until the 200.
        wait: Duration,
        /// Whether it connects to us.
        active: bool,
        /// How it confirms.
        reports: Reports,
        /// What goes wrong later.
        trouble: Trouble,
        /// Whether it lists UPDATE.
        updates: bool,
    },
    /// An answer that cannot be used: port 0.
    BadAnswer,
    /// Two devices behind one address answer.
    Fork,
    /// Rings, and answers when it gets the CANCEL.
    Glare,
    /// No response at all until `0`, then a 200.
    Late(Duration),
    /// A 200 without a Contact.
    NoContact,
    /// Refuses, perhaps with Retry-After.
    Refuse(u16, Option<u32>),
    /// Rings for ever.
    Ring,
    /// No response at all.
    Silent,
    /// 422 first.
    TooSmall,
}

impl Plan {
    /// An answer by a device that does everything right.
    #[must_use]
    pub const fn good() -> Self {
        Self::Answer {
            wait: Duration::from_millis(100),
            active: true,
            reports: Reports::Whole,
            trouble: Trouble::None,
            updates: true,
        }
    }
}

impl Phone {
    pub(super) fn good_answer(&mut self) -> Plan {
        let reports = [Reports::Whole, Reports::Pieces, Reports::None];
        let at = usize::try_from(self.dice.below(3)).expect("small");
        Plan::Answer {
            wait: Duration::from_millis(20 + self.dice.below(400)),
            active: self.dice.below(2) == 0,
            reports: reports[at],
            trouble: Trouble::None,
            updates: self.dice.below(2) == 0,
        }
    }

    fn troubled_answer(&mut self) -> Plan {
        const TROUBLES: [Trouble; 10] = [
            Trouble::Cut,
            Trouble::Die,
            Trouble::HalfReport,
            Trouble::HangUp,
            Trouble::Mute,
            Trouble::NeverBind,
            Trouble::NoRefresh,
            Trouble::RefuseConnect,
            Trouble::TooLarge,
            Trouble::Unknown,
        ];
        let mut plan = self.good_answer();
        let at = usize::try_from(self.dice.below(10)).expect("small");
        if let Plan::Answer {
            trouble, active, ..
        } = &mut plan
        {
            *trouble = TROUBLES[at];
            *active |= TROUBLES[at] == Trouble::NeverBind;
            *active &= TROUBLES[at] != Trouble::RefuseConnect;
        }
        plan
    }

    pub(super) fn mischief(&mut self) -> Plan {
        const CODES: [(u16, Option<u32>); 8] = [
            (486, None),
            (480, None),
            (480, Some(40)),
            (603, None),
            (503, Some(5)),
            (404, None),
            (500, None),
            (488, None),
        ];
        match self.dice.below(14) {
            0 => Plan::Silent,
            1 => Plan::Ring,
            2 => Plan::Glare,
            3 => Plan::Late(Duration::from_secs(33)),
            4 => Plan::TooSmall,
            5 => Plan::Fork,
            6 => Plan::BadAnswer,
            7 => Plan::NoContact,
            8..=10 => {
                let at = usize::try_from(self.dice.below(8)).expect("small");
                Plan::Refuse(CODES[at].0, CODES[at].1)
            }
            _ => self.troubled_answer(),
        }
    }
}
