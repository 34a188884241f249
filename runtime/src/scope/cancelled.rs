//! [`Cancelled`], the error that every operation inside a cancelled scope returns, and what a scope asks of an error type.

use crate::look::deadlock;
use crate::scope::group::{ErrorGroup, cancelled_group};
use std::{error::Error, fmt, io};

/// The raw OS error under which an `io::Error` carries a cancellation: `ECANCELED`.
///
/// Never `Interrupted`, on which `read_exact`, `write_all` and `copy` retry for ever, and never `TimedOut`.
///
/// Always this number, by which other crates know it too, and so without a text of its own: in a run that is ended as a deadlock (N10) it reads
/// "Operation canceled" as ever, where the text of [`Cancelled`] says so. A panic that comes of unwrapping it there is logged as one in the clean-up of
/// such a run, and the report follows.
pub const ECANCELED: i32 = 125;

/// Delivered by every operation inside a cancelled scope.
///
/// Pass it on with `?`. The scope that was cancelled absorbs it at its exit (R24). It is a state, not an event: swallow it,
/// and the next operation returns it again (R1), until a fixed budget is spent and the code is dropped where it waits (N13).
///
/// It has no size, and does not know why: ask [`cancel_cause`](crate::current_cause). Only of a run that is ended as a deadlock (N10) its
/// texts say so, for who unwraps it there.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cancelled(());

impl Cancelled {
    /// For the operations of this library: the current scope is cancelled.
    #[doc(hidden)]
    pub const fn delivered() -> Self {
        Self(())
    }
}

/// Why everything is cancelled in a run that is ended as a deadlock.
const DEADLOCK: &str = "the run is in a deadlock, and ends with a report of who waits for what (N10)";

impl fmt::Debug for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cancelled")?;
        // Whoever unwraps it panics with this, before the run can say what was wrong.
        if deadlock::ends() { write!(f, " ({DEADLOCK})") } else { Ok(()) }
    }
}

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match deadlock::ends() {
            false => f.write_str("cancelled: the scope around this operation was cancelled"),
            true => write!(f, "cancelled: {DEADLOCK}"),
        }
    }
}

impl Error for Cancelled {}

impl From<Cancelled> for io::Error {
    fn from(_: Cancelled) -> Self {
        io::Error::from_raw_os_error(ECANCELED)
    }
}

/// What a scope needs of an error type: to make a cancellation, to recognise one, and to take it out of a group.
///
/// Implemented for [`Cancelled`], `std::io::Error`, `Box<dyn Error + Send + Sync>`, with the feature `anyhow` `anyhow::Error`, and [`ErrorGroup`]s of what has it.
/// For an error type of your own:
///
/// ```
/// use trefoil_runtime::{CancelAware, Cancelled};
///
/// #[derive(Debug)]
/// enum AppError {
///     Cancelled(Cancelled),
///     Io(std::io::Error),
/// }
///
/// impl From<Cancelled> for AppError {
///     fn from(c: Cancelled) -> Self { AppError::Cancelled(c) }
/// }
///
/// impl From<std::io::Error> for AppError {
///     // An I/O error may itself be a cancellation: keep the two apart here, once.
///     fn from(e: std::io::Error) -> Self {
///         match e.is_cancelled() { true => AppError::Cancelled(e.as_cancelled().unwrap()), false => AppError::Io(e) }
///     }
/// }
///
/// impl CancelAware for AppError {
///     fn is_cancelled(&self) -> bool { matches!(self, AppError::Cancelled(_)) }
/// }
/// # let e: AppError = std::io::Error::from_raw_os_error(125).into();
/// # assert!(e.is_cancelled());
/// ```
///
/// A cancellation stays one where it is wrapped: in context that is added, or in the error of another crate that was given our I/O. What
/// is looked at is the chain of [`source`](Error::source)s.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot say that it is a cancellation",
    note = "tasks and scopes need an error type that can: `std::io::Error`, `Box<dyn Error + Send + Sync>`, `trefoil::Cancelled` where nothing else goes wrong, or one of your own that implements `CancelAware`"
)]
pub trait CancelAware: From<Cancelled> + fmt::Debug {
    /// Whether this error is a cancellation and nothing else.
    fn is_cancelled(&self) -> bool;

    /// Whether a cancellation is in this error, bare or in a group (R26).
    fn has_cancelled(&self) -> bool {
        self.is_cancelled()
    }

    /// The error without the cancellations in it: `None` where nothing is left (R27).
    fn without_cancelled(self) -> Option<Self> {
        if self.is_cancelled() { None } else { Some(self) }
    }

    /// Writes what went wrong for a person who asks why a scope was cancelled: [`cancel_cause`](crate::current_cause) of the siblings of
    /// a child that failed. `Debug` unless it is written; the errors of `std`, boxed ones and `anyhow`'s do it by `Display`.
    ///
    /// # Errors
    /// Those of the formatter, to be passed on.
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }

    /// The [`Cancelled`] that this error is, if it is one.
    fn as_cancelled(&self) -> Option<Cancelled> {
        self.is_cancelled().then_some(Cancelled(()))
    }

    /// An error that says the same, for a second one who asks what became of something: the first has the error itself. `None` where there
    /// can be none. If your error is `Clone`, `Some(self.clone())`.
    fn to_copy(&self) -> Option<Self> {
        self.as_cancelled().map(Into::into)
    }
}

impl CancelAware for Cancelled {
    fn is_cancelled(&self) -> bool {
        true
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl CancelAware for io::Error {
    fn is_cancelled(&self) -> bool {
        is_one(self)
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }

    /// The same number, the same failures, or the same kind with the same text.
    fn to_copy(&self) -> Option<Self> {
        if self.is_cancelled() {
            return Some(Cancelled(()).into());
        }
        if let Some(number) = self.raw_os_error() {
            return Some(io::Error::from_raw_os_error(number));
        }
        let group = self.get_ref().and_then(|inner| inner.downcast_ref::<ErrorGroup<io::Error>>());
        Some(match group.and_then(ErrorGroup::to_copy) {
            Some(group) => io::Error::new(self.kind(), group),
            None => io::Error::new(self.kind(), self.to_string()),
        })
    }
}

/// Whether an error is a cancellation, or was made from one. A group is one if all in it are.
fn is_one(error: &(dyn Error + 'static)) -> bool {
    let mut link = Some(error);
    while let Some(error) = link {
        if error.is::<Cancelled>() {
            return true;
        }
        let group = cancelled_group::<Cancelled>(error)
            .or_else(|| cancelled_group::<CancelledOrTimedOut>(error))
            .or_else(|| cancelled_group::<io::Error>(error))
            .or_else(|| cancelled_group::<Box<dyn Error + Send + Sync>>(error));
        #[cfg(feature = "anyhow")]
        let group = group.or_else(|| cancelled_group::<anyhow::Error>(error));
        if let Some(is_cancelled) = group {
            return is_cancelled;
        }
        link = match error.downcast_ref::<io::Error>() {
            Some(error) if error.raw_os_error() == Some(ECANCELED) => return true,
            // Not `source`, which leaves out the error that it wraps.
            Some(error) => error.get_ref().map(|inner| inner as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    false
}

/// Looks into the groups that `?` makes of the error types in this file. Groups of a type of your own are opaque in a box: give that
/// type its `From<ErrorGroup<..>>`.
impl CancelAware for Box<dyn Error + Send + Sync> {
    fn is_cancelled(&self) -> bool {
        is_one(&**self)
    }

    fn has_cancelled(&self) -> bool {
        self.is_cancelled()
            || self.downcast_ref::<ErrorGroup<Self>>().is_some_and(CancelAware::has_cancelled)
            || self.downcast_ref::<ErrorGroup<io::Error>>().is_some_and(CancelAware::has_cancelled)
    }

    fn without_cancelled(self) -> Option<Self> {
        if self.is_cancelled() {
            return None;
        }
        let other = match self.downcast::<ErrorGroup<Self>>() {
            Ok(group) => return group.without_cancelled().map(Into::into),
            Err(other) => other,
        };
        match other.downcast::<ErrorGroup<io::Error>>() {
            Ok(group) => group.without_cancelled().map(Into::into),
            Err(other) => Some(other),
        }
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Looks into the groups that `?` makes of `anyhow` errors. With the feature `anyhow`.
#[cfg(feature = "anyhow")]
impl CancelAware for anyhow::Error {
    fn is_cancelled(&self) -> bool {
        is_one(&**self)
    }

    fn has_cancelled(&self) -> bool {
        self.is_cancelled() || self.downcast_ref::<ErrorGroup<Self>>().is_some_and(CancelAware::has_cancelled)
    }

    fn without_cancelled(self) -> Option<Self> {
        if self.is_cancelled() {
            return None;
        }
        match self.downcast::<ErrorGroup<Self>>() {
            Ok(group) => group.without_cancelled().map(Into::into),
            Err(other) => Some(other),
        }
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A deadline passed before the work under it was done: what `fail_after` returns.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimedOut(());

impl fmt::Debug for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TimedOut")
    }
}

impl TimedOut {
    /// For the scopes of this library.
    #[doc(hidden)]
    pub const fn new() -> Self {
        Self(())
    }
}

impl Default for TimedOut {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("timed out: the deadline passed before the work was done")
    }
}

impl Error for TimedOut {}

impl From<TimedOut> for io::Error {
    fn from(e: TimedOut) -> Self {
        io::Error::new(io::ErrorKind::TimedOut, e)
    }
}

/// An error type that can say that a deadline passed: what `fail_after` asks of its body's.
///
/// You need not implement it: every error type that is made from [`TimedOut`] has it, as `std::io::Error` and boxed errors are.
/// [`Cancelled`], the error of most operations, cannot say so; around these `fail_after` fails with [`CancelledOrTimedOut`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot say that it is a cancellation, or that a deadline passed",
    note = "`fail_after` needs an error type that can: `std::io::Error`, `Box<dyn Error + Send + Sync>`, `trefoil::Cancelled`, or one of your own that implements `CancelAware` and `From<trefoil::TimedOut>`"
)]
pub trait DeadlineAware: CancelAware {
    /// This type, or one that has more to say.
    type Failed: From<Self> + From<TimedOut>;
}

impl<E: CancelAware + From<TimedOut>> DeadlineAware for E {
    type Failed = E;
}

impl DeadlineAware for Cancelled {
    type Failed = CancelledOrTimedOut;
}

impl DeadlineAware for ErrorGroup<Cancelled> {
    type Failed = CancelledOrTimedOut;
}

/// What `fail_after` around an operation that can only be cancelled fails with. Pass it on with `?`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CancelledOrTimedOut {
    /// A scope further out was cancelled.
    Cancelled(Cancelled),
    /// The deadline passed.
    TimedOut(TimedOut),
}

impl fmt::Display for CancelledOrTimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled(error) => error.fmt(f),
            Self::TimedOut(error) => error.fmt(f),
        }
    }
}

impl Error for CancelledOrTimedOut {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Cancelled(error) => Some(error),
            Self::TimedOut(error) => Some(error),
        }
    }
}

impl From<Cancelled> for CancelledOrTimedOut {
    fn from(error: Cancelled) -> Self {
        Self::Cancelled(error)
    }
}

impl From<ErrorGroup<Cancelled>> for CancelledOrTimedOut {
    fn from(group: ErrorGroup<Cancelled>) -> Self {
        Self::Cancelled(group.into_first())
    }
}

impl From<TimedOut> for CancelledOrTimedOut {
    fn from(error: TimedOut) -> Self {
        Self::TimedOut(error)
    }
}

impl From<CancelledOrTimedOut> for io::Error {
    fn from(error: CancelledOrTimedOut) -> Self {
        match error {
            CancelledOrTimedOut::Cancelled(error) => error.into(),
            CancelledOrTimedOut::TimedOut(error) => error.into(),
        }
    }
}

impl CancelAware for CancelledOrTimedOut {
    fn is_cancelled(&self) -> bool {
        matches!(self, Self::Cancelled(_))
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
