//! [`Lock`].

use super::waiters::{Waiter, Waiters};
use std::cell::{Cell, RefCell};
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use trefoil_runtime::{Cancelled, Holder, Holders, Holding, Reason};

/// Lets in one task at a time, in the order in which they came: `asyncio.Lock` (L1–L4).
///
/// [`acquire`](Self::acquire) returns a guard that releases, which is `async with lock`. As in Python a lock has no owner: where another
/// task is to release it, [`forget`](LockGuard::forget) the guard, and call [`release`](Self::release).
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use trefoil_nursery::{Cancelled, asyncio};
/// use trefoil_nursery::asyncio::Lock;
/// use std::rc::Rc;
/// asyncio::event_loop(async {
///     let lock = Rc::new(Lock::new());
///     let guard = lock.acquire().await?;
///     let other = asyncio::create_task({
///         let lock = lock.clone();
///         async move { lock.acquire().await.map(drop) }
///     });
///     assert!(lock.locked());
///     drop(guard);
///     other.await?;
///     Ok::<(), Cancelled>(())
/// })
/// .await
/// .unwrap();
/// # });
/// ```
///
/// It is for one thread, as all of this module is (L16):
///
/// ```compile_fail,E0277
/// fn elsewhere(_: impl Send) {}
/// elsewhere(trefoil_nursery::asyncio::Lock::new());
/// ```
#[derive(Debug)]
pub struct Lock {
    locked: Cell<bool>,
    waiters: Waiters,
    /// For reports and the tree: nothing here depends on it.
    holder: RefCell<Holders>,
}

impl Default for Lock {
    fn default() -> Self {
        let holder = RefCell::new(Holders::new(Holding::Lock, 1));
        Self { locked: Cell::new(false), waiters: Waiters::default(), holder }
    }
}

impl Lock {
    /// One that nobody holds.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether somebody holds it. It may be held by nobody and yet be promised to the first of those who wait.
    pub fn locked(&self) -> bool {
        self.locked.get()
    }

    /// Waits until it is this task's turn, and holds the lock as long as the guard lives. Where nobody holds it and nobody waits, this
    /// does not give up the turn (L2).
    ///
    /// Not re-entrant: a task that holds it waits for itself (L4).
    ///
    /// # Errors
    /// [`Cancelled`] if the task is cancelled before.
    ///
    /// # Cancellation
    /// Whoever was woken for the lock and is cancelled, or dropped, before it runs hands it to the next (L3).
    #[track_caller]
    pub fn acquire(&self) -> impl Future<Output = Result<LockGuard<'_>, Cancelled>> {
        let place = Location::caller();
        async move {
            self.take(place).await?;
            Ok(LockGuard { lock: self })
        }
    }

    /// Gives it up on behalf of whoever holds it, and wakes the first of those who wait. A lock that is free again is not to be had
    /// before that one (L1).
    ///
    /// # Errors
    /// [`NotLocked`] if nobody holds it.
    pub fn release(&self) -> Result<(), NotLocked> {
        // It may be another one than who holds it: from now on nothing follows from who that is (N10).
        self.holder.borrow_mut().set_open();
        self.give_up()
    }

    fn give_up(&self) -> Result<(), NotLocked> {
        if !self.locked.replace(false) {
            return Err(NotLocked(()));
        }
        self.holder.borrow_mut().remove_only();
        self.waiters.wake_head();
        Ok(())
    }

    /// The task that runs holds it.
    fn hold(&self, place: &'static Location<'static>) {
        self.holder.borrow_mut().add(Holder::here(place, 1));
    }

    pub(super) async fn take(&self, place: &'static Location<'static>) -> Result<(), Cancelled> {
        if !self.locked.get() && !self.waiters.any_not_cancelled() {
            self.locked.set(true);
            self.hold(place);
            return Ok(());
        }
        let at = place;
        let held = self.holder.borrow_mut().thing();
        let mut place = Place { lock: self, waiter: self.waiters.join_held(Reason::Lock, held), woken: false };
        place.waiter.wait_at(at).await?;
        place.woken = true;
        self.hold(at);
        Ok(())
    }
}

/// In line for the lock.
struct Place<'a> {
    lock: &'a Lock,
    waiter: Waiter,
    /// It runs, and takes the lock.
    woken: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let lock = self.lock;
        lock.waiters.leave(&self.waiter);
        if self.woken {
            lock.locked.set(true);
        } else if !lock.locked.get() {
            // It may have been woken for nothing: it is the turn of the next.
            lock.waiters.wake_head();
        }
    }
}

/// Holds a [`Lock`], and releases it when dropped.
#[must_use = "the lock is released at once if the guard is dropped"]
#[derive(Debug)]
pub struct LockGuard<'a> {
    lock: &'a Lock,
}

impl<'a> LockGuard<'a> {
    /// Leaves the lock held, for somebody to [`release`](Lock::release).
    pub fn forget(self) {
        self.lock.holder.borrow_mut().set_open();
        std::mem::forget(self);
    }

    pub(super) fn of(lock: &'a Lock) -> Self {
        Self { lock }
    }
}

impl Drop for LockGuard<'_> {
    fn drop(&mut self) {
        // Somebody may have released it in our place.
        let _ = self.lock.give_up();
    }
}

/// Nobody holds the lock: `RuntimeError` in Python.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotLocked(pub(super) ());

impl fmt::Display for NotLocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the lock is not held")
    }
}

impl Error for NotLocked {}
