//! The dialog of a registration subscription, as its first NOTIFY made it (RFC 6665 section 4.4.1).
//!
//! We are its subscriber: route set and remote tag come from that NOTIFY, in its order; the remote
//! target from the last one that named another (RFC 3261 section 12.2.2).

use crate::base::limits;
use crate::base::span::Span;
use crate::registry::user::digest;
use crate::sip::dialog::{demands_tls, first_route};
use crate::sip::message::{HeaderName, Message};

/// Target, routes and tags of a subscription. Default is "no dialog yet".
#[derive(Debug, Default)]
pub struct NotifierDialog {
    text: Vec<u8>,
    routes: Span,
    to: Span,
    /// The Contact value that gave the target, as it came.
    contact: Span,
    target: Span,
    /// Digest of the Call-ID that was found to be ours; zero for none yet.
    call_id: u64,
    cseq: u32,
}

impl NotifierDialog {
    /// Forgets the dialog; the next request opens another.
    pub fn reset(&mut self) {
        self.text.clear();
        self.routes = Span::EMPTY;
        self.to = Span::EMPTY;
        self.contact = Span::EMPTY;
        self.target = Span::EMPTY;
        self.call_id = 0;
        self.cseq = 0;
    }

    /// `true` once a NOTIFY made the dialog.
    #[must_use]
    pub const fn is_established(&self) -> bool {
        !self.target.is_empty()
    }

    /// Whether `call_id` is that of the dialog; `is_ours` finds out the first time.
    pub fn admits(&mut self, call_id: &[u8], is_ours: impl FnOnce(&[u8]) -> bool) -> bool {
        let digest = digest(call_id);
        if self.call_id != digest {
            if !is_ours(call_id) {
                return false;
            }
            self.call_id = digest;
        }
        true
    }

    /// Takes the dialog from its first NOTIFY, and from later ones where it goes; true when it goes
    /// elsewhere now. Without a usable Contact, or with a route that demands TLS, nothing is taken:
    /// unless there is a dialog, the next SUBSCRIBE opens a new one.
    pub fn establish(&mut self, notify: &Message<'_>) -> bool {
        let value = notify.header(HeaderName::Contact).unwrap_or_default();
        if self.is_established() && self.contact.slice(&self.text) == value {
            return false;
        }
        let Some(Ok(contact)) = notify.contact() else {
            return false;
        };
        if contact.uri.is_empty()
            || contact.uri.len() > limits::URI_BYTES_MAX
            || demands_tls(contact.uri)
        {
            return false;
        }
        if self.is_established() {
            self.text.truncate(self.contact.start as usize);
        } else if !self.take_routes(notify) {
            return false;
        }
        self.contact = self.put(value);
        self.target = self.put(contact.uri);
        true
    }

    /// Route set and To value; false when there are too many routes, or the first demands TLS.
    fn take_routes(&mut self, notify: &Message<'_>) -> bool {
        if notify.values(HeaderName::RecordRoute).count() > limits::ROUTES_MAX {
            return false;
        }
        self.text.clear();
        for route in notify.values(HeaderName::RecordRoute) {
            self.text.extend_from_slice(b"Route: ");
            self.text.extend_from_slice(route);
            self.text.extend_from_slice(b"\r\n");
        }
        self.routes = Span::new(0, self.text.len());
        if first_route(&self.text).is_some_and(demands_tls) {
            self.text.clear();
            self.routes = Span::EMPTY;
            return false;
        }
        self.to = self.put(notify.header(HeaderName::From).unwrap_or_default());
        true
    }

    fn put(&mut self, bytes: &[u8]) -> Span {
        let start = self.text.len();
        self.text.extend_from_slice(bytes);
        Span::new(start, self.text.len())
    }

    /// Request-URI of a request in the dialog.
    #[must_use]
    pub fn request_uri(&self) -> &[u8] {
        self.target.slice(&self.text)
    }

    /// The URI that says where a request in the dialog goes.
    #[must_use]
    pub fn next_hop_uri(&self) -> &[u8] {
        first_route(self.route_lines()).unwrap_or_else(|| self.request_uri())
    }

    /// Its Route lines.
    #[must_use]
    pub fn route_lines(&self) -> &[u8] {
        self.routes.slice(&self.text)
    }

    /// Its To value.
    #[must_use]
    pub fn to_value(&self) -> &[u8] {
        self.to.slice(&self.text)
    }

    /// The number of the next request.
    pub const fn next_cseq(&mut self) -> u32 {
        self.cseq += 1;
        self.cseq
    }
}

crate::fold_fields!(NotifierDialog {
    text,
    routes,
    to,
    contact,
    target,
    call_id,
    cseq
});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::message::HeaderTable;
    use crate::sip::parser;

    fn notify(contact: &str, routes: &str) -> String {
        format!(
            "NOTIFY sip:pf@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/TCP 192.0.2.20;branch=z9hG4bK1\r\n\
             Max-Forwards: 70\r\n{routes}From: <sip:a@ims.example>;tag=n\r\n\
             To: <sip:pf@ims.example>;tag=p\r\nCall-ID: c\r\nCSeq: 1 NOTIFY\r\n\
             Contact: {contact}\r\nEvent: reg\r\nSubscription-State: active\r\n\
             Content-Length: 0\r\n\r\n"
        )
    }

    fn take(dialog: &mut NotifierDialog, text: &str) {
        let mut table = HeaderTable::new();
        let message = parser::parse(text.as_bytes(), &mut table).unwrap();
        dialog.establish(&message);
    }

    // Proves: SUB-4
    #[test]
    fn later_notifies_move_the_target_and_leave_the_route_set() {
        let mut dialog = NotifierDialog::default();
        take(&mut dialog, &notify("*", ""));
        assert!(!dialog.is_established());
        let route = "Record-Route: <sip:edge.example;lr>\r\n";
        take(&mut dialog, &notify("<sip:s1.example>", route));
        for (contact, target) in [
            ("<sip:s1.example>", "sip:s1.example"),
            ("<sip:s2.example:5070>", "sip:s2.example:5070"),
            ("*", "sip:s2.example:5070"),
            ("<sip:s3.example>;x=y", "sip:s3.example"),
        ] {
            take(&mut dialog, &notify(contact, ""));
            assert_eq!(dialog.request_uri(), target.as_bytes(), "{contact}");
            assert_eq!(dialog.route_lines(), b"Route: <sip:edge.example;lr>\r\n");
            assert_eq!(dialog.to_value(), b"<sip:a@ims.example>;tag=n");
        }
        dialog.reset();
        take(&mut dialog, &notify("<sip:s1.example>", ""));
        assert!(dialog.is_established() && dialog.route_lines().is_empty());
    }

    #[test]
    fn a_call_id_is_looked_at_once() {
        let mut dialog = NotifierDialog::default();
        let mut looks = 0;
        let mut admits = |dialog: &mut NotifierDialog, call_id: &[u8]| {
            dialog.admits(call_id, |call_id| {
                looks += 1;
                call_id.starts_with(b"ours")
            })
        };
        assert!(!admits(&mut dialog, b"theirs"));
        assert!(admits(&mut dialog, b"ours@h"));
        assert!(admits(&mut dialog, b"ours@h"));
        assert!(!admits(&mut dialog, b"other"));
        assert!(admits(&mut dialog, b"ours@h"));
        dialog.reset();
        assert!(admits(&mut dialog, b"ours@h"));
        assert_eq!(looks, 4);
    }
}
