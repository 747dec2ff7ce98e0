//! What a network device does for the engine in hardware: offloads, rings, coalescing. `/sys` does not say.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd as _;

use super::sys::ethtool;

/// One feature of a device, by the name that `ethtool -k` gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// It is on.
    pub on: bool,
    /// It can be turned on and off.
    pub changeable: bool,
}

/// A ring of descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ring {
    /// Descriptors in use.
    pub size: u32,
    /// The most the device can have.
    pub most: u32,
}

/// What a device says of its rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rings {
    /// Of received packets.
    pub receive: Ring,
    /// Of packets to be sent.
    pub send: Ring,
    /// Microseconds an interrupt waits for further packets; `None`: not said.
    pub wait_us: Option<u32>,
    /// The device chooses that wait itself.
    pub adaptive: bool,
}

/// Where devices are asked and told. The kernel is one such place; tests have others.
pub trait Nics: core::fmt::Debug {
    /// Features of `device` by name.
    ///
    /// # Errors
    /// What the system said: a device that is not there, or does not speak of it.
    fn features(&self, device: &str) -> io::Result<BTreeMap<String, Feature>>;

    /// Rings of `device`.
    ///
    /// # Errors
    /// As with features; many devices made of software have none.
    fn rings(&self, device: &str) -> io::Result<Rings>;

    /// Turns a feature on or off.
    ///
    /// # Errors
    /// No such feature, one that cannot be changed, or no right to.
    fn set(&self, device: &str, feature: &str, on: bool) -> io::Result<()>;
}

/// The devices of the network we are in.
#[derive(Clone, Copy, Debug)]
pub struct Kernel;

/// Any socket will do.
fn socket() -> io::Result<socket2::Socket> {
    socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::DGRAM, None)
}

impl Nics for Kernel {
    fn features(&self, device: &str) -> io::Result<BTreeMap<String, Feature>> {
        let socket = socket()?;
        let names = ethtool::feature_names(socket.as_fd(), device)?;
        let blocks = ethtool::features(socket.as_fd(), device, names.len())?;
        let of = |(bit, name): (usize, String)| {
            let [available, _, active, never] = *blocks.get(bit / 32)?;
            let is_in = |word: u32| word >> (bit % 32) & 1 == 1;
            let feature = Feature {
                on: is_in(active),
                changeable: is_in(available) && !is_in(never),
            };
            (!name.is_empty()).then_some((name, feature))
        };
        Ok(names.into_iter().enumerate().filter_map(of).collect())
    }

    fn rings(&self, device: &str) -> io::Result<Rings> {
        let socket = socket()?;
        let [receive, send] =
            ethtool::rings(socket.as_fd(), device)?.map(|[size, most]| Ring { size, most });
        let coalescing = ethtool::coalescing(socket.as_fd(), device).ok();
        Ok(Rings {
            receive,
            send,
            wait_us: coalescing.map(|(wait_us, _)| wait_us),
            adaptive: coalescing.is_some_and(|(_, adaptive)| adaptive),
        })
    }

    fn set(&self, device: &str, feature: &str, on: bool) -> io::Result<()> {
        let socket = socket()?;
        let names = ethtool::feature_names(socket.as_fd(), device)?;
        let bit = names.iter().position(|name| name == feature);
        let bit = bit.ok_or(io::ErrorKind::NotFound)?;
        ethtool::set_feature(socket.as_fd(), device, (bit, names.len()), on)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_says_what_it_does_and_others_that_they_are_not_there() {
        // A sandbox with a network stack of its own may not know the question.
        let Ok(features) = Kernel.features("lo") else {
            println!("SKIPPED: the loopback here does not speak of features");
            return;
        };
        assert!(features.contains_key("rx-gro"), "{features:?}");
        assert!(features.contains_key("tx-tcp-segmentation"), "{features:?}");
        let loopback = features["loopback"];
        assert!(loopback.on && !loopback.changeable, "{loopback:?}");
        for device in ["", "none-such", "a name that no device can have"] {
            assert!(Kernel.features(device).is_err(), "{device}");
            assert!(Kernel.rings(device).is_err(), "{device}");
        }
        let error = Kernel.set("lo", "no-such", true).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    #[ignore = "started by the test below, in a network of its own"]
    fn child_turns_features_of_its_loopback_off_and_on() {
        let is_on = |feature: &str| Kernel.features("lo").unwrap()[feature].on;
        for feature in ["rx-gro", "tx-tcp-segmentation"] {
            assert!(is_on(feature), "{feature}");
            Kernel.set("lo", feature, false).unwrap();
            assert!(!is_on(feature), "{feature}");
            Kernel.set("lo", feature, true).unwrap();
            assert!(is_on(feature), "{feature}");
        }
        let error = Kernel.set("lo", "loopback", false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert!(is_on("loopback"));
    }

    #[test]
    fn features_are_turned_off_and_on() {
        let inside = |command: &mut std::process::Command| command.output().ok();
        let unshare = || {
            let mut command = std::process::Command::new("unshare");
            command.arg("-n");
            command
        };
        // Who may not have a network of his own may not set anything either.
        if !inside(unshare().arg("true")).is_some_and(|output| output.status.success())
            || Kernel.features("lo").is_err()
        {
            println!("SKIPPED: no network of our own to change");
            return;
        }
        let child = "io::nic::tests::child_turns_features_of_its_loopback_off_and_on";
        let own = std::env::current_exe().unwrap();
        let output = inside(unshare().arg(own).args(["--ignored", "--exact", child])).unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{text}"
        );
    }
}
