//! The memory of children and scopes that have ended, for those that come: a list for each size, in the hands of the loop.
//!
//! To ask the allocator for each child, and to give it back, is half of what a child costs that does nothing. A loop keeps [`KEPT`] bytes at most,
//! gives what is over [`STAYS`] back before it sleeps, in parts, and the rest with the end of its run; but seldom before a [`NAP`]. A block is one of the allocator's, always, of a layout that its size alone decides. So it does not matter
//! which loop takes it, or none: what ends outside of a run, or where the lists are full, or is large, or asks for more than the usual
//! alignment, goes back to the allocator.
//!
//! Invariants, which the `SAFETY` comments name:
//! - **\[BLOCK\]** A block of a list was made by the allocator with the layout of that list, nobody else uses it, and its first word is the next one.
//! - The lists are touched by the thread of the loop alone: they are in the worker, which is not `Sync`.

use crate::context;
use std::alloc::{self, Layout, LayoutError};
use std::cell::Cell;
use std::fmt;
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::time::Duration;

/// How many bytes a loop keeps while it is busy: of a hundred thousand small children. Under Miri none, so that it sees a use of what is freed.
const KEPT: usize = if cfg!(miri) { 0 } else { 16 << 20 };

/// How many it keeps that has time to give back what is over: of some thousand.
const STAYS: usize = 256 << 10;

/// How many blocks are given back before a sleep, at most: what comes meanwhile waits for that.
const AT_ONCE: usize = 256;

/// A sleep that is to be shorter than this. To give back memory in the 80 µs between two lots of timers was a fifth of what 100,000 of them took.
const NAP: Duration = Duration::from_millis(1);

/// Before one of so many naps some is given back all the same: a loop that does nothing else, such as one with a ticker, has nothing left after a while.
const NAPS: u8 = 128;

/// The sizes are 8 and 16 times the number of the list: with its own word before it, that is what glibc's allocator rounds to.
const LISTS: usize = 64;
const STEP: usize = 16;
const ALIGN: usize = 16;

/// How a block for a `T` is made: its layout, and its list if it has one.
struct Kind(Layout, Option<usize>);

const fn kind<T>() -> Kind {
    let layout = Layout::new::<T>();
    let list = (layout.size() + STEP - 9) / STEP;
    if layout.align() > ALIGN || layout.size() <= 8 || list >= LISTS {
        return Kind(layout, None);
    }
    match layout_of(list) {
        Ok(layout) => Kind(layout, Some(list)),
        Err(_) => unreachable!(),
    }
}

const fn layout_of(list: usize) -> Result<Layout, LayoutError> {
    Layout::from_size_align(list * STEP + 8, ALIGN)
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Blocks {
    lists: [Cell<*mut u8>; LISTS],
    /// How many bytes may be kept beside those that are.
    room: Cell<usize>,
    /// How many may be kept in all.
    most: usize,
    /// How many naps there were since some were given back.
    naps: Cell<u8>,
}

impl Blocks {
    /// Empty ones.
    pub fn new() -> Self {
        Self::with_room(KEPT)
    }

    fn with_room(room: usize) -> Self {
        Self {
            lists: [const { Cell::new(ptr::null_mut()) }; LISTS],
            room: Cell::new(room),
            most: room,
            naps: Cell::new(0),
        }
    }

    /// To be called when the loop is about to sleep, until then at the latest: gives some of them back, if there are many.
    #[inline]
    pub fn rest(&self, timeout: Option<Duration>) {
        if self.bytes() > STAYS {
            self.give_back_unless_it_naps(timeout);
        }
    }

    #[cold]
    fn give_back_unless_it_naps(&self, timeout: Option<Duration>) {
        let naps = if timeout.is_some_and(|timeout| timeout < NAP) { self.naps.get() + 1 } else { NAPS };
        self.naps.set(naps % NAPS);
        if naps == NAPS {
            self.give_back();
        }
    }

    fn bytes(&self) -> usize {
        self.most - self.room.get()
    }

    fn give_back(&self) {
        let mut left = AT_ONCE;
        for list in (0..LISTS).rev() {
            let Ok(layout) = layout_of(list) else { continue };
            while left > 0 && self.bytes() > STAYS {
                let Some(block) = self.take(list, layout) else { break };
                // SAFETY: [BLOCK].
                unsafe { alloc::dealloc(block.as_ptr(), layout) };
                left -= 1;
            }
        }
    }

    #[inline(always)]
    fn take(&self, list: usize, layout: Layout) -> Option<NonNull<u8>> {
        let block = NonNull::new(self.lists[list].get())?;
        // SAFETY: [BLOCK].
        self.lists[list].set(unsafe { block.cast::<*mut u8>().read() });
        self.room.set(self.room.get() + layout.size());
        Some(block)
    }

    /// Whether it is kept.
    ///
    /// # Safety
    /// The block is of this layout, which is that of the list, and nobody else uses it.
    #[inline(always)]
    unsafe fn keep(&self, list: usize, layout: Layout, block: NonNull<u8>) -> bool {
        let Some(room) = self.room.get().checked_sub(layout.size()) else { return false };
        self.room.set(room);
        // SAFETY: it is ours: the caller's word; and large enough, and aligned, for a pointer.
        unsafe { block.cast::<*mut u8>().write(self.lists[list].get()) };
        self.lists[list].set(block.as_ptr());
        true
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        for list in 0..LISTS {
            let Ok(layout) = layout_of(list) else { continue };
            while let Some(block) = self.take(list, layout) {
                // SAFETY: [BLOCK].
                unsafe { alloc::dealloc(block.as_ptr(), layout) };
            }
        }
    }
}

/// The blocks of the loop that this thread is inside of.
#[inline(always)]
fn here<'a>() -> Option<&'a Blocks> {
    // SAFETY: [CURRENT] of the context module, until the caller returns.
    unsafe { context::blocks().as_ref() }.or_else(around)
}

/// The same where the word does not say so: while somebody looks on, which does not matter for what is not a task; and while a run begins or ends.
#[cold]
fn around<'a>() -> Option<&'a Blocks> {
    // SAFETY: as above.
    unsafe { context::worker().as_ref() }.map(|worker| &worker.blocks)
}

/// Puts a value on the heap.
#[inline(always)]
pub(crate) fn put<T>(value: T) -> NonNull<T> {
    put_made(|| value)
}

/// The same for one that is made there, and is not copied: what makes it does not panic, or the memory is lost.
#[inline(always)]
fn put_made<T>(make: impl FnOnce() -> T) -> NonNull<T> {
    let Kind(layout, list) = const { kind::<T>() };
    let kept = list.and_then(|list| here()?.take(list, layout));
    // SAFETY: the layout has a size: that of a list, or of more than 8 bytes, or of a `T` that is checked here.
    let block = kept.unwrap_or_else(|| unsafe {
        const { assert!(size_of::<T>() > 0) };
        NonNull::new(alloc::alloc(layout)).unwrap_or_else(|| alloc::handle_alloc_error(layout))
    });
    let block = block.cast::<T>();
    // SAFETY: it is of a layout for a `T` at least, and ours.
    unsafe { block.write(make()) };
    block
}

/// Drops a value that was [put](put) on the heap, and its memory.
///
/// # Safety
/// It was put there as a `T`, and nobody else uses it.
#[inline(always)]
pub(crate) unsafe fn drop_put<T>(value: NonNull<T>) {
    // SAFETY: the caller's word.
    unsafe { drop_in(here(), value) }
}

/// The same for what others [look on](crate::look::onlook) at: false, and nothing was done, where the thread has no blocks in hand, since somebody may
/// look on. Whoever has them in hand need not ask for that.
///
/// # Safety
/// As of [`drop_put`].
#[inline(always)]
pub(crate) unsafe fn drop_put_unseen<T>(value: NonNull<T>) -> bool {
    // So that the compiler does not move the load before what was done to take it out of sight.
    #[cfg(not(trefoil_loom))]
    std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
    // SAFETY: [CURRENT] of the context module.
    match unsafe { context::blocks().as_ref() } {
        None => false,
        here => {
            // SAFETY: the caller's word.
            unsafe { drop_in(here, value) };
            true
        }
    }
}

/// Drops a value, and gives its memory to these blocks, if there are some that keep it.
#[inline(always)]
unsafe fn drop_in<T>(here: Option<&Blocks>, value: NonNull<T>) {
    struct Memory<'a, T>(NonNull<T>, Option<&'a Blocks>);
    impl<T> Drop for Memory<'_, T> {
        #[inline(always)]
        fn drop(&mut self) {
            let (Kind(layout, list), block) = (const { kind::<T>() }, self.0.cast::<u8>());
            // SAFETY: `put` has made it with this layout, or taken it from this list ([BLOCK]); the value is gone.
            unsafe {
                if !list.is_some_and(|list| self.1.is_some_and(|blocks| blocks.keep(list, layout, block))) {
                    alloc::dealloc(block.as_ptr(), layout);
                }
            }
        }
    }
    // Also where its destructor panics.
    let memory = Memory(value, here);
    // SAFETY: the caller's word.
    unsafe { memory.0.drop_in_place() };
}

/// A `Box` in such memory. It does not move what is in it, nor claims to be the only way to it.
pub struct Put<T>(NonNull<T>);

// SAFETY: it owns a `T`, as a `Box` does.
unsafe impl<T: Send> Send for Put<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Put<T> {}

impl<T> Put<T> {
    #[inline(always)]
    pub(crate) fn new(value: T) -> Self {
        Self(put(value))
    }

    /// One that is made in its place. What makes it does not panic.
    #[inline(always)]
    pub(crate) fn made(make: impl FnOnce() -> T) -> Self {
        Self(put_made(make))
    }
}

impl<T> Deref for Put<T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: it was put there, and is there until the end of this.
        unsafe { self.0.as_ref() }
    }
}

impl<T: fmt::Debug> fmt::Debug for Put<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T> Drop for Put<T> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: it was put there by `new`, and this was its owner.
        unsafe { drop_put(self.0) }
    }
}

#[cfg(all(test, not(trefoil_loom)))]
mod tests {
    use super::*;

    fn block(layout: Layout) -> NonNull<u8> {
        // SAFETY: the layout has a size.
        NonNull::new(unsafe { alloc::alloc(layout) }).unwrap()
    }

    #[test]
    fn a_block_is_of_the_size_that_the_allocator_has_anyway() {
        let of = |kind: Kind| (kind.0.size(), kind.1);
        assert_eq!(of(kind::<[u64; 2]>()), (24, Some(1)));
        assert_eq!(of(kind::<[u64; 3]>()), (24, Some(1)));
        assert_eq!(of(kind::<[u64; 14]>()), (120, Some(7)));
        assert_eq!(of(kind::<[u64; 15]>()), (120, Some(7)));
        assert_eq!(of(kind::<[u64; 16]>()), (136, Some(8)));
        assert_eq!(of(kind::<[u64; 127]>()), (1016, Some(63)));
        assert_eq!(of(kind::<[u64; 128]>()), (1024, None));
        assert_eq!(of(kind::<u64>()), (8, None));
        #[repr(align(32))]
        struct Wide(#[allow(dead_code)] u8);
        assert_eq!(of(kind::<Wide>()), (32, None));
    }

    #[test]
    fn what_is_kept_is_taken_again_and_is_no_more_than_the_room() {
        let Kind(layout, Some(list)) = kind::<[u64; 15]>() else { panic!("it has a list") };
        let blocks = Blocks::with_room(2 * layout.size());
        assert!(blocks.take(list, layout).is_none());
        let [a, b, c] = [block(layout), block(layout), block(layout)];
        // SAFETY: of this layout, and each is kept or freed here.
        unsafe {
            assert!(blocks.keep(list, layout, a) && blocks.keep(list, layout, b));
            assert!(!blocks.keep(list, layout, c), "there is no room");
            assert_eq!(blocks.take(list, layout), Some(b));
            assert!(blocks.keep(list, layout, c), "there is again");
            alloc::dealloc(b.as_ptr(), layout);
        }
        assert!(blocks.take(list - 1, layout).is_none(), "that is another size");
        assert_eq!(blocks.take(list, layout), Some(c));
        // SAFETY: as above.
        unsafe { alloc::dealloc(c.as_ptr(), layout) };
        // The end of the lists frees the last one: Miri looks.
    }

    #[test]
    fn a_loop_that_rests_gives_back_what_is_over_what_stays_in_parts() {
        let Kind(layout, Some(list)) = kind::<[u64; 127]>() else { panic!("it has a list") };
        let blocks = Blocks::with_room(STAYS + 400 * layout.size());
        while {
            let given = block(layout);
            // SAFETY: of this layout, and kept or freed here.
            let kept = unsafe { blocks.keep(list, layout, given) };
            if !kept {
                // SAFETY: as above.
                unsafe { alloc::dealloc(given.as_ptr(), layout) };
            }
            kept
        } {}
        let before = blocks.bytes();
        assert!(before > STAYS + 399 * layout.size());
        for nap in 1..NAPS {
            blocks.rest(Some(NAP - Duration::from_nanos(1)));
            assert_eq!(blocks.bytes(), before, "kept over nap {nap}");
        }
        blocks.rest(Some(Duration::ZERO));
        assert_eq!(before - blocks.bytes(), AT_ONCE * layout.size());
        blocks.rest(Some(Duration::ZERO));
        assert_eq!(before - blocks.bytes(), AT_ONCE * layout.size(), "it is counted anew");
        blocks.rest(Some(NAP));
        assert!(blocks.bytes() <= STAYS && blocks.bytes() + layout.size() > STAYS);
        let stays = blocks.bytes();
        blocks.rest(None);
        assert_eq!(blocks.bytes(), stays);
    }

    #[test]
    fn outside_of_a_run_the_memory_is_the_allocators() {
        struct Counts<'a>(&'a Cell<u32>, [u64; 4]);
        impl Drop for Counts<'_> {
            fn drop(&mut self) {
                self.0.set(self.0.get() + 1);
            }
        }
        let dropped = Cell::new(0);
        for _ in 0..3 {
            let put = put(Counts(&dropped, [1, 2, 3, 4]));
            // SAFETY: it was put there just now.
            unsafe {
                assert_eq!(put.as_ref().1, [1, 2, 3, 4]);
                drop_put(put);
            }
            assert_eq!(Put::new(Counts(&dropped, [5, 6, 7, 8])).1, [5, 6, 7, 8]);
        }
        assert_eq!(dropped.get(), 6);
    }
}
