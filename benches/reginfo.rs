//! Reading a registration document and merging it; quick-xml walks the same bytes for comparison.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use volley::base::time::Timestamp;
use volley::reginfo::document::Document;
use volley::registry::features::KnownLists;
use volley::registry::{RegistryOptions, User};

#[path = "shared/walk.rs"]
mod walk;

use walk::{TWO_CONTACTS, read_quick_xml};

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
        bencher.iter(|| read_quick_xml(black_box(TWO_CONTACTS)));
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
