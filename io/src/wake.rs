//! Wakers to be woken when all locks are released.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::task::Waker;
use trefoil_runtime::discard;

/// Wakes them all, the latest when it is dropped: one that panics does not keep the others from being woken.
#[derive(Debug, Default)]
pub(crate) struct WakeList(Vec<Waker>);

impl WakeList {
    #[inline]
    pub fn push(&mut self, waker: Waker) {
        self.0.push(waker);
    }

    /// Whether there is nobody to wake.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Leaves its memory there for the next time, unless there is some already, with those who are to be woken then.
    #[inline(always)]
    pub fn put_back(self, slot: &mut Self) {
        if slot.0.capacity() == 0 {
            // Nothing is lost by that: it has no memory, and so nobody in it. To drop it was 26 instructions of each look.
            std::mem::forget(std::mem::replace(slot, self));
        }
    }

    /// Wakes all that are here, and keeps the memory. Called without locks: a waker is user code.
    #[inline(always)]
    pub fn wake(&mut self) {
        // To take them from the end, which moves nothing and needs nothing to be put in order behind it.
        self.0.reverse();
        if let Err(payload) = self.wake_until_panic() {
            self.wake_rest(payload);
        }
    }

    /// Caught around as many as there are, and not around each.
    #[inline(always)]
    fn wake_until_panic(&mut self) -> std::thread::Result<()> {
        catch_unwind(AssertUnwindSafe(|| {
            while let Some(waker) = self.0.pop() {
                waker.wake();
            }
        }))
    }

    /// Wakes those behind one that has panicked.
    #[cold]
    #[inline(never)]
    fn wake_rest(&mut self, first: Box<dyn Any + Send>) {
        while let Err(payload) = self.wake_until_panic() {
            // Dropping it is code of others, which may panic once more.
            discard(payload);
        }
        if std::thread::panicking() { discard(first) } else { resume_unwind(first) }
    }
}

impl Drop for WakeList {
    fn drop(&mut self) {
        if !self.is_empty() {
            self.wake();
        }
    }
}

#[cfg(all(test, not(trefoil_loom)))]
mod tests {
    use super::*;
    use std::panic::panic_any;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                panic!("a payload that panics when it is dropped");
            }
        }
    }

    struct Waking(bool, AtomicU32);

    impl Wake for Waking {
        fn wake(self: Arc<Self>) {
            self.1.fetch_add(1, Ordering::Relaxed);
            if self.0 {
                panic_any(Bomb);
            }
        }
    }

    #[test]
    fn whatever_panics_everybody_is_woken() {
        let last = Arc::new(Waking(false, AtomicU32::new(0)));
        let mut list = WakeList::default();
        list.push(Arc::new(Waking(true, AtomicU32::new(0))).into());
        list.push(Arc::new(Waking(true, AtomicU32::new(0))).into());
        list.push(last.clone().into());
        let payload = catch_unwind(AssertUnwindSafe(|| list.wake())).unwrap_err();
        discard(payload);
        assert_eq!(last.1.load(Ordering::Relaxed), 1);
    }
}
