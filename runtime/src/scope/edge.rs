//! A future whose waits can be ended once, from outside of it: what a task is made of whose cancellation is an event and not a state.
//!
//! It runs in a scope of its own, which is made when something in it waits here, opens a scope or asks about it; one that waits for nothing of
//! this library never has one. Who wants to cancel it takes that scope and calls [`Scope::cancel_once`].

use crate::context::{self, Entered, InScope};
use crate::scope::Scope;
use crate::scope::cause::Kind;
use crate::scope::scoped::{Entry, Held, Plan, poll_first};
use crate::time::clock::NEVER;
use crate::worker;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// See the module.
pub struct Edge<F> {
    // Dropped last, as in `Scoped`.
    body: Option<F>,
    entry: Option<Entry<Held>>,
    place: &'static Location<'static>,
}

impl<F> std::fmt::Debug for Edge<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Edge").field("place", &format_args!("{}", self.place)).finish_non_exhaustive()
    }
}

impl<F> Edge<F> {
    /// A body that has not begun.
    pub fn new(place: &'static Location<'static>, body: F) -> Self {
        Self { body: Some(body), entry: None, place }
    }

    /// The scope that it runs in, if there is one yet.
    pub fn scope(&self) -> Option<&Arc<Scope>> {
        match self.entry.as_ref().map(Entry::held) {
            Some(Held::Shared(scope)) => Some(scope),
            _ => None,
        }
    }

    /// Whether the body is there.
    pub fn has_body(&self) -> bool {
        self.body.is_some()
    }

    /// Polls the body in its scope. It stays there when it has ended: [`clear`](Self::clear) drops it.
    ///
    /// # Panics
    /// When the body is not there any more.
    pub fn poll_body(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output>
    where
        F: Future,
    {
        // SAFETY: the body is pinned, and only set to `None`, in place; nothing else is.
        let this = unsafe { self.get_unchecked_mut() };
        // SAFETY: as above.
        let body = unsafe { Pin::new_unchecked(&mut this.body) };
        let body = body.as_pin_mut().expect("polled after its body was dropped");
        worker::with(|worker| worker.told_once.set(false));
        match &mut this.entry {
            Some(entry) => {
                entry.enter(cx);
                let _entered = InScope::new(entry.scope());
                body.poll(cx)
            }
            entry @ None => {
                let plan = Plan { kind: Kind::Scope, place: this.place, after: NEVER, shared: true };
                poll_first(body, cx, &plan, entry)
            }
        }
    }

    /// Drops the body, in its scope, and leaves that.
    pub fn clear(self: Pin<&mut Self>) {
        // SAFETY: as in `poll_body`.
        let this = unsafe { self.get_unchecked_mut() };
        this.drop_body();
        if let Some(entry) = &mut this.entry {
            entry.leave();
        }
    }

    fn drop_body(&mut self) {
        let _entered = self.entry.as_ref().map(|entry| Entered::new(context::frame_in(entry.scope())));
        // SAFETY: it is pinned, and dropped in place.
        unsafe { Pin::new_unchecked(&mut self.body) }.set(None);
    }

    /// After a poll that was pending, in its task: whether the body was not woken meanwhile, and waits for nothing that the library knows
    /// of. Nobody can tell it that it was cancelled (N13).
    pub fn is_stuck(&self) -> bool {
        let task = context::task();
        // SAFETY: [CURRENT] of the context module.
        let Some(task) = (unsafe { task.as_ref() }) else { return false };
        if task.is_scheduled() || task.is_told() {
            return false;
        }
        match &self.entry {
            Some(entry) => entry.scope().lock().is_some_and(|locked| locked.is_idle(entry.scope())),
            None => task.waits() == 0,
        }
    }
}

impl<F> Drop for Edge<F> {
    fn drop(&mut self) {
        if self.body.is_some() {
            self.drop_body();
        }
    }
}

/// Whether in this poll of an [`Edge`] an operation was told of a cancellation that is over since.
pub fn told_once() -> bool {
    worker::with(|worker| worker.told_once.get()).unwrap_or(false)
}
