//! Whether an operation is a checkpoint (R38, N11).

use std::future::{Future, poll_fn};
use std::panic::Location;
use std::pin::pin;
use std::task::Poll;
use trefoil_nursery::{CancelScope, Cancelled};
use trefoil_runtime::probe;

/// Asserts that an operation is a checkpoint, and does it: what it returned.
///
/// Both halves are tried. In a scope that is cancelled, it must be told so (R37); and it must have had no effect then, which the caller
/// sees. Then it is done for good, and must give up its turn, since its task has no budget left (N11). So `operation` is called twice.
///
/// # Panics
/// If it is not.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use trefoil_nursery::channel;
/// use trefoil_testing::assert_checkpoints;
///
/// let (tx, rx) = channel(1);
/// tx.try_send("item").unwrap();
/// // It need not wait, and is a checkpoint all the same; and the cancelled one takes nothing.
/// assert_eq!(assert_checkpoints(async || rx.recv().await).await, Ok(Some("item")));
/// # });
/// ```
#[track_caller]
pub fn assert_checkpoints<T>(mut operation: impl AsyncFnMut() -> T) -> impl Future<Output = T> {
    let place = Location::caller();
    async move {
        let cancelled = CancelScope::new();
        cancelled.cancel();
        let mut told = false;
        {
            let mut tried = pin!(cancelled.run(async {
                operation().await;
                Ok::<_, Cancelled>(())
            }));
            let ended = poll_fn(|cx| {
                let (polled, place) = probe::told(|| tried.as_mut().poll(cx));
                told |= place.is_some();
                polled
            });
            ended.await.expect("no scope further out is cancelled");
        }
        assert!(told, "no cancel point at {place}: in a cancelled scope, it was not told");

        let (mut polled, mut gave_up) = (false, false);
        let mut done = pin!(operation());
        let output = poll_fn(|cx| {
            if !std::mem::replace(&mut polled, true) {
                probe::spend_budget();
            }
            let polled = done.as_mut().poll(cx);
            gave_up |= polled.is_pending();
            polled
        });
        let output = output.await;
        assert!(gave_up, "no checkpoint at {place}: it never gave up its turn, with no budget left");
        output
    }
}

/// Asserts that an operation is no checkpoint, and does it: it is done at once, and does not hear that its scope is cancelled.
///
/// # Panics
/// If it waits, gives up its turn, or is told.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use trefoil_testing::assert_no_checkpoints;
///
/// let sum = assert_no_checkpoints(async { 1 + 1 }).await;
/// assert_eq!(sum, 2);
/// # });
/// ```
#[track_caller]
pub fn assert_no_checkpoints<F: Future>(operation: F) -> impl Future<Output = F::Output> {
    let place = Location::caller();
    async move {
        let cancelled = CancelScope::new();
        cancelled.cancel();
        let once = cancelled.run(async {
            let mut operation = pin!(operation);
            let polled = poll_fn(|cx| {
                probe::spend_budget();
                Poll::Ready(probe::told(|| operation.as_mut().poll(cx)))
            });
            Ok::<_, Cancelled>(polled.await)
        });
        let once = once.await.expect("no scope further out is cancelled");
        let (polled, told) = once.expect("what is polled once does not return `Cancelled`");
        assert!(told.is_none(), "a cancel point at {place}: it was told that its scope is cancelled");
        match polled {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("it waits, or gives up its turn, at {place}"),
        }
    }
}
