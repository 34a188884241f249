//! How the watchdog sleeps while all loops do (`runtime/src/look/watchdog.rs`, `runtime/src/parker.rs`): a loop that is awake is never left unwatched, and
//! a watchdog that sleeps on is a deadlock, which loom reports.

use trefoil_model_checks::model;
use trefoil_runtime::model::{Doze, Parker};

/// A loop that is asleep.
fn asleep() -> Parker {
    let parker = Parker::new();
    assert!(parker.prepare());
    parker
}

/// It wakes up.
fn wakes(parker: &Parker, doze: &Doze) {
    if parker.awake().is_unwatched() {
        doze.rouse();
    }
}

/// A loop wakes up while the watchdog is about to sleep. Seen: whether it slept.
#[test]
fn a_loop_that_wakes_up_is_seen() {
    model("watchdog: loop wakes ‖ watchdog sleeps").check([false, true], |order| {
        let (doze, parker) = (Doze::new(), asleep());
        let (_, slept) = order.race2(
            || wakes(&parker, &doze),
            || {
                let slept = doze.sleep([&parker].into_iter());
                // Whatever it did: it is awake now, and sees the loop.
                assert!(!parker.unwatch());
                slept
            },
        );
        slept
    });
}

/// A loop wakes up, and goes to sleep again, while the watchdog looks twice. Seen: how often it slept. In the end it does, until the loop wakes.
#[test]
fn a_loop_that_sleeps_again_is_seen_again() {
    model("watchdog: loop wakes twice ‖ watchdog sleeps twice").check([0, 1, 2], |order| {
        let (doze, parker) = (Doze::new(), asleep());
        let (_, slept) = order.race2(
            || {
                wakes(&parker, &doze);
                assert!(parker.prepare());
                wakes(&parker, &doze);
            },
            || (0..2).map(|_| usize::from(doze.sleep([&parker].into_iter()))).sum(),
        );
        slept
    });
}

/// Two loops do, one of which has gone to sleep again. Seen: how often the watchdog slept before it saw both to have been awake.
#[test]
fn of_two_loops_that_wake_up_one_is_enough() {
    model("watchdog: loop wakes ‖ loop wakes ‖ watchdog sleeps").three().bound(3).check([0, 1], |order| {
        let (doze, loops) = (Doze::new(), [asleep(), asleep()]);
        let (_, _, slept) = order.race3(
            || wakes(&loops[0], &doze),
            || wakes(&loops[1], &doze),
            || usize::from(doze.sleep(loops.iter())),
        );
        slept
    });
}

/// Of two loops one is awake all the time: the watchdog does not sleep, and the other one, which it took for asleep, wakes up meanwhile. Then both sleep:
/// it does as well, until one wakes up. Seen: whether word of the time before made that a sleep which ended at once.
#[test]
fn who_was_taken_for_asleep_in_vain_does_no_harm() {
    model("watchdog: loop wakes ‖ watchdog finds another awake").check([false, true], |order| {
        let (doze, one, other) = (Doze::new(), asleep(), Parker::new());
        let (_, slept) = order.race2(
            || {
                let unwatched = one.awake().is_unwatched();
                if unwatched {
                    doze.rouse();
                }
                assert!(one.prepare());
                unwatched
            },
            || doze.sleep([&one, &other].into_iter()),
        );
        assert!(!slept);
        assert!(other.prepare());
        let (again, _) = order.race2(|| doze.sleep([&one, &other].into_iter()), || wakes(&other, &doze));
        again
    });
}
