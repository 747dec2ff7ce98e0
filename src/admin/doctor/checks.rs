//! The checks. Each looks at one thing and never fails: what it cannot read it does not know.

use std::collections::BTreeSet;

use super::groups::{self, Limit};
use super::{Finding, Host, Place, Plan, Setting, Severity, devices, disk, nics};
use crate::io::backend::Backend;

type Check = fn(&Host, &Plan) -> Finding;

pub(super) const ALL: [Check; 31] = [
    kernel,
    ring,
    memlock,
    nofile,
    cpus,
    quota,
    memory,
    pinning,
    isolation,
    siblings,
    governor,
    clock,
    steal,
    swap,
    huge_pages,
    numa,
    datagram_buffers,
    datagram_trains,
    stream_buffers,
    backlog,
    ports,
    interrupts,
    devices::steering,
    devices::busy_poll,
    devices::idle_states,
    devices::near,
    nics::offloads,
    nics::rings,
    disk::disk,
    disk::cache,
    disk::near,
];

/// Locked memory an executor and its rings want for each shard.
const MEMLOCK_PER_SHARD: u64 = 8 << 20;
const BUFFER_BYTES: u64 = 4 << 20;

pub(super) fn fine(id: &'static str, why: &'static str, current: impl Into<String>) -> Finding {
    Finding {
        id,
        severity: Severity::Fine,
        current: current.into(),
        wanted: String::new(),
        why,
        remedy: String::new(),
        settings: Vec::new(),
    }
}

pub(super) fn unknown(id: &'static str, why: &'static str, file: &str) -> Finding {
    silent(id, why, format!("/{file} cannot be read"))
}

/// The host does not say.
pub(super) fn silent(id: &'static str, why: &'static str, text: impl Into<String>) -> Finding {
    Finding {
        severity: Severity::Unknown,
        ..fine(id, why, text)
    }
}

/// Whether there is a `/sys` to look into: a file that every kernel has there.
pub(super) fn has_sys(host: &Host) -> bool {
    host.read("sys/devices/system/cpu/online").is_some()
}

/// Octets with their unit.
fn octets(number: u64) -> String {
    match number {
        0 => "0 octets".to_owned(),
        _ if number.is_multiple_of(1 << 20) => format!("{} MiB", number >> 20),
        _ if number.is_multiple_of(1 << 10) => format!("{} KiB", number >> 10),
        _ => format!("{number} octets"),
    }
}

impl Finding {
    pub(super) fn wants(
        self,
        severity: Severity,
        wanted: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            severity,
            wanted: wanted.into(),
            remedy: remedy.into(),
            ..self
        }
    }

    pub(super) fn by(
        mut self,
        path: impl Into<std::path::PathBuf>,
        value: impl Into<String>,
    ) -> Self {
        self.settings.push(Setting {
            place: Place::file(path),
            value: value.into(),
        });
        self
    }
}

/// `/proc/sys` file as `sysctl` names it.
fn sysctl(path: &str) -> String {
    path.trim_start_matches("proc/sys/").replace('/', ".")
}

fn at_least(
    host: &Host,
    (id, why): (&'static str, &'static str),
    path: &'static str,
    least: u64,
    severity: Severity,
) -> Finding {
    let Some(value) = host.number(path) else {
        return unknown(id, why, path);
    };
    let found = fine(id, why, format!("{} = {value}", sysctl(path)));
    if value >= least {
        return found;
    }
    let remedy = format!("sysctl -w {}={least}", sysctl(path));
    found
        .wants(severity, format!("{least} or more"), remedy)
        .by(path, least.to_string())
}

fn kernel(host: &Host, plan: &Plan) -> Finding {
    const WHY: &str = "the datapath wants DEFER_TASKRUN, multishot receives and the shortest wait";
    const FILE: &str = "proc/sys/kernel/osrelease";
    let Some(release) = host.read(FILE) else {
        return unknown("kernel", WHY, FILE);
    };
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next().and_then(|text| text.parse::<u32>().ok());
    let version = (number().unwrap_or(0), number().unwrap_or(0));
    let found = fine("kernel", WHY, release);
    if version >= (6, 12) || (version >= (6, 1) && plan.backend == Backend::Mmsg) {
        return found;
    }
    if version >= (6, 1) {
        return found.wants(
            Severity::Advice,
            "6.12 or newer",
            "boot a kernel of 6.12 or newer, which lets a busy shard gather what comes (node.gather_us)",
        );
    }
    if version < (5, 0) {
        // Older than what the fallback was made for.
        return found.wants(
            Severity::Critical,
            "6.1 or newer",
            "boot a kernel of 6.1 or newer",
        );
    }
    found.wants(
        without_ring(plan),
        "6.1 or newer",
        "boot a kernel of 6.1 or newer",
    )
}

/// How bad it is that io_uring is missing: the fallback serves, unless it is excluded.
const fn without_ring(plan: &Plan) -> Severity {
    match plan.backend {
        Backend::IoUring => Severity::Critical,
        Backend::Auto => Severity::Warning,
        Backend::Mmsg => Severity::Fine,
    }
}

fn ring(host: &Host, plan: &Plan) -> Finding {
    const WHY: &str = "shards do their I/O through io_uring, or through epoll at a higher cost";
    const FILE: &str = "proc/sys/kernel/io_uring_disabled";
    let policy = host.number(FILE);
    let text = policy.map_or_else(
        || "no policy file".to_owned(),
        |policy| format!("kernel.io_uring_disabled = {policy}"),
    );
    let severity = without_ring(plan);
    let backend = match (&host.ring, plan.backend) {
        (Ok(()), Backend::Auto | Backend::IoUring) => "backend io_uring",
        (_, Backend::Mmsg) => "backend mmsg, by node.backend",
        (Err(_), Backend::Auto) => "backend mmsg, as a fallback",
        (Err(_), Backend::IoUring) => "no backend: node.backend excludes mmsg",
    };
    match &host.ring {
        Ok(()) => fine("io-uring", WHY, format!("{backend}; a ring works; {text}")),
        Err(error) => {
            let found = fine("io-uring", WHY, format!("{backend}; {error}; {text}"));
            if severity == Severity::Fine {
                return found;
            }
            if is_memlock(error) {
                let remedy =
                    "raise LimitMEMLOCK in the service unit (ulimit -l in a shell), see memlock";
                return found.wants(severity, "a working ring", remedy);
            }
            if policy.unwrap_or(0) == 0 {
                let remedy = "allow io_uring_setup, io_uring_enter and io_uring_register in the \
                              container's seccomp profile, and raise LimitMEMLOCK";
                return found.wants(severity, "a working ring", remedy);
            }
            let remedy = "sysctl -w kernel.io_uring_disabled=0, or 1 with the service's group in \
                          kernel.io_uring_group";
            found
                .wants(severity, "kernel.io_uring_disabled = 0", remedy)
                .by(FILE, "0")
        }
    }
}

/// Whether it was the limit of locked memory that let no ring be.
fn is_memlock(error: &str) -> bool {
    error.contains("MemLockLimit") || error.contains("MEMLOCK")
}

fn limit(
    (id, why): (&'static str, &'static str),
    value: Option<u64>,
    least: u64,
    (severity, name): (Severity, &str),
) -> Finding {
    let Some(value) = value else {
        return fine(id, why, "no limit");
    };
    let found = fine(id, why, value.to_string());
    if value >= least {
        return found;
    }
    let remedy = format!("{name}={least} in the service unit, or ulimit in the shell");
    found.wants(severity, format!("{least} or more"), remedy)
}

fn memlock(host: &Host, plan: &Plan) -> Finding {
    const WHAT: (&str, &str) = ("memlock", "buffers of rings and executors are locked");
    let least = MEMLOCK_PER_SHARD * plan.shards as u64;
    let found = limit(
        WHAT,
        host.limits.memlock,
        least,
        (Severity::Warning, "LimitMEMLOCK"),
    );
    let Some(value) = host.limits.memlock else {
        return found;
    };
    let wanted = if found.severity > Severity::Fine {
        format!("{} or more", octets(least))
    } else {
        String::new()
    };
    Finding {
        current: octets(value),
        wanted,
        ..found
    }
}

fn nofile(host: &Host, plan: &Plan) -> Finding {
    const WHAT: (&str, &str) = (
        "nofile",
        "one descriptor a connection up to limits.connections_max; with fewer a shard takes fewer",
    );
    let mut found = limit(
        WHAT,
        host.limits.nofile,
        plan.descriptors,
        (Severity::Warning, "LimitNOFILE"),
    );
    if !found.remedy.is_empty() {
        found
            .remedy
            .push_str(", or a smaller limits.connections_max");
    }
    found
}

/// CPUs of a list such as `0-3,8`.
pub(super) fn cpu_list(text: &str) -> BTreeSet<usize> {
    let mut cpus = BTreeSet::new();
    for part in text.split(',').filter(|part| !part.trim().is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.trim().parse::<usize>(), last.trim().parse::<usize>())
        {
            cpus.extend(first..=last.min(first + 8192));
        }
    }
    cpus
}

pub(super) fn list(cpus: impl IntoIterator<Item = usize>) -> String {
    let text: Vec<_> = cpus.into_iter().map(|cpu| cpu.to_string()).collect();
    text.join(",")
}

fn cpus(host: &Host, plan: &Plan) -> Finding {
    const WHY: &str = "two shards on one core cost both their batches";
    const FILE: &str = "sys/devices/system/cpu/online";
    let Some(online) = host.read(FILE) else {
        return unknown("cpus", WHY, FILE);
    };
    let count = cpu_list(&online).len();
    let found = fine(
        "cpus",
        WHY,
        format!("{count} online, {} shards", plan.shards),
    );
    if plan.shards > count {
        let remedy = format!("node.shards = {count} or fewer");
        return found.wants(Severity::Warning, "a core for each shard", remedy);
    }
    found
}

fn quota(host: &Host, plan: &Plan) -> Finding {
    const WHY: &str = "a throttled thread stops for tens of milliseconds at a time";
    let (cores, file) = match groups::cpu(host) {
        Limit::Unknown => return silent("cpu-quota", WHY, "no control group can be read"),
        Limit::Unset => return fine("cpu-quota", WHY, "none"),
        Limit::Of(cores, file) => (cores, file),
    };
    #[expect(clippy::cast_precision_loss, reason = "a handful of shards")]
    let enough = cores >= plan.shards as f64 + 0.5;
    let found = fine("cpu-quota", WHY, format!("{cores:.2} cores ({file})"));
    let remedy = "take the CPU limit of the container off and give it cores of its own (cpuset)";
    let severity = if enough {
        Severity::Advice
    } else {
        Severity::Warning
    };
    found.wants(severity, "no quota", remedy)
}

fn memory(host: &Host, _: &Plan) -> Finding {
    const WHY: &str =
        "tables are reserved up to limits.*; the kernel kills what outgrows its group";
    const GIB: f64 = 1_073_741_824.0;
    let (octets, file) = match groups::memory(host) {
        Limit::Unknown => return silent("memory-limit", WHY, "no control group can be read"),
        Limit::Unset => return fine("memory-limit", WHY, "none"),
        Limit::Of(octets, file) => (octets, file),
    };
    let gib = octets / GIB;
    let found = fine("memory-limit", WHY, format!("{gib:.2} GiB ({file})"));
    if gib >= 2.0 {
        return found;
    }
    found.wants(
        Severity::Warning,
        "2 GiB or more",
        "raise the memory limit of the container, or lower limits.users_max and limits.pushes_max",
    )
}

fn pinning(host: &Host, plan: &Plan) -> Finding {
    const WHY: &str = "a shard that moves between cores leaves its caches behind";
    const FILE: &str = "sys/devices/system/cpu/online";
    if plan.pin.is_empty() {
        return fine("pinning", WHY, "the kernel places the shards").wants(
            Severity::Advice,
            "node.pin names a core for each shard",
            "node.pin = [..] in the configuration",
        );
    }
    let found = fine("pinning", WHY, list(plan.pin.iter().copied()));
    let distinct: BTreeSet<_> = plan.pin.iter().collect();
    let online = host.read(FILE).map(|text| cpu_list(&text));
    if distinct.len() < plan.pin.len() || plan.pin.len() < plan.shards {
        return found.wants(
            Severity::Warning,
            "a core of its own for each shard",
            "name as many cores in node.pin as there are shards",
        );
    }
    if online.is_some_and(|online| plan.pin.iter().any(|cpu| !online.contains(cpu))) {
        return found.wants(
            Severity::Critical,
            "cores that are online",
            "name other cores in node.pin",
        );
    }
    found
}

fn isolation(host: &Host, plan: &Plan) -> Finding {
    const WHY: &str = "other tasks and the tick interrupt a shard in the middle of its batch";
    const FILE: &str = "sys/devices/system/cpu/isolated";
    let Some(isolated) = host.read(FILE) else {
        return unknown("isolation", WHY, FILE);
    };
    let isolated = cpu_list(&isolated);
    let ticks = host
        .read("sys/devices/system/cpu/nohz_full")
        .map(|text| cpu_list(&text))
        .unwrap_or_default();
    let found = fine(
        "isolation",
        WHY,
        format!(
            "isolated: {}; nohz_full: {}",
            list(isolated.iter().copied()),
            list(ticks.iter().copied())
        ),
    );
    let quiet = |cpu: &usize| isolated.contains(cpu) && ticks.contains(cpu);
    if plan.pin.is_empty() || plan.pin.iter().all(quiet) {
        return found;
    }
    if others(host, plan).is_empty() {
        // Isolating all of them would leave none for everything else.
        return found.wants(Severity::Advice, "a core left for other tasks", SPARE);
    }
    let cpus = list(plan.pin.iter().copied());
    let remedy = format!(
        "boot with isolcpus={cpus} nohz_full={cpus} rcu_nocbs={cpus}, or a cpuset of its own"
    );
    let wanted = format!("cores {cpus} isolated, and without a tick");
    found.wants(Severity::Advice, wanted, remedy)
}

/// What to do where the shards have all cores.
const SPARE: &str = "leave a core out of node.pin, and start a shard less; measure both";

/// Cores that are online and no shard's.
fn others(host: &Host, plan: &Plan) -> BTreeSet<usize> {
    let online = host.read("sys/devices/system/cpu/online");
    let online = online.map(|text| cpu_list(&text)).unwrap_or_default();
    online
        .into_iter()
        .filter(|cpu| !plan.pin.contains(cpu))
        .collect()
}

fn siblings(host: &Host, plan: &Plan) -> Finding {
    const WHY: &str = "two busy threads of one core get little more than half its speed each";
    if !has_sys(host) {
        return silent("siblings", WHY, "whether threads share cores is not said");
    }
    let mut shared = Vec::new();
    for cpu in &plan.pin {
        let path = format!("sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        let threads = host
            .read(&path)
            .map(|text| cpu_list(&text))
            .unwrap_or_default();
        shared.extend(
            threads
                .into_iter()
                .filter(|other| other > cpu && plan.pin.contains(other)),
        );
    }
    if shared.is_empty() {
        let active = host.read("sys/devices/system/cpu/smt/active");
        let text = match active.as_deref() {
            Some("1") => "threads share cores; no two shards do",
            Some(_) => "one thread a core",
            None => "this host does not say whether threads share cores",
        };
        return fine("siblings", WHY, text);
    }
    fine(
        "siblings",
        WHY,
        format!("shards share a core with CPU {}", list(shared)),
    )
    .wants(
        Severity::Warning,
        "one shard a core",
        "pin each shard to a core of its own, and leave its sibling idle",
    )
}

fn governor(host: &Host, plan: &Plan) -> Finding {
    const WHY: &str = "a clock that follows the load is slow at the start of every burst";
    if !has_sys(host) {
        return silent("governor", WHY, "cores and their clocks cannot be read");
    }
    let all = host.names("sys/devices/system/cpu");
    let mut slow = Vec::new();
    let mut any = false;
    for cpu in all
        .iter()
        .filter_map(|name| name.strip_prefix("cpu")?.parse::<usize>().ok())
    {
        let path = format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor");
        let Some(governor) = host.read(&path) else {
            continue;
        };
        any = true;
        if governor != "performance" && (plan.pin.is_empty() || plan.pin.contains(&cpu)) {
            slow.push((cpu, path, governor));
        }
    }
    let Some((_, _, first)) = slow.first() else {
        let text = if any {
            "performance"
        } else {
            "the host's, not ours: no cpufreq"
        };
        return fine("governor", WHY, text);
    };
    let cpus = list(slow.iter().map(|(cpu, _, _)| *cpu));
    let found = fine("governor", WHY, format!("{first} on CPU {cpus}")).wants(
        Severity::Warning,
        "performance",
        "cpupower frequency-set -g performance",
    );
    slow.into_iter()
        .fold(found, |found, (_, path, _)| found.by(path, "performance"))
}

fn clock(host: &Host, _: &Plan) -> Finding {
    const WHY: &str = "the clock is read once a turn; through a device that costs a microsecond";
    const FILE: &str = "sys/devices/system/clocksource/clocksource0/current_clocksource";
    let Some(source) = host.read(FILE) else {
        return unknown("clocksource", WHY, FILE);
    };
    let quick = matches!(
        source.as_str(),
        "tsc" | "kvm-clock" | "hyperv_clocksource_tsc_page" | "arch_sys_counter"
    );
    let found = fine("clocksource", WHY, source);
    if quick {
        return found;
    }
    found.wants(
        Severity::Warning,
        "tsc, or the paravirtual one",
        "boot with clocksource=tsc tsc=reliable if the CPU's counter is invariant",
    )
}

/// Since the machine started; a share that hides in averages is still a sign.
fn steal(host: &Host, _: &Plan) -> Finding {
    const WHY: &str = "time the hypervisor gave to others is missing from every figure";
    const FILE: &str = "proc/stat";
    let text = host.read(FILE);
    let numbers: Option<Vec<u64>> = text.as_deref().and_then(|text| {
        let line = text.lines().next()?.strip_prefix("cpu ")?;
        line.split_whitespace()
            .map(|number| number.parse().ok())
            .collect()
    });
    let Some((stolen, all)) = numbers
        .as_deref()
        .and_then(|all| Some((*all.get(7)?, all.iter().take(8).sum::<u64>())))
    else {
        return unknown("steal", WHY, FILE);
    };
    #[expect(
        clippy::cast_precision_loss,
        reason = "a share, shown with one decimal"
    )]
    let share = stolen as f64 * 100.0 / all.max(1) as f64;
    let found = fine("steal", WHY, format!("{share:.1} % since the start"));
    if share < 1.0 {
        return found;
    }
    found.wants(
        Severity::Warning,
        "below 1 %",
        "dedicated hardware, or dedicated cores of the hypervisor",
    )
}

fn swap(host: &Host, _: &Plan) -> Finding {
    const WHY: &str = "a page of a table that went to disk stops a whole shard";
    const FILE: &str = "proc/swaps";
    let Some(text) = host.read(FILE) else {
        return unknown("swap", WHY, FILE);
    };
    let areas = text.lines().skip(1).count();
    let swappiness = host.number("proc/sys/vm/swappiness");
    let found = fine(
        "swap",
        WHY,
        format!(
            "{areas} areas, vm.swappiness = {}",
            swappiness.map_or_else(|| "?".to_owned(), |value| value.to_string())
        ),
    );
    if areas == 0 || swappiness.is_some_and(|value| value <= 10) {
        return found;
    }
    found
        .wants(
            Severity::Warning,
            "no swap, or vm.swappiness of 10 or less",
            "swapoff -a, or sysctl -w vm.swappiness=1; MemorySwapMax=0 in the unit",
        )
        .by("proc/sys/vm/swappiness", "1")
}

fn huge_pages(host: &Host, _: &Plan) -> Finding {
    const WHY: &str = "who touches a page of 2 MiB first stands until it is cleared, and khugepaged moves pages of a running process; volley refuses such pages itself (node.huge_pages)";
    const FILE: &str = "sys/kernel/mm/transparent_hugepage/enabled";
    let Some(text) = host.read(FILE) else {
        return unknown("huge-pages", WHY, FILE);
    };
    let found = fine("huge-pages", WHY, text.clone());
    if text.contains("[always]") {
        return found
            .wants(
                Severity::Advice,
                "madvise",
                format!("echo madvise > /{FILE}"),
            )
            .by(FILE, "madvise");
    }
    found
}

fn numa(host: &Host, plan: &Plan) -> Finding {
    const WHY: &str = "memory of another node is half as fast";
    const FILE: &str = "sys/devices/system/node/online";
    let Some(text) = host.read(FILE) else {
        if has_sys(host) {
            return fine("numa", WHY, "one node: a kernel without NUMA");
        }
        return unknown("numa", WHY, FILE);
    };
    let nodes = cpu_list(&text);
    if nodes.len() < 2 {
        return fine("numa", WHY, "one node");
    }
    let used: BTreeSet<_> = nodes
        .iter()
        .filter(|node| {
            let cpus = host.read(&format!("sys/devices/system/node/node{node}/cpulist"));
            let cpus = cpus.map(|text| cpu_list(&text)).unwrap_or_default();
            plan.pin.iter().any(|cpu| cpus.contains(cpu))
        })
        .collect();
    let balancing = host.number("proc/sys/kernel/numa_balancing").unwrap_or(0);
    let found = fine(
        "numa",
        WHY,
        format!(
            "{} nodes, shards on {}, numa_balancing = {balancing}",
            nodes.len(),
            used.len()
        ),
    );
    if balancing == 0 {
        return found;
    }
    found
        .wants(
            Severity::Advice,
            "kernel.numa_balancing = 0 with pinned shards",
            "sysctl -w kernel.numa_balancing=0",
        )
        .by("proc/sys/kernel/numa_balancing", "0")
}

fn datagram_buffers(host: &Host, plan: &Plan) -> Finding {
    const WHAT: (&str, &str) = (
        "datagram-buffers",
        "a burst of datagrams waits in the socket or is lost",
    );
    let severity = if plan.datagrams {
        Severity::Warning
    } else {
        Severity::Advice
    };
    let read = at_least(
        host,
        WHAT,
        "proc/sys/net/core/rmem_max",
        BUFFER_BYTES,
        severity,
    );
    let write = at_least(
        host,
        WHAT,
        "proc/sys/net/core/wmem_max",
        BUFFER_BYTES,
        severity,
    );
    if read.severity < write.severity {
        return write;
    }
    let mut found = read;
    found.settings.extend(write.settings);
    found
}

fn datagram_trains(host: &Host, plan: &Plan) -> Finding {
    const ID: &str = "datagram-trains";
    const WHY: &str = "datagrams that pass the kernel in trains cost a fraction of single ones";
    let Some(trains) = host.trains else {
        return silent(ID, WHY, "not tried");
    };
    let found = fine(
        ID,
        WHY,
        format!("over the loopback datagrams travel {}", trains.text()),
    );
    if trains.sends && trains.joins {
        return found;
    }
    let severity = if plan.datagrams {
        Severity::Warning
    } else {
        Severity::Advice
    };
    let remedy = "run Linux 5.0 or newer; sandboxes with a network stack of their own cannot do it";
    found.wants(severity, "UDP_SEGMENT and UDP_GRO", remedy)
}

fn stream_buffers(host: &Host, _: &Plan) -> Finding {
    const WHY: &str = "a trunk carries hundreds of MB a second; a small window makes it wait";
    const FILE: &str = "proc/sys/net/ipv4/tcp_wmem";
    let Some(text) = host.read(FILE) else {
        return unknown("stream-buffers", WHY, FILE);
    };
    let most = text
        .split_whitespace()
        .nth(2)
        .and_then(|text| text.parse::<u64>().ok())
        .unwrap_or(0);
    let found = fine(
        "stream-buffers",
        WHY,
        format!(
            "net.ipv4.tcp_wmem = {}",
            text.split_whitespace().collect::<Vec<_>>().join(" ")
        ),
    );
    if most >= BUFFER_BYTES {
        return found;
    }
    let value = format!("4096 16384 {BUFFER_BYTES}");
    found
        .wants(
            Severity::Advice,
            format!("a maximum of {BUFFER_BYTES}"),
            format!("sysctl -w net.ipv4.tcp_wmem=\"{value}\""),
        )
        .by(FILE, value)
}

fn backlog(host: &Host, _: &Plan) -> Finding {
    const WHAT: (&str, &str) = ("backlog", "a returning crowd connects at once");
    at_least(
        host,
        WHAT,
        "proc/sys/net/core/somaxconn",
        4096,
        Severity::Warning,
    )
}

fn ports(host: &Host, _: &Plan) -> Finding {
    const WHY: &str = "a connection to each phone takes a port, and keeps it for a minute";
    const FILE: &str = "proc/sys/net/ipv4/ip_local_port_range";
    let Some(text) = host.read(FILE) else {
        return unknown("ports", WHY, FILE);
    };
    let numbers: Vec<u64> = text
        .split_whitespace()
        .filter_map(|text| text.parse().ok())
        .collect();
    let count = match numbers.as_slice() {
        [first, last] => last.saturating_sub(*first) + 1,
        _ => 0,
    };
    let found = fine(
        "ports",
        WHY,
        format!(
            "{count} ports ({})",
            numbers
                .iter()
                .map(u64::to_string)
                .collect::<Vec<_>>()
                .join("-")
        ),
    );
    if count >= 28_000 {
        return found;
    }
    found
        .wants(
            Severity::Warning,
            "28,000 or more",
            "sysctl -w net.ipv4.ip_local_port_range=\"32768 60999\"",
        )
        .by(FILE, "32768 60999")
}

/// Interrupts of network devices that may run on the shards' cores.
fn interrupts(host: &Host, plan: &Plan) -> Finding {
    const WHY: &str = "packets that arrive on a shard's core interrupt its batch";
    const FILE: &str = "proc/interrupts";
    let Some(text) = host.read(FILE) else {
        return unknown("interrupts", WHY, FILE);
    };
    let devices = host.names("sys/class/net");
    let devices: Vec<_> = devices
        .iter()
        .filter(|name| name.as_str() != "lo")
        .collect();
    let (mut found, mut silent_irqs) = (Vec::new(), false);
    for line in text.lines() {
        let Some((number, rest)) = line.trim().split_once(':') else {
            continue;
        };
        let network = rest.contains("virtio") && rest.contains("put")
            || devices.iter().any(|name| rest.contains(name.as_str()));
        if network && number.parse::<u32>().is_ok() {
            let cpus = host.read(&format!("proc/irq/{number}/smp_affinity_list"));
            silent_irqs |= cpus.is_none();
            let cpus = cpus.map(|text| cpu_list(&text)).unwrap_or_default();
            if plan.pin.iter().any(|cpu| cpus.contains(cpu)) {
                found.push(number.to_owned());
            }
        }
    }
    if plan.pin.is_empty() {
        return fine("interrupts", WHY, "the shards have no cores of their own");
    }
    if silent_irqs || devices.is_empty() && !has_sys(host) {
        return silent(
            "interrupts",
            WHY,
            "where network devices interrupt cannot be read",
        );
    }
    if found.is_empty() {
        return fine(
            "interrupts",
            WHY,
            "none of a network device on the shards' cores",
        );
    }
    let text = format!("IRQ {} may run on the shards' cores", found.join(", "));
    let others = others(host, plan);
    let judged = fine("interrupts", WHY, text);
    if others.is_empty() {
        return judged.wants(Severity::Advice, "a core left for interrupts", SPARE);
    }
    let cpus = list(others);
    let judged = judged.wants(
        Severity::Advice,
        format!("on other cores of the same node, of {cpus}"),
        "write them to /proc/irq/N/smp_affinity_list, or ban the shards' cores in irqbalance",
    );
    found.iter().fold(judged, |judged, number| {
        judged.by(format!("proc/irq/{number}/smp_affinity_list"), cpus.clone())
    })
}
