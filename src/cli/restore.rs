//! `rowcast restore`: a backup in the store's place.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::Config;
use crate::config::settings::PlaceFlags;
use crate::error::{Error, Result};
use crate::schemas;
use crate::store::backup::restore;

use super::backup::{told, work};
use super::{link, say};

const HELP: &str = "\
The server must not run. The file is checked first: that it is a Rowcast store, of a format that
this program reads, and whole. A kill at any moment leaves the old store or the new one, never a
part of either. With --force the old store is moved aside, within DATA, and named; remove it
yourself once it is not needed.

Everyone has to log in again, with the users and passwords of the backup. Clients that come back
with a cursor from after the backup are refused and need a snapshot; earlier cursors work, as long
as the log reaches back to them (entries older than log_age go at the start).

The keys in DATA/.env stay as they are. So does the folder of schema files: at the next start its
files are applied to what was restored, as always. Where they are newer than the backup, that
migrates; a schema without a file is not served, its data is kept. To serve what was backed up,
put the files of that time back first.";

#[derive(clap::Args)]
#[command(after_long_help = HELP)]
pub struct Restore {
    /// A file that `rowcast backup` has made
    file: PathBuf,
    /// Restores although there is a store, and moves that aside
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    pub place: PlaceFlags,
}

impl Restore {
    pub async fn run(&self, config: &Config) -> Result<ExitCode> {
        if link::running(config).await.is_some() {
            return Err(Error::bad(format!(
                "a server runs on {}; stop it first",
                config.data.display()
            )));
        }
        let (data, from, force) = (config.data.clone(), self.file.clone(), self.force);
        let restored =
            work(move |progress| restore::restore(&data, &from, force, progress)).await?;
        say(format_args!(
            "restored {}: {}",
            self.file.display(),
            told(&restored.contents.to_json())
        ));
        if let Some(before) = &restored.before {
            say(format_args!("the store that was there is {}", before.display()));
        }
        say("all sessions have ended; users and passwords are those of the backup");
        self.say_schemas(config, &restored.schemas);
        Ok(ExitCode::SUCCESS)
    }

    /// What the next start will make of the folder.
    fn say_schemas(&self, config: &Config, applied: &[(String, String)]) {
        let dir = config.schemas.display();
        let found = match schemas::against(&config.schemas, applied) {
            Ok(found) => found,
            Err(error) => return say(format_args!("before the next start: {error}")),
        };
        if found == schemas::Against::default() {
            return say(format_args!("the schema files in {dir} are those of the backup"));
        }
        for (names, what) in [
            (&found.changed, "differ from the backup and will be applied to it"),
            (&found.new, "are not in the backup and will be new"),
            (&found.missing, "have no file: their data is kept, they will not be served"),
        ] {
            if !names.is_empty() {
                say(format_args!("at the next start, of {dir}: {} {what}", names.join(", ")));
            }
        }
    }
}
