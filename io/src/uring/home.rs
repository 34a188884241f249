//! What sources hold of their driver, on whatever thread they are.
//!
//! On the driver's own thread ([`Home::here`]) all is done at once. From other threads it goes through `requests`; the
//! first one since the driver has looked rings the bell.

use super::core::{Core, Kind};
use super::slots::Key;
use super::sys::Sqe;
use crate::bell::Bell;
use crate::reactor;
use crate::readiness::{INBOUND, Readiness};
use crate::source::{Shared, State, Want};
use rustix::event::PollFlags;
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use trefoil_runtime::sync::Mutex;
use trefoil_runtime::with_driver;

/// See the module.
pub(crate) struct Home {
    bell: Arc<Bell>,
    requests: Mutex<Requests>,
    /// Whether there are some: to be looked at without the lock.
    requested: AtomicBool,
    /// How many directions wait.
    waits: AtomicUsize,
    /// What the kernel does again and again for one entry, as far as we know: receive (6.0), accept (5.19), poll (5.13).
    receives: AtomicBool,
    accepts: AtomicBool,
    polls: AtomicBool,
}

impl fmt::Debug for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Home").field("waits", &self.waits).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Requests {
    list: Vec<Request>,
    /// The run is over: nothing is taken any more, and nothing needs to be, since its sources are orphaned.
    closed: bool,
}

/// What another thread asks of the driver's.
#[derive(Debug)]
enum Request {
    Arm(Key, Kind),
    Detach(Key),
}

/// An operation that is to begin, as its source already says. To be [sent](Self::send) when the source is no longer locked.
#[derive(Debug)]
#[must_use = "whoever waits for it waits for ever"]
pub(crate) struct Order {
    home: Arc<Home>,
    key: Key,
    kind: Kind,
}

impl Order {
    /// # Errors
    /// Those of the ring.
    pub fn send(self) -> io::Result<()> {
        let Self { home, key, kind } = self;
        home.here(|core| core.arm(key, kind)).unwrap_or_else(|| {
            home.request(Request::Arm(key, kind));
            Ok(())
        })
    }
}

impl Home {
    pub fn new(bell: Bell, receives: bool, accepts: bool) -> Self {
        Self {
            bell: Arc::new(bell),
            requests: Mutex::new(Requests::default()),
            requested: AtomicBool::new(false),
            waits: AtomicUsize::new(0),
            receives: AtomicBool::new(receives),
            accepts: AtomicBool::new(accepts),
            polls: AtomicBool::new(true),
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

    /// What has to begin for a wait, if nothing is under way: as if it were, from here on.
    pub fn order(state: &mut State, readiness: &Readiness, want: Want) -> Option<Order> {
        let registration = state.registration.as_mut()?;
        let reactor::Home::IoUring(home) = &registration.home else { return None };
        let direction = want.direction();
        if registration.armed & direction.flag() != 0 {
            return None;
        }
        registration.armed |= direction.flag();
        let kind = match want {
            Want::Bytes
                if home.receives.load(Ordering::Relaxed) && !state.inbound.as_ref().is_some_and(|i| i.is_bulk()) =>
            {
                Kind::Receive
            }
            Want::Connection if home.accepts.load(Ordering::Relaxed) => Kind::Accept,
            _ => Kind::Poll(direction),
        };
        let order = Order { home: home.clone(), key: registration.key, kind };
        if kind.streams() {
            // From here on nobody asks the kernel directly, until the last completion: bytes would come out of order.
            state.inbound.get_or_insert_default().set_streaming(true);
            readiness.set(INBOUND);
        }
        Some(order)
    }

    /// It turned out that the kernel cannot do this.
    pub fn cannot(&self, kind: Kind) {
        match kind {
            Kind::Receive => self.receives.store(false, Ordering::Relaxed),
            Kind::Accept => self.accepts.store(false, Ordering::Relaxed),
            Kind::Poll(_) => self.polls.store(false, Ordering::Relaxed),
            Kind::End => {}
        }
    }

    /// A poll that completes at every edge, or once where the kernel cannot do that.
    pub fn edges(&self, fd: BorrowedFd<'_>, events: u32, key: Key) -> Sqe {
        if self.polls.load(Ordering::Relaxed) {
            Sqe::poll_add_multishot(fd, events, key)
        } else {
            // Not an edge: what a read does not take away would be reported for ever.
            Sqe::poll_add(fd, events & !u32::from(PollFlags::PRI.bits()), key)
        }
    }

    fn request(&self, request: Request) {
        let mut requests = self.requests.lock();
        if requests.closed {
            return;
        }
        requests.list.push(request);
        let first = !self.requested.swap(true, Ordering::Relaxed);
        drop(requests);
        if first {
            self.bell.ring();
        }
    }

    /// Whether there are requests.
    pub fn is_asked(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }

    /// Does what other threads have asked for.
    pub fn take_requests(&self, core: &mut Core) -> io::Result<()> {
        if !self.is_asked() {
            return Ok(());
        }
        let mut requests = self.requests.lock();
        self.requested.store(false, Ordering::Relaxed);
        let list = std::mem::take(&mut requests.list);
        drop(requests);
        for request in list {
            match request {
                Request::Arm(key, kind) => core.arm(key, kind)?,
                Request::Detach(key) => core.detach(key)?,
            }
        }
        Ok(())
    }

    /// Takes no more requests.
    pub fn close(&self) {
        self.requests.lock().closed = true;
    }

    pub fn waits(&self) -> usize {
        self.waits.load(Ordering::Relaxed)
    }

    pub fn waits_began(&self, n: usize) {
        self.waits.fetch_add(n, Ordering::Relaxed);
    }

    pub fn waits_ended(&self, n: usize) {
        self.waits.fetch_sub(n, Ordering::Relaxed);
    }
}
