//! In what order the tasks of a nursery run, and when they give up their turn: R65, N4, N11, N13.

use std::cell::{Cell, RefCell};
use std::io;
use trefoil_nursery::{
    CancelScope, Cancelled, ErrorGroup, Event, channel, checkpoint, local_nursery, move_on_after, nursery, shield_for,
    sleep_forever, until_soft_cancelled, yield_now,
};
use trefoil_runtime::BUDGET;
use trefoil_tests::{Ended, Trace, counted, ms, run_virtual};

#[test]
fn r65_no_child_runs_before_the_spawner_yields() {
    run_virtual(async || {
        let t = Trace::new();
        local_nursery(async |n| -> Ended {
            for name in ["a", "b", "c"] {
                let t = &t;
                n.spawn(async move {
                    t.note(name, "runs");
                    Ok(())
                });
            }
            t.note("body", "spawned");
            // Not a wait: the turn is not given up.
            let ready = Event::new();
            ready.set();
            ready.wait().await?;
            t.note("body", "yields");
            yield_now().await;
            t.note("body", "again");
            Ok(())
        })
        .await
        .unwrap();
        // N4: in the order in which they were spawned.
        assert_eq!(t.lines(), ["0 body spawned", "0 body yields", "0 a runs", "0 b runs", "0 c runs", "0 body again"]);
    });
}

#[test]
fn r65_two_tasks_that_count_checkpoints_interleave_one_step_per_pass() {
    run_virtual(async || {
        let steps = RefCell::new(String::new());
        local_nursery(async |n| -> Ended {
            for name in ['a', 'b'] {
                let steps = &steps;
                n.spawn(async move {
                    for _ in 0..5 {
                        checkpoint().await?;
                        steps.borrow_mut().push(name);
                    }
                    Ok(())
                });
            }
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(*steps.borrow(), "ababababab");
    });
}

#[test]
fn n4_the_schedule_is_the_same_in_every_run() {
    let once = || {
        run_virtual(async || {
            let t = Trace::new();
            let (tx, rx) = channel(1);
            local_nursery(async |n| -> io::Result<()> {
                for name in ["a", "b", "c"] {
                    let (tx, t) = (tx.clone(), &t);
                    n.spawn(async move {
                        for i in 0..5 {
                            tx.send((name, i)).await?;
                            t.note(name, i);
                        }
                        Ok(())
                    });
                }
                drop(tx);
                while let Some((name, i)) = rx.recv().await? {
                    t.note("body", format!("{name}{i}"));
                    if i % 2 == 0 {
                        checkpoint().await?;
                    }
                }
                Ok(())
            })
            .await
            .unwrap();
            t.lines()
        })
    };
    let first = once();
    assert_eq!(first.len(), 30);
    for _ in 0..5 {
        assert_eq!(once(), first);
    }
}

#[test]
fn n4_woken_tasks_run_in_the_order_in_which_they_were_woken() {
    run_virtual(async || {
        let order = RefCell::new(Vec::new());
        let events: Vec<_> = (0..5).map(|_| Event::new()).collect();
        local_nursery(async |n| -> Ended {
            for (i, event) in events.iter().enumerate() {
                let order = &order;
                n.spawn(async move {
                    event.wait().await?;
                    order.borrow_mut().push(i);
                    Ok(())
                });
            }
            yield_now().await;
            for i in [3, 1, 4, 0, 2] {
                events[i].set();
            }
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(*order.borrow(), [3, 1, 4, 0, 2]);
    });
}

/// N11: operations that need not wait do not give up the turn until the budget of the task is spent; then they do, once.
#[test]
fn n11_the_turn_is_given_up_when_the_budget_is_spent() {
    let budget = BUDGET as usize;
    for (operations, expected) in [(1, 1), (budget, 1), (budget + 1, 2), (3 * budget, 3), (3 * budget + 1, 4)] {
        run_virtual(async || {
            let polls = Cell::new(0);
            local_nursery(async |n| -> Ended {
                n.spawn(counted(&polls, async {
                    let event = Event::new();
                    event.set();
                    for _ in 0..operations {
                        event.wait().await?;
                    }
                    Ok(())
                }));
                Ok(())
            })
            .await
            .unwrap();
            assert_eq!(polls.get(), expected, "{operations} operations");
        });
    }
}

/// R12, N11, N13: each of these ends at once, and what they absorb is forgiven. A loop of them must not keep the thread from what would end it.
async fn ends_by_a_sibling(what: &str, mut step: impl AsyncFnMut() -> Result<(), ErrorGroup<Cancelled>>) {
    let (stop, steps) = (Cell::new(false), Cell::new(0));
    local_nursery(async |n| -> Result<(), ErrorGroup<Cancelled>> {
        n.spawn(async {
            stop.set(true);
            Ok(())
        });
        while !stop.get() {
            step().await?;
            steps.set(steps.get() + 1);
            assert!(steps.get() <= 10 * BUDGET, "{what}: it never gives up its turn");
        }
        Ok(())
    })
    .await
    .unwrap();
    assert!(steps.get() > 0);
}

#[test]
fn n13_a_loop_of_scopes_that_are_cancelled_at_once_gives_up_its_turn() {
    run_virtual(async || {
        ends_by_a_sibling("a deadline that has passed", async || {
            assert_eq!(move_on_after(ms(0), sleep_forever()).await?, None);
            Ok(())
        })
        .await;
        ends_by_a_sibling("a clean-up without time", async || {
            assert_eq!(shield_for(ms(0), sleep_forever()).await?, None);
            Ok(())
        })
        .await;
        ends_by_a_sibling("a scope with a handle", async || {
            let scope = CancelScope::new();
            scope.cancel();
            assert_eq!(scope.run(sleep_forever()).await?, None);
            Ok(())
        })
        .await;
        let softly = CancelScope::new();
        softly.cancel_softly(ms(1000));
        let serving = softly.run(async {
            ends_by_a_sibling("a soft cancel that is swallowed", async || {
                assert_eq!(until_soft_cancelled(sleep_forever()).await?, None);
                Ok(())
            })
            .await;
            Ok::<_, Cancelled>(())
        });
        assert_eq!(serving.await, Ok(Some(())));
    });
}

/// R56.
#[test]
fn n11_a_loop_of_nurseries_gives_up_its_turn() {
    run_virtual(async || {
        ends_by_a_sibling("a nursery with nothing in it", async || nursery(async |_| Ok(())).await).await;
        ends_by_a_sibling("a nursery that cancels itself", async || {
            let ended = nursery(async |n| -> Ended {
                n.cancel();
                sleep_forever().await
            });
            assert!(ended.or_cancelled().await?.is_none());
            Ok(())
        })
        .await;
        let (tx, rx) = channel(1);
        ends_by_a_sibling("a nursery with an operation that need not wait", async || {
            tx.try_send(()).unwrap();
            nursery(async |_| rx.recv().await.map(drop)).await
        })
        .await;
    });
}

#[test]
fn n11_a_busy_task_does_not_starve_a_sibling() {
    run_virtual(async || {
        let (tx, rx) = channel(1);
        let turns = Cell::new(0);
        local_nursery(async |n| -> io::Result<()> {
            n.spawn(async move {
                for i in 0..10 * BUDGET {
                    // Both are ready at once, each spends one unit.
                    tx.send(i).await?;
                    rx.recv().await?;
                }
                Ok(())
            });
            let n_turns = &turns;
            n.spawn(async move {
                for _ in 0..1000 {
                    yield_now().await;
                    n_turns.set(n_turns.get() + 1);
                }
                Ok(())
            });
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(turns.get(), 1000);
    });
}

#[test]
fn n11_a_checkpoint_always_gives_up_the_turn() {
    run_virtual(async || {
        let polls = Cell::new(0);
        counted(&polls, async {
            for _ in 0..10 {
                checkpoint().await.unwrap();
            }
        })
        .await;
        assert_eq!(polls.get(), 11);
    });
}
