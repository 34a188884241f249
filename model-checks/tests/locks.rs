//! Semaphore, limiter, mutex, read-write lock, condition and barrier (`nursery/src/sync/`), with tasks on several threads: no permit is lost and none is made
//! up, nobody is in a lock who should not be, and a notification is passed on (R76, R77, R82, N1, N5).
//!
//! A cancel comes under the lock of its tree and not of the queue: whoever serves a queue may find the waiter at its head gone by the time
//! it hands over.

use std::task::Poll;

use trefoil_model_checks::{Run, Task, model};
use trefoil_nursery::sync::{Barrier, CapacityLimiter, Condition, Mutex, RwLock, Semaphore};
use trefoil_runtime::sync::UnsafeCell;

/// A value that loom watches: it fails the model where two are at it that must not be.
struct Watched(UnsafeCell<u32>);

// SAFETY: that is what is checked.
unsafe impl Send for Watched {}
// SAFETY: as above.
unsafe impl Sync for Watched {}

impl Watched {
    fn new() -> Self {
        Self(UnsafeCell::new(0))
    }

    fn add(&self) {
        // SAFETY: loom fails the model if somebody else is at it.
        self.0.with_mut(|value| unsafe { *value += 1 });
    }

    fn read(&self) -> u32 {
        // SAFETY: as above.
        self.0.with(|value| unsafe { *value })
    }
}

// ---- Semaphore -----------------------------------------------------------------------------------------------------

/// Seen: who has it, and whether the poll in the race was the last.
#[test]
fn r77_release_and_cancel_and_poll() {
    let expected = [("acquired", false), ("acquired", true), ("cancelled", false), ("cancelled", true)];
    model("semaphore: release ‖ cancel ‖ poll").three().bound(2).check(expected, |order| {
        let run = Run::new();
        let semaphore = Semaphore::new(1);
        let held = semaphore.try_acquire(1).unwrap();
        let task = Task::waiting(&run, semaphore.acquire(1));
        let (_, _, polled) = order.race3(|| drop(held), || task.cancel(), || task.poll());
        let at_once = polled.is_ready();
        let got = task.end_of(polled);
        assert_eq!(semaphore.available(), usize::from(got.is_err()));
        let how = if got.is_ok() { "acquired" } else { "cancelled" };
        drop(got);
        assert_eq!(semaphore.available(), 1);
        task.end();
        (how, at_once)
    });
}

/// Two wait, the second for more than there is. Whether the first is cancelled or not, the second gets nothing that is not there. Seen:
/// whether the first got its permit.
#[test]
fn r77_release_and_cancel_the_first_of_two_who_wants_less() {
    model("semaphore: release 1 ‖ cancel the first of two").check([false, true], |order| {
        let run = Run::new();
        let semaphore = Semaphore::new(0);
        let (first, second) = (Task::waiting(&run, semaphore.acquire(1)), Task::waiting(&run, semaphore.acquire(2)));
        order.race2(|| semaphore.add(1), || first.cancel());
        let got = first.end_of(Poll::Pending);
        assert!(second.settle(Poll::Pending).is_pending(), "it was given two where there was one");
        assert_eq!(semaphore.available(), usize::from(got.is_err()));
        // What the first gives back, or was not given, and another one are enough.
        let acquired = got.is_ok();
        drop(got);
        semaphore.add(1);
        assert_eq!(second.end_of(Poll::Pending).unwrap().count(), 2);
        assert_eq!(semaphore.available(), 2);
        first.end();
        second.end();
        acquired
    });
}

/// R77: one that gives up lets those behind it through for whom there is enough. Seen: whether the poll in the race was the first's last.
#[test]
fn r77_release_and_cancel_the_first_of_two_who_wants_more() {
    model("semaphore: release 1 ‖ cancel a first who wants 2 ‖ poll it").three().bound(2).check(
        [false, true],
        |order| {
            let run = Run::new();
            let semaphore = Semaphore::new(0);
            let (first, second) =
                (Task::waiting(&run, semaphore.acquire(2)), Task::waiting(&run, semaphore.acquire(1)));
            let (_, _, polled) = order.race3(|| semaphore.add(1), || first.cancel(), || first.poll());
            let at_once = polled.is_ready();
            assert!(first.end_of(polled).is_err());
            drop(second.end_of(Poll::Pending).unwrap());
            assert_eq!(semaphore.available(), 1);
            first.end();
            second.end();
            at_once
        },
    );
}

/// N5. Seen: whether it had been served when it went away.
#[test]
fn n5_release_and_drop() {
    model("semaphore: release ‖ drop the first of two").check([false, true], |order| {
        let run = Run::new();
        let semaphore = Semaphore::new(1);
        let held = semaphore.try_acquire(1).unwrap();
        let (first, second) = (Task::waiting(&run, semaphore.acquire(1)), Task::waiting(&run, semaphore.acquire(1)));
        order.race2(|| drop(held), || first.give_up());
        let served = first.woken.times() > 0;
        drop(second.end_of(Poll::Pending).unwrap());
        assert_eq!(semaphore.available(), 1);
        first.end();
        second.end();
        served
    });
}

/// Two acquire, each in a run of its own, while a permit comes back: both get it in turn. Seen: who had to wait.
#[test]
fn r76_release_and_two_acquire() {
    let expected = [(false, false), (false, true), (true, false), (true, true)];
    model("semaphore: release ‖ acquire ‖ acquire").three().bound(2).check(expected, |order| {
        let runs = (Run::new(), Run::new());
        let semaphore = Semaphore::new(1);
        let held = semaphore.try_acquire(1).unwrap();
        let turn = async || drop(semaphore.acquire(1).await.unwrap());
        let (a, b) = (Task::new(&runs.0, turn()), Task::new(&runs.1, turn()));
        let (_, mut in_a, mut in_b) = order.race3(|| drop(held), || a.poll(), || b.poll());
        let waited = (in_a.is_pending(), in_b.is_pending());
        for _ in 0..2 {
            (in_a, in_b) = (a.settle(in_a), b.settle(in_b));
        }
        assert!(in_a.is_ready() && in_b.is_ready(), "a wake-up was lost");
        assert_eq!(semaphore.available(), 1);
        a.end();
        b.end();
        waited
    });
}

// ---- Mutex and read-write lock -------------------------------------------------------------------------------------

/// Two lock, change the value, and unlock. Seen: who had to wait.
#[test]
fn r76_two_lock() {
    model("mutex: lock, change ‖ lock, change").check([(false, false), (false, true), (true, false)], |order| {
        let runs = (Run::new(), Run::new());
        let mutex = Mutex::new(Watched::new());
        let turn = async || mutex.lock().await.unwrap().add();
        let (a, b) = (Task::new(&runs.0, turn()), Task::new(&runs.1, turn()));
        let (in_a, in_b) = order.race2(|| a.poll(), || b.poll());
        let waited = (in_a.is_pending(), in_b.is_pending());
        a.end_of(in_a);
        b.end_of(in_b);
        assert_eq!(mutex.try_lock().unwrap().read(), 2);
        a.end();
        b.end();
        waited
    });
}

/// The first of two is cancelled, or goes away, while it is unlocked: the second gets it. Seen: whether the first had it.
#[test]
fn r77_unlock_and_cancel_the_first_of_two() {
    model("mutex: unlock ‖ cancel the first of two").check([false, true], |order| {
        let run = Run::new();
        let mutex = Mutex::new(Watched::new());
        let held = mutex.try_lock().unwrap();
        let (first, second) = (Task::waiting(&run, mutex.lock()), Task::waiting(&run, mutex.lock()));
        order.race2(|| drop(held), || first.cancel());
        let got = first.end_of(Poll::Pending);
        let locked = got.is_ok();
        assert_ne!(locked, second.woken.times() > 0, "one of the two was given it");
        drop(got);
        second.end_of(Poll::Pending).unwrap().add();
        assert!(!mutex.is_locked());
        first.end();
        second.end();
        locked
    });
}

/// N5. Seen: whether it had been given the lock.
#[test]
fn n5_unlock_and_drop_the_first_of_two() {
    model("mutex: unlock ‖ drop the first of two").check([false, true], |order| {
        let run = Run::new();
        let mutex = Mutex::new(Watched::new());
        let held = mutex.try_lock().unwrap();
        let (first, second) = (Task::waiting(&run, mutex.lock()), Task::waiting(&run, mutex.lock()));
        order.race2(|| drop(held), || first.give_up());
        let given = first.woken.times() > 0;
        second.end_of(Poll::Pending).unwrap().add();
        assert!(!mutex.is_locked());
        first.end();
        second.end();
        given
    });
}

/// A reader holds it. Another reader waits behind a writer that gives up, or is cancelled with it. Nobody writes while somebody reads.
/// Seen: whether the writer got it, and whether the reader behind it did.
#[test]
fn a_writer_behind_a_cancelled_reader_does_not_get_in_while_others_read() {
    model("rwlock: unlock a reader ‖ cancel the first of reader, writer").check([false, true], |order| {
        let run = Run::new();
        let lock = RwLock::new(Watched::new());
        let writes = lock.try_write().unwrap();
        let (reader, writer) = (Task::waiting(&run, lock.read()), Task::waiting(&run, lock.write()));
        order.race2(|| drop(writes), || reader.cancel());
        let reads = reader.end_of(Poll::Pending);
        let got = reads.is_ok();
        let mut at_once = writer.settle(Poll::Pending);
        assert_eq!(at_once.is_ready(), !got, "a writer got in, and a reader is there");
        if let Ok(reads) = &reads {
            reads.read();
            assert!(lock.try_write().is_err());
        }
        drop(reads);
        at_once = writer.settle(at_once);
        let Poll::Ready(Ok(writes)) = at_once else { panic!("a wake-up was lost") };
        writes.add();
        assert!(lock.try_read().is_err(), "somebody writes");
        drop(writes);
        assert!(lock.try_write().is_ok());
        reader.end();
        writer.end();
        got
    });
}

/// Two readers are let in together, or the second alone. Seen: whether the first got in.
#[test]
fn of_two_readers_one_may_be_cancelled() {
    model("rwlock: unlock a writer ‖ cancel the first of two readers").check([false, true], |order| {
        let run = Run::new();
        let lock = RwLock::new(Watched::new());
        let writes = lock.try_write().unwrap();
        let (first, second) = (Task::waiting(&run, lock.read()), Task::waiting(&run, lock.read()));
        order.race2(|| drop(writes), || first.cancel());
        let (one, two) = (first.end_of(Poll::Pending), second.end_of(Poll::Pending).unwrap());
        let got = one.is_ok();
        two.read();
        drop(two);
        assert_eq!(lock.try_write().is_ok(), !got, "who reads is counted");
        drop(one);
        assert!(lock.try_write().is_ok());
        first.end();
        second.end();
        got
    });
}

// ---- Condition -----------------------------------------------------------------------------------------------------

/// Two wait, one is notified, and the first is cancelled: N1, one of the two was notified. Seen: who.
#[test]
fn n1_notify_and_cancel_the_first_of_two() {
    model("condition: notify, unlock ‖ cancel the first of two").check(["first", "second"], |order| {
        let run = Run::new();
        let (mutex, condition) = (Mutex::new(()), Condition::new());
        let wait = async || {
            let guard = mutex.lock().await.unwrap();
            let (guard, waited) = condition.wait(guard).await;
            drop(guard);
            waited.is_ok()
        };
        let (first, second) = (Task::waiting(&run, wait()), Task::waiting(&run, wait()));
        let held = mutex.try_lock().unwrap();
        order.race2(
            || {
                condition.notify_one(&held);
                drop(held);
            },
            || first.cancel(),
        );
        // Whoever is cancelled waits for the lock, which the other one may have.
        let (mut one, mut two) = (Poll::Pending, Poll::Pending);
        for _ in 0..2 {
            (one, two) = (first.settle(one), second.settle(two));
        }
        let Poll::Ready(notified) = one else { panic!("a wake-up was lost") };
        assert_eq!(two == Poll::Ready(true), !notified, "one notification, one who has it");
        assert!(!mutex.is_locked());
        first.end();
        second.end();
        if notified { "first" } else { "second" }
    });
}

/// The same with one that is dropped (N5). Seen: whether it had been woken by then.
#[test]
fn n1_notify_and_drop_the_first_of_two() {
    model("condition: notify, unlock ‖ drop the first of two").check([false, true], |order| {
        let run = Run::new();
        let (mutex, condition) = (Mutex::new(()), Condition::new());
        let wait = async || {
            let guard = mutex.lock().await.unwrap();
            let (guard, waited) = condition.wait(guard).await;
            drop(guard);
            waited.is_ok()
        };
        let (first, second) = (Task::waiting(&run, wait()), Task::waiting(&run, wait()));
        let held = mutex.try_lock().unwrap();
        order.race2(
            || {
                condition.notify_one(&held);
                drop(held);
            },
            || first.give_up(),
        );
        let woken = first.woken.times() > 0;
        assert!(second.end_of(Poll::Pending), "the notification was passed on");
        assert!(!mutex.is_locked());
        first.end();
        second.end();
        woken
    });
}

/// The one who waits is cancelled by one thread and notified by another, while it is polled: it has the lock afterwards, and says which it
/// was. Seen: that, and whether the poll in the race was the last.
#[test]
fn r82_notify_and_cancel_and_poll() {
    let expected = [(false, false), (false, true), (true, false), (true, true)];
    model("condition: notify, unlock ‖ cancel ‖ poll").three().bound(2).check(expected, |order| {
        let run = Run::new();
        let (mutex, condition) = (Mutex::new(Watched::new()), Condition::new());
        let task = Task::waiting(&run, async {
            let guard = mutex.lock().await.unwrap();
            let (guard, waited) = condition.wait(guard).await;
            guard.add();
            waited.is_ok()
        });
        let held = mutex.try_lock().unwrap();
        let (_, _, polled) = order.race3(
            || {
                held.add();
                condition.notify_one(&held);
                drop(held);
            },
            || task.cancel(),
            || task.poll(),
        );
        let at_once = polled.is_ready();
        let notified = task.end_of(polled);
        assert_eq!(mutex.try_lock().unwrap().read(), 2);
        task.end();
        (notified, at_once)
    });
}

// ---- Barrier -------------------------------------------------------------------------------------------------------

/// The last one comes while the first one is cancelled: all pass, or none of those that are left. Seen: which.
#[test]
fn the_last_comes_and_the_first_is_cancelled() {
    model("barrier: the last of three comes ‖ cancel the first").check([false, true], |order| {
        let runs = (Run::new(), Run::new());
        let barrier = Barrier::new(3);
        let (first, second) = (Task::waiting(&runs.0, barrier.wait()), Task::waiting(&runs.0, barrier.wait()));
        let (last, late) = (Task::new(&runs.1, barrier.wait()), Task::new(&runs.1, barrier.wait()));
        let (polled, ()) = order.race2(|| last.poll(), || first.cancel());
        let passed = first.end_of(Poll::Pending).is_ok();
        let behind = second.settle(Poll::Pending);
        assert_eq!((polled.is_ready(), behind.is_ready()), (passed, passed), "it opened for some of them");
        if !passed {
            // With one more there are three.
            assert_eq!(late.end_of(late.poll()), Ok(true));
            assert!(last.end_of(polled).is_ok() && second.end_of(behind).is_ok());
        }
        first.end();
        second.end();
        last.end();
        late.end();
        passed
    });
}

// ---- Limiter -------------------------------------------------------------------------------------------------------

/// R77, R81. Seen: who has the token, and whether the poll in the race was the last.
#[test]
fn r81_give_back_and_cancel_and_poll() {
    let expected = [("borrowed", false), ("borrowed", true), ("cancelled", false), ("cancelled", true)];
    model("limiter: give back ‖ cancel ‖ poll").three().bound(2).check(expected, |order| {
        let run = Run::new();
        let limiter = CapacityLimiter::new(1);
        let held = limiter.try_acquire().unwrap();
        let task = Task::waiting(&run, limiter.acquire());
        let (_, _, polled) = order.race3(|| drop(held), || task.cancel(), || task.poll());
        let at_once = polled.is_ready();
        let got = task.end_of(polled);
        assert_eq!(limiter.statistics().borrowed, usize::from(got.is_ok()));
        let how = if got.is_ok() { "borrowed" } else { "cancelled" };
        drop(got);
        assert_eq!(limiter.statistics().borrowed, 0);
        task.end();
        (how, at_once)
    });
}

/// R81: it grows by one while one comes back and another begins to wait, behind one that waits. All of them get theirs. Seen: whether the one
/// that begins had to wait.
#[test]
fn r81_grow_and_give_back_and_begin_to_wait() {
    model("limiter: grow ‖ give back ‖ acquire, beside one that waits").three().bound(2).check(
        [false, true],
        |order| {
            let runs = (Run::new(), Run::new());
            let limiter = CapacityLimiter::new(1);
            let held = limiter.try_acquire().unwrap();
            let (waits, begins) = (Task::waiting(&runs.0, limiter.acquire()), Task::new(&runs.1, limiter.acquire()));
            let (_, _, polled) = order.race3(|| limiter.set_total(2), || drop(held), || begins.poll());
            let waited = polled.is_pending();
            let (first, second) = (waits.end_of(Poll::Pending).unwrap(), begins.end_of(polled).unwrap());
            assert_eq!(limiter.statistics().borrowed, 2);
            drop((first, second));
            assert_eq!(limiter.statistics().borrowed, 0);
            waits.end();
            begins.end();
            waited
        },
    );
}
