//! The testing module: R38, R51 to R54, R87, N4, N10, and the sweeps. What is tested here are ways to start a run, so this file starts
//! some by itself.
//!
//! | rule | here |
//! | --- | --- |
//! | R53 (`rate`) | virtual time has no rate: it stands still or jumps |

use std::cell::{Cell, RefCell};
use std::collections::{HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use trefoil_nursery::{
    CancelScope, Cancelled, Event, channel, checkpoint, checkpoint_if_cancelled, local_nursery, move_on_after, now,
    nursery, shield, sleep, sleep_forever, sleep_until, sync, yield_now,
};
use trefoil_runtime::{Detection, Options, Reason, ThreadDriver};
use trefoil_testing::{
    Builder, Clock, Moment, assert_checkpoints, assert_no_checkpoints, cancel_sweep, drop_sweep, seeds,
    wait_all_tasks_blocked,
};
use trefoil_tests::{Trace, ms, panic_of, run_real, run_virtual};

type Ended = Result<(), Cancelled>;
const NONE: Duration = Duration::ZERO;
const HOUR: Duration = Duration::from_secs(3600);

// ---- Seeds ---------------------------------------------------------------------------------------------------------

/// Who did what, in two levels of nurseries, with sleeps, ties, a channel and a lock.
async fn program() -> Vec<String> {
    let t = Trace::new();
    let lock = sync::Mutex::new(());
    let (tx, rx) = channel(2);
    local_nursery(async |n| -> Ended {
        for name in ["a", "b", "c", "d"] {
            let (t, lock, tx) = (&t, &lock, tx.clone());
            n.spawn(async move {
                t.note(name, "begins");
                local_nursery(async |inner| -> Ended {
                    for i in 0..3 {
                        inner.spawn(async move {
                            sleep(ms(i % 2)).await?;
                            let _guard = lock.lock().await?;
                            checkpoint().await?;
                            t.note(name, i);
                            Ok(())
                        });
                    }
                    Ok(())
                })
                .await?;
                tx.send(name).await.map_err(|_| Cancelled::delivered())
            });
        }
        drop(tx);
        while let Some(name) = rx.recv().await? {
            t.note("main", name);
        }
        Ok(())
    })
    .await
    .unwrap();
    t.lines()
}

#[test]
fn r87_the_same_seed_gives_the_same_trace() {
    let mut seen = HashSet::new();
    for seed in 0..50 {
        let trace = trefoil_testing::run(seed, program());
        assert_eq!(trace, trefoil_testing::run(seed, program()), "seed {seed}");
        seen.insert(trace);
    }
    assert!(seen.len() >= 45, "different seeds differ: {} traces", seen.len());
}

#[test]
fn n4_seed_0_is_the_ordinary_order() {
    let options = Options { virtual_time: true, ..Options::default() };
    let place = std::panic::Location::caller();
    let ordinary = trefoil_runtime::run(Rc::new(ThreadDriver::new()), options, place, program());
    assert_eq!(trefoil_testing::run(0, program()), ordinary);
}

#[test]
fn n4_the_ordinary_order_is_first_in_first_out() {
    run_real(async || {
        let order = RefCell::new(Vec::new());
        local_nursery(async |n| -> Ended {
            for i in 0..300 {
                let order = &order;
                n.spawn(async move {
                    order.borrow_mut().push(i);
                    yield_now().await;
                    order.borrow_mut().push(1000 + i);
                    Ok(())
                });
            }
            Ok(())
        })
        .await
        .unwrap();
        // A slice of a nursery's queue is polled at a time: the second half of a child may come before the last ones begin.
        let order = order.into_inner();
        let (first, second): (Vec<i32>, Vec<i32>) = order.into_iter().partition(|i| *i < 1000);
        assert!(first.is_sorted() && second.is_sorted());
    });
}

#[test]
fn r87_the_queue_of_each_nursery_is_shuffled() {
    let order_of = |seed| {
        trefoil_testing::run(seed, async {
            let order = RefCell::new(Vec::new());
            local_nursery(async |inner| -> Ended {
                for i in 0..5 {
                    let order = &order;
                    inner.spawn(async move {
                        order.borrow_mut().push(i);
                        Ok(())
                    });
                }
                Ok(())
            })
            .await
            .unwrap();
            order.into_inner()
        })
    };
    let orders: HashSet<_> = (1..2000).map(order_of).collect();
    assert_eq!(orders.len(), 120, "every order comes about");
}

/// N11: an operation that need not wait gives up its turn at random.
#[test]
fn r87_turns_are_given_up_at_random() {
    let interleaved = |seed| {
        trefoil_testing::run(seed, async {
            let event = Event::new();
            event.set();
            let steps = RefCell::new(Vec::new());
            local_nursery(async |n| -> Ended {
                for i in 0..2 {
                    let (event, steps) = (&event, &steps);
                    n.spawn(async move {
                        for _ in 0..4 {
                            event.wait().await?;
                            steps.borrow_mut().push(i);
                        }
                        Ok(())
                    });
                }
                Ok(())
            })
            .await
            .unwrap();
            steps.into_inner()
        })
    };
    assert_eq!(interleaved(0), [0, 0, 0, 0, 1, 1, 1, 1]);
    let seen: HashSet<_> = (0..200).map(interleaved).collect();
    assert!(seen.len() > 10, "{}", seen.len());
}

/// A check and an act with an await between: it holds in the ordinary order, and not in others.
async fn planted_race() {
    let seat = Cell::new(None);
    local_nursery(async |n| -> Ended {
        for name in ["anna", "otto"] {
            let seat = &seat;
            n.spawn(async move {
                if name == "otto" {
                    checkpoint().await?;
                }
                if seat.get().is_none() {
                    checkpoint_if_cancelled().await?;
                    if name == "anna" {
                        yield_now().await;
                    }
                    assert_eq!(seat.replace(Some(name)), None, "two in one seat");
                }
                Ok(())
            });
        }
        Ok(())
    })
    .await
    .unwrap();
}

#[test]
fn n4_seeds_find_what_the_ordinary_order_hides() {
    trefoil_testing::run(0, planted_race());
    let found = panic_of(|| seeds(0..100, planted_race));
    assert!(found.contains("two in one seat"), "{found}");
}

#[test]
fn a_test_that_returns_an_error_fails() {
    let failed = panic_of(|| seeds(0..3, async || Err("out of clover")));
    assert!(failed.contains(r#"returned an error: "out of clover""#), "{failed}");
}

/// Fails under seed 12 alone. Run by the next test, in a process of its own.
#[test]
#[ignore = "fails on purpose"]
fn fails_under_one_seed() {
    seeds(0..20, async || {
        let seed_12 = trefoil_testing_seed() == Some(12);
        assert!(!seed_12, "unlucky");
    });
}

thread_local!(static SEED: Cell<u64> = const { Cell::new(0) });

/// The seeds are gone through in order: it counts.
fn trefoil_testing_seed() -> Option<u64> {
    match std::env::var("TREFOIL_SEED") {
        Ok(seed) => seed.parse().ok(),
        Err(_) => Some(SEED.replace(SEED.get() + 1)),
    }
}

#[test]
fn the_seed_of_a_failure_is_printed_and_can_be_given_again() {
    let run = |seed: Option<&str>| {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "fails_under_one_seed", "--ignored", "--nocapture"]).env_remove("TREFOIL_SEED");
        if let Some(seed) = seed {
            command.env("TREFOIL_SEED", seed);
        }
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let (passed, text) = run(None);
    assert!(!passed && text.contains("unlucky"), "{text}");
    assert!(text.contains("TREFOIL_SEED=12 cargo test fails_under_one_seed"), "{text}");
    let (passed, text) = run(Some("12"));
    assert!(!passed && text.contains("under the seed 12"), "{text}");
    assert!(run(Some("13")).0);
    let (passed, text) = run(Some("clover"));
    assert!(!passed && text.contains("TREFOIL_SEED=clover: a seed is a number"), "{text}");
}

// ---- Deadlocks -----------------------------------------------------------------------------------------------------

fn at_once() -> Builder {
    Builder::new().deadlock_after(Some(NONE))
}

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
    for part in ["no deadline is set", "2 children", "waits for an event at testing.rs", "an item of a channel"] {
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

// ---- Time by hand --------------------------------------------------------------------------------------------------

#[test]
fn r52_advance_visits_every_deadline_in_order() {
    at_once().autojump(None).run(async {
        let t = Trace::new();
        local_nursery(async |n| -> Ended {
            for at in [50, 10, 30, 70] {
                let t = &t;
                n.spawn(async move {
                    sleep_until(t.at(at)).await?;
                    t.note("sleep", at);
                    // What is set meanwhile is visited too.
                    sleep(ms(5)).await?;
                    t.note("again", at);
                    Ok(())
                });
            }
            let clock = Clock::current();
            clock.advance(ms(9)).await?;
            t.note("clock", "9");
            clock.advance(ms(51)).await?;
            t.note("clock", "60");
            clock.advance(ms(15)).await?;
            Ok(())
        })
        .await
        .unwrap();
        let lines = t.lines();
        assert_eq!(
            lines,
            [
                "9 clock 9",
                "10 sleep 10",
                "15 again 10",
                "30 sleep 30",
                "35 again 30",
                "50 sleep 50",
                "55 again 50",
                "60 clock 60",
                "70 sleep 70",
                "75 again 70"
            ]
        );
    });
}

/// R46: in order, but all at the time to which it jumped.
#[test]
fn r52_a_jump_goes_over_deadlines() {
    at_once().autojump(None).run(async {
        let t = Trace::new();
        local_nursery(async |n| -> Ended {
            for at in [20, 10] {
                let t = &t;
                n.spawn(async move {
                    sleep_until(t.at(at)).await?;
                    t.note("sleep", at);
                    Ok(())
                });
            }
            wait_all_tasks_blocked(NONE).await?;
            Clock::current().jump(ms(100));
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(t.lines(), ["100 sleep 10", "100 sleep 20"]);
    });
}

#[test]
fn r46_advance_is_cut_short_by_the_deadline_of_its_own_scope() {
    Builder::new().run(async {
        let begin = now();
        assert_eq!(move_on_after(ms(30), Clock::current().advance(HOUR)).await, Ok(None));
        assert_eq!(now() - begin, ms(30));
    });
}

/// While anything moves it by hand, it does not jump by itself as well.
#[test]
fn r51_advance_beside_the_jumps() {
    at_once().run(async {
        let begin = now();
        local_nursery(async |n| -> Ended {
            n.spawn(async move {
                sleep(HOUR).await?;
                assert_eq!(now() - begin, HOUR);
                Ok(())
            });
            Clock::current().advance(ms(10)).await?;
            assert_eq!(now() - begin, ms(10));
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(now() - begin, HOUR);
    });
}

/// A jump waits until nothing came for the threshold.
#[test]
fn r51_the_threshold_gives_threads_time() {
    Builder::new().autojump(Some(HOUR)).run(async {
        let begin = now();
        let event = Arc::new(Event::new());
        let remote = event.clone();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(ms(5));
            remote.set();
        });
        assert_eq!(move_on_after(ms(1), event.wait()).await, Ok(Some(())));
        assert_eq!(now(), begin);
        thread.join().unwrap();
        // R53: it can be changed.
        Clock::current().set_autojump(Some(ms(1)));
        sleep(HOUR).await.unwrap();
        assert_eq!(now() - begin, HOUR);
    });
}

#[test]
fn a_clock_by_hand_needs_virtual_time() {
    let told = panic_of(|| run_real(async || _ = Clock::current()));
    assert!(told.contains("the machine's clock"), "{told}");
    let told = panic_of(|| _ = Clock::current());
    assert!(told.contains("this is no run"), "{told}");
}

// ---- Quiescence ----------------------------------------------------------------------------------------------------

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

// ---- Checkpoints ---------------------------------------------------------------------------------------------------

#[test]
fn r38_every_operation_is_a_checkpoint() {
    run_virtual(async || {
        let event = Event::new();
        event.set();
        assert_checkpoints(async || event.wait().await).await.unwrap();
        assert_checkpoints(async || sleep(NONE).await).await.unwrap();
        assert_checkpoints(async || sleep(ms(1)).await).await.unwrap();
        assert_checkpoints(async || checkpoint().await).await.unwrap();
        let (tx, rx) = channel(1);
        assert_checkpoints(async || tx.send(1).await).await.unwrap();
        // R36: the one that was cancelled took nothing.
        assert_eq!(assert_checkpoints(async || rx.recv().await).await, Ok(Some(1)));
        let lock = sync::Mutex::new(());
        drop(assert_checkpoints(async || lock.lock().await).await.unwrap());
        let permits = sync::Semaphore::new(1);
        drop(assert_checkpoints(async || permits.acquire(1).await).await.unwrap());
    });
}

#[test]
fn r38_what_is_no_checkpoint_is_found_out() {
    let no_cancel_point = panic_of(|| run_virtual(async || assert_checkpoints(async || yield_now().await).await));
    assert!(no_cancel_point.starts_with("no cancel point at tests/tests/testing.rs"), "{no_cancel_point}");
    let no_turn = panic_of(|| {
        run_virtual(async || assert_checkpoints(async || checkpoint_if_cancelled().await).await.unwrap());
    });
    assert!(no_turn.starts_with("no checkpoint at tests/tests/testing.rs"), "{no_turn}");
}

#[test]
fn r38_no_checkpoints() {
    run_virtual(async || {
        let (tx, rx) = channel(1);
        assert_no_checkpoints(async { tx.try_send(1) }).await.unwrap();
        assert_no_checkpoints(async { rx.try_recv() }).await.unwrap();
        // R13: under a shield, it does nothing.
        assert_no_checkpoints(shield(checkpoint_if_cancelled())).await.unwrap();
    });
    let told = panic_of(|| {
        run_virtual(async || {
            let (tx, _rx) = channel(1);
            assert_no_checkpoints(tx.send(1)).await.unwrap();
        });
    });
    assert!(told.starts_with("a cancel point at tests/tests/testing.rs"), "{told}");
    // R12: it gives up the turn first.
    let turns = panic_of(|| run_virtual(async || assert_no_checkpoints(checkpoint_if_cancelled()).await.unwrap()));
    assert!(turns.starts_with("it waits, or gives up its turn, at tests/tests/testing.rs"), "{turns}");
    let waits = panic_of(|| run_virtual(async || assert_no_checkpoints(yield_now()).await));
    assert!(waits.starts_with("it waits, or gives up its turn, at tests/tests/testing.rs"), "{waits}");
}

// ---- Sweeps --------------------------------------------------------------------------------------------------------

#[test]
fn r36_n5_a_sweep_finds_an_item_lost_at_a_turn_given_up() {
    let line = Cell::new(0);
    let scenario = async |cut: &trefoil_testing::Cut| {
        let (tx, rx) = channel(3);
        let got = RefCell::new(Vec::new());
        for i in 0..3 {
            tx.try_send(i).unwrap();
        }
        let ended = cut.run(async {
            for _ in 0..3 {
                let item = rx.recv().await?.unwrap();
                if item == 1 {
                    // Planted: who is stopped here loses it.
                    line.set(line!() + 1);
                    checkpoint().await?;
                }
                got.borrow_mut().push(item);
            }
            Ok::<_, Cancelled>(())
        });
        ended.await.unwrap();
        let mut got = got.into_inner();
        got.extend(std::iter::from_fn(|| rx.try_recv().ok()));
        assert_eq!(got, [0, 1, 2]);
    };
    let cancelled = panic_of(|| drop(cancel_sweep(scenario)));
    let dropped = panic_of(|| drop(drop_sweep(scenario)));
    let place = format!("at tests/tests/testing.rs:{}:", line.get());
    for (found, what) in [
        (cancelled, format!("was cancelled asleep in await 2, and told {place}")),
        (dropped, format!("was dropped asleep in await 2, before the operation {place}")),
    ] {
        assert!(found.contains(&what) && found.contains("[0, 2]"), "{found}");
    }
}

#[test]
fn n5_a_sweep_finds_an_item_lost_in_a_wait() {
    for (sweep, done) in [(true, "cancelled"), (false, "dropped")] {
        let line = Cell::new(0);
        let scenario = async |cut: &trefoil_testing::Cut| {
            let (tx, rx) = channel(1);
            let got = RefCell::new(Vec::new());
            local_nursery(async |n| -> Ended {
                n.spawn(async move { tx.send(7).await.map_err(|_| Cancelled::delivered()) });
                cut.run(async {
                    let item = rx.recv().await?;
                    line.set(line!() + 1);
                    sleep(ms(3)).await?; // planted
                    got.borrow_mut().push(item.unwrap());
                    Ok::<_, Cancelled>(())
                })
                .await?;
                while let Some(item) = rx.recv().await? {
                    got.borrow_mut().push(item);
                }
                Ok(())
            })
            .await
            .unwrap();
            assert_eq!(got.into_inner(), [7]);
        };
        let found = panic_of(|| drop(if sweep { cancel_sweep(scenario) } else { drop_sweep(scenario) }));
        let place = format!("at tests/tests/testing.rs:{}:", line.get());
        match sweep {
            // Already where it has the item in hand and has not looked (R18), it is told at the sleep.
            true => assert!(found.contains("woken from await 1") && found.contains(&format!("told {place}"))),
            false => assert!(found.contains("asleep in await 2") && found.contains(&format!("for sleep {place}"))),
        }
        assert!(found.contains(&format!("was {done}")) && found.contains("[]"), "{found}");
    }
}

/// A hand-off that forgets that whom it hands to may be gone before it looks.
#[test]
fn n5_a_sweep_finds_an_item_lost_between_its_hand_over_and_the_look() {
    let found = panic_of(|| {
        drop_sweep(async |cut| {
            let queue = RefCell::new(VecDeque::from([7]));
            let (handed, come) = (Cell::new(None), Event::new());
            let (got, over) = (Cell::new(None), Event::new());
            local_nursery(async |n| -> Ended {
                n.spawn(async {
                    sleep(ms(1)).await?;
                    if !over.is_set() {
                        handed.set(queue.borrow_mut().pop_front()); // planted: it belongs to nobody now
                        come.set();
                    }
                    Ok(())
                });
                cut.run(async {
                    come.wait().await?;
                    got.set(handed.take());
                    Ok::<_, Cancelled>(())
                })
                .await?;
                over.set();
                Ok(())
            })
            .await
            .unwrap();
            assert!(got.get().is_some() || queue.borrow().len() == 1, "the item is gone");
        });
    });
    assert!(found.contains("was dropped woken from await 1"), "{found}");
    assert!(found.contains("for an event at tests/tests/testing.rs") && found.contains("the item is gone"), "{found}");
}

/// What is lost may be a wake-up: then somebody waits for ever.
#[test]
fn n10_a_sweep_reports_who_waits_for_what_was_lost() {
    let found = panic_of(|| {
        cancel_sweep(async |cut| {
            let done = Event::new();
            local_nursery(async |n| -> Ended {
                n.spawn(async { done.wait().await });
                cut.run(async {
                    checkpoint().await?;
                    done.set(); // planted: not when it is cancelled
                    Ok::<_, Cancelled>(())
                })
                .await?;
                Ok(())
            })
            .await
            .unwrap();
        });
    });
    assert!(found.contains("was cancelled before it began"), "{found}");
    assert!(found.contains("deadlock (N10)") && found.contains("waits for an event"), "{found}");
}

#[test]
fn r36_a_sweep_goes_through_all_awaits() {
    let scenario = async |cut: &trefoil_testing::Cut| -> Ended {
        let (tx, rx) = channel(0);
        let (mut sent, mut got) = (0, Vec::new());
        local_nursery(async |n| -> Ended {
            n.spawn(async {
                while let Some(item) = rx.recv().await? {
                    got.push(item);
                }
                Ok(())
            });
            cut.run(async {
                for i in 0..3 {
                    tx.send(i).await.map_err(|_| Cancelled::delivered())?;
                    sent += 1;
                    sleep(ms(1)).await?;
                }
                Ok::<_, Cancelled>(())
            })
            .await?;
            drop(tx);
            Ok(())
        })
        .await?;
        assert!(got.len() == sent || (cut.reached() && got.len() == sent + 1));
        Ok(())
    };
    for points in [cancel_sweep(scenario), drop_sweep(scenario)] {
        assert_eq!((points[0].at, points[0].moment), (0, Moment::Woken));
        assert!(points.len() >= 7, "{points:?}");
        let sleeps = points.iter().filter(|p| p.waits.iter().any(|w| w.reason == Reason::Sleep));
        assert_eq!(sleeps.count(), 6, "three sleeps, asleep and woken");
    }
}

/// `Cut` is for children that are `Send`, too.
#[test]
fn a_sweep_of_a_child() {
    let points = cancel_sweep(async |cut| {
        nursery(async |n| -> Ended {
            n.spawn(async { cut.run(sleep(ms(1))).await.map(drop) });
            Ok(())
        })
        .await
        .unwrap();
    });
    assert_eq!(points.len(), 3);
}

#[test]
fn a_sweep_wants_one_operation() {
    let none = panic_of(|| drop(cancel_sweep(async |_| {})));
    assert!(none.contains("never runs an operation"), "{none}");
    let two = panic_of(|| {
        drop(cancel_sweep(async |cut| {
            for _ in 0..2 {
                cut.run(checkpoint()).await.unwrap();
            }
        }));
    });
    assert!(two.contains("one operation that is stopped"), "{two}");
}

#[test]
fn a_sweep_sees_what_is_left_over() {
    let left = panic_of(|| {
        drop(cancel_sweep(async |cut| {
            cut.run(checkpoint()).await.unwrap();
            // A wait that is kept, and never ended.
            let mut wait = Box::pin(Box::leak(Box::new(Event::new())).wait());
            assert!(trefoil_tests::poll_once(wait.as_mut()).await.is_pending());
            std::mem::forget(wait);
        }));
    });
    assert!(left.contains("left over (tasks, scopes, waits, timers)") && left.contains("(0, 0, 1, 0)"), "{left}");
}
