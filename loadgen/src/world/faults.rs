//! A registrar that does not only show full state: partial documents, gaps, old versions, refreshes,
//! contacts that are gone or have no GRUU, storms, subscriptions that end.
//!
//! What it does with a user's nth trigger is drawn from the seed. In `signalling` the trigger is the
//! fault: either pushes to some devices are due and to no other, or none is due until a good NOTIFY
//! follows. Otherwise the fault follows the first NOTIFY, and every message must come once all the same.

use core::fmt::Write as _;

use std::collections::VecDeque;

use super::{World, device_key};
use crate::behaviour::Registrar;
use crate::forms::{Contact, Shape};
use crate::rules::Rule;
use crate::scenario::Kind;

/// How long nothing may follow a fault that triggers nothing, nanoseconds.
const QUIET: u64 = 100_000_000;
/// How long a refresh of the subscription may take after a gap, nanoseconds.
const REFRESH: u64 = 5_000_000_000;
/// `retry-after` of a subscription that ends for a while, seconds.
const RETRY_AFTER: u64 = 1;
/// Subscription-State of a document that ends nothing.
const ACTIVE: &[u8] = b"active;expires=599999";
/// Documents of a storm.
const STORM: u32 = 8;
/// After so long without a push the engine may try again by itself, nanoseconds.
const OWN_TRY: u64 = 20_000_000_000;

/// What a registrar waits for.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Users whose good trigger follows, by time.
    next: VecDeque<(u64, u32)>,
    /// Users whose subscription must be refreshed, by deadline.
    owed: VecDeque<(u64, u32)>,
}

impl Faults {
    /// When something is to be done.
    pub(super) fn next(&self) -> Option<u64> {
        self.next.front().map(|&(due, _)| due)
    }
}

impl World {
    /// Whether the registrar has faults at all.
    pub(super) fn has_faults(&self) -> bool {
        !self.setup.registrar.is_only(Registrar::Full)
    }

    /// A trigger for `user`, for the self-test.
    pub(crate) fn provoke(&mut self, user: u32) {
        if !self.faulty_trigger(user, self.now) {
            self.send_notify(user, b"active;expires=599999");
        }
    }

    /// A trigger for `user`; false when the usual one is to be sent.
    pub(super) fn faulty_trigger(&mut self, user: u32, due: u64) -> bool {
        let entry = &mut self.users[user as usize];
        if entry.subscription.is_empty() {
            return false;
        }
        entry.faults += 1;
        let (nth, devices, version) = (entry.faults, entry.devices, entry.version);
        let key = device_key(&self.names, user, 0);
        let fault = self.setup.registrar.draw(key, nth);
        if fault == Registrar::Full || (fault == Registrar::Stale && version < 2) {
            return false;
        }
        self.counters.registrar_faults += 1;
        self.users[user as usize].fault = fault;
        let all = u8::MAX >> (8 - devices);
        match fault {
            Registrar::Partial | Registrar::Gap => {
                let one = 1 << (nth % u32::from(devices));
                self.arm(user, due, one);
                self.show(user, fault, one);
            }
            Registrar::Storm
            | Registrar::Deactivated
            | Registrar::Giveup
            | Registrar::Invariant
            | Registrar::Noresource
            | Registrar::Probation
            | Registrar::Rejected
            | Registrar::Timeout => {
                self.arm(user, due, all);
                self.show(user, fault, all);
            }
            Registrar::Full
            | Registrar::Gone
            | Registrar::GruuLess
            | Registrar::Refresh
            | Registrar::Stale => {
                // Nothing may come of it; the trigger follows.
                self.director.open += 1;
                self.users[user as usize].hushed_until = self.now + QUIET;
                self.show(user, fault, all);
                self.faults.next.push_back((self.now + QUIET, user));
            }
        }
        true
    }

    /// A fault behind the first NOTIFY of a user, when messages are to be delivered whatever happens.
    pub(super) fn fault_behind(&mut self, user: u32) {
        if self.setup.kind == Kind::Signalling || !self.has_faults() {
            return;
        }
        let entry = &mut self.users[user as usize];
        entry.faults += 1;
        let (nth, devices) = (entry.faults, entry.devices);
        if nth > 1 {
            return;
        }
        let key = device_key(&self.names, user, 0);
        let fault = self.setup.registrar.draw(key, nth);
        if matches!(fault, Registrar::Full | Registrar::Stale) {
            return;
        }
        self.counters.registrar_faults += 1;
        self.users[user as usize].fault = fault;
        self.show(user, fault, u8::MAX >> (8 - devices));
        if matches!(fault, Registrar::Gone | Registrar::GruuLess) {
            self.faults.next.push_back((self.now + QUIET, user));
        }
    }

    /// Sends the NOTIFY, or NOTIFYs, of a fault about the devices in `mask`.
    fn show(&mut self, user: u32, fault: Registrar, mask: u8) {
        let new = self.setup.kind == Kind::Signalling;
        let mut shape = Shape {
            partial: false,
            contacts: Vec::new(),
        };
        match fault {
            Registrar::Partial | Registrar::Gap => {
                shape.partial = true;
                if fault == Registrar::Gap {
                    self.users[user as usize].version += 1;
                    self.users[user as usize].owes_refresh = true;
                    // Hops that ask for less make SUBSCRIBEs wait (OVL-3).
                    let wait = if self.has_bad_hops() { 8 } else { 1 } * REFRESH;
                    self.faults.owed.push_back((self.now + wait, user));
                }
                if new {
                    self.rebind(user, mask);
                }
                shape.contacts = self.contacts(user, mask, Contact::Registered);
            }
            Registrar::Storm => {
                if new {
                    self.rebind(user, mask);
                }
                for _ in 1..STORM {
                    shape.contacts = self.contacts(user, mask, Contact::Registered);
                    self.send_shape(user, ACTIVE, &shape);
                }
            }
            Registrar::Stale => {
                // Two behind the next version is older than what the engine has.
                let kept = self.users[user as usize].version;
                self.users[user as usize].version = kept - 2;
                let bindings = self.bindings(user);
                self.rebind(user, mask);
                shape.contacts = self.contacts(user, mask, Contact::Registered);
                self.send_shape(user, ACTIVE, &shape);
                self.users[user as usize].version = kept;
                self.set_bindings(user, &bindings);
                return;
            }
            Registrar::Refresh => {
                shape.contacts = self.contacts(user, mask, Contact::Refreshed);
            }
            Registrar::Gone => {
                shape.partial = true;
                shape.contacts = self.contacts(user, mask, Contact::Unregistered);
            }
            Registrar::GruuLess => {
                if new {
                    self.rebind(user, mask);
                }
                shape.contacts = self.contacts(user, mask, Contact::GruuLess);
            }
            Registrar::Full
            | Registrar::Deactivated
            | Registrar::Giveup
            | Registrar::Invariant
            | Registrar::Noresource
            | Registrar::Probation
            | Registrar::Rejected
            | Registrar::Timeout => return self.end_subscription(user, fault, mask),
        }
        self.send_shape(user, ACTIVE, &shape);
    }

    /// The NOTIFY that ends a subscription.
    fn end_subscription(&mut self, user: u32, fault: Registrar, mask: u8) {
        let reason = fault.reason().unwrap_or("timeout");
        let mut state = format!("terminated;reason={reason}");
        if fault.retries_later() {
            let _ = write!(state, ";retry-after={RETRY_AFTER}");
        }
        let shape = Shape {
            partial: false,
            contacts: self.contacts(user, mask, Contact::Registered),
        };
        self.send_shape(user, state.as_bytes(), &shape);
        self.ended_by_registrar(user, fault);
    }

    /// The subscription is over; the engine begins another one when it may.
    fn ended_by_registrar(&mut self, user: u32, fault: Registrar) {
        let now = self.now;
        let entry = &mut self.users[user as usize];
        entry.subscription = super::Compact::default();
        entry.unsubscribed_until = if fault.retries_later() {
            now + RETRY_AFTER * 1_000_000_000
        } else if fault.waits_for_register() {
            now + QUIET
        } else {
            0
        };
        if fault.waits_for_register() {
            self.faults.next.push_back((now + QUIET, user));
        }
    }

    fn contacts(&self, user: u32, mask: u8, how: Contact) -> Vec<(u8, u32, Contact)> {
        let entry = &self.users[user as usize];
        let first = entry.first_device as usize;
        (0..entry.devices)
            .filter(|device| mask & (1 << device) != 0)
            .map(|device| {
                let binding = self.devices[first + usize::from(device)].binding;
                (device, binding, how)
            })
            .collect()
    }

    /// Full state as it was shown last: answers a refresh of the subscription.
    pub(super) fn show_again(&mut self, user: u32) {
        let contacts = self.contacts(user, u8::MAX, Contact::Registered);
        let shape = Shape {
            partial: false,
            contacts,
        };
        self.send_shape(user, b"active;expires=599999", &shape);
    }

    /// New bindings for the devices in `mask`.
    pub(super) fn rebind(&mut self, user: u32, mask: u8) {
        let entry = &mut self.users[user as usize];
        entry.binding += 1;
        let (binding, first) = (entry.binding, entry.first_device as usize);
        for device in 0..entry.devices {
            if mask & (1 << device) != 0 {
                self.devices[first + usize::from(device)].binding = binding;
            }
        }
    }

    fn bindings(&self, user: u32) -> Vec<u32> {
        let all = self.contacts(user, u8::MAX, Contact::Registered);
        all.into_iter().map(|(_, binding, _)| binding).collect()
    }

    fn set_bindings(&mut self, user: u32, bindings: &[u32]) {
        let first = self.users[user as usize].first_device as usize;
        for (device, &binding) in self.devices[first..].iter_mut().zip(bindings) {
            device.binding = binding;
        }
    }

    /// Goes on where a fault needs it.
    pub(super) fn pump_faults(&mut self) {
        while let Some(&(due, user)) = self.faults.next.front()
            && due <= self.now
        {
            self.faults.next.pop_front();
            self.users[user as usize].hushed_until = 0;
            if self.users[user as usize].fault.waits_for_register() {
                self.users[user as usize].unsubscribed_until = 0;
                self.send_register(user);
                continue;
            }
            if self.setup.kind == Kind::Signalling {
                self.director.open = self.director.open.saturating_sub(1);
                self.arm(user, self.now, u8::MAX);
            }
            self.send_notify(user, b"active;expires=599999");
        }
        while let Some(&(deadline, user)) = self.faults.owed.front()
            && deadline <= self.now
        {
            self.faults.owed.pop_front();
            if core::mem::take(&mut self.users[user as usize].owes_refresh) {
                self.violations.record(
                    Rule::Reg2,
                    "no SUBSCRIBE after a version was left out",
                    b"",
                );
            }
        }
    }

    /// A SUBSCRIBE came: whether it may, and whether one was due.
    pub(super) fn judge_subscribe(&mut self, user: u32, initial: bool, message: &[u8]) {
        let now = self.now;
        let entry = &mut self.users[user as usize];
        entry.owes_refresh = false;
        if initial && now < entry.unsubscribed_until {
            let what = "SUBSCRIBE before the reason of the end allows it";
            self.violations.record(Rule::Sub7, what, message);
        }
    }

    /// An INVITE came: whether the registrar's last word was one to push after.
    pub(super) fn judge_trigger(&mut self, user: u32, index: usize, message: &[u8]) {
        if !self.has_faults() || self.setup.kind != Kind::Signalling || self.accepting {
            return;
        }
        let (entry, device) = (&self.users[user as usize], &self.devices[index]);
        if device.answered_at + OWN_TRY < self.now {
            return;
        }
        let (rule, what) = if self.now < entry.hushed_until {
            match entry.fault {
                Registrar::Stale => (Rule::Reg2, "push after a document of an old version"),
                Registrar::Gone => (Rule::Reg4, "push to a device that was told gone"),
                Registrar::GruuLess => (Rule::PushA, "push to a device without a GRUU"),
                Registrar::Refresh
                | Registrar::Full
                | Registrar::Gap
                | Registrar::Partial
                | Registrar::Storm
                | Registrar::Deactivated
                | Registrar::Giveup
                | Registrar::Invariant
                | Registrar::Noresource
                | Registrar::Probation
                | Registrar::Rejected
                | Registrar::Timeout => (Rule::Reg5, "push after a mere refresh"),
            }
        } else if !device.pending {
            (Rule::Reg5, "push that no document was a reason for")
        } else {
            return;
        };
        self.violations.record(rule, what, message);
    }
}
