//! The rules the judge applies, each tied to a row of the requirements, and what it found.

use core::fmt;

/// Identifies a rule; [`Rule::id`] is the row of the requirements it checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[expect(
    missing_docs,
    reason = "`Rule::id` and `Rule::text` document each variant"
)]
pub enum Rule {
    PushA,
    Reg9,
    Reg2,
    Reg4,
    Reg5,
    Rsp28,
    Rsp31,
    PushB,
    PushB1,
    PushB2,
    PushC,
    PushD,
    PushE,
    PushF,
    PushF1,
    PushF2,
    PushF3,
    PushG,
    PushGI,
    PushH,
    PushI,
    PushJ,
    PushK,
    PushL,
    Push0a,
    Tx8,
    Nh3,
    Nh4,
    Nh6,
    Ovl3,
    Ims1,
    Ims6,
    Sdp1,
    Sdp2,
    Sdp3,
    Sdp4,
    Sdp5,
    Sdp6,
    Sdp7,
    Sdp8,
    Sdp9,
    Sdp10,
    Ok0,
    Ok2,
    Ok3,
    Dlg1,
    Dlg3,
    Dlg5,
    Dlg6,
    Dlg8,
    Tx5,
    Tx7,
    Tx13,
    St2,
    St8,
    St9,
    St13,
    St14,
    St15,
    Sub1,
    Sub7,
    Sub8,
    Sx1,
    Isc1,
    Int2,
    Imdn4,
    Msrp1,
    Msrp2,
    Msrp3,
    Msrp4,
    Msrp5,
    Msrp6,
    Msrp8,
    Msrp16,
    Cpim1,
    Cpim5,
}

/// Every rule with its row and its text.
const RULES: &[(Rule, &str, &str)] = &[
    (
        Rule::PushA,
        "PUSH-a",
        "R-URI of a push is the public GRUU issued for the device, byte for byte",
    ),
    (
        Rule::Reg9,
        "REG-9",
        "The GRUU is the one of the identity the message was addressed to",
    ),
    (
        Rule::Reg2,
        "REG-2",
        "A document of an old version changes nothing; after a gap the subscription is refreshed",
    ),
    (
        Rule::Reg4,
        "REG-4",
        "No push to a device that was told gone",
    ),
    (
        Rule::Reg5,
        "REG-5",
        "No push without a reason: nothing queued, nothing new about the device",
    ),
    (
        Rule::Rsp28,
        "RSP-28",
        "A next hop that answered 503 gets no INVITE until its Retry-After is over",
    ),
    (
        Rule::Rsp31,
        "RSP-31",
        "At most one push dialog per device at a time",
    ),
    (
        Rule::PushB,
        "PUSH-b",
        "Accept-Contact carries the CPM feature tag with ac-value *",
    ),
    (
        Rule::PushB1,
        "PUSH-b1",
        "The tag-value list is quoted, colons percent-encoded, the tag given once per value",
    ),
    (
        Rule::PushB2,
        "PUSH-b2",
        "Accept-Contact without require and explicit (default policy)",
    ),
    (
        Rule::PushC,
        "PUSH-c",
        "User-Agent names the CPM release (OMA...)",
    ),
    (
        Rule::PushD,
        "PUSH-d",
        "Contact carries the CPM feature tag as a header parameter",
    ),
    (Rule::PushE, "PUSH-e", "Contact carries automata, bare"),
    (Rule::PushF, "PUSH-f", "Session-Expires present and >= 90"),
    (Rule::PushF1, "PUSH-f1", "Session-Expires has refresher=uac"),
    (
        Rule::PushF2,
        "PUSH-f2",
        "Supported lists timer in every request except ACK",
    ),
    (
        Rule::PushF3,
        "PUSH-f3",
        "Neither Require nor Proxy-Require lists timer",
    ),
    (
        Rule::PushG,
        "PUSH-g",
        "Content-Type application/sdp with one offer",
    ),
    (
        Rule::PushGI,
        "PUSH-g.i/ii",
        "The one direction attribute is sendonly, at the configured level",
    ),
    (Rule::PushH, "PUSH-h", "First Route is the S-CSCF, with lr"),
    (
        Rule::PushI,
        "PUSH-i",
        "Conversation-ID and Contribution-ID are those of the oldest queued message",
    ),
    (
        Rule::PushJ,
        "PUSH-j",
        "One P-Asserted-Identity, one plain P-Asserted-Service, no P-Preferred-*",
    ),
    (
        Rule::PushK,
        "PUSH-k",
        "One P-Charging-Vector with icid-value, icid-generated-at and orig-ioi; icid fresh",
    ),
    (
        Rule::PushL,
        "PUSH-l",
        "To without gr or tag, From tag, Max-Forwards 70, CSeq < 2^31, Allow, no 100rel",
    ),
    (
        Rule::Push0a,
        "PUSH-0a",
        "Every push has its own Call-ID, From tag, o= session id and MSRP path",
    ),
    (
        Rule::Tx8,
        "TX-8",
        "One Via, branch starts z9hG4bK and is unique",
    ),
    (
        Rule::Nh3,
        "NH-3",
        "A refused INVITE comes by another hop with a branch of its own and all else as it was",
    ),
    (
        Rule::Nh4,
        "NH-4",
        "Via names the transport in use; a request over 1300 octets goes by TCP",
    ),
    (
        Rule::Nh6,
        "NH-6",
        "A stream carries whole messages framed by Content-Length",
    ),
    (
        Rule::Ovl3,
        "OVL-3",
        "A next hop that asked for a rate gets no more new requests in a second than that",
    ),
    (
        Rule::Ims1,
        "IMS-1",
        "No orig parameter in the Route of a push",
    ),
    (
        Rule::Ims6,
        "IMS-6",
        "No P-Access-Network-Info or P-Visited-Network-ID towards the client",
    ),
    (
        Rule::Sdp1,
        "SDP-1",
        "Lines in the order v o s c t m a, CRLF ends, s=-, t=0 0, family matches",
    ),
    (
        Rule::Sdp2,
        "SDP-2",
        "o= has user name - and numeric session id and version",
    ),
    (
        Rule::Sdp3,
        "SDP-3",
        "One line m=message <port> TCP/MSRP *; port and c= are those of the path",
    ),
    (
        Rule::Sdp4,
        "SDP-4",
        "One path URI with explicit port, ;tcp and a session-id of at least 14 characters",
    ),
    (Rule::Sdp5, "SDP-5", "accept-types lists message/cpim"),
    (Rule::Sdp6, "SDP-6", "accept-wrapped-types is *"),
    (Rule::Sdp7, "SDP-7", "max-size, when present, is a number"),
    (
        Rule::Sdp8,
        "SDP-8",
        "setup:actpass, no connection attribute",
    ),
    (Rule::Sdp9, "SDP-9", "msrp-cema present (default policy)"),
    (
        Rule::Sdp10,
        "SDP-10",
        "Exactly one direction attribute in the offer",
    ),
    (Rule::Ok0, "OK-0", "Every 2xx is acknowledged"),
    (
        Rule::Ok2,
        "OK-2",
        "R-URI of ACK, BYE, UPDATE is the Contact of the 2xx",
    ),
    (
        Rule::Ok3,
        "OK-3",
        "Every queued message is sent before BYE, oldest first",
    ),
    (
        Rule::Dlg1,
        "DLG-1",
        "In-dialog requests carry the dialog's Call-ID and tags and its reversed route set",
    ),
    (
        Rule::Dlg3,
        "DLG-3",
        "ACK has the INVITE's CSeq number, a new branch, no body, no Session-Expires",
    ),
    (
        Rule::Dlg5,
        "DLG-5",
        "CSeq grows by one per request in the dialog",
    ),
    (
        Rule::Dlg6,
        "DLG-6",
        "No in-dialog request for a dialog that does not exist",
    ),
    (Rule::Dlg8, "DLG-8", "BYE not before the ACK"),
    (
        Rule::Tx5,
        "TX-5",
        "ACK to a refusal: branch, R-URI, Route and CSeq number of the INVITE, To of the response",
    ),
    (
        Rule::Tx7,
        "TX-7",
        "A request that is repeated over datagrams is the same, octet for octet",
    ),
    (
        Rule::Tx13,
        "TX-13",
        "CANCEL matches the INVITE: R-URI, branch, Route, To without tag, CSeq number",
    ),
    (
        Rule::St2,
        "ST-2",
        "After 422: same Call-ID and From tag, CSeq plus one, Min-SE and Session-Expires as told",
    ),
    (
        Rule::St8,
        "ST-8",
        "The engine refreshes at half the interval less at most 5 %, when it is the refresher",
    ),
    (
        Rule::St9,
        "ST-9",
        "A refresh by UPDATE carries no SDP, Session-Expires and the tagged Contact",
    ),
    (
        Rule::St13,
        "ST-13",
        "A session nobody refreshes is ended at its expiry less the smaller of 32 s and a third",
    ),
    (
        Rule::St14,
        "ST-14",
        "A refresh of the phone is answered 200 with an interval not larger and the refresher asked",
    ),
    (Rule::St15, "ST-15", "Min-SE in requests and 422 only"),
    (
        Rule::Sub1,
        "SUB-1",
        "SUBSCRIBE: To = R-URI identity, Event reg, Accept, Expires, Contact, P-Asserted-Identity, Route",
    ),
    (
        Rule::Sub7,
        "SUB-7",
        "After the end of a subscription the next one comes when its reason allows",
    ),
    (Rule::Sub8, "SUB-8", "NOTIFY is answered 200"),
    (
        Rule::Sx1,
        "SX-1",
        "A request that is repeated gets the answer of the first time, octet for octet",
    ),
    (
        Rule::Isc1,
        "ISC-1",
        "Third-party REGISTER is answered 200 with the Contact and the expiry asked",
    ),
    (
        Rule::Int2,
        "INT-2",
        "MESSAGE is answered 202 with a To tag, without Contact and body",
    ),
    (
        Rule::Imdn4,
        "IMDN-4",
        "No failure notice unless a message expired or was refused",
    ),
    (
        Rule::Msrp1,
        "MSRP-1",
        "To-Path, From-Path first, Content-Type last, blank line, body, CRLF, end-line",
    ),
    (
        Rule::Msrp2,
        "MSRP-2",
        "Transaction id of 4 to 32 ident characters",
    ),
    (
        Rule::Msrp3,
        "MSRP-3",
        "Flag $ exactly at the last octet, + before",
    ),
    (
        Rule::Msrp4,
        "MSRP-4",
        "Message-ID of 4 to 32 ident characters, the same on every device and attempt",
    ),
    (
        Rule::Msrp5,
        "MSRP-5",
        "Byte-Range exact on chunks up to 2048 octets, total exact",
    ),
    (Rule::Msrp6, "MSRP-6", "Chunks in order without gap"),
    (
        Rule::Msrp8,
        "MSRP-8",
        "Failure-Report yes (or absent) and Success-Report yes",
    ),
    (
        Rule::Msrp16,
        "MSRP-16",
        "SEND goes to a live session of this phone, from the path of the offer",
    ),
    (
        Rule::Cpim1,
        "CPIM-1",
        "The delivered CPIM is the stored one, unchanged but for added cpm header lines",
    ),
    (
        Rule::Cpim5,
        "CPIM-5",
        "cpm.Conversation-ID and cpm.Contribution-ID are those of the message",
    ),
];

/// Offending messages kept as text for each rule.
pub const OFFENDERS_MAX: usize = 10;
/// Octets kept of an offending message.
const OFFENDER_BYTES_MAX: usize = 4096;

impl Rule {
    /// The row of the requirements.
    pub fn id(self) -> &'static str {
        RULES[self as usize].1
    }

    /// What the rule demands.
    pub fn text(self) -> &'static str {
        RULES[self as usize].2
    }

    /// Every rule.
    pub fn all() -> impl Iterator<Item = Self> {
        RULES.iter().map(|&(rule, _, _)| rule)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

/// One message that broke a rule.
#[derive(Clone, Debug)]
pub struct Offender {
    /// The rule.
    pub rule: Rule,
    /// What was wrong.
    pub what: &'static str,
    /// The message, lossily as text.
    pub message: String,
}

/// Counts of broken rules and the first offenders.
#[derive(Debug)]
pub struct Violations {
    counts: Vec<u64>,
    offenders: Vec<Offender>,
    kept: Vec<u8>,
    total: u64,
}

impl Default for Violations {
    fn default() -> Self {
        Self {
            counts: vec![0; RULES.len()],
            offenders: Vec::new(),
            kept: vec![0; RULES.len()],
            total: 0,
        }
    }
}

impl Violations {
    /// Records that `message` broke `rule`.
    #[cold]
    pub fn record(&mut self, rule: Rule, what: &'static str, message: &[u8]) {
        let index = rule as usize;
        self.counts[index] += 1;
        self.total += 1;
        if usize::from(self.kept[index]) < OFFENDERS_MAX {
            self.kept[index] += 1;
            let kept = &message[..message.len().min(OFFENDER_BYTES_MAX)];
            let message = String::from_utf8_lossy(kept).into_owned();
            self.offenders.push(Offender {
                rule,
                what,
                message,
            });
        }
    }

    /// Adds what another worker found; of each rule the first offenders stay.
    pub fn add(&mut self, other: Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        for offender in other.offenders {
            let kept = &mut self.kept[offender.rule as usize];
            if usize::from(*kept) < OFFENDERS_MAX {
                *kept += 1;
                self.offenders.push(offender);
            }
        }
    }

    /// Violations in all.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Rules broken at least once, with their counts.
    pub fn broken(&self) -> impl Iterator<Item = (Rule, u64)> {
        Rule::all()
            .zip(self.counts.iter().copied())
            .filter(|&(_, count)| count > 0)
    }

    /// The first offenders.
    pub fn offenders(&self) -> &[Offender] {
        &self.offenders
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_follows_the_enum_and_ids_are_unique() {
        for (index, rule) in Rule::all().enumerate() {
            assert_eq!(rule as usize, index);
            assert!(
                Rule::all().filter(|other| other.id() == rule.id()).count() == 1,
                "{rule}"
            );
        }
    }
}
