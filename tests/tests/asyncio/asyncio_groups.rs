//! `asyncio::task_group`, by its rules (K).

use crate::asyncio_support::{Fault, Is, Log, after, cleans_up, fails, outcome, program, task, turn, turns};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use trefoil::CancelAware;
use trefoil::asyncio::{GroupClosed, TaskBuilder, TaskGroup, current_task, sleep, task_group};
use trefoil_tests::ms;

type Group = TaskGroup<Fault>;

fn named<const N: usize>(names: [&'static str; N]) -> Fault {
    Fault::Group(names.map(Fault::Named).to_vec())
}

/// A group whose error is one of its own type.
async fn group<T>(body: impl AsyncFnOnce(Group) -> Is<T>) -> Is<T> {
    Ok(task_group(body).await?)
}

#[test]
fn aio_k01_it_waits_for_all_also_for_those_that_come_while_it_waits() {
    program(async |log| {
        let value = group(async |group: Group| {
            let more = group.clone();
            let log = log.clone();
            group.create_task(async move {
                sleep(ms(2)).await?;
                more.create_task(async move {
                    sleep(ms(3)).await?;
                    log.note("grandchild");
                    Ok(())
                })?;
                Ok(())
            })?;
            Ok("body")
        });
        assert_eq!((value.await, log.ms()), (Ok("body"), 5));
        log.expect(["5 grandchild"]);
        Ok(())
    });
}

#[test]
fn aio_k02_a_group_that_has_ended_or_is_shutting_down_refuses() {
    program(async |log| {
        let kept = RefCell::new(None);
        let ended = group(async |group: Group| {
            kept.replace(Some(group.clone()));
            group.create_task(fails(1, "no"))?;
            assert!(sleep(ms(9)).await.is_err());
            let refused = group.create_task(cleans_up(log.clone(), "never", 0, Ok(())));
            assert_eq!(refused.unwrap_err(), GroupClosed::ShuttingDown);
            Ok(())
        });
        assert_eq!(ended.await, Err(named(["no"])));
        let refused = kept.take().unwrap().create_task(after(1, ()));
        assert_eq!(refused.unwrap_err(), GroupClosed::Finished);
        Ok(())
    });
}

#[test]
fn aio_k03_k04_the_first_error_cancels_all_and_the_body_and_leaves_no_count() {
    program(async |log| {
        let ended = group(async |group: Group| {
            group.create_task(cleans_up(log.clone(), "sibling", 2, Err::<(), _>(Fault::Cancelled)))?;
            group.create_task(fails(1, "no"))?;
            let told = sleep(ms(100)).await;
            log.note("body told");
            Ok(told?)
        });
        assert_eq!(ended.await, Err(named(["no"])));
        log.expect(["1 sibling told", "1 body told", "3 sibling ends"]);
        assert_eq!(current_task().unwrap().cancelling(), 0);
        turn().await
    });
}

#[test]
fn aio_k05_errors_come_in_order_and_that_of_the_body_is_the_last() {
    program(async |_| {
        let ended = group(async |group: Group| {
            for (time, name) in [(3, "third"), (2, "second")] {
                group.create_task(async move {
                    if sleep(ms(50)).await.is_err() {
                        sleep(ms(time)).await?;
                    }
                    Err::<(), _>(Fault::Named(name))
                })?;
            }
            group.create_task(fails(1, "first"))?;
            _ = sleep(ms(100)).await;
            Err::<(), _>(Fault::Named("body"))
        });
        assert_eq!(ended.await, Err(named(["first", "second", "third", "body"])));
        Ok(())
    });
}

#[test]
fn aio_k06_a_child_that_is_cancelled_is_no_error() {
    program(async |log| {
        let value = group(async |group: Group| {
            let child = group.create_task(after(100, ()))?;
            group.create_task(async { Err::<(), _>(Fault::Cancelled) })?;
            sleep(ms(1)).await?;
            child.cancel();
            sleep(ms(1)).await?;
            Ok("body")
        });
        assert_eq!((value.await, log.ms()), (Ok("body"), 2));
        Ok(())
    });
}

#[test]
fn aio_k07_the_body_fails_and_a_child_that_has_not_begun_never_does() {
    program(async |_| {
        let begun = Rc::new(Cell::new(false));
        let note = begun.clone();
        let ended = group(async move |group: Group| {
            group.create_task(async move {
                note.set(true);
                Ok(())
            })?;
            Err::<(), _>(Fault::Named("body"))
        });
        assert_eq!((ended.await, begun.get()), (Err(named(["body"])), false));
        Ok(())
    });
}

#[test]
fn aio_k09_a_body_that_swallows_the_cancel_does_not_swallow_the_error() {
    program(async |_| {
        let ended = group(async |group: Group| {
            group.create_task(fails(1, "no"))?;
            _ = sleep(ms(100)).await;
            Ok("swallowed")
        });
        assert_eq!(ended.await, Err(named(["no"])));
        assert_eq!(current_task().unwrap().cancelling(), 0);
        Ok(())
    });
}

#[test]
fn aio_k10_k12_a_cancel_from_outside_reaches_the_children_and_more_do_not_hurry() {
    program(async |log| {
        let parent = task({
            let log = log.clone();
            async move {
                group(async |group: Group| {
                    group.create_task(cleans_up(log.clone(), "child", 10, Is::Ok(())))?;
                    Ok(())
                })
                .await
            }
        });
        for _ in 0..3 {
            sleep(ms(2)).await?;
            assert!(parent.cancel());
        }
        assert_eq!((&parent).await, Err(Fault::Cancelled));
        log.expect(["2 child told", "12 child ends"]);
        assert!(parent.cancelled());
        Ok(())
    });
}

#[test]
fn aio_k11_a_cancel_and_an_error_come_both_the_error_first() {
    program(async |_| {
        let parent = task(async move {
            let ended = group(async |group: Group| {
                group.create_task(async {
                    _ = sleep(ms(100)).await;
                    fails(0, "no").await
                })?;
                Ok(())
            });
            assert_eq!(ended.await, Err(named(["no"])));
            assert_eq!(current_task().unwrap().cancelling(), 1);
            assert_eq!(turn().await, Err(Fault::Cancelled));
            turn().await?;
            Is::Ok("went on")
        });
        sleep(ms(1)).await?;
        parent.cancel();
        assert_eq!(parent.await, Ok("went on"));
        Ok(())
    });
}

#[test]
fn aio_k13_groups_in_groups() {
    program(async |_| {
        let inner_fails = group(async |outer: Group| {
            outer.create_task(after(100, ()))?;
            group(async |inner: Group| {
                inner.create_task(fails(1, "inner"))?;
                after(100, ()).await
            })
            .await
        });
        assert_eq!(inner_fails.await, Err(Fault::Group(vec![named(["inner"])])));
        let outer_fails = group(async |outer: Group| {
            outer.create_task(fails(1, "outer"))?;
            group(async |inner: Group| {
                inner.create_task(after(100, ()))?;
                after(100, ()).await
            })
            .await
        });
        assert_eq!(outer_fails.await, Err(named(["outer"])));
        let both = group(async |outer: Group| {
            outer.create_task(fails(1, "outer"))?;
            group(async |inner: Group| {
                inner.create_task(async {
                    _ = sleep(ms(100)).await;
                    fails(1, "inner").await
                })?;
                after(100, ()).await
            })
            .await
        });
        assert_eq!(both.await, Err(Fault::Group(vec![Fault::Named("outer"), named(["inner"])])));
        assert_eq!(current_task().unwrap().cancelling(), 0);
        Ok(())
    });
}

#[test]
fn aio_k20_the_results_of_children_are_in_their_tasks() {
    program(async |_| {
        let children =
            group(async |group: Group| Ok([group.create_task(after(2, 2))?, group.create_task(after(1, 1))?]));
        let [two, one] = children.await?;
        assert_eq!((two.await, one.await), (Ok(2), Ok(1)));
        Ok(())
    });
}

#[test]
fn aio_k20_the_error_of_a_child_is_in_its_task_too() {
    program(async |_| {
        let child = RefCell::new(None);
        let ended = group(async |group: Group| {
            let failing = group.create_task(fails(1, "no"))?;
            child.replace(Some(failing.clone()));
            assert_eq!((&failing).await, Err(Fault::Cancelled));
            Ok(())
        });
        assert_eq!(ended.await, Err(named(["no"])));
        assert_eq!(child.take().unwrap().await, Err(Fault::Named("no")));
        Ok(())
    });
}

#[test]
fn aio_k10_a_group_whose_body_is_dropped_cancels_its_tasks() {
    let log = Rc::new(RefCell::new(None::<Log>));
    let seen = log.clone();
    let ended = outcome(async move |log: Log| {
        seen.replace(Some(log.clone()));
        let mut half = Box::pin(group(async |group: Group| {
            group.create_task(cleans_up(log.clone(), "child", 1, Is::Ok(())))?;
            after(100, ()).await
        }));
        assert!(futures::poll!(&mut half).is_pending());
        turns(2).await?;
        drop(half);
        sleep(ms(5)).await?;
        Is::Ok(())
    });
    assert_eq!(ended, Ok(()));
    log.take().unwrap().expect(["0 child told", "1 child ends"]);
}

#[test]
#[should_panic(expected = "boom")]
fn aio_k14_a_panic_cancels_all_and_comes_out_of_the_loop() {
    let ended = outcome(async |log: Log| {
        group(async |group: Group| {
            group.create_task(cleans_up(log, "sibling", 3, Is::Ok(())))?;
            group.create_task(async {
                turn().await?;
                panic!("boom");
                #[allow(unreachable_code)]
                Is::Ok(())
            })?;
            let told = sleep(ms(100)).await;
            assert!(told.is_err_and(|error| error.is_cancelled()));
            Ok(())
        })
        .await
    });
    unreachable!("{ended:?}");
}

#[test]
fn aio_k17_k21_a_task_of_a_group_may_have_a_name_and_begin_at_once() {
    program(async |_| {
        let ended = task_group(async |group: TaskGroup<Fault>| {
            let named = group.create_task_as(TaskBuilder::new().name("named"), turn())?;
            assert_eq!(&*named.name(), "named");
            let eager = TaskBuilder::new().eager_start(true);
            let done = group.create_task_as(eager.clone(), async { Ok(1) })?;
            assert!(done.done());
            let waits = group.create_task_as(eager.clone(), after(100, 2))?;
            assert!(!waits.done());
            // K21: it fails in `create_task`, and the group is shutting down when that returns.
            let failed = group.create_task_as(eager, async { Err::<(), _>(Fault::Named("eager")) })?;
            assert!(failed.done());
            assert_eq!(group.create_task(turn()).unwrap_err(), GroupClosed::ShuttingDown);
            assert_eq!(turn().await, Err(Fault::Cancelled));
            Ok(())
        })
        .await;
        assert_eq!(ended.map_err(Fault::from), Err(Fault::Group(vec![Fault::Named("eager")])));
        assert_eq!(trefoil::asyncio::current_task().unwrap().cancelling(), 0);
        Ok(())
    });
}

#[test]
fn aio_k08_a_child_that_is_ready_in_the_turn_of_a_failure_begins() {
    program(async |log| {
        let noted = log.clone();
        let ended = task_group(async |group: TaskGroup<Fault>| {
            group.create_task(async { Err::<(), _>(Fault::Named("first")) })?;
            group.create_task(async move {
                noted.note("second begins");
                let told = sleep(ms(100)).await;
                noted.note("second is told");
                Ok(told?)
            })?;
            Ok(sleep(ms(100)).await?)
        })
        .await;
        assert_eq!(ended.map_err(Fault::from), Err(Fault::Group(vec![Fault::Named("first")])));
        log.expect(["0 second begins", "0 second is told"]);
        Ok(())
    });
}

#[test]
fn n15_each_error_says_which_task_failed_with_it() {
    program(async |_| {
        let ended = task_group(async |group: TaskGroup<Fault>| {
            group.create_task_as(TaskBuilder::new().name("named"), async { Err::<(), _>(Fault::Named("first")) })?;
            group.create_task(async { Ok(sleep(ms(100)).await?) })?;
            _ = sleep(ms(100)).await;
            Err::<(), _>(Fault::Named("body"))
        })
        .await;
        let text = format!("{:?}", ended.unwrap_err());
        let [first, body] =
            ["task `named` (asyncio_groups.rs:", "body of asyncio_groups.rs:"].map(|who| text.find(who));
        assert!(first.is_some() && body > first && text.contains(r#"): Named("first"), body of"#), "{text}");
        Ok(())
    });
}

#[test]
fn aio_k18_a_group_is_for_a_task() {
    let panic = trefoil_tests::panic_of(|| {
        trefoil_tests::run_virtual(async || {
            let group = task_group(async |_: TaskGroup<Fault>| Ok(()));
            drop(group.await);
        });
    });
    assert!(panic.contains("no running event loop"), "{panic}");
}
