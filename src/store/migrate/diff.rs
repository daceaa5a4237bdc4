//! Stored and wanted tables compared: steps, checks, and refusals of what would destroy data.

mod change;
mod index;
mod table;

use std::collections::HashMap;
use std::sync::Arc;

use super::ids::{Match, Numbered, ends, is_junction};
use super::{Check, How, Migration, Step, Stored, StoredSchema, stored};
use crate::filter::sql::quote;
use crate::model::catalog::Catalog;
use crate::model::file::SchemaDef;
use crate::model::link::Fault;
use crate::model::schema::{FieldId, Schema, SchemaId, SchemaKind};
use crate::store::ddl::{self, Wanted};

/// Everything found, in the order in which it is done: names are made free before they are taken,
/// tables stand before keys point to them, indexes come last.
#[derive(Default)]
struct Work {
    drop_indexes: Vec<Step>,
    drop_tables: Vec<Step>,
    rename_tables: Vec<(String, String)>,
    drop_columns: Vec<Step>,
    rename_columns: Vec<Step>,
    create_tables: Vec<Step>,
    add_columns: Vec<Step>,
    rewrites: Vec<Step>,
    create_indexes: Vec<Step>,
    checks: Vec<Check>,
    faults: Vec<Fault>,
    broken: Vec<SchemaId>,
    unreadable: Vec<SchemaId>,
    filled: Vec<FieldId>,
}

/// What a comparison looks at besides the two schemas.
struct Context<'a> {
    defs: &'a [SchemaDef],
    how: &'a How,
    catalog: &'a Catalog,
    stored: &'a Stored,
}

impl Step {
    fn new(what: String, sql: Vec<String>) -> Step {
        Step { what, sql }
    }
}

pub(super) fn diff(
    stored: &Stored,
    defs: &[SchemaDef],
    how: &How,
    numbered: Numbered,
) -> Result<Migration, Vec<Fault>> {
    let Numbered { schemas: mut matches, next_schema, next_field } = numbered;
    let mut puts = Vec::new();
    let mut served = Vec::new();
    for found in &mut matches {
        let text = found.def.map_or_else(|| "".into(), |def| defs[def].origin.text.clone());
        let pending = how.pending.get(&*found.new.name).cloned();
        if let Some(old) = &found.old {
            found.new.version = old.schema.version;
            let same = !old.retired
                && old.text == text
                && pending.is_none()
                && stored::layout(&old.schema) == stored::layout(&found.new);
            if same {
                served.push(old.schema.clone());
                continue;
            }
            found.new.version += 1;
        }
        let schema = Arc::new(found.new.clone());
        served.push(schema.clone());
        puts.push(StoredSchema { schema, text, retired: false, pending });
    }
    let catalog = Arc::new(Catalog::new(stored.catalog.version + 1, served));
    let context = Context { defs, how, catalog: &catalog, stored };
    let mut work = Work::default();
    for found in &matches {
        match &found.old {
            None => create(&context, &found.new, &mut work),
            Some(old) => table::compare(&context, found, old, &mut work),
        }
    }
    let mut removes = Vec::new();
    removed(&context, stored, &matches, &mut work, &mut puts, &mut removes);
    if !work.faults.is_empty() {
        return Err(work.faults);
    }
    let unreadable = std::mem::take(&mut work.unreadable);
    let filled = std::mem::take(&mut work.filled);
    let (steps, checks, mut broken) = work.finish();
    broken.sort_unstable();
    broken.dedup();
    Ok(Migration {
        catalog,
        steps,
        checks,
        broken,
        unreadable,
        filled,
        puts,
        removes,
        next_schema,
        next_field,
    })
}

fn create(context: &Context, schema: &Schema, work: &mut Work) {
    let sql = ddl::create_table(context.catalog, schema);
    work.create_tables.push(Step::new(format!("create table {}", schema.table), vec![sql]));
    for (name, index) in ddl::indexes(schema) {
        work.create_index(schema, &name, &index);
    }
}

impl Work {
    fn create_index(&mut self, schema: &Schema, name: &str, index: &Wanted) {
        let unique = if index.unique { "unique " } else { "" };
        let sql = ddl::create_index(schema, name, index);
        let columns = table::names(schema, index);
        let what = format!("create {unique}index on {}({columns})", schema.table);
        self.create_indexes.push(Step::new(what, vec![sql]));
    }

    fn drop_index(&mut self, table: &str, columns: &str, name: &str) {
        let what = format!("drop index on {table}({columns})");
        self.drop_indexes.push(Step::new(what, vec![format!("DROP INDEX {}", quote(name))]));
    }

    fn finish(self) -> (Vec<Step>, Vec<Check>, Vec<SchemaId>) {
        let rename =
            |from: &str, to: &str| format!("ALTER TABLE {} RENAME TO {}", quote(from), quote(to));
        let renames = two_phase(&self.rename_tables, rename)
            .into_iter()
            .map(|(what, sql)| Step::new(format!("rename table {what}"), sql));
        let mut steps = self.drop_indexes;
        steps.extend(self.drop_tables);
        steps.extend(renames);
        steps.extend(self.drop_columns);
        steps.extend(self.rename_columns);
        steps.extend(self.create_tables);
        steps.extend(self.add_columns);
        steps.extend(self.rewrites);
        steps.extend(self.create_indexes);
        (steps, self.checks, self.broken)
    }
}

/// Renames that may take each other's names (`a` → `b`, `b` → `a`, `A` → `a`): where that is so,
/// all go by a name of the system's own first.
fn two_phase(
    renames: &[(String, String)],
    sql: impl Fn(&str, &str) -> String,
) -> Vec<(String, Vec<String>)> {
    let lower = |name: &str| name.to_ascii_lowercase();
    let taken: Vec<String> = renames.iter().map(|(from, _)| lower(from)).collect();
    let direct = !renames.iter().any(|(_, to)| taken.contains(&lower(to)));
    let what = |from: &str, to: &str| format!("{from} to {to}");
    if direct {
        return renames.iter().map(|(f, t)| (what(f, t), vec![sql(f, t)])).collect();
    }
    let temporary = |at: usize| format!("{}t{at}", crate::model::file::OWN_PREFIX);
    let mut steps: Vec<(String, Vec<String>)> = renames
        .iter()
        .enumerate()
        .map(|(at, (from, to))| (what(from, to), vec![sql(from, &temporary(at))]))
        .collect();
    // The second half waits until every first half is done.
    if let Some((_, last)) = steps.last_mut() {
        last.extend(renames.iter().enumerate().map(|(at, (_, to))| sql(&temporary(at), to)));
    }
    steps
}

/// Stored schemas that nobody wants any more: they are kept, out of service. Only a junction whose
/// ends are served, but no longer by this relation, is dropped with its links, and only on purpose.
fn removed(
    context: &Context,
    stored: &Stored,
    matches: &[Match],
    work: &mut Work,
    puts: &mut Vec<StoredSchema>,
    removes: &mut Vec<SchemaId>,
) {
    let kept: HashMap<SchemaId, &Match> = matches
        .iter()
        .filter_map(|found| found.old.as_ref().map(|old| (old.schema.id, found)))
        .collect();
    let both_stay = |old: &StoredSchema| {
        is_junction(&old.schema)
            && ends(stored, old.schema.id).iter().all(|(id, _)| kept.contains_key(id))
    };
    let mut gone: Vec<&StoredSchema> = stored
        .schemas
        .values()
        .filter(|old| !kept.contains_key(&old.schema.id) && (!old.retired || both_stay(old)))
        .collect();
    gone.sort_by_key(|old| old.schema.id);
    for old in gone {
        if !old.retired {
            work.broken.push(old.schema.id);
            work.unreadable.push(old.schema.id);
        }
        if both_stay(old) {
            if drop_junction(context, stored, old, &kept, work) {
                removes.push(old.schema.id);
            }
            continue;
        }
        table::release(&old.schema, work);
        let pending = context.how.pending.get(&*old.schema.name).cloned();
        puts.push(StoredSchema { retired: true, pending, ..old.clone() });
    }
}

fn drop_junction(
    context: &Context,
    stored: &Stored,
    old: &StoredSchema,
    kept: &HashMap<SchemaId, &Match>,
    work: &mut Work,
) -> bool {
    let ends: Vec<(&SchemaDef, Arc<str>)> = ends(stored, old.schema.id)
        .into_iter()
        .filter_map(|(id, field)| Some((&context.defs[kept.get(&id)?.def?], field)))
        .collect();
    let purpose = ends.iter().any(|(def, field)| context.accepts(def, &[field]));
    if !purpose {
        let user = ends.iter().find(|(def, _)| def.kind == SchemaKind::User);
        let Some((def, field)) = user.or(ends.first()) else { return false };
        let message = format!(
            "removing relation '{field}' destroys its links (table '{}'); put the field back, {}",
            old.schema.table,
            on_purpose(def, field)
        );
        let schemas = ends.iter().map(|(def, _)| def.name.clone()).collect();
        let problem = def.problem("migrate.data_loss", "fields", field, message);
        work.faults.push(Fault { problem, schemas });
        return false;
    }
    let table = &old.schema.table;
    let sql = format!("DROP TABLE {}", quote(table));
    work.drop_tables.push(Step::new(format!("drop table {table}"), vec![sql]));
    true
}

impl Context<'_> {
    /// Whether data of the field, by any of its names, may be lost.
    fn accepts(&self, def: &SchemaDef, names: &[&str]) -> bool {
        self.how.accept_all
            || def.accept_data_loss.iter().any(|name| names.contains(&name.as_str()))
            || self
                .how
                .accept
                .iter()
                .any(|(schema, name)| **schema == *def.name && names.contains(&name.as_str()))
    }
}

/// The end of every refusal: how to do it all the same.
fn on_purpose(def: &SchemaDef, field: &str) -> String {
    match &def.origin.file {
        Some(file) => {
            format!("or do it on purpose: add \"accept_data_loss\": [\"{field}\"] to {file}")
        }
        None => format!(
            "or do it on purpose: send \"accept_data_loss\": [\"{field}\"] within the schema"
        ),
    }
}
