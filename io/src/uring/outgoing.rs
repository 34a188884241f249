//! What goes to the kernel: [`Ring`], and what did not fit into it.
//!
//! Nothing is refused here. An entry that finds the queue full makes the kernel take what is in it; one that finds it full even then
//! (the kernel is short of memory, or wants completions popped first) is kept, in order. Cancels go first, since what they end frees memory;
//! that is safe because [`Outgoing::cancel`] takes back an entry that was kept instead of cancelling it.

use super::ring::{Entered, Ring};
use super::slots::Key;
use super::sys::Sqe;
use std::collections::VecDeque;
use std::io;
use std::time::Duration;

/// The key of cancels: nobody asks what became of one. What it cancels says so itself.
pub const CANCEL: Key = 3 << super::slots::INDEX_BITS;

/// What became of a cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "an operation that was never submitted will not complete"]
pub enum Cancelling {
    /// The operation will complete, in one way or the other.
    Sent,
    /// The operation was never submitted. It will not complete.
    TakenBack,
}

/// See the module.
#[derive(Debug)]
pub struct Outgoing {
    pub ring: Ring,
    cancels: VecDeque<Sqe>,
    entries: VecDeque<Sqe>,
}

impl Outgoing {
    pub fn new(ring: Ring) -> Self {
        Self { ring, cancels: VecDeque::new(), entries: VecDeque::new() }
    }

    /// Sends an entry with the next [`enter`](Self::enter), or before.
    ///
    /// # Errors
    /// Those of [`Ring::enter`].
    pub fn submit(&mut self, entry: Sqe) -> io::Result<()> {
        if self.entries.is_empty() && self.ring.push(entry).is_ok() {
            return Ok(());
        }
        self.entries.push_back(entry);
        self.enter(0, None)
    }

    /// Cancels an operation that was submitted.
    ///
    /// # Errors
    /// Those of [`Ring::enter`]. The cancel is queued all the same.
    pub fn cancel(&mut self, target: Key) -> io::Result<Cancelling> {
        if let Some(at) = self.entries.iter().position(|entry| entry.key() == target) {
            self.entries.remove(at);
            return Ok(Cancelling::TakenBack);
        }
        let cancel = Sqe::cancel(target, CANCEL);
        let cancel = if self.ring.skips_success() { cancel.skip_success() } else { cancel };
        if self.cancels.is_empty() && self.ring.push(cancel).is_ok() {
            return Ok(Cancelling::Sent);
        }
        self.cancels.push_back(cancel);
        self.enter(0, None).map(|()| Cancelling::Sent)
    }

    /// Whether [`enter`](Self::enter) without a wait would do something.
    pub fn needs_enter(&self) -> bool {
        self.ring.needs_enter() || self.keeps_some()
    }

    fn keeps_some(&self) -> bool {
        !self.cancels.is_empty() || !self.entries.is_empty()
    }

    /// Submits everything, and waits with the last system call.
    ///
    /// # Errors
    /// Those of [`Ring::enter`].
    pub fn enter(&mut self, min_complete: u32, timeout: Option<Duration>) -> io::Result<()> {
        loop {
            for kept in [&mut self.cancels, &mut self.entries] {
                while let Some(&entry) = kept.front()
                    && self.ring.push(entry).is_ok()
                {
                    kept.pop_front();
                }
            }
            let more = self.keeps_some();
            let wait = if more { 0 } else { min_complete };
            match self.ring.enter(wait, timeout)? {
                Entered::All if more => {}
                // What is left goes out when some completions were popped.
                Entered::All | Entered::Backlog => return Ok(()),
            }
        }
    }
}
