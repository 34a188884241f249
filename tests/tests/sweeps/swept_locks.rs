//! What is held or waited at: locks, permits, tokens, conditions and barriers. R36, R77, R81, N1.

use super::{Counted, sweep};
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicUsize, Ordering};
use trefoil_nursery::{checkpoint, local_nursery, sleep, sync};
use trefoil_tests::{Ended, ms};

#[test]
fn r77_locks() {
    sweep(2, async |cut| {
        let (lock, log) = (sync::Mutex::new(0), RefCell::new(Vec::new()));
        let use_it = async |name: &'static str| -> Ended {
            for _ in 0..2 {
                let mut guard = lock.lock().await?;
                let before = *guard;
                checkpoint().await?;
                *guard = before + 1;
                log.borrow_mut().push(name);
            }
            Ok(())
        };
        local_nursery(async |n| -> Ended {
            n.spawn(use_it("a"));
            n.spawn(async { cut.run(use_it("cut")).await.map(drop) });
            n.spawn(use_it("b"));
            Ok(())
        })
        .await
        .unwrap();
        assert!(!lock.is_locked());
        let log = log.into_inner();
        assert_eq!(lock.into_inner(), log.len());
        assert_eq!(log.iter().filter(|&&name| name != "cut").count(), 4);
    });
}

#[test]
fn r77_permits() {
    sweep(2, async |cut| {
        let permits = sync::Semaphore::new(3);
        let done = Cell::new(0);
        let use_them = async |many: usize| -> Ended {
            for _ in 0..2 {
                let _held = permits.acquire(many).await?;
                sleep(ms(1)).await?;
                done.set(done.get() + 1);
            }
            Ok(())
        };
        local_nursery(async |n| -> Ended {
            n.spawn(use_them(2));
            n.spawn(async { cut.run(use_them(3)).await.map(drop) });
            n.spawn(use_them(1));
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(permits.available(), 3);
        assert!(done.get() >= 4);
    });
}

#[test]
fn r81_tokens() {
    sweep(1, async |cut| {
        let limiter = sync::CapacityLimiter::new(1);
        let use_one = async || -> Ended {
            let _token = limiter.acquire().await?;
            sleep(ms(1)).await
        };
        local_nursery(async |n| -> Ended {
            n.spawn(use_one());
            n.spawn(async { cut.run(use_one()).await.map(drop) });
            n.spawn(use_one());
            Ok(())
        })
        .await
        .unwrap();
        drop(limiter.try_acquire().expect("nobody has it"));
    });
}

/// A notification goes to somebody who is there to hear it.
#[test]
fn n1_notifications() {
    sweep(2, async |cut| {
        let (items, more) = (sync::Mutex::new(0), sync::Condition::new());
        let taken = Cell::new(0);
        let take = async || -> Ended {
            let mut guard = items.lock().await?;
            while *guard == 0 {
                let (again, ended) = more.wait(guard).await;
                guard = again;
                ended?;
            }
            *guard -= 1;
            taken.set(taken.get() + 1);
            Ok(())
        };
        local_nursery(async |n| -> Ended {
            n.spawn(async { cut.run(take()).await.map(drop) });
            n.spawn(take());
            sleep(ms(1)).await?;
            // One item: whoever is left takes it.
            let mut guard = items.lock().await?;
            *guard += 1;
            more.notify_one(&guard);
            drop(guard);
            sleep(ms(1)).await?;
            n.cancel();
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(taken.get(), 1);
    });
}

#[test]
fn r77_readers_and_writers() {
    for cut_writes in [false, true] {
        sweep(1, async |cut| {
            let (lock, readers) = (sync::RwLock::new(0), AtomicUsize::new(0));
            let read = async || -> Ended {
                let _guard = lock.read().await?;
                let _count = Counted::new(&readers);
                sleep(ms(2)).await
            };
            let write = async || -> Ended {
                let mut guard = lock.write().await?;
                assert_eq!(readers.load(Ordering::Relaxed), 0);
                let before = *guard;
                sleep(ms(1)).await?;
                *guard = before + 1;
                Ok(())
            };
            local_nursery(async |n| -> Ended {
                n.spawn(read());
                n.spawn(async {
                    match cut_writes {
                        true => cut.run(write()).await.map(drop),
                        false => cut.run(read()).await.map(drop),
                    }
                });
                n.spawn(write());
                n.spawn(read());
                Ok(())
            })
            .await
            .unwrap();
            assert_eq!(readers.load(Ordering::Relaxed), 0);
            let written = *lock.try_write().expect("nobody has it");
            assert!(written == 1 || (cut_writes && written == 2), "{written}");
        });
    }
}

/// Who leaves a barrier does not count.
#[test]
fn r36_barriers() {
    sweep(1, async |cut| {
        let barrier = sync::Barrier::new(2);
        let through = Cell::new(0);
        let pass = async || -> Ended {
            barrier.wait().await?;
            through.set(through.get() + 1);
            Ok(())
        };
        local_nursery(async |n| -> Ended {
            n.spawn(async {
                let passed = cut.run(pass()).await?.is_some();
                // In its place. If it was dropped when it had passed, and did not know, the other one is through.
                if !passed && through.get() == 0 {
                    trefoil_nursery::move_on_after(ms(10), pass()).await?;
                }
                Ok(())
            });
            n.spawn(async {
                sleep(ms(1)).await?;
                pass().await
            });
            Ok(())
        })
        .await
        .unwrap();
        assert!(through.get() >= 1);
    });
}
