//! Handset dialects: the built-in ones, what the configuration file changes of them and adds, and which
//! devices speak them.

use crate::config::Config;
use crate::config::error::Problem;
use crate::config::file::{Dialect, Grouping, OfferSetup};
use crate::config::policy::known_icsis;
use crate::push::dialect::{DIALECTS_MAX, DialectOptions};
use crate::push::options::Grouping as PushGrouping;
use crate::registry::features::{
    AGENTS_MAX, AgentPatterns, DialectRule, DialectRules, FeaturePattern, MARKS_MAX,
};
use crate::sdp::Setup;
use crate::sip::template::Profile;

/// The service that phones register which know no deferred messages.
const LARGEMSG: &str = "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg";

/// All dialects of a configuration.
#[derive(Clone, Debug)]
pub struct Dialects {
    /// How they look; the first is that of every device without another.
    pub options: Vec<DialectOptions>,
    /// Who speaks them.
    pub rules: DialectRules,
    /// User-Agents that the rules look for.
    pub agents: AgentPatterns,
}

/// The dialects that are there without a word in the file.
fn built_in(config: &Config) -> Vec<DialectOptions> {
    let domain = config.identity.domains.first().map_or("", String::as_str);
    vec![
        DialectOptions::default(),
        DialectOptions {
            name: "gsma-standfw".to_owned(),
            asserted_identity: Some(format!("sip:rcse-standfw@{domain}")),
            referred_by: true,
            grouping: Some(PushGrouping::Message),
            ..DialectOptions::default()
        },
        DialectOptions {
            name: "largemsg".to_owned(),
            icsi: Some(LARGEMSG.to_owned()),
            ..DialectOptions::default()
        },
    ]
}

impl Dialects {
    /// The dialects of a configuration that was checked.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let mut options = built_in(config);
        let mut rules = DialectRules::default();
        let mut agents = AgentPatterns::default();
        let known = known_icsis(config);
        let bits = |names: &[String]| {
            names.iter().fold(0_u32, |bits, name| {
                let at = known
                    .iter()
                    .position(|icsi| icsi.eq_ignore_ascii_case(name));
                at.map_or(bits, |at| bits | 1 << at)
            })
        };
        for dialect in &config.dialect {
            let found = options.iter().position(|known| known.name == dialect.name);
            let like = dialect.like.as_ref().map_or_else(
                || found.unwrap_or(0),
                |like| {
                    options
                        .iter()
                        .position(|known| known.name == *like)
                        .unwrap_or(0)
                },
            );
            let made = changed(&options[like], dialect);
            let index = found.unwrap_or(options.len());
            if index == options.len() {
                options.push(made);
            } else {
                options[index] = made;
            }
            let mut rule = DialectRule {
                dialect: u8::try_from(index).unwrap_or(0),
                icsi: bits(&dialect.match_icsi),
                lacks: bits(&dialect.unless_icsi),
                ..DialectRule::default()
            };
            for text in &dialect.match_features {
                rule.marks |=
                    1 << place_of(&mut rules.features, feature_of(text)).min(MARKS_MAX - 1);
            }
            for text in &dialect.match_user_agent {
                let pattern = text.to_ascii_lowercase().into_bytes();
                rule.agents |= 1 << place_of(&mut agents.0, pattern).min(AGENTS_MAX - 1);
            }
            if has_condition(dialect) {
                rules.rules.push(rule);
            }
        }
        if config.selection.tag_fallback {
            rules.rules.push(DialectRule {
                dialect: 2,
                icsi: bits(&[LARGEMSG.to_owned()]),
                lacks: bits(core::slice::from_ref(&config.identity.icsi)),
                ..DialectRule::default()
            });
        }
        Self {
            options,
            rules,
            agents,
        }
    }
}

const fn has_condition(dialect: &Dialect) -> bool {
    !(dialect.match_icsi.is_empty()
        && dialect.match_features.is_empty()
        && dialect.match_user_agent.is_empty())
}

/// Where `item` stands in the list, at its end if need be.
fn place_of<T: PartialEq>(list: &mut Vec<T>, item: T) -> usize {
    let at = list.iter().position(|known| *known == item);
    at.unwrap_or_else(|| {
        list.push(item);
        list.len() - 1
    })
}

fn feature_of(text: &str) -> FeaturePattern {
    let (name, value) = text.split_once('=').unwrap_or((text, "*"));
    FeaturePattern {
        name: name.trim().as_bytes().to_vec(),
        value: value.trim().trim_matches('"').as_bytes().to_vec(),
    }
}

fn changed(before: &DialectOptions, dialect: &Dialect) -> DialectOptions {
    let mut extra_lines = before.extra_lines.clone();
    for line in &dialect.headers {
        extra_lines.push_str(line);
        extra_lines.push_str("\r\n");
    }
    DialectOptions {
        name: dialect.name.clone(),
        icsi: dialect.icsi.clone().or_else(|| before.icsi.clone()),
        user_agent: dialect
            .user_agent
            .clone()
            .or_else(|| before.user_agent.clone()),
        asserted_identity: dialect
            .asserted_identity
            .clone()
            .or_else(|| before.asserted_identity.clone()),
        referred_by: dialect.referred_by.unwrap_or(before.referred_by),
        from_sender: dialect.from_sender.unwrap_or(before.from_sender),
        success_report: dialect.success_report.unwrap_or(before.success_report),
        setup: dialect.setup.map_or(before.setup, |setup| {
            Some(match setup {
                OfferSetup::Active => Setup::Active,
                OfferSetup::Actpass => Setup::Actpass,
            })
        }),
        cema: dialect.cema.or(before.cema),
        grouping: dialect.grouping.map_or(before.grouping, |grouping| {
            Some(match grouping {
                Grouping::Conversation => PushGrouping::Conversation,
                Grouping::Message => PushGrouping::Message,
                Grouping::User => PushGrouping::User,
            })
        }),
        extra_lines,
    }
}

/// Ranges and relations of the dialects' keys.
pub(super) fn check(config: &Config) -> Result<(), Problem> {
    let problem = |key, what: String, remedy| Err(Problem { key, what, remedy });
    let mut names: Vec<String> = built_in(config)
        .into_iter()
        .map(|known| known.name)
        .collect();
    for (at, dialect) in config.dialect.iter().enumerate() {
        if config.dialect[..at]
            .iter()
            .any(|other| other.name == dialect.name)
        {
            return problem(
                "dialect.name",
                format!("`{}` is described twice", dialect.name),
                "write all keys of a dialect in one entry",
            );
        }
        if let Some(like) = dialect.like.as_ref().filter(|like| !names.contains(like)) {
            return problem(
                "dialect.like",
                format!("`{like}` is no dialect described before"),
                "name plain, gsma-standfw, largemsg or one that stands above",
            );
        }
        if dialect.name == "plain" && has_condition(dialect) {
            return problem(
                "dialect.name",
                "`plain` is for every device without another dialect".to_owned(),
                "give the dialect another name, or leave its match_ keys out",
            );
        }
        if !names.contains(&dialect.name) {
            names.push(dialect.name.clone());
        }
    }
    if names.len() > DIALECTS_MAX {
        return problem(
            "dialect",
            format!("{} dialects are too many", names.len()),
            "describe at most 13 beside the built-in ones",
        );
    }
    let dialects = Dialects::of(config);
    if dialects.rules.features.len() > MARKS_MAX {
        return problem(
            "dialect.match_features",
            format!(
                "{} features in all are too many",
                dialects.rules.features.len()
            ),
            "look for at most 8 features",
        );
    }
    if dialects.agents.0.len() > AGENTS_MAX {
        return problem(
            "dialect.match_user_agent",
            format!(
                "{} User-Agents in all are too many",
                dialects.agents.0.len()
            ),
            "look for at most 16 patterns",
        );
    }
    for dialect in &dialects.options {
        let profile = dialect.applied_to(&Profile::default());
        if let Err(error) = crate::sip::template::Templates::compile(&profile) {
            return problem(
                "dialect",
                format!("`{}` cannot be written: {error}", dialect.name),
                "correct the value; header lines are `Name: value`, of headers the engine does not \
                 write itself",
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::file::EXAMPLE;
    use crate::config::parse;
    use crate::registry::features::Features;

    fn config(more: &str) -> Config {
        parse(Path::new("volley.toml"), &format!("{EXAMPLE}{more}"))
            .unwrap_or_else(|error| panic!("{error}"))
    }

    fn icsi(config: &Config, names: &[&str]) -> Features {
        let known = known_icsis(config);
        let mut features = Features::default();
        for name in names {
            let at = known.iter().position(|icsi| icsi.ends_with(name)).unwrap();
            features.icsi |= 1 << at;
        }
        features
    }

    // Proves: AMB-4
    #[test]
    fn a_phone_that_registered_no_deferred_gets_largemsg_unless_that_is_off() {
        let on = config("");
        let dialects = Dialects::of(&on);
        let pick = |names: &[&str]| {
            let index = dialects.rules.pick(icsi(&on, names), 0);
            dialects.options[usize::from(index)].name.as_str()
        };
        assert_eq!(pick(&[".deferred", ".largemsg", ".msg"]), "plain");
        assert_eq!(pick(&[".largemsg", ".msg"]), "largemsg");
        assert_eq!(pick(&[]), "plain");
        let text = EXAMPLE.replace("# tag_fallback = true", "tag_fallback = false");
        let off = parse(Path::new("volley.toml"), &text).unwrap();
        assert!(Dialects::of(&off).rules.rules.is_empty());
    }

    #[test]
    fn an_entry_changes_a_built_in_dialect_or_makes_one_like_another() {
        let config = config(
            "[[dialect]]\nname = \"gsma-standfw\"\nmatch_user_agent = [\"*RCS-Client*\"]\n\
             [[dialect]]\nname = \"jta\"\nlike = \"gsma-standfw\"\nasserted_identity = \"tel:+49\"\n\
             match_features = [\"+g.gsma.rcs.cpm.pager-large\", \"agent=jta*\"]\nheaders = [\"X-A: b\"]\n",
        );
        let dialects = Dialects::of(&config);
        let names: Vec<&str> = dialects.options.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["plain", "gsma-standfw", "largemsg", "jta"]);
        assert_eq!(
            dialects.options[1].asserted_identity.as_deref(),
            Some("sip:rcse-standfw@ims.example.net")
        );
        assert!(dialects.options[3].referred_by);
        assert_eq!(dialects.options[3].extra_lines, "X-A: b\r\n");
        assert_eq!(dialects.rules.pick(Features::default(), 1), 1);
        let mut features = Features::default();
        assert_eq!(dialects.rules.pick(features, 0), 0);
        features.marks = 0b10;
        assert_eq!(dialects.rules.pick(features, 0), 3);
        assert_eq!(dialects.agents.fitting(b"An rcs-CLIENT/1"), 1);
    }

    #[test]
    fn dialects_that_cannot_work_name_what_to_mend() {
        for (more, what, remedy) in [
            (
                "name = \"x\"\nlike = \"y\"\n",
                "`y` is no dialect",
                "gsma-standfw",
            ),
            (
                "name = \"plain\"\nmatch_icsi = [\"urn:a\"]\n",
                "every device",
                "another name",
            ),
            (
                "name = \"x\"\nheaders = [\"Via: y\"]\n",
                "extra_lines is out of range",
                "Name: value",
            ),
            (
                "name = \"x\"\nheaders = [\"A: y\\r\\nB: z\\n\"]\n",
                "extra_lines",
                "Name: value",
            ),
            (
                "name = \"x\"\nasserted_identity = \"<a>\"\n",
                "asserted_identity",
                "correct",
            ),
            (
                "name = \"x\"\n[[dialect]]\nname = \"x\"\n",
                "twice",
                "one entry",
            ),
        ] {
            let text = format!("{EXAMPLE}[[dialect]]\n{more}");
            let shown = parse(Path::new("volley.toml"), &text)
                .unwrap_err()
                .to_string();
            assert!(
                shown.contains(what) && shown.contains(remedy),
                "{more}\n{shown}"
            );
        }
    }
}
