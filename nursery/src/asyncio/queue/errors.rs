//! What a put or a get of a queue fails with.

use std::error::Error;
use std::fmt;
use std::io;
use trefoil_runtime::{CancelAware, Cancelled};

/// An item was not put in. It is in here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PutError<T> {
    /// The task was cancelled.
    Cancelled(Cancelled, T),
    /// The queue was shut down.
    ShutDown(T),
}

/// An item was not put in at once. It is in here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PutNowaitError<T> {
    /// There is no room.
    Full(T),
    /// The queue was shut down.
    ShutDown(T),
}

/// There was no item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GetError {
    /// The task was cancelled.
    Cancelled(Cancelled),
    /// The queue was shut down, and is empty.
    ShutDown,
}

/// There was no item at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GetNowaitError {
    /// There is none now.
    Empty,
    /// The queue was shut down, and is empty.
    ShutDown,
}

/// More items were [done with](super::Queue::task_done) than were put in: `ValueError` in Python.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyDone(pub(super) ());

impl<T> PutError<T> {
    /// The item.
    pub fn into_inner(self) -> T {
        match self {
            PutError::Cancelled(_, item) | PutError::ShutDown(item) => item,
        }
    }
}

impl<T> PutNowaitError<T> {
    /// The item.
    pub fn into_inner(self) -> T {
        match self {
            PutNowaitError::Full(item) | PutNowaitError::ShutDown(item) => item,
        }
    }
}

impl From<Cancelled> for GetError {
    fn from(cancelled: Cancelled) -> Self {
        GetError::Cancelled(cancelled)
    }
}

impl CancelAware for GetError {
    fn is_cancelled(&self) -> bool {
        matches!(self, GetError::Cancelled(_))
    }
}

impl<T> fmt::Debug for PutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PutError::Cancelled(..) => "Cancelled(..)",
            PutError::ShutDown(_) => "ShutDown(..)",
        })
    }
}

impl<T> fmt::Display for PutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PutError::Cancelled(..) => "the put was cancelled; its item comes back in the error",
            PutError::ShutDown(_) => "the queue was shut down; the item comes back in the error",
        })
    }
}

impl<T> fmt::Debug for PutNowaitError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PutNowaitError::Full(_) => "Full(..)",
            PutNowaitError::ShutDown(_) => "ShutDown(..)",
        })
    }
}

impl<T> fmt::Display for PutNowaitError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PutNowaitError::Full(_) => "the queue is full",
            PutNowaitError::ShutDown(_) => "the queue was shut down",
        })
    }
}

impl fmt::Display for GetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GetError::Cancelled(cancelled) => cancelled.fmt(f),
            GetError::ShutDown => f.write_str("the queue was shut down"),
        }
    }
}

impl fmt::Display for GetNowaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            GetNowaitError::Empty => "the queue is empty",
            GetNowaitError::ShutDown => "the queue was shut down",
        })
    }
}

impl fmt::Display for TooManyDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("more items are done with than were put in")
    }
}

impl<T> Error for PutError<T> {}
impl<T> Error for PutNowaitError<T> {}
impl Error for GetError {}
impl Error for GetNowaitError {}
impl Error for TooManyDone {}

/// Where the errors of a queue meet those of I/O: a cancellation stays one, and the rest is `BrokenPipe`.
impl From<GetError> for io::Error {
    fn from(error: GetError) -> Self {
        match error {
            GetError::Cancelled(cancelled) => cancelled.into(),
            GetError::ShutDown => io::Error::new(io::ErrorKind::BrokenPipe, error),
        }
    }
}

/// A cancellation stays one, and the rest is `BrokenPipe`. The item is dropped.
impl<T> From<PutError<T>> for io::Error {
    fn from(error: PutError<T>) -> Self {
        match error {
            PutError::Cancelled(cancelled, _) => cancelled.into(),
            PutError::ShutDown(_) => io::Error::new(io::ErrorKind::BrokenPipe, error.to_string()),
        }
    }
}

/// `WouldBlock` or `BrokenPipe`. The item is dropped.
impl<T> From<PutNowaitError<T>> for io::Error {
    fn from(error: PutNowaitError<T>) -> Self {
        let kind = match error {
            PutNowaitError::Full(_) => io::ErrorKind::WouldBlock,
            PutNowaitError::ShutDown(_) => io::ErrorKind::BrokenPipe,
        };
        io::Error::new(kind, error.to_string())
    }
}

/// `WouldBlock` or `BrokenPipe`.
impl From<GetNowaitError> for io::Error {
    fn from(error: GetNowaitError) -> Self {
        let kind = match error {
            GetNowaitError::Empty => io::ErrorKind::WouldBlock,
            GetNowaitError::ShutDown => io::ErrorKind::BrokenPipe,
        };
        io::Error::new(kind, error)
    }
}

/// `InvalidInput`.
impl From<TooManyDone> for io::Error {
    fn from(error: TooManyDone) -> Self {
        io::Error::new(io::ErrorKind::InvalidInput, error)
    }
}
