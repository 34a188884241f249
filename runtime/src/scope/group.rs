//! [`ErrorGroup`]: every error that a nursery collected, each a [`Failure`], which knows what failed.

use crate::scope::cancelled::{CancelAware, Cancelled, TimedOut};
use crate::scope::cause::Named;
use std::any::Any;
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
///
/// # Examples
/// ```
/// use std::{io, panic::Location};
/// use trefoil_runtime::{FailedBy, Failure};
///
/// // As a nursery makes it. In a test, anything can be said to have failed:
/// let by = FailedBy::Task { name: Some("reader".into()), place: Location::caller() };
/// let failure = Failure::new(io::Error::other("refused"), by);
/// assert_eq!(failure.to_string(), "refused");
/// assert!(format!("{failure:#}").starts_with("task `reader` ("));
/// ```
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
/// `?` turns it into an `io::Error` (of the kind of the first failure, with the group in it), into a `Box<dyn Error + Send + Sync>` or an
/// `anyhow::Error` (the group itself), or into your own error type by way of `From`, for which [`into_first`](Self::into_first) is at hand.
/// Cancellations of siblings are not in it, unless there is nothing else or one has to travel on to an outer scope: then there is one, at
/// its place in the order.
///
/// `{}` prints the errors alone; `{:#}` and `{:?}` print before each which task failed with it ([`failures`](Self::failures)). So does its
/// [`source`](Error::source), which is for those who print a chain of causes, as `anyhow` does.
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
    failures: Failures<E>,
}

/// What is in a group, as the cause of it: each error with who failed, and its causes.
struct Failures<E>(Vec<Failure<E>>);

/// The errors of a group that is borrowed, in order.
type Iter<'a, E> = iter::Map<slice::Iter<'a, Failure<E>>, fn(&'a Failure<E>) -> &'a E>;

impl<E> ErrorGroup<E> {
    /// A group of these errors, of which nobody knows who failed with them; `None` without any.
    pub fn new(errors: Vec<E>) -> Option<Self> {
        Self::from_failures(errors.into_iter().map(|error| Failure::new(error, None)).collect())
    }

    /// A group of these failures; `None` without any.
    ///
    /// # Examples
    /// ```
    /// use std::{io, panic::Location};
    /// use trefoil_runtime::{ErrorGroup, FailedBy, Failure};
    ///
    /// // For a test of what handles the errors of a nursery:
    /// let task = |name: &str| FailedBy::Task { name: Some(name.into()), place: Location::caller() };
    /// let group = ErrorGroup::from_failures(vec![
    ///     Failure::new(io::Error::other("refused"), task("reader")),
    ///     Failure::new(io::Error::other("disk full"), task("writer")),
    /// ]);
    /// assert_eq!(group.unwrap().failures()[1].by.as_ref().unwrap().name(), Some("writer"));
    /// ```
    pub fn from_failures(failures: Vec<Failure<E>>) -> Option<Self> {
        if failures.is_empty() { None } else { Some(Self { failures: Failures(failures) }) }
    }

    /// How many errors there are: at least one.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.failures.0.len()
    }

    /// All errors, in order.
    pub fn iter(&self) -> Iter<'_, E> {
        self.failures.0.iter().map(|failure| &failure.error)
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
        &self.failures.0
    }

    /// All errors, in order, with what failed.
    pub fn into_failures(self) -> Vec<Failure<E>> {
        self.failures.0
    }
}

impl<E: CancelAware> ErrorGroup<E> {
    /// The failure that came first; a cancellation only where there is nothing else.
    ///
    /// A scope absorbs a cancellation, and nobody would hear of the failures behind it.
    pub fn first(&self) -> &E {
        &self.failures.0[self.first_failure()].error
    }

    /// The failure that came first, alone; a cancellation only where there is nothing else.
    pub fn into_first(mut self) -> E {
        self.failures.0.swap_remove(self.first_failure()).error
    }

    /// Than its only error says.
    fn says_more_than_one(&self) -> bool {
        self.failures().iter().any(|failure| failure.by.is_some()) || self.len() > 1
    }

    fn first_failure(&self) -> usize {
        self.iter().position(|error| !error.is_cancelled()).unwrap_or(0)
    }
}

impl<E> IntoIterator for ErrorGroup<E> {
    type Item = E;
    type IntoIter = iter::Map<vec::IntoIter<Failure<E>>, fn(Failure<E>) -> E>;
    fn into_iter(self) -> Self::IntoIter {
        self.failures.0.into_iter().map(|failure| failure.error)
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
        f.debug_list().entries(self.failures()).finish()
    }
}

impl<E: fmt::Display> fmt::Display for ErrorGroup<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, rest @ ..] = self.failures() else { return Ok(()) };
        fmt::Display::fmt(first, f)?;
        if rest.is_empty() {
            return Ok(());
        }
        write!(f, " (and {} more: ", rest.len())?;
        for (i, failure) in rest.iter().enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            fmt::Display::fmt(failure, f)?;
        }
        f.write_str(")")
    }
}

// `Debug + Display` and not `Error`: so that a group of boxed errors is an error too, and `?` turns it into a boxed error.
impl<E: fmt::Debug + fmt::Display + 'static> Error for ErrorGroup<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.failures)
    }
}

impl<E: fmt::Debug> fmt::Debug for Failures<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who failed, however it is asked for: a chain of causes is printed by `{}`. A lone failure follows in that chain; several are in this text, with their causes.
impl<E: fmt::Display + 'static> fmt::Display for Failures<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [Failure { error, by: Some(by) }] = &self.0[..]
            && as_error(error).is_some()
        {
            return by.fmt(f);
        }
        let is_lone = self.0.len() == 1;
        f.write_str(if is_lone { "" } else { "[" })?;
        for (i, Failure { error, by }) in self.0.iter().enumerate() {
            f.write_str(if i > 0 { "; " } else { "" })?;
            if let Some(by) = by {
                write!(f, "{by}: ")?;
            }
            let Some(known) = as_error(error) else {
                // A type of others, which may say more so.
                write!(f, "{error:#}")?;
                continue;
            };
            write!(f, "{known}")?;
            let mut cause = if is_lone { None } else { known.source() };
            while let Some(error) = cause {
                write!(f, ": {error}")?;
                cause = error.source();
            }
        }
        f.write_str(if is_lone { "" } else { "]" })
    }
}

impl<E: fmt::Debug + fmt::Display + 'static> Error for Failures<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0[..] {
            [Failure { error, by: Some(_) }] => as_error(error),
            // Its text is that of this.
            [Failure { error, by: None }] => as_error(error)?.source(),
            _ => None,
        }
    }
}

/// Whether an error is a group of these, or what is in one, and all of them are cancellations; `None` if it is none.
pub(super) fn cancelled_group<E>(error: &(dyn Error + 'static)) -> Option<bool>
where
    E: CancelAware + fmt::Display + 'static,
{
    let failures = match error.downcast_ref::<ErrorGroup<E>>() {
        Some(group) => &group.failures,
        None => error.downcast_ref::<Failures<E>>()?,
    };
    Some(failures.0.iter().all(CancelAware::is_cancelled))
}

/// An error of those types that nearly all groups are of, as one that has causes. `E` is not [`Error`], so that it may be a box.
fn as_error<E: 'static>(error: &E) -> Option<&(dyn Error + 'static)> {
    let error: &dyn Any = error;
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return Some(error);
    }
    #[cfg(feature = "anyhow")]
    if let Some(error) = error.downcast_ref::<anyhow::Error>() {
        return Some(&**error);
    }
    error.downcast_ref::<Box<dyn Error + Send + Sync>>().map(|error| &**error as _)
}

impl From<ErrorGroup<io::Error>> for io::Error {
    fn from(group: ErrorGroup<io::Error>) -> Self {
        // Nothing is lost: all of them are in it, and who failed. A cancellation is no answer to "what went wrong" where there is another one.
        let kind = group.first().kind();
        match group.without_cancelled() {
            Some(failures) if failures.says_more_than_one() => io::Error::new(kind, failures),
            Some(failures) => failures.into_first(),
            None => Cancelled::delivered().into(),
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
        Self { failures: Failures(vec![cancelled.into()]) }
    }
}

/// For `fail_after` around what fails with a group.
impl<E: CancelAware + From<TimedOut>> From<TimedOut> for ErrorGroup<E> {
    fn from(timed_out: TimedOut) -> Self {
        Self { failures: Failures(vec![Failure::new(timed_out.into(), None)]) }
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
        Self::from_failures(self.into_failures().into_iter().filter_map(Failure::without_cancelled).collect())
    }

    fn to_copy(&self) -> Option<Self> {
        Self::from_failures(self.failures().iter().map(Failure::to_copy).collect::<Option<_>>()?)
    }
}
