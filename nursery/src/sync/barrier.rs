//! [`Barrier`].

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use trefoil_runtime::{Cancelled, Handed, Reason, Turn, Wait, WaitQueue, Waiter};

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
    queue: WaitQueue<(), (), 1>,
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier")
            .field("parties", &self.parties)
            .field("waiting", &self.queue.lock().waiting(0))
            .finish()
    }
}

impl Barrier {
    /// For so many tasks; 0 is as good as 1.
    pub fn new(parties: usize) -> Self {
        Self { parties, queue: WaitQueue::new(()) }
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
        WaitBarrier { parties: self.parties, waiter: self.queue.waiter(), wait: Wait::new(Reason::Barrier) }
    }
}

/// The future of [`Barrier::wait`].
#[must_use = "waiting does nothing until it is awaited"]
#[derive(Debug)]
pub struct WaitBarrier<'a> {
    parties: usize,
    waiter: Waiter<'a, (), (), 1>,
    wait: Wait,
}

impl Future for WaitBarrier<'_> {
    type Output = Result<bool, Cancelled>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: `waiter` is pinned with this.
        let (parties, waiter, wait) = unsafe {
            let this = self.get_unchecked_mut();
            (this.parties, Pin::new_unchecked(&mut this.waiter), this.wait)
        };
        let polled = waiter.poll(cx, wait, |queue| {
            if queue.count(0) + 1 < parties {
                return Turn::Wait(0, None);
            }
            while queue.hand(0, None).is_ok() {}
            Turn::Ready(())
        });
        Poll::Ready(match ready!(polled) {
            Ok(Handed::Ready(())) => Ok(true),
            Ok(Handed::Handed(_)) => Ok(false),
            Err((cancelled, _)) => Err(cancelled),
        })
    }
}
