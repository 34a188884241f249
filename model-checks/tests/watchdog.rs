//! How the watchdog sleeps while all loops do (`runtime/src/look/watchdog.rs`): a loop that is awake is never left unwatched, and a watchdog that
//! sleeps on is a deadlock, which loom reports.

#![cfg(trefoil_loom)]

use trefoil_model_checks::model;
use trefoil_runtime::model::Doze;
use trefoil_runtime::sync::{AtomicBool, Ordering};

/// A loop wakes up while the watchdog is about to sleep. Seen: whether it slept.
#[test]
fn a_loop_that_wakes_up_is_seen() {
    model("watchdog: loop wakes ‖ watchdog sleeps").check([false, true], |order| {
        let (doze, awake) = (Doze::new(), AtomicBool::new(false));
        let (_, slept) = order.race2(
            || {
                awake.store(true, Ordering::Relaxed);
                doze.rouse();
            },
            || {
                let slept = doze.sleep(|| !awake.load(Ordering::Relaxed));
                // Whatever it did: it is awake now, and sees the loop.
                assert!(awake.load(Ordering::Relaxed));
                slept
            },
        );
        slept
    });
}

/// Two loops do, one of which has gone to sleep again. Seen: how often the watchdog slept before it saw both to have been awake.
#[test]
fn of_two_loops_that_wake_up_one_is_enough() {
    model("watchdog: loop wakes ‖ loop wakes ‖ watchdog sleeps").three().bound(3).check([0, 1], |order| {
        let doze = Doze::new();
        let awake = [AtomicBool::new(false), AtomicBool::new(false)];
        let wakes = |awake: &AtomicBool| {
            awake.store(true, Ordering::Relaxed);
            doze.rouse();
        };
        let (_, _, slept) = order.race3(
            || wakes(&awake[0]),
            || wakes(&awake[1]),
            || usize::from(doze.sleep(|| awake.iter().all(|awake| !awake.load(Ordering::Relaxed)))),
        );
        slept
    });
}
