//! Next hops in front of the phones: several ports, and INVITEs that a hop refuses, swallows with its
//! connection, or answers with a wish for less (RFC 7339).
//!
//! What a hop does with an INVITE is drawn from the seed. A hop that answered 503 with Retry-After gets
//! no INVITE until then (RSP-28), and the INVITE comes back by another with a branch of its own and all
//! else as it was (NH-3). What a lost connection took along may come again, so answers are kept.

use std::collections::BTreeMap;

use super::{World, put_head};
use crate::behaviour::{HOPS, Hop, Mix};
use crate::check::dialog::Dialog;
use crate::check::invite::InviteCheck;
use crate::link::LinkId;
use crate::rules::Rule;
use crate::scan::{Header, Message};

/// Retry-After of a hop that is busy, seconds.
const RETRY_AFTER_S: u64 = 1;
/// How long INVITEs may still come that left before the 503 did, nanoseconds.
const GRACE: u64 = 300_000_000;
/// Refused INVITEs remembered.
const REFUSED_MAX: usize = 100_000;
/// New requests a second that a hop asks for, and for how long, milliseconds.
const RATE: u64 = 100;
const RATE_MS: u64 = 10_000;
/// How many may come together after a while without any, as time at that rate: an engine's or our own stand, and
/// the four that may leave at once.
const RATE_SLACK: u64 = 1_040_000_000;

/// What the hops have done.
#[derive(Debug, Default)]
pub(super) struct Hops {
    /// INVITEs refused, by branch: their dialogs, for the ACK.
    refused: BTreeMap<u64, Dialog>,
    /// INVITEs that no hop passed on yet, by device, and whether they were refused.
    rerouted: BTreeMap<u64, (Dialog, bool)>,
    /// What each hop has said.
    wants: Vec<Wants>,
    /// INVITEs so far, of which the draws are.
    nth: u32,
    /// When a hop last closed a connection.
    closed_at: u64,
    /// `oc-seq` of the last wish.
    wishes: u32,
}

/// What a hop has said that it wants; times of this run.
#[derive(Clone, Debug, Default)]
struct Wants {
    /// Nothing new between these.
    nothing: (u64, u64),
    /// No more than the rate between these.
    rate: (u64, u64),
    /// When it would be as if nothing had come, at that rate.
    empty_at: u64,
}

/// Whether `now` lies between two times.
fn holds((from, until): (u64, u64), now: u64) -> bool {
    (from..until).contains(&now)
}

impl World {
    /// Whether hops do anything but pass on.
    pub(super) fn has_bad_hops(&self) -> bool {
        !self.setup.hops.is_only(Hop::Good)
    }

    /// Whether answers are kept because requests may come again.
    pub(super) fn remembers(&self) -> bool {
        self.is_datagram() || self.has_bad_hops()
    }

    /// A hop gets an INVITE; true when it goes no further.
    pub(super) fn hop_takes(&mut self, link: LinkId, message: &Message<'_>) -> bool {
        if !self.has_bad_hops() {
            return false;
        }
        let Some(push) = InviteCheck::read(&self.names, message) else {
            return false;
        };
        let Some(index) = self.device_index(push.user, push.device) else {
            return false;
        };
        let dialog = self.dialog_from(&push);
        self.judge_hop(link, index, &dialog, message.bytes);
        self.hops.nth = self.hops.nth.wrapping_add(1);
        let worker = usize::from(self.setup.worker);
        match self.setup.hops.draw(worker, self.hops.nth) {
            Hop::Good => false,
            Hop::Oc => {
                self.wish(link, message, "oc=10;oc-algo=\"loss\";oc-validity=500");
                self.wants(link).rate = (0, 0);
                false
            }
            Hop::Rate => {
                let wish = format!("oc={RATE};oc-algo=\"rate\";oc-validity={RATE_MS}");
                self.wish(link, message, &wish);
                let now = self.now;
                let rate = &mut self.wants(link).rate;
                if rate.1 <= now {
                    rate.0 = now + GRACE;
                }
                rate.1 = now + RATE_MS * 1_000_000;
                false
            }
            Hop::Busy => {
                self.counters.hop_refusals += 1;
                self.reroute(index, dialog, true);
                if self.hops.refused.len() < REFUSED_MAX {
                    self.hops.refused.insert(dialog.branch, dialog);
                }
                let now = self.now;
                let nothing = &mut self.wants(link).nothing;
                if nothing.1 <= now {
                    *nothing = (now + GRACE, now + RETRY_AFTER_S * 1_000_000_000);
                }
                let tail = b"Retry-After: 1\r\n";
                let tag = Some(&b"hop-busy"[..]);
                self.reply(link, message, b"503 Service Unavailable", tag, tail);
                true
            }
            Hop::Close => {
                self.counters.hop_closes += 1;
                self.reroute(index, dialog, false);
                self.hops.closed_at = self.now;
                self.outbox.closes.push(link);
                true
            }
        }
    }

    /// Whether requests of a session may have gone with a connection that a hop closed.
    pub(super) fn is_cut_off(&self, index: usize) -> bool {
        self.was_cut_off(self.devices[index].answered_at)
    }

    /// The same of a session that was answered then.
    pub(super) fn was_cut_off(&self, answered_at: u64) -> bool {
        let closed = self.hops.closed_at;
        closed != 0 && answered_at <= closed + 1_000_000_000
    }

    /// For the self-test: from now on all hops are like this.
    pub(crate) fn provoke_hops(&mut self, like: &str) {
        let all = [format!("{like}:1")];
        self.setup.hops =
            Mix::parse("hops", &all, HOPS, Hop::Good, 1).expect("a constant mix is good");
        self.outbox.ends_kept = true;
    }

    fn reroute(&mut self, index: usize, dialog: Dialog, refused: bool) {
        if self.hops.rerouted.len() < REFUSED_MAX {
            self.hops.rerouted.insert(index as u64, (dialog, refused));
        }
    }

    /// RSP-28: the hop is not asked again too early. NH-3: a refused INVITE comes back as it was.
    fn judge_hop(&mut self, link: LinkId, index: usize, dialog: &Dialog, message: &[u8]) {
        let now = self.now;
        let (from, until) = self.wants(link).nothing;
        if holds((from, until.saturating_sub(GRACE / 10)), now) {
            let what = "an INVITE to a hop that asked for none";
            self.violations.record(Rule::Rsp28, what, message);
        }
        let Some((old, refused)) = self.hops.rerouted.remove(&(index as u64)) else {
            return;
        };
        if old.call_id != dialog.call_id {
            // Given up meanwhile: another push.
            return;
        }
        let same = old.from_tag == dialog.from_tag && old.invite_cseq == dialog.invite_cseq;
        let new = old.branch != dialog.branch || !refused;
        if !(same && new) {
            let what = "not the refused INVITE with a branch of its own";
            self.violations.record(Rule::Nh3, what, message);
        }
    }

    /// What the hop that a connection leads to has said.
    fn wants(&mut self, link: LinkId) -> &mut Wants {
        let hop = usize::from(self.outbox.peek(link).hop);
        if self.hops.wants.len() <= hop {
            self.hops.wants.resize(hop + 1, Wants::default());
        }
        &mut self.hops.wants[hop]
    }

    /// OVL-3: a new request came to a hop, which may have asked for so many a second.
    pub(super) fn judge_rate(&mut self, link: LinkId, message: &[u8]) {
        if self.hops.wishes == 0 {
            return;
        }
        let now = self.now;
        let wants = self.wants(link);
        if !holds(wants.rate, now) {
            return;
        }
        wants.empty_at = wants.empty_at.max(now) + 1_000_000_000 / RATE;
        if wants.empty_at > now + RATE_SLACK {
            // Said once for a second's worth.
            wants.empty_at = now;
            let what = "more new requests than the hop asked for";
            self.violations.record(Rule::Ovl3, what, message);
        }
    }

    /// The ACK to a refusal of a hop; true when it is one.
    pub(super) fn hop_acknowledged(&mut self, message: &Message<'_>) -> bool {
        if self.hops.refused.is_empty() {
            return false;
        }
        let via = message.value(Header::Via).unwrap_or(&[]);
        let branch = crate::check::via_param(via).unwrap_or(&[]);
        let key = self.hasher.hash(3, branch);
        let Some(dialog) = self.hops.refused.get(&key) else {
            return false;
        };
        let mut bench = super::bench(&mut self.violations, message);
        self.dialogs
            .ack_refusal_tagged(message, dialog, b"hop-busy", &mut bench);
        self.counters.acks += 1;
        true
    }

    /// A 100 by which the hop asks for less (RFC 7339 section 4).
    fn wish(&mut self, link: LinkId, message: &Message<'_>, wish: &str) {
        self.counters.hop_wishes += 1;
        self.hops.wishes += 1;
        let mut head = Vec::with_capacity(512);
        put_head(&mut head, message, b"100 Trying", None);
        let text = String::from_utf8_lossy(&head).into_owned();
        let asked = format!(";{wish};oc-seq={}.0", self.hops.wishes);
        let text = text.replacen(";oc;oc-algo=\"loss,rate\"", &asked, 1);
        let out = self.outbox.buffer(link);
        out.extend_from_slice(text.as_bytes());
        out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
        self.outbox.sent(link);
    }
}
