//! Which reads are likely to take alike: those that ask the same of other records.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde_json::Value as Json;

use crate::filter::ast::Operator;
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

/// Names and operators, in their order. `None` with a search in texts too: it may read all of many
/// large ones between two looks at what the read takes.
fn parts(json: &Json, hasher: &mut DefaultHasher, left: &mut usize) -> Option<()> {
    *left = left.checked_sub(1)?;
    match json {
        Json::Object(map) => {
            map.len().hash(hasher);
            for (name, inner) in map {
                if Operator::named(name).is_some_and(Operator::searches) {
                    return None;
                }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn list(filter: &Json, change: impl FnOnce(&mut ListAsk)) -> Option<u64> {
        let ask = Ask { schema: "blog".into(), filter: Some(filter.clone()), ..Ask::default() };
        let mut asked = ListAsk { ask, page: None, limit: None };
        change(&mut asked);
        of_list(&asked, &Limits::default())
    }

    #[test]
    fn values_make_no_other_kind_and_all_else_does() {
        let one = json!({"views": {"$gt": 1}, "name": "x"});
        let kind = list(&one, |_| ()).expect("short");
        let same = json!({"views": {"$gt": 1_000}, "name": "a longer one"});
        assert_eq!(list(&same, |_| ()), Some(kind));
        for other in [
            json!({"views": {"$lt": 1}, "name": "x"}),
            json!({"views": {"$gt": 1}}),
            json!({"views": {"$gt": 1}, "name": ["x"]}),
        ] {
            assert_ne!(list(&other, |_| ()), Some(kind), "{other}");
        }
        assert_ne!(list(&one, |asked| asked.ask.schema = "tag".into()), Some(kind));
        assert_ne!(list(&one, |asked| asked.ask.sort = Some("name".into())), Some(kind));
        assert_ne!(list(&one, |asked| asked.page = Some(100)), Some(kind));
        let record = of_record(&Ask { schema: "blog".into(), ..Ask::default() });
        assert!(record.is_some() && record != list(&json!({}), |_| ()));
    }

    #[test]
    fn searches_in_texts_are_of_no_kind() {
        for operator in Operator::ALL {
            let is_search = ["like", "contains"].iter().any(|part| operator.name().contains(part));
            let test = json!({ operator.name(): "x" });
            for filter in [
                json!({ "name": test }),
                json!({ "blogs.name": test }),
                json!({ "$or": [{ "views": 1 }, { "$not": { "name": test } }] }),
            ] {
                assert_eq!(list(&filter, |_| ()).is_none(), is_search, "{filter}");
            }
        }
    }

    #[test]
    fn what_is_long_for_sure_is_of_no_kind() {
        let all = json!({});
        assert!(list(&all, |asked| asked.limit = Some(RECORDS)).is_some());
        assert!(list(&all, |asked| asked.limit = Some(RECORDS + 1)).is_none());
        let many: Vec<_> = (0..PARTS).map(|n| json!({"views": n})).collect();
        assert!(list(&json!({"$or": many}), |_| ()).is_none());
        let names = "name,".repeat(NAMES);
        assert!(list(&all, |asked| asked.ask.select = Some(names)).is_none());
    }
}
