//! The two counts of a task's references (`runtime/src/ready.rs`): that of the owner, and the shared one. Wakers are made on one side and given up
//! on the other, while the task ends and the owner makes one count of them.

use std::cell::{Cell, RefCell};
use std::panic::Location;
use std::task::{Poll, Waker};

use trefoil_model_checks::{Nest, Order, Woken, model};
use trefoil_runtime::sync::Mutex;
use trefoil_runtime::{Kind, ReadyBox, Scope};

/// A child that keeps so many wakers in its first poll, and ends in its second, which is the next turn.
fn keeps<'env>(nest: &Nest<'env>, wakers: &'env RefCell<Vec<Waker>>, count: usize) {
    let first = Cell::new(true);
    drop(nest.spawn(move |cx| {
        if !first.replace(false) {
            return Poll::Ready(1);
        }
        wakers.borrow_mut().extend((0..count).map(|_| cx.waker().clone()));
        cx.waker().wake_by_ref();
        Poll::Pending
    }));
}

/// The owner made them; another thread gives one up, while the owner makes one more in its turn, gives up all that it has, and ends the child. Seen: nothing
/// but that it is freed once, by the last of them.
#[test]
fn made_by_the_owner_and_given_up_elsewhere() {
    model("references: drop ‖ clone, drop, drop, end").check([()], |order| {
        let wakers = RefCell::new(Vec::new());
        let (mut nest, first) = (Nest::new(), Cell::new(true));
        drop(nest.spawn(|cx| {
            if first.replace(false) {
                wakers.borrow_mut().extend([cx.waker().clone(), cx.waker().clone()]);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let (second, third) = (wakers.borrow_mut().pop(), cx.waker().clone());
            drop((second, third));
            Poll::Ready(1)
        }));
        nest.run();
        let waker = wakers.borrow_mut().remove(0);
        order.race2(|| drop(waker), || nest.finish());
        nest.assert_gone();
    });
}

/// Another thread makes one, and lays it where another child of the same queue finds it and gives it up: after the end of the child (`late`), when there is
/// one count, or before. Seen: whether it found it.
fn made_elsewhere(order: Order, late: bool) -> bool {
    let (wakers, laid, found) = (RefCell::new(Vec::new()), Mutex::new(None::<Waker>), Cell::new(false));
    let mut nest = Nest::new();
    if late {
        keeps(&nest, &wakers, 1);
    }
    let first = Cell::new(true);
    drop(nest.spawn(|cx| {
        if first.replace(false) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let there = laid.lock().take();
        found.set(there.is_some());
        drop(there);
        Poll::Ready(2)
    }));
    if !late {
        keeps(&nest, &wakers, 1);
    }
    nest.run();
    let waker = wakers.borrow_mut().pop().unwrap();
    order.race2(
        || {
            let second = waker.clone();
            *laid.lock() = Some(second);
            drop(waker);
        },
        || nest.finish(),
    );
    drop(laid.lock().take());
    nest.assert_gone();
    found.get()
}

/// Before its end.
#[test]
fn made_elsewhere_and_given_up_by_the_owner() {
    model("references: clone, hand over, drop ‖ drop what is there, end")
        .check([false, true], |order| made_elsewhere(order, false));
}

/// After its end.
#[test]
fn made_elsewhere_and_given_up_in_the_turn_after_the_end() {
    model("references: clone, hand over, drop ‖ end, drop what is there")
        .check([false, true], |order| made_elsewhere(order, true));
}

/// The same waker is cloned and given up in the turn in which the child has ended before, while another thread gives up its own: there is one
/// count, which both change. Seen: nothing but that it is freed once.
#[test]
fn cloned_in_the_turn_after_the_end() {
    model("references: drop ‖ end, clone, drop, drop").check([()], |order| {
        let wakers = RefCell::new(Vec::new());
        let (mut nest, first) = (Nest::new(), Cell::new(true));
        keeps(&nest, &wakers, 2);
        drop(nest.spawn(|cx| {
            if first.replace(false) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let waker = wakers.borrow_mut().pop().unwrap();
            let other = waker.clone();
            waker.wake();
            drop(other);
            Poll::Ready(2)
        }));
        nest.run();
        let waker = wakers.borrow_mut().remove(0);
        order.race2(|| drop(waker), || nest.finish());
        nest.assert_gone();
    });
}

/// More than the owner has room for, of which all but two were given up elsewhere: the shared count alone is far below what it stands for. The last two
/// go while the child ends. Seen: nothing but that it is freed once.
#[test]
fn more_than_the_owner_has_room_for() {
    model("references: drop ‖ drop ‖ end").three().bound(3).check([()], |order| {
        let wakers = RefCell::new(Vec::new());
        let mut nest = Nest::new();
        keeps(&nest, &wakers, 40);
        nest.run();
        let mut wakers = wakers.take();
        let (one, other) = (wakers.pop(), wakers.pop());
        drop(wakers);
        order.race3(|| drop(one), || drop(other), || nest.finish());
        nest.assert_gone();
    });
}

/// More are given up by the owner than it has made, and than it has room for: they were made elsewhere. Seen: nothing but that it is freed once.
#[test]
fn more_given_up_by_the_owner_than_it_has_room_for() {
    model("references: drop ‖ drop many, end").bound(3).check([()], |order| {
        let wakers = RefCell::new(Vec::new());
        let (mut nest, first) = (Nest::new(), Cell::new(true));
        drop(nest.spawn(|cx| {
            if first.replace(false) {
                wakers.borrow_mut().push(cx.waker().clone());
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            wakers.take();
            Poll::Ready(1)
        }));
        nest.run();
        let waker = wakers.borrow_mut().pop().unwrap();
        wakers.borrow_mut().extend((0..40).map(|_| waker.clone()));
        order.race2(|| drop(waker), || nest.finish());
        nest.assert_gone();
    });
}

/// Two threads wake it, by the only two wakers, while the owner ends it for another reason and goes away. Seen: whether a wake-up came so early that the
/// child was polled for it.
#[test]
fn wakes_and_the_end() {
    model("references: wake ‖ wake ‖ end").three().bound(2).check([()], |order| {
        let wakers = RefCell::new(Vec::new());
        let mut nest = Nest::new();
        keeps(&nest, &wakers, 2);
        nest.run();
        let [one, other] = wakers.take().try_into().unwrap();
        order.race3(
            || one.wake(),
            || {
                other.wake_by_ref();
                drop(other);
            },
            || nest.finish(),
        );
        nest.assert_gone();
    });
}

/// In its own poll the child lends its waker to another thread, which clones it, while the child drops its own handle and makes and gives up wakers. None
/// is lost. Seen: nothing but that it is freed once.
#[test]
fn lent_while_the_handle_goes() {
    model("references: clone what is lent ‖ drop the handle, clone, drop").check([()], |order| {
        let (handle, laid, first) = (RefCell::new(None), Mutex::new(None::<Waker>), Cell::new(true));
        let mut nest = Nest::new();
        let join = nest.spawn(|cx| {
            if first.replace(false) {
                let lent = cx.waker();
                // The owner is the thread that polls, whichever of the two it runs.
                let owner = loom::thread::current().id();
                let part = || {
                    if loom::thread::current().id() == owner {
                        drop(handle.borrow_mut().take());
                        drop(lent.clone());
                    } else {
                        *laid.lock() = Some(lent.clone());
                    }
                };
                order.race2(part, part);
                lent.wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(1)
        });
        *handle.borrow_mut() = Some(join);
        nest.settle();
        assert_eq!(nest.live(), 0);
        nest.tear_down();
        drop(laid.lock().take());
        nest.assert_gone();
    });
}

/// The handle goes in the poll of another child, while another thread gives up the last waker: the owner's plain store is for who is alone. Seen: nothing
/// but that it is freed once.
#[test]
fn the_handle_and_the_last_waker() {
    model("references: drop ‖ drop the handle, end").check([()], |order| {
        let (wakers, handle) = (RefCell::new(Vec::new()), RefCell::new(None));
        let (first, other_first) = (Cell::new(true), Cell::new(true));
        let mut nest = Nest::new();
        drop(nest.spawn(|cx| {
            if other_first.replace(false) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            drop(handle.take());
            Poll::Ready(2)
        }));
        *handle.borrow_mut() = Some(nest.spawn(|cx| {
            if first.replace(false) {
                wakers.borrow_mut().push(cx.waker().clone());
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(1)
        }));
        nest.run();
        let waker = wakers.borrow_mut().pop().unwrap();
        order.race2(|| drop(waker), || nest.finish());
        nest.assert_gone();
    });
}

/// A waker of the body of a queue: the owner has made two in a turn, and gives one up in the next; another thread gives up the other while the queue ends, and
/// with it the owner's reference. Seen: nothing but that the queue is freed once.
#[test]
fn the_body_of_a_queue() {
    model("references: drop ‖ clone, drop, drop, end of the queue").check([()], |order| {
        let (above, scope) = (Woken::new(), Box::pin(Scope::new(Kind::Nursery, Location::caller())));
        let mut queue = ReadyBox::nested(Location::caller());
        let mut wakers = Vec::new();
        above.poll(|cx| {
            queue.run(&scope, cx, |cx| {
                wakers.extend([cx.waker().clone(), cx.waker().clone()]);
                cx.waker().wake_by_ref();
            });
        });
        let (mut here, elsewhere) = (wakers.pop(), wakers.pop());
        order.race2(
            || drop(elsewhere),
            || {
                above.poll(|cx| {
                    queue.run(&scope, cx, |cx| {
                        let third = cx.waker().clone();
                        drop((here.take(), third));
                    });
                });
                queue.set_body_done();
                queue.close(&scope);
                drop(queue);
            },
        );
        assert_eq!(above.wakers(), 0, "the queue leaked");
    });
}

/// A child polls a queue, which keeps a waker of it. Another thread wakes a child of that queue, and through it, by one waker more, the child around, while that
/// ends and drops the queue. Seen: whether the inner child was polled for it.
#[test]
fn the_waker_that_a_queue_keeps() {
    model("references: wake a child's child ‖ end of the child, with its queue").bound(3).check(
        [false, true],
        |order| {
            let (waker, inner, polls, outer_polls) =
                (RefCell::new(None), RefCell::new(Nest::new()), Cell::new(0), Cell::new(0));
            drop(inner.borrow().spawn(|cx| {
                polls.set(polls.get() + 1);
                *waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }));
            let mut nest = Nest::new();
            drop(nest.spawn(|cx| {
                outer_polls.set(outer_polls.get() + 1);
                let mut inner = inner.borrow_mut();
                let Nest { queue, scope, .. } = &mut *inner;
                queue.as_mut().unwrap().run(scope, cx, |_| {});
                if outer_polls.get() == 1 {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                inner.tear_down();
                Poll::Ready(1)
            }));
            nest.run();
            let ours: Waker = waker.take().unwrap();
            order.race2(|| ours.wake(), || nest.finish());
            drop(waker.take());
            assert_eq!(outer_polls.get(), 2);
            inner.borrow().assert_gone();
            nest.assert_gone();
            polls.get() == 2
        },
    );
}
