//! What a shard dropped, by the reason for it. Bounded: the reasons are enums, one cell each.

/// What was dropped of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    /// Name of all together, without the `_total` of its samples.
    pub name: &'static str,
    /// What is counted.
    pub help: &'static str,
    /// How many, by reason.
    pub cells: Vec<Cell>,
}

impl Family {
    /// All reasons together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.cells.iter().map(|cell| cell.count).sum()
    }
}

/// One reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Its label.
    pub reason: &'static str,
    /// What it stands for.
    pub help: &'static str,
    /// How often it was the reason.
    pub count: u64,
}

macro_rules! drops {
    ($(
        $(#[doc = $doc:expr])+
        $family:ident $total:literal $reasons:ident {
            $($(#[doc = $why:expr])+ $reason:ident $label:literal,)+
        }
    )+) => {
        $(
            $(#[doc = $doc])+
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub enum $reasons {
                $($(#[doc = $why])+ $reason,)+
            }

            impl $reasons {
                /// Counts one.
                pub const fn count(self, drops: &mut Drops) {
                    self.count_many(drops, 1);
                }

                /// Counts some.
                pub const fn count_many(self, drops: &mut Drops, count: u64) {
                    drops.$family[self as usize] += count;
                }
            }
        )+

        /// Counters of what was dropped, since the shard started.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Drops {
            $($family: [u64; [$($label),+].len()],)+
        }

        impl Drops {
            /// Every kind, in declaration order.
            #[must_use]
            pub fn families(&self) -> Vec<Family> {
                vec![$(Family {
                    name: stringify!($family),
                    help: concat!($($doc),+),
                    cells: vec![$(Cell {
                        reason: $label,
                        help: concat!($($why),+),
                        count: self.$family[$reasons::$reason as usize],
                    },)+],
                },)+]
            }

            /// Every kind as one counter: its name and all reasons together.
            pub fn totals(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$(($total, self.$family()),)+].into_iter()
            }

            $(
                $(#[doc = $doc])+
                #[must_use]
                pub fn $family(&self) -> u64 {
                    self.$family.iter().sum()
                }
            )+

            /// Adds `other` cell by cell.
            pub fn merge(&mut self, other: &Self) {
                $(for (sum, more) in self.$family.iter_mut().zip(other.$family) {
                    *sum += more;
                })+
            }
        }
    };
}

drops! {
    /// SIP messages that were dropped: nobody got them, and they got no answer.
    sip_dropped "sip_dropped_total" SipDropped {
        /// an ACK that does not parse
        Ack "ack",
        /// a response that does not parse
        Response "response",
        /// a request that does not parse, and what an answer needs cannot be read either
        Unanswerable "unanswerable",
    }
    /// Output dropped: messages that a link, or the way to another shard, did not take.
    output_dropped "output_dropped_total" OutputDropped {
        /// the link was gone
        LinkGone "link_gone",
        /// we were closing the link
        LinkClosing "link_closing",
        /// too much waited for the link already
        LinkFull "link_full",
        /// the link was lost before its turn came; the datagrams of a socket count each, a stream's octets as one
        LinkLost "link_lost",
        /// too many frames for other shards waited
        MeshFull "mesh_full",
    }
    /// MSRP frames refused or ignored.
    msrp_rejected "msrp_rejected_total" MsrpRejected {
        /// it comes from another connection or path than the session's, or is about no SEND of ours
        Misplaced "misplaced",
        /// the session does not take what it brings, and it was told so
        Refused "refused",
        /// there is no such session, or no more
        Sessionless "sessionless",
        /// it is no MSRP, or longer than it may be; the connection is closed
        Unreadable "unreadable",
    }
    /// Notices to senders that were owed or to be passed on, and could not be made or taken.
    notices_dropped "notices_dropped_total" NoticesDropped {
        /// too many were owed
        Owed "owed_full",
        /// too many were on their way
        UnderWay "under_way_full",
        /// the record of the message it is about does not give what it needs
        Record "record",
    }
    /// Streams closed because no more sense could be made of them.
    streams_broken "streams_broken_total" StreamsBroken {
        /// the framing was lost
        Framing "framing",
        /// the rest of a message did not come in time
        Partial "partial",
        /// a connection for MSRP that named no session in time, or not within its first octets
        Unbound "unbound",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_cell_of_its_own_and_the_total_is_their_sum() {
        let mut drops = Drops::default();
        SipDropped::Response.count(&mut drops);
        SipDropped::Ack.count_many(&mut drops, 2);
        OutputDropped::MeshFull.count(&mut drops);
        let mut twice = drops.clone();
        twice.merge(&drops);
        let count = |family: &str, reason: &str| {
            let families = twice.families();
            let family = families.iter().find(|found| found.name == family).unwrap();
            family
                .cells
                .iter()
                .find(|cell| cell.reason == reason)
                .unwrap()
                .count
        };
        assert_eq!(count("sip_dropped", "response"), 2);
        assert_eq!(count("sip_dropped", "ack"), 4);
        assert_eq!(count("output_dropped", "mesh_full"), 2);
        assert_eq!(count("output_dropped", "link_gone"), 0);
        for (family, (total, sum)) in twice.families().iter().zip(twice.totals()) {
            assert_eq!(format!("{}_total", family.name), total);
            assert_eq!(family.total(), sum);
        }
    }

    #[test]
    fn labels_are_short_words_and_no_two_of_a_kind_are_the_same() {
        for family in Drops::default().families() {
            let mut labels: Vec<_> = family.cells.iter().map(|cell| cell.reason).collect();
            let is_word = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
            assert!(
                labels.iter().all(|label| label.bytes().all(is_word)),
                "{labels:?}"
            );
            labels.sort_unstable();
            labels.dedup();
            assert_eq!(labels.len(), family.cells.len(), "{}", family.name);
        }
    }
}
