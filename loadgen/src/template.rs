//! Messages rendered once, with holes for fixed-width digits: sending one is a copy and a few
//! patches.

use crate::identity::{MESSAGE_DIGITS, USER_DIGITS, put_digits};

/// What a hole is filled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hole {
    /// Counter of bindings or document versions, eight digits.
    Binding,
    /// Device number, four digits.
    Device,
    /// Message number, twelve digits.
    Message,
    /// Sender number, seven digits.
    Sender,
    /// Serial of a push, eight digits.
    Serial,
    /// User number, seven digits.
    User,
    /// User number, eight digits.
    UserLong,
}

/// The digits of one rendering.
#[derive(Clone, Copy, Debug)]
pub struct Digits {
    binding: [u8; 8],
    device: [u8; 4],
    message: [u8; MESSAGE_DIGITS],
    sender: [u8; USER_DIGITS],
    serial: [u8; 8],
    user: [u8; 8],
}

impl Default for Digits {
    fn default() -> Self {
        Self {
            binding: [b'0'; 8],
            device: [b'0'; 4],
            message: [b'0'; MESSAGE_DIGITS],
            sender: [b'0'; USER_DIGITS],
            serial: [b'0'; 8],
            user: [b'0'; 8],
        }
    }
}

impl Digits {
    /// Digits for things about `user`.
    pub fn of_user(user: u32) -> Self {
        let mut digits = Self::default();
        put_digits(u64::from(user), &mut digits.user);
        digits
    }

    /// Adds the binding counter.
    #[must_use]
    pub fn binding(mut self, binding: u32) -> Self {
        put_digits(u64::from(binding), &mut self.binding);
        self
    }

    /// Adds the device.
    #[must_use]
    pub fn device(mut self, device: u8) -> Self {
        put_digits(u64::from(device), &mut self.device);
        self
    }

    /// Adds the message and its sender.
    #[must_use]
    pub fn message(mut self, message: u64, sender: u32) -> Self {
        put_digits(message, &mut self.message);
        put_digits(u64::from(sender), &mut self.sender);
        self
    }

    /// Adds the serial of a push.
    #[must_use]
    pub fn serial(mut self, serial: u32) -> Self {
        put_digits(u64::from(serial), &mut self.serial);
        self
    }

    fn of(&self, hole: Hole) -> &[u8] {
        match hole {
            Hole::Binding => &self.binding,
            Hole::Device => &self.device,
            Hole::Message => &self.message,
            Hole::Sender => &self.sender,
            Hole::Serial => &self.serial,
            Hole::User => &self.user[8 - USER_DIGITS..],
            Hole::UserLong => &self.user,
        }
    }
}

/// Text with holes.
#[derive(Clone, Debug, Default)]
pub struct Template {
    bytes: Vec<u8>,
    holes: Vec<(u32, Hole)>,
}

impl Template {
    /// Builds from text in which `{u}` is [`Hole::User`], `{U}` [`Hole::UserLong`], `{d}`
    /// [`Hole::Device`], `{m}` [`Hole::Message`], `{s}` [`Hole::Sender`], `{n}` [`Hole::Serial`]
    /// and `{b}` [`Hole::Binding`].
    pub fn parse(text: &str) -> Self {
        let mut template = Self::default();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            template.bytes.extend_from_slice(&rest.as_bytes()[..open]);
            let hole = match rest.as_bytes().get(open + 1) {
                Some(b'u') => Hole::User,
                Some(b'U') => Hole::UserLong,
                Some(b'd') => Hole::Device,
                Some(b'm') => Hole::Message,
                Some(b's') => Hole::Sender,
                Some(b'n') => Hole::Serial,
                Some(b'b') => Hole::Binding,
                _ => unreachable!("templates are written in this crate"),
            };
            template.holes.push((template.bytes.len() as u32, hole));
            let width = Digits::default().of(hole).len();
            template.bytes.resize(template.bytes.len() + width, b'0');
            rest = &rest[open + 3..];
        }
        template.bytes.extend_from_slice(rest.as_bytes());
        template
    }

    /// Octets of one rendering.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the template is empty.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Appends one rendering.
    #[inline]
    pub fn render(&self, digits: &Digits, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let rendered = &mut out[start..];
        for &(at, hole) in &self.holes {
            let value = digits.of(hole);
            rendered[at as usize..at as usize + value.len()].copy_from_slice(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_every_hole() {
        let template = Template::parse("a{u}b{U}c{d}d{m}e{s}f{n}g{b}");
        let digits = Digits::of_user(12)
            .device(3)
            .message(77, 5)
            .serial(9)
            .binding(4);
        let mut out = Vec::new();
        template.render(&digits, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "a0000012b00000012c0003d000000000077e0000005f00000009g00000004"
        );
        assert!(!template.is_empty());
    }
}
