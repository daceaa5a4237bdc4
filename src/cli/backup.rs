//! `rowcast backup`: the whole store in one file.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value as Json, json};

use crate::config::Config;
use crate::config::settings::PlaceFlags;
use crate::error::{Error, Result};
use crate::net::client::Place;
use crate::store::backup::{self, Progress};

use super::link::{self, Link};
use super::say;

/// How often it is looked how far a copy is.
const LOOK: Duration = Duration::from_millis(250);

/// A running server may take so long for a copy.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

const HELP: &str = "\
The copy is of one moment: every record and the change log as they stood together, users and
passwords with them. A running server goes on meanwhile and makes the copy itself, so FILE must be
where its user may write. FILE is readable by its owner alone, and is there only once it is whole
and on disk. Ctrl-C leaves nothing behind.

Not in it: the keys in DATA/.env and the folder of schema files; keep those yourself. (The schemas
as they are applied are in it.)

`rowcast restore FILE` brings it back. Clients resume with cursors from before the backup; later
ones are refused.";

#[derive(clap::Args)]
#[command(after_long_help = HELP)]
pub struct Backup {
    /// The file to make
    file: PathBuf,
    /// Replaces the file if it is there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    pub place: PlaceFlags,
}

impl Backup {
    pub async fn run(&self, config: &Config) -> Result<ExitCode> {
        let to = std::path::absolute(&self.file)
            .map_err(|error| Error::bad(format!("{}: {error}", self.file.display())))?;
        let contents = match link::running(config).await {
            Some(path) => self.ask(&Link::Running(Place::Unix(path)), &to).await?,
            None => {
                let (data, force) = (config.data.clone(), self.force);
                work(move |progress| backup::write_closed(&data, &to, force, progress))
                    .await?
                    .to_json()
            }
        };
        say(format_args!("{}: {}", self.file.display(), told(&contents)));
        say(format_args!(
            "not in it: the keys in {} and the schema files in {}",
            config.data.join(".env").display(),
            config.schemas.display()
        ));
        Ok(ExitCode::SUCCESS)
    }

    /// Has the running server do it. When this ends, the server notices and stops.
    async fn ask(&self, link: &Link, to: &std::path::Path) -> Result<Json> {
        let Some(to) = to.to_str() else {
            return Err(Error::bad(format!("{}: a name in UTF-8 is needed", to.display())));
        };
        let body = json!({"path": to, "force": self.force});
        let asked = link.call_within(PATIENCE, Method::POST, "/owner/backup", Some(&body));
        tokio::pin!(asked);
        let bar = Bar::new();
        loop {
            tokio::select! {
                contents = &mut asked => return contents,
                () = tokio::time::sleep(LOOK) => {}
            }
            let none = json!({});
            let progress = link.call(Method::POST, "/owner/backup/progress", Some(&none));
            if let Ok(progress) = progress.await {
                let number = |key: &str| progress[key].as_u64().unwrap_or_default();
                let stage = progress["stage"].as_str().unwrap_or("waiting");
                bar.set(stage, number("done"), number("of"));
            }
        }
    }
}

/// What is in a backup, in a line.
pub(super) fn told(contents: &Json) -> String {
    let number = |key: &str| contents[key].as_u64().unwrap_or_default();
    let some = |key: &str, one: &str, many: &str| match number(key) {
        1 => format!("1 {one}"),
        number => format!("{number} {many}"),
    };
    let newest = match contents["newest"].as_str() {
        Some(newest) => format!(", the newest of {newest}"),
        None => String::new(),
    };
    format!(
        "{} of {}, {}, {}{newest}; {} bytes",
        some("records", "record", "records"),
        some("schemas", "schema", "schemas"),
        some("users", "user", "users"),
        some("entries", "log entry", "log entries"),
        number("bytes"),
    )
}

/// Runs a copy in a thread of its own, shows how far it is, and ends it at Ctrl-C.
pub(super) async fn work<T: Send + 'static>(
    copy: impl FnOnce(&Arc<Progress>) -> Result<T> + Send + 'static,
) -> Result<T> {
    let progress = Arc::new(Progress::default());
    let shown = progress.clone();
    let working = tokio::task::spawn_blocking(move || copy(&progress));
    tokio::pin!(working);
    let bar = Bar::new();
    loop {
        tokio::select! {
            done = &mut working => return done.map_err(Error::internal)?,
            _ = tokio::signal::ctrl_c() => shown.stop(),
            () = tokio::time::sleep(LOOK) => {}
        }
        let (stage, done, of) = shown.now();
        bar.set(stage.name(), done, of);
    }
}

/// On stderr, where somebody looks at it; gone when dropped.
struct Bar(Option<ProgressBar>);

impl Bar {
    fn new() -> Bar {
        Bar(std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            let style = "{msg} {bar:40} {bytes}/{total_bytes} {eta}";
            if let Ok(style) = ProgressStyle::with_template(style) {
                bar.set_style(style);
            }
            bar
        }))
    }

    fn set(&self, stage: &str, done: u64, of: u64) {
        if let Bar(Some(bar)) = self {
            bar.set_length(of);
            bar.set_position(done.min(of));
            bar.set_message(stage.to_owned());
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Bar(Some(bar)) = self {
            bar.finish_and_clear();
        }
    }
}
