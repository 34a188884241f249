//! Threads for what blocks: the functions of asyncio's `to_thread`, and what the kernel does with files only by blocking.
//!
//! A queue under a lock, and threads that take from it: a hand-over to a thread costs far more than an uncontended lock. No code of others
//! runs, and nothing of theirs is dropped, while it is held. The threads are begun as they are needed, at most [`most`] of them, and end
//! when the pool is dropped and the queue is empty. Nobody joins them: who gave them work waits for it, as long as it wants to.

use crate::look::threads::ServiceThread;
use crate::sync;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// What a thread does. It does not panic.
pub trait Work: Send + 'static {
    /// Does it.
    fn work(self);
}

impl Work for Box<dyn FnOnce() + Send> {
    fn work(self) {
        self();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// To take work back. A thread has the same: one of them takes it, and then it is `None`.
pub struct Ticket<W>(sync::Arc<sync::Mutex<Option<W>>>);

impl<W> fmt::Debug for Ticket<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket")
    }
}

impl<W> Ticket<W> {
    fn new(work: W) -> Self {
        Self(sync::Arc::new(sync::Mutex::new(Some(work))))
    }

    fn twin(&self) -> Self {
        Self(self.0.clone())
    }

    /// The work, if no thread had begun it; then none will.
    pub fn take_back(&self) -> Option<W> {
        self.0.lock().take()
    }

    /// That of who gave the work, and that of a thread which the model plays.
    #[cfg(trefoil_loom)]
    pub fn pair(work: W) -> (Self, Self) {
        let ticket = Self::new(work);
        (ticket.twin(), ticket)
    }
}

struct State<W> {
    queue: VecDeque<Ticket<W>>,
    threads: usize,
    /// Threads that wait.
    idle: usize,
    closed: bool,
}

struct Shared<W> {
    state: Mutex<State<W>>,
    work: Condvar,
}

/// Whether the threads of a pool may wake a task by something that nobody sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs {
    /// They run what a program gives them.
    Anything,
    /// They wake only who waits for an operation that counts as in flight: they are no other threads for N10.
    Operations,
}

/// See the module.
pub struct Pool<W> {
    shared: Arc<Shared<W>>,
    name: &'static str,
    runs: Runs,
}

impl<W> fmt::Debug for Pool<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("name", &self.name).field("threads", &locked(&self.shared.state).threads).finish()
    }
}

/// As many as CPython's default executor has.
fn most() -> usize {
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (cores + 4).min(32)
}

impl<W: Work> Pool<W> {
    /// One without threads yet, which will have this name.
    pub fn new(name: &'static str, runs: Runs) -> Self {
        let state = State { queue: VecDeque::new(), threads: 0, idle: 0, closed: false };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), work: Condvar::new() }), name, runs }
    }

    /// Has a thread do this.
    ///
    /// # Errors
    /// If there is no thread, and none can be had; with the work.
    pub fn submit(&self, work: W) -> Result<Ticket<W>, (io::Error, W)> {
        let ticket = Ticket::new(work);
        let mut state = locked(&self.shared.state);
        state.queue.push_back(ticket.twin());
        let mut failed = None;
        if state.queue.len() > state.idle && state.threads < most() {
            // Under the lock: no other finds it counted, and leaves work to it, before it is there. It waits for the lock, as they do.
            match self.begin_thread() {
                Ok(()) => state.threads += 1,
                Err(error) => failed = Some(error),
            }
        }
        let Some(error) = failed else {
            drop(state);
            self.shared.work.notify_one();
            return Ok(ticket);
        };
        if state.threads == 0 {
            // No thread is there to take its twin out of the queue, where it is the last.
            state.queue.pop_back();
            drop(state);
            let work = ticket.take_back().expect("its twin was in the queue until now");
            return Err((error, work));
        }
        drop(state);
        self.shared.work.notify_one();
        crate::report_warn!("no further thread can be had for what blocks: {error}");
        Ok(ticket)
    }

    fn begin_thread(&self) -> io::Result<()> {
        let (shared, runs) = (self.shared.clone(), self.runs);
        let thread = thread::Builder::new().name(self.name.into());
        thread.spawn(move || {
            let _service = (runs == Runs::Operations).then(ServiceThread::here);
            shared.work();
        })?;
        Ok(())
    }
}

impl<W> Drop for Pool<W> {
    fn drop(&mut self) {
        locked(&self.shared.state).closed = true;
        self.shared.work.notify_all();
    }
}

impl<W: Work> Shared<W> {
    /// A thread.
    fn work(&self) {
        while let Some(ticket) = self.next() {
            if let Some(work) = ticket.take_back() {
                work.work();
            }
        }
    }

    fn next(&self) -> Option<Ticket<W>> {
        let mut state = locked(&self.state);
        loop {
            if let Some(ticket) = state.queue.pop_front() {
                return Some(ticket);
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

#[cfg(all(test, not(trefoil_loom)))]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// R108: who cannot have a thread gets the work back, and the queue keeps nothing of it.
    #[test]
    #[cfg_attr(miri, ignore = "it has no other processes")]
    fn what_no_thread_can_be_had_for_comes_back_whole() {
        if !crate::no_threads::is_here("pool::tests::what_no_thread_can_be_had_for_comes_back_whole") {
            return;
        }
        let pool = Pool::<Box<dyn FnOnce() + Send>>::new("test-pool", Runs::Operations);
        let is_refused =
            || pool.submit(Box::new(|| ())).is_err_and(|(error, _work)| error.kind() == io::ErrorKind::WouldBlock);
        assert!(is_refused());
        // Two at once: neither takes the other for a thread that will do its work. They have a small stack, and so can be had.
        thread::scope(|threads| {
            for _ in 0..2 {
                let submits =
                    || assert!((0..2_000).all(|_| is_refused()), "work was left to a thread that there is not");
                thread::Builder::new().stack_size(1 << 18).spawn_scoped(threads, submits).unwrap();
            }
        });
        let state = locked(&pool.shared.state);
        assert_eq!((state.queue.len(), state.threads), (0, 0));
    }

    #[test]
    fn what_no_thread_has_begun_can_be_taken_back_and_threads_end_with_the_pool() {
        type Boxed = Box<dyn FnOnce() + Send>;
        let pool = Pool::<Boxed>::new("test-pool", Runs::Operations);
        let submit = |work: Boxed| pool.submit(work).map_err(|(error, _)| error).unwrap();
        let (let_go, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        for _ in 0..most() {
            let held = held.clone();
            submit(Box::new(move || _ = locked(&held).recv()));
        }
        let (ran, runs) = mpsc::channel::<&str>();
        let (kept, taken) = (ran.clone(), ran);
        submit(Box::new(move || kept.send("kept").unwrap()));
        let ticket = submit(Box::new(move || taken.send("taken").unwrap()));
        assert!(ticket.take_back().is_some());
        assert!(ticket.take_back().is_none());
        let threads = Arc::downgrade(&pool.shared);
        drop(pool);
        drop(let_go);
        // The queue is emptied all the same, and then the senders are gone.
        assert_eq!(runs.iter().collect::<Vec<_>>(), ["kept"]);
        while threads.strong_count() > 0 {
            thread::yield_now();
        }
    }
}
