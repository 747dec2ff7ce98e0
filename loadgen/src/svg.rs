//! Small plots as inline SVG: lines on linear or logarithmic axes, and a heat map.

use core::fmt::Write as _;

/// Size of a plot, pixels.
const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 300.0;
/// Room for labels.
const LEFT: f64 = 70.0;
const RIGHT: f64 = 180.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 44.0;

/// Colours of lines, in turn.
const COLOURS: &[&str] = &[
    "#1f6fb4", "#d1495b", "#3a9a5b", "#8e5bb5", "#c98a1b", "#4a4a4a",
];

/// One axis.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    low: f64,
    high: f64,
    log: bool,
}

impl Axis {
    /// Spans `values`; a linear axis starts at zero.
    pub fn over(values: impl Iterator<Item = f64>, log: bool) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|value| value.is_finite() && (!log || *value > 0.0)) {
            low = low.min(value);
            high = high.max(value);
        }
        if !low.is_finite() {
            (low, high) = (0.1, 1.0);
        }
        if !log {
            low = low.min(0.0);
        }
        if high <= low {
            high = if log { low * 10.0 } else { low + 1.0 };
        }
        Self { low, high, log }
    }

    /// Where a value stands, zero to one.
    fn at(self, value: f64) -> f64 {
        let part = if self.log {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        part.clamp(0.0, 1.0)
    }

    /// Values to label.
    fn ticks(self) -> Vec<f64> {
        if self.log {
            let from = self.low.log10().floor() as i32;
            let to = self.high.log10().ceil() as i32;
            return (from..=to)
                .map(|power| 10f64.powi(power))
                .filter(|tick| *tick >= self.low * 0.999 && *tick <= self.high * 1.001)
                .collect();
        }
        let rough = (self.high - self.low) / 5.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .iter()
            .map(|factor| factor * power)
            .find(|step| *step >= rough)
            .unwrap_or(rough);
        let count = ((self.high - self.low) / step) as u32;
        (0..=count)
            .map(|n| self.low + f64::from(n) * step)
            .collect()
    }
}

/// A number as short as it may be.
fn short(value: f64) -> String {
    let size = value.abs();
    if size >= 1e6 {
        format!("{:.1}M", value / 1e6)
    } else if size >= 1e4 {
        format!("{:.0}k", value / 1e3)
    } else if size >= 100.0 || (size - size.round()).abs() < 1e-9 {
        format!("{value:.0}")
    } else {
        format!("{value:.3}")
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_owned()
    }
}

/// Text for element content.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// A plot that grows.
#[derive(Debug)]
pub struct Plot {
    out: String,
    x: Axis,
    y: Axis,
    lines: usize,
}

impl Plot {
    /// Axes, grid and labels. `x_ticks` replaces the ticks of the horizontal axis.
    pub fn new(x: Axis, y: Axis, labels: (&str, &str), x_ticks: Option<&[(f64, &str)]>) -> Self {
        let mut plot = Self {
            out: String::new(),
            x,
            y,
            lines: 0,
        };
        let _ = write!(
            plot.out,
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{} over {}\">",
            escape(labels.1),
            escape(labels.0)
        );
        for tick in y.ticks() {
            let at = plot.y_at(tick);
            let _ = write!(
                plot.out,
                "<path class=\"g\" d=\"M{LEFT} {at:.1}H{:.1}\"/><text class=\"r\" x=\"{:.1}\" \
                 y=\"{:.1}\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0,
                short(tick)
            );
        }
        let own: Vec<(f64, String)> = match x_ticks {
            Some(ticks) => ticks
                .iter()
                .map(|&(at, text)| (at, text.to_owned()))
                .collect(),
            None => x
                .ticks()
                .into_iter()
                .map(|tick| (tick, short(tick)))
                .collect(),
        };
        for (tick, text) in own.iter().filter(|(tick, _)| *tick <= x.high * 1.001) {
            let at = plot.x_at(*tick);
            let _ = write!(
                plot.out,
                "<path class=\"g\" d=\"M{at:.1} {TOP}V{:.1}\"/><text class=\"m\" x=\"{at:.1}\" \
                 y=\"{:.1}\">{}</text>",
                HEIGHT - BOTTOM,
                HEIGHT - BOTTOM + 16.0,
                escape(text)
            );
        }
        let (middle_x, middle_y) = ((LEFT + WIDTH - RIGHT) / 2.0, (TOP + HEIGHT - BOTTOM) / 2.0);
        let _ = write!(
            plot.out,
            "<text class=\"m\" x=\"{middle_x:.1}\" y=\"{:.1}\">{}</text><text class=\"m\" \
             transform=\"translate(14 {middle_y:.1}) rotate(-90)\">{}</text>",
            HEIGHT - 8.0,
            escape(labels.0),
            escape(labels.1)
        );
        plot
    }

    fn x_at(&self, value: f64) -> f64 {
        LEFT + self.x.at(value) * (WIDTH - LEFT - RIGHT)
    }

    fn y_at(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.at(value) * (HEIGHT - TOP - BOTTOM)
    }

    /// A line with its entry in the legend.
    pub fn line(&mut self, name: &str, points: &[(f64, f64)]) {
        let colour = COLOURS[self.lines % COLOURS.len()];
        let mut path = String::new();
        for &(x, y) in points {
            let command = if path.is_empty() { 'M' } else { 'L' };
            let _ = write!(path, "{command}{:.1} {:.1}", self.x_at(x), self.y_at(y));
        }
        let at = TOP + 14.0 + self.lines as f64 * 18.0;
        let _ = write!(
            self.out,
            "<path class=\"l\" stroke=\"{colour}\" d=\"{path}\"/><path class=\"l\" \
             stroke=\"{colour}\" d=\"M{:.1} {at:.1}h18\"/><text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            WIDTH - RIGHT + 10.0,
            WIDTH - RIGHT + 34.0,
            at + 4.0,
            escape(name)
        );
        self.lines += 1;
    }

    /// A dot.
    pub fn dot(&mut self, (x, y): (f64, f64), good: bool) {
        let colour = if good { COLOURS[2] } else { COLOURS[1] };
        let (x, y) = (self.x_at(x), self.y_at(y));
        let _ = write!(
            self.out,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"/>"
        );
    }

    /// A cell of a heat map from one corner to the other; `weight` is zero to one.
    pub fn cell(&mut self, from: (f64, f64), to: (f64, f64), weight: f64) {
        let (left, right) = (self.x_at(from.0), self.x_at(to.0));
        let (bottom, top) = (self.y_at(from.1), self.y_at(to.1));
        let _ = write!(
            self.out,
            "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.2}\" height=\"{:.2}\" \
             fill=\"#b3261e\" fill-opacity=\"{:.3}\"/>",
            (right - left).max(0.5),
            (bottom - top).max(0.5),
            0.08 + 0.92 * weight
        );
    }

    /// The finished element.
    pub fn finish(mut self) -> String {
        self.out.push_str("</svg>");
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_ticks_inside_and_place_their_ends() {
        let axis = Axis::over([3.0, 47.0].into_iter(), false);
        assert_eq!(axis.ticks(), [0.0, 10.0, 20.0, 30.0, 40.0]);
        assert!((axis.at(47.0) - 1.0).abs() < 1e-9 && axis.at(0.0) < 1e-9);
        let axis = Axis::over([0.2, 1500.0].into_iter(), true);
        assert_eq!(axis.ticks(), [1.0, 10.0, 100.0, 1000.0]);
        let empty = Axis::over(core::iter::empty(), true);
        assert!(empty.ticks().len() > 1);
    }

    #[test]
    fn text_of_a_peer_cannot_become_markup() {
        assert_eq!(escape("<a&b>"), "&lt;a&amp;b&gt;");
        let axis = Axis::over([0.0, 1.0].into_iter(), false);
        let mut plot = Plot::new(axis, axis, ("x", "y"), None);
        plot.line("<script>", &[(0.0, 0.0), (1.0, 1.0)]);
        let text = plot.finish();
        assert!(!text.contains("<script>") && text.ends_with("</svg>"));
    }
}
