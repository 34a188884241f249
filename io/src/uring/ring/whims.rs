//! A kernel with whims, for tests: what it may do at any time, it does now and then, on one thread.

use super::Ring;
use rustix::io::Errno;
use std::cell::Cell;

thread_local! {
    static WHIMS: Cell<Option<Whims>> = const { Cell::new(None) };
}

#[derive(Clone, Copy)]
struct Whims {
    state: u64,
    cancels: bool,
}

/// The kernel has whims on this thread until this is dropped.
pub struct Whimsical;

impl Whimsical {
    /// The same ones for the same seed and the same calls. `cancels`: operations end for no reason, too.
    pub fn new(seed: u64, cancels: bool) -> Self {
        WHIMS.set(Some(Whims { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, cancels }));
        Self
    }
}

impl Drop for Whimsical {
    fn drop(&mut self) {
        WHIMS.set(None);
    }
}

/// A number below `n`: xorshift.
fn below(n: u64) -> Option<(u64, bool)> {
    let mut whims = WHIMS.get()?;
    whims.state ^= whims.state << 13;
    whims.state ^= whims.state >> 7;
    whims.state ^= whims.state << 17;
    WHIMS.set(Some(whims));
    Some(((whims.state >> 11) % n, whims.cancels))
}

/// Whether an entry finds no room.
pub fn is_full() -> bool {
    matches!(below(6), Some((0, _)))
}

/// How many entries the kernel takes of so many, and for how many completions it waits.
pub fn of_call(ring: &Ring, to_submit: u32, min_complete: u32) -> Result<(u32, u32), Errno> {
    match below(12) {
        // A signal, or the time is over.
        Some((0, _)) if to_submit == 0 && min_complete > 0 => return Err(Errno::INTR),
        Some((1, _)) if to_submit == 0 && min_complete > 0 => return Err(Errno::TIME),
        // No memory for an entry; or completions are to be popped first.
        Some((0, _)) if to_submit > 0 => return Err(Errno::AGAIN),
        Some((1, _)) if to_submit > 0 => return Err(Errno::BUSY),
        // Before 5.18 it stops behind an entry that fails, and does not wait.
        Some((2..=4, _)) if to_submit > 1 => return Ok((1, 0)),
        Some((5, true)) => ring.cancel_all().unwrap_or_default(),
        _ => {}
    }
    Ok((to_submit, min_complete))
}
