//! What was acknowledged, and what the phones got.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A REPORT this long before the end of a process must have become a mark: what comes again after it
/// was repeated without need.
pub(super) const MARK_WITHIN: Duration = Duration::from_secs(5);

/// One message.
#[derive(Clone, Debug, Default)]
struct Letter {
    acknowledged: bool,
    refused: bool,
    /// Process, and moment of the REPORT if it was sent while that process lived.
    receipts: Vec<(u32, Option<Instant>)>,
}

/// Everything that happened to every message.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    letters: BTreeMap<u64, Letter>,
    ends: BTreeMap<u32, Instant>,
    /// When processes that were stopped went on: what reached them meanwhile is read from then on.
    resumed: BTreeMap<u32, Instant>,
    /// Laws broken.
    pub(super) violations: Vec<String>,
    /// Longest time between a REPORT and the end of its process after which the message came again.
    pub(super) longest_unmarked: Duration,
}

/// What a ledger comes to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    pub(super) sent: u64,
    pub(super) acknowledged: u64,
    pub(super) refused: u64,
    pub(super) delivered: u64,
    pub(super) repeated: u64,
    pub(super) lost: u64,
}

impl Ledger {
    pub(super) fn sent(&mut self, number: u64) {
        self.letters.insert(number, Letter::default());
    }

    pub(super) fn answered(&mut self, number: u64, status: u16) {
        let Some(letter) = self.letters.get_mut(&number) else {
            return self.broken(format!("an answer for message {number} that nobody sent"));
        };
        match status {
            202 => letter.acknowledged = true,
            _ => letter.refused = true,
        }
    }

    /// A phone has a message whole.
    pub(super) fn received(
        &mut self,
        number: u64,
        same: bool,
        epoch: u32,
        reported: Option<Instant>,
    ) {
        if !same {
            self.broken(format!(
                "message {number} came under another Message-ID or altered"
            ));
        }
        let Some(letter) = self.letters.get_mut(&number) else {
            return self.broken(format!("a phone got message {number} that nobody sent"));
        };
        let earlier = letter.receipts.clone();
        letter.receipts.push((epoch, reported));
        for (before, at) in earlier {
            if before == epoch {
                self.broken(format!("message {number} came twice from process {epoch}"));
                continue;
            }
            let (Some(at), Some(end)) = (at, self.ends.get(&before)) else {
                continue;
            };
            let read = self
                .resumed
                .get(&before)
                .map_or(at, |&resumed| at.max(resumed));
            let known = end.saturating_duration_since(read);
            self.longest_unmarked = self.longest_unmarked.max(known);
            if known > MARK_WITHIN {
                self.broken(format!(
                    "message {number} came again from process {epoch}, {} ms of process {before} \
                     after its report",
                    known.as_millis()
                ));
            }
        }
    }

    /// A process that was stopped goes on.
    pub(super) fn resumed(&mut self, epoch: u32, at: Instant) {
        self.resumed.insert(epoch, at);
    }

    /// A process is no more.
    pub(super) fn ended(&mut self, epoch: u32, at: Instant) {
        self.ends.insert(epoch, at);
    }

    pub(super) fn broken(&mut self, what: String) {
        if self.violations.len() < 10 || what.contains("never delivered") {
            self.violations.push(what);
        }
    }

    /// Acknowledged and not yet with the phone.
    pub(super) fn waiting(&self) -> usize {
        let letters = self.letters.values();
        letters
            .filter(|letter| letter.acknowledged && letter.receipts.is_empty())
            .count()
    }

    /// Numbers of those, some.
    pub(super) fn lost(&self) -> Vec<u64> {
        let letters = self.letters.iter();
        letters
            .filter(|(_, letter)| letter.acknowledged && letter.receipts.is_empty())
            .map(|(&number, _)| number)
            .take(20)
            .collect()
    }

    pub(super) fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        for letter in self.letters.values() {
            sums.sent += 1;
            sums.acknowledged += u64::from(letter.acknowledged);
            sums.refused += u64::from(letter.refused);
            sums.delivered += u64::from(!letter.receipts.is_empty());
            sums.repeated += (letter.receipts.len() as u64).saturating_sub(1);
            sums.lost += u64::from(letter.acknowledged && letter.receipts.is_empty());
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the ledger is about moments")]
    fn a_loss_a_repeat_within_a_process_and_one_without_need_are_told() {
        let mut ledger = Ledger::default();
        let start = Instant::now();
        for number in 1..=4 {
            ledger.sent(number);
            ledger.answered(number, 202);
        }
        assert_eq!(ledger.waiting(), 4);
        ledger.received(1, true, 1, Some(start));
        ledger.received(2, true, 1, None);
        ledger.ended(1, start + Duration::from_millis(5));
        ledger.received(1, true, 2, None);
        ledger.received(2, true, 2, Some(start));
        assert_eq!(
            ledger.violations, [""; 0],
            "a crash may repeat what was fresh"
        );
        ledger.ended(2, start + 2 * MARK_WITHIN);
        ledger.received(2, true, 3, None);
        assert_eq!(ledger.violations.len(), 1, "the report was old enough");
        ledger.received(2, true, 3, None);
        assert_eq!(
            ledger.violations.len(),
            3,
            "twice from one process, and the old report"
        );
        ledger.received(3, false, 3, None);
        assert_eq!(ledger.violations.len(), 4, "altered");
        assert_eq!(ledger.lost(), [4]);
        let sums = ledger.sums();
        assert_eq!((sums.delivered, sums.repeated, sums.lost), (3, 4, 1));
    }
}
