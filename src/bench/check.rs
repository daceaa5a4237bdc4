//! Whether a stream brought what it should have: each record once, in the order of commits.

/// What one subscriber has had, against the list of what was sent to its like.
#[derive(Default)]
pub struct Order {
    /// All before this place of the list have come.
    next: usize,
    /// Places behind it that have come already, ascending.
    ahead: Vec<usize>,
    /// The id that came last: ids are given in the order of commits.
    last: u64,
}

/// What a record that came was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// As it should be.
    Good,
    /// For the first time, but behind a later commit.
    Late,
    /// Not for the first time.
    Doubled,
    /// Nobody should have sent it here.
    Unexpected,
}

impl Order {
    /// Takes note of a record. `expected` holds the sequence numbers sent so far, ascending.
    pub fn take(&mut self, expected: &[u64], sequence: u64, id: u64) -> Seen {
        let place = match expected.get(self.next) {
            Some(next) if *next == sequence => self.next,
            _ => match expected.binary_search(&sequence) {
                Ok(place) => place,
                Err(_) => return Seen::Unexpected,
            },
        };
        if place < self.next {
            return Seen::Doubled;
        }
        if place == self.next {
            self.next += 1;
            let caught_up = self.ahead.iter().take_while(|place| {
                let is_next = **place == self.next;
                self.next += usize::from(is_next);
                is_next
            });
            let caught_up = caught_up.count();
            self.ahead.drain(..caught_up);
        } else {
            match self.ahead.binary_search(&place) {
                Ok(_) => return Seen::Doubled,
                Err(at) => self.ahead.insert(at, place),
            }
        }
        self.in_order(id)
    }

    /// Looks at the order alone, where nobody says who should get what.
    pub fn in_order(&mut self, id: u64) -> Seen {
        if id <= self.last {
            return Seen::Late;
        }
        self.last = id;
        Seen::Good
    }

    /// How many records have come, each counted once.
    pub fn had(&self) -> usize {
        self.next + self.ahead.len()
    }
}

/// What went wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Faults {
    /// Deliveries that never came.
    pub missing: u64,
    /// That came again.
    pub doubled: u64,
    /// That came behind a later commit.
    pub reordered: u64,
    /// That should have gone to others.
    pub unexpected: u64,
    /// Connections that the server ended.
    pub closed: u64,
}

impl Faults {
    pub fn is_none(&self) -> bool {
        *self == Faults::default()
    }

    pub fn note(&mut self, seen: Seen) {
        match seen {
            Seen::Good => {}
            Seen::Late => self.reordered += 1,
            Seen::Doubled => self.doubled += 1,
            Seen::Unexpected => self.unexpected += 1,
        }
    }

    pub fn add(&mut self, other: Faults) {
        self.missing += other.missing;
        self.doubled += other.doubled;
        self.reordered += other.reordered;
        self.unexpected += other.unexpected;
        self.closed += other.closed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: &[u64] = &[2, 3, 5, 8, 13, 21];

    /// Sequence number and id of what comes; what each was, and how many there were.
    fn told(stream: &[(u64, u64)]) -> (Vec<Seen>, usize) {
        let mut order = Order::default();
        let seen = stream.iter().map(|(sequence, id)| order.take(SENT, *sequence, *id)).collect();
        (seen, order.had())
    }

    #[test]
    fn a_whole_stream() {
        let (seen, had) = told(&[(2, 1), (3, 2), (5, 3), (8, 4), (13, 5), (21, 6)]);
        assert_eq!(seen, [Seen::Good; 6]);
        assert_eq!(had, SENT.len());
    }

    #[test]
    fn a_hole() {
        let (seen, had) = told(&[(2, 1), (3, 2), (8, 4), (13, 5), (21, 6)]);
        assert_eq!(seen, [Seen::Good; 5]);
        assert_eq!(had, SENT.len() - 1);
    }

    #[test]
    fn twice() {
        let (seen, had) = told(&[(2, 1), (2, 1), (8, 4), (8, 4), (3, 2)]);
        let late = Seen::Late;
        assert_eq!(seen, [Seen::Good, Seen::Doubled, Seen::Good, Seen::Doubled, late]);
        assert_eq!(had, 3);
    }

    #[test]
    fn sent_by_several_writers_but_told_in_the_order_of_commits() {
        let (seen, had) = told(&[(3, 1), (2, 2), (8, 3), (5, 4), (21, 5), (13, 6)]);
        assert_eq!(seen, [Seen::Good; 6]);
        assert_eq!(had, SENT.len());
    }

    #[test]
    fn out_of_order() {
        let (seen, had) = told(&[(2, 1), (5, 3), (3, 2), (8, 4)]);
        assert_eq!(seen, [Seen::Good, Seen::Good, Seen::Late, Seen::Good]);
        assert_eq!(had, 4);
    }

    #[test]
    fn another_ones() {
        let (seen, had) = told(&[(2, 1), (4, 3), (99, 4)]);
        assert_eq!(seen, [Seen::Good, Seen::Unexpected, Seen::Unexpected]);
        assert_eq!(had, 1);
    }
}
