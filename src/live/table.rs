//! A hash table that nobody waits for: it grows and shrinks a small part at a time.
//!
//! One that grows as a whole stops the matcher meanwhile, some 0.3 s for three tables of a million
//! entries. One that moves a few entries at each insertion still takes the memory of all of them at
//! once, and has two tables to look into until it is done.
//!
//! This is linear hashing. There are as many parts as the entries need; when they need one more,
//! the next part in line is split in two, and when they need one less, the last part goes back to
//! where it came from. So an insertion splits one part at most, a removal joins two at most, and
//! what a part holds does not grow with the table.

use std::hash::{BuildHasher, Hash, RandomState};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// Entries a part, on average, when one is split; so parts hold half to twice as many. A split
/// hashes each of them: some tens of us where keys are numbers. Whoever has longer ones files by a
/// hash of them. Smaller parts make a longer list of parts, which should stay in the cache: at a
/// million entries it takes 32 KB.
const PART: usize = 1_024;

/// A part with room for fewer keeps it.
const SPARSE: usize = 28;

/// A map that grows and shrinks a part at a time.
#[derive(Debug)]
pub struct Table<K, V, S = RandomState> {
    parts: Vec<HashTable<(K, V)>>,
    len: usize,
    hash: S,
}

impl<K, V, S: Default> Default for Table<K, V, S> {
    fn default() -> Self {
        Table { parts: Vec::new(), len: 0, hash: S::default() }
    }
}

impl<K, V, S> Table<K, V, S> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// In no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.parts.iter().flatten().map(|(key, value)| (key, value))
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Table<K, V, S> {
    pub fn get(&self, key: &K) -> Option<&V> {
        let hash = self.hash.hash_one(key);
        let part = self.parts.get(place(hash, self.parts.len()))?;
        part.find(hash, |(known, _)| known == key).map(|(_, value)| value)
    }

    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let hash = self.hash.hash_one(key);
        let at = place(hash, self.parts.len());
        let part = self.parts.get_mut(at)?;
        part.find_mut(hash, |(known, _)| known == key).map(|(_, value)| value)
    }

    /// Gives what was there.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let (entry, len) = self.entry(&key);
        match entry {
            Entry::Occupied(mut known) => Some(std::mem::replace(&mut known.get_mut().1, value)),
            Entry::Vacant(vacant) => {
                vacant.insert((key, value));
                *len += 1;
                None
            }
        }
    }

    /// What is there, or is made now.
    pub fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        let (entry, len) = self.entry(&key);
        match entry {
            Entry::Occupied(known) => &mut known.into_mut().1,
            Entry::Vacant(vacant) => {
                *len += 1;
                &mut vacant.insert((key, make())).into_mut().1
            }
        }
    }

    /// Where a key is or belongs, and the number of entries.
    fn entry(&mut self, key: &K) -> (Entry<'_, (K, V)>, &mut usize) {
        if self.len >= self.parts.len() * PART {
            self.split();
        }
        let Table { parts, len, hash: by } = self;
        let hash = by.hash_one(key);
        let at = place(hash, parts.len());
        let entry = parts[at].entry(hash, |(known, _)| known == key, |(key, _)| by.hash_one(key));
        (entry, len)
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.remove_if(key, |_| true)
    }

    /// Changes what is there, and takes it out where that gives `true`.
    pub fn remove_if(&mut self, key: &K, change: impl FnOnce(&mut V) -> bool) -> Option<V> {
        let hash = self.hash.hash_one(key);
        let at = place(hash, self.parts.len());
        let part = self.parts.get_mut(at)?;
        let mut entry = part.find_entry(hash, |(known, _)| known == key).ok()?;
        if !change(&mut entry.get_mut().1) {
            return None;
        }
        let ((_, value), _) = entry.remove();
        self.len -= 1;
        self.shrink(at);
        Some(value)
    }

    /// Adds a part. It takes its entries from the one that they lay in while there were fewer.
    fn split(&mut self) {
        let new = self.parts.len();
        if let Some(old) = self.parts.get_mut(origin(new)) {
            let by = &self.hash;
            let half = old.len() / 2;
            let mut halves = [HashTable::with_capacity(half), HashTable::with_capacity(half)];
            for entry in std::mem::take(old) {
                let hash = by.hash_one(&entry.0);
                let half = &mut halves[usize::from(place(hash, new + 1) == new)];
                half.insert_unique(hash, entry, |(key, _)| by.hash_one(key));
            }
            let [stay, go] = halves;
            *old = stay;
            self.parts.push(go);
        } else {
            // Room for four would be more than a table of one entry takes.
            self.parts.reserve_exact(1);
            self.parts.push(HashTable::new());
        }
    }

    /// Gives back what is too much after a removal from the part at `at`.
    fn shrink(&mut self, at: usize) {
        if self.len == 0 {
            self.parts = Vec::new();
            return;
        }
        let by = &self.hash;
        let part = &mut self.parts[at];
        // Only where it is worth it, and so that it is not made larger again at once.
        if part.capacity() >= SPARSE && part.len() < part.capacity() / 8 {
            part.shrink_to(2 * part.len(), |(key, _)| by.hash_one(key));
        }
        let last = self.parts.len() - 1;
        // Half of what splits one, so that who comes and goes does not split and join by turns.
        if self.len >= last * PART / 2 {
            return;
        }
        let Some(some) = self.parts.pop() else { return };
        let old = &mut self.parts[origin(last)];
        old.reserve(some.len(), |(key, _)| by.hash_one(key));
        for entry in some {
            let hash = by.hash_one(&entry.0);
            old.insert_unique(hash, entry, |(key, _)| by.hash_one(key));
        }
        if self.parts.len() < self.parts.capacity() / 4 {
            self.parts.shrink_to(2 * self.parts.len());
        }
    }
}

/// Where a hash belongs among so many parts: by as many bits as there are parts for. Bits in the
/// middle, as within a part the lowest and the highest count.
fn place(hash: u64, parts: usize) -> usize {
    let (bits, mask) = ((hash >> 20) as usize, parts.next_power_of_two() - 1);
    let at = bits & mask;
    // Where there is no such part yet, one bit less says where.
    if at < parts { at } else { bits & (mask >> 1) }
}

/// The part that this one was split from: it without its highest bit.
fn origin(part: usize) -> usize {
    part.checked_ilog2().map_or(0, |highest| part - (1 << highest))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::hash::{BuildHasherDefault, Hasher};

    use super::*;

    /// A small generator of numbers; equal seeds give equal runs.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.0 >> 33) % sides
        }
    }

    /// Held to the map that everybody knows, while it grows to many parts and shrinks to none.
    #[test]
    fn is_a_map() {
        let mut dice = Dice(7);
        let (mut table, mut map) = (Table::<u64, u64>::default(), HashMap::new());
        let mut most = 0;
        for grows in [true, false, true, false] {
            let mut step = 0;
            while if grows { map.len() < 6_000 } else { !map.is_empty() } {
                step += 1;
                // One of a few keys, so that most are met again.
                let key = dice.roll(9_000);
                let coming = dice.roll(8) < if grows { 6 } else { u64::from(map.len() > 3_000) };
                match (coming, dice.roll(3)) {
                    (true, 0) => assert_eq!(table.insert(key, step), map.insert(key, step)),
                    (true, 1) => {
                        let known = table.get_or_insert_with(key, || step);
                        *known += 1;
                        let other = map.entry(key).or_insert(step);
                        *other += 1;
                        assert_eq!(known, other);
                    }
                    (true, _) => {
                        assert_eq!(table.get_mut(&key), map.get_mut(&key));
                    }
                    (false, 0) => assert_eq!(table.remove(&key), map.remove(&key)),
                    (false, _) => {
                        let odd = |value: &mut u64| {
                            *value += 1;
                            *value % 2 == 1
                        };
                        let goes = map.get_mut(&key).is_some_and(odd);
                        let gone = if goes { map.remove(&key) } else { None };
                        assert_eq!(table.remove_if(&key, odd), gone);
                    }
                }
                assert_eq!((table.len(), table.is_empty()), (map.len(), map.is_empty()));
                assert_eq!(table.get(&key), map.get(&key));
                if step % 3_000 == 0 || map.len() < 3 {
                    compare(&table, &map);
                }
                most = most.max(table.parts.len());
            }
            compare(&table, &map);
        }
        assert!(most > 6_000 / PART - 1, "{most} parts");
        assert_eq!(table.parts.capacity(), 0, "nothing is left");
    }

    fn compare(table: &Table<u64, u64>, map: &HashMap<u64, u64>) {
        let mut all: Vec<_> = table.iter().map(|(key, value)| (*key, *value)).collect();
        all.sort_unstable();
        let mut others: Vec<_> = map.iter().map(|(key, value)| (*key, *value)).collect();
        others.sort_unstable();
        assert_eq!(all, others);
    }

    /// What one insertion or removal may have to move is bounded whatever the table holds, and so
    /// is the room that is kept for nothing.
    #[test]
    fn parts_stay_small() {
        let mut table = Table::<u64, ()>::default();
        let check = |table: &Table<u64, ()>| {
            let room: usize = table.parts.iter().map(HashTable::capacity).sum();
            assert!(room <= 16 * table.len() + 32, "room for {room}, {} there", table.len());
            let largest = table.parts.iter().map(HashTable::len).max().unwrap_or_default();
            assert!(largest < 3 * PART, "{largest} in a part, {} there", table.len());
        };
        const ALL: u64 = 50_000;
        for key in 0..ALL {
            table.insert(key, ());
            assert!(key > 0 || table.parts.capacity() == 1, "room for more parts");
            if key % 499 == 0 {
                check(&table);
            }
        }
        for key in 0..ALL {
            table.remove(&(key * 7_919 % ALL));
            if key % 499 == 0 {
                check(&table);
            }
        }
        assert!(table.is_empty());
    }

    #[derive(Default)]
    struct Same;

    impl Hasher for Same {
        fn write(&mut self, _: &[u8]) {}

        fn finish(&self) -> u64 {
            0x5a5a_5a5a_5a5a_5a5a
        }
    }

    #[test]
    fn keys_of_one_hash_are_told_apart() {
        let mut table = Table::<u64, u64, BuildHasherDefault<Same>>::default();
        let many = 4 * PART as u64;
        for key in 0..many {
            assert_eq!(table.insert(key, key + 1), None);
        }
        assert!((0..many).all(|key| table.get(&key) == Some(&(key + 1))));
        assert!((0..many).all(|key| table.remove(&key) == Some(key + 1)));
        assert!(table.is_empty());
    }
}
