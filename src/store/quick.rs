//! Whether an event loop may make a lone write by itself: it waits for the disk then.

use std::time::{Duration, Instant};

/// A transaction of one job that takes longer says at once that the disk is slow.
const STALL: Duration = Duration::from_millis(20);

/// Where an event loop was held so long, loops make no lone write for this many times as long, up to
/// [`PAUSE`]: the disk holds them up for a twentieth of their time at most. Writes by the thread cost
/// a quarter more meanwhile, so that a hiccup should not be dear.
const CHARGE: u32 = 20;
const PAUSE: Duration = Duration::from_secs(10);

/// Whether a transaction of one job takes little of late: mostly, since with other programs on the
/// cores any may take a little longer now and then, whoever makes it. After one that took very long
/// the writer's thread makes them until one was quick, and for a while if an event loop was held by it.
pub(super) struct Pace {
    quick: Duration,
    /// Slow ones more than quick ones, lately.
    slow: u8,
    paused: Option<Instant>,
}

impl Pace {
    const SLOW: u8 = 3;

    /// Transactions are quick that take no longer than this.
    pub(super) fn new(quick: Duration) -> Pace {
        Pace { quick, slow: 0, paused: None }
    }

    /// One has ended `now`. Where it `wrote` nothing it did not ask the disk how quick it is; `held` is
    /// whether an event loop waited for it. What the thread takes long for may be no fault of the disk: a
    /// change of a schema, say.
    pub(super) fn add(&mut self, now: Instant, took: Duration, wrote: bool, held: bool) {
        if took <= self.quick {
            if wrote {
                self.slow = self.slow.saturating_sub(1);
                self.paused = self.paused.filter(|until| now < *until);
            }
        } else if took > STALL.max(self.quick) {
            self.slow = Self::SLOW;
            if held {
                self.paused = self.paused.max(Some(now + took.saturating_mul(CHARGE).min(PAUSE)));
            }
        } else {
            self.slow = Self::SLOW.min(self.slow + 1);
        }
    }

    /// Whether a lone write may hold an event loop, as far as is known.
    pub(super) fn is_quick(&self) -> bool {
        self.slow < Self::SLOW && self.paused.is_none_or(|until| Instant::now() >= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    /// Every pause that began then is over.
    fn past() -> Instant {
        Instant::now().checked_sub(Duration::from_secs(60)).expect("a minute ago")
    }

    #[test]
    fn once_slow_is_not_always_slow() {
        let now = past();
        let mut pace = Pace::new(ms(1));
        let rounds = [
            (0, true),
            (9_000, false),
            (1, true),
            (1, true),
            (0, true),
            (20, true),
            (20, true),
            (0, true),
            (20, true),
            (20, false),
            (20, false),
            (20, false),
            (1, true),
            (2, false),
            (1, true),
            (1, true),
            (21, false),
            (1, true),
        ];
        for (round, (took, quick)) in rounds.into_iter().enumerate() {
            pace.add(now, ms(took), true, true);
            assert_eq!(pace.is_quick(), quick, "round {round}");
        }
    }

    #[test]
    fn what_writes_nothing_is_no_proof_of_a_quick_disk() {
        let now = past();
        let mut pace = Pace::new(ms(1));
        (0..3).for_each(|_| pace.add(now, ms(5), false, true));
        assert!(!pace.is_quick(), "slow ones count in any case");
        (0..9).for_each(|_| pace.add(now, ms(0), false, true));
        assert!(!pace.is_quick());
        pace.add(now, ms(0), true, true);
        assert!(pace.is_quick());
    }

    #[test]
    fn after_a_stall_quick_ones_do_not_end_the_pause() {
        let now = Instant::now() + Duration::from_secs(3_600);
        let mut pace = Pace::new(ms(1));
        // Nobody but writers was held: a quick one is enough.
        pace.add(now, ms(60_000), true, false);
        assert!(!pace.is_quick());
        pace.add(now, ms(0), true, false);
        assert!(pace.is_quick());
        pace.add(now, ms(21), true, true);
        (0..9).for_each(|_| pace.add(now + ms(419), ms(0), true, false));
        assert!(!pace.is_quick() && pace.paused == Some(now + ms(420)));
        pace.add(now + ms(420), ms(0), true, false);
        assert!(pace.is_quick());
        // It has a bound, and a shorter one does not end it.
        pace.add(now, ms(60_000), false, true);
        pace.add(now, ms(30), true, true);
        assert_eq!(pace.paused, Some(now + PAUSE));
    }
}
