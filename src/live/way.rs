//! A subscription on its way to the live stream: what replays and snapshots have in common.
//!
//! It lives in a task of its own, feeds the outbox at the client's pace and holds nothing
//! meanwhile: no read, no page, no turn. Access holds for it as for the live stream: it looks
//! before every piece of work, and every half second while it waits.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::auth::principal::Principal;
use crate::error::{Error, Kind, Result};
use crate::limits::Limits;
use crate::model::catalog::Catalog;
use crate::model::cursor::Cursor;
use crate::model::related::{Key, Paths};
use crate::model::schema::{Schema, SchemaId};
use crate::query::{Plan, Plans};
use crate::store::Mark;

use super::history::{History, Listener};
use super::outbox::{Close, Feed, Frame, Outbox, size};
use super::recent::Recent;
use super::registry::Mode;
use super::regrant;
use super::source::Source;
use super::subscription::{Attach, Command, Joined, Principals, Request, Start, SubId};
use super::tail::Queue;
use super::turns::Turns;
use super::wanted::{Hold, Wanted};

/// How often access is looked at while a client is waited for.
const TICK: Duration = Duration::from_millis(500);

/// What all subscriptions on their way share.
pub(super) struct Core {
    pub(super) queue: Arc<Queue>,
    pub(super) source: Arc<dyn Source>,
    pub(super) principals: Arc<dyn Principals>,
    pub(super) plans: Arc<Plans>,
    pub(super) wanted: Arc<Wanted>,
    pub(super) recent: Arc<Recent>,
    pub(super) history: History,
    pub(super) limits: Arc<Limits>,
    /// How everybody ends, once that is so.
    pub(super) closing: watch::Sender<Option<Close>>,
    /// Held while a cursor is looked up: readers are few.
    looking: Turns,
    /// On their way.
    line: Arc<AtomicUsize>,
}

impl Core {
    pub(super) fn new(
        queue: Arc<Queue>,
        source: Arc<dyn Source>,
        principals: Arc<dyn Principals>,
        plans: Arc<Plans>,
        wanted: Arc<Wanted>,
        recent: Arc<Recent>,
        limits: Arc<Limits>,
    ) -> Arc<Core> {
        Arc::new(Core {
            history: History::new(source.clone(), recent.clone(), limits.clone()),
            queue,
            source,
            principals,
            plans,
            wanted,
            recent,
            closing: watch::channel(None).0,
            looking: Turns::new(limits.readers),
            line: Arc::default(),
            limits,
        })
    }

    /// How many are on their way.
    pub(super) fn on_the_way(&self) -> usize {
        self.line.load(Ordering::Relaxed)
    }

    fn enter_line(&self) -> Result<InLine> {
        let most = self.limits.replays.saturating_add(self.limits.replays_waiting);
        let enter = |count| (count < most).then_some(count + 1);
        match self.line.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enter) {
            Ok(_) => Ok(InLine(self.line.clone())),
            Err(_) => Err(Error::new(
                Kind::Limited { retry_after: 5 },
                "too many are resuming: try again later",
            )),
        }
    }
}

/// A place in the line of those on their way.
struct InLine(Arc<AtomicUsize>);

impl Drop for InLine {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A subscription that is not live yet.
pub(super) struct Way {
    pub(super) core: Arc<Core>,
    pub(super) request: Request,
    pub(super) plan: Arc<Plan>,
    /// The one record it is for.
    pub(super) key: Option<Key>,
    pub(super) outbox: Arc<Outbox>,
    id: SubId,
    hold: Option<Arc<Hold>>,
    gate: Arc<Gate>,
    /// Whom the log was last told for.
    heard: Option<Arc<Listener>>,
    _line: InLine,
}

/// Between a client that leaves and its subscription that joins the live stream: whoever comes
/// second finds the other's mark, or the other's command in the queue before its own.
#[derive(Default)]
pub(super) struct Gate(Mutex<bool>);

impl Gate {
    /// Nobody joins from now on.
    pub(super) fn shut(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

/// How a replay ended, if not by an error.
pub(super) enum Replayed {
    /// The subscription has joined the live stream, or its outbox has ended.
    Over,
    /// A commit under way cannot be told: it concerns too much (410), or is a fault of ours. So
    /// would it end a live subscription.
    Untellable(Error),
}

/// What became of what was to be fed.
pub(super) enum Fed {
    Taken,
    /// So many frames of so many bytes do not fit (see [`Way::room`]).
    Full(usize, usize),
    /// The outbox has ended.
    Ended,
}

/// Where a way begins.
pub(super) enum Begin {
    /// Behind an entry that the client knows.
    After(Mark),
    /// With all that matches.
    Snapshot,
}

impl Way {
    /// Takes a place in the line. `hold` keeps what the plan reads wanted, and settled.
    pub(super) fn new(core: Arc<Core>, new: New) -> Result<Way> {
        let New { id, request, plan, key, hold, outbox } = new;
        let line = core.enter_line()?;
        let gate = Arc::default();
        Ok(Way { core, request, plan, key, outbox, id, hold, gate, heard: None, _line: line })
    }

    /// Goes on in a task of its own.
    pub(super) fn start(self, begin: Begin) -> (JoinHandle<()>, Arc<Gate>) {
        let gate = self.gate.clone();
        (tokio::spawn(self.run(begin)), gate)
    }

    async fn run(mut self, begin: Begin) {
        let core = self.core.clone();
        let mut closing = core.closing.subscribe();
        let ended = tokio::select! {
            biased;
            close = closing.wait_for(Option::is_some) => close.ok().and_then(|close| close.clone()),
            went = self.go(begin) => went.err().map(|error| self.request.encoder.close(&error)),
        };
        if let Some(close) = ended {
            self.outbox.close(close);
        }
    }

    async fn go(&mut self, mut begin: Begin) -> Result<()> {
        loop {
            let (after, resumed) = match begin {
                Begin::After(mark) => (mark, true),
                Begin::Snapshot => match self.snapshot().await? {
                    Some(mark) => (mark, false),
                    None => return Ok(()),
                },
            };
            match self.replay(after).await? {
                Replayed::Over => return Ok(()),
                // It would be no other the next time; the records that match now are.
                Replayed::Untellable(error) if error.kind == Kind::Gone && self.snapshots() => {
                    begin = Begin::Snapshot;
                }
                // Nor may a fault be: whoever came back with the same cursor would meet it for
                // ever. One that comes behind a snapshot is told.
                Replayed::Untellable(error) if resumed && self.snapshots() => {
                    let (schema, position) = (&self.plan.schema.name, after.position);
                    tracing::warn!(
                        %schema,
                        "a resume after {position} starts over with a snapshot: {error}"
                    );
                    begin = Begin::Snapshot;
                }
                Replayed::Untellable(error) => return Err(error),
            }
        }
    }

    /// Whether the client takes a snapshot where it cannot go on.
    fn snapshots(&self) -> bool {
        matches!(self.request.start, Start::Snapshot { .. })
    }

    /// Looks whether the client may still hear what comes after `position`. Where the catalog or
    /// the principal changed, the plan is compiled anew; `true` if so.
    ///
    /// # Errors
    /// 401 where the principal has ended, 403 and 404 where nothing is left to be read, 410 where
    /// the plan reads or shows something else now.
    pub(super) async fn check(&mut self, position: u64) -> Result<bool> {
        let was = &self.request.principal;
        let now = regrant::present(&*self.core.principals, was).ok_or_else(regrant::ended)?;
        if now.expires.is_some_and(|expires| expires <= clock()) {
            return Err(Error::unauthorized("the token has expired"));
        }
        let catalog = self.core.source.catalog();
        if Arc::ptr_eq(&now, was) && catalog.version == self.plan.catalog.version {
            return Ok(false);
        }
        self.compile(catalog, now, position).await?;
        Ok(true)
    }

    async fn compile(
        &mut self,
        catalog: Arc<Catalog>,
        now: Arc<Principal>,
        position: u64,
    ) -> Result<()> {
        let old = self.plan.clone();
        if catalog.version != old.catalog.version {
            let schemas = schemas(&old.catalog, &old.schema, &old.paths);
            for id in &schemas {
                if let (Some(was), Some(now)) = (old.catalog.get(*id), catalog.get(*id))
                    && !same_names(was, now)
                {
                    return Err(regrant::migrated(&was.name));
                }
            }
            if let Some(schema) = self.place(position, schemas).await?.unreadable {
                let name = old.catalog.get(schema).map_or("", |schema| &schema.name);
                return Err(regrant::migrated(name));
            }
        }
        self.adopt(catalog, now).await.map_err(regrant::lost)?;
        if self.plan.grant != old.grant {
            return Err(regrant::regranted());
        }
        Ok(())
    }

    /// Compiles the plan anew, whatever it was.
    pub(super) async fn adopt(&mut self, catalog: Arc<Catalog>, who: Arc<Principal>) -> Result<()> {
        let core = self.core.clone();
        let plan = core.plans.compile(&catalog, &who, &core.limits, &mut self.request.ask)?;
        let back = self.request.told.transitions;
        self.hold = core.wanted.settle(plan.schema.id, &plan.paths, back).await?;
        self.request.principal = who;
        self.plan = plan;
        Ok(())
    }

    pub(super) async fn place(
        &self,
        position: u64,
        schemas: Vec<SchemaId>,
    ) -> Result<super::source::Place> {
        let _turn = self.core.looking.take(self.request.payer).await?;
        self.core.source.place(position, schemas).await
    }

    /// Whom the log is told for; with cursors or (between the pages of a snapshot) without.
    pub(super) fn listener(&mut self, cursors: bool) -> Arc<Listener> {
        if let Some(known) = &self.heard
            && known.is(&self.plan, cursors)
        {
            return known.clone();
        }
        let mut mode = Mode::of(&self.request, &self.plan);
        if !cursors {
            mode.cursors = None;
        }
        let made = Arc::new(Listener::new(&self.request, &self.plan, &self.key, mode));
        self.heard.insert(made).clone()
    }

    /// Waits until so many frames of so many bytes have room in the outbox (or it has ended), and
    /// looks after access meanwhile. `position`: see [`Way::check`].
    pub(super) async fn room(&mut self, frames: usize, bytes: usize, position: u64) -> Result<()> {
        let outbox = self.outbox.clone();
        while tokio::time::timeout(TICK, outbox.room(frames, bytes)).await.is_err() {
            // Its working memory is as large as a message: none of a client that is slow.
            self.heard = None;
            self.check(position).await?;
        }
        Ok(())
    }

    /// Feeds what belongs together, if there is room. Whoever waits for that lets go of it first.
    pub(super) fn feed(&self, position: u64, frames: &[Frame]) -> Fed {
        match self.outbox.feed(position, frames) {
            Feed::Taken => Fed::Taken,
            Feed::Ended => Fed::Ended,
            Feed::Full => Fed::Full(frames.len(), size(frames)),
        }
    }

    /// Tells the client a fresh cursor, if nothing else waits for it.
    pub(super) fn tell_position(&self, at: Mark) {
        let cursor = self.cursor(at);
        let bytes = self.request.encoder.position(&cursor.to_string());
        self.outbox.offer_idle(&Frame::new(bytes, Some(cursor)));
    }

    /// All up to here has been told, whoever takes it.
    pub(super) fn passed(&self, at: Mark) {
        self.outbox.set_passed(self.cursor(at));
    }

    fn cursor(&self, at: Mark) -> Cursor {
        let Mark { position, stamp, .. } = at;
        Cursor { position, stamp, grant: self.plan.grant }
    }

    /// Joins the live stream behind `at`. `false` where that is too far on.
    pub(super) async fn join(&mut self, at: Mark) -> Result<bool> {
        let (answer, joined) = oneshot::channel();
        let attach = Attach {
            id: self.id,
            request: self.request.clone(),
            plan: self.plan.clone(),
            key: self.key.clone(),
            hold: self.hold.clone(),
            outbox: self.outbox.clone(),
            told: Some(at),
            answer,
        };
        {
            let gone = self.gate.0.lock().unwrap_or_else(PoisonError::into_inner);
            if *gone {
                return Ok(true);
            }
            if !self.core.queue.command(Command::Attach(Box::new(attach))) {
                return Err(stopping());
            }
        }
        let joined = joined.await.map_err(|_| stopping())??;
        Ok(joined != Joined::Behind)
    }
}

/// A subscription, checked and compiled.
pub(super) struct New {
    pub(super) id: SubId,
    pub(super) request: Request,
    pub(super) plan: Arc<Plan>,
    pub(super) key: Option<Key>,
    pub(super) hold: Option<Arc<Hold>>,
    pub(super) outbox: Arc<Outbox>,
}

impl Drop for Way {
    fn drop(&mut self) {
        // A panic is this subscription's own; its client must not wait for ever.
        if std::thread::panicking() {
            let error = Error::internal("a replay panicked");
            self.outbox.close(self.request.encoder.close(&error));
        }
    }
}

/// The schemas whose entries a plan reads.
pub(super) fn schemas(catalog: &Catalog, schema: &Schema, paths: &Paths) -> Vec<SchemaId> {
    let mut found = vec![schema.id];
    for (name, deeper) in &paths.0 {
        let relation = schema.relation(name).map(|at| &schema.relations[at]);
        if let Some(target) = relation.and_then(|relation| catalog.get(relation.target)) {
            for id in schemas(catalog, target, deeper) {
                if !found.contains(&id) {
                    found.push(id);
                }
            }
        }
    }
    found
}

/// Whether all that `was` shows is shown under the same names still.
fn same_names(was: &Schema, now: &Schema) -> bool {
    let column = |slot: usize| {
        let was = &was.columns[slot];
        now.columns.iter().any(|now| now.id == was.id && now.name == was.name)
    };
    let relations = || was.relations.iter().all(|was| now.relation(&was.name).is_some());
    was.name == now.name && (0..was.columns.len()).all(column) && relations()
}

/// Seconds since 1970.
fn clock() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    i64::try_from(now).unwrap_or(i64::MAX)
}

pub(super) fn stopping() -> Error {
    Error::new(Kind::Unavailable, "the server is shutting down")
}
