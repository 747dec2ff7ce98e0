//! Counters of one driver, published for other threads to read.

use core::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[doc = $doc:expr])+ $name:ident),* $(,)?) => {
        /// A plain copy of the counters of a driver. All count up from its start.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $name: u64,)*
        }

        /// Counters of a driver as last published: behind by some turns, or by a second.
        ///
        /// Each driver's stand on lines of the cache that no other driver writes to.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct DriverStats {
            $($name: AtomicU64,)*
        }

        impl DriverStats {
            /// The values as last published. Each is exact for its moment, together nearly so.
            #[must_use]
            pub fn read(&self) -> Counters {
                Counters { $($name: self.$name.load(Ordering::Relaxed),)* }
            }

            pub(super) fn publish(&self, counters: &Counters) {
                $(self.$name.store(counters.$name, Ordering::Relaxed);)*
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
    /// Of these, because their address had `limits.connections_per_source_max`.
    refused_of_source,
    /// Connections opened by us.
    connected,
    /// Connects that failed or ran into their limit.
    connects_failed,
    /// Connections gone, by either side.
    closed,
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
    /// Connections open now.
    open,
    /// CPU time of the thread, microseconds.
    cpu_us,
}
