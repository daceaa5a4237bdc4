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

#[test]
fn a_mark_takes_back_rows_and_entries() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(Options::new(dir.path()));
    let tag = store.catalog().get(TAG).unwrap().clone();
    let schema = tag.clone();
    let written = store
        .write_blocking(move |tx| {
            tx.insert(&schema, vec![Value::Null, text("kept")])?;
            let outer = tx.mark()?;
            tx.insert(&schema, vec![Value::Null, text("lost")])?;
            let inner = tx.mark()?;
            tx.update(&schema, vec![Value::Int(1), text("lost too")])?;
            tx.keep(inner)?;
            tx.undo(outer)?;
            let last = tx.mark()?;
            tx.insert(&schema, vec![Value::Null, text("lost")])?;
            tx.keep(last)
        })
        .unwrap();
    let names: Vec<_> = written.commit.unwrap().changes.iter().map(|c| c.after.clone()).collect();
    let names: Vec<_> = names.iter().map(|row| row.as_ref().unwrap().get(1).clone()).collect();
    assert_eq!(names, [text("kept"), text("lost")]);
    let row = store.read_blocking(move |reader| reader.get(&tag, &Value::Int(1))).unwrap();
    assert_eq!(*row.unwrap().get(1), text("kept"));
}
