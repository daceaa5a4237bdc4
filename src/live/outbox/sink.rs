//! Where an outbox may write by itself.

use std::io::{self, IoSlice};
use std::os::fd::RawFd;

/// A socket that takes bytes without waiting.
pub trait Sink: Send + Sync {
    /// Takes some of the bytes, in order, and says how many.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] where it takes none now: then the connection's own task waits
    /// until it does. Any other is the socket's end.
    fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Its descriptor, the same and open as long as the sink lives, where a [`Carrier`] may send
    /// what `try_write_vectored` would.
    fn fd(&self) -> Option<RawFd> {
        None
    }
}

/// One write of many.
pub struct Write<'a> {
    /// Where to.
    pub sink: &'a dyn Sink,
    /// What [`Sink::fd`] says.
    pub fd: Option<RawFd>,
    /// What; never empty, no more than 64 slices.
    pub bufs: &'a [IoSlice<'a>],
}

/// Makes many writes at once.
pub trait Carrier: Send {
    /// Makes each of the writes as [`Sink::try_write_vectored`] of its sink would, in any order,
    /// and puts what became of it in its place of `results`, which are as many. What it leaves
    /// untouched there was not written. Nothing of the writes is used any more when it returns.
    fn carry(&mut self, writes: &[Write<'_>], results: &mut [io::Result<usize>]);
}
