//! The two directions of a connection, apart.

use super::stream::futures_io;
use super::transfer::{Reading, Writing};
use super::{Shutdown, TcpStream};
use crate::buf::{IoBuf, IoBufMut};
use futures_io::{AsyncRead, AsyncWrite};
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// The reading direction of a stream that is borrowed: see [`TcpStream::split`].
#[derive(Debug)]
pub struct ReadHalf<'s> {
    stream: &'s TcpStream,
}

/// The writing direction of a stream that is borrowed: see [`TcpStream::split`].
///
/// Dropping it shuts nothing down.
#[derive(Debug)]
pub struct WriteHalf<'s> {
    stream: &'s TcpStream,
}

/// The reading direction of a stream: see [`TcpStream::into_split`].
#[derive(Debug)]
pub struct OwnedReadHalf {
    stream: Arc<TcpStream>,
}

/// The writing direction of a stream: see [`TcpStream::into_split`].
///
/// Dropping it shuts its direction down, so that the peer reads the end.
#[derive(Debug)]
pub struct OwnedWriteHalf {
    stream: Arc<TcpStream>,
}

impl<'s> ReadHalf<'s> {
    /// # Safety
    /// It is the only one that reads, for `'s`.
    pub(super) unsafe fn new(stream: &'s TcpStream) -> Self {
        Self { stream }
    }
}

impl<'s> WriteHalf<'s> {
    /// # Safety
    /// It is the only one that writes, for `'s`.
    pub(super) unsafe fn new(stream: &'s TcpStream) -> Self {
        Self { stream }
    }
}

pub(super) fn into_split(stream: TcpStream) -> (OwnedReadHalf, OwnedWriteHalf) {
    let stream = Arc::new(stream);
    (OwnedReadHalf { stream: stream.clone() }, OwnedWriteHalf { stream })
}

/// The operations of a half that reads.
macro_rules! reads {
    ($($half:tt)+) => {
        impl $($half)+ {
            fn reading(&mut self) -> Reading<'_> {
                // SAFETY: there is one reading half, and this is `&mut` of it.
                unsafe { Reading::new(&self.stream) }
            }

            /// Reads what there is, as [`TcpStream::read`] does.
            ///
            /// # Errors
            /// As for [`TcpStream::read`].
            ///
            /// # Cancellation
            /// Nothing was read.
            #[track_caller]
            pub fn read<'a>(&'a mut self, buf: &'a mut [u8]) -> impl Future<Output = io::Result<usize>> + Send + 'a {
                self.read_for(buf, Location::caller())
            }

            /// The same on behalf of code at another place.
            #[doc(hidden)]
            pub fn read_for<'a>(
                &'a mut self,
                buf: &'a mut [u8],
                place: &'static Location<'static>,
            ) -> impl Future<Output = io::Result<usize>> + Send + 'a {
                self.reading().read(buf, place)
            }

            /// Waits until a read would not wait, as [`TcpStream::readable`] does.
            ///
            /// # Errors
            /// As for [`TcpStream::readable`].
            ///
            /// # Cancellation
            /// Nothing was read.
            #[track_caller]
            pub fn readable(&mut self) -> impl Future<Output = io::Result<()>> + Send + '_ {
                self.reading().readable(Location::caller())
            }

            /// Reads what there is at this moment, as [`TcpStream::try_read`] does.
            ///
            /// # Errors
            /// As for [`TcpStream::try_read`].
            pub fn try_read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                self.reading().try_read(buf)
            }

            /// Reads into several buffers, as [`TcpStream::read_vectored`] does.
            ///
            /// # Errors
            /// As for [`TcpStream::read`].
            ///
            /// # Cancellation
            /// Nothing was read.
            #[track_caller]
            pub fn read_vectored<'a, 'b: 'a>(
                &'a mut self,
                bufs: &'a mut [IoSliceMut<'b>],
            ) -> impl Future<Output = io::Result<usize>> + Send + 'a {
                self.reading().read_vectored(bufs, Location::caller())
            }

            /// Fills the buffer or reads nothing, as [`TcpStream::read_exact`] does.
            ///
            /// # Errors
            /// As for [`TcpStream::read_exact`].
            ///
            /// # Cancellation
            /// Nothing was read.
            #[track_caller]
            pub fn read_exact<'a>(&'a mut self, buf: &'a mut [u8]) -> impl Future<Output = io::Result<()>> + Send + 'a {
                self.reading().read_exact(buf, Location::caller())
            }

            /// Reads into a buffer that the operation owns, as [`TcpStream::read_owned`] does.
            ///
            /// # Errors
            /// As for [`TcpStream::read_owned`].
            ///
            /// # Cancellation
            /// As for [`TcpStream::read_owned`].
            #[track_caller]
            pub fn read_owned<'a, B: IoBufMut>(&'a mut self, buf: B) -> impl Future<Output = (io::Result<usize>, B)> + Send + 'a {
                self.reading().read_owned(buf, Location::caller())
            }
        }

        common!($($half)+);
        futures_io!(read: only!($($half)+));
    };
}

/// The operations of a half that writes.
macro_rules! writes {
    ($($half:tt)+) => {
        impl $($half)+ {
            fn writing(&mut self) -> Writing<'_> {
                // SAFETY: there is one writing half, and this is `&mut` of it.
                unsafe { Writing::new(&self.stream) }
            }

            /// Writes what there is room for, as [`TcpStream::write`] does.
            ///
            /// # Errors
            /// As for [`TcpStream::write`].
            ///
            /// # Cancellation
            /// Nothing was written.
            #[track_caller]
            pub fn write<'a>(&'a mut self, buf: &'a [u8]) -> impl Future<Output = io::Result<usize>> + Send + 'a {
                self.write_for(buf, Location::caller())
            }

            /// The same on behalf of code at another place.
            #[doc(hidden)]
            pub fn write_for<'a>(
                &'a mut self,
                buf: &'a [u8],
                place: &'static Location<'static>,
            ) -> impl Future<Output = io::Result<usize>> + Send + 'a {
                self.writing().write(buf, place)
            }

            /// Waits until a write would not wait, as [`TcpStream::writable`] does.
            ///
            /// # Errors
            /// As for [`TcpStream::writable`].
            ///
            /// # Cancellation
            /// Nothing was written.
            #[track_caller]
            pub fn writable(&mut self) -> impl Future<Output = io::Result<()>> + Send + '_ {
                self.writing().writable(Location::caller())
            }

            /// Writes what there is room for at this moment, without waiting: how many bytes.
            ///
            /// # Examples
            /// ```
            /// # use trefoil_io::net::{TcpListener, TcpStream};
            /// # trefoil_io::run(async {
            /// # let listener = TcpListener::bind("127.0.0.1:0")?;
            /// # let stream = TcpStream::connect(listener.local_addr()?).await?;
            /// let (_reader, mut writer) = stream.into_split();
            /// assert_eq!(writer.try_write(b"hello")?, 5);
            /// # Ok::<(), std::io::Error>(()) })?;
            /// # Ok::<(), std::io::Error>(())
            /// ```
            ///
            /// # Errors
            /// `WouldBlock` if there is no room; otherwise as for [`TcpStream::write`].
            pub fn try_write(&mut self, buf: &[u8]) -> io::Result<usize> {
                self.writing().try_write(buf)
            }

            /// Writes of several buffers, as [`TcpStream::write_vectored`] does.
            ///
            /// # Errors
            /// As for [`TcpStream::write`].
            ///
            /// # Cancellation
            /// Nothing was written.
            #[track_caller]
            pub fn write_vectored<'a, 'b: 'a>(
                &'a mut self,
                bufs: &'a [IoSlice<'b>],
            ) -> impl Future<Output = io::Result<usize>> + Send + 'a {
                self.writing().write_vectored(bufs, Location::caller())
            }

            /// Writes the whole buffer, as [`TcpStream::write_all`] does.
            ///
            /// # Errors
            /// As for [`TcpStream::write`].
            ///
            /// # Cancellation
            /// As for [`TcpStream::write_all`].
            #[track_caller]
            pub fn write_all<'a>(&'a mut self, buf: &'a [u8]) -> impl Future<Output = io::Result<()>> + Send + 'a {
                self.writing().write_all(buf, Location::caller())
            }

            /// Writes of a buffer that the operation owns, as [`TcpStream::write_owned`] does.
            ///
            /// # Errors
            /// As for [`TcpStream::write`].
            ///
            /// # Cancellation
            /// Nothing was written.
            #[track_caller]
            pub fn write_owned<'a, B: IoBuf>(&'a mut self, buf: B) -> impl Future<Output = (io::Result<usize>, B)> + Send + 'a {
                self.writing().write_owned(buf, Location::caller())
            }

            /// Writes the whole of a buffer that the operation owns, as [`TcpStream::write_all_owned`] does.
            ///
            /// # Errors
            /// As for [`TcpStream::write`].
            ///
            /// # Cancellation
            /// As for [`TcpStream::write_all`].
            #[track_caller]
            pub fn write_all_owned<'a, B: IoBuf>(&'a mut self, buf: B) -> impl Future<Output = (io::Result<()>, B)> + Send + 'a {
                self.writing().write_all_owned(buf, Location::caller())
            }

            /// Ends one direction of the stream, or both, as [`TcpStream::shutdown`] does.
            ///
            /// # Errors
            /// As for [`TcpStream::shutdown`].
            pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
                self.stream.shutdown(how)
            }
        }

        common!($($half)+);
        futures_io!(write: only!($($half)+));
    };
}

/// What both have.
macro_rules! common {
    ($($half:tt)+) => {
        impl $($half)+ {
            /// The address of the other side, as [`TcpStream::peer_addr`] has it.
            ///
            /// # Errors
            /// As for [`TcpStream::peer_addr`].
            pub fn peer_addr(&self) -> io::Result<SocketAddr> {
                self.stream.peer_addr()
            }

            /// The address of this side.
            ///
            /// # Errors
            /// As for [`TcpStream::local_addr`].
            pub fn local_addr(&self) -> io::Result<SocketAddr> {
                self.stream.local_addr()
            }
        }

        impl AsFd for $($half)+ {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.stream.as_fd()
            }
        }

        impl AsRawFd for $($half)+ {
            fn as_raw_fd(&self) -> RawFd {
                self.stream.as_raw_fd()
            }
        }
    };
}

macro_rules! only {
    ($half:ty) => {
        $half
    };
}

reads!(ReadHalf<'_>);
reads!(OwnedReadHalf);
writes!(WriteHalf<'_>);
writes!(OwnedWriteHalf);

impl OwnedReadHalf {
    /// Makes one stream again of its two halves.
    ///
    /// # Errors
    /// [`ReuniteError`], with both halves inside, if they are not of one stream.
    pub fn reunite(self, writer: OwnedWriteHalf) -> Result<TcpStream, ReuniteError> {
        if !Arc::ptr_eq(&self.stream, &writer.stream) {
            return Err(ReuniteError { reader: self, writer });
        }
        drop(writer.forget());
        Ok(Arc::into_inner(self.stream).expect("a stream has two halves"))
    }
}

impl OwnedWriteHalf {
    /// The stream, without shutting down.
    fn forget(self) -> Arc<TcpStream> {
        let this = ManuallyDrop::new(self);
        // SAFETY: `this` is not dropped, and not used again.
        unsafe { std::ptr::read(&this.stream) }
    }

    /// Drops it without shutting its direction down.
    pub fn leave_open(self) {
        drop(self.forget());
    }
}

impl Drop for OwnedWriteHalf {
    fn drop(&mut self) {
        // A connection that is gone need not be shut down.
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}

/// Two halves that are not of one stream.
///
/// # Examples
/// ```
/// # use trefoil_io::net::{TcpListener, TcpStream};
/// # trefoil_io::run(async {
/// # let listener = TcpListener::bind("127.0.0.1:0")?;
/// let (reader, _writer) = TcpStream::connect(listener.local_addr()?).await?.into_split();
/// let (_reader, writer) = TcpStream::connect(listener.local_addr()?).await?.into_split();
/// let error = reader.reunite(writer).unwrap_err();
/// let (_reader, _writer) = (error.reader, error.writer);
/// # Ok::<(), std::io::Error>(()) })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct ReuniteError {
    /// The reader.
    pub reader: OwnedReadHalf,
    /// The writer.
    pub writer: OwnedWriteHalf,
}

impl fmt::Display for ReuniteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the halves of two different streams cannot be made one")
    }
}

impl Error for ReuniteError {}
