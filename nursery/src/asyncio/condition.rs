//! [`Condition`].

use super::lock::{Lock, LockGuard, NotLocked};
use super::waiters::{Waiter, Waiters};
use crate::scope::shield_at;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use trefoil_runtime::{Cancelled, Reason};

type Place = &'static Location<'static>;

/// Tasks that hold a lock wait for a word from others that do: `asyncio.Condition` (L6–L9).
///
/// [`acquire`](Self::acquire) returns a guard, which is `async with condition`; to wait and to notify are its methods, so that nobody
/// can do so without the lock. What Python allows besides is there under names that say so: [`wait_unguarded`](Self::wait_unguarded),
/// [`notify_unguarded`](Self::notify_unguarded).
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use trefoil_nursery::{Cancelled, asyncio};
/// use trefoil_nursery::asyncio::Condition;
/// use std::{cell::Cell, rc::Rc};
/// asyncio::event_loop(async {
///     let shared = Rc::new((Condition::new(), Cell::new(0)));
///     let waits = asyncio::create_task({
///         let shared = shared.clone();
///         async move {
///             let (changed, count) = &*shared;
///             let guard = changed.acquire().await?;
///             let (guard, waited) = guard.wait_for(|| count.get() > 0).await;
///             drop(guard);
///             waited
///         }
///     });
///     asyncio::sleep(std::time::Duration::ZERO).await?;
///     let (changed, count) = &*shared;
///     let guard = changed.acquire().await?;
///     count.set(1);
///     guard.notify(1);
///     drop(guard);
///     waits.await?;
///     Ok::<(), Cancelled>(())
/// })
/// .await
/// .unwrap();
/// # });
/// ```
#[derive(Debug)]
pub struct Condition {
    lock: Lock,
    waiters: Waiters,
}

impl Default for Condition {
    #[track_caller]
    fn default() -> Self {
        Self::new()
    }
}

impl Condition {
    /// One with a lock of its own, which nobody holds.
    #[track_caller]
    pub fn new() -> Self {
        Self { lock: Lock::new(), waiters: Waiters::at(Location::caller()) }
    }

    /// Whether somebody holds the lock.
    pub fn locked(&self) -> bool {
        self.lock.locked()
    }

    /// Takes the lock, as [`Lock::acquire`].
    ///
    /// # Errors
    /// [`Cancelled`] if the task is cancelled before.
    ///
    /// # Cancellation
    /// As [`Lock::acquire`].
    #[track_caller]
    pub fn acquire(&self) -> impl Future<Output = Result<ConditionGuard<'_>, Cancelled>> {
        self.acquire_at(Location::caller())
    }

    /// The same on behalf of code at another place.
    pub(super) async fn acquire_at(&self, place: Place) -> Result<ConditionGuard<'_>, Cancelled> {
        self.lock.take(place).await?;
        Ok(ConditionGuard { condition: self, held: LockGuard::of(&self.lock) })
    }

    /// Gives up the lock on behalf of whoever holds it.
    ///
    /// # Errors
    /// [`NotLocked`] if nobody does.
    pub fn release(&self) -> Result<(), NotLocked> {
        self.lock.release()
    }

    /// As [`ConditionGuard::wait`], for a lock that the task holds without a guard, or that another one holds: Python asks no more than
    /// that somebody does.
    ///
    /// # Errors
    /// [`WaitError::NotLocked`] at once if nobody holds the lock; [`WaitError::Cancelled`].
    ///
    /// # Cancellation
    /// The lock is taken again first, as in [`ConditionGuard::wait`]. Of a future that is dropped it is not.
    #[track_caller]
    pub fn wait_unguarded(&self) -> impl Future<Output = Result<(), WaitError>> {
        let place = Location::caller();
        async move {
            self.lock.release().map_err(WaitError::NotLocked)?;
            self.wait(Reason::Condition, place).await.map_err(WaitError::Cancelled)
        }
    }

    /// As [`ConditionGuard::notify`], for a lock that somebody holds.
    ///
    /// # Errors
    /// [`NotLocked`] if nobody does.
    pub fn notify_unguarded(&self, n: usize) -> Result<(), NotLocked> {
        if !self.lock.locked() {
            return Err(NotLocked(()));
        }
        self.wake(n);
        Ok(())
    }

    /// Wakes so many, with or without the lock.
    pub(super) fn wake(&self, n: usize) {
        self.waiters.wake(n);
    }

    /// Waits, and takes the lock, which has been given up.
    async fn wait(&self, reason: Reason, at: Place) -> Result<(), Cancelled> {
        let mut waits = Waits { condition: self, waiter: self.waiters.join(reason), passes_on: true };
        let mut result = waits.waiter.wait_at(at).await;
        self.waiters.leave(&waits.waiter);
        // The lock is had again before anything comes out (L8). Each cancellation of asyncio's is delivered once, so this ends; and that of a
        // scope of the core, which stays, is held off.
        if let Err(cancelled) = self.lock.take(at).await {
            result = Err(cancelled);
            while let Err(cancelled) = shield_at(self.lock.take(at), at).await {
                result = Err(cancelled);
            }
        }
        waits.passes_on = result.is_err();
        result
    }
}

/// Among those who wait for a word.
struct Waits<'a> {
    condition: &'a Condition,
    waiter: Waiter,
    passes_on: bool,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.condition.waiters.leave(&self.waiter);
        if self.passes_on {
            // It may have been notified, and that is not to be lost (L9). As in CPython nobody asks whether it was: a wait may end
            // for nothing.
            self.condition.wake(1);
        }
    }
}

/// Holds the lock of a [`Condition`], and releases it when dropped.
#[must_use = "the lock is released at once if the guard is dropped"]
#[derive(Debug)]
pub struct ConditionGuard<'a> {
    condition: &'a Condition,
    held: LockGuard<'a>,
}

impl<'a> ConditionGuard<'a> {
    /// Gives up the lock, waits for a notification, and takes the lock again. It comes back whatever the result (L7, L8).
    ///
    /// A wait may end for nothing: look again at what was waited for, or use [`wait_for`](Self::wait_for).
    ///
    /// # Errors
    /// [`Cancelled`], the last one if there were more.
    ///
    /// # Cancellation
    /// The lock is taken again first, and a notification that came meanwhile goes to the next (L9). A future that is dropped does not
    /// hold the lock.
    #[track_caller]
    pub fn wait(self) -> impl Future<Output = (Self, Result<(), Cancelled>)> {
        self.wait_as(Reason::Condition, Location::caller())
    }

    /// The same at a place, for what is made of a condition, and is called so.
    async fn wait_as(self, reason: Reason, place: Place) -> (Self, Result<(), Cancelled>) {
        let condition = self.condition;
        drop(self);
        let result = condition.wait(reason, place).await;
        (Self { condition, held: LockGuard::of(&condition.lock) }, result)
    }

    /// [Waits](Self::wait) until something holds.
    ///
    /// # Errors
    /// [`Cancelled`] if the task is cancelled before.
    ///
    /// # Cancellation
    /// As [`wait`](Self::wait).
    #[track_caller]
    pub fn wait_for(self, holds: impl FnMut() -> bool) -> impl Future<Output = (Self, Result<(), Cancelled>)> {
        self.wait_for_as(Reason::Condition, Location::caller(), holds)
    }

    /// The same at a place, for what is made of a condition, and is called so.
    pub(super) async fn wait_for_as(
        self,
        reason: Reason,
        place: Place,
        mut holds: impl FnMut() -> bool,
    ) -> (Self, Result<(), Cancelled>) {
        let mut guard = self;
        while !holds() {
            let (again, result) = guard.wait_as(reason, place).await;
            guard = again;
            if result.is_err() {
                return (guard, result);
            }
        }
        (guard, Ok(()))
    }

    /// Wakes the first `n` of those who wait. They go on one by one, as each gets the lock (L7).
    pub fn notify(&self, n: usize) {
        self.condition.wake(n);
    }

    /// Wakes all who wait.
    pub fn notify_all(&self) {
        self.condition.wake(usize::MAX);
    }

    /// Leaves the lock held, for somebody to [`release`](Condition::release).
    pub fn forget(self) {
        self.held.forget();
    }
}

/// A wait for a [`Condition`] came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitError {
    /// The task was cancelled. The lock is held.
    Cancelled(Cancelled),
    /// Nobody held the lock: `RuntimeError` in Python.
    NotLocked(NotLocked),
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitError::Cancelled(error) => error.fmt(f),
            WaitError::NotLocked(error) => error.fmt(f),
        }
    }
}

impl Error for WaitError {}
