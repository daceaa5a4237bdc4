//! What goes out, and how it ends.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::model::cursor::Cursor;

/// How a connection ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    pub code: u16,
    /// Cut to 123 bytes when sent.
    pub reason: Arc<str>,
}

impl Close {
    pub fn new(code: u16, reason: impl Into<Arc<str>>) -> Self {
        Close { code, reason: reason.into() }
    }

    /// For a reader that was too slow: the same, with where to go on.
    pub fn resume_from(&self, cursor: Cursor) -> Self {
        Close::new(self.code, format!("{}; resume from {cursor}", self.reason))
    }
}

/// The code of a close whose reason names the cursor to resume from, where there are cursors.
pub const TOO_SLOW: u16 = 4408;

/// Bytes for the wire, and what a client that has read them may resume from; shared by all who
/// get them.
///
/// Behind one pointer, as each stands in a thousand queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame(Arc<Framed>);

/// Bytes of all frames that there are.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// Bytes of all frames that somebody in this process holds, each counted once whoever shares it.
pub fn held() -> usize {
    HELD.load(Ordering::Relaxed)
}

/// What a [`Frame`] is.
#[derive(Debug, PartialEq, Eq)]
pub struct Framed {
    /// Finished, framing included; never empty.
    pub bytes: Bytes,
    cursor: Option<Cursor>,
}

impl Frame {
    /// A frame that carries this cursor.
    pub fn new(bytes: Bytes, cursor: Option<Cursor>) -> Self {
        HELD.fetch_add(bytes.len(), Ordering::Relaxed);
        Frame(Arc::new(Framed { bytes, cursor }))
    }

    /// The cursor that it carries: it ends a commit, or tells a position.
    pub fn cursor(&self) -> Option<Cursor> {
        self.0.cursor
    }

    /// Whether nobody else holds it.
    pub fn is_alone(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl Drop for Framed {
    fn drop(&mut self) {
        HELD.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

impl Deref for Frame {
    type Target = Framed;

    fn deref(&self) -> &Framed {
        &self.0
    }
}

impl From<Bytes> for Frame {
    /// A frame without a cursor.
    fn from(bytes: Bytes) -> Self {
        Frame::new(bytes, None)
    }
}

/// Bytes of frames.
pub fn size(frames: &[Frame]) -> usize {
    frames.iter().map(|frame| frame.bytes.len()).sum()
}
