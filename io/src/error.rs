//! Errors that say what was attempted, and on what.

use rustix::io::Errno;
use std::error::Error;
use std::fmt;
use std::io;
use trefoil_runtime::ErrorGroup;

/// An I/O error with what was attempted, and on what: what the operations of this crate put inside of their `io::Error`s.
///
/// The `io::Error` around it has the kind of the cause. Its `raw_os_error()` is `None`, as for every error with a payload; the code of
/// the system is here. A cancellation is never wrapped: it stays a bare `ECANCELED`.
///
/// ```
/// use trefoil_io::{OperationError, net::TcpListener};
///
/// let taken = TcpListener::bind("127.0.0.1:0")?;
/// let error = TcpListener::bind(taken.local_addr()?).unwrap_err();
/// assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
/// assert!(error.to_string().starts_with("bind 127.0.0.1:"));
/// assert_eq!(OperationError::of(&error).unwrap().raw_os_error(), Some(98)); // EADDRINUSE
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct OperationError {
    operation: &'static str,
    on: String,
    source: io::Error,
}

impl OperationError {
    /// What is inside of an `io::Error` of this crate, also where `?` has made that of the errors of a nursery: then the first. `None` if it is
    /// another's, or a cancellation.
    pub fn of(error: &io::Error) -> Option<&OperationError> {
        let inner = error.get_ref()?;
        match inner.downcast_ref::<ErrorGroup<io::Error>>() {
            Some(group) => Self::of(group.first()),
            None => inner.downcast_ref(),
        }
    }

    /// What was attempted: `bind`, `connect to`, `read from`.
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// On what: an address, or `fd 7` where there is none.
    pub fn on(&self) -> &str {
        &self.on
    }

    /// The code of the system, if the error is one of the system's.
    pub fn raw_os_error(&self) -> Option<i32> {
        self.source.raw_os_error()
    }
}

impl fmt::Display for OperationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.operation, self.on, self.source)
    }
}

impl Error for OperationError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

/// Says what was attempted. A cancellation stays as it is, and so does what has said it before.
pub(crate) fn during(operation: &'static str, on: impl fmt::Display, error: io::Error) -> io::Error {
    if error.raw_os_error() == Some(trefoil_runtime::ECANCELED) || OperationError::of(&error).is_some() {
        return error;
    }
    io::Error::new(error.kind(), OperationError { operation, on: on.to_string(), source: error })
}

/// Whether an error is this one of the system's. It is asked after each attempt that fails, nearly always of a number; [`io::Error::kind`] is a call,
/// and goes through all that there are.
#[inline]
pub(crate) fn is(error: &io::Error, errno: Errno) -> bool {
    match error.raw_os_error() {
        Some(code) => code == errno.raw_os_error(),
        None => error.kind() == errno.kind(),
    }
}

/// Polled where no run is.
#[cold]
pub(crate) fn outside() -> io::Error {
    io::Error::other(
        "polled outside of a run: await it in a future that `trefoil::run` drives, on the thread that drives it",
    )
}

/// Polled in a run over another driver than ours.
#[cold]
pub(crate) fn no_reactor() -> io::Error {
    io::Error::other(
        "this run has no I/O: start it with `trefoil::run` or a `Builder`, not over the driver of the bare runtime; in a test, with `#[trefoil::test(real)]`, or use `testing::memory_stream_pair`",
    )
}
