//! Who waits at a primitive, first come first served: the deque of futures that each of CPython's primitives has.

use super::Future;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::panic::Location;
use trefoil_runtime::{Ender, Reason, Thing};

/// One who waits: `(&waiter).await`. It stays done once it is woken or cancelled.
pub(super) type Waiter = Future<()>;

/// Whether it was woken by this.
fn wake(waiter: &Waiter) -> bool {
    waiter.finish(Ok(())).is_ok()
}

#[derive(Debug, Default)]
pub(super) struct Waiters {
    /// Not borrowed while a waiter is woken or dropped, since that may run code of others.
    line: RefCell<VecDeque<Waiter>>,
    /// Where that was made which they wait for, if it is to be told.
    made: Option<&'static Location<'static>>,
}

impl Waiters {
    /// Of what was made there, and nobody holds.
    pub fn at(made: &'static Location<'static>) -> Self {
        Self { made: Some(made), ..Self::default() }
    }

    /// A new one, at the end.
    pub fn join(&self, reason: Reason) -> Waiter {
        self.join_for(reason, self.made.map_or(Ender::Unknown, Ender::Made))
    }

    /// The same for a unit of what others hold, where it is known who.
    pub fn join_held(&self, reason: Reason, held: Option<Thing>) -> Waiter {
        self.join_for(reason, held.map_or(Ender::Unknown, |thing| Ender::Holders(thing, 1)))
    }

    fn join_for(&self, reason: Reason, ender: Ender) -> Waiter {
        let waiter = Waiter::pending_for(reason, ender);
        self.line.borrow_mut().push_back(waiter.clone());
        waiter
    }

    /// Takes one out, if it is in.
    pub fn leave(&self, waiter: &Waiter) {
        let mut line = self.line.borrow_mut();
        let at = line.iter().position(|one| one.is(waiter));
        let gone = at.map(|at| line.remove(at));
        drop(line);
        drop(gone);
    }

    /// Whether one waits, or was woken and has not run since.
    pub fn any_not_cancelled(&self) -> bool {
        self.line.borrow().iter().any(|waiter| !waiter.cancelled())
    }

    /// Wakes the one at the head, unless that is done.
    pub fn wake_head(&self) {
        let head = self.line.borrow().front().cloned();
        if let Some(head) = head {
            wake(&head);
        }
    }

    /// Wakes the first that is not done, and leaves it in; whether there was one.
    pub fn wake_first(&self) -> bool {
        let first = self.line.borrow().iter().find(|waiter| !waiter.done()).cloned();
        first.is_some_and(|first| wake(&first))
    }

    /// Wakes the first `n` that are not done, and leaves them in.
    pub fn wake(&self, n: usize) {
        let first: Vec<_> = self.line.borrow().iter().filter(|waiter| !waiter.done()).take(n).cloned().collect();
        for waiter in first {
            wake(&waiter);
        }
    }

    /// Takes out those at the head that are done, and the first that is not, which it wakes.
    pub fn wake_out(&self) {
        loop {
            let head = self.line.borrow_mut().pop_front();
            if head.is_none_or(|head| wake(&head)) {
                return;
            }
        }
    }

    /// Takes out all of them, and wakes them.
    pub fn wake_out_all(&self) {
        let all = self.line.take();
        for waiter in all {
            wake(&waiter);
        }
    }
}
