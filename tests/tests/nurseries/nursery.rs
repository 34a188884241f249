//! Nurseries: who is awaited, what comes out, and who may be spawned when. R2, R55–R57, R59, R62–R64, R91.
//!
//! | rule | here |
//! | --- | --- |
//! | R62 (task-locals) | the half about scopes is tested; the other in `task_local_inherits.rs` |
//! | R64 (spawn after the end) | the handle cannot leave the body (`compile_fail` in the docs of `nursery`); while the nursery is torn down: `r64_a_nursery_that_is_torn_down_refuses` |
//! | R67, N16 (misnesting) | scopes and nurseries take closures and futures: there is no guard to leave in the wrong order |

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use trefoil_nursery::{
    CancelScope, Cancelled, ErrorGroup, checkpoint, effective_deadline, local_nursery, move_on_after, nursery, shield,
    sleep, sleep_forever, yield_now,
};
use trefoil_nursery::{EffectiveDeadline, sleep_until};
use trefoil_tests::{Ended, Trace, ms, panic_of, run_real, run_virtual};

pub fn fail<T>(what: &str) -> io::Result<T> {
    Err(io::Error::other(what.to_string()))
}

pub fn texts(group: ErrorGroup<io::Error>) -> Vec<String> {
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
