//! [`create_future`]: a future, and who decides it.

use super::future::{Future, Kind};
use std::fmt;
use std::io;
use std::panic::Location;
use trefoil_runtime::{CancelAware, Ender, Reason};

/// The future can have no result: who was to give it one is gone (D-5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abandoned(());

impl fmt::Display for Abandoned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody can give the future a result any more: its resolver was dropped")
    }
}

impl std::error::Error for Abandoned {}

impl From<Abandoned> for io::Error {
    fn from(error: Abandoned) -> Self {
        io::Error::new(io::ErrorKind::BrokenPipe, error)
    }
}

/// What gives a [`Future`] its result, once: to set it uses it up.
///
/// A resolver that is dropped ends the wait with [`Abandoned`] (D-5): in Python such a wait never ends.
///
/// ```compile_fail,E0382
/// # trefoil_nursery::doc_run(trefoil_nursery::asyncio::event_loop(async {
/// # use trefoil_nursery::asyncio;
/// let (resolver, future) = asyncio::create_future::<u8, std::io::Error>();
/// let _ = resolver.set_result(1);
/// let _ = resolver.set_result(2);
/// # Ok::<(), std::io::Error>(())
/// # })).unwrap();
/// ```
pub struct Resolver<T: 'static, E: CancelAware + From<Abandoned> + 'static> {
    /// There until it is set, which uses this up.
    future: Option<Future<T, E>>,
}

impl<T, E: CancelAware + From<Abandoned>> fmt::Debug for Resolver<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Resolver").field(&self.future).finish()
    }
}

impl<T: 'static, E: CancelAware + From<Abandoned> + 'static> Resolver<T, E> {
    /// Without the drop that tells those who wait.
    fn into_future(mut self) -> Option<Future<T, E>> {
        self.future.take()
    }

    /// Gives the future its result; who waits is woken.
    ///
    /// # Errors
    /// The value, where the future was cancelled.
    pub fn set_result(self, value: T) -> Result<(), T> {
        self.set(Ok(value)).map_err(|value| match value {
            Ok(value) => value,
            Err(_) => unreachable!("what was not taken is what was given"),
        })
    }

    /// Ends the future with an error.
    ///
    /// # Errors
    /// The error, where the future was cancelled.
    pub fn set_exception(self, error: E) -> Result<(), E> {
        self.set(Err(error)).map_err(|error| match error {
            Err(error) => error,
            Ok(_) => unreachable!("what was not taken is what was given"),
        })
    }

    /// Gives the future either.
    ///
    /// # Errors
    /// What was given, where the future was cancelled.
    pub fn set(self, outcome: Result<T, E>) -> Result<(), Result<T, E>> {
        match self.into_future() {
            Some(future) => future.finish(outcome),
            None => Err(outcome),
        }
    }

    /// Whether the future was cancelled, so that nobody wants a result.
    pub fn is_cancelled(&self) -> bool {
        self.future.as_ref().is_some_and(Future::cancelled)
    }

    /// A handle of the future.
    pub fn future(&self) -> Future<T, E> {
        self.future.clone().expect("it is there until it is set")
    }
}

impl<T: 'static, E: CancelAware + From<Abandoned> + 'static> Drop for Resolver<T, E> {
    fn drop(&mut self) {
        let Some(future) = self.future.take() else { return };
        if !future.done() && future.finish(Err(Abandoned(()).into())).is_ok() {
            // Whoever waits is told; that nobody does is no error.
            future.set_seen();
        }
    }
}

/// A future, and who gives it its result: asyncio's `loop.create_future`.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(trefoil_nursery::asyncio::event_loop(async {
/// use std::io;
/// use trefoil_nursery::asyncio;
/// let (resolver, future) = asyncio::create_future::<_, io::Error>();
/// let waits = asyncio::create_task({
///     let future = future.clone();
///     async move { future.await }
/// });
/// asyncio::sleep(std::time::Duration::ZERO).await?;
/// resolver.set_result("here").unwrap();
/// assert_eq!(waits.await?, "here");
///
/// let (resolver, future) = asyncio::create_future::<(), io::Error>();
/// drop(resolver);
/// assert_eq!(future.await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
/// # Ok::<(), io::Error>(())
/// # })).unwrap();
/// ```
#[track_caller]
pub fn create_future<T, E>() -> (Resolver<T, E>, Future<T, E>)
where
    T: 'static,
    E: CancelAware + From<Abandoned> + 'static,
{
    of(Kind::Plain, Location::caller())
}

/// The same for what is made of it, on behalf of code at another place: who waits for it, waits for `what`.
#[doc(hidden)]
pub fn create_future_for<T, E>(what: &'static str, place: &'static Location<'static>) -> (Resolver<T, E>, Future<T, E>)
where
    T: 'static,
    E: CancelAware + From<Abandoned> + 'static,
{
    of(Kind::For(Reason::Custom(what), Ender::Unknown), place)
}

fn of<T, E>(kind: Kind, place: &'static Location<'static>) -> (Resolver<T, E>, Future<T, E>)
where
    T: 'static,
    E: CancelAware + From<Abandoned> + 'static,
{
    let future = Future::new(kind, place);
    (Resolver { future: Some(future.clone()) }, future)
}
