//! What the durable floor does besides: every post into a file, synced before anybody hears of it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

/// The file is written from its start again when it is full: a store's log is kept short too.
const FILE_BYTES: u64 = 16 << 20;
/// As much as a store of pages writes at least.
const PAGE_BYTES: usize = 4 << 10;

/// A file that has its length already, so that a sync has nothing to see to but the bytes.
pub struct Disk {
    file: File,
    at: u64,
    /// Not written yet.
    waiting: Vec<u8>,
}

impl Disk {
    /// Makes the file; no other may be there.
    ///
    /// # Errors
    /// It is there, or the disk refuses.
    pub fn create(path: &Path) -> io::Result<Disk> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let zeros = vec![0; 1 << 20];
        for _ in 0..FILE_BYTES / zeros.len() as u64 {
            file.write_all(&zeros)?;
        }
        file.sync_all()?;
        Ok(Disk { file, at: 0, waiting: Vec::new() })
    }

    /// Takes the bytes of one post.
    pub fn put(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
    }

    /// Writes what was put in since the last time, in whole pages, with one call, and syncs it.
    ///
    /// # Errors
    /// The disk's.
    pub fn sync(&mut self) -> io::Result<()> {
        self.waiting.resize(self.waiting.len().next_multiple_of(PAGE_BYTES), 0);
        if self.at + self.waiting.len() as u64 > FILE_BYTES {
            self.at = 0;
        }
        self.file.write_all_at(&self.waiting, self.at)?;
        self.at += self.waiting.len() as u64;
        self.waiting.clear();
        self.file.sync_data()
    }
}
