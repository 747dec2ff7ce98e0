//! Checks of devices: packet steering, busy polling, idle states, and whether network devices are near
//! the shards.

use std::collections::BTreeSet;

use super::checks::{cpu_list, fine, has_sys, list, silent};
use super::disk::node_of;
use super::{Finding, Host, Plan, Severity};

/// Longest time to wake up from an idle state that a shard's core should enter, microseconds.
pub(super) const WAKE_US_MAX: u64 = 20;

/// Network devices but the loopback.
pub(super) fn network(host: &Host) -> Vec<String> {
    let mut names = host.names("sys/class/net");
    names.retain(|name| name != "lo");
    names
}

/// CPUs of a mask such as `0000000f,ffff0000`.
fn mask_cpus(text: &str) -> BTreeSet<usize> {
    let digits: Vec<_> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    let mut cpus = BTreeSet::new();
    for (place, digit) in digits.iter().rev().enumerate() {
        cpus.extend(
            (0..4)
                .filter(|bit| digit >> bit & 1 == 1)
                .map(|bit| 4 * place + bit),
        );
    }
    cpus
}

/// The other way round.
fn mask_of(cpus: &BTreeSet<usize>) -> String {
    let words = cpus.iter().next_back().map_or(1, |last| last / 32 + 1);
    let word = |index: usize| {
        let inside = cpus.iter().filter(|cpu| **cpu / 32 == index);
        inside.fold(0_u32, |word, cpu| word | 1 << (cpu % 32))
    };
    let words: Vec<_> = (0..words)
        .rev()
        .map(|index| format!("{:08x}", word(index)))
        .collect();
    words.join(",")
}

/// RPS and XPS: which cores handle packets in software, and which queues they send by.
pub(super) fn steering(host: &Host, plan: &Plan) -> Finding {
    const ID: &str = "packet-steering";
    const WHY: &str =
        "packets that RPS hands to a shard's core are handled there in its batch's time";
    if !has_sys(host) {
        return silent(ID, WHY, "/sys/class/net cannot be read");
    }
    let (mut on, mut settings, mut xps) = (Vec::new(), Vec::new(), 0);
    for device in network(host) {
        let folder = format!("sys/class/net/{device}/queues");
        for queue in host.names(&folder) {
            let sends = host.read(&format!("{folder}/{queue}/xps_cpus"));
            xps += usize::from(sends.is_some_and(|mask| !mask_cpus(&mask).is_empty()));
            let path = format!("{folder}/{queue}/rps_cpus");
            let Some(cpus) = host.read(&path).map(|mask| mask_cpus(&mask)) else {
                continue;
            };
            if plan.pin.iter().any(|cpu| cpus.contains(cpu)) {
                let others = cpus.iter().copied().filter(|cpu| !plan.pin.contains(cpu));
                settings.push((path, mask_of(&others.collect())));
                on.push(format!("{device} {queue}"));
            }
        }
    }
    if on.is_empty() {
        let text = format!("RPS hands nothing to the shards' cores; {xps} queues have XPS");
        return fine(ID, WHY, text);
    }
    let found = fine(
        ID,
        WHY,
        format!("RPS of {} names the shards' cores", on.join(", ")),
    )
    .wants(
        Severity::Advice,
        "masks without the shards' cores",
        "write other cores' masks to rps_cpus of these queues",
    );
    settings
        .into_iter()
        .fold(found, |found, (path, mask)| found.by(path, mask))
}

pub(super) fn busy_poll(host: &Host, _: &Plan) -> Finding {
    const ID: &str = "busy-poll";
    const WHY: &str =
        "shards wait in a ring or in epoll, where polling of sockets takes CPU and gains nothing";
    const FILES: [&str; 2] = ["proc/sys/net/core/busy_poll", "proc/sys/net/core/busy_read"];
    let values = FILES.map(|file| host.number(file));
    let [Some(poll), Some(read)] = values else {
        return silent(ID, WHY, format!("/{} cannot be read", FILES[0]));
    };
    let napi = network(host).into_iter().find_map(|device| {
        let defer = host.number(&format!("sys/class/net/{device}/napi_defer_hard_irqs"))?;
        let flush = host.number(&format!("sys/class/net/{device}/gro_flush_timeout"))?;
        Some(format!(
            "; {device}: napi_defer_hard_irqs {defer}, gro_flush_timeout {flush} ns"
        ))
    });
    let napi = napi.unwrap_or_default();
    let text = format!("net.core.busy_poll = {poll} us, busy_read = {read} us{napi}");
    let found = fine(ID, WHY, text);
    if poll == 0 && read == 0 {
        return found;
    }
    let remedy =
        "sysctl -w net.core.busy_poll=0 net.core.busy_read=0, unless a measurement says otherwise";
    let found = found.wants(Severity::Advice, "0", remedy);
    FILES
        .iter()
        .zip(values)
        .fold(found, |found, (file, value)| {
            if value == Some(0) {
                found
            } else {
                found.by(*file, "0")
            }
        })
}

/// States in which a core of a shard sleeps deeply.
pub(super) fn idle_states(host: &Host, plan: &Plan) -> Finding {
    const ID: &str = "idle-states";
    const WHY: &str =
        "a core that sleeps deeply takes its time to wake up for the first packet of a burst";
    if !has_sys(host) {
        return silent(ID, WHY, "idle states cannot be read");
    }
    let (mut deep, mut any) = (Vec::new(), false);
    for cpu in &plan.pin {
        let folder = format!("sys/devices/system/cpu/cpu{cpu}/cpuidle");
        for state in host.names(&folder) {
            let number = |name: &str| host.number(&format!("{folder}/{state}/{name}"));
            let (Some(wakes_us), Some(disabled)) = (number("latency"), number("disable")) else {
                continue;
            };
            any = true;
            if disabled == 0 && wakes_us > WAKE_US_MAX {
                let name = host
                    .read(&format!("{folder}/{state}/name"))
                    .unwrap_or_else(|| state.clone());
                deep.push((*cpu, name, wakes_us, format!("{folder}/{state}/disable")));
            }
        }
    }
    let Some((_, name, wakes_us, _)) = deep.iter().max_by_key(|state| state.2) else {
        let text = match (plan.pin.is_empty(), any) {
            (true, _) => "the shards have no cores of their own",
            (false, true) => "the shards' cores sleep lightly",
            (false, false) => "none to choose from: the host's, or they poll",
        };
        return fine(ID, WHY, text);
    };
    let cpus: BTreeSet<_> = deep.iter().map(|state| state.0).collect();
    let text = format!("{name} ({wakes_us} us to wake up) on CPU {}", list(cpus));
    let remedy = "cpupower idle-set -D 20, or write 1 to these states' disable; it costs power";
    let found = fine(ID, WHY, text).wants(
        Severity::Advice,
        format!("states of at most {WAKE_US_MAX} us on the shards' cores"),
        remedy,
    );
    deep.into_iter()
        .fold(found, |found, (_, _, _, path)| found.by(path, "1"))
}

/// Whether network devices are on the node of the shards.
pub(super) fn near(host: &Host, plan: &Plan) -> Finding {
    const ID: &str = "numa-devices";
    const WHY: &str = "packets of a device of another node cross the link between them twice";
    if !has_sys(host) {
        return silent(ID, WHY, "nodes of devices cannot be read");
    }
    let mut far = Vec::new();
    for device in network(host) {
        let Some(node) = node_of(host, &format!("sys/class/net/{device}/device")) else {
            continue;
        };
        let Some(cpus) = host.read(&format!("sys/devices/system/node/node{node}/cpulist")) else {
            continue;
        };
        let cpus = cpu_list(&cpus);
        if !plan.pin.is_empty() && !plan.pin.iter().any(|cpu| cpus.contains(cpu)) {
            far.push((device, node, cpus));
        }
    }
    let Some((device, node, cpus)) = far.first() else {
        return fine(ID, WHY, "none is far from the shards");
    };
    fine(ID, WHY, format!("{device} is on node {node}, no shard is")).wants(
        Severity::Advice,
        "shards on the node of the device that carries the load",
        format!(
            "node.pin of CPUs {}, if that device carries it",
            list(cpus.iter().copied())
        ),
    )
}
