//! [`Event`]: something that happens once, and that any number of tasks wait for.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use trefoil_runtime::{Cancelled, Handed, Reason, Turn, Wait, WaitQueue, Waiter};

/// Something that happens once, and that any number of tasks wait for (R75). There is no way back: make a new one instead.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use trefoil_nursery::{nursery, Cancelled, Event};
/// let ready = Event::new();
/// nursery(async |n| -> Result<(), Cancelled> {
///     n.spawn(async { ready.wait().await });
///     ready.set();
///     Ok(())
/// })
/// .await
/// .unwrap();
/// # });
/// ```
pub struct Event {
    queue: WaitQueue<bool, (), 1>,
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let guard = self.queue.lock();
        f.debug_struct("Event").field("set", &*guard).field("waiting", &guard.waiting(0)).finish()
    }
}

impl Default for Event {
    fn default() -> Self {
        Self::new()
    }
}

impl Event {
    /// One that has not happened.
    pub fn new() -> Self {
        Self { queue: WaitQueue::new(false) }
    }

    /// It happens: everybody who waits goes on, in the order in which they came (N3), and nobody waits from now on. Any thread.
    pub fn set(&self) {
        let mut guard = self.queue.lock();
        *guard = true;
        while guard.hand(0, None).is_ok() {}
    }

    /// Whether it has happened.
    pub fn is_set(&self) -> bool {
        *self.queue.lock()
    }

    /// Waits until it happens. A checkpoint also where it has (R38).
    ///
    /// # Errors
    /// [`Cancelled`] if the scope is cancelled before.
    ///
    /// # Cancellation
    /// Ends the wait, with no effect. An event that was set first wins (R18).
    #[track_caller]
    pub fn wait(&self) -> WaitEvent<'_> {
        WaitEvent { waiter: self.queue.waiter(), wait: Wait::new(Reason::Event) }
    }
}

/// The future of [`Event::wait`].
#[derive(Debug)]
#[must_use = "waiting does nothing until it is awaited"]
pub struct WaitEvent<'a> {
    waiter: Waiter<'a, bool, (), 1>,
    wait: Wait,
}

impl Future for WaitEvent<'_> {
    type Output = Result<(), Cancelled>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let wait = self.wait;
        // SAFETY: `waiter` is pinned with this.
        let waiter = unsafe { self.map_unchecked_mut(|this| &mut this.waiter) };
        Poll::Ready(
            match ready!(waiter.poll(cx, wait, |set| if **set { Turn::Ready(()) } else { Turn::Wait(0, None) })) {
                Ok(Handed::Ready(()) | Handed::Handed(_)) => Ok(()),
                Err((cancelled, _)) => Err(cancelled),
            },
        )
    }
}
