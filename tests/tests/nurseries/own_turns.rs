//! A nursery that takes its turns itself, since its children are all that can run: it does between two of them what it would do if it were polled
//! for each. R84, R85.

use std::cell::Cell;
use trefoil_nursery::{Cancelled, checkpoint, local_nursery, shield};
use trefoil_tests::run_virtual;

/// More than it takes until a nursery takes its turns itself.
const MANY: usize = 200;

async fn busy(turns: usize) -> Result<(), Cancelled> {
    for _ in 0..turns {
        checkpoint().await?;
    }
    Ok(())
}

/// Busy until it is cancelled: how often it had a turn since `begun`.
async fn count(begun: &Cell<bool>, turns: &Cell<usize>) -> Result<(), Cancelled> {
    loop {
        checkpoint().await?;
        turns.set(turns.get() + usize::from(begun.get()));
    }
}

#[test]
fn r85_services_stop_in_the_turn_after_all_else_has_ended() {
    run_virtual(async || {
        let (ended, turns) = (Cell::new(false), Cell::new(0));
        local_nursery(async |n| -> Result<(), Cancelled> {
            n.service(count(&ended, &turns));
            busy(MANY).await?;
            ended.set(true);
            Ok(())
        })
        .await
        .unwrap();
        assert!(turns.get() <= 1, "it was told {} turns late", turns.get());

        // A child is the last but them.
        let (ended, turns) = (Cell::new(false), Cell::new(0));
        local_nursery(async |n| -> Result<(), Cancelled> {
            n.service(count(&ended, &turns));
            n.spawn(async {
                busy(MANY).await?;
                ended.set(true);
                Ok(())
            });
            Ok(())
        })
        .await
        .unwrap();
        assert!(turns.get() <= 1, "it was told {} turns late", turns.get());
    });
}

/// N13: also beside a child that goes on, in a shield.
#[test]
fn n13_a_body_that_cannot_be_told_is_dropped_in_the_turn_after_the_cancel() {
    struct Dropped<'a>(&'a Cell<bool>);
    impl Drop for Dropped<'_> {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    run_virtual(async || {
        let (gone, late) = (&Cell::new(false), &Cell::new(0));
        local_nursery(async |n| -> Result<(), Cancelled> {
            let _dropped = Dropped(gone);
            n.spawn(async move {
                busy(MANY).await?;
                n.cancel();
                shield(async {
                    for _ in 0..MANY {
                        late.set(late.get() + usize::from(!gone.get()));
                        checkpoint().await?;
                    }
                    Ok::<_, Cancelled>(())
                })
                .await
            });
            std::future::pending().await
        })
        .await
        .unwrap_or(());
        assert!(gone.get() && late.get() <= 2, "it was dropped {} turns late", late.get());
    });
}

/// The end of the last child is the end of the nursery, in the same turn.
#[test]
fn r84_who_waits_for_the_nursery_goes_on_in_the_turn_in_which_it_ends() {
    run_virtual(async || {
        let turns = Cell::new(0);
        let end = local_nursery(async |n| -> Result<usize, Cancelled> {
            let inner = n.spawn(async {
                local_nursery(async |inner| -> Result<(), Cancelled> {
                    inner.spawn(busy(MANY));
                    Ok(())
                })
                .await
                .unwrap();
                Ok(turns.get())
            });
            n.spawn(async {
                for _ in 0..2 * MANY {
                    checkpoint().await?;
                    turns.set(turns.get() + 1);
                }
                Ok(())
            });
            inner.await
        })
        .await;
        assert_eq!(end.unwrap(), MANY);
    });
}
