//! A future that runs in a scope: sets the scope while it polls, gives up on a body that cannot be told (N13), and decides at the
//! end whether the scope absorbs a cancellation (R24, R25).

use crate::cancelled::CancelAware;
use crate::context::{self, Entered};
use crate::ready::Header;
use crate::scope::{CAUGHT, ENTERED, Scope, WAKER_SET};
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::ptr;
use std::task::{Context, Poll};

/// The entry, polls and exit of a scope: what a future that runs in one has beside its body.
///
/// `S` owns the scope, or a count of it, and keeps it in place.
pub struct Entry<S: Deref<Target = Scope>> {
    scope: S,
    linked: bool,
    /// How many cancellations the task had been told at the entry (N13 b).
    strikes: u32,
    /// The time, where it was read just before the scope is entered.
    now: Option<u64>,
    /// The waker set in the scope, for comparison only.
    waker: (*const (), *const ()),
}

// SAFETY: the pointers in `waker` are compared, never followed.
unsafe impl<S: Deref<Target = Scope> + Send> Send for Entry<S> {}
// SAFETY: as above.
unsafe impl<S: Deref<Target = Scope> + Sync> Sync for Entry<S> {}

impl<S: Deref<Target = Scope>> std::fmt::Debug for Entry<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.scope.fmt(f)
    }
}

impl<S: Deref<Target = Scope>> Entry<S> {
    /// For a scope that keeps its place as long as `S` lives.
    ///
    /// # Safety
    /// `S` owns the scope, or a count of it, so that it is there as long as `S` is, also where that is forgotten; it derefs to the same
    /// scope always, and that does not move.
    pub unsafe fn new(scope: S) -> Self {
        Self { scope, linked: false, strikes: 0, now: None, waker: (ptr::null(), ptr::null()) }
    }

    /// The scope.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Gives a scope that is about to be entered a deadline relative to now (R43).
    pub fn set_deadline_after(&mut self, length: std::time::Duration) {
        let now = crate::worker::now();
        self.now = Some(now);
        self.scope.set_deadline(crate::clock::after(now, length));
    }

    /// Whether it was entered and not yet left.
    pub fn is_linked(&self) -> bool {
        self.linked
    }

    /// To be called at the begin of every poll: links the scope at the first, finds its place again if it is polled elsewhere, and
    /// registers who must be polled when it is cancelled.
    ///
    /// # Panics
    /// Outside of a run, and when the scope is entered for a second time (R7).
    pub fn enter(&mut self, cx: &mut Context<'_>) {
        let frame = context::frame();
        let Some(tree) = frame.tree else { context::outside("a scope") };
        let waker = (cx.waker().data(), ptr::from_ref(cx.waker().vtable()).cast());
        let old = if !self.linked {
            let before = self.scope.set(ENTERED);
            assert!(before & ENTERED == 0, "a cancel scope was entered twice: it is for one use (R7)");
            let new = cx.waker().clone();
            // SAFETY: [HELD]: `leave` unlinks it, at the latest in `drop`.
            let mut locked = unsafe {
                self.scope.link(tree, frame.scope, frame.task, || self.now.unwrap_or_else(|| tree.clock.now()))
            };
            self.linked = true;
            self.strikes = context::strikes();
            self.waker = waker;
            locked.set_waker(&self.scope, new)
        } else {
            if !ptr::eq(self.scope.parent.load(std::sync::atomic::Ordering::Relaxed), frame.scope) {
                // SAFETY: it is linked, or was let go.
                unsafe { self.scope.relink(tree, frame.scope, frame.task) };
            } else if !ptr::eq(self.scope.task(), frame.task)
                && let Some(mut locked) = self.scope.lock()
            {
                locked.set_task(&self.scope, frame.task);
            }
            if self.scope.has(WAKER_SET) && waker == self.waker {
                return;
            }
            self.waker = waker;
            let new = cx.waker().clone();
            self.scope.lock().and_then(|mut locked| locked.set_waker(&self.scope, new))
        };
        drop(old);
    }

    /// N13 (a), after a poll that was pending: the scope is cancelled, and its body neither was woken nor waits for anything that
    /// the library knows of.
    ///
    /// A body that a cancel told meanwhile is woken instead, and judged after its next poll.
    pub fn is_stuck(&self, cx: &mut Context<'_>) -> bool {
        if !self.scope.is_cancelled() {
            return false;
        }
        // SAFETY: [CURRENT].
        let task = unsafe { context::frame().task.as_ref() };
        if task.is_some_and(Header::is_scheduled)
            || !self.scope.lock().is_some_and(|locked| locked.is_idle(&self.scope))
        {
            return false;
        }
        if task.is_some_and(Header::is_told) {
            cx.waker().wake_by_ref();
            return false;
        }
        true
    }

    /// Leaves the scope. Whether it absorbs a cancellation that comes out of it.
    pub fn leave(&mut self) -> bool {
        if !std::mem::take(&mut self.linked) {
            return false;
        }
        let absorbs = self.scope.unlink();
        if absorbs {
            context::forgive(self.strikes);
        }
        absorbs
    }

    /// The scope did absorb a cancellation (R26).
    pub fn caught(&self) {
        self.scope.set(CAUGHT);
    }
}

impl<S: Deref<Target = Scope>> Drop for Entry<S> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A future in a scope: `Ok(None)` where the scope absorbed a cancellation.
pub struct Scoped<S: Deref<Target = Scope>, F> {
    // Dropped last: what the body left linked under the scope is taken out before.
    body: Option<F>,
    entry: Entry<S>,
    /// It has ended, and does not say so: the task around it has swallowed too many cancellations (N13 b).
    mute: bool,
}

impl<S: Deref<Target = Scope>, F> std::fmt::Debug for Scoped<S, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.entry.fmt(f)
    }
}

impl<S: Deref<Target = Scope>, F> Scoped<S, F> {
    /// A body that will run in a scope.
    pub fn new(entry: Entry<S>, body: F) -> Self {
        Self { body: Some(body), entry, mute: false }
    }

    /// The scope.
    pub fn scope(&self) -> &Scope {
        self.entry.scope()
    }

    /// What the body still holds goes in its own scope.
    fn drop_body(mut body: Pin<&mut Option<F>>, scope: &Scope) {
        let _entered = Entered::new(context::frame_in(scope));
        body.set(None);
    }

    /// See [`Entry::set_deadline_after`].
    pub fn set_deadline_after(self: Pin<&mut Self>, length: std::time::Duration) {
        // SAFETY: the entry is not pinned.
        unsafe { self.get_unchecked_mut() }.entry.set_deadline_after(length);
    }

    /// Polls the body in the scope: what it returned, `None` where it was cut (N13).
    pub fn poll_body<O>(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<O>>
    where
        F: Future<Output = O>,
    {
        // SAFETY: the body is pinned, and only set to `None`, in place; the entry is not.
        let this = unsafe { self.get_unchecked_mut() };
        this.entry.enter(cx);
        // SAFETY: as above.
        let mut body = unsafe { Pin::new_unchecked(&mut this.body) };
        let polled = {
            let _entered = Entered::scope(&*this.entry.scope);
            body.as_mut().as_pin_mut().expect("polled after it was ready").poll(cx)
        };
        match polled {
            Poll::Ready(output) => {
                Self::drop_body(body, &this.entry.scope);
                Poll::Ready(Some(output))
            }
            Poll::Pending if this.entry.is_stuck(cx) => {
                tracing::debug!(scope = %this.entry.scope().place, "a cancelled scope pended on nothing known, and its body was dropped (N13)");
                Self::drop_body(body, &this.entry.scope);
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// The same, with the scope left at the end and its cancellation absorbed: `Ok(None)`.
    pub fn poll_caught<T, E: CancelAware>(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Option<T>, E>>
    where
        F: Future<Output = Result<T, E>>,
    {
        if self.mute {
            return Poll::Pending;
        }
        let output = std::task::ready!(self.as_mut().poll_body(cx));
        // SAFETY: nothing but the body is pinned.
        let this = unsafe { self.get_unchecked_mut() };
        let entry = &mut this.entry;
        let absorbs = entry.leave();
        let error = match output {
            Some(Ok(value)) => return Poll::Ready(Ok(Some(value))),
            Some(Err(error)) => error,
            // The code around is told a cancellation that no operation has counted: a loop of such scopes, too, has to end.
            None if !absorbs && context::poll_cancelled(entry.scope().place).is_pending() => {
                this.mute = true;
                return Poll::Pending;
            }
            None => E::from(crate::Cancelled::delivered()),
        };
        if !absorbs {
            return Poll::Ready(Err(error));
        }
        // R27, R28, R31: only the cancellations go.
        if error.has_cancelled() {
            entry.caught();
        }
        Poll::Ready(error.without_cancelled().map_or(Ok(None), Err))
    }
}

impl<S: Deref<Target = Scope>, F> Drop for Scoped<S, F> {
    fn drop(&mut self) {
        if self.body.is_some() {
            // SAFETY: dropped in place, never moved after.
            Self::drop_body(unsafe { Pin::new_unchecked(&mut self.body) }, &self.entry.scope);
        }
    }
}
