//! What became of a folder's files, for logs and for `rowcast check`.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use crate::auth::grant;
use crate::error::{Problem, Result};
use crate::model::catalog::Catalog;
use crate::model::file::{SchemaDef, What};
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
    let mut bad = BTreeSet::new();
    for file in folder::read(dir)? {
        let parsed = file.parse();
        report.warnings.extend(parsed.warnings);
        match parsed.def {
            Ok(def) => defs.push(def),
            Err(problems) => {
                bad.insert(file.stem.clone());
                report.problems.extend(problems);
                defs.extend(parsed.draft);
            }
        }
    }
    let faults = faults(&defs);
    let good = |name: &str| !bad.contains(name) && !faults.iter().any(|f| f.stands_in(name));
    report.schemas = defs
        .iter()
        .filter(|def| def.kind == SchemaKind::User && good(&def.name))
        .map(|def| def.name.to_string())
        .collect();
    report.problems.extend(told(faults, &Around { undone: bad, ..Around::default() }));
    Ok(report)
}

/// Everything that is wrong between schemas, drafts of bad files among them, and with their access
/// rules.
pub(super) fn faults(defs: &[SchemaDef]) -> Vec<Fault> {
    let (linked, mut faults) = link::link_all(defs);
    let catalog = migrate::catalog_of_linked(defs, linked);
    faults.extend(access_faults(&catalog, defs));
    faults
}

/// What is known of the other files when a fault is told.
#[derive(Default)]
pub(super) struct Around {
    /// Not applied: bad, or taken back.
    pub undone: BTreeSet<String>,
    /// Removed.
    pub gone: BTreeSet<String>,
    /// To be applied now, with a text that is new; `None` where every file is new.
    pub changed: Option<BTreeSet<String>>,
}

/// Faults in words that fit what happened: told of the file whose change is at fault, not of the
/// one that it does not go with; and a file that is only caught up in the trouble of another one,
/// or a removal that others stand against, is told as such.
pub(super) fn told(faults: Vec<Fault>, around: &Around) -> Vec<Problem> {
    let mut problems = Vec::new();
    for Fault { mut problem, schemas } in faults {
        let first = schemas.first().map(|name| name.to_string()).unwrap_or_default();
        let among = |names: &BTreeSet<String>| {
            schemas
                .iter()
                .skip(1)
                .find(|name| names.contains(&***name))
                .map(|name| name.to_string())
        };
        let waits = |problem: &mut Problem, other: &str| {
            problem.code = "schema.waiting".to_owned();
            problem.message =
                format!("waits for {other}.json, which is not applied ({})", problem.message);
        };
        let culprit = match &around.changed {
            Some(changed) if !changed.contains(&first) => among(changed),
            _ => None,
        };
        let removed = among(&around.gone).filter(|_| problem.code == "relation.target.not_found");
        if let Some(other) = removed {
            problem.message = format!(
                "{other}.json was removed, but this relation leads to '{other}'; put the file \
                 back, or take the relation out first"
            );
            problem.code = "schema.removed.related".to_owned();
        } else if let Some(culprit) = culprit {
            if around.undone.contains(&first) {
                waits(&mut problem, &first);
            } else {
                problem.message = format!(
                    "does not go with {first}.json ({}: {})",
                    problem.path, problem.message
                );
            }
            problem.file = Some(format!("{culprit}.json"));
            (problem.line, problem.path) = (None, String::new());
        } else if let Some(other) = among(&around.undone)
            && problem.code.starts_with("relation.")
        {
            waits(&mut problem, &other);
        }
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }
    problems
}

impl Fault {
    /// Whether the problem stands in the file of schema `name`.
    pub(super) fn stands_in(&self, name: &str) -> bool {
        self.schemas.first().is_some_and(|first| **first == *name)
    }
}

/// What is wrong with access rules, seen with all schemas.
pub(super) fn access_faults(catalog: &Catalog, defs: &[SchemaDef]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for def in defs.iter().filter(|def| def.kind == SchemaKind::User) {
        let Some(schema) = catalog.named(&def.name) else { continue };
        // Fields that are wrong themselves are not there; that a rule names them is no news.
        let wrong: Vec<String> = def
            .fields
            .iter()
            .filter(|field| match field.what {
                What::Broken => true,
                What::Relation(_) => schema.relation(&field.name).is_none(),
                What::Column(_) => false,
            })
            .map(|field| format!("'{}'", field.name))
            .collect();
        for problem in grant::check(catalog, schema) {
            if wrong.iter().any(|name| problem.message.contains(name)) {
                continue;
            }
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
