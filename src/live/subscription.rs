//! The room's door: subscribe, be counted, shut down.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::auth::directory::Directory;
use crate::auth::principal::Principal;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::model::cursor::Cursor;
use crate::model::related::Key;
use crate::model::schema::Schema;
use crate::query::{Ask, Plan, Plans, Question, parse_key};
use crate::store::Mark;

use super::helm::Helm;
use super::ledger::{Ledger, Payer, Share};
use super::matcher::Matcher;
use super::message::{Encode, Events};
use super::outbox::{Carrier, Close, Outbox};
use super::recent::Recent;
use super::registry::payers::Spender;
use super::source::Source;
use super::tail::Tail;
use super::wanted::{Hold, Wanted};
use super::way::{self, Begin, Core, Gate, New, Way};

/// Who a principal is at present; implemented by the directory of users and sessions.
pub trait Principals: Send + Sync {
    /// The principal as it is now: the same token, the user's present name and roles. `None` when
    /// its session, token or user has ended.
    fn current(&self, principal: &Principal) -> Option<Arc<Principal>>;
}

impl Principals for Directory {
    fn current(&self, principal: &Principal) -> Option<Arc<Principal>> {
        Directory::current(self, principal)
    }
}

/// How changes are told, beside what of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Told {
    /// Updates are told by what they did to the match, and changes of related records too.
    pub transitions: bool,
    /// Updates name the fields they changed.
    pub changes: bool,
}

/// Where a subscription begins. All but `Live` have cursors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With what commits after it is active; no cursors.
    #[default]
    Live,
    /// The same, with cursors.
    Now,
    /// With what was committed after a cursor.
    After(Cursor),
    /// With all records that match; where a cursor is given and good, as `After` it.
    Snapshot { since: Option<Cursor> },
}

/// What someone wants to hear.
#[derive(Clone)]
pub struct Request {
    pub ask: Question,
    /// [`Events::ALL`] where `told.transitions`.
    pub events: Events,
    pub told: Told,
    pub start: Start,
    /// One record only, its primary key as text. It need not exist yet.
    pub id: Option<String>,
    pub encoder: Arc<dyn Encode>,
    pub principal: Arc<Principal>,
    /// Whom its cost is counted for.
    pub payer: Payer,
    /// Whether `principal_cost` does not hold; nor does it, nor `plan_cost`, for admins.
    pub exempt: bool,
}

impl Request {
    /// All changes of what `ask` names, from now on, without cursors.
    pub fn new(ask: Ask, encoder: Arc<dyn Encode>, principal: Arc<Principal>) -> Self {
        Request {
            payer: Payer::of(principal.user, None),
            exempt: false,
            ask: ask.into(),
            events: Events::ALL,
            told: Told::default(),
            start: Start::Live,
            id: None,
            encoder,
            principal,
        }
    }
}

/// Outboxes that are looked at for the statistics before others have their turn: some 0.1 ms.
const LOOKS: usize = 1_024;

/// Names a subscription within this process.
pub type SubId = u64;

/// A subscription to be, checked and compiled, on its way to its place in the log.
pub(super) struct Attach {
    pub id: SubId,
    pub request: Request,
    pub plan: Arc<Plan>,
    /// The record it is for.
    pub key: Option<Key>,
    pub hold: Option<Arc<Hold>>,
    pub outbox: Arc<Outbox>,
    /// The outbox has got all up to here: a replay has told it. `None`: nothing was told yet, and
    /// nothing is before the place where it becomes active.
    pub told: Option<Mark>,
    pub answer: oneshot::Sender<Result<Joined>>,
}

/// What became of an [`Attach`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joined {
    /// Active: what commits after this is told as it comes. All before has been put into the
    /// outbox, and with cursors the position too, if nothing else waited there.
    Active(Mark),
    /// The live stream is further on than can be told at once, or by something that cannot be told
    /// here, and the subscription is not active: more is to be replayed from the log first.
    Behind,
}

pub(super) enum Command {
    Attach(Box<Attach>),
    /// And whether its plan is [little to file](is_little).
    Detach(SubId, bool),
    CloseAll(Close),
    Stats(oneshot::Sender<(Stats, Vec<Arc<Outbox>>)>),
    Stop,
}

impl Command {
    /// Whether it takes a few microseconds at most: it is done by whoever brings it, if nobody is
    /// at the helm. What a replay missed may be much to tell.
    pub(super) fn is_light(&self) -> bool {
        match self {
            Command::Attach(attach) => attach.told.is_none() && is_little(&attach.plan),
            Command::Detach(_, little) => *little,
            _ => false,
        }
    }
}

/// Whether a plan is filed, and taken out again, in some microseconds. Each value of an `$in` is
/// filed by itself, at some 0.3 us, and of a text every piece is held against those that are filed
/// already: 2,400 integers took 0.85 ms.
fn is_little(plan: &Plan) -> bool {
    const FILTER_BYTES: u32 = 1_024;
    plan.filter_bytes <= FILTER_BYTES
}

/// What an admin may know of the stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Stats {
    pub subscriptions: usize,
    pub plans: usize,
    /// Subscriptions by schema, names sorted.
    pub by_schema: Vec<(Arc<str>, usize)>,
    /// Plans that the index cannot file, by schema, names sorted, where there are any: each is
    /// checked against every change of the schema.
    pub scanned: Vec<(Arc<str>, usize)>,
    /// The fullest outbox: frames and bytes that wait.
    pub slowest_frames: usize,
    pub slowest_bytes: usize,
    /// Commits (and their bytes) that the matcher has not told yet.
    pub behind_commits: usize,
    pub behind_bytes: usize,
    /// Subscriptions that have not reached the live stream yet: replays and snapshots, at work or
    /// waiting.
    pub replays: usize,
    /// Those of them that are at work just now.
    pub replays_working: usize,
    /// For whom most of the matcher's time went, the first first; and what went to plans that many
    /// share. (Of the live stream; replays have turns.)
    #[serde(skip)]
    pub spenders: Vec<Spender>,
    pub shared: Duration,
}

/// The stream of changes: a thread that matches, and the door to it.
pub struct Live {
    pub(super) core: Arc<Core>,
    ledger: Arc<Ledger>,
    pub(super) helm: Arc<Helm>,
    next: AtomicU64,
    matcher: Mutex<Option<JoinHandle<()>>>,
}

impl Live {
    /// Starts matching what comes through `tail`. A panic of the matcher ends the process: nobody
    /// could be told the truth any more.
    pub fn start(
        tail: Tail,
        source: Arc<dyn Source>,
        principals: Arc<dyn Principals>,
        limits: Arc<Limits>,
    ) -> Result<Arc<Live>> {
        let queue = tail.0;
        let wanted = Wanted::new(source.clone());
        let plans = Arc::new(Plans::default());
        let failed = |error| Error::internal(format!("cannot start the matcher: {error}"));
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("matcher".into())
            .spawn({
                let (queue, source) = (queue.clone(), source.clone());
                let (wanted, limits) = (wanted.clone(), limits.clone());
                let (principals, plans) = (principals.clone(), plans.clone());
                move || match Matcher::new(queue, source, principals, plans, wanted, limits) {
                    Ok(matcher) => {
                        let recent = matcher.recent.clone();
                        let helm = Helm::new(matcher);
                        let _ = tell.send(Ok((recent, helm.clone())));
                        helm.run();
                    }
                    Err(error) => drop(tell.send(Err(error))),
                }
            })
            .map_err(|error| failed(error.to_string()))?;
        let (recent, helm) = told.recv().map_err(|_| failed("it panicked".into()))??;
        Ok(Arc::new(Live {
            core: Core::new(queue, source, principals, plans, wanted, recent, limits),
            ledger: Arc::default(),
            helm,
            next: AtomicU64::new(1),
            matcher: Mutex::new(Some(thread)),
        }))
    }

    /// From now on the live stream's writes to many sockets are made by this one, together.
    pub fn carry_with(&self, carrier: Box<dyn Carrier>) {
        self.helm.carry_with(carrier);
    }

    /// Subscribes: checks the request against the schema and what the principal may read, and
    /// returns once the subscription is active: what commits from then on is delivered to
    /// `outbox`. Where it begins earlier, it is active as soon as that is known to be possible;
    /// what comes before the live stream is put into the outbox at the client's pace.
    ///
    /// # Errors
    /// Those of [`Plan::compile`] and [`Plan::within`]; 400 for an `id` that is none of the schema's type; 401 if the
    /// principal has ended meanwhile; 410 for a cursor that is not good, with the oldest one that
    /// is as `detail`; 429 when too many are resuming, or the principal's subscriptions would cost
    /// too much together.
    pub async fn subscribe(
        &self,
        mut request: Request,
        outbox: Arc<Outbox>,
    ) -> Result<Subscription> {
        let core = &self.core;
        let catalog = core.source.catalog();
        let Request { principal, ask, .. } = &mut request;
        let plan = core.plans.compile(&catalog, principal, &core.limits, ask)?;
        let share = self.charge(&request, &plan)?;
        let key = request.id.as_deref().map(|id| record_key(&plan.schema, id)).transpose()?;
        let back = request.told.transitions;
        let hold = core.wanted.settle(plan.schema.id, &plan.paths, back).await?;
        let start = request.start;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let little = is_little(&plan);
        let new = New { id, request, plan, key, hold, outbox };
        let (cursor, snapshot) = match start {
            Start::Live | Start::Now => return self.attach(new, share).await,
            Start::After(cursor) => (Some(cursor), false),
            Start::Snapshot { since } => (since, true),
        };
        let mut way = Way::new(core.clone(), new)?;
        let begin = match cursor {
            Some(cursor) => way.after(cursor, snapshot).await?,
            None => Begin::Snapshot,
        };
        let (task, gate) = way.start(begin);
        let way = Some((task.abort_handle(), gate));
        Ok(Subscription { id, helm: self.helm.clone(), way, little, _share: share })
    }

    /// Counts what the subscription costs its principal. The states before a change are looked at
    /// too where transitions are told.
    fn charge(&self, request: &Request, plan: &Plan) -> Result<Share> {
        let limits = &self.core.limits;
        let admin = request.principal.admin;
        if !admin {
            plan.within(limits)?;
        }
        let states = 1 + u64::from(request.told.transitions);
        let cost = u64::from(plan.cost.max(1)) * states;
        let most = (!admin && !request.exempt).then_some(limits.principal_cost);
        self.ledger.charge(request.payer, cost, most)
    }

    async fn attach(&self, new: New, share: Share) -> Result<Subscription> {
        let New { id, request, plan, key, hold, outbox } = new;
        let little = is_little(&plan);
        let (answer, active) = oneshot::channel();
        let attach = Attach { id, request, plan, key, hold, outbox, told: None, answer };
        if !self.helm.command(Command::Attach(Box::new(attach))) {
            return Err(way::stopping());
        }
        // Made before waiting: if the client leaves meanwhile, the detach follows the attach.
        let helm = self.helm.clone();
        let subscription = Subscription { id, helm, way: None, little, _share: share };
        active.await.map_err(|_| way::stopping())??;
        Ok(subscription)
    }

    /// Ends every subscription after what waits for it, and takes no more.
    pub fn close_all(&self, close: Close) {
        self.core.queue.close(Command::CloseAll(close.clone()));
        self.core.closing.send_replace(Some(close));
    }

    /// What each principal's subscriptions cost.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// What was told last, for those who come back after a short while.
    pub fn recent(&self) -> &Arc<Recent> {
        &self.core.recent
    }

    /// Counts, for admins.
    pub async fn stats(&self) -> Stats {
        let (answer, stats) = oneshot::channel();
        self.core.queue.command(Command::Stats(answer));
        let (mut stats, outboxes) = stats.await.unwrap_or_default();
        for (at, some) in outboxes.chunks(LOOKS).enumerate() {
            if at > 0 {
                tokio::task::yield_now().await;
            }
            for (frames, bytes) in some.iter().map(|outbox| outbox.waiting()) {
                stats.slowest_frames = stats.slowest_frames.max(frames);
                stats.slowest_bytes = stats.slowest_bytes.max(bytes);
            }
        }
        let replays = self.core.on_the_way();
        // Counted apart: one of the two may have moved on between.
        let replays_working = self.core.history.at_work().min(replays);
        Stats { replays, replays_working, ..stats }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.core.queue.stop();
        let thread = self.matcher.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

/// An active subscription; ends when dropped.
pub struct Subscription {
    id: SubId,
    helm: Arc<Helm>,
    /// What it does before it is live.
    way: Option<(AbortHandle, Arc<Gate>)>,
    /// Whether its plan is taken out in a moment.
    little: bool,
    /// Its part of what its principal's may cost.
    _share: Share,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some((task, gate)) = &self.way {
            gate.shut();
            task.abort();
        }
        self.helm.command(Command::Detach(self.id, self.little));
    }
}

/// Reads `id` by the type of the schema's primary key.
fn record_key(schema: &Schema, id: &str) -> Result<Key> {
    let key = parse_key(schema, id)?;
    Key::of(&key).ok_or_else(|| Error::internal(format!("{} has a key that is none", schema.name)))
}
