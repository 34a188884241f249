//! Operations are cancelled, and what a cancel has passed over is cancelled again.

use super::Core;
use super::operation::{BELL, Part, Under};
use crate::uring::errands::ERRAND;
use crate::uring::outgoing::{CANCEL, Cancelling};
use crate::uring::slots::Key;
use crate::uring::sys::Cqe;
use rustix::io::Errno;
use std::io;
use std::time::{Duration, Instant};

/// Of what a cancel has passed over: it was being worked on.
pub(super) const CANCEL_AGAIN_AFTER: Duration = Duration::from_millis(10);

impl Core {
    /// Cancels an errand, if it is not over.
    pub fn stop_errand(&mut self, key: Key) -> io::Result<()> {
        if self.errands.stop(key) { self.cancel(key) } else { Ok(()) }
    }

    /// Cancels what is under way for a part of a source.
    pub fn stop(&mut self, key: Key, part: Part) -> io::Result<()> {
        let Some(entry) = self.sources.get_mut(key) else { return Ok(()) };
        let under = entry.under(part);
        let Under::Way(kind) = *under else { return Ok(()) };
        *under = Under::Stopping(kind);
        self.cancel(part.key(key))
    }

    pub(super) fn cancel(&mut self, target: Key) -> io::Result<()> {
        if self.out.cancel(target)? == Cancelling::TakenBack {
            self.complete(&Cqe::new(target, Errno::CANCELED.raw_os_error().wrapping_neg(), 0))?;
        }
        Ok(())
    }

    /// A cancel is over. If it failed, and what it was for goes on, another one is sent after a while.
    pub(super) fn cancelled(&mut self, cqe: &Cqe) {
        let target = cqe.key() & !CANCEL;
        if cqe.result().is_err() && target != BELL && self.is_stopping(target) {
            self.again.push(target);
            self.again_at = Instant::now() + CANCEL_AGAIN_AFTER;
        }
    }

    pub(super) fn is_stopping(&mut self, operation: Key) -> bool {
        if operation & ERRAND != 0 {
            return self.errands.is_stopping(operation);
        }
        let (key, part) = Part::split(operation);
        self.sources.get_mut(key).is_some_and(|entry| matches!(entry.under(part), Under::Stopping(_)))
    }

    /// A cancel that comes too late fails just before what it was for says that it is over: then there is nothing to try again, and to look out for.
    pub(super) fn forget_cancelled(&mut self) {
        if !self.again.is_empty() {
            let mut again = std::mem::take(&mut self.again);
            again.retain(|target| self.is_stopping(*target));
            self.again = again;
        }
    }

    pub(super) fn cancel_again(&mut self) -> io::Result<()> {
        if self.again.is_empty() || Instant::now() < self.again_at {
            return Ok(());
        }
        for target in std::mem::take(&mut self.again) {
            if self.is_stopping(target) {
                self.cancel(target)?;
            }
        }
        Ok(())
    }

    /// Cancels all of it.
    fn stop_all(&mut self, key: Key) -> io::Result<()> {
        Part::ALL.into_iter().try_for_each(|part| self.stop(key, part))
    }

    /// The source is no longer used. When this returns, nor is its descriptor, but in the rare case that the kernel needs longer to
    /// let go of it. Who reads what was received until then does so now.
    pub fn detach(&mut self, key: Key) -> io::Result<()> {
        let Some(entry) = self.sources.get_mut(key).filter(|entry| !entry.detached) else { return Ok(()) };
        entry.detached = true;
        self.leaving += 1;
        // An operation holds the open file: the peer would see the end of the connection only when it is over.
        self.quiesce(key)?;
        self.retire(key);
        Ok(())
    }

    /// Cancels all that is under way for a source, and sees it to its end if the kernel is quick.
    pub fn quiesce(&mut self, key: Key) -> io::Result<()> {
        self.stop_all(key)?;
        for _ in 0..3 {
            if self.sources.get_mut(key).is_none_or(|entry| entry.is_idle()) {
                break;
            }
            self.out.enter(0, None)?;
            self.dispatch()?;
        }
        Ok(())
    }
}
