//! Moving pages from the write-ahead log into the database, beside the writer.
//!
//! SQLite would do it within a commit, which then takes tens of milliseconds. Here a thread of
//! its own does it, so that no write waits. Under a load that never pauses the thread never gets
//! to the log's end, so the log could not start over and would grow without bound: past
//! [`FULL_PAGES`] the writer itself does the rest (little, since the thread is close behind)
//! between two groups.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rusqlite::Connection;

use super::connection::{self, Use};

/// Pages in the write-ahead log that wake the thread (4 MiB).
const SOME_PAGES: usize = 1_000;

/// Pages at which the writer takes a hand (64 MiB).
const FULL_PAGES: usize = 16_000;

/// The writer's side.
pub(crate) struct Checkpoints {
    pages: Arc<AtomicUsize>,
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpoints {
    pub(crate) fn start(dir: PathBuf) -> std::io::Result<Self> {
        let (wake, woken) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("checkpoint".into())
            .spawn(move || run(&dir, &woken))?;
        Ok(Checkpoints { pages: Arc::default(), wake: Some(wake), thread: Some(thread) })
    }

    /// Has the writer's connection tell how long the write-ahead log is after each commit.
    pub(crate) fn watch(&self, writer: &mut Connection) -> rusqlite::Result<()> {
        let pages = self.pages.clone();
        writer.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, length: i32| {
            pages.store(length.max(0) as usize, Ordering::Relaxed);
            Ok(())
        }))
    }

    /// To be called between groups.
    pub(crate) fn after_group(&self, writer: &Connection) {
        let pages = self.pages.load(Ordering::Relaxed);
        if pages >= FULL_PAGES {
            checkpoint(writer);
            self.pages.store(0, Ordering::Relaxed);
        } else if pages >= SOME_PAGES
            && let Some(wake) = &self.wake
        {
            // Full: the thread is at it.
            let _ = wake.try_send(());
        }
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(dir: &std::path::Path, woken: &Receiver<()>) {
    let mut open: Option<Connection> = None;
    while woken.recv().is_ok() {
        if open.is_none() {
            open = connection::open(dir, Use::Checkpoint)
                .inspect_err(|error| tracing::error!("checkpoint: {error}"))
                .ok();
        }
        if let Some(connection) = &open
            && !checkpoint(connection)
        {
            open = None;
        }
    }
}

/// Moves what no reader holds back. A failure costs nothing but room: it is tried again.
fn checkpoint(connection: &Connection) -> bool {
    connection
        .query_row("PRAGMA wal_checkpoint(PASSIVE)", (), |_| Ok(()))
        .inspect_err(|error| tracing::error!("checkpoint: {error}"))
        .is_ok()
}
