//! Stand-in until the schemas service is there: applies the folder once, at start.

use crate::error::{Error, Kind, Result};
use crate::model::{file, system};
use crate::store::{Store, migrate};

pub(super) async fn apply(store: &Store, dir: &std::path::Path) -> Result<()> {
    let mut defs = system::schemas();
    let mut problems = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".json") {
            let bytes = std::fs::read(entry.path()).map_err(Error::internal)?;
            match file::parse(Some(&name), &bytes).def {
                Ok(def) => defs.push(def),
                Err(wrong) => problems.extend(wrong),
            }
        }
    }
    let refused = |problems| {
        let mut error = Error::new(Kind::Unprocessable, "the schemas have errors");
        error.problems = problems;
        error
    };
    if !problems.is_empty() {
        return Err(refused(problems));
    }
    store
        .write(move |tx| {
            let migration = migrate::plan(&tx.stored()?, &defs, &migrate::How::default())
                .map_err(|faults| refused(faults.into_iter().map(|f| f.problem).collect()))?;
            tx.migrate(&migration)
        })
        .await
        .map(drop)
}
