//! A report as one HTML page that needs nothing else: no script, no font, no network.

use core::fmt::Write as _;

use crate::report::Report;
use crate::svg::{Axis, Plot, escape};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:900px;\
padding:0 1em;color:#1c1c1c;background:#fff}h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}\
svg{width:100%;font:12px system-ui,sans-serif}.g{stroke:#e2e2e2;fill:none}.l{fill:none;\
stroke-width:2}.r{text-anchor:end}.m{text-anchor:middle}table{border-collapse:collapse;width:100%}\
td,th{padding:.25em .6em;text-align:right;border-bottom:1px solid #e2e2e2}td:first-child,\
th:first-child{text-align:left}.yes{color:#1d6b3a}.no{color:#a11a12}pre{background:#f5f5f5;\
padding:.8em;overflow:auto;font-size:12px}.how{color:#555;margin:.2em 0}";

/// Renders a report.
pub fn page(report: &Report) -> String {
    let mut out = String::with_capacity(256 * 1024);
    let _ = write!(
        out,
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>volley-loadgen: {kind}</title>\
         <style>{STYLE}</style></head><body><h1>volley-loadgen: {kind} over {}, {} users, {} \
         devices</h1>",
        escape(&report.transport),
        report.users,
        report.devices,
        kind = escape(&report.kind),
    );
    verdicts(&mut out, report);
    steps(&mut out, report);
    percentiles(&mut out, report);
    over_time(&mut out, report);
    heat(&mut out, report);
    open(&mut out, report);
    cpu(&mut out, report);
    trials(&mut out, report);
    offenders(&mut out, report);
    out.push_str("</body></html>\n");
    out
}

fn section(out: &mut String, title: &str, how: &str, plot: Plot) {
    let _ = write!(
        out,
        "<h2>{}</h2><p class=\"how\">{}</p>{}",
        escape(title),
        escape(how),
        plot.finish()
    );
}

fn verdicts(out: &mut String, report: &Report) {
    let mut row = |good: bool, word: &str, text: &str| {
        let class = if good { "yes" } else { "no" };
        let _ = write!(
            out,
            "<p><b class=\"{class}\">{}</b> {}</p>",
            escape(word),
            escape(text)
        );
    };
    row(
        report.valid,
        if report.valid { "VALID" } else { "INVALID" },
        "whether the figures are about the engine, or generator or host were the limit",
    );
    for reason in &report.invalid_reasons {
        row(false, &reason.what, &reason.remedy);
    }
    row(
        report.conformant,
        if report.conformant {
            "CONFORMANT"
        } else {
            "NOT CONFORMANT"
        },
        "whether every message the engine sent kept every rule",
    );
    let ledger = &report.ledger;
    let sums = format!(
        "message x device: {} expected = {} delivered + {} kept; {} lost, {} duplicated, {} \
         corrupted, {} foreign",
        ledger.expected,
        ledger.delivered,
        ledger.kept,
        ledger.lost,
        ledger.duplicated,
        ledger.corrupted,
        ledger.foreign
    );
    let word = if report.ledger_balances {
        "LEDGER balances"
    } else {
        "LEDGER DOES NOT BALANCE"
    };
    row(report.ledger_balances, word, &sums);
    for objective in &report.objectives {
        let measured = objective.measured.map_or_else(
            || "not measured".to_owned(),
            |value| format!("measured {value:.3}"),
        );
        let text = format!("{} {}: {measured}", objective.name, objective.bound);
        row(
            objective.met,
            if objective.met {
                "objective met"
            } else {
                "objective MISSED"
            },
            &text,
        );
    }
}

fn steps(out: &mut String, report: &Report) {
    out.push_str(
        "<h2>Steps</h2><p class=\"how\">The marked step is the measured one. CPU of the engine \
         divided by what was done is the figure to compare; it is not multiplied to more cores.</p>\
         <table><tr><th>step<th>seconds<th>pushes<th>pushes/s<th>engine us/push<th>pushes per \
         core-second<th>own us/push</tr>",
    );
    for phase in &report.phases {
        let some = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        let mark = if phase.name == report.headline {
            " *"
        } else {
            ""
        };
        let _ = write!(
            out,
            "<tr><td>{}{mark}<td>{:.3}<td>{}<td>{:.0}<td>{}<td>{}<td>{:.3}</tr>",
            escape(&phase.name),
            phase.seconds,
            phase.pushes,
            phase.pushes_per_s,
            some(phase.engine_us_per_push, 3),
            some(phase.pushes_per_engine_core_second, 0),
            phase.own_us_per_push
        );
    }
    out.push_str("</table>");
}

/// Labels of the axis 1 / (1 - quantile).
const NINES: &[(f64, &str)] = &[
    (1.0, "0 %"),
    (10.0, "90 %"),
    (100.0, "99 %"),
    (1000.0, "99.9 %"),
    (10_000.0, "99.99 %"),
    (100_000.0, "99.999 %"),
];

fn percentiles(out: &mut String, report: &Report) {
    const SHOWN: &[(&str, &str)] = &[
        ("trigger_to_invite", "from the due time"),
        ("trigger_to_invite_from_send", "from the sending"),
        ("trigger_to_invite_uncorrected", "waiting client"),
        ("trigger_to_delivered", "until delivered"),
        ("send_lag", "send lag"),
    ];
    let lines: Vec<(&str, Vec<(f64, f64)>)> = SHOWN
        .iter()
        .filter_map(|(stage, name)| {
            let curve = report.curves.iter().find(|curve| curve.stage == *stage)?;
            let points = curve.points.iter().filter(|(quantile, _)| *quantile < 1.0);
            Some((
                *name,
                points
                    .map(|(quantile, ms)| (1.0 / (1.0 - quantile), *ms))
                    .collect(),
            ))
        })
        .collect();
    let all = || lines.iter().flat_map(|(_, points)| points.iter().copied());
    let x = Axis::over(all().map(|(x, _)| x), true);
    // Less than a microsecond is not told apart.
    let y = Axis::over(all().map(|(_, y)| y.max(0.001)), true);
    let mut plot = Plot::new(x, y, ("percentile", "milliseconds"), Some(NINES));
    for (name, points) in &lines {
        let points: Vec<_> = points.iter().map(|&(x, y)| (x, y.max(0.001))).collect();
        plot.line(name, &points);
    }
    section(
        out,
        "Latency by percentile, trigger to INVITE",
        "Read from the left: this share of the triggers was answered within that time. The line from \
         the due time is the one to believe; where the waiting client's line is far below it, the \
         engine stalled and a tool that waits would not have noticed. A send lag near the others means \
         that the generator was slow.",
        plot,
    );
}

fn rates<'a>(
    report: &'a Report,
    of: impl Fn(&crate::curve::SlotRow) -> f64 + 'a,
) -> Vec<(f64, f64)> {
    report
        .series
        .slots
        .iter()
        .filter(|slot| slot.covers > 0.0)
        .map(|slot| (slot.t, of(slot) / slot.covers))
        .collect()
}

fn over_time(out: &mut String, report: &Report) {
    let lines = [
        ("offered", rates(report, |slot| slot.due as f64)),
        ("sent", rates(report, |slot| slot.sent as f64)),
        ("INVITEs", rates(report, |slot| slot.invites as f64)),
        ("pushes done", rates(report, |slot| slot.pushes as f64)),
    ];
    let all = || lines.iter().flat_map(|(_, points)| points.iter().copied());
    let x = Axis::over(all().map(|(x, _)| x), false);
    let y = Axis::over(all().map(|(_, y)| y), false);
    let mut plot = Plot::new(x, y, ("seconds", "per second"), None);
    for (name, points) in &lines {
        plot.line(name, points);
    }
    section(
        out,
        "Offered, sent and answered over time",
        "A trigger may be for several devices, so INVITEs and pushes are as many times higher. Sent \
         below offered is the generator's fault; pushes below INVITEs that stay there mean that the \
         engine does not keep up; a hole in all but offered is a stall.",
        plot,
    );
}

fn heat(out: &mut String, report: &Report) {
    let series = &report.series;
    let cells = || {
        series
            .slots
            .iter()
            .flat_map(|slot| slot.heat.iter().map(move |cell| (slot, cell)))
    };
    let most = cells().map(|(_, (_, count))| *count).max().unwrap_or(1);
    let edge = |row: usize| series.rows_ms.get(row).copied().unwrap_or(0.0).max(0.0005);
    let rows = || cells().map(|(_, (row, _))| usize::from(*row));
    let x = Axis::over(series.slots.iter().map(|slot| slot.t + series.width), false);
    let y = Axis::over(rows().flat_map(|row| [edge(row), edge(row + 1)]), true);
    let mut plot = Plot::new(
        x,
        y,
        ("seconds (when the trigger was due)", "milliseconds"),
        None,
    );
    for (slot, (row, count)) in cells() {
        let (low, high) = (edge(usize::from(*row)), edge(usize::from(*row) + 1));
        let weight = (f64::from(*count).ln_1p() / f64::from(most).ln_1p()).clamp(0.0, 1.0);
        plot.cell((slot.t, low), (slot.t + series.width, high), weight);
    }
    section(
        out,
        "Latency over time",
        "Each column is a slot of time, the darker the more triggers had that latency. One dark band is \
         a healthy run; two bands are two ways through the engine; a wedge that falls to the right is a \
         stall and the queue behind it, a wedge that rises is overload.",
        plot,
    );
}

fn open(out: &mut String, report: &Report) {
    let points: Vec<(f64, f64)> = report
        .series
        .slots
        .iter()
        .filter(|slot| slot.covers > 0.0)
        .map(|slot| (slot.t, f64::from(slot.open)))
        .collect();
    let x = Axis::over(points.iter().map(|&(x, _)| x), false);
    let y = Axis::over(points.iter().map(|&(_, y)| y), false);
    let mut plot = Plot::new(x, y, ("seconds", "users"), None);
    plot.line("outstanding", &points);
    section(
        out,
        "In flight",
        "Users whose trigger has not come to the end of its pushes. Level is an engine that keeps up; \
         a line that climbs is one that does not, whatever the latencies still say.",
        plot,
    );
}

fn cpu(out: &mut String, report: &Report) {
    let lines = [
        ("engine", rates(report, |slot| slot.engine_s * 100.0)),
        ("generator", rates(report, |slot| slot.own_s * 100.0)),
    ];
    let all = || lines.iter().flat_map(|(_, points)| points.iter().copied());
    let x = Axis::over(all().map(|(x, _)| x), false);
    let y = Axis::over(all().map(|(_, y)| y).chain(core::iter::once(100.0)), false);
    let mut plot = Plot::new(x, y, ("seconds", "per cent of one CPU"), None);
    for (name, points) in &lines {
        if points.iter().any(|&(_, y)| y > 0.0) {
            plot.line(name, points);
        }
    }
    section(
        out,
        "CPU of engine and generator",
        "The engine near 100 for each of its threads is at its limit. A generator near 100 is at its \
         own, and then the run says little about the engine.",
        plot,
    );
}

fn trials(out: &mut String, report: &Report) {
    if report.trials.is_empty() {
        return;
    }
    let points: Vec<(f64, f64, bool)> = (1u32..)
        .zip(&report.trials)
        .map(|(number, trial)| (f64::from(number), trial.load, trial.good))
        .collect();
    let x = Axis::over(points.iter().map(|&(x, _, _)| x), false);
    let y = Axis::over(points.iter().map(|&(_, y, _)| y), false);
    let mut plot = Plot::new(x, y, ("trial", "pushes per second"), None);
    for &(x, y, good) in &points {
        plot.dot((x, y), good);
    }
    section(
        out,
        "Search",
        "Each dot is a trial: green met the goals at that load, red did not. The dots close in on the \
         highest load that does.",
        plot,
    );
}

fn offenders(out: &mut String, report: &Report) {
    if report.offenders.is_empty() {
        return;
    }
    out.push_str(
        "<h2>Broken rules</h2><p class=\"how\">The first messages that broke each rule, with its row \
         of the requirements.</p>",
    );
    for offender in &report.offenders {
        let _ = write!(
            out,
            "<p><b class=\"no\">{}</b> {}</p><pre>{}</pre>",
            escape(&offender.rule),
            escape(&offender.what),
            escape(&offender.message)
        );
    }
}
