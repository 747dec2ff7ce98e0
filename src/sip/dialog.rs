//! A dialog that our INVITE created (RFC 3261 section 12), as the client of its first request. Layer 2.
//!
//! The dialog keeps what later requests are made of, in one reusable buffer: the To value, the route
//! set as ready lines, the remote target. It is established by a 2xx only: we have no use for early
//! dialogs. Not here: the Call-ID and our tag (they are minted and name the push), the requests
//! themselves (templates), the ACK's repetition (the push keeps its octets).

use crate::base::entropy::Jitter;
use crate::base::foresee;
use crate::base::limits::{ROUTES_MAX, URI_BYTES_MAX};
use crate::base::octets;
use crate::sip::header::{AddrSpans, HeaderName};
use crate::sip::message::Message;
use crate::sip::scan::{LWS, is, trim};
use crate::sip::uri::{self, Scheme, Uri};

mod peers;
#[cfg(test)]
mod tests;

pub use peers::Peers;

/// Why a 2xx builds no dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialogError {
    /// The Contact cannot be used as a Request-URI (BAD-24).
    BadContact,
    /// A Record-Route entry cannot be used as a Route (BAD-24).
    BadRoute,
    /// There is no Contact (OK-2b).
    NoContact,
    /// Not a 2xx response.
    NotAccepted,
    /// More Record-Route entries than a dialog may have (BAD-24).
    TooManyRoutes,
}

/// A peer's request is older than one we have seen: answer 500.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfOrder;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Absent,
    Confirmed,
    Ended,
}

/// One dialog. Owner: a push; reset for each new INVITE, its buffer is kept.
///
/// The buffer holds, in this order: the To value; with a strict first route its URI; the Route lines;
/// the remote target (with a strict route inside a last Route line).
#[derive(Clone, Debug, Default)]
pub struct Dialog {
    text: Vec<u8>,
    to_end: u32,
    tag_start: u32,
    tag_end: u32,
    strict_end: u32,
    routes_end: u32,
    target_start: u32,
    target_end: u32,
    local_cseq: u32,
    remote_cseq: Option<u32>,
    state: State,
}

impl Dialog {
    /// Forgets everything; the buffer keeps its capacity.
    pub fn reset(&mut self) {
        let mut text = core::mem::take(&mut self.text);
        text.clear();
        *self = Self {
            text,
            ..Self::default()
        };
    }

    /// Asks for the first `octets` of its text.
    #[inline]
    pub fn foresee(&self, octets: usize) {
        foresee::bring(&self.text[..], octets);
    }

    /// Octets that it owns beside its place.
    #[must_use]
    pub const fn memory(&self) -> usize {
        self.text.capacity()
    }

    /// Builds the dialog from the 2xx to our INVITE (OK-2, DLG-1, DLG-2): route set from its
    /// Record-Route in reverse order, remote target from its Contact, the To value with its tag. `peers`
    /// spares reading what is like what it has seen.
    ///
    /// # Errors
    /// [`DialogError`] when a part cannot be used; the dialog is then as after `reset`, except for
    /// the local `CSeq`.
    pub fn establish(
        &mut self,
        response: &Message<'_>,
        peers: &mut Peers,
    ) -> Result<(), DialogError> {
        self.abandon();
        let built = self.build(response, peers);
        if built.is_err() {
            self.abandon();
        }
        built
    }

    /// Gives up a dialog that cannot be used; the local `CSeq` stays.
    pub fn abandon(&mut self) {
        let cseq = self.local_cseq;
        self.reset();
        self.local_cseq = cseq;
    }

    /// `true` when `response` carries this dialog's remote tag.
    #[must_use]
    pub fn is_same_fork(&self, response: &Message<'_>) -> bool {
        self.state != State::Absent && response.to_tag().unwrap_or_default() == self.remote_tag()
    }

    /// `true` from the 2xx until [`Dialog::end`].
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.state == State::Confirmed
    }

    /// BYE was sent or answered: no further request belongs in this dialog (DLG-8).
    pub fn end(&mut self) {
        self.state = State::Ended;
    }

    /// Replaces the remote target (OK-2a; RFC 3261 section 12.2.1.2). `false`, and no change, when
    /// `contact_uri` cannot be used as a Request-URI.
    pub fn refresh_target(&mut self, contact_uri: &[u8]) -> bool {
        // A target that demands TLS is none: we have no TLS and never go without (NH-2).
        let is_sip = |uri: Uri<'_>| uri.scheme == Scheme::Sip;
        let usable = self.state != State::Absent && usable_uri(contact_uri).is_some_and(is_sip);
        if usable {
            self.text.truncate(self.routes_end as usize);
            self.write_target(contact_uri);
        }
        usable
    }

    /// Request-URI of the next request.
    #[must_use]
    pub fn request_uri(&self) -> &[u8] {
        if self.is_strict() {
            self.slice(self.to_end, self.strict_end)
        } else {
            self.remote_target()
        }
    }

    /// The Contact URI the peer gave last.
    #[must_use]
    pub fn remote_target(&self) -> &[u8] {
        self.slice(self.target_start, self.target_end)
    }

    /// The URI that says where the next request goes: the first Route, or else the Request-URI (RFC
    /// 3261 section 12.2.1.1).
    #[must_use]
    pub fn next_hop_uri(&self) -> &[u8] {
        if self.is_strict() {
            self.request_uri()
        } else {
            first_route(self.route_lines()).unwrap_or_else(|| self.remote_target())
        }
    }

    /// `Route: <..>` lines with their line ends; empty without a route set.
    #[must_use]
    pub fn route_lines(&self) -> &[u8] {
        if self.is_strict() {
            &self.text[self.strict_end as usize..]
        } else {
            self.slice(self.strict_end, self.routes_end)
        }
    }

    /// The To value, tag included, on one line.
    #[must_use]
    pub fn to_value(&self) -> &[u8] {
        self.slice(0, self.to_end)
    }

    /// The peer's tag; empty when it gave none (RFC 2543).
    #[must_use]
    pub fn remote_tag(&self) -> &[u8] {
        self.slice(self.tag_start, self.tag_end)
    }

    /// The `CSeq` number for the next request of ours that is neither ACK nor CANCEL (DLG-5).
    pub fn next_cseq(&mut self) -> u32 {
        // RFC 3261 section 8.1.1.5 keeps numbers below 2^31.
        assert!(self.local_cseq < (1 << 31) - 1, "a dialog has few requests");
        self.local_cseq += 1;
        self.local_cseq
    }

    /// Sets the number that the INVITE used.
    pub fn set_local_cseq(&mut self, number: u32) {
        self.local_cseq = number;
    }

    /// The number of our last request.
    #[must_use]
    pub const fn local_cseq(&self) -> u32 {
        self.local_cseq
    }

    /// Notes the `CSeq` number of a peer's request (not ACK or CANCEL). The first one sets it.
    ///
    /// # Errors
    /// [`OutOfOrder`] when it is lower than one seen before: answer 500.
    pub fn accept_remote_cseq(&mut self, number: u32) -> Result<(), OutOfOrder> {
        if self.remote_cseq.is_some_and(|last| number < last) {
            return Err(OutOfOrder);
        }
        self.remote_cseq = Some(number);
        Ok(())
    }

    fn build(&mut self, response: &Message<'_>, peers: &mut Peers) -> Result<(), DialogError> {
        if !(200..=299).contains(&response.status()) {
            return Err(DialogError::NotAccepted);
        }
        let contact = response.header(HeaderName::Contact);
        let contact = contact.ok_or(DialogError::NoContact)?;
        let contact = peers.contact(contact).ok_or(DialogError::BadContact)?;
        let to = response.header(HeaderName::To).unwrap_or_default();
        append_unfolded(response, to, &mut self.text);
        self.to_end = self.position();
        self.place_tag(response.to_tag().unwrap_or_default());
        self.write_routes(response, peers)?;
        self.write_target(contact);
        if let Ok(cseq) = response.cseq() {
            self.local_cseq = self.local_cseq.max(cseq.number.min((1 << 31) - 2));
        }
        self.state = State::Confirmed;
        Ok(())
    }

    /// Finds the tag in the stored To value; the last place, because a display name comes first.
    fn place_tag(&mut self, tag: &[u8]) {
        // Nearly always the value ends with it.
        let at = if tag.is_empty() {
            self.text.len()
        } else if self.text.ends_with(tag) {
            self.text.len() - tag.len()
        } else {
            memchr::memmem::rfind(&self.text, tag).unwrap_or(self.text.len())
        };
        self.tag_start = offset(at);
        self.tag_end = offset((at + tag.len()).min(self.text.len()));
    }

    fn write_routes(
        &mut self,
        response: &Message<'_>,
        peers: &mut Peers,
    ) -> Result<(), DialogError> {
        self.strict_end = self.to_end;
        let mut lines = response.headers(HeaderName::RecordRoute);
        let only = lines.next().filter(|_| lines.next().is_none());
        if let Some(line) = only
            && let Some(known) = peers.routes(line)
        {
            self.write_loose(response, line, known.places());
        } else {
            self.read_routes(response)?;
            if let Some(line) = only {
                peers.learn_routes(line);
            }
        }
        self.routes_end = self.position();
        Ok(())
    }

    fn read_routes(&mut self, response: &Message<'_>) -> Result<(), DialogError> {
        let mut routes = [(0_u32, 0_u32); ROUTES_MAX];
        let mut count = 0;
        let bytes = response.bytes();
        let mut last = None;
        for line in response.spans(HeaderName::RecordRoute) {
            let mut at = line.0;
            while let Some(start) = next_value(bytes, at, line.1) {
                if count == ROUTES_MAX {
                    return Err(DialogError::TooManyRoutes);
                }
                let route = AddrSpans::parse(bytes, start, line.1, HeaderName::RecordRoute)
                    .map_err(|_| DialogError::BadRoute)?;
                let uri = route.resolve(bytes).uri;
                last = Some((usable_uri(uri).ok_or(DialogError::BadRoute)?, uri));
                let value = trim(&bytes[start..route.end()]);
                routes[count] = (offset(start), offset(start + value.len()));
                count += 1;
                at = route.end();
            }
        }
        let mut loose = &routes[..count];
        // The last one recorded is the first on our way.
        if let Some((parsed, uri)) = last
            && !is_loose(&parsed)
        {
            append_request_uri(&parsed, uri, &mut self.text);
            self.strict_end = self.position();
            loose = &routes[..count - 1];
        }
        self.write_loose(response, bytes, loose);
        Ok(())
    }

    /// Writes Route lines of the places in `bytes`, last first.
    fn write_loose(&mut self, response: &Message<'_>, bytes: &[u8], places: &[(u32, u32)]) {
        for (start, end) in places.iter().rev() {
            self.text.extend_from_slice(b"Route: ");
            let value = &bytes[*start as usize..*end as usize];
            append_unfolded(response, value, &mut self.text);
            self.text.extend_from_slice(b"\r\n");
        }
    }

    fn write_target(&mut self, target: &[u8]) {
        if self.is_strict() {
            self.text.extend_from_slice(b"Route: <");
        }
        self.target_start = self.position();
        self.text.extend_from_slice(target);
        self.target_end = self.position();
        if self.is_strict() {
            self.text.extend_from_slice(b">\r\n");
        }
    }

    const fn is_strict(&self) -> bool {
        self.strict_end > self.to_end
    }

    fn position(&self) -> u32 {
        offset(self.text.len())
    }

    fn slice(&self, start: u32, end: u32) -> &[u8] {
        &self.text[start as usize..end as usize]
    }
}

/// How a peer's INVITE, or UPDATE with an offer, meets requests under way (DLG-11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glare {
    /// It meets none: handle it.
    Clear,
    /// Ours is under way: 491.
    Pending,
    /// An earlier one of the peer is unanswered: 500 with this `Retry-After`, seconds (0 to 10).
    Unanswered {
        /// Value of `Retry-After`.
        retry_after_s: u32,
    },
}

/// Judges glare (RFC 3261 section 14.2; RFC 3311 section 5.2).
pub fn judge_glare(ours_pending: bool, theirs_unanswered: bool, dice: &mut Jitter) -> Glare {
    if theirs_unanswered {
        let pick = u32::try_from(dice.below(11)).expect("at most 10");
        return Glare::Unanswered {
            retry_after_s: pick,
        };
    }
    if ours_pending {
        return Glare::Pending;
    }
    Glare::Clear
}

/// `true` when this answer to a request of ours ends the dialog with BYE (DLG-9; a local timeout is a
/// 408).
#[must_use]
pub const fn ends_dialog(status: u16) -> bool {
    matches!(status, 408 | 481)
}

/// Whether a request to `uri` may only go over TLS, which we do not have (RFC 3261 section 26.2.2).
#[must_use]
pub fn demands_tls(uri: &[u8]) -> bool {
    let secure = b"sips:";
    uri.get(..secure.len())
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case(secure))
        || uri::parse(uri).is_ok_and(|uri| {
            uri.param(b"transport")
                .is_some_and(|name| name.eq_ignore_ascii_case(b"tls"))
        })
}

/// The URI of the first of some `Route: <..>` lines.
#[must_use]
pub fn first_route(lines: &[u8]) -> Option<&[u8]> {
    // Mostly there is no display name.
    if let Some(uri) = lines.strip_prefix(b"Route: <") {
        return octets::find(uri, b'>').map(|end| &uri[..end]);
    }
    // One in quotes may hold anything.
    let mut quoted = false;
    let start = lines.iter().position(|byte| match byte {
        b'"' => {
            quoted = !quoted;
            false
        }
        other => !quoted && *other == b'<',
    })?;
    let uri = &lines[start + 1..];
    octets::find(uri, b'>').map(|end| &uri[..end])
}

/// A sip or sips URI that can stand in a start line or in angle brackets.
fn usable_uri(bytes: &[u8]) -> Option<Uri<'_>> {
    if bytes.len() > URI_BYTES_MAX {
        return None;
    }
    let parsed = uri::parse(bytes).ok()?;
    matches!(parsed.scheme, Scheme::Sip | Scheme::Sips).then_some(parsed)
}

/// Appends a route's URI without what a Request-URI may not carry: headers and a method (RFC 3261
/// section 12.2.1.1 and table 1).
fn append_request_uri(route: &Uri<'_>, bytes: &[u8], out: &mut Vec<u8>) {
    let params = route.params.as_bytes();
    let headers = memchr::memmem::rfind(bytes, route.headers)
        .filter(|_| !route.headers.is_empty())
        .map_or(bytes.len(), |at| at - 1);
    let base = headers.saturating_sub(params.len());
    out.extend_from_slice(&bytes[..base]);
    for param in route.params {
        if param.name.eq_ignore_ascii_case(b"method") {
            continue;
        }
        out.push(b';');
        out.extend_from_slice(param.name);
        if let Some(value) = param.value {
            out.push(b'=');
            out.extend_from_slice(value);
        }
    }
}

/// Appends a header value of `response` on one line.
#[inline]
fn append_unfolded(response: &Message<'_>, value: &[u8], out: &mut Vec<u8>) {
    if response.is_unfolded() {
        out.extend_from_slice(value);
        return;
    }
    out.extend(value.iter().map(|byte| match byte {
        b'\r' | b'\n' => b' ',
        other => *other,
    }));
}

/// Where the next value of the list `bytes[at..end]` starts; `None` behind the last.
#[inline]
fn next_value(bytes: &[u8], at: usize, end: usize) -> Option<usize> {
    let rest = &bytes[at..end];
    let gap = rest
        .iter()
        .position(|byte| *byte != b',' && !is(*byte, LWS))?;
    Some(at + gap)
}

/// The URI carries `lr` (RFC 3261 section 16.12).
#[inline]
fn is_loose(route: &Uri<'_>) -> bool {
    route.params.as_bytes().ends_with(b";lr") || route.param(b"lr").is_some()
}

fn offset(position: usize) -> u32 {
    u32::try_from(position).expect("a message is shorter than 4 GiB")
}

crate::fold_fields!(Dialog {
    text,
    to_end,
    tag_start,
    tag_end,
    strict_end,
    routes_end,
    target_start,
    target_end,
    local_cseq,
    remote_cseq,
    state,
});
crate::fold_variants!(State {
    Absent,
    Confirmed,
    Ended
});
