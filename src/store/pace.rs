//! Whether the disk keeps the reads of an event loop waiting.

use std::time::{Duration, Instant};

/// A read that takes so long is slow, for whatever reason.
const SLOW: Duration = Duration::from_millis(5);
/// After one, what keeps them waiting is found out for so many reads. It takes some microseconds.
const WATCHED: u8 = 64;
/// One that waited so long for something else than a core waited for the disk.
const WAITED: Duration = Duration::from_millis(2);
/// Then no more are tried for so long: a loop is held up for a hundredth of its time at most.
const PAUSE: Duration = Duration::from_secs(1);

/// Of one connection.
#[derive(Default)]
pub(crate) struct Pace {
    pause: Option<Instant>,
    watched: u8,
}

/// A read that is under way.
pub(crate) struct Begun {
    at: Instant,
    /// What the thread had worked, or waited for a core.
    busy: Option<Duration>,
}

impl Pace {
    /// A read begins; `None`: not now.
    pub(crate) fn begin(&mut self) -> Option<Begun> {
        let at = Instant::now();
        if self.pause.is_some_and(|until| at < until) {
            return None;
        }
        let busy = if self.watched > 0 { busy() } else { None };
        Some(Begun { at, busy })
    }

    /// It has ended.
    pub(crate) fn end(&mut self, begun: Begun) {
        let took = begun.at.elapsed();
        let is_watched = self.watched > 0;
        if took < SLOW {
            self.watched = self.watched.saturating_sub(1);
            return;
        }
        self.watched = WATCHED;
        // Where the system does not tell, it is the disk.
        let busy = begun.busy.and_then(|before| self::busy()?.checked_sub(before));
        if is_watched && took.saturating_sub(busy.unwrap_or_default()) >= WAITED {
            self.pause = Some(Instant::now() + PAUSE);
        }
    }
}

/// For how long this thread has worked or could have, had there been a core; where that is told.
fn busy() -> Option<Duration> {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let mut nanoseconds = told.split_ascii_whitespace().map(str::parse::<u64>);
    let (worked, waited) = (nanoseconds.next()?.ok()?, nanoseconds.next()?.ok()?);
    Some(Duration::from_nanos(worked.saturating_add(waited)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(ago: Duration, busy: Option<Duration>) -> Begun {
        Begun { at: Instant::now().checked_sub(ago).expect("a running clock"), busy }
    }

    #[test]
    fn who_waits_for_the_disk_pauses_and_who_works_does_not() {
        let mut pace = Pace::default();
        let first = pace.begin().expect("nothing is known yet");
        assert_eq!(first.busy, None, "nothing is looked at before it is slow");
        pace.end(first);
        assert_eq!(pace.watched, 0);
        // The first slow one is only a reason to look.
        pace.end(begun(Duration::from_secs(1), None));
        assert!(pace.pause.is_none() && pace.watched == WATCHED);
        // As busy as the clock says: it did not wait for anything.
        let Some(now) = busy() else { return };
        let long = Duration::from_millis(10).min(now);
        pace.end(begun(long, now.checked_sub(long)));
        assert!(pace.pause.is_none());
        pace.end(begun(Duration::from_secs(1), Some(now)));
        assert!(pace.pause.is_some() && pace.begin().is_none());
    }

    #[test]
    fn where_nothing_is_told_all_waiting_is_for_the_disk() {
        let mut pace = Pace { pause: None, watched: 1 };
        pace.end(begun(Duration::ZERO, None));
        assert_eq!(pace.watched, 0);
        assert!(pace.begin().is_some());
        pace.watched = 1;
        pace.end(begun(Duration::from_secs(1), None));
        assert!(pace.begin().is_none());
    }
}
