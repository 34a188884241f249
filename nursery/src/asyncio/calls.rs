//! Callbacks of the loop: [`call_soon`], [`call_later`], [`call_at`].

use super::event_loop::{Loop, call_at as timer_at, cancel_call};
use super::here;
use super::timers::Call;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use trefoil_runtime as runtime;

/// A callback that was asked for, to cancel it. Dropped, it leaves the callback alone.
#[derive(Clone)]
pub struct Handle {
    event_loop: Rc<Loop>,
    call: Rc<Call>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("cancelled", &self.cancelled()).finish_non_exhaustive()
    }
}

impl Handle {
    /// Cancels the callback: it is dropped now, and not called. After it was called nothing happens.
    pub fn cancel(&self) {
        cancel_call(&self.event_loop, &self.call);
    }

    /// Whether it was cancelled.
    pub fn cancelled(&self) -> bool {
        self.call.is_cancelled()
    }

    /// When it is due, on the clock of the run; `None` for one that is called soon.
    pub fn when(&self) -> Option<Instant> {
        runtime::instant(self.call.when())
    }
}

/// Calls `function` in the next turn, behind what was asked for before (O1).
///
/// The function finds the context variables (the task-locals) that are in force here.
///
/// # Panics
/// Outside of a loop. A panic of the function ends the loop.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(trefoil_nursery::asyncio::event_loop(async {
/// # use trefoil_nursery::{Cancelled, asyncio};
/// use std::{cell::Cell, rc::Rc};
/// let called = Rc::new(Cell::new(false));
/// asyncio::call_soon({ let called = called.clone(); move || called.set(true) });
/// assert!(!called.get());
/// asyncio::sleep(std::time::Duration::ZERO).await?;
/// assert!(called.get());
/// # Ok::<(), Cancelled>(())
/// # })).unwrap();
/// ```
#[track_caller]
pub fn call_soon(function: impl FnOnce() + 'static) -> Handle {
    let event_loop = here::running();
    let call = Call::new(runtime::NEVER, Box::new(function));
    let called = call.clone();
    event_loop.call_soon(Location::caller(), move || called.call());
    Handle { event_loop, call }
}

/// Calls `function` after a length of time: with none, behind all that is ready by then (O2). Otherwise as [`call_soon`].
///
/// # Panics
/// As [`call_soon`].
#[track_caller]
pub fn call_later(delay: Duration, function: impl FnOnce() + 'static) -> Handle {
    later(runtime::after(runtime::now_nanos(), delay), function)
}

/// Calls `function` at an instant; one that is past sorts by time as any (O2). Otherwise as [`call_soon`].
///
/// # Panics
/// As [`call_soon`].
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(trefoil_nursery::asyncio::event_loop(async {
/// # use trefoil_nursery::{Cancelled, asyncio, now};
/// use std::time::Duration;
/// let handle = asyncio::call_at(now() + Duration::from_secs(3600), || unreachable!());
/// handle.cancel();
/// # Ok::<(), Cancelled>(())
/// # })).unwrap();
/// ```
#[track_caller]
pub fn call_at(when: Instant, function: impl FnOnce() + 'static) -> Handle {
    later(runtime::nanos(when), function)
}

#[track_caller]
fn later(when: u64, function: impl FnOnce() + 'static) -> Handle {
    let event_loop = here::running();
    let call = timer_at(&event_loop, when, in_context(function));
    Handle { event_loop, call }
}

/// The function, with the task-locals that are in force here.
pub(crate) fn in_context(function: impl FnOnce() + 'static) -> Box<dyn FnOnce()> {
    if !runtime::locals_in_force() {
        return Box::new(function);
    }
    let mut inheriting = Box::pin(runtime::Inheriting::new(Box::pin(async move { function() })));
    Box::new(move || {
        let ended = inheriting.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        debug_assert_eq!(ended, Poll::Ready(()), "a function does not wait");
    })
}
