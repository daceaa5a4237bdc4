//! The fixtures' format, and how outcomes are compared.

use std::collections::BTreeMap;

use libtest_mimic::Failed;
use serde::Deserialize;
use serde_json::{Map, Value as Json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fixture {
    /// What the file shows; for readers.
    #[serde(rename = "about")]
    pub _about: String,
    pub schemas: Vec<Json>,
    #[serde(default)]
    pub people: BTreeMap<String, Person>,
    /// Made by the admin before anything else, in this order.
    #[serde(default)]
    pub records: Vec<Made>,
    #[serde(default)]
    pub listeners: BTreeMap<String, Listener>,
    #[serde(default)]
    pub cases: Vec<Json>,
    /// The schemas are wrong, in just these places.
    pub problems: Option<Vec<Problem>>,
}

const DEEDS: [&str; 8] =
    ["list", "read", "create", "update", "delete", "update_all", "delete_all", "subscribe"];
const WITH: [&str; 8] = ["filter", "select", "sort", "page", "limit", "event", "id", "body"];
const EXPECTED: [&str; 5] = ["items", "total", "last_page", "gives", "refused"];
const REST: [&str; 3] = ["about", "who", "heard"];

impl Fixture {
    /// The cases, each with one thing to do and something to expect. A key that means nothing
    /// would make a case that shows nothing.
    pub fn cases(&self) -> Result<Vec<Case>, String> {
        let mut cases = Vec::new();
        for (number, case) in self.cases.iter().enumerate() {
            let wrong = |why: &str| format!("case {}: {why}", number + 1);
            let map = case.as_object().ok_or_else(|| wrong("is no object"))?;
            let all = [&DEEDS[..], &WITH, &EXPECTED, &REST].concat();
            if let Some(key) = map.keys().find(|key| !all.contains(&key.as_str())) {
                return Err(wrong(&format!("there is no key '{key}'")));
            }
            let has = |keys: &[&str]| keys.iter().filter(|key| map.contains_key(**key)).count();
            if has(&DEEDS) != 1 {
                return Err(wrong(&format!("needs one of {}", DEEDS.join(", "))));
            }
            if has(&EXPECTED) == 0 {
                return Err(wrong(&format!("needs one of {}", EXPECTED.join(", "))));
            }
            let case = serde_json::from_value(case.clone());
            cases.push(case.map_err(|error| wrong(&error.to_string()))?);
        }
        Ok(cases)
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Person {
    #[serde(default)]
    pub roles: Vec<String>,
    /// What an outside issuer's token says; such people are known to the core alone.
    pub claims: Option<Map<String, Json>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    pub schema: String,
    pub body: Map<String, Json>,
}

#[derive(Deserialize)]
pub struct Listener {
    pub who: String,
    #[serde(flatten)]
    pub deed: Deed,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Problem {
    pub path: String,
    pub says: String,
}

#[derive(Deserialize)]
pub struct Case {
    pub about: Option<String>,
    pub who: People,
    #[serde(flatten)]
    pub deed: Deed,
    #[serde(flatten)]
    pub expected: Expected,
    /// By listener: `{"event","record"}`; those not named here hear nothing.
    #[serde(default)]
    pub heard: BTreeMap<String, Vec<Json>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub enum People {
    One(String),
    Many(Vec<String>),
}

impl People {
    pub fn all(&self) -> &[String] {
        match self {
            People::One(one) => std::slice::from_ref(one),
            People::Many(many) => many,
        }
    }
}

/// What is done: one of the first nine, with what goes along.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Deed {
    pub list: Option<String>,
    pub read: Option<String>,
    pub create: Option<String>,
    pub update: Option<String>,
    pub delete: Option<String>,
    pub update_all: Option<String>,
    pub delete_all: Option<String>,
    pub subscribe: Option<String>,
    pub filter: Option<Json>,
    pub select: Option<String>,
    pub sort: Option<String>,
    pub page: Option<u64>,
    pub limit: Option<u64>,
    pub event: Option<String>,
    pub id: Option<Json>,
    pub body: Option<Map<String, Json>>,
}

impl Deed {
    /// `blog/1` in two.
    pub fn place(text: &str) -> (&str, &str) {
        text.split_once('/').unwrap_or((text, ""))
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Expected {
    /// A list's records.
    pub items: Option<Vec<Json>>,
    pub total: Option<u64>,
    pub last_page: Option<u64>,
    /// A record, or a bulk call's count.
    pub gives: Option<Json>,
    pub refused: Option<Refusal>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    pub status: u16,
    /// The message, whole; on sockets what the reason must contain.
    pub says: String,
}

/// One way to run a fixture.
pub trait Side {
    /// Ids of people.
    fn saved(&self) -> Saved;
    /// Whether this side knows the person.
    fn has(&self, fixture: &Fixture, who: &str) -> bool;
    fn act(&mut self, who: &str, deed: &Deed) -> Result<Json, Refusal>;
    fn listen(&mut self, name: &str, deed: &Deed, who: &str) -> Result<(), Refusal>;
    /// What a listener has heard since it was last asked. `wanted` says how many are worth waiting
    /// for; `None` at the end, when nothing more may come.
    fn heard(&mut self, name: &str, wanted: Option<usize>) -> Vec<Json>;
}

/// Values for `${name}`.
#[derive(Default)]
pub struct Saved(pub BTreeMap<String, String>);

impl Saved {
    fn in_text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, value) in &self.0 {
            text = text.replace(&format!("${{{name}}}"), value);
        }
        let repeated = text.strip_prefix("${repeat:").and_then(|rest| rest.strip_suffix('}'));
        match repeated.and_then(|rest| rest.split_once(':')) {
            Some((count, what)) => what.repeat(count.parse().expect("a count")),
            None => text,
        }
    }

    pub fn in_json(&self, json: &Json) -> Json {
        match json {
            Json::String(text) => Json::String(self.in_text(text)),
            Json::Array(elements) => elements.iter().map(|one| self.in_json(one)).collect(),
            Json::Object(map) => Json::Object(self.in_map(map)),
            other => other.clone(),
        }
    }

    pub fn in_map(&self, map: &Map<String, Json>) -> Map<String, Json> {
        map.iter().map(|(key, value)| (key.clone(), self.in_json(value))).collect()
    }

    pub fn in_deed(&self, deed: &Deed) -> Deed {
        let text = |text: &Option<String>| text.as_deref().map(|text| self.in_text(text));
        Deed {
            read: text(&deed.read),
            update: text(&deed.update),
            delete: text(&deed.delete),
            filter: deed.filter.as_ref().map(|filter| self.in_json(filter)),
            body: deed.body.as_ref().map(|body| self.in_map(body)),
            ..deed.clone()
        }
    }

    pub fn in_expected(&self, expected: &Expected) -> Expected {
        let items = expected.items.as_ref();
        Expected {
            items: items.map(|items| items.iter().map(|item| self.in_json(item)).collect()),
            gives: expected.gives.as_ref().map(|gives| self.in_json(gives)),
            refused: expected.refused.as_ref().map(|refused| Refusal {
                status: refused.status,
                says: self.in_text(&refused.says),
            }),
            ..expected.clone()
        }
    }
}

pub fn compare(got: &Result<Json, Refusal>, want: &Expected) -> Result<(), String> {
    let got = match (got, &want.refused) {
        (Err(got), Some(want)) if got == want => return Ok(()),
        (Err(got), Some(want)) => {
            return Err(format!(
                "refused with {} {}\n  wanted {} {}",
                got.status, got.says, want.status, want.says
            ));
        }
        (Err(got), None) => return Err(format!("refused with {} {}", got.status, got.says)),
        (Ok(got), Some(_)) => return Err(format!("was not refused but got {got}")),
        (Ok(got), None) => got,
    };
    let same = |what: &str, got: &Json, want: Option<Json>| match want {
        Some(want) if *got != want => Err(format!("{what} {got}\n  wanted {want}")),
        _ => Ok(()),
    };
    same("items", &got["items"], want.items.clone().map(Json::Array))?;
    same("total", &got["total"], want.total.map(Json::from))?;
    same("last_page", &got["last_page"], want.last_page.map(Json::from))?;
    same("got", got, want.gives.clone())
}

pub fn same_problems(got: &[Problem], want: &[Problem]) -> Result<(), Failed> {
    let mut failures = Vec::new();
    for one in got {
        if !want.contains(one) {
            failures.push(format!("told: {one:?}"));
        }
    }
    for one in want {
        if !got.contains(one) {
            failures.push(format!("not told: {one:?}"));
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n").into()) }
}

pub fn show(records: &[Json]) -> String {
    Json::Array(records.to_vec()).to_string()
}
