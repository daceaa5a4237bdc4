//! What a commit carries beside its changes, by brute force from whole tables.

use std::collections::{BTreeMap, BTreeSet};

use rowcast::filter::{Predicate, Truth};
use rowcast::model::catalog::Catalog;
use rowcast::model::change::{Change, Commit, Row};
use rowcast::model::related::{Key, Paths, Related, RelatedSet};
use rowcast::model::schema::{Relation, Schema, SchemaId, Shape};
use rowcast::model::value::Value;
use rowcast::store::{Query, Rows, Store};

/// Every row there is, by schema and primary key.
pub type Tables = BTreeMap<SchemaId, BTreeMap<Key, Vec<Value>>>;

pub fn tables(store: &Store) -> Tables {
    let read = store.read_blocking(|reader| {
        let mut tables = Tables::new();
        for schema in reader.catalog().all() {
            let rows = reader.select(&Query {
                schema: schema.clone(),
                filter: Predicate::Const(Truth::True),
                sort: Vec::new(),
                limit: None,
                offset: 0,
            })?;
            let key = |row: &Row| Key::of(row.get(schema.primary)).unwrap();
            let rows = rows.iter().map(|row| (key(row), row.values.to_vec())).collect();
            tables.insert(schema.id, rows);
        }
        Ok(tables)
    });
    read.unwrap()
}

pub fn paths(names: &[&str]) -> Paths {
    let mut paths = Paths::default();
    for name in names {
        let mut at = &mut paths;
        for part in name.split('.') {
            at = at.0.entry(part.into()).or_default();
        }
    }
    paths
}

/// A row by the names of its columns, as the layout of `like` has them.
pub fn shown(schema: &Schema, row: &[Value], like: &Schema) -> String {
    let cells = like.columns.iter().map(|column| {
        let slot = schema.columns.iter().position(|own| own.id == column.id).unwrap();
        format!("{}={:?}", column.name, row[slot])
    });
    cells.collect::<Vec<_>>().join(",")
}

/// The rows that `paths` reach from a row within a commit's related rows, as text; columns and
/// relations are those of `like`.
pub fn carried(
    (catalog, like): (&Catalog, &Catalog),
    schema: SchemaId,
    row: &Row,
    paths: &Paths,
    set: &RelatedSet,
) -> Vec<String> {
    let mut out = Vec::new();
    let schema = catalog.get(schema).unwrap();
    for (name, deeper) in &paths.0 {
        // A relation that came later.
        let Some(index) = schema.relation(name) else { continue };
        let relation = &schema.relations[index];
        let target = catalog.get(relation.target).unwrap();
        for row in set.related(schema, relation, row) {
            let known = like.get(target.id).expect("what is related was there");
            out.push(format!("{name}: {}", shown(target, &row.values, known)));
            let below = carried((catalog, like), target.id, row, deeper, set);
            out.extend(below.into_iter().map(|line| format!("{name}.{line}")));
        }
    }
    out
}

/// The records that a relation leads to from the record `from`.
fn step(tables: &Tables, schema: &Schema, relation: &Relation, from: &Key) -> BTreeSet<Key> {
    let all = |id: SchemaId| tables[&id].iter();
    let Some(row) = tables[&schema.id].get(from) else { return BTreeSet::new() };
    let points = |row: &[Value], slot: usize| Key::of(&row[slot]).as_ref() == Some(from);
    match relation.shape {
        Shape::Key { slot } => Key::of(&row[slot]).into_iter().collect(),
        Shape::BackKey { slot } | Shape::Many { slot } => all(relation.target)
            .filter(|(_, row)| points(row, slot))
            .map(|(key, _)| key.clone())
            .collect(),
        Shape::Link { junction, own, other } => all(junction)
            .filter(|(_, link)| points(link, own))
            .filter_map(|(_, link)| Key::of(&link[other]))
            .collect(),
    }
}

/// The same rows as [`carried`] gives, from the tables.
pub fn reached(
    tables: &Tables,
    catalog: &Catalog,
    schema: SchemaId,
    from: &Key,
    paths: &Paths,
) -> Vec<String> {
    let mut out = Vec::new();
    let schema = catalog.get(schema).unwrap();
    for (name, deeper) in &paths.0 {
        let Some(index) = schema.relation(name) else { continue };
        let relation = &schema.relations[index];
        let target = catalog.get(relation.target).unwrap();
        for key in step(tables, schema, relation, from) {
            out.push(format!("{name}: {}", shown(target, &tables[&target.id][&key], target)));
            let below = reached(tables, catalog, target.id, &key, deeper);
            out.extend(below.into_iter().map(|line| format!("{name}.{line}")));
        }
    }
    out
}

/// Two states of all rows, and what was changed between them.
pub struct Between<'a> {
    pub catalog: &'a Catalog,
    pub before: &'a Tables,
    pub after: &'a Tables,
    pub touched: BTreeSet<(SchemaId, Key)>,
}

pub fn touched(changes: &[Change]) -> BTreeSet<(SchemaId, Key)> {
    changes.iter().map(|change| (change.schema, Key::of(&change.key).unwrap())).collect()
}

impl Between<'_> {
    /// The records of `schema` that depend on what was touched through `relation`.
    pub fn dependants(
        &self,
        schema: &Schema,
        relation: &Relation,
        deeper: &Paths,
    ) -> BTreeSet<Key> {
        let target = self.catalog.get(relation.target).unwrap();
        let mut moved: BTreeSet<Key> = self
            .touched
            .iter()
            .filter(|(id, _)| *id == target.id)
            .map(|(_, key)| key.clone())
            .collect();
        for (name, deeper) in &deeper.0 {
            if let Some(index) = target.relation(name) {
                moved.extend(self.dependants(target, &target.relations[index], deeper));
            }
        }
        let concerned = |key: &&Key| {
            let sides = [self.before, self.after].map(|side| step(side, schema, relation, key));
            sides[0] != sides[1] || sides.iter().flatten().any(|key| moved.contains(key))
        };
        let untouched = |key: &&Key| !self.touched.contains(&(schema.id, (*key).clone()));
        self.after[&schema.id].keys().filter(untouched).filter(concerned).cloned().collect()
    }

    /// How many they are, there or at any relation on the way.
    fn widest(&self, schema: &Schema, relation: &Relation, deeper: &Paths) -> usize {
        let target = self.catalog.get(relation.target).unwrap();
        let between = deeper.0.iter().filter_map(|(name, deeper)| {
            let index = target.relation(name)?;
            Some(self.widest(target, &target.relations[index], deeper))
        });
        between.max().unwrap_or(0).max(self.dependants(schema, relation, deeper).len())
    }
}

/// Holds a live commit against the tables before and after it; more than `most` dependants through
/// one relation are too many. Gives how many it had, and of how many relations they were too many.
pub fn check(commit: &Commit, between: &Between<'_>, most: usize) -> (usize, usize) {
    let related = &commit.related;
    let catalog = between.catalog;
    assert!(related.incomplete.is_empty());
    let position = commit.position;
    let (mut listed, mut too_many) = (BTreeSet::new(), 0);
    for (schema, tree) in &related.gathered.dependants {
        let Some(schema) = catalog.get(*schema) else { continue };
        for (name, deeper) in &tree.0 {
            let Some(index) = schema.relation(name) else { continue };
            let relation = &schema.relations[index];
            let right = between.dependants(schema, relation, deeper);
            let told = related.dependants.by.get(&(schema.id, name.clone()));
            let few = between.widest(schema, relation, deeper) <= most;
            assert_eq!(few, told != Some(&None), "{position}: {}.{name} {right:?}", schema.name);
            let found: BTreeSet<Key> = match told {
                None => BTreeSet::new(),
                Some(None) => {
                    too_many += 1;
                    continue;
                }
                Some(Some(indexes)) => {
                    let changes = indexes.iter().map(|index| &related.dependants.changes[*index]);
                    changes.map(|change| Key::of(&change.key).unwrap()).collect()
                }
            };
            assert_eq!(found, right, "{position}: {}.{name}", schema.name);
            listed.extend(found.into_iter().map(|key| (schema.id, key)));
            // Nothing that is read differently is missing.
            let mut one = Paths::default();
            one.0.insert(name.clone(), deeper.clone());
            for key in between.after[&schema.id].keys() {
                let read = |side| reached(side, catalog, schema.id, key, &one);
                if between.before[&schema.id].contains_key(key)
                    && !between.touched.contains(&(schema.id, key.clone()))
                    && read(between.before) != read(between.after)
                {
                    assert!(right.contains(key), "{position}: {} {key:?} by {name}", schema.name);
                }
            }
        }
    }
    assert_eq!(listed, touched(&related.dependants.changes), "{position}: each once");
    assert_eq!(listed.len(), related.dependants.changes.len());
    for change in commit.changes.iter().chain(&related.dependants.changes) {
        let Some(paths) = related.gathered.paths.get(&change.schema) else { continue };
        let key = Key::of(&change.key).unwrap();
        let sides = [
            (&change.before, &related.before, between.before),
            (&change.after, &related.after, between.after),
        ];
        for (row, set, tables) in sides {
            let Some(row) = row else { continue };
            assert_eq!(row.values.to_vec(), tables[&change.schema][&key]);
            assert_eq!(
                carried((catalog, catalog), change.schema, row, paths, set),
                reached(tables, catalog, change.schema, &key, paths),
                "{position}: {key:?}"
            );
        }
    }
    (listed.len(), too_many)
}
