//! Blocking code: [`to_thread`] and [`run_in_executor`], on the threads of the loop.

use super::background;
use super::control::Control;
use super::event_loop::Loop;
use super::future::{Future, Kind, WeakFuture};
use super::here;
use crate::sync::{OneshotReceiver, oneshot};
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::future::Future as StdFuture;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;
use trefoil_runtime::{self as runtime, CancelAware, Cancelled, Pool, Reason, Runs, Wait};

type Job = Box<dyn FnOnce() + Send>;
type Ticket = runtime::Ticket<Job>;

/// What becomes of a function on a thread when who waits for it is cancelled: for [`run_in_executor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnCancel {
    /// The wait goes on until the function has returned, and then the cancel is delivered; the result stays in the future (C9). Python
    /// has no such thing (D-9).
    Wait,
    /// The wait ends at once, and the function runs on, unheard: as in Python (O10). An error of it is logged.
    Abandon,
}

/// What of a loop has to do with its threads.
pub(crate) struct Threads {
    pool: RefCell<Option<Rc<Pool<Job>>>>,
    /// The functions that were begun, or wait for a thread: where each was given, by number.
    outstanding: RefCell<BTreeMap<u64, &'static Location<'static>>>,
    next: Cell<u64>,
    pub limit: Cell<Duration>,
}

/// How long the end of a loop waits for functions on threads: CPython's.
const LIMIT: Duration = Duration::from_secs(300);

/// How long it does so without a word.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// How many places such a word names.
const LISTED: usize = 4;

/// What somebody waits for.
const WHAT: &str = "a function on a thread";

impl Threads {
    pub fn new() -> Self {
        Self { pool: RefCell::new(None), outstanding: RefCell::default(), next: Cell::new(0), limit: Cell::new(LIMIT) }
    }

    fn pool(&self) -> Rc<Pool<Job>> {
        self.pool.borrow_mut().get_or_insert_with(|| Rc::new(Pool::new("asyncio", Runs::Anything))).clone()
    }
}

impl Threads {
    /// How many functions were begun, or wait for a thread.
    pub fn outstanding(&self) -> usize {
        self.outstanding.borrow().len()
    }

    /// Where those were given that have not ended, as a person reads it.
    pub fn begun(&self) -> String {
        let outstanding = self.outstanding.borrow();
        let mut places: Vec<String> = outstanding.values().map(ToString::to_string).collect();
        places.dedup();
        if places.len() > LISTED {
            let more = places.len() - LISTED;
            places.truncate(LISTED);
            places.push(format!("{more} more"));
        }
        places.join(", ")
    }
}

/// A function that is on a thread, or waits for one.
struct Outstanding(Rc<Loop>, u64);

impl Outstanding {
    fn new(event_loop: &Rc<Loop>, place: &'static Location<'static>) -> Self {
        let threads = &event_loop.threads;
        let number = threads.next.replace(threads.next.get() + 1);
        threads.outstanding.borrow_mut().insert(number, place);
        Self(event_loop.clone(), number)
    }
}

impl Drop for Outstanding {
    fn drop(&mut self) {
        self.0.threads.outstanding.borrow_mut().remove(&self.1);
        if self.0.threads.outstanding() == 0 {
            self.0.wake_body();
        }
    }
}

/// Runs a function on a thread of the loop, which waits for it: asyncio's `to_thread`, but that a cancel does not abandon it (D-9).
///
/// The function finds the task-locals that are in force where this is first awaited (O11).
///
/// # Errors
/// Those of the function.
///
/// # Cancellation
/// The function is waited for all the same: a thread cannot be stopped. Its result is given, and the cancel is delivered at the next wait. One that
/// no thread has begun is not begun. Where waiting is wrong, say so: [`run_in_executor`] with [`OnCancel::Abandon`].
///
/// # Panics
/// Outside of a loop. A panic of the function ends the loop, as that of a task.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(trefoil_nursery::asyncio::event_loop(async {
/// use std::io;
/// use trefoil_nursery::asyncio;
/// let manifest = asyncio::to_thread(|| std::fs::read_to_string("Cargo.toml")).await?;
/// assert!(manifest.contains("[package]"));
/// # Ok::<(), io::Error>(())
/// # })).unwrap();
/// ```
#[track_caller]
pub fn to_thread<F, T, E>(function: F) -> impl StdFuture<Output = Result<T, E>>
where
    F: FnOnce() -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: CancelAware + Send + 'static,
{
    let place = Location::caller();
    async move { OnThread { future: submit(OnCancel::Wait, function, place), waits: None }.await }
}

/// Waits for a function. Its result is not lost to a cancel that comes while it runs.
struct OnThread<T: 'static, E: CancelAware + 'static> {
    future: Future<T, E>,
    waits: Option<Waits>,
}

/// It waits: who is told, and where it is known.
struct Waits {
    waker: u64,
    task: Option<(Rc<Control>, u64)>,
}

impl<T: 'static, E: CancelAware + 'static> OnThread<T, E> {
    fn end_wait(&mut self) {
        if let Some(Waits { waker, task }) = self.waits.take() {
            self.future.any().remove(waker);
            if let Some((task, wait)) = task {
                task.end_wait(wait);
            }
        }
    }
}

impl<T: 'static, E: CancelAware + 'static> StdFuture for OnThread<T, E> {
    type Output = Result<T, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.future.done() {
            this.end_wait();
            // Nobody else has the future.
            return Poll::Ready(this.future.take().unwrap_or_else(|_| Err(Cancelled::delivered().into())));
        }
        if this.waits.as_ref().is_some_and(|waits| !here::is_task(waits.task.as_ref().map(|(task, _)| task))) {
            // Another task began it, whose cancels are not for who goes on with it.
            this.end_wait();
        }
        match &this.waits {
            Some(waits) => this.future.renew_waker(waits.waker, cx.waker()),
            None => {
                let task = here::task();
                let waker = this.future.add_waker(cx.waker().clone(), task.clone());
                let task = task.map(|task| {
                    let wait = task.wait(this.future.any());
                    (task, wait)
                });
                this.waits = Some(Waits { waker, task });
            }
        }
        Poll::Pending
    }
}

impl<T: 'static, E: CancelAware + 'static> Drop for OnThread<T, E> {
    fn drop(&mut self) {
        self.end_wait();
    }
}

/// Begins to run a function on a thread of the loop, now: asyncio's `loop.run_in_executor`. What a cancel does, it asks you.
///
/// There are as many threads as CPython has, `min(32, cores + 4)`, and they end with the loop, which waits for them at its end: see
/// [`set_executor_timeout`]. The function finds the task-locals that are in force here; in Python it does not.
///
/// # Errors
/// Those of the function, where the future is awaited.
///
/// # Cancellation
/// As the first argument says. One that no thread has begun is not begun.
///
/// # Panics
/// Outside of a loop, and when the system has no thread for the first function. A panic of the function ends the loop, as that of a task.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(trefoil_nursery::asyncio::event_loop(async {
/// use trefoil_nursery::asyncio::{self, OnCancel};
/// use trefoil_nursery::Cancelled;
/// let one = asyncio::run_in_executor(OnCancel::Abandon, || Ok::<_, Cancelled>(20));
/// let two = asyncio::run_in_executor(OnCancel::Wait, || Ok::<_, Cancelled>(22));
/// assert_eq!(one.await? + two.await?, 42);
/// # Ok::<(), Cancelled>(())
/// # })).unwrap();
/// ```
#[track_caller]
pub fn run_in_executor<F, T, E>(on_cancel: OnCancel, function: F) -> Future<T, E>
where
    F: FnOnce() -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: CancelAware + Send + 'static,
{
    submit(on_cancel, function, Location::caller())
}

/// How long the end of the running loop waits for functions that are on threads: 300 seconds, unless this says otherwise. After that they
/// are left alone, and it is logged; and after a second that it waits for them.
///
/// # Panics
/// Outside of a loop.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(trefoil_nursery::asyncio::event_loop(async {
/// # use trefoil_nursery::{Cancelled, asyncio};
/// asyncio::set_executor_timeout(std::time::Duration::from_secs(5));
/// # Ok::<(), Cancelled>(())
/// # })).unwrap();
/// ```
#[track_caller]
pub fn set_executor_timeout(limit: Duration) {
    here::running().threads.limit.set(limit);
}

fn submit<F, T, E>(on_cancel: OnCancel, function: F, place: &'static Location<'static>) -> Future<T, E>
where
    F: FnOnce() -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: CancelAware + Send + 'static,
{
    let event_loop = here::running();
    let (sender, receiver) = oneshot::<thread::Result<Result<T, E>>>();
    // While it runs, a loop in which every task waits is no deadlock (N10).
    let from_outside = runtime::run_handle();
    let function = with_locals(function);
    let job: Job = Box::new(move || {
        let outcome = catch_unwind(AssertUnwindSafe(function));
        // Who would receive it may be gone, after the end of the loop.
        if let Err(unheard) = sender.send(outcome) {
            report_unheard(unheard, place);
        }
        drop(from_outside);
    });
    let ticket = match event_loop.threads.pool().submit(job) {
        Ok(ticket) => ticket,
        Err((error, _)) => panic!("no thread can be had for what blocks: {error}"),
    };
    let future = future(on_cancel, ticket, place);
    let outstanding = Outstanding::new(&event_loop, place);
    let body = deliver(receiver, future.clone(), outstanding, place);
    background::run(&event_loop, body, place);
    future
}

/// A future that a cancel reaches as far as that may be.
fn future<T: 'static, E: CancelAware + 'static>(
    on_cancel: OnCancel,
    ticket: Ticket,
    place: &'static Location<'static>,
) -> Future<T, E> {
    let itself: Rc<OnceCell<WeakFuture<T, E>>> = Rc::default();
    let asked = itself.clone();
    let future = Future::new(
        Kind::Asks(
            WHAT,
            Box::new(move |_| {
                let may_end = ticket.take_back().is_some() || on_cancel == OnCancel::Abandon;
                may_end
                    && asked
                        .get()
                        .and_then(WeakFuture::upgrade)
                        .is_some_and(|future: Future<T, E>| future.finish_cancelled())
            }),
        ),
        place,
    );
    _ = itself.set(future.downgrade());
    future
}

/// Waits for what the thread has to say, and gives it to the future.
async fn deliver<T: 'static, E: CancelAware + 'static>(
    mut receiver: OneshotReceiver<thread::Result<Result<T, E>>>,
    future: Future<T, E>,
    outstanding: Outstanding,
    place: &'static Location<'static>,
) {
    match receiver.recv_as(Wait::new(Reason::Custom(WHAT)).at(place)).await {
        Ok(Some(Ok(outcome))) => {
            if let Err(unheard) = future.finish(outcome) {
                report_unheard(Ok(unheard), place);
            }
        }
        Ok(Some(Err(payload))) => {
            outstanding.0.panicked(payload);
            future.finish_cancelled();
        }
        // It was taken back; or the loop ends and waits no longer.
        Ok(None) | Err(_) => _ = future.finish_cancelled(),
    }
}

/// Nobody waits for it any more.
fn report_unheard<T, E: CancelAware>(outcome: thread::Result<Result<T, E>>, place: &'static Location<'static>) {
    match outcome {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => {
            trefoil_runtime::report_error!(begun = %place, "the error of a function on a thread that was abandoned: {error:?}")
        }
        Err(payload) => {
            trefoil_runtime::report_error!(begun = %place, "a function on a thread that was abandoned panicked");
            runtime::discard(payload);
        }
    }
}

/// The function, with the task-locals that are in force here.
fn with_locals<R, F>(function: F) -> Box<dyn FnOnce() -> R + Send>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    if !runtime::locals_in_force() {
        return Box::new(function);
    }
    let body: Pin<Box<dyn StdFuture<Output = R> + Send>> = Box::pin(async move { function() });
    let mut inheriting = Box::pin(runtime::Inheriting::new(body));
    Box::new(move || match inheriting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("a function does not wait"),
    })
}
