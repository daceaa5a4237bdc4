//! Whether the disk keeps the reads of an event loop waiting.

use std::time::{Duration, Instant};

/// A read that takes so long is slow, for whatever reason.
const SLOW: Duration = Duration::from_micros(1_500);
/// After one, what keeps the reads waiting is found out for at least so long. It takes some
/// microseconds a read.
const LOOK: Duration = Duration::from_secs(10);
/// A read that takes less is not charged for: the clocks differ by some of it.
const BRIEF: Duration = Duration::from_micros(300);
/// After every [`SLOW`] that was waited for the disk none is tried for this many times as long. So
/// the disk holds a loop up for about a hundredth of its time at most, brief reads and what
/// [`PAUSE`] bounds excepted: a single read that the disk keeps for long is waited for.
const CHARGE: u32 = 100;
const PAUSE: Duration = Duration::from_secs(10);
/// After a connection failed or could not be opened.
const FAILED: Duration = Duration::from_secs(1);

/// Of one connection.
#[derive(Default)]
pub(crate) struct Pace {
    paused: Option<Instant>,
    looks: Option<Instant>,
    /// For the disk, since the last pause.
    waited: Duration,
}

/// A read that is under way.
pub(crate) struct Begun {
    at: Instant,
    /// What the thread had worked, or waited for a core; where it is looked at.
    busy: Option<Busy>,
}

impl Pace {
    /// A read begins; `None`: not now.
    pub(crate) fn begin(&self) -> Option<Begun> {
        let at = Instant::now();
        if self.is_paused(at) {
            return None;
        }
        Some(Begun { at, busy: self.is_looking(at).then(Busy::now) })
    }

    /// It has ended. Tells what it took.
    pub(crate) fn end(&mut self, begun: Begun) -> Duration {
        let now = Instant::now();
        let took = now.saturating_duration_since(begun.at);
        let busy = begun.busy.filter(|_| took >= BRIEF).map(|before| Busy::now().since(before));
        self.took(now, took, busy);
        took
    }

    /// The connection failed.
    pub(crate) fn failed(&mut self) {
        self.pause(Instant::now(), FAILED);
    }

    fn is_paused(&self, now: Instant) -> bool {
        self.paused.is_some_and(|until| now < until)
    }

    fn is_looking(&self, now: Instant) -> bool {
        self.looks.is_some_and(|until| now < until)
    }

    fn pause(&mut self, now: Instant, time: Duration) {
        self.paused = self.paused.max(Some(now + time));
    }

    /// A read took so long until now, so much of it `busy` if that was looked at.
    fn took(&mut self, now: Instant, took: Duration, busy: Option<Duration>) {
        if took >= SLOW {
            // What is not recognised is rare enough by this alone.
            self.looks = self.looks.max(Some(now + LOOK.max(took.saturating_mul(CHARGE))));
        }
        let (true, Some(busy)) = (took >= BRIEF, busy) else { return };
        self.waited += took.saturating_sub(busy);
        if self.waited >= SLOW {
            let waited = std::mem::take(&mut self.waited);
            self.pause(now, waited.saturating_mul(CHARGE).min(PAUSE));
        }
    }
}

/// For how long a thread has not waited for the disk.
struct Busy {
    worked: Duration,
    /// For a core; nothing where the system does not tell, and then it is the disk.
    kept: Duration,
}

impl Busy {
    fn now() -> Busy {
        // The first number there is as old as the last tick of the scheduler, the second is exact.
        let worked = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let worked = Duration::try_from(worked).unwrap_or_default();
        Busy { worked, kept: kept().unwrap_or_default() }
    }

    fn since(self, before: Busy) -> Duration {
        self.worked.saturating_sub(before.worked) + self.kept.saturating_sub(before.kept)
    }
}

/// For how long this thread has waited for a core, where that is told.
#[cfg(target_os = "linux")]
fn kept() -> Option<Duration> {
    use std::cell::OnceCell;
    use std::fs::File;
    use std::os::unix::fs::FileExt as _;

    thread_local! {
        static TOLD: OnceCell<Option<File>> = const { OnceCell::new() };
    }
    TOLD.with(|told| {
        let file = told.get_or_init(|| File::open("/proc/thread-self/schedstat").ok()).as_ref()?;
        let mut line = [0; 80];
        let length = file.read_at(&mut line, 0).ok()?;
        let line = std::str::from_utf8(line.get(..length)?).ok()?;
        line.split_ascii_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
    })
}

#[cfg(not(target_os = "linux"))]
fn kept() -> Option<Duration> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn us(number: u64) -> Duration {
        Duration::from_micros(number)
    }

    #[test]
    fn what_was_waited_for_the_disk_is_charged_for() {
        let now = Instant::now();
        let mut pace = Pace::default();
        pace.took(now, us(1_000), None);
        assert!(!pace.is_looking(now), "nothing is looked at before one is slow");
        // The first slow one is a reason to look, for as long as makes up for it.
        pace.took(now, us(200_000), None);
        assert!(!pace.is_paused(now));
        assert!(pace.is_looking(now + us(19_999_999)) && !pace.is_looking(now + us(20_000_000)));
        // Who works, or waits for a core, does not pause.
        pace.took(now, us(9_000), Some(us(9_000)));
        pace.took(now, us(9_000), Some(us(9_001)));
        assert!(!pace.is_paused(now));
        pace.took(now, us(5_000), Some(us(1_000)));
        assert!(pace.is_paused(now + us(399_999)) && !pace.is_paused(now + us(400_000)));
    }

    #[test]
    fn waits_are_added_up_and_brief_ones_left_out() {
        let now = Instant::now();
        let mut pace = Pace::default();
        for _ in 0..3 {
            pace.took(now, us(600), Some(us(100)));
        }
        assert!(pace.is_paused(now + us(149_999)) && !pace.is_paused(now + us(150_000)));
        let mut pace = Pace::default();
        for _ in 0..1_000 {
            pace.took(now, BRIEF - us(1), Some(Duration::ZERO));
        }
        assert!(!pace.is_paused(now));
    }

    #[test]
    fn pauses_have_a_bound() {
        let now = Instant::now();
        let mut pace = Pace::default();
        pace.took(now, us(1_000_000), Some(Duration::ZERO));
        assert!(pace.is_paused(now + PAUSE - us(1)) && !pace.is_paused(now + PAUSE));
        // A shorter one does not end a longer one.
        pace.pause(now, FAILED);
        assert!(pace.is_paused(now + PAUSE - us(1)));
    }

    #[test]
    fn what_is_slow_is_looked_at_and_who_failed_pauses() {
        let mut pace = Pace::default();
        assert!(pace.begin().is_some_and(|begun| begun.busy.is_none()));
        pace.looks = Some(Instant::now() + LOOK);
        let begun = pace.begin().expect("no pause");
        assert!(begun.busy.is_some());
        pace.end(begun);
        pace.failed();
        assert!(pace.begin().is_none());
    }
}
