//! Scopes inside of each other, and futures that are moved or polled by combinators of others.

use crate::{NAME, NUMBER, number};
use futures::future::{join, join_all};
use futures::stream::{FuturesUnordered, StreamExt};
use std::sync::Mutex;
use trefoil_nursery::{CancelScope, Cancelled, checkpoint, local_nursery, nursery, sleep_forever, yield_now};
use trefoil_tests::{panic_of, poll_once, run_virtual};

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
