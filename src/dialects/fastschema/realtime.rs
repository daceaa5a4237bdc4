//! `GET /api/realtime/content`: what is asked, how messages look, how refusals read.

use bytes::Bytes;

use crate::error::{Error, Kind, Result, clip};
use crate::limits::Limits;
use crate::live::{Close, Encode, Event, Events, Message, Records, Start, Told, frame};
use crate::model::cursor::Cursor;
use crate::query::Ask;

use super::message;
use super::params::{self, Params};

/// Where clients connect to; FastSchema's own document shows both.
pub const PATHS: [&str; 2] = ["/api/realtime/content", "/realtime/content"];

/// The one subprotocol there is. A browser can send a token only as a second one, and drops the
/// connection unless exactly one that it offered comes back; a token must not.
pub const SUBPROTOCOL: &str = "Authorization";

/// A subscription as the URL names it.
#[derive(Clone, Debug)]
pub struct Wish {
    pub ask: Ask,
    pub events: Events,
    pub told: Told,
    pub start: Start,
    /// Primary key of the one record, as text.
    pub id: Option<String>,
}

/// Reads the query string (without `?`).
///
/// # Errors
/// 400 naming the parameter: missing, unknown, repeated, with a value that is none, or together
/// with another that it contradicts.
pub fn wish(query: &str, limits: &Limits) -> Result<Wish> {
    let mut params = params::query(query, limits)?;
    let snapshot = params.flag("snapshot")?.unwrap_or(false);
    let wish = take(&mut params, snapshot)?;
    params.finish()?;
    Ok(wish)
}

/// Takes what every way of hearing has in common.
pub(super) fn take(params: &mut Params, snapshot: bool) -> Result<Wish> {
    let schema = given(params.text("schema")?)
        .ok_or_else(|| Error::bad("parameter 'schema' is missing: name the schema to listen to"))?;
    let events = match given(params.text("event")?).as_deref() {
        // The FastSchema SDK sends this word when its caller named no event.
        None | Some("undefined" | "*") => Events::ALL,
        Some("create") => Events::only(Event::Create),
        Some("update") => Events::only(Event::Update),
        Some("delete") => Events::only(Event::Delete),
        Some(other) => {
            let other = clip(other);
            return Err(Error::bad(format!(
                "invalid event '{other}': use create, update, delete or *"
            )));
        }
    };
    let id = given(params.text("id")?);
    let select = given(params.text("select")?);
    let filter = params.filter()?;
    let since = match params.text("since")? {
        // Whatever it is, it is nothing to resume from: the snapshot is.
        Some(text) if snapshot => since(&text).ok(),
        Some(text) => Some(since(&text)?),
        None => None,
    };
    let transitions = params.flag("transitions")?;
    let changes = params.flag("changes")?.unwrap_or(false);
    let watch = given(params.text("watch")?);
    if snapshot {
        no_snapshot(params, transitions, watch.is_some())?;
    }
    let told = Told { transitions: snapshot || transitions == Some(true), changes };
    if told.transitions && events != Events::ALL {
        let culprit = if snapshot { "snapshot" } else { "transitions" };
        return Err(Error::bad(format!(
            "parameter '{culprit}' tells all events: leave 'event' out, or give *"
        )));
    }
    let start = match (snapshot, since) {
        (false, None) => Start::Live,
        (false, Some(Since::Now)) => Start::Now,
        (false, Some(Since::After(cursor))) => Start::After(cursor),
        // From now on, with what is there before: that is the snapshot.
        (true, None | Some(Since::Now)) => Start::Snapshot { since: None },
        (true, Some(Since::After(cursor))) => Start::Snapshot { since: Some(cursor) },
    };
    let untyped = filter.as_ref().is_some_and(|filter| filter.untyped);
    let filter = filter.map(|filter| filter.json);
    let ask = Ask { schema, filter, untyped, select, watch, ..Ask::default() };
    Ok(Wish { ask, events, told, start, id })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    Now,
    After(Cursor),
}

/// An empty text is no cursor: a client that lost its own would begin with a hole unknowingly.
fn since(text: &str) -> Result<Since> {
    match text {
        "now" => Ok(Since::Now),
        _ => text.parse().map(Since::After).map_err(|error: Error| {
            Error::bad(format!("invalid since: {}, or now", error.message))
        }),
    }
}

/// What a snapshot cannot be combined with.
fn no_snapshot(params: &mut Params, transitions: Option<bool>, watch: bool) -> Result<()> {
    if transitions == Some(false) {
        return Err(Error::bad(
            "parameter 'transitions' cannot be false with snapshot=true, which brings them",
        ));
    }
    if watch {
        return Err(Error::bad(
            "parameter 'watch' cannot stand with snapshot=true: what it leaves out would be \
             missing from the view",
        ));
    }
    for name in ["sort", "limit"] {
        if params.text(name)?.is_some() {
            return Err(Error::bad(format!(
                "parameter '{name}' cannot stand with snapshot=true: a snapshot holds all that \
                 match, by primary key"
            )));
        }
    }
    Ok(())
}

fn given(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.trim().is_empty())
}

/// How a refused handshake reads. FastSchema's SDK shows the reason to its user.
pub fn refusal(error: &Error) -> Close {
    match error.kind {
        Kind::Unauthorized => Close::new(error.close_code(), "[401] Unauthorized"),
        _ => Native.close(error),
    }
}

/// `{"event": …, "data": …}`, with `changed` and `cursor` where they were asked for, as a
/// WebSocket's text.
pub struct Native;

impl Encode for Native {
    fn name(&self) -> &'static str {
        "fastschema"
    }

    fn frame(&self, message: &Message<'_>) -> Bytes {
        frame::text(message::length(message), |out| {
            message::write(message, message.cursor, out);
        })
    }

    fn page(&self, records: &Records<'_>, complete: bool, cursor: Option<&str>) -> Bytes {
        frame::text(message::page_length(records), |out| {
            message::write_page(records, complete, cursor, out);
        })
    }

    fn position(&self, cursor: &str) -> Bytes {
        frame::text(64, |out| message::write_position(cursor, out))
    }

    fn close(&self, error: &Error) -> Close {
        close(error)
    }
}

/// How an end reads, on whatever carries it.
pub(super) fn close(error: &Error) -> Close {
    let mut reason = match error.kind {
        Kind::Unauthorized | Kind::Forbidden | Kind::Limited { .. } => {
            format!("[{}] {}", error.status(), error.message)
        }
        _ => format!("realtime.content: {}", error.message),
    };
    // The oldest cursor there is, where it can be told whole.
    if let (Kind::Gone, Some(oldest)) = (error.kind, &error.detail) {
        let told = format!("{reason}; oldest: {oldest}");
        if told.len() <= frame::REASON_BYTES {
            reason = told;
        }
    }
    Close::new(error.close_code(), reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<Wish> {
        wish(query, &Limits::default())
    }

    #[test]
    fn parameters() {
        let wish = parse("schema=blog&event=update&id=3&select=name,views&filter[a]=1").unwrap();
        assert_eq!(wish.ask.schema, "blog");
        assert_eq!(wish.events, Events::only(Event::Update));
        assert_eq!(wish.id.as_deref(), Some("3"));
        assert_eq!(wish.ask.select.as_deref(), Some("name,views"));
        assert!(wish.ask.untyped);
        for query in
            ["schema=blog", "schema=blog&event=undefined", "schema=blog&event=&id=&select="]
        {
            let wish = parse(query).unwrap();
            assert_eq!((wish.events, wish.id, wish.ask.select), (Events::ALL, None, None));
        }
    }

    #[test]
    fn how_and_from_where() {
        let cursor = Cursor { position: 7, stamp: 8, grant: 9 };
        let plain = Told::default();
        let transitions = Told { transitions: true, ..plain };
        for (query, told, start) in [
            ("", plain, Start::Live),
            ("&since=now", plain, Start::Now),
            ("&since=$", plain, Start::After(cursor)),
            ("&transitions=true", transitions, Start::Live),
            ("&transitions=1&event=*", transitions, Start::Live),
            ("&transitions=false&event=create", plain, Start::Live),
            ("&snapshot=0&changes=0&event=update", plain, Start::Live),
            ("&snapshot=true", transitions, Start::Snapshot { since: None }),
            ("&snapshot=1&since=now", transitions, Start::Snapshot { since: None }),
            ("&snapshot=1&since=$", transitions, Start::Snapshot { since: Some(cursor) }),
            ("&snapshot=false&since=$", plain, Start::After(cursor)),
            ("&changes=true", Told { changes: true, ..plain }, Start::Live),
            ("&watch=a,b", plain, Start::Live),
        ] {
            let query = format!("schema=blog{}", query.replace('$', &cursor.to_string()));
            let wish = parse(&query).expect(&query);
            assert_eq!((wish.told, wish.start), (told, start), "{query}");
            assert_eq!(wish.ask.watch.is_some(), query.contains("watch"), "{query}");
        }
    }

    #[test]
    fn refusals_name_the_culprit() {
        for (query, reason) in [
            ("", "realtime.content: parameter 'schema' is missing"),
            ("schema=", "realtime.content: parameter 'schema' is missing"),
            ("schema=a&event=drop", "realtime.content: invalid event 'drop'"),
            ("schema=a&event=CREATE", "realtime.content: invalid event 'CREATE'"),
            ("schema=a&filter={", "realtime.content: invalid filter: "),
            ("schema=a&fliter={}", "realtime.content: unknown parameter 'fliter'"),
            ("schema=a&schema=b", "realtime.content: parameter 'schema' is given twice"),
            ("schema=a&since=", "realtime.content: invalid since: '' is no cursor"),
            ("schema=a&since=Now", "realtime.content: invalid since: 'Now' is no cursor"),
            ("schema=a&since[a]=1", "realtime.content: parameter 'since'"),
            ("schema=a&snapshot=yes", "realtime.content: parameter 'snapshot' must be true or"),
            ("schema=a&transitions=", "realtime.content: parameter 'transitions' must be true or"),
            ("schema=a&changes=True", "realtime.content: parameter 'changes' must be true or"),
            ("schema=a&transitions=1&event=create", "realtime.content: parameter 'transitions'"),
            ("schema=a&snapshot=1&event=update", "realtime.content: parameter 'snapshot'"),
            ("schema=a&snapshot=1&transitions=0", "realtime.content: parameter 'transitions'"),
            ("schema=a&snapshot=1&watch=b", "realtime.content: parameter 'watch'"),
            ("schema=a&snapshot=1&sort=b", "realtime.content: parameter 'sort'"),
            ("schema=a&snapshot=1&limit=5", "realtime.content: parameter 'limit'"),
            ("schema=a&limit=5", "realtime.content: unknown parameter 'limit'"),
        ] {
            let close = refusal(&parse(query).expect_err(query));
            assert_eq!(close.code, 4400, "{query}");
            assert!(close.reason.starts_with(reason), "{query}: {}", close.reason);
        }
        let gone = Error::new(Kind::Gone, "cursor is older than the log keeps").detail("abc");
        let reason = "realtime.content: cursor is older than the log keeps; oldest: abc";
        assert_eq!((refusal(&gone).code, &*refusal(&gone).reason), (4410, reason));
        let close = refusal(&Error::unauthorized("no such session"));
        assert_eq!((close.code, &*close.reason), (4401, "[401] Unauthorized"));
        let close = refusal(&Error::no_schema("blgo"));
        assert_eq!(
            (close.code, &*close.reason),
            (4404, "realtime.content: schema not found: blgo")
        );
    }
}
