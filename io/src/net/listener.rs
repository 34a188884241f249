//! A socket that listens.

use super::{IntoStdError, TcpOptions, TcpStream, ToSocketAddr, into_std, socket};
use crate::error::during;
use crate::operation::Operation;
use crate::source::others::Another;
use crate::source::{ForConnection, Source, Want};
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::panic::Location;

/// A TCP socket that listens.
///
/// It belongs to no run: one that was bound outside of all runs, or whose run has ended, serves in the next. Dropping it closes it,
/// and with it the connections that nobody has accepted.
///
/// On io_uring the driver goes on accepting between one [`accept`](Self::accept) that waited and the next, and keeps a few dozen
/// connections for it; no more when an `accept` was cancelled or dropped. On a socket that is shared (duplicated, or inherited by other
/// processes) whoever takes a connection first has it, and such are not seen by the others: where each should take only what it
/// serves at once, give each its own socket with [`reuse_port`](TcpOptions::reuse_port).
///
/// # Examples
/// ```
/// use trefoil_io::net::{TcpListener, TcpStream};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// trefoil_io::run(async {
///     let client = TcpStream::connect(listener.local_addr()?).await?;
///     let (server, peer) = listener.accept().await?;
///     assert_eq!(peer, client.local_addr()?);
///     # drop(server);
///     # Ok::<(), std::io::Error>(())
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct TcpListener {
    source: Source,
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("TcpListener");
        match self.local_addr() {
            Ok(addr) => debug.field("at", &addr),
            Err(_) => debug.field("at", &format_args!("gone")),
        };
        self.source.describe(&mut debug, ["waits_to_accept"]);
        debug.finish()
    }
}

/// The address of a listener, for an error.
struct At<'a>(&'a TcpListener);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.local_addr() {
            Ok(addr) => write!(f, "{addr}"),
            Err(_) => write!(f, "fd {}", self.0.as_raw_fd()),
        }
    }
}

impl TcpListener {
    pub(crate) fn from_socket(fd: OwnedFd) -> Self {
        Self { source: Source::new(fd) }
    }

    /// Listens at an address, with the options of [`TcpOptions::new`]. Port 0 is one that is free. Does not wait, and
    /// needs no run.
    ///
    /// # Examples
    /// ```
    /// let listener = trefoil_io::net::TcpListener::bind("127.0.0.1:0")?;
    /// assert!(listener.local_addr()?.ip().is_loopback());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`TcpOptions::listen`].
    pub fn bind(addr: impl ToSocketAddr) -> io::Result<Self> {
        TcpOptions::new().listen(addr)
    }

    /// Waits for a connection, and takes it.
    ///
    /// Several tasks may wait here. A connection wakes all of them, the one that has waited longest first; one that calls this just then may be
    /// faster. A few are fine; threads had better have a socket each, with [`reuse_port`](TcpOptions::reuse_port).
    ///
    /// # Examples
    /// ```
    /// # use trefoil_io::net::{TcpListener, TcpStream};
    /// # trefoil_io::run(async {
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let client = TcpStream::connect(listener.local_addr()?).await?;
    /// let (server, peer) = listener.accept().await?;
    /// assert_eq!(server.peer_addr()?, peer);
    /// # Ok::<(), std::io::Error>(()) })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// Connections that were lost before they were accepted are passed over. What remains:
    ///
    /// - out of descriptors or memory (`EMFILE`, `ENFILE`, `ENOBUFS`, `ENOMEM`: see [`OperationError::raw_os_error`]). The connection stays
    ///   in the backlog, and this call fails at once until something is freed: sleep a while, 100 ms say, and go on accepting;
    /// - `PermissionDenied`: a sandbox forbids to accept. (A firewall that forbids a connection is not heard of, unless it forbids many in a row.)
    /// - errors of the listener itself.
    ///
    /// [`OperationError::raw_os_error`]: crate::OperationError::raw_os_error
    ///
    /// # Cancellation
    /// A connection that was not returned was not accepted: it waits for the next call.
    #[track_caller]
    pub fn accept(&self) -> impl Future<Output = io::Result<(TcpStream, SocketAddr)>> + Send + '_ {
        self.accept_for(Location::caller())
    }

    /// The same on behalf of code at another place.
    #[doc(hidden)]
    pub async fn accept_for(&self, place: &'static Location<'static>) -> io::Result<(TcpStream, SocketAddr)> {
        let mut refused = 0;
        let accepted = match self.source.claim() {
            Some(_claim) => {
                // SAFETY: [OWNER] is who has the claim, which outlives the operation.
                let mut operation = unsafe { Operation::new(&self.source, ForConnection, place) };
                poll_fn(|cx| operation.poll(cx, |ready| socket::accept(ready, &mut refused))).await
            }
            None => {
                let mut operation = Another::new(&self.source, Want::Connection, place);
                poll_fn(|cx| operation.poll(cx, |ready| socket::accept(ready, &mut refused))).await
            }
        };
        let (fd, peer) = accepted.map_err(|error| during("accept on", At(self), error))?;
        Ok((TcpStream::from_source(Source::connected(fd, Some(peer))), peer))
    }

    /// The address it listens at, with the port that was found for port 0.
    ///
    /// # Errors
    /// Those of getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        socket::local_addr(self.as_fd())
    }

    /// Takes a listener of std, and makes it non-blocking.
    ///
    /// # Examples
    /// ```
    /// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let listener = trefoil_io::net::TcpListener::from_std(listener)?;
    /// # drop(listener);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of making it non-blocking.
    pub fn from_std(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self::from_socket(listener.into()))
    }

    /// Takes the socket out of the runtime. It stays non-blocking.
    ///
    /// # Errors
    /// If the driver has accepted connections ahead, which would be lost, or accepts on another thread. The listener comes back in the error.
    pub fn into_std(self) -> Result<std::net::TcpListener, IntoStdError<Self>> {
        into_std::into_std(self.source, |source| Self { source })
    }
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.fd()
    }
}

impl AsRawFd for TcpListener {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
