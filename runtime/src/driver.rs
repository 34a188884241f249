//! What the loop asks of a reactor, and the smallest one: a parked thread. Start reading here.
//!
//! A [`Driver`] does three things: it sleeps until something happens, it can be woken from another thread, and while it is at it
//! it dispatches what has happened, by waking. Everything that is about descriptors lives in `trefoil-io`; the loop, and all of
//! structured concurrency, runs as well on [`ThreadDriver`], without any I/O.

use std::any::Any;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, Thread};
use std::time::Duration;

/// Wakes a driver that sleeps. From any thread, at any time, also after the driver is gone; it does not block.
pub trait Unpark: Send + Sync {
    /// Ends the sleep that is going on, or the next one.
    fn unpark(&self);
}

/// A reactor, as the loop sees it. One thread owns it: the worker's.
pub trait Driver: Any + fmt::Debug {
    /// Its name for the log and the task tree: `io_uring`, `epoll`, `thread`.
    fn name(&self) -> &'static str;

    /// Sleeps until something happened, `timeout` has passed (`None`: for ever) or [`Unpark::unpark`] was called, and dispatches
    /// what has happened. It may return early, and must when it has woken somebody: what is woken on the loop's own thread meanwhile does not
    /// call `unpark`.
    ///
    /// # Errors
    /// Those of the kernel that no retry can mend. The run ends with a panic that says so.
    fn park(&self, timeout: Option<Duration>) -> io::Result<()>;

    /// Sleeps as [`park`](Self::park) does, without a timeout, if something is [in flight](Self::in_flight).
    ///
    /// # Errors
    /// As for [`park`](Self::park); and [`nothing_in_flight`] if nothing is, so that there may be nothing to wait for.
    fn park_in_flight(&self) -> io::Result<()> {
        if self.in_flight() > 0 { self.park(None) } else { Err(nothing_in_flight()) }
    }

    /// Dispatches what has happened, without sleeping. Called between the turns of a busy loop.
    ///
    /// # Errors
    /// As for [`park`](Self::park).
    fn poll(&self) -> io::Result<()>;

    /// The same for a loop that has nothing to do and looks again and again instead of sleeping: a look that costs something, which
    /// [`poll`](Self::poll) may leave out for a while, is made each time.
    ///
    /// # Errors
    /// As for [`park`](Self::park).
    fn poll_now(&self) -> io::Result<()> {
        self.poll()
    }

    /// By how much longer than it is asked to the kernel lets it sleep, so as to end several sleeps at once: 50 µs, as Linux does where nobody has
    /// told it otherwise (`PR_SET_TIMERSLACK`, or a priority for real time: there the loop gets up more often for deadlines that are dense).
    fn slack(&self) -> Duration {
        Duration::from_micros(50)
    }

    /// What wakes it.
    fn unparker(&self) -> Arc<dyn Unpark>;

    /// How many operations the kernel still has.
    fn in_flight(&self) -> usize {
        0
    }

    /// The run is over: cancels what is in flight and waits for it.
    fn shutdown(&self) {}
}

/// The driver of a worker, and where it is in memory: of an `Rc` of what has no size here that is worked out from the alignment, each time. 8
/// instructions less for a round trip through a channel.
pub(crate) struct OwnDriver {
    driver: Rc<dyn Driver>,
    at: NonNull<dyn Driver>,
}

impl OwnDriver {
    pub fn new(driver: Rc<dyn Driver>) -> Self {
        Self { at: NonNull::from(&*driver), driver }
    }

    /// To be compared only.
    #[inline(always)]
    pub fn address(&self) -> *const () {
        self.at.as_ptr().cast_const().cast()
    }

    pub fn share(&self) -> Rc<dyn Driver> {
        self.driver.clone()
    }
}

impl Deref for OwnDriver {
    type Target = dyn Driver;
    #[inline(always)]
    fn deref(&self) -> &dyn Driver {
        // SAFETY: it is in the `Rc` that is here, which does not move it, and of which nobody takes a `&mut`: there is no `Rc::get_mut` of it.
        unsafe { self.at.as_ref() }
    }
}

/// Why a driver does not [sleep](Driver::park_in_flight) without an end. An error like others, so that who sleeps has one thing to look at.
#[cold]
pub fn nothing_in_flight() -> io::Error {
    io::ErrorKind::Deadlock.into()
}

/// Whether it is that one. The kernel says nothing of the kind to a driver, and where it does the error has a number.
pub(crate) fn is_nothing_in_flight(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Deadlock && error.raw_os_error().is_none()
}

/// The driver without I/O: it parks the thread.
#[derive(Debug)]
pub struct ThreadDriver {
    unpark: Arc<UnparkThread>,
}

#[derive(Debug)]
struct UnparkThread(Thread);

impl Unpark for UnparkThread {
    fn unpark(&self) {
        self.0.unpark();
    }
}

impl ThreadDriver {
    /// One for the calling thread.
    pub fn new() -> Self {
        Self { unpark: Arc::new(UnparkThread(thread::current())) }
    }
}

impl Default for ThreadDriver {
    fn default() -> Self {
        Self::new()
    }
}

impl Driver for ThreadDriver {
    fn name(&self) -> &'static str {
        "thread"
    }

    fn park(&self, timeout: Option<Duration>) -> io::Result<()> {
        match timeout {
            Some(timeout) => thread::park_timeout(timeout),
            None => thread::park(),
        }
        Ok(())
    }

    fn poll(&self) -> io::Result<()> {
        Ok(())
    }

    fn unparker(&self) -> Arc<dyn Unpark> {
        self.unpark.clone()
    }
}
