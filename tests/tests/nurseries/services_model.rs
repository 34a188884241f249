//! The order in which services stop: at every await, against a sequential model, and under every seed.

use proptest::prelude::*;
use std::cell::{Cell, RefCell};
use trefoil_nursery::{checkpoint, local_nursery, move_on_after, shield, sleep, sleep_forever};
use trefoil_tests::{Ended, How, Trace, at_every_await, ms, run_virtual, stop};

async fn world(stopped: &RefCell<Vec<u32>>, running: &Cell<u32>) -> Ended {
    let serve = async |i: u32, n: u64| {
        sleep(ms(1)).await?;
        running.set(running.get() + 1);
        let ended = sleep_forever().await;
        let _ = shield(sleep(ms(n))).await;
        running.set(running.get() - 1);
        stopped.borrow_mut().push(i);
        ended
    };
    local_nursery(async |n| {
        n.service(serve(1, 1));
        n.service(serve(2, 0));
        n.spawn(async {
            sleep(ms(3)).await?;
            checkpoint().await
        });
        sleep(ms(2)).await?;
        n.service(serve(3, 2));
        sleep(ms(2)).await
    })
    .await?;
    Ok(())
}

#[test]
fn stopped_at_every_await_nothing_is_left_and_the_order_stays() {
    run_virtual(async || {
        let stops = at_every_await(async |how, k| {
            let (stopped, running) = (RefCell::new(vec![]), Cell::new(0));
            let end = stop(how, k, world(&stopped, &running)).await;
            if how == How::Cancel {
                assert_eq!(running.get(), 0);
                let stopped = stopped.take();
                assert!(stopped.is_sorted_by(|a, b| a > b), "{stopped:?} at {k}");
            }
            end.is_complete()
        })
        .await;
        assert!(stops.iter().all(|&n| n > 4), "{stops:?}");
    });
}

// ---- against a sequential model ------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug)]
struct Plan {
    /// When it is started, by the body.
    at: u64,
    service: bool,
    /// When a child ends, or a service ends by itself, after its start; `None` is never, for a service.
    lives: Option<u64>,
    /// What a service takes to stop, and a child that is cancelled.
    stops: u64,
}

fn plan() -> impl Strategy<Value = Plan> {
    (0..6_u64, any::<bool>(), prop::option::of(1..20_u64), 0..6_u64).prop_map(|(at, service, lives, stops)| Plan {
        at: 2 * at,
        service,
        lives: if service { lives } else { lives.or(Some(30)) },
        stops,
    })
}

/// When each ended, and when all did. All times are odd or even so that a cancel never coincides with an end.
fn model(plans: &[Plan], cancel: Option<u64>) -> (Vec<Option<u64>>, u64) {
    let started = |plan: &Plan| cancel.is_none_or(|cancel| plan.at < cancel);
    let mut ends: Vec<Option<u64>> = vec![None; plans.len()];
    let mut ordinary = cancel.unwrap_or(20).min(20);
    for (plan, end) in plans.iter().zip(&mut ends).filter(|(plan, _)| started(plan) && !plan.service) {
        let natural = 4 * plan.lives.unwrap() + plan.at;
        *end = Some(match cancel {
            Some(cancel) if cancel < natural => cancel + plan.stops,
            _ => natural,
        });
        ordinary = ordinary.max(end.unwrap());
    }
    let mut now = ordinary;
    let mut order: Vec<usize> = (0..plans.len()).filter(|&i| started(&plans[i]) && plans[i].service).collect();
    order.sort_by_key(|&i| plans[i].at);
    for i in order.into_iter().rev() {
        let natural = plans[i].lives.map(|lives| plans[i].at + 4 * lives);
        ends[i] = Some(match natural {
            // One that ends when it would be told has ended (R18).
            Some(natural) if natural <= now => natural,
            _ => {
                now += plans[i].stops;
                now
            }
        });
    }
    (ends, now)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]
    #[test]
    fn against_a_sequential_model(plans in prop::collection::vec(plan(), 0..7), cancel in prop::option::of(0..12_u64)) {
        let cancel = cancel.map(|at| 2 * at + 1);
        let mut plans = plans;
        plans.sort_by_key(|plan| plan.at);
        run_virtual(async || {
            let trace = Trace::new();
            let ends = RefCell::new(vec![None; plans.len()]);
            let ended = move_on_after(ms(cancel.unwrap_or(10_000)), async {
                local_nursery(async |n| -> Ended {
                    for (i, plan) in plans.iter().enumerate() {
                        trefoil_nursery::sleep_until(trace.at(plan.at)).await?;
                        let (ends, trace) = (&ends, &trace);
                        let run = async move {
                            let ended = match plan.lives {
                                Some(lives) => trefoil_nursery::sleep_until(trace.at(plan.at + 4 * lives)).await,
                                None => sleep_forever().await,
                            };
                            if ended.is_err() && plan.stops > 0 {
                                shield(sleep(ms(plan.stops))).await?;
                            }
                            ends.borrow_mut()[i] = Some(trace.ms() as u64);
                            ended
                        };
                        if plan.service { n.service(run) } else { n.spawn(run) };
                    }
                    trefoil_nursery::sleep_until(trace.at(20)).await
                })
                .await
            })
            .await;
            assert!(ended.as_ref().is_ok_and(|value| value.is_some() || cancel.is_some()), "{ended:?}");
            assert_eq!((ends.take(), trace.ms() as u64), model(&plans, cancel));
        });
    }
}

/// Whatever the order in which they are polled first: in the reverse order of their start.
#[test]
fn services_stop_in_the_reverse_order_of_their_start_under_every_seed() {
    trefoil_testing::seeds(0..50, async || {
        let order = RefCell::new(vec![]);
        local_nursery(async |n| -> Ended {
            for i in 0..4 {
                let order = &order;
                n.service(async move {
                    let ended = sleep_forever().await;
                    order.borrow_mut().push(i);
                    ended
                });
            }
            sleep(ms(1)).await
        })
        .await
        .unwrap();
        assert_eq!(*order.borrow(), [3, 2, 1, 0]);
    });
}
