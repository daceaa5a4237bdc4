//! `select=name,category,tags.name` → a tree of names, not yet checked against a schema.

use std::collections::BTreeMap;

use crate::error::{Error, Result, clip};
use crate::limits::Limits;

/// What is wanted of a record: names, and what is wanted behind them.
#[derive(Debug, Default, PartialEq)]
pub struct Select<'t> {
    /// Named itself: of a relation, the related record's own fields.
    pub whole: bool,
    pub names: BTreeMap<&'t str, Select<'t>>,
}

/// `None` where nothing is named: the full record. Spaces, empty entries and repeated names do no
/// harm.
pub fn parse<'t>(text: &'t str, limits: &Limits) -> Result<Option<Select<'t>>> {
    let mut root = Select::default();
    let mut count = 0;
    for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        count += 1;
        if count > limits.select_entries {
            let most = limits.select_entries;
            return Err(Error::bad(format!("invalid select: more than {most} entries")));
        }
        let mut at = &mut root;
        for (depth, name) in entry.split('.').map(str::trim).enumerate() {
            if name.is_empty() {
                let entry = clip(entry);
                return Err(Error::bad(format!("invalid select: '{entry}' lacks a name")));
            }
            if depth > limits.select_hops {
                return Err(too_far(entry, limits));
            }
            at = at.names.entry(name).or_default();
        }
        at.whole = true;
    }
    Ok((count > 0).then_some(root))
}

/// The error for a path over too many relations.
pub fn too_far(path: &str, limits: &Limits) -> Error {
    let most = limits.select_hops;
    Error::bad(format!("invalid select: '{}' crosses more than {most} relations", clip(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_repeats_and_empty_entries_do_no_harm() {
        let limits = Limits::default();
        let plain = parse("name,category,tags.name", &limits).unwrap();
        let odd = parse(" name ,, category,name ,tags . name,", &limits).unwrap();
        assert_eq!(plain, odd);
        for empty in ["", " ", ",", " , "] {
            assert_eq!(parse(empty, &limits).unwrap(), None);
        }
    }

    #[test]
    fn limits_and_lone_dots_are_told() {
        let limits = Limits::default();
        let told = |text: &str| parse(text, &limits).unwrap_err().message;
        assert_eq!(told("a."), "invalid select: 'a.' lacks a name");
        assert_eq!(told("."), "invalid select: '.' lacks a name");
        assert_eq!(told("a.b.c.d"), "invalid select: 'a.b.c.d' crosses more than 2 relations");
        assert_eq!(told(&"a,".repeat(65)), "invalid select: more than 64 entries");
        assert!(parse(&"a,".repeat(64), &limits).is_ok());
    }
}
