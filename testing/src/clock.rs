//! [`Clock`]: virtual time, moved by hand.

use std::time::{Duration, Instant};
use trefoil_runtime::{Cancelled, after, now, now_nanos, probe, wait_all_tasks_blocked};

/// The virtual clock of the run, to move it by hand.
///
/// A run of [`testing::run`](crate::run) moves it by itself, to the next deadline, when nothing can run. To move it by hand alone, say
/// [`Builder::autojump(None)`](crate::Builder::autojump) or [`set_autojump(None)`](Self::set_autojump).
///
/// # Examples
/// ```
/// use std::{cell::Cell, time::Duration};
/// use trefoil_nursery::{Cancelled, local_nursery, sleep};
/// use trefoil_testing::{Builder, Clock};
///
/// Builder::new().autojump(None).run(async {
///     let (clock, ticks) = (Clock::current(), Cell::new(0));
///     let ended = local_nursery(async |n| -> Result<(), Cancelled> {
///         n.spawn::<_, ()>(async {
///             loop {
///                 sleep(Duration::from_secs(1)).await?;
///                 ticks.set(ticks.get() + 1);
///             }
///         });
///         clock.advance(Duration::from_millis(999)).await?;
///         assert_eq!(ticks.get(), 0);
///         clock.advance(Duration::from_millis(1)).await?;
///         assert_eq!(ticks.get(), 1);
///         clock.advance(Duration::from_secs(60)).await?;
///         assert_eq!(ticks.get(), 61); // each at its time, not all at the end
///         n.cancel();
///         Ok(())
///     });
///     ended.await.unwrap();
/// });
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Clock(());

impl Clock {
    /// The clock of the run on this thread.
    ///
    /// # Panics
    /// Outside of a run, and in one that goes by the machine's clock.
    #[track_caller]
    pub fn current() -> Self {
        assert!(probe::is_virtual(), "no virtual clock here: this is no run, or one that goes by the machine's clock");
        Self(())
    }

    /// The time on it.
    pub fn now(self) -> Instant {
        now()
    }

    /// Lets virtual time go by, step by step: all tasks run until they are blocked, at the time that it is; then at each deadline in
    /// between, in order (R52); and last at the end of the length. So all that is due by then has happened when it returns.
    ///
    /// # Errors
    /// [`Cancelled`] if the scope is cancelled before, by its own deadline perhaps.
    ///
    /// # Cancellation
    /// Time stays where it is by then.
    ///
    /// # Panics
    /// Outside of a run, and if the length goes beyond the end of time, which is after some 584 years.
    pub async fn advance(self, length: Duration) -> Result<(), Cancelled> {
        let end = after(now_nanos(), length);
        loop {
            wait_all_tasks_blocked(Duration::ZERO).await?;
            let next = probe::next_deadline();
            if next > end {
                break;
            }
            probe::jump(next);
        }
        probe::jump(end);
        wait_all_tasks_blocked(Duration::ZERO).await
    }

    /// Moves virtual time at once, over all deadlines in between: in the next turn they expire together, in order, at a time that is
    /// later than theirs. It is what a machine does that was suspended.
    ///
    /// # Panics
    /// Outside of a run.
    #[track_caller]
    pub fn jump(self, length: Duration) {
        probe::jump_by(length);
    }

    /// After how much real time in which nothing could run time jumps to the next deadline by itself; `None`: never (R53).
    ///
    /// # Panics
    /// Outside of a run.
    #[track_caller]
    pub fn set_autojump(self, after: Option<Duration>) {
        probe::set_autojump(after.unwrap_or(Duration::MAX));
    }
}
