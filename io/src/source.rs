//! A descriptor that operations wait on, and the one meeting point of the three who care: the operations of its two directions,
//! the driver of its home run, and a cancel.
//!
//! A [`Source`] owns the descriptor. Dropping it takes it out of its driver first and closes it then. The part that the driver
//! also holds is [`Shared`]. Both may be used from any thread: a source belongs to the run where it first had to wait,
//! its *home*, whose driver reports its events. It moves to another run with who waits there, when it is idle (nobody waits, and nothing
//! is under way for it), and when its home run is over.
//!
//! # How a wait comes about
//!
//! ```text
//!   owner of the direction                                      driver, any thread
//!   ──────────────────────                                      ──────────────────
//!   1 attempt: readiness says "perhaps", ask the kernel         a lock, and set the readiness with that
//!   2 it would block: remember as of when                       b found waiting? unset, park.complete; unlock
//!   3 park.begin                                                c wake
//!   4 lock, and clear the readiness if nothing happened since;
//!     ready? ── yes: unlock, park.end, back to 1
//!     set waiting, order; unlock; send the order
//! ```
//!
//! Either 4 comes first, and b finds the wait; or b does, and 4 sees what a has set. Nothing is handed over in a wake-up: it means
//! "ask again" and may be spurious. So there is nothing to lose when a cancel wins, or when who waited is gone.
//! What an operation of the kernel hands over unasked goes to the [`Inbound`] queue instead, and stays there until somebody reads it.
//!
//! # Invariants
//!
//! - **\[OWNER\]** The park of a direction is begun, polled and ended by one thread at a time: the one that has exclusive use of the
//!   direction, by `&mut` of a stream or half, or by a [`Claim`]. Who finds it claimed brings a park of its own ([`others`]).
//! - **\[FOUND\]** Others find a park through the bit in `waiting`, under the lock, and complete it there. The owner ends it when the bit is
//!   unset, which it sees to under the lock.
//! - **\[PINNED\]** The park to read is inside of an `Arc`, and never moved out of it; the one to write is in a pinned box of its own.
//! - **Lock order**: the driver's table, then a source, then the tree. No user code (a waker) runs or is dropped under any of them.

pub(crate) mod others;
mod shared;
mod want;

use self::others::Others;
pub(crate) use self::shared::{Guard, Shared};
pub(crate) use self::want::{Direction, ForBytes, ForConnection, ForRoom, ToBeConnected, Want, Wants};
use crate::error;
use crate::inbound::{Inbound, Next};
use crate::reactor::{Home, Reactor};
use crate::readiness::{Drained, INBOUND, READ, Readiness, Seen};
use crate::uring::home::Order;
use rustix::io::Errno;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use trefoil_runtime::{Cancelled, Park};

/// The bit in `waiting` of those who wait to read beside the one that has the claim.
const OTHERS: u32 = 4;

/// Where a source is registered.
#[derive(Debug)]
pub(crate) struct Registration {
    pub home: Home,
    /// What the home knows it by.
    pub key: u64,
    /// The directions that are watched.
    pub interest: u32,
    /// The directions for which an operation is under way, or on its way, where waits are [ordered](Home::order).
    pub armed: u32,
}

/// What is guarded by the lock of a source.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub registration: Option<Registration>,
    /// The directions whose park can be found: \[FOUND\]. And [`OTHERS`].
    pub waiting: u32,
    /// There is a [`Claim`].
    claimed: bool,
    /// Who operates beside it: `None` while nobody does.
    others: Option<Box<Others>>,
    pub inbound: Inbound,
}

impl State {
    /// Whether it is idle, and the run on this thread is another one than its home: it moves here.
    fn moves(&self) -> bool {
        self.registration.as_ref().is_some_and(|registration| {
            !registration.home.is_here()
                && self.waiting == 0
                && registration.armed == 0
                && registration.home.is_of_another_run()
        })
    }

    /// The driver's operation for a direction is over.
    pub fn disarm(&mut self, direction: Direction) {
        if let Some(registration) = &mut self.registration {
            registration.armed &= !direction.flag();
        }
        if direction == Direction::Read {
            self.inbound.set_streaming(false);
        }
    }

    /// What has to be done now that somebody who waited to read has lost interest.
    fn abandon(&self) -> Option<Order> {
        if self.waiting & (READ | OTHERS) == 0 { Home::abandon(self) } else { None }
    }
}

/// [`Park::poll`], once for all operations.
///
/// # Safety
/// As for that.
unsafe fn poll(park: Pin<&Park>, cx: &mut Context<'_>) -> Poll<Result<(), Cancelled>> {
    // SAFETY: the caller's promise.
    unsafe { park.poll(cx) }
}

/// A descriptor and its waits. See the module.
pub(crate) struct Source {
    shared: Arc<Shared>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

/// What became of the begin of a wait.
#[derive(Debug)]
pub(crate) enum Begun {
    /// It waits.
    Waiting,
    /// Something happened meanwhile: ask the kernel again.
    AskAgain,
    /// The scope is cancelled.
    Cancelled,
    /// The driver cannot watch this descriptor, or there is none. (Not in a `Result` around this: that would not go in two registers.)
    Failed(io::Error),
}

impl Source {
    /// What is worth reading of it, for a `Debug` output, with names for its directions: the first is to read.
    pub fn describe<const N: usize>(&self, debug: &mut fmt::DebugStruct<'_, '_>, directions: [&str; N]) {
        self.shared.describe(debug, directions);
    }

    /// For a descriptor that does not block.
    pub fn new(fd: OwnedFd) -> Self {
        Self::connected(fd, None)
    }

    /// For a connection that does not block, with its peer where that is known.
    pub fn connected(fd: OwnedFd, peer: Option<SocketAddr>) -> Self {
        let read = Park::on_descriptor(fd.as_raw_fd());
        Self {
            shared: Arc::new(Shared {
                fd: Some(fd),
                readiness: Readiness::new(State::default()),
                drained: Drained::new(),
                read,
                write: OnceLock::new(),
                peer,
            }),
        }
    }

    pub fn peer(&self) -> Option<SocketAddr> {
        self.shared.peer
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.shared.fd()
    }

    /// The part that a driver holds.
    #[cfg(any(test, trefoil_loom))]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Takes the descriptor out of the runtime.
    ///
    /// # Errors
    /// If something was received that nobody has read, or if a run on another thread still receives: it would be lost. The source comes back,
    /// and is as good as before.
    pub fn into_fd(mut self) -> Result<OwnedFd, (Self, io::Error)> {
        self.end_waits();
        // Until then the driver may receive.
        let home =
            self.shared.lock().registration.as_ref().map(|registration| (registration.home.clone(), registration.key));
        if let Some((home, key)) = home {
            home.quiesce(key);
        }
        if let Some(why) = self.holds() {
            return Err((self, io::Error::other(why)));
        }
        // Nobody is there who could begin anything from here on.
        self.close();
        match Arc::get_mut(&mut self.shared) {
            // The parks stay where they are: [PINNED].
            Some(shared) => Ok(shared.fd.take().expect("taken once")),
            // The kernel still has an operation on it, that only looks.
            None => self.fd().try_clone_to_owned().map_err(|error| (self, error)),
        }
    }

    /// What would be lost without this source.
    fn holds(&self) -> Option<String> {
        let state = self.shared.lock();
        let inbound = &state.inbound;
        if inbound.len() > 0 {
            let ahead = inbound.len();
            return Some(format!(
                "{ahead} bytes or connections were received ahead and would be lost: read them first"
            ));
        }
        if let Some(error) = inbound.failed() {
            return Some(format!("an error was received ahead and would be lost, read it first: {error}"));
        }
        // Its home is another thread's run, which was asked to stop and has not done so yet; or the kernel takes its time.
        inbound.is_streaming().then(|| {
            "a run on another thread still receives for this socket, and what it receives would be lost: it was asked to stop, try again"
                .to_owned()
        })
    }

    /// Whether a wait of this direction was begun and not yet ended, perhaps by somebody who is gone.
    pub fn is_waiting(&self, direction: Direction) -> bool {
        self.shared.is_waiting(direction)
    }

    /// Looks whether a wait is over.
    ///
    /// # Safety
    /// \[OWNER\] of the direction, where a wait was begun.
    #[inline]
    pub unsafe fn poll_park(&self, cx: &mut Context<'_>, direction: Direction) -> Poll<Result<(), Cancelled>> {
        // SAFETY: the caller's promise.
        unsafe { poll(self.shared.park_to_wait(direction), cx) }
    }

    /// Puts bytes back, before all others.
    pub fn unread(&self, bytes: &[u8]) {
        let mut state = self.shared.lock();
        state.inbound.unread(bytes);
        state.set(READ | INBOUND);
    }

    /// Asks the kernel, if there is a chance that it says something else than "it would block". `Err` if it would, and as of when that is known: what
    /// [`begin`](Self::begin) is told, which notes it with the one read-modify-write that it does anyway.
    #[inline]
    pub fn attempt<T>(
        &self,
        direction: Direction,
        attempt: &mut impl FnMut(Ready<'_>) -> io::Result<T>,
    ) -> Result<io::Result<T>, Seen> {
        let seen = self.shared.readiness.look();
        if !seen.has(direction.flag()) || (direction == Direction::Read && self.shared.drained.is_still(seen)) {
            return Err(seen);
        }
        match attempt(Ready { shared: &self.shared, seen }) {
            Err(error) if error::is(&error, Errno::AGAIN) => Err(seen),
            result => Ok(result),
        }
    }

    /// Asks the kernel, whatever is known: for who does not wait, and so has nobody watch the descriptor who would say that there is more by now.
    pub fn ask<T>(&self, direction: Direction, attempt: &mut impl FnMut(Ready<'_>) -> io::Result<T>) -> io::Result<T> {
        loop {
            let seen = self.shared.readiness.look();
            match attempt(Ready { shared: &self.shared, seen }) {
                Err(error) if error::is(&error, Errno::INTR) => {}
                Err(error) if error::is(&error, Errno::AGAIN) => {
                    self.shared.readiness.clear(seen, direction.flag());
                    return Err(error);
                }
                result => return result,
            }
        }
    }

    /// Begins to wait; steps 3 and 4 of the module. `blocked`: as of when it is known that the kernel has nothing.
    ///
    /// # Safety
    /// \[OWNER\] of the direction, whose park is not active.
    pub unsafe fn begin<W: Wants>(
        &self,
        cx: &mut Context<'_>,
        place: &'static std::panic::Location<'static>,
        blocked: Seen,
    ) -> Begun {
        let shared = &self.shared;
        let flag = W::DIRECTION.flag();
        let park = shared.park_to_wait(W::DIRECTION);
        // SAFETY: the caller's promise.
        if unsafe { park.begin_on_descriptor(cx, W::WANT.of_descriptor(), place) }.is_err() {
            // It has kept the waker: a source that idles would hold on to a task.
            // SAFETY: the caller's promise; [FOUND].
            unsafe { park.end() };
            return Begun::Cancelled;
        }
        let mut state = shared.lock();
        state.clear(blocked, flag);
        if state.look().has(flag) {
            drop(state);
            // SAFETY: the caller's promise; nobody was told of the wait, so nobody finds it: [FOUND].
            unsafe { park.end() };
            return Begun::AskAgain;
        }
        if let Some(registration) = &state.registration
            && registration.interest & flag != 0
        {
            let here = registration.home.is_here();
            if here || !state.moves() {
                registration.home.seat().count(1, here);
                let order = Home::order(&mut state, W::WANT);
                state.waiting |= flag;
                drop(state);
                // SAFETY: the caller's promise.
                return order.map_or(Begun::Waiting, |order| unsafe { self.send(order, W::DIRECTION) });
            }
        }
        // SAFETY: the caller's promise.
        unsafe { self.register(state, W::WANT) }
    }

    /// What a wait that has begun waits for in the kernel.
    ///
    /// # Safety
    /// \[OWNER\] of the direction.
    #[inline(never)]
    unsafe fn send(&self, order: Order, direction: Direction) -> Begun {
        match order.send() {
            Ok(()) => Begun::Waiting,
            Err(error) => {
                // SAFETY: the caller's promise.
                unsafe { self.end(direction) };
                Begun::Failed(error)
            }
        }
    }

    /// The source has no home, or another one than the run on this thread, which it leaves since it is idle; or that does not watch this direction
    /// yet. Nobody was told of the wait.
    ///
    /// # Safety
    /// \[OWNER\] of the direction.
    #[cold]
    unsafe fn register(&self, state: Guard<'_>, want: Want) -> Begun {
        let shared = &self.shared;
        let registered = state.registration.as_ref().map(|registration| (registration.home.clone(), registration.key));
        let moves = state.moves();
        drop(state);
        // SAFETY: the caller's promise; nobody was told of the wait, so nobody finds it: [FOUND].
        unsafe { shared.park_to_wait(want.direction()).end() };
        match registered {
            Some((home, key)) if moves => {
                home.leave(shared, key);
                Begun::AskAgain
            }
            registered => {
                let home = registered.map_or_else(Reactor::current, |(home, _)| Ok(home));
                match home.and_then(|home| home.attach(shared, want)) {
                    Ok(()) => Begun::AskAgain,
                    Err(error) => Begun::Failed(error),
                }
            }
        }
    }

    /// Gives up a wait, whatever became of it.
    ///
    /// # Safety
    /// \[OWNER\] of the direction.
    pub unsafe fn end(&self, direction: Direction) {
        self.shared.hide(direction);
        if let Some(park) = self.shared.park(direction) {
            // SAFETY: the caller's promise; [FOUND].
            unsafe { park.end() };
        }
    }

    /// Sees to it that an outcome that was taken is not looked for again.
    pub fn settled(&self, direction: Direction) {
        self.shared.hide(direction);
    }

    /// Exclusive use of the direction to read for who has no `&mut`: `None` while somebody operates on it, who comes first.
    pub fn claim(&self) -> Option<Claim<'_>> {
        let mut state = self.shared.lock();
        if state.claimed || state.others.is_some() {
            return None;
        }
        state.claimed = true;
        Some(Claim { source: self })
    }

    /// Out of every wait.
    fn end_waits(&mut self) {
        for direction in [Direction::Read, Direction::Write] {
            if self.is_waiting(direction) {
                // SAFETY: [OWNER]: `&mut self`; who waited is gone, since it borrowed the source.
                unsafe { self.end(direction) };
            }
        }
        self.end_others();
    }

    /// Out of every wait, and out of the driver.
    fn close(&mut self) {
        self.end_waits();
        let registration = self.shared.lock().registration.take();
        if let Some(Registration { home, key, .. }) = registration {
            home.detach(&self.shared, key);
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.close();
    }
}

/// Exclusive use of the direction to read, until dropped.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    source: &'a Source,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.source.shared.lock().claimed = false;
    }
}

/// The moment of one attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready<'a> {
    shared: &'a Shared,
    seen: Seen,
}

impl<'a> Ready<'a> {
    pub fn fd(self) -> BorrowedFd<'a> {
        self.shared.fd()
    }

    /// What the readiness word said before the attempt.
    pub fn seen(self) -> Seen {
        self.seen
    }

    /// The kernel did less than was asked of it: it has no more, now.
    #[inline]
    pub fn drained(self, direction: Direction) {
        match direction {
            Direction::Read => self.shared.drained.note(self.seen),
            Direction::Write => self.shared.readiness.clear(self.seen, direction.flag()),
        }
    }

    /// Whether something may have been received ahead.
    #[inline]
    pub fn looks_inbound(self) -> bool {
        self.seen.has(INBOUND)
    }

    /// Looks into the queue of what was received ahead: `None` where the kernel is to be asked.
    pub fn inbound<T>(self, take: impl FnOnce(&mut Inbound) -> Next<io::Result<T>>) -> Option<io::Result<T>> {
        if !self.looks_inbound() {
            return None;
        }
        let mut state = self.shared.lock();
        match take(&mut state.inbound) {
            Next::Item(result) => {
                // More will be heard of: the next attempt need not look.
                if state.inbound.is_waiting() {
                    state.clear(self.seen, READ);
                }
                Some(result)
            }
            Next::OnItsWay => Some(Err(Errno::AGAIN.into())),
            Next::AskKernel => {
                // Under the lock, as `deliver` and `unread` set it.
                state.clear(self.seen, INBOUND);
                None
            }
        }
    }
}

#[cfg(all(test, not(trefoil_loom)))]
mod tests;
