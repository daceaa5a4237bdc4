//! What plans show, each body kept once.

use std::hash::{BuildHasher, BuildHasherDefault, RandomState};
use std::sync::Arc;

use crate::query::{Body, Plan};

use crate::live::index::Plain;
use crate::live::table::Table;

use super::slab::Slab;

/// Index of a body; plans of the same projection and grant share one.
pub type BodyId = usize;

struct Shared {
    body: Arc<Body>,
    plans: usize,
}

#[derive(Default)]
pub(super) struct Bodies {
    all: Slab<Shared>,
    /// By a hash of the key, which may have some kilobytes; as plans in the registry. Two keys of
    /// one hash do not meet here; the later body is shared by nobody then.
    by_key: Table<u64, BodyId, BuildHasherDefault<Plain>>,
    hash: RandomState,
}

impl Bodies {
    /// The body that the plan shows. A plan that nobody else holds gives its own up for the one
    /// that is there already, where [`Plans`](crate::query::Plans) has not seen to it.
    pub(super) fn share(&mut self, plan: &mut Arc<Plan>) -> BodyId {
        let hash = self.hash.hash_one(&plan.body.key);
        let known = self.by_key.get(&hash).copied();
        let same = |body: &BodyId| {
            self.all.get(*body).is_some_and(|shared| shared.body.key == plan.body.key)
        };
        let body = match known.filter(same) {
            Some(body) => body,
            None => {
                let shared = Shared { body: plan.body.clone(), plans: 0 };
                let body = self.all.add(shared);
                self.by_key.get_or_insert_with(hash, || body);
                body
            }
        };
        if let Some(shared) = self.all.get_mut(body) {
            shared.plans += 1;
            if let Some(plan) = Arc::get_mut(plan) {
                plan.body = shared.body.clone();
            }
        }
        body
    }

    /// One plan less shows it.
    pub(super) fn release(&mut self, body: BodyId) {
        if let Some(shared) = self.all.get_mut(body) {
            shared.plans -= 1;
            if shared.plans == 0 {
                let hash = self.hash.hash_one(&shared.body.key);
                self.by_key.remove_if(&hash, |known| *known == body);
                self.all.remove(body);
            }
        }
    }

    pub(super) fn get(&self, body: BodyId) -> Option<&Arc<Body>> {
        Some(&self.all.get(body)?.body)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty() && self.all.len() == 0
    }
}
