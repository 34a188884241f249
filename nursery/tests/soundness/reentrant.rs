//! Wakers are code of others too: their `clone`, `wake` and `drop` call back into what they are being cloned, woken or dropped by. And the
//! destructors of what is sent, returned or failed with.

use super::support::*;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};
use trefoil_nursery::*;

/// What a hook may reach.
struct World {
    scope: CancelScope,
    event: Event,
    tx: Sender<Item>,
    rx: Receiver<Item>,
    calls: AtomicUsize,
}

/// Reaches the world again when it is dropped.
struct Item(Weak<World>);
impl Drop for Item {
    fn drop(&mut self) {
        if let Some(world) = self.0.upgrade() {
            let _ = (world.tx.len(), world.rx.len(), world.event.is_set());
        }
    }
}

impl World {
    fn new() -> Arc<Self> {
        let (tx, rx) = channel(0);
        Arc::new(Self { scope: CancelScope::new(), event: Event::new(), tx, rx, calls: AtomicUsize::new(0) })
    }

    fn item(self: &Arc<Self>) -> Item {
        Item(Arc::downgrade(self))
    }

    /// Everything that can be called from anywhere.
    fn call(self: &Arc<Self>, what: usize) {
        self.calls.fetch_add(1, SeqCst);
        match what {
            0 => self.scope.cancel(),
            1 => self.event.set(),
            2 => drop(self.tx.try_send(self.item())),
            3 => drop(self.rx.try_recv()),
            4 => {
                self.scope.set_deadline(Some(now()));
                self.scope.set_shield(true);
                self.scope.set_shield(false);
                let _ = format!("{:?} {:?} {:?} {:?}", self.scope, self.event, self.tx, self.rx);
            }
            5 => {
                drop(self.tx.clone());
                drop(self.rx.clone());
                drop(self.tx.send(self.item()));
                drop(self.rx.recv());
            }
            _ => {
                if trefoil_runtime::in_run() {
                    let _ = once_with(Box::pin(sleep(HOUR)).as_mut(), Waker::noop());
                    let _ = once_with(Box::pin(self.event.wait()).as_mut(), Waker::noop());
                    let _ = trefoil_runtime::tree().to_string();
                }
            }
        }
    }
}

const CALLS: usize = 7;
const OPERATIONS: usize = 8;

fn operation<'a>(which: usize, world: &'a Arc<World>) -> Pin<Box<dyn Future<Output = ()> + std::marker::Send + 'a>> {
    match which {
        0 => Box::pin(async {
            let _ = sleep(MS).await;
        }),
        1 => Box::pin(async {
            let _ = world.event.wait().await;
        }),
        2 => Box::pin(async {
            let _ = world.tx.send(world.item()).await;
        }),
        3 => Box::pin(async {
            let _ = world.rx.recv().await;
        }),
        4 => Box::pin(async {
            let _ = move_on_after(MS, sleep_forever()).await;
        }),
        5 => Box::pin(async {
            let _ = shield(world.event.wait()).await;
        }),
        6 => Box::pin(async {
            let _ = nursery(async |n| -> Result<(), Cancelled> {
                n.spawn(async { world.event.wait().await });
                n.spawn(async { move_on_after(MS, sleep_forever()).await }).await?;
                Ok(())
            })
            .await;
        }),
        _ => Box::pin(async {
            let _ = nursery(async |n| -> Result<Item, Cancelled> {
                let child = n.spawn(async {
                    world.event.wait().await?;
                    Ok(world.item())
                });
                child.await
            })
            .await;
        }),
    }
}

/// Every operation, with a waker that calls back in each of its functions, ended in every way. What matters is that it ends.
#[test]
fn wakers_call_back_from_every_operation() {
    for (clone, wake, drops) in [(true, false, false), (false, true, false), (false, false, true), (true, true, true)] {
        for call in 0..CALLS {
            if cfg!(miri) && (clone, wake, drops) != (true, true, true) {
                continue;
            }
            for which in 0..OPERATIONS {
                for end in 0..4 {
                    let _watchdog = Watchdog::new();
                    let world = World::new();
                    let hook = |on: bool| -> Option<Box<dyn Fn() + std::marker::Send + Sync>> {
                        let world = Arc::downgrade(&world);
                        on.then(|| -> Box<dyn Fn() + std::marker::Send + Sync> {
                            Box::new(move || {
                                if let Some(world) = world.upgrade() {
                                    world.call(call)
                                }
                            })
                        })
                    };
                    let waker =
                        Hooks { clone: hook(clone), wake: hook(wake), drop: hook(drops), ..Hooks::default() }.waker();
                    run_virtual(async {
                        let _ = world
                            .scope
                            .run(async {
                                let mut waits = operation(which, &world);
                                for _ in 0..3 {
                                    if once_with(waits.as_mut(), &waker).is_ready() {
                                        return Ok(());
                                    }
                                }
                                match end {
                                    0 => {}
                                    1 => world.scope.cancel(),
                                    2 => {
                                        world.event.set();
                                        drop(world.tx.try_send(world.item()));
                                        drop(world.rx.try_recv());
                                    }
                                    _ => {
                                        let _ = shield(sleep(MS * 2)).await;
                                    }
                                }
                                if end > 0 {
                                    for _ in 0..4 {
                                        if once_with(waits.as_mut(), &waker).is_ready() {
                                            return Ok(());
                                        }
                                    }
                                }
                                drop(waits);
                                Ok::<(), Cancelled>(())
                            })
                            .await;
                    });
                    drop(waker);
                }
            }
        }
    }
}

/// A waker that owns the last handle of the channel on which it waits: its drop closes the channel.
#[test]
fn wakers_own_what_they_wait_for() {
    for end in 0..4 {
        let _watchdog = Watchdog::new();
        run_virtual(async {
            let (tx, rx) = channel::<Item>(0);
            let (tx2, rx2) = (tx.clone(), rx.clone());
            let cell = Arc::new(Mutex::new(Some((tx2, rx2))));
            type Ends = (Sender<Item>, Receiver<Item>);
            struct Owns(#[allow(dead_code)] Arc<Mutex<Option<Ends>>>);
            impl std::task::Wake for Owns {
                fn wake(self: Arc<Self>) {}
            }
            let waker = Waker::from(Arc::new(Owns(cell)));
            let mut recv = Box::pin(async { rx.recv().await.is_ok() });
            assert!(once_with(recv.as_mut(), &waker).is_pending());
            // What waits has the last of them now.
            drop(waker);
            match end {
                0 => {}
                1 => drop(tx.try_send(Item(Weak::new()))),
                2 => {
                    let count = Count::new();
                    let _ = once_with(recv.as_mut(), &Waker::from(count));
                }
                _ => {
                    let scope = CancelScope::new();
                    scope.cancel();
                    let _ =
                        scope.run(async { poll_fn(|cx| recv.as_mut().poll(cx).map(Ok::<_, Cancelled>)).await }).await;
                }
            }
            drop(recv);
            drop((tx, rx));
        });
    }
}

/// A waker spawns into the nursery that it wakes, or cancels it, while that runs and while it goes down.
#[test]
fn wakers_spawn_and_cancel() {
    for spawns in [true, false] {
        for k in 0..8 {
            let _watchdog = Watchdog::new();
            let drops = &Drops::new();
            run(async {
                let open = nursery(async |n| -> Result<(), Cancelled> {
                    let slot = Mutex::new(None);
                    // A future of this scope within a `Mutex`, so that the hook can be called while it waits.
                    let mut wait = Box::pin(sleep_forever());
                    let calls = &AtomicUsize::new(0);
                    let hook = || {
                        calls.fetch_add(1, SeqCst);
                        if spawns {
                            let probe = drops.probe();
                            drop(n.spawn(async move {
                                probe.touch();
                                checkpoint().await
                            }));
                        } else {
                            n.cancel();
                        }
                    };
                    // SAFETY: a lie about its life; the waker is taken back before the hook goes (see below).
                    let hook: &'static (dyn Fn() + std::marker::Send + Sync) =
                        unsafe { std::mem::transmute::<&(dyn Fn() + std::marker::Send + Sync), _>(&hook) };
                    let waker = Hooks {
                        clone: Some(Box::new(hook)),
                        wake: Some(Box::new(hook)),
                        drop: Some(Box::new(hook)),
                        ..Hooks::default()
                    }
                    .waker();
                    let _ = once_with(wait.as_mut(), &waker);
                    let probe = drops.probe();
                    n.spawn(async move {
                        probe.touch();
                        never::<()>().await
                    });
                    let held = (wait, waker);
                    if k % 2 == 0 {
                        pend(&slot).await;
                    }
                    drop(held);
                    n.cancel();
                    Ok(())
                });
                drop(turns(Box::pin(open), k).await);
            });
            drops.assert_all();
        }
    }
}

/// Items, values and errors whose destructors use the channel, event or scope that they are dropped by.
#[test]
fn what_is_dropped_calls_back() {
    let _watchdog = Watchdog::new();
    for capacity in [0, 2] {
        for end in 0..6 {
            let calls = Arc::new(AtomicUsize::new(0));
            struct Own {
                calls: Arc<AtomicUsize>,
                tx: Mutex<Option<(Sender<Own>, Receiver<Own>)>>,
            }
            impl Drop for Own {
                fn drop(&mut self) {
                    self.calls.fetch_add(1, SeqCst);
                    if let Some((tx, rx)) = self.tx.lock().unwrap().take() {
                        let _ = (tx.len(), rx.len());
                        drop(rx.try_recv());
                        drop(tx.try_send(Own { calls: self.calls.clone(), tx: Mutex::new(None) }));
                    }
                }
            }
            let (tx, rx) = channel::<Own>(capacity);
            let own = |held: bool| Own { calls: calls.clone(), tx: Mutex::new(held.then(|| (tx.clone(), rx.clone()))) };
            run_virtual(async {
                let sends: Vec<_> = (0..4).map(|_| Box::pin(tx.send(own(true)))).collect();
                let mut waiting = Vec::new();
                for mut send in sends {
                    if once(send.as_mut()).await.is_pending() {
                        waiting.push(send);
                    }
                }
                let sends = waiting;
                match end {
                    0 => drop(sends),
                    1 => {
                        drop(rx.recv().await);
                        drop(sends)
                    }
                    2 => {
                        let scope = CancelScope::new();
                        scope.cancel();
                        let _ = scope
                            .run(async {
                                for send in sends {
                                    drop(send.await);
                                }
                                Ok::<(), Cancelled>(())
                            })
                            .await;
                    }
                    3 => {
                        let mut recv = Box::pin(rx.recv());
                        let _ = once(recv.as_mut()).await;
                        drop(recv);
                        drop(sends);
                    }
                    4 => {
                        drop(sends);
                        let mut recv = Box::pin(rx.recv());
                        let _ = once(recv.as_mut()).await;
                        drop(tx.try_send(own(true)));
                        // Handed over, and never looked at.
                        drop(recv);
                    }
                    _ => {
                        drop(sends);
                        let mut a = Box::pin(rx.recv());
                        let mut b = Box::pin(rx.recv());
                        let _ = (once(a.as_mut()).await, once(b.as_mut()).await);
                        drop(tx.try_send(own(true)));
                        drop(a);
                        drop(b.await);
                    }
                }
            });
            // The items own the channel: what is left in it would be a ring.
            while rx.try_recv().is_ok() {}
            drop((tx, rx));
            assert!(calls.load(SeqCst) > 0);
        }
    }
}

#[test]
fn the_last_receiver_goes_with_the_items() {
    // The buffer holds an item that holds a sender, whose drop takes the lock.
    let (tx, rx) = channel::<Box<dyn std::any::Any + std::marker::Send>>(4);
    tx.try_send(Box::new(tx.clone())).unwrap();
    tx.try_send(Box::new(OnDrop({
        let tx = tx.clone();
        move || assert!(tx.is_closed() && tx.is_empty())
    })))
    .unwrap();
    drop(rx);
    assert!(tx.try_send(Box::new(1)).is_err());
}

/// A task's waker, cloned and dropped in every order by one poll; the children's wakers of each other.
#[test]
fn children_hold_each_others_wakers() {
    for k in 0..6 {
        let drops = Drops::new();
        run(async {
            let slots: Vec<Mutex<Option<Waker>>> = (0..3).map(|_| Mutex::new(None)).collect();
            let open = nursery(async |n| -> Result<(), Cancelled> {
                for i in 0..3 {
                    let (slots, drops) = (&slots, &drops);
                    n.spawn(async move {
                        let _probe = drops.probe();
                        let _wakes = OnDrop(|| {
                            // While it is destroyed, it wakes its siblings and itself.
                            for slot in slots {
                                let waker = slot.lock().unwrap().take();
                                if let Some(waker) = waker {
                                    waker.wake_by_ref();
                                    drop(waker.clone());
                                    waker.wake();
                                }
                            }
                        });
                        for _ in 0..=i {
                            poll_fn(|cx| {
                                let next = &slots[(i + 1) % 3];
                                drop(slots[i].lock().unwrap().replace(cx.waker().clone()));
                                let waker = next.lock().unwrap().take();
                                waker.map_or(Poll::Pending, |waker| {
                                    waker.wake();
                                    Poll::Ready(())
                                })
                            })
                            .await;
                        }
                        never::<()>().await
                    });
                }
                never().await
            });
            drop(turns(Box::pin(open), k).await);
        });
        drops.assert_all();
    }
}

/// A waker that a waiter was polled with and did not need is of no use to its next poll; it is not dropped under the lock of the queue.
#[test]
fn a_waker_that_was_not_needed_goes_outside_of_the_lock() {
    let _watchdog = Watchdog::new();
    run(async {
        let queue = Arc::new(trefoil_runtime::WaitQueue::<bool, (), 1>::new(true));
        let wait = trefoil_runtime::Wait::new(trefoil_runtime::Reason::Custom("a turn"));
        let mut waiter = Box::pin(queue.waiter());
        let look = |state: &mut trefoil_runtime::Guard<'_, bool, (), 1>| match std::mem::take(&mut **state) {
            true => trefoil_runtime::Turn::Ready(()),
            false => trefoil_runtime::Turn::Wait(0, None),
        };
        let dropped = Arc::new(AtomicUsize::new(0));
        let (of, count) = (queue.clone(), dropped.clone());
        let foreign = Hooks {
            drop: Some(Box::new(move || {
                let _looks = of.lock();
                count.fetch_add(1, SeqCst);
            })),
            ..Hooks::default()
        }
        .waker();
        assert!(waiter.as_mut().poll(&mut Context::from_waker(&foreign), wait, look).is_ready());
        assert!(poll_fn(|cx| Poll::Ready(waiter.as_mut().poll(cx, wait, look))).await.is_pending());
        assert_eq!(dropped.load(SeqCst), 1);
    });
}
