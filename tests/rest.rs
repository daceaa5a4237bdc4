//! REST exchanges from `fixtures/rest/*.json` against a real server; see the README there.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::{Options, Server};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::{Map, Value as Json};

fn main() {
    let arguments = Arguments::from_args();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/rest");
    let mut trials = Vec::new();
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .expect("fixtures/rest")
        .map(|entry| entry.expect("a file of fixtures/rest").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    for path in files {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        trials.push(Trial::test(name, move || run(&path)));
    }
    libtest_mimic::run(&arguments, trials).exit();
}

/// What a fixture file may hold.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixture {
    #[allow(dead_code)]
    about: String,
    /// Schemas by name: the schema file's content, or the name of a file in `schemas/`.
    #[serde(default)]
    schemas: BTreeMap<String, Json>,
    /// User names with their roles.
    #[serde(default)]
    users: BTreeMap<String, Vec<String>>,
    /// Environment of the server.
    #[serde(default)]
    env: BTreeMap<String, String>,
    steps: Vec<Step>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    /// Method, a space, and the target.
    call: String,
    /// `admin`, a user of the fixture, or `guest`.
    #[serde(default = "admin", rename = "as")]
    who: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Option<Json>,
    /// The body as text, sent as it stands.
    raw: Option<String>,
    #[serde(default = "ok")]
    status: u16,
    /// What the whole answer must be.
    answer: Option<Json>,
    /// What `data` of the answer must be.
    data: Option<Json>,
    /// What the message of the refusal must contain.
    error: Option<String>,
    /// Headers of the answer, names in lower case.
    #[serde(default)]
    answer_headers: BTreeMap<String, String>,
    /// Name → where in the answer (`data.id`, `data.items.0.id`).
    #[serde(default)]
    save: BTreeMap<String, String>,
}

fn admin() -> String {
    "admin".into()
}

fn ok() -> u16 {
    200
}

fn run(path: &Path) -> Result<(), Failed> {
    let text = std::fs::read_to_string(path)?;
    let fixture: Fixture =
        serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut options = Options::default();
    for (name, schema) in &fixture.schemas {
        let schema = match schema {
            Json::String(file) => {
                std::fs::read_to_string(path.with_file_name("schemas").join(file))?
            }
            schema => schema.to_string(),
        };
        options = options.schema(name, schema);
    }
    for (name, value) in &fixture.env {
        options = options.env(name, value);
    }
    let server = Server::start(options);
    let mut saved: BTreeMap<String, Json> = BTreeMap::new();
    let mut tokens = BTreeMap::from([("admin".to_owned(), server.admin_token())]);
    for (name, roles) in &fixture.users {
        let roles: Vec<&str> = roles.iter().map(String::as_str).collect();
        let (id, token) = server.user(name, &roles);
        saved.insert(name.clone(), Json::String(id));
        tokens.insert(name.clone(), token);
    }
    for (number, step) in fixture.steps.iter().enumerate() {
        exchange(&server, step, &tokens, &mut saved).map_err(|why| {
            format!(
                "step {}: {} as {}\n{why}\nthe server said:\n{}",
                number + 1,
                step.call,
                step.who,
                server.log()
            )
        })?;
    }
    Ok(())
}

fn exchange(
    server: &Server,
    step: &Step,
    tokens: &BTreeMap<String, String>,
    saved: &mut BTreeMap<String, Json>,
) -> Result<(), String> {
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
        let mut at = &json;
        for part in place.split('.') {
            at = match part.parse::<usize>() {
                Ok(index) => &at[index],
                Err(_) => &at[part],
            };
        }
        if at.is_null() {
            return Err(format!("nothing to save at {place}\n{}", shown()));
        }
        saved.insert(name.clone(), at.clone());
    }
    Ok(())
}

fn clipped(text: &str) -> String {
    text.chars().take(2_000).collect()
}

/// Puts saved values and repetitions into text.
fn filled(text: &str, saved: &BTreeMap<String, Json>) -> Result<String, String> {
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
fn fill(json: &Json, saved: &BTreeMap<String, Json>) -> Result<Json, String> {
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
fn matches(expected: &Json, actual: &Json, at: &str) -> Result<(), String> {
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
fn target_encoded(target: &str) -> String {
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
