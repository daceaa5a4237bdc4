//! Schema files good and bad, and what changes of them do to tables and data. The cases are JSON
//! files in `fixtures/schemas`; its README says how to write one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use libtest_mimic::{Arguments, Failed, Trial};
use rowcast::auth::principal::Principal;
use rowcast::error::{Error, Problem};
use rowcast::filter::Predicate;
use rowcast::model::change::{Commit, Notice};
use rowcast::model::schema::{Column, FieldRef, RelationKind, Schema, SchemaId, Shape};
use rowcast::model::value::Value;
use rowcast::schemas::{Rename, Report, Service, check_dir};
use rowcast::store::{CommitSink, Options, Query, Rows as _, Store};
use serde_json::{Map, Value as Json, json};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/schemas");
    let mut trials = Vec::new();
    for (kind, run) in
        [("good", good as fn(&Json) -> Result<(), Failed>), ("bad", bad), ("changes", changes)]
    {
        for path in cases(&root.join(kind)) {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            trials.push(Trial::test(format!("{kind}::{stem}"), move || {
                let text = std::fs::read_to_string(&path)?;
                run(&serde_json::from_str(&text)?)
            }));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn cases(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    paths.sort();
    paths
}

/// A file's text: lines as they stand, or a schema to be written out.
fn text(file: &Json) -> String {
    match file {
        Json::Array(lines) => {
            let lines: Vec<&str> = lines.iter().map(|line| line.as_str().unwrap()).collect();
            lines.join("\n")
        }
        Json::String(text) => text.clone(),
        schema => serde_json::to_string_pretty(schema).unwrap(),
    }
}

fn save(dir: &Path, files: &Json) {
    for (name, file) in files.as_object().into_iter().flatten() {
        let path = dir.join(format!("{name}.json"));
        match file {
            Json::Null => std::fs::remove_file(path).unwrap(),
            file => std::fs::write(path, text(file)).unwrap(),
        }
    }
}

/// Whether `found` has everything that `wanted` says; a wanted text stands for a part.
fn says(wanted: &Json, found: &Json) -> bool {
    match (wanted, found) {
        (Json::String(part), Json::String(whole)) => whole.contains(part.as_str()),
        _ => wanted == found,
    }
}

/// Each wanted problem is found and each found one wanted. Only what a wanted problem names is
/// compared; of `message`, that the words stand in it.
fn same_problems(wanted: &Json, found: &[Problem]) -> Result<(), Failed> {
    let wanted = wanted.as_array().cloned().unwrap_or_default();
    let mut left: Vec<Json> = found.iter().map(|p| serde_json::to_value(p).unwrap()).collect();
    let mut missing = Vec::new();
    for wanted in &wanted {
        let fits = |found: &Json| {
            wanted.as_object().unwrap().iter().all(|(key, value)| match key.as_str() {
                "message" => says(value, &found[key]),
                _ => *value == found[key],
            })
        };
        match left.iter().position(fits) {
            Some(at) => {
                left.remove(at);
            }
            None => missing.push(wanted),
        }
    }
    if missing.is_empty() && left.is_empty() {
        return Ok(());
    }
    let lines = |list: Vec<String>| list.join("\n  ");
    Err(format!(
        "not found:\n  {}\nnot wanted:\n  {}",
        lines(missing.iter().map(ToString::to_string).collect()),
        lines(left.iter().map(ToString::to_string).collect()),
    )
    .into())
}

fn same(what: &str, wanted: &Json, found: &Json) -> Result<(), Failed> {
    if wanted == found {
        return Ok(());
    }
    Err(format!("{what}:\n  wanted {wanted}\n  found  {found}").into())
}

fn checked(case: &Json) -> Result<Report, Failed> {
    let dir = tempfile::tempdir()?;
    save(dir.path(), &case["files"]);
    Ok(check_dir(dir.path()).map_err(|error| error.message)?)
}

fn bad(case: &Json) -> Result<(), Failed> {
    let report = checked(case)?;
    same_problems(&case["problems"], &report.problems)?;
    same_problems(&case["warnings"], &report.warnings)
}

fn good(case: &Json) -> Result<(), Failed> {
    let report = checked(case)?;
    same_problems(&json!([]), &report.problems)?;
    same_problems(&case["warnings"], &report.warnings)?;
    let mut defs = rowcast::model::system::schemas();
    for (name, file) in case["files"].as_object().into_iter().flatten() {
        let parsed =
            rowcast::model::file::parse(Some(&format!("{name}.json")), text(file).as_bytes());
        defs.push(parsed.def.map_err(|problems| format!("{problems:?}"))?);
    }
    let catalog =
        rowcast::store::migrate::catalog_of(&defs).map_err(|faults| format!("{faults:?}"))?;
    for (name, wanted) in case["schemas"].as_object().into_iter().flatten() {
        let schema = catalog.named(name).ok_or_else(|| format!("no schema '{name}'"))?;
        for (key, wanted) in wanted.as_object().into_iter().flatten() {
            let found = match key.as_str() {
                "table" => json!(&*schema.table),
                "primary" => json!(column(schema.primary_column())),
                "columns" => schema.columns.iter().map(column).collect(),
                "relations" => schema
                    .relations
                    .iter()
                    .map(|relation| {
                        let target = catalog.get(relation.target).unwrap();
                        let kind = match relation.kind {
                            RelationKind::O2O => "o2o",
                            RelationKind::O2M => "o2m",
                            RelationKind::M2M => "m2m",
                        };
                        let column = |slot: usize| schema.columns[slot].name.to_string();
                        let there = |slot: usize| target.columns[slot].name.to_string();
                        let shape = match relation.shape {
                            Shape::Key { slot } => format!("key {}", column(slot)),
                            Shape::BackKey { slot } => format!("one by {}", there(slot)),
                            Shape::Many { slot } => format!("many by {}", there(slot)),
                            Shape::Link { junction, own, .. } => {
                                let junction = catalog.get(junction).unwrap();
                                let own = &junction.columns[own].name;
                                format!("many through {} as {own}", junction.table)
                            }
                        };
                        let optional = if relation.optional { "" } else { ", required" };
                        json!(format!(
                            "{}: {kind} {}.{}, {shape}{optional}",
                            relation.name, target.name, relation.back
                        ))
                    })
                    .collect(),
                other => return Err(format!("a case knows no '{other}'").into()),
            };
            same(&format!("{name}.{key}"), wanted, &found)?;
        }
    }
    Ok(())
}

/// `views: int64, default`: what the parser made of a field, for people.
fn column(column: &Column) -> Json {
    let mut text = format!("{}: {}", column.name, column.ty.name());
    if let Some(size) = column.size {
        text.push_str(&format!("({size})"));
    }
    for (is, word) in [
        (column.automatic, "automatic"),
        (column.optional, "optional"),
        (column.unique, "unique"),
        (column.default.is_some(), "default"),
        (column.key_of.is_some(), "key"),
    ] {
        if is {
            text.push_str(&format!(", {word}"));
        }
    }
    json!(text)
}

/// Hears which schemas' subscriptions end.
#[derive(Clone, Default)]
struct Broken(Arc<Mutex<Vec<SchemaId>>>);

impl CommitSink for Broken {
    fn committed(&mut self, commits: &[Arc<Commit>]) {
        for commit in commits {
            for notice in &commit.notices {
                if let Notice::Catalog { broken, .. } = notice {
                    self.0.lock().unwrap().extend(broken);
                }
            }
        }
    }
}

struct World {
    store: Store,
    service: Arc<Service>,
    broken: Broken,
    dir: PathBuf,
    /// Names by id, of everything that was ever served.
    names: BTreeMap<SchemaId, String>,
}

fn changes(case: &Json) -> Result<(), Failed> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let root = tempfile::tempdir()?;
        let dir = root.path().join("schemas");
        std::fs::create_dir(&dir)?;
        let broken = Broken::default();
        let store = Store::open(Options::new(root.path().join("data")), Box::new(broken.clone()))
            .map_err(told)?;
        let service = Service::open(store.clone(), &dir).await.map_err(told)?;
        let mut world = World { store, service, broken, dir, names: BTreeMap::new() };
        for (at, step) in case["steps"].as_array().into_iter().flatten().enumerate() {
            world
                .step(step)
                .await
                .map_err(|failed| format!("step {at}: {}", failed.message().unwrap_or_default()))?;
        }
        Ok(())
    })
}

fn told(error: Error) -> Failed {
    format!("{error} {:?}", error.problems).into()
}

impl World {
    async fn step(&mut self, step: &Json) -> Result<(), Failed> {
        self.broken.0.lock().unwrap().clear();
        for schema in self.store.catalog().all() {
            self.names.insert(schema.id, schema.name.to_string());
        }
        let outcome = self.act(step).await;
        let (steps, problems) = match &outcome {
            Ok(report) => (report.steps.clone(), report.problems.clone()),
            Err(error) => (Vec::new(), error.problems.clone()),
        };
        if let (Err(error), true) = (&outcome, step.get("status").is_none()) {
            return Err(format!("{error} {:?}", error.problems).into());
        }
        if let Some(status) = step.get("status") {
            same("status", status, &json!(outcome.as_ref().err().map_or(200, Error::status)))?;
        }
        if let (Some(part), Err(error)) = (step.get("message"), &outcome)
            && !says(part, &json!(error.message))
        {
            return Err(format!("message: wanted {part}, found {}", error.message).into());
        }
        same_problems(&step["refused"], &problems)?;
        if let (Some(wanted), Ok(report)) = (step.get("warnings"), &outcome) {
            same_problems(wanted, &report.warnings)?;
        }
        if let Some(wanted) = step.get("steps") {
            same("steps", wanted, &json!(steps))?;
        }
        if let Some(wanted) = step.get("broken") {
            let mut found: Vec<String> = {
                let broken = self.broken.0.lock().unwrap();
                broken.iter().map(|id| self.names.get(id).cloned().unwrap_or_default()).collect()
            };
            found.sort();
            same("broken", wanted, &json!(found))?;
        }
        if let Some(wanted) = step.get("served") {
            let catalog = self.store.catalog();
            let mut found: Vec<&str> = catalog.all().map(|schema| &*schema.name).collect();
            found.retain(|name| !["user", "role"].contains(name) && !name.contains('.'));
            found.sort_unstable();
            same("served", wanted, &json!(found))?;
        }
        for (name, wanted) in step["records"].as_object().into_iter().flatten() {
            let found = self.records(name, wanted).await?;
            same(&format!("records of {name}"), wanted, &found)?;
        }
        for (name, wanted) in step["files"].as_object().into_iter().flatten() {
            let found = std::fs::read_to_string(self.dir.join(format!("{name}.json"))).ok();
            let found = found.map_or(Ok(Json::Null), |text| serde_json::from_str(&text))?;
            same(&format!("file {name}"), wanted, &found)?;
        }
        Ok(())
    }

    /// Does what a step says; of the folder, gives the report, of the API, its error.
    async fn act(&mut self, step: &Json) -> Result<Report, Error> {
        let admin = Principal::owner();
        let done = |outcome: Result<Json, Error>| outcome.map(|_| Report::default());
        if let Some(files) = step.get("save") {
            save(&self.dir, files);
            return self.service.scan().await.map(|report| (*report).clone());
        }
        if let Some(schema) = step.get("post") {
            return done(self.service.create(&admin, schema.clone()).await);
        }
        if let Some(put) = step.get("put") {
            let renames = |key: &str| -> Vec<Rename> {
                let list = put[key].as_array().cloned().unwrap_or_default();
                let text = |value: &Json| value.as_str().unwrap().to_owned();
                list.iter()
                    .map(|rename| Rename { from: text(&rename["from"]), to: text(&rename["to"]) })
                    .collect()
            };
            let (name, schema) = (put["name"].as_str().unwrap(), put["schema"].clone());
            let (fields, tables) = (renames("rename_fields"), renames("rename_tables"));
            return done(self.service.update(&admin, name, schema, fields, tables).await);
        }
        if let Some(name) = step.get("delete") {
            return done(self.service.delete(&admin, name.as_str().unwrap()).await);
        }
        if let Some(rows) = step.get("insert") {
            for (name, rows) in rows.as_object().into_iter().flatten() {
                for row in rows.as_array().into_iter().flatten() {
                    self.insert(name, row.as_object().unwrap().clone()).await?;
                }
            }
        }
        if let Some(keys) = step.get("remove") {
            for (name, keys) in keys.as_object().into_iter().flatten() {
                let schema = self.store.catalog().named(name).unwrap().clone();
                for key in keys.as_array().into_iter().flatten() {
                    let key = Value::from_json(key, schema.primary_column()).unwrap();
                    let schema = schema.clone();
                    self.store.write(move |tx| tx.delete(&schema, &key)).await?;
                }
            }
        }
        if step.get("restart").is_some() {
            let service = Service::open(self.store.clone(), &self.dir).await?;
            self.service = service;
            return Ok((*self.service.report()).clone());
        }
        Ok(Report::default())
    }

    async fn insert(&self, name: &str, row: Map<String, Json>) -> Result<(), Error> {
        let schema = self.store.catalog().named(name).unwrap().clone();
        let written = self.store.write(move |tx| {
            let now = tx.now();
            let mut values = Vec::new();
            for (slot, column) in schema.columns.iter().enumerate() {
                let stamp = Some(slot) == schema.created_at || Some(slot) == schema.updated_at;
                values.push(match row.get(&*column.name) {
                    Some(value) => Value::from_json(value, column).map_err(Error::bad)?,
                    None if stamp => Value::Time(now),
                    None => Value::Null,
                });
            }
            let row_in = tx.insert(&schema, values)?;
            // Links: the field's name and the keys it leads to.
            for relation in &schema.relations {
                let Some(Json::Array(keys)) = row.get(&*relation.name) else { continue };
                let target = tx.catalog().get(relation.target).unwrap().clone();
                for key in keys {
                    let key = Value::from_json(key, target.primary_column()).map_err(Error::bad)?;
                    tx.link(&schema, relation, row_in.get(schema.primary), &key)?;
                }
            }
            Ok(())
        });
        written.await.map(drop)
    }

    /// The records of a schema by key, with the fields that the first wanted one names; of a
    /// relation to many, the keys.
    async fn records(&self, name: &str, wanted: &Json) -> Result<Json, Failed> {
        let schema = self.store.catalog().named(name).ok_or("the schema is not served")?.clone();
        let fields: Vec<String> =
            wanted[0].as_object().into_iter().flatten().map(|(k, _)| k.clone()).collect();
        let read = self.store.read(move |reader| {
            let query = Query {
                schema: schema.clone(),
                filter: Predicate::ALL,
                sort: vec![(schema.primary, false)],
                limit: None,
                offset: 0,
            };
            let rows = reader.select(&query)?;
            let mut found = Vec::new();
            for row in &rows {
                let mut record = Map::new();
                for field in &fields {
                    let value = match schema.field(field) {
                        Some(FieldRef::Column(slot)) => row.get(slot).to_json(),
                        Some(FieldRef::Relation(at)) => {
                            keys(reader, &schema, at, std::slice::from_ref(row))?
                        }
                        None => json!("no such field"),
                    };
                    record.insert(field.clone(), value);
                }
                found.push(Json::Object(record));
            }
            Ok(Json::Array(found))
        });
        read.await.map_err(told)
    }
}

fn keys(
    reader: &rowcast::store::Reader<'_>,
    schema: &Arc<Schema>,
    at: usize,
    rows: &[Arc<rowcast::model::change::Row>],
) -> Result<Json, Error> {
    use rowcast::model::related::{Paths, Related as _};
    let relation = &schema.relations[at];
    let paths = Paths([(relation.name.clone(), Paths::default())].into());
    let related = reader.gather(schema, rows, &paths)?;
    let target = reader.catalog().get(relation.target).unwrap().clone();
    let found = related.related(schema, relation, &rows[0]);
    Ok(found.iter().map(|row| row.get(target.primary).to_json()).collect())
}
