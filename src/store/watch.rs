//! Ends statements that take too long or that nobody waits for any more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rusqlite::{Connection, Result};

use crate::nice;

/// Steps of SQLite's machine between two looks at the clock: some microseconds.
const STEPS: u32 = 1_000;

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
    /// Steps that are left.
    steps: u32,
}

impl Watch {
    /// Has the connection's statements watched from now on.
    pub(crate) fn over(&self, connection: &mut Connection) -> Result<()> {
        self.over_by(connection, STEPS)
    }

    /// As [`Watch::over`], with so many steps between two looks.
    pub(crate) fn over_by(&self, connection: &mut Connection, steps: u32) -> Result<()> {
        let watch = self.clone();
        let every = i32::try_from(steps).unwrap_or(i32::MAX);
        connection.progress_handler(every, Some(move || watch.is_over(steps)))
    }

    /// Bounds the statements from here to [`Watch::release`].
    pub(crate) fn hold(&self, until: Instant, abandoned: Option<Arc<AtomicBool>>) {
        self.set(Some(Bounds { until, abandoned, steps: u32::MAX }));
    }

    /// As [`Watch::hold`], by steps too.
    pub(crate) fn hold_steps(&self, until: Instant, steps: u32) {
        self.set(Some(Bounds { until, abandoned: None, steps }));
    }

    pub(crate) fn release(&self) {
        self.set(None);
    }

    fn set(&self, bounds: Option<Bounds>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = bounds;
    }

    fn is_over(&self, steps: u32) -> bool {
        nice::pause();
        let mut bounds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bounds.as_mut().is_some_and(|bounds| {
            if bounds.steps != u32::MAX {
                bounds.steps = bounds.steps.saturating_sub(steps);
            }
            let abandoned = bounds.abandoned.as_ref();
            bounds.steps == 0
                || abandoned.is_some_and(|flag| flag.load(Ordering::Relaxed))
                || Instant::now() >= bounds.until
        })
    }
}
