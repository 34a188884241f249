//! Operations for plain threads, which wait by blocking: the async operation itself, on a run of its own that does nothing else.
//!
//! What can be done at once is done without one. To set up and end such a run costs 0.3 µs where a hand-over between two threads takes 9.

use crate::scope::move_on_after;
use std::future::Future;
use std::panic::Location;
use std::rc::Rc;
use std::time::Duration;
use trefoil_runtime::{self as runtime, Cancelled, Options, ThreadDriver, TimedOut};

/// # Panics
/// Inside of a run: blocking its thread would stop the loop, and with it, as a rule, what is waited for.
#[track_caller]
pub(crate) fn check(blocking: &str, awaited: &str) {
    assert!(
        !runtime::in_run(),
        "`{blocking}` was called on a thread that runs a loop, and would block it: await `{awaited}` there instead"
    );
}

/// Waits on this thread for an operation that could not be done at once. To be called after [`check`].
#[track_caller]
pub(crate) fn wait<F: Future>(operation: F) -> F::Output {
    runtime::run(Rc::new(ThreadDriver::new()), Options::default(), Location::caller(), operation)
}

/// The same, for a length of time at most.
#[track_caller]
pub(crate) fn wait_for<T, F>(limit: Duration, operation: F) -> Result<T, TimedOut>
where
    F: Future<Output = Result<T, Cancelled>>,
{
    let operation = move_on_after(limit, operation);
    uncancelled(wait(operation)).ok_or_else(TimedOut::new)
}

/// No scope is around it, so nobody cancels it.
pub(crate) fn uncancelled<T>(result: Result<T, Cancelled>) -> T {
    result.expect("an operation outside of every scope is not cancelled")
}
