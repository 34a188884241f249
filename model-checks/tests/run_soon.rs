//! Closures from other threads (`runtime/src/run_handle.rs`): what is accepted is run, also if the run ends at that moment; all else is
//! refused; and a loop that sleeps is woken.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize as Count, Ordering as Std};

use loom::sync::{Condvar, Mutex};
use trefoil_model_checks::{Drops, Run, Token, model};
use trefoil_runtime::model::{Calls, Coalesced, RunHandle, parker};
use trefoil_runtime::sync::{AtomicU32, Ordering, UnsafeCell};
use trefoil_runtime::{RunFinished, Unpark};

/// A driver that sleeps until it is woken.
struct Driver {
    woken: Mutex<bool>,
    wakes: Condvar,
}

impl Driver {
    fn new(run: &Run) -> Arc<Self> {
        let driver = Arc::new(Self { woken: Mutex::new(false), wakes: Condvar::new() });
        parker(run.tree).attach(driver.clone());
        driver
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

fn no_panics(_: trefoil_runtime::Payload) {
    panic!("no call of a model panics");
}

/// What closures do: they count themselves, in a cell that only one thread may touch at a time, and say what they were given.
struct Ran {
    cell: UnsafeCell<Vec<usize>>,
    count: Count,
    drops: Drops,
}

// SAFETY: loom fails the model if two threads touch the cell at once.
unsafe impl Send for Ran {}
// SAFETY: as above.
unsafe impl Sync for Ran {}

impl Ran {
    fn new() -> Arc<Self> {
        Arc::new(Self { cell: UnsafeCell::new(Vec::new()), count: Count::new(0), drops: Drops::new() })
    }

    fn call(self: &Arc<Self>, id: usize) -> impl FnMut() + Send + use<> {
        let (this, token): (_, Token) = (self.clone(), self.drops.token());
        move || {
            _ = &token;
            // SAFETY: see above.
            this.cell.with_mut(|ran| unsafe { (*ran).push(id) });
            this.count.fetch_add(1, Std::Relaxed);
        }
    }

    fn all(&self) -> Vec<usize> {
        // SAFETY: see above.
        self.cell.with(|ran| unsafe { (*ran).clone() })
    }

    fn count(&self) -> usize {
        self.count.load(Std::Relaxed)
    }
}

fn soon(handle: &RunHandle, ran: &Arc<Ran>, id: usize) -> bool {
    match handle.run_soon(ran.call(id)) {
        Ok(()) => true,
        Err(RunFinished(closure)) => {
            drop(closure);
            false
        }
    }
}

/// The loop sleeps unless there is something to run, until `n` calls have run. How often it slept.
fn work(run: &Run, calls: &Calls, driver: &Driver, ran: &Ran, n: usize) -> usize {
    let mut slept = 0;
    while ran.count() < n {
        if !calls.has_work() && parker(run.tree).prepare() {
            driver.park();
            let _ = parker(run.tree).awake();
            slept += 1;
        }
        calls.run(no_panics);
    }
    slept
}

/// Two threads call while the loop works and sleeps. A lost wake-up is a deadlock. Seen: how often it slept.
#[test]
fn r88_calls_wake_the_loop() {
    model("run_soon ‖ run_soon ‖ loop").three().bound(2).check([0, 1, 2], |order| {
        let run = Run::new();
        let (driver, calls, ran) = (Driver::new(&run), Calls::new(run.tree), Ran::new());
        let (a, b) = (calls.handle(), calls.handle());
        let (_, _, slept) = order.race3(
            || assert!(soon(&a, &ran, 1)),
            || assert!(soon(&b, &ran, 2)),
            || work(&run, &calls, &driver, &ran, 2),
        );
        drop((a, b));
        drop(calls);
        assert_eq!(ran.count(), 2);
        assert!(ran.drops.all());
        parker(run.tree).detach();
        slept
    });
}

/// L1. Two threads call, one of them twice, while the loop has a turn and the run ends. Seen: which calls were accepted. Each that was
/// has run, in order; no other has.
#[test]
fn r89_what_is_accepted_is_run_although_the_run_ends() {
    let mut expected = Vec::new();
    for first in [vec![], vec![1], vec![1, 2]] {
        for second in [vec![], vec![3]] {
            expected.push([first.clone(), second].concat());
        }
    }
    model("run_soon ‖ run_soon ‖ end of the run").three().bound(3).check(expected, |order| {
        let run = Run::new();
        let (_driver, calls, ran) = (Driver::new(&run), Calls::new(run.tree), Ran::new());
        let (a, b) = (calls.handle(), calls.handle());
        let (first, second, _) = order.race3(
            || {
                let accepted: Vec<_> = [1, 2].into_iter().filter(|&id| soon(&a, &ran, id)).collect();
                drop(a);
                accepted
            },
            || {
                let accepted: Vec<_> = [3].into_iter().filter(|&id| soon(&b, &ran, id)).collect();
                drop(b);
                accepted
            },
            || {
                calls.run(no_panics);
                calls.close(no_panics);
            },
        );
        drop(calls);
        let all = ran.all();
        let of = |ids: &[usize]| all.iter().copied().filter(|id| ids.contains(id)).collect::<Vec<_>>();
        assert_eq!((of(&[1, 2]), of(&[3])), (first.clone(), second.clone()));
        assert!(ran.drops.all());
        parker(run.tree).detach();
        [first, second].concat()
    });
}

/// Two threads fire one signal, each after it wrote its bit, while the loop has a turn and the run ends. Seen: which fires were accepted,
/// and how often the closure ran. After a fire that was accepted comes a call that sees what was written before it.
#[test]
fn r88_r89_a_coalesced_call_that_is_accepted_is_run() {
    let expected = [((false, false), 0), ((false, true), 1), ((true, false), 1), ((true, true), 1), ((true, true), 2)];
    model("fire ‖ fire ‖ end of the run").three().bound(3).check(expected, |order| {
        let run = Run::new();
        let (_driver, calls) = (Driver::new(&run), Calls::new(run.tree));
        let (written, seen) = (Arc::new([AtomicU32::new(0), AtomicU32::new(0)]), Arc::new(Count::new(0)));
        let (drops, times) = (Drops::new(), Arc::new(Count::new(0)));
        let (from, to, count, token) = (written.clone(), seen.clone(), times.clone(), drops.token());
        let handle = calls.handle();
        let a = handle.coalesced(move || {
            _ = &token;
            count.fetch_add(1, Std::Relaxed);
            for (bit, written) in from.iter().enumerate() {
                if written.load(Ordering::Relaxed) == 1 {
                    to.fetch_or(1 << bit, Std::Relaxed);
                }
            }
        });
        let b = a.clone();
        drop(handle);
        fn fire<F: FnMut() + Send + 'static>(signal: Coalesced<F>, bit: &AtomicU32) -> bool {
            bit.store(1, Ordering::Relaxed);
            signal.fire().is_ok()
        }
        let (first, second, _) = order.race3(
            || fire(a, &written[0]),
            || fire(b, &written[1]),
            || {
                calls.run(no_panics);
                calls.close(no_panics);
            },
        );
        drop(calls);
        let seen = seen.load(Std::Relaxed);
        assert!(!first || seen & 1 != 0, "the first fire was accepted, and its word was not seen");
        assert!(!second || seen & 2 != 0, "the second fire was accepted, and its word was not seen");
        assert!(drops.all());
        parker(run.tree).detach();
        ((first, second), times.load(Std::Relaxed))
    });
}

/// A signal is fired again and again while the loop takes it out: its node comes and goes. Seen: how often the closure ran.
#[test]
fn r88_a_coalesced_call_comes_and_goes() {
    model("fire, fire ‖ loop").check([1, 2], |order| {
        let run = Run::new();
        let (driver, calls, ran) = (Driver::new(&run), Calls::new(run.tree), Ran::new());
        let handle = calls.handle();
        let signal = handle.coalesced(ran.call(1));
        order.race2(
            || {
                signal.fire().unwrap();
                signal.fire().unwrap();
            },
            || work(&run, &calls, &driver, &ran, 1),
        );
        calls.run(no_panics);
        let times = ran.count();
        drop((signal, handle));
        drop(calls);
        assert_eq!(ran.count(), times, "nothing was left");
        assert!(ran.drops.all());
        parker(run.tree).detach();
        times
    });
}
