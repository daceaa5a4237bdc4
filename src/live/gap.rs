//! What came between a replay and the place where it joins the live stream.
//!
//! Replays join one by one while the matcher has better things to do, and after a restart by the
//! thousand: what is between is told once for all who are told alike and join at about the same
//! time.

use std::collections::HashMap;
use std::sync::Arc;

use crate::limits::Limits;
use crate::model::related::Key;

use super::message::Events;
use super::outbox::{Frame, size};
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
    /// Of all frames in it: they may be as many as there are questions.
    pub(super) bytes: usize,
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
    /// Of the frames in it.
    bytes: usize,
    /// Since the last [`Gaps::tidy`].
    used: bool,
}

impl Gaps {
    /// What a subscription that was told everything up to position `after` is told of the commits
    /// behind that, up to `upto`. `None` where that is too much, no longer in `recent`, or cannot
    /// be told: it is read from the log then.
    pub(super) fn between(
        &mut self,
        limits: &Limits,
        recent: &Recent,
        attach: &Attach,
        after: u64,
        upto: u64,
    ) -> Option<&[Told]> {
        if upto - after > COMMITS {
            return None;
        }
        if self.bytes > limits.recent_bytes {
            self.clear();
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
            bytes: 0,
            used: true,
        };
        let gap = self.known.entry(like).or_insert_with(new);
        self.bytes -= gap.bytes;
        // An old one must not grow for ever, nor tell what nobody asks for.
        if gap.after > after || gap.upto < after || upto - gap.after > 2 * COMMITS {
            *gap = new();
        }
        gap.used = true;
        if !gap.extend(recent, upto) {
            *gap = new();
            return None;
        }
        self.bytes += gap.bytes;
        let begin = gap.told.partition_point(|(position, _)| *position <= after);
        Some(&gap.told[begin..])
    }

    /// Forgets what was not asked for since the last time.
    pub(super) fn tidy(&mut self) {
        self.known.retain(|_, gap| std::mem::take(&mut gap.used));
        self.bytes = self.known.values().map(|gap| gap.bytes).sum();
    }

    /// Plans of the catalog that holds now are others.
    pub(super) fn clear(&mut self) {
        self.known.clear();
        self.bytes = 0;
    }
}

impl Gap {
    /// `false` where what is needed is not in `recent`, too much to be told by the way, or cannot
    /// be told.
    fn extend(&mut self, recent: &Recent, upto: u64) -> bool {
        let missing = usize::try_from(upto - self.upto).unwrap_or(usize::MAX);
        if missing == 0 {
            return true;
        }
        let commits = recent.since(self.upto, missing).filter(|some| some.len() == missing);
        let Some(commits) = commits else { return false };
        if commits.iter().map(|commit| commit.bytes()).sum::<usize>() > BYTES {
            return false;
        }
        for commit in &commits {
            match self.teller.tell(commit) {
                Ok(frames) if frames.is_empty() => {}
                Ok(frames) => {
                    self.bytes += size(&frames);
                    self.told.push((commit.position, frames));
                }
                // Whoever joins reads it from the log: perhaps it still has what the writer did
                // not gather at the time; if not, there the client may begin anew.
                Err(_) => return false,
            }
        }
        self.upto = upto;
        true
    }
}
