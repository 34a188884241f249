//! The tree of one execution, and an operation in a scope of it.

use crate::Woken;
use std::cell::RefCell;
use std::fmt::Debug;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};
use trefoil_runtime::model::{Tree, free_tree, link, unlink};
use trefoil_runtime::{Kind, Scope, Source};

/// A tree that ends with the execution. It comes first in a model, so that it goes last.
#[derive(Debug)]
pub struct Run {
    /// The tree.
    pub tree: &'static Tree,
}

impl Run {
    /// A tree, and nothing in it.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self { tree: Tree::leaked() }
    }

    /// Calls `f` in a scope of this tree.
    pub fn within<R>(&self, scope: &Scope, f: impl FnOnce() -> R) -> R {
        trefoil_runtime::model::within(self.tree, scope, f)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: the execution is over, and whatever used it went before.
            unsafe { free_tree(self.tree) }
        }
    }
}

/// An operation in a scope of its own, which one thread polls and any thread cancels. It is freed as soon as it is over.
pub struct Task<'a, F: Future> {
    future: RefCell<Option<Pin<Box<F>>>>,
    /// Its scope.
    pub scope: Pin<Box<Scope>>,
    /// Its waker.
    pub woken: Woken,
    run: &'a Run,
}

impl<F: Future> Debug for Task<'_, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Task")
    }
}

impl<'a, F: Future> Task<'a, F> {
    /// One that has not begun.
    pub fn new(run: &'a Run, future: F) -> Self {
        let scope = Box::pin(Scope::new(Kind::Scope, Location::caller()));
        // SAFETY: it is pinned, and unlinked in `end`.
        unsafe { link(&scope, run.tree, None) };
        Self { future: RefCell::new(Some(Box::pin(future))), scope, woken: Woken::new(), run }
    }

    /// One that waits.
    pub fn waiting(run: &'a Run, future: F) -> Self {
        let this = Self::new(run, future);
        assert!(this.poll().is_pending());
        this
    }

    fn poll_with(&self, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut future = self.future.borrow_mut();
        let polled = self.run.within(&self.scope, || future.as_mut().expect("it is not over").as_mut().poll(cx));
        if polled.is_ready() {
            *future = None;
        }
        polled
    }

    /// Polls it once.
    pub fn poll(&self) -> Poll<F::Output> {
        self.woken.poll(|cx| self.poll_with(cx))
    }

    /// Polls it as long as it is woken, after a poll that came to this.
    pub fn settle(&self, polled: Poll<F::Output>) -> Poll<F::Output> {
        let mut polled = polled;
        self.woken.settle(|cx| {
            if polled.is_pending() {
                polled = self.poll_with(cx);
            }
        });
        polled
    }

    /// What it comes to.
    ///
    /// # Panics
    /// If it was not woken: a wake-up was lost.
    pub fn end_of(&self, polled: Poll<F::Output>) -> F::Output {
        match self.settle(polled) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("a wake-up was lost"),
        }
    }

    /// Cancels its scope.
    pub fn cancel(&self) {
        self.scope.cancel(Source::Explicit, Location::caller());
    }

    /// Drops the operation where it is.
    pub fn give_up(&self) {
        drop(self.future.borrow_mut().take());
    }

    /// The end of it and of its scope.
    ///
    /// # Panics
    /// If somebody kept its waker.
    pub fn end(self) {
        self.give_up();
        unlink(&self.scope);
        assert_eq!(self.woken.wakers(), 0, "a waker was kept");
    }
}
