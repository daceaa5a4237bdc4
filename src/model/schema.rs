//! A schema as the rest of the house sees it: resolved, with ids, slots and relations.
//!
//! How a file becomes a [`Schema`] is told in `model/file.rs` (parse, check one file),
//! `model/link.rs` (see all together) and `store/migrate.rs` (give ids, compare with what is
//! stored). The serde forms here are how the store keeps a schema that is applied, nothing a
//! client sees.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::value::{FieldType, Value};

/// Given when a schema is created, never reused, unchanged by a rename. The log speaks in these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SchemaId(pub u32);

/// Given when a field is created (unique over all schemas), never reused, unchanged by a rename.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FieldId(pub u32);

/// Index of a column in a [`Row`](super::change::Row) of this schema version.
pub type Slot = usize;

/// One schema at one version: a table, its columns and relations, who may.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Schema {
    /// Its id, whatever it is called.
    pub id: SchemaId,
    /// Counts the applied versions of this schema, from 1.
    pub version: u32,
    /// Its name in URLs; unique among what is served.
    pub name: Arc<str>,
    /// The table's name (`namespace` in the file).
    pub table: Arc<str>,
    /// The field that stands for a record where one text must do.
    pub label_field: Arc<str>,
    /// Own columns and foreign keys; a column's position is its slot.
    pub columns: Vec<Column>,
    /// In the order of the file, those that other schemas brought last.
    pub relations: Vec<Relation>,
    /// The primary key's column.
    pub primary: Slot,
    /// When the record was created, where that is kept.
    pub created_at: Option<Slot>,
    /// When it was last updated, where that is kept.
    pub updated_at: Option<Slot>,
    /// Declared indexes; those that columns need are the store's matter.
    pub indexes: Vec<Index>,
    /// Who may what.
    pub access: AccessRules,
    /// Where it comes from.
    pub kind: SchemaKind,
    /// The applied file, keys in the author's order: what `GET /api/schema` shows. `null` for
    /// junctions.
    #[serde(skip)]
    pub source: Arc<serde_json::Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SchemaKind {
    /// Comes from a file.
    User,
    /// `user` and `role`.
    System,
    /// A many-to-many table: an automatic `id` and two required keys. Never served by name.
    Junction,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Column {
    pub id: FieldId,
    /// The name in records and in the table; `<relation>_id` for a foreign key.
    pub name: Arc<str>,
    pub ty: FieldType,
    pub optional: bool,
    pub unique: bool,
    pub default: Option<Default>,
    pub sortable: bool,
    pub filterable: bool,
    /// Allowed words of an `enum`; empty otherwise.
    pub enums: Vec<Arc<str>>,
    /// Longest allowed value in characters (text) or bytes (`bytes`).
    pub size: Option<u64>,
    /// The server fills it in when absent: automatic ids (integer counter or UUID v7).
    pub automatic: bool,
    /// Set where this column is the key of a to-one relation: index into [`Schema::relations`].
    pub key_of: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Default {
    Value(Value),
    /// `NOW()`, computed once per commit.
    Now,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Relation {
    /// Where this schema holds the key, the same as its column's.
    pub id: FieldId,
    pub name: Arc<str>,
    pub kind: RelationKind,
    pub target: SchemaId,
    /// The field on the target that points back.
    pub back: Arc<str>,
    /// Whether the key may be null; true where another record or a junction holds the key.
    pub optional: bool,
    pub shape: Shape,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RelationKind {
    O2O,
    O2M,
    M2M,
}

/// Where the keys of a relation lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shape {
    /// To-one; this schema's column `slot` holds the target's primary key.
    Key { slot: Slot },
    /// To-one; the target's column `slot` holds our primary key (owner side of an o2o).
    BackKey { slot: Slot },
    /// To-many; the target's column `slot` holds our primary key (owner side of an o2m).
    Many { slot: Slot },
    /// To-many through a junction: its `own` column holds our key, its `other` the target's.
    Link { junction: SchemaId, own: Slot, other: Slot },
}

impl Relation {
    /// Whether it leads to any number of records.
    pub fn to_many(&self) -> bool {
        matches!(self.shape, Shape::Many { .. } | Shape::Link { .. })
    }

    /// Whether both ends are this one field of `schema` (a `spouse`, `friends`): what A's leads to
    /// leads back to A, so a write on one record is also one on the other.
    pub fn is_mutual(&self, schema: &Schema) -> bool {
        self.target == schema.id && self.back == self.name
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Index {
    pub name: Arc<str>,
    pub columns: Vec<Slot>,
    pub unique: bool,
}

/// Access rules as the file gives them, structure checked, filters not yet compiled.
/// Order is the file's: for writes the first rule that allows decides.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AccessRules {
    pub roles: Vec<RoleRules>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RoleRules {
    pub role: Arc<str>,
    pub read: Rule,
    pub create: Rule,
    pub update: Rule,
    pub delete: Rule,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub enum Rule {
    #[default]
    No,
    Yes,
    When(RuleBody),
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RuleBody {
    /// As written, placeholders included.
    pub filter: Option<serde_json::Value>,
    /// Names of columns and relations.
    pub fields: Option<Vec<Arc<str>>>,
    /// Field and value (or placeholder) as written; create and update only.
    pub set: Vec<(Arc<str>, serde_json::Value)>,
}

/// What a name in a request stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldRef {
    Column(Slot),
    /// Index into [`Schema::relations`].
    Relation(usize),
}

impl Schema {
    /// A column or relation by its name. `<relation>_id` finds the key column.
    pub fn field(&self, name: &str) -> Option<FieldRef> {
        self.column(name)
            .map(FieldRef::Column)
            .or_else(|| self.relation(name).map(FieldRef::Relation))
    }

    pub fn column(&self, name: &str) -> Option<Slot> {
        self.columns.iter().position(|column| &*column.name == name)
    }

    pub fn relation(&self, name: &str) -> Option<usize> {
        self.relations.iter().position(|relation| &*relation.name == name)
    }

    pub fn primary_column(&self) -> &Column {
        &self.columns[self.primary]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A schema of plain optional columns, the first being the primary key, for unit tests.
    pub(crate) fn schema(columns: &[(&str, &str)]) -> Schema {
        let columns = columns.iter().enumerate().map(|(slot, (name, ty))| Column {
            id: FieldId(slot as u32),
            name: (*name).into(),
            ty: FieldType::named(ty).expect("a type"),
            optional: slot > 0,
            unique: slot == 0,
            default: None,
            sortable: true,
            filterable: true,
            enums: Vec::new(),
            size: None,
            automatic: slot == 0,
            key_of: None,
        });
        Schema {
            id: SchemaId(1),
            version: 1,
            name: "test".into(),
            table: "tests".into(),
            label_field: "id".into(),
            columns: columns.collect(),
            relations: Vec::new(),
            primary: 0,
            created_at: None,
            updated_at: None,
            indexes: Vec::new(),
            access: AccessRules::default(),
            kind: SchemaKind::User,
            source: Arc::new(serde_json::Value::Null),
        }
    }
}
