//! moro's scopes, the one peer whose children borrow; in a task of tokio, whose timers they use.

use super::tokio::{Boxed, in_a_task, sleep, sleep_until};
use crate::measure::{Alive, HOUR, Series, Timers, alive, resident, turn};
use crate::{Load, Metric, Workload};
use std::hint::black_box;
use std::time::Duration;

pub fn run(workload: Workload, load: &Load) -> Option<Vec<Metric>> {
    let load = *load;
    Some(match workload {
        Workload::Spawn => in_a_task(spawn(load)),
        Workload::Yield => in_a_task(yields(load)),
        Workload::Turn => in_a_task(turns(load)),
        Workload::CancelDropped => in_a_task(cancel(load)),
        Workload::Timers => in_a_task(timers(load)),
        Workload::Bytes => in_a_task(bytes(load)),
        Workload::Nested => in_a_task(nested_turns(load)),
        _ => return None,
    })
}

async fn spawn(load: Load) -> Vec<Metric> {
    let mut series = Series::new(&load);
    while series.goes_on() {
        let begin = series.begin();
        let scope = moro::async_scope!(|scope| {
            for i in 0..load.size {
                drop(scope.spawn(async move {
                    black_box(i);
                }));
            }
        });
        scope.await;
        series.add(begin, load.size);
    }
    series.metrics()
}

async fn yields(load: Load) -> Vec<Metric> {
    let mut series = Series::new(&load);
    while series.goes_on() {
        let begin = series.begin();
        let scope = moro::async_scope!(|scope| {
            for i in 0..load.size {
                drop(scope.spawn(async move {
                    turn().await;
                    black_box(i);
                }));
            }
        });
        scope.await;
        series.add(begin, load.size);
    }
    series.metrics()
}

async fn turns(load: Load) -> Vec<Metric> {
    const EACH: usize = 1_000;
    let mut series = Series::new(&load);
    while series.goes_on() {
        let begin = series.begin();
        let scope = moro::async_scope!(|scope| {
            for _ in 0..load.size {
                drop(scope.spawn(async {
                    for _ in 0..EACH {
                        turn().await;
                    }
                }));
            }
        });
        scope.await;
        series.add(begin, load.size * EACH);
    }
    series.metrics()
}

async fn sleeper() {
    let _alive = Alive::begin();
    sleep(HOUR).await;
}

/// Terminating a scope drops its children.
async fn cancel(load: Load) -> Vec<Metric> {
    let mut series = Series::new(&load);
    while series.goes_on() {
        let scope = moro::async_scope!(|scope| -> Duration {
            for _ in 0..load.size {
                drop(scope.spawn(sleeper()));
            }
            while alive() < load.size {
                turn().await;
            }
            scope.terminate(series.begin()).await
        });
        let begin = scope.await;
        series.add(begin, load.size);
        assert_eq!(alive(), 0);
    }
    series.metrics()
}

async fn timers(load: Load) -> Vec<Metric> {
    let mut timers = Timers::new();
    let scope = moro::async_scope!(|scope| {
        for _ in 0..load.size {
            let target = timers.next();
            drop(scope.spawn(async move {
                sleep_until(target).await;
                Timers::woken(target);
            }));
        }
    });
    scope.await;
    timers.metrics(load.size)
}

async fn bytes(load: Load) -> Vec<Metric> {
    let before = resident();
    let scope = moro::async_scope!(|scope| -> f64 {
        for _ in 0..load.size {
            drop(scope.spawn(sleeper()));
        }
        while alive() < load.size {
            turn().await;
        }
        let bytes = (resident() - before) as f64 / load.size as f64;
        scope.terminate(bytes).await
    });
    vec![("bytes", scope.await)]
}

fn nested(depth: usize, work: Boxed) -> Boxed {
    if depth == 0 {
        return work;
    }
    Box::pin(async move {
        let scope = moro::async_scope!(|scope| {
            drop(scope.spawn(nested(depth - 1, work)));
        });
        scope.await;
    })
}

async fn nested_turns(load: Load) -> Vec<Metric> {
    const EACH: usize = 10_000;
    let (tell, told) = std::sync::mpsc::channel();
    let work = async move {
        let mut series = Series::new(&load);
        while series.goes_on() {
            let begin = series.begin();
            for _ in 0..EACH {
                turn().await;
            }
            series.add(begin, EACH);
        }
        tell.send(series.metrics()).expect("somebody waits");
    };
    nested(load.size, Box::pin(work)).await;
    told.recv().expect("the work has ended")
}
