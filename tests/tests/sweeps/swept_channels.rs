//! What is handed over: items, values, changes, streams and generators. R36, R101, N6.

use super::{Counted, sweep};
use futures::{SinkExt, StreamExt};
use std::cell::{Cell, RefCell};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use trefoil_nursery::{Cancelled, Items, SendError, channel, checkpoint, generator, local_nursery, sleep, sync};
use trefoil_tests::{Ended, ms};

#[test]
fn r36_items_received() {
    for capacity in [0, 1, 3] {
        sweep(2, async |cut| {
            let (tx, rx) = channel(capacity);
            let rest = rx.clone();
            let got = RefCell::new(Vec::new());
            let take = async |rx: trefoil_nursery::Receiver<u32>| -> Ended {
                while let Some(item) = rx.recv().await? {
                    got.borrow_mut().push(item);
                }
                Ok(())
            };
            local_nursery(async |n| -> Ended {
                n.spawn(async move {
                    for item in 0..6 {
                        tx.send(item).await.map_err(|_| Cancelled::delivered())?;
                        if item % 2 == 0 {
                            sleep(ms(1)).await?;
                        }
                    }
                    Ok(())
                });
                // Another receiver, so that a hand-off can go on to somebody.
                n.spawn(take(rx.clone()));
                cut.run(take(rx)).await.map(drop)
            })
            .await
            .unwrap();
            let mut got = got.into_inner();
            // What was handed to a receiver that was dropped when the other had gone, as it saw that nothing more would come.
            got.extend(std::iter::from_fn(|| rest.try_recv().ok()));
            got.sort();
            assert_eq!(got, [0, 1, 2, 3, 4, 5]);
        });
    }
}

#[test]
fn n6_items_sent() {
    for capacity in [0, 1, 3] {
        sweep(2, async |cut| {
            let (tx, rx) = channel(capacity);
            let (sent, back, got) = (Cell::new(0), Cell::new(0), RefCell::new(Vec::new()));
            local_nursery(async |n| -> Ended {
                let other = tx.clone();
                n.spawn(async move {
                    for _ in 0..3 {
                        other.send(100).await.map_err(|_| Cancelled::delivered())?;
                    }
                    Ok(())
                });
                n.spawn(async {
                    while let Some(item) = rx.recv().await? {
                        got.borrow_mut().push(item);
                        checkpoint().await?;
                    }
                    Ok(())
                });
                let sends = cut.run(async {
                    for item in 0..4 {
                        match tx.send(item).await {
                            Ok(()) => sent.set(sent.get() + 1),
                            Err(SendError::Cancelled(cancelled, item)) => {
                                back.set(back.get() + 1);
                                assert_eq!(item, sent.get());
                                return Err(cancelled);
                            }
                            Err(other) => unreachable!("{other:?}"),
                        }
                    }
                    Ok(())
                });
                sends.await?;
                drop(tx);
                Ok(())
            })
            .await
            .unwrap();
            let got = got.into_inner();
            assert_eq!(got.iter().filter(|&&item| item == 100).count(), 3);
            let mine: Vec<u32> = got.into_iter().filter(|&item| item != 100).collect();
            assert!(mine.iter().copied().eq(0..mine.len() as u32), "in order, once: {mine:?}");
            // What was told to have been sent was; a dropped one was told nothing about its last item.
            let sent = sent.get() as usize;
            assert!(mine.len() == sent || (mine.len() == sent + 1 && back.get() == 0), "{mine:?}, {sent}");
        });
    }
}

#[test]
fn r36_a_value_for_one() {
    sweep(1, async |cut| {
        let (tx, mut rx) = sync::oneshot();
        let mut got = None;
        local_nursery(async |n| -> Ended {
            n.spawn(async {
                sleep(ms(1)).await?;
                let _ = tx.send(7);
                Ok(())
            });
            cut.run(async {
                got = rx.recv().await?;
                Ok::<_, Cancelled>(())
            })
            .await?;
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(got.or(rx.try_recv()), Some(7));
    });
}

/// R101: what was made and not looked at stays where it is.
#[test]
fn r101_items_that_are_made_on_demand() {
    sweep(2, async |cut| {
        let (made, got) = (Cell::new(0), RefCell::new(Vec::new()));
        generator(
            async |mut out| -> io::Result<()> {
                for item in 0..4 {
                    made.set(made.get() + 1);
                    if item % 2 == 0 {
                        sleep(ms(1)).await?;
                    }
                    out.send(item).await?;
                }
                Ok(())
            },
            async |mut items| -> io::Result<()> {
                let take = async |items: &mut Items<u32>| -> Ended {
                    while let Some(item) = items.next().await? {
                        got.borrow_mut().push(item);
                        assert_eq!(made.get(), got.borrow().len(), "nothing is made in advance");
                    }
                    Ok(())
                };
                cut.run(take(&mut items)).await?;
                Ok(take(&mut items).await?)
            },
        )
        .await
        .unwrap();
        assert_eq!(*got.borrow(), [0, 1, 2, 3]);
    });
}

/// A change that was not reported is still one.
#[test]
fn r36_changes() {
    sweep(1, async |cut| {
        let (tx, mut rx) = sync::watch(0);
        let seen = Cell::new(0);
        local_nursery(async |n| -> Ended {
            n.spawn(async move {
                sleep(ms(1)).await?;
                tx.set(7);
                sleep(ms(1)).await
            });
            let watch = async |rx: &mut sync::WatchReceiver<u32>| -> Ended {
                while seen.get() != 7 && rx.changed().await? {
                    seen.set(*rx.get());
                }
                Ok(())
            };
            cut.run(watch(&mut rx)).await?;
            watch(&mut rx).await
        })
        .await
        .unwrap();
        assert_eq!(seen.get(), 7);
    });
}

#[test]
fn r36_streams_and_sinks() {
    sweep(2, async |cut| {
        let alive = AtomicUsize::new(0);
        let (tx, rx) = channel(1);
        let (tx2, rx2) = channel(1);
        local_nursery(async |n| -> Ended {
            n.spawn(async {
                for _ in 0..3 {
                    tx.send(Counted::new(&alive)).await.map_err(|_| Cancelled::delivered())?;
                }
                drop(tx);
                Ok(())
            });
            let mut here = vec![];
            n.spawn(async {
                // What comes out at the other end.
                let mut stream = std::pin::pin!(rx2.stream());
                let mut arrived = 0;
                while let Some(item) = stream.next().await {
                    drop(item?);
                    arrived += 1;
                }
                assert!(arrived <= 3);
                Ok(())
            });
            let forwarded = cut
                .run(async {
                    let mut sink = std::pin::pin!(tx2.clone().into_sink());
                    let mut stream = std::pin::pin!(rx.stream());
                    while let Some(item) = stream.next().await {
                        sink.send(item.map_err(io::Error::from)?).await.map_err(io::Error::from)?;
                    }
                    sink.close().await.map_err(io::Error::from)
                })
                .await;
            forwarded.unwrap();
            drop(tx2);
            while let Some(item) = rx.recv().await? {
                here.push(item);
            }
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(alive.load(Ordering::Relaxed), 0);
    });
}
