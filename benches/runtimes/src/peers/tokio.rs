//! tokio, with its structured interface: `JoinSet`.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

spawn_workloads!();
sleep_workloads!();
cancel_workload!();
deadline_workloads!();
channel_workload!();
threads_workload!();

pub fn run(workload: Workload, load: &Load) -> Option<Vec<Metric>> {
    let load = *load;
    Some(match workload {
        Workload::Spawn => in_a_task(spawn(load)),
        Workload::Yield => in_a_task(yields(load)),
        Workload::Turn => in_a_task(turns(load)),
        Workload::Channel => in_a_task(round_trips(load)),
        Workload::ChannelThreads => between_threads(load),
        Workload::DeadlineReady => in_a_task(deadline_ready(load)),
        Workload::DeadlineWaits => in_a_task(deadline_waits(load)),
        Workload::CancelTold => in_a_task(cancel(load)),
        Workload::CancelCleanup => in_a_task(cancel_cleanup(load)),
        Workload::Timers => in_a_task(timers(load)),
        Workload::Bytes => in_a_task(bytes(load)),
        Workload::Nested => in_a_task(nested_turns(load)),
        Workload::CachedFile => in_a_task(cached_pieces(load)),
        // Dropping a JoinSet tells the tasks, and does not wait for them.
        Workload::CancelDropped | Workload::EchoTurn | Workload::ChannelCombined => return None,
    })
}

static MULTI_THREAD: AtomicBool = AtomicBool::new(false);

/// The same on the multi-thread runtime, with one worker, since there is one core.
pub fn run_multi_thread(workload: Workload, load: &Load) -> Option<Vec<Metric>> {
    MULTI_THREAD.store(true, Ordering::Relaxed);
    run(workload, load)
}

pub(super) fn in_a_task<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let mut builder = if MULTI_THREAD.load(Ordering::Relaxed) {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(1);
        builder
    } else {
        Builder::new_current_thread()
    };
    let runtime = builder.enable_time().build().expect("tokio");
    runtime.block_on(async { tokio::spawn(work).await.expect("no panic") })
}

async fn cached_pieces(load: Load) -> Vec<Metric> {
    use crate::cached::{Cached, PIECE, PIECES};
    use std::io::SeekFrom;
    use tokio::io::{AsyncReadExt, AsyncSeekExt};
    let cached = Cached::new();
    let mut file = tokio::fs::File::open(cached.path()).await.expect("it is there");
    let mut piece = vec![0; PIECE];
    let mut series = Series::of_process_cpu(&load);
    while series.goes_on() {
        let begin = series.begin();
        file.seek(SeekFrom::Start(0)).await.expect("a seek");
        for _ in 0..PIECES {
            file.read_exact(&mut piece).await.expect("it has so many");
            Cached::check(&piece);
        }
        series.add(begin, PIECES);
    }
    series.metrics()
}

pub(super) type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Group<F> {
    tasks: JoinSet<()>,
    of: PhantomData<fn(F)>,
}

impl<F: Future<Output = ()> + Send + 'static> Group<F> {
    fn new() -> Self {
        Self { tasks: JoinSet::new(), of: PhantomData }
    }
    fn spawn(&mut self, child: F) {
        self.tasks.spawn(child);
    }
    async fn join_all(mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("no child panics");
        }
    }
    async fn settle(&mut self, begun: usize) {
        while crate::measure::alive() < begun {
            turn().await;
        }
    }
    async fn cancel_all(mut self) {
        self.tasks.shutdown().await;
    }
}

pub(super) async fn sleep(length: Duration) {
    tokio::time::sleep(length).await;
}

pub(super) async fn sleep_until(target: Instant) {
    tokio::time::sleep_until(target.into()).await;
}

async fn timeout<T>(length: Duration, body: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(length, body).await.ok()
}

pub(super) type Sender = mpsc::Sender<usize>;
pub(super) type Receiver = mpsc::Receiver<usize>;

pub(super) fn channel() -> (Sender, Receiver) {
    mpsc::channel(1)
}

pub(super) async fn send(to: &mut Sender, item: usize) -> bool {
    to.send(item).await.is_ok()
}

pub(super) async fn recv(from: &mut Receiver) -> Option<usize> {
    from.recv().await
}

/// With a token, which is how tokio's tasks are told so that they can clean up.
async fn cancel_cleanup(load: Load) -> Vec<Metric> {
    let mut series = Series::new(&load);
    while series.goes_on() {
        let token = CancellationToken::new();
        let mut group = Group::new();
        for _ in 0..load.size {
            let token = token.clone();
            group.spawn(async move {
                tokio::select! {
                    () = token.cancelled() => {}
                    () = sleeper() => {}
                }
                turn().await;
            });
        }
        group.settle(load.size).await;
        let begin = series.begin();
        token.cancel();
        group.join_all().await;
        series.add(begin, load.size);
    }
    series.metrics()
}
