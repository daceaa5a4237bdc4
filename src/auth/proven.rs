//! Tokens that were proven lately: who comes again, or with many sockets, is not proven anew.
//!
//! Only what the signature says is kept; times, sessions and users are looked at every time. A
//! token is kept as its SHA-256, so none stays in memory. Verifying one anew took 6 us.

use std::sync::{Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use crate::model::map::IdMap;

/// How many are kept at least, if they are small, and half of how many at most.
pub const PROVEN: usize = 8_192;

/// Half of the bytes that are kept at most: an outside issuer's tokens may say much.
pub const BYTES: usize = 8 << 20;

/// What a place of its own costs, whatever a token says.
const PLACE_BYTES: usize = 512;

/// What a token is known by.
pub type Digest = [u8; 32];

/// The digest of a token as it came.
pub fn digest(token: &str) -> Digest {
    Sha256::digest(token).into()
}

/// What good tokens say, by digest; those asked for least lately are forgotten.
pub struct Proven<V> {
    kept: Mutex<Kept<V>>,
}

/// When `young` is full it becomes `old`, and what nobody asked for since it did last is gone; that
/// a token has expired changes nothing.
struct Kept<V> {
    young: IdMap<Digest, Known<V>>,
    old: IdMap<Digest, Known<V>>,
    /// Of `young`.
    bytes: usize,
}

struct Known<V> {
    says: V,
    bytes: usize,
}

impl<V> Default for Proven<V> {
    fn default() -> Self {
        let kept = Kept { young: IdMap::default(), old: IdMap::default(), bytes: 0 };
        Proven { kept: Mutex::new(kept) }
    }
}

impl<V: Clone> Proven<V> {
    /// What is known of a token.
    pub fn get(&self, digest: &Digest) -> Option<V> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kept.young.get(digest) {
            return Some(known.says.clone());
        }
        let known = kept.old.remove(digest)?;
        let says = known.says.clone();
        kept.put(*digest, known);
        Some(says)
    }

    /// Keeps what a token says, whose signature is good; it takes so many bytes, about.
    pub fn put(&self, digest: Digest, says: V, bytes: usize) {
        let bytes = bytes.saturating_add(PLACE_BYTES);
        if bytes <= BYTES {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.put(digest, Known { says, bytes });
        }
    }
}

impl<V> Kept<V> {
    fn put(&mut self, digest: Digest, known: Known<V>) {
        if self.bytes + known.bytes > BYTES {
            self.turn();
        }
        self.bytes += known.bytes;
        if let Some(was) = self.young.insert(digest, known) {
            self.bytes -= was.bytes;
        }
        if self.young.len() >= PROVEN {
            self.turn();
        }
    }

    fn turn(&mut self) {
        self.old = std::mem::take(&mut self.young);
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_kept_and_memory_is_bounded() {
        let proven = Proven::default();
        let name = |n: usize| digest(&format!("token {n}"));
        for n in 0..10 * PROVEN {
            proven.put(name(n), n, 100);
            assert_eq!(proven.get(&name(0)), Some(0), "asked for all the time");
            assert_eq!(proven.get(&name(n)), Some(n));
        }
        let kept = proven.kept.lock().unwrap();
        assert!(kept.young.len() + kept.old.len() <= 2 * PROVEN);
        drop(kept);
        assert_eq!(proven.get(&name(1)), None, "forgotten");
        assert_eq!(proven.get(&digest("token")), None);
    }

    #[test]
    fn tokens_that_say_much_are_few() {
        let proven = Proven::default();
        let name = |n: usize| digest(&format!("token {n}"));
        let sum = |all: &IdMap<_, Known<_>>| all.values().map(|known| known.bytes).sum::<usize>();
        for n in 0..1_000 {
            proven.put(name(n % 300), n, 64 << 10);
            // Again, and as much as before.
            proven.put(name(n % 300), n, 64 << 10);
            assert_eq!(proven.get(&name(n % 300)), Some(n));
            let kept = proven.kept.lock().unwrap();
            assert_eq!(sum(&kept.young), kept.bytes);
            assert!(sum(&kept.young) <= BYTES && sum(&kept.old) <= BYTES);
        }
        proven.put(name(1_000), 0, BYTES);
        assert_eq!(proven.get(&name(1_000)), None, "too large");
        assert_eq!(proven.get(&name(999 % 300)), Some(999), "nothing went for it");
    }
}
