//! The optional file: a JSON object of settings.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value as Json;

use crate::config::secret;
use crate::config::settings::{SETTINGS, Source, Value};
use crate::error::{Error, Result};
use crate::model::json;

/// Reads the file's settings; unknown names are refused with their line.
pub fn read(path: &Path) -> Result<BTreeMap<&'static str, Value>> {
    let shown = path.display();
    let bytes =
        std::fs::read(path).map_err(|error| Error::bad(format!("cannot read {shown}: {error}")))?;
    let parsed = json::parse(&bytes).map_err(|error| Error::bad(format!("{shown}: {error}")))?;
    let Json::Object(settings) = parsed else {
        return Err(Error::bad(format!("{shown}: a JSON object of settings is needed")));
    };
    let text = String::from_utf8_lossy(&bytes);
    let mut values = BTreeMap::new();
    for (key, given) in &settings {
        let line = line_of(&text, key);
        let source = Source::File { path: path.to_owned(), key: key.clone(), line };
        let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) else {
            let why = if secret::NAMES.iter().any(|name| name.eq_ignore_ascii_case(key)) {
                let name = key.to_ascii_uppercase();
                format!("secrets come by environment ({name} or {name}_FILE), not by this file")
            } else {
                format!("no such setting; {}", nearest(key))
            };
            return Err(Error::bad(format!("{source}: {why}")));
        };
        let text = match given {
            Json::String(text) => text.clone(),
            Json::Number(number) => number.to_string(),
            Json::Bool(switch) => switch.to_string(),
            Json::Array(several) if several.iter().all(Json::is_string) => {
                several.iter().filter_map(Json::as_str).collect::<Vec<_>>().join(",")
            }
            other => {
                let why =
                    format!("{other}: use a text, a number, true or false, or a list of texts");
                return Err(Error::bad(format!("{source}: {why}")));
            }
        };
        values.insert(setting.key, Value { text, source });
    }
    Ok(values)
}

/// The line where a top-level key stands; the object is flat, so its first appearance before a
/// colon is it.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let quoted = Json::from(key).to_string();
    let is_key = |at: usize| text[at + quoted.len()..].trim_start().starts_with(':');
    let at = text.match_indices(&quoted).map(|(at, _)| at).find(|&at| is_key(at))?;
    Some(text[..at].matches('\n').count() + 1)
}

/// A hint at what was meant.
fn nearest(key: &str) -> String {
    let alike = |name: &str| {
        let key = key.replace('-', "_").to_ascii_lowercase();
        key == name || key.contains(name) || name.contains(&key) && key.len() > 2
    };
    match SETTINGS.iter().find(|setting| alike(setting.key)) {
        Some(setting) => format!("did you mean \"{}\"?", setting.key),
        None => "`rowcast serve --help` lists all".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        let error = read(file.path()).expect_err(text).message;
        error.replace(&file.path().display().to_string(), "FILE")
    }

    #[test]
    fn refusals_name_key_and_line() {
        assert_eq!(
            refusal("{\n \"port\": 1,\n \"prot\": 2\n}"),
            "FILE:3: \"prot\": no such setting; `rowcast serve --help` lists all"
        );
        assert_eq!(
            refusal("{\"body-bytes\": 1}"),
            "FILE:1: \"body-bytes\": no such setting; did you mean \"body_bytes\"?"
        );
        assert!(refusal("{\n\"app_key\": \"x\"}").contains("APP_KEY_FILE"));
        assert!(refusal("{\"port\": {}}").starts_with("FILE:1: \"port\": {}"));
        assert!(refusal("[]").contains("JSON object"));
        assert!(refusal("{\"port\": 1, \"port\": 2}").contains("port"));
    }
}
