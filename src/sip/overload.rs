//! Overload control as a client: how many new requests a next hop wants (RFC 7339, RFC 7415).
//! Layer 2.
//!
//! A hop says in the Via of its responses how much less it wants (`loss`, a share in percent) or how
//! much at most (`rate`, requests a second), for how long, and in which order its words came. Only
//! new requests are held back; those inside a dialog, and repeats, always go.
//!
//! Under `loss` the share is kept exactly by carrying the remainder from request to request, not by
//! dice: of any hundred requests with `oc=40` sixty go. Under `rate` a leaky bucket decides, with room for
//! `BURST` requests or those of `BURST_TIME`. A rate is for all shards together, which to the hop are one client:
//! each keeps a like part of it and of the burst, since users are spread evenly over them.
//!
//! Owner: a next hop. Not here: what becomes of a request that was held back.

use core::time::Duration;

use crate::base::time::Timestamp;
use crate::sip::header::Params;
use crate::sip::message::Message;

/// Requests that may leave at once under `rate` (the tolerance of RFC 7415 section 3.5.1).
const BURST: u32 = 4;
/// At high rates, so much of the rate at once: a shard wakes by the millisecond.
const BURST_TIME: Duration = Duration::from_millis(2);
/// Higher rates are no limit to us.
const RATE_MAX: u32 = 10_000_000;
/// How long feedback holds when it does not say (RFC 7339 section 4.3).
const VALIDITY_DEFAULT: Duration = Duration::from_millis(500);
/// Feedback is believed for an hour at most, whatever it says.
const VALIDITY_MAX: Duration = Duration::from_secs(3600);

/// How long after it was heard a word may still be overtaken: a response is repeated for 64 times T1
/// (RFC 3261 section 17.2), with the octets it had at first.
const REPEATED_MAX: Duration = Duration::from_secs(32);

/// What our own Via ends in: both algorithms, no value (OVL-1).
const OFFER: &[u8] = b";oc;oc-algo=\"loss,rate\"";

/// What a hop asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Leave out this share of new requests, 0 to 100 percent.
    Loss(u8),
    /// Send at most so many new requests a second.
    Rate(u32),
}

/// Overload parameters of one response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feedback {
    /// What is asked for.
    pub demand: Demand,
    /// How long; zero ends overload control.
    pub validity: Duration,
    /// Orders feedback: whole and fractional part of `oc-seq`, the latter in hundred-thousandths.
    pub sequence: (u64, u32),
}

impl Feedback {
    /// What the top Via of a response to a request of ours says.
    #[must_use]
    pub fn of(message: &Message<'_>) -> Option<Self> {
        let params = message.via_top().ok()?.params;
        // Nearly always it is what we wrote.
        if params.as_bytes().ends_with(OFFER) {
            return None;
        }
        Self::read(params)
    }

    /// Reads the parameters of the top Via of a response. `None` when the hop takes no part (`oc`
    /// without a value is our own offer come back) or what it says cannot be read.
    #[must_use]
    pub fn read(params: Params<'_>) -> Option<Self> {
        let mut oc = None;
        let mut is_rate = false;
        let mut validity = VALIDITY_DEFAULT;
        let mut sequence = None;
        for param in params {
            let value = param.unquoted();
            if param.name.eq_ignore_ascii_case(b"oc") {
                oc = Some(number(value)?);
            } else if param.name.eq_ignore_ascii_case(b"oc-algo") {
                is_rate = value.eq_ignore_ascii_case(b"rate");
                if !is_rate && !value.eq_ignore_ascii_case(b"loss") {
                    return None;
                }
            } else if param.name.eq_ignore_ascii_case(b"oc-validity") {
                validity = Duration::from_millis(number(value)?).min(VALIDITY_MAX);
            } else if param.name.eq_ignore_ascii_case(b"oc-seq") {
                sequence = Some(read_sequence(value)?);
            }
        }
        let oc = oc?;
        let demand = if is_rate {
            Demand::Rate(u32::try_from(oc).unwrap_or(u32::MAX))
        } else {
            Demand::Loss(u8::try_from(oc).ok().filter(|&share| share <= 100)?)
        };
        Some(Self {
            demand,
            validity,
            sequence: sequence?,
        })
    }
}

/// Digits only, at most 18 of them.
fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 18 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(
        text.iter()
            .fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')),
    )
}

/// `1*12DIGIT "." 1*5DIGIT`, as RFC 7339 section 9 writes it.
fn read_sequence(text: &[u8]) -> Option<(u64, u32)> {
    let dot = text.iter().position(|&c| c == b'.')?;
    let (whole, fraction) = (&text[..dot], &text[dot + 1..]);
    if whole.len() > 12 || fraction.len() > 5 {
        return None;
    }
    let scale = 10u64.pow(5 - u32::try_from(fraction.len()).ok()?);
    let fraction = u32::try_from(number(fraction)? * scale).ok()?;
    Some((number(whole)?, fraction))
}

/// What a next hop asked for last, and how far it has been followed.
#[derive(Clone, Copy, Debug)]
pub struct Throttle {
    demand: Demand,
    /// The demand holds until then.
    until: Timestamp,
    /// Of the last word that counted; `None` when any may follow.
    sequence: Option<(u64, u32)>,
    /// Until then only a higher sequence counts; not before [`Self::until`].
    ordered_until: Timestamp,
    /// Under `loss`: hundredths of a request that may go already.
    credit: u8,
    /// Under `rate`: when the bucket is empty again.
    empty_at: Timestamp,
    /// How many share a rate, at least 1.
    sharers: u32,
}

impl Throttle {
    /// For one of `sharers` (0 is 1) that the hop takes for one client. Nothing is asked for yet.
    #[must_use]
    pub fn new(sharers: u32) -> Self {
        Self {
            demand: Demand::Loss(0),
            until: Timestamp::ZERO,
            sequence: None,
            ordered_until: Timestamp::ZERO,
            credit: 0,
            empty_at: Timestamp::ZERO,
            sharers: sharers.max(1),
        }
    }

    /// Takes feedback in; older feedback than the last is ignored (RFC 7339 section 5.4). True when
    /// it counted.
    ///
    /// A hop that was restarted may begin its sequence again, below what it said before. So the last
    /// sequence is forgotten once what it came with holds no longer and no response from before it can
    /// arrive any more, 32 s after it. Forgotten with the validity alone, a repeated response would
    /// bring back a demand that newer words had ended.
    pub fn hear(&mut self, now: Timestamp, feedback: &Feedback) -> bool {
        let is_ordered = now < self.ordered_until;
        if is_ordered && self.sequence.is_some_and(|last| feedback.sequence <= last) {
            return false;
        }
        self.sequence = Some(feedback.sequence);
        self.ordered_until = now + feedback.validity.max(REPEATED_MAX);
        if self.demand != feedback.demand || self.until <= now {
            self.credit = 0;
            self.empty_at = now;
        }
        self.demand = feedback.demand;
        self.until = if feedback.validity.is_zero() {
            Timestamp::ZERO
        } else {
            now + feedback.validity
        };
        true
    }

    /// The next word counts whatever its sequence: the hop may have been restarted, and nothing that it
    /// said before can arrive any more. What it asked for holds until then, or its end.
    pub const fn forget_sequence(&mut self) {
        self.sequence = None;
    }

    /// When a request that was left out for the sake of a share ends to be, while some are.
    #[must_use]
    pub fn until(&self, now: Timestamp) -> Option<Timestamp> {
        let is_share = matches!(self.demand, Demand::Loss(1..=99));
        (is_share && self.until > now).then_some(self.until)
    }

    /// How many new requests may leave now; `u32::MAX` where the hop does not count them: it asks for nothing, or
    /// for a share, which is of those that are offered.
    #[must_use]
    pub fn room(&self, now: Timestamp) -> u32 {
        if self.until <= now {
            return u32::MAX;
        }
        match self.demand {
            Demand::Loss(100) | Demand::Rate(0) => 0,
            Demand::Loss(_) => u32::MAX,
            Demand::Rate(per_second) => {
                let bucket = Bucket::of(per_second, self.sharers);
                let (from, most) = (self.empty_at.max(now), now + bucket.depth);
                if from > most {
                    return 0;
                }
                let more = most.since(from).as_nanos() / bucket.each.as_nanos();
                u32::try_from(more + 1).unwrap_or(u32::MAX)
            }
        }
    }

    /// When there is room again, where there is none.
    #[must_use]
    pub fn room_at(&self, now: Timestamp) -> Option<Timestamp> {
        if self.room(now) > 0 {
            return None;
        }
        let at = match self.demand {
            Demand::Loss(_) | Demand::Rate(0) => self.until,
            Demand::Rate(per_second) => {
                now + self
                    .empty_at
                    .since(now + Bucket::of(per_second, self.sharers).depth)
            }
        };
        Some(at.min(self.until))
    }

    /// Whether one more new request may leave now; if so, it counts.
    pub fn admit(&mut self, now: Timestamp) -> bool {
        if self.until <= now {
            return true;
        }
        match self.demand {
            Demand::Loss(share) => {
                self.credit += 100 - share;
                let goes = self.credit >= 100;
                if goes {
                    self.credit -= 100;
                }
                goes
            }
            Demand::Rate(0) => false,
            Demand::Rate(per_second) => {
                let bucket = Bucket::of(per_second, self.sharers);
                let goes = self.empty_at <= now + bucket.depth;
                if goes {
                    self.empty_at = self.empty_at.max(now) + bucket.each;
                }
                goes
            }
        }
    }
}

/// The leaky bucket of a rate.
struct Bucket {
    /// What one request fills.
    each: Duration,
    /// One more request goes while it is no fuller.
    depth: Duration,
}

impl Bucket {
    /// That of one of `sharers` of so many a second, neither of them 0.
    fn of(per_second: u32, sharers: u32) -> Self {
        let each = Duration::from_secs(1) * sharers / per_second.min(RATE_MAX);
        let burst = (BURST / sharers).max(1);
        let depth = (each * (burst - 1)).max(BURST_TIME);
        Self { each, depth }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feedback(demand: Demand, validity_ms: u64, sequence: u64) -> Feedback {
        Feedback {
            demand,
            validity: Duration::from_millis(validity_ms),
            sequence: (sequence, 0),
        }
    }

    fn admitted(throttle: &mut Throttle, now: Timestamp, of: u32) -> u32 {
        (0..of).map(|_| u32::from(throttle.admit(now))).sum()
    }

    // Proves: OVL-2
    #[test]
    fn feedback_is_read_with_its_defaults_and_refused_when_unreadable() {
        let read = |text: &str| Feedback::read(Params::new(text.as_bytes()));
        assert_eq!(
            read(";branch=z9hG4bK1;oc=40;oc-algo=\"loss\";oc-validity=2000;oc-seq=1795329601.250"),
            Some(Feedback {
                demand: Demand::Loss(40),
                validity: Duration::from_secs(2),
                sequence: (1_795_329_601, 25_000),
            })
        );
        assert_eq!(
            read(";OC=150;oc-algo=\"rate\";oc-seq=1.5"),
            Some(Feedback {
                demand: Demand::Rate(150),
                validity: VALIDITY_DEFAULT,
                sequence: (1, 50_000),
            })
        );
        for bad in [
            ";oc;oc-algo=\"loss,rate\"",
            ";oc=101;oc-seq=1.1",
            ";oc=40",
            ";oc=4x;oc-seq=1.1",
            ";oc=40;oc-seq=11",
            ";oc=40;oc-seq=1.123456",
            ";oc=40;oc-algo=\"magic\";oc-seq=1.1",
            "",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    // Proves: OVL-3
    #[test]
    fn loss_lets_the_exact_share_through() {
        for share in [0, 1, 33, 40, 99, 100] {
            let mut throttle = Throttle::new(1);
            throttle.hear(Timestamp::ZERO, &feedback(Demand::Loss(share), 2000, 1));
            let went = admitted(&mut throttle, Timestamp::from_millis(1), 1000);
            assert_eq!(went, 10 * u32::from(100 - share), "loss {share}");
        }
    }

    // Proves: OVL-3
    #[test]
    fn rate_is_a_leaky_bucket() {
        let mut throttle = Throttle::new(1);
        throttle.hear(Timestamp::ZERO, &feedback(Demand::Rate(100), 60_000, 1));
        assert_eq!(admitted(&mut throttle, Timestamp::ZERO, 50), BURST);
        let went: u32 = (1..=1000)
            .map(|ms| admitted(&mut throttle, Timestamp::from_millis(ms), 3))
            .sum();
        assert!((98..=102).contains(&went), "{went} in a second");
        throttle.hear(Timestamp::ZERO, &feedback(Demand::Rate(0), 60_000, 2));
        assert_eq!(admitted(&mut throttle, Timestamp::from_millis(9000), 50), 0);
    }

    // Proves: OVL-3
    #[test]
    fn the_room_of_a_rate_is_what_may_leave_and_comes_back_when_it_is_said_to() {
        for rate in [1, 7, 100, 2500, 50_000, u32::MAX] {
            let mut throttle = Throttle::new(1);
            let mut now = Timestamp::from_millis(5);
            throttle.hear(now, &feedback(Demand::Rate(rate), 3_600_000, 1));
            for step in 0..200 {
                let room = throttle.room(now);
                assert_eq!(admitted(&mut throttle, now, room + 1), room, "{rate}");
                let back = throttle.room_at(now).expect("it is used up");
                assert!(back > now && throttle.room(back) > 0, "{rate}");
                let before = Timestamp::from_nanos(back.as_nanos() - 1);
                assert_eq!(throttle.room(before), 0, "{rate}");
                now = back + Duration::from_micros(step * 37);
            }
        }
        let mut throttle = Throttle::new(1);
        let now = Timestamp::ZERO;
        for (demand, room) in [
            (Demand::Rate(0), 0),
            (Demand::Loss(100), 0),
            (Demand::Loss(99), u32::MAX),
        ] {
            let mut throttle = throttle;
            throttle.hear(now, &feedback(demand, 2000, 1));
            assert_eq!(throttle.room(now), room, "{demand:?}");
            let end = Timestamp::from_millis(2000);
            let back = (room == 0).then_some(end);
            assert_eq!(throttle.room_at(now), back, "{demand:?}");
            assert_eq!(throttle.room(end), u32::MAX, "{demand:?}");
        }
        throttle.hear(now, &feedback(Demand::Rate(1), 300, 1));
        assert_eq!(admitted(&mut throttle, now, 9), BURST);
        let end = Timestamp::from_millis(300);
        assert_eq!(throttle.room_at(now), Some(end), "the wish ends before");
    }

    // Proves: OVL-3
    #[test]
    fn those_who_share_a_rate_keep_it_together() {
        for (sharers, rate) in [(2, 100), (3, 10), (8, 4000), (256, 1000), (64, 7)] {
            let mut throttles = vec![Throttle::new(sharers); usize::try_from(sharers).unwrap()];
            let mut went = 0;
            for throttle in &mut throttles {
                throttle.hear(Timestamp::ZERO, &feedback(Demand::Rate(rate), 600_000, 1));
                went += admitted(throttle, Timestamp::ZERO, 100);
            }
            let burst = BURST.max(sharers).max(rate / 500 + sharers);
            assert!((1..=burst).contains(&went), "{went} of {sharers} at once");
            for ms in 1..=100_000 {
                let now = Timestamp::from_millis(ms);
                let more = throttles.iter_mut();
                went += more.map(|one| u32::from(one.admit(now))).sum::<u32>();
            }
            let whole = 100 * rate;
            assert!(
                (whole..=whole + burst).contains(&went),
                "{went} by {sharers}"
            );
        }
    }

    // Proves: OVL-3
    #[test]
    fn a_high_rate_is_kept_by_who_wakes_each_millisecond() {
        for rate in [500, 5000, 60_000] {
            let mut throttle = Throttle::new(1);
            throttle.hear(Timestamp::ZERO, &feedback(Demand::Rate(rate), 60_000, 1));
            let went: u32 = (1..=1000)
                .map(|ms| admitted(&mut throttle, Timestamp::from_millis(ms), rate))
                .sum();
            assert!((rate..=rate + rate / 400 + BURST).contains(&went), "{went}");
        }
    }

    // Proves: OVL-2
    #[test]
    fn only_newer_feedback_counts_and_its_end_is_kept() {
        let mut throttle = Throttle::new(1);
        let now = Timestamp::from_millis(1000);
        assert!(throttle.hear(now, &feedback(Demand::Loss(100), 2000, 5)));
        assert!(!throttle.hear(now, &feedback(Demand::Loss(0), 2000, 5)));
        assert!(!throttle.hear(now, &feedback(Demand::Loss(0), 2000, 4)));
        assert_eq!(admitted(&mut throttle, Timestamp::from_millis(2999), 10), 0);
        assert_eq!(throttle.room_at(now), Some(Timestamp::from_millis(3000)));
        assert_eq!(
            admitted(&mut throttle, Timestamp::from_millis(3000), 10),
            10
        );
        assert!(throttle.hear(now, &feedback(Demand::Loss(100), 2000, 6)));
        assert!(
            throttle.hear(now, &feedback(Demand::Loss(50), 0, 7)),
            "zero ends it"
        );
        assert_eq!(admitted(&mut throttle, now, 10), 10);
    }

    // Proves: OVL-2
    #[test]
    fn a_hop_whose_sequence_began_again_is_heard_once_nothing_old_can_be_under_way() {
        let mut throttle = Throttle::new(1);
        let at = Timestamp::from_millis;
        assert!(throttle.hear(at(0), &feedback(Demand::Loss(10), 500, 900)));
        let again = feedback(Demand::Loss(100), 60_000, 1);
        assert!(
            !throttle.hear(at(600), &again),
            "it may be a response that was repeated"
        );
        assert!(
            throttle.hear(at(20_000), &feedback(Demand::Loss(0), 0, 901)),
            "what counts counts from then"
        );
        assert!(!throttle.hear(at(51_999), &again));
        assert!(throttle.hear(at(52_000), &again));
        assert_eq!(admitted(&mut throttle, at(52_000), 10), 0);
        assert!(
            !throttle.hear(at(111_999), &feedback(Demand::Loss(0), 0, 1)),
            "while it holds, only newer words end it"
        );
        assert!(throttle.hear(at(112_000), &feedback(Demand::Loss(0), 0, 1)));
    }

    // Proves: OVL-2
    #[test]
    fn a_new_connection_is_heard_whatever_its_sequence_and_ends_nothing_by_itself() {
        let mut throttle = Throttle::new(1);
        let at = Timestamp::from_millis;
        assert!(throttle.hear(at(0), &feedback(Demand::Loss(100), 60_000, 900)));
        throttle.forget_sequence();
        assert_eq!(admitted(&mut throttle, at(1), 10), 0);
        assert!(throttle.hear(at(2), &feedback(Demand::Loss(0), 60_000, 1)));
        assert_eq!(admitted(&mut throttle, at(2), 10), 10);
    }
}
