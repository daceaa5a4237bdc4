//! WebSocket frames as a server sends them: built once, shared by every socket.
//!
//! A server's frames are not masked (RFC 6455, 5.1), so the header belongs to the shared bytes.

use bytes::Bytes;

use super::outbox::Close;

/// Room for the longest header before the payload, whose length is known only afterwards.
const HEAD: usize = 10;
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
/// The longest reason: a control frame carries 125 bytes, two of them the code.
pub const REASON_BYTES: usize = 123;

/// A text frame; `write` appends the payload (UTF-8). `capacity` is a guess at its length.
pub fn text(capacity: usize, write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut bytes = Vec::with_capacity(HEAD + capacity);
    bytes.resize(HEAD, 0);
    write(&mut bytes);
    let length = bytes.len() - HEAD;
    let start = match length {
        0..=125 => {
            bytes[HEAD - 1] = length as u8;
            HEAD - 2
        }
        126..=0xffff => {
            bytes[HEAD - 3] = 126;
            bytes[HEAD - 2..HEAD].copy_from_slice(&(length as u16).to_be_bytes());
            HEAD - 4
        }
        _ => {
            bytes[1] = 127;
            bytes[2..HEAD].copy_from_slice(&(length as u64).to_be_bytes());
            0
        }
    };
    bytes[start] = TEXT;
    Bytes::from(bytes).slice(start..)
}

/// An empty ping.
pub fn ping() -> Bytes {
    Bytes::from_static(&[PING, 0])
}

/// A closing frame; its reason is cut to what one may carry, between characters.
pub fn close(close: &Close) -> Bytes {
    let reason = cut(&close.reason);
    let mut bytes = Vec::with_capacity(4 + reason.len());
    bytes.extend_from_slice(&[CLOSE, 2 + reason.len() as u8]);
    bytes.extend_from_slice(&close.code.to_be_bytes());
    bytes.extend_from_slice(reason.as_bytes());
    bytes.into()
}

/// The answer to a client's close without a code.
pub fn bare_close() -> Bytes {
    Bytes::from_static(&[CLOSE, 0])
}

fn cut(reason: &str) -> &str {
    let ends = reason.char_indices().map(|(at, char)| at + char.len_utf8());
    &reason[..ends.take_while(|end| *end <= REASON_BYTES).last().unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_fits_the_length() {
        for (length, head) in [
            (0, vec![0x81, 0]),
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (0xffff, vec![0x81, 126, 0xff, 0xff]),
            (0x10000, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let frame = text(0, |out| out.resize(out.len() + length, b'x'));
            assert_eq!(&frame[..head.len()], head, "{length}");
            assert_eq!(frame.len(), head.len() + length);
        }
    }

    #[test]
    fn a_reason_is_cut_between_characters() {
        let frame = close(&Close { code: 4400, reason: "ä".repeat(100).into() });
        assert_eq!(frame.len(), 4 + 122);
        assert_eq!(frame[1], 124);
        assert!(std::str::from_utf8(&frame[4..]).is_ok());
        let frame = close(&Close { code: 4400, reason: "x".repeat(123).into() });
        assert_eq!(frame.len(), 4 + 123);
    }
}
