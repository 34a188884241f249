//! Out of the runtime, or not.

use crate::source::Source;
use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

/// A socket that could not be taken out of the runtime, and why.
///
/// Nothing has changed: the socket is inside, and can be used on. `?` turns it into the `io::Error`, and closes the socket.
///
/// # Examples
/// ```
/// # use trefoil_io::net::{TcpListener, TcpStream};
/// # trefoil_io::run(async {
/// # let listener = TcpListener::bind("127.0.0.1:0")?;
/// # let mut client = TcpStream::connect(listener.local_addr()?).await?;
/// # let (mut stream, _) = listener.accept().await?;
/// client.write_all(b"ab").await?;
/// client.shutdown(std::net::Shutdown::Write)?;
/// // There are two bytes, not three: they go back into the stream.
/// stream.read_exact(&mut [0; 3]).await.unwrap_err();
///
/// let mut stream = stream.into_std().unwrap_err().into_inner();
/// stream.read_exact(&mut [0; 2]).await?;
/// let stream: std::net::TcpStream = stream.into_std()?;
/// # drop(stream);
/// # Ok::<(), std::io::Error>(()) })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct IntoStdError<S> {
    socket: S,
    error: io::Error,
}

impl<S> IntoStdError<S> {
    /// Why.
    pub fn error(&self) -> &io::Error {
        &self.error
    }

    /// The socket.
    pub fn into_inner(self) -> S {
        self.socket
    }

    /// The reason and the socket.
    pub fn into_parts(self) -> (io::Error, S) {
        (self.error, self.socket)
    }
}

impl<S> fmt::Display for IntoStdError<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<S: fmt::Debug> Error for IntoStdError<S> {}

impl<S> From<IntoStdError<S>> for io::Error {
    fn from(error: IntoStdError<S>) -> Self {
        error.error
    }
}

/// Takes a socket apart, and puts it together again if that fails.
pub(super) fn into_std<S, T: From<OwnedFd>>(
    source: Source,
    socket: impl FnOnce(Source) -> S,
) -> Result<T, IntoStdError<S>> {
    source.into_fd().map(T::from).map_err(|(source, error)| IntoStdError { socket: socket(source), error })
}
