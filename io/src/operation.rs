//! One operation: attempts, and waits in between. The order of things in a poll, which every operation of this crate shares:
//!
//! 1. A wait that is over: *done* means attempt again, whatever has happened to the scope since (a result beats a cancel
//!    that came later, R18); *aborted* means `Err(ECANCELED)`.
//! 2. Nothing under way: in a cancelled scope the operation is not attempted (R37). Then the task's budget (N11).
//! 3. Attempt. 4. If that would block, wait (and go to 3 if something happened just then).
//!
//! Two kinds. An operation that is a future of ours ends its wait when it is dropped. A `poll_*` function of futures-io has
//! no future, so its wait outlives the call in the park of the direction ([`Operation::resume`]): the next call finds it,
//! though whoever began it may be gone, and its outcome may be about a scope that is long over.

use crate::error;
use crate::source::{Begun, Ready, Source, Wants};
use rustix::io::Errno;
use std::io;
use std::marker::PhantomData;
use std::panic::Location;
use std::task::{Context, Poll, ready};
use trefoil_runtime::{cancelled_here, poll_budget, poll_cancelled};

/// See the module.
#[derive(Debug)]
pub(crate) struct Operation<'a, W: Wants> {
    source: &'a Source,
    place: &'static Location<'static>,
    /// A wait is under way, or over and not looked at.
    waits: bool,
    /// The wait was found, and is left behind: there is no future that it belongs to.
    resumed: bool,
    _want: PhantomData<W>,
}

impl<'a, W: Wants> Operation<'a, W> {
    /// For a future of ours.
    ///
    /// # Safety
    /// \[OWNER\] of the source's direction, as long as this exists and is polled or dropped.
    pub unsafe fn new(source: &'a Source, _want: W, place: &'static Location<'static>) -> Self {
        Self { source, place, waits: false, resumed: false, _want: PhantomData }
    }

    /// For one call of a `poll_*` function.
    ///
    /// # Safety
    /// As for [`new`](Self::new).
    pub unsafe fn resume(source: &'a Source, _want: W, place: &'static Location<'static>) -> Self {
        let waits = source.is_waiting(W::DIRECTION);
        Self { source, place, waits, resumed: true, _want: PhantomData }
    }

    /// Attempts, or waits. `Interrupted` from an attempt means that it is to be made again.
    pub fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut attempt: impl FnMut(Ready<'_>) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        ready!(self.poll_start(cx))?;
        let source = self.source;
        loop {
            let blocked = match source.attempt(W::DIRECTION, &mut attempt) {
                Ok(Err(error)) if error::is(&error, Errno::INTR) => {
                    ready!(poll_budget(cx));
                    continue;
                }
                Ok(result) => return Poll::Ready(result),
                Err(blocked) => blocked,
            };
            // SAFETY: the promise of `new`; `poll_start` has ended the wait before.
            match unsafe { source.begin::<W>(cx, self.place, blocked) } {
                Begun::Waiting => {
                    self.waits = true;
                    return Poll::Pending;
                }
                Begun::AskAgain => ready!(poll_budget(cx)),
                Begun::Cancelled => return poll_cancelled(self.place).map(|cancelled| Err(cancelled.into())),
                Begun::Failed(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Steps 1 and 2: `Ready(Ok)` with no wait under way where the operation may be attempted.
    #[inline]
    pub fn poll_start(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.waits || self.source.is_waiting(W::DIRECTION) {
            return self.poll_wait(cx);
        }
        poll_gate(cx, self.place)
    }

    /// The same where a wait is under way, or over and not looked at: ours, or that of somebody who has lost interest.
    #[inline]
    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !trefoil_runtime::in_run() {
            return Poll::Ready(Err(error::outside()));
        }
        if !self.waits {
            // A `poll_*` function was called before us, and whoever called it has lost interest.
            // SAFETY: the promise of `new`.
            unsafe { self.source.end(W::DIRECTION) };
            return poll_gate(cx, self.place);
        }
        // SAFETY: the promise of `new`.
        let outcome = ready!(unsafe { self.source.poll_park(cx, W::DIRECTION) });
        self.waits = false;
        if outcome.is_ok() { Poll::Ready(Ok(())) } else { self.aborted(cx) }
    }

    /// A cancel has ended the wait.
    #[cold]
    fn aborted(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.source.settled(W::DIRECTION);
        if !self.resumed {
            return poll_cancelled(self.place).map(|cancelled| Err(cancelled.into()));
        }
        // What was aborted may be the wait of somebody who is gone, in a scope that was left. Ours is the one to look at.
        poll_gate(cx, self.place)
    }
}

/// Before an operation begins: a run, a scope that is not cancelled, and a budget.
#[inline]
pub(crate) fn poll_gate(cx: &mut Context<'_>, place: &'static Location<'static>) -> Poll<io::Result<()>> {
    match cancelled_here() {
        Some(false) => poll_budget(cx).map(Ok),
        Some(true) => poll_cancelled(place).map(|cancelled| Err(cancelled.into())),
        None => Poll::Ready(Err(error::outside())),
    }
}

impl<W: Wants> Drop for Operation<'_, W> {
    fn drop(&mut self) {
        if self.waits && !self.resumed {
            // SAFETY: the promise of `new`.
            unsafe { self.source.end(W::DIRECTION) };
        }
    }
}
