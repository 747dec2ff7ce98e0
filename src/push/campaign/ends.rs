//! What follows from how it went: marks, removals, notices, and when a device is tried again.

use super::{Campaigns, Parts, seconds};
use crate::base::slab::Key;
use crate::base::time::Timestamp;
use crate::imdn::{self, Ending, Requested};
use crate::push::delivery::Progress;
use crate::push::reason::MessageReason;
use crate::push::{Ctx, Outcome, Push};
use crate::registry::{self, Class, Facts, User, classify};
use crate::selection::DeviceView;
use crate::store::index::{Entry, Fate, Mailbox, Marked};
use crate::store::op::{DepositFlags, Evidence, Mark, MarkKind, RemovalReason};

impl Campaigns {
    /// Keys of the devices that message `number` waits for: those registered now that a decision could
    /// select for it.
    fn goal_devices(&mut self, user: &mut User, number: u64, mailbox: &Mailbox, now: Timestamp) {
        self.keys.clear();
        self.rule(user);
        let policy = self.rules.policy(user.ruling);
        let preference = self.rules.preference(user.ruling);
        let entry = mailbox.lookup(number);
        for device in &user.devices {
            let wanted = preference.is_none_or(|preference| {
                let limit = preference.limit_of(device.key);
                preference.admits(device.key)
                    && entry.is_none_or(|entry| limit.takes(entry.bytes(), entry.hints()))
            });
            let reachable = device.active && device.expires_at > now;
            if reachable && wanted && policy.is_capable(&DeviceView::of(device)) {
                self.keys.push(device.key);
            }
        }
    }

    /// Takes what happened to a message in a session into the queue and the store.
    pub fn record(
        &mut self,
        parts: &mut Parts<'_, '_>,
        user: Key,
        device: u64,
        progress: Progress,
    ) {
        let (number, fate, kind) = match progress {
            Progress::None | Progress::Session(_) | Progress::Failed { .. } => return,
            Progress::Delivered {
                number,
                by,
                since: _,
            } => {
                let by = evidence(by);
                parts.ctx.probe.delivered_total += 1;
                if by == Evidence::HopAck {
                    parts.ctx.probe.delivered_hop_ack_total += 1;
                }
                (number, Fate::Delivered, MarkKind::Delivered { device, by })
            }
            Progress::Refused { number, reason } => {
                parts.ctx.probe.refused_total += 1;
                *reason.counter(parts.ctx.probe) += 1;
                let status = reason.status();
                (number, Fate::Refused, MarkKind::Refused { device, status })
            }
        };
        let mailbox = parts.ctx.post.mailbox(user.slot);
        if mailbox.mark(number, device, fate) != Marked::Recorded {
            return;
        }
        let goal = self.options.goal;
        let now = parts.ctx.now;
        self.goal_devices(parts.user, number, mailbox, now);
        let settled = mailbox.is_settled(number, goal, &self.keys);
        let Some(location) = mailbox.lookup(number).and_then(|entry| entry.location()) else {
            return;
        };
        parts.ctx.probe.marks_total += 1;
        // The last device's mark and the removal are one record: the removal says both.
        let kind = if settled {
            MarkKind::Removed {
                reason: RemovalReason::Delivered,
            }
        } else {
            kind
        };
        let mark = Mark {
            user: &parts.user.canonical,
            number,
            at: parts.ctx.wall,
            kind,
        };
        parts.ctx.post.append_mark(&mark, location, settled);
        if settled {
            parts.ctx.post.mailbox(user.slot).remove(number);
            parts.ctx.post.cache.remove(number);
            parts.ctx.post.queue.left(number);
            parts.ctx.probe.messages_completed_total += 1;
        }
    }

    /// Removes messages whose life has ended (LIFE-3), but for those in transfer, whose numbers are
    /// `moving`. A sender who asked for it is told, once the removal is durable (IMDN-4).
    pub fn expire(&mut self, parts: &mut Parts<'_, '_>, user: Key, moving: &[u64]) {
        let now_s = seconds(parts.ctx);
        let is_moving = |number| moving.contains(&number);
        while let Some(entry) = parts
            .ctx
            .post
            .mailbox(user.slot)
            .poll_expired_unless(now_s, is_moving)
        {
            let location = entry.location().expect("only durable messages expire");
            let mark = Mark {
                user: &parts.user.canonical,
                number: entry.number(),
                at: parts.ctx.wall,
                kind: MarkKind::Removed {
                    reason: RemovalReason::Expired,
                },
            };
            if owes_notice(&entry) {
                parts.ctx.post.append_expired(&mark, location);
            } else {
                parts.ctx.post.append_mark(&mark, location, true);
                parts.ctx.post.cache.remove(entry.number());
            }
            parts.ctx.post.queue.left(entry.number());
            parts.ctx.probe.messages_expired_total += 1;
        }
    }

    /// Removes message `number` for another reason than its delivery or its age: it is told to nobody.
    pub fn purge(
        &mut self,
        parts: &mut Parts<'_, '_>,
        user: Key,
        number: u64,
        reason: RemovalReason,
    ) {
        let removed = parts.ctx.post.mailbox(user.slot).remove(number);
        let Some(location) = removed.and_then(|entry| entry.location()) else {
            return;
        };
        let mark = Mark {
            user: &parts.user.canonical,
            number,
            at: parts.ctx.wall,
            kind: MarkKind::Removed { reason },
        };
        parts.ctx.post.append_mark(&mark, location, true);
        parts.ctx.post.cache.remove(number);
        parts.ctx.post.queue.left(number);
    }

    /// The session of `push` lost its connection: counts that against what was in transfer. The message
    /// during which it happened once too often is refused for this device, so that the rest gets
    /// through (BAD-30).
    pub fn blame(&mut self, parts: &mut Parts<'_, '_>, push: &Push) {
        let Some(device) = parts.user.device_mut(push.device) else {
            return;
        };
        let losses = device.losses.get_or_insert_default();
        if let Some(number) = losses.lost_during(push.inflight.iter().map(|message| message.number))
        {
            let progress = Progress::Refused {
                number,
                reason: MessageReason::Poison,
            };
            self.record(parts, push.user(), push.device, progress);
        }
    }

    /// A push ended: its device may be pushed to again, now or later (RSP-1..30). True when the
    /// registrar should be asked for full state first (RSP-7).
    pub fn finish(&mut self, parts: &mut Parts<'_, '_>, push: &Push, outcome: Outcome) -> bool {
        let mut refresh = false;
        let now = parts.ctx.now;
        let class = class_of(outcome);
        apply_hop(parts.ctx, push, class);
        assert!(parts.state.pushes > 0, "a push ends once");
        parts.state.pushes -= 1;
        parts.ctx.probe.pushes_ended_total += 1;
        if !matches!(
            outcome,
            Outcome::Drained | Outcome::Cap | Outcome::PeerBye | Outcome::NoHop
        ) {
            parts.ctx.probe.pushes_failed_total += 1;
        }
        if let Some(device) = parts.user.device_mut(push.device)
            && device.pushing == push.key
        {
            device.pushing = None;
            if matches!(outcome, Outcome::Drained | Outcome::Cap) {
                device.losses = None;
            }
            if let Some(agents) = push.agents
                && agents != device.agents
            {
                device.agents = agents;
                let rules = &self.options.registry.dialects;
                device.dialect = rules.pick(device.features, agents);
            }
            let status = if let Outcome::Status { status, .. } = outcome {
                status
            } else {
                0
            };
            let binding = push.binding;
            let record = registry::Outcome {
                class,
                status,
                binding,
                required: parts.ctx.env.forms.common.demands_features() && !push.no_require,
                code: outcome.code(),
                note: &push.note,
            };
            let followup = device.record(now, record, parts.ctx.jitter, &self.options.outcome);
            refresh = followup.refresh_subscription;
        }
        let user = push.user();
        let has_mail = parts
            .ctx
            .post
            .mailbox_ref(user.slot)
            .is_some_and(|mailbox| !mailbox.is_empty());
        if outcome == Outcome::NoHop {
            // Its INVITE is still owed.
            parts.state.triggered_at = parts.state.triggered_at.min(push.stage_from);
        }
        if has_mail
            && outcome == Outcome::NoHop
            && let Some(until) = parts.ctx.hops.held_until(now, push.set, parts.ctx.jitter)
        {
            // Held back by what the hop asks for: offered again then (OVL-4).
            parts.ctx.probe.pushes_throttled_total += 1;
            parts.state.decide_at = parts.state.decide_at.min(until);
        } else if has_mail {
            self.changed(now, user, parts.state);
        }
        self.hop_room();
        refresh
    }
}

/// Whether the sender of a message that expired is told (IMDN-4, IMDN-7). One that a device has was
/// not lost, whatever other devices missed.
fn owes_notice(entry: &Entry) -> bool {
    let flags = entry.flags();
    let ending = if entry.is_delivered() {
        Ending::Delivered
    } else {
        Ending::Expired
    };
    let requested = Requested {
        negative_delivery: flags.contains(DepositFlags::IMDN_NEGATIVE),
        ..Requested::default()
    };
    let is_notice = flags.contains(DepositFlags::IS_IMDN);
    imdn::notice_due(requested, ending, is_notice, false).is_some()
}

fn evidence(by: crate::msrp::session::Evidence) -> Evidence {
    match by {
        crate::msrp::session::Evidence::HopAck => Evidence::HopAck,
        crate::msrp::session::Evidence::Imdn => Evidence::Imdn,
        crate::msrp::session::Evidence::Report => Evidence::Report,
    }
}

/// The class of section 4 for any end of a push.
#[must_use]
pub fn class_of(outcome: Outcome) -> Class {
    let backoff = Class::Backoff {
        pace: registry::outcome::Pace::Exponential,
        at_least: None,
        no_match: false,
    };
    match outcome {
        Outcome::Drained | Outcome::Cap => Class::Session,
        Outcome::Status {
            status,
            retry_after_s,
        } => {
            let facts = Facts {
                alternate_tried: true,
                min_se_exhausted: true,
                ..Facts::default()
            };
            classify(status, retry_after_s, facts)
        }
        // An answer that cannot be used: the next binding may bring a better one.
        Outcome::Sdp(_) | Outcome::NoContact => Class::Quarantine { alarm: false },
        // Nothing was sent: neither success nor fault of the device.
        Outcome::NoHop => Class::Cancelled,
        Outcome::NoAnswer
        | Outcome::MsrpConnect
        | Outcome::MsrpBind
        | Outcome::MsrpTimeout
        | Outcome::MsrpLost
        | Outcome::MsrpStatus(_)
        | Outcome::PeerBye
        | Outcome::Refresh => backoff,
    }
}

fn apply_hop(ctx: &mut Ctx<'_>, push: &Push, class: Class) {
    let Class::NextHop(trouble) = class else {
        return;
    };
    if let (registry::outcome::HopTrouble::Unavailable { hold: Some(hold) }, Some(hop)) =
        (trouble, push.used_hop)
    {
        ctx.hops.avoid(hop, ctx.now + hold);
    }
}
