//! INVITE encoding: compiled templates against the obvious `write!`.
//!
//! `template/invite/contiguous` is what production does: tokens of 32 characters, UUIDs from the
//! sender. `general` has identifiers of other widths and so takes the general program.

use std::hint::black_box;
use std::io::Write as _;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use volley::sip::template::{DialogFields, InviteFields, Parts, Profile, Scratch, Templates};

const FIELDS: InviteFields<'_> = InviteFields {
    request_uri: b"sip:+15550100@ims.example.net;gr=urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
    branch: b"abcdefghijklmnopqrstuvwxyz234567",
    from_tag: b"bcdefghijklmnopqrstuvwxyz234567a",
    to_uri: b"sip:+15550100@ims.example.net",
    call_id: b"cdefghijklmnopqrstuvwxyz234567ab",
    cseq: 1,
    icid: b"defghijklmnopqrstuvwxyz234567abc",
    session_expires_s: Some(1800),
    min_se: None,
    conversation_id: b"4f93f0fe-86d6-462c-9ba2-e4bc3d1cafcc",
    contribution_id: b"94d850fb-ed40-437e-9609-de9ea0e393d9",
    sdp_session: 3_973_000_001,
    sdp_version: 1,
    msrp_session: b"efghijklmnopqrstuvwxyz234567abcd",
    no_require: false,
    related_icid: b"",
    extra_accept_contact: b"",
    extra_headers: b"",
    from_uri: b"",
};

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

/// The baseline: the same message by one `write!` per part. Its speed is the reason for templates.
fn write_invite(f: &InviteFields<'_>, out: &mut Vec<u8>) {
    let text = |bytes| str::from_utf8(bytes).expect("the bench's fields are text");
    let session = f.sdp_session;
    let version = f.sdp_version;
    let msrp = text(f.msrp_session);
    let start = out.len();
    write!(
        out,
        "v=0\r\no=- {session} {version} IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\n\
         t=0 0\r\nm=message 2855 TCP/MSRP *\r\na=path:msrp://192.0.2.10:2855/{msrp};tcp\r\n\
         a=accept-types:message/cpim\r\na=accept-wrapped-types:*\r\na=setup:actpass\r\n\
         a=msrp-cema\r\na=sendonly\r\n"
    )
    .expect("a Vec grows");
    let body_len = out.len() - start;
    out.truncate(start);
    let (uri, branch, tag) = (text(f.request_uri), text(f.branch), text(f.from_tag));
    let (to, call_id, cseq, icid) = (text(f.to_uri), text(f.call_id), f.cseq, text(f.icid));
    let (conversation, contribution) = (text(f.conversation_id), text(f.contribution_id));
    let expires = f.session_expires_s.unwrap_or_default();
    let tagged = "+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.deferred\"";
    write!(
        out,
        "INVITE {uri} SIP/2.0\r\nVia: SIP/2.0/TCP pf1.ims.example.net:5060;branch=z9hG4bK{branch};\
         oc;oc-algo=\"loss,rate\"\r\nMax-Forwards: 70\r\n\
         Route: <sip:scscf1.ims.example.net:5060;transport=tcp;lr>\r\n\
         From: <sip:cpm-pf@ims.example.net>;tag={tag}\r\nTo: <{to}>\r\n\
         Call-ID: {call_id}@pf1.ims.example.net\r\nCSeq: {cseq} INVITE\r\n\
         Contact: <sip:push@pf1.ims.example.net:5060;transport=tcp>;{tagged};automata\r\n\
         Accept-Contact: *;{tagged}\r\nP-Asserted-Identity: <sip:cpm-pf@ims.example.net>\r\n\
         P-Asserted-Service: urn:urn-7:3gpp-service.ims.icsi.oma.cpm.deferred\r\n\
         P-Charging-Vector: icid-value=\"{icid}\";icid-generated-at=pf1.ims.example.net;\
         orig-ioi=\"ims.example.net\"\r\nUser-Agent: CPM-serv/OMA2.2 volley/0.1.0\r\n\
         Allow: INVITE, ACK, CANCEL, BYE, UPDATE, OPTIONS\r\nSupported: timer\r\n\
         Session-Expires: {expires};refresher=uac\r\nConversation-ID: {conversation}\r\n\
         Contribution-ID: {contribution}\r\nContent-Type: application/sdp\r\n\
         Content-Length: {body_len}\r\n\r\n"
    )
    .expect("a Vec grows");
    write!(
        out,
        "v=0\r\no=- {session} {version} IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\n\
         t=0 0\r\nm=message 2855 TCP/MSRP *\r\na=path:msrp://192.0.2.10:2855/{msrp};tcp\r\n\
         a=accept-types:message/cpim\r\na=accept-wrapped-types:*\r\na=setup:actpass\r\n\
         a=msrp-cema\r\na=sendonly\r\n"
    )
    .expect("a Vec grows");
}

criterion_group!(benches, invite, in_dialog);
criterion_main!(benches);
