//! The policy file: rules of the provider and of users (section 9.3, inputs S and U), compiled for the
//! shards. As strict as the configuration file.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use crate::config::Config;
use crate::config::error::{ConfigError, Problem, line_of};
use crate::registry::device_key;
use crate::registry::features::ICSIS_MAX;
use crate::selection::rules::{
    DeviceMedia, INSTANCES_MAX, Preference, QUIET_MAX, Quiet, RuleBook, Whose,
};
use crate::selection::{Fanout, Policy};
use crate::sip::uri;
use crate::store::op::{MediaClass, MediaLimit};

/// A complete file, for `volley policy --example`.
pub const EXAMPLE: &str = include_str!("policy.toml");

/// Services that are read from registrations whether or not the configuration accepts them, so that a
/// policy may.
pub const WELL_KNOWN_ICSIS: [&str; 5] = [
    "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.deferred",
    "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg",
    "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.msg",
    "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.session",
    "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.filetransfer",
];

/// Every service that is read from registrations, those accepted by default first. At most
/// [`ICSIS_MAX`].
#[must_use]
pub fn known_icsis(config: &Config) -> Vec<String> {
    let mut known = config.identity.accepted_icsi.clone();
    let dialects = config.dialect.iter();
    let matched =
        dialects.flat_map(|dialect| dialect.match_icsi.iter().chain(&dialect.unless_icsi));
    let others = matched.map(String::as_str).chain(WELL_KNOWN_ICSIS);
    for name in others.chain([config.identity.icsi.as_str()]) {
        if !known.iter().any(|icsi| icsi.eq_ignore_ascii_case(name)) {
            known.push(name.to_owned());
        }
    }
    known
}

/// The provider's policy as far as the configuration file has it.
#[must_use]
pub fn base_policy(config: &Config) -> Policy {
    let selection = &config.selection;
    let accepted = config.identity.accepted_icsi.len().min(ICSIS_MAX - 1);
    Policy {
        accepted: (1 << accepted) - 1,
        min_remaining: Duration::from_secs(selection.min_remaining_s),
        assume_when_silent: selection.assume_when_silent,
        devices_max: u8::try_from(selection.max_devices).unwrap_or(u8::MAX),
        ..Policy::default()
    }
}

/// What a policy file builds upon.
#[derive(Clone, Debug)]
pub struct Base {
    /// The provider's policy where the file says nothing.
    pub policy: Policy,
    /// The services a policy can accept, in the order of their bits.
    pub icsis: Vec<String>,
}

impl Base {
    /// What `config` says.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            policy: base_policy(config),
            icsis: known_icsis(config),
        }
    }
}

impl Default for Base {
    /// What a configuration file without those keys says.
    fn default() -> Self {
        Self {
            policy: Policy {
                accepted: 0b111,
                ..Policy::default()
            },
            icsis: WELL_KNOWN_ICSIS.map(str::to_owned).to_vec(),
        }
    }
}

/// The rules of `config`: those of its policy file, if it names one.
///
/// # Errors
/// When the file cannot be read, does not parse, or a value cannot work.
pub fn load(config: &Config) -> Result<RuleBook, ConfigError> {
    let base = Base::of(config);
    match &config.selection.policy {
        Some(path) => load_file(path, &base),
        None => Ok(RuleBook::new(base.policy)),
    }
}

/// The rules of the file at `path`.
///
/// # Errors
/// As [`load`].
pub fn load_file(path: &Path, base: &Base) -> Result<RuleBook, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|error| ConfigError::unreadable(path, &error))?;
    parse(path, &text, base)
}

/// The rules that `text` says; `path` is only named in errors.
///
/// # Errors
/// As [`load`].
pub fn parse(path: &Path, text: &str, base: &Base) -> Result<RuleBook, ConfigError> {
    let file: File =
        toml::from_str(text).map_err(|error| ConfigError::syntax(path, text, &error))?;
    let compiler = Compiler { text, base };
    compiler
        .compile(&file)
        .map_err(|(at, problem)| ConfigError::at(path, text, at, problem))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    provider: Provider,
    #[serde(rename = "override")]
    overrides: Vec<Spanned<Override>>,
    preferences: Vec<Spanned<Wishes>>,
}

/// `[provider]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Provider {
    accepted_icsi: Option<Vec<Spanned<String>>>,
    assume_when_silent: Option<bool>,
    barred: Vec<Spanned<String>>,
    fanout: Option<Spanned<FanoutWord>>,
    max_devices: Option<Spanned<u32>>,
    min_remaining_s: Option<Spanned<u64>>,
    roaming: Option<bool>,
    stopped: Option<bool>,
}

/// `[[override]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Override {
    users: Vec<Spanned<String>>,
    accepted_icsi: Option<Vec<Spanned<String>>>,
    assume_when_silent: Option<bool>,
    fanout: Option<Spanned<FanoutWord>>,
    max_devices: Option<Spanned<u32>>,
    min_remaining_s: Option<Spanned<u64>>,
    roaming: Option<bool>,
    stopped: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum FanoutWord {
    Number(u32),
    Word(String),
}

/// `mode`
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Push,
    Hold,
}

/// `[[preferences]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wishes {
    users: Vec<Spanned<String>>,
    #[serde(default)]
    mode: Mode,
    #[serde(default)]
    quiet: Vec<Spanned<String>>,
    utc_offset: Option<Spanned<String>>,
    #[serde(default)]
    allow: Vec<Spanned<String>>,
    #[serde(default)]
    deny: Vec<Spanned<String>>,
    priority: Option<Spanned<String>>,
    #[serde(default)]
    device: Vec<Spanned<DeviceWishes>>,
}

/// `[[preferences.device]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceWishes {
    instance: Spanned<String>,
    max_size: Option<u32>,
    types: Option<Vec<Spanned<String>>>,
}

/// What is wrong, and the octet of the text where it stands.
type Fault = (usize, Problem);

fn fault<T>(
    at: &Spanned<T>,
    key: &'static str,
    what: impl Into<String>,
    remedy: &'static str,
) -> Fault {
    let what = what.into();
    (at.span().start, Problem { key, what, remedy })
}

/// The keys that `[provider]` and `[[override]]` share.
struct Changes<'a> {
    accepted_icsi: &'a Option<Vec<Spanned<String>>>,
    assume_when_silent: Option<bool>,
    fanout: &'a Option<Spanned<FanoutWord>>,
    max_devices: &'a Option<Spanned<u32>>,
    min_remaining_s: &'a Option<Spanned<u64>>,
    roaming: Option<bool>,
    stopped: Option<bool>,
}

/// Whose a rule is, in canonical form.
enum Owner {
    Identity(Vec<u8>),
    Pattern(Vec<u8>),
}

impl Owner {
    fn whose(&self) -> Whose<'_> {
        match self {
            Self::Identity(text) => Whose::Identity(text),
            Self::Pattern(text) => Whose::Pattern(text),
        }
    }
}

struct Compiler<'a> {
    text: &'a str,
    base: &'a Base,
}

impl Compiler<'_> {
    fn compile(&self, file: &File) -> Result<RuleBook, Fault> {
        let provider = &file.provider;
        let own = self.policy(
            self.base.policy,
            &Changes {
                accepted_icsi: &provider.accepted_icsi,
                assume_when_silent: provider.assume_when_silent,
                fanout: &provider.fanout,
                max_devices: &provider.max_devices,
                min_remaining_s: &provider.min_remaining_s,
                roaming: provider.roaming,
                stopped: provider.stopped,
            },
        )?;
        let mut book = RuleBook::new(own);
        let mut seen = Seen::default();
        for user in &provider.barred {
            let owner = seen.owner(user, "provider.barred")?;
            book.bar(owner.whose())
                .map_err(|_| full(user, "provider.barred"))?;
        }
        let mut seen = Seen::default();
        for spanned in &file.overrides {
            let it = spanned.get_ref();
            let policy = self.policy(
                own,
                &Changes {
                    accepted_icsi: &it.accepted_icsi,
                    assume_when_silent: it.assume_when_silent,
                    fanout: &it.fanout,
                    max_devices: &it.max_devices,
                    min_remaining_s: &it.min_remaining_s,
                    roaming: it.roaming,
                    stopped: it.stopped,
                },
            )?;
            let policy = Policy {
                line: self.line(spanned),
                ..policy
            };
            let rule = book
                .add_policy(policy)
                .map_err(|_| full(spanned, "override"))?;
            for user in somebody(spanned, &it.users, "override.users")? {
                let owner = seen.owner(user, "override.users")?;
                book.give_policy(owner.whose(), rule)
                    .map_err(|_| full(user, "override.users"))?;
            }
        }
        let mut seen = Seen::default();
        for spanned in &file.preferences {
            let wishes = spanned.get_ref();
            let preference = self.preference(spanned)?;
            let rule = book
                .add_preference(preference)
                .map_err(|_| full(spanned, "preferences"))?;
            for user in somebody(spanned, &wishes.users, "preferences.users")? {
                let owner = seen.owner(user, "preferences.users")?;
                book.give_preference(owner.whose(), rule)
                    .map_err(|_| full(user, "preferences.users"))?;
            }
        }
        book.seal()
            .expect("an identity named twice was refused with its line");
        Ok(book)
    }

    fn line<T>(&self, at: &Spanned<T>) -> u32 {
        u32::try_from(line_of(self.text, at.span().start)).unwrap_or(u32::MAX)
    }

    fn policy(&self, before: Policy, changes: &Changes<'_>) -> Result<Policy, Fault> {
        let mut policy = before;
        if let Some(names) = changes.accepted_icsi {
            policy.accepted = 0;
            for name in names {
                policy.accepted |= 1 << self.icsi(name)?;
            }
        }
        if let Some(fanout) = changes.fanout {
            policy.fanout = fanout_of(fanout)?;
        }
        if let Some(max) = changes.max_devices {
            let devices = *max.get_ref();
            if !(1..=64).contains(&devices) {
                return Err(fault(
                    max,
                    "max_devices",
                    format!("{devices} is out of range"),
                    "use 1 to 64",
                ));
            }
            policy.devices_max = u8::try_from(devices).expect("at most 64");
        }
        if let Some(min) = changes.min_remaining_s {
            let seconds = *min.get_ref();
            if seconds > 86_400 {
                return Err(fault(
                    min,
                    "min_remaining_s",
                    format!("{seconds} s would leave hardly any device"),
                    "use at most 86400",
                ));
            }
            policy.min_remaining = Duration::from_secs(seconds);
        }
        policy.assume_when_silent = changes
            .assume_when_silent
            .unwrap_or(policy.assume_when_silent);
        policy.allow_roaming = changes.roaming.unwrap_or(policy.allow_roaming);
        policy.stopped = changes.stopped.unwrap_or(policy.stopped);
        Ok(policy)
    }

    /// The bit of a service.
    fn icsi(&self, name: &Spanned<String>) -> Result<usize, Fault> {
        let known = &self.base.icsis;
        let is_it = |icsi: &String| icsi.eq_ignore_ascii_case(name.get_ref());
        known.iter().position(is_it).ok_or_else(|| {
            fault(
                name,
                "accepted_icsi",
                format!("`{}` is not read from registrations", name.get_ref()),
                "name it in identity.accepted_icsi of the configuration file and start anew: what \
                 devices registered of it before would not be known",
            )
        })
    }

    fn preference(&self, spanned: &Spanned<Wishes>) -> Result<Preference, Fault> {
        let wishes = spanned.get_ref();
        let utc_offset_min = match &wishes.utc_offset {
            Some(offset) => offset_of(offset)?,
            None => 0,
        };
        too_many(&wishes.quiet, QUIET_MAX, "preferences.quiet")?;
        too_many(&wishes.allow, INSTANCES_MAX, "preferences.allow")?;
        too_many(&wishes.deny, INSTANCES_MAX, "preferences.deny")?;
        let instances = |list: &[Spanned<String>]| -> Result<Vec<u64>, Fault> {
            list.iter().map(key_of).collect()
        };
        let mut media = Vec::new();
        for device in &wishes.device {
            media.push(device_media(device, &media)?);
        }
        if media.len() > INSTANCES_MAX {
            return Err(full(spanned, "preferences.device"));
        }
        Ok(Preference {
            hold: wishes.mode == Mode::Hold,
            quiet: wishes
                .quiet
                .iter()
                .map(quiet_of)
                .collect::<Result<_, _>>()?,
            utc_offset_min,
            allow: instances(&wishes.allow)?,
            deny: instances(&wishes.deny)?,
            priority: wishes.priority.as_ref().map_or(Ok(0), key_of)?,
            media,
            line: self.line(spanned),
        })
    }
}

/// Identities named so far by rules of one kind.
#[derive(Default)]
struct Seen(std::collections::BTreeSet<Vec<u8>>);

impl Seen {
    fn owner(&mut self, user: &Spanned<String>, key: &'static str) -> Result<Owner, Fault> {
        let owner = owner_of(user, key)?;
        if let Owner::Identity(identity) = &owner
            && !self.0.insert(identity.clone())
        {
            return Err(fault(
                user,
                key,
                format!("`{}` is named twice", user.get_ref()),
                "name each identity in one rule, however it is spelled",
            ));
        }
        Ok(owner)
    }
}

fn full<T>(at: &Spanned<T>, key: &'static str) -> Fault {
    fault(
        at,
        key,
        "this is one rule more than there is room for",
        "use patterns (`*@host`, `+49*`) or let users share an entry",
    )
}

fn somebody<'a, T>(
    entry: &Spanned<T>,
    users: &'a [Spanned<String>],
    key: &'static str,
) -> Result<&'a [Spanned<String>], Fault> {
    if users.is_empty() {
        let remedy = "name identities or patterns, or leave the entry out";
        return Err(fault(entry, key, "the list is empty", remedy));
    }
    Ok(users)
}

fn too_many(list: &[Spanned<String>], max: usize, key: &'static str) -> Result<(), Fault> {
    match list.get(max) {
        Some(over) => Err(fault(
            over,
            key,
            format!("more than {max} entries"),
            "shorten the list",
        )),
        None => Ok(()),
    }
}

/// An identity or a pattern, as the registry spells it.
fn owner_of(user: &Spanned<String>, key: &'static str) -> Result<Owner, Fault> {
    let text = user.get_ref().trim();
    let wrong = |what: String| {
        fault(
            user,
            key,
            what,
            "write an identity (sip:user@host, tel:+49...), or a pattern of one (*@host, +49*)",
        )
    };
    if text.contains('*') {
        let text = ["sip:", "sips:", "tel:"]
            .iter()
            .find_map(|scheme| text.strip_prefix(scheme))
            .unwrap_or(text);
        let (name, host) = text.split_once('@').unwrap_or((text, ""));
        if name.starts_with('+') && !host.is_empty() {
            return Err(wrong(format!(
                "`{text}`: a number is known without its host"
            )));
        }
        if text.contains([';', '?']) || text.contains(char::is_whitespace) {
            return Err(wrong(format!("`{text}`: parameters are not looked at")));
        }
        let mut pattern = name.as_bytes().to_vec();
        if text.contains('@') {
            pattern.push(b'@');
            pattern.extend(host.bytes().map(|c| c.to_ascii_lowercase()));
        }
        return Ok(Owner::Pattern(pattern));
    }
    let full = if text.starts_with('+') {
        format!("tel:{text}")
    } else if text.contains(':') {
        text.to_owned()
    } else {
        format!("sip:{text}")
    };
    let mut canonical = Vec::new();
    if !text.contains(['@', '+'])
        || uri::canonical_identity(full.as_bytes(), &mut canonical).is_err()
    {
        return Err(wrong(format!("`{text}` is no public identity")));
    }
    Ok(Owner::Identity(canonical))
}

/// The key of a device by its instance id, in quotes and brackets or not.
fn key_of(instance: &Spanned<String>) -> Result<u64, Fault> {
    let text = instance.get_ref().trim_matches(['"', '<', '>']);
    if text.is_empty() || !text.bytes().all(|c| c.is_ascii_graphic()) {
        return Err(fault(
            instance,
            "instance",
            format!("`{text}` is no instance id"),
            "write what the device registers as +sip.instance: urn:uuid:... or urn:gsma:imei:...",
        ));
    }
    Ok(device_key(text.as_bytes()))
}

fn device_media(
    device: &Spanned<DeviceWishes>,
    before: &[DeviceMedia],
) -> Result<DeviceMedia, Fault> {
    let wishes = device.get_ref();
    let key = if wishes.instance.get_ref() == "*" {
        0
    } else {
        key_of(&wishes.instance)?
    };
    if before.iter().any(|media| media.device == key) {
        return Err(fault(
            &wishes.instance,
            "preferences.device.instance",
            "the device has two entries",
            "write all limits of a device in one entry",
        ));
    }
    let mut classes = u8::MAX;
    if let Some(types) = &wishes.types {
        classes = 0;
        for name in types {
            classes |= class_of(name)?.bit();
        }
    }
    Ok(DeviceMedia {
        device: key,
        limit: MediaLimit {
            bytes_max: wishes.max_size.unwrap_or(u32::MAX),
            classes,
        },
    })
}

fn class_of(name: &Spanned<String>) -> Result<MediaClass, Fault> {
    let text = name.get_ref();
    let word = text.strip_suffix("/*").unwrap_or(text);
    let mut all = MediaClass::ALL.iter();
    all.find(|(_, known)| *known == word)
        .map(|&(class, _)| class)
        .ok_or_else(|| {
            fault(
                name,
                "preferences.device.types",
                format!("`{text}` is no top-level media type"),
                "use text, image, audio, video, application, multipart, message or other",
            )
        })
}

fn fanout_of(fanout: &Spanned<FanoutWord>) -> Result<Fanout, Fault> {
    match fanout.get_ref() {
        FanoutWord::Number(n @ 1..=64) => Ok(Fanout::Best(u8::try_from(*n).expect("at most 64"))),
        FanoutWord::Word(word) if word == "all" => Ok(Fanout::All),
        FanoutWord::Word(word) if word == "first" => Ok(Fanout::First),
        FanoutWord::Number(_) | FanoutWord::Word(_) => Err(fault(
            fanout,
            "fanout",
            "this says not how many devices",
            "use \"all\", \"first\" or a number from 1 to 64",
        )),
    }
}

/// `HH:MM` as minutes.
fn minutes_of(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let two = |text: &str| {
        let plain = text.len() == 2 && text.bytes().all(|c| c.is_ascii_digit());
        plain.then(|| text.parse::<u16>().ok()).flatten()
    };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
}

/// `[days ]HH:MM-HH:MM`; days are `mon-fri` or `sat,sun`.
fn quiet_of(quiet: &Spanned<String>) -> Result<Quiet, Fault> {
    let text = quiet.get_ref().trim();
    let read = || {
        let (days, hours) = match text.split_once(' ') {
            Some((days, hours)) => (days_of(days)?, hours.trim()),
            None => (Quiet::DAILY, text),
        };
        let (from, to) = hours.split_once('-')?;
        Some(Quiet {
            days,
            from_min: minutes_of(from.trim())?,
            to_min: minutes_of(to.trim())?,
        })
    };
    read().ok_or_else(|| {
        fault(
            quiet,
            "preferences.quiet",
            format!("`{text}` says not when"),
            "write \"22:00-07:00\" or \"sat,sun 00:00-10:00\"; days are mon tue wed thu fri sat sun",
        )
    })
}

fn days_of(text: &str) -> Option<u8> {
    const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let day = |name: &str| DAYS.iter().position(|day| day.eq_ignore_ascii_case(name));
    let mut days = 0;
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        let mut at = first;
        days |= 1 << at;
        while at != last {
            at = (at + 1) % 7;
            days |= 1 << at;
        }
    }
    Some(days)
}

/// `+HH:MM`, `-HH:MM` or `Z` as minutes.
fn offset_of(offset: &Spanned<String>) -> Result<i16, Fault> {
    let text = offset.get_ref().trim();
    let read = || {
        if text == "Z" {
            return Some(0);
        }
        let (sign, rest) = match text.split_at_checked(1)? {
            ("+", rest) => (1, rest),
            ("-", rest) => (-1, rest),
            _ => return None,
        };
        let minutes = i16::try_from(minutes_of(rest)?).ok()?;
        (minutes <= 14 * 60).then_some(sign * minutes)
    };
    read().ok_or_else(|| {
        fault(
            offset,
            "preferences.utc_offset",
            format!("`{text}` is no offset"),
            "write how far local time is ahead of UTC: \"+01:00\", \"-03:30\" or \"Z\"",
        )
    })
}

#[cfg(test)]
mod tests;
