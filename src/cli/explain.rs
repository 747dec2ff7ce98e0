//! `volley explain`.

use std::path::PathBuf;
use std::process::ExitCode;

use volley::admin::explain::{self, Inputs, Past, Waiting};
use volley::admin::options::{dialect_names, registry_options};
use volley::base::time::UnixMillis;
use volley::config::Config;
use volley::config::policy::{self, Base};
use volley::io::clock::Clock;
use volley::registry::{RegistryOptions, device_key};

use super::{USAGE, complain, print};

/// Arguments of `explain`.
#[derive(Debug, clap::Args)]
pub(super) struct Explain {
    /// The NOTIFY as it came, or its reginfo document.
    #[arg(long, value_name = "FILE")]
    notify: PathBuf,
    /// Policy file [default: that of --config, else the defaults].
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Configuration file: home domains, accepted services, addressing, dialects.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A message that waits: size=OCTETS,type=TEXT,expires=SECONDS,device=INSTANCE, each optional
    /// [default: one short text].
    #[arg(long = "message", value_name = "KEY=VALUE,...")]
    messages: Vec<String>,
    /// Nothing waits.
    #[arg(long, conflicts_with = "messages")]
    no_message: bool,
    /// What is known of a device: INSTANCE=busy, wait, roaming, backoff:SECONDS or
    /// quarantine:SECONDS.
    #[arg(long = "past", value_name = "INSTANCE=STATE")]
    pasts: Vec<String>,
    /// The moment, as 2026-11-25T22:00:00Z or in seconds since 1970 [default: now].
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// INVITEs that next hops take now.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    tokens: u32,
    /// JSON in place of text.
    #[arg(long)]
    json: bool,
}

impl Explain {
    pub(super) fn main(&self) -> ExitCode {
        match self.run() {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                complain(&error);
                ExitCode::from(USAGE)
            }
        }
    }

    fn run(&self) -> Result<bool, String> {
        let config = self.config.as_ref().map(|path| volley::config::load(path));
        let config = config.transpose().map_err(|error| error.to_string())?;
        let base = config.as_ref().map(Base::of).unwrap_or_default();
        let rules = match (&self.policy, &config) {
            (Some(path), _) => policy::load_file(path, &base),
            (None, Some(config)) => policy::load(config),
            (None, None) => Ok(volley::selection::rules::RuleBook::new(base.policy)),
        };
        let rules = rules.map_err(|error| error.to_string())?;
        let registry = match &config {
            Some(config) => registry_options(config),
            None => RegistryOptions {
                accepted_icsi: base.icsis.into_iter().map(String::into_bytes).collect(),
                ..RegistryOptions::default()
            },
        };
        let notify = std::fs::read(&self.notify)
            .map_err(|error| format!("{}: cannot be read: {error}", self.notify.display()))?;
        let inputs = Inputs {
            notify: &notify,
            rules: &rules,
            registry: &registry,
            dialects: &config.as_ref().map(dialect_names).unwrap_or_default(),
            domains: &domains(config.as_ref()),
            waiting: &self.waiting()?,
            pasts: &self.pasts()?,
            at: self.moment()?,
            tokens: self.tokens,
        };
        let explanation = explain::explain(&inputs)
            .map_err(|error| format!("{}: {error}", self.notify.display()))?;
        if self.json {
            print(&format!("{}\n", explanation.json()));
        } else {
            print(&explanation.text());
        }
        Ok(explanation.selects())
    }

    fn waiting(&self) -> Result<Vec<Waiting>, String> {
        if self.no_message {
            return Ok(Vec::new());
        }
        if self.messages.is_empty() {
            return Ok(vec![Waiting::default()]);
        }
        self.messages.iter().map(|text| message_of(text)).collect()
    }

    fn pasts(&self) -> Result<Vec<(u64, Past)>, String> {
        self.pasts.iter().map(|text| past_of(text)).collect()
    }

    fn moment(&self) -> Result<UnixMillis, String> {
        let Some(text) = &self.at else {
            return Ok(Clock.wall());
        };
        moment_of(text).ok_or_else(|| {
            format!("--at {text}: write 2026-11-25T22:00:00Z, or seconds since 1970")
        })
    }
}

fn domains(config: Option<&Config>) -> Vec<Vec<u8>> {
    let domains = config.map(|config| &config.identity.domains[..]);
    let lower = |domain: &String| domain.to_ascii_lowercase().into_bytes();
    domains.unwrap_or_default().iter().map(lower).collect()
}

fn message_of(text: &str) -> Result<Waiting, String> {
    let mut message = Waiting::default();
    let wrong = |part: &str| {
        format!("--message {part}: use size=OCTETS, type=TEXT, expires=SECONDS, device=INSTANCE")
    };
    for part in text.split(',') {
        let (key, value) = part.split_once('=').ok_or_else(|| wrong(part))?;
        let number = || value.parse::<u32>().map_err(|_| wrong(part));
        match key {
            "size" => message.bytes = number()?,
            "type" => message.content_type = value.as_bytes().to_vec(),
            "expires" => message.life_s = number()?,
            "device" => message.target = device_key(value.as_bytes()),
            _ => return Err(wrong(part)),
        }
    }
    Ok(message)
}

fn past_of(text: &str) -> Result<(u64, Past), String> {
    let read = || {
        let (instance, state) = text.rsplit_once('=')?;
        let past = match state.split_once(':') {
            None => match state {
                "busy" => Past::Busy,
                "wait" => Past::Wait,
                "roaming" => Past::Roaming,
                _ => return None,
            },
            Some(("backoff", seconds)) => Past::Backoff(seconds.parse().ok()?),
            Some(("quarantine", seconds)) => Past::Quarantine(seconds.parse().ok()?),
            Some(_) => return None,
        };
        Some((device_key(instance.as_bytes()), past))
    };
    read().ok_or_else(|| {
        format!(
            "--past {text}: use INSTANCE=busy, wait, roaming, backoff:SECONDS or quarantine:SECONDS"
        )
    })
}

/// Seconds since 1970, or `YYYY-MM-DDTHH:MM:SSZ`.
fn moment_of(text: &str) -> Option<UnixMillis> {
    if let Ok(seconds) = text.parse() {
        return Some(UnixMillis::from_secs(seconds));
    }
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let numbers = |text: &str, separator| -> Option<[u64; 3]> {
        let parts: Vec<u64> = text
            .split(separator)
            .map(|part| part.parse().ok())
            .collect::<Option<_>>()?;
        parts.try_into().ok()
    };
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time, ':')?;
    let valid = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 61;
    if !valid {
        return None;
    }
    // Days since 1970 of a civil date, the year beginning in March.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    let seconds = (days - 719_468) * 86_400 + hour * 3600 + minute * 60 + second;
    Some(UnixMillis::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_in_both_forms() {
        let noon = Some(UnixMillis::from_secs(1_795_608_000));
        assert_eq!(moment_of("2026-11-25T12:00:00Z"), noon);
        assert_eq!(moment_of("1795608000"), noon);
        assert_eq!(
            moment_of("1970-01-01T00:00:00Z"),
            Some(UnixMillis::from_secs(0))
        );
        assert_eq!(
            moment_of("2024-02-29T23:59:59Z"),
            Some(UnixMillis::from_secs(1_709_251_199))
        );
        for wrong in [
            "",
            "2026-11-25",
            "2026-13-25T12:00:00Z",
            "2026-11-25T12:00:00",
        ] {
            assert_eq!(moment_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn messages_and_pasts_are_read() {
        let message = message_of("size=5,type=image/png,expires=9").unwrap();
        assert_eq!((message.bytes, message.life_s), (5, 9));
        assert_eq!(message.content_type, b"image/png");
        assert!(message_of("sise=5").unwrap_err().contains("size=OCTETS"));
        let (key, past) = past_of("urn:x=backoff:60").unwrap();
        assert_eq!((key, past), (device_key(b"urn:x"), Past::Backoff(60)));
        assert!(past_of("urn:x=tired").is_err());
    }
}
