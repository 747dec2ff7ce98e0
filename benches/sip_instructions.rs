//! One SIP message, made to be counted rather than timed: see `instructions` for how.
//!
//! Arguments: scene (`trying`, `answer`, `recall`, `bye`, `invite`, `notify`, `establish`, `respond`) and rounds
//! (default 1,000). What is counted goes from a stream's octets to the fields that their handling reads.

use std::hint::black_box;
use std::net::SocketAddr;

use volley::sip::dialog::{Dialog, Peers};
use volley::sip::message::{HeaderName, HeaderTable, Message};
use volley::sip::parser::{Familiar, complete, outline, parse, recalled};
use volley::sip::response::respond;

#[path = "../tests/data/sip_messages.rs"]
mod messages;

/// What the profiler collects.
#[inline(never)]
fn counted<T>(work: impl FnOnce() -> T) -> T {
    work()
}

/// What finding the owner of a response takes.
fn route(message: &Message<'_>) -> usize {
    let via = message.via_top().expect("the message is sound");
    let cseq = message.cseq().expect("the message is sound");
    via.branch.map_or(0, <[u8]>::len)
        + message.via_count()
        + message.call_id().len()
        + cseq.number as usize
}

/// What the handling of an accepted INVITE reads, its dialog apart.
fn answer(message: &Message<'_>) -> usize {
    let timer = message.session_expires().map(|timer| timer.expect("sound"));
    message.to_tag().map_or(0, <[u8]>::len)
        + timer.map_or(0, |timer| timer.interval_s as usize)
        + usize::from(message.lists(HeaderName::Allow, b"UPDATE"))
        + message
            .header(HeaderName::ContentType)
            .map_or(0, <[u8]>::len)
}

fn head(message: &Message<'_>) -> usize {
    let state = message.parameterized(HeaderName::SubscriptionState);
    let event = message.parameterized(HeaderName::Event);
    message.to_tag().map_or(0, <[u8]>::len)
        + message.from_tag().map_or(0, <[u8]>::len)
        + state.map_or(0, |state| state.value.len())
        + event.map_or(0, |event| event.value.len())
        + message.call_id().len()
}

/// An answer whose head is like one before.
fn recall(bytes: &[u8], familiar: &mut Familiar, table: &mut HeaderTable) -> usize {
    let Some(len) = familiar.recall(bytes, table) else {
        familiar.learn(&parse(bytes, table).expect("the message is sound"));
        return 0;
    };
    let message = recalled(&bytes[..len], table);
    route(&message) + answer(&message)
}

fn read(bytes: &[u8], table: &mut HeaderTable, fields: fn(&Message<'_>) -> usize) -> usize {
    let len = outline(bytes, table).expect("the message is ordinary");
    fields(&complete(&bytes[..len], table).expect("the message is sound"))
}

fn main() {
    let mut words = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"));
    let scene = words.next().unwrap_or_else(|| "answer".to_owned());
    let rounds = words.next().map_or(1000, |n| n.parse().expect("a number"));
    let (mut table, mut other) = (HeaderTable::new(), HeaderTable::new());
    let (mut familiar, mut peers) = (Familiar::new(), Peers::new());
    let mut dialog = Dialog::default();
    let mut out = Vec::with_capacity(4096);
    let source: SocketAddr = "192.0.2.30:5060".parse().expect("an address");
    let accepted = parse(messages::OK_INVITE, &mut other).expect("sound");
    let mut requests = HeaderTable::new();
    let notify = parse(messages::NOTIFY, &mut requests).expect("sound");
    let mut sum = 0;
    for _ in 0..rounds {
        sum += counted(|| match scene.as_str() {
            "trying" => read(black_box(messages::TRYING), &mut table, route),
            "answer" => read(black_box(messages::OK_INVITE), &mut table, |message| {
                route(message) + answer(message)
            }),
            "recall" => recall(black_box(messages::OK_INVITE), &mut familiar, &mut table),
            "bye" => read(black_box(messages::OK_BYE), &mut table, route),
            "invite" => read(black_box(messages::INVITE), &mut table, head),
            "notify" => read(black_box(messages::NOTIFY), &mut table, head),
            "establish" => {
                let made = dialog.establish(black_box(&accepted), &mut peers);
                made.expect("sound");
                dialog.request_uri().len()
            }
            "respond" => {
                out.clear();
                respond(black_box(&notify), source, 200, "", b"", b"", b"", &mut out);
                out.len()
            }
            other => panic!("no scene {other}"),
        });
    }
    eprintln!("{scene}: {rounds} rounds, {sum}");
}
