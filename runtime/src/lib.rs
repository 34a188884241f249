//! The loop of Trefoil: tasks, the scope tree, the one blocking primitive, deadlines, clocks and remote wake-up.
//!
//! This crate makes no system call beyond parking. Users want the crate `trefoil`; this one is for who writes a driver or a primitive,
//! and for who reads. Read in this order:
//!
//! 1. [`driver`](Driver): what the loop asks of a reactor, and the driver without I/O
//! 2. `worker`: the loop itself, one page
//! 3. `ready`: tasks and the queue of those that can run
//! 4. `scope` and `tree`: cancellation, shields and deadlines
//! 5. `park`: the one blocking primitive, with the one race between completing and cancelling; `reason`: what for
//! 6. `wait`: queues of waiting operations, from which primitives are made
//! 7. `scope/scoped`: a future that runs in a scope; `scope/edge`: one whose waits can be ended once; `guest`: waits of other vocabularies
//! 8. `task_local`: values that tasks inherit
//! 9. `run_handle`: closures from other threads
//! 10. `look`: what people look with: the task tree, deadlocks, the watchdog, instruments; and what is noted for it
//!
//! Below them: `parker` and `idle` (sleeping, and before it), `time` (the clock, and the wheel of deadlines), `scope/cancelled` and `scope/group` (what an
//! error type must know), `context` (what is being polled right now), `schedule`, `quiet` and `probe` (what tests ask for), `pool` (threads for what
//! blocks), `blocks` (memory that is used again), and `sync` (the switch between `std` and loom, and what two threads meet in).

mod awaited;
mod blind;
mod blocks;
mod context;
mod driver;
mod guest;
#[cfg_attr(trefoil_loom, allow(dead_code))]
mod idle;
mod look;
#[cfg(all(test, not(trefoil_loom)))]
mod no_threads;
mod park;
mod parker;
mod payload;
#[cfg_attr(trefoil_loom, allow(dead_code))]
mod pool;
mod prefetch;
#[doc(hidden)]
pub mod probe;
mod quiet;
mod ready;
mod reason;
mod run_handle;
mod schedule;
mod scope;
pub mod sync;
mod task_local;
mod time;
mod tree;
mod turns;
mod wait;
mod wakers;
#[cfg_attr(trefoil_loom, allow(dead_code))]
mod worker;

pub use awaited::{awaited_at, directory};
pub use context::{
    BUDGET, STRIKES, cancelled_here, locals_differ, locals_in_force, poll_budget, poll_cancelled,
    poll_checkpoint_if_cancelled,
};
pub use driver::{Driver, ThreadDriver, Unpark, nothing_in_flight};
pub use guest::{ChildKey, Ender, GuestWait};
pub use look::deadlock::{BlockedTask, BlockedWait, Deadlock, Detection, WakeSources};
pub use look::holders::{Holder, HolderKey, Holders, Holding, Role, TaskRef, Thing};
#[doc(hidden)]
pub use look::holdings;
pub use look::instrument::{Instrument, InstrumentHandle, Instruments, TaskInfo, add_instrument};
pub use look::livelock::Limits;
pub use look::record::{Ended, Event, Record, Recording, What, record};
#[doc(hidden)]
pub use look::report;
pub use look::snapshot::{HoldView, Metrics, ScopeView, TaskState, TaskView, WaitView};
pub use look::threads::ServiceThread;
pub use look::woken_by::WokenBy;
pub use park::{Abort, Completed, Park, Wait};
pub use payload::{Payload, discard};
pub use pool::{Pool, Runs, Ticket, Work};
pub use quiet::wait_all_tasks_blocked;
pub use ready::{Origin, Outcome, RawJoin, Ready, ReadyBox};
pub use reason::{OfDescriptor, Reason};
pub use run_handle::{Coalesced, RunFinished, RunHandle, run_handle};
pub use schedule::Order;
pub use scope::Scope;
pub use scope::cancelled::{CancelAware, Cancelled, CancelledOrTimedOut, DeadlineAware, ECANCELED, TimedOut};
pub use scope::cause::{Cause, Culprit, Kind, ScopeInfo, Source};
pub use scope::edge::{Edge, told_once};
pub use scope::group::{ErrorGroup, FailedBy, Failure};
pub use scope::placed::{Moved, Placed, PlacedBody, PlacedRoot};
pub use scope::scoped::{Entry, Held, Scoped};
pub use task_local::{Inheriting, TaskLocal, TaskLocalError, TaskLocalScope};
pub use time::clock::{NEVER, after, instant, nanos};
#[doc(hidden)]
pub use time::sleep_forever_at;
pub use time::{Sleep, checkpoint, checkpoint_if_cancelled, now, sleep, sleep_forever, sleep_until, yield_now};
pub use turns::{run, run_instrumented, try_run};
pub use wait::{Guard, Handed, Retracted, Served, Turn, WaitQueue, Waiter};
pub use worker::{Options, driver_address, in_run, with_driver};

/// The time on the clock of the run, in nanoseconds; see [`nanos`].
pub fn now_nanos() -> u64 {
    worker::now()
}

/// The deadline that applies to the code that asks, and whether its scope is cancelled (R47).
#[track_caller]
pub fn current_effective_deadline() -> (u64, bool) {
    let (tree, scope) = current();
    tree.lock().effective_deadline(scope)
}

/// Whether the run on this thread is ended as a deadlock (N10), and cleans up.
pub fn ends_as_deadlock() -> bool {
    look::deadlock::ends()
}

/// Whether the code that asks was asked to stop: by a soft cancel of its scope or one around it, or a hard one. One load.
#[track_caller]
pub fn soft_cancelled() -> bool {
    context::is_soft_cancelled()
}

/// Why the current scope is cancelled, if it is (R5).
#[track_caller]
pub fn current_cause() -> Option<Cause> {
    let (tree, scope) = current();
    if scope.is_cancelled() { tree.lock().cause(scope).map(|cause| Cause::clone(&cause)) } else { None }
}

/// The whole task tree of the run on this thread, at this moment; print it with `{}`. See [`trees`] for other threads.
///
/// # Panics
/// Outside of a run.
///
/// # Examples
/// ```
/// # trefoil_runtime::doc_run(async {
/// let text = trefoil_runtime::tree().to_string();
/// assert!(text.starts_with("run ") && text.ends_with("is running"), "{text}");
/// # });
/// ```
#[track_caller]
pub fn tree() -> ScopeView {
    let (tree, scope) = current();
    look::snapshot::view(tree, |locked| Some(locked.root(scope))).expect("a scope has a root")
}

/// The task trees of all runs of the process, from any thread, also while a loop is stuck in a task; the runs of one program differ by where
/// they were [started](ScopeView::place).
///
/// It looks at one run after the other, for a moment: a few microseconds for ten tasks, and a few milliseconds for ten thousand, in which
/// its tasks cannot begin or end to wait. Where the kernel refuses `membarrier(2)`, it is as exact, and the end of each task costs a little more.
///
/// # Examples
/// ```
/// # trefoil_runtime::doc_run(async {
/// let trees = std::thread::spawn(trefoil_runtime::trees).join().unwrap();
/// assert!(trees.iter().any(|tree| tree.to_string().contains("is running")));
/// # });
/// ```
pub fn trees() -> Vec<ScopeView> {
    tree::Tree::all().into_iter().filter_map(|tree| look::snapshot::view(tree, tree::Locked::run)).collect()
}

/// What the run on this thread has at this moment, in numbers: how a program shows that it left nothing behind.
///
/// # Panics
/// Outside of a run.
///
/// # Examples
/// ```
/// # trefoil_runtime::doc_run(async {
/// let metrics = trefoil_runtime::metrics();
/// assert_eq!((metrics.tasks, metrics.timers, metrics.in_flight), (0, 0, 0));
/// # });
/// ```
#[track_caller]
pub fn metrics() -> Metrics {
    let (tree, scope) = current();
    let (driver, in_flight) = worker::driver_state();
    let locked = tree.lock();
    look::snapshot::count(&locked, locked.root(scope), driver, in_flight)
}

/// What can still wake the run on this thread if every task waits: why it is no deadlock (N10).
///
/// # Panics
/// Outside of a run.
///
/// # Examples
/// ```
/// # trefoil_runtime::doc_run(async {
/// use std::time::Duration;
/// let handle = trefoil_runtime::run_handle();
/// let sources = trefoil_runtime::wake_sources();
/// assert_eq!((sources.timers, sources.in_flight, sources.handles), (0, 0, 1));
/// println!("{sources}"); // "1 run handle"
/// # });
/// ```
#[track_caller]
pub fn wake_sources() -> WakeSources {
    let (tree, _) = current();
    let (_, in_flight) = worker::driver_state();
    let handles = worker::with(|worker| worker.calls.get().map_or(0, run_handle::Calls::handles)).unwrap_or(0);
    let timers = tree.lock().timers();
    WakeSources { timers, in_flight, handles, threads: look::threads::others() }
}

#[track_caller]
fn current<'a>() -> (&'static tree::Tree, &'a Scope) {
    let frame = context::open_frame();
    let Some(tree) = frame.tree else { context::outside("a question about the current scope") };
    // SAFETY: [CURRENT] of the context module: it is current until the caller returns to the loop.
    (tree, unsafe { &*frame.scope })
}

/// Runs a documentation example without I/O.
#[doc(hidden)]
#[track_caller]
pub fn doc_run<F: Future>(main: F) -> F::Output {
    run(std::rc::Rc::new(ThreadDriver::new()), Options::default(), std::panic::Location::caller(), main)
}

/// What the models need to see.
#[cfg(trefoil_loom)]
pub mod model {
    pub use crate::context::*;
    pub use crate::look::onlook::*;
    pub use crate::look::watchdog::Doze;
    pub use crate::park::*;
    pub use crate::parker::*;
    pub use crate::ready::*;
    pub use crate::run_handle::*;
    pub use crate::scope::*;
    pub use crate::sync::biased::*;
    pub use crate::sync::inbox::*;
    pub use crate::sync::waker_slot::*;
    pub use crate::tree::*;
    pub use crate::wait::*;

    use std::ptr;

    /// Calls `f` as the loop does: in a scope of a tree.
    pub fn within<R>(tree: &'static Tree, scope: &Scope, f: impl FnOnce() -> R) -> R {
        let frame = Frame { tree: Some(tree), scope, ..OUTSIDE };
        let _entered = Entered::new(frame);
        f()
    }

    /// Links a scope, as its first poll does. The time is that of the turn.
    ///
    /// # Safety
    /// As for `Scope::link`.
    pub unsafe fn link(scope: &Scope, tree: &'static Tree, parent: Option<&Scope>) {
        let parent = parent.map_or(ptr::null(), ptr::from_ref);
        // SAFETY: the caller's word.
        drop(unsafe { scope.link(tree, parent, ptr::null(), || tree.turn_time()) });
    }

    /// Takes a scope out; whether it absorbs a cancellation.
    pub fn unlink(scope: &Scope) -> bool {
        scope.unlink()
    }

    /// The queue of a worker, whose parent is the worker's parker.
    pub fn worker_queue(tree: &'static Tree) -> ReadyBox {
        ReadyBox::new(Above::Worker(tree), std::panic::Location::caller())
    }

    /// What the worker of a tree sleeps with.
    pub fn parker(tree: &'static Tree) -> &'static Parker {
        &tree.parker
    }

    /// Whom those wait for that wait directly in this scope: the address of the task, and how many waits that has open.
    pub fn tasks_in(tree: &'static Tree, scope: &Scope) -> Vec<(usize, u32)> {
        let locked = tree.lock();
        let waits = locked.waits(scope);
        // SAFETY: [LOCKED]: a task that a linked park names is there.
        waits.iter().map(|wait| (wait.task.addr(), unsafe { wait.task.as_ref() }.map_or(0, Header::waits))).collect()
    }

    /// Frees a tree that was [leaked](Tree::leaked).
    ///
    /// # Safety
    /// Nothing points to it any more.
    pub unsafe fn free_tree(tree: &'static Tree) {
        // SAFETY: it was a box; the caller's word.
        drop(unsafe { Box::from_raw(ptr::from_ref(tree).cast_mut()) });
    }
}
