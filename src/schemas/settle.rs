//! From the folder's files to what is applied: everything that can be, nothing that cannot.
//!
//! Runs within one write. Whatever is found wrong is taken back file by file, together with what
//! depends on it, until the rest is good as a whole; for what was taken back the last applied
//! version goes on being served.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Result;
use crate::model::file::{self, SchemaDef};
use crate::model::link::Fault;
use crate::model::schema::SchemaKind;
use crate::model::system;
use crate::store::Tx;
use crate::store::migrate::{self, How, Migration, Stored};

use super::report::{Around, Report, access_faults, told};

/// What is wanted of a folder.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// Good files.
    pub defs: Vec<SchemaDef>,
    /// Names whose file is there but bad: their last version stays.
    pub bad: BTreeSet<String>,
}

/// The served definitions, from the texts in the catalog.
pub(super) fn applied(stored: &Stored) -> BTreeMap<String, SchemaDef> {
    let served = stored.schemas.values().filter(|s| !s.retired);
    served
        .filter(|served| served.schema.kind == SchemaKind::User)
        .filter_map(|served| {
            let name = format!("{}.json", served.schema.name);
            match file::parse(Some(&name), served.text.as_bytes()).def {
                Ok(def) => Some((def.name.to_string(), def)),
                Err(problems) => {
                    // Only a newer program can be stricter than the one that applied it.
                    for problem in problems {
                        tracing::error!("the applied version is no longer good: {problem}");
                    }
                    None
                }
            }
        })
        .collect()
}

/// Where a schema stands while it is being decided on.
enum Choice {
    /// As it is applied.
    Applied,
    /// Its file is to be applied; whether it differs from what is applied.
    File(Box<SchemaDef>, bool),
    /// Its file is gone.
    Gone,
}

/// Applies as much of `wanted` as can be. Gives what was done and what was not.
pub(super) fn settle(tx: &mut Tx<'_>, wanted: Wanted) -> Result<Report> {
    let stored = tx.stored()?;
    let applied = applied(&stored);
    let mut choices: BTreeMap<String, Choice> = BTreeMap::new();
    for name in applied.keys() {
        let choice = if wanted.bad.contains(name) { Choice::Applied } else { Choice::Gone };
        choices.insert(name.clone(), choice);
    }
    let mut report = Report::default();
    for def in wanted.defs {
        let same = applied.get(&*def.name).is_some_and(|was| was.origin.text == def.origin.text);
        if same && !def.accept_data_loss.is_empty() {
            let message = "the change it was for is applied; take \"accept_data_loss\" out, so \
                           that the next change cannot lose data unseen";
            let code = "accept_data_loss.left";
            report.warnings.push(def.problem(code, "accept_data_loss", "", message.to_owned()));
        }
        choices.insert(def.name.to_string(), Choice::File(Box::new(def), !same));
    }
    let mut undone = wanted.bad.clone();
    loop {
        let defs = chosen(&choices, &applied);
        let faults = match examine(tx, &stored, &defs, &How::default())? {
            Ok(migration) => {
                if !migration.is_empty() {
                    tx.migrate(&migration)?;
                }
                report.steps = migration.steps.iter().map(ToString::to_string).collect();
                report.schemas = defs
                    .iter()
                    .filter(|def| def.kind == SchemaKind::User)
                    .map(|def| def.name.to_string())
                    .collect();
                report.kept =
                    undone.iter().filter(|name| applied.contains_key(*name)).cloned().collect();
                return Ok(report);
            }
            Err(faults) => faults,
        };
        let culprits = culprits(&faults, &choices);
        let named = |is: fn(&Choice) -> bool| {
            let found = choices.iter().filter(|(_, choice)| is(choice));
            found.map(|(name, _)| name.clone()).collect()
        };
        let around = Around {
            undone: undone.clone(),
            gone: named(|choice| matches!(choice, Choice::Gone)),
            changed: Some(named(|choice| matches!(choice, Choice::File(_, true)))),
        };
        report.problems.extend(told(faults, &around));
        if culprits.is_empty() {
            // Nothing is to be changed, and what is applied is not good in the eyes of this
            // program, which may be newer than the one that applied it. It is served all the same.
            report.kept = applied.into_keys().collect();
            return Ok(report);
        }
        for name in culprits {
            if applied.contains_key(&name) {
                choices.insert(name.clone(), Choice::Applied);
            } else {
                choices.remove(&name);
            }
            undone.insert(name);
        }
    }
}

/// Plans, and checks what access rules and rows say.
pub(super) fn examine(
    tx: &Tx<'_>,
    stored: &Stored,
    defs: &[SchemaDef],
    how: &How,
) -> Result<std::result::Result<Migration, Vec<Fault>>> {
    let migration = match migrate::plan(stored, defs, how) {
        Ok(migration) => migration,
        Err(faults) => return Ok(Err(faults)),
    };
    let mut faults = access_faults(&migration.catalog, defs);
    faults.extend(tx.examine(&migration)?);
    Ok(if faults.is_empty() { Ok(migration) } else { Err(faults) })
}

fn chosen(
    choices: &BTreeMap<String, Choice>,
    applied: &BTreeMap<String, SchemaDef>,
) -> Vec<SchemaDef> {
    let mut defs = system::schemas();
    for (name, choice) in choices {
        match choice {
            Choice::Applied => defs.extend(applied.get(name).cloned()),
            Choice::File(def, _) => defs.push((**def).clone()),
            Choice::Gone => {}
        }
    }
    defs
}

/// What to take back: of each fault one changed schema, a removal before a new text. If more than
/// one is at fault, the next round finds it. Where no change is named, every change goes.
fn culprits(faults: &[Fault], choices: &BTreeMap<String, Choice>) -> BTreeSet<String> {
    let changed = |choice: &Choice| matches!(choice, Choice::File(_, true) | Choice::Gone);
    let mut found = BTreeSet::new();
    for fault in faults {
        let of = |is: &dyn Fn(&Choice) -> bool| {
            fault.schemas.iter().find(|name| choices.get(&***name).is_some_and(is))
        };
        if let Some(name) = of(&|choice| matches!(choice, Choice::Gone)).or_else(|| of(&changed)) {
            found.insert(name.to_string());
        }
    }
    if found.is_empty() {
        found.extend(choices.iter().filter(|(_, c)| changed(c)).map(|(name, _)| name.clone()));
    }
    found
}
