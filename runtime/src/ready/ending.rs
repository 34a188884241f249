//! The end of a child: transition 3 of the protocol.

use super::Ready;
use super::memory::free;
use super::task::{DONE, HOLDER, Header, JOIN, MERGED, OWNER, REF, WAITER};
use super::wake::{release, retain};
use crate::look::holders;
use crate::look::instrument::Watch;
use crate::scope::Scope;
use crate::sync::Ordering;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Another task may get the address of one that has ended; it does not hold what this one held.
#[cold]
pub(super) unsafe fn bury_holder(task: *const Header) {
    // SAFETY: [REF].
    if unsafe { &*task }.marks.get() & HOLDER != 0 {
        holders::bury(task.addr());
    }
}

/// Waits and scopes that outlive their task, moved elsewhere, must not point to it. They are in the tree of `scope`, that of its queue,
/// and most of them below it; once that was left, everything below it has been let go.
#[inline(always)]
pub(super) unsafe fn forget_task(scope: Option<&Scope>, task: *const Header) {
    // SAFETY: [REF].
    let task = unsafe { &*task };
    if task.waits() != 0 {
        forget_waits(scope, task);
    }
}

/// Apart from the look whether there are some: most who end have none, and need no room on the stack for this.
#[inline(never)]
fn forget_waits(scope: Option<&Scope>, task: &Header) {
    // The tree that the scope is in, not that of the run around us: a nursery may be dropped anywhere.
    if let Some(scope) = scope
        && let Some(mut locked) = scope.lock()
    {
        locked.forget_task(scope, task);
    }
    // Nothing points to it now that could count.
    task.waits.store(0, Ordering::Release);
}

impl Ready {
    /// Transition 3: the future is gone. Tells the join handle, and gives up the owner's reference. `WATCHED`: instruments look at this
    /// queue; that changes in no batch.
    pub(super) unsafe fn finish<const WATCHED: bool>(&self, scope: Option<&Scope>, child: *const Header) {
        // SAFETY: [OWNER]; [REF]: the owner's, until the end.
        unsafe {
            forget_task(scope, child);
            // One look at what it was told, and at what it holds: most have neither.
            if (*child).marks.get() != 0 {
                self.end_marked(child);
            }
            self.unlink_child(child);
            if WATCHED {
                self.tell_if_watched(child, Watch::exited);
            }
            // Acquire: what those did that gave up theirs.
            if (*child).state.load(Ordering::Acquire) == OWNER && (*child).is_plain() {
                // [ALONE]: no handle and no waker is left, so nobody learns of it. 5 ns.
                (*child).state.store(OWNER | DONE, Ordering::Relaxed);
                return ((*child).vtable.end)(child);
            }
            self.finish_shared(child);
        }
    }

    /// The same, where it is not known whether instruments look.
    pub(super) unsafe fn finish_watched(&self, scope: Option<&Scope>, child: *const Header) {
        // SAFETY: the caller's word.
        unsafe { self.finish::<true>(scope, child) }
    }

    #[cold]
    unsafe fn end_marked(&self, child: *const Header) {
        // SAFETY: [OWNER], [REF].
        unsafe {
            bury_holder(child);
            self.owner.with_mut(|owner| (*owner).told |= (*child).strikes() > 0);
        }
    }

    #[inline(always)]
    unsafe fn unlink_child(&self, child: *const Header) {
        // SAFETY: [OWNER], [REF].
        self.owner.with_mut(|owner| unsafe {
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
            self.live.store(self.live.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
        });
    }

    /// The end of transition 3 for a child of which others have references.
    #[inline(never)]
    unsafe fn finish_shared(&self, child: *const Header) {
        // SAFETY: as in `finish`.
        unsafe {
            // Release: the value, for the join handle.
            let before = (*child).state.fetch_or(DONE, Ordering::AcqRel);
            if before & JOIN == 0 {
                ((*child).vtable.drop_value)(child);
            }
            if before & WAITER != 0 {
                let completed = self.joins.complete(child);
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
    pub(super) unsafe fn let_go_if_child(&self, task: *const Header) {
        // SAFETY: [OWNER], [REF].
        unsafe {
            if !(*task).is_body() {
                self.let_go(task);
            }
        }
    }

    /// Gives up the owner's reference; of one that is queued, when it is taken out. Where others remain, the task takes a reference of the
    /// queue with it.
    pub(super) unsafe fn let_go(&self, child: *const Header) {
        // SAFETY: [REF], [QUEUE], [OWNER].
        unsafe {
            if (*child).is_queued() {
                return;
            }
            let mut state = (*child).state.load(Ordering::Acquire);
            loop {
                let merged = (*child).merged(state);
                if merged / REF == 0 {
                    // Ours alone: no waker and no handle is left that could change it.
                    return free(child, state);
                }
                // Before anybody can find the bit: the queue's reference it stands for.
                retain(&self.body);
                match (*child).state.compare_exchange_weak(state, merged | MERGED, Ordering::AcqRel, Ordering::Acquire)
                {
                    Ok(_) => return,
                    Err(now) => {
                        release(&raw const self.body);
                        state = now;
                    }
                }
            }
        }
    }

    pub(super) unsafe fn cut(&self, scope: Option<&Scope>, child: *const Header) {
        // SAFETY: [OWNER].
        unsafe {
            tracing::debug!(task = %&*child, "a cancelled child pended on nothing known, and was dropped (N13)");
            ((*child).vtable.cut)(child, true);
            self.finish_watched(scope, child);
        }
    }
}
