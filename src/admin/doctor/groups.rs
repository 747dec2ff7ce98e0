//! Limits that control groups put on this process, in both versions of the hierarchy.
//!
//! Every group on the way up to the root of the hierarchy counts, as far as it is mounted where we can see
//! it; the tightest one holds.

use super::Host;

/// What is known of a limit.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Limit {
    /// No group of ours could be read.
    Unknown,
    /// Groups were read, and none sets it.
    Unset,
    /// The tightest value, and the file that says it, with a slash in front.
    Of(f64, String),
}

/// Cores that the groups let us use.
pub(super) fn cpu(host: &Host) -> Limit {
    tightest(host, "cpu", |folder| {
        if let Some(text) = host.read(&format!("{folder}/cpu.max")) {
            let mut numbers = text.split_whitespace().map(str::parse::<f64>);
            let cores = match (numbers.next(), numbers.next()) {
                (Some(Ok(quota)), Some(Ok(period))) => Some(quota / period.max(1.0)),
                _ => None,
            };
            return cores.map(|cores| (cores, "cpu.max"));
        }
        // -1 is none.
        let quota = host.number(&format!("{folder}/cpu.cfs_quota_us"))?;
        let period = host.number(&format!("{folder}/cpu.cfs_period_us"));
        let period = period.unwrap_or(100_000).max(1);
        Some((whole(quota) / whole(period), "cpu.cfs_quota_us"))
    })
}

/// Octets of memory that the groups let us have.
pub(super) fn memory(host: &Host) -> Limit {
    /// The old hierarchy says "none" by the largest number of whole pages.
    const NONE: u64 = 1 << 60;
    tightest(host, "memory", |folder| {
        ["memory.max", "memory.limit_in_bytes"]
            .into_iter()
            .find_map(|name| {
                let octets = host.number(&format!("{folder}/{name}"))?;
                (octets < NONE).then(|| (whole(octets), name))
            })
    })
}

#[expect(clippy::cast_precision_loss, reason = "shown with two decimals")]
const fn whole(number: u64) -> f64 {
    number as f64
}

fn tightest(
    host: &Host,
    controller: &str,
    read: impl Fn(&str) -> Option<(f64, &'static str)>,
) -> Limit {
    let mut limit = Limit::Unknown;
    for folder in folders(host, controller) {
        let is_group = ["cgroup.procs", "cgroup.controllers"]
            .iter()
            .any(|name| host.read(&format!("{folder}/{name}")).is_some());
        let found = read(&folder);
        if limit == Limit::Unknown && (is_group || found.is_some()) {
            limit = Limit::Unset;
        }
        let tighter = |value: f64| !matches!(&limit, Limit::Of(known, _) if *known <= value);
        if let Some((value, name)) = found.filter(|(value, _)| tighter(*value)) {
            limit = Limit::Of(value, format!("/{folder}/{name}"));
        }
    }
    limit
}

/// Our groups that `controller` may be set in, below the root of the host: ours first, then what it is in.
fn folders(host: &Host, controller: &str) -> Vec<String> {
    let own = host.read("proc/self/cgroup").unwrap_or_default();
    let mut folders = Vec::new();
    let mut any_old = false;
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let is_new = controllers.is_empty();
        if is_new || controllers.split(',').any(|name| name == controller) {
            any_old |= !is_new;
            let (top, inner) = mounted(host, (!is_new).then_some(controller));
            climb(
                &top,
                path.strip_prefix(inner.as_str()).unwrap_or(path),
                &mut folders,
            );
        }
    }
    if folders.is_empty() || !any_old {
        folders.push("sys/fs/cgroup".to_owned());
    }
    folders.dedup();
    folders
}

fn climb(top: &str, path: &str, folders: &mut Vec<String>) {
    let mut path = path.trim_matches('/');
    while !path.is_empty() {
        folders.push(format!("{top}/{path}"));
        path = path.rsplit_once('/').map_or("", |(outer, _)| outer);
    }
    folders.push(top.to_owned());
}

/// Where the hierarchy of `controller`, or the one without controllers, is mounted, and which group is to be
/// seen there. By convention where the host does not say.
fn mounted(host: &Host, controller: Option<&str>) -> (String, String) {
    let mounts = host.read("proc/self/mountinfo").unwrap_or_default();
    let found = mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        let fits = match (right.next()?, controller) {
            ("cgroup2", None) => true,
            ("cgroup", Some(controller)) => {
                right.nth(1)?.split(',').any(|option| option == controller)
            }
            _ => false,
        };
        let mut left = left.split(' ');
        let (inner, point) = (left.nth(3)?, left.next()?);
        let inner = inner.trim_end_matches('/').to_owned();
        fits.then(|| (point.trim_matches('/').to_owned(), inner))
    });
    found.unwrap_or_else(|| {
        let top = controller.map_or_else(
            || "sys/fs/cgroup".to_owned(),
            |controller| format!("sys/fs/cgroup/{controller}"),
        );
        (top, String::new())
    })
}
