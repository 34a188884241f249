//! What a completion says: to its source, or to its errand.

use super::Core;
use super::operation::{Accepted, Kind, Part, Under};
use crate::inbound::End;
use crate::readiness::{INBOUND, READ, SHORT_READ_LIES};
use crate::source::{Direction, State};
use crate::uring::errands::ERRAND;
use crate::uring::peer::PeerPlace;
use crate::uring::sys::Cqe;
use rustix::event::PollFlags;
use rustix::io::Errno;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// How many bytes may be queued for a source before no more are received ahead.
const MOST_BYTES: usize = 64 << 10;

/// How many connections may. What connects within one turn of the loop is accepted in one go, and may be more.
const MOST_CONNECTIONS: usize = 32;

impl Core {
    /// A completion that carries a buffer: what a receive has brought, as nearly all do. In a function of its own, with little else to keep in mind.
    #[inline(always)]
    pub(super) fn arrived(&mut self, cqe: &Cqe, id: u16) -> io::Result<()> {
        let (key, part) = Part::split(cqe.key());
        debug_assert_eq!(part, Part::Read, "a buffer for who receives nothing: {cqe:?}");
        let Some(buffers) = &mut self.buffers else { unreachable!("a buffer of no group: {cqe:?}") };
        // SAFETY: just popped, and there is one group.
        let lent = unsafe { buffers.claim(id, cqe.result().unwrap_or(0)) };
        let (mut enough, mut end_unseen) = (false, false);
        if let Some(entry) = self.sources.get_mut(key) {
            assert!(*entry.under(Part::Read) != Under::Idle, "a completion of what was not begun: {cqe:?}");
            if !cqe.more() {
                *entry.under(Part::Read) = Under::Idle;
                self.under_way -= 1;
            }
            let bytes = buffers.bytes(&lent);
            // What ends the receive, or is stopped, lets who waits ask the kernel.
            let goes_on = *entry.under(Part::Read) == Under::Way(Kind::Receive);
            end_unseen = goes_on && !bytes.is_empty() && *entry.under(Part::End) == Under::Idle;
            let flags = if bytes.is_empty() { READ } else { READ | INBOUND };
            let full = bytes.len() == buffers.size() as usize;
            let mut state = entry.source.readiness.lock_and_set(flags);
            enough = received(&mut state, cqe, bytes, full);
            let ended = entry.source.complete(&mut state, flags, &mut self.wake);
            drop(state);
            self.home.seat.count(ended.wrapping_neg(), true);
        } else {
            debug_assert!(false, "[KEPT]: a completion for nobody: {cqe:?}");
        }
        buffers.recycle(lent);
        if enough {
            self.stop(key, Part::Read)?;
        } else if end_unseen {
            self.arm(key, Kind::End)?;
        }
        if !cqe.more() {
            self.retire(key);
        }
        Ok(())
    }

    /// One completion of one operation of a source, or of an errand, that carries no buffer.
    #[inline(never)]
    pub(super) fn complete(&mut self, cqe: &Cqe) -> io::Result<()> {
        if cqe.key() & ERRAND != 0 {
            self.under_way -= 1;
            self.errands.over(cqe);
            return Ok(());
        }
        let (key, part) = Part::split(cqe.key());
        let mut enough = false;
        if let Some(entry) = self.sources.get_mut(key) {
            let (Under::Way(kind) | Under::Stopping(kind)) = *entry.under(part) else {
                unreachable!("a completion of what was not begun: {cqe:?}")
            };
            if !cqe.more() {
                *entry.under(part) = Under::Idle;
                self.under_way -= 1;
            }
            let ended = match kind {
                Kind::End => {
                    if cqe.result().is_ok() {
                        // It need not be the end: an error that passes is reported in the same way, and one that stays (a queue of them that nobody
                        // reads) would be again and again. Who waits from now on is told of edges.
                        entry.source.lock().inbound.set_polled();
                    }
                    enough = *entry.under(Part::Read) == Under::Way(Kind::Receive);
                    0
                }
                Kind::Poll(direction) => {
                    entry.errs |= direction == Direction::Write && events(cqe) == PollFlags::ERR;
                    let report = |state: &mut State| {
                        if !cqe.more() {
                            state.disarm(direction);
                        }
                    };
                    entry.source.report(readiness(direction, cqe), report, &mut self.wake)
                }
                Kind::Receive => {
                    let report = |state: &mut State| enough = received(state, cqe, &[], false);
                    entry.source.report(READ, report, &mut self.wake)
                }
                Kind::Accept => {
                    self.accepted = match (self.accepted, cqe.result()) {
                        (Accepted::None, Ok(_)) if cqe.more() => Accepted::One(key, cqe.res()),
                        _ => Accepted::Unclear,
                    };
                    let report = |state: &mut State| enough = accepted(state, cqe);
                    entry.source.report(READ | INBOUND, report, &mut self.wake)
                }
            };
            self.home.seat.count(ended.wrapping_neg(), true);
            self.starved |= cqe.result() == Err(Errno::NOMEM);
        } else {
            debug_assert!(false, "[KEPT]: a completion for nobody: {cqe:?}");
        }
        if enough {
            self.stop(key, Part::Read)?;
        }
        if !cqe.more() {
            self.retire(key);
        }
        Ok(())
    }
}

impl Core {
    /// All completions are popped: if one connection was accepted, it is the one whose peer was written down.
    pub(super) fn say_who_connected(&mut self) {
        let accepted = std::mem::replace(&mut self.accepted, Accepted::None);
        let Some(peer) = self.peer.as_mut().and_then(PeerPlace::take) else { return };
        // What did not fit into the queue may have written it.
        if let Accepted::One(key, fd) = accepted
            && !self.out.ring.overflows()
            && let Some(entry) = self.sources.get_mut(key)
        {
            entry.source.lock().inbound.is_from(fd, peer);
        }
    }
}

/// What a poll has found.
fn events(cqe: &Cqe) -> PollFlags {
    PollFlags::from_bits_retain(cqe.result().unwrap_or(0) as _)
}

/// The same as flags of a [`Readiness`](crate::readiness::Readiness).
fn readiness(direction: Direction, cqe: &Cqe) -> u32 {
    let events = events(cqe);
    // As on epoll: no edge will tell of these again.
    let behind = PollFlags::RDHUP | PollFlags::PRI | PollFlags::HUP | PollFlags::ERR;
    match direction {
        Direction::Read if events.intersects(behind) => READ | SHORT_READ_LIES,
        _ => direction.flag(),
    }
}

/// Queues what a receive has brought, into a buffer that is now full or not. Whether that is enough.
#[inline(always)]
fn received(state: &mut State, cqe: &Cqe, bytes: &[u8], full: bool) -> bool {
    let inbound = &mut state.inbound;
    match cqe.result() {
        Ok(0) => inbound.ended(End::Eof),
        Ok(_) => inbound.received(bytes),
        // No buffer, no memory, a cancel, or not known here: who waits asks the kernel itself.
        Err(Errno::NOBUFS | Errno::NOMEM | Errno::CANCELED | Errno::AGAIN | Errno::INTR) => {}
        Err(Errno::INVAL | Errno::OPNOTSUPP) => inbound.set_polled(),
        Err(error) => inbound.ended(End::Failed(error)),
    }
    if full {
        inbound.set_polled();
    }
    let enough = full || inbound.len() > MOST_BYTES;
    if !cqe.more() {
        state.disarm(Direction::Read);
    }
    enough
}

/// Queues a connection. Whether that is one too many.
fn accepted(state: &mut State, cqe: &Cqe) -> bool {
    let inbound = &mut state.inbound;
    if cqe.result().is_ok() {
        // SAFETY: the completion owns it, and was just popped.
        inbound.connected(unsafe { OwnedFd::from_raw_fd(cqe.res()) });
    }
    if matches!(cqe.result(), Err(Errno::INVAL | Errno::OPNOTSUPP)) {
        inbound.set_polled();
    }
    // Errors are not kept: who waits asks the kernel itself, and hears it from there if it is still true (out of descriptors), or that
    // another connection is there (R113).
    let too_many = inbound.len() >= MOST_CONNECTIONS;
    if !cqe.more() {
        state.disarm(Direction::Read);
    }
    too_many
}
