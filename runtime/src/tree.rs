//! The tree of scopes of one run, and its lock.
//!
//! Everything structural about scopes happens under one short lock per run: linking and unlinking scopes and waits, cancelling
//! a subtree, raising and lowering shields, moving deadlines, expiring them. So a cancel is complete when the call returns,
//! from whatever thread it comes (R15), and a future that was moved to another thread half way still finds its scope. The
//! fast path needs no lock: whether a scope is cancelled is one load of a flag that a cancel pushes down the subtree.
//!
//! - **\[LOCKED\]** What the `links` of a scope or a park hold, the heap and the parents are touched under the lock of the tree they
//!   are linked in. A scope and a park take themselves out, under the lock, before they go away: every pointer found in the
//!   tree is valid under the lock.
//! - **No user code under the lock.** Wakers are taken out and woken when it is released ([`Locked`] does it when dropped).
//!
//! Trees come from a pool and are never freed: a run borrows one. So a stale handle or a late waker may name the tree of a run
//! that has ended; it finds nothing of its own there. There are as many trees as there were runs at once.

use crate::cause::{Cause, Source, Why};
use crate::clock::{Clock, NEVER};
use crate::heap::{Entry, Heap, NOWHERE, Position};
use crate::park::{Abort, Completed, On, Park, Reason};
use crate::parker::Parker;
use crate::ready::{self, Header, Ready};
use crate::scope::{CANCEL_CALLED, EFFECTIVE, ONCE, POLITE, SHIELD, SOFT, SOFT_CALLED, Scope, WAKER_SET};
use crate::sync::{AtomicBool, AtomicPtr, AtomicU64, Mutex, Ordering};
use crate::wakers::Wakers;
use std::panic::Location;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

/// Whose deadline it is: a [`Who`] in one word, with the lowest bit for a park.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timer(*const ());

enum Who {
    Scope(*const Scope),
    Park(*const Park),
}

impl Timer {
    fn scope(scope: &Scope) -> Self {
        Self(ptr::from_ref(scope).cast())
    }

    fn park(park: &Park) -> Self {
        const { assert!(align_of::<Park>() > 1 && align_of::<Scope>() > 1, "the lowest bit is free") };
        Self(ptr::from_ref(park).cast::<()>().map_addr(|at| at | 1))
    }

    fn who(self) -> Who {
        match self.0.addr() & 1 {
            0 => Who::Scope(self.0.cast()),
            _ => Who::Park(self.0.map_addr(|at| at & !1).cast()),
        }
    }
}

impl Position for Timer {
    fn keyed(self, index: u32) {
        // SAFETY: [LOCKED]: the heap is only touched under the lock, and what is in it is linked.
        unsafe {
            match self.who() {
                Who::Scope(scope) => (*scope).links.with_mut(|links| (*links).index = index),
                Who::Park(park) => (*park).index.set(index),
            }
        }
    }
}

impl Timer {
    fn deadline(self) -> u64 {
        // SAFETY: [LOCKED].
        unsafe {
            match self.who() {
                Who::Scope(scope) => (*scope).deadline.load(Ordering::Relaxed),
                // Never moved: it is what its entry says.
                Who::Park(_) => 0,
            }
        }
    }
}

/// Ties between equal deadlines: scopes before sleepers (R46), then the older first (N2).
const SLEEPERS: u64 = 1 << 63;

pub(crate) struct State {
    heap: Heap<Timer>,
    created: u64,
    /// The deadline for which the worker sleeps; 0 while it is awake.
    alarm: u64,
    /// How many waits and scopes have begun.
    activity: u64,
    /// The scope of the run; null while there is none.
    root: *const Scope,
}

// SAFETY: the pointers in the heap are used under the lock ([LOCKED]).
unsafe impl Send for State {}

/// A wait, as the task tree shows it.
pub(crate) struct Waiting {
    pub task: *const Header,
    pub reason: Reason,
    pub place: &'static Location<'static>,
    /// On the clock of the run.
    pub since: u64,
    /// It has no end of its own.
    pub for_ever: bool,
    /// It holds a waker of the task.
    pub has_waker: bool,
}

/// The tree of one run. See the module.
pub struct Tree {
    state: Mutex<State>,
    now: AtomicU64,
    /// Not later than the next deadline, for a look without the lock; [`NEVER`] if there is none. Written under the lock.
    next: AtomicU64,
    /// Some scope was cancelled once ([`Scope::cancel_once`]) in this run. Set under the lock.
    once: AtomicBool,
    pub(crate) parker: Parker,
    pub(crate) clock: Clock,
    pub(crate) current: Current,
}

/// Which task the loop is polling, for who looks on from another thread: the innermost one, or null. It is only compared with tasks that are
/// known to be there.
///
/// Not one of loom's atomics: nothing follows from it, and it is written at every poll.
#[derive(Debug, Default)]
pub(crate) struct Current {
    task: std::sync::atomic::AtomicPtr<Header>,
    /// In which turn, modulo 2^32: no task is polled twice in one.
    turn: std::sync::atomic::AtomicU32,
}

impl Current {
    pub const fn new() -> Self {
        let task = std::sync::atomic::AtomicPtr::new(ptr::null_mut());
        Self { task, turn: std::sync::atomic::AtomicU32::new(0) }
    }

    #[inline(always)]
    pub fn set(&self, task: *const Header) {
        self.task.store(task.cast_mut(), std::sync::atomic::Ordering::Relaxed);
    }

    pub fn get(&self) -> *const Header {
        self.task.load(std::sync::atomic::Ordering::Relaxed)
    }

    pub fn turn(&self) -> u32 {
        self.turn.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// By the loop alone.
    pub fn next_turn(&self) {
        self.turn.store(self.turn().wrapping_add(1), std::sync::atomic::Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tree")
    }
}

#[cfg(not(trefoil_loom))]
static POOL: Mutex<Pool> = Mutex::new(Pool { free: Vec::new(), all: Vec::new() });

#[cfg(not(trefoil_loom))]
struct Pool {
    free: Vec<&'static Tree>,
    all: Vec<&'static Tree>,
}

impl Tree {
    /// One from the pool, or a new one.
    #[cfg(not(trefoil_loom))]
    pub(crate) fn lend() -> &'static Tree {
        if let Some(tree) = POOL.lock().free.pop() {
            return tree;
        }
        crate::ready::prepare_for_onlookers();
        let tree = Self::leaked();
        POOL.lock().all.push(tree);
        tree
    }

    /// Those of all runs, and those that wait for one.
    #[cfg(not(trefoil_loom))]
    pub(crate) fn all() -> Vec<&'static Tree> {
        POOL.lock().all.clone()
    }

    /// Gives it back at the end of the run.
    #[cfg(not(trefoil_loom))]
    pub(crate) fn give_back(&'static self) {
        self.parker.detach();
        self.once.store(false, Ordering::Relaxed);
        POOL.lock().free.push(self);
    }

    /// The models have none to show.
    #[cfg(trefoil_loom)]
    pub(crate) fn all() -> Vec<&'static Tree> {
        Vec::new()
    }

    /// Under loom nothing outlives an execution: there is no pool.
    #[cfg(trefoil_loom)]
    pub(crate) fn lend() -> &'static Tree {
        Self::leaked()
    }

    /// The models free their trees themselves.
    #[cfg(trefoil_loom)]
    pub(crate) fn give_back(&'static self) {
        self.parker.detach();
        self.once.store(false, Ordering::Relaxed);
    }

    /// A new one, for ever.
    pub fn leaked() -> &'static Tree {
        Box::leak(Box::new(Self::new()))
    }

    fn new() -> Self {
        Self {
            state: Mutex::new(State { heap: Heap::new(), created: 0, alarm: 0, activity: 0, root: ptr::null() }),
            now: AtomicU64::new(0),
            next: AtomicU64::new(NEVER),
            once: AtomicBool::new(false),
            parker: Parker::new(),
            clock: Clock::new(),
            current: Current::default(),
        }
    }

    /// Takes the lock. What is woken under it is woken when it is released.
    pub fn lock(&'static self) -> Locked<'static> {
        Locked { tree: self, state: self.state.lock(), wakers: Wakers::default() }
    }

    /// Whether some scope was cancelled once. Who was told, in an ordinary run, need not look for it under the lock: a fifth of what it costs to
    /// cancel 1,000 children. Who finds its scope cancelled by such a one finds this set.
    pub(crate) fn has_once(&self) -> bool {
        self.once.load(Ordering::Relaxed)
    }

    /// The time that the loop read at the begin of its turn.
    pub fn turn_time(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// When to look for deadlines again: not later than the next one. One that another thread sets just now is seen in the next turn, or
    /// wakes the worker.
    pub(crate) fn next_look(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Sets the time of the turn.
    pub fn set_turn_time(&self, now: u64) {
        self.now.store(now, Ordering::Relaxed);
    }
}

#[cfg(not(trefoil_loom))]
type Guard<'a> = std::sync::MutexGuard<'a, State>;
#[cfg(trefoil_loom)]
type Guard<'a> = loom::sync::MutexGuard<'a, State>;

/// The tree, locked. The order of the fields is the order of their end: first the lock is released, then wakers are woken.
pub struct Locked<'a> {
    tree: &'static Tree,
    state: Guard<'a>,
    wakers: Wakers,
}

impl std::fmt::Debug for Locked<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Locked")
    }
}

/// Takes a pointer that is written under the lock only.
fn take<T>(pointer: &AtomicPtr<T>) -> *mut T {
    let taken = pointer.load(Ordering::Relaxed);
    pointer.store(ptr::null_mut(), Ordering::Relaxed);
    taken
}

impl Locked<'_> {
    /// Releases the lock. Whom to wake is left to the caller.
    pub(crate) fn unlock(self) -> Wakers {
        let Self { wakers, .. } = self;
        wakers
    }

    pub(crate) fn now(&self) -> u64 {
        self.tree.turn_time()
    }

    /// How many waits and scopes have begun in this tree.
    pub(crate) fn activity(&self) -> u64 {
        self.state.activity
    }

    /// Names the scope of the run, which is linked, or (null) says that it is about to go.
    pub(crate) fn set_run(&mut self, root: *const Scope) {
        self.state.root = root;
    }

    /// The scope of the run, if there is one.
    pub(crate) fn run(&self) -> Option<&Scope> {
        // SAFETY: [LOCKED]: who sets it takes it back before it goes, under the lock.
        unsafe { self.state.root.as_ref() }
    }

    // ---- Deadlines -------------------------------------------------------------------------------------------------

    fn arm(&mut self, at: u64, timer: Timer) {
        self.state.created += 1;
        let order = self.state.created | if matches!(timer.who(), Who::Park(_)) { SLEEPERS } else { 0 };
        self.state.heap.insert(Entry { at, order, owner: timer });
        self.earlier(at);
    }

    /// The worker may be asleep until a later deadline than this one.
    fn earlier(&mut self, at: u64) {
        if at < self.tree.next_look() {
            self.tree.next.store(at, Ordering::Relaxed);
        }
        if at < self.state.alarm {
            self.state.alarm = 0;
            self.tree.parker.unpark();
        }
    }

    /// Gives a scope its deadline (`u64::MAX`: none), now (R48). A later one than before is only stored: the heap finds out
    /// when the old one comes up (R50).
    pub(crate) fn set_deadline(&mut self, scope: &Scope, at: u64) {
        scope.deadline.store(at, Ordering::Relaxed);
        if scope.has(CANCEL_CALLED) {
            return;
        }
        // SAFETY: [LOCKED].
        let index = scope.links.with(|links| unsafe { (*links).index });
        match (index, at) {
            (NOWHERE, u64::MAX) => {}
            (NOWHERE, _) => self.arm(at, Timer::scope(scope)),
            (_, u64::MAX) => {
                self.state.heap.remove(index);
            }
            (_, _) if at < self.state.heap.at(index) => {
                self.state.heap.change(index, at);
                self.earlier(at);
            }
            (_, _) => {}
        }
    }

    /// The next deadline, exactly; [`NEVER`] if there is none.
    pub fn next_deadline(&mut self) -> u64 {
        let next = loop {
            let Some((key, first)) = self.state.heap.first() else { break NEVER };
            let deadline = first.owner.deadline();
            if deadline <= first.at {
                break first.at;
            }
            self.state.heap.change(key, deadline);
        };
        self.tree.next.store(next, Ordering::Relaxed);
        next
    }

    /// The worker is about to sleep until `alarm`, or (0) has woken up.
    pub fn set_alarm(&mut self, alarm: u64) {
        self.state.alarm = alarm;
    }

    /// Applies every deadline that is due, in order (R45, R46). How many there were.
    pub fn expire(&mut self, now: u64) -> usize {
        let mut expired = 0;
        while self.next_deadline() <= now {
            let Some((key, entry)) = self.state.heap.first() else { break };
            if entry.at > now {
                break;
            }
            self.state.heap.remove(key);
            expired += 1;
            match entry.owner.who() {
                Who::Scope(scope) => {
                    // SAFETY: [LOCKED].
                    let scope = unsafe { &*scope };
                    self.cancel_due(scope, now);
                }
                Who::Park(park) => {
                    // SAFETY: [LOCKED].
                    let park = unsafe { &*park };
                    self.complete(park);
                }
            }
        }
        expired
    }

    fn complete(&mut self, park: &Park) {
        if let Completed::Won(waker) = park.complete() {
            self.unlink_park(park);
            self.wakers.push(waker);
        }
    }

    // ---- Waits -----------------------------------------------------------------------------------------------------

    pub(crate) fn link_park(&mut self, park: &Park, scope: *const Scope, task: *const Header, until: u64) {
        self.state.activity += 1;
        park.scope.store(scope.cast_mut(), Ordering::Relaxed);
        // SAFETY: [LOCKED]; `scope` and `task` are current.
        unsafe {
            if !task.is_null() {
                (*task).waits_add(1);
            }
            (*scope).links.with_mut(|scope| {
                let scope = &mut *scope;
                park.links.with_mut(|links| {
                    let links = &mut *links;
                    park.task.store(task.cast_mut(), Ordering::Relaxed);
                    links.next = ptr::null();
                    links.prev = scope.last_park;
                });
                if scope.last_park.is_null() {
                    scope.first_park = park;
                } else {
                    (*scope.last_park).links.with_mut(|last| (*last).next = park);
                }
                scope.last_park = park;
            });
        }
        if until != u64::MAX {
            self.arm(until, Timer::park(park));
        }
    }

    pub(crate) fn unlink_park(&mut self, park: &Park) {
        let scope = park.scope.load(Ordering::Relaxed);
        if park.index.get() != NOWHERE {
            self.state.heap.remove(park.index.get());
        }
        // SAFETY: [LOCKED]: the park is linked, so its scope, its neighbours and its task are there.
        unsafe {
            let (prev, next) = park.links.with_mut(|links| {
                let links = &mut *links;
                let task = take(&park.task);
                if !task.is_null() {
                    (*task).waits_sub(1);
                }
                (links.prev, links.next)
            });
            (*scope).links.with_mut(|scope| {
                let scope = &mut *scope;
                if prev.is_null() {
                    scope.first_park = next;
                } else {
                    (*prev).links.with_mut(|prev| (*prev).next = next);
                }
                if next.is_null() {
                    scope.last_park = prev;
                } else {
                    (*next).links.with_mut(|next| (*next).prev = prev);
                }
            });
        }
        // The last thing: the owner, which looks without the lock, may free the park now.
        park.scope.store(ptr::null_mut(), Ordering::Release);
    }

    /// The scope of this wait is cancelled.
    pub(crate) fn cancel_park(&mut self, park: &Park) {
        // SAFETY: [LOCKED].
        match park.links.with(|links| unsafe { (*links).abort() }) {
            Abort::Ask => {
                let waker = park.ask();
                self.wakers.push(waker);
            }
            Abort::Lasting if !self.is_told_for_good(park) => {}
            Abort::AtOnce | Abort::Lasting => {
                if let Completed::Won(waker) = park.abort() {
                    // Its waker is woken after the lock: until it has been polled it is not to be taken for one that waits for nothing.
                    // SAFETY: [LOCKED]: a task that a linked park names is there.
                    if let Some(task) = unsafe { park.task.load(Ordering::Relaxed).as_ref() } {
                        task.tell();
                    }
                    self.unlink_park(park);
                    self.wakers.push(waker);
                }
            }
        }
    }

    // ---- Scopes ----------------------------------------------------------------------------------------------------

    /// Puts a scope under another (or makes it the root), and gives it the state that follows (R2, R6, R22).
    pub(crate) fn link_scope(&mut self, scope: &Scope, parent: *const Scope, task: *const Header) {
        self.state.activity += 1;
        scope.parent.store(parent.cast_mut(), Ordering::Relaxed);
        scope.task.store(task.cast_mut(), Ordering::Relaxed);
        // SAFETY: [LOCKED]; `parent` and `task` are current.
        unsafe {
            if !task.is_null() {
                (*task).waits_add(1);
            }
            let prev = if parent.is_null() {
                ptr::null()
            } else {
                (*parent).links.with_mut(|parent| {
                    let prev = (*parent).last_child;
                    (*parent).last_child = scope;
                    if prev.is_null() {
                        (*parent).first_child = scope;
                    }
                    prev
                })
            };
            if !prev.is_null() {
                (*prev).links.with_mut(|prev| (*prev).next = scope);
            }
            scope.links.with_mut(|links| {
                (*links).prev = prev;
                (*links).next = ptr::null();
            });
        }
        self.refresh(scope);
    }

    /// Moves a scope, with everything under it, to another parent in this tree (R71). To one elsewhere, it finds its way when it is
    /// polled next.
    pub(crate) fn reparent(&mut self, scope: &Scope, parent: &Scope) {
        // SAFETY: [LOCKED].
        let (prev, next) = scope.links.with(|links| unsafe { ((*links).prev, (*links).next) });
        let task = scope.task.load(Ordering::Relaxed);
        if !parent.is_in(self.tree) {
            let waker = self.unlink_scope(scope);
            self.wakers.push(waker);
            return;
        }
        self.detach(scope.parent.load(Ordering::Relaxed), prev, next);
        if !task.is_null() {
            // `link_scope` counts it again.
            // SAFETY: [LOCKED]: a task that a linked scope names is there.
            unsafe { (*task).waits_sub(1) };
        }
        self.link_scope(scope, parent, task);
    }

    /// Names the task in which a scope that is linked runs from now on.
    pub(crate) fn set_task(&mut self, scope: &Scope, task: *const Header) {
        let before = scope.task.load(Ordering::Relaxed);
        scope.task.store(task.cast_mut(), Ordering::Relaxed);
        // SAFETY: [LOCKED]: a task that a linked scope names is there; `task` is current.
        unsafe {
            if !before.is_null() {
                (*before).waits_sub(1);
            }
            if !task.is_null() {
                (*task).waits_add(1);
            }
        }
    }

    /// Takes what is between two siblings out of their list.
    fn detach(&mut self, parent: *const Scope, prev: *const Scope, next: *const Scope) {
        // SAFETY: [LOCKED].
        unsafe {
            if !parent.is_null() {
                (*parent).links.with_mut(|parent| {
                    if prev.is_null() {
                        (*parent).first_child = next;
                    }
                    if next.is_null() {
                        (*parent).last_child = prev;
                    }
                });
            }
            if !prev.is_null() {
                (*prev).links.with_mut(|prev| (*prev).next = next);
            }
            if !next.is_null() {
                (*next).links.with_mut(|next| (*next).prev = prev);
            }
        }
    }

    /// Takes a scope out of the tree, and lets go of what is still below it. Returns the waker it held, to be dropped outside of the
    /// lock.
    pub(crate) fn unlink_scope(&mut self, scope: &Scope) -> Option<Waker> {
        self.let_go(scope);
        self.unlink_child(scope)
    }

    /// Takes everything below a scope apart, at any depth: futures that were moved out half polled; and, of a scope that moves
    /// elsewhere, all that it has. Nothing of it is left in this tree or names a task. Each scope and wait finds its new place when it
    /// is polled, for which it is woken.
    fn let_go(&mut self, top: &Scope) {
        let mut node: *const Scope = top;
        loop {
            // SAFETY: [LOCKED]; a scope that is unlinked goes away no earlier than it can take the lock.
            unsafe {
                loop {
                    let park = (*node).links.with(|links| (*links).first_park);
                    if park.is_null() {
                        break;
                    }
                    // In this order: unlinking is the last that is done with a park, whose owner frees it without the lock then.
                    let waker = (*park).nudge();
                    self.wakers.push(waker);
                    self.unlink_park(&*park);
                }
                let child = (*node).links.with(|links| (*links).first_child);
                if !child.is_null() {
                    node = child;
                } else if ptr::eq(node, top) {
                    return;
                } else {
                    let parent = (*node).parent.load(Ordering::Relaxed);
                    let waker = self.unlink_child(&*node);
                    self.wakers.push(waker);
                    node = parent;
                }
            }
        }
    }

    /// The same, for good.
    pub(crate) fn leave_scope(&mut self, scope: &Scope) -> Option<Waker> {
        self.let_go(scope);
        let waker = self.cut_out(scope);
        scope.exit();
        waker
    }

    fn unlink_child(&mut self, scope: &Scope) -> Option<Waker> {
        let waker = self.cut_out(scope);
        if scope.has(WAKER_SET) {
            scope.clear(WAKER_SET);
        }
        waker
    }

    /// Leaves `WAKER_SET` to the caller.
    fn cut_out(&mut self, scope: &Scope) -> Option<Waker> {
        let parent = take(&scope.parent);
        // SAFETY: [LOCKED].
        unsafe {
            let (prev, next, index, waker) = scope.links.with_mut(|links| {
                let links = &mut *links;
                let task = take(&scope.task);
                if !task.is_null() {
                    (*task).waits_sub(1);
                }
                let gone = (links.prev, links.next, links.index, links.waker.take());
                (links.prev, links.next) = (ptr::null(), ptr::null());
                gone
            });
            if index != NOWHERE {
                self.state.heap.remove(index);
            }
            self.detach(parent, prev, next);
            waker
        }
    }

    /// A task is going away while waits or scopes that it began live on, moved elsewhere: they forget it. They are below `top`, the
    /// scope of its nursery, since whatever is let go forgets its task; but for a [placed](crate::Placed) scope and what is in it, which
    /// may be anywhere in the tree. A walk over the whole subtree, for a case that well-behaved programs never meet.
    #[cold]
    pub(crate) fn forget_task(&mut self, top: &Scope, task: &Header) {
        if self.forget_below(top, task) < task.waits() {
            self.forget_below(self.root(top), task);
        }
    }

    /// How many forgot it.
    fn forget_below(&mut self, top: *const Scope, task: *const Header) -> u32 {
        let (mut node, mut forgot) = (top, 0);
        let mut forget = |at: &AtomicPtr<Header>| {
            if ptr::eq(at.load(Ordering::Relaxed), task) {
                at.store(ptr::null_mut(), Ordering::Relaxed);
                forgot += 1;
            }
        };
        while !node.is_null() {
            // SAFETY: [LOCKED].
            unsafe {
                forget(&(*node).task);
                let mut park = (*node).links.with(|links| (*links).first_park);
                while !park.is_null() {
                    forget(&(*park).task);
                    park = (*park).links.with(|links| (*links).next);
                }
            }
            node = self.after(node, top, true);
        }
        forgot
    }

    /// The next scope of the subtree below `top`, parents first, without recursion (R9).
    pub(crate) fn after(&self, node: *const Scope, top: *const Scope, descend: bool) -> *const Scope {
        // SAFETY: [LOCKED].
        unsafe {
            let (mut node, first) = (node, (*node).links.with(|links| (*links).first_child));
            if descend && !first.is_null() {
                return first;
            }
            while !ptr::eq(node, top) {
                let next = (*node).links.with(|links| (*links).next);
                if !next.is_null() {
                    return next;
                }
                node = (*node).parent.load(Ordering::Relaxed);
            }
            ptr::null()
        }
    }

    /// Cancels a scope; the first reason stays (R3, R4).
    pub(crate) fn cancel(&mut self, scope: &Scope, why: Why) {
        let at = self.tree.turn_time();
        self.cancel_at(scope, why, at, None);
    }

    /// Cancels a scope whose deadline has passed by `now`.
    pub(crate) fn cancel_due(&mut self, scope: &Scope, now: u64) {
        let late = now.saturating_sub(scope.deadline.load(Ordering::Relaxed));
        self.cancel_at(scope, Why::new(Source::Deadline, scope.place), now, Some(Duration::from_nanos(late)));
    }

    fn cancel_at(&mut self, scope: &Scope, why: Why, at: u64, late: Option<Duration>) {
        if let Some(index) = self.note(scope, why, at, late) {
            if index != NOWHERE {
                self.state.heap.remove(index);
            }
            scope.set(CANCEL_CALLED);
            self.refresh(scope);
        }
    }

    /// Notes why a scope is cancelled: its place in the heap, if this is the first reason.
    fn note(&mut self, scope: &Scope, why: Why, at: u64, late: Option<Duration>) -> Option<u32> {
        let Why { source, place, culprit } = why;
        let info = scope.info();
        // SAFETY: [LOCKED].
        scope.links.with_mut(|links| unsafe {
            if (*links).cause.as_ref().is_some_and(|cause| cause.source != Source::Soft) {
                return None;
            }
            (*links).cause = Some(Arc::new(Cause { source, place, at, scope: info, late, culprit }));
            Some((*links).index)
        })
    }

    /// Cancels a scope softly: the polite scopes below it now, the rest at `hard`, or at its deadline if that is earlier.
    pub(crate) fn cancel_softly(&mut self, scope: &Scope, hard: u64, place: &'static Location<'static>) {
        self.note_soft_cancel(scope, place);
        let earlier = scope.deadline.load(Ordering::Relaxed).min(hard);
        self.set_deadline(scope, earlier);
        self.refresh(scope);
    }

    /// The first reason stays, until the cancel turns hard (R4).
    pub(crate) fn note_soft_cancel(&mut self, scope: &Scope, place: &'static Location<'static>) {
        // SAFETY: [LOCKED].
        if scope.links.with(|links| unsafe { (*links).cause.is_none() }) {
            self.note(scope, Why::new(Source::Soft, place), self.tree.turn_time(), None);
        }
    }

    /// Cancels a scope until somebody in it is told, if something waits there.
    pub(crate) fn cancel_once(&mut self, scope: &Scope) -> bool {
        if !self.has_waits_below(scope) {
            return scope.has(ONCE);
        }
        self.note_once();
        scope.set(ONCE);
        self.refresh(scope);
        true
    }

    /// There is a scope in this tree that was cancelled once: here, or in the run that it comes from.
    pub(crate) fn note_once(&mut self) {
        self.tree.once.store(true, Ordering::Relaxed);
    }

    /// Somebody was told: the scope is as it was before, and so is what is below it. Whether it was cancelled so.
    pub(crate) fn take_once(&mut self, scope: &Scope) -> bool {
        let was = scope.clear(ONCE) & ONCE != 0;
        if was {
            self.refresh(scope);
            self.deliver_lasting(scope);
        }
        was
    }

    /// Whether a scope is cancelled as a state, and not only [once](Self::cancel_once). Under the lock.
    pub(crate) fn is_cancelled_for_good(&self, scope: &Scope) -> bool {
        let mut node: *const Scope = scope;
        // SAFETY: [LOCKED].
        while let Some(scope) = unsafe { node.as_ref() } {
            let flags = scope.flags();
            if flags & CANCEL_CALLED != 0 || (flags & SOFT != 0 && flags & POLITE != 0) {
                return true;
            }
            if flags & SHIELD != 0 {
                return false;
            }
            node = scope.parent.load(Ordering::Relaxed);
        }
        false
    }

    fn is_told_for_good(&self, park: &Park) -> bool {
        let scope = park.scope.load(Ordering::Relaxed);
        // SAFETY: [LOCKED]: the park is linked, so its scope is there.
        unsafe { scope.as_ref() }.is_some_and(|scope| self.is_cancelled_for_good(scope))
    }

    /// What passes over a cancel that is told once, and has not heard of one for good that came meanwhile.
    fn deliver_lasting(&mut self, top: &Scope) {
        let mut node: *const Scope = top;
        while !node.is_null() {
            // SAFETY: [LOCKED].
            let scope = unsafe { &*node };
            let cancelled = scope.is_cancelled();
            if cancelled {
                self.deliver(scope);
            }
            node = self.after(node, top, cancelled);
        }
    }

    /// The same for the code in a scope, whatever scope around it was cancelled so.
    pub(crate) fn take_once_around(&mut self, scope: &Scope) -> bool {
        let mut node: *const Scope = scope;
        // SAFETY: [LOCKED].
        while let Some(scope) = unsafe { node.as_ref() } {
            if self.take_once(scope) {
                return true;
            }
            if scope.has(SHIELD) {
                return false;
            }
            node = scope.parent.load(Ordering::Relaxed);
        }
        false
    }

    /// Whether something waits in a scope, or below it down to the shields.
    fn has_waits_below(&self, top: &Scope) -> bool {
        let mut node: *const Scope = top;
        while !node.is_null() {
            // SAFETY: [LOCKED].
            let scope = unsafe { &*node };
            let open = ptr::eq(node, top) || !scope.has(SHIELD);
            // SAFETY: [LOCKED].
            let mut park = scope.links.with(|links| unsafe { (*links).first_park });
            while open && !park.is_null() {
                // SAFETY: [LOCKED].
                unsafe {
                    if (*park).is_waiting() && (*park).links.with(|links| (*links).abort()) != Abort::Lasting {
                        return true;
                    }
                    park = (*park).links.with(|links| (*links).next);
                }
            }
            node = self.after(node, top, open);
        }
        false
    }

    /// Brings the effective state of a scope and of all below it up to date (R2), and aborts what waits where it became
    /// cancelled (R15, R22, R33).
    pub(crate) fn refresh(&mut self, top: &Scope) {
        let mut node: *const Scope = top;
        while !node.is_null() {
            // SAFETY: [LOCKED].
            let scope = unsafe { &*node };
            let parent = scope.parent.load(Ordering::Relaxed);
            self.notice_deadline(scope);
            let flags = scope.flags();
            // SAFETY: [LOCKED].
            let above = if flags & SHIELD != 0 { 0 } else { unsafe { parent.as_ref() }.map_or(0, Scope::flags) };
            let soft = flags & SOFT_CALLED != 0 || above & SOFT != 0;
            let effective =
                flags & (CANCEL_CALLED | ONCE) != 0 || above & EFFECTIVE != 0 || (soft && flags & POLITE != 0);
            let soft_changed = soft != (flags & SOFT != 0);
            if soft_changed {
                if soft {
                    scope.set(SOFT)
                } else {
                    scope.clear(SOFT)
                };
            }
            let effective_changed = effective != (flags & EFFECTIVE != 0);
            if effective_changed && effective {
                scope.set(EFFECTIVE);
                self.deliver(scope);
            } else if effective_changed {
                scope.clear(EFFECTIVE);
            }
            let changed = soft_changed || effective_changed;
            node = self.after(node, top, changed);
        }
    }

    /// A deadline that has passed, and that the loop has not come to, counts wherever the state is looked at (R14).
    fn notice_deadline(&mut self, scope: &Scope) {
        if scope.deadline.load(Ordering::Relaxed) > self.now() || scope.has(CANCEL_CALLED) {
            return;
        }
        let now = self.now();
        let late = Duration::from_nanos(now.saturating_sub(scope.deadline.load(Ordering::Relaxed)));
        if let Some(index) = self.note(scope, Why::new(Source::Deadline, scope.place), now, Some(late))
            && index != NOWHERE
        {
            self.state.heap.remove(index);
        }
        scope.set(CANCEL_CALLED);
    }

    fn deliver(&mut self, scope: &Scope) {
        // SAFETY: [LOCKED].
        let (mut park, waker) = scope.links.with_mut(|links| unsafe { ((*links).first_park, (*links).waker.take()) });
        while !park.is_null() {
            // SAFETY: [LOCKED]: the next one is read before this one may be unlinked.
            unsafe {
                let next = (*park).links.with(|links| (*links).next);
                self.cancel_park(&*park);
                park = next;
            }
        }
        scope.clear(WAKER_SET);
        self.wakers.push(waker);
    }

    /// The waker of who must be polled when the scope is cancelled: its body, even where it waits for nothing of ours (N13).
    pub(crate) fn set_waker(&mut self, scope: &Scope, waker: Waker) -> Option<Waker> {
        if !scope.has(WAKER_SET) {
            scope.set(WAKER_SET);
        }
        // SAFETY: [LOCKED].
        scope.links.with_mut(|links| unsafe { (*links).waker.replace(waker) })
    }

    /// Whether a scope holds a waker of its task, and not one of a combinator.
    pub(crate) fn has_waker(&self, scope: &Scope) -> bool {
        // SAFETY: [LOCKED].
        scope
            .links
            .with(|links| unsafe { (*links).waker.as_ref().is_some_and(|waker| ready::is_of(waker, scope.task())) })
    }

    /// Whether nothing of ours waits in this scope, and no scope is open in it.
    pub(crate) fn is_idle(&self, scope: &Scope) -> bool {
        // SAFETY: [LOCKED].
        scope.links.with(|links| unsafe { (*links).first_park.is_null() && (*links).first_child.is_null() })
    }

    /// `(deadline, cancelled)` as seen from this scope: the earliest deadline up to the first shield (R47).
    pub(crate) fn effective_deadline(&self, scope: &Scope) -> (u64, bool) {
        if scope.is_cancelled() {
            return (0, true);
        }
        let (mut at, mut node) = (u64::MAX, scope);
        loop {
            at = at.min(node.deadline.load(Ordering::Relaxed));
            let parent = node.parent.load(Ordering::Relaxed);
            if node.has(SHIELD) || parent.is_null() {
                return (at, false);
            }
            // SAFETY: [LOCKED].
            node = unsafe { &*parent };
        }
    }

    /// Why a scope is effectively cancelled: its own cause, or that of the scope it inherits from (R5). A soft cancel is the cause
    /// where no hard one is.
    pub(crate) fn cause(&self, scope: &Scope) -> Option<Arc<Cause>> {
        let (mut node, mut soft) = (scope, None);
        loop {
            // SAFETY: [LOCKED].
            let own = node.links.with(|links| unsafe { (*links).cause.clone() });
            let parent = node.parent.load(Ordering::Relaxed);
            match own {
                Some(cause) if cause.source == Source::Soft => soft = soft.or(Some(cause)),
                Some(cause) => return Some(cause),
                None => {}
            }
            if node.has(SHIELD) || parent.is_null() {
                return soft;
            }
            // SAFETY: [LOCKED].
            node = unsafe { &*parent };
        }
    }

    /// The children of the nursery that this scope is for.
    pub(crate) fn live_children(&self, scope: &Scope) -> usize {
        self.queue(scope).map_or(0, Ready::live)
    }

    /// The queue of the nursery that this scope is for, or of the run.
    pub(crate) fn queue<'s>(&'s self, scope: &'s Scope) -> Option<&'s Ready> {
        let ready = scope.ready.load(Ordering::Acquire);
        // SAFETY: a scope that is linked belongs to a nursery that is there, and so is its queue; it is not unlinked without the lock.
        unsafe { ready.as_ref() }
    }

    /// Which task is being polled.
    pub(crate) fn current(&self) -> *const Header {
        self.tree.current.get()
    }

    /// The time on the run's clock, at this moment.
    pub(crate) fn clock_now(&self) -> u64 {
        self.tree.clock.now()
    }

    /// How many deadlines there are.
    pub(crate) fn timers(&self) -> usize {
        self.state.heap.len()
    }

    /// The scope at the top.
    pub(crate) fn root<'s>(&self, scope: &'s Scope) -> &'s Scope {
        let mut node = scope;
        loop {
            let parent = node.parent.load(Ordering::Relaxed);
            // SAFETY: [LOCKED]; a parent outlives what is linked under it, or lets it go.
            match unsafe { parent.as_ref() } {
                Some(parent) => node = parent,
                None => return node,
            }
        }
    }

    /// The scopes directly in this one, in order.
    pub(crate) fn children(&self, scope: &Scope) -> Vec<NonNull<Scope>> {
        let mut all = Vec::new();
        // SAFETY: [LOCKED].
        unsafe {
            let mut child = scope.links.with(|links| (*links).first_child);
            while let Some(found) = NonNull::new(child.cast_mut()) {
                all.push(found);
                child = (*child).links.with(|links| (*links).next);
            }
        }
        all
    }

    /// One that is linked.
    fn waiting(park: &Park) -> Waiting {
        // SAFETY: [LOCKED].
        park.links.with(|links| unsafe {
            Waiting {
                task: park.task.load(Ordering::Relaxed),
                reason: (*links).reason(),
                place: park.place(),
                since: (*links).since,
                for_ever: park.index.get() == NOWHERE,
                has_waker: park.wakes_its_task(),
            }
        })
    }

    /// The same as [`waits`](Self::waits), with what is known of who could end them.
    pub(crate) fn waits_on(&self, scope: &Scope) -> Vec<(Waiting, On)> {
        let mut all = Vec::new();
        // SAFETY: [LOCKED]; `on` of a park that is linked changes no more.
        unsafe {
            let mut park = scope.links.with(|links| (*links).first_park);
            while !park.is_null() {
                let on = (*park).on.with(|on| *on);
                all.push((Self::waiting(&*park), on));
                park = (*park).links.with(|links| (*links).next);
            }
        }
        all
    }

    /// What waits directly in this scope, in order.
    pub(crate) fn waits(&self, scope: &Scope) -> Vec<Waiting> {
        let mut all = Vec::new();
        // SAFETY: [LOCKED].
        unsafe {
            let mut park = scope.links.with(|links| (*links).first_park);
            while !park.is_null() {
                all.push(Self::waiting(&*park));
                park = (*park).links.with(|links| (*links).next);
            }
        }
        all
    }
}
