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
    let mut ears = Ears::default();
    // Nothing is known of what came between the start's look and the first notice.
    let mut seen = None;
    let mut failed = false;
    ears.listen(&dir, &sender);
    let _ = sender.try_send(());
    loop {
        let told = timeout(LOOK_EVERY, events.recv()).await.is_ok();
        if told {
            let end = Instant::now() + PATIENCE;
            while timeout_at(end.min(Instant::now() + QUIET), events.recv()).await.is_ok()
                && Instant::now() < end
            {}
        }
        ears.listen(&dir, &sender);
        let now = folder::fingerprint(&dir).ok();
        if !told && now == seen {
            continue;
        }
        seen = now;
        let Some(service) = service.upgrade() else { return };
        match service.scan().await {
            Ok(_) => failed = false,
            // Said once, not every second; what is served stays.
            Err(error) if !failed => {
                failed = true;
                tracing::error!("{error}; what was applied goes on being served");
            }
            Err(_) => {}
        }
    }
}

/// The system's notices of one folder.
#[derive(Default)]
struct Ears {
    watcher: Option<notify::RecommendedWatcher>,
    /// Which folder is listened to: a watch on one that was removed hears nothing of the one made
    /// in its place.
    folder: Option<u64>,
    /// That there are no notices was said.
    told: bool,
}

impl Ears {
    /// Listens to the folder if it is not the one listened to already.
    fn listen(&mut self, dir: &Path, sender: &mpsc::Sender<()>) {
        let folder = identity(dir);
        if folder == self.folder {
            return;
        }
        self.folder = folder;
        self.watcher = None;
        if folder.is_none() {
            return;
        }
        let sender = sender.clone();
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
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) if !self.told => {
                self.told = true;
                tracing::warn!(
                    "no notices of changed schema files ({error}); looking every second"
                );
            }
            Err(_) => {}
        }
    }
}

/// Tells one folder from another that comes in its place; `None` where there is none.
fn identity(dir: &Path) -> Option<u64> {
    let data = std::fs::metadata(dir).ok()?;
    #[cfg(unix)]
    return Some(std::os::unix::fs::MetadataExt::ino(&data));
    #[cfg(not(unix))]
    return data.is_dir().then_some(0);
}
