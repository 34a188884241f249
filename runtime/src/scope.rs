//! A scope: the unit of cancellation. A node of the [tree](crate::tree), with a deadline and a shield. In the folder are the futures that run in
//! one ([`scoped`], [`placed`], [`edge`]), and what such a future returns: [`cancelled`], [`cause`], [`group`].
//!
//! ```text
//!   effective = cancel called  OR  (not shielded AND the parent is effective)          (R2)
//!               OR  (polite AND soft)
//!               OR  cancelled once, and nobody told yet
//!   soft      = soft cancel called  OR  (not shielded AND the parent is soft)
//! ```
//!
//! A soft cancel asks to stop: it cancels the *polite* scopes below it, those in which code runs that wants to hear of it, and gives the
//! scope a deadline, at which the cancel turns hard. So it is no new kind of wait, and a polite scope absorbs it as any other.
//!
//! - **\[HELD\]** A scope is linked from the first poll of the future that runs in it to the end or drop of that future, which owns
//!   it or a count of it. It does not move meanwhile.

pub(crate) mod cancelled;
pub(crate) mod cause;
pub(crate) mod edge;
pub(crate) mod group;
pub(crate) mod placed;
pub(crate) mod scoped;

use self::cause::{Cause, Culprit, Kind, Named, ScopeInfo, Source, Why};
use crate::context;
use crate::park::Core;
use crate::ready::Header;
use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, Ordering, UnsafeCell};
use crate::time::clock;
use crate::time::wheel::Key;
use crate::tree::{Locked, Tree};
use std::fmt;
use std::marker::PhantomPinned;
use std::panic::Location;
use std::ptr;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

/// Cancelled, as its operations see it: the flag that a cancel pushes down the subtree.
pub(crate) const EFFECTIVE: u32 = 1;
/// Cancelled itself, by a call or by its deadline. Never cleared (R3).
pub(crate) const CANCEL_CALLED: u32 = 2;
pub(crate) const SHIELD: u32 = 4;
/// Linked into a tree, or has been. Set before its settings are read by the tree: who changes a setting with a read-modify-write of
/// this word either comes before and is read, or finds this bit and goes through the lock.
pub(crate) const BOUND: u32 = 8;
/// It absorbed a cancellation at its exit (R26).
pub(crate) const CAUGHT: u32 = 16;
pub(crate) const EXITED: u32 = 32;
pub(crate) const WAKER_SET: u32 = 64;
/// The first poll of a future is under way that will link it (R7).
pub(crate) const ENTERED: u32 = 128;
/// A bit for the read-modify-write of a setting that has no bit of its own (the deadline).
const TOUCHED: u32 = 256;
/// Cancelled softly itself. Never cleared, as for [`CANCEL_CALLED`].
pub(crate) const SOFT_CALLED: u32 = 512;
/// A soft cancel is in force, of this scope or from outside: pushed down the subtree as [`EFFECTIVE`] is.
pub(crate) const SOFT: u32 = 1024;
/// A soft cancel cancels this scope. Set before it is entered, for good.
pub(crate) const POLITE: u32 = 2048;
/// Cancelled until an operation in it has been told, and not after: see [`Scope::cancel_once`].
pub(crate) const ONCE: u32 = 4096;
/// Nobody has a handle of it. So its word is written by who makes it until it is linked, under the lock of the tree then, and by its owner after it was
/// left: by plain stores.
const ALONE: u32 = 8192;

pub(crate) struct Links {
    pub prev: *const Scope,
    pub next: *const Scope,
    pub first_child: *const Scope,
    pub last_child: *const Scope,
    pub first_park: *const Core,
    pub last_park: *const Core,
    /// The key of its deadline.
    pub key: Option<Key>,
    /// How many deadlines of scopes there were before its own: of two that are equal, the one that was made first comes first (N2).
    pub made: u64,
    pub waker: Option<Waker>,
    /// Why it was cancelled; at its exit, also if it only inherits that.
    pub cause: Option<Arc<Cause>>,
}

/// See the module.
pub struct Scope {
    flags: AtomicU32,
    /// What it is for.
    pub kind: Kind,
    /// Where it was opened.
    pub place: &'static Location<'static>,
    tree: AtomicPtr<Tree>,
    pub(crate) deadline: AtomicU64,
    pub(crate) parent: AtomicPtr<Scope>,
    /// The task that polls it, while that counts it. Written under the lock, read by the owner without it.
    pub(crate) task: AtomicPtr<Header>,
    /// The children of a nursery, for the task tree.
    pub(crate) ready: AtomicPtr<crate::ready::Ready>,
    pub(crate) links: UnsafeCell<Links>,
    /// Most have none. Set before it is entered, and not changed after: so it is no part of `links`, and is read without the lock, also
    /// while the scope moves from run to run and is in no tree.
    name: UnsafeCell<Option<Box<Arc<str>>>>,
    _pinned: PhantomPinned,
}

// SAFETY: `links` is touched under the lock of the tree ([LOCKED] there), `name` is constant once it is entered; the rest is atomic or constant.
unsafe impl Send for Scope {}
// SAFETY: as above.
unsafe impl Sync for Scope {}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Scope");
        self.describe(&mut debug);
        debug.finish()
    }
}

impl Scope {
    /// What is worth reading of it, for a `Debug` output. What is asked for is there before it is written, which is code of others.
    pub fn describe(&self, debug: &mut fmt::DebugStruct<'_, '_>) {
        let ScopeInfo { name, place, .. } = self.who();
        debug.field("opened", &format_args!("{}", Named(name.as_deref(), place)));
        let state = match self.flags() {
            flags if flags & EXITED != 0 => "left",
            flags if flags & (ENTERED | BOUND) != 0 => "entered",
            _ => "not entered",
        };
        debug.field("state", &format_args!("{state}"));
        // Before it is entered, what is asked of it is in force nowhere yet.
        let cancelled = self.has(EFFECTIVE | CANCEL_CALLED);
        match self.cause().filter(|_| cancelled) {
            Some(cause) => {
                let cause = cause.to_string();
                debug.field("cancelled", &format_args!("{}", cause.trim_start_matches("cancelled: ")))
            }
            None => debug.field("cancelled", &cancelled),
        };
        if self.deadline() != clock::NEVER {
            let left = self.deadline().saturating_sub(crate::worker::now());
            debug.field("deadline_in", &Duration::from_nanos(left));
        }
        if self.has(SHIELD) {
            debug.field("shield", &true);
        }
    }
}

impl Scope {
    /// A scope that nothing runs in yet.
    #[inline(always)]
    pub fn new(kind: Kind, place: &'static Location<'static>) -> Self {
        Self::with(kind, place, 0, u64::MAX, None)
    }

    #[inline(always)]
    fn with(kind: Kind, place: &'static Location<'static>, flags: u32, deadline: u64, waker: Option<Waker>) -> Self {
        Self {
            flags: AtomicU32::new(if kind == Kind::Shield { flags | SHIELD } else { flags }),
            kind,
            place,
            tree: AtomicPtr::new(ptr::null_mut()),
            deadline: AtomicU64::new(deadline),
            parent: AtomicPtr::new(ptr::null_mut()),
            task: AtomicPtr::new(ptr::null_mut()),
            ready: AtomicPtr::new(ptr::null_mut()),
            links: UnsafeCell::new(Links {
                prev: ptr::null(),
                next: ptr::null(),
                first_child: ptr::null(),
                last_child: ptr::null(),
                first_park: ptr::null(),
                last_park: ptr::null(),
                key: None,
                made: 0,
                waker,
                cause: None,
            }),
            name: UnsafeCell::new(None),
            _pinned: PhantomPinned,
        }
    }

    /// One about to be [linked](Locked::link_new) in this frame by the only one who has it, with a waker of who polls it: what else would be set one by
    /// one is set at once. There may be `handles` later.
    #[inline(always)]
    pub(crate) fn entered(
        kind: Kind,
        place: &'static Location<'static>,
        deadline: u64,
        handles: bool,
        tree: &'static Tree,
        (parent, task): (*const Scope, *const Header),
        waker: Waker,
    ) -> Self {
        let flags = ENTERED | BOUND | WAKER_SET | if handles { 0 } else { ALONE };
        Self {
            tree: AtomicPtr::new(ptr::from_ref(tree).cast_mut()),
            parent: AtomicPtr::new(parent.cast_mut()),
            task: AtomicPtr::new(task.cast_mut()),
            ..Self::with(kind, place, flags, deadline, Some(waker))
        }
    }

    /// Gives it a name, for the task tree and for who is cancelled. One that is entered keeps the one it has.
    ///
    /// # Safety
    /// Nobody else gives it a name, or enters it, at the same time.
    pub unsafe fn set_name(&self, name: Arc<str>) {
        if self.has(ENTERED | BOUND) {
            return;
        }
        // SAFETY: it has not been entered, so nobody looks at its name; nobody else is about to: the caller's word.
        let before = self.name.with_mut(|slot| unsafe { (*slot).replace(Box::new(name)) });
        drop(before);
    }

    /// Which scope it is, for the task tree and for a log. It has its name from when it is entered.
    pub fn who(&self) -> ScopeInfo {
        let entered = self.has(ENTERED | BOUND);
        // SAFETY: from when that is seen on, nobody gives it a name any more.
        let name = if entered { self.name.with(|name| unsafe { (*name).as_deref().cloned() }) } else { None };
        ScopeInfo { kind: self.kind, name, place: self.place }
    }

    /// Whether it is linked, or was.
    pub(crate) fn is_bound(&self) -> bool {
        self.has(BOUND)
    }

    pub(crate) fn flags(&self) -> u32 {
        self.flags.load(Ordering::Acquire)
    }

    pub(crate) fn has(&self, flag: u32) -> bool {
        self.flags() & flag != 0
    }

    /// Sets flags; the flags before. Any thread, but for a scope without handles: see `ALONE`.
    #[inline]
    pub(crate) fn set(&self, flags: u32) -> u32 {
        self.change(flags, 0)
    }

    /// Clears a flag; the flags before. As [`set`](Self::set).
    #[inline]
    pub(crate) fn clear(&self, flag: u32) -> u32 {
        self.change(0, flag)
    }

    #[inline]
    fn change(&self, set: u32, clear: u32) -> u32 {
        let before = self.flags.load(Ordering::Relaxed);
        if before & ALONE != 0 {
            // A read-modify-write takes 6 ns, and a deadline around an operation that waits changes the word twice.
            self.flags.store((before | set) & !clear, Ordering::Release);
            return before;
        }
        if clear == 0 {
            self.flags.fetch_or(set, Ordering::AcqRel)
        } else {
            debug_assert!(set == 0, "one thing at a time");
            self.flags.fetch_and(!clear, Ordering::AcqRel)
        }
    }

    /// It was left, and its waker taken. Under the lock, where nobody else changes those two.
    #[inline]
    pub(crate) fn exit(&self) {
        let flags = self.flags();
        if flags & ALONE != 0 {
            self.flags.store((flags | EXITED) & !WAKER_SET, Ordering::Release);
        } else {
            self.flags.fetch_xor(EXITED | (flags & WAKER_SET), Ordering::AcqRel);
        }
    }

    /// Names the queue of the nursery whose scope this is, for the task tree.
    ///
    /// # Safety
    /// The queue outlives the time for which this scope is linked.
    pub unsafe fn set_children(&self, ready: *const crate::ready::Ready) {
        self.ready.store(ready.cast_mut(), Ordering::Release);
    }

    /// The task that polls it. Under the lock of the tree it is there.
    pub(crate) fn task(&self) -> *const Header {
        self.task.load(Ordering::Relaxed)
    }

    /// Whether operations in this scope are cancelled: one load.
    #[inline]
    pub fn is_cancelled(&self) -> bool {
        self.has(EFFECTIVE)
    }

    /// Whether this scope absorbed a cancellation at its exit (R26).
    pub fn cancelled_caught(&self) -> bool {
        self.has(CAUGHT)
    }

    /// The tree, locked, in which this scope is linked; `None` where it has not been entered, or was left.
    #[inline(always)]
    pub(crate) fn lock(&self) -> Option<Locked<'static>> {
        loop {
            let tree = self.tree.load(Ordering::Acquire);
            if tree.is_null() || self.has(EXITED) {
                return None;
            }
            // SAFETY: trees live for ever.
            let locked = unsafe { &*tree }.lock();
            // Looked at again under the lock: it may have been left, or moved to another run's tree.
            if self.has(EXITED) {
                return None;
            }
            if ptr::eq(self.tree.load(Ordering::Acquire), tree) {
                return Some(locked);
            }
        }
    }

    /// Whether it is in this tree.
    pub(crate) fn is_in(&self, tree: &Tree) -> bool {
        ptr::eq(self.tree.load(Ordering::Acquire), tree) && !self.has(EXITED)
    }

    /// Cancels it (R3, R4). Any thread. When this returns, every operation that waited in the scope has been aborted (R15).
    pub fn cancel(&self, source: Source, place: &'static Location<'static>) {
        self.cancel_for(Why::new(source, place));
    }

    /// The same for a nursery, with who failed.
    pub fn cancel_after(&self, culprit: Culprit) {
        self.cancel_for(Why { source: Source::Nursery, place: culprit.place, culprit: Some(culprit) });
    }

    fn cancel_for(&self, why: Why) {
        if self.set(CANCEL_CALLED) & BOUND != 0
            && let Some(mut locked) = self.lock()
        {
            locked.cancel(self, why);
        }
    }

    /// Whether it was cancelled itself, as far as anybody has noticed: one load.
    pub fn is_cancel_called(&self) -> bool {
        self.has(CANCEL_CALLED)
    }

    /// Cancels the polite scopes in it, and the whole of it after `grace`, or earlier if its deadline is. Any thread. Again does nothing
    /// but, with less time, shorten.
    pub fn cancel_softly(&self, grace: Duration, place: &'static Location<'static>) {
        if grace.is_zero() {
            let before = self.set(SOFT_CALLED);
            self.cancel(Source::Explicit, place);
            // Which does nothing where it was cancelled already: then the soft cancel alone is new to those below.
            if before & (CANCEL_CALLED | SOFT_CALLED) == CANCEL_CALLED
                && let Some(mut locked) = self.lock()
            {
                locked.refresh(self);
            }
            return;
        }
        // SAFETY: trees live for ever.
        let tree = unsafe { self.tree.load(Ordering::Acquire).as_ref() };
        let hard = clock::after(tree.map_or_else(crate::worker::now, |tree| tree.clock.now()), grace);
        // The setting first, then the bit that tells who enters the scope to read it.
        self.deadline.fetch_min(hard, Ordering::AcqRel);
        if self.set(SOFT_CALLED) & BOUND != 0
            && let Some(mut locked) = self.lock()
        {
            locked.cancel_softly(self, hard, place);
        }
    }

    /// Cancels what waits in it, once: for tasks whose cancellation is an event and not a state, as asyncio's is. Whether something
    /// waits there; otherwise nothing happens, and the caller keeps the request for later.
    ///
    /// Every wait in it, at any depth down to the shields, is ended or asked to end, as by [`cancel`](Self::cancel). The first operation that
    /// returns `Cancelled` ends the state: what is awaited after it goes on as if nothing had been. Until then the scope is cancelled: so a wait that
    /// completes with a value in the same instant keeps it, and the next one is told instead.
    pub fn cancel_once(&self) -> bool {
        self.lock().is_some_and(|mut locked| locked.cancel_once(self))
    }

    /// Takes back a [`cancel_once`](Self::cancel_once) that nobody was told of; whether there was one.
    pub fn take_once(&self) -> bool {
        self.has(ONCE) && self.lock().is_some_and(|mut locked| locked.take_once(self))
    }

    /// Whether there is a [`cancel_once`](Self::cancel_once) that nobody was told of.
    pub fn is_cancelled_once(&self) -> bool {
        self.has(ONCE)
    }

    /// Whether it was cancelled softly itself.
    pub fn soft_cancel_called(&self) -> bool {
        self.has(SOFT_CALLED)
    }

    /// Whether a soft cancel, or a hard one, is in force in it: one load.
    pub fn is_soft_cancelled(&self) -> bool {
        self.has(SOFT | EFFECTIVE)
    }

    /// A soft cancel from outside cancels this scope. To be called before it is entered.
    pub fn set_polite(&self) {
        self.set(POLITE);
    }

    /// Raises or lowers the shield (R32, R33).
    pub fn set_shield(&self, up: bool) {
        let before = if up { self.set(SHIELD) } else { self.clear(SHIELD) };
        if before & BOUND != 0
            && let Some(mut locked) = self.lock()
        {
            locked.refresh(self);
        }
    }

    /// Whether the shield is up.
    pub fn shield(&self) -> bool {
        self.has(SHIELD)
    }

    /// Moves the deadline (`u64::MAX`: none), at once (R48).
    pub fn set_deadline(&self, at: u64) {
        self.deadline.store(at, Ordering::Release);
        if self.set(TOUCHED) & BOUND != 0
            && let Some(mut locked) = self.lock()
        {
            locked.set_deadline(self, at);
        }
    }

    /// The deadline; `u64::MAX` if there is none.
    pub fn deadline(&self) -> u64 {
        self.deadline.load(Ordering::Acquire)
    }

    /// Whether it was cancelled itself. Notices a deadline that has passed by `now` although the loop has not looked (R14).
    pub fn cancel_called(&self, now: impl FnOnce() -> u64) -> bool {
        if !self.has(CANCEL_CALLED | EXITED) && self.deadline() != u64::MAX {
            let now = now();
            if self.deadline() <= now
                && self.set(CANCEL_CALLED) & BOUND != 0
                && let Some(mut locked) = self.lock()
            {
                locked.cancel_due(self, now);
            }
        }
        self.has(CANCEL_CALLED)
    }

    /// Calls a function as code of this scope, if that is linked in the run around us, and not as code of the one that is current.
    ///
    /// # Safety
    /// If it is linked there, it stays so until the function returns: what waits in that is linked below it.
    pub unsafe fn within<R>(&self, f: impl FnOnce() -> R) -> R {
        let _entered = context::Entered::new(context::frame_in(self));
        f()
    }

    /// Why it is cancelled, if it is: its own cause, or that of the scope around it (R5).
    pub fn cause(&self) -> Option<Cause> {
        match self.lock() {
            Some(locked) => locked.cause(self).map(|cause| Cause::clone(&cause)),
            // SAFETY: it is not linked, so nobody changes its links but `enter`, which needs the future that owns it; a scope
            // that was left keeps its cause.
            None if self.has(EXITED) => self.links.with(|links| unsafe { (*links).cause.as_deref().cloned() }),
            None => None,
        }
    }

    /// Links the scope into `tree` under `parent` at its first poll: `now` decides whether its deadline has passed (R44).
    /// Returns the lock, for what else there is to do.
    ///
    /// # Safety
    /// \[HELD\]: it is in no tree, and `unlink` is called before the scope goes away. `parent` and `task` are current, or null.
    pub(crate) unsafe fn link(
        &self,
        tree: &'static Tree,
        parent: *const Scope,
        task: *const Header,
        now: impl FnOnce() -> u64,
    ) -> Locked<'static> {
        // SAFETY: the caller's word.
        unsafe { self.link_with(tree, parent, task, 0, now) }
    }

    /// The same, which sets flags beside.
    ///
    /// # Safety
    /// As for [`link`](Self::link).
    #[inline]
    pub(crate) unsafe fn link_with(
        &self,
        tree: &'static Tree,
        parent: *const Scope,
        task: *const Header,
        flags: u32,
        now: impl FnOnce() -> u64,
    ) -> Locked<'static> {
        let mut locked = tree.lock();
        self.tree.store(ptr::from_ref(tree).cast_mut(), Ordering::Release);
        // From here on, whoever changes a setting waits for the lock.
        let settings = self.set(BOUND | flags);
        if settings & SOFT_CALLED != 0 {
            locked.note_soft_cancel(self, self.place);
        }
        if settings & ONCE != 0 {
            locked.note_once();
        }
        locked.link_scope(self, parent, task);
        let deadline = self.deadline();
        if settings & CANCEL_CALLED != 0 {
            locked.cancel(self, Why::new(Source::Explicit, self.place));
        } else if deadline != u64::MAX {
            let now = now();
            if deadline <= now { locked.cancel_due(self, now) } else { locked.set_deadline(self, deadline) }
        }
        locked
    }

    /// Moves the scope, and leaves behind what is under it, when the future that runs in it is polled under another scope than
    /// before. It belongs to the scope that polls it.
    ///
    /// # Safety
    /// \[HELD\], and it is linked or was let go.
    #[cold]
    pub(crate) unsafe fn relink(&self, tree: &'static Tree, parent: *const Scope, task: *const Header) {
        if let Some(mut locked) = self.lock() {
            let waker = locked.unlink_scope(self);
            // Until it is linked again it is in no tree: whoever changes a setting meanwhile leaves it to be read then.
            self.tree.store(ptr::null_mut(), Ordering::Release);
            self.clear(BOUND);
            drop(locked);
            drop(waker);
        }
        // SAFETY: the caller's word.
        drop(unsafe { self.link(tree, parent, task, || tree.clock.now()) });
    }

    /// Takes the scope out at its exit. Returns whether it absorbs a cancellation that comes out of its body: it is
    /// cancelled, and no cancellation is visible outside (R24, R25).
    pub(crate) fn unlink(&self) -> bool {
        // Its owner alone takes it out of its tree or into another one: there is nothing to look at again under the lock.
        // SAFETY: trees live for ever.
        let Some(tree) = (unsafe { self.tree.load(Ordering::Acquire).as_ref() }) else { return false };
        if self.has(EXITED) {
            return false;
        }
        let (absorbs, waker) = {
            let mut locked = tree.lock();
            (self.is_cancelled() && self.ends_cancelled(&locked), locked.leave_scope(self))
        };
        drop(waker);
        absorbs
    }

    /// It is about to be left, and is cancelled: whether that is absorbed.
    #[cold]
    fn ends_cancelled(&self, locked: &Locked<'_>) -> bool {
        // R5: also after it was left it says why it was cancelled, by whomever.
        let cause = locked.cause(self);
        // SAFETY: [LOCKED] of the tree.
        self.links.with_mut(|links| unsafe { (*links).cause = cause });
        let parent = self.parent.load(Ordering::Relaxed);
        // SAFETY: [LOCKED] of the tree.
        self.has(SHIELD) || parent.is_null() || !unsafe { &*parent }.is_cancelled()
    }
}
