//! Whether a store's rows are what its log says.
#![allow(dead_code)]

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use rowcast::filter::Predicate;
use rowcast::model::change::Row;
use rowcast::model::schema::SchemaId;
use rowcast::store::{CommitSink, Mark, Options, Query, Rows, Store};

/// A sink that forgets.
pub struct Nobody;

impl CommitSink for Nobody {
    fn committed(&mut self, _: &[Arc<rowcast::model::change::Commit>]) {}
}

/// Opens the store that is in `dir` and reads its log from the first entry: positions have no
/// holes, each change finds the state that the one before it left, and at the end every table
/// holds just what the log made. Gives the marks in order.
pub fn examine(dir: &Path) -> Vec<Mark> {
    let opened = Store::open(Options::new(dir), Box::new(Nobody));
    let store = opened.unwrap_or_else(|error| panic!("{error}"));
    store
        .read_blocking(|reader| {
            let mut made: HashMap<SchemaId, HashMap<String, Arc<Row>>> = HashMap::new();
            let mut marks: Vec<Mark> = Vec::new();
            loop {
                let page = reader.entries(marks.last().map_or(0, |mark| mark.position), 1_000)?;
                if page.is_empty() {
                    break;
                }
                for entry in page {
                    assert_eq!(entry.mark.position, marks.len() as u64 + 1, "a hole");
                    marks.push(entry.mark);
                    for change in entry.changes {
                        let table = made.entry(change.schema).or_default();
                        let key = format!("{:?}", change.key);
                        assert_eq!(table.get(&key), change.before.as_ref(), "{:?}", entry.mark);
                        match change.after {
                            Some(row) => table.insert(key, row),
                            None => table.remove(&key),
                        };
                    }
                }
            }
            for schema in reader.catalog().clone().all() {
                let rows = reader.select(&Query {
                    schema: schema.clone(),
                    filter: Predicate::ALL,
                    sort: Vec::new(),
                    limit: None,
                    offset: 0,
                })?;
                let key = |row: &Arc<Row>| format!("{:?}", row.get(schema.primary));
                let rows: HashMap<_, _> = rows.into_iter().map(|row| (key(&row), row)).collect();
                assert!(rows == made.remove(&schema.id).unwrap_or_default(), "{}", schema.name);
            }
            Ok(marks)
        })
        .unwrap_or_else(|error| panic!("{error}"))
}
