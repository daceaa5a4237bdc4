//! The schemas folder and the schema API: files in, migrations out.
//!
//! The catalog in the store is the truth; the folder is how people change it. A file that is not
//! good is told and changes nothing: the last applied version goes on being served. A change by
//! API is applied first and written to the folder after the commit; what a crash leaves between
//! the two is mended at the next start.
//!
//! **Does not know:** wire formats, sockets, subscriptions.

mod against;
mod api;
mod edit;
mod folder;
mod report;
mod settle;
mod show;
mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::auth::directory::Directory;
use crate::error::{Error, Kind, Problem, Result};
use crate::model::file::SchemaDef;
use crate::model::schema::SchemaKind;
use crate::model::system;
use crate::store::migrate::{Stored, StoredSchema};
use crate::store::{Lane, Store, unavailable};

pub use against::{Against, against};
pub use report::{Report, check_dir};
pub use watch::Watch;

use folder::Found;
use report::Around;
use settle::Wanted;

/// One renaming that comes with a schema's update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rename {
    pub from: String,
    pub to: String,
}

/// The folder and the API over one store. All changes of schemas go through here, one at a time.
pub struct Service {
    store: Store,
    dir: PathBuf,
    /// Held from before a change is planned until folder and catalog agree.
    gate: tokio::sync::Mutex<()>,
    last: Mutex<Last>,
    /// Who may what by now; see [`Service::asks`].
    directory: OnceLock<Arc<Directory>>,
}

/// What the last look at the folder found.
#[derive(Default)]
struct Last {
    report: Arc<Report>,
    /// Told already, so that a folder that stays bad is not told every time.
    told: String,
}

impl Service {
    /// Brings store and folder together: the system's schemas, what a crash left half done, and
    /// every file. The folder is made if there is none and nothing is served from it yet; where
    /// it cannot be read, that is the error. Bad files are logged and stand in
    /// [`Service::report`]; what was applied before is served.
    pub async fn open(store: Store, dir: impl Into<PathBuf>) -> Result<Arc<Service>> {
        let dir = dir.into();
        let stored = store.write(|tx| tx.stored()).await?.value;
        let serves = stored.schemas.values().any(|s| s.schema.kind == SchemaKind::User);
        if !serves && !dir.exists() {
            std::fs::create_dir_all(&dir).map_err(|error| {
                let text = format!("the schemas folder {} cannot be made: {error}", dir.display());
                Error::new(Kind::Unavailable, text)
            })?;
            tracing::info!("made the schemas folder {}: put schema files there", dir.display());
        }
        let last = Mutex::default();
        let gate = tokio::sync::Mutex::new(());
        let directory = OnceLock::new();
        let service = Arc::new(Service { store, dir, gate, last, directory });
        service.scan().await?;
        Ok(service)
    }

    /// Reads the folder and applies what can be applied. An error is that the folder or the store
    /// cannot be used; nothing is changed then.
    pub async fn scan(&self) -> Result<Arc<Report>> {
        let _gate = self.gate.lock().await;
        self.scan_inside().await
    }

    /// From now on whoever changes a schema through the API is asked for again when the change has
    /// its turn: while it waits, rights may be taken away.
    pub fn asks(&self, directory: Arc<Directory>) {
        let _ = self.directory.set(directory);
    }

    /// What the last look at the folder found.
    pub fn report(&self) -> Arc<Report> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).report.clone()
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    async fn read_folder(&self) -> Result<Vec<Found>> {
        let dir = self.dir.clone();
        tokio::task::spawn_blocking(move || folder::read(&dir)).await.map_err(Error::internal)?
    }

    async fn stored(&self) -> Result<Stored> {
        Ok(self.store.write(|tx| tx.stored()).await?.value)
    }

    async fn scan_inside(&self) -> Result<Arc<Report>> {
        let mut files = self.read_folder().await?;
        let stored = self.stored().await?;
        if stored.schemas.values().any(|stored| stored.pending.is_some()) {
            self.mend(&stored, &files).await?;
            files = self.read_folder().await?;
        }
        let mut wanted = Wanted::default();
        let (mut problems, mut warnings, mut drafts) = (Vec::new(), Vec::new(), Vec::new());
        for file in &files {
            let parsed = file.parse();
            warnings.extend(parsed.warnings);
            match parsed.def {
                Ok(def) => wanted.defs.push(def),
                Err(found) => {
                    wanted.bad.insert(file.stem.clone());
                    problems.extend(found);
                    drafts.extend(parsed.draft);
                }
            }
        }
        problems.extend(self.between(&wanted, drafts));
        let mut report =
            self.store.write_long(Lane::Schemas, move |tx| settle::settle(tx, wanted)).await?.value;
        problems.append(&mut report.problems);
        warnings.append(&mut report.warnings);
        (report.problems, report.warnings) = (problems, warnings);
        let report = Arc::new(report);
        self.tell(&report);
        Ok(report)
    }

    /// What is wrong with bad files besides what their own text shows.
    fn between(&self, wanted: &Wanted, drafts: Vec<SchemaDef>) -> Vec<Problem> {
        if drafts.is_empty() {
            return Vec::new();
        }
        let mut defs = system::schemas();
        defs.extend(wanted.defs.iter().cloned());
        defs.extend(drafts);
        let mut faults = report::faults(&defs);
        faults.retain(|fault| wanted.bad.iter().any(|name| fault.stands_in(name)));
        report::told(faults, &Around { undone: wanted.bad.clone(), ..Around::default() })
    }

    /// Finishes what a change by API began: files that still hold what the catalog held before.
    /// A file that somebody has changed since is left as it is.
    async fn mend(&self, stored: &Stored, files: &[Found]) -> Result<()> {
        let texts: BTreeMap<&str, &str> =
            files.iter().filter_map(|file| Some((&*file.stem, file.text()?))).collect();
        let present = |name: &str| files.iter().any(|file| file.stem == name);
        let mut settled = Vec::new();
        for (id, StoredSchema { schema, text, retired, pending }) in &stored.schemas {
            let Some(pending) = pending else { continue };
            settled.push(*id);
            let old = pending.name.as_deref();
            let old_stands =
                old.is_some_and(|old| texts.get(old).copied() == pending.text.as_deref());
            let moved = *retired || old != Some(&*schema.name);
            let put = !retired
                && if moved {
                    !present(&schema.name)
                } else {
                    old_stands || !present(&schema.name)
                };
            if put {
                folder::prepare(&self.dir, &schema.name, text)?
                    .put()
                    .map_err(|error| self.unfinished(&schema.name, &error))?;
                tracing::warn!("{}.json was behind the catalog and is written anew", schema.name);
            }
            if let Some(old) = old.filter(|_| moved && old_stands) {
                folder::remove(&self.dir, old).map_err(|error| self.unfinished(old, &error))?;
                tracing::warn!("{old}.json was behind the catalog and is taken away");
            }
        }
        self.store.write(move |tx| tx.settled(&settled)).await?;
        Ok(())
    }

    /// What a client is told when the change is committed and its file could not be written. The
    /// next look at the folder tries again.
    fn unfinished(&self, name: &str, error: &std::io::Error) -> Error {
        let cause = format!("{}/{name}.json: {error}", self.dir.display());
        let message = format!("the change is applied, but {name}.json could not be written");
        unavailable(&message, &cause)
    }

    /// Logs what is new in the report.
    fn tell(&self, report: &Arc<Report>) {
        log_steps(&report.steps);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.report = report.clone();
        let mut text = String::new();
        for problem in &report.problems {
            text.push_str(&format!("{problem}\n"));
        }
        for warning in &report.warnings {
            text.push_str(&format!("{warning}\n"));
        }
        if last.told == text {
            return;
        }
        if text.is_empty() {
            tracing::info!("every schema file is good again");
        }
        last.told = text;
        for problem in &report.problems {
            tracing::error!("{problem}");
        }
        for warning in &report.warnings {
            tracing::warn!("{warning}");
        }
        for name in &report.kept {
            tracing::error!(
                "{name}.json is NOT applied; its last good version goes on being served"
            );
        }
    }
}

/// Indexes are many and say little.
fn log_steps(steps: &[String]) {
    for step in steps {
        if step.contains(" index on ") {
            tracing::debug!("{step}");
        } else {
            tracing::info!("{step}");
        }
    }
}
