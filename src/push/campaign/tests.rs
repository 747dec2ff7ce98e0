use super::*;
use crate::base::surface::Location;
use crate::base::time::UnixMillis;
use crate::registry::device::Device;
use crate::registry::gruu::GruuRule;
use crate::store::index::{Fate, NewEntry, Quota};

/// A user with active devices of these keys.
fn user(keys: impl Iterator<Item = u64>) -> User {
    let mut user = User::default();
    user.served = true;
    for key in keys {
        let mut device = Device::default();
        device.key = key;
        device.active = true;
        device.expires_at = Timestamp::NEVER;
        device.rule = GruuRule::PubGruu;
        device.features.icsi = 1;
        device.features.speaks = true;
        user.devices.push(device);
    }
    user
}

fn verdicts(user: &User, mailbox: &Mailbox) -> Vec<Verdict> {
    let moment = Moment {
        now: Timestamp::ZERO,
        wall: UnixMillis(0),
        tokens: u32::MAX,
    };
    let policy = Policy {
        devices_max: 64,
        ..Policy::default()
    };
    let mut selection = Selection::default();
    weigh(
        (user, Some(mailbox)),
        &RuleBook::new(policy),
        moment,
        &mut Vec::new(),
        &mut selection,
    );
    selection.verdicts().to_vec()
}

#[test]
fn more_devices_than_a_mailbox_tells_apart_never_get_a_message_again() {
    let mut mailbox = Mailbox::default();
    let deposit = |mailbox: &mut Mailbox, number, target| {
        let new = NewEntry {
            number,
            target,
            expires_s: 100,
            bytes: 1,
            ..NewEntry::default()
        };
        mailbox.admit(&Quota::default(), 0, &new);
        assert!(mailbox.stored(number, Location::default()));
    };
    // Senders named eight devices that never registered; then a message for everybody comes.
    for number in 1..=8 {
        deposit(&mut mailbox, number, 1000 + number);
    }
    deposit(&mut mailbox, 9, 0);
    let mut user = user(1..=32);
    let chosen = verdicts(&user, &mailbox);
    let count = |wanted| chosen.iter().filter(|&&verdict| verdict == wanted).count();
    assert_eq!((count(Verdict::Selected), count(Verdict::NoPlace)), (24, 8));
    // Who is being pushed to may need a slot, too.
    for device in &mut user.devices[..20] {
        device.pushing = Some(Key {
            slot: 0,
            generation: 1,
        });
    }
    let while_busy = verdicts(&user, &mailbox);
    assert_eq!(while_busy[20..24], [Verdict::Selected; 4]);
    assert_eq!(while_busy[24..], [Verdict::NoPlace; 8]);
    // The first of them take it. Nobody else pushes them out: not in any later round.
    let devices = user.devices.iter_mut();
    for (device, _) in devices
        .zip(&chosen)
        .filter(|(_, at)| **at == Verdict::Selected)
    {
        device.pushing = None;
        mailbox.mark(9, device.key, Fate::Delivered);
    }
    for _ in 0..3 {
        let again = verdicts(&user, &mailbox);
        assert_eq!(again[..24], [Verdict::NothingForIt; 24]);
        assert_eq!(again[24..], [Verdict::NoPlace; 8]);
        for (device, verdict) in user.devices.iter().zip(&again) {
            if *verdict == Verdict::Selected {
                mailbox.mark(9, device.key, Fate::Delivered);
            }
        }
    }
    // With the messages that nobody collects, their slots are free again.
    for number in 1..=8 {
        mailbox.remove(number);
    }
    assert_eq!(verdicts(&user, &mailbox)[24..], [Verdict::Selected; 8]);
}
