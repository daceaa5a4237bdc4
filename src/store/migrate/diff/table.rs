//! One table as it is and as it is wanted.

use std::collections::BTreeMap;

use super::{Context, Work, on_purpose, two_phase};
use crate::filter::sql::quote;
use crate::model::file::SchemaDef;
use crate::model::link::Fault;
use crate::model::schema::{Column, Default, Schema, SchemaKind, Slot};
use crate::store::ddl::{self, Wanted};
use crate::store::migrate::column::{Conversion, conversion, replacement, words};
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

fn is_key(schema: &Schema, slot: Slot) -> bool {
    schema.columns[slot].key_of.is_some() || (schema.kind == SchemaKind::Junction && slot > 0)
}

fn names(schema: &Schema, index: &Wanted) -> String {
    let names: Vec<&str> = index
        .columns
        .iter()
        .filter_map(|id| schema.columns.iter().find(|column| column.id == *id))
        .map(|column| &*column.name)
        .collect();
    names.join(", ")
}

/// Makes a column anew and moves its values: SQLite cannot change one in place.
fn rewrite(
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

struct Table<'a> {
    context: &'a Context<'a>,
    old: &'a Schema,
    new: &'a Schema,
    def: Option<&'a SchemaDef>,
    /// Whether the schema comes back into service.
    back: bool,
    /// For each new column, the old one its values come from.
    columns: &'a [Option<Slot>],
    /// Old columns whose indexes cannot stay.
    touched: Vec<Slot>,
    work: &'a mut Work,
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
    }

    fn fault(&mut self, code: &str, slot: Option<Slot>, key: &str, message: String) -> Fault {
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

    fn refuse(&mut self, code: &str, slot: Slot, key: &str, message: String) {
        let fault = self.fault(code, Some(slot), key, message);
        self.work.faults.push(fault);
    }

    /// Refuses if `count` finds anything in the table as it is.
    fn check(&mut self, code: &str, slot: Slot, key: &str, count: String, message: String) {
        let fault = self.fault(code, Some(slot), key, message);
        self.work.checks.push(Check { sql: count, fault });
    }

    /// The names a new column goes by in its file: its own, or its relation's and its own.
    fn declared(&self, slot: Slot) -> Vec<&str> {
        names_of(self.new, slot)
    }

    fn accepts(&self, names: &[&str]) -> bool {
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

    fn on_purpose(&self, name: &str) -> String {
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
            sql.push(format!("UPDATE {} SET {} = :now", quote(table), quote(name)));
        }
        self.work.add_columns.push(Step::new(format!("add column {table}.{name}"), sql));
    }

    fn change(&mut self, was: Slot, slot: Slot) {
        let (before, after) = (&self.old.columns[was], &self.new.columns[slot]);
        let conversion = conversion(before, after);
        if slot == self.new.primary {
            if conversion != Conversion::Same {
                let message = format!(
                    "the primary key '{}' cannot change from {} to {}: records are known by it; \
                     make a new schema",
                    after.name,
                    show(before),
                    show(after)
                );
                self.refuse("migrate.primary_key", slot, "type", message);
            }
            return;
        }
        let names = names_of(self.new, slot);
        let accepted = self.accepts(&names) || self.accepts(&names_of(self.old, was));
        self.narrowed(was, slot, &conversion, accepted);
        let gone: Vec<&str> = if before.ty == after.ty {
            before.enums.iter().filter(|w| !after.enums.contains(w)).map(|w| &**w).collect()
        } else {
            Vec::new()
        };
        if !gone.is_empty() {
            self.words_gone(was, slot, &gone, accepted);
        }
        if before.optional && !after.optional {
            self.required(was, slot, accepted);
        }
        if after.unique && !before.unique {
            self.unique(was, slot);
        }
        let key = is_key(self.new, slot);
        let not_null = |schema, slot| ddl::is_not_null(schema, slot);
        let replacement = replacement(after).unwrap_or_else(|| "NULL".to_owned());
        if conversion.moves(before, after)
            || not_null(self.old, was) != not_null(self.new, slot)
            || (key && self.back)
        {
            self.touched.push(was);
            if key && self.back {
                self.dangling(was, slot);
            }
            let to = ddl::points_to(self.context.catalog, self.new, slot);
            let null = if after.optional { "NULL" } else { &replacement };
            let expression = conversion.expression(null, &replacement);
            let what = format!("rewrite column {}.{}", self.new.table, after.name);
            let sql = rewrite(self.new, slot, to, &expression);
            self.work.rewrites.push(Step::new(what, sql));
        } else if let Some(lost) = conversion.lost_where().filter(|_| accepted) {
            self.replace(slot, &lost, &replacement);
        }
        if !gone.is_empty() && accepted {
            let lost = format!("{{c}} IN ({})", words(gone.iter().copied()));
            self.replace(slot, &lost, &replacement);
        }
    }

    /// Sets a replacement in the rows where the condition holds.
    fn replace(&mut self, slot: Slot, lost: &str, replacement: &str) {
        let (table, name) = (&self.new.table, &self.new.columns[slot].name);
        let lost = lost.replace("{c}", &quote(name));
        let sql =
            format!("UPDATE {} SET {} = {replacement} WHERE {lost}", quote(table), quote(name));
        self.work.rewrites.push(Step::new(format!("replace in {table}.{name}"), vec![sql]));
    }

    /// A `SELECT` that counts rows of the old table.
    fn count(&self, was: Slot, condition: &str) -> String {
        let name = quote(&self.old.columns[was].name);
        let condition = condition.replace("{c}", &name);
        format!("SELECT count(*) FROM {} WHERE {condition}", quote(&self.old.table))
    }

    fn narrowed(&mut self, was: Slot, slot: Slot, conversion: &Conversion, accepted: bool) {
        let Some(lost) = conversion.lost_where() else { return };
        if is_key(self.new, slot) {
            // Its type is that of the primary key it points to, where the change is refused.
            return;
        }
        let (before, after) = (&self.old.columns[was], &self.new.columns[slot]);
        let name = self.declared(slot)[0].to_owned();
        let key = if before.ty == after.ty { "size" } else { "type" };
        if !accepted {
            let what = if *conversion == Conversion::Lost {
                "destroys every value it holds"
            } else {
                "destroys values that do not fit"
            };
            let message = format!(
                "changing '{name}' from {} to {} {what}; keep the type, {}",
                show(before),
                show(after),
                self.on_purpose(&name)
            );
            self.refuse("migrate.data_loss", slot, key, message);
        } else if replacement(after).is_none() {
            let message = format!(
                "{{n}} record(s) hold values of '{name}' that do not fit, and nothing can stand in \
                 their place; give it a \"default\" or make it \"optional\""
            );
            let count = self.count(was, &lost);
            self.check("migrate.data_loss", slot, key, count, message);
        }
    }

    fn words_gone(&mut self, was: Slot, slot: Slot, gone: &[&str], accepted: bool) {
        let after = &self.new.columns[slot];
        let name = after.name.to_string();
        if accepted && replacement(after).is_some() {
            return;
        }
        let how = if accepted {
            "give it a \"default\" or make it \"optional\"".to_owned()
        } else {
            format!("change these records first, {}", self.on_purpose(&name))
        };
        let message = format!(
            "{{n}} record(s) hold {} in '{name}', which the enum no longer has; {how}",
            crate::model::file::list(gone)
        );
        let condition = format!("{{c}} IN ({})", words(gone.iter().copied()));
        let count = self.count(was, &condition);
        self.check("migrate.data_loss", slot, "enums", count, message);
    }

    fn required(&mut self, was: Slot, slot: Slot, accepted: bool) {
        let after = &self.new.columns[slot];
        let name = self.declared(slot)[0].to_owned();
        if accepted && after.default.is_some() {
            return;
        }
        let how = if after.key_of.is_some() {
            "give it to them first".to_owned()
        } else if accepted {
            "give it a \"default\", which they then get".to_owned()
        } else {
            format!(
                "give it to them first, {} with a \"default\", which they then get",
                self.on_purpose(&name)
            )
        };
        let message = format!("'{name}' cannot be required: {{n}} record(s) have none; {how}");
        let count = self.count(was, "{c} IS NULL");
        self.check("migrate.nulls", slot, "optional", count, message);
    }

    fn unique(&mut self, was: Slot, slot: Slot) {
        let name = self.declared(slot)[0].to_owned();
        let column = quote(&self.old.columns[was].name);
        let table = quote(&self.old.table);
        let message = format!(
            "'{name}' cannot be unique: {{n}} value(s) stand in more than one record; change or \
             delete these records first"
        );
        let count = format!(
            "SELECT count(*) FROM (SELECT 1 FROM {table} WHERE {column} IS NOT NULL GROUP BY \
             {column} HAVING count(*) > 1)"
        );
        self.check("migrate.duplicates", slot, "unique", count, message);
    }

    /// Records that were deleted while this schema was out of service leave keys to nothing.
    fn dangling(&mut self, was: Slot, slot: Slot) {
        let to = ddl::points_to(self.context.catalog, self.new, slot);
        let Some((table, key)) = to else { return };
        let column = &self.new.columns[slot];
        let lost = format!(
            "{{c}} IS NOT NULL AND {{c}} NOT IN (SELECT {} FROM {})",
            quote(&key),
            quote(&table)
        );
        if self.new.kind == SchemaKind::Junction {
            let (own, name) = (quote(&self.new.table), quote(&column.name));
            let sql = format!("DELETE FROM {own} WHERE {}", lost.replace("{c}", &name));
            let what = format!("unlink what is gone in {}.{}", self.new.table, column.name);
            self.work.rewrites.push(Step::new(what, vec![sql]));
        } else if column.optional {
            self.replace(slot, &lost, "NULL");
        } else {
            let name = self.declared(slot)[0].to_owned();
            let message = format!(
                "{{n}} record(s) kept from before point by '{name}' to records that are gone; make \
                 it \"optional\" to bring the schema back"
            );
            // The target's table may be renamed in this very migration; its rows are asked before.
            let relation = column.key_of.map(|at| self.new.relations[at].target);
            let target = relation.and_then(|id| self.context.catalog.get(id));
            if target.is_some_and(|target| *target.table == *table) {
                let count = self.count(was, &lost);
                self.check("migrate.required", slot, "optional", count, message);
            }
        }
    }

    fn indexes(&mut self) {
        let (old, new) = (self.old, self.new);
        let before = ddl::indexes(old);
        let standing = if self.back { BTreeMap::new() } else { before.clone() };
        let after = ddl::indexes(new);
        let touched: Vec<_> = self.touched.iter().map(|slot| old.columns[*slot].id).collect();
        let stays = |name: &String, index: &Wanted| {
            standing.get(name) == Some(index)
                && after.get(name) == Some(index)
                && !index.columns.iter().any(|id| touched.contains(id))
        };
        for (name, index) in &standing {
            if !stays(name, index) {
                self.work.drop_index(&old.table, &names(old, index), name);
            }
        }
        for (name, index) in &after {
            if !stays(name, index) {
                self.work.create_index(new, name, index);
            }
        }
        for index in &new.indexes {
            let wanted = after.get(&*index.name);
            if index.unique && new.kind == SchemaKind::User && before.get(&*index.name) != wanted {
                self.unique_index(&index.name, &index.columns);
            }
        }
    }

    fn unique_index(&mut self, name: &str, columns: &[Slot]) {
        let mut groups = Vec::new();
        for slot in columns {
            let column = &self.new.columns[*slot];
            match self.columns[*slot] {
                Some(was) => groups.push(quote(&self.old.columns[was].name)),
                // A new column without a default is null everywhere: nothing is double.
                None if column.optional && column.default.is_none() => return,
                None => {}
            }
        }
        let table = quote(&self.old.table);
        let count = if groups.is_empty() {
            format!("SELECT max(count(*) - 1, 0) FROM {table}")
        } else {
            let present: Vec<String> = groups.iter().map(|c| format!("{c} IS NOT NULL")).collect();
            format!(
                "SELECT count(*) FROM (SELECT 1 FROM {table} WHERE {} GROUP BY {} HAVING count(*) \
                 > 1)",
                present.join(" AND "),
                groups.join(", ")
            )
        };
        let message = format!(
            "index '{name}' cannot be unique: {{n}} value(s) stand in more than one record; change \
             or delete these records first"
        );
        let path = self.def.and_then(|def| def.indexes.iter().find(|index| *index.name == *name));
        let path = path.map(|index| format!("{}.unique", index.path)).unwrap_or_default();
        let fault = self.fault("migrate.duplicates", None, &path, message);
        self.work.checks.push(Check { sql: count, fault });
    }

    /// Whether sockets and cursors can go on: nothing that a reader knew is gone or changed.
    fn only_additions(&self) -> bool {
        let (old, new) = (self.old, self.new);
        let column = |was: &Column, now: &Column| {
            was.id == now.id
                && was.name == now.name
                && was.ty == now.ty
                && was.optional == now.optional
                && (now.unique || !was.unique)
                && was.enums.iter().all(|word| now.enums.contains(word))
                && conversion(was, now) == Conversion::Same
        };
        let columns = old.columns.iter().enumerate().all(|(slot, was)| {
            let now = self.columns.iter().position(|from| *from == Some(slot));
            now.is_some_and(|now| column(was, &new.columns[now]))
        });
        let relations = old.relations.iter().all(|was| {
            new.relations.iter().any(|now| {
                now.id == was.id
                    && now.name == was.name
                    && now.kind == was.kind
                    && now.target == was.target
                    && now.to_many() == was.to_many()
                    && now.optional == was.optional
            })
        });
        let indexes = {
            let after = ddl::indexes(new);
            // Moves between the column's own index and its key's are told by `unique` above.
            old.indexes
                .iter()
                .all(|index| new.kind == SchemaKind::Junction || after.contains_key(&*index.name))
        };
        old.name == new.name && old.table == new.table && columns && relations && indexes
    }
}

/// The names a column goes by in its file: its relation's first.
fn names_of(schema: &Schema, slot: Slot) -> Vec<&str> {
    let column = &schema.columns[slot];
    match column.key_of {
        Some(relation) => vec![&*schema.relations[relation].name, &*column.name],
        None => vec![&*column.name],
    }
}

/// A column's type as people write it.
fn show(column: &Column) -> String {
    match column.size {
        Some(size) => format!("{}({size})", column.ty.name()),
        None => column.ty.name().to_owned(),
    }
}
