//! R62: a child's task-locals are those of who spawns it.

use crate::{COUNTED, Counted, NUMBER, number, sees};
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use trefoil_nursery::{Cancelled, Nursery, checkpoint, local_nursery, nursery};
use trefoil_tests::run_virtual;

#[test]
fn r62_a_child_inherits_from_who_spawns_it_not_from_where_its_nursery_was_opened() {
    run_virtual(async || {
        let seen = Mutex::new(Vec::new());
        NUMBER
            .scope(
                1,
                nursery(async |n| -> Result<(), Cancelled> {
                    let note = |who| seen.lock().unwrap().push((who, number()));
                    n.spawn(async move {
                        note("of the nursery");
                        checkpoint().await?;
                        note("of the nursery");
                        Ok(())
                    });
                    let spawner = async {
                        n.spawn(async move {
                            note("of the spawner");
                            checkpoint().await?;
                            note("of the spawner");
                            n.spawn(async move {
                                note("grandchild");
                                Ok(())
                            });
                            Ok(())
                        });
                    };
                    NUMBER.scope(2, spawner).await;
                    note("body");
                    Ok(())
                }),
            )
            .await
            .unwrap();
        let seen = seen.into_inner().unwrap();
        for (who, count, value) in
            [("of the nursery", 2, 1), ("of the spawner", 2, 2), ("grandchild", 1, 2), ("body", 1, 1)]
        {
            let values: Vec<_> = seen.iter().filter(|(w, _)| *w == who).map(|(_, value)| *value).collect();
            assert_eq!(values, vec![Some(value); count], "{who}");
        }
    });
}

#[test]
fn r62_a_child_of_a_nursery_opened_inside_sees_the_value_and_one_spawned_outward_too() {
    run_virtual(async || {
        local_nursery(async |outer| -> Result<(), Cancelled> {
            let inside = async {
                local_nursery(async |inner| -> Result<(), Cancelled> {
                    inner.spawn(async move {
                        assert_eq!(number(), Some(5));
                        // Two nurseries out, and out of a scope set in between.
                        NUMBER
                            .scope(6, async {
                                inner.spawn(async { sees(Some(6)) });
                                outer.spawn(async {
                                    checkpoint().await?;
                                    sees(Some(6))
                                });
                            })
                            .await;
                        outer.spawn(async {
                            checkpoint().await?;
                            sees(Some(5))
                        });
                        Ok(())
                    });
                    Ok(())
                })
                .await
                .unwrap();
            };
            NUMBER.scope(5, inside).await;
            assert_eq!(number(), None);
            outer.spawn(async { sees(None) });
            Ok(())
        })
        .await
        .unwrap();
    });
}

/// R62, R71: before and after it belongs to the nursery.
#[test]
fn r62_a_child_that_is_started_inherits_from_the_caller_of_start() {
    run_virtual(async || {
        nursery(async |n| -> std::io::Result<()> {
            let seen = NUMBER
                .scope(3, async {
                    n.start(async |started| {
                        started.ready(number());
                        checkpoint().await?;
                        sees(Some(3))
                    })
                    .await
                })
                .await?;
            assert_eq!((seen, number()), (Some(3), None));
            Ok(())
        })
        .await
        .unwrap();
    });
}

/// R62, over threads: the nursery's owner polls a child with the spawner's values.
#[test]
fn r62_a_child_spawned_from_another_thread_inherits_from_there() {
    fn spawn_in_a_run_of_its_own<'s>(n: Nursery<'s, '_, Cancelled>, inside: u64) {
        trefoil_runtime::doc_run(NUMBER.scope(inside, async move {
            n.spawn(async move {
                checkpoint().await?;
                sees(Some(inside))
            });
        }));
    }
    run_virtual(async || {
        NUMBER
            .scope(
                1,
                nursery(async |n| -> Result<(), Cancelled> {
                    std::thread::scope(|threads| {
                        threads.spawn(|| spawn_in_a_run_of_its_own(n, 2));
                        // A thread that has none adds nothing to those of the nursery.
                        threads.spawn(move || drop(n.spawn(async { sees(Some(1)) })));
                    });
                    Ok(())
                }),
            )
            .await
            .unwrap();
    });
}

/// However long a chain of tasks gets in which each spawns the next in a scope of its own: what is not seen any more is gone.
#[test]
fn a_value_that_is_hidden_does_not_stay() {
    static LIVE: AtomicUsize = AtomicUsize::new(0);
    type Task<'s> = Pin<Box<dyn Future<Output = Result<(), Cancelled>> + Send + 's>>;
    fn next<'s>(n: Nursery<'s, '_, Cancelled>, left: u64, most: &'s AtomicUsize) -> Task<'s> {
        // The handle is of two lifetimes, and a boxed future of one.
        let spawn: Box<dyn Fn() + Send + Sync + '_> = Box::new(move || drop(n.spawn(next(n, left - 1, most))));
        Box::pin(async move {
            assert!(left == 50_000 || number() == Some(left + 1));
            most.fetch_max(LIVE.load(Ordering::SeqCst), Ordering::SeqCst);
            if left > 0 {
                NUMBER.scope(left, COUNTED.scope(Counted::new(&LIVE), async { spawn() })).await;
            }
            Ok(())
        })
    }
    run_virtual(async || {
        let most = AtomicUsize::new(0);
        nursery(async |n| -> Result<(), Cancelled> {
            n.spawn(next(n, 50_000, &most));
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(LIVE.load(Ordering::SeqCst), 0);
        assert!(most.load(Ordering::SeqCst) <= 3, "{most:?} at once");
    });
}
