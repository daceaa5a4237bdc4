//! The folder watched while the server runs.
//!
//! Two ways at once: the system's own notices are quick, and a slow look at names, sizes and times
//! sees what they miss (network and container mounts, a folder that was removed and made again,
//! no watches left).

use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use notify::{RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Service, folder};

/// Editors write a file in several steps: how long it must be quiet before it is read.
const QUIET: Duration = Duration::from_millis(80);

/// But a folder that is never quiet is read all the same.
const PATIENCE: Duration = Duration::from_millis(400);

/// How often the slow look is taken.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Watches as long as it is held.
pub struct Watch {
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Service {
    /// Begins to watch the folder: whatever is saved there is applied within a second.
    pub fn watch(self: &Arc<Self>) -> Watch {
        Watch { task: tokio::spawn(run(Arc::downgrade(self), self.dir.clone())) }
    }
}

async fn run(service: Weak<Service>, dir: std::path::PathBuf) {
    let (sender, mut events) = mpsc::channel(1);
    let mut notices = listen(&dir, sender.clone());
    // What was saved after the folder was read at the start and before anybody listened.
    let _ = sender.try_send(());
    let mut seen = folder::fingerprint(&dir).ok();
    let mut failed = false;
    loop {
        let told = timeout(LOOK_EVERY, events.recv()).await.is_ok();
        if told {
            let end = Instant::now() + PATIENCE;
            while timeout_at(end.min(Instant::now() + QUIET), events.recv()).await.is_ok()
                && Instant::now() < end
            {}
        }
        let now = folder::fingerprint(&dir);
        let changed = now.as_ref().ok() != seen.as_ref();
        if notices.is_none() && now.is_ok() {
            // The folder is back, or was out of reach when the server came up.
            notices = listen(&dir, sender.clone());
        }
        if !told && !changed {
            continue;
        }
        if now.is_err() {
            // A watch on a folder that went away hears nothing of the one that comes in its place.
            notices = None;
        }
        seen = now.ok();
        let Some(service) = service.upgrade() else { return };
        match service.scan().await {
            Ok(_) => failed = false,
            // Said once, not every second; what is served stays.
            Err(error) if !failed => {
                failed = true;
                tracing::error!("schemas: {error}; what was applied goes on being served");
                for problem in &error.problems {
                    tracing::error!("schemas: {problem}");
                }
            }
            Err(_) => {}
        }
    }
}

fn listen(dir: &Path, sender: mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
    let on_event = move |event: notify::Result<notify::Event>| {
        let reading = matches!(&event, Ok(event) if event.kind.is_access());
        if !reading {
            // One notice waits at most: it says "look", and one look sees everything.
            let _ = sender.try_send(());
        }
    };
    let watcher = notify::recommended_watcher(on_event).and_then(|mut watcher| {
        watcher.watch(dir, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    match watcher {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!("schemas: no notices of changes ({error}); looking every second");
            None
        }
    }
}
