//! The non-INVITE client transaction (RFC 3261 section 17.1.2).

use core::time::Duration;

use super::{TransactionOptions, millis, next_repeat};
use crate::base::time::Timestamp;

#[cfg(test)]
mod tests;

/// Where a non-INVITE client transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientNonInviteState {
    /// Nothing was answered yet.
    Trying,
    /// A provisional response came.
    Proceeding,
    /// A final response came; repeats of it are absorbed.
    Completed,
    /// The machine does nothing any more.
    Terminated,
}

/// What the owner has to do after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NonInviteAction {
    /// Nothing.
    Nothing,
    /// Send the request again, octet for octet.
    Retransmit,
    /// A provisional response for the user.
    Provisional(u16),
    /// The final response for the user, once.
    Final(u16),
    /// No final response in time: acts as a 408 (RFC 3261 section 8.1.3.1).
    TimedOut,
    /// The request could not be sent: acts as a 503.
    TransportFailed,
    /// Over; the user knew the outcome before.
    Terminated,
}

/// One request other than INVITE and ACK from its first sending to the end of its repeats.
///
/// Owner: whoever keeps the request and finds the machine by its branch.
#[derive(Clone, Copy, Debug)]
pub struct ClientNonInvite {
    /// Timer E.
    repeat_at: Timestamp,
    /// Timer F or K, by state.
    end_at: Timestamp,
    interval_ms: u32,
    t2_ms: u32,
    t4_ms: u32,
    state: ClientNonInviteState,
    reliable: bool,
}

const _: () = assert!(size_of::<ClientNonInvite>() <= 48);

impl ClientNonInvite {
    /// The request is being sent at `now`.
    #[must_use]
    pub fn start(now: Timestamp, options: &TransactionOptions) -> Self {
        let repeat_at = if options.reliable {
            Timestamp::NEVER
        } else {
            now + options.t1
        };
        let machine = Self {
            repeat_at,
            end_at: now + 64 * options.t1,
            interval_ms: millis(options.t1),
            t2_ms: millis(options.t2),
            t4_ms: millis(options.t4),
            state: ClientNonInviteState::Trying,
            reliable: options.reliable,
        };
        machine.check();
        machine
    }

    /// The request has left over a stream after all: it is not repeated any more.
    pub const fn delivered_to_stream(&mut self) {
        self.reliable = true;
        self.repeat_at = Timestamp::NEVER;
    }

    /// The stream it went into was lost, and with it perhaps the request: it is repeated now, and from then
    /// on like over datagrams, until [`ClientNonInvite::delivered_to_stream`].
    pub fn lost_with_stream(&mut self, now: Timestamp) {
        use ClientNonInviteState::{Completed, Proceeding, Terminated, Trying};
        match self.state {
            Trying | Proceeding => {
                self.reliable = false;
                self.repeat_at = now;
            }
            Completed | Terminated => {}
        }
        self.check();
    }

    /// Where it is.
    #[must_use]
    pub const fn state(&self) -> ClientNonInviteState {
        self.state
    }

    /// When to call [`ClientNonInvite::handle_timeout`]; `NEVER` when nothing is armed.
    #[must_use]
    pub fn deadline(&self) -> Timestamp {
        self.repeat_at.min(self.end_at)
    }

    /// `true` while no final response came.
    #[must_use]
    pub const fn is_unanswered(&self) -> bool {
        use ClientNonInviteState::{Proceeding, Trying};
        matches!(self.state, Trying | Proceeding)
    }

    /// `true` when the next [`ClientNonInvite::handle_timeout`] finds that nobody answered (Timer F).
    #[must_use]
    pub fn is_timing_out(&self, now: Timestamp) -> bool {
        self.is_unanswered() && self.end_at <= now
    }

    /// A response with this branch and method came. A status outside 100..=699 is ignored.
    pub fn handle_response(&mut self, now: Timestamp, status: u16) -> NonInviteAction {
        use ClientNonInviteState::{Completed, Proceeding, Terminated, Trying};
        let action = match (self.state, status) {
            (Trying | Proceeding, 100..=199) => {
                // Timer E runs on; when it fires it is set to T2 from now on.
                self.state = Proceeding;
                NonInviteAction::Provisional(status)
            }
            (Trying | Proceeding, 200..=699) => {
                self.repeat_at = Timestamp::NEVER;
                if self.reliable {
                    self.end();
                } else {
                    self.state = Completed;
                    self.end_at = now + Duration::from_millis(self.t4_ms.into());
                }
                NonInviteAction::Final(status)
            }
            // Repeated, late or no SIP status.
            (Trying | Proceeding | Completed | Terminated, _) => NonInviteAction::Nothing,
        };
        self.check();
        action
    }

    /// The transport could not send the request.
    pub fn handle_transport_error(&mut self) -> NonInviteAction {
        use ClientNonInviteState::{Completed, Proceeding, Terminated, Trying};
        match self.state {
            Trying | Proceeding => {
                self.end();
                NonInviteAction::TransportFailed
            }
            Completed | Terminated => NonInviteAction::Nothing,
        }
    }

    /// Does what is due at `now`, one thing per call; nothing before the deadline.
    pub fn handle_timeout(&mut self, now: Timestamp) -> NonInviteAction {
        use ClientNonInviteState::{Completed, Proceeding, Terminated, Trying};
        let action = match self.state {
            Trying | Proceeding if self.end_at <= now => {
                self.end();
                NonInviteAction::TimedOut
            }
            Trying if self.repeat_at <= now => {
                self.interval_ms = self.interval_ms.saturating_mul(2).min(self.t2_ms);
                self.repeat_at = next_repeat(self.repeat_at, now, self.interval_ms);
                NonInviteAction::Retransmit
            }
            Proceeding if self.repeat_at <= now => {
                self.interval_ms = self.t2_ms;
                self.repeat_at = next_repeat(self.repeat_at, now, self.interval_ms);
                NonInviteAction::Retransmit
            }
            Completed if self.end_at <= now => {
                self.end();
                NonInviteAction::Terminated
            }
            Trying | Proceeding | Completed | Terminated => NonInviteAction::Nothing,
        };
        self.check();
        action
    }

    fn end(&mut self) {
        self.state = ClientNonInviteState::Terminated;
        self.repeat_at = Timestamp::NEVER;
        self.end_at = Timestamp::NEVER;
    }

    /// The armed timers are a function of the state.
    fn check(&self) {
        use ClientNonInviteState::{Completed, Proceeding, Terminated, Trying};
        let (repeats, ends) = match self.state {
            Trying | Proceeding => (!self.reliable, true),
            Completed => (false, true),
            Terminated => (false, false),
        };
        assert!(repeats != self.repeat_at.is_never(), "timer E by state");
        assert!(ends != self.end_at.is_never(), "timers F, K by state");
    }
}
