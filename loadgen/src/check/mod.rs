//! The strict checks, one file for each kind of message the engine sends.
//!
//! Each check is a single pass over the header lines; static values (the same in every message of
//! one engine) are judged once and then compared with the octets found good.

pub mod dialog;
pub mod invite;
pub mod media;
pub mod sdp;
pub mod subscribe;

use crate::rules::{Rule, Violations};
use crate::scan::{Header, Message, Span};

/// Where a check reports: the rule broken and the message at fault.
#[derive(Debug)]
pub struct Bench<'a> {
    /// The collected violations.
    pub violations: &'a mut Violations,
    /// The message on trial.
    pub evidence: &'a [u8],
    /// Whether anything was found.
    pub clean: bool,
}

impl<'a> Bench<'a> {
    /// A bench for one message.
    pub fn new(violations: &'a mut Violations, evidence: &'a [u8]) -> Self {
        Self {
            violations,
            evidence,
            clean: true,
        }
    }

    /// Reports unless `holds`.
    #[inline]
    pub fn demand(&mut self, holds: bool, rule: Rule, what: &'static str) {
        if !holds {
            self.fail(rule, what);
        }
    }

    /// Reports.
    #[cold]
    pub fn fail(&mut self, rule: Rule, what: &'static str) {
        self.clean = false;
        self.violations.record(rule, what, self.evidence);
    }
}

/// Remembers the last value found good, so that a static value costs one comparison.
#[derive(Debug, Default)]
pub struct KnownGood(Vec<u8>);

impl KnownGood {
    /// Whether `value` equals the last good one.
    #[inline]
    pub fn is(&self, value: &[u8]) -> bool {
        !self.0.is_empty() && self.0 == value
    }

    /// Remembers a good value.
    pub fn set(&mut self, value: &[u8]) {
        self.0.clear();
        self.0.extend_from_slice(value);
    }
}

/// Forms of message ([`Message::form`]) in which every rule about fixed octets was found kept.
///
/// Two messages of one form have the same fixed octets, so a rule that reads only those needs to be
/// applied once. The `N` parts in which they differ lie at the same places, and are judged in every
/// message. A form that differs anywhere else is never proven.
#[derive(Debug)]
pub struct ProvenForms<const N: usize> {
    forms: [u32; PROVEN_MAX],
    spans: [[Span; N]; PROVEN_MAX],
    next: usize,
}

/// Proven forms remembered.
const PROVEN_MAX: usize = 8;

impl<const N: usize> Default for ProvenForms<N> {
    fn default() -> Self {
        Self {
            forms: [0; PROVEN_MAX],
            spans: [[(0, 0); N]; PROVEN_MAX],
            next: 0,
        }
    }
}

impl<const N: usize> ProvenForms<N> {
    /// The parts that differ, when `message` is of a proven form.
    #[inline]
    pub fn parts<'a>(&self, message: &Message<'a>) -> Option<[&'a [u8]; N]> {
        if message.form == 0 {
            return None;
        }
        let index = self.forms.iter().position(|&form| form == message.form)?;
        Some(self.spans[index].map(|span| message.part(span)))
    }

    /// Notes that every rule was found kept in a message with these parts.
    pub fn note(&mut self, message: &Message<'_>, parts: [&[u8]; N]) {
        let spans = parts.map(|part| message.span(part));
        let covered = message
            .free
            .iter()
            .all(|&(from, to)| spans.iter().any(|&(start, end)| start <= from && to <= end));
        if message.form != 0 && covered {
            self.forms[self.next] = message.form;
            self.spans[self.next] = spans;
            self.next = (self.next + 1) % PROVEN_MAX;
        }
    }
}

/// Hashes identifiers of the peer with fixed keys: the same within a run, cheap.
#[derive(Clone, Debug)]
pub struct Hasher(ahash::RandomState);

impl Default for Hasher {
    fn default() -> Self {
        Self(ahash::RandomState::with_seeds(
            0x243f_6a88_85a3_08d3,
            0x1319_8a2e_0370_7344,
            0xa409_3822_299f_31d0,
            0x082e_fa98_ec4e_6c89,
        ))
    }
}

impl Hasher {
    /// Hash of some octets; `salt` keeps kinds of identifiers apart.
    #[inline]
    pub fn hash(&self, salt: u8, bytes: &[u8]) -> u64 {
        self.0.hash_one((salt, bytes))
    }
}

/// The branch of the top Via, and whether it is as TX-8 wants it.
pub fn via_branch<'a>(
    message: &Message<'a>,
    transport: &[u8],
    bench: &mut Bench<'_>,
) -> Option<&'a [u8]> {
    let Some(via) = message.value(Header::Via) else {
        bench.fail(Rule::Tx8, "no Via");
        return None;
    };
    bench.demand(
        message.count(Header::Via) == 1,
        Rule::Tx8,
        "more than one Via",
    );
    let rest = via.strip_prefix(b"SIP/2.0/").unwrap_or(&[]);
    bench.demand(
        rest.starts_with(transport),
        Rule::Nh4,
        "Via does not name the transport in use",
    );
    let branch = via_param(via).unwrap_or(&[]);
    judge_branch(branch, bench);
    Some(branch)
}

/// The branch of a Via value.
pub fn via_param(via: &[u8]) -> Option<&[u8]> {
    let tail = &via[memchr::memchr(b';', via)?..];
    // The branch is nearly always the first parameter.
    match tail.strip_prefix(b";branch=") {
        Some(rest) => Some(&rest[..memchr::memchr(b';', rest).unwrap_or(rest.len())]),
        None => crate::scan::param(tail, b"branch"),
    }
}

/// Whether a branch is as TX-8 wants it.
#[inline]
pub fn judge_branch(branch: &[u8], bench: &mut Bench<'_>) {
    bench.demand(
        branch.starts_with(b"z9hG4bK") && branch.len() > 8,
        Rule::Tx8,
        "branch does not start with z9hG4bK",
    );
}

/// The tag of a From or To value.
#[inline]
pub fn tag(value: &[u8]) -> Option<&[u8]> {
    // Behind the angle bracket of a name-addr, else behind the addr-spec.
    let tail = match memchr::memrchr(b'>', value) {
        Some(at) => &value[at + 1..],
        None => &value[memchr::memchr(b';', value)?..],
    };
    match tail.strip_prefix(b";tag=") {
        Some(tag) if memchr::memchr(b';', tag).is_none() => Some(tag),
        _ => crate::scan::param(tail, b"tag"),
    }
}

#[cfg(test)]
mod tests;
