//! Nurseries: who is awaited, who is cancelled, what comes out. R55–R66, N4, N11, R91.
//!
//! | rule | here |
//! | --- | --- |
//! | R62 (task-locals) | there are none yet; the half about scopes is tested |
//! | R64 (spawn after the end) | the handle cannot leave the body (`compile_fail` in the docs of `nursery`); while the nursery is torn down: `r64_a_nursery_that_is_torn_down_refuses` |
//! | R67, N16 (misnesting) | scopes and nurseries take closures and futures: there is no guard to leave in the wrong order |

use std::cell::{Cell, RefCell};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use trefoil_nursery::{
    CancelScope, Cancelled, ErrorGroup, Event, Source, cancel_cause, channel, checkpoint, effective_deadline,
    local_nursery, move_on_after, nursery, shield, shield_for, sleep, sleep_forever, until_soft_cancelled, yield_now,
};
use trefoil_nursery::{EffectiveDeadline, sleep_until};
use trefoil_runtime::BUDGET;
use trefoil_tests::{Trace, counted, ms, panic_of, run_real, run_virtual};

type Ended = Result<(), Cancelled>;

fn fail<T>(what: &str) -> io::Result<T> {
    Err(io::Error::other(what.to_string()))
}

fn texts(group: ErrorGroup<io::Error>) -> Vec<String> {
    group.into_iter().map(|e| e.to_string()).collect()
}

#[test]
fn r91_the_value_of_main_is_the_value_of_run() {
    assert_eq!(run_virtual(async || 42), 42);
    let error = run_virtual(async || fail::<()>("bare"));
    assert_eq!(error.unwrap_err().to_string(), "bare");
}

#[test]
fn r91_a_run_inside_of_a_run_is_refused_and_works_in_another_thread() {
    run_virtual(async || {
        let message = panic_of(|| run_virtual(async || ()));
        assert!(message.contains("a run was started inside of a run"), "{message}");
        // The outer run goes on.
        sleep(ms(1)).await.unwrap();
        let other = std::thread::spawn(|| run_real(async || sleep(ms(1)).await.map(|()| 7)));
        assert_eq!(other.join().unwrap(), Ok(7));
    });
}

#[test]
fn r55_the_nursery_ends_when_body_and_children_have() {
    for (body, child, end) in [(20, 10, 20), (20, 30, 30), (0, 5, 5), (5, 0, 5)] {
        run_virtual(async || {
            let t = Trace::new();
            local_nursery(async |n| -> Ended {
                n.spawn(async { sleep(ms(child)).await });
                sleep(ms(body)).await
            })
            .await
            .unwrap();
            assert_eq!(t.ms(), end);
        });
    }
}

#[test]
fn r55_an_empty_nursery_returns_the_bodys_value() {
    run_virtual(async || {
        assert_eq!(local_nursery(async |_| Ok::<_, Cancelled>(3)).await.unwrap(), 3);
        assert_eq!(nursery(async |_| Ok::<_, Cancelled>("x")).await.unwrap(), "x");
    });
}

#[test]
fn r56_the_exit_is_not_a_cancel_point() {
    run_virtual(async || {
        let scope = CancelScope::new();
        scope.cancel();
        let value = scope
            .run(async {
                let value = local_nursery(async |n| {
                    n.spawn(async { Ok(()) });
                    Ok::<_, Cancelled>(1)
                })
                .await
                .unwrap();
                Ok::<_, Cancelled>(value + 1)
            })
            .await;
        assert_eq!(value, Ok(Some(2)));
        assert!(scope.cancel_called() && !scope.cancelled_caught());
    });
}

#[test]
fn r57_the_parent_cannot_be_interrupted_while_it_waits_in_the_exit() {
    run_virtual(async || {
        let t = Trace::new();
        let out = move_on_after(ms(10), async {
            let value = local_nursery(async |n| {
                n.spawn(async {
                    let slept = sleep_forever().await;
                    t.note("child", "told");
                    shield(sleep(ms(50))).await?;
                    assert_eq!(slept, Err(Cancelled::delivered()));
                    Ok(())
                });
                Ok::<_, Cancelled>("value")
            })
            .await
            .unwrap();
            t.note("parent", value);
            Ok::<_, Cancelled>(value)
        })
        .await;
        // The child reported nothing: so the value comes out, although the deadline has passed.
        assert_eq!(out, Ok(Some("value")));
        assert_eq!(t.lines(), ["10 child told", "60 parent value"]);
    });
}

#[test]
fn r58_a_failing_child_cancels_a_sibling_that_sleeps_for_ever() {
    run_virtual(async || {
        let t = Trace::new();
        let group = local_nursery(async |n| -> io::Result<()> {
            n.spawn(async {
                let slept = sleep_forever().await;
                let cause = cancel_cause().unwrap();
                t.note("sibling", cause.source);
                assert_eq!(cause.source, Source::Nursery);
                slept?;
                Ok(())
            });
            n.spawn(async {
                sleep(ms(5)).await?;
                fail::<()>("crash")
            });
            Ok(())
        })
        .await
        .unwrap_err();
        // The parent sees just the crash.
        assert_eq!(texts(group), ["crash"]);
        assert_eq!(t.lines(), ["5 sibling a child failed"]);
    });
}

#[test]
fn r58_a_parent_asleep_in_the_body_is_woken_by_a_childs_failure() {
    run_virtual(async || {
        let t = Trace::new();
        let group = local_nursery(async |n| -> io::Result<()> {
            n.spawn(async {
                sleep(ms(7)).await?;
                fail::<()>("crash")
            });
            let slept = sleep_forever().await;
            t.note("body", "woken");
            slept?;
            Ok(())
        })
        .await
        .unwrap_err();
        assert_eq!(texts(group), ["crash"]);
        assert_eq!(t.lines(), ["7 body woken"]);
    });
}

#[test]
fn r58_a_failing_body_cancels_the_children_and_awaits_them() {
    run_virtual(async || {
        let t = Trace::new();
        let group = local_nursery(async |n| -> io::Result<()> {
            n.spawn(async {
                let slept = sleep_forever().await;
                shield(sleep(ms(20))).await?;
                t.note("child", "cleaned up");
                slept?;
                Ok(())
            });
            sleep(ms(3)).await?;
            fail("body")
        })
        .await
        .unwrap_err();
        assert_eq!(texts(group), ["body"]);
        assert_eq!(t.lines(), ["23 child cleaned up"]);
        assert_eq!(t.ms(), 23);
    });
}

#[test]
fn r59_errors_are_collected_in_completion_order() {
    run_virtual(async || {
        // Each one ignores the cancellation (in a shield), and fails in its own time.
        let group = local_nursery(async |n| -> io::Result<()> {
            for (at, name) in [(30, "third"), (10, "first"), (40, "fourth")] {
                n.spawn(async move {
                    shield(sleep(ms(at))).await?;
                    fail::<()>(name)
                });
            }
            shield(sleep(ms(20))).await?;
            fail("body, second")
        })
        .await
        .unwrap_err();
        assert_eq!(texts(group), ["first", "body, second", "third", "fourth"]);
    });
}

#[test]
fn r59_two_children_fail_in_the_same_turn() {
    run_virtual(async || {
        let group = local_nursery(async |n| -> io::Result<()> {
            n.spawn(async { fail::<()>("one") });
            n.spawn(async { fail::<()>("two") });
            Ok(())
        })
        .await
        .unwrap_err();
        assert_eq!(texts(group), ["one", "two"]);
    });
}

#[test]
fn r59_a_single_error_is_a_group_too() {
    run_virtual(async || {
        let group = local_nursery(async |_| fail::<()>("alone")).await.unwrap_err();
        assert_eq!(group.len(), 1);
    });
}

#[test]
fn r62_a_childs_scope_is_that_of_its_nursery_not_of_its_spawner() {
    run_virtual(async || {
        let t = Trace::new();
        let spawners = CancelScope::new();
        local_nursery(async |n| -> Ended {
            n.set_deadline(Some(t.at(1000)));
            move_on_after(ms(5), async {
                spawners
                    .run(async {
                        n.spawn(async {
                            assert_eq!(effective_deadline(), EffectiveDeadline::At(t.at(1000)));
                            sleep(ms(20)).await?;
                            t.note("child", "slept");
                            Ok(())
                        });
                        yield_now().await;
                        spawners.cancel();
                        sleep_forever().await
                    })
                    .await
            })
            .await?;
            t.note("body", "left");
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(t.lines(), ["0 body left", "20 child slept"]);
    });
}

#[test]
fn r63_a_child_spawned_into_a_cancelled_nursery_runs_to_its_first_checkpoint() {
    run_virtual(async || {
        let t = Trace::new();
        let ended = local_nursery(async |n| -> Ended {
            n.cancel();
            for name in ["a", "b"] {
                let t = &t;
                n.spawn(async move {
                    t.note(name, "runs");
                    checkpoint().await?;
                    t.note(name, "unreachable");
                    Ok(())
                });
            }
            Ok(())
        })
        .or_cancelled()
        .await;
        assert_eq!(ended.unwrap(), Some(()));
        assert_eq!(t.lines(), ["0 a runs", "0 b runs"]);
    });
}

#[test]
fn r63_a_child_may_be_spawned_from_the_clean_up_of_a_sibling() {
    run_virtual(async || {
        let t = &Trace::new();
        local_nursery(async |n| -> Ended {
            n.spawn(async move {
                let slept = sleep_forever().await;
                n.spawn(async {
                    t.note("late", "runs");
                    let slept = sleep(ms(1)).await;
                    t.note("late", if slept.is_err() { "cancelled" } else { "slept" });
                    slept
                });
                slept
            });
            sleep(ms(2)).await?;
            n.cancel();
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(t.lines(), ["2 late runs", "2 late cancelled"]);
    });
}

#[test]
fn r64_the_nursery_stays_open_for_a_grandchild_of_the_last_child() {
    run_virtual(async || {
        let t = Trace::new();
        let done = &Cell::new(0);
        local_nursery(async |n| -> Ended {
            n.spawn(async move {
                sleep(ms(10)).await?;
                n.spawn(async move {
                    sleep(ms(10)).await?;
                    n.spawn(async {
                        sleep(ms(10)).await?;
                        done.set(done.get() + 1);
                        Ok(())
                    });
                    done.set(done.get() + 1);
                    Ok(())
                });
                done.set(done.get() + 1);
                Ok(())
            });
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!((t.ms(), done.get()), (30, 3));
    });
}

/// R64: the only way to spawn into a nursery that has ended is from a destructor while it is torn down. The child is dropped, never
/// polled, and its handle says that it is done.
#[test]
fn r64_a_nursery_that_is_torn_down_refuses() {
    use trefoil_nursery::Nursery;
    static DROPPED: AtomicUsize = AtomicUsize::new(0);
    static POLLED: AtomicUsize = AtomicUsize::new(0);
    static REFUSED: AtomicUsize = AtomicUsize::new(0);
    struct CountDrop;
    impl Drop for CountDrop {
        fn drop(&mut self) {
            DROPPED.fetch_add(1, Ordering::SeqCst);
        }
    }
    struct SpawnInDrop<'s, 'env>(Nursery<'s, 'env, Cancelled>);
    impl Drop for SpawnInDrop<'_, '_> {
        fn drop(&mut self) {
            let counted = CountDrop;
            let mut join = self.0.spawn(async move {
                POLLED.fetch_add(1, Ordering::SeqCst);
                drop(counted);
                Ok(1)
            });
            if join.is_done() && join.try_take().is_none() {
                REFUSED.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
    run_virtual(async || {
        for count in [&DROPPED, &POLLED, &REFUSED] {
            count.store(0, Ordering::SeqCst);
        }
        let mut open = Box::pin(nursery(async |n| -> Ended {
            n.spawn(async move {
                let _guard = SpawnInDrop(n);
                sleep_forever().await
            });
            sleep_forever().await
        }));
        for _ in 0..2 {
            assert!(trefoil_tests::poll_once(open.as_mut()).await.is_pending());
        }
        drop(open);
        assert_eq!([&DROPPED, &POLLED, &REFUSED].map(|n| n.load(Ordering::SeqCst)), [1, 0, 1]);
    });
}

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
fn r66_cancelling_a_nursery_with_healthy_children_ends_it_without_an_error() {
    run_virtual(async || {
        let t = Trace::new();
        let value = local_nursery(async |n| -> Result<u32, Cancelled> {
            for _ in 0..3 {
                n.spawn(sleep_forever());
            }
            sleep(ms(4)).await?;
            assert!(!n.cancel_called());
            n.cancel();
            assert!(n.cancel_called());
            Ok(7)
        })
        .await;
        // The body had a value before, and keeps it.
        assert_eq!(value.unwrap(), 7);
        assert_eq!(t.ms(), 4);
    });
}

#[test]
fn r66_a_nursery_that_cancels_its_own_body_has_no_value() {
    run_virtual(async || {
        let ended = local_nursery(async |n| -> Result<u32, io::Error> {
            n.spawn(async move {
                sleep(ms(1)).await?;
                n.cancel();
                Ok(())
            });
            sleep_forever().await?;
            Ok(1)
        });
        assert!(ended.or_cancelled().await.unwrap().is_none());
    });
}

#[test]
fn r66_a_nurserys_own_deadline_cancels_it() {
    run_virtual(async || {
        let t = Trace::new();
        let value = local_nursery(async |n| -> Result<u32, Cancelled> {
            assert_eq!(n.deadline(), None);
            n.set_deadline(Some(t.at(15)));
            assert_eq!(n.deadline(), Some(t.at(15)));
            n.spawn(async {
                let slept = sleep_forever().await;
                assert_eq!(cancel_cause().unwrap().source, Source::Deadline);
                slept
            });
            Ok(1)
        })
        .await;
        assert_eq!((value.unwrap(), t.ms()), (1, 15));
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

#[test]
fn children_borrow_the_frame_and_their_values_come_out_of_the_handles() {
    run_virtual(async || {
        let names = ["clover".to_string(), "ivy".to_string(), "fern".to_string()];
        let mut log = Vec::new();
        let lengths = nursery(async |n| -> Result<Vec<usize>, Cancelled> {
            let joins: Vec<_> = names.iter().map(|name| n.spawn(async move { Ok(name.len()) })).collect();
            n.spawn(async {
                log.push("unique");
                Ok(())
            });
            let mut lengths = Vec::new();
            for join in joins {
                lengths.push(join.await?);
            }
            Ok(lengths)
        })
        .await
        .unwrap();
        assert_eq!((lengths, log), (vec![6, 3, 4], vec!["unique"]));
    });
}

#[test]
fn a_join_of_a_failed_or_cancelled_child_is_cancelled_and_one_of_a_done_child_need_not_wait() {
    run_virtual(async || {
        let group = local_nursery(async |n| -> io::Result<()> {
            let failed = n.spawn(async { fail::<u8>("child") });
            let slept = n.spawn(async {
                let slept = sleep_forever().await;
                shield(sleep(ms(5))).await?;
                slept?;
                Ok(1)
            });
            let done = n.spawn(async { Ok(2) });
            checkpoint().await.unwrap_err();
            assert!(failed.is_done() && done.is_done() && !slept.is_done());
            let values = shield(async { (failed.await, done.await, slept.await) }).await;
            assert_eq!(values, (Err(Cancelled::delivered()), Ok(2), Err(Cancelled::delivered())));
            Ok(())
        })
        .await
        .unwrap_err();
        assert_eq!(texts(group), ["child"]);
    });
}

#[test]
fn a_dropped_join_neither_cancels_nor_detaches_the_child() {
    run_virtual(async || {
        let t = Trace::new();
        local_nursery(async |n| -> Ended {
            drop(n.spawn(async {
                sleep_until(t.at(9)).await?;
                t.note("child", "done");
                Ok(vec![1, 2, 3])
            }));
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(t.lines(), ["9 child done"]);
    });
}

#[test]
fn r2_a_task_inherits_a_cancel_from_three_levels_above_unless_a_shield_is_between() {
    for shielded in [None, Some(0), Some(1), Some(2)] {
        run_virtual(async || {
            let t = Trace::new();
            let outer = CancelScope::new();
            let out = outer
                .run(async {
                    local_nursery(async |a| -> Ended {
                        a.set_shield(shielded == Some(0));
                        a.spawn(async {
                            local_nursery(async |b| -> Ended {
                                b.set_shield(shielded == Some(1));
                                b.spawn(async {
                                    local_nursery(async |c| -> Ended {
                                        c.set_shield(shielded == Some(2));
                                        c.spawn(async {
                                            let slept = sleep(ms(100)).await;
                                            t.note("leaf", slept.is_ok());
                                            slept
                                        });
                                        Ok(())
                                    })
                                    .await?;
                                    Ok(())
                                });
                                Ok(())
                            })
                            .await?;
                            Ok(())
                        });
                        sleep(ms(10)).await.ok();
                        outer.cancel();
                        Ok(())
                    })
                    .await?;
                    Ok::<_, Cancelled>(())
                })
                .await;
            match shielded {
                None => assert_eq!((t.lines(), out), (vec!["10 leaf false".to_string()], Ok(None))),
                Some(_) => assert_eq!((t.lines(), out), (vec!["100 leaf true".to_string()], Ok(Some(())))),
            }
        });
    }
}
