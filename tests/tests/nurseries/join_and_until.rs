//! `first_success`, `join` and `until`: R29, R58–R60.

use super::fault::{Fault, after};
use std::cell::RefCell;
use std::future::{Future, pending, ready};
use std::sync::atomic::{AtomicUsize, Ordering};
use trefoil_nursery::{
    CancelScope, Cancelled, first_success, join, move_on_after, shield, sleep, sleep_forever, until,
};
use trefoil_tests::{CANCELLED, OnDrop, Trace, ms, run_virtual};

#[test]
fn first_success_is_not_ended_by_errors() {
    run_virtual(async || {
        let trace = Trace::new();
        let won = first_success((after(1, Err(1)), after(5, Ok(2)), after(3, Err(3)), after(9, Ok(4)))).await;
        assert_eq!((won.unwrap(), trace.ms()), (2, 5));
        let group = first_success([after(3, Err(1)), after(1, Err(2)), after(2, Err(3))]).await.unwrap_err();
        assert_eq!(group.into_vec(), [Fault::No(2), Fault::No(3), Fault::No(1)], "in the order in which they came");
    });
}

#[test]
fn first_success_that_is_cancelled() {
    run_virtual(async || {
        let ended = move_on_after(ms(5), async {
            let group = first_success((after(1, Err(1)), after(10, Ok(2)), after(10, Ok(3)))).await.unwrap_err();
            assert_eq!(group.iter().collect::<Vec<_>>(), [&Fault::No(1), &Fault::Cancelled(CANCELLED)]);
            Err::<(), _>(group)
        });
        assert_eq!(ended.await.unwrap_err().into_vec(), [Fault::No(1)]);
        let ended = move_on_after(ms(5), first_success((after(10, Ok(1)), after(10, Ok(2))))).await;
        assert!(ended.unwrap().is_none());
        let late = async {
            let _ = sleep_forever().await;
            Ok(7)
        };
        let ended = move_on_after(ms(5), first_success((late, after(10, Ok(2))))).await;
        assert_eq!(ended.unwrap(), Some(7));
        // A foreign one is cut.
        let foreign = pending::<Result<u64, Fault>>();
        let ended = move_on_after(ms(5), first_success((foreign, pending()))).await;
        assert!(ended.unwrap().is_none());
    });
}

// ---- join and until ------------------------------------------------------------------------------------------------

#[test]
fn join_returns_values_of_several_types_in_place() {
    run_virtual(async || {
        let all = join((
            async { Ok::<_, Fault>("a") },
            after(5, Ok(2)),
            async { Ok(3.5) },
            async { Ok('d') },
            ready(Ok(5_u8)),
            ready(Ok(())),
            ready(Ok(Some(7))),
            ready(Ok([8; 8])),
        ));
        assert_eq!(all.await.unwrap(), ("a", 2, 3.5, 'd', 5, (), Some(7), [8; 8]));
        assert_eq!(join([after(3, Ok(1)), after(1, Ok(2)), after(2, Ok(3))]).await.unwrap(), [1, 2, 3]);
        let many: Vec<_> = (0..1000).map(|i| after(1000 - i, Ok(i))).collect();
        assert_eq!(join(many).await.unwrap(), (0..1000).collect::<Vec<_>>());
    });
}

#[test]
fn r58_r60_join_is_ended_by_the_first_error_and_returns_all() {
    run_virtual(async || {
        let trace = Trace::new();
        let dropped = AtomicUsize::new(0);
        let group = join((
            async {
                let _ = sleep_forever().await;
                Err::<(), _>(Fault::No(2))
            },
            after(4, Err(1)),
            after(90, Ok(3)),
            async { Ok(OnDrop(&dropped)) },
        ))
        .await
        .unwrap_err();
        assert_eq!((group.into_vec(), trace.ms()), (vec![Fault::No(1), Fault::No(2)], 4));
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn r29_join_keeps_what_is_complete_when_it_is_cancelled() {
    run_virtual(async || {
        let scope = CancelScope::new();
        let ended = scope
            .run(join((async { Ok::<_, Cancelled>(1) }, async {
                sleep(ms(1)).await?;
                scope.cancel();
                Ok(2)
            })))
            .await;
        assert_eq!(ended.unwrap(), Some((1, 2)));
    });
}

#[test]
fn until_collects_in_order_of_completion_and_loses_nothing() {
    run_virtual(async || {
        let trace = Trace::new();
        let asked = RefCell::new(vec![]);
        let enough = |done: &[u64]| {
            asked.borrow_mut().push(done.to_vec());
            done.iter().sum::<u64>() >= 5
        };
        let got = until([after(9, Ok(9)), after(3, Ok(3)), after(1, Ok(1)), after(2, Ok(2)), after(3, Ok(4))], enough);
        // The last two end in one turn: the fourth is late, and kept.
        assert_eq!((got.await.unwrap(), trace.ms()), (vec![1, 2, 3, 4], 3));
        assert_eq!(asked.take(), [vec![1], vec![1, 2], vec![1, 2, 3]], "it is not asked again");
        assert_eq!(until([after(2, Ok(2)), after(1, Ok(1))], |_| false).await.unwrap(), [1, 2]);
        let group = until([after(2, Err(2)), after(1, Ok(1)), after(5, Ok(5))], |done| done.len() == 2).await;
        assert_eq!(group.unwrap_err().into_vec(), [Fault::No(2)]);
    });
}

#[test]
fn until_that_is_cancelled() {
    run_virtual(async || {
        let ended = move_on_after(ms(5), until([after(1, Ok(1)), after(9, Ok(9))], |done| done.len() == 2)).await;
        assert!(ended.unwrap().is_none());
        // Enough had come when the rest was still ending.
        let slow = async {
            let ended = sleep_forever().await;
            shield(sleep(ms(10))).await?;
            Err(ended.unwrap_err().into())
        };
        type Boxed<'a> = std::pin::Pin<Box<dyn Future<Output = Result<u64, Fault>> + 'a>>;
        let branches: [Boxed<'_>; 2] = [Box::pin(after(1, Ok(1))), Box::pin(slow)];
        let ended = move_on_after(ms(5), until(branches, |_| true)).await;
        assert_eq!(ended.unwrap(), Some(vec![1]));
    });
}
