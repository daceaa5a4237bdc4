//! The floor: what it costs to give one frame to many sockets when nothing else is done.
//!
//! A process of its own that stores nothing and matches nothing. A `GET` with a WebSocket key is a
//! subscriber from then on, whatever its path. The body of a `POST` becomes one unmasked text frame,
//! which goes to every subscriber by one plain write() each (`?to=N`: to N of them, in turn); then
//! the answer is 200. All on one thread, in a loop over the sockets: no tasks, no queues, no locks.
//! A `GET` without a key tells the counts.
//!
//! With a file (`--durable`) it also does what no durable server is spared: the bodies of all posts
//! that one turn of the loop found are written to it and synced, once, before they are told and
//! answered.
//!
//! What a socket does not take waits for it, counted. While more than [`WAITING_BYTES`] wait, no post
//! is answered: the floor has bounds too.

mod disk;
mod http;
mod peer;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};
use serde_json::json;

use crate::error::{Error, Result};
use crate::live::frame;

use disk::Disk;
use http::Asked;
use peer::{Ended, Peer};

/// Of the listener and of the end; peers follow.
const LISTENER: Token = Token(0);
const END: Token = Token(1);
const PEERS: usize = 2;
const SCRATCH_BYTES: usize = 64 << 10;
/// How much may wait for all sockets together.
const WAITING_BYTES: usize = 64 << 20;

/// `rowcast bench floor-server`: prints its address as a line of JSON and serves until its
/// standard input ends.
#[derive(clap::Args, Debug)]
pub struct FloorServer {
    /// The port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// A file to make, into which each post is written and synced before it is told
    #[arg(long, value_name = "FILE")]
    durable: Option<PathBuf>,
}

impl FloorServer {
    /// Serves on loopback.
    pub fn run(&self) -> Result<ExitCode> {
        let mut floor = Floor::bind(self.port)?;
        if let Some(path) = &self.durable {
            let name = path.display();
            let disk = Disk::create(path);
            floor.disk = Some(disk.map_err(|error| Error::bad(format!("{name}: {error}")))?);
        }
        let address = floor.address()?;
        let line = json!({
            "address": address.to_string(),
            "url": format!("http://{address}"),
            "pid": std::process::id(),
        });
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush()).map_err(failed)?;
        drop(out);
        let end = floor.end.clone();
        thread::spawn(move || {
            // An input that cannot be read has ended too.
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            end.wake()
        });
        floor.run()?;
        Ok(ExitCode::SUCCESS)
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::bad(format!("floor server: {error}"))
}

/// See the module.
pub struct Floor {
    poll: Poll,
    /// Woken, it ends.
    end: Arc<Waker>,
    listener: TcpListener,
    peers: Vec<Option<Peer>>,
    free: Vec<usize>,
    /// Of `peers`, those that subscribed; `turn` is the next one's place where not all are meant.
    seats: Vec<usize>,
    turn: usize,
    /// Posters that are answered once less waits.
    held: VecDeque<usize>,
    disk: Option<Disk>,
    /// Put on the disk, and not synced yet.
    unsynced: Vec<Posted>,
    counts: Counts,
    scratch: Vec<u8>,
}

/// A post that is told and answered once it is synced.
struct Posted {
    /// Who is answered, if it is still there.
    by: Option<usize>,
    frame: Bytes,
    to: Option<usize>,
}

#[derive(Default)]
struct Counts {
    /// Frames made of posts.
    frames: u64,
    /// Frames given to sockets.
    deliveries: u64,
    /// Of them, those that a socket did not take whole at once.
    refused: u64,
    /// Bytes that wait now.
    waiting: usize,
}

impl Floor {
    /// Listens on a port of the loopback; 0: a free one.
    ///
    /// # Errors
    /// The port is taken.
    pub fn bind(port: u16) -> Result<Floor> {
        let poll = Poll::new().map_err(failed)?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut listener = TcpListener::bind(address).map_err(failed)?;
        // As many may wait to be accepted as at the server.
        rustix::net::listen(&listener, 4_096).map_err(|error| failed(error.into()))?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE).map_err(failed)?;
        let end = Arc::new(Waker::new(poll.registry(), END).map_err(failed)?);
        Ok(Floor {
            poll,
            end,
            listener,
            peers: Vec::new(),
            free: Vec::new(),
            seats: Vec::new(),
            turn: 0,
            held: VecDeque::new(),
            disk: None,
            unsynced: Vec::new(),
            counts: Counts::default(),
            scratch: vec![0; SCRATCH_BYTES],
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The socket does not say.
    pub fn address(&self) -> Result<SocketAddr> {
        self.listener.local_addr().map_err(failed)
    }

    /// Serves until `end` is woken.
    ///
    /// # Errors
    /// Handles have run out.
    pub fn run(mut self) -> Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(failed(error)),
                _ => {}
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    END => return Ok(()),
                    Token(token) => {
                        // A token may be another peer's by now: then this finds nothing to do.
                        if event.is_writable() {
                            self.flush(token - PEERS);
                        }
                        if event.is_readable() || event.is_read_closed() {
                            self.read(token - PEERS);
                        }
                    }
                }
            }
            self.release();
            // Whoever was answered may have sent the next one already.
            while !self.unsynced.is_empty() {
                self.sync()?;
                self.release();
            }
        }
    }

    /// Syncs what was posted in this turn of the loop; then it is told and answered.
    fn sync(&mut self) -> Result<()> {
        if let Some(disk) = &mut self.disk {
            disk.sync().map_err(failed)?;
        }
        for Posted { by, frame, to } in std::mem::take(&mut self.unsynced) {
            let given = self.tell(&frame, to);
            if let Some(at) = by
                && self.answer(at, given)
            {
                self.serve(at);
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::Interrupted | ErrorKind::ConnectionAborted
                    ) =>
                {
                    continue;
                }
                Err(error) => return Err(failed(error)),
            };
            if stream.set_nodelay(true).is_err() {
                continue;
            }
            let at = self.free.last().copied().unwrap_or(self.peers.len());
            let token = Token(at + PEERS);
            let registered = self.poll.registry().register(&mut stream, token, Interest::READABLE);
            registered.map_err(failed)?;
            let peer = Some(Peer::new(stream));
            match self.free.pop() {
                Some(at) => self.peers[at] = peer,
                None => self.peers.push(peer),
            }
        }
    }

    fn read(&mut self, at: usize) {
        let Some(peer) = &mut self.peers[at] else { return };
        let ended = peer.read(&mut self.scratch);
        let waits = self.unsynced.iter().any(|posted| posted.by == Some(at));
        if !waits && !self.held.contains(&at) {
            self.serve(at);
        }
        if ended == Ended::Gone {
            self.remove(at);
        }
    }

    /// Does what the peer asked for, as far as it has come.
    fn serve(&mut self, at: usize) {
        loop {
            let Some(peer) = &mut self.peers[at] else { return };
            if peer.seat.is_some() || peer.last || peer.input.is_empty() {
                return;
            }
            let answer = match http::parse(&peer.input) {
                Asked::Incomplete => return,
                Asked::Upgrade(key) => {
                    peer.input = Vec::new();
                    peer.seat = Some(self.seats.len());
                    self.seats.push(at);
                    http::switched(&key)
                }
                Asked::Post { body, to, last } => {
                    let bytes = &peer.input[body.clone()];
                    let frame = frame::text(bytes.len(), |out| out.extend_from_slice(bytes));
                    if let Some(disk) = &mut self.disk {
                        disk.put(bytes);
                    }
                    peer.input.drain(..body.end);
                    peer.last = last;
                    if self.disk.is_some() {
                        return self.unsynced.push(Posted { by: Some(at), frame, to });
                    }
                    let given = self.tell(&frame, to);
                    match self.answer(at, given) {
                        true => continue,
                        false => return,
                    }
                }
                Asked::Status { end, last } => {
                    peer.input.drain(..end);
                    peer.last = last;
                    http::answer("200 OK", &self.status(), last)
                }
                Asked::Refused(status, why) => {
                    peer.input.clear();
                    peer.last = true;
                    http::answer(status, &json!({ "error": why }).to_string(), true)
                }
            };
            self.send(at, &answer);
        }
    }

    /// Says to how many sockets a post went, once not too much waits; whether that was now.
    fn answer(&mut self, at: usize, given: usize) -> bool {
        if self.counts.waiting > WAITING_BYTES {
            self.held.push_back(at);
            return false;
        }
        let Some(peer) = &self.peers[at] else { return false };
        let last = peer.last;
        self.send(at, &http::answer("200 OK", &format!("{{\"to\":{given}}}"), last));
        true
    }

    /// One frame to all subscribers, or to some of them in turn; how many.
    fn tell(&mut self, frame: &Bytes, to: Option<usize>) -> usize {
        let count = to.unwrap_or(usize::MAX).min(self.seats.len());
        let start = if count == self.seats.len() { 0 } else { self.turn % self.seats.len() };
        let (before, from) = self.seats.split_at(start);
        let (mut full, mut gone) = (Vec::new(), Vec::new());
        for &at in from.iter().chain(before).take(count) {
            let Some(peer) = &mut self.peers[at] else { continue };
            // Whoever waits already is told of by the poll.
            let waits = peer.waits();
            match peer.send(frame) {
                Ok(0) => {}
                Ok(left) => {
                    self.counts.refused += 1;
                    self.counts.waiting += left;
                    if !waits {
                        full.push(at);
                    }
                }
                Err(_) => gone.push(at),
            }
        }
        self.counts.frames += 1;
        self.counts.deliveries += count as u64;
        self.turn = start + count;
        full.into_iter().for_each(|at| self.watch(at));
        gone.into_iter().for_each(|at| self.remove(at));
        count
    }

    fn send(&mut self, at: usize, bytes: &Bytes) {
        let Some(peer) = &mut self.peers[at] else { return };
        match peer.send(bytes) {
            Ok(left) => {
                self.counts.waiting += left;
                if left > 0 {
                    self.watch(at);
                } else if peer.last {
                    self.remove(at);
                }
            }
            Err(_) => self.remove(at),
        }
    }

    fn flush(&mut self, at: usize) {
        let Some(peer) = &mut self.peers[at] else { return };
        if !peer.waits() {
            return;
        }
        match peer.flush() {
            Ok(gone) => {
                self.counts.waiting -= gone;
                if !peer.waits() {
                    if peer.last { self.remove(at) } else { self.watch(at) }
                }
            }
            Err(_) => self.remove(at),
        }
    }

    /// Hears from a peer when its socket takes more, if it waits for that; ends it if it is gone.
    fn watch(&mut self, at: usize) {
        let Some(peer) = &mut self.peers[at] else { return };
        let interest = match peer.waits() {
            true => Interest::READABLE | Interest::WRITABLE,
            false => Interest::READABLE,
        };
        let token = Token(at + PEERS);
        if self.poll.registry().reregister(&mut peer.stream, token, interest).is_err() {
            self.remove(at);
        }
    }

    /// Answers posts again, once so little waits.
    fn release(&mut self) {
        while self.counts.waiting <= WAITING_BYTES / 2
            && let Some(at) = self.held.pop_front()
        {
            let Some(peer) = &self.peers[at] else { continue };
            let last = peer.last;
            self.send(at, &http::answer("200 OK", "{}", last));
            self.serve(at);
        }
    }

    fn remove(&mut self, at: usize) {
        let Some(mut peer) = self.peers[at].take() else { return };
        // A closed socket leaves the poll by itself; this only says so earlier.
        let _ = self.poll.registry().deregister(&mut peer.stream);
        self.free.push(at);
        self.held.retain(|held| *held != at);
        for posted in &mut self.unsynced {
            posted.by = posted.by.filter(|by| *by != at);
        }
        self.counts.waiting -= peer.waiting();
        if let Some(seat) = peer.seat {
            self.seats.swap_remove(seat);
            let moved = self.seats.get(seat).and_then(|moved| self.peers[*moved].as_mut());
            if let Some(moved) = moved {
                moved.seat = Some(seat);
            }
        }
    }

    fn status(&self) -> String {
        let Counts { frames, deliveries, refused, waiting } = self.counts;
        json!({
            "subscribers": self.seats.len(),
            "frames": frames,
            "deliveries": deliveries,
            "refused": refused,
            "waiting_bytes": waiting,
        })
        .to_string()
    }
}
