//! The threads of a loop, for functions that block.
//!
//! A queue under a lock, and threads that take from it: a hand-over to a thread costs far more than an uncontended lock. No code of others
//! runs, and nothing of theirs is dropped, while it is held. The threads are begun as they are needed, at most [`most`] of them, and end
//! when the pool is dropped and the queue is empty. Nobody joins them: the loop waits for the functions, as long as it wants to.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// A job that waits for a thread; `None` when one has taken it, or it was taken back.
type Slot = Arc<Mutex<Option<Job>>>;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// To take a job back.
pub(crate) struct Ticket(Slot);

impl Ticket {
    /// Whether no thread had begun it; then none will, and it is dropped.
    pub fn take_back(&self) -> bool {
        let job = locked(&self.0).take();
        job.is_some()
    }
}

#[derive(Default)]
struct State {
    queue: VecDeque<Slot>,
    threads: usize,
    /// Threads that wait.
    idle: usize,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

pub(crate) struct Pool {
    shared: Arc<Shared>,
}

/// As many as CPython's default executor has.
fn most() -> usize {
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (cores + 4).min(32)
}

impl Pool {
    pub fn new() -> Self {
        Self { shared: Arc::default() }
    }

    /// Has a thread run a job, which does not panic.
    ///
    /// # Panics
    /// If there is no thread, and none can be had.
    pub fn submit(&self, job: Job) -> Ticket {
        let slot: Slot = Arc::new(Mutex::new(Some(job)));
        let mut state = locked(&self.shared.state);
        state.queue.push_back(slot.clone());
        let wanted = state.queue.len() > state.idle && state.threads < most();
        if wanted {
            state.threads += 1;
        }
        drop(state);
        self.shared.work.notify_one();
        if wanted {
            self.begin_thread();
        }
        Ticket(slot)
    }

    fn begin_thread(&self) {
        let shared = self.shared.clone();
        let begun = thread::Builder::new().name("asyncio".into()).spawn(move || shared.work());
        if let Err(error) = begun {
            let mut state = locked(&self.shared.state);
            state.threads -= 1;
            let none = state.threads == 0;
            drop(state);
            assert!(!none, "no thread can be had for what blocks: {error}");
            tracing::warn!("no further thread can be had for what blocks: {error}");
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        locked(&self.shared.state).closed = true;
        self.shared.work.notify_all();
    }
}

impl Shared {
    /// A thread.
    fn work(&self) {
        while let Some(slot) = self.next() {
            let job = locked(&slot).take();
            if let Some(job) = job {
                job();
            }
        }
    }

    fn next(&self) -> Option<Slot> {
        let mut state = locked(&self.state);
        loop {
            if let Some(slot) = state.queue.pop_front() {
                return Some(slot);
            }
            if state.closed {
                state.threads -= 1;
                return None;
            }
            state.idle += 1;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}
