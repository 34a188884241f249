//! Races that end otherwise: by an error, a cancel or a panic, or with losers that cannot be told. R58, R60, N7, N9, N13–N15.

use super::fault::{Fault, after};
use std::cell::Cell;
use std::future::{Future, pending};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use trefoil_nursery::{
    CancelAware, CancelScope, Cancelled, checkpoint, first_success, join, move_on_after, race, race_with, shield,
    sleep, sleep_forever, until,
};
use trefoil_tests::{CANCELLED, OnDrop, Trace, ms, panic_of, run_virtual};

#[test]
fn n7_r58_an_error_wins_too() {
    run_virtual(async || {
        let trace = Trace::new();
        let group = race((after(9, Ok(1)), after(4, Err(2)))).await.unwrap_err();
        assert_eq!((group.into_vec(), trace.ms()), (vec![Fault::No(2)], 4));
    });
}

#[test]
fn r60_n15_an_error_of_a_loser_is_not_hidden_by_the_value() {
    run_virtual(async || {
        let mut values = vec![];
        let group = race_with(
            (
                async {
                    let _ = sleep_forever().await;
                    Err(Fault::No(7))
                },
                after(4, Ok(1)),
                after(4, Ok(2)),
                after(9, Ok(3)),
            ),
            |value| values.push(value),
        )
        .await
        .unwrap_err();
        assert_eq!((group.into_vec(), values), (vec![Fault::No(7)], vec![1, 2]));
    });
}

#[test]
fn n14_a_cancellation_that_nobody_caused_is_an_error() {
    run_virtual(async || {
        let (made_up, value) = (async { Err(Fault::Cancelled(CANCELLED)) }, async { Ok(1) });
        assert!(race((made_up, value)).await.unwrap_err().into_vec()[0].is_cancelled());
        // And one that a loser makes up after that is one of the race's own, and is absorbed.
        let (value, late) = (async { Ok(1) }, async { Err(Fault::Cancelled(CANCELLED)) });
        assert_eq!(race((value, late)).await.unwrap(), 1);
        // One branch that keeps an old one.
        let group = first_success((async { Err(Fault::Cancelled(CANCELLED)) }, after(1, Err(2)))).await.unwrap_err();
        assert_eq!(group.into_vec(), [Fault::Cancelled(CANCELLED), Fault::No(2)]);
    });
}

#[test]
fn a_cancel_from_outside_ends_all_of_them() {
    run_virtual(async || {
        let trace = Trace::new();
        let ended = move_on_after(ms(10), async {
            let group = race((sleep(ms(50)), async {
                let _ = sleep_forever().await;
                shield(sleep(ms(5))).await
            }))
            .await;
            // R29: one has a value.
            assert_eq!(group.unwrap(), ());
            let all: Result<(), _> = race((sleep_forever(), sleep_forever())).await;
            let group = all.unwrap_err();
            assert_eq!((group.len(), group.is_cancelled()), (1, true));
            let group = race((sleep_forever(), async { Err(io::Error::other("no")).or(Err(CANCELLED)) })).await;
            Ok::<(), Cancelled>(group?)
        })
        .await;
        assert_eq!((ended, trace.ms()), (Ok(None), 15));

        let errors = move_on_after(ms(10), async {
            let failing = async {
                let _ = sleep_forever().await;
                Err(Fault::No(1))
            };
            race((failing, after(50, Ok(1)))).await
        })
        .await;
        assert_eq!(errors.unwrap_err().into_vec(), [Fault::No(1)], "R27: the scope outside took the cancellation out");
    });
}

#[test]
fn n9_a_panic_waits_for_the_others() {
    run_virtual(async || {
        let trace = Trace::new();
        let mut racing = Box::pin(race((
            async {
                let ended = sleep_forever().await;
                shield(sleep(ms(5))).await?;
                trace.note("loser", "is done");
                ended
            },
            async {
                sleep(ms(1)).await?;
                panic!("oops")
            },
        )));
        let polled = std::future::poll_fn(|cx| {
            match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| racing.as_mut().poll(cx))) {
                Ok(std::task::Poll::Pending) => std::task::Poll::Pending,
                Ok(std::task::Poll::Ready(_)) => panic!("it panics"),
                Err(payload) => std::task::Poll::Ready(payload),
            }
        })
        .await;
        assert_eq!(polled.downcast_ref::<&str>(), Some(&"oops"));
        assert_eq!(trace.lines(), ["6 loser is done"]);
        drop(racing);
    });
}

#[test]
fn n9_a_panic_in_a_destructor_or_in_the_function_for_losers() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in a destructor");
        }
    }
    let text = panic_of(|| {
        run_virtual(async || {
            let bomb = async {
                let _bomb = Bomb;
                sleep_forever().await
            };
            let _ = race((bomb, async { Ok(()) })).await;
        });
    });
    assert_eq!(text, "in a destructor");
    let text = panic_of(|| {
        run_virtual(async || {
            let finish = || async { Ok::<_, Cancelled>(()) };
            let _ = race_with((finish(), finish()), |()| panic!("in the function")).await;
        });
    });
    assert_eq!(text, "in the function");
    let text = panic_of(|| {
        run_virtual(async || {
            let finish = || async { Ok::<_, Cancelled>(()) };
            let _ = until([finish(), finish()], |_| panic!("in the predicate")).await;
        });
    });
    assert_eq!(text, "in the predicate");
}

#[test]
fn n13_a_foreign_loser_is_dropped() {
    run_virtual(async || {
        let dropped = AtomicUsize::new(0);
        let foreign = async {
            let _guard = OnDrop(&dropped);
            pending::<()>().await;
            Ok(0)
        };
        assert_eq!(race((foreign, after(3, Ok(1)))).await.unwrap(), 1);
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
        let foreign = async { pending::<Result<u64, Fault>>().await };
        assert_eq!(first_success((foreign, after(3, Ok(1)))).await.unwrap(), 1);
    });
}

#[test]
fn n13_code_that_swallows_and_goes_on_is_ended() {
    run_virtual(async || {
        for which in 0..4 {
            let turns = Cell::new(0);
            let scope = CancelScope::new();
            scope.cancel();
            let ended = scope
                .run(async {
                    loop {
                        turns.set(turns.get() + 1);
                        assert!(turns.get() < 100_000);
                        match which {
                            0 => drop(race((sleep(ms(1)), checkpoint())).await),
                            1 => drop(first_success((sleep(ms(1)), checkpoint())).await),
                            2 => drop(join((sleep(ms(1)), checkpoint())).await),
                            _ => drop(until([sleep(ms(1)), sleep(ms(1))], |_| true).await),
                        }
                    }
                    #[allow(unreachable_code)]
                    Ok::<(), Cancelled>(())
                })
                .await;
            assert_eq!(ended, Ok(None), "{which}");
        }
    });
}
