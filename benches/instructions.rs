//! Whole pushes through a shard, made to be counted rather than timed.
//!
//! ```sh
//! cargo bench --bench instructions --no-run          # prints the path of the program
//! valgrind --tool=callgrind --collect-atstart=no --toggle-collect='*counted*' PROGRAM signalling
//! ```
//!
//! Instruction counts hardly vary on a busy machine: they are what a change of the hot path is judged
//! by. Only calls of the core are collected; the peers of the protocol tests play the world.
//! Arguments: scene (`signalling`, `full`, `arrivals`, `recorder`) and counted pushes (default 2,000);
//! `arrivals` counts the contacts of NOTIFYs that start none, `recorder` what the driver's flight recorder
//! does for the octets of a full push that shares no read and no write with another.

use std::net::SocketAddr;
use std::time::Duration;

use harness::script::{Answer, Contact, Notifier, PHONE_A, PHONE_B, reginfo};
use harness::text::Sip;
use harness::{Bench, options};
use volley::base::surface::{LinkId, LinkKind};
use volley::base::time::Timestamp;
use volley::io::recorder::{Event, Recorder};

#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../tests/protocol/harness/mod.rs"]
mod harness;

/// Where the tests count allocations, the profiler collects.
mod allocation {
    #[inline(never)]
    pub(crate) fn counted<T>(total: &mut u64, work: impl FnOnce() -> T) -> T {
        *total += 1;
        work()
    }
}

const PHONES: [&str; 4] = [
    PHONE_A,
    PHONE_B,
    "urn:uuid:3c1e7a52-90d4-4c1b-8a55-1b7d2f60c9aa",
    "urn:uuid:77d0b5c1-2f4e-4f0a-9b36-c04a1e8d5512",
];
/// Rounds before collecting starts.
const WARM: usize = 100;

fn bench() -> Bench {
    let mut options = options();
    options.post.kept_warm = volley::base::limits::WARM_KEPT;
    options.push.linger = Duration::ZERO;
    let mut bench = Bench::with(options);
    bench.reuse_links = true;
    bench
}

fn contacts(serial: usize) -> Vec<Contact> {
    let contact = |phone| {
        let mut contact = Contact::of(phone);
        contact.call_id = format!("call{serial}");
        contact
    };
    PHONES.into_iter().map(contact).collect()
}

/// Four phones register anew with one NOTIFY and answer with media port 0.
fn signalling(bench: &mut Bench, notifier: &mut Notifier, serial: usize) {
    let mut answer = Answer::active();
    answer.sdp = answer.sdp.replace("m=message 2855", "m=message 0");
    bench.notify(notifier, "partial", &contacts(serial));
    bench.run_s(1);
    let invites: Vec<Sip> = PHONES.iter().map(|_| bench.expect("INVITE")).collect();
    for invite in invites {
        bench.reply(&invite, "100 Trying", "");
        bench.accept(&invite, &answer);
        let bye = bench.expect("BYE");
        bench.reply(&bye, "200 OK", "");
    }
}

/// A deposit for a registered phone, delivered over the phone's connection.
fn full(bench: &mut Bench) {
    bench.run_s(1);
    bench.deposit("hello");
    session(bench);
}

/// Four phones have new bindings under new ids; nobody has mail for them.
fn arrivals(bench: &mut Bench, notifier: &mut Notifier, serial: usize) {
    let document = reginfo(notifier.version, "full", &contacts(serial))
        .replace("id=\"c", &format!("id=\"s{serial}c"))
        .replace("198.51.100.", &format!("198.51.{}.", serial % 250));
    notifier.version += 1;
    let text = bench.notify_text(
        notifier,
        "Event: reg\nSubscription-State: active;expires=599999\n\
         Content-Type: application/reginfo+xml\n",
        &document,
    );
    bench.sip_in(&text);
    bench.expect("200");
    bench.run_s(1);
}

/// From INVITE to the 200 of the BYE, every message delivered.
fn session(bench: &mut Bench) {
    let invite = bench.expect("INVITE");
    bench.bound(&invite, &Answer::active());
    for send in bench.take_msrp() {
        bench.take_message(&send);
    }
    let bye = bench.expect("BYE");
    bench.reply(&bye, "200 OK", "");
}

/// Reads and writes of one push as long as those of the golden flows.
fn octets_of_a_push() -> Vec<(Event, Vec<u8>)> {
    let event = |kind, outgoing| Event {
        at: Timestamp::from_millis(1),
        link: LinkId {
            slot: 1,
            generation: 1,
        },
        kind,
        peer: SocketAddr::from(([192, 0, 2, 7], 5060)),
        outgoing,
    };
    let sip = |outgoing, len| (event(LinkKind::SipOutbound, outgoing), vec![b'x'; len]);
    let msrp =
        |outgoing, text: String| (event(LinkKind::MsrpOutbound, outgoing), text.into_bytes());
    let paths = "To-Path: msrp://10.0.0.2:2855/kaiaad5maaaaaaaabbrrjit5ts4gkoge;tcp\r\n\
                 From-Path: msrp://10.0.0.1:2855/kaiaad5maaaaaaaabbrrjit5ts4gkoge;tcp\r\n";
    let end = "-------kaiaad5maaaaaaaabbrrjit5ts4gkoge$\r\n";
    let body = "x".repeat(760);
    vec![
        sip(true, 1450),
        sip(false, 320),
        sip(false, 1000),
        sip(true, 500),
        msrp(
            true,
            format!(
                "MSRP kaiaad5maaaaaaaabbrrjit5ts4gkoge SEND\r\n{paths}Message-ID: m1\r\n\
                 Success-Report: yes\r\nByte-Range: 1-760/760\r\n\
                 Content-Type: message/cpim\r\n\r\n{body}\r\n{end}"
            ),
        ),
        msrp(
            false,
            format!("MSRP kaiaad5maaaaaaaabbrrjit5ts4gkoge 200 OK\r\n{paths}{end}"),
        ),
        msrp(
            false,
            format!(
                "MSRP kaiaad5maaaaaaaabbrrjit5ts4gkoge REPORT\r\n{paths}Message-ID: m1\r\n\
                 Byte-Range: 1-760/760\r\nStatus: 000 200 OK\r\n{end}"
            ),
        ),
        sip(true, 570),
        sip(false, 400),
    ]
}

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"));
    let scene = arguments.next().unwrap_or_else(|| "signalling".to_owned());
    let pushes = arguments
        .next()
        .map_or(2000, |n| n.parse().expect("a number of pushes"));
    let mut bench = bench();
    match scene.as_str() {
        "signalling" => {
            bench.deposit("stays");
            let mut notifier = bench.subscribed(&contacts(0));
            let invites: Vec<Sip> = PHONES.iter().map(|_| bench.expect("INVITE")).collect();
            for invite in &invites {
                bench.reply(invite, "403 Forbidden", "");
                bench.expect("ACK");
            }
            for serial in 1..WARM + pushes / PHONES.len() {
                bench.shard.watching = serial >= WARM;
                signalling(&mut bench, &mut notifier, serial);
            }
        }
        "full" | "connections" => {
            bench.reuse_links = scene == "full";
            bench.deposit("first");
            bench.subscribed(&[Contact::of(PHONE_A)]);
            session(&mut bench);
            for serial in 0..WARM + pushes {
                bench.shard.watching = serial >= WARM;
                full(&mut bench);
            }
        }
        "arrivals" => {
            bench.deposit("first");
            let mut notifier = bench.subscribed(&[Contact::of(PHONE_A)]);
            session(&mut bench);
            for serial in 0..WARM + pushes / PHONES.len() {
                bench.shard.watching = serial >= WARM;
                arrivals(&mut bench, &mut notifier, serial);
            }
        }
        "recorder" => {
            let mut recorder = Recorder::new(4 << 20, false);
            let push = octets_of_a_push();
            for serial in 0..WARM + pushes {
                let keep = || {
                    for (event, octets) in &push {
                        recorder.record(event, octets);
                    }
                };
                if serial >= WARM {
                    allocation::counted(&mut bench.shard.allocated, keep);
                } else {
                    let mut keep = keep;
                    keep();
                }
            }
        }
        other => panic!("no scene {other}: signalling, full, arrivals or recorder"),
    }
    eprintln!(
        "{scene}: {pushes} pushes, {} calls of the core",
        bench.shard.allocated
    );
}
