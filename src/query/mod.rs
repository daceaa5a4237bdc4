//! What was asked, checked against schema and grant: one plan for lists and for the stream.
//!
//! **Does not know:** wire formats, sockets, SQL. Lists and the stream compile through the same
//! [`Plan::compile`], so they cannot disagree about what a principal may see.

pub mod body;
mod changed;
pub mod cost;
mod fingerprint;
mod key;
pub mod plan;
pub mod plans;
mod reads;
mod select;
mod shape;
pub mod sight;
mod sort;

pub use body::Body;
pub use plan::{Plan, parse_key};
pub use plans::Plans;

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::error::{Error, clip};
use crate::model::json;

/// A request as it came, before it meets a schema. Dialects make these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ask {
    pub schema: String,
    /// Parsed JSON; `untyped` tells whether scalars are typed (JSON) or text (brackets in a query
    /// string), which are read by the field's type.
    pub filter: Option<serde_json::Value>,
    pub untyped: bool,
    /// `name,category,tags.name`; left out or empty: the full record.
    pub select: Option<String>,
    /// `name,-views`.
    pub sort: Option<String>,
    /// `status,views`: own fields; an update is told only when one of them changed. Streams only.
    pub watch: Option<String>,
}

impl Ask {
    /// About how many bytes it takes.
    pub(crate) fn memory(&self) -> usize {
        let texts = [&self.select, &self.sort, &self.watch];
        let texts: usize = texts.into_iter().flatten().map(String::capacity).sum();
        let filter = self.filter.as_ref().map_or(0, json::memory);
        size_of::<Ask>() + self.schema.capacity() + texts + filter
    }
}

/// An [`Ask`] that many may share; whoever changes it makes it their own.
#[derive(Clone, Debug, Default)]
pub struct Question(Arc<Ask>);

impl From<Ask> for Question {
    fn from(ask: Ask) -> Self {
        Question(Arc::new(ask))
    }
}

impl Deref for Question {
    type Target = Ask;

    fn deref(&self) -> &Ask {
        &self.0
    }
}

impl DerefMut for Question {
    fn deref_mut(&mut self) -> &mut Ask {
        Arc::make_mut(&mut self.0)
    }
}

/// The one answer for names that are not there and names that may not be read.
fn unknown(part: &str, name: &str) -> Error {
    Error::bad(format!("invalid {part}: unknown field '{}'", clip(name)))
}

#[cfg(test)]
mod tests;
