//! The owner of a queue: polls what can run, and ends what is left.

use super::ending::{bury_holder, forget_task};
use super::join::Joins;
use super::task::{DONE, Header, OWNER, VTable};
use super::wake::{borrowed_waker, is_of, release_body, wake};
use super::{Above, BUSY, CLOSED, Owner, Ready, SLICE, TURNS, WATCHED};
use crate::blind::BLIND;
use crate::context::{self, Entered, Frame, Running};
use crate::look::instrument::{self, Watch};
use crate::look::record;
use crate::payload::discard;
use crate::scope::Scope;
use crate::sync::inbox::Inbox;
use crate::sync::waker_slot::WakerSlot;
use crate::sync::{AtomicPtr, AtomicUsize, Ordering, UnsafeCell};
use crate::tree::Tree;
use crate::worker::Worker;
use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::panic::Location;
use std::ptr::{self, NonNull};
use std::task::Context;

static BODY: VTable = VTable {
    poll: |_, _| unreachable!("the body is polled by who runs the queue"),
    cut: |_, _| {},
    value: |_, _| {},
    drop_value: |_| {},
    end: |_| unreachable!("the body is not a child"),
    name: |_| None,
    panicked: |_, payload| discard(payload),
    // SAFETY: the body is the first field of a queue that was allocated in a box, and that was its last reference.
    free: |task| drop(unsafe { Box::from_raw(task.cast::<Ready>().cast_mut()) }),
};

/// What there is in the run beside a queue that takes several turns on end.
#[derive(Clone, Copy)]
struct RunAround<'a> {
    tree: &'static Tree,
    worker: &'a Worker,
    /// The queue around that one.
    ready: &'a Ready,
}

impl<'a> RunAround<'a> {
    fn of(around: &'a Running) -> Option<Self> {
        // SAFETY: [CURRENT] of the context module.
        let (worker, ready) = unsafe { (context::worker().as_ref(), around.ready.as_ref()) };
        Some(Self { tree: context::tree()?, worker: worker?, ready: ready? })
    }

    /// Whether the next turn may follow at once, since nothing else in the whole run has anything to do. Then what comes between two turns of the
    /// loop has been done, as the loop does it: in no task and no queue, which is how it is when this returns. The scope stays that of the nursery, where
    /// the loop's is that of the run: only the waker of others that asks for it could tell.
    #[inline(always)]
    fn next_turn(self) -> bool {
        // SAFETY: [OWNER]: inside of the `run` of the queue around the one that asks.
        if !unsafe { self.ready.is_drained() } || self.tree.parker.is_notified() {
            return false;
        }
        context::set_queue(ptr::null(), ptr::null());
        self.worker.between_turns(self.tree);
        !self.tree.parker.is_notified()
    }
}

/// The owner's hold on a queue.
#[derive(Debug)]
pub struct ReadyBox(NonNull<Ready>);

// SAFETY: the queue is `Send + Sync` but for [OWNER], which goes with the one `ReadyBox`. Who sends it sends the children too, and
// answers for that.
unsafe impl Send for ReadyBox {}

impl ReadyBox {
    /// A queue that is polled inside a task.
    pub fn nested(place: &'static Location<'static>) -> Self {
        Self::new(Above::Task(WakerSlot::new()), place)
    }

    pub(crate) fn new(parent: Above, place: &'static Location<'static>) -> Self {
        let ready = Box::into_raw(Box::new(Ready {
            body: Header::new(OWNER, &BODY, ptr::null(), place),
            inbox: Inbox::new(),
            parent,
            joins: Joins::new(),
            live: AtomicUsize::new(0),
            first_child: AtomicPtr::new(ptr::null_mut()),
            owner: UnsafeCell::new(Owner {
                first: ptr::null(),
                last: ptr::null(),
                queued: 0,
                last_child: ptr::null(),
                told: false,
                special: 0,
                busy: Cell::new(0),
                home: ptr::null(),
            }),
        }));
        // SAFETY: just allocated.
        unsafe {
            (*ready).body.queue = ready;
            Header::is_born(&raw mut (*ready).body, context::newborn());
            // The body is scheduled from the start.
            (*ready).push_local(&raw const (*ready).body);
            Self(NonNull::new_unchecked(ready))
        }
    }

    /// For handles, which must not outlive this.
    pub fn as_ptr(&self) -> *const Ready {
        self.0.as_ptr()
    }

    /// Sets what the [`Outcome`](super::Outcome)s of its children are told as their home.
    pub fn set_home(&mut self, home: *const ()) {
        // SAFETY: [OWNER].
        self.get().owner.with_mut(|owner| unsafe { (*owner).home = home });
    }

    fn get(&self) -> &Ready {
        // SAFETY: [QUEUE]: we have a reference of the body.
        unsafe { self.0.as_ref() }
    }

    fn body(&self) -> *const Header {
        self.0.as_ptr().cast()
    }

    /// Whether something can run.
    pub fn has_work(&self) -> bool {
        // SAFETY: [OWNER].
        self.get().owner.with(|owner| unsafe { (*owner).queued } > 0) || !self.get().inbox.is_empty()
    }

    /// How many children are not done.
    pub fn live(&self) -> usize {
        self.get().live()
    }

    /// The same, and those that were spawned from elsewhere and have not been taken in yet.
    pub fn live_now(&mut self) -> usize {
        // SAFETY: [OWNER]. Who pushed the first of them has woken the task above, which polls them.
        unsafe { self.get().drain_inbox() };
        self.live()
    }

    /// Whether the body is done.
    pub fn body_done(&self) -> bool {
        self.get().body.is_done()
    }

    /// The body is done: it is not polled again.
    pub fn set_body_done(&mut self) {
        if let Some(tree) = context::tree() {
            self.get().body.begin_age(tree);
        }
        self.get().body.state.fetch_or(DONE, Ordering::AcqRel);
    }

    /// Whether the body pends on nothing known (N13).
    pub fn body_is_stuck(&self) -> bool {
        // SAFETY: [REF]: ours.
        unsafe { Header::is_stuck(self.body()) }
    }

    /// Whether the body, or a child that has ended, was told a cancellation by an operation, whatever it made of that (N13 b).
    pub fn was_told(&self) -> bool {
        // SAFETY: [OWNER].
        self.get().body.strikes() > 0 || self.get().owner.with(|owner| unsafe { (*owner).told })
    }

    /// Polls what can run: the body through `poll_body`, and children; each at most once, a slice of them at most. Wakes `cx` again
    /// if there is more.
    ///
    /// A child that is pending in a cancelled scope on nothing that the library knows of is destroyed (N13 a); what happens
    /// to the body then is up to the caller.
    ///
    /// `scope` is the one that the children run in.
    pub fn run(&mut self, scope: &Scope, cx: &mut Context<'_>, mut poll_body: impl FnMut(&mut Context<'_>)) {
        let around = self.begin(scope, cx);
        self.turn(scope, &mut poll_body);
        drop(around);
        // The worker looks by itself.
        if matches!(self.get().parent, Above::Task(_)) && self.has_work() {
            cx.waker().wake_by_ref();
        }
    }

    /// The same for several turns on end, where nothing else in the whole run has anything to do: what comes between two turns of the loop is
    /// done here then (R84, R85). Otherwise the task around has to be polled again, from the worker down through every nursery around it: whether it
    /// has to, is what this returns.
    ///
    /// After each turn that leaves work `goes_on` says whether there is nothing for the caller to do before the next one.
    ///
    /// A turn 16 nurseries deep takes 26 ns instead of 520 by this.
    #[must_use = "who says that there is more waits for another run"]
    pub fn run_turns(
        &mut self,
        scope: &Scope,
        cx: &mut Context<'_>,
        mut poll_body: impl FnMut(&mut Context<'_>),
        goes_on: impl Fn(&Self) -> bool,
    ) -> bool {
        let around = self.begin(scope, cx);
        let (mut turns, mut run) = (TURNS, None);
        // So that the address is in a register: what is polled might write to that of `self`, for all that the compiler knows. It is in the place of
        // `self`, which is not used while this is.
        let mut queue = ManuallyDrop::new(Self(self.0));
        let queue = &mut *queue;
        loop {
            queue.turn(scope, &mut poll_body);
            let busy = queue.busy();
            if !queue.has_work() {
                busy.set(0);
                return false;
            }
            if busy.get() < BUSY {
                busy.set(busy.get() + 1);
                return true;
            }
            if run.is_none() {
                // A waker that is not the task's is of a combinator, which has a queue of its own.
                let own = is_of(cx.waker(), around.task);
                run = if own && context::is_alone() { RunAround::of(&around) } else { None };
            }
            // A future beside this one in the same task, which nobody here knows of, gets its turn too.
            let Some(run) = run.filter(|_| turns > 0) else { return true };
            turns -= 1;
            if (queue.live() == 0 && queue.body_done()) || !goes_on(queue) || !run.next_turn() {
                return true;
            }
            context::set_queue(around.task, queue.as_ptr());
        }
    }

    /// It is being run until what this returns is dropped.
    #[inline(always)]
    fn begin(&mut self, scope: &Scope, cx: &mut Context<'_>) -> Running {
        if let Above::Task(slot) = &self.get().parent {
            slot.register(cx.waker());
        }
        // SAFETY: [CURRENT] of the context module.
        let alone = match unsafe { context::ready().as_ref() } {
            // SAFETY: [OWNER]: inside of the `run` of the queue around this.
            Some(around) => context::is_alone() && unsafe { around.is_drained() },
            None => matches!(self.get().parent, Above::Worker(_)),
        };
        Running::new(self.as_ptr(), scope, alone)
    }

    /// How many turns on end there was work left.
    fn busy(&self) -> &Cell<u8> {
        // SAFETY: [OWNER].
        self.get().owner.with(|owner| unsafe { &(*owner).busy })
    }

    /// Polls each that can run once.
    #[inline(always)]
    fn turn(&mut self, scope: &Scope, poll_body: &mut impl FnMut(&mut Context<'_>)) {
        let this = self.as_ptr();
        // SAFETY: [CURRENT] of the context module.
        let worker: Option<&Worker> = unsafe { context::worker().as_ref() };
        // SAFETY: [OWNER]: `&mut self` is the owner's. Children that run may push to the local queue, through the pointer.
        unsafe {
            match worker.filter(|worker| worker.polls_specially()) {
                Some(worker) => self.poll_specially(worker, scope, poll_body),
                None => {
                    (*this).adopt_unwatched((*this).inbox.take());
                    let count = (*this).owner.with(|owner| (*owner).queued).min(SLICE);
                    self.poll_each::<false>(count, context::BUDGET, scope, |task, cx| {
                        if (*task).is_body() {
                            poll_body(cx);
                            return false;
                        }
                        ((*task).vtable.poll)(task, cx)
                    });
                }
            }
        }
    }

    /// Polls what is queued, so many tasks at most, by `poll`, which says whether that one is over. `WATCHED`: instruments look at this queue.
    ///
    /// \[OWNER\]
    #[inline(always)]
    unsafe fn poll_each<const WATCHED: bool>(
        &self,
        count: usize,
        budget: u32,
        scope: &Scope,
        mut poll: impl FnMut(*const Header, &mut Context<'_>) -> bool,
    ) {
        let this = self.as_ptr();
        // SAFETY: [OWNER]: the caller's word.
        unsafe {
            for _ in 0..count {
                let Some(task) = (*this).pop_local() else { break };
                // Transition 2: not queued any more. It is there: the owner's reference remains while it is queued, or not done.
                if (*task).is_done() {
                    (*this).let_go_if_child(task);
                    continue;
                }
                let waker = borrowed_waker(task);
                let mut task_cx = Context::from_waker(&waker);
                context::set_task(task, budget);
                (*task).begin_poll();
                if poll(task, &mut task_cx) {
                    (*this).finish::<WATCHED>(Some(scope), task);
                    continue;
                }
                (*task).end_poll();
                if scope.is_cancelled() && !(*task).is_body() && Header::is_stuck(task) {
                    (*this).cut(Some(scope), task);
                }
            }
        }
    }

    /// The same where instruments look, or have looked, or where a test asks for another order than the ordinary one. Apart, so that who does not
    /// ask for that pays for one look at a flag.
    ///
    /// \[OWNER\]
    #[cold]
    #[inline(never)]
    unsafe fn poll_specially(&mut self, worker: &Worker, scope: &Scope, mut poll_body: impl FnMut(&mut Context<'_>)) {
        let (this, body) = (self.as_ptr(), self.body());
        let watch = worker.watch().filter(|watch| !BLIND && watch.is_active());
        // SAFETY: [OWNER]: the caller's word.
        unsafe {
            (*this).set_watched(watch);
            (*this).drain_inbox();
            let count = (*this).owner.with(|owner| (*owner).queued).min(SLICE);
            let budget = match &worker.schedule {
                None => context::BUDGET,
                Some(schedule) => {
                    (*this).arrange(count, schedule);
                    schedule.budget()
                }
            };
            self.poll_each::<true>(count, budget, scope, |task, cx| {
                let mut poll = || match ptr::eq(task, body) {
                    true => {
                        poll_body(cx);
                        false
                    }
                    false => ((*task).vtable.poll)(task, cx),
                };
                match watch {
                    None => poll(),
                    // [REF]: the owner's, since it is not done.
                    Some(watch) => watch.poll(&*task, poll),
                }
            });
        }
    }

    /// Tells instruments of the body, which for the worker's queue is a task: the main future.
    pub(crate) fn tell_of_body(&self, event: fn(&Watch, &Header)) {
        instrument::tell(&self.get().body, event);
    }

    /// Schedules the body and every child: the scope was cancelled, and each must be polled once to be told (N13).
    pub fn schedule_all(&mut self) {
        let this = self.as_ptr();
        // SAFETY: [OWNER]; each child in the list has the owner's reference.
        unsafe {
            (*this).drain_inbox();
            let _entered = Entered::new(Frame { ready: this, ..context::frame() });
            wake(self.body(), false);
            let mut child = (*this).first_child();
            while !child.is_null() {
                let next = (*child).next();
                wake(child, false);
                child = next;
            }
        }
    }

    /// Ends the nursery: nothing is spawned or queued any more, and children that are left are destroyed in place (N12), in the
    /// order of their birth, in `scope`; or, where the nursery was moved out of its run and is dropped elsewhere, in the scope there.
    pub fn close(&mut self, scope: &Scope) {
        self.destroy(Some(scope), context::frame_in(scope));
    }

    /// `scope` is that of the queue, if it is still there.
    fn destroy(&mut self, scope: Option<&Scope>, frame: Frame) {
        let this = self.as_ptr();
        // It is still at it, if a destructor holds up the loop.
        let _closing = frame.tree.map(|tree| tree.current.closes(context::task()));
        let _entered = Entered::new(Frame { ready: this, task: ptr::null(), ..frame });
        // SAFETY: [OWNER].
        unsafe {
            (*this).drain_inbox();
            (*this).owner.with_mut(|owner| (*owner).special |= CLOSED);
            (*this).adopt((*this).inbox.close());
            if (*this).owner.with(|owner| (*owner).special) & WATCHED != 0 {
                record::closes(this);
            }
            while let Some(task) = (*this).pop_local() {
                if (*task).is_done() {
                    (*this).let_go_if_child(task);
                }
            }
            loop {
                let child = (*this).first_child();
                if child.is_null() {
                    break;
                }
                ((*child).vtable.cut)(child, false);
                (*this).finish_watched(scope, child);
            }
            // The queue may go now, and the body's header with it.
            bury_holder(self.body());
            forget_task(scope, self.body());
        }
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        // SAFETY: [OWNER].
        self.get().owner.with(|owner| unsafe { (*owner).special } & CLOSED != 0)
    }
}

impl Drop for ReadyBox {
    fn drop(&mut self) {
        // It is closed before. Only where a panic has cut that short is there something left, and this goes on with it.
        self.set_body_done();
        self.destroy(None, context::frame());
        // SAFETY: [REF]: the owner's.
        unsafe { release_body(self.body()) }
    }
}
