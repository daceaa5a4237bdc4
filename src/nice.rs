//! Whose turn the core is. Threads that nobody waits for, or that do what takes long, step back
//! behind the others; and what takes long is done by turns, so that who has an answer to give need
//! not wait for the scheduler to find out.

use std::cell::RefCell;
use std::time::{Duration, Instant};

/// Steps behind the others. With 10 who wakes up mostly gets the core at once and not when a slice
/// is over: beside two busy threads on two cores, four threads that wake each other took 3 ms at
/// p99, with 5 steps 2 to 3, with 10 0.2, as on a machine that does nothing else. Where all want
/// the core all the time, a tenth of it is left, and never nothing: the work is needed in the end.
const STEPS: i32 = 10;

/// The last step there is.
const LAST: i32 = 19;

/// How long one works before others have their turn. Who wakes up beside one that works may have to
/// wait until that has had its slice (3 ms), even where it has stepped back: beside an import, event
/// loops did for longer than 1 ms in 12 of 1,000 times, and with turns in 1.
const TURN: Duration = Duration::from_micros(200);

thread_local! {
    /// Of who works by turns on this thread.
    static TURNS: RefCell<Option<Turns>> = const { RefCell::new(None) };
}

/// Nor does one work for longer than this, however long the others did: their slice.
const LONG_TURN: Duration = Duration::from_millis(3);

struct Turns {
    began: Instant,
    /// How long this turn is.
    length: Duration,
    urgent: Box<dyn Fn() -> bool>,
}

impl Turns {
    fn new(now: Instant, urgent: impl Fn() -> bool + 'static) -> Turns {
        Turns { began: now, length: TURN, urgent: Box::new(urgent) }
    }

    /// Whether a turn is over and others should have theirs.
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.began) >= self.length && !(self.urgent)()
    }

    /// The next one begins `now`, after the others' which began `then`. Where they want the core all
    /// the time it is as long as theirs: little would be left of it else, and clocks run meanwhile.
    fn next(&mut self, then: Instant, now: Instant) {
        self.began = now;
        self.length = now.saturating_duration_since(then).clamp(TURN, LONG_TURN);
    }
}

/// Does what takes long, and leaves the core to others wherever it comes by [`pause`] after 0.2 ms, or
/// after as long as the others had it the last time.
///
/// Nobody wanting it, it costs a look at the clock each pause, and a call of the system (below 1 us)
/// each turn.
pub fn by_turns<T>(work: impl FnOnce() -> T) -> T {
    by_turns_unless(|| false, work)
}

/// As [`by_turns`], but goes on as long as it is `urgent`.
pub fn by_turns_unless<T>(urgent: impl Fn() -> bool + 'static, work: impl FnOnce() -> T) -> T {
    /// A panic ends it too.
    struct Ends;
    impl Drop for Ends {
        fn drop(&mut self) {
            TURNS.set(None);
        }
    }
    let _ends = Ends;
    TURNS.set(Some(Turns::new(Instant::now(), urgent)));
    work()
}

/// Between two pieces of work that may take long; does nothing outside [`by_turns`]. Gives how long
/// others had the core, if they had it.
pub fn pause() -> Duration {
    TURNS.with_borrow_mut(|turns| {
        let Some(turns) = turns else { return Duration::ZERO };
        let then = Instant::now();
        if !turns.is_over(then) {
            return Duration::ZERO;
        }
        std::thread::yield_now();
        let now = Instant::now();
        turns.next(then, now);
        now.saturating_duration_since(then)
    })
}

/// Lets the calling thread wait where others want to run. For the rest of its life: only root may
/// step forward again, so this is nothing for the writer, behind whose bulk call a single write
/// may wait. Where the system has no such thing nothing changes.
pub fn step_back() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{getpid, getpriority_process, setpriority_process};
        // Behind the first thread of this process, wherever that stands: who starts this one may
        // have stepped back itself.
        let steps = getpriority_process(Some(getpid())).map(|first| LAST.min(first + STEPS));
        let own = Some(rustix::thread::gettid());
        let _ = steps.and_then(|steps| setpriority_process(own, steps));
    }
}

/// [`step_back`] for a whole process, before it has other threads: they take after the first.
pub fn process_steps_back() {
    #[cfg(unix)]
    {
        use rustix::process::{getpriority_process, setpriority_process};
        let steps = getpriority_process(None).map(|others| LAST.min(others + STEPS));
        let _ = steps.and_then(|steps| setpriority_process(None, steps));
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_turn_ends_after_its_time_unless_it_is_urgent() {
        let began = Instant::now();
        let turns = |urgent| Turns::new(began, move || urgent);
        let over = |urgent, part: u32| turns(urgent).is_over(began + TURN * part / 4);
        assert_eq!([0, 3, 4, 9].map(|part| over(false, part)), [false, false, true, true]);
        assert!(!over(true, 9));
    }

    #[test]
    fn who_keeps_the_core_for_long_waits_for_as_long() {
        let began = Instant::now();
        let mut turns = Turns::new(began, || false);
        for (took, length) in [(0, 200), (150, 200), (900, 900), (40_000, 3_000), (1, 200)] {
            turns.next(began, began + Duration::from_micros(took));
            assert_eq!(turns.length, Duration::from_micros(length), "after {took}");
            let over = |time: Duration| turns.is_over(turns.began + time);
            assert!(over(turns.length) && !over(turns.length - Duration::from_micros(1)));
        }
    }

    #[test]
    fn turns_are_asked_for_within_the_work_alone() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let asked = std::sync::Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let urgent = move || count.fetch_add(1, Ordering::Relaxed) > 0;
        let pauses = || {
            std::thread::sleep(TURN);
            pause()
        };
        by_turns_unless(urgent, || {
            // However long others had the core after the first.
            pauses();
            std::thread::sleep(LONG_TURN);
            pauses();
            // Over is over until somebody has had a turn.
            pause();
        });
        assert_eq!(asked.load(Ordering::Relaxed), 3);
        pauses();
        assert_eq!(asked.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_thread_steps_back_alone() {
        let of = |thread| rustix::process::getpriority_process(Some(thread)).expect("a thread");
        let own = rustix::thread::gettid();
        let before = of(own);
        let steps = move || {
            step_back();
            of(rustix::thread::gettid())
        };
        let run = move || std::thread::spawn(steps).join().expect("no panic");
        assert_eq!(run(), LAST.min(before + STEPS));
        // Nor further, whoever started it.
        let later = move || (steps(), run());
        let (one, other) = std::thread::spawn(later).join().expect("no panic");
        assert_eq!(one, other);
        assert_eq!(of(own), before);
    }
}
