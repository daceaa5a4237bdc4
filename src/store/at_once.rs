//! Reads done by the thread that asks for them, where that takes little.
//!
//! Each is tried within tight bounds; what does not fit is done again by a reader's thread, and so
//! are the next ones of its kind, for a while.

use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::Duration;

use crate::error::{Error, Kind, Result};

use super::fault::Trouble;
use super::pace::Pace;
use super::read::Reader;
use super::reading::{Hold, Panicked, Reading, Short};
use super::{Options, Shared, format, lost};

/// What a read may take here. So many steps are about half a millisecond where the cells are small;
/// the time is for what reads large ones or waits for a disk, and longer than what a busy machine may
/// keep a thread from its core. Both are looked at every 250 steps. An answer of so many bytes is
/// written by one call.
const BOUNDS: Short = Short { steps: 20_000, time: Duration::from_millis(10), bytes: 64 << 10 };

/// Kinds of reads that are told apart. Those that share a place are spared together.
const KINDS: usize = 256;
/// After the first that takes too long so many of its kind are not tried, after the next twice as
/// many, and so on:
const FIRST_SPARED: u16 = 16;
/// so often.
const DOUBLINGS: u8 = 6;
/// So many in a row that were short take one doubling back.
const SHORT: u8 = 64;

/// A connection for each thread that may read here.
pub(crate) struct AtOnce {
    /// Each is used when all before it are.
    places: Box<[Mutex<Place>]>,
}

struct Place {
    reading: Reading,
    spared: Spared,
    pace: Pace,
}

impl AtOnce {
    /// Opens one connection for each event loop.
    pub(crate) fn open(options: &Options, shared: &Arc<Shared>) -> Result<AtOnce> {
        let place = |_| {
            let mut reading = Reading::hasty(options, shared);
            match reading.open() {
                // Another process's lock is not waited for: a read opens it later.
                Err(error) if Trouble::of(&error) != Trouble::Busy => {
                    Err(format::at_open(&options.dir, error))
                }
                _ => {
                    let (spared, pace) = (Spared::default(), Pace::default());
                    Ok(Mutex::new(Place { reading, spared, pace }))
                }
            }
        };
        Ok(AtOnce { places: (0..options.limits.event_loops).map(place).collect::<Result<_>>()? })
    }

    /// Does the read, if it is likely to be short and turns out so. Tells what it took, too.
    pub(crate) fn read<T>(
        &self,
        kind: u64,
        job: &impl Fn(&Reader<'_>) -> Result<T>,
    ) -> Option<(Result<T>, Duration)> {
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
        if !reading.is_open() && reading.open().is_err() {
            // A reader finds out the same, and tells of it.
            pace.failed();
            return None;
        }
        let done = reading.read(Hold::Short(BOUNDS), |reader| reader.and_then(job));
        let took = pace.end(begun);
        if !reading.is_open() {
            pace.failed();
        }
        match done {
            Ok(Err(error)) if is_of_bounds(&error) => {
                spared.was_long(kind);
                None
            }
            Ok(done) => {
                // Nothing looks at the clock while a single step reads a large text.
                match took > BOUNDS.time {
                    true => spared.was_long(kind),
                    false => spared.was_short(kind),
                }
                Some((done, took))
            }
            Err(Panicked) => Some((Err(lost()), took)),
        }
    }

    /// Closes the connections.
    pub(crate) fn close(&self) {
        for place in &self.places {
            place.lock().unwrap_or_else(PoisonError::into_inner).reading.close();
        }
    }
}

/// Whether another thread gets further. Faults are logged under an id that the client is told, so
/// they are answered as they are.
fn is_of_bounds(error: &Error) -> bool {
    matches!(error.kind, Kind::Timeout | Kind::TooLarge)
}

/// Which kinds of reads were too long lately.
struct Spared([Long; KINDS]);

#[derive(Clone, Copy, Default)]
struct Long {
    /// Reads that are not tried from now on.
    left: u16,
    /// Doublings.
    times: u8,
    /// Reads in a row that were short.
    short: u8,
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
        long.short = 0;
    }

    fn was_short(&mut self, kind: u64) {
        let long = self.of(kind);
        long.short += 1;
        if long.short == SHORT {
            long.short = 0;
            long.times = long.times.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many are not tried until one is.
    fn spares(spared: &mut Spared) -> usize {
        (0..).take_while(|_| !spared.is_tried(1)).count()
    }

    #[test]
    fn few_short_ones_do_not_make_up_for_a_long_one() {
        let mut spared = Spared::default();
        for n in 0..10 {
            spared.was_long(1);
            assert_eq!(spares(&mut spared), 16 << n.min(6), "after {n} and short ones between");
            (1..SHORT).for_each(|_| spared.was_short(1));
        }
        // All that were short in a row count, and the next long one begins anew.
        for _ in 0..6 {
            (0..SHORT).for_each(|_| spared.was_short(1));
        }
        spared.was_long(1);
        assert_eq!(spares(&mut spared), 16);
    }

    #[test]
    fn faults_are_not_tried_again_elsewhere() {
        for (kind, elsewhere) in [
            (Kind::Timeout, true),
            (Kind::TooLarge, true),
            (Kind::Internal, false),
            (Kind::Unavailable, false),
            (Kind::NotFound, false),
        ] {
            assert_eq!(is_of_bounds(&Error::new(kind, "so")), elsewhere, "{kind:?}");
        }
    }
}
