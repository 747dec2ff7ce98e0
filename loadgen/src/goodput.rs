//! Whether an engine that is asked for more than it can do goes on doing what it can, and how soon it is
//! through afterwards.
//!
//! The measured step is cut into windows of a second. A window is *loaded* when triggers waited before and
//! after it for longer than a moment, so that the engine had all the work it could want; what it completes
//! then is its goodput, a share of the most that it can do. That is the best second of the run, or what a
//! search found before (`--goodput-maximum`).

use serde::{Deserialize, Serialize};

use crate::curve::{Series, SlotRow};

/// Seconds of a window, unless the slots are longer.
const WINDOW_S: f64 = 1.0;
/// A window is loaded while the triggers outstanding would keep an engine busy for longer than this.
const WAITING_S: f64 = 0.1;
/// Shorter ones, at the end, tell nothing.
const LEAST_S: f64 = 0.5;

/// How an engine stood more than it can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Goodput {
    /// Most pushes a second, of the best second or as it was given.
    pub maximum: f64,
    /// Seconds in which more was asked for than done.
    pub loaded_s: f64,
    /// Least share of the maximum in one of them; `None` when there was none.
    pub least: Option<f64>,
    /// When that was, seconds from the start of the step.
    pub least_at_s: f64,
    /// Share of the maximum over all of them.
    pub mean: Option<f64>,
    /// Seconds from the last trigger that fell due to the last push; `None` when some never came.
    pub recovery_s: Option<f64>,
}

/// A window: what happened in it, and how many triggers waited at its end.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    t: f64,
    covers: f64,
    pushes: u64,
    open: u32,
}

impl Window {
    fn add(&mut self, slot: &SlotRow) {
        self.covers += slot.covers;
        self.pushes += slot.pushes;
        self.open = slot.open;
    }

    fn rate(&self) -> f64 {
        self.pushes as f64 / self.covers
    }
}

/// Judges a step that was measured; `None` when nothing fell due or came.
pub fn judge(series: &Series, maximum: Option<f64>) -> Option<Goodput> {
    let windows = windows(series);
    let best = windows.iter().map(Window::rate).fold(0.0, f64::max);
    let maximum = maximum.unwrap_or(best);
    if maximum <= 0.0 {
        return None;
    }
    let mut found = Goodput {
        maximum,
        recovery_s: recovery(series),
        ..Goodput::default()
    };
    let mut done = 0;
    for pair in windows.windows(2) {
        let (before, now) = (&pair[0], &pair[1]);
        let least_open = f64::from(before.open.min(now.open));
        if least_open <= maximum * WAITING_S {
            continue;
        }
        found.loaded_s += now.covers;
        done += now.pushes;
        let share = now.rate() / maximum;
        if found.least.is_none_or(|least| share < least) {
            found.least = Some(share);
            found.least_at_s = now.t;
        }
    }
    if found.loaded_s > 0.0 {
        found.mean = Some(done as f64 / found.loaded_s / maximum);
    }
    Some(found)
}

fn windows(series: &Series) -> Vec<Window> {
    let mut windows: Vec<Window> = Vec::new();
    for slot in &series.slots {
        match windows.last_mut() {
            Some(last) if last.covers + slot.covers / 2.0 < WINDOW_S => last.add(slot),
            Some(_) | None => {
                let mut window = Window {
                    t: slot.t,
                    ..Window::default()
                };
                window.add(slot);
                windows.push(window);
            }
        }
    }
    windows.retain(|window| window.covers >= LEAST_S);
    windows
}

/// From the end of the slot in which the last trigger fell due to that of the last push.
fn recovery(series: &Series) -> Option<f64> {
    let end = |is: fn(&SlotRow) -> bool| {
        let last = series.slots.iter().rfind(|slot| is(slot));
        last.map(|slot| slot.t + series.width)
    };
    let due = end(|slot| slot.due > 0)?;
    let push = end(|slot| slot.pushes > 0)?;
    let sums = series.slots.iter().fold((0, 0), |(due, pushes), slot| {
        (due + slot.due, pushes + slot.pushes)
    });
    (sums.1 >= sums.0).then(|| (push - due).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slots of a tenth of a second: triggers due a second and pushes done a second in each second.
    fn series(seconds: &[(u64, u64)]) -> Series {
        let mut open = 0u64;
        let mut slots = Vec::new();
        for (second, &(due, pushes)) in seconds.iter().enumerate() {
            for tenth in 0..10 {
                open = (open + due / 10).saturating_sub(pushes / 10);
                slots.push(SlotRow {
                    t: second as f64 + f64::from(tenth) / 10.0,
                    covers: 0.1,
                    due: due / 10,
                    pushes: pushes / 10,
                    open: u32::try_from(open).unwrap(),
                    ..SlotRow::default()
                });
            }
        }
        Series {
            width: 0.1,
            slots,
            ..Series::default()
        }
    }

    fn near(value: Option<f64>, wanted: f64) -> bool {
        value.is_some_and(|value| (value - wanted).abs() < 0.001)
    }

    #[test]
    fn an_engine_that_goes_on_at_its_most_has_all_of_it() {
        let busy = [(20_000, 10_000), (20_000, 9_800), (20_000, 9_900)];
        let after = [(0, 10_000), (0, 10_000), (0, 10_000), (0, 300), (0, 0)];
        let found = judge(&series(&[&busy[..], &after].concat()), None).unwrap();
        assert!((found.maximum - 10_000.0).abs() < 0.01, "{found:?}");
        assert!(near(found.least, 0.98), "{found:?}");
        assert!(near(found.recovery_s, 4.0), "{found:?}");
        assert!(found.loaded_s > 3.9, "{found:?}");
    }

    #[test]
    fn a_second_in_which_little_gets_done_is_found() {
        let run = [
            (20_000, 10_000),
            (20_000, 4_000),
            (0, 10_000),
            (0, 10_000),
            (0, 6_000),
        ];
        let found = judge(&series(&run), None).unwrap();
        assert!(near(found.least, 0.4), "{found:?}");
        assert!(near(Some(found.least_at_s), 1.0), "{found:?}");
    }

    #[test]
    fn who_is_asked_for_less_than_the_most_is_not_loaded() {
        let run = [(5_000, 5_000), (9_000, 9_000), (1_000, 1_000)];
        let found = judge(&series(&run), None).unwrap();
        assert_eq!((found.least, found.loaded_s), (None, 0.0));
        assert!(near(found.recovery_s, 0.0));
    }

    #[test]
    fn a_maximum_that_was_found_before_is_the_measure() {
        let run = [(20_000, 8_000), (20_000, 8_000), (0, 8_000), (0, 16_000)];
        let found = judge(&series(&run), Some(16_000.0)).unwrap();
        assert!(near(found.least, 0.5), "{found:?}");
    }

    #[test]
    fn pushes_that_never_come_are_no_recovery() {
        let found = judge(&series(&[(2_000, 1_000), (0, 500)]), None).unwrap();
        assert_eq!(found.recovery_s, None);
        assert_eq!(judge(&Series::default(), None), None);
    }
}
