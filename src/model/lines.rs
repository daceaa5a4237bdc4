//! Where in a JSON text each value stands, so that a problem can name its line.

use std::collections::HashMap;

/// JSON path (`fields[2].type`, empty for the whole) → 1-based line of the value or, for a member
/// of an object, of its key.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    lines: HashMap<String, usize>,
    /// Paths of keys that stand twice in one object, with the line of the second.
    pub duplicates: Vec<(String, usize)>,
}

impl Lines {
    /// Walks a text that a JSON parser has accepted. (On any other text the index is incomplete,
    /// nothing worse.)
    pub fn of(text: &str) -> Lines {
        let mut walk = Walk { bytes: text.as_bytes(), at: 0, line: 1, out: Lines::default() };
        walk.value(&mut String::new(), 0);
        walk.out
    }

    /// The line of `path`, or of the nearest value around it.
    pub fn line(&self, path: &str) -> Option<usize> {
        let mut path = path;
        loop {
            if let Some(line) = self.lines.get(path) {
                return Some(*line);
            }
            if path.is_empty() {
                return None;
            }
            path = &path[..path.rfind(['.', '[']).unwrap_or(0)];
        }
    }
}

/// Deeper than serde_json's own limit, so that this never decides.
const DEPTH: usize = 200;

struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    line: usize,
    out: Lines,
}

impl Walk<'_> {
    fn peek(&mut self) -> Option<u8> {
        while let Some(&byte) = self.bytes.get(self.at) {
            match byte {
                b'\n' => self.line += 1,
                b' ' | b'\t' | b'\r' => {}
                _ => return Some(byte),
            }
            self.at += 1;
        }
        None
    }

    fn value(&mut self, path: &mut String, depth: usize) {
        let Some(first) = self.peek() else { return };
        self.out.lines.entry(path.clone()).or_insert(self.line);
        match first {
            _ if depth > DEPTH => self.at = self.bytes.len(),
            b'{' => self.object(path, depth),
            b'[' => self.array(path, depth),
            b'"' => {
                self.string();
            }
            _ => {
                while let Some(byte) = self.bytes.get(self.at) {
                    if matches!(byte, b',' | b']' | b'}') || byte.is_ascii_whitespace() {
                        break;
                    }
                    self.at += 1;
                }
            }
        }
    }

    fn object(&mut self, path: &mut String, depth: usize) {
        self.at += 1;
        let mut seen: HashMap<String, ()> = HashMap::new();
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => {
                    let line = self.line;
                    let key = self.string();
                    let length = path.len();
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(&key);
                    if seen.insert(key, ()).is_some() {
                        self.out.duplicates.push((path.clone(), line));
                    }
                    self.out.lines.insert(path.clone(), line);
                    if self.peek() == Some(b':') {
                        self.at += 1;
                    }
                    self.value(path, depth + 1);
                    path.truncate(length);
                }
                b',' => self.at += 1,
                _ => {
                    self.at += 1;
                    return;
                }
            }
        }
    }

    fn array(&mut self, path: &mut String, depth: usize) {
        self.at += 1;
        let mut index = 0usize;
        while let Some(byte) = self.peek() {
            match byte {
                b']' => {
                    self.at += 1;
                    return;
                }
                b',' => {
                    self.at += 1;
                    index += 1;
                }
                b'}' | b':' => {
                    self.at = self.bytes.len();
                    return;
                }
                _ => {
                    let length = path.len();
                    path.push_str(&format!("[{index}]"));
                    self.value(path, depth + 1);
                    path.truncate(length);
                }
            }
        }
    }

    /// The unescaped text of the string that begins here.
    fn string(&mut self) -> String {
        let start = self.at;
        self.at += 1;
        while let Some(&byte) = self.bytes.get(self.at) {
            self.at += 1;
            match byte {
                b'\\' => self.at += 1,
                b'"' => break,
                _ => {}
            }
        }
        let end = self.at.min(self.bytes.len());
        serde_json::from_slice(&self.bytes[start..end]).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_lines_and_duplicates() {
        let lines =
            Lines::of("{\n \"a\": [1,\n  {\"b\": {}}],\n \"c\\u0064\": \"x\\\"y\",\n \"a\": 2\n}");
        assert_eq!(lines.line("a"), Some(5));
        assert_eq!(lines.line("a[1].b"), Some(3));
        assert_eq!(lines.line("cd"), Some(4));
        assert_eq!(lines.line("a[1].b.nothing[3].here"), Some(3));
        assert_eq!(lines.line("zzz"), Some(1));
        assert_eq!(lines.duplicates, [("a".to_string(), 5)]);
    }

    #[test]
    fn ends_on_any_text() {
        for text in ["", "{", "[}", "{]", "[[[", "\"\\", "{\"a\"", "[1 2", "{\"a\":}", "[:"] {
            Lines::of(text);
        }
        Lines::of(&"[".repeat(100_000));
    }
}
