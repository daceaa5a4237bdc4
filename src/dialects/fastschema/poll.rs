//! `GET /api/realtime/changes`: the stream in pages, for clients that ask again and again.

use std::time::Duration;

use bytes::Bytes;

use crate::error::{Error, Kind, Result};
use crate::limits::Limits;
use crate::live::{Close, Encode, Frame, Message, Records, Start};
use crate::model::cursor::Cursor;

use super::realtime::{self, Wish};
use super::{message, params};

/// Where clients ask.
pub const PATH: &str = "/api/realtime/changes";

/// What a client asks for.
#[derive(Clone, Debug)]
pub struct Poll {
    pub wish: Wish,
    /// How long the answer may wait for a first change.
    pub wait: Duration,
    /// Records in a page; a commit that has more is a page of its own.
    pub limit: u64,
}

/// Reads the query string (without `?`).
///
/// # Errors
/// Those of [`realtime::wish`]; 400 without `since`, with a snapshot, or out of bounds.
pub fn poll(query: &str, limits: &Limits) -> Result<Poll> {
    let mut params = params::query(query, limits)?;
    let snapshot = params.flag("snapshot")?.unwrap_or(false);
    if snapshot {
        return Err(Error::bad(
            "parameter 'snapshot' is not taken here: take one by /api/realtime/content, as a \
             WebSocket or event stream, and come back with its cursor",
        ));
    }
    let wish = realtime::take(&mut params, snapshot)?;
    let most = limits.poll_time.as_secs();
    let wait = params.number("wait")?.unwrap_or(0);
    if wait > most {
        return Err(Error::bad(format!(
            "parameter 'wait' may be at most {most} seconds, not {wait}"
        )));
    }
    let most = limits.page_records;
    let limit = params.number("limit")?.unwrap_or(most);
    if limit == 0 || limit > most {
        return Err(Error::bad(format!("parameter 'limit' must be 1 to {most}, not {limit}")));
    }
    params.finish()?;
    if wish.start == Start::Live {
        return Err(Error::bad(
            "parameter 'since' is missing: begin with since=now and go on with the 'next' of \
             each answer",
        ));
    }
    Ok(Poll { wish, wait: Duration::from_secs(wait), limit })
}

/// Messages as bare JSON, behind the number of their records (four bytes); positions are empty.
pub struct Pages;

const COUNT: usize = 4;

impl Encode for Pages {
    fn name(&self) -> &'static str {
        "fastschema-pages"
    }

    fn frame(&self, message: &Message<'_>) -> Bytes {
        counted(&message.records, message::length(message), |out| {
            message::write(message, None, out);
        })
    }

    fn page(&self, records: &Records<'_>, complete: bool, _: Option<&str>) -> Bytes {
        counted(records, message::page_length(records), |out| {
            message::write_page(records, complete, None, out);
        })
    }

    fn position(&self, _: &str) -> Bytes {
        Bytes::new()
    }

    /// The detail is a line of its own.
    fn close(&self, error: &Error) -> Close {
        match &error.detail {
            Some(detail) => Close::new(error.close_code(), format!("{}\n{detail}", error.message)),
            None => Close::new(error.close_code(), error.message.as_str()),
        }
    }
}

fn counted(records: &Records<'_>, length: usize, write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut out = Vec::with_capacity(COUNT + length);
    let count = u32::try_from(records.iter().len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&count.to_le_bytes());
    write(&mut out);
    out.into()
}

/// How an end that came before anything else is answered.
pub fn refusal(close: &Close) -> Error {
    let kind = match close.code {
        4400 => Kind::Bad,
        4401 => Kind::Unauthorized,
        4403 => Kind::Forbidden,
        4404 => Kind::NotFound,
        4410 => Kind::Gone,
        4429 => Kind::Limited { retry_after: 1 },
        1001 | 4408 => Kind::Unavailable,
        _ => Kind::Internal,
    };
    match close.reason.split_once('\n') {
        Some((message, detail)) => Error::new(kind, message).detail(detail),
        None => Error::new(kind, &*close.reason),
    }
}

/// An answer being collected: whole commits only.
#[derive(Debug)]
pub struct Page {
    records_left: u64,
    bytes_left: usize,
    /// Of whole commits.
    events: Vec<Bytes>,
    /// Of the commit whose last message has yet to come.
    commit: Vec<Bytes>,
    commit_records: u64,
    commit_bytes: usize,
    next: Option<Cursor>,
    full: bool,
}

impl Page {
    /// An empty one; at most so many records and bytes, or one commit. `since`: where it begins.
    pub fn new(records: u64, bytes: usize, since: Option<Cursor>) -> Self {
        Page {
            records_left: records,
            bytes_left: bytes,
            events: Vec::new(),
            commit: Vec::new(),
            commit_records: 0,
            commit_bytes: 0,
            next: since,
            full: false,
        }
    }

    /// Takes what was told next, unless the page is full.
    pub fn take(&mut self, frame: &Frame) {
        if self.full {
            return;
        }
        if let Some((count, json)) = frame.bytes.split_first_chunk::<COUNT>() {
            self.commit_records += u64::from(u32::from_le_bytes(*count));
            self.commit_bytes += json.len();
            self.commit.push(frame.bytes.slice(COUNT..));
        }
        if let Some(cursor) = frame.cursor() {
            self.end_commit(cursor);
        }
    }

    fn end_commit(&mut self, cursor: Cursor) {
        let fits = self.commit_records <= self.records_left && self.commit_bytes <= self.bytes_left;
        if !fits && !self.events.is_empty() {
            self.full = true;
            return;
        }
        self.records_left = self.records_left.saturating_sub(self.commit_records);
        self.bytes_left = self.bytes_left.saturating_sub(self.commit_bytes);
        self.events.append(&mut self.commit);
        (self.commit_records, self.commit_bytes) = (0, 0);
        self.next = Some(cursor);
        self.full = self.records_left == 0 || self.bytes_left == 0;
    }

    /// Everything up to this place was taken, unless the page was full before.
    pub fn reached(&mut self, cursor: Cursor) {
        if self.is_whole()
            && !self.full
            && self.next.is_none_or(|next| next.position < cursor.position)
        {
            self.next = Some(cursor);
        }
    }

    /// Nothing more fits.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// No event is in it yet.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// No commit is taken in part.
    pub fn is_whole(&self) -> bool {
        self.commit.is_empty()
    }

    /// Where to go on.
    pub fn next(&self) -> Option<Cursor> {
        self.next
    }

    /// What stands under `data`.
    pub fn answer(&self, complete: bool) -> Vec<u8> {
        let bytes: usize = self.events.iter().map(|event| event.len() + 1).sum();
        let mut out = Vec::with_capacity(bytes + 96);
        out.extend_from_slice(br#"{"events":["#);
        for (at, event) in self.events.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(event);
        }
        out.extend_from_slice(b"]");
        if let Some(next) = self.next {
            // A cursor is base64url: nothing to escape.
            out.extend_from_slice(format!(r#","next":"{next}""#).as_bytes());
        }
        let complete: &[u8] =
            if complete { br#","complete":true}"# } else { br#","complete":false}"# };
        out.extend_from_slice(complete);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::Event;

    fn cursor(position: u64) -> Cursor {
        Cursor { position, stamp: position, grant: 0 }
    }

    fn message(records: usize, position: Option<u64>) -> Frame {
        let ranges = vec![0..1; records];
        let message = Message {
            event: Event::Update,
            single: false,
            records: Records::new(b"1", &ranges),
            changed: None,
            cursor: None,
        };
        Frame::new(Pages.frame(&message), position.map(cursor))
    }

    fn answer(page: &Page, complete: bool) -> serde_json::Value {
        serde_json::from_slice(&page.answer(complete)).expect("JSON")
    }

    #[test]
    fn pages_hold_whole_commits() {
        let mut page = Page::new(5, 1 << 20, Some(cursor(1)));
        page.take(&message(2, Some(2)));
        page.take(&message(1, None));
        assert!(!page.is_whole() && !page.is_full());
        page.reached(cursor(9));
        assert_eq!(page.next(), Some(cursor(2)), "in the middle of a commit nothing is reached");
        page.take(&message(2, Some(4)));
        assert!(page.is_whole() && page.is_full());
        page.take(&message(1, Some(5)));
        let answer = answer(&page, false);
        assert_eq!(answer["events"].as_array().expect("events").len(), 3);
        assert_eq!(answer["events"][0], serde_json::json!({"event": "update", "data": [1, 1]}));
        assert_eq!(answer["next"], cursor(4).to_string());
        assert_eq!(answer["complete"], false);
    }

    #[test]
    fn a_commit_that_does_not_fit_is_the_next_pages() {
        let mut page = Page::new(5, 1 << 20, None);
        page.take(&message(3, Some(1)));
        page.take(&message(2, None));
        page.take(&message(1, Some(2)));
        assert!(page.is_full());
        assert_eq!(page.next(), Some(cursor(1)));
        assert_eq!(answer(&page, false)["events"].as_array().expect("events").len(), 1);
    }

    #[test]
    fn a_commit_larger_than_a_page_is_one() {
        for (records, bytes) in [(2, 1 << 20), (1000, 10)] {
            let mut page = Page::new(records, bytes, None);
            page.take(&message(50, None));
            page.take(&message(50, Some(3)));
            assert!(page.is_full());
            assert_eq!(page.next(), Some(cursor(3)));
            assert_eq!(answer(&page, false)["events"].as_array().expect("events").len(), 2);
        }
    }

    #[test]
    fn positions_move_it_on() {
        let mut page = Page::new(5, 1 << 20, None);
        page.take(&Frame::new(Pages.position(""), Some(cursor(7))));
        assert!(page.is_empty() && page.is_whole() && !page.is_full());
        page.reached(cursor(5));
        let told = answer(&page, true);
        let expected =
            serde_json::json!({"events": [], "next": cursor(7).to_string(), "complete": true});
        assert_eq!(told, expected);
    }

    #[test]
    fn an_end_is_answered_as_it_was_meant() {
        let gone = Error::new(Kind::Gone, "cursor is older than the log keeps").detail("abc");
        let told = refusal(&Pages.close(&gone));
        assert_eq!((told.status(), &*told.message), (410, "cursor is older than the log keeps"));
        assert_eq!(told.detail.as_deref(), Some("abc"));
        let told = refusal(&Pages.close(&Error::unauthorized("the token has expired")));
        assert_eq!((told.status(), told.detail), (401, None));
        assert_eq!(refusal(&Close::new(1001, "bye")).status(), 503);
    }

    #[test]
    fn parameters() {
        let limits = Limits::default();
        let asked = poll("schema=a&since=now&wait=60&limit=5&changes=true", &limits).unwrap();
        assert_eq!((asked.wait.as_secs(), asked.limit), (60, 5));
        assert_eq!(poll("schema=a&since=now&snapshot=false", &limits).unwrap().limit, 1000);
        for (query, culprit) in [
            ("schema=a", "'since' is missing: begin with since=now"),
            ("schema=a&since=x", "invalid since"),
            ("since=now", "'schema'"),
            ("schema=a&since=now&snapshot=true", "'snapshot' is not taken here"),
            ("schema=a&since=now&wait=61", "'wait'"),
            ("schema=a&since=now&wait=x", "'wait'"),
            ("schema=a&since=now&limit=0", "'limit'"),
            ("schema=a&since=now&limit=1001", "'limit'"),
            ("schema=a&since=now&page=1", "'page'"),
            ("schema=a&since=now&transitions=1&event=create", "'transitions'"),
        ] {
            let error = poll(query, &limits).expect_err(query);
            assert_eq!(error.status(), 400, "{query}");
            assert!(error.message.contains(culprit), "{query}: {}", error.message);
        }
    }
}
