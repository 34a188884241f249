//! What a run does when nothing can run, beyond sleeping until the next deadline: what tests ask for.
//!
//! | in this order | after how much real time in which nothing could run | then |
//! | --- | --- | --- |
//! | somebody waits in [`wait_all_tasks_blocked`] (R54) | the smallest cushion | those with that cushion go on |
//! | the time is virtual, and a deadline is set (R51) | [`Options::autojump`] | time jumps exactly to the deadline |
//! | nothing can come (N10) | [`Options::deadlock`] | the run ends with a report, or it is looked into: see `deadlock` |
//!
//! The time counts from the moment at which nothing could run; whatever is woken meanwhile begins it anew.

use crate::blind::BLIND;
use crate::context;
use crate::idle::Odd;
use crate::look::deadlock::Detection;
use crate::park::Wait;
use crate::reason::Reason;
use crate::scope::cancelled::Cancelled;
use crate::time::clock::NEVER;
use crate::wait::{Turn, WaitQueue};
use crate::worker::{self, Options, Worker};
use std::cell::{Cell, OnceCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::ready;
use std::time::Duration;

/// Tasks that wait for all others to be blocked; each brings its cushion.
type Watchers = WaitQueue<(), Duration, 1>;

/// What comes next if nothing can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The watchers with this cushion go on.
    Watchers(Duration),
    /// Virtual time jumps to the next deadline.
    Jump,
    /// Nothing ever will.
    Deadlock,
    /// Nothing will, unless another thread wakes a task.
    Suspicious,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Quiet {
    /// Made when the first one comes: an ordinary run never has it.
    watchers: OnceCell<Arc<Watchers>>,
    pub autojump: Cell<Duration>,
    deadlock: Detection,
}

impl Quiet {
    pub fn new(options: &Options) -> Self {
        Self { watchers: OnceCell::new(), autojump: Cell::new(options.autojump), deadlock: options.deadlock }
    }

    /// What comes next, and after how much real time. `None`: the run sleeps until its next deadline.
    pub fn next(&self, alarm: u64, virtual_time: bool, in_flight: impl Fn() -> usize) -> Option<(Next, Duration)> {
        if let Some(cushion) = self.watchers.get().and_then(|watchers| smallest(watchers)) {
            return Some((Next::Watchers(cushion), cushion));
        }
        let time_passes = !virtual_time || self.autojump.get() != Duration::MAX;
        if alarm != NEVER && time_passes {
            return virtual_time.then_some((Next::Jump, self.autojump.get()));
        }
        if BLIND {
            return None;
        }
        match self.deadlock {
            Detection::After(after) if in_flight() == 0 => Some((Next::Deadlock, after)),
            Detection::Proven if in_flight() == 0 => Some((Next::Suspicious, Duration::ZERO)),
            _ => None,
        }
    }

    /// All watchers with this cushion go on, together.
    pub fn release(&self, cushion: Duration) {
        if let Some(watchers) = self.watchers.get() {
            watchers.lock().release(0, |other| *other == cushion);
        }
    }
}

fn smallest(watchers: &Watchers) -> Option<Duration> {
    let mut watchers = watchers.lock();
    if watchers.count(0) == 0 {
        return None;
    }
    let mut smallest = None;
    watchers.release(0, |cushion| {
        smallest = Some(smallest.map_or(*cushion, |least: Duration| least.min(*cushion)));
        false
    });
    smallest
}

/// Waits until all other tasks of the run are blocked, and have been for `cushion` of real time (R54).
///
/// Blocked is a task that waits: for another, for a time, for the kernel. So this returns when nothing more will happen by itself but
/// what comes from outside or with time. For what comes from outside, such as bytes through the kernel, give it a cushion. Virtual time
/// does not jump meanwhile. Of several that wait in it, those with the smallest cushion go on, together.
///
/// # Errors
/// [`Cancelled`] if the scope is cancelled before.
///
/// # Cancellation
/// Ends the wait, with no effect.
///
/// # Panics
/// Outside of a run.
///
/// # Examples
/// ```
/// # trefoil_runtime::doc_run(async {
/// trefoil_runtime::wait_all_tasks_blocked(std::time::Duration::ZERO).await?;
/// # Ok::<(), trefoil_runtime::Cancelled>(()) }).unwrap();
/// ```
#[track_caller]
pub fn wait_all_tasks_blocked(cushion: Duration) -> impl Future<Output = Result<(), Cancelled>> + Send {
    let wait = Wait::new(Reason::Custom("all tasks to be blocked"));
    async move {
        let watchers = watchers();
        let mut waiter = pin!(watchers.waiter());
        poll_fn(|cx| match ready!(waiter.as_mut().poll(cx, wait, |_| Turn::<(), Duration>::Wait(0, Some(cushion)))) {
            Ok(_) => Ok(()).into(),
            Err((cancelled, _)) => Err(cancelled).into(),
        })
        .await
    }
}

fn watchers() -> Arc<Watchers> {
    let made = |worker: &Worker| {
        worker.idle.set(Odd::Watchers);
        worker.quiet.watchers.get_or_init(|| Arc::new(WaitQueue::new(()))).clone()
    };
    worker::with(made).unwrap_or_else(|| context::outside("`wait_all_tasks_blocked`"))
}
