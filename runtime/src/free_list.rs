//! Memory of one task after another: a task that ends leaves its memory to the next one of its size on that thread.
//!
//! A child costs one allocation, and malloc and free were half of what it takes to spawn and end one: 217 of 450 instructions, 15 of 30 ns.
//! A list of free blocks for each size, of this thread alone, takes 20. It serves bursts, which is what nurseries do: at most [`MOST`] bytes
//! are kept for each thread, and what is more goes to the allocator. A block may come from one thread and go to the list of another, as with
//! the allocator itself.
//!
//! Not under Miri or loom: there each block is the allocator's, so that a use after its end is seen.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::{Cell, UnsafeCell};
use std::ptr::{self, NonNull};

/// How many bytes a thread keeps.
const MOST: usize = 1 << 20;

/// Sizes are rounded up to `STEP` times something and `REST`: what the system's allocator has room for in its blocks, so that nothing is lost.
const STEP: usize = 16;
const REST: usize = 8;

/// How many sizes there are: the largest has 1,000 bytes.
const SIZES: usize = 63;

const PASSED_OVER: bool = cfg!(any(miri, trefoil_loom));

/// Which list is for a layout; `None` for those that are not kept.
const fn list_for(layout: Layout) -> Option<usize> {
    let list = layout.size().saturating_sub(REST).div_ceil(STEP);
    if list < SIZES && layout.align() <= STEP { Some(list) } else { None }
}

/// What is asked of the allocator for one of a list.
const fn block(list: usize) -> Layout {
    match Layout::from_size_align(list * STEP + REST, STEP) {
        Ok(layout) => layout,
        Err(_) => unreachable!(),
    }
}

/// A block that nobody uses: its first word is the next one.
struct Free {
    next: *mut Free,
}

/// The lists of a thread.
struct Lists {
    /// \[FREE\] Each block in a list was allocated as [`block`] of it, and nobody else has a pointer to it.
    first: UnsafeCell<[*mut Free; SIZES]>,
    bytes: Cell<usize>,
}

impl Lists {
    const fn new() -> Self {
        Self { first: UnsafeCell::new([ptr::null_mut(); SIZES]), bytes: Cell::new(0) }
    }

    #[inline(always)]
    fn take(&self, list: usize) -> Option<NonNull<u8>> {
        // SAFETY: of this thread alone (`Lists` is not `Sync`), and nothing is called while it is borrowed. [FREE]: the block is there, and
        // its first word was written by `give`.
        unsafe {
            let first = &raw mut (*self.first.get())[list];
            let taken = NonNull::new(*first)?;
            *first = (*taken.as_ptr()).next;
            self.bytes.set(self.bytes.get() - block(list).size());
            Some(taken.cast())
        }
    }

    /// Whether it was kept.
    ///
    /// # Safety
    /// The block was allocated as [`block`] of the list, and nobody uses it any more.
    #[inline(always)]
    unsafe fn give(&self, list: usize, given: NonNull<u8>) -> bool {
        let bytes = self.bytes.get() + block(list).size();
        if bytes > MOST {
            return false;
        }
        self.bytes.set(bytes);
        let given: *mut Free = given.as_ptr().cast();
        // SAFETY: as in `take`. The caller's word: the block is ours, and has room for a word.
        unsafe {
            let first = &raw mut (*self.first.get())[list];
            given.write(Free { next: *first });
            *first = given;
        }
        true
    }
}

impl Drop for Lists {
    fn drop(&mut self) {
        for list in 0..SIZES {
            while let Some(free) = self.take(list) {
                // SAFETY: [FREE].
                unsafe { dealloc(free.as_ptr(), block(list)) };
            }
        }
    }
}

thread_local! {
    static LISTS: Lists = const { Lists::new() };
}

/// Memory for a `T`, as it is.
#[inline(always)]
pub(crate) fn allocate<T>() -> NonNull<T> {
    let layout = Layout::new::<T>();
    let taken = match const { list_for(Layout::new::<T>()) } {
        Some(list) if !PASSED_OVER => {
            // The lists are gone while the thread is being torn down.
            let kept = LISTS.try_with(|lists| lists.take(list)).ok().flatten();
            kept.unwrap_or_else(|| allocate_block(block(list)))
        }
        _ => allocate_block(layout),
    };
    taken.cast()
}

#[cold]
#[inline(never)]
fn allocate_block(layout: Layout) -> NonNull<u8> {
    assert!(layout.size() > 0, "a block of no size");
    // SAFETY: the size is not 0.
    let block = unsafe { alloc(layout) };
    NonNull::new(block).unwrap_or_else(|| handle_alloc_error(layout))
}

/// Gives back the memory of a `T`.
///
/// # Safety
/// It is from [`allocate`] for a `T`, what was in it is gone, and nobody uses it any more.
#[inline(always)]
pub(crate) unsafe fn release<T>(given: NonNull<T>) {
    let layout = Layout::new::<T>();
    let given = given.cast::<u8>();
    let layout = match const { list_for(Layout::new::<T>()) } {
        Some(list) if !PASSED_OVER => {
            // SAFETY: the caller's word: `allocate` has chosen the same list.
            if let Ok(true) = LISTS.try_with(|lists| unsafe { lists.give(list, given) }) {
                return;
            }
            block(list)
        }
        _ => layout,
    };
    // SAFETY: the caller's word: it was allocated with that layout.
    unsafe { release_block(given, layout) }
}

#[cold]
#[inline(never)]
unsafe fn release_block(given: NonNull<u8>, layout: Layout) {
    // SAFETY: the caller's word.
    unsafe { dealloc(given.as_ptr(), layout) }
}

#[cfg(all(test, not(trefoil_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_layout_fits_its_block() {
        for size in 1..2_000 {
            for align in [1, 2, 4, 8, 16, 32, 64] {
                let layout = Layout::from_size_align(size, align).unwrap();
                match list_for(layout) {
                    Some(list) => {
                        assert!(block(list).size() >= size && block(list).align() >= align);
                        // A `Free` has room, and a rounded size is no larger than the allocator's own rounding.
                        assert!(block(list).size() >= size_of::<Free>() && block(list).size() < size.max(REST) + STEP);
                    }
                    None => assert!(size > block(SIZES - 1).size() || align > STEP),
                }
            }
        }
    }

    #[test]
    fn the_last_given_is_taken_first_and_each_list_has_its_own() {
        let lists = Lists::new();
        let list = |bytes| list_for(Layout::from_size_align(bytes, 8).unwrap()).unwrap();
        let (one, two) = (allocate_block(block(list(120))), allocate_block(block(list(113))));
        let other = allocate_block(block(list(121)));
        // SAFETY: they were allocated for those lists, and nobody uses them.
        unsafe {
            assert!(lists.give(list(120), one) && lists.give(list(120), two) && lists.give(list(121), other));
        }
        assert_eq!(lists.bytes.get(), 120 + 120 + 136);
        assert_eq!(lists.take(list(120)), Some(two));
        assert_eq!(lists.take(list(121)), Some(other));
        assert_eq!(lists.take(list(121)), None);
        // SAFETY: as above.
        unsafe { assert!(lists.give(list(121), other) && lists.give(list(120), two)) };
        assert_eq!(lists.take(list(120)), Some(two));
        assert_eq!(lists.take(list(120)), Some(one));
        assert_eq!(lists.take(list(120)), None);
        assert_eq!(lists.bytes.get(), 136);
        // SAFETY: as above.
        unsafe {
            assert!(lists.give(list(120), one) && lists.give(list(120), two));
        }
        // The rest is freed with the lists: Miri and valgrind would tell.
    }

    #[test]
    fn a_thread_keeps_so_much_and_no_more() {
        let lists = Lists::new();
        let list = SIZES - 1;
        let size = block(list).size();
        let mut refused = 0;
        for _ in 0..MOST / size + 10 {
            let given = allocate_block(block(list));
            // SAFETY: it was allocated for that list, and nobody uses it.
            if !unsafe { lists.give(list, given) } {
                refused += 1;
                // SAFETY: as above, and it was not kept.
                unsafe { release_block(given, block(list)) };
            }
        }
        assert_eq!(refused, 10);
        assert_eq!(lists.bytes.get(), MOST / size * size);
    }

    #[test]
    fn what_is_large_or_aligned_to_more_is_not_kept() {
        #[repr(align(64))]
        struct Aligned([u8; 64]);
        let aligned = allocate::<Aligned>();
        assert!(aligned.as_ptr().is_aligned());
        let large = allocate::<[u8; 5_000]>();
        // SAFETY: they are from `allocate`, and nobody uses them.
        unsafe {
            aligned.as_ptr().write(Aligned([1; 64]));
            assert_eq!((*aligned.as_ptr()).0[63], 1);
            large.as_ptr().write([1; 5_000]);
            release(aligned);
            release(large);
        }
    }

    #[test]
    fn a_block_may_end_on_another_thread_and_while_a_thread_is_torn_down() {
        struct Late(Cell<Option<NonNull<[u64; 20]>>>);
        impl Drop for Late {
            fn drop(&mut self) {
                // The lists of this thread may be gone by now, or not.
                let block = self.0.take().unwrap();
                // SAFETY: it is from `allocate`, and nobody uses it.
                unsafe { release(block) };
                let another = allocate::<[u64; 20]>();
                // SAFETY: as above.
                unsafe { release(another) };
            }
        }
        thread_local! {
            static LATE: Late = const { Late(Cell::new(None)) };
        }
        let address = allocate::<[u64; 20]>().as_ptr().expose_provenance();
        std::thread::spawn(move || {
            let block = NonNull::new(ptr::with_exposed_provenance_mut(address)).unwrap();
            LATE.with(|late| late.0.set(Some(block)));
            let mine = allocate::<[u64; 20]>();
            // SAFETY: it is from `allocate`, and nobody uses it.
            unsafe { release(mine) };
        })
        .join()
        .unwrap();
    }
}
