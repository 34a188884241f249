//! The end of a task's memory: at once, or, while somebody looks on from another thread, afterwards.

use super::task::{Header, MERGED};
use super::wake::release;
#[cfg(not(trefoil_loom))]
use crate::blind::BLIND;
#[cfg(not(trefoil_loom))]
use crate::look::onlook::Onlookers;
#[cfg(not(trefoil_loom))]
use crate::tree::Tree;

/// Whether somebody looks on, so that a task that was unlinked just now is not to be freed at once.
///
/// Under loom the protocol has a model of its own: a word that all tasks look at would make the others too large.
#[cfg(not(trefoil_loom))]
pub(crate) fn is_looked_at() -> bool {
    !BLIND && ONLOOKERS.any()
}

#[inline(always)]
pub(super) unsafe fn free(task: *const Header, state: usize) {
    #[cfg(not(trefoil_loom))]
    if is_looked_at() {
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
    looking: crate::look::onlook::Looking<'static, Kept, fn(Kept)>,
    /// After that.
    #[cfg(not(trefoil_loom))]
    _blocks: BlocksAway,
}

/// No loop has blocks in hand while somebody looks on, so that who frees a task finds that out by what it looks at anyway.
#[cfg(not(trefoil_loom))]
struct BlocksAway;

#[cfg(not(trefoil_loom))]
impl BlocksAway {
    fn tell_all() {
        for tree in Tree::all() {
            tree.current.tell_of_onlookers();
        }
    }
}

#[cfg(not(trefoil_loom))]
impl Drop for BlocksAway {
    fn drop(&mut self) {
        Self::tell_all();
    }
}

/// Any thread may walk the children of a queue that is there, if the result says so, until that is dropped: \[LOOKED\].
pub(crate) fn look_on() -> LookingOn {
    LookingOn {
        // SAFETY: nobody looks on any more, and it was kept by `free`.
        #[cfg(not(trefoil_loom))]
        looking: ONLOOKERS.look(BlocksAway::tell_all, |Kept(task, state)| unsafe { free_now(task, state) }),
        #[cfg(not(trefoil_loom))]
        _blocks: BlocksAway,
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
    // SAFETY: nobody else has a reference; [QUEUE]: a child that outlived its owner's holds one of its queue's body.
    unsafe {
        let queue = (*task).queue;
        ((*task).vtable.free)(task);
        if state & MERGED != 0 {
            release(queue.cast());
        }
    }
}
