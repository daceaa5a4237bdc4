//! Commits → matching plans → bodies → frames → outboxes.
//!
//! The writer hands every commit to [`tail`]; one thread, the [`matcher`], takes them in log
//! order, asks the [`registry`] which plans a change may touch, evaluates each of those once per
//! record, and lets [`fanout`] make one body per projection, one frame per message and encoder,
//! and offer the same bytes to every [`outbox`]. Subscribing goes through the same queue as the
//! commits, so a subscription is active from one exact place in the log on.
//!
//! **Does not know:** dialects (it gets an [`Encode`]), sockets (it fills an outbox), SQL.

pub mod cache;
pub mod fanout;
pub mod frame;
mod gap;
pub mod history;
pub mod matcher;
pub mod message;
pub mod outbox;
pub mod recent;
pub mod refill;
pub mod registry;
pub mod regrant;
pub mod replay;
pub mod snapshot;
pub mod source;
pub mod subscription;
pub mod tail;
pub mod teller;
#[cfg(test)]
mod tests;
pub mod wanted;
pub mod way;

pub use message::{Encode, Event, Events, Message, Records};
pub use outbox::{Close, Frame, Outbox};
pub use source::Source;
pub use subscription::{Live, Principals, Request, Start, Stats, Subscription, Told};
pub use tail::{Tail, TailSink};
