//! [`Barrier`].
//!
//! Who comes last counts those that wait, and then serves them. A cancel comes under another lock, and may take one away in between: then
//! there were too few after all, and who has been served by then waits again. So each is served with a word that says, once the lock is
//! free, whether the barrier opened.

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use trefoil_runtime::sync::{AtomicBool, Ordering};
use trefoil_runtime::{Cancelled, Handed, Reason, Turn, Wait, WaitQueue, Waiter};

/// Whether it opened for those that were served together.
type Opened = Arc<AtomicBool>;

/// Lets tasks wait until so many have come; again and again.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use trefoil_nursery::{nursery, sync::Barrier, Cancelled};
/// let all_here = Barrier::new(3);
/// let leaders = nursery(async |n| -> Result<usize, Cancelled> {
///     let tasks: Vec<_> = (0..3).map(|_| n.spawn(async { all_here.wait().await })).collect();
///     let mut leaders = 0;
///     for task in tasks {
///         leaders += usize::from(task.await?);
///     }
///     Ok(leaders)
/// })
/// .await
/// .unwrap();
/// assert_eq!(leaders, 1);
/// # });
/// ```
pub struct Barrier {
    parties: usize,
    /// With the place where it was made.
    queue: WaitQueue<&'static Location<'static>, Opened, 1>,
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The lock is released before the text goes to code of others.
        let waiting = self.queue.lock().waiting(0);
        f.debug_struct("Barrier").field("parties", &self.parties).field("waiting", &waiting).finish()
    }
}

impl Barrier {
    /// For so many tasks; 0 is as good as 1. Who waits at it is shown with the place of this call.
    #[track_caller]
    pub fn new(parties: usize) -> Self {
        Self { parties, queue: WaitQueue::new(Location::caller()) }
    }

    /// Waits until all have come; true for the one that came last.
    ///
    /// # Errors
    /// [`Cancelled`] if the scope is cancelled before.
    ///
    /// # Cancellation
    /// It is as if this task had not come.
    #[track_caller]
    pub fn wait(&self) -> WaitBarrier<'_> {
        WaitBarrier { parties: self.parties, waiter: self.queue.waiter(), place: Location::caller() }
    }
}

/// The future of [`Barrier::wait`].
#[must_use = "waiting does nothing until it is awaited"]
#[derive(Debug)]
pub struct WaitBarrier<'a> {
    parties: usize,
    waiter: Waiter<'a, &'static Location<'static>, Opened, 1>,
    place: &'static Location<'static>,
}

impl Future for WaitBarrier<'_> {
    type Output = Result<bool, Cancelled>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: `waiter` is pinned with this.
        let (parties, mut waiter, place) = unsafe {
            let this = self.get_unchecked_mut();
            (this.parties, Pin::new_unchecked(&mut this.waiter), this.place)
        };
        loop {
            let polled = waiter.as_mut().poll(cx, Wait::new(Reason::Barrier).at(place), |queue| {
                if queue.count(0) + 1 < parties {
                    return Turn::WaitForMade(0, None, **queue);
                }
                let opened = Arc::new(AtomicBool::new(false));
                let mut come = 1;
                while queue.hand(0, Some(opened.clone())).is_ok() {
                    come += 1;
                }
                if come < parties {
                    // One of them was cancelled since they were counted, by who has another lock.
                    return Turn::WaitForMade(0, None, **queue);
                }
                opened.store(true, Ordering::Release);
                Turn::Ready(())
            });
            return Poll::Ready(match ready!(polled) {
                Ok(Handed::Ready(())) => Ok(true),
                // The others of that time have to wait again.
                Ok(Handed::Handed(opened)) => {
                    let opened = opened.expect("who is served is told whether it opened");
                    // Decided when the lock is free: it is set by who holds it.
                    drop(waiter.queue().lock());
                    if !opened.load(Ordering::Acquire) {
                        continue;
                    }
                    Ok(false)
                }
                Err((cancelled, _)) => Err(cancelled),
            });
        }
    }
}
