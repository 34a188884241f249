//! Shields: R20, R21, R32–R35.

use std::cell::Cell;
use trefoil_nursery::{
    CancelScope, Cancelled, EffectiveDeadline, checkpoint, checkpoint_if_cancelled, effective_deadline, local_nursery,
    move_on_after, shield, shield_for, sleep, sleep_forever, yield_now,
};
use trefoil_tests::{CANCELLED, Ended, Trace, ms, run_virtual};

fn flags(scope: &CancelScope) -> (bool, bool) {
    (scope.cancel_called(), scope.cancelled_caught())
}

/// Starts a child in `outer(inner(body))`, lets it begin, then calls `act` in one go.
async fn in_two_scopes(
    outer: &CancelScope,
    inner: &CancelScope,
    body: impl Future<Output = Ended>,
    act: impl FnOnce(),
) {
    local_nursery(async |n| -> Ended {
        n.spawn(async {
            outer
                .run(async {
                    inner.run(body).await?;
                    Ok::<_, Cancelled>(())
                })
                .await
                .expect("one of the two catches");
            Ok(())
        });
        yield_now().await;
        act();
        Ok(())
    })
    .await
    .unwrap();
}

#[test]
fn r20_a_shield_that_comes_up_after_the_abort_does_not_take_it_back() {
    run_virtual(async || {
        let (outer, inner) = (CancelScope::new(), CancelScope::new());
        let seen = Cell::new(None);
        let body = async {
            let slept = sleep(ms(1000)).await;
            seen.set(Some((slept, effective_deadline())));
            slept
        };
        in_two_scopes(&outer, &inner, body, || {
            outer.cancel();
            inner.set_shield(true);
        })
        .await;
        // Delivered, although the scope is not effectively cancelled any more; and it travels to the scope that is responsible.
        assert_eq!(seen.get(), Some((Err(CANCELLED), EffectiveDeadline::Never)));
        assert_eq!((flags(&outer), flags(&inner)), ((true, true), (false, false)));
    });
}

#[test]
fn r20_the_inner_scope_catches_it_where_it_was_cancelled_too() {
    run_virtual(async || {
        let (outer, inner) = (CancelScope::new(), CancelScope::new());
        in_two_scopes(&outer, &inner, sleep_forever(), || {
            outer.cancel();
            inner.cancel();
            inner.set_shield(true);
        })
        .await;
        assert_eq!((flags(&outer), flags(&inner)), ((true, false), (true, true)));
    });
}

/// R20 through a nursery: what was delivered before the shield came up goes on to the scope that is responsible (and N14: the nursery,
/// which was not cancelled when its child ended, does not absorb it).
#[test]
fn r20_through_a_nursery_that_was_shielded_meanwhile() {
    run_virtual(async || {
        let outer = CancelScope::new();
        let out = outer
            .run(async {
                local_nursery(async |n| -> Ended {
                    n.spawn(sleep_forever());
                    yield_now().await;
                    outer.cancel();
                    n.set_shield(true);
                    Ok(())
                })
                .await?;
                Ok::<_, Cancelled>(())
            })
            .await;
        assert_eq!((out, flags(&outer)), (Ok(None), (true, true)));
    });
}

#[test]
fn r21_a_bare_checkpoint_in_that_window_returns_normally() {
    run_virtual(async || {
        let (outer, inner) = (CancelScope::new(), CancelScope::new());
        let seen = Cell::new(None);
        let body = async {
            seen.set(Some(checkpoint().await));
            Ok(())
        };
        in_two_scopes(&outer, &inner, body, || {
            outer.cancel();
            inner.set_shield(true);
        })
        .await;
        assert_eq!(seen.get(), Some(Ok(())));
        assert_eq!((flags(&outer), flags(&inner)), ((true, false), (false, false)));
    });
}

#[test]
fn r32_a_shield_blocks_what_comes_from_outside_only() {
    run_virtual(async || {
        let t = Trace::new();
        // Its own cancel.
        let scope = CancelScope::new();
        scope.set_shield(true);
        let out = scope
            .run(async {
                scope.cancel();
                checkpoint().await
            })
            .await;
        assert_eq!((out, flags(&scope)), (Ok(None), (true, true)));
        // Its own deadline.
        let scope = CancelScope::new();
        scope.set_shield(true);
        scope.set_deadline(Some(t.at(5)));
        assert_eq!((scope.run(sleep_forever()).await, t.ms()), (Ok(None), 5));
        assert_eq!((shield_for(ms(5), sleep_forever()).await, t.ms()), (Ok(None), 10));
        // Those of a scope inside.
        let out = shield(async {
            let inner = move_on_after(ms(5), sleep_forever()).await;
            assert_eq!((inner, t.ms()), (Ok(None), 15));
            let inner = CancelScope::new();
            inner.cancel();
            inner.run(checkpoint()).await
        });
        assert_eq!(out.await, Ok(None));
    });
}

#[test]
fn r32_a_shield_with_a_time_limit_in_a_cancelled_scope() {
    run_virtual(async || {
        let t = Trace::new();
        let out = move_on_after(ms(10), async {
            let slept = sleep_forever().await;
            // Clean-up that is done in time, and clean-up that hangs.
            assert_eq!(shield_for(ms(30), async { sleep(ms(20)).await }).await, Ok(Some(())));
            assert_eq!(t.ms(), 30);
            assert_eq!(shield_for(ms(30), sleep_forever()).await, Ok(None));
            assert_eq!(t.ms(), 60);
            // What is cancelled outside stays so.
            assert_eq!(sleep(ms(1)).await, Err(CANCELLED));
            slept
        })
        .await;
        assert_eq!((out, t.ms()), (Ok(None), 60));
    });
}

/// Behaviour 16.
#[test]
fn r33_a_raised_shield_uncancels_and_a_lowered_one_delivers() {
    run_virtual(async || {
        let (outer, inner) = (CancelScope::new(), CancelScope::new());
        let passed = Cell::new(0);
        let out = outer
            .run(async {
                inner
                    .run(async {
                        outer.cancel();
                        assert_eq!(checkpoint().await, Err(CANCELLED));
                        inner.set_shield(true);
                        for _ in 0..10 {
                            checkpoint().await?;
                            passed.set(passed.get() + 1);
                        }
                        assert_eq!(effective_deadline(), EffectiveDeadline::Never);
                        inner.set_shield(false);
                        assert_eq!(effective_deadline(), EffectiveDeadline::Cancelled);
                        checkpoint().await
                    })
                    .await
            })
            .await;
        assert_eq!((out, passed.get()), (Ok(None), 10));
        assert_eq!((flags(&outer), flags(&inner)), ((true, true), (false, false)));
    });
}

#[test]
fn r33_a_sleeper_wakes_at_the_moment_the_shield_drops() {
    run_virtual(async || {
        let t = Trace::new();
        let (outer, inner) = (CancelScope::new(), CancelScope::new());
        inner.set_shield(true);
        local_nursery(async |n| -> Ended {
            n.spawn(async {
                let out = outer
                    .run(async {
                        inner
                            .run(async {
                                let slept = sleep(ms(100)).await;
                                t.note("sleeper", slept.is_ok());
                                slept
                            })
                            .await
                    })
                    .await;
                assert_eq!(out, Ok(None));
                Ok(())
            });
            sleep(ms(10)).await?;
            outer.cancel();
            sleep(ms(10)).await?;
            t.note("body", "drops");
            inner.set_shield(false);
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(t.lines(), ["20 body drops", "20 sleeper false"]);
    });
}

#[test]
fn r34_children_of_a_nursery_opened_under_a_shield_are_shielded() {
    run_virtual(async || {
        let t = Trace::new();
        let out = move_on_after(ms(5), async {
            shield(async {
                local_nursery(async |n| -> Ended {
                    n.spawn(async {
                        sleep(ms(20)).await?;
                        t.note("child", "slept");
                        Ok(())
                    });
                    Ok(())
                })
                .await
            })
            .await?;
            checkpoint_if_cancelled().await
        });
        assert_eq!(out.await, Ok(None));
        assert_eq!(t.lines(), ["20 child slept"]);
    });
}

#[test]
fn r34_children_of_a_nursery_opened_outside_are_not_shielded_even_if_spawned_from_inside() {
    run_virtual(async || {
        let t = Trace::new();
        let out = move_on_after(ms(5), async {
            local_nursery(async |n| -> Ended {
                shield(async {
                    n.spawn(async {
                        let slept = sleep(ms(20)).await;
                        t.note("child", slept.is_ok());
                        slept
                    });
                    sleep(ms(30)).await?;
                    t.note("body", "slept");
                    Ok(())
                })
                .await
            })
            .await?;
            Ok::<_, Cancelled>(())
        });
        assert_eq!(out.await, Ok(None));
        assert_eq!(t.lines(), ["5 child false", "30 body slept"]);
    });
}

#[test]
fn r35_the_effective_deadline_ends_at_the_first_shield() {
    run_virtual(async || {
        let t = Trace::new();
        move_on_after(ms(10), async {
            assert_eq!(effective_deadline(), EffectiveDeadline::At(t.at(10)));
            shield(async { assert_eq!(effective_deadline(), EffectiveDeadline::Never) }).await;
            shield_for(ms(50), async {
                assert_eq!(effective_deadline(), EffectiveDeadline::At(t.at(50)));
                move_on_after(ms(70), async {
                    assert_eq!(effective_deadline(), EffectiveDeadline::At(t.at(50)));
                    Ok::<_, Cancelled>(())
                })
                .await
            })
            .await
        })
        .await
        .unwrap();
    });
}
