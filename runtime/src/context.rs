//! What the code being polled right now belongs to: the run, the scope, the task and the ready queue.
//!
//! A thread-local that is set *while polling*, by the wrapper around each child and each scope body, and restored by a guard:
//! on return, on a panic and on drop. It survives every combinator, where context in wakers does not. Nothing keeps a pointer
//! that it read here across an await.
//!
//! - **\[CURRENT\]** A pointer in here is valid as long as it is in here: whoever set it owns the thing and takes it back
//!   before that thing goes away.

use crate::blocks::Blocks;
use crate::ready::{Header, Newborn, Ready};
use crate::scope::Scope;
use crate::scope::cancelled::Cancelled;
use crate::scope::scoped::Unopened;
use crate::task_local::Node;
use crate::tree::Tree;
use crate::worker::{self, Worker};
use std::cell::Cell;
use std::panic::Location;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::task::{Context, Poll};

/// How many operations that need not wait a task may do in one poll before it gives up the turn (N11).
pub const BUDGET: u32 = 128;

/// How many cancelled operations a task may do before it is cut where it waits (N13 b).
pub const STRIKES: u32 = 1_000;

/// All of it at once. Who needs one word asks for that: a load that nobody needs is made all the same.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    pub tree: Option<&'static Tree>,
    pub worker: *const Worker,
    /// The innermost scope that is linked.
    pub scope: *const Scope,
    /// The innermost scope in it that is not linked yet; it knows of those between.
    pub unopened: *const Unopened,
    pub task: *const Header,
    pub ready: *const Ready,
}

/// Where nothing is polled.
#[cfg(trefoil_loom)]
pub(crate) const OUTSIDE: Frame = Frame {
    tree: None,
    worker: ptr::null(),
    scope: ptr::null(),
    unopened: ptr::null(),
    task: ptr::null(),
    ready: ptr::null(),
};

/// A pointer of the frame, which is written and read by itself. An atomic, of the one thread that sees it, so that the compiler does not join
/// neighbours: a task, or a scope, is set and the whole frame copied soon after, and a copy by two pointers at once waits for the store of the
/// one (4 ns each, ten times in a round trip over a channel).
struct Word<T>(AtomicPtr<T>);

impl<T> Word<T> {
    const fn null() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    #[inline(always)]
    fn get(&self) -> *const T {
        self.0.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn set(&self, to: *const T) {
        self.0.store(to.cast_mut(), Ordering::Relaxed);
    }
}

struct Slots {
    tree: Word<Tree>,
    worker: Word<Worker>,
    scope: Word<Scope>,
    unopened: Word<Unopened>,
    task: Word<Header>,
    ready: Word<Ready>,
    budget: Cell<u32>,
    alone: Cell<bool>,
    locals: Cell<Locals>,
    newborn: Cell<Newborn>,
    blocks: Word<Blocks>,
}

impl Slots {
    const fn new() -> Self {
        Self {
            tree: Word::null(),
            worker: Word::null(),
            scope: Word::null(),
            unopened: Word::null(),
            task: Word::null(),
            ready: Word::null(),
            budget: Cell::new(BUDGET),
            alone: Cell::new(false),
            locals: Cell::new(NO_LOCALS),
            newborn: Cell::new(Newborn::NONE),
            blocks: Word::null(),
        }
    }

    #[inline(always)]
    fn tree(&self) -> Option<&'static Tree> {
        // SAFETY: trees live for ever (in a model, longer than it is current).
        unsafe { self.tree.get().as_ref() }
    }

    #[inline(always)]
    fn frame(&self) -> Frame {
        Frame {
            tree: self.tree(),
            worker: self.worker.get(),
            scope: self.scope.get(),
            unopened: self.unopened.get(),
            task: self.task.get(),
            ready: self.ready.get(),
        }
    }

    #[inline(always)]
    fn set(&self, frame: Frame) {
        self.tree.set(frame.tree.map_or(ptr::null(), ptr::from_ref));
        self.worker.set(frame.worker);
        self.set_scope(frame.scope, frame.unopened);
        self.task.set(frame.task);
        self.ready.set(frame.ready);
    }

    #[inline(always)]
    fn set_scope(&self, scope: *const Scope, unopened: *const Unopened) {
        self.scope.set(scope);
        self.unopened.set(unopened);
    }
}

/// The task-locals in force.
#[derive(Clone, Copy)]
struct Locals {
    list: *const Node,
    /// The queue that was current when they were put in force.
    ready: *const Ready,
}

const NO_LOCALS: Locals = Locals { list: ptr::null(), ready: ptr::null() };

#[cfg(not(trefoil_loom))]
thread_local! {
    static SLOTS: Slots = const { Slots::new() };
}
#[cfg(trefoil_loom)]
loom::thread_local! {
    static SLOTS: Slots = Slots::new();
}

#[inline(always)]
fn look<R>(at: impl FnOnce(&Slots) -> R) -> R {
    SLOTS.with(at)
}

/// The current frame.
#[inline]
pub(crate) fn frame() -> Frame {
    look(Slots::frame)
}

/// The tree of the run.
#[inline]
pub(crate) fn tree() -> Option<&'static Tree> {
    look(Slots::tree)
}

/// The task that is being polled.
#[inline]
pub(crate) fn task() -> *const Header {
    look(|s| s.task.get())
}

/// The word of this thread which says that, for who looks on from another one. It is there as long as the thread is.
pub(crate) fn task_word() -> *const AtomicPtr<Header> {
    look(|s| &raw const s.task.0)
}

/// The memory that the loop of this thread has in hand; null where there is none, and while somebody [looks on](crate::look::onlook), so that who frees
/// a task asks for that.
#[inline(always)]
pub(crate) fn blocks() -> *const Blocks {
    look(|s| s.blocks.get())
}

/// The word of this thread which says that. As [`task_word`].
pub(crate) fn blocks_word() -> *const AtomicPtr<Blocks> {
    look(|s| &raw const s.blocks.0)
}

/// What a task begins its life with that is spawned in this turn: nothing where there is no run.
#[inline(always)]
pub(crate) fn newborn() -> Newborn {
    look(|s| s.newborn.get())
}

/// By the loop, when it knows the time; and at its end, with nothing.
pub(crate) fn set_newborn(newborn: Newborn) {
    look(|s| s.newborn.set(newborn));
}

/// The scope that is current, with every scope around the code being polled linked, and the task; no scope where one is not linked yet.
#[inline(always)]
pub(crate) fn scope_and_task() -> (*const Scope, *const Header) {
    look(|s| (if s.unopened.get().is_null() { s.scope.get() } else { ptr::null() }, s.task.get()))
}

/// What a scope has around it: the frame without what it does not need.
#[inline(always)]
pub(crate) fn surroundings() -> (Option<&'static Tree>, *const Scope, *const Unopened, *const Header) {
    look(|s| (s.tree(), s.scope.get(), s.unopened.get(), s.task.get()))
}

/// The queue that is being run.
#[inline]
pub(crate) fn ready() -> *const Ready {
    look(|s| s.ready.get())
}

/// The worker of the run.
#[inline]
pub(crate) fn worker() -> *const Worker {
    look(|s| s.worker.get())
}

/// What of the frame concerns what waits in it, or opens a scope, or asks about it: every scope around that is linked.
#[derive(Clone, Copy)]
pub(crate) struct OpenFrame {
    pub tree: Option<&'static Tree>,
    pub scope: *const Scope,
    pub task: *const Header,
}

/// The current frame, with every scope around the code being polled linked.
#[inline]
pub(crate) fn open_frame() -> OpenFrame {
    let (tree, scope, unopened, task) = surroundings();
    OpenFrame { tree, scope: if unopened.is_null() { scope } else { open(unopened) }, task }
}

/// The same for a wait that a cancel which is told once passes over: the scope of an [`Edge`](crate::Edge) is for those that it tells, and is
/// not made for this one.
#[inline]
pub(crate) fn guest_frame() -> OpenFrame {
    let (tree, scope, unopened, task) = surroundings();
    // SAFETY: [CURRENT].
    let scope = match unsafe { unopened.as_ref() } {
        Some(unopened) if !unopened.is_edge_alone() => open(unopened),
        _ => scope,
    };
    OpenFrame { tree, scope, task }
}

#[cold]
fn open(unopened: *const Unopened) -> *const Scope {
    // SAFETY: [CURRENT].
    let scope = unsafe { &*unopened }.open();
    look(|s| s.set_scope(scope, ptr::null()));
    scope
}

/// Opening them would run code of others: the waker of a foreign executor is cloned.
#[inline]
pub(crate) fn opens_foreign() -> bool {
    let unopened = look(|s| s.unopened.get());
    // SAFETY: [CURRENT].
    !unopened.is_null() && unsafe { &*unopened }.is_foreign()
}

/// The frame in which to drop what ran in `scope`: with that scope, where it is linked in the tree of the run around us. What was moved
/// out of its run is dropped in the scope that drops it, or in none: its own belongs to another tree, under another lock.
pub(crate) fn frame_in(scope: &Scope) -> Frame {
    frame().inside(scope)
}

impl Frame {
    /// See [`frame_in`].
    #[inline(always)]
    pub fn inside(self, scope: &Scope) -> Self {
        match self.tree {
            Some(tree) if scope.is_in(tree) => Self { scope, unopened: ptr::null(), ..self },
            _ => self,
        }
    }
}

/// Sets the frame until the guard is dropped.
pub(crate) struct Entered {
    before: Frame,
}

impl Entered {
    #[inline]
    pub fn new(frame: Frame) -> Self {
        Self::from(self::frame(), frame)
    }

    /// The same, where the current frame has been read: to read it once more is half of what this takes.
    #[inline]
    pub fn from(before: Frame, frame: Frame) -> Self {
        look(|s| s.set(frame));
        Self { before }
    }
}

impl Drop for Entered {
    #[inline]
    fn drop(&mut self) {
        let mut before = self.before;
        (before.scope, before.unopened) = opened_meanwhile(before.scope, before.unopened);
        look(|s| s.set(before));
    }
}

/// A queue is being run, until this is dropped: the rest of the frame stays as it is. What was current around it is here.
pub(crate) struct Running {
    scope: (*const Scope, *const Unopened),
    pub task: *const Header,
    pub ready: *const Ready,
    /// To be given back: were the task around refilled by those in here, a loop of nurseries that end at once would never give up the turn (N11).
    budget: u32,
    alone: bool,
}

impl Running {
    /// Its tasks run in `scope`. `alone`: see [`is_alone`].
    #[inline(always)]
    pub fn new(ready: *const Ready, scope: &Scope, alone: bool) -> Self {
        look(|s| {
            let around = Self {
                scope: (s.scope.get(), s.unopened.get()),
                task: s.task.get(),
                ready: s.ready.get(),
                budget: s.budget.get(),
                alone: s.alone.get(),
            };
            // One that nobody has entered would not be taken out of what is linked below it before it goes away.
            if s.tree().is_some_and(|tree| scope.is_in(tree)) {
                s.set_scope(scope, ptr::null());
            }
            s.ready.set(ready);
            s.alone.set(alone);
            around
        })
    }
}

impl Drop for Running {
    #[inline(always)]
    fn drop(&mut self) {
        let (scope, unopened) = opened_meanwhile(self.scope.0, self.scope.1);
        look(|s| {
            s.set_scope(scope, unopened);
            s.task.set(self.task);
            s.ready.set(self.ready);
            s.budget.set(self.budget);
            s.alone.set(self.alone);
        });
    }
}

/// Names the task and the queue that are current.
#[inline(always)]
pub(crate) fn set_queue(task: *const Header, ready: *const Ready) {
    look(|s| {
        s.task.set(task);
        s.ready.set(ready);
    });
}

/// Replaces the scope alone.
pub(crate) struct InScope {
    before: (*const Scope, *const Unopened),
}

impl InScope {
    #[inline]
    pub fn new(scope: *const Scope) -> Self {
        Self::with(scope, ptr::null())
    }

    #[inline]
    pub fn with(scope: *const Scope, unopened: *const Unopened) -> Self {
        look(|s| {
            let before = (s.scope.get(), s.unopened.get());
            s.set_scope(scope, unopened);
            Self { before }
        })
    }
}

impl Drop for InScope {
    #[inline]
    fn drop(&mut self) {
        let (scope, unopened) = opened_meanwhile(self.before.0, self.before.1);
        look(|s| s.set_scope(scope, unopened));
    }
}

/// The scope to go back to: it may have been opened, by something further in.
#[inline(always)]
fn opened_meanwhile(scope: *const Scope, unopened: *const Unopened) -> (*const Scope, *const Unopened) {
    // SAFETY: [CURRENT]: it was when the guard began, and who polls it is still at it.
    match unsafe { unopened.as_ref() }.and_then(Unopened::opened) {
        Some(scope) => (scope, ptr::null()),
        None => (scope, unopened),
    }
}

/// The list of task-locals in force; null where there are none.
#[inline]
pub(crate) fn locals() -> *const Node {
    #[cfg(not(trefoil_loom))]
    return SLOTS.try_with(|s| s.locals.get().list).unwrap_or(ptr::null());
    #[cfg(trefoil_loom)]
    return SLOTS.with(|s| s.locals.get().list);
}

/// Whether task-locals are in force here.
pub fn locals_in_force() -> bool {
    !locals().is_null()
}

/// Whether a child that is spawned here into a queue might find other task-locals where it is polled than there are here. One load
/// where there are none here.
#[inline]
pub fn locals_differ(ready: *const Ready) -> bool {
    let Locals { list, ready: set_in } = SLOTS.with(|s| s.locals.get());
    // Without task-locals of its own, as on a thread without a run, the spawner adds nothing to those of the nursery. With some, they are
    // those of the nursery if they were set before its children are polled, just now, by us.
    !list.is_null() && (ptr::eq(set_in, ready) || !ptr::eq(self::ready(), ready))
}

/// Puts a list of task-locals in force until the guard is dropped.
pub(crate) struct InForce {
    before: Locals,
}

impl InForce {
    /// # Safety
    /// The list, if it is not null, is from an `Arc`, and stays as long as this.
    pub unsafe fn new(list: *const Node) -> Self {
        let locals = Locals { list, ready: ready() };
        Self { before: SLOTS.with(|s| s.locals.replace(locals)) }
    }
}

impl Drop for InForce {
    fn drop(&mut self) {
        SLOTS.with(|s| s.locals.set(self.before));
    }
}

/// Names the task that is about to be polled, until the guard of the queue around it is dropped, and gives it its budget.
#[inline]
pub(crate) fn set_task(task: *const Header, budget: u32) {
    SLOTS.with(|s| {
        s.task.set(task);
        s.budget.set(budget);
    });
}

/// Whether nothing was queued in those around the queue that is being run, when that was begun. What was queued there since has notified the
/// worker's parker.
#[inline]
pub(crate) fn is_alone() -> bool {
    SLOTS.with(|s| s.alone.get())
}

/// Sets what the current task has left.
#[inline]
pub(crate) fn refill(budget: u32) {
    SLOTS.with(|s| s.budget.set(budget));
}

/// Spends one unit of the task's budget for an operation that need not wait: pending, with the task woken again, when none
/// is left (N11).
#[inline]
pub fn poll_budget(cx: &mut Context<'_>) -> Poll<()> {
    let left = SLOTS.with(|s| {
        let left = s.budget.get();
        if left > 0 {
            s.budget.set(left - 1);
        }
        left
    });
    if left == 0 {
        cx.waker().wake_by_ref();
        return Poll::Pending;
    }
    Poll::Ready(())
}

#[cold]
#[track_caller]
pub(crate) fn outside(what: &str) -> ! {
    panic!(
        "{what} was polled outside of a run: call it from a future that `trefoil::run` drives, on the thread that drives it"
    )
}

/// The same of an operation, which knows where it is.
#[cold]
#[track_caller]
pub(crate) fn operation_outside(place: &'static Location<'static>) -> ! {
    outside(&format!("an operation of trefoil, at {place},"))
}

/// The cancel point of an operation that has not begun to wait: `Ready(Err)` in a cancelled scope (R37), `Ready(Ok)` elsewhere.
/// Pending, for good, when the task has spent its last strike; its scope then drops it (N13 b).
#[inline]
#[track_caller]
pub fn poll_checkpoint_if_cancelled(place: &'static Location<'static>) -> Poll<Result<(), Cancelled>> {
    match cancelled_here() {
        Some(false) => Poll::Ready(Ok(())),
        Some(true) => poll_cancelled(place).map(Err),
        None => operation_outside(place),
    }
}

/// Whether the current scope is cancelled; `None` outside of a run. Tells nobody: who finds that it is calls [`poll_cancelled`].
#[inline]
pub fn cancelled_here() -> Option<bool> {
    // Where there is a run there is a scope.
    let scope = look(|s| s.scope.get());
    // SAFETY: [CURRENT].
    unsafe { scope.as_ref() }.map(Scope::is_cancelled)
}

/// Whether the current scope is cancelled. Tells nobody: see [`poll_checkpoint_if_cancelled`].
#[inline]
#[track_caller]
pub(crate) fn is_cancelled() -> bool {
    scope("an operation of trefoil").is_cancelled()
}

/// Whether the current scope was asked to stop.
#[track_caller]
pub(crate) fn is_soft_cancelled() -> bool {
    scope("a question about the current scope").is_soft_cancelled()
}

/// The innermost scope that is linked: what is not linked yet is cancelled when that is.
#[inline]
#[track_caller]
fn scope<'a>(who: &str) -> &'a Scope {
    let scope = look(|s| s.scope.get());
    if scope.is_null() {
        outside(who);
    }
    // SAFETY: [CURRENT], until the caller returns to who set it.
    unsafe { &*scope }
}

/// Delivers a cancellation to the current task, and counts it. See [`poll_checkpoint_if_cancelled`].
#[cold]
pub fn poll_cancelled(place: &'static Location<'static>) -> Poll<Cancelled> {
    worker::with(|worker| worker.told.set(worker.told.get().or(Some(place))));
    let Frame { tree, scope, task, .. } = frame();
    // SAFETY: [CURRENT].
    if let (Some(tree), Some(scope)) = (tree, unsafe { scope.as_ref() })
        && scope.is_cancelled()
        && tree.has_once()
        && tree.lock().take_once_around(scope)
    {
        // It was an event, and is over. No strike: it is told again only when it is asked for again.
        worker::with(|worker| worker.told_once.set(true));
        return Poll::Ready(Cancelled::delivered());
    }
    // SAFETY: [CURRENT]. A wait that was aborted in a scope which was left before anybody looked is no strike in one that is not
    // cancelled: it would never be forgiven, and who pends for good there is dropped by nobody.
    let here = unsafe { scope.as_ref() }.is_some_and(Scope::is_cancelled);
    if here && !task.is_null() {
        // SAFETY: [CURRENT].
        let task = unsafe { &*task };
        let strikes = task.strikes().saturating_add(1);
        task.set_strikes(strikes);
        if u32::from(strikes) > STRIKES {
            if u32::from(strikes) == STRIKES + 1 {
                crate::report_warn!(operation = %place, task = %task, "cancellation swallowed {STRIKES} times: the task is dropped where it waits (N13)");
            }
            return Poll::Pending;
        }
    }
    Poll::Ready(Cancelled::delivered())
}

/// How many cancelled operations the current task has done.
pub(crate) fn strikes() -> u16 {
    let task = task();
    // SAFETY: [CURRENT].
    if task.is_null() { 0 } else { unsafe { &*task }.strikes() }
}

/// A scope was left, and its cancellation has ended with it: what was delivered inside does not count against the code after it. `before`
/// is how many there were at its entry.
pub(crate) fn forgive(before: u16) {
    let task = task();
    if !task.is_null() {
        // SAFETY: [CURRENT].
        let task = unsafe { &*task };
        task.set_strikes(task.strikes().min(before));
    }
}
