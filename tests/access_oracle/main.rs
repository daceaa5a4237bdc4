//! Nobody sees more than the rules give, nor less: random rules, principals, writes and questions
//! against a naive oracle that works on plain maps.
//!
//! Compared are lists (records, fields, order, totals), single records, answers and errors of
//! writes, bulk counts, the stream (deletes and consequences included), and after every write the
//! whole data. The seed is printed; `ACCESS_SEED` runs one world again, `ACCESS_WORLDS` sets how
//! many are tried.

mod filter;
mod generate;
mod grants;
#[path = "../rig/mod.rs"]
mod rig;
#[path = "../support/rng.rs"]
mod rng;
mod view;
mod world;
mod writes;

use std::collections::BTreeMap;

use rowcast::auth::principal::Principal;
use rowcast::content::ListAsk;
use rowcast::error::Error;
use rowcast::live::Events;
use rowcast::query::Ask;
use serde_json::{Map, Value as Json, json};

use grants::{Oracle, Who};
use rig::{Ear, Rig};
use rng::Rng;
use view::{No, Question};
use world::{Db, SCHEMAS};

pub const USERS: [&str; 3] = ["ann", "bob", "%"];

pub fn user_id(place: usize) -> String {
    format!("00000000-0000-7000-8000-00000000000{place}")
}

#[test]
fn nothing_goes_beyond_the_rules_and_nothing_is_missing() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let first = number("ACCESS_SEED").unwrap_or(now.map_or(1, |now| now.as_nanos() as u64));
    let worlds = match number("ACCESS_SEED") {
        Some(_) => 1,
        None => number("ACCESS_WORLDS").unwrap_or(10),
    };
    let mut counts = Counts::default();
    for seed in first..first + worlds {
        println!("ACCESS_SEED={seed}");
        World::new(seed).run(&mut counts);
    }
    println!("{counts:?}");
    // A test that only ever hears "no" would prove little. On the average a world shows 120
    // records, lets 9 writes through and tells 18 changes; a tenth of that never fails by chance.
    if worlds > 9 {
        let worlds = worlds as usize;
        assert!(counts.records > 12 * worlds, "{counts:?}");
        assert!(counts.writes > worlds && counts.told > worlds, "{counts:?}");
    }
}

#[derive(Debug, Default)]
struct Counts {
    questions: usize,
    refused: usize,
    records: usize,
    writes: usize,
    refused_writes: usize,
    told: usize,
}

struct World {
    rng: Rng,
    rig: Rig,
    oracle: Oracle,
    people: Vec<Who>,
    ears: Vec<(Question, Who, Ear)>,
    /// Schemas that have nothing to do with the others.
    more: usize,
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = Rng(seed);
        let rules: BTreeMap<&str, grants::Access> =
            SCHEMAS.iter().map(|schema| (*schema, generate::access(&mut rng, schema))).collect();
        let files = world::files(|schema| grants::to_json(&rules[schema]));
        let rig = Rig::new(&files).unwrap_or_else(|error| panic!("{error:?}"));
        let owner = Principal::owner();
        let mut db = Db::default();
        for (place, name) in USERS.iter().enumerate() {
            rig.user(&user_id(place), name).expect("a user");
            db.users.push(user_id(place));
        }
        // Targets first, so that keys have somewhere to lead.
        for schema in ["c", "b", "a"] {
            db.tables.insert(schema, BTreeMap::new());
            for _ in 0..7 {
                let rec = generate::record(&mut rng, schema, &db);
                let mut body = Map::new();
                for (column, value) in &rec {
                    let target = world::key_of(schema, column).map_or("", |rel| rel.target);
                    if *column != "id" {
                        body.insert(column.to_string(), db.shown_id(target, value));
                    }
                }
                let made = rig.create(&owner, schema, body).expect("a record");
                let id = made["id"].as_i64().expect("an id");
                let mut rec = rec;
                rec.insert("id", json!(id));
                db.tables.get_mut(schema).expect("a table").insert(id, rec);
            }
        }
        let all: Vec<i64> = db.all("c").map(|(id, _)| id).collect();
        for a in db.all("a").map(|(id, _)| id).collect::<Vec<_>>() {
            let some = rng.some(&all, 25);
            let body =
                json!({ "cs": some.iter().map(|id| json!({ "id": id })).collect::<Vec<_>>() });
            rig.update(&owner, "a", &a.to_string(), object(body)).expect("links");
            db.links.extend(some.into_iter().map(|c| (a, c)));
        }
        let people = generate::people(&mut rng);
        World { rng, rig, oracle: Oracle { rules, db }, people, ears: Vec::new(), more: 0 }
    }

    fn run(&mut self, counts: &mut Counts) {
        self.same_data();
        for _ in 0..20 {
            self.subscribe();
        }
        for _ in 0..12 {
            for _ in 0..12 {
                self.ask(counts);
                self.read(counts);
            }
            self.write(counts);
            self.write(counts);
            if self.rng.chance(15) {
                self.change_rules();
                self.subscribe();
            } else if self.rng.chance(10) {
                self.add_schema();
            }
        }
    }

    fn someone(&mut self) -> Who {
        self.rng.pick(&self.people).clone()
    }

    fn ask(&mut self, counts: &mut Counts) {
        let (who, question) = (self.someone(), generate::question(&mut self.rng));
        counts.questions += 1;
        let ask =
            ListAsk { ask: ask(&question), page: Some(question.page), limit: Some(question.limit) };
        let got = self.rig.list(&who.principal(&self.oracle.db), ask);
        let want = self.oracle.list(&question, &who);
        let told = || format!("{} asks {question:?}\nof {}", who_is(&who), self.rules());
        match (got, want) {
            (Ok(got), Ok((total, items))) => {
                counts.records += items.len();
                assert_eq!(got["total"], json!(total), "total: {}", told());
                assert_eq!(got["items"], Json::Array(items), "items: {}", told());
            }
            (Err(error), Err(no)) => {
                counts.refused += 1;
                self.refusal(&error, &no, &question, &who);
            }
            (got, want) => panic!("got {got:?}\nwant {want:?}\n{}", told()),
        }
    }

    /// An error says nothing of what is hidden: no name but those asked for and those readable.
    fn refusal(&self, error: &Error, no: &No, question: &Question, who: &Who) {
        let told = format!("{error:?} for {question:?} by {}", who_is(who));
        match no {
            No::Grant => {
                assert_eq!(error.status(), if who.logged_in() { 403 } else { 401 }, "{told}");
            }
            No::Unknown | No::Wrong => assert_eq!(error.status(), 400, "{told}"),
        }
        if let Some((asked, meant)) = error.message.split_once("'; did you mean '") {
            // The hint changes one name of the path; what stands behind it is the client's own.
            let asked = asked.rsplit('\'').next().expect("a path").split('.');
            let meant: Vec<&str> = meant.split('\'').next().expect("a path").split('.').collect();
            let same = asked.zip(&meant).take_while(|(asked, meant)| asked == *meant).count();
            let meant = meant[..=same].join(".");
            let hinted = Question {
                schema: question.schema,
                select: meant,
                page: 1,
                limit: 1,
                ..Question::default()
            };
            let readable = self.oracle.check(&hinted, who);
            assert!(!matches!(readable, Err(No::Unknown | No::Grant)), "{told}");
        }
    }

    fn read(&mut self, counts: &mut Counts) {
        let (who, schema) = (self.someone(), *self.rng.pick(&SCHEMAS));
        let id = 1 + self.rng.below(12) as i64;
        let got = self.rig.read(&who.principal(&self.oracle.db), schema, &id.to_string(), None);
        counts.questions += 1;
        let status = match &got {
            Ok(_) => 200,
            Err(error) => error.status(),
        };
        let told = format!("{} reads {schema} {id} of {}", who_is(&who), self.rules());
        if self.oracle.reads(schema, &who).is_empty() {
            assert_eq!(status, if who.logged_in() { 403 } else { 401 }, "{told}");
        } else if self.oracle.readable(schema, id, &who) {
            let want = self.oracle.answer(schema, id, &who);
            assert_eq!(got.unwrap_or_else(|error| panic!("{error:?} {told}")), want, "{told}");
            counts.records += 1;
        } else {
            assert_eq!(status, 404, "{told}");
            let message = got.expect_err("404").message;
            assert_eq!(message, format!("no '{schema}' with id {id}"), "{told}");
        }
    }

    fn subscribe(&mut self) {
        let who = self.someone();
        let question = Question {
            sort: String::new(),
            page: 1,
            limit: 1,
            ..generate::question(&mut self.rng)
        };
        let ear =
            self.rig.subscribe(&who.principal(&self.oracle.db), ask(&question), Events::ALL, None);
        match (ear, self.oracle.check(&question, &who)) {
            (Ok(ear), Ok(_)) => self.ears.push((question, who, ear)),
            (Err(error), Err(no)) => self.refusal(&error, &no, &question, &who),
            (got, want) => {
                let got = got.map(|_| "subscribed");
                panic!("{got:?}, want {:?}: {question:?} by {}", want.map(|_| ()), who_is(&who));
            }
        }
    }

    fn write(&mut self, counts: &mut Counts) {
        let (who, schema) = (self.someone(), *self.rng.pick(&SCHEMAS));
        let principal = who.principal(&self.oracle.db);
        let id = 1 + self.rng.below(9) as i64;
        let body = generate::body(&mut self.rng, schema, &self.oracle.db);
        let told = format!("{} writes {schema} {id} {body:?} of {}", who_is(&who), self.rules());
        let before = self.oracle.clone();
        match self.rng.below(12) {
            0..4 => {
                let got = self.rig.create(&principal, schema, body.clone());
                let new = got.as_ref().ok().and_then(|made| made["id"].as_i64());
                let next = before.db.all(schema).map(|(id, _)| id).max().unwrap_or(0) + 1;
                let id = new.unwrap_or(next);
                let want = before.written(schema, id, true, &body, &who);
                self.settle(got, want, &who, &told, counts);
            }
            4..8 => {
                let got = self.rig.update(&principal, schema, &id.to_string(), body.clone());
                let want = before.written(schema, id, false, &body, &who);
                if let Err(error) = &got
                    && error.status() == 404
                {
                    assert!(!before.readable(schema, id, &who), "{told}");
                    assert_eq!(error.message, format!("no '{schema}' with id {id}"), "{told}");
                }
                self.settle(got, want, &who, &told, counts);
            }
            8 | 9 => {
                let got = self.rig.delete(&principal, schema, &id.to_string());
                let want = before.deleted(schema, id, &who);
                if let Ok(got) = &got {
                    assert_eq!(*got, json!({ "id": id }), "{told}");
                }
                self.settle(got.map(|_| Json::Null), want, &who, &told, counts);
            }
            10 => self.delete_all(schema, &who, counts),
            _ => self.update_all(schema, &who, &body, counts),
        }
    }

    /// A schema more, which is nobody's concern.
    fn add_schema(&mut self) {
        self.more += 1;
        self.apply();
        for (question, who, ear) in &self.ears {
            assert_eq!(ear.heard(), [], "{question:?}");
            assert_eq!(ear.ended(), None, "{} {question:?}", who_is(who));
        }
    }

    fn apply(&mut self) {
        let mut files = world::files(|schema| grants::to_json(&self.oracle.rules[schema]));
        files.extend((0..self.more).map(|number| {
            json!({
                "name": format!("more{number}"), "namespace": format!("mores{number}"),
                "label_field": "name",
                "fields": [{ "name": "name", "label": "Name", "type": "string" }]
            })
        }));
        self.rig.apply(&files).unwrap_or_else(|error| panic!("{error:?}"));
        self.rig.settle();
    }

    fn some_of(&mut self, schema: &'static str) -> Question {
        Question {
            schema,
            filter: Some(json!({ "id": { "$lte": self.rng.below(10) } })),
            page: 1,
            limit: 100,
            ..Question::default()
        }
    }

    fn update_all(
        &mut self,
        schema: &'static str,
        who: &Who,
        body: &Map<String, Json>,
        counts: &mut Counts,
    ) {
        // To-many relations of many records at once entangle them; the fixtures have those.
        let mut body = body.clone();
        body.retain(|name, _| !matches!(name.as_str(), "all" | "cs" | "one" | "one_id"));
        let question = self.some_of(schema);
        let filter = question.filter.clone().expect("a filter");
        let told = format!("{} {question:?} {body:?} of {}", who_is(who), self.rules());
        let principal = who.principal(&self.oracle.db);
        let got = self.rig.update_all(&principal, schema, filter, body.clone());
        let want = self.oracle.written_all(&question, &body, who);
        if let (Ok(count), Some((_, touched))) = (&got, &want) {
            assert_eq!(*count, touched.len() as u64, "{told}");
        }
        self.settle(got.map(|_| Json::Null), want, who, &told, counts);
    }

    fn delete_all(&mut self, schema: &'static str, who: &Who, counts: &mut Counts) {
        let question = self.some_of(schema);
        let filter = question.filter.clone().expect("a filter");
        let got = self.rig.delete_all(&who.principal(&self.oracle.db), schema, filter);
        let told = format!("{} deletes {question:?} of {}", who_is(who), self.rules());
        let grant = self.oracle.grant(schema, who, "delete");
        let Ok(checked) = self.oracle.check(&question, who) else {
            assert!(got.is_err(), "{told}");
            return;
        };
        if grant.is_empty() {
            assert!(got.is_err(), "{told}");
            return;
        }
        let mut after = self.oracle.clone();
        let mut touched: Vec<writes::Touched> = Vec::new();
        let mut count = 0;
        for (id, rec) in self.oracle.db.all(schema) {
            let may = grant.iter().any(|alt| self.oracle.is_true(schema, rec, alt));
            if !may || !self.oracle.answers(&question, &checked, who, rec) {
                continue;
            }
            count += 1;
            let changed = after.db.delete(schema, id);
            touched.push((schema, id, "delete"));
            touched.extend(changed.into_iter().map(|(schema, id)| (schema, id, "update")));
        }
        // Each record is told once, as what became of it in the end.
        let gone: Vec<_> = touched.iter().filter(|one| one.2 == "delete").copied().collect();
        touched.retain(|one| one.2 == "delete" || !gone.contains(&(one.0, one.1, "delete")));
        touched.sort_unstable();
        touched.dedup();
        assert_eq!(got.unwrap_or_else(|error| panic!("{error:?} {told}")), count, "{told}");
        self.settle(Ok(Json::Null), Some((after, touched)), who, &told, counts);
    }

    /// Other rules for one schema: from here on they hold, for open subscriptions as well.
    fn change_rules(&mut self) {
        let schema = *self.rng.pick(&SCHEMAS);
        let access = generate::access(&mut self.rng, schema);
        self.oracle.rules.insert(schema, access);
        self.apply();
        let oracle = &self.oracle;
        self.ears.retain(|(question, who, ear)| {
            assert_eq!(ear.heard(), [], "{question:?}");
            let want = oracle.check(question, who).is_ok();
            let ended = ear.ended();
            let code = ended.as_ref().map(|close| close.code);
            // One that now reads through relations nobody read before has to start anew.
            let right = if want { [None, Some(4410)] } else { [Some(4403); 2] };
            assert!(right.contains(&code), "{} {question:?} {ended:?}", who_is(who));
            code.is_none()
        });
    }

    /// Answer, data and stream after a write.
    fn settle(
        &mut self,
        got: Result<Json, Error>,
        want: Option<(Oracle, Vec<writes::Touched>)>,
        who: &Who,
        told: &str,
        counts: &mut Counts,
    ) {
        self.rig.settle();
        let before = self.oracle.clone();
        match (got, want) {
            (Ok(got), Some((after, touched))) => {
                counts.writes += 1;
                self.oracle = after;
                if let (false, Some((schema, id, _))) = (got.is_null(), touched.first()) {
                    assert_eq!(got, self.oracle.answer(schema, *id, who), "answer: {told}");
                }
                for (question, who, ear) in &self.ears {
                    let mut heard = ear.heard();
                    let mut want = before.told(&self.oracle, &touched, question, who);
                    counts.told += heard.len();
                    let order = |one: &(String, Json)| (one.0.clone(), one.1.to_string());
                    heard.sort_by_key(order);
                    want.sort_by_key(order);
                    assert_eq!(heard, want, "{} hears {question:?} when {told}", who_is(who));
                }
            }
            (Err(error), None) => {
                counts.refused_writes += 1;
                assert!((400..500).contains(&error.status()), "{error:?} {told}");
                for (_, _, ear) in &self.ears {
                    assert_eq!(ear.heard(), [], "{told}");
                }
            }
            (got, want) => {
                let want = if want.is_some() { "allowed" } else { "refused" };
                panic!("got {got:?}, want {want}: {told}")
            }
        }
        self.same_data();
    }

    /// What the owner sees is what the oracle holds.
    fn same_data(&self) {
        let owner = Principal::owner();
        let all =
            Who { name: "owner", user: None, roles: Vec::new(), claims: Map::new(), admin: true };
        for schema in SCHEMAS {
            let select = if schema == "a" { "id,n,s,k,b_id,owner_id,cs.id" } else { "" };
            let question = Question {
                schema,
                select: select.into(),
                page: 1,
                limit: 1000,
                ..Question::default()
            };
            let asked = ListAsk { ask: ask(&question), page: None, limit: Some(1000) };
            let got = self.rig.list(&owner, asked).expect("the owner may");
            let (_, want) = self.oracle.list(&question, &all).expect("the owner may");
            assert_eq!(got["items"], Json::Array(want), "{schema}");
        }
    }

    fn rules(&self) -> String {
        let rules = self.oracle.rules.iter();
        let rules = rules.map(|(schema, access)| format!("{schema}: {}", grants::to_json(access)));
        rules.collect::<Vec<_>>().join("\n")
    }
}

fn who_is(who: &Who) -> String {
    format!("{} {:?} {}", who.name, who.roles, Json::Object(who.claims.clone()))
}

fn ask(question: &Question) -> Ask {
    Ask {
        schema: question.schema.to_owned(),
        filter: question.filter.clone(),
        untyped: false,
        select: Some(question.select.clone()),
        sort: Some(question.sort.clone()),
        watch: None,
    }
}

fn object(value: Json) -> Map<String, Json> {
    match value {
        Json::Object(map) => map,
        _ => Map::new(),
    }
}
