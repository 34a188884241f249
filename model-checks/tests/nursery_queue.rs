//! A nursery's queue seen from other threads (`runtime/src/ready.rs`, `sync/waker_slot.rs`): what is pushed is run or its parent is woken, and
//! what is spawned is run or refused.

use std::cell::{Cell, RefCell};
use std::panic::Location;
use std::pin::pin;
use std::task::Poll;

use trefoil_model_checks::{Nest, Run, Woken, model};
use trefoil_runtime::model::{WakerSlot, worker_queue};
use trefoil_runtime::sync::{AtomicBool, Ordering};
use trefoil_runtime::{Kind, Scope};

// ---- The slot alone ------------------------------------------------------------------------------------------------

/// Somebody publishes, with no order of its own, and wakes, while the owner registers a waker and looks. Either the owner sees it, or its
/// waker is woken. Seen: both.
#[test]
fn register_and_wake() {
    let expected = [(true, false), (false, true), (true, true)];
    model("slot: wake ‖ register, look").check(expected, |order| {
        let (slot, there, new) = (WakerSlot::new(), AtomicBool::new(false), Woken::new());
        let (_, seen) = order.race2(
            || {
                there.store(true, Ordering::Relaxed);
                slot.wake();
            },
            || {
                slot.register(&new.waker());
                there.load(Ordering::Relaxed)
            },
        );
        let woken = new.take();
        assert!(seen || woken, "lost");
        // Who was woken sees it.
        assert!(there.load(Ordering::Relaxed));
        drop(slot);
        assert_eq!(new.wakers(), 0);
        (seen, woken)
    });
}

/// Two publish and wake, while the owner, which has been woken by other wakers before, registers anew. Seen: what it saw, and
/// whether its new waker was woken.
#[test]
fn register_anew_and_two_wakes() {
    let expected = [
        ((false, false), true),
        ((false, true), true),
        ((true, false), true),
        ((true, true), false),
        ((true, true), true),
    ];
    model("slot: wake ‖ wake ‖ register, look").three().check(expected, |order| {
        let (slot, old, new) = (WakerSlot::new(), Woken::new(), Woken::new());
        let there = [AtomicBool::new(false), AtomicBool::new(false)];
        slot.register(&old.waker());
        let publish = |there: &AtomicBool| {
            there.store(true, Ordering::Relaxed);
            slot.wake();
        };
        let look = || (there[0].load(Ordering::Relaxed), there[1].load(Ordering::Relaxed));
        let (_, _, seen) = order.race3(
            || publish(&there[0]),
            || publish(&there[1]),
            || {
                slot.register(&new.waker());
                look()
            },
        );
        let woken = new.take();
        assert!(seen == (true, true) || woken, "lost");
        drop(slot);
        assert_eq!((old.wakers(), new.wakers()), (0, 0));
        (seen, woken)
    });
}

/// The owner registers the same waker again and again, and looks whenever it is woken. Seen: how often it was woken.
#[test]
fn the_same_waker() {
    model("slot: wake ‖ wake ‖ the same waker again").three().check([1, 2], |order| {
        let (slot, owner) = (WakerSlot::new(), Woken::new());
        let there = [AtomicBool::new(false), AtomicBool::new(false)];
        slot.register(&owner.waker());
        let publish = |there: &AtomicBool| {
            there.store(true, Ordering::Relaxed);
            slot.wake();
        };
        let seen = Cell::new(false);
        let turn = || {
            slot.register(&owner.waker());
            seen.set(there.iter().all(|there| there.load(Ordering::Relaxed)));
        };
        order.race3(|| publish(&there[0]), || publish(&there[1]), turn);
        let times = owner.times();
        owner.settle(|_| turn());
        assert!(seen.get(), "lost");
        drop(slot);
        assert_eq!(owner.wakers(), 0);
        times
    });
}

/// The same with the waker of a task of ours, which a wake leaves in the slot: it is woken always. Seen: whether the owner saw both at once, and whether
/// its task was woken.
#[test]
fn the_waker_of_a_task_stays() {
    let expected = [(false, true), (true, true)];
    model("slot: wake ‖ wake ‖ the waker of a task again").three().bound(3).check(expected, |order| {
        let (waker, polls) = (RefCell::new(None), Cell::new(0));
        let mut nest = Nest::new();
        drop(nest.spawn(|cx| {
            polls.set(polls.get() + 1);
            *waker.borrow_mut() = Some(cx.waker().clone());
            if polls.get() == 3 { Poll::Ready(1) } else { Poll::Pending }
        }));
        nest.settle();
        let (slot, ours) = (WakerSlot::new(), waker.take().unwrap());
        let there = [AtomicBool::new(false), AtomicBool::new(false)];
        slot.register(&ours);
        let publish = |there: &AtomicBool| {
            there.store(true, Ordering::Relaxed);
            slot.wake();
        };
        let look = || {
            slot.register(&ours);
            there.iter().all(|there| there.load(Ordering::Relaxed))
        };
        let (_, _, seen) = order.race3(|| publish(&there[0]), || publish(&there[1]), look);
        nest.settle();
        let woken = polls.get() > 1;
        assert!(seen || woken && look(), "lost");
        // It is still there, and wakes.
        while polls.get() < 3 {
            slot.wake();
            nest.settle();
        }
        drop((slot, ours, waker.take()));
        nest.tear_down();
        nest.assert_gone();
        (seen, woken)
    });
}

/// The same with the waker of the body of a run, which is woken on the thread of that run, without a reference, and on another one. Seen: whether the
/// body saw both before the other thread was joined, and how often it was polled in the end.
#[test]
fn the_body_of_the_run_is_woken_here_and_elsewhere() {
    let expected = [(false, 2), (false, 3), (true, 2), (true, 3)];
    model("slot: wake here, a turn ‖ wake").bound(3).check(expected, |order| {
        let run = Run::new();
        let scope = pin!(Scope::new(Kind::Run, Location::caller()));
        let (slot, turns, queue) = (WakerSlot::new(), Woken::new(), RefCell::new(worker_queue(run.tree)));
        let there = [AtomicBool::new(false), AtomicBool::new(false)];
        let (seen, polls) = (Cell::new(false), Cell::new(0));
        let turn = || {
            turns.poll(|cx| {
                queue.borrow_mut().run(&scope, cx, |cx| {
                    polls.set(polls.get() + 1);
                    slot.register(cx.waker());
                    seen.set(there.iter().all(|there| there.load(Ordering::Relaxed)));
                });
            });
        };
        let publish = |there: &AtomicBool| {
            there.store(true, Ordering::Relaxed);
            slot.wake();
        };
        run.within(&scope, turn);
        let (seen_there, ()) = order.race2(
            || {
                run.within(&scope, || {
                    publish(&there[0]);
                    turn();
                });
                seen.get()
            },
            || publish(&there[1]),
        );
        while queue.borrow().has_work() {
            run.within(&scope, turn);
        }
        assert!(seen.get(), "lost");
        drop(slot);
        let mut queue = queue.into_inner();
        queue.set_body_done();
        queue.close(&scope);
        (seen_there, polls.get())
    });
}

// ---- The queue -----------------------------------------------------------------------------------------------------

/// Two children are woken from two threads while the nursery has a turn: none is lost, and none runs twice for one wake. One gives up
/// its turn once before it ends. Seen: how many children the turn ran.
#[test]
fn two_pushes_and_a_turn() {
    model("queue: push ‖ push ‖ turn").three().bound(3).check([0, 1, 2], |order| {
        let (wakers, runs) = ([RefCell::new(None), RefCell::new(None)], Cell::new(0));
        let mut nest = Nest::new();
        for (waker, yields) in wakers.iter().zip([true, false]) {
            let (mut polls, runs) = (0, &runs);
            drop(nest.spawn(move |cx| {
                polls += 1;
                if polls == 1 {
                    *waker.borrow_mut() = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                if polls == 2 {
                    runs.set(runs.get() + 1);
                    if yields {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                }
                Poll::Ready(1)
            }));
        }
        nest.settle();
        let [a, b] = wakers.each_ref().map(|waker| waker.take().unwrap());
        order.race3(|| a.wake(), || b.wake(), || nest.run());
        let meanwhile = runs.get();
        nest.settle();
        assert_eq!((runs.get(), nest.live()), (2, 0), "a push was lost");
        nest.tear_down();
        nest.assert_gone();
        meanwhile
    });
}

/// A child is spawned from another thread while the nursery has a turn. Seen: whether the turn ran it.
#[test]
fn spawn_and_turn() {
    model("queue: spawn ‖ turn").check([false, true], |order| {
        let mut nest = Nest::new();
        let spawner = nest.spawner();
        let (join, ran) = order.race2(
            || spawner.spawn(|_| Poll::Ready(1)),
            || {
                nest.run();
                nest.futures.count() == 1
            },
        );
        nest.settle();
        assert!(join.is_done(), "the child was lost");
        drop(join);
        nest.tear_down();
        nest.assert_gone();
        ran
    });
}

/// Two children are spawned from two threads while the nursery has a turn and then is closed (L11): each is run, or destroyed unpolled
/// by the close, or refused, and dropped once in any case. Seen: how many were polled, and how many have a value.
#[test]
fn spawn_and_close() {
    let expected = [(0, 0), (1, 1), (2, 2)];
    model("queue: spawn ‖ spawn ‖ turn, close").three().bound(2).check(expected, |order| {
        let mut nest = Nest::new();
        let polls = Cell::new(0);
        let spawner = nest.spawner();
        let child = |_: &mut std::task::Context<'_>| {
            polls.set(polls.get() + 1);
            Poll::Ready(1)
        };
        let (mut a, mut b, ()) = order.race3(
            || spawner.spawn(&child),
            || spawner.spawn(&child),
            || {
                nest.run();
                nest.queue.as_mut().unwrap().close(&nest.scope);
            },
        );
        assert!(a.is_done() && b.is_done());
        assert_eq!((nest.futures.count(), nest.live()), (2, 0));
        let values = [a.take(), b.take()].into_iter().flatten().count();
        drop((a, b));
        nest.tear_down();
        nest.assert_gone();
        (polls.get(), values)
    });
}

/// One child is woken while another is spawned, from two threads, and the nursery is closed. Seen: whether the woken one ran, and
/// whether the spawned one did.
#[test]
fn wake_spawn_and_close() {
    let expected = [(false, false), (false, true), (true, false), (true, true)];
    model("queue: wake ‖ spawn ‖ turn, close").three().bound(2).check(expected, |order| {
        let mut nest = Nest::new();
        let (waker, woken, spawned) = (RefCell::new(None), Cell::new(false), Cell::new(false));
        let mut first = true;
        drop(nest.spawn(|cx| {
            if std::mem::take(&mut first) {
                *waker.borrow_mut() = Some(cx.waker().clone());
            } else {
                woken.set(true);
            }
            Poll::Pending
        }));
        nest.run();
        let spawner = nest.spawner();
        let waker = waker.take().unwrap();
        let (_, join, ()) = order.race3(
            || waker.wake(),
            || {
                spawner.spawn(|_| {
                    spawned.set(true);
                    Poll::Pending
                })
            },
            || {
                nest.run();
                nest.queue.as_mut().unwrap().close(&nest.scope);
            },
        );
        assert!(join.is_done() && nest.live() == 0 && nest.futures.count() == 2);
        drop(join);
        nest.tear_down();
        nest.assert_gone();
        (woken.get(), spawned.get())
    });
}

// ---- The count -----------------------------------------------------------------------------------------------------

/// The waker of a poll is borrowed by another thread while that poll goes on: it clones and drops it, as the owner's thread does. Neither is lost
/// on the count, though only the owner's reference is on it to begin with. Seen: nothing.
#[test]
fn the_waker_of_a_poll_is_cloned_twice() {
    model("queue: clone, drop ‖ clone, drop").check([()], |order| {
        let mut nest = Nest::new();
        drop(nest.spawn(|cx| {
            let waker = cx.waker();
            order.race2(|| drop(waker.clone()), || drop(waker.clone()));
            Poll::Ready(1)
        }));
        nest.settle();
        nest.tear_down();
        nest.assert_gone();
    });
}

/// The same, where the other thread wakes by it, and where the owner's has the join handle of the child that is polled. Seen: how often the child
/// was polled.
#[test]
fn the_waker_of_a_poll_wakes_while_the_handle_goes() {
    model("queue: wake by reference ‖ clone, drop, drop the handle").check([2], |order| {
        let mut nest = Nest::new();
        let (polls, handle) = (Cell::new(0), RefCell::new(None));
        let join = nest.spawn(|cx| {
            polls.set(polls.get() + 1);
            if polls.get() == 2 {
                return Poll::Ready(1);
            }
            let waker = cx.waker();
            let mut handle = handle.borrow_mut();
            order.race2(
                || waker.wake_by_ref(),
                || {
                    drop(waker.clone());
                    drop(handle.take());
                    drop(waker.clone());
                },
            );
            Poll::Pending
        });
        *handle.borrow_mut() = Some(join);
        nest.settle();
        assert_eq!(nest.live(), 0, "a wake was lost");
        nest.tear_down();
        nest.assert_gone();
        polls.get()
    });
}
