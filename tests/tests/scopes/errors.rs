//! Errors and panics of several tasks: N9, N15, R27, R31, R59–R61.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::ready;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use trefoil_nursery::{
    CancelAware, Cancelled, CancelledOrTimedOut, ErrorGroup, FailedBy, Failure, Started, checkpoint, fail_after,
    first_success, join, local_nursery, move_on_after, nursery, race, shield, sleep, sleep_forever, with_cleanup,
    yield_now,
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

/// N15: so do services, and children that were started and waited for.
#[test]
fn n15_services_and_children_that_were_started_have_names_as_well() {
    let name = |group: &ErrorGroup<io::Error>| group.failures()[0].by.as_ref().unwrap().name().map(String::from);
    run_virtual(async || {
        let failed = nursery(async |n| -> io::Result<()> {
            n.service_named("log", async { Err(io::Error::other("the disk is full")) });
            Ok(sleep_forever().await?)
        });
        assert_eq!(name(&failed.await.unwrap_err()).as_deref(), Some("log"));
        let failed = local_nursery(async |n| -> io::Result<()> {
            n.service_named("log", sleep_forever_then_fail());
            let started = n.start_named(String::from("server"), async |started: Started<'_, u16>| {
                started.ready(80);
                Err(io::Error::other("the port is gone"))
            });
            assert_eq!(started.await?, 80);
            Ok(sleep_forever().await?)
        });
        let group = failed.await.unwrap_err();
        assert_eq!((name(&group).as_deref(), group.len()), (Some("server"), 2));
        let failed = nursery(async |n| -> io::Result<()> {
            n.start_named("server", async |started: Started<'_, ()>| {
                started.ready(());
                Err(io::Error::other("the port is gone"))
            })
            .await
        });
        assert_eq!(name(&failed.await.unwrap_err()).as_deref(), Some("server"));
    });
    async fn sleep_forever_then_fail() -> io::Result<()> {
        sleep_forever().await.or(Err(io::Error::other("not flushed")))
    }
}

/// N15: what `?` makes of the errors of nurseries in nurseries says who failed in all of them. Kind and text are as they were.
#[test]
fn n15_an_io_error_that_went_through_nurseries_says_whose_it_was() {
    async fn inner() -> io::Result<()> {
        nursery(async |n| -> io::Result<()> {
            n.spawn_named("writer", async { Err::<(), _>(io::Error::from_raw_os_error(28)) });
            Ok(())
        })
        .await?;
        Ok(())
    }
    run_virtual(async || {
        let outer = nursery(async |n| -> io::Result<()> {
            n.spawn_named("disk", inner());
            Ok(())
        });
        let error = io::Error::from(outer.await.unwrap_err());
        assert_eq!((error.kind(), error.is_cancelled()), (io::ErrorKind::StorageFull, false));
        assert_eq!(error.to_string(), io::Error::from_raw_os_error(28).to_string());
        let shown = format!("{error:?}");
        assert!(shown.contains("task `disk` (") && shown.contains("task `writer` ("), "{shown}");
        // Who wants to know the number looks into the group; of a copy, too.
        let copy = error.to_copy().unwrap();
        for error in [error, copy] {
            assert!(format!("{error:?}").contains("task `writer` ("));
            let group = error.downcast::<ErrorGroup<io::Error>>().unwrap();
            let group = group.into_first().downcast::<ErrorGroup<io::Error>>().unwrap();
            assert_eq!(group.first().raw_os_error(), Some(28));
        }
    });
}

/// N15: nor does a chain of causes, which is what `anyhow` prints, end at the group.
#[test]
fn n15_a_chain_of_causes_says_who_failed_and_why() {
    fn config() -> anyhow::Result<()> {
        Err(anyhow::Error::new(io::Error::other("no such file")).context("reading the configuration"))
    }
    async fn inner(errors: usize) -> anyhow::Result<()> {
        nursery(async |n| -> anyhow::Result<()> {
            for i in 0..errors {
                n.spawn_named(format!("config {i}"), async { config() });
            }
            Ok(())
        })
        .await?;
        Ok(())
    }
    run_virtual(async || {
        let one = inner(1).await.unwrap_err();
        let [group, who, what, why] = one.chain().map(ToString::to_string).collect::<Vec<_>>().try_into().unwrap();
        assert_eq!((group, &*why), (what, "no such file"));
        assert!(who.starts_with("task `config 0` (errors.rs:") && who.ends_with(')'), "{who}");
        // What was returned, and what it wraps, is found as it would be without a nursery.
        let bare = nursery(async |n| -> anyhow::Result<()> {
            n.spawn(async { Err::<(), _>(io::Error::other("no such file").into()) });
            Ok(())
        });
        for error in [one, bare.await.unwrap_err().into()] {
            assert!(error.chain().any(|error| error.is::<io::Error>()), "{error:?}");
        }
        // As an `io::Error`, whose causes are those of what it wraps.
        let wrapped = nursery(async |n| -> io::Result<()> {
            n.spawn(async { Err::<(), _>(io::Error::other(config().unwrap_err())) });
            Ok(())
        });
        let wrapped = anyhow::Error::new(io::Error::from(wrapped.await.unwrap_err()));
        let said = format!("{wrapped:#}");
        assert!(said.starts_with("reading the configuration: task errors.rs:"), "{said}");
        assert!(said.ends_with(": reading the configuration: no such file"), "{said}");
        let two = inner(2).await.unwrap_err();
        let both = two.chain().nth(1).unwrap().to_string();
        assert!(both.starts_with("[task `config 0` (") && both.contains("; task `config 1` ("), "{both}");
        assert!(both.ends_with(']') && both.matches(": no such file").count() == 2, "{both}");
        // In a group of several each is told from what is in the others.
        let nested = nursery(async |n| -> anyhow::Result<()> {
            n.spawn_named("left", inner(2));
            n.spawn_named("right", async { Err::<(), _>(anyhow::anyhow!("late")) });
            Ok(())
        });
        let nested = anyhow::Error::from(nested.await.unwrap_err()).chain().nth(1).unwrap().to_string();
        assert!(nested.contains(": late; task `left` (") && nested.ends_with(": no such file]]"), "{nested}");
        // Through another nursery, and as a box: all the names are there.
        let outer = nursery(async |n| -> anyhow::Result<()> {
            n.spawn_named("outer", inner(1));
            Ok(())
        });
        let outer = anyhow::Error::from(outer.await.unwrap_err());
        let said = format!("{outer:#}");
        assert!(
            said.contains("task `outer` (") && said.contains("task `config 0` (") && said.contains("no such file"),
            "{said}"
        );
        assert!(!outer.is_cancelled());
        // A cancellation is one, however deep it is.
        let told = nursery(async |n| -> anyhow::Result<()> {
            n.spawn(async { Ok(sleep_forever().await?) });
            n.spawn(async { Ok(sleep_forever().await?) });
            Ok(())
        });
        let told = move_on_after(ms(1), async { Ok::<_, anyhow::Error>(told.await?) });
        assert!(told.await.unwrap().is_none());
    });
}

/// What failed, as `name: error`, without the places.
fn failures<E: fmt::Display>(group: &ErrorGroup<E>) -> Vec<String> {
    let who = |failure: &Failure<E>| match &failure.by {
        Some(FailedBy::Task { name: Some(name), .. }) => name.to_string(),
        Some(FailedBy::Task { place, .. }) => format!("child in {}", file(place)),
        Some(FailedBy::Body(place)) => format!("body in {}", file(place)),
        Some(FailedBy::CleanUp(place)) => format!("clean-up in {}", file(place)),
        failed => format!("{failed:?}"),
    };
    group.failures().iter().map(|failure| format!("{}: {failure}", who(failure))).collect()
}

fn file(place: &std::panic::Location<'_>) -> String {
    place.file().rsplit('/').next().unwrap().to_owned()
}

#[test]
fn n15_each_error_says_which_task_failed_with_it() {
    let other = io::Error::other::<&str>;
    run_virtual(async || {
        let line = line!();
        let group = nursery(async |n| -> io::Result<()> {
            // Cancelled by what comes next; that is not in the group, and the others keep what is theirs.
            n.spawn_named("cancelled", async { Ok(sleep_forever().await?) });
            n.spawn_named("left", async move { Err::<(), _>(other("1")) });
            n.spawn(async move { Err::<(), _>(other("2")) });
            n.spawn_named("inner", async move {
                // Its group goes into the error of its task.
                Ok(nursery(async |n| -> io::Result<()> {
                    n.spawn_named("deep", async move { Err::<(), _>(other("3")) });
                    n.spawn_named("deeper", async move { Err::<(), _>(other("4")) });
                    Ok(())
                })
                .await?)
            });
            checkpoint().await.unwrap_err();
            Err(other("5"))
        })
        .await
        .unwrap_err();
        let expected = ["left: 1", "child in errors.rs: 2", "inner: 3 (and 1 more: 4)", "body in errors.rs: 5"];
        let mut found = failures(&group);
        // The body is polled first or last of a turn.
        found.sort_by_key(|text| text.chars().find(char::is_ascii_digit));
        assert_eq!(found, expected);
        let text = format!("{group:#}");
        let (left, body) =
            (format!("task `left` (errors.rs:{}): 1", line + 4), format!("body of errors.rs:{}: 5", line + 1));
        let inner = format!(
            "task `inner` (errors.rs:{}): task `deep` (errors.rs:{}): 3 (and 1 more: task `deeper`",
            line + 6,
            line + 9
        );
        for part in [&left, &body, &inner, &format!("task errors.rs:{}: 2", line + 5)] {
            assert!(text.contains(part.as_str()), "{part}\n{text}");
        }
        assert!(format!("{group:?}").contains(&format!("task `left` (errors.rs:{}): Custom", line + 4)), "{group:?}");
        assert!(!group.to_string().contains("errors.rs"), "{group}");
        assert_eq!(
            group.into_iter().map(|error| error.to_string().len()).sum::<usize>(),
            3 + "3 (and 1 more: 4)".len()
        );
    });
}

#[test]
fn n15_a_cancellation_that_all_are_told_is_nobodys() {
    let other = io::Error::other::<&str>;
    let groups: RefCell<Vec<ErrorGroup<io::Error>>> = RefCell::default();
    run_virtual(async || {
        let told = async || Ok::<(), io::Error>(sleep_forever().await?);
        let bodies = async {
            let in_nursery = nursery(async |n| {
                n.spawn_named("innocent", told());
                Ok(())
            });
            let in_nursery = in_nursery.await.err();
            let in_choice = first_success((told(), told())).await.err();
            let in_block = with_cleanup(ms(1), async |_| told().await).await.err();
            groups.borrow_mut().extend([in_nursery, in_choice, in_block].into_iter().flatten());
            Ok::<(), io::Error>(checkpoint().await?)
        };
        assert!(matches!(move_on_after(ms(1), bodies).await, Ok(None)));
        let groups = groups.take();
        assert_eq!(groups.len(), 3);
        for group in groups {
            assert!(
                group.is_cancelled() && failures(&group).iter().all(|text| text.starts_with("None: ")),
                "{group:?}"
            );
        }
        // One that nobody caused is an error of who made it up (N14).
        let made_up = || async { Err::<(), _>(io::Error::from(Cancelled::delivered())) };
        let group = nursery(async |n| {
            n.spawn_named("liar", made_up());
            n.spawn_named("late", async move {
                _ = sleep_forever().await;
                Err::<(), _>(other("late"))
            });
            Ok(())
        });
        let group = group.await.unwrap_err();
        assert!(format!("{group:#}").contains("task `late` (errors.rs:"), "{group:#}");
        assert_eq!(
            group.failures().iter().map(|of| of.by.as_ref().unwrap().name().unwrap()).collect::<Vec<_>>(),
            ["liar", "late"]
        );
    });
}

#[test]
fn n15_blocks_with_clean_ups_and_branches_say_it_too() {
    let other = io::Error::other::<&str>;
    run_virtual(async || {
        let group = with_cleanup(ms(1), async |c| -> io::Result<()> {
            c.defer(async move { Err(other("1")) });
            c.defer(async { Ok(sleep_forever().await?) });
            Err(other("2"))
        });
        let group = group.await.unwrap_err();
        assert_eq!(
            failures(&group),
            [
                "body in errors.rs: 2",
                "clean-up in errors.rs: timed out: the deadline passed before the work was done",
                "clean-up in errors.rs: 1"
            ]
        );
        let group = first_success((ready(Err::<(), _>(other("1"))), ready(Err(other("2"))))).await.unwrap_err();
        assert_eq!(failures(&group), ["branch 1: 1", "branch 2: 2"]);
    });
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

#[test]
fn r26_a_cancellation_that_was_wrapped_is_one() {
    let cancelled = || io::Error::from(Cancelled::delivered());
    let wrapped = [
        io::Error::other(Cancelled::delivered()),
        io::Error::other(cancelled()),
        io::Error::other(Foreign(cancelled())),
        io::Error::other(Foreign(io::Error::other(Foreign(cancelled())))),
        io::Error::other(ErrorGroup::new(vec![cancelled(), cancelled()]).unwrap()),
    ];
    for error in wrapped {
        assert!(error.is_cancelled() && BoxError::from(error).is_cancelled());
    }
    let others = [
        io::Error::other("on purpose"),
        io::Error::other(Foreign(io::Error::other("on purpose"))),
        // All in a group have to be.
        io::Error::other(ErrorGroup::new(vec![cancelled(), io::Error::other("on purpose")]).unwrap()),
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
