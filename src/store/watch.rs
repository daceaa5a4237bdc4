//! Ends statements that take too long or that nobody waits for any more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rusqlite::{Connection, Result};

/// Steps of SQLite's machine between two looks at the clock: some microseconds.
const STEPS: i32 = 1_000;

/// What a connection's statements are held to, by SQLite's progress handler.
///
/// A handler per connection and not SQLite's own interrupt, which may hit the next job's statement
/// when it comes late.
#[derive(Clone, Default)]
pub(crate) struct Watch(Arc<Mutex<Option<Bounds>>>);

struct Bounds {
    until: Instant,
    /// Set when nobody waits any more.
    abandoned: Option<Arc<AtomicBool>>,
}

impl Watch {
    /// Has the connection's statements watched from now on.
    pub(crate) fn over(&self, connection: &mut Connection) -> Result<()> {
        let watch = self.clone();
        connection.progress_handler(STEPS, Some(move || watch.is_over()))
    }

    /// Bounds the statements from here to [`Watch::release`].
    pub(crate) fn hold(&self, until: Instant, abandoned: Option<Arc<AtomicBool>>) {
        self.set(Some(Bounds { until, abandoned }));
    }

    pub(crate) fn release(&self) {
        self.set(None);
    }

    fn set(&self, bounds: Option<Bounds>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = bounds;
    }

    fn is_over(&self) -> bool {
        let bounds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bounds.as_ref().is_some_and(|bounds| {
            let abandoned = bounds.abandoned.as_ref();
            abandoned.is_some_and(|flag| flag.load(Ordering::Relaxed))
                || Instant::now() >= bounds.until
        })
    }
}
