//! All schemas at one point of the log. Immutable; a migration makes the next one.

use std::collections::HashMap;
use std::sync::Arc;

use super::schema::{Schema, SchemaId};

#[derive(Debug, Default)]
pub struct Catalog {
    /// Counts migrations, from 0 (nothing but nothing).
    pub version: u64,
    by_id: HashMap<SchemaId, Arc<Schema>>,
    by_name: HashMap<Arc<str>, Arc<Schema>>,
}

impl Catalog {
    /// `schemas` holds the served, system and junction schemas; names are unique.
    pub fn new(version: u64, schemas: Vec<Arc<Schema>>) -> Self {
        Catalog {
            version,
            by_name: schemas.iter().map(|s| (s.name.clone(), s.clone())).collect(),
            by_id: schemas.into_iter().map(|s| (s.id, s)).collect(),
        }
    }

    /// A schema by id, junctions included.
    pub fn get(&self, id: SchemaId) -> Option<&Arc<Schema>> {
        self.by_id.get(&id)
    }

    /// A schema by name, junctions included.
    pub fn named(&self, name: &str) -> Option<&Arc<Schema>> {
        self.by_name.get(name)
    }

    /// In no order.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Schema>> {
        self.by_id.values()
    }
}
