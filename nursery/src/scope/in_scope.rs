//! A future that runs in a scope, and says at its end whether the scope caught a cancellation.

use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::Location;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use trefoil_runtime::{CancelAware, Kind, Scoped};

/// A future in a cancel scope; see [`CancelScope::run`](crate::CancelScope::run) and [`move_on_after`](crate::move_on_after).
#[must_use = "a scope does nothing until it is awaited"]
pub struct InScope<F> {
    pub(super) scoped: Scoped<F>,
}

impl<F> InScope<F> {
    /// The same, with a name for the scope: for the [task tree](trefoil_runtime::tree), and for who is cancelled in it and asks
    /// [why](crate::cancel_cause). A scope that has handles keeps the name that it was [made with](crate::CancelScope::named).
    ///
    /// # Examples
    /// ```
    /// # trefoil_nursery::doc_run(async {
    /// use trefoil_nursery::{cancel_cause, move_on_after, sleep_forever, Cancelled};
    /// use std::time::Duration;
    /// move_on_after(Duration::from_millis(1), async {
    ///     let cancelled = sleep_forever().await;
    ///     let why = cancel_cause().unwrap().to_string();
    ///     assert!(why.starts_with("cancelled: the deadline of scope `lookup` ("), "{why}");
    ///     cancelled
    /// })
    /// .named("lookup")
    /// .await
    /// .unwrap();
    /// # });
    /// ```
    pub fn named(mut self, name: impl Into<Arc<str>>) -> Self {
        self.scoped.set_name(name.into());
        self
    }
}

impl<F> fmt::Debug for InScope<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.scoped.fmt(f)
    }
}

#[cold]
fn log_cut(shield: &Location<'_>) {
    trefoil_runtime::report_warn!(%shield, "what a shield protected did not end within its limit, and was cancelled");
}

impl<T, E, F> Future for InScope<F>
where
    F: Future<Output = Result<T, E>>,
    E: CancelAware,
{
    type Output = Result<Option<T>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: `scoped` is pinned with this.
        let mut scoped = unsafe { self.map_unchecked_mut(|this| &mut this.scoped) };
        let polled = scoped.as_mut().poll_caught(cx);
        if let Poll::Ready(Ok(None)) = polled
            && scoped.kind() == Kind::Shield
        {
            log_cut(scoped.place());
        }
        polled
    }
}

/// Runs a future in a scope that is never cancelled itself, so that what is foreign in it is cut there and not further out: `None` then
/// (N13).
pub(crate) async fn in_own_scope<F: Future>(body: F, place: &'static Location<'static>) -> Option<F::Output> {
    let mut scoped = pin!(Scoped::own(Kind::Scope, place, None, body));
    poll_fn(|cx| scoped.as_mut().poll_body(cx)).await
}
