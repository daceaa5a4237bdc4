//! The same messages as server-sent events: `data:` is the JSON, `id:` the cursor.

use bytes::Bytes;

use crate::error::{Error, Kind, Result};
use crate::limits::Limits;
use crate::live::{Close, Encode, Message, Records, Start};
use crate::model::cursor::Cursor;
use crate::model::json;

use super::message;
use super::realtime::{self, Wish};

/// What a client must name in `Accept` to get a stream of events.
pub const TYPE: &str = "text/event-stream";

/// Whether an `Accept` header names [`TYPE`]; `*/*` does not.
pub fn named(accept: &str) -> bool {
    accept.split(',').any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let refused = parts.any(|parameter| {
            parameter.split_once('=').is_some_and(|(key, value)| {
                key.trim().eq_ignore_ascii_case("q") && value.trim().parse() == Ok(0.0)
            })
        });
        name.eq_ignore_ascii_case(TYPE) && !refused
    })
}

/// Reads the query string (without `?`). `last` is the header `Last-Event-ID`, with which a
/// browser says how far it came; it wins over `since`.
///
/// # Errors
/// Those of [`realtime::wish`]; 400 where `last` is no cursor.
pub fn wish(query: &str, last: Option<&str>, limits: &Limits) -> Result<Wish> {
    let mut wish = realtime::wish(query, limits)?;
    // An empty one says that no event had an id.
    if let Some(last) = last.filter(|last| !last.is_empty()) {
        let cursor: Result<Cursor> = last.parse();
        wish.start = match wish.start {
            Start::Snapshot { .. } => Start::Snapshot { since: cursor.ok() },
            _ => Start::After(
                cursor.map_err(|error| Error::bad(format!("Last-Event-ID: {}", error.message)))?,
            ),
        };
    }
    Ok(wish)
}

/// The refusal as HTTP tells it, before there is a stream.
pub fn refusal(error: Error) -> Error {
    match error.kind {
        Kind::NoSchema => Error { kind: Kind::NotFound, ..error },
        _ => error,
    }
}

/// Server-sent events.
pub struct Sse;

impl Encode for Sse {
    fn name(&self) -> &'static str {
        "fastschema-sse"
    }

    fn frame(&self, message: &Message<'_>) -> Bytes {
        event(message::length(message), message.cursor, |out| message::write(message, None, out))
    }

    /// A page that is not the last takes back the id that the client may hold: if it is cut off
    /// here, what it has is neither the old view nor the new one, and it must not resume.
    fn page(&self, records: &Records<'_>, complete: bool, cursor: Option<&str>) -> Bytes {
        let id = if complete { cursor } else { Some("") };
        event(message::page_length(records), id, |out| {
            message::write_page(records, complete, None, out);
        })
    }

    /// An id without data: the browser keeps it and tells nobody.
    fn position(&self, cursor: &str) -> Bytes {
        Bytes::from(format!("id: {cursor}\n\n"))
    }

    fn close(&self, error: &Error) -> Close {
        realtime::close(error)
    }
}

/// One event. The JSON has no line breaks of its own.
fn event(length: usize, id: Option<&str>, write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut out = Vec::with_capacity(length + 64);
    out.extend_from_slice(b"data: ");
    write(&mut out);
    if let Some(id) = id {
        out.extend_from_slice(b"\nid: ");
        out.extend_from_slice(id.as_bytes());
    }
    out.extend_from_slice(b"\n\n");
    out.into()
}

/// The first line of a stream: how long a browser waits before it comes back.
pub fn retry(milliseconds: u32) -> Bytes {
    Bytes::from(format!("retry: {milliseconds}\n\n"))
}

/// What keeps a quiet stream alive.
pub fn heartbeat() -> Bytes {
    Bytes::from_static(b":\n\n")
}

/// The last event of a stream.
pub fn close(close: &Close) -> Bytes {
    let mut out = format!("event: close\ndata: {{\"code\":{},\"reason\":", close.code).into_bytes();
    json::write_string(&close.reason, &mut out);
    out.extend_from_slice(b"}\n\n");
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::Event;

    #[test]
    fn events() {
        let bytes = br#"{"id":1}{"id":2}"#;
        let records = Records::new(bytes, &[0..8, 8..16]);
        let mut message =
            Message { event: Event::Enter, single: false, records, changed: None, cursor: None };
        assert_eq!(
            Sse.frame(&message),
            "data: {\"event\":\"enter\",\"data\":[{\"id\":1},{\"id\":2}]}\n\n"
        );
        message.cursor = Some("abc");
        message.changed = Some(&["a\"b"]);
        assert_eq!(
            Sse.frame(&message),
            "data: {\"event\":\"enter\",\"data\":[{\"id\":1},{\"id\":2}],\"changed\":[\"a\\\"b\"]}\nid: abc\n\n"
        );
        let empty = Records::new(b"", &[]);
        assert_eq!(
            Sse.page(&empty, true, Some("abc")),
            "data: {\"event\":\"init\",\"data\":[],\"complete\":true}\nid: abc\n\n"
        );
        assert_eq!(
            Sse.page(&empty, false, None),
            "data: {\"event\":\"init\",\"data\":[],\"complete\":false}\nid: \n\n"
        );
        assert_eq!(Sse.position("abc"), "id: abc\n\n");
        let told = close(&Close::new(4410, "a \"b\"\nc"));
        assert_eq!(told, "event: close\ndata: {\"code\":4410,\"reason\":\"a \\\"b\\\"\\nc\"}\n\n");
    }

    #[test]
    fn accept() {
        for good in [
            "text/event-stream",
            "Text/Event-Stream",
            "text/html, text/event-stream;q=0.5",
            " text/event-stream ; charset=utf-8",
        ] {
            assert!(named(good), "{good}");
        }
        for bad in ["", "*/*", "text/*", "text/event-streams", "text/event-stream;q=0", "x"] {
            assert!(!named(bad), "{bad}");
        }
    }

    #[test]
    fn the_last_id_wins() {
        let cursor = Cursor { position: 7, stamp: 8, grant: 9 };
        let text = cursor.to_string();
        let start =
            |query: &str, last| wish(query, last, &Limits::default()).map(|wish| wish.start);
        let after = Start::After(cursor);
        assert_eq!(start("schema=a", Some(&text)).unwrap(), after);
        assert_eq!(start("schema=a&since=now", Some(&text)).unwrap(), after);
        assert_eq!(start(&format!("schema=a&since={text}"), Some("")).unwrap(), after);
        assert_eq!(start("schema=a", Some("")).unwrap(), Start::Live);
        assert_eq!(
            start("schema=a&snapshot=true", Some(&text)).unwrap(),
            Start::Snapshot { since: Some(cursor) }
        );
        let anew = Start::Snapshot { since: None };
        assert_eq!(start("schema=a&snapshot=true", Some("rubbish")).unwrap(), anew);
        assert_eq!(start("schema=a&snapshot=true&since=rubbish", None).unwrap(), anew);
        assert_eq!(start("schema=a&snapshot=true&since=", None).unwrap(), anew);
        let error = start("schema=a", Some("now")).unwrap_err();
        assert!(error.message.contains("Last-Event-ID"), "{}", error.message);
        assert!(start("schema=a&since=rubbish", Some(&text)).is_err());
    }
}
