//! Principal × schema × action → grant: alternatives of filter and fields.

use crate::error::Problem;
use crate::filter::Predicate;
use crate::model::catalog::Catalog;
use crate::model::schema::{FieldRef, Schema};

use super::principal::Principal;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    Read,
    Create,
    Update,
    Delete,
}

/// What a principal may do; nothing where there is no alternative.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grant {
    /// In the file's order, one per role of the principal that has a rule.
    pub alternatives: Vec<Alternative>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Alternative {
    /// Reads unrestricted through relations, as rules do.
    pub filter: Predicate,
    pub fields: FieldSet,
    /// Field and value, already typed JSON with placeholders filled in: overrides the client's.
    pub set: Vec<(FieldRef, serde_json::Value)>,
}

/// Columns and relations by index. The primary key is always in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldSet {
    pub columns: Box<[bool]>,
    pub relations: Box<[bool]>,
}

/// Resolves what `principal` may do. `admin` gets everything; the system schemas' rules
/// (SEMANTICS 8, last point) are built in.
pub fn resolve(catalog: &Catalog, schema: &Schema, principal: &Principal, action: Action) -> Grant {
    let _ = (catalog, schema, principal, action);
    todo!("helper R")
}

/// Every problem in the access rules of `schema`, `access.*` paths filled in.
pub fn check(catalog: &Catalog, schema: &Schema) -> Vec<Problem> {
    let _ = (catalog, schema);
    todo!("helper R")
}
