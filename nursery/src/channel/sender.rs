//! The side of a channel that sends.

use super::statistics::{debug, statistics};
use super::{BROKEN, ChannelStatistics, Handle, RECEIVERS, SENDERS, SendError, Side, Slot, State, TrySendError, offer};
use crate::blocking;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use trefoil_runtime::sync::Ordering;
use trefoil_runtime::{Handed, Reason, Turn, Wait, Waiter};

/// The side of a channel that sends. Clone it for more senders; when the last is dropped, receivers get what is left and then
/// the end (R94). Where it is borrowed, and so cannot be dropped, [`close`](Self::close) does the same.
pub struct Sender<T> {
    pub(super) handle: Handle<T>,
}

impl<T> Sender<T> {
    /// Sends an item; waits while there is no room.
    ///
    /// # Errors
    /// [`SendError`], with the item in it, if the scope is cancelled or all receivers are gone.
    ///
    /// # Cancellation
    /// The item was not sent (R98). One that a receiver took first was: then the send has succeeded.
    #[track_caller]
    pub fn send(&self, item: T) -> SendFuture<'_, T> {
        self.send_at(item, Location::caller())
    }

    /// [`send`](Self::send) on behalf of code at another place.
    pub(crate) fn send_at(&self, item: T, place: &'static Location<'static>) -> SendFuture<'_, T> {
        SendFuture { handle: &self.handle, waiter: self.handle.queue.waiter(), item: Some(item), place }
    }

    /// Sends an item if there is room now.
    ///
    /// # Errors
    /// [`TrySendError`], with the item in it.
    pub fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        offer(&self.handle, &mut self.handle.queue.lock(), item)
    }

    /// Sends an item by blocking the thread while there is no room, for a thread that runs no loop.
    ///
    /// # Errors
    /// [`SendError`], with the item in it, if all receivers are gone; it is not cancelled, since no scope is around it.
    ///
    /// # Panics
    /// Inside of a run; await [`send`](Self::send) there.
    ///
    /// # Examples
    /// ```
    /// use trefoil_nursery::channel;
    /// let (sender, receiver) = channel(1);
    /// let thread = std::thread::spawn(move || (0..3).try_for_each(|i| sender.send_blocking(i)));
    /// trefoil_nursery::doc_run(async {
    ///     for i in 0..3 {
    ///         assert_eq!(receiver.recv().await, Ok(Some(i)));
    ///     }
    /// });
    /// thread.join().unwrap().unwrap();
    /// ```
    #[track_caller]
    pub fn send_blocking(&self, item: T) -> Result<(), SendError<T>> {
        blocking::check("Sender::send_blocking", "Sender::send");
        match self.try_send(item) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(item)) => blocking::wait(self.send(item)),
            Err(TrySendError::Closed(item)) => Err(SendError::Closed(item)),
            Err(TrySendError::HandleClosed(item)) => Err(SendError::HandleClosed(item)),
        }
    }

    /// How many items are in the buffer.
    pub fn len(&self) -> usize {
        self.handle.queue.lock().buffer.len()
    }

    /// Whether the buffer is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a send is bound to fail: all receivers are gone, or this sender was closed.
    pub fn is_closed(&self) -> bool {
        self.handle.is_closed() || self.handle.queue.lock().receivers == 0
    }

    /// Closes this sender, as if it were dropped: sends that wait through it end with
    /// [`HandleClosed`](SendError::HandleClosed), clones go on (R96). Again does nothing.
    pub fn close(&self) {
        let mut queue = self.handle.queue.lock();
        if self.handle.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        queue.senders -= 1;
        queue.sending.remove(self.handle.key);
        queue.release(SENDERS, |slot| slot.via.get() == self.handle.id);
        if queue.senders == 0 {
            queue.release(RECEIVERS, |_| true);
        }
    }

    /// What the channel is doing now.
    pub fn statistics(&self) -> ChannelStatistics {
        statistics(&self.handle.queue)
    }
}

impl<T> Clone for Sender<T> {
    /// One more sender; a closed one of a closed one.
    #[track_caller]
    fn clone(&self) -> Self {
        // Under the lock, as a close: nobody comes back after the last one has gone (R94, R95).
        let mut queue = self.handle.queue.lock();
        let closed = self.handle.is_closed();
        queue.senders += usize::from(!closed);
        drop(queue);
        Self { handle: Handle::new(self.handle.queue.clone(), closed, Side::Sending, Location::caller()) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug("Sender", &self.handle, f)
    }
}

/// The future of [`Sender::send`].
#[must_use = "a send does nothing until it is awaited"]
pub struct SendFuture<'a, T> {
    handle: &'a Handle<T>,
    waiter: Waiter<'a, State<T>, Slot<T>, 2>,
    item: Option<T>,
    place: &'static Location<'static>,
}

impl<T> fmt::Debug for SendFuture<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SendFuture").field(&self.waiter).finish()
    }
}

impl<T> Future for SendFuture<'_, T> {
    type Output = Result<(), SendError<T>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: `waiter` is pinned with this; `item` is not.
        let (handle, waiter, item, place) = unsafe {
            let this = self.get_unchecked_mut();
            (this.handle, Pin::new_unchecked(&mut this.waiter), &mut this.item, this.place)
        };
        let wait = Wait::new(Reason::Send).at(place);
        let failed = |item| if handle.is_closed() { SendError::HandleClosed(item) } else { SendError::Closed(item) };
        let polled = waiter.poll(cx, wait, |queue| {
            match offer(handle, queue, item.take().expect("polled after it was ready")) {
                Ok(()) => Turn::Ready(Ok(())),
                Err(TrySendError::Full(item)) => {
                    let receivers = queue.receiving.thing();
                    Turn::WaitForSide(SENDERS, Some(Slot::new(handle.id, Some(item))), receivers)
                }
                Err(TrySendError::Closed(item) | TrySendError::HandleClosed(item)) => Turn::Ready(Err(failed(item))),
            }
        });
        Poll::Ready(match ready!(polled) {
            Ok(Handed::Ready(result)) => result,
            // Taken; or given back, because nobody is left to take it.
            Ok(Handed::Handed(slot)) => match slot {
                Some(Slot { item: Some(item), via }) if via.get() == BROKEN => Err(SendError::Closed(item)),
                Some(Slot { item: Some(item), .. }) => Err(SendError::HandleClosed(item)),
                _ => Ok(()),
            },
            Err((cancelled, brought)) => {
                let item =
                    brought.and_then(|slot| slot.item).or_else(|| item.take()).expect("the item is in one place");
                Err(SendError::Cancelled(cancelled, item))
            }
        })
    }
}
