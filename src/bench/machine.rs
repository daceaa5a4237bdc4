//! What else may explain the figures: the machine, where the data lies, how this was built.

use std::path::Path;

use serde_json::{Value as Json, json};

use super::options::Options;

/// The machine as it is told beside results.
pub struct Machine {
    cores: usize,
    /// Of the folder that a server of the bench's own keeps its data in.
    filesystem: Option<String>,
}

impl Machine {
    pub fn of(options: &Options) -> Machine {
        let own = options.url.is_none();
        Machine {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            filesystem: own.then(|| filesystem(&options.folder())).flatten(),
        }
    }

    pub fn json(&self) -> Json {
        let read = |path: &str| Some(std::fs::read_to_string(path).ok()?.trim().to_owned());
        json!({
            "cores": self.cores,
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
        if matches!(self.filesystem.as_deref(), Some("tmpfs" | "ramfs")) {
            eprintln!(
                "rowcast: the data lies in memory, where a durable write costs nothing: name a \
                 folder on a disk by --dir"
            );
        }
    }
}

/// Says on stderr that this program was not built to be fast, where it was not.
pub fn warn_of_debug() {
    if cfg!(debug_assertions) {
        eprintln!("rowcast: this is a debug build: its figures say nothing of a release build");
    }
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
