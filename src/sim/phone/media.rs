//! Messages over MSRP: a device binds or is bound, takes chunks, reports, or gets into trouble.

use core::time::Duration;

use super::{Call, CallState, Plan, Reports, Trouble};
use crate::base::surface::LinkKind;
use crate::sim::host::{deposit_mark, msrp_address};
use crate::sim::net::{ConnId, Note, Timer};
use crate::sim::options::MSRP_PORT;
use crate::sim::text::{Msrp, port_of, session_of};
use crate::sim::world::World;

impl World {
    /// An active device connects and binds.
    pub(in crate::sim) fn connect_msrp(&mut self, at: usize) {
        let call = &self.calls[at];
        if call.dead || !matches!(call.state, CallState::Answered | CallState::Confirmed) {
            return;
        }
        let port = port_of(call.peer_path.split(";tcp").next().unwrap_or_default());
        let host = call.peer_path.trim_start_matches("msrp://");
        let host = host.split('/').next().unwrap_or_default();
        let port = port_of(host).or(port).unwrap_or(MSRP_PORT);
        let shard = u8::try_from(port - MSRP_PORT)
            .unwrap_or(0)
            .min(self.shards() - 1);
        if self.seats[usize::from(shard)].core.is_none() {
            return;
        }
        let mut peer = self.phones[call.phone].address;
        peer.set_port(30_000 + u16::try_from(at % 10_000).expect("small"));
        let ends = (peer, msrp_address(shard));
        let conn = self
            .net
            .connect((shard, self.epoch), LinkKind::MsrpInbound, None, ends);
        let (path, own) = (self.calls[at].peer_path.clone(), self.own_path(at));
        let tid = self.next_tid(at);
        let bind = format!(
            "MSRP {tid} SEND\r\nTo-Path: {path}\r\nFrom-Path: {own}\r\nMessage-ID: bind{at}\r\n\
             Byte-Range: 1-0/0\r\n-------{tid}$\r\n"
        );
        self.calls[at].conn = Some(conn);
        self.net.stream_to_engine(conn, bind.as_bytes(), None);
    }

    fn own_path(&self, at: usize) -> String {
        let call = &self.calls[at];
        format!(
            "msrp://{}/{};tcp",
            self.phones[call.phone].address, call.session
        )
    }

    fn next_tid(&mut self, at: usize) -> String {
        self.calls[at].tids += 1;
        format!("ue{at:06}n{:06}", self.calls[at].tids)
    }

    pub(in crate::sim) fn phone_closed(&mut self, conn: ConnId) {
        for call in self.calls.iter_mut().filter(|call| call.conn == Some(conn)) {
            call.conn = None;
        }
    }

    /// A frame of the engine has come.
    pub(in crate::sim) fn phone_frame(&mut self, conn: ConnId, frame: &Msrp) {
        if self.net.conns[conn].dead || self.net.conns[conn].peer_gone {
            return;
        }
        let found = self.sessions.get(frame.session()).copied();
        let live = found.filter(|&at| {
            let call = &self.calls[at];
            !call.dead && call.state != CallState::Over
        });
        if frame.status > 0 || frame.method != "SEND" {
            return;
        }
        let Some(at) = live else {
            if !found.is_some_and(|at| self.calls[at].dead) {
                self.net.stream_to_engine(conn, &frame.answer(481), None);
            }
            return;
        };
        self.calls[at].conn = Some(conn);
        if session_of(frame.need("From-Path")) != session_of(&self.calls[at].peer_path) {
            let now = self.net.now;
            return self
                .ledger
                .violation(now, "a SEND from another session than was offered");
        }
        let Some(body) = frame.body.as_ref() else {
            self.net.mark("engine/bind-sent");
            return self.net.stream_to_engine(conn, &frame.answer(200), None);
        };
        self.calls[at].frames += 1;
        if self.trouble_strikes(at, conn, frame) {
            return;
        }
        self.net.stream_to_engine(conn, &frame.answer(200), None);
        self.take_chunk(at, frame, body);
    }

    /// Whether the plan's trouble swallowed the frame.
    fn trouble_strikes(&mut self, at: usize, conn: ConnId, frame: &Msrp) -> bool {
        let call = &self.calls[at];
        let (trouble, frames, healed) = (call.trouble(), call.frames, self.net.healed);
        let letter = deposit_mark(frame.body.as_deref().unwrap_or_default());
        let phone = call.phone;
        match trouble {
            _ if healed => return false,
            Trouble::Cut if frames == 2 => {
                self.net.mark("trouble/cut");
                self.net.reset(conn);
            }
            Trouble::Die if frames == 2 => self.die(at),
            Trouble::HangUp if frames == 1 => {
                self.net.after(Duration::from_millis(30), Timer::HangUp(at));
                return false;
            }
            Trouble::HalfReport if frame.flag == b'+' => {
                self.net.mark("trouble/half-report");
                let range = frame.range().unwrap_or((1, 1, 1));
                self.net.stream_to_engine(conn, &frame.answer(200), None);
                for _ in 0..8 {
                    let tid = self.next_tid(at);
                    self.net
                        .stream_to_engine(conn, &frame.report(&tid, range, 200), None);
                }
                self.net.close_by_peer(conn);
                self.calls[at].conn = None;
            }
            Trouble::Mute if frames >= 2 => self.net.mark("trouble/mute"),
            Trouble::TooLarge if frame.flag == b'$' && letter.is_some() => {
                self.net.mark("trouble/413");
                let letter = &mut self.ledger.letters[letter.unwrap_or(0)];
                letter.receipts.entry(phone).or_default().refused = true;
                self.net.stream_to_engine(conn, &frame.answer(413), None);
            }
            Trouble::Unknown => {
                self.net.mark("trouble/481");
                self.net.stream_to_engine(conn, &frame.answer(481), None);
            }
            Trouble::Cut
            | Trouble::Die
            | Trouble::HalfReport
            | Trouble::HangUp
            | Trouble::Mute
            | Trouble::NeverBind
            | Trouble::NoRefresh
            | Trouble::None
            | Trouble::RefuseConnect
            | Trouble::TooLarge => return false,
        }
        true
    }

    fn take_chunk(&mut self, at: usize, frame: &Msrp, body: &[u8]) {
        let now = self.net.now;
        let message_id = frame.need("Message-ID").to_owned();
        let Some((start, end, total)) = frame.range() else {
            return self
                .ledger
                .violation(now, "a SEND without a usable Byte-Range");
        };
        if start == 0 || end + 1 != start + body.len() || end > total || body.len() > 2048 {
            return self
                .ledger
                .violation(now, "a Byte-Range that does not fit its chunk");
        }
        if (end == total) != (frame.flag == b'$') {
            return self
                .ledger
                .violation(now, "a continuation flag that does not fit");
        }
        let part = self.calls[at].parts.entry(message_id.clone()).or_default();
        part.body.resize(total, 0);
        part.have.resize(total, false);
        part.body[start - 1..end].copy_from_slice(body);
        part.have[start - 1..end].fill(true);
        if !part.have.iter().all(|&have| have) {
            self.net.mark("peer/chunked");
            return;
        }
        let part = self.calls[at].parts.remove(&message_id).unwrap_or_default();
        self.take_message(at, frame, &message_id, &part.body);
    }

    fn take_message(&mut self, at: usize, frame: &Msrp, message_id: &str, body: &[u8]) {
        let (now, phone) = (self.net.now, self.calls[at].phone);
        let letter = deposit_mark(body).filter(|&letter| {
            let letter = &self.ledger.letters[letter];
            letter.user == self.phones[phone].user && body.ends_with(letter.text.as_bytes())
        });
        let Some(letter) = letter else {
            return self
                .ledger
                .violation(now, "a message that nobody sent to this user");
        };
        self.net
            .note(|| format!("device {phone} has message {letter}"));
        self.ledger
            .received(now, (letter, phone), message_id, self.epoch);
        let total = body.len();
        let half = total / 2;
        let mut reports = Reports::Whole;
        if let Plan::Answer {
            reports: planned, ..
        } = self.calls[at].plan
        {
            reports = planned;
        }
        let ranges = match reports {
            Reports::None => {
                self.net.mark("peer/no-report");
                return;
            }
            Reports::Pieces => {
                self.net.mark("peer/report-pieces");
                vec![(half + 1, total), (1, half)]
            }
            Reports::Whole => vec![(1, total)],
        };
        let wait = Duration::from_millis(self.phones[phone].dice.below(300));
        let paths = (
            frame.need("From-Path").to_owned(),
            frame.need("To-Path").to_owned(),
            message_id.to_owned(),
        );
        self.net
            .after(wait, Timer::Report(at, letter, ranges, Box::new(paths)));
    }

    /// Reports on ranges, one frame each; the last completes the evidence.
    pub(in crate::sim) fn send_reports(
        &mut self,
        at: usize,
        letter: usize,
        ranges: &[(usize, usize)],
        (to, from, message_id): &(String, String, String),
    ) {
        let call = &self.calls[at];
        let Some(conn) = call.conn else { return };
        if call.dead || call.state == CallState::Over {
            return;
        }
        let total = ranges.iter().map(|&(_, end)| end).max().unwrap_or(0);
        for (index, &(start, end)) in ranges.iter().enumerate() {
            let tid = self.next_tid(at);
            let stub = Msrp {
                tid: String::new(),
                method: String::new(),
                status: 0,
                headers: vec![
                    ("From-Path".into(), to.clone()),
                    ("To-Path".into(), from.clone()),
                    ("Message-ID".into(), message_id.clone()),
                ],
                body: None,
                flag: b'$',
            };
            let last = index + 1 == ranges.len();
            let note = last.then_some(Note::Evidence {
                call: at,
                message: letter,
            });
            let bytes = stub.report(&tid, (start, end, total), 200);
            self.net.stream_to_engine(conn, &bytes, note);
        }
    }
}

impl Call {
    const fn trouble(&self) -> Trouble {
        match self.plan {
            Plan::Answer { trouble, .. } => trouble,
            Plan::BadAnswer
            | Plan::Fork
            | Plan::Glare
            | Plan::Late(_)
            | Plan::NoContact
            | Plan::Refuse(..)
            | Plan::Ring
            | Plan::Silent
            | Plan::TooSmall => Trouble::None,
        }
    }
}
