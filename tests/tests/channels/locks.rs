//! Read-write locks, semaphores and limiters, by what each has of its own: R77, R80, R81, N5; and locks between threads.
//!
//! | rule | here |
//! | --- | --- |
//! | R80 (`max_value`) | permits come back by the drop of what was acquired |

use super::waiting::{begin, served};
use std::cell::Cell;
use trefoil_nursery::sync::{
    Barrier, CapacityLimiter, Condition, LimiterStatistics, Mutex, RwLock, Semaphore, oneshot, watch,
};
use trefoil_nursery::{CancelScope, checkpoint, local_nursery, move_on_after, nursery, sleep};
use trefoil_tests::{Ended, Trace, begun, ms, poll_once, run_real, run_virtual};

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
            let writer = begun(scope.run(lock.write())).await;
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
        let next = begun(lock.write()).await;
        drop(writer);
        drop(readers);
        drop(served(next).await);
        assert!(lock.try_write().is_ok());
    });
}

#[test]
fn r80_one_that_wants_many_is_not_passed_by_those_that_want_few() {
    run_virtual(async || {
        let semaphore = Semaphore::new(3);
        let two = semaphore.acquire(2).await.unwrap();
        let many = begun(semaphore.acquire(3)).await;
        let mut few = begin(vec![semaphore.acquire(1), semaphore.acquire(1)]).await;
        // There is one, and somebody waits.
        assert_eq!(semaphore.available(), 1);
        assert!(semaphore.try_acquire(1).is_err());
        drop(two);
        let three = served(many).await;
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
            let many = begun(scope.run(semaphore.acquire(5))).await;
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
        let waiting = begun(scope.run(limiter.acquire())).await;
        scope.cancel();
        // Also where it has not looked.
        limiter.set_total(1);
        assert_eq!(limiter.statistics().borrowed, 0);
        drop(waiting);
        assert_eq!(limiter.statistics(), LimiterStatistics { total: 1, borrowed: 0, waiting: 0 });
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
