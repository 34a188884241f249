//! Shields: clean-up that a cancellation from outside does not reach.

use super::InScope;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use trefoil_runtime::{CancelAware, Kind, Scoped};

/// The future of [`shield`].
#[must_use = "a shield does nothing until it is awaited"]
pub struct Shielded<F> {
    scoped: Scoped<F>,
}

impl<F> Shielded<F> {
    /// The same, with a name for the shield; see [`InScope::named`].
    pub fn named(mut self, name: impl Into<Arc<str>>) -> Self {
        self.scoped.set_name(name.into());
        self
    }
}

impl<F> fmt::Debug for Shielded<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.scoped.fmt(f)
    }
}

impl<F: Future> Future for Shielded<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: `scoped` is pinned with this.
        let scoped = unsafe { self.map_unchecked_mut(|this| &mut this.scoped) };
        Poll::Ready(ready!(scoped.poll_body(cx)).expect("a shield without a handle is not cancelled itself"))
    }
}

/// Runs a future that cancellation from outside does not reach: for clean-up that has to wait.
///
/// It may take as long as it likes, and a cancelled program waits for it. Prefer [`shield_for`], which puts a limit.
///
/// # Cancellation
/// Not noticed inside. What is cancelled outside stays so: the next operation after the shield returns
/// [`Cancelled`](crate::Cancelled).
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use trefoil_nursery::{move_on_after, shield, sleep, sleep_forever, Cancelled};
/// use std::time::Duration;
/// let mut said_goodbye = false;
/// move_on_after(Duration::from_millis(1), async {
///     let result = sleep_forever().await;
///     shield(async {
///         sleep(Duration::from_millis(1)).await.expect("not reached by the deadline outside");
///         said_goodbye = true;
///     })
///     .await;
///     result
/// })
/// .await
/// .unwrap();
/// assert!(said_goodbye);
/// # });
/// ```
#[track_caller]
pub fn shield<F: Future>(body: F) -> Shielded<F> {
    shield_at(body, Location::caller())
}

/// Runs a future that cancellation from outside does not reach, for a length of time at most: `Ok(None)` if the time was over first.
///
/// # Errors
/// Those of the body.
///
/// # Cancellation
/// Not noticed inside, but for the time limit (R32). A clean-up that is cut by its limit is a warning in the log, with its place.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use trefoil_nursery::{shield_for, sleep_forever, Cancelled};
/// use std::time::Duration;
/// let hung = shield_for(Duration::from_millis(1), async { sleep_forever().await }).await;
/// assert_eq!(hung, Ok(None));
/// # });
/// ```
#[track_caller]
pub fn shield_for<T, E, F>(limit: Duration, body: F) -> InScope<F>
where
    F: Future<Output = Result<T, E>>,
    E: CancelAware,
{
    shield_for_at(limit, body, Location::caller())
}

/// [`shield`] on behalf of code at another place.
pub(crate) fn shield_at<F: Future>(body: F, place: &'static Location<'static>) -> Shielded<F> {
    Shielded { scoped: Scoped::own(Kind::Shield, place, None, body) }
}

/// [`shield_for`] on behalf of code at another place.
pub(crate) fn shield_for_at<F>(limit: Duration, body: F, place: &'static Location<'static>) -> InScope<F> {
    InScope { scoped: Scoped::own(Kind::Shield, place, Some(limit), body) }
}
