//! [`Barrier`].

use super::condition::Condition;
use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::panic::Location;
use trefoil_runtime::{CancelAware, Cancelled, Reason};

/// Tasks wait here until there are enough of them, and go on together, again and again: `asyncio.Barrier` (L13–L15).
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use trefoil_nursery::asyncio::{self, Barrier, BarrierError};
/// use std::rc::Rc;
/// asyncio::event_loop(async {
///     let barrier = Rc::new(Barrier::new(2));
///     let other = asyncio::create_task({
///         let barrier = barrier.clone();
///         async move { barrier.wait().await }
///     });
///     asyncio::sleep(std::time::Duration::ZERO).await?;
///     assert_eq!(barrier.n_waiting(), 1);
///     // The last to come goes on first.
///     assert_eq!(barrier.wait().await?, 1);
///     assert_eq!(other.await?, 0);
///     Ok::<_, BarrierError>(())
/// })
/// .await
/// .unwrap();
/// # });
/// ```
#[derive(Debug)]
pub struct Barrier {
    changed: Condition,
    parties: usize,
    state: Cell<State>,
    /// How many are in it.
    count: Cell<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Filling,
    /// There were enough: they leave, and others wait until all have.
    Draining,
    /// It was reset while some waited: they leave with an error.
    Resetting,
    Broken,
}

impl Barrier {
    /// One for so many tasks.
    ///
    /// # Panics
    /// For none.
    #[track_caller]
    pub fn new(parties: usize) -> Self {
        assert!(parties > 0, "a barrier for nobody");
        Self { changed: Condition::new(), parties, state: Cell::new(State::Filling), count: Cell::new(0) }
    }

    /// Waits until as many tasks wait as it is for. Each gets a number of its own, in the order in which they came, from 0; the last does
    /// not wait (L13).
    ///
    /// While those of one round leave, a task of the next waits until they have.
    ///
    /// # Errors
    /// [`BarrierError::Broken`] if the barrier is aborted or, while this waits, [reset](Self::reset); [`BarrierError::Cancelled`].
    ///
    /// # Cancellation
    /// There is one task less that waits; the barrier is not broken (L14).
    #[track_caller]
    pub fn wait(&self) -> impl Future<Output = Result<usize, BarrierError>> {
        self.wait_at(Location::caller())
    }

    async fn wait_at(&self, place: &'static Location<'static>) -> Result<usize, BarrierError> {
        let mut guard = self.changed.acquire_at(place).await?;
        let waited;
        let entered = || !matches!(self.state.get(), State::Draining | State::Resetting);
        (guard, waited) = guard.wait_for_as(Reason::Barrier, place, entered).await;
        waited?;
        if self.state.get() == State::Broken {
            return Err(BarrierError::Broken);
        }
        let index = self.count.get();
        self.count.set(index + 1);
        // `guard` is older, so that the lock is given up after this is dropped.
        let _inside = Inside { barrier: self };
        if index + 1 == self.parties {
            self.state.set(State::Draining);
            guard.notify_all();
        } else {
            let waited;
            let left = || self.state.get() != State::Filling;
            (guard, waited) = guard.wait_for_as(Reason::Barrier, place, left).await;
            let _ = &guard;
            waited?;
            if matches!(self.state.get(), State::Broken | State::Resetting) {
                return Err(BarrierError::Broken);
            }
        }
        Ok(index)
    }

    /// Breaks it: those who wait, and those who come later, get [`BarrierError::Broken`], until it is [reset](Self::reset) (L15). Waits
    /// while a task is on its way in or out.
    ///
    /// # Errors
    /// [`Cancelled`] if the task is cancelled before.
    ///
    /// # Cancellation
    /// Has no effect then.
    #[track_caller]
    pub fn abort(&self) -> impl Future<Output = Result<(), Cancelled>> {
        let acquiring = self.changed.acquire();
        async move {
            let guard = acquiring.await?;
            self.state.set(State::Broken);
            guard.notify_all();
            Ok(())
        }
    }

    /// Makes it as new. Those who wait get [`BarrierError::Broken`] (L15).
    ///
    /// # Errors
    /// [`Cancelled`] if the task is cancelled before.
    ///
    /// # Cancellation
    /// Has no effect then.
    #[track_caller]
    pub fn reset(&self) -> impl Future<Output = Result<(), Cancelled>> {
        let acquiring = self.changed.acquire();
        async move {
            let guard = acquiring.await?;
            self.state.set(if self.count.get() > 0 { State::Resetting } else { State::Filling });
            guard.notify_all();
            Ok(())
        }
    }

    /// For how many tasks it is.
    pub fn parties(&self) -> usize {
        self.parties
    }

    /// How many wait for others to come.
    pub fn n_waiting(&self) -> usize {
        if self.state.get() == State::Filling { self.count.get() } else { 0 }
    }

    /// Whether it was aborted, and not reset since.
    pub fn broken(&self) -> bool {
        self.state.get() == State::Broken
    }
}

/// A task is in the barrier.
struct Inside<'a> {
    barrier: &'a Barrier,
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let barrier = self.barrier;
        barrier.count.set(barrier.count.get() - 1);
        if barrier.count.get() == 0 {
            if matches!(barrier.state.get(), State::Resetting | State::Draining) {
                barrier.state.set(State::Filling);
            }
            // Those who wait for the last to leave.
            barrier.changed.wake(usize::MAX);
        }
    }
}

/// A task did not get through a [`Barrier`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarrierError {
    /// The task was cancelled.
    Cancelled(Cancelled),
    /// The barrier was aborted or reset: `BrokenBarrierError` in Python.
    Broken,
}

impl From<Cancelled> for BarrierError {
    fn from(cancelled: Cancelled) -> Self {
        BarrierError::Cancelled(cancelled)
    }
}

impl CancelAware for BarrierError {
    fn is_cancelled(&self) -> bool {
        matches!(self, BarrierError::Cancelled(_))
    }
}

impl fmt::Display for BarrierError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BarrierError::Cancelled(cancelled) => cancelled.fmt(f),
            BarrierError::Broken => f.write_str("the barrier is broken"),
        }
    }
}

impl Error for BarrierError {}
