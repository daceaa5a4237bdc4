//! What became of a folder's files, for logs and for `rowcast check`.

use std::fmt;
use std::path::Path;

use crate::auth::grant;
use crate::error::{Problem, Result};
use crate::model::catalog::Catalog;
use crate::model::file::SchemaDef;
use crate::model::link::Fault;
use crate::model::schema::SchemaKind;
use crate::model::{link, system};
use crate::store::migrate;

use super::folder;

/// Everything found in a folder of schema files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Good schemas, by name.
    pub schemas: Vec<String>,
    /// What keeps a file from being applied.
    pub problems: Vec<Problem>,
    /// What is ignored.
    pub warnings: Vec<Problem>,
    /// Schemas whose file is not applied although an earlier version is served.
    pub kept: Vec<String>,
    /// What was done to the tables, for people: `add column blogs.summary`.
    pub steps: Vec<String>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.problems.is_empty()
    }
}

impl fmt::Display for Report {
    /// One line a problem or warning, then one that counts them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            writeln!(f, "error: {problem}")?;
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        write!(
            f,
            "{} good, {}, {}",
            count(self.schemas.len(), "schema"),
            count(self.problems.len(), "error"),
            count(self.warnings.len(), "warning")
        )
    }
}

/// Checks every file of a folder without a server: what `rowcast check` prints. An error is that
/// the folder cannot be read; everything else stands in the report. What only the stored records
/// can tell (a narrowed type, nulls under a required field) is told when the files are applied.
pub fn check_dir(dir: &Path) -> Result<Report> {
    let mut report = Report::default();
    let mut defs = system::schemas();
    let system = defs.len();
    for file in folder::read(dir)? {
        let parsed = file.parse();
        report.warnings.extend(parsed.warnings);
        match parsed.def {
            Ok(def) => defs.push(def),
            Err(problems) => report.problems.extend(problems),
        }
    }
    let faults = match link::link(&defs) {
        Err(faults) => faults,
        Ok(_) => match migrate::catalog_of(&defs) {
            Ok(catalog) => access_faults(&catalog, &defs),
            Err(faults) => faults,
        },
    };
    let named = |name: &str| faults.iter().any(|fault| fault.problem_of(name));
    report.schemas =
        defs[system..].iter().filter(|def| !named(&def.name)).map(|d| d.name.to_string()).collect();
    report.problems.extend(faults.into_iter().map(|fault| fault.problem));
    Ok(report)
}

impl Fault {
    /// Whether the problem stands in the file of schema `name`.
    fn problem_of(&self, name: &str) -> bool {
        self.schemas.first().is_some_and(|first| **first == *name)
    }
}

/// What is wrong with access rules, seen with all schemas.
pub(super) fn access_faults(catalog: &Catalog, defs: &[SchemaDef]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for def in defs.iter().filter(|def| def.kind == SchemaKind::User) {
        let Some(schema) = catalog.named(&def.name) else { continue };
        for problem in grant::check(catalog, schema) {
            // The rules know the path within the file; file and line are the definition's.
            let problem =
                def.problem(&problem.code, &problem.path, &problem.field, problem.message);
            // A filter may be wrong because of a change in a schema that it reads through.
            let mut schemas = vec![def.name.clone()];
            let targets = schema.relations.iter().filter_map(|r| catalog.get(r.target));
            schemas.extend(targets.map(|target| target.name.clone()));
            faults.push(Fault { problem, schemas });
        }
    }
    faults
}
