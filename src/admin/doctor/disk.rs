//! Checks of the disk under the store: what holds it, its queue, its write cache, its node.

use std::collections::BTreeSet;

use super::checks::{cpu_list, fine, has_sys, list, silent, unknown};
use super::devices::network;
use super::{Finding, Host, Plan, Severity};

const MOUNTS: &str = "proc/self/mountinfo";

/// What the store's directory lies on.
struct Mount {
    /// The number of the device, `8:1`.
    device: String,
    point: String,
    kind: String,
    /// Options of the mount and of the file system, joined by commas.
    options: String,
}

/// `None` where the host does not say.
fn mount(host: &Host, plan: &Plan) -> Option<Mount> {
    let store = plan.store.to_string_lossy();
    let mut best: Option<Mount> = None;
    for line in host.read(MOUNTS)?.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let mut left = left.split(' ');
        let (Some(device), Some(point), own) = (left.nth(2), left.nth(1), left.next()) else {
            continue;
        };
        let mut right = right.split(' ');
        let kind = right.next().unwrap_or_default();
        let inside = point == "/"
            || store == point
            || store
                .strip_prefix(point)
                .is_some_and(|rest| rest.starts_with('/'));
        if inside
            && best
                .as_ref()
                .is_none_or(|known| known.point.len() <= point.len())
        {
            best = Some(Mount {
                device: device.to_owned(),
                point: point.to_owned(),
                kind: kind.to_owned(),
                options: format!(
                    "{},{}",
                    own.unwrap_or_default(),
                    right.nth(1).unwrap_or_default()
                ),
            });
        }
    }
    best
}

/// The folder of the whole disk that `device`, perhaps a part of it, is on.
fn whole(host: &Host, device: &str) -> Option<String> {
    let own = format!("sys/dev/block/{device}");
    let outer = format!("{own}/..");
    [own, outer]
        .into_iter()
        .find(|folder| !host.names(&format!("{folder}/queue")).is_empty())
}

/// The node of what is at `path` or of what it hangs on; `None`: of none.
pub(super) fn node_of(host: &Host, path: &str) -> Option<u64> {
    let root = host.root.canonicalize().ok()?;
    let mut folder = host.root.join(path).canonicalize().ok()?;
    while folder.starts_with(&root) && folder != root {
        let text = std::fs::read_to_string(folder.join("numa_node")).unwrap_or_default();
        // -1, which is no number here: of no node.
        if let Ok(node) = text.trim().parse() {
            return Some(node);
        }
        folder.pop();
    }
    None
}

pub(super) fn disk(host: &Host, plan: &Plan) -> Finding {
    const WHY: &str = "a 202 promises that the message survives a power cut";
    let Some(mount) = mount(host, plan) else {
        return unknown("disk", WHY, MOUNTS);
    };
    let folder = whole(host, &mount.device);
    let queue = |name: &str| {
        let folder = folder.as_deref()?;
        host.read(&format!("{folder}/queue/{name}"))
    };
    let scheduler = queue("scheduler").unwrap_or_else(|| "?".to_owned());
    let found = fine(
        "disk",
        WHY,
        format!(
            "{} on {}: {}, scheduler {scheduler}",
            plan.store.display(),
            mount.point,
            mount.kind
        ),
    );
    match (mount.kind.as_str(), folder) {
        ("ext4" | "xfs", Some(folder)) => judge_queue(host, &folder, found),
        ("ext4" | "xfs", None) => found,
        ("tmpfs" | "ramfs", _) => found.wants(
            Severity::Critical,
            "ext4 or XFS on a disk",
            "store.dir on a disk: memory does not survive",
        ),
        ("btrfs" | "zfs" | "f2fs", _) => found.wants(
            Severity::Advice,
            "ext4 or XFS",
            "not tested there: measure `volley-loadgen` and run `volley chaos` first",
        ),
        _ => found.wants(
            Severity::Warning,
            "ext4 or XFS on a local disk",
            "put store.dir on a local file system that takes O_DIRECT",
        ),
    }
}

/// The scheduler of the disk in `folder`.
fn judge_queue(host: &Host, folder: &str, found: Finding) -> Finding {
    let file = format!("{folder}/queue/scheduler");
    let Some(scheduler) = host.read(&file) else {
        return found;
    };
    let rotates = host.number(&format!("{folder}/queue/rotational")) == Some(1);
    let (slow, wanted) = if rotates {
        (scheduler.contains("[none]"), "mq-deadline")
    } else {
        (
            scheduler.contains("[bfq]") || scheduler.contains("[kyber]"),
            "none",
        )
    };
    if !slow || !scheduler.contains(wanted) {
        return found;
    }
    let remedy = format!("echo {wanted} > /{file}: the store writes in order, and waits for syncs");
    found
        .wants(Severity::Advice, format!("scheduler {wanted}"), remedy)
        .by(file, wanted)
}

/// Whether a sync reaches what survives a power cut: the kernel flushes only a cache that it knows of.
pub(super) fn cache(host: &Host, plan: &Plan) -> Finding {
    const ID: &str = "disk-cache";
    const WHY: &str =
        "a 202 is sent after a sync; it holds as far as the sync empties the disk's cache";
    let Some(mount) = mount(host, plan) else {
        return unknown(ID, WHY, MOUNTS);
    };
    let off = |option: &str| matches!(option, "nobarrier" | "barrier=0");
    if let Some(option) = mount.options.split(',').find(|option| off(option)) {
        let found = fine(ID, WHY, format!("{} is mounted with {option}", mount.point));
        return found.wants(
            Severity::Critical,
            "syncs that flush the disk's cache",
            format!(
                "mount -o remount,barrier=1 {}, and mend /etc/fstab",
                mount.point
            ),
        );
    }
    let Some(folder) = whole(host, &mount.device) else {
        return silent(
            ID,
            WHY,
            format!("the disk under {} cannot be read", mount.point),
        );
    };
    let file = format!("{folder}/queue/write_cache");
    let Some(known) = host.read(&file) else {
        return unknown(ID, WHY, &file);
    };
    if known != "write through" {
        let forced = match host.number(&format!("{folder}/queue/fua")) {
            Some(1) => "; single writes can be forced (FUA)",
            Some(_) => "; no FUA, so a commit of the file system's journal flushes twice",
            None => "",
        };
        return fine(ID, WHY, format!("{known}: syncs flush it{forced}"));
    }
    let said = said_by_device(host, &folder);
    if said
        .as_deref()
        .is_some_and(|said| said.starts_with("write back"))
    {
        let text = "write through, but the disk itself says write back: syncs flush nothing";
        return fine(ID, WHY, text)
            .wants(
                Severity::Critical,
                "write back: syncs flush it",
                format!("echo 'write back' > /{file}"),
            )
            .by(file, "write back");
    }
    let model = host.read(&format!("{folder}/device/modalias"));
    if model.is_some_and(|model| model.starts_with("virtio:")) {
        let text = "write through: a virtual disk that takes no flush";
        return fine(ID, WHY, text).wants(
            Severity::Advice,
            "a virtual disk that takes flushes, or certainty that it has no cache",
            "ask whoever runs the hypervisor whether a write survives its power cut; let the disk offer \
             flushes (QEMU: cache=none or writeback, Firecracker: cache_type Writeback)",
        );
    }
    fine(
        ID,
        WHY,
        "write through: no cache, or one that survives a power cut; syncs need no flush",
    )
}

/// What virtio and SCSI disks say of their cache, whatever the kernel was told about it.
fn said_by_device(host: &Host, folder: &str) -> Option<String> {
    if let Some(said) = host.read(&format!("{folder}/cache_type")) {
        return Some(said);
    }
    let scsi = format!("{folder}/device/scsi_disk");
    let name = host.names(&scsi).into_iter().next()?;
    host.read(&format!("{scsi}/{name}/cache_type"))
}

/// Whether the disk is on the node of the shards, and of the network devices.
pub(super) fn near(host: &Host, plan: &Plan) -> Finding {
    const ID: &str = "numa-disk";
    const WHY: &str =
        "records go from a shard's memory to the disk, and the disk's interrupts wake the shard";
    if !has_sys(host) {
        return silent(ID, WHY, "nodes of devices cannot be read");
    }
    let node = mount(host, plan)
        .and_then(|mount| whole(host, &mount.device))
        .and_then(|folder| node_of(host, &folder));
    let Some(node) = node else {
        return fine(ID, WHY, "the disk is of no node");
    };
    let cpus = |node: u64| {
        let cpus = host.read(&format!("sys/devices/system/node/node{node}/cpulist"));
        cpus.map(|text| cpu_list(&text)).unwrap_or_default()
    };
    let online = host.read("sys/devices/system/node/online");
    let shards: BTreeSet<_> = cpu_list(&online.unwrap_or_default())
        .into_iter()
        .filter(|&node| {
            let cpus = cpus(node as u64);
            plan.pin.iter().any(|cpu| cpus.contains(cpu))
        })
        .collect();
    let mut text = format!("the store's disk is on node {node}");
    for device in network(host) {
        if let Some(node) = node_of(host, &format!("sys/class/net/{device}/device")) {
            text.push_str(&format!(", {device} on {node}"));
        }
    }
    if shards.is_empty() {
        return fine(ID, WHY, format!("{text}; the shards are tied to none"));
    }
    let found = fine(
        ID,
        WHY,
        format!("{text}, shards on {}", list(shards.iter().copied())),
    );
    if shards.iter().any(|&shard| shard as u64 == node) {
        return found;
    }
    found.wants(
        Severity::Advice,
        "network device, shards and disk on one node",
        format!(
            "the network device comes first: store.dir on a disk of the shards' node, or all three on node {node} \
             (node.pin of CPUs {})",
            list(cpus(node))
        ),
    )
}
