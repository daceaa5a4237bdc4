//! What the writer is asked to gather, as subscriptions come and go.

use std::collections::HashMap;
use std::sync::Arc;

use super::world::*;
use crate::live::wanted::{Hold, Wanted};
use crate::model::related::{Paths, Want};
use crate::model::schema::SchemaId;

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// The relations in `set`, those of odd numbers with all names again behind them.
fn paths(set: usize) -> Paths {
    let names = NAMES.iter().enumerate().filter(|(at, _)| set & (1 << at) != 0);
    let deeper = |at: usize| if at % 2 == 1 { paths_below(set) } else { Paths::default() };
    Paths(names.map(|(at, name)| (Arc::from(*name), deeper(at))).collect())
}

fn paths_below(set: usize) -> Paths {
    let names = NAMES.iter().enumerate().filter(|(at, _)| set & (1 << at) != 0);
    Paths(names.map(|(_, name)| (Arc::from(*name), Paths::default())).collect())
}

type Open = (SchemaId, Paths, bool, Arc<Hold>);

/// What all of them need together.
fn naive(open: &[Open]) -> Want {
    let mut want = Want::default();
    let (mut all, mut back): (HashMap<_, Paths>, HashMap<_, Paths>) = Default::default();
    for (schema, paths, is_back, _) in open {
        all.entry(*schema).or_default().merge(paths);
        if *is_back {
            back.entry(*schema).or_default().merge(paths);
        }
    }
    (want.paths, want.dependants) = (all, back);
    want
}

#[tokio::test]
async fn the_writer_is_told_when_it_changes_and_only_then() {
    let ground = Arc::new(Ground::new(catalog(1, &files(""))));
    let wanted = Wanted::new(Arc::new(ground.clone()));
    let mut open: Vec<Open> = Vec::new();
    let mut state = 7_u64;
    let mut changes = 0;
    let mut last = Want::default();
    for step in 0..3_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(step | 1);
        let lot = (state >> 33) as usize;
        // More come than go, then more go than come.
        if lot % 5 < if step < 1_000 { 4 } else { 2 } || open.is_empty() {
            let (schema, back) = (SchemaId((lot / 5 % 2) as u32), lot / 10 % 2 == 1);
            let paths = paths(lot / 20 % 63 + 1);
            let all = naive(&open);
            let (hold, settled) = wanted.hold(schema, &paths, back).expect("something to hold");
            let covers = |some: &HashMap<SchemaId, Paths>| {
                some.get(&schema).is_some_and(|all| all.covers(&paths))
            };
            assert!(!settled || covers(&all.paths) && (!back || covers(&all.dependants)));
            open.push((schema, paths, back, hold));
        } else {
            open.swap_remove(lot / 5 % open.len());
        }
        let now = naive(&open);
        changes += usize::from(now != last);
        assert_eq!(wanted.want(), now);
        let told = {
            let wants = ground.wants.lock().unwrap();
            (wants.len(), wants.last().cloned().unwrap_or_default())
        };
        assert_eq!((told.0, &told.1), (changes, &now));
        last = now;
    }
    assert!(changes > 20, "{changes}");
    // What is settled is so for whoever needs no more, and only while somebody holds it.
    let (schema, need) = (SchemaId(9), paths(0b111));
    let first = wanted.settle(schema, &need, false).await.expect("settled").expect("a hold");
    assert!(wanted.hold(schema, &paths(0b101), false).expect("a hold").1);
    assert!(!wanted.hold(schema, &need, true).expect("a hold").1);
    let second = wanted.hold(schema, &need, false).expect("a hold");
    drop(first);
    assert!(second.1 && wanted.hold(schema, &need, false).expect("a hold").1);
    drop(second);
    assert!(!wanted.hold(schema, &need, false).expect("a hold").1);
}
