//! What is broken, and the rule that must say so.

use super::script::Spot;
use crate::rules::Rule;

/// One broken message.
#[derive(Debug)]
pub struct Case {
    /// The rule that must trip.
    pub rule: Rule,
    /// What is done.
    pub fault: Fault,
    /// Phones refuse the media, so that nothing is owed over MSRP.
    pub declined: bool,
    /// A good message that must come before the broken one, which only some pushes have.
    pub before: Option<Turn>,
}

/// How a message is broken.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// Some text of one message is replaced.
    Text {
        /// The message.
        spot: Spot,
        /// What it must contain.
        from: &'static str,
        /// What stands there instead.
        to: &'static str,
    },
    /// Good messages in a wrong order.
    Turn(Turn),
}

/// Good messages in a wrong order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The run ends without an ACK.
    NoAck,
    /// A second INVITE for a device with a push.
    SecondInvite,
    /// BYE before ACK.
    ByeBeforeAck,
    /// BYE before SEND.
    ByeBeforeSend,
    /// BYE when the dialog is over.
    ByeTwice,
    /// INVITE for a device that has everything.
    NothingQueued,
    /// INVITE with an identifier used before; `{n}` stands for its number.
    Repeated(&'static str),
    /// Another MSRP Message-ID for the same message.
    OtherMessageId,
    /// A SEND whose Byte-Range is off by these numbers: start, end, total.
    Range(i32, i32, i32),
    /// A notice nobody asked for.
    Notice,
    /// Octets that are no SIP.
    Garbage,
    /// The first push is refused with 422; what it then sends must be good but for the case's text.
    Retry,
    /// Over datagrams, a BYE that is repeated with other octets.
    ChangedRepeat,
    /// Over datagrams, a repeated answer with other octets.
    ChangedAnswer,
    /// An INVITE after a 503 that comes too early, or is another than before.
    Hop(&'static str),
    /// More new requests than a hop asked for.
    Hurry,
    /// In a session that stays, a refresh or an end at a wrong time or with a wrong answer.
    Held(&'static str),
    /// What must not follow a fault of the registrar, whose name this is.
    After(&'static str),
    /// Not wrong: an UPDATE in the dialog.
    GoodUpdate,
    /// Not wrong: a CANCEL of the INVITE.
    GoodCancel,
}

impl Case {
    /// A text replaced in one message.
    pub const fn text(rule: Rule, spot: Spot, from: &'static str, to: &'static str) -> Self {
        let before = match spot {
            Update => Some(Turn::GoodUpdate),
            Cancel => Some(Turn::GoodCancel),
            Refused | Retried => Some(Turn::Retry),
            MessageAnswer | RegisterAnswer | Subscribe | NotifyAnswer | Invite | Ack | Send
            | Bye => None,
        };
        Self {
            rule,
            fault: Fault::Text { spot, from, to },
            declined: false,
            before,
        }
    }

    const fn turn(rule: Rule, turn: Turn, declined: bool) -> Self {
        Self {
            rule,
            fault: Fault::Turn(turn),
            declined,
            before: None,
        }
    }

    /// Whether SIP goes by datagrams.
    pub fn datagrams(&self) -> bool {
        matches!(
            self.fault,
            Fault::Turn(Turn::ChangedRepeat | Turn::ChangedAnswer)
        )
    }

    /// What the registrar does, when it is not simply good.
    pub fn registrar(&self) -> Option<&'static str> {
        match self.fault {
            Fault::Turn(Turn::After(name)) => Some(name),
            Fault::Turn(_) | Fault::Text { .. } => None,
        }
    }

    /// Who refreshes sessions, when they stay.
    pub fn refresher(&self) -> Option<&'static str> {
        match self.fault {
            Fault::Turn(Turn::Held("end-late" | "no-end")) => Some("silent"),
            Fault::Turn(Turn::Held("role" | "larger" | "min-se")) => Some("phone"),
            Fault::Turn(Turn::Held(_)) => Some("engine"),
            Fault::Turn(_) | Fault::Text { .. } => None,
        }
    }

    /// What the case does, in a few words.
    pub fn about(&self) -> String {
        match self.fault {
            Fault::Text { spot, from, to } => {
                format!("{spot:?}: {} -> {}", from.escape_debug(), to.escape_debug())
            }
            Fault::Turn(turn) => format!("{turn:?}"),
        }
    }
}

use Spot::{
    Ack, Bye, Cancel, Invite, MessageAnswer, NotifyAnswer, Refused, RegisterAnswer, Retried, Send,
    Subscribe, Update,
};

const FEATURE: &str = ";+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.deferred\"";

/// Every case.
pub static CASES: &[Case] = &[
    Case::text(Rule::PushA, Invite, "8000-0000000000", "8000-000000000A"),
    Case::text(
        Rule::Reg9,
        Invite,
        ";gr=urn:uuid",
        ";user=phone;gr=urn:uuid",
    ),
    Case::turn(Rule::Reg5, Turn::NothingQueued, false),
    Case::turn(Rule::Rsp31, Turn::SecondInvite, false),
    Case::turn(Rule::Reg2, Turn::After("stale"), true),
    Case::turn(Rule::Reg2, Turn::After("gap"), true),
    Case::turn(Rule::Reg4, Turn::After("gone"), true),
    Case::turn(Rule::Reg5, Turn::After("refresh"), true),
    Case::turn(Rule::PushA, Turn::After("gruu-less"), true),
    Case::turn(Rule::Sub7, Turn::After("rejected"), true),
    Case::turn(Rule::Sub7, Turn::After("probation"), true),
    Case::turn(Rule::Rsp28, Turn::Hop("early"), true),
    Case::turn(Rule::Ovl3, Turn::Hurry, true),
    Case::turn(Rule::Nh3, Turn::Hop("cseq"), true),
    Case::turn(Rule::Nh3, Turn::Hop("branch"), true),
    Case::turn(Rule::St8, Turn::Held("early"), false),
    Case::turn(Rule::St8, Turn::Held("late"), false),
    Case::turn(Rule::St8, Turn::Held("never"), false),
    Case::turn(Rule::St13, Turn::Held("end-late"), false),
    Case::turn(Rule::St13, Turn::Held("no-end"), false),
    Case::turn(Rule::St14, Turn::Held("role"), false),
    Case::turn(Rule::St14, Turn::Held("larger"), false),
    Case::turn(Rule::St15, Turn::Held("min-se"), false),
    Case::turn(Rule::Tx7, Turn::ChangedRepeat, false),
    Case::turn(Rule::Sx1, Turn::ChangedAnswer, false),
    Case::text(
        Rule::PushB,
        Invite,
        "Accept-Contact: *",
        "Accept-Contact: x",
    ),
    Case::text(Rule::PushB, Invite, "Accept-Contact", "X-Contact"),
    Case::text(
        Rule::PushB1,
        Invite,
        "Contact: *;+g.3gpp.icsi-ref=\"urn%3A",
        "Contact: *;+g.3gpp.icsi-ref=\"urn:",
    ),
    Case::text(
        Rule::PushB2,
        Invite,
        "Accept-Contact: *",
        "Accept-Contact: *;require",
    ),
    Case::text(
        Rule::PushB2,
        Invite,
        "Accept-Contact: *",
        "Accept-Contact: *;explicit",
    ),
    Case::text(Rule::PushC, Invite, "CPM-serv/OMA2.2", "CPM-serv/2.2"),
    Case::text(Rule::PushD, Invite, FEATURE, ""),
    Case::text(Rule::PushE, Invite, ";automata", ""),
    Case::text(Rule::PushE, Invite, ";automata", ";automata=\"TRUE\""),
    Case::text(
        Rule::PushF,
        Invite,
        "Session-Expires: 1800",
        "Session-Expires: 89",
    ),
    Case::text(Rule::PushF1, Invite, "refresher=uac", "refresher=uas"),
    Case::text(Rule::PushF2, Invite, "Supported: timer", "Supported: path"),
    Case::text(Rule::PushF2, Bye, "Supported: timer", "Supported: path"),
    Case::text(
        Rule::PushF3,
        Invite,
        "Supported: timer",
        "Supported: timer\r\nRequire: timer",
    ),
    Case::text(Rule::PushG, Invite, "application/sdp", "text/plain"),
    Case::text(Rule::PushGI, Invite, "a=sendonly", "a=recvonly"),
    Case::text(
        Rule::PushH,
        Invite,
        "Route: <sip:127.0.0.1:5070",
        "Route: <sip:127.0.0.1:5071",
    ),
    Case::text(Rule::PushH, Invite, ";lr>", ">"),
    Case::text(Rule::PushI, Invite, "-4000-9000-", "-4000-9001-"),
    Case::text(
        Rule::PushI,
        Invite,
        "Contribution-ID: 0000000",
        "Contribution-ID: 1000000",
    ),
    Case::text(
        Rule::PushJ,
        Invite,
        "P-Asserted-Identity",
        "P-Preferred-Identity",
    ),
    Case::text(
        Rule::PushJ,
        Invite,
        "Service: urn:urn-7",
        "Service: urn%3Aurn-7",
    ),
    Case::text(Rule::PushK, Invite, ";orig-ioi=\"home.example\"", ""),
    Case::turn(
        Rule::PushK,
        Turn::Repeated("icid-value=\"ic000000{n}"),
        false,
    ),
    Case::text(Rule::PushL, Invite, "Max-Forwards: 70", "Max-Forwards: 69"),
    Case::text(
        Rule::PushL,
        Invite,
        "To: <sip:+15550000024@",
        "To: <sip:+15550000025@",
    ),
    Case::text(
        Rule::PushL,
        Invite,
        "CSeq: 1 INVITE",
        "CSeq: 4294967295 INVITE",
    ),
    Case::text(Rule::PushL, Invite, "ACK, BYE, CANCEL", "ACK, BYE"),
    Case::text(
        Rule::PushL,
        Invite,
        "Supported: timer",
        "Supported: timer, 100rel",
    ),
    Case::turn(
        Rule::Push0a,
        Turn::Repeated("Call-ID: 5f0c6a1e000000{n}"),
        false,
    ),
    Case::turn(Rule::Push0a, Turn::Repeated("tag=pf000000{n}"), false),
    Case::turn(
        Rule::Push0a,
        Turn::Repeated("/k9Qv3tZs1mXb000000{n}"),
        false,
    ),
    Case::turn(Rule::Tx8, Turn::Repeated("z9hG4bKi000000{n}"), false),
    Case::text(Rule::Tx8, Invite, "z9hG4bK", "z9hG4bX"),
    Case::text(Rule::Tx8, Ack, "z9hG4bK", "z9hG4bX"),
    Case::text(Rule::Nh4, Invite, "Via: SIP/2.0/TCP", "Via: SIP/2.0/UDP"),
    Case::text(Rule::Nh4, Bye, "Via: SIP/2.0/TCP", "Via: SIP/2.0/UDP"),
    Case::turn(Rule::Nh6, Turn::Garbage, false),
    Case::text(Rule::Ims1, Invite, ";lr>", ";lr;orig>"),
    Case::text(
        Rule::Ims6,
        Invite,
        "Supported",
        "P-Visited-Network-ID: x\r\nSupported",
    ),
    Case::text(Rule::Sdp1, Invite, "t=0 0", "t=1 0"),
    Case::text(Rule::Sdp1, Invite, "s=-\r\n", "s=-\n"),
    Case::text(Rule::Sdp2, Invite, "o=- ", "o=pf "),
    Case::text(Rule::Sdp3, Invite, "m=message 2855", "m=message 2856"),
    Case::text(
        Rule::Sdp4,
        Invite,
        ";tcp\r\na=accept-types",
        "\r\na=accept-types",
    ),
    Case::text(Rule::Sdp5, Invite, "types:message/cpim", "types:text/plain"),
    Case::text(
        Rule::Sdp6,
        Invite,
        "wrapped-types:*",
        "wrapped-types:text/plain",
    ),
    Case::text(
        Rule::Sdp7,
        Invite,
        "a=msrp-cema",
        "a=max-size:x\r\na=msrp-cema",
    ),
    Case::text(Rule::Sdp8, Invite, "setup:actpass", "setup:active"),
    Case::text(
        Rule::Sdp8,
        Invite,
        "a=msrp-cema",
        "a=connection:new\r\na=msrp-cema",
    ),
    Case::text(Rule::Sdp9, Invite, "a=msrp-cema\r\n", ""),
    Case::text(Rule::Sdp10, Invite, "a=sendonly\r\n", ""),
    Case::turn(Rule::Ok0, Turn::NoAck, false),
    Case::text(
        Rule::Ok2,
        Ack,
        "phones.home.example:5060",
        "phones.home.example",
    ),
    Case::text(Rule::Ok2, Bye, "transport=tcp;dev=", "dev="),
    Case::turn(Rule::Ok3, Turn::ByeBeforeSend, false),
    Case::text(Rule::Dlg1, Ack, "Call-ID: 5f0c6a1e", "Call-ID: 5f0c6a1f"),
    Case::text(Rule::Dlg1, Ack, "tag=ph", "tag=px"),
    Case::text(Rule::Dlg1, Bye, "tag=pf", "tag=px"),
    Case::text(
        Rule::Dlg1,
        Bye,
        "Route: <sip:mt@pcscf1.home.example:5060;lr>\r\n",
        "",
    ),
    Case::text(Rule::Dlg1, Bye, "mt@pcscf1", "mt@pcscf2"),
    Case::text(Rule::Dlg3, Ack, "CSeq: 1", "CSeq: 2"),
    Case::text(
        Rule::Dlg3,
        Ack,
        "CSeq: 1 ACK",
        "CSeq: 1 ACK\r\nSession-Expires: 90",
    ),
    Case::text(Rule::Dlg5, Bye, "CSeq: 2", "CSeq: 3"),
    Case::turn(Rule::Dlg6, Turn::ByeTwice, false),
    Case::turn(Rule::Dlg8, Turn::ByeBeforeAck, true),
    Case::text(Rule::Tx13, Cancel, "z9hG4bKi", "z9hG4bKj"),
    Case::text(Rule::Tx13, Cancel, "CSeq: 1", "CSeq: 2"),
    Case::text(Rule::Tx5, Refused, "z9hG4bKi", "z9hG4bKj"),
    Case::text(Rule::Tx5, Refused, "tag=ph", "tag=px"),
    Case::text(Rule::St2, Retried, "CSeq: 2", "CSeq: 3"),
    Case::text(Rule::St2, Retried, "Min-SE: 3600\r\n", ""),
    Case::text(Rule::St9, Update, "Session-Expires", "X-Expires"),
    Case::text(Rule::St9, Update, ";automata", ""),
    Case::text(Rule::Sub1, Subscribe, "Event: reg", "Event: presence"),
    Case::text(Rule::Sub1, Subscribe, "Route: ", "X-Route: "),
    Case::text(Rule::Sub8, NotifyAnswer, "200 OK", "481 Gone"),
    Case::text(Rule::Isc1, RegisterAnswer, "expires=600000", "expires=3600"),
    Case::text(Rule::Isc1, RegisterAnswer, "200 OK", "403 Forbidden"),
    Case::text(Rule::Int2, MessageAnswer, "202 Accepted", "200 OK"),
    Case::text(
        Rule::Int2,
        MessageAnswer,
        "CSeq",
        "Contact: <sip:x@y>\r\nCSeq",
    ),
    Case::turn(Rule::Imdn4, Turn::Notice, false),
    Case::text(
        Rule::Msrp1,
        Send,
        "Content-Type: message/cpim",
        "Content-Type: message/cpim\r\nX-Late: 1",
    ),
    Case::text(Rule::Msrp2, Send, "t4Ke91Xb", "t4/Ke91Xb"),
    Case::text(Rule::Msrp3, Send, "Xb00000025$", "Xb00000025+"),
    Case::turn(Rule::Msrp4, Turn::OtherMessageId, false),
    Case::text(Rule::Msrp4, Send, "Message-ID: vM", "Message-ID: ~M"),
    Case::turn(Rule::Msrp5, Turn::Range(0, -1, 0), false),
    Case::turn(Rule::Msrp6, Turn::Range(1, 1, 1), false),
    Case::text(
        Rule::Msrp8,
        Send,
        "Success-Report: yes",
        "Success-Report: no",
    ),
    Case::text(Rule::Msrp16, Send, "/k9Qv3tZs1mXb", "/k9Qv3tZs1mXc"),
    Case::text(Rule::Cpim1, Send, "filler", "fil1er"),
    Case::text(
        Rule::Cpim5,
        Send,
        "cpm.Contribution-ID: 0",
        "cpm.Contribution-ID: 1",
    ),
];
