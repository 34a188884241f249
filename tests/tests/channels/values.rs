//! Values that are waited for: `oneshot`, which has one, and `watch`, which has the latest.

use super::waiting::served;
use std::cell::Cell;
use trefoil_nursery::sync::{oneshot, watch};
use trefoil_nursery::{CancelScope, local_nursery, move_on_after, sleep};
use trefoil_tests::{Ended, begun, ms, run_virtual};

#[test]
fn oneshot_gives_one_value_and_loses_none() {
    run_virtual(async || {
        // Sent first, and received first.
        let (tx, mut rx) = oneshot();
        tx.send(1).unwrap();
        assert_eq!(rx.recv().await, Ok(Some(1)));
        assert_eq!(rx.recv().await, Ok(None));
        let (tx, mut rx) = oneshot();
        local_nursery(async |n| -> Ended {
            n.spawn(async move {
                sleep(ms(1)).await?;
                tx.send(2).unwrap();
                Ok(())
            });
            assert_eq!(rx.recv().await?, Some(2));
            Ok(())
        })
        .await
        .unwrap();
        // Cancelled, then dropped after it was sent (N5): still there.
        let (tx, mut rx) = oneshot();
        assert_eq!(move_on_after(ms(1), rx.recv()).await, Ok(None));
        {
            let waiting = begun(rx.recv()).await;
            tx.send(3).unwrap();
            drop(waiting);
        }
        assert_eq!(rx.try_recv(), Some(3));
        // R18.
        let ((tx, mut rx), scope) = (oneshot(), CancelScope::new());
        {
            let waiting = begun(scope.run(rx.recv())).await;
            tx.send(4).unwrap();
            scope.cancel();
            assert_eq!(waiting.await, Ok(Some(Some(4))));
        }
        // R37: a value that is there is not taken in a cancelled scope.
        let ((tx, mut rx), scope) = (oneshot(), CancelScope::new());
        tx.send(5).unwrap();
        scope.cancel();
        assert_eq!(scope.run(rx.recv()).await, Ok(None));
        assert_eq!(rx.recv().await, Ok(Some(5)));
        // One side goes away.
        let (tx, mut rx) = oneshot::<u8>();
        {
            let waiting = begun(rx.recv()).await;
            drop(tx);
            assert_eq!(served(waiting).await, None);
        }
        let (tx, rx) = oneshot();
        assert!(!tx.is_closed());
        drop(rx);
        assert!(tx.is_closed());
        assert_eq!(tx.send("back"), Err("back"));
    });
}

#[test]
fn watch_shows_the_latest_value_and_loses_no_change() {
    run_virtual(async || {
        let (tx, mut rx) = watch(0);
        assert_eq!(*rx.get(), 0);
        tx.set(1);
        tx.update(|value| value + 1);
        // Two changes are one.
        assert_eq!(rx.changed().await, Ok(true));
        assert_eq!(*rx.get(), 2);
        // Each receiver has seen what it has seen.
        let mut second = rx.clone();
        tx.set(3);
        assert_eq!(rx.changed().await, Ok(true));
        assert_eq!(second.changed().await, Ok(true));
        // Cancelled, then dropped after the change (N5): it is not lost.
        assert_eq!(move_on_after(ms(1), rx.changed()).await, Ok(None));
        {
            let waiting = begun(rx.changed()).await;
            tx.set(4);
            drop(waiting);
        }
        assert_eq!(rx.changed().await, Ok(true));
        // R18.
        let scope = CancelScope::new();
        {
            let waiting = begun(scope.run(rx.changed())).await;
            tx.set(5);
            scope.cancel();
            assert_eq!(waiting.await, Ok(Some(true)));
        }
        // The end, after what is new.
        tx.set(6);
        drop(tx);
        assert_eq!(rx.changed().await, Ok(true));
        assert_eq!((rx.changed().await, rx.changed().await), (Ok(false), Ok(false)));
        assert_eq!(*rx.get(), 6);
        assert_eq!((second.changed().await, second.changed().await), (Ok(true), Ok(false)));
    });
}

#[test]
fn watch_wakes_all_who_watch() {
    run_virtual(async || {
        let ((tx, rx), woken) = (watch(0), Cell::new(0));
        local_nursery(async |n| -> Ended {
            for _ in 0..5 {
                let (mut rx, woken) = (rx.clone(), &woken);
                n.spawn(async move {
                    while rx.changed().await? {
                        woken.set(woken.get() + *rx.get());
                    }
                    Ok(())
                });
            }
            for value in [1, 100] {
                sleep(ms(1)).await?;
                tx.set(value);
            }
            sleep(ms(1)).await?;
            drop(tx);
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(woken.get(), 505);
    });
}

#[test]
fn a_look_at_a_watched_value_keeps_nobody_from_setting_another() {
    /// Looks at the value that comes after it.
    struct Looks(Option<trefoil_nursery::sync::WatchReceiver<Option<Looks>>>, u32);
    impl Drop for Looks {
        fn drop(&mut self) {
            if let Some(receiver) = &self.0 {
                assert!(receiver.get().as_ref().is_none_or(|next| next.1 > self.1));
            }
        }
    }
    run_virtual(async || {
        let (tx, mut rx) = watch(None);
        tx.set(Some(Looks(Some(rx.clone()), 1)));
        let look = rx.get();
        // On the same thread, with the look still there.
        tx.set(Some(Looks(Some(rx.clone()), 2)));
        assert_eq!((look.as_ref().unwrap().1, rx.get().as_ref().unwrap().1), (1, 2));
        drop(look);
        assert_eq!(rx.changed().await, Ok(true));
        tx.set(None);
        // A change that sets another in the middle of it is made again, with that.
        let (tx, rx) = watch(1);
        let mut first = true;
        tx.update(|value| {
            if std::mem::take(&mut first) {
                tx.set(10);
            }
            value + 1
        });
        assert_eq!(*rx.get(), 11);
    });
}
