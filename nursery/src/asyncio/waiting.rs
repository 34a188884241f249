//! How a task waits for a [`Future`].

use super::awaitable::not_there;
use super::control::Control;
use super::future::{Future, Kind, Read};
use super::here;
use std::fmt;
use std::future::Future as StdFuture;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use trefoil_runtime::{CancelAware, Cancelled};

/// Awaits a [`Future`]: what `(&future).await` and `future.await` poll.
///
/// # Panics
/// A task that awaits itself (C19); a result that was taken out by another.
#[must_use = "a wait does nothing until it is awaited"]
pub struct Waiting<T: 'static, E: CancelAware + 'static = Cancelled> {
    future: Future<T, E>,
    read: Read<T, E>,
    parked: Option<Parked>,
}

/// It waits: who is told, and where it is known.
struct Parked {
    waker: u64,
    task: Option<(Rc<Control>, u64)>,
}

impl<T, E: CancelAware> fmt::Debug for Waiting<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Waiting").field(&self.future).finish()
    }
}

impl<T: 'static, E: CancelAware + 'static> Waiting<T, E> {
    pub(crate) fn new(future: Future<T, E>, read: Read<T, E>) -> Self {
        Self { future, read, parked: None }
    }

    fn read(&self) -> Result<T, E> {
        match (self.read)(&self.future) {
            Ok(outcome) => outcome,
            Err(state) => not_there(&self.future, state),
        }
    }

    /// The wait is over.
    fn end(&mut self) -> Option<Rc<Control>> {
        let Parked { waker, task } = self.parked.take()?;
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
                this.parked = Some(Parked { waker, task });
                Poll::Pending
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
                Poll::Pending
            }
        }
    }
}

impl<T: 'static, E: CancelAware + 'static> Drop for Waiting<T, E> {
    fn drop(&mut self) {
        self.end();
    }
}
