//! Latencies and time in the form the report carries them: enough to draw, to compare and to merge.

use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{
    IntervalLogIterator, IntervalLogWriterBuilder, LogEntry, Tag,
};
use hdrhistogram::serialization::{Deserializer, V2DeflateSerializer};
use serde::{Deserialize, Serialize};

use crate::stats::{Latencies, Stage};
use crate::timeline::{ROWS, Timeline, row_start};

/// A stage's latency by percentile.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Curve {
    /// The stage.
    pub stage: String,
    /// Quantile (zero to one) and the latency at it, milliseconds.
    pub points: Vec<(f64, f64)>,
}

/// A slot of time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SlotRow {
    /// Seconds from the start of the measured step.
    pub t: f64,
    /// Seconds it covers.
    pub covers: f64,
    /// Triggers due.
    pub due: u64,
    /// Triggers sent.
    pub sent: u64,
    /// INVITEs received.
    pub invites: u64,
    /// Pushes completed.
    pub pushes: u64,
    /// CPU of the engine, seconds.
    pub engine_s: f64,
    /// CPU of the generator, seconds.
    pub own_s: f64,
    /// Most triggers outstanding.
    pub open: u32,
    /// Row of the heat map and triggers in it that fell due in this slot.
    pub heat: Vec<(u8, u32)>,
}

/// A measured step over time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Series {
    /// Seconds of a slot.
    pub width: f64,
    /// Where the rows of the heat map begin, milliseconds.
    pub rows_ms: Vec<f64>,
    /// The slots.
    pub slots: Vec<SlotRow>,
}

/// Quantiles of a curve: ten for each factor of ten towards one.
fn quantiles() -> impl Iterator<Item = f64> {
    core::iter::once(0.0).chain((0..=50).map(|n| 1.0 - 10f64.powf(-f64::from(n) / 10.0)))
}

/// The curves of all stages that have samples.
pub fn curves(latencies: &Latencies) -> Vec<Curve> {
    Stage::all()
        .filter(|&stage| !latencies.of(stage).is_empty())
        .map(|stage| curve(stage.name(), latencies.of(stage)))
        .collect()
}

/// A histogram by percentile.
pub fn curve(name: &str, histogram: &Histogram<u64>) -> Curve {
    let least = 1.0 / histogram.len().max(1) as f64;
    Curve {
        stage: name.to_owned(),
        points: quantiles()
            .filter(|quantile| 1.0 - quantile >= least * 0.999)
            .map(|quantile| (quantile, histogram.value_at_quantile(quantile) as f64 / 1e6))
            .chain(core::iter::once((1.0, histogram.max() as f64 / 1e6)))
            .collect(),
    }
}

/// The timeline for a report.
pub fn series(timeline: &Timeline) -> Series {
    let width = timeline.width() as f64 / 1e9;
    let slots = timeline
        .slots()
        .iter()
        .enumerate()
        .map(|(number, slot)| SlotRow {
            t: number as f64 * width,
            covers: slot.covers as f64 / 1e9,
            due: slot.counted.due,
            sent: slot.counted.sent,
            invites: slot.counted.invites,
            pushes: slot.counted.pushes,
            engine_s: slot.counted.engine_ns as f64 / 1e9,
            own_s: slot.counted.own_ns as f64 / 1e9,
            open: slot.open,
            heat: (0u8..)
                .zip(slot.heat)
                .filter(|&(_, count)| count > 0)
                .collect(),
        });
    Series {
        width,
        rows_ms: (0..=ROWS).map(|row| row_start(row) as f64 / 1e6).collect(),
        slots: slots.collect(),
    }
}

/// All stages in the interval log format of HdrHistogram, one line for each stage, its name as tag;
/// values are nanoseconds.
pub fn hlog(histograms: &[(String, Histogram<u64>)], seconds: f64) -> String {
    let mut out = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let span = core::time::Duration::from_secs_f64(seconds.max(0.0));
    let mut write = || -> Option<()> {
        let mut log = IntervalLogWriterBuilder::new()
            .add_comment("volley-loadgen; one histogram for each stage, nanoseconds")
            .begin_log_with(&mut out, &mut serializer)
            .ok()?;
        for (name, histogram) in histograms {
            let zero = core::time::Duration::ZERO;
            log.write_histogram(histogram, zero, span, Tag::new(name))
                .ok()?;
        }
        Some(())
    };
    let _ = write();
    String::from_utf8(out).unwrap_or_default()
}

/// Reads what [`hlog`] wrote.
pub fn read_hlog(text: &str) -> Result<Vec<(String, Histogram<u64>)>, String> {
    let mut found = Vec::new();
    let mut deserializer = Deserializer::new();
    for entry in IntervalLogIterator::new(text.as_bytes()) {
        let entry = entry.map_err(|error| format!("interval log: {error:?}"))?;
        let LogEntry::Interval(interval) = entry else {
            continue;
        };
        let name = interval.tag().map_or("", |tag| tag.as_str()).to_owned();
        let bytes = base64(interval.encoded_histogram()).ok_or("interval log: not base 64")?;
        let histogram = deserializer
            .deserialize(&mut bytes.as_slice())
            .map_err(|error| format!("interval log: {error:?}"))?;
        found.push((name, histogram));
    }
    Ok(found)
}

/// Decodes base 64 with padding.
fn base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count & 0xff) as u8);
        }
    }
    Some(out)
}

/// A stage in the percentile distribution format of HdrHistogram, milliseconds.
pub fn hgrm(histogram: &Histogram<u64>) -> String {
    use core::fmt::Write as _;
    let mut out = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
    for step in histogram.iter_quantiles(5) {
        let quantile = step.quantile_iterated_to();
        let value = histogram.highest_equivalent(step.value_iterated_to()) as f64 / 1e6;
        let count = histogram.count_between(0, step.value_iterated_to());
        let _ = write!(out, "{value:12.3} {quantile:2.12} {count:10}");
        if quantile < 1.0 {
            let _ = write!(out, " {:14.2}", 1.0 / (1.0 - quantile));
        }
        out.push('\n');
    }
    let _ = writeln!(
        out,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]\n#[Max     = {:12.3}, Total count    = \
         {:12}]\n#[Buckets = {:12}, SubBuckets     = {:12}]",
        histogram.mean() / 1e6,
        histogram.stdev() / 1e6,
        histogram.max() as f64 / 1e6,
        histogram.len(),
        histogram.buckets(),
        2048
    );
    out
}

/// The histograms of all stages that have samples, by name.
pub fn histograms(latencies: &Latencies) -> Vec<(String, Histogram<u64>)> {
    Stage::all()
        .filter(|&stage| !latencies.of(stage).is_empty())
        .map(|stage| (stage.name().to_owned(), latencies.of(stage).clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_read_back_with_equal_percentiles() {
        let mut latencies = Latencies::default();
        for n in 1..=10_000u64 {
            latencies.record(Stage::TriggerToInvite, 0, n * n * 17);
            latencies.record(Stage::SendLag, 0, n);
        }
        let text = hlog(&histograms(&latencies), 3.0);
        let read = read_hlog(&text).unwrap();
        assert_eq!(read.len(), 2);
        let (name, histogram) = &read[1];
        assert_eq!(name, "trigger_to_invite");
        for quantile in [0.0, 0.5, 0.99, 0.999, 1.0] {
            let wanted = latencies
                .of(Stage::TriggerToInvite)
                .value_at_quantile(quantile);
            assert_eq!(histogram.value_at_quantile(quantile), wanted);
        }
        assert!(read_hlog("Tag=x,0,1,2,%%%").is_err());
    }

    #[test]
    fn a_distribution_ends_at_the_largest_value_with_every_sample() {
        let mut histogram = Histogram::<u64>::new(3).unwrap();
        for n in 1..=1000u64 {
            histogram.record(n * 1_000_000).unwrap();
        }
        let text = hgrm(&histogram);
        let last = text.lines().rfind(|line| !line.starts_with('#')).unwrap();
        let words: Vec<&str> = last.split_ascii_whitespace().collect();
        assert_eq!(words[2], "1000");
        assert!((words[0].parse::<f64>().unwrap() - 1000.0).abs() < 1.0);
        let rising: Vec<f64> = text
            .lines()
            .filter_map(|line| line.split_ascii_whitespace().next()?.parse().ok())
            .collect();
        assert!(rising.is_sorted());
    }

    #[test]
    fn a_curve_does_not_claim_more_than_its_samples() {
        let mut histogram = Histogram::<u64>::new(3).unwrap();
        for n in 1..=100u64 {
            histogram.record(n).unwrap();
        }
        let points = curve("x", &histogram).points;
        let below = &points[..points.len() - 1];
        assert!(below.iter().all(|(quantile, _)| *quantile <= 0.9901));
        assert_eq!(points.last().unwrap().0, 1.0);
    }
}
