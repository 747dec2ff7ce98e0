//! The INVITE client transaction (RFC 3261 section 17.1.1 as changed by RFC 6026 section 7.2).

use core::time::Duration;

use super::{TransactionOptions, millis, next_repeat};
use crate::base::time::Timestamp;

#[cfg(test)]
mod tests;

/// Timer D is at least this over an unreliable transport.
const TIMER_D_MIN: Duration = Duration::from_secs(32);

/// Where an INVITE client transaction is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientInviteState {
    /// Nothing was answered yet.
    #[default]
    Calling,
    /// A provisional response came.
    Proceeding,
    /// A final response other than 2xx came and was ACKed.
    Completed,
    /// A 2xx came; more may follow, also from forks.
    Accepted,
    /// The machine does nothing any more.
    Terminated,
}

/// What the owner has to do after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InviteAction {
    /// Nothing.
    Nothing,
    /// Send the INVITE again, octet for octet.
    Retransmit,
    /// A provisional response for the user.
    Provisional(u16),
    /// A provisional response came and the CANCEL that waited for it may leave now.
    Cancel(u16),
    /// A 2xx: the user ACKs it, each time it comes (RFC 3261 section 13.2.2.4).
    Accepted(u16),
    /// The first final response other than 2xx: ACK it in this transaction and tell the user.
    Failed(u16),
    /// That response came again: only send its ACK again.
    Reack,
    /// No final response in time: acts as a 408 (RFC 3261 section 8.1.3.1).
    TimedOut,
    /// The request or its ACK could not be sent: acts as a 503.
    TransportFailed,
    /// Over; the user knew the outcome before.
    Terminated,
}

/// What became of a wish to cancel (RFC 3261 section 9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelAction {
    /// Send a CANCEL now; it is a transaction of its own.
    Send,
    /// Nothing was answered yet: the CANCEL waits for [`InviteAction::Cancel`].
    Deferred,
    /// A CANCEL was asked for before.
    AlreadyAsked,
    /// A final response came first: a 2xx is to be ACKed and ended with BYE.
    TooLate,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Wish {
    #[default]
    Keep,
    CancelLater,
    Cancelled,
}

/// One INVITE from its first sending to the end of its repeats.
///
/// Owner: a push, which keeps the INVITE (or what renders it) and the ACK. `Proceeding` has no timer
/// in the RFC: the owner guards it with its answer timer and then calls [`ClientInvite::cancel`].
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientInvite {
    /// Timer A.
    repeat_at: Timestamp,
    /// Timer B, D, M or the end of the wait after a CANCEL, by state.
    end_at: Timestamp,
    interval_ms: u32,
    t1_ms: u32,
    state: ClientInviteState,
    wish: Wish,
    reliable: bool,
}

const _: () = assert!(size_of::<ClientInvite>() <= 48);

impl ClientInvite {
    /// The INVITE is being sent at `now`.
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
            t1_ms: millis(options.t1),
            state: ClientInviteState::Calling,
            wish: Wish::Keep,
            reliable: options.reliable,
        };
        machine.check();
        machine
    }

    /// The stream it went into was lost before any answer, and with it perhaps the INVITE: it is repeated
    /// now, and from then on like over datagrams, until [`ClientInvite::delivered_to_stream`] or an answer.
    pub fn lost_with_stream(&mut self, now: Timestamp) {
        if self.state == ClientInviteState::Calling {
            self.reliable = false;
            self.repeat_at = now;
        }
        self.check();
    }

    /// The INVITE has left over a stream after all: it is not repeated any more.
    pub const fn delivered_to_stream(&mut self) {
        self.reliable = true;
        self.repeat_at = Timestamp::NEVER;
    }

    /// Where it is.
    #[must_use]
    pub const fn state(&self) -> ClientInviteState {
        self.state
    }

    /// `true` once a CANCEL was sent or waits to be.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.wish != Wish::Keep
    }

    /// When to call [`ClientInvite::handle_timeout`]; `NEVER` when nothing is armed.
    #[must_use]
    pub fn deadline(&self) -> Timestamp {
        self.repeat_at.min(self.end_at)
    }

    /// A response with this branch and `CSeq` method INVITE came. A status outside 100..=699 is ignored.
    pub fn handle_response(&mut self, now: Timestamp, status: u16) -> InviteAction {
        use ClientInviteState::{Accepted, Calling, Completed, Proceeding, Terminated};
        let action = match (self.state, status) {
            (Calling | Proceeding, 100..=199) => self.provisional(now, status),
            (Calling | Proceeding, 200..=299) => {
                self.enter(Accepted, Timestamp::NEVER, now + self.t1() * 64);
                InviteAction::Accepted(status)
            }
            // Each 2xx is answered by the user, also the repeated ones.
            (Accepted, 200..=299) => InviteAction::Accepted(status),
            (Calling | Proceeding, 300..=699) => {
                if self.reliable {
                    self.enter(Terminated, Timestamp::NEVER, Timestamp::NEVER);
                } else {
                    let timer_d = (self.t1() * 64).max(TIMER_D_MIN);
                    self.enter(Completed, Timestamp::NEVER, now + timer_d);
                }
                InviteAction::Failed(status)
            }
            (Completed, 300..=699) => InviteAction::Reack,
            // Late, out of place or no SIP status.
            (Calling | Proceeding | Completed | Accepted | Terminated, _) => InviteAction::Nothing,
        };
        self.check();
        action
    }

    /// The transport could not send our last message. Without effect where nothing of ours is on the
    /// way (`Proceeding`, `Accepted`).
    pub fn handle_transport_error(&mut self) -> InviteAction {
        use ClientInviteState::{Accepted, Calling, Completed, Proceeding, Terminated};
        match self.state {
            Calling | Completed => {
                self.enter(Terminated, Timestamp::NEVER, Timestamp::NEVER);
                InviteAction::TransportFailed
            }
            Proceeding | Accepted | Terminated => InviteAction::Nothing,
        }
    }

    /// Does what is due at `now`, one thing per call; nothing before [`ClientInvite::deadline`].
    pub fn handle_timeout(&mut self, now: Timestamp) -> InviteAction {
        use ClientInviteState::{Accepted, Calling, Completed, Proceeding, Terminated};
        let action = match self.state {
            Calling | Proceeding if self.end_at <= now => {
                self.enter(Terminated, Timestamp::NEVER, Timestamp::NEVER);
                InviteAction::TimedOut
            }
            Calling if self.repeat_at <= now => {
                self.interval_ms = self.interval_ms.saturating_mul(2);
                self.repeat_at = next_repeat(self.repeat_at, now, self.interval_ms);
                InviteAction::Retransmit
            }
            Completed | Accepted if self.end_at <= now => {
                self.enter(Terminated, Timestamp::NEVER, Timestamp::NEVER);
                InviteAction::Terminated
            }
            Calling | Proceeding | Completed | Accepted | Terminated => InviteAction::Nothing,
        };
        self.check();
        action
    }

    /// The user wants the INVITE cancelled. A CANCEL leaves only between a provisional and a final
    /// response; 64*T1 after it the transaction ends as timed out (RFC 3261 section 9.1).
    pub fn cancel(&mut self, now: Timestamp) -> CancelAction {
        use ClientInviteState::{Accepted, Calling, Completed, Proceeding, Terminated};
        let action = match (self.state, self.wish) {
            (Completed | Accepted | Terminated, _) => CancelAction::TooLate,
            (Calling | Proceeding, Wish::CancelLater | Wish::Cancelled) => {
                CancelAction::AlreadyAsked
            }
            (Calling, Wish::Keep) => {
                self.wish = Wish::CancelLater;
                CancelAction::Deferred
            }
            (Proceeding, Wish::Keep) => {
                self.cancelled(now);
                CancelAction::Send
            }
        };
        self.check();
        action
    }

    fn provisional(&mut self, now: Timestamp, status: u16) -> InviteAction {
        if self.state == ClientInviteState::Calling {
            self.enter(
                ClientInviteState::Proceeding,
                Timestamp::NEVER,
                Timestamp::NEVER,
            );
        }
        if self.wish == Wish::CancelLater {
            self.cancelled(now);
            return InviteAction::Cancel(status);
        }
        InviteAction::Provisional(status)
    }

    fn cancelled(&mut self, now: Timestamp) {
        self.wish = Wish::Cancelled;
        self.end_at = now + self.t1() * 64;
    }

    fn enter(&mut self, state: ClientInviteState, repeat_at: Timestamp, end_at: Timestamp) {
        self.state = state;
        self.repeat_at = repeat_at;
        self.end_at = end_at;
    }

    fn t1(&self) -> Duration {
        Duration::from_millis(self.t1_ms.into())
    }

    /// The armed timers are a function of the state.
    fn check(&self) {
        use ClientInviteState::{Accepted, Calling, Completed, Proceeding, Terminated};
        let repeats = self.state == Calling && !self.reliable;
        let ends = match self.state {
            Calling | Completed | Accepted => true,
            Proceeding => self.wish == Wish::Cancelled,
            Terminated => false,
        };
        assert!(repeats != self.repeat_at.is_never(), "timer A by state");
        assert!(ends != self.end_at.is_never(), "timers B, D, M by state");
    }
}
