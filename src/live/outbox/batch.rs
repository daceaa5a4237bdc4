//! Many outboxes written at once: each is locked and looked at as it comes, then one [`Carrier`]
//! makes all their writes, then each takes what became of its own, and is let go of.
//!
//! The locks of a batch are held over its writes. So nothing is known of a write under way but
//! here, and whoever else wants one of these outboxes (its task, mostly asleep) waits for no more
//! than [`MOST`] sends to sockets that take them at once or not at all. A lock that somebody else
//! holds is waited for only when no other is held: whoever holds one never waits for a second.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::{Arc, MutexGuard};

use super::state::{State, Told, Woken};
use super::{Carrier, Frame, Offer, Outbox, Write, size};

/// Outboxes whose writes are made at once, and locked meanwhile.
const MOST: usize = 64;

/// So few are written one by one: handing them over costs what it saves.
pub const FEW: usize = 3;

/// Writes to many outboxes.
pub struct Batch<'a> {
    /// Without one each is written as it comes.
    carrier: Option<&'a mut (dyn Carrier + 'static)>,
    /// What is put in at present is the last of these.
    told: Vec<New>,
    tickets: Vec<Ticket<'a>>,
}

/// The frames of a commit, the same for many.
struct New {
    position: u64,
    frames: Vec<Frame>,
    bytes: usize,
}

impl New {
    fn told(&self) -> Told<'_> {
        Told { position: self.position, frames: &self.frames, bytes: self.bytes }
    }
}

/// An outbox that is to be written.
struct Ticket<'a> {
    outbox: &'a Outbox,
    state: MutexGuard<'a, State>,
    /// Which of what is told goes out; `None` if it is what waits in the outbox.
    new: Option<usize>,
}

impl<'a> Batch<'a> {
    /// One that has `carrier` make its writes.
    pub fn new(carrier: Option<&'a mut (dyn Carrier + 'static)>) -> Batch<'a> {
        Batch { carrier, told: Vec::new(), tickets: Vec::new() }
    }

    /// What [`Batch::send`] puts in from now on: the frames of the commit at `position`.
    pub fn tell(&mut self, position: u64, frames: &[Frame]) {
        if self.tickets.is_empty() {
            self.told.clear();
        }
        self.told.push(New { position, frames: frames.to_vec(), bytes: size(frames) });
    }

    /// As [`Outbox::send`], what [`Batch::tell`] said. It has gone out when the batch ends.
    pub fn send(&mut self, outbox: &'a Outbox) -> Offer {
        let Some(at) = self.told.len().checked_sub(1) else { return Offer::Taken };
        if self.carrier.is_none() {
            return outbox.send_told(outbox.lock(), &self.told[at].told());
        }
        let state = self.lock(outbox);
        if state.has_ended() {
            return Offer::Ended;
        }
        if !state.takes_new(&self.told[at].told()) {
            // It may be written until its socket takes no more: not while others are held.
            if !self.tickets.is_empty() {
                drop(state);
                self.carry();
                return self.send(outbox);
            }
            return outbox.offer_told(state, &self.told[at].told());
        }
        self.stage(Ticket { outbox, state, new: Some(at) });
        Offer::Taken
    }

    /// As [`Outbox::flush`]. It is done when the batch ends.
    pub fn flush(&mut self, outbox: &'a Outbox) {
        let mut state = self.lock(outbox);
        if self.carrier.is_none() || !state.can_write() {
            let mut woken = Woken::default();
            outbox.flush_state(state, &mut woken);
            return woken.wake();
        }
        state.due = false;
        self.stage(Ticket { outbox, state, new: None });
    }

    /// Locks an outbox; one of these perhaps, if it comes twice.
    fn lock(&mut self, outbox: &'a Outbox) -> MutexGuard<'a, State> {
        match outbox.try_lock() {
            Some(state) => state,
            None => {
                self.carry();
                outbox.lock()
            }
        }
    }

    fn stage(&mut self, ticket: Ticket<'a>) {
        if self.tickets.capacity() == 0 {
            self.tickets.reserve(MOST);
        }
        self.tickets.push(ticket);
        if self.tickets.len() == MOST {
            self.carry();
        }
    }

    /// Writes what is left to write.
    pub fn end(mut self) {
        self.carry();
    }

    fn carry(&mut self) {
        let mut results = Vec::new();
        if self.tickets.len() > FEW
            && let Some(carrier) = &mut self.carrier
        {
            write(&mut **carrier, &self.told, &self.tickets, &mut results);
        }
        let mut results = results.into_iter();
        // More than one write is made when no other outbox is held for it.
        let mut rest = Vec::new();
        for Ticket { outbox, mut state, new } in self.tickets.drain(..) {
            let mut woken = Woken::default();
            let more = match (new, results.next()) {
                (Some(at), made) => {
                    state.write_new(&self.told[at].told(), made, &mut woken);
                    false
                }
                (None, Some(made)) => state.written(outbox.most, made, &mut woken),
                (None, None) => true,
            };
            drop(state);
            woken.wake();
            if more {
                rest.push(outbox);
            }
        }
        rest.into_iter().for_each(Outbox::flush);
    }
}

impl Drop for Batch<'_> {
    /// What was said to be taken is.
    fn drop(&mut self) {
        self.carry();
    }
}

/// Has the first write of each made.
fn write(
    carrier: &mut dyn Carrier,
    told: &[New],
    tickets: &[Ticket<'_>],
    results: &mut Vec<io::Result<usize>>,
) {
    let mut bufs: Vec<IoSlice<'_>> = Vec::with_capacity(MOST);
    let mut ranges: Vec<Range<usize>> = Vec::with_capacity(MOST);
    let mut last = None;
    for Ticket { state, new, .. } in tickets {
        if let (Some((same, range)), Some(at)) = (&last, new)
            && same == at
        {
            ranges.push(Range::clone(range));
            continue;
        }
        let start = bufs.len();
        match new {
            Some(at) => bufs.extend(told[*at].frames.iter().map(|f| IoSlice::new(&f.bytes))),
            None => bufs.extend(state.queue.slices().map(IoSlice::new)),
        }
        let range = start..bufs.len();
        last = new.map(|at| (at, range.clone()));
        ranges.push(range);
    }
    let writes: Vec<Write<'_>> = tickets
        .iter()
        .zip(ranges)
        .filter_map(|(ticket, range)| {
            let socket = ticket.state.socket.as_ref()?;
            Some(Write { sink: &*socket.sink, fd: socket.fd, bufs: &bufs[range] })
        })
        .collect();
    if writes.len() == tickets.len() {
        // What is left so was not written: its task tries.
        results.resize_with(writes.len(), || Err(io::ErrorKind::WouldBlock.into()));
        carrier.carry(&writes, results);
    }
}

/// Writes what waits in these outboxes, as far as their sockets take it, and forgets them.
///
/// All that a round of telling puts out passes here: sockets outside, the frames of many commits
/// inside.
pub fn flush(due: &mut Vec<Arc<Outbox>>, carrier: Option<&mut (dyn Carrier + 'static)>) {
    let mut batch = Batch::new(carrier);
    due.iter().for_each(|outbox| batch.flush(outbox));
    batch.end();
    due.clear();
}
