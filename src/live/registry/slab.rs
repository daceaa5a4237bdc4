//! Things by a number that is used again when a thing has gone.

/// Places made at a time. What has its place stays there, so that nothing is copied while commits
/// wait, and free places are a list among themselves. With vectors of plans and of free numbers the
/// longest addition among a million plans took 24 ms and the longest removal 142 (glibc copies
/// nothing, but a large allocation has it put together all that was freed; other allocators copied
/// for 70 to 130 ms).
const PART: usize = 256;

/// A thing of each number.
#[derive(Debug)]
pub struct Slab<T> {
    /// The first part, which grows as it must: most slabs hold one thing or two.
    first: Vec<Place<T>>,
    /// Parts made whole.
    rest: Vec<Vec<Place<T>>>,
    /// The free place that is used next.
    free: Option<usize>,
    len: usize,
}

#[derive(Debug)]
enum Place<T> {
    Taken(T),
    /// And the free place that is used after it.
    Free(Option<usize>),
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { first: Vec::new(), rest: Vec::new(), free: None, len: 0 }
    }
}

impl<T> Slab<T> {
    /// Gives a thing its number.
    pub fn add(&mut self, thing: T) -> usize {
        self.len += 1;
        let at = self.next();
        if self.free.is_none() {
            if self.rest.last().map_or(at, Vec::len) == PART {
                self.rest.push(Vec::with_capacity(PART));
            } else if at == 0 {
                // Room for four would be a seventh of all that a plan with one listener takes.
                self.first.reserve_exact(1);
            }
            self.rest.last_mut().unwrap_or(&mut self.first).push(Place::Taken(thing));
            return at;
        }
        if let Some(place) = self.place_mut(at)
            && let Place::Free(next) = std::mem::replace(place, Place::Taken(thing))
        {
            self.free = next;
        }
        at
    }

    /// The number that the next thing gets.
    pub fn next(&self) -> usize {
        self.free.unwrap_or_else(|| self.places())
    }

    /// Takes a thing out.
    pub fn remove(&mut self, at: usize) -> Option<T> {
        let free = self.free;
        let place = self.place_mut(at)?;
        if matches!(place, Place::Free(_)) {
            return None;
        }
        let Place::Taken(thing) = std::mem::replace(place, Place::Free(free)) else { return None };
        self.free = Some(at);
        self.len -= 1;
        Some(thing)
    }

    pub fn get(&self, at: usize) -> Option<&T> {
        let place = match at.checked_sub(PART) {
            None => self.first.get(at),
            Some(at) => self.rest.get(at / PART).and_then(|part| part.get(at % PART)),
        };
        place.and_then(Place::thing)
    }

    pub fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        match self.place_mut(at)? {
            Place::Taken(thing) => Some(thing),
            Place::Free(_) => None,
        }
    }

    fn place_mut(&mut self, at: usize) -> Option<&mut Place<T>> {
        match at.checked_sub(PART) {
            None => self.first.get_mut(at),
            Some(at) => self.rest.get_mut(at / PART)?.get_mut(at % PART),
        }
    }

    /// All things with their numbers, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        let places = self.first.iter().chain(self.rest.iter().flatten()).enumerate();
        places.filter_map(|(at, place)| Some((at, place.thing()?)))
    }

    /// The same from a number on; those before are not looked at.
    pub fn iter_from(&self, from: usize) -> impl Iterator<Item = (usize, &T)> {
        (from..self.places()).filter_map(|at| Some((at, self.get(at)?)))
    }

    /// How many things there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// How many places were ever made.
    pub fn places(&self) -> usize {
        match self.rest.split_last() {
            None => self.first.len(),
            Some((last, whole)) => PART + whole.len() * PART + last.len(),
        }
    }
}

impl<T> Place<T> {
    fn thing(&self) -> Option<&T> {
        match self {
            Place::Taken(thing) => Some(thing),
            Place::Free(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Held to a map, over several parts.
    #[test]
    fn is_a_map_that_chooses_its_keys() {
        let (mut slab, mut map, mut state) = (Slab::default(), BTreeMap::new(), 1_u64);
        let mut most = 0;
        for step in 0..20_000_u64 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(step | 1);
            let chance = (state >> 33) as usize;
            // More come than go, then more go than come.
            if chance % 5 < if step < 10_000 { 3 } else { 1 } {
                let (next, at) = (slab.next(), slab.add(step));
                assert_eq!(at, next);
                assert_eq!(map.insert(at, step), None, "a number in use");
            } else {
                let at = chance / 5 % (most + 2);
                assert_eq!(slab.get(at), map.get(&at));
                assert_eq!(slab.remove(at), map.remove(&at));
                assert_eq!(slab.remove(at), None);
            }
            most = most.max(map.len());
            assert_eq!(slab.len(), map.len());
            assert_eq!(slab.places(), most, "places are used again");
        }
        assert!(most > 3 * PART, "{most}");
        for (at, thing) in &mut map {
            *thing += 1;
            *slab.get_mut(*at).expect("a thing") += 1;
        }
        assert!(slab.iter().eq(map.iter().map(|(at, thing)| (*at, thing))));
        for from in [0, 1, PART - 1, PART, most / 2, most, most + 1] {
            assert!(slab.iter_from(from).eq(map.range(from..).map(|(at, thing)| (*at, thing))));
        }
        assert_eq!(slab.get_mut(most), None);
    }
}
