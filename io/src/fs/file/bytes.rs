//! How the bytes of a file come and go: at once where the kernel has them, and otherwise as a job that a thread or the ring does.

use super::super::cached;
use super::super::errand::Slow;
use super::super::jobs::{Read, Write};
use super::{File, Place};
use crate::buf::{IoBuf, IoBufMut};
use crate::operation::poll_gate;
use crate::reactor::Reactor;
use std::future::poll_fn;
use std::io;
use std::os::fd::AsFd;
use std::task::{Context, Poll, Waker, ready};
use trefoil_runtime::{Reason, poll_budget};

/// So much is read or written at once without waiting: a copy takes its time, too.
const MOST_AT_ONCE: usize = 256 << 10;

/// A copy of so many bytes takes as long as a small system call: one unit of a task's budget (N11).
const BYTES_PER_UNIT: usize = 16 << 10;

impl File {
    pub(in crate::fs) async fn read_owned<B: IoBufMut>(
        &self,
        mut buf: B,
        position: u64,
        place: Place,
    ) -> (io::Result<usize>, B) {
        let mut read = 0;
        loop {
            let (room, at) = (buf.spare().len(), position.saturating_add(read as u64));
            let (result, back) = self.read_some(buf, room, at, place).await;
            buf = back;
            match result {
                Ok(n) => {
                    read += n;
                    if n == 0 || n == room || self.ends_at(at + n as u64) {
                        return (Ok(read), buf);
                    }
                }
                Err(error) => return (Err(self.failed("read from", error)), buf),
            }
        }
    }

    pub(in crate::fs) async fn write_all_owned<B: IoBuf>(
        &self,
        mut buf: B,
        position: u64,
        place: Place,
    ) -> (io::Result<()>, B) {
        let mut written = 0;
        loop {
            let at = position.saturating_add(written as u64);
            let (result, back) = self.write_some(buf, written, at, place).await;
            buf = back;
            let len = buf.content().len();
            let result = match result {
                Ok(0) if written < len => Err(io::ErrorKind::WriteZero.into()),
                result => result.map(|n| written += n),
            };
            if result.is_err() || written == len {
                return (result.map_err(|error| self.failed("write to", error)), buf);
            }
        }
    }

    /// Whether the file ends at a position, if it is known without waiting.
    fn ends_at(&self, position: u64) -> bool {
        cached::ends_at(self.as_fd(), position)
    }

    /// Before an attempt: a run with I/O, a scope that is not cancelled, a budget, and a position that there can be.
    fn poll_start(&self, cx: &mut Context<'_>, position: u64, place: Place) -> Poll<io::Result<()>> {
        ready!(poll_gate(cx, place))?;
        Reactor::check()?;
        // The kernel takes the last of them for the file's own position.
        Poll::Ready(match i64::try_from(position) {
            Ok(_) => Ok(()),
            Err(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "there is no such position in a file")),
        })
    }

    pub(super) async fn read(&self, buf: &mut [u8], position: u64, place: Place) -> io::Result<usize> {
        let mut read = 0;
        loop {
            let at = position.saturating_add(read as u64);
            let rest = &mut buf[read..];
            poll_fn(|cx| self.poll_start(cx, at, place)).await?;
            if rest.is_empty() {
                return Ok(read);
            }
            let most = rest.len().min(MOST_AT_ONCE);
            let now = match self.direct {
                true => None,
                // SAFETY: so much of `rest`.
                false => unsafe { cached::read(self.as_fd(), rest.as_mut_ptr(), most, at) },
            };
            let n = match now {
                Some(n) => n,
                None => {
                    let job = Read { file: self.file.clone(), buf: Vec::with_capacity(most), most, position: at };
                    let (result, bytes) = self.read_slowly(job, place).await;
                    rest[..bytes.len()].copy_from_slice(&bytes);
                    result?
                }
            };
            spend(n);
            read += n;
            if n == 0 || read == buf.len() || (n < most && self.ends_at(at + n as u64)) {
                return Ok(read);
            }
        }
    }

    /// Reads once, into at most so much of the room of a buffer.
    async fn read_some<B: IoBufMut>(&self, mut buf: B, most: usize, at: u64, place: Place) -> (io::Result<usize>, B) {
        if let Err(error) = poll_fn(|cx| self.poll_start(cx, at, place)).await {
            return (Err(error), buf);
        }
        if most == 0 {
            let why = "the buffer has no room behind its bytes: reserve some";
            return (Err(io::Error::new(io::ErrorKind::InvalidInput, why)), buf);
        }
        if !self.direct {
            let room = buf.spare();
            let most = room.len().min(MOST_AT_ONCE);
            // SAFETY: so much of the room.
            if let Some(n) = unsafe { cached::read(self.as_fd(), room.as_mut_ptr().cast(), most, at) } {
                // SAFETY: the kernel has written so many.
                unsafe { buf.advance(n) };
                spend(n);
                return (Ok(n), buf);
            }
        }
        let job = Read { file: self.file.clone(), buf, most, position: at };
        self.read_slowly(job, place).await
    }

    async fn read_slowly<B: IoBufMut>(&self, job: Read<B>, place: Place) -> (io::Result<usize>, B) {
        let (result, Read { mut buf, .. }) = Slow::new(job, Reason::Read(self.fd()), place).await;
        if let Ok(n) = result {
            // SAFETY: the kernel has written so many, and the buffer was not touched since.
            unsafe { buf.advance(n) };
        }
        (result, buf)
    }

    pub(super) async fn write(&self, buf: &[u8], at: u64, place: Place) -> io::Result<usize> {
        poll_fn(|cx| self.poll_start(cx, at, place)).await?;
        if buf.is_empty() {
            return Ok(0);
        }
        let buf = &buf[..buf.len().min(MOST_AT_ONCE)];
        if let Some(n) = self.write_now(buf, at) {
            return Ok(n);
        }
        let job = Write { file: self.file.clone(), buf: buf.to_vec(), from: 0, position: at };
        let (result, _) = Slow::new(job, Reason::Write(self.fd()), place).await;
        result
    }

    /// Writes once, from some byte of a buffer on.
    async fn write_some<B: IoBuf>(&self, buf: B, from: usize, at: u64, place: Place) -> (io::Result<usize>, B) {
        if let Err(error) = poll_fn(|cx| self.poll_start(cx, at, place)).await {
            return (Err(error), buf);
        }
        let bytes = &buf.content()[from..];
        if bytes.is_empty() {
            return (Ok(0), buf);
        }
        if let Some(n) = self.write_now(&bytes[..bytes.len().min(MOST_AT_ONCE)], at) {
            return (Ok(n), buf);
        }
        let job = Write { file: self.file.clone(), buf, from, position: at };
        let (result, Write { buf, .. }) = Slow::new(job, Reason::Write(self.fd()), place).await;
        (result, buf)
    }

    fn write_now(&self, bytes: &[u8], at: u64) -> Option<usize> {
        if self.direct {
            return None;
        }
        let n = cached::write(self.as_fd(), bytes, at)?;
        spend(n);
        // What came to nothing is done again by who may wait, and says why.
        (n > 0).then_some(n)
    }
}

/// A copy of so many bytes is more than one operation's worth of the task's turn. The next one looks whether something is left.
fn spend(bytes: usize) {
    for _ in 0..bytes / BYTES_PER_UNIT {
        let _ = poll_budget(&mut Context::from_waker(Waker::noop()));
    }
}
