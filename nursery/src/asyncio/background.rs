//! What a loop has besides tasks: work in the background, which is no task of anybody, and ends with the loop.

use super::event_loop::Loop;
use super::here::{self, Here};
use crate::scope::CancelScope;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use trefoil_runtime::Cancelled;

/// The scopes of it, by number.
#[derive(Default)]
pub(crate) struct Background {
    running: RefCell<Vec<(u64, CancelScope)>>,
    next: Cell<u64>,
}

impl Background {
    /// Cancels all of it.
    pub fn cancel(&self) {
        let all: Vec<_> = self.running.borrow().iter().map(|(_, scope)| scope.clone()).collect();
        for scope in all {
            scope.cancel();
        }
    }
}

/// Takes it out at its end.
struct Running(Rc<Loop>, u64);

impl Drop for Running {
    fn drop(&mut self) {
        let mut running = self.0.background.running.borrow_mut();
        let at = running.iter().position(|(number, _)| *number == self.1);
        let gone = at.map(|at| running.swap_remove(at));
        drop(running);
        drop(gone);
    }
}

/// Runs something beside the tasks of the loop. It waits as code of the core does, and is cancelled by the scope that is returned, or when
/// the tasks have ended. It goes by the place where somebody asked for what it does.
///
/// # Panics
/// Outside of a loop.
#[doc(hidden)]
pub fn background(place: &'static Location<'static>, body: impl Future<Output = ()> + 'static) -> CancelScope {
    run(&here::running(), body, place)
}

pub(crate) fn run(
    event_loop: &Rc<Loop>,
    body: impl Future<Output = ()> + 'static,
    place: &'static Location<'static>,
) -> CancelScope {
    let scope = CancelScope::at(place);
    let number = event_loop.background.next.replace(event_loop.background.next.get() + 1);
    event_loop.background.running.borrow_mut().push((number, scope.clone()));
    let running = Running(event_loop.clone(), number);
    let inside = scope.clone();
    event_loop.spawn(
        async move {
            let here = Here { event_loop: running.0.clone(), task: None };
            let body = inside.run(async move {
                body.await;
                Ok::<_, Cancelled>(())
            });
            let mut body = pin!(body);
            poll_fn(|cx| {
                let _entered = here::enter(here.clone());
                // It tells futures, and so wakes what is code of others: a panic ends the loop as that of a task does.
                match catch_unwind(AssertUnwindSafe(|| body.as_mut().poll(cx))) {
                    Ok(polled) => polled.map(drop),
                    Err(payload) => {
                        here.event_loop.panicked(payload);
                        Poll::Ready(())
                    }
                }
            })
            .await;
            drop(running);
        },
        place,
    );
    scope
}
