//! A waker in one word: a [`Waker`] has two, of which the second is nearly always the same. A million sleeping children have a million of them.

use super::task::Header;
use super::wake::{WAKER, is_ours, retain};
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::task::{RawWaker, Waker};

/// Of a task's waker it is the address of the header, with the reference that the waker has; any other one is in a box, which the lowest bit says.
pub(crate) struct ThinWaker(NonNull<()>);

const BOXED: usize = 1;
const _: () = assert!(align_of::<Header>() > BOXED && align_of::<Waker>() > BOXED, "the lowest bit is free");

// SAFETY: it is a `Waker`.
unsafe impl Send for ThinWaker {}
// SAFETY: as above.
unsafe impl Sync for ThinWaker {}

impl ThinWaker {
    /// One more of this waker. Runs code of others if that is not a task's.
    #[inline(always)]
    pub fn another(waker: &Waker) -> Self {
        if !is_ours(waker) {
            return Self::boxed(waker);
        }
        // SAFETY: [REF]: the waker's. The reference that is made here is the new one's.
        unsafe {
            retain(&*waker.data().cast());
            Self(NonNull::new_unchecked(waker.data().cast_mut()))
        }
    }

    #[inline(always)]
    pub fn into_waker(self) -> Waker {
        // SAFETY: it is not used again.
        unsafe { ManuallyDrop::new(self).take() }
    }

    #[cold]
    #[inline(never)]
    fn boxed(waker: &Waker) -> Self {
        let boxed = NonNull::from(Box::leak(Box::new(waker.clone())));
        Self(boxed.cast().map_addr(|at| at | BOXED))
    }

    /// # Safety
    /// It is not used again.
    #[inline(always)]
    unsafe fn take(&self) -> Waker {
        let waker = self.0.as_ptr();
        if waker.addr() & BOXED != 0 {
            // SAFETY: the caller's word.
            return unsafe { self.unbox() };
        }
        // SAFETY: the vtable is for headers; [REF]: ours, which is the waker's now.
        unsafe { Waker::from_raw(RawWaker::new(waker, &WAKER)) }
    }

    #[cold]
    #[inline(never)]
    unsafe fn unbox(&self) -> Waker {
        // SAFETY: it was made by `boxed`; and the caller's word.
        unsafe { *Box::from_raw(self.0.as_ptr().map_addr(|at| at & !BOXED).cast::<Waker>()) }
    }
}

impl Drop for ThinWaker {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: nobody uses it after this.
        drop(unsafe { self.take() });
    }
}

#[cfg(all(test, not(trefoil_loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Counts(AtomicUsize);

    impl Wake for Counts {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn it_is_one_word_also_where_there_may_be_none() {
        assert_eq!(size_of::<Option<ThinWaker>>(), size_of::<usize>());
    }

    #[test]
    fn a_waker_of_another_executor_is_kept_and_woken_and_given_back() {
        let counts = Arc::new(Counts::default());
        let waker = Waker::from(counts.clone());
        let (woken, dropped, leaves) =
            (ThinWaker::another(&waker), ThinWaker::another(&waker), ThinWaker::another(&waker));
        drop(waker);
        assert_eq!(Arc::strong_count(&counts), 4);
        drop(dropped);
        assert_eq!(Arc::strong_count(&counts), 3);
        woken.into_waker().wake();
        assert_eq!((counts.0.load(Ordering::Relaxed), Arc::strong_count(&counts)), (1, 2));
        std::thread::spawn(move || leaves.into_waker().wake()).join().unwrap();
        assert_eq!((counts.0.load(Ordering::Relaxed), Arc::strong_count(&counts)), (2, 1));
    }
}
