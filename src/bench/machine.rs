//! What else may explain the figures: the machine, where the data lies, how this was built.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::options::Options;

/// How long it is looked at what else the machine does.
const LOOK: Duration = Duration::from_millis(300);

/// From so many cores on others spoil the figures.
const BUSY: f64 = 0.3;

/// The machine as it is told beside results.
pub struct Machine {
    cores: usize,
    /// How many of them were busy before anything was started (Linux).
    busy: Option<f64>,
    /// Of the folder that a server of the bench's own keeps its data in.
    filesystem: Option<String>,
}

impl Machine {
    /// Takes a moment, to see what else it does.
    pub fn of(options: &Options) -> Machine {
        let own = options.url.is_none();
        Machine {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            busy: busy(),
            filesystem: own.then(|| filesystem(&options.folder())).flatten(),
        }
    }

    pub fn json(&self) -> Json {
        let read = |path: &str| Some(std::fs::read_to_string(path).ok()?.trim().to_owned());
        json!({
            "cores": self.cores,
            "busy_cores_before": self.busy,
            "os": std::env::consts::OS,
            "kernel": read("/proc/sys/kernel/osrelease"),
            "load": read("/proc/loadavg"),
            "filesystem": self.filesystem,
            "debug_build": cfg!(debug_assertions),
        })
    }

    /// A line above all tables.
    pub fn head(&self) -> String {
        let cores = if self.cores == 1 { "core" } else { "cores" };
        let data = self.filesystem.as_ref().map(|name| format!(", data on {name}"));
        format!("{} {cores}{}", self.cores, data.unwrap_or_default())
    }

    /// Says on stderr what makes figures worth little.
    pub fn warn(&self) {
        warn_of_debug();
        warn_of_others(self.busy);
        if matches!(self.filesystem.as_deref(), Some("tmpfs" | "ramfs")) {
            eprintln!(
                "rowcast: the data lies in memory, where a durable write costs nothing: name a \
                 folder on a disk by --dir"
            );
        }
    }
}

/// The same, where no server is started.
pub fn warn_of_this() {
    warn_of_debug();
    warn_of_others(busy());
}

fn warn_of_others(busy: Option<f64>) {
    if let Some(busy) = busy.filter(|busy| *busy > BUSY) {
        eprintln!(
            "rowcast: other programs keep {busy:.1} cores busy: the figures will be worse, and \
             differ from run to run"
        );
    }
}

/// Says on stderr that this program was not built to be fast, where it was not.
fn warn_of_debug() {
    if cfg!(debug_assertions) {
        eprintln!("rowcast: this is a debug build: its figures say nothing of a release build");
    }
}

/// How many cores are busy at present (Linux; elsewhere nobody tells).
fn busy() -> Option<f64> {
    let stat = || std::fs::read_to_string("/proc/stat").ok();
    let before = stat()?;
    std::thread::sleep(LOOK);
    busy_between(&before, &stat()?)
}

/// The same between two looks at `/proc/stat`.
fn busy_between(before: &str, after: &str) -> Option<f64> {
    let times = |stat: &str| -> Option<(u64, u64)> {
        let line = stat.lines().next()?.strip_prefix("cpu ")?;
        // user nice system idle iowait irq softirq steal; what guests take stands in the first two.
        let times: Result<Vec<u64>, _> =
            line.split_ascii_whitespace().take(8).map(str::parse).collect();
        let times = times.ok()?;
        Some((times.iter().sum(), times.get(3)? + times.get(4)?))
    };
    let (all, idle) = times(after).zip(times(before)).map(|(after, before)| {
        (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1))
    })?;
    let core = |line: &&str| line.starts_with("cpu") && !line.starts_with("cpu ");
    let cores = after.lines().filter(core).count() as f64;
    (all > 0).then(|| cores * all.saturating_sub(idle) as f64 / all as f64)
}

/// What kind of filesystem this path lies on (Linux; elsewhere nobody tells).
fn filesystem(path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    kind(&std::fs::read_to_string("/proc/self/mountinfo").ok()?, &path)
}

/// The same from a list of mounts: the deepest above the path, and of several there the last.
fn kind(mounts: &str, path: &Path) -> Option<String> {
    let above = mounts.lines().filter_map(|line| {
        let (place, rest) = line.split_once(" - ")?;
        let place = Path::new(place.split(' ').nth(4)?);
        path.starts_with(place).then_some((place.components().count(), rest.split(' ').next()?))
    });
    above.max_by_key(|(depth, _)| *depth).map(|(_, kind)| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_many_cores_are_busy() {
        let stat = |times: &str| format!("cpu  {times} 7 0\ncpu0 1 2\ncpu1 1 2\nintr 1\n");
        let before = stat("100 0 50 800 10 0 5 0");
        for (after, busy) in [
            ("100 0 50 860 10 0 5 0", Some(0.0)),
            ("120 0 55 825 10 0 10 0", Some(30.0 / 55.0 * 2.0)),
            ("120 5 55 800 10 2 10 8", Some(2.0)),
            ("100 0 50 800 10 0 5 0", None),
        ] {
            assert_eq!(busy_between(&before, &stat(after)), busy, "{after}");
        }
        assert_eq!(busy_between("", ""), None);
    }

    #[test]
    fn a_path_lies_on_the_deepest_mount_above_it() {
        let mounts = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:20 / /tmp rw shared:2 - tmpfs tmpfs rw
24 23 254:1 / /tmp/disk rw - xfs /dev/vdb rw
25 22 254:2 / /data rw - ext4 /dev/vdc rw
26 22 0:30 / /data rw - btrfs /dev/vdd rw";
        for (path, told) in [
            ("/", "ext4"),
            ("/tmp", "tmpfs"),
            ("/tmp/a/b", "tmpfs"),
            ("/tmpfile", "ext4"),
            ("/tmp/disk/a", "xfs"),
            ("/data/a", "btrfs"),
        ] {
            assert_eq!(kind(mounts, Path::new(path)).as_deref(), Some(told), "{path}");
        }
        assert_eq!(kind("", Path::new("/")), None);
    }
}
