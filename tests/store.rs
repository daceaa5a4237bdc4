//! The store through its public face.

#[path = "store/bounds.rs"]
mod bounds;
#[path = "store/checkpoint.rs"]
mod checkpoint;
#[path = "store/dependants.rs"]
mod dependants;
#[path = "store/history.rs"]
mod history;
#[path = "store/ids.rs"]
mod ids;
#[path = "store/log.rs"]
mod log;
#[path = "store/long.rs"]
mod long;
#[path = "store/naive.rs"]
mod naive;
#[path = "store/page.rs"]
mod page;
#[path = "store/pen.rs"]
mod pen;
#[path = "store/related.rs"]
mod related;
#[path = "store/replay.rs"]
mod replay;
#[allow(dead_code)]
#[path = "support/rng.rs"]
mod rng;
#[path = "store/rows.rs"]
mod rows;
#[path = "store/short.rs"]
mod short;
#[path = "support/blog.rs"]
mod support;
#[path = "store/turns.rs"]
mod turns;
#[path = "store/writes.rs"]
mod writes;
