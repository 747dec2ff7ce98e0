use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

mod disk;
mod nics;
mod profiles;

/// A host made of files.
struct Made(PathBuf);

impl Made {
    fn new(files: &[(&str, &str)]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root =
            std::env::temp_dir().join(format!("volley-host-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&root).expect("a temporary directory");
        let made = Self(root);
        for (path, text) in files {
            made.set(path, text);
        }
        made
    }

    fn set(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        std::fs::create_dir_all(path.parent().expect("below the root")).expect("writable");
        std::fs::write(path, text).expect("writable");
    }

    fn look(&self, plan: &Plan) -> BTreeMap<&'static str, Finding> {
        self.look_with(plan, nics::Made::mute())
    }

    fn look_with(&self, plan: &Plan, nics: Rc<nics::Made>) -> BTreeMap<&'static str, Finding> {
        let found = self.host(nics).examine(plan);
        found
            .into_iter()
            .map(|finding| (finding.id, finding))
            .collect()
    }

    fn host(&self, nics: Rc<nics::Made>) -> Host {
        let limits = ProcessLimits {
            memlock: Some(64 << 20),
            nofile: None,
        };
        let mut host = Host::at(&self.0, limits, Ok(()));
        host.trains = Some(TrainSupport {
            sends: true,
            joins: true,
        });
        host.nics = nics;
        host
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn plan() -> Plan {
    Plan {
        shards: 2,
        pin: vec![2, 3],
        store: PathBuf::from("/var/lib/volley"),
        datagrams: false,
        backend: Backend::Auto,
        descriptors: 600_000,
    }
}

const GOOD: [(&str, &str); 23] = [
    ("sys/dev/block/254:0/queue/write_cache", "write back\n"),
    ("sys/devices/system/cpu/nohz_full", "2-3\n"),
    ("proc/sys/net/core/busy_poll", "0\n"),
    ("proc/sys/net/core/busy_read", "0\n"),
    ("proc/self/cgroup", "0::/\n"),
    (
        "sys/fs/cgroup/cgroup.controllers",
        "cpuset cpu io memory pids\n",
    ),
    ("proc/sys/kernel/osrelease", "6.18.2-cloud\n"),
    ("proc/sys/kernel/io_uring_disabled", "0\n"),
    ("sys/devices/system/cpu/online", "0-3\n"),
    ("sys/devices/system/cpu/isolated", "2-3\n"),
    (
        "sys/devices/system/cpu/cpu2/cpufreq/scaling_governor",
        "performance\n",
    ),
    (
        "sys/devices/system/clocksource/clocksource0/current_clocksource",
        "tsc\n",
    ),
    ("proc/stat", "cpu  100 0 100 800 0 0 0 1 0 0\n"),
    ("proc/swaps", "Filename Type Size Used Priority\n"),
    (
        "sys/kernel/mm/transparent_hugepage/enabled",
        "always [madvise] never\n",
    ),
    ("proc/sys/net/core/rmem_max", "8388608\n"),
    ("proc/sys/net/core/wmem_max", "8388608\n"),
    ("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304\n"),
    ("proc/sys/net/core/somaxconn", "4096\n"),
    ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
    (
        "proc/interrupts",
        "           CPU0\n 24:  1  PCI-MSI  eth0-rx\n",
    ),
    ("proc/irq/24/smp_affinity_list", "0-1\n"),
    (
        "proc/self/mountinfo",
        "25 1 254:0 / / rw - ext4 /dev/vda rw\n",
    ),
];

#[test]
fn a_host_that_is_right_gets_no_advice() {
    let made = Made::new(&GOOD);
    made.set("sys/class/net/eth0/mtu", "1500");
    for (id, finding) in made.look(&plan()) {
        assert_eq!(finding.severity, Severity::Fine, "{id}: {finding:?}");
        assert!(finding.settings.is_empty() && finding.remedy.is_empty());
    }
}

#[test]
fn each_check_sees_its_own_fault_and_no_other() {
    use Severity::{Advice, Critical, Warning};
    let faults: [(&str, &str, &str, Severity); 21] = [
        (
            "packet-steering",
            "sys/class/net/eth0/queues/rx-0/rps_cpus",
            "0000000e",
            Advice,
        ),
        ("busy-poll", "proc/sys/net/core/busy_read", "50", Advice),
        (
            "isolation",
            "sys/devices/system/cpu/nohz_full",
            "(null)",
            Advice,
        ),
        (
            "disk",
            "sys/dev/block/254:0/queue/scheduler",
            "none mq-deadline [bfq]",
            Advice,
        ),
        ("kernel", "proc/sys/kernel/osrelease", "5.15.0", Warning),
        ("kernel", "proc/sys/kernel/osrelease", "6.11.9", Advice),
        ("cpus", "sys/devices/system/cpu/online", "3", Warning),
        ("pinning", "sys/devices/system/cpu/online", "0-2", Critical),
        ("isolation", "sys/devices/system/cpu/isolated", "", Advice),
        (
            "siblings",
            "sys/devices/system/cpu/cpu2/topology/thread_siblings_list",
            "2-3",
            Warning,
        ),
        (
            "governor",
            "sys/devices/system/cpu/cpu2/cpufreq/scaling_governor",
            "powersave",
            Warning,
        ),
        (
            "clocksource",
            "sys/devices/system/clocksource/clocksource0/current_clocksource",
            "hpet",
            Warning,
        ),
        (
            "steal",
            "proc/stat",
            "cpu  100 0 100 800 0 0 0 90 0 0",
            Warning,
        ),
        (
            "swap",
            "proc/swaps",
            "Filename Type\n/dev/vdb partition 1 0 -2",
            Warning,
        ),
        (
            "huge-pages",
            "sys/kernel/mm/transparent_hugepage/enabled",
            "[always] madvise never",
            Advice,
        ),
        (
            "datagram-buffers",
            "proc/sys/net/core/wmem_max",
            "212992",
            Advice,
        ),
        (
            "stream-buffers",
            "proc/sys/net/ipv4/tcp_wmem",
            "4096 16384 65536",
            Advice,
        ),
        ("backlog", "proc/sys/net/core/somaxconn", "128", Warning),
        (
            "ports",
            "proc/sys/net/ipv4/ip_local_port_range",
            "50000 50100",
            Warning,
        ),
        ("interrupts", "proc/irq/24/smp_affinity_list", "0-3", Advice),
        (
            "disk",
            "proc/self/mountinfo",
            "25 1 0:1 / / rw - ext4 a rw\n26 25 0:2 / /var/lib rw - tmpfs b rw",
            Critical,
        ),
    ];
    for (id, path, text, severity) in faults {
        let made = Made::new(&GOOD);
        made.set("sys/class/net/eth0/mtu", "1500");
        made.set(path, text);
        let found = made.look(&plan());
        assert_eq!(found[id].severity, severity, "{id}: {:?}", found[id]);
        assert!(!found[id].remedy.is_empty(), "{id}");
        let others: Vec<_> = found
            .values()
            .filter(|other| other.id != id && other.severity > Severity::Unknown)
            .collect();
        let twins = matches!(id, "cpus" | "pinning") && others.len() == 1;
        assert!(others.is_empty() || twins, "{id}: {others:?}");
    }
}

#[test]
fn a_container_with_a_quota_is_told() {
    let made = Made::new(&GOOD);
    made.set("proc/self/cgroup", "0::/pod/volley\n");
    made.set("sys/fs/cgroup/pod/volley/cpu.max", "150000 100000\n");
    made.set("sys/fs/cgroup/pod/volley/memory.max", "536870912\n");
    let found = made.look(&plan());
    assert_eq!(found["cpu-quota"].severity, Severity::Warning);
    assert!(found["cpu-quota"].current.starts_with("1.50 cores"));
    assert_eq!(found["memory-limit"].severity, Severity::Warning);
}

#[test]
fn the_tightest_of_all_groups_above_counts() {
    let made = Made::new(&GOOD);
    made.set("proc/self/cgroup", "0::/pod/volley\n");
    made.set("sys/fs/cgroup/pod/volley/cpu.max", "max 100000\n");
    made.set("sys/fs/cgroup/pod/cpu.max", "50000 100000\n");
    made.set("sys/fs/cgroup/pod/volley/memory.max", "4294967296\n");
    made.set("sys/fs/cgroup/pod/memory.max", "1073741824\n");
    let found = made.look(&plan());
    assert_eq!(
        found["cpu-quota"].current,
        "0.50 cores (/sys/fs/cgroup/pod/cpu.max)"
    );
    assert_eq!(
        found["memory-limit"].current,
        "1.00 GiB (/sys/fs/cgroup/pod/memory.max)"
    );
}

#[test]
fn groups_of_the_old_hierarchy_count_too() {
    let made = Made::new(&GOOD);
    made.set(
        "proc/self/cgroup",
        "4:memory:/box/inner\n1:cpu,cpuacct:/box/inner\n0::/\n",
    );
    // As a container sees it: its own group is what is mounted.
    made.set(
        "proc/self/mountinfo",
        "25 1 254:0 / / rw - ext4 /dev/vda rw\n\
         32 31 0:29 /box /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
         35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
         41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
    );
    let cpu = "sys/fs/cgroup/cpu,cpuacct";
    made.set(&format!("{cpu}/inner/cpu.cfs_quota_us"), "-1\n");
    made.set(&format!("{cpu}/inner/cpu.cfs_period_us"), "100000\n");
    let memory = "sys/fs/cgroup/memory/box";
    let most = "9223372036854771712\n";
    made.set(&format!("{memory}/inner/memory.limit_in_bytes"), most);
    made.set(&format!("{cpu}/inner/cgroup.procs"), "1\n");
    made.set(&format!("{memory}/inner/cgroup.procs"), "1\n");
    let found = made.look(&plan());
    for id in ["cpu-quota", "memory-limit"] {
        assert_eq!(found[id].severity, Severity::Fine, "{:?}", found[id]);
        assert_eq!(found[id].current, "none");
    }
    made.set(&format!("{cpu}/cpu.cfs_quota_us"), "50000\n");
    made.set(&format!("{cpu}/cpu.cfs_period_us"), "100000\n");
    made.set(&format!("{memory}/memory.limit_in_bytes"), "268435456\n");
    let found = made.look(&plan());
    assert_eq!(found["cpu-quota"].severity, Severity::Warning);
    let told = format!("0.50 cores (/{cpu}/cpu.cfs_quota_us)");
    assert_eq!(found["cpu-quota"].current, told);
    assert_eq!(found["memory-limit"].severity, Severity::Warning);
    let told = format!("0.25 GiB (/{memory}/memory.limit_in_bytes)");
    assert_eq!(found["memory-limit"].current, told);
}

#[test]
fn a_host_without_sys_says_what_it_does_not_know() {
    let files: Vec<_> = GOOD
        .iter()
        .copied()
        .filter(|(path, _)| !path.starts_with("sys/"))
        .collect();
    let found = Made::new(&files).look(&plan());
    for id in [
        "cpus",
        "cpu-quota",
        "memory-limit",
        "isolation",
        "siblings",
        "governor",
        "clocksource",
        "huge-pages",
        "numa",
        "interrupts",
        "packet-steering",
        "idle-states",
        "numa-devices",
        "nic-offloads",
        "nic-rings",
        "disk-cache",
        "numa-disk",
    ] {
        assert_eq!(found[id].severity, Severity::Unknown, "{:?}", found[id]);
    }
}

#[test]
fn too_little_memory_to_lock_is_what_a_ring_that_wants_it_is_told() {
    let made = Made::new(&GOOD);
    let limits = ProcessLimits {
        memlock: Some(64 << 10),
        nofile: None,
    };
    let error = "IO error occurred: MemLockLimit(65536/524288)";
    let found = Host::at(&made.0, limits, Err(error.into())).examine(&plan());
    let of = |id: &str| found.iter().find(|found| found.id == id).expect("a check");
    let remedy = &of("io-uring").remedy;
    assert!(remedy.starts_with("raise LimitMEMLOCK"), "{remedy}");
    assert!(!remedy.contains("seccomp"), "{remedy}");
    assert_eq!(of("memlock").current, "64 KiB");
    assert_eq!(of("memlock").wanted, "16 MiB or more");
}

#[test]
fn a_forbidden_ring_and_short_limits_are_told_with_their_remedy() {
    let made = Made::new(&[("proc/sys/kernel/io_uring_disabled", "2")]);
    let limits = ProcessLimits {
        memlock: Some(64 << 10),
        nofile: Some(1024),
    };
    let host = Host::at(&made.0, limits, Err("io_uring is forbidden".into()));
    let found: BTreeMap<_, _> = host
        .examine(&plan())
        .into_iter()
        .map(|found| (found.id, found))
        .collect();
    assert_eq!(found["io-uring"].severity, Severity::Warning);
    let told = "backend mmsg, as a fallback; io_uring is forbidden; ";
    assert!(found["io-uring"].current.starts_with(told));
    assert_eq!(found["io-uring"].settings[0].value, "0");
    for (backend, severity) in [
        (Backend::IoUring, Severity::Critical),
        (Backend::Mmsg, Severity::Fine),
    ] {
        let found = host.examine(&Plan { backend, ..plan() });
        let ring = found.iter().find(|found| found.id == "io-uring");
        assert_eq!(ring.map(|found| found.severity), Some(severity));
    }
    assert_eq!(found["memlock"].severity, Severity::Warning);
    assert!(found["memlock"].remedy.contains("LimitMEMLOCK=16777216"));
    // As many as the configuration wants, and not some round number.
    assert_eq!(found["nofile"].severity, Severity::Warning);
    assert!(found["nofile"].remedy.contains("LimitNOFILE=600000"));
    assert!(found["nofile"].remedy.contains("limits.connections_max"));
}

#[test]
fn a_host_without_any_file_is_unknown_and_no_reason_to_panic() {
    let found = Made::new(&[]).look(&plan());
    assert_eq!(
        found.len(),
        checks::ALL.len(),
        "every check has a name of its own"
    );
    assert!(
        found
            .values()
            .all(|found| found.severity <= Severity::Advice),
        "{found:?}"
    );
    assert_eq!(found["kernel"].severity, Severity::Unknown);
    // Nor is one whose files hold anything else.
    let odd: Vec<_> = GOOD
        .iter()
        .map(|(path, _)| (*path, "\u{0}-,:[ 99999999999999999999999"))
        .collect();
    assert_eq!(Made::new(&odd).look(&plan()).len(), checks::ALL.len());
}

#[test]
fn what_is_tuned_is_noted_and_can_be_taken_back() {
    let made = Made::new(&[
        ("proc/sys/net/core/somaxconn", "128\n"),
        ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
        (
            "sys/kernel/mm/transparent_hugepage/enabled",
            "[always] madvise never\n",
        ),
    ]);
    let limits = ProcessLimits {
        memlock: None,
        nofile: None,
    };
    let host = Host::at(&made.0, limits, Ok(()));
    let found = host.examine(&plan());
    let journal = made.0.join("state/tune.journal");
    let settings = tune::settings(&found, Severity::Advice);
    let done = tune::apply(&host, &journal, &settings).expect("all is writable");
    let written: Vec<_> = done.iter().map(|undo| undo.after.as_str()).collect();
    assert_eq!(written, ["madvise", "4096"]);
    let text = |path: &str| std::fs::read_to_string(made.0.join(path)).expect("it is there");
    assert_eq!(text("proc/sys/net/core/somaxconn"), "4096");
    // A second time there is nothing to do.
    let again = host.examine(&plan());
    let settings = tune::settings(&again, Severity::Warning);
    assert!(
        tune::apply(&host, &journal, &settings)
            .expect("nothing to do")
            .is_empty()
    );
    let back = tune::revert(&host, &journal).expect("the journal is whole");
    assert_eq!(back.len(), 2);
    assert_eq!(text("proc/sys/net/core/somaxconn"), "128");
    assert_eq!(text("sys/kernel/mm/transparent_hugepage/enabled"), "always");
    assert!(!journal.exists());
    let none = tune::revert(&host, &journal).expect_err("nothing is left to take back");
    assert!(none.to_string().contains("no journal"));
    let missing = Setting {
        place: Place::file("proc/sys/net/none"),
        value: "1".into(),
    };
    let error = tune::apply(&host, &journal, &[&missing]).expect_err("no such file");
    assert!(error.to_string().contains("run as root"), "{error}");
    let script = tune::script(&host, &found, Severity::Warning);
    let lines = "echo '4096' > /proc/sys/net/core/somaxconn\n\
                 # to undo: echo '128' > /proc/sys/net/core/somaxconn\n";
    assert!(script.contains(lines), "{script}");
}

#[test]
fn devices_that_disturb_the_shards_are_named_with_what_to_write() {
    let made = Made::new(&GOOD);
    let queue = "sys/class/net/eth0/queues/rx-0/rps_cpus";
    made.set(queue, "00000001,0000000e\n");
    let idle = "sys/devices/system/cpu/cpu3/cpuidle/state3";
    made.set(&format!("{idle}/latency"), "133\n");
    made.set(&format!("{idle}/disable"), "0\n");
    made.set(&format!("{idle}/name"), "C6\n");
    made.set("sys/class/net/eth0/device/numa_node", "1\n");
    made.set("sys/devices/system/node/node1/cpulist", "0-1\n");
    made.set("proc/irq/24/smp_affinity_list", "0-3\n");
    let found = made.look(&plan());
    let writes = |id: &str| {
        let settings = found[id].settings.iter();
        let settings = settings.map(|one| (one.place.to_string().split_off(1), one.value.clone()));
        settings.collect::<Vec<_>>()
    };
    let one = |path: &str, value: &str| vec![(path.to_owned(), value.to_owned())];
    assert_eq!(writes("packet-steering"), one(queue, "00000001,00000002"));
    assert_eq!(writes("idle-states"), one(&format!("{idle}/disable"), "1"));
    assert!(found["idle-states"].current.starts_with("C6 (133 us"));
    let irq = "proc/irq/24/smp_affinity_list";
    assert_eq!(writes("interrupts"), one(irq, "0,1"));
    assert_eq!(found["numa-devices"].severity, Severity::Advice);
    assert!(
        found["numa-devices"]
            .remedy
            .contains("node.pin of CPUs 0,1")
    );
}

#[test]
fn shards_on_all_cores_are_told_to_leave_one() {
    let made = Made::new(&GOOD);
    made.set("sys/class/net/eth0/mtu", "1500");
    made.set("sys/devices/system/cpu/online", "2-3");
    made.set("sys/devices/system/cpu/isolated", "");
    made.set("proc/irq/24/smp_affinity_list", "2-3");
    let found = made.look(&plan());
    for id in ["isolation", "interrupts"] {
        let found = &found[id];
        assert!(found.remedy.starts_with("leave a core out"), "{found:?}");
        assert!(found.settings.is_empty());
    }
}

#[test]
fn the_readme_counts_the_checks() {
    let told = format!("{} checks, each with a remedy", checks::ALL.len());
    assert!(include_str!("../../../README.md").contains(&told), "{told}");
}
