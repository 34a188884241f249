//! What the models need to see: a [`Source`] over a kernel that the model plays, and a [`Fetch`] from a file.

mod files;

use crate::epoll;
use crate::inbound::Next;
use crate::operation::Operation;
use crate::reactor::Home;
use crate::readiness::READ;
use crate::source::others::Another;
use crate::source::{self, ForBytes, Want};
use crate::wake::WakeList;
use std::io;
use std::panic::Location;
use std::sync::Arc;
use std::task::{Context, Poll};
use trefoil_runtime::Driver;

pub use crate::uring::queue::{Cells, Completions, Offer, Offers, Submissions, Word};
pub use crate::uring::requests::Requests;
pub use crate::uring::{Cqe, Full, Sqe};
pub use files::{Desk, Fetch, Kernel};

/// A source that is registered. Its driver sees no events: the model reports them.
#[derive(Debug)]
pub struct Source {
    source: source::Source,
    epoll: epoll::Epoll,
}

/// An operation that reads beside one that came before it.
#[derive(Debug)]
pub struct Beside<'a>(Another<'a>);

/// An operation that reads.
#[derive(Debug)]
pub struct Reading<'a>(Operation<'a, ForBytes>);

impl Source {
    /// One that nobody has asked yet.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let flags = rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
        let source = source::Source::new(rustix::event::eventfd(0, flags).expect("a descriptor"));
        let epoll = epoll::Epoll::new().expect("an epoll");
        epoll.home().attach(source.shared(), Want::Bytes).expect("a registration");
        Self { source, epoll }
    }

    /// An operation that reads.
    ///
    /// # Safety
    /// There is one at a time, on one thread.
    pub unsafe fn reading(&self) -> Reading<'_> {
        // SAFETY: the caller's promise.
        Reading(unsafe { Operation::new(&self.source, ForBytes, Location::caller()) })
    }

    /// An operation that reads beside that, and others.
    pub fn beside(&self) -> Beside<'_> {
        Beside(Another::new(&self.source, Want::Bytes, Location::caller()))
    }

    /// The driver's side.
    pub fn driver(&self) -> Reporter {
        Reporter { shared: self.source.shared().clone(), home: self.epoll.home().clone() }
    }

    /// How many waits the driver believes in.
    pub fn in_flight(&self) -> usize {
        self.epoll.in_flight()
    }

    /// The driver's side of where it is registered now.
    pub fn home(&self) -> At {
        let state = self.source.shared().lock();
        let registration = state.registration.as_ref().expect("registered");
        At { home: registration.home.clone(), key: registration.key }
    }

    /// What a wait in the run of `to` does first, while nobody waits here.
    pub fn move_from(&self, from: &At, to: &Elsewhere) {
        from.home.leave(self.source.shared(), from.key);
        to.0.home().attach(self.source.shared(), Want::Bytes).expect("a registration");
    }
}

impl Reading<'_> {
    /// Looks into the queue, then asks `kernel`: whether there was something.
    pub fn poll(&mut self, cx: &mut Context<'_>, mut kernel: impl FnMut() -> bool) -> Poll<io::Result<u8>> {
        self.0.poll(cx, |ready| {
            let mut byte = 0;
            match ready.inbound(|inbound| inbound.read(1, |bytes| byte = bytes[0])) {
                Some(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(Ok(_)) => return Ok(byte),
                Some(Err(error)) => return Err(error),
                None => {}
            }
            if kernel() { Ok(b'k') } else { Err(io::ErrorKind::WouldBlock.into()) }
        })
    }
}

impl Beside<'_> {
    /// Asks `kernel`: whether there was something.
    pub fn poll(&mut self, cx: &mut Context<'_>, mut kernel: impl FnMut() -> bool) -> Poll<io::Result<u8>> {
        self.0.poll(cx, |_| if kernel() { Ok(b'k') } else { Err(io::ErrorKind::WouldBlock.into()) })
    }
}

/// The driver of another run.
#[derive(Debug)]
pub struct Elsewhere(epoll::Epoll);

impl Elsewhere {
    /// One that has no sources.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self(epoll::Epoll::new().expect("an epoll"))
    }

    /// How many waits it believes in.
    pub fn in_flight(&self) -> usize {
        self.0.in_flight()
    }

    /// Whether a source is registered there.
    pub fn is(&self, at: &At) -> bool {
        matches!(&at.home, Home::Epoll(home) if Arc::ptr_eq(home, self.0.home()))
    }
}

/// Where a source is registered, as its driver knows it.
#[derive(Clone, Debug)]
pub struct At {
    home: Home,
    key: u64,
}

impl At {
    /// The kernel reports an edge, under the key of then.
    pub fn dispatch(&self) {
        let Home::Epoll(home) = &self.home else { return };
        let mut wake = WakeList::default();
        home.dispatch_edge(self.key, &mut wake);
        wake.wake();
    }

    /// The run is over.
    pub fn close(&self) {
        let Home::Epoll(home) = &self.home else { return };
        home.close();
    }
}

/// What a driver does.
#[derive(Debug)]
pub struct Reporter {
    shared: Arc<source::Shared>,
    home: Arc<epoll::Home>,
}

impl Reporter {
    /// An edge: something is there.
    pub fn notify(&self) {
        let mut wake = WakeList::default();
        self.home.seat.waits_ended(self.shared.notify(READ, &mut wake));
        wake.wake();
    }

    /// A byte was received ahead.
    pub fn deliver(&self, byte: u8) {
        let mut wake = WakeList::default();
        self.home.seat.waits_ended(self.shared.deliver(|inbound| inbound.received(&[byte]), &mut wake));
        wake.wake();
    }

    /// What is in the queue.
    pub fn queued(&self) -> Option<u8> {
        let mut byte = 0;
        let mut state = self.shared.lock();
        match state.inbound.read(1, |bytes| byte = bytes[0]) {
            Next::Item(Ok(1)) => Some(byte),
            _ => None,
        }
    }
}
