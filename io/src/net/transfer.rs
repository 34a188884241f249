//! Reading and writing: every operation once, for streams and for all kinds of halves.
//!
//! [`Reading`] and [`Writing`] stand for the exclusive use of one direction of a stream; who has `&mut` of a stream or a half can make
//! them. That is the \[OWNER\] of the [`source`](crate::source).

use super::{TcpStream, socket};
use crate::buf::{IoBuf, IoBufMut};
use crate::error::during;
use crate::operation::Operation;
use crate::source::{Direction, ForBytes, ForRoom, Source};
use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::AsRawFd;
use std::panic::Location;
use std::task::{Context, Poll, ready};

type Place = &'static Location<'static>;

/// The peer, for an error: its address, or the number of the descriptor.
pub(super) struct Peer<'a>(pub &'a TcpStream);

impl fmt::Display for Peer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.source().peer() {
            Some(addr) => write!(f, "{addr}"),
            None => write!(f, "fd {}", self.0.source().fd().as_raw_fd()),
        }
    }
}

/// Exclusive use of the reading direction.
#[derive(Debug)]
pub(crate) struct Reading<'a>(&'a TcpStream);

impl<'a> Reading<'a> {
    /// # Safety
    /// Nobody else uses this direction for `'a`.
    pub unsafe fn new(stream: &'a TcpStream) -> Self {
        Self(stream)
    }

    fn operation(&self, place: Place) -> Operation<'a, ForBytes> {
        // SAFETY: [OWNER] is `self`, and the operation goes where `self` goes.
        unsafe { Operation::new(self.0.source(), ForBytes, place) }
    }

    fn failed(&self, error: io::Error) -> io::Error {
        during("read from", Peer(self.0), error)
    }

    pub fn readable(self, place: Place) -> impl Future<Output = io::Result<()>> + Send + 'a {
        let mut operation = self.operation(place);
        poll_fn(move |cx| operation.poll(cx, socket::readable).map_err(|error| self.failed(error)))
    }

    pub fn try_read(self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let read = self.0.source().ask(Direction::Read, &mut |ready| socket::recv(ready, buf));
        read.map_err(|error| self.failed(error))
    }

    pub fn read(self, buf: &'a mut [u8], place: Place) -> impl Future<Output = io::Result<usize>> + Send + 'a {
        let mut operation = self.operation(place);
        poll_fn(move |cx| {
            if buf.is_empty() {
                return operation.poll_start(cx).map_ok(|()| 0);
            }
            operation.poll(cx, |ready| socket::recv(ready, buf)).map_err(|error| self.failed(error))
        })
    }

    pub fn read_vectored<'b: 'a>(
        self,
        bufs: &'a mut [IoSliceMut<'b>],
        place: Place,
    ) -> impl Future<Output = io::Result<usize>> + Send + 'a {
        let mut operation = self.operation(place);
        poll_fn(move |cx| {
            if bufs.iter().all(|buf| buf.is_empty()) {
                return operation.poll_start(cx).map_ok(|()| 0);
            }
            operation.poll(cx, |ready| socket::recv_vectored(ready, bufs)).map_err(|error| self.failed(error))
        })
    }

    pub fn read_exact(self, buf: &'a mut [u8], place: Place) -> impl Future<Output = io::Result<()>> + Send + 'a {
        let mut operation = self.operation(place);
        let mut partial = Partial { source: self.0.source(), buf, read: 0 };
        poll_fn(move |cx| {
            if partial.is_full() {
                return operation.poll_start(cx);
            }
            while !partial.is_full() {
                let result = ready!(operation.poll(cx, |ready| socket::recv(ready, &mut partial.buf[partial.read..])));
                match result {
                    Ok(0) => {
                        let why = format!("the stream ended after {} of {} bytes", partial.read, partial.buf.len());
                        partial.give_back();
                        return Poll::Ready(Err(self.failed(io::Error::new(io::ErrorKind::UnexpectedEof, why))));
                    }
                    Ok(n) => partial.read += n,
                    Err(error) => {
                        partial.give_back();
                        return Poll::Ready(Err(self.failed(error)));
                    }
                }
            }
            Poll::Ready(Ok(()))
        })
    }

    pub fn read_owned<B: IoBufMut>(
        self,
        buf: B,
        place: Place,
    ) -> impl Future<Output = (io::Result<usize>, B)> + Send + use<'a, B> {
        let mut operation = self.operation(place);
        let mut buf = Some(buf);
        poll_fn(move |cx| {
            let spare = buf.as_mut().expect("polled after it was ready").spare();
            let result = if spare.is_empty() {
                let why = "the buffer has no room behind its bytes: reserve some";
                Err(io::Error::new(io::ErrorKind::InvalidInput, why))
            } else {
                ready!(operation.poll(cx, |ready| socket::recv_uninit(ready, spare)))
            };
            let mut buf = buf.take().expect("there a moment ago");
            if let Ok(n) = result {
                // SAFETY: `recv_uninit` has written so many.
                unsafe { buf.advance(n) };
            }
            Poll::Ready((result.map_err(|error| self.failed(error)), buf))
        })
    }

    pub fn poll_read(self, cx: &mut Context<'_>, buf: &mut [u8], place: Place) -> Poll<io::Result<usize>> {
        // SAFETY: [OWNER] is `self`.
        let mut operation = unsafe { Operation::resume(self.0.source(), ForBytes, place) };
        if buf.is_empty() {
            return operation.poll_start(cx).map_ok(|()| 0);
        }
        operation.poll(cx, |ready| socket::recv(ready, buf)).map_err(|error| self.failed(error))
    }

    pub fn poll_read_vectored(
        self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        place: Place,
    ) -> Poll<io::Result<usize>> {
        // SAFETY: [OWNER] is `self`.
        let mut operation = unsafe { Operation::resume(self.0.source(), ForBytes, place) };
        if bufs.iter().all(|buf| buf.is_empty()) {
            return operation.poll_start(cx).map_ok(|()| 0);
        }
        operation.poll(cx, |ready| socket::recv_vectored(ready, bufs)).map_err(|error| self.failed(error))
    }
}

/// What `read_exact` has read so far: put back if it is not all, so that a `read_exact` happens as a whole or not at all.
struct Partial<'a> {
    source: &'a Source,
    buf: &'a mut [u8],
    read: usize,
}

impl Partial<'_> {
    fn is_full(&self) -> bool {
        self.read == self.buf.len()
    }

    #[inline]
    fn give_back(&mut self) {
        if self.read > 0 && !self.is_full() {
            self.unread();
        }
    }

    #[cold]
    fn unread(&mut self) {
        self.source.unread(&self.buf[..self.read]);
        self.read = 0;
    }
}

impl Drop for Partial<'_> {
    #[inline]
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Exclusive use of the writing direction.
#[derive(Debug)]
pub(crate) struct Writing<'a>(&'a TcpStream);

impl<'a> Writing<'a> {
    /// # Safety
    /// Nobody else uses this direction for `'a`.
    pub unsafe fn new(stream: &'a TcpStream) -> Self {
        Self(stream)
    }

    fn operation(&self, place: Place) -> Operation<'a, ForRoom> {
        // SAFETY: [OWNER] is `self`, and the operation goes where `self` goes.
        unsafe { Operation::new(self.0.source(), ForRoom, place) }
    }

    fn failed(&self, error: io::Error) -> io::Error {
        during("write to", Peer(self.0), error)
    }

    pub fn try_write(self, buf: &[u8]) -> io::Result<usize> {
        let written = self.0.source().ask(Direction::Write, &mut |ready| socket::send(ready, buf));
        written.map_err(|error| self.failed(error))
    }

    pub fn writable(self, place: Place) -> impl Future<Output = io::Result<()>> + Send + 'a {
        let mut operation = self.operation(place);
        poll_fn(move |cx| operation.poll(cx, socket::writable).map_err(|error| self.failed(error)))
    }

    pub fn write(self, buf: &'a [u8], place: Place) -> impl Future<Output = io::Result<usize>> + Send + 'a {
        let mut operation = self.operation(place);
        poll_fn(move |cx| operation.poll(cx, |ready| socket::send(ready, buf)).map_err(|error| self.failed(error)))
    }

    pub fn write_vectored<'b: 'a>(
        self,
        bufs: &'a [IoSlice<'b>],
        place: Place,
    ) -> impl Future<Output = io::Result<usize>> + Send + 'a {
        let mut operation = self.operation(place);
        poll_fn(move |cx| {
            operation.poll(cx, |ready| socket::send_vectored(ready, bufs)).map_err(|error| self.failed(error))
        })
    }

    pub fn write_all(self, buf: &'a [u8], place: Place) -> impl Future<Output = io::Result<()>> + Send + 'a {
        let mut operation = self.operation(place);
        let mut written = 0;
        poll_fn(move |cx| poll_write_all(cx, &mut operation, buf, &mut written).map_err(|error| self.failed(error)))
    }

    pub fn write_owned<B: IoBuf>(
        self,
        buf: B,
        place: Place,
    ) -> impl Future<Output = (io::Result<usize>, B)> + Send + use<'a, B> {
        let mut operation = self.operation(place);
        let mut owned = Some(buf);
        poll_fn(move |cx| {
            let bytes = owned.as_ref().expect("polled after it was ready").content();
            let result = ready!(operation.poll(cx, |ready| socket::send(ready, bytes)));
            Poll::Ready((result.map_err(|error| self.failed(error)), owned.take().expect("there a moment ago")))
        })
    }

    pub fn write_all_owned<B: IoBuf>(
        self,
        buf: B,
        place: Place,
    ) -> impl Future<Output = (io::Result<()>, B)> + Send + use<'a, B> {
        let mut operation = self.operation(place);
        let mut written = 0;
        let mut owned = Some(buf);
        poll_fn(move |cx| {
            let bytes = owned.as_ref().expect("polled after it was ready").content();
            let result = ready!(poll_write_all(cx, &mut operation, bytes, &mut written));
            Poll::Ready((result.map_err(|error| self.failed(error)), owned.take().expect("there a moment ago")))
        })
    }

    pub fn poll_write(self, cx: &mut Context<'_>, buf: &[u8], place: Place) -> Poll<io::Result<usize>> {
        // SAFETY: [OWNER] is `self`.
        let mut operation = unsafe { Operation::resume(self.0.source(), ForRoom, place) };
        operation.poll(cx, |ready| socket::send(ready, buf)).map_err(|error| self.failed(error))
    }

    pub fn poll_write_vectored(
        self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
        place: Place,
    ) -> Poll<io::Result<usize>> {
        // SAFETY: [OWNER] is `self`.
        let mut operation = unsafe { Operation::resume(self.0.source(), ForRoom, place) };
        operation.poll(cx, |ready| socket::send_vectored(ready, bufs)).map_err(|error| self.failed(error))
    }
}

fn poll_write_all(
    cx: &mut Context<'_>,
    operation: &mut Operation<'_, ForRoom>,
    bytes: &[u8],
    written: &mut usize,
) -> Poll<io::Result<()>> {
    if bytes.is_empty() {
        return operation.poll_start(cx);
    }
    loop {
        let rest = &bytes[*written..];
        match ready!(operation.poll(cx, |ready| socket::send(ready, rest)))? {
            0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            n => *written += n,
        }
        if *written == bytes.len() {
            return Poll::Ready(Ok(()));
        }
    }
}
