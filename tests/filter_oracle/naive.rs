//! Filters read straight off their rules (README, "Filters"): no compile step, no sharing, no speed.
//!
//! The third opinion in `filter_oracle`: evaluator and SQL share the compile step, so a mistake
//! there would not part them.

use std::sync::Arc;

use rowcast::filter::Truth;
use rowcast::model::change::Row;
use rowcast::model::schema::{Column, FieldRef, Schema, Shape};
use rowcast::model::value::Value;
use serde_json::Value as Json;

use crate::tables::Tables;

/// Which records may be seen, by schema.
pub type Visible<'a> = &'a dyn Fn(&Schema, &Row) -> bool;

/// A filter on a record.
pub fn eval(
    tables: &Tables,
    visible: Visible,
    schema: &Arc<Schema>,
    row: &Row,
    filter: &Json,
) -> Truth {
    let parts = filter.as_object().expect("a filter").iter().map(|(key, value)| {
        let each = || -> Vec<Truth> {
            let filters = value.as_array().expect("filters").iter();
            filters.map(|filter| eval(tables, visible, schema, row, filter)).collect()
        };
        match key.as_str() {
            "$and" => all(each()),
            "$or" => !all(each().into_iter().map(|truth| !truth)),
            "$not" => !eval(tables, visible, schema, row, value),
            path => field(tables, visible, schema, row, path, value),
        }
    });
    all(parts)
}

fn all(parts: impl IntoIterator<Item = Truth>) -> Truth {
    parts.into_iter().fold(Truth::True, |all, part| match (all, part) {
        (Truth::False, _) | (_, Truth::False) => Truth::False,
        (Truth::Unknown, _) | (_, Truth::Unknown) => Truth::Unknown,
        _ => Truth::True,
    })
}

fn field(
    tables: &Tables,
    visible: Visible,
    schema: &Arc<Schema>,
    row: &Row,
    path: &str,
    value: &Json,
) -> Truth {
    let bare = serde_json::json!({"$eq": value});
    let operators = if value.is_object() { value } else { &bare };
    let operators = operators.as_object().expect("operators");
    // Everything the path leads to; a to-one that is not there is a null.
    let (mut many, mut bare_many) = (false, false);
    let mut here: Vec<Option<Row>> = vec![Some(row.clone())];
    let mut at = schema.clone();
    let mut column: Option<(usize, Column)> = None;
    for part in path.split('.') {
        let relation = match at.field(part).expect("a field") {
            FieldRef::Relation(index) => &at.relations[index],
            FieldRef::Column(slot) => match at.columns[slot].key_of {
                Some(index) => &at.relations[index],
                None => {
                    column = Some((slot, at.columns[slot].clone()));
                    break;
                }
            },
        };
        let target = tables.catalog.get(relation.target).expect("a target").clone();
        let mut next = Vec::new();
        for row in here {
            let found: Vec<Row> = match &row {
                None => Vec::new(),
                Some(row) => tables
                    .rows(&target)
                    .iter()
                    .filter(|other| linked(tables, &at, &target, relation.shape, row, other))
                    .filter(|other| visible(&target, other))
                    .map(|other| (**other).clone())
                    .collect(),
            };
            match relation.to_many() {
                true => next.extend(found.into_iter().map(Some)),
                false => next.push(found.into_iter().next()),
            }
        }
        many |= relation.to_many();
        bare_many = relation.to_many();
        here = next;
        at = target;
    }
    let (slot, column) = match column {
        Some(found) => {
            bare_many = false;
            found
        }
        None => (at.primary, at.primary_column().clone()),
    };
    let values: Vec<Value> =
        here.into_iter().map(|row| row.map_or(Value::Null, |row| row.get(slot).clone())).collect();
    if !many {
        return all(operators
            .iter()
            .map(|(name, literal)| compare(name, &values[0], literal, &column)));
    }
    let (mut parts, mut together) = (Vec::new(), Vec::new());
    for (name, literal) in operators {
        let asks_null = matches!((name.as_str(), literal), ("$eq", Json::Null))
            || matches!((name.as_str(), literal), ("$null", Json::Bool(true)));
        let positive = match name.as_str() {
            "$neq" if !literal.is_null() => Some("$eq"),
            "$nin" => Some("$in"),
            "$notlike" => Some("$like"),
            "$notcontains" => Some("$contains"),
            "$notcontainsfold" => Some("$containsfold"),
            _ => None,
        };
        match positive {
            _ if bare_many && asks_null => parts.push(Truth::from(values.is_empty())),
            Some(positive) => parts.push(Truth::from(
                !values
                    .iter()
                    .any(|value| compare(positive, value, literal, &column) == Truth::True),
            )),
            None => together.push((name, literal)),
        }
    }
    if !together.is_empty() {
        let some = values.iter().any(|value| {
            together
                .iter()
                .all(|(name, literal)| compare(name, value, literal, &column) == Truth::True)
        });
        parts.push(some.into());
    }
    all(parts)
}

fn linked(
    tables: &Tables,
    schema: &Schema,
    target: &Schema,
    shape: Shape,
    row: &Row,
    other: &Row,
) -> bool {
    let (own, key) = (row.get(schema.primary), other.get(target.primary));
    match shape {
        Shape::Key { slot } => row.get(slot) == key,
        Shape::BackKey { slot } | Shape::Many { slot } => other.get(slot) == own,
        Shape::Link { junction, own: near, other: far } => {
            let junction = tables.catalog.get(junction).expect("a junction");
            tables.rows(junction).iter().any(|link| link.get(near) == own && link.get(far) == key)
        }
    }
}

fn compare(name: &str, value: &Value, literal: &Json, column: &Column) -> Truth {
    let typed = |json: &Json| Value::of_type(json, column.ty, &column.enums).expect("a literal");
    match (name, literal) {
        ("$null", Json::Bool(yes)) => return (value.is_null() == *yes).into(),
        ("$eq", Json::Null) => return value.is_null().into(),
        ("$neq", Json::Null) => return (!value.is_null()).into(),
        _ if value.is_null() => return Truth::Unknown,
        _ => {}
    }
    let text = || match (value, literal) {
        (Value::Text(text), Json::String(literal)) => {
            (text.chars().collect::<Vec<_>>(), literal.chars().collect::<Vec<_>>())
        }
        _ => panic!("text operators are for text"),
    };
    let ordered = || value.compare(&typed(literal)).expect("an order");
    let within = || {
        let elements = literal.as_array().expect("an array");
        elements.iter().any(|element| typed(element) == *value)
    };
    let contains = |fold: fn(&char) -> char| {
        let (text, part) = text();
        let text: Vec<char> = text.iter().map(fold).collect();
        let part: Vec<char> = part.iter().map(fold).collect();
        part.is_empty() || text.windows(part.len()).any(|window| window == part)
    };
    // Enough for the alphabet of the generator: one lower-case letter each.
    let lower = |char: &char| char.to_lowercase().next().unwrap_or(*char);
    let same = |char: &char| *char;
    let like = || {
        let (text, pattern) = text();
        fits(&pattern, &text)
    };
    match name {
        "$eq" => typed(literal) == *value,
        "$neq" => typed(literal) != *value,
        "$gt" => ordered().is_gt(),
        "$gte" => ordered().is_ge(),
        "$lt" => ordered().is_lt(),
        "$lte" => ordered().is_le(),
        "$in" => within(),
        "$nin" => !within(),
        "$like" => like(),
        "$notlike" => !like(),
        "$contains" => contains(same),
        "$notcontains" => !contains(same),
        "$containsfold" => contains(lower),
        "$notcontainsfold" => !contains(lower),
        _ => panic!("unknown operator {name}"),
    }
    .into()
}

fn fits(pattern: &[char], text: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['%', rest @ ..] => (0..=text.len()).any(|at| fits(rest, &text[at..])),
        ['_', rest @ ..] => !text.is_empty() && fits(rest, &text[1..]),
        ['\\', char, rest @ ..] | [char, rest @ ..] => {
            text.first() == Some(char) && fits(rest, &text[1..])
        }
    }
}
