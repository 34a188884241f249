//! Orders by seed: R87, N4.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use trefoil_nursery::{
    Cancelled, Event, channel, checkpoint, checkpoint_if_cancelled, local_nursery, sleep, sync, yield_now,
};
use trefoil_runtime::{Options, ThreadDriver};
use trefoil_testing::seeds;
use trefoil_tests::{Ended, Trace, ms, panic_of, run_real};

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
fn a_test_that_returns_an_error_fails_at_its_place() {
    let failed = panic_of(|| seeds(0..3, async || Err("out of clover")));
    assert!(failed.contains(r#"returned an error: "out of clover""#), "{failed}");
    let (passed, text) = run_ignored("seeds::returns_an_error_under_one_seed", None);
    let place = format!("panicked at {}:{ERROR_OF_ONE_SEED}:", file!());
    assert!(!passed && text.contains(&place), "{place} {text}");
    assert!(text.contains("TREFOIL_SEED=12 cargo test seeds::returns_an_error_under_one_seed"), "{text}");
    assert_eq!(text.matches("TREFOIL_SEED=").count(), 1, "{text}");
}

/// Returns an error under seed 12 alone. Run by the test before, in a process of its own.
#[test]
#[ignore = "fails on purpose"]
fn returns_an_error_under_one_seed() {
    seeds(0..20, async || if trefoil_testing_seed() == Some(12) { Err("out of clover") } else { Ok(()) });
}

const ERROR_OF_ONE_SEED: u32 = line!() - 3;

/// Fails under seed 12 alone. Run by the next test, in a process of its own.
#[test]
#[ignore = "fails on purpose"]
fn fails_under_one_seed() {
    seeds(0..20, async || {
        let seed_12 = trefoil_testing_seed() == Some(12);
        assert!(!seed_12, "unlucky");
    });
}

/// Runs a test in a process of its own, perhaps under a seed: whether it passed, and what it printed.
fn run_ignored(test: &str, seed: Option<&str>) -> (bool, String) {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]).env_remove("TREFOIL_SEED");
    if let Some(seed) = seed {
        command.env("TREFOIL_SEED", seed);
    }
    let output = command.output().unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
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
    let run = |seed: Option<&str>| run_ignored("seeds::fails_under_one_seed", seed);
    let (passed, text) = run(None);
    assert!(!passed && text.contains("unlucky"), "{text}");
    assert!(text.contains("TREFOIL_SEED=12 cargo test seeds::fails_under_one_seed"), "{text}");
    let (passed, text) = run(Some("12"));
    assert!(!passed && text.contains("under the seed 12"), "{text}");
    assert!(run(Some("13")).0);
    let (passed, text) = run(Some("clover"));
    assert!(!passed && text.contains("TREFOIL_SEED=clover: a seed is a number"), "{text}");
}
