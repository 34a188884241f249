//! Barriers: R18, R36, N5.

use super::waiting::served;
use trefoil_nursery::sync::Barrier;
use trefoil_nursery::{CancelScope, local_nursery, sleep};
use trefoil_tests::{Ended, Trace, begun, ms, run_virtual};

#[test]
fn barrier_lets_all_through_together_again_and_again_and_the_last_leads() {
    run_virtual(async || {
        let (barrier, t) = (Barrier::new(3), Trace::new());
        local_nursery(async |n| -> Ended {
            for (i, name) in ["a", "b", "c"].into_iter().enumerate() {
                let (barrier, t) = (&barrier, &t);
                n.spawn(async move {
                    for round in 0..2 {
                        sleep(ms(i as u64 + 1)).await?;
                        let leads = barrier.wait().await?;
                        t.note(name, format_args!("{round} {leads}"));
                    }
                    Ok(())
                });
            }
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(t.of("a"), ["3 a 0 false", "6 a 1 false"]);
        assert_eq!(t.of("b"), ["3 b 0 false", "6 b 1 false"]);
        assert_eq!(t.of("c"), ["3 c 0 true", "6 c 1 true"]);
        // Of one, or none: it does not wait.
        assert!(Barrier::new(1).wait().await.unwrap());
        assert!(Barrier::new(0).wait().await.unwrap());
    });
}

#[test]
fn r36_n5_a_cancelled_or_dropped_wait_at_a_barrier_does_not_count() {
    run_virtual(async || {
        let (barrier, scope) = (Barrier::new(2), CancelScope::new());
        let first = begun(scope.run(barrier.wait())).await;
        scope.cancel();
        // It has not looked, and does not count all the same.
        let second = begun(barrier.wait()).await;
        assert_eq!(first.await, Ok(None));
        drop(second);
        let third = begun(barrier.wait()).await;
        assert!(barrier.wait().await.unwrap());
        assert!(!served(third).await);
    });
}

#[test]
fn r18_a_barrier_that_was_reached_wins_over_a_cancel() {
    run_virtual(async || {
        let (barrier, scope) = (Barrier::new(2), CancelScope::new());
        let first = begun(scope.run(barrier.wait())).await;
        assert!(barrier.wait().await.unwrap());
        scope.cancel();
        assert_eq!(first.await, Ok(Some(false)));
    });
}
