//! One table as it is and as it is wanted.

use super::{Context, Work, on_purpose, two_phase};
use crate::filter::sql::quote;
use crate::model::file::SchemaDef;
use crate::model::link::Fault;
use crate::model::schema::{Default, Schema, SchemaKind, Slot};
use crate::store::ddl::{self, Wanted};
use crate::store::migrate::ids::Match;
use crate::store::migrate::{Check, Step, StoredSchema};

/// Compares one matched schema with its table.
pub(super) fn compare(context: &Context, found: &Match, old: &StoredSchema, work: &mut Work) {
    let mut table = Table {
        context,
        old: &old.schema,
        new: &found.new,
        // Junctions have no definition; nothing about them can be refused.
        def: found.def.map(|at| &context.defs[at]),
        back: old.retired,
        columns: &found.columns,
        touched: Vec::new(),
        work,
    };
    table.all();
}

/// Takes the foreign keys off a table that is not served any more: its rows are kept, but must not
/// stand in the way of records they point to. Its indexes go too and come back with it.
pub(super) fn release(old: &Schema, work: &mut Work) {
    for (name, index) in ddl::indexes(old) {
        work.drop_index(&old.table, &names(old, &index), &name);
    }
    for slot in 0..old.columns.len() {
        if is_key(old, slot) {
            let name = &old.columns[slot].name;
            let sql = rewrite(old, slot, None, "{c}");
            work.rewrites.push(Step::new(format!("release key {}.{name}", old.table), sql));
        }
    }
}

pub(super) fn is_key(schema: &Schema, slot: Slot) -> bool {
    schema.columns[slot].key_of.is_some() || (schema.kind == SchemaKind::Junction && slot > 0)
}

pub(super) fn names(schema: &Schema, index: &Wanted) -> String {
    let names: Vec<&str> = index
        .columns
        .iter()
        .filter_map(|id| schema.columns.iter().find(|column| column.id == *id))
        .map(|column| &*column.name)
        .collect();
    names.join(", ")
}

/// Makes a column anew and moves its values: SQLite cannot change one in place.
pub(super) fn rewrite(
    schema: &Schema,
    slot: Slot,
    to: Option<(String, String)>,
    expression: &str,
) -> Vec<String> {
    let column = &schema.columns[slot];
    let (table, name) = (quote(&schema.table), quote(&column.name));
    let temporary = format!("{}c{}", crate::model::file::OWN_PREFIX, column.id.0);
    let value = expression.replace("{c}", &name);
    vec![
        ddl::add_column(schema, slot, &temporary, to),
        format!("UPDATE {table} SET {} = {value}", quote(&temporary)),
        format!("ALTER TABLE {table} DROP COLUMN {name}"),
        format!("ALTER TABLE {table} RENAME COLUMN {} TO {name}", quote(&temporary)),
    ]
}

pub(super) struct Table<'a> {
    pub context: &'a Context<'a>,
    pub old: &'a Schema,
    pub new: &'a Schema,
    pub def: Option<&'a SchemaDef>,
    /// Whether the schema comes back into service.
    pub back: bool,
    /// For each new column, the old one its values come from.
    pub columns: &'a [Option<Slot>],
    /// Old columns whose indexes cannot stay.
    pub touched: Vec<Slot>,
    pub work: &'a mut Work,
}

impl Table<'_> {
    fn all(&mut self) {
        let (old, new) = (self.old, self.new);
        if old.table != new.table {
            self.work.rename_tables.push((old.table.to_string(), new.table.to_string()));
        }
        if self.columns[new.primary] != Some(old.primary) {
            let (was, now) = (&old.primary_column().name, &new.primary_column().name);
            self.refuse(
                "migrate.primary_key",
                new.primary,
                "",
                format!(
                    "the primary key cannot change from '{was}' to '{now}': records are known by \
                     it; keep '{was}', or make a new schema"
                ),
            );
            return;
        }
        let mut renames = Vec::new();
        for slot in 0..old.columns.len() {
            if !self.columns.contains(&Some(slot)) {
                self.drop(slot);
            }
        }
        for slot in 0..new.columns.len() {
            match self.columns[slot] {
                Some(was) => {
                    let (from, to) = (&old.columns[was].name, &new.columns[slot].name);
                    if from != to {
                        renames.push((from.to_string(), to.to_string()));
                    }
                    self.change(was, slot);
                }
                None => self.add(slot),
            }
        }
        let table = &new.table;
        let rename = |from: &str, to: &str| {
            format!("ALTER TABLE {} RENAME COLUMN {} TO {}", quote(table), quote(from), quote(to))
        };
        for (what, sql) in two_phase(&renames, rename) {
            let what = format!("rename column {table}.{what}");
            self.work.rename_columns.push(Step::new(what, sql));
        }
        self.indexes();
        if !self.only_additions() {
            self.work.broken.push(old.id);
        }
        // What comes back into service was cleared of keys to records that are gone, unlogged.
        if self.back || !self.stays_readable() {
            self.work.unreadable.push(old.id);
        }
    }

    pub fn fault(&mut self, code: &str, slot: Option<Slot>, key: &str, message: String) -> Fault {
        let names = slot.map(|slot| self.declared(slot)).unwrap_or_default();
        let name = names.first().copied().unwrap_or_default();
        let Some(def) = self.def else {
            let problem = crate::error::Problem {
                code: code.to_owned(),
                file: None,
                line: None,
                path: String::new(),
                field: name.to_owned(),
                message,
            };
            return Fault { problem, schemas: Vec::new() };
        };
        let path = match def.field(name) {
            Some(field) if key.is_empty() => field.path.clone(),
            Some(field) => format!("{}.{key}", field.path),
            None => key.to_owned(),
        };
        Fault { problem: def.problem(code, &path, name, message), schemas: vec![def.name.clone()] }
    }

    pub fn refuse(&mut self, code: &str, slot: Slot, key: &str, message: String) {
        let fault = self.fault(code, Some(slot), key, message);
        self.work.faults.push(fault);
    }

    /// Refuses if `count` finds anything in the table as it is.
    pub fn check(&mut self, code: &str, slot: Slot, key: &str, count: String, message: String) {
        let fault = self.fault(code, Some(slot), key, message);
        self.work.checks.push(Check { sql: count, fault });
    }

    /// The names a new column goes by in its file: its own, or its relation's and its own.
    pub fn declared(&self, slot: Slot) -> Vec<&str> {
        names_of(self.new, slot)
    }

    pub fn accepts(&self, names: &[&str]) -> bool {
        self.def.is_none_or(|def| self.context.accepts(def, names))
    }

    /// Whether the other end of a relation may be lost: that is the same data.
    fn accepted_there(&self, slot: Slot) -> bool {
        let Some(relation) = self.old.columns[slot].key_of.map(|at| &self.old.relations[at]) else {
            return false;
        };
        let target = self.context.catalog.get(relation.target);
        let def = target.and_then(|t| self.context.defs.iter().find(|def| def.name == t.name));
        def.is_some_and(|def| self.context.accepts(def, &[&*relation.back]))
    }

    pub fn on_purpose(&self, name: &str) -> String {
        self.def.map(|def| on_purpose(def, name)).unwrap_or_default()
    }

    fn drop(&mut self, slot: Slot) {
        let old = self.old;
        self.touched.push(slot);
        let names = names_of(old, slot);
        let name = names[0];
        if !self.accepts(&names) && !self.accepted_there(slot) {
            let stays = self.def.is_some_and(|def| def.field(name).is_some());
            let message = if stays {
                format!(
                    "'{name}' is another kind of field now, and what it holds would be destroyed; \
                     give the new field another name, {}",
                    self.on_purpose(name)
                )
            } else {
                let rename = if self.def.is_some_and(|def| def.origin.file.is_some()) {
                    format!("rename it by PUT /api/schema/{} with rename_fields", self.new.name)
                } else {
                    "rename it with rename_fields".to_owned()
                };
                format!(
                    "removing '{name}' destroys what it holds; put it back, {rename}, {}",
                    self.on_purpose(name)
                )
            };
            let mut fault = self.fault("migrate.data_loss", None, "fields", message);
            fault.problem.field = name.to_owned();
            // The other file of a relation may be the one that took it away.
            if let Some(relation) = old.columns[slot].key_of.map(|at| &old.relations[at]) {
                fault.schemas.extend(
                    self.context.catalog.get(relation.target).map(|target| target.name.clone()),
                );
            }
            self.work.faults.push(fault);
        }
        let (table, column) = (&self.new.table, &old.columns[slot].name);
        let sql = format!("ALTER TABLE {} DROP COLUMN {}", quote(table), quote(column));
        self.work.drop_columns.push(Step::new(format!("drop column {table}.{column}"), vec![sql]));
    }

    fn add(&mut self, slot: Slot) {
        let (old, new) = (self.old, self.new);
        let column = &new.columns[slot];
        let (table, name) = (&new.table, &column.name);
        let stamp = Some(slot) == new.created_at || Some(slot) == new.updated_at;
        let filled = matches!(column.default, Some(Default::Now)) || stamp;
        let from = quote(&old.table);
        if !column.optional && column.default.is_none() && !stamp {
            let message = format!(
                "'{}' is required and has no default, but '{}' holds {{n}} record(s); give it a \
                 \"default\" or make it \"optional\"",
                self.declared(slot)[0],
                new.name
            );
            let count = format!("SELECT count(*) FROM {from}");
            self.check("migrate.required", slot, "", count, message);
        } else if column.unique && (filled || column.default.is_some()) {
            let message = format!(
                "'{name}' is unique, but its default would stand in {{n}} more record(s); make it \
                 \"optional\" without a default"
            );
            let count = format!("SELECT max(count(*) - 1, 0) FROM {from}");
            self.check("migrate.duplicates", slot, "unique", count, message);
        }
        let to = ddl::points_to(self.context.catalog, new, slot);
        let mut sql = vec![ddl::add_column(new, slot, name, to)];
        if filled {
            self.work.filled.push(column.id);
            sql.push(format!("UPDATE {} SET {} = :now", quote(table), quote(name)));
        }
        self.work.add_columns.push(Step::new(format!("add column {table}.{name}"), sql));
    }
}

/// The names a column goes by in its file: its relation's first.
pub(super) fn names_of(schema: &Schema, slot: Slot) -> Vec<&str> {
    let column = &schema.columns[slot];
    match column.key_of {
        Some(relation) => vec![&*schema.relations[relation].name, &*column.name],
        None => vec![&*column.name],
    }
}
