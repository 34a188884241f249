//! A file that is in the page cache, read in pieces, one after the other.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes of a piece.
pub const PIECE: usize = 64 << 10;

/// How many the file has.
pub const PIECES: usize = 256;

/// The file, which is removed in the end.
pub struct Cached(PathBuf);

impl Cached {
    pub fn new() -> Self {
        let path = std::env::current_exe().expect("a path").with_file_name(format!("cached-{}", std::process::id()));
        fs::write(&path, vec![b'x'; PIECE * PIECES]).expect("a file");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// That a piece was read.
    pub fn check(piece: &[u8]) {
        assert!(piece.len() == PIECE && piece[PIECE - 1] == b'x');
    }
}

impl Drop for Cached {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
