//! Groups of one plan, by how they are told.

use crate::live::message::Events;
use crate::live::table::Table;

use super::entry::Group;
use super::slab::Slab;
use super::{EncoderId, Mode};

/// So many are looked at one by one.
const FEW: usize = 8;

/// What the listeners of one group have in common.
pub(super) type Like = (EncoderId, Events, Mode);

/// Groups that want every record, or the same one.
#[derive(Default)]
pub(super) struct Siblings {
    pub(super) all: Vec<usize>,
    /// Where they are not few: cursors name the grant, so there may be one for each user.
    by_like: Option<Box<Table<Like, usize>>>,
}

impl Siblings {
    pub(super) fn find(&self, groups: &Slab<Group>, like: &Like) -> Option<usize> {
        let is = |at: &usize| groups.get(*at).is_some_and(|group| group.like() == *like);
        match &self.by_like {
            Some(known) => known.get(like).copied(),
            None => self.all.iter().copied().find(is),
        }
    }

    /// The place in which the next one is put.
    pub(super) fn next(&self) -> usize {
        self.all.len()
    }

    /// Adds one that is among `groups`.
    pub(super) fn add(&mut self, groups: &Slab<Group>, at: usize) {
        self.all.push(at);
        let new = match self.by_like {
            Some(_) => self.all.len() - 1,
            None if self.all.len() > FEW => 0,
            None => return,
        };
        let known = self.by_like.get_or_insert_default();
        for at in &self.all[new..] {
            if let Some(group) = groups.get(*at) {
                known.insert(group.like(), *at);
            }
        }
    }

    /// Takes out the one at a place; gives who has that place now.
    pub(super) fn remove(&mut self, place: usize, like: &Like) -> Option<usize> {
        self.all.swap_remove(place);
        if let Some(known) = &mut self.by_like {
            known.remove(like);
        }
        // Not again at the next one that comes.
        if self.all.len() <= FEW / 2 {
            self.by_like = None;
        }
        self.all.get(place).copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn groups<'g>(&self, groups: &'g Slab<Group>) -> impl Iterator<Item = &'g Group> {
        self.all.iter().filter_map(|at| groups.get(*at))
    }
}
