//! The processes that are measured: started in a folder that is removed with them, and what they
//! have cost so far (Linux; elsewhere nobody tells).

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use hyper::Method;
use serde_json::{Value as Json, json};

use crate::error::{Error, Kind, Result};

use super::folder::Folder;
use super::place;

/// How long a server may take to listen.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a process has used and holds.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    used: Used,
    /// Resident memory in bytes, now and at most.
    pub memory: u64,
    pub peak: u64,
    /// Open handles.
    pub handles: u64,
}

/// Processor time in nanoseconds.
#[derive(Clone, Debug)]
enum Used {
    /// By thread, of those that live: exact.
    Threads(HashMap<u32, u64>),
    /// Of all there ever were, where the kernel keeps no count by thread.
    Ticks(u64),
}

impl Default for Used {
    fn default() -> Used {
        Used::Ticks(0)
    }
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
            used: scheduled(pid).map(Used::Threads).or_else(|| ticks(pid).map(Used::Ticks))?,
            memory: bytes("VmRSS:")?,
            peak: bytes("VmHWM:")?,
            handles: handles as u64,
        })
    }

    /// Processor time of all threads since `before`, in nanoseconds. What a thread that ended
    /// meanwhile used in between is not in it: it takes its count with it.
    pub fn cpu_since(&self, before: &Usage) -> Option<u64> {
        match (&self.used, &before.used) {
            (Used::Threads(after), Used::Threads(before)) => {
                let since = |(thread, used): (&u32, &u64)| {
                    // A number given to another thread since: all it has is new.
                    let past = before.get(thread).copied().unwrap_or_default();
                    used.checked_sub(past).unwrap_or(*used)
                };
                Some(after.iter().map(since).sum())
            }
            (Used::Ticks(after), Used::Ticks(before)) => Some(after.saturating_sub(*before)),
            _ => None,
        }
    }
}

/// Of each thread that lives now, exact to the nanosecond.
fn scheduled(pid: u32) -> Option<HashMap<u32, u64>> {
    fs::metadata(format!("/proc/{pid}/schedstat")).ok()?;
    let mut threads = HashMap::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let Ok(thread) = thread else { continue };
        // One that ends meanwhile is none.
        let Ok(text) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
        let used = text.split(' ').next().and_then(|used| used.parse::<u64>().ok());
        let number = thread.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        threads.extend(number.zip(used));
    }
    Some(threads)
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
    folder: Option<Folder>,
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The folder it works in, if it has one of its own.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_ref().map(Folder::path)
    }

    /// The floor: this program's own server of bare write() calls; a durable one with its file in
    /// a folder inside `dir`.
    pub fn floor(durable: Option<&Path>) -> Result<Running> {
        let program = own_program()?;
        let folder = durable.map(folder_in).transpose()?;
        let mut command = Command::new(&program);
        command.args(["bench", "floor-server", "--port", "0"]);
        if let Some(folder) = &folder {
            command.arg("--durable").arg(folder.path().join("posts"));
        }
        listening(&program, command, folder, |line| {
            let told: Json = serde_json::from_str(line).ok()?;
            told["address"].as_str()?.parse().ok()
        })
    }

    /// A server of `program` that serves this schema from a folder inside `dir`, and its admin's
    /// token.
    pub fn server(
        program: &Path,
        dir: &Path,
        schema: &str,
        text: &str,
    ) -> Result<(Running, String)> {
        let failed = no_folder(dir);
        let folder = folder_in(dir)?;
        let schemas = folder.path().join("schemas");
        fs::create_dir(&schemas).map_err(&failed)?;
        fs::write(schemas.join(format!("{schema}.json")), text).map_err(failed)?;
        let password = uuid::Uuid::new_v4().simple().to_string();
        // With the log that it has where nobody sets one: a line for each request.
        let mut command = Command::new(own_program()?);
        command.args(["bench", "started", "--parent", &std::process::id().to_string(), "--"]);
        command.arg(program).args(["serve", "--port", "0"]);
        command.current_dir(folder.path());
        // What is set for another server is not for this one.
        command.env_clear();
        for name in ["PATH", "HOME", "TMPDIR"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.env("ADMIN_PASSWORD", &password);
        let listens = |line: &str| line.split_once("listening on http://")?.1.trim().parse().ok();
        let running = listening(program, command, Some(folder), listens)?;
        let login = json!({"login": "admin", "password": password});
        let path = "/api/auth/local/login";
        let place = place::at(running.address);
        let answer = place::call(&place, Method::POST, path, None, Some(&login))?;
        match answer["token"].as_str() {
            Some(token) => Ok((running, token.to_owned())),
            None => Err(Error::bad("the login gave no token")),
        }
    }
}

/// A folder of its own inside `dir`, removed with the value.
fn folder_in(dir: &Path) -> Result<Folder> {
    let failed = no_folder(dir);
    // It is another process's to work in: as it would be said there.
    let dir = std::path::absolute(dir).map_err(&failed)?;
    Folder::make(&dir).map_err(failed)
}

fn no_folder(dir: &Path) -> impl Fn(std::io::Error) -> Error {
    move |error| Error::bad(format!("a folder in {}: {error}", dir.display()))
}

/// Starts a process and waits for the line that tells its address.
fn listening(
    program: &Path,
    mut command: Command,
    folder: Option<Folder>,
    address: impl Fn(&str) -> Option<SocketAddr> + Send + 'static,
) -> Result<Running> {
    let program = program.display();
    // Ctrl-C is for this process, which then ends the other.
    command.process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let child = command.spawn().map_err(|error| Error::bad(format!("{program}: {error}")))?;
    let mut running = Running { child, address: SocketAddr::from(([0; 4], 0)), folder };
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
        Err(_) => Err(Error::new(
            Kind::Unavailable,
            format!("{program} did not start to listen; run by hand it says why"),
        )),
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::{Usage, Used};

    #[test]
    fn a_thread_that_ended_takes_nothing_from_the_others() {
        let usage = |threads: &[(u32, u64)]| Usage {
            used: Used::Threads(threads.iter().copied().collect()),
            ..Usage::default()
        };
        let before = usage(&[(1, 100), (2, 5_000), (3, 70)]);
        // The second ended, the fourth came, and the third's number went to another.
        let after = usage(&[(1, 130), (3, 20), (4, 7)]);
        assert_eq!(after.cpu_since(&before), Some(30 + 20 + 7));
        assert_eq!(before.cpu_since(&before), Some(0));
    }
}
