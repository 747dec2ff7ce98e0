use super::*;

fn hop(port: u16) -> HopOptions {
    HopOptions {
        address: SocketAddr::from(([127, 0, 0, 1], port)),
        transport: HopTransport::Tcp,
        connections: 2,
        invite_inflight_max: 2,
    }
}

fn link(slot: u32) -> LinkId {
    LinkId {
        slot,
        generation: 0,
    }
}

fn connected() -> Hops {
    let mut hops = Hops::new(0, &[hop(1), hop(2)]);
    let mut out = Outbox::new(0);
    hops.advance(Timestamp::ZERO, &mut out);
    let mut slot = 0;
    while let Some(command) = out.poll_link() {
        if let crate::base::surface::LinkCommand::Connect { token, .. } = command {
            hops.connected(token, link(slot));
            slot += 1;
        }
    }
    assert_eq!(slot, 4, "two hops with two trunks each");
    hops
}

#[test]
fn trunks_are_used_in_turn_and_full_hops_are_passed_over() {
    let mut hops = connected();
    let now = Timestamp::ZERO;
    let (first, a) = hops.pick(now, Offer::Invite).unwrap();
    let (_, b) = hops.pick(now, Offer::Invite).unwrap();
    assert_ne!(a.link, b.link);
    hops.invite_started(first);
    hops.invite_started(first);
    assert_eq!(
        hops.pick(now, Offer::Invite).unwrap().0,
        1,
        "hop 0 has no room for an INVITE"
    );
    assert_eq!(
        hops.pick(now, Offer::Owed).unwrap().0,
        0,
        "other requests still go there"
    );
}

#[test]
fn an_avoided_hop_gets_nothing_until_its_time() {
    let mut hops = connected();
    let until = Timestamp::from_millis(8000);
    hops.avoid(0, until);
    hops.avoid(0, Timestamp::from_millis(10));
    assert_eq!(
        hops.pick(Timestamp::from_millis(7999), Offer::Invite)
            .unwrap()
            .0,
        1
    );
    assert_eq!(hops.pick(until, Offer::Invite).unwrap().0, 0);
}

#[test]
fn a_lost_trunk_is_connected_again_with_growing_waits() {
    let mut hops = connected();
    let mut out = Outbox::new(0);
    let mut jitter = Jitter::new(5);
    let now = Timestamp::from_millis(1000);
    assert!(hops.closed(now, link(0)));
    assert!(!hops.closed(now, link(0)));
    hops.advance(hops.deadline(now), &mut out);
    let Some(crate::base::surface::LinkCommand::Connect { token, .. }) = out.poll_link() else {
        panic!("a connect was due");
    };
    hops.connect_failed(now, token, &mut jitter);
    let first = hops.deadline(now).since(now);
    hops.advance(hops.deadline(now), &mut out);
    hops.connect_failed(now, token, &mut jitter);
    hops.connect_failed(now, token, &mut jitter);
    assert!(hops.deadline(now).since(now) > first);
}
