//! [`watch`].

use std::fmt;
use std::ops::Deref;
use std::panic::Location;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use trefoil_runtime::{Cancelled, Guard, Handed, Holder, HolderKey, Holders, Holding, Reason, Turn, Wait, WaitQueue};

struct State<T> {
    /// Counted, so that a look at it holds no lock: neither a look that lasts nor a destructor keeps anybody from anything.
    value: Arc<T>,
    version: u64,
    sender: bool,
    /// Who made the sender, and where: for receivers that wait.
    sending: Holders,
    key: HolderKey,
}

type Shared<T> = Arc<WaitQueue<State<T>, (), 1>>;

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
#[track_caller]
pub fn watch<T>(value: T) -> (WatchSender<T>, WatchReceiver<T>) {
    let mut sending = Holders::new(Holding::Senders, 0);
    let key = sending.add(Holder::here(Location::caller(), 1));
    let shared = Arc::new(WaitQueue::new(State { value: Arc::new(value), version: 0, sender: true, sending, key }));
    (WatchSender { shared: shared.clone() }, WatchReceiver { shared, seen: 0 })
}

/// The side of a [`watch`] that sets the value.
pub struct WatchSender<T> {
    shared: Shared<T>,
}

/// The side of a [`watch`] that watches. Clone it for more.
pub struct WatchReceiver<T> {
    shared: Shared<T>,
    seen: u64,
}

/// The value as it was when it was looked at. It may be kept: it is not in the way of who sets another.
pub struct WatchRef<T>(Arc<T>);

impl<T> Deref for WatchRef<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: fmt::Debug> fmt::Debug for WatchRef<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

fn get<T>(shared: &Shared<T>) -> WatchRef<T> {
    WatchRef(shared.lock().value.clone())
}

fn announce<T>(state: &mut Guard<'_, State<T>, (), 1>) {
    while state.hand(0, None).is_ok() {}
}

impl<T> WatchSender<T> {
    /// Sets the value, and wakes who watches.
    pub fn set(&self, value: T) {
        let mut value = Arc::new(value);
        let mut state = self.shared.lock();
        std::mem::swap(&mut state.value, &mut value);
        state.version += 1;
        announce(&mut state);
        drop(state);
        // The one before goes here, outside of the lock.
        drop(value);
    }

    /// Makes a new value of the one before, and wakes who watches. If another one is set meanwhile, `change` is called again, with that.
    pub fn update(&self, mut change: impl FnMut(&T) -> T) {
        loop {
            let (before, version) = {
                let state = self.shared.lock();
                (state.value.clone(), state.version)
            };
            let mut value = Arc::new(change(&before));
            let mut state = self.shared.lock();
            if state.version == version {
                std::mem::swap(&mut state.value, &mut value);
                state.version += 1;
                announce(&mut state);
                return drop(state);
            }
        }
    }

    /// The value as it is now.
    pub fn get(&self) -> WatchRef<T> {
        get(&self.shared)
    }
}

impl<T> Drop for WatchSender<T> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.sender = false;
        let key = state.key;
        state.sending.remove(key);
        announce(&mut state);
    }
}

impl<T> WatchReceiver<T> {
    /// The value as it is now.
    pub fn get(&self) -> WatchRef<T> {
        get(&self.shared)
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
        let wait = Wait::new(Reason::Watch);
        async move {
            let (queue, seen) = (&*self.shared, &mut self.seen);
            let mut waiter = pin!(queue.waiter());
            std::future::poll_fn(|cx| {
                let polled = waiter.as_mut().poll(cx, wait, |state| {
                    if state.version == *seen && state.sender {
                        let sender = state.sending.thing();
                        Turn::WaitForSide(0, None, sender)
                    } else {
                        Turn::Ready(())
                    }
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
        let waiting = self.shared.lock().waiting(0);
        f.debug_struct("WatchSender").field("value", &self.get()).field("waiting", &waiting).finish()
    }
}

impl<T: fmt::Debug> fmt::Debug for WatchReceiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.lock();
        let (value, changed, sender) = (WatchRef(state.value.clone()), state.version != self.seen, state.sender);
        // The text comes from, and goes to, code of others.
        drop(state);
        let mut debug = f.debug_struct("WatchReceiver");
        debug.field("value", &value).field("changed", &changed).field("sender", &sender).finish()
    }
}
