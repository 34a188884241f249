//! Deadlines: R14, R43–R50, N2.
//!
//! | rule | here |
//! | --- | --- |
//! | R49 (NaN, negative durations) | `Duration` and `Instant` cannot say either; instants in the past: `r49_*` |

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};
use trefoil_nursery::{
    CancelScope, Cancelled, EffectiveDeadline, Source, checkpoint, checkpoint_if_cancelled, effective_deadline,
    local_nursery, move_on_after, move_on_at, nursery, shield, sleep, sleep_forever, sleep_until, yield_now,
};
use trefoil_runtime::metrics;
use trefoil_tests::{CANCELLED, Ended, Trace, ms, run_real, run_virtual};

#[test]
fn r14_a_deadline_that_has_passed_is_not_effective_until_the_loop_has_looked() {
    run_virtual(async || {
        let t = Trace::new();
        sleep(ms(10)).await.unwrap();
        let scope = CancelScope::new();
        let out = scope
            .run(async {
                scope.set_deadline(Some(t.at(3)));
                // In the past, and not cancelled.
                assert_eq!(effective_deadline(), EffectiveDeadline::At(t.at(3)));
                checkpoint_if_cancelled().await?;
                // Reading the flag notices the clock, and cancels on the spot.
                assert!(scope.cancel_called());
                assert_eq!(effective_deadline(), EffectiveDeadline::Cancelled);
                assert_eq!(scope.cause().unwrap().source, Source::Deadline);
                checkpoint_if_cancelled().await
            })
            .await;
        assert_eq!((out, scope.cancelled_caught()), (Ok(None), true));
    });
}

#[test]
fn r14_reading_the_flag_aborts_what_sleeps_in_the_scope() {
    run_virtual(async || {
        let t = Trace::new();
        let scope = CancelScope::new();
        local_nursery(async |n| -> Ended {
            n.spawn(async {
                assert_eq!(scope.run(sleep_forever()).await, Ok(None));
                Ok(())
            });
            sleep(ms(5)).await?;
            scope.set_deadline(Some(t.at(5)));
            assert_eq!(metrics().waits, 1);
            assert!(scope.cancel_called());
            assert_eq!(metrics().waits, 0);
            Ok(())
        })
        .await
        .unwrap();
    });
}

/// R2, R14: bringing the state of a scope up to date reads its flag, and so notices the clock; setting a deadline does not. The
/// answers are those of Trio 0.22.2, asked with the same operations.
#[test]
fn r14_what_brings_the_state_up_to_date_notices_a_deadline_that_has_passed() {
    type Act = fn(&CancelScope, &CancelScope, Instant);
    let table: &[(&str, bool, Act)] = &[
        ("the deadline alone", false, |_, i, past| i.set_deadline(Some(past))),
        ("a shield that was down is lowered", true, |_, i, past| {
            i.set_deadline(Some(past));
            i.set_shield(false);
        }),
        ("the shield is raised", true, |_, i, past| {
            i.set_deadline(Some(past));
            i.set_shield(true);
        }),
        ("the shield is lowered", true, |_, i, past| {
            i.set_shield(true);
            i.set_deadline(Some(past));
            i.set_shield(false);
        }),
        ("outside, where nothing changes", false, |o, i, past| {
            i.set_deadline(Some(past));
            o.set_shield(true);
        }),
        ("inside of it", false, |o, i, past| {
            o.set_deadline(Some(past));
            i.set_shield(true);
            i.set_shield(false);
        }),
        ("outside, where the state changes", true, |o, i, past| {
            i.set_deadline(Some(past));
            o.cancel();
            i.set_shield(true);
        }),
    ];
    for &(what, cancelled, act) in table {
        run_virtual(async || {
            let t = Trace::new();
            sleep(ms(5)).await.unwrap();
            let (outer, inner) = (CancelScope::new(), CancelScope::new());
            let seen = Cell::new(None);
            let body = inner.run(async {
                act(&outer, &inner, t.at(4));
                seen.set(Some(effective_deadline()));
                Ok::<_, Cancelled>(())
            });
            outer.run(body).await.unwrap();
            let expected = if cancelled { EffectiveDeadline::Cancelled } else { EffectiveDeadline::At(t.at(4)) };
            assert_eq!(seen.get(), Some(expected), "{what}");
        });
    }
    run_virtual(async || {
        let t = Trace::new();
        sleep(ms(5)).await.unwrap();
        let outer = CancelScope::new();
        let body = async {
            outer.set_deadline(Some(t.at(4)));
            // A scope that is entered inside is brought up to date, and nothing else.
            let seen = CancelScope::new().run(async { Ok::<_, Cancelled>(effective_deadline()) }).await?;
            assert_eq!(seen, Some(EffectiveDeadline::At(t.at(4))));
            Ok::<_, Cancelled>(())
        };
        outer.run(body).await.unwrap();
    });
}

/// R14 under the machine's clock: the body is busy beyond its deadline.
#[test]
fn r14_a_busy_body_sees_its_deadline_at_the_next_checkpoint() {
    run_real(async || {
        let scope = CancelScope::new();
        scope.set_deadline(Some(trefoil_nursery::now() + ms(3)));
        let out = scope
            .run(async {
                std::thread::sleep(ms(6));
                checkpoint_if_cancelled().await?;
                checkpoint().await
            })
            .await;
        assert_eq!(out, Ok(None));
    });
}

/// Behaviour 22.
#[test]
fn r43_a_relative_deadline_is_measured_from_the_entry() {
    run_virtual(async || {
        let t = Trace::new();
        let scope = move_on_after(ms(10), sleep_forever());
        sleep(ms(100)).await.unwrap();
        assert_eq!((scope.await, t.ms()), (Ok(None), 110));
        let scope = move_on_at(t.at(150), sleep_forever());
        sleep(ms(20)).await.unwrap();
        assert_eq!((scope.await, t.ms()), (Ok(None), 150));
    });
}

#[test]
fn r44_a_deadline_in_the_past_at_entry_cancels_immediately() {
    run_virtual(async || {
        let t = Trace::new();
        sleep(ms(10)).await.unwrap();
        for at in [0, 9, 10] {
            let scope = CancelScope::new();
            scope.set_deadline(Some(t.at(at)));
            let out = scope
                .run(async {
                    assert!(scope.cancel_called());
                    assert_eq!(effective_deadline(), EffectiveDeadline::Cancelled);
                    t.note("body", at);
                    checkpoint_if_cancelled().await
                })
                .await;
            assert_eq!((out, scope.cancelled_caught()), (Ok(None), true));
        }
        // The body runs to its first checkpoint.
        assert_eq!(t.lines(), ["10 body 0", "10 body 9", "10 body 10"]);
        assert_eq!(move_on_after(Duration::ZERO, sleep(ms(0))).await, Ok(None));
        assert_eq!(move_on_after(Duration::ZERO, async { Ok::<_, Cancelled>(1) }).await, Ok(Some(1)));
    });
}

#[test]
fn r45_expiry_is_looked_at_once_per_pass_before_any_task_runs() {
    run_virtual(async || {
        let (t, scope) = (&Trace::new(), &CancelScope::new());
        let others = |name: &'static str| async move {
            t.note(name, format!("{:?}", scope.cause().map(|c| c.source)));
            Ok(())
        };
        local_nursery(async |n| -> Ended {
            n.spawn(async move {
                scope
                    .run(async {
                        yield_now().await;
                        scope.set_deadline(Some(t.at(0)));
                        // Still in this pass: it has not been looked at.
                        assert!(scope.cause().is_none());
                        n.spawn(others("next pass"));
                        yield_now().await;
                        // Before any task of the next pass ran.
                        assert_eq!(scope.cause().unwrap().source, Source::Deadline);
                        Ok::<_, Cancelled>(())
                    })
                    .await?;
                Ok(())
            });
            n.spawn(others("first pass"));
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(t.lines(), ["0 first pass None", "0 next pass Some(Deadline)"]);
    });
}

/// Behaviour 23.
#[test]
fn r46_equal_deadlines_of_nested_scopes_the_outer_one_catches() {
    run_virtual(async || {
        let t = Trace::new();
        for inner_first in [false, true] {
            let (outer, inner) = (CancelScope::new(), CancelScope::new());
            let at = t.at(10 + t.ms() as u64);
            // The order in which they were given does not matter.
            let out = outer
                .run(async {
                    inner
                        .run(async {
                            let both = if inner_first { [&inner, &outer] } else { [&outer, &inner] };
                            both.iter().for_each(|scope| scope.set_deadline(Some(at)));
                            sleep_forever().await
                        })
                        .await
                })
                .await;
            assert_eq!(out, Ok(None));
            assert!(outer.cancelled_caught() && inner.cancel_called() && !inner.cancelled_caught());
        }
        assert_eq!(t.ms(), 20);
    });
}

#[test]
fn r46_a_deadline_that_equals_the_end_of_a_sleep_wins() {
    run_virtual(async || {
        let t = Trace::new();
        assert_eq!(move_on_after(ms(10), sleep(ms(10))).await, Ok(None));
        // Also where the sleep began before the deadline was set.
        let scope = CancelScope::new();
        local_nursery(async |n| -> Ended {
            n.spawn(async {
                assert_eq!(scope.run(sleep_until(t.at(30))).await, Ok(None));
                Ok(())
            });
            yield_now().await;
            scope.set_deadline(Some(t.at(500)));
            scope.set_deadline(Some(t.at(30)));
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(t.ms(), 30);
        assert_eq!(move_on_after(ms(11), sleep(ms(10))).await, Ok(Some(())));
    });
}

#[test]
fn r46_all_deadlines_that_are_due_are_applied_before_any_task_runs_in_order() {
    // The machine's clock: two deadlines pass while a task is busy.
    run_real(async || {
        let scopes: [CancelScope; 3] = std::array::from_fn(|_| CancelScope::new());
        let order = RefCell::new(Vec::new());
        local_nursery(async |n| -> Ended {
            for (i, scope) in scopes.iter().enumerate() {
                let (order, scopes) = (&order, &scopes);
                n.spawn(async move {
                    scope
                        .run(async {
                            let slept = sleep_forever().await;
                            order.borrow_mut().push((i, scopes.iter().filter(|s| s.cause().is_some()).count()));
                            slept
                        })
                        .await?;
                    Ok(())
                });
            }
            yield_now().await;
            let begin = trefoil_nursery::now();
            for (scope, after) in scopes.iter().zip([6, 2, 4]) {
                scope.set_deadline(Some(begin + ms(after)));
            }
            std::thread::sleep(ms(10));
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(*order.borrow(), [(1, 3), (2, 3), (0, 3)]);
    });
}

#[test]
fn n2_ties_between_equal_deadlines_break_by_order_of_creation() {
    run_virtual(async || {
        let t = Trace::new();
        let order = RefCell::new(Vec::new());
        local_nursery(async |n| -> Ended {
            for i in 0..8 {
                let (order, t) = (&order, &t);
                n.spawn(async move {
                    if i % 2 == 0 {
                        sleep_until(t.at(10)).await?;
                    } else {
                        assert_eq!(move_on_at(t.at(10), sleep_forever()).await, Ok(None));
                    }
                    order.borrow_mut().push(i);
                    Ok(())
                });
            }
            Ok(())
        })
        .await
        .unwrap();
        // Scopes before sleepers (R46), each kind by age.
        assert_eq!(*order.borrow(), [1, 3, 5, 7, 0, 2, 4, 6]);
    });
}

/// Behaviour 24: `(deadline, shield)` of nested scopes, outermost first, and what the innermost sees.
#[test]
fn r47_the_effective_deadline_over_a_table_of_nestings() {
    type Level = (Option<u64>, bool);
    let table: &[(&[Level], Option<u64>)] = &[
        (&[(None, false)], None),
        (&[(Some(10), false)], Some(10)),
        (&[(Some(10), false), (None, false)], Some(10)),
        (&[(Some(10), false), (Some(20), false)], Some(10)),
        (&[(Some(20), false), (Some(10), false)], Some(10)),
        (&[(Some(10), false), (None, true)], None),
        (&[(Some(10), false), (Some(20), true)], Some(20)),
        (&[(Some(10), true), (Some(20), false)], Some(10)),
        (&[(Some(10), true), (Some(5), false)], Some(5)),
        (&[(Some(1), false), (Some(30), true), (Some(40), false)], Some(30)),
        (&[(Some(1), false), (Some(30), true), (Some(40), true)], Some(40)),
        (&[(Some(1), false), (None, true), (None, false)], None),
    ];
    async fn nest(rest: &[Level], t: &Trace, cancel: Option<usize>, seen: &RefCell<Option<EffectiveDeadline>>) {
        let [(deadline, shield), rest @ ..] = rest else {
            *seen.borrow_mut() = Some(effective_deadline());
            return;
        };
        let scope = CancelScope::new();
        scope.set_deadline(deadline.map(|at| t.at(at)));
        scope.set_shield(*shield);
        if cancel == Some(0) {
            scope.cancel();
        }
        let inner = Box::pin(nest(rest, t, cancel.and_then(|c| c.checked_sub(1)), seen));
        scope
            .run(async {
                inner.await;
                Ok::<_, Cancelled>(())
            })
            .await
            .unwrap();
    }
    for (levels, expected) in table {
        run_virtual(async || {
            let t = Trace::new();
            let seen = RefCell::new(None);
            nest(levels, &t, None, &seen).await;
            let expected = expected.map_or(EffectiveDeadline::Never, |at| EffectiveDeadline::At(t.at(at)));
            assert_eq!(seen.take(), Some(expected), "{levels:?}");
            // And after each of them was cancelled: −∞, unless a shield is further in.
            for cancelled in 0..levels.len() {
                nest(levels, &t, Some(cancelled), &seen).await;
                let shielded = levels[cancelled + 1..].iter().any(|(_, shield)| *shield);
                let expected = if shielded { expected } else { EffectiveDeadline::Cancelled };
                assert_eq!(seen.take(), Some(expected), "{levels:?}, {cancelled} cancelled");
            }
        });
    }
}

#[test]
fn r47_a_nurserys_deadline_counts() {
    run_virtual(async || {
        let t = Trace::new();
        nursery(async |n| -> Ended {
            n.set_deadline(Some(t.at(7)));
            n.spawn(async {
                assert_eq!(effective_deadline(), EffectiveDeadline::At(t.at(7)));
                move_on_after(ms(3), async {
                    assert_eq!(effective_deadline(), EffectiveDeadline::At(t.at(3)));
                    Ok::<_, Cancelled>(())
                })
                .await?;
                Ok(())
            });
            Ok(())
        })
        .await
        .unwrap();
    });
}

/// Behaviour 21: what is done to a deadline of 50 ms at 10 ms, from a sibling, and when the sleeper wakes.
#[test]
fn r48_changing_a_deadline_takes_effect_at_once() {
    let table: &[(&str, Option<u64>, u128)] = &[
        ("moved earlier while asleep", Some(20), 20),
        ("moved to now", Some(10), 10),
        ("moved into the past", Some(1), 10),
        ("moved later", Some(70), 70),
        ("moved later than the sleep", Some(1000), 200),
        ("removed", None, 200),
    ];
    for &(what, moved, woken) in table {
        run_virtual(async || {
            let t = Trace::new();
            let scope = CancelScope::new();
            scope.set_deadline(Some(t.at(50)));
            local_nursery(async |n| -> Ended {
                n.spawn(async {
                    let out = scope.run(sleep_until(t.at(200))).await;
                    assert_eq!((out.unwrap().is_some(), t.ms()), (woken == 200, woken), "{what}");
                    Ok(())
                });
                sleep(ms(10)).await?;
                scope.set_deadline(moved.map(|at| t.at(at)));
                assert_eq!(scope.deadline(), moved.map(|at| t.at(at)));
                Ok(())
            })
            .await
            .unwrap();
            assert_eq!(scope.cancelled_caught(), woken < 200, "{what}");
        });
    }
}

#[test]
fn r48_moved_later_just_in_time_and_back_and_forth() {
    run_virtual(async || {
        let t = Trace::new();
        let scope = CancelScope::new();
        scope.set_deadline(Some(t.at(50)));
        local_nursery(async |n| -> Ended {
            n.spawn(async {
                assert_eq!((scope.run(sleep_forever()).await, t.ms()), (Ok(None), 130));
                Ok(())
            });
            sleep_until(t.at(49)).await?;
            scope.set_deadline(Some(t.at(100)));
            sleep_until(t.at(99)).await?;
            scope.set_deadline(None);
            sleep_until(t.at(110)).await?;
            scope.set_deadline(Some(t.at(200)));
            scope.set_deadline(Some(t.at(120)));
            scope.set_deadline(Some(t.at(130)));
            Ok(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn r48_from_inside_of_the_scope() {
    run_virtual(async || {
        let t = Trace::new();
        let scope = CancelScope::new();
        let out = scope
            .run(async {
                scope.set_deadline(Some(t.at(5)));
                assert_eq!((sleep(ms(100)).await, t.ms()), (Err(CANCELLED), 5));
                shield(sleep(ms(5))).await?;
                scope.set_deadline(None);
                // R3.
                checkpoint().await
            })
            .await;
        assert_eq!((out, t.ms()), (Ok(None), 10));
    });
}

#[test]
fn r49_instants_in_the_past_and_lengths_without_end_are_fine() {
    run_virtual(async || {
        let t = Trace::new();
        let past = t.at(0).checked_sub(Duration::from_secs(1)).unwrap();
        assert_eq!(move_on_at(past, sleep_forever()).await, Ok(None));
        sleep_until(past).await.unwrap();
        assert_eq!(move_on_after(Duration::MAX, sleep(ms(5))).await, Ok(Some(())));
        assert_eq!(move_on_after(ms(5), sleep(Duration::MAX)).await, Ok(None));
        move_on_after(Duration::MAX, async {
            assert_eq!(effective_deadline(), EffectiveDeadline::Never);
            Ok::<_, Cancelled>(())
        })
        .await
        .unwrap();
        assert_eq!(t.ms(), 10);
    });
}

#[test]
fn r50_moving_a_deadline_leaves_one_timer() {
    run_virtual(async || {
        let t = Trace::new();
        let scope = CancelScope::new();
        scope
            .run(async {
                for i in 0..10_000u64 {
                    scope.set_deadline(Some(t.at(1000 + (i * 7919) % 5000)));
                    assert_eq!(metrics().timers, 1);
                }
                scope.set_deadline(None);
                assert_eq!(metrics().timers, 0);
                Ok::<_, Cancelled>(())
            })
            .await
            .unwrap();
    });
}
