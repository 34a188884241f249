//! How cancels and failures go through a nursery: R2, R56–R58, R66.

use super::nursery::{fail, texts};
use std::io;
use trefoil_nursery::{
    CancelScope, Cancelled, Source, cancel_cause, local_nursery, move_on_after, shield, sleep, sleep_forever,
};
use trefoil_tests::{Ended, Trace, ms, run_virtual};

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
