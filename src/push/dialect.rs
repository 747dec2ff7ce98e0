//! Handset dialects as data: what a push looks like to devices of one kind (layer 3).
//!
//! The seed's form is the plain dialect. Handsets that were written against other documents want another
//! service tag, another asserted identity, one message per session, or the sender named in the INVITE.
//! A [`DialectOptions`] says how a dialect differs from the profile; it is compiled at start, and a
//! device keeps the index of its own ([`DialectRules`](crate::registry::features::DialectRules)).

use crate::msrp::session::SessionOptions;
use crate::push::hops::SetOptions;
use crate::push::options::{Grouping, PushOptions};
use crate::sdp::Setup;
use crate::sip::template::{Profile, ProfileError, Templates};

/// Dialects of one engine, the plain one included.
pub const DIALECTS_MAX: usize = 16;

/// How a dialect differs from the profile. Default: not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialectOptions {
    /// Its name.
    pub name: String,
    /// The service in Contact, Accept-Contact and P-Asserted-Service, a plain URN.
    pub icsi: Option<String>,
    /// Value of User-Agent (PUSH-c).
    pub user_agent: Option<String>,
    /// URI of P-Asserted-Identity (PUSH-j).
    pub asserted_identity: Option<String>,
    /// Name the sender of the first message in Referred-By.
    pub referred_by: bool,
    /// From and P-Asserted-Identity are the sender of the first message (AMB-16).
    pub from_sender: bool,
    /// Ask for success reports (MSRP-8). Without them a next hop's 200 is all there is to wait for.
    pub success_report: bool,
    /// Who connects (SDP-8).
    pub setup: Option<Setup>,
    /// Offer `a=msrp-cema` (SDP-9).
    pub cema: Option<bool>,
    /// What a session carries (AMB-2).
    pub grouping: Option<Grouping>,
    /// Further lines of the INVITE, each with CRLF.
    pub extra_lines: String,
}

impl Default for DialectOptions {
    fn default() -> Self {
        Self {
            name: "plain".to_owned(),
            icsi: None,
            user_agent: None,
            asserted_identity: None,
            referred_by: false,
            from_sender: false,
            success_report: true,
            setup: None,
            cema: None,
            grouping: None,
            extra_lines: String::new(),
        }
    }
}

impl DialectOptions {
    /// The profile of pushes in this dialect.
    #[must_use]
    pub fn applied_to(&self, profile: &Profile) -> Profile {
        let mut profile = profile.clone();
        if let Some(icsi) = &self.icsi {
            profile.feature_value.clone_from(icsi);
            if profile.asserted_service.is_some() {
                profile.asserted_service = Some(icsi.clone());
            }
        }
        if let Some(user_agent) = &self.user_agent {
            profile.user_agent.clone_from(user_agent);
        }
        if self.asserted_identity.is_some() {
            profile
                .asserted_identity
                .clone_from(&self.asserted_identity);
        }
        profile.setup = self.setup.unwrap_or(profile.setup);
        profile.cema = self.cema.unwrap_or(profile.cema);
        profile.sender_in_from = self.from_sender;
        profile.extra_lines.push_str(&self.extra_lines);
        profile
    }
}

/// The requests of one profile: with each Route, and over each transport.
#[derive(Debug)]
pub struct Forms {
    /// As the profile says.
    pub common: Templates,
    /// With the Route of each S-CSCF that has hops of its own.
    sets: Vec<Templates>,
    /// Over streams, where datagrams are the rule.
    stream: Option<Templates>,
}

impl Forms {
    /// Compiles `profile` with the Route of each of `sets`.
    ///
    /// # Errors
    /// As [`Templates::compile`].
    pub fn compile(profile: &Profile, sets: &[SetOptions]) -> Result<Self, ProfileError> {
        let with_route = |set: &SetOptions| Templates::compile(&set.applied_to(profile));
        let stream = (profile.transport == "UDP").then(|| Profile {
            transport: "TCP".to_owned(),
            datagram_max: 0,
            contact_uri: profile
                .contact_uri
                .replace("transport=udp", "transport=tcp"),
            ..profile.clone()
        });
        Ok(Self {
            common: Templates::compile(profile)?,
            sets: sets.iter().map(with_route).collect::<Result<_, _>>()?,
            stream: stream.as_ref().map(Templates::compile).transpose()?,
        })
    }

    /// What is sent for a user of `set`, over a stream or not.
    #[must_use]
    #[inline]
    pub fn of(&self, set: u8, stream: bool) -> &Templates {
        if let Some(templates) = &self.stream
            && stream
        {
            return templates;
        }
        let own = usize::from(set).checked_sub(1);
        own.and_then(|place| self.sets.get(place))
            .unwrap_or(&self.common)
    }
}

/// A dialect, compiled.
#[derive(Debug)]
pub struct Dialect {
    /// Its requests.
    pub forms: Forms,
    /// `Contact` line of our responses in a push dialog.
    pub contact_line: Vec<u8>,
    /// URI of From while no sender is to be named.
    pub pf_uri: Vec<u8>,
    /// Whether our offer states `a=msrp-cema`.
    pub cema: bool,
    /// What our offer says on who connects.
    pub setup: Setup,
    /// Ask for success reports.
    pub success_report: bool,
    /// Name the sender in Referred-By.
    pub referred_by: bool,
    /// From is the sender.
    pub from_sender: bool,
    /// What a session carries.
    pub grouping: Grouping,
    /// Options of the MSRP machine.
    pub session: SessionOptions,
}

impl Dialect {
    /// Compiles a dialect of `profile`.
    ///
    /// # Errors
    /// As [`Templates::compile`].
    pub fn compile(
        dialect: &DialectOptions,
        profile: &Profile,
        sets: &[SetOptions],
        options: &PushOptions,
    ) -> Result<Self, ProfileError> {
        let profile = dialect.applied_to(profile);
        let feature = profile.feature_value.replace(':', "%3A");
        let mut session = options.session;
        if !dialect.success_report {
            session.report_wait = core::time::Duration::ZERO;
            session.accept_hop_ack = true;
        }
        Ok(Self {
            forms: Forms::compile(&profile, sets)?,
            contact_line: format!(
                "Contact: <{}>;{}=\"{feature}\";automata\r\n",
                profile.contact_uri, profile.feature_name
            )
            .into_bytes(),
            pf_uri: profile.pf_uri.clone().into_bytes(),
            cema: profile.cema,
            setup: profile.setup,
            success_report: dialect.success_report,
            referred_by: dialect.referred_by,
            from_sender: dialect.from_sender,
            grouping: dialect.grouping.unwrap_or(options.grouping),
            session,
        })
    }
}
