//! [`Awaitable`]: what combinators take, tasks, futures and plain async code alike.

use super::future::{Future, InvalidState, Read};
use super::task::Task;
use super::waiting::Waiting;
use std::fmt;
use std::future::{Future as StdFuture, IntoFuture};
use std::panic::Location;
use trefoil_runtime::CancelAware;

/// What [`gather`](fn@super::gather), [`wait_for`](super::wait_for), [`shield`](super::shield) and their like wait for: a [`Task`] or a [`Future`],
/// whose result they take; a reference to one, whose result they clone; or an async block, which becomes a task (asyncio's
/// [`ensure_future`]).
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be awaited by asyncio's combinators",
    note = "they take tasks, futures of `asyncio`, references to these where the result is `Clone`, and async blocks that are `'static` and return a `Result`"
)]
pub trait Awaitable: IntoFuture<Output = Result<Self::Value, Self::Error>> {
    /// What it gives.
    type Value: 'static;
    /// How it fails.
    type Error: CancelAware + 'static;

    /// The future of it: itself, or a new task.
    #[doc(hidden)]
    fn ensure(self, place: &'static Location<'static>) -> Ensured<Self::Value, Self::Error>;

    /// To await it on behalf of code at another place.
    #[doc(hidden)]
    fn wait_from(self, _: &'static Location<'static>) -> Self::IntoFuture
    where
        Self: Sized,
    {
        self.into_future()
    }
}

/// A [`Future`], and how its result is read: see [`Awaitable`].
pub struct Ensured<T: 'static, E: CancelAware + 'static> {
    pub(crate) future: Future<T, E>,
    pub(crate) read: Read<T, E>,
    /// Nobody else has a handle of it.
    pub(crate) new: bool,
    /// The result is cloned.
    pub(crate) shared: bool,
}

impl<T: 'static, E: CancelAware + 'static> fmt::Debug for Ensured<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.future.fmt(f)
    }
}

impl<T: 'static, E: CancelAware + 'static> Clone for Ensured<T, E> {
    fn clone(&self) -> Self {
        Self { future: self.future.clone(), ..*self }
    }
}

impl<T: 'static, E: CancelAware + 'static> Ensured<T, E> {
    /// What makes one like this of its future.
    pub(crate) fn without_future(&self) -> impl FnOnce(Future<T, E>) -> Self + use<T, E> {
        let (read, new, shared) = (self.read, self.new, self.shared);
        move |future| Self { future, read, new, shared }
    }

    /// The result of one that is done.
    pub(crate) fn outcome(&self) -> Result<T, E> {
        match (self.read)(&self.future) {
            Ok(outcome) => outcome,
            Err(state) => not_there(&self.future, state),
        }
    }
}

/// A result was asked for that another has.
#[cold]
pub(crate) fn not_there(future: &dyn fmt::Debug, state: InvalidState) -> ! {
    panic!("{future:?}: {state}, by whoever had it by value; where several want it, give references")
}

impl<F, T, E> Awaitable for F
where
    F: StdFuture<Output = Result<T, E>> + 'static,
    T: 'static,
    E: CancelAware + 'static,
{
    type Value = T;
    type Error = E;

    fn ensure(self, place: &'static Location<'static>) -> Ensured<T, E> {
        let future = Task::spawn(self, None, place).into();
        Ensured { future, read: Future::take, new: true, shared: false }
    }
}

impl<T: 'static, E: CancelAware + 'static> Awaitable for Future<T, E> {
    type Value = T;
    type Error = E;

    fn ensure(self, _: &'static Location<'static>) -> Ensured<T, E> {
        Ensured { future: self, read: Future::take, new: false, shared: false }
    }

    fn wait_from(self, place: &'static Location<'static>) -> Waiting<T, E> {
        Waiting::new(self, Future::take, place)
    }
}

impl<T: Clone + 'static, E: CancelAware + Clone + 'static> Awaitable for &Future<T, E> {
    type Value = T;
    type Error = E;

    fn ensure(self, _: &'static Location<'static>) -> Ensured<T, E> {
        Ensured { future: self.clone(), read: Future::result, new: false, shared: true }
    }

    fn wait_from(self, place: &'static Location<'static>) -> Waiting<T, E> {
        Waiting::new(self.clone(), Future::result, place)
    }
}

impl<T: 'static, E: CancelAware + 'static> Awaitable for Task<T, E> {
    type Value = T;
    type Error = E;

    fn ensure(self, place: &'static Location<'static>) -> Ensured<T, E> {
        Future::from(self).ensure(place)
    }

    fn wait_from(self, place: &'static Location<'static>) -> Waiting<T, E> {
        Future::from(self).wait_from(place)
    }
}

impl<T: Clone + 'static, E: CancelAware + Clone + 'static> Awaitable for &Task<T, E> {
    type Value = T;
    type Error = E;

    fn ensure(self, place: &'static Location<'static>) -> Ensured<T, E> {
        (&**self).ensure(place)
    }

    fn wait_from(self, place: &'static Location<'static>) -> Waiting<T, E> {
        (&**self).wait_from(place)
    }
}

/// The future of what can be awaited: that of a task or future itself, or of a new task.
///
/// # Panics
/// Outside of a loop, where a task is made.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(trefoil_nursery::asyncio::event_loop(async {
/// # use trefoil_nursery::{Cancelled, asyncio};
/// let future = asyncio::ensure_future(async { Ok::<_, Cancelled>(1) });
/// assert!(!future.done());
/// assert_eq!(future.await?, 1);
/// # Ok::<(), Cancelled>(())
/// # })).unwrap();
/// ```
#[track_caller]
pub fn ensure_future<A: Awaitable>(awaitable: A) -> Future<A::Value, A::Error> {
    awaitable.ensure(Location::caller()).future
}

/// A handle that [`wait`](super::wait()) takes and gives back: a [`Task`], a [`Future`], or a reference to one.
pub trait Waitable {
    /// What it gives.
    type Value: 'static;
    /// How it fails.
    type Error: CancelAware + 'static;

    /// The future of it.
    fn as_future(&self) -> &Future<Self::Value, Self::Error>;
}

impl<T: 'static, E: CancelAware + 'static> Waitable for Future<T, E> {
    type Value = T;
    type Error = E;

    fn as_future(&self) -> &Future<T, E> {
        self
    }
}

impl<T: 'static, E: CancelAware + 'static> Waitable for Task<T, E> {
    type Value = T;
    type Error = E;

    fn as_future(&self) -> &Future<T, E> {
        self
    }
}

impl<H: Waitable> Waitable for &H {
    type Value = H::Value;
    type Error = H::Error;

    fn as_future(&self) -> &Future<H::Value, H::Error> {
        (**self).as_future()
    }
}
