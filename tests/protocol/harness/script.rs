//! What peers say: the S-CSCF, the registrar and the phones, as text.

use super::text::{Msrp, Sip, crlf, param};
use super::{Bench, PHONE, addr};
use volley::base::surface::{LinkId, LinkKind};

/// The user of the examples.
pub(crate) const USER: &str = "sip:+15550100@ims.example.net";
/// Instances of the two phones of the examples.
pub(crate) const PHONE_A: &str = "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6";
pub(crate) const PHONE_B: &str = "urn:uuid:2ad8950e-48a5-4a74-8d99-ad76cc7fc74c";

/// A file of the worked examples.
pub(crate) fn example(name: &str) -> String {
    let path = format!("{}/tests/data/flows/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).expect("the example is there")
}

/// `head` with Content-Length and `body`.
pub(crate) fn message(head: &str, body: &str) -> String {
    let head = crlf(head.trim_start());
    let head = head.trim_end();
    format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A contact of the registration document.
#[derive(Clone, Debug)]
pub(crate) struct Contact {
    pub(crate) instance: &'static str,
    pub(crate) call_id: String,
    pub(crate) cseq: u32,
    pub(crate) state: &'static str,
    pub(crate) event: &'static str,
    pub(crate) gruu: Option<String>,
    pub(crate) expires_s: u32,
}

impl Contact {
    pub(crate) fn of(instance: &'static str) -> Self {
        Self {
            instance,
            call_id: format!("reg-{}", &instance[9..13]),
            cseq: 1,
            state: "active",
            event: "registered",
            gruu: Some(format!("{USER};gr={instance}")),
            expires_s: 500_000,
        }
    }

    fn xml(&self, id: usize) -> String {
        let icsi = "urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.deferred";
        let gruu = self
            .gruu
            .as_ref()
            .map_or_else(String::new, |uri| format!("<gr:pub-gruu uri=\"{uri}\"/>"));
        format!(
            "<contact id=\"c{id}\" state=\"{}\" event=\"{}\" callid=\"{}\" cseq=\"{}\" \
             expires=\"{}\"><uri>sip:+15550100@198.51.100.{id}:5060</uri>\
             <unknown-param name=\"+sip.instance\">\"&lt;{}&gt;\"</unknown-param>\
             <unknown-param name=\"+g.3gpp.icsi-ref\">\"{icsi}\"</unknown-param>{gruu}</contact>",
            self.state, self.event, self.call_id, self.cseq, self.expires_s, self.instance
        )
    }
}

/// A registration document of the user.
pub(crate) fn reginfo(version: u32, state: &str, contacts: &[Contact]) -> String {
    let rows: String = contacts
        .iter()
        .enumerate()
        .map(|(at, contact)| contact.xml(at + 1))
        .collect();
    let active = contacts.iter().any(|contact| contact.state == "active");
    let overall = if active { "active" } else { "terminated" };
    format!(
        "<?xml version=\"1.0\"?>\n<reginfo xmlns=\"urn:ietf:params:xml:ns:reginfo\" \
         xmlns:gr=\"urn:ietf:params:xml:ns:gruuinfo\" version=\"{version}\" state=\"{state}\">\
         <registration aor=\"{USER}\" id=\"r1\" state=\"{overall}\">{rows}</registration></reginfo>"
    )
}

/// The registrar's side of a subscription.
#[derive(Clone, Debug)]
pub(crate) struct Notifier {
    pub(crate) call_id: String,
    pub(crate) our_tag: String,
    pub(crate) tag: String,
    pub(crate) cseq: u32,
    pub(crate) version: u32,
}

/// How a phone answers an INVITE.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) tag: &'static str,
    pub(crate) setup: &'static str,
    pub(crate) session_expires: Option<&'static str>,
    pub(crate) allow: &'static str,
    pub(crate) sdp: String,
    pub(crate) path: &'static str,
}

/// The MSRP path of the phone of the tests.
pub(crate) const PHONE_PATH: &str = "msrp://198.51.100.7:2855/Zt4hVd0PqL8nKx2cJf6u;tcp";

pub(crate) fn sdp(path: &str, setup: &str, more: &str) -> String {
    crlf(&format!(
        "v=0\no=- 1 1 IN IP4 198.51.100.7\ns=-\nc=IN IP4 198.51.100.7\nt=0 0\n\
         m=message 2855 TCP/MSRP *\na=path:{path}\na=accept-types:message/cpim\n\
         a=accept-wrapped-types:*\na=setup:{setup}\n{more}a=recvonly\n"
    ))
}

impl Answer {
    /// The phone connects to us.
    pub(crate) fn active() -> Self {
        Self::new("active")
    }

    /// We connect to the phone.
    pub(crate) fn passive() -> Self {
        Self::new("passive")
    }

    fn new(setup: &'static str) -> Self {
        Self {
            tag: "ue-9c41b7",
            setup,
            session_expires: Some("1800;refresher=uac"),
            allow: "INVITE, ACK, CANCEL, BYE, UPDATE, MESSAGE",
            sdp: sdp(PHONE_PATH, setup, ""),
            path: PHONE_PATH,
        }
    }
}

/// An agreed push session as the phone sees it.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) invite: Sip,
    pub(crate) ack: Sip,
    pub(crate) answer: Answer,
    pub(crate) link: LinkId,
}

/// A response to `request`, built from its text.
pub(crate) fn response(request: &Sip, status: &str, tag: &str, more: &str, body: &str) -> String {
    let mut head = format!("SIP/2.0 {status}\n");
    for via in request.all("Via") {
        head += &format!("Via: {via}\n");
    }
    let to = request.get("To");
    let to = if tag.is_empty() || !param(to, "tag").is_empty() {
        to.to_owned()
    } else {
        format!("{to};tag={tag}")
    };
    head += &format!(
        "From: {}\nTo: {to}\nCall-ID: {}\nCSeq: {}\n",
        request.get("From"),
        request.call_id(),
        request.get("CSeq")
    );
    message(&format!("{head}{more}"), body)
}

impl Bench {
    fn fresh(&mut self) -> u32 {
        self.serial += 1;
        self.serial
    }

    /// A MESSAGE for the user; `text` is its content.
    pub(crate) fn deposit_text(&mut self, to: &str, text: &str, more: &str) -> String {
        let n = self.fresh();
        let cpim = crlf(&format!(
            "From: <sip:+15550177@ims.example.net>\nTo: <{to}>\n\
             DateTime: 2026-11-22T05:58:01Z\nNS: imdn <urn:ietf:params:imdn>\n\
             imdn.Message-ID: m{n}\nimdn.Disposition-Notification: positive-delivery\n\n\
             Content-Type: text/plain; charset=UTF-8\n\n{text}"
        ));
        self.raw_deposit(to, &format!("Content-Type: message/cpim\n{more}"), &cpim)
    }

    /// A MESSAGE with the given header lines and body.
    pub(crate) fn raw_deposit(&mut self, to: &str, lines: &str, body: &str) -> String {
        let n = self.fresh();
        let transport = if self.udp.is_some() { "UDP" } else { "TCP" };
        message(
            &format!(
                "MESSAGE {to} SIP/2.0\n\
                 Via: SIP/2.0/{transport} 192.0.2.20:5060;branch=z9hG4bKm{n}\n\
                 Max-Forwards: 66\nFrom: <sip:+15550177@ims.example.net>;tag=snd{n}\n\
                 To: <{to}>\nCall-ID: msg{n}@sender\nCSeq: 1 MESSAGE\n\
                 P-Asserted-Identity: <sip:+15550177@ims.example.net>\n{lines}"
            ),
            body,
        )
    }

    /// A message is accepted for the user.
    #[track_caller]
    pub(crate) fn deposit(&mut self, text: &str) {
        let message = self.deposit_text(USER, text, "");
        self.sip_in(&message);
        let ok = self.expect_some("202");
        assert!(!ok.has("Contact") && ok.body.is_empty(), "INT-2");
    }

    /// Answers `request`, with what the hop asks for in its Via (RFC 7339).
    #[track_caller]
    pub(crate) fn reply_with_wish(&mut self, request: &Sip, status: &str, oc: &str) {
        let text = response(request, status, "peer", "", "");
        let offer = ";oc;oc-algo=\"loss,rate\"";
        assert!(
            text.contains(offer),
            "OVL-1: every request offers overload control"
        );
        self.sip_in(&text.replace(offer, oc));
    }

    /// Answers `request` on the transport it came by.
    pub(crate) fn reply(&mut self, request: &Sip, status: &str, more: &str) {
        self.reply_as(request, status, "peer", more, "");
    }

    pub(crate) fn reply_as(
        &mut self,
        request: &Sip,
        status: &str,
        tag: &str,
        more: &str,
        body: &str,
    ) {
        let text = response(request, status, tag, more, body);
        match request.to {
            Some(to) => self.datagram(to, text.as_bytes()),
            None => self.feed(request.link, text.as_bytes()),
        }
    }

    /// Answers a SUBSCRIBE with 200 and makes its notifier.
    pub(crate) fn notifier(&mut self, subscribe: &Sip) -> Notifier {
        self.reply_as(
            subscribe,
            "200 OK",
            "scnot01",
            "Contact: <sip:scscf1.ims.example.net:5060;transport=tcp>\nExpires: 600000\n",
            "",
        );
        Notifier {
            call_id: subscribe.call_id().to_owned(),
            our_tag: subscribe.sender_tag().to_owned(),
            tag: "scnot01".to_owned(),
            cseq: 0,
            version: 0,
        }
    }

    /// The text of the next NOTIFY; counts CSeq up.
    pub(crate) fn notify_text(
        &mut self,
        notifier: &mut Notifier,
        lines: &str,
        body: &str,
    ) -> String {
        notifier.cseq += 1;
        let n = self.fresh();
        let transport = if self.udp.is_some() { "UDP" } else { "TCP" };
        message(
            &format!(
                "NOTIFY sip:push@pf1.ims.example.net:5060;transport=tcp SIP/2.0\n\
                 Via: SIP/2.0/{transport} 192.0.2.20:5060;branch=z9hG4bKn{n}\n\
                 Max-Forwards: 70\nFrom: <{USER}>;tag={}\n\
                 To: <sip:cpm-pf@ims.example.net>;tag={}\nCall-ID: {}\nCSeq: {} NOTIFY\n\
                 Contact: <sip:scscf1.ims.example.net:5060;transport=tcp>\n{lines}",
                notifier.tag, notifier.our_tag, notifier.call_id, notifier.cseq
            ),
            body,
        )
    }

    /// A NOTIFY with a document is accepted.
    #[track_caller]
    pub(crate) fn notify(&mut self, notifier: &mut Notifier, state: &str, contacts: &[Contact]) {
        let document = reginfo(notifier.version, state, contacts);
        notifier.version += 1;
        let text = self.notify_text(
            notifier,
            "Event: reg\nSubscription-State: active;expires=599999\n\
             Content-Type: application/reginfo+xml\n",
            &document,
        );
        self.sip_in(&text);
        self.expect("200");
    }

    /// From nothing to a user with these contacts, of whom the engine knows.
    #[track_caller]
    pub(crate) fn subscribed(&mut self, contacts: &[Contact]) -> Notifier {
        let subscribe = self.expect("SUBSCRIBE");
        let mut notifier = self.notifier(&subscribe);
        self.notify(&mut notifier, "full", contacts);
        notifier
    }

    /// A message for the user with phone A; gives the INVITE.
    #[track_caller]
    pub(crate) fn invited(&mut self) -> (Sip, Notifier) {
        self.deposit("hello");
        let notifier = self.subscribed(&[Contact::of(PHONE_A)]);
        (self.expect("INVITE"), notifier)
    }

    /// Accepts an INVITE; gives its ACK.
    #[track_caller]
    pub(crate) fn accept(&mut self, invite: &Sip, answer: &Answer) -> Sip {
        self.send_200(invite, answer);
        self.expect("ACK")
    }

    pub(crate) fn send_200(&mut self, invite: &Sip, answer: &Answer) {
        let timer = answer.session_expires.map_or_else(String::new, |value| {
            format!("Require: timer\nSession-Expires: {value}\n")
        });
        let lines = format!(
            "Record-Route: <sip:mt@pcscf1.ims.example.net:5060;lr>, \
             <sip:mt@scscf1.ims.example.net:5060;transport=tcp;lr>\n\
             Contact: <{USER};gr={PHONE_A}>;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.deferred\"\n\
             Allow: {}\nSupported: timer\n{timer}Content-Type: application/sdp\n",
            answer.allow
        );
        self.reply_as(invite, "200 OK", answer.tag, &lines, &answer.sdp);
    }

    /// An INVITE accepted and its MSRP connection bound, by us or by the phone.
    #[track_caller]
    pub(crate) fn bound(&mut self, invite: &Sip, answer: &Answer) -> Session {
        let ack = self.accept(invite, answer);
        let link = if answer.setup == "active" {
            let link = self.open(LinkKind::MsrpInbound, addr("198.51.100.7:49152"));
            let tid = format!("b1nd{:08}", self.fresh());
            let bind = crlf(&format!(
                "MSRP {tid} SEND\nTo-Path: {}\nFrom-Path: {}\nMessage-ID: ue0bind1\n\
                 Byte-Range: 1-0/0\n-------{tid}$\n",
                invite.path(),
                answer.path
            ));
            self.feed(link, bind.as_bytes());
            let ok = self.expect_msrp("200");
            assert_eq!(ok.tid, tid);
            link
        } else {
            let at = self.connects.iter().rposition(|&to| to == addr(PHONE));
            at.expect("we connect to a passive phone");
            LinkId {
                slot: u32::MAX,
                generation: 0,
            }
        };
        Session {
            invite: invite.clone(),
            ack,
            answer: answer.clone(),
            link,
        }
    }

    /// From nothing to a session on which the first SEND is out.
    #[track_caller]
    pub(crate) fn sending(&mut self) -> (Session, Notifier, Msrp) {
        let (invite, notifier) = self.invited();
        let mut session = self.bound(&invite, &Answer::passive());
        let send = self.expect_msrp("SEND");
        session.link = send.link;
        (session, notifier, send)
    }

    /// The phone answers a frame of ours.
    pub(crate) fn msrp_reply(&mut self, frame: &Msrp, status: &str) {
        let text = crlf(&format!(
            "MSRP {} {status}\nTo-Path: {}\nFrom-Path: {}\n-------{}$\n",
            frame.tid,
            frame.get("From-Path"),
            frame.get("To-Path"),
            frame.tid
        ));
        self.feed(frame.link, text.as_bytes());
    }

    /// The phone reports on a frame's message.
    pub(crate) fn msrp_report(&mut self, frame: &Msrp, range: &str, status: &str) {
        let n = self.fresh();
        let text = crlf(&format!(
            "MSRP rpt{n:08} REPORT\nTo-Path: {}\nFrom-Path: {}\nMessage-ID: {}\n\
             Byte-Range: {range}\nStatus: 000 {status}\n-------rpt{n:08}$\n",
            frame.get("From-Path"),
            frame.get("To-Path"),
            frame.get("Message-ID")
        ));
        self.feed(frame.link, text.as_bytes());
    }

    /// The phone takes a one-chunk message: 200 and a whole REPORT.
    pub(crate) fn take_message(&mut self, frame: &Msrp) {
        let (_, _, total) = frame.range();
        self.msrp_reply(frame, "200 OK");
        self.msrp_report(frame, &format!("1-{total}/{total}"), "200 OK");
    }

    /// A request of the phone inside the dialog of `session`.
    pub(crate) fn in_dialog(
        &mut self,
        session: &Session,
        method: &str,
        cseq: u32,
        lines: &str,
        body: &str,
    ) -> String {
        let n = self.fresh();
        let transport = if self.udp.is_some() { "UDP" } else { "TCP" };
        message(
            &format!(
                "{method} sip:push@pf1.ims.example.net:5060;transport=tcp SIP/2.0\n\
                 Via: SIP/2.0/{transport} 192.0.2.20:5060;branch=z9hG4bKd{n}\n\
                 Max-Forwards: 70\nFrom: <{USER}>;tag={}\nTo: {}\nCall-ID: {}\n\
                 CSeq: {cseq} {method}\n{lines}",
                session.answer.tag,
                session.invite.get("From"),
                session.invite.call_id()
            ),
            body,
        )
    }

    /// The message was delivered, the linger passes, BYE and its 200.
    #[track_caller]
    pub(crate) fn finish(&mut self) -> Sip {
        self.run_s(2);
        let bye = self.expect("BYE");
        self.reply(&bye, "200 OK", "");
        bye
    }

    /// The peer asks so much over its stuck connection that no request fits beside the answers owed.
    pub(crate) fn owe_answers(&mut self) {
        for n in 0..6000 {
            self.sip_in(&message(
                &format!(
                    "OPTIONS sip:push@192.0.2.10:5060 SIP/2.0\n\
                     Via: SIP/2.0/TCP 192.0.2.20:5060;branch=z9hG4bK{n}\nMax-Forwards: 70\n\
                     From: <sip:x@y>;tag=1\nTo: <sip:push@192.0.2.10:5060>\nCall-ID: {n}\nCSeq: 1 OPTIONS\n"
                ),
                "",
            ));
        }
    }

    pub(crate) fn messages(&self) -> usize {
        self.shard.population().messages
    }

    pub(crate) fn pushes(&self) -> usize {
        self.shard.population().pushes
    }
}

impl Bench {
    /// A message for the user arrives over the trunk to `hop`.
    pub(crate) fn deposit_by(&mut self, hop: &str, text: &str) {
        let message = self.deposit_text(USER, text, "");
        let link = self.trunks[&addr(hop)];
        self.feed(link, message.as_bytes());
        self.expect_some("202");
    }
}
