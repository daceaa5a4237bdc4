//! Reads done by the thread that asks for them, where that takes little.
//!
//! Each is tried within tight bounds; what does not fit is done again by a reader's thread, and so
//! are the next ones of its kind, for a while.

use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::Duration;

use crate::error::{Error, Kind, Result};

use super::pace::Pace;
use super::read::Reader;
use super::reading::{Hold, Panicked, Reading, Short};
use super::{Options, Shared, lost};

/// What a read may take here. So many steps are half a millisecond; the time is for what waits for
/// a disk, and longer than what a busy machine may keep a thread from its core. An answer of so many
/// bytes is written by one call.
const BOUNDS: Short = Short { steps: 20_000, time: Duration::from_millis(10), bytes: 64 << 10 };

/// Kinds of reads that are told apart. Those that share a place are spared together.
const KINDS: usize = 256;
/// After the first that takes too long so many of its kind are not tried, after the next twice as
/// many, and so on:
const FIRST_SPARED: u16 = 16;
/// so often.
const DOUBLINGS: u8 = 6;

/// A connection for each thread that may read here.
pub(crate) struct AtOnce {
    /// Each is opened when all before it are in use.
    places: Box<[Mutex<Place>]>,
}

struct Place {
    reading: Reading,
    spared: Spared,
    pace: Pace,
}

impl AtOnce {
    pub(crate) fn new(options: &Options, shared: &Arc<Shared>) -> AtOnce {
        let place = || {
            let reading = Reading::hasty(options, shared);
            Mutex::new(Place { reading, spared: Spared::default(), pace: Pace::default() })
        };
        AtOnce { places: (0..options.limits.event_loops).map(|_| place()).collect() }
    }

    /// Does the read, if it is likely to be short and turns out so.
    pub(crate) fn read<T>(
        &self,
        kind: u64,
        job: &impl Fn(&Reader<'_>) -> Result<T>,
    ) -> Option<Result<T>> {
        let mut place = self.places.iter().find_map(|place| match place.try_lock() {
            Ok(place) => Some(place),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        })?;
        let Place { reading, spared, pace } = &mut *place;
        if !spared.is_tried(kind) {
            return None;
        }
        let begun = pace.begin()?;
        let done = reading.read(Hold::Short(BOUNDS), |reader| reader.and_then(job));
        pace.end(begun);
        match done {
            Ok(Err(error)) if is_of_bounds(&error) => {
                spared.was_long(kind);
                None
            }
            Ok(done) => {
                spared.was_short(kind);
                Some(done)
            }
            Err(Panicked) => Some(Err(lost())),
        }
    }

    /// Closes the connections.
    pub(crate) fn close(&self) {
        for place in &self.places {
            place.lock().unwrap_or_else(PoisonError::into_inner).reading.close();
        }
    }
}

/// Whether another thread may get further.
fn is_of_bounds(error: &Error) -> bool {
    matches!(error.kind, Kind::Timeout | Kind::TooLarge | Kind::Unavailable | Kind::Internal)
}

/// Which kinds of reads were too long lately.
struct Spared([Long; KINDS]);

#[derive(Clone, Copy, Default)]
struct Long {
    /// Reads that are not tried from now on.
    left: u16,
    /// How often more were too long than were not.
    times: u8,
}

impl Default for Spared {
    fn default() -> Self {
        Spared([Long::default(); KINDS])
    }
}

impl Spared {
    fn of(&mut self, kind: u64) -> &mut Long {
        &mut self.0[kind as usize % KINDS]
    }

    fn is_tried(&mut self, kind: u64) -> bool {
        let long = self.of(kind);
        let tried = long.left == 0;
        long.left = long.left.saturating_sub(1);
        tried
    }

    fn was_long(&mut self, kind: u64) {
        let long = self.of(kind);
        long.left = FIRST_SPARED << long.times;
        long.times = (long.times + 1).min(DOUBLINGS);
    }

    fn was_short(&mut self, kind: u64) {
        let long = self.of(kind);
        long.times = long.times.saturating_sub(1);
    }
}
