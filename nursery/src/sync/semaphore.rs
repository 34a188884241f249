//! [`Semaphore`].

use super::{Listed, WouldBlock};
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use trefoil_runtime::{
    Cancelled, Guard, Handed, Holder, HolderKey, Holders, Holding, Reason, Turn, Wait, WaitQueue, Waiter,
};

/// How many permits are there, and who has the others.
#[derive(Debug)]
struct State {
    permits: usize,
    holders: Holders,
}

type Queue = WaitQueue<State, usize, 1>;
type Locked<'a> = Guard<'a, State, usize, 1>;

/// A number of permits, to be acquired one or many at a time, in order (R76, R80).
///
/// A task that waits for many is not passed by later ones that want fewer.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use trefoil_nursery::{nursery, sync::Semaphore, yield_now, Cancelled};
/// use std::cell::Cell;
/// let (two_at_once, now, most) = (Semaphore::new(2), Cell::new(0), Cell::new(0));
/// trefoil_nursery::local_nursery(async |n| -> Result<(), Cancelled> {
///     for _ in 0..10 {
///         n.spawn(async {
///             let _permit = two_at_once.acquire(1).await?;
///             now.set(now.get() + 1);
///             most.set(most.get().max(now.get()));
///             yield_now().await;
///             now.set(now.get() - 1);
///             Ok(())
///         });
///     }
///     Ok(())
/// })
/// .await
/// .unwrap();
/// assert_eq!(most.get(), 2);
/// # });
/// ```
pub struct Semaphore {
    queue: Queue,
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queue = self.queue.lock();
        let (available, holders, waiting) = (queue.permits, queue.holders.list(), queue.waiting(0));
        // The text goes to code of others.
        drop(queue);
        f.debug_struct("Semaphore")
            .field("available", &available)
            .field("holders", &Listed(holders))
            .field("waiting", &waiting)
            .finish()
    }
}

/// Serves who waits, in order, as long as there is enough.
fn serve(state: &mut Locked<'_>) {
    loop {
        let there = state.permits;
        match state.hand_if(0, |wanted| wanted.is_some_and(|&wanted| wanted <= there), None) {
            Ok(wanted) => state.permits -= wanted.expect("who waits has said how many for"),
            Err(_) => return,
        }
    }
}

impl Semaphore {
    /// With so many permits.
    pub fn new(permits: usize) -> Self {
        Self { queue: Queue::new(State { permits, holders: Holders::new(Holding::Permits, permits) }) }
    }

    /// Acquires `n` permits; waits until there are so many, and all who came before are served. The permits go back when the
    /// returned value is dropped.
    ///
    /// # Errors
    /// [`Cancelled`] if the scope is cancelled before.
    ///
    /// # Cancellation
    /// No permit is taken, none is lost (R77).
    #[track_caller]
    pub fn acquire(&self, n: usize) -> Acquire<'_> {
        Acquire { semaphore: self, n, waiter: self.queue.waiter(), place: Location::caller() }
    }

    /// Acquires `n` permits if they are there now, and nobody waits.
    ///
    /// # Errors
    /// [`WouldBlock`].
    #[track_caller]
    pub fn try_acquire(&self, n: usize) -> Result<Permits<'_>, WouldBlock> {
        let mut state = self.queue.lock();
        if state.peek(0).is_some() || state.permits < n {
            return Err(WouldBlock::new());
        }
        state.permits -= n;
        let key = state.holders.add(Holder::here(Location::caller(), n));
        Ok(Permits { semaphore: self, n, key })
    }

    /// Adds permits.
    ///
    /// # Panics
    /// If there would be more than `usize::MAX`.
    pub fn add(&self, n: usize) {
        let mut state = self.queue.lock();
        // From now on nobody can say how many there will be (N10).
        state.holders.set_open();
        give_back(state, n);
    }

    /// How many permits are there now.
    pub fn available(&self) -> usize {
        self.queue.lock().permits
    }
}

fn give_back(mut state: Locked<'_>, n: usize) {
    state.permits = state.permits.checked_add(n).expect("a semaphore has at most usize::MAX permits");
    serve(&mut state);
}

/// Permits of a [`Semaphore`]; dropping them gives them back.
#[must_use = "dropping the permits gives them back at once"]
#[derive(Debug)]
pub struct Permits<'a> {
    semaphore: &'a Semaphore,
    n: usize,
    key: HolderKey,
}

impl Permits<'_> {
    /// How many.
    pub fn count(&self) -> usize {
        self.n
    }

    /// Keeps them for good: the semaphore has so many fewer.
    pub fn forget(mut self) {
        let mut state = self.semaphore.queue.lock();
        state.holders.forget(self.n);
        drop(state);
        self.n = 0;
    }
}

impl Drop for Permits<'_> {
    fn drop(&mut self) {
        let mut state = self.semaphore.queue.lock();
        state.holders.remove(self.key);
        if self.n > 0 {
            give_back(state, self.n);
        }
    }
}

/// The future of [`Semaphore::acquire`].
#[must_use = "nothing is acquired until it is awaited"]
#[derive(Debug)]
pub struct Acquire<'a> {
    semaphore: &'a Semaphore,
    n: usize,
    waiter: Waiter<'a, State, usize, 1>,
    place: &'static Location<'static>,
}

impl<'a> Future for Acquire<'a> {
    type Output = Result<Permits<'a>, Cancelled>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: `waiter` is pinned with this.
        let (semaphore, n, waiter, place) = unsafe {
            let this = self.get_unchecked_mut();
            (this.semaphore, this.n, Pin::new_unchecked(&mut this.waiter), this.place)
        };
        let polled = waiter.poll(cx, Wait::new(Reason::Permits).at(place), |state| {
            if state.peek(0).is_some() || state.permits < n {
                let permits = state.holders.thing_in_line();
                return Turn::WaitFor(0, Some(n), permits, n);
            }
            state.permits -= n;
            Turn::Ready(state.holders.add(Holder::here(place, n)))
        });
        Poll::Ready(match ready!(polled) {
            Ok(Handed::Ready(key)) => Ok(Permits { semaphore, n, key }),
            Ok(Handed::Handed(_)) => {
                let key = semaphore.queue.lock().holders.add(Holder::here(place, n));
                Ok(Permits { semaphore, n, key })
            }
            Err((cancelled, _)) => {
                // It may have kept smaller ones behind it waiting.
                serve(&mut semaphore.queue.lock());
                Err(cancelled)
            }
        })
    }
}

impl Drop for Acquire<'_> {
    fn drop(&mut self) {
        // SAFETY: pinned, and not moved.
        let waiter = unsafe { Pin::new_unchecked(&mut self.waiter) };
        match waiter.retract() {
            // N5: it was given permits and never looked.
            trefoil_runtime::Retracted::Served(_) => give_back(self.semaphore.queue.lock(), self.n),
            trefoil_runtime::Retracted::Waited(_) => serve(&mut self.semaphore.queue.lock()),
            trefoil_runtime::Retracted::Idle => {}
        }
    }
}
