//! Cursors: clients that leave and come back miss nothing and hear nothing twice.
//!
//! Everything through the public face: a real server, raw sockets.

mod common;

#[path = "resume/client.rs"]
mod client;
#[path = "resume/far.rs"]
mod far;
#[path = "resume/refused.rs"]
mod refused;
#[path = "resume/related.rs"]
mod related;
#[path = "resume/storm.rs"]
mod storm;
#[path = "resume/waiting.rs"]
mod waiting;
