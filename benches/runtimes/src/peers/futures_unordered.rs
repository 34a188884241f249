//! `FuturesUnordered`, in a task of tokio, whose timers and channels it uses.

use super::tokio::{Boxed, Receiver, Sender, channel, in_a_task, recv, send, sleep, sleep_until};
use futures::stream::{FuturesUnordered, Stream, StreamExt};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

spawn_workloads!();
sleep_workloads!();
cancel_workload!();
channel_workload!();

pub fn run(workload: Workload, load: &Load) -> Option<Vec<Metric>> {
    let load = *load;
    Some(match workload {
        Workload::Spawn => in_a_task(spawn(load)),
        Workload::Yield => in_a_task(yields(load)),
        Workload::Turn => in_a_task(turns(load)),
        Workload::Channel => in_a_task(two_futures(load)),
        Workload::CancelDropped => in_a_task(cancel(load)),
        Workload::Timers => in_a_task(timers(load)),
        Workload::Bytes => in_a_task(bytes(load)),
        Workload::Nested => in_a_task(nested_turns(load)),
        // It has no loop, no timers, and can tell nobody anything.
        Workload::ChannelThreads | Workload::DeadlineReady | Workload::DeadlineWaits => {
            return None;
        }
        Workload::CancelTold
        | Workload::CancelCleanup
        | Workload::EchoTurn
        | Workload::ChannelCombined
        | Workload::CachedFile => {
            return None;
        }
    })
}

struct Group<F> {
    children: FuturesUnordered<F>,
}

impl<F: Future<Output = ()>> Group<F> {
    fn new() -> Self {
        Self { children: FuturesUnordered::new() }
    }
    fn spawn(&mut self, child: F) {
        self.children.push(child);
    }
    async fn join_all(mut self) {
        while let Some(()) = self.children.next().await {}
    }
    /// Its children run only while it is polled.
    async fn settle(&mut self, begun: usize) {
        poll_fn(|cx| {
            while crate::measure::alive() < begun {
                assert!(Pin::new(&mut self.children).poll_next(cx).is_pending());
            }
            Poll::Ready(())
        })
        .await;
    }
    async fn cancel_all(self) {}
}

/// Both ends are futures of one group: what is beside it would not run.
async fn two_futures(load: Load) -> Vec<Metric> {
    let (there, echo_there) = channel();
    let (echo_back, back) = channel();
    let mut group = Group::<Boxed>::new();
    group.spawn(Box::pin(echo(echo_there, echo_back)));
    let (tell, told) = std::sync::mpsc::channel();
    group.spawn(Box::pin(async move {
        tell.send(trips(there, back, 10_000, Series::new(&load)).await).expect("somebody waits");
    }));
    group.join_all().await;
    told.recv().expect("the work has ended")
}
