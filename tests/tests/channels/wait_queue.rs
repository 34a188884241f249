//! The parking lot (R83): `WaitQueue` of the runtime, of which every primitive is made.
//!
//! | rule | here |
//! | --- | --- |
//! | R83, `unpark(n)` | `hand`, n times |
//! | R83, `repark` | `transfer`, which a condition does with its lock |
//! | R83, a broken lot | the state under the lock: what waits is let go by `release`, who comes later looks at the state |

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use trefoil_nursery::{CancelScope, Cancelled, checkpoint, local_nursery};
use trefoil_runtime::{Handed, Reason, Turn, Wait, WaitQueue};
use trefoil_tests::run_virtual;

/// A lot with two lists. Once it is broken, nobody parks any more.
type Lot = WaitQueue<bool, u32, 2>;

#[derive(Debug, PartialEq)]
enum Ended {
    Served,
    Broken,
}

async fn park(lot: &Lot) -> Result<Ended, Cancelled> {
    let mut waiter = pin!(lot.waiter());
    let wait = Wait::new(Reason::Custom("the lot"));
    poll_fn(|cx| {
        waiter.as_mut().poll(cx, wait, |broken| if **broken { Turn::Ready(()) } else { Turn::Wait(0, Some(0)) })
    })
    .await
    .map(|ended| match ended {
        Handed::Ready(()) => Ended::Broken,
        Handed::Handed(Some(0)) => Ended::Broken, // it has what it had brought: it was let go
        Handed::Handed(_) => Ended::Served,
    })
    .map_err(|(cancelled, _)| cancelled)
}

/// Serves the oldest of a list. Whether there was one.
fn unpark(lot: &Lot, list: usize) -> bool {
    lot.lock().hand(list, Some(1)).is_ok()
}

/// Parks tasks 0 to 4, and calls `act` when all are parked. Who ended how, in which order; nobody may be left.
async fn parked(act: impl AsyncFnOnce(&Lot, &[CancelScope])) -> Vec<(usize, Option<Ended>)> {
    let (lot, order) = (Lot::new(false), RefCell::new(Vec::new()));
    let scopes: Vec<_> = (0..5).map(|_| CancelScope::new()).collect();
    local_nursery(async |n| -> Result<(), Cancelled> {
        for (i, scope) in scopes.iter().enumerate() {
            let (lot, order) = (&lot, &order);
            n.spawn(async move {
                let ended = scope.run(park(lot)).await?;
                order.borrow_mut().push((i, ended));
                Ok(())
            });
        }
        checkpoint().await?;
        act(&lot, &scopes).await;
        Ok(())
    })
    .await
    .unwrap();
    order.into_inner()
}

fn served(ids: &[usize]) -> Vec<(usize, Option<Ended>)> {
    ids.iter().map(|&i| (i, Some(Ended::Served))).collect()
}

#[test]
fn r83_the_oldest_are_served_in_order_and_those_that_were_cancelled_are_passed_over() {
    run_virtual(async || {
        let order = parked(async |lot, _| {
            assert!(unpark(lot, 0) && unpark(lot, 0));
            checkpoint().await.unwrap();
            assert!(unpark(lot, 0) && unpark(lot, 0) && unpark(lot, 0));
            assert!(!unpark(lot, 0));
        });
        assert_eq!(order.await, served(&[0, 1, 2, 3, 4]));
        let order = parked(async |lot, scopes| {
            scopes[0].cancel();
            scopes[3].cancel();
            assert!(unpark(lot, 0) && unpark(lot, 0) && unpark(lot, 0));
            assert!(!unpark(lot, 0));
        });
        let mut order = order.await;
        order.sort_by_key(|(i, _)| *i);
        assert_eq!(
            order.iter().map(|(_, ended)| ended.is_some()).collect::<Vec<_>>(),
            [false, true, true, false, true]
        );
    });
}

#[test]
fn r83_those_that_are_moved_keep_their_order_and_can_be_cancelled() {
    run_virtual(async || {
        let order = parked(async |lot, scopes| {
            let mut guard = lot.lock();
            for _ in 0..3 {
                assert_eq!(guard.transfer(0, 1, |_| true), Some(0));
            }
            assert_eq!((guard.count(0), guard.count(1)), (2, 3));
            drop(guard);
            scopes[1].cancel(); // inside of the list that it was moved to
            assert!(unpark(lot, 1) && unpark(lot, 1) && !unpark(lot, 1));
            checkpoint().await.unwrap();
            assert!(unpark(lot, 0) && unpark(lot, 0) && !unpark(lot, 0));
        });
        let order = order.await;
        let of: Vec<_> = order.iter().filter(|(_, ended)| ended.is_some()).map(|(i, _)| *i).collect();
        assert_eq!(of, [0, 2, 3, 4]);
        assert!(order.contains(&(1, None)));
    });
}

#[test]
fn r83_a_broken_lot_lets_all_go_and_takes_nobody() {
    run_virtual(async || {
        let order = parked(async |lot, _| {
            let mut guard = lot.lock();
            *guard = true;
            guard.release(0, |_| true);
            drop(guard);
            assert_eq!(park(lot).await, Ok(Ended::Broken));
        });
        assert_eq!(order.await, (0..5).map(|i| (i, Some(Ended::Broken))).collect::<Vec<_>>());
    });
}
