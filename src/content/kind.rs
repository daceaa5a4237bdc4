//! Which reads are likely to take alike: those that ask the same of other records.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde_json::Value as Json;

use crate::limits::Limits;
use crate::query::Ask;

use super::ListAsk;

/// Lists of more records are long.
const RECORDS: u64 = 100;
/// And lists whose filters have more parts: they take a while to compile.
const PARTS: usize = 64;
/// And reads that name fields at greater length.
const NAMES: usize = 1 << 10;

/// The kind of a read of one record; `None` for one that is long for sure.
pub(super) fn of_record(ask: &Ask) -> Option<u64> {
    named(ask, "record").map(|hasher| hasher.finish())
}

/// The kind of a list: its filter without the values, its order and size; `None` for one that is
/// long for sure.
pub(super) fn of_list(asked: &ListAsk, limits: &Limits) -> Option<u64> {
    if asked.limit.unwrap_or(limits.page_default) > RECORDS {
        return None;
    }
    let mut hasher = named(&asked.ask, "list")?;
    // Skipping takes reading; how far counts by its magnitude.
    asked.page.and_then(u64::checked_ilog2).hash(&mut hasher);
    let mut left = PARTS;
    if let Some(filter) = &asked.ask.filter {
        parts(filter, &mut hasher, &mut left)?;
    }
    Some(hasher.finish())
}

fn named(ask: &Ask, what: &str) -> Option<DefaultHasher> {
    let names = [&ask.select, &ask.sort];
    if names.iter().flat_map(|text| text.as_ref()).any(|text| text.len() > NAMES) {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    (what, &ask.schema, names).hash(&mut hasher);
    Some(hasher)
}

/// Names and operators, in their order.
fn parts(json: &Json, hasher: &mut DefaultHasher, left: &mut usize) -> Option<()> {
    *left = left.checked_sub(1)?;
    match json {
        Json::Object(map) => {
            map.len().hash(hasher);
            for (name, inner) in map {
                name.hash(hasher);
                parts(inner, hasher, left)?;
            }
        }
        Json::Array(items) => {
            items.len().hash(hasher);
            for item in items {
                parts(item, hasher, left)?;
            }
        }
        _ => {}
    }
    Some(())
}
