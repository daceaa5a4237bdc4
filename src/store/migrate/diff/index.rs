//! The indexes of one table, and whether all that changed in it are additions.

use std::collections::BTreeMap;
use std::mem::discriminant;

use super::table::{Table, names};
use crate::filter::sql::quote;
use crate::model::schema::{Column, SchemaKind, Slot};
use crate::store::ddl::{self, Wanted};
use crate::store::migrate::Check;
use crate::store::migrate::column::{Conversion, conversion};

impl Table<'_> {
    pub fn indexes(&mut self) {
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

    /// Whether sockets can go on: nothing that a reader knew is gone, changed or called otherwise.
    pub fn only_additions(&self) -> bool {
        let (old, new) = (self.old, self.new);
        let columns = old.columns.iter().enumerate().all(|(slot, was)| {
            let now = self.columns.iter().position(|from| *from == Some(slot));
            now.is_some_and(|now| was.name == new.columns[now].name)
        });
        let relations = old
            .relations
            .iter()
            .all(|was| new.relations.iter().any(|now| now.id == was.id && now.name == was.name));
        self.stays_readable()
            && old.name == new.name
            && old.table == new.table
            && columns
            && relations
    }

    /// Whether cursors can go on: the log's entries from before can be read through it, whatever
    /// is called otherwise now.
    pub fn stays_readable(&self) -> bool {
        let (old, new) = (self.old, self.new);
        let column = |was: &Column, now: &Column| {
            was.id == now.id
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
                    && now.kind == was.kind
                    && now.target == was.target
                    && discriminant(&now.shape) == discriminant(&was.shape)
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
        columns && relations && indexes
    }
}
