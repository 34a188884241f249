//! [`Queue`], [`LifoQueue`] and [`PriorityQueue`]. In the folder: which item comes out, by its `order`, and the `errors`.

mod errors;
mod order;

pub use errors::{GetError, GetNowaitError, PutError, PutNowaitError, TooManyDone};
pub use order::{Fifo, Least, Lifo, Order};

use super::event::Event;
use super::waiters::{Waiter, Waiters};
use order::sealed::Items;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::panic::Location;
use trefoil_runtime::{Cancelled, Reason};

/// Items between tasks: `asyncio.Queue` (Q1–Q14). What comes out is what went in first.
///
/// It counts those put in that nobody has called [`task_done`](Self::task_done) for, and [`join`](Self::join) waits until there are none.
///
/// Nobody owns a queue: where the last task that puts is gone, those that get wait on (Q14), unless it is
/// [shut down](Self::shutdown). A [`channel`](crate::channel) ends with its last sender.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use trefoil_nursery::asyncio::{self, Queue};
/// use trefoil_nursery::Cancelled;
/// use std::rc::Rc;
/// asyncio::event_loop(async {
///     let jobs = Rc::new(Queue::new(2));
///     let worker = asyncio::create_task({
///         let jobs = jobs.clone();
///         async move {
///             let mut sum = 0;
///             while let Ok(job) = jobs.get().await {
///                 sum += job;
///                 jobs.task_done().expect("one for each job");
///             }
///             Ok::<_, Cancelled>(sum)
///         }
///     });
///     for job in 1..=4 {
///         jobs.put(job).await.expect("nobody shuts it down yet");
///     }
///     jobs.join().await?;
///     jobs.shutdown();
///     assert_eq!(worker.await?, 10);
///     Ok::<_, Cancelled>(())
/// })
/// .await
/// .unwrap();
/// # });
/// ```
pub struct Queue<T, O: Order<T> = Fifo> {
    /// An item's `Ord` runs while it is borrowed, and nothing else of users.
    items: RefCell<O::Items>,
    /// 0: no bound.
    maxsize: usize,
    getters: Waiters,
    putters: Waiters,
    unfinished: Cell<usize>,
    /// Set as long as nothing is unfinished.
    finished: Event,
    shut_down: Cell<bool>,
}

/// A [`Queue`] of which that comes out that went in last: `asyncio.LifoQueue` (Q10).
///
/// # Examples
/// ```
/// use trefoil_nursery::asyncio::LifoQueue;
/// let stack = LifoQueue::new(0);
/// for n in 1..=3 {
///     stack.put_nowait(n).unwrap();
/// }
/// assert_eq!(stack.get_nowait(), Ok(3));
/// ```
#[derive(Debug)]
pub struct LifoQueue<T>(Queue<T, Lifo>);

/// A [`Queue`] of which the least item comes out: `asyncio.PriorityQueue` (Q10). Of equal ones, that which Python's `heapq` gives.
///
/// # Examples
/// ```
/// use trefoil_nursery::asyncio::PriorityQueue;
/// let queue = PriorityQueue::new(0);
/// for job in [(2, "write"), (1, "read"), (3, "rest")] {
///     queue.put_nowait(job).unwrap();
/// }
/// assert_eq!(queue.get_nowait(), Ok((1, "read")));
/// ```
#[derive(Debug)]
pub struct PriorityQueue<T: Ord>(Queue<T, Least>);

impl<T> LifoQueue<T> {
    /// An empty one for so many items; 0 for any number.
    pub fn new(maxsize: usize) -> Self {
        Self(Queue::of(maxsize))
    }
}

impl<T: Ord> PriorityQueue<T> {
    /// An empty one for so many items; 0 for any number.
    pub fn new(maxsize: usize) -> Self {
        Self(Queue::of(maxsize))
    }
}

impl<T> Deref for LifoQueue<T> {
    type Target = Queue<T, Lifo>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<T: Ord> Deref for PriorityQueue<T> {
    type Target = Queue<T, Least>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<T, O: Order<T>> fmt::Debug for Queue<T, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("maxsize", &self.maxsize)
            .field("qsize", &self.qsize())
            .field("unfinished", &self.unfinished.get())
            .field("shut_down", &self.shut_down.get())
            .finish_non_exhaustive()
    }
}

impl<T> Queue<T> {
    /// An empty one for so many items; 0 for any number (Q6).
    pub fn new(maxsize: usize) -> Self {
        Self::of(maxsize)
    }
}

impl<T, O: Order<T>> Queue<T, O> {
    fn of(maxsize: usize) -> Self {
        let finished = Event::new();
        finished.set();
        Self {
            items: RefCell::default(),
            maxsize,
            getters: Waiters::default(),
            putters: Waiters::default(),
            unfinished: Cell::new(0),
            finished,
            shut_down: Cell::new(false),
        }
    }

    /// For how many items it is; 0 for any number.
    pub fn maxsize(&self) -> usize {
        self.maxsize
    }

    /// How many items are in it.
    pub fn qsize(&self) -> usize {
        self.items.borrow().len()
    }

    /// Whether there is none in it.
    pub fn empty(&self) -> bool {
        self.qsize() == 0
    }

    /// Whether there is room for none. Never so for a `maxsize` of 0.
    pub fn full(&self) -> bool {
        self.maxsize > 0 && self.qsize() >= self.maxsize
    }

    /// Puts an item in, and waits for room. Where there is, this does not give up the turn (Q2), and may take room that somebody else was
    /// woken for: that one waits again (Q3).
    ///
    /// # Errors
    /// [`PutError::ShutDown`], also while this waits (Q11); [`PutError::Cancelled`]. Both have the item.
    ///
    /// # Cancellation
    /// The item is not put in. Whoever was woken for room, and is cancelled or dropped before it runs, wakes the next (Q4).
    #[track_caller]
    pub fn put(&self, item: T) -> impl Future<Output = Result<(), PutError<T>>> {
        let place = Location::caller();
        async move {
            while self.full() {
                if self.shut_down.get() {
                    return Err(PutError::ShutDown(item));
                }
                let waits = Place::at(&self.putters, Reason::Custom("room in a queue"), || !self.full()).wait(place);
                if let Err(cancelled) = waits.await {
                    return Err(PutError::Cancelled(cancelled, item));
                }
            }
            // Nothing was awaited since there was room.
            self.put_nowait(item).map_err(|error| PutError::ShutDown(error.into_inner()))
        }
    }

    /// Puts an item in where there is room.
    ///
    /// # Errors
    /// [`PutNowaitError::Full`] and [`PutNowaitError::ShutDown`], with the item.
    pub fn put_nowait(&self, item: T) -> Result<(), PutNowaitError<T>> {
        if self.shut_down.get() {
            return Err(PutNowaitError::ShutDown(item));
        }
        if self.full() {
            return Err(PutNowaitError::Full(item));
        }
        self.items.borrow_mut().put(item);
        self.unfinished.set(self.unfinished.get() + 1);
        self.finished.clear();
        self.getters.wake_out();
        Ok(())
    }

    /// Takes an item out, and waits for one. Where there is one, this does not give up the turn (Q2), and may take what somebody else was
    /// woken for: that one waits again (Q3).
    ///
    /// # Errors
    /// [`GetError::ShutDown`] if it is shut down and empty (Q11); [`GetError::Cancelled`].
    ///
    /// # Cancellation
    /// No item is lost: whoever was woken for one, and is cancelled or dropped before it runs, wakes the next (Q4).
    #[track_caller]
    pub fn get(&self) -> impl Future<Output = Result<T, GetError>> {
        let place = Location::caller();
        async move {
            while self.empty() {
                if self.shut_down.get() {
                    return Err(GetError::ShutDown);
                }
                Place::at(&self.getters, Reason::Custom("an item of a queue"), || !self.empty()).wait(place).await?;
            }
            // Nothing was awaited since there was one.
            self.get_nowait().map_err(|_| GetError::ShutDown)
        }
    }

    /// Takes an item out where there is one.
    ///
    /// # Errors
    /// [`GetNowaitError::Empty`]; [`GetNowaitError::ShutDown`] if it is empty and will stay so.
    pub fn get_nowait(&self) -> Result<T, GetNowaitError> {
        let item = self.items.borrow_mut().get();
        let Some(item) = item else {
            return Err(if self.shut_down.get() { GetNowaitError::ShutDown } else { GetNowaitError::Empty });
        };
        self.putters.wake_out();
        Ok(item)
    }

    /// Says that one of the items taken out is done with (Q8).
    ///
    /// # Errors
    /// [`TooManyDone`] if that was said of all: `ValueError` in Python.
    pub fn task_done(&self) -> Result<(), TooManyDone> {
        if self.unfinished.get() == 0 {
            return Err(TooManyDone(()));
        }
        self.done(1);
        Ok(())
    }

    /// Waits until all items that were put in are [done with](Self::task_done). Where they are, this does not give up the turn (Q9).
    ///
    /// # Errors
    /// [`Cancelled`] if the task is cancelled before.
    ///
    /// # Cancellation
    /// Ends the wait, with no effect.
    #[track_caller]
    pub fn join(&self) -> impl Future<Output = Result<(), Cancelled>> {
        let place = Location::caller();
        async move {
            if self.unfinished.get() == 0 {
                return Ok(());
            }
            self.finished.wait_as(Reason::Custom("the items of a queue to be done with"), place).await
        }
    }

    /// Lets nothing in any more. What is in it can be had, and then [`get`](Self::get) fails; puts fail at once, also those that wait (Q11,
    /// Q13).
    pub fn shutdown(&self) {
        self.shut_down.set(true);
        self.getters.wake_out_all();
        self.putters.wake_out_all();
    }

    /// Lets nothing in or out any more: `shutdown(immediate=True)`. What was in it counts as done with (Q12), and is in what this returns,
    /// where Python drops it.
    #[must_use = "these are the items that were in the queue"]
    pub fn shutdown_now(&self) -> Vec<T> {
        self.shut_down.set(true);
        let mut left = Vec::with_capacity(self.qsize());
        let mut items = self.items.take();
        while let Some(item) = items.get() {
            left.push(item);
        }
        self.done(left.len());
        self.shutdown();
        left
    }

    fn done(&self, n: usize) {
        self.unfinished.set(self.unfinished.get().saturating_sub(n));
        if self.unfinished.get() == 0 {
            self.finished.set();
        }
    }
}

/// In line for room, or for an item.
struct Place<'a, F: Fn() -> bool> {
    line: &'a Waiters,
    waiter: Waiter,
    /// Whether there is what it waits for.
    there: F,
    /// It runs, and looks.
    woken: bool,
}

impl<'a, F: Fn() -> bool> Place<'a, F> {
    fn at(line: &'a Waiters, reason: Reason, there: F) -> Self {
        Self { line, waiter: line.join(reason), there, woken: false }
    }

    async fn wait(mut self, place: &'static Location<'static>) -> Result<(), Cancelled> {
        self.waiter.wait_at(place).await?;
        self.woken = true;
        Ok(())
    }
}

impl<F: Fn() -> bool> Drop for Place<'_, F> {
    fn drop(&mut self) {
        if self.woken {
            return;
        }
        self.waiter.cancel();
        self.line.leave(&self.waiter);
        if !self.waiter.cancelled() && (self.there)() {
            // It was woken, and does not take it.
            self.line.wake_out();
        }
    }
}
