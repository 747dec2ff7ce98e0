//! Reading the configuration again while the engine runs.
//!
//! What can change takes effect in each shard between two turns, all of it at once. Everything else is
//! named as what needs a restart, and stays as it was: also where a policy builds upon it. A file with a
//! mistake changes nothing.

use serde_json::{Value, json};

use crate::admin::engine::Engine;
use crate::admin::options::tuning;
use crate::config::{Config, ConfigError, policy};

/// Keys whose values are taken from a file that is read again.
const LIVE: [&str; 13] = [
    "instruments.dump_dir",
    "instruments.log_identities",
    "instruments.log_level",
    "instruments.objective_trigger_to_invite_ms",
    "push.pace_per_s",
    "selection.assume_when_silent",
    "selection.backoff_ms",
    "selection.coalesce_ms",
    "selection.max_devices",
    "selection.min_remaining_s",
    "selection.policy",
    "store.quota_bytes",
    "store.quota_messages",
];

/// What a second reading came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Keys whose new values are in force.
    pub in_force: Vec<String>,
    /// Keys that differ and need a restart.
    pub restart: Vec<String>,
    /// Overrides and preferences of the policy in force.
    pub rules: (usize, usize),
}

impl Reloaded {
    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let list = |keys: &[String]| match keys {
            [] => "nothing".to_owned(),
            keys => keys.join(", "),
        };
        let (overrides, preferences) = self.rules;
        let mut text = format!(
            "in force: {}; rules with {overrides} overrides and {preferences} preferences",
            list(&self.in_force)
        );
        if !self.restart.is_empty() {
            text.push_str(&format!("; needs a restart: {}", list(&self.restart)));
        }
        text
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "in_force": self.in_force,
            "needs_restart": self.restart,
            "overrides": self.rules.0,
            "preferences": self.rules.1,
        })
    }
}

/// Puts `new`, and its policy as it is now, in force. `config` is what holds, before and after.
///
/// # Errors
/// The first mistake in the policy; nothing has changed then.
pub fn reload(
    new: &Config,
    config: &mut Config,
    engine: &mut Engine,
) -> Result<Reloaded, ConfigError> {
    let merged = merged(config, new);
    let rules = policy::load(&merged)?;
    let mut done = Reloaded {
        rules: rules.counts(),
        ..Reloaded::default()
    };
    for key in changed(config, new) {
        let live = LIVE.contains(&key.as_str());
        let list = if live {
            &mut done.in_force
        } else {
            &mut done.restart
        };
        list.push(key);
    }
    engine.retune(rules, tuning(&merged));
    *config = merged;
    Ok(done)
}

/// What holds, with the values of `new` that may change.
fn merged(old: &Config, new: &Config) -> Config {
    let mut merged = old.clone();
    merged.push.pace_per_s = new.push.pace_per_s;
    merged.store.quota_messages = new.store.quota_messages;
    merged.store.quota_bytes = new.store.quota_bytes;
    let (to, from) = (&mut merged.selection, &new.selection);
    to.policy.clone_from(&from.policy);
    to.assume_when_silent = from.assume_when_silent;
    to.backoff_ms = from.backoff_ms;
    to.coalesce_ms = from.coalesce_ms;
    to.max_devices = from.max_devices;
    to.min_remaining_s = from.min_remaining_s;
    let (to, from) = (&mut merged.instruments, &new.instruments);
    to.dump_dir.clone_from(&from.dump_dir);
    to.log_identities = from.log_identities;
    to.log_level = from.log_level;
    to.objective_trigger_to_invite_ms = from.objective_trigger_to_invite_ms;
    merged
}

/// Keys whose values differ, in the order of their names.
fn changed(old: &Config, new: &Config) -> Vec<String> {
    let tree = |config| serde_json::to_value(config).unwrap_or_default();
    let mut keys = Vec::new();
    compare("", &tree(old), &tree(new), &mut keys);
    keys
}

fn compare(name: &str, old: &Value, new: &Value, keys: &mut Vec<String>) {
    if let (Value::Object(old), Value::Object(new)) = (old, new) {
        // A table of two levels: what lies below is one value.
        if name.is_empty() || !name.contains('.') {
            for (key, value) in new {
                let inner = if name.is_empty() {
                    key.clone()
                } else {
                    format!("{name}.{key}")
                };
                compare(&inner, old.get(key).unwrap_or(&Value::Null), value, keys);
            }
            return;
        }
    }
    if old != new {
        keys.push(name.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;

    fn parsed(text: &str) -> Config {
        let all = format!(
            "[sip]\nlisten = \"127.0.0.1:5060\"\nnext_hops = [{{ address = \"127.0.0.1:9\" }}]\n\
             [identity]\npf_uri = \"sip:pf@h.example\"\ndomains = [\"h.example\"]\n{text}"
        );
        config::parse(Path::new("volley.toml"), &all).expect("a fit file")
    }

    #[test]
    fn every_live_key_is_taken_over_and_no_other() {
        let old = parsed("");
        let new = parsed(
            "[node]\nshards = 2\n[push]\npace_per_s = 7\n[store]\nquota_messages = 3\n\
             quota_bytes = 4\n[selection]\npolicy = \"p.toml\"\nassume_when_silent = true\n\
             backoff_ms = 5\ncoalesce_ms = 6\nmax_devices = 2\nmin_remaining_s = 8\n\
             [instruments]\ndump_dir = \"d\"\nlog_identities = true\nlog_level = \"debug\"\n\
             objective_trigger_to_invite_ms = 9\nmsrp_bodies = true\n",
        );
        let mut live = LIVE.map(str::to_owned).to_vec();
        live.sort();
        let mut all = changed(&old, &new);
        all.sort();
        let restart = ["instruments.msrp_bodies", "node.shards"].map(str::to_owned);
        let mut expected = [live.as_slice(), &restart].concat();
        expected.sort();
        assert_eq!(all, expected);
        let merged = merged(&old, &new);
        let mut taken = changed(&old, &merged);
        taken.sort();
        assert_eq!(taken, live);
        let mut left = changed(&merged, &new);
        left.sort();
        assert_eq!(left, restart);
    }
}
