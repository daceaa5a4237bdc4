//! All clients of a bench in one thread, without a task or a buffer each: sockets behind one
//! poll, one buffer to read into, frames looked at where they lie. It shares its cores with the
//! server that it measures.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustix::net::{AddressFamily, SocketType};

use crate::error::{Error, Kind, Result};

use super::ledger::{Ledger, Side};
use super::subscriber::{Subscriber, Turn};
use super::writer::Writer;

/// Set by Ctrl-C, SIGTERM and SIGHUP.
pub static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Fails where the bench was told to end.
pub fn look_for_interrupt() -> Result<()> {
    match INTERRUPTED.load(Ordering::Relaxed) {
        true => Err(Error::bad("interrupted")),
        false => Ok(()),
    }
}

/// What one read takes at most.
const READ: usize = 128 << 10;

/// Writers' tokens begin here, readers' there.
const WRITERS: usize = 1 << 40;
const READERS: usize = 1 << 41;

/// Handshakes under way at once.
const OPENING: usize = 256;

/// How long a server that says nothing is waited for.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// One who is to subscribe.
pub struct Asks {
    pub class: u32,
    /// The whole handshake.
    pub request: Vec<u8>,
}

/// All connections of a bench.
pub struct Client {
    poll: Poll,
    events: Events,
    buffer: Box<[u8]>,
    began: Instant,
    subscribers: Vec<Subscriber>,
    writers: Vec<Writer>,
    /// Writers without a request under way.
    idle: Vec<usize>,
    /// Those that ask for pages.
    readers: Vec<Writer>,
    opened: usize,
    left: usize,
    server: Ledger,
    floor: Ledger,
}

impl Client {
    pub fn new() -> Result<Client> {
        Ok(Client {
            poll: Poll::new().map_err(failed)?,
            events: Events::with_capacity(1024),
            buffer: vec![0; READ].into_boxed_slice(),
            began: Instant::now(),
            subscribers: Vec::new(),
            writers: Vec::new(),
            idle: Vec::new(),
            readers: Vec::new(),
            opened: 0,
            left: 0,
            server: Ledger::default(),
            floor: Ledger::default(),
        })
    }

    /// Nanoseconds since this client began.
    pub fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    pub fn ledger(&mut self, side: Side) -> &mut Ledger {
        match side {
            Side::Server => &mut self.server,
            Side::Floor => &mut self.floor,
        }
    }

    /// Subscribes all of them, some at a time; gives how long it took.
    pub fn open(
        &mut self,
        side: Side,
        address: SocketAddr,
        all: impl ExactSizeIterator<Item = Asks>,
        mut progress: impl FnMut(usize),
    ) -> Result<Duration> {
        let (began, wanted) = (Instant::now(), all.len());
        let (mut all, mut started, mut heard) = (all, 0, (began, 0));
        self.opened = 0;
        while self.opened < wanted {
            while started - self.opened < OPENING {
                let Some(asks) = all.next() else { break };
                self.connect(side, address, asks)?;
                started += 1;
            }
            self.turn(Duration::from_millis(200))?;
            if let Some(why) = self.ledger(side).ended.take() {
                return Err(lost(format!("a subscription to {side} came to nothing: {why}")));
            }
            if heard.1 != self.opened {
                heard = (Instant::now(), self.opened);
                progress(self.opened);
            } else if heard.0.elapsed() > PATIENCE {
                return Err(lost(format!(
                    "{} of {wanted} subscribed to {side}, and no more",
                    self.opened
                )));
            }
        }
        Ok(began.elapsed())
    }

    /// Deals with what comes, for so long.
    pub fn rest(&mut self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.turn(Duration::from_millis(50))?;
        }
        Ok(())
    }

    /// Has all subscribers say good-bye, some at a time, and waits until they are gone.
    pub fn close_all(&mut self) -> Result<()> {
        let (mut leaving, mut heard) = (0, (Instant::now(), 0));
        self.left = 0;
        while self.left < self.subscribers.len() {
            while leaving < self.subscribers.len() && leaving - self.left < OPENING {
                self.left += usize::from(!self.subscribers[leaving].leave());
                leaving += 1;
            }
            self.turn(Duration::from_millis(200))?;
            if heard.1 != self.left {
                heard = (Instant::now(), self.left);
            } else if heard.0.elapsed() > PATIENCE {
                let all = self.subscribers.len();
                return Err(lost(format!("{} of {all} connections ended, and no more", self.left)));
            }
        }
        self.subscribers.clear();
        Ok(())
    }

    fn connect(&mut self, side: Side, address: SocketAddr, asks: Asks) -> Result<()> {
        let unreachable = |error| lost(format!("{address}: {error}"));
        let mut stream = connect(address, self.subscribers.len()).map_err(unreachable)?;
        let token = Token(self.subscribers.len());
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, token, both).map_err(failed)?;
        self.subscribers.push(Subscriber::new(stream, side, asks.class, asks.request));
        if let Some(class) = self.ledger(side).classes.get_mut(asks.class as usize) {
            class.members += 1;
        }
        Ok(())
    }

    /// Connects so many writers, in the place of those there were.
    pub fn set_writers(&mut self, side: Side, address: SocketAddr, number: usize) -> Result<()> {
        self.writers.clear();
        self.idle.clear();
        for place in 0..number {
            let unreachable = |error| lost(format!("{address}: {error}"));
            let mut writer = Writer::connect(side, address, self.now()).map_err(unreachable)?;
            let (token, both) = (Token(WRITERS + place), Interest::READABLE | Interest::WRITABLE);
            self.poll.registry().register(&mut writer.stream, token, both).map_err(failed)?;
            self.writers.push(writer);
            self.idle.push(place);
        }
        Ok(())
    }

    /// Since when a writer has had nothing to do, if there is one.
    pub fn idle_since(&self) -> Option<u64> {
        self.idle.last().map(|place| self.writers[*place].idle_since)
    }

    /// Sends the request that `write` appends, by a writer that has nothing to do.
    pub fn send(&mut self, sent: u64, write: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let Some(place) = self.idle.pop() else { return Err(lost("all writers are busy")) };
        let writer = &mut self.writers[place];
        writer.send(sent, write).map_err(|error| lost(format!("{}: {error}", writer.side)))
    }

    /// Writes under way.
    pub fn writing(&self) -> usize {
        self.writers.len() - self.idle.len()
    }

    /// Connects so many readers, in the place of those there were.
    pub fn set_readers(&mut self, side: Side, address: SocketAddr, number: usize) -> Result<()> {
        self.readers.clear();
        for place in 0..number {
            let unreachable = |error| lost(format!("{address}: {error}"));
            let mut reader = Writer::connect(side, address, self.now()).map_err(unreachable)?;
            let (token, both) = (Token(READERS + place), Interest::READABLE | Interest::WRITABLE);
            self.poll.registry().register(&mut reader.stream, token, both).map_err(failed)?;
            self.readers.push(reader);
        }
        Ok(())
    }

    /// Since when a reader has had nothing to do; nothing while it waits for an answer.
    pub fn reader_idle_since(&self, place: usize) -> Option<u64> {
        self.readers.get(place).filter(|reader| !reader.is_busy()).map(|reader| reader.idle_since)
    }

    /// Sends a reader's request, which has nothing under way.
    pub fn read(&mut self, place: usize, request: &[u8]) -> Result<()> {
        let sent = self.now();
        let Some(reader) = self.readers.get_mut(place) else { return Err(lost("no such reader")) };
        let sent = reader.send(sent, |out| out.extend_from_slice(request));
        sent.map_err(|error| lost(format!("{}: {error}", reader.side)))
    }

    /// Waits until something happens, and deals with it.
    pub fn turn(&mut self, wait: Duration) -> Result<()> {
        look_for_interrupt()?;
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            polled => polled.map_err(failed)?,
        }
        let Client { events, buffer, began, subscribers, writers, idle, readers, .. } = self;
        let clock = || began.elapsed().as_nanos() as u64;
        for event in &*events {
            let Token(token) = event.token();
            if let Some(place) = token.checked_sub(READERS) {
                let Some(reader) = readers.get_mut(place) else { continue };
                let side = reader.side;
                let failed = |error| lost(format!("{side}: {error}"));
                if let Some(sent) = reader.turn(buffer).map_err(failed)? {
                    reader.idle_since = clock();
                    let ledger = match side {
                        Side::Server => &mut self.server,
                        Side::Floor => &mut self.floor,
                    };
                    ledger.read.add(reader.idle_since.saturating_sub(sent));
                }
            } else if let Some(place) = token.checked_sub(WRITERS) {
                let Some(writer) = writers.get_mut(place) else { continue };
                let side = writer.side;
                let failed = |error| lost(format!("{side}: {error}"));
                if let Some(sent) = writer.turn(buffer).map_err(failed)? {
                    writer.idle_since = clock();
                    let ledger = match writer.side {
                        Side::Server => &mut self.server,
                        Side::Floor => &mut self.floor,
                    };
                    ledger.answer(sent, writer.idle_since);
                    idle.push(place);
                }
            } else if let Some(subscriber) = subscribers.get_mut(token) {
                let ledger = match subscriber.listener.side {
                    Side::Server => &mut self.server,
                    Side::Floor => &mut self.floor,
                };
                match subscriber.turn(event.is_writable(), buffer, ledger, clock) {
                    Turn::Nothing => {}
                    Turn::Opened => self.opened += 1,
                    Turn::Left => self.left += 1,
                }
            }
        }
        Ok(())
    }
}

/// Begins to connect. Where loopback has no free port left to connect from, another address of it
/// has.
fn connect(address: SocketAddr, place: usize) -> std::io::Result<TcpStream> {
    match (TcpStream::connect(address), address.ip()) {
        (Err(error), IpAddr::V4(ip))
            if error.kind() == ErrorKind::AddrNotAvailable && ip.is_loopback() =>
        {
            let source = Ipv4Addr::new(127, 0, 1, (place / 10_000) as u8);
            let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
            rustix::net::bind(&socket, &SocketAddr::from((source, 0)))?;
            let stream = std::net::TcpStream::from(socket);
            stream.set_nonblocking(true)?;
            match rustix::net::connect(&stream, &address) {
                Err(rustix::io::Errno::INPROGRESS) | Ok(()) => Ok(TcpStream::from_std(stream)),
                Err(error) => Err(error.into()),
            }
        }
        (connected, _) => connected,
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::bad(error.to_string())
}

fn lost(why: impl std::fmt::Display) -> Error {
    Error::new(Kind::Unavailable, why.to_string())
}
