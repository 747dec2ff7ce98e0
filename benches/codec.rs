//! Codecs: what one message costs, from bytes to the fields a push needs.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use volley::sip::framing::frame;
use volley::sip::message::HeaderTable;
use volley::sip::parser::{complete, outline, parse};

#[path = "shared/answer.rs"]
mod answer_fields;
#[path = "../tests/data/sip_messages.rs"]
mod messages;

use answer_fields::read_answer;

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
