//! The loop: a nursery of the core, whose children are the tasks and callbacks, and whose queue is asyncio's queue of what is ready.

use super::background::Background;
use super::control::{Cancels, Control};
use super::here::{self, Here};
use super::loop_handle::Gate;
use super::task::Task;
use super::threads::{GRACE, Threads};
use super::timers::{Alarm, Call, Timers};
use super::unhandled::ExceptionHandler;
use crate::nursery::{Local, Name, Nursery, Open};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use trefoil_runtime::{self as runtime, CancelAware, Cancelled, ChildKey, Payload};

type Handle = Nursery<'static, 'static, Cancelled, Local>;

/// What the tasks of a loop share.
pub(crate) struct Loop {
    /// There from the first to the last poll of [`event_loop`], which owns the nursery, and takes this away before that goes.
    nursery: Cell<Option<Handle>>,
    pub timers: Timers,
    /// The tasks that are not done, by number.
    tasks: RefCell<BTreeMap<u64, Rc<Control>>>,
    next: Cell<u64>,
    /// The number of the task that is run until it is done.
    main: Cell<u64>,
    /// When that is done, what is left over is cancelled.
    closing: Cell<bool>,
    /// The first panic of a task or callback.
    panic: RefCell<Option<Payload>>,
    /// The body of the nursery.
    body: RefCell<Option<Waker>>,
    /// The turn that runs. What is made ready in one turn is run in the next (O1).
    turn: Cell<u64>,
    /// The turn after which what is left over is cancelled: the one after that in which main ended, since asyncio learns of the end by a
    /// callback, and runs what is ready by then (O6).
    last_turn: Cell<u64>,
    /// The turn for which the body is in the queue, where it was put there by us.
    body_queued: Cell<Option<u64>>,
    /// The tasks up to this number have been cancelled at the end.
    told: Cell<u64>,
    /// Timers that were due when they were made: they run in the next turn, behind what is ready by then (O2).
    due_at_once: RefCell<Vec<Rc<Call>>>,
    /// Who is told of errors that nobody looks at.
    pub handler: RefCell<Option<ExceptionHandler>>,
    pub cancels: Cancels,
    pub background: Background,
    pub threads: Threads,
    /// For other threads; `None` until somebody asks for a handle.
    pub gate: RefCell<Option<Gate>>,
}

impl fmt::Debug for Loop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loop").field("tasks", &self.tasks.borrow().len()).finish_non_exhaustive()
    }
}

impl Loop {
    fn new() -> Rc<Self> {
        Rc::new(Self {
            nursery: Cell::new(None),
            timers: Timers::new(),
            tasks: RefCell::new(BTreeMap::new()),
            next: Cell::new(1),
            main: Cell::new(0),
            closing: Cell::new(false),
            panic: RefCell::new(None),
            body: RefCell::new(None),
            turn: Cell::new(0),
            last_turn: Cell::new(u64::MAX),
            body_queued: Cell::new(None),
            told: Cell::new(0),
            handler: RefCell::new(None),
            due_at_once: RefCell::new(Vec::new()),
            cancels: Cancels::default(),
            background: Background::default(),
            threads: Threads::new(),
            gate: RefCell::new(None),
        })
    }

    /// The number of the next task.
    pub fn number(&self) -> u64 {
        self.next.replace(self.next.get() + 1)
    }

    /// Puts a child behind what is ready. Where the loop has ended it is dropped.
    pub fn spawn(&self, child: impl Future<Output = ()> + 'static, place: &'static Location<'static>) {
        if let Some(nursery) = self.nursery.get() {
            let child = async move {
                child.await;
                Ok(())
            };
            drop(nursery.spawn_any(child, place));
        }
    }

    /// The same for a task, which has its name in the core: what names it in waits for it.
    pub fn spawn_task(
        &self,
        child: impl Future<Output = ()> + 'static,
        name: Option<Rc<str>>,
        number: u64,
        place: &'static Location<'static>,
    ) -> ChildKey {
        let Some(nursery) = self.nursery.get() else { return ChildKey::default() };
        let child = async move {
            child.await;
            Ok(())
        };
        match name {
            None => nursery.spawn_any_called(Numbered(number), child, place).key(),
            Some(name) => nursery.spawn_any_named(name.as_ref().into(), child, place).key(),
        }
    }

    /// Makes a step of a task that has no child yet: in the scope that its child will be in, whatever scope of the core its creator is in.
    pub fn step<R>(&self, step: impl FnOnce() -> R) -> R {
        match self.nursery.get() {
            // SAFETY: code of the loop runs while the nursery is polled, or ends its children, further up on this stack: it is left after that. Before it
            // is dropped, it is taken away.
            Some(nursery) => unsafe { nursery.scope().within(step) },
            None => step(),
        }
    }

    /// Calls `function` behind what is ready, in no task (O1).
    pub fn call_soon(self: &Rc<Self>, place: &'static Location<'static>, function: impl FnOnce() + 'static) {
        self.queue_call(self.next_turn(), place, function);
    }

    /// Calls a callback, in no task; a panic is the loop's.
    fn call(self: &Rc<Self>, function: impl FnOnce()) {
        let _entered = here::enter(Here { event_loop: self.clone(), task: None });
        if let Err(payload) = catch_unwind(AssertUnwindSafe(function)) {
            self.panicked(payload);
        }
    }

    /// A task or a callback panicked: the loop ends as it does when main is done, and then with this panic.
    pub fn panicked(&self, payload: Payload) {
        let first = self.panic.borrow().is_none();
        if first {
            *self.panic.borrow_mut() = Some(payload);
            self.end();
        } else {
            trefoil_runtime::report_error!("a task panicked while another panic waits for its loop to end");
            runtime::discard(payload);
        }
    }

    pub fn register(&self, task: &Rc<Control>) {
        self.tasks.borrow_mut().insert(task.number(), task.clone());
    }

    pub fn unregister(&self, task: &Control) {
        let gone = self.tasks.borrow_mut().remove(&task.number());
        drop(gone);
        let last = self.tasks.borrow().is_empty();
        if task.number() == self.main.get() {
            self.end();
        } else if last {
            self.wake_body();
        }
    }

    /// Main ended, or something panicked.
    fn end(&self) {
        self.last_turn.set(self.last_turn.get().min(self.next_turn()));
        self.wake_body();
    }

    /// The turn in which that runs which is made ready now.
    pub fn next_turn(&self) -> u64 {
        self.turn.get() + 1
    }

    /// Something runs that was put in the queue for that turn. What is left over is cancelled before the first of a turn that comes after
    /// the last.
    pub fn begin_turn(self: &Rc<Self>, turn: u64) {
        if turn > self.turn.get() {
            self.turn.set(turn);
            self.cancel_left_over();
            let mut due = self.due_at_once.take();
            due.sort_by_key(|call| call.when());
            for call in due {
                self.queue_call(turn, Location::caller(), move || call.call());
            }
        }
    }

    /// Puts a callback behind what is ready, for that turn.
    fn queue_call(self: &Rc<Self>, turn: u64, place: &'static Location<'static>, function: impl FnOnce() + 'static) {
        let event_loop = self.clone();
        self.spawn(
            async move {
                event_loop.begin_turn(turn);
                event_loop.call(function);
            },
            place,
        );
    }

    /// Cancels each task that is left over once, if the last turn is over (R2, R3). Those that are made meanwhile are told, too: nothing
    /// is left behind.
    fn cancel_left_over(&self) {
        if !self.closing.get() || self.turn.get() <= self.last_turn.get() {
            return;
        }
        let left: Vec<_> = self.tasks.borrow().range(self.told.get() + 1..).map(|(_, task)| task.clone()).collect();
        for task in left {
            self.told.set(task.number());
            // What waits may be woken by way of a combinator, which is code of others.
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| task.cancel(None))) {
                self.panicked(payload);
            }
        }
    }

    /// Main has ended, and all that ran in that turn and the next.
    fn is_stopped(&self) -> bool {
        !self.closing.get() && self.turn.get() > self.last_turn.get()
    }

    /// The tasks that are not done, the oldest first.
    pub fn tasks(&self) -> Vec<Rc<Control>> {
        self.tasks.borrow().values().cloned().collect()
    }

    pub fn wake_body(&self) {
        if self.body_queued.get().is_none() {
            self.body_queued.set(Some(self.next_turn()));
        }
        let waker = self.body.borrow().clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The body of the nursery: runs timers until main is done, or something panicked; then cancels what is left, once, and waits for it
    /// (R2, R3).
    async fn body(self: Rc<Self>, place: &'static Location<'static>) -> Result<(), Cancelled> {
        let mut alarm = Alarm::new(place);
        let mut closing = None;
        poll_fn(|cx: &mut Context<'_>| {
            let old = self.body.replace(Some(cx.waker().clone()));
            drop(old);
            if let Some(turn) = self.body_queued.take() {
                self.begin_turn(turn);
            }
            // What is due runs in a turn of its own.
            let turn = self.next_turn();
            alarm.poll(&self.timers, cx, |call| {
                self.begin_turn(turn);
                self.call(move || call.call());
            });
            if self.last_turn.get() == u64::MAX {
                return Poll::Pending;
            }
            if self.turn.get() <= self.last_turn.get() {
                self.wake_body();
                return Poll::Pending;
            }
            self.cancel_left_over();
            if !self.closing.get() {
                return Poll::Pending;
            }
            if !self.tasks.borrow().is_empty() {
                return Poll::Pending;
            }
            // Other threads may still make tasks until this has ended, and then there may be some.
            let closing = closing.get_or_insert_with(|| Some(Box::pin(self.clone().close(place))));
            if let Some(close) = closing {
                if close.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                *closing = None;
            }
            if self.tasks.borrow().is_empty() {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        self.background.cancel();
        Ok(())
    }

    /// What comes behind the tasks: the functions on threads, for a time (R4), and then the calls of other threads.
    async fn close(self: Rc<Self>, place: &'static Location<'static>) {
        if self.threads.outstanding() > 0 {
            let limit = self.threads.limit.get();
            self.wait_for_threads(limit.min(GRACE)).await;
            let (left, begun) = (self.threads.outstanding(), self.threads.begun());
            if left > 0 && limit > GRACE {
                trefoil_runtime::report_warn!(
                    begun = %begun,
                    "the loop has come to its end, and waits for functions on threads ({left}), for {limit:?} at most: see `set_executor_timeout`"
                );
                self.wait_for_threads(limit - GRACE).await;
            }
            let (left, begun) = (self.threads.outstanding(), self.threads.begun());
            if left > 0 {
                trefoil_runtime::report_warn!(
                    begun = %begun,
                    "functions on threads ({left}) did not end in time, and are left alone"
                );
            }
        }
        let gate = self.gate.borrow().clone();
        if let Some(gate) = gate {
            gate.shut(place).await;
        }
    }
}

impl Loop {
    /// Waits until none is left, for so long at most.
    async fn wait_for_threads(&self, limit: Duration) {
        let mut limit = pin!(runtime::sleep(limit));
        poll_fn(|cx| match self.threads.outstanding() {
            0 => Poll::Ready(()),
            _ => limit.as_mut().poll(cx).map(drop),
        })
        .await;
    }
}

/// Takes away what leads into the nursery before that goes.
struct Detach(Rc<Loop>);

impl Drop for Detach {
    fn drop(&mut self) {
        self.0.nursery.set(None);
        drop(self.0.body.take());
        let gate = self.0.gate.take();
        if let Some(gate) = gate {
            gate.forget();
        }
        self.0.timers.close();
        let due = self.0.due_at_once.take();
        drop(due);
        let tasks = self.0.tasks.take();
        drop(tasks);
        // It may have a handle of a task, which has the loop.
        let handler = self.0.handler.take();
        drop(handler);
    }
}

type Body = Pin<Box<dyn Future<Output = Result<(), Cancelled>>>>;

/// An event loop that runs several mains, one after the other, and keeps what they leave running: asyncio's loop object, as its `Runner` uses
/// it. It runs while one of its futures is awaited; inside of a run of Trefoil, which may be another one each time.
///
/// For one main there is [`event_loop`]. Close it with [`close`](Self::close): dropped, it drops its tasks where they wait.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use std::time::Duration;
/// use trefoil_nursery::{Cancelled, asyncio};
/// let mut event_loop = asyncio::EventLoop::new();
/// let left = event_loop
///     .run_until_complete(async {
///         let sleep = asyncio::sleep(Duration::from_millis(1));
///         Ok::<_, Cancelled>(asyncio::create_task(async { sleep.await.map(|()| "done later") }))
///     })
///     .await
///     .unwrap();
/// assert!(!left.done());
/// assert_eq!(event_loop.run_until_complete(async { left.await }).await, Ok("done later"));
/// event_loop.close().await;
/// # });
/// ```
pub struct EventLoop {
    // The order of the fields is that of their end.
    detach: Detach,
    open: Pin<Box<Open<'static, Body, Cancelled, Local>>>,
    place: &'static Location<'static>,
}

impl fmt::Debug for EventLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.detach.0.fmt(f)
    }
}

impl Default for EventLoop {
    #[track_caller]
    fn default() -> Self {
        Self::new()
    }
}

impl EventLoop {
    /// A loop in which nothing runs yet.
    #[track_caller]
    pub fn new() -> Self {
        Self::at(Location::caller())
    }

    fn at(place: &'static Location<'static>) -> Self {
        let event_loop = Loop::new();
        let inner = event_loop.clone();
        // The handle is not branded: it is in `event_loop` alone, and `Detach` takes it away before `open` is dropped.
        let body = move |nursery: Handle| {
            // What is around is told by way of main.
            nursery.set_shield(true);
            inner.nursery.set(Some(nursery));
            Box::pin(inner.body(place)) as Body
        };
        Self { open: Box::pin(Open::new(body, place)), detach: Detach(event_loop), place }
    }

    /// Runs the loop until `main`, a task of it, is done. What is left over goes on when the loop is run again.
    ///
    /// # Errors
    /// Those of `main`.
    ///
    /// # Cancellation
    /// When the scope around is cancelled, `main` is (R5).
    ///
    /// # Panics
    /// With a panic of a task or of a callback.
    #[track_caller]
    pub fn run_until_complete<F, T, E>(&mut self, main: F) -> impl Future<Output = Result<T, E>>
    where
        F: Future<Output = Result<T, E>> + 'static,
        T: 'static,
        E: CancelAware + 'static,
    {
        let place = Location::caller();
        self.complete(main, place)
    }

    async fn complete<F, T, E>(&mut self, main: F, place: &'static Location<'static>) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>> + 'static,
        T: 'static,
        E: CancelAware + 'static,
    {
        let event_loop = self.detach.0.clone();
        let main = {
            let _entered = here::enter(Here { event_loop: event_loop.clone(), task: None });
            Task::spawn(main, None, place)
        };
        event_loop.main.set(main.control().number());
        event_loop.last_turn.set(u64::MAX);
        let mut around = Some(Box::pin(runtime::sleep_forever_at(place)));
        poll_fn(|cx| {
            if around.as_mut().is_some_and(|around| around.as_mut().poll(cx).is_ready()) {
                around = None;
                main.cancel();
            }
            if self.poll_nursery(cx).is_ready() || event_loop.is_stopped() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        if let Some(payload) = event_loop.panic.take() {
            resume_unwind(payload);
        }
        main.take().unwrap_or_else(|_| Err(E::from(Cancelled::delivered())))
    }

    fn poll_nursery(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.open.as_mut().poll(cx).map(|ended| {
            if let Err(error) = ended {
                tracing::debug!(made = %self.place, "the nursery of a loop ended with {error:?}");
            }
        })
    }

    /// Cancels what is left over, once, and waits until it has ended (R2, R3).
    ///
    /// # Panics
    /// With a panic of a task or of a callback, when all tasks have ended.
    pub async fn close(mut self) {
        let event_loop = self.detach.0.clone();
        event_loop.closing.set(true);
        event_loop.last_turn.set(event_loop.turn.get());
        event_loop.wake_body();
        poll_fn(|cx| self.poll_nursery(cx)).await;
        if let Some(payload) = event_loop.panic.take() {
            resume_unwind(payload);
        }
    }
}

/// Runs an event loop until `main` is done, inside of a run of Trefoil: the asynchronous half of `asyncio::run`.
///
/// `main` is a task of the loop, the first one. When it is done, what is left over is cancelled, once, and awaited (R2, R3).
///
/// # Errors
/// Those of `main`.
///
/// # Cancellation
/// When the scope around the loop is cancelled, `main` is: as by Ctrl-C in asyncio (R5). The loop ends when all its tasks have.
///
/// # Panics
/// With the first panic of a task or of a callback, when all tasks have been cancelled and have ended.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use std::time::Duration;
/// use trefoil_nursery::{Cancelled, asyncio};
/// let sum = asyncio::event_loop(async {
///     let one = asyncio::create_task(async { Ok::<_, Cancelled>(1) });
///     asyncio::sleep(Duration::from_millis(1)).await?;
///     Ok::<_, Cancelled>(one.await? + 1)
/// })
/// .await;
/// assert_eq!(sum, Ok(2));
/// # });
/// ```
#[track_caller]
pub fn event_loop<F, T, E>(main: F) -> impl Future<Output = Result<T, E>>
where
    F: Future<Output = Result<T, E>> + 'static,
    T: 'static,
    E: CancelAware + 'static,
{
    let place = Location::caller();
    async move {
        let mut event_loop = EventLoop::at(place);
        // What is left over is told between two turns.
        event_loop.detach.0.closing.set(true);
        event_loop.complete(main, place).await
    }
}

pub(crate) fn call_at(event_loop: &Rc<Loop>, when: u64, function: Box<dyn FnOnce()>) -> Rc<Call> {
    let call = Call::new(when, function);
    if when <= runtime::now_nanos() && event_loop.nursery.get().is_some() {
        event_loop.due_at_once.borrow_mut().push(call.clone());
        event_loop.wake_body();
    } else {
        event_loop.timers.push(call.clone());
    }
    call
}

/// Cancels a call that was made for later.
pub(crate) fn cancel_call(event_loop: &Rc<Loop>, call: &Call) {
    if call.cancel() {
        event_loop.timers.cancelled();
    }
}

/// A task without a name of its own. The text is made when somebody looks.
pub(super) struct Numbered(pub u64);

impl Name for Numbered {
    fn name(&self) -> Arc<str> {
        format!("Task-{}", self.0).into()
    }
}
