//! What the folder would change in a store that comes from elsewhere.

use std::path::Path;

use crate::error::Result;

use super::folder;

/// How the folder differs from applied schemas; names without `.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Against {
    /// There is a file, and it says something else.
    pub changed: Vec<String>,
    /// There is a file, and no such schema is served.
    pub new: Vec<String>,
    /// There is no file.
    pub missing: Vec<String>,
}

/// Compares the folder with `applied`: names and texts.
///
/// # Errors
/// 503 where the folder cannot be read.
pub fn against(dir: &Path, applied: &[(String, String)]) -> Result<Against> {
    let files = folder::read(dir)?;
    let mut against = Against::default();
    for (name, text) in applied {
        match files.iter().find(|file| file.stem == *name) {
            None => against.missing.push(name.clone()),
            Some(file) if file.text() != Some(text) => against.changed.push(name.clone()),
            Some(_) => {}
        }
    }
    let new = files.iter().filter(|file| applied.iter().all(|(name, _)| file.stem != *name));
    against.new.extend(new.map(|file| file.stem.clone()));
    Ok(against)
}
