//! Reports of generators that ran at the same time against one engine, as one report.

use hdrhistogram::Histogram;

use crate::curve;
use crate::goodput;
use crate::report::{Latency, LedgerRow, Phase, Report};

/// Adds reports up.
pub fn merge(reports: &[Report]) -> Result<Report, String> {
    let (first, rest) = reports.split_first().ok_or("nothing to merge")?;
    let mut sum = first.clone();
    let mut histograms = curve::read_hlog(&first.hlog)?;
    for one in rest {
        if one.kind != sum.kind || one.headline != sum.headline {
            return Err("reports of different kinds of runs cannot be merged".into());
        }
        sum.users += one.users;
        sum.devices += one.devices;
        sum.valid &= one.valid;
        sum.conformant &= one.conformant;
        sum.ledger_balances &= one.ledger_balances;
        sum.objectives_met &= one.objectives_met;
        sum.invalid_reasons
            .extend(one.invalid_reasons.iter().cloned());
        sum.broken.extend(one.broken.iter().cloned());
        sum.offenders.extend(one.offenders.iter().cloned());
        sum.objectives.extend(one.objectives.iter().cloned());
        add_ledger(&mut sum.ledger, &one.ledger);
        for (name, count) in &one.counters {
            *sum.counters.entry(name.clone()).or_default() += count;
        }
        for phase in &one.phases {
            match sum.phases.iter_mut().find(|known| known.name == phase.name) {
                Some(known) => add_phase(known, phase),
                None => sum.phases.push(phase.clone()),
            }
        }
        sum.own_peak_kib += one.own_peak_kib;
        sum.engine_peak_kib = sum.engine_peak_kib.max(one.engine_peak_kib);
        add_series(&mut sum, one);
        add_histograms(&mut histograms, curve::read_hlog(&one.hlog)?)?;
    }
    if sum.goodput.is_some() {
        sum.goodput = goodput::judge(&sum.series, None);
    }
    let seconds = sum.measured().map_or(0.0, |phase| phase.seconds);
    sum.hlog = curve::hlog(&histograms, seconds);
    sum.curves = histograms
        .iter()
        .map(|(name, one)| curve::curve(name, one))
        .collect();
    sum.latencies = histograms
        .iter()
        .map(|(name, one)| Latency::new(name, one))
        .collect();
    sum.exit_code = sum.code();
    Ok(sum)
}

fn add_ledger(sum: &mut LedgerRow, one: &LedgerRow) {
    sum.deposited += one.deposited;
    sum.accepted += one.accepted;
    sum.refused += one.refused;
    sum.unanswered += one.unanswered;
    sum.expected += one.expected;
    sum.delivered += one.delivered;
    sum.kept += one.kept;
    sum.lost += one.lost;
    sum.duplicated += one.duplicated;
    sum.corrupted += one.corrupted;
    sum.foreign += one.foreign;
}

/// Work adds up; time and the engine's CPU are the same for all.
fn add_phase(sum: &mut Phase, one: &Phase) {
    let engine = |phase: &Phase| Some(phase.engine_busy? * phase.seconds);
    let engine_s = engine(sum).into_iter().chain(engine(one)).reduce(f64::max);
    let own_s = sum.own_busy * sum.seconds + one.own_busy * one.seconds;
    sum.pushes += one.pushes;
    sum.deposits += one.deposits;
    sum.seconds = sum.seconds.max(one.seconds);
    let work = if sum.name == "deposit" {
        sum.deposits
    } else {
        sum.pushes
    };
    let (work, seconds) = (work.max(1) as f64, sum.seconds.max(1e-9));
    sum.pushes_per_s = sum.pushes as f64 / seconds;
    sum.engine_us_per_push = engine_s.map(|spent| spent * 1e6 / work);
    sum.pushes_per_engine_core_second = engine_s.map(|spent| work / spent.max(1e-9));
    sum.engine_busy = engine_s.map(|spent| spent / seconds);
    sum.own_us_per_push = own_s * 1e6 / work;
    sum.own_busy = own_s / seconds;
    sum.busiest_worker = sum.busiest_worker.max(one.busiest_worker);
}

fn add_series(sum: &mut Report, one: &Report) {
    for slot in &one.series.slots {
        let known = sum
            .series
            .slots
            .iter_mut()
            .find(|known| (known.t - slot.t).abs() < 1e-6);
        let Some(known) = known else {
            continue;
        };
        known.due += slot.due;
        known.sent += slot.sent;
        known.invites += slot.invites;
        known.pushes += slot.pushes;
        known.engine_s = known.engine_s.max(slot.engine_s);
        known.own_s += slot.own_s;
        known.open += slot.open;
        for &(row, count) in &slot.heat {
            match known.heat.iter_mut().find(|(known, _)| *known == row) {
                Some((_, sum)) => *sum += count,
                None => known.heat.push((row, count)),
            }
        }
    }
}

type Named = (String, Histogram<u64>);

fn add_histograms(sum: &mut Vec<Named>, more: Vec<Named>) -> Result<(), String> {
    for (name, histogram) in more {
        match sum.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => {
                let added = known.add(&histogram);
                added.map_err(|error| format!("{name}: {error:?}"))?;
            }
            None => sum.push((name, histogram)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::compare::tests::report;

    #[test]
    fn work_adds_up_and_a_bad_verdict_stays() {
        let mut histogram = Histogram::<u64>::new(3).unwrap();
        histogram.record_n(1_000_000, 10).unwrap();
        let log = curve::hlog(&[("trigger_to_invite".to_owned(), histogram)], 1.0);
        let (mut a, mut b) = (report(10.0, 1, 20), report(10.0, 2, 20));
        a.hlog = log.clone();
        b.hlog = log;
        b.valid = false;
        b.exit_code = 3;
        let sum = merge(&[a.clone(), b]).unwrap();
        assert_eq!(sum.exit_code, 3);
        assert_eq!(sum.users, 2 * a.users);
        assert_eq!(sum.latencies[0].count, 20);
        assert_eq!(sum.series.slots[3].pushes, 2000);
        assert_eq!(sum.ledger.expected, 2 * a.ledger.expected);
        let mut other = a.clone();
        other.kind = "steady".into();
        assert!(merge(&[a, other]).is_err());
    }
}
