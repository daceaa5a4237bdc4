//! The structure of the `access` block. Here an unknown key is an error, never a warning: a rule
//! that is not understood must not be half applied. Fields, filters and placeholders are checked
//! by [`crate::auth::grant::check`] once all schemas are linked.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::{Check, join, list};
use crate::model::near::nearest;
use crate::model::schema::{AccessRules, RoleRules, Rule, RuleBody};

const ACTIONS: [&str; 4] = ["read", "create", "update", "delete"];

pub(super) fn rules(check: &mut Check, access: &Json) -> AccessRules {
    let mut rules = AccessRules::default();
    let Json::Object(roles) = access else {
        if !access.is_null() {
            check.wrong("access", "", "an object of roles", access);
        }
        return rules;
    };
    for (role, actions) in roles {
        let path = join("access", role);
        if role.is_empty() {
            check.bad("access.role.invalid", "access", "", "a role has a name".to_owned());
            continue;
        }
        if role == "admin" {
            let message = "'admin' may do everything, always; take the rule out".to_owned();
            check.bad("access.role.invalid", &path, "", message);
            continue;
        }
        let Json::Object(actions) = actions else {
            check.wrong(&path, "", "an object with read, create, update, delete", actions);
            continue;
        };
        unknown(check, actions, &path, "action", &ACTIONS);
        let mut action = |name| rule(check, actions, &path, name);
        rules.roles.push(RoleRules {
            role: role.as_str().into(),
            read: action("read"),
            create: action("create"),
            update: action("update"),
            delete: action("delete"),
        });
    }
    rules
}

fn rule(check: &mut Check, actions: &Map<String, Json>, path: &str, action: &str) -> Rule {
    let at = join(path, action);
    match actions.get(action) {
        None | Some(Json::Bool(false)) => Rule::No,
        Some(Json::Bool(true)) => Rule::Yes,
        Some(Json::Object(body)) => Rule::When(rule_body(check, body, &at, action)),
        Some(other) => {
            let got = crate::model::json::brief(other);
            let message = format!("'{action}' must be true, false or an object, got {got}");
            check.bad("access.rule.invalid", &at, "", message);
            Rule::No
        }
    }
}

/// Which keys an action takes: a read sets nothing, a new record has no old state.
fn keys(action: &str) -> &'static [&'static str] {
    match action {
        "read" => &["filter", "fields"],
        "delete" => &["filter"],
        _ => &["filter", "fields", "set"],
    }
}

fn rule_body(check: &mut Check, body: &Map<String, Json>, path: &str, action: &str) -> RuleBody {
    unknown(check, body, path, "key", keys(action));
    let filter = match body.get("filter") {
        None => None,
        Some(filter @ Json::Object(_)) => Some(filter.clone()),
        Some(other) => {
            wrong(check, &join(path, "filter"), "a filter (an object)", other);
            None
        }
    };
    let fields = match body.get("fields") {
        None => None,
        Some(Json::Array(names)) => Some(names_of(check, names, &join(path, "fields"))),
        Some(other) => {
            wrong(check, &join(path, "fields"), "an array of field names", other);
            None
        }
    };
    let set = match body.get("set") {
        Some(Json::Object(set)) if action == "create" || action == "update" => {
            set.iter().map(|(name, value)| (name.as_str().into(), value.clone())).collect()
        }
        Some(other) if action == "create" || action == "update" => {
            wrong(check, &join(path, "set"), "an object of fields and values", other);
            Vec::new()
        }
        _ => Vec::new(),
    };
    RuleBody { filter, fields, set }
}

fn names_of(check: &mut Check, names: &[Json], path: &str) -> Vec<Arc<str>> {
    let mut found = Vec::new();
    for (at, name) in names.iter().enumerate() {
        match name {
            Json::String(name) => found.push(name.as_str().into()),
            other => wrong(check, &format!("{path}[{at}]"), "a field name", other),
        }
    }
    found
}

fn wrong(check: &mut Check, path: &str, what: &str, got: &Json) {
    let got = crate::model::json::brief(got);
    check.bad("access.rule.invalid", path, "", format!("expected {what}, got {got}"));
}

fn unknown(check: &mut Check, object: &Map<String, Json>, path: &str, what: &str, known: &[&str]) {
    for key in object.keys().filter(|key| !known.contains(&key.as_str())) {
        let hint = match nearest(key, known.iter().copied()) {
            Some(near) => format!("did you mean '{near}'?"),
            None => format!("use {}", list(known)),
        };
        let message = format!("unknown {what} '{key}'; {hint}");
        check.bad("access.key.unknown", &join(path, key), "", message);
    }
}
