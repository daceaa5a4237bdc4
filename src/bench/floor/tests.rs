//! The floor over real sockets.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;

use serde_json::Value as Json;

use super::disk::Disk;
use super::{Floor, WAITING_BYTES};

fn start() -> SocketAddr {
    let floor = Floor::bind(0).expect("a free port");
    let address = floor.address().expect("an address");
    thread::spawn(move || floor.run());
    address
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn new(address: SocketAddr) -> Self {
        Client(BufReader::new(TcpStream::connect(address).expect("the floor listens")))
    }

    fn subscriber(address: SocketAddr) -> Self {
        let mut client = Client::new(address);
        client.write(
            b"GET /x HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
              sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        );
        let head = client.head();
        assert!(head[0].contains("101"), "{head:?}");
        // The key and its answer of RFC 6455.
        let accept = "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned();
        assert!(head.contains(&accept), "{head:?}");
        client
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).expect("the floor reads");
    }

    fn head(&mut self) -> Vec<String> {
        let lines = self.0.by_ref().lines().map(|line| line.expect("an answer"));
        lines.take_while(|line| !line.is_empty()).collect()
    }

    fn answer(&mut self) -> (String, Json) {
        let head = self.head();
        let length = head.iter().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.expect("a length").parse().expect("a number")];
        self.0.read_exact(&mut body).expect("a body");
        (head[0].clone(), serde_json::from_slice(&body).expect("JSON"))
    }

    fn post(&mut self, query: &str, body: &[u8]) -> Json {
        self.ask(query, body);
        let (status, answer) = self.answer();
        assert!(status.contains("200"), "{status}");
        answer
    }

    fn ask(&mut self, query: &str, body: &[u8]) {
        let head = format!("POST /p{query} HTTP/1.1\r\ncontent-length: {}\r\n\r\n", body.len());
        self.write(&[head.as_bytes(), body].concat());
    }

    fn status(&mut self) -> Json {
        self.write(b"GET / HTTP/1.1\r\n\r\n");
        self.answer().1
    }

    /// The payload of the next frame.
    fn frame(&mut self) -> Vec<u8> {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).expect("a frame");
        assert_eq!(head[0], 0x81, "whole, text");
        let length = match head[1] {
            126 => u64::from(u16::from_be_bytes(self.bytes())),
            127 => u64::from_be_bytes(self.bytes()),
            length => u64::from(length),
        };
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).expect("a payload");
        payload
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes).expect("a length");
        bytes
    }
}

#[test]
fn every_post_is_a_frame_to_everybody() {
    let address = start();
    let mut subscribers: Vec<_> = (0..10).map(|_| Client::subscriber(address)).collect();
    let mut poster = Client::new(address);
    let bodies = [vec![b'a'; 3], vec![b'b'; 410], vec![b'c'; 100_000]];
    for body in &bodies {
        assert_eq!(poster.post("", body)["to"], 10);
    }
    // At once, behind each other.
    let pair = b"POST / HTTP/1.1\r\ncontent-length: 1\r\n\r\ndPOST / HTTP/1.1\r\ncontent-length: 1\r\n\r\ne";
    poster.write(pair);
    assert_eq!(
        (poster.answer().1["to"].clone(), poster.answer().1["to"].clone()),
        (10.into(), 10.into())
    );
    for subscriber in &mut subscribers {
        for body in bodies.iter().map(Vec::as_slice).chain([&b"d"[..], b"e"]) {
            assert!(subscriber.frame() == body);
        }
    }
    let status = poster.status();
    assert_eq!(status["subscribers"], 10);
    assert_eq!((&status["frames"], &status["deliveries"]), (&5.into(), &50.into()));
}

#[test]
fn a_durable_floor_writes_what_it_tells() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("posts");
    let mut floor = Floor::bind(0).expect("a free port");
    floor.disk = Some(Disk::create(&path).expect("a file"));
    assert!(Disk::create(&path).is_err(), "no file is written over");
    let address = floor.address().expect("an address");
    thread::spawn(move || floor.run());
    let mut subscriber = Client::subscriber(address);
    let mut posters: Vec<_> = (0..8).map(|_| Client::new(address)).collect();
    // More than the file holds, which is then begun anew; two behind each other on a connection.
    for n in 0..40 {
        let poster = &mut posters[n % 8];
        let body = n.to_string().repeat(1 << 18);
        poster.ask("", body.as_bytes());
        poster.ask("", b"-");
        assert_eq!(poster.answer().1["to"], 1);
        let told = std::fs::read(&path).expect("the file");
        assert_eq!(told.len(), 16 << 20);
        let there = told.chunks(4 << 10).any(|page| page.starts_with(&body.as_bytes()[..99]));
        assert!(there, "{n} is not there");
        assert_eq!(poster.answer().1["to"], 1);
        assert!(subscriber.frame() == body.as_bytes(), "frame {n}");
        assert_eq!(subscriber.frame(), b"-");
    }
    // Of many at once each is told once and answered.
    posters.iter_mut().enumerate().for_each(|(n, poster)| poster.ask("", &[b'a' + n as u8]));
    drop(posters.pop());
    posters.iter_mut().for_each(|poster| assert_eq!(poster.answer().1["to"], 1));
    // The eighth has left, perhaps before it was heard.
    let mut told: Vec<u8> = (0..7).map(|_| subscriber.frame()[0]).collect();
    told.sort_unstable();
    assert!(told.windows(2).all(|pair| pair[0] < pair[1]), "{told:?}");
}

#[test]
fn some_are_told_in_turn() {
    let address = start();
    let mut subscribers: Vec<_> = (0..5).map(|_| Client::subscriber(address)).collect();
    let mut poster = Client::new(address);
    for body in ["1", "2", "3"] {
        assert_eq!(poster.post("?to=2", body.as_bytes())["to"], 2);
    }
    assert_eq!(poster.post("?to=9", b"4")["to"], 5);
    for (subscriber, told) in
        subscribers.iter_mut().zip([["1", "3"], ["1", "4"], ["2", "4"], ["2", "4"], ["3", "4"]])
    {
        for body in told {
            assert_eq!(subscriber.frame(), body.as_bytes());
        }
    }
}

#[test]
fn what_a_socket_does_not_take_waits_for_it() {
    let address = start();
    let mut slow = Client::subscriber(address);
    let mut poster = Client::new(address);
    let body = |n: usize| n.to_string().repeat(1 << 18).into_bytes();
    let mut posted = 0;
    // No socket takes so much unread.
    while poster.status()["waiting_bytes"].as_u64() < Some(WAITING_BYTES as u64 / 2) {
        poster.post("", &body(posted % 10));
        posted += 1;
    }
    assert!(poster.status()["refused"].as_u64() > Some(0));
    for n in 0..posted {
        assert!(slow.frame() == body(n % 10), "frame {n}");
    }
    assert_eq!(poster.post("", b"x")["to"], 1);
    assert_eq!(slow.frame(), b"x");
    assert_eq!(poster.status()["waiting_bytes"], 0);
}

#[test]
fn a_poster_waits_where_too_much_waits() {
    let address = start();
    let mut slow = Client::subscriber(address);
    let (mut poster, mut other) = (Client::new(address), Client::new(address));
    let body = vec![b'x'; 60 << 20];
    poster.ask("", &body);
    poster.ask("", &body);
    assert_eq!(poster.answer().1["to"], 1);
    // The second is told, and its answer held.
    while other.status()["frames"] != 2 {}
    assert!(slow.frame() == body);
    assert!(slow.frame() == body);
    poster.answer();
    // The same where the one that was waited for goes away.
    poster.ask("", &body);
    poster.ask("", &body);
    poster.answer();
    drop(slow);
    poster.answer();
    assert_eq!(other.status()["subscribers"], 0);
    assert_eq!(other.status()["waiting_bytes"], 0);
}

#[test]
fn whoever_leaves_is_told_no_more() {
    let address = start();
    let mut subscribers: Vec<_> = (0..6).map(|_| Client::subscriber(address)).collect();
    let mut poster = Client::new(address);
    drop(subscribers.remove(2));
    // A close frame is a way to leave too.
    subscribers[0].write(&[0x88, 0x80, 0, 0, 0, 0]);
    while poster.status()["subscribers"] != 4 {}
    assert_eq!(subscribers.remove(0).0.read(&mut [0; 1]).expect("an end"), 0);
    assert_eq!(poster.post("", b"x")["to"], 4);
    subscribers.iter_mut().for_each(|subscriber| assert_eq!(subscriber.frame(), b"x"));
}

#[test]
fn what_is_not_spoken_ends_the_connection() {
    let mut client = Client::new(start());
    client.write(b"PUT / HTTP/1.1\r\n\r\n");
    assert!(client.answer().0.contains("405"));
    assert_eq!(client.0.read(&mut [0; 1]).expect("an end"), 0);
}
