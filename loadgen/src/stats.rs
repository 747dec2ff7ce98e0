//! Latencies by stage in HDR histograms, and counters.

use hdrhistogram::Histogram;

/// A stage whose latency is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// 200 sent until ACK received.
    AnswerToAck,
    /// 200 sent until the first SEND received.
    AnswerToSend,
    /// MESSAGE due until its 202.
    DepositToAccepted,
    /// NOTIFY sent until its 200.
    NotifyToAnswer,
    /// Trigger due until it was sent: the generator's own delay.
    SendLag,
    /// Trigger due until the message is delivered.
    TriggerToDelivered,
    /// Trigger due until the INVITE is received.
    TriggerToInvite,
    /// Trigger sent until the INVITE is received: leaves out the generator's own delay.
    TriggerToInviteFromSend,
    /// As a client would see it that waits for an answer before it sends the next trigger: while the
    /// engine stalls it waits with it, and takes few samples of the stall.
    TriggerToInviteUncorrected,
}

const STAGES: &[(Stage, &str)] = &[
    (Stage::AnswerToAck, "answer_to_ack"),
    (Stage::AnswerToSend, "answer_to_send"),
    (Stage::DepositToAccepted, "deposit_to_accepted"),
    (Stage::NotifyToAnswer, "notify_to_answer"),
    (Stage::SendLag, "send_lag"),
    (Stage::TriggerToDelivered, "trigger_to_delivered"),
    (Stage::TriggerToInvite, "trigger_to_invite"),
    (
        Stage::TriggerToInviteFromSend,
        "trigger_to_invite_from_send",
    ),
    (
        Stage::TriggerToInviteUncorrected,
        "trigger_to_invite_uncorrected",
    ),
];

impl Stage {
    /// Names of all stages, as objectives and reports write them.
    pub fn names() -> Vec<&'static str> {
        STAGES.iter().map(|&(_, name)| name).collect()
    }

    /// Every stage.
    pub fn all() -> impl Iterator<Item = Self> {
        STAGES.iter().map(|&(stage, _)| stage)
    }

    /// The name of this stage.
    pub fn name(self) -> &'static str {
        STAGES[self as usize].1
    }
}

/// Quantiles an objective may name.
const QUANTILES: &[(&str, f64)] = &[
    ("p50", 0.5),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p999", 0.999),
    ("max", 1.0),
];

/// Quantile and stage of an objective such as `p99_trigger_to_invite_ms`.
pub fn parse_latency_objective(name: &str) -> Option<(f64, Stage)> {
    let (quantile, rest) = name.split_once('_')?;
    let stage = rest.strip_suffix("_ms")?;
    let quantile = QUANTILES.iter().find(|(known, _)| *known == quantile)?.1;
    let stage = STAGES.iter().find(|(_, known)| *known == stage)?.0;
    Some((quantile, stage))
}

/// Whether an objective can be judged.
pub fn objective_known(name: &str) -> bool {
    matches!(
        name,
        "min_pushes_per_s"
            | "max_engine_us_per_push"
            | "min_pushes_per_core_second"
            | "min_goodput"
            | "max_recovery_s"
    ) || parse_latency_objective(name).is_some()
}

/// Latency histograms, nanoseconds, three digits, up to ten minutes.
#[derive(Debug)]
pub struct Latencies {
    stages: Vec<Histogram<u64>>,
}

impl Default for Latencies {
    fn default() -> Self {
        let one = || {
            Histogram::new_with_bounds(100, 600_000_000_000, 3).expect("constant histogram bounds")
        };
        Self {
            stages: STAGES.iter().map(|_| one()).collect(),
        }
    }
}

impl Latencies {
    /// Records the time from `since` to `now`, nanoseconds.
    #[inline]
    pub fn record(&mut self, stage: Stage, since: u64, now: u64) {
        self.stages[stage as usize].saturating_record(now.saturating_sub(since));
    }

    /// The histogram of a stage.
    pub fn of(&self, stage: Stage) -> &Histogram<u64> {
        &self.stages[stage as usize]
    }

    /// Adds another worker's samples.
    pub fn add(&mut self, other: &Self) {
        for (stage, more) in self.stages.iter_mut().zip(&other.stages) {
            stage
                .add(more)
                .expect("all histograms have the same bounds");
        }
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        for stage in &mut self.stages {
            stage.reset();
        }
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Events counted over a run.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters { $( $(#[$doc])* pub $name: u64, )* }

        impl Counters {
            /// Names and values.
            pub fn rows(&self) -> Vec<(&'static str, u64)> {
                vec![ $( (stringify!($name), self.$name), )* ]
            }

            /// Adds another worker's events.
            pub fn add(&mut self, other: &Self) {
                $( self.$name += other.$name; )*
            }

            /// What was added since `earlier`.
            #[must_use]
            pub fn since(&self, earlier: &Self) -> Self {
                Self { $( $name: self.$name.wrapping_sub(earlier.$name), )* }
            }
        }
    };
}

counters! {
    /// Pushes completed: INVITE to BYE.
    pushes,
    /// INVITEs received, repeats apart.
    invites,
    /// ACKs received.
    acks,
    /// BYEs received.
    byes,
    /// CANCELs received.
    cancels,
    /// UPDATEs received.
    updates,
    /// SUBSCRIBEs received.
    subscribes,
    /// Notices and other MESSAGEs of the engine.
    notices,
    /// Requests seen again, answered again.
    repeats,
    /// Requests of ours sent again, over datagrams.
    requests_resent,
    /// Final answers of ours to INVITEs sent again: over streams those with 2xx.
    answers_resent,
    /// Requests and answers given up after 64 * T1.
    requests_given_up,
    /// Answers of the engine seen again.
    answers_again,
    /// Datagrams dropped on purpose.
    chaos_dropped,
    /// Datagrams sent or taken twice on purpose.
    chaos_doubled,
    /// Datagrams held back on purpose.
    chaos_delayed,
    /// REGISTERs sent.
    registers,
    /// REGISTERs sent again because a connection was lost.
    registers_again,
    /// Milliseconds in which this generator stood still, a second or more at a time.
    stood_still_ms,
    /// NOTIFYs sent.
    notifies,
    /// Triggers that the registrar spoiled.
    registrar_faults,
    /// NOTIFYs answered 200.
    notifies_answered,
    /// Messages deposited: MESSAGEs, and INVITEs of large ones.
    deposits,
    /// Of these, answered 202 or reported stored.
    deposits_accepted,
    /// Of these, refused.
    deposits_refused,
    /// Chunks of large messages deposited.
    chunks_deposited,
    /// Triggers that fell due.
    triggers_due,
    /// Triggers sent.
    triggers_sent,
    /// Triggers not sent because the generator was late: `--late skip`, or the step was over.
    missed_late,
    /// Triggers not sent because no user was idle.
    missed_no_user,
    /// Triggers that did not complete within the drain time.
    triggers_stalled,
    /// Triggers given up because their phones had refused or did not answer.
    triggers_refused,
    /// INVITEs that phones refused.
    refused,
    /// Sessions that phones ended.
    hung_up,
    /// Refreshes that phones sent.
    phone_refreshes,
    /// Refreshes of the engine that crossed the BYE of a phone.
    updates_crossed,
    /// INVITEs that overtook the BYE of the session before them.
    invites_crossed,
    /// BYEs that came too late behind the next INVITE of their phone; judged by their own sessions, and not at all
    /// where those had to be forgotten.
    byes_late,
    /// Sessions that stood at the end of a hold.
    sessions_held,
    /// Sessions that the engine ended before, and not for want of a refresh.
    sessions_ended,
    /// Sessions that the engine ended for want of a refresh.
    sessions_expired,
    /// SENDs that phones refused.
    sends_refused,
    /// MSRP SENDs received.
    sends,
    /// MSRP REPORTs sent.
    reports,
    /// REPORT frames, of which several may be for one message.
    report_frames,
    /// MSRP connections that phones broke in the middle of a message.
    media_broken,
    /// INVITEs that next hops refused.
    hop_refusals,
    /// Connections that next hops closed on an INVITE.
    hop_closes,
    /// Answers in which next hops asked for less.
    hop_wishes,
    /// MSRP connections accepted from the engine.
    msrp_accepted,
    /// MSRP connections opened to the engine.
    msrp_opened,
    /// SIP connections accepted from the engine.
    sip_accepted,
    /// Connections lost or refused.
    links_lost,
    /// Octets received.
    bytes_in,
    /// Octets queued for sending.
    bytes_out,
    /// Datagrams received.
    datagrams_in,
    /// Receives that brought them: fewer where they came in trains.
    receives,
    /// Turns: receive batches handled.
    turns,
    /// Messages that fit no state.
    strays,
}
