//! The loop from other threads: [`LoopHandle`], and [`run_coroutine_threadsafe`] with its [`RemoteTask`].
//!
//! A call goes by the [`RunHandle`] of the run, in order (R88), and finds the loop by its number, in a list of its thread. A loop may end before
//! its run does. So it has a gate of its own: at its end the loop shuts the gate, and then sends itself a call. When that arrives, all that were let
//! in before have arrived (R89), so no call is accepted and then forgotten.
//!
//! The lock of a gate is held while a call is put into the inbox of the run: no code of others runs there.

use super::event_loop::Loop;
use super::here;
use super::task::Task;
use crate::blocking;
use crate::event::Event;
use std::cell::RefCell;
use std::fmt;
use std::future::Future as StdFuture;
use std::panic::Location;
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use trefoil_runtime::{self as runtime, CancelAware, Cancelled, RunHandle};

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

static NEXT: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The loops of this thread that have handles.
    static LOOPS: RefCell<Vec<(u64, Weak<Loop>)>> = const { RefCell::new(Vec::new()) };
}

/// What a loop keeps of its handles. It keeps no [`RunHandle`]: while there is one, a deadlock is not seen (N10).
#[derive(Clone)]
pub(crate) struct Gate {
    number: u64,
    open: Arc<Mutex<bool>>,
}

impl Gate {
    fn new(event_loop: &Rc<Loop>) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        LOOPS.with(|loops| loops.borrow_mut().push((number, Rc::downgrade(event_loop))));
        Self { number, open: Arc::new(Mutex::new(true)) }
    }

    /// Lets no call in any more, and waits until those that are in have been made.
    pub async fn shut(self, place: &'static Location<'static>) {
        *locked(&self.open) = false;
        let made = Arc::new(Event::new());
        let (number, behind) = (self.number, made.clone());
        // Behind the others twice: in the inbox, and in the queue of the loop.
        let last = move || {
            if let Some(event_loop) = find(number) {
                event_loop.call_soon(place, move || behind.set());
            }
        };
        if runtime::run_handle().run_soon(last).is_ok() {
            _ = made.wait().await;
        }
    }

    /// The loop is gone.
    pub fn forget(&self) {
        *locked(&self.open) = false;
        _ = LOOPS.try_with(|loops| loops.borrow_mut().retain(|(number, _)| *number != self.number));
    }
}

/// The loop with a number, on its thread.
fn find(number: u64) -> Option<Rc<Loop>> {
    let found = LOOPS.try_with(|loops| {
        let loops = loops.borrow();
        loops.iter().find(|(of, _)| *of == number).and_then(|(_, event_loop)| event_loop.upgrade())
    });
    found.ok().flatten()
}

/// The loop has ended, or the run in which the handle was made has: a call from another thread was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopClosed(());

impl fmt::Display for LoopClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the event loop has ended")
    }
}

impl std::error::Error for LoopClosed {}

/// A loop, for other threads: what [`get_running_loop`] returns.
///
/// While there is one, a run in which every task waits is not reported as a deadlock (N10): somebody may still call.
///
/// It is a handle of the run, too. In a later run of the same [`EventLoop`](super::EventLoop) calls by it are refused: make a new one there.
#[derive(Clone)]
pub struct LoopHandle {
    gate: Gate,
    run: RunHandle,
}

impl fmt::Debug for LoopHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoopHandle").field("open", &*locked(&self.gate.open)).finish_non_exhaustive()
    }
}

/// The running loop, as a handle for other threads. Here, what asyncio calls by its loop are functions: [`call_soon`](super::call_soon) and so on.
///
/// # Panics
/// Outside of a loop.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(trefoil_nursery::asyncio::event_loop(async {
/// use trefoil_nursery::{Cancelled, asyncio};
/// let event_loop = asyncio::get_running_loop();
/// let (resolver, future) = asyncio::create_future::<u8, std::io::Error>();
/// # drop((resolver, future));
/// assert!(!event_loop.is_closed());
/// # Ok::<(), Cancelled>(())
/// # })).unwrap();
/// ```
#[track_caller]
pub fn get_running_loop() -> LoopHandle {
    let event_loop = here::running();
    let gate = event_loop.gate.borrow().clone();
    let gate = gate.unwrap_or_else(|| {
        let gate = Gate::new(&event_loop);
        *event_loop.gate.borrow_mut() = Some(gate.clone());
        gate
    });
    LoopHandle { gate, run: runtime::run_handle() }
}

impl LoopHandle {
    /// Has a function called in a turn of the loop soon, in the order of the calls, from any thread: asyncio's
    /// `loop.call_soon_threadsafe`. A call that was accepted is made before the loop ends.
    ///
    /// # Errors
    /// [`LoopClosed`] when the loop has ended.
    ///
    /// # Panics
    /// A panic of the function ends the loop.
    ///
    /// # Examples
    /// ```
    /// # trefoil_nursery::doc_run(trefoil_nursery::asyncio::event_loop(async {
    /// use std::sync::{Arc, atomic::{AtomicBool, Ordering}};
    /// use std::time::Duration;
    /// use trefoil_nursery::{Cancelled, asyncio};
    /// let event_loop = asyncio::get_running_loop();
    /// let called = Arc::new(AtomicBool::new(false));
    /// let call = called.clone();
    /// std::thread::spawn(move || event_loop.call_soon_threadsafe(move || call.store(true, Ordering::SeqCst)));
    /// while !called.load(Ordering::SeqCst) {
    ///     asyncio::sleep(Duration::from_millis(1)).await?;
    /// }
    /// # Ok::<(), Cancelled>(())
    /// # })).unwrap();
    /// ```
    #[track_caller]
    pub fn call_soon_threadsafe(&self, function: impl FnOnce() + Send + 'static) -> Result<(), LoopClosed> {
        let place = Location::caller();
        self.call(move |event_loop| event_loop.call_soon(place, function))
    }

    /// Whether the loop has ended.
    pub fn is_closed(&self) -> bool {
        !*locked(&self.gate.open)
    }

    /// Has a function called on the thread of the loop, outside of its turns.
    fn call(&self, function: impl FnOnce(&Rc<Loop>) + Send + 'static) -> Result<(), LoopClosed> {
        let number = self.gate.number;
        let call = move || {
            if let Some(event_loop) = find(number) {
                function(&event_loop);
            }
        };
        let open = locked(&self.gate.open);
        let refused = if *open { self.run.run_soon(call).map_err(|refused| refused.0) } else { Err(call) };
        drop(open);
        // With it goes what is the caller's.
        refused.map_err(|_call| LoopClosed(()))
    }
}

/// What is known of a task of another thread.
enum State<T, E> {
    Pending,
    Cancelled,
    Done(Result<T, E>),
    /// The result was taken.
    Taken,
    /// The loop ended before the task began.
    Closed,
}

struct Shared<T, E> {
    state: Mutex<State<T, E>>,
    done: Condvar,
    /// The number of the task, when there is one.
    task: AtomicU64,
}

/// No task has it.
const NONE: u64 = 0;

impl<T, E> Shared<T, E> {
    /// Ends it, if it was pending; what was not wanted is returned, to be dropped without the lock.
    fn end(&self, with: State<T, E>) -> Option<State<T, E>> {
        let mut state = locked(&self.state);
        if !matches!(*state, State::Pending) {
            return Some(with);
        }
        *state = with;
        drop(state);
        self.done.notify_all();
        None
    }
}

/// Ends it if nothing else does.
struct Promise<T, E>(Arc<Shared<T, E>>);

impl<T, E> Drop for Promise<T, E> {
    fn drop(&mut self) {
        drop(self.0.end(State::Closed));
    }
}

/// Why there is no result of a [`RemoteTask`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RemoteError {
    /// It has not ended within the time.
    TimedOut,
    /// The loop ended before the task began.
    LoopClosed,
    /// The result was taken by another call.
    Taken,
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RemoteError::TimedOut => "the task has not ended within the time",
            RemoteError::LoopClosed => "the event loop ended before the task began",
            RemoteError::Taken => "the result of the task was taken before",
        })
    }
}

impl std::error::Error for RemoteError {}

/// A task in a loop, for another thread: what [`run_coroutine_threadsafe`] returns, and asyncio calls a `concurrent.futures.Future`.
///
/// Dropping it leaves the task alone.
pub struct RemoteTask<T, E> {
    shared: Arc<Shared<T, E>>,
    event_loop: LoopHandle,
}

impl<T, E> fmt::Debug for RemoteTask<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteTask").field("done", &self.done()).finish_non_exhaustive()
    }
}

impl<T: Send + 'static, E: CancelAware + Send + 'static> RemoteTask<T, E> {
    /// Blocks this thread until the task has ended, for a length of time at most, or without an end; takes the result. That of a task that was
    /// cancelled is a cancellation.
    ///
    /// # Errors
    /// [`RemoteError`]. After a timeout the task runs on.
    ///
    /// # Panics
    /// On a thread that runs a loop: it would block it.
    pub fn result(&self, timeout: impl Into<Option<Duration>>) -> Result<Result<T, E>, RemoteError> {
        blocking::check("RemoteTask::result", "a `Task`");
        let until = timeout.into().map(|length| Instant::now().checked_add(length));
        let mut state = locked(&self.shared.state);
        loop {
            match &*state {
                State::Pending => {}
                State::Cancelled => return Ok(Err(Cancelled::delivered().into())),
                State::Closed => return Err(RemoteError::LoopClosed),
                State::Taken => return Err(RemoteError::Taken),
                State::Done(_) => {
                    let done = std::mem::replace(&mut *state, State::Taken);
                    drop(state);
                    let State::Done(outcome) = done else { unreachable!("looked at under the lock") };
                    return Ok(outcome);
                }
            }
            let done = &self.shared.done;
            state = match until.flatten() {
                None => done.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(RemoteError::TimedOut);
                    }
                    done.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Cancels it: it is cancelled for all who ask here, at once, and the task in the loop is asked to end (O12). False where it had ended.
    pub fn cancel(&self) -> bool {
        if self.shared.end(State::Cancelled).is_some() {
            return false;
        }
        let shared = self.shared.clone();
        // Where the loop has ended, so has the task.
        _ = self.event_loop.call(move |event_loop| {
            let number = shared.task.load(Ordering::Relaxed);
            if let Some(task) = event_loop.tasks().into_iter().find(|task| task.number() == number) {
                task.cancel(None);
            }
        });
        true
    }

    /// Whether it was cancelled, by [`cancel`](Self::cancel) or in the loop.
    pub fn cancelled(&self) -> bool {
        matches!(*locked(&self.shared.state), State::Cancelled)
    }
}

impl<T, E> RemoteTask<T, E> {
    /// Whether it has ended, or never can.
    pub fn done(&self) -> bool {
        !matches!(*locked(&self.shared.state), State::Pending)
    }
}

/// Starts a task in a loop from another thread. What makes the body runs in the loop, and so the body need not be `Send`.
///
/// # Errors
/// [`LoopClosed`] when the loop has ended.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(trefoil_nursery::asyncio::event_loop(async {
/// use std::time::Duration;
/// use trefoil_nursery::{Cancelled, asyncio};
/// let event_loop = asyncio::get_running_loop();
/// let sum = asyncio::to_thread(move || {
///     let task = asyncio::run_coroutine_threadsafe(
///         || async {
///             asyncio::sleep(Duration::from_millis(1)).await?;
///             Ok::<_, Cancelled>(6 * 7)
///         },
///         &event_loop,
///     );
///     task.unwrap().result(Duration::from_secs(10)).unwrap()
/// })
/// .await?;
/// assert_eq!(sum, 42);
/// # Ok::<(), Cancelled>(())
/// # })).unwrap();
/// ```
#[track_caller]
pub fn run_coroutine_threadsafe<M, F, T, E>(make: M, event_loop: &LoopHandle) -> Result<RemoteTask<T, E>, LoopClosed>
where
    M: FnOnce() -> F + Send + 'static,
    F: StdFuture<Output = Result<T, E>> + 'static,
    T: Send + 'static,
    E: CancelAware + Send + 'static,
{
    let place = Location::caller();
    let shared =
        Arc::new(Shared { state: Mutex::new(State::Pending), done: Condvar::new(), task: AtomicU64::new(NONE) });
    let promise = Promise(shared.clone());
    event_loop.call(move |event_loop| {
        let in_loop = event_loop.clone();
        event_loop.call_soon(place, move || {
            if !matches!(*locked(&promise.0.state), State::Pending) {
                // Cancelled before it began: it does not (C6).
                return;
            }
            let task = Task::spawn(async move { make().await }, None, place);
            promise.0.task.store(task.handle().number(), Ordering::Relaxed);
            task.on_done(
                in_loop,
                Box::new(move |future| {
                    let unheard = match future.cancelled() {
                        true => promise.0.end(State::Cancelled),
                        false => future.take().ok().and_then(|outcome| promise.0.end(State::Done(outcome))),
                    };
                    if let Some(State::Done(Err(error))) = unheard {
                        trefoil_runtime::report_error!(made = %place, "the error of a task that was cancelled from another thread: {error:?}");
                    }
                }),
            );
        });
    })?;
    Ok(RemoteTask { shared, event_loop: event_loop.clone() })
}
