//! A push engine of templates that does nothing but signalling pushes, fast: what the judge costs
//! when the engine is no limit. It relies on one connection each way and on the judge's counting.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use memchr::memmem;
use volley_loadgen::identity::read_digits;
use volley_loadgen::template::{Digits, Template};

const ICSI: &str = "urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.deferred";

/// Serves one judge on a thread of its own; it ends with the connection.
pub(crate) fn start(devices: u8) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (intake, _) = listener.accept().unwrap();
        Blaster::new(intake, address, devices).run();
    });
    address
}

struct Blaster {
    intake: TcpStream,
    scscf: Option<TcpStream>,
    address: SocketAddr,
    devices: u8,
    invite: Template,
    acked: Template,
    /// User and device by serial.
    whose: Vec<(u32, u8)>,
    to_intake: Vec<u8>,
    to_scscf: Vec<u8>,
}

impl Blaster {
    fn new(intake: TcpStream, address: SocketAddr, devices: u8) -> Self {
        intake.set_nonblocking(true).unwrap();
        intake.set_nodelay(true).unwrap();
        Self {
            intake,
            scscf: None,
            address,
            devices,
            invite: Template::default(),
            acked: Template::default(),
            whose: vec![(0, 0)],
            to_intake: Vec::new(),
            to_scscf: Vec::new(),
        }
    }

    fn run(mut self) {
        let mut chunk = vec![0u8; 256 * 1024];
        let (mut first, mut second) = (Vec::new(), Vec::new());
        loop {
            match self.intake.read(&mut chunk) {
                Ok(0) => return,
                Ok(count) => {
                    first.extend_from_slice(&chunk[..count]);
                    let used = frames(&first, |message| self.intake_message(message));
                    first.drain(..used);
                }
                Err(_) => {}
            }
            if let Some(scscf) = &mut self.scscf
                && let Ok(count) = scscf.read(&mut chunk)
            {
                second.extend_from_slice(&chunk[..count]);
                let used = frames(&second, |message| self.answer(message));
                second.drain(..used);
            }
            put(&mut self.intake, &mut self.to_intake);
            if let Some(scscf) = &mut self.scscf {
                put(scscf, &mut self.to_scscf);
            }
        }
    }

    fn intake_message(&mut self, message: &[u8]) {
        let notify = message.starts_with(b"NOTIFY");
        let status: &str = if message.starts_with(b"MESSAGE") {
            "202 Accepted"
        } else {
            "200 OK"
        };
        let register = message.starts_with(b"REGISTER");
        let out = &mut self.to_intake;
        out.extend_from_slice(format!("SIP/2.0 {status}\r\n").as_bytes());
        for name in ["Via: ", "From: ", "To: ", "Call-ID: ", "CSeq: "] {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(value(message, name));
            if name == "To: " && !notify {
                out.extend_from_slice(b";tag=pf");
            }
            out.extend_from_slice(b"\r\n");
        }
        if register {
            out.extend_from_slice(b"Contact: ");
            out.extend_from_slice(value(message, "Contact: "));
            out.extend_from_slice(b";expires=600000\r\n");
        }
        out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
        if register {
            self.subscribe(message);
        } else if notify {
            let from = value(message, "From: ");
            let user = read_digits(&from[10..17]).unwrap() as u32;
            for device in 0..self.devices {
                let serial = self.whose.len() as u32;
                self.whose.push((user, device));
                let digits = Digits::of_user(user)
                    .device(device)
                    .serial(serial)
                    .message(user.into(), 0);
                self.invite.render(&digits, &mut self.to_scscf);
            }
        }
    }

    fn answer(&mut self, message: &[u8]) {
        if !message.starts_with(b"SIP/2.0 200") || value(message, "CSeq: ") != b"1 INVITE" {
            return;
        }
        let serial = read_digits(&value(message, "Call-ID: ")[5..13]).unwrap() as u32;
        let (user, device) = self.whose[serial as usize];
        let digits = Digits::of_user(user).device(device).serial(serial);
        self.acked.render(&digits, &mut self.to_scscf);
    }

    fn subscribe(&mut self, register: &[u8]) {
        let address = self.address;
        if self.scscf.is_none() {
            let via = String::from_utf8_lossy(value(register, "Via: ")).into_owned();
            let peer = &via["SIP/2.0/TCP ".len()..via.find(';').unwrap()];
            let stream = TcpStream::connect(peer).unwrap();
            stream.set_nonblocking(true).unwrap();
            stream.set_nodelay(true).unwrap();
            self.scscf = Some(stream);
            self.invite = invite(address, peer);
            self.acked = acked(address, peer);
        }
        let user = String::from_utf8_lossy(value(register, "To: ")).into_owned();
        let target = user.trim_matches(['<', '>']);
        self.to_scscf.extend_from_slice(
            format!(
                "SUBSCRIBE {target} SIP/2.0\r\nVia: SIP/2.0/TCP {address};branch=z9hG4bKs{target}\r\n\
                 Max-Forwards: 70\r\nRoute: <sip:x;lr>\r\nFrom: <sip:pf@home.example>;tag=s\r\n\
                 To: {user}\r\nCall-ID: reg-{target}\r\nCSeq: 1 SUBSCRIBE\r\n\
                 Contact: <sip:push@{address};transport=tcp>\r\nEvent: reg\r\n\
                 Accept: application/reginfo+xml\r\nExpires: 600000\r\nSupported: timer\r\n\
                 P-Asserted-Identity: <sip:pf@home.example>\r\nContent-Length: 0\r\n\r\n"
            )
            .as_bytes(),
        );
    }
}

fn invite(address: SocketAddr, scscf: &str) -> Template {
    let sdp = "v=0\r\no=- 39{n} 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
        m=message 2855 TCP/MSRP *\r\na=path:msrp://127.0.0.1:2855/k9Qv3tZs1mXbW7aEoR2y5678{n};tcp\r\n\
        a=accept-types:message/cpim\r\na=accept-wrapped-types:*\r\na=setup:actpass\r\n\
        a=msrp-cema\r\na=sendonly\r\n";
    let length = Template::parse(sdp).len();
    Template::parse(&format!(
        "INVITE sip:+1555{{u}}@home.example;gr=urn:uuid:00000000-0000-1000-8000-{{d}}{{U}} SIP/2.0\r\n\
         Via: SIP/2.0/TCP {address};branch=z9hG4bK7a1f03c2d4e5b6977a1f03c2{{n}};oc;oc-algo=\"loss,rate\"\r\n\
         Max-Forwards: 70\r\nRoute: <sip:{scscf};transport=tcp;lr>\r\n\
         From: <sip:cpm-pf@home.example>;tag=7a1f03c2d4e5b6977a1f03c2{{n}}\r\n\
         To: <sip:+1555{{u}}@home.example>\r\nCall-ID: blast{{n}}@pf1.home.example\r\n\
         CSeq: 1 INVITE\r\n\
         Contact: <sip:push@{address};transport=tcp>;+g.3gpp.icsi-ref=\"{ICSI}\";automata\r\n\
         Accept-Contact: *;+g.3gpp.icsi-ref=\"{ICSI}\"\r\n\
         P-Asserted-Identity: <sip:cpm-pf@home.example>\r\n\
         P-Asserted-Service: urn:urn-7:3gpp-service.ims.icsi.oma.cpm.deferred\r\n\
         P-Charging-Vector: icid-value=\"7c1e{{n}}\";icid-generated-at=pf1;orig-ioi=\"home.example\"\r\n\
         User-Agent: CPM-serv/OMA2.2 volley/0.1.0\r\n\
         Allow: INVITE, ACK, CANCEL, BYE, UPDATE, OPTIONS\r\nSupported: timer\r\n\
         Session-Expires: 1800;refresher=uac\r\n\
         Conversation-ID: 00000001-0000-4000-9000-{{m}}\r\n\
         Contribution-ID: 00000001-0000-4000-8000-{{m}}\r\n\
         Content-Type: application/sdp\r\nContent-Length: {length}\r\n\r\n{sdp}"
    ))
}

fn acked(address: SocketAddr, scscf: &str) -> Template {
    let request = |method: &str, cseq: u8, extra: &str| {
        format!(
            "{method} sip:+1555{{u}}@phones.home.example:5060;transport=tcp;dev={{d}} SIP/2.0\r\n\
             Via: SIP/2.0/TCP {address};branch=z9hG4bK{method}03c2d4e5b6977a1f03c2{{n}};oc;oc-algo=\"loss,rate\"\r\n\
             Max-Forwards: 70\r\nRoute: <sip:mt@{scscf};transport=tcp;lr>\r\n\
             Route: <sip:mt@pcscf1.home.example:5060;lr>\r\n\
             From: <sip:cpm-pf@home.example>;tag=7a1f03c2d4e5b6977a1f03c2{{n}}\r\n\
             To: <sip:+1555{{u}}@home.example>;tag=ph{{n}}\r\nCall-ID: blast{{n}}@pf1.home.example\r\n\
             CSeq: {cseq} {method}\r\n{extra}Content-Length: 0\r\n\r\n"
        )
    };
    let bye = request("BYE", 2, "Supported: timer\r\n");
    Template::parse(&(request("ACK", 1, "") + &bye))
}

fn put(stream: &mut TcpStream, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        return;
    }
    if let Ok(count) = stream.write(bytes) {
        bytes.drain(..count);
    }
}

fn value<'a>(message: &'a [u8], name: &str) -> &'a [u8] {
    let mut at = 0;
    loop {
        let line_end = at + memchr::memchr(b'\n', &message[at..]).unwrap();
        let line = &message[at..line_end];
        if line.starts_with(name.as_bytes()) {
            return &line[name.len()..line.len() - 1];
        }
        at = line_end + 1;
    }
}

/// Calls `each` with every whole message; gives the octets used.
fn frames(bytes: &[u8], mut each: impl FnMut(&[u8])) -> usize {
    let mut at = 0;
    while let Some(found) = memmem::find(&bytes[at..], b"\r\n\r\n") {
        let head = at + found + 4;
        let length = memmem::rfind(&bytes[at..head], b"Content-Length: ").unwrap();
        let digits = &bytes[at + length + 16..head - 4];
        let end = head + read_digits(digits).unwrap() as usize;
        if end > bytes.len() {
            break;
        }
        each(&bytes[at..end]);
        at = end;
    }
    at
}
