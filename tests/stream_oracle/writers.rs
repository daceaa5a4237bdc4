//! Those who write: everything REST lets one write, at random.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Map, Value as Json, json};

use crate::common::{HttpAnswer, PATIENCE, encode};
use crate::rng::Rng;
use crate::world::{self, Person, SCHEMAS};

/// Primary keys that are likely there, and what was written so far.
#[derive(Default)]
pub struct Records {
    pub keys: Mutex<BTreeMap<&'static str, Vec<i64>>>,
    pub log: Mutex<Vec<String>>,
    /// How long long texts are.
    pub weight: AtomicUsize,
}

impl Records {
    fn some(&self, rng: &mut Rng, schema: &str) -> i64 {
        let keys = self.keys.lock().expect("keys");
        match keys.get(schema) {
            Some(keys) if !keys.is_empty() => *rng.pick(keys),
            _ => 1,
        }
    }

    fn refs(&self, rng: &mut Rng, schema: &str, most: usize) -> Json {
        let mut keys: Vec<i64> = (0..rng.below(most + 1)).map(|_| self.some(rng, schema)).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.into_iter().map(|id| json!({ "id": id })).collect()
    }

    fn count(&self, schema: &str) -> usize {
        self.keys.lock().expect("keys").get(schema).map_or(0, Vec::len)
    }
}

/// One request; `None` where the server was not there (to the end).
pub fn call(
    address: SocketAddr,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: Option<&Json>,
) -> Option<(u16, Json)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let body = body.map(Json::to_string).unwrap_or_default();
    let bearer = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         {}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        bearer.unwrap_or_default(),
        body.len()
    );
    stream.write_all(request.as_bytes()).ok()?;
    let answer = HttpAnswer::read(&mut stream).ok()?;
    let length = answer.header("content-length")?.parse::<usize>().ok()?;
    (answer.body.len() == length).then(|| (answer.status, answer.json()))
}

/// One write to be.
struct Write {
    method: &'static str,
    path: String,
    body: Option<Json>,
}

/// Writes until `deadline` or until so many are done; gives how many were made and how many the
/// server had no answer to. `Err`: an answer that should not be.
pub fn run(
    mut rng: Rng,
    address: SocketAddr,
    who: &Person,
    records: &Records,
    deadline: Instant,
    pause: usize,
) -> Result<(usize, usize), String> {
    let (mut made, mut lost) = (0, 0);
    while Instant::now() < deadline {
        let (schema, write) = next(&mut rng, records);
        let answer =
            call(address, write.method, &write.path, who.token.as_deref(), write.body.as_ref());
        let shown = write.body.as_ref().map(Json::to_string).unwrap_or_default();
        let shown = shown.replace("long ", "");
        let line = format!("{} {} {} {shown}", who.name, write.method, write.path);
        let Some((status, answer)) = answer else {
            lost += 1;
            records.log.lock().expect("log").push(format!("{line} -> lost"));
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        let id = answer["data"]["id"].as_i64();
        records.log.lock().expect("log").push(format!("{line} -> {status} {id:?}"));
        match (status, write.method, id) {
            (200, method, id) => {
                made += 1;
                let mut keys = records.keys.lock().expect("keys");
                let keys = keys.entry(schema).or_default();
                match (method, id) {
                    ("POST", Some(id)) => keys.push(id),
                    ("DELETE", Some(id)) => keys.retain(|key| *key != id),
                    _ => {}
                }
            }
            // No record, no right, or a required reference in the way.
            (400 | 403 | 404 | 409, _, _) => {}
            // Too much waits.
            (503, _, _) => {}
            _ => return Err(format!("{line} -> {status} {answer}")),
        }
        if pause > 0 {
            std::thread::sleep(Duration::from_millis(rng.below(pause) as u64));
        }
    }
    Ok((made, lost))
}

/// The records to begin with.
pub fn furnish(rng: &mut Rng, address: SocketAddr, who: &Person, records: &Records) {
    for (schema, count) in [("group", 6), ("person", 6), ("tag", 7), ("item", 30)] {
        for _ in 0..count {
            let body = body(rng, records, schema, true);
            let path = format!("/api/content/{schema}");
            let (status, answer) =
                call(address, "POST", &path, who.token.as_deref(), Some(&body)).expect("an answer");
            if let (200, Some(id)) = (status, answer["data"]["id"].as_i64()) {
                records.keys.lock().expect("keys").entry(schema).or_default().push(id);
            }
        }
    }
}

fn next(rng: &mut Rng, records: &Records) -> (&'static str, Write) {
    let schema = if rng.chance(50) { "item" } else { *rng.pick(&SCHEMAS) };
    let most = if schema == "item" { 60 } else { 10 };
    let base = format!("/api/content/{schema}");
    let crowded = records.count(schema) > most;
    let one = format!("{base}/{}", records.some(rng, schema));
    let put = |path: String, body: Json| Write { method: "PUT", path, body: Some(body) };
    let write = match rng.below(100) {
        0..18 if !crowded => {
            Write { method: "POST", path: base, body: Some(body(rng, records, schema, true)) }
        }
        18..26 => Write { method: "DELETE", path: one, body: None },
        0..26 if rng.chance(50) => Write { method: "DELETE", path: one, body: None },
        26..58 => put(one, body(rng, records, schema, false)),
        58..80 => put(one, links(rng, records, schema)),
        80..90 => {
            let path = format!("{base}/update?filter={}", encode(&many(rng, schema).to_string()));
            put(path, plain(rng, records, schema))
        }
        90..92 => {
            let low = records.some(rng, schema);
            let filter = json!({ "id": { "$gte": low, "$lte": low + rng.below(4) as i64 } });
            let path = format!("{base}/delete?filter={}", encode(&filter.to_string()));
            Write { method: "DELETE", path, body: None }
        }
        92..95 => put(one, json!({ "$add": { counter(schema): 1 } })),
        // Sets nothing anew: an update all the same.
        95..97 => put(one, json!({})),
        _ => put(one, plain(rng, records, schema)),
    };
    (schema, write)
}

fn counter(schema: &str) -> &'static str {
    match schema {
        "item" => "n",
        "group" => "rank",
        "person" => "level",
        _ => "weight",
    }
}

fn many(rng: &mut Rng, schema: &str) -> Json {
    let counter = counter(schema);
    match rng.below(4) {
        0 => json!({}),
        1 => json!({ counter: { "$gt": rng.below(30) } }),
        2 => json!({ "id": { "$in": [1 + rng.below(9), 1 + rng.below(30), 1 + rng.below(30)] } }),
        _ => json!({ counter: { "$lt": rng.below(20) } }),
    }
}

/// Some own fields.
fn plain(rng: &mut Rng, records: &Records, schema: &str) -> Json {
    let mut body = Map::new();
    let counter = counter(schema);
    if rng.chance(60) {
        body.insert(counter.to_owned(), world::number(rng));
    }
    match schema {
        "item" => {
            if rng.chance(40) {
                body.insert("state".into(), world::state(rng));
            }
            if rng.chance(25) {
                body.insert("title".into(), world::word(rng));
            }
            if rng.chance(15) {
                let long = "long ".repeat(records.weight.load(Ordering::Relaxed));
                body.insert("note".into(), json!({ "a": [rng.below(3), "ü\"\\", long] }));
            }
        }
        "group" if rng.chance(60) => {
            body.insert("open".into(), json!(rng.chance(60)));
        }
        _ => {
            if rng.chance(35) {
                body.insert("name".into(), world::word(rng));
            }
        }
    }
    body.into()
}

/// Own fields and relations, as a create or an update takes them.
fn body(rng: &mut Rng, records: &Records, schema: &str, new: bool) -> Json {
    let mut body = plain(rng, records, schema);
    let one = |rng: &mut Rng, schema: &str| match rng.chance(20) {
        true => Json::Null,
        false => json!({ "id": records.some(rng, schema) }),
    };
    match schema {
        "item" => {
            if new {
                body["title"] = world::word(rng);
            }
            if new || rng.chance(20) {
                body["lead"] = json!({ "id": records.some(rng, "person") });
            }
            if rng.chance(if new { 80 } else { 35 }) {
                body["group"] = one(rng, "group");
            }
            if rng.chance(if new { 60 } else { 15 }) {
                body["tags"] = records.refs(rng, "tag", 3);
            }
            if rng.chance(20) {
                body["kin"] = records.refs(rng, "item", 3);
            }
        }
        "group" => {
            if rng.chance(40) {
                body["parent"] = one(rng, "group");
            }
            if rng.chance(25) {
                body["head"] = one(rng, "person");
            }
        }
        "person" => {
            if rng.chance(50) {
                body["boss"] = one(rng, "person");
            }
            if rng.chance(25) {
                body["heads"] = one(rng, "group");
            }
        }
        _ => {}
    }
    body
}

/// Relations alone, from either side, with the operators there are.
fn links(rng: &mut Rng, records: &Records, schema: &str) -> Json {
    let many: &[(&str, &str)] = match schema {
        "item" => &[("tags", "tag"), ("kin", "item"), ("kin_of", "item")],
        "group" => &[("items", "item"), ("children", "group")],
        "person" => &[("leads", "item"), ("staff", "person")],
        _ => &[("items", "item")],
    };
    let (name, target) = *rng.pick(many);
    let refs = records.refs(rng, target, 3);
    match rng.below(6) {
        0 => json!({ name: refs }),
        1 | 2 => json!({ "$add": { name: refs } }),
        3 => json!({ name: { "$clear": refs } }),
        4 if rng.chance(40) => json!({ "$clear": [name] }),
        _ => json!({ name: { "$add": refs, "$clear": records.refs(rng, target, 2) } }),
    }
}
