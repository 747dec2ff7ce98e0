//! Parsing and writing the same messages: our codecs, rsipstack, rsip, `format!` and `write!`.
//!
//! In each round every subject has its turn; printed are median and range over the rounds, as CPU time of
//! this thread for one operation. `memchr` finds the line ends of the message and `memcpy` copies it: less
//! nobody can do. With `--page` the table goes between `<!-- codecs:begin -->` and `<!-- codecs:end -->`.
//!
//! ```text
//! codecs [ROUNDS] [--page FILE]
//! ```

use std::hint::black_box;
use std::time::Duration;

use rsipstack::sip::prelude::{HeadersExt as _, ToTypedHeader as _};
use volley::reginfo::document::Document;
use volley::sip::message::HeaderTable;
use volley::sip::parser::parse;
use volley::sip::template::{InviteFields, Profile, Templates};

#[path = "../../../../../tests/data/sip_messages.rs"]
#[allow(dead_code)]
mod messages;

#[path = "../../../../shared/answer.rs"]
mod answer_fields;
#[path = "../../../../shared/invite.rs"]
mod invite_by_hand;
#[path = "../../../../shared/walk.rs"]
mod walk;

#[path = "../page.rs"]
mod page;

use answer_fields::read_answer;
use invite_by_hand::{FIELDS, write_invite};
use walk::{TWO_CONTACTS, read_quick_xml};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The same fields where rsipstack has types for them.
fn read_rsipstack(bytes: &[u8]) -> usize {
    let Ok(rsipstack::sip::SipMessage::Response(response)) =
        rsipstack::sip::SipMessage::try_from(bytes)
    else {
        panic!("a sound response");
    };
    let via = response
        .via_header()
        .expect("sound")
        .typed()
        .expect("sound");
    let cseq = response
        .cseq_header()
        .expect("sound")
        .typed()
        .expect("sound");
    let to = response.to_header().expect("sound").typed().expect("sound");
    let contact = response
        .contact_header()
        .expect("sound")
        .typed()
        .expect("sound");
    usize::from(u16::from(response.status_code.clone()))
        + via.params.len()
        + cseq.seq as usize
        + to.params.len()
        + response.call_id_header().expect("sound").value().len()
        + contact.uri.params.len()
        + response.body.len()
}

/// Only what rsipstack does by itself on a message.
fn parse_rsipstack(bytes: &[u8]) -> usize {
    match rsipstack::sip::SipMessage::try_from(bytes) {
        Ok(rsipstack::sip::SipMessage::Response(response)) => response.headers.len(),
        Ok(rsipstack::sip::SipMessage::Request(request)) => request.headers.len(),
        Err(_) => panic!("a sound message"),
    }
}

fn parse_rsip(bytes: &[u8]) -> usize {
    match rsip::SipMessage::try_from(bytes) {
        Ok(rsip::SipMessage::Response(response)) => response.headers.iter().count(),
        Ok(rsip::SipMessage::Request(request)) => request.headers.iter().count(),
        Err(error) => panic!("a sound message: {error}"),
    }
}

/// Finds each line end and looks at where it is: what a parser does at least.
fn lines(bytes: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', bytes).fold(0, |sum, at| sum ^ at)
}

/// One `format!`, whose text is then sent.
fn format_invite(f: &InviteFields<'_>) -> String {
    let mut bytes = Vec::new();
    write_invite(f, &mut bytes);
    String::from_utf8(bytes).expect("text")
}

type Subject<'a> = (&'static str, &'static str, Box<dyn FnMut() -> usize + 'a>);

fn subjects<'a>(templates: &'a Templates, invite: &'a [u8]) -> Vec<Subject<'a>> {
    let answer: &[u8] = messages::OK_INVITE;
    let request: &[u8] = messages::INVITE;
    let mut tables = [(); 3].map(|()| HeaderTable::new()).into_iter();
    let mut table = || tables.next().expect("one for each");
    let (mut a, mut b, mut c) = (table(), table(), table());
    let rsip_invite = rsip::SipMessage::try_from(invite);
    let stack_invite = rsipstack::sip::SipMessage::try_from(invite).expect("sound");
    let mut outs = [(); 3].map(|()| Vec::with_capacity(4096)).into_iter();
    let mut out = || outs.next().expect("one for each");
    let (mut copy, mut ours, mut written) = (out(), out(), out());
    let mut all: Vec<Subject<'a>> = vec![
        (
            "200 to fields",
            "floor: line ends",
            Box::new(move || lines(black_box(answer))),
        ),
        (
            "200 to fields",
            "volley",
            Box::new(move || read_answer(&parse(black_box(answer), &mut a).expect("sound"))),
        ),
        (
            "200 to fields",
            "rsipstack",
            Box::new(move || read_rsipstack(black_box(answer))),
        ),
        (
            "200, head only",
            "volley",
            Box::new(move || {
                usize::from(parse(black_box(answer), &mut b).expect("sound").status())
            }),
        ),
        (
            "200, head only",
            "rsipstack",
            Box::new(move || parse_rsipstack(black_box(answer))),
        ),
        (
            "INVITE, head only",
            "volley",
            Box::new(move || {
                parse(black_box(request), &mut c)
                    .expect("sound")
                    .body()
                    .len()
            }),
        ),
        (
            "INVITE, head only",
            "rsipstack",
            Box::new(move || parse_rsipstack(black_box(request))),
        ),
        (
            "INVITE written",
            "floor: memcpy",
            Box::new(move || {
                copy.clear();
                copy.extend_from_slice(black_box(invite));
                copy.len()
            }),
        ),
        (
            "INVITE written",
            "volley",
            Box::new(move || {
                ours.clear();
                templates.invite(black_box(&FIELDS), &mut ours);
                ours.len()
            }),
        ),
        (
            "INVITE written",
            "write!",
            Box::new(move || {
                written.clear();
                write_invite(black_box(&FIELDS), &mut written);
                written.len()
            }),
        ),
        (
            "INVITE written",
            "format!",
            Box::new(|| format_invite(black_box(&FIELDS)).len()),
        ),
        (
            "INVITE written",
            "rsipstack (to_string)",
            Box::new(move || black_box(&stack_invite).to_string().len()),
        ),
    ];
    let mut document = Document::new();
    all.push((
        "reginfo, 2 contacts",
        "volley",
        Box::new(move || {
            document.parse(black_box(TWO_CONTACTS)).expect("sound");
            document.contacts.len()
        }),
    ));
    all.push((
        "reginfo, 2 contacts",
        "quick-xml (events only)",
        Box::new(|| read_quick_xml(black_box(TWO_CONTACTS))),
    ));
    if rsip::SipMessage::try_from(answer).is_ok() {
        all.push((
            "200, head only",
            "rsip",
            Box::new(move || parse_rsip(black_box(answer))),
        ));
    }
    if rsip::SipMessage::try_from(request).is_ok() {
        all.push((
            "INVITE, head only",
            "rsip",
            Box::new(move || parse_rsip(black_box(request))),
        ));
    }
    if let Ok(message) = rsip_invite {
        all.push((
            "INVITE written",
            "rsip (to_string)",
            Box::new(move || black_box(&message).to_string().len()),
        ));
    }
    all.sort_by_key(|(what, _, _)| *what);
    all
}

/// CPU time of this thread: what others do on this CPU meanwhile is theirs.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("time since the thread started")
}

/// Nanoseconds of an operation, over 30 ms after a warm-up of 3 ms.
fn measure(run: &mut dyn FnMut() -> usize) -> f64 {
    let mut taken = |span: Duration| {
        let (start, mut count) = (cpu_time(), 0u64);
        loop {
            for _ in 0..100 {
                black_box(run());
            }
            count += 100;
            let passed = cpu_time() - start;
            if passed >= span {
                return passed.as_nanos() as f64 / count as f64;
            }
        }
    };
    taken(Duration::from_millis(3));
    taken(Duration::from_millis(30))
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rounds = arguments.iter().find_map(|argument| argument.parse().ok());
    let rounds: usize = rounds.unwrap_or(5).max(1);
    let templates = Templates::compile(&Profile::default()).expect("the default is valid");
    let mut invite = Vec::new();
    templates.invite(&FIELDS, &mut invite);
    let mut written = Vec::new();
    write_invite(&FIELDS, &mut written);
    assert_eq!(invite, written, "all write the same message");
    let mut subjects = subjects(&templates, &invite);
    let mut figures = vec![Vec::new(); subjects.len()];
    for _ in 0..rounds {
        for ((_, _, run), figures) in subjects.iter_mut().zip(&mut figures) {
            figures.push(measure(run.as_mut()));
        }
    }
    let rows: Vec<page::Row> = subjects
        .iter()
        .zip(figures)
        .map(|((what, who, _), figures)| page::Row::new(what, who, "ns", figures))
        .collect();
    page::publish(&rows, "codecs", &arguments);
}
