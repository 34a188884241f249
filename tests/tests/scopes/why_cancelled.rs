//! Why was I cancelled (R5): what who receives a cancellation is told when it asks.

use std::io;
use std::panic::panic_any;
use std::time::Duration;
use trefoil::{
    CancelScope, Cancelled, Cause, Source, cancel_cause, checkpoint, fail_after, generator, join, move_on_after,
    nursery, race, shield, sleep, sleep_forever,
};
use trefoil_tests::{ms, run_virtual};

/// The text, with `FILE` for the name of this file: lines are compared, names of files are not.
fn text(cause: Option<Cause>) -> String {
    cause.expect("cancelled").to_string().replace("why_cancelled.rs", "FILE")
}

/// What an operation that waits is told, as text.
async fn told() -> Result<String, Cancelled> {
    match sleep_forever().await {
        Ok(()) => unreachable!(),
        Err(_) => Ok(text(cancel_cause())),
    }
}

#[test]
fn r5_a_call_says_which_scope_and_where_it_was_called() {
    run_virtual(async || {
        let line = line!();
        let (named, plain) = (CancelScope::named("upload"), CancelScope::new());
        for (scope, name) in [(&named, format!("`upload` (FILE:{})", line + 1)), (&plain, format!("FILE:{}", line + 1))]
        {
            let heard = nursery(async |n| -> Result<_, Cancelled> {
                let waits = n.spawn(scope.run(told()));
                checkpoint().await?;
                scope.cancel();
                waits.await
            })
            .await;
            let expected = format!("cancelled: scope {name}, by a call at FILE:{}", line!() - 4);
            assert_eq!(heard.unwrap(), Some(expected.clone()));
            // Also after it was left.
            assert_eq!(text(scope.cause()), expected);
        }
    });
}

#[test]
fn r5_a_deadline_says_by_how_much_it_was_missed() {
    run_virtual(async || {
        let heard = move_on_after(ms(10), told()).named("fetch").await.unwrap();
        let line = line!() - 1;
        assert_eq!(heard.unwrap(), format!("cancelled: the deadline of scope `fetch` (FILE:{line}) passed"));

        // Moved back behind the time that is: noticed now, late.
        let scope = CancelScope::new();
        let heard = scope
            .run(async {
                sleep(ms(50)).await?;
                scope.set_deadline(Some(trefoil::now() - ms(20)));
                assert!(scope.cancel_called());
                assert_eq!(scope.cause().unwrap().late, Some(ms(20)));
                Ok::<_, Cancelled>(text(cancel_cause()))
            })
            .await;
        let line = line!() - 10;
        let expected = format!("cancelled: the deadline of scope FILE:{line} passed, noticed 20 ms late");
        assert_eq!(heard, Ok(Some(expected)));

        // The name does not make the deadline count from anything but the first poll (R43).
        let scoped = fail_after(ms(10), sleep(ms(9))).named("later");
        sleep(ms(100)).await.unwrap();
        scoped.await.unwrap();
        let none = fail_after(Duration::ZERO, told()).named("none").await;
        assert!(none.unwrap().starts_with("cancelled: the deadline of scope `none` ("));
    });
}

#[test]
fn r5_the_siblings_of_a_child_that_failed_are_told_of_it() {
    run_virtual(async || {
        let mut heard = String::new();
        let place = line!();
        let failed = nursery(async |n| -> io::Result<()> {
            n.spawn_named("mirror", async {
                checkpoint().await?;
                Err::<(), _>(io::Error::other("404 not found"))
            });
            heard = told().await?;
            Ok(())
        })
        .named("download")
        .await;
        assert_eq!(failed.unwrap_err().to_string(), "404 not found");
        let (opened, spawned) = (place + 1, place + 2);
        assert_eq!(
            heard,
            format!(
                "cancelled: nursery `download` (FILE:{opened}), since its child `mirror` (FILE:{spawned}) failed: 404 not found"
            )
        );

        // Without names; the first counts; from further in; with a text that does not end.
        let place = line!();
        let failed = nursery(async |n| -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
            n.spawn(async { Err::<(), _>("é".repeat(1_000).into()) });
            n.spawn(async { Err::<(), _>("later".into()) });
            heard = CancelScope::new().run(told()).await?.unwrap();
            Ok(())
        })
        .await;
        assert_eq!(failed.unwrap_err().len(), 2);
        let expected = format!(
            "cancelled: nursery FILE:{}, since its child FILE:{} failed: {}…",
            place + 1,
            place + 2,
            "é".repeat(100)
        );
        assert_eq!(heard, expected);
    });
}

#[test]
fn r5_a_body_that_failed_and_a_child_that_panicked_are_told_of() {
    run_virtual(async || {
        let heard = std::sync::Mutex::new(String::new());
        let line = line!() + 1;
        let failed = nursery(async |n| -> io::Result<()> {
            n.spawn(async {
                let why = told().await?;
                *heard.lock().unwrap() = why;
                Ok(())
            });
            checkpoint().await?;
            Err(io::ErrorKind::NotFound.into())
        })
        .await;
        assert!(failed.is_err());
        let expected = format!("cancelled: nursery FILE:{line}, since its body failed: entity not found");
        assert_eq!(*heard.lock().unwrap(), expected);

        for (payload, says) in [(None, ": it broke"), (Some(7), ": (a payload that is not text)")] {
            let line = line!() + 1;
            let panics = nursery(async |n| -> Result<(), Cancelled> {
                n.spawn_named("breaks", async move {
                    match payload {
                        None => panic!("it {}", "broke"),
                        Some(n) => panic_any::<u32>(n),
                    }
                    #[allow(unreachable_code)]
                    Ok(())
                });
                let why = told().await?;
                *heard.lock().unwrap() = why;
                Ok(())
            });
            futures::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(panics)).await.expect_err("it panics");
            let who = format!("nursery FILE:{line}, since its child `breaks` (FILE:{})", line + 1);
            assert_eq!(*heard.lock().unwrap(), format!("cancelled: {who} panicked{says}"));
        }
    });
}

/// The text of an error is code of others.
#[test]
fn r5_an_error_whose_text_panics_is_told_of_without() {
    struct Broken(bool);
    impl std::fmt::Debug for Broken {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic!("no text")
        }
    }
    impl From<Cancelled> for Broken {
        fn from(_: Cancelled) -> Self {
            Broken(true)
        }
    }
    impl trefoil::CancelAware for Broken {
        fn is_cancelled(&self) -> bool {
            self.0
        }
    }
    run_virtual(async || {
        let mut heard = None;
        let failed = nursery(async |n| -> Result<(), Broken> {
            n.spawn(async { Err::<(), _>(Broken(false)) });
            let _ = sleep_forever().await;
            heard = cancel_cause();
            Ok(())
        })
        .await;
        assert!(failed.is_err_and(|group| group.len() == 1));
        let culprit = heard.unwrap().culprit.unwrap();
        assert_eq!((&*culprit.text, culprit.body, culprit.panicked), ("(an error whose text panics)", false, false));
    });
}

#[test]
fn r5_who_loses_is_told_that_it_is_not_needed() {
    run_virtual(async || {
        let loser = async {
            sleep_forever().await.map_err(|_| assert_eq!(cancel_cause().unwrap().source, Source::Enough)).unwrap_err();
            Ok::<_, Cancelled>(0)
        };
        assert_eq!(race((loser, async { Ok(1) })).await.unwrap(), 1);

        // A service; and a generator whose consumer has what it wants.
        let heard = std::sync::Mutex::new(vec![]);
        nursery(async |n| -> Result<(), Cancelled> {
            n.service(async {
                let why = told().await?;
                heard.lock().unwrap().push(why);
                Ok(())
            });
            checkpoint().await
        })
        .await
        .unwrap();
        generator(
            async |mut items: trefoil::Yielder<i32>| -> Result<(), Cancelled> {
                items.send(1).await.ok();
                let why = told().await?;
                heard.lock().unwrap().push(why);
                Ok(())
            },
            async |mut items: trefoil::Items<i32>| {
                items.next().await?;
                Ok(())
            },
        )
        .await
        .unwrap();
        let heard = heard.into_inner().unwrap();
        assert!(heard[0].starts_with("cancelled: the service in scope FILE:"), "{heard:?}");
        assert!(heard[0].ends_with(", since nobody is left who relies on it"), "{heard:?}");
        assert!(heard[1].starts_with("cancelled: nursery FILE:"), "{heard:?}");
        assert!(heard[1].ends_with(", since it has what it wanted"), "{heard:?}");
    });
}

#[test]
fn r5_a_cause_is_that_of_the_scope_it_comes_from_and_a_shield_holds_it_off() {
    run_virtual(async || {
        let outer = CancelScope::named("outer");
        let ended = outer
            .run(async {
                outer.cancel();
                let line = line!() - 1;
                let inner = CancelScope::named("inner");
                let heard = inner.run(told()).await;
                assert!(heard.is_ok(), "the body has the value, and not the error");
                shield(async { assert!(cancel_cause().is_none()) }).await;
                let cause = inner.cause().unwrap();
                assert_eq!((cause.scope.name.as_deref(), cause.place.line()), (Some("outer"), line));
                heard.map(Option::unwrap)
            })
            .await;
        let heard = ended.unwrap().unwrap();
        assert!(heard.starts_with("cancelled: scope `outer` ("), "{heard}");
        // Nobody is told anything where nothing is cancelled.
        let both =
            join((async { Ok::<_, Cancelled>(cancel_cause().is_none()) }, async { Ok(outer.cause().is_some()) }));
        assert_eq!(both.await.unwrap(), (true, true));
    });
}
