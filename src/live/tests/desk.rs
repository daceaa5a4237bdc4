//! A matcher without a thread, and a writer made of paper: blogs and categories in two maps, what
//! is related to them found by looking at all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value as Json;
use tokio::sync::oneshot;

use super::world::*;
use crate::auth::principal::Principal;
use crate::error::Result;
use crate::limits::Limits;
use crate::live::matcher::Matcher;
use crate::live::registry::Mode;
use crate::live::subscription::{Attach, Joined};
use crate::live::teller::Teller;
use crate::live::wanted::Wanted;
use crate::live::*;
use crate::model::catalog::Catalog;
use crate::model::change::{Change, Commit, Notice, Op, Row};
use crate::model::cursor::Cursor;
use crate::model::related::{Dependants, Key, RelatedRows, RelatedSet};
use crate::model::schema::{Column, Schema, SchemaId};
use crate::model::value::Value;
use crate::query::{Ask, Plan};
use crate::store::Mark;

type Table = BTreeMap<i64, Arc<Row>>;

pub(crate) struct Desk {
    pub(crate) matcher: Matcher,
    /// The writer's end of its queue.
    pub(crate) sink: TailSink,
    pub(crate) people: Arc<People>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) blogs: Table,
    categories: Table,
    pub(crate) position: u64,
    ids: u64,
}

/// One record as it is to be: columns by name, the others as they were or null; `None`: deleted.
pub(crate) type Put = (&'static str, i64, Option<Json>);

impl Desk {
    pub(crate) fn new(limits: Limits) -> Desk {
        let (limits, catalog) = (Arc::new(limits), catalog(1, &files("")));
        let (sink, tail) = tail::channel(limits.tail_bytes);
        let people = Arc::new(People::default());
        let ground = Arc::new(Arc::new(Ground::new(catalog.clone())));
        let principals = Arc::new(people.clone());
        let wanted = Wanted::new(ground.clone());
        let matcher = Matcher::new(
            tail.0,
            ground.clone(),
            principals,
            Arc::default(),
            wanted,
            limits.clone(),
        );
        Desk {
            matcher: matcher.expect("a matcher"),
            sink,
            people,
            limits,
            catalog,
            blogs: Table::new(),
            categories: Table::new(),
            position: 0,
            ids: 0,
        }
    }

    pub(crate) fn has(&self, is_blog: bool, id: i64) -> bool {
        if is_blog { &self.blogs } else { &self.categories }.contains_key(&id)
    }

    pub(crate) fn schema(&self, name: &str) -> Arc<Schema> {
        self.catalog.named(name).expect("a schema").clone()
    }

    pub(crate) fn request(&self, change: impl FnOnce(&mut Request)) -> Request {
        let ask = Ask { schema: "blog".into(), ..Ask::default() };
        let mut request = Request::new(ask, Arc::new(Plain), Arc::new(Principal::owner()));
        change(&mut request);
        request
    }

    pub(crate) fn plan(&self, request: &Request) -> Arc<Plan> {
        let plan = Plan::compile(&self.catalog, &request.principal, &self.limits, &request.ask);
        Arc::new(plan.expect("a plan"))
    }

    /// Puts a subscription in, perhaps after a replay.
    pub(crate) fn join(
        &mut self,
        request: Request,
        told: Option<Mark>,
    ) -> (Arc<Outbox>, Result<Joined>) {
        let outbox = Outbox::new(&self.limits, Close::new(4408, "slow"));
        let joined = self.join_with(request, told, &outbox);
        (outbox, joined)
    }

    /// The same, with an outbox that may have been told something.
    pub(crate) fn join_with(
        &mut self,
        request: Request,
        told: Option<Mark>,
        outbox: &Arc<Outbox>,
    ) -> Result<Joined> {
        let plan = self.plan(&request);
        let back = request.told.transitions;
        let hold = self.matcher.wanted.hold(plan.schema.id, &plan.paths, back);
        let key = request.id.as_ref().map(|id| Key::Int(id.parse().expect("a number")));
        let (answer, mut joined) = oneshot::channel();
        self.ids += 1;
        self.matcher.attach(Attach {
            id: self.ids,
            request,
            plan,
            key,
            hold: hold.map(|(hold, _)| hold),
            outbox: outbox.clone(),
            told,
            answer,
        });
        joined.try_recv().expect("an answer")
    }

    pub(crate) fn listen(&mut self, change: impl FnOnce(&mut Request)) -> Arc<Outbox> {
        let request = self.request(change);
        let (outbox, joined) = self.join(request, None);
        assert!(matches!(joined, Ok(Joined::Active(_))), "{joined:?}");
        outbox
    }

    /// What one listener would be told of a commit.
    pub(crate) fn teller(&self, change: impl FnOnce(&mut Request)) -> Teller {
        let request = self.request(change);
        let plan = self.plan(&request);
        let mode = Mode::of(&request, &plan);
        Teller::new(&self.limits, &request, plan, None, mode)
    }

    /// Writes, and tells the matcher.
    pub(crate) fn put(&mut self, puts: &[Put]) -> Arc<Commit> {
        let commit = self.write(puts, |_| {});
        self.matcher.commit(&commit);
        commit
    }

    /// Writes; `change` has the last word on the commit.
    pub(crate) fn write(&mut self, puts: &[Put], change: impl FnOnce(&mut Commit)) -> Arc<Commit> {
        let (blog, category) = (self.schema("blog"), self.schema("category"));
        let (mut touched, mut changes) = (BTreeSet::new(), Vec::new());
        let mut related = RelatedRows::default();
        related.before = self.related();
        let before = (self.blogs.clone(), self.categories.clone());
        for (name, id, record) in puts {
            let (schema, table) = match *name {
                "blog" => (&blog, &mut self.blogs),
                _ => (&category, &mut self.categories),
            };
            let was = table.get(id).cloned();
            let is = record.as_ref().map(|record| row(schema, *id, was.as_deref(), record));
            match &is {
                Some(row) => table.insert(*id, row.clone()),
                None => table.remove(id),
            };
            let op = match (&was, &is) {
                (None, _) => Op::Create,
                (_, None) => Op::Delete,
                _ => Op::Update,
            };
            touched.insert((schema.id, *id));
            changes.push(self::change(schema, op, *id, was, is));
        }
        related.after = self.related();
        related.dependants = self.dependants(&touched, &before);
        related.gathered = Arc::new(self.matcher.wanted.want());
        self.position += 1;
        let mut commit =
            Commit { stamp: 1000 + self.position, changes, related, ..entry(self.position) };
        change(&mut commit);
        Arc::new(commit)
    }

    pub(crate) fn migrate(&mut self, to: Arc<Catalog>, broken: Vec<SchemaId>) {
        self.catalog = to.clone();
        let notice = Notice::Catalog { catalog: to, broken };
        let commit = self.write(&[], |commit| commit.notices.push(notice));
        self.matcher.commit(&commit);
    }

    /// Everything that is related to anything, as it is now.
    pub(crate) fn related(&self) -> RelatedSet {
        let (blog, category) = (self.schema("blog"), self.schema("category"));
        let mut set = RelatedSet::default();
        let (there, back) = (&blog.relations[0].name, &category.relations[0].name);
        for (id, row) in &self.blogs {
            let one = category_of(&blog, row).and_then(|id| self.categories.get(&id));
            set.insert(blog.id, there, Key::Int(*id), one.cloned().into_iter().collect());
        }
        for id in self.categories.keys() {
            let many = self.blogs.values().filter(|row| category_of(&blog, row) == Some(*id));
            set.insert(category.id, back, Key::Int(*id), many.cloned().collect());
        }
        set
    }

    /// Blogs whose category was touched (or counts other blogs now), and categories one of whose
    /// blogs was.
    fn dependants(
        &self,
        touched: &BTreeSet<(SchemaId, i64)>,
        before: &(Table, Table),
    ) -> Dependants {
        let (blog, category) = (self.schema("blog"), self.schema("category"));
        let tables = [&before.0, &self.blogs];
        let ends: BTreeSet<i64> = touched
            .iter()
            .filter(|(schema, _)| *schema == blog.id)
            .flat_map(|(_, id)| tables.map(|table| category_of(&blog, table.get(id)?)))
            .flatten()
            .collect();
        let near: BTreeSet<i64> = touched
            .iter()
            .filter(|(schema, _)| *schema == category.id)
            .map(|(_, id)| *id)
            .chain(ends.iter().copied())
            .collect();
        let mut found = Dependants::default();
        let all = [(&blog, &self.blogs), (&category, &self.categories)];
        for (schema, table) in all {
            let mut indexes = Vec::new();
            for (id, row) in table.iter().filter(|(id, _)| !touched.contains(&(schema.id, **id))) {
                let reads = match schema.id == blog.id {
                    true => category_of(&blog, row).is_some_and(|id| near.contains(&id)),
                    false => ends.contains(id),
                };
                if reads {
                    indexes.push(found.changes.len());
                    let (was, is) = (Some(row.clone()), Some(row.clone()));
                    found.changes.push(change(schema, Op::Update, *id, was, is));
                }
            }
            if !indexes.is_empty() {
                found.by.insert((schema.id, schema.relations[0].name.clone()), Some(indexes));
            }
        }
        found
    }
}

fn row(schema: &Schema, id: i64, was: Option<&Row>, record: &Json) -> Arc<Row> {
    let value = |(slot, column): (usize, &Column)| match (&*column.name, was) {
        ("id", _) => Value::Int(id),
        (name, was) => match (record.get(name), was) {
            (Some(json), _) => Value::from_json(json, column).expect("a good value"),
            (None, Some(was)) => was.get(slot).clone(),
            (None, None) => Value::Null,
        },
    };
    Arc::new(Row::new(schema.columns.iter().enumerate().map(value).collect()))
}

fn change(
    schema: &Schema,
    op: Op,
    id: i64,
    before: Option<Arc<Row>>,
    after: Option<Arc<Row>>,
) -> Change {
    let (schema, schema_version) = (schema.id, schema.version);
    Change { schema, schema_version, op, key: Value::Int(id), before, after }
}

fn category_of(blog: &Schema, row: &Row) -> Option<i64> {
    let slot = blog.columns.iter().position(|column| &*column.name == "category_id")?;
    match row.get(slot) {
        Value::Int(id) => Some(*id),
        _ => None,
    }
}

/// The messages; a cursor is shown as its position, and must be the frame's.
pub(crate) fn shown(frames: impl IntoIterator<Item = Frame>) -> Vec<Json> {
    let show = |frame: Frame| {
        let mut json = payload(&frame.bytes);
        let cursor = json.get("cursor").and_then(Json::as_str);
        let cursor = cursor.map(|text| text.parse::<Cursor>().expect("a cursor"));
        assert_eq!(cursor, frame.cursor());
        if let Some(cursor) = cursor {
            assert_eq!(cursor.stamp, if cursor.position > 0 { 1000 + cursor.position } else { 0 });
            json["cursor"] = cursor.position.into();
        }
        json
    };
    frames.into_iter().map(show).collect()
}

pub(crate) fn heard(outbox: &Outbox) -> Vec<Json> {
    shown(take(outbox).0)
}

pub(crate) fn end(outbox: &Outbox) -> Option<u16> {
    take(outbox).1.map(|close| close.code)
}
