//! Channel, semaphore, rwlock and condition against sequential models of them: random operations, cancels and drops of waiters, step by
//! step, each with exactly one right outcome. R18, R19, R36, R76, R77, R80, R82, R92–R96, R98, R100, N1, N5, N6.
//!
//! All operations are polled by one task, when the program says so; an operation runs in a scope of its own, by which it is cancelled. So
//! everything between "it was handed over" and "it looked" occurs.

mod channel;
mod condition;
mod rwlock;
mod semaphore;

use self::{channel::memory_channel, condition::monitor, rwlock::rwlock, semaphore::semaphore};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use std::future::Future;
use std::pin::Pin;
use std::task::Poll;
use trefoil_nursery::{CancelScope, Cancelled, yield_now};
use trefoil_tests::{poll_once, run_virtual};

type Checked = Result<(), TestCaseError>;

/// What to do, and two numbers that say to what.
type Step = (u8, u8, u8);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec((0..100u8, any::<u8>(), any::<u8>()), 1..70)
}

/// An operation that has not ended, in its scope.
struct Pending<'a, T> {
    id: usize,
    scope: CancelScope,
    #[allow(clippy::type_complexity)]
    future: Pin<Box<dyn Future<Output = Result<Option<T>, Cancelled>> + 'a>>,
}

/// All that have not ended.
struct Operations<'a, T> {
    all: Vec<Pending<'a, T>>,
    next: usize,
}

impl<'a, T> Operations<'a, T> {
    fn new() -> Self {
        Self { all: Vec::new(), next: 0 }
    }

    /// Polls one for the first time; its outcome if it need not wait. `Some(None)` where it was cancelled.
    async fn begin(
        &mut self,
        operation: impl Future<Output = Result<T, Cancelled>> + 'a,
    ) -> (usize, Option<Option<T>>) {
        let (id, scope) = (self.next, CancelScope::new());
        self.next += 1;
        let future = Box::pin(scope.run(operation));
        self.all.push(Pending { id, scope, future });
        (id, self.poll(self.all.len() - 1).await)
    }

    /// Polls one again.
    async fn poll(&mut self, at: usize) -> Option<Option<T>> {
        // Each has the whole budget of a turn (N11).
        yield_now().await;
        match poll_once(self.all[at].future.as_mut()).await {
            Poll::Pending => None,
            Poll::Ready(result) => {
                self.all.remove(at);
                Some(result.expect("its own scope is the only one"))
            }
        }
    }

    /// One that has not ended, by a random number.
    fn pick(&self, number: u8) -> Option<(usize, usize)> {
        let at = usize::from(number).checked_rem(self.all.len())?;
        Some((at, self.all[at].id))
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Wait {
    Waits,
    Served,
    Aborted,
}

/// Who waits, in order, and with what.
#[derive(Debug)]
struct Line<T> {
    all: Vec<(usize, T, Wait)>,
}

impl<T: Copy> Line<T> {
    fn new() -> Self {
        Self { all: Vec::new() }
    }

    fn first(&self) -> Option<(usize, T)> {
        self.all.iter().find(|w| w.2 == Wait::Waits).map(|&(id, what, _)| (id, what))
    }

    fn set(&mut self, id: usize, wait: Wait) {
        self.all.iter_mut().find(|w| w.0 == id).expect("it is there").2 = wait;
    }

    fn remove(&mut self, id: usize) -> (T, Wait) {
        let at = self.all.iter().position(|w| w.0 == id).expect("it is there");
        let (_, what, wait) = self.all.remove(at);
        (what, wait)
    }

    fn wait(&self, id: usize) -> Wait {
        self.all.iter().find(|w| w.0 == id).expect("it is there").2
    }

    fn cancel(&mut self, id: usize) {
        if self.wait(id) == Wait::Waits {
            self.set(id, Wait::Aborted);
        }
    }
}

proptest! {
    #[test]
    fn a_semaphore_does_as_its_model_does(initial in 0..5usize, steps in steps()) {
        run_virtual(async || semaphore(initial, &steps).await)?;
    }

    #[test]
    fn a_rwlock_does_as_its_model_does(steps in steps()) {
        run_virtual(async || rwlock(&steps).await)?;
    }

    #[test]
    fn a_channel_does_as_its_model_does(capacity in prop_oneof![Just(0), Just(1), Just(2), Just(usize::MAX)], steps in steps()) {
        run_virtual(async || memory_channel(capacity, &steps, false).await)?;
    }

    #[test]
    fn a_channel_whose_handles_are_closed_does_as_its_model_does(capacity in 0..3usize, steps in steps()) {
        run_virtual(async || memory_channel(capacity, &steps, true).await)?;
    }

    #[test]
    fn a_lock_and_its_conditions_do_as_their_model_does(steps in steps()) {
        run_virtual(async || monitor(&steps).await)?;
    }
}
