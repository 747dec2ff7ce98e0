//! Which headers each message has, in the order of the worked examples.

use core::fmt::Write as _;
use core::net::IpAddr;

use super::engine::{Op, Slot};
use super::profile::{Level, Profile};

/// Collects the ops of one message.
#[derive(Debug)]
struct Builder<'p> {
    profile: &'p Profile,
    ops: Vec<Op>,
}

/// The head and the body of a message.
#[derive(Debug)]
pub(super) struct Layout {
    pub head: Vec<Op>,
    pub body: Vec<Op>,
}

pub(super) fn invite(profile: &Profile) -> Layout {
    let mut b = Builder::start(profile, "INVITE");
    b.text(&format!("Route: {}\r\n", profile.route));
    b.put_from_pf();
    b.put_to_uri();
    b.call_id_and_cseq("INVITE");
    b.contact_with_features();
    b.accept_contact(&profile.feature_value);
    b.optional(Slot::ExtraAcceptContact, "Accept-Contact: ", "\r\n");
    b.assert_identity();
    b.assert_service(profile.asserted_service.as_deref());
    b.charging_vector();
    b.user_agent();
    b.text(&format!("Allow: {}\r\nSupported: timer\r\n", profile.allow));
    b.session_timer();
    b.optional(Slot::ConversationId, "Conversation-ID: ", "\r\n");
    b.optional(Slot::ContributionId, "Contribution-ID: ", "\r\n");
    b.hole(Slot::ExtraHeaders);
    b.text(&profile.extra_lines);
    b.text("Content-Type: application/sdp\r\n");
    b.end_with_body(offer(profile))
}

pub(super) fn reinvite(profile: &Profile) -> Layout {
    let mut b = Builder::start_in_dialog(profile, "INVITE");
    b.contact_with_features();
    b.user_agent();
    b.text(&format!("Allow: {}\r\nSupported: timer\r\n", profile.allow));
    b.session_timer();
    b.text("Content-Type: application/sdp\r\n");
    b.end_with_body(offer(profile))
}

pub(super) fn update(profile: &Profile) -> Layout {
    let mut b = Builder::start_in_dialog(profile, "UPDATE");
    b.contact_with_features();
    b.text("Supported: timer\r\n");
    b.user_agent();
    b.session_timer();
    b.end()
}

pub(super) fn bye(profile: &Profile) -> Layout {
    let mut b = Builder::start_in_dialog(profile, "BYE");
    b.optional(Slot::Reason, "Reason: ", "\r\n");
    b.text("Supported: timer\r\n");
    b.end()
}

/// ACK to a 2xx, and to a failure of an in-dialog INVITE.
pub(super) fn ack(profile: &Profile) -> Layout {
    Builder::start_in_dialog(profile, "ACK").end()
}

/// ACK to a failure of the initial INVITE: its Route is the INVITE's.
pub(super) fn ack_initial(profile: &Profile) -> Layout {
    let mut b = Builder::start(profile, "ACK");
    b.text(&format!("Route: {}\r\n", profile.route));
    b.put_from_pf();
    b.put_to_value();
    b.call_id_and_cseq("ACK");
    b.end()
}

pub(super) fn cancel(profile: &Profile) -> Layout {
    let mut b = Builder::start(profile, "CANCEL");
    b.text(&format!("Route: {}\r\n", profile.route));
    b.put_from_pf();
    b.put_to_uri();
    b.call_id_and_cseq("CANCEL");
    b.text("Supported: timer\r\n");
    b.optional(Slot::Reason, "Reason: ", "\r\n");
    b.end()
}

pub(super) fn subscribe_initial(profile: &Profile) -> Layout {
    let mut b = Builder::start(profile, "SUBSCRIBE");
    b.text(&format!("Route: {}\r\n", profile.route));
    b.put_from_pf();
    b.put_to_value();
    b.call_id_and_cseq("SUBSCRIBE");
    b.subscription();
    b.assert_identity();
    b.charging_vector();
    b.user_agent();
    b.end()
}

pub(super) fn subscribe_refresh(profile: &Profile) -> Layout {
    let mut b = Builder::start_in_dialog(profile, "SUBSCRIBE");
    b.subscription();
    b.user_agent();
    b.end()
}

pub(super) fn message(profile: &Profile) -> Layout {
    let mut b = Builder::start(profile, "MESSAGE");
    b.text(&format!("Route: {}\r\nFrom: <", profile.originating_route));
    b.hole(Slot::FromUri);
    b.text(">;tag=");
    b.hole(Slot::FromTag);
    b.text("\r\n");
    b.put_to_uri();
    b.call_id_and_cseq("MESSAGE");
    b.text("Supported: timer\r\n");
    b.accept_contact(&profile.message_feature_value);
    if profile.trusted {
        b.optional(Slot::AssertedIdentity, "P-Asserted-Identity: <", ">\r\n");
    }
    b.assert_service(profile.message_asserted_service.as_deref());
    b.user_agent();
    b.optional(Slot::ConversationId, "Conversation-ID: ", "\r\n");
    b.optional(Slot::ContributionId, "Contribution-ID: ", "\r\n");
    b.hole(Slot::ExtraHeaders);
    b.text("Content-Type: ");
    b.hole(Slot::ContentType);
    b.text("\r\n");
    b.end_with_body(vec![Op::Hole(Slot::Body)])
}

pub(super) fn options(profile: &Profile) -> Layout {
    let mut b = Builder::start(profile, "OPTIONS");
    b.put_from_pf();
    b.put_to_uri();
    b.call_id_and_cseq("OPTIONS");
    b.text(&format!("Contact: <{}>\r\n", profile.contact_uri));
    b.text("Accept: application/sdp\r\nSupported: timer\r\n");
    b.user_agent();
    b.end()
}

impl<'p> Builder<'p> {
    /// Request line, Via, Max-Forwards.
    fn start(profile: &'p Profile, method: &str) -> Self {
        let mut b = Self {
            profile,
            ops: Vec::new(),
        };
        b.text(&format!("{method} "));
        b.hole(Slot::RequestUri);
        let (transport, sent_by) = (&profile.transport, &profile.sent_by);
        b.text(&format!(
            " SIP/2.0\r\nVia: SIP/2.0/{transport} {sent_by};branch=z9hG4bK"
        ));
        b.hole(Slot::Branch);
        if profile.datagram_max > 0 {
            b.hole(Slot::Filler);
        }
        if profile.rport {
            b.text(";rport");
        }
        if profile.oc {
            b.text(";oc;oc-algo=\"loss,rate\"");
        }
        b.text("\r\nMax-Forwards: 70\r\n");
        b
    }

    /// The same with what a dialog adds: route set, From, To with tag, Call-ID, CSeq.
    fn start_in_dialog(profile: &'p Profile, method: &str) -> Self {
        let mut b = Self::start(profile, method);
        b.hole(Slot::RouteLines);
        b.put_from_pf();
        b.put_to_value();
        b.call_id_and_cseq(method);
        b
    }

    fn text(&mut self, text: &str) {
        if let Some(Op::Text(last)) = self.ops.last_mut() {
            last.push_str(text);
        } else {
            self.ops.push(Op::Text(text.into()));
        }
    }

    fn hole(&mut self, slot: Slot) {
        self.ops.push(Op::Hole(slot));
    }

    fn optional(&mut self, slot: Slot, before: &'static str, after: &'static str) {
        self.ops.push(Op::Optional(slot, before, after));
    }

    fn put_from_pf(&mut self) {
        if self.profile.sender_in_from {
            self.text("From: <");
            self.hole(Slot::FromUri);
            self.text(">;tag=");
        } else {
            self.text(&format!("From: <{}>;tag=", self.profile.pf_uri));
        }
        self.hole(Slot::FromTag);
        self.text("\r\n");
    }

    fn put_to_uri(&mut self) {
        self.text("To: <");
        self.hole(Slot::To);
        self.text(">\r\n");
    }

    fn put_to_value(&mut self) {
        self.text("To: ");
        self.hole(Slot::To);
        self.text("\r\n");
    }

    fn call_id_and_cseq(&mut self, method: &str) {
        self.text("Call-ID: ");
        self.hole(Slot::CallId);
        self.text(&format!("@{}\r\nCSeq: ", self.profile.call_id_host));
        self.hole(Slot::Cseq);
        self.text(&format!(" {method}\r\n"));
    }

    fn contact_with_features(&mut self) {
        let uri = &self.profile.contact_uri;
        let feature = feature_tag(&self.profile.feature_name, &self.profile.feature_value);
        self.text(&format!("Contact: <{uri}>;{feature};automata\r\n"));
    }

    fn accept_contact(&mut self, feature_value: &str) {
        let feature = feature_tag(&self.profile.feature_name, feature_value);
        self.text(&format!("Accept-Contact: *;{feature}"));
        if self.profile.accept_require {
            self.text(";require");
        }
        if self.profile.accept_explicit {
            self.text(";explicit");
        }
        self.text("\r\n");
    }

    fn assert_identity(&mut self) {
        if self.profile.trusted && self.profile.sender_in_from {
            self.text("P-Asserted-Identity: <");
            self.hole(Slot::FromUri);
            self.text(">\r\n");
        } else if self.profile.trusted {
            let identity = &self.profile.asserted_identity;
            let uri = identity.as_ref().unwrap_or(&self.profile.pf_uri);
            self.text(&format!("P-Asserted-Identity: <{uri}>\r\n"));
        }
    }

    fn assert_service(&mut self, service: Option<&str>) {
        if let (true, Some(service)) = (self.profile.trusted, service) {
            self.text(&format!("P-Asserted-Service: {service}\r\n"));
        }
    }

    fn charging_vector(&mut self) {
        if self.profile.trusted {
            let (host, ioi) = (&self.profile.icid_generated_at, &self.profile.orig_ioi);
            self.text("P-Charging-Vector: icid-value=\"");
            self.hole(Slot::Icid);
            self.text(&format!("\";icid-generated-at={host};orig-ioi=\"{ioi}\""));
            self.optional(Slot::RelatedIcid, ";related-icid=\"", "\"");
            self.text("\r\n");
        }
    }

    fn user_agent(&mut self) {
        self.text(&format!("User-Agent: {}\r\n", self.profile.user_agent));
    }

    fn session_timer(&mut self) {
        self.optional(Slot::SessionExpires, "Session-Expires: ", "\r\n");
        self.optional(Slot::MinSe, "Min-SE: ", "\r\n");
    }

    fn subscription(&mut self) {
        self.text(&format!("Contact: <{}>\r\n", self.profile.contact_uri));
        self.text("Event: reg\r\nAccept: application/reginfo+xml\r\nExpires: ");
        self.hole(Slot::Expires);
        self.text("\r\nSupported: timer\r\n");
    }

    fn end(mut self) -> Layout {
        self.text("Content-Length: 0\r\n\r\n");
        Layout {
            head: self.ops,
            body: Vec::new(),
        }
    }

    fn end_with_body(mut self, body: Vec<Op>) -> Layout {
        self.text("Content-Length: ");
        self.hole(Slot::ContentLength);
        self.text("\r\n\r\n");
        Layout {
            head: self.ops,
            body,
        }
    }
}

/// The offer: one `message` line, one sendonly (SDP-1 to SDP-10).
fn offer(profile: &Profile) -> Vec<Op> {
    let host = profile.msrp_host;
    let port = profile.msrp_port;
    let family = if host.is_ipv4() { "IP4" } else { "IP6" };
    let uri_host = match host {
        IpAddr::V4(host) => host.to_string(),
        IpAddr::V6(host) => format!("[{host}]"),
    };
    let (session, media) = match profile.direction_level {
        Level::Media => ("", "a=sendonly\r\n"),
        Level::Session => ("a=sendonly\r\n", ""),
    };
    let before = format!(
        " IN {family} {host}\r\ns=-\r\nc=IN {family} {host}\r\nt=0 0\r\n{session}\
         m=message {port} TCP/MSRP *\r\na=path:msrp://{uri_host}:{port}/"
    );
    let mut after = format!(
        ";tcp\r\na=accept-types:{}\r\na=accept-wrapped-types:{}\r\n",
        profile.accept_types, profile.accept_wrapped_types
    );
    if let Some(size) = profile.max_size {
        write!(after, "a=max-size:{size}\r\n").expect("writing to a String cannot fail");
    }
    write!(after, "a=setup:{}\r\n", profile.setup.as_str())
        .expect("writing to a String cannot fail");
    if profile.cema {
        after.push_str("a=msrp-cema\r\n");
    }
    after.push_str(media);
    vec![
        Op::Text("v=0\r\no=- ".into()),
        Op::Hole(Slot::Origin),
        Op::Text(before),
        Op::Hole(Slot::MsrpSession),
        Op::Text(after),
    ]
}

/// A feature parameter; what token-nobang does not allow is percent-encoded (RFC 3840 section 9).
fn feature_tag(name: &str, value: &str) -> String {
    let mut tag = String::from(name);
    if value.is_empty() {
        return tag;
    }
    tag.push_str("=\"");
    for c in value.chars() {
        if c.is_ascii_alphanumeric() || "-.%*_+`'~,".contains(c) {
            tag.push(c);
        } else {
            write!(tag, "%{:02X}", u32::from(c)).expect("writing to a String cannot fail");
        }
    }
    tag.push('"');
    tag
}
