//! Which driver a run has, and the seam that drivers fit into.
//!
//! # What a driver is
//!
//! Two things. One belongs to the worker's thread, is a [`Driver`] for the loop, and is an arm of [`Reactor`]. The other is what
//! sources hold of it, on whatever thread they are: an arm of [`Home`], with these functions:
//!
//! | function | called | must |
//! | --- | --- | --- |
//! | `attach` | before the first wait of a source, and before the first in a direction that `registration.interest` lacks | set `registration` (under the table's lock and the source's), so that waits in that direction are reported; do nothing if the source was registered elsewhere meanwhile |
//! | `order` | at each wait, under the lock of the source | say what has to be done for it, beyond being registered. It is sent when the lock was released and the wait can be found |
//! | `abandon` | when a wait to read is given up, under the lock of the source | say what has to be done about it; sent likewise |
//! | `leave` | when a source that is idle is waited for in another run | unset `registration` if it is idle still (under both locks), and forget the source |
//! | `quiesce` | before a source is to leave the runtime | end what brings something unasked |
//! | `detach` | when the source is dropped, by then in no wait | forget the source: after this nothing of the driver uses its descriptor, but for what the kernel has not let go of |
//! | `waits_began`, `waits_ended`, `seat().count` | with each change of `State::waiting` that the driver does not make itself | keep count, for `in_flight` |
//!
//! It reports with, from any thread:
//!
//! | function | says |
//! | --- | --- |
//! | [`Shared::notify`](crate::source::Shared::notify) | ask the kernel again: what readiness is |
//! | [`Shared::report`](crate::source::Shared::report) | here are bytes, or a connection, or the end of them; or: the operation that was ordered is over |
//! | [`Shared::orphan`](crate::source::Shared::orphan) | the run is over: find another home |
//!
//! A cancel of a wait is no business of the driver's: it ends the wait at once, and what the kernel does nonetheless is
//! delivered, and stays for who reads next.

use crate::builder::RunError;
use crate::epoll;
use crate::error;
use crate::fs::errand::{Errand, Under};
use crate::source::{Guard, Shared, State, Want};
use crate::uring::{driver::Uring, home as uring};
use std::fmt;
use std::io;
use std::ptr;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::time::Duration;
use trefoil_runtime::{Driver, Unpark, driver_address, with_driver};

/// The kernel interface under a run.
///
/// `io_uring` where the kernel has it and lets us, and `epoll` otherwise; the environment variable `TREFOIL_DRIVER`, or
/// [`Builder::driver`](crate::Builder::driver), forces one.
///
/// ```
/// use trefoil_io::DriverKind;
///
/// assert_eq!("epoll".parse(), Ok(DriverKind::Epoll));
/// assert_eq!(DriverKind::IoUring.to_string(), "io_uring");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DriverKind {
    /// A ring of submissions and one of completions. Newer kernels have it; containers often forbid it.
    IoUring,
    /// Readiness, on every Linux.
    Epoll,
}

impl fmt::Display for DriverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DriverKind::IoUring => "io_uring",
            DriverKind::Epoll => "epoll",
        })
    }
}

/// A name of a driver that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no driver: `io_uring` and `epoll` are")]
pub struct UnknownDriver(String);

impl FromStr for DriverKind {
    type Err = UnknownDriver;

    fn from_str(name: &str) -> Result<Self, UnknownDriver> {
        match name {
            "io_uring" => Ok(DriverKind::IoUring),
            "epoll" => Ok(DriverKind::Epoll),
            _ => Err(UnknownDriver(name.to_owned())),
        }
    }
}

/// The name of the environment variable that forces a driver.
pub(crate) const VARIABLE: &str = "TREFOIL_DRIVER";

/// What a driver is made from.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Settings {
    pub driver: Option<DriverKind>,
    pub ring_entries: Option<u32>,
}

/// The driver of a run.
#[derive(Debug)]
pub(crate) enum Reactor {
    IoUring(Uring),
    Epoll(epoll::Epoll),
}

impl Reactor {
    /// Chooses a driver, makes it, and says so in one line of the log.
    pub fn new(settings: Settings) -> Result<Self, RunError> {
        let (forced, by) = match (settings.driver, std::env::var(VARIABLE)) {
            (Some(kind), _) => (Some(kind), "the builder"),
            (None, Ok(name)) if !name.is_empty() => (Some(name.parse()?), VARIABLE),
            (None, _) => (None, ""),
        };
        if let Some(kind) = forced {
            let reactor = Self::make(kind, settings).map_err(|source| RunError::DriverUnavailable {
                driver: kind,
                wanted_by: by,
                source,
            })?;
            tracing::debug!(driver = %kind, "the driver is {kind}, as {by} says");
            return Ok(reactor);
        }
        match Self::make(DriverKind::IoUring, settings) {
            Ok(reactor) => {
                tracing::info!(driver = "io_uring", "the driver is io_uring");
                Ok(reactor)
            }
            Err(why) => {
                tracing::info!(driver = "epoll", "the driver is epoll, since io_uring cannot be had: {why}");
                let wanted_by = "having nothing else";
                Self::make(DriverKind::Epoll, settings).map_err(|source| RunError::DriverUnavailable {
                    driver: DriverKind::Epoll,
                    wanted_by,
                    source,
                })
            }
        }
    }

    fn make(kind: DriverKind, settings: Settings) -> io::Result<Self> {
        match kind {
            DriverKind::IoUring => Uring::new(settings.ring_entries).map(Reactor::IoUring),
            DriverKind::Epoll => epoll::Epoll::new().map(Reactor::Epoll),
        }
    }

    /// The home that the run on this thread gives to sources.
    pub fn current() -> io::Result<Home> {
        with_driver::<Reactor, _>(|reactor| {
            let home = match reactor {
                Reactor::IoUring(uring) => Home::IoUring(uring.home().clone()),
                Reactor::Epoll(epoll) => Home::Epoll(epoll.home().clone()),
            };
            home.seat().set(reactor);
            home
        })
        .ok_or_else(error::no_reactor)
    }

    /// Begins what may block, in the run on this thread.
    ///
    /// # Errors
    /// If there is none, or no thread can be had for it; with what was to be done.
    pub fn begin(errand: Box<dyn Errand>) -> Result<Under, (io::Error, Box<dyn Errand>)> {
        let mut errand = Some(errand);
        let begun = with_driver::<Reactor, _>(|reactor| {
            let errand = errand.take().expect("there is one");
            match reactor {
                Reactor::IoUring(uring) => uring.begin(errand),
                Reactor::Epoll(epoll) => epoll.begin(errand),
            }
        });
        begun.unwrap_or_else(|| Err((error::no_reactor(), errand.expect("not taken"))))
    }

    /// That the run on this thread has a reactor.
    ///
    /// # Errors
    /// If not.
    pub fn check() -> io::Result<()> {
        with_driver::<Reactor, _>(|_| ()).ok_or_else(error::no_reactor)
    }

    fn driver(&self) -> &dyn Driver {
        match self {
            Reactor::IoUring(uring) => uring,
            Reactor::Epoll(epoll) => epoll,
        }
    }
}

impl Driver for Reactor {
    fn name(&self) -> &'static str {
        self.driver().name()
    }

    fn park(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Reactor::IoUring(uring) => uring.park(timeout),
            Reactor::Epoll(epoll) => epoll.park(timeout),
        }
    }

    fn park_in_flight(&self) -> io::Result<()> {
        match self {
            Reactor::IoUring(uring) => uring.park_in_flight(),
            Reactor::Epoll(epoll) => epoll.park_in_flight(),
        }
    }

    fn poll(&self) -> io::Result<()> {
        match self {
            Reactor::IoUring(uring) => uring.poll(),
            Reactor::Epoll(epoll) => epoll.poll(),
        }
    }

    fn poll_now(&self) -> io::Result<()> {
        self.driver().poll_now()
    }

    fn slack(&self) -> Duration {
        self.driver().slack()
    }

    fn unparker(&self) -> Arc<dyn Unpark> {
        self.driver().unparker()
    }

    fn in_flight(&self) -> usize {
        self.driver().in_flight()
    }

    fn shutdown(&self) {
        self.driver().shutdown();
    }
}

/// Where the [`Reactor`] of a home is in memory, once a source was registered there. It is still there as long as one is: a run that ends takes
/// its sources out before its reactor goes. So it is known at once that a source is waited for in its own run, which is the rule.
///
/// And how many directions wait there: the sum of what the run's own thread has counted, by plain stores, and what others have.
#[derive(Debug, Default)]
pub(crate) struct Seat {
    reactor: AtomicPtr<()>,
    counted_here: AtomicUsize,
    counted_elsewhere: AtomicUsize,
}

impl Seat {
    fn set(&self, reactor: &Reactor) {
        self.reactor.store(ptr::from_ref(reactor).cast_mut().cast(), Ordering::Relaxed);
    }

    #[inline]
    pub fn is_here(&self) -> bool {
        let reactor = self.reactor.load(Ordering::Relaxed);
        !reactor.is_null() && ptr::eq(reactor, driver_address())
    }

    /// How many wait there.
    #[inline(always)]
    pub fn waits(&self) -> usize {
        let here = self.counted_here.load(Ordering::Relaxed);
        here.wrapping_add(self.counted_elsewhere.load(Ordering::Relaxed))
    }

    /// By so many more, or (wrapping) fewer. `here`: this is the thread of the run.
    #[inline]
    pub fn count(&self, more: usize, here: bool) {
        if here {
            let here = self.counted_here.load(Ordering::Relaxed);
            self.counted_here.store(here.wrapping_add(more), Ordering::Relaxed);
        } else {
            self.counted_elsewhere.fetch_add(more, Ordering::Relaxed);
        }
    }

    #[inline]
    pub fn waits_began(&self, n: usize) {
        self.count(n, self.is_here());
    }

    #[inline]
    pub fn waits_ended(&self, n: usize) {
        self.count(n.wrapping_neg(), self.is_here());
    }
}

/// What a source holds of its driver. See the module.
#[derive(Clone, Debug)]
pub(crate) enum Home {
    IoUring(Arc<uring::Home>),
    Epoll(Arc<epoll::Home>),
}

impl Home {
    pub fn attach(&self, source: &Arc<Shared>, want: Want) -> io::Result<()> {
        match self {
            Home::IoUring(home) => {
                home.attach(source);
                Ok(())
            }
            Home::Epoll(home) => home.attach(source, want),
        }
    }

    /// What has to be done for a wait that is about to begin: nothing where edges are reported anyway.
    pub fn order(state: &mut Guard<'_>, want: Want) -> Option<uring::Order> {
        match &state.registration.as_ref()?.home {
            Home::IoUring(_) => uring::Home::order(state, want),
            Home::Epoll(_) => None,
        }
    }

    /// What has to be done when who waited to read has lost interest.
    pub fn abandon(state: &State) -> Option<uring::Order> {
        match &state.registration.as_ref()?.home {
            Home::IoUring(_) => uring::Home::abandon(state),
            Home::Epoll(_) => None,
        }
    }

    pub fn detach(&self, source: &Arc<Shared>, key: u64) {
        match self {
            Home::IoUring(home) => home.detach(key),
            Home::Epoll(home) => home.detach(source, key),
        }
    }

    pub fn seat(&self) -> &Seat {
        match self {
            Home::IoUring(home) => &home.seat,
            Home::Epoll(home) => &home.seat,
        }
    }

    /// Whether it is that of the run on this thread. Rather not.
    #[inline]
    pub fn is_here(&self) -> bool {
        self.seat().is_here()
    }

    /// Whether the run on this thread has a reactor, and it is another one.
    #[cold]
    pub fn is_of_another_run(&self) -> bool {
        with_driver::<Reactor, _>(|reactor| match (reactor, self) {
            (Reactor::IoUring(uring), Home::IoUring(home)) => !Arc::ptr_eq(uring.home(), home),
            (Reactor::Epoll(epoll), Home::Epoll(home)) => !Arc::ptr_eq(epoll.home(), home),
            _ => true,
        })
        .unwrap_or(false)
    }

    /// Lets a source go that is idle, so that it finds another home. It may do nothing, if something happened meanwhile.
    pub fn leave(&self, source: &Arc<Shared>, key: u64) {
        match self {
            Home::IoUring(home) => home.leave(source, key),
            Home::Epoll(home) => home.leave(source, key),
        }
    }

    /// Sees to it that nothing more is received for a source, if its home is the run on this thread; another is asked to.
    pub fn quiesce(&self, key: u64) {
        match self {
            Home::IoUring(home) => home.quiesce(key),
            Home::Epoll(_) => {}
        }
    }

    pub fn waits_began(&self, n: usize) {
        self.seat().waits_began(n);
    }

    pub fn waits_ended(&self, n: usize) {
        self.seat().waits_ended(n);
    }
}

#[cfg(all(test, not(trefoil_loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_it_says_of_itself_is_what_its_driver_says() {
        for (kind, slack) in [(DriverKind::IoUring, 0), (DriverKind::Epoll, 50)] {
            let Ok(reactor) = Reactor::make(kind, Settings::default()) else {
                assert_eq!(kind, DriverKind::IoUring, "epoll can be had everywhere");
                println!("skipped: no {kind}");
                continue;
            };
            let said = (reactor.name().to_string(), reactor.slack(), reactor.in_flight());
            assert_eq!(said, (kind.to_string(), Duration::from_micros(slack), 0));
            reactor.shutdown();
        }
    }
}
