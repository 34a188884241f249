//! The handle of a child (`runtime/src/ready/join.rs`), used on another thread than the child's: whoever waits is woken, and the
//! value is dropped once, by whoever has it last.

use std::cell::RefCell;
use std::panic::Location;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use trefoil_model_checks::{Nest, Run, Value, Woken, model};
use trefoil_runtime::model::{link, unlink};
use trefoil_runtime::{Cancelled, Kind, RawJoin, Scope, Source};

/// Somebody who waits for a child, in a run of their own.
struct Joiner {
    run: Run,
    scope: Pin<Box<Scope>>,
    woken: Woken,
}

impl Joiner {
    fn new() -> Self {
        let run = Run::new();
        let scope = Box::pin(Scope::new(Kind::Scope, Location::caller()));
        // SAFETY: it is pinned, and unlinked in `end`.
        unsafe { link(&scope, run.tree, None) };
        Self { run, scope, woken: Woken::new() }
    }

    fn poll(&self, join: &mut RawJoin<Value>) -> Poll<Result<Option<Value>, Cancelled>> {
        self.woken.poll(|cx| self.poll_with(join, cx))
    }

    fn poll_with(&self, join: &mut RawJoin<Value>, cx: &mut Context<'_>) -> Poll<Result<Option<Value>, Cancelled>> {
        self.run.within(&self.scope, || join.poll(cx, |spawned| spawned))
    }

    /// What a wait comes to in the end, if it is polled whenever it is woken.
    fn settle(&self, join: &mut RawJoin<Value>) -> Result<Option<Value>, Cancelled> {
        let mut polled = Poll::Pending;
        self.woken.settle(|cx| {
            if polled.is_pending() {
                polled = self.poll_with(join, cx);
            }
        });
        match polled {
            Poll::Ready(result) => result,
            Poll::Pending => panic!("who waits for the child was not woken"),
        }
    }

    fn end(self) {
        unlink(&self.scope);
        assert_eq!(self.woken.wakers(), 0, "a waker was kept");
    }
}

/// The child finishes while somebody begins to wait for it. Seen: whether they had to wait.
#[test]
fn poll_and_finish() {
    model("join: poll ‖ finish").check([false, true], |order| {
        let joiner = Joiner::new();
        let mut nest = Nest::new();
        let mut join = nest.spawn(|_| Poll::Ready(5));
        let (polled, ()) = order.race2(|| joiner.poll(&mut join), || nest.run());
        let waited = polled.is_pending();
        let value = match polled {
            Poll::Pending => joiner.settle(&mut join),
            Poll::Ready(result) => result,
        };
        assert_eq!(value.unwrap().unwrap().says, 5);
        assert!(join.is_done() && join.take().is_none());
        drop(join);
        nest.tear_down();
        nest.assert_gone();
        joiner.end();
        waited
    });
}

/// The nursery is torn down under who waits, and ends, with the handle left. Seen: whether they had to wait.
#[test]
fn poll_and_tear_down() {
    model("join: poll ‖ tear-down").check([false, true], |order| {
        let joiner = Joiner::new();
        let mut nest = Nest::new();
        let mut join = nest.spawn(|_| Poll::Pending);
        let (polled, ()) = order.race2(|| joiner.poll(&mut join), || nest.tear_down());
        let waited = polled.is_pending();
        let value = match polled {
            Poll::Pending => joiner.settle(&mut join),
            Poll::Ready(result) => result,
        };
        assert!(value.unwrap().is_none());
        drop(join);
        nest.assert_gone();
        joiner.end();
        waited
    });
}

/// The handle is dropped while the child finishes and its nursery ends: one of the two drops the value. Seen: whether the value was
/// there for the handle.
#[test]
fn drop_and_finish() {
    model("join: drop ‖ finish, end of the nursery").check([false, true], |order| {
        let mut nest = Nest::new();
        let join = nest.spawn(|_| Poll::Ready(5));
        let (done, ()) = order.race2(
            || {
                let done = join.is_done();
                drop(join);
                done
            },
            || {
                nest.run();
                nest.tear_down();
            },
        );
        assert_eq!(nest.values.count(), 1);
        nest.assert_gone();
        done
    });
}

/// The value is taken, if it is there, and the handle dropped, while the child finishes. Seen: whether it was taken.
#[test]
fn take_and_finish() {
    model("join: take, drop ‖ finish").check([false, true], |order| {
        let mut nest = Nest::new();
        let mut join = nest.spawn(|_| Poll::Ready(5));
        let (value, ()) = order.race2(
            || {
                let value = join.take();
                drop(join);
                value
            },
            || nest.run(),
        );
        let taken = value.is_some_and(|value| value.says == 5);
        assert_eq!(nest.values.count(), 1);
        nest.tear_down();
        nest.assert_gone();
        taken
    });
}

/// Who waits gives up, and drops handle and park, while the child finishes and wants to tell them. Seen: whether they were told.
#[test]
fn give_up_and_finish() {
    model("join: give up ‖ finish, end of the nursery").check([false, true], |order| {
        let joiner = Joiner::new();
        let mut nest = Nest::new();
        let mut join = nest.spawn(|_| Poll::Ready(5));
        assert!(joiner.poll(&mut join).is_pending());
        order.race2(
            || drop(join),
            || {
                nest.run();
                nest.tear_down();
            },
        );
        let told = joiner.woken.take();
        nest.assert_gone();
        joiner.end();
        told
    });
}

/// The scope of who waits is cancelled while the child finishes. The first decides, for good; a wait that was cancelled can be
/// begun again elsewhere, and then ends with the value. Seen: which it was, and whether a poll in the midst of it ended the wait.
#[test]
fn cancel_and_finish() {
    let expected = [("finished", false), ("finished", true), ("cancelled", false), ("cancelled", true)];
    model("join: cancel ‖ finish ‖ poll").three().bound(2).check(expected, |order| {
        let joiner = Joiner::new();
        let cancelled = pin!(Scope::new(Kind::Scope, Location::caller()));
        // SAFETY: it is pinned, and unlinked below.
        unsafe { link(&cancelled, joiner.run.tree, None) };
        let mut nest = Nest::new();
        let mut join = nest.spawn(|_| Poll::Ready(5));
        let poll = |join: &mut RawJoin<Value>, cx: &mut Context<'_>| {
            joiner.run.within(&cancelled, || join.poll(cx, |spawned| spawned))
        };
        assert!(joiner.woken.poll(|cx| poll(&mut join, cx)).is_pending());
        let join = RefCell::new(join);
        let other = Woken::new();
        let (_, (), polled) = order.race3(
            || cancelled.cancel(Source::Explicit, Location::caller()),
            || nest.run(),
            // With another waker, which is the one to be woken from here on.
            || other.poll(|cx| poll(&mut join.borrow_mut(), cx)),
        );
        let mut join = join.into_inner();
        let at_once = polled.is_ready();
        let result = match polled {
            Poll::Ready(result) => result,
            Poll::Pending => {
                let mut polled = Poll::Pending;
                other.settle(|cx| {
                    if polled.is_pending() {
                        polled = poll(&mut join, cx);
                    }
                });
                let Poll::Ready(result) = polled else { panic!("who waits was not woken") };
                result
            }
        };
        let how = match result {
            Ok(value) => {
                assert_eq!(value.unwrap().says, 5);
                "finished"
            }
            Err(_) => {
                let Poll::Ready(value) = joiner.poll(&mut join) else { panic!("the child is done") };
                assert_eq!(value.unwrap().unwrap().says, 5);
                "cancelled"
            }
        };
        drop(join);
        nest.tear_down();
        nest.assert_gone();
        unlink(&cancelled);
        assert_eq!(other.wakers(), 0);
        joiner.end();
        (how, at_once)
    });
}

/// As above, but the wait is begun again elsewhere at once, while the child may be finishing. Seen: whether that found it done.
#[test]
fn begin_again_and_finish() {
    model("join: cancelled, poll again ‖ finish").check([false, true], |order| {
        let joiner = Joiner::new();
        let cancelled = pin!(Scope::new(Kind::Scope, Location::caller()));
        // SAFETY: it is pinned, and unlinked below.
        unsafe { link(&cancelled, joiner.run.tree, None) };
        let mut nest = Nest::new();
        let mut join = nest.spawn(|_| Poll::Ready(5));
        let first = Woken::new();
        let poll = |join: &mut RawJoin<Value>| {
            first.poll(|cx| joiner.run.within(&cancelled, || join.poll(cx, |spawned| spawned)))
        };
        assert!(poll(&mut join).is_pending());
        cancelled.cancel(Source::Explicit, Location::caller());
        let (polled, ()) = order.race2(
            || {
                assert!(matches!(poll(&mut join), Poll::Ready(Err(_))));
                joiner.poll(&mut join)
            },
            || nest.run(),
        );
        let waited = polled.is_pending();
        let value = match polled {
            Poll::Pending => joiner.settle(&mut join),
            Poll::Ready(result) => result,
        };
        assert_eq!(value.unwrap().unwrap().says, 5);
        drop(join);
        nest.tear_down();
        nest.assert_gone();
        unlink(&cancelled);
        assert_eq!(first.wakers(), 0);
        joiner.end();
        waited
    });
}
