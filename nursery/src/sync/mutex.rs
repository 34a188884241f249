//! [`Mutex`].

use super::{Listed, WouldBlock};
use std::cell::UnsafeCell;
use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use trefoil_runtime::{Cancelled, Guard, Handed, Holder, Holders, Holding, Reason, Turn, Wait, WaitQueue, Waiter};

pub(super) const LOCKERS: usize = 0;
/// Who waits for a notification of a condition; each brings the condition's identity.
pub(super) const NOTIFIED: usize = 1;

/// Whether it is locked, and by whom.
#[derive(Debug)]
pub(super) struct State {
    pub locked: bool,
    holders: Holders,
}

impl State {
    fn lock(&mut self, place: &'static Location<'static>) {
        self.locked = true;
        self.holders.add(Holder::here(place, 1));
    }
}

/// Tasks that wait for it, and tasks that wait for conditions of it.
pub(super) type Queue = WaitQueue<State, usize, 2>;

/// A lock that waits instead of blocking, and that may be held across an await. In order, with hand-off (R76).
///
/// For data that is never held across an await, `std::sync::Mutex` is cheaper.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use trefoil_nursery::{checkpoint, nursery, sync::Mutex, Cancelled};
/// let total = Mutex::new(0);
/// nursery(async |n| -> Result<(), Cancelled> {
///     for _ in 0..10 {
///         n.spawn(async {
///             let mut total = total.lock().await?;
///             let before = *total;
///             checkpoint().await?;
///             *total = before + 1;
///             Ok(())
///         });
///     }
///     Ok(())
/// })
/// .await
/// .unwrap();
/// assert_eq!(total.into_inner(), 10);
/// # });
/// ```
pub struct Mutex<T: ?Sized> {
    queue: Queue,
    value: UnsafeCell<T>,
}

// SAFETY: the guard, of which there is one, gives access to the value; it goes between threads with the lock.
unsafe impl<T: ?Sized + Send> Send for Mutex<T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Send> Sync for Mutex<T> {}

impl<T> Mutex<T> {
    /// An unlocked one.
    pub fn new(value: T) -> Self {
        let state = State { locked: false, holders: Holders::new(Holding::Lock, 1) };
        Self { queue: Queue::new(state), value: UnsafeCell::new(value) }
    }

    /// The value.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Locks it; waits while somebody else has it. A checkpoint also where it is free (R38).
    ///
    /// # Errors
    /// [`Cancelled`] if the scope is cancelled before.
    ///
    /// # Cancellation
    /// The lock is not held. One that was handed over first is: then this has succeeded (R18).
    #[track_caller]
    pub fn lock(&self) -> Lock<'_, T> {
        self.lock_at(Location::caller())
    }

    /// The same on behalf of code at another place.
    pub(super) fn lock_at(&self, place: &'static Location<'static>) -> Lock<'_, T> {
        Lock { mutex: self, waiter: self.queue.waiter(), place }
    }

    /// Locks it if nobody has it, and nobody waits for it.
    ///
    /// # Errors
    /// [`WouldBlock`].
    #[track_caller]
    pub fn try_lock(&self) -> Result<MutexGuard<'_, T>, WouldBlock> {
        let mut state = self.queue.lock();
        if state.locked {
            return Err(WouldBlock::new());
        }
        state.lock(Location::caller());
        Ok(MutexGuard { mutex: self })
    }

    /// Whether somebody has it.
    pub fn is_locked(&self) -> bool {
        self.queue.lock().locked
    }

    /// The value, through the only reference.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    pub(super) fn queue(&self) -> &Queue {
        &self.queue
    }
}

/// Gives the lock to who waits longest, or opens it.
pub(super) fn unlock(queue: &mut Guard<'_, State, usize, 2>) {
    queue.holders.remove_only();
    pass_on(queue);
}

/// The same for who has been given it and never looked: nobody is known to hold it.
pub(super) fn pass_on(queue: &mut Guard<'_, State, usize, 2>) {
    if queue.hand(LOCKERS, None).is_err() {
        queue.locked = false;
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Mutex");
        // The text goes to code of others: what is in the queue is asked for before.
        match self.try_lock() {
            Ok(guard) => debug.field("value", &&*guard),
            Err(_) => {
                let holders = self.queue.lock().holders.list();
                debug.field("holder", &Listed(holders))
            }
        };
        let waiting = self.queue.lock().waiting(LOCKERS);
        debug.field("waiting", &waiting).finish()
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

/// Access to the value of a locked [`Mutex`]; dropping it unlocks.
#[must_use = "dropping the guard unlocks at once"]
pub struct MutexGuard<'a, T: ?Sized> {
    mutex: &'a Mutex<T>,
}

// SAFETY: it is `&mut T` and the right to unlock, from any thread.
unsafe impl<T: ?Sized + Send> Send for MutexGuard<'_, T> {}
// SAFETY: through `&MutexGuard` there is `&T`.
unsafe impl<T: ?Sized + Sync> Sync for MutexGuard<'_, T> {}

impl<'a, T: ?Sized> MutexGuard<'a, T> {
    pub(super) fn mutex(&self) -> &'a Mutex<T> {
        self.mutex
    }

    /// For who has been given the lock.
    pub(super) fn handed(mutex: &'a Mutex<T>, place: &'static Location<'static>) -> Self {
        mutex.queue.lock().holders.add(Holder::here(place, 1));
        Self { mutex }
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: there is one guard while it is locked.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above.
        unsafe { &mut *self.mutex.value.get() }
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        unlock(&mut self.mutex.queue.lock());
    }
}

/// The future of [`Mutex::lock`].
#[must_use = "a lock is not taken until it is awaited"]
pub struct Lock<'a, T: ?Sized> {
    mutex: &'a Mutex<T>,
    waiter: Waiter<'a, State, usize, 2>,
    place: &'static Location<'static>,
}

impl<T: ?Sized> fmt::Debug for Lock<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lock").field(&self.waiter).finish()
    }
}

impl<'a, T: ?Sized> Future for Lock<'a, T> {
    type Output = Result<MutexGuard<'a, T>, Cancelled>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: `waiter` is pinned with this.
        let (mutex, waiter, place) = unsafe {
            let this = self.get_unchecked_mut();
            (this.mutex, Pin::new_unchecked(&mut this.waiter), this.place)
        };
        let polled = waiter.poll(cx, Wait::new(Reason::Lock).at(place), |state| {
            if state.locked {
                let lock = state.holders.thing();
                return Turn::WaitFor(LOCKERS, None, lock, 1);
            }
            state.lock(place);
            Turn::Ready(())
        });
        Poll::Ready(match ready!(polled) {
            Ok(Handed::Ready(())) => Ok(MutexGuard { mutex }),
            Ok(Handed::Handed(_)) => Ok(MutexGuard::handed(mutex, place)),
            Err((cancelled, _)) => Err(cancelled),
        })
    }
}

impl<T: ?Sized> Drop for Lock<'_, T> {
    fn drop(&mut self) {
        // SAFETY: pinned, and not moved.
        let waiter = unsafe { Pin::new_unchecked(&mut self.waiter) };
        if waiter.withdraw().is_some() {
            // N5: it was given the lock and never looked.
            pass_on(&mut self.mutex.queue.lock());
        }
    }
}
