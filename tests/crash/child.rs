//! This very test binary as another process: a store at work that can be killed or starved.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rowcast::model::value::Value;
use rowcast::store::{Options, Store};

use crate::support::*;

const MODE: &str = "ROWCAST_TEST_CHILD";
const DIR: &str = "ROWCAST_TEST_DIR";

pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running child and the lines it prints.
pub struct Running {
    pub child: Child,
    lines: Receiver<String>,
}

impl Running {
    /// `shell` is run before the child takes the shell's place, e.g. to set limits.
    pub fn start(mode: &str, dir: &Path, shell: &str) -> Running {
        Running::spawn(Command::new("sh"), mode, dir, shell)
    }

    /// The same with a file system of its own on `dir`, seen by nobody else, nearly all of it
    /// taken by a file `filler`. `None` where the machine does not allow that.
    pub fn start_small(mode: &str, dir: &Path, size: &str, filled: &str) -> Option<Running> {
        let unshare = || {
            let mut command = Command::new("unshare");
            command.args(["--user", "--map-root-user", "--mount", "sh"]);
            command
        };
        let mount = format!("mount -t tmpfs -o size={size},mode=700 tmpfs \"${DIR}\"");
        let tried = unshare().args(["-c", &mount]).env(DIR, dir).output();
        if !tried.is_ok_and(|output| output.status.success()) {
            eprintln!("left out: no file system can be mounted here");
            return None;
        }
        let shell = format!("{mount} && head -c {filled} /dev/zero > \"${DIR}/filler\" || exit");
        Some(Running::spawn(unshare(), mode, dir, &shell))
    }

    fn spawn(mut command: Command, mode: &str, dir: &Path, shell: &str) -> Running {
        let exe = std::env::current_exe().unwrap();
        let mut child = command
            .args(["-c", &format!("{shell}\nexec \"$0\" --exact child::run --nocapture")])
            .arg(exe)
            .env(MODE, mode)
            .env(DIR, dir)
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (send, lines) = channel();
        let pipes: [Box<dyn std::io::Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for pipe in pipes {
            let send = send.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    if send.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        Running { child, lines }
    }

    /// The rest of the next line that begins with `word`.
    pub fn wait_for(&self, word: &str) -> String {
        let until = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => match line.strip_prefix(word) {
                    Some(rest) => return rest.trim().to_owned(),
                    None => seen.push(line),
                },
                Err(_) => {
                    panic!("no line begins with {word:?}: {:#?}", &seen[..seen.len().min(40)])
                }
            }
        }
    }

    /// Kills it as a power cut would, and gives the numbers it had printed after `word`.
    pub fn kill(mut self, word: &str) -> Vec<i64> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let number = |line: String| line.strip_prefix(word)?.trim().parse().ok();
        self.lines.iter().filter_map(number).collect()
    }

    pub fn ended(mut self) -> std::process::ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "the child did not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn say(text: std::fmt::Arguments<'_>) {
    // One write a line, so that a kill leaves no half line that looks whole.
    let _ = std::io::stdout().write_all(format!("{text}\n").as_bytes());
    let _ = std::io::stdout().flush();
}

/// Not a test of its own: what the child does.
#[test]
fn run() {
    let Ok(mode) = std::env::var(MODE) else { return };
    let dir = std::env::var(DIR).unwrap();
    // The harness has written the test's name before.
    say(format_args!(""));
    if mode == "open" {
        let store = Store::open(Options::new(&dir), Box::new(Told::default()));
        return say(format_args!("refused {}", store.map(drop).unwrap_err()));
    }
    // The log's lines as they are, without time and level.
    tracing_subscriber::fmt().without_time().with_level(false).with_ansi(false).init();
    let (store, _) = open(Options::new(&dir));
    match mode.as_str() {
        "write" => write(&store),
        "newest" => newest(&store),
        "starve" => starve(&store),
        "panic" => {
            let _ =
                store.write_blocking(|_| -> rowcast::error::Result<()> { panic!("on purpose") });
            say(format_args!("still alive"));
        }
        other => panic!("{other}?"),
    }
}

/// Many clients, each write several records; prints `ack <blog id>`.
fn write(store: &Store) {
    store
        .write_blocking(|tx| {
            if tx.find("user", id(1)).is_none() {
                tx.user(1)?;
            }
            Ok(())
        })
        .unwrap();
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                loop {
                    let written = store.write_blocking(|tx| {
                        let category = tx.put("category", &[("name", text("x"))])?;
                        let category = ("category_id", category);
                        tx.put("blog", &[("title", text("x")), ("author_id", id(1)), category])
                    });
                    let Value::Int(blog) = written.unwrap().value else { panic!("no id") };
                    say(format_args!("ack {blog}"));
                }
            });
        }
    });
}

/// Makes a record and deletes it again, the newest there is; then prints `ack <id>`.
fn newest(store: &Store) {
    loop {
        let written = store.write_blocking(|tx| tx.put("category", &[("name", text("x"))]));
        let Value::Int(made) = written.unwrap().value else { panic!("no id") };
        assert!(store.write_blocking(move |tx| tx.drop_it("category", made)).unwrap().value);
        say(format_args!("ack {made}"));
    }
}

/// Writes until it is refused, prints `refused <why>`, and goes on trying; `back` when it works.
fn starve(store: &Store) {
    let put = || {
        let title = ("title", text(&"x".repeat(50_000)));
        store.write_blocking(move |tx| {
            if tx.find("user", id(1)).is_none() {
                tx.user(1)?;
            }
            tx.put("blog", &[title, ("author_id", id(1))])
        })
    };
    loop {
        match put() {
            Ok(written) => say(format_args!("ack {:?}", written.value)),
            Err(error) => {
                say(format_args!("refused {} {}", error.status(), error.message));
                break;
            }
        }
    }
    // Room again, where it was this that was missing.
    let _ = std::fs::remove_file(Path::new(&std::env::var(DIR).unwrap()).join("filler"));
    let until = Instant::now() + PATIENCE;
    loop {
        match put() {
            Ok(_) => break,
            Err(error) => assert_eq!(error.status(), 503, "{error}"),
        }
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(100));
    }
    say(format_args!("back"));
    let entries = store.read_blocking(|reader| reader.entries(0, 100_000)).unwrap();
    let positions: Vec<_> = entries.iter().map(|entry| entry.mark.position).collect();
    assert_eq!(positions, (1..=positions.len() as u64).collect::<Vec<_>>());
    say(format_args!("whole {}", positions.len()));
}
