//! What of a task does not depend on its types: its name, and the state of its cancellation.
//!
//! asyncio's is three fields: what the task waits for, whether a cancel is to be delivered at its next step, and how many were asked
//! for. Here the task may wait for several things at once (`join!`): a cancel asks all of them. And it may wait for what is the core's: for
//! that it has a scope of the core, which is cancelled [once](Scope::cancel_once).

use super::event_loop::Loop;
use super::future::{AnyFuture, Message};
use super::here;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use trefoil_runtime::{self as runtime, ChildKey, Edge, Scope};

pub(crate) struct Control {
    event_loop: Rc<Loop>,
    number: u64,
    name: RefCell<Option<Rc<str>>>,
    place: &'static Location<'static>,
    done: Cell<bool>,
    must_cancel: Cell<bool>,
    message: RefCell<Message>,
    cancels: Cell<u32>,
    /// A cancel is on its way through what it waits for.
    asking: Cell<bool>,
    /// The turn for which it is in the queue, where that is known.
    queued: Cell<Option<u64>>,
    /// What it waits for, by the number of the wait.
    waits: RefCell<Vec<(u64, Rc<dyn AnyFuture>)>>,
    next_wait: Cell<u64>,
    /// What it is to the core.
    child: Cell<ChildKey>,
    /// The scope in which it waits for what is not asyncio's, once there is one.
    scope: OnceCell<Arc<Scope>>,
    /// How to have it polled, while it waits for nothing of asyncio's.
    waker: RefCell<Option<Waker>>,
}

/// How many tasks that wait for each other are cancelled by recursion. Those behind are told when these have been.
const DEEP: usize = 64;

/// The cancels of a loop that are on their way.
#[derive(Default)]
pub(crate) struct Cancels {
    /// How many are further up on the stack.
    depth: Cell<usize>,
    /// Those to be told later.
    later: RefCell<VecDeque<(Rc<Control>, Message)>>,
    /// Those that were told while some were to be told later: they are not told again on the way round a circle.
    told: RefCell<Vec<Rc<Control>>>,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("name", &self.name())
            .field("place", &format_args!("{}", self.place))
            .field("done", &self.done.get())
            .field("cancelling", &self.cancels.get())
            .finish_non_exhaustive()
    }
}

impl Control {
    pub fn new(event_loop: Rc<Loop>, name: Option<Rc<str>>, place: &'static Location<'static>) -> Rc<Self> {
        let number = event_loop.number();
        Rc::new(Self {
            event_loop,
            number,
            name: RefCell::new(name),
            place,
            done: Cell::new(false),
            must_cancel: Cell::new(false),
            message: RefCell::new(None),
            cancels: Cell::new(0),
            asking: Cell::new(false),
            queued: Cell::new(None),
            waits: RefCell::new(Vec::new()),
            next_wait: Cell::new(0),
            child: Cell::default(),
            scope: OnceCell::new(),
            waker: RefCell::new(None),
        })
    }

    pub fn event_loop(&self) -> &Rc<Loop> {
        &self.event_loop
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    pub fn place(&self) -> &'static Location<'static> {
        self.place
    }

    pub fn name(&self) -> Rc<str> {
        if let Some(name) = &*self.name.borrow() {
            return name.clone();
        }
        format!("Task-{}", self.number).into()
    }

    /// The name that it was given, if it was given one.
    pub fn given_name(&self) -> Option<Rc<str>> {
        self.name.borrow().clone()
    }

    pub fn child(&self) -> ChildKey {
        self.child.get()
    }

    pub fn set_child(&self, child: ChildKey) {
        self.child.set(child);
    }

    pub fn set_name(&self, name: Rc<str>) {
        *self.name.borrow_mut() = Some(name);
    }

    pub fn is_done(&self) -> bool {
        self.done.get()
    }

    pub fn set_done(&self) {
        self.done.set(true);
        let gone = (self.waits.take(), self.waker.take());
        drop(gone);
    }

    /// C1 to C3. False also for one that has been asked by way of itself: tasks that wait for each other in a circle, at which Python
    /// raises `RecursionError`.
    pub fn cancel(self: &Rc<Self>, message: Message) -> bool {
        if self.done.get() || self.asking.replace(true) {
            return false;
        }
        let Cancels { depth, later, told } = &self.event_loop.cancels;
        if depth.get() == DEEP {
            later.borrow_mut().push_back((self.clone(), message));
            return true;
        }
        depth.set(depth.get() + 1);
        // The waker of a combinator may panic: the others are told all the same, and the next cancel finds it as it was.
        let mut asked = catch_unwind(AssertUnwindSafe(|| self.ask(message)));
        while depth.get() == 1 {
            let Some((next, message)) = later.borrow_mut().pop_front() else { break };
            match catch_unwind(AssertUnwindSafe(|| next.ask(message))) {
                Err(payload) if asked.is_err() => runtime::discard(payload),
                Err(payload) => asked = Err(payload),
                Ok(()) => {}
            }
            told.borrow_mut().push(next);
        }
        depth.set(depth.get() - 1);
        if later.borrow().is_empty() {
            self.asking.set(false);
        } else {
            told.borrow_mut().push(self.clone());
        }
        if depth.get() == 0 {
            for told in told.take() {
                told.asking.set(false);
            }
        }
        match asked {
            Err(payload) if std::thread::panicking() => runtime::discard(payload),
            Err(payload) => resume_unwind(payload),
            Ok(()) => {}
        }
        true
    }

    /// Cancels what it waits for, or keeps the cancel for its next wait.
    fn ask(&self, message: Message) {
        self.cancels.set(self.cancels.get().saturating_add(1));
        let waits: Vec<_> = self.waits.borrow().iter().map(|(_, wait)| wait.clone()).collect();
        let mut accepted = false;
        for wait in waits {
            accepted |= wait.cancel(message.clone());
        }
        self.message.replace(message);
        // All that it waits for is told. What is not asyncio's, too: that keeps the request for its next wait where it ends with a value.
        accepted |= self.scope.get().is_some_and(|scope| scope.cancel_once());
        if !accepted {
            self.must_cancel.set(true);
            // It may wait for what nobody here knows of, and is looked at (N13).
            let waker = self.waker.borrow().clone();
            let itself = here::task().is_some_and(|task| std::ptr::eq(&*task, self));
            if let Some(waker) = waker.filter(|_| !itself) {
                waker.wake();
            }
        }
    }

    /// It is put in the queue, if it is not there.
    pub fn queue(&self) {
        if self.queued.get().is_none() {
            self.queued.set(Some(self.event_loop.next_turn()));
        }
    }

    /// It runs.
    pub fn begin_turn(&self) {
        if let Some(turn) = self.queued.take() {
            self.event_loop.begin_turn(turn);
        }
    }

    pub fn cancelling(&self) -> u32 {
        self.cancels.get()
    }

    /// C13.
    pub fn uncancel(&self) -> u32 {
        let left = self.cancels.get().saturating_sub(1);
        if self.cancels.replace(left) == 1 {
            self.take_must_cancel();
        }
        left
    }

    /// Takes a cancel that was not delivered.
    pub fn take_must_cancel(&self) -> bool {
        let once = self.scope.get().is_some_and(|scope| scope.take_once());
        self.must_cancel.replace(false) || once
    }

    fn has_must_cancel(&self) -> bool {
        self.must_cancel.get() || self.scope.get().is_some_and(|scope| scope.is_cancelled_once())
    }

    /// After a step that was pending: it may wait for what is not asyncio's. A cancel that was not delivered goes there. Whether one is
    /// left for which there is no taker.
    pub fn stepped<F>(&self, body: &Edge<F>, waker: &Waker) -> bool {
        if self.scope.get().is_none()
            && let Some(scope) = body.scope()
        {
            _ = self.scope.set(scope.clone());
        }
        let waits = !self.waits.borrow().is_empty();
        if !waits && !self.waker.borrow().as_ref().is_some_and(|old| old.will_wake(waker)) {
            let old = self.waker.replace(Some(waker.clone()));
            drop(old);
        }
        if self.must_cancel.get() && self.scope.get().is_some_and(|scope| scope.cancel_once()) {
            self.must_cancel.set(false);
        }
        !waits && self.has_must_cancel() && body.is_stuck()
    }

    pub fn message(&self) -> Message {
        self.message.borrow().clone()
    }

    /// It waits for `what` from now on. A cancel that was not delivered goes there.
    pub fn wait(&self, what: Rc<dyn AnyFuture>) -> u64 {
        let number = self.next_wait.replace(self.next_wait.get() + 1);
        self.waits.borrow_mut().push((number, what.clone()));
        if self.has_must_cancel() && what.cancel(self.message()) {
            self.take_must_cancel();
        }
        number
    }

    /// It does not wait for that any more.
    pub fn end_wait(&self, number: u64) {
        let mut waits = self.waits.borrow_mut();
        let at = waits.iter().position(|(of, _)| *of == number);
        let gone = at.map(|at| waits.swap_remove(at));
        drop(waits);
        drop(gone);
    }
}
