//! tokio without `JoinSet`: a vector of handles.

use super::tokio::{Boxed, in_a_task};
use std::future::Future;
use std::marker::PhantomData;
use tokio::task::JoinHandle;

spawn_workloads!();

pub fn run(workload: Workload, load: &Load) -> Option<Vec<Metric>> {
    let load = *load;
    Some(match workload {
        Workload::Spawn => in_a_task(spawn(load)),
        Workload::Yield => in_a_task(yields(load)),
        _ => return None,
    })
}

struct Group<F> {
    tasks: Vec<JoinHandle<()>>,
    of: PhantomData<fn(F)>,
}

impl<F: Future<Output = ()> + Send + 'static> Group<F> {
    fn new() -> Self {
        Self { tasks: Vec::new(), of: PhantomData }
    }
    fn spawn(&mut self, child: F) {
        self.tasks.push(tokio::spawn(child));
    }
    async fn join_all(self) {
        for task in self.tasks {
            task.await.expect("no child panics");
        }
    }
}
