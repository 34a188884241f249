//! Soft cancels, as code hears of them that is asked to stop.

use super::InScope;
use std::future::Future;
use std::panic::Location;
use trefoil_runtime::{self as runtime, CancelAware, Scoped};

/// Runs a future until somebody asks to stop, with [`CancelScope::cancel_softly`](crate::CancelScope::cancel_softly) on a scope around this: `Ok(None)` if that came first.
///
/// For what takes in new work: put it around each `accept` or `recv` of a loop, and not around the work. A soft cancel of which one was
/// not told because none was open is not lost: the next one that is entered is cancelled from the start.
///
/// # Errors
/// Those of the body. [`Cancelled`](crate::Cancelled) only if a scope further out is cancelled, softly by way of another
/// `until_soft_cancelled` further out, or hard (R24).
///
/// # Cancellation
/// As for [`move_on_after`](crate::move_on_after): the operation that the body waits for returns [`Cancelled`](crate::Cancelled), and had no effect; no
/// connection is accepted and lost. A [`shield`](crate::shield()) between the scope that is asked to stop and this holds it off, as it holds off a
/// cancel (R32, R33).
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use std::time::Duration;
/// use trefoil_nursery::{channel, nursery, sleep, until_soft_cancelled, Cancelled};
/// let (sender, jobs) = channel(10);
/// let mut done = vec![];
/// nursery(async |n| -> Result<(), Cancelled> {
///     n.spawn(async move {
///         while let Some(job) = until_soft_cancelled(jobs.recv()).await?.flatten() {
///             sleep(Duration::from_millis(1)).await?; // to work on it
///             done.push(job);
///         }
///         done.push(0); // to say goodbye
///         assert_eq!(done, [7, 0]);
///         Ok(())
///     });
///     sender.try_send(7).unwrap();
///     sleep(Duration::from_micros(1)).await?;
///     n.cancel_softly(Duration::from_secs(60));
///     Ok(())
/// })
/// .await
/// .unwrap();
/// # });
/// ```
#[track_caller]
pub fn until_soft_cancelled<T, E, F>(body: F) -> InScope<F>
where
    F: Future<Output = Result<T, E>>,
    E: CancelAware,
{
    InScope { scoped: Scoped::polite(Location::caller(), body) }
}

/// Whether the code that asks was asked to stop: softly, by [`CancelScope::cancel_softly`](crate::CancelScope::cancel_softly) on a scope around it, or by a cancel. For
/// loops that end politely between two pieces of work; a `recv` or `accept` that waits is told by [`until_soft_cancelled`].
///
/// # Panics
/// Outside of a run.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use trefoil_nursery::{soft_cancelled, sleep, CancelScope, Cancelled};
/// use std::time::Duration;
/// let scope = CancelScope::new();
/// let pages = scope
///     .run(async {
///         let mut pages = 0;
///         while !soft_cancelled() {
///             sleep(Duration::from_millis(1)).await?; // to print one
///             pages += 1;
///             if pages == 3 {
///                 scope.cancel_softly(Duration::from_secs(1));
///             }
///         }
///         Ok::<_, Cancelled>(pages)
///     })
///     .await;
/// assert_eq!(pages, Ok(Some(3)));
/// # });
/// ```
#[track_caller]
pub fn soft_cancelled() -> bool {
    runtime::soft_cancelled()
}
