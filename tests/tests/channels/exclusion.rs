//! What one has at a time: R76–R79, R18, R37 and N5, the same tests for mutex, writer, semaphore, limiter and a channel of one item.
//!
//! | rule | here |
//! | --- | --- |
//! | R78 (only the owner releases), R81 (foreign release) | guards and tokens: what is not held cannot be given back |
//! | R79 (a lock whose owner has gone) | the guard goes with its owner, and unlocks |
//! | R83 | `WaitQueue` of the runtime |

use super::waiting::{begin, served};
use std::cell::RefCell;
use trefoil_nursery::sync::{CapacityLimiter, Mutex, RwLock, Semaphore, WouldBlock};
use trefoil_nursery::{
    CancelScope, Cancelled, Receiver, Sender, TryRecvError, channel, checkpoint, local_nursery, move_on_after,
    sleep_forever, yield_now,
};
use trefoil_tests::{Ended, drop_at, ms, run_virtual};

/// R76, R77, N5, R18, R37 for what `acquire` acquires, of which there is one.
macro_rules! exclusive {
    ($name:ident, $new:expr, $acquire:ident $(($arg:expr))?, $try:ident) => {
        mod $name {
            use super::*;

            #[test]
            fn r76_it_is_handed_over_in_order_before_who_gets_it_runs() {
                run_virtual(async || {
                    let (thing, order) = ($new, RefCell::new(Vec::new()));
                    local_nursery(async |n| -> Ended {
                        let held = thing.$acquire($($arg)?).await?;
                        for i in 0..5 {
                            let (thing, order) = (&thing, &order);
                            n.spawn(async move {
                                let _held = thing.$acquire($($arg)?).await?;
                                order.borrow_mut().push(i);
                                checkpoint().await
                            });
                        }
                        yield_now().await;
                        assert!(thing.$try($($arg)?).is_err());
                        drop(held);
                        // It belongs to the oldest already, who has not run.
                        assert!(order.borrow().is_empty());
                        assert!(thing.$try($($arg)?).is_err());
                        Ok(())
                    })
                    .await
                    .unwrap();
                    assert_eq!(*order.borrow(), [0, 1, 2, 3, 4]);
                    assert!(thing.$try($($arg)?).is_ok());
                });
            }

            #[test]
            fn r76_who_releases_and_comes_back_goes_behind_who_waits() {
                run_virtual(async || {
                    let (thing, order) = ($new, RefCell::new(Vec::new()));
                    local_nursery(async |n| -> Ended {
                        for name in ["a", "b"] {
                            let (thing, order) = (&thing, &order);
                            n.spawn(async move {
                                for _ in 0..4 {
                                    let held = thing.$acquire($($arg)?).await?;
                                    order.borrow_mut().push(name);
                                    checkpoint().await?;
                                    drop(held);
                                }
                                Ok(())
                            });
                        }
                        Ok(())
                    })
                    .await
                    .unwrap();
                    assert_eq!(*order.borrow(), ["a", "b", "a", "b", "a", "b", "a", "b"]);
                });
            }

            #[test]
            fn r77_a_cancelled_waiter_is_passed_over() {
                run_virtual(async || {
                    let thing = $new;
                    let scopes: Vec<_> = (0..4).map(|_| CancelScope::new()).collect();
                    let held = thing.$acquire($($arg)?).await.unwrap();
                    let mut waiting = begin(scopes.iter().map(|s| s.run(thing.$acquire($($arg)?))).collect()).await;
                    // The first two at once, one of which has not looked, and the third when it is handed over.
                    scopes[0].cancel();
                    scopes[1].cancel();
                    drop(served(waiting.remove(0)).await);
                    drop(held);
                    scopes[2].cancel();
                    let second = served(waiting.remove(0)).await;
                    assert!(second.is_none(), "R19");
                    let third = served(waiting.remove(0)).await;
                    assert!(third.is_some(), "R18");
                    drop(third);
                    assert!(served(waiting.remove(0)).await.is_some());
                    assert!(thing.$try($($arg)?).is_ok());
                });
            }

            #[test]
            fn n5_a_waiter_that_is_dropped_passes_on_what_it_was_given() {
                run_virtual(async || {
                    let thing = $new;
                    let held = thing.$acquire($($arg)?).await.unwrap();
                    let mut waiting = begin((0..3).map(|_| thing.$acquire($($arg)?)).collect()).await;
                    drop(held);
                    // The first has it; so, then, has the third.
                    drop(waiting.remove(1));
                    drop(waiting.remove(0));
                    assert!(thing.$try($($arg)?).is_err());
                    drop(served(waiting.remove(0)).await);
                    // And nobody.
                    let held = thing.$acquire($($arg)?).await.unwrap();
                    let waiting = begin(vec![thing.$acquire($($arg)?)]).await;
                    drop(held);
                    drop(waiting);
                    assert!(thing.$try($($arg)?).is_ok());
                });
            }

            #[test]
            fn r37_in_a_cancelled_scope_it_is_not_taken_even_where_it_is_free() {
                run_virtual(async || {
                    let (thing, scope) = ($new, CancelScope::new());
                    scope.cancel();
                    assert!(scope.run(thing.$acquire($($arg)?)).await.unwrap().is_none());
                    assert!(thing.$try($($arg)?).is_ok());
                });
            }

            #[test]
            fn r79_it_comes_back_however_its_owner_ends() {
                run_virtual(async || {
                    let thing = $new;
                    // Cancelled, dropped, and with an error.
                    for how in 0..3 {
                        let ended = local_nursery(async |n| -> std::io::Result<()> {
                            let owner = async {
                                let _held = thing.$acquire($($arg)?).await?;
                                match how {
                                    0 => move_on_after(ms(1), sleep_forever()).await.map(|_| ())?,
                                    1 => drop(drop_at(1, sleep_forever()).await),
                                    _ => return Err(std::io::Error::other("fails")),
                                }
                                Ok(())
                            };
                            n.spawn(owner);
                            yield_now().await;
                            drop(trefoil_nursery::shield(thing.$acquire($($arg)?)).await?);
                            Ok(())
                        })
                        .await;
                        assert_eq!(ended.is_err(), how == 2);
                        assert!(thing.$try($($arg)?).is_ok());
                    }
                });
            }
        }
    };
}

exclusive!(mutex, Mutex::new(()), lock, try_lock);

exclusive!(write, RwLock::new(()), write, try_write);

exclusive!(semaphore, Semaphore::new(1), acquire(1), try_acquire);

exclusive!(all_of_a_semaphore, Semaphore::new(7), acquire(7), try_acquire);

exclusive!(limiter, CapacityLimiter::new(1), acquire, try_acquire);

exclusive!(channel_with_one_item, ChannelLock::new(), acquire, try_acquire);

/// A channel in which there is one item: who has that has the lock.
struct ChannelLock(Sender<()>, Receiver<()>);

struct Item<'a>(&'a ChannelLock);

impl Drop for Item<'_> {
    fn drop(&mut self) {
        self.0.0.try_send(()).expect("there is room for it");
    }
}

impl ChannelLock {
    fn new() -> Self {
        let (sender, receiver) = channel(1);
        sender.try_send(()).unwrap();
        Self(sender, receiver)
    }

    async fn acquire(&self) -> Result<Item<'_>, Cancelled> {
        assert_eq!(self.1.recv().await?, Some(()));
        Ok(Item(self))
    }

    fn try_acquire(&self) -> Result<Item<'_>, TryRecvError> {
        self.1.try_recv().map(|()| Item(self))
    }
}

#[test]
fn r78_the_guard_is_the_lock() {
    run_virtual(async || {
        let mutex = Mutex::new(1);
        let mut guard = mutex.lock().await.unwrap();
        *guard += 1;
        assert!(mutex.is_locked());
        let refused: Result<_, WouldBlock> = mutex.try_lock();
        assert!(refused.is_err());
        drop(guard);
        assert!(!mutex.is_locked());
        assert_eq!(*mutex.try_lock().unwrap(), 2);
    });
}
