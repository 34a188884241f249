//! The side of a channel that receives.

use super::statistics::{debug, statistics};
use super::{BROKEN, ChannelStatistics, Handle, RECEIVERS, SENDERS, Side, Slot, State, TryRecvError, take};
use crate::blocking;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use trefoil_runtime::sync::Ordering;
use trefoil_runtime::{Cancelled, Handed, Reason, TimedOut, Turn, Wait, Waiter};

/// The side of a channel that receives. Clone it for more receivers, each of which gets other items; when the last is dropped, what
/// is left is dropped and sends fail (R95). Where it is borrowed, and so cannot be dropped, [`close`](Self::close) does the same.
pub struct Receiver<T> {
    pub(super) handle: Handle<T>,
}

impl<T> Receiver<T> {
    /// Receives the next item; waits while there is none. `Ok(None)` when all senders are gone and every item was received (R94).
    ///
    /// # Errors
    /// [`Cancelled`] if the scope is cancelled.
    ///
    /// # Cancellation
    /// No item is lost: one that was handed over first is returned (R18), and one handed to a receive that is then dropped goes to
    /// the next receiver, or back to the front (N5).
    #[track_caller]
    pub fn recv(&self) -> RecvFuture<'_, T> {
        self.recv_at(Location::caller())
    }

    /// [`recv`](Self::recv) on behalf of code at another place.
    pub(crate) fn recv_at(&self, place: &'static Location<'static>) -> RecvFuture<'_, T> {
        RecvFuture { handle: &self.handle, waiter: self.handle.queue.waiter(), place }
    }

    /// Receives an item if there is one now.
    ///
    /// # Errors
    /// [`TryRecvError`].
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        take(&self.handle, &mut self.handle.queue.lock())
    }

    /// Receives the next item by blocking the thread while there is none, for a thread that runs no loop. `None` when all senders are
    /// gone and every item was received (R94): also when a run ends that had them.
    ///
    /// # Panics
    /// Inside of a run; await [`recv`](Self::recv) there.
    ///
    /// # Examples
    /// ```
    /// use trefoil_nursery::channel;
    /// let (sender, receiver) = channel(10);
    /// let thread = std::thread::spawn(move || std::iter::from_fn(|| receiver.recv_blocking()).sum::<i32>());
    /// trefoil_nursery::doc_run(async move {
    ///     for i in 1..=3 {
    ///         sender.send(i).await.unwrap();
    ///     }
    /// });
    /// assert_eq!(thread.join().unwrap(), 6);
    /// ```
    #[track_caller]
    pub fn recv_blocking(&self) -> Option<T> {
        blocking::check("Receiver::recv_blocking", "Receiver::recv");
        match self.try_recv() {
            Ok(item) => Some(item),
            Err(TryRecvError::Closed | TryRecvError::HandleClosed) => None,
            Err(TryRecvError::Empty) => blocking::uncancelled(blocking::wait(self.recv())),
        }
    }

    /// Receives the next item by blocking the thread, for a length of time at most. Otherwise as [`recv_blocking`](Self::recv_blocking).
    ///
    /// # Errors
    /// [`TimedOut`] if there was none by then.
    ///
    /// # Panics
    /// Inside of a run; await [`recv`](Self::recv) there.
    #[track_caller]
    pub fn recv_blocking_timeout(&self, limit: Duration) -> Result<Option<T>, TimedOut> {
        blocking::check("Receiver::recv_blocking_timeout", "Receiver::recv");
        match self.try_recv() {
            Ok(item) => Ok(Some(item)),
            Err(TryRecvError::Closed | TryRecvError::HandleClosed) => Ok(None),
            Err(TryRecvError::Empty) => blocking::wait_for(limit, self.recv()),
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
}

impl<T> Receiver<T> {
    /// Whether this receiver was closed.
    pub fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// Closes this receiver, as if it were dropped: receives that wait through it end with `Ok(None)`, clones go on (R96). The last one
    /// drops what is in the buffer, and fails the sends that wait (R95). Again does nothing.
    pub fn close(&self) {
        let mut queue = self.handle.queue.lock();
        if self.handle.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        queue.receivers -= 1;
        queue.receiving.remove(self.handle.key);
        queue.release(RECEIVERS, |slot| slot.via.get() == self.handle.id);
        if queue.receivers == 0 {
            queue.release(SENDERS, |slot| {
                slot.via.set(BROKEN);
                true
            });
            // Items are dropped outside of the lock.
            queue.returned.clear();
            let left = std::mem::take(&mut queue.buffer);
            drop(queue);
            drop(left);
        }
    }

    /// What the channel is doing now.
    pub fn statistics(&self) -> ChannelStatistics {
        statistics(&self.handle.queue)
    }
}

impl<T> Clone for Receiver<T> {
    /// One more receiver; a closed one of a closed one.
    #[track_caller]
    fn clone(&self) -> Self {
        // Under the lock, as a close: nobody comes back after the last one has gone (R94, R95).
        let mut queue = self.handle.queue.lock();
        let closed = self.handle.is_closed();
        queue.receivers += usize::from(!closed);
        drop(queue);
        Self { handle: Handle::new(self.handle.queue.clone(), closed, Side::Receiving, Location::caller()) }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug("Receiver", &self.handle, f)
    }
}

/// The future of [`Receiver::recv`].
#[must_use = "a receive does nothing until it is awaited"]
pub struct RecvFuture<'a, T> {
    handle: &'a Handle<T>,
    waiter: Waiter<'a, State<T>, Slot<T>, 2>,
    place: &'static Location<'static>,
}

impl<T> fmt::Debug for RecvFuture<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RecvFuture").field(&self.waiter).finish()
    }
}

impl<T> Future for RecvFuture<'_, T> {
    type Output = Result<Option<T>, Cancelled>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: `waiter` is pinned with this.
        let (handle, waiter, place) = unsafe {
            let this = self.get_unchecked_mut();
            (this.handle, Pin::new_unchecked(&mut this.waiter), this.place)
        };
        let wait = Wait::new(Reason::Receive).at(place);
        let polled = waiter.poll(cx, wait, |queue| match take(handle, queue) {
            Ok(item) => Turn::Ready(Some(item)),
            Err(TryRecvError::Closed | TryRecvError::HandleClosed) => Turn::Ready(None),
            Err(TryRecvError::Empty) => {
                let senders = queue.sending.thing();
                Turn::WaitForSide(RECEIVERS, Some(Slot::new(handle.id, None)), senders)
            }
        });
        Poll::Ready(match ready!(polled) {
            Ok(Handed::Ready(item)) => Ok(item),
            Ok(Handed::Handed(slot)) => Ok(slot.and_then(|slot| slot.item)),
            Err((cancelled, _)) => Err(cancelled),
        })
    }
}

impl<T> RecvFuture<'_, T> {
    /// Gives up a receive that has begun to wait. Apart, since most are over.
    #[inline(never)]
    fn give_up(&mut self) {
        // SAFETY: pinned, and not moved.
        let waiter = unsafe { Pin::new_unchecked(&mut self.waiter) };
        let queue = waiter.queue();
        if let Some(Some(Slot { item: Some(item), via })) = waiter.withdraw() {
            // N5: it was handed an item and never looked.
            let (mut queue, number) = (queue.lock(), via.get());
            if let Err(Some(Slot { item: Some(item), .. })) = queue.hand(RECEIVERS, Some(Slot::new(number, Some(item))))
            {
                if queue.receivers == 0 {
                    // R95: as what was in the buffer; outside of the lock.
                    drop(queue);
                    return drop(item);
                }
                let place = queue.returned.partition_point(|&before| before < number);
                queue.returned.insert(place, number);
                queue.buffer.insert(place, item);
            }
        }
    }
}

impl<T> Drop for RecvFuture<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if !self.waiter.is_idle() {
            self.give_up();
        }
    }
}
