//! [`timeout`], [`timeout_at`] and [`wait_for`]: deadlines that cancel the task that is in them.

use super::awaitable::Awaitable;
use super::control::Control;
use super::event_loop::{Loop, call_at, cancel_call};
use super::future::{AnyFuture, Future};
use super::here;
use super::timers::Call;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::Location;
use std::rc::Rc;
use std::time::{Duration, Instant};
use trefoil_runtime::{self as runtime, CancelAware, Cancelled, DeadlineAware, Reason, TimedOut};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Active,
    Expiring,
    Expired,
    Finished,
}

struct Inner {
    event_loop: Rc<Loop>,
    task: Rc<Control>,
    /// How many cancels of the task there were at the entry (T1).
    cancelling: u32,
    state: Cell<State>,
    when: Cell<Option<u64>>,
    timer: RefCell<Option<Rc<Call>>>,
    place: &'static Location<'static>,
}

/// A deadline, seen from its body and from elsewhere: asyncio's `Timeout`. It is what the body of [`timeout`] is given; clone it, keep it.
#[derive(Clone)]
pub struct Timeout {
    inner: Rc<Inner>,
}

impl fmt::Debug for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timeout").field("state", &self.inner.state.get()).field("when", &self.when()).finish()
    }
}

/// A timeout that has expired or was left cannot be moved (T9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotActive {
    /// Its time is over.
    Expired,
    /// Its body has ended.
    Finished,
}

impl fmt::Display for NotActive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotActive::Expired => "the timeout has expired",
            NotActive::Finished => "the timeout was left",
        })
    }
}

impl std::error::Error for NotActive {}

impl Timeout {
    fn enter(when: Option<u64>, place: &'static Location<'static>) -> Self {
        let event_loop = here::running();
        let Some(task) = here::task() else { panic!("a timeout is for a task, which it cancels (T1)") };
        let cancelling = task.cancelling();
        let this = Self {
            inner: Rc::new(Inner {
                event_loop,
                task,
                cancelling,
                state: Cell::new(State::Active),
                when: Cell::new(when),
                timer: RefCell::new(None),
                place,
            }),
        };
        this.arm();
        this
    }

    /// The deadline; `None` where there is none.
    pub fn when(&self) -> Option<Instant> {
        self.inner.when.get().and_then(runtime::instant)
    }

    /// Whether the time was over before the body had ended, whatever that made of it (T6).
    pub fn expired(&self) -> bool {
        matches!(self.inner.state.get(), State::Expiring | State::Expired)
    }

    /// Moves the deadline; one that is past expires in the next turn, `None` never does.
    ///
    /// # Errors
    /// [`NotActive`] when it has expired, or was left (T9).
    pub fn reschedule(&self, when: impl Into<Option<Instant>>) -> Result<(), NotActive> {
        match self.inner.state.get() {
            State::Active => {}
            State::Expiring | State::Expired => return Err(NotActive::Expired),
            State::Finished => return Err(NotActive::Finished),
        }
        self.inner.when.set(when.into().map(runtime::nanos));
        self.disarm();
        self.arm();
        Ok(())
    }

    fn arm(&self) {
        let Inner { event_loop, .. } = &*self.inner;
        let Some(when) = self.inner.when.get() else { return };
        let this = self.clone();
        let expire = Box::new(move || this.expire());
        let call = if when <= runtime::now_nanos() {
            // T11.
            let call = Call::new(when, expire);
            let called = call.clone();
            event_loop.call_soon(self.inner.place, move || called.call());
            call
        } else {
            call_at(event_loop, when, expire)
        };
        *self.inner.timer.borrow_mut() = Some(call);
    }

    fn disarm(&self) {
        let timer = self.inner.timer.borrow_mut().take();
        if let Some(timer) = timer {
            cancel_call(&self.inner.event_loop, &timer);
        }
    }

    /// T2.
    fn expire(&self) {
        drop(self.inner.timer.borrow_mut().take());
        self.inner.task.cancel(None);
        self.inner.state.set(State::Expiring);
    }

    /// The body has ended. Whether a cancellation that comes out of it is of this timeout (T3, T4).
    fn leave(&self) -> bool {
        self.disarm();
        match self.inner.state.get() {
            State::Expiring => {
                self.inner.state.set(State::Expired);
                self.inner.task.uncancel() <= self.inner.cancelling
            }
            _ => {
                self.inner.state.set(State::Finished);
                false
            }
        }
    }
}

/// Leaves a timeout whose body is dropped.
struct Leave<'a>(&'a Timeout);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if matches!(self.0.inner.state.get(), State::Active | State::Expiring) {
            self.0.leave();
        }
    }
}

async fn within<F, T, E>(when: Option<u64>, place: &'static Location<'static>, body: F) -> Result<T, E::Failed>
where
    F: AsyncFnOnce(Timeout) -> Result<T, E>,
    E: DeadlineAware,
{
    let timeout = Timeout::enter(when, place);
    let guard = Leave(&timeout);
    let ended = body(timeout.clone()).await;
    let ours = timeout.leave();
    drop(guard);
    match ended {
        Ok(value) => Ok(value),
        Err(error) if ours && error.is_cancelled() => Err(TimedOut::new().into()),
        Err(error) => Err(error.into()),
    }
}

/// Runs a body for a length of time at most: when that is over, the task is cancelled, once, and what comes out is [`TimedOut`]. Without a
/// length it is never over, until it is [rescheduled](Timeout::reschedule).
///
/// # Errors
/// [`TimedOut`] when the time was over and the body passed the cancellation on, and nobody else has cancelled the task (T3, T4). Otherwise those
/// of the body: what it swallows is swallowed (T6). As for [`fail_after`](crate::fail_after), an error type that cannot say that a deadline
/// passed becomes [`CancelledOrTimedOut`](crate::CancelledOrTimedOut).
///
/// # Cancellation
/// The body is told at its wait; code that does not wait is not stopped (T11).
///
/// # Panics
/// Outside of a task.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(trefoil_nursery::asyncio::event_loop(async {
/// use std::{io, time::Duration};
/// use trefoil_nursery::asyncio;
/// let late = asyncio::timeout(Duration::from_millis(1), async |_| {
///     asyncio::sleep(Duration::from_secs(3600)).await?;
///     Ok::<_, io::Error>(())
/// })
/// .await;
/// assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
///
/// let in_time = asyncio::timeout(Duration::from_millis(1), async |timeout: asyncio::Timeout| {
///     timeout.reschedule(None).unwrap();
///     asyncio::sleep(Duration::from_millis(5)).await?;
///     Ok::<_, io::Error>(timeout.expired())
/// })
/// .await;
/// assert!(!in_time?);
/// # Ok::<(), io::Error>(())
/// # })).unwrap();
/// ```
#[track_caller]
pub fn timeout<F, T, E>(
    delay: impl Into<Option<Duration>>,
    body: F,
) -> impl std::future::Future<Output = Result<T, E::Failed>>
where
    F: AsyncFnOnce(Timeout) -> Result<T, E>,
    E: DeadlineAware,
{
    let (delay, place) = (delay.into(), Location::caller());
    async move { within(delay.map(|delay| runtime::after(runtime::now_nanos(), delay)), place, body).await }
}

/// Runs a body until an instant at most, on the clock of the run (T14). Otherwise as [`timeout`].
///
/// # Errors
/// As for [`timeout`].
///
/// # Panics
/// Outside of a task.
#[track_caller]
pub fn timeout_at<F, T, E>(
    when: impl Into<Option<Instant>>,
    body: F,
) -> impl std::future::Future<Output = Result<T, E::Failed>>
where
    F: AsyncFnOnce(Timeout) -> Result<T, E>,
    E: DeadlineAware,
{
    let (when, place) = (when.into(), Location::caller());
    async move { within(when.map(runtime::nanos), place, body).await }
}

/// Awaits something for a length of time at most: asyncio's `wait_for`. Async code runs in the task that calls it (F3).
///
/// When the time is over, what is awaited is cancelled, and **awaited to its end** (F4): so this may take longer. A task or future that is to live on is
/// given in a [`shield`](super::shield) (F10, F11). Without time, a task or future that is done gives its result, and async code never runs (F2).
///
/// # Errors
/// [`TimedOut`], as for [`timeout`]; otherwise those of what is awaited (F5, F6).
///
/// # Cancellation
/// What is awaited is cancelled (F7).
///
/// # Panics
/// Outside of a task.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(trefoil_nursery::asyncio::event_loop(async {
/// use std::{io, time::Duration};
/// use trefoil_nursery::asyncio;
/// let slow = asyncio::create_task(async {
///     asyncio::sleep(Duration::from_secs(3600)).await?;
///     Ok::<_, io::Error>(())
/// });
/// let late = asyncio::wait_for(slow.clone(), Duration::from_millis(1)).await;
/// assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
/// assert!(slow.cancelled());
/// # Ok::<(), io::Error>(())
/// # })).unwrap();
/// ```
#[track_caller]
pub fn wait_for<A>(
    awaitable: A,
    time: impl Into<Option<Duration>>,
) -> impl std::future::Future<Output = Result<A::Value, <A::Error as DeadlineAware>::Failed>>
where
    A: Awaitable,
    A::Error: DeadlineAware,
{
    let (time, place) = (time.into(), Location::caller());
    async move {
        if !time.is_some_and(|time| time.is_zero()) {
            let when = time.map(|time| runtime::after(runtime::now_nanos(), time));
            return within(when, place, async |_| awaitable.wait_from(place).await).await;
        }
        let ensured = awaitable.ensure(place);
        if !ensured.future.done() {
            if let Err(cancelled) = cancel_and_wait(&ensured.future, place).await {
                return Err(<A::Error as From<Cancelled>>::from(cancelled).into());
            }
            if ensured.future.cancelled() {
                return Err(TimedOut::new().into());
            }
        }
        ensured.outcome().map_err(Into::into)
    }
}

/// A callback that goes when it is not wanted any more.
struct Callback(Rc<dyn AnyFuture>, u64);

impl Drop for Callback {
    fn drop(&mut self) {
        self.0.remove(self.1);
    }
}

/// Cancels a future, and waits until it has ended. The wait can be cancelled for itself.
async fn cancel_and_wait<T: 'static, E: CancelAware + 'static>(
    future: &Future<T, E>,
    place: &'static Location<'static>,
) -> Result<(), Cancelled> {
    let waiter = Future::<(), Cancelled>::pending(Reason::Custom("the end of what was cancelled"));
    let release = waiter.clone();
    let callback = future.on_done(here::running(), Box::new(move |_| _ = release.finish(Ok(()))));
    let _callback = Callback(future.any(), callback);
    future.cancel();
    waiter.wait_at(place).await
}
