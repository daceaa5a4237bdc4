//! Filters read as the documents say, straight from their JSON.

use serde_json::Value as Json;

use super::grants::{Oracle, Who};
use super::world::{Kind, Rec, Rel, columns, key_of, relation};

/// Who looks.
#[derive(Clone, Copy)]
pub enum Eyes<'a> {
    /// Rules read unrestricted.
    All,
    Of(&'a Who),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ty {
    Int,
    Text,
    /// A user's id.
    User,
}

/// A step of a path: `b_id` is another name of `b`.
pub fn step(schema: &str, name: &str) -> Option<Rel> {
    relation(schema, name).or_else(|| key_of(schema, name))
}

pub fn leaf_type(schema: &str, path: &[&str]) -> Ty {
    match path {
        [] => {
            if schema == "user" {
                Ty::User
            } else {
                Ty::Int
            }
        }
        [name, rest @ ..] => match step(schema, name) {
            Some(rel) => leaf_type(rel.target, rest),
            None => match *name {
                "s" | "username" => Ty::Text,
                "id" if schema == "user" => Ty::User,
                _ => Ty::Int,
            },
        },
    }
}

/// Whether a filter reads other records. A bare to-one relation is a column.
pub fn crosses(schema: &str, filter: &Json) -> bool {
    filter.as_object().expect("a filter").iter().any(|(key, inner)| match key.as_str() {
        "$and" | "$or" => {
            inner.as_array().expect("an array").iter().any(|part| crosses(schema, part))
        }
        "$not" => crosses(schema, inner),
        path => {
            path.contains('.')
                || step(schema, path).is_some_and(|rel| !matches!(rel.kind, Kind::Key(_)))
        }
    })
}

/// First names of paths, in order.
pub fn heads<'f>(filter: &'f Json, out: &mut Vec<&'f str>) {
    for (key, inner) in filter.as_object().expect("a filter") {
        match key.as_str() {
            "$and" | "$or" => {
                inner.as_array().expect("an array").iter().for_each(|part| heads(part, out));
            }
            "$not" => heads(inner, out),
            path => out.push(path.split('.').next().expect("a name")),
        }
    }
}

/// All paths.
pub fn paths<'f>(filter: &'f Json, out: &mut Vec<&'f str>) {
    for (key, inner) in filter.as_object().expect("a filter") {
        match key.as_str() {
            "$and" | "$or" => {
                inner.as_array().expect("an array").iter().for_each(|part| paths(part, out));
            }
            "$not" => paths(inner, out),
            path => out.push(path),
        }
    }
}

/// TRUE, FALSE or (`None`) UNKNOWN.
pub fn truth(
    oracle: &Oracle,
    schema: &'static str,
    rec: &Rec,
    filter: &Json,
    eyes: Eyes<'_>,
) -> Option<bool> {
    let parts = filter.as_object().expect("a filter").iter().map(|(key, inner)| {
        let each = |inner: &Json| -> Vec<Option<bool>> {
            let parts = inner.as_array().expect("an array").iter();
            parts.map(|part| truth(oracle, schema, rec, part, eyes)).collect()
        };
        match key.as_str() {
            "$and" => and(each(inner)),
            "$or" => and(each(inner).into_iter().map(not).collect()).map(|value| !value),
            "$not" => not(truth(oracle, schema, rec, inner, eyes)),
            path => field(oracle, schema, rec, path, inner, eyes),
        }
    });
    and(parts.collect())
}

fn not(value: Option<bool>) -> Option<bool> {
    value.map(|value| !value)
}

fn and(parts: Vec<Option<bool>>) -> Option<bool> {
    if parts.contains(&Some(false)) {
        Some(false)
    } else if parts.contains(&None) {
        None
    } else {
        Some(true)
    }
}

fn field(
    oracle: &Oracle,
    schema: &'static str,
    rec: &Rec,
    path: &str,
    tests: &Json,
    eyes: Eyes<'_>,
) -> Option<bool> {
    let names: Vec<&str> = path.split('.').collect();
    let mut leaves = Vec::new();
    let mut many = false;
    let mut bare_many = false;
    let mut at = schema;
    for name in &names {
        let rel = step(at, name);
        many |= rel.is_some_and(|rel| rel.to_many());
        bare_many = rel.is_some_and(|rel| rel.to_many());
        at = rel.map_or(at, |rel| rel.target);
    }
    collect(oracle, schema, Some(rec), &names, eyes, &mut leaves);
    let tests = tests.as_object().expect("operators");
    if !many {
        assert_eq!(leaves.len(), 1, "{path}");
        return and(tests.iter().map(|(op, value)| compare(op, &leaves[0], value)).collect());
    }
    let (mut positive, mut result) = (Vec::new(), true);
    for (op, value) in tests {
        let negative = match op.as_str() {
            "$neq" if value.is_null() => bare_many.then_some(false).filter(|_| false),
            "$neq" => Some(true),
            "$nin" | "$notcontains" => Some(true),
            "$null" if bare_many && *value == Json::Bool(true) => Some(true),
            "$eq" if bare_many && value.is_null() => Some(true),
            _ => None,
        };
        if negative.is_none() {
            positive.push((op.as_str(), value));
            continue;
        }
        let passes = |leaf: &Json| match op.as_str() {
            "$neq" => compare("$eq", leaf, value) == Some(true),
            "$nin" => compare("$in", leaf, value) == Some(true),
            "$notcontains" => compare("$contains", leaf, value) == Some(true),
            // A bare relation that is null: nothing is related.
            _ => true,
        };
        result &= !leaves.iter().any(passes);
    }
    if !positive.is_empty() {
        result &= leaves
            .iter()
            .any(|leaf| positive.iter().all(|(op, value)| compare(op, leaf, value) == Some(true)));
    }
    Some(result)
}

/// The values a path leads to.
fn collect(
    oracle: &Oracle,
    schema: &'static str,
    rec: Option<&Rec>,
    names: &[&str],
    eyes: Eyes<'_>,
    out: &mut Vec<Json>,
) {
    let (name, rest) = names.split_first().expect("a name");
    let Some(rel) = step(schema, name) else {
        let value = match rec {
            None => Json::Null,
            Some(rec) if *name == "id" => oracle.db.shown_id(schema, &rec["id"]),
            Some(rec) => rec[*name].clone(),
        };
        return out.push(value);
    };
    let next =
        rest.first().map_or("id", |name| step(rel.target, name).map_or(name, |rel| rel.name));
    let mut related = rec.map_or(Vec::new(), |rec| oracle.db.related(rel, rec));
    if let Eyes::Of(who) = eyes {
        related.retain(|id| oracle.meets(rel.target, *id, who, Some(next)));
    }
    let users;
    let mut go = |id: Option<i64>, rec: Option<&Rec>| match (rest.is_empty(), id) {
        (true, Some(id)) => out.push(oracle.db.shown_id(rel.target, &id.into())),
        (true, None) => out.push(Json::Null),
        (false, _) => collect(oracle, rel.target, rec, rest, eyes, out),
    };
    if rel.target == "user" {
        users = related.first().map(|id| super::view::user_rec(*id));
        return go(related.first().copied(), users.as_ref());
    }
    if rel.to_many() {
        for id in related {
            go(Some(id), oracle.db.rec(rel.target, id));
        }
    } else {
        let id = related.first().copied();
        go(id, id.and_then(|id| oracle.db.rec(rel.target, id)));
    }
}

fn compare(op: &str, leaf: &Json, value: &Json) -> Option<bool> {
    match op {
        "$null" => return Some(leaf.is_null() == value.as_bool().expect("true or false")),
        "$eq" if value.is_null() => return Some(leaf.is_null()),
        "$neq" if value.is_null() => return Some(!leaf.is_null()),
        _ if leaf.is_null() => return None,
        _ => {}
    }
    let order = || match (leaf, value) {
        (Json::String(a), Json::String(b)) => a.cmp(b),
        _ => leaf.as_i64().cmp(&value.as_i64()),
    };
    let among = || value.as_array().expect("an array").contains(leaf);
    let within = || {
        let text = |json: &Json| json.as_str().expect("text").to_owned();
        text(leaf).contains(&text(value))
    };
    Some(match op {
        "$eq" => leaf == value,
        "$neq" => leaf != value,
        "$gt" => order().is_gt(),
        "$lte" => order().is_le(),
        "$in" => among(),
        "$nin" => !among(),
        "$contains" => within(),
        "$notcontains" => !within(),
        _ => panic!("no operator {op}"),
    })
}

/// Whether every name may be asked for: `counting` are the own fields that may.
pub fn may_name(
    oracle: &Oracle,
    schema: &'static str,
    path: &str,
    who: &Who,
    own: &[&str],
) -> bool {
    let names: Vec<&str> = path.split('.').collect();
    let mut at = schema;
    for (depth, name) in names.iter().enumerate() {
        let last = depth + 1 == names.len();
        let rel = step(at, name);
        let full = rel.map_or(*name, |rel| rel.name);
        let known = rel.is_some() || columns(at).contains(name);
        let readable = if depth == 0 {
            own.contains(&full)
        } else {
            let through = oracle.through(at, who);
            through.is_some_and(|alts| alts.iter().any(|alt| alt.fields.contains(full)))
        };
        if !known || !readable {
            return false;
        }
        match rel {
            None => return last,
            // The key is a value: no path goes on from it.
            Some(rel) if full != *name && !last => {
                let _ = rel;
                return false;
            }
            Some(rel) => {
                if last && oracle.through(rel.target, who).is_none() {
                    return false;
                }
                at = rel.target;
            }
        }
    }
    true
}
