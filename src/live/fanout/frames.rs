//! Messages made of a commit's records, and the frames of those: each once per encoder.

use std::ops::Range;

use crate::live::message::{Encode, Event, Message, Records};
use crate::live::outbox::Frame;
use crate::live::registry::EncoderId;
use crate::model::change::Commit;
use crate::model::cursor::Cursor;
use crate::query::Body;

use super::bodies::Bodies;

/// How the messages of one list of records are told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) encoder: EncoderId,
    pub(super) event: Event,
    /// For subscriptions to one record.
    pub(super) single: bool,
    /// Whether they name the fields that changed.
    pub(super) named: bool,
    /// Of records that were not there before for those who are told.
    pub(super) hidden: bool,
}

/// How long a message may become.
#[derive(Clone, Copy)]
pub(super) struct Most {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

/// The messages and frames already made of the records of one body.
#[derive(Default)]
pub(super) struct Frames {
    known: Vec<Known>,
    made: Vec<Made>,
    /// Where records stand, message by message.
    ranges: Vec<Range<usize>>,
}

/// `made[messages]` tell `changes` in this form.
struct Known {
    form: Form,
    changes: Vec<usize>,
    messages: Range<usize>,
}

/// One message.
struct Made {
    event: Event,
    single: bool,
    /// Of `ranges`.
    records: Range<usize>,
    /// The set of fields that changed in them.
    changed: Option<Option<usize>>,
    /// The frame without a cursor.
    plain: Option<Frame>,
    /// The frame with the commit's cursor, by the grant in it.
    last: Vec<(u64, Frame)>,
}

/// A commit's cursors as text, each made once.
#[derive(Default)]
pub(super) struct Cursors(Vec<(Cursor, String)>);

impl Cursors {
    pub(super) fn start(&mut self) {
        self.0.clear();
    }

    fn of(&mut self, commit: &Commit, grant: u64) -> (Cursor, &str) {
        let at = match self.0.iter().position(|(cursor, _)| cursor.grant == grant) {
            Some(at) => at,
            None => {
                let (position, stamp) = (commit.position, commit.stamp);
                let cursor = Cursor { position, stamp, grant };
                self.0.push((cursor, cursor.to_string()));
                self.0.len() - 1
            }
        };
        let (cursor, text) = &self.0[at];
        (*cursor, text)
    }
}

impl Frames {
    pub(super) fn start(&mut self) {
        self.known.clear();
        self.made.clear();
        self.ranges.clear();
    }

    /// The messages that tell `changes` so, as indexes for the calls below.
    pub(super) fn messages(
        &mut self,
        form: Form,
        changes: &[usize],
        bodies: &Bodies,
        most: Most,
    ) -> Range<usize> {
        let same = |known: &&Known| known.form == form && known.changes == changes;
        if let Some(known) = self.known.iter().find(same) {
            return known.messages.clone();
        }
        let start = self.made.len();
        let mut rest = changes;
        while !rest.is_empty() {
            let (some, after) = rest.split_at(length(form, rest, bodies, most));
            rest = after;
            let first = self.ranges.len();
            self.ranges.extend(some.iter().map(|at| bodies.range(form.event, *at)));
            self.made.push(Made {
                event: form.event,
                single: form.single,
                records: first..self.ranges.len(),
                changed: form.named.then(|| bodies.set(some[0], form.hidden)),
                plain: None,
                last: Vec::new(),
            });
        }
        let messages = start..self.made.len();
        let changes = changes.to_vec();
        self.known.push(Known { form, changes, messages: messages.clone() });
        messages
    }

    /// A message's frame, one that others follow or that needs no cursor.
    pub(super) fn plain(
        &mut self,
        message: usize,
        encoder: &dyn Encode,
        bodies: &Bodies,
        body: &Body,
    ) -> Frame {
        let made = &mut self.made[message];
        if let Some(frame) = &made.plain {
            return frame.clone();
        }
        let frame = Frame::from(made.encode(&self.ranges, encoder, bodies, body, None));
        made.plain = Some(frame.clone());
        frame
    }

    /// The frame of a commit's last message, with the cursor for `grant`.
    pub(super) fn last(
        &mut self,
        message: usize,
        encoder: &dyn Encode,
        bodies: &Bodies,
        body: &Body,
        (cursors, commit, grant): (&mut Cursors, &Commit, u64),
    ) -> Frame {
        let made = &mut self.made[message];
        if let Some((_, frame)) = made.last.iter().find(|(known, _)| *known == grant) {
            return frame.clone();
        }
        let (cursor, text) = cursors.of(commit, grant);
        let bytes = made.encode(&self.ranges, encoder, bodies, body, Some(text));
        let frame = Frame::new(bytes, Some(cursor));
        made.last.push((grant, frame.clone()));
        frame
    }
}

impl Made {
    fn encode(
        &self,
        ranges: &[Range<usize>],
        encoder: &dyn Encode,
        bodies: &Bodies,
        body: &Body,
        cursor: Option<&str>,
    ) -> bytes::Bytes {
        let names = self.changed.map(|set| bodies.names(body, set));
        encoder.frame(&Message {
            event: self.event,
            single: self.single,
            records: Records::new(&bodies.bytes, &ranges[self.records.clone()]),
            changed: names.as_deref(),
            cursor,
        })
    }
}

/// How many of the records one message may carry; at least one.
fn length(form: Form, changes: &[usize], bodies: &Bodies, most: Most) -> usize {
    if form.event == Event::Create {
        return 1;
    }
    let mut bytes = 0;
    let fits = |at: &&usize| {
        bytes += bodies.range(form.event, **at).len() + 1;
        let set = |at| bodies.set(at, form.hidden);
        bytes <= most.bytes && (!form.named || set(**at) == set(changes[0]))
    };
    changes.iter().take(most.records).take_while(fits).count().max(1)
}
