//! The command line.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

use clap::{Parser, Subcommand};

use crate::net::{DriveError, Driver, Listeners};
use crate::panel::{self, Panel};
use crate::report::{self, EXIT_OK, EXIT_UNREACHABLE, EXIT_USAGE, Report};
use crate::rules::Rule;
use crate::scenario::{Options, SHIPPED, Setup};
use crate::world::World;

const EXAMPLES: &str = "\
Examples:
  volley-loadgen run --engine 127.0.0.1:5060 --scenario smoke
      Everything once, judged: deposits, registrations, pushes, deliveries.
  volley-loadgen run --engine 127.0.0.1:5060 --scenario signalling --engine-pid 4711 --cpu 1
      How many pushes one engine core makes, as fast as it goes.
  volley-loadgen run --engine 127.0.0.1:5060 --scenario steady --rate 20000 \\
      --objective p99_trigger_to_invite_ms=5 --json result.json
      A fixed rate, latencies from the intended time, one goal.
  volley-loadgen rules
      What is checked.

Exit codes: 0 as demanded, 1 objective missed, 2 usage, 3 invalid (the generator was the limit),
4 a rule broken or the ledger does not balance, 6 engine not reached.";

#[derive(Parser)]
#[command(name = "volley-loadgen", version, about = "Plays the IMS core and the phones around a push engine, and judges it", after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a scenario against an engine
    #[command(after_help = EXAMPLES)]
    Run(Box<RunArgs>),
    /// List the rules
    Rules,
    /// List the scenario files that come with the program, or print one
    Scenarios {
        /// Name of the one to print
        name: Option<String>,
    },
}

#[derive(clap::Args)]
struct RunArgs {
    /// Scenario file: a path, or smoke, full, signalling, steady
    #[arg(long, value_name = "FILE")]
    scenario: Option<String>,
    #[command(flatten)]
    options: Options,
}

/// Runs the program and gives its exit code. `args` starts with the program's name.
///
/// The runtime's thread is left parked at the end, because dropping a ring with operations in flight
/// would wait for them; the caller is expected to exit.
pub fn cli_main(args: Vec<OsString>) -> i32 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return error.exit_code();
        }
    };
    let outcome = match cli.command {
        Command::Run(args) => run(*args),
        Command::Rules => {
            print_rules();
            Ok(EXIT_OK)
        }
        Command::Scenarios { name } => scenarios(name.as_deref()),
    };
    match outcome {
        Ok(code) => code,
        Err(message) => {
            let _ = writeln!(std::io::stderr(), "volley-loadgen: {message}");
            EXIT_USAGE
        }
    }
}

fn print_rules() {
    let mut out = std::io::stdout().lock();
    for rule in Rule::all() {
        let _ = writeln!(out, "{:<12} {}", rule.id(), rule.text());
    }
}

fn scenarios(name: Option<&str>) -> Result<i32, String> {
    let mut out = std::io::stdout().lock();
    match name {
        None => {
            for (name, text) in SHIPPED {
                let about = text.lines().next().unwrap_or("").trim_start_matches("# ");
                let _ = writeln!(out, "{name:<12} {about}");
            }
        }
        Some(name) => {
            let (_, text) = SHIPPED
                .iter()
                .find(|(known, _)| *known == name)
                .ok_or_else(|| format!("no shipped scenario `{name}`; list them without a name"))?;
            let _ = out.write_all(text.as_bytes());
        }
    }
    Ok(EXIT_OK)
}

fn run(args: RunArgs) -> Result<i32, String> {
    let mut options = match &args.scenario {
        Some(name) => Options::read(name)?,
        None => Options::default(),
    };
    options.overlay(args.options);
    let clock = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let run_id = (clock.as_millis() & 0xffff_ffff) as u32;
    let mut setup = Setup::resolve(options, run_id)?;
    let listeners = Listeners::bind(&mut setup).map_err(|error| explain(&error))?;
    let panel = Panel::new(&setup, false)?;
    let (json, report_dir) = (setup.json.clone(), setup.report_dir.clone());
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new()
        .name("judge".to_owned())
        .spawn(move || {
            pin(setup.cpu);
            tokio_uring::builder().entries(4096).start(async move {
                let result = drive(setup, listeners, panel).await;
                let _ = sender.send(result);
                std::future::pending::<()>().await;
            });
        })
        .map_err(|error| format!("cannot start a thread: {error}"))?;
    let result = receiver.recv().map_err(|_| {
        "the judge's thread ended; is io_uring allowed here (sysctl kernel.io_uring_disabled)?"
            .to_owned()
    })?;
    match result {
        Ok(report) => {
            publish(&report, json.as_deref(), report_dir.as_deref())?;
            Ok(report.exit_code)
        }
        Err(error @ DriveError::Unreachable(..)) => {
            let _ = writeln!(std::io::stderr(), "volley-loadgen: {}", explain(&error));
            Ok(EXIT_UNREACHABLE)
        }
        Err(error) => Err(explain(&error)),
    }
}

fn pin(cpu: Option<usize>) {
    let Some(cpu) = cpu else {
        return;
    };
    let mut set = rustix::thread::CpuSet::new();
    if cpu < rustix::thread::CpuSet::MAX_CPU {
        set.set(cpu);
    }
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        let _ = writeln!(
            std::io::stderr(),
            "volley-loadgen: --cpu {cpu}: {error}; not pinned"
        );
    }
}

async fn drive(setup: Setup, listeners: Listeners, mut panel: Panel) -> Result<Report, DriveError> {
    if !setup.quiet {
        let _ = writeln!(std::io::stderr(), "{}", report::headline(&setup));
    }
    let driver = Driver::start(World::new(setup), listeners);
    let mut done = core::pin::pin!(driver.done());
    let (start, mut last) = (Instant::now(), Instant::now());
    let mut earlier = driver.world(|world| world.counters);
    loop {
        let second = Duration::from_secs(1);
        match tokio::time::timeout(second, &mut done).await {
            Ok(outcome) => {
                outcome?;
                break;
            }
            Err(_) if !panel.wanted() => {}
            Err(_) => {
                let span = last.elapsed().as_secs_f64();
                last = Instant::now();
                driver.world(|world| {
                    let look = panel::look(world, &earlier, span, start.elapsed().as_secs_f64());
                    earlier = world.counters;
                    panel.show(&look, &world.setup);
                });
            }
        }
    }
    let marks = driver.marks();
    Ok(driver.world(|world| {
        world.finish();
        report::build(world, &marks)
    }))
}

fn explain(error: &DriveError) -> String {
    match error {
        DriveError::Bind(flag, address, error) => {
            format!("{flag} {address}: {error}; choose another address, or port 0 for a free one")
        }
        DriveError::Unreachable(address, error) => {
            format!("--engine {address}: {error}; start the engine first or correct the address")
        }
    }
}

fn publish(report: &Report, json: Option<&Path>, dir: Option<&Path>) -> Result<(), String> {
    let text = report.text();
    let encoded = report.json();
    let write = |path: &Path, what: &str| {
        std::fs::write(path, what).map_err(|error| format!("{}: {error}", path.display()))
    };
    let mut out = std::io::stdout().lock();
    match json {
        Some(path) if path == Path::new("-") => {
            let _ = writeln!(out, "{encoded}");
        }
        Some(path) => {
            write(path, &encoded)?;
            let _ = out.write_all(text.as_bytes());
        }
        None => {
            let _ = out.write_all(text.as_bytes());
        }
    }
    let _ = out.flush();
    if let Some(dir) = dir {
        std::fs::create_dir_all(dir)
            .map_err(|error| format!("--report-dir {}: {error}", dir.display()))?;
        write(&dir.join("report.txt"), &text)?;
        write(&dir.join("report.json"), &encoded)?;
    }
    Ok(())
}
