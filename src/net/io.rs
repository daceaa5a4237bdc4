//! The transport under a connection.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::task::{Context, Poll, ready};

use rustix::net::{SendFlags, Shutdown};
use tokio::net::{TcpStream, UnixStream};

use crate::live::outbox::Sink;

/// The transport under a connection.
#[derive(Debug)]
pub enum Io {
    /// Over the network.
    Tcp(TcpStream),
    /// Over the owner's socket.
    Unix(UnixStream),
}

impl Io {
    /// Reads what has come; 0 at the end of the stream. The task is woken when more comes.
    ///
    /// # Errors
    /// The socket's end.
    pub(super) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_read_ready(cx))?;
            match self.try_read(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read),
            }
        }
    }

    /// Ready when there may be something to read.
    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Io::Tcp(io) => io.poll_read_ready(cx),
            Io::Unix(io) => io.poll_read_ready(cx),
        }
    }

    fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Io::Tcp(io) => io.try_read(buf),
            Io::Unix(io) => io.try_read(buf),
        }
    }

    /// Ready when the socket may take more; after a write that it did not take.
    pub(super) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Io::Tcp(io) => io.poll_write_ready(cx),
            Io::Unix(io) => io.poll_write_ready(cx),
        }
    }

    /// Writes what the socket takes, for the connection's task.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] where it takes nothing: [`Io::poll_write_ready`] tells when it
    /// may. Any other is the socket's end.
    pub(super) fn try_write(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Io::Tcp(io) => io.try_write_vectored(bufs),
            Io::Unix(io) => io.try_write_vectored(bufs),
        }
    }

    /// Says that nothing follows; a client that is gone need not hear it.
    pub(super) fn shutdown(&self) {
        let _ = rustix::net::shutdown(self, Shutdown::Write);
    }
}

/// For whoever fans out: the socket itself is asked, and not what tokio last heard of it. That
/// spares a cache line a delivery, and a runtime that is late with its events closes nobody as too
/// slow. The task, which is woken for what is left, asks through tokio and so waits rightly.
impl Sink for Io {
    fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = match bufs {
            // A broken pipe is no signal to a Rust program.
            [one] => rustix::net::send(self, one, SendFlags::DONTWAIT),
            // Both transports are non-blocking.
            many => rustix::io::writev(self, many),
        };
        Ok(written?)
    }

    fn fd(&self) -> Option<RawFd> {
        Some(self.as_fd().as_raw_fd())
    }
}

impl AsFd for Io {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Io::Tcp(io) => io.as_fd(),
            Io::Unix(io) => io.as_fd(),
        }
    }
}
