//! The registrar that makes an engine push: one message for each user, for which the engine subscribes,
//! then NOTIFYs, each with new bindings of all devices of a user.
//!
//! Phones answer with media port 0, so the message stays queued and every new binding is a push again.
//! From the first message on as many users at a time are made to be pushed to as were asked for, and no
//! more: what a peer sends is lost over UDP where it is more than the caller's socket holds.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use super::phones::put_head;
use super::wire::{LineId, Lines, Wire};
use crate::forms::{Forms, Notify, REGISTRATION_S};
use crate::identity::{Names, put_plain};
use crate::scan::{Header, Message, name_addr};
use crate::scenario::Setup;

#[derive(Debug, Default)]
struct User {
    /// Pushes that this user's last trigger must still lead to.
    owed: u8,
    /// A trigger has led to all of its pushes before.
    pushed: bool,
    binding: u32,
    cseq: u32,
    version: u32,
    line: LineId,
    /// Contact, From and Call-ID of the SUBSCRIBE; empty before.
    subscription: [Vec<u8>; 3],
}

/// Users of an engine.
#[derive(Debug)]
pub(super) struct Registrar {
    forms: Forms,
    names: Names,
    devices: u8,
    users: Vec<User>,
    /// Whose turn it is, the longest idle first.
    idle: VecDeque<u32>,
    lines: Vec<LineId>,
    notify_lines: Vec<(SocketAddr, LineId)>,
    /// Answers to our requests that are no success.
    pub(super) refused: u64,
    /// Users with a trigger outstanding.
    in_flight: u32,
    in_flight_max: u32,
    /// Users who were pushed to at least once.
    seen: u32,
    /// No more triggers.
    pub(super) ending: bool,
    /// A SUBSCRIBE named this address, to which there is no line yet.
    wanted: Vec<(SocketAddr, u32)>,
}

impl Registrar {
    /// Connects to the engine of `setup`.
    pub(super) fn new(setup: &Setup, wire: &mut Wire) -> io::Result<Self> {
        let names = Names::new(&setup.domain, setup.run_id);
        let connections = match setup.transport {
            crate::scenario::Transport::Tcp => setup.connections,
            crate::scenario::Transport::Udp => 1,
        };
        let lines = (0..connections)
            .map(|_| wire.line_to(setup.engine))
            .collect::<io::Result<_>>()?;
        Ok(Self {
            forms: Forms::new(setup, &names),
            names,
            devices: setup.devices.1,
            users: (0..setup.users).map(|_| User::default()).collect(),
            idle: (0..setup.users).collect(),
            lines,
            notify_lines: Vec::new(),
            refused: 0,
            in_flight: 0,
            in_flight_max: setup.users_in_flight,
            seen: 0,
            ending: false,
            wanted: Vec::new(),
        })
    }

    /// Whether every user was pushed to.
    pub(super) fn is_warm(&self) -> bool {
        self.seen as usize == self.users.len()
    }

    /// Users whose pushes did not all come.
    pub(super) fn unserved(&self) -> u32 {
        self.users.iter().filter(|user| user.owed > 0).count() as u32
    }

    /// Whom an INVITE is for.
    pub(super) fn user_of(&self, message: &Message<'_>) -> u32 {
        let named = self.names.read_gruu(message.target);
        named.map_or(u32::MAX, |(user, _, _)| user)
    }

    /// A push to a device of `user` is over.
    pub(super) fn pushed(&mut self, user: u32) {
        let Some(entry) = self.users.get_mut(user as usize) else {
            return;
        };
        if entry.owed == 0 {
            return;
        }
        entry.owed -= 1;
        if entry.owed == 0 {
            if !core::mem::replace(&mut entry.pushed, true) {
                self.seen += 1;
            }
            self.in_flight -= 1;
            self.idle.push_back(user);
        }
    }

    /// Sends what is due.
    pub(super) fn pump(&mut self, wire: &mut Wire) -> io::Result<()> {
        while let Some((address, user)) = self.wanted.pop() {
            let known = self.notify_lines.iter().find(|(to, _)| *to == address);
            let line = if let Some(&(_, line)) = known {
                line
            } else {
                let line = wire.line_to(address)?;
                self.notify_lines.push((address, line));
                line
            };
            self.users[user as usize].line = line;
            self.notify(user, &mut wire.lines);
        }
        let lines = &mut wire.lines;
        while !self.ending && self.in_flight < self.in_flight_max {
            let Some(user) = self.idle.pop_front() else {
                break;
            };
            self.in_flight += 1;
            let entry = &mut self.users[user as usize];
            entry.owed = self.devices;
            if entry.subscription[0].is_empty() {
                let line = self.line_of(user);
                let out = lines.buffer(line);
                self.forms.put_message(0, user, u64::from(user), out);
                lines.end(line);
            } else {
                self.notify(user, lines);
            }
        }
        Ok(())
    }

    fn line_of(&self, user: u32) -> LineId {
        self.lines[user as usize % self.lines.len()]
    }

    fn notify(&mut self, user: u32, lines: &mut Lines) {
        let entry = &mut self.users[user as usize];
        entry.binding += 1;
        entry.cseq += 1;
        let mut aor = Vec::with_capacity(64);
        self.names.put_aor(user, &mut aor);
        let notify = Notify {
            target: &entry.subscription[0],
            to: &entry.subscription[1],
            call_id: &entry.subscription[2],
            aor: &aor,
            user,
            devices: self.devices,
            tel: false,
            cseq: entry.cseq,
            version: entry.version,
            binding: entry.binding,
            state: b"active;expires=599999",
        };
        entry.version += 1;
        let line = entry.line;
        self.forms.put_notify(&notify, lines.buffer(line));
        lines.end(line);
    }

    /// A SUBSCRIBE: answered, and its NOTIFY follows.
    pub(super) fn subscribe(&mut self, line: LineId, message: &Message<'_>, lines: &mut Lines) {
        let user = self.names.read_aor(message.target);
        let user = user.filter(|&user| (user as usize) < self.users.len());
        let contact = message.value(Header::Contact).and_then(name_addr);
        let contact = contact.map_or(&[][..], |(contact, _)| contact);
        let (Some(user), Some(address)) = (user, address_of(contact)) else {
            self.refused += 1;
            return;
        };
        let out = lines.buffer(line);
        put_head(out, message, b"200 OK", Some((b"s", user)));
        out.extend_from_slice(b"Contact: <");
        out.extend_from_slice(&self.forms.scscf_uri);
        out.extend_from_slice(b">\r\nExpires: ");
        put_plain(u64::from(REGISTRATION_S), out);
        out.extend_from_slice(b"\r\nContent-Length: 0\r\n\r\n");
        lines.end(line);
        let value = |header| message.value(header).unwrap_or(&[]).to_vec();
        let subscription = [contact.to_vec(), value(Header::From), value(Header::CallId)];
        self.users[user as usize].subscription = subscription;
        self.wanted.push((address, user));
    }

    /// An answer to a request of ours.
    pub(super) fn answered(&mut self, message: &Message<'_>) {
        if message.status >= 300 {
            self.refused += 1;
        }
    }
}

/// The numeric host and port of a SIP URI.
fn address_of(uri: &[u8]) -> Option<SocketAddr> {
    let rest = uri.strip_prefix(b"sip:")?;
    let rest = rest.split(|&byte| byte == b';').next()?;
    let host = memchr::memchr(b'@', rest).map_or(rest, |at| &rest[at + 1..]);
    core::str::from_utf8(host).ok()?.parse().ok()
}
