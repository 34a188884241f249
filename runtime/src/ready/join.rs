//! The handle by which a child's end is waited for.

use super::task::{DONE, Header, JOIN, OWNER, REF, WAITER};
use super::wake::release;
use crate::context;
use crate::park::{Ahead, Completed, Core, Known, Park, Reason, Wait};
use crate::sync::{Mutex, Ordering};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::marker::PhantomData;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Where the join handles of a queue's children wait: few children are waited for at a time, so the others have no room for it.
pub(super) struct Joins(Mutex<HashMap<usize, Waits, BuildHasherDefault<ByAddress>>>);

/// A park that is registered. \[REF\] of the child, and the lock: who gives the park up takes it out before.
struct Waits(*const Core);

// SAFETY: a park is `Sync`, and stays while it is registered.
unsafe impl Send for Waits {}

impl Joins {
    pub(super) fn new() -> Self {
        Self(Mutex::new(HashMap::default()))
    }

    /// The child is done, and somebody has registered, who may have left meanwhile. Whom to wake.
    ///
    /// # Safety
    /// The child has references.
    pub(super) unsafe fn complete(&self, child: *const Header) -> Option<Completed> {
        let mut waiting = self.0.lock();
        // SAFETY: as long as it is registered it is there.
        waiting.remove(&child.addr()).map(|Waits(park)| unsafe { (*park).complete() })
    }
}

/// An address of a task, as the hash of itself: nobody chooses where his children are.
#[derive(Default)]
struct ByAddress(u64);

impl Hasher for ByAddress {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("an address is a word");
    }

    fn write_usize(&mut self, address: usize) {
        // The table looks at the lowest and at the highest bits.
        self.0 = (address as u64 >> 4).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32);
    }
}

/// The handle of a child. Dropping it neither cancels nor detaches the child.
pub struct RawJoin<T> {
    task: *const Header,
    /// Where it waits; made at the first wait. Registered in the task while `WAITER` is set.
    park: Option<Pin<Box<Park<Known>>>>,
    _value: PhantomData<T>,
}

// SAFETY: the task is shared by references ([REF]), the value is handed over by DONE.
unsafe impl<T: Send> Send for RawJoin<T> {}
// SAFETY: nothing is done through `&RawJoin`.
unsafe impl<T: Send> Sync for RawJoin<T> {}

impl<T> std::fmt::Debug for RawJoin<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // SAFETY: [REF].
        let task = unsafe { &*self.task };
        let name = task.name();
        let child = crate::scope::cause::Named(name.as_deref(), task.place);
        f.debug_struct("Join").field("child", &format_args!("{child}")).field("done", &task.is_done()).finish()
    }
}

impl<T> RawJoin<T> {
    /// Takes over the handle's reference.
    pub(super) unsafe fn new(task: *const Header) -> Self {
        Self { task, park: None, _value: PhantomData }
    }

    fn joins(&self) -> &Joins {
        // SAFETY: [QUEUE]: the task is not freed, so its queue is there.
        unsafe { &(*self.task().queue).joins }
    }

    fn task(&self) -> &Header {
        // SAFETY: [REF]: the handle's.
        unsafe { &*self.task }
    }

    /// What names the child, to be compared only.
    pub(crate) fn addr(&self) -> usize {
        self.task.addr()
    }

    /// Whether the child is done.
    pub fn is_done(&self) -> bool {
        self.task().is_done()
    }

    /// Where the child was spawned.
    pub fn place(&self) -> &'static Location<'static> {
        self.task().place
    }

    /// The value, once; `None` before the child is done, if it had none, or if it was taken.
    pub fn take(&mut self) -> Option<T> {
        let mut value = None;
        if self.is_done() {
            // SAFETY: DONE: the stage is the handle's; `T` is the cell's value type by construction.
            unsafe { (self.task().vtable.value)(self.task, (&raw mut value).cast()) };
        }
        value
    }

    /// Waits for the child: `Ok(None)` if it ended without a value. `Err`: the scope that waits was cancelled. `place` says where it waits,
    /// and is told where the child was spawned; it is asked when it waits, or is cancelled.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        place: impl FnOnce(&'static Location<'static>) -> &'static Location<'static>,
    ) -> Poll<Result<Option<T>, crate::Cancelled>> {
        if let Some(park) = &self.park
            && park.is_active()
        {
            // SAFETY: [OWNER] of the park: `&mut self`.
            return match unsafe { park.as_ref().poll(cx) } {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(())) => Poll::Ready(Ok(self.take())),
                Poll::Ready(Err(_)) => {
                    self.unregister();
                    context::poll_cancelled(place(self.place())).map(Err)
                }
            };
        }
        if context::is_cancelled() {
            return context::poll_cancelled(place(self.place())).map(Err);
        }
        if self.is_done() {
            std::task::ready!(context::poll_budget(cx));
            return Poll::Ready(Ok(self.take()));
        }
        let place = place(self.place());
        let park = self.park.get_or_insert_with(|| Box::pin(Park::new_at(place)));
        // SAFETY: [REF]; [QUEUE]: the task is not freed, so its queue is there. [OWNER] of the park: `&mut self`.
        unsafe {
            park.set_place(place);
            let ahead = Ahead::of(cx);
            let mut waiting = (*(*self.task).queue).joins.0.lock();
            if park.as_ref().begin_for_child(cx, Wait::new(Reason::Join).at(place), ahead, self.task.addr()).is_err() {
                drop(waiting);
                park.end();
                return context::poll_cancelled(place).map(Err);
            }
            waiting.insert(self.task.addr(), Waits(park.as_core()));
            // One word decides: either this finds DONE, or the owner finds WAITER and comes for the lock.
            if (*self.task).state.fetch_or(WAITER, Ordering::AcqRel) & DONE == 0 {
                return Poll::Pending;
            }
            waiting.remove(&self.task.addr());
            drop(waiting);
            park.end();
        }
        Poll::Ready(Ok(self.take()))
    }

    fn unregister(&mut self) {
        // Under the lock, the owner either has taken the pointer and is done with it, or finds none.
        self.joins().0.lock().remove(&self.task.addr());
    }
}

impl<T> Drop for RawJoin<T> {
    // Most are dropped where their child was spawned: three instructions of a call.
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(park) = &self.park
            && park.is_active()
        {
            self.unregister();
        }
        if self.task().is_alone_with_its_handle() {
            // [ALONE]: there is no waker. 5 ns.
            self.task().state.store(OWNER, Ordering::Relaxed);
            return;
        }
        let mut state = self.task().state.load(Ordering::Acquire);
        loop {
            if state & DONE != 0 {
                // The value, if it was not taken, is ours to drop.
                let value = self.take();
                // SAFETY: [REF]: the handle's.
                unsafe { release(self.task) };
                drop(value);
                return;
            }
            match self.task().state.compare_exchange_weak(
                state,
                (state & !JOIN) - REF,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                // The owner has a reference while it is not done: this was not the last.
                Ok(_) => return,
                Err(now) => state = now,
            }
        }
    }
}
