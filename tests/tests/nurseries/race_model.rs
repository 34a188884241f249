//! `race`, `first_success`, `join` and `until` stopped at every await, and against a sequential model: N5, N7, N12.

use super::fault::Fault;
use proptest::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use trefoil_nursery::{Cancelled, ErrorGroup, first_success, join, race, race_with, shield, sleep, until, yield_now};
use trefoil_tests::{OnDrop, Trace, at_every_await, ms, run_virtual, stop};

async fn world(which: usize, alive: &AtomicUsize, ended: &AtomicUsize) -> Result<(), ErrorGroup<Cancelled>> {
    let work = async |n: u64| {
        alive.fetch_add(1, Ordering::SeqCst);
        let _alive = OnDrop(ended);
        for _ in 0..n {
            sleep(ms(1)).await?;
        }
        let told = sleep(ms(n)).await;
        shield(yield_now()).await;
        told.map(|()| n)
    };
    match which {
        0 => drop(race((work(3), work(2), work(5))).await?),
        1 => drop(first_success((work(3), work(2), work(5))).await?),
        2 => drop(join((work(3), work(2), work(5))).await?),
        _ => drop(until([work(3), work(2), work(5)], |done| done.len() > 1).await?),
    }
    Ok(())
}

#[test]
fn stopped_at_every_await_nothing_is_left() {
    run_virtual(async || {
        for which in 0..4 {
            let stops = at_every_await(async |how, k| {
                let (alive, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
                let end = stop(how, k, world(which, &alive, &ended)).await;
                assert_eq!(alive.into_inner(), ended.into_inner(), "awaited, or dropped: {which} {how:?} at {k}");
                end.is_complete()
            })
            .await;
            assert!(stops.iter().all(|n| (4..200).contains(n)), "{stops:?}");
        }
    });
}

#[test]
fn dropped_before_it_is_polled() {
    run_virtual(async || {
        let dropped = AtomicUsize::new(0);
        let guard = OnDrop(&dropped);
        drop(race((
            async move {
                let _guard = guard;
                Ok::<_, Cancelled>(())
            },
            async { Ok(()) },
        )));
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
    });
}

// ---- against a sequential model ------------------------------------------------------------------------------------

/// A branch: when it ends by itself, how, and what it does when it is told before.
#[derive(Clone, Copy, Debug)]
struct Branch {
    at: u64,
    ok: bool,
    /// Its clean-up.
    takes: u64,
    then: Then,
}

#[derive(Clone, Copy, Debug)]
enum Then {
    Cancelled,
    Value,
    Error,
}

fn branch() -> impl Strategy<Value = Branch> {
    let then = prop_oneof![3 => Just(Then::Cancelled), 1 => Just(Then::Value), 1 => Just(Then::Error)];
    (1..6_u64, prop::bool::weighted(0.7), 0..4_u64, then).prop_map(|(at, ok, takes, then)| Branch {
        at,
        ok,
        takes,
        then,
    })
}

#[derive(Clone, Copy, Debug)]
enum Policy {
    Race,
    FirstSuccess,
    Join,
    Until(usize),
}

async fn play(index: u64, branch: Branch) -> Result<u64, Fault> {
    match sleep(ms(branch.at)).await {
        Ok(()) if branch.ok => Ok(index),
        Ok(()) => Err(Fault::No(index)),
        Err(cancelled) => {
            if branch.takes > 0 {
                shield(sleep(ms(branch.takes))).await?;
            }
            match branch.then {
                Then::Cancelled => Err(cancelled.into()),
                Then::Value => Ok(100 + index),
                Then::Error => Err(Fault::No(100 + index)),
            }
        }
    }
}

/// What is to come out: values and errors, sorted where the order among those told is left open; and when.
#[derive(Debug, PartialEq)]
struct Seen {
    /// The result, where there is one value.
    won: Option<u64>,
    values: Vec<u64>,
    errors: Vec<u64>,
    ms: u64,
}

fn model(policy: Policy, branches: &[Branch]) -> Seen {
    let mut order: Vec<usize> = (0..branches.len()).collect();
    order.sort_by_key(|&i| branches[i].at); // stable: a tie goes to the first
    let mut stop = None;
    let (mut values, mut errors) = (vec![], vec![]);
    let mut end = 0;
    for i in order {
        let (branch, index) = (branches[i], i as u64);
        match stop {
            Some(at) if branch.at > at => {
                end = end.max(at + branch.takes);
                match branch.then {
                    Then::Cancelled => {}
                    Then::Value => values.push(100 + index),
                    Then::Error => errors.push(100 + index),
                }
                continue;
            }
            _ if branch.ok => values.push(index),
            _ => errors.push(index),
        }
        end = end.max(branch.at);
        let stops = match policy {
            Policy::Race => true,
            Policy::FirstSuccess => branch.ok,
            Policy::Join => !branch.ok,
            Policy::Until(n) => !branch.ok || values.len() >= n,
        };
        if stops && stop.is_none() {
            stop = Some(branch.at);
        }
    }
    let first = values.first().copied();
    values.sort_unstable();
    errors.sort_unstable();
    let (won, values, errors) = match policy {
        Policy::Race if errors.is_empty() => (first, values, errors),
        Policy::Race => (None, values, errors),
        Policy::FirstSuccess if first.is_some() => (first, vec![], vec![]),
        Policy::FirstSuccess => (None, vec![], errors),
        Policy::Join | Policy::Until(_) if errors.is_empty() => (None, values, errors),
        Policy::Join | Policy::Until(_) => (None, vec![], errors),
    };
    Seen { won, values, errors, ms: end }
}

async fn real(policy: Policy, branches: &[Branch]) -> Seen {
    let trace = Trace::new();
    let plays: Vec<_> = branches.iter().enumerate().map(|(i, &branch)| play(i as u64, branch)).collect();
    let (mut won, mut values) = (None, vec![]);
    let result = match policy {
        Policy::Race => {
            let result = race_with(plays, |value| values.push(value)).await;
            result.map(|value| {
                won = Some(value);
                values.push(value);
            })
        }
        Policy::FirstSuccess => first_success(plays).await.map(|value| won = Some(value)),
        Policy::Join => join(plays).await.map(|all| values = all),
        Policy::Until(n) => until(plays, |done| done.len() >= n).await.map(|all| values = all),
    };
    let mut errors: Vec<u64> = result
        .err()
        .into_iter()
        .flatten()
        .map(|error| match error {
            Fault::No(n) => n,
            other => panic!("{other:?}"),
        })
        .collect();
    values.sort_unstable();
    errors.sort_unstable();
    Seen { won, values, errors, ms: trace.ms() as u64 }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn n7_against_a_sequential_model(branches in prop::collection::vec(branch(), 1..7), n in 1..4_usize) {
        run_virtual(async || {
            for policy in [Policy::Race, Policy::FirstSuccess, Policy::Join, Policy::Until(n)] {
                assert_eq!(real(policy, &branches).await, model(policy, &branches), "{policy:?}");
            }
        });
    }
}
