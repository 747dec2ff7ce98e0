//! A run over time: counts for each slot of time, and a heat map of latencies.
//!
//! Memory is bounded: when all slots are in use, each pair becomes one slot of twice the width.

/// Slots of time kept.
pub const SLOTS_MAX: usize = 600;
/// Rows of the heat map: two for each doubling from about one microsecond on.
pub const ROWS: usize = 56;
/// Width of a slot at the start, nanoseconds.
pub const WIDTH: u64 = 100_000_000;
/// Latencies below two to this power nanoseconds share the first row.
const FIRST_BIT: u32 = 10;

/// Counts at one moment, all growing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Triggers due by now.
    pub due: u64,
    /// Triggers sent.
    pub sent: u64,
    /// INVITEs received.
    pub invites: u64,
    /// Pushes completed.
    pub pushes: u64,
    /// CPU of the engine, nanoseconds.
    pub engine_ns: u64,
    /// CPU of this generator, nanoseconds.
    pub own_ns: u64,
}

impl Totals {
    fn since(&self, earlier: &Self) -> Self {
        Self {
            due: self.due.saturating_sub(earlier.due),
            sent: self.sent.saturating_sub(earlier.sent),
            invites: self.invites.saturating_sub(earlier.invites),
            pushes: self.pushes.saturating_sub(earlier.pushes),
            engine_ns: self.engine_ns.saturating_sub(earlier.engine_ns),
            own_ns: self.own_ns.saturating_sub(earlier.own_ns),
        }
    }

    fn add(&mut self, other: &Self) {
        self.due += other.due;
        self.sent += other.sent;
        self.invites += other.invites;
        self.pushes += other.pushes;
        self.engine_ns += other.engine_ns;
        self.own_ns += other.own_ns;
    }
}

/// One slot of time.
#[derive(Clone, Debug)]
pub struct Slot {
    /// What was counted in it.
    pub counted: Totals,
    /// Time it covers, nanoseconds; zero for a slot that was never sampled.
    pub covers: u64,
    /// Most triggers outstanding at a sample.
    pub open: u32,
    /// Latencies of triggers that fell due in it, by row.
    pub heat: [u32; ROWS],
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            counted: Totals::default(),
            covers: 0,
            open: 0,
            heat: [0; ROWS],
        }
    }
}

/// The slots of a measured step.
#[derive(Debug)]
pub struct Timeline {
    slots: Vec<Slot>,
    width: u64,
    origin: u64,
    last: (u64, Totals),
    /// Nothing was sampled since the start.
    fresh: bool,
}

impl Default for Timeline {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            width: WIDTH,
            origin: 0,
            last: (0, Totals::default()),
            fresh: true,
        }
    }
}

/// Row of a latency.
#[inline]
pub fn row(latency: u64) -> usize {
    let high = (latency | 1 << FIRST_BIT).ilog2();
    let half = (latency >> (high - 1)) & 1;
    (((high - FIRST_BIT) * 2 + half as u32) as usize).min(ROWS - 1)
}

/// Smallest latency of a row, nanoseconds; the first row starts at zero.
pub fn row_start(row: usize) -> u64 {
    if row == 0 {
        return 0;
    }
    let high = FIRST_BIT + row as u32 / 2;
    (1 << high) + if row % 2 == 1 { 1 << (high - 1) } else { 0 }
}

impl Timeline {
    /// Starts anew at `now`.
    pub fn start(&mut self, now: u64, totals: Totals) {
        self.slots.clear();
        self.width = WIDTH;
        self.origin = now;
        self.last = (now, totals);
        self.fresh = true;
    }

    /// Nanoseconds of a slot.
    pub fn width(&self) -> u64 {
        self.width
    }

    /// The slots so far.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// When the next sample belongs to another slot than the last one.
    pub fn next_sample(&self) -> u64 {
        let slot = (self.last.0 - self.origin) / self.width;
        self.origin + (slot + 1) * self.width
    }

    /// Notes the latency of a trigger that was due at `due`.
    #[inline]
    pub fn latency(&mut self, due: u64, latency: u64) {
        if due >= self.origin {
            let index = self.index(due);
            let cell = &mut self.slots[index].heat[row(latency)];
            *cell = cell.saturating_add(1);
        }
    }

    /// Notes the counts at `now`. CPU times count from the first sample on.
    pub fn sample(&mut self, now: u64, totals: Totals, open: u32) {
        if core::mem::take(&mut self.fresh) {
            self.last.1.engine_ns = totals.engine_ns;
            self.last.1.own_ns = totals.own_ns;
        }
        let (then, before) = core::mem::replace(&mut self.last, (now, totals));
        // What was counted since the last sample goes to the slot in which it mostly happened.
        let index = self.index(then + now.saturating_sub(then) / 2);
        let slot = &mut self.slots[index];
        slot.counted.add(&totals.since(&before));
        slot.covers += now.saturating_sub(then);
        slot.open = slot.open.max(open);
    }

    fn index(&mut self, at: u64) -> usize {
        loop {
            let index = (at.saturating_sub(self.origin) / self.width) as usize;
            if index < self.slots.len() {
                return index;
            }
            if index < SLOTS_MAX {
                self.slots.resize_with(index + 1, Slot::default);
                return index;
            }
            self.halve();
        }
    }

    /// Adds another worker's slots: work adds up, time and the engine are the same for all.
    pub fn add(&mut self, mut other: Self) {
        while self.width < other.width {
            self.halve();
        }
        while other.width < self.width {
            other.halve();
        }
        if self.slots.len() < other.slots.len() {
            self.slots.resize_with(other.slots.len(), Slot::default);
        }
        for (slot, more) in self.slots.iter_mut().zip(&other.slots) {
            let engine_ns = slot.counted.engine_ns.max(more.counted.engine_ns);
            slot.counted.add(&more.counted);
            slot.counted.engine_ns = engine_ns;
            slot.covers = slot.covers.max(more.covers);
            slot.open += more.open;
            for (cell, more) in slot.heat.iter_mut().zip(more.heat) {
                *cell = cell.saturating_add(more);
            }
        }
    }

    /// Each pair of slots becomes one.
    #[cold]
    fn halve(&mut self) {
        self.width *= 2;
        let old = core::mem::take(&mut self.slots);
        for pair in old.chunks(2) {
            let mut one = pair[0].clone();
            if let Some(other) = pair.get(1) {
                one.counted.add(&other.counted);
                one.covers += other.covers;
                one.open = one.open.max(other.open);
                for (cell, more) in one.heat.iter_mut().zip(other.heat) {
                    *cell = cell.saturating_add(more);
                }
            }
            self.slots.push(one);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_begin_where_they_say() {
        for number in 0..ROWS {
            assert_eq!(row(row_start(number)), number);
            assert_eq!(
                row(row_start(number + 1) - 1),
                number.min(ROWS - 1),
                "{number}"
            );
        }
        assert_eq!(row(u64::MAX), ROWS - 1);
    }

    #[test]
    fn a_long_run_keeps_its_sums_in_bounded_memory() {
        let mut timeline = Timeline::default();
        timeline.start(1_000, Totals::default());
        let mut totals = Totals::default();
        for step in 1..=5_000u64 {
            totals.pushes += 3;
            let now = 1_000 + step * WIDTH;
            timeline.latency(now - WIDTH / 2, 5_000_000);
            timeline.sample(now, totals, 7);
        }
        assert!(timeline.slots().len() <= SLOTS_MAX);
        assert_eq!(timeline.width(), WIDTH * 16);
        let sum: u64 = timeline
            .slots()
            .iter()
            .map(|slot| slot.counted.pushes)
            .sum();
        assert_eq!(sum, 15_000);
        let heat: u64 = timeline
            .slots()
            .iter()
            .map(|slot| u64::from(slot.heat[row(5_000_000)]))
            .sum();
        assert_eq!(heat, 5_000);
    }
}
