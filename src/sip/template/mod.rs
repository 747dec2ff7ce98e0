//! Our own requests, compiled once per profile into static pieces and holes (layer 1).
//!
//! A [`Profile`] says what does not change from push to push; [`Templates::compile`] validates it
//! and renders every request we send as client: INVITE, re-INVITE, UPDATE, BYE, ACK, CANCEL
//! (RFC 3261, RFC 3311), SUBSCRIBE (RFC 6665), MESSAGE (RFC 3428) and OPTIONS. Encoding is then a
//! few copies. Content-Length is the body's text plus the widths of its holes; nothing is written
//! twice. Compile anew when configuration changes, and once per dialect: a device that wants
//! another feature tag or SDP profile gets another `Templates`.
//!
//! **Values are trusted here.** Every field must have been validated where it entered: URIs by
//! `sip::uri`, identifiers by the parser or our own minter. A CR, LF or NUL in a value would let
//! its author write headers of our request; debug builds assert that there is none.
//!
//! What this does **not** do: responses (`sip::response`), choosing routes or CSeq numbers
//! (`sip::dialog`), the session timer's arithmetic (`sip::session_timer`).

mod build;
mod engine;
mod numbers;
mod profile;

use engine::{Figures, PARTS_MAX, Program, Slot, Values};
use numbers::Text;

pub use profile::{Level, Profile, ProfileError, ProfileProblem, VALUE_BYTES_MAX};

use crate::base::token::{FILLER, FILLER_MAX};
use crate::sip::message::Refresher;

/// The values of an initial INVITE (PUSH-0a to PUSH-l).
#[derive(Clone, Copy, Debug, Default)]
pub struct InviteFields<'a> {
    /// The device's public GRUU, byte for byte (PUSH-a).
    pub request_uri: &'a [u8],
    /// What follows `z9hG4bK`.
    pub branch: &'a [u8],
    /// Our tag.
    pub from_tag: &'a [u8],
    /// The user's public identity without `gr`, the URI only.
    pub to_uri: &'a [u8],
    /// What precedes the `@` in Call-ID.
    pub call_id: &'a [u8],
    /// Below 2^31.
    pub cseq: u32,
    /// `icid-value` (PUSH-k).
    pub icid: &'a [u8],
    /// Session-Expires in seconds, at least 90; `None` leaves the header out (PUSH-f).
    pub session_expires_s: Option<u32>,
    /// Min-SE in seconds, only after a 422 (ST-2).
    pub min_se: Option<u32>,
    /// Value of Conversation-ID; empty leaves it out (PUSH-i).
    pub conversation_id: &'a [u8],
    /// Value of Contribution-ID; empty leaves it out.
    pub contribution_id: &'a [u8],
    /// The o= session id, unique per dialog (SDP-2).
    pub sdp_session: u64,
    /// The o= version.
    pub sdp_version: u32,
    /// Session-id of our MSRP URI, at least 80 random bits (SDP-4).
    pub msrp_session: &'a [u8],
    /// Leave `require` and `explicit` out of Accept-Contact (RSP-17).
    pub no_require: bool,
    /// `related-icid` of P-Charging-Vector (IMS-4); empty leaves it out.
    pub related_icid: &'a [u8],
    /// A second Accept-Contact value (PUSH-a2); empty for none.
    pub extra_accept_contact: &'a [u8],
    /// Complete lines with CRLF before Content-Type, such as Referred-By of a handset dialect;
    /// empty for none.
    pub extra_headers: &'a [u8],
    /// URI of From, where the profile leaves that open.
    pub from_uri: &'a [u8],
}

/// The values of a request within a dialog, and of the ACK to a 2xx.
#[derive(Clone, Copy, Debug, Default)]
pub struct DialogFields<'a> {
    /// The remote target (DLG-2).
    pub request_uri: &'a [u8],
    /// What follows `z9hG4bK`; always a new one (DLG-3).
    pub branch: &'a [u8],
    /// Complete `Route: <...>` lines with CRLF, in order; empty for an empty route set.
    pub route_lines: &'a [u8],
    /// Our tag.
    pub from_tag: &'a [u8],
    /// The whole To value with the peer's tag.
    pub to_value: &'a [u8],
    /// What precedes the `@` in Call-ID.
    pub call_id: &'a [u8],
    /// The request's number; of an ACK, the INVITE's.
    pub cseq: u32,
    /// Session-Expires in seconds and who refreshes; re-INVITE and UPDATE only (ST-10).
    pub session_expires: Option<(u32, Refresher)>,
    /// Min-SE in seconds; re-INVITE and UPDATE only (ST-4).
    pub min_se: Option<u32>,
    /// Value of Reason; BYE only; empty leaves it out.
    pub reason: &'a [u8],
    /// The o= session id of the offer; re-INVITE only (ST-9).
    pub sdp_session: u64,
    /// The o= version; re-INVITE only.
    pub sdp_version: u32,
    /// Session-id of our MSRP URI; re-INVITE only.
    pub msrp_session: &'a [u8],
    /// URI of From, where the profile leaves that open.
    pub from_uri: &'a [u8],
}

/// The values of an ACK to a non-2xx: those of the INVITE it acknowledges (TX-5).
#[derive(Clone, Copy, Debug, Default)]
pub struct AckFields<'a> {
    /// The INVITE's Request-URI.
    pub request_uri: &'a [u8],
    /// The INVITE's branch, with its filler.
    pub branch: &'a [u8],
    /// `None` for the initial INVITE (the profile's Route); within a dialog the INVITE's
    /// `Route: <...>` lines, possibly empty.
    pub route_lines: Option<&'a [u8]>,
    /// Our tag.
    pub from_tag: &'a [u8],
    /// The whole To value of the response.
    pub to_value: &'a [u8],
    /// What precedes the `@` in Call-ID.
    pub call_id: &'a [u8],
    /// The INVITE's number.
    pub cseq: u32,
    /// URI of From, where the profile leaves that open.
    pub from_uri: &'a [u8],
}

/// The values of a CANCEL of the initial INVITE (TX-13).
#[derive(Clone, Copy, Debug, Default)]
pub struct CancelFields<'a> {
    /// The INVITE's Request-URI.
    pub request_uri: &'a [u8],
    /// The INVITE's branch, with its filler.
    pub branch: &'a [u8],
    /// Our tag.
    pub from_tag: &'a [u8],
    /// The URI of the INVITE's To.
    pub to_uri: &'a [u8],
    /// What precedes the `@` in Call-ID.
    pub call_id: &'a [u8],
    /// The INVITE's number.
    pub cseq: u32,
    /// Value of Reason; empty leaves it out.
    pub reason: &'a [u8],
    /// URI of From, where the profile leaves that open.
    pub from_uri: &'a [u8],
}

/// The values of a SUBSCRIBE to `reg` (SUB-1).
#[derive(Clone, Copy, Debug, Default)]
pub struct SubscribeFields<'a> {
    /// The user's public identity; in a refresh the remote target.
    pub request_uri: &'a [u8],
    /// What follows `z9hG4bK`.
    pub branch: &'a [u8],
    /// `None` for an initial SUBSCRIBE (the profile's Route, P-Asserted-Identity and
    /// P-Charging-Vector); in a refresh the dialog's `Route: <...>` lines, possibly empty.
    pub route_lines: Option<&'a [u8]>,
    /// Our tag.
    pub from_tag: &'a [u8],
    /// The whole To value, in a refresh with the notifier's tag.
    pub to_value: &'a [u8],
    /// What precedes the `@` in Call-ID.
    pub call_id: &'a [u8],
    /// The request's number.
    pub cseq: u32,
    /// Expires in seconds; 0 unsubscribes.
    pub expires_s: u32,
    /// `icid-value`; used by an initial SUBSCRIBE.
    pub icid: &'a [u8],
}

/// The values of a MESSAGE on a user's behalf: an IMDN towards the sender (IMDN-4, IMDN-9).
#[derive(Clone, Copy, Debug, Default)]
pub struct MessageFields<'a> {
    /// The original sender's identity.
    pub request_uri: &'a [u8],
    /// What follows `z9hG4bK`.
    pub branch: &'a [u8],
    /// The identity on whose behalf we send, the URI only.
    pub from_uri: &'a [u8],
    /// Our tag.
    pub from_tag: &'a [u8],
    /// The original sender's identity, the URI only.
    pub to_uri: &'a [u8],
    /// What precedes the `@` in Call-ID.
    pub call_id: &'a [u8],
    /// The request's number.
    pub cseq: u32,
    /// URI of P-Asserted-Identity; empty leaves it out.
    pub asserted_identity: &'a [u8],
    /// Value of Conversation-ID; empty leaves it out.
    pub conversation_id: &'a [u8],
    /// Value of Contribution-ID; empty leaves it out.
    pub contribution_id: &'a [u8],
    /// Complete lines with CRLF before Content-Type; empty for none.
    pub extra_headers: &'a [u8],
    /// Value of Content-Type.
    pub content_type: &'a [u8],
    /// The body.
    pub body: &'a [u8],
}

/// The values of an OPTIONS that probes a next hop.
#[derive(Clone, Copy, Debug, Default)]
pub struct OptionsFields<'a> {
    /// URI of the next hop.
    pub request_uri: &'a [u8],
    /// What follows `z9hG4bK`.
    pub branch: &'a [u8],
    /// Our tag.
    pub from_tag: &'a [u8],
    /// URI of To.
    pub to_uri: &'a [u8],
    /// What precedes the `@` in Call-ID.
    pub call_id: &'a [u8],
    /// The request's number.
    pub cseq: u32,
}

/// Keeps the numbers of a vectored message while its parts refer to them.
#[derive(Clone, Copy, Debug)]
pub struct Scratch(Numbers);

impl Scratch {
    /// Empty.
    #[must_use]
    pub const fn new() -> Self {
        Self(Numbers::new())
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

/// A message as a list of parts to be written in order.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    parts: [&'a [u8]; PARTS_MAX],
    len: usize,
}

impl<'a> Parts<'a> {
    /// No parts.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            parts: [b""; PARTS_MAX],
            len: 0,
        }
    }

    /// The parts, none empty.
    #[must_use]
    pub fn as_slices(&self) -> &[&'a [u8]] {
        &self.parts[..self.len]
    }
}

impl Default for Parts<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// The numbers of one message as text.
#[derive(Clone, Copy, Debug)]
struct Numbers {
    cseq: Text,
    session_expires: Text,
    min_se: Text,
    content_length: Text,
    origin: Text,
}

impl Numbers {
    const fn new() -> Self {
        Self {
            cseq: Text::new(),
            session_expires: Text::new(),
            min_se: Text::new(),
            content_length: Text::new(),
            origin: Text::new(),
        }
    }

    /// Writes the figures and sets their slots.
    fn put<'a>(&'a mut self, program: &Program, figures: &Figures, values: &mut Values<'a>) {
        let (session, version) = figures.origin;
        self.origin.push_number(session);
        self.origin.push(b" ");
        self.origin.push_number(u64::from(version));
        values.set(Slot::Origin, self.origin.as_bytes());
        self.cseq.push_number(u64::from(figures.cseq));
        self.content_length
            .push_number(program.body_len(values) as u64);
        if let Some(timer) = figures.session_expires {
            self.session_expires.push_timer(timer);
        }
        if let Some(seconds) = figures.min_se {
            self.min_se.push_number(u64::from(seconds));
        }
        values
            .set(Slot::Cseq, self.cseq.as_bytes())
            .set(Slot::ContentLength, self.content_length.as_bytes())
            .set(Slot::SessionExpires, self.session_expires.as_bytes())
            .set(Slot::MinSe, self.min_se.as_bytes());
    }
}

/// Requests that travel in trains have a multiple of this many octets.
pub const SIZE_CLASS: usize = 64;

const _: () = assert!(
    SIZE_CLASS == FILLER_MAX + 1,
    "filler reaches the next class"
);

/// Every request of one profile, compiled.
#[derive(Clone, Debug)]
pub struct Templates {
    ack: Program,
    ack_initial: Program,
    bye: Program,
    cancel: Program,
    invite: Program,
    /// The same without `require` and `explicit`; `None` when the profile has neither.
    invite_unrequired: Option<Program>,
    message: Program,
    options: Program,
    reinvite: Program,
    reinvite_without_cema: Program,
    subscribe_initial: Program,
    subscribe_refresh: Program,
    update: Program,
    /// See [`Profile::datagram_max`].
    datagram_max: usize,
}

impl Templates {
    /// Compiles `profile`.
    ///
    /// # Errors
    /// The first field that is empty, too long, out of range or holds an octet that could break
    /// out of its place; see [`ProfileError`].
    pub fn compile(profile: &Profile) -> Result<Self, ProfileError> {
        profile.validate()?;
        let timer = profile.session_expires_s.map(|s| (s, Refresher::Uac));
        let program = |layout: build::Layout| Program::compile(&layout.head, &layout.body, timer);
        Ok(Self {
            ack: program(build::ack(profile)),
            ack_initial: program(build::ack_initial(profile)),
            bye: program(build::bye(profile)),
            cancel: program(build::cancel(profile)),
            invite: program(build::invite(profile)),
            invite_unrequired: (profile.accept_require || profile.accept_explicit).then(|| {
                let mild = Profile {
                    accept_require: false,
                    accept_explicit: false,
                    ..profile.clone()
                };
                program(build::invite(&mild))
            }),
            message: program(build::message(profile)),
            options: program(build::options(profile)),
            reinvite: program(build::reinvite(profile)),
            reinvite_without_cema: program(build::reinvite(&Profile {
                cema: false,
                ..profile.clone()
            })),
            subscribe_initial: program(build::subscribe_initial(profile)),
            subscribe_refresh: program(build::subscribe_refresh(profile)),
            update: program(build::update(profile)),
            datagram_max: profile.datagram_max.into(),
        })
    }

    /// Appends a message, lengthened to its size class. How much filler its branch got.
    #[inline]
    fn put<'a>(
        &self,
        program: &Program,
        (values, figures): (&mut Values<'a>, &Figures),
        numbers: &'a mut Option<Numbers>,
        out: &mut Vec<u8>,
    ) -> u8 {
        put_within(self.datagram_max, program, (values, figures), numbers, out)
    }

    /// Whether an initial INVITE demands its features of the client: `require` or `explicit`.
    #[must_use]
    pub const fn demands_features(&self) -> bool {
        self.invite_unrequired.is_some()
    }

    fn invite_program(&self, f: &InviteFields<'_>) -> &Program {
        match &self.invite_unrequired {
            Some(mild) if f.no_require => mild,
            Some(_) | None => &self.invite,
        }
    }

    /// Appends an initial INVITE. How much filler its branch got: ACK to a failure and CANCEL need the
    /// same.
    pub fn invite(&self, f: &InviteFields<'_>, out: &mut Vec<u8>) -> u8 {
        let mut numbers = None;
        let mut values = invite_values(f);
        let parts = (&mut values, &invite_figures(f));
        self.put(self.invite_program(f), parts, &mut numbers, out)
    }

    /// The same message as parts for a vectored write. The parts refer to `self`, the fields'
    /// values and `scratch`.
    pub fn invite_vectored<'a>(
        &'a self,
        f: &InviteFields<'a>,
        scratch: &'a mut Scratch,
        parts: &mut Parts<'a>,
    ) {
        *scratch = Scratch::new();
        let program = self.invite_program(f);
        let mut values = invite_values(f);
        scratch.0.put(program, &invite_figures(f), &mut values);
        if self.datagram_max > 0 {
            let len = program.general_len(&values);
            values.set(Slot::Filler, filler(len, self.datagram_max));
        }
        parts.len = program.parts(&values, &mut parts.parts);
    }

    /// Appends a re-INVITE with the offer of the dialog: byte-identical while `sdp_session`,
    /// `sdp_version` and `msrp_session` are the INVITE's (ST-9).
    /// How much filler its branch got: the ACK to a failure needs the same.
    pub fn reinvite(&self, f: &DialogFields<'_>, out: &mut Vec<u8>) -> u8 {
        self.put_in_dialog((&self.reinvite, Body::Offer), f, out)
    }

    /// The same without `a=msrp-cema` (SDP-16).
    pub fn reinvite_without_cema(&self, f: &DialogFields<'_>, out: &mut Vec<u8>) -> u8 {
        self.put_in_dialog((&self.reinvite_without_cema, Body::Offer), f, out)
    }

    /// Appends an UPDATE without body.
    pub fn update(&self, f: &DialogFields<'_>, out: &mut Vec<u8>) {
        self.put_in_dialog((&self.update, Body::None), f, out);
    }

    /// Appends a BYE.
    pub fn bye(&self, f: &DialogFields<'_>, out: &mut Vec<u8>) {
        self.put_in_dialog((&self.bye, Body::None), f, out);
    }

    /// Appends an ACK to a 2xx (DLG-3).
    pub fn ack(&self, f: &DialogFields<'_>, out: &mut Vec<u8>) {
        self.put_in_dialog((&self.ack, Body::None), f, out);
    }

    /// Appends an ACK to a non-2xx (TX-5).
    pub fn ack_failure(&self, f: &AckFields<'_>, out: &mut Vec<u8>) {
        let figures = Figures::numbered(f.cseq);
        let program = match f.route_lines {
            None => &self.ack_initial,
            Some(_) => &self.ack,
        };
        let mut numbers = None;
        let mut values = Values::new();
        values
            .set(Slot::RequestUri, f.request_uri)
            .set(Slot::Branch, f.branch)
            .set(Slot::RouteLines, f.route_lines.unwrap_or_default())
            .set(Slot::FromTag, f.from_tag)
            .set(Slot::FromUri, f.from_uri)
            .set(Slot::To, f.to_value)
            .set(Slot::CallId, f.call_id);
        put_within(0, program, (&mut values, &figures), &mut numbers, out);
    }

    /// Appends a CANCEL of an initial INVITE (TX-13).
    pub fn cancel(&self, f: &CancelFields<'_>, out: &mut Vec<u8>) {
        let figures = Figures::numbered(f.cseq);
        let mut numbers = None;
        let mut values = Values::new();
        values
            .set(Slot::RequestUri, f.request_uri)
            .set(Slot::Branch, f.branch)
            .set(Slot::FromTag, f.from_tag)
            .set(Slot::FromUri, f.from_uri)
            .set(Slot::To, f.to_uri)
            .set(Slot::CallId, f.call_id)
            .set(Slot::Reason, f.reason);
        put_within(0, &self.cancel, (&mut values, &figures), &mut numbers, out);
    }

    /// Appends a SUBSCRIBE, initial or refreshing (SUB-1).
    pub fn subscribe(&self, f: &SubscribeFields<'_>, out: &mut Vec<u8>) {
        let figures = Figures::numbered(f.cseq);
        let expires = Text::number(u64::from(f.expires_s));
        let program = match f.route_lines {
            None => &self.subscribe_initial,
            Some(_) => &self.subscribe_refresh,
        };
        let mut numbers = None;
        let mut values = Values::new();
        values
            .set(Slot::RequestUri, f.request_uri)
            .set(Slot::Branch, f.branch)
            .set(Slot::RouteLines, f.route_lines.unwrap_or_default())
            .set(Slot::FromTag, f.from_tag)
            .set(Slot::To, f.to_value)
            .set(Slot::CallId, f.call_id)
            .set(Slot::Expires, expires.as_bytes());
        if f.route_lines.is_none() {
            values.set(Slot::Icid, f.icid);
        }
        self.put(program, (&mut values, &figures), &mut numbers, out);
    }

    /// Appends a MESSAGE on a user's behalf, along the originating route (IMS-1).
    pub fn message(&self, f: &MessageFields<'_>, out: &mut Vec<u8>) {
        let figures = Figures::numbered(f.cseq);
        let mut numbers = None;
        let mut values = Values::new();
        values
            .set(Slot::RequestUri, f.request_uri)
            .set(Slot::Branch, f.branch)
            .set(Slot::FromUri, f.from_uri)
            .set(Slot::FromTag, f.from_tag)
            .set(Slot::To, f.to_uri)
            .set(Slot::CallId, f.call_id)
            .set(Slot::AssertedIdentity, f.asserted_identity)
            .set(Slot::ConversationId, f.conversation_id)
            .set(Slot::ContributionId, f.contribution_id)
            .set(Slot::ExtraHeaders, f.extra_headers)
            .set(Slot::ContentType, f.content_type)
            .set(Slot::Body, f.body);
        self.put(&self.message, (&mut values, &figures), &mut numbers, out);
    }

    #[inline]
    fn put_in_dialog(
        &self,
        (program, body): (&Program, Body),
        f: &DialogFields<'_>,
        out: &mut Vec<u8>,
    ) -> u8 {
        let figures = Figures {
            cseq: f.cseq,
            origin: (f.sdp_session, f.sdp_version),
            session_expires: f.session_expires,
            min_se: f.min_se,
        };
        let mut numbers = None;
        let mut values = Values::new();
        values
            .set(Slot::RequestUri, f.request_uri)
            .set(Slot::Branch, f.branch)
            .set(Slot::RouteLines, f.route_lines)
            .set(Slot::FromTag, f.from_tag)
            .set(Slot::FromUri, f.from_uri)
            .set(Slot::To, f.to_value)
            .set(Slot::CallId, f.call_id)
            .set(Slot::Reason, f.reason);
        if body == Body::Offer {
            values.set(Slot::MsrpSession, f.msrp_session);
        }
        self.put(program, (&mut values, &figures), &mut numbers, out)
    }

    /// Appends an OPTIONS outside any dialog.
    pub fn options(&self, f: &OptionsFields<'_>, out: &mut Vec<u8>) {
        let figures = Figures::numbered(f.cseq);
        let mut numbers = None;
        let mut values = Values::new();
        values
            .set(Slot::RequestUri, f.request_uri)
            .set(Slot::Branch, f.branch)
            .set(Slot::FromTag, f.from_tag)
            .set(Slot::To, f.to_uri)
            .set(Slot::CallId, f.call_id);
        self.put(&self.options, (&mut values, &figures), &mut numbers, out);
    }
}

/// Appends a message, lengthened to its size class unless that is above `datagram_max`. How much filler
/// its branch got. `numbers` keeps what the general program wants as text.
#[inline]
fn put_within<'a>(
    datagram_max: usize,
    program: &Program,
    (values, figures): (&mut Values<'a>, &Figures),
    numbers: &'a mut Option<Numbers>,
    out: &mut Vec<u8>,
) -> u8 {
    let Some(ready) = program.usual(values, figures) else {
        let numbers = numbers.insert(Numbers::new());
        numbers.put(program, figures, values);
        return put_general(datagram_max, program, values, out);
    };
    let mut added = &[][..];
    if datagram_max > 0 {
        added = filler(program.usual_len(values, &ready), datagram_max);
        values.set(Slot::Filler, added);
    }
    program.encode_usual(values, &ready, out);
    u8::try_from(added.len()).expect("below a size class")
}

#[inline(never)]
fn put_general(
    datagram_max: usize,
    program: &Program,
    values: &mut Values<'_>,
    out: &mut Vec<u8>,
) -> u8 {
    let mut added = &[][..];
    if datagram_max > 0 {
        added = filler(program.general_len(values), datagram_max);
        values.set(Slot::Filler, added);
    }
    program.encode_general(values, out);
    u8::try_from(added.len()).expect("below a size class")
}

/// What a message of `len` octets needs to reach its size class; nothing if that is above `max`.
fn filler(len: usize, max: usize) -> &'static [u8] {
    let class = len.next_multiple_of(SIZE_CLASS);
    if class > max {
        return &[];
    }
    &FILLER[..class - len]
}

/// What a request within a dialog carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    None,
    Offer,
}

#[inline]
fn invite_figures(f: &InviteFields<'_>) -> Figures {
    Figures {
        cseq: f.cseq,
        origin: (f.sdp_session, f.sdp_version),
        session_expires: f.session_expires_s.map(|s| (s, Refresher::Uac)),
        min_se: f.min_se,
    }
}

/// The values of an INVITE that are text.
#[inline]
fn invite_values<'a>(f: &InviteFields<'a>) -> Values<'a> {
    let mut values = Values::new();
    values
        .set(Slot::RequestUri, f.request_uri)
        .set(Slot::Branch, f.branch)
        .set(Slot::FromTag, f.from_tag)
        .set(Slot::FromUri, f.from_uri)
        .set(Slot::To, f.to_uri)
        .set(Slot::CallId, f.call_id)
        .set(Slot::Icid, f.icid)
        .set(Slot::RelatedIcid, f.related_icid)
        .set(Slot::ConversationId, f.conversation_id)
        .set(Slot::ContributionId, f.contribution_id)
        .set(Slot::ExtraAcceptContact, f.extra_accept_contact)
        .set(Slot::ExtraHeaders, f.extra_headers)
        .set(Slot::MsrpSession, f.msrp_session);
    values
}

#[cfg(test)]
mod tests;
