//! A server of one subscriber, as far as the bench looks, that does one thing wrong.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value as Json;

/// What a server does wrong, at which sequence number.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub skipped: Option<u64>,
    pub doubled: Option<u64>,
    /// Told behind the next one.
    pub late: Option<u64>,
    /// Told with a number that nobody wrote.
    pub foreign: Option<u64>,
    /// The connection is closed after it.
    pub closed: Option<u64>,
}

/// Serves on a port of this listener's.
pub fn serve(listener: TcpListener, faults: Faults) -> SocketAddr {
    let address = listener.local_addr().expect("an address");
    let subscriber = Arc::new(Mutex::new(Subscriber::default()));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let subscriber = subscriber.clone();
            std::thread::spawn(move || answer(stream, &subscriber, faults));
        }
    });
    address
}

#[derive(Default)]
struct Subscriber {
    stream: Option<TcpStream>,
    late: VecDeque<Vec<u8>>,
}

fn answer(mut stream: TcpStream, subscriber: &Mutex<Subscriber>, faults: Faults) {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let head = loop {
            if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            match stream.read(&mut chunk) {
                Ok(0) | Err(_) => return,
                Ok(length) => bytes.extend_from_slice(&chunk[..length]),
            }
        };
        let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
        let address = stream.local_addr().expect("an address");
        assert!(text.contains(&format!("\r\nhost: {address}\r\n")), "{text}");
        if text.contains("upgrade: websocket") {
            let upgraded = "HTTP/1.1 101 Switching Protocols\r\n\r\n";
            // Nothing is told meanwhile: what is written after the answer is heard.
            let mut subscriber = subscriber.lock().expect("subscriber");
            stream.write_all(upgraded.as_bytes()).expect("answered");
            subscriber.stream = Some(stream);
            return;
        }
        let length = text.split_once("content-length: ").map_or(0, |(_, rest)| {
            rest.lines().next().expect("a line").trim().parse().expect("a length")
        });
        while bytes.len() < head + length {
            let length = stream.read(&mut chunk).expect("a body");
            bytes.extend_from_slice(&chunk[..length]);
        }
        let body = String::from_utf8_lossy(&bytes[head..head + length]).into_owned();
        bytes.drain(..head + length);
        if text.starts_with("post /api/content/") {
            subscriber.lock().expect("subscriber").tell(&body, faults);
        }
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{\"data\":{}}";
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

impl Subscriber {
    fn tell(&mut self, body: &str, faults: Faults) {
        let record: Json = serde_json::from_str(body).expect("a record");
        let number = record["sequence"].as_u64().expect("a number");
        let frame = |number: u64| {
            let sent = &record["sent"];
            let text = format!(r#"{{"data":{{"id":{number},"sequence":{number},"sent":{sent}}}}}"#);
            [&[0x81, text.len() as u8], text.as_bytes()].concat()
        };
        let mut frames = VecDeque::new();
        match Some(number) {
            skipped if skipped == faults.skipped => {}
            late if late == faults.late => self.late.push_back(frame(number)),
            doubled if doubled == faults.doubled => {
                frames.extend([frame(number), frame(number)]);
            }
            foreign if foreign == faults.foreign => {
                frames.extend([frame(number), frame(1_000_000)]);
            }
            closed if closed == faults.closed => {
                frames.extend([frame(number), b"\x88\x06\x11\x38slow".to_vec()]);
            }
            _ => {
                frames.push_back(frame(number));
                frames.append(&mut self.late);
            }
        }
        let Some(stream) = &mut self.stream else { return };
        for frame in frames {
            // It leaves when it was told to.
            let _ = stream.write_all(&frame);
        }
    }
}
