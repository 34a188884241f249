//! What a drop sees and what is there after a panic; and when a value is dropped.

use crate::{COUNTED, Counted, NAME, NUMBER, SeenAtDrop, number};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use trefoil_nursery::{Cancelled, checkpoint, nursery, sleep_forever, task_local, yield_now};
use trefoil_tests::{drop_at, panic_of, poll_once, run_virtual};

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
