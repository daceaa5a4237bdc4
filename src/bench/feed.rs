//! What is written and who should hear of it, by scenario.

use super::record::Record;

/// Who subscribes to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Nobody listens.
    Nobody,
    /// All to everything.
    All,
    /// Each to a number of its own, out of so many.
    Distinct(u64),
    /// All to this number, which every record has.
    Number(u64),
    /// To one of [`MIXED`] compound filters, with a selection.
    Mixed,
}

/// How many compound filters there are.
pub const MIXED: u32 = 20;

impl Audience {
    /// How many classes of subscribers there are.
    pub fn classes(self) -> u32 {
        match self {
            Audience::Nobody => 0,
            Audience::All | Audience::Number(_) => 1,
            Audience::Distinct(number) => u32::try_from(number).unwrap_or(u32::MAX),
            Audience::Mixed => MIXED,
        }
    }

    /// What a class asks for, behind `schema=…&event=create`.
    pub fn query(self, class: u32) -> String {
        match self {
            Audience::Nobody | Audience::All => String::new(),
            Audience::Distinct(_) => {
                format!("&filter={}", encode(&format!(r#"{{"number":{class}}}"#)))
            }
            Audience::Number(number) => {
                format!("&filter={}", encode(&format!(r#"{{"number":{number}}}"#)))
            }
            Audience::Mixed => {
                let (kind, least) = (class % 10, class / 10 * 50);
                let filter = format!(
                    r#"{{"kind":{kind},"number":{{"$gte":{least},"$lt":1000}},"$or":[{{"status":"open"}},{{"title":{{"$like":"Reading %"}}}}]}}"#
                );
                format!("&filter={}&select=sequence,sent,number,title,content", encode(&filter))
            }
        }
    }

    /// The classes that a record concerns.
    pub fn concerned(self, record: &Record) -> impl Iterator<Item = u32> + use<> {
        // Below the largest class.
        let (kind, number) = (record.kind as u32, record.number as u32);
        let (one, other) = match self {
            Audience::Nobody => (None, None),
            Audience::All | Audience::Number(_) => (Some(0), None),
            Audience::Distinct(_) => (Some(number), None),
            Audience::Mixed => (Some(kind), (number >= 50).then_some(10 + kind)),
        };
        one.into_iter().chain(other)
    }
}

/// The records of one server, one after the other.
pub struct Feed {
    pub audience: Audience,
    sequence: u64,
    random: u64,
}

impl Feed {
    pub fn new(audience: Audience, seed: u64) -> Feed {
        Feed { audience, sequence: 0, random: seed }
    }

    /// The next one.
    pub fn next(&mut self) -> Record {
        self.sequence += 1;
        // splitmix64: any seed will do.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.random;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^= number >> 31;
        let among = match self.audience {
            Audience::Distinct(many) => many.max(1),
            _ => 100,
        };
        let number = match self.audience {
            Audience::Number(number) => number,
            _ => number % among,
        };
        Record { sequence: self.sequence, kind: self.sequence % 10, number }
    }
}

/// For a query string.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~,:".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
