//! [`Condition`].

use super::mutex::{self, LOCKERS, MutexGuard, NOTIFIED, Queue, State};
use crate::scope::shield_at;
use std::fmt;
use std::future::poll_fn;
use std::panic::Location;
use std::pin::{Pin, pin};
use std::ptr;
use std::sync::atomic::AtomicU8;
use std::task::{Poll, ready};
use trefoil_runtime::{Cancelled, Guard, Handed, Reason, Turn, Wait, Waiter};

/// Waits, under a [`Mutex`](super::Mutex), for something about its value to change.
///
/// A notified task joins the queue of the lock at that moment, in the order of the notifications (R82). A notification whose
/// receiver is cancelled before it has the lock goes to the next one (N1).
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use trefoil_nursery::{nursery, sync::{Condition, Mutex}, Cancelled};
/// let (items, more) = (Mutex::new(vec![]), Condition::new());
/// nursery(async |n| -> Result<(), Cancelled> {
///     n.spawn(async {
///         let guard = items.lock().await?;
///         let (guard, waited) = more.wait_while(guard, |items| items.is_empty()).await;
///         waited?;
///         assert_eq!(*guard, [1]);
///         Ok(())
///     });
///     n.spawn(async {
///         let mut guard = items.lock().await?;
///         guard.push(1);
///         more.notify_one(&guard);
///         Ok(())
///     });
///     Ok(())
/// })
/// .await
/// .unwrap();
/// # });
/// ```
pub struct Condition {
    made: &'static Location<'static>,
    /// Its address is the condition's identity, so it must have one of its own. Of a plain byte, two `const` conditions would be one.
    _identity: AtomicU8,
}

impl fmt::Debug for Condition {
    /// Who waits for it is in the queue of the lock.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condition").finish_non_exhaustive()
    }
}

impl Default for Condition {
    #[track_caller]
    fn default() -> Self {
        Self::new()
    }
}

impl Condition {
    /// One that nobody waits for. Who does is shown with the place of this call.
    #[track_caller]
    pub const fn new() -> Self {
        Self { made: Location::caller(), _identity: AtomicU8::new(0) }
    }

    fn identity(&self) -> usize {
        ptr::from_ref(self).addr()
    }

    /// Gives up the lock, waits for a notification, and takes the lock again. Whatever the result, the lock is held (R82).
    ///
    /// # Errors
    /// [`Cancelled`] if the scope is cancelled before.
    ///
    /// # Cancellation
    /// The lock is taken again first, which may wait, shielded. A future that is dropped does not hold the lock.
    #[track_caller]
    pub fn wait<'a, T: ?Sized>(
        &self,
        guard: MutexGuard<'a, T>,
    ) -> impl Future<Output = (MutexGuard<'a, T>, Result<(), Cancelled>)> {
        let place = Location::caller();
        self.wait_at(guard, place)
    }

    /// [Waits](Self::wait) as long as `condition` holds.
    ///
    /// # Errors
    /// [`Cancelled`] if the scope is cancelled before.
    ///
    /// # Cancellation
    /// As for [`wait`](Self::wait).
    #[track_caller]
    pub fn wait_while<'a, T: ?Sized>(
        &self,
        guard: MutexGuard<'a, T>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> impl Future<Output = (MutexGuard<'a, T>, Result<(), Cancelled>)> {
        let place = Location::caller();
        async move {
            let mut guard = guard;
            while condition(&mut guard) {
                let (held, waited) = self.wait_at(guard, place).await;
                if waited.is_err() {
                    return (held, waited);
                }
                guard = held;
            }
            (guard, Ok(()))
        }
    }

    async fn wait_at<'a, T: ?Sized>(
        &self,
        guard: MutexGuard<'a, T>,
        place: &'static Location<'static>,
    ) -> (MutexGuard<'a, T>, Result<(), Cancelled>) {
        let mutex = guard.mutex();
        let identity = self.identity();
        // Cancelled before it has begun: nothing is given up (R37).
        if let Err(cancelled) = poll_fn(|_| trefoil_runtime::poll_checkpoint_if_cancelled(place)).await {
            return (guard, Err(cancelled));
        }
        let mut waiting = pin!(Notification { waiter: mutex.queue().waiter(), identity });
        let mut guard = Some(guard);
        let waited = poll_fn(|cx| {
            // SAFETY: `waiter` is pinned with `waiting`.
            let waiter = unsafe { waiting.as_mut().map_unchecked_mut(|this| &mut this.waiter) };
            let polled = waiter.poll(cx, Wait::new(Reason::Condition).at(place), |locked| {
                // In one step: it is in the queue, and the lock is given up.
                std::mem::forget(guard.take());
                mutex::unlock(locked);
                Turn::<(), usize>::WaitForMade(NOTIFIED, Some(identity), self.made)
            });
            Poll::Ready(match ready!(polled) {
                Ok(Handed::Ready(()) | Handed::Handed(_)) => Ok(()),
                Err((cancelled, brought)) => Err((cancelled, brought)),
            })
        })
        .await;
        match (waited, guard) {
            (Ok(()), _) => (MutexGuard::handed(mutex, place), Ok(())),
            // It never began.
            (Err((cancelled, _)), Some(guard)) => (guard, Err(cancelled)),
            (Err((cancelled, brought)), None) => {
                if brought.is_none() {
                    // N1: it was notified, and waited for the lock: another one is notified in its place.
                    notify(&mut mutex.queue().lock(), identity);
                }
                let guard = shield_at(mutex.lock_at(place), place).await.expect("nothing reaches through a shield");
                (guard, Err(cancelled))
            }
        }
    }

    /// Notifies the one that waits longest, if there is one. The guard shows that the lock is held.
    pub fn notify_one<T: ?Sized>(&self, guard: &MutexGuard<'_, T>) {
        self.notify(guard, 1);
    }

    /// Notifies the `n` that wait longest.
    pub fn notify<T: ?Sized>(&self, guard: &MutexGuard<'_, T>, n: usize) {
        let mut queue = guard.mutex().queue().lock();
        for _ in 0..n {
            if !notify(&mut queue, self.identity()) {
                break;
            }
        }
    }

    /// Notifies all that wait.
    pub fn notify_all<T: ?Sized>(&self, guard: &MutexGuard<'_, T>) {
        self.notify(guard, usize::MAX);
    }
}

/// Moves one from those who wait for the condition to those who wait for the lock, or gives it the lock where that is free.
fn notify(queue: &mut Guard<'_, State, usize, 2>, identity: usize) -> bool {
    let moved = queue.transfer(NOTIFIED, LOCKERS, |&of| of == identity).is_some();
    if moved && !queue.locked && queue.hand(LOCKERS, None).is_ok() {
        queue.locked = true;
    }
    moved
}

/// A wait for a notification; passes on what it got if it is dropped.
struct Notification<'a> {
    waiter: Waiter<'a, State, usize, 2>,
    identity: usize,
}

impl Drop for Notification<'_> {
    fn drop(&mut self) {
        // SAFETY: pinned, and not moved.
        let waiter = unsafe { Pin::new_unchecked(&mut self.waiter) };
        let queue: &Queue = waiter.queue();
        match waiter.retract() {
            // N5: it had the lock, and so a notification.
            trefoil_runtime::Retracted::Served(_) => {
                let mut queue = queue.lock();
                notify(&mut queue, self.identity);
                mutex::pass_on(&mut queue);
            }
            // N1: it was notified, and waited for the lock.
            trefoil_runtime::Retracted::Waited(None) => {
                notify(&mut queue.lock(), self.identity);
            }
            trefoil_runtime::Retracted::Waited(Some(_)) | trefoil_runtime::Retracted::Idle => {}
        }
    }
}
