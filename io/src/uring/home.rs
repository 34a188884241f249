//! What sources hold of their driver, on whatever thread they are.
//!
//! On the driver's own thread ([`Home::here`]) all is done at once. From other threads it goes through [`Requests`].

use super::core::{Core, Kind, Part};
use super::requests::Requests;
use super::slots::Key;
use super::sys::Sqe;
use crate::bell::Bell;
use crate::reactor::{self, Seat};
use crate::readiness::INBOUND;
use crate::source::{Guard, Registration, Shared, State, Want};
use rustix::event::PollFlags;
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use trefoil_runtime::with_driver;

/// See the module.
pub(crate) struct Home {
    bell: Arc<Bell>,
    requests: Requests<Request>,
    /// What the kernel does again and again for one entry: receive (6.0), accept (5.19), and, as far as we know, poll (5.13).
    receives: bool,
    accepts: bool,
    polls: AtomicBool,
    pub seat: Seat,
}

impl fmt::Debug for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Home").field("waits", &self.seat.waits()).finish_non_exhaustive()
    }
}

/// What another thread asks of the driver's.
#[derive(Clone, Copy, Debug)]
enum Request {
    /// An operation is to begin, as its source already says.
    Arm(Key, Kind),
    /// Nothing more is to be read ahead.
    StopReading(Key),
    Detach(Key),
    /// What nobody waits for any more.
    StopErrand(Key),
}

impl Request {
    fn carry_out(self, core: &mut Core) -> io::Result<()> {
        match self {
            Request::Arm(key, kind) => core.arm(key, kind),
            Request::StopReading(key) => core.stop(key, Part::Read),
            Request::Detach(key) => core.detach(key),
            Request::StopErrand(key) => core.stop_errand(key),
        }
    }
}

/// To be [sent](Self::send) when the source is no longer locked.
#[derive(Debug)]
#[must_use = "whoever waits for it waits for ever"]
pub(crate) struct Order {
    home: Arc<Home>,
    request: Request,
}

impl Order {
    /// # Errors
    /// Those of the ring.
    pub fn send(self) -> io::Result<()> {
        let Self { home, request } = self;
        home.here(|core| request.carry_out(core)).unwrap_or_else(|| {
            home.request(request);
            Ok(())
        })
    }
}

impl Home {
    pub fn new(bell: Bell, receives: bool, accepts: bool) -> Self {
        Self {
            bell: Arc::new(bell),
            requests: Requests::new(),
            receives,
            accepts,
            polls: AtomicBool::new(true),
            seat: Seat::default(),
        }
    }

    pub fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }

    /// Calls `f` if this is the driver's own thread, and the run not over.
    fn here<R>(self: &Arc<Self>, f: impl FnOnce(&mut Core) -> R) -> Option<R> {
        with_driver::<reactor::Reactor, _>(|reactor| match reactor {
            reactor::Reactor::IoUring(uring) if Arc::ptr_eq(uring.home(), self) => uring.with_core(f),
            _ => None,
        })
        .flatten()
    }

    /// Registers a source that first waits on this thread.
    pub fn attach(self: &Arc<Self>, source: &Arc<Shared>) {
        self.here(|core| core.attach(source));
    }

    /// Takes a source out. On the driver's thread, what the kernel has received until now is in its queue when this returns.
    pub fn detach(self: &Arc<Self>, key: Key) {
        // What keeps a ring from being entered will keep the loop from parking, and is reported there.
        let gone = self.here(|core| {
            let _ = core.detach(key);
            std::mem::take(&mut core.gone)
        });
        if gone.is_none() {
            self.request(Request::Detach(key));
        }
    }

    /// Lets a source go that is idle: it moves to another run. What is left of it here is a poll for its end, perhaps.
    pub fn leave(self: &Arc<Self>, source: &Shared, key: Key) {
        let mut state = source.lock();
        if state.waiting != 0 {
            return;
        }
        let left =
            state.registration.take_if(|registration| registration.armed == 0 && self.is_home(registration, key));
        drop(state);
        if left.is_some() {
            self.detach(key);
        }
    }

    /// Whether this is what a source is registered with here.
    pub fn is_home(self: &Arc<Self>, registration: &Registration, key: Key) -> bool {
        registration.key == key && matches!(&registration.home, reactor::Home::IoUring(home) if Arc::ptr_eq(home, self))
    }

    /// On the driver's thread, what the kernel has received until now is in the source's queue when this returns, and (but in the rare case
    /// that the kernel needs longer) no more will be.
    pub fn quiesce(self: &Arc<Self>, key: Key) {
        if self.here(|core| core.quiesce(key)).is_none() {
            self.request(Request::StopReading(key));
        }
    }

    /// Asks for the end of an errand.
    pub fn stop_errand(self: &Arc<Self>, key: Key) {
        // What keeps a ring from being entered will keep the loop from parking, and is reported there.
        if self.here(|core| drop(core.stop_errand(key))).is_none() {
            self.request(Request::StopErrand(key));
        }
    }

    /// What has to begin for a wait, if nothing is under way: as if it were, from here on.
    pub fn order(guard: &mut Guard<'_>, want: Want) -> Option<Order> {
        let state = &mut **guard;
        let registration = state.registration.as_mut()?;
        let reactor::Home::IoUring(home) = &registration.home else { return None };
        let direction = want.direction();
        if registration.armed & direction.flag() != 0 {
            return None;
        }
        registration.armed |= direction.flag();
        let kind = match want {
            Want::Bytes if home.receives && !state.inbound.is_polled() => Kind::Receive,
            Want::Connection if home.accepts && !state.inbound.is_polled() => Kind::Accept,
            _ => Kind::Poll(direction),
        };
        let order = Order { home: home.clone(), request: Request::Arm(registration.key, kind) };
        if kind.streams() {
            // From here on nobody asks the kernel directly, until the last completion: bytes would come out of order.
            let inbound = &mut state.inbound;
            inbound.set_streaming(true);
            if kind == Kind::Accept {
                inbound.set_connections();
            }
            guard.set(INBOUND);
        }
        Some(order)
    }

    /// What has to be done when who waited to read has lost interest: no connection is taken that nobody waits for.
    pub fn abandon(state: &State) -> Option<Order> {
        if !state.inbound.is_accepting() {
            return None;
        }
        let registration = state.registration.as_ref()?;
        let reactor::Home::IoUring(home) = &registration.home else { return None };
        Some(Order { home: home.clone(), request: Request::StopReading(registration.key) })
    }

    /// It turned out that the kernel polls once only.
    pub fn polls_once(&self) {
        self.polls.store(false, Ordering::Relaxed);
    }

    /// A poll that completes at every edge, or once where the kernel cannot do that.
    pub fn edges(&self, fd: BorrowedFd<'_>, events: u32, key: Key) -> Sqe {
        if self.polls.load(Ordering::Relaxed) {
            Sqe::poll_add_multishot(fd, events, key)
        } else {
            // Not an edge: what a read does not take away would be reported for ever.
            Sqe::poll_add(fd, events & !(PollFlags::PRI.bits() as u32), key)
        }
    }

    fn request(&self, request: Request) {
        if self.requests.ask(request) {
            self.bell.ring();
        }
    }

    /// Whether there are requests.
    pub fn is_asked(&self) -> bool {
        self.requests.any()
    }

    /// Does what other threads have asked for.
    #[inline(always)]
    pub fn take_requests(&self, core: &mut Core) -> io::Result<()> {
        if self.is_asked() { self.carry_out_all(core) } else { Ok(()) }
    }

    #[inline(never)]
    fn carry_out_all(&self, core: &mut Core) -> io::Result<()> {
        self.requests.take().into_iter().try_for_each(|request| request.carry_out(core))
    }

    /// Takes no more requests.
    pub fn close(&self) {
        self.requests.close();
    }
}
