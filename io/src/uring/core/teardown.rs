//! The end of the run: everything is cancelled, and waited for.

use super::Core;
use super::operation::{BELL, Part, Under};
use super::stop::CANCEL_AGAIN_AFTER;
use crate::uring::outgoing::Cancelling;
use crate::uring::slots::Key;
use std::io;
use std::time::{Duration, Instant};

impl Core {
    /// The run is over: cancels everything, and waits until the kernel has let go of it, but not longer than `patience`. Whether it has.
    pub fn drain(&mut self, patience: Duration) -> io::Result<bool> {
        self.closing = true;
        let begin = Instant::now();
        let mut again_at = begin;
        // What is not yet submitted cannot be cancelled.
        self.out.enter(0, None)?;
        loop {
            self.dispatch()?;
            if self.under_way == 0 && !self.bell_armed {
                return Ok(true);
            }
            let Some(left) = patience.checked_sub(begin.elapsed()) else { return Ok(false) };
            // Again and again: a cancel passes over an operation that is being worked on.
            if Instant::now() >= again_at {
                again_at = Instant::now() + CANCEL_AGAIN_AFTER;
                if self.out.ring.cancel_all().is_err() {
                    // Before 6.0.
                    self.cancel_each()?;
                }
            }
            if self.under_way > 0 || self.bell_armed {
                self.out.enter(1, Some(left.min(CANCEL_AGAIN_AFTER)))?;
            }
        }
    }

    /// Cancels everything, one by one; what was cancelled before, too.
    pub(super) fn cancel_each(&mut self) -> io::Result<()> {
        let mut targets: Vec<Key> = self.errands.stop_all().collect();
        for (key, entry) in self.sources.iter_mut() {
            for part in Part::ALL {
                let under = entry.under(part);
                if let Under::Way(kind) | Under::Stopping(kind) = *under {
                    *under = Under::Stopping(kind);
                    targets.push(part.key(key));
                }
            }
        }
        for target in targets {
            // Some may be over by now: those that were never submitted.
            if self.is_stopping(target) {
                self.cancel(target)?;
            }
        }
        if self.bell_armed && self.out.cancel(BELL)? == Cancelling::TakenBack {
            self.bell_armed = false;
        }
        Ok(())
    }

    /// All sources lose their home. After [`drain`](Self::drain).
    pub fn orphan_all(&mut self) {
        self.closing = true;
        for (key, entry) in self.sources.drain() {
            let ended = entry.source.orphan(|registration| self.home.is_home(registration, key), &mut self.wake);
            self.home.seat.waits_ended(ended);
            self.gone.push(entry.source);
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // [GROUP]: the ring goes with it, so that the kernel will let go some time; until then it may write.
        if self.under_way != 0 {
            if let Some(buffers) = self.buffers.take() {
                buffers.leak();
            }
            if let Some(peer) = self.peer.take() {
                peer.leak();
            }
        }
        self.errands.leak();
    }
}
