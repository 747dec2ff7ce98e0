//! What the host did to a run: waits for a CPU, time stolen by a hypervisor, datagrams and
//! connections dropped by the kernel. Read from `/proc` at the start and the end of a step.

use std::fs;

/// Counts of the host up to now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// CPU time stolen by a hypervisor, clock ticks of all CPUs.
    pub steal_ticks: u64,
    /// CPU time in all states, clock ticks of all CPUs.
    pub total_ticks: u64,
    /// Idle time, clock ticks of all CPUs.
    pub idle_ticks: u64,
    /// Datagrams dropped for want of buffer space, received and sent, of this network name space.
    pub datagrams_dropped: u64,
    /// Connections dropped because an accept queue was full.
    pub accepts_dropped: u64,
}

impl Sample {
    /// What was added since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            steal_ticks: self.steal_ticks.saturating_sub(earlier.steal_ticks),
            total_ticks: self.total_ticks.saturating_sub(earlier.total_ticks),
            idle_ticks: self.idle_ticks.saturating_sub(earlier.idle_ticks),
            datagrams_dropped: self
                .datagrams_dropped
                .saturating_sub(earlier.datagrams_dropped),
            accepts_dropped: self.accepts_dropped.saturating_sub(earlier.accepts_dropped),
        }
    }

    /// Share of CPU time stolen, zero to one.
    pub fn steal_share(&self) -> f64 {
        self.steal_ticks as f64 / self.total_ticks.max(1) as f64
    }

    /// Share of CPU time the host was busy, zero to one.
    pub fn busy_share(&self) -> f64 {
        1.0 - self.idle_ticks as f64 / self.total_ticks.max(1) as f64
    }
}

/// Reads the host.
pub fn read() -> Sample {
    let mut sample = Sample::default();
    if let Ok(text) = fs::read_to_string("/proc/stat") {
        cpu_line(text.lines().next().unwrap_or(""), &mut sample);
    }
    let snmp = fs::read_to_string("/proc/net/snmp").unwrap_or_default();
    let netstat = fs::read_to_string("/proc/net/netstat").unwrap_or_default();
    sample.datagrams_dropped = ["RcvbufErrors", "SndbufErrors"]
        .iter()
        .map(|name| paired(&snmp, "Udp:", name))
        .sum();
    sample.accepts_dropped = paired(&netstat, "TcpExt:", "ListenDrops");
    sample
}

/// `cpu user nice system idle iowait irq softirq steal guest guest_nice`.
fn cpu_line(line: &str, sample: &mut Sample) {
    let ticks: Vec<u64> = line
        .split_ascii_whitespace()
        .skip(1)
        .filter_map(|text| text.parse().ok())
        .collect();
    // Guest time is part of user time already.
    sample.total_ticks = ticks.iter().take(8).sum();
    sample.idle_ticks = ticks.iter().skip(3).take(2).sum();
    sample.steal_ticks = ticks.get(7).copied().unwrap_or(0);
}

/// Value of `name` in a table of two lines that start with `prefix`: names, then values.
fn paired(text: &str, prefix: &str, name: &str) -> u64 {
    let mut lines = text.lines().filter(|line| line.starts_with(prefix));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
        return 0;
    };
    names
        .split_ascii_whitespace()
        .zip(values.split_ascii_whitespace())
        .find(|(known, _)| *known == name)
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_columns_by_their_names() {
        let text = "Udp: InDatagrams RcvbufErrors SndbufErrors\nUdp: 10 3 4\nUdpLite: x\n";
        assert_eq!(paired(text, "Udp:", "RcvbufErrors"), 3);
        assert_eq!(paired(text, "Udp:", "SndbufErrors"), 4);
        assert_eq!(paired(text, "Udp:", "Nothing"), 0);
        let mut sample = Sample::default();
        cpu_line("cpu  50 0 30 10 10 0 0 100 7 0", &mut sample);
        assert_eq!(
            (sample.total_ticks, sample.steal_ticks, sample.idle_ticks),
            (200, 100, 20)
        );
        assert!((sample.steal_share() - 0.5).abs() < 1e-9);
        assert!((sample.busy_share() - 0.9).abs() < 1e-9);
    }

    #[test]
    fn this_host_has_counts() {
        assert!(read().total_ticks > 0);
    }
}
