//! Room in the write-ahead log before it is needed.
//!
//! A commit into a part of the file that is there already has the disk write data; one that makes
//! the file longer has the file system write its own books too: 110 to 180 us of CPU where 60 do
//! (three pages and a sync, ext4), and twice the time. SQLite writes over its log once that has
//! been moved into the database, but after every start it makes it longer commit by commit. So
//! zeros are put behind its end, some at a time. SQLite looks there only after a crash, and takes
//! them for what they are: its frames carry checksums.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::connection::{self, WAL_BYTES};

/// A log shorter than this is left alone: few writes, or small ones.
const LEAST: u64 = 2 << 20;

/// How much is put behind the end at once; again when half of it is used.
const AHEAD: u64 = 2 << 20;

/// A page and what stands before it in the log.
const FRAME: u64 = 4096 + 24;

/// The log's file and how long it is known to be.
pub(crate) struct Ahead {
    path: PathBuf,
    length: u64,
}

impl Ahead {
    pub(crate) fn new(dir: &Path) -> Self {
        let mut path = connection::file(dir).into_os_string();
        path.push("-wal");
        Ahead { path: path.into(), length: 0 }
    }

    /// Whether [`Ahead::see_to`] would write.
    pub(crate) fn is_due(&self, pages: usize) -> bool {
        let end = pages as u64 * FRAME;
        end >= LEAST && end + AHEAD / 2 >= self.length && end + AHEAD <= WAL_BYTES as u64
    }

    /// To be called by the one who writes the log, between two transactions; `pages` are in it.
    pub(crate) fn see_to(&mut self, pages: usize) {
        if !self.is_due(pages) {
            return;
        }
        self.length = pages as u64 * FRAME + AHEAD;
        // SQLite makes it longer itself where this could not: on a full disk, say.
        if let Err(error) = self.make_longer() {
            tracing::debug!("room in the write-ahead log: {error}");
        }
    }

    fn make_longer(&self) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).open(&self.path)?;
        let missing = self.length.saturating_sub(file.metadata()?.len());
        let zeros = vec![0; usize::try_from(missing).unwrap_or_default()];
        file.write_all(&zeros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_never_written_over_nor_made_where_it_is_missing() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut ahead = Ahead::new(dir.path());
        ahead.see_to(1_000);
        assert!(!ahead.path.exists());
        let frames = vec![7; 1_000 * FRAME as usize + 32];
        std::fs::write(&ahead.path, &frames).expect("written");
        ahead = Ahead::new(dir.path());
        ahead.see_to(10);
        assert_eq!(std::fs::read(&ahead.path).expect("read"), frames, "a short log");
        for (pages, length) in [(1_000, 1_000), (1_001, 1_000), (1_200, 1_000), (1_300, 1_300)] {
            ahead.see_to(pages);
            let read = std::fs::read(&ahead.path).expect("read");
            assert_eq!(read.len() as u64, length * FRAME + AHEAD, "{pages} pages");
            assert!(read.starts_with(&frames) && read[frames.len()..].iter().all(|b| *b == 0));
        }
    }
}
