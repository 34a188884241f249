//! Operations begin.

use super::Core;
use super::operation::{Kind, Under, bits};
use crate::fs::errand::Errand;
use crate::source::Direction;
use crate::uring::slots::Key;
use crate::uring::sys::Sqe;
use rustix::event::PollFlags;
use std::io;

impl Core {
    /// Begins an operation.
    pub fn arm(&mut self, key: Key, kind: Kind) -> io::Result<()> {
        let Some(entry) = self.sources.get_mut(key) else { return Ok(()) };
        // When all is over, who waits is told by `orphan`.
        if self.closing || entry.detached || *entry.under(kind.part()) != Under::Idle {
            return Ok(());
        }
        let fd = entry.source.fd();
        let operation = kind.part().key(key);
        let (kind, sqe) = match (kind, &self.buffers) {
            // Who waits has just been told that there is nothing, so trying at once would be in vain.
            (Kind::Receive, Some(buffers)) => {
                // SAFETY: [GROUP].
                (kind, unsafe { Sqe::recv_multishot(fd, buffers.group(), operation) }.poll_first())
            }
            (Kind::Accept, _) => match &self.peer {
                // SAFETY: [PLACE].
                Some(peer) => (kind, unsafe { peer.accept_multishot(fd, operation) }),
                None => (kind, Sqe::accept_multishot(fd, operation)),
            },
            (Kind::Poll(Direction::Write), _) if entry.errs => {
                (kind, self.home.edges(fd, bits(PollFlags::OUT), operation))
            }
            (Kind::Poll(Direction::Write), _) => (kind, Sqe::poll_add(fd, bits(PollFlags::OUT), operation)),
            // An error and the end of both directions are reported without being asked for.
            (Kind::End, _) => (kind, Sqe::poll_add(fd, bits(PollFlags::RDHUP), operation)),
            (Kind::Poll(Direction::Read) | Kind::Receive, _) => {
                // Urgent data is an edge, but not something that a read takes away.
                let events = PollFlags::IN | PollFlags::RDHUP | PollFlags::PRI;
                (Kind::Poll(Direction::Read), self.home.edges(fd, bits(events), operation))
            }
        };
        *entry.under(kind.part()) = Under::Way(kind);
        self.under_way += 1;
        self.out.submit(sqe)
    }

    /// Begins an errand, if the ring can do it; otherwise it comes back. What keeps the ring from being entered is reported by the loop.
    pub fn begin_errand(&mut self, errand: Box<dyn Errand>) -> Result<Key, Box<dyn Errand>> {
        if self.closing {
            return Err(errand);
        }
        let (key, entry) = self.errands.begin(errand, |entry| self.out.ring.supports(entry.opcode()))?;
        self.under_way += 1;
        let _ = self.out.submit(entry);
        Ok(key)
    }
}
