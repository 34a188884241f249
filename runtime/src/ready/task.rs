//! The part of a task that does not depend on its future, and what its words mean. The protocol is told in the [module above](super).

use super::wake::wake;
use super::{Above, HELD, Ready};
use crate::blind::BLIND;
use crate::context;
use crate::payload::Payload;
use crate::sync::inbox::Linked;
use crate::sync::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use crate::tree::Tree;
use std::cell::Cell;
#[cfg(all(target_pointer_width = "64", not(trefoil_loom)))]
use std::mem::offset_of;
use std::panic::Location;
use std::ptr;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

pub(super) const SCHEDULED: usize = 1;
pub(super) const DONE: usize = 2;
pub(super) const NEW: usize = 4;
pub(super) const JOIN: usize = 8;
pub(super) const WAITER: usize = 16;
pub(super) const MERGED: usize = 32;
pub(super) const REF: usize = 64;
/// The owner's reference: so many that the word never comes to 0 before the counts are one, whatever is given up in it of what the owner
/// has counted itself.
pub(super) const OWNER: usize = 64 * REF;
const _: () = assert!(OWNER / REF > (i8::MAX / OWN_REF) as usize);

/// The marks of a task: see there.
const STRIKE: u16 = HOLDER - 1;
pub(super) const HOLDER: u16 = 1 << 10;
const SPAWNED: u16 = 1 << 11;
const MANY: u16 = 31;
const _: () = assert!(context::STRIKES < STRIKE as u32);

pub(super) struct VTable {
    /// Polls the future; true when it is over (and gone). \[OWNER\]
    pub(super) poll: unsafe fn(*const Header, &mut Context<'_>) -> bool,
    /// Destroys the future in place; with `true` its outcome is told (N13). \[OWNER\]
    pub(super) cut: unsafe fn(*const Header, bool),
    /// Moves the value out into an `Option<T>`. For the join handle, once, after DONE.
    pub(super) value: unsafe fn(*const Header, *mut ()),
    /// Drops the value. \[OWNER\], after DONE, when there is no join handle.
    pub(super) drop_value: unsafe fn(*const Header),
    /// Drops the value, and frees the memory: both at once for the last who has a reference.
    pub(super) end: unsafe fn(*const Header),
    /// Its name. By who has a reference, on any thread.
    pub(super) name: unsafe fn(*const Header) -> Option<Arc<str>>,
    /// Code of others panicked on behalf of the child. \[OWNER\]
    pub(super) panicked: unsafe fn(*const Header, Payload),
    /// Frees the memory.
    pub(super) free: unsafe fn(*const Header),
}

/// What the owner alone writes, by plain stores: two flags, and above them the references that it has counted. Not one of loom's atomics: of
/// what others read in it nothing follows.
pub(super) struct Flags {
    byte: std::sync::atomic::AtomicU8,
    /// So that loom sees two who count at the same time.
    #[cfg(trefoil_loom)]
    counted: crate::sync::UnsafeCell<()>,
}

/// It is in the owner's queue.
const QUEUED: u8 = 1;
/// The future is gone: in its place is the value.
const GONE: u8 = 2;
/// One reference: a number from -32 to 31 is above the flags.
const OWN_REF: i8 = 4;

impl Flags {
    #[inline(always)]
    fn new() -> Self {
        Self {
            byte: std::sync::atomic::AtomicU8::new(0),
            #[cfg(trefoil_loom)]
            counted: crate::sync::UnsafeCell::new(()),
        }
    }

    #[inline(always)]
    fn get(&self) -> u8 {
        self.byte.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn has(&self, flag: u8) -> bool {
        self.get() & flag != 0
    }

    #[inline(always)]
    fn set(&self, flag: u8, to: bool) {
        let others = self.get() & !flag;
        self.byte.store(if to { others | flag } else { others }, Ordering::Relaxed);
    }

    /// Counts a reference that is made (1) or given up (-1). How many are to be counted in the word instead: if there is no room for one more, all
    /// that were counted here, so that there is room for the next.
    #[inline(always)]
    fn count(&self, by: i8) -> isize {
        #[cfg(trefoil_loom)]
        self.counted.with_mut(|_| ());
        match self.get().cast_signed().checked_add(by * OWN_REF) {
            Some(sum) => {
                self.byte.store(sum.cast_unsigned(), Ordering::Relaxed);
                0
            }
            None => self.make_room() + isize::from(by),
        }
    }

    #[cold]
    fn make_room(&self) -> isize {
        let own = self.own_refs();
        self.byte.store(self.get() & (QUEUED | GONE), Ordering::Relaxed);
        own
    }

    #[inline(always)]
    fn own_refs(&self) -> isize {
        isize::from(self.get().cast_signed() >> OWN_REF.trailing_zeros())
    }
}

/// In what the age of tasks is counted, in bits of nanoseconds: a millisecond, for 50 days.
const AGE_UNIT: u32 = 20;

fn age_units(now: u64) -> u32 {
    // Cut on purpose.
    (now >> AGE_UNIT) as u32
}

/// How many polls of a task have ended, and from bit [`BORN`] on when it was spawned: in [`AGE_UNIT`]s of the run's clock, modulo 2^32. The thread
/// has the word ready for those that are [born](Header::is_born) now: as of when the loop looked at the clock, which is some milliseconds ago at most.
/// That four thousand million polls make a task a millisecond older is no matter.
///
/// One thread at a time writes it, and any reads. Not one of loom's atomics, as above.
struct Life(std::sync::atomic::AtomicU64);

const BORN: u32 = 32;

/// The words of a task that is born now, from `waits` on.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Newborn {
    nothing: u64,
    life: u64,
}

impl Newborn {
    /// Where there is no run.
    pub const NONE: Self = Self { nothing: 0, life: 0 };

    pub fn at(now: u64) -> Self {
        Self { life: u64::from(age_units(now)) << BORN, ..Self::NONE }
    }
}

impl Life {
    fn born(&self) -> u32 {
        (self.0.load(Ordering::Relaxed) >> BORN) as u32
    }

    fn polls(&self) -> u32 {
        // Cut on purpose.
        self.0.load(Ordering::Relaxed) as u32
    }

    fn set_born(&self, now: u64) {
        self.0.store(Newborn::at(now).life | u64::from(self.polls()), Ordering::Relaxed);
    }

    /// By its one writer: no read-modify-write, and one instruction.
    #[inline(always)]
    fn add_poll(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }
}

/// The part of a task that does not depend on its future: ten words.
#[repr(C)]
pub struct Header {
    /// The flags and the count of the protocol.
    pub(super) state: AtomicUsize,
    /// The next one in the inbox ([LISTED]).
    pub(super) link: AtomicPtr<Header>,
    /// The next one in the owner's queue, while this is `queued`. \[OWNER\]
    pub(super) next_ready: Cell<*const Header>,
    /// What depends on the future.
    pub(super) vtable: &'static VTable,
    /// Whose body or child it is.
    pub(super) queue: *const Ready,
    /// The child before it in the queue. \[OWNER\]
    pub(super) prev: Cell<*const Header>,
    /// The next child of the queue. Written by the owner; who looks on reads it.
    pub(super) next: AtomicPtr<Header>,
    /// Waits and scopes of ours that this task began and that are open: while there are some, it pends on something known (N13).
    pub(super) waits: AtomicU32,
    /// A cancel ended a wait of this task since its last poll began. Set under the lock of the tree, before `waits` goes down.
    pub(super) told: AtomicBool,
    /// \[OWNER\], who looks on reads it.
    flags: Flags,
    /// How many cancellations it was told (N13 b): the bits of `STRIKE`. Whether it holds, or held, something that others wait for: `HOLDER`.
    /// And from there on, up to `MANY`, how many children it has spawned since. \[OWNER\]
    pub(super) marks: Cell<u16>,
    /// When it was spawned, and how many polls of it have ended, for the task tree. Of the body of a nursery that is done, when that was: written
    /// before `DONE` is set. Written by the owner; who looks on reads it.
    life: Life,
    /// Where it was spawned.
    pub place: &'static Location<'static>,
}

/// The current task spawns a child. To be called where it might be a holder, which its queue knows: most never are.
#[cold]
pub(super) fn count_spawned() {
    // SAFETY: [CURRENT] of the context module.
    let Some(spawner) = (unsafe { context::task().as_ref() }) else { return };
    let marks = spawner.marks.get();
    if marks & HOLDER != 0 && marks / SPAWNED < MANY {
        spawner.marks.set(marks + SPAWNED);
    }
}

// SAFETY: `link` is the field that only the inbox uses ([LISTED]).
unsafe impl Linked for Header {
    fn link(&self) -> &AtomicPtr<Header> {
        &self.link
    }
}

#[cfg(all(target_pointer_width = "64", not(trefoil_loom)))]
const _: () = assert!(size_of::<Header>() == 80);

/// As [`Header::is_born`] takes them.
#[cfg(all(target_pointer_width = "64", not(trefoil_loom)))]
const _: () = {
    assert!(offset_of!(Header, waits).is_multiple_of(align_of::<Newborn>()));
    assert!(offset_of!(Header, life) == offset_of!(Header, waits) + size_of::<u64>());
};

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
    pub(super) fn new(
        state: usize,
        vtable: &'static VTable,
        queue: *const Ready,
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
            waits: AtomicU32::new(0),
            told: AtomicBool::new(false),
            flags: Flags::new(),
            marks: Cell::new(0),
            life: Life(std::sync::atomic::AtomicU64::new(0)),
            place,
        }
    }

    /// It is spawned now: one instruction. The two words are copied by one load and one store, of which the store would be there to clear them; when the
    /// life was written on its own it was three, with the register that it took.
    ///
    /// # Safety
    /// Nobody else knows of it yet.
    #[inline(always)]
    pub(super) unsafe fn is_born(this: *mut Self, newborn: Newborn) {
        if BLIND {
            return;
        }
        #[cfg(all(target_pointer_width = "64", not(trefoil_loom)))]
        // SAFETY: the caller's word; from `waits` to the end of `life` it is two words of plain integers, which are all 0 in a task that is new.
        unsafe {
            (&raw mut (*this).waits).cast::<Newborn>().write(newborn);
        }
        #[cfg(not(all(target_pointer_width = "64", not(trefoil_loom))))]
        // SAFETY: the caller's word.
        unsafe {
            (*this).life.0.store(newborn.life, Ordering::Relaxed);
        }
    }

    /// Whether it is in the owner's queue. \[OWNER\], or roughly.
    #[inline(always)]
    pub(super) fn is_queued(&self) -> bool {
        self.flags.has(QUEUED)
    }

    /// \[OWNER\]
    #[inline(always)]
    pub(super) fn set_queued(&self, to: bool) {
        self.flags.set(QUEUED, to);
    }

    /// Whether the value is where the future was. \[OWNER\]
    #[inline(always)]
    pub(super) fn is_gone(&self) -> bool {
        self.flags.has(GONE)
    }

    /// \[OWNER\]
    #[inline(always)]
    pub(super) fn set_gone(&self) {
        self.flags.set(GONE, true);
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
        // SAFETY: [QUEUE]: it has references; [OWNER] of the queue, too: it is being polled.
        unsafe { (*self.queue).owner.with_mut(|owner| (*owner).special |= HELD) };
        self.spawned()
    }

    /// How many children it has spawned as a holder, if that can still be said. \[OWNER\]
    pub(crate) fn spawned(&self) -> Option<u16> {
        let spawned = self.marks.get() / SPAWNED;
        (spawned < MANY).then_some(spawned)
    }

    /// How many references there are beside the owner's and the join handle's: of wakers, while it is not scheduled. \[OWNER\], or roughly.
    pub(crate) fn wakers(&self) -> usize {
        let state = self.state.load(Ordering::Acquire);
        let merged = if state & MERGED == 0 { self.merged(state) } else { state };
        (merged.cast_signed().max(0).cast_unsigned() / REF).saturating_sub(usize::from(state & JOIN != 0))
    }

    /// Counts a reference that is made (1) or given up (-1) in this moment, if that is to the owner: inside of its queue's `run`, while it has its own
    /// ([OWN]). How many are to be counted in the word: 0, if this is done.
    #[inline(always)]
    pub(super) fn count_here(&self, by: i8) -> isize {
        if ptr::eq(context::ready(), self.queue) { self.count_inside(by) } else { isize::from(by) }
    }

    /// The same inside of its queue's `run`.
    #[inline(always)]
    pub(super) fn count_inside(&self, by: i8) -> isize {
        // Relaxed: the owner has set that bit itself.
        if self.state.load(Ordering::Relaxed) & MERGED == 0 { self.flags.count(by) } else { isize::from(by) }
    }

    /// What this word becomes when the owner takes out its reference, and adds what it has counted. \[OWNER\]
    #[inline(always)]
    pub(super) fn merged(&self, state: usize) -> usize {
        #[cfg(trefoil_loom)]
        self.flags.counted.with_mut(|_| ());
        state.wrapping_add_signed(self.flags.own_refs() * REF.cast_signed()).wrapping_sub(OWNER)
    }

    /// Whether it is in no queue, and the owner has counted as many references as it has counted out. \[OWNER\]
    #[inline(always)]
    pub(super) fn is_plain(&self) -> bool {
        self.flags.get() & !GONE == 0
    }

    /// Whose body or child it is.
    pub(crate) fn queue(&self) -> *const Ready {
        self.queue
    }

    /// The next child of its queue.
    pub(super) fn next(&self) -> *const Header {
        self.next.load(Ordering::Acquire)
    }

    /// Whether it was woken since its last poll began. \[OWNER\], or roughly.
    pub(crate) fn is_scheduled(&self) -> bool {
        self.is_queued() || self.state.load(Ordering::Acquire) & SCHEDULED != 0
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

    /// How long ago it was spawned; of a body that is done, how long ago that was. Any thread.
    pub(crate) fn age(&self, now: u64) -> Duration {
        Duration::from_nanos(u64::from(age_units(now).wrapping_sub(self.life.born())) << AGE_UNIT)
    }

    /// Its age counts from now on. \[OWNER\]
    pub(super) fn begin_age(&self, tree: &Tree) {
        if !BLIND {
            self.life.set_born(tree.turn_time());
        }
    }

    /// How many polls of it have ended, modulo 2^32. Any thread.
    pub(crate) fn polls(&self) -> u32 {
        self.life.polls()
    }

    /// A poll begins, which will see what it was told. \[OWNER\]
    pub(super) fn begin_poll(&self) {
        if self.told.load(Ordering::Relaxed) {
            self.told.swap(false, Ordering::AcqRel);
        }
    }

    /// A poll has ended, and it is pending: of one that is over, nobody asks how often it was polled. \[OWNER\]
    #[inline(always)]
    pub(super) fn end_poll(&self) {
        if !BLIND {
            self.life.add_poll();
        }
    }

    /// The tree of the run on this thread, if it is the body of its queue: that queue is touched by this thread alone, in its `run` and outside.
    #[inline(always)]
    pub(super) fn is_of_the_run_here(&self) -> Option<&'static Tree> {
        // SAFETY: [QUEUE]: the task has references, so its queue is there.
        match unsafe { &(*self.queue).parent } {
            Above::Worker(tree) => context::tree().filter(|here| ptr::eq(*here, *tree)),
            Above::Task(_) => None,
        }
    }

    /// Whether it has no reference but the owner's and that of its join handle, whose holder asks, inside of its queue's `run`, but not of its
    /// poll: nobody else can change its word then ([ALONE]).
    #[inline]
    pub(super) fn is_alone_with_its_handle(&self) -> bool {
        ptr::eq(context::ready(), self.queue)
            && !ptr::eq(context::task(), self)
            // Acquire: what those did that gave up theirs.
            && self.state.load(Ordering::Acquire) == OWNER | JOIN | REF
            && self.flags.own_refs() == 0
    }

    /// N13 (a): it is pending, was not woken meanwhile, and waits for nothing that this library knows of. One that was told
    /// meanwhile is scheduled instead, and judged after its next poll.
    ///
    /// # Safety
    /// \[REF\].
    pub(super) unsafe fn is_stuck(task: *const Header) -> bool {
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
