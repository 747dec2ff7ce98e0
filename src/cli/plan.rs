//! `volley plan`: how many cores, how much memory and disk a number of users takes.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::{USAGE, complain, print};

/// What one of each costs. Measured with `volley-loadgen` and `benches/` on the machine that README names;
/// give your own with `--push-us` once you have measured them.
mod unit {
    /// Engine CPU of a push that delivers one message over a shared MSRP connection, its deposit
    /// included, microseconds.
    pub(super) const PUSH_US: f64 = 25.0;
    /// The same when each session needs a TCP connection of its own.
    pub(super) const PUSH_CONNECTING_US: f64 = 95.0;
    /// Engine CPU of a registration: third-party REGISTER, SUBSCRIBE, NOTIFY and their answers.
    pub(super) const REGISTRATION_US: f64 = 25.0;
    /// Memory of a user whose registration is known, with two devices: resident memory with 60,000 users
    /// against 1,000.
    pub(super) const USER_BYTES: f64 = 4_800.0;
    /// Memory of a push under way, by the size of its slot and what hangs on it.
    pub(super) const PUSH_BYTES: f64 = 3_500.0;
    /// Memory of a pending message; its body is on disk.
    pub(super) const MESSAGE_BYTES: f64 = 64.0;
    /// What a message takes on disk beyond its octets: record headers, CPIM, marks.
    pub(super) const DISK_OVERHEAD_BYTES: f64 = 650.0;
    /// Octets on the wire of a push without its message, both ways.
    pub(super) const PUSH_WIRE_BYTES: f64 = 5_500.0;
    /// Share of a core that may be used before latency grows.
    pub(super) const LOAD: f64 = 0.6;
}

/// Arguments of `plan`.
#[derive(Debug, clap::Args)]
pub(super) struct Plan {
    /// Users served.
    #[arg(long, value_name = "N")]
    users: f64,
    /// Devices of a user that get messages, on average.
    #[arg(long, value_name = "D", default_value_t = 1.5)]
    devices: f64,
    /// Deferred messages a user gets on a day.
    #[arg(long, value_name = "M", default_value_t = 5.0)]
    messages_per_day: f64,
    /// Busiest second against the average of the day.
    #[arg(long, value_name = "F", default_value_t = 6.0)]
    peak: f64,
    /// Seconds within which all users come back at once, after an outage of the network.
    #[arg(long, value_name = "S", default_value_t = 600.0)]
    storm_s: f64,
    /// Share of the users for whom a message waits, on average.
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    waiting: f64,
    /// Octets of a message.
    #[arg(long, value_name = "OCTETS", default_value_t = 300.0)]
    message_bytes: f64,
    /// Days a message may wait.
    #[arg(long, value_name = "DAYS", default_value_t = 7.0)]
    life_days: f64,
    /// Seconds of a session, from INVITE to BYE.
    #[arg(long, value_name = "S", default_value_t = 3.0)]
    session_s: f64,
    /// Phones connect to us, or we to each: no shared MSRP connections.
    #[arg(long)]
    connection_each: bool,
    /// Engine CPU of a push as you measured it, microseconds.
    #[arg(long, value_name = "US")]
    push_us: Option<f64>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// What comes out.
struct Capacity {
    pushes_per_s: f64,
    storm_per_s: f64,
    cores: f64,
    cores_storm: f64,
    memory_gib: f64,
    disk_gib: f64,
    disk_mb_per_s: f64,
    network_mbit: f64,
}

impl Plan {
    pub(super) fn main(&self) -> ExitCode {
        let numbers = [
            ("--users", self.users, 1.0, 1e10),
            ("--devices", self.devices, 0.1, 64.0),
            ("--messages-per-day", self.messages_per_day, 0.0, 1e5),
            ("--peak", self.peak, 1.0, 1e4),
            ("--storm-s", self.storm_s, 1.0, 1e6),
            ("--waiting", self.waiting, 0.0, 1.0),
            ("--message-bytes", self.message_bytes, 1.0, 1e8),
            ("--life-days", self.life_days, 0.01, 365.0),
            ("--session-s", self.session_s, 0.01, 1e4),
            ("--push-us", self.push_us.unwrap_or(1.0), 0.1, 1e5),
        ];
        for (name, value, least, most) in numbers {
            if !(least..=most).contains(&value) {
                complain(&format!("{name} {value}: between {least} and {most}"));
                return ExitCode::from(USAGE);
            }
        }
        let result = self.compute();
        if self.json {
            print(&format!("{}\n", self.as_json(&result)));
        } else {
            print(&self.text(&result));
        }
        ExitCode::SUCCESS
    }

    fn push_us(&self) -> f64 {
        let measured = if self.connection_each {
            unit::PUSH_CONNECTING_US
        } else {
            unit::PUSH_US
        };
        self.push_us.unwrap_or(measured)
    }

    fn compute(&self) -> Capacity {
        let messages_per_s = self.users * self.messages_per_day / 86_400.0 * self.peak;
        let pushes_per_s = messages_per_s * self.devices;
        // After an outage every waiting user's devices are pushed to, and every user registers.
        let storm_per_s = self.users * self.waiting * self.devices / self.storm_s;
        let registrations = self.users / self.storm_s;
        let cpu = |pushes: f64, registrations: f64| {
            (pushes * self.push_us() + registrations * unit::REGISTRATION_US) / 1e6 / unit::LOAD
        };
        let busiest = pushes_per_s.max(storm_per_s);
        // What waits: at least one message for each waiting user, at most what comes in a life.
        let pending = self.users * self.waiting * (self.messages_per_day * self.life_days).max(1.0);
        let under_way = busiest * self.session_s;
        let memory = self.users * unit::USER_BYTES
            + under_way * unit::PUSH_BYTES
            + pending * unit::MESSAGE_BYTES
            + 512.0 * 1024.0 * 1024.0;
        let record = self.message_bytes + unit::DISK_OVERHEAD_BYTES;
        Capacity {
            pushes_per_s,
            storm_per_s,
            cores: cpu(pushes_per_s, 0.0),
            cores_storm: cpu(storm_per_s, registrations),
            memory_gib: memory / f64::from(1 << 30),
            // Half-dead segments wait for cleaning: twice what lives.
            disk_gib: 2.0 * pending * record / f64::from(1 << 30),
            disk_mb_per_s: messages_per_s * record * 1.1 / 1e6,
            network_mbit: busiest * (unit::PUSH_WIRE_BYTES + self.message_bytes) * 8.0 / 1e6,
        }
    }

    fn text(&self, result: &Capacity) -> String {
        let cores = result.cores.max(result.cores_storm).ceil().max(1.0);
        format!(
            "{:.0} users, {} devices each, {} messages a day, peak {} times the average\n\
             busiest second of a day  {:>12.0} pushes/s  {:>8.2} cores\n\
             return within {:.0} s      {:>12.0} pushes/s  {:>8.2} cores\n\
             cores (shards)           {cores:>12.0}\n\
             memory                   {:>12.2} GiB\n\
             disk                     {:>12.2} GiB, {:.1} MB/s written\n\
             network                  {:>12.1} Mbit/s towards core and phones\n\n\
             assumed: {} us of a core a push ({}), {} us a registration, {:.0} % of a core used, {} octets of \
             memory a user, {} a push under way for {} s, {} a pending message; {} octets on disk a \
             message, twice for cleaning; {:.0} % of the users have mail waiting.\n\
             Measure your own: volley-loadgen run, then --push-us.\n",
            self.users,
            self.devices,
            self.messages_per_day,
            self.peak,
            result.pushes_per_s,
            result.cores,
            self.storm_s,
            result.storm_per_s,
            result.cores_storm,
            result.memory_gib,
            result.disk_gib,
            result.disk_mb_per_s,
            result.network_mbit,
            self.push_us(),
            if self.push_us.is_some() {
                "given"
            } else if self.connection_each {
                "a connection each"
            } else {
                "shared connections"
            },
            unit::REGISTRATION_US,
            unit::LOAD * 100.0,
            unit::USER_BYTES,
            unit::PUSH_BYTES,
            self.session_s,
            unit::MESSAGE_BYTES,
            self.message_bytes + unit::DISK_OVERHEAD_BYTES,
            self.waiting * 100.0,
        )
    }

    fn as_json(&self, result: &Capacity) -> Value {
        json!({
            "pushes_per_s": result.pushes_per_s,
            "storm_pushes_per_s": result.storm_per_s,
            "cores": result.cores,
            "cores_storm": result.cores_storm,
            "shards": result.cores.max(result.cores_storm).ceil().max(1.0),
            "memory_gib": result.memory_gib,
            "disk_gib": result.disk_gib,
            "disk_mb_per_s": result.disk_mb_per_s,
            "network_mbit_per_s": result.network_mbit,
            "assumed": {
                "push_us": self.push_us(),
                "registration_us": unit::REGISTRATION_US,
                "load": unit::LOAD,
                "user_bytes": unit::USER_BYTES,
                "push_bytes": unit::PUSH_BYTES,
                "message_bytes": unit::MESSAGE_BYTES,
                "disk_overhead_bytes": unit::DISK_OVERHEAD_BYTES,
                "push_wire_bytes": unit::PUSH_WIRE_BYTES,
            },
        })
    }
}
