//! `volley plan`: how many cores, how much memory and disk a number of users takes.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::{USAGE, complain, print};

/// Where the unit costs below were measured, unless they say otherwise: see README and `benches/PERFORMANCE.md`.
const MEASURED: &str =
    "2026-11-27, AMD EPYC of family 26 (a virtual machine with 2 cores), Linux 6.18";

/// A unit cost: its name on the command line and in JSON, what it is now, and what it says.
struct Unit {
    name: &'static str,
    /// What was measured.
    measured: f64,
    says: &'static str,
}

/// Engine CPU of a push that delivers one message over a shared MSRP connection.
/// The segment being written, two made ahead, four that wait for cleaning and four kept to be written over.
const SHARD_DISK_GIB: f64 = 11.0 * 64.0 / 1024.0;

const PUSH_US: Unit = Unit {
    name: "push_us",
    measured: 6.0,
    says: "us of a core a push of one message, its deposit included; MSRP connections shared, closed loop",
};
/// The same when each session needs a TCP connection of its own.
const PUSH_CONNECTING_US: Unit = Unit {
    name: "push_us",
    measured: 43.3,
    says: "us of a core a push of one message, its deposit included; an MSRP connection each, closed loop",
};
/// Engine CPU of a phone that comes back while everybody does.
const STORM_PHONE_US: Unit = Unit {
    name: "storm_phone_us",
    measured: 42.0,
    says: "us of a core a phone with mail that comes back in a storm: REGISTER, SUBSCRIBE, NOTIFY, push",
};
/// Engine CPU of a user who comes back without mail.
const REGISTRATION_US: Unit = Unit {
    name: "registration_us",
    measured: 25.0,
    says: "us of a core a user who comes back without mail; at most, by an earlier machine (family 25)",
};
/// Memory of a user, what is established for it included.
const USER_MEMORY: Unit = Unit {
    name: "user_memory_octets",
    measured: 1_020.0,
    says: "octets of memory a user with registration, subscription and session, when all were just touched \
           (9.5 GiB for ten million; 784 while they stand)",
};
/// Memory of a push under way.
const PUSH_MEMORY: Unit = Unit {
    name: "push_memory_octets",
    measured: 3_500.0,
    says: "octets of memory a push under way; by the size of its slot and what hangs on it",
};
/// Memory of a pending message.
const PENDING_MEMORY: Unit = Unit {
    name: "pending_memory_octets",
    measured: 64.0,
    says: "octets of memory a pending message, whose body is on disk; by the size of its entry",
};
/// What a message takes on disk beyond its octets.
const DISK_OVERHEAD: Unit = Unit {
    name: "disk_overhead_octets",
    measured: 571.0,
    says: "octets on disk a message beyond its text: headers, CPIM, marks; by an earlier machine (family 25)",
};
/// What is written for an octet of a record.
const WRITE_AMPLIFICATION: Unit = Unit {
    name: "write_amplification",
    measured: 2.04,
    says: "octets written for an octet of a record, checkpoints included; by an earlier machine (family 25)",
};
/// Octets on the wire of a push without its message, both ways.
const PUSH_WIRE: Unit = Unit {
    name: "push_wire_octets",
    measured: 5_500.0,
    says: "octets on the wire a push without its message, both ways; counted",
};
/// Share of a core that may be used before latency grows.
const LOAD: Unit = Unit {
    name: "load",
    measured: 0.6,
    says: "of a core may be used before latency grows",
};

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
    /// Size of a message, octets of its text.
    #[arg(
        long,
        value_name = "OCTETS",
        default_value_t = 300.0,
        alias = "message-bytes"
    )]
    message_size: f64,
    /// Days a message may wait.
    #[arg(long, value_name = "DAYS", default_value_t = 7.0)]
    life_days: f64,
    /// Seconds of a session, from INVITE to BYE.
    #[arg(long, value_name = "S", default_value_t = 3.0)]
    session_s: f64,
    /// Phones connect to us, or we to each: no shared MSRP connections.
    #[arg(long)]
    connection_each: bool,
    #[command(flatten)]
    units: Units,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// Unit costs as you measured them.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Unit costs of your own, in place of those that were measured")]
struct Units {
    /// Engine CPU of a push, microseconds.
    #[arg(long, value_name = "US")]
    push_us: Option<f64>,
    /// Engine CPU of a phone with mail that comes back in a storm, microseconds.
    #[arg(long, value_name = "US")]
    storm_phone_us: Option<f64>,
    /// Engine CPU of a user who comes back without mail, microseconds.
    #[arg(long, value_name = "US")]
    registration_us: Option<f64>,
    /// Memory of a user.
    #[arg(long, value_name = "OCTETS")]
    user_memory_octets: Option<f64>,
    /// Memory of a push under way.
    #[arg(long, value_name = "OCTETS")]
    push_memory_octets: Option<f64>,
    /// Memory of a pending message.
    #[arg(long, value_name = "OCTETS")]
    pending_memory_octets: Option<f64>,
    /// Disk a message takes beyond its text.
    #[arg(long, value_name = "OCTETS")]
    disk_overhead_octets: Option<f64>,
    /// Octets written for an octet of a record.
    #[arg(long, value_name = "F")]
    write_amplification: Option<f64>,
    /// Octets on the wire of a push without its message.
    #[arg(long, value_name = "OCTETS")]
    push_wire_octets: Option<f64>,
    /// Share of a core that may be used.
    #[arg(long, value_name = "SHARE")]
    load: Option<f64>,
}

/// Unit costs in force.
struct Costs {
    push_us: f64,
    storm_phone_us: f64,
    registration_us: f64,
    user_memory: f64,
    push_memory: f64,
    pending_memory: f64,
    disk_overhead: f64,
    write_amplification: f64,
    push_wire: f64,
    load: f64,
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
        let inputs = [
            ("--users", self.users, 1.0, 1e10),
            ("--devices", self.devices, 0.1, 64.0),
            ("--messages-per-day", self.messages_per_day, 0.0, 1e5),
            ("--peak", self.peak, 1.0, 1e4),
            ("--storm-s", self.storm_s, 1.0, 1e6),
            ("--waiting", self.waiting, 0.0, 1.0),
            ("--message-size", self.message_size, 1.0, 1e8),
            ("--life-days", self.life_days, 0.01, 365.0),
            ("--session-s", self.session_s, 0.01, 1e4),
        ];
        let units = self.units();
        let units = units.iter().map(|(unit, own)| {
            let (least, most) = match unit.name {
                "load" => (0.01, 1.0),
                "write_amplification" => (1.0, 100.0),
                _ => (0.0, 1e6),
            };
            let name = format!("--{}", unit.name.replace('_', "-"));
            (name, own.unwrap_or(unit.measured), least, most)
        });
        let inputs = inputs.map(|(name, value, least, most)| (name.to_owned(), value, least, most));
        for (name, value, least, most) in inputs.into_iter().chain(units) {
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

    /// Each unit cost, and what was given in its place.
    fn units(&self) -> [(Unit, Option<f64>); 10] {
        let push = if self.connection_each {
            PUSH_CONNECTING_US
        } else {
            PUSH_US
        };
        let own = &self.units;
        [
            (push, own.push_us),
            (STORM_PHONE_US, own.storm_phone_us),
            (REGISTRATION_US, own.registration_us),
            (USER_MEMORY, own.user_memory_octets),
            (PUSH_MEMORY, own.push_memory_octets),
            (PENDING_MEMORY, own.pending_memory_octets),
            (DISK_OVERHEAD, own.disk_overhead_octets),
            (WRITE_AMPLIFICATION, own.write_amplification),
            (PUSH_WIRE, own.push_wire_octets),
            (LOAD, own.load),
        ]
    }

    fn costs(&self) -> Costs {
        let in_force = self.units().map(|(unit, own)| own.unwrap_or(unit.measured));
        let [
            push_us,
            storm_phone_us,
            registration_us,
            user_memory,
            push_memory,
            pending_memory,
            disk_overhead,
            write_amplification,
            push_wire,
            load,
        ] = in_force;
        // A storm over connections of their own costs what those do besides.
        let connecting = if self.connection_each && self.units.storm_phone_us.is_none() {
            (push_us - PUSH_US.measured).max(0.0)
        } else {
            0.0
        };
        Costs {
            push_us,
            storm_phone_us: storm_phone_us + connecting,
            registration_us,
            user_memory,
            push_memory,
            pending_memory,
            disk_overhead,
            write_amplification,
            push_wire,
            load,
        }
    }

    fn compute(&self) -> Capacity {
        let costs = self.costs();
        let messages_per_s = self.users * self.messages_per_day / 86_400.0 * self.peak;
        let pushes_per_s = messages_per_s * self.devices;
        // After an outage every user registers, and the devices of those with mail are pushed to.
        let storm_per_s = self.users * self.waiting * self.devices / self.storm_s;
        let others_per_s = self.users * (1.0 - self.waiting) / self.storm_s;
        let cores = |us: f64| us / 1e6 / costs.load;
        let busiest = pushes_per_s.max(storm_per_s);
        // What waits: at least one message for each waiting user, at most what comes in a life.
        let pending = self.users * self.waiting * (self.messages_per_day * self.life_days).max(1.0);
        let under_way = busiest * self.session_s;
        let memory = self.users * costs.user_memory
            + under_way * costs.push_memory
            + pending * costs.pending_memory
            + 512.0 * 1024.0 * 1024.0;
        let record = self.message_size + costs.disk_overhead;
        let cores_average = cores(pushes_per_s * costs.push_us);
        let cores_storm =
            cores(storm_per_s * costs.storm_phone_us + others_per_s * costs.registration_us);
        let shards = cores_average.max(cores_storm).ceil().max(1.0);
        Capacity {
            pushes_per_s,
            storm_per_s,
            cores: cores_average,
            cores_storm,
            memory_gib: memory / f64::from(1 << 30),
            // Half-dead segments wait for cleaning: twice what lives; an eighth of them is kept to be
            // written over, and a shard has a few in any case.
            disk_gib: 2.25 * pending * record / f64::from(1 << 30) + shards * SHARD_DISK_GIB,
            disk_mb_per_s: messages_per_s * record * costs.write_amplification / 1e6,
            network_mbit: busiest * (costs.push_wire + self.message_size) * 8.0 / 1e6,
        }
    }

    fn text(&self, result: &Capacity) -> String {
        let cores = result.cores.max(result.cores_storm).ceil().max(1.0);
        let mut text = format!(
            "{:.0} users, {} devices each, {} messages a day of {} octets, peak {} times the average, mail waits \
             for {:.0} % of the users, {} days at most, sessions of {} s{}\n\
             busiest second of a day  {:>12.0} pushes/s  {:>8.2} cores\n\
             return within {:.0} s      {:>12.0} pushes/s  {:>8.2} cores\n\
             cores (shards)           {cores:>12.0}\n\
             memory                   {:>12.2} GiB\n\
             disk                     {:>12.2} GiB, {:.1} MB/s written; 2.25 of what lives, and {SHARD_DISK_GIB:.2} a shard\n\
             network                  {:>12.1} Mbit/s towards core and phones\n\n\
             assumed (measured {MEASURED}):\n",
            self.users,
            self.devices,
            self.messages_per_day,
            self.message_size,
            self.peak,
            self.waiting * 100.0,
            self.life_days,
            self.session_s,
            if self.connection_each {
                ", a connection each"
            } else {
                ""
            },
            result.pushes_per_s,
            result.cores,
            self.storm_s,
            result.storm_per_s,
            result.cores_storm,
            result.memory_gib,
            result.disk_gib,
            result.disk_mb_per_s,
            result.network_mbit,
        );
        for (unit, own) in self.units() {
            let option = format!("--{}", unit.name.replace('_', "-"));
            let value = own.unwrap_or(unit.measured);
            let says = if own.is_some() { "as given" } else { unit.says };
            text.push_str(&format!("  {option:<24} {value:>8}  {says}\n"));
        }
        text.push_str(
            "Measure your own: volley-loadgen run, then give what you found by these options.\n",
        );
        text
    }

    fn as_json(&self, result: &Capacity) -> Value {
        let mut assumed = json!({ "measured": MEASURED });
        for (unit, own) in self.units() {
            let value = own.unwrap_or(unit.measured);
            assumed[unit.name] =
                json!({ "value": value, "given": own.is_some(), "means": unit.says });
        }
        json!({
            "inputs": {
                "users": self.users,
                "devices": self.devices,
                "messages_per_day": self.messages_per_day,
                "peak": self.peak,
                "storm_s": self.storm_s,
                "waiting": self.waiting,
                "message_size_octets": self.message_size,
                "life_days": self.life_days,
                "session_s": self.session_s,
                "connection_each": self.connection_each,
            },
            "pushes_per_s": result.pushes_per_s,
            "storm_pushes_per_s": result.storm_per_s,
            "cores": result.cores,
            "cores_storm": result.cores_storm,
            "shards": result.cores.max(result.cores_storm).ceil().max(1.0),
            "memory_gib": result.memory_gib,
            "disk_gib": result.disk_gib,
            "disk_mb_per_s": result.disk_mb_per_s,
            "network_mbit_per_s": result.network_mbit,
            "assumed": assumed,
        })
    }
}
