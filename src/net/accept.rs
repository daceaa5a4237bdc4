//! Letting clients in: over TCP and over the owner's socket.
//!
//! One acceptor a door. It lives on the event loop that has fewest connections and moves with the
//! balance, so that a connection is mostly served by the thread that accepted it: handing each
//! over would wake another thread for it, which costs a third of a handshake more. Loops that all
//! wait for the same listener would all be woken; a listener for each (`SO_REUSEPORT`) would let a
//! second server share the port unnoticed.

use std::io::{self, IoSlice};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use http_body_util::BodyExt;
use tokio::net;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use crate::error::{Error, Kind};
use crate::limits::Limits;
use crate::live::outbox::Sink;
use crate::net::clients::{Clients, Connection};
use crate::net::http::{self, Handler};
use crate::net::stream::{self, Io, Stream};

/// How often it is told that nobody can be let in.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Where clients come in; a listener that does not block.
#[derive(Debug)]
pub enum Door {
    /// Everybody's.
    Tcp(TcpListener),
    /// The owner's socket: whoever can open it may do everything.
    Owner(UnixListener),
}

impl Door {
    /// Sets what each connection shall have. On Linux they have it from the listener, which saves
    /// two calls a connection.
    fn prepare(&self, limits: &Limits) {
        if let Door::Tcp(listener) = self {
            // Frames are small and each is a whole message: Nagle would only hold them back. No
            // system refuses it.
            let _ = rustix::net::sockopt::set_tcp_nodelay(listener, true);
            stream::end_when_unheard(listener, limits);
        }
    }

    /// Has the event loop that calls this listen.
    fn open(&self) -> io::Result<Listening> {
        Ok(match self {
            Door::Tcp(door) => Listening::Tcp(net::TcpListener::from_std(door.try_clone()?)?),
            Door::Owner(door) => Listening::Owner(net::UnixListener::from_std(door.try_clone()?)?),
        })
    }
}

/// A door and the event loop that listens there, until it is dropped.
enum Listening {
    Tcp(net::TcpListener),
    Owner(net::UnixListener),
}

impl Listening {
    async fn accept(&self) -> io::Result<(Io, Option<IpAddr>)> {
        match self {
            Listening::Tcp(listener) => {
                let (io, address) = listener.accept().await?;
                #[cfg(not(target_os = "linux"))]
                let _ = io.set_nodelay(true);
                Ok((Io::Tcp(io), Some(address.ip())))
            }
            Listening::Owner(listener) => Ok((Io::Unix(listener.accept().await?.0), None)),
        }
    }
}

/// A connection between two event loops.
enum Moving {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Moving {
    fn from(io: Io) -> io::Result<Moving> {
        Ok(match io {
            Io::Tcp(io) => Moving::Tcp(io.into_std()?),
            Io::Unix(io) => Moving::Unix(io.into_std()?),
        })
    }

    /// Has it served by the event loop that calls this.
    fn settle(self) -> io::Result<Io> {
        Ok(match self {
            Moving::Tcp(io) => Io::Tcp(net::TcpStream::from_std(io)?),
            Moving::Unix(io) => Io::Unix(net::UnixStream::from_std(io)?),
        })
    }
}

/// One that was accepted where another event loop is to serve it, and is counted there.
type Moved = (Moving, Arc<Connection>);

/// Accepts until `draining` turns true, on one of `loops` at a time; the receiver ends then.
/// Connections live on in tasks of their own, which finish what they are answering; all that were
/// accepted are counted among the clients by then.
pub fn accept<H: Handler>(
    door: Door,
    loops: Arc<[Handle]>,
    handler: Arc<H>,
    clients: Arc<Clients>,
    limits: Arc<Limits>,
    draining: watch::Receiver<bool>,
) -> oneshot::Receiver<()> {
    door.prepare(&limits);
    let (ends, ended) = oneshot::channel();
    let acceptor = Acceptor {
        door,
        loops,
        handler,
        clients,
        limits,
        draining,
        home: 0,
        told: None,
        _ends: ends,
    };
    acceptor.go(None);
    ended
}

struct Acceptor<H> {
    door: Door,
    loops: Arc<[Handle]>,
    handler: Arc<H>,
    clients: Arc<Clients>,
    limits: Arc<Limits>,
    draining: watch::Receiver<bool>,
    /// The loop it is on.
    home: usize,
    /// When it was told last that nobody can be let in.
    told: Option<Instant>,
    _ends: oneshot::Sender<()>,
}

impl<H: Handler> Acceptor<H> {
    /// Goes on on the loop that is its home, first with who came there with it.
    fn go(self, first: Option<Moved>) {
        let Some(home) = self.loops.get(self.home).cloned() else { return };
        let turn: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
            if let Some((io, connection)) = first {
                match io.settle() {
                    Ok(io) => self.serve(io, connection),
                    Err(error) => tracing::warn!("cannot serve a connection: {error}"),
                }
            }
            self.stay().await;
        });
        home.spawn(turn);
    }

    /// Lets clients in until one is for another loop, or nobody is let in any more.
    async fn stay(mut self) {
        let (other, moving) = loop {
            match self.listen().await {
                Ok(Some(moved)) => break moved,
                Ok(None) => return,
                // Out of descriptors or memory: the next one may do better.
                Err(error) => {
                    if self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
                        self.told = Some(Instant::now());
                        tracing::warn!("cannot accept a connection: {error}");
                    }
                    tokio::select! {
                        () = http::drained(&mut self.draining) => return,
                        () = tokio::time::sleep(Duration::from_millis(50)) => {}
                    }
                }
            }
        };
        self.home = other;
        self.go(Some(moving));
    }

    /// Gives the first that is for another loop, and which; `None` where nobody is let in any more.
    async fn listen(&self) -> io::Result<Option<(usize, Moved)>> {
        let door = self.door.open()?;
        let mut draining = self.draining.clone();
        loop {
            let accepted = tokio::select! {
                biased;
                () = http::drained(&mut draining) => return Ok(None),
                accepted = door.accept() => accepted,
            };
            match accepted {
                Ok((io, address)) => {
                    let other = self.clients.elsewhere(self.home);
                    // Counted before it moves: whoever waits until all are gone waits for it too.
                    match (self.clients.admit(address, other.unwrap_or(self.home)), other) {
                        (Some(connection), Some(other)) => {
                            return Ok(Some((other, (Moving::from(io)?, connection))));
                        }
                        (Some(connection), None) => self.serve(io, connection),
                        (None, _) => refuse(&io, &*self.handler),
                    }
                }
                // A client that left again: its own affair.
                Err(error) if is_the_clients(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn serve(&self, io: Io, connection: Arc<Connection>) {
        let stream = Stream::new(io, connection, &self.limits);
        tokio::spawn(http::run(stream, self.handler.clone(), self.draining.clone()));
    }
}

/// Whether accepting failed for what one client did.
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Says 429 without reading, if the socket takes it at once, and closes.
fn refuse<H: Handler>(io: &Io, handler: &H) {
    let error = Error::new(Kind::Limited { retry_after: 5 }, "too many connections");
    let response = handler.refuse(&error);
    let mut head = String::from("HTTP/1.1 429 Too Many Requests\r\nconnection: close\r\n");
    for (name, value) in response.headers() {
        if let Ok(value) = value.to_str() {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    let Some(Ok(body)) = response.into_body().collect().now_or_never() else { return };
    let body = body.to_bytes();
    head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    let bytes = [head.as_bytes(), &body].concat();
    // The socket itself is asked: the loop has not heard yet that it may be written to.
    let _ = io.try_write_vectored(&[IoSlice::new(&bytes)]);
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use bytes::Bytes;
    use hyper::StatusCode;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;

    use super::*;
    use crate::net::http::{Request, Response};
    use crate::net::loops::{Loops, beside};

    /// Panics where the path says so, and works for long, in the pool, where it says that.
    struct Fragile {
        pool: Handle,
        begun: Notify,
        /// Ends the long work.
        over: std::sync::Mutex<Option<mpsc::Receiver<()>>>,
    }

    impl Handler for Fragile {
        async fn call(self: Arc<Self>, request: Request, _: Arc<Connection>) -> Response {
            let work = self.clone();
            let text = match request.uri().path() {
                "/panic" => panic!("as asked"),
                "/panic/beside" => beside(&self.pool, async { panic!("as asked") }).await,
                "/long" => {
                    let work = async move {
                        let over = work.over.lock().expect("whole").take().expect("the only one");
                        work.begun.notify_one();
                        over.recv().expect("an end");
                        Ok("long")
                    };
                    beside(&self.pool, work).await
                }
                _ => Ok("fine"),
            };
            Response::new(Bytes::from(text.expect("no error")).into())
        }

        fn refuse(&self, error: &Error) -> Response {
            let mut response = Response::new(Bytes::from(error.message.clone()).into());
            *response.status_mut() = StatusCode::from_u16(error.status()).expect("a status");
            response
        }
    }

    async fn get(stream: &mut net::TcpStream, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = vec![0; 4096];
        let bytes = stream.read(&mut answer).await.expect("read");
        String::from_utf8_lossy(&answer[..bytes]).into_owned()
    }

    /// A server on loopback: its address, what stops it, when it lets nobody in any more.
    struct Served {
        address: std::net::SocketAddr,
        stop: watch::Sender<bool>,
        ended: oneshot::Receiver<()>,
        clients: Arc<Clients>,
        loops: Loops,
        handler: Arc<Fragile>,
        over: mpsc::Sender<()>,
    }

    impl Served {
        fn new(loops: usize) -> Served {
            Served::within(loops, Limits::default())
        }

        fn within(loops: usize, limits: Limits) -> Served {
            let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
            listener.set_nonblocking(true).expect("set");
            let address = listener.local_addr().expect("an address");
            let limits = Arc::new(limits);
            let clients = Clients::new(&limits, loops);
            let loops = Loops::start(loops).expect("threads");
            let (stop, draining) = watch::channel(false);
            let (over, long) = mpsc::channel();
            let handler = Arc::new(Fragile {
                pool: Handle::current(),
                begun: Notify::new(),
                over: std::sync::Mutex::new(Some(long)),
            });
            let door = Door::Tcp(listener);
            let (all, who) = (loops.handles().clone(), clients.clone());
            let ended = accept(door, all, handler.clone(), who, limits, draining);
            Served { address, stop, ended, clients, loops, handler, over }
        }

        async fn connect(&self) -> net::TcpStream {
            net::TcpStream::connect(self.address).await.expect("connected")
        }

        /// Stops it once these connections are at their end.
        async fn end(self, connections: Vec<net::TcpStream>) {
            self.stop.send_replace(true);
            let _ = self.ended.await;
            drop(connections);
            self.clients.all_gone().await;
            self.loops.end().await;
        }
    }

    #[tokio::test]
    async fn a_panic_is_one_requests_own() {
        let served = Served::new(1);
        let (mut one, mut other) = (served.connect().await, served.connect().await);
        assert!(get(&mut other, "/").await.ends_with("fine"));
        for path in ["/panic", "/panic/beside"] {
            let answer = get(&mut one, path).await;
            assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
            assert!(answer.contains("internal error") && !answer.contains("as asked"), "{answer}");
            assert!(get(&mut other, "/").await.ends_with("fine"));
        }
        served.end(vec![one, other]).await;
    }

    /// The pool's threads are others than the loop's, which is the only one.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn work_beside_a_loop_does_not_hold_it() {
        let served = Served::new(1);
        let (mut one, mut other) = (served.connect().await, served.connect().await);
        let long = tokio::spawn(async move {
            let answer = get(&mut one, "/long").await;
            (one, answer)
        });
        served.handler.begun.notified().await;
        assert!(get(&mut other, "/").await.ends_with("fine"), "held up");
        let late = served.connect().await;
        assert!(!long.is_finished());
        served.over.send(()).expect("awaited");
        let (one, answer) = long.await.expect("done");
        assert!(answer.ends_with("long"), "{answer}");
        served.end(vec![one, other, late]).await;
    }

    #[tokio::test]
    async fn one_too_many_is_told_so() {
        let served = Served::within(1, Limits { connections: 1, ..Limits::default() });
        let mut one = served.connect().await;
        assert!(get(&mut one, "/").await.ends_with("fine"));
        let mut answer = Vec::new();
        let mut other = served.connect().await;
        other.read_to_end(&mut answer).await.expect("read");
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
        assert!(answer.ends_with("too many connections"), "{answer}");
        served.end(vec![one]).await;
    }

    /// The loop that is to serve it is busy meanwhile.
    #[tokio::test]
    async fn who_moves_is_counted_before_it_is_served() {
        let served = Served::new(2);
        let (release, released) = mpsc::channel::<()>();
        served.loops.handles()[1].spawn(async move { released.recv().unwrap_or_default() });
        let all = vec![served.connect().await, served.connect().await];
        let counted = async {
            while served.clients.by_loop() != [1, 1] {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), counted).await.expect("counted");
        drop(release);
        served.end(all).await;
    }

    /// Each of many is served, by whichever loop; and all loops end what they serve.
    #[tokio::test]
    async fn every_loop_serves_and_drains() {
        let served = Served::new(3);
        let mut all = Vec::new();
        for _ in 0..40 {
            let mut one = served.connect().await;
            assert!(get(&mut one, "/").await.ends_with("fine"));
            all.push(one);
        }
        assert!(served.clients.by_loop().iter().all(|count| *count > 10));
        served.stop.send_replace(true);
        // Idle ones are ended from this side.
        for one in &mut all {
            assert_eq!(one.read(&mut [0; 1]).await.expect("read"), 0);
        }
        served.clients.all_gone().await;
        served.end(Vec::new()).await;
    }
}
