//! `asyncio`'s lock, event, condition, semaphores and barrier, by their rules (L).

use crate::asyncio_support::{Fault, Log, program, task, turn, turns};
use std::cell::Cell;
use std::rc::Rc;
use trefoil::asyncio::{
    Barrier, BarrierError, BoundedSemaphore, Condition, Event, Lock, Semaphore, Task, WaitError, sleep, timeout,
};
use trefoil_tests::{begun, ms};

/// A task that takes a lock, notes it, and holds it for a time.
fn locker(lock: &Rc<Lock>, log: &Log, name: &'static str, time: u64) -> Task<(), Fault> {
    let (lock, log) = (lock.clone(), log.clone());
    task(async move {
        let _held = lock.acquire().await?;
        log.note(name);
        sleep(ms(time)).await?;
        Ok(())
    })
}

/// A lock that has been given up while `a` and `b` wait for it, in this order.
async fn two_lockers(log: &Log) -> Result<(Rc<Lock>, Task<(), Fault>, Task<(), Fault>), Fault> {
    let lock = Rc::new(Lock::new());
    let held = lock.acquire().await?;
    let (a, b) = (locker(&lock, log, "a", 1), locker(&lock, log, "b", 1));
    turn().await?;
    drop(held);
    Ok((lock, a, b))
}

#[test]
fn aio_l01_a_lock_is_had_in_order_also_by_who_gave_it_up() {
    program(async |log| {
        let (lock, a, b) = two_lockers(&log).await?;
        assert!(!lock.locked());
        let _again = lock.acquire().await?;
        log.note("main");
        log.expect(["0 a", "1 b", "2 main"]);
        a.await?;
        b.await
    });
}

#[test]
fn aio_l02_what_is_free_is_had_in_the_same_turn() {
    program(async |_| {
        let ran = Rc::new(Cell::new(false));
        let _other = task({
            let ran = ran.clone();
            async move {
                ran.set(true);
                Ok(())
            }
        });
        let (lock, semaphore, event, condition) = (Lock::new(), Semaphore::new(1), Event::new(), Condition::new());
        event.set();
        let _held = (lock.acquire().await?, semaphore.acquire().await?, condition.acquire().await?);
        event.wait().await?;
        assert!(!ran.get());
        Ok(())
    });
}

#[test]
fn aio_l03_who_was_woken_for_the_lock_and_is_cancelled_hands_it_over() {
    program(async |log| {
        let (lock, a, b) = two_lockers(&log).await?;
        a.cancel();
        assert_eq!(a.await, Err(Fault::Cancelled));
        b.await?;
        log.expect(["0 b"]);
        assert!(!lock.locked());
        Ok(())
    });
}

#[test]
fn aio_l03_a_wait_for_the_lock_that_is_dropped_hands_it_over() {
    program(async |log| {
        let lock = Rc::new(Lock::new());
        let held = lock.acquire().await?;
        let wait = begun(lock.acquire()).await;
        let b = locker(&lock, &log, "b", 1);
        turn().await?;
        drop(held);
        drop(wait);
        b.await?;
        log.expect(["0 b"]);
        Ok(())
    });
}

#[test]
fn aio_l04_a_lock_has_no_owner_and_is_not_reentrant() {
    program(async |_| {
        let lock = Rc::new(Lock::new());
        assert!(lock.release().is_err());
        lock.acquire().await?.forget();
        let again = timeout(ms(5), async |_| {
            lock.acquire().await?.forget();
            Ok::<_, Fault>(())
        })
        .await;
        assert_eq!(again, Err(Fault::TimedOut));
        let other = lock.clone();
        task(async move {
            other.release().expect("it is held");
            Ok(())
        })
        .await?;
        assert!(!lock.locked());
        Ok(())
    });
}

#[test]
fn aio_l05_set_wakes_all_though_it_is_cleared_in_the_same_step() {
    program(async |log| {
        let event = Rc::new(Event::new());
        let all = ["a", "b"].map(|name| {
            let (event, log) = (event.clone(), log.clone());
            task(async move {
                event.wait().await?;
                log.note(format!("{name} {}", event.is_set()));
                Ok(())
            })
        });
        turn().await?;
        event.set();
        event.clear();
        for one in all {
            one.await?;
        }
        log.expect(["0 a false", "0 b false"]);
        Ok(())
    });
}

#[test]
fn aio_l06_a_condition_is_for_those_who_hold_its_lock() {
    // With a guard there is no other way; without one it is an error.
    program(async |_| {
        let condition = Condition::new();
        assert!(condition.notify_unguarded(1).is_err());
        assert!(matches!(condition.wait_unguarded().await, Err(WaitError::NotLocked(_))));
        Ok(())
    });
}

/// A task that waits for a word, notes it, and holds the lock for a time.
fn listener(condition: &Rc<Condition>, log: &Log, name: &'static str, time: u64) -> Task<(), Fault> {
    let (condition, log) = (condition.clone(), log.clone());
    task(async move {
        let guard = condition.acquire().await?;
        let (guard, told) = guard.wait().await;
        log.note(format!("{name} {}", if told.is_ok() { "told" } else { "cancelled" }));
        sleep(ms(time)).await?;
        drop(guard);
        Ok(told?)
    })
}

#[test]
fn aio_l07_the_first_go_on_one_by_one_as_each_has_the_lock() {
    program(async |log| {
        let condition = Rc::new(Condition::new());
        let all = ["a", "b", "c"].map(|name| listener(&condition, &log, name, 2));
        turn().await?;
        let guard = condition.acquire().await?;
        guard.notify(2);
        sleep(ms(1)).await?;
        log.expect([]);
        drop(guard);
        sleep(ms(10)).await?;
        log.expect(["1 a told", "3 b told"]);
        assert!(!all[2].done());
        condition.acquire().await?.notify_all();
        let [_, _, c] = all;
        c.await
    });
}

#[test]
fn aio_l08_a_wait_that_is_cancelled_has_the_lock_again_first() {
    program(async |log| {
        let condition = Rc::new(Condition::new());
        let a = listener(&condition, &log, "a", 0);
        turn().await?;
        let guard = condition.acquire().await?;
        a.cancel();
        sleep(ms(3)).await?;
        // Not out of it, also when it is asked again.
        a.cancel();
        sleep(ms(3)).await?;
        log.expect([]);
        drop(guard);
        assert_eq!(a.await, Err(Fault::Cancelled));
        log.expect(["6 a cancelled"]);
        assert!(!condition.locked());
        Ok(())
    });
}

#[test]
fn aio_l09_a_word_to_one_that_is_cancelled_goes_to_the_next() {
    program(async |log| {
        let condition = Rc::new(Condition::new());
        let (a, b) = (listener(&condition, &log, "a", 0), listener(&condition, &log, "b", 0));
        turn().await?;
        let guard = condition.acquire().await?;
        guard.notify(1);
        a.cancel();
        drop(guard);
        assert_eq!((a.await, b.await), (Err(Fault::Cancelled), Ok(())));
        Ok(())
    });
}

/// A task that takes a permit, notes it, and keeps it for a time.
fn user(semaphore: &Rc<Semaphore>, log: &Log, name: &'static str, time: u64) -> Task<(), Fault> {
    let (semaphore, log) = (semaphore.clone(), log.clone());
    task(async move {
        let _permit = semaphore.acquire().await?;
        log.note(name);
        sleep(ms(time)).await?;
        Ok(())
    })
}

#[test]
fn aio_l10_permits_are_had_in_order_and_are_not_free_while_somebody_waits() {
    program(async |log| {
        let semaphore = Rc::new(Semaphore::new(1));
        let permit = semaphore.acquire().await?;
        let a = user(&semaphore, &log, "a", 1);
        turn().await?;
        drop(permit);
        semaphore.release();
        // There are two, of which one is for `a`; but it has not run.
        assert!(semaphore.locked());
        let _permit = semaphore.acquire().await?;
        log.note("main");
        log.expect(["0 a", "0 main"]);
        a.await
    });
}

#[test]
fn aio_l11_who_was_given_a_permit_and_is_cancelled_hands_it_over() {
    program(async |log| {
        let semaphore = Rc::new(Semaphore::new(1));
        let permit = semaphore.acquire().await?;
        let (a, b) = (user(&semaphore, &log, "a", 1), user(&semaphore, &log, "b", 1));
        turn().await?;
        drop(permit);
        a.cancel();
        assert_eq!((a.await, b.await), (Err(Fault::Cancelled), Ok(())));
        log.expect(["0 b"]);
        Ok(())
    });
}

#[test]
fn aio_l11_permits_are_conserved_whoever_is_cancelled_or_dropped_when() {
    // Rule 43 of the notes.
    program(async |log| {
        for at in 0..60_usize {
            let semaphore = Rc::new(Semaphore::new(2));
            let all: Vec<_> = (0..5).map(|_| user(&semaphore, &log, "one", (at % 3) as u64)).collect();
            for n in 0..4 {
                let mut dropped = Box::pin(semaphore.acquire());
                let had = trefoil_tests::poll_once(dropped.as_mut()).await;
                turns((at + n) % 4).await?;
                all[(n * at + n) % 5].cancel();
                drop((had.is_ready(), dropped));
            }
            for one in all {
                _ = one.await;
            }
            let both = (semaphore.acquire().await?, semaphore.acquire().await?);
            assert!(semaphore.locked());
            drop(both);
        }
        Ok(())
    });
}

#[test]
fn aio_l12_only_a_bounded_semaphore_refuses_what_was_not_taken() {
    program(async |_| {
        let free = Semaphore::new(0);
        free.release();
        let bounded = BoundedSemaphore::new(1);
        assert!(bounded.release().is_err());
        let permit = bounded.acquire().await?;
        assert!(bounded.locked());
        bounded.release().expect("one is out");
        // In our place.
        drop(permit);
        assert!(bounded.release().is_err());
        free.acquire().await?.forget();
        Ok(())
    });
}

/// A task that comes to a barrier, and notes what comes of it.
fn member(barrier: &Rc<Barrier>, log: &Log, name: &'static str) -> Task<(), Fault> {
    let (barrier, log) = (barrier.clone(), log.clone());
    task(async move {
        match barrier.wait().await {
            Ok(index) => log.note(format!("{name} {index}")),
            Err(BarrierError::Broken) => log.note(format!("{name} broken")),
            Err(BarrierError::Cancelled(cancelled)) => return Err(cancelled.into()),
        }
        Ok(())
    })
}

#[test]
fn aio_l13_the_last_to_come_goes_on_first_and_each_has_a_number() {
    program(async |log| {
        let barrier = Rc::new(Barrier::new(3));
        let _all = [member(&barrier, &log, "a"), member(&barrier, &log, "b"), member(&barrier, &log, "c")];
        turns(10).await?;
        log.expect(["0 c 2", "0 a 0", "0 b 1"]);
        assert_eq!((barrier.parties(), barrier.n_waiting(), barrier.broken()), (3, 0, false));
        Ok(())
    });
}

#[test]
fn aio_l14_one_that_is_cancelled_does_not_break_it() {
    program(async |log| {
        let barrier = Rc::new(Barrier::new(2));
        let a = member(&barrier, &log, "a");
        turn().await?;
        assert_eq!(barrier.n_waiting(), 1);
        a.cancel();
        assert_eq!(a.await, Err(Fault::Cancelled));
        assert_eq!((barrier.n_waiting(), barrier.broken()), (0, false));
        let _both = [member(&barrier, &log, "b"), member(&barrier, &log, "c")];
        turns(10).await?;
        log.expect(["0 c 1", "0 b 0"]);
        Ok(())
    });
}

#[test]
fn aio_l15_abort_breaks_it_until_reset_and_reset_breaks_those_who_wait() {
    program(async |log| {
        let barrier = Rc::new(Barrier::new(2));
        let _a = member(&barrier, &log, "a");
        turn().await?;
        barrier.abort().await?;
        let _b = member(&barrier, &log, "b");
        turns(5).await?;
        assert!(barrier.broken());
        log.expect(["0 a broken", "0 b broken"]);

        barrier.reset().await?;
        let _c = member(&barrier, &log, "c");
        turn().await?;
        barrier.reset().await?;
        turns(5).await?;
        log.expect(["0 c broken"]);
        let _both = [member(&barrier, &log, "d"), member(&barrier, &log, "e")];
        turns(10).await?;
        log.expect(["0 e 1", "0 d 0"]);
        Ok(())
    });
}

#[test]
fn aio_l15_who_comes_while_the_others_leave_waits_for_the_next_round() {
    program(async |log| {
        let barrier = Rc::new(Barrier::new(2));
        let _all = ["a", "b", "c", "d"].map(|name| member(&barrier, &log, name));
        turns(20).await?;
        log.expect(["0 b 1", "0 a 0", "0 d 1", "0 c 0"]);
        Ok(())
    });
}

#[test]
fn aio_l16_a_primitive_may_be_used_from_another_loop_of_the_thread() {
    // Python refuses that, since its futures wake their own loop alone; here whoever waits is woken where they are. From another thread
    // it does not compile: see `Lock`.
    trefoil_tests::run_virtual(async || {
        let lock = Rc::new(Lock::new());
        let held = lock.clone();
        let one = trefoil::asyncio::event_loop(async move {
            let _held = held.acquire().await?;
            sleep(ms(5)).await?;
            Ok::<_, Fault>(())
        });
        let other = trefoil::asyncio::event_loop(async move {
            turn().await?;
            lock.acquire().await?.forget();
            Ok::<_, Fault>(trefoil::now())
        });
        let begin = trefoil::now();
        let (one, other) = futures::future::join(one, other).await;
        assert_eq!((one, other.map(|at| at - begin)), (Ok(()), Ok(ms(5))));
    });
}
