//! Power cuts, full disks, foreign locks: what was acknowledged is there, nothing else was.

#[path = "crash/child.rs"]
mod child;
mod common;
#[path = "crash/disk.rs"]
mod disk;
#[path = "crash/hear.rs"]
mod hear;
#[path = "crash/kill.rs"]
mod kill;
#[path = "crash/served.rs"]
mod served;
#[path = "crash/storm.rs"]
mod storm;
#[path = "support/blog.rs"]
mod support;
#[path = "crash/wal.rs"]
mod wal;
#[path = "support/whole.rs"]
mod whole;
