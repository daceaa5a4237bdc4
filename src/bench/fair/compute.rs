//! The control: a process that merely computes, as long, in as many threads and in as many pieces
//! as the server's threads (and the burden's client) did for a burden.

use std::collections::HashMap;
use std::fs;
use std::process::{Child, Command, ExitCode, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::super::process::own_program;
use crate::error::{Error, Result};

/// Threads that took less of a core than this are left out.
const LEAST_SHARE: f64 = 0.002;
/// How long a piece of computing is, at least and at most.
const PIECE: (f64, f64) = (20e-6, 0.1);

/// What one thread has used so far.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    /// Nanoseconds.
    cpu: u64,
    /// How often it fell asleep.
    naps: u64,
}

/// What a process's threads have used (Linux; elsewhere nobody tells).
#[derive(Clone, Debug, Default)]
pub struct Threads(HashMap<u32, Used>);

impl Threads {
    /// Those of this process but `without`.
    pub fn of(pid: u32, without: Option<u32>) -> Threads {
        let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
            return Threads::default();
        };
        let of = |path: std::path::PathBuf| {
            let number: u32 = path.file_name()?.to_str()?.parse().ok()?;
            let cpu = fs::read_to_string(path.join("schedstat")).ok()?;
            let cpu = cpu.split(' ').next()?.parse().ok()?;
            let status = fs::read_to_string(path.join("status")).ok()?;
            let naps =
                status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            Some((number, Used { cpu, naps: naps?.trim().parse().ok()? }))
        };
        let all = tasks.flatten().filter_map(|task| of(task.path()));
        Threads(all.filter(|(number, _)| Some(*number) != without).collect())
    }

    /// What they have used since.
    pub fn since(&self, before: &Threads) -> Threads {
        let since = |(number, used): (&u32, &Used)| {
            let past = before.0.get(number).copied().unwrap_or_default();
            let cpu = used.cpu.saturating_sub(past.cpu);
            (*number, Used { cpu, naps: used.naps.saturating_sub(past.naps) })
        };
        Threads(self.0.iter().map(since).collect())
    }

    /// Nanoseconds, all together.
    pub fn cpu(&self) -> u64 {
        self.0.values().map(|used| used.cpu).sum()
    }

    /// What each took a second more than in a quieter time; the seconds are those times' lengths.
    pub fn more_than(&self, seconds: f64, quiet: &Threads, quiet_seconds: f64) -> Vec<Piece> {
        let more = self.0.iter().filter_map(|(number, used)| {
            let past = quiet.0.get(number).copied().unwrap_or_default();
            let rate = |now: u64, past: u64| now as f64 / seconds - past as f64 / quiet_seconds;
            let share = rate(used.cpu, past.cpu) / 1e9;
            let naps = rate(used.naps, past.naps).max(1.0);
            let length = (share / naps).clamp(PIECE.0, PIECE.1);
            (share >= LEAST_SHARE).then_some(Piece { share: share.min(1.0), length })
        });
        more.collect()
    }
}

/// What one thread is to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Piece {
    /// Of a core.
    pub share: f64,
    /// Seconds that are computed in one go.
    pub length: f64,
}

impl std::fmt::Display for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.4}:{:.0}", self.share, self.length * 1e6)
    }
}

impl FromStr for Piece {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Piece, String> {
        let parts = text.split_once(':').and_then(|(share, length)| {
            Some((share.parse::<f64>().ok()?, length.parse::<f64>().ok()? / 1e6))
        });
        match parts {
            Some((share, length)) if share > 0.0 && share <= 1.0 && length > 0.0 => {
                Ok(Piece { share, length })
            }
            _ => Err("use SHARE:MICROSECONDS".into()),
        }
    }
}

/// `rowcast bench computing SHARE:MICROSECONDS …`: a thread for each, until the standard input
/// ends.
#[derive(clap::Args, Debug)]
pub struct Computing {
    pieces: Vec<Piece>,
}

impl Computing {
    /// Computes.
    pub fn run(&self) -> Result<ExitCode> {
        for (number, piece) in (1..).zip(self.pieces.clone()) {
            std::thread::spawn(move || piece.compute(number));
        }
        // An input that cannot be read has ended too.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        Ok(ExitCode::SUCCESS)
    }
}

impl Piece {
    fn compute(self, seed: u64) {
        let mut random = seed;
        let mut due = Instant::now();
        let mut sum = 0_u64;
        loop {
            // From half to one and a half of it: pieces of several threads are not to march.
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let length = self.length * (0.5 + (random >> 33) as f64 / f64::from(1_u32 << 31));
            let end = cpu_time() + length;
            while cpu_time() < end {
                for value in 0..2_000 {
                    sum = std::hint::black_box(sum.wrapping_add(value));
                }
            }
            due += Duration::from_secs_f64(length / self.share);
            let now = Instant::now();
            match due.checked_duration_since(now) {
                Some(wait) => std::thread::sleep(wait),
                // What it could not have for long is not made up for.
                None if now - due > Duration::from_millis(200) => due = now,
                None => {}
            }
        }
    }
}

/// This thread's, in seconds.
fn cpu_time() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// The process, ended with its value.
pub struct Control(Child);

impl Control {
    /// Starts it.
    pub fn start(pieces: &[Piece]) -> Result<Control> {
        let program = own_program()?;
        let mut command = Command::new(&program);
        command.args(["bench", "computing"]).args(pieces.iter().map(Piece::to_string));
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let failed = |error| Error::bad(format!("{}: {error}", program.display()));
        command.spawn().map(Control).map_err(failed)
    }

    /// What it has used so far.
    pub fn used(&self) -> Threads {
        Threads::of(self.0.id(), None)
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_more_is_computed_as_long_and_in_as_many_pieces() {
        let threads = |all: &[(u32, u64, u64)]| {
            let all = all
                .iter()
                .map(|(number, cpu, naps)| (*number, Used { cpu: cpu * 1_000_000, naps: *naps }));
            Threads(all.collect())
        };
        // Thread, milliseconds, naps; in two seconds, and in one.
        let beside = threads(&[(1, 1_200, 600), (2, 100, 10), (3, 800, 4)]);
        let quiet = threads(&[(1, 100, 100), (2, 50, 5)]);
        let mut pieces = beside.more_than(2.0, &quiet, 1.0);
        pieces.sort_by(|a, b| a.share.total_cmp(&b.share));
        let told: Vec<String> = pieces.iter().map(Piece::to_string).collect();
        // The third's would be 200 ms long.
        assert_eq!(told, ["0.4000:100000", "0.5000:2500"]);
        assert_eq!(told[1].parse(), Ok(pieces[1]));
        assert!("0:5".parse::<Piece>().is_err() && "1".parse::<Piece>().is_err());
    }
}
