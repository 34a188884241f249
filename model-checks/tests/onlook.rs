//! How others look on while an owner changes its list (`runtime/src/look/onlook.rs`), with the light barrier as the real one that it is where the
//! kernel has no other: what somebody may look at is not freed.

use std::cell::Cell;
use std::ptr;

use trefoil_model_checks::model;
use trefoil_runtime::model::Onlookers;
use trefoil_runtime::sync::{AtomicPtr, Ordering, UnsafeCell};

struct Node {
    next: AtomicPtr<Node>,
    /// Written when it is made and when it is freed: loom finds a look at it that is not ordered with both.
    value: UnsafeCell<u32>,
}

impl Node {
    fn boxed(value: u32, next: *mut Node) -> *mut Node {
        Box::into_raw(Box::new(Self { next: AtomicPtr::new(next), value: UnsafeCell::new(value) }))
    }
}

struct Kept(*mut Node);

// SAFETY: a node is freed by one thread, whichever.
unsafe impl Send for Kept {}

fn free(Kept(node): Kept) {
    // SAFETY: nobody looks on any more: that is what is checked.
    unsafe {
        (*node).value.with_mut(|value| *value = 0);
        drop(Box::from_raw(node));
    }
}

fn retire(onlookers: &Onlookers<Kept>, node: *mut Node) {
    if !onlookers.any() {
        return free(Kept(node));
    }
    if let Some(node) = onlookers.retire(Kept(node)) {
        free(node);
    }
}

/// A walk over the list, while it is looked on: the sum.
fn walk(onlookers: &Onlookers<Kept>, first: &AtomicPtr<Node>) -> u32 {
    let looking = onlookers.look(|| {}, free);
    let (mut sum, mut node) = (0, first.load(Ordering::Acquire));
    while !node.is_null() {
        // SAFETY: that is what is checked.
        unsafe {
            sum += (*node).value.with(|value| *value);
            node = (*node).next.load(Ordering::Acquire);
        }
    }
    drop(looking);
    sum
}

/// The owner unlinks the first of two and frees it, then the second, while another thread walks. Seen: what the walk found.
#[test]
fn what_is_looked_at_is_not_freed() {
    model("onlook: unlink, free ‖ walk").bound(4).check([0, 2, 3], |order| {
        let onlookers = Onlookers::new();
        let second = Node::boxed(2, ptr::null_mut());
        let first = AtomicPtr::new(Node::boxed(1, second));
        let (_, sum) = order.race2(
            || {
                for _ in 0..2 {
                    let node = first.load(Ordering::Relaxed);
                    // SAFETY: the owner's.
                    first.store(unsafe { (*node).next.load(Ordering::Relaxed) }, Ordering::Release);
                    retire(&onlookers, node);
                }
            },
            || walk(&onlookers, &first),
        );
        sum
    });
}

/// Two walk at once: what is kept is freed once, by the last of them.
#[test]
fn the_last_who_looks_frees_what_was_kept() {
    model("onlook: unlink, free ‖ walk ‖ walk").three().bound(3).check([(0, 0), (0, 1), (1, 0), (1, 1)], |order| {
        let onlookers = Onlookers::new();
        let first = AtomicPtr::new(Node::boxed(1, ptr::null_mut()));
        let freed = Cell::new(false);
        let (_, one, other) = order.race3(
            || {
                let node = first.load(Ordering::Relaxed);
                first.store(ptr::null_mut(), Ordering::Release);
                retire(&onlookers, node);
            },
            || walk(&onlookers, &first),
            || walk(&onlookers, &first),
        );
        freed.set(true);
        (one, other)
    });
}
