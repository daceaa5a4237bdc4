//! The log as it is told to those who come back: read once and told once for all of them.
//!
//! The log is cut into pages at fixed positions, so that those who resume from different cursors
//! read the same ones. A page's commits are read and decoded once for all plans that need the same
//! gathered; what a plan tells of a page is encoded once for all who are told alike. Both are kept
//! for the next who asks, within bounds, and made by few at a time, each principal's in turn.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Kind, Result};
use crate::limits::Limits;
use crate::model::catalog::Catalog;
use crate::model::change::Commit;
use crate::model::related::{Key, Paths, Want};
use crate::model::schema::SchemaId;
use crate::nice;
use crate::query::Plan;
use crate::store::Mark;

use super::cache::Cache;
use super::ledger::Payer;
use super::outbox::Frame;
use super::recent::Recent;
use super::registry::Mode;
use super::source::Source;
use super::subscription::Request;
use super::teller::Teller;
use super::turns::{Turn, Turns};

/// Entries in a page. Many enough that looking a page up costs nothing beside them, few enough
/// that one is read in some milliseconds.
const PAGE: u64 = 256;

/// Pages of the log, and what is told of them.
pub struct History {
    source: Arc<dyn Source>,
    recent: Arc<Recent>,
    limits: Arc<Limits>,
    /// Held while a page is read or told, and never while anybody waits for a client.
    work: Turns,
    pages: Cache<(u64, Option<Arc<Gather>>, u64), Page>,
    /// By listener and the position before the page. `None`: the catalog is another by now.
    told: Cache<(Arc<Like>, u64), Option<Told>>,
}

/// What must be gathered with a page.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Gather {
    schema: SchemaId,
    paths: Paths,
    /// Dependants too.
    back: bool,
}

/// Commits that follow each other.
struct Page {
    commits: Vec<Arc<Commit>>,
    /// The catalog they were read against.
    catalog: Arc<Catalog>,
    /// Nothing was committed after them when they were read.
    newest: bool,
}

/// One of those who are told alike.
pub struct Listener {
    request: Request,
    plan: Arc<Plan>,
    key: Option<Key>,
    mode: Mode,
    gather: Option<Arc<Gather>>,
    like: Arc<Like>,
    /// The one that told the last page, to tell the next.
    teller: Mutex<Option<Teller>>,
}

/// Equal for all who are sent the same bytes.
#[derive(PartialEq, Eq, Hash)]
struct Like {
    catalog: u64,
    plan: Arc<[u8]>,
    encoder: &'static str,
    events: super::message::Events,
    mode: Mode,
    key: Option<Key>,
}

/// What a page tells a listener.
pub struct Told {
    /// The page tells everything after this position.
    pub after: u64,
    /// Commits that tell something, in order: their frames, of which there is one at least, or
    /// how it ends for such a listener.
    pub commits: Vec<(Mark, Result<Vec<Frame>>)>,
    /// The last commit that was looked at.
    pub last: Mark,
    /// Nothing had been committed after it when the page was read.
    pub newest: bool,
    /// A commit could not be told, by a fault of ours.
    faulty: bool,
}

impl Listener {
    /// `plan` is that of `request`; `key` the one record it is for.
    pub fn new(request: &Request, plan: &Arc<Plan>, key: &Option<Key>, mode: Mode) -> Self {
        let gather =
            Gather { schema: plan.schema.id, paths: plan.paths.clone(), back: mode.transitions };
        let like = Like {
            catalog: plan.catalog.version,
            plan: plan.key.clone(),
            encoder: request.encoder.name(),
            events: request.events,
            mode,
            key: key.clone(),
        };
        Listener {
            request: request.clone(),
            plan: plan.clone(),
            key: key.clone(),
            mode,
            gather: (!plan.paths.is_empty()).then(|| Arc::new(gather)),
            like: Arc::new(like),
            teller: Mutex::default(),
        }
    }

    /// Whether it is for this plan, with cursors or without.
    pub fn is(&self, plan: &Arc<Plan>, cursors: bool) -> bool {
        Arc::ptr_eq(&self.plan, plan) && self.mode.cursors.is_some() == cursors
    }

    /// What the log must give for its plan.
    pub fn want(&self) -> Arc<Want> {
        let mut want = Want::default();
        if let Some(gather) = &self.gather {
            want.paths = HashMap::from([(gather.schema, gather.paths.clone())]);
            if gather.back {
                want.dependants = want.paths.clone();
            }
        }
        Arc::new(want)
    }

    fn idle(&self) -> MutexGuard<'_, Option<Teller>> {
        self.teller.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps one for the next page: until a turn comes for that it is to be small.
    fn rest(&self, mut teller: Teller) {
        teller.rest();
        *self.idle() = Some(teller);
    }

    /// One that has told nothing yet, as far as it knows.
    fn teller(&self, limits: &Limits) -> Teller {
        if let Some(mut teller) = self.idle().take() {
            teller.start_over();
            return teller;
        }
        Teller::new(limits, &self.request, self.plan.clone(), self.key.clone(), self.mode)
    }
}

impl History {
    /// Over what `source` keeps, and `recent` as far as that reaches back.
    pub fn new(source: Arc<dyn Source>, recent: Arc<Recent>, limits: Arc<Limits>) -> Self {
        History {
            source,
            recent,
            work: Turns::new(limits.replays),
            pages: Cache::new(limits.recent_bytes),
            told: Cache::new(limits.recent_bytes),
            limits,
        }
    }

    /// What `listener` is told of the entries after position `after`: some of them, and one at
    /// least unless there is none. It may begin with entries before (they are to be left out); it
    /// begins later where the log was trimmed. `None`: the catalog is not the plan's any more.
    ///
    /// # Errors
    /// Those of reading.
    pub async fn told(&self, listener: &Listener, after: u64) -> Result<Arc<Option<Told>>> {
        let mut start = after - after % PAGE;
        loop {
            let reaches = |last: u64, newest: bool| last > after || !newest;
            let good = |told: &Option<Told>| {
                told.as_ref().is_some_and(|told| {
                    // A fault may have been of its moment: whoever asks later has it told anew.
                    !told.faulty && reaches(told.last.position, told.newest)
                })
            };
            let key = (listener.like.clone(), start);
            // A page that is made already is had without a turn, and so is one that somebody else
            // makes meanwhile.
            let turn = || self.turn(listener.request.payer);
            let tell = async |_turn| self.tell(listener, start, after).await;
            let told = self.told.get(&key, good, turn, tell).await?;
            match &*told {
                // Cut for its size: the rest of the page is one of its own.
                Some(page) if page.last.position <= after && !page.newest => {
                    start = page.last.position;
                }
                _ => return Ok(told),
            }
        }
    }

    /// For whoever has a turn.
    async fn tell(
        &self,
        listener: &Listener,
        start: u64,
        after: u64,
    ) -> Result<(Option<Told>, usize)> {
        let page = self.page(listener, start, after).await?;
        if page.catalog.version != listener.plan.catalog.version {
            return Ok((None, 0));
        }
        let mut teller = listener.teller(&self.limits);
        let work = move || (tell(&page, start, start..u64::MAX, &mut teller), teller);
        let (told, teller) = working(work).await?;
        listener.rest(teller);
        let frames = told.commits.iter().flat_map(|(_, frames)| frames.iter().flatten());
        let bytes: usize = frames.map(|frame| 64 + frame.bytes.len()).sum();
        // A client's filter may be long, and the page that it tells of empty.
        Ok((Some(told), listener.like.plan.len() + bytes))
    }

    /// What `listener` is told of the entries after position `after` and up to `upto`, or of the
    /// first of them: of records whose primary key is at most `key`. For one alone: nothing but
    /// the entries is shared. `None`: the catalog is not the plan's any more.
    ///
    /// # Errors
    /// Those of reading.
    pub async fn told_below(
        &self,
        listener: &Listener,
        (after, upto): (u64, u64),
        key: Option<Key>,
    ) -> Result<Option<Told>> {
        let _turn = self.turn(listener.request.payer).await?;
        let mut start = after - after % PAGE;
        let page = loop {
            let page = self.page(listener, start, after).await?;
            match page.commits.last() {
                Some(last) if last.position <= after && !page.newest => start = last.position,
                _ => break page,
            }
        };
        if page.catalog.version != listener.plan.catalog.version {
            return Ok(None);
        }
        let mut teller = listener.teller(&self.limits);
        teller.up_to(key);
        let work = move || (tell(&page, start, after..upto, &mut teller), teller);
        let (told, teller) = working(work).await?;
        listener.rest(teller);
        Ok(Some(told))
    }

    /// The commits after position `start`, up to the next page; if they end with the newest, then
    /// after `after` where that is possible. For whoever has a turn.
    async fn page(&self, listener: &Listener, start: u64, after: u64) -> Result<Arc<Page>> {
        let limit = (PAGE - start % PAGE) as usize;
        let catalog = &listener.plan.catalog;
        let want = listener.want();
        if let Some(page) = self.recent_page(start, limit, catalog, listener) {
            return Ok(Arc::new(page));
        }
        let good = |page: &Page| {
            !page.newest || page.commits.last().is_some_and(|last| last.position > after)
        };
        let key = (catalog.version, listener.gather.clone(), start);
        let read = async |()| {
            let stretch = self.source.replay(start, limit, want).await?;
            let last = stretch.commits.last().map_or(start, |last| last.position);
            let bytes = stretch.commits.iter().map(|commit| commit.bytes()).sum();
            let page = Page {
                commits: stretch.commits,
                catalog: stretch.catalog,
                newest: last >= stretch.newest.position,
            };
            Ok((page, bytes))
        };
        self.pages.get(&key, good, async || Ok(()), read).await
    }

    /// A page of commits that are in memory still, if all are, with all that is needed.
    fn recent_page(
        &self,
        start: u64,
        limit: usize,
        catalog: &Arc<Catalog>,
        listener: &Listener,
    ) -> Option<Page> {
        let commits = self.recent.since_under(catalog.version, start, limit);
        let commits = commits.filter(|commits| !commits.is_empty())?;
        let (schema, paths) = (listener.plan.schema.id, &listener.plan.paths);
        let fits = commits.iter().all(|commit| {
            commit.related.gathers(schema, paths, listener.mode.transitions)
                && commit.changes.iter().all(|change| {
                    let now = catalog.get(change.schema);
                    now.is_some_and(|now| now.version == change.schema_version)
                })
        });
        let newest = commits.len() < limit;
        fits.then(|| Page { commits, catalog: catalog.clone(), newest })
    }

    /// A turn at the work that replays and snapshots share, for something of `payer`'s.
    ///
    /// # Errors
    /// 503 where the server stops.
    pub async fn turn(&self, payer: Payer) -> Result<Turn> {
        self.work.take(payer).await
    }

    /// Turns that are taken.
    pub fn at_work(&self) -> usize {
        self.work.taken()
    }
}

/// Runs `work` on a thread of its own.
async fn working<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(|| nice::by_turns(work)).await;
    done.map_err(|error| Error::internal(format!("telling a page of the log: {error}")))
}

/// Tells a page's commits whose positions follow `within.start` and are not beyond `within.end`.
fn tell(page: &Page, start: u64, within: Range<u64>, teller: &mut Teller) -> Told {
    let mut told = Told {
        after: page.commits.first().map_or(start, |first| first.position - 1),
        commits: Vec::new(),
        last: Mark { position: start, ..Mark::default() },
        newest: page.newest,
        faulty: false,
    };
    for commit in &page.commits {
        if commit.position > within.end {
            break;
        }
        told.last = mark(commit);
        if commit.position <= within.start {
            continue;
        }
        match teller.tell(commit) {
            Ok(frames) if frames.is_empty() => {}
            Ok(frames) => told.commits.push((told.last, Ok(frames))),
            Err((_, error)) => {
                told.faulty |= error.kind == Kind::Internal;
                told.commits.push((told.last, Err(error)));
            }
        }
    }
    told
}

/// Where a commit stands.
pub fn mark(commit: &Commit) -> Mark {
    Mark { position: commit.position, stamp: commit.stamp, time: commit.time }
}
