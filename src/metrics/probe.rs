//! One struct of counters per shard, with the names they are published under.

use crate::metrics::drops::Drops;
use crate::metrics::histogram::Histogram;

macro_rules! probe {
    ($($(#[doc = $doc:expr])+ $name:ident,)+) => {
        /// Counters since the shard started. Every drop has one.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Probe {
            $($(#[doc = $doc])+ pub $name: u64,)+
            /// What was dropped, by reason.
            pub drops: Drops,
            /// From an INVITE to the 2xx that answered it.
            pub answer_time: Histogram,
            /// From when a message was begun in a session, to be sent, to its delivery.
            pub delivery_time: Histogram,
            /// From the ACK to the first delivery of the session, with its connection.
            pub first_delivery_time: Histogram,
            /// From what asked for an INVITE (a NOTIFY, a deposit, a wait that ended) to the end of the turn
            /// that sent it.
            pub trigger_time: Histogram,
            /// How long after its tick a timer fired, of whatever kind; the tick is up to one later than its moment.
            pub timer_lateness: Histogram,
        }

        impl Probe {
            /// Every counter with its name: those of [`Probe::plain`], then what was dropped, for whatever reason.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                self.plain().chain(self.drops.totals())
            }

            /// Every counter that has no reasons, in declaration order.
            pub fn plain(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($name), self.$name),)+].into_iter()
            }

            /// What each counter counts, in the order of [`Probe::plain`].
            pub fn help() -> impl Iterator<Item = &'static str> {
                [$(concat!($($doc),+),)+].into_iter()
            }

            /// Adds `other` counter by counter.
            pub fn merge(&mut self, other: &Self) {
                $(self.$name += other.$name;)+
                self.drops.merge(&other.drops);
                self.answer_time.merge(&other.answer_time);
                self.delivery_time.merge(&other.delivery_time);
                self.first_delivery_time.merge(&other.first_delivery_time);
                self.trigger_time.merge(&other.trigger_time);
                self.timer_lateness.merge(&other.timer_lateness);
            }
        }
    };
}

probe! {
    /// Initial INVITEs sent, without retransmissions.
    invites_sent_total,
    /// Requests and ACKs sent again by a transaction timer or a repeated response.
    retransmissions_total,
    /// 2xx to initial INVITEs, first of each push.
    invites_accepted_total,
    /// Final failures of initial INVITEs.
    invites_failed_total,
    /// ACKs sent to 2xx responses.
    acks_sent_total,
    /// CANCELs sent.
    cancels_sent_total,
    /// BYEs sent.
    byes_sent_total,
    /// BYEs received in a push dialog.
    byes_received_total,
    /// Session refreshes sent.
    refreshes_sent_total,
    /// New offers of ours inside a dialog, because an anchor does not know CEMA.
    reoffers_sent_total,
    /// Offers of peers inside a dialog, answered.
    offers_answered_total,
    /// Offers of peers inside a dialog, refused.
    offers_refused_total,
    /// Jumps of the wall clock that were not believed at once.
    clock_jumps_total,
    /// Pushes that ended.
    pushes_ended_total,
    /// Pushes that ended without a session.
    pushes_failed_total,
    /// Second and later 2xx of a fork, answered with ACK and BYE.
    forks_ended_total,
    /// 2xx that came after we gave up, answered with ACK and BYE.
    late_2xx_total,
    /// Responses no state was found for.
    responses_stray_total,
    /// Responses whose identifier failed its MAC or its form.
    responses_forged_total,
    /// SIP messages whose head was like one read before, and was not read again.
    sip_recalled_total,
    /// Messages whose push or user was asked for while the message before them was handled.
    messages_foreseen_total,
    /// SIP messages that were read whole.
    sip_read_total,
    /// SIP requests refused with 4xx, 5xx for their form.
    sip_rejected_total,
    /// Requests over UDP refused with 503: no server transaction was free, or long enough answered.
    server_transactions_full_total,
    /// Server transactions forgotten before their time, in favour of new ones.
    server_transactions_forgotten_total,
    /// Frames from peers outside `trusted_peers`.
    untrusted_total,
    /// Third-party REGISTERs answered 200.
    registers_total,
    /// Times a host name of a route was taken for unknown, because 256 others were being looked up.
    names_crowded_total,
    /// SUBSCRIBEs sent.
    subscribes_sent_total,
    /// SUBSCRIBEs that waited for a hop, or for the end of what it asked for, or for those begun before them to come to their INVITEs.
    subscribes_delayed_total,
    /// NOTIFYs applied.
    notifies_total,
    /// Verdicts of decisions: the user is not served here.
    verdict_user_not_served_total,
    /// Verdicts of decisions: the user is barred.
    verdict_user_barred_total,
    /// Verdicts of decisions: the user wants messages held.
    verdict_user_pref_hold_total,
    /// Verdicts of decisions: no message waits.
    verdict_no_message_total,
    /// Verdicts of decisions: the provider has stopped pushes.
    verdict_stopped_total,
    /// Verdicts of decisions: not registered, or not for long enough.
    verdict_not_active_total,
    /// Verdicts of decisions: no usable address.
    verdict_no_gruu_total,
    /// Verdicts of decisions: no accepted service.
    verdict_no_cpm_total,
    /// Verdicts of decisions: excluded by its user.
    verdict_pref_excluded_total,
    /// Verdicts of decisions: roams.
    verdict_roaming_total,
    /// Verdicts of decisions: a push to it is open.
    verdict_busy_push_total,
    /// Verdicts of decisions: waits for its registration to change.
    verdict_wait_total,
    /// Verdicts of decisions: left alone for its binding.
    verdict_quarantine_total,
    /// Verdicts of decisions: tried again later.
    verdict_backoff_total,
    /// Verdicts of decisions: no message is for it.
    verdict_nothing_for_it_total,
    /// Verdicts of decisions: too many other devices took messages that still wait.
    verdict_no_place_total,
    /// Verdicts of decisions: others come first.
    verdict_fanout_cut_total,
    /// Verdicts of decisions: no next hop has room.
    verdict_throttled_total,
    /// Verdicts of decisions: selected.
    verdict_selected_total,
    /// Rules of selection put in force after the start.
    rules_adopted_total,
    /// NOTIFYs refused.
    notifies_rejected_total,
    /// Reginfo documents that did not parse.
    reginfo_rejected_total,
    /// Selection runs.
    decisions_total,
    /// Devices selected.
    devices_selected_total,
    /// MESSAGEs stored and answered 202.
    deposits_total,
    /// MESSAGEs recognised as repeats and answered 202 without a second copy.
    deposits_duplicate_total,
    /// MESSAGEs refused with 503 because the store is behind; counted among those refused, too.
    deposits_overload_total,
    /// NOTIFYs answered unread in a turn that had too many; full state is asked for later.
    notifies_postponed_total,
    /// MESSAGEs refused.
    deposits_rejected_total,
    /// Of these, refused because the store had failed or its disk was full.
    deposits_unwell_total,
    /// MSRP SENDs sent.
    msrp_sends_total,
    /// Times a session waited because its MSRP connection had enough to send.
    msrp_held_back_total,
    /// MSRP octets of message content sent.
    msrp_content_bytes_total,
    /// MSRP REPORTs received.
    msrp_reports_total,
    /// MSRP connections opened by us.
    msrp_connects_total,
    /// MSRP connections that failed or were lost with a session on them.
    msrp_lost_total,
    /// (message, device) pairs delivered with a REPORT or IMDN.
    delivered_total,
    /// Of these, pairs counted on the next hop's 200 only.
    delivered_hop_ack_total,
    /// (message, device) pairs refused.
    refused_total,
    /// Of these, `M-TOO-LARGE-FOR-DEVICE`.
    refused_too_large_total,
    /// Of these, `M-TYPE`.
    refused_type_total,
    /// Of these, `M-REJ-400`.
    refused_400_total,
    /// Of these, `M-REJ-403`.
    refused_403_total,
    /// Of these, `M-REJ-413`.
    refused_413_total,
    /// Of these, `M-REJ-415`.
    refused_415_total,
    /// Of these, `M-REJ-423`.
    refused_423_total,
    /// Of these, `M-POISON`: the device lost three sessions in a row over the message.
    refused_poison_total,
    /// Messages removed because every selected device has them.
    messages_completed_total,
    /// Messages expired.
    messages_expired_total,
    /// Delivered or refused marks appended to the store.
    marks_total,
    /// Bodies read back from the store.
    store_loads_total,
    /// Reads of a body that gave nothing usable.
    store_unreadable_total,
    /// (message, device) pairs put off until the next start, because the record stayed unreadable.
    store_put_off_total,
    /// Appends the store refused for good.
    store_failures_total,
    /// Frames handed to another shard.
    mesh_sent_total,
    /// Overload feedback of next hops that changed what they get (RFC 7339).
    overload_feedback_total,
    /// Pushes that waited because a next hop asked for less.
    pushes_throttled_total,
    /// Turns in which decisions waited: the shard was behind, and enough was under way.
    turns_held_total,
    /// Notices sent to senders, repeated tries included.
    notices_sent_total,
    /// Notices of our own, about messages whose life ended.
    notices_failed_total,
    /// Timers fired.
    timers_fired_total,
    /// Sessions agreed in which a large message is to come.
    large_sessions_total,
    /// INVITEs of such sessions that were refused.
    large_refused_total,
    /// Large messages taken in.
    large_messages_total,
    /// Large messages that broke off after their first part.
    large_abandoned_total,
    /// Times a sender was not read from because the store was behind.
    large_held_total,
    /// Messages that their senders took back.
    messages_revoked_total,
    /// Notices of ours that a message is stored.
    notices_stored_total,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_adds_counter_by_counter_and_names_are_unique() {
        let mut a = Probe {
            invites_sent_total: 2,
            ..Probe::default()
        };
        a.merge(&Probe {
            invites_sent_total: 3,
            timers_fired_total: 1,
            ..Probe::default()
        });
        assert_eq!((a.invites_sent_total, a.timers_fired_total), (5, 1));
        let mut names: Vec<_> = a.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), a.iter().count());
    }
}
