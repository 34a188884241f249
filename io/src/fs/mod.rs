//! Files.
//!
//! | to | use |
//! | --- | --- |
//! | open, create | [`File::open`], [`File::create`], [`OpenOptions`] |
//! | read and write at positions | [`File::read_at`], [`File::read_exact_at`], [`File::write_at`], [`File::write_all_at`] |
//! | the same with buffers that the operation owns | [`File::read_owned_at`], [`File::write_all_owned_at`] |
//! | be sure that it is on the disk | [`File::sync_all`], [`File::sync_data`] |
//! | close, and hear of it | [`File::close`] |
//! | read or write a whole file | [`read()`], [`read_to_string`], [`write()`], [`copy`] |
//! | see what is in a directory | [`read_dir`] |
//! | create and remove | [`create_dir`], [`create_dir_all`], [`hard_link`], [`symlink`]; [`remove_file`], [`remove_dir`], [`remove_dir_all`] |
//! | rename | [`rename`] |
//! | know about a path | [`metadata`], [`symlink_metadata`], [`try_exists`], [`canonicalize`], [`read_link`] |
//! | permit | [`set_permissions`], [`File::set_permissions`] |
//!
//! # What blocks, and who
//!
//! A file is never "not ready": the kernel has the bytes in its cache, or whoever asks waits for the disk. So each read first asks for what
//! is in the cache, and only for that (`RWF_NOWAIT`): that is a copy, made at once, as fast as a plain pread(2). What is not
//! there is read by io_uring; on epoll, by a thread of the run. Writes likewise, on file systems that can.
//!
//! Everything else (opening, closing, metadata, lengths, directories) is done by those threads on both drivers. A run
//! begins them as they are needed, as many as there are cores and four more, up to 32, and they end with it.
//!
//! A task that reads file after file out of the cache gives up its turn after some time (N11), as with sockets.
//!
//! # Cancellation
//!
//! In a cancelled scope nothing is attempted (R37). What the kernel or a thread is at when the scope is cancelled is asked to end, and waited
//! for: it may be done all the same, and then its result is given (N8, R102). A disk answers; a network file system whose server is
//! gone may not, and then that wait is as long as the kernel's.
//!
//! A future that is dropped waits for nothing. What it has begun may go on for a while, with the buffer and the descriptor that it owns: a
//! write whose future was dropped may take place after a later one. Cancel, and await, where that matters.

mod cached;
pub(crate) mod errand;
mod file;
mod jobs;
mod options;
mod paths;
mod read_dir;
#[cfg(all(test, not(trefoil_loom)))]
mod tests;

pub use file::File;
pub use options::OpenOptions;
pub use paths::{
    canonicalize, copy, create_dir, create_dir_all, hard_link, metadata, read_link, remove_dir, remove_dir_all,
    remove_file, rename, set_permissions, symlink, symlink_metadata, try_exists,
};
pub use read_dir::{DirEntry, ReadDir, read_dir};

use crate::error::during;
use std::future::Future;
use std::io;
use std::path::Path;

/// A read of a whole file begins with so much room.
const FIRST: usize = 64 << 10;

/// Reads a whole file.
///
/// # Errors
/// Those of [`File::open`] and [`File::read_at`].
///
/// # Cancellation
/// Nothing is lost.
///
/// # Examples
/// ```
/// # trefoil_io::run(async {
/// let manifest = trefoil_io::fs::read("Cargo.toml").await?;
/// assert!(manifest.starts_with(b"[package]"));
/// # Ok::<(), std::io::Error>(()) })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[track_caller]
pub fn read<P: AsRef<Path>>(path: P) -> impl Future<Output = io::Result<Vec<u8>>> + Send + use<P> {
    let (open, place) = (File::open(path), std::panic::Location::caller());
    async move {
        let file = open.await?;
        let mut bytes = Vec::with_capacity(FIRST);
        loop {
            let room = bytes.capacity() - bytes.len();
            let at = bytes.len() as u64;
            let (read, back) = file.read_owned(bytes, at, place).await;
            bytes = back;
            if read? < room {
                return Ok(bytes);
            }
            bytes.reserve(bytes.len());
        }
    }
}

/// Reads a whole file, which is text.
///
/// # Errors
/// Those of [`read()`], and of kind `InvalidData` if it is not UTF-8.
///
/// # Cancellation
/// Nothing is lost.
///
/// # Examples
/// ```
/// # trefoil_io::run(async {
/// let manifest = trefoil_io::fs::read_to_string("Cargo.toml").await?;
/// assert!(manifest.starts_with("[package]"));
/// # Ok::<(), std::io::Error>(()) })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[track_caller]
pub fn read_to_string<P: AsRef<Path>>(path: P) -> impl Future<Output = io::Result<String>> + Send + use<P> {
    let (named, read) = (path.as_ref().to_owned(), read(path));
    async move {
        String::from_utf8(read.await?).map_err(|error| {
            let error = io::Error::new(io::ErrorKind::InvalidData, error.utf8_error());
            during("read from", named.display(), error)
        })
    }
}

/// Writes a whole file: creates it, or empties it first.
///
/// # Errors
/// Those of [`File::create`] and [`File::write_all_at`].
///
/// # Cancellation
/// The file may be created, emptied, and written in part (R41).
///
/// # Examples
/// ```
/// # let path = std::env::temp_dir().join(format!("trefoil-doc-write-{}", std::process::id()));
/// # trefoil_io::run(async {
/// trefoil_io::fs::write(&path, "clover").await?;
/// assert_eq!(trefoil_io::fs::read(&path).await?, b"clover");
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), std::io::Error>(()) })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[track_caller]
pub fn write<P, B>(path: P, contents: B) -> impl Future<Output = io::Result<()>> + Send + use<P, B>
where
    P: AsRef<Path>,
    B: crate::IoBuf,
{
    let (create, place) = (File::create(path), std::panic::Location::caller());
    async move {
        let file = create.await?;
        file.write_all_owned(contents, 0, place).await.0
    }
}
