//! What a commit carries of related rows, against what readers see before and after it.

use std::collections::HashMap;
use std::sync::Arc;

use rowcast::filter::{Predicate, Truth};
use rowcast::model::catalog::Catalog;
use rowcast::model::change::Row;
use rowcast::model::related::{Paths, Related, RelatedSet, Want};
use rowcast::model::schema::Schema;
use rowcast::model::value::Value;
use rowcast::store::{Options, Query, Rows, Store};

use crate::support::*;

fn paths(names: &[&str]) -> Paths {
    let mut paths = Paths::default();
    for name in names {
        let mut at = &mut paths;
        for part in name.split('.') {
            at = at.0.entry(part.into()).or_default();
        }
    }
    paths
}

/// Every row that `paths` reach from `row`, as text.
fn reach(
    catalog: &Catalog,
    schema: &Schema,
    row: &Row,
    paths: &Paths,
    set: &RelatedSet,
    at: &str,
    out: &mut Vec<String>,
) {
    for (name, deeper) in &paths.0 {
        let relation = &schema.relations[schema.relation(name).unwrap()];
        let target = catalog.get(relation.target).unwrap();
        for related in set.related(schema, relation, row) {
            let at = format!("{at}.{name}");
            out.push(format!("{at}={:?}", related.values));
            reach(catalog, target, related, deeper, set, &at, out);
        }
    }
}

/// All rows of the schemas, and what is reached from each.
fn seen(store: &Store, wanted: &[(&'static str, Paths)]) -> HashMap<(String, String), Vec<String>> {
    let wanted = wanted.to_vec();
    store
        .read_blocking(move |reader| {
            let mut seen = HashMap::new();
            for (name, paths) in &wanted {
                let schema = reader.of(name);
                let rows = reader.select(&Query {
                    schema: schema.clone(),
                    filter: Predicate::Const(Truth::True),
                    sort: Vec::new(),
                    limit: None,
                    offset: 0,
                })?;
                let set = reader.gather(&schema, &rows, paths)?;
                for row in rows {
                    let mut out = Vec::new();
                    reach(reader.catalog(), &schema, &row, paths, &set, "", &mut out);
                    seen.insert((name.to_string(), format!("{:?}", row.get(0))), out);
                }
            }
            Ok(seen)
        })
        .unwrap()
}

#[test]
fn commits_carry_both_sides_of_what_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(Options::new(dir.path()));
    let wanted = [
        ("blog", paths(&["category.parent", "tags.blogs.author", "see_also.tags", "author.blogs"])),
        ("category", paths(&["children.blogs", "blogs.tags", "parent.children"])),
        ("tag", paths(&["blogs.category"])),
        ("user", paths(&["blogs"])),
    ];
    let catalog = store.catalog();
    let ids = wanted.iter().map(|(name, paths)| (catalog.named(name).unwrap().id, paths.clone()));
    store.want(Want { paths: ids.collect(), ..Want::default() });
    store
        .write_blocking(|tx| {
            for n in 1..=3 {
                tx.user(n)?;
                tx.put("category", &[("name", text(&n.to_string()))])?;
                tx.put("tag", &[("name", text(&n.to_string()))])?;
            }
            Ok(())
        })
        .unwrap();
    let mut number = 11u64;
    let mut roll = move |below: u64| {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((number >> 33) % below) as i64
    };
    let mut before = seen(&store, &wanted);
    let mut compared = 0;
    for step in 0..150 {
        // Several things at once, so that rows and what they relate to change together.
        let todo: Vec<[i64; 4]> =
            (0..1 + roll(3)).map(|_| [roll(8), roll(5) + 1, roll(5) + 1, roll(4)]).collect();
        let written = store.write_blocking(move |tx| {
            for (nth, [what, one, two, three]) in todo.into_iter().enumerate() {
                let there = tx.find("blog", one).is_some();
                let parent = if three == 0 { Value::Null } else { Value::Int(three) };
                let author = ("author_id", id(three.max(1) as u128));
                let title = ("title", text(&format!("{step} {nth}")));
                match what {
                    0 if there => _ = tx.drop_it("blog", one)?,
                    1 if there => tx.set("blog", one, &[("category_id", parent)])?,
                    2 if there => _ = tx.tie(("blog", "tags"), one, three.max(1), true)?,
                    3 if there => _ = tx.tie(("tag", "blogs"), three.max(1), one, false)?,
                    4 if there && tx.find("blog", two).is_some() => {
                        let on = three > 0;
                        tx.tie(("blog", "see_also"), one, two, on)?;
                    }
                    5 => tx.set("category", three.max(1), &[("parent_id", parent)])?,
                    6 => tx.set("tag", three.max(1), &[])?,
                    7 if there => tx.set("blog", one, &[author, title])?,
                    _ if there => {}
                    _ => drop(tx.put("blog", &[("id", Value::Int(one)), title, author])?),
                }
            }
            Ok(())
        });
        let after = seen(&store, &wanted);
        if let Some(commit) = written.unwrap().commit {
            for change in &commit.changes {
                let schema: &Arc<Schema> = catalog.get(change.schema).unwrap();
                let Some((name, paths)) = wanted.iter().find(|(name, _)| **name == *schema.name)
                else {
                    continue;
                };
                let key = (name.to_string(), format!("{:?}", change.key));
                let sides = [
                    (&change.before, &commit.related.before, &before),
                    (&change.after, &commit.related.after, &after),
                ];
                for (side, (row, set, seen)) in sides.into_iter().enumerate() {
                    let Some(row) = row else { continue };
                    let mut out = Vec::new();
                    reach(&catalog, schema, row, paths, set, "", &mut out);
                    assert_eq!(&out, &seen[&key], "step {step}, {key:?}, side {side}");
                    compared += out.len();
                }
            }
        }
        before = after;
    }
    assert!(compared > 1_000, "{compared}");
}

#[test]
fn nothing_is_gathered_that_nobody_wants() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(Options::new(dir.path()));
    let make = |store: &Store, n: u128| {
        let write = store.write_blocking(move |tx| {
            tx.user(n)?;
            tx.put("blog", &[("title", text("x")), ("author_id", id(n))])
        });
        write.unwrap().commit.unwrap()
    };
    assert!(make(&store, 1).related.after.is_empty());
    let blog = store.catalog().named("blog").unwrap().clone();
    // A path that no schema knows (any more) is left out, not an error.
    let wanted = HashMap::from([(blog.id, paths(&["author", "nonsense.more"]))]);
    store.want(Want { paths: wanted, ..Want::default() });
    let commit = make(&store, 2);
    let author = &blog.relations[blog.relation("author").unwrap()];
    let row = commit.changes[1].after.as_ref().unwrap();
    assert_eq!(commit.related.after.related(&blog, author, row).len(), 1);
    assert!(commit.related.before.is_empty());
    store.want(Want::default());
    assert!(make(&store, 3).related.after.is_empty());
}
