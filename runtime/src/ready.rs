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
//! - `WAITER`: the join handle has registered to be told (under the lock `joins`).
//! - `ORPHAN`: the owner has let go of the task while wakers remain; the last of them releases the queue's memory too.
//! - references: one of the owner (until DONE, or until it takes the task out of its queue), one of the inbox that holds the task, one of
//!   the join handle, one of each waker.
//!
//! A wake on the owner's thread, inside of `Ready::run`, does not touch that word: it sets `queued`, a plain field, and puts the task in
//! the queue directly. So a task that a wake from elsewhere meets too may be polled twice, and none is lost.
//!
//! Invariants, which the `SAFETY` comments name:
//! - **\[OWNER\]** What `owner` of a queue and the future of a task hold is touched by one thread at a time: the one that polls or
//!   drops the nursery (or runs the worker). "This thread is inside of `Ready::run` of this queue" is known from the context.
//! - **\[REF\]** A task's memory stays while its count is above 0. A pointer to a task is used only by who has a reference.
//! - **\[QUEUE\]** A queue's memory stays while its body has references; each child that outlives its owner's interest holds one.
//! - **\[LISTED\]** A task is in one inbox at most: the right to push it is that of who set `SCHEDULED`. It is in the owner's queue at most
//!   once: while `queued` is set. The two have a link each.
//! - **\[ALONE\]** The word of a task is changed by who has a reference; and, while the task is polled, by whatever thread the waker of that
//!   poll is lent to, which has none. So who is on the owner's thread and has the only one beside the owner's changes it by a plain
//!   store, but not while the task is polled; and a waker is cloned by a read-modify-write always.

use crate::context::{self, Entered, Frame};
use crate::holders;
use crate::inbox::{Inbox, Linked, Pushed};
use crate::instrument::{self, Watch};
#[cfg(not(trefoil_loom))]
use crate::onlook::Onlookers;
use crate::park::{On, Park, Reason, Wait};
use crate::record;
use crate::schedule::Schedule;
use crate::scope::Scope;
use crate::sync::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Mutex, Ordering, UnsafeCell};
use crate::tree::{Current, Tree};
use crate::waker_slot::WakerSlot;
use crate::worker;
use std::any::Any;
use std::cell::Cell;
use std::future::Future;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};
use std::time::Duration;

const SCHEDULED: usize = 1;
const DONE: usize = 2;
const NEW: usize = 4;
const JOIN: usize = 8;
const WAITER: usize = 16;
const ORPHAN: usize = 32;
const REF: usize = 64;

/// The marks of a task: see there.
const STRIKE: u16 = HOLDER - 1;
const HOLDER: u16 = 1 << 10;
const SPAWNED: u16 = 1 << 11;
const MANY: u16 = 31;
const _: () = assert!(context::STRIKES < STRIKE as u32);

/// How many tasks of a queue are polled before the task above gives up its turn.
const SLICE: usize = 256;

/// In how many turns on end a nursery may poll its children while nothing else can run, before the task above gives up its turn.
pub const TURNS: u32 = 64;

/// After how many turns on end at whose end it had work a nursery takes its next turns itself. A burst goes the ordinary way, turn by turn:
/// code that polls a nursery by hand, and does something between two polls, sees each of them.
pub const BUSY: u8 = 64;

/// What a panic carried.
pub type Payload = Box<dyn Any + Send>;

/// Drops what a panic carried, in a place that cannot panic: a payload whose destructor does leaves another, which is leaked.
pub fn discard(payload: Payload) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(again);
    }
}

/// The same, of a panic that nobody will hear of since another goes first, or since there is nobody to tell: it is reported.
#[cold]
pub(crate) fn report_panic(payload: Payload, of: &str) {
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(|text| &**text));
    // A subscriber is code of others, and this may be half way through an end.
    let said =
        catch_unwind(AssertUnwindSafe(|| tracing::error!("{of}: {}", text.unwrap_or("(a payload that is not text)"))));
    if let Err(another) = said {
        discard(another);
    }
    discard(payload);
}

struct VTable {
    /// Polls the future; true when it is over (and gone). \[OWNER\]
    poll: unsafe fn(*const Header, &mut Context<'_>) -> bool,
    /// Destroys the future in place; with `true` its outcome is told (N13). \[OWNER\]
    cut: unsafe fn(*const Header, bool),
    /// Moves the value out into an `Option<T>`. For the join handle, once, after DONE.
    value: unsafe fn(*const Header, *mut ()),
    /// Drops the value. \[OWNER\], after DONE, when there is no join handle.
    drop_value: unsafe fn(*const Header),
    /// Its name. By who has a reference, on any thread.
    name: unsafe fn(*const Header) -> Option<Arc<str>>,
    /// Code of others panicked on behalf of the child. \[OWNER\]
    panicked: unsafe fn(*const Header, Payload),
    /// Frees the memory.
    free: unsafe fn(*const Header),
}

/// Not one of loom's atomics: of what others read in it nothing follows.
#[derive(Default)]
struct Flag(std::sync::atomic::AtomicBool);

impl Flag {
    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, to: bool) {
        self.0.store(to, Ordering::Relaxed);
    }
}

/// A number that one thread at a time writes, and any reads. Not one of loom's atomics, as above.
#[derive(Default)]
struct Count(std::sync::atomic::AtomicU32);

impl Count {
    fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// By its one writer: no read-modify-write.
    #[inline(always)]
    fn add_one(&self) {
        self.0.store(self.get().wrapping_add(1), Ordering::Relaxed);
    }
}

/// Where a queue notes what it polls that is polled outside of a run.
static NOBODY_LOOKS: Current = Current::new();

/// How exactly the age of tasks is known, in bits of nanoseconds: to a millisecond, for 50 days.
const AGE_UNIT: u32 = 20;

fn age_units(now: u64) -> u32 {
    // Cut on purpose.
    (now >> AGE_UNIT) as u32
}

/// The part of a task that does not depend on its future.
#[repr(C)]
pub struct Header {
    state: AtomicUsize,
    link: AtomicPtr<Header>,
    /// The next one in the owner's queue, while this is `queued`. \[OWNER\]
    next_ready: Cell<*const Header>,
    vtable: &'static VTable,
    queue: *const Ready,
    prev: Cell<*const Header>,
    /// The next child of the queue. Written by the owner; who looks on reads it.
    next: AtomicPtr<Header>,
    waiter: AtomicPtr<Park>,
    /// Waits and scopes of ours that this task began and that are open: while there are some, it pends on something known (N13).
    waits: AtomicU32,
    /// A cancel ended a wait of this task since its last poll began. Set under the lock of the tree, before `waits` goes down.
    told: AtomicBool,
    /// It is in the owner's queue. \[OWNER\], who looks on reads it.
    queued: Flag,
    /// How many cancellations it was told (N13 b): the bits of `STRIKE`. Whether it holds, or held, something that others wait for: `HOLDER`.
    /// And from there on, up to `MANY`, how many children it has spawned since. \[OWNER\]
    marks: Cell<u16>,
    /// When it was spawned, for the task tree: in [`AGE_UNIT`]s of the run's clock, modulo 2^32. Never changed.
    born: u32,
    /// How many polls of it have begun, modulo 2^32. Written by the owner; who looks on reads it. In what would be padding, of a line that a poll
    /// has in its hands anyway.
    polls: Count,
    /// Where it was spawned.
    pub place: &'static Location<'static>,
}

// SAFETY: `link` is the field that only the inbox uses ([LISTED]).
unsafe impl Linked for Header {
    fn link(&self) -> &AtomicPtr<Header> {
        &self.link
    }
}

impl std::fmt::Debug for Header {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Task({})", self.place)
    }
}

impl std::fmt::Display for Header {
    /// Who it is, for logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name() {
            Some(name) => write!(f, "`{name}` ({})", self.place),
            None => self.place.fmt(f),
        }
    }
}

impl Header {
    #[inline(always)]
    fn new(
        state: usize,
        vtable: &'static VTable,
        queue: *const Ready,
        tree: Option<&'static Tree>,
        place: &'static Location<'static>,
    ) -> Self {
        Self {
            state: AtomicUsize::new(state),
            link: AtomicPtr::new(ptr::null_mut()),
            next_ready: Cell::new(ptr::null()),
            vtable,
            queue,
            prev: Cell::new(ptr::null()),
            next: AtomicPtr::new(ptr::null_mut()),
            waiter: AtomicPtr::new(ptr::null_mut()),
            waits: AtomicU32::new(0),
            told: AtomicBool::new(false),
            queued: Flag::default(),
            marks: Cell::new(0),
            born: tree.map_or(0, |tree| age_units(tree.turn_time())),
            polls: Count::default(),
            place,
        }
    }

    /// Under the lock of the tree.
    pub(crate) fn waits_add(&self, n: u32) {
        self.waits.store(self.waits.load(Ordering::Relaxed) + n, Ordering::Release);
    }

    /// Under the lock of the tree.
    pub(crate) fn waits_sub(&self, n: u32) {
        self.waits.store(self.waits.load(Ordering::Relaxed) - n, Ordering::Release);
    }

    /// How many waits and scopes it has open. Exactly, under the lock of the tree.
    pub(crate) fn waits(&self) -> u32 {
        self.waits.load(Ordering::Acquire)
    }

    /// How many cancellations it was told (N13 b). \[OWNER\]
    pub(crate) fn strikes(&self) -> u16 {
        self.marks.get() & STRIKE
    }

    /// \[OWNER\]
    pub(crate) fn set_strikes(&self, strikes: u16) {
        self.marks.set(self.marks.get() & !STRIKE | strikes.min(STRIKE));
    }

    /// It holds something from now on. How many children it has spawned as a holder, if that can still be said. \[OWNER\]
    pub(crate) fn holds(&self) -> Option<u16> {
        self.marks.set(self.marks.get() | HOLDER);
        self.spawned()
    }

    /// How many children it has spawned as a holder, if that can still be said. \[OWNER\]
    pub(crate) fn spawned(&self) -> Option<u16> {
        let spawned = self.marks.get() / SPAWNED;
        (spawned < MANY).then_some(spawned)
    }

    /// It spawns a child. \[OWNER\]
    #[inline]
    fn spawns(&self) {
        if self.marks.get() & HOLDER != 0 {
            self.count_spawned();
        }
    }

    #[cold]
    fn count_spawned(&self) {
        let marks = self.marks.get();
        if marks / SPAWNED < MANY {
            self.marks.set(marks + SPAWNED);
        }
    }

    /// How many references there are beside the owner's and the join handle's: of wakers, while it is not scheduled.
    pub(crate) fn wakers(&self) -> usize {
        let state = self.state.load(Ordering::Acquire);
        (state / REF).saturating_sub(1 + usize::from(state & JOIN != 0))
    }

    /// Whose body or child it is.
    pub(crate) fn queue(&self) -> *const Ready {
        self.queue
    }

    /// The next child of its queue.
    fn next(&self) -> *const Header {
        self.next.load(Ordering::Acquire)
    }

    /// Whether it was woken since its last poll began. \[OWNER\], or roughly.
    pub(crate) fn is_scheduled(&self) -> bool {
        self.queued.get() || self.state.load(Ordering::Acquire) & SCHEDULED != 0
    }

    /// Its name, if it was given one.
    pub(crate) fn name(&self) -> Option<Arc<str>> {
        // SAFETY: [REF]: of who has this.
        unsafe { (self.vtable.name)(self) }
    }

    pub(crate) fn is_body(&self) -> bool {
        ptr::eq(self.queue.cast(), self)
    }

    /// Whether it is one for those who look from outside: the body of a nursery is not, but a part of the task that polls it.
    pub(crate) fn is_task(&self) -> bool {
        // SAFETY: [QUEUE]: the task has references, so its queue is there.
        !self.is_body() || matches!(unsafe { &(*self.queue).parent }, Above::Worker(_))
    }

    pub(crate) fn is_done(&self) -> bool {
        self.state.load(Ordering::Acquire) & DONE != 0
    }

    /// A cancel ends a wait of this task. Under the lock of the tree, before the wait is taken out.
    pub(crate) fn tell(&self) {
        self.told.store(true, Ordering::Release);
    }

    /// Whether a cancel has ended a wait since the last poll began. Then the task cannot have had the chance to see that, and
    /// is not stuck yet: a cancel from another thread takes the waits out under the lock, and wakes only after it.
    pub(crate) fn is_told(&self) -> bool {
        self.told.load(Ordering::Acquire)
    }

    /// How long ago it was spawned. Any thread.
    pub(crate) fn age(&self, now: u64) -> Duration {
        Duration::from_nanos(u64::from(age_units(now).wrapping_sub(self.born)) << AGE_UNIT)
    }

    /// How many polls of it have begun, modulo 2^32. Any thread.
    pub(crate) fn polls(&self) -> u32 {
        self.polls.get()
    }

    /// A poll begins, which will see what it was told. \[OWNER\]
    fn begin_poll(&self) {
        self.polls.add_one();
        if self.told.load(Ordering::Relaxed) {
            self.told.swap(false, Ordering::AcqRel);
        }
    }

    /// The word of a task that has no reference but the owner's and that of the caller, who is inside of its queue's `run`, but not of its
    /// poll: nobody else can change it ([ALONE]).
    #[inline]
    fn is_alone_with_caller(&self) -> Option<usize> {
        let frame = context::frame();
        if !ptr::eq(frame.ready, self.queue) || ptr::eq(frame.task, self) {
            return None;
        }
        // Acquire: what those did that gave up theirs.
        let state = self.state.load(Ordering::Acquire);
        (state & DONE == 0 && state / REF == 2).then_some(state)
    }

    /// N13 (a): it is pending, was not woken meanwhile, and waits for nothing that this library knows of. One that was told
    /// meanwhile is scheduled instead, and judged after its next poll.
    ///
    /// # Safety
    /// \[REF\].
    unsafe fn is_stuck(task: *const Header) -> bool {
        // SAFETY: [REF].
        let header = unsafe { &*task };
        if header.waits() != 0 || header.is_scheduled() {
            return false;
        }
        if header.is_told() {
            // SAFETY: [REF].
            unsafe { wake(task, false) };
            return false;
        }
        true
    }
}

// ---- Wakers --------------------------------------------------------------------------------------------------------

static WAKER: RawWakerVTable = RawWakerVTable::new(waker_clone, waker_wake, waker_wake_by_ref, waker_drop);

/// Whether a waker is a task's: cloning it runs no code of others.
pub(crate) fn is_ours(waker: &Waker) -> bool {
    ptr::eq(waker.vtable(), &WAKER)
}

/// Whether a waker is that of this task, and not of a combinator in it.
pub(crate) fn is_of(waker: &Waker, task: *const Header) -> bool {
    is_ours(waker) && ptr::eq(waker.data(), task.cast())
}

unsafe fn waker_clone(task: *const ()) -> RawWaker {
    // SAFETY: [REF]: the waker has a reference.
    let header = unsafe { &*task.cast::<Header>() };
    // Also in the task's own poll: another thread may be at the same waker, which it borrows ([ALONE]).
    let before = header.state.fetch_add(REF, Ordering::Relaxed);
    if before > isize::MAX as usize {
        std::process::abort(); // 2^57 wakers: a leak in a loop
    }
    RawWaker::new(task, &WAKER)
}

unsafe fn waker_wake(task: *const ()) {
    // SAFETY: [REF]: ours, given to `wake`.
    unsafe { wake(task.cast(), true) }
}

unsafe fn waker_wake_by_ref(task: *const ()) {
    // SAFETY: [REF]: the waker has a reference.
    unsafe { wake(task.cast(), false) }
}

unsafe fn waker_drop(task: *const ()) {
    // SAFETY: [REF]: ours.
    unsafe { release(task.cast()) }
}

/// Transition 1. With `give`, the caller's reference is used up.
unsafe fn wake(task: *const Header, give: bool) {
    // SAFETY: [REF].
    let header = unsafe { &*task };
    if ptr::eq(context::frame().ready, header.queue) {
        // Inside of this queue's `run`: no read-modify-write, here and when it is polled. A turn takes half the time by that.
        if !header.queued.get() && !header.is_done() {
            // SAFETY: [OWNER], [LISTED]; [QUEUE]: the task has references, so its queue is there.
            unsafe { (*header.queue).push_local(task) };
        }
    } else {
        // SAFETY: [REF]: the caller's, to the end.
        unsafe { wake_elsewhere(task) };
    }
    if give {
        // SAFETY: [REF].
        unsafe { release(task) }
    }
}

/// The caller's reference is kept to the end: as soon as the task is in the inbox its owner may take it out, finish it and end, and only that
/// reference keeps the inbox's queue for `push`.
unsafe fn wake_elsewhere(task: *const Header) {
    // SAFETY: [REF].
    let header = unsafe { &*task };
    let mut state = header.state.load(Ordering::Relaxed);
    loop {
        let next = match state & (SCHEDULED | DONE) {
            0 => (state | SCHEDULED) + REF,
            // Scheduled before: a write of the same value, so that the poll to come sees what happened before this wake.
            SCHEDULED => state,
            _ => return,
        };
        match header.state.compare_exchange_weak(state, next, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) if state & SCHEDULED == 0 => break,
            Ok(_) => return,
            Err(now) => state = now,
        }
    }
    record::wakes(header);
    // SAFETY: [LISTED]: we set SCHEDULED; [REF]: the inbox's reference is in `next`; [QUEUE]: the task has references, so its queue is there.
    unsafe {
        match (*header.queue).inbox.push(task) {
            Pushed::First => (*header.queue).parent.wake(),
            Pushed::Behind => {}
            Pushed::Refused => release(task),
        }
    }
}

unsafe fn release(task: *const Header) {
    // SAFETY: [REF].
    let header = unsafe { &*task };
    if let Some(state) = header.is_alone_with_caller()
        && state & JOIN == 0
    {
        // A child that had one waker, which was woken on the owner's thread. 5 ns.
        header.state.store(state - REF, Ordering::Relaxed);
        return;
    }
    let before = header.state.fetch_sub(REF, Ordering::AcqRel);
    if before / REF == 1 {
        // SAFETY: that was the last reference.
        unsafe { free(task, before) }
    }
}

#[inline(always)]
unsafe fn free(task: *const Header, state: usize) {
    // Under loom the protocol has a model of its own: a word that all tasks look at would make the others too large.
    #[cfg(not(trefoil_loom))]
    if ONLOOKERS.any() {
        // SAFETY: the caller's word.
        return unsafe { free_or_keep(task, state) };
    }
    // SAFETY: the caller's word.
    unsafe { free_now(task, state) }
}

#[cfg(not(trefoil_loom))]
#[cold]
#[inline(never)]
unsafe fn free_or_keep(task: *const Header, state: usize) {
    if let Some(Kept(task, state)) = ONLOOKERS.retire(Kept(task, state)) {
        // SAFETY: the caller's word.
        unsafe { free_now(task, state) }
    }
}

/// A task whose memory is kept for who looks on: all that is left to do is [`free_now`].
#[cfg(not(trefoil_loom))]
struct Kept(*const Header, usize);

// SAFETY: nobody but the last reference's holder had it, who gave it up; a task is freed on any thread.
#[cfg(not(trefoil_loom))]
unsafe impl Send for Kept {}

#[cfg(not(trefoil_loom))]
static ONLOOKERS: Onlookers<Kept> = Onlookers::new();

/// To be called before there are tasks: sees to it that others may look on.
#[cfg(not(trefoil_loom))]
pub(crate) fn prepare_for_onlookers() {
    ONLOOKERS.prepare();
}

/// Somebody looks on, until this is dropped.
pub(crate) struct LookingOn {
    #[cfg(not(trefoil_loom))]
    looking: crate::onlook::Looking<'static, Kept, fn(Kept)>,
}

/// Any thread may walk the children of a queue that is there, if the result says so, until that is dropped: \[LOOKED\].
pub(crate) fn look_on() -> LookingOn {
    LookingOn {
        // SAFETY: nobody looks on any more, and it was kept by `free`.
        #[cfg(not(trefoil_loom))]
        looking: ONLOOKERS.look(|Kept(task, state)| unsafe { free_now(task, state) }),
    }
}

impl LookingOn {
    /// Whether \[LOOKED\] holds.
    pub fn may_walk(&self) -> bool {
        #[cfg(not(trefoil_loom))]
        return self.looking.may_walk();
        // Under loom the protocol has a model of its own.
        #[cfg(trefoil_loom)]
        return true;
    }
}

#[inline]
unsafe fn free_now(task: *const Header, state: usize) {
    // SAFETY: nobody else has a reference; [QUEUE]: an orphan holds one of its queue's body.
    unsafe {
        let queue = (*task).queue;
        ((*task).vtable.free)(task);
        if state & ORPHAN != 0 {
            release(queue.cast());
        }
    }
}

/// A waker that borrows the owner's reference for the length of a poll.
unsafe fn borrowed_waker(task: *const Header) -> ManuallyDrop<Waker> {
    // SAFETY: the vtable is for headers; the reference is not given up, since the waker is not dropped.
    ManuallyDrop::new(unsafe { Waker::from_raw(RawWaker::new(task.cast(), &WAKER)) })
}

// ---- Cells ---------------------------------------------------------------------------------------------------------

/// What becomes of a child's outcome: the nursery's side. Called by the owner, with the place where the child was spawned.
pub trait Outcome<O> {
    /// What a join handle gets.
    type Value;
    /// The child returned: the value for the join handle, if there is one.
    fn finished(&self, output: O, place: &'static Location<'static>) -> Option<Self::Value>;
    /// The child panicked, or a destructor of it, or the waker of who waits for it. This must not panic.
    fn panicked(&self, payload: Payload, place: &'static Location<'static>);
    /// The child was cancelled and pended on nothing that the library knows of: it was dropped (N13).
    fn cut(&self, place: &'static Location<'static>);

    /// The name of the child, if it was given one. Here, since few are: so the others have no room for one.
    ///
    /// # Safety
    /// `this` is there. It is called on any thread, also while the owner is inside of another method: what is read must not change, and
    /// must be `Sync`.
    unsafe fn name(this: *const Self) -> Option<Arc<str>> {
        _ = this;
        None
    }
}

enum Stage<F, T> {
    Running(F),
    Finished(Option<T>),
}

#[repr(C)]
struct TaskCell<F: Future, S: Outcome<F::Output>> {
    header: Header,
    outcome: S,
    stage: UnsafeCell<Stage<F, S::Value>>,
}

impl<F: Future, S: Outcome<F::Output>> TaskCell<F, S> {
    const VTABLE: VTable = VTable {
        poll: Self::poll,
        cut: Self::cut,
        value: Self::value,
        drop_value: Self::drop_value,
        name: Self::name,
        panicked: Self::panicked,
        free: Self::free,
    };

    unsafe fn poll(task: *const Header, cx: &mut Context<'_>) -> bool {
        // SAFETY: [OWNER]. The pointer stays raw but for the future itself, which is pinned in the cell.
        unsafe {
            let this = task.cast::<Self>();
            let polled = (*this).stage.with_mut(|stage| {
                let Stage::Running(future) = &mut *stage else { unreachable!("a task is polled until it is done") };
                catch_unwind(AssertUnwindSafe(|| Pin::new_unchecked(future).poll(cx)))
            });
            match polled {
                Ok(Poll::Pending) => false,
                Ok(Poll::Ready(output)) => {
                    Self::drop_future(this);
                    let value = (*this).outcome.finished(output, (*task).place);
                    (*this).stage.with_mut(|stage| *stage = Stage::Finished(value));
                    true
                }
                Err(payload) => {
                    (*this).outcome.panicked(payload, (*this).header.place);
                    Self::drop_future(this);
                    true
                }
            }
        }
    }

    /// Destroys the future; a panic in its destructor goes to the nursery.
    unsafe fn drop_future(this: *const Self) {
        // SAFETY: [OWNER]: the future is dropped in place, once, and written over without being dropped again.
        unsafe {
            (*this).stage.with_mut(|stage| {
                if let Stage::Running(future) = &mut *stage {
                    let future: *mut F = future;
                    let dropped = catch_unwind(AssertUnwindSafe(|| ptr::drop_in_place(future)));
                    ptr::write(stage, Stage::Finished(None));
                    if let Err(payload) = dropped {
                        (*this).outcome.panicked(payload, (*this).header.place);
                    }
                }
            });
        }
    }

    unsafe fn cut(task: *const Header, told: bool) {
        // SAFETY: [OWNER].
        unsafe {
            Self::drop_future(task.cast());
            if told {
                (*task.cast::<Self>()).outcome.cut((*task).place);
            }
        }
    }

    unsafe fn value(task: *const Header, to: *mut ()) {
        // SAFETY: after DONE the stage belongs to the join handle, which knows its `T`.
        unsafe {
            (*task.cast::<Self>()).stage.with_mut(|stage| {
                if let Stage::Finished(value) = &mut *stage {
                    *to.cast::<Option<S::Value>>() = value.take();
                }
            });
        }
    }

    unsafe fn drop_value(task: *const Header) {
        // SAFETY: without a handle the stage is the owner's.
        unsafe {
            let this = task.cast::<Self>();
            let value = (*this).stage.with_mut(|stage| match &mut *stage {
                Stage::Finished(value) => value.take(),
                Stage::Running(_) => None,
            });
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
                (*this).outcome.panicked(payload, (*this).header.place);
            }
        }
    }

    unsafe fn name(task: *const Header) -> Option<Arc<str>> {
        // SAFETY: [REF]. What says the name does so from any thread: its word.
        unsafe { S::name(&raw const (*task.cast::<Self>()).outcome) }
    }

    unsafe fn panicked(task: *const Header, payload: Payload) {
        // SAFETY: [OWNER].
        unsafe { (*task.cast::<Self>()).outcome.panicked(payload, (*task).place) }
    }

    unsafe fn free(task: *const Header) {
        // SAFETY: it was allocated as this type; the future is gone.
        drop(unsafe { Box::from_raw(task.cast::<Self>().cast_mut()) });
    }
}

// ---- The queue -----------------------------------------------------------------------------------------------------

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
    /// Why a push is not the ordinary one: `CLOSED`, `WATCHED`.
    special: u8,
}

/// Nothing is queued any more.
const CLOSED: u8 = 1;
/// Instruments want to know.
const WATCHED: u8 = 2;

/// The tasks of a nursery (or of the worker), and the queue of those that can run. See the module.
#[repr(C)]
pub struct Ready {
    /// First, so that a pointer to the body is one to the queue.
    body: Header,
    inbox: Inbox<Header>,
    parent: Above,
    joins: Mutex<()>,
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

static BODY: VTable = VTable {
    poll: |_, _| unreachable!("the body is polled by who runs the queue"),
    cut: |_, _| {},
    value: |_, _| {},
    drop_value: |_| {},
    name: |_| None,
    panicked: |_, payload| discard(payload),
    // SAFETY: the body is the first field of a queue that was allocated in a box, and that was its last reference.
    free: |task| drop(unsafe { Box::from_raw(task.cast::<Ready>().cast_mut()) }),
};

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
            body: Header::new(REF, &BODY, ptr::null(), context::frame().tree, place),
            inbox: Inbox::new(),
            parent,
            joins: Mutex::new(()),
            live: AtomicUsize::new(0),
            first_child: AtomicPtr::new(ptr::null_mut()),
            owner: UnsafeCell::new(Owner {
                first: ptr::null(),
                last: ptr::null(),
                queued: 0,
                last_child: ptr::null(),
                told: false,
                special: 0,
            }),
        }));
        // SAFETY: just allocated.
        unsafe {
            (*ready).body.queue = ready;
            // The body is scheduled from the start.
            (*ready).push_local(&raw const (*ready).body);
            Self(NonNull::new_unchecked(ready))
        }
    }

    /// For handles, which must not outlive this.
    pub fn as_ptr(&self) -> *const Ready {
        self.0.as_ptr()
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
    pub fn run(&mut self, scope: &Scope, cx: &mut Context<'_>, poll_body: impl FnMut(&mut Context<'_>)) {
        self.run_batch(scope, cx, poll_body);
        // The worker looks by itself.
        if matches!(self.get().parent, Above::Task(_)) && self.has_work() {
            cx.waker().wake_by_ref();
        }
    }

    /// The same, where the caller sees to it that there is another run if there is more.
    pub fn run_batch(&mut self, scope: &Scope, cx: &mut Context<'_>, mut poll_body: impl FnMut(&mut Context<'_>)) {
        let this = self.as_ptr();
        if let Above::Task(slot) = &self.get().parent {
            slot.register(cx.waker());
        }
        // Not `scope` as it is: one that nobody has entered would not be taken out of what is linked below it before it goes away.
        let (around, frame) = (context::frame(), context::frame_in(scope));
        let entered = Entered::new(Frame { ready: this, ..frame });
        // Of the task around. Were it refilled by those in here, a loop of nurseries that end at once would never give up the turn (N11).
        let (budget_around, alone_around) = (context::budget(), context::is_alone());
        // SAFETY: [CURRENT] of the context module.
        let alone = match unsafe { around.ready.as_ref() } {
            // SAFETY: [OWNER]: inside of the `run` of the queue around this.
            Some(ready) => alone_around && unsafe { ready.is_drained() },
            None => matches!(self.get().parent, Above::Worker(_)),
        };
        // SAFETY: [CURRENT] of the context module.
        let worker = unsafe { frame.worker.as_ref() };
        let schedule = worker.and_then(|worker| worker.schedule.as_ref());
        let current = frame.tree.map_or(&NOBODY_LOOKS, |tree| &tree.current);
        let watch = worker.and_then(|worker| worker.watch.get()).filter(|watch| watch.is_active());
        // SAFETY: [OWNER]: `&mut self` is the owner's. Children that run may push to the local queue, through the pointer.
        unsafe {
            (*this).set_watched(watch);
            (*this).drain_inbox();
            let count = (*this).owner.with(|owner| (*owner).queued).min(SLICE);
            let budget = match schedule {
                None => context::BUDGET,
                Some(schedule) => {
                    (*this).arrange(count, schedule);
                    schedule.budget()
                }
            };
            for _ in 0..count {
                let Some(task) = (*this).pop_local() else { break };
                // Transition 2: not queued any more. It is there: the owner's reference remains while it is queued, or not done.
                if (*task).is_done() {
                    (*this).let_go_if_child(task);
                    continue;
                }
                let waker = borrowed_waker(task);
                let mut task_cx = Context::from_waker(&waker);
                context::set_task(task, budget, alone && (*this).is_drained());
                current.set(task);
                (*task).begin_poll();
                let is_body = ptr::eq(task, self.body());
                let over = match watch {
                    None if is_body => {
                        poll_body(&mut task_cx);
                        continue;
                    }
                    None => ((*task).vtable.poll)(task, &mut task_cx),
                    Some(watch) => Self::poll_watched(watch, task, &mut task_cx, is_body.then_some(&mut poll_body)),
                };
                if over {
                    (*this).finish(Some(scope), task);
                } else if !is_body && scope.is_cancelled() && Header::is_stuck(task) {
                    (*this).cut(Some(scope), task);
                }
            }
        }
        drop(entered);
        // So that the task around this one is named for what it does next, or none.
        current.set(around.task);
        context::refill(budget_around);
        context::set_alone(alone_around);
    }

    /// After a `run` that left work: whether the next one may follow at once, since nothing else in the whole run has anything to do. Then
    /// what comes between two turns of the loop has been done here (R84, R85). Otherwise the task around has to be polled again, from the
    /// worker down through every nursery around it.
    ///
    /// `turns` counts those that may follow; a future beside this one in the same task, which nobody here knows of, gets its turn too.
    /// A turn 16 nurseries deep takes 26 ns instead of 520 by this.
    pub fn takes_turn(&self, cx: &Context<'_>, turns: &mut u32) -> bool {
        let frame = context::frame();
        // A waker that is not the task's is of a combinator, which has a queue of its own.
        let own = is_of(cx.waker(), frame.task);
        let (Some(tree), true, true) = (frame.tree, own && *turns > 0, context::is_alone()) else { return false };
        // SAFETY: [CURRENT] of the context module, [OWNER]: inside of the `run` of the queue around this.
        if !unsafe { frame.ready.as_ref().is_some_and(|ready| ready.is_drained()) } || tree.parker.is_notified() {
            return false;
        }
        *turns -= 1;
        worker::between_turns(frame, tree);
        !tree.parker.is_notified()
    }

    /// \[OWNER\]
    #[cold]
    unsafe fn poll_watched(
        watch: &Watch,
        task: *const Header,
        cx: &mut Context<'_>,
        body: Option<&mut impl FnMut(&mut Context<'_>)>,
    ) -> bool {
        // SAFETY: [REF]: the owner's, since it is not done.
        watch.poll(unsafe { &*task }, || match body {
            Some(poll_body) => {
                poll_body(cx);
                false
            }
            // SAFETY: the caller's word.
            None => unsafe { ((*task).vtable.poll)(task, cx) },
        })
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
                (*this).finish(scope, child);
            }
            // The queue may go now, and the body's header with it.
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
        unsafe { release(self.body()) }
    }
}

/// Waits and scopes that outlive their task, moved elsewhere, must not point to it. They are in the tree of `scope`, that of its queue,
/// and most of them below it; once that was left, everything below it has been let go.
unsafe fn forget_task(scope: Option<&Scope>, task: *const Header) {
    // SAFETY: [REF].
    let task = unsafe { &*task };
    if task.marks.get() & HOLDER != 0 {
        // Another task may get its address; it does not hold what this one held.
        holders::bury(ptr::from_ref(task).addr());
    }
    if task.waits() != 0 {
        // The tree that the scope is in, not that of the run around us: a nursery may be dropped anywhere.
        if let Some(scope) = scope
            && let Some(mut locked) = scope.lock()
        {
            locked.forget_task(scope, task);
        }
        // Nothing points to it now that could count.
        task.waits.store(0, Ordering::Release);
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

    /// Whether it holds a waker of this task, to tell it of what arrives. \[OWNER\]
    pub(crate) fn is_polled_by(&self, task: *const Header) -> bool {
        match &self.parent {
            Above::Task(slot) => slot.is_for(task.cast(), &WAKER),
            Above::Worker(_) => false,
        }
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
            let special = self.owner.with(|owner| (*owner).special);
            if special != 0 && !self.push_special(special, task) {
                return;
            }
            self.enqueue(task);
        }
    }

    unsafe fn enqueue(&self, task: *const Header) {
        // SAFETY: [OWNER], [LISTED].
        self.owner.with_mut(|owner| unsafe {
            let owner = &mut *owner;
            (*task).queued.set(true);
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
            (*task).queued.set(true);
            instrument::tell(&*task, Watch::scheduled);
        }
        true
    }

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
            (*task).queued.set(false);
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

    /// Takes in what other threads (and other queues) have pushed.
    unsafe fn drain_inbox(&self) {
        // SAFETY: [OWNER].
        unsafe { self.adopt(self.inbox.take()) }
    }

    unsafe fn adopt(&self, mut task: *const Header) {
        // SAFETY: [OWNER]; the list from the inbox is ours.
        unsafe {
            let watched = !task.is_null() && self.owner.with(|owner| (*owner).special) & WATCHED != 0;
            while !task.is_null() {
                if watched {
                    record::arrives(task);
                }
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
                    if !(*task).queued.get() {
                        self.push_local(task);
                    }
                }
                task = next;
            }
            if watched {
                record::have_arrived();
            }
        }
    }

    unsafe fn add_child(&self, child: *const Header) {
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
        // SAFETY: [OWNER], [REF].
        unsafe { self.tell_if_watched(child, Watch::spawned) };
    }

    unsafe fn tell_if_watched(&self, task: *const Header, event: fn(&Watch, &Header)) {
        // SAFETY: [OWNER], [REF].
        unsafe {
            if self.owner.with(|owner| (*owner).special) & WATCHED != 0 {
                instrument::tell(&*task, event);
            }
        }
    }

    /// Transition 3: the future is gone. Tells the join handle, and gives up the owner's reference.
    unsafe fn finish(&self, scope: Option<&Scope>, child: *const Header) {
        // SAFETY: [OWNER]; [REF]: the owner's, until the end.
        unsafe {
            forget_task(scope, child);
            self.owner.with_mut(|owner| {
                let owner = &mut *owner;
                let (prev, next) = ((*child).prev.get(), (*child).next());
                // The child itself still names the next one, for who has come to it.
                if prev.is_null() {
                    self.first_child.store(next.cast_mut(), Ordering::Release);
                } else {
                    (*prev).next.store(next.cast_mut(), Ordering::Release);
                }
                if next.is_null() {
                    owner.last_child = prev;
                } else {
                    (*next).prev.set(prev);
                }
                owner.told |= (*child).strikes() > 0;
                self.live.store(self.live.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
            });
            self.tell_if_watched(child, Watch::exited);
            let state = (*child).state.load(Ordering::Acquire);
            if state / REF == 1 {
                // [ALONE]: no handle and no waker is left, so nobody learns of it. 5 ns.
                (*child).state.store(state | DONE, Ordering::Relaxed);
                ((*child).vtable.drop_value)(child);
                return self.let_go(child);
            }
            // Release: the value, for the join handle.
            let before = (*child).state.fetch_or(DONE, Ordering::AcqRel);
            if before & JOIN == 0 {
                ((*child).vtable.drop_value)(child);
            }
            if before & WAITER != 0 {
                let lock = self.joins.lock();
                let waiter = (*child).waiter.swap(ptr::null_mut(), Ordering::Relaxed);
                let completed = if waiter.is_null() { None } else { Some((*waiter).complete()) };
                drop(lock);
                if let Some(completed) = completed
                    && let Err(payload) = catch_unwind(AssertUnwindSafe(|| completed.wake()))
                {
                    ((*child).vtable.panicked)(child, payload);
                }
            }
            self.let_go(child);
        }
    }

    /// A task that was taken out of the queue is done: a child's reference was kept until now.
    #[cold]
    unsafe fn let_go_if_child(&self, task: *const Header) {
        // SAFETY: [OWNER], [REF].
        unsafe {
            if !(*task).is_body() {
                self.let_go(task);
            }
        }
    }

    /// Gives up the owner's reference; of one that is queued, when it is taken out. Where others remain, the task takes a reference of the
    /// queue with it.
    unsafe fn let_go(&self, child: *const Header) {
        // SAFETY: [REF], [QUEUE], [OWNER].
        unsafe {
            if (*child).queued.get() {
                return;
            }
            let mut state = (*child).state.load(Ordering::Acquire);
            loop {
                if state / REF == 1 {
                    // Ours alone: no waker and no handle is left that could change it.
                    return free(child, state);
                }
                // Before anybody can find the orphan's bit: the queue's reference it stands for.
                self.body.state.fetch_add(REF, Ordering::Relaxed);
                match (*child).state.compare_exchange_weak(
                    state,
                    (state | ORPHAN) - REF,
                    Ordering::AcqRel,
                    Ordering::Acquire,
                ) {
                    Ok(_) => return,
                    Err(now) => {
                        self.body.state.fetch_sub(REF, Ordering::Relaxed);
                        state = now;
                    }
                }
            }
        }
    }

    unsafe fn cut(&self, scope: Option<&Scope>, child: *const Header) {
        // SAFETY: [OWNER].
        unsafe {
            tracing::debug!(task = %&*child, "a cancelled child pended on nothing known, and was dropped (N13)");
            ((*child).vtable.cut)(child, true);
            self.finish(scope, child);
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
        let frame = context::frame();
        let cell = Box::into_raw(Box::new(TaskCell {
            header: Header::new(JOIN | (2 * REF), &TaskCell::<F, S>::VTABLE, ready, frame.tree, place),
            outcome,
            stage: UnsafeCell::new(Stage::Running(future)),
        }));
        let task: *const Header = cell.cast();
        // SAFETY: [QUEUE]: the caller's word; [OWNER] where the context says so; [CURRENT] of the context module.
        unsafe {
            if let Some(spawner) = frame.task.as_ref() {
                spawner.spawns();
            }
            if ptr::eq(frame.ready, ready) {
                if (*ready).owner.with(|owner| (*owner).special) & CLOSED == 0 {
                    (*ready).add_child(task);
                    (*ready).push_local(task);
                    return RawJoin::new(task);
                }
            } else {
                // Nobody knows of it yet. The third reference is the inbox's.
                (*task).state.store(SCHEDULED | NEW | JOIN | (3 * REF), Ordering::Relaxed);
                record::wakes(&*task);
                let pushed = (*ready).inbox.push(task);
                if pushed != Pushed::Refused {
                    let join = RawJoin::new(task);
                    if pushed == Pushed::First {
                        (*ready).parent.wake();
                    }
                    return join;
                }
            }
            // Refused: it is dropped here, never having been polled.
            let stage = (*cell).stage.with_mut(|stage| ptr::replace(stage, Stage::Finished(None)));
            (*task).state.store(DONE | JOIN | (2 * REF), Ordering::Relaxed);
            (*ready).let_go(task);
            let join = RawJoin::new(task);
            drop(stage);
            join
        }
    }
}

// ---- Join ----------------------------------------------------------------------------------------------------------

/// The handle of a child. Dropping it neither cancels nor detaches the child.
pub struct RawJoin<T> {
    task: *const Header,
    /// Where it waits; made at the first wait. Registered in the task while `WAITER` is set.
    park: Option<Pin<Box<Park>>>,
    _value: PhantomData<T>,
}

// SAFETY: the task is shared by references ([REF]), the value is handed over by DONE.
unsafe impl<T: Send> Send for RawJoin<T> {}
// SAFETY: nothing is done through `&RawJoin`.
unsafe impl<T: Send> Sync for RawJoin<T> {}

impl<T> std::fmt::Debug for RawJoin<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // SAFETY: [REF].
        let task = unsafe { &*self.task };
        let name = task.name();
        let child = crate::cause::Named(name.as_deref(), task.place);
        f.debug_struct("Join").field("child", &format_args!("{child}")).field("done", &task.is_done()).finish()
    }
}

impl<T> RawJoin<T> {
    /// Takes over the handle's reference.
    unsafe fn new(task: *const Header) -> Self {
        Self { task, park: None, _value: PhantomData }
    }

    fn task(&self) -> &Header {
        // SAFETY: [REF]: the handle's.
        unsafe { &*self.task }
    }

    /// What names the child, to be compared only.
    pub(crate) fn addr(&self) -> usize {
        self.task.addr()
    }

    /// Whether the child is done.
    pub fn is_done(&self) -> bool {
        self.task().is_done()
    }

    /// Where the child was spawned.
    pub fn place(&self) -> &'static Location<'static> {
        self.task().place
    }

    /// The value, once; `None` before the child is done, if it had none, or if it was taken.
    pub fn take(&mut self) -> Option<T> {
        let mut value = None;
        if self.is_done() {
            // SAFETY: DONE: the stage is the handle's; `T` is the cell's value type by construction.
            unsafe { (self.task().vtable.value)(self.task, (&raw mut value).cast()) };
        }
        value
    }

    /// Waits for the child: `Ok(None)` if it ended without a value. `Err`: the scope that waits was cancelled.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        place: &'static Location<'static>,
    ) -> Poll<Result<Option<T>, crate::Cancelled>> {
        if let Some(park) = &self.park
            && park.is_active()
        {
            // SAFETY: [OWNER] of the park: `&mut self`.
            return match unsafe { park.as_ref().poll(cx) } {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(())) => Poll::Ready(Ok(self.take())),
                Poll::Ready(Err(_)) => {
                    self.unregister();
                    context::poll_cancelled(place).map(Err)
                }
            };
        }
        std::task::ready!(context::poll_checkpoint_if_cancelled(place))?;
        if self.is_done() {
            std::task::ready!(context::poll_budget(cx));
            return Poll::Ready(Ok(self.take()));
        }
        let park = self.park.get_or_insert_with(|| Box::pin(Park::new()));
        // SAFETY: [REF]; [QUEUE]: the task is not freed, so its queue is there. [OWNER] of the park: `&mut self`.
        unsafe {
            park.prepare(cx);
            let lock = (*(*self.task).queue).joins.lock();
            if park.as_ref().begin_on(cx, Wait::new(Reason::Join).at(place), On::Child(self.task.addr())).is_err() {
                drop(lock);
                park.end();
                return context::poll_cancelled(place).map(Err);
            }
            (*self.task).waiter.store(ptr::from_ref::<Park>(park).cast_mut(), Ordering::Relaxed);
            // One word decides: either this finds DONE, or the owner finds WAITER and comes for the lock.
            if (*self.task).state.fetch_or(WAITER, Ordering::AcqRel) & DONE == 0 {
                return Poll::Pending;
            }
            (*self.task).waiter.store(ptr::null_mut(), Ordering::Relaxed);
            drop(lock);
            park.end();
        }
        Poll::Ready(Ok(self.take()))
    }

    fn unregister(&mut self) {
        // SAFETY: as in `poll`. Under the lock, the owner either has taken the pointer and is done with it, or finds none.
        unsafe {
            let lock = (*(*self.task).queue).joins.lock();
            (*self.task).waiter.store(ptr::null_mut(), Ordering::Relaxed);
            drop(lock);
        }
    }
}

impl<T> Drop for RawJoin<T> {
    fn drop(&mut self) {
        if let Some(park) = &self.park
            && park.is_active()
        {
            self.unregister();
        }
        if self.task().is_alone_with_caller() == Some(JOIN | (2 * REF)) {
            // [ALONE]: there is no waker. 5 ns.
            self.task().state.store(REF, Ordering::Relaxed);
            return;
        }
        let mut state = self.task().state.load(Ordering::Acquire);
        loop {
            if state & DONE != 0 {
                // The value, if it was not taken, is ours to drop.
                let value = self.take();
                // SAFETY: [REF]: the handle's.
                unsafe { release(self.task) };
                drop(value);
                return;
            }
            match self.task().state.compare_exchange_weak(
                state,
                (state & !JOIN) - REF,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                // The owner has a reference while it is not done: this was not the last.
                Ok(_) => return,
                Err(now) => state = now,
            }
        }
    }
}
