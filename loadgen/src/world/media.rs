//! MSRP receivers: every SEND is judged, answered, reported and entered into the ledger.

use memchr::memmem;

use super::{Call, World, device_key};
use crate::behaviour::Receiver;
use crate::check::{Bench, media};
use crate::identity::{put_fixed, read_digits};
use crate::ledger::Delivery;
use crate::link::LinkId;
use crate::msrp::{Frame, Parsed, Start, parse, session_id};
use crate::rules::Rule;
use crate::scenario::Kind;
use crate::stats::Stage;

/// Octets of a message beside its body, at most.
const HEADERS_MAX: u64 = 256 * 1024;

impl World {
    /// Handles MSRP octets; gives how many were consumed, or `None` when the stream is lost.
    pub fn handle_msrp(&mut self, link: LinkId, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < bytes.len() {
            match parse(&bytes[at..]) {
                Parsed::Frame(frame, length) => {
                    self.frame(link, &frame);
                    at += length;
                }
                Parsed::Incomplete => break,
                Parsed::Error => {
                    self.violations
                        .record(Rule::Msrp1, "stream cannot be framed", &bytes[at..]);
                    return None;
                }
            }
        }
        Some(at)
    }

    fn frame(&mut self, link: LinkId, frame: &Frame<'_>) {
        if !self.larges.is_empty() && self.large_frame(link, frame) {
            return;
        }
        match frame.start {
            Start::Send => self.send(link, frame),
            Start::Report => self.counters.strays += 1,
            Start::Response(200) => {}
            Start::Response(_) => {
                self.counters.strays += 1;
                self.violations
                    .record(Rule::Msrp16, "a SEND of the phone is refused", frame.bytes);
            }
            Start::Other => {
                self.counters.strays += 1;
                self.respond(link, frame, b"501 Unknown method");
            }
        }
    }

    /// Opens a connection's session with an empty SEND (f1-05).
    pub(super) fn bind(&mut self, link: LinkId, path: &[u8], user: u32, device: u8, serial: u32) {
        let listen = self.setup.msrp_listen;
        let out = self.outbox.buffer(link);
        out.extend_from_slice(b"MSRP b1nd");
        put_fixed(u64::from(serial), 8, out);
        out.extend_from_slice(b" SEND\r\nTo-Path: ");
        out.extend_from_slice(path);
        out.extend_from_slice(b"\r\nFrom-Path: msrp://");
        out.extend_from_slice(listen.to_string().as_bytes());
        out.extend_from_slice(b"/p");
        put_fixed(u64::from(self.names.written(user)), 8, out);
        put_fixed(u64::from(device), 4, out);
        put_fixed(u64::from(serial), 8, out);
        out.extend_from_slice(b";tcp\r\nMessage-ID: bind");
        put_fixed(u64::from(serial), 8, out);
        out.extend_from_slice(b"\r\nByte-Range: 1-0/0\r\n-------b1nd");
        put_fixed(u64::from(serial), 8, out);
        out.extend_from_slice(b"$\r\n");
        self.outbox.sent(link);
    }

    /// The device a SEND is for, when its session lives.
    fn session_of(&self, frame: &Frame<'_>) -> Option<(u32, u8, usize)> {
        let digits = session_id(frame.to_path)?.strip_prefix(b"p")?;
        if digits.len() != 20 {
            return None;
        }
        let user = self.names.read_user(read_digits(&digits[..8])?);
        let device = u8::try_from(read_digits(&digits[8..12])?).ok()?;
        let index = self.device_index(user, device)?;
        let entry = &self.devices[index];
        let live = entry.call != Call::Idle
            && u64::from(entry.dialog.serial) == read_digits(&digits[12..])?;
        live.then_some((user, device, index))
    }

    fn send(&mut self, link: LinkId, frame: &Frame<'_>) {
        self.counters.sends += 1;
        let Some((user, device, index)) = self.session_of(frame) else {
            self.violations
                .record(Rule::Msrp16, "SEND to no live session", frame.bytes);
            self.respond(link, frame, b"481 No such session");
            return;
        };
        let judged = self.devices[index].judged;
        if judged {
            self.judge_frame(index, frame);
        }
        let key = device_key(&self.names, user, device);
        let receiver = self.setup.receivers.draw(key, self.devices[index].nth);
        if receiver == Receiver::Refuse && frame.body.is_some() {
            self.devices[index].excused = true;
            self.devices[index].holds = true;
            self.counters.sends_refused += 1;
            self.respond(link, frame, b"413 No room");
            return;
        }
        if matches!(receiver, Receiver::Abort | Receiver::Reset) && frame.body.is_some() {
            return self.break_off(link, index, receiver == Receiver::Reset);
        }
        self.reports_in_parts = receiver == Receiver::Partial;
        let before = self.outbox.peek(link).buffer.len();
        self.receive(link, frame, (user, device, index));
        if receiver == Receiver::Slow {
            let bytes = self.outbox.link(link).buffer.split_off(before);
            let ms = self.setup.slow_ms;
            self.later(super::mood::Kind::Media, ms, link, index, bytes);
        }
    }

    /// The phone breaks its connection; what it did not get stays with the engine.
    fn break_off(&mut self, link: LinkId, index: usize, reset: bool) {
        self.counters.media_broken += 1;
        let device = &mut self.devices[index];
        device.excused = true;
        device.holds = true;
        if self.outbox.peek(link).device == 0 {
            // Other sessions of this moment share the connection.
            self.broken_at = self.now;
        }
        if reset {
            self.outbox.resets.push(link);
        }
        self.outbox.closes.push(link);
    }

    /// Whether a session shared a connection that another phone broke.
    pub(super) fn excuse_broken(&mut self, index: usize) {
        let device = &mut self.devices[index];
        if self.broken_at != 0 && device.answered_at <= self.broken_at {
            device.excused = true;
            device.holds = true;
        }
    }

    /// Answers a SEND and takes what it carries.
    fn receive(&mut self, link: LinkId, frame: &Frame<'_>, whose: (u32, u8, usize)) {
        let (user, device, index) = whose;
        if frame.failure_report != b"no" && frame.failure_report != b"partial" {
            self.respond(link, frame, b"200 OK");
        }
        let Some(body) = frame.body else {
            return;
        };
        let entry = &mut self.devices[index];
        if !entry.fed {
            entry.fed = true;
            self.latencies
                .record(Stage::AnswerToSend, entry.answered_at, self.now);
        }
        let single = entry.partial_len == 0 && frame.flag == b'$';
        if single {
            self.complete(link, frame, body, (user, device, index));
            return;
        }
        self.chunk(link, frame, body, (user, device, index));
    }

    fn judge_frame(&mut self, index: usize, frame: &Frame<'_>) {
        let entry = &self.devices[index];
        let path = self.hasher.hash(5, frame.from_path);
        let mut bench = Bench::new(&mut self.violations, frame.bytes);
        let own = path == entry.dialog.path;
        bench.demand(own, Rule::Msrp16, "From-Path is not the offer's path");
        media::send(frame, entry.partial_len + 1, &mut bench);
    }

    /// One chunk of several.
    fn chunk(&mut self, link: LinkId, frame: &Frame<'_>, body: &[u8], whose: (u32, u8, usize)) {
        let (_, _, index) = whose;
        let entry = &mut self.devices[index];
        if entry.partial == 0 {
            let slot = self.free_partials.pop().unwrap_or_else(|| {
                self.partials.push(Vec::new());
                (self.partials.len() - 1) as u32
            });
            entry.partial = slot + 1;
        }
        let slot = entry.partial - 1;
        let buffer = &mut self.partials[slot as usize];
        let longest = self
            .setup
            .body_bytes
            .iter()
            .max()
            .map_or(0, |&max| max as u64);
        if entry.partial_len + body.len() as u64 > longest + HEADERS_MAX {
            self.violations.record(
                Rule::Msrp5,
                "message longer than any deposited",
                frame.bytes,
            );
            return;
        }
        buffer.extend_from_slice(body);
        entry.partial_len += body.len() as u64;
        if frame.flag == b'+' {
            return;
        }
        let mut whole = core::mem::take(buffer);
        entry.partial = 0;
        entry.partial_len = 0;
        if frame.flag == b'$' {
            self.complete(link, frame, &whole, whose);
        }
        whole.clear();
        self.partials[slot as usize] = whole;
        self.free_partials.push(slot);
    }

    /// A whole message: ledger, latency, report.
    fn complete(
        &mut self,
        link: LinkId,
        frame: &Frame<'_>,
        cpim: &[u8],
        (user, device, index): (u32, u8, usize),
    ) {
        if frame.success_report == b"yes" {
            self.report(link, frame, cpim.len());
        }
        let Some(number) = self.message_number(cpim) else {
            self.ledger.foreign += 1;
            self.violations
                .record(Rule::Imdn4, "no message of this run", frame.bytes);
            return;
        };
        let queue = &mut self.users[user as usize].queue;
        let oldest = self.ledger.oldest_for(queue, device);
        let devices = self.users[user as usize].devices;
        let queue = &mut self.users[user as usize].queue;
        let delivery = self.ledger.deliver(queue, (user, device, devices), number);
        if delivery == Delivery::Foreign {
            return;
        }
        let judged = self.devices[index].judged;
        let intact = self.judge_cpim(number, user, cpim, frame, judged);
        if delivery == Delivery::First {
            if !intact {
                self.ledger.corrupted += 1;
            }
            if judged && oldest.map(u64::from) != Some(number) {
                self.violations
                    .record(Rule::Ok3, "not the oldest queued message", frame.bytes);
            }
            let entry = &self.devices[index];
            let due = match self.setup.kind {
                Kind::Steady => self.ledger.row(number).map_or(0, |row| row.intended_at),
                Kind::Full | Kind::Signalling | Kind::Hold => entry.trigger_due,
            };
            self.latencies
                .record(Stage::TriggerToDelivered, due, self.now);
        }
        if judged {
            self.judge_message_id(number, frame);
        }
        let queue = &self.users[user as usize].queue;
        if self.holds_sessions() && self.ledger.oldest_for(queue, device).is_none() {
            // The session stays; who waited for the delivery goes on.
            self.push_over(user, device, index);
        }
    }

    /// Number of the message a CPIM carries.
    fn message_number(&self, cpim: &[u8]) -> Option<u64> {
        const NAME: &[u8] = b"imdn.Message-ID: ";
        let at = memmem::find(cpim, NAME)? + NAME.len();
        let rest = &cpim[at..];
        let end = memchr::memchr(b'\r', rest)?;
        self.names.read_message_id(&rest[..end])
    }

    /// Compares a delivered CPIM with the deposited one.
    fn judge_cpim(
        &mut self,
        number: u64,
        user: u32,
        cpim: &[u8],
        frame: &Frame<'_>,
        judged: bool,
    ) -> bool {
        let Some(class) = self.ledger.row(number).map(|row| usize::from(row.class)) else {
            return false;
        };
        self.scratch.clear();
        self.forms.put_cpim(class, user, number, &mut self.scratch);
        let compared = compare_cpim(&self.scratch, cpim);
        let Some(added) = compared else {
            let what = "delivered CPIM differs from the deposited one";
            self.violations.record(Rule::Cpim1, what, frame.bytes);
            return false;
        };
        if judged {
            let value = |name: &[u8]| {
                let at = memmem::find(added, name)? + name.len();
                let rest = &added[at..];
                Some(&rest[..memchr::memchr(b'\r', rest)?])
            };
            let conversation = value(b"cpm.Conversation-ID: ")
                .and_then(|value| self.names.read_cpm_id(true, value));
            let contribution = value(b"cpm.Contribution-ID: ")
                .and_then(|value| self.names.read_cpm_id(false, value));
            if conversation != Some(number) || contribution != Some(number) {
                let what = "cpm identifiers missing or of another message";
                self.violations.record(Rule::Cpim5, what, frame.bytes);
            }
        }
        true
    }

    /// MSRP-4: one Message-ID for a stored message on every device and attempt.
    fn judge_message_id(&mut self, number: u64, frame: &Frame<'_>) {
        let hash = (self.hasher.hash(6, frame.message_id) as u32).max(1);
        let Some(row) = self.ledger.row(number) else {
            return;
        };
        if row.msrp_id == 0 {
            row.msrp_id = hash;
        } else if row.msrp_id != hash {
            let what = "another Message-ID than before for one message";
            self.violations.record(Rule::Msrp4, what, frame.bytes);
        }
    }

    /// Gives back what was got of a message in transfer.
    pub(super) fn forget_partial(&mut self, index: usize) {
        let device = &mut self.devices[index];
        device.partial_len = 0;
        if device.partial != 0 {
            let slot = core::mem::take(&mut device.partial) - 1;
            self.partials[slot as usize].clear();
            self.free_partials.push(slot);
        }
    }

    pub(super) fn respond(&mut self, link: LinkId, frame: &Frame<'_>, status: &[u8]) {
        let out = self.outbox.buffer(link);
        out.extend_from_slice(b"MSRP ");
        out.extend_from_slice(frame.tid);
        out.push(b' ');
        out.extend_from_slice(status);
        out.extend_from_slice(b"\r\nTo-Path: ");
        out.extend_from_slice(first_uri(frame.from_path));
        out.extend_from_slice(b"\r\nFrom-Path: ");
        out.extend_from_slice(frame.to_path);
        out.extend_from_slice(b"\r\n-------");
        out.extend_from_slice(frame.tid);
        out.extend_from_slice(b"$\r\n");
        self.outbox.sent(link);
    }

    /// Appends a success report over all octets (f1-09).
    fn report(&mut self, link: LinkId, frame: &Frame<'_>, total: usize) {
        let half = total / 2;
        if self.reports_in_parts && half > 0 {
            self.report_range(link, frame, (half + 1, total, total));
            self.report_range(link, frame, (1, (half + 10).min(total), total));
        } else {
            self.report_range(link, frame, (1, total, total));
        }
        self.counters.reports += 1;
    }

    fn report_range(
        &mut self,
        link: LinkId,
        frame: &Frame<'_>,
        (from, to, total): (usize, usize, usize),
    ) {
        self.counters.report_frames += 1;
        let number = self.counters.report_frames;
        let out = self.outbox.buffer(link);
        out.extend_from_slice(b"MSRP rp");
        put_fixed(number, 12, out);
        out.extend_from_slice(b" REPORT\r\nTo-Path: ");
        out.extend_from_slice(frame.from_path);
        out.extend_from_slice(b"\r\nFrom-Path: ");
        out.extend_from_slice(frame.to_path);
        out.extend_from_slice(b"\r\nMessage-ID: ");
        out.extend_from_slice(frame.message_id);
        out.extend_from_slice(b"\r\nByte-Range: ");
        crate::identity::put_plain(from as u64, out);
        out.push(b'-');
        crate::identity::put_plain(to as u64, out);
        out.push(b'/');
        crate::identity::put_plain(total as u64, out);
        out.extend_from_slice(b"\r\nStatus: 000 200 OK\r\n-------rp");
        put_fixed(number, 12, out);
        out.extend_from_slice(b"$\r\n");
        self.outbox.sent(link);
    }
}

fn first_uri(path: &[u8]) -> &[u8] {
    &path[..memchr::memchr(b' ', path).unwrap_or(path.len())]
}

/// The header lines added to `expected` in `got`; `None` when anything else differs. Added may be
/// only lines of the cpm name space.
fn compare_cpim<'a>(expected: &[u8], got: &'a [u8]) -> Option<&'a [u8]> {
    let head = memmem::find(expected, b"\r\n\r\n")? + 2;
    let (before, after) = expected.split_at(head);
    if let Some(rest) = got.strip_prefix(before)
        && let Some(added) = rest.strip_suffix(after)
    {
        return added
            .split(|&byte| byte == b'\n')
            .all(is_cpm_line)
            .then_some(added);
    }
    // The lines may stand elsewhere in the header block.
    let got_head = memmem::find(got, b"\r\n\r\n")? + 2;
    if &got[got_head..] != after {
        return None;
    }
    let own = |line: &&[u8]| !is_cpm_line(line) || line.is_empty();
    let lines = got[..got_head].split(|&byte| byte == b'\n').filter(own);
    lines
        .eq(before.split(|&byte| byte == b'\n'))
        .then_some(&got[..got_head])
}

fn is_cpm_line(line: &[u8]) -> bool {
    line.is_empty() || line.starts_with(b"cpm.") || line.starts_with(b"NS: cpm <")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_added_cpm_lines_and_nothing_else() {
        let expected = b"From: <a>\r\nTo: <b>\r\n\r\nContent-Type: text/plain\r\n\r\nhello";
        let with = |lines: &str| {
            format!("From: <a>\r\nTo: <b>\r\n{lines}\r\nContent-Type: text/plain\r\n\r\nhello")
        };
        let good = with("NS: cpm <http://x/>\r\ncpm.Conversation-ID: 1\r\n");
        assert!(compare_cpim(expected, good.as_bytes()).is_some());
        assert!(compare_cpim(expected, expected).is_some());
        assert!(compare_cpim(expected, with("Subject: x\r\n").as_bytes()).is_none());
        let first = format!("cpm.Conversation-ID: 1\r\n{}", with(""));
        assert!(compare_cpim(expected, first.as_bytes()).is_some());
        let cut = &good.as_bytes()[..good.len() - 1];
        assert!(compare_cpim(expected, cut).is_none());
        assert!(compare_cpim(expected, good.replace("hello", "hellp").as_bytes()).is_none());
    }
}
