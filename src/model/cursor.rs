//! A place in the log as clients hold it: opaque to them, checked by the server alone.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::error::{Error, clip};

/// First byte of a cursor: another layout gets another number.
const VERSION: u8 = 1;

/// An entry of the log and the grant under which it was told.
///
/// It is good when the entry at `position` is in the log with that `stamp`, and the grant's
/// fingerprint is still the same; what holds it against the log answers 410 otherwise.
///
/// As text it is 34 characters of base64url, without padding: version, then the three numbers.
///
/// ```
/// use rowcast::model::cursor::Cursor;
///
/// let cursor = Cursor { position: 7, stamp: 0x1234, grant: 99 };
/// let text = cursor.to_string();
/// assert_eq!(text.parse::<Cursor>().unwrap(), cursor);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// 0: before the first entry.
    pub position: u64,
    /// Random bits of that entry; 0 at position 0.
    pub stamp: u64,
    /// Fingerprint of the grant.
    pub grant: u64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [VERSION; 25];
        for (place, number) in
            bytes[1..].chunks_exact_mut(8).zip([self.position, self.stamp, self.grant])
        {
            place.copy_from_slice(&number.to_be_bytes());
        }
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for Cursor {
    type Err = Error;

    /// 400 where the text is no cursor at all. Whether a cursor is good is the log's to say.
    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || {
            Error::bad(format!("'{}' is no cursor; use one that this server has sent", clip(text)))
        };
        let mut bytes = [0; 25];
        // Only 34 characters are ever decoded.
        if text.len() != 34 || URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) != Ok(25) {
            return Err(wrong());
        }
        if bytes[0] != VERSION {
            return Err(wrong());
        }
        let number = |index: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[1 + 8 * index..][..8]);
            u64::from_be_bytes(number)
        };
        Ok(Cursor { position: number(0), stamp: number(1), grant: number(2) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for number in [0, 1, 0xff, u64::MAX / 3, u64::MAX] {
            let cursor = Cursor { position: number, stamp: !number, grant: number / 7 };
            let text = cursor.to_string();
            assert_eq!(text.len(), 34);
            let url = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
            assert!(text.chars().all(url), "{text}");
            assert_eq!(text.parse::<Cursor>().unwrap(), cursor);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let good = Cursor { position: 1, stamp: 2, grant: 3 }.to_string();
        let other_version = format!("Ag{}", &good[2..]);
        let padded = format!("{good}==");
        let spaced = format!(" {good}");
        let long = "A".repeat(100_000);
        let umlaut = format!("ü{}", &good[2..]);
        let bad = ["", "0", "now", &good[1..], &other_version, &padded, &spaced, &long, &umlaut];
        for text in bad {
            let error = text.parse::<Cursor>().unwrap_err();
            assert_eq!(error.status(), 400, "{text:.40}");
            assert!(error.message.len() < 400, "{}", error.message.len());
        }
        // 25 bytes fill 34 characters but for four bits, which must be zero: one text a cursor.
        let stray = format!("{}D", &good[..33]);
        assert!(stray.parse::<Cursor>().is_err());
    }
}
