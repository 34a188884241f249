//! [`wait`]: until one, or all, of several are done.

use super::awaitable::Waitable;
use super::event_loop::call_at;
use super::future::{AnyFuture, Future};
use super::here;
use super::sleep::OnDrop;
use std::cell::Cell;
use std::collections::HashSet;
use std::future::Future as StdFuture;
use std::panic::Location;
use std::rc::Rc;
use std::time::Duration;
use trefoil_runtime::{self as runtime, Cancelled, Reason};

/// When [`wait`] returns, if not at its timeout: asyncio's `return_when`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum When {
    /// When all are done.
    #[default]
    AllCompleted,
    /// When one is done (W4).
    FirstCompleted,
    /// When one has failed, or all are done. One that was cancelled has not failed (W5).
    FirstException,
}

/// What [`wait`] gives back: the handles that it was given, in their order, each once.
#[derive(Debug)]
#[must_use = "those that are done may have failed, and those that are pending go on"]
pub struct Waited<H> {
    /// Those that are done.
    pub done: Vec<H>,
    /// Those that are not.
    pub pending: Vec<H>,
}

/// The callbacks of a wait, which go with it (W10).
struct Callbacks(Vec<(Rc<dyn AnyFuture>, u64)>);

impl Drop for Callbacks {
    fn drop(&mut self) {
        for (future, callback) in &self.0 {
            future.remove(*callback);
        }
    }
}

/// Waits until those that are given are done, or one of them is. It looks at no result, and cancels none (W3, W6).
///
/// Give tasks and futures, or references to them: async blocks are no handles (W1). Each counts once (W2). It gives up the turn, also where all
/// are done (W8).
///
/// # Errors
/// [`Cancelled`] when the task is cancelled.
///
/// # Cancellation
/// Ends the wait; those that are waited for go on (W9).
///
/// # Panics
/// With nothing to wait for (W1), and outside of a loop.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(trefoil_nursery::asyncio::event_loop(async {
/// use std::time::Duration;
/// use trefoil_nursery::{Cancelled, asyncio};
/// let tasks = [1, 3600].map(|n| {
///     asyncio::create_task(async move {
///         asyncio::sleep(Duration::from_secs(n) / 100).await?;
///         Ok::<_, Cancelled>(n)
///     })
/// });
/// let waited = asyncio::wait(&tasks, asyncio::When::FirstCompleted, None).await?;
/// assert_eq!((waited.done[0].result(), waited.pending.len()), (Ok(Ok(1)), 1));
/// # Ok::<(), Cancelled>(())
/// # })).unwrap();
/// ```
#[track_caller]
pub fn wait<I>(
    handles: I,
    return_when: When,
    timeout: impl Into<Option<Duration>>,
) -> impl StdFuture<Output = Result<Waited<I::Item>, Cancelled>>
where
    I: IntoIterator,
    I::Item: Waitable,
{
    wait_at(handles, return_when, timeout, Location::caller())
}

async fn wait_at<I>(
    handles: I,
    return_when: When,
    timeout: impl Into<Option<Duration>>,
    place: &'static Location<'static>,
) -> Result<Waited<I::Item>, Cancelled>
where
    I: IntoIterator,
    I::Item: Waitable,
{
    let timeout = timeout.into();
    let mut seen = HashSet::new();
    let handles: Vec<_> = handles.into_iter().filter(|handle| seen.insert(handle.as_future().key())).collect();
    assert!(!handles.is_empty(), "there is nothing to wait for");
    let event_loop = here::running();
    let waiter = Future::<(), Cancelled>::pending(Reason::Custom("some of several tasks or futures of asyncio"));
    let release = {
        let waiter = waiter.clone();
        move || _ = waiter.finish(Ok(()))
    };
    let timer = timeout.map(|timeout| {
        let when = runtime::after(runtime::now_nanos(), timeout);
        Rc::new(OnDrop(call_at(&event_loop, when, Box::new(release.clone()))))
    });
    let counter = Rc::new(Cell::new(handles.len()));
    let mut callbacks = Callbacks(Vec::with_capacity(handles.len()));
    for handle in &handles {
        let (counter, release, timer) = (counter.clone(), release.clone(), timer.clone());
        let future = handle.as_future();
        let callback = future.on_done(
            event_loop.clone(),
            Box::new(move |future| {
                counter.set(counter.get() - 1);
                let enough = match return_when {
                    When::AllCompleted => false,
                    When::FirstCompleted => true,
                    When::FirstException => future.failed_unseen(),
                };
                if enough || counter.get() == 0 {
                    if let Some(timer) = &timer {
                        timer.cancel();
                    }
                    release();
                }
            }),
        );
        callbacks.0.push((future.any(), callback));
    }
    let ended = waiter.wait_at(place).await;
    if let Some(timer) = timer {
        timer.cancel();
    }
    drop(callbacks);
    ended?;
    let (done, pending) = handles.into_iter().partition(|handle| handle.as_future().done());
    Ok(Waited { done, pending })
}
