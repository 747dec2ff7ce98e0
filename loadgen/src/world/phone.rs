//! Phones: the answering side of a push.

use super::{Call, Device, World, bench, device_key, put_head};
use crate::behaviour::{Behaviour, Leaver, Refresher};
use crate::check::dialog::{Dialog, phone_tag};
use crate::check::invite::{InviteCheck, Push};
use crate::forms::Answer;
use crate::ledger::NONE;
use crate::link::{LinkId, Protocol};
use crate::rules::Rule;
use crate::scan::{Header, Message};
use crate::stats::Stage;

/// How long a phone waits for the engine to close the connection of a session that is over.
const LEAVE_MS: f64 = 4000.0;

impl World {
    /// A push INVITE.
    pub(super) fn invite(&mut self, link: LinkId, message: &Message<'_>) {
        let judged = self.sample();
        if self.hop_takes(link, message) {
            return;
        }
        if let Some(index) = self.repeated(message) {
            return self.answer_again(link, message, index);
        }
        let retries = self.retries(link, message);
        let read = if judged {
            self.invites.retry = retries;
            let mut bench = bench(&mut self.violations, message);
            self.invites.check(&self.names, message, &mut bench)
        } else {
            InviteCheck::read(&self.names, message)
        };
        let Some((push, index)) =
            read.and_then(|push| Some((push, self.device_index(push.user, push.device)?)))
        else {
            self.counters.strays += 1;
            self.reply(link, message, b"404 Not Found", Some(b"ph-none"), b"");
            return;
        };
        self.counters.invites += 1;
        let dialog = self.dialog_from(&push);
        if judged && retries {
            self.judge_retry(message, index, &dialog);
        }
        if judged && !retries {
            self.judge_trigger(push.user, index, message.bytes);
        }
        let free = self.is_free(link, index, message);
        let hold = self.holds_sessions();
        let refresher = self.draw_refresher(push.user, push.device, self.devices[index].nth + 1);
        let user = &self.users[push.user as usize];
        let oldest = self.ledger.oldest_for(&user.queue, push.device);
        let device = &mut self.devices[index];
        if judged {
            let mut bench = bench(&mut self.violations, message);
            bench.demand(free || retries, Rule::Rsp31, "a second push to one device");
            let wanted = user.registered && oldest.is_some();
            bench.demand(
                wanted,
                Rule::Reg5,
                "push to a device that has nothing queued",
            );
            if let (Some(named), Some(oldest)) = (push.first_message, oldest) {
                let first = named == u64::from(oldest);
                bench.demand(
                    first,
                    Rule::PushI,
                    "not the oldest queued message's identifiers",
                );
            }
        }
        let named_oldest = oldest.is_some() && push.first_message == oldest.map(u64::from);
        // The INVITE shows that the engine has the message. When phones accept, that counts for tries
        // nobody waits for, and until their BYE.
        let counts = !self.accepting || !device.pending;
        device.holds = counts && (named_oldest || !judged);
        device.excused = false;
        device.behaviour = if retries {
            Behaviour::Answer
        } else {
            device.nth += 1;
            self.setup
                .mix
                .draw(device_key(&self.names, push.user, push.device), device.nth)
        };
        device.refresher = if hold { refresher } else { Refresher::Engine };
        device.dialog = dialog;
        device.call = Call::Answered;
        device.fed = false;
        device.judged = judged;
        device.owed = user.accepted;
        device.answered_at = self.now;
        if device.pending {
            let (due, sent) = (device.trigger_due, device.trigger_sent);
            self.latencies.record(Stage::TriggerToInvite, due, self.now);
            self.latencies
                .record(Stage::TriggerToInviteFromSend, sent, self.now);
            self.timeline.latency(due, self.now.saturating_sub(due));
            if core::mem::take(&mut self.users[push.user as usize].lane) {
                self.director.lane_done();
                self.latencies
                    .record(Stage::TriggerToInviteUncorrected, sent, self.now);
            }
        }
        let answer = if self.accepting {
            self.setup.phone.answer(push.device)
        } else {
            Answer::Declined
        };
        if answer == Answer::Active {
            self.active_paths.insert(index, push.path.into());
        }
        self.session_begins(message, index);
        self.behave(link, message, (push.user, push.device, index), answer);
    }

    /// The dialog that an INVITE begins, by the hashes of its identifiers.
    pub(super) fn dialog_from(&mut self, push: &Push<'_>) -> Dialog {
        let [call_id, from_tag, branch, _, path] = push.hashes.unwrap_or_else(|| {
            let of = |salt, bytes| self.hasher.hash(salt, bytes);
            [
                of(1, push.call_id),
                of(2, push.from_tag),
                of(3, push.branch),
                0,
                of(5, push.path),
            ]
        });
        Dialog {
            call_id,
            from_tag,
            branch,
            ack_branch: 0,
            path,
            invite_cseq: push.cseq,
            last_cseq: push.cseq,
            serial: self.next_serial(),
            ack_link: 0,
        }
    }

    /// Behind bad hops an INVITE after a 422 may be lost, and the next one a new push.
    fn forget_retry(&mut self, message: &Message<'_>) {
        if !self.has_bad_hops() {
            return;
        }
        let call_id = message.value(Header::CallId).unwrap_or(&[]);
        let call_id = self.hasher.hash(1, call_id);
        if let Some((user, device, _)) = self.names.read_gruu(message.target)
            && let Some(index) = self.device_index(user, device)
        {
            let device = &mut self.devices[index];
            if device.call == Call::Retry && device.dialog.call_id != call_id {
                device.call = Call::Idle;
            }
        }
    }

    /// Whether an INVITE is the one after a 422. If not, it is a new request to its hop.
    fn retries(&mut self, link: LinkId, message: &Message<'_>) -> bool {
        self.forget_retry(message);
        let retries = self.expects_retry(message);
        if !retries {
            self.judge_rate(link, message.bytes);
        }
        retries
    }

    /// Whether an INVITE is for a device that refused the last one with 422.
    fn expects_retry(&self, message: &Message<'_>) -> bool {
        let retry = || {
            let (user, device, _) = self.names.read_gruu(message.target)?;
            let index = self.device_index(user, device)?;
            Some(self.devices[index].call == Call::Retry)
        };
        !self.setup.mix.is_only(Behaviour::Answer) && retry().unwrap_or(false)
    }

    /// Does with an INVITE what the phone is to do with it.
    fn behave(
        &mut self,
        link: LinkId,
        message: &Message<'_>,
        whose: (u32, u8, usize),
        answer: Answer,
    ) {
        let (user, number, index) = whose;
        let (serial, behaviour) = {
            let device = &self.devices[index];
            (device.dialog.serial, device.behaviour)
        };
        if let Some(refusal) = behaviour.refusal() {
            self.active_paths.remove(&index);
            return self.refuse(link, message, index, refusal);
        }
        match behaviour {
            Behaviour::Silent => {
                self.devices[index].call = Call::Ringing;
                self.active_paths.remove(&index);
                self.reply(link, message, b"100 Trying", None, b"");
            }
            Behaviour::Ring | Behaviour::Late => {
                self.devices[index].call = Call::Ringing;
                self.reply(link, message, b"100 Trying", None, b"");
                let (mut ms, tag) = (self.setup.late_ms, phone_tag(serial));
                if behaviour == Behaviour::Ring {
                    self.reply(link, message, b"180 Ringing", Some(&tag), b"");
                    ms = self.setup.ring_ms;
                }
                let refresher = self.devices[index].refresher;
                let mut bytes = Vec::with_capacity(2048);
                put_head(&mut bytes, message, b"200 OK", Some(&tag));
                let digits = self.forms.digits(user).device(number).serial(serial);
                self.forms
                    .put_answer(answer, refresher, &digits, &mut bytes);
                self.later(super::mood::Kind::Answer, ms, link, index, bytes);
            }
            Behaviour::Fork => {
                self.reply(
                    link,
                    message,
                    b"183 Session Progress",
                    Some(b"fk-other"),
                    b"",
                );
                self.answer(link, message, (user, number), answer, serial);
            }
            Behaviour::HangUp => {
                self.phone_bye(message, whose);
                self.answer(link, message, (user, number), answer, serial);
            }
            Behaviour::Answer
            | Behaviour::Absent
            | Behaviour::Busy
            | Behaviour::Decline
            | Behaviour::NotAcceptable
            | Behaviour::TooSmall
            | Behaviour::Unavailable => {
                self.answer(link, message, (user, number), answer, serial);
            }
        }
    }

    /// The device that has this very INVITE in progress: a retransmission.
    fn repeated(&self, message: &Message<'_>) -> Option<usize> {
        if !self.remembers() {
            return None;
        }
        let push = InviteCheck::read(&self.names, message)?;
        let index = self.device_index(push.user, push.device)?;
        let dialog = &self.devices[index].dialog;
        (dialog.branch == self.hasher.hash(3, push.branch)).then_some(index)
    }

    fn answer_again(&mut self, link: LinkId, message: &Message<'_>, index: usize) {
        self.counters.repeats += 1;
        let device = &self.devices[index];
        let serial = device.dialog.serial;
        match device.call {
            Call::Ringing if device.behaviour == Behaviour::Ring => {
                self.reply(link, message, b"180 Ringing", Some(&phone_tag(serial)), b"");
            }
            Call::Ringing => self.reply(link, message, b"100 Trying", None, b""),
            // The very answer, which is repeated until its ACK anyway.
            Call::Answered | Call::Refused => self.final_again(index),
            // RFC 6026 section 7.1: absorbed.
            Call::Confirmed | Call::Idle | Call::Retry => {}
        }
    }

    fn next_serial(&mut self) -> u32 {
        self.serial = (self.serial + 1) % 100_000_000;
        self.serial
    }

    /// Appends 100, 180 as configured, and the 200.
    fn answer(
        &mut self,
        link: LinkId,
        message: &Message<'_>,
        (user, device): (u32, u8),
        answer: Answer,
        serial: u32,
    ) {
        let tag = phone_tag(serial);
        if self.setup.trying {
            self.reply(link, message, b"100 Trying", None, b"");
        }
        if self.setup.ringing {
            self.reply(link, message, b"180 Ringing", Some(&tag), b"");
        }
        let index = self.device_index(user, device).unwrap_or(0);
        let refresher = self.devices[index].refresher;
        let out = self.outbox.buffer(link);
        let start = out.len();
        put_head(out, message, b"200 OK", Some(&tag));
        let digits = self.forms.digits(user).device(device).serial(serial);
        self.forms.put_answer(answer, refresher, &digits, out);
        self.accepted_sent(link, index, start);
    }

    /// The device an in-dialog request is for, by the Contact of our 2xx; complains when it is not.
    fn dialog_of(&mut self, message: &Message<'_>) -> Option<(u32, u8, usize)> {
        let exact = self.names.read_contact(message.target);
        let found = exact.or_else(|| {
            let (user, device) = self.names.guess_device(message.target)?;
            Some((user, device?))
        });
        let found =
            found.and_then(|(user, device)| Some((user, device, self.device_index(user, device)?)));
        let judged = found.is_none_or(|(_, _, index)| self.devices[index].judged);
        if exact.is_none() && judged {
            self.violations.record(
                Rule::Ok2,
                "R-URI is not the Contact of the 2xx",
                message.bytes,
            );
        }
        found
    }

    /// Whether a request is of the dialog that a device had last.
    pub(super) fn is_of_call(&self, message: &Message<'_>, index: usize) -> bool {
        message.value(Header::CallId).is_some_and(|call_id| {
            self.hasher.hash(1, call_id) == self.devices[index].dialog.call_id
        })
    }

    /// ACK to our 2xx.
    pub(super) fn ack(&mut self, link: LinkId, message: &Message<'_>) {
        if self.hop_acknowledged(message) {
            return;
        }
        self.counters.acks += 1;
        if let Some((user, number, _)) = self.names.read_gruu(message.target)
            && let Some(index) = self.device_index(user, number)
            && matches!(self.devices[index].call, Call::Refused | Call::Retry)
        {
            if self.devices[index].call == Call::Refused {
                self.ack_refusal(message, (user, number, index));
            }
            return;
        }
        let Some((user, device_number, index)) = self.dialog_of(message) else {
            self.counters.strays += 1;
            return;
        };
        let again = self.acknowledges_again(message);
        if again && !self.is_of_call(message, index) {
            // To a 2xx that was sent again, behind the end of its push.
            self.counters.repeats += 1;
            return;
        }
        if self.crossed_ack(message, index) {
            return;
        }
        let repeated = again || self.remembers() && self.is_of_call(message, index);
        let device = &mut self.devices[index];
        if device.judged {
            let mut bench = bench(&mut self.violations, message);
            if device.call == Call::Idle && repeated {
                self.counters.repeats += 1;
            } else if device.call == Call::Idle {
                bench.fail(Rule::Dlg6, "ACK without a dialog");
            } else {
                self.dialogs.ack(message, &mut device.dialog, &mut bench);
            }
        }
        if device.call != Call::Answered {
            return;
        }
        device.call = Call::Confirmed;
        device.dialog.ack_link = link;
        let answered_at = device.answered_at;
        self.latencies
            .record(Stage::AnswerToAck, answered_at, self.now);
        self.final_acknowledged(index);
        if self.holds_sessions() {
            self.session_stands(index);
        }
        if self.active_paths.contains_key(&index) {
            self.open_media(user, device_number, index);
        }
    }

    /// BYE: the end of a push.
    pub(super) fn bye(&mut self, link: LinkId, message: &Message<'_>) {
        let Some((user, device_number, index)) = self.dialog_of(message) else {
            self.counters.strays += 1;
            self.reply(
                link,
                message,
                b"481 Call/Transaction Does Not Exist",
                None,
                b"",
            );
            return;
        };
        if self.crossed_bye(link, message, (user, device_number, index)) {
            return;
        }
        let unordered = self.is_out_of_order() || self.is_cut_off(index);
        let (remembers, again) = (self.remembers(), self.comes_again(message));
        self.excuse_broken(index);
        let same_call = self.is_of_call(message, index);
        let unsent = self.leaves_unsent(&self.devices[index], (user, device_number));
        let device = &mut self.devices[index];
        if device.call == Call::Idle || again && !same_call {
            let repeated = again || same_call && remembers;
            if repeated {
                self.counters.repeats += 1;
            } else {
                self.violations
                    .record(Rule::Dlg6, "BYE without a dialog", message.bytes);
            }
            let status: &[u8] = if repeated {
                b"200 OK"
            } else {
                b"481 Call/Transaction Does Not Exist"
            };
            self.reply(link, message, status, None, b"");
            return;
        }
        self.counters.byes += 1;
        if device.judged {
            let mut bench = bench(&mut self.violations, message);
            let confirmed = device.call == Call::Confirmed || unordered;
            bench.demand(confirmed, Rule::Dlg8, "BYE before the ACK");
            self.dialogs.bye(message, &mut device.dialog, &mut bench);
            bench.demand(
                !unsent,
                Rule::Ok3,
                "BYE before every queued message was sent",
            );
        }
        if !same_call && !device.judged {
            self.counters.strays += 1;
        }
        // An engine that ends the session had the 2xx: it is not repeated for an ACK that got lost.
        let settled = same_call.then_some(device.dialog.serial);
        device.call = Call::Idle;
        device.holds &= !self.accepting || device.excused;
        self.judge_end(index, message.bytes);
        self.counters.pushes += 1;
        self.reply(link, message, b"200 OK", None, b"");
        if let Some(serial) = settled {
            self.final_settled(serial);
        }
        self.leave_media(index);
        self.push_done(user, device_number, index);
    }

    /// Whether a session of `device`, as it is or was, ends before all was sent that waited when it began.
    pub(super) fn leaves_unsent(&self, device: &Device, (user, number): (u32, u8)) -> bool {
        self.accepting
            && device.judged
            && !device.excused
            && device.owed != NONE
            && self
                .ledger
                .oldest_for(&self.users[user as usize].queue, number)
                .is_some_and(|left| left <= device.owed)
    }

    /// UPDATE: a refresh of the session.
    pub(super) fn update(&mut self, link: LinkId, message: &Message<'_>) {
        self.counters.updates += 1;
        let Some((_, _, index)) = self.dialog_of(message) else {
            self.reply(
                link,
                message,
                b"481 Call/Transaction Does Not Exist",
                None,
                b"",
            );
            return;
        };
        let crossed = self.hung_up_just_now(index);
        let device = &mut self.devices[index];
        if device.call == Call::Idle {
            if crossed {
                self.counters.updates_crossed += 1;
            } else {
                self.violations
                    .record(Rule::Dlg6, "UPDATE without a dialog", message.bytes);
            }
            self.reply(
                link,
                message,
                b"481 Call/Transaction Does Not Exist",
                None,
                b"",
            );
            return;
        }
        if device.judged {
            let mut bench = bench(&mut self.violations, message);
            self.dialogs.update(message, &mut device.dialog, &mut bench);
            self.judge_refresh(index, message.bytes);
        }
        let mut tail = b"Contact: <".to_vec();
        tail.extend_from_slice(message.target);
        tail.extend_from_slice(
            b">\r\nAllow: INVITE, ACK, CANCEL, BYE, UPDATE, MESSAGE\r\nSupported: timer\r\n\
              Require: timer\r\nSession-Expires: ",
        );
        crate::identity::put_plain(u64::from(self.setup.session_expires_s), &mut tail);
        tail.extend_from_slice(b";refresher=uac\r\n");
        self.reply(link, message, b"200 OK", None, &tail);
    }

    /// CANCEL: the 200 to the INVITE has left already, so only the CANCEL is answered.
    pub(super) fn cancel(&mut self, link: LinkId, message: &Message<'_>) {
        self.counters.cancels += 1;
        let found = self
            .names
            .read_gruu(message.target)
            .and_then(|(user, device, _)| self.device_index(user, device));
        let ringing = found.filter(|&index| self.devices[index].call == Call::Ringing);
        match found {
            Some(index) if self.devices[index].judged => {
                let mut bench = bench(&mut self.violations, message);
                self.dialogs
                    .cancel(message, &self.devices[index].dialog, &mut bench);
            }
            Some(_) => {}
            None => {
                self.violations
                    .record(Rule::Tx13, "R-URI is not the INVITE's", message.bytes);
            }
        }
        self.reply(link, message, b"200 OK", Some(b"ph-cancel"), b"");
        if let Some(index) = ringing {
            self.terminate(link, message, index);
        }
    }

    /// A push ended: whoever waits for it goes on.
    fn push_done(&mut self, user: u32, device_number: u8, index: usize) {
        let queue = &self.users[user as usize].queue;
        let left = self.ledger.oldest_for(queue, device_number).is_some();
        let device = &mut self.devices[index];
        // With a message left that came after the INVITE, another push is to follow.
        if !device.pending || (self.accepting && left && !device.excused) {
            return;
        }
        self.push_over(user, device_number, index);
    }

    /// Nobody waits for this device's push any more.
    pub(super) fn push_over(&mut self, user: u32, _device_number: u8, index: usize) {
        let device = &mut self.devices[index];
        if !device.pending {
            return;
        }
        device.pending = false;
        let entry = &mut self.users[user as usize];
        entry.open = entry.open.saturating_sub(1);
        if entry.open == 0 {
            self.director.completed(user);
        }
    }

    /// The phone connects to the engine (`setup:active`).
    fn open_media(&mut self, user: u32, device: u8, index: usize) {
        let Some(path) = self.active_paths.remove(&index) else {
            return;
        };
        let address = path
            .strip_prefix(b"msrp://")
            .and_then(|rest| core::str::from_utf8(rest.split(|&byte| byte == b'/').next()?).ok())
            .and_then(|address| address.parse().ok());
        let Some(address) = address else {
            self.violations.record(
                Rule::Sdp4,
                "path has no numeric address to connect to",
                &path,
            );
            return;
        };
        // That of the last session may not be closed yet.
        self.close_media(index);
        let media = self.outbox.connect(Protocol::Msrp, address);
        self.outbox.link(media).device = index as u32 + 1;
        self.devices[index].media = media + 1;
        self.counters.msrp_opened += 1;
        let serial = self.devices[index].dialog.serial;
        self.bind(media, &path, user, device, serial);
    }

    /// The session is over: the phone closes its connection, or waits for the engine to, unless that takes long.
    pub(super) fn leave_media(&mut self, index: usize) {
        let Device { media, nth, .. } = self.devices[index];
        if media == 0 {
            return;
        }
        if self.setup.leavers.draw(index, nth) == Leaver::Close {
            self.close_media(index);
        } else {
            let kind = super::mood::Kind::Close;
            self.later(kind, LEAVE_MS, media - 1, index, Vec::new());
        }
    }

    pub(super) fn close_media(&mut self, index: usize) {
        let media = self.devices[index].media;
        if media != 0 {
            self.devices[index].media = 0;
            self.outbox.closes.push(media - 1);
        }
    }
}
