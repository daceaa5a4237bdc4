//! A client that believes what it is told, and what it must never be told.
//!
//! It applies messages commit by commit: on the message that brings the cursor. Whatever does not
//! fit what it holds is a fault.

use std::collections::{BTreeMap, BTreeSet};

use rowcast::model::cursor::Cursor;
use serde_json::Value as Json;

use crate::world::MORE;

/// How a subscription is told.
#[derive(Clone, Debug, Default)]
pub struct Told {
    pub cursors: bool,
    pub transitions: bool,
    pub snapshot: bool,
    pub changes: bool,
    pub watch: Option<&'static str>,
    pub event: Option<&'static str>,
}

/// One message about records, as it was heard.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    /// The commit's, where cursors are told.
    pub position: Option<u64>,
    pub event: String,
    pub data: Json,
    pub changed: Option<BTreeSet<String>>,
}

/// What a client holds.
#[derive(Debug, Default)]
pub struct Client {
    /// Records by primary key; kept right with transitions only.
    pub view: BTreeMap<i64, Json>,
    /// The last cursor, as text and read.
    pub cursor: Option<(String, Cursor)>,
    /// All pages of the snapshot have come, or there is none to come.
    pub complete: bool,
    /// How often a snapshot came instead of what was asked to go on,
    pub restarts: usize,
    /// and how often behind some of that.
    pub breaks: usize,
    /// Messages since the last quiet point.
    pub heard: Vec<Heard>,
    /// Messages of the commit that is coming in.
    pending: Vec<Heard>,
    /// The greatest key of a page.
    paged: Option<i64>,
    /// Nothing that has a cursor has come on this connection.
    fresh: bool,
}

impl Client {
    /// Before a connection that starts with a snapshot.
    pub fn start_over(&mut self) {
        *self = Client { fresh: true, ..Client::default() };
    }

    /// Before a connection that goes on: what of a commit came in part comes again.
    pub fn resume(&mut self) {
        self.pending.clear();
        self.fresh = true;
    }

    pub fn position(&self) -> Option<u64> {
        self.cursor.as_ref().map(|(_, cursor)| cursor.position)
    }

    /// Whether a commit is half told.
    pub fn between(&self) -> bool {
        self.complete && self.pending.is_empty()
    }

    /// Takes one message; the error says what is wrong with it.
    pub fn take(&mut self, told: &Told, message: &Json) -> Result<(), String> {
        let event = message["event"].as_str().ok_or("no event")?;
        let cursor = match message.get("cursor") {
            None => None,
            Some(text) => {
                let text = text.as_str().ok_or("a cursor that is no text")?;
                let cursor: Cursor = text.parse().map_err(|_| "a cursor that is none")?;
                Some((text.to_owned(), cursor))
            }
        };
        if cursor.is_some() && !told.cursors {
            return Err("a cursor that nobody asked for".into());
        }
        match event {
            "position" => {
                if !self.pending.is_empty() {
                    return Err("a position between the messages of a commit".into());
                }
                if !self.complete {
                    return Err("a position before the snapshot is complete".into());
                }
                // It may say again where one stands: that one is live now, for instance.
                self.move_on(cursor.ok_or("a position without a cursor")?, true)
            }
            "init" => self.page(told, message, cursor),
            _ => self.event(told, event, message, cursor),
        }
    }

    /// Takes the answer to a poll: whole commits, and where to go on.
    pub fn take_page(&mut self, told: &Told, page: &Json) -> Result<(), String> {
        let told = Told { cursors: false, ..told.clone() };
        for message in page["events"].as_array().ok_or("no events")? {
            self.take(&told, message)?;
        }
        let text = page["next"].as_str().ok_or("no place to go on from")?;
        let cursor: Cursor = text.parse().map_err(|_| "a cursor that is none")?;
        page["complete"].as_bool().ok_or("not said whether that is all")?;
        self.move_on((text.to_owned(), cursor), true)
    }

    fn move_on(&mut self, cursor: (String, Cursor), again: bool) -> Result<(), String> {
        if let Some((_, last)) = &self.cursor {
            let (last, next) = (last.position, cursor.1.position);
            if next <= last && !(again && next == last) {
                return Err(format!("cursor {next} after {last}"));
            }
        }
        self.fresh = false;
        self.cursor = Some(cursor);
        Ok(())
    }

    fn page(
        &mut self,
        told: &Told,
        message: &Json,
        cursor: Option<(String, Cursor)>,
    ) -> Result<(), String> {
        if self.between() && told.snapshot && told.cursors {
            // The cursor is no good any more, or what follows cannot be told: from the beginning.
            let (restarts, breaks) = (self.restarts, self.breaks);
            let (heard, fresh) = (std::mem::take(&mut self.heard), self.fresh);
            self.start_over();
            self.heard = heard;
            self.restarts = restarts + usize::from(fresh);
            self.breaks = breaks + usize::from(!fresh);
        }
        if !told.snapshot || self.complete {
            return Err("a page that should not be".into());
        }
        for record in message["data"].as_array().ok_or("a page without records")? {
            let id = key(record)?;
            if self.paged.is_some_and(|last| last >= id) {
                return Err(format!("page: {id} after {:?}", self.paged));
            }
            self.paged = Some(id);
            if self.view.insert(id, record.clone()).is_some() {
                return Err(format!("page: {id} is there already"));
            }
        }
        match (message["complete"].as_bool(), cursor) {
            (Some(true), Some(cursor)) => {
                self.complete = true;
                self.move_on(cursor, false)
            }
            (Some(false), None) => Ok(()),
            _ => Err("a page is complete exactly when it has the cursor".into()),
        }
    }

    fn event(
        &mut self,
        told: &Told,
        event: &str,
        message: &Json,
        cursor: Option<(String, Cursor)>,
    ) -> Result<(), String> {
        let known = matches!(
            (event, told.transitions),
            ("create" | "update" | "delete", _) | ("enter" | "leave", true)
        );
        if !known || told.event.is_some_and(|only| only != event) {
            return Err(format!("an event {event} that should not be"));
        }
        let changed = match message.get("changed") {
            None => None,
            Some(Json::Array(names)) => Some(
                names
                    .iter()
                    .map(|name| name.as_str().map(str::to_owned).ok_or("a name that is none"))
                    .collect::<Result<BTreeSet<_>, _>>()?,
            ),
            Some(_) => return Err("changed is no list".into()),
        };
        if changed.is_some() != (told.changes && event == "update") {
            return Err(format!("'changed' is {changed:?} in {event}"));
        }
        let data = message.get("data").cloned().ok_or("no data")?;
        let heard = Heard { position: None, event: event.to_owned(), data, changed };
        if !told.cursors {
            return self.commit(told, vec![heard], None);
        }
        if !self.complete {
            // Corrections to pages that were sent: they belong to no commit one could name.
            if cursor.is_some() {
                return Err("a cursor before the snapshot is complete".into());
            }
            for record in records(&heard.data) {
                let id = key(record)?;
                if self.paged.is_none_or(|last| id > last) {
                    return Err(format!("{event} of {id}, whose page is still to come"));
                }
            }
            return self.commit(told, vec![heard], None);
        }
        self.pending.push(heard);
        match cursor {
            None => Ok(()),
            Some(cursor) => {
                let position = cursor.1.position;
                self.move_on(cursor, false)?;
                let commit = std::mem::take(&mut self.pending);
                self.commit(told, commit, Some(position))
            }
        }
    }

    /// Applies the messages of one commit (without cursors: one message).
    fn commit(
        &mut self,
        told: &Told,
        messages: Vec<Heard>,
        position: Option<u64>,
    ) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        let mut rank = 0;
        for mut message in messages {
            let place = ["create", "leave", "update", "enter", "delete"];
            let place = place.iter().position(|event| *event == message.event).unwrap_or_default();
            if place < rank {
                return Err(format!("{} out of order in commit {position:?}", message.event));
            }
            rank = place;
            for record in records(&message.data) {
                let id = key(record)?;
                if !seen.insert(id) {
                    return Err(format!("{id} twice in commit {position:?}"));
                }
                if told.transitions {
                    self.apply(told, &message, id, record)
                        .map_err(|why| format!("commit {position:?}: {why}"))?;
                }
            }
            message.position = position;
            self.heard.push(message);
        }
        Ok(())
    }

    fn apply(
        &mut self,
        told: &Told,
        message: &Heard,
        id: i64,
        record: &Json,
    ) -> Result<(), String> {
        let had = self.view.get(&id);
        let fault = |what: &str| Err(format!("{} of {id}, {what}: {record}", message.event));
        match (message.event.as_str(), had) {
            ("create" | "enter", Some(_)) => return fault("which is there"),
            ("update" | "leave" | "delete", None) => return fault("which is not there"),
            ("leave", _) if record.as_object().is_none_or(|fields| fields.len() != 1) => {
                return fault("with more than the key");
            }
            // Who watches is not told of all that changes, so what it had may be old.
            ("update", Some(had)) if told.watch.is_none() => {
                let differs = difference(had, record);
                // Added columns are empty; whether they were shown, older messages do not tell.
                let known = |name: &&String| !name.starts_with(MORE);
                if let Some(changed) = &message.changed
                    && !changed.iter().filter(known).eq(differs.iter().filter(known))
                {
                    return fault(&format!("said {changed:?} changed, it is {differs:?} of {had}"));
                }
            }
            _ => {}
        }
        match message.event.as_str() {
            "leave" | "delete" => self.view.remove(&id),
            _ => self.view.insert(id, record.clone()),
        };
        Ok(())
    }
}

/// The records of a message: with `id`, the one stands bare.
pub fn records(data: &Json) -> &[Json] {
    match data {
        Json::Array(records) => records,
        one => std::slice::from_ref(one),
    }
}

pub fn key(record: &Json) -> Result<i64, String> {
    record["id"].as_i64().ok_or_else(|| format!("a record without a key: {record}"))
}

/// Names of the fields that are not the same, without the automatic time of the update.
fn difference(was: &Json, is: &Json) -> BTreeSet<String> {
    let names = |record: &Json| -> BTreeSet<String> {
        record.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
    };
    let (was, is) = (plain(was), plain(is));
    let mut all = names(&was);
    all.extend(names(&is));
    all.retain(|name| name != "updated_at" && was.get(name) != is.get(name));
    all
}

/// A record without columns that were added later and are empty: one that was told before has
/// none of them.
pub fn plain(record: &Json) -> Json {
    match record {
        Json::Object(fields) => {
            let kept =
                fields.iter().filter(|(name, value)| !(name.starts_with(MORE) && value.is_null()));
            Json::Object(kept.map(|(name, value)| (name.clone(), plain(value))).collect())
        }
        Json::Array(records) => Json::Array(records.iter().map(plain).collect()),
        other => other.clone(),
    }
}
