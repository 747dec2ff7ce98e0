//! Documents of a shape seen before: a registrar writes one form, with other names and numbers.
//!
//! What [`Document::parse`] found is kept as a [`Shape`] with the rows. Free are letters and digits of
//! identities, row ids, Call-IDs, contact URIs, GRUUs and instance ids, and the digits of version, life and
//! age, which are read anew. Names and values of features stay as they are, and so does all else.

use crate::base::shape::{Freedom, Memory, Shape};
use crate::base::span::Span;
use crate::reginfo::document::{
    ContactRow, Document, DocumentState, ParamRow, RegistrationRow, number, seconds,
};
use crate::reginfo::scan::{Attribute, Attributes, Event, Known, ReginfoError, Scanner};

/// Longest document that is kept, octets: some six contacts.
const DOCUMENT_BYTES_MAX: usize = 4096;
/// Shapes kept.
const WAYS: usize = 8;
/// Most rows of a document that is kept, of each kind.
const REGISTRATIONS_MAX: usize = 8;
const CONTACTS_MAX: usize = 16;
const PARAMS_MAX: usize = 64;
/// Octets that reading may have written otherwise than they stand: four around each instance id.
const WRITTEN_MAX: usize = 4 * CONTACTS_MAX;
/// Digits that neither overflow nor are held at the top.
const DIGITS_MAX: usize = 9;

/// Documents that were read before.
#[derive(Debug)]
pub struct Documents(Memory<Noted>);

/// What was found in a document.
#[derive(Debug)]
struct Noted {
    version: Span,
    state: DocumentState,
    registrations: Vec<RegistrationRow>,
    contacts: Vec<ContactRow>,
    /// For each contact, where its life and its age stand; empty for none.
    numbers: Vec<[Span; 2]>,
    params: Vec<ParamRow>,
    /// Octets that reading wrote over, and with what.
    written: Vec<(u32, u8)>,
}

impl Default for Documents {
    fn default() -> Self {
        Self::new()
    }
}

impl Documents {
    /// Knows nothing yet; all memory there will be (90 KiB).
    #[must_use]
    pub fn new() -> Self {
        Self(Memory::new(WAYS, DOCUMENT_BYTES_MAX, Noted::blank))
    }

    /// Fills `document` as [`Document::parse`] would.
    ///
    /// # Errors
    /// As [`Document::parse`].
    #[inline]
    pub fn read(&mut self, bytes: &[u8], document: &mut Document) -> Result<(), ReginfoError> {
        let noted = self.0.recall(bytes);
        if noted.is_some_and(|noted| noted.restore(bytes, document)) {
            return Ok(());
        }
        document.parse(bytes)?;
        self.0
            .learn(bytes, |noted, shape| noted.read(bytes, document, shape));
        Ok(())
    }
}

impl Noted {
    fn blank() -> Self {
        Self {
            version: Span::EMPTY,
            state: DocumentState::Full,
            registrations: Vec::with_capacity(REGISTRATIONS_MAX),
            contacts: Vec::with_capacity(CONTACTS_MAX),
            numbers: Vec::with_capacity(CONTACTS_MAX),
            params: Vec::with_capacity(PARAMS_MAX),
            written: Vec::with_capacity(WRITTEN_MAX),
        }
    }

    /// Fills `document` from a text that fits; `false` leaves it to be read.
    #[inline]
    fn restore(&self, bytes: &[u8], document: &mut Document) -> bool {
        let Some(version) = number(self.version.slice(bytes)) else {
            return false;
        };
        document.begin(version, self.state, bytes);
        for &(at, octet) in &self.written {
            document.arena[at as usize] = octet;
        }
        document
            .registrations
            .extend_from_slice(&self.registrations);
        document.contacts.extend_from_slice(&self.contacts);
        document.params.extend_from_slice(&self.params);
        for (row, numbers) in document.contacts.iter_mut().zip(&self.numbers) {
            let read = |place: Span| seconds(place.slice(bytes));
            (row.expires_s, row.duration_registered_s) = (read(numbers[0]), read(numbers[1]));
        }
        true
    }

    /// Notes what `document` says of `bytes`; `false` for one that is not to be kept.
    fn read(&mut self, bytes: &[u8], document: &Document, shape: &mut Shape) -> bool {
        // Texts that had to be decoded lie behind the document.
        if document.arena.len() != bytes.len()
            || document.registrations.len() > REGISTRATIONS_MAX
            || document.contacts.len() > CONTACTS_MAX
            || document.params.len() > PARAMS_MAX
        {
            return false;
        }
        let both = (0_u32..).zip(bytes.iter().zip(&document.arena));
        let written = both.filter(|(_, (stands, octet))| stands != octet);
        self.written.clear();
        for (at, (_, &octet)) in written {
            if self.written.len() == WRITTEN_MAX {
                return false;
            }
            self.written.push((at, octet));
        }
        if self.find_numbers(bytes, shape).is_none() {
            return false;
        }
        let said = document.contacts.iter();
        let said = said.map(|row| [row.expires_s, row.duration_registered_s]);
        let found = self.numbers.iter();
        let found = found.map(|places| places.map(|place| seconds(place.slice(bytes))));
        if !said.eq(found) || number(self.version.slice(bytes)) != Some(document.version) {
            return false;
        }
        for row in &document.registrations {
            for text in [row.aor, row.id] {
                shape.free(text.range(), Freedom::Word);
            }
        }
        for row in &document.contacts {
            let gruu = row.pub_gruu.unwrap_or_default();
            for text in [row.id, row.call_id, row.cseq, row.uri, row.instance, gruu] {
                shape.free(text.range(), Freedom::Word);
            }
        }
        // References stay what they are.
        for &(at, _) in &self.written {
            let at = at as usize;
            shape.fix(at..at + 1);
        }
        self.state = document.state;
        self.registrations.clone_from(&document.registrations);
        self.contacts.clone_from(&document.contacts);
        self.params.clone_from(&document.params);
        true
    }

    /// Finds the numbers that are read anew, and frees them and what nobody reads of GRUUs. `None`: some
    /// are not in the usual form.
    fn find_numbers(&mut self, bytes: &[u8], shape: &mut Shape) -> Option<()> {
        self.version = Span::EMPTY;
        self.numbers.clear();
        let mut attributes = Attributes::default();
        let mut scanner = Scanner::new(bytes).ok()?;
        loop {
            let (name, empty) = match scanner.next(&mut attributes, false).ok()? {
                Event::Start { name, empty } => (name.slice(bytes), empty),
                Event::End | Event::Text { .. } => continue,
                Event::Finish => return Some(()),
            };
            let depth = scanner.depth() + usize::from(empty);
            // Under a prefix it is anybody's guess which ones count.
            if name.ends_with(b":contact") {
                return None;
            }
            let is_contact = name == b"contact";
            if is_contact && self.numbers.len() == CONTACTS_MAX {
                return None;
            }
            if is_contact {
                self.numbers.push([Span::EMPTY; 2]);
            }
            for attribute in attributes.rows() {
                let known = attribute.known;
                let place = if known == Known::Version && depth == 1 {
                    &mut self.version
                } else if known == Known::Expires && is_contact {
                    &mut self.numbers.last_mut()?[0]
                } else if known == Known::DurationRegistered && is_contact {
                    &mut self.numbers.last_mut()?[1]
                } else {
                    if is_of_gruu(attribute, bytes) {
                        shape.free(attribute.value.range(), Freedom::Word);
                    }
                    continue;
                };
                let digits = attribute.value.slice(bytes);
                if digits.len() > DIGITS_MAX || !digits.iter().all(u8::is_ascii_digit) {
                    return None;
                }
                *place = attribute.value;
                shape.free(place.range(), Freedom::Digit);
            }
        }
    }
}

/// `uri` and `first-cseq` of a GRUU element, as far as nothing in them is a reference.
fn is_of_gruu(attribute: &Attribute, bytes: &[u8]) -> bool {
    let is_named = attribute.known == Known::Uri || attribute.name.slice(bytes) == b"first-cseq";
    attribute.plain && is_named
}

#[cfg(test)]
mod tests;
