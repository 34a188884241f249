//! Time limits: what goes on with nothing when the time is over, and what fails.

use super::InScope;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use trefoil_runtime::{self as runtime, CancelAware, DeadlineAware, Kind, Scoped, TimedOut};

/// Runs a future for a length of time at most: `Ok(None)` if the time was over first.
///
/// The length counts from the first poll (R43). A body that is done returns its value, even if the time is over by then (R29).
///
/// # Errors
/// Those of the body. [`Cancelled`](crate::Cancelled) only if a scope further out is cancelled.
///
/// # Cancellation
/// When the time is over, the operation that the body waits for returns [`Cancelled`](crate::Cancelled), and the body is awaited.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use trefoil_nursery::{move_on_after, sleep, Cancelled};
/// use std::time::Duration;
/// let slow = move_on_after(Duration::from_millis(1), async {
///     sleep(Duration::from_secs(3600)).await?;
///     Ok::<_, Cancelled>("done")
/// })
/// .await;
/// assert_eq!(slow, Ok(None));
/// # });
/// ```
#[doc(alias("timeout"))]
#[track_caller]
pub fn move_on_after<T, E, F>(length: Duration, body: F) -> InScope<F>
where
    F: Future<Output = Result<T, E>>,
    E: CancelAware,
{
    InScope { scoped: Scoped::own(Kind::Scope, Location::caller(), Some(length), body) }
}

/// Runs a future until an instant at most: `Ok(None)` if that came first. Otherwise as [`move_on_after`].
///
/// # Errors
/// As for [`move_on_after`].
#[track_caller]
pub fn move_on_at<T, E, F>(deadline: Instant, body: F) -> InScope<F>
where
    F: Future<Output = Result<T, E>>,
    E: CancelAware,
{
    InScope { scoped: Scoped::until(Location::caller(), runtime::nanos(deadline), body) }
}

/// The future of [`fail_after`] and [`fail_at`].
#[derive(Debug)]
#[must_use = "a scope does nothing until it is awaited"]
pub struct OrTimedOut<F> {
    scope: InScope<F>,
}

impl<F> OrTimedOut<F> {
    /// The same, with a name for the scope; see [`InScope::named`].
    pub fn named(self, name: impl Into<Arc<str>>) -> Self {
        Self { scope: self.scope.named(name) }
    }
}

impl<T, E, F> Future for OrTimedOut<F>
where
    F: Future<Output = Result<T, E>>,
    E: DeadlineAware,
{
    type Output = Result<T, E::Failed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: `scope` is pinned with this.
        let scope = unsafe { self.map_unchecked_mut(|this| &mut this.scope) };
        Poll::Ready(match ready!(scope.poll(cx)) {
            Ok(Some(value)) => Ok(value),
            Ok(None) => Err(TimedOut::new().into()),
            Err(error) => Err(error.into()),
        })
    }
}

/// Runs a future for a length of time at most, and fails with [`TimedOut`] if the time was over first.
///
/// # Errors
/// [`TimedOut`] if this deadline, and not one further out, ended the body (R30); otherwise those of the body. An `io::Error` made from it
/// has the kind `TimedOut`. Around an operation whose error is [`Cancelled`](crate::Cancelled), both are told apart by
/// [`CancelledOrTimedOut`](crate::CancelledOrTimedOut), which `?` turns into an `io::Error` or a boxed error.
///
/// # Cancellation
/// As for [`move_on_after`].
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use trefoil_nursery::{fail_after, sleep};
/// use std::{io, time::Duration};
/// let slow = fail_after(Duration::from_millis(1), async {
///     sleep(Duration::from_secs(3600)).await?;
///     Ok::<_, io::Error>(())
/// })
/// .await;
/// assert_eq!(slow.unwrap_err().kind(), io::ErrorKind::TimedOut);
///
/// // One operation, in a function that returns an `io::Result`:
/// async fn wait() -> io::Result<()> {
///     fail_after(Duration::from_millis(1), sleep(Duration::from_secs(3600))).await?;
///     Ok(())
/// }
/// assert_eq!(wait().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
/// # });
/// ```
#[doc(alias("timeout"))]
#[track_caller]
pub fn fail_after<T, E, F>(length: Duration, body: F) -> OrTimedOut<F>
where
    F: Future<Output = Result<T, E>>,
    E: DeadlineAware,
{
    OrTimedOut { scope: move_on_after(length, body) }
}

/// Runs a future until an instant at most, and fails with [`TimedOut`] if that came first. Otherwise as [`fail_after`].
///
/// # Errors
/// As for [`fail_after`].
#[track_caller]
pub fn fail_at<T, E, F>(deadline: Instant, body: F) -> OrTimedOut<F>
where
    F: Future<Output = Result<T, E>>,
    E: DeadlineAware,
{
    OrTimedOut { scope: move_on_at(deadline, body) }
}
