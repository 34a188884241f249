//! What a send or a receive of a channel fails with.

use std::error::Error;
use std::fmt;
use std::io;
use trefoil_runtime::Cancelled;

/// An item was not sent. It is in here (N6).
///
/// Not each of them is a failure: a cancellation is to be passed on, which the conversion to [`io::Error`] does, and `map_err(|_| ..)` does not.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SendError<T> {
    /// The scope was cancelled.
    Cancelled(Cancelled, T),
    /// All receivers are gone.
    Closed(T),
    /// This sender was closed.
    HandleClosed(T),
}

/// An item was not sent at once. It is in here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TrySendError<T> {
    /// There is no room, or others wait for it already.
    Full(T),
    /// All receivers are gone.
    Closed(T),
    /// This sender was closed.
    HandleClosed(T),
}

/// There was no item at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryRecvError {
    /// There is none now.
    Empty,
    /// There never will be: all senders are gone.
    Closed,
    /// This receiver was closed.
    HandleClosed,
}

impl<T> SendError<T> {
    /// The item.
    pub fn into_inner(self) -> T {
        match self {
            SendError::Cancelled(_, item) | SendError::Closed(item) | SendError::HandleClosed(item) => item,
        }
    }
}

impl<T> TrySendError<T> {
    /// The item.
    pub fn into_inner(self) -> T {
        match self {
            TrySendError::Full(item) | TrySendError::Closed(item) | TrySendError::HandleClosed(item) => item,
        }
    }
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendError::Cancelled(..) => "Cancelled(..)",
            SendError::Closed(_) => "Closed(..)",
            SendError::HandleClosed(_) => "HandleClosed(..)",
        })
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendError::Cancelled(..) => "the send was cancelled; its item comes back in the error",
            SendError::Closed(_) => "the channel has no receiver any more; the item comes back in the error",
            SendError::HandleClosed(_) => "this sender was closed; the item comes back in the error",
        })
    }
}

static CANCELLED: Cancelled = Cancelled::delivered();

impl<T> Error for SendError<T> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            SendError::Cancelled(..) => Some(&CANCELLED),
            SendError::Closed(_) | SendError::HandleClosed(_) => None,
        }
    }
}

impl<T> From<SendError<T>> for io::Error {
    fn from(error: SendError<T>) -> Self {
        match error {
            SendError::Cancelled(cancelled, _) => cancelled.into(),
            SendError::Closed(_) => io::Error::new(io::ErrorKind::BrokenPipe, "the channel has no receiver any more"),
            SendError::HandleClosed(_) => io::Error::new(io::ErrorKind::NotConnected, "this sender was closed"),
        }
    }
}

impl<T> fmt::Debug for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TrySendError::Full(_) => "Full(..)",
            TrySendError::Closed(_) => "Closed(..)",
            TrySendError::HandleClosed(_) => "HandleClosed(..)",
        })
    }
}

impl<T> fmt::Display for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TrySendError::Full(_) => "the channel is full",
            TrySendError::Closed(_) => "the channel has no receiver any more",
            TrySendError::HandleClosed(_) => "this sender was closed",
        })
    }
}

impl<T> Error for TrySendError<T> {}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TryRecvError::Empty => "the channel is empty",
            TryRecvError::Closed => "the channel has no sender any more",
            TryRecvError::HandleClosed => "this receiver was closed",
        })
    }
}

impl Error for TryRecvError {}
