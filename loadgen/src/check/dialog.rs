//! Requests inside a push dialog: ACK, BYE, UPDATE, and CANCEL of its INVITE.

use super::{Bench, Hasher, tag, via_branch};
use crate::identity::{put_digits, read_digits};
use crate::rules::Rule;
use crate::scan::{Header, Message, lists, name_addr, next_in_list, param};

/// What a phone remembers of its dialog; identifiers as hashes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dialog {
    /// Call-ID.
    pub call_id: u64,
    /// The engine's tag.
    pub from_tag: u64,
    /// Branch of the INVITE.
    pub branch: u64,
    /// Branch of the ACK.
    pub ack_branch: u64,
    /// `a=path` of the engine's offer.
    pub path: u64,
    /// CSeq number of the INVITE.
    pub invite_cseq: u32,
    /// CSeq number of the last request but ACK.
    pub last_cseq: u32,
    /// Our tag is `ph` and these eight digits.
    pub serial: u32,
}

/// Length of a phone's tag.
pub const TAG_LEN: usize = 10;

/// A phone's tag.
pub fn phone_tag(serial: u32) -> [u8; TAG_LEN] {
    let mut out = *b"ph00000000";
    put_digits(u64::from(serial), &mut out[2..]);
    out
}

/// Checks requests in dialogs.
#[derive(Debug)]
pub struct DialogCheck {
    hasher: Hasher,
    transport: &'static [u8],
    /// The route set a request must carry, in its order.
    routes: [Vec<u8>; 2],
}

impl DialogCheck {
    /// A checker for dialogs whose route set, as the engine must use it, is `routes`.
    pub fn new(transport: &'static [u8], routes: [Vec<u8>; 2]) -> Self {
        Self {
            hasher: Hasher::default(),
            transport,
            routes,
        }
    }

    /// Judges an ACK to a 2xx and records its branch.
    pub fn ack(&self, message: &Message<'_>, dialog: &mut Dialog, bench: &mut Bench<'_>) {
        let branch = self.common(message, dialog, bench);
        let number = message.cseq();
        bench.demand(
            number == Some((dialog.invite_cseq, b"ACK")),
            Rule::Dlg3,
            "CSeq of the ACK is not the INVITE's",
        );
        let new = branch != dialog.branch;
        bench.demand(new, Rule::Dlg3, "ACK to a 2xx reuses the INVITE's branch");
        bench.demand(message.body.is_empty(), Rule::Dlg3, "ACK has a body");
        let timer = message.count(Header::SessionExpires) == 0;
        bench.demand(timer, Rule::Dlg3, "ACK has Session-Expires");
        dialog.ack_branch = branch;
    }

    /// Judges a BYE.
    pub fn bye(&self, message: &Message<'_>, dialog: &mut Dialog, bench: &mut Bench<'_>) {
        let branch = self.common(message, dialog, bench);
        let new = branch != dialog.branch && branch != dialog.ack_branch;
        bench.demand(new, Rule::Tx8, "BYE reuses a branch");
        self.sequence(message, b"BYE", dialog, bench);
        supported_timer(message, bench);
    }

    /// Judges an UPDATE that refreshes the session.
    pub fn update(&self, message: &Message<'_>, dialog: &mut Dialog, bench: &mut Bench<'_>) {
        let branch = self.common(message, dialog, bench);
        let new = branch != dialog.branch && branch != dialog.ack_branch;
        bench.demand(new, Rule::Tx8, "UPDATE reuses a branch");
        self.sequence(message, b"UPDATE", dialog, bench);
        supported_timer(message, bench);
        bench.demand(message.body.is_empty(), Rule::St9, "UPDATE with SDP");
        let expires = message.value(Header::SessionExpires);
        bench.demand(
            expires.is_some(),
            Rule::St9,
            "UPDATE without Session-Expires",
        );
        let tagged = message
            .value(Header::Contact)
            .and_then(name_addr)
            .is_some_and(|(_, tail)| {
                param(tail, b"+g.3gpp.icsi-ref").is_some() && param(tail, b"automata").is_some()
            });
        bench.demand(tagged, Rule::St9, "Contact of the UPDATE lost its tags");
    }

    /// Judges a CANCEL of the INVITE.
    pub fn cancel(&self, message: &Message<'_>, dialog: &Dialog, bench: &mut Bench<'_>) {
        let branch = via_branch(message, self.transport, bench).unwrap_or(&[]);
        let branch = self.hasher.hash(3, branch);
        bench.demand(
            branch == dialog.branch,
            Rule::Tx13,
            "branch is not the INVITE's",
        );
        let number = message.cseq();
        bench.demand(
            number == Some((dialog.invite_cseq, b"CANCEL")),
            Rule::Tx13,
            "CSeq is not the INVITE's",
        );
        let to_tag = message.value(Header::To).and_then(tag);
        bench.demand(to_tag.is_none(), Rule::Tx13, "To of a CANCEL has a tag");
        bench.demand(
            message.count(Header::Route) > 0,
            Rule::Tx13,
            "CANCEL without the Route",
        );
    }

    /// Call-ID, tags, Via and route set; gives the hash of the branch.
    fn common(&self, message: &Message<'_>, dialog: &Dialog, bench: &mut Bench<'_>) -> u64 {
        let branch = via_branch(message, self.transport, bench).unwrap_or(&[]);
        let call_id = message.value(Header::CallId).unwrap_or(&[]);
        bench.demand(
            self.hasher.hash(1, call_id) == dialog.call_id,
            Rule::Dlg1,
            "Call-ID is not the dialog's",
        );
        let from_tag = message.value(Header::From).and_then(tag).unwrap_or(&[]);
        bench.demand(
            self.hasher.hash(2, from_tag) == dialog.from_tag,
            Rule::Dlg1,
            "From tag is not the dialog's",
        );
        let to_tag = message.value(Header::To).and_then(tag);
        let expected = phone_tag(dialog.serial);
        bench.demand(
            to_tag == Some(expected.as_slice()),
            Rule::Dlg1,
            "To tag is not the one of the 2xx",
        );
        let forwards = message.value(Header::MaxForwards) == Some(b"70");
        bench.demand(forwards, Rule::Dlg1, "Max-Forwards is not 70");
        self.route_set(message, bench);
        self.hasher.hash(3, branch)
    }

    fn route_set(&self, message: &Message<'_>, bench: &mut Bench<'_>) {
        let mut expected = self.routes.iter();
        let mut good = true;
        for value in message.values(Header::Route) {
            let mut list = value;
            while let Some(one) = next_in_list(&mut list) {
                good &= expected.next().is_some_and(|route| route == one);
            }
        }
        good &= expected.next().is_none();
        bench.demand(
            good,
            Rule::Dlg1,
            "Route is not the reversed Record-Route of the 2xx",
        );
    }

    fn sequence(
        &self,
        message: &Message<'_>,
        method: &[u8],
        dialog: &mut Dialog,
        bench: &mut Bench<'_>,
    ) {
        let expected = dialog.last_cseq.wrapping_add(1);
        let number = message.cseq();
        bench.demand(
            number == Some((expected, method)),
            Rule::Dlg5,
            "CSeq is not the last one plus one",
        );
        if let Some((number, _)) = number {
            dialog.last_cseq = number;
        }
    }
}

fn supported_timer(message: &Message<'_>, bench: &mut Bench<'_>) {
    let supported = message.value(Header::Supported).unwrap_or(&[]);
    let listed = supported == b"timer" || lists(supported, b"timer");
    bench.demand(listed, Rule::PushF2, "Supported does not list timer");
}

/// The serial of a phone's tag.
pub fn read_phone_tag(tag: &[u8]) -> Option<u32> {
    let digits = tag.strip_prefix(b"ph")?;
    u32::try_from(read_digits(digits)?).ok()
}
