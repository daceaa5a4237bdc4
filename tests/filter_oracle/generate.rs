//! Random filters that compile.

use std::sync::Arc;

use rowcast::filter::ast;
use rowcast::model::schema::{Column, Schema, Shape};
use rowcast::model::value::FieldType;
use serde_json::{Map, Value as Json, json};

use crate::Coverage;
use crate::tables::Tables;
use crate::world::{NODES, Random, literal, pattern, word};

/// Whether an operator works on a type.
pub fn takes(operator: &str, ty: FieldType) -> bool {
    match operator {
        "$eq" | "$neq" | "$null" => true,
        "$in" | "$nin" => ty != FieldType::Json,
        "$gt" | "$gte" | "$lt" | "$lte" => !matches!(ty, FieldType::Json | FieldType::Bytes),
        _ => matches!(ty, FieldType::String | FieldType::Text | FieldType::Enum),
    }
}

/// A filter of a few parts.
pub fn filter(
    random: &mut Random,
    tables: &Tables,
    schema: &Arc<Schema>,
    depth: usize,
    budget: &mut usize,
    seen: &mut Coverage,
) -> Json {
    let mut object = Map::new();
    let keys = if random.chance(75) { 1 } else { random.below(3) };
    for _ in 0..keys {
        *budget = budget.saturating_sub(1);
        let mut deeper =
            |random: &mut Random| filter(random, tables, schema, depth + 1, budget, seen);
        match random.below(10) {
            0 | 1 if depth < 4 => {
                let count = random.below(4);
                let filters: Vec<Json> = (0..count).map(|_| deeper(random)).collect();
                let name = if random.chance(50) { "$and" } else { "$or" };
                object.insert(name.to_owned(), filters.into());
            }
            2 if depth < 4 => {
                let inner = deeper(random);
                object.insert("$not".to_owned(), inner);
            }
            _ => {
                let (path, value) = comparison(random, tables, schema, seen);
                object.insert(path, value);
            }
        }
    }
    object.into()
}

/// A path and what it is compared with.
fn comparison(
    random: &mut Random,
    tables: &Tables,
    schema: &Arc<Schema>,
    seen: &mut Coverage,
) -> (String, Json) {
    let mut path: Vec<String> = Vec::new();
    let mut at = schema.clone();
    let hops = [0, 0, 1, 1, 2, 3][random.below(6)];
    let mut column: Option<Column> = None;
    for hop in 0..hops {
        let relation = at.relations[random.below(at.relations.len())].clone();
        let shape = match relation.shape {
            Shape::Key { .. } => "key",
            Shape::BackKey { .. } => "back key",
            Shape::Many { .. } => "many",
            Shape::Link { .. } => "link",
        };
        *seen.shapes.entry(shape).or_default() += 1;
        let last = hop + 1 == hops;
        let bare = last && random.chance(35);
        let by_key = bare && matches!(relation.shape, Shape::Key { .. }) && random.chance(50);
        path.push(if by_key { format!("{}_id", relation.name) } else { relation.name.to_string() });
        at = tables.catalog.get(relation.target).expect("a target").clone();
        if bare {
            column = Some(at.primary_column().clone());
            seen.bare += 1;
        }
    }
    seen.hops[hops] += 1;
    let bare = column.is_some();
    let column = column.unwrap_or_else(|| {
        let own: Vec<&Column> = at.columns.iter().filter(|c| c.key_of.is_none()).collect();
        let column = random.pick(&own).clone();
        path.push(column.name.to_string());
        column
    });
    let mut operators = Map::new();
    let count = if random.chance(70) { 1 } else { 1 + random.below(3) };
    for _ in 0..count {
        let name = random.pick(&ast::Operator::ALL.map(|operator| operator.name()));
        if takes(name, column.ty) {
            if !bare {
                seen.tests.insert((name, column.ty.name()));
            }
            operators.insert(name.to_owned(), operand(random, name, &column));
        }
    }
    seen.several += usize::from(operators.len() > 1);
    let path = path.join(".");
    match operators.get("$eq") {
        Some(value) if operators.len() == 1 && !value.is_object() && random.chance(50) => {
            (path, value.clone())
        }
        _ if operators.is_empty() => (path, json!({"$null": random.chance(50)})),
        _ => (path, operators.into()),
    }
}

/// Something to compare a column with.
pub fn operand(random: &mut Random, operator: &str, column: &Column) -> Json {
    let value = |random: &mut Random| match &*column.name {
        "id" if column.ty != FieldType::Uuid => json!(random.below(NODES + 1)),
        _ => literal(random, column.ty),
    };
    match operator {
        "$null" => json!(random.chance(50)),
        "$eq" | "$neq" if random.chance(10) => Json::Null,
        "$in" | "$nin" => {
            let count = random.below(7);
            (0..count).map(|_| value(random)).collect::<Vec<_>>().into()
        }
        "$like" | "$notlike" => json!(pattern(random)),
        "$contains" | "$notcontains" | "$containsfold" | "$notcontainsfold" => json!(word(random)),
        _ => value(random),
    }
}
