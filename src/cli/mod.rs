//! The command line.

#[cfg(feature = "demo")]
mod chaos;
#[cfg(feature = "demo")]
mod child;
mod ctl;
#[cfg(feature = "demo")]
mod demo;
mod doctor;
mod explain;
mod lifeline;
mod look;
#[cfg(feature = "demo")]
mod place;
mod plan;
mod run;
mod store;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rustix::process::{Resource, Rlimit};
use volley::config::policy;

/// Deferred-message push engine for a CPM Participating Function.
#[derive(Debug, Parser)]
#[command(version, about, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  volley demo                                  the whole chain on loopback, with a verdict
  volley config --example > volley.toml        a file with every key
  volley config --check volley.toml            is this file right?
  volley policy --example > policy.toml        rules of provider and users
  volley explain --policy policy.toml --notify notify.txt
                                               who would get a push, and why
  volley run --config volley.toml              serve
  volley run --config volley.toml --json       serve, a JSON line of counters a second
  volley ctl --config volley.toml status       how is the engine that runs with this file?
  volley top --config volley.toml              the same, once a second, with rates
  volley doctor --config volley.toml           is this host right for it?
  volley plan --users 10000000                 cores, memory and disk for so many users
  volley store verify --dir /var/lib/volley    is everything there that was acknowledged?";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT; then drain and stop.
    #[command(
        after_help = "Examples:\n  volley run --config volley.toml\n  volley run --config volley.toml --json\n\
                      Exit codes: 0 drained and stopped, 1 could not start or failed, 2 wrong usage or \
                      configuration."
    )]
    Run(run::Run),
    /// Show or check configuration files.
    #[command(
        after_help = "Examples:\n  volley config --example > volley.toml\n  volley config --check \
                      volley.toml\nExit codes: 0 fine, 2 wrong usage or a mistake in the file."
    )]
    Config(ConfigCommand),
    /// Ask a running engine, or tell it to drain.
    #[command(
        after_help = "Examples:\n  volley ctl --config volley.toml status\n  volley ctl --socket \
                      /run/volley/admin.sock user tel:+15551234\n\
                      Exit codes: 0 answered, 1 no engine answers or nothing is recorded, 2 wrong usage or a mistake in a \
                      file that was read again, 3 the engine is draining \
                      or not well (health), 4 no such user, 5 a shard did not answer in time."
    )]
    Ctl(ctl::Ctl),
    /// Rates, latencies and shards of a running engine, again and again.
    #[command(
        after_help = "Examples:\n  volley top --config volley.toml\n  volley top --config volley.toml \
                      --once   rates of one second\n  volley top --config volley.toml --json --count 10"
    )]
    Top(ctl::Top),
    /// Write what was on the wire, of all or of one user, as a capture file.
    #[command(after_help = ctl::TRACE_EXAMPLES)]
    Trace(ctl::Trace),
    /// Check this host: kernel, limits, cores, clocks, sockets, disk. Changes nothing.
    #[command(
        after_help = "Examples:\n  volley doctor --config volley.toml\n  volley doctor --all --json\n  volley doctor --stalls 8   \
                      how long are the CPUs taken away?\n\
                      Exit codes: 0 nothing above advice, 1 warnings, 2 wrong usage, 3 something critical."
    )]
    Doctor(doctor::Doctor),
    /// Write what `doctor` wants, or take it back. Lost at the next boot.
    #[command(
        after_help = "Examples:\n  volley tune --script > tune.sh\n  volley tune --apply --advice\n  \
                      volley tune --revert\nExit codes: 0 done, 1 a file could not be written, 2 wrong \
                      usage."
    )]
    Tune(doctor::Tune),
    /// Cores, memory, disk and network for a number of users, with the assumptions.
    #[command(
        after_help = "Examples:\n  volley plan --users 10000000\n  volley plan --users 2e6 --devices 2 \
                      --messages-per-day 20 --storm-s 60\n  volley plan --users 2e6 --push-us 9 \
                      --user-memory-octets 1200 --json   with unit costs of your own"
    )]
    Plan(plan::Plan),
    /// Look into a store that no engine serves, copy it, or write it anew.
    #[command(
        after_help = "Examples:\n  volley store stats --dir /var/lib/volley\n  volley store verify --dir \
                      /var/lib/volley --json\nExit codes: 0 done and nothing wrong, 1 it could not be done (a store that an \
                            engine serves is refused), 2 wrong usage, 3 the store is damaged or its \
                            books do not balance."
    )]
    Store(store::Store),
    /// Show or check policy files.
    #[command(
        after_help = "Examples:\n  volley policy --example > policy.toml\n  volley policy --check \
                      policy.toml --config volley.toml\nExit codes: 0 fine, 2 wrong usage or a mistake in \
                      the file."
    )]
    Policy(PolicyCommand),
    /// Say why the devices of a recorded NOTIFY would get a push, or none.
    #[command(
        after_help = "Examples:\n  volley explain --notify notify.txt\n  volley explain --policy \
                      policy.toml --notify notify.txt --json\nExit codes: 0 somebody would get a push, 1 nobody, 2 wrong usage or input."
    )]
    Explain(explain::Explain),
    /// Engine and simulated phones on loopback: deposits, a registration wave, pushes, a verdict.
    #[cfg(feature = "demo")]
    #[command(
        after_help = "Examples:\n  volley demo\n  volley demo --json\nExit codes: 0 everything delivered once and no rule broken, 1 the engine \
                            failed or did not start, 2 wrong usage, 3 this machine was the limit, \
                            4 a rule broken or a message lost, doubled or damaged."
    )]
    Demo(demo::Demo),
    /// Kill the engine under load, again and again; nothing it acknowledged may be lost.
    #[cfg(feature = "demo")]
    #[command(
        after_help = "Examples:\n  volley chaos\n  volley chaos --json\nExit codes: 0 nothing lost and no law broken, 1 it could not be done, 2 wrong \
                            usage, 4 something was lost, repeated without need, or altered."
    )]
    Chaos(chaos::Chaos),
    /// The judge, as started by `demo`; see `volley-loadgen --help`.
    #[cfg(feature = "demo")]
    #[command(hide = true, disable_help_flag = true)]
    Judge {
        /// Arguments of volley-loadgen.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct ConfigCommand {
    /// Print a complete file with every default.
    #[arg(long)]
    example: bool,
    /// Check a file; prints what is wrong with it.
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct PolicyCommand {
    /// Print a file that shows every key.
    #[arg(long, required_unless_present = "check", conflicts_with = "check")]
    example: bool,
    /// Check a file; prints what is wrong with it.
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
    /// Configuration file that the policy is for [default: one with every default].
    #[arg(long, value_name = "FILE", requires = "check")]
    config: Option<PathBuf>,
}

/// Flag of children: stop when standard input ends.
#[cfg(feature = "demo")]
const LIFELINE: &str = "--lifeline";

/// Wrong usage or configuration.
const USAGE: u8 = 2;

/// Lets the process open as many files as it may: the usual soft limit of 1,024 is there for programs that use
/// select(2).
fn raise_open_files() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // Refused, it stays as it was, and the start says what that leaves.
    let _ = rustix::process::setrlimit(Resource::Nofile, raised);
}

pub(crate) fn main() -> ExitCode {
    raise_open_files();
    match Cli::parse().command {
        Command::Run(run) => run.main(),
        Command::Config(command) => config(&command),
        Command::Ctl(ctl) => ctl.main(),
        Command::Top(top) => top.main(),
        Command::Trace(trace) => trace.main(),
        Command::Doctor(doctor) => doctor.main(),
        Command::Tune(tune) => tune.main(),
        Command::Plan(plan) => plan.main(),
        Command::Store(store) => store.main(),
        Command::Policy(command) => policy(&command),
        Command::Explain(explain) => explain.main(),
        #[cfg(feature = "demo")]
        Command::Demo(demo) => demo.main(),
        #[cfg(feature = "demo")]
        Command::Chaos(chaos) => chaos.main(),
        #[cfg(feature = "demo")]
        Command::Judge { arguments } => judge(arguments),
    }
}

#[cfg(feature = "demo")]
fn judge(arguments: Vec<std::ffi::OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter().peekable();
    if arguments.next_if(|first| first == LIFELINE).is_some() {
        // Nothing of the judge's is worth saving when nobody waits for its verdict.
        let gone = || std::process::exit(1);
        if let Err(error) = lifeline::when_input_ends(gone) {
            complain(&format!("cannot start a thread: {error}"));
            return ExitCode::FAILURE;
        }
    }
    let name = std::ffi::OsString::from("volley-loadgen");
    let all = core::iter::once(name).chain(arguments).collect();
    let code = volley_loadgen::cli_main(all);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

fn config(command: &ConfigCommand) -> ExitCode {
    let Some(path) = &command.check else {
        print(volley::config::file::EXAMPLE);
        return ExitCode::SUCCESS;
    };
    let checked = volley::config::load(path).and_then(|config| policy::load(&config));
    match checked {
        Ok(_) => {
            print(&format!("{}: fine\n", path.display()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(USAGE)
        }
    }
}

fn policy(command: &PolicyCommand) -> ExitCode {
    let Some(path) = &command.check else {
        print(policy::EXAMPLE);
        return ExitCode::SUCCESS;
    };
    let config = command
        .config
        .as_ref()
        .map(|path| volley::config::load(path));
    let checked = config.transpose().and_then(|config| {
        let base = config.as_ref().map(policy::Base::of).unwrap_or_default();
        policy::load_file(path, &base)
    });
    match checked {
        Ok(rules) => {
            let (overrides, preferences) = rules.counts();
            print(&format!(
                "{}: fine, {overrides} overrides, {preferences} preferences\n",
                path.display()
            ));
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(USAGE)
        }
    }
}

/// Standard output; a reader that went away is no error of ours.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Standard error, as it is.
#[cfg(feature = "demo")]
fn tell(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Standard error, one message.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "volley: {text}");
}
