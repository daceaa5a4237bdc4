//! Runs `fixtures/filters/*.json`: what they hold is told in the README beside them.
//!
//! Every filter that should work runs through the evaluator and through SQLite, on every record.

mod tables;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use libtest_mimic::{Arguments, Failed, Trial};
use rowcast::filter::compile::{Unrestricted, compile};
use rowcast::filter::{Truth, ast};
use rowcast::limits::Limits;
use rowcast::model::json;
use rowcast::model::schema::Schema;
use rowcast::model::value::Value;
use serde_json::{Map, Value as Json};
use tables::{Seen, Sight, Tables};

fn main() {
    let arguments = Arguments::from_args();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/filters");
    let mut databases: HashMap<String, Arc<Mutex<Tables>>> = HashMap::new();
    let mut trials = Vec::new();
    for path in json_files(&folder) {
        let file = read(&path);
        only_keys(
            &path,
            &file,
            &["about", "data", "schema", "sight", "limits", "untyped", "cases"],
        );
        let data = file["data"].as_str().expect("\"data\" names a file in data/").to_owned();
        let tables = databases
            .entry(data)
            .or_insert_with_key(|data| load(&folder.join(format!("data/{data}.json"))))
            .clone();
        let stem = path.file_stem().expect("a file name").to_string_lossy().into_owned();
        for (index, case) in file["cases"].as_array().expect("cases").iter().enumerate() {
            let case = Case::new(&path, &file, case);
            let name = format!("{stem}/{:03} {}", index + 1, case.name());
            let tables = tables.clone();
            trials.push(Trial::test(name, move || {
                let tables = tables.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                case.run(&tables).map_err(Failed::from)
            }));
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn json_files(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    paths.sort();
    paths
}

fn read(path: &Path) -> Json {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    json::parse(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn only_keys(path: &Path, object: &Json, known: &[&str]) {
    for key in object.as_object().expect("an object").keys() {
        assert!(known.contains(&key.as_str()), "{}: unknown key '{key}'", path.display());
    }
}

fn load(path: &Path) -> Arc<Mutex<Tables>> {
    let data = read(path);
    only_keys(path, &data, &["about", "schemas", "records"]);
    let mut tables = Tables::new(data["schemas"].as_array().expect("schemas"));
    for (schema, records) in data["records"].as_object().expect("records") {
        for record in records.as_array().expect("records of a schema") {
            tables.insert(schema, record);
        }
    }
    Arc::new(Mutex::new(tables))
}

/// A case with what its file says for all.
struct Case {
    schema: String,
    sight: Json,
    limits: Json,
    untyped: bool,
    body: Map<String, Json>,
}

impl Case {
    fn new(path: &Path, file: &Json, case: &Json) -> Case {
        only_keys(
            path,
            case,
            &[
                "about", "schema", "sight", "limits", "untyped", "filter", "text", "true",
                "unknown", "error",
            ],
        );
        let of = |key: &str| case.get(key).unwrap_or(&file[key]).clone();
        Case {
            schema: of("schema").as_str().expect("\"schema\" names a schema").to_owned(),
            sight: of("sight"),
            limits: of("limits"),
            untyped: of("untyped").as_bool().unwrap_or(false),
            body: case.as_object().expect("a case is an object").clone(),
        }
    }

    fn name(&self) -> String {
        let text = match (self.body.get("about"), self.body.get("text")) {
            (Some(Json::String(about)), _) => about.clone(),
            (_, Some(Json::String(text))) => text.clone(),
            _ => self.body.get("filter").map(Json::to_string).unwrap_or_default(),
        };
        if text.chars().count() > 100 {
            return text.chars().take(100).chain(['…']).collect();
        }
        text
    }

    fn run(&self, tables: &Tables) -> Result<(), String> {
        let schema = tables.schema(&self.schema);
        let limits = self.limits();
        let parsed = match self.body.get("text") {
            Some(text) => json::parse(text.as_str().expect("text").as_bytes())
                .and_then(|filter| ast::parse(&filter, &limits, false)),
            None => {
                let filter = self.body.get("filter").ok_or("the case has no filter")?;
                ast::parse(filter, &limits, self.untyped)
            }
        };
        let sight = self.sight(tables);
        let compiled =
            parsed.and_then(|ast| compile(&ast, &tables.catalog, &schema, &sight, &limits));
        let predicate = match (compiled, self.body.get("error")) {
            (Err(error), Some(expected)) if Some(&*error.message) == expected.as_str() => {
                assert_eq!(error.status(), 400);
                return Ok(());
            }
            (Err(error), Some(expected)) => {
                return Err(format!("expected the error\n{expected}, got\n\"{}\"", error.message));
            }
            (Err(error), None) => return Err(format!("refused: {}", error.message)),
            (Ok(predicate), Some(_)) => return Err(format!("not refused: {predicate:?}")),
            (Ok(predicate), None) => predicate,
        };
        let expected = self.expected(tables, &schema)?;
        for (engine, truths) in [
            ("the evaluator", tables.by_eval(&schema, &predicate)),
            ("SQLite", tables.by_sql(&schema, &predicate)),
        ] {
            for ((key, truth), expected) in truths.into_iter().zip(&expected) {
                if truth != *expected {
                    let key = key.to_json();
                    return Err(format!(
                        "record {key} is {expected:?}, {engine} says {truth:?}\n{predicate:?}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// What each record, by key in order, should be.
    fn expected(&self, tables: &Tables, schema: &Schema) -> Result<Vec<Truth>, String> {
        let keys = |name: &str| -> Result<Vec<Value>, String> {
            let keys = self.body.get(name).map(|keys| keys.as_array().expect("keys").as_slice());
            keys.unwrap_or_default()
                .iter()
                .map(|key| Value::from_json(key, schema.primary_column()))
                .collect()
        };
        let (yes, unknown) = (keys("true")?, keys("unknown")?);
        let rows = tables.rows(schema);
        for key in yes.iter().chain(&unknown) {
            if !rows.iter().any(|row| row.get(schema.primary) == key) {
                return Err(format!("there is no record {}", key.to_json()));
            }
        }
        Ok(rows
            .iter()
            .map(|row| match row.get(schema.primary) {
                key if yes.contains(key) => Truth::True,
                key if unknown.contains(key) => Truth::Unknown,
                _ => Truth::False,
            })
            .collect())
    }

    fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        let given: BTreeMap<String, usize> =
            serde_json::from_value::<Option<_>>(self.limits.clone())
                .expect("limits are numbers")
                .unwrap_or_default();
        for (name, number) in given {
            match name.as_str() {
                "depth" => limits.filter_depth = number,
                "nodes" => limits.filter_nodes = number,
                "elements" => limits.filter_elements = number,
                "bytes" => limits.filter_bytes = number,
                "hops" => limits.filter_hops = number,
                _ => panic!("unknown limit '{name}'"),
            }
        }
        limits
    }

    fn sight(&self, tables: &Tables) -> Sight {
        let mut sight = Sight::default();
        let Json::Object(given) = &self.sight else {
            return sight;
        };
        for (name, seen) in given {
            let schema = tables.schema(name);
            let fields = seen.get("fields").map(|fields| {
                let fields = fields.as_array().expect("fields are an array");
                fields.iter().map(|name| name.as_str().expect("a name").to_owned()).collect()
            });
            let visible = seen.get("filter").map(|filter| {
                let limits = Limits::default();
                let ast = ast::parse(filter, &limits, false).expect("sight: a filter");
                let predicate = compile(&ast, &tables.catalog, &schema, &Unrestricted, &limits);
                Arc::new(predicate.expect("sight: a filter that compiles"))
            });
            sight.0.insert(name.clone(), Seen { fields, visible });
        }
        sight
    }
}
