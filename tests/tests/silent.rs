//! What goes wrong without a word elsewhere, and how it is heard of here: the rows of `book/src/silent_failures.md` by number. Many of them are
//! pinned by tests of what they are about, which that table names.

use std::io;
use std::pin::pin;
use trefoil::sync::oneshot;
use trefoil::{
    Builder, CancelScope, Cancelled, DriverKind, Event, Source, TaskView, checkpoint, first_success, join,
    local_nursery, move_on_after, nursery, race, shield_for, sleep, sleep_forever, tree, with_cleanup, yield_now,
};
use trefoil_tests::{Ended, Log, ms, panic_of, poll_once, run_real, run_virtual};

/// What is said meanwhile.
fn said<T>(during: impl FnOnce() -> T) -> (Vec<String>, T) {
    let log = Log::default();
    let output = during();
    let lines = log.lines().clone();
    (lines, output)
}

/// That each of some runs on another driver said the same, which has all of these parts in it.
#[track_caller]
fn assert_said(lines: &[String], times: usize, parts: &[&str]) {
    let with_all = lines.iter().filter(|line| parts.iter().all(|part| line.contains(part))).count();
    assert_eq!(with_all, times, "{parts:?} in {lines:#?}");
}

/// A name in this file.
fn at(line: u32) -> String {
    format!("silent.rs:{line}")
}

/// On how many drivers a test runs; counted, since some may not be there.
fn counting<T>(runs: &mut usize, mut main: impl AsyncFnMut() -> T) -> T {
    run_virtual(async || {
        *runs += 1;
        main().await
    })
}

/// Nobody holds it, and it is not awaited: in Python it may be collected half way. Here it is the nursery that ends it, and who drops a nursery
/// that has children hears of it.
#[test]
fn silent_01_a_nursery_that_is_dropped_with_live_children_is_reported() {
    let (mut runs, base) = (0, line!());
    let (lines, ()) = said(|| {
        counting(&mut runs, async || {
            let mut dropped = Box::pin(
                local_nursery(async |n| -> Ended {
                    // base + 5
                    for _ in 0..3 {
                        n.spawn(sleep_forever());
                    }
                    sleep_forever().await
                })
                .named("uploads"),
            );
            assert!(poll_once(dropped.as_mut()).await.is_pending());
        });
    });
    assert_said(
        &lines,
        runs,
        &["was dropped with live children", "children=3", &format!("nursery `uploads` ({})", at(base + 4))],
    );
    assert_eq!(lines.len(), runs, "{lines:?}");
}

/// In Python it is said when the task is collected, or never.
#[test]
fn silent_02_an_error_whose_nursery_is_dropped_is_reported_once() {
    let (mut runs, base) = (0, line!());
    let (lines, ()) = said(|| {
        counting(&mut runs, async || {
            let mut dropped = Box::pin(
                local_nursery(async |n| -> io::Result<()> {
                    // base + 4
                    drop(n.spawn(async { Err::<(), _>(io::Error::other("404 not found")) }));
                    drop(n.spawn(async { Err::<(), _>(io::Error::other("502 bad gateway")) }));
                    // What the body awaits is foreign, and so is nothing of the nursery's.
                    shield_for(ms(1), sleep_forever()).await?;
                    Ok(())
                })
                .named("mirrors"),
            );
            for _ in 0..2 {
                assert!(poll_once(dropped.as_mut()).await.is_pending());
                yield_now().await;
            }
        });
    });
    let who = format!("nursery `mirrors` ({})", at(base + 4));
    assert_said(&lines, runs, &["an error of a nursery that was dropped", "404 not found", &who]);
    assert_said(&lines, runs, &["an error of a nursery that was dropped", "502 bad gateway", &who]);
}

/// The same for the other blocks that run futures side by side.
#[test]
fn silent_02_an_error_whose_race_or_join_is_dropped_is_reported_once() {
    async fn fails() -> io::Result<()> {
        Err(io::Error::other("404 not found"))
    }
    async fn is_told_and_takes_its_time() -> io::Result<()> {
        let _ = shield_for(ms(10), sleep_forever()).await;
        Ok(())
    }
    for which in 0..4 {
        let mut runs = 0;
        let (lines, ()) = said(|| {
            counting(&mut runs, async || {
                let mut dropped: std::pin::Pin<Box<dyn Future<Output = ()>>> = match which {
                    0 => Box::pin(async { drop(race((fails(), is_told_and_takes_its_time())).await) }),
                    1 => Box::pin(async { drop(first_success((fails(), is_told_and_takes_its_time())).await) }),
                    2 => Box::pin(async { drop(join((fails(), is_told_and_takes_its_time())).await) }),
                    _ => Box::pin(async {
                        let block = with_cleanup(ms(100), async |cleanup| -> io::Result<()> {
                            cleanup.defer(is_told_and_takes_its_time());
                            fails().await
                        });
                        drop(block.await);
                    }),
                };
                for _ in 0..2 {
                    assert!(poll_once(dropped.as_mut()).await.is_pending());
                    yield_now().await;
                }
            });
        });
        assert_said(&lines, runs, &["404 not found", &at(0)[..10]]);
    }
}

/// A task that keeps a cancellation to itself ends "fine" in Python, and its group waits.
#[test]
fn silent_08_a_swallowed_cancellation_is_told_again_and_then_reported_once() {
    let (mut runs, base) = (0, line!());
    let (lines, ()) = said(|| {
        counting(&mut runs, async || {
            let done = Event::new();
            local_nursery(async |n| -> Ended {
                n.spawn_named("stubborn", async {
                    while !done.is_set() {
                        let _ = checkpoint().await; // base + 7
                    }
                    Ok(())
                });
                yield_now().await;
                n.cancel();
                Ok(())
            })
            .await
            .unwrap();
        });
    });
    assert_said(
        &lines,
        runs,
        &["cancellation swallowed", "the task is dropped", &format!(":{}", base + 7), "task=`stubborn` ("],
    );
    assert_eq!(lines.len(), runs, "{lines:?}");
}

/// A cancel of who waits is passed on to what it waits for in Python, and from there to all others who wait for it.
#[test]
fn silent_11_a_cancelled_wait_harms_neither_the_child_nor_who_else_waits() {
    run_virtual(async || {
        let loaded = Event::new();
        local_nursery(async |n| -> Ended {
            let mut child = n.spawn(async {
                sleep(ms(10)).await?;
                loaded.set();
                Ok(7)
            });
            assert_eq!(move_on_after(ms(1), &mut child).await, Ok(None));
            n.spawn(async { move_on_after(ms(20), loaded.wait()).await.map(|waited| assert!(waited.is_some())) });
            assert_eq!(child.await?, 7);
            Ok(())
        })
        .await
        .unwrap();
    });
}

/// In Python a timeout whose cancellation the body swallows has not happened.
#[test]
fn silent_12_a_deadline_that_the_body_swallowed_can_be_seen() {
    run_virtual(async || {
        let scope = CancelScope::new();
        scope.set_deadline(Some(trefoil::now() + ms(5)));
        let value = scope.run(async {
            let _ = sleep_forever().await;
            Ok::<_, Cancelled>("fine")
        });
        assert_eq!(value.await, Ok(Some("fine")));
        assert!(scope.cancel_called() && !scope.cancelled_caught());
        assert_eq!(scope.cause().unwrap().source, Source::Deadline);
    });
}

/// In Python it waits for ever.
#[test]
fn silent_18_a_value_that_nobody_will_send_ends_the_wait() {
    run_virtual(async || {
        let (sender, mut receiver) = oneshot::<u8>();
        local_nursery(async |n| -> Ended {
            n.spawn(async move {
                sleep(ms(1)).await?;
                drop(sender);
                Ok(())
            });
            assert_eq!(receiver.recv().await, Ok(None));
            Ok(())
        })
        .await
        .unwrap();
    });
}

/// The interrupt takes the place of the errors of the others in Python. A panic goes first here as well, and the errors are in the log, and
/// the panics that came later.
#[test]
fn silent_36_errors_and_panics_beside_a_panic_are_reported() {
    async fn fails(text: &'static str) -> io::Result<()> {
        let _ = sleep_forever().await;
        Err(io::Error::other(text))
    }
    async fn panics(text: &'static str) -> io::Result<()> {
        checkpoint().await?;
        panic!("{text}")
    }
    async fn panics_late(text: &'static str) -> io::Result<()> {
        let _ = sleep_forever().await;
        panic!("{text}")
    }
    let base = line!();
    for which in 0..4 {
        let mut runs = 0;
        let (lines, message) = said(|| {
            panic_of(|| {
                counting(&mut runs, async || {
                    let _ = match which {
                        0 => local_nursery(async |n| {
                            n.spawn_named("a", fails("beside"));
                            n.spawn_named("b", panics("first"));
                            n.spawn_named("c", panics_late("second"));
                            Ok(())
                        })
                        .named("all three")
                        .await
                        .map_err(io::Error::from),
                        1 => race((fails("beside"), panics("first"), panics_late("second"))).await.map_err(Into::into),
                        2 => {
                            let all = join((fails("beside"), panics("first"), panics_late("second"))).await;
                            all.map(drop).map_err(Into::into)
                        }
                        _ => {
                            let block = with_cleanup(ms(100), async |cleanup| -> io::Result<()> {
                                cleanup.defer(async { Err(io::Error::other("beside")) });
                                cleanup.defer(async { panic!("second") });
                                checkpoint().await?;
                                panic!("first")
                            });
                            block.await.map(drop).map_err(Into::into)
                        }
                    };
                })
            })
        });
        assert_eq!((message.as_str(), runs), ("first", 1), "{which}");
        assert_said(&lines, 1, &["an error beside the panic that ends its", "beside", "silent.rs:"]);
        assert_said(&lines, 1, &["second", "while another panic waits", "silent.rs:"]);
        if which == 0 {
            assert_said(&lines, 1, &["beside the panic", &format!("nursery `all three` ({})", at(base + 7))]);
            assert_said(&lines, 1, &["second", "task=`c` ("]);
        }
    }
}

/// N9: that the others were cancelled for the panic is no error beside it, and is not said. One that somebody made up is (N14).
#[test]
fn n9_those_that_were_cancelled_for_a_panic_are_not_reported() {
    async fn panics(when_cancelled: bool) -> Ended {
        let slept = move_on_after(ms(1), sleep_forever()).await;
        assert_eq!(slept.is_err(), when_cancelled);
        panic!("first")
    }
    for which in 0..4 {
        let mut runs = 0;
        let (lines, message) = said(|| {
            panic_of(|| {
                counting(&mut runs, async || match which {
                    2 | 3 => {
                        let around = CancelScope::new();
                        if which == 2 {
                            around.cancel();
                        }
                        let block = with_cleanup(ms(100), async |cleanup| -> io::Result<()> {
                            cleanup.defer(async { panic!("first") });
                            checkpoint().await?;
                            Err(trefoil_tests::CANCELLED.into())
                        });
                        _ = around.run(block).await;
                    }
                    _ => {
                        let nursery = local_nursery(async |n| -> Ended {
                            for _ in 0..3 {
                                n.spawn(sleep_forever());
                            }
                            n.spawn(panics(which == 1));
                            if which == 1 { Err(trefoil_tests::CANCELLED) } else { sleep_forever().await }
                        });
                        _ = nursery.await;
                    }
                })
            })
        });
        assert_eq!((message.as_str(), runs), ("first", 1), "{which}");
        let made_up = usize::from(which % 2 == 1);
        assert_said(&lines, made_up, &["an error beside the panic that ends its"]);
    }
}

/// What only says that it was cancelled, for the panic, is no error.
#[test]
fn silent_36_a_cancellation_beside_a_panic_is_no_news() {
    async fn stopped() -> io::Result<()> {
        Ok(sleep_forever().await?)
    }
    async fn panics() -> io::Result<()> {
        checkpoint().await?;
        panic!("alone")
    }
    for which in 0..3 {
        let (lines, message) = said(|| {
            panic_of(|| {
                run_virtual(async || {
                    let _ = match which {
                        0 => local_nursery(async |n| {
                            n.spawn(stopped());
                            n.spawn(panics());
                            stopped().await
                        })
                        .await
                        .map_err(io::Error::from),
                        1 => race((stopped(), panics())).await.map_err(Into::into),
                        _ => {
                            let block = with_cleanup(ms(100), async |cleanup| -> io::Result<()> {
                                cleanup.defer(async { panic!("alone") });
                                stopped().await
                            });
                            move_on_after(ms(1), block).await.map(drop).map_err(Into::into)
                        }
                    };
                })
            })
        });
        assert_eq!(message, "alone", "{which}");
        assert_said(&lines, 0, &["beside the panic"]);
    }
}

/// At the end of a run: calls that were accepted, the destructor of what main holds, and an error of main beside a panic of a call.
#[test]
fn silent_36_panics_beside_the_one_that_ends_a_run_are_reported() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in a destructor");
        }
    }
    let (lines, message) = said(|| {
        panic_of(|| {
            run_virtual(async || {
                let handle = trefoil::run_handle();
                for text in ["first", "second", "third"] {
                    handle.run_soon(move || panic!("{text}")).unwrap();
                }
                let _ = sleep_forever().await;
                Bomb
            });
        })
    });
    assert_eq!(message, "first");
    for text in ["second", "third", "in a destructor"] {
        assert_said(&lines, 1, &["a panic beside the one that ends the run", text]);
    }
    assert_eq!(lines.len(), 3, "{lines:#?}");
}

/// A library for introspection has to know each combinator in Python; one that it does not know hides what is behind it.
#[test]
fn silent_44_no_combinator_hides_a_wait() {
    let base = line!();
    run_virtual(async || {
        let (one, two, three) = (Event::new(), Event::new(), Event::new());
        local_nursery(async |n| -> Ended {
            n.spawn_named("client", async {
                let first = pin!(one.wait()); // base + 5
                let others = pin!(futures::future::join(two.wait(), async { three.wait().await })); // base + 6
                futures::future::select(first, others).await;
                Ok(())
            });
            checkpoint().await?;
            checkpoint().await?;
            fn find<'a>(tasks: &'a [TaskView], name: &str) -> Option<&'a TaskView> {
                tasks.iter().find_map(|task| match task.name.as_deref() == Some(name) {
                    true => Some(task),
                    false => task.scopes.iter().find_map(|scope| find(&scope.tasks, name)),
                })
            }
            let tree = tree();
            let client = find(&tree.tasks, "client").unwrap_or_else(|| panic!("{tree}"));
            let mut lines: Vec<u32> = client.waits.iter().map(|wait| wait.place.line()).collect();
            lines.sort_unstable();
            assert_eq!(lines, [base + 5, base + 6, base + 6], "{tree}");
            n.cancel();
            Ok(())
        })
        .await
        .unwrap();
    });
}

/// What asyncio looks for in its debug mode alone is looked for here in a run that was asked for nothing.
#[test]
fn silent_45_an_ordinary_run_reports_tasks_that_wait_for_each_other() {
    for kind in [DriverKind::Epoll, DriverKind::IoUring] {
        if Builder::new().driver(kind).try_run(async {}).is_err() {
            continue;
        }
        let base = line!();
        let (lines, ()) = said(|| {
            Builder::new().driver(kind).run(async {
                let (left, right) = (trefoil::sync::Mutex::new(()), trefoil::sync::Mutex::new(()));
                nursery(async |n| -> Ended {
                    n.spawn_named("fork first", async {
                        let _left = left.lock().await?;
                        checkpoint().await?;
                        right.lock().await.map(drop) // base + 8
                    });
                    n.spawn_named("knife first", async {
                        let _right = right.lock().await?;
                        checkpoint().await?;
                        left.lock().await.map(drop) // base + 13
                    });
                    sleep(ms(1_500)).await?; // A second of patience.
                    n.cancel();
                    Ok(())
                })
                .await
                .unwrap();
            });
        });
        assert_said(
            &lines,
            1,
            &[
                "some tasks wait for each other",
                "fork first",
                "knife first",
                &format!("waits for a lock at {}", at(base + 8)),
                &format!("waits for a lock at {}", at(base + 13)),
            ],
        );
        assert_eq!(lines.len(), 1, "{lines:?}");
    }
}

/// In Python it is a line in the log, and the program ends with 0.
#[test]
fn silent_46_an_error_at_the_very_end_is_what_the_run_returns() {
    let ended = run_real(async || {
        local_nursery(async |n| -> io::Result<()> {
            n.spawn(async {
                let _ = sleep_forever().await;
                Err::<(), _>(io::Error::other("not flushed"))
            });
            checkpoint().await?;
            n.cancel();
            Ok(())
        })
        .await
    });
    assert_eq!(ended.unwrap_err().to_string(), "not flushed");
}

/// In Python the loop waits for it, without a word.
#[test]
fn silent_47_clean_up_that_hangs_is_cut_and_reported() {
    let (mut runs, base) = (0, line!());
    let (lines, ()) = said(|| {
        counting(&mut runs, async || {
            let ended = move_on_after(ms(1), async {
                let ended = sleep_forever().await;
                let _ = shield_for(ms(5), sleep_forever()).await; // base + 5
                ended
            });
            assert_eq!(ended.await, Ok(None));
        });
    });
    assert_said(&lines, runs, &["did not end within its limit", &format!("silent.rs:{}", base + 5)]);
    assert_eq!(lines.len(), runs, "{lines:?}");
}
