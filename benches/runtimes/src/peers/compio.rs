//! compio, with the default options of the ring, and async-channel, since it has no channel of its own.

use compio::runtime::{JoinHandle, Runtime};
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

fn in_a_task<T: 'static>(work: impl Future<Output = T> + 'static) -> T {
    let runtime = Runtime::new().expect("compio");
    runtime.block_on(async { compio::runtime::spawn(work).await.expect("no panic") })
}

async fn cached_pieces(load: Load) -> Vec<Metric> {
    use crate::cached::{Cached, PIECE, PIECES};
    use compio::io::AsyncReadAtExt;
    let cached = Cached::new();
    let file = compio::fs::File::open(cached.path()).await.expect("it is there");
    let mut piece = vec![0; PIECE];
    let mut series = Series::of_process_cpu(&load);
    while series.goes_on() {
        let begin = series.begin();
        for i in 0..PIECES {
            let compio::BufResult(result, back) = file.read_exact_at(piece, (i * PIECE) as u64).await;
            result.expect("it has so many");
            piece = back;
            Cached::check(&piece);
        }
        series.add(begin, PIECES);
    }
    series.metrics()
}

type Boxed = Pin<Box<dyn Future<Output = ()>>>;

struct Group<F> {
    tasks: Vec<JoinHandle<()>>,
    of: PhantomData<F>,
}

impl<F: Future<Output = ()> + 'static> Group<F> {
    fn new() -> Self {
        Self { tasks: Vec::new(), of: PhantomData }
    }
    fn spawn(&mut self, child: F) {
        self.tasks.push(compio::runtime::spawn(child));
    }
    async fn join_all(self) {
        for task in self.tasks {
            task.await.expect("no child panics");
        }
    }
    async fn settle(&mut self, begun: usize) {
        while crate::measure::alive() < begun {
            turn().await;
        }
    }
    async fn cancel_all(self) {
        for task in self.tasks {
            task.cancel().await;
        }
        // It says so before the future has been dropped.
        while crate::measure::alive() > 0 {
            turn().await;
        }
    }
}

async fn sleep(length: Duration) {
    compio::time::sleep(length).await;
}

async fn sleep_until(target: Instant) {
    compio::time::sleep_until(target).await;
}

async fn timeout<T>(length: Duration, body: impl Future<Output = T>) -> Option<T> {
    compio::time::timeout(length, body).await.ok()
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
