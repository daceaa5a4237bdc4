//! The store through its public face.

#[path = "support/blog.rs"]
mod blog;

use blog::*;
use rowcast::model::value::Value;
use rowcast::store::{Options, Rows};

#[test]
fn a_row_written_is_a_row_read_and_an_entry() {
    let dir = tempfile::tempdir().unwrap();
    let (store, told) = open(Options::new(dir.path()));
    let tag = store.catalog().get(TAG).unwrap().clone();
    let schema = tag.clone();
    let written = store
        .write_blocking(move |tx| tx.insert(&schema, vec![Value::Null, text("rust")]))
        .unwrap();
    assert_eq!(*written.value.values, [Value::Int(1), text("rust")]);
    let commit = written.commit.unwrap();
    assert_eq!(commit.position, 2);
    assert_eq!(told.0.lock().unwrap().len(), 1);
    let (row, entries) = store
        .read_blocking(move |reader| {
            Ok((reader.get(&tag, &Value::Int(1))?, reader.entries(0, 10)?))
        })
        .unwrap();
    assert_eq!(row.unwrap(), written.value);
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[1].mark.stamp, commit.stamp);
    assert_eq!(entries[1].changes[0].after, Some(written.value));
}
