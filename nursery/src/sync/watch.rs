//! [`watch`].

use std::fmt;
use std::ops::Deref;
use std::pin::pin;
use std::sync::{Arc, RwLock, RwLockReadGuard};
use std::task::{Poll, ready};
use trefoil_runtime::{Cancelled, Handed, Reason, Turn, Wait, WaitQueue};

struct State {
    version: u64,
    sender: bool,
}

struct Shared<T> {
    value: RwLock<T>,
    queue: WaitQueue<State, (), 1>,
}

/// A value that one side sets and the other watches. Receivers see the latest value, not every one.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use trefoil_nursery::{nursery, sync::watch, Cancelled};
/// let (sender, mut receiver) = watch(0);
/// nursery(async |n| -> Result<(), Cancelled> {
///     n.spawn(async move {
///         while receiver.changed().await? {}
///         assert_eq!(*receiver.get(), 2);
///         Ok(())
///     });
///     sender.set(1);
///     sender.set(2);
///     drop(sender);
///     Ok(())
/// })
/// .await
/// .unwrap();
/// # });
/// ```
pub fn watch<T>(value: T) -> (WatchSender<T>, WatchReceiver<T>) {
    let queue = WaitQueue::new(State { version: 0, sender: true });
    let shared = Arc::new(Shared { value: RwLock::new(value), queue });
    (WatchSender { shared: shared.clone() }, WatchReceiver { shared, seen: 0 })
}

/// The side of a [`watch`] that sets the value.
pub struct WatchSender<T> {
    shared: Arc<Shared<T>>,
}

/// The side of a [`watch`] that watches. Clone it for more.
pub struct WatchReceiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

/// A look at the value. Short: while it exists, the value cannot be set.
pub struct WatchRef<'a, T>(RwLockReadGuard<'a, T>);

impl<T> Deref for WatchRef<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: fmt::Debug> fmt::Debug for WatchRef<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T> Shared<T> {
    fn get(&self) -> WatchRef<'_, T> {
        WatchRef(self.value.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn announce(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.queue.lock();
        change(&mut state);
        while state.hand(0, None).is_ok() {}
    }
}

impl<T> WatchSender<T> {
    /// Sets the value, and wakes who watches.
    pub fn set(&self, value: T) {
        self.update(|current| *current = value);
    }

    /// Changes the value in place, and wakes who watches.
    pub fn update(&self, change: impl FnOnce(&mut T)) {
        change(&mut self.shared.value.write().unwrap_or_else(std::sync::PoisonError::into_inner));
        self.shared.announce(|state| state.version += 1);
    }

    /// The value.
    pub fn get(&self) -> WatchRef<'_, T> {
        self.shared.get()
    }
}

impl<T> Drop for WatchSender<T> {
    fn drop(&mut self) {
        self.shared.announce(|state| state.sender = false);
    }
}

impl<T> WatchReceiver<T> {
    /// The value as it is now.
    pub fn get(&self) -> WatchRef<'_, T> {
        self.shared.get()
    }

    /// Waits until the value was set since this receiver last waited. False when the sender is gone and there is nothing new.
    ///
    /// # Errors
    /// [`Cancelled`] if the scope is cancelled before.
    ///
    /// # Cancellation
    /// No change is lost: the next call sees it.
    #[track_caller]
    pub fn changed(&mut self) -> impl Future<Output = Result<bool, Cancelled>> + use<'_, T> {
        let wait = Wait::new(Reason::Receive);
        async move {
            let (queue, seen) = (&self.shared.queue, &mut self.seen);
            let mut waiter = pin!(queue.waiter());
            std::future::poll_fn(|cx| {
                let polled = waiter.as_mut().poll(cx, wait, |state| {
                    if state.version == *seen && state.sender { Turn::Wait(0, None) } else { Turn::Ready(()) }
                });
                Poll::Ready(match ready!(polled) {
                    Ok(Handed::Ready(()) | Handed::Handed(_)) => {
                        let version = queue.lock().version;
                        Ok(std::mem::replace(seen, version) != version)
                    }
                    Err((cancelled, _)) => Err(cancelled),
                })
            })
            .await
        }
    }
}

impl<T> Clone for WatchReceiver<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), seen: self.seen }
    }
}

impl<T: fmt::Debug> fmt::Debug for WatchSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WatchSender").field(&*self.get()).finish()
    }
}

impl<T: fmt::Debug> fmt::Debug for WatchReceiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WatchReceiver").field(&*self.get()).finish()
    }
}
