//! Reading a registration document and merging it; quick-xml walks the same bytes for comparison.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quick_xml::events::Event;
use quick_xml::name::ResolveResult;
use volley::base::time::Timestamp;
use volley::reginfo::document::Document;
use volley::registry::features::KnownLists;
use volley::registry::{RegistryOptions, User};

/// Two devices under two identities: four contact rows, 2,980 octets.
const TWO_CONTACTS: &[u8] = include_bytes!("../src/reginfo/cases/two_devices.xml");

/// What any reader must do: resolve names, decode attributes and text. Keeps only their lengths.
fn quick_xml(bytes: &[u8]) -> usize {
    let mut reader = quick_xml::NsReader::from_reader(bytes);
    let mut total = 0;
    loop {
        match reader.read_resolved_event() {
            Ok((namespace, Event::Start(tag) | Event::Empty(tag))) => {
                total += usize::from(matches!(namespace, ResolveResult::Bound(_)));
                for attribute in tag.attributes().flatten() {
                    total += attribute.value.len();
                }
            }
            Ok((_, Event::Text(text))) => total += text.len(),
            Ok((_, Event::Eof)) | Err(_) => return total,
            Ok(_) => {}
        }
    }
}

fn document(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("reginfo/document");
    group.throughput(Throughput::Bytes(TWO_CONTACTS.len() as u64));
    let mut document = Document::new();
    group.bench_function("2_contacts", |bencher| {
        bencher.iter(|| {
            document
                .parse(black_box(TWO_CONTACTS))
                .expect("the document is sound");
            document.contacts.len()
        });
    });
    group.bench_function("2_contacts_quick_xml", |bencher| {
        bencher.iter(|| quick_xml(black_box(TWO_CONTACTS)));
    });
    group.finish();
}

fn merge(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("registry/apply");
    group.throughput(Throughput::Elements(1));
    let options = RegistryOptions::default();
    let mut document = Document::new();
    document.parse(TWO_CONTACTS).expect("the document is sound");
    let mut lists = KnownLists::default();
    let mut user = User::default();
    user.reset(b"+15550100");
    user.identity
        .extend_from_slice(b"sip:+15550100@ims.example.net");
    group.bench_function("2_contacts_warm", |bencher| {
        bencher.iter(|| {
            let now = Timestamp::from_millis(1);
            user.apply(now, black_box(&document), &options, &mut lists)
        });
    });
    group.finish();
}

criterion_group!(benches, document, merge);
criterion_main!(benches);
