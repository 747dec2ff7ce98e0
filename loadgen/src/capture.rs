//! The rules on a capture of anybody's push engine: what can be told from octets alone, without having
//! issued the names.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::check::invite::{InviteCheck, Policy};
use crate::check::sdp::DirectionLevel;
use crate::check::{Bench, judge_branch, media, subscribe, tag, via_param};
use crate::identity::Names;
use crate::msrp::{self, Parsed, Start};
use crate::pcap::{Packet, Streams};
use crate::rules::{Rule, Violations};
use crate::scan::{Header, Message, Method, Scanned, Table, lists, name_addr, next_in_list, scan};

/// What is known of the engine in a capture.
#[derive(Clone, Debug, clap::Args)]
pub struct Expect {
    /// Judge only what this address sent; all without
    #[arg(long, value_name = "IP")]
    pub from: Option<IpAddr>,
    /// CPM service the engine pushes with
    #[arg(
        long,
        default_value = "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.deferred"
    )]
    pub icsi: String,
    /// HOST:PORT of the S-CSCF in the first Route; any without
    #[arg(long, default_value = "")]
    pub scscf: String,
    /// Offers need not carry msrp-cema
    #[arg(long)]
    pub no_cema: bool,
    /// Offers carry sendonly at session level
    #[arg(long)]
    pub sendonly_session_level: bool,
}

/// A push, by its Call-ID.
/// Tag of To, Contact, and Record-Route reversed, of a 2xx.
type Accepted = (Vec<u8>, Vec<u8>, Vec<Vec<u8>>);

#[derive(Debug, Default)]
struct Call {
    from_tag: Vec<u8>,
    branch: Vec<u8>,
    target: Vec<u8>,
    invite_cseq: u32,
    last_cseq: u32,
    /// Of the 2xx: tag of To, Contact, Record-Route reversed.
    answer: Option<Accepted>,
    acked: bool,
}

/// The checker.
#[derive(Debug)]
pub struct Capture {
    names: Names,
    invites: [InviteCheck; 2],
    table: Table,
    calls: BTreeMap<Vec<u8>, Call>,
    streams: Streams,
    from: Option<IpAddr>,
    /// What was found.
    pub violations: Violations,
    /// Messages and frames looked at.
    pub seen: u64,
    /// INVITEs of pushes among them.
    pub pushes: u64,
}

impl Capture {
    /// A checker for what `expect` says.
    pub fn new(expect: &Expect) -> Self {
        let policy = |transport: &'static [u8]| Policy {
            cema: !expect.no_cema,
            level: if expect.sendonly_session_level {
                DirectionLevel::Session
            } else {
                DirectionLevel::Media
            },
            transport,
            // The path of a capture is not known; what arrived was not too long.
            path_mtu: Some(usize::from(u16::MAX)),
            icsi: expect.icsi.clone(),
            icsi_encoded: expect.icsi.replace(':', "%3A").into_bytes(),
            scscf: expect.scscf.clone().into_bytes(),
        };
        Self {
            names: Names::foreign(),
            invites: [
                InviteCheck::new(policy(b"TCP"), 200_000),
                InviteCheck::new(policy(b"UDP"), 200_000),
            ],
            table: Table::default(),
            calls: BTreeMap::new(),
            streams: Streams::default(),
            from: expect.from,
            violations: Violations::default(),
            seen: 0,
            pushes: 0,
        }
    }

    /// Looks at one packet.
    pub fn packet(&mut self, packet: &Packet) {
        let judged = self.from.is_none_or(|from| packet.from.ip() == from);
        match packet.sequence {
            None => {
                self.octets(&packet.payload, judged, true);
            }
            Some(sequence) => {
                let buffer = core::mem::take(&mut self.streams.push(packet, sequence).buffer);
                let used = self.octets(&buffer, judged, false);
                let stream = self.streams.push(packet, sequence);
                stream.buffer.splice(..0, buffer[used..].iter().copied());
            }
        }
    }

    /// Closes the books.
    pub fn finish(&mut self) {
        for call in self.calls.values() {
            if call.answer.is_some() && !call.acked {
                self.violations.record(
                    Rule::Ok0,
                    "no ACK until the end of the capture",
                    &call.target,
                );
            }
        }
    }

    /// Takes whole messages off the start; gives the octets used.
    fn octets(&mut self, bytes: &[u8], judged: bool, datagram: bool) -> usize {
        let mut table = core::mem::take(&mut self.table);
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            if rest.starts_with(b"MSRP ") {
                match msrp::parse(rest) {
                    Parsed::Frame(frame, length) => {
                        self.seen += 1;
                        if judged && frame.start == Start::Send {
                            let mut bench = Bench::new(&mut self.violations, frame.bytes);
                            let start = frame.range.map_or(1, |range| range.start);
                            media::send(&frame, start, &mut bench);
                        }
                        at += length;
                        continue;
                    }
                    Parsed::Incomplete => break,
                    Parsed::Error => at = bytes.len(),
                }
                continue;
            }
            match scan(rest, &mut table) {
                Scanned::Message(message, length) => {
                    self.seen += 1;
                    self.message(&message, judged, datagram);
                    at += length;
                }
                Scanned::KeepAlive(length) => at += length,
                Scanned::Incomplete => break,
                // The capture began within a message, or this is no SIP.
                Scanned::Error(_) => at = bytes.len(),
            }
        }
        self.table = table;
        at
    }

    fn message(&mut self, message: &Message<'_>, judged: bool, datagram: bool) {
        if message.status != 0 {
            return self.response(message);
        }
        if !judged {
            return;
        }
        let to_tag = message.value(Header::To).and_then(tag);
        match message.method {
            Method::Invite if to_tag.is_none() => self.invite(message, datagram),
            Method::Ack => self.ack(message),
            Method::Bye | Method::Update | Method::Invite => self.in_dialog(message),
            Method::Subscribe => {
                let transport: &[u8] = if datagram { b"UDP" } else { b"TCP" };
                let mut bench = Bench::new(&mut self.violations, message.bytes);
                subscribe::subscribe(&self.names, message, transport, &mut bench);
            }
            Method::Cancel
            | Method::Message
            | Method::Notify
            | Method::Options
            | Method::Other
            | Method::Register => {}
        }
    }

    fn invite(&mut self, message: &Message<'_>, datagram: bool) {
        let call_id = message.value(Header::CallId).unwrap_or(&[]);
        let branch = message
            .value(Header::Via)
            .and_then(via_param)
            .unwrap_or(&[]);
        let known = self.calls.get(call_id);
        if known.is_some_and(|call| call.branch == branch) {
            // A retransmission.
            return;
        }
        self.pushes += 1;
        let check = &mut self.invites[usize::from(datagram)];
        check.retry = known.is_some();
        let mut bench = Bench::new(&mut self.violations, message.bytes);
        let _ = check.check(&self.names, message, &mut bench);
        let from_tag = message.value(Header::From).and_then(tag).unwrap_or(&[]);
        let cseq = message.cseq().map_or(0, |(number, _)| number);
        let call = Call {
            from_tag: from_tag.to_vec(),
            branch: branch.to_vec(),
            target: message.target.to_vec(),
            invite_cseq: cseq,
            last_cseq: cseq,
            answer: None,
            acked: false,
        };
        self.calls.insert(call_id.to_vec(), call);
    }

    fn response(&mut self, message: &Message<'_>) {
        let method = message.cseq().map_or(&[][..], |(_, method)| method);
        if method != b"INVITE" || !(200..300).contains(&message.status) {
            return;
        }
        let call_id = message.value(Header::CallId).unwrap_or(&[]);
        let Some(call) = self
            .calls
            .get_mut(call_id)
            .filter(|call| call.answer.is_none())
        else {
            return;
        };
        let contact = message.value(Header::Contact).and_then(name_addr);
        let (contact, _) = contact.unwrap_or((&[], &[]));
        let mut routes: Vec<Vec<u8>> = routes(message, Header::RecordRoute);
        routes.reverse();
        let to_tag = message.value(Header::To).and_then(tag).unwrap_or(&[]);
        call.answer = Some((to_tag.to_vec(), contact.to_vec(), routes));
    }

    fn ack(&mut self, message: &Message<'_>) {
        let call_id = message.value(Header::CallId).unwrap_or(&[]);
        let Some(call) = self.calls.get_mut(call_id) else {
            return;
        };
        let branch = message
            .value(Header::Via)
            .and_then(via_param)
            .unwrap_or(&[]);
        let mut bench = Bench::new(&mut self.violations, message.bytes);
        let Some((to_tag, contact, routes)) = &call.answer else {
            let same = branch == call.branch && message.target == call.target;
            bench.demand(same, Rule::Tx5, "branch or R-URI is not the INVITE's");
            return;
        };
        call.acked = true;
        let cseq = message.cseq() == Some((call.invite_cseq, b"ACK"));
        bench.demand(cseq, Rule::Dlg3, "CSeq of the ACK is not the INVITE's");
        bench.demand(
            branch != call.branch,
            Rule::Dlg3,
            "ACK to a 2xx reuses the INVITE's branch",
        );
        dialog(
            message,
            &call.from_tag,
            (to_tag, contact, routes),
            &mut bench,
        );
    }

    fn in_dialog(&mut self, message: &Message<'_>) {
        let call_id = message.value(Header::CallId).unwrap_or(&[]);
        let Some(call) = self.calls.get_mut(call_id) else {
            return;
        };
        let mut bench = Bench::new(&mut self.violations, message.bytes);
        let Some((to_tag, contact, routes)) = &call.answer else {
            bench.fail(Rule::Dlg6, "request in a dialog that no 2xx opened");
            return;
        };
        let number = message.cseq().map_or(0, |(number, _)| number);
        if number == call.last_cseq && message.method != Method::Invite {
            // A retransmission.
            return;
        }
        let next = number == call.last_cseq.wrapping_add(1);
        bench.demand(next, Rule::Dlg5, "CSeq is not the last one plus one");
        call.last_cseq = number;
        if message.method == Method::Bye {
            bench.demand(call.acked, Rule::Dlg8, "BYE before the ACK");
        }
        let timer = message
            .values(Header::Supported)
            .any(|value| lists(value, b"timer"));
        bench.demand(timer, Rule::PushF2, "Supported does not list timer");
        if message.method == Method::Update {
            let expires = message.count(Header::SessionExpires) > 0;
            bench.demand(expires, Rule::St9, "UPDATE without Session-Expires");
        }
        dialog(
            message,
            &call.from_tag,
            (to_tag, contact, routes),
            &mut bench,
        );
    }
}

/// R-URI, tags, branch and route set.
fn dialog(
    message: &Message<'_>,
    own_tag: &[u8],
    (to_tag, contact, wanted): (&[u8], &[u8], &[Vec<u8>]),
    bench: &mut Bench<'_>,
) {
    let branch = message
        .value(Header::Via)
        .and_then(via_param)
        .unwrap_or(&[]);
    judge_branch(branch, bench);
    bench.demand(
        message.target == contact,
        Rule::Ok2,
        "R-URI is not the Contact of the 2xx",
    );
    let from = message.value(Header::From).and_then(tag).unwrap_or(&[]);
    let to = message.value(Header::To).and_then(tag).unwrap_or(&[]);
    bench.demand(from == own_tag, Rule::Dlg1, "From tag is not the dialog's");
    bench.demand(to == to_tag, Rule::Dlg1, "To tag is not the one of the 2xx");
    let route = routes(message, Header::Route) == wanted;
    bench.demand(
        route,
        Rule::Dlg1,
        "Route is not the reversed Record-Route of the 2xx",
    );
}

fn routes(message: &Message<'_>, header: Header) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for value in message.values(header) {
        let mut list = value;
        while let Some(one) = next_in_list(&mut list) {
            found.push(one.to_vec());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutate::text;
    use crate::pcap;

    const EXPECT: fn() -> Expect = || Expect {
        from: None,
        icsi: "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.deferred".to_owned(),
        scscf: String::new(),
        no_cema: false,
        sendonly_session_level: false,
    };

    fn call(n: u32) -> Vec<String> {
        let invite = text::invite(n, 7, 1).replace("SIP/2.0/TCP", "SIP/2.0/UDP");
        let answer = format!(
            "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bKi{n:08}\r\n\
             Record-Route: <sip:mt@pcscf1.home.example:5060;lr>\r\n\
             Record-Route: <sip:mt@127.0.0.1:5070;transport=tcp;lr>\r\n\
             From: <sip:cpm-pf@home.example>;tag=pf{n:08}\r\n\
             To: <sip:+15550000007@home.example>;tag=ph{n:08}\r\nCall-ID: 5f0c6a1e{n:08}\r\n\
             CSeq: 1 INVITE\r\nContact: <sip:+15550000007@phones.home.example:5060;transport=tcp;\
             dev=0001>\r\nContent-Length: 0\r\n\r\n"
        );
        let whose = (n, 7, 1);
        vec![
            invite,
            answer,
            text::in_dialog("ACK", 1, whose, "").replace("SIP/2.0/TCP", "SIP/2.0/UDP"),
            text::in_dialog("BYE", 2, whose, "Supported: timer\r\n"),
        ]
    }

    fn broken(messages: &[String]) -> Vec<Rule> {
        let file = pcap::write(messages.iter().map(String::as_bytes), 5060, 5070);
        let mut capture = Capture::new(&EXPECT());
        for packet in pcap::read(&file).unwrap() {
            capture.packet(&packet);
        }
        capture.finish();
        assert_eq!(capture.seen, messages.len() as u64);
        capture.violations.broken().map(|(rule, _)| rule).collect()
    }

    #[test]
    fn a_good_capture_breaks_no_rule_and_each_fault_its_own() {
        let good: Vec<String> = (1..30).flat_map(call).collect();
        assert_eq!(broken(&good), []);
        let last = good.len() - 4;
        for (which, from, to, rule) in [
            (0, ";automata", "", Rule::PushE),
            (0, ";gr=urn", ";gx=urn", Rule::PushA),
            (0, "a=sendonly", "a=recvonly", Rule::PushGI),
            (2, "CSeq: 1", "CSeq: 3", Rule::Dlg3),
            (2, "dev=0001", "dev=0002", Rule::Ok2),
            (3, "tag=ph", "tag=px", Rule::Dlg1),
            (3, "CSeq: 2", "CSeq: 4", Rule::Dlg5),
            (3, "Supported: timer", "Supported: path", Rule::PushF2),
        ] {
            let mut bad = good.clone();
            let text = &mut bad[last + which];
            assert!(text.contains(from));
            *text = text::reframed(&text.replacen(from, to, 1));
            assert_eq!(broken(&bad), [rule], "{from} -> {to}");
        }
        let mut silent = good;
        silent.truncate(last + 2);
        assert_eq!(broken(&silent), [Rule::Ok0]);
    }
}
