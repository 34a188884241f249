//! Task-locals: R62 (a child's are those of its spawner), and what code sees that is polled, moved, dropped or that panics.

use futures::future::{join, join_all};
use futures::stream::{FuturesUnordered, StreamExt};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use trefoil_nursery::{
    CancelScope, Cancelled, Nursery, checkpoint, local_nursery, nursery, sleep_forever, task_local, yield_now,
};
use trefoil_tests::{drop_at, panic_of, poll_once, run_virtual};

task_local! {
    static NUMBER: u64;
    static NAME: String;
    static COUNTED: Counted
}

fn number() -> Option<u64> {
    NUMBER.try_with(|n| *n).ok()
}

#[track_caller]
fn sees<E>(expected: Option<u64>) -> Result<(), E> {
    assert_eq!(number(), expected);
    Ok(())
}

/// Counts how many there are.
struct Counted(&'static AtomicUsize);

impl Counted {
    fn new(live: &'static AtomicUsize) -> Self {
        live.fetch_add(1, Ordering::SeqCst);
        Self(live)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        assert!(self.0.fetch_sub(1, Ordering::SeqCst) > 0, "dropped twice");
    }
}

/// Notes what a drop sees.
struct SeenAtDrop<'a>(&'a Mutex<Vec<Option<u64>>>);

impl Drop for SeenAtDrop<'_> {
    fn drop(&mut self) {
        self.0.lock().unwrap().push(number());
    }
}

// ---- Inheritance ---------------------------------------------------------------------------------------------------

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

// ---- Nesting -------------------------------------------------------------------------------------------------------

#[test]
fn scopes_nest_and_those_of_other_task_locals_stay() {
    run_virtual(async || {
        let inside = async {
            assert_eq!((number(), NAME.get()), (Some(1), "a".into()));
            NUMBER
                .scope(2, async {
                    assert_eq!((number(), NAME.get()), (Some(2), "a".into()));
                    NAME.scope("b".into(), async { assert_eq!((number(), NAME.get()), (Some(2), "b".into())) }).await;
                    yield_now().await;
                    assert_eq!((number(), NAME.get()), (Some(2), "a".into()));
                })
                .await;
            assert_eq!((number(), NAME.get()), (Some(1), "a".into()));
        };
        NUMBER.scope(1, NAME.scope("a".into(), inside)).await;
        assert_eq!(number(), None);
        assert!(NAME.try_with(|_| ()).is_err());
    });
}

#[test]
fn a_value_may_be_looked_at_from_inside_of_a_look() {
    run_virtual(async || {
        NUMBER
            .scope(1, async {
                let mut inner = Box::pin(NUMBER.scope(2, async { NUMBER.with(|inner| *inner) }));
                let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
                let sum = NUMBER.with(|outer| {
                    // A scope entered and left in the middle.
                    let inside = match inner.as_mut().poll(&mut cx) {
                        std::task::Poll::Ready(value) => value,
                        std::task::Poll::Pending => unreachable!(),
                    };
                    outer * 100 + NUMBER.with(|again| *again) * 10 + inside
                });
                assert_eq!(sum, 112);
            })
            .await;
    });
}

#[test]
fn without_a_value_it_is_an_error_that_names_the_task_local() {
    assert!(NUMBER.try_with(|_| ()).unwrap_err().to_string().contains("NUMBER is not set here"));
    assert!(panic_of(|| drop(NAME.get())).contains("NAME is not set here"));
    assert!(panic_of(|| NUMBER.with(|_| ())).contains("NUMBER"));
}

// ---- Panics and drops ----------------------------------------------------------------------------------------------

#[test]
fn what_was_before_is_back_after_a_panic() {
    run_virtual(async || {
        NUMBER
            .scope(1, async {
                let mut inner = Box::pin(NUMBER.scope(2, async {
                    yield_now().await;
                    if number() == Some(2) {
                        panic!("inside");
                    }
                }));
                assert!(poll_once(inner.as_mut()).await.is_pending());
                assert_eq!(number(), Some(1));
                let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
                let panicked = catch_unwind(AssertUnwindSafe(|| inner.as_mut().poll(&mut cx).is_ready()));
                assert_eq!(*panicked.unwrap_err().downcast::<&str>().unwrap(), "inside");
                assert_eq!(number(), Some(1));
                drop(inner);
                assert_eq!(number(), Some(1));
            })
            .await;
        assert_eq!(number(), None);
    });
}

/// N9: in a child that has values of its own.
#[test]
fn what_was_before_is_back_after_a_child_panicked() {
    let message = panic_of(|| {
        trefoil_runtime::doc_run(async {
            let opened = nursery(async |n| -> Result<(), Cancelled> {
                let spawner = async {
                    n.spawn(async {
                        if number() == Some(1) {
                            panic!("in a child");
                        }
                        Ok(())
                    });
                };
                NUMBER.scope(1, spawner).await;
                let told = sleep_forever().await;
                assert_eq!(number(), None);
                told
            });
            let _ = opened.await;
        });
    });
    assert_eq!(message, "in a child");
    assert_eq!(number(), None);
}

#[test]
fn the_value_is_set_while_the_future_is_dropped() {
    run_virtual(async || {
        let seen = Mutex::new(Vec::new());
        let future = || {
            let at_drop = SeenAtDrop(&seen);
            async {
                let _also = SeenAtDrop(&seen);
                let _at_drop = at_drop;
                yield_now().await;
                yield_now().await;
            }
        };
        // Never polled; half way; at its end.
        for (polls, drops) in [(0, 1), (1, 2), (9, 2)] {
            NUMBER.scope(7, async {}).await;
            let ended = drop_at(polls, NUMBER.scope(8, future())).await;
            assert_eq!(ended.is_some(), polls == 9);
            assert_eq!(seen.lock().unwrap().drain(..).collect::<Vec<_>>(), vec![Some(8); drops]);
            assert_eq!(number(), None);
        }
    });
}

/// Of a child, too: at its end, cut (N13), destroyed with its nursery (N12), or refused by one that is closed (R64).
#[test]
fn the_value_is_set_while_a_child_is_dropped_however_that_comes() {
    run_virtual(async || {
        let seen = Mutex::new(Vec::new());
        for stop in ["cancel", "drop"] {
            let opened = nursery(async |n| -> Result<(), Cancelled> {
                NUMBER
                    .scope(4, async {
                        for k in 0..3 {
                            let at_drop = SeenAtDrop(&seen);
                            n.spawn(async move {
                                let _at_drop = at_drop;
                                match k {
                                    0 => Ok(()),
                                    1 => sleep_forever().await,
                                    _ => std::future::pending().await,
                                }
                            });
                        }
                    })
                    .await;
                yield_now().await;
                if stop == "cancel" {
                    n.cancel();
                }
                sleep_forever().await
            });
            let ended = drop_at(if stop == "drop" { 2 } else { 99 }, opened).await;
            assert_eq!(ended.is_some(), stop == "cancel");
            assert_eq!(seen.lock().unwrap().drain(..).collect::<Vec<_>>(), vec![Some(4); 3], "{stop}");
            assert_eq!(number(), None);
        }
    });
}

/// The value itself is no code of the future: what was set around it counts in its own drop.
#[test]
fn in_the_drop_of_a_value_it_is_not_set_any_more() {
    task_local!(static LOOKS: Looks);
    static SEEN: Mutex<Vec<(bool, Option<u64>)>> = Mutex::new(Vec::new());
    struct Looks;
    impl Drop for Looks {
        fn drop(&mut self) {
            SEEN.lock().unwrap().push((LOOKS.try_with(|_| ()).is_ok(), number()));
        }
    }
    run_virtual(async || {
        NUMBER.scope(1, async { LOOKS.scope(Looks, yield_now()).await }).await;
        LOOKS.scope(Looks, NUMBER.scope(2, yield_now())).await;
        NUMBER.scope(3, async { drop(LOOKS.scope(Looks, yield_now())) }).await;
        assert_eq!(
            SEEN.lock().unwrap().drain(..).collect::<Vec<_>>(),
            [(false, Some(1)), (false, None), (false, Some(3))]
        );
    });
}

#[test]
fn a_value_is_dropped_once_when_the_last_who_has_it_is_gone() {
    static LIVE: AtomicUsize = AtomicUsize::new(0);
    let live = || LIVE.load(Ordering::SeqCst);
    run_virtual(async || {
        drop(COUNTED.scope(Counted::new(&LIVE), async {}));
        assert_eq!(live(), 0);
        COUNTED.scope(Counted::new(&LIVE), async { assert_eq!(live(), 1) }).await;
        assert_eq!(live(), 0);
        nursery(async |n| -> Result<(), Cancelled> {
            COUNTED
                .scope(Counted::new(&LIVE), async {
                    for turns in 1..4 {
                        n.spawn(async move {
                            for _ in 0..turns {
                                checkpoint().await?;
                                COUNTED.with(|counted| assert_eq!(counted.0.load(Ordering::SeqCst), 1));
                            }
                            Ok(())
                        });
                    }
                })
                .await;
            assert_eq!(live(), 1); // the children have it
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(live(), 0);
        // Hidden by another value, with copies of those above.
        let inner = async {
            NUMBER
                .scope(
                    1,
                    NAME.scope("x".into(), async {
                        COUNTED
                            .scope(Counted::new(&LIVE), async { assert_eq!((live(), number()), (2, Some(1))) })
                            .await;
                        assert_eq!(live(), 1);
                    }),
                )
                .await;
        };
        COUNTED.scope(Counted::new(&LIVE), inner).await;
        assert_eq!(live(), 0);
    });
}

// ---- Moves and combinators -----------------------------------------------------------------------------------------

#[test]
fn a_future_that_is_moved_sees_what_is_set_where_it_is_polled() {
    run_virtual(async || {
        let seen = Mutex::new(Vec::new());
        let note = || seen.lock().unwrap().push((NAME.get(), number()));
        let mut moved = Box::pin(NAME.scope("own".into(), async {
            loop {
                note();
                yield_now().await;
            }
        }));
        for around in [Some(1), None, Some(2), Some(2)] {
            let poll = async { assert!(poll_once::<dyn Future<Output = ()>>(moved.as_mut()).await.is_pending()) };
            match around {
                Some(value) => NUMBER.scope(value, poll).await,
                None => poll.await,
            }
        }
        drop(moved);
        let values: Vec<_> = seen.into_inner().unwrap().into_iter().map(|(name, n)| (name == "own", n)).collect();
        assert_eq!(values, [(true, Some(1)), (true, None), (true, Some(2)), (true, Some(2))]);
    });
}

/// So does a nursery with its children; but what a child has of its spawner goes with it.
#[test]
fn a_nursery_that_is_moved_takes_along_what_its_children_inherited() {
    run_virtual(async || {
        let seen = Mutex::new(Vec::new());
        let mut moved = Box::pin(nursery(async |n| -> Result<(), Cancelled> {
            let child = |who| {
                let seen = &seen;
                async move {
                    while number() != Some(1_000) {
                        seen.lock().unwrap().push((who, number()));
                        yield_now().await;
                    }
                    Ok(())
                }
            };
            n.spawn(child("plain"));
            NUMBER.scope(9, async { drop(n.spawn(child("inherits"))) }).await;
            sleep_forever().await
        }));
        for around in 0..3 {
            NUMBER.scope(around, async { assert!(poll_once(moved.as_mut()).await.is_pending()) }).await;
        }
        drop(moved);
        let seen = seen.into_inner().unwrap();
        let of = |who| seen.iter().filter(|(w, _)| *w == who).map(|(_, n)| n.unwrap()).collect::<Vec<_>>();
        assert_eq!((of("plain"), of("inherits")), (vec![1, 2], vec![9, 9]));
    });
}

#[test]
fn interleaved_in_foreign_combinators_each_sees_its_own() {
    run_virtual(async || {
        let task = |k: u64| {
            NUMBER.scope(k, async move {
                for _ in 0..=k % 5 {
                    assert_eq!(number(), Some(k));
                    yield_now().await;
                }
                assert_eq!(number(), Some(k));
                k
            })
        };
        // With wakers and an order of their own.
        assert_eq!(join_all((0..100).map(task)).await.into_iter().sum::<u64>(), 4950);
        let all: FuturesUnordered<_> = (0..100).map(task).collect();
        assert_eq!(all.fold(0, |sum, k| async move { sum + k }).await, 4950);
        assert_eq!(join(task(3), NUMBER.scope(50, task(4))).await, (3, 4));
        assert_eq!(number(), None);
        // R62, from inside of one.
        let spawned = local_nursery(async |n| -> Result<u64, Cancelled> {
            let spawn = async |k| NUMBER.sync_scope(k, || n.spawn(async { Ok(NUMBER.get()) }));
            let joins = join_all((0..40).map(spawn)).await;
            let mut sum = 0;
            for (k, join) in joins.into_iter().enumerate() {
                let value = join.await?;
                assert_eq!(value, k as u64);
                sum += value;
            }
            Ok(sum)
        });
        assert_eq!(spawned.await.unwrap(), 780);
    });
}

#[test]
fn it_needs_no_run() {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let mut future = Box::pin(NUMBER.scope(1, async { number() }));
    assert_eq!(future.as_mut().poll(&mut cx), std::task::Poll::Ready(Some(1)));
    // A run inside of a scope is inside of it.
    let mut outside = Box::pin(NUMBER.scope(2, async { trefoil_runtime::doc_run(async { number() }) }));
    assert_eq!(outside.as_mut().poll(&mut cx), std::task::Poll::Ready(Some(2)));
}

/// A scope that is cancelled meanwhile is left as any.
#[test]
fn scopes_of_cancellation_and_of_task_locals_do_not_mind_each_other() {
    run_virtual(async || {
        let scope = CancelScope::new();
        let ended = NUMBER
            .scope(
                1,
                scope.run(NUMBER.scope(2, async {
                    scope.cancel();
                    let told = checkpoint().await;
                    assert_eq!(number(), Some(2));
                    told
                })),
            )
            .await;
        assert_eq!((ended, number()), (Ok(None), None));
    });
}

#[test]
fn it_is_send_where_what_it_runs_is() {
    fn send<T: Send>(value: T) -> T {
        value
    }
    drop(send(NUMBER.scope(1, async { yield_now().await })));
    drop(send(NUMBER.scope(1, nursery(async |_| Ok::<_, Cancelled>(())))));
    fn sync<T: Sync + Send + 'static>(_: &'static T) {}
    sync(&NUMBER);
}

// ---- Costs ---------------------------------------------------------------------------------------------------------

struct Counting;

thread_local!(static ALLOCATED: Cell<(usize, usize)> = const { Cell::new((0, 0)) });

// SAFETY: the system's allocator, and a count of what it is asked for.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATED.try_with(|a| a.set((a.get().0 + 1, a.get().1 + layout.size())));
        // SAFETY: the caller's word.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's word.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a hundred spawns allocate: `(times, bytes)`.
fn spawns(n: Nursery<'_, '_, Cancelled>) -> (usize, usize) {
    // What the loop keeps of children that have ended is used up before.
    (0..200_000).for_each(|_| drop(n.spawn(async { Ok(()) })));
    let before = ALLOCATED.get();
    (0..100).for_each(|_| drop(n.spawn(async { Ok(()) })));
    let after = ALLOCATED.get();
    (after.0 - before.0, after.1 - before.1)
}

#[test]
fn a_child_whose_values_are_those_of_its_nursery_is_as_small_as_one_without_any() {
    run_virtual(async || {
        let without = nursery(async |n| Ok::<_, Cancelled>(spawns(n))).await.unwrap();
        let inside = NUMBER.scope(1, nursery(async |n| Ok::<_, Cancelled>(spawns(n)))).await.unwrap();
        assert_eq!(without.0, 100);
        assert_eq!(without, inside);
        // One more allocation each where they differ.
        let differ = nursery(async |n| Ok::<_, Cancelled>(NUMBER.scope(1, async { spawns(n) }).await)).await.unwrap();
        assert_eq!(differ.0, without.0 + 100);
    });
}
