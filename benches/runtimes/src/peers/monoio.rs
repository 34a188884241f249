//! monoio on io_uring, or epoll where there is none, and local-sync's channel.

use local_sync::mpsc::bounded;
use monoio::task::JoinHandle;
use monoio::{FusionDriver, RuntimeBuilder};
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::time::{Duration, Instant};

spawn_workloads!();
sleep_workloads!();
deadline_workloads!();
channel_workload!();

pub fn run(workload: Workload, load: &Load) -> Option<Vec<Metric>> {
    let load = *load;
    Some(match workload {
        Workload::Spawn => in_a_task(spawn(load)),
        Workload::Yield => in_a_task(yields(load)),
        Workload::Channel => in_a_task(round_trips(load)),
        Workload::DeadlineReady => in_a_task(deadline_ready(load)),
        Workload::DeadlineWaits => in_a_task(deadline_waits(load)),
        Workload::Timers => in_a_task(timers(load)),
        Workload::Bytes => in_a_task(bytes(load)),
        Workload::Nested => in_a_task(nested_turns(load)),
        Workload::CachedFile => in_a_task(cached_pieces(load)),
        // A task that wakes itself goes to the front of the queue: its turns are not fair ones.
        Workload::Turn => return None,
        // Its channel is for one thread.
        Workload::ChannelThreads => return None,
        // It cannot cancel tasks.
        Workload::CancelTold | Workload::CancelDropped | Workload::CancelCleanup => return None,
        Workload::EchoTurn | Workload::ChannelCombined => return None,
    })
}

fn in_a_task<T: 'static>(work: impl Future<Output = T> + 'static) -> T {
    let mut runtime = RuntimeBuilder::<FusionDriver>::new().enable_timer().build().expect("monoio");
    runtime.block_on(async { monoio::spawn(work).await })
}

async fn cached_pieces(load: Load) -> Vec<Metric> {
    use crate::cached::{Cached, PIECE, PIECES};
    let cached = Cached::new();
    let file = monoio::fs::File::open(cached.path()).await.expect("it is there");
    let mut piece = vec![0; PIECE];
    let mut series = Series::of_process_cpu(&load);
    while series.goes_on() {
        let begin = series.begin();
        for i in 0..PIECES {
            let (result, back) = file.read_exact_at(piece, (i * PIECE) as u64).await;
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
        self.tasks.push(monoio::spawn(child));
    }
    async fn join_all(self) {
        for task in self.tasks {
            task.await;
        }
    }
    async fn settle(&mut self, begun: usize) {
        while crate::measure::alive() < begun {
            // A turn would be given to this task again.
            sleep(Duration::from_millis(1)).await;
        }
    }
}

async fn sleep(length: Duration) {
    monoio::time::sleep(length).await;
}

async fn sleep_until(target: Instant) {
    monoio::time::sleep_until(target.into()).await;
}

async fn timeout<T>(length: Duration, body: impl Future<Output = T>) -> Option<T> {
    monoio::time::timeout(length, body).await.ok()
}

type Sender = bounded::Tx<usize>;
type Receiver = bounded::Rx<usize>;

fn channel() -> (Sender, Receiver) {
    bounded::channel(1)
}

async fn send(to: &mut Sender, item: usize) -> bool {
    to.send(item).await.is_ok()
}

async fn recv(from: &mut Receiver) -> Option<usize> {
    from.recv().await
}
