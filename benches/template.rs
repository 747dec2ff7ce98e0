//! INVITE encoding: compiled templates against the obvious `write!`.
//!
//! `template/invite/contiguous` is what production does: tokens of 32 characters, UUIDs from the
//! sender. `general` has identifiers of other widths and so takes the general program.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use volley::sip::template::{DialogFields, InviteFields, Parts, Profile, Scratch, Templates};

#[path = "shared/invite.rs"]
mod invite_by_hand;

use invite_by_hand::{FIELDS, write_invite};

fn encoded_len(templates: &Templates, fields: &InviteFields<'_>) -> u64 {
    let mut out = Vec::new();
    templates.invite(fields, &mut out);
    out.len() as u64
}

fn invite(c: &mut Criterion) {
    let templates = Templates::compile(&Profile::default()).expect("the default is valid");
    let mut group = c.benchmark_group("template/invite");
    group.throughput(Throughput::Bytes(encoded_len(&templates, &FIELDS)));
    let mut out = Vec::with_capacity(4096);
    group.bench_function("contiguous", |b| {
        b.iter(|| {
            out.clear();
            templates.invite(black_box(&FIELDS), &mut out);
            black_box(out.len())
        });
    });
    let mut scratch = Scratch::new();
    group.bench_function("vectored", |b| {
        b.iter(|| {
            let mut parts = Parts::new();
            templates.invite_vectored(black_box(&FIELDS), &mut scratch, &mut parts);
            black_box(parts.as_slices().len())
        });
    });
    group.bench_function("write_macro", |b| {
        b.iter(|| {
            out.clear();
            write_invite(black_box(&FIELDS), &mut out);
            black_box(out.len())
        });
    });
    let general = InviteFields {
        call_id: b"5f0c6a1e9d2b4c7781aa",
        cseq: 12,
        ..FIELDS
    };
    group.throughput(Throughput::Bytes(encoded_len(&templates, &general)));
    group.bench_function("general", |b| {
        b.iter(|| {
            out.clear();
            templates.invite(black_box(&general), &mut out);
            black_box(out.len())
        });
    });
    group.finish();
}

fn in_dialog(c: &mut Criterion) {
    let templates = Templates::compile(&Profile::default()).expect("the default is valid");
    let fields = DialogFields {
        request_uri: FIELDS.request_uri,
        branch: FIELDS.branch,
        route_lines: b"Route: <sip:mt@scscf1.ims.example.net:5060;transport=tcp;lr>\r\n\
            Route: <sip:mt@pcscf1.ims.example.net:5060;lr>\r\n",
        from_tag: FIELDS.from_tag,
        to_value: b"<sip:+15550100@ims.example.net>;tag=ue-9c41b7",
        call_id: FIELDS.call_id,
        cseq: 1,
        reason: b"SIP;cause=200;text=\"deferred queue drained\"",
        ..DialogFields::default()
    };
    let mut out = Vec::with_capacity(4096);
    templates.ack(&fields, &mut out);
    let mut group = c.benchmark_group("template/in_dialog");
    group.throughput(Throughput::Bytes(out.len() as u64));
    group.bench_function("ack", |b| {
        b.iter(|| {
            out.clear();
            templates.ack(black_box(&fields), &mut out);
            black_box(out.len())
        });
    });
    group.bench_function("bye", |b| {
        b.iter(|| {
            out.clear();
            templates.bye(black_box(&fields), &mut out);
            black_box(out.len())
        });
    });
    group.finish();
}

criterion_group!(benches, invite, in_dialog);
criterion_main!(benches);
