//! What was asked, checked against schema and grant: one plan for lists and for the stream.

use std::sync::Arc;

use crate::auth::principal::Principal;
use crate::error::Result;
use crate::filter::Predicate;
use crate::limits::Limits;
use crate::model::catalog::Catalog;
use crate::model::change::Row;
use crate::model::related::{Paths, Related};
use crate::model::schema::{Schema, Slot};

/// A request as it came, before it meets a schema. Dialects make these.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    pub schema: String,
    /// Parsed JSON; `typed` tells whether scalars are typed (JSON) or text (brackets in a query
    /// string), which are read by the field's type.
    pub filter: Option<serde_json::Value>,
    pub untyped: bool,
    pub select: Option<String>,
    pub sort: Option<String>,
}

/// A compiled question: which records, and what of them. Shared by all who may see the same.
#[derive(Debug)]
pub struct Plan {
    pub schema: Arc<Schema>,
    /// Client's filter AND (one of the alternatives that count).
    pub filter: Predicate,
    pub sort: Vec<(Slot, bool)>,
    pub body: Arc<Body>,
    /// Relations that `filter` and `body` read.
    pub paths: Paths,
    /// Equal for plans that match and show the same; holds filter, grant, projection.
    pub key: Arc<[u8]>,
}

/// What is shown of a record: a projection cut by the grant, per record.
#[derive(Debug)]
pub struct Body {
    pub key: Arc<[u8]>,
}

impl Plan {
    /// Checks `ask` against the schema and what `principal` may read. Errors are those of
    /// SEMANTICS 8, 9 and 11: 404 no such schema (401 for guests), 401/403 no grant, 400 the rest.
    pub fn compile(
        catalog: &Catalog,
        principal: &Principal,
        limits: &Limits,
        ask: &Ask,
    ) -> Result<Plan> {
        let _ = (catalog, principal, limits, ask);
        todo!("helper R")
    }

    /// Whether filter and grant are TRUE for the row.
    pub fn matches(&self, row: &Row, related: &dyn Related) -> bool {
        let _ = (row, related);
        todo!("helper R")
    }
}

impl Body {
    /// Appends the record as a JSON object, cut to what may be seen of this very record.
    pub fn encode(&self, row: &Row, related: &dyn Related, out: &mut Vec<u8>) {
        let _ = (row, related, out);
        todo!("helper R")
    }
}
