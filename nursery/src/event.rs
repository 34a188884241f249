//! [`Event`]: something that happens once, and that any number of tasks wait for.

use crate::blocking;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use trefoil_runtime::{Cancelled, Handed, Reason, TimedOut, Turn, Wait, WaitQueue, Waiter};

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
#[doc(alias("Notify"))]
pub struct Event {
    queue: WaitQueue<State, (), 1>,
}

struct State {
    set: bool,
    /// Where the event was made.
    made: &'static Location<'static>,
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let guard = self.queue.lock();
        let (set, waiting) = (guard.set, guard.waiting(0));
        // The text goes to code of others.
        drop(guard);
        f.debug_struct("Event").field("set", &set).field("waiting", &waiting).finish()
    }
}

impl Default for Event {
    #[track_caller]
    fn default() -> Self {
        Self::new()
    }
}

impl Event {
    /// One that has not happened. Who waits for it is shown with the place of this call.
    #[track_caller]
    pub fn new() -> Self {
        Self { queue: WaitQueue::new(State { set: false, made: Location::caller() }) }
    }

    /// It happens: everybody who waits goes on, in the order in which they came (N3), and nobody waits from now on. Any thread.
    pub fn set(&self) {
        let mut guard = self.queue.lock();
        guard.set = true;
        while guard.hand(0, None).is_ok() {}
    }

    /// Whether it has happened.
    pub fn is_set(&self) -> bool {
        self.queue.lock().set
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
        WaitEvent { waiter: self.queue.waiter(), place: Location::caller() }
    }
}

impl Event {
    /// Waits by blocking the thread, for one that runs no loop.
    ///
    /// # Panics
    /// Inside of a run; await [`wait`](Self::wait) there.
    ///
    /// # Examples
    /// ```
    /// use trefoil_nursery::Event;
    /// let ready = Event::new();
    /// std::thread::scope(|threads| {
    ///     threads.spawn(|| ready.set());
    ///     ready.wait_blocking();
    /// });
    /// ```
    #[track_caller]
    pub fn wait_blocking(&self) {
        blocking::check("Event::wait_blocking", "Event::wait");
        if !self.is_set() {
            blocking::uncancelled(blocking::wait(self.wait()));
        }
    }

    /// Waits by blocking the thread, for a length of time at most.
    ///
    /// # Errors
    /// [`TimedOut`] if it has not happened by then.
    ///
    /// # Panics
    /// Inside of a run; await [`wait`](Self::wait) there.
    #[track_caller]
    pub fn wait_blocking_timeout(&self, limit: Duration) -> Result<(), TimedOut> {
        blocking::check("Event::wait_blocking_timeout", "Event::wait");
        if self.is_set() { Ok(()) } else { blocking::wait_for(limit, self.wait()) }
    }
}

/// The future of [`Event::wait`].
#[derive(Debug)]
#[must_use = "waiting does nothing until it is awaited"]
pub struct WaitEvent<'a> {
    waiter: Waiter<'a, State, (), 1>,
    place: &'static Location<'static>,
}

impl Future for WaitEvent<'_> {
    type Output = Result<(), Cancelled>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let place = self.place;
        // SAFETY: `waiter` is pinned with this.
        let waiter = unsafe { self.map_unchecked_mut(|this| &mut this.waiter) };
        Poll::Ready(
            match ready!(waiter.poll(cx, Wait::new(Reason::Event).at(place), |event| if event.set {
                Turn::Ready(())
            } else {
                Turn::WaitForMade(0, None, event.made)
            })) {
                Ok(Handed::Ready(()) | Handed::Handed(_)) => Ok(()),
                Err((cancelled, _)) => Err(cancelled),
            },
        )
    }
}
