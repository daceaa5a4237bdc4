//! One measurement: so many plans of one family.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::limits::Limits;
use crate::live::fanout::Fanout;
use crate::live::registry::Registry;
use crate::model::change::Commit;

use super::stage::{Chance, Family, Stage};

/// At most so many changes are told.
const MAX_CHANGES: usize = 100_000;
/// At least so many, however long it takes.
const MIN_CHANGES: usize = 10;
/// Untimed ones first, of no more than a fifth of the time.
const WARM_CHANGES: usize = 1_000;
/// So many changes are held against every plan.
const CHECKED_CHANGES: usize = 5;

/// What was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cell {
    pub family: String,
    pub plans: usize,
    /// Changes told.
    pub changes: usize,
    /// Plans that matched, a change.
    pub matches: f64,
    /// From a commit to every outbox: which plans, the exact check, body and frame encoded, offered.
    pub change: Times,
    /// A subscription added to a registry that has its plan compiled.
    pub insert: Times,
    /// A subscription taken out, in an order by chance.
    pub remove: Times,
    /// A plan compiled, microseconds.
    pub compile_us: f64,
    /// What the process grew by, for each plan and the one subscription to it; without outbox and
    /// connection. Where the system tells.
    pub bytes_per_plan: Option<u64>,
    /// Changes whose plans were not those that match, of those that were checked against all.
    pub wrong: usize,
}

/// Microseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Times {
    pub mean_us: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// What one in ten thousand takes longer than.
    pub p9999_us: f64,
    pub max_us: f64,
}

impl Times {
    fn of(mut nanos: Vec<u64>) -> Times {
        nanos.sort_unstable();
        let us = |nanos: u64| nanos as f64 / 1e3;
        let at = |part: f64| {
            let place = (nanos.len() as f64 * part) as usize;
            nanos.get(place.min(nanos.len().saturating_sub(1))).map_or(0.0, |nanos| us(*nanos))
        };
        let mean_us = us(nanos.iter().sum()) / nanos.len().max(1) as f64;
        let (p50_us, p99_us, p9999_us) = (at(0.5), at(0.99), at(0.9999));
        Times { mean_us, p50_us, p99_us, p9999_us, max_us: at(1.0) }
    }
}

/// Measures; each part takes about `time`. `tick` hears what is done.
///
/// # Errors
/// A plan that does not compile.
pub fn measure(family: Family, plans: usize, time: Duration, tick: &dyn Fn(&str)) -> Result<Cell> {
    let mut stage = Stage::new()?;
    let mut registry = Registry::default();
    let mut compiling = Duration::ZERO;
    // Written to, so that what is noted down is no part of what is measured.
    let mut insert = vec![u64::MAX; plans];
    let before = resident();
    tick("adding");
    for (n, nanos) in insert.iter_mut().enumerate() {
        let start = Instant::now();
        let (ask, plan) = stage.plan(family, n)?;
        compiling += start.elapsed();
        let listener = stage.listener(ask, plan);
        *nanos = timed(|| registry.attach(n as u64, listener));
    }
    let grown = resident().zip(before).map(|(after, before)| after.saturating_sub(before));

    tick("telling");
    let mut chance = Chance::new(plans as u64);
    let mut fanout = Fanout::new(&Limits::default()).metered();
    let mut told = Told { registry: &registry, fanout: &mut fanout, stage: &mut stage };
    told.many(plans, WARM_CHANGES, time / 5, &mut chance);
    let (change, matched) = told.many(plans, MAX_CHANGES, time, &mut chance);
    tick("checking");
    let wrong = (0..CHECKED_CHANGES).filter(|_| !told.is_right(plans, &mut chance)).count();

    tick("removing");
    let mut order: Vec<u64> = (0..plans as u64).collect();
    let mut remove = Vec::with_capacity(plans);
    let start = Instant::now();
    while !order.is_empty() && start.elapsed() < time {
        let id = order.swap_remove(chance.below(order.len()));
        remove.push(timed(|| drop(registry.detach(id))));
    }
    Ok(Cell {
        family: family.name().to_owned(),
        plans,
        changes: change.len(),
        matches: matched as f64 / change.len().max(1) as f64,
        change: Times::of(change),
        insert: Times::of(insert),
        remove: Times::of(remove),
        compile_us: compiling.as_secs_f64() * 1e6 / plans.max(1) as f64,
        bytes_per_plan: grown.map(|bytes| bytes / plans.max(1) as u64),
        wrong,
    })
}

fn timed(run: impl FnOnce()) -> u64 {
    let start = Instant::now();
    run();
    start.elapsed().as_nanos() as u64
}

struct Told<'a> {
    registry: &'a Registry,
    fanout: &'a mut Fanout,
    stage: &'a mut Stage,
}

impl Told<'_> {
    /// How long it took, and how many heard of it.
    fn one(&mut self, commit: &Commit) -> (u64, usize) {
        let mut failed = Vec::new();
        let nanos = timed(|| failed = self.fanout.tell(self.registry, commit));
        (nanos, if failed.is_empty() { self.stage.outbox.take_all().len() } else { usize::MAX })
    }

    fn many(
        &mut self,
        plans: usize,
        most: usize,
        time: Duration,
        chance: &mut Chance,
    ) -> (Vec<u64>, usize) {
        let (mut nanos, mut heard) = (Vec::new(), 0_usize);
        let start = Instant::now();
        while nanos.len() < MIN_CHANGES || (nanos.len() < most && start.elapsed() < time) {
            let commit = self.stage.commit(plans, chance);
            let (took, told) = self.one(&commit);
            nanos.push(took);
            heard = heard.saturating_add(told);
        }
        (nanos, heard)
    }

    /// Whether a change is told to as many as match when every plan is asked.
    fn is_right(&mut self, plans: usize, chance: &mut Chance) -> bool {
        let commit = self.stage.commit(plans, chance);
        let rows = commit.changes.iter().filter_map(|change| change.after.as_deref());
        let matching = |row| {
            let plans = self.registry.plans();
            plans.filter(|entry| entry.plan().matches(row, &commit.related.after)).count()
        };
        let matches = rows.map(matching).sum::<usize>();
        self.one(&commit).1 == matches
    }
}

/// Bytes of this process in memory.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_is_told_to_those_who_match() {
        for family in [Family::Equality, Family::Ranges, Family::Mixed, Family::Substrings] {
            let cell = measure(family, 60, Duration::ZERO, &|_| ()).expect("measured");
            assert_eq!((cell.plans, cell.changes, cell.wrong), (60, MIN_CHANGES, 0), "{family:?}");
            assert!(cell.matches > 0.0, "{family:?}");
        }
    }

    #[test]
    fn times_are_told_by_rank() {
        let times = Times::of((1..=1000).rev().map(|n| n * 1000).collect());
        assert_eq!((times.p50_us, times.p99_us, times.max_us), (501.0, 991.0, 1000.0));
        assert_eq!((times.mean_us, times.p9999_us), (500.5, 1000.0));
        let many = Times::of((0..100_000).map(|n| n * 1000).collect());
        assert_eq!((many.p9999_us, many.max_us), (99_990.0, 99_999.0));
        assert_eq!(Times::of(Vec::new()).max_us, 0.0);
    }
}
