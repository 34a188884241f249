//! [`shield`]: what goes on when the task that awaits it is cancelled.

use super::awaitable::Awaitable;
use super::future::{Future, Kind};
use super::here;
use std::panic::Location;
use trefoil_runtime::{Ender, Reason};

/// A future of the same result, whose cancellation does not reach what it is of. Async code becomes a task.
///
/// When the task that awaits the shield is cancelled, it is told at once, and what is behind the shield goes on (S1): its loop owns it, and
/// cancels it when main is done (S7). For code that has to end before the task goes on there is [`trefoil::shield`](crate::shield()).
///
/// # Errors
/// Those of what is shielded (S3). When that is cancelled, so is the shield (S2).
///
/// # Panics
/// Outside of a loop. Where a result is wanted by value that another took.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(trefoil_nursery::asyncio::event_loop(async {
/// use std::time::Duration;
/// use trefoil_nursery::{Cancelled, asyncio};
/// let saved = asyncio::create_task(async {
///     asyncio::sleep(Duration::from_millis(2)).await?;
///     Ok::<_, Cancelled>("saved")
/// });
/// let waits = asyncio::create_task({
///     let saved = saved.clone();
///     async move { asyncio::shield(saved).await }
/// });
/// asyncio::sleep(Duration::from_millis(1)).await?;
/// waits.cancel();
/// assert!(waits.await.is_err());
/// assert_eq!(saved.await?, "saved");
/// # Ok::<(), Cancelled>(())
/// # })).unwrap();
/// ```
#[track_caller]
pub fn shield<A: Awaitable>(awaitable: A) -> Future<A::Value, A::Error> {
    let place = Location::caller();
    let inner = awaitable.ensure(place);
    if inner.future.done() {
        // S4.
        if !inner.shared || inner.future.cancelled() {
            return inner.future;
        }
        let outer = Future::new(Kind::Plain, place);
        _ = outer.finish(inner.outcome());
        return outer;
    }
    let outer = Future::new(Kind::For(Reason::Custom("what a shield of asyncio protects"), Ender::Unknown), place);
    let event_loop = here::running();
    let told = outer.told();
    let callback = {
        // Without the future: that has the callback, and would never go where it is never done.
        let with = inner.without_future();
        inner.future.on_done(
            event_loop.clone(),
            Box::new(move |inner| {
                let Some(outer) = told.call().filter(|outer| !outer.done()) else { return };
                if inner.cancelled() {
                    outer.finish_cancelled();
                } else {
                    _ = outer.finish(with(inner).outcome());
                }
            }),
        )
    };
    let watched = inner.future.any();
    outer.on_done(event_loop, Box::new(move |_| _ = watched.remove(callback)));
    outer
}
