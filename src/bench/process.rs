//! The processes that are measured: started in a folder that is removed with them, and what they
//! have cost so far (Linux; elsewhere nobody tells).

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use hyper::Method;
use serde_json::{Value as Json, json};

use crate::error::{Error, Kind, Result};

use super::place;

/// How long a server may take to listen.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a process has used and holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Processor time of all its threads, in nanoseconds.
    pub cpu: u64,
    /// Resident memory in bytes, now and at most.
    pub memory: u64,
    pub peak: u64,
    /// Open handles.
    pub handles: u64,
}

impl Usage {
    /// Of a process that this user may look at.
    pub fn of(pid: u32) -> Option<Usage> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib << 10)
        };
        let handles = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        Some(Usage {
            cpu: scheduled(pid).or_else(|| ticks(pid))?,
            memory: bytes("VmRSS:")?,
            peak: bytes("VmHWM:")?,
            handles: handles as u64,
        })
    }
}

/// The sum over the threads that live now, exact to the nanosecond. (A thread that ended takes its
/// time with it; the servers measured here end none while they are measured.)
fn scheduled(pid: u32) -> Option<u64> {
    fs::metadata(format!("/proc/{pid}/schedstat")).ok()?;
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        // One that ends meanwhile is none.
        let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).unwrap_or_default();
        sum += text.split(' ').next().and_then(|used| used.parse::<u64>().ok()).unwrap_or(0);
    }
    Some(sum)
}

/// User and system time by the clock that ticks 100 times a second.
fn ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11).take(2);
    Some(fields.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * 10_000_000)
}

/// Processor time of the calling thread's process's first thread: the generator's own.
pub fn own_cpu() -> Option<u64> {
    fs::read_to_string("/proc/self/schedstat").ok()?.split(' ').next()?.parse().ok()
}

/// This program.
pub fn own_program() -> Result<PathBuf> {
    std::env::current_exe().map_err(|error| Error::bad(format!("this program: {error}")))
}

/// Lets this process, and those it starts, open as many files as it is allowed to.
pub fn raise_files() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum.unwrap_or(u64::MAX),
        Err(_) => current.unwrap_or(u64::MAX),
    }
}

/// A process of ours, ended with its value.
pub struct Running {
    child: Child,
    pub address: SocketAddr,
    // Removed after the process has ended.
    _folder: Option<tempfile::TempDir>,
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The floor: this program's own server of bare write() calls.
    pub fn floor() -> Result<Running> {
        let program = own_program()?;
        let mut command = Command::new(program);
        command.args(["bench", "floor-server", "--port", "0"]);
        listening(command, None, |line| {
            let told: Json = serde_json::from_str(line).ok()?;
            told["address"].as_str()?.parse().ok()
        })
    }

    /// A server of `program` that serves this schema, and its admin's token.
    pub fn server(program: &Path, schema: &str, text: &str) -> Result<(Running, String)> {
        let failed = |error: std::io::Error| Error::bad(format!("a temporary folder: {error}"));
        let folder = tempfile::Builder::new().prefix("rowcast-bench-").tempdir().map_err(failed)?;
        let schemas = folder.path().join("schemas");
        fs::create_dir(&schemas).map_err(failed)?;
        fs::write(schemas.join(format!("{schema}.json")), text).map_err(failed)?;
        let password = uuid::Uuid::new_v4().simple().to_string();
        let mut command = Command::new(program);
        command.args(["serve", "--port", "0", "--log", "warn"]).current_dir(folder.path());
        // What is set for another server is not for this one.
        command.env_clear();
        for name in ["PATH", "HOME", "TMPDIR"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.env("ADMIN_PASSWORD", &password);
        let listens = |line: &str| line.split_once("listening on http://")?.1.trim().parse().ok();
        let running = listening(command, Some(folder), listens)?;
        let login = json!({"login": "admin", "password": password});
        let path = "/api/auth/local/login";
        let answer = place::call(running.address, Method::POST, path, None, Some(&login))?;
        match answer["token"].as_str() {
            Some(token) => Ok((running, token.to_owned())),
            None => Err(Error::bad("the login gave no token")),
        }
    }
}

/// Starts a process and waits for the line that tells its address.
fn listening(
    mut command: Command,
    folder: Option<tempfile::TempDir>,
    address: impl Fn(&str) -> Option<SocketAddr> + Send + 'static,
) -> Result<Running> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let child = command.spawn().map_err(|error| Error::bad(format!("{program}: {error}")))?;
    let mut running = Running { child, address: SocketAddr::from(([0; 4], 0)), _folder: folder };
    let Some(stdout) = running.child.stdout.take() else {
        return Err(Error::bad(format!("{program}: no output")));
    };
    let (sender, receiver) = mpsc::channel();
    // Reads on to the end, so that the process never waits for its output to be taken.
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            let Ok(line) = line else { return };
            if let Some(address) = address(&line) {
                let _ = sender.send(address);
            }
        }
    });
    match receiver.recv_timeout(PATIENCE) {
        Ok(address) => {
            running.address = address;
            Ok(running)
        }
        Err(_) => Err(Error::new(Kind::Unavailable, format!("{program} did not start to listen"))),
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
