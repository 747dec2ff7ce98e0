//! CPU time of a process from /proc, to the nanosecond where the kernel counts it.

use std::fs;
use std::path::Path;

/// What a process used up to now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// On-CPU time of all its threads, nanoseconds.
    pub run_ns: u64,
    /// Time its threads could have run and waited for a CPU, nanoseconds.
    pub wait_ns: u64,
    /// User time, clock ticks.
    pub user_ticks: u64,
    /// System time, clock ticks.
    pub system_ticks: u64,
    /// Voluntary and involuntary context switches.
    pub switches: u64,
}

impl Usage {
    /// What was used since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            run_ns: self.run_ns.saturating_sub(earlier.run_ns),
            wait_ns: self.wait_ns.saturating_sub(earlier.wait_ns),
            user_ticks: self.user_ticks.saturating_sub(earlier.user_ticks),
            system_ticks: self.system_ticks.saturating_sub(earlier.system_ticks),
            switches: self.switches.saturating_sub(earlier.switches),
        }
    }

    /// Share of the time it could have run that it waited for a CPU, zero to one.
    pub fn wait_share(&self) -> f64 {
        self.wait_ns as f64 / (self.run_ns + self.wait_ns).max(1) as f64
    }

    /// Share of system time, zero to one.
    pub fn system_share(&self) -> f64 {
        let ticks = self.user_ticks + self.system_ticks;
        if ticks == 0 {
            0.0
        } else {
            self.system_ticks as f64 / ticks as f64
        }
    }
}

/// Reads the calling thread: the judge is one thread, and whoever else lives in its process (tests
/// do) is not its cost.
pub fn read_own_thread() -> Usage {
    let mut usage = Usage::default();
    add_task(Path::new("/proc/thread-self"), &mut usage);
    usage
}

fn add_task(path: &Path, usage: &mut Usage) {
    if let Ok(text) = fs::read_to_string(path.join("schedstat")) {
        let mut fields = text
            .split_ascii_whitespace()
            .map(|text| text.parse().unwrap_or(0u64));
        usage.run_ns += fields.next().unwrap_or(0);
        usage.wait_ns += fields.next().unwrap_or(0);
    }
    if let Ok(text) = fs::read_to_string(path.join("status")) {
        usage.switches += text
            .lines()
            .filter(|line| line.contains("_ctxt_switches:"))
            .filter_map(|line| line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok())
            .sum::<u64>();
    }
}

/// Reads a process; `None` when it is gone or not readable.
///
/// Sums over the threads alive now: a thread that ended takes its time along.
pub fn read(pid: u32) -> Option<Usage> {
    let mut usage = Usage::default();
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    for task in tasks.flatten() {
        add_task(&task.path(), &mut usage);
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name in parentheses may hold anything; fields are counted behind it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    usage.user_ticks = fields.get(11)?.parse().ok()?;
    usage.system_ticks = fields.get(12)?.parse().ok()?;
    if usage.run_ns == 0 {
        // No schedstat: ticks of 10 ms are better than nothing.
        usage.run_ns = (usage.user_ticks + usage.system_ticks) * 10_000_000;
    }
    Some(usage)
}

/// Reads processes and all their descendants: how many they are, and what they used together.
pub fn read_families(pids: &[u32]) -> (usize, Usage) {
    let mut all = pids.to_vec();
    let mut at = 0;
    while let Some(pid) = all.get(at).copied() {
        let tasks = fs::read_dir(format!("/proc/{pid}/task"));
        for task in tasks.into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            all.extend(
                children
                    .split_ascii_whitespace()
                    .filter_map(|text| text.parse::<u32>().ok()),
            );
        }
        at += 1;
    }
    let mut sum = Usage::default();
    let used = all.iter().filter_map(|&pid| read(pid));
    let count = used
        .map(|usage| {
            sum.run_ns += usage.run_ns;
            sum.wait_ns += usage.wait_ns;
            sum.user_ticks += usage.user_ticks;
            sum.system_ticks += usage.system_ticks;
            sum.switches += usage.switches;
        })
        .count();
    (count, sum)
}

/// Most memory a process had at a time (`VmHWM`), KiB.
pub fn peak_kib(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_time_grows() {
        let before = read(std::process::id()).unwrap();
        let mut sum = 0u64;
        for n in 0..20_000_000u64 {
            sum = sum.wrapping_add(n ^ (sum << 1));
        }
        assert_ne!(sum, 1);
        let used = read(std::process::id()).unwrap().since(&before);
        assert!(used.run_ns > 0);
        assert!(peak_kib(std::process::id()).unwrap() > 1000);
    }
}
