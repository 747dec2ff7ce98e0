//! The ledger: every message and every device that must get it, exactly once.

/// No message.
pub const NONE: u32 = u32::MAX;

/// How far a deposit came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deposit {
    /// Sent, not answered.
    Sent,
    /// Answered 202: the engine answers for it.
    Accepted,
    /// Refused with a final answer: the sender knows.
    Refused,
}

/// One message.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Intended time of the deposit, nanoseconds of the run.
    pub intended_at: u64,
    /// Its recipient.
    pub user: u32,
    /// The recipient's next message.
    pub next: u32,
    /// Short hash of the MSRP Message-ID it came with; zero before.
    pub msrp_id: u32,
    /// Devices that got it.
    pub delivered: u8,
    /// Size class of its body.
    pub class: u8,
    /// How far the deposit came.
    pub deposit: Deposit,
}

/// The queue of one user: the oldest message that not every device has, and the newest.
#[derive(Clone, Copy, Debug)]
pub struct Queue {
    first: u32,
    last: u32,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            first: NONE,
            last: NONE,
        }
    }
}

impl Queue {
    /// The newest message, or [`NONE`].
    pub fn last(self) -> u32 {
        self.last
    }
}

/// What a delivery was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The device got this message before.
    Duplicate,
    /// The first time.
    First,
    /// No such message, or of another user.
    Foreign,
}

/// Sums over the whole ledger, in message-device pairs unless said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Messages deposited.
    pub deposited: u64,
    /// Messages answered 202.
    pub accepted: u64,
    /// Messages refused at intake.
    pub refused: u64,
    /// Messages never answered.
    pub unanswered: u64,
    /// Pairs to be delivered.
    pub expected: u64,
    /// Pairs delivered at least once, unharmed.
    pub delivered: u64,
    /// Pairs undelivered that the engine was seen to hold still.
    pub kept: u64,
    /// Pairs undelivered without such evidence.
    pub lost: u64,
    /// Deliveries beyond the first of a pair.
    pub duplicated: u64,
    /// Deliveries whose octets differ from what was deposited.
    pub corrupted: u64,
    /// Deliveries of messages this run never sent to that user.
    pub foreign: u64,
}

impl Balance {
    /// Adds another worker's sums.
    pub fn add(&mut self, other: &Self) {
        self.deposited += other.deposited;
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.unanswered += other.unanswered;
        self.expected += other.expected;
        self.delivered += other.delivered;
        self.kept += other.kept;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.corrupted += other.corrupted;
        self.foreign += other.foreign;
    }

    /// Nothing lost, nothing twice, nothing harmed, and the sums agree.
    pub fn holds(&self) -> bool {
        self.expected == self.delivered + self.kept
            && self.lost == 0
            && self.duplicated == 0
            && self.corrupted == 0
            && self.foreign == 0
    }
}

/// The ledger.
#[derive(Debug, Default)]
pub struct Ledger {
    rows: Vec<Row>,
    /// Deliveries beyond the first of a pair.
    pub duplicated: u64,
    /// Deliveries with other octets than deposited.
    pub corrupted: u64,
    /// Deliveries of unknown messages.
    pub foreign: u64,
}

impl Ledger {
    /// A ledger with room for `capacity` messages before it grows.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            rows: Vec::with_capacity(capacity),
            ..Self::default()
        }
    }

    /// Messages deposited so far.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether nothing was deposited.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Enters a message and appends it to its user's queue; gives its number.
    pub fn deposit(&mut self, queue: &mut Queue, user: u32, class: u8, intended_at: u64) -> u32 {
        let number = self.rows.len() as u32;
        assert!(number != NONE, "a run has fewer than 2^32 - 1 messages");
        self.rows.push(Row {
            intended_at,
            user,
            next: NONE,
            msrp_id: 0,
            delivered: 0,
            class,
            deposit: Deposit::Sent,
        });
        if queue.last != NONE {
            self.rows[queue.last as usize].next = number;
        }
        if queue.first == NONE {
            queue.first = number;
        }
        queue.last = number;
        number
    }

    /// A message by its number.
    pub fn row(&mut self, number: u64) -> Option<&mut Row> {
        self.rows.get_mut(usize::try_from(number).ok()?)
    }

    /// The oldest message that `device` has not got, refused ones apart.
    pub fn oldest_for(&self, queue: &Queue, device: u8) -> Option<u32> {
        self.pending(queue, device).next()
    }

    /// Messages that `device` has not got, oldest first.
    pub fn pending(&self, queue: &Queue, device: u8) -> impl Iterator<Item = u32> {
        let mut at = queue.first;
        core::iter::from_fn(move || {
            while at != NONE {
                let (number, row) = (at, &self.rows[at as usize]);
                at = row.next;
                if row.deposit != Deposit::Refused && row.delivered & (1 << device) == 0 {
                    return Some(number);
                }
            }
            None
        })
    }

    /// Notes that `device` of `user`, which has `devices`, got message `number`.
    pub fn deliver(
        &mut self,
        queue: &mut Queue,
        (user, device, devices): (u32, u8, u8),
        number: u64,
    ) -> Delivery {
        let Some(row) = usize::try_from(number)
            .ok()
            .and_then(|at| self.rows.get_mut(at))
        else {
            self.foreign += 1;
            return Delivery::Foreign;
        };
        if row.user != user {
            self.foreign += 1;
            return Delivery::Foreign;
        }
        let bit = 1u8 << device;
        if row.delivered & bit != 0 {
            self.duplicated += 1;
            return Delivery::Duplicate;
        }
        row.delivered |= bit;
        let all = u8::MAX >> (8 - devices);
        while queue.first != NONE {
            let row = &self.rows[queue.first as usize];
            if row.delivered != all && row.deposit != Deposit::Refused {
                break;
            }
            queue.first = row.next;
            if queue.first == NONE {
                queue.last = NONE;
            }
        }
        Delivery::First
    }

    /// Sums everything. `devices` gives the devices of a user; `kept` says whether the engine was
    /// seen to hold an undelivered pair still.
    pub fn balance(&self, devices: impl Fn(u32) -> u8, kept: impl Fn(u32, u8) -> bool) -> Balance {
        let mut sums = Balance {
            deposited: self.rows.len() as u64,
            duplicated: self.duplicated,
            corrupted: self.corrupted,
            foreign: self.foreign,
            ..Balance::default()
        };
        for row in &self.rows {
            match row.deposit {
                Deposit::Accepted => sums.accepted += 1,
                Deposit::Refused => sums.refused += 1,
                Deposit::Sent => sums.unanswered += 1,
            }
            if row.deposit != Deposit::Accepted && row.delivered == 0 {
                continue;
            }
            for device in 0..devices(row.user) {
                sums.expected += 1;
                if row.delivered & (1 << device) != 0 {
                    sums.delivered += 1;
                } else if kept(row.user, device) {
                    sums.kept += 1;
                } else {
                    sums.lost += 1;
                }
            }
        }
        sums.delivered = sums.delivered.saturating_sub(self.corrupted);
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_each_pair_once_and_sees_duplicates_losses_and_strangers() {
        let mut ledger = Ledger::default();
        let mut queue = Queue::default();
        for n in 0..3 {
            let number = ledger.deposit(&mut queue, 5, 0, 0);
            assert_eq!(number, n);
            ledger.row(u64::from(number)).unwrap().deposit = Deposit::Accepted;
        }
        assert_eq!(ledger.oldest_for(&queue, 1), Some(0));
        assert_eq!(ledger.deliver(&mut queue, (5, 1, 2), 0), Delivery::First);
        assert_eq!(ledger.oldest_for(&queue, 1), Some(1));
        assert_eq!(ledger.oldest_for(&queue, 0), Some(0));
        assert_eq!(
            ledger.deliver(&mut queue, (5, 1, 2), 0),
            Delivery::Duplicate
        );
        assert_eq!(ledger.deliver(&mut queue, (6, 1, 2), 0), Delivery::Foreign);
        assert_eq!(ledger.deliver(&mut queue, (5, 0, 2), 99), Delivery::Foreign);
        let sums = ledger.balance(|_| 2, |_, device| device == 0);
        assert_eq!(
            (sums.expected, sums.delivered, sums.kept, sums.lost),
            (6, 1, 3, 2)
        );
        assert!(!sums.holds());
        for number in 0..3 {
            for device in 0..2 {
                ledger.deliver(&mut queue, (5, device, 2), number);
            }
        }
        assert_eq!(ledger.oldest_for(&queue, 0), None);
        assert_eq!(queue.last(), NONE);
        ledger.duplicated = 0;
        ledger.foreign = 0;
        assert!(ledger.balance(|_| 2, |_, _| false).holds());
    }
}
