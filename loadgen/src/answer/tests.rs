use super::*;

fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A port that was free a moment ago.
fn free(transport: Transport) -> SocketAddr {
    match transport {
        Transport::Tcp => std::net::TcpListener::bind(any()).unwrap().local_addr(),
        Transport::Udp => std::net::UdpSocket::bind(any()).unwrap().local_addr(),
    }
    .unwrap()
}

fn answer(transport: Transport) -> Answer {
    Answer {
        listen: free(transport),
        transport,
        trains: false,
        cpu: None,
        pids: vec![std::process::id()],
        drive: None,
        users: 1,
        devices: 1,
        users_in_flight: 1,
        warmup_s: 0.1,
        seconds: 0.2,
        json: true,
    }
}

#[test]
fn a_bare_caller_and_the_answering_peer_agree_on_every_call() {
    for transport in [Transport::Tcp, Transport::Udp] {
        let answer = answer(transport);
        let to = answer.listen;
        let peer = std::thread::spawn(move || answer.run());
        std::thread::sleep(Duration::from_millis(100));
        let call = Call {
            to,
            transport,
            in_flight: 16,
            cpu: None,
            seconds: 0.6,
        };
        let said: serde_json::Value = serde_json::from_str(&call.run().unwrap()).unwrap();
        let report = peer.join().unwrap().unwrap();
        assert!(report.is_reconciled(), "{report:?}");
        assert!(report.pushes > 0);
        let completed = report.totals.completed;
        assert_eq!(said["byes_answered"], completed);
        assert_eq!(said["invites"], completed);
        assert_eq!(said["strays"], 0);
        assert!(report.text(true).contains("pushes_per_core_s"));
    }
}

#[test]
fn no_rate_is_printed_when_a_call_lacks_its_end() {
    let mut report = Report {
        transport: "udp",
        trains: false,
        window_s: 1.0,
        pushes: 10,
        caller_cpu_s: 0.5,
        caller_processes: 1,
        caller_busy: 0.5,
        caller_waited: 0.0,
        peer_busy: 0.5,
        totals: Counts {
            invites: 10,
            acks: 10,
            byes: 10,
            completed: 10,
            ..Counts::default()
        },
        open: 0,
        refused: 0,
        unserved: 0,
    };
    assert!(report.text(false).contains("per core-second"));
    report.totals.byes = 9;
    for json in [false, true] {
        let text = report.text(json);
        assert!(!text.contains("per core-second"), "{text}");
        assert!(!text.contains("per_core"), "{text}");
    }
}
