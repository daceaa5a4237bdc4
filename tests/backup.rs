//! The store in one file, and back.

#[path = "backup/command.rs"]
mod command;
mod common;
#[path = "backup/kill.rs"]
mod kill;
#[path = "backup/store.rs"]
mod store;
#[path = "support/blog.rs"]
mod support;
#[path = "support/whole.rs"]
mod whole;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("a file").permissions().mode() & 0o777
}

/// Names in a folder, sorted, without those that come and go.
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("a folder");
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.expect("an entry").file_name().into_string().expect("UTF-8")
    };
    let mut names: Vec<_> = entries.map(name).collect();
    names.sort();
    names
}
