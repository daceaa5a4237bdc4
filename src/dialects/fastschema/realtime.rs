//! `GET /api/realtime/content`: what is asked, how messages look, how refusals read.

use bytes::Bytes;

use crate::error::{Error, Kind, Result, clip};
use crate::limits::Limits;
use crate::live::{Close, Encode, Event, Events, Message, Records, Start, Told, frame};
use crate::model::json;
use crate::query::Ask;

use super::params;

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
/// 400 naming the parameter: missing, unknown, repeated, or with a value that is none.
pub fn wish(query: &str, limits: &Limits) -> Result<Wish> {
    let mut params = params::query(query, limits)?;
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
    params.finish()?;
    let untyped = filter.as_ref().is_some_and(|filter| filter.untyped);
    let filter = filter.map(|filter| filter.json);
    let ask = Ask { schema, filter, untyped, select, ..Ask::default() };
    Ok(Wish { ask, events, told: Told::default(), start: Start::Live, id })
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

/// `{"event": …, "data": …}` and nothing else.
pub struct Native;

impl Encode for Native {
    fn name(&self) -> &'static str {
        "fastschema"
    }

    fn frame(&self, message: &Message<'_>) -> Bytes {
        let (head, bare) = match message.event {
            Event::Create => (&br#"{"event":"create","data":"#[..], true),
            Event::Update => (&br#"{"event":"update","data":"#[..], message.single),
            Event::Delete => (&br#"{"event":"delete","data":"#[..], message.single),
            Event::Enter => (&br#"{"event":"enter","data":"#[..], message.single),
            Event::Leave => (&br#"{"event":"leave","data":"#[..], message.single),
        };
        let capacity = head.len() + message.records.bytes() + message.records.iter().len() + 64;
        frame::text(capacity, |out| {
            out.extend_from_slice(head);
            array(&message.records, bare, out);
            if let Some(changed) = message.changed {
                out.extend_from_slice(br#","changed":["#);
                for (at, name) in changed.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    json::write_string(name, out);
                }
                out.push(b']');
            }
            end(message.cursor, out);
        })
    }

    fn page(&self, records: &Records<'_>, complete: bool, cursor: Option<&str>) -> Bytes {
        frame::text(records.bytes() + records.iter().len() + 128, |out| {
            out.extend_from_slice(br#"{"event":"init","data":"#);
            array(records, false, out);
            let told: &[u8] =
                if complete { br#","complete":true"# } else { br#","complete":false"# };
            out.extend_from_slice(told);
            end(cursor, out);
        })
    }

    fn position(&self, cursor: &str) -> Bytes {
        frame::text(64, |out| {
            out.extend_from_slice(br#"{"event":"position""#);
            end(Some(cursor), out);
        })
    }

    fn close(&self, error: &Error) -> Close {
        let reason = match error.kind {
            Kind::Unauthorized | Kind::Forbidden | Kind::Limited { .. } => {
                format!("[{}] {}", error.status(), error.message)
            }
            _ => format!("realtime.content: {}", error.message),
        };
        Close::new(error.close_code(), reason)
    }
}

/// The records as an array, or the one record bare.
fn array(records: &Records<'_>, bare: bool, out: &mut Vec<u8>) {
    if !bare {
        out.push(b'[');
    }
    for (at, record) in records.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(record);
    }
    if !bare {
        out.push(b']');
    }
}

fn end(cursor: Option<&str>, out: &mut Vec<u8>) {
    if let Some(cursor) = cursor {
        // A cursor is base64url: nothing to escape.
        out.extend_from_slice(br#","cursor":""#);
        out.extend_from_slice(cursor.as_bytes());
        out.push(b'"');
    }
    out.push(b'}');
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
    fn refusals_name_the_culprit() {
        for (query, reason) in [
            ("", "realtime.content: parameter 'schema' is missing"),
            ("schema=", "realtime.content: parameter 'schema' is missing"),
            ("schema=a&event=drop", "realtime.content: invalid event 'drop'"),
            ("schema=a&event=CREATE", "realtime.content: invalid event 'CREATE'"),
            ("schema=a&filter={", "realtime.content: invalid filter: "),
            ("schema=a&fliter={}", "realtime.content: unknown parameter 'fliter'"),
            ("schema=a&schema=b", "realtime.content: parameter 'schema' is given twice"),
        ] {
            let close = refusal(&parse(query).expect_err(query));
            assert_eq!(close.code, 4400, "{query}");
            assert!(close.reason.starts_with(reason), "{query}: {}", close.reason);
        }
        let close = refusal(&Error::unauthorized("no such session"));
        assert_eq!((close.code, &*close.reason), (4401, "[401] Unauthorized"));
        let close = refusal(&Error::no_schema("blgo"));
        assert_eq!(
            (close.code, &*close.reason),
            (4404, "realtime.content: schema not found: blgo")
        );
    }
}
