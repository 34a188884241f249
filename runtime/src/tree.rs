//! The tree of scopes of one run, and its lock.
//!
//! Everything structural about scopes happens under one short lock per run: linking and unlinking scopes and waits, cancelling
//! a subtree, raising and lowering shields, moving deadlines, expiring them. So a cancel is complete when the call returns,
//! from whatever thread it comes (R15), and a future that was moved to another thread half way still finds its scope. The
//! fast path needs no lock: whether a scope is cancelled is one load of a flag that a cancel pushes down the subtree.
//!
//! - **\[LOCKED\]** What the `links` of a scope or a park hold, the wheel of deadlines and the parents are touched under the lock of the tree they
//!   are linked in. A scope and a park take themselves out, under the lock, before they go away: every pointer found in the
//!   tree is valid under the lock.
//! - **No user code under the lock.** Wakers are taken out and woken when it is released ([`Locked`] does it when dropped).
//!
//! Trees come from a pool and are never freed: a run borrows one. So a stale handle or a late waker may name the tree of a run
//! that has ended; it finds nothing of its own there. There are as many trees as there were runs at once.
//!
//! Here: the tree and its lock. What is done under the lock is in `links` (who is where), `cancel`, `deadlines` and `look` (what is read).

mod cancel;
mod deadlines;
mod links;
mod look;

use crate::blind::BLIND;
use crate::blocks::Blocks;
use crate::context;
use crate::look::record;
use crate::parker::Parker;
#[cfg(not(trefoil_loom))]
use crate::ready;
use crate::ready::Header;
use crate::scope::Scope;
#[cfg(not(trefoil_loom))]
use crate::sync::Mutex;
use crate::sync::biased::{BiasedGuard, BiasedLock};
use crate::sync::{AtomicBool, AtomicU64, Ordering};
use crate::time::clock::{Clock, NEVER};
use crate::time::wheel::Wheel;
use crate::wakers::Wakers;
use deadlines::Timer;
use std::panic::Location;
use std::ptr;

pub(crate) struct State {
    wheel: Wheel<Timer>,
    /// How many deadlines of scopes were made.
    made: u64,
    /// How many waits and scopes have begun.
    activity: u64,
    /// The scope of the run; null while there is none.
    root: *const Scope,
}

// SAFETY: the pointers in the wheel are used under the lock ([LOCKED]).
unsafe impl Send for State {}

/// Names a tree in two bytes, for what there are many of.
#[cfg(not(trefoil_loom))]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct TreeId(u16);

#[cfg(not(trefoil_loom))]
impl TreeId {
    /// Of what was never in one. Not to be asked for its tree.
    pub const NONE: Self = Self(0);

    /// The tree: mostly that of the run around us, which need not be looked for.
    #[inline]
    pub fn tree(self) -> &'static Tree {
        match context::tree() {
            Some(tree) if tree.id == self => tree,
            _ => self.find(),
        }
    }

    #[cold]
    fn find(self) -> &'static Tree {
        POOL.lock().all[usize::from(self.0)]
    }
}

/// In a model there is no pool to find it in.
#[cfg(trefoil_loom)]
#[derive(Clone, Copy, Debug)]
pub struct TreeId(Option<&'static Tree>);

#[cfg(trefoil_loom)]
impl TreeId {
    pub(crate) const NONE: Self = Self(None);

    pub(crate) fn tree(self) -> &'static Tree {
        self.0.expect("it was in one")
    }
}

/// The tree of one run. See the module.
pub struct Tree {
    /// Its place in the pool.
    #[cfg(not(trefoil_loom))]
    id: TreeId,
    state: BiasedLock<State>,
    now: AtomicU64,
    /// Not later than the next deadline, for a look without the lock; [`NEVER`] if there is none. Written under the lock.
    next: AtomicU64,
    /// The next deadline when the worker looked last, for which it sleeps or has slept; 0 where an earlier one was set since. So as long as it is
    /// [`NEVER`] there is no deadline. Written under the lock.
    alarm: AtomicU64,
    /// Some scope was cancelled once ([`Scope::cancel_once`]) in this run. Set under the lock.
    once: AtomicBool,
    /// There is something that the loop has to look at between two turns ([`Tree::ask`]).
    asked: AtomicBool,
    pub(crate) parker: Parker,
    pub(crate) clock: Clock,
    pub(crate) current: Current,
}

/// Which task the loop is polling, for who looks on from another thread: the innermost one, or null. It is only compared with tasks that are
/// known to be there.
///
/// The loop stores it in a word of its thread anyway, at every poll, so that code in the task knows where it is ([`context::task`]). Who looks on
/// reads that word.
///
/// Of atomics, none is loom's: nothing follows from them, and the word is written at every poll.
#[derive(Debug, Default)]
pub(crate) struct Current {
    /// \[WORD\] They are there as long as they are named here: the thread takes them back before it ends, and who uses them has the lock.
    words: std::sync::Mutex<Option<Words>>,
    /// Which task destroys the children of a nursery, and is none while it does.
    closing: std::sync::atomic::AtomicPtr<Header>,
    /// How many turns there were, and [`SLEPT`] more for each sleep.
    turn: std::sync::atomic::AtomicU64,
    /// In no task: where the call was asked for that it makes for a run handle, or null; and which one it is, modulo 2^32.
    call: std::sync::atomic::AtomicPtr<Location<'static>>,
    calls: std::sync::atomic::AtomicU32,
}

/// By how much a sleep of the loop moves the count of turns on: more than there can be between two looks of who counts those without a sleep
/// ([`Livelock`](crate::look::livelock::Livelock)): it finds them by that.
pub(crate) const SLEPT: u64 = 1 << 24;

/// Words of the thread of a loop.
#[derive(Debug)]
#[cfg_attr(trefoil_loom, allow(dead_code))]
struct Words {
    task: *const std::sync::atomic::AtomicPtr<Header>,
    /// Which blocks it has in hand, and those that it has.
    in_hand: *const std::sync::atomic::AtomicPtr<Blocks>,
    blocks: *const Blocks,
}

// SAFETY: [WORD]; they are atomics, and the pointer to the blocks is not followed here.
unsafe impl Send for Words {}

/// See [`Current::closes`].
#[derive(Debug)]
pub(crate) struct Closing<'a> {
    current: &'a Current,
    before: *mut Header,
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.current.closing.store(self.before, std::sync::atomic::Ordering::Relaxed);
    }
}

impl Current {
    /// A loop begins on this thread, with these blocks.
    pub fn begins(&self, blocks: &Blocks) {
        let words = Words { task: context::task_word(), in_hand: context::blocks_word(), blocks };
        *self.lock() = Some(words);
        self.tell_of_onlookers();
    }

    /// It has ended. In the thread in which it began, which has no blocks in hand any more.
    pub fn ends(&self) {
        if let Some(words) = self.lock().take() {
            // SAFETY: [WORD].
            unsafe { &*words.in_hand }.store(ptr::null_mut(), Ordering::Relaxed);
        }
    }

    /// Whether somebody looks on may have changed: that decides whether the thread has its blocks in hand. Who begins to look on says so before this
    /// call: so it is seen under the lock, here or by the last who ends to.
    #[cfg(not(trefoil_loom))]
    pub fn tell_of_onlookers(&self) {
        if let Some(words) = &*self.lock() {
            let blocks = if ready::is_looked_at() { ptr::null() } else { words.blocks };
            // SAFETY: [WORD].
            unsafe { &*words.in_hand }.store(blocks.cast_mut(), Ordering::Relaxed);
        }
    }

    /// In models nobody looks on.
    #[cfg(trefoil_loom)]
    fn tell_of_onlookers(&self) {}

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Words>> {
        self.words.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// This task destroys what it has, until the result is dropped; null for the one that does so already.
    pub fn closes(&self, task: *const Header) -> Closing<'_> {
        let before = self.closing.load(std::sync::atomic::Ordering::Relaxed);
        if !BLIND && !task.is_null() {
            self.closing.store(task.cast_mut(), std::sync::atomic::Ordering::Relaxed);
        }
        Closing { current: self, before }
    }

    /// A call that was asked for here begins, or `None` has ended. By the loop alone.
    pub fn set_call(&self, place: Option<&'static Location<'static>>) {
        let relaxed = std::sync::atomic::Ordering::Relaxed;
        self.calls.store(self.calls.load(relaxed).wrapping_add(1), relaxed);
        let place = place.map_or(ptr::null(), ptr::from_ref);
        self.call.store(place.cast_mut(), std::sync::atomic::Ordering::Release);
    }

    /// Where the call was asked for that it makes just now.
    pub fn call(&self) -> Option<&'static Location<'static>> {
        // SAFETY: only what was `&'static` is stored there.
        unsafe { self.call.load(std::sync::atomic::Ordering::Acquire).as_ref() }
    }

    /// What it is busy with, to be compared only: the address of a task; for a call an odd number, which no task has; or 0.
    pub fn busy_with(&self) -> usize {
        match self.get().addr() {
            0 if self.call().is_some() => ((self.calls.load(std::sync::atomic::Ordering::Relaxed) as usize) << 1) | 1,
            task => task,
        }
    }

    /// Which task it is.
    pub fn get(&self) -> *const Header {
        let words = self.lock();
        // SAFETY: [WORD].
        let task = words.as_ref().map_or(ptr::null_mut(), |words| unsafe { &*words.task }.load(Ordering::Relaxed));
        if task.is_null() { self.closing.load(Ordering::Relaxed) } else { task }
    }

    /// In which turn, to be compared only: no task is polled twice in one.
    pub fn turn(&self) -> u32 {
        // Cut on purpose: an odd step has all words before one comes again.
        self.turns() as u32
    }

    /// How many turns there were, and [`SLEPT`] more for each sleep.
    #[inline(always)]
    pub fn turns(&self) -> u64 {
        self.turn.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// By the loop alone. One instruction, also where it `slept`.
    #[inline(always)]
    pub fn next_turn(&self, slept: bool) {
        let step = if slept && !BLIND { SLEPT + 1 } else { 1 };
        self.turn.store(self.turns().wrapping_add(step), std::sync::atomic::Ordering::Relaxed);
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
    ///
    /// # Panics
    /// With more than 65,536 runs at once, each of which has a thread of its own.
    #[cfg(not(trefoil_loom))]
    pub(crate) fn lend() -> &'static Tree {
        if let Some(tree) = POOL.lock().free.pop() {
            return tree;
        }
        crate::ready::prepare_for_onlookers();
        let mut pool = POOL.lock();
        let id = u16::try_from(pool.all.len()).expect("no more than 65,536 runs at once");
        let tree: &'static Tree = Box::leak(Box::new(Self { id: TreeId(id), ..Self::new() }));
        pool.all.push(tree);
        tree
    }

    /// What names it.
    #[inline]
    pub(crate) fn id(&'static self) -> TreeId {
        #[cfg(not(trefoil_loom))]
        return self.id;
        #[cfg(trefoil_loom)]
        return TreeId(Some(self));
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
        self.asked.store(false, Ordering::Relaxed);
        self.state.give_up();
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
        self.asked.store(false, Ordering::Relaxed);
    }

    /// A new one, for ever.
    #[cfg(trefoil_loom)]
    pub fn leaked() -> &'static Tree {
        Box::leak(Box::new(Self::new()))
    }

    fn new() -> Self {
        Self {
            #[cfg(not(trefoil_loom))]
            id: TreeId::NONE,
            state: BiasedLock::new(State { wheel: Wheel::new(), made: 0, activity: 0, root: ptr::null() }),
            now: AtomicU64::new(0),
            next: AtomicU64::new(NEVER),
            alarm: AtomicU64::new(0),
            once: AtomicBool::new(false),
            asked: AtomicBool::new(false),
            parker: Parker::new(),
            clock: Clock::new(),
            current: Current::default(),
        }
    }

    /// Takes the lock. What is woken under it is woken when it is released. It favours the thread of the run, unless that is being recorded.
    pub fn lock(&'static self) -> Locked<'static> {
        let state = self.state.lock(|| self.is_here() && !record::is_recorded());
        Locked { tree: self, state, wakers: Wakers::default() }
    }

    /// A recording of the run on this thread begins: the lock favours it no more. So what is told to recordings by who has the lock is told where that was
    /// not taken in the favoured way ([`Locked::may_be_recorded`]), and nobody else asks whether there is one.
    pub(crate) fn is_recorded_now(&self) {
        self.state.give_up();
    }

    /// Whether it is that of the run on this thread.
    #[inline]
    fn is_here(&self) -> bool {
        context::tree().is_some_and(|tree| ptr::eq(tree, self))
    }

    /// Whether some scope was cancelled once. Who was told, in an ordinary run, need not look for it under the lock: a fifth of what it costs to
    /// cancel 1,000 children. Who finds its scope cancelled by such a one finds this set.
    pub(crate) fn has_once(&self) -> bool {
        self.once.load(Ordering::Relaxed)
    }

    /// Has the loop look at what there is beside tasks: who may be in a cycle, a livelock, an error of the watchdog. Any thread.
    ///
    /// It is notified of that, so that a loop which goes to sleep does not look for it: who takes a notification looks whether this was it.
    pub(crate) fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        self.parker.unpark();
    }

    /// Whether it is asked to: one load for each turn that finds something to run.
    #[inline(always)]
    pub(crate) fn is_asked(&self) -> bool {
        !BLIND && self.asked.load(Ordering::Relaxed)
    }

    /// By the loop, which is about to look. It writes nothing else there: so it sees what everybody did who asked before.
    pub(crate) fn take_asked(&self) {
        self.asked.swap(false, Ordering::AcqRel);
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

/// The tree, locked. The order of the fields is the order of their end: first the lock is released, then wakers are woken.
pub struct Locked<'a> {
    tree: &'static Tree,
    state: BiasedGuard<'a, State>,
    wakers: Wakers,
}

impl std::fmt::Debug for Locked<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Locked")
    }
}

impl Locked<'_> {
    /// Whether there may be a recording: see [`Tree::is_recorded_now`]. Asked just before the lock is released, it costs nothing: that asks the same.
    #[inline(always)]
    pub(crate) fn may_be_recorded(&self) -> bool {
        !self.state.is_favoured()
    }

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
}
