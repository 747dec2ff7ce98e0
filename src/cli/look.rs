//! What `volley top` shows: one look at a running engine beside the one before.

use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use super::ctl::{ask, number, status_text};

/// Counters whose rates are shown, and what they are called.
const RATES: [(&str, &str); 7] = [
    ("deposits", "deposits_total"),
    ("INVITEs", "invites_sent_total"),
    ("accepted", "invites_accepted_total"),
    ("failed", "pushes_failed_total"),
    ("delivered", "delivered_total"),
    ("NOTIFYs", "notifies_total"),
    ("repeats", "retransmissions_total"),
];

/// Answers of one moment.
#[derive(Debug)]
pub(super) struct Look {
    at: Instant,
    status: Value,
    shards: Value,
}

impl Look {
    /// Asks the engine at `socket`.
    #[expect(
        clippy::disallowed_methods,
        reason = "rates are of the time between two looks"
    )]
    pub(super) fn take(socket: &Path) -> Result<Self, String> {
        let (_, body) = ask(socket, "GET", "/status")?;
        let at = Instant::now();
        let status = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        let shards = ask(socket, "GET", "/shards")
            .ok()
            .and_then(|(_, body)| serde_json::from_slice(&body).ok());
        Ok(Self {
            at,
            status,
            shards: shards.unwrap_or_default(),
        })
    }

    fn since(&self, last: &Self) -> f64 {
        self.at.duration_since(last.at).as_secs_f64().max(1e-3)
    }

    /// How often a second a counter rose since `last`.
    fn rate(&self, last: &Self, counter: &str) -> f64 {
        let path = format!("/counters/{counter}");
        let more = number(&self.status, &path).saturating_sub(number(&last.status, &path));
        #[expect(clippy::cast_precision_loss, reason = "shown with no decimals")]
        let more = more as f64;
        more / self.since(last)
    }

    /// Rates since `last`, then the shards.
    pub(super) fn panel(&self, last: Option<&Self>) -> String {
        let rates = RATES.map(|(name, counter)| {
            let rate = last.map(|last| self.rate(last, counter));
            let rate = rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.0}"));
            format!("{name} {rate}")
        });
        format!(
            "{}\nper second: {}\n\n{}",
            status_text(&self.status),
            rates.join("  "),
            self.shards_since(last)
        )
    }

    /// The same as one line of JSON.
    pub(super) fn json(&self, last: Option<&Self>) -> Value {
        let rates = last.map(|last| {
            let rates = RATES.map(|(_, counter)| (counter.to_owned(), self.rate(last, counter)));
            let mut all = json!({ "seconds": self.since(last) });
            for (counter, rate) in rates {
                all[counter.trim_end_matches("_total")] = json!(rate);
            }
            all
        });
        json!({ "status": self.status, "shards": self.shards, "per_second": rates })
    }

    /// One line a shard: what it holds, and what it did since `last`.
    fn shards_since(&self, last: Option<&Self>) -> String {
        let Some(last) = last else {
            return shards_text(&self.shards);
        };
        let mut text = String::from(
            "shard    users   pushes messages    links   CPU %   turns/s   batch  own sip/tcp\n",
        );
        let seconds = self.since(last);
        for (place, shard) in self.shards.as_array().into_iter().flatten().enumerate() {
            let before = last.shards.get(place).unwrap_or(&Value::Null);
            let more = |path: &str| float(shard, path) - float(before, path);
            let turns = more("/turns");
            let batch = more("/completions") / turns.max(1.0);
            text.push_str(&format!(
                "{}{:>8.1} {:>9.0} {batch:>7.1}  {}\n",
                held(shard),
                more("/cpu_s") * 100.0 / seconds,
                turns / seconds,
                own_address(shard),
            ));
        }
        text
    }
}

fn float(value: &Value, path: &str) -> f64 {
    value.pointer(path).and_then(Value::as_f64).unwrap_or(0.0)
}

fn own_address(shard: &Value) -> &str {
    let address = shard.pointer("/sip_tcp").and_then(Value::as_str);
    address.unwrap_or("-")
}

fn held(shard: &Value) -> String {
    format!(
        "{:>5} {:>8} {:>8} {:>8} {:>8}",
        number(shard, "/shard"),
        number(shard, "/users"),
        number(shard, "/pushes"),
        number(shard, "/messages"),
        number(shard, "/links"),
    )
}

/// One line a shard, with totals since its start.
pub(super) fn shards_text(shards: &Value) -> String {
    let mut text =
        String::from("shard    users   pushes messages    links     cpu s   batch  own sip/tcp\n");
    for shard in shards.as_array().into_iter().flatten() {
        text.push_str(&format!(
            "{} {:>9.2} {:>7.1}  {}\n",
            held(shard),
            float(shard, "/cpu_s"),
            float(shard, "/completions_per_turn"),
            own_address(shard),
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "two moments, two seconds apart")]
    fn a_look_tells_rates_and_load_since_the_one_before() {
        let at = Instant::now();
        let look = |at, deposits: u64, turns: u64, cpu_s: f64| Look {
            at,
            status: json!({ "counters": { "deposits_total": deposits } }),
            shards: json!([{
                "shard": 0, "cpu_s": cpu_s,
                "turns": turns, "completions": turns * 3,
            }]),
        };
        let first = look(at, 1000, 50_000, 100.0);
        let second = look(at + Duration::from_secs(2), 1500, 50_400, 100.5);
        let text = second.panel(Some(&first));
        assert!(text.contains("deposits 250  INVITEs 0"), "{text}");
        let row = text.lines().last().expect("a shard");
        let columns: Vec<_> = row.split_whitespace().collect();
        assert_eq!(columns[5..], ["25.0", "200", "3.0", "-"], "{row}");
        let json = second.json(Some(&first));
        assert_eq!(json["per_second"]["deposits"], 250.0);
        assert!(first.json(None)["per_second"].is_null());
        assert!(first.panel(None).contains("deposits -"));
    }
}
