//! The smol stack, on one thread: async-executor's `LocalExecutor`, async-io, async-channel.

use async_executor::{LocalExecutor, Task};
use async_io::Timer;
use futures_lite::future::or;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::time::{Duration, Instant};

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
        Workload::Timers => in_a_task(timers(load)),
        Workload::Bytes => in_a_task(bytes(load)),
        Workload::Nested => in_a_task(nested_turns(load)),
        Workload::CachedFile => in_a_task(cached_pieces(load)),
        Workload::CancelDropped | Workload::CancelCleanup | Workload::EchoTurn | Workload::ChannelCombined => {
            return None;
        }
    })
}

thread_local! {
    static EXECUTOR: &'static LocalExecutor<'static> = Box::leak(Box::new(LocalExecutor::new()));
}

fn in_a_task<T: 'static>(work: impl Future<Output = T> + 'static) -> T {
    let executor = EXECUTOR.with(|executor| *executor);
    async_io::block_on(executor.run(executor.spawn(work)))
}

async fn cached_pieces(load: Load) -> Vec<Metric> {
    use crate::cached::{Cached, PIECE, PIECES};
    use futures_lite::io::{AsyncReadExt, AsyncSeekExt};
    use std::io::SeekFrom;
    let cached = Cached::new();
    let mut file = async_fs::File::open(cached.path()).await.expect("it is there");
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

type Boxed = Pin<Box<dyn Future<Output = ()>>>;

struct Group<F> {
    executor: &'static LocalExecutor<'static>,
    tasks: Vec<Task<()>>,
    of: PhantomData<F>,
}

impl<F: Future<Output = ()> + 'static> Group<F> {
    fn new() -> Self {
        Self { executor: EXECUTOR.with(|executor| *executor), tasks: Vec::new(), of: PhantomData }
    }
    fn spawn(&mut self, child: F) {
        self.tasks.push(self.executor.spawn(child));
    }
    async fn join_all(self) {
        for task in self.tasks {
            task.await;
        }
    }
    async fn settle(&mut self, begun: usize) {
        while crate::measure::alive() < begun {
            turn().await;
        }
    }
    async fn cancel_all(self) {
        // All are told before one is awaited.
        drop(self.tasks);
        while crate::measure::alive() > 0 {
            turn().await;
        }
    }
}

async fn sleep(length: Duration) {
    Timer::after(length).await;
}

async fn sleep_until(target: Instant) {
    Timer::at(target).await;
}

async fn timeout<T>(length: Duration, body: impl Future<Output = T>) -> Option<T> {
    or(async { Some(body.await) }, async {
        Timer::after(length).await;
        None
    })
    .await
}

type Sender = async_channel::Sender<usize>;
type Receiver = async_channel::Receiver<usize>;

fn channel() -> (Sender, Receiver) {
    async_channel::bounded(1)
}

async fn send(to: &mut Sender, item: usize) -> bool {
    to.send(item).await.is_ok()
}

async fn recv(from: &mut Receiver) -> Option<usize> {
    from.recv().await.ok()
}
