//! The core commands over records: authorize → plan → run → answer.
//!
//! **Does not know:** wire formats, sockets. Answers are JSON bytes, ready to be put into a
//! dialect's envelope.

pub mod expr;
pub mod input;
pub mod read;

use std::sync::Arc;

use crate::limits::Limits;
use crate::store::Store;

pub use read::ListAsk;

/// The commands; cheap to clone.
#[derive(Clone)]
pub struct Content {
    pub store: Store,
    pub limits: Arc<Limits>,
}

impl Content {
    /// Commands over the records of `store`.
    pub fn new(store: Store, limits: Arc<Limits>) -> Self {
        Content { store, limits }
    }
}
