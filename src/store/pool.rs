//! A few threads that read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::error::{Error, Result};

use super::line::Line;
use super::read::Reader;
use super::reading::{Hold, Reading};
use super::{Options, Shared, format};

/// What a read does with its snapshot, or with the reason that there is none.
type ReadJob = Box<dyn FnOnce(Result<&Reader<'_>>) + Send>;

/// A read, its type forgotten.
pub(crate) struct ReadTask {
    pub(crate) job: ReadJob,
    /// Set when nobody waits for the answer any more.
    pub(crate) abandoned: Arc<AtomicBool>,
}

pub(crate) fn start(
    options: &Options,
    line: &Arc<Line<ReadTask>>,
    shared: &Arc<Shared>,
) -> Result<Vec<JoinHandle<()>>> {
    (0..options.readers.max(1))
        .map(|index| {
            let mut reading = Reading::new(options, shared);
            reading.open().map_err(|error| format::at_open(&options.dir, error))?;
            let line = line.clone();
            std::thread::Builder::new()
                .name(format!("reader-{index}"))
                .spawn(move || {
                    while let Some(ReadTask { job, abandoned }) = line.take() {
                        if !abandoned.load(Ordering::Relaxed) {
                            // Whoever waits for one that panicked hears of it, as no answer comes.
                            let _ = reading.read(Hold::Long(abandoned), job);
                        }
                    }
                })
                .map_err(Error::internal)
        })
        .collect()
}
