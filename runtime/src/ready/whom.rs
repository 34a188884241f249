//! Whom a wait is for, and whom its end wakes, in one word: a task, and a waker of that. A task and a [`Waker`] would be three, of which two are nearly always
//! the same as the first. A million sleeping children have a million of them.

use super::task::Header;
use super::wake::{WAKER, is_of, retain};
use crate::blocks;
use crate::sync::{AtomicPtr, Ordering, UnsafeCell};
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};
use std::task::{RawWaker, Waker};

/// The address of the task's header, with the reference that its waker has; or that of a [`Between`]. To take the waker leaves the address
/// there, and says so in a bit. So the task can be read by others than who takes the waker, at the same time.
///
/// Invariants, which the `SAFETY` comments name:
/// - **\[TURNS\]** `begin`, `renew`, `take` and `clear` are called by one at a time, each of whom sees what the one before did; `begin` and
///   `clear`, and a `renew` for another task, while nobody reads.
/// - **\[READ\]** `task` is called by who reads; or by one of the above, as one of them.
///
/// So what is between is freed when nobody reads, and until then its task does not change.
pub(crate) struct Whom(AtomicPtr<()>);

/// What stands between a wait and its task: the waker of another executor, of a combinator, or of another task.
struct Between {
    /// It is there while the word does not say that it is [taken](TAKEN).
    waker: UnsafeCell<ManuallyDrop<Waker>>,
    task: UnsafeCell<*const Header>,
}

/// It is the address of a [`Between`].
const BETWEEN: usize = 1;
/// There is no waker: it was taken, or there was none.
const TAKEN: usize = 2;
const _: () = assert!(align_of::<Header>() > BETWEEN | TAKEN && align_of::<Between>() > BETWEEN | TAKEN);

// SAFETY: it is a `Waker`, and an address; [TURNS] and [READ] say who touches what is between.
unsafe impl Send for Whom {}
// SAFETY: as above.
unsafe impl Sync for Whom {}

impl Whom {
    /// Nobody.
    #[inline(always)]
    pub fn nobody() -> Self {
        Self(AtomicPtr::new(ptr::without_provenance_mut(TAKEN)))
    }

    /// From now on it is this task, which has this waker: one more is made of it. Of another waker than the task's own, it is `ahead`, or else a clone, which
    /// runs code of others. Whether it is the task's own.
    ///
    /// # Safety
    /// \[TURNS\].
    #[inline(always)]
    pub unsafe fn begin(&self, waker: &Waker, ahead: Option<Waker>, task: *const Header) -> bool {
        let (word, is_own) = match ahead {
            None if is_of(waker, task) => (Self::another(waker), true),
            None => (Self::between(waker.clone(), task), false),
            Some(waker) => (Self::between(waker, task), false),
        };
        let before = self.0.load(Ordering::Relaxed);
        self.0.store(word, Ordering::Release);
        if !is_empty(before) {
            // SAFETY: the word does not name it any more.
            unsafe { Self::drop_word(before) };
        }
        is_own
    }

    /// The task. It is there as long as somebody says so: the word is only its address.
    ///
    /// # Safety
    /// \[READ\].
    #[inline(always)]
    pub unsafe fn task(&self) -> *const Header {
        // Acquire: what is in what is between. All who store its address release that.
        let word = self.0.load(Ordering::Acquire);
        match between_of(word) {
            // SAFETY: the caller's word.
            Some(between) => unsafe { Self::task_behind(between) },
            None => word.map_addr(|at| at & !TAKEN).cast_const().cast(),
        }
    }

    #[cold]
    unsafe fn task_behind(between: NonNull<Between>) -> *const Header {
        // SAFETY: [TURNS]: while somebody reads it is not freed, and its task does not change.
        unsafe { between.as_ref().task.with(|task| *task) }
    }

    /// The waker, if there is one.
    ///
    /// # Safety
    /// \[TURNS\].
    #[inline(always)]
    pub unsafe fn take(&self) -> Option<Waker> {
        let word = self.0.load(Ordering::Relaxed);
        if word.addr() & TAKEN != 0 {
            return None;
        }
        // Release: who reads this store sees what is between, as we do.
        self.0.store(word.map_addr(|at| at | TAKEN), Ordering::Release);
        // SAFETY: it was not taken; now it is.
        Some(unsafe { Self::waker_of(word) })
    }

    /// Sees to it that there is this waker, and that the task is this one. The waker of before, if it is not the same; and whether this one is there
    /// now. It is not where it is another one than the task's own and `new` is nothing: that has to be a clone of it then, which is not made here since that
    /// runs code of others.
    ///
    /// # Safety
    /// \[TURNS\]. The task is the one of before, unless `moved` says that nobody reads.
    pub unsafe fn renew(
        &self,
        waker: &Waker,
        new: Option<Waker>,
        task: *const Header,
        moved: bool,
    ) -> (Option<Waker>, bool) {
        let word = self.0.load(Ordering::Relaxed);
        let is_taken = word.addr() & TAKEN != 0;
        if let Some(between) = between_of(word) {
            // SAFETY: [TURNS]: it is freed by one of us.
            let between = unsafe { between.as_ref() };
            if moved {
                // SAFETY: [TURNS], and nobody reads.
                between.task.with_mut(|at| unsafe { *at = task });
            }
            // SAFETY: [TURNS]: none of us touches it meanwhile; it is not taken.
            if !is_taken && between.waker.with(|at| unsafe { (*at).will_wake(waker) }) {
                return (None, true);
            }
            let Some(new) = new else { return (None, false) };
            // SAFETY: [TURNS].
            let old = unsafe { self.take() };
            // SAFETY: as above. What was there is taken: nothing is overwritten that is to be dropped.
            between.waker.with_mut(|at| unsafe { at.write(ManuallyDrop::new(new)) });
            self.0.store(word.map_addr(|at| at & !TAKEN), Ordering::Release);
            return (old, true);
        }
        let now = match new {
            _ if is_of(waker, task) => {
                if ptr::eq(word, waker.data()) {
                    return (None, true);
                }
                Self::another(waker)
            }
            Some(new) => Self::between(new, task),
            None => return (None, false),
        };
        // Release: what is between.
        self.0.store(now, Ordering::Release);
        // SAFETY: it is not taken, and the word does not name it any more.
        ((!is_taken).then(|| unsafe { Self::waker_of(word) }), true)
    }

    /// From now on it is nobody. Drops the waker, if there is one.
    ///
    /// # Safety
    /// \[TURNS\].
    #[inline(always)]
    pub unsafe fn clear(&self) {
        let word = self.0.load(Ordering::Relaxed);
        // An address that is left there is not asked for.
        if !is_empty(word) {
            self.0.store(ptr::without_provenance_mut(TAKEN), Ordering::Relaxed);
            // SAFETY: the word does not name it any more.
            unsafe { Self::drop_word(word) };
        }
    }

    /// Drops what a word stood for.
    ///
    /// # Safety
    /// \[TURNS\], of a `begin` or a `clear`. The word does not stand for it any more.
    #[inline(never)]
    unsafe fn drop_word(word: *mut ()) {
        // SAFETY: it is there, as that says; the caller's word.
        let waker = (word.addr() & TAKEN == 0).then(|| unsafe { Self::waker_of(word) });
        if let Some(between) = between_of(word) {
            // SAFETY: `between` has put it there. Nobody reads, and none of us has it: the caller's word.
            unsafe { blocks::drop_put(between) };
        }
        drop(waker);
    }

    /// The word for a task with one more of its wakers.
    #[inline(always)]
    fn another(waker: &Waker) -> *mut () {
        // SAFETY: [REF]: the waker's. The reference that is made here is that of the word.
        retain(unsafe { &*waker.data().cast() });
        waker.data().cast_mut()
    }

    /// The word for a task with another waker than its own.
    ///
    /// In memory of the loop's: with malloc and free for each operation a round trip over a channel in `FuturesUnordered` took a third more (2,874
    /// instructions instead of 2,217).
    #[inline(never)]
    fn between(waker: Waker, task: *const Header) -> *mut () {
        let between = Between { waker: UnsafeCell::new(ManuallyDrop::new(waker)), task: UnsafeCell::new(task) };
        blocks::put(between).as_ptr().cast::<()>().map_addr(|at| at | BETWEEN)
    }

    /// The waker that a word stands for.
    ///
    /// # Safety
    /// \[TURNS\]. It is there, and the word does not stand for it any more.
    #[inline(always)]
    unsafe fn waker_of(word: *mut ()) -> Waker {
        match between_of(word) {
            // SAFETY: the caller's word.
            Some(between) => unsafe { Self::waker_between(between) },
            // SAFETY: the vtable is for headers; [REF]: that of the word, which is the waker's now.
            None => unsafe { Waker::from_raw(RawWaker::new(word, &WAKER)) },
        }
    }

    #[inline(never)]
    unsafe fn waker_between(between: NonNull<Between>) -> Waker {
        // SAFETY: it is not freed before somebody clears it, and nobody else touches its waker, which is there and not used again: the caller's word.
        unsafe { between.as_ref() }.waker.with_mut(|waker| unsafe { ManuallyDrop::take(&mut *waker) })
    }
}

/// Whether there is nothing to be dropped.
#[inline(always)]
fn is_empty(word: *mut ()) -> bool {
    word.addr() & (TAKEN | BETWEEN) == TAKEN
}

#[inline(always)]
fn between_of(word: *mut ()) -> Option<NonNull<Between>> {
    if word.addr() & BETWEEN == 0 {
        return None;
    }
    NonNull::new(word.map_addr(|at| at & !(BETWEEN | TAKEN)).cast())
}

impl Drop for Whom {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: [TURNS], [READ]: nobody else has it.
        unsafe { self.clear() };
    }
}

#[cfg(all(test, not(trefoil_loom)))]
mod tests {
    use super::*;
    use crate::context;
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::{Poll, Wake};

    #[derive(Default)]
    struct Counts(AtomicUsize);

    impl Wake for Counts {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A waker of another executor, and who counts how many there are of it, with one more.
    fn another() -> (Waker, Arc<Counts>) {
        let counts = Arc::new(Counts::default());
        // A clone, as those of it are: that they wake the same is not said of the first one under Miri.
        #[allow(clippy::redundant_clone)]
        let waker = Waker::from(counts.clone()).clone();
        (waker, counts)
    }

    fn count(of: &Arc<Counts>) -> usize {
        Arc::strong_count(of) - 1
    }

    /// Calls this in a task, with its waker.
    fn in_a_task(f: impl Fn(&Waker, *const Header)) {
        crate::doc_run(poll_fn(|cx| {
            f(cx.waker(), context::task());
            Poll::Ready(())
        }));
    }

    #[test]
    fn it_is_one_word() {
        assert_eq!(size_of::<Whom>(), size_of::<usize>());
    }

    #[test]
    fn of_a_task_it_is_the_address_and_stays_so_when_the_waker_is_taken() {
        // SAFETY: one thread does it all.
        in_a_task(|waker, task| unsafe {
            assert!(is_of(waker, task));
            let whom = Whom::nobody();
            assert!(whom.task().is_null() && whom.take().is_none());
            whom.begin(waker, None, task);
            assert_eq!((whom.task(), between_of(whom.0.load(Ordering::Relaxed))), (task, None));
            assert!(matches!(whom.renew(waker, None, task, false), (None, true)));
            assert!(whom.take().is_some_and(|taken| taken.will_wake(waker)));
            assert!(whom.take().is_none());
            assert_eq!(whom.task(), task);
            assert!(matches!(whom.renew(waker, None, task, false), (None, true)));
            assert!(whom.take().is_some());
            whom.begin(waker, None, task);
        });
    }

    #[test]
    fn a_waker_of_another_executor_is_kept_beside_the_task_and_given_back() {
        let ((waker, counts), task) = (another(), ptr::without_provenance(64));
        let whom = Whom::nobody();
        // SAFETY: one thread does it all.
        unsafe {
            whom.begin(&waker, None, task);
            assert_eq!((count(&counts), whom.task()), (2, task));
            let taken = whom.take().unwrap();
            assert!(whom.take().is_none());
            assert_eq!((count(&counts), whom.task()), (2, task));
            std::thread::spawn(move || taken.wake()).join().unwrap();
            assert_eq!((counts.0.load(Ordering::Relaxed), count(&counts)), (1, 1));
            assert!(!whom.begin(Waker::noop(), Some(waker), task));
            assert_eq!(count(&counts), 1);
            whom.clear();
            assert_eq!((count(&counts), whom.task()), (0, ptr::null()));
        }
    }

    #[test]
    fn another_waker_takes_the_place_of_the_one_before() {
        let ((first, firsts), (second, seconds)) = (another(), another());
        let (task, other) = (ptr::without_provenance(64), ptr::without_provenance(128));
        let whom = Whom::nobody();
        // SAFETY: one thread does it all.
        unsafe {
            whom.begin(&first, None, task);
            assert!(matches!(whom.renew(&second, None, task, false), (None, false)));
            let (old, is_there) = whom.renew(&second, Some(second.clone()), task, false);
            assert!(is_there && old.is_some_and(|old| old.will_wake(&first)));
            assert!(matches!(whom.renew(&second, None, task, false), (None, true)));
            assert_eq!((count(&firsts), count(&seconds)), (1, 2));
            // It was taken, so it is not there, and there is none of before.
            drop(whom.take());
            assert!(matches!(whom.renew(&second, None, task, false), (None, false)));
            assert!(matches!(whom.renew(&second, Some(second.clone()), task, false), (None, true)));
            assert!(matches!(whom.renew(&second, None, other, true), (None, true)));
            assert_eq!(whom.task(), other);
        }
        drop(whom);
        assert_eq!((count(&firsts), count(&seconds)), (1, 1));
    }

    #[test]
    fn a_combinator_may_come_between_and_the_task_may_take_its_wait_back() {
        let (between, counts) = another();
        // SAFETY: one thread does it all.
        in_a_task(|waker, task| unsafe {
            let whom = Whom::nobody();
            whom.begin(waker, None, task);
            assert!(matches!(whom.renew(&between, None, task, false), (None, false)));
            let (old, is_there) = whom.renew(&between, Some(between.clone()), task, false);
            assert!(is_there && old.is_some_and(|old| is_of(&old, task)));
            assert_eq!((count(&counts), whom.task()), (2, task));
            assert!(matches!(whom.renew(waker, None, task, false), (None, false)));
            assert!(matches!(whom.renew(waker, Some(waker.clone()), task, false), (Some(_), true)));
            assert_eq!((count(&counts), whom.task()), (1, task));
            assert!(whom.take().is_some_and(|waker| is_of(&waker, task)));
        });
        assert_eq!(count(&counts), 1);
    }

    #[test]
    fn a_wait_may_be_moved_from_one_task_to_another() {
        // The waker of another task than that it names is kept beside that, too.
        // SAFETY: one thread does it all.
        in_a_task(|waker, task| unsafe {
            let (whom, before) = (Whom::nobody(), ptr::without_provenance(64));
            whom.begin(waker, None, before);
            assert_eq!(whom.task(), before);
            assert!(matches!(whom.renew(waker, None, task, true), (None, true)));
            assert_eq!(whom.task(), task);
            whom.begin(waker, None, task);
            assert!(matches!(whom.renew(waker, None, before, true), (None, false)));
            assert!(matches!(whom.renew(waker, Some(waker.clone()), before, true), (Some(_), true)));
            assert_eq!(whom.task(), before);
        });
    }
}
