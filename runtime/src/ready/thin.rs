//! A waker in one word: a [`Waker`] has two, of which the second is nearly always the same. A million sleeping children have a million of them: 180
//! bytes each instead of 196.

use super::task::Header;
use super::wake::{WAKER, is_ours, retain};
use crate::blocks;
use std::mem::ManuallyDrop;
use std::num::NonZero;
use std::ptr::{self, NonNull};
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
            return Self::boxed(waker.clone());
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

    /// As of [`Waker::will_wake`].
    #[inline(always)]
    pub fn will_wake(&self, waker: &Waker) -> bool {
        match self.as_boxed() {
            // SAFETY: it is there as long as this is.
            Some(boxed) => unsafe { boxed.as_ref() }.will_wake(waker),
            None => is_ours(waker) && ptr::eq(self.0.as_ptr(), waker.data()),
        }
    }

    /// In memory of the loop's: with malloc and free for each operation a round trip over a channel in `FuturesUnordered` took a third more (2,874
    /// instructions instead of 2,217).
    #[inline(never)]
    fn boxed(waker: Waker) -> Self {
        let boxed = blocks::put(ManuallyDrop::new(waker));
        Self(boxed.cast().map_addr(|at| at | BOXED))
    }

    #[inline(always)]
    fn as_boxed(&self) -> Option<NonNull<ManuallyDrop<Waker>>> {
        (self.0.addr().get() & BOXED != 0).then(|| {
            // Not 0 without the bit: it is that of a block.
            self.0.map_addr(|at| NonZero::new(at.get() & !BOXED).unwrap_or(at)).cast()
        })
    }

    /// # Safety
    /// It is not used again.
    #[inline(always)]
    unsafe fn take(&self) -> Waker {
        match self.as_boxed() {
            // SAFETY: the caller's word.
            Some(boxed) => unsafe { Self::unbox(boxed) },
            // SAFETY: the vtable is for headers; [REF]: ours, which is the waker's now.
            None => unsafe { Waker::from_raw(RawWaker::new(self.0.as_ptr(), &WAKER)) },
        }
    }

    #[inline(never)]
    unsafe fn unbox(boxed: NonNull<ManuallyDrop<Waker>>) -> Waker {
        // SAFETY: `boxed` has put it there, and it is not used again: the caller's word.
        unsafe {
            let waker = ManuallyDrop::take(&mut *boxed.as_ptr());
            blocks::drop_put(boxed);
            waker
        }
    }
}

impl From<Waker> for ThinWaker {
    /// Mostly of one that is not a task's.
    #[inline]
    fn from(waker: Waker) -> Self {
        if is_ours(&waker) { Self::another(&waker) } else { Self::boxed(waker) }
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
        assert!(woken.will_wake(&waker) && !woken.will_wake(Waker::noop()));
        assert!(!woken.will_wake(&Waker::from(Arc::new(Counts::default()))));
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
