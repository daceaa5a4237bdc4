//! The binary as a user meets it: first run, refusals, commands, stopping.

#[path = "../common/mod.rs"]
mod common;

mod commands;
mod import;
mod start;
mod tail;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Options, Server, rowcast, wait};
use serde_json::{Value as Json, json};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The example schemas, as a first run serves them.
fn examples() -> Options {
    Options::default().schemas_from(repository("schemas"))
}

/// Runs a command to its end, with a bound.
fn run(command: &mut Command) -> (i32, String, String) {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("spawned");
    let (mut out, mut err) =
        (child.stdout.take().expect("stdout"), child.stderr.take().expect("stderr"));
    let read = std::thread::spawn(move || std::io::read_to_string(&mut err).unwrap_or_default());
    let told = std::thread::spawn(move || std::io::read_to_string(&mut out).unwrap_or_default());
    let status = wait(&mut child);
    (status.code().unwrap_or(-1), told.join().expect("stdout"), read.join().expect("stderr"))
}

fn in_dir(dir: &Path, args: &[&str]) -> (i32, String, String) {
    run(rowcast(dir).args(args))
}

/// A directory with the example schemas and no server.
fn place() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let schemas = dir.path().join("schemas");
    std::fs::create_dir(&schemas).expect("schemas");
    for entry in std::fs::read_dir(repository("schemas")).expect("examples") {
        let path = entry.expect("an example").path();
        std::fs::copy(&path, schemas.join(path.file_name().expect("a name"))).expect("copied");
    }
    dir
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("a file").permissions().mode() & 0o777
}
