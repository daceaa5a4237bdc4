//! Messages → lines: whole commits only, so that a lost connection leaves no line twice.

use serde::Deserialize;
use serde::de::IgnoredAny;

/// What a message says beside its records.
#[derive(Deserialize)]
struct Head<'a> {
    event: &'a str,
    #[serde(default)]
    complete: bool,
    #[serde(default)]
    cursor: Option<String>,
    #[serde(default, rename = "data")]
    _data: IgnoredAny,
}

/// What was heard and not printed yet, and where to go on.
#[derive(Debug, Default)]
pub struct Lines {
    /// Print cursors, and positions that come alone.
    with_cursors: bool,
    /// Everything up to here was given out.
    cursor: Option<String>,
    /// Of a commit whose last message has not come.
    pending: Vec<String>,
    /// In the pages of a snapshot, which carry no cursor.
    in_snapshot: bool,
}

/// Whether a line tells a position alone, which is no message of a commit.
pub fn is_position(line: &str) -> bool {
    line.starts_with(r#"{"event":"position""#)
}

impl Lines {
    /// `cursor`: where the stream begins, if that is known.
    pub fn new(with_cursors: bool, cursor: Option<String>) -> Self {
        Lines { with_cursors, cursor, ..Lines::default() }
    }

    /// Takes a message; gives the lines that may be printed now.
    pub fn take(&mut self, text: &str) -> Vec<String> {
        let Ok(head) = serde_json::from_str::<Head<'_>>(text) else {
            // Not one of ours; a newer server's, maybe.
            return vec![text.to_owned()];
        };
        let Some(cursor) = head.cursor else {
            self.in_snapshot |= head.event == "init" && !head.complete;
            if self.in_snapshot {
                // As long as the table is: it cannot wait for its cursor.
                return vec![text.to_owned()];
            }
            self.pending.push(text.to_owned());
            return Vec::new();
        };
        self.in_snapshot = false;
        let mut lines = std::mem::take(&mut self.pending);
        match self.with_cursors {
            true => lines.push(text.to_owned()),
            // The cursor is always the last thing in a message.
            false if head.event != "position" => {
                let end = format!(",\"cursor\":\"{cursor}\"}}");
                lines.push(match text.strip_suffix(&end) {
                    Some(rest) => format!("{rest}}}"),
                    None => text.to_owned(),
                });
            }
            false => {}
        }
        self.cursor = Some(cursor);
        lines
    }

    /// Where to go on after the connection was lost; what came of a commit that did not come
    /// whole is forgotten. `None`: that is not known, or in the middle of a snapshot.
    pub fn resume(&mut self) -> Option<&str> {
        self.pending.clear();
        if self.in_snapshot { None } else { self.cursor.as_deref() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_given_out_whole() {
        let mut lines = Lines::new(false, None);
        assert_eq!(lines.resume(), None);
        assert!(lines.take(r#"{"event":"position","cursor":"a"}"#).is_empty());
        let one = r#"{"event":"create","data":{"text":"\"cursor\":\"x\"","n":9007199254740993}}"#;
        assert!(lines.take(one).is_empty());
        let two = r#"{"event":"update","data":[{"id":1}],"changed":["n"],"cursor":"b"}"#;
        let bare = r#"{"event":"update","data":[{"id":1}],"changed":["n"]}"#;
        assert_eq!(lines.take(two), [one, bare]);
        assert_eq!(lines.resume(), Some("b"));
        assert!(lines.take(one).is_empty());
        assert_eq!(lines.resume(), Some("b"), "half a commit is forgotten");
        assert_eq!(lines.take(two), [bare]);

        let mut lines = Lines::new(true, Some("z".into()));
        assert_eq!(lines.resume(), Some("z"));
        let position = r#"{"event":"position","cursor":"a"}"#;
        assert_eq!(lines.take(position), [position]);
        assert_eq!(lines.take(two), [two]);
        assert!(is_position(position) && !is_position(two));
    }

    #[test]
    fn a_snapshot_is_given_out_as_it_comes_and_cannot_be_resumed() {
        let mut lines = Lines::new(false, None);
        let page = r#"{"event":"init","data":[],"complete":false}"#;
        let between = r#"{"event":"leave","data":[]}"#;
        assert_eq!(lines.take(page), [page]);
        assert_eq!(lines.take(between), [between]);
        assert_eq!(lines.resume(), None);
        let last = r#"{"event":"init","data":[],"complete":true,"cursor":"a"}"#;
        assert_eq!(lines.take(last), [r#"{"event":"init","data":[],"complete":true}"#]);
        assert_eq!(lines.resume(), Some("a"));
        assert!(lines.take(between).is_empty());
    }
}
