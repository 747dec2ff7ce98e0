//! `volley explain`: why the devices of a recorded NOTIFY would get a push, or none. It runs the
//! functions that a shard runs: the parser, the registration reader, the merge, the rules, the decision.

use std::fmt;
use std::fmt::Write as _;

use serde_json::json;

use crate::base::slab::Key;
use crate::base::surface::Location;
use crate::base::time::{Timestamp, UnixMillis};
use crate::cpim::datetime;
use crate::push::campaign;
use crate::push::codes;
use crate::push::inspect::{self, DeviceReport, UserReport};
use crate::reginfo::document::Document;
use crate::reginfo::scan::ReginfoError;
use crate::registry::features::KnownLists;
use crate::registry::{BindingId, DeviceState, RegistryOptions, User};
use crate::selection::Moment;
use crate::selection::rules::RuleBook;
use crate::sip::message::HeaderTable;
use crate::sip::{parser, uri};
use crate::store::index::{Mailbox, NewEntry, Quota};
use crate::store::op::Hints;

/// The moment of an explanation on the monotonic clock; far from its start, so that times before it
/// exist.
const NOW: Timestamp = Timestamp::from_millis(1 << 40);

/// A message that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Octets of its CPIM.
    pub bytes: u32,
    /// Its content type.
    pub content_type: Vec<u8>,
    /// Life left, seconds.
    pub life_s: u32,
    /// Key of the only device it is for; zero for all.
    pub target: u64,
}

impl Default for Waiting {
    fn default() -> Self {
        Self {
            bytes: 300,
            content_type: b"text/plain".to_vec(),
            life_s: 3600,
            target: 0,
        }
    }
}

/// What a device's past is assumed to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    /// Its last attempt failed; the next may start this many seconds later.
    Backoff(u32),
    /// A push to it is open.
    Busy,
    /// It is left alone for this many seconds.
    Quarantine(u32),
    /// It roams.
    Roaming,
    /// It waits for its registration to change.
    Wait,
}

/// Everything a decision looks at.
#[derive(Clone, Debug)]
pub struct Inputs<'a> {
    /// A NOTIFY, or the document of one.
    pub notify: &'a [u8],
    /// Rules of provider and users.
    pub rules: &'a RuleBook,
    /// How documents are read.
    pub registry: &'a RegistryOptions,
    /// Names of the dialects, by their index.
    pub dialects: &'a [String],
    /// Home domains; empty serves everybody.
    pub domains: &'a [Vec<u8>],
    /// The messages that wait.
    pub waiting: &'a [Waiting],
    /// Pasts of devices, by their keys; others have none.
    pub pasts: &'a [(u64, Past)],
    /// The moment.
    pub at: UnixMillis,
    /// INVITEs that next hops take now.
    pub tokens: u32,
}

/// Why nothing can be explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExplainError {
    /// The message is no NOTIFY that parses.
    Message,
    /// The registration document is not to be read.
    Document(ReginfoError),
    /// It names no user.
    Nobody,
}

impl fmt::Display for ExplainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message => f.write_str(
                "this is no SIP message that parses; give a NOTIFY as it came, or its reginfo document",
            ),
            Self::Document(error) => {
                write!(f, "the registration document cannot be read: {error:?}")
            }
            Self::Nobody => f.write_str("the registration document names no public identity"),
        }
    }
}

impl std::error::Error for ExplainError {}

/// A decision with its inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The moment.
    pub at: UnixMillis,
    /// The user, its devices, and the verdicts.
    pub user: UserReport,
    /// The ICSIs that are read, by their bits.
    pub icsis: Vec<String>,
    /// Names of the dialects.
    pub dialects: Vec<String>,
    /// What waits.
    pub waiting: Vec<Waiting>,
}

/// Decides for the user of a recorded NOTIFY.
///
/// # Errors
/// When the NOTIFY cannot be read or names nobody.
pub fn explain(inputs: &Inputs<'_>) -> Result<Explanation, ExplainError> {
    let mut document = Document::new();
    let mut table = HeaderTable::default();
    document
        .parse(body_of(inputs.notify, &mut table)?)
        .map_err(ExplainError::Document)?;
    let mut user = user_of(&document, inputs)?;
    user.apply(NOW, &document, inputs.registry, &mut KnownLists::default());
    user.ruling = campaign::ruling_of(inputs.rules, &user);
    for (key, past) in inputs.pasts {
        if let Some(device) = user.device_mut(*key) {
            let binding = device.binding;
            assume(device, *past, binding);
        }
    }
    let mailbox = mailbox_of(inputs);
    let moment = Moment {
        now: NOW,
        wall: inputs.at,
        tokens: inputs.tokens,
    };
    let report = inspect::inspect((&user, Some(&mailbox)), inputs.rules, moment);
    let names = inputs.registry.accepted_icsi.iter();
    Ok(Explanation {
        at: inputs.at,
        user: report,
        icsis: names.map(|icsi| inspect::escaped(icsi)).collect(),
        dialects: inputs.dialects.to_vec(),
        waiting: inputs.waiting.to_vec(),
    })
}

/// The document, out of its NOTIFY if it is in one.
fn body_of<'a>(notify: &'a [u8], table: &mut HeaderTable) -> Result<&'a [u8], ExplainError> {
    let start = notify.trim_ascii_start();
    if start.starts_with(b"<") || start.starts_with(b"\xef\xbb\xbf") {
        return Ok(start);
    }
    let message = parser::parse(start, table).map_err(|_| ExplainError::Message)?;
    let len = message.body().len();
    Ok(&start[start.len() - len..])
}

fn user_of(document: &Document, inputs: &Inputs<'_>) -> Result<User, ExplainError> {
    let named = document.registrations.iter().find_map(|registration| {
        let identity = document.text(registration.aor).trim_ascii();
        let mut canonical = Vec::new();
        uri::canonical_identity(identity, &mut canonical).ok()?;
        Some((identity, canonical))
    });
    let (identity, canonical) = named.ok_or(ExplainError::Nobody)?;
    let mut user = User::default();
    user.reset(&canonical);
    user.identity.extend_from_slice(identity);
    user.served =
        inputs.domains.is_empty() || crate::shard::serves(inputs.domains, identity, &canonical);
    Ok(user)
}

fn assume(device: &mut crate::registry::Device, past: Past, binding: BindingId) {
    let after = |seconds: u32| NOW + core::time::Duration::from_secs(u64::from(seconds));
    match past {
        Past::Backoff(seconds) => {
            device.history = DeviceState::Backoff {
                until: after(seconds),
                tries: 1,
                firm: false,
            };
        }
        Past::Busy => {
            device.pushing = Some(Key {
                slot: 0,
                generation: 0,
            });
        }
        Past::Quarantine(seconds) => {
            let until = after(seconds);
            device.history = DeviceState::Quarantine { binding, until };
        }
        Past::Roaming => device.roaming = Some(true),
        Past::Wait => {
            let not_before = NOW;
            device.history = DeviceState::WaitRegistration {
                binding,
                not_before,
            };
        }
    }
}

fn mailbox_of(inputs: &Inputs<'_>) -> Mailbox {
    let mut mailbox = Mailbox::default();
    let now_s = u32::try_from(inputs.at.as_secs()).unwrap_or(u32::MAX);
    let quota = Quota {
        messages_max: u32::MAX,
        bytes_max: u64::MAX,
    };
    for (number, message) in (1..).zip(inputs.waiting) {
        let new = NewEntry {
            number,
            expires_s: now_s.saturating_add(message.life_s),
            bytes: message.bytes,
            target: message.target,
            hints: Hints::of(&message.content_type, b""),
            ..NewEntry::default()
        };
        mailbox.admit(&quota, now_s, &new);
        mailbox.stored(number, Location::default());
    }
    while mailbox.poll_expired(now_s).is_some() {}
    mailbox
}

pub(super) fn time_text(at: UnixMillis) -> String {
    let mut text = Vec::new();
    datetime::encode(at, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

impl Explanation {
    /// Whether somebody would get a push.
    #[must_use]
    pub fn selects(&self) -> bool {
        self.user.selected() > 0
    }

    fn icsi_names(&self, bits: u32) -> Vec<&str> {
        let names = self.icsis.iter().enumerate();
        names
            .filter(|(bit, _)| bits >> bit & 1 == 1)
            .map(|(_, name)| name.rsplit('.').next().unwrap_or(name))
            .collect()
    }

    fn dialect(&self, device: &DeviceReport) -> &str {
        let at = usize::from(device.dialect);
        self.dialects.get(at).map_or("plain", String::as_str)
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out)
            .expect("writing to a String cannot fail");
        out
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        let user = &self.user;
        writeln!(out, "at {}", time_text(self.at))?;
        writeln!(out, "user {} ({})", user.canonical, user.identity)?;
        match user.policy_line {
            0 if user.ruling.policy == 0 => writeln!(out, "  policy: the provider's own")?,
            0 => writeln!(out, "  policy: barred")?,
            line => writeln!(out, "  policy: override at line {line}")?,
        }
        writeln!(
            out,
            "  accepted: {}",
            self.icsi_names(user.accepted).join(" ")
        )?;
        match user.preference_line {
            0 => writeln!(out, "  preferences: none")?,
            line => writeln!(out, "  preferences: those at line {line}")?,
        }
        for message in &self.waiting {
            let kind = inspect::escaped(&message.content_type);
            writeln!(
                out,
                "  message: {} octets, {kind}, {} s left",
                message.bytes, message.life_s
            )?;
        }
        if let Some(verdict) = user.verdict {
            let (step, rule) = verdict.rule();
            let step = step.unwrap_or_default();
            write!(out, "  {}: step {step}, {rule}", verdict.code())?;
            write_until(out, user.until)?;
        }
        for device in &user.devices {
            self.write_device(out, device)?;
        }
        writeln!(
            out,
            "{} of {} devices selected",
            user.selected(),
            user.devices.len()
        )
    }

    fn write_device(&self, out: &mut String, device: &DeviceReport) -> fmt::Result {
        writeln!(out, "device {}", device.instance)?;
        let expires = device.expires_in.map_or_else(
            || "unsaid".to_owned(),
            |left| format!("{} s", left.as_secs()),
        );
        writeln!(
            out,
            "  registered: {}, expires {expires}, q {}.{:03}, services: {}",
            if device.active { "yes" } else { "no" },
            device.q / 1000,
            device.q % 1000,
            self.icsi_names(device.icsi).join(" ")
        )?;
        writeln!(
            out,
            "  addressed by {} {}, dialect {}, past: {}{}",
            device.rule.as_str(),
            device.target,
            self.dialect(device),
            device.state,
            match device.roaming {
                Some(true) => ", roams",
                Some(false) => ", at home",
                None => "",
            }
        )?;
        let (step, rule) = device.verdict.rule();
        write!(out, "  {}: ", device.verdict.code())?;
        if let Some(step) = step {
            write!(out, "step {step}, ")?;
        }
        write!(out, "{rule}")?;
        if let Some(place) = device.place {
            write!(out, ", number {}", place + 1)?;
        }
        write_until(out, device.until)?;
        let Some(ago) = device.last_ago else {
            return Ok(());
        };
        write!(out, "  last attempt {} s ago:", ago.as_secs())?;
        if device.last.status > 0 {
            write!(out, " {}", device.last.status)?;
        }
        let words = codes::words(device.last.code);
        writeln!(out, " {} ({words}) {}", device.last.code, device.note)
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let user = &self.user;
        let devices: Vec<serde_json::Value> = user
            .devices
            .iter()
            .map(|device| {
                let (step, rule) = device.verdict.rule();
                json!({
                    "instance": device.instance,
                    "active": device.active,
                    "expires_s": device.expires_in.map(|left| left.as_secs()),
                    "q": f64::from(device.q) / 1000.0,
                    "icsi": self.icsi_names(device.icsi),
                    "roaming": device.roaming,
                    "addressed_by": device.rule.as_str(),
                    "target": device.target,
                    "dialect": self.dialect(device),
                    "contact": device.contact,
                    "past": device.state,
                    "last": device.last_ago.map(|ago| json!({
                        "ago_s": ago.as_secs(),
                        "status": device.last.status,
                        "code": device.last.code,
                        "meaning": codes::words(device.last.code),
                        "note": device.note,
                    })),
                    "verdict": device.verdict.code(),
                    "step": step,
                    "rule": rule,
                    "place": device.place.map(|place| place + 1),
                    "until": device.until.map(time_text),
                })
            })
            .collect();
        let waiting: Vec<serde_json::Value> = self
            .waiting
            .iter()
            .map(|message| {
                json!({
                    "bytes": message.bytes,
                    "content_type": inspect::escaped(&message.content_type),
                    "life_s": message.life_s,
                })
            })
            .collect();
        json!({
            "at": time_text(self.at),
            "user": user.canonical,
            "identity": user.identity,
            "barred": user.ruling.policy == 1,
            "policy_line": user.policy_line,
            "preference_line": user.preference_line,
            "accepted": self.icsi_names(user.accepted),
            "messages": waiting,
            "verdict": user.verdict.map(crate::selection::Verdict::code),
            "rule": user.verdict.map(|verdict| verdict.rule().1),
            "step": user.verdict.and_then(|verdict| verdict.rule().0),
            "until": user.until.map(time_text),
            "devices": devices,
            "selected": user.selected(),
        })
    }
}

fn write_until(out: &mut String, until: Option<UnixMillis>) -> fmt::Result {
    match until {
        Some(until) => writeln!(out, ", until {}", time_text(until)),
        None => writeln!(out),
    }
}

#[cfg(test)]
mod tests;
