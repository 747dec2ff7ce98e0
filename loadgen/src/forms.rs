//! Everything this judge says, as templates: REGISTER, NOTIFY, MESSAGE, the answers of phones.

use crate::behaviour::Refresher;
use crate::identity::{Names, put_plain};
use crate::scenario::Setup;
use crate::template::{Digits, Template};

/// Interval of third-party registrations and subscriptions, seconds.
pub const REGISTRATION_S: u32 = 600_000;
/// Octets of the repeated filler text of message bodies.
const FILLER: usize = 4096;
/// Octets in front of the filler: `M`, twelve digits and a space.
const BODY_HEAD: usize = 14;

/// What a phone answers to an INVITE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// `setup:active`: the phone connects to the engine.
    Active,
    /// A media port of zero: the session is refused after the ACK.
    Declined,
    /// `setup:passive`: the engine connects to the phone.
    Passive,
}

/// A message size and its templates.
#[derive(Debug)]
struct Letter {
    request: Template,
    cpim: Template,
    invite: Template,
    body_len: usize,
}

/// Largest body that goes in a MESSAGE, octets.
pub const PAGER_BODY_MAX: usize = 65_000;
/// Largest body, octets.
pub const BODY_MAX: usize = 64 << 20;

/// The templates of a run.
#[derive(Debug)]
pub struct Forms {
    letters: Vec<Letter>,
    filler: Vec<u8>,
    register: Template,
    /// By devices and whether the telephone identity is registered too: text before and after the
    /// version.
    documents: Vec<[(Template, Template); 2]>,
    answers: [[Template; 2]; 3],
    /// Requests in the dialog of an INVITE of a sender: around the To value.
    in_invite: [Template; 2],
    /// `sip:host:port;transport=..` of the S-CSCF.
    pub scscf_uri: Vec<u8>,
    /// Route set as the engine must use it: our Record-Route reversed.
    pub routes: [Vec<u8>; 2],
    via: String,
    host: String,
    domain: String,
    /// The services without their last word, as they stand in a feature tag.
    icsi_prefix: String,
    /// The number that names write for user 0.
    first_user: u32,
}

impl Forms {
    /// Renders the templates for a run.
    pub fn new(setup: &Setup, names: &Names) -> Self {
        let host = setup.scscf_listen.to_string();
        let transport = setup.transport.via();
        let scscf_uri = format!("sip:{host};transport={}", setup.transport.param());
        let routes = [
            format!("<sip:mt@{host};transport={};lr>", setup.transport.param()).into_bytes(),
            format!("<sip:mt@pcscf1.{}:5060;lr>", setup.domain).into_bytes(),
        ];
        let mut forms = Self {
            letters: Vec::new(),
            filler: filler(),
            register: Template::default(),
            documents: Vec::new(),
            answers: Default::default(),
            in_invite: [Template::default(), Template::default()],
            scscf_uri: scscf_uri.into_bytes(),
            routes,
            via: format!("Via: SIP/2.0/{transport} {host};branch=z9hG4bK"),
            host,
            domain: setup.domain.clone(),
            icsi_prefix: usual_icsi(setup)
                .trim_end_matches("deferred")
                .replace(':', "%3A"),
            first_user: setup.first_user,
        };
        forms.register = forms.render_register(setup);
        let run = String::from_utf8_lossy(names.run_digits()).into_owned();
        forms.in_invite = [
            Template::parse(&format!(
                "{{m}}\r\nMax-Forwards: 70\r\nFrom: <sip:+1556{{s}}@{}>;tag=snd{{m}}\r\nTo: ",
                setup.domain
            )),
            Template::parse(&format!("\r\nCall-ID: lrg-{run}-{{m}}\r\nCSeq: ")),
        ];
        for &len in &setup.body_bytes {
            forms
                .letters
                .push(forms.render_letter(setup, names, len.max(BODY_HEAD)));
        }
        for devices in 1..=crate::identity::DEVICES_MAX {
            forms.documents.push([
                document(setup, devices, false),
                document(setup, devices, true),
            ]);
        }
        for answer in [Answer::Active, Answer::Declined, Answer::Passive] {
            forms.answers[answer as usize] =
                ["uac", "uas"].map(|refresher| forms.render_answer(setup, answer, refresher));
        }
        forms
    }

    /// Number of message sizes.
    pub fn classes(&self) -> usize {
        self.letters.len()
    }

    /// Appends a third-party REGISTER (f4-01).
    pub fn put_register(&self, user: u32, cseq: u32, out: &mut Vec<u8>) {
        self.register.render(&self.digits(user).binding(cseq), out);
    }

    /// Appends the MESSAGE that deposits `message` for `user` (f6-01).
    pub fn put_message(&self, class: usize, user: u32, message: u64, out: &mut Vec<u8>) {
        let letter = &self.letters[class];
        letter.request.render(&self.digits_of(user, message), out);
        self.put_filler(message, letter.body_len, out);
    }

    /// Whether messages of a class go by INVITE and MSRP.
    pub fn is_large(&self, class: usize) -> bool {
        self.letters[class].body_len > PAGER_BODY_MAX
    }

    /// Appends the INVITE that announces `message` for `user`; the sender waits for a connection.
    pub fn put_invite(&self, class: usize, user: u32, message: u64, out: &mut Vec<u8>) {
        self.letters[class]
            .invite
            .render(&self.digits_of(user, message), out);
    }

    /// Appends a request in the dialog of that INVITE: method and kind of branch, target and To value.
    pub fn put_in_invite(
        &self,
        user: u32,
        message: u64,
        (method, kind): (&[u8], &[u8]),
        (target, to): (&[u8], &[u8]),
        out: &mut Vec<u8>,
    ) {
        let digits = self.digits_of(user, message);
        out.extend_from_slice(method);
        out.push(b' ');
        out.extend_from_slice(target);
        out.extend_from_slice(b" SIP/2.0\r\n");
        out.extend_from_slice(self.via.as_bytes());
        out.extend_from_slice(kind);
        self.in_invite[0].render(&digits, out);
        out.extend_from_slice(to);
        self.in_invite[1].render(&digits, out);
        out.extend_from_slice(if method == b"BYE" { b"2 " } else { b"1 " });
        out.extend_from_slice(method);
        out.extend_from_slice(b"\r\nContent-Length: 0\r\n\r\n");
    }

    /// Appends the CPIM of `message` as deposited.
    pub fn put_cpim(&self, class: usize, user: u32, message: u64, out: &mut Vec<u8>) {
        let letter = &self.letters[class];
        letter.cpim.render(&self.digits_of(user, message), out);
        self.put_filler(message, letter.body_len, out);
    }

    /// Digits for things about `user`.
    pub fn digits(&self, user: u32) -> Digits {
        Digits::of_user(self.first_user + user)
    }

    fn digits_of(&self, user: u32, message: u64) -> Digits {
        self.digits(user).message(message, sender_of(message))
    }

    fn put_filler(&self, message: u64, body_len: usize, out: &mut Vec<u8>) {
        let mut left = body_len - BODY_HEAD;
        let mut from = (message.wrapping_mul(37) % FILLER as u64) as usize;
        while left > 0 {
            let piece = &self.filler[from..FILLER.min(from + left)];
            out.extend_from_slice(piece);
            left -= piece.len();
            from = 0;
        }
    }

    /// Appends the From-To part of the answer to an INVITE from Record-Route to the end.
    pub fn put_answer(
        &self,
        answer: Answer,
        refresher: Refresher,
        digits: &Digits,
        out: &mut Vec<u8>,
    ) {
        let of_phone = usize::from(refresher != Refresher::Engine);
        self.answers[answer as usize][of_phone].render(digits, out);
    }

    /// Appends a NOTIFY with the full state of `user` (f4-05).
    pub fn put_notify(&self, notify: &Notify<'_>, out: &mut Vec<u8>) {
        let (before, after) =
            &self.documents[usize::from(notify.devices) - 1][usize::from(notify.tel)];
        let digits = self.digits(notify.user).binding(notify.binding);
        self.put_notify_head(notify, out);
        let digits_of_version = notify
            .version
            .checked_ilog10()
            .map_or(1, |width| width as usize + 1);
        put_plain((before.len() + digits_of_version + after.len()) as u64, out);
        out.extend_from_slice(b"\r\n\r\n");
        before.render(&digits, out);
        put_plain(u64::from(notify.version), out);
        after.render(&digits, out);
    }

    /// Appends a NOTIFY with a document of another shape.
    pub fn put_shaped(&self, notify: &Notify<'_>, shape: &Shape, out: &mut Vec<u8>) {
        let state = if shape.partial { "partial" } else { "full" };
        let mut text = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <reginfo xmlns=\"urn:ietf:params:xml:ns:reginfo\" \
             xmlns:gr=\"urn:ietf:params:xml:ns:gruuinfo\" version=\"{}\" state=\"{state}\">\n",
            notify.version
        );
        let user = self.first_user + notify.user;
        let domain = &self.domain;
        let parts = [
            (format!("sip:+1555{user:07}@{domain}"), "r1", 0),
            (format!("tel:+1555{user:07}"), "r2", notify.devices),
        ];
        for (aor, id, first) in &parts[..1 + usize::from(notify.tel)] {
            self.shaped(&mut text, shape, (aor, id, *first), user);
        }
        text.push_str("</reginfo>\n");
        self.put_notify_head(notify, out);
        put_plain(text.len() as u64, out);
        out.extend_from_slice(b"\r\n\r\n");
        out.extend_from_slice(text.as_bytes());
    }

    fn shaped(
        &self,
        out: &mut String,
        shape: &Shape,
        (aor, id, first): (&str, &str, u8),
        user: u32,
    ) {
        use core::fmt::Write as _;
        let (domain, prefix) = (&self.domain, &self.icsi_prefix);
        let phone = if id == "r1" { "" } else { ";user=phone" };
        let _ = writeln!(
            out,
            "  <registration aor=\"{aor}\" id=\"{id}\" state=\"active\">"
        );
        for &(device, binding, how) in &shape.contacts {
            let contact = first + device + 1;
            let (state, event) = match how {
                Contact::GruuLess | Contact::Registered => ("active", "registered"),
                Contact::Refreshed => ("active", "refreshed"),
                Contact::Unregistered => ("terminated", "unregistered"),
            };
            let instance = format!("urn:uuid:00000000-0000-1000-8000-{device:04}{user:08}");
            let _ = write!(
                out,
                "    <contact id=\"c{contact}\" state=\"{state}\" event=\"{event}\" \
                 duration-registered=\"3\" callid=\"reg-{device}-{user:08}-{binding:08}@198.51.100.7\" \
                 cseq=\"1\" expires=\"3597\">\n      <uri>sip:+1555{user:07}@198.51.100.7:{port};\
                 transport=tcp</uri>\n      <unknown-param name=\"+sip.instance\">\"&lt;{instance}&gt;\"\
                 </unknown-param>\n      <unknown-param name=\"+g.3gpp.icsi-ref\">\
                 \"{prefix}msg,{prefix}largemsg,{prefix}deferred\"</unknown-param>\n",
                port = 5060 + u16::from(device),
            );
            if how != Contact::GruuLess {
                let _ = writeln!(
                    out,
                    "      <gr:pub-gruu uri=\"sip:+1555{user:07}@{domain}{phone};gr={instance}\"/>"
                );
            }
            out.push_str("    </contact>\n");
        }
        out.push_str("  </registration>\n");
    }

    /// Everything of a NOTIFY up to the value of Content-Length.
    fn put_notify_head(&self, notify: &Notify<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"NOTIFY ");
        out.extend_from_slice(notify.target);
        out.extend_from_slice(b" SIP/2.0\r\n");
        out.extend_from_slice(self.via.as_bytes());
        out.push(b'n');
        crate::identity::put_fixed(u64::from(notify.user), 8, out);
        crate::identity::put_fixed(u64::from(notify.cseq), 8, out);
        out.extend_from_slice(b"\r\nMax-Forwards: 70\r\nFrom: <");
        out.extend_from_slice(notify.aor);
        out.extend_from_slice(b">;tag=");
        put_subscription_tag(notify.user, out);
        out.extend_from_slice(b"\r\nTo: ");
        out.extend_from_slice(notify.to);
        out.extend_from_slice(b"\r\nCall-ID: ");
        out.extend_from_slice(notify.call_id);
        out.extend_from_slice(b"\r\nCSeq: ");
        put_plain(u64::from(notify.cseq), out);
        out.extend_from_slice(b" NOTIFY\r\nContact: <");
        out.extend_from_slice(&self.scscf_uri);
        out.extend_from_slice(b">\r\nEvent: reg\r\nSubscription-State: ");
        out.extend_from_slice(notify.state);
        out.extend_from_slice(b"\r\nContent-Type: application/reginfo+xml\r\nContent-Length: ");
    }

    fn render_register(&self, setup: &Setup) -> Template {
        let (host, via, domain) = (&self.host, &self.via, &setup.domain);
        let uri = String::from_utf8_lossy(&self.scscf_uri);
        Template::parse(&format!(
            "REGISTER sip:{} SIP/2.0\r\n{via}r{{U}}{{b}}\r\nMax-Forwards: 70\r\n\
             From: <sip:{host}>;tag=s3p{{U}}\r\nTo: <sip:+1555{{u}}@{domain}>\r\n\
             Call-ID: reg-{}-{{U}}@{host}\r\nCSeq: {{b}} REGISTER\r\nContact: <{uri}>\r\n\
             Expires: {REGISTRATION_S}\r\n\
             P-Charging-Vector: icid-value=\"s-{{U}}-{{b}}\";orig-ioi=\"{domain}\"\r\n\
             Content-Length: 0\r\n\r\n",
            setup.engine,
            setup.run_id_text()
        ))
    }

    fn render_letter(&self, setup: &Setup, names: &Names, body_len: usize) -> Letter {
        let (host, via, domain) = (&self.host, &self.via, &setup.domain);
        let run = String::from_utf8_lossy(names.run_digits()).into_owned();
        let cpim = format!(
            "From: <sip:+1556{{s}}@{domain}>\r\nTo: <sip:+1555{{u}}@{domain}>\r\n\
             DateTime: {}\r\nNS: imdn <urn:ietf:params:imdn>\r\n\
             imdn.Message-ID: v{run}{{m}}\r\n\
             imdn.Disposition-Notification: positive-delivery, negative-delivery\r\n\r\n\
             Content-Type: text/plain; charset=UTF-8\r\n\r\nM{{m}} ",
            setup.date_time
        );
        let length = Template::parse(&cpim).len() + body_len - BODY_HEAD;
        let param = setup.transport.param();
        let request = format!(
            "MESSAGE sip:+1555{{u}}@{domain} SIP/2.0\r\n{via}m{{m}}\r\nMax-Forwards: 66\r\n\
             Route: <sip:{};transport={param};lr>, <sip:odi@{host};transport={param};lr>\r\n\
             From: <sip:+1556{{s}}@{domain}>;tag=snd{{m}}\r\nTo: <sip:+1555{{u}}@{domain}>\r\n\
             Call-ID: msg-{run}-{{m}}\r\nCSeq: 1 MESSAGE\r\nExpires: 86400\r\n\
             P-Asserted-Identity: <sip:+1556{{s}}@{domain}>\r\n\
             P-Asserted-Service: urn:urn-7:3gpp-service.ims.icsi.oma.cpm.msg\r\n\
             Conversation-ID: {run}-0000-4000-9000-{{m}}\r\n\
             Contribution-ID: {run}-0000-4000-8000-{{m}}\r\n\
             Content-Type: message/cpim\r\nContent-Length: {length}\r\n\r\n{cpim}",
            setup.engine
        );
        let msrp = setup.msrp_listen;
        let family = if msrp.is_ipv4() { "IP4" } else { "IP6" };
        let ip = msrp.ip();
        let sdp = format!(
            "v=0\r\no=- 1 1 IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\n\
             m=message {} TCP/MSRP *\r\na=path:msrp://{msrp}/l00{{m}};tcp\r\n\
             a=accept-types:message/cpim\r\na=setup:passive\r\na=sendonly\r\n",
            msrp.port()
        );
        let sdp_length = Template::parse(&sdp).len();
        let invite = format!(
            "INVITE sip:+1555{{u}}@{domain} SIP/2.0\r\n{via}i{{m}}\r\nMax-Forwards: 66\r\n\
             Route: <sip:{};transport={param};lr>, <sip:odi@{host};transport={param};lr>\r\n\
             From: <sip:+1556{{s}}@{domain}>;tag=snd{{m}}\r\nTo: <sip:+1555{{u}}@{domain}>\r\n\
             Call-ID: lrg-{run}-{{m}}\r\nCSeq: 1 INVITE\r\nContact: <sip:snd{{m}}@{host}>\r\n\
             P-Asserted-Identity: <sip:+1556{{s}}@{domain}>\r\n\
             P-Asserted-Service: urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg\r\n\
             Conversation-ID: {run}-0000-4000-9000-{{m}}\r\n\
             Contribution-ID: {run}-0000-4000-8000-{{m}}\r\n\
             Content-Type: application/sdp\r\nContent-Length: {sdp_length}\r\n\r\n{sdp}",
            setup.engine
        );
        Letter {
            invite: Template::parse(&invite),
            request: Template::parse(&request),
            cpim: Template::parse(&cpim),
            body_len,
        }
    }

    fn render_answer(&self, setup: &Setup, answer: Answer, refresher: &str) -> Template {
        let domain = &setup.domain;
        let msrp = setup.msrp_listen;
        let family = if msrp.is_ipv4() { "IP4" } else { "IP6" };
        let (port, role) = match answer {
            Answer::Active => (msrp.port(), "active"),
            Answer::Declined => (0, "active"),
            Answer::Passive => (msrp.port(), "passive"),
        };
        let cema = if setup.answer_cema {
            "a=msrp-cema\r\n"
        } else {
            ""
        };
        let sdp = format!(
            "v=0\r\no=- 1 1 IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\n\
             m=message {port} TCP/MSRP *\r\na=path:msrp://{msrp}/p{{U}}{{d}}{{n}};tcp\r\n\
             a=accept-types:message/cpim\r\na=accept-wrapped-types:*\r\na=setup:{role}\r\n\
             {cema}a=recvonly\r\n",
            ip = msrp.ip(),
        );
        let length = Template::parse(&sdp).len();
        let timer = if setup.session_timer {
            format!(
                "Supported: timer\r\nRequire: timer\r\nSession-Expires: {};refresher={refresher}\r\n",
                setup.session_expires_s
            )
        } else {
            String::new()
        };
        Template::parse(&format!(
            "Record-Route: {}, {}\r\nContact: <sip:+1555{{u}}@phones.{domain}:5060;\
             transport=tcp;dev={{d}}>;+g.3gpp.icsi-ref=\"{}\"\r\n\
             Allow: INVITE, ACK, CANCEL, BYE, UPDATE, MESSAGE\r\n{timer}\
             Content-Type: application/sdp\r\nContent-Length: {length}\r\n\r\n{sdp}",
            String::from_utf8_lossy(&self.routes[1]),
            String::from_utf8_lossy(&self.routes[0]),
            usual_icsi(setup).replace(':', "%3A"),
        ))
    }
}

/// A document that is not simply full state with new bindings.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Whether it says what changed only.
    pub partial: bool,
    /// Devices, their bindings, and what is said of them.
    pub contacts: Vec<(u8, u32, Contact)>,
}

/// What a document says of a contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contact {
    /// It is there, without a GRUU.
    GruuLess,
    /// It was refreshed.
    Refreshed,
    /// It is there.
    Registered,
    /// It is gone.
    Unregistered,
}

/// What goes into a NOTIFY.
#[derive(Clone, Copy, Debug)]
pub struct Notify<'a> {
    /// Contact URI of the SUBSCRIBE.
    pub target: &'a [u8],
    /// From value of the SUBSCRIBE, with its tag.
    pub to: &'a [u8],
    /// Call-ID of the SUBSCRIBE.
    pub call_id: &'a [u8],
    /// Identity subscribed to.
    pub aor: &'a [u8],
    /// The user.
    pub user: u32,
    /// Devices of the user.
    pub devices: u8,
    /// Whether the telephone identity is registered too.
    pub tel: bool,
    /// CSeq number.
    pub cseq: u32,
    /// Version of the document.
    pub version: u32,
    /// Counter of bindings: a new value is a new registration of every device.
    pub binding: u32,
    /// Value of Subscription-State.
    pub state: &'a [u8],
}

/// Appends our tag in a user's subscription dialogs.
pub fn put_subscription_tag(user: u32, out: &mut Vec<u8>) {
    out.push(b's');
    crate::identity::put_fixed(u64::from(user), 8, out);
}

/// The sender of a message.
pub fn sender_of(message: u64) -> u32 {
    (message % u64::from(crate::identity::USERS_MAX)) as u32
}

/// A reginfo document in two parts, before and after the version (f4-05).
fn document(setup: &Setup, devices: u8, tel: bool) -> (Template, Template) {
    let before = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
        <reginfo xmlns=\"urn:ietf:params:xml:ns:reginfo\" \
        xmlns:gr=\"urn:ietf:params:xml:ns:gruuinfo\" version=\"";
    let mut after = String::from("\" state=\"full\">\n");
    let domain = &setup.domain;
    registration(
        &mut after,
        devices,
        &format!("sip:+1555{{u}}@{domain}"),
        "r1",
        0,
        setup,
    );
    if tel {
        registration(&mut after, devices, "tel:+1555{u}", "r2", devices, setup);
    }
    after.push_str("</reginfo>\n");
    (Template::parse(before), Template::parse(&after))
}

fn registration(out: &mut String, devices: u8, aor: &str, id: &str, first: u8, setup: &Setup) {
    use core::fmt::Write as _;
    let domain = &setup.domain;
    let phone = if aor.starts_with("tel:") {
        ";user=phone"
    } else {
        ""
    };
    let event = if phone.is_empty() {
        "registered"
    } else {
        "created"
    };
    let prefix = usual_icsi(setup)
        .trim_end_matches("deferred")
        .replace(':', "%3A");
    let _ = writeln!(
        out,
        "  <registration aor=\"{aor}\" id=\"{id}\" state=\"active\">"
    );
    for device in 0..devices {
        let contact = first + device + 1;
        let _ = write!(
            out,
            "    <contact id=\"c{contact}\" state=\"active\" event=\"{event}\" \
             duration-registered=\"3\" callid=\"reg-{device}-{{U}}-{{b}}@198.51.100.7\" cseq=\"1\" \
             expires=\"3597\">\n      <uri>sip:+1555{{u}}@198.51.100.7:{port};transport=tcp</uri>\n\
             \x20     <unknown-param name=\"+sip.instance\">\"&lt;urn:uuid:00000000-0000-1000-8000-\
             {device:04}{{U}}&gt;\"</unknown-param>\n      <unknown-param name=\"+g.3gpp.icsi-ref\">\
             \"{prefix}msg,{prefix}largemsg,{prefix}deferred\"</unknown-param>\n\
             \x20     <gr:pub-gruu uri=\"sip:+1555{{u}}@{domain}{phone};\
             gr=urn:uuid:00000000-0000-1000-8000-{device:04}{{U}}\"/>\n    </contact>\n",
            port = 5060 + u16::from(device),
        );
    }
    out.push_str("  </registration>\n");
}

/// The first of the services that the engine pushes with.
fn usual_icsi(setup: &Setup) -> &str {
    setup.icsi.split(',').next().unwrap_or_default()
}

/// Text with a few lines that look like MSRP frames and SIP (BAD-31); ASCII, because a body may
/// start at any octet of it.
fn filler() -> Vec<u8> {
    let mut out = Vec::with_capacity(FILLER + 128);
    let mut line = 0;
    while out.len() < FILLER {
        let text = match line % 16 {
            7 => format!("-------tid{line:04}$\r\n"),
            11 => "INVITE sip:nobody@nowhere.invalid SIP/2.0\r\n".to_owned(),
            13 => format!("MSRP abcd{line:04} SEND\r\nTo-Path: none\r\n"),
            _ => format!("line {line:04} of the deferred message filler text\r\n"),
        };
        out.extend_from_slice(text.as_bytes());
        line += 1;
    }
    out.truncate(FILLER);
    out
}
