//! SIP transactions (RFC 3261 section 17 with RFC 6026 and RFC 4320). Layer 2.
//!
//! The machines are small `Copy` values: they hold their state and the moments of their timers,
//! nothing else. The owner keeps the messages, finds a machine through the branch it minted, calls
//! `handle_*` and does what the returned action says. `deadline()` tells when to call
//! `handle_timeout`; the set of armed timers is a function of the state:
//!
//! ```text
//! client INVITE       Calling      A (unreliable), B        server INVITE  Proceeding  Trying (200 ms)
//!                     Proceeding   - (64*T1 if cancelled)                  Completed   G (unreliable), H
//!                     Completed    D                                       Confirmed   I
//!                     Accepted     M                                       Accepted    2xx repeat, L
//! client non-INVITE   Trying       E (unreliable), F        server other   one row of `ServerTable`,
//!                     Proceeding   E (unreliable), F                       kept for J
//!                     Completed    K
//! ```
//!
//! Deliberately not here: building ACK and CANCEL (templates), choosing the next hop after a
//! failure, matching a response to its machine (the branch says it), dialogs.

use core::time::Duration;

use crate::base::time::Timestamp;

pub mod client_invite;
pub mod client_non_invite;
pub mod server;
pub mod server_invite;

/// Timer values of one next hop (TX-1; RFC 3261 section 17.1.1.1 and table 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionOptions {
    /// Round-trip estimate; the first retransmission interval.
    pub t1: Duration,
    /// Longest retransmission interval of non-INVITE requests and INVITE responses.
    pub t2: Duration,
    /// How long a message stays in the network.
    pub t4: Duration,
    /// `true` for TCP and other transports that repeat by themselves.
    pub reliable: bool,
}

impl Default for TransactionOptions {
    fn default() -> Self {
        Self {
            t1: Duration::from_millis(500),
            t2: Duration::from_secs(4),
            t4: Duration::from_secs(5),
            reliable: false,
        }
    }
}

impl TransactionOptions {
    /// The defaults for a reliable transport.
    #[must_use]
    pub fn reliable() -> Self {
        Self {
            reliable: true,
            ..Self::default()
        }
    }

    /// `true` when the values make sense together: 10 ms <= T1 <= T2 <= 1 min, T4 <= 1 min.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let minute = Duration::from_secs(60);
        self.t1 >= Duration::from_millis(10)
            && self.t1 <= self.t2
            && self.t2 <= minute
            && self.t4 <= minute
    }
}

/// Milliseconds as the machines store them; options above 49 days are our error and saturate.
fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// The moment after `scheduled` that lies `interval` further; from `now` when the owner came so late
/// that it would be in the past. Keeps the RFC's times free of the owner's tick.
fn next_repeat(scheduled: Timestamp, now: Timestamp, interval_ms: u32) -> Timestamp {
    let interval = Duration::from_millis(interval_ms.into());
    let next = scheduled + interval;
    if next > now { next } else { now + interval }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Proves: TX-1
    #[test]
    fn the_default_timers_are_those_of_table_4() {
        let options = TransactionOptions::default();
        assert_eq!(options.t1.as_millis(), 500);
        assert_eq!((options.t2.as_secs(), options.t4.as_secs()), (4, 5));
        assert!(options.is_valid());
        let wrong = TransactionOptions {
            t1: Duration::from_secs(5),
            ..options
        };
        assert!(!wrong.is_valid(), "T1 above T2");
    }
}
