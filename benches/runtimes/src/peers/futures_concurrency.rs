//! futures-concurrency's join of a vector, in a task of tokio.

use super::tokio::{Boxed, in_a_task};
use futures_concurrency::future::Join;
use std::future::Future;

spawn_workloads!();

pub fn run(workload: Workload, load: &Load) -> Option<Vec<Metric>> {
    let load = *load;
    Some(match workload {
        Workload::Spawn => in_a_task(spawn(load)),
        Workload::Yield => in_a_task(yields(load)),
        Workload::Turn => in_a_task(turns(load)),
        Workload::Nested => in_a_task(nested_turns(load)),
        _ => return None,
    })
}

struct Group<F> {
    children: Vec<F>,
}

impl<F: Future<Output = ()>> Group<F> {
    fn new() -> Self {
        Self { children: Vec::new() }
    }
    fn spawn(&mut self, child: F) {
        self.children.push(child);
    }
    async fn join_all(self) {
        self.children.join().await;
    }
}
