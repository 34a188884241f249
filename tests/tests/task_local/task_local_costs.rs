//! What task-locals cost a child: nothing where they are those of its nursery.

use crate::NUMBER;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use trefoil_nursery::{Cancelled, Nursery, nursery};
use trefoil_tests::run_virtual;

struct Counting;

thread_local!(static ALLOCATED: Cell<(usize, usize)> = const { Cell::new((0, 0)) });

// SAFETY: the system's allocator, and a count of what it is asked for.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATED.try_with(|a| a.set((a.get().0 + 1, a.get().1 + layout.size())));
        // SAFETY: the caller's word.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's word.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a hundred spawns allocate: `(times, bytes)`.
fn spawns(n: Nursery<'_, '_, Cancelled>) -> (usize, usize) {
    // What the loop keeps of children that have ended is used up before.
    (0..200_000).for_each(|_| drop(n.spawn(async { Ok(()) })));
    let before = ALLOCATED.get();
    (0..100).for_each(|_| drop(n.spawn(async { Ok(()) })));
    let after = ALLOCATED.get();
    (after.0 - before.0, after.1 - before.1)
}

#[test]
fn a_child_whose_values_are_those_of_its_nursery_is_as_small_as_one_without_any() {
    run_virtual(async || {
        let without = nursery(async |n| Ok::<_, Cancelled>(spawns(n))).await.unwrap();
        let inside = NUMBER.scope(1, nursery(async |n| Ok::<_, Cancelled>(spawns(n)))).await.unwrap();
        assert_eq!(without.0, 100);
        assert_eq!(without, inside);
        // One more allocation each where they differ.
        let differ = nursery(async |n| Ok::<_, Cancelled>(NUMBER.scope(1, async { spawns(n) }).await)).await.unwrap();
        assert_eq!(differ.0, without.0 + 100);
    });
}
