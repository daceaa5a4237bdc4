//! From the schemas that are applied to the schemas that are wanted.
//!
//! [`plan`] compares both and gives a [`Migration`]: ids, steps, and checks that only the rows can
//! answer. `Migration::examine` asks the rows; [`Tx::migrate`] does it all in one transaction
//! with its log entry. Nothing here destroys data unless the definition or the call names what may
//! be destroyed.

mod column;
mod diff;
#[cfg(test)]
mod generated;
mod ids;
mod stored;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rusqlite::Connection;

use crate::error::{Error, Kind, Result};
use crate::model::catalog::Catalog;
use crate::model::change::Notice;
use crate::model::file::SchemaDef;
use crate::model::link::{Fault, Linked, link};
use crate::model::schema::{FieldId, SchemaId};

use super::tx::Tx;
use super::{given, readable};

pub(crate) use stored::create;
pub use stored::{Pending, Stored, StoredSchema};

/// What the definitions themselves do not say.
#[derive(Clone, Debug, Default)]
pub struct How {
    /// New name of a schema → the name it is applied under.
    pub schemas: HashMap<String, String>,
    pub fields: Vec<Rename>,
    /// Data of any field may be lost.
    pub accept_all: bool,
    /// Data of these fields may be lost: (schema, field). Definitions add theirs.
    pub accept: Vec<(String, String)>,
    /// Set on the schemas (by new name) whose files the caller is going to write or take away.
    pub pending: HashMap<String, Pending>,
}

/// A field that is to be called otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rename {
    /// The schema's new name.
    pub schema: String,
    pub from: String,
    pub to: String,
}

/// How to get from one catalog to the next.
#[derive(Debug)]
pub struct Migration {
    /// The catalog afterwards.
    pub catalog: Arc<Catalog>,
    pub steps: Vec<Step>,
    pub checks: Vec<Check>,
    /// Schemas whose subscriptions end: changed in more than by additions, or served no more.
    pub broken: Vec<SchemaId>,
    /// Schemas through which earlier entries of the log cannot be read any more: changed by more
    /// than additions and new names.
    pub unreadable: Vec<SchemaId>,
    /// New columns that hold the time of the migration in the rows from before.
    filled: Vec<FieldId>,
    puts: Vec<StoredSchema>,
    removes: Vec<SchemaId>,
    next_schema: u32,
    next_field: u32,
}

/// One change to the tables.
#[derive(Clone, Debug)]
pub struct Step {
    /// For people: `add column blogs.summary`.
    pub what: String,
    /// Statements; `:now` stands for the time of the write.
    sql: Vec<String>,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// Something that must not be in the rows as they are before the migration.
#[derive(Clone, Debug)]
pub struct Check {
    /// Counts what must not be.
    sql: String,
    /// Told where it is; `{n}` in the message stands for the count.
    fault: Fault,
}

/// What a fresh or opened store serves.
pub fn load(connection: &Connection) -> Result<Catalog> {
    let stored = stored::read(connection).map_err(broken)?;
    Arc::try_unwrap(stored.catalog).map_err(|_| Error::internal("the catalog is shared at open"))
}

/// All that the catalog knows.
pub(crate) fn stored(connection: &Connection) -> Result<Stored> {
    stored::read(connection).map_err(broken)
}

fn broken(error: rusqlite::Error) -> Error {
    Error::internal(format_args!("catalog: {error}"))
}

/// Compares what is stored with what is wanted, the system's schemas among it.
pub fn plan(stored: &Stored, defs: &[SchemaDef], how: &How) -> Result<Migration, Vec<Fault>> {
    let linked = link(defs)?;
    let numbered = ids::number(stored, defs, linked, how)?;
    diff::diff(stored, defs, how, numbered)
}

/// The catalog of definitions that no store holds: for `rowcast check` and for tests.
pub fn catalog_of(defs: &[SchemaDef]) -> Result<Catalog, Vec<Fault>> {
    let plan = plan(&Stored::default(), defs, &How::default())?;
    Ok(Arc::try_unwrap(plan.catalog).unwrap_or_default())
}

/// The catalog of what could be linked, faults or not: for checking access rules against it.
pub fn catalog_of_linked(defs: &[SchemaDef], linked: Linked) -> Catalog {
    let (stored, how) = (Stored::default(), How::default());
    ids::number(&stored, defs, linked, &how)
        .and_then(|numbered| diff::diff(&stored, defs, &how, numbered))
        .ok()
        .and_then(|migration| Arc::try_unwrap(migration.catalog).ok())
        .unwrap_or_default()
}

impl Migration {
    /// Whether everything is as wanted already.
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.removes.is_empty()
    }

    /// Asks the rows whether they stand in the way.
    fn examine(&self, connection: &Connection) -> Result<Vec<Fault>> {
        let mut faults = Vec::new();
        for check in &self.checks {
            let count: i64 =
                connection.query_row(&check.sql, (), |row| row.get(0)).map_err(|error| {
                    Error::internal(format_args!("migration check `{}`: {error}", check.sql))
                })?;
            if count > 0 {
                let mut fault = check.fault.clone();
                fault.problem.message = fault.problem.message.replace("{n}", &count.to_string());
                faults.push(fault);
            }
        }
        Ok(faults)
    }

    /// Runs the steps and notes the new catalog, within the caller's transaction.
    fn apply(&self, connection: &Connection, now: i64) -> Result<()> {
        for step in &self.steps {
            for sql in &step.sql {
                run(connection, sql, now).map_err(|error| stopped(step, sql, error))?;
            }
        }
        readable::note_filled(connection, &self.filled, now)
            .and_then(|()| self.keep(connection))
            .map_err(broken)
    }

    fn keep(&self, connection: &Connection) -> rusqlite::Result<()> {
        for id in &self.removes {
            stored::remove(connection, *id)?;
            given::forget(connection, *id)?;
        }
        for schema in &self.puts {
            stored::put(connection, schema)?;
        }
        let set = |name, value| stored::set_counter(connection, name, value);
        set("schema", self.next_schema.into())?;
        set("field", self.next_field.into())
    }
}

/// What a step that fails is told as. A clash can only come of values that this very migration
/// puts in place of others.
fn stopped(step: &Step, sql: &str, error: rusqlite::Error) -> Error {
    if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) {
        let message = format!("{step}: the values that would stand there clash with one another");
        return Error::new(Kind::Unprocessable, message);
    }
    Error::internal(format_args!("migration step `{step}`, `{sql}`: {error}"))
}

impl Tx<'_> {
    /// What the catalog holds, in this transaction.
    pub fn stored(&self) -> Result<Stored> {
        stored::read(self.connection).map_err(broken)
    }

    /// Asks the rows, as this write sees them, whether they stand in the way.
    pub fn examine(&self, migration: &Migration) -> Result<Vec<Fault>> {
        migration.examine(self.connection)
    }

    /// Changes tables and catalog, and tells it in this write's entry. The migration must come
    /// from what [`Tx::stored`] gave in this same write. 422 with problems where rows stand in
    /// the way.
    pub fn migrate(&mut self, migration: &Migration) -> Result<()> {
        let faults = migration.examine(self.connection)?;
        if !faults.is_empty() {
            let mut error = Error::new(Kind::Unprocessable, "the stored records do not allow it");
            error.problems = faults.into_iter().map(|fault| fault.problem).collect();
            return Err(error);
        }
        migration.apply(self.connection, self.now())?;
        self.set_catalog(migration.catalog.clone())?;
        self.unreadable.extend(&migration.unreadable);
        self.notice(Notice::Catalog {
            catalog: migration.catalog.clone(),
            broken: migration.broken.clone(),
        });
        Ok(())
    }

    /// Notes that the folder agrees with the catalog again. No entry in the log: nothing that a
    /// client sees has changed.
    pub fn settled(&mut self, schemas: &[SchemaId]) -> Result<()> {
        for id in schemas {
            self.connection
                .execute("UPDATE _rc_schema SET pending = NULL WHERE id = ?1", [id.0])
                .map_err(broken)?;
        }
        Ok(())
    }
}

fn run(connection: &Connection, sql: &str, now: i64) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(sql)?;
    if statement.parameter_count() > 0 {
        statement.execute(&[(":now", &now)])?;
    } else {
        statement.execute(())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::file::parse;
    use crate::model::schema::{FieldRef, Shape};
    use crate::model::system;

    fn defs(texts: &[&str]) -> Vec<SchemaDef> {
        let mut defs = system::schemas();
        for text in texts {
            let value: serde_json::Value = serde_json::from_str(text).expect("JSON");
            let file = format!("{}.json", value["name"].as_str().expect("name"));
            defs.push(parse(Some(&file), text.as_bytes()).def.expect("a good schema"));
        }
        defs
    }

    const BLOG: &str = r#"{"name":"blog","namespace":"blogs","label_field":"title","fields":[
        {"name":"title","type":"string"},
        {"name":"views","type":"int32","default":0},
        {"name":"author","type":"relation","optional":true,
         "relation":{"schema":"user","field":"blogs","type":"o2m"}},
        {"name":"tags","type":"relation","relation":{"schema":"tag","field":"blogs","type":"m2m"}}]}"#;
    const TAG: &str = r#"{"name":"tag","namespace":"tags","label_field":"name","fields":[
        {"name":"name","type":"string","unique":true},
        {"name":"blogs","type":"relation","relation":{"schema":"blog","field":"tags","type":"m2m"}}]}"#;

    fn connection() -> (tempfile::TempDir, Connection) {
        let dir = tempfile::tempdir().expect("a directory");
        let connection = crate::store::format::open(dir.path()).expect("a store");
        (dir, connection)
    }

    fn migrate(connection: &Connection, texts: &[&str]) -> Migration {
        let stored = stored::read(connection).expect("read");
        let plan = plan(&stored, &defs(texts), &How::default()).expect("plan");
        assert_eq!(plan.examine(connection).expect("examine").len(), 0);
        connection.execute_batch("BEGIN").expect("begin");
        plan.apply(connection, 0).expect("apply");
        crate::store::format::set_catalog_version(connection, plan.catalog.version).expect("set");
        connection.execute_batch("COMMIT").expect("commit");
        plan
    }

    #[test]
    fn makes_tables_and_reads_them_back() {
        let (_dir, connection) = connection();
        let plan = migrate(&connection, &[BLOG, TAG]);
        let catalog = load(&connection).expect("load");
        assert_eq!(catalog.version, 1);
        let blog = catalog.named("blog").expect("blog");
        let names: Vec<&str> = blog.columns.iter().map(|c| &*c.name).collect();
        assert_eq!(names, ["id", "title", "views", "author_id", "created_at", "updated_at"]);
        let Some(FieldRef::Relation(tags)) = blog.field("tags") else { panic!("{blog:?}") };
        let Shape::Link { junction, own: 1, other: 2 } = blog.relations[tags].shape else {
            panic!("{blog:?}")
        };
        assert_eq!(&*catalog.get(junction).expect("junction").table, "blog_tags_links");
        let user = catalog.named("user").expect("user");
        assert!(matches!(user.field("blogs"), Some(FieldRef::Relation(_))));
        assert_eq!(plan.catalog.version, 1);
        let again = super::plan(
            &stored::read(&connection).expect("read"),
            &defs(&[BLOG, TAG]),
            &How::default(),
        );
        assert!(again.expect("plan").is_empty());
    }

    #[test]
    fn a_removed_schema_comes_back_with_its_data() {
        let (_dir, connection) = connection();
        migrate(&connection, &[BLOG, TAG]);
        let insert = "INSERT INTO users (id, username, active, created_at, updated_at) \
                      VALUES (x'01', 'a', 1, 0, 0);
                      INSERT INTO blogs VALUES (1, 'one', 5, x'01', 0, 0);
                      INSERT INTO tags VALUES (1, 'x', 0, 0), (2, 'y', 0, 0);
                      INSERT INTO blog_tags_links VALUES (1, 1, 1), (2, 1, 2);";
        connection.execute_batch(insert).expect("insert");
        let gone = migrate(&connection, &[]);
        assert!(gone.catalog.named("blog").is_none());
        connection.execute_batch("DELETE FROM users").expect("the key is released");
        let back = migrate(&connection, &[BLOG, TAG]);
        assert!(back.catalog.named("blog").is_some());
        let (views, author): (i64, Option<Vec<u8>>) = connection
            .query_row("SELECT views, author_id FROM blogs", (), |r| Ok((r.get(0)?, r.get(1)?)))
            .expect("the row is there");
        assert_eq!((views, author), (5, None));
        let links: i64 = connection
            .query_row("SELECT count(*) FROM blog_tags_links", (), |r| r.get(0))
            .expect("links");
        assert_eq!(links, 2);
    }
}
