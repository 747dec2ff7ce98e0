//! Network devices that say of themselves what a test wants.

use std::cell::RefCell;
use std::io;

use super::super::nic::{Feature, Ring, Rings};
use super::*;

/// Devices that all have the same.
#[derive(Debug)]
pub(super) struct Made {
    /// `None`: none speaks of them.
    features: Option<RefCell<BTreeMap<String, Feature>>>,
    rings: Option<Rings>,
}

const ON: Feature = Feature {
    on: true,
    changeable: true,
};
const OFF: Feature = Feature {
    on: false,
    changeable: true,
};
const NEVER: Feature = Feature {
    on: false,
    changeable: false,
};

impl Made {
    pub(super) fn mute() -> Rc<Self> {
        Rc::new(Self {
            features: None,
            rings: None,
        })
    }

    /// Everything on, but for `others`.
    fn new(others: &[(&str, Feature)]) -> Rc<Self> {
        let names = [
            "tx-checksum-ipv4",
            "tx-checksum-ip-generic",
            "tx-scatter-gather",
            "tx-generic-segmentation",
            "tx-tcp-segmentation",
            "tx-udp-segmentation",
            "rx-checksum",
            "rx-gro",
        ];
        let mut features: BTreeMap<_, _> = names.map(|name| (name.to_owned(), ON)).into();
        features.extend(others.iter().map(|(name, one)| ((*name).to_owned(), *one)));
        let ring = Ring {
            size: 1024,
            most: 4096,
        };
        Rc::new(Self {
            features: Some(RefCell::new(features)),
            rings: Some(Rings {
                receive: ring,
                send: ring,
                wait_us: Some(8),
                adaptive: false,
            }),
        })
    }

    /// All of them in that state.
    pub(super) fn all(state: Feature) -> Rc<Self> {
        let made = Self::new(&[]);
        if let Some(features) = &made.features {
            features
                .borrow_mut()
                .values_mut()
                .for_each(|one| *one = state);
        }
        made
    }

    fn with(change: impl FnOnce(&mut Rings)) -> Rc<Self> {
        let mut made = Self::new(&[]);
        let one = Rc::get_mut(&mut made).expect("ours alone");
        change(one.rings.as_mut().expect("they have some"));
        made
    }
}

impl Nics for Made {
    fn features(&self, _: &str) -> io::Result<BTreeMap<String, Feature>> {
        let features = self.features.as_ref();
        let features = features.ok_or(io::ErrorKind::Unsupported)?;
        Ok(features.borrow().clone())
    }

    fn rings(&self, _: &str) -> io::Result<Rings> {
        Ok(self.rings.ok_or(io::ErrorKind::Unsupported)?)
    }

    fn set(&self, _: &str, name: &str, on: bool) -> io::Result<()> {
        let features = self.features.as_ref();
        let mut features = features.ok_or(io::ErrorKind::Unsupported)?.borrow_mut();
        let feature = features.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
        if !feature.changeable {
            return Err(io::ErrorKind::Unsupported.into());
        }
        feature.on = on;
        Ok(())
    }
}

/// A host with that device, which has hardware behind it.
fn host_with(device: &str) -> super::Made {
    let host = super::Made::new(&GOOD);
    host.set(&format!("sys/class/net/{device}/device/vendor"), "0x1af4");
    host
}

#[test]
fn offloads_that_are_off_are_turned_on_and_off_again() {
    let made = host_with("eth0");
    let nics = Made::new(&[
        ("rx-gro", OFF),
        ("tx-tcp-segmentation", OFF),
        ("tx-udp-segmentation", NEVER),
    ]);
    let host = made.host(nics.clone());
    let found = host.examine(&plan());
    let of = |id| found.iter().find(|one| one.id == id).expect("a check");
    let found_off = of("nic-offloads");
    assert_eq!(found_off.severity, Severity::Advice);
    assert_eq!(
        found_off.current, "eth0: off: tx-tcp-segmentation, rx-gro",
        "datagrams are not sent here, so their cutting is no matter"
    );
    assert_eq!(
        found_off.remedy,
        "ethtool -K eth0 tx-tcp-segmentation on && ethtool -K eth0 rx-gro on"
    );
    let settings = found_off.json()["settings"].clone();
    assert_eq!(settings[1]["device"], "eth0");
    assert_eq!(settings[1]["feature"], "rx-gro");
    let script = tune::script(&host, std::slice::from_ref(found_off), Severity::Advice);
    let lines = "ethtool -K eth0 rx-gro on\n# to undo: ethtool -K eth0 rx-gro off\n";
    assert!(script.contains(lines), "{script}");

    let journal = made.0.join("tune.journal");
    let settings: Vec<_> = found_off.settings.iter().collect();
    let done = tune::apply(&host, &journal, &settings).expect("both can be changed");
    assert_eq!(done.len(), 2);
    let again = host.examine(&plan());
    let again = again.iter().find(|one| one.id == "nic-offloads");
    assert_eq!(again.map(|one| one.severity), Some(Severity::Fine));
    assert!(
        tune::apply(&host, &journal, &settings)
            .expect("nothing to do")
            .is_empty()
    );
    assert_eq!(tune::revert(&host, &journal).expect("whole").len(), 2);
    let features = nics.features("eth0").expect("it speaks");
    assert_eq!(
        [features["rx-gro"].on, features["rx-checksum"].on],
        [false, true]
    );
}

#[test]
fn journals_of_before_there_were_features_can_be_taken_back() {
    let made = super::Made::new(&[("proc/sys/net/core/somaxconn", "4096\n")]);
    made.set(
        "tune.journal",
        "{\"path\":\"proc/sys/net/core/somaxconn\",\"before\":\"128\",\"after\":\"4096\"}\n",
    );
    let host = made.host(Made::mute());
    let back = tune::revert(&host, &made.0.join("tune.journal")).expect("a journal");
    assert_eq!(back[0].place, Place::file("proc/sys/net/core/somaxconn"));
    assert_eq!(host.number("proc/sys/net/core/somaxconn"), Some(128));
}

#[test]
fn with_datagrams_offloads_are_more_than_advice() {
    let made = host_with("eth0");
    let plan = Plan {
        datagrams: true,
        ..plan()
    };
    let none = [
        ("tx-checksum-ipv4", NEVER),
        ("tx-checksum-ip-generic", OFF),
        ("tx-udp-segmentation", NEVER),
    ];
    let found = made.look_with(&plan, Made::new(&none));
    let found = &found["nic-offloads"];
    assert_eq!(found.severity, Severity::Warning);
    assert_eq!(
        found.current,
        "eth0: off: tx-checksum-ip-generic; cannot: tx-udp-segmentation"
    );
    // What cannot be turned on is said, and nothing more.
    let found = made.look_with(&plan, Made::new(&none[2..]));
    assert_eq!(found["nic-offloads"].severity, Severity::Fine);
    assert_eq!(
        found["nic-offloads"].current,
        "eth0: cannot: tx-udp-segmentation"
    );
}

#[test]
fn devices_without_hardware_or_without_an_answer_are_no_matter() {
    let off = Made::new(&[("rx-gro", OFF)]);
    let soft = super::Made::new(&GOOD);
    soft.set("sys/class/net/veth0/mtu", "1500");
    soft.set("sys/class/net/lo/device/vendor", "none");
    let down = host_with("eth1");
    down.set("sys/class/net/eth1/operstate", "down\n");
    for host in [soft, down] {
        let found = host.look_with(&plan(), off.clone());
        for id in ["nic-offloads", "nic-rings"] {
            assert_eq!(found[id].severity, Severity::Fine);
            assert_eq!(found[id].current, "no device with hardware behind it");
        }
    }
    let found = host_with("eth0").look_with(&plan(), Made::mute());
    for id in ["nic-offloads", "nic-rings"] {
        assert_eq!(found[id].severity, Severity::Unknown);
        assert!(
            found[id].current.starts_with("eth0 does not say: "),
            "{:?}",
            found[id]
        );
    }
}

#[test]
fn small_rings_and_late_interrupts_are_told() {
    let made = host_with("eth0");
    let rings = |nics| made.look_with(&plan(), nics)["nic-rings"].clone();
    assert_eq!(rings(Made::new(&[])).severity, Severity::Fine);
    let small = rings(Made::with(|rings| rings.receive.size = 256));
    assert_eq!(small.severity, Severity::Advice);
    assert_eq!(small.remedy, "ethtool -G eth0 rx 1024");
    // As large as it can be.
    let most = Ring {
        size: 256,
        most: 256,
    };
    let found = rings(Made::with(|rings| rings.receive = most));
    assert_eq!(found.severity, Severity::Fine);
    let late = rings(Made::with(|rings| rings.wait_us = Some(250)));
    assert_eq!(late.remedy, "ethtool -C eth0 rx-usecs 100");
    let chosen = rings(Made::with(|rings| {
        rings.wait_us = Some(250);
        rings.adaptive = true;
    }));
    assert_eq!(chosen.severity, Severity::Fine, "{chosen:?}");
}
