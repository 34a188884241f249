//! [`ErrorGroup`]: every error that a nursery collected, each a [`Failure`], which knows what failed.

use crate::scope::cancelled::{CancelAware, Cancelled, TimedOut};
use crate::scope::cause::Named;
use std::panic::Location;
use std::sync::Arc;
use std::{error::Error, fmt, io, iter, slice, vec};

/// What failed: printed as ``task `fetch` (main.rs:21)``.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailedBy {
    /// A child.
    Task {
        /// Its name, if it was given one.
        name: Option<Arc<str>>,
        /// Where it was spawned.
        place: &'static Location<'static>,
    },
    /// The body of a nursery, of a group of tasks, or of a block with clean-ups, which was opened here.
    Body(&'static Location<'static>),
    /// A clean-up that was deferred here.
    CleanUp(&'static Location<'static>),
}

impl FailedBy {
    /// The name of the child, if it was given one.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Task { name, .. } => name.as_deref(),
            Self::Body(_) | Self::CleanUp(_) => None,
        }
    }

    /// Where it was spawned, opened or deferred.
    pub fn place(&self) -> &'static Location<'static> {
        match self {
            Self::Task { place, .. } | Self::Body(place) | Self::CleanUp(place) => place,
        }
    }
}

impl fmt::Display for FailedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Task { name, place } => write!(f, "task {}", Named(name.as_deref(), place)),
            Self::Body(place) => write!(f, "body of {}", Named(None, place)),
            Self::CleanUp(place) => write!(f, "clean-up {}", Named(None, place)),
        }
    }
}

/// An error of an [`ErrorGroup`], and what failed with it.
///
/// `{}` prints the error alone, `{:#}` what failed before it.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure<E> {
    /// What was returned.
    pub error: E,
    /// By whom. `None` where nobody in particular did: a cancellation that the nursery itself was told, a group that was put together by
    /// hand.
    pub by: Option<FailedBy>,
}

impl<E> Failure<E> {
    /// An error, and who failed with it, or `None`.
    pub fn new(error: E, by: impl Into<Option<FailedBy>>) -> Self {
        Self { error, by: by.into() }
    }
}

impl<E: CancelAware> Failure<E> {
    /// An error of somebody. A cancellation is nobody's: they were told.
    #[doc(hidden)]
    pub fn of(error: E, by: impl FnOnce() -> FailedBy) -> Self {
        let by = (!error.is_cancelled()).then(by);
        Self { error, by }
    }
}

impl<E: CancelAware> From<Cancelled> for Failure<E> {
    fn from(cancelled: Cancelled) -> Self {
        Self::new(cancelled.into(), None)
    }
}

/// As the error in it.
impl<E: CancelAware> CancelAware for Failure<E> {
    fn is_cancelled(&self) -> bool {
        self.error.is_cancelled()
    }

    fn has_cancelled(&self) -> bool {
        self.error.has_cancelled()
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.describe(f)
    }

    fn without_cancelled(self) -> Option<Self> {
        let by = self.by;
        self.error.without_cancelled().map(|error| Self { error, by })
    }

    fn as_cancelled(&self) -> Option<Cancelled> {
        self.error.as_cancelled()
    }

    fn to_copy(&self) -> Option<Self> {
        self.error.to_copy().map(|error| Self { error, by: self.by.clone() })
    }
}

impl<E: fmt::Debug> fmt::Debug for Failure<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(by) = &self.by {
            write!(f, "{by}: ")?;
        }
        self.error.fmt(f)
    }
}

// As of the group, below.
impl<E: fmt::Debug + fmt::Display> Error for Failure<E> {}

impl<E: fmt::Display> fmt::Display for Failure<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(by) = self.by.as_ref().filter(|_| f.alternate()) {
            write!(f, "{by}: ")?;
        }
        self.error.fmt(f)
    }
}

/// Every error that a nursery collected, in the order in which its tasks ended; never empty (N15).
///
/// `?` turns it into an `io::Error` (the one failure in it, or one of the kind of the first that has all of them in it), into a
/// `Box<dyn Error + Send + Sync>` (the whole group), or into your own error type by way of `From`, for which
/// [`into_first`](Self::into_first) is at hand. Cancellations of siblings are not in it, unless there is nothing else or one has to travel
/// on to an outer scope: then there is one, at its place in the order.
///
/// `{}` prints the errors alone; `{:#}` and `{:?}` print before each which task failed with it ([`failures`](Self::failures)).
///
/// # Examples
/// ```
/// use trefoil_runtime::ErrorGroup;
/// # use std::io;
/// // As a nursery returns it, two of whose children failed:
/// let group = ErrorGroup::new(vec![io::Error::other("left"), io::Error::other("right")]).unwrap();
/// assert_eq!(group.len(), 2);
/// assert_eq!(group.to_string(), "left (and 1 more: right)");
/// ```
pub struct ErrorGroup<E> {
    failures: Vec<Failure<E>>,
}

/// The errors of a group that is borrowed, in order.
type Iter<'a, E> = iter::Map<slice::Iter<'a, Failure<E>>, fn(&'a Failure<E>) -> &'a E>;

impl<E> ErrorGroup<E> {
    /// A group of these errors, of which nobody knows who failed with them; `None` without any.
    pub fn new(errors: Vec<E>) -> Option<Self> {
        Self::from_failures(errors.into_iter().map(|error| Failure::new(error, None)).collect())
    }

    /// A group of these failures; `None` without any.
    pub fn from_failures(failures: Vec<Failure<E>>) -> Option<Self> {
        if failures.is_empty() { None } else { Some(Self { failures }) }
    }

    /// How many errors there are: at least one.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.failures.len()
    }

    /// All errors, in order.
    pub fn iter(&self) -> Iter<'_, E> {
        self.failures.iter().map(|failure| &failure.error)
    }

    /// All errors, in order.
    pub fn into_vec(self) -> Vec<E> {
        self.into_iter().collect()
    }

    /// All errors, in order, with what failed.
    ///
    /// # Examples
    /// ```
    /// use trefoil_runtime::{ErrorGroup, FailedBy, Failure};
    /// # use std::{io, panic::Location};
    /// # let reader = FailedBy::Task { name: Some("reader".into()), place: Location::caller() };
    /// # let group = ErrorGroup::from_failures(vec![Failure::new(io::Error::other("refused"), reader)]).unwrap();
    /// // As a nursery returns it, whose child `reader` failed:
    /// for failure in group.failures() {
    ///     println!("{failure:#}"); // task `reader` (main.rs:5): refused
    ///     assert_eq!(failure.by.as_ref().and_then(|by| by.name()), Some("reader"));
    /// }
    /// # assert_eq!(group.failures().len(), 1);
    /// ```
    pub fn failures(&self) -> &[Failure<E>] {
        &self.failures
    }

    /// All errors, in order, with what failed.
    pub fn into_failures(self) -> Vec<Failure<E>> {
        self.failures
    }
}

impl<E: CancelAware> ErrorGroup<E> {
    /// The failure that came first; a cancellation only where there is nothing else.
    ///
    /// A scope absorbs a cancellation, and nobody would hear of the failures behind it.
    pub fn first(&self) -> &E {
        &self.failures[self.first_failure()].error
    }

    /// The failure that came first, alone; a cancellation only where there is nothing else.
    pub fn into_first(mut self) -> E {
        self.failures.swap_remove(self.first_failure()).error
    }

    fn first_failure(&self) -> usize {
        self.iter().position(|error| !error.is_cancelled()).unwrap_or(0)
    }
}

impl<E> IntoIterator for ErrorGroup<E> {
    type Item = E;
    type IntoIter = iter::Map<vec::IntoIter<Failure<E>>, fn(Failure<E>) -> E>;
    fn into_iter(self) -> Self::IntoIter {
        self.failures.into_iter().map(|failure| failure.error)
    }
}

impl<'a, E> IntoIterator for &'a ErrorGroup<E> {
    type Item = &'a E;
    type IntoIter = Iter<'a, E>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<E: fmt::Debug> fmt::Debug for ErrorGroup<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ErrorGroup ")?;
        f.debug_list().entries(&self.failures).finish()
    }
}

impl<E: fmt::Display> fmt::Display for ErrorGroup<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.failures[0].fmt(f)?;
        let rest = &self.failures[1..];
        if rest.is_empty() {
            return Ok(());
        }
        write!(f, " (and {} more: ", rest.len())?;
        for (i, failure) in rest.iter().enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            failure.fmt(f)?;
        }
        f.write_str(")")
    }
}

// `Debug + Display` and not `Error`: so that a group of boxed errors is an error too, and `?` turns it into a boxed error.
impl<E: fmt::Debug + fmt::Display> Error for ErrorGroup<E> {}

impl From<ErrorGroup<io::Error>> for io::Error {
    fn from(group: ErrorGroup<io::Error>) -> Self {
        // A cancellation is no answer to "what went wrong" where there is another one.
        if group.iter().filter(|error| !error.is_cancelled()).count() < 2 {
            return group.into_first();
        }
        // Nothing is lost: the others are in it.
        let kind = group.first().kind();
        match group.without_cancelled() {
            Some(failures) => io::Error::new(kind, failures),
            None => unreachable!("there are two failures"),
        }
    }
}

impl From<ErrorGroup<Cancelled>> for Cancelled {
    fn from(group: ErrorGroup<Cancelled>) -> Self {
        group.into_first()
    }
}

impl<E: CancelAware> From<Cancelled> for ErrorGroup<E> {
    fn from(cancelled: Cancelled) -> Self {
        Self { failures: vec![cancelled.into()] }
    }
}

/// For `fail_after` around what fails with a group.
impl<E: CancelAware + From<TimedOut>> From<TimedOut> for ErrorGroup<E> {
    fn from(timed_out: TimedOut) -> Self {
        Self { failures: vec![Failure::new(timed_out.into(), None)] }
    }
}

/// A group is a cancellation if all its errors are (R27).
impl<E: CancelAware> CancelAware for ErrorGroup<E> {
    fn is_cancelled(&self) -> bool {
        self.iter().all(E::is_cancelled)
    }

    fn has_cancelled(&self) -> bool {
        self.iter().any(E::has_cancelled)
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first().describe(f)?;
        match self.len() - 1 {
            0 => Ok(()),
            more => write!(f, " (and {more} more)"),
        }
    }

    fn without_cancelled(self) -> Option<Self> {
        Self::from_failures(self.failures.into_iter().filter_map(Failure::without_cancelled).collect())
    }
}
