//! Scopes that are changed from another thread (`runtime/src/scope.rs`, `tree.rs`) while an operation begins in them, while they are
//! linked, and while they are left: a cancel that has returned has reached everything (R15), and what is begun later is refused.

use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use trefoil_model_checks::{Run, Woken, model};
use trefoil_runtime::model::{link, unlink};
use trefoil_runtime::{Cancelled, Entry, Kind, Park, Reason, Scope, Scoped, Source, Wait};

fn scope() -> Arc<Scope> {
    Arc::new(Scope::new(Kind::Scope, Location::caller()))
}

fn cancel(scope: &Scope) {
    scope.cancel(Source::Explicit, Location::caller());
}

/// Links a scope. Each model unlinks it.
fn enter(scope: &Scope, run: &Run, parent: Option<&Scope>) {
    // SAFETY: in an `Arc` it does not move; unlinked at the end.
    unsafe { link(scope, run.tree, parent) }
}

/// A deadline far away, on the clock of every run.
const FAR: u64 = 1 << 62;

/// A length of time that is not over before the model is.
const HOUR: Duration = Duration::from_secs(3600);

/// An operation that begins in the midst of a race.
struct Operation {
    park: Pin<Box<Park>>,
    woken: Woken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    /// It was refused.
    Refused,
    /// It began, and was aborted.
    Aborted,
    /// It began, and waits.
    Waits,
}

impl Operation {
    fn new() -> Self {
        Self { park: Box::pin(Park::new()), woken: Woken::new() }
    }

    fn begin(&self, run: &Run, scope: &Scope) -> Result<(), Cancelled> {
        let wait = Wait::new(Reason::Custom("a model"));
        // SAFETY: [OWNER]: one thread.
        self.woken.poll(|cx| run.within(scope, || unsafe { self.park.as_ref().begin(cx, wait) }))
    }

    /// What became of it, when all is over.
    fn end(self, began: Result<(), Cancelled>, run: &Run, scope: &Scope) -> Seen {
        let seen = match began {
            Err(_) => {
                assert!(!self.woken.take() && !self.park.is_active());
                Seen::Refused
            }
            Ok(()) => {
                let woken = self.woken.take();
                // SAFETY: [OWNER].
                let polled = self.woken.poll(|cx| run.within(scope, || unsafe { self.park.as_ref().poll(cx) }));
                assert_eq!(woken, polled.is_ready(), "it is woken if it is over");
                // SAFETY: [OWNER].
                unsafe { self.park.end() };
                match polled {
                    Poll::Ready(Err(_)) => Seen::Aborted,
                    Poll::Ready(Ok(())) => panic!("nobody completed it"),
                    Poll::Pending => Seen::Waits,
                }
            }
        };
        drop(self.park);
        assert_eq!(self.woken.wakers(), 0);
        seen
    }
}

/// A cancel while an operation begins. Seen: what became of it.
#[test]
fn cancel_and_begin() {
    model("cancel: cancel ‖ begin").check([Seen::Refused, Seen::Aborted], |order| {
        let (run, scope, op) = (Run::new(), scope(), Operation::new());
        enter(&scope, &run, None);
        let ((), began) = order.race2(|| cancel(&scope), || op.begin(&run, &scope));
        let seen = op.end(began, &run, &scope);
        assert!(scope.is_cancelled() && scope.cause().is_some());
        assert!(unlink(&scope));
        seen
    });
}

/// A scope is cancelled by its handle while it is entered for the first time and an operation begins in it. Seen: what became of
/// that.
#[test]
fn cancel_and_enter() {
    model("cancel: cancel ‖ link, begin").check([Seen::Refused, Seen::Aborted], |order| {
        let (run, scope, op) = (Run::new(), scope(), Operation::new());
        let ((), began) = order.race2(
            || cancel(&scope),
            || {
                enter(&scope, &run, None);
                op.begin(&run, &scope)
            },
        );
        let seen = op.end(began, &run, &scope);
        assert!(scope.is_cancelled() && scope.cause().is_some());
        assert!(unlink(&scope));
        seen
    });
}

/// A scope is cancelled while a child scope is entered in it and an operation begins in that. Seen: what became of that.
#[test]
fn cancel_and_enter_a_child() {
    model("cancel: cancel the parent ‖ link a child, begin").check([Seen::Refused, Seen::Aborted], |order| {
        let (run, parent, child, op) = (Run::new(), scope(), scope(), Operation::new());
        enter(&parent, &run, None);
        let ((), began) = order.race2(
            || cancel(&parent),
            || {
                enter(&child, &run, Some(&parent));
                op.begin(&run, &child)
            },
        );
        let seen = op.end(began, &run, &child);
        assert!(child.is_cancelled() && child.cause().is_some());
        assert!(!unlink(&child), "it is its parent that is cancelled");
        assert!(unlink(&parent));
        seen
    });
}

/// A shield is raised by a handle while the parent is cancelled and the child is entered. In the end nothing is cancelled under the
/// shield, whatever was aborted before. Seen: what became of an operation.
#[test]
fn raise_a_shield_and_cancel_and_enter() {
    let expected = [Seen::Refused, Seen::Aborted, Seen::Waits];
    model("cancel: raise ‖ cancel the parent ‖ link a child, begin").three().bound(3).check(expected, |order| {
        let (run, parent, child, op) = (Run::new(), scope(), scope(), Operation::new());
        enter(&parent, &run, None);
        let ((), (), began) = order.race3(
            || child.set_shield(true),
            || cancel(&parent),
            || {
                enter(&child, &run, Some(&parent));
                op.begin(&run, &child)
            },
        );
        assert!(parent.is_cancelled() && !child.is_cancelled());
        let seen = op.end(began, &run, &child);
        assert!(!unlink(&child));
        unlink(&parent);
        seen
    });
}

/// A shield is lowered by a handle while the parent is cancelled and an operation begins under it. In the end it is refused or aborted.
/// Seen: which.
#[test]
fn lower_a_shield_and_cancel_and_begin() {
    model("cancel: lower ‖ cancel the parent ‖ begin").three().bound(3).check(
        [Seen::Refused, Seen::Aborted],
        |order| {
            let (run, parent, child, op) = (Run::new(), scope(), scope(), Operation::new());
            child.set_shield(true);
            enter(&parent, &run, None);
            enter(&child, &run, Some(&parent));
            let ((), (), began) =
                order.race3(|| child.set_shield(false), || cancel(&parent), || op.begin(&run, &child));
            assert!(child.is_cancelled());
            let seen = op.end(began, &run, &child);
            unlink(&child);
            unlink(&parent);
            seen
        },
    );
}

/// The same while the shielded child is entered.
#[test]
fn lower_a_shield_and_enter() {
    model("cancel: lower ‖ link a child, begin").check([Seen::Refused, Seen::Aborted], |order| {
        let (run, parent, child, op) = (Run::new(), scope(), scope(), Operation::new());
        child.set_shield(true);
        enter(&parent, &run, None);
        cancel(&parent);
        let ((), began) = order.race2(
            || child.set_shield(false),
            || {
                enter(&child, &run, Some(&parent));
                op.begin(&run, &child)
            },
        );
        assert!(child.is_cancelled());
        let seen = op.end(began, &run, &child);
        unlink(&child);
        unlink(&parent);
        seen
    });
}

/// A handle cancels a scope while it is left. Seen: whether the scope absorbed that, and whether it is known to have been cancelled.
#[test]
fn cancel_and_leave() {
    let expected = [(false, true), (true, true)];
    model("cancel: cancel ‖ unlink, free").check(expected, |order| {
        let (run, scope) = (Run::new(), scope());
        enter(&scope, &run, None);
        let handle = scope.clone();
        let ((), absorbed) = order.race2(
            || {
                cancel(&handle);
                drop(handle);
            },
            || unlink(&scope),
        );
        assert_eq!(Arc::strong_count(&scope), 1);
        (absorbed, scope.cancel_called(|| 0))
    });
}

/// A parent is cancelled while a child, with an operation, is left and freed. Seen: whether the operation was aborted.
#[test]
fn cancel_and_leave_a_child() {
    model("cancel: cancel the parent ‖ end, unlink a child, free").check([false, true], |order| {
        let (run, parent, child, op) = (Run::new(), scope(), scope(), Operation::new());
        enter(&parent, &run, None);
        enter(&child, &run, Some(&parent));
        assert_eq!(op.begin(&run, &child), Ok(()));
        let woken = op.woken.clone();
        order.race2(
            || cancel(&parent),
            || {
                drop(op);
                assert!(!unlink(&child));
                drop(child);
            },
        );
        assert!(unlink(&parent));
        assert_eq!(woken.wakers(), 0);
        woken.take()
    });
}

/// A scope is cancelled while a child scope without handles is opened in it, by a poll that is pending, and is left again. Seen: whether that poll found
/// the cancel and cut the body, which waits for nothing of ours (N13), and whether the waker of the body was woken: not both, and one of them where the
/// child stays open.
fn cancel_and_open(name: &'static str, stays: bool, outcomes: &[(bool, bool)]) {
    model(name).check(outcomes.iter().copied(), move |order| {
        let (run, parent, woken) = (Run::new(), scope(), Woken::new());
        enter(&parent, &run, None);
        let body = std::future::pending::<()>();
        let mut child = Some(Box::pin(Scoped::own(Kind::Scope, Location::caller(), Some(HOUR), body)));
        let ((), cut) = order.race2(
            || cancel(&parent),
            || {
                let mut poll = |cx: &mut Context<'_>| child.as_mut().expect("it is there").as_mut().poll_body(cx);
                let cut = woken.poll(|cx| run.within(&parent, || poll(cx))).is_ready();
                child = child.take().filter(|_| stays);
                cut
            },
        );
        drop(child);
        let told = woken.take();
        assert!(cut || told || !stays, "the cancel was lost");
        assert_eq!(run.tree.lock().next_deadline(), u64::MAX, "a scope that is gone has a deadline");
        assert!(unlink(&parent));
        assert_eq!(woken.wakers(), 0);
        (cut, told)
    });
}

#[test]
fn cancel_and_open_a_child() {
    let outcomes = [(false, true), (true, false)];
    cancel_and_open("cancel: cancel the parent ‖ open a child without handles", true, &outcomes);
}

#[test]
fn cancel_and_open_and_leave_a_child() {
    let outcomes = [(false, false), (false, true), (true, false)];
    cancel_and_open("cancel: cancel the parent ‖ open and leave a child without handles", false, &outcomes);
}

// ---- Deadlines -----------------------------------------------------------------------------------------------------

/// A deadline is set by a handle while the scope is entered. In the end the loop knows of it. Seen: nothing else.
#[test]
fn set_a_deadline_and_enter() {
    model("deadline: set ‖ link").check([()], |order| {
        let (run, scope) = (Run::new(), scope());
        order.race2(|| scope.set_deadline(50), || enter(&scope, &run, None));
        assert_eq!((scope.deadline(), run.tree.lock().next_deadline()), (50, 50));
        assert!(!scope.is_cancelled());
        unlink(&scope);
        assert_eq!(run.tree.lock().next_deadline(), u64::MAX);
    });
}

/// One that has passed is. Seen: whether the scope was cancelled at once, as entering it does, or by the loop.
#[test]
fn set_a_deadline_that_has_passed_and_enter() {
    model("deadline: set a passed one ‖ link").check([false, true], |order| {
        let (run, scope) = (Run::new(), scope());
        run.tree.set_turn_time(100);
        order.race2(|| scope.set_deadline(50), || enter(&scope, &run, None));
        let at_once = scope.is_cancelled();
        run.tree.lock().expire(100);
        assert!(scope.is_cancelled());
        assert_eq!(scope.cause().unwrap().source, Source::Deadline);
        assert_eq!(run.tree.lock().next_deadline(), u64::MAX);
        unlink(&scope);
        at_once
    });
}

/// One is set while the scope is left. In the end the loop knows nothing of a scope that is gone. Seen: nothing else.
#[test]
fn set_a_deadline_and_leave() {
    model("deadline: set ‖ unlink").check([()], |order| {
        let (run, scope) = (Run::new(), scope());
        enter(&scope, &run, None);
        order.race2(|| scope.set_deadline(50), || unlink(&scope));
        assert_eq!(run.tree.lock().next_deadline(), u64::MAX);
    });
}

/// Two set the deadline, and the loop looks for the next. In the end it finds that which stayed. Seen: what stayed, and what the
/// loop found in the midst of it.
#[test]
fn set_two_deadlines() {
    let mut expected = Vec::new();
    for last in [30, 70] {
        for looked in [30, 50, 70] {
            expected.push((last, looked));
        }
    }
    model("deadline: set ‖ set ‖ look").three().bound(3).check(expected, |order| {
        let (run, scope) = (Run::new(), scope());
        scope.set_deadline(50);
        enter(&scope, &run, None);
        let ((), (), looked) =
            order.race3(|| scope.set_deadline(30), || scope.set_deadline(70), || run.tree.lock().next_deadline());
        let last = scope.deadline();
        assert_eq!(run.tree.lock().next_deadline(), last);
        unlink(&scope);
        (last, looked)
    });
}

/// A deadline is taken away by a handle while the loop finds it passed, and a third thread sets it. Seen: whether the scope was cancelled, and
/// the deadline that stayed, if it was not.
#[test]
fn take_a_deadline_away_and_expire() {
    let expected = [(false, 80), (false, u64::MAX), (true, 0)];
    model("deadline: none ‖ later ‖ expire").three().bound(3).check(expected, |order| {
        let (run, scope) = (Run::new(), scope());
        scope.set_deadline(50);
        enter(&scope, &run, None);
        let ((), (), _) =
            order.race3(|| scope.set_deadline(u64::MAX), || scope.set_deadline(80), || run.tree.lock().expire(60));
        let cancelled = scope.is_cancelled();
        let next = run.tree.lock().next_deadline();
        if cancelled {
            assert_eq!(next, u64::MAX);
        } else {
            assert_eq!(next, scope.deadline());
        }
        unlink(&scope);
        (cancelled, if cancelled { 0 } else { next })
    });
}

// ---- Scopes that move ----------------------------------------------------------------------------------------------

/// A future in a scope was polled in one run, and is polled in another now.
struct Moved {
    from: Run,
    to: Run,
    old: Arc<Scope>,
    new: Arc<Scope>,
    scope: Arc<Scope>,
    entry: Entry<Arc<Scope>>,
    woken: Woken,
}

impl Moved {
    /// It has been polled in the first.
    fn new() -> Self {
        let (from, to, old, new, scope) = (Run::new(), Run::new(), scope(), scope(), scope());
        enter(&old, &from, None);
        enter(&new, &to, None);
        // SAFETY: an `Arc` keeps it in place.
        let mut entry = unsafe { Entry::new(scope.clone()) };
        let woken = Woken::new();
        woken.poll(|cx| from.within(&old, || entry.enter(cx)));
        Self { from, to, old, new, scope, entry, woken }
    }

    fn end(mut self) {
        self.entry.leave();
        unlink(&self.old);
        unlink(&self.new);
        for run in [&self.from, &self.to] {
            assert_eq!(run.tree.lock().next_deadline(), u64::MAX, "a scope that is gone has a deadline");
        }
        assert_eq!(self.woken.wakers(), 0);
    }
}

/// Its deadline is set by a handle meanwhile. In the end the second run knows of it, and the first does not.
#[test]
fn set_a_deadline_and_move() {
    model("moved: set a deadline ‖ enter in another run").bound(2).check([()], |order| {
        let mut moved = Moved::new();
        let (scope, to, new) = (&moved.scope, &moved.to, &moved.new);
        let (entry, woken) = (&mut moved.entry, &moved.woken);
        order.race2(|| scope.set_deadline(FAR), || woken.poll(|cx| to.within(new, || entry.enter(cx))));
        assert_eq!(moved.from.tree.lock().next_deadline(), u64::MAX);
        assert_eq!(moved.to.tree.lock().next_deadline(), FAR);
        moved.end();
    });
}

/// It is cancelled by a handle meanwhile. Seen: whether its waker was woken for it; else the poll that moved it sees it.
#[test]
fn cancel_and_move() {
    model("moved: cancel ‖ enter in another run").bound(2).check(
        [(false, true), (true, false), (true, true)],
        |order| {
            let mut moved = Moved::new();
            let (scope, to, new) = (&moved.scope, &moved.to, &moved.new);
            let (entry, woken) = (&mut moved.entry, &moved.woken);
            let ((), seen) = order.race2(
                || cancel(scope),
                || {
                    woken.poll(|cx| to.within(new, || entry.enter(cx)));
                    scope.is_cancelled()
                },
            );
            assert!(moved.scope.is_cancelled() && moved.scope.cause().is_some());
            let woken = moved.woken.take();
            assert!(seen || woken, "the cancel was lost");
            moved.end();
            (woken, seen)
        },
    );
}

/// It is shielded by a handle meanwhile, and the scope that it moves into is cancelled. In the end it is not.
#[test]
fn shield_and_move() {
    model("moved: raise ‖ enter in another run").bound(2).check([()], |order| {
        let mut moved = Moved::new();
        cancel(&moved.new);
        let (scope, to, new) = (&moved.scope, &moved.to, &moved.new);
        let (entry, woken) = (&mut moved.entry, &moved.woken);
        order.race2(|| scope.set_shield(true), || woken.poll(|cx| to.within(new, || entry.enter(cx))));
        assert!(!moved.scope.is_cancelled());
        moved.end();
    });
}

/// The scope that it comes from is cancelled and left meanwhile, by the other run's thread.
#[test]
fn leave_and_move() {
    model("moved: cancel and unlink the old parent ‖ enter in another run").check([false, true], |order| {
        let mut moved = Moved::new();
        let (old, scope, to, new) = (&moved.old, &moved.scope, &moved.to, &moved.new);
        let (entry, woken) = (&mut moved.entry, &moved.woken);
        order.race2(
            || {
                cancel(old);
                unlink(old);
            },
            || woken.poll(|cx| to.within(new, || entry.enter(cx))),
        );
        assert!(!scope.is_cancelled(), "it belongs to the scope that polls it");
        let woken = moved.woken.take();
        moved.end();
        woken
    });
}
