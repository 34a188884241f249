//! The runner: explores a model in all orders, and compares what it saw with what was expected.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::atomic::{AtomicUsize as Count, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// A model to be run.
#[derive(Debug)]
pub struct Model {
    name: &'static str,
    threads: usize,
    bound: Option<usize>,
    least: usize,
}

/// A model of two racing threads, explored without a bound.
pub fn model(name: &'static str) -> Model {
    Model { name, threads: 2, bound: None, least: 3 }
}

impl Model {
    /// Three threads race.
    pub fn three(self) -> Self {
        Self { threads: 3, ..self }
    }

    /// At most so many preemptions. `LOOM_MAX_PREEMPTIONS` overrides it (`none`: unbounded).
    pub fn bound(self, preemptions: usize) -> Self {
        Self { bound: Some(preemptions), ..self }
    }

    /// Runs it, once for each order of its threads, and compares all that it returned with `expected`.
    ///
    /// # Panics
    /// If an order has hardly any executions, or the outcomes are not those expected.
    pub fn check<O>(self, expected: impl IntoIterator<Item = O>, execution: impl Fn(Order) -> O + Send + Sync + 'static)
    where
        O: Ord + Debug + Send + 'static,
    {
        let began = Instant::now();
        let outcomes = Arc::new(Mutex::new(BTreeSet::new()));
        let seen = outcomes.clone();
        let executions = self.explore(Arc::new(move |order| {
            let outcome = execution(order);
            seen.lock().unwrap().insert(outcome);
        }));
        let outcomes = outcomes.lock().unwrap();
        println!(
            "{}: {executions:?} executions in {:.2?}, {} outcomes: {outcomes:?}",
            self.name,
            began.elapsed(),
            outcomes.len()
        );
        assert!(executions.iter().all(|&count| count >= self.least), "loom explored next to nothing: {executions:?}");
        assert_eq!(*outcomes, expected.into_iter().collect::<BTreeSet<_>>(), "the outcomes seen, and those expected");
    }

    /// Runs it once for each order of its threads, and counts the executions of each. Not generic: loom's part of it is large, and is compiled once, not for
    /// each of the models.
    fn explore(&self, execution: Arc<dyn Fn(Order) + Send + Sync>) -> Vec<usize> {
        let explore = |first| {
            let count = Arc::new(Count::new(0));
            let (execution, counted) = (execution.clone(), count.clone());
            let mut builder = loom::model::Builder::new();
            builder.max_branches = 10_000;
            builder.preemption_bound = match std::env::var("LOOM_MAX_PREEMPTIONS") {
                Ok(bound) => bound.parse().ok(),
                Err(_) => self.bound,
            };
            builder.check(move || {
                counted.fetch_add(1, Ordering::Relaxed);
                execution(Order { first });
            });
            count.load(Ordering::Relaxed)
        };
        (0..self.threads).map(explore).collect()
    }
}

/// Which thread goes first in the first execution.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    first: usize,
}

impl Order {
    /// Runs both at once, one of them on this thread, to their end.
    pub fn race2<A, B>(self, a: impl FnOnce() -> A, b: impl FnOnce() -> B) -> (A, B) {
        let (mut got_a, mut got_b) = (None, None);
        self.run(vec![Box::new(|| got_a = Some(a())), Box::new(|| got_b = Some(b()))]);
        (got_a.unwrap(), got_b.unwrap())
    }

    /// Runs three at once, one of them on this thread, to their end.
    pub fn race3<A, B, C>(self, a: impl FnOnce() -> A, b: impl FnOnce() -> B, c: impl FnOnce() -> C) -> (A, B, C) {
        let (mut got_a, mut got_b, mut got_c) = (None, None, None);
        self.run(vec![Box::new(|| got_a = Some(a())), Box::new(|| got_b = Some(b())), Box::new(|| got_c = Some(c()))]);
        (got_a.unwrap(), got_b.unwrap(), got_c.unwrap())
    }

    fn run(self, mut threads: Vec<Box<dyn FnOnce() + '_>>) {
        threads.rotate_left(self.first);
        let mut threads = threads.into_iter();
        let here = threads.next().expect("a race has threads");
        let others: Vec<_> = threads
            .map(|thread| {
                // SAFETY: all are joined below. If one panics, the whole execution is over and nothing runs on.
                let thread: Box<dyn FnOnce() + 'static> = unsafe { std::mem::transmute(thread) };
                loom::thread::spawn(thread)
            })
            .collect();
        here();
        for other in others {
            other.join().unwrap();
        }
    }
}
