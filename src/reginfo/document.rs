//! A reginfo document as rows (RFC 3680 section 5, RFC 5628 section 5). Layer 1.
//!
//! The form that notifiers write is read in one pass by `quick`; whatever differs from it in any way
//! goes through the scanner, which also finds the faults. Texts are spans into one arena: the document itself, followed by whatever had to be decoded.
//! Everything is reused; a warm [`Document::parse`] allocates nothing.

mod quick;

use crate::base::limits::REGINFO_CONTACTS_MAX;
use crate::base::span::Span;
use crate::reginfo::scan::{
    Attribute, Attributes, Event, Known, ReginfoError, ReginfoErrorKind, Scanner, decode,
};

/// Most registrations (public identities) of one document.
pub const REGISTRATIONS_MAX: usize = 32;
/// Most `unknown-param` elements of one document.
pub const PARAMS_MAX: usize = 1024;
/// Most namespace declarations in scope at once.
pub const NAMESPACES_MAX: usize = 32;
/// `q` of a contact that gives none, in thousandths.
pub const Q_DEFAULT: u16 = 1000;

const REGINFO_NAMESPACE: &[u8] = b"urn:ietf:params:xml:ns:reginfo";
const GRUU_NAMESPACE: &[u8] = b"urn:ietf:params:xml:ns:gruuinfo";

/// A piece of text; resolve it with [`Document::text`].
pub type Text = Span;

/// Whether a document replaces or amends what is known (RFC 3680 section 5.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DocumentState {
    /// Everything there is; what is absent is gone.
    #[default]
    Full,
    /// Only rows that changed.
    Partial,
}

/// `state` of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistrationStatus {
    /// At least one contact is bound.
    Active,
    /// Never registered.
    Init,
    /// No longer registered.
    Terminated,
}

/// `state` of a contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContactStatus {
    /// Bound.
    Active,
    /// Gone.
    Terminated,
}

/// `event` of a contact, in the order of RFC 3680 section 5.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContactEvent {
    /// Bound by a REGISTER.
    Registered,
    /// Bound by other means, as for the other identities of an implicit set.
    Created,
    /// Renewed.
    Refreshed,
    /// Its life was cut by the registrar.
    Shortened,
    /// Ran out.
    Expired,
    /// Removed by the registrar, which asks for a new registration.
    Deactivated,
    /// Removed; come back later.
    Probation,
    /// Removed by the user.
    Unregistered,
    /// Removed; do not come back.
    Rejected,
}

impl ContactEvent {
    /// Whether the event ends a binding, whatever the contact's state says.
    #[must_use]
    pub const fn terminates(self) -> bool {
        match self {
            Self::Expired
            | Self::Deactivated
            | Self::Probation
            | Self::Unregistered
            | Self::Rejected => true,
            Self::Registered | Self::Created | Self::Refreshed | Self::Shortened => false,
        }
    }
}

/// One `registration` element.
#[derive(Clone, Copy, Debug)]
pub struct RegistrationRow {
    /// The public identity.
    pub aor: Text,
    /// The notifier's name for this row.
    pub id: Text,
    /// Its state.
    pub state: RegistrationStatus,
    /// Index of its first contact.
    pub first_contact: u16,
    /// Number of its contacts.
    pub contacts: u16,
}

/// One `contact` element.
#[derive(Clone, Copy, Debug)]
pub struct ContactRow {
    /// The notifier's name for this row; unique within its registration only, with some notifiers.
    pub id: Text,
    /// Its state.
    pub state: ContactStatus,
    /// Why it has that state; `None` when absent or unknown.
    pub event: Option<ContactEvent>,
    /// Seconds of life left.
    pub expires_s: Option<u32>,
    /// Seconds since it was bound.
    pub duration_registered_s: Option<u32>,
    /// Preference in thousandths.
    pub q: u16,
    /// Call-ID of the REGISTER.
    pub call_id: Text,
    /// CSeq number of the REGISTER, as text.
    pub cseq: Text,
    /// The contact URI, trimmed.
    pub uri: Text,
    /// The instance id without quotes and angle brackets; empty when the contact has none.
    pub instance: Text,
    /// The public GRUU, byte for byte, not judged.
    pub pub_gruu: Option<Text>,
    /// Whether a temporary GRUU was given.
    pub has_temp_gruu: bool,
    /// Index of its first parameter.
    pub first_param: u16,
    /// Number of its parameters.
    pub params: u16,
}

impl ContactRow {
    /// A contact of which nothing was read yet.
    const fn before(first_param: u16) -> Self {
        Self {
            id: Span::EMPTY,
            state: ContactStatus::Terminated,
            event: None,
            expires_s: None,
            duration_registered_s: None,
            q: Q_DEFAULT,
            call_id: Span::EMPTY,
            cseq: Span::EMPTY,
            uri: Span::EMPTY,
            instance: Span::EMPTY,
            pub_gruu: None,
            has_temp_gruu: false,
            first_param,
            params: 0,
        }
    }
}

/// One `unknown-param` element of a contact.
#[derive(Clone, Copy, Debug)]
pub struct ParamRow {
    /// Its `name`.
    pub name: Text,
    /// Its text, trimmed and decoded. Equal long texts of one document may be one and the same.
    pub value: Text,
    /// What it is, by its name.
    pub kind: ParamKind,
}

/// Parameters that are told apart by name, whatever its case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamKind {
    /// `+g.3gpp.icsi-ref`.
    IcsiRef,
    /// `+sip.instance`.
    Instance,
    /// Any other.
    Other,
}

impl ParamKind {
    fn of(name: &[u8]) -> Self {
        match name.len() {
            13 if name == b"+sip.instance" => Self::Instance,
            16 if name == b"+g.3gpp.icsi-ref" => Self::IcsiRef,
            13 if name.eq_ignore_ascii_case(b"+sip.instance") => Self::Instance,
            16 if name.eq_ignore_ascii_case(b"+g.3gpp.icsi-ref") => Self::IcsiRef,
            _ => Self::Other,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Namespace {
    Gruu,
    Other,
    Reginfo,
}

#[derive(Clone, Copy, Debug)]
struct Binding {
    prefix: Span,
    namespace: Namespace,
    depth: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Element {
    Contact,
    #[default]
    Ignored,
    Param,
    PubGruu,
    Reginfo,
    Registration,
    TempGruu,
    Uri,
}

/// A parsed document. Reusable; see [`Document::parse`].
#[derive(Debug, Default)]
pub struct Document {
    /// `version` of the document.
    pub version: u64,
    /// Full or partial.
    pub state: DocumentState,
    /// Registrations in document order.
    pub registrations: Vec<RegistrationRow>,
    /// Contacts of all registrations, in document order.
    pub contacts: Vec<ContactRow>,
    /// Parameters of all contacts, in document order.
    pub params: Vec<ParamRow>,
    pub(super) arena: Vec<u8>,
    namespaces: Vec<Binding>,
    /// Whether names without prefix are those of RFC 3680.
    plain_is_reginfo: bool,
    /// The last long text that `quick` took.
    last_text: Span,
    /// Leaves everything to the scanner.
    #[cfg(test)]
    careful: bool,
}

impl Document {
    /// An empty document.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The bytes of `text`.
    ///
    /// # Panics
    /// When `text` is of another document.
    #[inline]
    #[must_use]
    pub fn text(&self, text: Text) -> &[u8] {
        text.slice(&self.arena)
    }

    /// The contacts of `registration`.
    #[inline]
    #[must_use]
    pub fn contacts_of(&self, registration: &RegistrationRow) -> &[ContactRow] {
        let first = usize::from(registration.first_contact);
        &self.contacts[first..first + usize::from(registration.contacts)]
    }

    /// The parameters of `contact` as (name, value).
    pub fn params_of(&self, contact: &ContactRow) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.param_rows_of(contact)
            .iter()
            .map(|row| (self.text(row.name), self.text(row.value)))
    }

    /// The parameters of `contact`.
    #[inline]
    #[must_use]
    pub fn param_rows_of(&self, contact: &ContactRow) -> &[ParamRow] {
        let first = usize::from(contact.first_param);
        &self.params[first..first + usize::from(contact.params)]
    }

    /// Replaces the contents by those of `bytes`.
    ///
    /// # Errors
    /// The first fault found. The rows are then empty, so nothing can be applied by mistake.
    pub fn parse(&mut self, bytes: &[u8]) -> Result<(), ReginfoError> {
        self.clear();
        let result = self.read(bytes);
        if result.is_err() {
            self.clear();
        }
        result
    }

    /// A document of these octets, without rows.
    pub(super) fn begin(&mut self, version: u64, state: DocumentState, bytes: &[u8]) {
        self.clear();
        (self.version, self.state) = (version, state);
        self.arena.extend_from_slice(bytes);
    }

    fn clear(&mut self) {
        self.version = 0;
        self.state = DocumentState::Full;
        self.registrations.clear();
        self.contacts.clear();
        self.params.clear();
        self.arena.clear();
        self.namespaces.clear();
        self.plain_is_reginfo = false;
        self.last_text = Span::EMPTY;
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), ReginfoError> {
        let mut scanner = Scanner::new(bytes)?;
        self.arena.extend_from_slice(bytes);
        self.walk(&mut scanner, bytes)
    }

    fn walk(&mut self, scanner: &mut Scanner<'_>, bytes: &[u8]) -> Result<(), ReginfoError> {
        let mut attributes = Attributes::default();
        let mut stack = [Element::Ignored; crate::base::limits::REGINFO_DEPTH_MAX];
        // Text of the innermost `uri` or `unknown-param`; spans of one run need no copy.
        let mut gathered = Span::EMPTY;
        let mut current = Element::Ignored;
        loop {
            let usual = matches!(
                current,
                Element::Ignored | Element::Reginfo | Element::Registration
            );
            if usual && let Some(element) = self.take_quickly(scanner, bytes, current)? {
                stack[scanner.depth() - 1] = element;
                current = element;
                continue;
            }
            let collecting = matches!(current, Element::Uri | Element::Param);
            match scanner.next(&mut attributes, collecting)? {
                Event::Start { name, empty } => {
                    let depth = scanner.depth() + usize::from(empty);
                    let parent = (depth > 1).then_some(current);
                    if attributes.declares() {
                        self.declare(bytes, attributes.rows(), depth)?;
                    }
                    let element = self.classify(bytes, name, parent);
                    if parent.is_none() && element != Element::Reginfo {
                        let at = name.start as usize;
                        return Err(ReginfoError::new(ReginfoErrorKind::NotReginfo, at));
                    }
                    self.open(element, bytes, attributes.rows(), name)?;
                    if element == Element::Uri || element == Element::Param {
                        gathered = Span::EMPTY;
                    }
                    if empty {
                        self.undeclare(bytes, depth);
                    } else {
                        stack[depth - 1] = element;
                        current = element;
                    }
                }
                Event::Text { span, plain } => {
                    if collecting {
                        gathered = self.gather(bytes, gathered, span, plain)?;
                    }
                }
                Event::End => {
                    match current {
                        Element::Uri => self.finish_uri(gathered),
                        Element::Param => self.finish_param(gathered),
                        Element::Contact
                        | Element::Ignored
                        | Element::PubGruu
                        | Element::Reginfo
                        | Element::Registration
                        | Element::TempGruu => {}
                    }
                    let depth = scanner.depth();
                    self.undeclare(bytes, depth + 1);
                    current = if depth == 0 {
                        Element::Ignored
                    } else {
                        stack[depth - 1]
                    };
                }
                Event::Finish => return Ok(()),
            }
        }
    }

    /// Appends a run of text to what the element already has.
    fn gather(
        &mut self,
        bytes: &[u8],
        gathered: Span,
        run: Span,
        plain: bool,
    ) -> Result<Span, ReginfoError> {
        if gathered.is_empty() && plain {
            return Ok(run);
        }
        let mut start = gathered.start as usize;
        if gathered.is_empty() {
            start = self.arena.len();
        } else if start + gathered.len as usize != self.arena.len() {
            let first = start..start + gathered.len as usize;
            start = self.arena.len();
            self.arena.extend_from_within(first);
        }
        decode_run(run.slice(bytes), plain, &mut self.arena)?;
        Ok(Span::new(start, self.arena.len()))
    }

    fn declare(
        &mut self,
        bytes: &[u8],
        attributes: &[Attribute],
        depth: usize,
    ) -> Result<(), ReginfoError> {
        for row in attributes {
            let name = row.name.slice(bytes);
            if !is_xmlns(name) {
                continue;
            }
            let prefix = match name.len() {
                5 => Span::EMPTY,
                len => Span::new(row.name.start as usize + 6, row.name.start as usize + len),
            };
            if self.namespaces.len() == NAMESPACES_MAX {
                return Err(ReginfoError::new(
                    ReginfoErrorKind::Limit,
                    row.name.start as usize,
                ));
            }
            let mark = self.arena.len();
            let value = self.value(bytes, *row)?;
            let namespace = match self.text(value) {
                REGINFO_NAMESPACE => Namespace::Reginfo,
                GRUU_NAMESPACE => Namespace::Gruu,
                _ => Namespace::Other,
            };
            self.arena.truncate(mark);
            self.namespaces.push(Binding {
                prefix,
                namespace,
                depth,
            });
        }
        self.plain_is_reginfo = self.resolve(bytes, b"") == Namespace::Reginfo;
        Ok(())
    }

    #[inline]
    fn undeclare(&mut self, bytes: &[u8], depth: usize) {
        let ends = |binding: &Binding| binding.depth >= depth;
        if self.namespaces.last().is_some_and(ends) {
            while self.namespaces.last().is_some_and(ends) {
                self.namespaces.pop();
            }
            self.plain_is_reginfo = self.resolve(bytes, b"") == Namespace::Reginfo;
        }
    }

    fn resolve(&self, bytes: &[u8], prefix: &[u8]) -> Namespace {
        self.namespaces
            .iter()
            .rev()
            .find(|binding| binding.prefix.slice(bytes) == prefix)
            .map_or(Namespace::Other, |binding| binding.namespace)
    }

    /// What an element is, given its parent (`None` for the root).
    #[inline]
    fn classify(&self, bytes: &[u8], name: Span, parent: Option<Element>) -> Element {
        let name = name.slice(bytes);
        if parent == Some(Element::Ignored) {
            return Element::Ignored;
        }
        let (prefix, local) = match name.iter().position(|&byte| byte == b':') {
            Some(colon) => (&name[..colon], &name[colon + 1..]),
            None => (&name[..0], name),
        };
        let (element, wanted) = match (parent, local) {
            (None, b"reginfo") => (Element::Reginfo, Namespace::Reginfo),
            (Some(Element::Reginfo), b"registration") => {
                (Element::Registration, Namespace::Reginfo)
            }
            (Some(Element::Registration), b"contact") => (Element::Contact, Namespace::Reginfo),
            (Some(Element::Contact), b"uri") => (Element::Uri, Namespace::Reginfo),
            (Some(Element::Contact), b"unknown-param") => (Element::Param, Namespace::Reginfo),
            (Some(Element::Contact), b"pub-gruu") => (Element::PubGruu, Namespace::Gruu),
            (Some(Element::Contact), b"temp-gruu") => (Element::TempGruu, Namespace::Gruu),
            (_, _) => return Element::Ignored,
        };
        let fits = if prefix.is_empty() && wanted == Namespace::Reginfo {
            self.plain_is_reginfo
        } else {
            self.resolve(bytes, prefix) == wanted
        };
        if fits { element } else { Element::Ignored }
    }

    fn open(
        &mut self,
        element: Element,
        bytes: &[u8],
        attributes: &[Attribute],
        name: Span,
    ) -> Result<(), ReginfoError> {
        let at = name.start as usize;
        match element {
            Element::Contact => self.open_contact(bytes, attributes, at),
            Element::Param => self.open_param(bytes, attributes, at),
            Element::PubGruu => {
                let uri = self.required(bytes, attributes, Known::Uri, at)?;
                if let Some(contact) = self.contacts.last_mut() {
                    // Two different public GRUUs on one contact: the later one holds.
                    contact.pub_gruu = Some(uri);
                }
                Ok(())
            }
            Element::Reginfo => self.open_reginfo(bytes, attributes, at),
            Element::Registration => self.open_registration(bytes, attributes, at),
            Element::TempGruu => {
                if let Some(contact) = self.contacts.last_mut() {
                    contact.has_temp_gruu = true;
                }
                Ok(())
            }
            Element::Ignored | Element::Uri => Ok(()),
        }
    }

    fn open_reginfo(
        &mut self,
        bytes: &[u8],
        attributes: &[Attribute],
        at: usize,
    ) -> Result<(), ReginfoError> {
        let version = self.required(bytes, attributes, Known::Version, at)?;
        self.version = number(self.text(version).trim_ascii())
            .ok_or_else(|| ReginfoError::new(ReginfoErrorKind::Value, at))?;
        let state = self.required(bytes, attributes, Known::State, at)?;
        self.state = match self.text(state) {
            b"full" => DocumentState::Full,
            b"partial" => DocumentState::Partial,
            _ => return Err(ReginfoError::new(ReginfoErrorKind::Value, at)),
        };
        Ok(())
    }

    fn open_registration(
        &mut self,
        bytes: &[u8],
        attributes: &[Attribute],
        at: usize,
    ) -> Result<(), ReginfoError> {
        if self.registrations.len() == REGISTRATIONS_MAX {
            return Err(ReginfoError::new(ReginfoErrorKind::Limit, at));
        }
        let (mut aor, mut id, mut state) = (None, None, None);
        for row in attributes {
            match row.known {
                Known::Aor => aor = Some(self.value(bytes, *row)?),
                Known::Id => id = Some(self.value(bytes, *row)?),
                Known::State => {
                    state = Some(match row.value.slice(bytes) {
                        b"active" => RegistrationStatus::Active,
                        b"init" => RegistrationStatus::Init,
                        b"terminated" => RegistrationStatus::Terminated,
                        _ => return Err(ReginfoError::new(ReginfoErrorKind::Value, at)),
                    });
                }
                Known::Callid
                | Known::Cseq
                | Known::DurationRegistered
                | Known::Event
                | Known::Expires
                | Known::Name
                | Known::Other
                | Known::Q
                | Known::Uri
                | Known::Version => {}
            }
        }
        let (Some(aor), Some(id), Some(state)) = (aor, id, state) else {
            return Err(ReginfoError::new(ReginfoErrorKind::Value, at));
        };
        let first_contact = index(self.contacts.len());
        self.registrations.push(RegistrationRow {
            aor,
            id,
            state,
            first_contact,
            contacts: 0,
        });
        Ok(())
    }

    fn open_contact(
        &mut self,
        bytes: &[u8],
        attributes: &[Attribute],
        at: usize,
    ) -> Result<(), ReginfoError> {
        if self.contacts.len() == REGINFO_CONTACTS_MAX {
            return Err(ReginfoError::new(ReginfoErrorKind::Limit, at));
        }
        let wrong = || ReginfoError::new(ReginfoErrorKind::Value, at);
        let mut row = ContactRow::before(index(self.params.len()));
        let (mut has_id, mut has_state) = (false, false);
        for attribute in attributes {
            let value = attribute.value.slice(bytes);
            match attribute.known {
                Known::Id => {
                    row.id = self.value(bytes, *attribute)?;
                    has_id = true;
                }
                Known::State => {
                    row.state = match value {
                        b"active" => ContactStatus::Active,
                        b"terminated" => ContactStatus::Terminated,
                        _ => return Err(wrong()),
                    };
                    has_state = true;
                }
                Known::Event => row.event = event(value),
                Known::Expires => row.expires_s = Some(seconds(value).ok_or_else(wrong)?),
                Known::DurationRegistered => row.duration_registered_s = seconds(value),
                Known::Q => row.q = quality(value),
                Known::Callid => row.call_id = self.value(bytes, *attribute)?,
                Known::Cseq => row.cseq = self.value(bytes, *attribute)?,
                Known::Aor | Known::Name | Known::Other | Known::Uri | Known::Version => {}
            }
        }
        if !(has_id && has_state) {
            return Err(wrong());
        }
        self.contacts.push(row);
        if let Some(registration) = self.registrations.last_mut() {
            registration.contacts += 1;
        }
        Ok(())
    }

    fn open_param(
        &mut self,
        bytes: &[u8],
        attributes: &[Attribute],
        at: usize,
    ) -> Result<(), ReginfoError> {
        if self.params.len() == PARAMS_MAX {
            return Err(ReginfoError::new(ReginfoErrorKind::Limit, at));
        }
        let name = self.required(bytes, attributes, Known::Name, at)?;
        let kind = ParamKind::of(self.text(name));
        self.params.push(ParamRow {
            name,
            value: Span::EMPTY,
            kind,
        });
        if let Some(contact) = self.contacts.last_mut() {
            contact.params += 1;
            if kind == ParamKind::Instance {
                contact.instance = Span::EMPTY;
            }
        }
        Ok(())
    }

    fn finish_uri(&mut self, gathered: Span) {
        let text = self.trimmed(gathered);
        if let Some(contact) = self.contacts.last_mut() {
            contact.uri = text;
        }
    }

    fn finish_param(&mut self, gathered: Span) {
        let text = self.trimmed(gathered);
        let Some(param) = self.params.last_mut() else {
            return;
        };
        param.value = text;
        if param.kind == ParamKind::Instance {
            let instance = Span::of(&self.arena, bare_instance(self.text(text)));
            if let Some(contact) = self.contacts.last_mut() {
                contact.instance = instance;
            }
        }
    }

    fn trimmed(&self, text: Span) -> Span {
        let bytes = self.text(text);
        let from_start = bytes.trim_ascii_start();
        let start = text.start as usize + (bytes.len() - from_start.len());
        Span::new(start, start + from_start.trim_ascii_end().len())
    }

    fn required(
        &mut self,
        bytes: &[u8],
        attributes: &[Attribute],
        name: Known,
        at: usize,
    ) -> Result<Text, ReginfoError> {
        match attributes.iter().find(|row| row.known == name) {
            Some(row) => self.value(bytes, *row),
            None => Err(ReginfoError::new(ReginfoErrorKind::Value, at)),
        }
    }

    /// The decoded value of an attribute; stays where it is when there is nothing to decode.
    #[inline]
    fn value(&mut self, bytes: &[u8], row: Attribute) -> Result<Text, ReginfoError> {
        if row.plain {
            return Ok(row.value);
        }
        let start = self.arena.len();
        decode(row.value.slice(bytes), &mut self.arena)?;
        Ok(Span::new(start, self.arena.len()))
    }
}

/// An instance id without its quotes and angle brackets.
fn bare_instance(value: &[u8]) -> &[u8] {
    let value = value.trim_ascii();
    let value = match value {
        [b'"', inner @ .., b'"'] => inner.trim_ascii(),
        _ => value,
    };
    match value {
        [b'<', inner @ .., b'>'] => inner,
        _ => value,
    }
}

#[inline]
fn is_xmlns(name: &[u8]) -> bool {
    name.starts_with(b"xmlns") && (name.len() == 5 || name[5] == b':')
}

fn decode_run(run: &[u8], plain: bool, out: &mut Vec<u8>) -> Result<(), ReginfoError> {
    if plain {
        out.extend_from_slice(run);
        return Ok(());
    }
    decode(run, out)
}

fn index(len: usize) -> u16 {
    u16::try_from(len).expect("rows are bounded far below 65,536")
}

fn event(value: &[u8]) -> Option<ContactEvent> {
    Some(match value {
        b"registered" => ContactEvent::Registered,
        b"created" => ContactEvent::Created,
        b"refreshed" => ContactEvent::Refreshed,
        b"shortened" => ContactEvent::Shortened,
        b"expired" => ContactEvent::Expired,
        b"deactivated" => ContactEvent::Deactivated,
        b"probation" => ContactEvent::Probation,
        b"unregistered" => ContactEvent::Unregistered,
        b"rejected" => ContactEvent::Rejected,
        _ => return None,
    })
}

/// A decimal number of 64 bits; no sign.
pub(super) fn number(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0u64, |sum, &byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        sum.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// A decimal number of seconds, held at the top of its 32 bits.
pub(super) fn seconds(value: &[u8]) -> Option<u32> {
    let value = value.trim_ascii();
    let mut sum = 0_u32;
    for &byte in value {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        sum = sum.saturating_mul(10).saturating_add(u32::from(digit));
    }
    (!value.is_empty()).then_some(sum)
}

/// A q value in thousandths; what is no q value counts as absent.
fn quality(value: &[u8]) -> u16 {
    let (whole, fraction) = match value {
        [whole @ (b'0' | b'1')] => (*whole, &value[..0]),
        [whole @ (b'0' | b'1'), b'.', fraction @ ..] if fraction.len() <= 3 => (*whole, fraction),
        _ => return Q_DEFAULT,
    };
    let mut sum = u16::from(whole - b'0') * 1000;
    let mut unit = 100;
    for &digit in fraction {
        if !digit.is_ascii_digit() {
            return Q_DEFAULT;
        }
        sum += u16::from(digit - b'0') * unit;
        unit /= 10;
    }
    if sum > 1000 { Q_DEFAULT } else { sum }
}

#[cfg(test)]
pub(crate) mod tests;
