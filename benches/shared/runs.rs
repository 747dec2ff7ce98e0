//! What benches that run a driver share: their arguments, and counters that are of one moment.

use core::str::FromStr;
use core::time::Duration;
use std::thread;

use volley::io::host::Host;
use volley::io::stats::Counters;

/// The argument at `at`, parts of which are between commas; `default` when there is none. Options of the runner
/// do not count.
pub(crate) fn list<T: FromStr>(at: usize, default: &str) -> Vec<T> {
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|text| !text.starts_with("--"));
    let text = arguments.nth(at);
    let parts = text.as_deref().unwrap_or(default).split(',');
    parts.filter_map(|one| one.parse().ok()).collect()
}

/// The counters just after all drivers updated their CPU accounts, which they do about once a second.
pub(crate) fn after_tick(host: &Host) -> Vec<Counters> {
    let before = host.counters();
    loop {
        let now = host.counters();
        let mut both = now.iter().zip(&before);
        if both.all(|(now, before)| now.cpu_us != before.cpu_us) {
            return now;
        }
        thread::sleep(Duration::from_micros(200));
    }
}
