//! Codecs: what one message costs, from bytes to the fields a push needs.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use volley::sip::framing::frame;
use volley::sip::message::{HeaderName, HeaderTable, Message};
use volley::sip::parser::{complete, outline, parse};

#[path = "../tests/data/sip_messages.rs"]
mod messages;

/// Every field that handling the answer to a push reads.
fn read_answer(message: &Message<'_>) -> usize {
    let via = message.via_top().expect("the message is sound");
    let cseq = message.cseq().expect("the message is sound");
    let contact = message
        .contact()
        .map(|contact| contact.expect("the message is sound"));
    let timer = message
        .session_expires()
        .map(|timer| timer.expect("the message is sound"));
    usize::from(message.status())
        + via.branch.map_or(0, <[u8]>::len)
        + message.via_count()
        + cseq.number as usize
        + message.to_tag().map_or(0, <[u8]>::len)
        + message.call_id().len()
        + contact.map_or(0, |contact| contact.uri.len())
        + message
            .values(HeaderName::RecordRoute)
            .map(<[u8]>::len)
            .sum::<usize>()
        + timer.map_or(0, |timer| timer.interval_s as usize)
        + usize::from(message.lists(HeaderName::Allow, b"UPDATE"))
        + usize::from(message.lists(HeaderName::Supported, b"timer"))
        + message.body().len()
}

fn sip_parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("sip_parse");
    let mut table = HeaderTable::new();
    let answer = messages::OK_INVITE;
    group.throughput(Throughput::Bytes(answer.len() as u64));
    group.bench_function("200_invite/1016B", |b| {
        b.iter(|| {
            let message = parse(black_box(answer), &mut table).expect("the message is sound");
            read_answer(&message)
        });
    });
    group.bench_function("200_invite_parse_only/1016B", |b| {
        b.iter(|| {
            parse(black_box(answer), &mut table)
                .expect("the message is sound")
                .status()
        });
    });
    group.bench_function("200_invite_frame/1016B", |b| {
        b.iter(|| frame(black_box(answer), 0).expect("the message is sound"));
    });
    for (name, bytes) in [
        ("100_invite", messages::TRYING),
        ("200_bye", messages::OK_BYE),
        ("notify_head", messages::NOTIFY),
    ] {
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                let len = outline(black_box(bytes), &mut table).expect("ordinary");
                let message = complete(&bytes[..len], &mut table).expect("sound");
                message.call_id().len()
            });
        });
    }
    let invite = messages::INVITE;
    group.throughput(Throughput::Bytes(invite.len() as u64));
    group.bench_function("invite/1454B", |b| {
        b.iter(|| {
            let message = parse(black_box(invite), &mut table).expect("the message is sound");
            message.request_uri().len() + message.body().len()
        });
    });
    group.finish();
}

criterion_group!(benches, sip_parse);
criterion_main!(benches);
