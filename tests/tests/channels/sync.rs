//! Synchronisation: R76–R82 for each primitive that they are about, R18, R37, N1, and N5 for all.
//!
//! | rule | here |
//! | --- | --- |
//! | R78 (only the owner releases), R81 (foreign release) | guards and tokens: what is not held cannot be given back |
//! | R79 (a lock whose owner has gone) | the guard goes with its owner, and unlocks |
//! | R80 (`max_value`) | permits come back by the drop of what was acquired |
//! | R82 (`wait` without the lock) | `wait` takes the guard |
//! | R83 | `WaitQueue` of the runtime |

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use trefoil_nursery::sync::{
    Barrier, CapacityLimiter, Condition, LimiterStatistics, Mutex, MutexGuard, RwLock, Semaphore, WouldBlock, oneshot,
    watch,
};
use trefoil_nursery::{
    CancelScope, Cancelled, Receiver, Sender, TryRecvError, channel, checkpoint, local_nursery, move_on_after, nursery,
    sleep, sleep_forever, yield_now,
};
use trefoil_tests::{Trace, drop_at, ms, poll_once, run_real, run_virtual};

type Ended = Result<(), Cancelled>;
type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T, Cancelled>> + 'a>>;

/// Begins operations one after the other; each of them waits.
async fn begin<'a, T, F: Future<Output = Result<T, Cancelled>> + 'a>(operations: Vec<F>) -> Vec<Boxed<'a, T>> {
    let mut begun = Vec::new();
    for operation in operations {
        let mut operation: Boxed<'a, T> = Box::pin(operation);
        assert!(poll_once(operation.as_mut()).await.is_pending());
        begun.push(operation);
    }
    begun
}

/// An operation that has been served.
async fn served<T>(mut operation: Boxed<'_, T>) -> T {
    match poll_once(operation.as_mut()).await {
        std::task::Poll::Ready(result) => result.expect("nobody cancels"),
        std::task::Poll::Pending => panic!("it still waits"),
    }
}

/// R76, R77, N5, R18, R37 for what `acquire` acquires, of which there is one.
macro_rules! exclusive {
    ($name:ident, $new:expr, $acquire:ident $(($arg:expr))?, $try:ident) => {
        mod $name {
            use super::*;

            #[test]
            fn r76_it_is_handed_over_in_order_before_who_gets_it_runs() {
                run_virtual(async || {
                    let (thing, order) = ($new, RefCell::new(Vec::new()));
                    local_nursery(async |n| -> Ended {
                        let held = thing.$acquire($($arg)?).await?;
                        for i in 0..5 {
                            let (thing, order) = (&thing, &order);
                            n.spawn(async move {
                                let _held = thing.$acquire($($arg)?).await?;
                                order.borrow_mut().push(i);
                                checkpoint().await
                            });
                        }
                        yield_now().await;
                        assert!(thing.$try($($arg)?).is_err());
                        drop(held);
                        // It belongs to the oldest already, who has not run.
                        assert!(order.borrow().is_empty());
                        assert!(thing.$try($($arg)?).is_err());
                        Ok(())
                    })
                    .await
                    .unwrap();
                    assert_eq!(*order.borrow(), [0, 1, 2, 3, 4]);
                    assert!(thing.$try($($arg)?).is_ok());
                });
            }

            #[test]
            fn r76_who_releases_and_comes_back_goes_behind_who_waits() {
                run_virtual(async || {
                    let (thing, order) = ($new, RefCell::new(Vec::new()));
                    local_nursery(async |n| -> Ended {
                        for name in ["a", "b"] {
                            let (thing, order) = (&thing, &order);
                            n.spawn(async move {
                                for _ in 0..4 {
                                    let held = thing.$acquire($($arg)?).await?;
                                    order.borrow_mut().push(name);
                                    checkpoint().await?;
                                    drop(held);
                                }
                                Ok(())
                            });
                        }
                        Ok(())
                    })
                    .await
                    .unwrap();
                    assert_eq!(*order.borrow(), ["a", "b", "a", "b", "a", "b", "a", "b"]);
                });
            }

            #[test]
            fn r77_a_cancelled_waiter_is_passed_over() {
                run_virtual(async || {
                    let thing = $new;
                    let scopes: Vec<_> = (0..4).map(|_| CancelScope::new()).collect();
                    let held = thing.$acquire($($arg)?).await.unwrap();
                    let mut waiting = begin(scopes.iter().map(|s| s.run(thing.$acquire($($arg)?))).collect()).await;
                    // The first two at once, one of which has not looked, and the third when it is handed over.
                    scopes[0].cancel();
                    scopes[1].cancel();
                    drop(served(waiting.remove(0)).await);
                    drop(held);
                    scopes[2].cancel();
                    let second = served(waiting.remove(0)).await;
                    assert!(second.is_none(), "R19");
                    let third = served(waiting.remove(0)).await;
                    assert!(third.is_some(), "R18");
                    drop(third);
                    assert!(served(waiting.remove(0)).await.is_some());
                    assert!(thing.$try($($arg)?).is_ok());
                });
            }

            #[test]
            fn n5_a_waiter_that_is_dropped_passes_on_what_it_was_given() {
                run_virtual(async || {
                    let thing = $new;
                    let held = thing.$acquire($($arg)?).await.unwrap();
                    let mut waiting = begin((0..3).map(|_| thing.$acquire($($arg)?)).collect()).await;
                    drop(held);
                    // The first has it; so, then, has the third.
                    drop(waiting.remove(1));
                    drop(waiting.remove(0));
                    assert!(thing.$try($($arg)?).is_err());
                    drop(served(waiting.remove(0)).await);
                    // And nobody.
                    let held = thing.$acquire($($arg)?).await.unwrap();
                    let waiting = begin(vec![thing.$acquire($($arg)?)]).await;
                    drop(held);
                    drop(waiting);
                    assert!(thing.$try($($arg)?).is_ok());
                });
            }

            #[test]
            fn r37_in_a_cancelled_scope_it_is_not_taken_even_where_it_is_free() {
                run_virtual(async || {
                    let (thing, scope) = ($new, CancelScope::new());
                    scope.cancel();
                    assert!(scope.run(thing.$acquire($($arg)?)).await.unwrap().is_none());
                    assert!(thing.$try($($arg)?).is_ok());
                });
            }

            #[test]
            fn r79_it_comes_back_however_its_owner_ends() {
                run_virtual(async || {
                    let thing = $new;
                    // Cancelled, dropped, and with an error.
                    for how in 0..3 {
                        let ended = local_nursery(async |n| -> std::io::Result<()> {
                            let owner = async {
                                let _held = thing.$acquire($($arg)?).await?;
                                match how {
                                    0 => move_on_after(ms(1), sleep_forever()).await.map(|_| ())?,
                                    1 => drop(drop_at(1, sleep_forever()).await),
                                    _ => return Err(std::io::Error::other("fails")),
                                }
                                Ok(())
                            };
                            n.spawn(owner);
                            yield_now().await;
                            drop(trefoil_nursery::shield(thing.$acquire($($arg)?)).await?);
                            Ok(())
                        })
                        .await;
                        assert_eq!(ended.is_err(), how == 2);
                        assert!(thing.$try($($arg)?).is_ok());
                    }
                });
            }
        }
    };
}

exclusive!(mutex, Mutex::new(()), lock, try_lock);
exclusive!(write, RwLock::new(()), write, try_write);
exclusive!(semaphore, Semaphore::new(1), acquire(1), try_acquire);
exclusive!(all_of_a_semaphore, Semaphore::new(7), acquire(7), try_acquire);
exclusive!(limiter, CapacityLimiter::new(1), acquire, try_acquire);
exclusive!(channel_with_one_item, ChannelLock::new(), acquire, try_acquire);

/// A channel in which there is one item: who has that has the lock.
struct ChannelLock(Sender<()>, Receiver<()>);

struct Item<'a>(&'a ChannelLock);

impl Drop for Item<'_> {
    fn drop(&mut self) {
        self.0.0.try_send(()).expect("there is room for it");
    }
}

impl ChannelLock {
    fn new() -> Self {
        let (sender, receiver) = channel(1);
        sender.try_send(()).unwrap();
        Self(sender, receiver)
    }

    async fn acquire(&self) -> Result<Item<'_>, Cancelled> {
        assert_eq!(self.1.recv().await?, Some(()));
        Ok(Item(self))
    }

    fn try_acquire(&self) -> Result<Item<'_>, TryRecvError> {
        self.1.try_recv().map(|()| Item(self))
    }
}

#[test]
fn r78_the_guard_is_the_lock() {
    run_virtual(async || {
        let mutex = Mutex::new(1);
        let mut guard = mutex.lock().await.unwrap();
        *guard += 1;
        assert!(mutex.is_locked());
        let refused: Result<_, WouldBlock> = mutex.try_lock();
        assert!(refused.is_err());
        drop(guard);
        assert!(!mutex.is_locked());
        assert_eq!(*mutex.try_lock().unwrap(), 2);
    });
}

#[test]
fn rwlock_readers_share_and_writers_do_not() {
    run_virtual(async || {
        let (lock, t) = (RwLock::new(0), Trace::new());
        local_nursery(async |n| -> Ended {
            for (name, write) in
                [("r1", false), ("r2", false), ("w1", true), ("r3", false), ("r4", false), ("w2", true)]
            {
                let (lock, t) = (&lock, &t);
                n.spawn(async move {
                    if write {
                        let mut guard = lock.write().await?;
                        *guard += 1;
                        t.note(name, *guard);
                        sleep(ms(10)).await
                    } else {
                        let guard = lock.read().await?;
                        t.note(name, *guard);
                        sleep(ms(10)).await
                    }
                });
            }
            Ok(())
        })
        .await
        .unwrap();
        // A reader does not pass a writer that waits, and those side by side go together.
        assert_eq!(t.lines(), ["0 r1 0", "0 r2 0", "10 w1 1", "20 r3 1", "20 r4 1", "30 w2 2"]);
    });
}

#[test]
fn r77_readers_behind_a_writer_that_gives_up_are_served() {
    run_virtual(async || {
        for cancel in [true, false] {
            let (lock, scope) = (RwLock::new(()), CancelScope::new());
            let reader = lock.read().await.unwrap();
            let mut writer = Box::pin(scope.run(lock.write()));
            assert!(poll_once(writer.as_mut()).await.is_pending());
            let mut waiting = begin(vec![lock.read(), lock.read()]).await;
            assert!(lock.try_read().is_err());
            if cancel {
                scope.cancel();
                assert!(writer.await.unwrap().is_none());
            } else {
                drop(writer);
            }
            let (one, two) = (served(waiting.remove(0)).await, served(waiting.remove(0)).await);
            drop((one, two, reader));
            assert!(lock.try_write().is_ok());
        }
    });
}

#[test]
fn n5_a_read_lock_that_was_given_and_not_looked_at_goes_on_to_the_writer() {
    run_virtual(async || {
        let lock = RwLock::new(());
        let writer = lock.write().await.unwrap();
        let readers = begin(vec![lock.read(), lock.read()]).await;
        let mut next = begin(vec![lock.write()]).await;
        drop(writer);
        drop(readers);
        drop(served(next.remove(0)).await);
        assert!(lock.try_write().is_ok());
    });
}

#[test]
fn r80_one_that_wants_many_is_not_passed_by_those_that_want_few() {
    run_virtual(async || {
        let semaphore = Semaphore::new(3);
        let two = semaphore.acquire(2).await.unwrap();
        let mut many = begin(vec![semaphore.acquire(3)]).await;
        let mut few = begin(vec![semaphore.acquire(1), semaphore.acquire(1)]).await;
        // There is one, and somebody waits.
        assert_eq!(semaphore.available(), 1);
        assert!(semaphore.try_acquire(1).is_err());
        drop(two);
        let three = served(many.remove(0)).await;
        assert_eq!((three.count(), semaphore.available()), (3, 0));
        drop(three);
        let (one, other) = (served(few.remove(0)).await, served(few.remove(0)).await);
        assert_eq!(semaphore.available(), 1);
        drop((one, other));
        assert_eq!(semaphore.available(), 3);
    });
}

#[test]
fn r77_those_behind_one_that_wanted_many_are_served_when_it_gives_up() {
    run_virtual(async || {
        for cancel in [true, false] {
            let (semaphore, scope) = (Semaphore::new(2), CancelScope::new());
            let mut many = Box::pin(scope.run(semaphore.acquire(5)));
            assert!(poll_once(many.as_mut()).await.is_pending());
            let mut few = begin(vec![semaphore.acquire(1), semaphore.acquire(1), semaphore.acquire(1)]).await;
            if cancel {
                scope.cancel();
                assert!(many.await.unwrap().is_none());
            } else {
                drop(many);
            }
            let held = (served(few.remove(0)).await, served(few.remove(0)).await);
            assert!(poll_once(few[0].as_mut()).await.is_pending());
            drop(held);
            drop(served(few.remove(0)).await);
            assert_eq!(semaphore.available(), 2);
        }
    });
}

#[test]
fn semaphore_permits_can_be_added_and_kept() {
    run_virtual(async || {
        let semaphore = Semaphore::new(0);
        let mut waiting = begin(vec![semaphore.acquire(2), semaphore.acquire(1)]).await;
        semaphore.add(1);
        assert!(poll_once(waiting[0].as_mut()).await.is_pending());
        semaphore.add(1);
        served(waiting.remove(0)).await.forget();
        assert_eq!(semaphore.available(), 0);
        semaphore.add(3);
        assert_eq!(semaphore.available(), 2);
        drop(served(waiting.remove(0)).await);
        assert_eq!(semaphore.available(), 3);
        // None is as good as no permit.
        drop(semaphore.acquire(0).await.unwrap());
        assert_eq!(semaphore.available(), 3);
    });
}

#[test]
fn r81_growing_serves_at_once_in_order_and_shrinking_revokes_nothing() {
    run_virtual(async || {
        let limiter = CapacityLimiter::new(0);
        let statistics = |total, borrowed, waiting| LimiterStatistics { total, borrowed, waiting };
        let mut waiting = begin((0..4).map(|_| limiter.acquire()).collect()).await;
        assert_eq!(limiter.statistics(), statistics(0, 0, 4));
        limiter.set_total(2);
        assert_eq!(limiter.statistics(), statistics(2, 2, 2));
        let (one, two) = (served(waiting.remove(0)).await, served(waiting.remove(0)).await);
        limiter.set_total(1);
        assert_eq!(limiter.statistics(), statistics(1, 2, 2));
        drop(one);
        // Still one too many.
        assert_eq!(limiter.statistics(), statistics(1, 1, 2));
        assert!(limiter.try_acquire().is_err());
        drop(two);
        assert_eq!(limiter.statistics(), statistics(1, 1, 1));
        let three = served(waiting.remove(0)).await;
        limiter.set_total(usize::MAX);
        assert_eq!(limiter.statistics(), statistics(usize::MAX, 2, 0));
        drop((three, served(waiting.remove(0)).await));
        let _many: Vec<_> = (0..100).map(|_| limiter.try_acquire().unwrap()).collect();
        assert_eq!(limiter.statistics(), statistics(usize::MAX, 100, 0));
    });
}

#[test]
fn r81_a_cancelled_waiter_leaves_no_trace() {
    run_virtual(async || {
        let limiter = CapacityLimiter::new(0);
        for _ in 0..50 {
            assert!(move_on_after(ms(1), limiter.acquire()).await.unwrap().is_none());
        }
        let scope = CancelScope::new();
        let mut waiting = Box::pin(scope.run(limiter.acquire()));
        assert!(poll_once(waiting.as_mut()).await.is_pending());
        scope.cancel();
        // Also where it has not looked.
        limiter.set_total(1);
        assert_eq!(limiter.statistics().borrowed, 0);
        drop(waiting);
        assert_eq!(limiter.statistics(), LimiterStatistics { total: 1, borrowed: 0, waiting: 0 });
    });
}

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

#[test]
fn barrier_lets_all_through_together_again_and_again_and_the_last_leads() {
    run_virtual(async || {
        let (barrier, t) = (Barrier::new(3), Trace::new());
        local_nursery(async |n| -> Ended {
            for (i, name) in ["a", "b", "c"].into_iter().enumerate() {
                let (barrier, t) = (&barrier, &t);
                n.spawn(async move {
                    for round in 0..2 {
                        sleep(ms(i as u64 + 1)).await?;
                        let leads = barrier.wait().await?;
                        t.note(name, format_args!("{round} {leads}"));
                    }
                    Ok(())
                });
            }
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(t.of("a"), ["3 a 0 false", "6 a 1 false"]);
        assert_eq!(t.of("b"), ["3 b 0 false", "6 b 1 false"]);
        assert_eq!(t.of("c"), ["3 c 0 true", "6 c 1 true"]);
        // Of one, or none: it does not wait.
        assert!(Barrier::new(1).wait().await.unwrap());
        assert!(Barrier::new(0).wait().await.unwrap());
    });
}

#[test]
fn r36_n5_a_cancelled_or_dropped_wait_at_a_barrier_does_not_count() {
    run_virtual(async || {
        let (barrier, scope) = (Barrier::new(2), CancelScope::new());
        let mut first = Box::pin(scope.run(barrier.wait()));
        assert!(poll_once(first.as_mut()).await.is_pending());
        scope.cancel();
        // It has not looked, and does not count all the same.
        let mut second = begin(vec![barrier.wait()]).await;
        assert_eq!(first.await, Ok(None));
        drop(second.remove(0));
        let mut third = begin(vec![barrier.wait()]).await;
        assert!(barrier.wait().await.unwrap());
        assert!(!served(third.remove(0)).await);
    });
}

#[test]
fn r18_a_barrier_that_was_reached_wins_over_a_cancel() {
    run_virtual(async || {
        let (barrier, scope) = (Barrier::new(2), CancelScope::new());
        let mut first = Box::pin(scope.run(barrier.wait()));
        assert!(poll_once(first.as_mut()).await.is_pending());
        assert!(barrier.wait().await.unwrap());
        scope.cancel();
        assert_eq!(first.await, Ok(Some(false)));
    });
}

#[test]
fn oneshot_gives_one_value_and_loses_none() {
    run_virtual(async || {
        // Sent first, and received first.
        let (tx, mut rx) = oneshot();
        tx.send(1).unwrap();
        assert_eq!(rx.recv().await, Ok(Some(1)));
        assert_eq!(rx.recv().await, Ok(None));
        let (tx, mut rx) = oneshot();
        local_nursery(async |n| -> Ended {
            n.spawn(async move {
                sleep(ms(1)).await?;
                tx.send(2).unwrap();
                Ok(())
            });
            assert_eq!(rx.recv().await?, Some(2));
            Ok(())
        })
        .await
        .unwrap();
        // Cancelled, then dropped after it was sent (N5): still there.
        let (tx, mut rx) = oneshot();
        assert_eq!(move_on_after(ms(1), rx.recv()).await, Ok(None));
        {
            let mut waiting = begin(vec![rx.recv()]).await;
            tx.send(3).unwrap();
            drop(waiting.remove(0));
        }
        assert_eq!(rx.try_recv(), Some(3));
        // R18.
        let ((tx, mut rx), scope) = (oneshot(), CancelScope::new());
        {
            let mut waiting = Box::pin(scope.run(rx.recv()));
            assert!(poll_once(waiting.as_mut()).await.is_pending());
            tx.send(4).unwrap();
            scope.cancel();
            assert_eq!(waiting.await, Ok(Some(Some(4))));
        }
        // R37: a value that is there is not taken in a cancelled scope.
        let ((tx, mut rx), scope) = (oneshot(), CancelScope::new());
        tx.send(5).unwrap();
        scope.cancel();
        assert_eq!(scope.run(rx.recv()).await, Ok(None));
        assert_eq!(rx.recv().await, Ok(Some(5)));
        // One side goes away.
        let (tx, mut rx) = oneshot::<u8>();
        {
            let mut waiting = begin(vec![rx.recv()]).await;
            drop(tx);
            assert_eq!(served(waiting.remove(0)).await, None);
        }
        let (tx, rx) = oneshot();
        assert!(!tx.is_closed());
        drop(rx);
        assert!(tx.is_closed());
        assert_eq!(tx.send("back"), Err("back"));
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

#[test]
fn watch_shows_the_latest_value_and_loses_no_change() {
    run_virtual(async || {
        let (tx, mut rx) = watch(0);
        assert_eq!(*rx.get(), 0);
        tx.set(1);
        tx.update(|value| value + 1);
        // Two changes are one.
        assert_eq!(rx.changed().await, Ok(true));
        assert_eq!(*rx.get(), 2);
        // Each receiver has seen what it has seen.
        let mut second = rx.clone();
        tx.set(3);
        assert_eq!(rx.changed().await, Ok(true));
        assert_eq!(second.changed().await, Ok(true));
        // Cancelled, then dropped after the change (N5): it is not lost.
        assert_eq!(move_on_after(ms(1), rx.changed()).await, Ok(None));
        {
            let mut waiting = begin(vec![rx.changed()]).await;
            tx.set(4);
            drop(waiting.remove(0));
        }
        assert_eq!(rx.changed().await, Ok(true));
        // R18.
        let scope = CancelScope::new();
        {
            let mut waiting = Box::pin(scope.run(rx.changed()));
            assert!(poll_once(waiting.as_mut()).await.is_pending());
            tx.set(5);
            scope.cancel();
            assert_eq!(waiting.await, Ok(Some(true)));
        }
        // The end, after what is new.
        tx.set(6);
        drop(tx);
        assert_eq!(rx.changed().await, Ok(true));
        assert_eq!((rx.changed().await, rx.changed().await), (Ok(false), Ok(false)));
        assert_eq!(*rx.get(), 6);
        assert_eq!((second.changed().await, second.changed().await), (Ok(true), Ok(false)));
    });
}

#[test]
fn watch_wakes_all_who_watch() {
    run_virtual(async || {
        let ((tx, rx), woken) = (watch(0), Cell::new(0));
        local_nursery(async |n| -> Ended {
            for _ in 0..5 {
                let (mut rx, woken) = (rx.clone(), &woken);
                n.spawn(async move {
                    while rx.changed().await? {
                        woken.set(woken.get() + *rx.get());
                    }
                    Ok(())
                });
            }
            for value in [1, 100] {
                sleep(ms(1)).await?;
                tx.set(value);
            }
            sleep(ms(1)).await?;
            drop(tx);
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(woken.get(), 505);
    });
}

#[test]
fn what_waits_may_go_between_threads() {
    fn send<T: Send>(_: &T) {}
    fn both<T: Send + Sync>(_: &T) {}
    run_virtual(async || {
        // `Cell` is `Send` and not `Sync`.
        let (mutex, rwlock, condition) = (Mutex::new(Cell::new(0)), RwLock::new(0), Condition::new());
        let (semaphore, limiter, barrier) = (Semaphore::new(1), CapacityLimiter::new(1), Barrier::new(1));
        let ((tx, mut rx), (set, mut get)) = (oneshot::<Cell<u8>>(), watch(0));
        both(&mutex);
        both(&rwlock);
        both(&condition);
        both(&semaphore);
        both(&limiter);
        both(&barrier);
        both(&tx);
        both(&rx);
        both(&set);
        both(&get);
        send(&mutex.lock());
        send(&rwlock.read());
        send(&rwlock.write());
        send(&semaphore.acquire(1));
        send(&limiter.acquire());
        send(&barrier.wait());
        send(&rx.recv());
        send(&get.changed());
        let guard = mutex.lock().await.unwrap();
        send(&guard);
        send(&condition.wait(guard));
    });
}

#[test]
fn locks_between_threads() {
    run_real(async || {
        let (total, permits) = (std::sync::Arc::new(Mutex::new(0)), std::sync::Arc::new(Semaphore::new(2)));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (total, permits) = (total.clone(), permits.clone());
                std::thread::spawn(move || {
                    trefoil_runtime::run(
                        std::rc::Rc::new(trefoil_runtime::ThreadDriver::new()),
                        trefoil_runtime::Options::default(),
                        std::panic::Location::caller(),
                        async {
                            nursery(async |n| -> Ended {
                                for _ in 0..20 {
                                    n.spawn(async {
                                        let _permit = permits.acquire(1).await?;
                                        let mut total = total.lock().await?;
                                        let before = *total;
                                        checkpoint().await?;
                                        *total = before + 1;
                                        Ok(())
                                    });
                                }
                                Ok(())
                            })
                            .await
                            .unwrap();
                        },
                    );
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!((*total.lock().await.unwrap(), permits.available()), (60, 2));
    });
}

#[test]
fn a_look_at_a_watched_value_keeps_nobody_from_setting_another() {
    /// Looks at the value that comes after it.
    struct Looks(Option<trefoil_nursery::sync::WatchReceiver<Option<Looks>>>, u32);
    impl Drop for Looks {
        fn drop(&mut self) {
            if let Some(receiver) = &self.0 {
                assert!(receiver.get().as_ref().is_none_or(|next| next.1 > self.1));
            }
        }
    }
    run_virtual(async || {
        let (tx, mut rx) = watch(None);
        tx.set(Some(Looks(Some(rx.clone()), 1)));
        let look = rx.get();
        // On the same thread, with the look still there.
        tx.set(Some(Looks(Some(rx.clone()), 2)));
        assert_eq!((look.as_ref().unwrap().1, rx.get().as_ref().unwrap().1), (1, 2));
        drop(look);
        assert_eq!(rx.changed().await, Ok(true));
        tx.set(None);
        // A change that sets another in the middle of it is made again, with that.
        let (tx, rx) = watch(1);
        let mut first = true;
        tx.update(|value| {
            if std::mem::take(&mut first) {
                tx.set(10);
            }
            value + 1
        });
        assert_eq!(*rx.get(), 11);
    });
}
