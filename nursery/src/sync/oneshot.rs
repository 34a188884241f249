//! [`oneshot`].

use crate::blocking;
use std::fmt;
use std::panic::Location;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;
use trefoil_runtime::{
    Cancelled, Handed, Holder, HolderKey, Holders, Holding, Reason, TimedOut, Turn, Wait, WaitQueue,
};

struct State<T> {
    value: Option<T>,
    sender: bool,
    receiver: bool,
    /// Who made the sender, and where: for a receiver that waits.
    sending: Holders,
    key: HolderKey,
}

type Queue<T> = WaitQueue<State<T>, (), 1>;

/// A channel for one value.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use trefoil_nursery::sync::oneshot;
/// let (sender, mut receiver) = oneshot();
/// sender.send(1).unwrap();
/// assert_eq!(receiver.recv().await?, Some(1));
///
/// // A sender that goes away ends the wait, too.
/// let (sender, mut receiver) = oneshot::<()>();
/// drop(sender);
/// assert_eq!(receiver.recv().await?, None);
/// # Ok::<(), trefoil_nursery::Cancelled>(()) }).unwrap();
/// ```
#[track_caller]
pub fn oneshot<T>() -> (OneshotSender<T>, OneshotReceiver<T>) {
    let mut sending = Holders::new(Holding::Senders, 0);
    let key = sending.add(Holder::here(Location::caller(), 1));
    let queue = Arc::new(Queue::new(State { value: None, sender: true, receiver: true, sending, key }));
    (OneshotSender { queue: queue.clone() }, OneshotReceiver { queue })
}

/// The side of a [`oneshot`] that sends.
pub struct OneshotSender<T> {
    queue: Arc<Queue<T>>,
}

/// The side of a [`oneshot`] that receives.
pub struct OneshotReceiver<T> {
    queue: Arc<Queue<T>>,
}

impl<T> OneshotSender<T> {
    /// Sends the value. It does not wait.
    ///
    /// # Errors
    /// The value, if the receiver is gone.
    pub fn send(self, value: T) -> Result<(), T> {
        let mut state = self.queue.lock();
        if !state.receiver {
            return Err(value);
        }
        state.value = Some(value);
        Ok(())
        // The drop that follows wakes the receiver.
    }

    /// Whether the receiver is gone.
    pub fn is_closed(&self) -> bool {
        !self.queue.lock().receiver
    }
}

impl<T> Drop for OneshotSender<T> {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.sender = false;
        let key = state.key;
        state.sending.remove(key);
        let _ = state.hand(0, None);
    }
}

impl<T> OneshotReceiver<T> {
    /// Receives the value; waits until it is sent. `None` if the sender went away without one, or the value was received before.
    ///
    /// # Errors
    /// [`Cancelled`] if the scope is cancelled before.
    ///
    /// # Cancellation
    /// The value is not lost: it can be received again.
    #[track_caller]
    pub fn recv(&mut self) -> impl Future<Output = Result<Option<T>, Cancelled>> + use<'_, T> {
        self.recv_as(Wait::new(Reason::Oneshot))
    }

    /// The same; what it waits for, and where, is called so.
    pub(crate) fn recv_as(&mut self, wait: Wait) -> impl Future<Output = Result<Option<T>, Cancelled>> + use<'_, T> {
        let queue = &*self.queue;
        async move {
            let mut waiter = pin!(queue.waiter());
            std::future::poll_fn(|cx| {
                let polled = waiter.as_mut().poll(cx, wait, |state| {
                    if state.sender && state.value.is_none() {
                        let sender = state.sending.thing();
                        Turn::WaitForSide(0, None, sender)
                    } else {
                        Turn::Ready(())
                    }
                });
                Poll::Ready(match ready!(polled) {
                    Ok(Handed::Ready(()) | Handed::Handed(_)) => Ok(queue.lock().value.take()),
                    Err((cancelled, _)) => Err(cancelled),
                })
            })
            .await
        }
    }

    /// Receives the value by blocking the thread, for one that runs no loop. `None` as for [`recv`](Self::recv).
    ///
    /// # Panics
    /// Inside of a run; await [`recv`](Self::recv) there.
    ///
    /// # Examples
    /// ```
    /// use trefoil_nursery::sync::oneshot;
    /// let (sender, mut receiver) = oneshot();
    /// let thread = std::thread::spawn(move || receiver.recv_blocking());
    /// trefoil_nursery::doc_run(async { sender.send(1).unwrap() });
    /// assert_eq!(thread.join().unwrap(), Some(1));
    /// ```
    #[track_caller]
    pub fn recv_blocking(&mut self) -> Option<T> {
        blocking::check("OneshotReceiver::recv_blocking", "OneshotReceiver::recv");
        match self.received() {
            Some(value) => value,
            None => blocking::uncancelled(blocking::wait(self.recv())),
        }
    }

    /// Receives the value by blocking the thread, for a length of time at most.
    ///
    /// # Errors
    /// [`TimedOut`] if it was not there by then. It can be received later.
    ///
    /// # Panics
    /// Inside of a run; await [`recv`](Self::recv) there.
    #[track_caller]
    pub fn recv_blocking_timeout(&mut self, limit: Duration) -> Result<Option<T>, TimedOut> {
        blocking::check("OneshotReceiver::recv_blocking_timeout", "OneshotReceiver::recv");
        match self.received() {
            Some(value) => Ok(value),
            None => blocking::wait_for(limit, self.recv()),
        }
    }

    /// What `recv` returns, if that is decided.
    fn received(&mut self) -> Option<Option<T>> {
        let mut state = self.queue.lock();
        (state.value.is_some() || !state.sender).then(|| state.value.take())
    }

    /// The value, if it is there.
    pub fn try_recv(&mut self) -> Option<T> {
        self.queue.lock().value.take()
    }
}

impl<T> Drop for OneshotReceiver<T> {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.receiver = false;
        let value = state.value.take();
        drop(state);
        drop(value);
    }
}

impl<T> fmt::Debug for OneshotSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OneshotSender").field("receiver", &!self.is_closed()).finish()
    }
}

impl<T> fmt::Debug for OneshotReceiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.queue.lock();
        let (ready, sender) = (state.value.is_some(), state.sender);
        // The text goes to code of others.
        drop(state);
        f.debug_struct("OneshotReceiver").field("ready", &ready).field("sender", &sender).finish()
    }
}
