//! Values written as octets while nobody looks at them, and made again from those (layer 0).
//!
//! [`Fold`] is for the parts: numbers as varints, moments as distances from the last one, texts with their
//! length. [`fold_fields!`](crate::fold_fields) lists the fields of a struct once, for both directions; the
//! compiler says when one is missing. What is written stays within the process and is read by the code
//! that wrote it, so nothing here is checked as input would be.

use crate::base::slab::Key;
use crate::base::span::Span;
use crate::base::surface::LinkId;
use crate::base::time::Timestamp;

/// Takes octets.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
    last: u64,
}

impl<'a> Writer<'a> {
    /// Appends to `out`.
    pub const fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, last: 0 }
    }

    /// A number, in as few octets as it needs.
    pub fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.out.push((value & 0x7f) as u8);
    }

    /// A number that has no pattern, such as a hash: eight octets, where [`Writer::number`] takes ten.
    pub fn digest(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    /// Octets of a known number.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }
}

/// Gives them back.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    last: u64,
}

impl<'a> Reader<'a> {
    /// Reads `text`.
    #[must_use]
    pub const fn new(text: &'a [u8]) -> Self {
        Self {
            rest: text,
            last: 0,
        }
    }

    /// The next number.
    ///
    /// # Panics
    /// When nothing is left: the reader was made for what the writer wrote. So do all others here.
    pub fn number(&mut self) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let (&byte, rest) = self.rest.split_first().expect("as it was written");
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return value;
            }
            shift += 7;
        }
    }

    /// The next `len` octets.
    pub fn raw(&mut self, len: usize) -> &'a [u8] {
        let (bytes, rest) = self.rest.split_at(len);
        self.rest = rest;
        bytes
    }

    /// The next number without a pattern.
    pub fn digest(&mut self) -> u64 {
        let bytes = self.raw(8).first_chunk().expect("eight octets");
        u64::from_le_bytes(*bytes)
    }

    /// Everything was read.
    #[must_use]
    pub const fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }
}

/// What can be written and made again. `unfold` overwrites the whole value and keeps its buffers.
pub trait Fold {
    /// Writes the value.
    fn fold(&self, out: &mut Writer<'_>);
    /// Makes it again.
    fn unfold(&mut self, from: &mut Reader<'_>);
}

/// [`Fold`] of a struct by its fields, all of them. A number without pattern is written `as digest`, a `Vec`
/// `as list`. Those behind `but` are not written: whenever the value is folded they are what is given, and
/// made so again; without a value they are the owner's to make again.
#[macro_export]
macro_rules! fold_fields {
    (
        $name:ty { $($field:ident $(as $how:ident)?),+ $(,)? }
        $(but { $($left:ident $(= $blank:expr)?),+ $(,)? })?
    ) => {
        impl $crate::base::fold::Fold for $name {
            fn fold(&self, out: &mut $crate::base::fold::Writer<'_>) {
                let Self { $($field,)+ $($($left: _,)+)? } = self;
                $($crate::fold_field!(fold $field, out $(, $how)?);)+
            }

            fn unfold(&mut self, from: &mut $crate::base::fold::Reader<'_>) {
                let Self { $($field,)+ $($($left,)+)? } = self;
                $($crate::fold_field!(unfold $field, from $(, $how)?);)+
                $($($crate::fold_field!(blank $left $(, $blank)?);)+)?
            }
        }
    };
}

/// One field of [`fold_fields!`](crate::fold_fields).
#[doc(hidden)]
#[macro_export]
macro_rules! fold_field {
    (fold $field:ident, $wire:ident) => {
        $crate::base::fold::Fold::fold($field, $wire)
    };
    (fold $field:ident, $wire:ident, digest) => {
        $wire.digest(*$field)
    };
    (fold $field:ident, $wire:ident, list) => {
        $crate::base::fold::fold_list($field, $wire)
    };
    (unfold $field:ident, $wire:ident) => {
        $crate::base::fold::Fold::unfold($field, $wire)
    };
    (unfold $field:ident, $wire:ident, digest) => {
        *$field = $wire.digest()
    };
    (unfold $field:ident, $wire:ident, list) => {
        $crate::base::fold::unfold_list($field, $wire)
    };
    (blank $field:ident) => {
        _ = $field
    };
    (blank $field:ident, $blank:expr) => {
        *$field = $blank
    };
}

/// [`Fold`] of an enum without data.
#[macro_export]
macro_rules! fold_variants {
    ($name:ty { $($variant:ident),+ $(,)? }) => {
        impl $crate::base::fold::Fold for $name {
            fn fold(&self, out: &mut $crate::base::fold::Writer<'_>) {
                out.number(match self { $(Self::$variant => Self::$variant as u64,)+ });
            }

            fn unfold(&mut self, from: &mut $crate::base::fold::Reader<'_>) {
                let number = from.number();
                $(if number == Self::$variant as u64 { *self = Self::$variant; })+
            }
        }
    };
}

macro_rules! fold_numbers {
    ($($name:ty),+) => {
        $(impl Fold for $name {
            fn fold(&self, out: &mut Writer<'_>) {
                out.number(u64::from(*self));
            }

            fn unfold(&mut self, from: &mut Reader<'_>) {
                *self = Self::try_from(from.number()).expect("as it was written");
            }
        })+
    };
}

fold_numbers!(u8, u16, u32, u64);

impl Fold for usize {
    fn fold(&self, out: &mut Writer<'_>) {
        out.number(*self as u64);
    }

    fn unfold(&mut self, from: &mut Reader<'_>) {
        *self = Self::try_from(from.number()).expect("as it was written");
    }
}

impl Fold for bool {
    fn fold(&self, out: &mut Writer<'_>) {
        out.number(u64::from(*self));
    }

    fn unfold(&mut self, from: &mut Reader<'_>) {
        *self = from.number() != 0;
    }
}

impl Fold for Timestamp {
    fn fold(&self, out: &mut Writer<'_>) {
        // Moments of one life lie close together; zero and never are frequent and stay apart.
        if self.is_never() {
            out.number(0);
        } else if *self == Self::ZERO {
            out.number(1);
        } else {
            let nanos = self.as_nanos();
            let distance = nanos.wrapping_sub(out.last).cast_signed();
            out.last = nanos;
            let zigzag = (distance << 1 ^ distance >> 63).cast_unsigned();
            out.number(zigzag.saturating_add(2));
        }
    }

    fn unfold(&mut self, from: &mut Reader<'_>) {
        *self = match from.number() {
            0 => Self::NEVER,
            1 => Self::ZERO,
            number => {
                let zigzag = number - 2;
                let distance = (zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed();
                from.last = from.last.wrapping_add_signed(distance);
                Self::from_nanos(from.last)
            }
        };
    }
}

impl Fold for core::time::Duration {
    fn fold(&self, out: &mut Writer<'_>) {
        out.number(self.as_secs());
        out.number(u64::from(self.subsec_nanos()));
    }

    fn unfold(&mut self, from: &mut Reader<'_>) {
        let seconds = from.number();
        let mut nanos = 0_u32;
        nanos.unfold(from);
        *self = Self::new(seconds, nanos);
    }
}

impl Fold for core::net::SocketAddr {
    fn fold(&self, out: &mut Writer<'_>) {
        match self.ip() {
            core::net::IpAddr::V4(ip) => {
                out.number(4);
                out.raw(&ip.octets());
            }
            core::net::IpAddr::V6(ip) => {
                out.number(16);
                out.raw(&ip.octets());
            }
        }
        out.number(u64::from(self.port()));
        if let Self::V6(address) = self {
            out.number(u64::from(address.flowinfo()));
            out.number(u64::from(address.scope_id()));
        }
    }

    fn unfold(&mut self, from: &mut Reader<'_>) {
        let len = from.number();
        let port_of = |from: &mut Reader<'_>| {
            let mut port = 0_u16;
            port.unfold(from);
            port
        };
        *self = if len == 4 {
            let octets: [u8; 4] = *from.raw(4).first_chunk().expect("four octets");
            Self::from((octets, port_of(from)))
        } else {
            let octets: [u8; 16] = *from.raw(16).first_chunk().expect("sixteen octets");
            let port = port_of(from);
            let (mut flow, mut scope) = (0_u32, 0_u32);
            flow.unfold(from);
            scope.unfold(from);
            Self::V6(core::net::SocketAddrV6::new(
                octets.into(),
                port,
                flow,
                scope,
            ))
        };
    }
}

/// What an option is made again from, its value to be overwritten.
pub trait Blank {
    /// Any value.
    fn blank() -> Self;
}

/// [`Blank`] of types, each with a value.
#[macro_export]
macro_rules! fold_blanks {
    ($($name:ty = $blank:expr),+ $(,)?) => {
        $(impl $crate::base::fold::Blank for $name {
            fn blank() -> Self {
                $blank
            }
        })+
    };
}

fold_blanks!(
    bool = false,
    u16 = 0,
    u32 = 0,
    u64 = 0,
    Timestamp = Timestamp::ZERO,
    Key = Key {
        slot: 0,
        generation: 0
    },
    LinkId = LinkId {
        slot: 0,
        generation: 0
    },
    core::net::SocketAddr =
        core::net::SocketAddr::new(core::net::IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED), 0),
);

impl<A: Blank, B: Blank> Blank for (A, B) {
    fn blank() -> Self {
        (A::blank(), B::blank())
    }
}

impl<A: Fold, B: Fold> Fold for (A, B) {
    fn fold(&self, out: &mut Writer<'_>) {
        self.0.fold(out);
        self.1.fold(out);
    }

    fn unfold(&mut self, from: &mut Reader<'_>) {
        self.0.unfold(from);
        self.1.unfold(from);
    }
}

impl<T: Fold + Blank> Fold for Option<T> {
    fn fold(&self, out: &mut Writer<'_>) {
        out.number(u64::from(self.is_some()));
        if let Some(value) = self {
            value.fold(out);
        }
    }

    fn unfold(&mut self, from: &mut Reader<'_>) {
        *self = (from.number() != 0).then(|| {
            let mut value = T::blank();
            value.unfold(from);
            value
        });
    }
}

fold_fields!(Key { slot, generation });
fold_fields!(LinkId { slot, generation });
fold_fields!(Span { start, len });

impl<const N: usize> Fold for [u32; N] {
    fn fold(&self, out: &mut Writer<'_>) {
        self.iter().for_each(|item| item.fold(out));
    }

    fn unfold(&mut self, from: &mut Reader<'_>) {
        self.iter_mut().for_each(|item| item.unfold(from));
    }
}

impl Fold for Vec<u8> {
    fn fold(&self, out: &mut Writer<'_>) {
        out.number(self.len() as u64);
        out.raw(self);
    }

    fn unfold(&mut self, from: &mut Reader<'_>) {
        let mut len = 0_usize;
        len.unfold(from);
        self.clear();
        self.extend_from_slice(from.raw(len));
    }
}

/// Writes a list.
pub fn fold_list<T: Fold>(list: &[T], out: &mut Writer<'_>) {
    out.number(list.len() as u64);
    for item in list {
        item.fold(out);
    }
}

/// Makes a list again.
pub fn unfold_list<T: Fold + Default>(list: &mut Vec<T>, from: &mut Reader<'_>) {
    let mut len = 0_usize;
    len.unfold(from);
    list.clear();
    list.reserve(len);
    for _ in 0..len {
        let mut item = T::default();
        item.unfold(from);
        list.push(item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq)]
    struct All {
        number: u64,
        flag: bool,
        at: Timestamp,
        then: Timestamp,
        never: Timestamp,
        text: Vec<u8>,
        key: Option<Key>,
        none: Option<u32>,
        digest: u64,
        pairs: Vec<u16>,
        timer: Option<(u32, Timestamp)>,
        address: Option<core::net::SocketAddr>,
        left: u8,
        reset: u8,
    }

    fold_fields!(All {
        number, flag, at, then, never, text, key, none, digest as digest, pairs as list, timer, address,
    } but { left, reset = 9 });

    #[test]
    fn fields_come_back_and_those_left_out_stay_or_are_what_was_given() {
        for number in [0, 1, 127, 128, 1 << 20, u64::MAX - 1, u64::MAX] {
            let all = All {
                number,
                flag: true,
                at: Timestamp::from_nanos(number / 4),
                then: Timestamp::from_nanos(5),
                never: Timestamp::NEVER,
                text: b"text".to_vec(),
                key: Some(Key {
                    slot: 7,
                    generation: 1 << 27,
                }),
                none: None,
                digest: number,
                pairs: vec![3, 300],
                timer: Some((8, Timestamp::NEVER)),
                address: Some("[fe80::1%3]:5060".parse().unwrap()),
                left: 0,
                reset: 9,
            };
            let mut text = Vec::new();
            all.fold(&mut Writer::new(&mut text));
            let mut back = All {
                left: 3,
                ..All::default()
            };
            let mut reader = Reader::new(&text);
            back.unfold(&mut reader);
            assert!(reader.is_at_end());
            assert_eq!(back, All { left: 3, ..all });
        }
    }
}
