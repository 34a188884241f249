//! Which scope absorbs a cancellation, and what is left of an error: R24–R31, N14.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use trefoil_nursery::{
    CancelAware, CancelScope, Cancelled, ErrorGroup, checkpoint, fail_after, fail_at, local_nursery, move_on_after,
    shield, sleep, sleep_forever, yield_now,
};
use trefoil_tests::{CANCELLED, Ended, Trace, ms, run_virtual};

/// An error that nests groups, as Trio's do.
#[derive(Debug, PartialEq)]
enum Tree {
    Cancelled,
    Leaf(&'static str),
    Group(Vec<Tree>),
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl From<Cancelled> for Tree {
    fn from(_: Cancelled) -> Self {
        Tree::Cancelled
    }
}

impl From<ErrorGroup<Tree>> for Tree {
    fn from(group: ErrorGroup<Tree>) -> Self {
        Tree::Group(group.into_vec())
    }
}

impl CancelAware for Tree {
    fn is_cancelled(&self) -> bool {
        match self {
            Tree::Cancelled => true,
            Tree::Leaf(_) => false,
            Tree::Group(all) => all.iter().all(Tree::is_cancelled),
        }
    }

    fn has_cancelled(&self) -> bool {
        match self {
            Tree::Cancelled => true,
            Tree::Leaf(_) => false,
            Tree::Group(all) => all.iter().any(Tree::has_cancelled),
        }
    }

    fn without_cancelled(self) -> Option<Self> {
        match self {
            Tree::Cancelled => None,
            Tree::Leaf(_) => Some(self),
            Tree::Group(all) => {
                let left: Vec<_> = all.into_iter().filter_map(Tree::without_cancelled).collect();
                if left.is_empty() { None } else { Some(Tree::Group(left)) }
            }
        }
    }
}

/// Runs a body in three nested scopes; the flags `(cancel_called, cancelled_caught)` of each, outermost first.
async fn nested(body: impl AsyncFnOnce(&[CancelScope; 3]) -> Ended) -> [(bool, bool); 3] {
    let scopes: [CancelScope; 3] = std::array::from_fn(|_| CancelScope::new());
    let out = scopes[0]
        .run(async {
            scopes[1]
                .run(async {
                    scopes[2].run(body(&scopes)).await?;
                    Ok::<_, Cancelled>(())
                })
                .await?;
            Ok::<_, Cancelled>(())
        })
        .await;
    out.expect("somebody catches");
    std::array::from_fn(|i| (scopes[i].cancel_called(), scopes[i].cancelled_caught()))
}

const NO: (bool, bool) = (false, false);
const CALLED: (bool, bool) = (true, false);
const CAUGHT: (bool, bool) = (true, true);

#[test]
fn r24_outermost_visible_scope_catches() {
    run_virtual(async || {
        let only = async |which: usize| {
            nested(async move |s| {
                s[which].cancel();
                checkpoint().await
            })
            .await
        };
        assert_eq!(only(0).await, [CAUGHT, NO, NO]);
        assert_eq!(only(1).await, [NO, CAUGHT, NO]);
        assert_eq!(only(2).await, [NO, NO, CAUGHT]);
        let all = nested(async |s| {
            s.iter().for_each(CancelScope::cancel);
            checkpoint().await
        });
        assert_eq!(all.await, [CAUGHT, CALLED, CALLED]);
    });
}

#[test]
fn r24_a_shield_hides_the_outer_one_so_the_inner_one_catches() {
    run_virtual(async || {
        let flags = nested(async |s| {
            s[1].set_shield(true);
            s[0].cancel();
            s[2].cancel();
            checkpoint().await
        });
        // The innermost was cancelled and nothing outside of it is visible: the middle has its shield up.
        assert_eq!(flags.await, [CALLED, NO, CAUGHT]);
        let flags = nested(async |s| {
            s[1].set_shield(true);
            s[0].cancel();
            s[1].cancel();
            s[2].cancel();
            checkpoint().await
        });
        assert_eq!(flags.await, [CALLED, CAUGHT, CALLED]);
    });
}

/// R25, behaviour 13: decided at the exit of each scope, not where it was raised.
#[test]
fn r25_an_outer_scope_that_is_cancelled_while_it_unwinds_catches() {
    run_virtual(async || {
        let scopes: [CancelScope; 3] = std::array::from_fn(|_| CancelScope::new());
        let out = scopes[0]
            .run(async {
                scopes[1]
                    .run(async {
                        let inner = scopes[2]
                            .run(async {
                                scopes[1].cancel();
                                checkpoint().await
                            })
                            .await;
                        // The innermost was not cancelled: it lets it through.
                        assert_eq!(inner, Err(CANCELLED));
                        scopes[0].cancel();
                        inner
                    })
                    .await
            })
            .await;
        assert_eq!(out, Ok(None));
        let flags = scopes.map(|s| (s.cancel_called(), s.cancelled_caught()));
        assert_eq!(flags, [CAUGHT, CALLED, NO]);
    });
}

#[test]
fn r25_a_shield_that_comes_up_meanwhile_makes_the_inner_one_catch() {
    run_virtual(async || {
        let flags = nested(async |s| {
            s[0].cancel();
            s[2].cancel();
            let raised = checkpoint().await;
            s[2].set_shield(true);
            raised
        });
        assert_eq!(flags.await, [CALLED, NO, CAUGHT]);
    });
}

/// R25, behaviour 18 (Trio's #1175).
#[test]
fn r25_a_shield_that_goes_down_meanwhile_lets_it_continue_outward() {
    run_virtual(async || {
        let flags = nested(async |s| {
            s[2].set_shield(true);
            s[0].cancel();
            s[2].cancel();
            let raised = checkpoint().await;
            s[2].set_shield(false);
            raised
        });
        assert_eq!(flags.await, [CAUGHT, NO, CALLED]);
    });
}

#[test]
fn r26_cancelled_caught_is_false_where_the_body_finished_swallowed_or_replaced_it() {
    run_virtual(async || {
        // Finished.
        let scope = CancelScope::new();
        let out = scope
            .run(async {
                scope.cancel();
                Ok::<_, Cancelled>(1)
            })
            .await;
        assert_eq!((out, scope.cancel_called(), scope.cancelled_caught()), (Ok(Some(1)), true, false));
        // Swallowed.
        let scope = CancelScope::new();
        let out = scope
            .run(async {
                scope.cancel();
                let _ = checkpoint().await;
                Ok::<_, Cancelled>(2)
            })
            .await;
        assert_eq!((out, scope.cancelled_caught()), (Ok(Some(2)), false));
        // Replaced.
        let scope = CancelScope::new();
        let out = scope
            .run(async {
                scope.cancel();
                checkpoint().await.map_err(|_| io::Error::other("replaced"))
            })
            .await;
        assert_eq!((out.unwrap_err().to_string().as_str(), scope.cancelled_caught()), ("replaced", false));
        // Absorbed.
        let scope = CancelScope::new();
        scope.cancel();
        assert_eq!((scope.run(checkpoint()).await, scope.cancelled_caught()), (Ok(None), true));
    });
}

/// R27, behaviour 14: only the cancellations go, at any depth, and what remains keeps its nesting. R26: the flag is set.
#[test]
fn r27_groups_are_split() {
    use Tree::*;
    run_virtual(async || {
        let table = [
            (Group(vec![Cancelled]), None, true),
            (Group(vec![Group(vec![Cancelled]), Cancelled]), None, true),
            (
                Group(vec![Cancelled, Leaf("a"), Group(vec![Leaf("b"), Cancelled])]),
                Some(Group(vec![Leaf("a"), Group(vec![Leaf("b")])])),
                true,
            ),
            (
                Group(vec![Group(vec![Cancelled, Group(vec![Cancelled])]), Group(vec![Group(vec![Leaf("deep")])])]),
                Some(Group(vec![Group(vec![Group(vec![Leaf("deep")])])])),
                true,
            ),
            // R28: without a cancellation unchanged, and the flag stays false.
            (Leaf("bare"), Some(Leaf("bare")), false),
        ];
        for (error, left, caught) in table {
            let what = format!("{error:?}");
            let scope = CancelScope::new();
            let out = scope
                .run(async {
                    scope.cancel();
                    Err::<(), _>(error)
                })
                .await;
            match left {
                None => assert_eq!(out, Ok(Option::None), "{what}"),
                Some(left) => assert_eq!(out, Err(left), "{what}"),
            }
            assert_eq!(scope.cancelled_caught(), caught, "{what}");
        }
    });
}

/// The same with the library's own group, from a nursery.
#[test]
fn r27_r31_a_group_of_a_nursery_through_the_scope_that_was_cancelled() {
    run_virtual(async || {
        let scope = CancelScope::new();
        let out = scope
            .run(async {
                local_nursery(async |n| -> Result<(), Tree> {
                    n.spawn(async { Ok(sleep_forever().await?) });
                    n.spawn(async {
                        let _ = sleep_forever().await;
                        Err::<(), _>(Tree::Leaf("clean-up"))
                    });
                    sleep(ms(1)).await?;
                    scope.cancel();
                    Ok(())
                })
                .await?;
                Ok::<_, Tree>(())
            })
            .await;
        // R31: the error goes on, the cancellation of the sibling was this scope's to absorb.
        assert_eq!(out, Err(Tree::Group(vec![Tree::Leaf("clean-up")])));
        assert!(scope.cancelled_caught());
    });
}

#[test]
fn r28_a_group_without_cancelled_passes_unchanged() {
    run_virtual(async || {
        let scope = CancelScope::new();
        let group = || Tree::Group(vec![Tree::Leaf("a"), Tree::Group(vec![Tree::Leaf("b")])]);
        let out = scope
            .run(async {
                scope.cancel();
                Err::<(), _>(group())
            })
            .await;
        assert_eq!(out, Err(group()));
        assert!(scope.cancel_called() && !scope.cancelled_caught());
    });
}

#[test]
fn r27_an_error_group_of_io_errors_splits_too() {
    run_virtual(async || {
        let scope = CancelScope::new();
        let group = ErrorGroup::new(vec![
            io::Error::from(CANCELLED),
            io::Error::other("a"),
            io::Error::from(CANCELLED),
            io::Error::other("b"),
        ]);
        let out = scope
            .run(async {
                scope.cancel();
                Err::<(), _>(group.unwrap())
            })
            .await;
        let left: Vec<_> = out.unwrap_err().into_iter().map(|e| e.to_string()).collect();
        assert_eq!(left, ["a", "b"]);
        assert!(scope.cancelled_caught(), "R26: bare or inside of a group");
    });
}

#[test]
fn r29_a_body_that_completes_returns_its_value_although_the_deadline_has_passed() {
    run_virtual(async || {
        let t = Trace::new();
        let value = move_on_after(ms(5), async {
            shield(sleep(ms(20))).await?;
            Ok::<_, Cancelled>("late")
        });
        assert_eq!(value.await, Ok(Some("late")));
        let value: io::Result<_> = fail_after(ms(5), async {
            let _ = sleep_forever().await;
            Ok::<_, io::Error>("swallowed")
        })
        .await;
        assert_eq!(value.unwrap(), "swallowed");
        assert_eq!(t.ms(), 25);
    });
}

#[test]
fn r30_fail_after_fails_iff_its_own_scope_caught() {
    run_virtual(async || {
        let t = Trace::new();
        let late: io::Result<()> = fail_after(ms(5), async { Ok::<_, io::Error>(sleep_forever().await?) }).await;
        assert_eq!((late.unwrap_err().kind(), t.ms()), (io::ErrorKind::TimedOut, 5));
        let late: io::Result<()> = fail_at(t.at(9), async { Ok::<_, io::Error>(sleep_forever().await?) }).await;
        assert_eq!((late.unwrap_err().kind(), t.ms()), (io::ErrorKind::TimedOut, 9));
        // An outer cancel is never reported as this timeout.
        let outer = move_on_after(ms(5), async {
            let inner: io::Result<()> =
                fail_after(ms(1000), async { Ok::<_, io::Error>(sleep_forever().await?) }).await;
            assert!(inner.as_ref().unwrap_err().is_cancelled());
            inner
        });
        assert!(outer.await.unwrap().is_none());
        // Both at once: the outer one is responsible.
        let outer = move_on_after(ms(5), fail_after(ms(5), async { Ok::<_, io::Error>(sleep_forever().await?) }));
        assert!(outer.await.unwrap().is_none());
        // The body's own error is not a timeout.
        let failed: io::Result<()> = fail_after(ms(5), async {
            let _ = sleep_forever().await;
            Err(io::Error::other("clean-up"))
        })
        .await;
        assert_eq!(failed.unwrap_err().to_string(), "clean-up");
    });
}

#[test]
fn r31_an_error_beside_the_cancellation_continues() {
    run_virtual(async || {
        let scope = CancelScope::new();
        let out = scope
            .run(async {
                scope.cancel();
                Err::<(), _>(Tree::Group(vec![Tree::Cancelled, Tree::Leaf("ordinary")]))
            })
            .await;
        assert_eq!(out, Err(Tree::Group(vec![Tree::Leaf("ordinary")])));
        assert!(scope.cancelled_caught());
    });
}

// ---- N14: what is not a scope's own goes on ----------------------------------------------------------------------------

#[test]
fn n14_a_made_up_cancelled_is_not_absorbed_by_a_scope_that_was_not_cancelled() {
    run_virtual(async || {
        let scope = CancelScope::new();
        assert_eq!(scope.run(async { Err::<(), _>(CANCELLED) }).await, Err(CANCELLED));
        assert!(!scope.cancelled_caught() && !scope.cancel_called());
        let out: io::Result<()> = fail_after(ms(10), async { Err::<(), _>(io::Error::from_raw_os_error(125)) }).await;
        assert_eq!(out.unwrap_err().raw_os_error(), Some(125));
        let out = move_on_after(ms(10), async { Err::<(), _>(CANCELLED) }).await;
        assert_eq!(out, Err(CANCELLED));
    });
}

#[test]
fn n14_a_cancelled_kept_from_another_scope_travels_on() {
    run_virtual(async || {
        let kept = RefCell::new(None);
        let first = CancelScope::new();
        first.cancel();
        first
            .run(async {
                *kept.borrow_mut() = checkpoint().await.err();
                Ok::<_, Cancelled>(())
            })
            .await
            .unwrap();
        let second = CancelScope::new();
        let out = second
            .run(async {
                sleep(ms(1)).await?;
                Err::<(), _>(kept.take().unwrap())
            })
            .await;
        assert_eq!(out, Err(CANCELLED));
        assert!(!second.cancelled_caught());
    });
}

/// N14 for a nursery: what a child made up is an error of it, which cancels the siblings (R58) and comes out.
#[test]
fn n14_a_made_up_cancelled_of_a_child_comes_out_of_the_nursery() {
    run_virtual(async || {
        let t = Trace::new();
        let out = local_nursery(async |n| -> io::Result<u32> {
            // The kernel's ECANCELED, say.
            n.spawn(async { Err::<(), _>(io::Error::from_raw_os_error(125)) });
            n.spawn(async {
                let slept = sleep_forever().await;
                t.note("sibling", "cancelled");
                Ok(slept?)
            });
            Ok(5)
        })
        .await;
        let group = out.expect_err("N15: no error is dropped in silence");
        assert_eq!((group.len(), group.first().raw_os_error()), (1, Some(125)));
        assert_eq!(t.lines(), ["0 sibling cancelled"]);
    });
}

#[test]
fn n14_a_made_up_cancelled_of_the_body_comes_out_of_the_nursery() {
    run_virtual(async || {
        let out = local_nursery(async |_| Err::<(), _>(io::Error::from_raw_os_error(125))).or_cancelled().await;
        assert_eq!(out.expect_err("not absorbed").len(), 1);
    });
}

#[test]
fn n14_beside_another_error_both_come_out() {
    run_virtual(async || {
        let group = local_nursery(async |n| -> io::Result<()> {
            n.spawn(async { Err::<(), _>(io::Error::from_raw_os_error(125)) });
            n.spawn(async {
                let _ = sleep_forever().await;
                Err::<(), _>(io::Error::other("second"))
            });
            n.spawn(async { Ok(sleep_forever().await?) });
            Ok(())
        })
        .await
        .unwrap_err();
        let all: Vec<_> = group.into_iter().map(|e| e.to_string()).collect();
        assert_eq!(all, ["Operation canceled (os error 125)", "second"]);
    });
}

#[test]
fn a_scope_in_a_loop_may_be_cancelled_any_number_of_times() {
    run_virtual(async || {
        // More often than N13 b lets code swallow; but each scope is left in order, so nothing is swallowed.
        let ended = Cell::new(0);
        for _ in 0..3 * trefoil_runtime::STRIKES {
            let out = move_on_after(ms(1), sleep_forever()).await;
            ended.set(ended.get() + usize::from(out == Ok(None)));
        }
        assert_eq!(ended.get(), 3 * trefoil_runtime::STRIKES as usize);
        // The same where the body handles its cancellation itself, as a server does for each request.
        for i in 0..3 * trefoil_runtime::STRIKES {
            let out = move_on_after(ms(1), async {
                match sleep_forever().await {
                    Ok(()) => unreachable!(),
                    Err(_) => Ok::<_, Cancelled>("handled"),
                }
            })
            .await;
            assert_eq!(out, Ok(Some("handled")), "the {i}th");
        }
        yield_now().await;
    });
}

// ---- Boxed errors --------------------------------------------------------------------------------------------------

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// R24, R27: `?` puts the whole group of a nursery into a boxed error; the scope that was cancelled must find the cancellation in it.
#[test]
fn r27_a_group_in_a_boxed_error_is_absorbed() {
    run_virtual(async || {
        let t = Trace::new();
        let out = move_on_after(ms(5), async {
            local_nursery(async |n| -> Result<(), BoxError> {
                n.spawn(async { Ok(sleep_forever().await?) });
                n.spawn(async { Ok(sleep_forever().await?) });
                Ok(())
            })
            .await?;
            Ok::<_, BoxError>(())
        })
        .await;
        assert!(matches!(out, Ok(None)), "{out:?}");
        // Two levels of groups.
        let out = move_on_after(ms(5), async {
            local_nursery(async |n| -> Result<(), BoxError> {
                n.spawn(async {
                    local_nursery(async |inner| -> Result<(), BoxError> {
                        inner.spawn(async { Ok(sleep_forever().await?) });
                        Ok(())
                    })
                    .await?;
                    Ok(())
                });
                Ok(())
            })
            .await?;
            Ok::<_, BoxError>(())
        })
        .await;
        assert!(matches!(out, Ok(None)), "{out:?}");
        assert_eq!(t.ms(), 10);
    });
}

#[test]
fn r27_a_group_in_a_boxed_error_is_split() {
    run_virtual(async || {
        let scope = CancelScope::new();
        let out = scope
            .run(async {
                local_nursery(async |n| -> Result<(), BoxError> {
                    n.spawn(async { Ok(sleep_forever().await?) });
                    n.spawn(async {
                        let _ = sleep_forever().await;
                        Err::<(), _>("clean-up".into())
                    });
                    sleep(ms(1)).await?;
                    scope.cancel();
                    Ok(())
                })
                .await?;
                Ok::<_, BoxError>(())
            })
            .await;
        let error = out.unwrap_err();
        assert_eq!(error.to_string(), "clean-up");
        let group = error.downcast::<ErrorGroup<BoxError>>().expect("what remains keeps its nesting");
        assert_eq!(group.len(), 1);
        assert!(scope.cancelled_caught());
    });
}
