//! Times by their share, and medians.

/// Steps within a doubling, as a power of two: a time is told 1.6% too low at most.
const STEPS: u32 = 6;

/// How often each time was seen, in nanoseconds; the size does not grow with what is counted.
#[derive(Clone, Default)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    most: u64,
}

impl Histogram {
    /// Counts one.
    pub fn add(&mut self, nanoseconds: u64) {
        let slot = slot(nanoseconds);
        if slot >= self.counts.len() {
            self.counts.resize(slot + 1, 0);
        }
        self.counts[slot] += 1;
        self.total += 1;
        self.most = self.most.max(nanoseconds);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.total
    }

    /// The median, the 99th percentile and the longest; nothing where nothing was seen.
    pub fn times(&self) -> Option<Times> {
        (self.total > 0).then(|| Times { p50: self.at(0.5), p99: self.at(0.99), max: self.most })
    }

    /// The time that this share of all did not exceed.
    fn at(&self, share: f64) -> u64 {
        let rank = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut below = 0;
        for (slot, count) in self.counts.iter().enumerate() {
            below += count;
            if below >= rank {
                return least(slot);
            }
        }
        self.most
    }
}

/// Times in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    pub p50: u64,
    pub p99: u64,
    pub max: u64,
}

fn slot(value: u64) -> usize {
    if value < 1 << STEPS {
        return value as usize;
    }
    let shift = value.ilog2() - STEPS;
    // The leading bit of what is left counts the doubling.
    ((u64::from(shift) << STEPS) + (value >> shift)) as usize
}

fn least(slot: usize) -> u64 {
    let slot = slot as u64;
    if slot < 2 << STEPS {
        return slot;
    }
    let shift = (slot >> STEPS) - 1;
    ((slot & ((1 << STEPS) - 1)) | 1 << STEPS) << shift
}

/// The middle of these; of an even number, halfway between the two in the middle.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[half]),
        _ => Some((values[half - 1] + values[half]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_holds_what_lies_from_its_least_up_to_the_next() {
        for value in (0..5_000).chain([1 << 20, (1 << 33) + 12_345, u64::MAX / 3, u64::MAX]) {
            let slot = slot(value);
            assert!(least(slot) <= value, "{value}");
            assert!(value - least(slot) <= value >> STEPS, "{value}");
            if value < 1 << 40 {
                assert!(value < least(slot + 1), "{value}");
            }
        }
    }

    #[test]
    fn percentiles() {
        let mut seen = Histogram::default();
        assert_eq!(seen.times(), None);
        for value in (1..=100).rev() {
            seen.add(value * 1_000);
        }
        let times = seen.times().expect("some");
        assert!((49_200..=50_000).contains(&times.p50), "{times:?}");
        assert!((97_400..=99_000).contains(&times.p99), "{times:?}");
        assert_eq!(times.max, 100_000);
    }

    #[test]
    fn medians() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
