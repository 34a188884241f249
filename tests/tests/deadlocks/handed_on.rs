//! N10: a guard, or a future that has been polled, is handed to another task through a channel or a cell. Who acquired it is known, and who has it now is
//! not. So those that seem to wait for each other by that are no deadlock, and nobody is told that they are: they go on when the other one has done.

use futures::future::poll_immediate;
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use trefoil::sync::{Mutex, MutexGuard, OneshotReceiver, Semaphore, oneshot};
use trefoil::{Builder, Cancelled, Detection, DriverKind, RunError, channel, local_nursery, sleep};
use trefoil_tests::{Ended, Log, ms, run_real, run_virtual};

/// How a guard gets to another task.
#[derive(Clone, Copy, Debug)]
enum By {
    Oneshot,
    Channel,
    Cell,
}

/// The one acquires a lock, gives its guard away, and waits for the lock. The other one has the guard for a while.
async fn hands_on(by: By, lock: &Mutex<()>) {
    let (once, mut received) = oneshot::<MutexGuard<'_, ()>>();
    let (sender, receiver) = channel::<MutexGuard<'_, ()>>(1);
    let cell = RefCell::new(None);
    let ended = local_nursery(async |n| -> Ended {
        n.spawn(async {
            let guard = match by {
                By::Oneshot => received.recv().await?,
                By::Channel => receiver.recv().await?,
                By::Cell => loop {
                    sleep(ms(1)).await?;
                    if let Some(guard) = cell.borrow_mut().take() {
                        break Some(guard);
                    }
                },
            };
            sleep(ms(50)).await?;
            drop(guard.expect("it was given one"));
            Ok(())
        });
        n.spawn(async {
            let guard = lock.lock().await?;
            match by {
                By::Oneshot => once.send(guard).unwrap(),
                By::Channel => sender.try_send(guard).unwrap(),
                By::Cell => *cell.borrow_mut() = Some(guard),
            }
            lock.lock().await.map(drop)
        });
        Ok(())
    });
    ended.await.unwrap();
}

/// In real time not a word is said: it takes no second.
#[test]
fn n10_a_guard_that_was_handed_on_is_no_deadlock() {
    for by in [By::Oneshot, By::Channel, By::Cell] {
        let log = Log::default();
        run_real(async || hands_on(by, &Mutex::new(())).await);
        assert_eq!(*log.lines(), [""; 0], "{by:?}");
    }
}

/// In virtual time what is said is true: that none of them goes on by itself.
#[test]
fn n10_what_is_said_of_a_guard_that_was_handed_on_is_true() {
    for by in [By::Oneshot, By::Channel, By::Cell] {
        let log = Log::default();
        run_virtual(async || hands_on(by, &Mutex::new(())).await);
        assert!(log.lines().iter().all(|line| line.contains("has been handed what one of them had acquired")));
    }
}

/// Two tasks, each with the permit that the other one wants; but the one has handed its permit on.
#[test]
fn n10_tasks_that_wait_for_what_was_handed_on_are_no_deadlock() {
    let log = Log::default();
    run_real(async || {
        let (left, right) = (Semaphore::new(1), Semaphore::new(1));
        let (sender, receiver) = channel(1);
        let ended = local_nursery(async |n| -> Ended {
            n.spawn(async {
                sender.try_send(left.acquire(1).await?).unwrap();
                sleep(ms(1)).await?;
                right.acquire(1).await.map(drop)
            });
            n.spawn(async {
                let _right = right.acquire(1).await?;
                sleep(ms(1)).await?;
                left.acquire(1).await.map(drop)
            });
            n.spawn(async {
                let permit = receiver.recv().await?;
                sleep(ms(50)).await?;
                drop(permit);
                Ok(())
            });
            Ok(())
        });
        ended.await.unwrap();
    });
    assert_eq!(*log.lines(), [""; 0]);
}

type Wanted<'a> = Pin<Box<dyn Future<Output = Result<MutexGuard<'a, ()>, Cancelled>> + 'a>>;

/// A future that stands in the line of a lock goes to another task, and is handed the lock before that polls it.
#[test]
fn n10_a_polled_future_that_was_handed_on_is_no_deadlock() {
    let log = Log::default();
    run_real(async || {
        let lock = Mutex::new(());
        let (sender, receiver) = channel::<Wanted<'_>>(1);
        let ended = local_nursery(async |n| -> Ended {
            n.spawn(async {
                let guard = lock.lock().await?;
                sleep(ms(5)).await?;
                drop(guard);
                Ok(())
            });
            n.spawn(async {
                let mut wanted: Wanted<'_> = Box::pin(lock.lock());
                assert!(poll_immediate(&mut wanted).await.is_none());
                assert!(sender.try_send(wanted).is_ok());
                lock.lock().await.map(drop)
            });
            n.spawn(async {
                let wanted = receiver.recv().await?.unwrap();
                sleep(ms(50)).await?;
                wanted.await.map(drop)
            });
            Ok(())
        });
        ended.await.unwrap();
    });
    assert_eq!(*log.lines(), [""; 0]);
}

/// The receiver of a oneshot was polled by the one task and is awaited by another; the first one, which goes on to send, is in no cycle with itself.
#[test]
fn n10_a_polled_receiver_that_was_handed_on_is_no_deadlock() {
    for real in [false, true] {
        let log = Log::default();
        let program = async || {
            let (sender, mut receiver) = oneshot::<u8>();
            let (give, take) = oneshot::<OneshotReceiver<u8>>();
            let mut take = take;
            local_nursery(async |n| -> Ended {
                n.spawn(async {
                    assert!(poll_immediate(Box::pin(receiver.recv())).await.is_none());
                    assert!(give.send(receiver).is_ok());
                    sleep(ms(20)).await?;
                    sender.send(7).unwrap();
                    Ok(())
                });
                n.spawn(async move {
                    let mut receiver = take.recv().await?.unwrap();
                    assert_eq!(receiver.recv().await?, Some(7));
                    Ok(())
                });
                Ok(())
            })
            .await
            .unwrap();
        };
        if real {
            run_real(program)
        } else {
            run_virtual(program)
        }
        assert_eq!(*log.lines(), [""; 0]);
    }
}

/// What is said, on each driver, of two tasks that cross locks, of which the second one waits after so many milliseconds, and of so many others behind them.
/// The loop sleeps then until one deadline, far behind the second after which it is said.
fn said_while_it_sleeps(second: u64, others: usize) -> Vec<Vec<String>> {
    let on = |kind| {
        let log = Log::default();
        let ended = Builder::new().driver(kind).deadlock(Detection::Off).try_run(async {
            let (left, right) = (Mutex::new(()), Mutex::new(()));
            let ended = local_nursery(async |n| -> Ended {
                for (one, other, length) in [(&left, &right, 1), (&right, &left, second)] {
                    n.spawn(async move {
                        let _one = one.lock().await?;
                        sleep(ms(length)).await?;
                        other.lock().await.map(drop)
                    });
                }
                sleep(ms(1)).await?;
                for _ in 0..others {
                    n.spawn(async { left.lock().await.map(drop) });
                }
                sleep(ms(5_000)).await?;
                n.cancel();
                Ok(())
            });
            ended.await.unwrap();
        });
        if let Err(error @ RunError::DriverUnavailable { .. }) = &ended {
            println!("skipped: {error}");
            return None;
        }
        let lines = log.lines().clone();
        Some(lines)
    };
    [DriverKind::Epoll, DriverKind::IoUring].into_iter().filter_map(on).collect()
}

/// A cycle that stands is told of, once, though nothing else happens in the loop: it wakes up for that.
#[test]
fn n10_a_cycle_that_stands_for_a_second_is_told_of_in_a_run_that_sleeps() {
    for lines in said_while_it_sleeps(1, 0) {
        assert_eq!(lines.len(), 1, "{lines:?}");
        let waited = lines[0].lines().filter(|line| line.contains(" waits for a lock at ")).collect::<Vec<_>>();
        assert!(!waited.is_empty() && waited.iter().all(|line| line.contains(" since 1.")), "{lines:?}");
    }
}

/// Also one whose last edge closes so soon after a search that it is not yet time for another, if nothing but the search could wake the loop then: among so
/// many a search takes a while, and then there is none for many times that.
#[test]
fn n10_a_cycle_that_closes_just_after_a_search_is_told_of_in_a_run_that_sleeps() {
    for lines in said_while_it_sleeps(4, 3_000) {
        assert_eq!(lines.len(), 1, "{lines:?}");
    }
}
