//! Workloads in terms of `Group`, `Boxed`, `sleep`, `sleep_until`, `timeout`, `channel`, `send` and `recv` of the module that they are put in.

/// Needs `Group<F>` with `new`, `spawn` and `join_all`, and `Boxed`.
macro_rules! spawn_workloads {
    () => {
        use crate::measure::{Series, turn};
        use crate::{Load, Metric, Workload};
        use std::hint::black_box;

        async fn spawn(load: Load) -> Vec<Metric> {
            let mut series = Series::new(&load);
            while series.goes_on() {
                let begin = series.begin();
                let mut group = Group::new();
                for i in 0..load.size {
                    group.spawn(async move {
                        black_box(i);
                    });
                }
                group.join_all().await;
                series.add(begin, load.size);
            }
            series.metrics()
        }

        async fn yields(load: Load) -> Vec<Metric> {
            let mut series = Series::new(&load);
            while series.goes_on() {
                let begin = series.begin();
                let mut group = Group::new();
                for i in 0..load.size {
                    group.spawn(async move {
                        turn().await;
                        black_box(i);
                    });
                }
                group.join_all().await;
                series.add(begin, load.size);
            }
            series.metrics()
        }

        #[allow(dead_code)]
        async fn turns(load: Load) -> Vec<Metric> {
            const EACH: usize = 1_000;
            let mut series = Series::new(&load);
            while series.goes_on() {
                let begin = series.begin();
                let mut group = Group::new();
                for _ in 0..load.size {
                    group.spawn(async {
                        for _ in 0..EACH {
                            turn().await;
                        }
                    });
                }
                group.join_all().await;
                series.add(begin, load.size * EACH);
            }
            series.metrics()
        }

        /// Makes that many groups, one in the other, around some work.
        #[allow(dead_code)]
        fn nested(depth: usize, work: Boxed) -> Boxed {
            if depth == 0 {
                return work;
            }
            Box::pin(async move {
                let mut group = Group::new();
                group.spawn(nested(depth - 1, work));
                group.join_all().await;
            })
        }

        #[allow(dead_code)]
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
    };
}

/// Needs `Group::settle` too, which gives its children turns until so many have begun, and `sleep` and `sleep_until`.
macro_rules! sleep_workloads {
    () => {
        use crate::measure::{Alive, HOUR, Timers, resident};

        async fn sleeper() {
            let _alive = Alive::begin();
            sleep(HOUR).await;
        }

        async fn timers(load: Load) -> Vec<Metric> {
            let mut timers = Timers::new();
            let mut group = Group::new();
            for _ in 0..load.size {
                let target = timers.next();
                group.spawn(async move {
                    sleep_until(target).await;
                    Timers::woken(target);
                });
            }
            group.join_all().await;
            timers.metrics(load.size)
        }

        async fn bytes(load: Load) -> Vec<Metric> {
            let before = resident();
            let mut group = Group::new();
            for _ in 0..load.size {
                group.spawn(sleeper());
            }
            group.settle(load.size).await;
            vec![("bytes", (resident() - before) as f64 / load.size as f64)]
        }
    };
}

/// Needs `Group::cancel_all` too, which returns when every child has been dropped.
macro_rules! cancel_workload {
    () => {
        async fn cancel(load: Load) -> Vec<Metric> {
            let mut series = Series::new(&load);
            while series.goes_on() {
                let mut group = Group::new();
                for _ in 0..load.size {
                    group.spawn(sleeper());
                }
                group.settle(load.size).await;
                let begin = series.begin();
                group.cancel_all().await;
                series.add(begin, load.size);
                assert_eq!(crate::measure::alive(), 0);
            }
            series.metrics()
        }
    };
}

/// Needs `timeout`.
macro_rules! deadline_workloads {
    () => {
        async fn deadline_ready(load: Load) -> Vec<Metric> {
            const EACH: usize = 10_000;
            let mut series = Series::new(&load);
            while series.goes_on() {
                let begin = series.begin();
                for i in 0..EACH {
                    assert_eq!(timeout(HOUR, async { black_box(i) }).await, Some(i));
                }
                series.add(begin, EACH);
            }
            series.metrics()
        }

        async fn deadline_waits(load: Load) -> Vec<Metric> {
            const EACH: usize = 10_000;
            let (mut with, mut without) = (Series::new(&load), Series::new(&load));
            while with.goes_on() {
                let begin = with.begin();
                for i in 0..EACH {
                    let body = async {
                        turn().await;
                        black_box(i)
                    };
                    assert_eq!(timeout(HOUR, body).await, Some(i));
                }
                with.add(begin, EACH);
                let begin = without.begin();
                for i in 0..EACH {
                    turn().await;
                    black_box(i);
                }
                without.add(begin, EACH);
            }
            vec![("ns", with.median() - without.median())]
        }
    };
}

/// Needs `channel` with room for one, `Sender`, `Receiver`, `send` and `recv`.
macro_rules! channel_workload {
    () => {
        /// Sends back what it gets, until there is nobody any more.
        async fn echo(mut there: Receiver, mut back: Sender) {
            while let Some(item) = recv(&mut there).await {
                if !send(&mut back, item).await {
                    break;
                }
            }
        }

        async fn trips(mut there: Sender, mut back: Receiver, each: usize, mut series: Series) -> Vec<Metric> {
            while series.goes_on() {
                let begin = series.begin();
                for i in 0..each {
                    assert!(send(&mut there, i).await);
                    assert_eq!(recv(&mut back).await, Some(i));
                }
                series.add(begin, each);
            }
            series.metrics()
        }

        #[allow(dead_code)]
        async fn round_trips(load: Load) -> Vec<Metric> {
            let (there, echo_there) = channel();
            let (echo_back, back) = channel();
            let mut group = Group::new();
            group.spawn(echo(echo_there, echo_back));
            let metrics = trips(there, back, 10_000, Series::new(&load)).await;
            group.join_all().await;
            metrics
        }
    };
}

/// Needs a channel that may go between threads, and `in_a_task`.
macro_rules! threads_workload {
    () => {
        fn between_threads(load: Load) -> Vec<Metric> {
            let (there, echo_there) = channel();
            let (echo_back, back) = channel();
            let other = std::thread::spawn(move || {
                crate::measure::pin_to(load.core.saturating_sub(1));
                in_a_task(echo(echo_there, echo_back));
            });
            let metrics = in_a_task(trips(there, back, 1_000, Series::of_wall_time(&load)));
            other.join().expect("the other thread ends");
            metrics
        }
    };
}
