//! Tasks, and the queue of those that can run.
//!
//! A task is a cell with one owner, which polls and destroys it, and any number of wakers on any thread. Its owner is a
//! [`Ready`] queue: the worker's, whose body is the main future of the run, or a nursery's, which is polled inside a task of the
//! queue above it. So there is one kind of task, and one protocol for wake-ups, at every depth.
//!
//! ```text
//!                  1 wake (was clear): push                 2 take: poll it
//!        ┌────────────────────────────────▶ SCHEDULED ───────────────┐
//!      idle ◀─────────────────────────────────────────────────── pending
//!                                                                   │ 3 finished, or destroyed by the owner
//!                                                                   ▼
//!                                              DONE: never polled, never pushed again
//! ```
//!
//! The word `state` of a task holds flags and, above them, the count of references:
//! - `SCHEDULED`: set by the first wake from elsewhere since the owner took the task in, which then pushes it to the inbox (1); cleared
//!   by the owner when it takes it in, before it polls (2). While it is set nobody else pushes there.
//! - `DONE`: set by the owner, once, after the future is gone (3). Whether it finished or was destroyed in place decides nothing
//!   here: destruction is decided by ownership, never by winning the queue, so a wake that comes late finds an empty shell.
//! - `NEW`: spawned from elsewhere, not in the owner's list of children yet.
//! - `JOIN`: a join handle exists. Until it goes, the value stays in the cell.
//! - `WAITER`: the join handle has registered to be told (in `joins` of the queue, under its lock).
//! - `MERGED`: the owner has let go of the child while wakers remain; the last of them releases the queue's memory too.
//! - references: `OWNER`, 64, for that of the owner (until DONE, or until it takes the task out of its queue); one of the inbox that holds the
//!   task, one of the join handle, one of each waker, but for those that the owner has counted.
//!
//! Most wakers are cloned and dropped inside of `Ready::run`, by each wait. The owner counts those in a plain number (biased reference counting):
//!
//! ```text
//!   inside of `run`, not MERGED            elsewhere
//!   own += 1, own -= 1                     word += REF, word -= REF
//!   ──────────── at the end of the task, by the owner ────────────
//!   word += own * REF - OWNER              0: it was the last, and frees
//!                                          else: MERGED, and there is the word alone
//! ```
//!
//! References are alike: one that was counted here may be given up there, so that both numbers may be below 0. Their sum is not, and `own` is at most 31,
//! so the word does not come to 0 before they are merged. Where `own` has no room for one more, all of it goes into the word: the wakers of a task
//! that waits for the driver or the clock are given up outside of `run`, and there would be none from the 32nd wait on. Without this, a round trip over a channel took 122 ns
//! instead of 115, and a deadline around a turn 65 to 80 instead of 64 (the least of 9 runs, the median, on a shared machine).
//!
//! A wake on the owner's thread, inside of `Ready::run`, does not touch that word: it sets `queued`, a plain field, and puts the task in
//! the queue directly. So a task that a wake from elsewhere meets too may be polled twice, and none is lost.
//!
//! Invariants, which the `SAFETY` comments name:
//! - **\[OWNER\]** What `owner` of a queue and the future of a task hold is touched by one thread at a time: the one that polls or
//!   drops the nursery (or runs the worker). "This thread is inside of `Ready::run` of this queue" is known from the context.
//! - **\[REF\]** A task's memory stays while it has references, in either count. A pointer to a task is used only by who has one.
//! - **\[OWN\]** The owner's number is touched by the owner, until it has merged it: while its own reference is there, so nobody else frees the task. Whether it
//!   has is known to it from the word, since it has set `MERGED` itself.
//! - **\[QUEUE\]** A queue's memory stays while its body has references; each child that outlives its owner's interest holds one.
//! - **\[LISTED\]** A task is in one inbox at most: the right to push it is that of who set `SCHEDULED`. It is in the owner's queue at most
//!   once: while `queued` is set. The two have a link each.
//! - **\[ALONE\]** The word of a task is changed by who has a reference; and, while the task is polled, by whatever thread the waker of that
//!   poll is lent to, which has none. So who is on the owner's thread and has the only one beside the owner's changes it by a plain
//!   store, but not while the task is polled. That both numbers together are 0 is true of one moment: one of them is the asker's.

mod cell;
mod ending;
mod join;
mod memory;
mod owner;
mod task;
mod wake;
mod whom;

pub use cell::{Origin, Outcome};
use join::Joins;
pub use join::RawJoin;
pub(crate) use memory::{LookingOn, look_on};
#[cfg(not(trefoil_loom))]
pub(crate) use memory::{is_looked_at, prepare_for_onlookers};
pub use owner::ReadyBox;
pub(crate) use task::Header;
pub(crate) use wake::{BodyHere, is_of, is_ours};
pub(crate) use whom::Whom;

use crate::blind::BLIND;
use crate::blocks;
use crate::context;
use crate::look::instrument::{self, Watch};
use crate::look::record;
use crate::schedule::Schedule;
use crate::sync::inbox::{Inbox, Pushed};
use crate::sync::waker_slot::WakerSlot;
use crate::sync::{AtomicPtr, AtomicUsize, Ordering, UnsafeCell};
use crate::tree::Tree;
use cell::{Stage, TaskCell};
use memory::free;
use std::cell::Cell;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::panic::Location;
use std::ptr;
use std::time::Duration;
pub(crate) use task::Newborn;
use task::{DONE, JOIN, NEW, OWNER, REF, SCHEDULED};
use wake::WAKER;

/// How many tasks of a queue are polled before the task above gives up its turn.
const SLICE: usize = 256;

/// In how many turns on end a nursery may poll its children while nothing else can run, before the task above gives up its turn.
const TURNS: u32 = 64;

/// After how many turns on end at whose end it had work a nursery takes its next turns itself. A burst goes the ordinary way, turn by turn:
/// code that polls a nursery by hand, and does something between two polls, sees each of them.
const BUSY: u8 = 64;

/// Whom to tell when something arrives in an empty inbox.
pub(crate) enum Above {
    /// The task that polls the nursery.
    Task(WakerSlot),
    /// The worker.
    Worker(&'static Tree),
}

impl Above {
    fn wake(&self) {
        match self {
            Above::Task(slot) => slot.wake(),
            Above::Worker(tree) => tree.parker.unpark(),
        }
    }
}

struct Owner {
    first: *const Header,
    last: *const Header,
    queued: usize,
    last_child: *const Header,
    /// A child that has ended had been told a cancellation (N13 b).
    told: bool,
    /// Why a push or a spawn is not the ordinary one: `CLOSED`, `WATCHED`, `HELD`.
    special: u8,
    /// How many turns on end there was work left.
    busy: Cell<u8>,
    /// For the outcomes of children.
    home: *const (),
}

/// Nothing is queued any more.
const CLOSED: u8 = 1;
/// Instruments want to know.
const WATCHED: u8 = 2;
/// A task of this queue holds, or held, something that others wait for: the children that it spawns are counted.
const HELD: u8 = 4;

/// The tasks of a nursery (or of the worker), and the queue of those that can run. See the module.
#[repr(C)]
pub struct Ready {
    /// First, so that a pointer to the body is one to the queue.
    body: Header,
    inbox: Inbox<Header>,
    parent: Above,
    joins: Joins,
    /// Children that are not done: stored by the owner, read by anybody.
    live: AtomicUsize,
    /// The list of children. Written by the owner; who looks on reads it.
    first_child: AtomicPtr<Header>,
    owner: UnsafeCell<Owner>,
}

// SAFETY: `owner` follows [OWNER]; the rest is shared by design.
unsafe impl Send for Ready {}
// SAFETY: as above.
unsafe impl Sync for Ready {}

impl std::fmt::Debug for Ready {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ready")
    }
}

impl Ready {
    fn first_child(&self) -> *const Header {
        self.first_child.load(Ordering::Acquire)
    }

    /// The body, and then the children in the order of their birth, without those that are done. Any thread, while it [looks on](look_on):
    /// children that come and go meanwhile may be in it or not. Those that were spawned from elsewhere, and that the owner has not taken in
    /// yet, are not.
    ///
    /// # Safety
    /// The queue stays, and \[LOOKED\] holds, as long as what is returned is used.
    pub(crate) unsafe fn tasks<'a>(&'a self) -> impl Iterator<Item = &'a Header> + use<'a> {
        // As many as there were, and a few that came meanwhile: a loop that spawns faster than this walks would hold it up for ever.
        let at_most = self.live() + SLICE;
        let mut child = self.first_child();
        let children = std::iter::from_fn(move || {
            // SAFETY: [LOOKED].
            let found = unsafe { child.as_ref() }?;
            child = found.next();
            Some(found)
        });
        std::iter::once(&self.body).chain(children.take(at_most)).filter(|task| !task.is_done())
    }

    /// For how long its body has been done, or else since when it is there; and whether it is done. Any thread.
    pub(crate) fn body_age(&self, now: u64) -> (Duration, bool) {
        // In this order: it is done after its age has begun anew.
        let done = self.body.is_done();
        (self.body.age(now), done)
    }

    /// Whether it holds a waker of this task, to tell it of what arrives. \[OWNER\]
    pub(crate) fn is_polled_by(&self, task: *const Header) -> bool {
        match &self.parent {
            Above::Task(slot) => slot.is_for(task.cast(), &WAKER),
            Above::Worker(_) => false,
        }
    }

    /// What the owner has set. \[OWNER\]
    unsafe fn home(&self) -> *const () {
        // SAFETY: [OWNER].
        self.owner.with(|owner| unsafe { (*owner).home })
    }

    /// How many children are not done. Any thread.
    pub fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// Whether nothing is queued.
    unsafe fn is_drained(&self) -> bool {
        // SAFETY: [OWNER].
        self.owner.with(|owner| unsafe { (*owner).first.is_null() })
    }

    /// One that is not queued.
    unsafe fn push_local(&self, task: *const Header) {
        // SAFETY: [OWNER], [LISTED], [REF].
        unsafe {
            let special = self.special_push();
            if special != 0 && !self.push_special(special, task) {
                return;
            }
            self.enqueue(task);
        }
    }

    /// Why a push is not the ordinary one, or 0. \[OWNER\]
    #[inline(always)]
    unsafe fn special_push(&self) -> u8 {
        // SAFETY: [OWNER].
        self.owner.with(|owner| unsafe { (*owner).special }) & (CLOSED | WATCHED)
    }

    unsafe fn enqueue(&self, task: *const Header) {
        // SAFETY: [OWNER], [LISTED].
        self.owner.with_mut(|owner| unsafe {
            let owner = &mut *owner;
            (*task).set_queued(true);
            (*task).next_ready.set(ptr::null());
            if owner.last.is_null() {
                owner.first = task;
            } else {
                (*owner.last).next_ready.set(task);
            }
            owner.last = task;
            owner.queued += 1;
        });
    }

    /// Whether the task is to be pushed.
    #[cold]
    unsafe fn push_special(&self, special: u8, task: *const Header) -> bool {
        if special & CLOSED != 0 {
            return false;
        }
        // User code runs here, and may wake the task: it is marked before, and comes into the queue after ([LISTED]).
        // SAFETY: [REF]; [OWNER].
        unsafe {
            (*task).set_queued(true);
            instrument::tell(&*task, Watch::scheduled);
        }
        true
    }

    /// Whether instruments look from now on.
    unsafe fn set_watched(&self, watch: Option<&Watch>) {
        // SAFETY: [OWNER].
        self.owner.with_mut(|owner| unsafe {
            let others = (*owner).special & !WATCHED;
            (*owner).special = others | if watch.is_some() { WATCHED } else { 0 };
        });
        if let Some(watch) = watch {
            watch.looks_at(self);
        }
    }

    unsafe fn pop_local(&self) -> Option<*const Header> {
        // SAFETY: [OWNER].
        self.owner.with_mut(|owner| unsafe {
            let owner = &mut *owner;
            let task = owner.first;
            if task.is_null() {
                return None;
            }
            owner.first = (*task).next_ready.get();
            if owner.first.is_null() {
                owner.last = ptr::null();
            }
            owner.queued -= 1;
            (*task).set_queued(false);
            Some(task)
        })
    }

    /// Puts the batch that is about to be polled in the order that a test asked for.
    #[cold]
    unsafe fn arrange(&self, count: usize, schedule: &Schedule) {
        // SAFETY: [OWNER].
        unsafe {
            let mut all: Vec<_> = std::iter::from_fn(|| self.pop_local()).collect();
            schedule.arrange(&mut all[..count]);
            for task in all {
                self.enqueue(task);
            }
        }
    }

    /// Pushes into the inbox. Where that is watched, a note is left before, for who records: the owner looks for it when it takes the task in.
    ///
    /// # Safety
    /// As for [`Inbox::push`].
    #[inline(always)]
    unsafe fn push_from_elsewhere(&self, task: *const Header) -> Pushed {
        // SAFETY: the caller's word.
        unsafe {
            match self.inbox.push(task) {
                Pushed::Watched => self.push_noted(task),
                pushed => pushed,
            }
        }
    }

    #[cold]
    #[inline(never)]
    unsafe fn push_noted(&self, task: *const Header) -> Pushed {
        // SAFETY: [REF]: the inbox's reference, which is ours until then; the caller's word.
        unsafe {
            record::wakes(&*task);
            self.inbox.push_watched(task)
        }
    }

    /// Takes in what other threads (and other queues) have pushed.
    unsafe fn drain_inbox(&self) {
        // SAFETY: [OWNER].
        unsafe {
            if self.is_watched() {
                self.adopt_watched(self.inbox.take_watched());
            } else {
                self.adopt_unwatched(self.inbox.take());
            }
        }
    }

    /// Whether instruments look, or have looked in the last turn. \[OWNER\]
    unsafe fn is_watched(&self) -> bool {
        // SAFETY: [OWNER].
        !BLIND && self.owner.with(|owner| unsafe { (*owner).special }) & WATCHED != 0
    }

    /// Takes in a list from the inbox.
    unsafe fn adopt(&self, task: *const Header) {
        // SAFETY: [OWNER]; the list from the inbox is ours.
        unsafe {
            if self.is_watched() {
                self.adopt_watched(task);
            } else {
                self.adopt_unwatched(task);
            }
        }
    }

    /// The same, where no instrument looks at this queue.
    #[inline(always)]
    unsafe fn adopt_unwatched(&self, mut task: *const Header) {
        while !task.is_null() {
            // SAFETY: as in `adopt`.
            task = unsafe { self.adopt_one(task) };
        }
    }

    #[cold]
    unsafe fn adopt_watched(&self, mut task: *const Header) {
        if task.is_null() {
            return;
        }
        while !task.is_null() {
            record::arrives(task);
            // SAFETY: as in `adopt`.
            task = unsafe { self.adopt_one(task) };
        }
        record::have_arrived();
    }

    /// Returns the next one of the list.
    #[inline(always)]
    unsafe fn adopt_one(&self, task: *const Header) -> *const Header {
        // SAFETY: as in `adopt`.
        unsafe {
            let next = (*task).link.load(Ordering::Relaxed);
            let new = (*task).state.load(Ordering::Relaxed) & NEW;
            // It is not in the inbox any more, and may be pushed there again; the inbox's reference is given up. Acquire: what
            // happened before the wakes that found it there is seen by the poll to come.
            let before = (*task).state.fetch_sub(SCHEDULED + new + REF, Ordering::AcqRel);
            if before & DONE != 0 {
                if before / REF == 1 {
                    free(task, before);
                }
            } else {
                if new != 0 {
                    self.add_child(task);
                }
                if !(*task).is_queued() {
                    self.push_local(task);
                }
            }
            next
        }
    }

    /// One that comes from elsewhere, or that instruments are told of.
    #[inline(never)]
    unsafe fn add_child(&self, child: *const Header) {
        // SAFETY: [OWNER], [REF].
        unsafe {
            self.link_child(child);
            self.tell_if_watched(child, Watch::spawned);
        }
    }

    #[inline(always)]
    unsafe fn link_child(&self, child: *const Header) {
        // SAFETY: [OWNER].
        self.owner.with_mut(|owner| unsafe {
            let owner = &mut *owner;
            (*child).prev.set(owner.last_child);
            // Release: what is in the child, for who looks on.
            if owner.last_child.is_null() {
                self.first_child.store(child.cast_mut(), Ordering::Release);
            } else {
                (*owner.last_child).next.store(child.cast_mut(), Ordering::Release);
            }
            owner.last_child = child;
            self.live.store(self.live.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        });
    }

    unsafe fn tell_if_watched(&self, task: *const Header, event: fn(&Watch, &Header)) {
        // SAFETY: [OWNER], [REF].
        unsafe {
            if self.is_watched() {
                instrument::tell(&*task, event);
            }
        }
    }

    /// Spawns a child into a queue. From the owner's own `run`, directly; from elsewhere through the inbox. A queue that is
    /// closed refuses: the future is dropped here, and the handle says that the child is done, without a value (R64).
    ///
    /// # Safety
    /// `ready` is there. Future and outcome may be polled and dropped by the owner of the queue, on its thread, until the queue is
    /// closed, and the value by who has the handle.
    pub unsafe fn spawn<F, S>(
        ready: *const Ready,
        future: F,
        outcome: S,
        place: &'static Location<'static>,
    ) -> RawJoin<S::Value>
    where
        F: Future,
        S: Outcome<F::Output>,
    {
        let cell = blocks::put(TaskCell {
            header: Header::new(OWNER | JOIN | REF, &TaskCell::<F, S>::VTABLE, ready, place),
            outcome,
            stage: UnsafeCell::new(Stage { future: ManuallyDrop::new(future) }),
        })
        .as_ptr();
        let task: *const Header = cell.cast();
        // SAFETY: as above; nobody knows of it yet.
        unsafe {
            Header::is_born(cell.cast(), context::newborn());
            if ptr::eq(context::ready(), ready) {
                let special = (*ready).owner.with(|owner| (*owner).special);
                if special != 0 {
                    task::count_spawned();
                }
                if special & (CLOSED | WATCHED) == 0 {
                    (*ready).link_child(task);
                    (*ready).enqueue(task);
                    return RawJoin::new(task);
                }
                if special & CLOSED == 0 {
                    (*ready).add_child(task);
                    (*ready).push_local(task);
                    return RawJoin::new(task);
                }
            } else {
                task::count_spawned();
                // Nobody knows of it yet. The second of these references is the inbox's.
                (*task).state.store(OWNER | SCHEDULED | NEW | JOIN | (2 * REF), Ordering::Relaxed);
                let pushed = (*ready).push_from_elsewhere(task);
                if pushed != Pushed::Refused {
                    let join = RawJoin::new(task);
                    if pushed == Pushed::First {
                        (*ready).parent.wake();
                    }
                    return join;
                }
            }
            // Refused: it is dropped here, never having been polled.
            let future = (*cell).stage.with_mut(|stage| {
                let future = ManuallyDrop::take(&mut (*stage).future);
                (*stage).value = ManuallyDrop::new(None);
                future
            });
            (*task).set_gone();
            (*task).state.store(OWNER | DONE | JOIN | REF, Ordering::Relaxed);
            (*ready).let_go(task);
            let join = RawJoin::new(task);
            drop(future);
            join
        }
    }
}
