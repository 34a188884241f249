//! [`Shared`]: what the driver and the owner of a source share, and the driver's side of a wait. See the module above for the invariants.

use super::{Direction, Registration, State};
#[cfg(any(test, trefoil_loom))]
use crate::inbound::Inbound;
#[cfg(any(test, trefoil_loom))]
use crate::readiness::INBOUND;
use crate::readiness::{self, Drained, READ, Readiness, WRITE};
use crate::wake::WakeList;
use std::fmt;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::OnceLock;
use trefoil_runtime::{Completed, Park};

/// The state, locked, and the readiness, which is changed with it.
pub(crate) type Guard<'a> = readiness::Guard<'a, State>;

/// What the driver shares with the owner of a source.
pub(crate) struct Shared {
    /// `None` only once [`Source::into_fd`](super::Source::into_fd) has taken it, which consumes the source.
    pub(super) fd: Option<OwnedFd>,
    /// What is known of it, and the lock of the rest.
    pub readiness: Readiness<State>,
    /// Of the reading direction: \[OWNER\]. Who writes is hardly ever told so without waiting for room.
    pub(super) drained: Drained,
    pub(super) read: Park,
    /// Most connections never wait to write, and idle ones should cost little.
    pub(super) write: OnceLock<Pin<Box<Park>>>,
    /// Here, since a future that a stream was moved into has room for two of it.
    pub(super) peer: Option<SocketAddr>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Source");
        self.describe(&mut debug, ["waits_to_read", "waits_to_write"]);
        debug.finish()
    }
}

impl Shared {
    /// What is worth reading of it, for a `Debug` output, with names for its directions.
    pub(super) fn describe<const N: usize>(&self, debug: &mut fmt::DebugStruct<'_, '_>, directions: [&str; N]) {
        if let Some(fd) = &self.fd {
            debug.field("fd", &fd.as_raw_fd());
        }
        for (name, direction) in directions.iter().zip([Direction::Read, Direction::Write]) {
            debug.field(name, &self.is_waiting(direction));
        }
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_ref().expect("taken only when the source is consumed").as_fd()
    }

    pub fn lock(&self) -> Guard<'_> {
        self.readiness.lock()
    }

    /// `None`: nobody has ever waited.
    pub(super) fn park(&self, direction: Direction) -> Option<Pin<&Park>> {
        match direction {
            // SAFETY: [PINNED].
            Direction::Read => Some(unsafe { Pin::new_unchecked(&self.read) }),
            Direction::Write => self.write.get().map(|park| park.as_ref()),
        }
    }

    /// The same for who is about to wait, or does.
    pub(super) fn park_to_wait(&self, direction: Direction) -> Pin<&Park> {
        self.park(direction).unwrap_or_else(|| self.make_park_to_write())
    }

    #[cold]
    fn make_park_to_write(&self) -> Pin<&Park> {
        self.write.get_or_init(|| Box::pin(Park::on_descriptor(self.fd().as_raw_fd()))).as_ref()
    }

    pub(super) fn is_waiting(&self, direction: Direction) -> bool {
        self.park(direction).is_some_and(|park| park.is_active())
    }

    /// The driver's side: something happened that the `flags` name. Completes who waits for it, to be woken when all locks are
    /// released. How many waits ended.
    #[inline(always)]
    pub fn notify(&self, flags: u32, wake: &mut WakeList) -> usize {
        self.complete(&mut self.readiness.lock_and_set(flags), flags, wake)
    }

    /// The same, where there is more to say than that.
    pub fn report(&self, flags: u32, report: impl FnOnce(&mut State), wake: &mut WakeList) -> usize {
        let mut state = self.readiness.lock_and_set(flags);
        report(&mut state);
        self.complete_apart(&mut state, flags, wake)
    }

    /// The same, with something for the reader: `deliver` puts it in the queue.
    #[cfg(any(test, trefoil_loom))]
    pub fn deliver(&self, deliver: impl FnOnce(&mut Inbound), wake: &mut WakeList) -> usize {
        self.report(READ | INBOUND, |state| deliver(&mut state.inbound), wake)
    }

    /// What an order of io_uring does: from here on the kernel brings what there is to read.
    #[cfg(test)]
    pub fn expect_delivery(&self) {
        let mut state = self.lock();
        state.inbound.set_streaming(true);
        state.set(INBOUND);
    }

    /// The home run is over: who waits finds a new one. How many waits ended. `is_ours` says of a registration whether it is that of the
    /// caller.
    pub fn orphan(&self, is_ours: impl FnOnce(&Registration) -> bool, wake: &mut WakeList) -> usize {
        let mut state = self.lock();
        // It may have moved, with word of that still on its way.
        let Some(registration) = state.registration.take_if(|registration| is_ours(registration)) else { return 0 };
        state.disarm(Direction::Read);
        state.set(READ | WRITE);
        let ended = self.complete_apart(&mut state, READ | WRITE, wake);
        drop(state);
        drop(registration);
        ended
    }

    /// \[FOUND\]: unset and completed under the lock.
    #[inline(always)]
    pub fn complete(&self, state: &mut State, flags: u32, wake: &mut WakeList) -> usize {
        let found = state.waiting & flags & (READ | WRITE);
        if found == 0 {
            return state.complete_others(flags, wake);
        }
        state.waiting &= !found;
        let mut complete = |park: &Park| {
            if let Completed::Won(Some(waker)) = park.complete() {
                wake.push(waker);
            }
        };
        if found & READ != 0 {
            complete(&self.read);
        }
        if found & WRITE != 0
            && let Some(park) = self.write.get()
        {
            complete(park);
        }
        found.count_ones() as usize + state.complete_others(flags, wake)
    }

    #[inline(never)]
    fn complete_apart(&self, state: &mut State, flags: u32, wake: &mut WakeList) -> usize {
        self.complete(state, flags, wake)
    }

    /// Sees to it that nobody finds the wait of a direction. Before its park is ended.
    pub(super) fn hide(&self, direction: Direction) {
        let mut state = self.lock();
        if state.waiting & direction.flag() != 0 {
            state.waiting &= !direction.flag();
            if let Some(registration) = &state.registration {
                registration.home.waits_ended(1);
            }
        }
        // Also if it was found meanwhile: whoever gives up a wait does not look.
        let order = if direction == Direction::Read { state.abandon() } else { None };
        drop(state);
        if let Some(order) = order {
            // What keeps a ring from being entered will keep the loop from parking, and is reported there.
            let _ = order.send();
        }
    }
}
