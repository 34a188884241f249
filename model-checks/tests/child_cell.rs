//! The cell of a child (`runtime/src/ready.rs`): woken from other threads while its owner polls it, finishes it or tears it down,
//! with wakers that outlive the nursery.

use std::cell::{Cell, RefCell};
use std::panic::Location;
use std::sync::Arc;
use std::task::{Poll, Waker};

use trefoil_model_checks::{Nest, Run, model};
use trefoil_runtime::model::{link, unlink};
use trefoil_runtime::sync::{AtomicBool, Ordering, UnsafeCell};
use trefoil_runtime::{Entry, Kind, Scope, Source};

/// What a waking thread leaves for the child: a word with no order of its own, and something that only the wake-up orders.
struct Message {
    there: AtomicBool,
    content: UnsafeCell<u32>,
}

impl Message {
    fn new() -> Self {
        Self { there: AtomicBool::new(false), content: UnsafeCell::new(0) }
    }

    fn send(&self) {
        // SAFETY: loom fails the model if somebody looks at it meanwhile.
        self.content.with_mut(|content| unsafe { *content = 7 });
        self.there.store(true, Ordering::Relaxed);
    }

    /// Looks at the word alone.
    fn is_there(&self) -> bool {
        self.there.load(Ordering::Relaxed)
    }

    /// Looks at the rest, which only a poll that a wake-up brought may do.
    fn read(&self) -> u32 {
        // SAFETY: loom fails the model if somebody writes to it meanwhile.
        self.content.with(|content| unsafe { *content })
    }
}

/// Keeps the waker of a child's first poll.
#[derive(Default)]
struct Kept(RefCell<Option<Waker>>, Cell<bool>);

impl Kept {
    fn keep(&self, cx: &std::task::Context<'_>) {
        if !self.1.replace(true) {
            *self.0.borrow_mut() = Some(cx.waker().clone());
        }
    }

    fn take(&self) -> Waker {
        self.0.borrow_mut().take().unwrap()
    }
}

/// A wake-up while nothing else happens to the child, which its owner polls and finishes. What was written before the wake is
/// seen by the poll that it brings. Seen: whether the owner's turn in the race found it.
#[test]
fn wake_and_poll() {
    model("child: wake ‖ run").check([false, true], |order| {
        let (message, kept, polls) = (Message::new(), Kept::default(), Cell::new(0));
        let mut nest = Nest::new();
        drop(nest.spawn(|cx| {
            polls.set(polls.get() + 1);
            kept.keep(cx);
            // The second poll comes of the wake.
            if polls.get() == 2 { Poll::Ready(message.read()) } else { Poll::Pending }
        }));
        nest.settle();
        assert_eq!((polls.get(), nest.live()), (1, 1));
        let waker = kept.take();
        order.race2(
            || {
                message.send();
                waker.wake();
            },
            || nest.run(),
        );
        let at_once = nest.live() == 0;
        nest.settle();
        assert_eq!((polls.get(), nest.live(), nest.futures.count(), nest.values.count()), (2, 0, 1, 1));
        nest.tear_down();
        nest.assert_gone();
        at_once
    });
}

/// Two wake the child, which wakes itself in its first poll too, while its owner runs two turns. The last poll sees both messages,
/// whoever scheduled it; then it finishes, and what comes late finds a shell. Seen: how often it was polled.
#[test]
fn two_wakes_and_its_own() {
    model("child: wake ‖ wake ‖ run, run").three().bound(2).check([2, 3, 4], |order| {
        let (messages, kept, polls) = ([Message::new(), Message::new()], Kept::default(), Cell::new(0));
        let mut nest = Nest::new();
        drop(nest.spawn(|cx| {
            polls.set(polls.get() + 1);
            kept.keep(cx);
            if polls.get() == 1 {
                cx.waker().wake_by_ref();
            }
            if messages.iter().all(Message::is_there) { Poll::Ready(1) } else { Poll::Pending }
        }));
        nest.run();
        let waker = kept.take();
        let other = waker.clone();
        order.race3(
            || {
                messages[0].send();
                waker.wake();
            },
            || {
                messages[1].send();
                other.wake();
            },
            || {
                nest.run();
                nest.run();
            },
        );
        nest.settle();
        assert_eq!((nest.live(), nest.futures.count(), nest.values.count()), (0, 1, 1), "a wake was lost");
        nest.tear_down();
        nest.assert_gone();
        polls.get()
    });
}

/// A wake-up while the child finishes for another reason: it has woken itself. Seen: whether the turn in the race finished it.
#[test]
fn wake_and_finish() {
    model("child: wake ‖ finish, end of the nursery").check([false, true], |order| {
        let (message, kept, polls) = (Message::new(), Kept::default(), Cell::new(0));
        let mut nest = Nest::new();
        drop(nest.spawn(|cx| {
            polls.set(polls.get() + 1);
            kept.keep(cx);
            if polls.get() == 1 {
                cx.waker().wake_by_ref();
            }
            if message.is_there() { Poll::Ready(1) } else { Poll::Pending }
        }));
        nest.run();
        let waker = kept.take();
        let (_, finished) = order.race2(
            || {
                message.send();
                waker.wake_by_ref();
                drop(waker);
            },
            || {
                nest.run();
                let finished = nest.live() == 0;
                if finished {
                    nest.tear_down();
                }
                finished
            },
        );
        if !finished {
            nest.settle();
            assert_eq!(nest.live(), 0, "the wake was lost");
            nest.tear_down();
        }
        nest.assert_gone();
        finished
    });
}

/// The nursery is torn down while one thread wakes the child by its last waker. The child is dropped by its owner before the end of
/// the tear-down, whatever the wake does; the memory is freed by whoever is last. Seen: whether the wake got as far as telling
/// who polls the nursery.
#[test]
fn wake_and_tear_down() {
    model("child: wake ‖ tear-down").check([0, 1], |order| {
        let kept = Kept::default();
        let mut nest = Nest::new();
        drop(nest.spawn(|cx| {
            kept.keep(cx);
            Poll::Pending
        }));
        nest.settle();
        let waker = kept.take();
        let before = nest.above.times();
        order.race2(|| waker.wake(), || nest.tear_down());
        let told = nest.above.times() - before;
        assert_eq!(nest.futures.count(), 1);
        nest.assert_gone();
        told
    });
}

/// Two wakers outlive the nursery; one wakes, the other is cloned, wakes and is dropped. A turn comes before the tear-down, so the
/// child may be polled again. Seen: how often.
#[test]
fn wakers_outlive_the_queue() {
    model("child: wake ‖ clone, wake, drop ‖ run, tear-down").three().bound(2).check([1, 2], |order| {
        let (kept, polls) = (Kept::default(), Cell::new(0));
        let mut nest = Nest::new();
        drop(nest.spawn(|cx| {
            polls.set(polls.get() + 1);
            kept.keep(cx);
            Poll::Pending
        }));
        nest.settle();
        let waker = kept.take();
        let other = waker.clone();
        order.race3(
            || waker.wake(),
            || {
                let third = other.clone();
                drop(other);
                third.wake_by_ref();
                drop(third);
            },
            || {
                nest.run();
                nest.tear_down();
            },
        );
        nest.assert_gone();
        polls.get()
    });
}

/// The last waker of a child that finished is dropped while its nursery ends: the last of the two frees child and queue. Seen:
/// nothing but that.
#[test]
fn the_last_waker_and_the_end() {
    model("child: drop the last waker ‖ finish, end of the nursery").check([()], |order| {
        let (kept, polls) = (Kept::default(), Cell::new(0));
        let mut nest = Nest::new();
        drop(nest.spawn(|cx| {
            polls.set(polls.get() + 1);
            kept.keep(cx);
            if polls.get() == 1 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(1)
        }));
        nest.run();
        let waker = kept.take();
        order.race2(|| drop(waker), || nest.finish());
        nest.assert_gone();
    });
}

/// Two children, each with a waker that outlives the nursery: one wakes while the other is only dropped, and both are orphans
/// that keep the queue. Seen: nothing but that all is freed.
#[test]
fn two_orphans_keep_the_queue() {
    model("child: wake one ‖ drop the other's waker ‖ tear-down").three().bound(4).check([()], |order| {
        let kept = [Kept::default(), Kept::default()];
        let mut nest = Nest::new();
        for kept in &kept {
            drop(nest.spawn(|cx| {
                kept.keep(cx);
                Poll::Pending
            }));
        }
        nest.settle();
        let wakers = kept.each_ref().map(Kept::take);
        let [one, other] = wakers;
        order.race3(|| one.wake(), || drop(other), || nest.tear_down());
        nest.assert_gone();
    });
}

/// A scope that the child has opened is cancelled from another thread, which wakes the child, while another child drops the only waker of it beside that of
/// the scope: on the owner's thread, where a count may be given up by a plain store. None is lost: a cancel is not the first to count. Seen: whether the
/// owner's turn in the race found the wake-up.
#[test]
fn cancel_its_scope_and_drop_its_waker() {
    model("child: cancel its scope ‖ drop its waker in the poll of another").bound(3).check([false, true], |order| {
        let run = Run::new();
        let scope = || Arc::new(Scope::new(Kind::Scope, Location::caller()));
        let (root, scope) = (scope(), scope());
        // SAFETY: in an `Arc` it does not move; unlinked at the end.
        unsafe { link(&root, run.tree, None) };
        // SAFETY: an `Arc` keeps it in place.
        let entry = RefCell::new(unsafe { Entry::new(scope.clone()) });
        let (kept, other) = (Kept::default(), Kept::default());
        let (first, second) = (Cell::new(true), Cell::new(true));
        let mut nest = Nest::new();
        drop(nest.spawn(|cx| {
            kept.keep(cx);
            if first.replace(false) {
                entry.borrow_mut().enter(cx);
                return Poll::Pending;
            }
            entry.borrow_mut().leave();
            Poll::Ready(1)
        }));
        drop(nest.spawn(|cx| {
            other.keep(cx);
            if second.replace(false) {
                return Poll::Pending;
            }
            drop(kept.take());
            Poll::Ready(2)
        }));
        run.within(&root, || nest.settle());
        other.take().wake();
        let (_, at_once) = order.race2(
            || scope.cancel(Source::Explicit, Location::caller()),
            || {
                run.within(&root, || nest.run());
                nest.live() == 0
            },
        );
        run.within(&root, || {
            nest.settle();
            assert_eq!(nest.live(), 0, "the wake was lost");
            nest.tear_down();
        });
        nest.assert_gone();
        drop(entry);
        unlink(&root);
        at_once
    });
}
