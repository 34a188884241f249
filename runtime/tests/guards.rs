//! What safe code of a primitive's author can do with a wait queue, and must not break it with.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use trefoil_runtime::{Options, Reason, Retracted, ThreadDriver, Turn, Wait, WaitQueue, doc_run, run};

type Queue = WaitQueue<u8, String, 2>;

/// `look` is given a guard by `&mut`, and can put that of another queue in its place. The waiter must not end up in a list that
/// another lock guards.
#[test]
fn a_guard_is_swapped_for_that_of_another_queue() {
    let (own, other) = (Queue::new(1), Queue::new(2));
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        doc_run(async {
            let mut waiter = pin!(own.waiter());
            poll_fn(|cx| {
                waiter.as_mut().poll(cx, Wait::new(Reason::Custom("a swap")), |guard| {
                    let mut theirs = other.lock();
                    std::mem::swap(guard, &mut theirs);
                    assert_eq!((**guard, *theirs), (2, 1));
                    Turn::<(), _>::Wait(0, Some("brought".into()))
                })
            })
            .await
            .is_ok()
        })
    }));
    assert!(panicked.is_err());
    // Neither is locked, and nothing that is gone is in a list.
    for queue in [&own, &other] {
        let mut guard = queue.lock();
        assert_eq!(guard.waiting(0), 0);
        assert!(guard.hand(0, Some("late".into())).is_err());
    }
}

/// A list that does not exist, and a panic in `look`.
#[test]
fn a_look_goes_wrong() {
    let queue = Queue::new(1);
    for wrong in [2, usize::MAX, 7] {
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            doc_run(async {
                let mut waiter = pin!(queue.waiter());
                poll_fn(|cx| {
                    let polled = catch_unwind(AssertUnwindSafe(|| {
                        waiter.as_mut().poll(cx, Wait::new(Reason::Custom("wrong")), |guard| {
                            **guard += 1;
                            assert_ne!(wrong, 7);
                            Turn::<(), _>::Wait(wrong, Some("brought".into()))
                        })
                    }));
                    assert!(polled.is_err());
                    Poll::Ready(())
                })
                .await;
                let _ = waiter.as_mut().retract();
                // It can be used again.
                assert!(
                    poll_fn(|cx| {
                        Poll::Ready(waiter.as_mut().poll(cx, Wait::new(Reason::Custom("right")), |_| {
                            Turn::<(), _>::Wait(0, Some("right".into()))
                        }))
                    })
                    .await
                    .is_pending()
                );
                assert_eq!(queue.lock().waiting(0), 1);
                assert!(matches!(waiter.as_mut().retract(), Retracted::Waited(Some(brought)) if brought == "right"));
                assert_eq!(queue.lock().waiting(0), 0);
            })
        }));
        assert!(panicked.is_ok());
    }
}

/// A waiter that was served, moved to another list, or released, and then dropped without a look.
#[test]
fn waiters_are_served_and_dropped() {
    for fate in 0..5 {
        let queue = Queue::new(0);
        doc_run(async {
            let mut waiter = Box::pin(queue.waiter());
            let mut behind = Box::pin(queue.waiter());
            for waiter in [&mut waiter, &mut behind] {
                assert!(
                    poll_fn(|cx| Poll::Ready(waiter.as_mut().poll(cx, Wait::new(Reason::Custom("fate")), |_| {
                        Turn::<(), _>::Wait(0, Some("brought".into()))
                    })))
                    .await
                    .is_pending()
                );
            }
            let mut guard = queue.lock();
            assert_eq!(guard.peek(0).map(String::as_str), Some("brought"));
            match fate {
                0 => assert_eq!(guard.hand(0, Some("given".into())), Ok(Some("brought".into()))),
                1 => {
                    assert_eq!(guard.transfer(0, 1, |brought| brought == "brought").as_deref(), Some("brought"));
                    assert_eq!((guard.waiting(0), guard.waiting(1)), (1, 1));
                }
                2 => {
                    assert!(guard.transfer(0, 1, |_| true).is_some());
                    assert_eq!(guard.hand(1, Some("given".into())), Ok(None));
                }
                3 => {
                    assert!(guard.transfer(0, 1, |_| false).is_none());
                }
                _ => {
                    // To where it is already.
                    assert!(guard.transfer(0, 0, |_| true).is_some());
                    assert_eq!(guard.waiting(0), 2);
                }
            }
            drop(guard);
            drop(waiter);
            let mut guard = queue.lock();
            assert_eq!((guard.waiting(0), guard.waiting(1)), (1, 0));
            drop(behind_of(&mut guard));
            drop(guard);
            drop(behind);
            assert_eq!(queue.lock().waiting(0), 0);
        });
    }
}

fn behind_of(guard: &mut trefoil_runtime::Guard<'_, u8, String, 2>) -> Option<String> {
    guard.peek(0).cloned()
}

/// A waiter that had nothing to wait for while a foreign executor polled it is used again, by a task: it is the task that is woken.
#[test]
fn a_waiter_is_used_again_with_another_waker() {
    let queue = Queue::new(0);
    let wait = Wait::new(Reason::Custom("a turn"));
    let options = Options { deadlock: trefoil_runtime::Detection::After(Duration::ZERO), ..Options::default() };
    run(Rc::new(ThreadDriver::new()), options, std::panic::Location::caller(), async {
        let mut waiter = pin!(queue.waiter());
        let mut foreign = Context::from_waker(Waker::noop());
        assert!(waiter.as_mut().poll(&mut foreign, wait, |_| Turn::Ready(())).is_ready());
        let mut handed = false;
        poll_fn(|cx| {
            let polled = waiter.as_mut().poll(cx, wait, |_| Turn::<(), _>::Wait(0, None));
            if !std::mem::replace(&mut handed, true) {
                assert!(queue.lock().hand(0, None).is_ok());
            }
            polled.map(|served| assert!(served.is_ok()))
        })
        .await;
    });
}

/// A wait that began in one run, and is completed, aborted or dropped in, or after, another.
#[test]
fn waiters_go_from_run_to_run() {
    let queue = Queue::new(0);
    for fate in 0..4 {
        let mut waiter = Box::pin(queue.waiter());
        let mut poll =
            || {
                doc_run(poll_fn(|cx| {
                    Poll::Ready(waiter.as_mut().poll(cx, Wait::new(Reason::Custom("moved")), |_| {
                        Turn::<(), _>::Wait(1, Some("brought".into()))
                    }))
                }))
            };
        assert!(poll().is_pending());
        match fate {
            0 => {}
            1 => {
                assert!(poll().is_pending());
                assert!(poll().is_pending());
            }
            2 => {
                assert!(queue.lock().hand(1, None).is_ok());
                assert!(matches!(poll(), Poll::Ready(Ok(trefoil_runtime::Handed::Handed(None)))));
            }
            _ => {
                assert!(queue.lock().hand(1, Some("given".into())).is_ok());
            }
        }
        let left = waiter.as_mut().retract();
        match fate {
            0 | 1 => assert!(matches!(left, Retracted::Waited(Some(_)))),
            2 => assert!(matches!(left, Retracted::Idle)),
            _ => assert!(matches!(left, Retracted::Served(Some(given)) if given == "given")),
        }
    }
    let _: &dyn Future<Output = ()> = &std::future::pending();
}
