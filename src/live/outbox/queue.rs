//! Frames in the order in which they go out, and how far the first of them has.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use super::Frame;
use super::state::Told;
use crate::model::cursor::Cursor;

/// In the place of the commit that found the queue empty, while only a frame of none waits.
pub(super) const IDLE: u64 = u64::MAX;

/// Frames that a drained queue keeps room for: after a replay or a burst the rest is given back,
/// as ten thousand idle outboxes would hold megabytes.
const KEPT_FRAMES: usize = 32;

/// Frames written at once.
pub(super) const SLICES: usize = 64;

/// What waits for one socket. Nothing comes between the bytes of a frame that has begun to go out.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// The frame that has begun, and how much of it has gone.
    begun: Option<Frame>,
    gone: usize,
    /// Frames that belong to no commit and go before what waits: pings, pongs, a close.
    control: VecDeque<Frame>,
    frames: VecDeque<Frame>,
    /// Bytes in `frames`.
    bytes: usize,
    /// The commit that found the queue empty, and how much of the head of `frames` is still its.
    free_position: u64,
    free_frames: usize,
    free_bytes: usize,
    /// The commit that was put in last, and its bytes.
    last_position: u64,
    last_bytes: usize,
    /// The last cursor that the client holds: of a frame that went out whole, or from before.
    pub(super) cursor: Option<Cursor>,
}

/// What came of writing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Went {
    /// Any byte went.
    pub(super) moved: bool,
    /// More might have gone than was to.
    pub(super) more: bool,
}

impl Queue {
    /// Takes the frames of the commit at `position`, `bytes` long together, unless they are more
    /// than the bounds leave room for. Whoever finds nothing waiting has no bounds.
    pub(super) fn put(
        &mut self,
        position: u64,
        frames: &[Frame],
        bytes: usize,
        (max_frames, max_bytes): (usize, usize),
    ) -> bool {
        if self.frames.is_empty() {
            (self.free_frames, self.free_bytes) = (0, 0);
            self.free_position = position;
        } else if self.free_position == IDLE {
            self.free_position = position;
        }
        if self.free_position == position {
            self.free_frames += frames.len();
            self.free_bytes += bytes;
        } else if !self.fits(frames.len(), bytes, (max_frames, max_bytes)) {
            return false;
        }
        if self.last_position != position {
            (self.last_position, self.last_bytes) = (position, 0);
        }
        self.last_bytes += bytes;
        self.bytes += bytes;
        match frames {
            [frame] => self.frames.push_back(frame.clone()),
            frames => self.frames.extend(frames.iter().cloned()),
        }
        true
    }

    /// Whether so much of another commit than the first has room.
    pub(super) fn fits(&self, frames: usize, bytes: usize, most: (usize, usize)) -> bool {
        self.frames.len() - self.free_frames + frames <= most.0
            && self.bytes - self.free_bytes + bytes <= most.1
    }

    /// Takes a frame of no commit; the next commit finds the queue as empty as before. Only where
    /// nothing waits.
    pub(super) fn put_idle(&mut self, frame: Frame) {
        self.free_position = IDLE;
        (self.free_frames, self.free_bytes) = (1, frame.bytes.len());
        self.bytes = frame.bytes.len();
        self.frames.push_back(frame);
    }

    /// Takes a frame that goes before all that waits, but for one that has begun.
    pub(super) fn put_control(&mut self, frame: Frame) {
        self.control.push_back(frame);
    }

    /// Whether control frames wait.
    pub(super) fn has_control(&self) -> bool {
        !self.control.is_empty()
    }

    /// Frames that wait, but for one that has begun and for control frames.
    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Their bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Frames and bytes that are still to go out, control frames aside.
    pub(super) fn left(&self) -> (usize, usize) {
        let begun = self.begun.as_ref().map_or(0, |frame| frame.bytes.len() - self.gone);
        (self.frames.len() + usize::from(begun > 0), self.bytes + begun)
    }

    /// Bytes of the last commit that was put in, if that is the one at `position`, which wait: it
    /// is at the end. A frame that has begun is held whole until it is out.
    pub(super) fn left_of(&self, position: u64) -> usize {
        let begun = self.begun.as_ref().map_or(0, |frame| frame.bytes.len());
        match self.last_position == position {
            true => self.last_bytes.min(self.bytes + begun),
            false => 0,
        }
    }

    /// Whether everything has gone out.
    pub(super) fn is_drained(&self) -> bool {
        self.begun.is_none() && self.control.is_empty() && self.frames.is_empty()
    }

    /// What the client will hold once the frame that has begun is out.
    pub(super) fn cursor_then(&self) -> Option<Cursor> {
        self.begun.as_ref().and_then(|frame| frame.cursor()).or(self.cursor)
    }

    /// Forgets what waits, but for control frames. The frame that has begun goes on.
    pub(super) fn forget(&mut self) {
        self.frames = VecDeque::new();
        (self.bytes, self.free_frames, self.free_bytes) = (0, 0, 0);
    }

    /// Forgets what has not begun.
    pub(super) fn forget_all(&mut self) {
        self.forget();
        self.control = VecDeque::new();
    }

    /// The next frame that waits, but for control frames.
    pub(super) fn pop(&mut self) -> Option<Frame> {
        let frame = self.frames.pop_front()?;
        let bytes = frame.bytes.len();
        self.bytes -= bytes;
        if self.free_frames > 0 {
            self.free_frames -= 1;
            self.free_bytes -= bytes;
        }
        if self.frames.is_empty() && self.frames.capacity() > KEPT_FRAMES {
            self.frames = VecDeque::new();
        }
        Some(frame)
    }

    /// What goes out next, at most [`SLICES`] pieces.
    pub(super) fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let begun = self.begun.iter().map(|frame| &frame.bytes[self.gone..]);
        let control = self.control.iter().map(|frame| &frame.bytes[..]);
        let frames = self.frames.iter().map(|frame| &frame.bytes[..]);
        begun.chain(control).chain(frames).take(SLICES)
    }

    /// Writes until all has gone out, `write` takes no more, or `most` bytes have gone; how it
    /// came to that. An error is the socket's end.
    pub(super) fn write(
        &mut self,
        most: usize,
        mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<Went> {
        let mut went = Went::default();
        let mut left = most;
        loop {
            if left == 0 {
                went.more = !self.is_drained();
                return Ok(went);
            }
            let (asked, written) = match (&self.begun, self.control.is_empty(), self.frames.len()) {
                (None, true, 0) => return Ok(went),
                // Mostly it is one frame.
                (None, true, 1) => {
                    let bytes = &self.frames[0].bytes;
                    let bytes = &bytes[..bytes.len().min(left)];
                    (bytes.len(), write(&[IoSlice::new(bytes)]))
                }
                _ => {
                    let mut slices = [IoSlice::new(&[]); SLICES];
                    let (mut count, mut asked) = (0, 0);
                    for bytes in self.slices() {
                        let bytes = &bytes[..bytes.len().min(left - asked)];
                        slices[count] = IoSlice::new(bytes);
                        (count, asked) = (count + 1, asked + bytes.len());
                        if asked == left {
                            break;
                        }
                    }
                    (asked, write(&slices[..count]))
                }
            };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    went.moved = true;
                    left = left.saturating_sub(written);
                    self.advance(written);
                    if written < asked {
                        return Ok(went);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(went),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes frames, no more than [`SLICES`], where nothing waits; what does not go out at once
    /// waits then. Whether any byte went. An error is the socket's end.
    pub(super) fn write_new(
        &mut self,
        &Told { position, frames, bytes }: &Told<'_>,
        write: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<bool> {
        let written = match frames {
            // Mostly it is one frame.
            [frame] => write(&[IoSlice::new(&frame.bytes)]),
            frames => {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let filled = slices.iter_mut().zip(frames).map(|(slice, frame)| {
                    *slice = IoSlice::new(&frame.bytes);
                });
                let filled = filled.count();
                write(&slices[..filled])
            }
        };
        let written = match written {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) if written == bytes => {
                let cursor = frames.iter().rev().find_map(|frame| frame.cursor());
                self.cursor = cursor.or(self.cursor);
                return Ok(true);
            }
            Ok(written) => written,
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => 0,
                _ => return Err(error),
            },
        };
        // Whoever finds nothing waiting has no bounds.
        self.put(position, frames, bytes, (usize::MAX, usize::MAX));
        self.advance(written);
        Ok(written > 0)
    }

    fn advance(&mut self, mut written: usize) {
        while written > 0 {
            let next = self.begun.take().or_else(|| self.control.pop_front());
            let Some(frame) = next.or_else(|| self.pop()) else { return };
            let left = frame.bytes.len() - self.gone;
            if written < left {
                self.gone += written;
                self.begun = Some(frame);
                return;
            }
            written -= left;
            self.gone = 0;
            self.cursor = frame.cursor().or(self.cursor);
        }
    }
}
