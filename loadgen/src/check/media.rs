//! SEND requests of a push: MSRP-1 to MSRP-8 as far as one frame shows them.

use super::Bench;
use crate::msrp::{Frame, is_ident};
use crate::rules::Rule;

/// Octets of a chunk above which an exact end is not demanded.
const CHUNK_MAX: usize = 2048;

/// Judges a SEND whose chunk must start at octet `expected`.
pub fn send(frame: &Frame<'_>, expected: u64, bench: &mut Bench<'_>) {
    bench.demand(
        frame.order_ok,
        Rule::Msrp1,
        "headers not in the prescribed order",
    );
    bench.demand(
        is_ident(frame.tid),
        Rule::Msrp2,
        "transaction id is no ident",
    );
    let Some(body) = frame.body else {
        bench.demand(
            frame.content_type.is_empty(),
            Rule::Msrp1,
            "Content-Type without a body",
        );
        return;
    };
    let kind_ok = frame.content_type == b"message/cpim";
    bench.demand(kind_ok, Rule::Cpim1, "Content-Type is not message/cpim");
    bench.demand(
        is_ident(frame.message_id),
        Rule::Msrp4,
        "Message-ID is no ident",
    );
    let reports = frame.success_report == b"yes"
        && (frame.failure_report.is_empty() || frame.failure_report == b"yes");
    bench.demand(
        reports,
        Rule::Msrp8,
        "Success-Report and Failure-Report are not yes",
    );
    let Some(range) = frame.range else {
        bench.fail(Rule::Msrp5, "no Byte-Range");
        return;
    };
    let last = range
        .start
        .saturating_add(body.len() as u64)
        .saturating_sub(1);
    let exact = match range.end {
        Some(end) => end == last,
        None => body.len() > CHUNK_MAX,
    };
    let total_ok = range.total.is_some_and(|total| last <= total);
    bench.demand(
        exact && total_ok,
        Rule::Msrp5,
        "Byte-Range does not fit the body",
    );
    bench.demand(
        body.len() <= CHUNK_MAX || range.end.is_none(),
        Rule::Msrp5,
        "uninterruptible chunk over 2048 octets",
    );
    let ends = range.total == Some(last);
    let flag_ok = exact && frame.flag == if ends { b'$' } else { b'+' };
    bench.demand(
        flag_ok || !exact,
        Rule::Msrp3,
        "continuation flag does not fit the range",
    );
    bench.demand(
        range.start == expected,
        Rule::Msrp6,
        "chunk leaves a gap or repeats",
    );
}
