//! The allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool as StdBool, Ordering};

/// Overwrites what is freed, keeps it back for a while, and then looks whether somebody wrote to it.
#[derive(Debug)]
pub struct Poison {
    lock: StdBool,
    kept: UnsafeCell<Kept>,
}

struct Kept {
    blocks: [(*mut u8, Layout); KEPT],
    next: usize,
}

const KEPT: usize = 1 << 14;
const LARGEST: usize = 1 << 10;
const POISON: u8 = 0xDB;

// SAFETY: `kept` is used under the lock.
unsafe impl Sync for Poison {}

impl Poison {
    const fn new() -> Self {
        let none = (std::ptr::null_mut(), Layout::new::<u8>());
        Self { lock: StdBool::new(false), kept: UnsafeCell::new(Kept { blocks: [none; KEPT], next: 0 }) }
    }
}

#[global_allocator]
static ALLOCATOR: Poison = Poison::new();

// SAFETY: blocks come from and go to the system's allocator, with their own layouts, once.
unsafe impl GlobalAlloc for Poison {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's word.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if layout.size() > LARGEST {
            // SAFETY: the caller's word.
            return unsafe { System.dealloc(block, layout) };
        }
        // SAFETY: the block is ours now, and that which comes out was kept since it was freed.
        unsafe {
            block.write_bytes(POISON, layout.size());
            while self.lock.swap(true, Ordering::Acquire) {
                std::hint::spin_loop();
            }
            let kept = &mut *self.kept.get();
            let (old, old_layout) = std::mem::replace(&mut kept.blocks[kept.next], (block, layout));
            kept.next = (kept.next + 1) % KEPT;
            self.lock.store(false, Ordering::Release);
            if !old.is_null() {
                if std::slice::from_raw_parts(old, old_layout.size()).iter().any(|&byte| byte != POISON) {
                    eprintln!("a block of {} bytes was written to after it was freed", old_layout.size());
                    std::process::abort();
                }
                System.dealloc(old, old_layout);
            }
        }
    }
}
