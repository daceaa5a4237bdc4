//! Moving pages from the write-ahead log into the database, beside the writer.
//!
//! SQLite would do it within a commit, which then takes tens of milliseconds, and every four
//! megabytes, so that pages which change all the time are moved again and again. Here a thread of
//! its own does it, no write waits, and a long log (32 MiB) lets a page be moved once for many
//! changes: with look-ups and indexes that doubles the creates a second. What was appended while
//! the thread was at it is moved by the writer, between two groups, in a few milliseconds: then
//! the log starts over. Under a load that never pauses it would otherwise grow without bound.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rusqlite::Connection;

use super::ahead::Ahead;
use super::connection::{self, Use};

/// Pages added to the write-ahead log that wake the thread (32 MiB).
const PAGES: usize = 8_000;

/// The writer's side.
pub(crate) struct Checkpoints {
    /// Pages in the write-ahead log after the newest commit.
    pages: Arc<AtomicUsize>,
    /// The thread has moved what there was when it began.
    moved: Arc<AtomicBool>,
    /// Pages there were when everything was last moved.
    done: usize,
    ahead: Ahead,
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpoints {
    pub(crate) fn start(dir: PathBuf) -> std::io::Result<Self> {
        let (wake, woken) = sync_channel(1);
        let moved = Arc::new(AtomicBool::new(false));
        let tell = moved.clone();
        let ahead = Ahead::new(&dir);
        let thread = std::thread::Builder::new()
            .name("checkpoint".into())
            .spawn(move || run(&dir, &woken, &tell))?;
        Ok(Checkpoints {
            pages: Arc::default(),
            moved,
            done: 0,
            ahead,
            wake: Some(wake),
            thread: Some(thread),
        })
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
    pub(crate) fn after_group(&mut self, writer: &Connection) {
        let pages = self.pages();
        self.ahead.see_to(pages);
        if self.moved.swap(false, Ordering::AcqRel) {
            checkpoint(writer);
            self.done = pages;
        } else {
            self.ask(pages);
        }
    }

    /// As [`Checkpoints::after_group`] where that takes little; `true`: it is still to be called.
    pub(crate) fn after_lone(&mut self) -> bool {
        let pages = self.pages();
        if self.moved.load(Ordering::Acquire) || self.ahead.is_due(pages) {
            return true;
        }
        self.ask(pages);
        false
    }

    fn pages(&mut self) -> usize {
        let pages = self.pages.load(Ordering::Relaxed);
        if pages < self.done {
            self.done = 0; // The log has started over.
        }
        pages
    }

    /// Wakes the thread, if there is enough to move.
    fn ask(&self, pages: usize) {
        if pages >= self.done + PAGES
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

fn run(dir: &std::path::Path, woken: &Receiver<()>, moved: &AtomicBool) {
    crate::nice::step_back();
    let mut open: Option<Connection> = None;
    while woken.recv().is_ok() {
        if open.is_none() {
            open = connection::open(dir, Use::Checkpoint)
                .inspect_err(|error| tracing::error!("checkpoint: {error}"))
                .ok();
        }
        if let Some(connection) = &open {
            if checkpoint(connection) {
                moved.store(true, Ordering::Release);
            } else {
                open = None;
            }
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
