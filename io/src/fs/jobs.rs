//! What is done with a file where it may block: reading, writing, syncing; and anything else, on a thread.

use super::errand::{Job, Slow};
use crate::buf::{IoBuf, IoBufMut};
use crate::uring::slots::Key;
use crate::uring::sys::Sqe;
use rustix::io::{pread, pwrite, retry_on_intr};
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::panic::Location;
use std::sync::Arc;
use trefoil_runtime::Reason;

/// No system call does more at once (`MAX_RW_COUNT`).
const MOST: usize = 0x7fff_f000;

/// Reads into the room of a buffer, and leaves it to who gets that back to say that it was written.
pub(super) struct Read<B> {
    pub file: Arc<fs::File>,
    pub buf: B,
    /// How much of the room at most.
    pub most: usize,
    pub position: u64,
}

impl<B: IoBufMut> Job for Read<B> {
    fn run(&mut self) -> io::Result<usize> {
        let room = self.buf.spare();
        let most = room.len().min(self.most).min(MOST);
        let read = retry_on_intr(|| pread(&self.file, &mut room[..most], self.position).map(|(read, _)| read.len()))?;
        Ok(read)
    }

    unsafe fn entry(&mut self, key: Key) -> Option<Sqe> {
        let room = self.buf.spare();
        let most = room.len().min(self.most).min(MOST) as u32;
        // SAFETY: the room stays valid while the buffer does, wherever that is ([IoBufMut]), and the caller keeps it untouched.
        Some(unsafe { Sqe::read(self.file.as_fd(), room.as_mut_ptr().cast(), most, self.position, key) })
    }
}

/// Writes what a buffer has, from some byte on.
pub(super) struct Write<B> {
    pub file: Arc<fs::File>,
    pub buf: B,
    pub from: usize,
    pub position: u64,
}

impl<B: IoBuf> Job for Write<B> {
    fn run(&mut self) -> io::Result<usize> {
        let bytes = &self.buf.content()[self.from..];
        Ok(retry_on_intr(|| pwrite(&self.file, &bytes[..bytes.len().min(MOST)], self.position))?)
    }

    unsafe fn entry(&mut self, key: Key) -> Option<Sqe> {
        let bytes = &self.buf.content()[self.from..];
        let most = bytes.len().min(MOST) as u32;
        // SAFETY: the bytes stay valid while the buffer does, wherever that is, and nobody writes to them ([IoBuf]); the caller keeps it.
        Some(unsafe { Sqe::write(self.file.as_fd(), bytes.as_ptr(), most, self.position, key) })
    }
}

/// Sees to it that what was written is on the disk.
pub(super) struct Sync {
    pub file: Arc<fs::File>,
    pub data_only: bool,
}

impl Job for Sync {
    fn run(&mut self) -> io::Result<usize> {
        if self.data_only { self.file.sync_data() } else { self.file.sync_all() }.map(|()| 0)
    }

    unsafe fn entry(&mut self, key: Key) -> Option<Sqe> {
        Some(Sqe::fsync(self.file.as_fd(), self.data_only, key))
    }
}

/// A function on a thread.
struct Blocking<F, T> {
    function: Option<F>,
    output: Option<T>,
}

impl<F, T> Job for Blocking<F, T>
where
    F: FnOnce() -> io::Result<T> + Send + 'static,
    T: Send + 'static,
{
    fn run(&mut self) -> io::Result<usize> {
        if let Some(function) = self.function.take() {
            self.output = Some(function()?);
        }
        Ok(0)
    }
}

/// Runs a function of ours, which does not panic, on a thread of the run. A cancel ends it if no thread has begun it; else it is waited for, and its result
/// given (R102).
pub(super) async fn on_thread<F, T>(function: F, what: &'static str, place: &'static Location<'static>) -> io::Result<T>
where
    F: FnOnce() -> io::Result<T> + Send + 'static,
    T: Send + 'static,
{
    let job = Blocking { function: Some(function), output: None };
    let (result, job) = Slow::new(job, Reason::Custom(what), place).await;
    result.map(|_| job.output.expect("it was run"))
}
