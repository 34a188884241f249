//! What is read of the tree: for who asks about the scope it is in, for the task tree, and for reports of deadlocks.

use super::Locked;
use crate::park::{Abort, Core, On};
use crate::ready::{self, Header, Ready};
use crate::reason::Reason;
use crate::scope::cause::{Cause, Source};
use crate::scope::{SHIELD, Scope};
use crate::sync::Ordering;
use std::panic::Location;
use std::ptr::NonNull;
use std::sync::Arc;

/// A wait, as the task tree shows it.
pub(crate) struct Waiting {
    pub task: *const Header,
    pub reason: Reason,
    pub place: &'static Location<'static>,
    /// Where that was made which it waits for, where that is known and nobody holds it.
    pub made: Option<&'static Location<'static>>,
    /// On the clock of the run.
    pub since: u64,
    /// It has no end of its own.
    pub for_ever: bool,
    /// What it waited for has come, and its future was not polled since.
    pub come: bool,
    /// How many wakers of the task it accounts for. Whose a guest's wait is has one, too.
    pub wakers: usize,
}

impl Locked<'_> {
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
        self.state.wheel.len()
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

    /// One that is linked: \[TAIL\] of the parks.
    unsafe fn waiting(&self, this: *const Core) -> Waiting {
        // SAFETY: the caller's word; [LOCKED].
        unsafe {
            let park = &*this;
            let come = park.has_come();
            Waiting {
                task: park.task(),
                reason: Core::reason(this),
                place: Core::place(this),
                made: Core::made_at(this),
                since: park.since(self.now()),
                for_ever: park.key.get().is_none(),
                come,
                wakers: match (park.wakes_its_task(), park.abort_kind()) {
                    (false, _) => 0,
                    // Who completed it has taken the waker. While that is on its way, somebody has it whom we do not know.
                    _ if come => 0,
                    (true, Abort::Lasting) => 2,
                    (true, _) => 1,
                },
            }
        }
    }

    /// The same as [`waits`](Self::waits), with what is known of who could end them.
    pub(crate) fn waits_on(&self, scope: &Scope) -> Vec<(Waiting, On)> {
        let mut all = Vec::new();
        // SAFETY: [LOCKED]; [TAIL] of the parks.
        unsafe {
            let mut park = scope.links.with(|links| (*links).first_park);
            while !park.is_null() {
                all.push((self.waiting(park), Core::on(park)));
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
                all.push(self.waiting(park));
                park = (*park).links.with(|links| (*links).next);
            }
        }
        all
    }
}
