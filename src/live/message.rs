//! What a subscription may be told, before a dialect gives it a form.

use std::ops::Range;

use bytes::Bytes;

use crate::error::Error;
use crate::model::change::Op;

use super::outbox::Close;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    Create,
    Update,
    Delete,
    /// With transitions: an update by which the record came to match.
    Enter,
    /// With transitions: an update by which the record ceased to match; primary keys only.
    Leave,
}

impl Event {
    pub fn of(op: Op) -> Self {
        match op {
            Op::Create => Event::Create,
            Op::Update => Event::Update,
            Op::Delete => Event::Delete,
        }
    }

    /// What the write did to the record.
    pub const fn op(self) -> Op {
        match self {
            Event::Create => Op::Create,
            Event::Update | Event::Enter | Event::Leave => Op::Update,
            Event::Delete => Op::Delete,
        }
    }
}

/// A set of events: those a subscription asked for. `Enter` and `Leave` belong to `Update`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Events(u8);

impl Events {
    pub const NONE: Events = Events(0);
    pub const ALL: Events = Events(0b111);

    pub const fn only(event: Event) -> Self {
        Events(1 << event.op() as u8)
    }

    pub fn has(self, event: Event) -> bool {
        self.0 & (1 << event.op() as u8) != 0
    }

    pub fn with(self, other: Events) -> Self {
        Events(self.0 | other.0)
    }

    /// Whether some event is in both.
    pub fn meets(self, other: Events) -> bool {
        self.0 & other.0 != 0
    }
}

/// One message of a commit to the subscriptions that share it.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub event: Event,
    /// Whether the subscription is for one record (`id`): the dialect may send it bare.
    pub single: bool,
    pub records: Records<'a>,
    /// Names of the fields that this update changed, the same in all of `records`; only where the
    /// subscription asked for them, and only for [`Event::Update`]. Where the record was not there
    /// before for the subscriber, these are all that is shown.
    pub changed: Option<&'a [&'a str]>,
    /// The commit's cursor, in its last message, where the subscription has cursors.
    pub cursor: Option<&'a str>,
}

/// Encoded records, in the order they are told; never empty in a [`Message`].
#[derive(Clone, Copy, Debug)]
pub struct Records<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) ranges: &'a [Range<usize>],
}

impl<'a> Records<'a> {
    /// Records that stand in `bytes` at `ranges`, each a JSON object.
    pub fn new(bytes: &'a [u8], ranges: &'a [Range<usize>]) -> Self {
        Records { bytes, ranges }
    }

    /// Each record as a JSON object.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let bytes = self.bytes;
        self.ranges.iter().map(move |range| &bytes[range.clone()])
    }

    /// Bytes of all records together.
    pub fn bytes(&self) -> usize {
        self.ranges.iter().map(|range| range.len()).sum()
    }
}

/// A dialect's way of writing messages. Pure: the same message gives the same bytes, which all
/// subscribers of one encoder share.
pub trait Encode: Send + Sync {
    /// Encoders of the same name write the same bytes.
    fn name(&self) -> &'static str;

    /// The message as it goes over the wire, framing included (see [`super::frame`]).
    fn frame(&self, message: &Message<'_>) -> Bytes;

    /// A page of a snapshot, perhaps empty; the last one is `complete` and has the cursor.
    fn page(&self, records: &Records<'_>, complete: bool, cursor: Option<&str>) -> Bytes;

    /// Where the stream stands, when nothing else says so.
    fn position(&self, cursor: &str) -> Bytes;

    /// How a subscription's end is told.
    fn close(&self, error: &Error) -> Close;
}
