//! Many lines, one from each in turn.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::net::IpAddr;

use uuid::Uuid;

/// Whom work is counted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Payer {
    /// A user of this server, from wherever it comes.
    User(Uuid),
    /// Guests, and an outside issuer's users whom nobody here is linked to, by [`network`].
    /// `None`: whoever owns the data directory.
    Address(Option<IpAddr>),
}

impl Payer {
    /// Whoever asks from `address`: a user where the principal is one.
    pub fn of(user: Option<Uuid>, address: Option<IpAddr>) -> Payer {
        match user {
            Some(user) => Payer::User(user),
            None => Payer::Address(address.map(network)),
        }
    }
}

/// Whom an address stands for. One household has one IPv4 address, or 2^64 IPv6 ones: bounds for
/// each of those would be none.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => {
            let mut octets = v6.octets();
            octets[8..].fill(0);
            IpAddr::V6(octets.into())
        }
        other => other,
    }
}

/// What waits, in a line for each of those who wait. Whoever has a thousand things in its line is
/// served as often as who has one.
#[derive(Debug)]
pub struct Fair<K, T> {
    lines: HashMap<K, VecDeque<T>>,
    /// Those with something in their line, in the order of their turns.
    turns: VecDeque<K>,
    len: usize,
}

impl<K, T> Default for Fair<K, T> {
    fn default() -> Self {
        Fair { lines: HashMap::new(), turns: VecDeque::new(), len: 0 }
    }
}

impl<K: Clone + Eq + Hash, T> Fair<K, T> {
    /// Puts `item` at the end of the line of `whose`.
    pub fn push(&mut self, whose: K, item: T) {
        let line = self.lines.entry(whose.clone()).or_default();
        if line.is_empty() {
            self.turns.push_back(whose);
        }
        line.push_back(item);
        self.len += 1;
    }

    /// The first that waits in the line of whoever has the turn; the turn goes on. Those before
    /// it that have `left` cost no turn; they are put into `gone`.
    pub fn pop(&mut self, left: impl Fn(&T) -> bool, gone: &mut Vec<T>) -> Option<T> {
        while let Some(whose) = self.turns.pop_front() {
            let Some(line) = self.lines.get_mut(&whose) else { continue };
            let mut next = None;
            while let Some(item) = line.pop_front() {
                self.len -= 1;
                if !left(&item) {
                    next = Some(item);
                    break;
                }
                gone.push(item);
            }
            if line.is_empty() {
                self.lines.remove(&whose);
            } else {
                self.turns.push_back(whose);
            }
            if next.is_some() {
                return next;
            }
        }
        None
    }

    /// How many wait in the line of `whose`.
    pub fn of(&self, whose: &K) -> usize {
        self.lines.get(whose).map_or(0, VecDeque::len)
    }

    /// How many wait, in all lines.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The next, of which none has left.
    fn pop(fair: &mut Fair<&str, i32>) -> Option<i32> {
        fair.pop(|_| false, &mut Vec::new())
    }

    #[test]
    fn who_has_left_costs_no_turn() {
        let mut fair = Fair::default();
        for n in 0..100 {
            fair.push("a", -n - 1);
            fair.push("gone", -1);
        }
        fair.push("a", 1);
        for n in 10..20 {
            fair.push("b", n);
        }
        let mut gone = Vec::new();
        let first: Vec<_> = (0..3).map_while(|_| fair.pop(|n| *n < 0, &mut gone)).collect();
        assert_eq!(first, [1, 10, 11]);
        assert_eq!((gone.len(), fair.len(), fair.of(&"b"), fair.of(&"a")), (200, 8, 8, 0));
        assert_eq!(fair.lines.len(), 1);
    }

    #[test]
    fn one_network_pays_for_all_its_addresses() {
        let of = |text: &str| Payer::of(None, Some(text.parse().expect("an address")));
        for (one, other, same) in [
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", true),
            ("2001:db8:1:2::1", "2001:db8:1:3::1", false),
            ("::ffff:192.0.2.1", "192.0.2.1", true),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.2", false),
            ("192.0.2.1", "192.0.2.2", false),
            ("::1", "::2", false),
        ] {
            assert_eq!(of(one) == of(other), same, "{one} and {other}");
        }
        let loopback: IpAddr = "::1".parse().expect("an address");
        assert!(network(loopback).is_loopback());
    }

    #[test]
    fn each_in_turn() {
        let mut fair = Fair::default();
        for n in 0..4 {
            fair.push("many", n);
        }
        fair.push("one", 10);
        fair.push("two", 20);
        fair.push("two", 21);
        assert_eq!(fair.len(), 7);
        let first: Vec<i32> = std::iter::from_fn(|| pop(&mut fair)).take(4).collect();
        assert_eq!(first, [0, 10, 20, 1]);
        // Who comes back stands behind those who have not had their turn since.
        fair.push("one", 11);
        let rest: Vec<i32> = std::iter::from_fn(|| pop(&mut fair)).collect();
        assert_eq!(rest, [21, 2, 11, 3]);
        assert!(fair.is_empty() && fair.lines.is_empty() && fair.turns.is_empty());
    }
}
