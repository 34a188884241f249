//! glommio, with its own local channel.

use glommio::channels::local_channel::{self, LocalReceiver, LocalSender};
use glommio::{LocalExecutorBuilder, Placement, Task};
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::time::{Duration, Instant};

spawn_workloads!();
sleep_workloads!();
cancel_workload!();
deadline_workloads!();
channel_workload!();

pub fn run(workload: Workload, load: &Load) -> Option<Vec<Metric>> {
    let load = *load;
    Some(match workload {
        Workload::Spawn => in_a_task(spawn(load)),
        Workload::Yield => in_a_task(yields(load)),
        Workload::Turn => in_a_task(turns(load)),
        Workload::Channel => in_a_task(round_trips(load)),
        Workload::DeadlineReady => in_a_task(deadline_ready(load)),
        Workload::DeadlineWaits => in_a_task(deadline_waits(load)),
        Workload::CancelTold => in_a_task(cancel(load)),
        Workload::Timers => in_a_task(timers(load)),
        Workload::Bytes => in_a_task(bytes(load)),
        Workload::Nested => in_a_task(nested_turns(load)),
        Workload::CachedFile => in_a_task(cached_pieces(load)),
        // Its channel is for one thread.
        Workload::ChannelThreads => return None,
        Workload::CancelDropped | Workload::CancelCleanup | Workload::EchoTurn | Workload::ChannelCombined => {
            return None;
        }
    })
}

fn in_a_task<T: 'static>(work: impl Future<Output = T> + 'static) -> T {
    let executor = LocalExecutorBuilder::new(Placement::Unbound).make().expect("glommio");
    executor.run(async { glommio::spawn_local(work).await })
}

/// Its buffered file gives a buffer of its own for each piece.
async fn cached_pieces(load: Load) -> Vec<Metric> {
    use crate::cached::{Cached, PIECE, PIECES};
    let cached = Cached::new();
    let file = glommio::io::BufferedFile::open(cached.path()).await.expect("it is there");
    let mut series = Series::of_process_cpu(&load);
    while series.goes_on() {
        let begin = series.begin();
        for i in 0..PIECES {
            let piece = file.read_at((i * PIECE) as u64, PIECE).await.expect("it has so many");
            Cached::check(&piece);
        }
        series.add(begin, PIECES);
    }
    file.close().await.expect("closed");
    series.metrics()
}

type Boxed = Pin<Box<dyn Future<Output = ()>>>;

struct Group<F> {
    tasks: Vec<Task<()>>,
    of: PhantomData<F>,
}

impl<F: Future<Output = ()> + 'static> Group<F> {
    fn new() -> Self {
        Self { tasks: Vec::new(), of: PhantomData }
    }
    fn spawn(&mut self, child: F) {
        self.tasks.push(glommio::spawn_local(child));
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
        for task in self.tasks {
            task.cancel().await;
        }
    }
}

async fn sleep(length: Duration) {
    glommio::timer::sleep(length).await;
}

async fn sleep_until(target: Instant) {
    sleep(target.saturating_duration_since(Instant::now())).await;
}

async fn timeout<T>(length: Duration, body: impl Future<Output = T>) -> Option<T> {
    glommio::timer::timeout(length, async { Ok(body.await) }).await.ok()
}

type Sender = LocalSender<usize>;
type Receiver = LocalReceiver<usize>;

fn channel() -> (Sender, Receiver) {
    local_channel::new_bounded(1)
}

async fn send(to: &mut Sender, item: usize) -> bool {
    to.send(item).await.is_ok()
}

async fn recv(from: &mut Receiver) -> Option<usize> {
    from.recv().await
}
