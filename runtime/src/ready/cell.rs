//! A task with its future, and then with its value.

use super::memory;
use super::task::{Header, VTable};
use crate::blocks;
use crate::payload::Payload;
use crate::sync::UnsafeCell;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::ptr::NonNull;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Where a child comes from.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// Where it was spawned.
    pub place: &'static Location<'static>,
    /// What the owner has set as the home of its queue, so that not every child has to name it. Null if nothing was.
    pub home: *const (),
}

/// What becomes of a child's outcome: the nursery's side. Called by the owner.
pub trait Outcome<O> {
    /// What a join handle gets.
    type Value;
    /// The child returned: the value for the join handle, if there is one.
    fn finished(&self, output: O, from: Origin) -> Option<Self::Value>;
    /// The child panicked, or a destructor of it, or the waker of who waits for it. This must not panic.
    fn panicked(&self, payload: Payload, from: Origin);
    /// The child was cancelled and pended on nothing that the library knows of: it was dropped (N13).
    fn cut(&self, from: Origin);

    /// The name of the child, if it was given one. Here, since few are: so the others have no room for one.
    ///
    /// # Safety
    /// `this` is there. It is called on any thread, also while the owner is inside of another method: what is read must not change, and
    /// must be `Sync`.
    unsafe fn name(this: *const Self) -> Option<Arc<str>> {
        _ = this;
        None
    }
}

/// The future, and once the header says that it is gone, the value: a union, since a tag would be a word more in every cell.
pub(super) union Stage<F, T> {
    pub(super) future: ManuallyDrop<F>,
    pub(super) value: ManuallyDrop<Option<T>>,
}

#[repr(C)]
pub(super) struct TaskCell<F: Future, S: Outcome<F::Output>> {
    pub(super) header: Header,
    pub(super) outcome: S,
    pub(super) stage: UnsafeCell<Stage<F, S::Value>>,
}

impl<F: Future, S: Outcome<F::Output>> TaskCell<F, S> {
    pub(super) const VTABLE: VTable = VTable {
        poll: Self::poll,
        cut: Self::cut,
        value: Self::value,
        drop_value: Self::drop_value,
        end: Self::end,
        name: Self::name,
        panicked: Self::panicked,
        free: Self::free,
    };

    unsafe fn poll(task: *const Header, cx: &mut Context<'_>) -> bool {
        // SAFETY: [OWNER]. The pointer stays raw but for the future itself, which is pinned in the cell.
        unsafe {
            let this = task.cast::<Self>();
            assert!(!(*task).is_gone(), "a task is polled until it is done");
            let polled = (*this).stage.with_mut(|stage| {
                let future = &mut *(*stage).future;
                catch_unwind(AssertUnwindSafe(|| Pin::new_unchecked(future).poll(cx)))
            });
            match polled {
                Ok(Poll::Pending) => false,
                Ok(Poll::Ready(output)) => {
                    Self::drop_future(this);
                    let value = (*this).outcome.finished(output, Self::origin(task));
                    (*this).stage.with_mut(|stage| (*stage).value = ManuallyDrop::new(value));
                    true
                }
                Err(payload) => {
                    (*this).outcome.panicked(payload, Self::origin(task));
                    Self::drop_future(this);
                    true
                }
            }
        }
    }

    /// Destroys the future; a panic in its destructor goes to the nursery.
    unsafe fn drop_future(this: *const Self) {
        // SAFETY: [OWNER]: the future is dropped in place, once, and written over without being dropped again.
        unsafe {
            if (*this).header.is_gone() {
                return;
            }
            (*this).stage.with_mut(|stage| {
                let dropped = catch_unwind(AssertUnwindSafe(|| ManuallyDrop::drop(&mut (*stage).future)));
                (*stage).value = ManuallyDrop::new(None);
                (*this).header.set_gone();
                if let Err(payload) = dropped {
                    (*this).outcome.panicked(payload, Self::origin(this.cast()));
                }
            });
        }
    }

    unsafe fn cut(task: *const Header, told: bool) {
        // SAFETY: [OWNER].
        unsafe {
            Self::drop_future(task.cast());
            if told {
                (*task.cast::<Self>()).outcome.cut(Self::origin(task));
            }
        }
    }

    unsafe fn value(task: *const Header, to: *mut ()) {
        // SAFETY: after DONE the stage belongs to the join handle, which knows its `T`.
        unsafe {
            (*task.cast::<Self>()).stage.with_mut(|stage| {
                let value = &mut *(*stage).value;
                *to.cast::<Option<S::Value>>() = value.take();
            });
        }
    }

    unsafe fn drop_value(task: *const Header) {
        // SAFETY: without a handle the stage is the owner's; the future is gone.
        unsafe {
            let this = task.cast::<Self>();
            let value = (*this).stage.with_mut(|stage| {
                let value = &mut *(*stage).value;
                value.take()
            });
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
                (*this).outcome.panicked(payload, Self::origin(task));
            }
        }
    }

    unsafe fn end(task: *const Header) {
        // SAFETY: the caller's word, for both.
        unsafe {
            Self::drop_value(task);
            if !blocks::drop_put_unseen(NonNull::new_unchecked(task.cast::<Self>().cast_mut())) {
                memory::free(task, 0);
            }
        }
    }

    unsafe fn origin(task: *const Header) -> Origin {
        // SAFETY: [OWNER]; [QUEUE]: the task has references.
        let home = unsafe { (*(*task).queue).home() };
        // SAFETY: [REF].
        Origin { place: unsafe { (*task).place }, home }
    }

    unsafe fn name(task: *const Header) -> Option<Arc<str>> {
        // SAFETY: [REF]. What says the name does so from any thread: its word.
        unsafe { S::name(&raw const (*task.cast::<Self>()).outcome) }
    }

    unsafe fn panicked(task: *const Header, payload: Payload) {
        // SAFETY: [OWNER].
        unsafe { (*task.cast::<Self>()).outcome.panicked(payload, Self::origin(task)) }
    }

    unsafe fn free(task: *const Header) {
        // SAFETY: it was put on the heap as this type; the future is gone, and so is the value: who had the handle took it, or there was none.
        unsafe { blocks::drop_put(NonNull::new_unchecked(task.cast::<Self>().cast_mut())) };
    }
}
