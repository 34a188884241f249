//! Task-locals: what code sees that is polled, moved, dropped or that panics. A program of its own, since `task_local_costs` counts what is allocated.

mod task_local_costs;
mod task_local_drops;
mod task_local_inherits;
mod task_local_moves;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use trefoil_nursery::task_local;

task_local! {
    static NUMBER: u64;
    static NAME: String;
    static COUNTED: Counted
}

fn number() -> Option<u64> {
    NUMBER.try_with(|n| *n).ok()
}

#[track_caller]
fn sees<E>(expected: Option<u64>) -> Result<(), E> {
    assert_eq!(number(), expected);
    Ok(())
}

/// Counts how many there are.
struct Counted(&'static AtomicUsize);

impl Counted {
    fn new(live: &'static AtomicUsize) -> Self {
        live.fetch_add(1, Ordering::SeqCst);
        Self(live)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        assert!(self.0.fetch_sub(1, Ordering::SeqCst) > 0, "dropped twice");
    }
}

/// Notes what a drop sees.
struct SeenAtDrop<'a>(&'a Mutex<Vec<Option<u64>>>);

impl Drop for SeenAtDrop<'_> {
    fn drop(&mut self) {
        self.0.lock().unwrap().push(number());
    }
}
