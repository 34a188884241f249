//! [`Task`]: a future that the loop runs, and its handle.

use super::control::Control;
use super::event_loop::Loop;
use super::future::{Future, Kind};
use super::here::{self, Here};
use super::waiting::Waiting;
use std::fmt;
use std::future::{Future as StdFuture, IntoFuture};
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use trefoil_runtime::{CancelAware, Cancelled, Edge};

/// A task of the loop, and the [`Future`] of its result: what [`create_task`] returns.
///
/// Clone it, await it, cancel it, ask for its state; it derefs to the future. Dropping the handle leaves the task alone: the loop
/// has it, and cancels it when main is done. An error that nobody looks at is reported when the last handle goes.
///
/// # Cancellation
/// [`cancel`](Future::cancel) is a request. What the task waits for is cancelled (C3), and where it waits for nothing, the next wait is. The
/// cancellation is delivered once (C8): a task that handles it goes on. It is [`cancelled`](Future::cancelled) if it ends with one (C12).
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(trefoil_nursery::asyncio::event_loop(async {
/// use trefoil_nursery::{Cancelled, asyncio};
/// use std::time::Duration;
/// let task = asyncio::create_task(async {
///     asyncio::sleep(Duration::from_secs(3600)).await?;
///     Ok::<_, Cancelled>("done")
/// });
/// asyncio::sleep(Duration::ZERO).await?;
/// assert!(task.cancel() && !task.done());
/// assert_eq!((&task).await, Err(task.result().unwrap().unwrap_err()));
/// assert!(task.cancelled());
/// # Ok::<(), Cancelled>(())
/// # })).unwrap();
/// ```
pub struct Task<T: 'static, E: CancelAware + 'static = Cancelled> {
    future: Future<T, E>,
    control: Rc<Control>,
}

impl<T, E: CancelAware> Clone for Task<T, E> {
    fn clone(&self) -> Self {
        Self { future: self.future.clone(), control: self.control.clone() }
    }
}

impl<T, E: CancelAware> fmt::Debug for Task<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.control.fmt(f)
    }
}

impl<T, E: CancelAware> Deref for Task<T, E> {
    type Target = Future<T, E>;
    fn deref(&self) -> &Future<T, E> {
        &self.future
    }
}

impl<T, E: CancelAware> From<Task<T, E>> for Future<T, E> {
    fn from(task: Task<T, E>) -> Self {
        task.future
    }
}

impl<T: Clone, E: CancelAware + Clone> IntoFuture for &Task<T, E> {
    type Output = Result<T, E>;
    type IntoFuture = Waiting<T, E>;

    /// Waits for the result, and clones it.
    #[track_caller]
    fn into_future(self) -> Waiting<T, E> {
        (&self.future).into_future()
    }
}

impl<T, E: CancelAware> IntoFuture for Task<T, E> {
    type Output = Result<T, E>;
    type IntoFuture = Waiting<T, E>;

    /// Waits for the result, and takes it out.
    #[track_caller]
    fn into_future(self) -> Waiting<T, E> {
        self.future.into_future()
    }
}

impl<T: 'static, E: CancelAware + 'static> Task<T, E> {
    pub(crate) fn spawn<F>(body: F, name: Option<Rc<str>>, place: &'static Location<'static>) -> Self
    where
        F: StdFuture<Output = Result<T, E>> + 'static,
    {
        let event_loop = here::running();
        let control = Control::new(event_loop.clone(), name, place);
        let task = Self { future: Future::new(Kind::Task(control.clone()), place), control };
        event_loop.register(&task.control);
        task.control.queue();
        let step = Step { body: Edge::new(place, body), task: task.clone(), begun: false };
        task.control.set_child(event_loop.spawn_task(step, task.control.given_name(), task.control.number(), place));
        task
    }

    /// EG1 to EG4: the first step is now; a task that has ended with that never is in the queue.
    fn spawn_eagerly<F>(body: F, name: Option<Rc<str>>, place: &'static Location<'static>) -> Self
    where
        F: StdFuture<Output = Result<T, E>> + 'static,
    {
        let event_loop = here::running();
        let control = Control::new(event_loop.clone(), name, place);
        let task = Self { future: Future::new(Kind::Task(control.clone()), place), control };
        event_loop.register(&task.control);
        let mut body = Box::pin(body);
        let stepped = {
            let _entered = here::enter(Here { event_loop: event_loop.clone(), task: Some(task.control.clone()) });
            // Whatever wakes it before its second step need not: that comes in the next turn.
            let step = AssertUnwindSafe(|| body.as_mut().poll(&mut Context::from_waker(Waker::noop())));
            event_loop.step(|| catch_unwind(step))
        };
        match stepped {
            Ok(Poll::Pending) => {
                task.control.queue();
                let step = Step { body: Edge::new(place, body), task: task.clone(), begun: true };
                task.control.set_child(event_loop.spawn_task(
                    step,
                    task.control.given_name(),
                    task.control.number(),
                    place,
                ));
            }
            Ok(Poll::Ready(outcome)) => {
                discard(&task, body);
                Step::<F, T, E>::finish(&task, outcome);
            }
            Err(payload) => {
                event_loop.panicked(payload);
                discard(&task, body);
                Step::<F, T, E>::finish(&task, Err(Cancelled::delivered().into()));
            }
        }
        task
    }

    pub(crate) fn control(&self) -> &Rc<Control> {
        &self.control
    }

    /// A handle that knows nothing of the types.
    pub fn handle(&self) -> AnyTask {
        AnyTask { control: self.control.clone() }
    }

    /// How many cancels were asked for and not taken back (C2).
    pub fn cancelling(&self) -> u32 {
        self.control.cancelling()
    }

    /// Takes one request to cancel back: how many are left. The last one takes a cancel along that was not delivered yet (C13).
    pub fn uncancel(&self) -> u32 {
        self.control.uncancel()
    }

    /// Its name: `Task-1`, or the one that it was given.
    pub fn name(&self) -> Rc<str> {
        self.control.name()
    }

    /// Gives it another name.
    pub fn set_name(&self, name: impl Into<Rc<str>>) {
        self.control.set_name(name.into());
    }
}

/// A task of the loop, whatever its result is: from [`current_task`] and [`all_tasks`].
#[derive(Clone)]
pub struct AnyTask {
    control: Rc<Control>,
}

impl fmt::Debug for AnyTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.control.fmt(f)
    }
}

impl PartialEq for AnyTask {
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.control, &other.control)
    }
}

impl Eq for AnyTask {}

impl AnyTask {
    pub(crate) fn new(control: Rc<Control>) -> Self {
        Self { control }
    }

    pub(crate) fn number(&self) -> u64 {
        self.control.number()
    }

    /// As [`Future::cancel`] of a task.
    pub fn cancel(&self) -> bool {
        self.control.cancel(None)
    }

    /// The same, with a message for those who look (C15).
    pub fn cancel_with(&self, message: impl Into<Rc<str>>) -> bool {
        self.control.cancel(Some(message.into()))
    }

    /// As [`Task::cancelling`].
    pub fn cancelling(&self) -> u32 {
        self.control.cancelling()
    }

    /// As [`Task::uncancel`].
    pub fn uncancel(&self) -> u32 {
        self.control.uncancel()
    }

    /// What the last cancel had to say (C15).
    pub fn cancel_message(&self) -> Option<Rc<str>> {
        self.control.message()
    }

    /// Whether it has ended.
    pub fn done(&self) -> bool {
        self.control.is_done()
    }

    /// As [`Task::name`].
    pub fn name(&self) -> Rc<str> {
        self.control.name()
    }

    /// Where it was created.
    pub fn place(&self) -> &'static Location<'static> {
        self.control.place()
    }
}

/// Starts a task, which runs from the next turn on.
///
/// # Panics
/// Outside of a loop.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(trefoil_nursery::asyncio::event_loop(async {
/// use trefoil_nursery::{Cancelled, asyncio};
/// let task = asyncio::create_task(async { Ok::<_, Cancelled>(6 * 7) });
/// assert_eq!(task.await?, 42);
/// # Ok::<(), Cancelled>(())
/// # })).unwrap();
/// ```
#[track_caller]
pub fn create_task<F, T, E>(body: F) -> Task<T, E>
where
    F: StdFuture<Output = Result<T, E>> + 'static,
    T: 'static,
    E: CancelAware + 'static,
{
    Task::spawn(body, None, Location::caller())
}

/// A task with a name, or one that starts at once: asyncio's `create_task(.., name=.., eager_start=..)`.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(trefoil_nursery::asyncio::event_loop(async {
/// use trefoil_nursery::{Cancelled, asyncio};
/// let task = asyncio::TaskBuilder::new().name("eager").eager_start(true).create_task(async { Ok::<_, Cancelled>(1) });
/// assert!(task.done());
/// assert_eq!((&*task.name(), task.await?), ("eager", 1));
/// # Ok::<(), Cancelled>(())
/// # })).unwrap();
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "it builds a task when it is told to"]
pub struct TaskBuilder {
    name: Option<Rc<str>>,
    eager: bool,
    place: Option<&'static Location<'static>>,
}

impl TaskBuilder {
    /// That of a task as [`create_task`] makes it.
    pub fn new() -> Self {
        Self::default()
    }

    /// The name of the task.
    pub fn name(self, name: impl Into<Rc<str>>) -> Self {
        Self { name: Some(name.into()), ..self }
    }

    /// Whether the first step of the task is made while it is created, in the task of its own (EG1). One that need not wait has ended then,
    /// and no turn is lost (EG2).
    pub fn eager_start(self, eager: bool) -> Self {
        Self { eager, ..self }
    }

    /// On behalf of code at another place.
    #[doc(hidden)]
    pub fn place(self, place: &'static Location<'static>) -> Self {
        Self { place: Some(place), ..self }
    }

    /// Starts the task.
    ///
    /// # Panics
    /// Outside of a loop.
    #[track_caller]
    pub fn create_task<F, T, E>(self, body: F) -> Task<T, E>
    where
        F: StdFuture<Output = Result<T, E>> + 'static,
        T: 'static,
        E: CancelAware + 'static,
    {
        let place = self.place.unwrap_or(Location::caller());
        if self.eager { Task::spawn_eagerly(body, self.name, place) } else { Task::spawn(body, self.name, place) }
    }
}

/// The task that asks; `None` in a callback, and outside of every loop.
pub fn current_task() -> Option<AnyTask> {
    here::task().map(AnyTask::new)
}

/// The tasks of the running loop that are not done, the oldest first.
///
/// # Panics
/// Outside of a loop.
#[track_caller]
pub fn all_tasks() -> Vec<AnyTask> {
    here::running().tasks().into_iter().map(AnyTask::new).collect()
}

/// Drops the body of a task, as that task; a panic is the loop's.
fn discard<B, T: 'static, E: CancelAware + 'static>(task: &Task<T, E>, body: B) {
    let event_loop = task.control.event_loop();
    let _entered = here::enter(Here { event_loop: event_loop.clone(), task: Some(task.control.clone()) });
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(body))) {
        event_loop.panicked(payload);
    }
}

/// The child of the nursery that runs a task.
struct Step<F, T: 'static, E: CancelAware + 'static> {
    body: Edge<F>,
    task: Task<T, E>,
    begun: bool,
}

impl<F, T: 'static, E: CancelAware + 'static> Step<F, T, E> {
    fn here(task: &Task<T, E>) -> Here {
        Here { event_loop: task.control.event_loop().clone(), task: Some(task.control.clone()) }
    }

    /// The body has ended, and is gone.
    fn finish(task: &Task<T, E>, outcome: Result<T, E>) {
        // C10: a cancel that came too late for a wait still decides, and the value is lost. C11: it does not outrank an error.
        let cancelled = match &outcome {
            Ok(_) => task.control.take_must_cancel(),
            Err(error) => error.is_cancelled(),
        };
        let event_loop = task.control.event_loop();
        task.control.set_done();
        // Wakers of combinators, and a value that is lost, are code of others, which may panic. The loop must not wait for a task that has
        // ended.
        let mut lost = None;
        let told = catch_unwind(AssertUnwindSafe(|| {
            if cancelled {
                lost = Some(outcome);
                task.future.finish_cancelled();
            } else {
                lost = task.future.finish(outcome).err();
            }
        }));
        Loop::unregister(event_loop, &task.control);
        for ended in [told, catch_unwind(AssertUnwindSafe(|| drop(lost)))] {
            if let Err(payload) = ended {
                event_loop.panicked(payload);
            }
        }
    }
}

impl<F, T, E> StdFuture for Step<F, T, E>
where
    F: StdFuture<Output = Result<T, E>>,
    T: 'static,
    E: CancelAware + 'static,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // SAFETY: the body is pinned, and dropped in place; nothing else is pinned.
        let this = unsafe { self.get_unchecked_mut() };
        // SAFETY: as above.
        let mut body = unsafe { Pin::new_unchecked(&mut this.body) };
        if !body.has_body() {
            return Poll::Ready(());
        }
        let control = this.task.control.clone();
        control.begin_turn();
        let _entered = here::enter(Self::here(&this.task));
        // C6: it does not run a line.
        let outcome = if !std::mem::replace(&mut this.begun, true) && control.take_must_cancel() {
            Ok(Err(Cancelled::delivered().into()))
        } else {
            match catch_unwind(AssertUnwindSafe(|| body.as_mut().poll_body(cx))) {
                Ok(Poll::Pending) if control.stepped(&body, cx.waker()) => {
                    tracing::debug!(task = %control.name(), "a cancelled task pended on nothing known, and was dropped (N13)");
                    Ok(Err(Cancelled::delivered().into()))
                }
                Ok(Poll::Pending) => return Poll::Pending,
                Ok(Poll::Ready(outcome)) => Ok(outcome),
                Err(payload) => Err(payload),
            }
        };
        let dropped = catch_unwind(AssertUnwindSafe(|| body.clear()));
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(payload) => {
                this.task.control.event_loop().panicked(payload);
                Err(Cancelled::delivered().into())
            }
        };
        if let Err(payload) = dropped {
            this.task.control.event_loop().panicked(payload);
        }
        Self::finish(&this.task, outcome);
        Poll::Ready(())
    }
}

impl<F, T: 'static, E: CancelAware + 'static> Drop for Step<F, T, E> {
    /// It is dropped before its end with the loop, or never began since that had ended.
    fn drop(&mut self) {
        if !self.body.has_body() {
            return;
        }
        let _entered = here::enter(Self::here(&self.task));
        // Whatever the body does on its way out: who has a handle of the task is told that it has ended.
        let dropped = catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: the body is pinned, and dropped in place.
            unsafe { Pin::new_unchecked(&mut self.body) }.clear();
        }));
        Self::finish(&self.task, Err(Cancelled::delivered().into()));
        match dropped {
            Err(payload) if std::thread::panicking() => trefoil_runtime::discard(payload),
            Err(payload) => resume_unwind(payload),
            Ok(()) => {}
        }
    }
}
