//! What of a task does not depend on its types: its name, and the state of its cancellation.
//!
//! asyncio's is three fields: what the task waits for, whether a cancel is to be delivered at its next step, and how many were asked
//! for. Here the task may wait for several things at once (`join!`): a cancel asks all of them.

use super::event_loop::Loop;
use super::future::{AnyFuture, Message};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::Location;
use std::rc::Rc;

pub(crate) struct Control {
    event_loop: Rc<Loop>,
    number: u64,
    name: RefCell<Option<Rc<str>>>,
    place: &'static Location<'static>,
    done: Cell<bool>,
    must_cancel: Cell<bool>,
    message: RefCell<Message>,
    cancels: Cell<u32>,
    /// What it waits for, by the number of the wait.
    waits: RefCell<Vec<(u64, Rc<dyn AnyFuture>)>>,
    next_wait: Cell<u64>,
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
            waits: RefCell::new(Vec::new()),
            next_wait: Cell::new(0),
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

    pub fn set_name(&self, name: Rc<str>) {
        *self.name.borrow_mut() = Some(name);
    }

    pub fn is_done(&self) -> bool {
        self.done.get()
    }

    pub fn set_done(&self) {
        self.done.set(true);
        let waits = self.waits.take();
        drop(waits);
    }

    /// C1 to C3.
    pub fn cancel(&self, message: Message) -> bool {
        if self.done.get() {
            return false;
        }
        self.cancels.set(self.cancels.get().saturating_add(1));
        let waits: Vec<_> = self.waits.borrow().iter().map(|(_, wait)| wait.clone()).collect();
        let mut accepted = false;
        for wait in waits {
            accepted |= wait.cancel(message.clone());
        }
        self.message.replace(message);
        if !accepted {
            self.must_cancel.set(true);
        }
        true
    }

    pub fn cancelling(&self) -> u32 {
        self.cancels.get()
    }

    /// C13.
    pub fn uncancel(&self) -> u32 {
        let left = self.cancels.get().saturating_sub(1);
        if self.cancels.replace(left) == 1 {
            self.must_cancel.set(false);
        }
        left
    }

    /// Takes a cancel that was not delivered.
    pub fn take_must_cancel(&self) -> bool {
        self.must_cancel.replace(false)
    }

    pub fn message(&self) -> Message {
        self.message.borrow().clone()
    }

    /// It waits for `what` from now on. A cancel that was not delivered goes there.
    pub fn wait(&self, what: Rc<dyn AnyFuture>) -> u64 {
        let number = self.next_wait.replace(self.next_wait.get() + 1);
        self.waits.borrow_mut().push((number, what.clone()));
        if self.must_cancel.get() && what.cancel(self.message()) {
            self.must_cancel.set(false);
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
