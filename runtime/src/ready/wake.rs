//! The wakers of a task: transition 1 of the protocol, and its references.

use super::memory::free;
use super::task::{DONE, Header, REF, SCHEDULED};
use crate::context;
use crate::sync::Ordering;
use crate::sync::inbox::Pushed;
use std::mem::ManuallyDrop;
use std::ptr;
use std::task::{RawWaker, RawWakerVTable, Waker};

pub(super) static WAKER: RawWakerVTable = RawWakerVTable::new(waker_clone, waker_wake, waker_wake_by_ref, waker_drop);

/// Whether a waker is a task's: cloning it runs no code of others.
pub(crate) fn is_ours(waker: &Waker) -> bool {
    ptr::eq(waker.vtable(), &WAKER)
}

/// Whether a waker is that of this task, and not of a combinator in it.
pub(crate) fn is_of(waker: &Waker, task: *const Header) -> bool {
    is_ours(waker) && ptr::eq(waker.data(), task.cast())
}

/// The body of the run on this thread, which is there while this thread does not leave the loop of that run.
pub(crate) struct BodyHere(*const Header);

impl BodyHere {
    /// If that is whose waker it is.
    #[inline]
    pub fn of(waker: &Waker) -> Option<Self> {
        if !is_ours(waker) {
            return None;
        }
        let task: *const Header = waker.data().cast();
        // SAFETY: [REF]: the waker's.
        let header = unsafe { &*task };
        // That of a run that has ended is done, also if its tree is that of another run now.
        (header.is_body() && header.is_of_the_run_here().is_some() && !header.is_done()).then_some(Self(task))
    }

    /// Wakes it.
    pub fn wake(self) {
        // SAFETY: [REF]: that of the owner, the run, which is given up on this thread, after `DONE`.
        unsafe { wake(self.0, false) }
    }
}

unsafe fn waker_clone(task: *const ()) -> RawWaker {
    // SAFETY: [REF]: the waker has a reference.
    retain(unsafe { &*task.cast() });
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
#[inline(always)]
pub(super) unsafe fn wake(task: *const Header, give: bool) {
    // SAFETY: [REF].
    let header = unsafe { &*task };
    if !ptr::eq(context::ready(), header.queue) {
        // SAFETY: the caller's word.
        return unsafe { wake_outside(task, give) };
    }
    // Inside of this queue's `run`: no read-modify-write, here and when it is polled. A turn takes half the time by that.
    if !header.is_queued() && !header.is_done() {
        // SAFETY: [OWNER], [LISTED]; [QUEUE]: the task has references, so its queue is there.
        unsafe {
            if (*header.queue).special_push() != 0 {
                return wake_specially(task, give);
            }
            (*header.queue).enqueue(task);
        }
    }
    if give {
        let less = header.count_inside(-1);
        if less != 0 {
            // SAFETY: [REF].
            unsafe { release_counted(task, less) }
        }
    }
}

/// Inside of the `run` of its queue, of one that is not queued, where instruments look, or where nothing is queued any more.
#[cold]
#[inline(never)]
unsafe fn wake_specially(task: *const Header, give: bool) {
    // SAFETY: [REF]; [OWNER], [LISTED], [QUEUE] as above.
    unsafe {
        (*(*task).queue).push_local(task);
        if give {
            release(task)
        }
    }
}

/// Outside of the `run` of its queue.
// Apart, as all that is not the ordinary way: so that has no registers to save, which were a fifth of a wake.
#[inline(never)]
unsafe fn wake_outside(task: *const Header, give: bool) {
    // SAFETY: [REF].
    let header = unsafe { &*task };
    if let Some(tree) = header.is_of_the_run_here() {
        // Outside of its `run`, as from the driver: five read-modify-writes and 57 instructions less than by way of the inbox, for each turn of a
        // loop that sleeps.
        if !header.is_queued() && !header.is_done() {
            // SAFETY: [OWNER]: this is the thread of the run; [LISTED], [QUEUE] as above.
            unsafe { (*header.queue).push_local(task) };
            tree.parker.notify_here();
        }
    } else {
        // SAFETY: [REF].
        return unsafe { wake_elsewhere(task, give) };
    }
    if give {
        // SAFETY: [REF].
        unsafe { release_in_word(task, 1) }
    }
}

/// The caller's reference is kept to the end: as soon as the task is in the inbox its owner may take it out, finish it and end, and only that
/// reference keeps the inbox's queue for who has to tell the parent. Where others are there already nobody has to, and what is given goes into the
/// inbox: of many messages that a loop finds at once, all but the first cost a read-modify-write and 26 instructions less.
unsafe fn wake_elsewhere(task: *const Header, give: bool) {
    // SAFETY: [REF].
    let header = unsafe { &*task };
    // SAFETY: [QUEUE]: the task has references, so its queue is there.
    let goes_along = give && unsafe { !(*header.queue).inbox.is_empty() };
    let mut state = header.state.load(Ordering::Relaxed);
    let scheduled = loop {
        let next = match state & (SCHEDULED | DONE) {
            0 if goes_along => state | SCHEDULED,
            0 => (state | SCHEDULED) + REF,
            // Scheduled before: a write of the same value, so that the poll to come sees what happened before this wake.
            SCHEDULED => state,
            _ => break false,
        };
        match header.state.compare_exchange_weak(state, next, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => break state & SCHEDULED == 0,
            Err(now) => state = now,
        }
    };
    if !scheduled {
        if give {
            // SAFETY: [REF].
            unsafe { release(task) }
        }
        return;
    }
    // SAFETY: [LISTED]: we set SCHEDULED; [REF]: the inbox's reference is in `next`, or it is the caller's; [QUEUE]: the task has references, so
    // its queue is there.
    unsafe {
        if goes_along {
            if (*header.queue).inbox.push_behind(task) {
                return;
            }
            // They were taken out meanwhile, or the inbox is watched.
            header.state.fetch_add(REF, Ordering::Relaxed);
        }
        let pushed = (*header.queue).push_from_elsewhere(task);
        // Also where the waker of a foreign executor panics, which is told of it.
        let _given = give.then(|| Given(task));
        match pushed {
            Pushed::First => (*header.queue).parent.wake(),
            Pushed::Behind => {}
            Pushed::Refused | Pushed::Watched => release(task),
        }
    }
}

/// A reference that is given up at the end of this.
struct Given(*const Header);

impl Drop for Given {
    fn drop(&mut self) {
        // SAFETY: [REF]: the caller's, which nobody else gives up; outside of the `run` of its queue.
        unsafe { release_in_word(self.0, 1) }
    }
}

/// One reference more. The caller has one, or borrows that of the owner.
#[inline]
pub(super) fn retain(header: &Header) {
    let more = header.count_here(1);
    if more != 0 {
        let before = header.state.fetch_add(more.cast_unsigned().wrapping_mul(REF), Ordering::Relaxed);
        if before > isize::MAX as usize {
            std::process::abort(); // 2^57 wakers: a leak in a loop
        }
    }
}

/// Gives up a reference.
#[inline]
pub(super) unsafe fn release(task: *const Header) {
    // SAFETY: [REF].
    let header = unsafe { &*task };
    let less = header.count_here(-1);
    if less != 0 {
        // SAFETY: [REF].
        unsafe { release_in_word(task, less.unsigned_abs()) }
    }
}

/// There was no room to count it.
#[cold]
#[inline(never)]
unsafe fn release_counted(task: *const Header, less: isize) {
    // SAFETY: the caller's word.
    unsafe { release_in_word(task, less.unsigned_abs()) }
}

#[inline(always)]
unsafe fn release_in_word(task: *const Header, references: usize) {
    // SAFETY: [REF].
    let header = unsafe { &*task };
    let less = references * REF;
    let before = header.state.fetch_sub(less, Ordering::AcqRel);
    if before - less < REF {
        // SAFETY: that was the last reference.
        unsafe { free(task, before) }
    }
}

/// Gives up the owner's reference of a body, which is in no `run` any more.
pub(super) unsafe fn release_body(task: *const Header) {
    // SAFETY: [REF].
    let header = unsafe { &*task };
    // Acquire: what those did that gave up theirs.
    let mut state = header.state.load(Ordering::Acquire);
    loop {
        let merged = header.merged(state);
        if merged / REF == 0 {
            // SAFETY: nobody else has a reference.
            return unsafe { free(task, state) };
        }
        match header.state.compare_exchange_weak(state, merged, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return,
            Err(now) => state = now,
        }
    }
}

/// A waker that borrows the owner's reference for the length of a poll.
pub(super) unsafe fn borrowed_waker(task: *const Header) -> ManuallyDrop<Waker> {
    // SAFETY: the vtable is for headers; the reference is not given up, since the waker is not dropped.
    ManuallyDrop::new(unsafe { Waker::from_raw(RawWaker::new(task.cast(), &WAKER)) })
}
