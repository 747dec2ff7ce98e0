use super::*;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn udp() -> TransactionOptions {
    TransactionOptions::default()
}

fn timeline(machine: &mut ClientNonInvite) -> Vec<(u64, NonInviteAction)> {
    let mut steps = Vec::new();
    while !machine.deadline().is_never() {
        let now = machine.deadline();
        assert!(steps.len() < 100, "a machine ends");
        steps.push((now.as_millis(), machine.handle_timeout(now)));
    }
    steps
}

// Proves: TX-7
#[test]
fn repeats_a_request_over_udp_doubling_to_t2_until_timer_f() {
    let mut machine = ClientNonInvite::start(at(0), &udp());
    let steps = timeline(&mut machine);
    let repeats: Vec<u64> = steps[..steps.len() - 1].iter().map(|step| step.0).collect();
    assert_eq!(
        repeats,
        [
            500, 1500, 3500, 7500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500
        ]
    );
    assert_eq!(steps.last(), Some(&(32_000, NonInviteAction::TimedOut)));
}

// Proves: TX-7
#[test]
fn a_provisional_response_slows_the_repeats_to_t2() {
    let mut machine = ClientNonInvite::start(at(0), &udp());
    assert_eq!(
        machine.handle_response(at(100), 100),
        NonInviteAction::Provisional(100)
    );
    let repeats: Vec<u64> = timeline(&mut machine).iter().map(|step| step.0).collect();
    assert_eq!(
        repeats,
        [
            500, 4500, 8500, 12_500, 16_500, 20_500, 24_500, 28_500, 32_000
        ]
    );
}

// Proves: TX-7
#[test]
fn a_final_response_is_told_once_and_absorbed_for_t4() {
    let mut machine = ClientNonInvite::start(at(0), &udp());
    assert_eq!(
        machine.handle_response(at(100), 481),
        NonInviteAction::Final(481)
    );
    assert_eq!(
        machine.handle_response(at(200), 481),
        NonInviteAction::Nothing
    );
    assert_eq!(
        timeline(&mut machine),
        [(5100, NonInviteAction::Terminated)]
    );
}

// Proves: TX-7
#[test]
fn over_tcp_nothing_is_repeated_and_the_end_is_at_once() {
    let mut machine = ClientNonInvite::start(at(0), &TransactionOptions::reliable());
    assert_eq!(machine.deadline(), at(32_000));
    assert_eq!(
        machine.handle_response(at(1), 200),
        NonInviteAction::Final(200)
    );
    assert_eq!(machine.state(), ClientNonInviteState::Terminated);
    assert!(machine.deadline().is_never());
}

/// RFC 3261 figure 6, all states by all inputs.
// Proves: TX-7, TX-11
#[test]
fn follows_the_table_of_the_rfc_in_every_state() {
    use ClientNonInviteState::{Completed, Proceeding, Terminated, Trying};
    use NonInviteAction::{Final, Nothing, Provisional, Retransmit, TimedOut, TransportFailed};
    let one = (Proceeding, Provisional(100));
    let done = (Completed, Final(404));
    let late = (Completed, Nothing);
    let over = (Terminated, Nothing);
    let lost = (Terminated, TimedOut);
    let broken = (Terminated, TransportFailed);
    let table = [
        (100, [one, one, late, over]),
        (404, [done, done, late, over]),
        (99, [(Trying, Nothing), (Proceeding, Nothing), late, over]),
        (999, [(Trying, Nothing), (Proceeding, Nothing), late, over]),
        // Inputs 1, 2 and 3 stand for timer E, the end timer and the transport error.
        (
            1,
            [(Trying, Retransmit), (Proceeding, Retransmit), late, over],
        ),
        (
            2,
            [lost, lost, (Terminated, NonInviteAction::Terminated), over],
        ),
        (3, [broken, broken, late, over]),
    ];
    for (input, row) in table {
        for (index, reach) in [0, 180, 200, 1].into_iter().enumerate() {
            let mut machine = ClientNonInvite::start(at(0), &udp());
            if reach == 1 {
                machine.handle_timeout(at(32_000));
            } else {
                machine.handle_response(at(0), reach);
            }
            let action = match input {
                1 => machine.handle_timeout(at(500)),
                2 => machine.handle_timeout(at(40_000)),
                3 => machine.handle_transport_error(),
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
