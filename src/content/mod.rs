//! The core commands over records: authorize → plan → run → answer.
//!
//! **Does not know:** wire formats, sockets. Answers are JSON bytes, ready to be put into a
//! dialect's envelope.

mod accounts;
pub mod bulk;
pub mod expr;
pub mod import;
pub mod input;
mod job;
mod kind;
pub mod read;
mod relations;
mod state;
mod terms;
pub mod write;

use std::sync::Arc;

use crate::auth::service::Auth;
use crate::limits::Limits;
use crate::store::Store;

pub use bulk::BulkAsk;
pub use import::{IMPORT_RECORDS, ImportAsk, Imported, OnConflict};
pub use read::ListAsk;

/// The commands; cheap to clone.
#[derive(Clone)]
pub struct Content {
    pub store: Store,
    pub limits: Arc<Limits>,
    /// Hashes passwords; without it none can be set.
    pub auth: Option<Arc<Auth>>,
    known: Arc<terms::Known>,
}

impl Content {
    /// Commands over the records of `store`.
    pub fn new(store: Store, limits: Arc<Limits>) -> Self {
        Content { store, limits, auth: None, known: Arc::default() }
    }

    /// The same, able to set passwords.
    pub fn with_auth(self, auth: Arc<Auth>) -> Self {
        Content { auth: Some(auth), ..self }
    }
}
