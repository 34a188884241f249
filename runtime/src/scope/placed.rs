//! A scope whose place in the tree is not where its body is polled: that of a child which `start` has not handed over yet. It runs
//! beneath its caller, and moves to the nursery, with everything below it, when it says that it is ready (R68, R71).

use crate::context::{self, Entered, InScope};
use crate::scope::cause::{Kind, Source};
use crate::scope::scoped::{Key, NOBODY, is_stuck, key};
use crate::scope::{Scope, WAKER_SET};
use crate::wakers::Wakers;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

/// See the module. Clones are handles of the same scope.
#[derive(Clone, Debug)]
pub struct Placed {
    scope: Arc<Scope>,
}

impl Placed {
    /// A new scope under the current one.
    ///
    /// # Safety
    /// The scope names the task that polls the body which [runs](PlacedRoot::run) in it. So the body is dropped before that task is, or that task
    /// ends in the run in which it polled the body.
    ///
    /// # Panics
    /// Outside of a run.
    pub unsafe fn here(place: &'static Location<'static>) -> PlacedRoot {
        let frame = context::open_frame();
        let Some(tree) = frame.tree else { context::outside("the start of a child") };
        let scope = Arc::new(Scope::new(Kind::Scope, place));
        // SAFETY: [HELD] of the scope module: the root unlinks it, at the latest when it is dropped, and has a count of it.
        drop(unsafe { scope.link(tree, frame.scope, ptr::null(), || 0) });
        PlacedRoot { placed: Placed { scope } }
    }

    /// Cancels it.
    pub fn cancel(&self, place: &'static Location<'static>) {
        self.scope.cancel(Source::Explicit, place);
    }

    /// Moves it, with everything below, under another scope (R71). Who is woken by that is woken when the result is dropped: not under
    /// a lock of the caller's.
    pub fn move_under(&self, parent: &Scope) -> Moved {
        Moved(self.scope.lock().map(|mut locked| {
            locked.reparent(&self.scope, parent);
            locked.unlock()
        }))
    }

    /// Moves it so, unless it is cancelled (R72). Both under the lock: what a cancel has told of the child stays with who is cancelled, and
    /// what was moved is not told.
    pub fn hand_over(&self, parent: &Scope) -> Option<Moved> {
        let locked = self.scope.lock();
        if self.scope.is_cancelled() {
            return None;
        }
        Some(Moved(locked.map(|mut locked| {
            locked.reparent(&self.scope, parent);
            locked.unlock()
        })))
    }
}

/// Who is to be woken after a [move](Placed::move_under).
#[derive(Debug)]
#[must_use = "drop it after every lock was released"]
pub struct Moved(#[expect(dead_code, reason = "its drop wakes")] Option<Wakers>);

/// The one that owns the place of a [`Placed`] scope in the tree.
#[derive(Debug)]
pub struct PlacedRoot {
    placed: Placed,
}

impl PlacedRoot {
    /// A handle.
    pub fn handle(&self) -> Placed {
        self.placed.clone()
    }

    /// A body in the scope, polled wherever it is.
    pub fn run<F: Future>(self, body: F) -> PlacedBody<F> {
        PlacedBody { body: Some(body), root: self, waker: NOBODY }
    }
}

impl Drop for PlacedRoot {
    fn drop(&mut self) {
        self.placed.scope.unlink();
    }
}

/// The future of [`PlacedRoot::run`]: `None` where the body was cut (N13).
#[derive(Debug)]
pub struct PlacedBody<F> {
    body: Option<F>,
    root: PlacedRoot,
    /// The waker set in the scope.
    waker: Key,
}

impl<F: Future> Future for PlacedBody<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: the body is pinned, and only polled and set to `None` in place.
        let this = unsafe { self.get_unchecked_mut() };
        let scope: &Scope = &this.root.placed.scope;
        let frame = context::open_frame();
        let Some(tree) = frame.tree else { context::outside("a child") };
        if scope.parent.load(Ordering::Relaxed).is_null() || !scope.is_in(tree) {
            // The scope above it is gone, or is that of a caller in another thread's run: it belongs where it is polled.
            // SAFETY: [HELD].
            unsafe { scope.relink(tree, frame.scope, frame.task) };
        }
        let waker = key(cx.waker());
        if !ptr::eq(scope.task(), frame.task) || !scope.has(WAKER_SET) || waker != this.waker {
            // Not under the lock: the clone of a foreign executor may do anything.
            let new = cx.waker().clone();
            if let Some(mut locked) = scope.lock() {
                locked.set_task(scope, frame.task);
                let old = locked.set_waker(scope, new);
                drop(locked);
                drop(old);
            }
            this.waker = waker;
        }
        // SAFETY: as above.
        let mut body = unsafe { Pin::new_unchecked(&mut this.body) };
        let _entered = InScope::new(scope);
        match body.as_mut().as_pin_mut().expect("polled after it was ready").poll(cx) {
            Poll::Ready(output) => {
                body.set(None);
                scope.unlink();
                Poll::Ready(Some(output))
            }
            Poll::Pending => {
                if !is_stuck(scope, cx) {
                    return Poll::Pending;
                }
                body.set(None);
                scope.unlink();
                Poll::Ready(None)
            }
        }
    }
}

impl<F> Drop for PlacedBody<F> {
    fn drop(&mut self) {
        if self.body.is_some() {
            let _entered = Entered::new(context::frame_in(&self.root.placed.scope));
            // SAFETY: dropped in place.
            unsafe { Pin::new_unchecked(&mut self.body) }.set(None);
        }
    }
}
