//! [`Future`]: a value that will be there, with callbacks; what tasks and combinators are made of.

use super::control::Control;
use super::event_loop::Loop;
use super::here;
use super::task::AnyTask;
use super::unhandled::{Unhandled, report};
use super::waiting::Waiting;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::IntoFuture;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::rc::{Rc, Weak};
use std::task::Waker;
use trefoil_runtime::{self as runtime, CancelAware, Cancelled, Ender, Reason};

/// What a cancel has to say.
pub(crate) type Message = Option<Rc<str>>;

/// A future, whatever its types are.
pub(crate) trait AnyFuture {
    /// Cancels it, or asks it to be: whether it took that.
    fn cancel(self: Rc<Self>, message: Message) -> bool;
    /// Takes a callback or waker out.
    fn remove(&self, number: u64) -> bool;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Pending,
    Done,
    Cancelled,
}

/// Who is told when it is done.
enum Callback<T: 'static, E: CancelAware + 'static> {
    /// A task: what it is woken by, and whose it is.
    Wake(Waker, Option<Rc<Control>>),
    /// A function, called behind what is ready by then.
    Call(Rc<Loop>, Box<dyn FnOnce(Future<T, E>)>),
}

/// What cancels it.
pub(crate) enum Kind {
    /// It is cancelled at once (C17).
    Plain,
    /// The same; it is what somebody waits for who waits for this, and who could end that.
    For(Reason, Ender),
    /// A task's: it is asked.
    Task(Rc<Control>),
    /// It asks others, such as that of a combinator: what somebody waits for, and how.
    Asks(&'static str, Box<dyn Fn(Message) -> bool>),
}

impl Kind {
    /// What somebody waits for who waits for it: as the core shows it.
    pub fn waits_for(&self) -> (Reason, Ender) {
        match self {
            Kind::Plain => (Reason::Custom("a future of asyncio"), Ender::Unknown),
            Kind::For(reason, ender) => (*reason, *ender),
            Kind::Task(task) => (Reason::Join, Ender::Child(task.child())),
            Kind::Asks(what, _) => (Reason::Custom(what), Ender::Unknown),
        }
    }
}

pub(crate) struct Inner<T: 'static, E: CancelAware + 'static> {
    status: Cell<Status>,
    /// In an `Rc`, so that nothing is borrowed while code of others looks at it. `None` when it was taken.
    outcome: RefCell<Option<Rc<Result<T, E>>>>,
    callbacks: RefCell<Vec<(u64, Callback<T, E>)>>,
    next: Cell<u64>,
    kind: Kind,
    /// Somebody looked at the outcome.
    seen: Cell<bool>,
    /// It was an error, of which there is no second one.
    gone: Cell<bool>,
    place: &'static Location<'static>,
}

/// A result that will be there: asyncio's `Future`. Clone it, await it in several tasks, ask it for its state, be called when it is done.
///
/// It comes from [`create_future`](super::create_future), from a [`Task`](super::Task), which is one, and from
/// [`gather`](super::gather()) and [`shield`](super::shield).
///
/// `(&future).await` gives a clone of the result, to as many as want one. `future.await` takes the result out, and asks for no `Clone`: after that
/// it is gone, for others too.
///
/// # Cancellation
/// When a task that awaits a future is cancelled, the future is cancelled, for all who await it (C5).
pub struct Future<T: 'static, E: CancelAware + 'static = Cancelled> {
    inner: Rc<Inner<T, E>>,
}

impl<T, E: CancelAware> Clone for Future<T, E> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<T, E: CancelAware> fmt::Debug for Future<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Future")
            .field("made", &format_args!("{}", self.inner.place))
            .field("status", &self.inner.status.get())
            .finish()
    }
}

/// The state of a future does not allow that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidState {
    /// It is not done yet.
    NotDone,
    /// It is done, or was cancelled, before.
    Done,
    /// Its result was taken out.
    Taken,
    /// Its result cannot be taken while it is [looked at](Future::look), further up on the stack.
    LookedAt,
}

impl fmt::Display for InvalidState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            InvalidState::NotDone => "the future is not done",
            InvalidState::Done => "the future is done already",
            InvalidState::Taken => "the result of the future was taken out",
            InvalidState::LookedAt => "the result of the future is being looked at",
        })
    }
}

impl std::error::Error for InvalidState {}

/// How a result is read: cloned, or taken out.
pub(crate) type Read<T, E> = fn(&Future<T, E>) -> Result<Result<T, E>, InvalidState>;

impl<T: 'static, E: CancelAware + 'static> Future<T, E> {
    pub(crate) fn new(kind: Kind, place: &'static Location<'static>) -> Self {
        Self {
            inner: Rc::new(Inner {
                status: Cell::new(Status::Pending),
                outcome: RefCell::new(None),
                callbacks: RefCell::new(Vec::new()),
                next: Cell::new(0),
                kind,
                seen: Cell::new(false),
                gone: Cell::new(false),
                place,
            }),
        }
    }

    /// One that is cancelled at once, by whoever awaits it, and done by [`finish`](Self::finish): what is to be waited for is this.
    #[track_caller]
    pub(crate) fn pending(reason: Reason) -> Self {
        Self::new(Kind::For(reason, Ender::Unknown), Location::caller())
    }

    /// The same, where it is known who could end the wait, or where that was made which it is for.
    pub(crate) fn pending_for(reason: Reason, ender: Ender) -> Self {
        Self::new(Kind::For(reason, ender), Location::caller())
    }

    /// Waits for it, and clones the result, at `place`.
    pub(crate) fn wait_at(&self, place: &'static Location<'static>) -> Waiting<T, E>
    where
        T: Clone,
        E: Clone,
    {
        Waiting::new(self.clone(), Future::result, place)
    }

    /// Waits for it, and takes the result out, on behalf of code at another place.
    #[doc(hidden)]
    pub fn wait_for(self, place: &'static Location<'static>) -> Waiting<T, E> {
        Waiting::new(self, Future::take, place)
    }

    pub(crate) fn any(&self) -> Rc<dyn AnyFuture> {
        self.inner.clone()
    }

    pub(crate) fn kind(&self) -> &Kind {
        &self.inner.kind
    }

    pub(crate) fn downgrade(&self) -> WeakFuture<T, E> {
        WeakFuture { inner: Rc::downgrade(&self.inner) }
    }

    pub(crate) fn told(&self) -> Told<T, E> {
        Told { inner: Rc::downgrade(&self.inner) }
    }

    /// What tells it from others.
    pub(crate) fn key(&self) -> *const () {
        Rc::as_ptr(&self.inner).cast()
    }

    /// Whether both are the same future.
    pub fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.inner, &other.inner)
    }

    /// Whether it has a result, or was cancelled.
    pub fn done(&self) -> bool {
        self.inner.status.get() != Status::Pending
    }

    /// Whether it was cancelled: for a task, whether it ended with a cancellation (C12).
    pub fn cancelled(&self) -> bool {
        self.inner.status.get() == Status::Cancelled
    }

    /// Cancels it: a plain future at once and for good (C17). A task is asked, and decides; see [`Task`](super::Task). False where it is
    /// done.
    pub fn cancel(&self) -> bool {
        self.inner.clone().cancel(None)
    }

    /// The same, with a message for those who look (C15).
    pub fn cancel_with(&self, message: impl Into<Rc<str>>) -> bool {
        self.inner.clone().cancel(Some(message.into()))
    }

    /// A clone of the result. That of one that was cancelled is a cancellation.
    ///
    /// # Errors
    /// [`InvalidState`] before it is done, and when the result was taken out.
    pub fn result(&self) -> Result<Result<T, E>, InvalidState>
    where
        T: Clone,
        E: Clone,
    {
        self.look(Result::clone)
    }

    /// Calls `f` with the result, which is neither cloned nor taken. That of one that was cancelled is a cancellation.
    ///
    /// # Errors
    /// As for [`result`](Self::result).
    pub fn look<R>(&self, f: impl FnOnce(&Result<T, E>) -> R) -> Result<R, InvalidState> {
        match self.inner.status.get() {
            Status::Pending => Err(InvalidState::NotDone),
            Status::Cancelled => Ok(f(&Err(Cancelled::delivered().into()))),
            Status::Done => {
                let outcome = self.inner.outcome.borrow().clone();
                self.inner.seen.set(true);
                match outcome {
                    Some(outcome) => Ok(f(&outcome)),
                    None if self.inner.gone.get() => Ok(f(&Err(Cancelled::delivered().into()))),
                    None => Err(InvalidState::Taken),
                }
            }
        }
    }

    /// Takes the result out. What is left of an error for others is a [copy](CancelAware::to_copy), or where there can be none, a
    /// cancellation. Of one that was cancelled the result can be taken again and again.
    ///
    /// # Errors
    /// As for [`result`](Self::result); and [`InvalidState::LookedAt`] from inside of what [looks](Self::look) at it, or clones it.
    pub fn take(&self) -> Result<Result<T, E>, InvalidState> {
        match self.inner.status.get() {
            Status::Pending => Err(InvalidState::NotDone),
            Status::Cancelled => Ok(Err(Cancelled::delivered().into())),
            Status::Done => {
                let outcome = self.inner.outcome.borrow_mut().take();
                self.inner.seen.set(true);
                match outcome.map(Rc::try_unwrap) {
                    // More than one: somebody further up on this stack is looking at it.
                    Some(Err(shared)) => {
                        *self.inner.outcome.borrow_mut() = Some(shared);
                        Err(InvalidState::LookedAt)
                    }
                    Some(Ok(Err(error))) => {
                        let copy = error.to_copy().map(|copy| Rc::new(Err(copy)));
                        self.inner.gone.set(copy.is_none());
                        *self.inner.outcome.borrow_mut() = copy;
                        Ok(Err(error))
                    }
                    Some(Ok(value)) => Ok(value),
                    None if self.inner.gone.get() => Ok(Err(Cancelled::delivered().into())),
                    None => Err(InvalidState::Taken),
                }
            }
        }
    }

    /// Whether it is done with an error that is not its own cancellation. Whoever asks has seen it.
    pub(crate) fn has_failed(&self) -> bool {
        self.inner.status.get() == Status::Done && self.look(Result::is_err).unwrap_or(false)
    }

    /// The same, without having seen it.
    pub(crate) fn failed_unseen(&self) -> bool {
        let seen = self.inner.seen.get();
        let failed = self.has_failed();
        self.inner.seen.set(seen);
        failed
    }

    /// Its outcome needs no report.
    pub(crate) fn set_seen(&self) {
        self.inner.seen.set(true);
    }

    /// Ends it with a result.
    ///
    /// # Errors
    /// Gives the result back where it was done before.
    pub(crate) fn finish(&self, outcome: Result<T, E>) -> Result<(), Result<T, E>> {
        if self.done() {
            return Err(outcome);
        }
        *self.inner.outcome.borrow_mut() = Some(Rc::new(outcome));
        self.inner.status.set(Status::Done);
        self.tell();
        Ok(())
    }

    /// Ends it as cancelled; whether it was not done before.
    pub(crate) fn finish_cancelled(&self) -> bool {
        let first = !self.done();
        if first {
            self.inner.status.set(Status::Cancelled);
            self.tell();
        }
        first
    }

    fn tell(&self) {
        let tell = |(_, callback)| match callback {
            Callback::Wake(waker, task) => {
                if let Some(task) = task {
                    task.queue();
                }
                waker.wake();
            }
            Callback::Call(event_loop, function) => {
                let future = self.clone();
                event_loop.call_soon(self.inner.place, move || function(future));
            }
        };
        let (mut callbacks, mut panicked) = (self.inner.callbacks.take().into_iter(), None);
        // The waker of a combinator is code of others: one that panics does not keep the rest from being told.
        while let Err(payload) = catch_unwind(AssertUnwindSafe(|| callbacks.by_ref().for_each(tell))) {
            match panicked {
                None => panicked = Some(payload),
                Some(_) => runtime::discard(payload),
            }
        }
        match panicked {
            Some(payload) if std::thread::panicking() => runtime::discard(payload),
            Some(payload) => resume_unwind(payload),
            None => {}
        }
    }

    fn add(&self, callback: Callback<T, E>) -> u64 {
        let number = self.inner.next.replace(self.inner.next.get() + 1);
        self.inner.callbacks.borrow_mut().push((number, callback));
        number
    }

    /// Wakes a task when it is done; with [`AnyFuture::remove`] not.
    pub(crate) fn add_waker(&self, waker: Waker, task: Option<Rc<Control>>) -> u64 {
        self.add(Callback::Wake(waker, task))
    }

    /// Another waker in the same place.
    pub(crate) fn renew_waker(&self, number: u64, waker: &Waker) {
        let callbacks = self.inner.callbacks.borrow();
        let same =
            |(_, callback): &(u64, Callback<T, E>)| matches!(callback, Callback::Wake(old, _) if old.will_wake(waker));
        let at = callbacks.binary_search_by_key(&number, |(of, _)| *of);
        let Ok(at) = at else { return };
        if same(&callbacks[at]) {
            return;
        }
        drop(callbacks);
        // The clone is code of others: the list may be another one after it.
        let waker = waker.clone();
        let mut callbacks = self.inner.callbacks.borrow_mut();
        let at = callbacks.binary_search_by_key(&number, |(of, _)| *of);
        let old = match at.ok().map(|at| &mut callbacks[at].1) {
            Some(Callback::Wake(old, _)) => Some(std::mem::replace(old, waker)),
            _ => None,
        };
        drop(callbacks);
        drop(old);
    }

    /// Calls `function` when it is done, behind what is ready by then; at once behind that where it is done already. In no task.
    ///
    /// Returns what [`remove_done_callback`](Self::remove_done_callback) takes.
    ///
    /// # Panics
    /// Outside of a loop.
    #[track_caller]
    pub fn add_done_callback(&self, function: impl FnOnce(Self) + 'static) -> CallbackId {
        let event_loop = here::running();
        if self.done() {
            let future = self.clone();
            event_loop.call_soon(Location::caller(), move || function(future));
            return CallbackId(u64::MAX);
        }
        let call: Box<dyn FnOnce(Self)> = match runtime::locals_in_force() {
            false => Box::new(function),
            // It finds the context variables that are in force here.
            true => {
                let slot = Rc::new(Cell::new(None));
                let given = slot.clone();
                let call = super::calls::in_context(move || {
                    if let Some(future) = given.take() {
                        function(future);
                    }
                });
                Box::new(move |future| {
                    slot.set(Some(future));
                    call();
                })
            }
        };
        CallbackId(self.add(Callback::Call(event_loop, call)))
    }

    /// The same for code of this module: without context variables, which it does not use.
    pub(crate) fn on_done(&self, event_loop: Rc<Loop>, function: Box<dyn FnOnce(Self)>) -> u64 {
        if self.done() {
            let future = self.clone();
            event_loop.call_soon(self.inner.place, move || function(future));
            return u64::MAX;
        }
        self.add(Callback::Call(event_loop, function))
    }

    /// Takes a callback out that has not been scheduled; whether it was there.
    pub fn remove_done_callback(&self, callback: CallbackId) -> bool {
        self.inner.remove(callback.0)
    }
}

/// A [`Future`] that does not keep it.
pub(crate) struct WeakFuture<T: 'static, E: CancelAware + 'static> {
    inner: Weak<Inner<T, E>>,
}

impl<T: 'static, E: CancelAware + 'static> WeakFuture<T, E> {
    pub fn upgrade(&self) -> Option<Future<T, E>> {
        self.inner.upgrade().map(|inner| Future { inner })
    }
}

/// A [`Future`] that a callback ends, which does not keep it. If the callback goes with its loop, uncalled, nobody is left to end the future:
/// it is cancelled then (D-5), and what its own callbacks keep is let go.
pub(crate) struct Told<T: 'static, E: CancelAware + 'static> {
    inner: Weak<Inner<T, E>>,
}

impl<T: 'static, E: CancelAware + 'static> Told<T, E> {
    /// The callback is called: the future, if somebody has it.
    pub fn call(mut self) -> Option<Future<T, E>> {
        std::mem::take(&mut self.inner).upgrade().map(|inner| Future { inner })
    }
}

impl<T: 'static, E: CancelAware + 'static> Drop for Told<T, E> {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.upgrade() {
            Future { inner }.finish_cancelled();
        }
    }
}

/// A callback of a [`Future`]; see [`Future::add_done_callback`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallbackId(u64);

impl<T: 'static, E: CancelAware + 'static> AnyFuture for Inner<T, E> {
    fn cancel(self: Rc<Self>, message: Message) -> bool {
        if self.status.get() != Status::Pending {
            return false;
        }
        match &self.kind {
            Kind::Plain | Kind::For(..) => Future { inner: self }.finish_cancelled(),
            Kind::Task(control) => control.cancel(message),
            Kind::Asks(_, ask) => ask(message),
        }
    }

    fn remove(&self, number: u64) -> bool {
        let mut callbacks = self.callbacks.borrow_mut();
        let at = callbacks.binary_search_by_key(&number, |(of, _)| *of);
        let gone = at.ok().map(|at| callbacks.remove(at));
        drop(callbacks);
        gone.is_some()
    }
}

impl<T: 'static, E: CancelAware + 'static> Drop for Inner<T, E> {
    fn drop(&mut self) {
        if self.seen.get() {
            return;
        }
        if let Some(Err(error)) = self.outcome.get_mut().as_deref() {
            let place = self.place;
            match &self.kind {
                Kind::Task(control) => {
                    let (message, task) = ("the error of a task that nobody looked at", AnyTask::new(control.clone()));
                    report(Some(control.event_loop()), &Unhandled { message, task: Some(task), error, place });
                }
                _ => {
                    let message = "the error of a future that nobody looked at";
                    let here = here::here();
                    let event_loop = here.as_ref().map(|here| &here.event_loop);
                    report(event_loop, &Unhandled { message, task: None, error, place });
                }
            }
        }
    }
}

impl<T: Clone + 'static, E: CancelAware + Clone + 'static> IntoFuture for &Future<T, E> {
    type Output = Result<T, E>;
    type IntoFuture = Waiting<T, E>;

    /// Waits for the result, and clones it.
    #[track_caller]
    fn into_future(self) -> Waiting<T, E> {
        Waiting::new(self.clone(), Future::result, Location::caller())
    }
}

impl<T: 'static, E: CancelAware + 'static> IntoFuture for Future<T, E> {
    type Output = Result<T, E>;
    type IntoFuture = Waiting<T, E>;

    /// Waits for the result, and takes it out.
    #[track_caller]
    fn into_future(self) -> Waiting<T, E> {
        Waiting::new(self, Future::take, Location::caller())
    }
}
