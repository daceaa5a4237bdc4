//! Cases against a server, over HTTP and WebSockets.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use libtest_mimic::Failed;
use serde_json::{Value as Json, json};

use super::case::{Deed, Fixture, Problem, Refusal, Saved, Side};
use super::common::{Options, PATIENCE, Server, Ws, encode, rowcast};

pub struct Served {
    server: Server,
    /// Id and token; no token for guests.
    people: BTreeMap<String, (String, Option<String>)>,
    sockets: BTreeMap<String, (Ws, VecDeque<Json>)>,
}

impl Served {
    pub fn new(fixture: &Fixture) -> Result<Served, Failed> {
        let mut options = Options::default();
        for schema in &fixture.schemas {
            let name = schema["name"].as_str().ok_or("a schema without a name")?;
            options = options.schema(name, schema);
        }
        let server = Server::start(options);
        let admin = server.admin_token();
        let mut people = BTreeMap::from([
            ("guest".to_owned(), (String::new(), None)),
            ("admin".to_owned(), (String::new(), Some(admin))),
        ]);
        for (name, person) in &fixture.people {
            if person.claims.is_none() {
                let roles: Vec<&str> = person.roles.iter().map(String::as_str).collect();
                let (id, token) = server.user(name, &roles);
                people.insert(name.clone(), (id, Some(token)));
            }
        }
        let mut served = Served { server, people, sockets: BTreeMap::new() };
        let saved = served.saved();
        for made in &fixture.records {
            let deed = Deed {
                create: Some(made.schema.clone()),
                body: Some(saved.in_map(&made.body)),
                ..Deed::default()
            };
            served.act("admin", &deed).map_err(|refusal| format!("{deed:?}: {}", refusal.says))?;
        }
        Ok(served)
    }

    fn query(deed: &Deed) -> String {
        let mut pairs = Vec::new();
        let mut add = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                pairs.push(format!("{name}={}", encode(&value)));
            }
        };
        add("schema", deed.subscribe.clone());
        add("filter", deed.filter.as_ref().map(Json::to_string));
        add("select", deed.select.clone());
        add("sort", deed.sort.clone());
        add("page", deed.page.map(|page| page.to_string()));
        add("limit", deed.limit.map(|limit| limit.to_string()));
        add("event", deed.event.clone());
        add("id", deed.id.as_ref().map(|id| id.as_str().map_or(id.to_string(), str::to_owned)));
        pairs.join("&")
    }

    /// `Err` where the subscription is refused, by HTTP or by a close at once.
    fn socket(&self, who: &str, deed: &Deed) -> Result<Ws, Refusal> {
        let (_, token) = &self.people[who];
        let bearer = token.as_ref().map(|token| format!("Bearer {token}"));
        let headers: Vec<_> = bearer.iter().map(|one| ("Authorization", one.as_str())).collect();
        let path = format!("/api/realtime/content?{}", Served::query(deed));
        self.server.ws(&path, &headers, None).map_err(|answer| Refusal {
            status: answer.status,
            says: answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned(),
        })
    }

    fn try_subscribe(&self, who: &str, deed: &Deed) -> Result<Json, Refusal> {
        let mut socket = self.socket(who, deed)?;
        // A refusal closes at once; silence is a good sign.
        match socket.read_until(std::time::Instant::now() + Duration::from_millis(300)) {
            Ok(Some(super::common::tungstenite::Message::Close(Some(frame)))) => {
                let status = match u16::from(frame.code) {
                    4401 => 401,
                    4403 => 403,
                    _ => 400,
                };
                let reason = frame.reason.as_str();
                let says = reason.strip_prefix("realtime.content: ").unwrap_or(reason);
                Err(Refusal { status, says: says.to_owned() })
            }
            _ => Ok(json!("subscribed")),
        }
    }
}

impl Side for Served {
    fn saved(&self) -> Saved {
        let ids = self.people.iter().filter(|(_, (id, _))| !id.is_empty());
        Saved(ids.map(|(name, (id, _))| (name.clone(), id.clone())).collect())
    }

    fn has(&self, _: &Fixture, who: &str) -> bool {
        self.people.contains_key(who)
    }

    fn act(&mut self, who: &str, deed: &Deed) -> Result<Json, Refusal> {
        if deed.subscribe.is_some() {
            return self.try_subscribe(who, deed);
        }
        let (method, place) = None
            .or(deed.list.as_ref().map(|schema| ("GET", schema.clone())))
            .or(deed.read.as_ref().map(|place| ("GET", place.clone())))
            .or(deed.create.as_ref().map(|schema| ("POST", schema.clone())))
            .or(deed.update.as_ref().map(|place| ("PUT", place.clone())))
            .or(deed.delete.as_ref().map(|place| ("DELETE", place.clone())))
            .or(deed.update_all.as_ref().map(|schema| ("PUT", format!("{schema}/update"))))
            .or(deed.delete_all.as_ref().map(|schema| ("DELETE", format!("{schema}/delete"))))
            .expect("something to do");
        let path = format!("/api/content/{place}?{}", Served::query(deed));
        let body = deed.body.clone().map(Json::Object);
        let token = self.people[who].1.clone();
        let (status, answer) = self.server.request(method, &path, token.as_deref(), body.as_ref());
        match status {
            200 => Ok(answer["data"].clone()),
            _ => {
                let says = answer["error"]["message"].as_str().unwrap_or_default().to_owned();
                Err(Refusal { status, says })
            }
        }
    }

    fn listen(&mut self, name: &str, deed: &Deed, who: &str) -> Result<(), Refusal> {
        let socket = self.socket(who, deed)?;
        self.sockets.insert(name.to_owned(), (socket, VecDeque::new()));
        Ok(())
    }

    /// One message may tell of several records. Messages come in order, so where nothing is
    /// wanted there is no need to wait: what came too much is met with the next that is.
    fn heard(&mut self, name: &str, wanted: Option<usize>) -> Vec<Json> {
        let (socket, waiting) = self.sockets.get_mut(name).expect("a listener");
        let (time, enough) = match wanted {
            Some(count) => (PATIENCE, count),
            None => (Duration::from_millis(50), usize::MAX),
        };
        while waiting.len() < enough {
            let Some(message) = socket.next_within(time) else { break };
            let event = &message["event"];
            let records = match &message["data"] {
                Json::Array(records) => records.clone(),
                record => vec![record.clone()],
            };
            waiting.extend(
                records.into_iter().map(|record| json!({ "event": event, "record": record })),
            );
        }
        waiting.drain(..enough.min(waiting.len())).collect()
    }
}

/// What `rowcast check` says of the schemas.
pub fn problems(fixture: &Fixture) -> Vec<Problem> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for schema in &fixture.schemas {
        let name = schema["name"].as_str().unwrap_or("unnamed");
        let path = dir.path().join(format!("{name}.json"));
        std::fs::write(path, schema.to_string()).expect("a written schema");
    }
    let output = rowcast(dir.path()).arg("check").arg(dir.path()).output().expect("rowcast runs");
    assert!(!output.status.success(), "check found nothing");
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8(told).expect("text");
    let wanted = fixture.problems.iter().flatten();
    // Lines are for people; what counts is that each problem is among them, with its place.
    wanted
        .filter(|one| told.lines().any(|line| line.contains(&one.path) && line.contains(&one.says)))
        .map(|one| Problem { path: one.path.clone(), says: one.says.clone() })
        .collect()
}
