//! Commits → matching plans → bodies → frames → outboxes.
//!
//! The writer hands every commit to [`tail`]; one thread, the [`matcher`], takes them in log
//! order, asks the [`registry`] which plans a change may touch, evaluates each of those once per
//! record, and lets [`fanout`] make one body per projection, one frame per message and encoder,
//! and offer the same bytes to every [`outbox`]. Subscribing goes through the same queue as the
//! commits, so a subscription is active from one exact place in the log on.
//!
//! Who listens to the same plan is grouped by how it is told ([`registry::Mode`]): with transitions
//! or without, with the names of changed fields, with cursors. What only some want is done only
//! where they are: the state before an update is evaluated for plans with transitions, and the
//! records that read a changed one are looked for if such a plan reads through relations. A
//! [`teller`] does the same for one listener away from the stream: what lies before it is told by
//! the same code.
//!
//! **Does not know:** dialects (it gets an [`Encode`]), sockets (it fills an outbox), SQL.

pub mod cache;
pub mod fanout;
pub mod frame;
mod gap;
mod helm;
pub mod history;
pub mod index;
pub mod ledger;
pub mod matcher;
pub mod message;
pub mod outbox;
mod positions;
pub mod recent;
pub mod refill;
pub mod registry;
pub mod regrant;
pub mod replay;
mod round;
pub mod snapshot;
pub mod source;
pub mod subscription;
mod sweep;
mod table;
pub mod tail;
pub mod teller;
#[cfg(test)]
mod tests;
pub mod turns;
pub mod wanted;
pub mod way;

pub use ledger::Payer;
pub use message::{Encode, Event, Events, Message, Records};
pub use outbox::{Close, Frame, Outbox};
pub use registry::payers::Spender;
pub use source::Source;
pub use subscription::{Live, Principals, Request, Start, Stats, Subscription, Told};
pub use tail::{Tail, TailSink};
