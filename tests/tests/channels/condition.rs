//! Conditions: R82, R18, N1, N5.
//!
//! | rule | here |
//! | --- | --- |
//! | R82 (`wait` without the lock) | `wait` takes the guard |

use std::future::Future;
use std::pin::Pin;
use trefoil_nursery::sync::{Condition, Mutex, MutexGuard};
use trefoil_nursery::{CancelScope, local_nursery, move_on_after, sleep, yield_now};
use trefoil_tests::{Ended, Trace, ms, poll_once, run_virtual};

/// Waits for a condition, in a scope of its own; notes what came of it.
async fn waits(name: &str, scope: &CancelScope, mutex: &Mutex<u32>, condition: &Condition, t: &Trace) -> Ended {
    let guard = mutex.lock().await?;
    let out = scope
        .run(async {
            let (guard, waited) = condition.wait(guard).await;
            // Whatever came of it, the lock is held (R82).
            t.note(name, format_args!("{waited:?} {}", mutex.is_locked()));
            drop(guard);
            waited
        })
        .await?;
    assert_eq!(out.is_none(), scope.cancelled_caught());
    Ok(())
}

#[test]
fn r82_notified_waiters_queue_on_the_lock_in_order() {
    run_virtual(async || {
        let (mutex, condition, t) = (Mutex::new(0), Condition::new(), Trace::new());
        local_nursery(async |n| -> Ended {
            for name in ["a", "b", "c", "d"] {
                let (mutex, condition, t) = (&mutex, &condition, &t);
                n.spawn(async move { waits(name, &CancelScope::new(), mutex, condition, t).await });
            }
            sleep(ms(1)).await?;
            let guard = mutex.lock().await?;
            condition.notify(&guard, 2);
            // One that comes for the lock after them is served after them.
            n.spawn(async {
                let _guard = mutex.lock().await?;
                t.note("late", "locked");
                Ok(())
            });
            sleep(ms(1)).await?;
            assert!(t.lines().is_empty(), "the lock is held");
            drop(guard);
            sleep(ms(1)).await?;
            assert_eq!(t.lines(), ["2 a Ok(()) true", "2 b Ok(()) true", "2 late locked"]);
            condition.notify_all(&mutex.lock().await?);
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(t.lines()[3..], ["3 c Ok(()) true", "3 d Ok(()) true"]);
    });
}

#[test]
fn r82_a_notification_that_nobody_waits_for_is_gone() {
    run_virtual(async || {
        let (mutex, condition) = (Mutex::new(0), Condition::new());
        let guard = mutex.lock().await.unwrap();
        condition.notify_all(&guard);
        let out = move_on_after(ms(1), async {
            let (_guard, waited) = condition.wait(guard).await;
            waited
        })
        .await;
        assert_eq!(out, Ok(None));
        assert!(mutex.try_lock().is_ok());
    });
}

#[test]
fn r82_a_cancelled_wait_takes_the_lock_first() {
    run_virtual(async || {
        let (mutex, condition, t) = (Mutex::new(0), Condition::new(), Trace::new());
        local_nursery(async |n| -> Ended {
            let scope = CancelScope::new();
            scope.set_deadline(Some(t.at(5)));
            let (mutex, condition, t) = (&mutex, &condition, &t);
            n.spawn(async move { waits("a", &scope, mutex, condition, t).await });
            sleep(ms(3)).await?;
            let _guard = mutex.lock().await?;
            sleep(ms(10)).await
        })
        .await
        .unwrap();
        assert_eq!(t.lines(), ["13 a Err(Cancelled) true"]);
    });
    // In a scope that is cancelled already the lock is never given up (R37).
    run_virtual(async || {
        let (mutex, condition, t) = (Mutex::new(0), Condition::new(), Trace::new());
        local_nursery(async |n| -> Ended {
            let scope = CancelScope::new();
            scope.cancel();
            let guard = mutex.lock().await?;
            n.spawn(async {
                let _guard = mutex.lock().await?;
                t.note("other", "locked");
                Ok(())
            });
            yield_now().await;
            let out = scope
                .run(async {
                    let (guard, waited) = condition.wait(guard).await;
                    yield_now().await;
                    t.note("body", format_args!("{waited:?}"));
                    drop(guard);
                    waited
                })
                .await;
            assert_eq!(out, Ok(None));
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(t.lines(), ["0 body Err(Cancelled)", "0 other locked"]);
    });
}

#[test]
fn n1_a_notification_goes_on_when_its_receiver_is_cancelled_before_it_has_the_lock() {
    run_virtual(async || {
        let (mutex, condition, t) = (Mutex::new(0), Condition::new(), Trace::new());
        let scopes: Vec<_> = (0..3).map(|_| CancelScope::new()).collect();
        local_nursery(async |n| -> Ended {
            for (name, scope) in ["a", "b", "c"].into_iter().zip(&scopes) {
                let (mutex, condition, t) = (&mutex, &condition, &t);
                n.spawn(async move { waits(name, scope, mutex, condition, t).await });
            }
            sleep(ms(1)).await?;
            let guard = mutex.lock().await?;
            condition.notify_one(&guard);
            scopes[0].cancel();
            yield_now().await;
            drop(guard);
            sleep(ms(1)).await?;
            // One was notified, and one of those that were not cancelled goes on.
            let mut lines = t.lines();
            lines.sort();
            assert_eq!(lines, ["1 a Err(Cancelled) true", "1 b Ok(()) true"]);
            scopes[2].cancel();
            Ok(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn r18_one_that_was_given_the_lock_has_been_notified_and_a_cancel_comes_too_late() {
    run_virtual(async || {
        let (mutex, condition, t) = (Mutex::new(0), Condition::new(), Trace::new());
        let scope = CancelScope::new();
        local_nursery(async |n| -> Ended {
            {
                let (mutex, condition, t, scope) = (&mutex, &condition, &t, &scope);
                n.spawn(async move { waits("a", scope, mutex, condition, t).await });
            }
            sleep(ms(1)).await?;
            let guard = mutex.lock().await?;
            condition.notify_one(&guard);
            drop(guard);
            scope.cancel();
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(t.lines(), ["1 a Ok(()) true"]);
        assert!(!scope.cancelled_caught());
    });
}

/// A wait that has begun, and gave the lock up.
async fn waiting<'a>(
    mutex: &'a Mutex<u32>,
    condition: &'a Condition,
) -> Pin<Box<dyn Future<Output = (MutexGuard<'a, u32>, Ended)> + 'a>> {
    let mut wait: Pin<Box<dyn Future<Output = _> + 'a>> = Box::pin(condition.wait(mutex.lock().await.unwrap()));
    assert!(poll_once(wait.as_mut()).await.is_pending());
    wait
}

#[test]
fn n5_a_wait_for_a_condition_that_is_dropped_passes_on_lock_and_notification() {
    run_virtual(async || {
        let (mutex, condition) = (Mutex::new(0), Condition::new());
        // Not notified: nothing to pass on.
        drop(waiting(&mutex, &condition).await);
        assert!(mutex.try_lock().is_ok());
        // Notified, and waits for the lock: the next is notified.
        let (first, second) = (waiting(&mutex, &condition).await, waiting(&mutex, &condition).await);
        let guard = mutex.lock().await.unwrap();
        condition.notify_one(&guard);
        drop(first);
        drop(guard);
        let (guard, waited) = second.await;
        assert_eq!(waited, Ok(()));
        drop(guard);
        // Notified, and has the lock: the next gets both.
        let (first, second) = (waiting(&mutex, &condition).await, waiting(&mutex, &condition).await);
        let guard = mutex.lock().await.unwrap();
        condition.notify_one(&guard);
        drop(guard);
        assert!(mutex.is_locked());
        drop(first);
        assert!(mutex.is_locked());
        let (guard, waited) = second.await;
        assert_eq!(waited, Ok(()));
        drop(guard);
        assert!(mutex.try_lock().is_ok());
    });
}

#[test]
fn two_conditions_of_one_lock_have_waiters_of_their_own() {
    run_virtual(async || {
        let (mutex, one, two) = (Mutex::new(0), Condition::new(), Condition::new());
        let (mut first, mut second) = (waiting(&mutex, &one).await, waiting(&mutex, &two).await);
        two.notify_all(&mutex.lock().await.unwrap());
        assert!(poll_once(first.as_mut()).await.is_pending());
        let std::task::Poll::Ready((guard, Ok(()))) = poll_once(second.as_mut()).await else { panic!("notified") };
        one.notify_all(&guard);
        assert!(poll_once(first.as_mut()).await.is_pending(), "the lock is held");
        drop(guard);
        assert!(first.await.1.is_ok());
    });
}

#[test]
fn wait_while_waits_until_the_value_is_right() {
    run_virtual(async || {
        let (mutex, condition, t) = (Mutex::new(0), Condition::new(), Trace::new());
        local_nursery(async |n| -> Ended {
            n.spawn(async {
                let guard = mutex.lock().await?;
                let (guard, waited) = condition.wait_while(guard, |value| *value < 3).await;
                t.note("reader", *guard);
                waited
            });
            for _ in 0..5 {
                sleep(ms(1)).await?;
                let mut guard = mutex.lock().await?;
                *guard += 1;
                condition.notify_one(&guard);
            }
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(t.lines(), ["3 reader 3"]);
    });
}

/// What the compiler may put at one address is not one condition: each use of a `const` is a condition of its own.
#[test]
#[allow(clippy::declare_interior_mutable_const, clippy::borrow_interior_mutable_const)]
fn conditions_that_are_constants_are_not_one() {
    const NOT_EMPTY: Condition = Condition::new();
    const NOT_FULL: Condition = Condition::new();
    run_virtual(async || {
        let mutex = Mutex::new(());
        local_nursery(async |n| -> Ended {
            n.spawn(async {
                let guard = mutex.lock().await?;
                let told = move_on_after(ms(5), async {
                    let (_guard, told) = NOT_EMPTY.wait(guard).await;
                    told
                });
                assert_eq!(told.await, Ok(None), "it was told by another condition");
                Ok(())
            });
            sleep(ms(1)).await?;
            NOT_FULL.notify_all(&mutex.lock().await?);
            Ok(())
        })
        .await
        .unwrap();
    });
}
