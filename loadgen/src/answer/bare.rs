//! A caller that does nothing but call: what any caller must pay for these messages on this machine.
//!
//! Its messages are rendered once and get a number patched in. It has no timers and repeats nothing, so
//! a datagram that is lost is a call that never ends, which both sides' counts then show.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::wire::{LineId, Lines, Role, Wire};
use crate::identity::{put_digits, read_digits};
use crate::scan::{Header, Message};
use crate::scenario::Transport;

/// Octets of a call's number in messages.
const DIGITS: usize = 10;
/// Most calls of a run.
const CALLS_MAX: u64 = 9_999_999_999;
/// How long calls may take to end after the last was started.
const DRAIN: Duration = Duration::from_secs(5);

/// Whom to call, and for how long.
#[derive(Clone, Debug, clap::Args)]
pub struct Call {
    /// Who answers
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:15060")]
    pub to: SocketAddr,
    /// Transport of SIP
    #[arg(long, value_enum, default_value = "tcp")]
    pub transport: Transport,
    /// Calls at a time
    #[arg(long, default_value_t = 256)]
    pub in_flight: u64,
    /// CPU of this caller
    #[arg(long, value_name = "N")]
    pub cpu: Option<usize>,
    /// Seconds until no further call is started
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
}

/// A message with places for the call's number.
struct Form {
    bytes: Vec<u8>,
    at: Vec<usize>,
}

impl Form {
    /// `text` has `##########` wherever the number goes.
    fn new(text: &str) -> Self {
        let bytes = text.as_bytes().to_vec();
        let mark = [b'#'; DIGITS];
        let at = memchr::memmem::find_iter(&bytes, &mark).collect();
        Self { bytes, at }
    }

    fn put(&self, call: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        for at in &self.at {
            put_digits(call, &mut out[start + at..start + at + DIGITS]);
        }
    }
}

struct Caller {
    invite: Form,
    ack: Form,
    bye: Form,
    line: LineId,
    started: u64,
    answered: u64,
    ended: u64,
    strays: u64,
    starting: bool,
}

impl Caller {
    fn new(to: SocketAddr, transport: Transport, line: LineId) -> Self {
        let via = transport.via();
        let param = transport.param();
        let head = |method: &str, target: &str, branch: &str| {
            format!(
                "{method} {target} SIP/2.0\r\nVia: SIP/2.0/{via} 127.0.0.1:16060;\
                 branch=z9hG4bK{branch}##########abcdefghijklmnopqrstu;oc;oc-algo=\"loss,rate\"\r\n\
                 Max-Forwards: 70\r\n"
            )
        };
        let ids = "Call-ID: ##########abcdefghijklmnopqrstuv@pf1.ims.example.net\r\n";
        let from = "From: <sip:cpm-pf@ims.example.net>;tag=##########abcdefghijklmnopqrstuv\r\n";
        let to_value = "To: <sip:+15550100@ims.example.net>";
        let uri = "sip:+15550100@ims.example.net;gr=urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6";
        let tagged = "+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.deferred\"";
        let sdp = "v=0\r\no=- 3973000001 1 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\n\
                   t=0 0\r\nm=message 2855 TCP/MSRP *\r\n\
                   a=path:msrp://192.0.2.10:2855/##########abcdefghijklmnopqrstuv;tcp\r\n\
                   a=accept-types:message/cpim\r\na=accept-wrapped-types:*\r\na=setup:actpass\r\n\
                   a=msrp-cema\r\na=sendonly\r\n";
        let invite = format!(
            "{}Route: <sip:{to};transport={param};lr>\r\n{from}{to_value}\r\n{ids}CSeq: 1 INVITE\r\n\
             Contact: <sip:push@127.0.0.1:16060;transport={param}>;{tagged};automata\r\n\
             Accept-Contact: *;{tagged}\r\nP-Asserted-Identity: <sip:cpm-pf@ims.example.net>\r\n\
             P-Asserted-Service: urn:urn-7:3gpp-service.ims.icsi.oma.cpm.deferred\r\n\
             P-Charging-Vector: icid-value=\"##########abcdefghijklmnopqrstuv\";\
             icid-generated-at=pf1.ims.example.net;orig-ioi=\"ims.example.net\"\r\n\
             User-Agent: CPM-serv/OMA2.2 bare/0\r\n\
             Allow: INVITE, ACK, CANCEL, BYE, UPDATE, OPTIONS\r\nSupported: timer\r\n\
             Session-Expires: 1800;refresher=uac\r\n\
             Conversation-ID: 4f93f0fe-86d6-462c-9ba2-e4bc3d1cafcc\r\n\
             Contribution-ID: 94d850fb-ed40-437e-9609-de9ea0e393d9\r\n\
             Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
            head("INVITE", uri, "i"),
            sdp.len(),
        );
        let in_dialog = |method: &str, letter: &str, cseq: u8| {
            format!(
                "{}{from}{to_value};tag=an\r\n{ids}CSeq: {cseq} {method}\r\nContent-Length: 0\r\n\r\n",
                head(
                    method,
                    &format!("sip:answer@{to};transport={param}"),
                    letter
                ),
            )
        };
        Self {
            invite: Form::new(&invite),
            ack: Form::new(&in_dialog("ACK", "a", 1)),
            bye: Form::new(&in_dialog("BYE", "b", 2)),
            line,
            started: 0,
            answered: 0,
            ended: 0,
            strays: 0,
            starting: true,
        }
    }

    fn start(&mut self, lines: &mut Lines) {
        if self.starting && self.started < CALLS_MAX {
            self.started += 1;
            self.invite.put(self.started, lines.buffer(self.line));
            lines.end(self.line);
        }
    }
}

impl Role for Caller {
    fn message(&mut self, line: LineId, message: &Message<'_>, lines: &mut Lines) {
        let call = message
            .value(Header::CallId)
            .and_then(|id| id.get(..DIGITS));
        let Some(call) = call.and_then(read_digits) else {
            self.strays += 1;
            return;
        };
        match (message.status, message.cseq()) {
            (100, _) => {}
            (200, Some((1, b"INVITE"))) => {
                self.answered += 1;
                for form in [&self.ack, &self.bye] {
                    form.put(call, lines.buffer(line));
                    lines.end(line);
                }
            }
            (200, Some((2, b"BYE"))) => {
                self.ended += 1;
                self.start(lines);
            }
            _ => self.strays += 1,
        }
    }
}

impl Call {
    /// Calls until the time is over; what was done as JSON, or a sentence.
    pub fn run(&self) -> Result<String, String> {
        crate::workers::pin(self.cpu);
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let explain = |error: std::io::Error| format!("--to {}: {error}", self.to);
        let mut wire = Wire::bind(any, self.transport, false).map_err(explain)?;
        let line = wire.line_to(self.to).map_err(explain)?;
        let mut caller = Caller::new(self.to, self.transport, line);
        for _ in 0..self.in_flight {
            caller.start(&mut wire.lines);
        }
        let start = Instant::now();
        let until = super::seconds(self.seconds);
        loop {
            if wire.turn(&mut caller).map_err(explain)? == 0 {
                wire.wait();
            }
            let passed = start.elapsed();
            caller.starting = passed < until;
            let done = caller.ended == caller.started;
            if passed > until + DRAIN || (done && !caller.starting) {
                break;
            }
        }
        Ok(format!(
            "{{\"invites\":{},\"accepted\":{},\"byes_answered\":{},\"strays\":{}}}\n",
            caller.started, caller.answered, caller.ended, caller.strays
        ))
    }
}
