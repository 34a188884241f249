//! A connection.

use super::halves::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, WriteHalf};
use super::transfer::{Peer, Reading, Writing};
use super::{Connect, IntoStdError, Shutdown, TcpOptions, ToSocketAddr, into_std, socket};
use crate::buf::{IoBuf, IoBufMut};
use crate::error::during;
use crate::source::Source;
use futures_io::{AsyncRead, AsyncWrite};
use rustix::io::Errno;
use rustix::net::sockopt;
use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A TCP connection.
///
/// Dropping it closes it. It belongs to no run: see the [module](super).
///
/// # Examples
/// ```
/// # use trefoil_io::net::{TcpListener, TcpStream};
/// # trefoil_io::run(async {
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let mut client = TcpStream::connect(listener.local_addr()?).await?;
/// let (mut server, _) = listener.accept().await?;
///
/// client.write_all(b"ping").await?;
/// let mut buf = [0; 16];
/// let n = server.read(&mut buf).await?;
/// assert_eq!(&buf[..n], b"ping");
/// # Ok::<(), std::io::Error>(()) })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct TcpStream {
    source: Source,
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("TcpStream");
        match self.peer_addr() {
            Ok(peer) => debug.field("peer", &peer),
            Err(_) => debug.field("peer", &format_args!("gone")),
        };
        self.source.describe(&mut debug, ["waits_to_read", "waits_to_write"]);
        debug.finish()
    }
}

impl TcpStream {
    pub(crate) fn from_source(source: Source) -> Self {
        Self { source }
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    fn reading(&mut self) -> Reading<'_> {
        // SAFETY: `&mut self`.
        unsafe { Reading::new(self) }
    }

    fn writing(&mut self) -> Writing<'_> {
        // SAFETY: `&mut self`.
        unsafe { Writing::new(self) }
    }

    /// Connects to an address, with the options of [`TcpOptions::new`].
    ///
    /// # Examples
    /// ```
    /// # use trefoil_io::net::{TcpListener, TcpStream};
    /// # trefoil_io::run(async {
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let client = TcpStream::connect(listener.local_addr()?).await?;
    /// assert_eq!(client.peer_addr()?, listener.local_addr()?);
    ///
    /// drop(listener);
    /// let error = TcpStream::connect(client.peer_addr()?).await.unwrap_err();
    /// assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    /// # Ok::<(), std::io::Error>(()) })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// `connect to <address>: ...` with the kind of the system's error: `ConnectionRefused`, `TimedOut`, `NetworkUnreachable`, ...;
    /// `InvalidInput` for a name: resolve it first.
    ///
    /// # Cancellation
    /// Closes the socket. The peer may have seen a connection that comes and goes (R41).
    #[track_caller]
    pub fn connect(addr: impl ToSocketAddr) -> Connect {
        TcpOptions::new().connect(addr)
    }

    /// Reads what there is, as soon as there is something: how many bytes. 0 is the end, if the buffer has room.
    ///
    /// # Examples
    /// ```
    /// # use trefoil_io::net::{TcpListener, TcpStream};
    /// # trefoil_io::run(async {
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    /// # let client = TcpStream::connect(listener.local_addr()?).await?;
    /// # let (mut stream, _) = listener.accept().await?;
    /// drop(client);
    /// assert_eq!(stream.read(&mut [0; 64]).await?, 0);
    /// # Ok::<(), std::io::Error>(()) })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// `read from <peer>: ...`: `ConnectionReset`, `TimedOut`, ... After one, the next read is at the end.
    ///
    /// # Cancellation
    /// Nothing was read.
    #[track_caller]
    pub fn read<'a>(&'a mut self, buf: &'a mut [u8]) -> impl Future<Output = io::Result<usize>> + Send + 'a {
        self.reading().read(buf, Location::caller())
    }

    /// Waits until a read would not wait: bytes are there, the end, or an error. Then [`try_read`](Self::try_read) has it.
    ///
    /// So a connection that is idle needs no buffer: of 10,000 that wait, few have something to read at the same time.
    ///
    /// # Examples
    /// ```
    /// # use trefoil_io::net::{TcpListener, TcpStream};
    /// # trefoil_io::run(async {
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    /// # let mut client = TcpStream::connect(listener.local_addr()?).await?;
    /// # let (mut stream, _) = listener.accept().await?;
    /// client.write_all(b"hello").await?;
    /// stream.readable().await?;
    /// let mut buf = [0; 4096]; // not there while it waits
    /// let n = stream.try_read(&mut buf)?;
    /// assert_eq!(&buf[..n], b"hello");
    /// # Ok::<(), std::io::Error>(()) })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of the driver. An error of the connection is left for the next read.
    ///
    /// # Cancellation
    /// Nothing was read: nothing is, in any case.
    #[track_caller]
    pub fn readable(&mut self) -> impl Future<Output = io::Result<()>> + Send + '_ {
        self.reading().readable(Location::caller())
    }

    /// Reads what there is at this moment, without waiting: how many bytes. 0 is the end, if the buffer has room.
    ///
    /// Where a read has waited before, io_uring receives ahead: then it is what the loop had heard of when it last looked. Await something before you
    /// try again.
    ///
    /// # Examples
    /// ```
    /// # use trefoil_io::net::{TcpListener, TcpStream};
    /// # trefoil_io::run(async {
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    /// # let _client = TcpStream::connect(listener.local_addr()?).await?;
    /// # let (mut stream, _) = listener.accept().await?;
    /// let nothing = stream.try_read(&mut [0; 64]).unwrap_err();
    /// assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
    /// # Ok::<(), std::io::Error>(()) })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing; otherwise as for [`read`](Self::read).
    pub fn try_read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.reading().try_read(buf)
    }

    /// Reads into several buffers, one after the other; otherwise as [`read`](Self::read).
    ///
    /// # Examples
    /// ```
    /// # use trefoil_io::net::{TcpListener, TcpStream};
    /// # trefoil_io::run(async {
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    /// # let mut client = TcpStream::connect(listener.local_addr()?).await?;
    /// # let (mut stream, _) = listener.accept().await?;
    /// client.write_all(b"headbody").await?;
    /// let (mut head, mut body) = ([0; 4], [0; 16]);
    /// let n = stream.read_vectored(&mut [std::io::IoSliceMut::new(&mut head), std::io::IoSliceMut::new(&mut body)]).await?;
    /// assert_eq!((&head, &body[..n - 4]), (b"head", &b"body"[..]));
    /// # Ok::<(), std::io::Error>(()) })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`read`](Self::read).
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

    /// Fills the buffer, or reads nothing.
    ///
    /// # Examples
    /// ```
    /// # use trefoil_io::net::{TcpListener, TcpStream};
    /// # trefoil_io::run(async {
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    /// # let mut client = TcpStream::connect(listener.local_addr()?).await?;
    /// # let (mut stream, _) = listener.accept().await?;
    /// client.write_all(b"abc").await?;
    /// drop(client);
    /// let error = stream.read_exact(&mut [0; 4]).await.unwrap_err();
    /// assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    /// // The three bytes are still there.
    /// stream.read_exact(&mut [0; 3]).await?;
    /// # Ok::<(), std::io::Error>(()) })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// `UnexpectedEof` if the stream ends before; otherwise as for [`read`](Self::read). Whatever came before the error stays in the
    /// stream.
    ///
    /// # Cancellation
    /// Nothing was read: what had come already is there for the next read.
    #[track_caller]
    pub fn read_exact<'a>(&'a mut self, buf: &'a mut [u8]) -> impl Future<Output = io::Result<()>> + Send + 'a {
        self.reading().read_exact(buf, Location::caller())
    }

    /// Reads into the room behind the bytes of a buffer, which the operation owns meanwhile and gives back.
    ///
    /// # Examples
    /// ```
    /// # use trefoil_io::net::{TcpListener, TcpStream};
    /// # trefoil_io::run(async {
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    /// # let mut client = TcpStream::connect(listener.local_addr()?).await?;
    /// # let (mut stream, _) = listener.accept().await?;
    /// client.write_all(b"hello").await?;
    /// let (result, buf) = stream.read_owned(Vec::with_capacity(1024)).await;
    /// assert_eq!(result?, 5);
    /// assert_eq!(buf, b"hello");
    /// # Ok::<(), std::io::Error>(()) })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidInput` if there is no room; otherwise as for [`read`](Self::read). The buffer comes back unchanged.
    ///
    /// # Cancellation
    /// Nothing was read, and the buffer comes back unchanged. If the future is dropped instead, the buffer is gone; bytes that
    /// came are there for the next read.
    #[track_caller]
    pub fn read_owned<B: IoBufMut>(
        &mut self,
        buf: B,
    ) -> impl Future<Output = (io::Result<usize>, B)> + Send + use<'_, B> {
        self.reading().read_owned(buf, Location::caller())
    }

    /// Writes what there is room for, as soon as there is some: how many bytes.
    ///
    /// # Examples
    /// ```
    /// # use trefoil_io::net::{TcpListener, TcpStream};
    /// # trefoil_io::run(async {
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    /// # let mut stream = TcpStream::connect(listener.local_addr()?).await?;
    /// assert_eq!(stream.write(b"hello").await?, 5);
    /// # Ok::<(), std::io::Error>(()) })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// `write to <peer>: ...`: `BrokenPipe` (never a `SIGPIPE`), `ConnectionReset`, ...
    ///
    /// # Cancellation
    /// Nothing was written.
    #[track_caller]
    pub fn write<'a>(&'a mut self, buf: &'a [u8]) -> impl Future<Output = io::Result<usize>> + Send + 'a {
        self.writing().write(buf, Location::caller())
    }

    /// Waits until a write would not wait: there is room, or an error. Then [`try_write`](Self::try_write) takes something, or says what is
    /// wrong.
    ///
    /// So what is written can be made when there is room for it, from what is newest then. The kernel says so when a good part of its buffer is free, and not
    /// for each byte.
    ///
    /// # Examples
    /// ```
    /// # use trefoil_io::net::{TcpListener, TcpStream};
    /// # trefoil_io::run(async {
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    /// # let mut stream = TcpStream::connect(listener.local_addr()?).await?;
    /// stream.writable().await?;
    /// assert_eq!(stream.try_write(b"hello")?, 5);
    /// # Ok::<(), std::io::Error>(()) })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of the driver. An error of the connection is left for the next write.
    ///
    /// # Cancellation
    /// Nothing was written: nothing is, in any case.
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
    /// # let mut stream = TcpStream::connect(listener.local_addr()?).await?;
    /// assert_eq!(stream.try_write(b"hello")?, 5);
    /// # Ok::<(), std::io::Error>(()) })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// `WouldBlock` if there is no room; otherwise as for [`write`](Self::write).
    pub fn try_write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.writing().try_write(buf)
    }

    /// Writes of several buffers, one after the other; otherwise as [`write`](Self::write).
    ///
    /// # Examples
    /// ```
    /// # use trefoil_io::net::{TcpListener, TcpStream};
    /// # trefoil_io::run(async {
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    /// # let mut stream = TcpStream::connect(listener.local_addr()?).await?;
    /// let n = stream.write_vectored(&[std::io::IoSlice::new(b"head"), std::io::IoSlice::new(b"body")]).await?;
    /// assert_eq!(n, 8);
    /// # Ok::<(), std::io::Error>(()) })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`write`](Self::write).
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

    /// Writes the whole buffer.
    ///
    /// # Examples
    /// ```
    /// # use trefoil_io::net::{TcpListener, TcpStream};
    /// # trefoil_io::run(async {
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    /// # let mut stream = TcpStream::connect(listener.local_addr()?).await?;
    /// stream.write_all(b"all of it").await?;
    /// # Ok::<(), std::io::Error>(()) })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    ///
    /// # Cancellation
    /// A part may have been written, and it is unknown how much (R41): the stream is good for nothing but closing. Where that
    /// matters, call [`write`](Self::write) in a loop.
    #[track_caller]
    pub fn write_all<'a>(&'a mut self, buf: &'a [u8]) -> impl Future<Output = io::Result<()>> + Send + 'a {
        self.writing().write_all(buf, Location::caller())
    }

    /// Writes of a buffer that the operation owns meanwhile, and gives back; otherwise as [`write`](Self::write).
    ///
    /// # Examples
    /// ```
    /// # use trefoil_io::net::{TcpListener, TcpStream};
    /// # trefoil_io::run(async {
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    /// # let mut stream = TcpStream::connect(listener.local_addr()?).await?;
    /// let (result, buf) = stream.write_owned(vec![1, 2, 3]).await;
    /// assert_eq!((result?, buf), (3, vec![1, 2, 3]));
    /// # Ok::<(), std::io::Error>(()) })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    ///
    /// # Cancellation
    /// Nothing was written.
    #[track_caller]
    pub fn write_owned<B: IoBuf>(
        &mut self,
        buf: B,
    ) -> impl Future<Output = (io::Result<usize>, B)> + Send + use<'_, B> {
        self.writing().write_owned(buf, Location::caller())
    }

    /// Writes the whole of a buffer that the operation owns meanwhile, and gives back; otherwise as [`write_all`](Self::write_all).
    ///
    /// # Examples
    /// ```
    /// # use trefoil_io::net::{TcpListener, TcpStream};
    /// # trefoil_io::run(async {
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    /// # let mut stream = TcpStream::connect(listener.local_addr()?).await?;
    /// let (result, buf) = stream.write_all_owned(vec![0; 100]).await;
    /// result?;
    /// assert_eq!(buf.len(), 100);
    /// # Ok::<(), std::io::Error>(()) })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    ///
    /// # Cancellation
    /// As for [`write_all`](Self::write_all).
    #[track_caller]
    pub fn write_all_owned<B: IoBuf>(
        &mut self,
        buf: B,
    ) -> impl Future<Output = (io::Result<()>, B)> + Send + use<'_, B> {
        self.writing().write_all_owned(buf, Location::caller())
    }

    /// Ends one direction, or both, at once: who waits in it is woken, and the peer of a shut down writer reads the end.
    /// To be repeated without harm.
    ///
    /// # Examples
    /// ```
    /// # use trefoil_io::net::{Shutdown, TcpListener, TcpStream};
    /// # trefoil_io::run(async {
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    /// # let stream = TcpStream::connect(listener.local_addr()?).await?;
    /// # let (mut peer, _) = listener.accept().await?;
    /// stream.shutdown(Shutdown::Write)?;
    /// assert_eq!(peer.read(&mut [0; 8]).await?, 0);
    /// # Ok::<(), std::io::Error>(()) })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of shutdown(2), but for a connection that is gone already.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let sys = match how {
            Shutdown::Read => rustix::net::Shutdown::Read,
            Shutdown::Write => rustix::net::Shutdown::Write,
            Shutdown::Both => rustix::net::Shutdown::Both,
        };
        match rustix::net::shutdown(self, sys) {
            Ok(()) | Err(Errno::NOTCONN) => Ok(()),
            Err(error) => Err(during("shut down", Peer(self), error.into())),
        }
    }

    /// The address of the other side. Known also when the connection is gone.
    ///
    /// # Errors
    /// `NotConnected` for a stream that was made from a socket that was not connected.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match self.source.peer() {
            Some(addr) => Ok(addr),
            None => socket::peer_addr(self.as_fd()),
        }
    }

    /// The address of this side.
    ///
    /// # Errors
    /// Those of getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        socket::local_addr(self.as_fd())
    }

    /// Whether small writes go out at once: see [`TcpOptions::nodelay`].
    ///
    /// # Errors
    /// Those of getsockopt(2).
    pub fn nodelay(&self) -> io::Result<bool> {
        Ok(sockopt::tcp_nodelay(self)?)
    }

    /// Sets whether small writes go out at once: see [`TcpOptions::nodelay`].
    ///
    /// # Errors
    /// Those of setsockopt(2).
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        Ok(sockopt::set_tcp_nodelay(self, nodelay)?)
    }

    /// A reader and a writer that may be used at the same time, as long as this borrow lasts.
    ///
    /// # Examples
    /// ```
    /// # use trefoil_io::net::{TcpListener, TcpStream};
    /// # trefoil_io::run(async {
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    /// # let mut stream = TcpStream::connect(listener.local_addr()?).await?;
    /// # let (mut peer, _) = listener.accept().await?;
    /// let (mut reader, mut writer) = stream.split();
    /// # peer.write_all(b"in").await?;
    /// writer.write_all(b"out").await?;
    /// reader.read(&mut [0; 8]).await?;
    /// # Ok::<(), std::io::Error>(()) })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        // SAFETY: `&mut self`, and there is one of each.
        unsafe { (ReadHalf::new(self), WriteHalf::new(self)) }
    }

    /// A reader and a writer that go their own ways. The connection is closed when both are dropped.
    ///
    /// # Examples
    /// ```
    /// # use trefoil_io::net::{TcpListener, TcpStream};
    /// # trefoil_io::run(async {
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    /// # let stream = TcpStream::connect(listener.local_addr()?).await?;
    /// # let (mut peer, _) = listener.accept().await?;
    /// let (reader, mut writer) = stream.into_split();
    /// writer.write_all(b"out").await?;
    /// let stream = reader.reunite(writer).unwrap();
    /// # drop(stream);
    /// # Ok::<(), std::io::Error>(()) })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        super::halves::into_split(self)
    }

    /// Takes a connection of std, and makes it non-blocking.
    ///
    /// # Examples
    /// ```
    /// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let stream = std::net::TcpStream::connect(listener.local_addr()?)?;
    /// let stream = trefoil_io::net::TcpStream::from_std(stream)?;
    /// # drop(stream);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of making it non-blocking.
    pub fn from_std(stream: std::net::TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let peer = stream.peer_addr().ok();
        Ok(Self::from_source(Source::connected(stream.into(), peer)))
    }

    /// Takes the socket out of the runtime. It stays non-blocking.
    ///
    /// # Errors
    /// If the driver has received bytes or an error ahead, or a [`read_exact`](Self::read_exact) was cancelled: they would be lost. Or if it
    /// receives on another thread. The stream comes back in the error.
    pub fn into_std(self) -> Result<std::net::TcpStream, IntoStdError<Self>> {
        into_std::into_std(self.source, Self::from_source)
    }
}

impl AsFd for TcpStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.fd()
    }
}

impl AsRawFd for TcpStream {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// Implements the traits of futures-io on what has `reading`, or `writing`.
macro_rules! futures_io {
    (read: $type:ty) => {
        impl AsyncRead for $type {
            #[track_caller]
            fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
                self.reading().poll_read(cx, buf, Location::caller())
            }

            #[track_caller]
            fn poll_read_vectored(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &mut [IoSliceMut<'_>],
            ) -> Poll<io::Result<usize>> {
                self.reading().poll_read_vectored(cx, bufs, Location::caller())
            }
        }
    };
    (write: $type:ty) => {
        impl AsyncWrite for $type {
            #[track_caller]
            fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                self.writing().poll_write(cx, buf, Location::caller())
            }

            #[track_caller]
            fn poll_write_vectored(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                self.writing().poll_write_vectored(cx, bufs, Location::caller())
            }

            /// There is nothing to flush: what was written is the kernel's.
            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }

            /// Shuts the writing direction down. Works in a cancelled scope too (R42).
            fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(self.shutdown(Shutdown::Write))
            }
        }
    };
}
pub(super) use futures_io;

futures_io!(read: TcpStream);
futures_io!(write: TcpStream);
