//! Steps of a fixture: what is sent, with saved values filled in, and what must come back.

#![allow(dead_code)] // Each suite uses what it needs.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value as Json};

use super::{Options, Server};

/// What a fixture file may hold: the server, who uses it, and steps `S`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fixture<S> {
    pub about: String,
    /// Schemas by name: the schema file's content, or the name of a file in `schemas/`.
    #[serde(default)]
    pub schemas: BTreeMap<String, Json>,
    /// User names with their roles.
    #[serde(default)]
    pub users: BTreeMap<String, Vec<String>>,
    /// Environment of the server.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    pub steps: Vec<S>,
}

/// A running server and what the steps before have left.
pub struct Scene {
    pub server: Server,
    pub tokens: BTreeMap<String, String>,
    pub saved: BTreeMap<String, Json>,
}

impl Scene {
    /// `path` is the fixture's: its schemas are beside it.
    pub fn start<S>(setting: &Fixture<S>, path: &Path) -> Result<Scene, String> {
        let mut options = Options::default();
        for (name, schema) in &setting.schemas {
            let schema = match schema {
                Json::String(file) => {
                    std::fs::read_to_string(path.with_file_name("schemas").join(file))
                        .map_err(|error| format!("schemas/{file}: {error}"))?
                }
                schema => schema.to_string(),
            };
            options = options.schema(name, schema);
        }
        for (name, value) in &setting.env {
            options = options.env(name, value);
        }
        let server = Server::start(options);
        let mut saved: BTreeMap<String, Json> = BTreeMap::new();
        let mut tokens = BTreeMap::from([("admin".to_owned(), server.admin_token())]);
        for (name, roles) in &setting.users {
            let roles: Vec<&str> = roles.iter().map(String::as_str).collect();
            let (id, token) = server.user(name, &roles);
            saved.insert(name.clone(), Json::String(id));
            tokens.insert(name.clone(), token);
        }
        Ok(Scene { server, tokens, saved })
    }

    /// The token of `who`; `None` for a guest.
    pub fn token(&self, who: &str) -> Result<Option<&str>, String> {
        match who {
            "guest" => Ok(None),
            _ => match self.tokens.get(who) {
                Some(token) => Ok(Some(token)),
                None => Err(format!("no user {who}")),
            },
        }
    }
}

/// Reads a fixture file.
pub fn read<S: serde::de::DeserializeOwned>(path: &Path) -> Result<Fixture<S>, String> {
    let fail = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| fail(&error))?;
    serde_json::from_str(&text).map_err(|error| fail(&error))
}

/// Every `*.json` of a folder under `fixtures/`, by name.
pub fn files(folder: &str) -> Vec<(String, std::path::PathBuf)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(folder);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| (path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), path))
        .collect();
    files.sort();
    files
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Method, a space, and the target.
    pub call: String,
    /// `admin`, a user of the fixture, or `guest`.
    #[serde(default = "admin", rename = "as")]
    pub who: String,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    pub body: Option<Json>,
    /// The body as text, sent as it stands.
    pub raw: Option<String>,
    #[serde(default = "ok")]
    pub status: u16,
    /// What the whole answer must be.
    pub answer: Option<Json>,
    /// What `data` of the answer must be.
    pub data: Option<Json>,
    /// What the message of the refusal must contain.
    pub error: Option<String>,
    /// Headers of the answer, names in lower case.
    #[serde(default)]
    pub answer_headers: BTreeMap<String, String>,
    /// Name → where in the answer (`data.id`, `data.items.0.id`).
    #[serde(default)]
    pub save: BTreeMap<String, String>,
}

pub fn admin() -> String {
    "admin".into()
}

fn ok() -> u16 {
    200
}

/// Does a REST step.
pub fn exchange(scene: &mut Scene, step: &Step) -> Result<(), String> {
    let Scene { server, tokens, saved } = scene;
    let call = filled(&step.call, saved)?;
    let (method, target) = call.split_once(' ').ok_or("call: method, a space, target")?;
    let mut headers: Vec<(String, String)> = Vec::new();
    for (name, value) in &step.headers {
        let value = match value.strip_prefix("${token:").and_then(|v| v.strip_suffix('}')) {
            Some(user) => tokens.get(user).ok_or("no such token")?.clone(),
            None => filled(value, saved)?,
        };
        headers.push((name.clone(), value));
    }
    if step.who != "guest" {
        let token = tokens.get(&step.who).ok_or_else(|| format!("no user {}", step.who))?;
        headers.push(("Authorization".into(), format!("Bearer {token}")));
    }
    let body = match (&step.body, &step.raw) {
        (Some(body), None) => fill(body, saved)?.to_string(),
        (None, Some(raw)) => filled(raw, saved)?,
        (None, None) => String::new(),
        _ => return Err("body or raw, not both".into()),
    };
    let pairs: Vec<(&str, &str)> =
        headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let answer = server.raw(method, &target_encoded(target), &pairs, body.as_bytes());
    let shown = || format!("answer: {} {}", answer.status, clipped(&answer.text()));
    if answer.status != step.status {
        return Err(format!("expected status {}\n{}", step.status, shown()));
    }
    let json = if answer.body.is_empty() { Json::Null } else { answer.json() };
    if let Some(expected) = &step.answer {
        matches(&fill(expected, saved)?, &json, "answer").map_err(|why| why + "\n" + &shown())?;
    }
    if let Some(expected) = &step.data {
        let data = json.get("data").ok_or_else(|| format!("no data\n{}", shown()))?;
        matches(&fill(expected, saved)?, data, "data").map_err(|why| why + "\n" + &shown())?;
    }
    if let Some(expected) = &step.error {
        let expected = filled(expected, saved)?;
        if json["error"]["code"].as_str() != Some(&step.status.to_string()) {
            return Err(format!("error.code is not \"{}\"\n{}", step.status, shown()));
        }
        let message = json["error"]["message"].as_str().unwrap_or_default();
        if !message.contains(&expected) {
            return Err(format!("the message lacks '{expected}'\n{}", shown()));
        }
    } else if step.status >= 400 && step.answer.is_none() {
        return Err(format!("a refusal's text must be checked: give error or answer\n{}", shown()));
    }
    for (name, value) in &step.answer_headers {
        if answer.header(name) != Some(value) {
            return Err(format!("header {name} is {:?}, not {value:?}", answer.header(name)));
        }
    }
    for (name, place) in &step.save {
        let found = at(&json, place);
        if found.is_null() {
            return Err(format!("nothing to save at {place}\n{}", shown()));
        }
        saved.insert(name.clone(), found.clone());
    }
    Ok(())
}

/// What stands at a place such as `data.items.0.id`; null where nothing does.
pub fn at<'a>(json: &'a Json, place: &str) -> &'a Json {
    place.split('.').fold(json, |at, part| match part.parse::<usize>() {
        Ok(index) => &at[index],
        Err(_) => &at[part],
    })
}

pub fn clipped(text: &str) -> String {
    text.chars().take(2_000).collect()
}

/// Puts saved values and repetitions into text.
pub fn filled(text: &str, saved: &BTreeMap<String, Json>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        out.push_str(&rest[..start]);
        let end = rest[start..].find('}').ok_or("${ without }")? + start;
        let name = &rest[start + 2..end];
        if let Some((count, what)) = name.strip_prefix("repeat:").and_then(|n| n.split_once(':')) {
            let count = count.parse().map_err(|_| "repeat: no number")?;
            out.push_str(&what.repeat(count));
        } else {
            match saved.get(name).ok_or_else(|| format!("nothing saved as {name}"))? {
                Json::String(text) => out.push_str(text),
                value => out.push_str(&value.to_string()),
            }
        }
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// Puts saved values into JSON: a string that is nothing but `${name}` becomes the value itself.
pub fn fill(json: &Json, saved: &BTreeMap<String, Json>) -> Result<Json, String> {
    Ok(match json {
        Json::String(text) => {
            let whole = text.strip_prefix("${").and_then(|name| name.strip_suffix('}'));
            match whole.and_then(|name| saved.get(name)) {
                Some(value) => value.clone(),
                None => Json::String(filled(text, saved)?),
            }
        }
        Json::Array(values) => {
            Json::Array(values.iter().map(|value| fill(value, saved)).collect::<Result<_, _>>()?)
        }
        Json::Object(object) => {
            let mut out = Map::new();
            for (key, value) in object {
                out.insert(key.clone(), fill(value, saved)?);
            }
            Json::Object(out)
        }
        other => other.clone(),
    })
}

/// Whether `actual` is what `expected` says; the error names the place.
pub fn matches(expected: &Json, actual: &Json, at: &str) -> Result<(), String> {
    let no = |what: &str| Err(format!("{at}: expected {what}, got {actual}"));
    match (expected, actual) {
        (Json::String(text), _) if text.starts_with('@') => {
            let (kind, rest) = text.split_once(' ').unwrap_or((text, ""));
            let string = actual.as_str().unwrap_or_default();
            let good = match kind {
                "@any" => true,
                "@int" => actual.is_i64() || actual.is_u64(),
                "@string" => actual.is_string(),
                "@uuid" => uuid::Uuid::try_parse(string).is_ok() && string.len() == 36,
                "@time" => string.ends_with('Z') && string.parse::<jiff::Timestamp>().is_ok(),
                "@cursor" => string.parse::<rowcast::model::cursor::Cursor>().is_ok(),
                "@contains" => string.contains(rest),
                "@not" => string != rest,
                _ => return Err(format!("{at}: unknown matcher {text}")),
            };
            if good { Ok(()) } else { no(text) }
        }
        (Json::Object(expected), Json::Object(actual)) => {
            let open = expected.contains_key("...");
            for (key, value) in expected.iter().filter(|(key, _)| *key != "...") {
                let at = format!("{at}.{key}");
                match actual.get(key) {
                    Some(found) if value != "@absent" => matches(value, found, &at)?,
                    Some(found) => return Err(format!("{at}: must be absent, is {found}")),
                    None if value == "@absent" => {}
                    None => return Err(format!("{at}: missing")),
                }
            }
            match actual.keys().find(|key| !expected.contains_key(*key)) {
                Some(key) if !open => Err(format!("{at}: unexpected key {key}")),
                _ => Ok(()),
            }
        }
        (Json::Array(expected), Json::Array(actual)) => {
            if expected.len() != actual.len() {
                return Err(format!(
                    "{at}: expected {} elements, got {}",
                    expected.len(),
                    actual.len()
                ));
            }
            expected.iter().zip(actual).enumerate().try_for_each(|(index, (expected, actual))| {
                matches(expected, actual, &format!("{at}.{index}"))
            })
        }
        _ if expected == actual => Ok(()),
        _ => no(&expected.to_string()),
    }
}

/// A target may be written readably: what a request line cannot hold is percent-encoded.
pub fn target_encoded(target: &str) -> String {
    let mut out = String::new();
    for byte in target.bytes() {
        match byte {
            b'!' | b'#'..=b';' | b'=' | b'?'..=b'[' | b']' | b'_' | b'a'..=b'z' | b'~' => {
                out.push(byte as char)
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
