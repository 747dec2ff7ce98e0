//! Bounds that hold everywhere, with the relations between them. Options live beside their code.

/// Largest SIP message taken from a stream, octets (NH-5). Larger is refused with 513 or a close.
pub const SIP_MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// Largest header section of a SIP message, octets (BAD-12).
pub const SIP_HEADER_SECTION_BYTES_MAX: usize = 64 * 1024;
/// Most header fields of a SIP message (BAD-12).
pub const SIP_HEADERS_MAX: usize = 256;
/// Longest single header line including folds, octets (BAD-12).
pub const SIP_LINE_BYTES_MAX: usize = 16 * 1024;
/// Largest UDP payload, octets.
pub const UDP_PAYLOAD_BYTES_MAX: usize = 65_535;
/// Longest URI taken from the network for use in our own requests, octets (BAD-23).
pub const URI_BYTES_MAX: usize = 1024;
/// Most Record-Route entries of a dialog (BAD-24).
pub const ROUTES_MAX: usize = 32;
/// Largest MSRP header section, octets (BAD-26).
pub const MSRP_HEADER_BYTES_MAX: usize = 8 * 1024;
/// Octets a peer may send on an MSRP connection before it names a session of ours (MSRP-19).
pub const MSRP_UNBOUND_BYTES_MAX: usize = 8 * 1024;
/// Most URIs in an MSRP path.
pub const MSRP_PATH_URIS_MAX: usize = 16;
/// Largest chunk body sent without interruption, octets (RFC 4975 section 7.1.1).
pub const MSRP_CHUNK_BYTES_MAX: usize = 2048;
/// Largest body accepted inbound in an MSRP SEND (IMDN only), octets.
pub const MSRP_INBOUND_BYTES_MAX: usize = 16 * 1024;
/// Largest body of a chunk of a large message, octets (INT-13).
pub const MSRP_LARGE_CHUNK_BYTES_MAX: usize = 256 * 1024;
/// Largest SDP body judged, octets (BAD-25).
pub const SDP_BYTES_MAX: usize = 16 * 1024;
/// Largest reginfo document, octets (REG-11).
pub const REGINFO_BYTES_MAX: usize = 256 * 1024;
/// Most contacts of one reginfo document (REG-11).
pub const REGINFO_CONTACTS_MAX: usize = 64;
/// Deepest element nesting of a reginfo document (REG-11).
pub const REGINFO_DEPTH_MAX: usize = 16;
/// Most devices pushed to per user (RSP-31).
pub const DEVICES_PER_USER_MAX: usize = 8;
/// Most unanswered MSRP requests of one session (MSRP-7).
pub const MSRP_WINDOW: usize = 8;
/// Most shards of one process: the shard number of an identifier has eight bits.
pub const SHARDS_MAX: usize = 256;
/// Sessions, users and queues of a shard that are never folded, each: a small population does not pay for
/// being one that might grow.
pub const WARM_KEPT: usize = 1024;
/// Values above which a shard that is never without work folds what is idle within a second or two, of each kind.
/// Below, folding takes a percent or two of its time: who comes back in a storm does not pay for the rest after it.
pub const WARM_EASY: usize = 1 << 18;

const _: () = assert!(
    SIP_HEADER_SECTION_BYTES_MAX <= SIP_MESSAGE_BYTES_MAX,
    "a header section is part of a message"
);
const _: () = assert!(
    SIP_LINE_BYTES_MAX <= SIP_HEADER_SECTION_BYTES_MAX,
    "a line is part of a header section"
);
const _: () = assert!(
    UDP_PAYLOAD_BYTES_MAX <= SIP_MESSAGE_BYTES_MAX,
    "a datagram fits a message"
);
