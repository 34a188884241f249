//! A future that waits for an errand (`fs/errand.rs`), and the thread, or the kernel, that does it.

use crate::bell::Bell;
use crate::epoll;
use crate::fs::errand::{Errand, Job, OnThread, Slow, Under};
use crate::reactor::Home;
use crate::uring::home;
use std::fmt;
use std::future::Future;
use std::io;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use trefoil_runtime::sync::{Mutex, UnsafeCell};
use trefoil_runtime::{Driver, ECANCELED, Reason, Ticket, Work};

/// Reads a byte into a buffer of its own, at which loom looks.
struct Reads<T> {
    buffer: UnsafeCell<u8>,
    keeps: T,
}

impl<T: Send + 'static> Job for Reads<T> {
    fn run(&mut self) -> io::Result<usize> {
        // SAFETY: loom fails the model if somebody else is at it.
        self.buffer.with_mut(|buffer| unsafe { *buffer = b'f' });
        Ok(1)
    }
}

/// A read from a file, with something that it keeps as long as it has its buffer.
pub struct Fetch<T: Send + 'static>(Slow<Reads<T>>);

impl<T: Send + 'static> fmt::Debug for Fetch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fetch")
    }
}

impl<T: Send + 'static> Fetch<T> {
    /// One that was not polled.
    pub fn new(keeps: T) -> Self {
        let job = Reads { buffer: UnsafeCell::new(0), keeps };
        Self(Slow::new(job, Reason::Custom("a byte"), Location::caller()))
    }

    /// The first poll, in the run of a desk.
    pub fn begin(&mut self, desk: &Desk, cx: &mut Context<'_>) {
        self.0.begin_with(Home::Epoll(desk.0.home.home().clone()), |errand| Ok(desk.0.take(errand)), cx);
    }

    /// The same where no thread can be had.
    pub fn refused(&mut self, desk: &Desk, cx: &mut Context<'_>) {
        let none = || io::Error::from_raw_os_error(11);
        self.0.begin_with(Home::Epoll(desk.0.home.home().clone()), |errand| Err((none(), errand)), cx);
    }

    /// The first poll, in the run of a kernel.
    pub fn submit(&mut self, kernel: &Kernel, cx: &mut Context<'_>) {
        self.0.begin_with(Home::IoUring(kernel.home.clone()), |errand| Ok(kernel.take(errand)), cx);
    }

    /// Any other: the byte.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<u8>> {
        Pin::new(&mut self.0).poll(cx).map(|(result, Reads { buffer, keeps })| {
            // SAFETY: as above.
            let byte = buffer.with_mut(|buffer| unsafe { *buffer });
            drop(keeps);
            result.map(|_| byte)
        })
    }
}

/// Where a thread finds what it is to do, in a run.
pub struct Desk(Threads);

struct Threads {
    home: epoll::Epoll,
    queue: Mutex<Option<Ticket<OnThread>>>,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Desk")
    }
}

impl Threads {
    fn take(&self, errand: Box<dyn Errand>) -> Under {
        let (ours, theirs) = Ticket::pair(OnThread(errand));
        let before = self.queue.lock().replace(theirs);
        assert!(before.is_none());
        Under::Thread(ours)
    }
}

impl Desk {
    /// With nothing to do.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self(Threads { home: epoll::Epoll::new().expect("an epoll"), queue: Mutex::new(None) })
    }

    /// A thread looks, and does it: whether there was something to do.
    pub fn work(&self) -> bool {
        let ticket = self.0.queue.lock().take();
        match ticket.and_then(|ticket| ticket.take_back()) {
            Some(work) => {
                work.work();
                true
            }
            None => false,
        }
    }

    /// How many are waited for.
    pub fn in_flight(&self) -> usize {
        self.0.home.in_flight()
    }
}

/// A ring that has at most one errand, on the thread of its run.
pub struct Kernel {
    home: Arc<home::Home>,
    has: Mutex<Option<Box<dyn Errand>>>,
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kernel")
    }
}

impl Kernel {
    /// With nothing to do.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let home = home::Home::new(Bell::new().expect("an eventfd"), true, true);
        Self { home: Arc::new(home), has: Mutex::new(None) }
    }

    fn take(&self, errand: Box<dyn Errand>) -> Under {
        let before = self.has.lock().replace(errand);
        assert!(before.is_none());
        Under::Ring(self.home.clone(), 0)
    }

    /// The last completion: the byte, or nothing if it was asked to end and `obeys`. Whether it was there to be completed.
    pub fn complete(&self, obeys: bool) -> bool {
        let Some(mut errand) = self.has.lock().take() else { return false };
        let result = match obeys && self.home.is_asked() {
            true => Err(io::Error::from_raw_os_error(ECANCELED)),
            false => errand.run(),
        };
        errand.done(result);
        true
    }

    /// The run is over, and has ended it unasked.
    pub fn close(&self) {
        if let Some(errand) = self.has.lock().take() {
            errand.done(Err(io::Error::from_raw_os_error(ECANCELED)));
        }
    }

    /// How many are waited for.
    pub fn in_flight(&self) -> usize {
        self.home.seat.waits()
    }
}
