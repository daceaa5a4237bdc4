//! `POST`, `PUT` and `DELETE /api/schema`.

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::edit::{Sources, for_file, text};
use super::settle::{applied, examine};
use super::{Rename, Service, folder, log_steps};
use crate::auth::principal::Principal;
use crate::error::{Error, Kind, Problem, Result};
use crate::model::file::{self, SchemaDef};
use crate::model::link::Fault;
use crate::model::schema::{Schema, SchemaKind, Shape};
use crate::model::system;
use crate::store::migrate::{How, Pending, Rename as FieldRename, Stored};
use crate::store::{Lane, unavailable};

/// A planned change: what is wanted of the store, and what then of the folder.
struct Change {
    defs: Vec<SchemaDef>,
    how: How,
    /// (stem, text) to write.
    puts: Vec<(String, String)>,
    /// Stems to take away.
    removes: Vec<String>,
}

impl Service {
    /// Adds a schema given as in a file. Relations get their way back on the schemas they lead
    /// to. 422 with problems where it is not good; gives the schema as `GET` shows it.
    pub async fn create(self: &Arc<Self>, principal: &Principal, schema: Json) -> Result<Json> {
        allowed(principal)?;
        let source = object(schema)?;
        let name =
            self.finish(principal, move |service, stored| service.created(stored, source)).await?;
        self.get(principal, &name)
    }

    /// Replaces the schema `name` by `schema`, which may bear another name.
    pub async fn update(
        self: &Arc<Self>,
        principal: &Principal,
        name: &str,
        schema: Json,
        fields: Vec<Rename>,
        tables: Vec<Rename>,
    ) -> Result<Json> {
        allowed(principal)?;
        let source = object(schema)?;
        let name = name.to_owned();
        let change = move |service: &Service, stored: &Stored| {
            service.updated(stored, &name, source, &fields, &tables)
        };
        let name = self.finish(principal, change).await?;
        self.get(principal, &name)
    }

    /// Takes a schema out of service and its file away; the data is kept. 409 while other schemas
    /// relate to it.
    pub async fn delete(self: &Arc<Self>, principal: &Principal, name: &str) -> Result<Json> {
        allowed(principal)?;
        let name = name.to_owned();
        self.finish(principal, move |service, stored| service.deleted(stored, &name)).await?;
        Ok(json!({"message": "Schema deleted"}))
    }

    /// Runs a change to its end even when the client leaves in the middle of it.
    async fn finish<F>(self: &Arc<Self>, principal: &Principal, plan: F) -> Result<String>
    where
        F: FnOnce(&Service, &Stored) -> Result<(String, Change)> + Send + 'static,
    {
        let (service, principal) = (self.clone(), principal.clone());
        let run = async move {
            let _gate = service.gate.lock().await;
            // What people have saved meanwhile comes first.
            service.scan_inside().await.map_err(|error| {
                // What the owner is told at the start names the folder; a client is not.
                unavailable("the schemas folder cannot be read; nothing was changed", &error)
            })?;
            let stored = service.stored().await?;
            let (name, change) = plan(&service, &stored)?;
            service.carry_out(principal, change).await?;
            Ok(name)
        };
        tokio::spawn(run).await.map_err(Error::internal)?
    }

    async fn carry_out(&self, principal: Principal, mut change: Change) -> Result<()> {
        let mut prepared = Vec::new();
        for (stem, text) in &change.puts {
            prepared.push((stem.clone(), folder::prepare(&self.dir, stem, text)?));
        }
        let (defs, how) = (std::mem::take(&mut change.defs), std::mem::take(&mut change.how));
        let directory = self.directory.get().cloned();
        let written = self
            .store
            .write_long(Lane::Schemas, move |tx| {
                if let Some(directory) = directory {
                    let now = directory.current(&principal);
                    allowed(&*now.ok_or_else(ended)?)?;
                }
                let stored = tx.stored()?;
                match examine(tx, &stored, &defs, &how)? {
                    Err(faults) => Err(invalid(faults)),
                    Ok(migration) if migration.is_empty() => Ok(Vec::new()),
                    Ok(migration) => {
                        tx.migrate(&migration)?;
                        Ok(migration.steps.iter().map(ToString::to_string).collect())
                    }
                }
            })
            .await?;
        let steps: Vec<String> = written.value;
        log_steps(&steps);
        for (stem, prepared) in prepared {
            prepared.put().map_err(|error| self.unfinished(&stem, &error))?;
        }
        for stem in &change.removes {
            folder::remove(&self.dir, stem).map_err(|error| self.unfinished(stem, &error))?;
        }
        self.store
            .write(|tx| {
                let stored = tx.stored()?;
                let pending = stored.schemas.values().filter(|s| s.pending.is_some());
                tx.settled(&pending.map(|s| s.schema.id).collect::<Vec<_>>())
            })
            .await?;
        Ok(())
    }

    fn created(&self, stored: &Stored, source: Map<String, Json>) -> Result<(String, Change)> {
        let def = parse(&source)?;
        let name = def.name.to_string();
        if stored.catalog.named(&name).is_some() {
            let message = format!("schema '{name}' already exists; change it by PUT");
            return Err(problem("builder.schema.duplicate", "name", "", message));
        }
        let mut sources = sources(stored);
        sources.all.insert(name.clone(), for_file(source));
        sources.changed.insert(name.clone());
        sources.add_backs(&name);
        let change = self.change(stored, sources, def, None, How::default())?;
        Ok((name, change))
    }

    fn updated(
        &self,
        stored: &Stored,
        old: &str,
        source: Map<String, Json>,
        fields: &[Rename],
        tables: &[Rename],
    ) -> Result<(String, Change)> {
        let was = own(stored, old)?;
        let def = parse(&source)?;
        let new = def.name.to_string();
        if new != old && stored.catalog.named(&new).is_some() {
            let message = format!("schema '{new}' already exists; choose another name");
            return Err(problem("builder.schema.duplicate", "name", "", message));
        }
        field_renames(&was, &def, fields)?;
        table_renames(stored, &was, &def, tables)?;
        let mut sources = sources(stored);
        sources.replace(old, &new, for_file(source), fields);
        let mut how = How::default();
        if new != old {
            how.schemas.insert(new.clone(), old.to_owned());
        }
        how.fields = fields
            .iter()
            .map(|r| FieldRename { schema: new.clone(), from: r.from.clone(), to: r.to.clone() })
            .collect();
        let change = self.change(stored, sources, def, Some(old), how)?;
        Ok((new, change))
    }

    fn deleted(&self, stored: &Stored, name: &str) -> Result<(String, Change)> {
        let schema = own(stored, name)?;
        let others: Vec<String> = applied(stored)
            .values()
            .filter(|other| *other.name != *name)
            .flat_map(|other| {
                other.fields.iter().filter_map(|field| match &field.what {
                    file::What::Relation(relation) if *relation.schema == *name => {
                        Some(format!("'{}.{}'", other.name, field.name))
                    }
                    _ => None,
                })
            })
            .collect();
        if !others.is_empty() {
            return Err(Error::new(
                Kind::Conflict,
                format!(
                    "'{name}' cannot be removed while {} relate{} to it; take the relation out \
                     first",
                    others.join(", "),
                    if others.len() == 1 { "s" } else { "" }
                ),
            ));
        }
        let mut sources = sources(stored);
        sources.all.remove(name);
        let mut defs = system::schemas();
        for (name, source) in &sources.all {
            defs.extend(def_of(name, stored, source)?);
        }
        self.untouched(stored, &schema.name)?;
        let mut how = How::default();
        how.pending.insert(name.to_owned(), pending(stored, Some(name)));
        let removes = vec![name.to_owned()];
        Ok((name.to_owned(), Change { defs, how, puts: Vec::new(), removes }))
    }

    /// The change that makes the store hold `sources`. `def` is the one that came with the call,
    /// `old` the name it had.
    fn change(
        &self,
        stored: &Stored,
        sources: Sources,
        def: SchemaDef,
        old: Option<&str>,
        mut how: How,
    ) -> Result<Change> {
        let mut defs = system::schemas();
        let mut puts = Vec::new();
        for (name, source) in &sources.all {
            let before = if **name == *def.name { old } else { Some(name.as_str()) };
            if !sources.changed.contains(name) {
                defs.extend(def_of(name, stored, source)?);
                continue;
            }
            self.untouched(stored, before.unwrap_or(name))?;
            let text = text(source);
            let mut parsed = file::parse(None, text.as_bytes()).def.map_err(unprocessable)?;
            if **name == *def.name {
                parsed.accept_data_loss = def.accept_data_loss.clone();
            }
            defs.push(parsed);
            how.pending.insert(name.clone(), pending(stored, before));
            puts.push((name.clone(), text));
        }
        let removes = old.filter(|old| **old != *def.name).map(str::to_owned).into_iter().collect();
        Ok(Change { defs, how, puts, removes })
    }

    /// Refuses to overwrite a file that holds something the catalog does not know.
    fn untouched(&self, stored: &Stored, name: &str) -> Result<()> {
        let served = served(stored, name);
        let file = folder::read_one(&self.dir, name);
        match (file, served) {
            (None, _) => Ok(()),
            (Some(file), Some(served)) if file.text() == Some(served.1) => Ok(()),
            _ => Err(Error::new(
                Kind::Conflict,
                format!(
                    "{name}.json in the schemas folder holds a change that is not applied; mend or \
                     remove the file first"
                ),
            )),
        }
    }
}

fn allowed(principal: &Principal) -> Result<()> {
    if principal.admin {
        return Ok(());
    }
    Err(if principal.logged_in {
        Error::forbidden("only an admin changes schemas")
    } else {
        Error::unauthorized("log in as an admin to change schemas")
    })
}

/// Whoever asked may no longer be here.
fn ended() -> Error {
    Error::unauthorized("the session has ended; log in again")
}

fn object(schema: Json) -> Result<Map<String, Json>> {
    match schema {
        Json::Object(schema) => Ok(schema),
        _ => Err(Error::bad("a schema is a JSON object")),
    }
}

fn parse(source: &Map<String, Json>) -> Result<SchemaDef> {
    let text = Json::Object(source.clone()).to_string();
    file::parse(None, text.as_bytes()).def.map_err(unprocessable)
}

/// The served user schema of that name.
fn own(stored: &Stored, name: &str) -> Result<Arc<Schema>> {
    match stored.catalog.named(name) {
        Some(schema) if schema.kind == SchemaKind::User => Ok(schema.clone()),
        Some(schema) if schema.kind == SchemaKind::System => {
            Err(Error::forbidden(format!("'{name}' is a system schema and cannot be changed")))
        }
        _ => Err(super::show::not_found(Error::no_schema(name))),
    }
}

/// A served schema and its text.
fn served<'a>(stored: &'a Stored, name: &str) -> Option<(&'a Schema, &'a str)> {
    let id = stored.catalog.named(name)?.id;
    stored.schemas.get(&id).map(|found| (&*found.schema, &*found.text))
}

fn sources(stored: &Stored) -> Sources {
    let all = stored
        .catalog
        .all()
        .filter(|schema| schema.kind == SchemaKind::User)
        .map(|schema| (schema.name.to_string(), (*schema.source).clone()))
        .collect();
    Sources { all, ..Sources::default() }
}

/// The definition of a schema that stays as it is: of its own text, so that nothing is new.
fn def_of(name: &str, stored: &Stored, source: &Json) -> Result<Option<SchemaDef>> {
    let own = served(stored, name).map(|(_, text)| text.to_owned());
    let text = own.unwrap_or_else(|| text(source));
    let file = format!("{name}.json");
    let parsed = file::parse(Some(&file), text.as_bytes());
    parsed.def.map(Some).map_err(unprocessable)
}

fn pending(stored: &Stored, before: Option<&str>) -> Pending {
    let text = before.and_then(|name| served(stored, name)).map(|(_, text)| text.to_owned());
    Pending { name: before.map(str::to_owned), text }
}

fn field_renames(was: &Schema, def: &SchemaDef, renames: &[Rename]) -> Result<()> {
    for rename in renames {
        let swapped = renames.iter().any(|other| other.to == rename.from);
        let message = if was.field(&rename.from).is_none() {
            format!("rename_fields: '{}' has no field '{}'", was.name, rename.from)
        } else if def.field(&rename.to).is_none() {
            format!("rename_fields: the schema sent has no field '{}'", rename.to)
        } else if def.field(&rename.from).is_some() && !swapped {
            format!("rename_fields: the schema sent still has '{}'", rename.from)
        } else {
            continue;
        };
        return Err(problem("field.not_found", "rename_fields", &rename.from, message));
    }
    Ok(())
}

/// The schema says itself what its tables are to be called; renames that do not agree with it are
/// a mistake.
fn table_renames(stored: &Stored, was: &Schema, def: &SchemaDef, renames: &[Rename]) -> Result<()> {
    for rename in renames {
        let junction = was.relations.iter().find(|relation| {
            matches!(relation.shape, Shape::Link { junction, .. }
                if stored.catalog.get(junction).is_some_and(|j| *j.table == *rename.from))
        });
        let wanted = if *was.table == *rename.from {
            Some(def.table.to_string())
        } else {
            junction.and_then(|junction| match &def.field(&junction.name)?.what {
                file::What::Relation(relation) => {
                    relation.junction_table.as_deref().map(str::to_owned)
                }
                _ => None,
            })
        };
        let message = match wanted {
            Some(table) if table == rename.to => continue,
            Some(table) => format!(
                "rename_tables: '{}' to '{}', but the schema sent names it '{table}'",
                rename.from, rename.to
            ),
            None => format!(
                "rename_tables: '{}' is no table of '{}' that the schema sent names",
                rename.from, was.name
            ),
        };
        return Err(problem("schema.namespace.invalid", "rename_tables", "", message));
    }
    Ok(())
}

fn problem(code: &str, path: &str, field: &str, message: String) -> Error {
    unprocessable(vec![Problem {
        code: code.to_owned(),
        file: None,
        line: None,
        path: path.to_owned(),
        field: field.to_owned(),
        message,
    }])
}

fn invalid(faults: Vec<Fault>) -> Error {
    unprocessable(faults.into_iter().map(|fault| fault.problem).collect())
}

fn unprocessable(problems: Vec<Problem>) -> Error {
    let message = match problems.first() {
        Some(first) if problems.len() == 1 => {
            format!("schema validation failed: {}", first.message)
        }
        _ => format!("schema validation failed: {} problems", problems.len()),
    };
    let mut error = Error::new(Kind::Unprocessable, message);
    error.problems = problems;
    error
}
