//! A tiny scripted push engine: enough of the real one to be judged, and able to misbehave on
//! purpose. One thread, plain sockets, no shortcut around the wire.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How the engine misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Not at all.
    None,
    /// Does not send the first message of user 0 and says BYE.
    Lose,
    /// Sends every message twice.
    Duplicate,
    /// Changes one octet of the body.
    Corrupt,
    /// Sends ACK and BYE to the old Request-URI.
    OldTarget,
    /// Never sends the first ACK.
    NoAck,
    /// Answers a MESSAGE with 200 instead of 202.
    PlainAnswer,
    /// Leaves `automata` out of the Contact.
    NoAutomata,
    /// Accepts messages and never pushes.
    Silent,
    /// Lets sessions stand.
    Linger,
    /// Lets sessions stand and knows nothing of them when the phone hangs up.
    LingerDeaf,
    /// Lets sessions stand and answers no BYE.
    LingerMute,
    /// Lets sessions stand; a refresh of each arrives behind the answer to the phone's BYE.
    LingerCross,
}

impl Fault {
    fn lingers(self) -> bool {
        matches!(
            self,
            Self::Linger | Self::LingerDeaf | Self::LingerMute | Self::LingerCross
        )
    }
}

const ICSI: &str = "urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.deferred";

/// A running engine; it stops when dropped.
pub(crate) struct Engine {
    pub(crate) address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    pub(crate) fn start(fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let media = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        media.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut state = State {
                fault,
                address,
                media: media.local_addr().unwrap(),
                ..State::default()
            };
            while !stopped.load(Ordering::Relaxed) {
                state.turn(&listener, &media);
            }
        });
        Self {
            address,
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sip,
    Media,
}

struct Conn {
    stream: TcpStream,
    kind: Kind,
    input: Vec<u8>,
    output: Vec<u8>,
    dead: bool,
}

#[derive(Clone)]
struct Stored {
    cpim: String,
    conversation: String,
    contribution: String,
    done: BTreeSet<String>,
}

struct Push {
    invite: String,
    /// Its S-CSCF.
    conn: usize,
    cseq: u32,
    user: String,
    gruu: String,
    from_tag: String,
    path: String,
    /// Filled by the 200.
    contact: String,
    to: String,
    routes: Vec<String>,
    peer_path: String,
    waiting: usize,
    declined: bool,
}

struct State {
    fault: Fault,
    address: SocketAddr,
    media: SocketAddr,
    conns: Vec<Conn>,
    /// Connections to S-CSCFs by address: each gets the INVITEs of its users.
    scscf: BTreeMap<String, usize>,
    shared_media: BTreeMap<SocketAddr, usize>,
    mail: BTreeMap<String, Vec<Stored>>,
    /// GRUUs and S-CSCF of users seen registered.
    online: BTreeMap<String, (Vec<String>, String)>,
    /// Devices with a push going on.
    busy: BTreeSet<String>,
    /// Devices whose binding was shown again meanwhile.
    again: BTreeSet<String>,
    pushes: BTreeMap<String, Push>,
    /// Call-ID by our MSRP session id.
    sessions: BTreeMap<String, String>,
    counter: u64,
    lost: bool,
    acks_withheld: u32,
}

impl Default for State {
    fn default() -> Self {
        let any: SocketAddr = "127.0.0.1:1".parse().unwrap();
        Self {
            fault: Fault::None,
            address: any,
            media: any,
            conns: Vec::new(),
            scscf: BTreeMap::new(),
            shared_media: BTreeMap::new(),
            mail: BTreeMap::new(),
            online: BTreeMap::new(),
            busy: BTreeSet::new(),
            again: BTreeSet::new(),
            pushes: BTreeMap::new(),
            sessions: BTreeMap::new(),
            counter: 0,
            lost: false,
            acks_withheld: 0,
        }
    }
}

fn header<'a>(message: &'a str, name: &str) -> &'a str {
    let key = format!("\r\n{name}: ");
    message.find(&key).map_or("", |at| {
        let rest = &message[at + key.len()..];
        &rest[..rest.find('\r').unwrap_or(rest.len())]
    })
}

fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    text.find(from).map_or("", |at| {
        let rest = &text[at + from.len()..];
        &rest[..rest.find(to).unwrap_or(rest.len())]
    })
}

impl State {
    fn turn(&mut self, listener: &TcpListener, media: &TcpListener) {
        let mut busy = false;
        while let Ok((stream, _)) = listener.accept() {
            self.add(stream, Kind::Sip);
            busy = true;
        }
        while let Ok((stream, _)) = media.accept() {
            self.add(stream, Kind::Media);
            busy = true;
        }
        let mut chunk = vec![0u8; 256 * 1024];
        for index in 0..self.conns.len() {
            if self.conns[index].dead {
                continue;
            }
            match self.conns[index].stream.read(&mut chunk) {
                Ok(0) => self.conns[index].dead = true,
                Ok(count) => {
                    busy = true;
                    self.conns[index].input.extend_from_slice(&chunk[..count]);
                    self.frames(index);
                }
                Err(_) => {}
            }
        }
        for conn in &mut self.conns {
            if conn.output.is_empty() || conn.dead {
                continue;
            }
            busy = true;
            match conn.stream.write(&conn.output) {
                Ok(count) => {
                    conn.output.drain(..count);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => conn.dead = true,
            }
        }
        if !busy {
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    fn add(&mut self, stream: TcpStream, kind: Kind) -> usize {
        stream.set_nonblocking(true).unwrap();
        stream.set_nodelay(true).unwrap();
        let (input, output) = (Vec::new(), Vec::new());
        self.conns.push(Conn {
            stream,
            kind,
            input,
            output,
            dead: false,
        });
        self.conns.len() - 1
    }

    fn put(&mut self, conn: usize, text: &str) {
        self.conns[conn].output.extend_from_slice(text.as_bytes());
    }

    fn frames(&mut self, index: usize) {
        let input = std::mem::take(&mut self.conns[index].input);
        let mut at = 0;
        while at < input.len() {
            let rest = &input[at..];
            let length = match self.conns[index].kind {
                Kind::Sip => sip_length(rest),
                Kind::Media => media_length(rest),
            };
            let Some(length) = length.filter(|&length| length <= rest.len()) else {
                break;
            };
            let text = String::from_utf8_lossy(&rest[..length]).into_owned();
            match self.conns[index].kind {
                Kind::Sip => self.sip(index, &text),
                Kind::Media => self.msrp(index, &text),
            }
            at += length;
        }
        self.conns[index].input = input[at..].to_vec();
    }

    fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    fn sip(&mut self, conn: usize, text: &str) {
        let first = &text[..text.find('\r').unwrap_or(0)];
        if first.starts_with("MESSAGE") {
            self.deposit(conn, text);
        } else if first.starts_with("REGISTER") {
            let contact = header(text, "Contact").to_owned();
            let extra = format!("Contact: {contact};expires=600000\r\n");
            self.answer(conn, text, "200 OK", ";tag=pfr", &extra);
            self.subscribe(text);
        } else if first.starts_with("NOTIFY") {
            self.answer(conn, text, "200 OK", "", "");
            self.push_all(text);
        } else if first.starts_with("SIP/2.0 200") && header(text, "CSeq").ends_with("INVITE") {
            self.answered(text);
        } else if first.starts_with("SIP/2.0 200") && header(text, "CSeq").ends_with("BYE") {
            self.ended(header(text, "Call-ID"));
        } else if first.starts_with("BYE") {
            let call_id = header(text, "Call-ID").to_owned();
            let known = self
                .pushes
                .get_mut(&call_id)
                .map(|push| push.declined = true);
            if self.fault == Fault::LingerMute {
                return;
            }
            let status = match known {
                Some(()) if self.fault != Fault::LingerDeaf => "200 OK",
                _ => "481 Call/Transaction Does Not Exist",
            };
            self.answer(conn, text, status, "", "");
            if self.fault == Fault::LingerCross
                && let Some(push) = self.pushes.get_mut(&call_id)
            {
                // Behind the answer for sure.
                push.conn = conn;
                let timer = "Supported: timer\r\nSession-Expires: 1800;refresher=uac\r\n";
                self.in_dialog(&call_id, "UPDATE", 2, timer);
            }
            self.ended(&call_id);
        } else if header(text, "CSeq").ends_with("INVITE") && !first.starts_with("SIP/2.0 1") {
            self.refused(text);
        }
    }

    /// A refusal: ACK, and after 422 another try.
    fn refused(&mut self, text: &str) {
        let call_id = header(text, "Call-ID").to_owned();
        let Some(push) = self.pushes.get_mut(&call_id) else {
            return;
        };
        let invite = push.invite.clone();
        let head = &invite[..invite.find("\r\nContact: ").unwrap()];
        let ack = head
            .replacen("INVITE", "ACK", 1)
            .replace(" INVITE", " ACK")
            .replace(
                &format!("\r\nTo: {}", header(&invite, "To")),
                &format!("\r\nTo: {}", header(text, "To")),
            );
        push.declined = true;
        let again = text.starts_with("SIP/2.0 422") && push.cseq == 1;
        if again {
            push.declined = false;
            push.cseq = 2;
            push.invite = invite
                .replacen("z9hG4bK-i-", "z9hG4bK-r-", 1)
                .replace("CSeq: 1 INVITE", "CSeq: 2 INVITE")
                .replace(
                    "Expires: 1800;refresher=uac",
                    "Expires: 3600;refresher=uac\r\nMin-SE: 3600",
                );
        }
        let (retry, conn) = (push.invite.clone(), push.conn);
        self.put(conn, &format!("{ack}\r\nContent-Length: 0\r\n\r\n"));
        if again {
            self.put(conn, &retry);
        } else {
            self.ended(&call_id);
        }
    }

    fn ended(&mut self, call_id: &str) {
        let Some(push) = self.pushes.remove(call_id) else {
            return;
        };
        self.busy.remove(&push.gruu);
        if self.again.remove(&push.gruu) || !push.declined {
            self.push_user(&push.user);
        }
    }

    fn answer(&mut self, conn: usize, text: &str, status: &str, tag: &str, extra: &str) {
        let answer = format!(
            "SIP/2.0 {status}\r\nVia: {}\r\nFrom: {}\r\nTo: {}{tag}\r\nCall-ID: {}\r\nCSeq: {}\r\n\
             {extra}Content-Length: 0\r\n\r\n",
            header(text, "Via"),
            header(text, "From"),
            header(text, "To"),
            header(text, "Call-ID"),
            header(text, "CSeq"),
        );
        self.put(conn, &answer);
    }

    fn deposit(&mut self, conn: usize, text: &str) {
        let user = between(text, "MESSAGE ", " SIP/2.0").to_owned();
        let stored = Stored {
            cpim: text[text.find("\r\n\r\n").unwrap() + 4..].to_owned(),
            conversation: header(text, "Conversation-ID").to_owned(),
            contribution: header(text, "Contribution-ID").to_owned(),
            done: BTreeSet::new(),
        };
        self.mail.entry(user.clone()).or_default().push(stored);
        let status = if self.fault == Fault::PlainAnswer {
            "200 OK"
        } else {
            "202 Accepted"
        };
        self.answer(conn, text, status, ";tag=pfm", "");
        self.push_user(&user);
    }

    fn scscf(&mut self, via: &str) -> usize {
        let address = between(via, "SIP/2.0/TCP ", ";").to_owned();
        if let Some(&conn) = self.scscf.get(&address) {
            return conn;
        }
        let stream = TcpStream::connect(&address).unwrap();
        let conn = self.add(stream, Kind::Sip);
        self.scscf.insert(address, conn);
        conn
    }

    fn subscribe(&mut self, register: &str) {
        let conn = self.scscf(header(register, "Via"));
        let user = between(header(register, "To"), "<", ">").to_owned();
        let scscf = between(header(register, "Contact"), "<", ">").to_owned();
        let (n, address) = (self.next(), self.address);
        let text = format!(
            "SUBSCRIBE {user} SIP/2.0\r\nVia: SIP/2.0/TCP {address};branch=z9hG4bKs{n}\r\n\
             Max-Forwards: 70\r\nRoute: <{scscf};lr>\r\nFrom: <sip:cpm-pf@home.example>;tag=pfs{n}\r\n\
             To: <{user}>\r\nCall-ID: reg-{n}@{address}\r\nCSeq: 1 SUBSCRIBE\r\n\
             Contact: <sip:push@{address};transport=tcp>\r\nEvent: reg\r\n\
             Accept: application/reginfo+xml\r\nExpires: 600000\r\nSupported: timer\r\n\
             P-Asserted-Identity: <sip:cpm-pf@home.example>\r\nContent-Length: 0\r\n\r\n"
        );
        self.put(conn, &text);
    }

    fn push_all(&mut self, notify: &str) {
        if self.fault == Fault::Silent {
            return;
        }
        let user = between(header(notify, "From"), "<", ">").to_owned();
        let scscf = between(header(notify, "Contact"), "<", ">").to_owned();
        let first = &notify[..notify.find("</registration>").unwrap_or(notify.len())];
        let gruus: Vec<String> = first
            .split("<gr:pub-gruu uri=\"")
            .skip(1)
            .map(|rest| rest[..rest.find('"').unwrap()].to_owned())
            .collect();
        for gruu in gruus.iter().filter(|gruu| self.busy.contains(*gruu)) {
            self.again.insert(gruu.clone());
        }
        self.online.insert(user.clone(), (gruus, scscf));
        self.push_user(&user);
    }

    /// Pushes to every idle device of a registered user that has mail.
    fn push_user(&mut self, user: &str) {
        let Some((gruus, scscf)) = self.online.get(user).cloned() else {
            return;
        };
        for gruu in gruus {
            let pending = self
                .mail
                .get(user)
                .and_then(|mail| mail.iter().find(|stored| !stored.done.contains(&gruu)))
                .cloned();
            if let Some(stored) = pending
                && self.busy.insert(gruu.clone())
            {
                self.invite(user, &gruu, &scscf, &stored);
            }
        }
    }

    fn invite(&mut self, user: &str, gruu: &str, scscf: &str, stored: &Stored) {
        let (n, address, media) = (self.next(), self.address, self.media);
        let path = format!("msrp://{media}/k9Qv3tZs1mXb{n:08};tcp");
        let sdp = format!(
            "v=0\r\no=- {n} 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
             m=message {port} TCP/MSRP *\r\na=path:{path}\r\na=accept-types:message/cpim\r\n\
             a=accept-wrapped-types:*\r\na=setup:actpass\r\na=msrp-cema\r\na=sendonly\r\n",
            ip = media.ip(),
            port = media.port(),
        );
        let automata = if self.fault == Fault::NoAutomata {
            ""
        } else {
            ";automata"
        };
        let call_id = format!("5f0c6a1e9d2b{n}@{address}");
        let from_tag = format!("pf{n}");
        let text = format!(
            "INVITE {gruu} SIP/2.0\r\n\
             Via: SIP/2.0/TCP {address};branch=z9hG4bK-i-{n};oc;oc-algo=\"loss,rate\"\r\n\
             Max-Forwards: 70\r\nRoute: <{scscf};lr>\r\n\
             From: <sip:cpm-pf@home.example>;tag={from_tag}\r\nTo: <{user}>\r\n\
             Call-ID: {call_id}\r\nCSeq: 1 INVITE\r\n\
             Contact: <sip:push@{address};transport=tcp>;+g.3gpp.icsi-ref=\"{ICSI}\"{automata}\r\n\
             Accept-Contact: *;+g.3gpp.icsi-ref=\"{ICSI}\"\r\n\
             P-Asserted-Identity: <sip:cpm-pf@home.example>\r\n\
             P-Asserted-Service: urn:urn-7:3gpp-service.ims.icsi.oma.cpm.deferred\r\n\
             P-Charging-Vector: icid-value=\"ic{n}\";icid-generated-at={address};\
             orig-ioi=\"home.example\"\r\nUser-Agent: CPM-serv/OMA2.2 volley/0.1.0\r\n\
             Allow: INVITE, ACK, CANCEL, BYE, UPDATE, OPTIONS\r\nSupported: timer\r\n\
             Session-Expires: 1800;refresher=uac\r\nConversation-ID: {}\r\nContribution-ID: {}\r\n\
             Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
            stored.conversation,
            stored.contribution,
            sdp.len(),
        );
        let conn = self.scscf[between(scscf, "sip:", ";")];
        self.put(conn, &text);
        self.sessions
            .insert(format!("k9Qv3tZs1mXb{n:08}"), call_id.clone());
        let push = Push {
            invite: text,
            conn,
            cseq: 1,
            user: user.to_owned(),
            gruu: gruu.to_owned(),
            from_tag,
            path,
            contact: String::new(),
            to: String::new(),
            routes: Vec::new(),
            peer_path: String::new(),
            waiting: 0,
            declined: false,
        };
        self.pushes.insert(call_id, push);
    }

    fn in_dialog(&mut self, call_id: &str, method: &str, cseq: u32, extra: &str) {
        let (n, address) = (self.next(), self.address);
        let push = &self.pushes[call_id];
        let cseq = cseq + push.cseq - 1;
        let target = if self.fault == Fault::OldTarget {
            &push.gruu
        } else {
            &push.contact
        };
        let routes: String = push
            .routes
            .iter()
            .rev()
            .map(|route| format!("Route: {route}\r\n"))
            .collect();
        let text = format!(
            "{method} {target} SIP/2.0\r\nVia: SIP/2.0/TCP {address};branch=z9hG4bK-d-{n}\r\n\
             Max-Forwards: 70\r\n{routes}From: <sip:cpm-pf@home.example>;tag={}\r\nTo: {}\r\n\
             Call-ID: {call_id}\r\nCSeq: {cseq} {method}\r\n{extra}Content-Length: 0\r\n\r\n",
            push.from_tag, push.to,
        );
        let conn = push.conn;
        self.put(conn, &text);
    }

    fn bye(&mut self, call_id: &str) {
        self.in_dialog(call_id, "BYE", 2, "Supported: timer\r\n");
    }

    fn answered(&mut self, text: &str) {
        let call_id = header(text, "Call-ID").to_owned();
        let Some(push) = self.pushes.get_mut(&call_id) else {
            return;
        };
        push.contact = between(header(text, "Contact"), "<", ">").to_owned();
        push.to = header(text, "To").to_owned();
        push.routes = header(text, "Record-Route")
            .split(", ")
            .map(str::to_owned)
            .collect();
        push.peer_path = between(text, "a=path:", "\r\n").to_owned();
        let peer = push.peer_path.clone();
        if self.fault == Fault::NoAck && self.acks_withheld == 0 {
            self.acks_withheld = 1;
            return;
        }
        self.in_dialog(&call_id, "ACK", 1, "");
        if text.contains("m=message 0 ") {
            if let Some(push) = self.pushes.get_mut(&call_id) {
                push.declined = true;
            }
            self.bye(&call_id);
        } else if text.contains("a=setup:passive") {
            let address: SocketAddr = between(&peer, "msrp://", "/").parse().unwrap();
            let conn = match self.shared_media.get(&address) {
                Some(&conn) => conn,
                None => {
                    let conn = self.add(TcpStream::connect(address).unwrap(), Kind::Media);
                    self.shared_media.insert(address, conn);
                    conn
                }
            };
            self.send_all(conn, &call_id);
        }
    }

    fn send_all(&mut self, conn: usize, call_id: &str) {
        let push = &self.pushes[call_id];
        let (user, gruu) = (push.user.clone(), push.gruu.clone());
        let (to, from) = (push.peer_path.clone(), push.path.clone());
        let mut frames = String::new();
        let mut waiting = 0;
        let mail = self.mail.get_mut(&user).expect("a push has mail");
        for stored in mail
            .iter_mut()
            .filter(|stored| !stored.done.contains(&gruu))
        {
            stored.done.insert(gruu.clone());
            if self.fault == Fault::Lose && !self.lost {
                self.lost = true;
                continue;
            }
            let added = format!(
                "NS: cpm <http://www.openmobilealliance.org/cpm/>\r\ncpm.Conversation-ID: {}\r\n\
                 cpm.Contribution-ID: {}\r\n",
                stored.conversation, stored.contribution
            );
            let head = stored.cpim.find("\r\n\r\n").unwrap() + 2;
            let mut cpim = format!("{}{added}{}", &stored.cpim[..head], &stored.cpim[head..]);
            if self.fault == Fault::Corrupt {
                cpim = cpim.replacen("filler", "fil1er", 1);
            }
            let id = &stored.contribution[stored.contribution.len() - 8..];
            let times = if self.fault == Fault::Duplicate { 2 } else { 1 };
            for copy in 0..times {
                self.counter += 1;
                put_chunks(
                    &mut frames,
                    (&to, &from),
                    &format!("M{id}"),
                    &cpim,
                    self.counter,
                );
                waiting += 1;
                let _ = copy;
            }
        }
        self.put(conn, &frames);
        let push = self.pushes.get_mut(call_id).expect("it is alive");
        push.waiting = waiting;
        if waiting == 0 {
            self.bye(call_id);
        }
    }

    fn msrp(&mut self, conn: usize, text: &str) {
        let first = &text[..text.find('\r').unwrap_or(0)];
        let session = header(text, "To-Path")
            .rsplit('/')
            .next()
            .unwrap()
            .replace(";tcp", "");
        let Some(call_id) = self.sessions.get(&session).cloned() else {
            return;
        };
        if first.ends_with(" SEND") {
            let tid = first.split(' ').nth(1).unwrap();
            let answer = format!(
                "MSRP {tid} 200 OK\r\nTo-Path: {}\r\nFrom-Path: {}\r\n-------{tid}$\r\n",
                header(text, "From-Path"),
                header(text, "To-Path")
            );
            self.put(conn, &answer);
            self.send_all(conn, &call_id);
        } else if first.contains(" 413") {
            if let Some(push) = self.pushes.get_mut(&call_id) {
                push.declined = true;
                let (user, gruu) = (push.user.clone(), push.gruu.clone());
                for stored in self.mail.get_mut(&user).into_iter().flatten() {
                    stored.done.remove(&gruu);
                }
                self.sessions.remove(&session);
                self.bye(&call_id);
            }
        } else if first.ends_with(" REPORT") {
            let Some(push) = self.pushes.get_mut(&call_id) else {
                return;
            };
            push.waiting -= 1;
            if push.waiting == 0 && !self.fault.lingers() {
                self.sessions.remove(&session);
                self.bye(&call_id);
            }
        }
    }
}

fn put_chunks(out: &mut String, (to, from): (&str, &str), id: &str, cpim: &str, counter: u64) {
    let total = cpim.len();
    let mut at = 0;
    while at < total {
        let end = total.min(at + 2048);
        let flag = if end == total { '$' } else { '+' };
        let tid = format!("t{counter:08}x{at:06}");
        out.push_str(&format!(
            "MSRP {tid} SEND\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\nMessage-ID: {id}\r\n\
             Success-Report: yes\r\nFailure-Report: yes\r\nByte-Range: {}-{end}/{total}\r\n\
             Content-Type: message/cpim\r\n\r\n{}\r\n-------{tid}{flag}\r\n",
            at + 1,
            &cpim[at..end]
        ));
        at = end;
    }
}

fn sip_length(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = core::str::from_utf8(&bytes[..head]).unwrap();
    Some(head + header(text, "Content-Length").parse::<usize>().unwrap())
}

fn media_length(bytes: &[u8]) -> Option<usize> {
    let line = bytes.iter().position(|&byte| byte == b'\r')?;
    let tid = core::str::from_utf8(&bytes[..line])
        .unwrap()
        .split(' ')
        .nth(1)?;
    let end = format!("\r\n-------{tid}");
    let at = bytes
        .windows(end.len())
        .position(|window| window == end.as_bytes())?;
    (bytes.len() >= at + end.len() + 3).then_some(at + end.len() + 3)
}
