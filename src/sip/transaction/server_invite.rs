//! The INVITE server transaction (RFC 3261 section 17.2.1 as changed by RFC 6026 section 7.1),
//! together with the core's repetition of a 2xx until the ACK (RFC 3261 section 13.3.1.4).

use core::time::Duration;

use super::{TransactionOptions, millis, next_repeat};
use crate::base::time::Timestamp;

#[cfg(test)]
mod tests;

/// A 100 leaves when no other response did for this long.
pub const TRYING_AFTER: Duration = Duration::from_millis(200);

/// Where an INVITE server transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerInviteState {
    /// No final response was sent yet.
    Proceeding,
    /// A final response other than 2xx was sent; its ACK is awaited.
    Completed,
    /// That ACK came; repeats of it are absorbed.
    Confirmed,
    /// A 2xx was sent; repeats of the INVITE are absorbed.
    Accepted,
    /// The machine does nothing any more.
    Terminated,
}

/// What the owner has to do after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerInviteAction {
    /// Nothing.
    Nothing,
    /// Send a 100 and remember it as the last response.
    SendTrying,
    /// Send the last response again, octet for octet.
    Retransmit,
    /// The ACK came: the answer stands.
    Acknowledged,
    /// No ACK for our 2xx in time: end the dialog with BYE.
    AckMissing,
    /// No ACK for our other final response in time; nothing to do but forget it.
    TimedOut,
    /// Over; nothing is awaited any more.
    Terminated,
}

/// A peer's INVITE (for us: a re-INVITE), from its arrival until repeats of it can no longer come.
///
/// Owner: the push whose dialog it belongs to; the octets of the last response are kept by
/// [`super::server::ServerTable`]. `Proceeding` ends by the owner's answer, which is immediate.
#[derive(Clone, Copy, Debug)]
pub struct ServerInvite {
    /// The wait before a 100, timer G, or the repetition of a 2xx, by state.
    repeat_at: Timestamp,
    /// Timer H, I or L, by state.
    end_at: Timestamp,
    interval_ms: u32,
    t1_ms: u32,
    t2_ms: u32,
    t4_ms: u32,
    state: ServerInviteState,
    /// `Proceeding`: a provisional response was sent. `Accepted`: the ACK came.
    settled: bool,
    reliable: bool,
}

const _: () = assert!(size_of::<ServerInvite>() <= 48);

impl ServerInvite {
    /// The INVITE came at `now`.
    #[must_use]
    pub fn start(now: Timestamp, options: &TransactionOptions) -> Self {
        let machine = Self {
            repeat_at: now + TRYING_AFTER,
            end_at: Timestamp::NEVER,
            interval_ms: 0,
            t1_ms: millis(options.t1),
            t2_ms: millis(options.t2),
            t4_ms: millis(options.t4),
            state: ServerInviteState::Proceeding,
            settled: false,
            reliable: options.reliable,
        };
        machine.check();
        machine
    }

    /// Where it is.
    #[must_use]
    pub const fn state(&self) -> ServerInviteState {
        self.state
    }

    /// When to call [`ServerInvite::handle_timeout`]; `NEVER` when nothing is armed.
    #[must_use]
    pub fn deadline(&self) -> Timestamp {
        self.repeat_at.min(self.end_at)
    }

    /// The owner sends a response. Only while `Proceeding`.
    ///
    /// # Panics
    /// When a final response was sent before, or `status` is none: that is our error.
    pub fn respond(&mut self, now: Timestamp, status: u16) {
        assert!((100..=699).contains(&status), "a SIP status");
        assert!(
            self.state == ServerInviteState::Proceeding,
            "one final response per request"
        );
        let t1 = Duration::from_millis(self.t1_ms.into());
        match status {
            100..=199 => {
                self.settled = true;
                self.repeat_at = Timestamp::NEVER;
            }
            200..=299 => {
                // Repeated also over TCP: a hop behind it may lose it.
                self.state = ServerInviteState::Accepted;
                self.settled = false;
                self.interval_ms = self.t1_ms;
                self.repeat_at = now + t1;
                self.end_at = now + t1 * 64;
            }
            _ => {
                self.state = ServerInviteState::Completed;
                self.interval_ms = self.t1_ms;
                self.repeat_at = if self.reliable {
                    Timestamp::NEVER
                } else {
                    now + t1
                };
                self.end_at = now + t1 * 64;
            }
        }
        self.check();
    }

    /// The same INVITE came again.
    pub fn handle_retransmission(&self) -> ServerInviteAction {
        use ServerInviteState::{Accepted, Completed, Confirmed, Proceeding, Terminated};
        match self.state {
            Proceeding if self.settled => ServerInviteAction::Retransmit,
            Completed => ServerInviteAction::Retransmit,
            // A 2xx is repeated by its own timer.
            Proceeding | Confirmed | Accepted | Terminated => ServerInviteAction::Nothing,
        }
    }

    /// The ACK came: the one of this transaction, or the dialog's for our 2xx.
    pub fn handle_ack(&mut self, now: Timestamp) -> ServerInviteAction {
        use ServerInviteState::{Accepted, Completed, Confirmed, Proceeding, Terminated};
        let action = match self.state {
            Completed if self.reliable => {
                self.end();
                ServerInviteAction::Acknowledged
            }
            Completed => {
                self.state = Confirmed;
                self.repeat_at = Timestamp::NEVER;
                self.end_at = now + Duration::from_millis(self.t4_ms.into());
                ServerInviteAction::Acknowledged
            }
            Accepted if !self.settled => {
                self.settled = true;
                self.repeat_at = Timestamp::NEVER;
                ServerInviteAction::Acknowledged
            }
            Proceeding | Confirmed | Accepted | Terminated => ServerInviteAction::Nothing,
        };
        self.check();
        action
    }

    /// Does what is due at `now`, one thing per call; nothing before the deadline.
    pub fn handle_timeout(&mut self, now: Timestamp) -> ServerInviteAction {
        use ServerInviteState::{Accepted, Completed, Confirmed, Proceeding, Terminated};
        let action = match self.state {
            Proceeding if self.repeat_at <= now => {
                self.settled = true;
                self.repeat_at = Timestamp::NEVER;
                ServerInviteAction::SendTrying
            }
            Completed if self.end_at <= now => {
                self.end();
                ServerInviteAction::TimedOut
            }
            Accepted if self.end_at <= now => {
                let acknowledged = self.settled;
                self.end();
                if acknowledged {
                    ServerInviteAction::Terminated
                } else {
                    ServerInviteAction::AckMissing
                }
            }
            Completed | Accepted if self.repeat_at <= now => {
                self.interval_ms = self.interval_ms.saturating_mul(2).min(self.t2_ms);
                self.repeat_at = next_repeat(self.repeat_at, now, self.interval_ms);
                ServerInviteAction::Retransmit
            }
            Confirmed if self.end_at <= now => {
                self.end();
                ServerInviteAction::Terminated
            }
            Proceeding | Completed | Confirmed | Accepted | Terminated => {
                ServerInviteAction::Nothing
            }
        };
        self.check();
        action
    }

    fn end(&mut self) {
        self.state = ServerInviteState::Terminated;
        self.repeat_at = Timestamp::NEVER;
        self.end_at = Timestamp::NEVER;
    }

    /// The armed timers are a function of the state.
    fn check(&self) {
        use ServerInviteState::{Accepted, Completed, Confirmed, Proceeding, Terminated};
        let (repeats, ends) = match self.state {
            Proceeding => (!self.settled, false),
            Completed => (!self.reliable, true),
            Confirmed => (false, true),
            Accepted => (!self.settled, true),
            Terminated => (false, false),
        };
        assert!(repeats != self.repeat_at.is_never(), "timer G by state");
        assert!(ends != self.end_at.is_never(), "timers H, I, L by state");
    }
}
