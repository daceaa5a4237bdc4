//! Where an outbox may write by itself.

use std::io::{self, IoSlice};
use std::sync::Arc;

use super::Outbox;

/// A socket that takes bytes without waiting.
pub trait Sink: Send + Sync {
    /// Takes some of the bytes, in order, and says how many.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] where it takes none now: then the connection's own task waits
    /// until it does. Any other is the socket's end.
    fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize>;
}

/// Writes what waits in these outboxes, as far as their sockets take it, and forgets them.
///
/// All that a round of telling puts out passes here: sockets outside, the frames of many commits
/// inside.
pub fn flush(due: &mut Vec<Arc<Outbox>>) {
    for outbox in due.drain(..) {
        outbox.flush();
    }
}
