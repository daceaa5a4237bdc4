//! Nothing missed, ever: random writers, subscribers of every kind, and all that can happen to
//! them, against a real server.
//!
//! Clients that apply what they are told, commit by commit, hold at every quiet point exactly what
//! a list with the same filter shows to the same principal; whoever drops off and comes back with
//! a cursor hears what one who stayed hears: nothing lost, doubled or reordered. Meanwhile the
//! server is killed, rules and roles change, columns are added.
//!
//! The seed is printed. `ROWCAST_ORACLE_SEED` runs one world again (the choices are the seed's,
//! how threads meet is not); `ROWCAST_ORACLE_SECONDS` sets how long worlds are made.

mod ask;
mod checks;
mod client;
#[path = "../common/mod.rs"]
mod common;
mod misfortunes;
#[path = "../support/rng.rs"]
mod rng;
mod run;
mod subscriber;
mod wire;
mod world;
mod writers;

use std::time::{Duration, Instant};

#[test]
fn whoever_listens_holds_what_is_there() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let once = number("ROWCAST_ORACLE_SEED");
    let long = number("ROWCAST_ORACLE_SECONDS");
    // New worlds are for long runs, which somebody watches.
    let new = now.ok().filter(|_| long.is_some()).map(|now| now.as_secs());
    let first = once.or(new).unwrap_or(1);
    let time = Duration::from_secs(long.unwrap_or(8));
    let (began, mut counts) = (Instant::now(), run::Counts::default());
    for seed in first.. {
        println!("ROWCAST_ORACLE_SEED={seed}");
        let left = time.saturating_sub(began.elapsed());
        // A long run is many worlds: each has its own rules, bounds and questions.
        run::World::new(seed).run(left.min(Duration::from_secs(40)), &mut counts);
        println!("{:.0?} {counts:?}", began.elapsed());
        if began.elapsed() >= time || once.is_some() {
            break;
        }
    }
    // A test in which nothing happens would prove little.
    assert!(counts.commits > 10 && counts.views > 0 && counts.messages > 20, "{counts:?}");
}
