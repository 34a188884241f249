//! Which task failed with which error, wherever that goes: N15.

use std::cell::RefCell;
use std::fmt;
use std::future::ready;
use std::io;
use trefoil_nursery::{
    CancelAware, Cancelled, ErrorGroup, FailedBy, Failure, Started, checkpoint, first_success, local_nursery,
    move_on_after, nursery, sleep_forever, with_cleanup,
};
use trefoil_tests::{ms, run_virtual};

/// N15: services have names, and children that were started and waited for.
#[test]
fn n15_services_and_children_that_were_started_have_names() {
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
        assert!(who.starts_with("task `config 0` (who_failed.rs:") && who.ends_with(')'), "{who}");
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
        assert!(said.starts_with("reading the configuration: task who_failed.rs:"), "{said}");
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
        let expected = ["left: 1", "child in who_failed.rs: 2", "inner: 3 (and 1 more: 4)", "body in who_failed.rs: 5"];
        let mut found = failures(&group);
        // The body is polled first or last of a turn.
        found.sort_by_key(|text| text.chars().find(char::is_ascii_digit));
        assert_eq!(found, expected);
        let text = format!("{group:#}");
        let (left, body) =
            (format!("task `left` (who_failed.rs:{}): 1", line + 4), format!("body of who_failed.rs:{}: 5", line + 1));
        let inner = format!(
            "task `inner` (who_failed.rs:{}): task `deep` (who_failed.rs:{}): 3 (and 1 more: task `deeper`",
            line + 6,
            line + 9
        );
        for part in [&left, &body, &inner, &format!("task who_failed.rs:{}: 2", line + 5)] {
            assert!(text.contains(part.as_str()), "{part}\n{text}");
        }
        assert!(
            format!("{group:?}").contains(&format!("task `left` (who_failed.rs:{}): Custom", line + 4)),
            "{group:?}"
        );
        assert!(!group.to_string().contains("who_failed.rs"), "{group}");
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
        assert!(format!("{group:#}").contains("task `late` (who_failed.rs:"), "{group:#}");
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
                "body in who_failed.rs: 2",
                "clean-up in who_failed.rs: timed out: the deadline passed before the work was done",
                "clean-up in who_failed.rs: 1"
            ]
        );
        let group = first_success((ready(Err::<(), _>(other("1"))), ready(Err(other("2"))))).await.unwrap_err();
        assert_eq!(failures(&group), ["branch 1: 1", "branch 2: 2"]);
    });
}
