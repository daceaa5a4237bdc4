//! A real ring, and one whose calls fail. Where the kernel refuses a ring they say so and pass.

use std::cell::Cell;
use std::io::{IoSlice, Read};
use std::os::fd::{AsFd, RawFd};

use rustix::net::{SendFlags, sockopt};

use super::*;

/// One end of a connection.
struct End(UnixStream);

impl Sink for End {
    fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let all: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
        Ok(rustix::net::send(&self.0, &all, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
    }

    fn fd(&self) -> Option<RawFd> {
        Some(self.0.as_fd().as_raw_fd())
    }
}

fn ring() -> Option<Ring> {
    match Ring::open() {
        Ok(ring) => Some(ring),
        Err(error) => {
            eprintln!("skipped: the kernel refuses a ring: {error}");
            None
        }
    }
}

fn pair() -> (End, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    theirs.set_nonblocking(true).expect("set");
    (End(ours), theirs)
}

fn came(theirs: &mut UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match theirs.read_to_end(&mut bytes) {
        Ok(_) => bytes,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => bytes,
        Err(error) => panic!("{error}"),
    }
}

/// Writes these to each, one slice or several.
fn carry(ring: &mut Ring, ends: &[&End], texts: &[&[&[u8]]]) -> Vec<io::Result<usize>> {
    let bufs: Vec<Vec<IoSlice<'_>>> =
        texts.iter().map(|text| text.iter().map(|part| IoSlice::new(part)).collect()).collect();
    let writes: Vec<Write<'_>> = ends
        .iter()
        .zip(bufs.iter().cycle())
        .map(|(end, bufs)| Write { sink: *end, fd: end.fd(), bufs })
        .collect();
    let mut results: Vec<_> = writes.iter().map(|_| Ok(0)).collect();
    ring.carry(&writes, &mut results);
    results
}

fn kind(result: &io::Result<usize>) -> io::ErrorKind {
    result.as_ref().expect_err("an error").kind()
}

#[test]
fn each_gets_its_own() {
    let Some(mut ring) = ring() else { return };
    let (ends, mut theirs): (Vec<_>, Vec<_>) = (0..200).map(|_| pair()).unzip();
    let ends: Vec<&End> = ends.iter().collect();
    let texts: [&[&[u8]]; 3] = [&[b"one"], &[b"se", b"ver", b"al"], &[b"other"]];
    for _ in 0..3 {
        let results = carry(&mut ring, &ends, &texts);
        for (at, (theirs, result)) in theirs.iter_mut().zip(results).enumerate() {
            let text = texts[at % 3].concat();
            assert_eq!(result.expect("sent"), text.len());
            assert_eq!(came(theirs), text);
        }
    }
    assert!(ring.ring.is_some());
}

#[test]
fn a_full_socket_takes_a_part_then_nothing() {
    let Some(mut ring) = ring() else { return };
    let (end, mut theirs) = pair();
    sockopt::set_socket_send_buffer_size(&end.0, 9_000).expect("set");
    let whole: Vec<u8> = (0..1_000_000_u32).map(|at| (at % 251) as u8).collect();
    let halves: [&[u8]; 2] = [&whole[..500_000], &whole[500_000..]];
    for text in [&[&whole[..]][..], &halves] {
        let results = carry(&mut ring, &[&end], &[text]);
        let sent = *results[0].as_ref().expect("a part");
        assert!(sent > 0 && sent < whole.len(), "{sent}");
        let again = carry(&mut ring, &[&end], &[text]);
        assert_eq!(kind(&again[0]), io::ErrorKind::WouldBlock);
        assert_eq!(came(&mut theirs), whole[..sent]);
    }
    assert!(ring.ring.is_some());
}

#[test]
fn a_peer_that_is_gone_breaks_its_own_socket_only() {
    let Some(mut ring) = ring() else { return };
    let (ends, theirs): (Vec<_>, Vec<_>) = (0..9).map(|_| pair()).unzip();
    let mut theirs: Vec<_> = theirs.into_iter().map(Some).collect();
    theirs[4] = None;
    let results =
        carry(&mut ring, &ends.iter().collect::<Vec<_>>(), &[&[b"told"], &[b"to", b"ld"]]);
    for (at, (theirs, result)) in theirs.iter_mut().zip(&results).enumerate() {
        match theirs {
            Some(theirs) => {
                assert_eq!(*result.as_ref().expect("sent"), 4, "{at}");
                assert_eq!(came(theirs), b"told");
            }
            None => assert_eq!(kind(result), io::ErrorKind::BrokenPipe),
        }
    }
}

#[test]
fn a_descriptor_that_is_used_again_is_the_new_socket() {
    let Some(mut ring) = ring() else { return };
    // Other tests open files meanwhile: one of these tries finds the number free.
    for _ in 0..100 {
        let (old, mut heard) = pair();
        let fd = old.fd();
        assert_eq!(carry(&mut ring, &[&old], &[&[b"old"]])[0].as_ref().expect("sent"), &3);
        drop(old);
        let (new, mut hears) = pair();
        let same = new.fd() == fd;
        assert_eq!(carry(&mut ring, &[&new], &[&[b"newer"]])[0].as_ref().expect("sent"), &5);
        assert_eq!((came(&mut heard), came(&mut hears)), (b"old".to_vec(), b"newer".to_vec()));
        if same {
            return;
        }
    }
}

thread_local! {
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

fn calls() -> usize {
    CALLS.set(CALLS.get() + 1);
    CALLS.get()
}

/// Hands over so many and waits for one of them.
fn some(ring: &IoUring, most: u32) -> io::Result<usize> {
    let flags = io_uring::EnterFlags::GETEVENTS.bits();
    // SAFETY: a call as the crate makes it, of fewer entries.
    unsafe { ring.submitter().enter::<libc::sigset_t>(most, 1, flags, None) }
}

#[test]
fn calls_that_fail_lose_nothing_and_send_nothing_twice() {
    let interrupted = |ring: &IoUring, want| match calls() % 2 {
        1 => Err(io::ErrorKind::Interrupted.into()),
        _ => ring.submit_and_wait(want),
    };
    let after_it_was_done = |ring: &IoUring, want| {
        ring.submit_and_wait(want).expect("done");
        Err(io::ErrorKind::Interrupted.into())
    };
    let little_by_little = |ring: &IoUring, _| match calls() % 3 {
        0 => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
        _ => some(ring, 2),
    };
    let never = |_: &IoUring, _| Err(io::Error::from_raw_os_error(libc::ENOMEM));
    let no_more = |ring: &IoUring, _| match CALLS.get() {
        0..4 => some(ring, calls() as u32),
        _ => Err(io::Error::from_raw_os_error(libc::ENOMEM)),
    };
    let ways: [(Enter, bool); 5] = [
        (interrupted, true),
        (after_it_was_done, true),
        (little_by_little, true),
        (never, false),
        (no_more, false),
    ];
    for (way, (enter, stays)) in ways.into_iter().enumerate() {
        let Some(mut ring) = ring() else { return };
        ring.enter = enter;
        CALLS.set(0);
        let (ends, mut theirs): (Vec<_>, Vec<_>) = (0..100).map(|_| pair()).unzip();
        theirs[3] = pair().1;
        let ends: Vec<&End> = ends.iter().collect();
        let results = carry(&mut ring, &ends, &[&[b"told"], &[b"to", b"ld"]]);
        for (at, (theirs, result)) in theirs.iter_mut().zip(&results).enumerate() {
            match at {
                3 => assert_eq!(kind(result), io::ErrorKind::BrokenPipe),
                _ => {
                    assert_eq!(*result.as_ref().expect("sent"), 4, "{way} {at}");
                    assert_eq!(came(theirs), b"told", "{way} {at}");
                }
            }
        }
        assert_eq!(ring.ring.is_some(), stays, "{way}");
    }
}

#[test]
fn who_has_no_descriptor_writes_by_itself() {
    let Some(mut ring) = ring() else { return };
    let (end, mut theirs) = pair();
    let bufs = [IoSlice::new(b"told")];
    let writes = [Write { sink: &end, fd: None, bufs: &bufs }];
    let mut results = [Ok(0)];
    ring.carry(&writes, &mut results);
    assert_eq!((results[0].as_ref().ok(), came(&mut theirs)), (Some(&4), b"told".to_vec()));
    // Nor are the slices of another taken for its own.
    let (other, mut others) = pair();
    let (one, two) = ([b"to", b"ld"], [b"no", b"ne"]);
    let [one, two] = [one, two].map(|all| all.map(|part| IoSlice::new(part)));
    let writes = [
        Write { sink: &end, fd: None, bufs: &one },
        Write { sink: &other, fd: other.fd(), bufs: &two },
    ];
    let mut results = [Ok(0), Ok(0)];
    ring.carry(&writes, &mut results);
    assert!(results.iter().all(|result| matches!(result, Ok(4))), "{results:?}");
    assert_eq!((came(&mut theirs), came(&mut others)), (b"told".to_vec(), b"none".to_vec()));
}
