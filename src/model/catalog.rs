//! All schemas at one point of the log. Immutable; a migration makes the next one.

use std::sync::Arc;

use super::map::IdMap;
use super::schema::{Schema, SchemaId, Shape};

#[derive(Debug, Default)]
pub struct Catalog {
    /// Counts migrations, from 0 (nothing but nothing).
    pub version: u64,
    by_id: IdMap<SchemaId, Arc<Schema>>,
    by_name: IdMap<Arc<str>, Arc<Schema>>,
    /// See [`Catalog::is_of_rights`].
    of_rights: Vec<SchemaId>,
}

impl Catalog {
    /// `schemas` holds the served, system and junction schemas; names are unique.
    pub fn new(version: u64, schemas: Vec<Arc<Schema>>) -> Self {
        let named = |name: &str| schemas.iter().find(|schema| &*schema.name == name);
        let (user, role) = (named("user"), named("role"));
        let roles = user.and_then(|user| Some(&user.relations[user.relation("roles")?]));
        let junction = roles.and_then(|roles| match roles.shape {
            Shape::Link { junction, .. } => Some(junction),
            _ => None,
        });
        let ids = [user.map(|user| user.id), role.map(|role| role.id), junction];
        Catalog {
            version,
            of_rights: ids.into_iter().flatten().collect(),
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

    /// Whether its records say who somebody is, or what somebody may do: users, roles, and which
    /// user has which.
    pub fn is_of_rights(&self, id: SchemaId) -> bool {
        self.of_rights.contains(&id)
    }

    /// In no order.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Schema>> {
        self.by_id.values()
    }
}
