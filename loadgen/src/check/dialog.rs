//! Requests inside a push dialog: ACK, BYE, UPDATE, and CANCEL of its INVITE.

use super::{Bench, Hasher, ProvenForms, judge_branch, tag, via_branch, via_param};
use crate::identity::put_digits;
use crate::rules::Rule;
use crate::scan::{Header, Message, lists, name_addr, next_in_list, param, parse_number};

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
    /// Number of the connection by which the ACK came.
    pub ack_link: u32,
}

/// Length of a phone's tag.
pub const TAG_LEN: usize = 10;

/// A phone's tag.
pub fn phone_tag(serial: u32) -> [u8; TAG_LEN] {
    let mut out = *b"ph00000000";
    put_digits(u64::from(serial), &mut out[2..]);
    out
}

/// Parts in which requests of one form may differ: Request-URI, branch, Call-ID, From tag, To tag,
/// CSeq number and the URI of To, about which no rule asks.
const PARTS: usize = 7;

/// Checks requests in dialogs.
#[derive(Debug)]
pub struct DialogCheck {
    hasher: Hasher,
    /// Forms of message whose fixed octets were found good.
    proven: ProvenForms<PARTS>,
    transport: &'static [u8],
    /// The route set a request must carry, in its order.
    routes: [Vec<u8>; 2],
}

impl DialogCheck {
    /// A checker for dialogs whose route set, as the engine must use it, is `routes`.
    pub fn new(transport: &'static [u8], routes: [Vec<u8>; 2]) -> Self {
        Self {
            hasher: Hasher::default(),
            proven: ProvenForms::default(),
            transport,
            routes,
        }
    }

    /// Judges an ACK to a 2xx and records its branch.
    pub fn ack(&mut self, message: &Message<'_>, dialog: &mut Dialog, bench: &mut Bench<'_>) {
        let before = core::mem::replace(&mut bench.clean, true);
        let (branch, number) = match self.quick(message, dialog, bench) {
            Some(read) => read,
            None => {
                let branch = self.common(message, dialog, bench);
                let number = message.cseq();
                let method_ok = number.is_some_and(|(_, method)| method == b"ACK");
                bench.demand(method_ok, Rule::Dlg3, "CSeq is not <number> ACK");
                let timer = message.count(Header::SessionExpires) == 0;
                bench.demand(timer, Rule::Dlg3, "ACK has Session-Expires");
                self.learn(message, bench);
                (branch, number.map(|(number, _)| number))
            }
        };
        bench.demand(
            number == Some(dialog.invite_cseq),
            Rule::Dlg3,
            "CSeq of the ACK is not the INVITE's",
        );
        let new = branch != dialog.branch;
        bench.demand(new, Rule::Dlg3, "ACK to a 2xx reuses the INVITE's branch");
        bench.demand(message.body.is_empty(), Rule::Dlg3, "ACK has a body");
        dialog.ack_branch = branch;
        bench.clean &= before;
    }

    /// Judges a BYE.
    pub fn bye(&mut self, message: &Message<'_>, dialog: &mut Dialog, bench: &mut Bench<'_>) {
        let before = core::mem::replace(&mut bench.clean, true);
        let (branch, number) = match self.quick(message, dialog, bench) {
            Some(read) => read,
            None => {
                let branch = self.common(message, dialog, bench);
                let number = message.cseq();
                let method_ok = number.is_some_and(|(_, method)| method == b"BYE");
                bench.demand(method_ok, Rule::Dlg5, "CSeq is not <number> BYE");
                supported_timer(message, bench);
                self.learn(message, bench);
                (branch, number.map(|(number, _)| number))
            }
        };
        let new = branch != dialog.branch && branch != dialog.ack_branch;
        bench.demand(new, Rule::Tx8, "BYE reuses a branch");
        sequence(number, dialog, bench);
        bench.clean &= before;
    }

    /// A request of a proven form: only what differs is judged. Gives the hash of the branch and the
    /// CSeq number.
    #[inline]
    fn quick(
        &self,
        message: &Message<'_>,
        dialog: &Dialog,
        bench: &mut Bench<'_>,
    ) -> Option<(u64, Option<u32>)> {
        let [_, branch, call_id, from_tag, to_tag, number, _] = self.proven.parts(message)?;
        judge_branch(branch, bench);
        self.judge_ids(dialog, (call_id, from_tag, to_tag), bench);
        Some((self.hasher.hash(3, branch), parse_number(number)))
    }

    /// Remembers the form of a request that broke no rule.
    #[cold]
    fn learn(&mut self, message: &Message<'_>, bench: &Bench<'_>) {
        if !bench.clean || message.form == 0 {
            return;
        }
        let via = message.value(Header::Via).unwrap_or(&[]);
        let branch = via_param(via).unwrap_or(&[]);
        let to = message.value(Header::To).unwrap_or(&[]);
        let (to_uri, _) = name_addr(to).unwrap_or((&[], &[]));
        let tag_of = |header| message.value(header).and_then(tag).unwrap_or(&[]);
        let number = message.value(Header::CSeq).unwrap_or(&[]);
        let digits = number
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let parts = [
            message.target,
            branch,
            message.value(Header::CallId).unwrap_or(&[]),
            tag_of(Header::From),
            tag_of(Header::To),
            &number[..digits],
            to_uri,
        ];
        self.proven.note(message, parts);
    }

    fn judge_ids(
        &self,
        dialog: &Dialog,
        (call_id, from_tag, to_tag): (&[u8], &[u8], &[u8]),
        bench: &mut Bench<'_>,
    ) {
        bench.demand(
            self.hasher.hash(1, call_id) == dialog.call_id,
            Rule::Dlg1,
            "Call-ID is not the dialog's",
        );
        bench.demand(
            self.hasher.hash(2, from_tag) == dialog.from_tag,
            Rule::Dlg1,
            "From tag is not the dialog's",
        );
        bench.demand(
            to_tag == phone_tag(dialog.serial),
            Rule::Dlg1,
            "To tag is not the one of the 2xx",
        );
    }

    /// Judges an UPDATE that refreshes the session.
    pub fn update(&mut self, message: &Message<'_>, dialog: &mut Dialog, bench: &mut Bench<'_>) {
        let branch = self.common(message, dialog, bench);
        let new = branch != dialog.branch && branch != dialog.ack_branch;
        bench.demand(new, Rule::Tx8, "UPDATE reuses a branch");
        let number = message.cseq();
        let method_ok = number.is_some_and(|(_, method)| method == b"UPDATE");
        bench.demand(method_ok, Rule::Dlg5, "CSeq is not <number> UPDATE");
        sequence(number.map(|(number, _)| number), dialog, bench);
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

    /// Judges an ACK to a response other than 2xx.
    pub fn ack_refusal(&self, message: &Message<'_>, dialog: &Dialog, bench: &mut Bench<'_>) {
        self.ack_refusal_tagged(message, dialog, &phone_tag(dialog.serial), bench);
    }

    /// Judges an ACK to a response other than 2xx whose To had `tag_of_response`.
    pub fn ack_refusal_tagged(
        &self,
        message: &Message<'_>,
        dialog: &Dialog,
        tag_of_response: &[u8],
        bench: &mut Bench<'_>,
    ) {
        let branch = via_branch(message, self.transport, bench).unwrap_or(&[]);
        let branch_ok = self.hasher.hash(3, branch) == dialog.branch;
        bench.demand(branch_ok, Rule::Tx5, "branch is not the INVITE's");
        let number_ok = message.cseq() == Some((dialog.invite_cseq, b"ACK"));
        bench.demand(number_ok, Rule::Tx5, "CSeq is not the INVITE's");
        let call_id = message.value(Header::CallId).unwrap_or(&[]);
        let from_tag = message.value(Header::From).and_then(tag).unwrap_or(&[]);
        let ids_ok = self.hasher.hash(1, call_id) == dialog.call_id
            && self.hasher.hash(2, from_tag) == dialog.from_tag;
        bench.demand(ids_ok, Rule::Tx5, "Call-ID or From is not the INVITE's");
        let to_tag = message.value(Header::To).and_then(tag);
        let to_ok = to_tag == Some(tag_of_response);
        bench.demand(to_ok, Rule::Tx5, "To is not the response's");
        let route_ok = message.count(Header::Route) > 0;
        bench.demand(route_ok, Rule::Tx5, "ACK without the INVITE's Route");
    }

    /// Judges a CANCEL of the INVITE.
    pub fn cancel(&mut self, message: &Message<'_>, dialog: &Dialog, bench: &mut Bench<'_>) {
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
        let ids = (
            message.value(Header::CallId).unwrap_or(&[]),
            message.value(Header::From).and_then(tag).unwrap_or(&[]),
            message.value(Header::To).and_then(tag).unwrap_or(&[]),
        );
        self.judge_ids(dialog, ids, bench);
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
}

fn sequence(number: Option<u32>, dialog: &mut Dialog, bench: &mut Bench<'_>) {
    let expected = dialog.last_cseq.wrapping_add(1);
    bench.demand(
        number == Some(expected),
        Rule::Dlg5,
        "CSeq is not the last one plus one",
    );
    if let Some(number) = number {
        dialog.last_cseq = number;
    }
}

fn supported_timer(message: &Message<'_>, bench: &mut Bench<'_>) {
    let supported = message.value(Header::Supported).unwrap_or(&[]);
    let listed = supported == b"timer" || lists(supported, b"timer");
    bench.demand(listed, Rule::PushF2, "Supported does not list timer");
}
