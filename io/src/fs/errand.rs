//! What may block: done by the kernel where the driver is io_uring and has an operation for it, by a thread of the run otherwise, and
//! waited for by a future.
//!
//! An [`Errand`] owns all that it needs (a buffer, the open file) from its begin to its end, whatever becomes of the future: the kernel may
//! write to that buffer when who waited is long gone. Three hold parts of it:
//!
//! ```text
//!   Slow, the future ──────────▶ Call ◀────────── Running, an Errand, in the ring's table or with a thread
//!                       park, and the outcome              the job: buffer and file
//! ```
//!
//! | | |
//! | --- | --- |
//! | it is done | the job goes into the outcome, and the future, if it waits, is woken and takes it |
//! | the scope is cancelled | the future asks for an end, and waits for it: it may be done all the same, and then says so (N8, R102) |
//! | the future is dropped | it asks for an end, and leaves; the job is dropped by who has it when it is done (N5) |
//! | the future is forgotten | nothing is lost but memory |
//!
//! What no thread has begun, and what was never submitted, has not happened.
//!
//! # Invariants
//! - **\[OWNER\]** The park is begun, polled and ended by the future.
//! - **\[FOUND\]** The other side completes the park under the lock of `state`, and only in [`State::Waits`]. The future leaves that state before
//!   it ends the park.
//! - **\[PINNED\]** The park is inside of an `Arc`, and never moved.
//! - No code of others (a waker, the drop of a buffer) runs under that lock, nor while the driver's table is borrowed.

use crate::error::outside;
use crate::reactor::{Home, Reactor};
use crate::uring::home;
use crate::uring::slots::Key;
use crate::uring::sys::Sqe;
use std::fmt;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use trefoil_runtime::sync::{self, AtomicBool, Mutex, Ordering};
use trefoil_runtime::{Abort, ECANCELED, Park, Pool, Reason, Runs, Ticket, Wait, Work, in_run, poll_cancelled};

type Place = &'static Location<'static>;

/// What is to be done, and what it needs.
pub(crate) trait Job: Send + 'static {
    /// Does it, blocking.
    fn run(&mut self) -> io::Result<usize>;

    /// The same for a ring, which has no operation for it if there is none here.
    ///
    /// # Safety
    /// The job stays where it is, and nobody touches it, until the last completion for this key was popped; or the entry is not submitted.
    unsafe fn entry(&mut self, _key: Key) -> Option<Sqe> {
        None
    }
}

/// A job with who waits for it, as the drivers see it.
pub(crate) trait Errand: Send {
    /// See [`Job::run`].
    fn run(&mut self) -> io::Result<usize>;

    /// # Safety
    /// As for [`Job::entry`].
    unsafe fn entry(&mut self, key: Key) -> Option<Sqe>;

    /// It is over: wakes who waits, and drops the job if nobody does. A panic of that, which is code of others, stays here: there is nobody
    /// whom it would concern. Called where nothing is locked or borrowed.
    fn done(self: Box<Self>, result: io::Result<usize>);
}

/// Counts as an operation in flight, so that a run which waits for it is in no deadlock (N10): until the future looks, or was woken,
/// whichever comes first. A forgotten future never looks; and what has looked is done, though its waker may still be at it.
struct InFlight {
    home: Home,
    ended: AtomicBool,
}

impl InFlight {
    fn new(home: Home) -> Self {
        home.waits_began(1);
        Self { home, ended: AtomicBool::new(false) }
    }

    fn end(&self) {
        if !self.ended.swap(true, Ordering::Relaxed) {
            self.home.waits_ended(1);
        }
    }
}

enum State<J> {
    /// The future waits, or is about to look: \[FOUND\].
    Waits,
    /// The future is gone.
    Left,
    Over(io::Result<usize>, J),
    /// The future has taken it.
    Taken,
}

struct Call<J> {
    park: Park,
    state: Mutex<State<J>>,
    in_flight: InFlight,
}

impl<J> Call<J> {
    fn park(&self) -> Pin<&Park> {
        // SAFETY: [PINNED].
        unsafe { Pin::new_unchecked(&self.park) }
    }

    /// The future looks no more.
    fn leave(&self) {
        let mut state = self.state.lock();
        let before = std::mem::replace(&mut *state, State::Left);
        drop(state);
        // SAFETY: [OWNER]; [FOUND].
        unsafe { self.park.end() };
        drop(before);
    }
}

struct Running<J> {
    job: J,
    call: sync::Arc<Call<J>>,
}

impl<J: Job> Errand for Running<J> {
    fn run(&mut self) -> io::Result<usize> {
        self.job.run()
    }

    unsafe fn entry(&mut self, key: Key) -> Option<Sqe> {
        // SAFETY: the caller's promise.
        unsafe { self.job.entry(key) }
    }

    fn done(self: Box<Self>, result: io::Result<usize>) {
        let Self { job, call } = *self;
        let told = catch_unwind(AssertUnwindSafe(|| {
            let mut state = call.state.lock();
            if !matches!(*state, State::Waits) {
                drop(state);
                drop(job);
                return;
            }
            *state = State::Over(result, job);
            let completed = call.park().complete();
            drop(state);
            completed.wake();
        }));
        call.in_flight.end();
        if let Err(payload) = told {
            trefoil_runtime::report_error!(
                "a waker, or a buffer that was dropped, panicked when an operation on a file was over"
            );
            trefoil_runtime::discard(payload);
        }
    }
}

/// What a thread of a run does.
pub(crate) struct OnThread(pub Box<dyn Errand>);

/// The threads of a run, of which there are none as yet. They end with it.
pub(crate) fn threads() -> Pool<OnThread> {
    Pool::new("trefoil-files", Runs::Operations)
}

impl Work for OnThread {
    fn work(mut self) {
        // A buffer is code of others. Who waits would do so for ever, and the thread would be missed.
        let ran = catch_unwind(AssertUnwindSafe(|| self.0.run()));
        let result = ran.unwrap_or_else(|payload| {
            let text = payload.downcast_ref::<&str>().copied();
            let text = text.or_else(|| payload.downcast_ref::<String>().map(|text| &**text));
            let error = io::Error::other(format!("it panicked: {}", text.unwrap_or("(a payload that is not text)")));
            trefoil_runtime::discard(payload);
            Err(error)
        });
        self.0.done(result);
    }
}

/// Where an errand is, for who wants it to end.
pub(crate) enum Under {
    Ring(Arc<home::Home>, Key),
    Thread(Ticket<OnThread>),
}

impl Under {
    /// Gives an errand to a thread.
    ///
    /// # Errors
    /// If none can be had (R108).
    pub fn on_thread(threads: &Pool<OnThread>, errand: Box<dyn Errand>) -> Result<Self, (io::Error, Box<dyn Errand>)> {
        threads.submit(OnThread(errand)).map(Under::Thread).map_err(|(error, OnThread(errand))| (error, errand))
    }

    /// Asks for an end. It may come at once, later, or too late.
    fn cancel(&self) {
        match self {
            Under::Ring(home, key) => home.stop_errand(*key),
            Under::Thread(ticket) => {
                if let Some(OnThread(errand)) = ticket.take_back() {
                    errand.done(Err(io::Error::from_raw_os_error(ECANCELED)));
                }
            }
        }
    }
}

enum Stage<J> {
    /// Not begun.
    New(J),
    Waits {
        call: sync::Arc<Call<J>>,
        /// `None` if it could not be begun, and is over already.
        under: Option<Under>,
        asked: bool,
    },
    /// It did not happen.
    Cancelled(J),
    Over,
}

/// Does a job that may block, and waits for it.
pub(crate) struct Slow<J: Job> {
    stage: Stage<J>,
    reason: Reason,
    place: Place,
}

// The job is not pinned: the kernel knows where it is only once it is in a box.
impl<J: Job> Unpin for Slow<J> {}

impl<J: Job> fmt::Debug for Slow<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slow").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl<J: Job> Slow<J> {
    pub fn new(job: J, reason: Reason, place: Place) -> Self {
        Self { stage: Stage::New(job), reason, place }
    }

    fn begin(&self, job: J, cx: &mut Context<'_>) -> Result<Stage<J>, (io::Error, J)> {
        if !in_run() {
            return Err((outside(), job));
        }
        match Reactor::current() {
            Ok(home) => Ok(self.send(job, home, Reactor::begin, cx)),
            Err(error) => Err((error, job)),
        }
    }

    /// Begins to wait, and gives the errand to who does it.
    fn send(
        &self,
        job: J,
        home: Home,
        to: impl FnOnce(Box<dyn Errand>) -> Result<Under, (io::Error, Box<dyn Errand>)>,
        cx: &mut Context<'_>,
    ) -> Stage<J> {
        let in_flight = InFlight::new(home);
        let call = sync::Arc::new(Call { park: Park::new(), state: Mutex::new(State::Waits), in_flight });
        let wait = Wait { abort: Abort::Ask, ..Wait::new(self.reason).at(self.place) };
        // SAFETY: [OWNER].
        if unsafe { call.park().begin(cx, wait) }.is_err() {
            // SAFETY: [OWNER]; nobody else has it.
            unsafe { call.park.end() };
            call.in_flight.end();
            return Stage::Cancelled(job);
        }
        let errand = Box::new(Running { job, call: call.clone() });
        let under = match to(errand) {
            Ok(under) => Some(under),
            Err((error, errand)) => {
                errand.done(Err(error));
                None
            }
        };
        Stage::Waits { call, under, asked: false }
    }

    /// The first poll, with who does it being played.
    #[cfg(trefoil_loom)]
    pub fn begin_with(
        &mut self,
        home: Home,
        to: impl FnOnce(Box<dyn Errand>) -> Result<Under, (io::Error, Box<dyn Errand>)>,
        cx: &mut Context<'_>,
    ) {
        let Stage::New(job) = std::mem::replace(&mut self.stage, Stage::Over) else { panic!("it has begun") };
        self.stage = self.send(job, home, to, cx);
    }
}

impl<J: Job> Future for Slow<J> {
    type Output = (io::Result<usize>, J);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if matches!(this.stage, Stage::New(_)) {
            let Stage::New(job) = std::mem::replace(&mut this.stage, Stage::Over) else { unreachable!("just looked") };
            match this.begin(job, cx) {
                Ok(stage) => this.stage = stage,
                Err((error, job)) => return Poll::Ready((Err(error), job)),
            }
            if matches!(this.stage, Stage::Waits { under: Some(_), .. }) {
                return Poll::Pending;
            }
        }
        if let Stage::Waits { call, under, asked } = &mut this.stage {
            // SAFETY: [OWNER]. No cancel ends it: it was begun as `Abort::Ask`.
            if unsafe { call.park().poll(cx) }.is_pending() {
                if !*asked && call.park.cancel_asked() {
                    *asked = true;
                    if let Some(under) = under {
                        under.cancel();
                    }
                }
                return Poll::Pending;
            }
            call.in_flight.end();
            let State::Over(result, job) = std::mem::replace(&mut *call.state.lock(), State::Taken) else {
                unreachable!("[FOUND]: completed with the outcome, which is taken once")
            };
            let ended = matches!(&result, Err(error) if error.raw_os_error() == Some(ECANCELED));
            this.stage = match ended {
                true if *asked => Stage::Cancelled(job),
                true => {
                    this.stage = Stage::Over;
                    let why = "the run in which this was begun is over, and has ended it";
                    return Poll::Ready((Err(io::Error::other(why)), job));
                }
                false => {
                    this.stage = Stage::Over;
                    return Poll::Ready((result, job));
                }
            };
        }
        if let Stage::Cancelled(_) = this.stage {
            let cancelled = ready!(poll_cancelled(this.place));
            let Stage::Cancelled(job) = std::mem::replace(&mut this.stage, Stage::Over) else {
                unreachable!("just looked")
            };
            return Poll::Ready((Err(cancelled.into()), job));
        }
        panic!("polled after it was ready")
    }
}

impl<J: Job> Drop for Slow<J> {
    fn drop(&mut self) {
        if let Stage::Waits { call, under, .. } = &self.stage {
            call.leave();
            if let Some(under) = under {
                under.cancel();
            }
        }
    }
}
