//! [`sleep`]: a turn, or a time.

use super::event_loop::{call_at, cancel_call};
use super::future::Future;
use super::here;
use super::timers::Call;
use std::future::Future as StdFuture;
use std::panic::Location;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use trefoil_runtime::{self as runtime, Cancelled, Ender, Reason};

/// Sleeps for a length of time; with none, gives up the turn.
///
/// # Errors
/// [`Cancelled`] when the task is cancelled, once.
///
/// # Panics
/// Outside of a loop.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(trefoil_nursery::asyncio::event_loop(async {
/// # use trefoil_nursery::{Cancelled, asyncio};
/// asyncio::sleep(std::time::Duration::from_millis(1)).await?;
/// # Ok::<(), Cancelled>(())
/// # })).unwrap();
/// ```
#[track_caller]
pub fn sleep(length: Duration) -> impl StdFuture<Output = Result<(), Cancelled>> {
    let place = Location::caller();
    async move {
        if length.is_zero() {
            return next_turn().await;
        }
        let event_loop = here::running();
        let future = Future::<(), Cancelled>::new(super::future::Kind::For(Reason::Sleep, Ender::Unknown), place);
        let set = future.clone();
        let when = runtime::after(runtime::now_nanos(), length);
        let timer = call_at(&event_loop, when, Box::new(move || _ = set.finish(Ok(()))));
        let _timer = OnDrop(timer);
        super::waiting::Waiting::new(future, Future::take, place).await
    }
}

/// Cancels a timer when the wait for it is over.
pub(crate) struct OnDrop(pub Rc<Call>);

impl OnDrop {
    /// Cancels it now.
    pub fn cancel(&self) {
        if let Some(here) = here::here() {
            cancel_call(&here.event_loop, &self.0);
        } else {
            self.0.cancel();
        }
    }
}

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// The task is polled again in the next turn: asyncio's bare `yield`.
pub(crate) fn next_turn() -> NextTurn {
    NextTurn { yielded: false }
}

pub(crate) struct NextTurn {
    yielded: bool,
}

impl StdFuture for NextTurn {
    type Output = Result<(), Cancelled>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if !std::mem::replace(&mut self.yielded, true) {
            if let Some(task) = here::task() {
                task.queue();
            }
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if here::task().is_some_and(|task| task.take_must_cancel()) {
            return Poll::Ready(Err(Cancelled::delivered()));
        }
        Poll::Ready(Ok(()))
    }
}
