//! Some tasks wait for each other, while others go on: a cycle is a warning at once, and ends the run after a minute.

use super::{busy, crossed, cycle, partial};
use std::future::Future;
use std::io;
use std::panic::Location;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};
use trefoil::sync::{Mutex, RwLock, Semaphore, oneshot};
use trefoil::{
    Builder, CancelScope, Cancelled, Detection, DriverKind, Join, RunError, channel, checkpoint, local_nursery, now,
    nursery, sleep, sleep_forever, yield_now,
};
use trefoil_runtime::{Driver, Options, ThreadDriver, Unpark};
use trefoil_tests::{Ended, Log, deadlocks, listen, ms};

/// But one that another thread wakes again and again never gets to such a report; also where its loop always looks for a while, and finds something.
#[test]
fn n10_a_cycle_is_told_of_in_a_run_that_a_thread_keeps_going() {
    let spins = [ms(0), ms(1_000)];
    for (kind, spin) in
        [DriverKind::Epoll, DriverKind::IoUring].into_iter().flat_map(|kind| spins.map(|spin| (kind, spin)))
    {
        let log = Log::default();
        let (sender, receiver) = channel::<()>(1);
        let stop = Arc::new(AtomicUsize::new(0));
        let stopped = stop.clone();
        let feeder = std::thread::spawn(move || {
            while stopped.load(SeqCst) == 0 && sender.send_blocking(()).is_ok() {
                std::thread::sleep(ms(1));
            }
        });
        Builder::new().driver(kind).spin(spin).run(async {
            let (left, right) = (Mutex::new(()), Mutex::new(()));
            let ended = nursery(async |n| -> Ended {
                n.spawn(crossed(&left, &right));
                n.spawn(crossed(&right, &left));
                while !log.lines().iter().any(|line| line.starts_with("deadlock (N10): some tasks wait for each other"))
                {
                    receiver.recv().await?;
                }
                n.cancel();
                Ok(())
            });
            ended.await.unwrap();
        });
        stop.store(1, SeqCst);
        drop(receiver);
        feeder.join().unwrap();
    }
}

/// Nor does a loop that never sleeps, whatever it is that goes on and on there.
#[test]
fn n10_a_cycle_is_told_of_in_a_run_that_is_always_busy() {
    for inner in [false, true] {
        let log = Log::default();
        let told = || log.lines().iter().any(|line| line.starts_with("deadlock (N10): some tasks wait for each other"));
        Builder::new().run(async {
            let (left, right) = (Mutex::new(()), Mutex::new(()));
            let spins = async || -> Ended {
                let begin = Instant::now();
                while !told() && begin.elapsed() < Duration::from_secs(60) {
                    for _ in 0..100 {
                        yield_now().await;
                    }
                }
                Ok(())
            };
            local_nursery(async |n| -> Ended {
                n.spawn(crossed(&left, &right));
                n.spawn(crossed(&right, &left));
                if inner {
                    local_nursery(async |inner| -> Ended {
                        inner.spawn(spins());
                        Ok(())
                    })
                    .await
                    .unwrap();
                } else {
                    spins().await?;
                }
                n.cancel();
                Ok(())
            })
            .await
            .unwrap();
        });
        assert!(told(), "{inner}");
    }
}

#[test]
fn n10_a_cycle_is_found_while_others_go_on() {
    let base = line!();
    for report in deadlocks(partial(), async || {
        let (left, right) = (Mutex::new(()), RwLock::new(()));
        let ended = nursery(async |n| -> Ended {
            n.spawn(busy());
            n.spawn(async {
                let _left = left.lock().await?;
                checkpoint().await?;
                right.write().await.map(drop)
            });
            n.spawn(async {
                let _right = right.read().await?;
                sleep(ms(50)).await?;
                left.lock().await.map(drop)
            });
            Ok(())
        })
        .await;
        ended.is_err()
    }) {
        assert_eq!(cycle(&report), [base + 5, base + 10], "{report}");
        assert_eq!(report.tasks().len(), 2, "{report}");
        assert!(report.to_string().starts_with("deadlock (N10): some tasks wait for each other"), "{report}");
    }
}

/// A wait that was polled by a combinator of others at first, which may wake it, is the task's own once that polls it.
#[test]
fn n10_a_cycle_is_found_whoever_polled_its_waits_before() {
    for foreign in [false, true] {
        for report in deadlocks(partial(), async move || {
            let (left, right) = (Mutex::new(()), Mutex::new(()));
            let ended = nursery(async |n| -> Ended {
                n.spawn(busy());
                n.spawn(async {
                    let _left = left.lock().await?;
                    sleep(ms(1)).await?;
                    let mut wait = pin!(right.lock());
                    if foreign {
                        assert!(wait.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
                    }
                    wait.await.map(drop)
                });
                n.spawn(async {
                    let _right = right.lock().await?;
                    sleep(ms(1)).await?;
                    left.lock().await.map(drop)
                });
                Ok(())
            });
            ended.await.is_err()
        }) {
            assert_eq!(cycle(&report).len(), 2, "{foreign}: {report}");
        }
    }
}

/// Row 23: the shortest cycle.
#[test]
fn n10_a_lock_taken_again_by_its_holder_is_a_cycle() {
    let base = line!();
    for report in deadlocks(partial(), async || {
        let lock = Mutex::new(());
        let ended = nursery(async |n| -> Ended {
            n.spawn(busy());
            n.spawn(async {
                let _guard = lock.lock().await?;
                lock.lock().await.map(drop)
            });
            Ok(())
        })
        .await;
        ended.is_err()
    }) {
        assert_eq!(cycle(&report), [base + 5], "{report}");
    }
}

/// By way of a nursery: who has the lock waits for a child that wants it.
#[test]
fn n10_a_nursery_that_waits_for_a_child_is_an_edge() {
    for report in deadlocks(partial(), async || {
        let lock = Mutex::new(());
        let ended = nursery(async |n| -> Ended {
            n.spawn(busy());
            n.spawn(async {
                let _guard = lock.lock().await?;
                let inner = nursery(async |n| -> Ended {
                    n.spawn(async { lock.lock().await.map(drop) });
                    Ok(())
                });
                inner.await.map_err(|_| Cancelled::delivered())
            });
            Ok(())
        })
        .await;
        ended.is_err()
    }) {
        assert_eq!(cycle(&report).len(), 2, "{report}");
    }
}

/// While it stands it is a warning, once, from the instant on in which its last edge closes.
#[test]
fn n10_a_cycle_is_a_warning_at_once_and_a_failure_after_a_minute() {
    let log = Log::default();
    for report in deadlocks(partial(), async || {
        let lock = Mutex::new(());
        let begin = trefoil::now();
        log.lines().clear();
        let ended = local_nursery(async |n| -> Ended {
            n.spawn(async {
                let _guard = lock.lock().await?;
                sleep(ms(325)).await?;
                lock.lock().await.map(drop)
            });
            let mut seen = Vec::new();
            while sleep(ms(50)).await.is_ok() {
                seen.push(log.lines().len());
            }
            // One after 325 ms, and no more; the end after a minute since then.
            assert_eq!(seen.iter().filter(|said| **said == 0).count(), 6);
            assert_eq!(seen.last(), Some(&1));
            assert_eq!(trefoil::now() - begin, ms(60_350));
            let warning = log.lines()[0].clone();
            let begin = "deadlock (N10): some tasks wait for each other, and none of them can go on";
            assert!(warning.starts_with(begin), "{warning}");
            Ok(())
        })
        .await;
        ended.is_err()
    }) {
        assert_eq!(cycle(&report).len(), 1, "{report}");
        let text = report.to_string();
        assert!(text.starts_with("deadlock (N10): some tasks wait for each other, and have for 60.0 s"), "{text}");
    }
}

/// In real time a cycle is told of when it has stood for a second, and once: also one of tasks that wait for each other's end, and have nothing that is
/// wanted. That somebody wants a lock for a moment is what makes the loop look.
#[test]
fn n10_tasks_that_join_each_other_are_told_of_after_a_second() {
    let log = Log::default();
    Builder::new().driver(DriverKind::Epoll).run(async {
        let lock = Mutex::new(());
        let ended = local_nursery(async |n| -> Ended {
            let (give_one, mut take_one) = oneshot::<Join<'_, ()>>();
            let (give_two, mut take_two) = oneshot::<Join<'_, ()>>();
            let one = n.spawn(async move {
                let two = take_one.recv().await?.unwrap();
                two.await
            });
            let two = n.spawn(async move {
                let one = take_two.recv().await?.unwrap();
                one.await
            });
            assert!(give_one.send(two).is_ok() && give_two.send(one).is_ok());
            sleep(ms(20)).await?;
            n.spawn(async {
                let _guard = lock.lock().await?;
                checkpoint().await
            });
            n.spawn(async { lock.lock().await.map(drop) });
            let lines = || log.lines().iter().filter(|line| line.starts_with("deadlock (N10)")).count();
            for _ in 0..200 {
                sleep(ms(50)).await?;
                if lines() > 0 {
                    break;
                }
            }
            sleep(ms(300)).await?;
            assert_eq!(lines(), 1);
            n.cancel();
            Ok(())
        });
        ended.await.unwrap();
    });
}

/// Of two cycles through one task, each is told of once, when its time has come.
#[test]
fn n10_a_cycle_that_was_told_of_is_not_told_again_with_one_beside_it() {
    let log = Log::default();
    Builder::new().driver(DriverKind::Epoll).run(async {
        let (lock, shared) = (Mutex::new(()), RwLock::new(()));
        let reads = async |waits: u64| -> Ended {
            let _reads = shared.read().await?;
            sleep(ms(waits)).await?;
            lock.lock().await.map(drop)
        };
        let ended = nursery(async |n| -> Ended {
            n.spawn_named("first", reads(20));
            n.spawn_named("second", reads(500));
            n.spawn_named("writes", async {
                let _locked = lock.lock().await?;
                checkpoint().await?;
                shared.write().await.map(drop)
            });
            let told =
                || log.lines().iter().filter(|line| line.starts_with("deadlock (N10)")).cloned().collect::<Vec<_>>();
            for _ in 0..200 {
                sleep(ms(50)).await?;
                if told().len() == 2 {
                    break;
                }
            }
            let told = told();
            assert_eq!(told.len(), 2);
            let tells = |report: &str, of: &str| report.lines().any(|line| line.starts_with(&format!("- task `{of}`")));
            assert_eq!(["first", "second"].map(|of| tells(&told[0], of)), [true, false], "{}", told[0]);
            assert_eq!(["first", "second"].map(|of| tells(&told[1], of)), [false, true], "{}", told[1]);
            n.cancel();
            Ok(())
        });
        ended.await.unwrap();
    });
}

/// In real time it is ten seconds, and the run looks again by then though nothing else would wake it for an hour. Each driver in a thread of its own.
#[test]
fn n10_in_real_time_a_cycle_that_stands_ends_a_run_that_sleeps() {
    std::thread::scope(|threads| {
        for kind in [DriverKind::Epoll, DriverKind::IoUring] {
            threads.spawn(move || {
                let begin = std::time::Instant::now();
                let builder = Builder::new().driver(kind).cycles_end(true).deadlock(Detection::Off);
                if builder.clone().try_run(async {}).is_err() {
                    return println!("skipped on {kind:?}");
                }
                let ended = builder.try_run(async {
                    let lock = Mutex::new(());
                    local_nursery(async |n| -> Ended {
                        n.spawn(sleep(ms(3_600_000)));
                        let _guard = lock.lock().await?;
                        lock.lock().await.map(drop)
                    })
                    .await
                });
                let Err(RunError::Deadlock(report)) = ended else { panic!("it was to end with a report") };
                assert!(begin.elapsed() >= ms(10_000));
                assert_eq!(report.cycles().count(), 1, "{report}");
                assert!(report.to_string().contains("and have for 10.0 s"), "{report}");
            });
        }
    });
}

/// R80: who wants one permit waits behind who wants two. A reader waits behind a writer that waits.
#[test]
fn n10_a_place_in_a_line_is_an_edge() {
    let base = line!();
    for report in deadlocks(partial(), async || {
        let lock = RwLock::new(());
        let ended = nursery(async |n| -> Ended {
            n.spawn(busy());
            n.spawn_named("reads twice", async {
                let _first = lock.read().await?;
                sleep(ms(2)).await?;
                lock.read().await.map(drop) // base + 8
            });
            n.spawn_named("writes", async {
                sleep(ms(1)).await?;
                lock.write().await.map(drop) // base + 12
            });
            Ok(())
        })
        .await;
        ended.is_err()
    }) {
        assert_eq!(cycle(&report), [base + 5, base + 10], "{report}");
        let reader = report.tasks().iter().find(|task| task.name() == Some("reads twice")).unwrap();
        let writer = report.tasks().iter().find(|task| task.name() == Some("writes")).unwrap();
        assert_eq!(reader.waits()[0].in_line_behind(), Some(writer.task()));
        assert_eq!(writer.waits()[0].in_line_behind(), None);
        let text = report.to_string();
        let behind = format!("in line behind task `writes` (others_go_on.rs:{})", base + 10);
        assert!(
            text.contains(&format!("waits for a lock at others_go_on.rs:{}", base + 8)) && text.contains(&behind),
            "{text}"
        );
    }
    // A permit is there, and who wants it holds what the one in front waits for.
    for report in deadlocks(partial(), async || {
        let (permits, lock) = (Semaphore::new(3), Mutex::new(()));
        let ended = nursery(async |n| -> Ended {
            n.spawn(busy());
            n.spawn(async {
                let _two = permits.acquire(2).await?;
                sleep(ms(1)).await?;
                lock.lock().await.map(drop)
            });
            n.spawn(async {
                let _lock = lock.lock().await?;
                sleep(ms(3)).await?;
                permits.acquire(1).await.map(drop)
            });
            n.spawn(async {
                sleep(ms(2)).await?;
                permits.acquire(3).await.map(drop)
            });
            Ok(())
        })
        .await;
        ended.is_err()
    }) {
        assert_eq!(report.cycles().next().unwrap().len(), 3, "{report}");
    }
}

/// A driver that notes that it sleeps.
#[derive(Debug)]
struct Notes(ThreadDriver, Arc<AtomicUsize>);

impl Driver for Notes {
    fn name(&self) -> &'static str {
        "one that notes"
    }
    fn park(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.1.fetch_add(1, SeqCst);
        self.0.park(timeout)
    }
    fn poll(&self) -> io::Result<()> {
        self.0.poll()
    }
    fn unparker(&self) -> Arc<dyn Unpark> {
        self.0.unparker()
    }
}

/// Who hears of a cycle, in the middle of the loop's look at it, sets a deadline that is due: the run does not sleep before that is applied.
#[test]
fn a_deadline_set_by_who_hears_of_a_cycle_is_applied_before_the_run_sleeps() {
    let (scope, sleeps) = (CancelScope::new(), Arc::new(AtomicUsize::new(0)));
    let (remote, slept, told) = (scope.clone(), sleeps.clone(), Arc::new(AtomicUsize::new(0)));
    let tells = told.clone();
    let _listens = listen(move |line| {
        if line.starts_with("deadlock (N10): some tasks wait for each other") && tells.fetch_add(1, SeqCst) == 0 {
            slept.store(0, SeqCst);
            remote.set_deadline(Some(now()));
        }
    });
    let driver = Rc::new(Notes(ThreadDriver::new(), sleeps.clone()));
    let options = Options { deadlock: Detection::After(ms(60_000)), ..Options::default() };
    trefoil_runtime::run(driver, options, Location::caller(), async {
        let (left, right) = (Mutex::new(()), Mutex::new(()));
        let ended = nursery(async |n| -> Ended {
            n.spawn(crossed(&left, &right));
            n.spawn(crossed(&right, &left));
            assert!(scope.run(sleep_forever()).await?.is_none());
            assert_eq!((told.load(SeqCst), sleeps.load(SeqCst)), (1, 0));
            n.cancel();
            Ok(())
        });
        ended.await.unwrap();
    });
}
