//! What peers wrote into Contact and Record-Route before.
//!
//! The places of a value that once made a dialog are kept with its [`Shape`]; a value that fits makes one,
//! too. Free are letters and digits of users and of parameters' values, and the digits of hosts. Ports, names of
//! parameters and schemes stay. Only plain `sip` URIs are kept, and routes only if all are loose.

use crate::base::limits::ROUTES_MAX;
use crate::base::shape::{Freedom, Memory, Shape};
use crate::base::span::Span;
use crate::sip::header::{AddrSpans, HeaderName, free_user};
use crate::sip::scan::trim;
use crate::sip::uri::{self, Uri};

use super::{is_loose, next_value, offset, usable_uri};

/// Longest value that is kept, octets.
const VALUE_BYTES_MAX: usize = 384;
/// Shapes kept of each header.
const WAYS: usize = 8;
/// Most entries of a Record-Route value that is kept.
pub(super) const KEPT_ROUTES_MAX: usize = 4;

/// Where the entries of a Record-Route value lie in it, brackets and parameters included.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Routes {
    places: [(u32, u32); KEPT_ROUTES_MAX],
    count: usize,
}

impl Routes {
    pub(super) fn places(&self) -> &[(u32, u32)] {
        &self.places[..self.count]
    }
}

/// Values that made dialogs before.
#[derive(Debug)]
pub struct Peers {
    contacts: Memory<Span>,
    routes: Memory<Routes>,
}

impl Default for Peers {
    fn default() -> Self {
        Self::new()
    }
}

impl Peers {
    /// Knows nothing yet; all memory there will be (10 KiB).
    #[must_use]
    pub fn new() -> Self {
        Self {
            contacts: Memory::new(WAYS, VALUE_BYTES_MAX, Span::default),
            routes: Memory::new(WAYS, VALUE_BYTES_MAX, Routes::default),
        }
    }

    /// The URI in the first entry of a Contact value, if it can stand in a Request-URI.
    pub(super) fn contact<'a>(&mut self, value: &'a [u8]) -> Option<&'a [u8]> {
        if let Some(place) = self.contacts.recall(value) {
            return Some(place.slice(value));
        }
        let address = AddrSpans::parse(value, 0, value.len(), HeaderName::Contact).ok()?;
        let uri = address.uri();
        let parsed = usable_uri(uri.slice(value))?;
        self.contacts.learn(value, |place, shape| {
            *place = uri;
            free_address(value, &address, &parsed, shape)
        });
        Some(uri.slice(value))
    }

    /// The entries of a Record-Route value that was seen before.
    #[inline]
    pub(super) fn routes(&mut self, value: &[u8]) -> Option<Routes> {
        self.routes.recall(value).copied()
    }

    /// Keeps a Record-Route value of usable, loose routes, if its like is wanted.
    pub(super) fn learn_routes(&mut self, value: &[u8]) {
        self.routes.learn(value, |found, shape| {
            let Some((routes, addresses)) = read_routes(value) else {
                return false;
            };
            *found = routes;
            addresses[..routes.count].iter().all(|address| {
                let uri = address.uri().slice(value);
                usable_uri(uri).is_some_and(|parsed| free_address(value, address, &parsed, shape))
            })
        });
    }
}

fn read_routes(value: &[u8]) -> Option<(Routes, [AddrSpans; KEPT_ROUTES_MAX])> {
    const _: () = assert!(KEPT_ROUTES_MAX <= ROUTES_MAX, "what is kept can be written");
    let mut routes = Routes::default();
    let mut addresses = [AddrSpans::default(); KEPT_ROUTES_MAX];
    let mut at = 0;
    while let Some(start) = next_value(value, at, value.len()) {
        let address = AddrSpans::parse(value, start, value.len(), HeaderName::RecordRoute).ok()?;
        *addresses.get_mut(routes.count)? = address;
        let text = trim(&value[start..address.end()]);
        routes.places[routes.count] = (offset(start), offset(start + text.len()));
        routes.count += 1;
        let uri = address.uri().slice(value);
        if !usable_uri(uri).is_some_and(|parsed| is_loose(&parsed)) {
            return None;
        }
        at = address.end();
    }
    Some((routes, addresses))
}

/// Frees what may be another in an address with a plain URI; `false` when the URI is of another form.
fn free_address(value: &[u8], address: &AddrSpans, parsed: &Uri<'_>, shape: &mut Shape) -> bool {
    let uri = address.uri();
    if !uri::is_usual(uri.slice(value)) {
        return false;
    }
    let mut free = |part: &[u8], freedom| shape.free(Span::of(value, part).range(), freedom);
    free(parsed.host, Freedom::Digit);
    let params = parsed.params.into_iter();
    for text in params.filter_map(|param| param.value) {
        free(text, Freedom::Word);
    }
    let params = address.resolve(value).params.into_iter();
    for text in params.filter_map(|param| param.value) {
        free(text, Freedom::Word);
    }
    free_user(value, uri, shape);
    true
}
