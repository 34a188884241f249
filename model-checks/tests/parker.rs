//! How a worker sleeps (`runtime/src/parker.rs`), over a driver that sleeps for ever unless it is woken: a wake-up that is lost is a
//! deadlock, which loom reports.

use std::future::poll_fn;
use std::panic::Location;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use loom::sync::{Condvar, Mutex};
use trefoil_model_checks::{Drops, Order, Run, Woken, model};
use trefoil_runtime::model::{Parker, link, parker, unlink, worker_queue};
use trefoil_runtime::sync::{AtomicBool, AtomicU32, Ordering};
use trefoil_runtime::{Kind, Origin, Outcome, Payload, Ready, Scope, Unpark};

/// A driver that sleeps until it is woken, as `Thread::park` or an eventfd does: a wake-up that comes early is kept.
struct Driver {
    woken: Mutex<bool>,
    wakes: Condvar,
}

impl Driver {
    fn new() -> Arc<Self> {
        Arc::new(Self { woken: Mutex::new(false), wakes: Condvar::new() })
    }

    fn park(&self) {
        let mut woken = self.woken.lock().unwrap();
        while !*woken {
            woken = self.wakes.wait(woken).unwrap();
        }
        *woken = false;
    }
}

impl Unpark for Driver {
    fn unpark(&self) {
        *self.woken.lock().unwrap() = true;
        self.wakes.notify_one();
    }
}

/// The worker's loop around the parker: looks for work until all is there. How often it slept.
fn work(parker: &Parker, driver: &Driver, mut all_there: impl FnMut() -> bool) -> usize {
    let mut slept = 0;
    while !all_there() {
        if parker.prepare() {
            driver.park();
            let _ = parker.awake();
            slept += 1;
        }
    }
    slept
}

fn with_parker(parker: &Parker, driver: &Arc<Driver>) {
    parker.attach(driver.clone());
}

/// One publishes work with no order of its own, and unparks. Seen: how often the worker slept.
#[test]
fn one_wake_up_is_not_lost() {
    model("parker: unpark ‖ sleep").check([0, 1], |order| {
        let (parker, driver, work_there) = (Parker::new(), Driver::new(), AtomicBool::new(false));
        with_parker(&parker, &driver);
        let (_, slept) = order.race2(
            || {
                work_there.store(true, Ordering::Relaxed);
                parker.unpark();
            },
            || work(&parker, &driver, || work_there.load(Ordering::Relaxed)),
        );
        parker.detach();
        assert_eq!(Arc::strong_count(&driver), 1);
        slept
    });
}

/// Two do. Seen: how often the worker slept.
#[test]
fn two_wake_ups_are_not_lost() {
    model("parker: unpark ‖ unpark ‖ sleep").three().bound(3).check([0, 1, 2], |order| {
        let (parker, driver) = (Parker::new(), Driver::new());
        let there = [AtomicBool::new(false), AtomicBool::new(false)];
        with_parker(&parker, &driver);
        let publish = |which: &AtomicBool| {
            which.store(true, Ordering::Relaxed);
            parker.unpark();
        };
        let (_, _, slept) = order.race3(
            || publish(&there[0]),
            || publish(&there[1]),
            || work(&parker, &driver, || there.iter().all(|there| there.load(Ordering::Relaxed))),
        );
        slept
    });
}

/// A run ends, after a sleep that a timeout ended, while a late waker unparks: the driver is let go, and is not needed. Then comes the
/// next run, with another driver. Seen: whether the late one reached the old driver, the new one, or none.
#[test]
fn a_late_wake_up_finds_no_driver_or_another_runs() {
    let expected = [(false, false), (false, true), (true, false)];
    model("parker: unpark ‖ end of the run").check(expected, |order| {
        let (parker, old, new) = (Parker::new(), Driver::new(), Driver::new());
        with_parker(&parker, &old);
        order.race2(
            || parker.unpark(),
            || {
                if parker.prepare() {
                    let _ = parker.awake();
                }
                parker.detach();
                with_parker(&parker, &new);
            },
        );
        parker.detach();
        assert_eq!((Arc::strong_count(&old), Arc::strong_count(&new)), (1, 1));
        let was_woken = |driver: &Driver| *driver.woken.lock().unwrap();
        (was_woken(&old), was_woken(&new))
    });
}

/// The worker looks for the next deadline and sleeps until then, while another thread moves the deadline of a scope of it
/// nearer. It must not sleep beyond that. Seen: for which deadlines it slept.
#[test]
fn the_worker_does_not_sleep_beyond_a_deadline_set_meanwhile() {
    model("parker: earlier deadline ‖ sleep").check([vec![], vec![100]], |order: Order| sleeps_until_50(order, 100));
}

/// The same where there was no deadline at all, and the worker has slept like that before: it does not take the lock to learn that there is none.
#[test]
fn the_worker_does_not_sleep_beyond_the_first_deadline_set_meanwhile() {
    model("parker: first deadline ‖ sleep")
        .check([vec![], vec![u64::MAX]], |order: Order| sleeps_until_50(order, u64::MAX));
}

fn sleeps_until_50(order: Order, before: u64) -> Vec<u64> {
    let run = Run::new();
    let driver = Driver::new();
    with_parker(parker(run.tree), &driver);
    let scope = pin!(Scope::new(Kind::Scope, Location::caller()));
    scope.set_deadline(before);
    // SAFETY: it is pinned, and unlinked below.
    unsafe { link(&scope, run.tree, None) };
    assert_eq!(run.tree.set_alarm(), before);
    let (_, slept) = order.race2(
        || scope.set_deadline(50),
        || {
            // As `Run::turns` and `Run::wait` do, until it has learnt of the earlier one.
            let mut slept = Vec::new();
            loop {
                let alarm = run.tree.set_alarm();
                if alarm == 50 {
                    break slept;
                }
                if parker(run.tree).prepare() {
                    slept.push(alarm);
                    driver.park();
                    let _ = parker(run.tree).awake();
                }
            }
        },
    );
    unlink(&scope);
    assert_eq!(run.tree.lock().next_deadline(), u64::MAX);
    parker(run.tree).detach();
    slept
}

struct Nothing;

impl Outcome<()> for Nothing {
    type Value = ();
    fn finished(&self, _: (), _: Origin) -> Option<()> {
        None
    }
    fn panicked(&self, payload: Payload, _: Origin) {
        std::panic::resume_unwind(payload);
    }
    fn cut(&self, _: Origin) {}
}

/// All of it: a child of the worker's own queue waits for a word, which another thread sets before it wakes the child. Seen: how
/// often the worker slept, and how often the child was polled.
#[test]
fn a_child_woken_from_elsewhere_runs() {
    model("parker: wake a child ‖ worker").bound(4).check([(0, 2), (1, 2)], |order| {
        let run = Run::new();
        let driver = Driver::new();
        with_parker(parker(run.tree), &driver);
        let scope = pin!(Scope::new(Kind::Run, Location::caller()));
        let mut queue = worker_queue(run.tree);
        let turns = Woken::new();
        let (word, polls, drops) = (AtomicU32::new(0), std::cell::Cell::new(0), Drops::new());
        let mut waker = None;
        let token = drops.token();
        let child = poll_fn(|cx| {
            let _token = &token;
            polls.set(polls.get() + 1);
            waker = Some(cx.waker().clone());
            if word.load(Ordering::Relaxed) == 1 { Poll::Ready(()) } else { Poll::Pending }
        });
        // SAFETY: the queue is there, and closed below; the future too.
        let join = unsafe { Ready::spawn(queue.as_ptr(), child, Nothing, Location::caller()) };
        turns.poll(|cx| queue.run(&scope, cx, |_| {}));
        let woken = waker.take().unwrap();
        let (_, slept) = order.race2(
            || {
                word.store(1, Ordering::Relaxed);
                woken.wake();
            },
            || {
                let mut slept = 0;
                while queue.live() > 0 {
                    if !queue.has_work() && parker(run.tree).prepare() {
                        driver.park();
                        let _ = parker(run.tree).awake();
                        slept += 1;
                    }
                    turns.poll(|cx| queue.run(&scope, cx, |_| {}));
                }
                slept
            },
        );
        assert!(join.is_done());
        drop(join);
        queue.set_body_done();
        queue.close(&scope);
        drop(queue);
        drop(waker.take());
        drop(token);
        assert!(drops.all());
        parker(run.tree).detach();
        (slept, polls.get())
    });
}

/// The watchdog sleeps while all who could be held up do: who does not go to sleep is at no moment taken for asleep.
#[test]
fn who_was_notified_is_never_taken_for_asleep() {
    model("parker: notified, prepare ‖ the watchdog looks").check([false], |order| {
        let (parker, driver) = (Parker::new(), Driver::new());
        with_parker(&parker, &driver);
        parker.unpark();
        let (is_asleep, slept) = order.race2(|| parker.unwatch(), || parker.prepare());
        assert!(!slept);
        parker.detach();
        is_asleep
    });
}

/// A worker that sleeps is woken while the watchdog goes to sleep, and finds whether it does: also if it was notified in between. Seen: whether it was
/// taken for asleep, and what it found.
#[test]
fn who_is_taken_for_asleep_learns_of_it() {
    let expected = [(false, false), (true, true)];
    model("parker: unpark ‖ awake ‖ the watchdog goes to sleep").three().bound(3).check(expected, |order| {
        let (parker, driver) = (Parker::new(), Driver::new());
        with_parker(&parker, &driver);
        assert!(parker.prepare());
        let (_, wakeup, unwatched) = order.race3(
            || parker.unpark(),
            || {
                driver.park();
                parker.awake()
            },
            || parker.unwatch(),
        );
        assert!(wakeup.by_thread() && !wakeup.is_plain());
        parker.detach();
        (unwatched, wakeup.is_unwatched())
    });
}

/// The same where nobody wakes it but time or the kernel. Seen: whether it was taken for asleep, and what it found.
#[test]
fn who_wakes_up_by_itself_learns_of_it_too() {
    let expected = [(false, true), (true, false)];
    model("parker: awake ‖ the watchdog goes to sleep").check(expected, |order| {
        let (parker, driver) = (Parker::new(), Driver::new());
        with_parker(&parker, &driver);
        assert!(parker.prepare());
        let (wakeup, unwatched) = order.race2(|| parker.awake(), || parker.unwatch());
        assert!(!wakeup.by_thread());
        assert_eq!(wakeup.is_unwatched(), unwatched);
        parker.detach();
        (unwatched, wakeup.is_plain())
    });
}
