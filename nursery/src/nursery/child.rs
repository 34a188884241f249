//! What becomes of a child's outcome.

use super::state::{State, Who};
use std::marker::PhantomData;
use std::sync::Arc;
use trefoil_runtime::{CancelAware, Origin, Outcome, Payload};

/// Where a child's outcome goes: to the state of its nursery, which is the home of the queue. So a child has no room for it.
pub(super) struct ToNursery<E>(pub(super) PhantomData<fn(E)>);

impl<E: CancelAware> ToNursery<E> {
    /// # Safety
    /// The child is one of a nursery of `E`, which calls this.
    unsafe fn state<'a>(from: Origin) -> &'a State<E> {
        // SAFETY: [BRAND]: the child is there, so the nursery is; [OWNER]. It has set itself as the home of its queue.
        unsafe { &*from.home.cast::<State<E>>() }
    }

    fn finish<T>(&self, output: Result<T, E>, name: Option<&dyn Name>, from: Origin) -> Option<T> {
        match output {
            Ok(value) => Some(value),
            Err(error) => {
                // SAFETY: children with such an outcome are spawned into nurseries of `E` alone.
                unsafe { Self::state(from) }.fail(error, Who { name, place: from.place, body: false });
                None
            }
        }
    }

    fn panic(&self, payload: Payload, name: Option<&dyn Name>, from: Origin) {
        // SAFETY: as above.
        unsafe { Self::state(from) }.panicked(payload, Who { name, place: from.place, body: false });
    }
}

impl<T, E: CancelAware> Outcome<Result<T, E>> for ToNursery<E> {
    type Value = T;

    fn finished(&self, output: Result<T, E>, from: Origin) -> Option<T> {
        self.finish(output, None, from)
    }

    fn panicked(&self, payload: Payload, from: Origin) {
        self.panic(payload, None, from);
    }

    fn cut(&self, from: Origin) {
        // SAFETY: as above.
        unsafe { Self::state(from) }.cut.set(true);
    }
}

/// What has a name, or can say one.
pub(crate) trait Name: Sync {
    fn name(&self) -> Arc<str>;
}

impl Name for Arc<str> {
    fn name(&self) -> Arc<str> {
        self.clone()
    }
}

/// The same for a child with a name.
pub(super) struct NamedToNursery<E, N> {
    pub(super) to: ToNursery<E>,
    pub(super) name: N,
}

impl<T, E: CancelAware, N: Name> Outcome<Result<T, E>> for NamedToNursery<E, N> {
    type Value = T;

    fn finished(&self, output: Result<T, E>, from: Origin) -> Option<T> {
        self.to.finish(output, Some(&self.name), from)
    }

    fn panicked(&self, payload: Payload, from: Origin) {
        self.to.panic(payload, Some(&self.name), from);
    }

    fn cut(&self, from: Origin) {
        Outcome::<Result<T, E>>::cut(&self.to, from);
    }

    unsafe fn name(this: *const Self) -> Option<Arc<str>> {
        // SAFETY: it is there: the caller's word. The name is never changed, and it is `Sync`.
        Some(unsafe { &(*this).name }.name())
    }
}
