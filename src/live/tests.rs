//! The stream from commit to frames, with commits made by hand.

mod bills;
mod bulk;
mod crowd;
mod cursors;
mod desk;
mod failed;
mod fair;
mod held;
mod lone;
mod once;
mod oracle;
mod refill;
mod regranted;
mod rounds;
mod shared;
mod told;
mod transitions;
mod wants;
pub(super) mod world;
