//! `asyncio::Queue`, `LifoQueue` and `PriorityQueue`, by their rules (Q).

use crate::asyncio_support::{Fault, Is, Log, program, task, turn, turns};
use std::cell::Cell;
use std::cmp::Ordering;
use std::rc::Rc;
use trefoil::asyncio::{
    GetError, GetNowaitError, LifoQueue, PriorityQueue, PutError, PutNowaitError, Queue, Task, sleep, wait_for,
};
use trefoil_tests::{begun, ms};

type Numbers = Rc<Queue<u32>>;

fn queue(maxsize: usize) -> Numbers {
    Rc::new(Queue::new(maxsize))
}

fn of_get(error: GetError) -> Fault {
    match error {
        GetError::Cancelled(_) => Fault::Cancelled,
        GetError::ShutDown => Fault::Named("shut down"),
    }
}

fn of_put(error: PutError<u32>) -> Fault {
    match error {
        PutError::Cancelled(..) => Fault::Cancelled,
        PutError::ShutDown(_) => Fault::Named("shut down"),
    }
}

/// A task that gets one, and notes it.
fn getter(queue: &Numbers, log: &Log, name: &'static str) -> Task<u32, Fault> {
    let (queue, log) = (queue.clone(), log.clone());
    task(async move {
        let item = queue.get().await.map_err(of_get)?;
        log.note(format!("{name} got {item}"));
        Ok(item)
    })
}

/// A task that puts one, and notes it.
fn putter(queue: &Numbers, log: &Log, item: u32) -> Task<(), Fault> {
    let (queue, log) = (queue.clone(), log.clone());
    task(async move {
        queue.put(item).await.map_err(of_put)?;
        log.note(format!("put {item}"));
        Ok(())
    })
}

#[test]
fn aio_q01_waiters_are_woken_in_order_one_for_each_item_and_each_place() {
    program(async |log| {
        let empty = queue(0);
        let (_a, _b, _c) = (getter(&empty, &log, "a"), getter(&empty, &log, "b"), getter(&empty, &log, "c"));
        turn().await?;
        empty.put_nowait(1).unwrap();
        empty.put_nowait(2).unwrap();
        turns(3).await?;
        log.expect(["0 a got 1", "0 b got 2"]);

        let full = queue(1);
        full.put_nowait(0).unwrap();
        let (_d, _e) = (putter(&full, &log, 1), putter(&full, &log, 2));
        turn().await?;
        assert_eq!(full.get_nowait(), Ok(0));
        turns(3).await?;
        log.expect(["0 put 1"]);
        Ok(())
    });
}

#[test]
fn aio_q02_what_need_not_wait_does_not_give_up_the_turn() {
    program(async |_| {
        let numbers = queue(1);
        let ran = Rc::new(Cell::new(false));
        let _other = task({
            let ran = ran.clone();
            async move {
                ran.set(true);
                Ok(())
            }
        });
        numbers.put(1).await.unwrap();
        assert_eq!(numbers.get().await, Ok(1));
        numbers.task_done().unwrap();
        numbers.join().await?;
        assert!(!ran.get());
        Ok(())
    });
}

#[test]
fn aio_q03_who_does_not_wait_may_come_first_and_the_waiter_waits_again() {
    program(async |log| {
        let numbers = queue(0);
        let (a, b) = (getter(&numbers, &log, "a"), getter(&numbers, &log, "b"));
        turn().await?;
        numbers.put_nowait(1).unwrap();
        assert_eq!(numbers.get_nowait(), Ok(1));
        turn().await?;
        // At the end of the line now.
        numbers.put_nowait(2).unwrap();
        numbers.put_nowait(3).unwrap();
        assert_eq!((b.await?, a.await?), (2, 3));
        log.expect(["0 b got 2", "0 a got 3"]);
        Ok(())
    });
}

#[test]
fn aio_q04_a_waiter_that_is_cancelled_when_it_was_woken_wakes_the_next() {
    program(async |log| {
        let numbers = queue(0);
        let (a, b) = (getter(&numbers, &log, "a"), getter(&numbers, &log, "b"));
        turn().await?;
        numbers.put_nowait(1).unwrap();
        a.cancel();
        assert_eq!((a.await, b.await), (Err(Fault::Cancelled), Ok(1)));

        let full = queue(1);
        full.put_nowait(0).unwrap();
        let (c, d) = (putter(&full, &log, 1), putter(&full, &log, 2));
        turn().await?;
        assert_eq!(full.get_nowait(), Ok(0));
        c.cancel();
        assert_eq!((c.await, d.await), (Err(Fault::Cancelled), Ok(())));
        assert_eq!(full.get_nowait(), Ok(2));
        Ok(())
    });
}

#[test]
fn aio_q04_a_wait_that_is_dropped_when_it_was_woken_wakes_the_next() {
    program(async |log| {
        let numbers = queue(0);
        let dropped = numbers.clone();
        let a = task(async move {
            // Dropped by the turn, in which it is woken.
            let got = trefoil_tests::drop_at(1, dropped.get()).await;
            assert!(got.is_none());
            Ok(())
        });
        let get = begun(numbers.get()).await;
        let b = getter(&numbers, &log, "b");
        a.await?;
        turn().await?;
        numbers.put_nowait(7).unwrap();
        drop(get);
        assert_eq!(b.await, Ok(7));
        Ok(())
    });
}

#[test]
fn aio_q05_cancelled_waiters_do_not_stay() {
    program(async |log| {
        let numbers = queue(0);
        for _ in 0..1000 {
            let late = wait_for(getter(&numbers, &log, "late"), ms(1)).await;
            assert_eq!(late, Err(Fault::TimedOut));
        }
        let b = getter(&numbers, &log, "b");
        turn().await?;
        numbers.put_nowait(1).unwrap();
        assert_eq!(b.await, Ok(1));
        Ok(())
    });
}

#[test]
fn aio_q06_q07_a_maxsize_of_0_is_no_bound_and_only_what_does_not_wait_says_full_or_empty() {
    let free = queue(0);
    for n in 0..1000 {
        free.put_nowait(n).unwrap();
    }
    assert!(!free.full() && free.qsize() == 1000 && free.maxsize() == 0);
    let small = queue(2);
    assert_eq!(small.get_nowait(), Err(GetNowaitError::Empty));
    small.put_nowait(1).unwrap();
    small.put_nowait(2).unwrap();
    assert!(small.full());
    assert_eq!(small.put_nowait(3), Err(PutNowaitError::Full(3)));
}

#[test]
fn aio_q08_more_done_than_put_in_is_an_error() {
    let numbers = queue(0);
    assert!(numbers.task_done().is_err());
    numbers.put_nowait(1).unwrap();
    // Not bound to what was taken out.
    assert!(numbers.task_done().is_ok() && numbers.task_done().is_err());
}

#[test]
fn aio_q09_join_waits_for_the_last_one_and_all_who_join_go_on() {
    program(async |log| {
        let numbers = queue(0);
        numbers.join().await?;
        numbers.put_nowait(1).unwrap();
        numbers.put_nowait(2).unwrap();
        let joins: Vec<_> = ["a", "b"]
            .map(|name| {
                let (numbers, log) = (numbers.clone(), log.clone());
                task(async move {
                    numbers.join().await?;
                    log.note(name);
                    Ok(())
                })
            })
            .into();
        sleep(ms(1)).await?;
        numbers.task_done().unwrap();
        sleep(ms(1)).await?;
        log.expect([]);
        numbers.task_done().unwrap();
        for join in joins {
            join.await?;
        }
        log.expect(["2 a", "2 b"]);
        Ok(())
    });
}

#[test]
fn aio_q10_the_least_or_the_last_comes_out() {
    let stack = LifoQueue::new(0);
    let heap = PriorityQueue::new(0);
    for n in [3, 1, 2] {
        stack.put_nowait(n).unwrap();
        heap.put_nowait(n).unwrap();
    }
    let all = |next: &dyn Fn() -> Result<i32, GetNowaitError>| [(); 3].map(|()| next().unwrap());
    assert_eq!(all(&|| stack.get_nowait()), [2, 1, 3]);
    assert_eq!(all(&|| heap.get_nowait()), [1, 2, 3]);
}

/// Compared by its first part alone.
#[derive(Debug)]
struct Job(u32, u32);

impl Ord for Job {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

impl PartialOrd for Job {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Job {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Job {}

#[test]
fn aio_q10_equal_ones_come_out_as_of_heapq() {
    let heap = PriorityQueue::new(0);
    for n in 0..10 {
        heap.put_nowait(Job(n * 7 % 3, n)).unwrap();
    }
    let got: Vec<u32> = std::iter::from_fn(|| heap.get_nowait().ok()).map(|job| job.1).collect();
    // What CPython 3.13 gives.
    assert_eq!(got, [0, 6, 3, 9, 4, 1, 7, 5, 2, 8]);
}

#[test]
fn aio_q11_after_a_shutdown_nothing_goes_in_and_what_is_left_comes_out() {
    program(async |log| {
        let numbers = queue(1);
        numbers.put_nowait(1).unwrap();
        let blocked = putter(&numbers, &log, 2);
        turn().await?;
        numbers.shutdown();
        assert_eq!(numbers.put_nowait(3), Err(PutNowaitError::ShutDown(3)));
        assert_eq!(numbers.put(4).await, Err(PutError::ShutDown(4)));
        assert_eq!(blocked.await, Err(Fault::Named("shut down")));
        assert_eq!(numbers.get().await, Ok(1));
        assert_eq!(numbers.get().await, Err(GetError::ShutDown));
        assert_eq!(numbers.get_nowait(), Err(GetNowaitError::ShutDown));
        Ok(())
    });
}

#[test]
fn aio_q12_shut_down_at_once_what_is_left_is_given_back_and_counts_as_done() {
    program(async |log| {
        let numbers = queue(0);
        for n in 1..=3 {
            numbers.put_nowait(n).unwrap();
        }
        assert_eq!(numbers.get_nowait(), Ok(1));
        let join = {
            let (numbers, log) = (numbers.clone(), log.clone());
            task(async move {
                numbers.join().await?;
                log.note("joined");
                Ok(())
            })
        };
        sleep(ms(1)).await?;
        assert_eq!(numbers.shutdown_now(), [2, 3]);
        sleep(ms(1)).await?;
        log.expect([]);
        // The one that was taken out is waited for.
        numbers.task_done().unwrap();
        join.await?;
        log.expect(["2 joined"]);
        Ok(())
    });
}

#[test]
fn aio_q13_a_shutdown_wakes_all_who_get() {
    program(async |log| {
        let numbers = queue(0);
        let all = [getter(&numbers, &log, "a"), getter(&numbers, &log, "b")];
        turn().await?;
        numbers.shutdown();
        for one in all {
            assert_eq!(one.await, Err(Fault::Named("shut down")));
        }
        Ok(())
    });
}

#[test]
fn aio_q14_nobody_owns_a_queue() {
    program(async |log| {
        let numbers = queue(0);
        let waits = getter(&numbers, &log, "a");
        // Nobody else has it any more.
        drop(numbers);
        assert_eq!(wait_for(waits, ms(1000)).await, Err(Fault::TimedOut));
        Ok(())
    });
}

#[test]
fn aio_q04_no_item_is_lost_and_none_comes_twice() {
    // Rule 46 of the notes: whoever is cancelled whenever.
    program(async |log| {
        for at in 0..40_u64 {
            let numbers = queue(2);
            let all: Vec<Task<u32, Fault>> = (0..6).map(|_| getter(&numbers, &log, "one")).collect();
            let puts = putter(&numbers, &log, 100);
            for n in 0..4_u64 {
                for _ in 0..at % 4 {
                    turn().await?;
                }
                _ = numbers.put_nowait(n as u32);
                all[((n + at) % 6) as usize].cancel();
            }
            puts.await?;
            turns(20).await?;
            let mut got = Vec::new();
            for one in &all {
                if let Ok(Ok(item)) = one.result() {
                    got.push(item);
                }
            }
            got.extend(std::iter::from_fn(|| numbers.get_nowait().ok()));
            let was = got.len();
            got.sort_unstable();
            got.dedup();
            assert_eq!((was, got.contains(&100)), (got.len(), true), "{got:?}");
            // What waits is in no deque that has items.
            let waiting = all.iter().filter(|one| !one.done()).count();
            assert!(waiting == 0 || numbers.empty());
            numbers.shutdown();
        }
        let _: Is<()> = Ok(());
        Ok(())
    });
}
