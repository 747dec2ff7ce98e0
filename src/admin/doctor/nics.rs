//! Checks of network devices that only the devices themselves answer: offloads, rings, coalescing.

use std::collections::BTreeMap;

use super::checks::{fine, has_sys, silent};
use super::devices::network;
use super::{Finding, Host, Place, Plan, Setting, Severity};
use crate::io::nic::Feature;

/// Any of these lets the device work out checksums of what is sent; the best first.
const CHECKSUMS: [&str; 3] = [
    "tx-checksum-ip-generic",
    "tx-checksum-ipv4",
    "tx-checksum-ipv6",
];
/// What should be on, each after what it needs.
const WANTED: [&str; 5] = [
    "tx-scatter-gather",
    "tx-generic-segmentation",
    "tx-tcp-segmentation",
    "rx-checksum",
    "rx-gro",
];
/// With datagrams also this: trains are cut by the device.
const CUT_DATAGRAMS: &str = "tx-udp-segmentation";
/// Received packets a ring should have room for, if the device can.
const RING_LEAST: u32 = 1024;
/// Microseconds that an interrupt may wait for further packets.
const WAIT_US_MAX: u32 = 100;

type Features = BTreeMap<String, Feature>;

/// Devices with hardware behind them, real or a hypervisor's, that are not down.
fn hardware(host: &Host) -> Vec<String> {
    let mut names = network(host);
    names.retain(|name| {
        let folder = format!("sys/class/net/{name}");
        host.root.join(format!("{folder}/device")).exists()
            && host.read(&format!("{folder}/operstate")).as_deref() != Some("down")
    });
    names
}

/// What should be on of `features` and is not, by what it takes: what can be turned on, what cannot.
fn off<'a>(features: &Features, plan: &Plan) -> (Vec<&'a str>, Vec<&'a str>) {
    let mut names = Vec::new();
    let is_on = |name: &&str| features.get(*name).is_some_and(|feature| feature.on);
    if !CHECKSUMS.iter().any(is_on) {
        let changeable = |name: &&str| features.get(*name).is_some_and(|one| one.changeable);
        names.push(
            CHECKSUMS
                .into_iter()
                .find(changeable)
                .unwrap_or(CHECKSUMS[0]),
        );
    }
    names.extend(WANTED.into_iter().filter(|name| !is_on(name)));
    names.extend(Some(CUT_DATAGRAMS).filter(|name| plan.datagrams && !is_on(name)));
    names
        .into_iter()
        .partition(|name| features.get(*name).is_some_and(|one| one.changeable))
}

pub(super) fn offloads(host: &Host, plan: &Plan) -> Finding {
    const ID: &str = "nic-offloads";
    const WHY: &str = "one large packet passes the kernel for the price of a small one; without \
                       checksums of the device, kernels before 6.11 refuse trains of datagrams";
    if !has_sys(host) {
        return silent(ID, WHY, "/sys/class/net cannot be read");
    }
    let (mut said, mut mute, mut due) = (Vec::new(), Vec::new(), Vec::new());
    for device in hardware(host) {
        let features = match host.nics.features(&device) {
            Ok(features) => features,
            Err(error) => {
                mute.push(format!("{device} does not say: {error}"));
                continue;
            }
        };
        let (can, cannot) = off(&features, plan);
        let mut words = Vec::new();
        if !can.is_empty() {
            words.push(format!("off: {}", can.join(", ")));
        }
        if !cannot.is_empty() {
            words.push(format!("cannot: {}", cannot.join(", ")));
        }
        if words.is_empty() {
            words.push("all that matter are on".to_owned());
        }
        said.push(format!("{device}: {}", words.join("; ")));
        due.extend(can.into_iter().map(|feature| (device.clone(), feature)));
    }
    if said.is_empty() {
        if mute.is_empty() {
            return fine(ID, WHY, "no device with hardware behind it");
        }
        return silent(ID, WHY, mute.join("; "));
    }
    said.append(&mut mute);
    let mut found = fine(ID, WHY, said.join("; "));
    if due.is_empty() {
        return found;
    }
    let severity = if plan.datagrams {
        Severity::Warning
    } else {
        Severity::Advice
    };
    let commands: Vec<_> = due
        .iter()
        .map(|(device, feature)| format!("ethtool -K {device} {feature} on"))
        .collect();
    let settings = due.into_iter().map(|(device, feature)| Setting {
        place: Place::Feature {
            device,
            feature: feature.to_owned(),
        },
        value: "on".to_owned(),
    });
    found.settings.extend(settings);
    found.wants(severity, "these on", commands.join(" && "))
}

pub(super) fn rings(host: &Host, _: &Plan) -> Finding {
    const ID: &str = "nic-rings";
    const WHY: &str = "what a ring has no room for is lost before a socket could take it; an \
                       interrupt that waits adds to every answer";
    if !has_sys(host) {
        return silent(ID, WHY, "/sys/class/net cannot be read");
    }
    let (mut said, mut mute, mut wanted, mut remedies) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for device in hardware(host) {
        let rings = match host.nics.rings(&device) {
            Ok(rings) => rings,
            Err(error) => {
                mute.push(format!("{device} does not say: {error}"));
                continue;
            }
        };
        let (receive, send) = (rings.receive, rings.send);
        let wait = match (rings.wait_us, rings.adaptive) {
            (_, true) => ", interrupts as the device sees fit".to_owned(),
            (Some(us), false) => format!(", interrupts after {us} us"),
            (None, false) => String::new(),
        };
        said.push(format!(
            "{device}: {} of {} to receive, {} of {} to send{wait}",
            receive.size, receive.most, send.size, send.most
        ));
        let least = RING_LEAST.min(receive.most);
        if receive.size < least {
            wanted.push(format!("{least} or more to receive"));
            remedies.push(format!("ethtool -G {device} rx {least}"));
        }
        if !rings.adaptive && rings.wait_us.is_some_and(|us| us > WAIT_US_MAX) {
            wanted.push(format!("interrupts after at most {WAIT_US_MAX} us"));
            remedies.push(format!("ethtool -C {device} rx-usecs {WAIT_US_MAX}"));
        }
    }
    if said.is_empty() {
        if mute.is_empty() {
            return fine(ID, WHY, "no device with hardware behind it");
        }
        return silent(ID, WHY, mute.join("; "));
    }
    said.append(&mut mute);
    let found = fine(ID, WHY, said.join("; "));
    if wanted.is_empty() {
        return found;
    }
    found.wants(Severity::Advice, wanted.join("; "), remedies.join(" && "))
}
