//! Commits made anew from the log are those that were told live, and both are what whole tables
//! say.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rowcast::error::Result;
use rowcast::model::catalog::Catalog;
use rowcast::model::change::{Change, Commit};
use rowcast::model::related::{Paths, Want};
use rowcast::model::value::Value;
use rowcast::store::{Options, Rows as _, Store, Tx};

use crate::naive::{Between, carried, check, paths, shown, tables, touched};
use crate::support::*;

const COVER: &str = r#"{"name":"cover","namespace":"covers","label_field":"name",
    "fields":[
        {"name":"id","type":"string"},
        {"name":"name","type":"string"},
        {"name":"blog","type":"relation","optional":true,
         "relation":{"schema":"blog","field":"cover","type":"o2o"}},
        {"name":"twin","type":"relation","optional":true,"unique":true,
         "relation":{"schema":"cover","field":"twin","type":"o2o"}}]}"#;

/// The schemas after `stage` additions.
fn schemas(stage: usize) -> Vec<String> {
    let cover = r#"{"name":"cover","type":"relation","optional":true,
        "relation":{"schema":"cover","field":"blog","type":"o2o","owner":true}},
        {"name":"slug""#;
    let mut blog = BLOG.replace(r#"{"name":"slug""#, cover);
    let (mut tag, mut category) = (TAG.to_owned(), CATEGORY.to_owned());
    let mut all = Vec::new();
    if stage > 0 {
        let column = r#"{"name":"stars","type":"int","default":3},{"name":"title""#;
        blog = blog.replace(r#"{"name":"title""#, column);
    }
    if stage > 1 {
        let column = r#"{"name":"note","type":"string","optional":true},{"name":"name""#;
        tag = tag.replacen(r#"{"name":"name""#, column, 1);
    }
    if stage > 2 {
        let marks = r#"{"name":"marks","type":"relation","relation":
            {"schema":"mark","field":"category","type":"o2m","owner":true}},{"name":"parent""#;
        category = category.replacen(r#"{"name":"parent""#, marks, 1);
        all.push(
            r#"{"name":"mark","namespace":"marks","label_field":"name","fields":[
                {"name":"name","type":"string"},
                {"name":"category","type":"relation","optional":true,
                 "relation":{"schema":"category","field":"marks","type":"o2m"}}]}"#
                .to_owned(),
        );
    }
    all.extend([blog, tag, category, COVER.to_owned()]);
    all
}

fn migrate_to(store: &Store, stage: usize) {
    let texts = schemas(stage);
    let written = store.write_blocking(move |tx| {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        migrate(tx, &texts)
    });
    written.unwrap();
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> i64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % below) as i64
    }
}

const WANTED: &[(&str, &[&str])] = &[
    ("blog", &["category.parent.children", "tags.blogs", "see_also.tags", "author", "cover.twin"]),
    ("category", &["children.blogs.tags", "parent", "blogs.author", "marks"]),
    ("tag", &["blogs.category.parent", "blogs.cover"]),
    ("user", &["blogs.cover", "blogs.see_also.category"]),
    ("cover", &["blog.tags", "twin.blog.author"]),
];

/// A part of [`WANTED`]: each path by half a chance; and half of these with dependants.
fn want(dice: &mut Dice, catalog: &Catalog) -> Want {
    let mut want = Want::default();
    for (name, all) in WANTED {
        let schema = catalog.named(name).unwrap().id;
        for path in *all {
            let path = paths(&[path]);
            let lot = dice.roll(4);
            if lot > 0 {
                want.paths.entry(schema).or_default().merge(&path);
            }
            if lot > 1 {
                want.dependants.entry(schema).or_default().merge(&path);
            }
        }
    }
    want
}

/// A cover's primary key.
fn named(cover: i64) -> Value {
    text(&cover.to_string())
}

/// Up to four things at once. What cannot be done is left.
fn something(tx: &mut Tx<'_>, step: i64, todo: &[[i64; 5]]) -> Result<()> {
    for (nth, [what, one, two, three, four]) in todo.iter().copied().enumerate() {
        let (there, other) = (tx.find("blog", one).is_some(), tx.find("blog", two).is_some());
        let name = text(&format!("{step} {nth}"));
        let known = |tx: &Tx<'_>, schema: &str, key: i64| match tx.find(schema, key) {
            Some(_) => Value::Int(key),
            None => Value::Null,
        };
        let author = ("author_id", id(three.max(1) as u128));
        match what {
            0 if there => drop(tx.drop_it("blog", one)?),
            1 | 2 if there => {
                let category = known(tx, "category", three);
                tx.set("blog", one, &[("category_id", category)])?;
            }
            3 if there && tx.find("tag", three).is_some() => {
                tx.tie(("blog", "tags"), one, three, four > 1)?;
            }
            4 if there && tx.find("tag", three).is_some() => {
                tx.tie(("tag", "blogs"), three, one, four > 1)?;
            }
            5 if there && other => drop(tx.tie(("blog", "see_also"), one, two, four > 1)?),
            6 if there => tx.set("blog", one, &[author, ("title", name)])?,
            7 => {
                let parent = known(tx, "category", four);
                match tx.find("category", three) {
                    Some(_) if four == 1 => drop(tx.drop_it("category", three)?),
                    Some(_) => {
                        tx.set("category", three, &[("parent_id", parent), ("name", name)])?
                    }
                    None => {
                        let key = ("id", Value::Int(three));
                        tx.put("category", &[key, ("name", name), ("parent_id", parent)])?;
                    }
                }
            }
            8 => match tx.find("tag", three) {
                Some(_) if four == 1 => drop(tx.drop_it("tag", three)?),
                Some(_) => tx.set("tag", three, &[("name", name)])?,
                None => drop(tx.put("tag", &[("id", Value::Int(three)), ("name", name)])?),
            },
            9 => {
                let user = ("username", text(&format!("u{step} {nth} {three}")));
                tx.set("user", id(three.max(1) as u128), &[user])?;
            }
            10 => {
                let blog = known(tx, "blog", one);
                // Who has the blog lets go of it.
                for cover in 1..=4 {
                    let found = tx.find("cover", named(cover)).is_some();
                    if found && tx.cell("cover", named(cover), "blog_id") == blog {
                        tx.set("cover", named(cover), &[("blog_id", Value::Null)])?;
                    }
                }
                match tx.find("cover", named(four)) {
                    Some(_) if three == 1 => drop(tx.drop_it("cover", named(four))?),
                    Some(_) => tx.set("cover", named(four), &[("blog_id", blog)])?,
                    None => {
                        let key = ("id", named(four));
                        tx.put("cover", &[key, ("name", name), ("blog_id", blog)])?;
                    }
                }
            }
            11 => {
                let pair = [named(1), named(2)];
                if pair.iter().all(|key| tx.find("cover", key.clone()).is_some()) {
                    let twins = match four > 2 {
                        true => [pair[1].clone(), pair[0].clone()],
                        false => [Value::Null, Value::Null],
                    };
                    for (cover, twin) in pair.into_iter().zip(twins) {
                        tx.set("cover", cover, &[("twin_id", twin)])?;
                    }
                }
            }
            // Many at once.
            12 => {
                for blog in 1..=8 {
                    if tx.find("blog", blog).is_some() {
                        tx.set("blog", blog, &[("title", name.clone())])?;
                    }
                }
            }
            13 if four == 1 => {
                for blog in two..=two + 2 {
                    tx.drop_it("blog", blog)?;
                }
            }
            // Taken back in part.
            14 if there => {
                let mark = tx.mark()?;
                tx.set("blog", one, &[("category_id", Value::Null)])?;
                tx.undo(mark)?;
            }
            15 if tx.catalog().named("mark").is_some() => {
                let category = known(tx, "category", three);
                match tx.find("mark", four) {
                    Some(_) => tx.set("mark", four, &[("category_id", category)])?,
                    None => {
                        let key = ("id", Value::Int(four));
                        tx.put("mark", &[key, ("name", name), ("category_id", category)])?;
                    }
                }
            }
            _ if there => {}
            _ => {
                let mut given = vec![("id", Value::Int(one)), ("title", name), author];
                given.push(("category_id", known(tx, "category", four)));
                if tx.of("blog").column("stars").is_some() {
                    given.push(("stars", Value::Int(step)));
                }
                tx.put("blog", &given)?;
            }
        }
    }
    Ok(())
}

/// A commit as text. Rows are shown in the layout that they had then.
fn whole(commit: &Commit, catalog: &Catalog, like: &Catalog) -> String {
    let mut out = format!("{} {} {}\n", commit.position, commit.stamp, commit.time);
    let related = &commit.related;
    let mut line = |change: &Change| {
        let (schema, known) = (catalog.get(change.schema), like.get(change.schema));
        let (schema, known) = (schema.unwrap(), known.unwrap());
        out += &format!("{:?} {} {:?}\n", change.op, schema.name, change.key);
        let paths = related.gathered.paths.get(&change.schema).cloned().unwrap_or_default();
        let paths = known_paths(&paths, known, like);
        for (row, set) in [(&change.before, &related.before), (&change.after, &related.after)] {
            let Some(row) = row else { continue };
            out += &format!("  {}\n", shown(schema, &row.values, known));
            for text in carried((catalog, like), change.schema, row, &paths, set) {
                out += &format!("    {text}\n");
            }
        }
    };
    commit.changes.iter().for_each(&mut line);
    related.dependants.changes.iter().for_each(&mut line);
    let by: BTreeMap<_, _> = related.dependants.by.iter().collect();
    out + &format!("{by:?} {:?}", related.incomplete)
}

/// `paths` without the relations that came later.
fn known_paths(paths: &Paths, schema: &rowcast::model::schema::Schema, like: &Catalog) -> Paths {
    let known = paths.0.iter().filter_map(|(name, deeper)| {
        let relation = &schema.relations[schema.relation(name)?];
        let target = like.get(relation.target)?;
        Some((name.clone(), known_paths(deeper, target, like)))
    });
    Paths(known.collect())
}

/// Reads everything after `after` in pages of any size.
fn replayed(store: &Store, dice: &mut Dice, mut after: u64, want: &Arc<Want>) -> Vec<Arc<Commit>> {
    let mut all = Vec::new();
    loop {
        let (limit, want) = (dice.roll(20) as usize + 1, want.clone());
        let page = store.read_blocking(move |reader| reader.replay(after, limit, &want)).unwrap();
        assert!(page.len() <= limit);
        let Some(last) = page.last() else { return all };
        after = last.position;
        all.extend(page);
    }
}

/// `most`: how many dependants a commit may carry through one relation. Gives how many all had, and
/// how often they were too many.
fn live_is_replayed(seed: u64, lookups_waiting: usize, most: usize) -> (usize, usize) {
    let mut dice = Dice(seed);
    let dir = tempfile::tempdir().unwrap();
    let told = Told::default();
    let mut options = Options { lookups_waiting, ..Options::new(dir.path()) };
    options.limits.dependants = most;
    let store = Store::open(options, Box::new(told.clone())).unwrap();
    migrate_to(&store, 0);
    let wanted = Arc::new(want(&mut dice, &store.catalog()));
    store.want((*wanted).clone());
    let made = store.write_blocking(|tx| (1..=4).try_for_each(|n| tx.user(n).map(drop)));
    made.unwrap();
    let mut live: Vec<(Arc<Commit>, Arc<Catalog>)> = Vec::new();
    let mut before = tables(&store);
    let (mut dependants, mut too_many, steps) = (0, 0, 160);
    for step in 0..steps {
        if [50, 90, 120].contains(&step) {
            migrate_to(&store, [50, 90, 120].iter().position(|at| *at == step).unwrap() + 1);
            before = tables(&store);
        }
        told.0.lock().unwrap().clear();
        let mut number = |below| dice.roll(below);
        let todo: Vec<[i64; 5]> = (0..1 + number(3))
            .map(|_| [number(18), number(8) + 1, number(8) + 1, number(4) + 1, number(4) + 1])
            .collect();
        store.write_blocking(move |tx| something(tx, step, &todo)).unwrap();
        let after = tables(&store);
        for commit in told.all() {
            let catalog = store.catalog();
            let touched = touched(&commit.changes);
            let between = Between { catalog: &catalog, before: &before, after: &after, touched };
            let (some, none) = check(&commit, &between, most);
            (dependants, too_many) = (dependants + some, too_many + none);
            live.push((commit, catalog));
        }
        before = after;
        // From any place in the log to wherever it ends now.
        if dice.roll(20) == 0 || step == steps - 1 {
            let first = live[0].0.position;
            let skip = if step == steps - 1 { 0 } else { dice.roll(live.len() as u64) as usize };
            let again = replayed(&store, &mut dice, first - 1 + skip as u64, &wanted);
            let catalog = store.catalog();
            let again: HashMap<u64, _> = again.iter().map(|c| (c.position, c)).collect();
            for (commit, then) in &live[skip..] {
                let again = again[&commit.position];
                assert!(again.notices.is_empty() && again.related.gathered == wanted);
                let (right, found) = (whole(commit, then, then), whole(again, &catalog, then));
                assert_eq!(found, right, "seed {seed}, {} at step {step}", commit.position);
            }
        }
    }
    assert!(live.len() > 100, "{}", live.len());
    (dependants, too_many)
}

#[test]
fn what_was_told_live_is_what_the_log_gives() {
    let runs = std::env::var("ROWCAST_REPLAY_SEEDS").map_or(4, |runs| runs.parse().unwrap());
    for seed in 0..runs {
        let lookups_waiting = [0, 10, 150, 1_000_000][seed as usize % 4];
        let (dependants, too_many) = live_is_replayed(seed * 7 + 1, lookups_waiting, 10_000);
        assert!(dependants > 40 && too_many == 0, "{dependants} {too_many}");
    }
}

#[test]
fn what_was_too_much_live_is_too_much_from_the_log() {
    let runs = std::env::var("ROWCAST_REPLAY_SEEDS").map_or(3, |runs| runs.parse().unwrap());
    let mut all = (0, 0);
    for seed in 0..runs {
        let (dependants, too_many) = live_is_replayed(seed * 11 + 3, 150, 1 + seed as usize % 4);
        all = (all.0 + dependants, all.1 + too_many);
    }
    assert!(all.0 > 40 && all.1 > 40, "{all:?}");
}
