//! One column of one table as it is and as it is wanted: what becomes of its values.

use super::table::{Table, is_key, names_of, rewrite};
use crate::filter::sql::quote;
use crate::model::schema::{Column, SchemaKind, Slot};
use crate::store::migrate::Step;
use crate::store::migrate::column::{Conversion, conversion, replacement, words};
use crate::store::{ddl, given};

impl Table<'_> {
    pub fn change(&mut self, was: Slot, slot: Slot) {
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
        let gone = |key: &str, table: &str| {
            let (key, table) = (quote(key), quote(table));
            format!("{{c}} IS NOT NULL AND {{c}} NOT IN (SELECT {key} FROM {table})")
        };
        let lost = gone(&key, &table);
        if self.new.kind == SchemaKind::Junction {
            let (own, name) = (quote(&self.new.table), quote(&column.name));
            let sql = format!("DELETE FROM {own} WHERE {}", lost.replace("{c}", &name));
            let what = format!("unlink what is gone in {}.{}", self.new.table, column.name);
            self.work.rewrites.push(Step::new(what, vec![given::keep(self.new), sql]));
        } else if column.optional {
            self.replace(slot, &lost, "NULL");
        } else {
            let name = self.declared(slot)[0].to_owned();
            let message = format!(
                "{{n}} record(s) kept from before point by '{name}' to records that are gone; make \
                 it \"optional\" to bring the schema back"
            );
            // The rows are asked before the steps are taken, under the names of before.
            let target = column.key_of.map(|at| self.new.relations[at].target);
            let target = target.and_then(|id| self.context.stored.schemas.get(&id));
            if let Some(target) = target {
                let lost = gone(&target.schema.primary_column().name, &target.schema.table);
                let count = self.count(was, &lost);
                self.check("migrate.required", slot, "optional", count, message);
            }
        }
    }
}

/// A column's type as people write it.
fn show(column: &Column) -> String {
    match column.size {
        Some(size) => format!("{}({size})", column.ty.name()),
        None => column.ty.name().to_owned(),
    }
}
