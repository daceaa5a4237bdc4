//! The records that are written, and what is read of them when they come back.

use std::io::Write as _;

use memchr::memmem;

/// Added to every time, so that all have the same number of digits.
const BASE: u64 = 1_000_000_000_000;

/// Fills a record up to the size that others were measured with: about 410 bytes in its frame.
pub const TEXT: &str = "Water level at the gauge rose by four centimetres within the last hour; the \
                    gates at the upper weir stay half open until the readings of the evening have come in.";

/// One record, before it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Counts all records that one bench writes to one server, from 1.
    pub sequence: u64,
    /// 0 to 9, in turn.
    pub kind: u64,
    /// Whom it is for among many; 0 to 99 otherwise.
    pub number: u64,
}

/// A schema file of this name. The sequence number and the time come first, where they are found
/// soonest.
pub fn schema(name: &str) -> String {
    serde_json::json!({
        "name": name, "namespace": format!("{name}s"), "label_field": "title",
        "fields": [
            {"name": "sequence", "type": "int64"},
            {"name": "sent", "type": "int64"},
            {"name": "kind", "type": "int"},
            {"name": "number", "type": "int"},
            {"name": "status", "type": "enum", "enums": [
                {"value": "open", "label": "Open"}, {"value": "closed", "label": "Closed"}]},
            {"name": "title", "type": "string"},
            {"name": "content", "type": "text"},
        ],
    })
    .to_string()
}

/// The same for every user to read.
pub fn open_schema(name: &str) -> String {
    let closed = serde_json::from_str::<serde_json::Value>(&schema(name));
    let mut open = closed.unwrap_or_default();
    open["access"] = serde_json::json!({"user": {"read": true}});
    open.to_string()
}

impl Record {
    /// The body that creates it; `sent` in nanoseconds since the bench began.
    pub fn create(&self, sent: u64, body: &mut Vec<u8>) {
        let Record { sequence, kind, number } = self;
        let status = if self.is_open() { "open" } else { "closed" };
        let sent = BASE + sent;
        // Into memory: it cannot fail.
        let _ = write!(
            body,
            "{{\"sequence\":{sequence},\"sent\":{sent},\"kind\":{kind},\"number\":{number},\
             \"status\":\"{status}\",\"title\":\"Reading {number} of station {kind}\",\
             \"content\":\"{TEXT}\"}}"
        );
    }

    /// A message about it such as the server sends, where no server has sent one.
    pub fn message(&self) -> Vec<u8> {
        let mut body = Vec::new();
        self.create(0, &mut body);
        [br#"{"event":"create","data":{"id":0,"#, &body[1..], b"}"].concat()
    }

    /// Whether its status is `open`.
    pub fn is_open(&self) -> bool {
        !self.sequence.is_multiple_of(4)
    }
}

/// What a message says of its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    pub id: u64,
    pub sequence: u64,
    /// As given to [`Record::create`].
    pub sent: u64,
}

/// Reads a message; nothing where it is about no record of ours.
pub fn told(message: &[u8]) -> Option<Told> {
    let (_, id, after) = number(message, br#""id":"#)?;
    let (_, sequence, more) = number(&message[after..], br#""sequence":"#)?;
    let (_, sent, _) = number(&message[after + more..], br#""sent":"#)?;
    Some(Told { id, sequence, sent: sent.checked_sub(BASE)? })
}

/// The number behind these words: where its digits begin, what it is, where they end.
fn number(bytes: &[u8], words: &[u8]) -> Option<(usize, u64, usize)> {
    let from = memmem::find(bytes, words)? + words.len();
    let digits = bytes[from..].iter().take_while(|byte| byte.is_ascii_digit());
    let mut value = 0_u64;
    let mut end = from;
    for digit in digits {
        value = value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
        end += 1;
    }
    (end > from).then_some((from, value, end))
}

/// A message of the server's, to be repeated with other numbers: what the floor sends.
pub struct Template {
    before_id: Vec<u8>,
    before_sequence: Vec<u8>,
    before_sent: Vec<u8>,
    rest: Vec<u8>,
}

impl Template {
    /// Learns from a message; nothing where it is about no record of ours.
    pub fn of(message: &[u8]) -> Option<Template> {
        let (id, _, after_id) = number(message, br#""id":"#)?;
        let (sequence, _, after_sequence) = number(&message[after_id..], br#""sequence":"#)?;
        let behind = after_id + after_sequence;
        let (sent, _, after_sent) = number(&message[behind..], br#""sent":"#)?;
        Some(Template {
            before_id: message[..id].to_vec(),
            before_sequence: message[after_id..after_id + sequence].to_vec(),
            before_sent: message[behind..behind + sent].to_vec(),
            rest: message[behind + after_sent..].to_vec(),
        })
    }

    /// The message with another record's numbers; its id is its sequence number.
    pub fn message(&self, sequence: u64, sent: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.before_id);
        let _ = write!(out, "{sequence}");
        out.extend_from_slice(&self.before_sequence);
        let _ = write!(out, "{sequence}");
        out.extend_from_slice(&self.before_sent);
        let _ = write!(out, "{}", BASE + sent);
        out.extend_from_slice(&self.rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let record = Record { sequence: 7, kind: 3, number: 42 };
        let message = record.message();
        serde_json::from_slice::<serde_json::Value>(&message).expect("JSON");
        assert_eq!(told(&message), Some(Told { id: 0, sequence: 7, sent: 0 }));
        assert_eq!(told(br#"{"event":"position","cursor":"x"}"#), None);

        let mut other = Vec::new();
        Template::of(&message).expect("a template").message(8, 5_000, &mut other);
        assert_eq!(told(&other), Some(Told { id: 8, sequence: 8, sent: 5_000 }));
        assert_eq!(other.len(), message.len());
    }
}
