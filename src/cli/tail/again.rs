//! When and how often to try again.

use std::time::{Duration, Instant};

/// The first wait, and the longest; each is twice the one before, less up to a half.
const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(30);

/// The tries since a connection was lost.
#[derive(Debug)]
pub struct Again {
    patience: Duration,
    /// Nothing was heard since then.
    lost: Option<Instant>,
    next: Duration,
}

impl Again {
    /// Tries for so long after each loss; zero: never.
    pub fn new(patience: Duration) -> Self {
        Again { patience, lost: None, next: FIRST }
    }

    /// Something was heard.
    pub fn heard(&mut self) {
        self.lost = None;
        self.next = FIRST;
    }

    /// Whether this is the first try since something was heard.
    pub fn is_new(&self) -> bool {
        self.lost.is_none()
    }

    /// How long to wait before the next try; `None` to give up.
    pub fn wait(&mut self) -> Option<Duration> {
        let since = self.lost.get_or_insert_with(Instant::now).elapsed();
        let left = self.patience.checked_sub(since).filter(|left| !left.is_zero())?;
        let spread = u64::from(getrandom::u32().unwrap_or_default());
        let wait = self.next - self.next.mul_f64(0.5 * spread as f64 / f64::from(u32::MAX));
        self.next = (2 * self.next).min(LONGEST);
        Some(wait.min(left))
    }
}

/// Whether whoever was closed with this code may come back with what it has.
pub fn may_come_back(code: u16) -> bool {
    // Going away, a fault of the server's, restarting, too slow, too many.
    matches!(code, 1001 | 1006 | 1011 | 1012 | 1013 | 4408 | 4429)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end() {
        assert_eq!(Again::new(Duration::ZERO).wait(), None);
        let mut again = Again::new(Duration::from_secs(3600));
        for most in [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
            let wait = again.wait().expect("a wait").as_millis();
            assert!((most / 2..=most).contains(&wait), "{wait} of {most}");
        }
        assert!(!again.is_new());
        again.heard();
        assert!(again.is_new() && again.wait().expect("a wait") <= FIRST);
    }
}
