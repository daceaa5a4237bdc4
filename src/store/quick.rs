//! Whether an event loop may make a lone write by itself: it waits for the disk then.

use std::time::{Duration, Instant};

/// A transaction of one job that takes longer says at once that the disk is slow.
const STALL: Duration = Duration::from_millis(20);

/// After it no lone write is made by an event loop for this many times as long, up to [`PAUSE`]: the
/// disk holds loops up for about a hundredth of their time.
const CHARGE: u32 = 100;
const PAUSE: Duration = Duration::from_secs(10);

/// Whether a transaction of one job takes little of late: mostly, since with other programs on the
/// cores any may take a little longer now and then, whoever makes it. After one that took very long
/// the writer's thread makes them for a while, and until one was quick.
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

    /// One has ended `now`. Where it `wrote` nothing it did not ask the disk how quick it is.
    pub(super) fn add(&mut self, now: Instant, took: Duration, wrote: bool) {
        if took <= self.quick {
            if wrote {
                self.slow = self.slow.saturating_sub(1);
                self.paused = self.paused.filter(|until| now < *until);
            }
        } else if took > STALL.max(self.quick) {
            self.slow = Self::SLOW;
            self.paused = self.paused.max(Some(now + took.saturating_mul(CHARGE).min(PAUSE)));
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
            pace.add(now, ms(took), true);
            assert_eq!(pace.is_quick(), quick, "round {round}");
        }
    }

    #[test]
    fn what_writes_nothing_is_no_proof_of_a_quick_disk() {
        let now = past();
        let mut pace = Pace::new(ms(1));
        (0..3).for_each(|_| pace.add(now, ms(5), false));
        assert!(!pace.is_quick(), "slow ones count in any case");
        (0..9).for_each(|_| pace.add(now, ms(0), false));
        assert!(!pace.is_quick());
        pace.add(now, ms(0), true);
        assert!(pace.is_quick());
    }

    #[test]
    fn after_a_stall_quick_ones_do_not_end_the_pause() {
        let now = Instant::now() + Duration::from_secs(3_600);
        let mut pace = Pace::new(ms(1));
        pace.add(now, ms(21), true);
        (0..9).for_each(|_| pace.add(now + ms(2_099), ms(0), true));
        assert!(!pace.is_quick() && pace.paused == Some(now + ms(2_100)));
        pace.add(now + ms(2_100), ms(0), true);
        assert!(pace.is_quick());
        // It has a bound, and a shorter one does not end it.
        pace.add(now, ms(60_000), false);
        pace.add(now, ms(30), true);
        assert_eq!(pace.paused, Some(now + PAUSE));
    }
}
