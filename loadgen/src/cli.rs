//! The command line.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::time::SystemTime;

use clap::{Parser, Subcommand};

use crate::capture::{Capture, Expect};
use crate::net::DriveError;
use crate::report::{
    self, EXIT_OK, EXIT_REGRESSION, EXIT_UNREACHABLE, EXIT_USAGE, EXIT_VIOLATION, Report,
};
use crate::rules::Rule;
use crate::scenario::{Options, SHIPPED, Setup};
use crate::tools::ab::Ab;
use crate::tools::compare;
use crate::tools::search::Search;
use crate::workers::{self, RunError};

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
4 a rule broken or the ledger does not balance, 5 worse than before (compare, ab), 6 engine not reached.";

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
    /// Show finished reports as text, or render them as a page
    Show {
        /// Reports that `run --json` wrote
        #[arg(required = true, value_name = "FILE")]
        files: Vec<String>,
        /// Write the page here instead; one report only
        #[arg(long, value_name = "FILE")]
        html: Option<std::path::PathBuf>,
    },
    /// Run the rules on a capture of any engine
    #[command(after_help = "Exit codes: 0 no rule broken, 2 usage, 4 a rule broken.")]
    Check {
        /// Capture in the classic pcap format
        #[arg(value_name = "FILE.pcap")]
        file: std::path::PathBuf,
        #[command(flatten)]
        expect: Expect,
    },
    /// Compare reports; several of one side are separated by commas
    #[command(after_help = "Exit codes: 0 nothing worse, 2 usage, 5 a figure is worse.")]
    Compare {
        /// Reports of the first side
        #[arg(value_name = "A.json[,..]", value_delimiter = ',')]
        a: Vec<String>,
        /// Reports of the second side
        #[arg(value_name = "B.json[,..]", value_delimiter = ',')]
        b: Vec<String>,
        /// Differences up to this share count as the same
        #[arg(long, default_value_t = 0.03)]
        tolerance: f64,
        /// Figures that count for the exit code; all without
        #[arg(long, value_name = "NAME")]
        figure: Vec<String>,
    },
    /// Run two engines in turn and compare them
    #[command(after_help = "Exit codes: 0 nothing worse, 2 usage, 5 a figure is worse.")]
    Ab(Box<Ab>),
    /// Find the highest load that meets a goal (RFC 9971)
    Search(Box<Search>),
    /// Add up reports of generators that ran at the same time
    Merge {
        /// Reports that `run --json` wrote
        #[arg(required = true, value_name = "FILE")]
        files: Vec<String>,
        /// Where the sum is written
        #[arg(long, value_name = "FILE")]
        json: std::path::PathBuf,
    },
    /// Answer whoever calls and measure what a call costs the caller
    Answer(crate::answer::Answer),
    /// Call an answering peer with as little as a caller can do
    Call(crate::answer::Call),
    /// Stand between peers and make the network between them bad
    Relay(crate::relay::Relay),
    /// Test the rules: one broken message for each, and exactly that rule must trip
    Mutate {
        /// Show every broken message and what the judge said
        #[arg(long)]
        verbose: bool,
    },
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
    // Whoever measures must not stand while the system clears 2 MiB at a time for a table that grows.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let outcome = match cli.command {
        Command::Run(args) => run(*args),
        Command::Rules => {
            print_rules();
            Ok(EXIT_OK)
        }
        Command::Mutate { verbose } => {
            let (text, good) = crate::mutate::report(verbose);
            let _ = std::io::stdout().lock().write_all(text.as_bytes());
            Ok(if good { EXIT_OK } else { EXIT_VIOLATION })
        }
        Command::Scenarios { name } => scenarios(name.as_deref()),
        Command::Check { file, expect } => check_file(&file, &expect),
        Command::Show { files, html } => show(&files, html.as_deref()),
        Command::Compare {
            a,
            b,
            tolerance,
            figure,
        } => read_all(&a)
            .and_then(|a| Ok((a, read_all(&b)?)))
            .and_then(|(a, b)| compared(&compare::compare(&a, &b, tolerance)?, tolerance, &figure)),
        Command::Ab(ab) => ab
            .compare()
            .and_then(|rows| compared(&rows, ab.tolerance, &ab.figure)),
        Command::Search(search) => searched(&search),
        Command::Merge { files, json } => merged(&files, &json),
        Command::Relay(relay) => relayed(&relay),
        Command::Answer(answer) => answer.run().map(|report| {
            print(&report.text(answer.json));
            if report.is_reconciled() {
                EXIT_OK
            } else {
                EXIT_VIOLATION
            }
        }),
        Command::Call(call) => call.run().map(|text| {
            print(&text);
            EXIT_OK
        }),
    };
    match outcome {
        Ok(code) => code,
        Err(message) => {
            let _ = writeln!(std::io::stderr(), "volley-loadgen: {message}");
            EXIT_USAGE
        }
    }
}

fn read_all(files: &[String]) -> Result<Vec<Report>, String> {
    files.iter().map(|file| Report::read(file)).collect()
}

fn print(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

fn save(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn show(files: &[String], html: Option<&Path>) -> Result<i32, String> {
    let reports = read_all(files)?;
    match (html, reports.as_slice()) {
        (Some(path), [report]) => save(path, &crate::html::page(report))?,
        (Some(_), _) => return Err("--html: one report makes one page".into()),
        (None, reports) => {
            for report in reports {
                print(&report.text());
            }
        }
    }
    Ok(EXIT_OK)
}

fn check_file(file: &Path, expect: &Expect) -> Result<i32, String> {
    let bytes = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let packets = crate::pcap::read(&bytes).map_err(|why| format!("{}: {why}", file.display()))?;
    let mut capture = Capture::new(expect);
    for packet in &packets {
        capture.packet(packet);
    }
    capture.finish();
    print(&format!(
        "{} packets, {} messages, {} pushes, {} violations\n",
        packets.len(),
        capture.seen,
        capture.pushes,
        capture.violations.total()
    ));
    for (rule, count) in capture.violations.broken() {
        print(&format!(
            "broken   {} x{count}: {}\n",
            rule.id(),
            rule.text()
        ));
        let offenders = capture.violations.offenders();
        if let Some(first) = offenders.iter().find(|offender| offender.rule == rule) {
            print(&format!("  first: {}\n", first.what));
            for line in first.message.lines().take(40) {
                print(&format!("  | {}\n", line.escape_debug()));
            }
        }
    }
    Ok(if capture.violations.total() == 0 {
        EXIT_OK
    } else {
        EXIT_VIOLATION
    })
}

fn compared(rows: &[compare::Row], tolerance: f64, figures: &[String]) -> Result<i32, String> {
    print(&compare::text(rows, tolerance));
    if compare::regressed(rows, figures) {
        Ok(EXIT_REGRESSION)
    } else {
        Ok(EXIT_OK)
    }
}

fn searched(search: &Search) -> Result<i32, String> {
    let found = search.search(|load, seconds| search.trial(load, seconds))?;
    print(&found.text(search));
    if let Some(path) = &search.json {
        let text = serde_json::to_string_pretty(&found).map_err(|error| error.to_string())?;
        save(path, &text)?;
    }
    let met = found.relevant_lower_bound.is_some();
    Ok(if met { EXIT_OK } else { report::EXIT_OBJECTIVE })
}

fn relayed(relay: &crate::relay::Relay) -> Result<i32, String> {
    let done = relay.run()?;
    if relay.json {
        let text = serde_json::to_string(&done).map_err(|error| error.to_string())?;
        print(&format!("{text}\n"));
    } else {
        print(&format!("{done}\n"));
    }
    Ok(EXIT_OK)
}

fn merged(files: &[String], json: &Path) -> Result<i32, String> {
    let sum = crate::tools::merge::merge(&read_all(files)?)?;
    save(json, &sum.json())?;
    print(&sum.text());
    Ok(sum.exit_code)
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
    let setup = Setup::resolve(options, run_id)?;
    let (json, report_dir) = (setup.json.clone(), setup.report_dir.clone());
    match workers::run(setup) {
        Ok(outcome) => {
            let report = report::build(&outcome);
            publish(&report, json.as_deref(), report_dir.as_deref())?;
            Ok(report.exit_code)
        }
        Err(RunError::Drive(error @ DriveError::Unreachable(..))) => {
            let _ = writeln!(std::io::stderr(), "volley-loadgen: {}", explain(&error));
            Ok(EXIT_UNREACHABLE)
        }
        Err(RunError::Drive(error)) => Err(explain(&error)),
        Err(RunError::Other(why)) => Err(why),
    }
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
        write(&dir.join("report.html"), &crate::html::page(report))?;
        write(&dir.join("latency.hlog"), &report.hlog)?;
        if !report.offenders.is_empty() {
            let messages = report.offenders.iter().map(|one| one.message.as_bytes());
            let file = dir.join("offenders.pcap");
            std::fs::write(&file, crate::pcap::write(messages, 5060, 5060))
                .map_err(|error| format!("{}: {error}", file.display()))?;
        }
        for (stage, histogram) in crate::curve::read_hlog(&report.hlog)? {
            let file = dir.join(format!("{stage}.hgrm"));
            write(&file, &crate::curve::hgrm(&histogram))?;
        }
    }
    Ok(())
}
