//! [`ErrorGroup`]: every error that a nursery collected.

use crate::scope::cancelled::{CancelAware, Cancelled, TimedOut};
use std::{error::Error, fmt, io};

/// Every error that a nursery collected, in the order in which its tasks ended; never empty (N15).
///
/// `?` turns it into an `io::Error` (the one failure in it, or one of the kind of the first that has all of them in it), into a
/// `Box<dyn Error + Send + Sync>` (the whole group), or into your own error type by way of `From`, for which
/// [`into_first`](Self::into_first) is at hand. Cancellations of siblings are not in it, unless there is nothing else or one has to travel
/// on to an outer scope: then there is one, at its place in the order.
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
    errors: Vec<E>,
}

impl<E> ErrorGroup<E> {
    /// A group of these errors; `None` without any.
    pub fn new(errors: Vec<E>) -> Option<Self> {
        if errors.is_empty() { None } else { Some(Self { errors }) }
    }

    /// How many errors there are: at least one.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.errors.len()
    }

    /// All errors, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, E> {
        self.errors.iter()
    }

    /// All errors, in order.
    pub fn into_vec(self) -> Vec<E> {
        self.errors
    }
}

impl<E: CancelAware> ErrorGroup<E> {
    /// The failure that came first; a cancellation only where there is nothing else.
    ///
    /// A scope absorbs a cancellation, and nobody would hear of the failures behind it.
    pub fn first(&self) -> &E {
        &self.errors[self.first_failure()]
    }

    /// The failure that came first, alone; a cancellation only where there is nothing else.
    pub fn into_first(mut self) -> E {
        self.errors.swap_remove(self.first_failure())
    }

    fn first_failure(&self) -> usize {
        self.errors.iter().position(|error| !error.is_cancelled()).unwrap_or(0)
    }
}

impl<E> IntoIterator for ErrorGroup<E> {
    type Item = E;
    type IntoIter = std::vec::IntoIter<E>;
    fn into_iter(self) -> Self::IntoIter {
        self.errors.into_iter()
    }
}

impl<'a, E> IntoIterator for &'a ErrorGroup<E> {
    type Item = &'a E;
    type IntoIter = std::slice::Iter<'a, E>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<E: fmt::Debug> fmt::Debug for ErrorGroup<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ErrorGroup ")?;
        f.debug_list().entries(&self.errors).finish()
    }
}

impl<E: fmt::Display> fmt::Display for ErrorGroup<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.errors[0].fmt(f)?;
        if let [_, rest @ ..] = &self.errors[..]
            && !rest.is_empty()
        {
            write!(f, " (and {} more: ", rest.len())?;
            for (i, error) in rest.iter().enumerate() {
                if i > 0 {
                    f.write_str("; ")?;
                }
                error.fmt(f)?;
            }
            f.write_str(")")?;
        }
        Ok(())
    }
}

// `Debug + Display` and not `Error`: so that a group of boxed errors is an error too, and `?` turns it into a boxed error.
impl<E: fmt::Debug + fmt::Display> Error for ErrorGroup<E> {}

impl From<ErrorGroup<io::Error>> for io::Error {
    fn from(group: ErrorGroup<io::Error>) -> Self {
        // A cancellation is no answer to "what went wrong" where there is another one.
        if group.errors.iter().filter(|error| !error.is_cancelled()).count() < 2 {
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
        Self { errors: vec![cancelled.into()] }
    }
}

/// For `fail_after` around what fails with a group.
impl<E: CancelAware + From<TimedOut>> From<TimedOut> for ErrorGroup<E> {
    fn from(timed_out: TimedOut) -> Self {
        Self { errors: vec![timed_out.into()] }
    }
}

/// A group is a cancellation if all its errors are (R27).
impl<E: CancelAware> CancelAware for ErrorGroup<E> {
    fn is_cancelled(&self) -> bool {
        self.errors.iter().all(E::is_cancelled)
    }

    fn has_cancelled(&self) -> bool {
        self.errors.iter().any(E::has_cancelled)
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first().describe(f)?;
        match self.len() - 1 {
            0 => Ok(()),
            more => write!(f, " (and {more} more)"),
        }
    }

    fn without_cancelled(self) -> Option<Self> {
        Self::new(self.errors.into_iter().filter_map(E::without_cancelled).collect())
    }
}
