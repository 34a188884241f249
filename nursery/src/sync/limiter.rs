//! [`CapacityLimiter`].

use super::{Listed, WouldBlock};
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use trefoil_runtime::{
    Cancelled, Guard, Handed, Holder, HolderKey, Holders, Holding, Reason, Turn, Wait, WaitQueue, Waiter,
};

struct State {
    total: usize,
    borrowed: usize,
    holders: Holders,
}

impl State {
    fn hold(&mut self, place: &'static Location<'static>) -> HolderKey {
        self.holders.add(Holder::here(place, 1))
    }
}

type Queue = WaitQueue<State, (), 1>;

/// How many may do something at once, adjustable while they do it (R81).
///
/// Unlike the permits of a [`Semaphore`](super::Semaphore), the total can be changed: growing it serves who waits, at once and in
/// order; shrinking it takes no token back. A total of 0 and of `usize::MAX` (no limit) are fine.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use trefoil_nursery::sync::CapacityLimiter;
/// let limiter = CapacityLimiter::new(1);
/// let token = limiter.acquire().await?;
/// assert!(limiter.try_acquire().is_err());
/// limiter.set_total(2);
/// assert!(limiter.try_acquire().is_ok());
/// # drop(token);
/// # Ok::<(), trefoil_nursery::Cancelled>(()) }).unwrap();
/// ```
pub struct CapacityLimiter {
    queue: Queue,
}

/// What a [`CapacityLimiter`] was doing at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimiterStatistics {
    /// How many tokens there may be at once.
    pub total: usize,
    /// How many there are.
    pub borrowed: usize,
    /// How many tasks wait for one.
    pub waiting: usize,
}

impl fmt::Debug for CapacityLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LimiterStatistics { total, borrowed, waiting } = self.statistics();
        // The lock is released before the text goes to code of others.
        let holders = self.queue.lock().holders.list();
        f.debug_struct("CapacityLimiter")
            .field("total", &total)
            .field("borrowed", &borrowed)
            .field("holders", &Listed(holders))
            .field("waiting", &waiting)
            .finish()
    }
}

fn serve(state: &mut Guard<'_, State, (), 1>) {
    while state.borrowed < state.total && state.hand(0, None).is_ok() {
        state.borrowed += 1;
    }
}

impl CapacityLimiter {
    /// For so many at once.
    pub fn new(total: usize) -> Self {
        let holders = Holders::new(Holding::Tokens, total);
        Self { queue: Queue::new(State { total, borrowed: 0, holders }) }
    }

    /// Borrows a token; waits while all are borrowed. It goes back when it is dropped.
    ///
    /// # Errors
    /// [`Cancelled`] if the scope is cancelled before.
    ///
    /// # Cancellation
    /// No token is borrowed, and none is lost.
    #[track_caller]
    pub fn acquire(&self) -> AcquireToken<'_> {
        AcquireToken { limiter: self, waiter: self.queue.waiter(), place: Location::caller() }
    }

    /// Borrows a token if there is one now.
    ///
    /// # Errors
    /// [`WouldBlock`].
    #[track_caller]
    pub fn try_acquire(&self) -> Result<Token<'_>, WouldBlock> {
        let mut state = self.queue.lock();
        if state.borrowed >= state.total {
            return Err(WouldBlock::new());
        }
        state.borrowed += 1;
        let key = Some(state.hold(Location::caller()));
        Ok(Token { limiter: self, key })
    }

    /// Changes how many tokens there may be at once.
    pub fn set_total(&self, total: usize) {
        let mut state = self.queue.lock();
        state.total = total;
        // From now on nobody can say how many there will be (N10).
        state.holders.set_open();
        serve(&mut state);
    }

    /// What it is doing now.
    pub fn statistics(&self) -> LimiterStatistics {
        let state = self.queue.lock();
        LimiterStatistics { total: state.total, borrowed: state.borrowed, waiting: state.waiting(0) }
    }
}

/// A token of a [`CapacityLimiter`]; dropping it gives it back.
#[must_use = "dropping the token gives it back at once"]
#[derive(Debug)]
pub struct Token<'a> {
    limiter: &'a CapacityLimiter,
    /// None of who was given it and never looked.
    key: Option<HolderKey>,
}

impl Drop for Token<'_> {
    fn drop(&mut self) {
        let mut state = self.limiter.queue.lock();
        state.borrowed -= 1;
        if let Some(key) = self.key {
            state.holders.remove(key);
        }
        serve(&mut state);
    }
}

/// The future of [`CapacityLimiter::acquire`].
#[must_use = "nothing is acquired until it is awaited"]
pub struct AcquireToken<'a> {
    limiter: &'a CapacityLimiter,
    waiter: Waiter<'a, State, (), 1>,
    place: &'static Location<'static>,
}

impl fmt::Debug for AcquireToken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AcquireToken").field(&self.waiter).finish()
    }
}

impl<'a> Future for AcquireToken<'a> {
    type Output = Result<Token<'a>, Cancelled>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: `waiter` is pinned with this.
        let (limiter, waiter, place) = unsafe {
            let this = self.get_unchecked_mut();
            (this.limiter, Pin::new_unchecked(&mut this.waiter), this.place)
        };
        let polled = waiter.poll(cx, Wait::new(Reason::Token).at(place), |state| {
            if state.borrowed >= state.total {
                let tokens = state.holders.thing();
                return Turn::WaitFor(0, None, tokens, 1);
            }
            state.borrowed += 1;
            Turn::Ready(state.hold(place))
        });
        Poll::Ready(match ready!(polled) {
            Ok(Handed::Ready(key)) => Ok(Token { limiter, key: Some(key) }),
            Ok(Handed::Handed(_)) => {
                let key = Some(limiter.queue.lock().hold(place));
                Ok(Token { limiter, key })
            }
            Err((cancelled, _)) => Err(cancelled),
        })
    }
}

impl Drop for AcquireToken<'_> {
    fn drop(&mut self) {
        // SAFETY: pinned, and not moved.
        let waiter = unsafe { Pin::new_unchecked(&mut self.waiter) };
        if waiter.withdraw().is_some() {
            // N5: it was given a token and never looked.
            drop(Token { limiter: self.limiter, key: None });
        }
    }
}
