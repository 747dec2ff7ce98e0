//! What a message says that does not change from push to push, and its validation.

use core::net::{IpAddr, Ipv4Addr};

use crate::sdp::Setup;

/// Where the one direction attribute stands (PUSH-g).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Under the m= line.
    Media,
    /// Before the m= line.
    Session,
}

/// The fixed part of our messages towards one next hop in one handset dialect.
///
/// [`Default`] gives the values of the worked example flow f1. [`super::Templates::compile`]
/// validates; a value that could break out of its header field is refused there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// URN in the Response-Source header of our 4xx and 5xx (IMS-8); empty: none is sent.
    pub response_source: String,
    /// Host and port of the Via: where responses come to.
    pub sent_by: String,
    /// Transport token of the Via, `TCP`, `TLS` or `UDP`.
    pub transport: String,
    /// Where requests travel in trains of datagrams: the largest datagram that the path takes whole,
    /// octets. Requests are then lengthened to a multiple of [`super::SIZE_CLASS`] by filler behind
    /// the branch, as far as that leaves them below it. 0: requests are as long as they are.
    pub datagram_max: u16,
    /// Whole Route value of requests towards the user, `<sip:...;lr>`, without `orig` (IMS-1).
    pub route: String,
    /// Whole Route value of requests on a user's behalf, with `orig` (IMS-1).
    pub originating_route: String,
    /// URI of From.
    pub pf_uri: String,
    /// URI of P-Asserted-Identity; `None` means [`Self::pf_uri`]. Some handset dialects want
    /// another (PUSH-j).
    pub asserted_identity: Option<String>,
    /// URI of Contact.
    pub contact_uri: String,
    /// Name of the feature tag (PUSH-b).
    pub feature_name: String,
    /// Value of the feature tag: URNs in plain spelling, comma-separated; empty for a tag without
    /// value.
    pub feature_value: String,
    /// The same for MESSAGE requests that carry IMDN.
    pub message_feature_value: String,
    /// Whether Accept-Contact says `require` (PUSH-b2).
    pub accept_require: bool,
    /// Whether Accept-Contact says `explicit` (PUSH-b2).
    pub accept_explicit: bool,
    /// Value of User-Agent (PUSH-c).
    pub user_agent: String,
    /// Value of Server in responses.
    pub server: String,
    /// Value of Allow.
    pub allow: String,
    /// Value of P-Asserted-Service; `None` leaves the header out.
    pub asserted_service: Option<String>,
    /// The same for MESSAGE requests.
    pub message_asserted_service: Option<String>,
    /// `icid-generated-at` of P-Charging-Vector.
    pub icid_generated_at: String,
    /// `orig-ioi` of P-Charging-Vector.
    pub orig_ioi: String,
    /// The next hop is of our trust domain: P-Asserted-* and P-Charging-* may go there (IMS-7).
    pub trusted: bool,
    /// Whether Via offers overload control (OVL-1).
    pub oc: bool,
    /// The usual session interval, seconds, at least 90; `None` when the timer is off (PUSH-f).
    pub session_expires_s: Option<u32>,
    /// Whether Via carries `rport` (TX-15).
    pub rport: bool,
    /// Where we listen for MSRP.
    pub msrp_host: IpAddr,
    /// The port there.
    pub msrp_port: u16,
    /// Value of `a=accept-types` (SDP-5).
    pub accept_types: String,
    /// Value of `a=accept-wrapped-types` (SDP-6).
    pub accept_wrapped_types: String,
    /// Whether the offer states `a=msrp-cema` (SDP-9).
    pub cema: bool,
    /// `Actpass`, or `Active` when our address cannot be reached (SDP-8).
    pub setup: Setup,
    /// Where `a=sendonly` stands (PUSH-g).
    pub direction_level: Level,
    /// Value of `a=max-size`, octets; `None` leaves it out (SDP-7).
    pub max_size: Option<u64>,
    /// What follows the `@` of our Call-IDs.
    pub call_id_host: String,
    /// From and P-Asserted-Identity of pushes are left open, for the sender of a message (AMB-16).
    /// Requests outside of pushes cannot be made with it.
    pub sender_in_from: bool,
    /// Further lines of an initial INVITE, each with CRLF; names of headers that we write ourselves are
    /// refused.
    pub extra_lines: String,
}

impl Default for Profile {
    fn default() -> Self {
        let deferred = "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.deferred";
        let pager = "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.msg";
        let product = concat!("CPM-serv/OMA2.2 volley/", env!("CARGO_PKG_VERSION"));
        Self {
            response_source: String::new(),
            sent_by: "pf1.ims.example.net:5060".into(),
            transport: "TCP".into(),
            datagram_max: 0,
            route: "<sip:scscf1.ims.example.net:5060;transport=tcp;lr>".into(),
            originating_route: "<sip:scscf1.ims.example.net:5060;transport=tcp;lr;orig>".into(),
            pf_uri: "sip:cpm-pf@ims.example.net".into(),
            asserted_identity: None,
            contact_uri: "sip:push@pf1.ims.example.net:5060;transport=tcp".into(),
            feature_name: "+g.3gpp.icsi-ref".into(),
            feature_value: deferred.into(),
            message_feature_value: pager.into(),
            accept_require: false,
            accept_explicit: false,
            user_agent: product.into(),
            server: product.into(),
            allow: "INVITE, ACK, CANCEL, BYE, UPDATE, OPTIONS".into(),
            asserted_service: Some(deferred.into()),
            message_asserted_service: Some(pager.into()),
            icid_generated_at: "pf1.ims.example.net".into(),
            orig_ioi: "ims.example.net".into(),
            trusted: true,
            oc: true,
            session_expires_s: Some(1800),
            rport: false,
            msrp_host: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)),
            msrp_port: 2855,
            accept_types: "message/cpim".into(),
            accept_wrapped_types: "*".into(),
            cema: true,
            setup: Setup::Actpass,
            direction_level: Level::Media,
            max_size: None,
            call_id_host: "pf1.ims.example.net".into(),
            sender_in_from: false,
            extra_lines: String::new(),
        }
    }
}

/// A profile that cannot be compiled: the field and what is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProfileError {
    /// Name of the field in [`Profile`].
    pub field: &'static str,
    /// What is wrong.
    pub problem: ProfileProblem,
}

/// What can be wrong with a profile's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProfileProblem {
    /// An octet that its header field or attribute does not allow, among them every line end.
    Character,
    /// Nothing where something is needed.
    Empty,
    /// Out of range, or a role an offer may not have.
    Range,
    /// Not of the form the field needs.
    Syntax,
    /// Longer than [`VALUE_BYTES_MAX`].
    TooLong,
}

impl core::fmt::Display for ProfileError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let problem = match self.problem {
            ProfileProblem::Character => "holds a character that is not allowed there",
            ProfileProblem::Empty => "is empty",
            ProfileProblem::Range => "is out of range",
            ProfileProblem::Syntax => "has not the form it needs",
            ProfileProblem::TooLong => "is too long",
        };
        write!(f, "profile: {} {problem}", self.field)
    }
}

impl core::error::Error for ProfileError {}

/// Longest value of a profile, octets.
pub const VALUE_BYTES_MAX: usize = 512;
/// Least session interval, seconds (ST-1).
const SESSION_EXPIRES_S_MIN: u32 = 90;

type Outcome = Result<(), ProfileError>;

impl Profile {
    pub(super) fn validate(&self) -> Outcome {
        self.validate_addresses()?;
        self.validate_features()?;
        self.validate_media()?;
        check_lines("extra_lines", &self.extra_lines)?;
        let range = ProfileProblem::Range;
        if self
            .session_expires_s
            .is_some_and(|s| s < SESSION_EXPIRES_S_MIN)
        {
            return fail("session_expires_s", range);
        }
        for (field, value) in [
            ("user_agent", &self.user_agent),
            ("server", &self.server),
            ("allow", &self.allow),
        ] {
            check(field, value, |c| (0x20..0x7f).contains(&c))?;
        }
        for (field, value) in [
            ("asserted_service", &self.asserted_service),
            ("message_asserted_service", &self.message_asserted_service),
        ] {
            if let Some(value) = value {
                check(field, value, is_urn_char)?;
            }
        }
        check("icid_generated_at", &self.icid_generated_at, is_host_char)?;
        check("orig_ioi", &self.orig_ioi, |c| is_uri_char(c) && c != b'\\')
    }

    fn validate_addresses(&self) -> Outcome {
        check("sent_by", &self.sent_by, is_host_char)?;
        check("transport", &self.transport, |c| c.is_ascii_alphanumeric())?;
        check("call_id_host", &self.call_id_host, is_host_char)?;
        check_route("route", &self.route, false)?;
        check_route("originating_route", &self.originating_route, true)?;
        check_uri("pf_uri", &self.pf_uri)?;
        check_uri("contact_uri", &self.contact_uri)?;
        match &self.asserted_identity {
            Some(uri) => check_uri("asserted_identity", uri),
            None => Ok(()),
        }
    }

    fn validate_features(&self) -> Outcome {
        check("feature_name", &self.feature_name, |c| {
            c.is_ascii_alphanumeric() || b"+.-_!%'".contains(&c)
        })?;
        for (field, value) in [
            ("feature_value", &self.feature_value),
            ("message_feature_value", &self.message_feature_value),
        ] {
            if !value.is_empty() {
                check(field, value, |c| is_urn_char(c) || c == b',')?;
                if value.split(',').any(str::is_empty) {
                    return fail(field, ProfileProblem::Syntax);
                }
            }
        }
        Ok(())
    }

    fn validate_media(&self) -> Outcome {
        for (field, value) in [
            ("accept_types", &self.accept_types),
            ("accept_wrapped_types", &self.accept_wrapped_types),
        ] {
            check(field, value, |c| {
                c.is_ascii_alphanumeric() || b" */.+-_".contains(&c)
            })?;
        }
        if self.msrp_port == 0 {
            return fail("msrp_port", ProfileProblem::Range);
        }
        if self.msrp_host.is_unspecified() || self.msrp_host.is_multicast() {
            return fail("msrp_host", ProfileProblem::Range);
        }
        match self.setup {
            Setup::Active | Setup::Actpass => Ok(()),
            // RFC 6135 section 4.2 forbids passive in an offer; holdconn would never connect.
            Setup::Holdconn | Setup::Passive => fail("setup", ProfileProblem::Range),
        }
    }
}

const fn fail(field: &'static str, problem: ProfileProblem) -> Outcome {
    Err(ProfileError { field, problem })
}

fn check(field: &'static str, value: &str, allowed: impl Fn(u8) -> bool) -> Outcome {
    if value.is_empty() {
        return fail(field, ProfileProblem::Empty);
    }
    if value.len() > VALUE_BYTES_MAX {
        return fail(field, ProfileProblem::TooLong);
    }
    if value.bytes().all(allowed) {
        Ok(())
    } else {
        fail(field, ProfileProblem::Character)
    }
}

fn check_uri(field: &'static str, value: &str) -> Outcome {
    check(field, value, is_uri_char)?;
    let has_scheme = ["sip:", "sips:", "tel:"].iter().any(|scheme| {
        value.len() > scheme.len() && value.as_bytes().starts_with(scheme.as_bytes())
    });
    if has_scheme {
        Ok(())
    } else {
        fail(field, ProfileProblem::Syntax)
    }
}

fn check_route(field: &'static str, value: &str, originating: bool) -> Outcome {
    let uri = value
        .strip_prefix('<')
        .and_then(|rest| rest.strip_suffix('>'));
    let Some(uri) = uri else {
        return fail(field, ProfileProblem::Syntax);
    };
    check_uri(field, uri)?;
    let has = |name: &str| uri.split(';').skip(1).any(|parameter| parameter == name);
    // A loose route, and `orig` exactly where we act for the originating user (IMS-1).
    if has("lr") && has("orig") == originating {
        Ok(())
    } else {
        fail(field, ProfileProblem::Syntax)
    }
}

/// Headers that requests have of ours.
const OWN_HEADERS: [&str; 27] = [
    "via",
    "v",
    "max-forwards",
    "route",
    "record-route",
    "from",
    "f",
    "to",
    "t",
    "call-id",
    "i",
    "cseq",
    "contact",
    "m",
    "p-asserted-identity",
    "p-asserted-service",
    "p-charging-vector",
    "user-agent",
    "allow",
    "supported",
    "k",
    "session-expires",
    "x",
    "content-type",
    "c",
    "content-length",
    "l",
];

/// Whole header lines of others than ours.
fn check_lines(field: &'static str, lines: &str) -> Outcome {
    let mut rest = lines;
    while !rest.is_empty() {
        let Some((line, after)) = rest.split_once("\r\n") else {
            return fail(field, ProfileProblem::Syntax);
        };
        let Some((name, value)) = line.split_once(": ") else {
            return fail(field, ProfileProblem::Syntax);
        };
        check(field, name, |c| c.is_ascii_alphanumeric() || c == b'-')?;
        check(field, value, |c| (0x20..0x7f).contains(&c))?;
        if OWN_HEADERS.iter().any(|own| name.eq_ignore_ascii_case(own)) {
            return fail(field, ProfileProblem::Range);
        }
        rest = after;
    }
    Ok(())
}

/// Visible ASCII without the characters that end a name-addr or a quoted string.
const fn is_uri_char(c: u8) -> bool {
    c.is_ascii_graphic() && !matches!(c, b'<' | b'>' | b'"')
}

const fn is_host_char(c: u8) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_' | b':' | b'[' | b']')
}

const fn is_urn_char(c: u8) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_' | b':' | b'+' | b'/' | b'=')
}
