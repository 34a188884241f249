//! When all tasks wait: `wait_all_tasks_blocked` (R54), and the report of a run that cannot go on (N10).

use super::{HOUR, NONE, at_once};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use trefoil_nursery::{
    CancelScope, Event, channel, checkpoint, local_nursery, move_on_after, now, nursery, sleep, sleep_forever,
    yield_now,
};
use trefoil_runtime::{Detection, Options, ThreadDriver};
use trefoil_testing::{Builder, wait_all_tasks_blocked};
use trefoil_tests::{Ended, Trace, ms, panic_of, run_real, run_virtual};

#[test]
fn n10_a_deadlock_is_a_report() {
    let event = Event::new();
    let (tx, rx) = channel::<u8>(1);
    let report = panic_of(|| {
        at_once().run(async {
            nursery(async |n| -> Ended {
                n.spawn(async { event.wait().await });
                n.spawn(async { rx.recv().await.map(drop) });
                Ok(())
            })
            .await
            .unwrap();
        });
    });
    drop(tx);
    assert!(report.starts_with("deadlock (N10)"), "{report}");
    for part in ["no deadline is set", "2 children", "waits for an event (made at blocked.rs", "an item of a channel"] {
        assert!(report.contains(part), "{part:?} in {report}");
    }
}

#[test]
fn n10_what_a_report_destroys_is_cleaned_up() {
    let dropped = std::sync::atomic::AtomicUsize::new(0);
    panic_of(|| {
        at_once().run(async {
            let _guard = trefoil_tests::OnDrop(&dropped);
            sleep_forever().await.unwrap();
        });
    });
    assert_eq!(dropped.into_inner(), 1);
    // And the thread is as good as new.
    assert_eq!(at_once().run(async { 42 }), 42);
}

#[test]
fn n10_no_deadlock_while_a_deadline_is_set() {
    at_once().run(async {
        assert_eq!(move_on_after(HOUR, sleep_forever()).await, Ok(None));
    });
}

#[test]
fn n10_a_thread_may_still_come() {
    Builder::new().deadlock_after(Some(HOUR)).run(async {
        let event = Arc::new(Event::new());
        let remote = event.clone();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(ms(5));
            remote.set();
        });
        event.wait().await.unwrap();
        thread.join().unwrap();
    });
}

/// R48: whatever the run waits for just then.
#[test]
fn n10_no_deadlock_where_another_thread_sets_a_deadline_meanwhile() {
    for virtual_time in [true, false] {
        let options = Options { virtual_time, deadlock: Detection::After(ms(10_000)), ..Options::default() };
        let driver = Rc::new(ThreadDriver::new());
        trefoil_runtime::run(driver, options, std::panic::Location::caller(), async {
            let scope = CancelScope::new();
            let (remote, at) = (scope.clone(), now() + ms(100));
            let thread = std::thread::spawn(move || {
                std::thread::sleep(ms(50));
                remote.set_deadline(Some(at));
            });
            assert_eq!(scope.run(sleep_forever()).await, Ok(None));
            thread.join().unwrap();
        });
    }
}

#[test]
fn n10_time_that_nobody_moves_is_a_deadlock() {
    let report = panic_of(|| at_once().autojump(None).run(async { sleep(HOUR).await.unwrap() }));
    assert!(report.contains("time is moved by hand, and nobody moves it"), "{report}");
    assert!(report.contains("sleeps"), "{report}");
}

#[test]
fn r54_waits_until_all_others_are_blocked() {
    for options in [Options::default(), Options { virtual_time: true, ..Options::default() }] {
        trefoil_tests::run(options, async || {
            let steps = Cell::new(0);
            let ended = local_nursery(async |n| -> Ended {
                n.spawn(async {
                    for _ in 0..100 {
                        checkpoint().await?;
                        steps.set(steps.get() + 1);
                    }
                    sleep(HOUR).await
                });
                wait_all_tasks_blocked(NONE).await?;
                assert_eq!(steps.get(), 100);
                n.cancel();
                Ok(())
            });
            ended.await.unwrap();
        });
    }
}

/// Whatever happens within the cushion begins it anew.
#[test]
fn r54_a_cushion_is_real_time_in_which_nothing_happens() {
    run_real(async || {
        let ticks = Cell::new(0);
        local_nursery(async |n| -> Ended {
            n.spawn(async {
                for _ in 0..20 {
                    sleep(ms(1)).await?;
                    ticks.set(ticks.get() + 1);
                }
                Ok(())
            });
            wait_all_tasks_blocked(ms(50)).await?;
            assert_eq!(ticks.get(), 20);
            Ok(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn r54_those_with_the_smallest_cushion_go_on_together() {
    run_virtual(async || {
        let t = Trace::new();
        local_nursery(async |n| -> Ended {
            for (name, cushion) in [("long", 3), ("short", 1), ("none", 0), ("short too", 1)] {
                let t = &t;
                n.spawn(async move {
                    wait_all_tasks_blocked(ms(cushion)).await?;
                    t.note(name, "");
                    // Those of the same cushion were released before this one runs.
                    yield_now().await;
                    t.note(name, "later");
                    Ok(())
                });
            }
            Ok(())
        })
        .await
        .unwrap();
        let order: Vec<_> = t.lines().iter().map(|line| line[2..].trim().to_string()).collect();
        let together = ["short", "short too", "short later", "short too later"];
        assert_eq!(order, [&["none", "none later"][..], &together, &["long", "long later"]].concat());
    });
}

#[test]
fn r54_goes_before_a_jump() {
    run_virtual(async || {
        let begin = now();
        local_nursery(async |n| -> Ended {
            n.spawn(sleep(HOUR));
            for cushion in [0, 5] {
                wait_all_tasks_blocked(ms(cushion)).await?;
                assert_eq!(now(), begin);
            }
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(now(), begin + HOUR);
    });
}

#[test]
fn r54_can_be_cancelled_and_dropped() {
    run_virtual(async || {
        let scope = CancelScope::new();
        scope.cancel();
        assert_eq!(scope.run(wait_all_tasks_blocked(NONE)).await, Ok(None));
        assert_eq!(trefoil_tests::drop_at(1, wait_all_tasks_blocked(HOUR)).await, None);
        let scope = CancelScope::new();
        local_nursery(async |n| -> Ended {
            n.spawn(async {
                assert_eq!(scope.run(wait_all_tasks_blocked(HOUR)).await, Ok(None));
                Ok(())
            });
            wait_all_tasks_blocked(NONE).await?;
            scope.cancel();
            Ok(())
        })
        .await
        .unwrap();
    });
}
