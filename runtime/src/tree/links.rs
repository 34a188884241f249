//! Linking waits and scopes into the tree, moving them about in it, and taking them out.

use super::Locked;
use crate::blind::BLIND;
use crate::park::Core;
use crate::ready::Header;
use crate::scope::{EFFECTIVE, SHIELD, SOFT, Scope, WAKER_SET};
use crate::sync::{AtomicPtr, Ordering};
use crate::time::clock::NEVER;
use std::ptr;
use std::task::Waker;

/// Takes a pointer that is written under the lock only.
fn take<T>(pointer: &AtomicPtr<T>) -> *mut T {
    let taken = pointer.load(Ordering::Relaxed);
    pointer.store(ptr::null_mut(), Ordering::Relaxed);
    taken
}

impl Locked<'_> {
    /// # Safety
    /// \[LOCKED\]: the park is unlinked before it goes away; `scope` and `task` are current, and that is its task. The pointer is good for what follows the core: \[TAIL\] of
    /// the parks.
    pub(crate) unsafe fn link_park(&mut self, this: *const Core, scope: *const Scope, task: *const Header, until: u64) {
        if !BLIND {
            self.state.activity += 1;
        }
        // SAFETY: the caller's word.
        let park = unsafe { &*this };
        park.enter(scope);
        // SAFETY: [LOCKED]; `scope` and `task` are current.
        unsafe {
            if !task.is_null() {
                (*task).waits_add(1);
            }
            (*scope).links.with_mut(|scope| {
                let scope = &mut *scope;
                park.links.with_mut(|links| {
                    let links = &mut *links;
                    links.next = ptr::null();
                    links.before.prev = scope.last_park;
                });
                if scope.last_park.is_null() {
                    scope.first_park = this;
                } else {
                    (*scope.last_park).links.with_mut(|last| (*last).next = this);
                }
                scope.last_park = this;
            });
        }
        if until != u64::MAX {
            self.arm_park(park, until);
        }
    }

    /// When the wait of a park that is linked ends by itself.
    #[inline(always)]
    pub(crate) fn until(&self, park: &Core) -> u64 {
        park.key.get().map_or(NEVER, |key| self.state.wheel.at(key))
    }

    #[inline(always)]
    pub(crate) fn unlink_park(&mut self, park: &Core) {
        let until = self.until(park);
        if let Some(key) = park.key.get() {
            self.disarm(key);
        }
        // SAFETY: [LOCKED]: the park is linked, so its scope, its neighbours and its task are there.
        unsafe {
            let (scope, task) = park.scope_and_task();
            if !task.is_null() {
                (*task).waits_sub(1);
            }
            let (prev, next) = park.links.with_mut(|links| {
                let links = &mut *links;
                let prev = links.before.prev;
                links.before.until = until;
                (prev, links.next)
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
                    (*next).links.with_mut(|next| (*next).before.prev = prev);
                }
            });
        }
        // The last thing.
        park.leave();
    }

    /// Puts a scope under another (or makes it the root), and gives it the state that follows (R2, R6, R22).
    pub(crate) fn link_scope(&mut self, scope: &Scope, parent: *const Scope, task: *const Header) {
        scope.parent.store(parent.cast_mut(), Ordering::Relaxed);
        scope.task.store(task.cast_mut(), Ordering::Relaxed);
        self.attach(scope, parent, task);
        self.refresh(scope);
    }

    /// The same for a scope that was [made for this place](Scope::entered) just now: nothing was asked of it, and its deadline has not passed. It has the
    /// waker of who polls it, which is not woken: that sees what is in force.
    ///
    /// # Safety
    /// \[HELD\] of the scopes: it is unlinked before it goes away. What it names as its parent and its task is current.
    #[inline(always)]
    pub(crate) unsafe fn link_new(&mut self, scope: &Scope) {
        let (parent, task) = (scope.parent.load(Ordering::Relaxed), scope.task.load(Ordering::Relaxed));
        self.attach(scope, parent, task);
        // SAFETY: [LOCKED]; it is current.
        let above = unsafe { parent.as_ref() }.map_or(0, Scope::flags) & (EFFECTIVE | SOFT);
        if above != 0 && !scope.has(SHIELD) {
            scope.set(above);
        }
        let deadline = scope.deadline.load(Ordering::Relaxed);
        if deadline != NEVER {
            self.arm_scope(scope, deadline);
        }
    }

    /// Puts a scope into the list of its parent's, and counts it for its task.
    #[inline(always)]
    fn attach(&mut self, scope: &Scope, parent: *const Scope, task: *const Header) {
        if !BLIND {
            self.state.activity += 1;
        }
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
    pub(super) fn detach(&mut self, parent: *const Scope, prev: *const Scope, next: *const Scope) {
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
    #[inline(always)]
    fn let_go(&mut self, top: &Scope) {
        // SAFETY: [LOCKED].
        let is_leaf =
            top.links.with(|links| unsafe { (*links).first_park.is_null() && (*links).first_child.is_null() });
        if !is_leaf {
            self.let_go_all(top);
        }
    }

    #[cold]
    fn let_go_all(&mut self, top: &Scope) {
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
            let (prev, next, key, waker) = scope.links.with_mut(|links| {
                let links = &mut *links;
                let task = take(&scope.task);
                if !task.is_null() {
                    (*task).waits_sub(1);
                }
                let gone = (links.prev, links.next, links.key, links.waker.take());
                (links.prev, links.next) = (ptr::null(), ptr::null());
                gone
            });
            if let Some(key) = key {
                self.disarm(key);
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
        while !node.is_null() {
            // SAFETY: [LOCKED].
            unsafe {
                if ptr::eq((*node).task(), task) {
                    (*node).task.store(ptr::null_mut(), Ordering::Relaxed);
                    forgot += 1;
                }
                let mut park = (*node).links.with(|links| (*links).first_park);
                while !park.is_null() {
                    if ptr::eq((*park).task(), task) {
                        (*park).forget_task();
                        forgot += 1;
                    }
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
}
