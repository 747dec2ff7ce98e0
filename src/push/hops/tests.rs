use super::*;

fn hop(port: u16) -> HopOptions {
    HopOptions {
        address: SocketAddr::from(([127, 0, 0, 1], port)),
        transport: HopTransport::Tcp,
        connections: 2,
        invite_inflight_max: 2,
        set: COMMON_SET,
        priority: 0,
        weight: 1,
    }
}

fn link(slot: u32) -> LinkId {
    LinkId {
        slot,
        generation: 0,
    }
}

fn connected() -> Hops {
    let mut hops = Hops::new(
        0,
        &[
            hop(1),
            HopOptions {
                priority: 1,
                ..hop(2)
            },
        ],
        RoutingOptions::default(),
    );
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
    let out = Outbox::new(0);
    let mut link = || {
        let (hop, way) = hops.pick(&out, now, COMMON_SET, Offer::Invite).unwrap();
        assert_eq!(hop, 0);
        way.link
    };
    let all: Vec<LinkId> = (0..3 * RUN).map(|_| link()).collect();
    let runs: Vec<&[LinkId]> = all.chunk_by(|a, b| a == b).collect();
    assert!(runs.iter().all(|run| run.len() == RUN as usize), "{runs:?}");
    let [a, b, again] = [runs[0][0], runs[1][0], runs[2][0]];
    assert!(a != b && again == a, "{all:?}");
    let first = 0;
    hops.invite_started(first);
    hops.invite_started(first);
    assert_eq!(
        hops.pick(&Outbox::new(0), now, COMMON_SET, Offer::Invite)
            .unwrap()
            .0,
        1,
        "hop 0 has no room for an INVITE"
    );
    assert_eq!(
        hops.pick(&Outbox::new(0), now, COMMON_SET, Offer::Owed)
            .unwrap()
            .0,
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
        hops.pick(
            &Outbox::new(0),
            Timestamp::from_millis(7999),
            COMMON_SET,
            Offer::Invite
        )
        .unwrap()
        .0,
        1
    );
    assert_eq!(
        hops.pick(&Outbox::new(0), until, COMMON_SET, Offer::Invite)
            .unwrap()
            .0,
        0
    );
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

fn way(hops: &mut Hops, uri: &str) -> Way {
    hops.way(Timestamp::from_millis(5000), uri.as_bytes())
}

// Proves: NH-2
#[test]
fn hosts_that_routes_lead_to_are_bounded() {
    let mut hops = connected();
    let mut out = Outbox::new(0);
    let now = Timestamp::from_millis(5000);
    assert_eq!(way(&mut hops, "sip:a@127.0.0.1:2;lr"), Way::Hop(1));
    assert_eq!(way(&mut hops, "sip:203.0.113.1;lr"), Way::Own);
    for port in 6000..6100 {
        let expected = if port < 6064 { Way::Waiting } else { Way::Own };
        let uri = format!("sip:127.0.0.1:{port};lr");
        assert_eq!(way(&mut hops, &uri), expected, "{uri}");
        assert_eq!(way(&mut hops, &uri), expected, "asked again: {uri}");
    }
    hops.advance(now, &mut out);
    let mut connects = 0;
    while let Some(crate::base::surface::LinkCommand::Connect { token, .. }) = out.poll_link() {
        hops.connected(token, link(100 + connects));
        connects += 1;
    }
    assert_eq!(connects, 64);
    assert_eq!(way(&mut hops, "sip:127.0.0.1:6000;lr"), Way::Hop(2));
    // One that nobody used for a while makes room.
    let later = now + Duration::from_secs(300);
    assert_eq!(hops.way(later, b"sip:127.0.0.1:7000;lr"), Way::Waiting);
    hops.advance(later, &mut out);
    let mut commands = 0;
    while out.poll_link().is_some() {
        commands += 1;
    }
    assert_eq!(
        commands, 1,
        "a connect; the old link is none of this outbox"
    );
    assert_eq!(hops.hops.len(), 2 + 64);
}

#[test]
fn weights_are_shares_and_a_hop_that_is_down_leaves_its_share_to_the_others() {
    let shared = |port, weight| HopOptions {
        weight,
        ..hop(port)
    };
    let options = [shared(1, 1), shared(2, 2), shared(3, 5)];
    let mut hops = Hops::new(0, &options, RoutingOptions::default());
    let mut out = Outbox::new(0);
    hops.advance(Timestamp::ZERO, &mut out);
    let mut slot = 0;
    while let Some(crate::base::surface::LinkCommand::Connect { token, .. }) = out.poll_link() {
        hops.connected(token, link(slot));
        slot += 1;
    }
    let mut counts = [0; 3];
    for _ in 0..80 {
        let (at, _) = hops
            .pick(&Outbox::new(0), Timestamp::ZERO, COMMON_SET, Offer::Owed)
            .unwrap();
        counts[usize::from(at)] += 1;
    }
    assert_eq!(counts, [10, 20, 50]);
    hops.avoid(2, Timestamp::from_millis(9000));
    let mut counts = [0; 3];
    for _ in 0..30 {
        let (at, _) = hops
            .pick(&Outbox::new(0), Timestamp::ZERO, COMMON_SET, Offer::Owed)
            .unwrap();
        counts[usize::from(at)] += 1;
    }
    assert!(
        counts[2] == 0 && (9..=11).contains(&counts[0]),
        "{counts:?}"
    );
    // All failed before: nobody is left.
    let tried = hops.bit(0) | hops.bit(1) | hops.bit(2);
    assert!(
        hops.pick_untried(
            &Outbox::new(0),
            Timestamp::ZERO,
            COMMON_SET,
            (Offer::Owed, tried)
        )
        .is_none()
    );
    assert!(
        hops.pick(&Outbox::new(0), Timestamp::ZERO, 7, Offer::Owed)
            .is_none(),
        "no such set"
    );
}

#[test]
fn hops_past_the_64th_are_told_apart() {
    let of_set = |set: u8, count: u16| {
        let base = 1000 * (1 + u16::from(set));
        (0..count).map(move |at| HopOptions {
            set,
            priority: at,
            connections: 1,
            ..hop(base + at)
        })
    };
    let list: Vec<HopOptions> = of_set(0, 64).chain(of_set(1, 3)).collect();
    let mut hops = Hops::new(0, &list, RoutingOptions::default());
    for index in 0..67_u32 {
        hops.hops[index as usize].trunks[0].link = Some(link(index));
    }
    let out = Outbox::new(0);
    // Behind 64 of another list: the first fails, then the second, and there is a third.
    let mut tried = 0;
    for expected in 64..67 {
        let offer = (Offer::Owed, tried);
        let (index, _) = hops.pick_untried(&out, Timestamp::ZERO, 1, offer).unwrap();
        assert_eq!(index, expected);
        tried |= hops.bit(index);
    }
    let none = hops.pick_untried(&out, Timestamp::ZERO, 1, (Offer::Owed, tried));
    assert!(none.is_none());
    let bits: u64 = (0..64).map(|index| hops.bit(index)).fold(0, |all, bit| {
        assert_eq!(all & bit, 0);
        all | bit
    });
    assert_eq!(bits, u64::MAX);
}
