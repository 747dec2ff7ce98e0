//! How long a CPU is taken from a thread that never sleeps: by the host of a virtual machine, by interrupts, by
//! others. No engine can be quicker than that, and no counter of the kernel says it all.

use std::thread;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::admin::doctor::{Finding, Severity};
use crate::io::clock::Clock;

/// Two looks at the clock further apart than this were not one after the other.
const AWAY: Duration = Duration::from_micros(100);
/// Looks at the clock between two looks at the end.
const LOOKS: u32 = 1024;
/// Share of the time above which the slowest hundredth of all pushes is the host's.
const SHARE_WARNING: f64 = 0.01;
/// Share above which it is the slowest thousandth.
const SHARE_ADVICE: f64 = 0.001;

/// What happened on one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stalls {
    /// The CPU.
    pub cpu: usize,
    /// How often it was away for more than 0.1 ms.
    pub times: u64,
    /// Together.
    pub away: Duration,
    /// At most.
    pub longest: Duration,
}

impl Stalls {
    /// Two looks at the clock that were `gap` apart.
    fn note(&mut self, gap: Duration) {
        if gap > AWAY {
            self.times += 1;
            self.away += gap;
            self.longest = self.longest.max(gap);
        }
    }
}

/// The CPUs this process may use, in order.
#[must_use]
pub fn usable() -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap_or_default();
    (0..CpuSet::MAX_CPU)
        .filter(|&cpu| set.is_set(cpu))
        .collect()
}

/// Keeps each of `cpus` busy for `time` and sees when it was away.
///
/// # Errors
/// A sentence that names a CPU that cannot be had.
pub fn watch(cpus: &[usize], time: Duration) -> Result<Vec<Stalls>, String> {
    thread::scope(|scope| {
        let threads = cpus
            .iter()
            .map(|&cpu| (cpu, scope.spawn(move || watch_one(cpu, time))));
        let threads: Vec<_> = threads.collect();
        let seen = threads.into_iter().map(|(cpu, thread)| {
            let seen = thread
                .join()
                .unwrap_or_else(|_| Err("its thread ended".to_owned()));
            seen.map_err(|error| format!("CPU {cpu} cannot be watched: {error}"))
        });
        seen.collect()
    })
}

fn watch_one(cpu: usize, time: Duration) -> Result<Stalls, String> {
    let mut set = CpuSet::new();
    if cpu >= CpuSet::MAX_CPU {
        return Err("there is no such CPU".to_owned());
    }
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(|error| error.to_string())?;
    let mut stalls = Stalls {
        cpu,
        ..Stalls::default()
    };
    let begin = Clock.now();
    let mut before = begin;
    while before.since(begin) < time {
        for _ in 0..LOOKS {
            let now = Clock.now();
            stalls.note(now.since(before));
            before = now;
        }
    }
    Ok(stalls)
}

/// What `seen` in `time` means.
#[must_use]
pub fn judge(seen: &[Stalls], time: Duration) -> Finding {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let lines: Vec<String> = seen
        .iter()
        .map(|one| {
            format!(
                "CPU {} away {} times, {:.1} ms of {:.0}, {:.1} at most",
                one.cpu,
                one.times,
                ms(one.away),
                ms(time),
                ms(one.longest)
            )
        })
        .collect();
    let worst = seen.iter().map(|one| one.away).max().unwrap_or_default();
    let share = worst.as_secs_f64() / time.as_secs_f64();
    let severity = if share >= SHARE_WARNING {
        Severity::Warning
    } else if share >= SHARE_ADVICE {
        Severity::Advice
    } else {
        Severity::Fine
    };
    let remedy = if severity == Severity::Fine {
        String::new()
    } else {
        "stop what else runs there, or keep it off by isolcpus= and nohz_full=; on a virtual machine ask for CPUs \
         of its own. Until then judge latencies by halves and not by hundredths"
            .to_owned()
    };
    Finding {
        id: "cpu-stalls",
        severity,
        current: lines.join("; "),
        wanted: "less than a thousandth of the time".to_owned(),
        why: "whoever comes while the CPU is away waits for it: a share of 1 % is the slowest 1 % of all pushes, whatever \
              the engine does",
        remedy,
        settings: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(8);

    fn stalls(cpu: usize, gaps_us: &[u64]) -> Stalls {
        let mut stalls = Stalls {
            cpu,
            ..Stalls::default()
        };
        for &gap in gaps_us {
            stalls.note(Duration::from_micros(gap));
        }
        stalls
    }

    #[test]
    fn gaps_count_from_a_tenth_of_a_millisecond_and_the_worst_cpu_decides() {
        let quiet = stalls(0, &[1, 99, 100]);
        assert_eq!((quiet.times, quiet.away), (0, Duration::ZERO));
        assert_eq!(judge(&[quiet], TIME).severity, Severity::Fine);
        // 7.9 ms, 8 ms and 80 ms of 8 s.
        let cases = [
            (vec![7_900], Severity::Fine),
            (vec![200; 40], Severity::Advice),
            (vec![20_000; 4], Severity::Warning),
        ];
        for (gaps, severity) in cases {
            let found = judge(&[quiet, stalls(3, &gaps)], TIME);
            assert_eq!(found.severity, severity, "{}", found.current);
            assert_eq!(found.remedy.is_empty(), severity == Severity::Fine);
        }
        let found = judge(&[quiet, stalls(3, &[20_000; 4])], TIME);
        let shown = "CPU 0 away 0 times, 0.0 ms of 8000, 0.0 at most; CPU 3 away 4 times, 80.0 ms of 8000, 20.0 at most";
        assert_eq!(found.current, shown);
    }

    #[test]
    fn a_cpu_is_watched_and_one_that_is_not_there_is_named() {
        let cpu = usable()[0];
        let seen = watch(&[cpu], Duration::from_millis(20)).unwrap();
        assert_eq!((seen.len(), seen[0].cpu), (1, cpu));
        assert!(seen[0].longest <= seen[0].away);
        for cpu in [CpuSet::MAX_CPU - 1, CpuSet::MAX_CPU] {
            let error = watch(&[cpu], Duration::from_millis(1)).unwrap_err();
            assert!(
                error.starts_with(&format!("CPU {cpu} cannot be watched: ")),
                "{error}"
            );
        }
    }
}
