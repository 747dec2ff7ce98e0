//! Counters of one driver, published for other threads to read.

use core::sync::atomic::{AtomicU64, Ordering};

use super::store::Totals;

/// Cells of a [`Spread`]: up to 1, 2, 4 and so on to 2^18, and one for all above.
const SPREAD_CELLS: usize = 20;

/// How often a figure was how large, by powers of two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    cells: [u64; SPREAD_CELLS],
    sum: u64,
}

impl Spread {
    /// Counts one.
    #[inline]
    pub fn record(&mut self, figure: u64) {
        let cell = (u64::BITS - figure.saturating_sub(1).leading_zeros()) as usize;
        self.cells[cell.min(SPREAD_CELLS - 1)] += 1;
        self.sum = self.sum.saturating_add(figure);
    }

    /// All together.
    #[must_use]
    pub const fn sum(&self) -> u64 {
        self.sum
    }

    /// Upper bound of each cell, `None` for the last, with the number counted up to it. Bounds above `most` are
    /// left out.
    pub fn cumulative(&self, most: u64) -> impl Iterator<Item = (Option<u64>, u64)> + '_ {
        let mut up_to = 0;
        let bounds = (0..SPREAD_CELLS).map(|cell| (cell < SPREAD_CELLS - 1).then(|| 1_u64 << cell));
        let all = bounds.zip(&self.cells).map(move |(bound, cell)| {
            up_to += cell;
            (bound, up_to)
        });
        all.filter(move |(bound, _)| bound.is_none_or(|bound| bound <= most))
    }
}

/// A [`Spread`] as last published.
#[derive(Debug, Default)]
struct Shown {
    cells: [AtomicU64; SPREAD_CELLS],
    sum: AtomicU64,
}

impl Shown {
    fn read(&self) -> Spread {
        Spread {
            cells: core::array::from_fn(|cell| self.cells[cell].load(Ordering::Relaxed)),
            sum: self.sum.load(Ordering::Relaxed),
        }
    }

    fn publish(&self, spread: &Spread) {
        for (shown, cell) in self.cells.iter().zip(&spread.cells) {
            shown.store(*cell, Ordering::Relaxed);
        }
        self.sum.store(spread.sum, Ordering::Relaxed);
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:expr])+ $name:ident),* $(,)?) => {
        /// A plain copy of the counters of a driver. All count up from its start.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $name: u64,)*
            /// Microseconds of each turn behind which there was no wait.
            pub turn_us: Spread,
            /// Completions of each turn that had any.
            pub batches: Spread,
            /// Datagrams of each operation that sent some.
            pub trains: Spread,
        }

        /// Counters of a driver as last published: behind by some turns, or by a second.
        ///
        /// Each driver's stand on lines of the cache that no other driver writes to.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct DriverStats {
            $($name: AtomicU64,)*
            turn_us: Shown,
            batches: Shown,
            trains: Shown,
        }

        impl DriverStats {
            /// The values as last published. Each is exact for its moment, together nearly so.
            #[must_use]
            pub fn read(&self) -> Counters {
                Counters {
                    $($name: self.$name.load(Ordering::Relaxed),)*
                    turn_us: self.turn_us.read(),
                    batches: self.batches.read(),
                    trains: self.trains.read(),
                }
            }

            pub(super) fn publish(&self, counters: &Counters) {
                $(self.$name.store(counters.$name, Ordering::Relaxed);)*
                self.turn_us.publish(&counters.turn_us);
                self.batches.publish(&counters.batches);
                self.trains.publish(&counters.trains);
            }
        }

        impl Counters {
            /// Name and value of every counter, for an exporter.
            #[must_use]
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }

            /// What each counter counts, in the order of [`Counters::list`].
            #[must_use]
            pub fn help() -> Vec<&'static str> {
                vec![$(concat!($($doc),+),)*]
            }
        }
    };
}

counters! {
    /// Turns of the driver.
    turns,
    /// Turns of a busy driver that took 10 ms or longer, with what the executor did after them.
    slow_turns,
    /// Calls of `io_uring_enter` on the datapath's ring; without io_uring, rounds of epoll.
    enters,
    /// System calls of the datapath: those of `io_uring_enter`; without io_uring, all that wait, accept, send
    /// and receive.
    system_calls,
    /// Times the driver waited with nothing to do.
    waits,
    /// Those of them in the executor: some task waited for what that does; without io_uring, all.
    parks,
    /// Reads, writes and syncs of files submitted for the store.
    file_operations,
    /// Completions reaped.
    completions,
    /// Octets received on streams and in datagrams.
    rx_bytes,
    /// Octets the kernel took.
    tx_bytes,
    /// Datagrams received.
    rx_datagrams,
    /// Datagrams sent.
    tx_datagrams,
    /// Trains sent: operations with more than one datagram (UDP GSO).
    tx_trains,
    /// Datagrams sent in trains.
    tx_train_datagrams,
    /// Trains sent that were as long as a train may be: 64 datagrams.
    tx_trains_full,
    /// Times a peer was found to take no trains and got datagrams one by one for a minute.
    train_fallbacks,
    /// Receives in which the kernel had joined datagrams (UDP GRO).
    rx_trains,
    /// Datagrams received in trains.
    rx_train_datagrams,
    /// Datagrams cut off by the kernel and dropped, or whose sending failed.
    datagrams_lost,
    /// Of these, cut off: longer than a buffer, or of a sender that could not be told.
    datagrams_cut,
    /// Of these, refused by the kernel when they were to be sent.
    datagrams_unsent,
    /// Datagram sockets opened for one peer each, because it got many datagrams.
    udp_connected,
    /// Datagram sockets of one peer closed, because it got none for a minute.
    udp_disconnected,
    /// Times a datagram socket for one peer could not be had; datagrams went on without.
    udp_connects_failed,
    /// Datagrams that left by a socket connected to their peer.
    tx_connected_datagrams,
    /// Datagrams sent once more because a connected socket had an error of an earlier one.
    tx_repeated_datagrams,
    /// Buffers taken from the core for sending.
    transmits,
    /// Connections accepted.
    accepted,
    /// Accepted connections closed at once: over a cap.
    refused,
    /// Of these, because their source had `limits.connections_per_source_max`.
    refused_of_source,
    /// Connections opened by us.
    connected,
    /// Connects that failed or ran into their limit.
    connects_failed,
    /// Connections gone, by either side.
    closed,
    /// Of these, of sessions that had ended, by peers whose part it was.
    left,
    /// Of these, by us, because the peer whose part it was did not within a second or two.
    left_overdue,
    /// Connections closed because the peer took nothing for too long.
    stalled,
    /// Times a receive ended because all buffers were taken.
    rx_starved,
    /// Turns in which the core had no room and reading paused.
    paused_turns,
    /// Frames passed to other shards.
    mesh_out,
    /// Frames taken from other shards.
    mesh_in,
    /// Host names whose look-up found a queue full and was dropped: the core took them for unknown.
    names_dropped,
    /// Of these, not asked at all.
    names_unasked,
    /// Records made durable by the store.
    store_records,
    /// Octets of these.
    store_record_bytes,
    /// Syncs of the store, each for a group of records.
    store_syncs,
    /// Octets written to segments, padding and headers included; checkpoints are not in it.
    store_written_bytes,
    /// Records read back from disk.
    store_records_read,
    /// Reads of the disk for them.
    store_reads,
    /// Segments reclaimed: kept to be written over, or removed.
    store_segments_reclaimed,
    /// Segments made of earlier ones, whose blocks were written before.
    store_segments_renewed,
    /// Checkpoints made.
    store_checkpoints,
    /// Octets written for checkpoints, those given up included.
    store_checkpoint_bytes,
    /// Connections open now.
    open,
    /// Octets of send buffers that nobody uses just now.
    send_bytes,
    /// Segments of the store now, those made ahead included.
    store_segments,
    /// Files of the store now that are kept to be written over.
    store_segments_free,
    /// Octets of what the store gathers to write: two groups, what waits for the next, pieces of a checkpoint.
    store_write_bytes,
    /// Octets of what the store has read: ahead of those who ask, and for those who have not taken it.
    store_read_bytes,
    /// CPU time of the thread, microseconds.
    cpu_us,
}

impl Counters {
    /// Takes what a store says of itself.
    pub(super) const fn note_store(&mut self, totals: &Totals) {
        self.store_records = totals.appends;
        self.store_record_bytes = totals.append_bytes;
        self.store_syncs = totals.syncs;
        self.store_written_bytes = totals.written_bytes;
        self.store_records_read = totals.reads;
        self.store_reads = totals.read_windows;
        self.store_segments_reclaimed = totals.reclaimed;
        self.store_segments_renewed = totals.renewed;
        self.store_checkpoints = totals.checkpoints;
        self.store_checkpoint_bytes = totals.checkpoint_bytes;
        self.store_segments = totals.segments;
        self.store_segments_free = totals.free_segments;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_counts_by_powers_of_two_and_is_published_whole() {
        let mut counters = Counters::default();
        for figure in [0, 1, 2, 3, 64, 65, 1 << 40] {
            counters.batches.record(figure);
        }
        let stats = DriverStats::default();
        stats.publish(&counters);
        assert_eq!(stats.read(), counters);
        let up_to: Vec<_> = counters.batches.cumulative(64).collect();
        let bounds: Vec<_> = up_to.iter().map(|(bound, _)| *bound).collect();
        let wanted = [1, 2, 4, 8, 16, 32, 64].map(Some);
        assert_eq!(bounds[..7], wanted);
        let counts: Vec<_> = up_to.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [2, 3, 4, 4, 4, 4, 5, 7]);
        assert_eq!(counters.batches.sum(), (1 << 40) + 135);
    }
}
