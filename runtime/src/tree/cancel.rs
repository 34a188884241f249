//! Cancelling a subtree, softly, once or for good; shields; and telling what waits where it became cancelled.

use super::Locked;
use crate::park::{Abort, Completed, Core};
use crate::scope::cause::Cause;
use crate::scope::cause::{Source, Why};
use crate::scope::{CANCEL_CALLED, EFFECTIVE, ONCE, POLITE, SHIELD, SOFT, SOFT_CALLED, Scope, WAKER_SET};
use crate::sync::Ordering;
use crate::time::wheel::Key;
use std::panic::Location;
use std::ptr;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

impl Locked<'_> {
    /// The scope of this wait is cancelled.
    pub(crate) fn cancel_park(&mut self, park: &Core) {
        match park.abort_kind() {
            Abort::Ask => {
                let waker = park.ask();
                self.wakers.push(waker);
            }
            Abort::Lasting if !self.is_told_for_good(park) => {}
            Abort::AtOnce | Abort::Lasting => {
                if let Completed::Won(waker) = park.abort() {
                    // Its waker is woken after the lock: until it has been polled it is not to be taken for one that waits for nothing.
                    // SAFETY: [LOCKED]: a task that a linked park names is there.
                    if let Some(task) = unsafe { park.task().as_ref() } {
                        task.tell();
                    }
                    self.unlink_park(park);
                    self.wakers.push(waker);
                }
            }
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
        if let Some(key) = self.note(scope, why, at, late) {
            if let Some(key) = key {
                self.disarm(key);
            }
            scope.set(CANCEL_CALLED);
            self.refresh(scope);
        }
    }

    /// Notes why a scope is cancelled: the key of its deadline, if this is the first reason.
    fn note(&mut self, scope: &Scope, why: Why, at: u64, late: Option<Duration>) -> Option<Option<Key>> {
        let Why { source, place, culprit } = why;
        let info = scope.who();
        // SAFETY: [LOCKED].
        scope.links.with_mut(|links| unsafe {
            let place = match (*links).cause.as_ref() {
                Some(cause) if cause.source != Source::Soft => return None,
                // It was asked to stop, and its time is over: who asked is what one wants to know.
                Some(asked) if source == Source::Deadline => asked.place,
                _ => place,
            };
            (*links).cause = Some(Arc::new(Cause { source, place, at, scope: info, late, culprit }));
            Some((*links).key)
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

    fn is_told_for_good(&self, park: &Core) -> bool {
        let scope = park.scope();
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
                    if (*park).is_waiting() && (*park).abort_kind() != Abort::Lasting {
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
        if let Some(Some(key)) = self.note(scope, Why::new(Source::Deadline, scope.place), now, Some(late)) {
            self.disarm(key);
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
    ///
    /// A waker, with a count of the task, also where it is that of the task which the scope names: a cancel from another thread must not be the first to
    /// count there ([ALONE] of the tasks).
    pub(crate) fn set_waker(&mut self, scope: &Scope, waker: Waker) -> Option<Waker> {
        if !scope.has(WAKER_SET) {
            scope.set(WAKER_SET);
        }
        // SAFETY: [LOCKED].
        scope.links.with_mut(|links| unsafe { (*links).waker.replace(waker) })
    }
}
