//! The little of HTTP and WebSocket that a load generator reads, over bytes as they come.

/// A server's frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub opcode: u8,
    pub payload: &'a [u8],
    /// Header and payload.
    pub length: usize,
}

/// The first frame, if all of it is there.
pub fn frame(bytes: &[u8]) -> Option<Frame<'_>> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (start, length) = match second {
        126 => (4, u64::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?))),
        127 => (10, u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?)),
        short => (2, u64::from(short)),
    };
    let end = usize::try_from(length).ok()?.checked_add(start)?;
    let payload = bytes.get(start..end)?;
    Some(Frame { opcode: first & 0x0f, payload, length: end })
}

/// An answer's head, and how long the whole answer is.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub head: usize,
    pub length: usize,
}

/// The first answer, if its head is there. The body is as long as `Content-Length` says; after 101
/// there is none.
pub fn answer(bytes: &[u8]) -> Option<Answer> {
    let head = memchr::memmem::find(bytes, b"\r\n\r\n")? + 4;
    let status = bytes.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
    let status = status.and_then(|digits| digits.parse().ok()).unwrap_or_default();
    let body = match status {
        101 => 0,
        _ => content_length(&bytes[..head]).unwrap_or_default(),
    };
    Some(Answer { status, head, length: head + body })
}

fn content_length(head: &[u8]) -> Option<usize> {
    let name = b"content-length:";
    head.split(|byte| *byte == b'\n')
        .find(|line| line.len() > name.len() && line[..name.len()].eq_ignore_ascii_case(name))
        .and_then(|line| std::str::from_utf8(&line[name.len()..]).ok()?.trim().parse().ok())
}

/// Code and reason of a closing frame.
pub fn close(payload: &[u8]) -> (u16, String) {
    let code = payload.first_chunk().map_or(1005, |two| u16::from_be_bytes(*two));
    (code, String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned())
}

/// An empty pong, masked with zeros.
pub const PONG: [u8; 6] = [0x8a, 0x80, 0, 0, 0, 0];

/// A close with code 1000, masked with zeros.
pub const CLOSE: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_every_length() {
        for length in [0_usize, 1, 125, 126, 410, 65_535, 65_536] {
            let mut bytes = vec![0x81];
            match length {
                0..=125 => bytes.push(length as u8),
                126..=65_535 => {
                    bytes.push(126);
                    bytes.extend_from_slice(&(length as u16).to_be_bytes());
                }
                _ => {
                    bytes.push(127);
                    bytes.extend_from_slice(&(length as u64).to_be_bytes());
                }
            }
            bytes.extend(std::iter::repeat_n(b'x', length));
            for cut in [0, 1, 2, 9, bytes.len() - 1] {
                if cut < bytes.len() {
                    assert_eq!(frame(&bytes[..cut]), None, "{length}: {cut}");
                }
            }
            bytes.push(0x89);
            let whole = frame(&bytes).expect("a frame");
            assert_eq!((whole.opcode, whole.payload.len()), (1, length));
            assert_eq!(whole.length, bytes.len() - 1);
        }
        assert_eq!(frame(&[0x81, 127, 255, 255, 255, 255, 255, 255, 255, 255, 0]), None);
    }

    #[test]
    fn answers() {
        let text = b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-LENGTH: 12\r\n\r\n{";
        let whole = answer(text).expect("a head");
        assert_eq!((whole.status, whole.length - whole.head), (200, 12));
        assert_eq!(answer(&text[..30]), None);
        let upgraded = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x00";
        let upgraded = answer(upgraded).expect("a head");
        assert_eq!((upgraded.status, upgraded.head), (101, upgraded.length));
    }

    #[test]
    fn closes() {
        assert_eq!(close(b"\x11\x38slow"), (4408, "slow".to_owned()));
        assert_eq!(close(b""), (1005, String::new()));
    }
}
