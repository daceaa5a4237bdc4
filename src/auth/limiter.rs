//! Failed logins: how many are borne from one address.
//!
//! Only failures count and only attempts from the same address are held up, so nobody can lock
//! somebody else's account. Attempts under way count as failures until they are decided: guesses
//! sent all at once wait for each other instead of slipping through together.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::error::{Error, Kind, Result};
use crate::store::fair::network;

/// Failures a minute for one login from one address.
pub const PER_LOGIN: usize = 10;

/// Failures a minute from one address, whatever the login. Loopback is exempt: behind a proxy on
/// the same machine everybody would share it.
pub const PER_ADDRESS: usize = 30;

/// How long a failure counts.
pub const WINDOW: Duration = Duration::from_secs(60);

/// Entries kept at most, about 5 MiB; beyond it the one whose last failure is oldest goes.
pub const ENTRIES: usize = 16_384;

/// Counts failures.
#[derive(Debug, Default)]
pub struct Limiter {
    table: Mutex<HashMap<Key, Entry>>,
    decided: Notify,
    seeds: [RandomState; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// A login is kept as 128 keyed bits: short, and no name stays in memory.
    Login(IpAddr, u64, u64),
    Address(IpAddr),
}

#[derive(Debug, Default)]
struct Entry {
    failures: VecDeque<Instant>,
    under_way: usize,
}

/// One attempt that may go on. Dropped without [`Attempt::failed`] it counts for nothing.
#[derive(Debug)]
pub struct Attempt {
    limiter: Arc<Limiter>,
    keys: Vec<(Key, usize)>,
}

impl Limiter {
    /// Lets an attempt go on, waits while others of the same login and address are undecided, or
    /// answers 429. `address` is `None` for the owner's local commands.
    pub async fn begin(self: &Arc<Self>, login: &str, address: Option<IpAddr>) -> Result<Attempt> {
        let Some(address) = address.map(network) else {
            return Ok(Attempt { limiter: self.clone(), keys: Vec::new() });
        };
        let loopback = address.is_loopback();
        let [one, two] = &self.seeds;
        let mut keys =
            vec![(Key::Login(address, one.hash_one(login), two.hash_one(login)), PER_LOGIN)];
        if !loopback {
            keys.push((Key::Address(address), PER_ADDRESS));
        }
        loop {
            let decided = self.decided.notified();
            tokio::pin!(decided);
            // Registered before looking, so that a decision in between is not missed.
            decided.as_mut().enable();
            if self.admit(&keys, Instant::now())? {
                return Ok(Attempt { limiter: self.clone(), keys });
            }
            decided.await;
        }
    }

    /// `true`: may go on; `false`: must wait for others; an error: too many failures.
    fn admit(&self, keys: &[(Key, usize)], now: Instant) -> Result<bool> {
        let mut table = self.table();
        let mut wait = false;
        for (key, most) in keys {
            if let Some(entry) = table.get_mut(key) {
                entry.forget(now);
                if let Some(oldest) = entry.failures.front().filter(|_| entry.full(*most)) {
                    let left = WINDOW.saturating_sub(now.duration_since(*oldest));
                    return Err(limited(left));
                }
                wait |= entry.failures.len() + entry.under_way >= *most;
            }
        }
        if wait {
            return Ok(false);
        }
        for (key, _) in keys {
            if !table.contains_key(key) {
                make_room(&mut table, now);
            }
            table.entry(*key).or_default().under_way += 1;
        }
        Ok(true)
    }

    fn decide(&self, keys: &[(Key, usize)], failed: bool, now: Instant) {
        let mut table = self.table();
        for (key, most) in keys {
            if let Some(entry) = table.get_mut(key) {
                entry.under_way = entry.under_way.saturating_sub(1);
                if failed {
                    entry.failures.push_back(now);
                    while entry.failures.len() > *most {
                        entry.failures.pop_front();
                    }
                }
                if entry.idle(now) {
                    table.remove(key);
                }
            }
        }
        drop(table);
        self.decided.notify_waiters();
    }

    fn table(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn forget(&mut self, now: Instant) {
        while self.failures.front().is_some_and(|at| now.duration_since(*at) >= WINDOW) {
            self.failures.pop_front();
        }
    }

    fn full(&self, most: usize) -> bool {
        self.failures.len() >= most
    }

    fn idle(&mut self, now: Instant) -> bool {
        self.forget(now);
        self.failures.is_empty() && self.under_way == 0
    }
}

impl Attempt {
    /// The login or the password was wrong.
    pub fn failed(mut self) {
        self.limiter.decide(&std::mem::take(&mut self.keys), true, Instant::now());
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.keys.is_empty() {
            self.limiter.decide(&self.keys, false, Instant::now());
        }
    }
}

fn make_room(table: &mut HashMap<Key, Entry>, now: Instant) {
    if table.len() < ENTRIES {
        return;
    }
    table.retain(|_, entry| !entry.idle(now));
    if table.len() < ENTRIES {
        return;
    }
    // Attempts under way are few (the password queue bounds them) and must keep their count.
    let oldest = table
        .iter()
        .filter(|(_, entry)| entry.under_way == 0)
        .min_by_key(|(_, entry)| entry.failures.back().copied())
        .map(|(key, _)| *key);
    if let Some(key) = oldest {
        table.remove(&key);
    }
}

/// Seconds until the oldest failure is forgotten.
fn limited(left: Duration) -> Error {
    Error::new(
        Kind::Limited { retry_after: left.as_secs() as u32 + 1 },
        "too many failed logins from this address; try again later",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    async fn fail(limiter: &Arc<Limiter>, login: &str, from: &str) -> Result<()> {
        limiter.begin(login, address(from)).await?.failed();
        Ok(())
    }

    #[tokio::test]
    async fn ten_for_a_login_from_an_address() {
        let limiter = Arc::new(Limiter::default());
        for _ in 0..PER_LOGIN {
            fail(&limiter, "ann", "127.0.0.1").await.unwrap();
        }
        let error = fail(&limiter, "ann", "127.0.0.1").await.unwrap_err();
        assert_eq!(error.status(), 429);
        let Kind::Limited { retry_after } = error.kind else { panic!("{error:?}") };
        assert!((59..=61).contains(&retry_after), "{retry_after}");
        // The same account from elsewhere, and another account from here, go on.
        fail(&limiter, "ann", "192.0.2.1").await.unwrap();
        fail(&limiter, "bob", "127.0.0.1").await.unwrap();
    }

    #[tokio::test]
    async fn thirty_from_an_address_but_not_loopback() {
        let limiter = Arc::new(Limiter::default());
        for n in 0..PER_ADDRESS {
            fail(&limiter, &format!("user{n}"), "192.0.2.1").await.unwrap();
            fail(&limiter, &format!("user{n}"), "::1").await.unwrap();
            fail(&limiter, &format!("user{n}"), "::ffff:127.0.0.1").await.unwrap();
        }
        assert_eq!(fail(&limiter, "ann", "192.0.2.1").await.unwrap_err().status(), 429);
        assert_eq!(fail(&limiter, "ann", "::ffff:192.0.2.1").await.unwrap_err().status(), 429);
        fail(&limiter, "ann", "::1").await.unwrap();
        fail(&limiter, "ann", "127.0.0.1").await.unwrap();
        fail(&limiter, "ann", "192.0.2.2").await.unwrap();
    }

    #[tokio::test]
    async fn one_network_of_version_6_is_one_address() {
        let limiter = Arc::new(Limiter::default());
        for n in 0..PER_LOGIN {
            fail(&limiter, "ann", &format!("2001:db8:1:2::{n:x}")).await.unwrap();
        }
        assert!(fail(&limiter, "ann", "2001:db8:1:2:ffff::1").await.is_err());
        fail(&limiter, "ann", "2001:db8:1:3::1").await.unwrap();
    }

    #[tokio::test]
    async fn successes_count_for_nothing() {
        let limiter = Arc::new(Limiter::default());
        for _ in 0..50 {
            drop(limiter.begin("ann", address("192.0.2.1")).await.unwrap());
        }
        assert!(limiter.table().is_empty());
    }

    #[tokio::test]
    async fn guesses_sent_at_once_wait_for_each_other() {
        let limiter = Arc::new(Limiter::default());
        let mut held = Vec::new();
        for _ in 0..PER_LOGIN {
            held.push(limiter.begin("ann", address("127.0.0.1")).await.unwrap());
        }
        let waiting = {
            let limiter = limiter.clone();
            tokio::spawn(async move { limiter.begin("ann", address("127.0.0.1")).await.map(drop) })
        };
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(held.pop());
        waiting.await.unwrap().unwrap();
        held.drain(..).for_each(Attempt::failed);
        fail(&limiter, "ann", "127.0.0.1").await.unwrap();
        assert!(fail(&limiter, "ann", "127.0.0.1").await.is_err());
    }

    #[test]
    fn failures_are_forgotten_after_the_window_and_memory_is_bounded() {
        let limiter = Limiter::default();
        let start = Instant::now();
        let key = [(Key::Login(IpAddr::from([192, 0, 2, 1]), 1, 2), PER_LOGIN)];
        for _ in 0..PER_LOGIN {
            assert!(limiter.admit(&key, start).unwrap());
            limiter.decide(&key, true, start);
        }
        assert!(limiter.admit(&key, start + WINDOW / 2).is_err());
        assert!(limiter.admit(&key, start + WINDOW).unwrap());
        limiter.decide(&key, false, start + WINDOW);
        assert!(limiter.table().is_empty());

        for n in 0..ENTRIES as u32 + 100 {
            let key = [(Key::Address(IpAddr::from(n.to_be_bytes())), PER_ADDRESS)];
            limiter.admit(&key, start).unwrap();
            limiter.decide(&key, true, start + Duration::from_nanos(n.into()));
        }
        assert_eq!(limiter.table().len(), ENTRIES);
        let last = Key::Address(IpAddr::from((ENTRIES as u32 + 99).to_be_bytes()));
        assert!(limiter.table().contains_key(&last));
    }
}
