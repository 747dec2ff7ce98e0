//! The profiles under `tuning/` set what the checks want and `volley tune` writes, and nothing else.

use super::super::nic::Feature;
use super::*;

const SYSCTL: &str = include_str!("../../../../tuning/sysctl.d/volley.conf");
const TUNED: &str = include_str!("../../../../tuning/tuned/volley/tuned.conf");
const UDEV: &str = include_str!("../../../../tuning/udev/90-volley.rules");
const SERVICE: &str = include_str!("../../../../tuning/systemd/volley.service");
const SLICE: &str = include_str!("../../../../tuning/systemd/volley.slice");

/// Lines of a file of sections that say something, as `section.key` and value; keys may repeat in no section.
fn keys(text: &str) -> Vec<(String, String)> {
    let mut section = String::new();
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            section = format!("{name}:");
            continue;
        }
        let (key, value) = line
            .split_once('=')
            .unwrap_or_else(|| panic!("no line of a profile: {line}"));
        let key = format!("{section}{}", key.trim());
        let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(found.iter().all(|(other, _)| *other != key), "{key} twice");
        found.push((key, value));
    }
    found
}

/// A host on which everything is wrong that can be set, as `volley tune` sees it.
fn wrong() -> Made {
    let made = Made::new(&GOOD);
    for (file, value) in [
        ("kernel/io_uring_disabled", "2"),
        ("kernel/numa_balancing", "1"),
        ("net/core/somaxconn", "128"),
        ("net/core/rmem_max", "212992"),
        ("net/core/wmem_max", "212992"),
        ("net/core/busy_poll", "50"),
        ("net/core/busy_read", "50"),
        ("net/ipv4/tcp_wmem", "4096 16384 65536"),
        ("net/ipv4/ip_local_port_range", "50000 50100"),
        ("vm/swappiness", "60"),
    ] {
        made.set(&format!("proc/sys/{file}"), value);
    }
    made.set("proc/swaps", "Filename Type\n/dev/vdb partition 1 0 -2");
    made.set("sys/devices/system/node/online", "0-1\n");
    let thp = "sys/kernel/mm/transparent_hugepage/enabled";
    made.set(thp, "[always] madvise never\n");
    let governor = "sys/devices/system/cpu/cpu2/cpufreq/scaling_governor";
    made.set(governor, "powersave\n");
    made.set("sys/class/net/eth0/device/vendor", "0x1af4\n");
    made
}

/// What would be written there.
fn written(made: &Made, nics: Rc<nics::Made>, rotates: bool) -> Vec<(Place, String)> {
    let queue = "sys/dev/block/254:0/queue";
    let (selected, rotational) = if rotates {
        ("[none] mq-deadline bfq", "1")
    } else {
        ("none mq-deadline [bfq]", "0")
    };
    made.set(&format!("{queue}/scheduler"), selected);
    made.set(&format!("{queue}/rotational"), rotational);
    let mut host = made.host(nics);
    host.ring = Err("forbidden".into());
    let plan = Plan {
        datagrams: true,
        ..plan()
    };
    let found = host.examine(&plan);
    let settings = tune::settings(&found, Severity::Advice);
    let pair = |one: &Setting| (one.place.clone(), one.value.clone());
    settings.into_iter().map(pair).collect()
}

fn all_off() -> Rc<nics::Made> {
    let off = Feature {
        on: false,
        changeable: true,
    };
    nics::Made::all(off)
}

#[test]
fn every_sysctl_has_one_value_in_both_profiles_and_in_what_tune_writes() {
    let of_file = keys(SYSCTL);
    let of_tuned: Vec<_> = keys(TUNED)
        .into_iter()
        .filter_map(|(key, value)| Some((key.strip_prefix("sysctl:")?.to_owned(), value)))
        .collect();
    assert_eq!(of_file, of_tuned);
    let mut of_tune = Vec::new();
    for (place, value) in written(&wrong(), nics::Made::mute(), false) {
        if let Some(file) = place.to_string().strip_prefix("/proc/sys/") {
            of_tune.push((file.replace('/', "."), value));
        }
    }
    let sorted = |mut all: Vec<(String, String)>| {
        all.sort();
        all
    };
    assert_eq!(sorted(of_tune), sorted(of_file));
}

#[test]
fn a_host_with_the_profile_of_sysctls_gets_no_advice_about_them() {
    let made = wrong();
    for (key, value) in keys(SYSCTL) {
        made.set(&format!("proc/sys/{}", key.replace('.', "/")), &value);
    }
    let places = made.host(nics::Made::mute()).examine(&plan());
    let places = tune::settings(&places, Severity::Advice);
    let sysctls: Vec<_> = places
        .iter()
        .map(|setting| setting.place.to_string())
        .filter(|place| place.starts_with("/proc/sys/"))
        .collect();
    assert!(sysctls.is_empty(), "{sysctls:?}");
}

#[test]
fn the_tuned_profile_sets_pages_governor_and_idle_states_as_the_checks_want_them() {
    let made = wrong();
    let all = written(&made, all_off(), false);
    let of = |end: &str| {
        let found = all
            .iter()
            .find(|(place, _)| place.to_string().ends_with(end));
        found.map(|(_, value)| value.clone())
    };
    let tuned: BTreeMap<_, _> = keys(TUNED).into_iter().collect();
    let key = |key: &str| tuned.get(key).cloned();
    let pages = key("vm:transparent_hugepages");
    assert_eq!(pages, of("transparent_hugepage/enabled"));
    assert_eq!(key("cpu:governor"), of("scaling_governor"));
    assert_eq!(
        key("cpu:force_latency"),
        Some(devices::WAKE_US_MAX.to_string())
    );
    // tuned has its own names for some, by which it finds them in the output of ethtool.
    let short = |feature: &str| {
        let names = [
            ("tx-checksum-ip-generic", "tx"),
            ("tx-scatter-gather", "sg"),
            ("tx-generic-segmentation", "gso"),
            ("tx-tcp-segmentation", "tso"),
            ("rx-checksum", "rx"),
            ("rx-gro", "gro"),
        ];
        let known = names.iter().find(|(name, _)| *name == feature);
        known.map_or_else(|| feature.to_owned(), |(_, short)| (*short).to_owned())
    };
    let mut wanted: Vec<_> = features(&all).iter().map(|name| short(name)).collect();
    let listed = key("net:features").expect("a list");
    let words: Vec<_> = listed.split(' ').collect();
    let mut set: Vec<_> = words.chunks(2).map(|pair| pair[0].to_owned()).collect();
    assert!(words.chunks(2).all(|pair| pair[1] == "on"), "{listed}");
    wanted.sort();
    set.sort();
    assert_eq!(set, wanted);
}

/// Features that are turned on, in order.
fn features(all: &[(Place, String)]) -> Vec<String> {
    let names = all.iter().filter_map(|(place, value)| match place {
        Place::Feature { feature, .. } if value == "on" => Some(feature.clone()),
        Place::Feature { .. } | Place::File { .. } => None,
    });
    names.collect()
}

#[test]
fn the_rules_of_udev_set_what_the_checks_want_of_disks_and_network_devices() {
    let rules: Vec<_> = UDEV
        .replace("\\\n", " ")
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    for rotates in [false, true] {
        let all = written(&wrong(), all_off(), rotates);
        let disk = all
            .iter()
            .find(|(place, _)| place.to_string().ends_with("/scheduler"));
        let (_, scheduler) = disk.expect("it is wrong there");
        let kind = format!("ATTR{{queue/rotational}}==\"{}\"", u8::from(rotates));
        let set = format!("ATTR{{queue/scheduler}}=\"{scheduler}\"");
        let rule = rules
            .iter()
            .find(|rule| rule.contains(&kind))
            .expect("a rule for each kind");
        assert!(rule.ends_with(&set), "{rule}");
        let commands: Vec<_> = rules
            .iter()
            .flat_map(|rule| rule.split("RUN+=\"/usr/sbin/ethtool -K $name ").skip(1))
            .filter_map(|rest| Some(rest.split_once(" on\"")?.0.to_owned()))
            .collect();
        let mut wanted = features(&all);
        // Which kind of checksum a device has is ethtool's to know.
        assert_eq!(wanted.remove(0), "tx-checksum-ip-generic");
        wanted.insert(0, "tx".to_owned());
        assert_eq!(commands, wanted);
    }
    // A rule is matches, then assignments, each with its operator and a quoted value.
    for rule in &rules {
        for part in rule.split(", ") {
            let part = part.trim();
            let whole =
                part.ends_with('"') && part.matches('"').count() == 2 && part.contains("=\"");
            assert!(whole, "{part}");
        }
    }
}

#[test]
fn the_unit_and_its_slice_give_what_the_checks_and_the_defaults_want() {
    let service: BTreeMap<_, _> = keys(SERVICE).into_iter().collect();
    let slice: BTreeMap<_, _> = keys(SLICE).into_iter().collect();
    assert_eq!(service["Service:Slice"], "volley.slice");
    // Eight shards.
    let files: u64 = service["Service:LimitNOFILE"].parse().expect("a number");
    let limits = crate::config::file::Limits::default();
    assert!(crate::admin::options::descriptors(8, &limits) <= files);
    let memory = service["Service:LimitMEMLOCK"]
        .strip_suffix('M')
        .expect("MiB");
    let shards = memory.parse::<u64>().expect("a number") / 8;
    assert!(shards >= 8, "8 MiB a shard");
    assert_eq!(slice["Slice:MemorySwapMax"], "0");
    for quota in ["CPUQuota", "MemoryMax", "IOWriteBandwidthMax"] {
        assert!(!slice.contains_key(&format!("Slice:{quota}")), "{quota}");
        assert!(
            !service.contains_key(&format!("Service:{quota}")),
            "{quota}"
        );
    }
}
