//! What came between a replay and the place where it joins the live stream.
//!
//! Replays join one by one while the matcher has better things to do, and after a restart by the
//! thousand: what is between is told once for all who are told alike and join at about the same
//! time.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::Result;
use crate::limits::Limits;
use crate::model::related::Key;

use super::fanout::{Failure, Fault};
use super::message::Events;
use super::outbox::Frame;
use super::recent::Recent;
use super::registry::Mode;
use super::subscription::Attach;
use super::teller::Teller;

/// How far behind the live stream a replay may be when it joins: what is between is told by the
/// matcher, while everybody else waits.
const COMMITS: u64 = 256;
const BYTES: usize = 1 << 20;

/// The frames of one commit.
pub(super) type Told = (u64, Vec<Frame>);

#[derive(Default)]
pub(super) struct Gaps {
    /// By what makes listeners alike, under one catalog.
    known: HashMap<Like, Gap>,
}

/// Equal for all who are sent the same bytes.
#[derive(PartialEq, Eq, Hash)]
struct Like {
    plan: Arc<[u8]>,
    encoder: &'static str,
    events: Events,
    mode: Mode,
    key: Option<Key>,
}

struct Gap {
    teller: Teller,
    /// What was told of the commits after the one position, up to the other.
    after: u64,
    upto: u64,
    told: Vec<Told>,
    /// Since the last [`Gaps::tidy`].
    used: bool,
}

impl Gaps {
    /// What a subscription that was told everything up to position `after` is told of the commits
    /// behind that, up to `upto`. `None` where that is too much, or no longer in `recent`.
    ///
    /// # Errors
    /// As a live subscription ends at one of them.
    pub(super) fn between(
        &mut self,
        limits: &Limits,
        recent: &Recent,
        attach: &Attach,
        after: u64,
        upto: u64,
    ) -> Result<Option<&[Told]>> {
        if upto - after > COMMITS {
            return Ok(None);
        }
        let Attach { request, plan, key, .. } = attach;
        let mode = Mode::of(request, plan);
        let like = Like {
            plan: plan.key.clone(),
            encoder: request.encoder.name(),
            events: request.events,
            mode,
            key: key.clone(),
        };
        let new = || Gap {
            teller: Teller::new(limits, request, plan.clone(), key.clone(), mode),
            after,
            upto: after,
            told: Vec::new(),
            used: true,
        };
        let gap = self.known.entry(like).or_insert_with(new);
        // An old one must not grow for ever, nor tell what nobody asks for.
        if gap.after > after || gap.upto < after || upto - gap.after > 2 * COMMITS {
            *gap = new();
        }
        gap.used = true;
        if !gap.extend(recent, upto)? {
            *gap = new();
            return Ok(None);
        }
        let begin = gap.told.partition_point(|(position, _)| *position <= after);
        Ok(Some(&gap.told[begin..]))
    }

    /// Forgets what was not asked for since the last time.
    pub(super) fn tidy(&mut self) {
        self.known.retain(|_, gap| std::mem::take(&mut gap.used));
    }

    /// Plans of the catalog that holds now are others.
    pub(super) fn clear(&mut self) {
        self.known.clear();
    }
}

impl Gap {
    /// `false` where what is needed is not in `recent`, or too much to be told by the way.
    fn extend(&mut self, recent: &Recent, upto: u64) -> Result<bool> {
        let missing = usize::try_from(upto - self.upto).unwrap_or(usize::MAX);
        if missing == 0 {
            return Ok(true);
        }
        let commits = recent.since(self.upto, missing).filter(|some| some.len() == missing);
        let Some(commits) = commits else { return Ok(false) };
        if commits.iter().map(|commit| commit.bytes()).sum::<usize>() > BYTES {
            return Ok(false);
        }
        for commit in &commits {
            match self.teller.tell(commit) {
                Ok(frames) if frames.is_empty() => {}
                Ok(frames) => self.told.push((commit.position, frames)),
                // Perhaps the log still has what the writer did not gather at the time.
                Err((Failure { fault: Fault::Ungathered, .. }, _)) => return Ok(false),
                // It happens again to whoever comes next: nothing is told beyond it.
                Err((_, error)) => {
                    self.upto = commit.position - 1;
                    return Err(error);
                }
            }
        }
        self.upto = upto;
        Ok(true)
    }
}
