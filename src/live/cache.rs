//! Things that are made once and shared, as many as fit in a number of bytes.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;

use crate::error::Result;

/// What a place of its own costs, whatever is in it.
const PLACE_BYTES: usize = 512;

/// By key; the least recently used go first. Whoever asks for what is being made waits for it, or
/// for a turn to make it itself; if its maker leaves or fails, the next one makes it.
pub struct Cache<K, V> {
    max_bytes: usize,
    state: Mutex<State<K, V>>,
}

struct State<K, V> {
    places: HashMap<K, Place<V>>,
    /// Keys of what was made, by when they were last used.
    used: BTreeMap<u64, K>,
    now: u64,
    bytes: usize,
}

struct Place<V> {
    made: Made<V>,
    /// 0 while it is being made: it keeps its place.
    used: u64,
    bytes: usize,
}

type Made<V> = Arc<Thing<V>>;

struct Thing<V> {
    value: OnceLock<Arc<V>>,
    /// Somebody makes it.
    making: AtomicBool,
    /// It was made, or is not being made any more.
    changed: Notify,
}

/// That somebody makes it, until this is dropped.
struct Making<'a, V>(&'a Thing<V>);

impl<V> Thing<V> {
    fn make(&self) -> Option<Making<'_, V>> {
        (!self.making.swap(true, Ordering::Acquire)).then(|| Making(self))
    }

    /// Waits for `turn`, or until the thing was made (`None`).
    async fn or<T>(&self, turn: impl Future<Output = Result<T>>) -> Result<Option<T>> {
        let mut turn = std::pin::pin!(turn);
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            // Registered before looking, so that what is made in between is not missed.
            changed.as_mut().enable();
            if self.value.get().is_some() {
                return Ok(None);
            }
            tokio::select! {
                biased;
                turn = turn.as_mut() => return turn.map(Some),
                () = changed => {}
            }
        }
    }
}

impl<V> Default for Thing<V> {
    fn default() -> Self {
        Thing { value: OnceLock::new(), making: AtomicBool::new(false), changed: Notify::new() }
    }
}

impl<V> Drop for Making<'_, V> {
    fn drop(&mut self) {
        self.0.making.store(false, Ordering::Release);
        self.0.changed.notify_waiters();
    }
}

impl<K: Clone + Eq + Hash, V> Cache<K, V> {
    /// Holds at most `max_bytes`, but for the places of what is being made; what is larger is made
    /// and not kept.
    pub fn new(max_bytes: usize) -> Self {
        let state = State { places: HashMap::new(), used: BTreeMap::new(), now: 0, bytes: 0 };
        Cache { max_bytes, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State<K, V>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is kept under `key` and `good`, or what `make` gives: the thing and its bytes. What is
    /// not good is replaced; what is being made by someone else is waited for and counts as good.
    ///
    /// `make` is called with a `turn`. Whoever waits for one has the thing as soon as anybody made
    /// it, so that nobody is held up by the place in line of another who wants the same.
    ///
    /// # Errors
    /// Those of `turn` and `make`; nothing is kept then.
    pub async fn get<T, W, F>(
        &self,
        key: &K,
        good: impl Fn(&V) -> bool,
        turn: impl Fn() -> W,
        make: impl FnOnce(T) -> F,
    ) -> Result<Arc<V>>
    where
        W: Future<Output = Result<T>>,
        F: Future<Output = Result<(V, usize)>>,
    {
        let asking = Asking { cache: self, key, thing: self.lock().place(key, good).into() };
        let Some(thing) = &asking.thing else { unreachable!("just placed") };
        loop {
            let turn = match thing.value.get() {
                Some(value) => return Ok(value.clone()),
                None => thing.or(turn()).await?,
            };
            let Some(turn) = turn else { continue };
            let changed = thing.changed.notified();
            let Some(making) = thing.make() else {
                // Somebody is at it, who has a turn: this one is another's.
                drop(turn);
                changed.await;
                continue;
            };
            // Between a look and the turn it may have been made.
            if thing.value.get().is_some() {
                continue;
            }
            let (value, bytes) = make(turn).await?;
            let made = Arc::new(value);
            let _ = thing.value.set(made.clone());
            drop(making);
            self.lock().weigh(key, thing, bytes, self.max_bytes);
            return Ok(made);
        }
    }

    /// Bytes of all that is kept.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }
}

/// That somebody has asked, until this is dropped. What was not made by then, and nobody else waits
/// for, has no place any more: it would never be weighed.
struct Asking<'a, K: Clone + Eq + Hash, V> {
    cache: &'a Cache<K, V>,
    key: &'a K,
    /// Let go of under the lock, so that of two who leave one sees that it is the last.
    thing: Option<Made<V>>,
}

impl<K: Clone + Eq + Hash, V> Drop for Asking<'_, K, V> {
    fn drop(&mut self) {
        let Some(thing) = self.thing.take_if(|thing| thing.value.get().is_none()) else { return };
        let mut state = self.cache.lock();
        if let Some(place) = state.places.get(self.key)
            && Arc::ptr_eq(&place.made, &thing)
            && Arc::strong_count(&thing) == 2
        {
            state.remove(self.key);
        }
        drop(thing);
    }
}

impl<K: Clone + Eq + Hash, V> State<K, V> {
    fn place(&mut self, key: &K, good: impl Fn(&V) -> bool) -> Made<V> {
        self.now += 1;
        if let Some(place) = self.places.get_mut(key)
            && place.made.value.get().is_none_or(|value| good(value))
        {
            let made = place.made.clone();
            if place.used > 0 {
                self.used.remove(&place.used);
                place.used = self.now;
                self.used.insert(self.now, key.clone());
            }
            return made;
        }
        self.remove(key);
        let made = Made::default();
        let place = Place { made: made.clone(), used: 0, bytes: PLACE_BYTES };
        self.places.insert(key.clone(), place);
        self.bytes += PLACE_BYTES;
        made
    }

    fn weigh(&mut self, key: &K, made: &Made<V>, bytes: usize, max_bytes: usize) {
        // It may have been replaced, or have gone already.
        if let Some(place) = self.places.get_mut(key)
            && Arc::ptr_eq(&place.made, made)
        {
            self.now += 1;
            place.used = self.now;
            self.used.insert(self.now, key.clone());
            place.bytes += bytes;
            self.bytes += bytes;
            if place.bytes > max_bytes {
                return self.remove(key);
            }
        }
        while self.bytes > max_bytes
            && let Some((_, oldest)) = self.used.first_key_value()
        {
            let oldest = oldest.clone();
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, key: &K) {
        if let Some(place) = self.places.remove(key) {
            self.used.remove(&place.used);
            self.bytes -= place.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use std::sync::atomic::{AtomicUsize, Ordering};

    async fn number(cache: &Cache<u32, u32>, key: u32, bytes: usize) -> (u32, bool) {
        let mut made = false;
        let value = cache.get(
            &key,
            |_| true,
            async || Ok(()),
            async |()| {
                made = true;
                Ok((key * 10, bytes))
            },
        );
        (*value.await.expect("a number"), made)
    }

    #[tokio::test]
    async fn the_least_used_go_first() {
        let cache = Cache::new(3 * PLACE_BYTES + 300);
        for key in 1..=3 {
            assert_eq!(number(&cache, key, 100).await, (key * 10, true));
        }
        assert_eq!(number(&cache, 1, 100).await, (10, false));
        assert_eq!(number(&cache, 4, 100).await, (40, true));
        assert_eq!(number(&cache, 1, 100).await, (10, false));
        assert_eq!(number(&cache, 2, 100).await, (20, true), "the least recently used");
        assert_eq!(cache.bytes(), 3 * PLACE_BYTES + 300);
        assert_eq!(number(&cache, 9, 1 << 20).await, (90, true), "too large to be kept");
        assert_eq!(cache.bytes(), 3 * PLACE_BYTES + 300, "nothing went for it");
    }

    #[tokio::test]
    async fn what_was_not_made_has_no_place() {
        let cache = Arc::new(Cache::<u32, u32>::new(3 * PLACE_BYTES));
        for key in 0..10 {
            let fails = async |()| Err(Error::bad("no"));
            assert!(cache.get(&key, |_| true, async || Ok(()), fails).await.is_err());
            assert_eq!((cache.bytes(), cache.lock().used.len()), (0, 0));
        }
        // Nor has what everybody stopped waiting for; the last one to leave takes it along.
        let ask = |key: u32| {
            let cache = cache.clone();
            tokio::spawn(async move {
                let never = async |()| std::future::pending().await;
                cache.get(&key, |_| true, async || Ok(()), never).await.map(drop)
            })
        };
        let asked: Vec<_> = (0..10).map(|n| ask(n % 5)).collect();
        tokio::task::yield_now().await;
        assert_eq!(cache.bytes(), 5 * PLACE_BYTES, "what is being made has its place");
        for (left, asked) in asked.into_iter().enumerate() {
            asked.abort();
            assert!(asked.await.is_err());
            assert_eq!(cache.lock().places.len(), 5 - left.saturating_sub(4).min(5));
        }
        assert_eq!((cache.bytes(), cache.lock().used.len()), (0, 0));
        assert_eq!(number(&cache, 1, 100).await, (10, true));
    }

    #[tokio::test]
    async fn what_is_being_made_keeps_its_place() {
        let cache = Arc::new(Cache::<u32, u32>::new(2 * PLACE_BYTES));
        let count = Arc::new(AtomicUsize::new(0));
        let (release, _) = tokio::sync::broadcast::channel::<()>(1);
        let ask = || {
            let (cache, count, mut released) = (cache.clone(), count.clone(), release.subscribe());
            tokio::spawn(async move {
                let make = async |()| {
                    count.fetch_add(1, Ordering::Relaxed);
                    released.recv().await.expect("a word");
                    Ok((7, 1))
                };
                cache.get(&1, |_| true, async || Ok(()), make).await.map(|value| *value).ok()
            })
        };
        let first = ask();
        tokio::task::yield_now().await;
        for key in 2..10 {
            assert_eq!(number(&cache, key, 1).await, (key * 10, true));
        }
        let second = ask();
        tokio::task::yield_now().await;
        release.send(()).expect("somebody waits");
        for asked in [first, second] {
            assert_eq!(asked.await.expect("no panic"), Some(7));
        }
        assert_eq!(count.load(Ordering::Relaxed), 1);
        assert_eq!(number(&cache, 1, 1).await, (7, false));
    }

    #[tokio::test]
    async fn made_once_for_all_who_wait() {
        let cache = Arc::new(Cache::<u32, u32>::new(1 << 20));
        let count = Arc::new(AtomicUsize::new(0));
        let ask = || {
            let (cache, count) = (cache.clone(), count.clone());
            tokio::spawn(async move {
                let make = async |()| {
                    tokio::task::yield_now().await;
                    match count.fetch_add(1, Ordering::Relaxed) {
                        // Who fails alone hears of it.
                        0 => Err(Error::bad("no")),
                        _ => Ok((7, 1)),
                    }
                };
                cache.get(&1, |_| true, async || Ok(()), make).await.map(|value| *value).ok()
            })
        };
        let asked: Vec<_> = (0..10).map(|_| ask()).collect();
        let mut got = Vec::new();
        for asked in asked {
            got.push(asked.await.expect("no panic"));
        }
        assert_eq!(got.iter().filter(|got| got.is_none()).count(), 1);
        assert_eq!(count.load(Ordering::Relaxed), 2);
        let turn = async || Ok(());
        let better = cache.get(&1, |value| *value > 7, turn, async |()| Ok((8, 1)));
        assert_eq!(*better.await.expect("made anew"), 8);
    }
}
