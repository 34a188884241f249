//! What a wait is to the tree and to who ends it, whatever it waits for: the state machine of a park.

use super::place::{BegunAt, KeptPlace};
use super::{Abort, Completed, Known, Named, On, Park};
use crate::blind::BLIND;
use crate::context;
use crate::look::record::{self, Ended};
use crate::prefetch::prefetch;
use crate::ready::{self, Header, Whom};
use crate::reason::{Detail, Manner, Reason};
use crate::scope::Scope;
use crate::scope::cancelled::Cancelled;
use crate::sync::{AtomicPtr, AtomicU8, Ordering, UnsafeCell};
use crate::time::wheel::Key;
use crate::tree::{Tree, TreeId};
use std::cell::Cell;
use std::marker::PhantomPinned;
use std::panic::Location;
use std::ptr;
use std::task::{Context, Poll, Waker};

const WAITING: u8 = 1;
const BUSY: u8 = 2;
const DONE: u8 = 4;
const ABORTED: u8 = 8;
/// A cancel was requested of an operation that only its owner can end ([`Abort::Ask`]).
const ASKED: u8 = 16;
/// Somebody is about to publish the outcome, and has the waker.
const CLAIMED: u8 = 32;
/// It was polled with another waker than that of the task itself: a combinator's.
const OTHER: u8 = 64;

const IDLE: u8 = 0;
const OVER: u8 = DONE | ABORTED;

/// In the address of the scope: the task that waited is gone, and its address is not to be used.
const GONE: usize = 1;
const _: () = assert!(align_of::<Scope>() > GONE);

/// For who records, of a wait that is over.
fn ended(state: u8) -> Ended {
    match state & OVER {
        0 => Ended::Dropped,
        DONE if state & ASKED == 0 => Ended::Done,
        // Also where a cancel has asked the owner to complete it.
        _ => Ended::Cancelled,
    }
}

/// Links into the scope's list. \[LOCKED\].
pub(crate) struct Links {
    pub before: Before,
    pub next: *const Core,
}

/// One word, since it is never both. \[LOCKED\].
#[derive(Clone, Copy)]
pub(crate) union Before {
    /// Of a park that is in a list: the one before it there.
    pub prev: *const Core,
    /// Of one that is in none: when its wait ends by itself, if one is going on; else what the owner keeps there.
    pub until: u64,
}

/// What the tree has of a park, whatever that waits for.
pub(crate) struct Core {
    state: AtomicU8,
    /// [TAIL].
    manner: Cell<Manner>,
    /// In which tree it is, or was. [OWNER].
    tree: Cell<TreeId>,
    /// Of its deadline; [LOCKED].
    pub(crate) key: Cell<Option<Key>>,
    /// The task that waits, and its waker.
    whom: Whom,
    /// In whose list it is; null while it is in none. With a bit that says that the [task is gone](GONE). Written under the lock, read by the owner without it.
    scope: AtomicPtr<Scope>,
    /// [TAIL].
    pub(super) begun: Cell<BegunAt>,
    pub(crate) links: UnsafeCell<Links>,
    _pinned: PhantomPinned,
}

// SAFETY: [OWNER], [WHOM], [LOCKED] and [TAIL] say who touches each field that is not atomic.
unsafe impl Send for Core {}
// SAFETY: as above; the owner's methods are `unsafe` or reached through what owns the park.
unsafe impl Sync for Core {}

impl Core {
    #[inline(always)]
    pub(super) fn new(begun: BegunAt) -> Self {
        Self {
            state: AtomicU8::new(IDLE),
            manner: Cell::new(Manner::NONE),
            tree: Cell::new(TreeId::NONE),
            key: Cell::new(None),
            whom: Whom::nobody(),
            scope: AtomicPtr::new(ptr::null_mut()),
            begun: Cell::new(begun),
            links: UnsafeCell::new(Links { before: Before { until: u64::MAX }, next: ptr::null() }),
            _pinned: PhantomPinned,
        }
    }

    /// Where it waits.
    ///
    /// # Safety
    /// \[TAIL\]: it was found in a list, under the lock; or by the owner of one that waits.
    pub(crate) unsafe fn place(this: *const Self) -> &'static Location<'static> {
        // SAFETY: the caller's word. The place of a `Named` is at the same distance as that of a `Known`: it is what follows the core.
        unsafe {
            let core = &*this;
            if core.manner.get().has_numbered_place() {
                return core.begun.get().place();
            }
            (*this.cast::<Park<Named>>()).place.get(&core.begun)
        }
    }

    /// When it began to wait, on the run's clock, seen from `now`.
    pub(crate) fn since(&self, now: u64) -> u64 {
        let begun = self.begun.get();
        if self.manner.get().has_numbered_place() { begun.nanos_beside_number(now) } else { begun.nanos() }
    }

    /// Where those are between which it stands in its list. The task of one is before it in memory, as a rule.
    ///
    /// # Safety
    /// \[LOCKED\]: it is in a list.
    pub(crate) unsafe fn prefetch_neighbours(&self) {
        // SAFETY: the caller's word.
        let (prev, next) = self.links.with(|links| unsafe { ((*links).before.prev, (*links).next) });
        for park in [prev, next].into_iter().filter(|park| !park.is_null()) {
            for at in [-64, 0, 64] {
                prefetch(park.wrapping_byte_offset(at));
            }
        }
    }

    /// In whose list it is; null if in none.
    pub(crate) fn scope(&self) -> *mut Scope {
        self.scope.load(Ordering::Relaxed).map_addr(|at| at & !GONE)
    }

    /// In whose list it is, and the task that waits; null where that is gone.
    ///
    /// # Safety
    /// \[LOCKED\]: it is in a list, under the lock.
    #[inline(always)]
    pub(crate) unsafe fn scope_and_task(&self) -> (*mut Scope, *const Header) {
        let scope = self.scope.load(Ordering::Relaxed);
        if scope.addr() & GONE != 0 {
            return Self::without_task(scope);
        }
        // SAFETY: [WHOM]: we read.
        (scope, unsafe { self.whom.task() })
    }

    #[cold]
    fn without_task(scope: *mut Scope) -> (*mut Scope, *const Header) {
        (scope.map_addr(|at| at & !GONE), ptr::null())
    }

    /// Under the lock.
    #[inline(always)]
    pub(crate) fn enter(&self, scope: *const Scope) {
        self.scope.store(scope.cast_mut(), Ordering::Relaxed);
    }

    /// Under the lock: the owner, which looks without it, may free it now.
    #[inline(always)]
    pub(crate) fn leave(&self) {
        self.scope.store(ptr::null_mut(), Ordering::Release);
    }

    /// The second of that alone.
    ///
    /// # Safety
    /// As above.
    pub(crate) unsafe fn task(&self) -> *const Header {
        // SAFETY: the caller's word.
        unsafe { self.scope_and_task().1 }
    }

    /// Its task goes away.
    ///
    /// # Safety
    /// As of [`task`](Self::task).
    pub(crate) unsafe fn forget_task(&self) {
        self.scope.store(self.scope().map_addr(|at| at | GONE), Ordering::Relaxed);
    }

    /// When the wait ends by itself, or what the owner keeps in that word; `None` while it is in a list, since then the tree knows. Only the owner
    /// puts it into one.
    pub(super) fn until(&self) -> Option<u64> {
        // Acquire: who has taken it out is done with it.
        if !self.scope.load(Ordering::Acquire).is_null() {
            return None;
        }
        // SAFETY: [LOCKED]: it is in no list.
        Some(self.links.with(|links| unsafe { (*links).before.until }))
    }

    /// The same, also while it is in a list.
    pub(super) fn until_locked(&self) -> u64 {
        self.until().unwrap_or_else(|| {
            let locked = self.tree.get().tree().lock();
            // A cancel may have taken it out meanwhile.
            self.until().unwrap_or_else(|| locked.until(self))
        })
    }

    /// \[OWNER\]: it is in no list.
    pub(super) unsafe fn set_until(&self, until: u64) {
        debug_assert!(self.scope.load(Ordering::Relaxed).is_null(), "its place in the list is there");
        // SAFETY: [LOCKED]: it is in no list.
        self.links.with_mut(|links| unsafe { (*links).before.until = until });
    }

    /// What a cancel does to it. As [`place`](Self::place).
    #[inline]
    pub(crate) fn abort_kind(&self) -> Abort {
        self.manner.get().abort()
    }

    /// What it waits for.
    ///
    /// # Safety
    /// \[TAIL\]: it was found in a list, under the lock.
    pub(crate) unsafe fn reason(this: *const Self) -> Reason {
        // SAFETY: the caller's word.
        unsafe {
            let manner = (*this).manner.get();
            let detail = match manner {
                _ if !manner.has_detail() => Detail::NONE,
                _ if manner.is_known() => (*this.cast::<Park<Known>>()).tail.with(|known| (*known).detail()),
                _ => (*this.cast::<Park<Named>>()).tail.with(|named| (*named).detail()),
            };
            manner.reason(detail)
        }
    }

    /// Where that was made which it waits for, where that is known and nobody holds it.
    ///
    /// # Safety
    /// \[TAIL\]: it was found in a list, under the lock.
    pub(crate) unsafe fn made_at(this: *const Self) -> Option<&'static Location<'static>> {
        // SAFETY: the caller's word.
        unsafe {
            let known = (*this).manner.get().is_known();
            known.then(|| (*this.cast::<Park<Known>>()).tail.with(|known| (*known).detail()).made_at()).flatten()
        }
    }

    /// Who could end the wait, where that is known.
    ///
    /// # Safety
    /// \[TAIL\]: it was found in a list, under the lock.
    pub(crate) unsafe fn on(this: *const Self) -> On {
        // SAFETY: the caller's word.
        unsafe {
            if !(*this).manner.get().is_known() {
                return On::UNKNOWN;
            }
            (*this.cast::<Park<Known>>()).tail.with(|known| (*known).on())
        }
    }

    /// For people.
    pub(super) fn state_name(&self) -> &'static str {
        match self.state.load(Ordering::Relaxed) {
            s if s & DONE != 0 => "done",
            s if s & ABORTED != 0 => "aborted",
            s if s & WAITING != 0 => "waiting",
            _ => "idle",
        }
    }

    /// As [`Park::cancel_asked`].
    pub(super) fn cancel_asked(&self) -> bool {
        self.state.load(Ordering::Acquire) & ASKED != 0
    }

    #[inline]
    pub(super) fn is_active(&self) -> bool {
        self.state.load(Ordering::Acquire) & (WAITING | OVER) != 0
    }

    /// Whether it holds a waker of its task, and nothing in between, such as a combinator, does so for it.
    pub(crate) fn wakes_its_task(&self) -> bool {
        self.state.load(Ordering::Acquire) & OTHER == 0
    }

    #[inline]
    pub(crate) fn is_waiting(&self) -> bool {
        self.state.load(Ordering::Acquire) & (WAITING | OVER | CLAIMED) == WAITING
    }

    /// Whether what it waited for has come, and its owner has not looked since.
    pub(crate) fn has_come(&self) -> bool {
        self.state.load(Ordering::Acquire) & DONE != 0
    }

    /// \[OWNER\]: it is not active. What it is told of the wait comes in registers: a struct would be written and read again.
    pub(super) unsafe fn begin(
        this: *const Self,
        cx: &mut Context<'_>,
        manner: Manner,
        until: u64,
    ) -> Result<(), Cancelled> {
        // SAFETY: the caller's word.
        unsafe { Self::begin_by(this, cx, manner, until, None) }
    }

    /// The same with the waker that was cloned [ahead](super::Ahead). Apart: the ordinary way does not pay for that.
    #[cold]
    #[inline(never)]
    pub(super) unsafe fn begin_holding(
        this: *const Self,
        cx: &mut Context<'_>,
        manner: Manner,
        until: u64,
        waker: Waker,
    ) -> Result<(), Cancelled> {
        // SAFETY: the caller's word.
        unsafe { Self::begin_by(this, cx, manner, until, Some(waker)) }
    }

    #[inline(always)]
    unsafe fn begin_by(
        this: *const Self,
        cx: &mut Context<'_>,
        manner: Manner,
        until: u64,
        ahead: Option<Waker>,
    ) -> Result<(), Cancelled> {
        // SAFETY: the caller's word.
        let park = unsafe { &*this };
        let abort = manner.abort();
        let frame = if abort == Abort::Lasting { context::guest_frame() } else { context::open_frame() };
        // [TAIL]: it is in no list.
        park.manner.set(manner);
        // SAFETY: [TAIL]: the owner's.
        let Some(tree) = frame.tree else { context::operation_outside(unsafe { Self::place(this) }) };
        // SAFETY: [WHOM]: IDLE, the caller is the owner, and it is in no list.
        let is_own = unsafe { park.whom.begin(cx.waker(), ahead, frame.task) };
        let waiting = if is_own { WAITING } else { WAITING | OTHER };
        let mut locked = tree.lock();
        // SAFETY: [CURRENT] of the context module.
        let scope = unsafe { &*frame.scope };
        if scope.is_cancelled() && (abort != Abort::Lasting || locked.is_cancelled_for_good(scope)) {
            park.state.store(IDLE, Ordering::Relaxed);
            return Err(Cancelled::delivered());
        }
        park.tree.set(tree.id());
        if !BLIND {
            // [TAIL]: it is in no list.
            let now = tree.turn_time();
            park.begun.set(if manner.has_numbered_place() {
                park.begun.get().with_number(now)
            } else {
                BegunAt::at(now)
            });
        }
        park.state.store(waiting, Ordering::Release);
        // SAFETY: [LOCKED]; the owner's pointer is for the whole of the park.
        unsafe { locked.link_park(this, frame.scope, frame.task, until) };
        if locked.may_be_recorded() {
            record::wait_begins(this, until);
        }
        Ok(())
    }

    /// \[OWNER\].
    #[inline(always)]
    pub(super) unsafe fn poll(
        this: *const Self,
        cx: &mut Context<'_>,
        frame: impl FnOnce() -> context::OpenFrame,
    ) -> Poll<Result<(), Cancelled>> {
        // SAFETY: the caller's word.
        let park = unsafe { &*this };
        // Who is polled while it waits mostly has what it waited for.
        // SAFETY: as above.
        if park.state.load(Ordering::Acquire) & OVER == 0 && !unsafe { Self::poll_waiting(this, cx, frame) } {
            return Poll::Pending;
        }
        // SAFETY: as above.
        Poll::Ready(if unsafe { park.end() } { Ok(()) } else { Err(Cancelled::delivered()) })
    }

    /// Of a wait that was not over just now: whether it is. \[OWNER\].
    #[inline(never)]
    unsafe fn poll_waiting(
        this: *const Self,
        cx: &mut Context<'_>,
        frame: impl FnOnce() -> context::OpenFrame,
    ) -> bool {
        // SAFETY: the caller's word.
        let park = unsafe { &*this };
        debug_assert!(
            park.state.load(Ordering::Relaxed) & (WAITING | OVER) != 0,
            "polled a Park that waits for nothing"
        );
        let frame = frame();
        // SAFETY: [TAIL]: the owner's, which waits.
        let Some(tree) = frame.tree else { context::operation_outside(unsafe { Self::place(this) }) };
        // SAFETY: [WHOM]: who takes the waker leaves the task as it is, and the owner alone changes it.
        if ptr::eq(park.scope.load(Ordering::Relaxed), frame.scope) && ptr::eq(unsafe { park.whom.task() }, frame.task)
        {
            park.refresh(cx, frame.task, false) == Some(true)
        } else {
            // SAFETY: as above.
            unsafe { Self::adopt(this, cx, tree, frame.scope, frame.task) }
        }
    }

    pub(super) unsafe fn end(&self) -> bool {
        // Relaxed: what is told is the state of below. Who completed the wait has published that before the owner saw it, or before the owner knew that
        // nobody finds the park any more, which it does when it calls this; and an abort before it took the park out of the list, which is seen there.
        self.unlink_or_tell(|| record::wait_ends(self, || ended(self.state.load(Ordering::Relaxed))));
        let state = self.state.load(Ordering::Acquire);
        debug_assert!(state & (CLAIMED | OVER) != CLAIMED, "ended a Park that can still be found");
        self.state.store(IDLE, Ordering::Relaxed);
        // SAFETY: [WHOM]: the outcome is published, or there will be none; and it is in no list.
        unsafe { self.whom.clear() };
        state & DONE != 0
    }

    #[inline]
    pub(crate) fn complete(&self) -> Completed {
        self.settle(DONE)
    }

    /// The cancel's side. Under the lock of the tree.
    pub(crate) fn abort(&self) -> Completed {
        self.settle(ABORTED)
    }

    /// The cancel's side for [`Abort::Ask`]: the waker of an owner that has not been asked before.
    pub(crate) fn ask(&self) -> Option<Waker> {
        let mut state = self.state.load(Ordering::Relaxed);
        loop {
            if state & (OVER | CLAIMED | ASKED) != 0 || state & WAITING == 0 {
                return None;
            }
            let busy = state | ASKED | BUSY;
            match self.state.compare_exchange_weak(state, busy, Ordering::AcqRel, Ordering::Relaxed) {
                // The owner is at it and sees ASKED when it is done.
                Ok(before) if before & BUSY != 0 => return None,
                Ok(_) => break,
                Err(now) => state = now,
            }
        }
        // SAFETY: [WHOM]: we set BUSY.
        let waker = unsafe { self.whom.take() };
        self.state.fetch_and(!BUSY, Ordering::AcqRel);
        waker
    }

    /// Takes the waker of a wait that has lost its place, so that it is polled and finds another one. Under the lock of the tree.
    pub(crate) fn nudge(&self) -> Option<Waker> {
        let mut state = self.state.load(Ordering::Relaxed);
        loop {
            // Whoever else is at it wakes the owner, or is the owner.
            if state & (OVER | CLAIMED | BUSY) != 0 || state & WAITING == 0 {
                return None;
            }
            match self.state.compare_exchange_weak(state, state | BUSY, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => state = now,
            }
        }
        // SAFETY: [WHOM]: we set BUSY.
        let waker = unsafe { self.whom.take() };
        self.state.fetch_and(!BUSY, Ordering::AcqRel);
        waker
    }

    fn settle(&self, outcome: u8) -> Completed {
        let mut state = self.state.load(Ordering::Relaxed);
        let claimed = loop {
            if state & (OVER | CLAIMED) != 0 || state & WAITING == 0 {
                return Completed::Lost;
            }
            let busy = state & BUSY != 0;
            let next = state | if busy { outcome } else { CLAIMED };
            // Release: what the completer handed over is there for the owner; Acquire: the waker that it registered.
            match self.state.compare_exchange_weak(state, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) if busy => return Completed::Won(None),
                Ok(_) => break next,
                Err(now) => state = now,
            }
        };
        // SAFETY: [WHOM]: we set CLAIMED.
        let waker = unsafe { self.whom.take() };
        // A plain store: nobody else writes the word of a park that is claimed.
        self.state.store(claimed | outcome, Ordering::Release);
        Completed::Won(waker)
    }

    /// Registers the waker of a wait that goes on, and its task. Whether it is over then; nothing where another thread has just the waker of before, and
    /// nothing was registered. The task is that of before, unless the wait has `moved`, and is in no list.
    fn refresh(&self, cx: &mut Context<'_>, task: *const Header, moved: bool) -> Option<bool> {
        let other = if ready::is_of(cx.waker(), task) { 0 } else { OTHER };
        // Mostly it is the one that is there. Another one is made while the slot is free: the clone of a foreign executor may do anything, and panic.
        let (mut new, mut first) = (None, None);
        loop {
            let before = loop {
                let state = self.state.load(Ordering::Acquire);
                if state & OVER != 0 {
                    return Some(true);
                }
                if state & (BUSY | CLAIMED) != 0 {
                    // Another thread has the waker set before, and is about to wake it: come back in the next turn.
                    cx.waker().wake_by_ref();
                    return None;
                }
                let busy = state | BUSY;
                if self.state.compare_exchange_weak(state, busy, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                    break state;
                }
            };
            let first = *first.get_or_insert(before);
            // SAFETY: [WHOM]: we set BUSY; the caller's word.
            let (old, is_there) = unsafe { self.whom.renew(cx.waker(), new.take(), task, moved) };
            if is_there && other & !before != 0 {
                self.state.fetch_or(other, Ordering::Relaxed);
            }
            let done = if is_there && other == 0 { BUSY | OTHER } else { BUSY };
            let state = self.state.fetch_and(!done, Ordering::AcqRel);
            if state & !first & ASKED != 0 {
                // A cancel asked meanwhile, and left the wake-up to us, or woke the one before.
                cx.waker().wake_by_ref();
            }
            drop(old);
            if is_there || state & OVER != 0 {
                return Some(state & OVER != 0);
            }
            new = Some(cx.waker().clone());
        }
    }

    /// Moves a wait that goes on into the scope and the task that poll it: whether it is over. \[OWNER\].
    #[cold]
    unsafe fn adopt(
        this: *const Self,
        cx: &mut Context<'_>,
        tree: &'static Tree,
        scope: *const Scope,
        task: *const Header,
    ) -> bool {
        // SAFETY: the caller's word.
        let park = unsafe { &*this };
        park.unlink();
        let until = park.until_locked();
        match park.refresh(cx, task, true) {
            Some(false) => {}
            // It is that of before in no list, until it is polled again.
            None => {
                // Nor is it cut meanwhile as one that waits for nothing known (N13 a).
                // SAFETY: [CURRENT] of the context module.
                if let Some(task) = unsafe { task.as_ref() } {
                    task.tell();
                }
                return false;
            }
            Some(true) => return true,
        }
        let mut locked = tree.lock();
        park.tree.set(tree.id());
        if park.state.load(Ordering::Acquire) & OVER != 0 {
            return true;
        }
        // SAFETY: [LOCKED]; the owner's pointer is for the whole of the park.
        unsafe { locked.link_park(this, scope, task, until) };
        // SAFETY: [CURRENT] of the context module.
        if unsafe { &*scope }.is_cancelled() {
            locked.cancel_park(park);
        }
        park.state.load(Ordering::Acquire) & OVER != 0
    }

    #[inline(always)]
    fn unlink(&self) {
        self.unlink_or_tell(|| {});
    }

    /// The same; `tell` is called where there may be a recording.
    #[inline(always)]
    fn unlink_or_tell(&self, tell: impl FnOnce()) {
        // Acquire: who has taken it out of the list is done with it.
        if self.scope.load(Ordering::Acquire).is_null() {
            return tell();
        }
        let mut locked = self.tree.get().tree().lock();
        // Looked at again, under the lock: an abort may have done it.
        if !self.scope.load(Ordering::Relaxed).is_null() {
            locked.unlink_park(self);
        }
        if locked.may_be_recorded() {
            tell();
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.unlink();
        if self.is_active() {
            record::wait_ends(self, || Ended::Dropped);
        }
    }
}
