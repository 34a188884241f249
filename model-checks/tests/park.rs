//! The one blocking primitive (`runtime/src/park.rs`): it ends in one way, the waker that was registered last is woken, and nobody
//! touches it after it has published how it ended.
//!
//! Who owns a park frees it as soon as it is over, as a future that was ready does. Who completes it finds it under a lock, as
//! a queue's waiters are found, and wakes after the lock.

use std::cell::{Cell, RefCell};
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

use trefoil_model_checks::{Nest, Run, Woken, model};
use trefoil_runtime::model::{link, tasks_in, unlink};
use trefoil_runtime::sync::Mutex;
use trefoil_runtime::{Abort, Cancelled, Kind, Park, Reason, Scope, Source, Wait};

/// How a wait ended.
type End = Result<(), Cancelled>;

const DONE: &str = "done";
const CANCELLED: &str = "cancelled";

fn name(end: End) -> &'static str {
    if end.is_ok() { DONE } else { CANCELLED }
}

/// One operation that waits in a scope, and where it can be found to be completed.
struct Operation {
    run: Run,
    scope: Pin<Box<Scope>>,
    registry: Mutex<Option<*const Park>>,
    park: RefCell<Option<Pin<Box<Park>>>>,
    first: Woken,
    second: Woken,
}

impl Operation {
    /// It has begun, with the first waker.
    fn new(wait: Wait) -> Self {
        let this = Self {
            run: Run::new(),
            scope: Box::pin(Scope::new(Kind::Scope, Location::caller())),
            registry: Mutex::new(None),
            park: RefCell::new(None),
            first: Woken::new(),
            second: Woken::new(),
        };
        // SAFETY: it is pinned, and unlinked in `end`.
        unsafe { link(&this.scope, this.run.tree, None) };
        let park = Box::pin(Park::new());
        // SAFETY: [OWNER]: the one thread that calls the methods of the owner.
        let began = this.first.poll(|cx| this.run.within(&this.scope, || unsafe { park.as_ref().begin(cx, wait) }));
        assert_eq!(began, Ok(()));
        *this.registry.lock() = Some(&*park);
        *this.park.borrow_mut() = Some(park);
        this
    }

    /// Completes it, if it can be found; whether that decided.
    fn complete(&self) -> bool {
        let found = self.registry.lock();
        // SAFETY: who frees it while it is not done takes it out of the registry first.
        let completed = found.map(|park| unsafe { (*park).complete() });
        drop(found);
        completed.is_some_and(|completed| completed.wake())
    }

    fn cancel(&self) {
        self.scope.cancel(Source::Explicit, Location::caller());
    }

    /// The owner looks. Where the wait is over, the park is freed.
    fn poll(&self, cx: &mut Context<'_>) -> Poll<End> {
        let mut slot = self.park.borrow_mut();
        let park = slot.as_ref().expect("polled after it was over");
        // SAFETY: [OWNER].
        let polled = self.run.within(&self.scope, || unsafe { park.as_ref().poll(cx) });
        let Poll::Ready(end) = polled else { return Poll::Pending };
        if end.is_err() {
            // It may still be found.
            *self.registry.lock() = None;
        }
        *slot = None;
        Poll::Ready(end)
    }

    /// Polls whenever the second waker was woken.
    fn settle(&self) -> End {
        let mut polled = Poll::Pending;
        self.second.settle(|cx| {
            if polled.is_pending() {
                polled = self.poll(cx);
            }
        });
        match polled {
            Poll::Ready(end) => end,
            Poll::Pending => panic!("the waker was lost"),
        }
    }

    fn end(self) {
        assert!(self.park.borrow().is_none());
        unlink(&self.scope);
        assert_eq!((self.first.wakers(), self.second.wakers()), (0, 0), "a waker was kept");
    }
}

fn wait() -> Wait {
    Wait::new(Reason::Custom("a model"))
}

/// Completed while its owner polls with another waker. Seen: whether that poll was the end.
#[test]
fn complete_and_poll() {
    model("park: complete ‖ poll with another waker").check([false, true], |order| {
        let op = Operation::new(wait());
        let (won, polled) = order.race2(|| op.complete(), || op.second.poll(|cx| op.poll(cx)));
        assert!(won);
        let at_once = polled.is_ready();
        let end = match polled {
            Poll::Ready(end) => end,
            Poll::Pending => op.settle(),
        };
        assert_eq!(end, Ok(()));
        op.end();
        at_once
    });
}

/// Cancelled while its owner polls with another waker. Seen: whether that poll was the end.
#[test]
fn cancel_and_poll() {
    model("park: cancel ‖ poll with another waker").check([false, true], |order| {
        let op = Operation::new(wait());
        let ((), polled) = order.race2(|| op.cancel(), || op.second.poll(|cx| op.poll(cx)));
        let at_once = polled.is_ready();
        let end = match polled {
            Poll::Ready(end) => end,
            Poll::Pending => op.settle(),
        };
        assert!(end.is_err());
        op.end();
        at_once
    });
}

/// Completed and cancelled at once, while its owner polls with another waker: R18, R19. Who completes it knows who won. Seen: who,
/// and whether the poll in the race was the end.
#[test]
fn complete_and_cancel_and_poll() {
    let expected = [(DONE, false), (DONE, true), (CANCELLED, false), (CANCELLED, true)];
    model("park: complete ‖ cancel ‖ poll with another waker").three().bound(3).check(expected, |order| {
        let op = Operation::new(wait());
        let (won, (), polled) = order.race3(|| op.complete(), || op.cancel(), || op.second.poll(|cx| op.poll(cx)));
        let at_once = polled.is_ready();
        let end = match polled {
            Poll::Ready(end) => end,
            Poll::Pending => op.settle(),
        };
        assert_eq!(end.is_ok(), won, "both sides think the same");
        op.end();
        (name(end), at_once)
    });
}

/// Two complete it, one wins.
#[test]
fn complete_twice() {
    model("park: complete ‖ complete ‖ poll with another waker").three().bound(3).check(
        [(true, false), (false, true)],
        |order| {
            let op = Operation::new(wait());
            // The owner frees it only at the end: here it can be found for longer than it waits.
            let park: *const Park = &**op.park.borrow().as_ref().unwrap();
            // SAFETY: as above.
            let complete = || unsafe { (*park).complete() }.wake();
            let (a, b, polled) = order.race3(complete, complete, || {
                // SAFETY: [OWNER].
                let park = unsafe { Pin::new_unchecked(&*park) };
                // SAFETY: as above.
                op.second.poll(|cx| op.run.within(&op.scope, || unsafe { park.poll(cx) }))
            });
            match polled {
                Poll::Ready(end) => assert_eq!(end, Ok(())),
                Poll::Pending => assert_eq!(op.settle(), Ok(())),
            }
            *op.park.borrow_mut() = None;
            op.end();
            (a, b)
        },
    );
}

/// Given up while it is completed: the owner takes it out of where it can be found, ends it and frees it, and learns whether it had been
/// completed. Seen: whether it had.
#[test]
fn complete_and_end() {
    model("park: complete ‖ end").check([false, true], |order| {
        let op = Operation::new(wait());
        let (won, done) = order.race2(
            || op.complete(),
            || {
                *op.registry.lock() = None;
                let park = op.park.borrow_mut().take().unwrap();
                // SAFETY: [OWNER].
                unsafe { park.end() }
            },
        );
        assert_eq!(won, done, "both sides think the same");
        op.end();
        done
    });
}

/// Given up, or just dropped, while it is cancelled. Seen: nothing but that it goes away whole.
#[test]
fn cancel_and_end_or_drop() {
    for end in [true, false] {
        let name = if end { "park: cancel ‖ end" } else { "park: cancel ‖ drop" };
        model(name).check([()], move |order| {
            let op = Operation::new(wait());
            order.race2(
                || op.cancel(),
                || {
                    let park = op.park.borrow_mut().take().unwrap();
                    if end {
                        // SAFETY: [OWNER].
                        assert!(!unsafe { park.end() });
                    }
                    drop(park);
                },
            );
            op.end();
        });
    }
}

/// A wait that was moved out of its scope is given up, or just dropped, while the scope is left by another thread, which lets go of it.
/// Seen: nothing but that it goes away whole.
#[test]
fn leave_and_end_or_drop() {
    for end in [true, false] {
        let name = if end { "park: leave the scope ‖ end" } else { "park: leave the scope ‖ drop" };
        model(name).check([()], move |order| {
            let mut op = Operation::new(wait());
            let old = std::mem::replace(&mut op.scope, Box::pin(Scope::new(Kind::Scope, Location::caller())));
            order.race2(
                || unlink(&old),
                || {
                    let park = op.park.borrow_mut().take().unwrap();
                    if end {
                        // SAFETY: [OWNER].
                        assert!(!unsafe { park.end() });
                    }
                    drop(park);
                },
            );
            op.end();
        });
    }
}

/// The same, polled in another scope instead: it belongs to that one, and is not lost. Seen: nothing more.
#[test]
fn leave_and_adopt() {
    model("park: leave the scope ‖ poll in another").check([()], |order| {
        let mut op = Operation::new(wait());
        let old = std::mem::replace(&mut op.scope, Box::pin(Scope::new(Kind::Scope, Location::caller())));
        // SAFETY: it is pinned, and unlinked in `end`.
        unsafe { link(&op.scope, op.run.tree, None) };
        let (_, polled) = order.race2(|| unlink(&old), || op.second.poll(|cx| op.poll(cx)));
        assert!(polled.is_pending());
        op.cancel();
        assert!(op.settle().is_err());
        op.end();
    });
}

/// Given up while it is completed and cancelled. Seen: whether it had been completed.
#[test]
fn complete_and_cancel_and_end() {
    model("park: complete ‖ cancel ‖ end").three().bound(3).check([false, true], |order| {
        let op = Operation::new(wait());
        let (won, (), done) = order.race3(
            || op.complete(),
            || op.cancel(),
            || {
                *op.registry.lock() = None;
                let park = op.park.borrow_mut().take().unwrap();
                // SAFETY: [OWNER].
                unsafe { park.end() }
            },
        );
        assert_eq!(won, done, "both sides think the same");
        op.end();
        done
    });
}

/// A wait that only its owner can end (`Abort::Ask`): a cancel asks for that, and a completion that comes meanwhile stands. Seen:
/// whether the poll in the race was the end.
#[test]
fn complete_and_ask_and_poll() {
    model("park: complete ‖ ask ‖ poll with another waker").three().bound(3).check([false, true], |order| {
        let op = Operation::new(Wait { abort: Abort::Ask, ..wait() });
        let (won, (), polled) = order.race3(|| op.complete(), || op.cancel(), || op.second.poll(|cx| op.poll(cx)));
        assert!(won, "a cancel that asks does not decide");
        let at_once = polled.is_ready();
        let end = match polled {
            Poll::Ready(end) => end,
            Poll::Pending => op.settle(),
        };
        assert_eq!(end, Ok(()));
        op.end();
        at_once
    });
}

/// The same without a completion: the owner, with another waker, learns of the request in the poll or is woken for it. Then it ends
/// the wait itself. Seen: whether it found the request at once.
#[test]
fn ask_and_poll() {
    model("park: ask ‖ poll with another waker").check([false, true], |order| {
        let op = Operation::new(Wait { abort: Abort::Ask, ..wait() });
        let asked = || op.park.borrow().as_ref().unwrap().cancel_asked();
        let ((), at_once) = order.race2(
            || op.cancel(),
            || {
                assert!(op.second.poll(|cx| op.poll(cx)).is_pending());
                asked()
            },
        );
        let mut found = at_once;
        op.second.settle(|cx| {
            found |= asked();
            assert!(op.poll(cx).is_pending());
        });
        assert!(found, "the request was lost");
        assert!(asked());
        assert!(op.complete());
        assert_eq!(op.second.poll(|cx| op.poll(cx)), Poll::Ready(Ok(())));
        op.end();
        at_once
    });
}

/// Asked while its owner completes it itself, as the completion of the kernel does, on its own thread. Seen: whether the request came in
/// time.
#[test]
fn ask_and_complete_by_the_owner() {
    model("park: ask ‖ complete and free").check([false, true], |order| {
        let op = Operation::new(Wait { abort: Abort::Ask, ..wait() });
        let ((), asked) = order.race2(
            || op.cancel(),
            || {
                assert!(op.complete());
                let asked = op.park.borrow().as_ref().unwrap().cancel_asked();
                assert_eq!(op.first.poll(|cx| op.poll(cx)), Poll::Ready(Ok(())));
                asked
            },
        );
        op.end();
        asked
    });
}

/// The deadline of a wait comes up, in the loop, while it is completed from elsewhere and its owner, on a third thread, polls it. Either
/// way it is done, once. Seen: whether the other thread completed it, and whether the poll in the race was the end.
#[test]
fn expire_and_complete_and_poll() {
    let expected = [(false, false), (false, true), (true, false), (true, true)];
    model("park: expire ‖ complete ‖ poll with another waker").three().bound(3).check(expected, |order| {
        let op = Operation::new(Wait { until: 5, ..wait() });
        // What can be found is completed while it is there: the owner takes it out before it frees it.
        let poll = |cx: &mut Context<'_>| {
            let mut slot = op.park.borrow_mut();
            let park = slot.as_ref().unwrap();
            // SAFETY: [OWNER].
            let polled = op.run.within(&op.scope, || unsafe { park.as_ref().poll(cx) });
            if polled.is_ready() {
                *op.registry.lock() = None;
                *slot = None;
            }
            polled
        };
        let (_, won, polled) =
            order.race3(|| assert!(op.run.tree.lock().expire(10) <= 1), || op.complete(), || op.second.poll(poll));
        let at_once = polled.is_ready();
        let mut polled = polled;
        op.second.settle(|cx| {
            if polled.is_pending() {
                polled = poll(cx);
            }
        });
        assert_eq!(polled, Poll::Ready(Ok(())), "the waker was lost");
        assert_eq!(op.run.tree.lock().next_deadline(), u64::MAX);
        op.end();
        (won, at_once)
    });
}

/// A wait is polled in another scope than before, while the old one is cancelled and it is completed. From then on it belongs to the
/// new scope. Seen: how it ended.
#[test]
fn adopt_and_cancel_and_complete() {
    let expected = [(DONE, true), (CANCELLED, false)];
    model("park: complete ‖ cancel the old scope ‖ poll in another").three().bound(3).check(expected, |order| {
        let mut op = Operation::new(wait());
        let old = std::mem::replace(&mut op.scope, Box::pin(Scope::new(Kind::Scope, Location::caller())));
        // SAFETY: it is pinned, and unlinked in `end`.
        unsafe { link(&op.scope, op.run.tree, None) };
        let (won, (), polled) = order.race3(
            || op.complete(),
            || old.cancel(Source::Explicit, Location::caller()),
            || op.second.poll(|cx| op.poll(cx)),
        );
        let end = match polled {
            Poll::Ready(end) => end,
            Poll::Pending => op.settle(),
        };
        assert_eq!(end.is_ok(), won);
        unlink(&old);
        op.end();
        (name(end), won)
    });
}

/// The same, into a scope that is cancelled meanwhile: it is told. Seen: whether the poll was the end.
#[test]
fn adopt_into_a_scope_that_is_cancelled() {
    model("park: cancel the new scope ‖ poll in it").check([false, true], |order| {
        let mut op = Operation::new(wait());
        let old = std::mem::replace(&mut op.scope, Box::pin(Scope::new(Kind::Scope, Location::caller())));
        // SAFETY: it is pinned, and unlinked in `end`.
        unsafe { link(&op.scope, op.run.tree, None) };
        let ((), polled) = order.race2(|| op.cancel(), || op.second.poll(|cx| op.poll(cx)));
        let at_once = polled.is_ready();
        let end = match polled {
            Poll::Ready(end) => end,
            Poll::Pending => op.settle(),
        };
        assert!(end.is_err());
        unlink(&old);
        op.end();
        at_once
    });
}

/// Somebody looks whom a wait is for, under the lock, while it is completed without the lock, and its task polls it with the waker of a combinator, which
/// comes between the two. Seen: whether it was there for who looked, and whether the poll was the end.
#[test]
fn look_and_complete_and_poll() {
    let expected = [(false, true), (true, false), (true, true)];
    model("park: look ‖ complete ‖ poll with a combinator's waker").three().bound(2).check(expected, |order| {
        let run = Run::new();
        let park = Box::pin(Park::new());
        let (between, own, at_once) = (Woken::new(), RefCell::new(None), Cell::new(None));
        let mut nest = Nest::new();
        // SAFETY: it is pinned, and unlinked below.
        unsafe { link(&nest.scope, run.tree, None) };
        drop(nest.spawn(|cx| {
            let is_first = own.borrow().is_none();
            if is_first {
                // Once more in the next turn.
                cx.waker().wake_by_ref();
                *own.borrow_mut() = Some(cx.waker().clone());
                // SAFETY: [OWNER].
                assert_eq!(unsafe { park.as_ref().begin(cx, wait()) }, Ok(()));
                return Poll::Pending;
            }
            // SAFETY: [OWNER].
            let polled = between.poll(|cx| unsafe { park.as_ref().poll(cx) });
            at_once.set(at_once.get().or(Some(polled.is_ready())));
            polled.map(|end| u32::from(end.is_ok()))
        }));
        let scope: *const Scope = &*nest.scope;
        // SAFETY: it is there until the end.
        let scope = unsafe { &*scope };
        run.within(scope, || nest.run());
        let waker = own.borrow().clone().unwrap();
        let waits = vec![(waker.data().addr(), 1)];
        assert_eq!(tasks_in(run.tree, scope), waits);
        let (seen, won, ()) = order.race3(
            || tasks_in(run.tree, scope),
            || park.as_ref().complete().wake(),
            || run.within(scope, || nest.run()),
        );
        assert!(won && (seen.is_empty() || seen == waits));
        between.settle(|_| {
            waker.wake_by_ref();
            run.within(scope, || nest.settle());
        });
        assert_eq!((nest.live(), between.wakers()), (0, 0), "the waker was lost, or kept");
        drop((waker, own.take()));
        run.within(scope, || nest.tear_down());
        nest.assert_gone();
        unlink(scope);
        (!seen.is_empty(), at_once.get().unwrap())
    });
}

/// The same while its task ends, and the wait lives on elsewhere: nobody uses the address of what is freed. Then another one polls it. Seen: whether the
/// task was still there for who looked.
#[test]
fn look_and_complete_and_end_of_the_task() {
    model("park: look ‖ complete ‖ end of the task").three().bound(2).check([false, true], |order| {
        let run = Run::new();
        let park = Box::pin(Park::new());
        let (later, task) = (Woken::new(), Cell::new(None));
        let mut nest = Nest::new();
        // SAFETY: it is pinned, and unlinked below.
        unsafe { link(&nest.scope, run.tree, None) };
        drop(nest.spawn(|cx| {
            if task.replace(Some(cx.waker().data().addr())).is_some() {
                return Poll::Ready(1);
            }
            cx.waker().wake_by_ref();
            // SAFETY: [OWNER].
            assert_eq!(unsafe { park.as_ref().begin(cx, wait()) }, Ok(()));
            Poll::Pending
        }));
        let scope: *const Scope = &*nest.scope;
        // SAFETY: it is there until the end.
        let scope = unsafe { &*scope };
        run.within(scope, || nest.run());
        let (seen, won, ()) = order.race3(
            || tasks_in(run.tree, scope),
            || park.as_ref().complete().wake(),
            || run.within(scope, || nest.run()),
        );
        assert!(won && nest.live() == 0);
        let there = seen == [(task.get().unwrap(), 1)];
        assert!(there || seen == [(0, 0)]);
        assert_eq!(tasks_in(run.tree, scope), [(0, 0)]);
        // SAFETY: [OWNER].
        let polled = later.poll(|cx| run.within(scope, || unsafe { park.as_ref().poll(cx) }));
        assert_eq!(polled, Poll::Ready(Ok(())));
        run.within(scope, || nest.tear_down());
        nest.assert_gone();
        unlink(scope);
        there
    });
}

/// Moved from a task to another one of the same queue, which has its own waker, while it is completed and somebody looks.
#[test]
fn move_to_another_task_and_complete_and_look() {
    let expected = [(0, false), (0, true), (1, false), (1, true), (2, false), (2, true)];
    model("park: look ‖ complete ‖ poll by another task").three().bound(2).check(expected, |order| {
        let run = Run::new();
        let park = Box::pin(Park::new());
        let (first, second, at_once) = (Cell::new(None), RefCell::new(None), Cell::new(None));
        let over = Cell::new(false);
        let mut nest = Nest::new();
        // SAFETY: it is pinned, and unlinked below.
        unsafe { link(&nest.scope, run.tree, None) };
        drop(nest.spawn(|cx| {
            if first.get().is_none() {
                first.set(Some(cx.waker().data().addr()));
                // SAFETY: [OWNER].
                assert_eq!(unsafe { park.as_ref().begin(cx, wait()) }, Ok(()));
                return Poll::Pending;
            }
            if over.get() { Poll::Ready(1) } else { Poll::Pending }
        }));
        drop(nest.spawn(|cx| {
            if second.borrow().is_none() {
                cx.waker().wake_by_ref();
                *second.borrow_mut() = Some(cx.waker().clone());
                return Poll::Pending;
            }
            // SAFETY: [OWNER].
            let polled = unsafe { park.as_ref().poll(cx) };
            at_once.set(at_once.get().or(Some(polled.is_ready())));
            polled.map(|end| u32::from(end.is_ok()))
        }));
        let scope: *const Scope = &*nest.scope;
        // SAFETY: it is there until the end.
        let scope = unsafe { &*scope };
        run.within(scope, || nest.run());
        let waker = second.borrow().clone().unwrap();
        let (a, b) = (first.get().unwrap(), waker.data().addr());
        let (seen, won, ()) = order.race3(
            || tasks_in(run.tree, scope),
            || park.as_ref().complete().wake(),
            || run.within(scope, || nest.run()),
        );
        assert!(won);
        let seen = match &seen[..] {
            [] => 0,
            [(task, 1)] if *task == a => 1,
            [(task, 1)] if *task == b => 2,
            other => panic!("{other:?} of {a} {b}"),
        };
        run.within(scope, || nest.settle());
        assert_eq!(nest.live(), 1, "the waker was lost");
        assert!(tasks_in(run.tree, scope).is_empty());
        over.set(true);
        drop((waker, second.take()));
        run.within(scope, || nest.tear_down());
        nest.assert_gone();
        unlink(scope);
        (seen, at_once.get().unwrap())
    });
}

/// The same in a cancelled scope, with the waker of a combinator: the task is not cut as one that waits for nothing known (N13).
#[test]
fn move_to_another_task_and_complete_and_cancel() {
    let expected = [(true, false), (true, true), (false, false), (false, true)];
    model("park: cancel ‖ complete ‖ poll by another task").three().bound(2).check(expected, |order| {
        let run = Run::new();
        let park = Box::pin(Park::new());
        let (between, other) = (Woken::new(), Woken::new());
        let (first, second, at_once) = (Cell::new(false), RefCell::new(None), Cell::new(None));
        let mut nest = Nest::new();
        // SAFETY: it is pinned, and unlinked below.
        unsafe { link(&nest.scope, run.tree, None) };
        drop(nest.spawn(|_| {
            if !first.replace(true) {
                // SAFETY: [OWNER].
                assert_eq!(between.poll(|cx| unsafe { park.as_ref().begin(cx, wait()) }), Ok(()));
            }
            Poll::Pending
        }));
        drop(nest.spawn(|cx| {
            if second.borrow().is_none() {
                cx.waker().wake_by_ref();
                *second.borrow_mut() = Some(cx.waker().clone());
                return Poll::Pending;
            }
            // SAFETY: [OWNER].
            let polled = other.poll(|cx| unsafe { park.as_ref().poll(cx) });
            at_once.set(at_once.get().or(Some(polled.is_ready())));
            polled.map(|end| u32::from(end.is_ok()))
        }));
        let scope: *const Scope = &*nest.scope;
        // SAFETY: it is there until the end.
        let scope = unsafe { &*scope };
        run.within(scope, || nest.run());
        let waker = second.borrow().clone().unwrap();
        let ((), won, ()) = order.race3(
            || scope.cancel(Source::Explicit, Location::caller()),
            || park.as_ref().complete().wake(),
            || run.within(scope, || nest.run()),
        );
        other.settle(|_| {
            waker.wake_by_ref();
            run.within(scope, || nest.run());
        });
        assert_eq!(nest.live(), 1, "the waker was lost");
        assert_eq!((between.wakers(), other.wakers()), (0, 0));
        assert!(tasks_in(run.tree, scope).is_empty());
        drop((waker, second.take()));
        run.within(scope, || nest.tear_down());
        nest.assert_gone();
        unlink(scope);
        (won, at_once.get().unwrap())
    });
}
