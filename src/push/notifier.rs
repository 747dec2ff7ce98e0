//! The dialog of a registration subscription, as its first NOTIFY made it (RFC 6665 section 4.4.1).
//!
//! We are its subscriber: remote target and route set come from the NOTIFY, in its order.

use crate::base::limits;
use crate::base::span::Span;
use crate::sip::message::{HeaderName, Message};

/// Target, routes and tags of a subscription. Default is "no dialog yet".
#[derive(Debug, Default)]
pub struct NotifierDialog {
    text: Vec<u8>,
    target: Span,
    routes: Span,
    to: Span,
    cseq: u32,
}

impl NotifierDialog {
    /// Forgets the dialog; the next request opens another.
    pub fn reset(&mut self) {
        self.text.clear();
        self.target = Span::EMPTY;
        self.routes = Span::EMPTY;
        self.to = Span::EMPTY;
        self.cseq = 0;
    }

    /// `true` once a NOTIFY made the dialog.
    #[must_use]
    pub const fn is_established(&self) -> bool {
        !self.target.is_empty()
    }

    /// Takes the dialog from a NOTIFY. Without a usable Contact nothing is taken, and the next
    /// SUBSCRIBE opens a new dialog.
    pub fn establish(&mut self, notify: &Message<'_>) {
        let Some(Ok(contact)) = notify.contact() else {
            return;
        };
        if contact.uri.len() > limits::URI_BYTES_MAX
            || notify.values(HeaderName::RecordRoute).count() > limits::ROUTES_MAX
        {
            return;
        }
        self.text.clear();
        self.target = self.put(contact.uri);
        let start = self.text.len();
        for route in notify.values(HeaderName::RecordRoute) {
            self.text.extend_from_slice(b"Route: ");
            self.text.extend_from_slice(route);
            self.text.extend_from_slice(b"\r\n");
        }
        self.routes = Span::new(start, self.text.len());
        self.to = self.put(notify.header(HeaderName::From).unwrap_or_default());
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
