//! Errors and panics of several tasks: N9, N15, R27, R31, R59–R61.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use trefoil_nursery::{
    CancelAware, Cancelled, CancelledOrTimedOut, ErrorGroup, Started, TimedOut, checkpoint, fail_after, join,
    local_nursery, move_on_after, nursery, race, shield, sleep, sleep_forever, yield_now,
};
use trefoil_tests::{Log, OnDrop, Trace, ms, panic_of, poll_once, run_virtual};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, PartialEq)]
enum Nested {
    Cancelled,
    One(&'static str),
    Many(Vec<Nested>),
}
use Nested::{Many, One};

impl fmt::Display for Nested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
impl From<Cancelled> for Nested {
    fn from(_: Cancelled) -> Self {
        Nested::Cancelled
    }
}
impl From<ErrorGroup<Nested>> for Nested {
    fn from(group: ErrorGroup<Nested>) -> Self {
        Many(group.into_vec())
    }
}
impl CancelAware for Nested {
    fn is_cancelled(&self) -> bool {
        match self {
            Nested::Cancelled => true,
            One(_) => false,
            Many(all) => all.iter().all(Self::is_cancelled),
        }
    }
    fn has_cancelled(&self) -> bool {
        match self {
            Many(all) => all.iter().any(Self::has_cancelled),
            other => other.is_cancelled(),
        }
    }
    fn without_cancelled(self) -> Option<Self> {
        match self {
            Many(all) => Some(all.into_iter().filter_map(Self::without_cancelled).collect::<Vec<_>>())
                .filter(|left| !left.is_empty())
                .map(Many),
            other => (!other.is_cancelled()).then_some(other),
        }
    }
}

#[test]
fn r60_errors_of_clean_up_during_cancellation_are_kept() {
    run_virtual(async || {
        let group = local_nursery(async |n| -> Result<(), Nested> {
            n.spawn(async { Err::<(), _>(One("cause")) });
            n.spawn(async {
                let _ = sleep_forever().await;
                Err::<(), _>(One("clean-up"))
            });
            n.spawn(async {
                let _ = sleep_forever().await;
                let _ = shield(sleep(ms(5))).await;
                Err::<(), _>(One("slow clean-up"))
            });
            n.spawn(async { Ok(sleep_forever().await?) });
            Ok(())
        })
        .await
        .unwrap_err();
        assert_eq!(group.into_vec(), [One("cause"), One("clean-up"), One("slow clean-up")]);
    });
}

#[test]
fn r61_nested_nurseries_give_nested_groups() {
    run_virtual(async || {
        let group = local_nursery(async |n| -> Result<(), Nested> {
            n.spawn(async {
                local_nursery(async |inner| -> Result<(), Nested> {
                    inner.spawn(async { Err::<(), _>(One("a")) });
                    inner.spawn(async { Err::<(), _>(One("b")) });
                    Ok(())
                })
                .await?;
                Ok(())
            });
            n.spawn(async {
                let _ = sleep_forever().await;
                Err::<(), _>(One("c"))
            });
            Ok(())
        })
        .await
        .unwrap_err();
        assert_eq!(group.into_vec(), [Many(vec![One("a"), One("b")]), One("c")]);
    });
}

/// R27 inside of a nursery: the siblings' cancellations go also where they are deep in a nested group.
#[test]
fn r27_cancellations_go_at_any_depth_and_the_rest_keeps_its_nesting() {
    run_virtual(async || {
        let group = local_nursery(async |n| -> Result<(), Nested> {
            n.spawn(async {
                // In a group of its own: two that were cancelled from outside, and one that fails for it.
                local_nursery(async |inner| -> Result<(), Nested> {
                    inner.spawn(async { Ok(sleep_forever().await?) });
                    inner.spawn(async { Ok(sleep_forever().await?) });
                    inner.spawn(async {
                        let _ = sleep_forever().await;
                        Err::<(), _>(One("deep"))
                    });
                    Ok(())
                })
                .await?;
                Ok(())
            });
            n.spawn(async {
                // And one that is nothing but cancelled.
                local_nursery(async |inner| -> Result<(), Nested> {
                    inner.spawn(async { Ok(sleep_forever().await?) });
                    Ok(())
                })
                .await?;
                Ok(())
            });
            sleep(ms(1)).await?;
            Err(One("body"))
        })
        .await
        .unwrap_err();
        assert_eq!(group.into_vec(), [One("body"), Many(vec![One("deep")])]);
    });
}

#[test]
fn n15_a_group_has_the_errors_in_completion_order_without_the_siblings_cancellations() {
    run_virtual(async || {
        let group = local_nursery(async |n| -> io::Result<()> {
            for i in 0..5 {
                n.spawn(async move {
                    let _ = sleep_forever().await;
                    shield(sleep(ms(10 - i))).await?;
                    Err::<(), _>(io::Error::other(i.to_string()))
                });
                n.spawn(async { Ok(sleep_forever().await?) });
            }
            n.cancel();
            Ok(())
        })
        .await
        .unwrap_err();
        assert_eq!(group.len(), 5);
        assert_eq!(group.first().to_string(), "4");
        assert_eq!(group.to_string(), "4 (and 4 more: 3; 2; 1; 0)");
        let all: Vec<_> = group.iter().map(ToString::to_string).collect();
        assert_eq!(all, ["4", "3", "2", "1", "0"]);
    });
}

#[test]
fn n15_it_nests_or_not_as_the_error_type_says() {
    run_virtual(async || {
        // `io::Error`: one error, which has all of them in it.
        let flat: io::Result<()> = async {
            nursery(async |n| -> io::Result<()> {
                n.spawn(async { Err::<(), _>(io::Error::other("first")) });
                n.spawn(async { Err::<(), _>(io::Error::other("second")) });
                Ok(())
            })
            .await?;
            Ok(())
        }
        .await;
        let flat = flat.unwrap_err();
        assert_eq!((flat.kind(), flat.to_string()), (io::ErrorKind::Other, "first (and 1 more: second)".into()));
        assert_eq!(flat.downcast::<ErrorGroup<io::Error>>().unwrap().len(), 2);
        // A boxed error: the whole group.
        let boxed: Result<(), BoxError> = async {
            nursery(async |n| -> Result<(), BoxError> {
                n.spawn(async { Err::<(), _>("first".into()) });
                n.spawn(async { Err::<(), _>("second".into()) });
                Ok(())
            })
            .await?;
            Ok(())
        }
        .await;
        let group = boxed.unwrap_err().downcast::<ErrorGroup<BoxError>>().unwrap();
        assert_eq!(group.to_string(), "first (and 1 more: second)");
    });
}

/// R30, around what fails with a group: no block is needed that turns it into something else.
#[test]
fn r30_a_deadline_around_a_nursery_or_a_race_fails_with_timed_out() {
    run_virtual(async || {
        let hangs = nursery(async |n| -> io::Result<()> {
            n.spawn(async { Ok(sleep_forever().await?) });
            Ok(())
        });
        let late = fail_after(ms(1), hangs).await.unwrap_err();
        assert_eq!((late.len(), late.first().kind()), (1, io::ErrorKind::TimedOut));
        // An operation whose error is `Cancelled`.
        let late = fail_after(ms(1), race((sleep_forever(), sleep_forever()))).await.unwrap_err();
        assert!(matches!(late, CancelledOrTimedOut::TimedOut(_)));
        // One further out is not this one.
        let outside = move_on_after(ms(1), async {
            let told = fail_after(ms(9), race((sleep_forever(), sleep_forever()))).await;
            assert!(matches!(told, Err(CancelledOrTimedOut::Cancelled(_))));
            told
        });
        assert_eq!(outside.await, Ok(None));
        let failed =
            fail_after(ms(1), join((async { Err::<(), _>(io::Error::other("broken")) }, async { Ok(1) }))).await;
        assert_eq!(failed.unwrap_err().to_string(), "broken");
    });
}

/// No error is dropped in silence: a child has failed, `start` has not looked, and the nursery that would get the error is dropped, too (N12).
#[test]
fn n15_an_error_of_a_start_that_is_dropped_with_its_nursery_is_in_the_log() {
    run_virtual(async || {
        let log = Log::default();
        let mut dropped = Box::pin(local_nursery(async |n| -> io::Result<()> {
            n.start(async |_: Started<'_, ()>| Err(io::Error::other("lost"))).await
        }));
        // The child is spawned, and fails; its caller is woken, and does not come to look.
        for _ in 0..2 {
            assert!(poll_once(dropped.as_mut()).await.is_pending());
        }
        drop(dropped);
        let log = log.lines();
        assert!(log.iter().any(|line| line.contains("whose nursery was dropped") && line.contains("lost")), "{log:?}");
    });
}

#[test]
fn n15_a_group_is_never_empty() {
    assert!(ErrorGroup::<io::Error>::new(vec![]).is_none());
    run_virtual(async || {
        // All that there was were cancellations, and a scope outside is responsible: one travels on.
        let out = move_on_after(ms(1), async {
            let group = local_nursery(async |n| -> io::Result<()> {
                for _ in 0..10 {
                    n.spawn(async { Ok(sleep_forever().await?) });
                }
                Ok(())
            })
            .await
            .unwrap_err();
            assert_eq!((group.len(), group.is_cancelled()), (1, true));
            Err::<(), io::Error>(group.into())
        });
        assert!(out.await.unwrap().is_none());
    });
}

#[test]
fn n15_the_value_of_a_child_that_nobody_joins_is_dropped_and_its_error_is_not() {
    run_virtual(async || {
        let dropped = AtomicUsize::new(0);
        let group = local_nursery(async |n| -> io::Result<()> {
            drop(n.spawn(async { Ok(OnDrop(&dropped)) }));
            drop(n.spawn(async { Err::<(), _>(io::Error::other("unjoined")) }));
            Ok(())
        })
        .await
        .unwrap_err();
        assert_eq!((group.to_string().as_str(), dropped.load(Ordering::SeqCst)), ("unjoined", 1));
    });
}

// ---- N9: panics ----------------------------------------------------------------------------------------------------

#[test]
fn n9_a_panic_cancels_waits_for_the_siblings_and_is_resumed_with_its_payload() {
    struct Payload(u32);
    let cleaned = AtomicUsize::new(0);
    let payload = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        run_virtual(async || {
            let t = Trace::new();
            let _ = nursery(async |n| -> io::Result<()> {
                n.spawn(async {
                    let slept = sleep_forever().await;
                    shield(sleep(ms(20))).await?;
                    assert_eq!(t.ms(), 25);
                    cleaned.fetch_add(1, Ordering::SeqCst);
                    Ok(slept?)
                });
                n.spawn(async {
                    sleep(ms(5)).await?;
                    if true {
                        std::panic::panic_any(Payload(7));
                    }
                    Ok(())
                });
                sleep_forever().await?;
                Ok(())
            })
            .await;
            unreachable!("it is resumed at the nursery");
        })
    }))
    .unwrap_err();
    assert_eq!(payload.downcast::<Payload>().ok().map(|p| p.0), Some(7));
    assert_eq!(cleaned.load(Ordering::SeqCst), 1);
}

#[test]
fn n9_a_panic_can_be_caught_at_the_nursery_and_the_run_goes_on() {
    use futures::FutureExt;
    run_virtual(async || {
        let caught = std::panic::AssertUnwindSafe(local_nursery(async |n| -> io::Result<()> {
            n.spawn(async {
                if true {
                    panic!("child");
                }
                Ok(())
            });
            sleep_forever().await?;
            Ok(())
        }))
        .catch_unwind()
        .await;
        assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"child"));
        sleep(ms(1)).await.unwrap();
    });
}

#[test]
fn n9_a_panic_outranks_errors() {
    let message = panic_of(|| {
        run_virtual(async || {
            let _ = local_nursery(async |n| -> io::Result<()> {
                n.spawn(async { Err::<(), _>(io::Error::other("first")) });
                n.spawn(async {
                    let _ = sleep_forever().await;
                    if true {
                        panic!("second");
                    }
                    Ok(())
                });
                Err(io::Error::other("third"))
            })
            .await;
        })
    });
    assert_eq!(message, "second");
}

#[test]
fn n9_the_first_of_several_panics_is_resumed() {
    let message = panic_of(|| {
        run_virtual(async || {
            let _ = local_nursery(async |n| -> io::Result<()> {
                for i in 0..3 {
                    n.spawn(async move {
                        if true {
                            panic!("{i}");
                        }
                        Ok(())
                    });
                }
                panic!("body");
            })
            .await;
        })
    });
    assert_eq!(message, "body");
}

#[test]
fn n9_a_panic_in_a_destructor_of_a_child_comes_out_too() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                panic!("in drop");
            }
        }
    }
    // When the child ends, when it is cut (N13), and when it returns a value that nobody takes.
    for how in 0..3 {
        let message = panic_of(|| {
            run_virtual(async || {
                let _ = local_nursery(async |n| -> io::Result<()> {
                    drop(n.spawn(async move {
                        let bomb = Bomb;
                        match how {
                            0 => drop(bomb),
                            1 => {
                                std::future::pending::<()>().await;
                                drop(bomb);
                            }
                            _ => return Ok(Some(bomb)),
                        }
                        Ok(None)
                    }));
                    yield_now().await;
                    n.cancel();
                    Ok(())
                })
                .await;
            })
        });
        assert_eq!(message, "in drop", "{how}");
    }
}

#[test]
fn n9_a_panic_in_a_scope_or_in_main_passes_through() {
    let message = panic_of(|| {
        run_virtual(async || {
            let _ = move_on_after(ms(1), async {
                checkpoint().await?;
                if true {
                    panic!("in a scope");
                }
                Ok::<_, Cancelled>(())
            })
            .await;
        })
    });
    assert_eq!(message, "in a scope");
    // The thread's context is intact: another run works.
    run_virtual(async || sleep(ms(1)).await.unwrap());
}

#[test]
fn n9_join_of_a_child_that_panicked_is_cancelled() {
    let seen = Cell::new(None);
    let message = panic_of(|| {
        run_virtual(async || {
            let _ = local_nursery(async |n| -> io::Result<()> {
                let join = n.spawn(async {
                    if true {
                        panic!("child");
                    }
                    Ok(1)
                });
                seen.set(Some(shield(join).await));
                Ok(())
            })
            .await;
        })
    });
    assert_eq!((message.as_str(), seen.get()), ("child", Some(Err(Cancelled::delivered()))));
}

#[test]
fn n15_one_failure_of_nobody_comes_out_bare_and_no_cancellation_hides_one() {
    let cancelled = || io::Error::from(Cancelled::delivered());
    let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
    let group = |errors: Vec<io::Error>| ErrorGroup::new(errors).unwrap();
    let bare = io::Error::from(group(vec![cancelled(), io::Error::from_raw_os_error(2)]));
    assert_eq!(bare.raw_os_error(), Some(2));
    let many = io::Error::from(group(vec![cancelled(), refused(), io::Error::other("late")]));
    assert_eq!((many.kind(), many.is_cancelled()), (io::ErrorKind::ConnectionRefused, false));
    assert_eq!(many.to_string(), "connection refused (and 1 more: late)");
    assert!(io::Error::from(group(vec![cancelled(), cancelled()])).is_cancelled());
    assert_eq!(group(vec![cancelled(), refused()]).first().kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(group(vec![cancelled(), refused()]).into_first().kind(), io::ErrorKind::ConnectionRefused);
    assert!(group(vec![cancelled()]).into_first().is_cancelled());
}

/// An error of another crate, which was given our I/O.
#[derive(Debug)]
struct Foreign(io::Error);
impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "in the middle of a request: {}", self.0)
    }
}
impl std::error::Error for Foreign {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// An error that says what the group in it says, as `#[error(transparent)]` has it.
#[derive(Debug)]
struct Transparent(ErrorGroup<io::Error>);
impl fmt::Display for Transparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl std::error::Error for Transparent {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

#[test]
fn r26_a_cancellation_that_was_wrapped_is_one() {
    let cancelled = || io::Error::from(Cancelled::delivered());
    let wrapped = [
        io::Error::other(Cancelled::delivered()),
        io::Error::other(cancelled()),
        io::Error::other(Foreign(cancelled())),
        io::Error::other(Foreign(io::Error::other(Foreign(cancelled())))),
        io::Error::other(ErrorGroup::new(vec![cancelled(), cancelled()]).unwrap()),
        io::Error::other(ErrorGroup::new(vec![CancelledOrTimedOut::from(Cancelled::delivered())]).unwrap()),
        // What is in the group is all that is seen of it.
        io::Error::other(Transparent(ErrorGroup::new(vec![cancelled(), cancelled()]).unwrap())),
    ];
    for error in wrapped {
        assert!(error.is_cancelled() && BoxError::from(error).is_cancelled());
    }
    let others = [
        io::Error::other("on purpose"),
        io::Error::other(Foreign(io::Error::other("on purpose"))),
        // All in a group have to be.
        io::Error::other(ErrorGroup::new(vec![cancelled(), io::Error::other("on purpose")]).unwrap()),
        io::Error::other(Transparent(ErrorGroup::new(vec![cancelled(), io::Error::other("on purpose")]).unwrap())),
        io::Error::other(ErrorGroup::new(vec![CancelledOrTimedOut::from(TimedOut::new())]).unwrap()),
        io::Error::from_raw_os_error(4),
    ];
    for error in others {
        assert!(!error.is_cancelled() && !BoxError::from(error).is_cancelled());
    }
    run_virtual(async || {
        // The scope that was cancelled takes it.
        let out = move_on_after(ms(1), async {
            sleep_forever().await.map_err(|error| io::Error::other(Foreign(error.into())))
        });
        assert!(matches!(out.await, Ok(None)));
    });
}

#[test]
fn r27_anyhow() {
    use anyhow::Context;
    run_virtual(async || {
        let out = move_on_after(ms(1), async { sleep_forever().await.context("while it waited") }).await;
        assert!(out.unwrap().is_none());
        // A group in a group: `?` makes an `anyhow::Error` of it.
        let failed: anyhow::Result<()> = async {
            nursery(async |n| -> anyhow::Result<()> {
                n.spawn(async { sleep_forever().await.context("a sibling") });
                n.spawn(async { Err::<(), _>(anyhow::anyhow!("first")) });
                Err(anyhow::anyhow!("body"))
            })
            .await?;
            Ok(())
        }
        .await;
        let failed = failed.unwrap_err();
        assert!(!failed.has_cancelled());
        assert_eq!(failed.to_string(), "body (and 1 more: first)");
        // Cancelled from outside, with a failure beside: that alone is left.
        let mixed = move_on_after(ms(1), async {
            nursery(async |n| -> anyhow::Result<()> {
                n.spawn(async { Ok(sleep_forever().await?) });
                n.spawn(async {
                    let _ = sleep_forever().await;
                    Err::<(), _>(anyhow::anyhow!("at the end"))
                });
                Ok(())
            })
            .await
            .map_err(anyhow::Error::from)
        });
        assert_eq!(mixed.await.unwrap_err().to_string(), "at the end");
    });
}
