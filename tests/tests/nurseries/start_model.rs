//! `start` against a model in a few lines: a child that may say that it is ready, may fail, and may be cancelled by its caller or by its nursery,
//! at any time (R68–R73).

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use std::cell::RefCell;
use std::io;
use trefoil_nursery::{CancelAware, CancelScope, NotStarted, local_nursery, shield, sleep};
use trefoil_tests::{Trace, ms, run_virtual};

/// What happens. The child acts at even times, the others at odd ones.
#[derive(Clone, Copy, Debug)]
struct Plan {
    /// When the child says that it is ready, if it does.
    ready: Option<u64>,
    /// When it ends, unless it is cancelled.
    end: u64,
    fails: bool,
    /// How long it cleans up when it is told: an odd time.
    clean_up: u64,
    cancel_caller: Option<u64>,
    cancel_nursery: Option<u64>,
    /// The caller is shielded from the nursery's cancellation.
    shielded: bool,
}

fn plans() -> impl Strategy<Value = Plan> {
    let even = |range: std::ops::Range<u64>| range.prop_map(|n| 2 * n);
    let odd = || prop::option::of((0..10_u64).prop_map(|n| 2 * n + 1));
    let child =
        (prop::option::weighted(0.7, even(1..8)), even(1..8), any::<bool>(), (0..4_u64).prop_map(|n| 2 * n + 1));
    (child, odd(), odd(), any::<bool>()).prop_map(
        |((ready, more, fails, clean_up), cancel_caller, cancel_nursery, shielded)| Plan {
            ready,
            end: ready.unwrap_or(0) + more,
            fails,
            clean_up,
            cancel_caller,
            cancel_nursery,
            shielded,
        },
    )
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Start {
    Ready,
    NotStarted,
    Failed,
    /// The caller's own scope took the cancellation.
    CaughtByCaller,
    /// It goes on to the nursery.
    Cancelled,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Nursery {
    Fine,
    Failed,
    Cancelled,
}

#[derive(Debug, PartialEq)]
struct End {
    start: (Start, u64),
    /// When the child was told, if it was, and when it ended.
    child: (Option<u64>, u64),
    nursery: (Nursery, u64),
}

/// The model: no tasks, no scopes, times only.
fn expected(plan: Plan) -> End {
    let earliest = |times: [Option<u64>; 2]| times.into_iter().flatten().min();
    let to_caller = earliest([plan.cancel_caller, plan.cancel_nursery.filter(|_| !plan.shielded)]);
    let ready = plan.ready.filter(|&ready| to_caller.is_none_or(|at| ready < at));
    // What cancels it: the caller's scopes until it is ready, the nursery's from then on (R68, R71, R73).
    let told = match ready {
        Some(ready) => plan.cancel_nursery.map(|at| at.max(ready)),
        None => to_caller,
    };
    let told = told.filter(|&at| at < plan.end);
    let ended = told.map_or(plan.end, |at| at + plan.clean_up);
    let by_then = |at: Option<u64>| at.is_some_and(|at| at < ended);
    // R24: the caller's scope takes a cancellation if it is cancelled itself, and none is visible further out.
    let caught = by_then(plan.cancel_caller) && (plan.shielded || !by_then(plan.cancel_nursery));
    let start = match (ready, told) {
        (Some(ready), _) => (Start::Ready, ready),
        (None, Some(_)) if caught => (Start::CaughtByCaller, ended),
        (None, Some(_)) => (Start::Cancelled, ended),
        (None, None) if plan.fails => (Start::Failed, ended),
        (None, None) => (Start::NotStarted, ended),
    };
    // R68, R71: its error is the caller's until it is ready, and the nursery's from then on.
    let nursery = match (start.0, told) {
        (Start::Ready, None) if plan.fails => Nursery::Failed,
        (Start::Cancelled, _) => Nursery::Cancelled,
        _ => Nursery::Fine,
    };
    End { start, child: (told, ended), nursery: (nursery, ended) }
}

fn agrees(plan: Plan) {
    run_virtual(async || assert_eq!(observed(plan).await, expected(plan), "{plan:?}"));
}

async fn observed(plan: Plan) -> End {
    let t = Trace::new();
    let now = || u64::try_from(t.ms()).unwrap();
    let (start, child) = (RefCell::new(None), RefCell::new(None));
    let (caller, others) = (CancelScope::new(), CancelScope::new());
    caller.set_shield(plan.shielded);
    let (caller, others, now) = (&caller, &others, &now);
    let ended = local_nursery(async |n| -> io::Result<()> {
        // What comes from outside, as long as the child is there.
        n.spawn(async move {
            let events = shield(others.run(async {
                let mut events = [(plan.cancel_caller, false), (plan.cancel_nursery, true)];
                events.sort();
                for (at, of_nursery) in events {
                    let Some(at) = at else { continue };
                    sleep(ms(at - now())).await?;
                    if of_nursery { n.cancel() } else { caller.cancel() }
                }
                Ok::<_, io::Error>(())
            }));
            events.await?;
            Ok(())
        });
        let script = async |started: trefoil_nursery::Started<'_, u8>| -> io::Result<()> {
            let mut told = None;
            let result = async {
                if let Some(ready) = plan.ready {
                    sleep(ms(ready)).await?;
                    started.ready(7);
                }
                sleep(ms(plan.end - now())).await?;
                if plan.fails { Err(io::Error::other("on purpose")) } else { Ok(()) }
            }
            .await;
            if result.as_ref().is_err_and(CancelAware::is_cancelled) {
                told = Some(now());
                shield(sleep(ms(plan.clean_up))).await?;
            }
            *child.borrow_mut() = Some((told, now()));
            others.cancel();
            result
        };
        let result = caller.run(n.start(script)).await;
        let how = match &result {
            Ok(Some(7)) => Start::Ready,
            Ok(Some(_)) => unreachable!("another value"),
            Ok(None) => Start::CaughtByCaller,
            Err(error) if error.is_cancelled() => Start::Cancelled,
            Err(error) if error.get_ref().is_some_and(|inner| inner.is::<NotStarted>()) => Start::NotStarted,
            Err(_) => Start::Failed,
        };
        *start.borrow_mut() = Some((how, now()));
        if how == Start::Cancelled { result.map(drop) } else { Ok(()) }
    })
    .or_cancelled()
    .await;
    let nursery = match ended {
        Err(group) if group.is_cancelled() => unreachable!("nothing is cancelled outside: {group}"),
        Err(_) => Nursery::Failed,
        Ok(None) => Nursery::Cancelled,
        Ok(Some(())) => Nursery::Fine,
    };
    End { start: start.take().unwrap(), child: child.take().unwrap(), nursery: (nursery, now()) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn r68_r71_r73_start_does_what_the_model_says(plan in plans()) {
        agrees(plan);
    }
}

/// The plans come to all of it: a model that agrees about nothing much proves nothing.
#[test]
fn the_plans_come_to_all_ends() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..2000 {
        let plan = plans().new_tree(&mut runner).unwrap().current();
        let end = expected(plan);
        seen.insert(format!("{:?} {:?} {}", end.start.0, end.nursery.0, end.child.0.is_some()));
    }
    let all = [
        "Cancelled Cancelled true",
        "CaughtByCaller Fine true",
        "Failed Fine false",
        "NotStarted Fine false",
        "Ready Failed false",
        "Ready Fine false",
        "Ready Fine true",
    ];
    assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), all);
}
