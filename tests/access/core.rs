//! Cases on the core alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use libtest_mimic::Failed;
use rowcast::auth::principal::Principal;
use rowcast::content::ListAsk;
use rowcast::error::Error;
use rowcast::live::{Event, Events};
use rowcast::query::Ask;
use serde_json::{Value as Json, json};

use super::case::{Deed, Fixture, Problem, Refusal, Saved, Side};
use super::rig::{Ear, Rig};

pub struct Core {
    rig: Rig,
    people: BTreeMap<String, Principal>,
    ears: BTreeMap<String, Ear>,
}

impl Core {
    pub fn new(fixture: &Fixture) -> Result<Core, Failed> {
        let rig = Rig::new(&fixture.schemas).map_err(|error| format!("{error:?}"))?;
        let mut people = BTreeMap::from([
            ("guest".to_owned(), Principal::guest()),
            ("admin".to_owned(), Principal::owner()),
        ]);
        for (place, (name, person)) in fixture.people.iter().enumerate() {
            let id = format!("00000000-0000-7000-8000-{place:012}");
            rig.user(&id, name).map_err(|error| error.message)?;
            let mut roles: Vec<Arc<str>> =
                person.roles.iter().map(|role| Arc::from(role.as_str())).collect();
            roles.sort();
            let principal = Principal {
                user: id.parse().ok(),
                username: Some(name.as_str().into()),
                roles,
                claims: Arc::new(person.claims.clone().unwrap_or_default()),
                logged_in: true,
                ..Principal::default()
            };
            people.insert(name.clone(), principal);
        }
        let mut core = Core { rig, people, ears: BTreeMap::new() };
        let saved = core.saved();
        for made in &fixture.records {
            let deed = Deed {
                create: Some(made.schema.clone()),
                body: Some(saved.in_map(&made.body)),
                ..Deed::default()
            };
            core.act("admin", &deed).map_err(|refusal| format!("{deed:?}: {}", refusal.says))?;
        }
        Ok(core)
    }

    /// What is wrong with the schemas' rules.
    pub fn problems(fixture: &Fixture) -> Vec<Problem> {
        let Err(error) = Rig::new(&fixture.schemas) else { return Vec::new() };
        let problems = error.problems.into_iter();
        problems.map(|problem| Problem { path: problem.path, says: problem.message }).collect()
    }

    fn ask(schema: &str, deed: &Deed) -> Ask {
        Ask {
            schema: schema.to_owned(),
            filter: deed.filter.clone(),
            untyped: false,
            select: deed.select.clone(),
            sort: deed.sort.clone(),
            watch: None,
        }
    }

    fn done(&self, who: &Principal, deed: &Deed) -> Result<Json, Error> {
        let rig = &self.rig;
        let body = || deed.body.clone().unwrap_or_default();
        let filter = || deed.filter.clone().unwrap_or_else(|| json!({}));
        if let Some(schema) = &deed.list {
            let ask = Core::ask(schema, deed);
            return rig.list(who, ListAsk { ask, page: deed.page, limit: deed.limit });
        }
        if let Some(place) = &deed.read {
            let (schema, id) = Deed::place(place);
            return rig.read(who, schema, id, deed.select.as_deref());
        }
        if let Some(schema) = &deed.create {
            return rig.create(who, schema, body());
        }
        if let Some(place) = &deed.update {
            let (schema, id) = Deed::place(place);
            return rig.update(who, schema, id, body());
        }
        if let Some(place) = &deed.delete {
            let (schema, id) = Deed::place(place);
            return rig.delete(who, schema, id);
        }
        if let Some(schema) = &deed.update_all {
            return rig.update_all(who, schema, filter(), body()).map(Json::from);
        }
        if let Some(schema) = &deed.delete_all {
            return rig.delete_all(who, schema, filter()).map(Json::from);
        }
        self.subscribed(who, deed).map(|_| json!("subscribed"))
    }

    fn subscribed(&self, who: &Principal, deed: &Deed) -> Result<Ear, Error> {
        let schema = deed.subscribe.as_deref().unwrap_or_default();
        let events = match deed.event.as_deref() {
            Some("create") => Events::only(Event::Create),
            Some("update") => Events::only(Event::Update),
            Some("delete") => Events::only(Event::Delete),
            _ => Events::ALL,
        };
        let id = deed.id.as_ref().map(|id| id.as_str().map_or(id.to_string(), str::to_owned));
        self.rig.subscribe(who, Core::ask(schema, deed), events, id.as_deref())
    }
}

fn refusal(error: Error) -> Refusal {
    Refusal { status: error.status(), says: error.message }
}

impl Side for Core {
    fn saved(&self) -> Saved {
        let ids = self
            .people
            .iter()
            .filter_map(|(name, who)| Some((name.clone(), who.user?.to_string())));
        Saved(ids.collect())
    }

    fn has(&self, _: &Fixture, _: &str) -> bool {
        true
    }

    fn act(&mut self, who: &str, deed: &Deed) -> Result<Json, Refusal> {
        let who = self.people.get(who).unwrap_or_else(|| panic!("nobody is called {who}"));
        let done = self.done(who, deed).map_err(refusal);
        self.rig.settle();
        done
    }

    fn listen(&mut self, name: &str, deed: &Deed, who: &str) -> Result<(), Refusal> {
        let who = self.people.get(who).unwrap_or_else(|| panic!("nobody is called {who}"));
        let ear = self.subscribed(who, deed).map_err(refusal)?;
        self.ears.insert(name.to_owned(), ear);
        Ok(())
    }

    fn heard(&mut self, name: &str, _: Option<usize>) -> Vec<Json> {
        let heard = self.ears[name].heard().into_iter();
        heard.map(|(event, record)| json!({ "event": event, "record": record })).collect()
    }
}
