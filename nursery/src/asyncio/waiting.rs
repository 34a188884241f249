//! How a task waits for a [`Future`].

use super::awaitable::not_there;
use super::control::Control;
use super::future::{Future, Kind, Read};
use super::here;
use std::fmt;
use std::future::Future as StdFuture;
use std::panic::Location;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use trefoil_runtime::{CancelAware, Cancelled, GuestWait, Wait};

/// Awaits a [`Future`]: what `(&future).await` and `future.await` poll.
///
/// # Panics
/// A task that awaits itself (C19); a result that was taken out by another.
#[must_use = "a wait does nothing until it is awaited"]
pub struct Waiting<T: 'static, E: CancelAware + 'static = Cancelled> {
    future: Future<T, E>,
    read: Read<T, E>,
    place: &'static Location<'static>,
    parked: Option<Parked>,
}

/// It waits: who is told, and where it is known.
struct Parked {
    waker: u64,
    task: Option<(Rc<Control>, u64)>,
    shown: GuestWait,
}

impl Parked {
    /// Whether the task that waits is the one that polls.
    fn is_here(&self) -> bool {
        here::is_task(self.task.as_ref().map(|(task, _)| task))
    }
}

impl<T, E: CancelAware> fmt::Debug for Waiting<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Waiting").field(&self.future).finish()
    }
}

impl<T: 'static, E: CancelAware + 'static> Waiting<T, E> {
    pub(crate) fn new(future: Future<T, E>, read: Read<T, E>, place: &'static Location<'static>) -> Self {
        Self { future, read, place, parked: None }
    }

    fn read(&self) -> Result<T, E> {
        match (self.read)(&self.future) {
            Ok(outcome) => outcome,
            Err(state) => not_there(&self.future, state),
        }
    }

    /// The core sees that it waits (N10). In a scope of the core that is cancelled the wait ends, and what it was for is left alone: that may
    /// be somebody else's, and the scope is not what asyncio cancels.
    fn show(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, E>> {
        let Some(parked) = &mut self.parked else { return Poll::Pending };
        let (reason, by) = self.future.kind().waits_for();
        match parked.shown.poll(cx, Wait::new(reason).at(self.place), by) {
            // What asyncio's own cancel has ended meanwhile is told by that.
            Poll::Ready(cancelled) if !self.future.done() => {
                self.end();
                Poll::Ready(Err(cancelled.into()))
            }
            _ => Poll::Pending,
        }
    }

    /// The wait is over.
    fn end(&mut self) -> Option<Rc<Control>> {
        let Parked { waker, task, shown } = self.parked.take()?;
        drop(shown);
        self.future.any().remove(waker);
        let (task, number) = task?;
        task.end_wait(number);
        Some(task)
    }
}

impl<T: 'static, E: CancelAware + 'static> StdFuture for Waiting<T, E> {
    type Output = Result<T, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.parked.as_ref().is_some_and(|parked| !parked.is_here()) {
            // Another task began it, whose cancels are not for who goes on with it.
            this.end();
        }
        match &this.parked {
            None if this.future.done() => Poll::Ready(this.read()),
            None => {
                let task = here::task();
                if let (Some(task), Kind::Task(awaited)) = (&task, this.future.kind())
                    && Rc::ptr_eq(task, awaited)
                {
                    panic!("the task {} awaits itself", task.name());
                }
                let waker = this.future.add_waker(cx.waker().clone(), task.clone());
                let task = task.map(|task| {
                    let number = task.wait(this.future.any());
                    (task, number)
                });
                this.parked = Some(Parked { waker, task, shown: GuestWait::new() });
                this.show(cx)
            }
            Some(_) if this.future.done() => {
                let task = this.end();
                // C9: the cancel is delivered, and the value stays where it is.
                if task.is_some_and(|task| task.take_must_cancel()) {
                    return Poll::Ready(Err(Cancelled::delivered().into()));
                }
                Poll::Ready(this.read())
            }
            Some(parked) => {
                this.future.renew_waker(parked.waker, cx.waker());
                this.show(cx)
            }
        }
    }
}

impl<T: 'static, E: CancelAware + 'static> Drop for Waiting<T, E> {
    fn drop(&mut self) {
        self.end();
    }
}
