use super::*;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn udp() -> TransactionOptions {
    TransactionOptions::default()
}

fn timeline(machine: &mut ServerInvite) -> Vec<(u64, ServerInviteAction)> {
    let mut steps = Vec::new();
    while !machine.deadline().is_never() {
        let now = machine.deadline();
        assert!(steps.len() < 100, "a machine ends");
        steps.push((now.as_millis(), machine.handle_timeout(now)));
    }
    steps
}

const REPEATS: [u64; 10] = [
    500, 1500, 3500, 7500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500,
];

// The machine of SX-4, not on the wire yet.
#[test]
fn a_100_leaves_after_200_ms_unless_something_else_did() {
    let mut machine = ServerInvite::start(at(0), &udp());
    assert_eq!(machine.handle_timeout(at(199)), ServerInviteAction::Nothing);
    assert_eq!(
        machine.handle_timeout(at(200)),
        ServerInviteAction::SendTrying
    );
    assert!(machine.deadline().is_never());
    assert_eq!(
        machine.handle_retransmission(),
        ServerInviteAction::Retransmit
    );
    let mut machine = ServerInvite::start(at(0), &udp());
    machine.respond(at(100), 180);
    assert!(machine.deadline().is_never());
}

// The machine of SX-4, not on the wire yet.
#[test]
fn a_2xx_is_repeated_until_the_ack_is_missed_for_64_t1_and_then_ended() {
    for options in [udp(), TransactionOptions::reliable()] {
        let mut machine = ServerInvite::start(at(0), &options);
        machine.respond(at(0), 200);
        let steps = timeline(&mut machine);
        let repeats: Vec<u64> = steps[..10].iter().map(|step| step.0).collect();
        assert_eq!(repeats, REPEATS);
        assert!(
            steps[..10]
                .iter()
                .all(|step| step.1 == ServerInviteAction::Retransmit)
        );
        assert_eq!(steps[10..], [(32_000, ServerInviteAction::AckMissing)]);
    }
}

// The machine of SX-4, not on the wire yet.
#[test]
fn an_ack_stops_the_2xx_and_timer_l_still_absorbs_the_invite() {
    let mut machine = ServerInvite::start(at(0), &udp());
    machine.respond(at(0), 200);
    assert_eq!(
        machine.handle_timeout(at(500)),
        ServerInviteAction::Retransmit
    );
    assert_eq!(
        machine.handle_ack(at(600)),
        ServerInviteAction::Acknowledged
    );
    assert_eq!(machine.handle_ack(at(700)), ServerInviteAction::Nothing);
    assert_eq!(machine.handle_retransmission(), ServerInviteAction::Nothing);
    assert_eq!(
        timeline(&mut machine),
        [(32_000, ServerInviteAction::Terminated)]
    );
}

// The machine of SX-4, not on the wire yet.
#[test]
fn a_failure_is_repeated_by_timer_g_until_timer_h() {
    let mut machine = ServerInvite::start(at(0), &udp());
    machine.respond(at(0), 491);
    let steps = timeline(&mut machine);
    let repeats: Vec<u64> = steps[..10].iter().map(|step| step.0).collect();
    assert_eq!(repeats, REPEATS);
    assert_eq!(steps[10..], [(32_000, ServerInviteAction::TimedOut)]);
    let mut machine = ServerInvite::start(at(0), &TransactionOptions::reliable());
    machine.respond(at(0), 491);
    assert_eq!(
        timeline(&mut machine),
        [(32_000, ServerInviteAction::TimedOut)]
    );
}

// The machine of SX-4, not on the wire yet.
#[test]
fn an_acked_failure_is_kept_for_timer_i() {
    let mut machine = ServerInvite::start(at(0), &udp());
    machine.respond(at(0), 488);
    assert_eq!(
        machine.handle_retransmission(),
        ServerInviteAction::Retransmit
    );
    assert_eq!(
        machine.handle_ack(at(100)),
        ServerInviteAction::Acknowledged
    );
    assert_eq!(machine.handle_retransmission(), ServerInviteAction::Nothing);
    assert_eq!(
        timeline(&mut machine),
        [(5100, ServerInviteAction::Terminated)]
    );
    let mut machine = ServerInvite::start(at(0), &TransactionOptions::reliable());
    machine.respond(at(0), 488);
    assert_eq!(
        machine.handle_ack(at(100)),
        ServerInviteAction::Acknowledged
    );
    assert_eq!(machine.state(), ServerInviteState::Terminated);
}

/// RFC 6026 figure 6: ACK, repeated INVITE and the end timer in every state.
// The machine of SX-4, not on the wire yet.
#[test]
fn follows_the_table_of_the_rfc_in_every_state() {
    use ServerInviteAction::{AckMissing, Acknowledged, Nothing, Retransmit, SendTrying, TimedOut};
    use ServerInviteState::{Accepted, Completed, Confirmed, Proceeding, Terminated};
    type Reach = (ServerInviteState, fn(&mut ServerInvite));
    let reach: [Reach; 5] = [
        (Proceeding, |_| {}),
        (Completed, |machine| machine.respond(at(0), 404)),
        (Confirmed, |machine| {
            machine.respond(at(0), 404);
            machine.handle_ack(at(0));
        }),
        (Accepted, |machine| machine.respond(at(0), 200)),
        (Terminated, |machine| {
            machine.respond(at(0), 404);
            machine.handle_timeout(at(32_000));
        }),
    ];
    let over = (Terminated, Nothing);
    let ended = (Terminated, ServerInviteAction::Terminated);
    let acked = [
        (Proceeding, Nothing),
        (Confirmed, Acknowledged),
        (Confirmed, Nothing),
        (Accepted, Acknowledged),
        over,
    ];
    let repeated = [
        (Proceeding, Nothing),
        (Completed, Retransmit),
        (Confirmed, Nothing),
        (Accepted, Nothing),
        over,
    ];
    let timed = [
        (Proceeding, SendTrying),
        (Terminated, TimedOut),
        ended,
        (Terminated, AckMissing),
        over,
    ];
    for (index, (state, go)) in reach.into_iter().enumerate() {
        let mut machine = ServerInvite::start(at(0), &udp());
        go(&mut machine);
        assert_eq!(machine.state(), state);
        let (mut by_ack, by_repeat, mut by_time) = (machine, machine, machine);
        let action = by_ack.handle_ack(at(1));
        assert_eq!((by_ack.state(), action), acked[index]);
        let action = by_repeat.handle_retransmission();
        assert_eq!((by_repeat.state(), action), repeated[index]);
        let action = by_time.handle_timeout(at(60_000));
        assert_eq!((by_time.state(), action), timed[index]);
    }
}

#[test]
#[should_panic(expected = "one final response")]
fn a_second_final_response_is_our_error() {
    let mut machine = ServerInvite::start(at(0), &udp());
    machine.respond(at(0), 200);
    machine.respond(at(0), 486);
}
