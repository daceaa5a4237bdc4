//! Many sends in one call of the kernel (io_uring).
//!
//! A thousand sockets get the same frame: by `send` that is a thousand calls, each of which enters
//! the kernel, takes a reference to the file and lets go of it. Handed over together they cost 4.5
//! us each instead of 5.7 (loopback, 1,000 sockets, sixteen or more at once), where a bare loop of
//! `write` in a process of one thread takes 5.7 too. Registered files, larger rounds and the
//! ring's other modes gained nothing.
//!
//! Each send is marked as one that does not wait, so the kernel makes it at once, within the call,
//! and a full socket is told as such. So nothing stays under way, but nothing here relies on that:
//! a round ends when as many completions have come as sends were handed over. That is why the
//! module may use `unsafe`: the kernel is given pointers to bytes that are borrowed for the round
//! alone. Should it neither complete them nor take them, the process ends.
//!
//! Where the kernel refuses a ring (old ones, `kernel.io_uring_disabled`, the filters of many
//! container runtimes) there is none, and sockets are written one by one.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use io_uring::{IoUring, opcode, squeue, types};

use crate::live::outbox::{Carrier, Sink, Write};

/// Sends of one round. The queue of completions is twice as long, so none is ever without a place.
const ENTRIES: u32 = 64;

/// How often a call that the kernel has no memory for is made again, and after which pause.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(1);

/// They do not wait, and a broken pipe is no signal.
const FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;

/// A ring, empty between two rounds.
pub struct Ring {
    /// `None` once the kernel has failed it: from then on sockets are written one by one.
    ring: Option<IoUring>,
    enter: Enter,
}

/// Hands over what is queued and waits for so many completions.
type Enter = fn(&IoUring, usize) -> io::Result<usize>;

/// What was handed over, or is about to be, and has not completed. The bytes may go only when
/// that is nothing.
struct Flight(usize);

impl Drop for Flight {
    fn drop(&mut self) {
        if self.0 > 0 {
            tracing::error!("{} sends neither completed nor failed: ending the process", self.0);
            std::process::abort();
        }
    }
}

impl Ring {
    /// Opens a ring and tries it.
    ///
    /// # Errors
    /// What the kernel says who refuses one, or a kind of send.
    pub fn open() -> io::Result<Ring> {
        let mut ring = Ring { ring: Some(IoUring::new(ENTRIES)?), enter: IoUring::submit_and_wait };
        let (ours, theirs) = UnixStream::pair()?;
        let fd = Some(ours.as_raw_fd());
        let bytes = [0; 2];
        let bufs = [io::IoSlice::new(&bytes), io::IoSlice::new(&bytes)];
        let writes = [&bufs[..1], &bufs].map(|bufs| Write { sink: &Untried, fd, bufs });
        let mut results = [const { Ok(0) }; 2];
        ring.round(&writes, &mut results);
        drop(theirs);
        match results {
            [Ok(2), Ok(4)] => Ok(ring),
            [Err(error), _] | [_, Err(error)] => Err(error),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Makes these writes, no more than [`ENTRIES`].
    fn round(&mut self, writes: &[Write<'_>], results: &mut [io::Result<usize>]) {
        results.iter_mut().for_each(|result| *result = Err(UNMADE.into()));
        if let Some(ring) = &mut self.ring
            && let Err(error) = submit(ring, self.enter, writes, results)
        {
            tracing::warn!("io_uring: {error}: sockets are written one by one from now on");
            self.ring = None;
        }
        // The socket itself is asked what is wrong with it.
        for (write, result) in writes.iter().zip(results) {
            if matches!(result, Err(error) if error.kind() == UNMADE) {
                *result = write.sink.try_write_vectored(write.bufs);
            }
        }
    }
}

/// What stands in the place of a write that was not made.
const UNMADE: io::ErrorKind = io::ErrorKind::Interrupted;

impl Carrier for Ring {
    fn carry(&mut self, writes: &[Write<'_>], results: &mut [io::Result<usize>]) {
        let most = ENTRIES as usize;
        for (writes, results) in writes.chunks(most).zip(results.chunks_mut(most)) {
            self.round(writes, results);
        }
    }
}

/// For sends that only the ring can make.
struct Untried;

impl Sink for Untried {
    fn try_write_vectored(&self, _: &[io::IoSlice<'_>]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Makes the writes to descriptors, as far as they succeed or the socket is full; the others stay
/// unmade. An error is the ring's end: it is empty then, but must not be used again.
fn submit(
    ring: &mut IoUring,
    enter: Enter,
    writes: &[Write<'_>],
    results: &mut [io::Result<usize>],
) -> io::Result<()> {
    let many = writes.iter().filter(|write| write.fd.is_some() && write.bufs.len() > 1);
    let headers: Vec<libc::msghdr> = many.map(|write| header(write.bufs)).collect();
    let mut headers = headers.iter();
    // Behind all that the kernel is given pointers to, so that it is let go of first.
    let mut flight = Flight(0);
    let mut queue = ring.submission();
    for (at, write) in (0..).zip(writes) {
        let Some(fd) = write.fd else { continue };
        let Some(entry) = entry(fd, write.bufs, &mut headers) else { continue };
        // SAFETY: the bytes and the header are borrowed until this function returns, and it
        // returns when nothing is under way any more (`Flight`). Nothing here writes to them.
        match unsafe { queue.push(&entry.user_data(at)) } {
            Ok(()) => flight.0 += 1,
            // No round is that long.
            Err(_) => break,
        }
    }
    drop(queue);
    let mut tries = 0;
    while flight.0 > 0 {
        let entered = enter(ring, flight.0);
        for done in ring.completion() {
            flight.0 -= 1;
            tries = 0;
            let at = usize::try_from(done.user_data()).ok();
            let Some(result) = at.and_then(|at| results.get_mut(at)) else { continue };
            match usize::try_from(done.result()) {
                Ok(written) => *result = Ok(written),
                Err(_) if done.result() == -libc::EAGAIN => {
                    *result = Err(io::ErrorKind::WouldBlock.into());
                }
                Err(_) => {}
            }
        }
        match entered {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) if tries < TRIES => {
                tries += 1;
                std::thread::sleep(PAUSE);
            }
            Err(error) => {
                // What the kernel has not taken goes with the ring; for the rest there is no hope.
                flight.0 -= ring.submission().len().min(flight.0);
                return Err(error);
            }
        }
    }
    Ok(())
}

/// A send that does not wait. `headers` are for those of several slices, in their order.
fn entry<'a>(
    fd: i32,
    bufs: &[io::IoSlice<'_>],
    headers: &mut impl Iterator<Item = &'a libc::msghdr>,
) -> Option<squeue::Entry> {
    Some(match bufs {
        [one] => {
            let length = u32::try_from(one.len()).unwrap_or(u32::MAX);
            opcode::Send::new(types::Fd(fd), one.as_ptr(), length).flags(FLAGS).build()
        }
        [] => return None,
        _ => {
            let flags = FLAGS.cast_unsigned();
            opcode::SendMsg::new(types::Fd(fd), headers.next()?).flags(flags).build()
        }
    })
}

/// One that tells where these slices are.
fn header(bufs: &[io::IoSlice<'_>]) -> libc::msghdr {
    // SAFETY: zeros are a header of nothing: numbers, and pointers that may be null.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    // `IoSlice` is laid out as iovec; a send only reads.
    header.msg_iov = bufs.as_ptr().cast_mut().cast();
    header.msg_iovlen = bufs.len() as _;
    header
}

#[cfg(test)]
mod tests;
