//! [`Event`].

use super::waiters::{Waiter, Waiters};
use std::cell::Cell;
use std::future::Future;
use std::panic::Location;
use trefoil_runtime::{Cancelled, Reason};

/// A flag that tasks wait for: `asyncio.Event` (L5).
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use trefoil_nursery::{Cancelled, asyncio};
/// use trefoil_nursery::asyncio::Event;
/// use std::rc::Rc;
/// asyncio::event_loop(async {
///     let ready = Rc::new(Event::new());
///     let waits = asyncio::create_task({
///         let ready = ready.clone();
///         async move { ready.wait().await }
///     });
///     asyncio::sleep(std::time::Duration::ZERO).await?;
///     // Whoever waits now goes on, though it is clear again when they run.
///     ready.set();
///     ready.clear();
///     waits.await?;
///     assert!(!ready.is_set());
///     Ok::<(), Cancelled>(())
/// })
/// .await
/// .unwrap();
/// # });
/// ```
#[derive(Debug)]
pub struct Event {
    set: Cell<bool>,
    waiters: Waiters,
}

impl Event {
    /// One that is not set.
    #[track_caller]
    pub fn new() -> Self {
        Self { set: Cell::new(false), waiters: Waiters::at(Location::caller()) }
    }

    /// Sets it: all who wait go on, in the order in which they came, and nobody waits until it is cleared.
    pub fn set(&self) {
        if !self.set.replace(true) {
            self.waiters.wake(usize::MAX);
        }
    }

    /// Clears it. Those whom [`set`](Self::set) has woken go on all the same (L5).
    pub fn clear(&self) {
        self.set.set(false);
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        self.set.get()
    }

    /// Waits until it is set. Where it is, this does not give up the turn.
    ///
    /// # Errors
    /// [`Cancelled`] if the task is cancelled before.
    ///
    /// # Cancellation
    /// Ends the wait, with no effect.
    #[track_caller]
    pub fn wait(&self) -> impl Future<Output = Result<(), Cancelled>> {
        self.wait_as(Reason::Event, Location::caller())
    }

    /// The same at a place, for what is made of an event, and is called so.
    pub(super) async fn wait_as(&self, reason: Reason, at: &'static Location<'static>) -> Result<(), Cancelled> {
        if self.set.get() {
            return Ok(());
        }
        let place = Place { event: self, waiter: self.waiters.join(reason) };
        place.waiter.wait_at(at).await
    }
}

impl Default for Event {
    #[track_caller]
    fn default() -> Self {
        Self::new()
    }
}

/// Among those who wait.
struct Place<'a> {
    event: &'a Event,
    waiter: Waiter,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.event.waiters.leave(&self.waiter);
    }
}
