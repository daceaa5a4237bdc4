//! Who stands behind the subscriptions, so that a change of one user concerns that user's alone.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};

use serde_json::Value as Json;
use uuid::Uuid;

use crate::auth::principal::Principal;
use crate::live::subscription::SubId;

/// In order rather than in lists: nobody's list is copied as it grows, and most have one.
#[derive(Default)]
pub(super) struct Standing {
    by_user: BTreeSet<(Uuid, SubId)>,
    /// By a hash of the subject that an outside issuer's token names: a user may be linked to it
    /// any time. Where two meet, some are asked for in vain.
    by_subject: BTreeSet<(u64, SubId)>,
    hash: RandomState,
}

impl Standing {
    pub(super) fn add(&mut self, principal: &Principal, id: SubId) {
        self.by_user.extend(principal.user.map(|user| (user, id)));
        self.by_subject.extend(self.named(principal).map(|subject| (subject, id)));
    }

    pub(super) fn remove(&mut self, principal: &Principal, id: SubId) {
        if let Some(user) = principal.user {
            self.by_user.remove(&(user, id));
        }
        if let Some(subject) = self.named(principal) {
            self.by_subject.remove(&(subject, id));
        }
    }

    fn named(&self, principal: &Principal) -> Option<u64> {
        let subject = principal.claims.get("sub").and_then(Json::as_str)?;
        Some(self.hash.hash_one(subject))
    }

    pub(super) fn of_user(&self, user: Uuid) -> impl Iterator<Item = SubId> {
        self.by_user.range((user, 0)..=(user, SubId::MAX)).map(|(_, id)| *id)
    }

    pub(super) fn of_subject(&self, subject: &str) -> impl Iterator<Item = SubId> {
        let subject = self.hash.hash_one(subject);
        self.by_subject.range((subject, 0)..=(subject, SubId::MAX)).map(|(_, id)| *id)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_user.is_empty() && self.by_subject.is_empty()
    }
}
