use super::*;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn udp() -> TransactionOptions {
    TransactionOptions::default()
}

/// Runs the machine to its end; the moments (ms) and actions of its timers.
fn timeline(machine: &mut ClientInvite) -> Vec<(u64, InviteAction)> {
    let mut steps = Vec::new();
    while !machine.deadline().is_never() {
        let now = machine.deadline();
        assert!(steps.len() < 100, "a machine ends");
        steps.push((now.as_millis(), machine.handle_timeout(now)));
    }
    steps
}

// Proves: TX-2, TX-3
#[test]
fn repeats_the_invite_over_udp_at_the_times_of_the_rfc_and_then_gives_up() {
    let mut machine = ClientInvite::start(at(0), &udp());
    let steps = timeline(&mut machine);
    let repeats: Vec<u64> = steps[..steps.len() - 1].iter().map(|step| step.0).collect();
    assert_eq!(repeats, [500, 1500, 3500, 7500, 15_500, 31_500]);
    assert!(
        steps[..6]
            .iter()
            .all(|step| step.1 == InviteAction::Retransmit)
    );
    assert_eq!(steps[6], (32_000, InviteAction::TimedOut));
    assert_eq!(machine.state(), ClientInviteState::Terminated);
}

// Proves: TX-2, TX-3
#[test]
fn repeats_nothing_over_tcp() {
    let mut machine = ClientInvite::start(at(7), &TransactionOptions::reliable());
    assert_eq!(timeline(&mut machine), [(32_007, InviteAction::TimedOut)]);
}

// Proves: TX-2
#[test]
fn the_owners_tick_does_not_add_up_in_the_repeat_times() {
    let mut machine = ClientInvite::start(at(0), &udp());
    let mut sent = Vec::new();
    for tick in 0..3300 {
        let now = at(tick * 10 + 7);
        if machine.handle_timeout(now) == InviteAction::Retransmit {
            sent.push(now.as_millis());
        }
    }
    assert_eq!(sent, [507, 1507, 3507, 7507, 15_507, 31_507]);
}

#[test]
fn an_owner_that_comes_far_too_late_gets_one_repeat_not_many() {
    let mut machine = ClientInvite::start(at(0), &udp());
    assert_eq!(machine.handle_timeout(at(20_000)), InviteAction::Retransmit);
    assert_eq!(machine.handle_timeout(at(20_000)), InviteAction::Nothing);
    assert_eq!(machine.deadline(), at(21_000));
}

// Proves: TX-4
#[test]
fn a_provisional_response_stops_the_repeats_and_timer_b() {
    let mut machine = ClientInvite::start(at(0), &udp());
    assert_eq!(machine.handle_timeout(at(500)), InviteAction::Retransmit);
    assert_eq!(
        machine.handle_response(at(600), 180),
        InviteAction::Provisional(180)
    );
    assert!(
        machine.deadline().is_never(),
        "the owner's answer timer governs"
    );
    assert_eq!(machine.handle_timeout(at(100_000)), InviteAction::Nothing);
}

// Proves: TX-5
#[test]
fn a_failure_is_told_once_and_acked_each_time_during_timer_d() {
    let mut machine = ClientInvite::start(at(0), &udp());
    assert_eq!(
        machine.handle_response(at(100), 486),
        InviteAction::Failed(486)
    );
    for millis in [600, 1600, 3600] {
        assert_eq!(
            machine.handle_response(at(millis), 486),
            InviteAction::Reack
        );
    }
    assert_eq!(timeline(&mut machine), [(32_100, InviteAction::Terminated)]);
    assert_eq!(
        machine.handle_response(at(33_000), 486),
        InviteAction::Nothing
    );
}

// Proves: TX-5
#[test]
fn timer_d_is_32_s_even_with_a_small_t1_and_zero_over_tcp() {
    let quick = TransactionOptions {
        t1: Duration::from_millis(100),
        ..udp()
    };
    let mut machine = ClientInvite::start(at(0), &quick);
    machine.handle_response(at(0), 500);
    assert_eq!(machine.deadline(), at(32_000));
    let mut machine = ClientInvite::start(at(0), &TransactionOptions::reliable());
    assert_eq!(
        machine.handle_response(at(0), 500),
        InviteAction::Failed(500)
    );
    assert_eq!(machine.state(), ClientInviteState::Terminated);
}

// Proves: TX-6
#[test]
fn each_2xx_goes_to_the_user_until_timer_m() {
    let mut machine = ClientInvite::start(at(0), &udp());
    assert_eq!(
        machine.handle_response(at(0), 100),
        InviteAction::Provisional(100)
    );
    for millis in [1000, 1500, 2500] {
        assert_eq!(
            machine.handle_response(at(millis), 200),
            InviteAction::Accepted(200)
        );
    }
    assert_eq!(
        machine.handle_response(at(2600), 486),
        InviteAction::Nothing
    );
    assert_eq!(timeline(&mut machine), [(33_000, InviteAction::Terminated)]);
    assert_eq!(
        machine.handle_response(at(33_001), 200),
        InviteAction::Nothing
    );
}

// Proves: TX-13
#[test]
fn a_cancel_waits_for_the_first_provisional_response() {
    let mut machine = ClientInvite::start(at(0), &udp());
    assert_eq!(machine.cancel(at(10)), CancelAction::Deferred);
    assert_eq!(machine.cancel(at(11)), CancelAction::AlreadyAsked);
    assert_eq!(
        machine.handle_response(at(900), 100),
        InviteAction::Cancel(100)
    );
    assert_eq!(
        machine.handle_response(at(950), 180),
        InviteAction::Provisional(180)
    );
    assert_eq!(machine.deadline(), at(32_900), "64*T1 after the CANCEL");
    assert_eq!(timeline(&mut machine), [(32_900, InviteAction::TimedOut)]);
}

// Proves: TX-13
#[test]
fn a_silent_peer_never_sees_a_cancel() {
    let mut machine = ClientInvite::start(at(0), &udp());
    assert_eq!(machine.cancel(at(10)), CancelAction::Deferred);
    let steps = timeline(&mut machine);
    assert_eq!(steps.last(), Some(&(32_000, InviteAction::TimedOut)));
    assert!(
        steps
            .iter()
            .all(|step| !matches!(step.1, InviteAction::Cancel(_)))
    );
}

// Proves: TX-13, TX-14
#[test]
fn a_2xx_that_crosses_the_cancel_is_accepted() {
    let mut machine = ClientInvite::start(at(0), &udp());
    machine.handle_response(at(5), 180);
    assert_eq!(machine.cancel(at(60_000)), CancelAction::Send);
    assert_eq!(
        machine.handle_response(at(60_010), 200),
        InviteAction::Accepted(200)
    );
    assert!(
        machine.is_cancelled(),
        "tells the user to answer ACK and BYE"
    );
    assert_eq!(machine.cancel(at(60_020)), CancelAction::TooLate);
    assert_eq!(machine.deadline(), at(92_010));
}

// Proves: TX-11
#[test]
fn a_transport_error_ends_it_only_while_something_of_ours_is_on_the_way() {
    use ClientInviteState::{Accepted, Calling, Completed, Proceeding};
    for (state, status) in [
        (Calling, 0),
        (Proceeding, 180),
        (Completed, 404),
        (Accepted, 200),
    ] {
        let mut machine = ClientInvite::start(at(0), &udp());
        machine.handle_response(at(1), status);
        assert_eq!(machine.state(), state);
        let expected = match state {
            Calling | Completed => InviteAction::TransportFailed,
            Proceeding | Accepted | ClientInviteState::Terminated => InviteAction::Nothing,
        };
        assert_eq!(machine.handle_transport_error(), expected);
    }
}

type Row = [(ClientInviteState, InviteAction); 5];

/// RFC 6026 figure 5: (input, per state: next state and action).
fn table() -> [(u16, Row); 7] {
    use ClientInviteState::{Accepted, Calling, Completed, Proceeding, Terminated};
    use InviteAction::{Failed, Nothing, Provisional, Reack, TimedOut, TransportFailed};
    let same = |action: [InviteAction; 5]| -> Row {
        let states = [Calling, Proceeding, Completed, Accepted, Terminated];
        core::array::from_fn(|index| (states[index], action[index]))
    };
    let late = (Completed, Nothing);
    let over = (Terminated, Nothing);
    let stays = (Accepted, Nothing);
    let one = Provisional(183);
    let two = InviteAction::Accepted(200);
    let six = Failed(603);
    let end = (Terminated, InviteAction::Terminated);
    [
        (0, same([Nothing; 5])),
        (
            183,
            [(Proceeding, one), (Proceeding, one), late, stays, over],
        ),
        (
            200,
            [
                (Accepted, two),
                (Accepted, two),
                late,
                (Accepted, two),
                over,
            ],
        ),
        (
            603,
            [
                (Completed, six),
                (Completed, six),
                (Completed, Reack),
                stays,
                over,
            ],
        ),
        (700, same([Nothing; 5])),
        // Inputs 1 and 2 stand for the end timer and the transport error.
        (
            1,
            [
                (Terminated, TimedOut),
                (Proceeding, Nothing),
                end,
                end,
                over,
            ],
        ),
        (
            2,
            [
                (Terminated, TransportFailed),
                (Proceeding, Nothing),
                (Terminated, TransportFailed),
                stays,
                over,
            ],
        ),
    ]
}

// Proves: TX-2, TX-3, TX-4, TX-5, TX-6
#[test]
fn follows_the_table_of_the_rfc_in_every_state() {
    for (input, row) in table() {
        for (index, reach) in [0, 100, 404, 202, 1].into_iter().enumerate() {
            let mut machine = ClientInvite::start(at(0), &udp());
            if reach == 1 {
                machine.handle_timeout(at(32_000));
            } else {
                machine.handle_response(at(0), reach);
            }
            let action = match input {
                1 => machine.handle_timeout(at(40_000)),
                2 => machine.handle_transport_error(),
                status => machine.handle_response(at(1), status),
            };
            assert_eq!(
                (machine.state(), action),
                row[index],
                "input {input}, state {index}"
            );
        }
    }
}
