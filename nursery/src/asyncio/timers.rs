//! What a loop has to do later: a heap of timers, and one deadline of the core for the earliest of them.
//!
//! That deadline is a cancel scope's in the body of the loop's nursery. It is moved at once, from wherever a timer is made; and when it
//! passes, the body is woken behind all that is ready by then, and runs what is due: as asyncio puts due timers behind what is ready at the
//! begin of a turn.

use super::heap::{Before, Heap};
use crate::scope::{CancelScope, InScope};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;
use trefoil_runtime::{self as runtime, Sleep};

/// With more timers than this, of which more than half were cancelled, the heap is made anew without those (O8).
const MANY: usize = 100;

/// A callback that may be cancelled before it is called.
pub(crate) struct Call {
    when: u64,
    function: Cell<Option<Box<dyn FnOnce()>>>,
    /// Among the timers.
    scheduled: Cell<bool>,
    cancelled: Cell<bool>,
}

impl Call {
    pub fn new(when: u64, function: Box<dyn FnOnce()>) -> Rc<Self> {
        Rc::new(Self {
            when,
            function: Cell::new(Some(function)),
            scheduled: Cell::new(false),
            cancelled: Cell::new(false),
        })
    }

    pub fn when(&self) -> u64 {
        self.when
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancelled.get()
    }

    /// Cancels it; what it would have called goes now. Whether it is among the timers.
    pub fn cancel(&self) -> bool {
        let first = !self.cancelled.replace(true);
        drop(self.function.take());
        first && self.scheduled.get()
    }

    /// Calls it, once, if it was not cancelled.
    pub fn call(&self) {
        if let Some(function) = self.function.take() {
            function();
        }
    }
}

impl Before for Rc<Call> {
    fn before(&self, other: &Self) -> bool {
        self.when < other.when
    }
}

pub(crate) struct Timers {
    heap: RefCell<Heap<Rc<Call>>>,
    /// Made since the deadline has passed: they are not due before the next turn.
    late: RefCell<Vec<Rc<Call>>>,
    cancelled: Cell<usize>,
    /// Whose deadline is that of the earliest timer; `None` while timers are being run.
    alarm: RefCell<Option<CancelScope>>,
    /// The loop has ended: what is asked for now is dropped.
    closed: Cell<bool>,
}

impl Timers {
    pub fn new() -> Self {
        Self {
            heap: RefCell::new(Heap::new()),
            late: RefCell::new(Vec::new()),
            cancelled: Cell::new(0),
            alarm: RefCell::new(None),
            closed: Cell::new(false),
        }
    }

    pub fn push(&self, call: Rc<Call>) {
        if self.closed.get() {
            call.cancel();
            return;
        }
        call.scheduled.set(true);
        let alarm = self.alarm.borrow().clone();
        if alarm.as_ref().is_some_and(|alarm| alarm.shared().is_cancelled()) {
            self.late.borrow_mut().push(call);
            return;
        }
        let when = call.when;
        self.heap.borrow_mut().push(call);
        if let Some(alarm) = alarm {
            let scope = alarm.shared();
            if when < scope.deadline() {
                scope.set_deadline(when);
            }
        }
    }

    /// One of them was cancelled.
    pub fn cancelled(&self) {
        self.cancelled.set(self.cancelled.get() + 1);
        let first_is_cancelled = self.heap.borrow().first().is_some_and(|call| call.is_cancelled());
        if first_is_cancelled {
            self.forget_cancelled();
            self.arm();
        } else if self.cancelled.get() > MANY && self.cancelled.get() * 2 > self.heap.borrow().len() {
            self.forget_cancelled();
        }
    }

    /// Drops the cancelled ones: all of them where they are many, and those that are the earliest.
    fn forget_cancelled(&self) {
        let mut heap = self.heap.borrow_mut();
        let mut gone = Vec::new();
        if heap.len() > MANY && self.cancelled.get() * 2 > heap.len() {
            let (cancelled, left) = heap.drain().into_iter().partition(|call| call.is_cancelled());
            gone = cancelled;
            heap.rebuild(left);
            self.cancelled.set(0);
        } else {
            while heap.first().is_some_and(|call| call.is_cancelled()) {
                gone.extend(heap.pop());
                self.cancelled.set(self.cancelled.get().saturating_sub(1));
            }
        }
        drop(heap);
        for call in &gone {
            call.scheduled.set(false);
        }
    }

    /// Gives the alarm the time of the earliest timer.
    fn arm(&self) {
        let earliest = self.heap.borrow().first().map_or(runtime::NEVER, |call| call.when);
        if let Some(alarm) = &*self.alarm.borrow() {
            alarm.shared().set_deadline(earliest);
        }
    }

    /// Takes what is due, in order.
    fn take_due(&self) -> Vec<Rc<Call>> {
        let now = runtime::now_nanos();
        let mut due = Vec::new();
        let mut heap = self.heap.borrow_mut();
        while heap.first().is_some_and(|call| call.when <= now) {
            let Some(call) = heap.pop() else { break };
            call.scheduled.set(false);
            if call.is_cancelled() {
                self.cancelled.set(self.cancelled.get().saturating_sub(1));
            }
            due.push(call);
        }
        for call in self.late.take() {
            heap.push(call);
        }
        due
    }

    /// Lets go of all of them, for good.
    pub fn close(&self) {
        self.closed.set(true);
        let all = (self.heap.borrow_mut().drain(), self.late.take(), self.alarm.take());
        drop(all);
    }
}

/// Who waits for the deadline: a part of the body of the loop's nursery.
pub(crate) struct Alarm {
    place: &'static Location<'static>,
    wait: Option<Pin<Box<InScope<Sleep>>>>,
}

impl Alarm {
    pub fn new(place: &'static Location<'static>) -> Self {
        Self { place, wait: None }
    }

    /// Runs what is due, with `run`, and sees to it that `cx` is woken for what comes next.
    pub fn poll(&mut self, timers: &Timers, cx: &mut Context<'_>, mut run: impl FnMut(Rc<Call>)) {
        loop {
            if let Some(wait) = &mut self.wait {
                if wait.as_mut().poll(cx).is_pending() {
                    return;
                }
                self.wait = None;
                timers.alarm.take();
                for call in timers.take_due() {
                    run(call);
                }
                timers.forget_cancelled();
            }
            let scope = CancelScope::at(self.place);
            self.wait = Some(Box::pin(scope.run(runtime::sleep_forever_at(self.place))));
            // Entered first, without a deadline: one that is due counts from the next turn on.
            if let Some(wait) = &mut self.wait
                && wait.as_mut().poll(cx).is_ready()
            {
                unreachable!("a scope that nobody has cancelled waits for ever");
            }
            timers.alarm.replace(Some(scope));
            timers.arm();
        }
    }
}
