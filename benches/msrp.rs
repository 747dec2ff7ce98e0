//! MSRP frames: cost of reading and writing one. Ids: `<module>/<operation>/<case>`.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use volley::msrp::frame::{
    Continuation, Frame, OurPath, Parsed, SendFields, encode_response, encode_send,
    end_line_collides, parse,
};

const SEND_493: &[u8] = include_bytes!("../src/msrp/golden/f1-07-msrp-send-1.txt");
const SEND_2048: &[u8] = include_bytes!("../src/msrp/golden/f1-10-msrp-send-2a.txt");
const RESPONSE_200: &[u8] = include_bytes!("../src/msrp/golden/f1-08-msrp-200-1.txt");
const REPORT: &[u8] = include_bytes!("../src/msrp/golden/f1-09-msrp-report-1.txt");
const BIND: &[u8] = include_bytes!("../src/msrp/golden/f1-05-msrp-bind-send.txt");

fn frame(bytes: &[u8]) -> Frame<'_> {
    match parse(bytes, 0) {
        Ok(Parsed::Frame { frame, .. }) => frame,
        other => panic!("a golden frame is whole: {other:?}"),
    }
}

fn parsing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("msrp_frame/parse");
    for (case, bytes) in [
        ("200_response", RESPONSE_200),
        ("report", REPORT),
        ("bind", BIND),
        ("send_493B", SEND_493),
        ("send_2048B", SEND_2048),
    ] {
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(case, |bencher| bencher.iter(|| parse(black_box(bytes), 0)));
    }
    group.finish();
}

fn encoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("msrp_frame/encode");
    let mut out = Vec::with_capacity(8192);
    for (case, golden) in [("send_493B", SEND_493), ("send_2048B", SEND_2048)] {
        let frame = frame(golden);
        let body = frame.body.expect("a golden SEND has a body");
        let fields = SendFields {
            tid: frame.tid,
            to_path: frame.to_path,
            from_path: OurPath {
                prefix: b"msrp://192.0.2.10:2855/",
                session: b"k9Qv3tZs1mXbW7aEoR2y",
                suffix: b";tcp",
            },
            message_id: frame.message_id.expect("a golden SEND has an id"),
            start: 1,
            end: body.len() as u64,
            total: 3515,
            success_report: true,
            failure_report: true,
            content_type: b"message/cpim",
            body,
            continuation: Continuation::Complete,
        };
        group.throughput(Throughput::Bytes(golden.len() as u64));
        group.bench_function(case, |bencher| {
            bencher.iter(|| {
                out.clear();
                encode_send(black_box(&fields), &mut out);
                out.len()
            });
        });
        group.bench_function(format!("collision_check_{}B", body.len()), |bencher| {
            bencher.iter(|| end_line_collides(black_box(body), black_box(frame.tid)));
        });
    }
    let request = frame(SEND_493);
    group.throughput(Throughput::Bytes(RESPONSE_200.len() as u64));
    group.bench_function("200_response", |bencher| {
        bencher.iter(|| {
            out.clear();
            encode_response(black_box(&request), request.to_path, 200, "OK", &mut out);
            out.len()
        });
    });
    group.finish();
}

criterion_group!(benches, parsing, encoding);
criterion_main!(benches);
