//! What a sync of the store is worth, and where its disk is.

use std::os::unix::fs::symlink;

use super::*;

const QUEUE: &str = "sys/dev/block/254:0/queue";

fn cache(made: &Made) -> Finding {
    made.look(&plan())["disk-cache"].clone()
}

#[test]
fn a_cache_that_is_flushed_is_fine_with_or_without_fua() {
    let made = Made::new(&GOOD);
    made.set(&format!("{QUEUE}/fua"), "0\n");
    let found = cache(&made);
    assert_eq!(found.severity, Severity::Fine);
    assert!(found.current.contains("flushes twice"), "{found:?}");
    made.set(&format!("{QUEUE}/fua"), "1\n");
    assert!(cache(&made).current.contains("(FUA)"));
    made.set(&format!("{QUEUE}/write_cache"), "write through\n");
    assert_eq!(cache(&made).severity, Severity::Fine, "no cache at all");
}

#[test]
fn a_cache_that_the_kernel_was_told_not_to_know_is_critical() {
    for said in ["cache_type", "device/scsi_disk/0:0:0:0/cache_type"] {
        let made = Made::new(&GOOD);
        let file = format!("{QUEUE}/write_cache");
        made.set(&file, "write through\n");
        made.set(&format!("sys/dev/block/254:0/{said}"), "write back\n");
        let found = cache(&made);
        assert_eq!(found.severity, Severity::Critical, "{said}");
        assert_eq!(found.settings[0].place, Place::file(file));
        assert_eq!(found.settings[0].value, "write back");
    }
}

#[test]
fn a_virtual_disk_without_flushes_is_to_be_asked_about() {
    let made = Made::new(&GOOD);
    made.set(&format!("{QUEUE}/write_cache"), "write through\n");
    made.set("sys/dev/block/254:0/cache_type", "write through\n");
    made.set(
        "sys/dev/block/254:0/device/modalias",
        "virtio:d00000002v00001AF4\n",
    );
    let found = cache(&made);
    assert_eq!(found.severity, Severity::Advice);
    assert!(found.remedy.contains("hypervisor"), "{found:?}");
}

#[test]
fn a_file_system_that_flushes_nothing_is_critical() {
    for mounted in [
        "rw,relatime - ext4 /dev/vda rw,nobarrier",
        "rw,barrier=0 - ext4 /dev/vda rw",
    ] {
        let made = Made::new(&GOOD);
        made.set(
            "proc/self/mountinfo",
            &format!("25 1 254:0 / / {mounted}\n"),
        );
        let found = cache(&made);
        assert_eq!(found.severity, Severity::Critical, "{mounted}");
        assert!(found.remedy.contains("barrier=1"));
    }
    // Of another file system it is no matter.
    let made = Made::new(&GOOD);
    let both =
        "25 1 254:0 / / rw - ext4 /dev/vda rw\n26 25 8:1 / /mnt rw - ext4 /dev/sda rw,nobarrier\n";
    made.set("proc/self/mountinfo", both);
    assert_eq!(cache(&made).severity, Severity::Fine);
}

#[test]
fn a_part_of_a_disk_has_the_cache_of_the_whole() {
    let made = Made::new(&GOOD);
    made.set(
        "proc/self/mountinfo",
        "25 1 8:1 / / rw - ext4 /dev/sda1 rw\n",
    );
    made.set("sys/devices/pci/sda/sda1/partition", "1\n");
    made.set("sys/devices/pci/sda/queue/write_cache", "write through\n");
    made.set("sys/devices/pci/sda/cache_type", "write back\n");
    let link = made.0.join("sys/dev/block/8:1");
    symlink("../../devices/pci/sda/sda1", link).expect("writable");
    assert_eq!(cache(&made).severity, Severity::Critical);
}

#[test]
fn devices_of_another_node_are_found_by_what_they_hang_on() {
    let made = Made::new(&GOOD);
    made.set("sys/devices/system/node/online", "0-1\n");
    made.set("sys/devices/system/node/node0/cpulist", "2-3\n");
    made.set("sys/devices/system/node/node1/cpulist", "0-1\n");
    made.set("sys/devices/pci/3/numa_node", "1\n");
    made.set("sys/devices/pci/3/virtio2/vendor", "0x1af4\n");
    made.set("sys/dev/block/254:0/device/numa_node", "-1\n");
    made.set("sys/class/net/eth0/mtu", "1500\n");
    let device = "../../../devices/pci/3/virtio2";
    symlink(device, made.0.join("sys/class/net/eth0/device")).expect("writable");
    let found = made.look(&plan());
    assert_eq!(
        found["numa-devices"].severity,
        Severity::Advice,
        "the device of the network"
    );
    assert_eq!(found["numa-disk"].severity, Severity::Fine);
    assert_eq!(found["numa-disk"].current, "the disk is of no node");

    made.set("sys/dev/block/254:0/numa_node", "1\n");
    let found = &made.look(&plan())["numa-disk"];
    assert_eq!(found.severity, Severity::Advice);
    let told = "the store's disk is on node 1, eth0 on 1, shards on 0";
    assert_eq!(found.current, told);
    assert!(found.remedy.contains("node.pin of CPUs 0,1"), "{found:?}");
    let both = Plan {
        pin: vec![0, 2],
        ..plan()
    };
    assert_eq!(made.look(&both)["numa-disk"].severity, Severity::Fine);
}
