//! Starting a run.

use crate::reactor::{DriverKind, Reactor, Settings, UnknownDriver};
use std::future::Future;
use std::io;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use trefoil_runtime::{Deadlock, Detection, Instrument, Instruments, Limits, Options};

/// Runs a future to its end on the calling thread, with everything: tasks, scopes, timers, I/O.
///
/// Nobody is asked for `Send` or `'static`. It is [`Builder::run`] of a [`Builder`] that nothing was told.
///
/// # Examples
/// ```
/// let text = String::from("borrowed");
/// let length = trefoil_io::run(async { text.len() });
/// assert_eq!(length, 8);
/// ```
///
/// # Panics
/// With the panic of the future; inside of another run on the same thread; where no driver can be had; and with a report where nothing can
/// go on any more (N10). [`Builder::try_run`] returns the latter three as errors.
#[doc(alias = "block_on")]
#[track_caller]
pub fn run<F: Future>(main: F) -> F::Output {
    Builder::new().run(main)
}

/// Why a run did not start, or was ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A run is going on on this thread.
    #[error(
        "a run was started inside of a run, on the same thread: await the future instead, or start the run on a thread of its own"
    )]
    Nested,
    /// The driver that was asked for cannot be had; or none can.
    #[error("the {driver} driver, wanted by {wanted_by}, cannot be had: {source}")]
    DriverUnavailable {
        /// Which one.
        driver: DriverKind,
        /// Who asked for it: the builder, or the environment.
        wanted_by: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The environment asks for a driver that does not exist.
    #[error("TREFOIL_DRIVER: {0}")]
    UnknownDriver(#[from] UnknownDriver),
    /// Every task waits, and nothing can wake one (N10).
    #[error("{0}")]
    Deadlock(Deadlock),
}

/// How a run is set up.
///
/// # Examples
/// ```
/// use trefoil_io::{Builder, DriverKind};
///
/// let sum = Builder::new().driver(DriverKind::Epoll).try_run(async { 1 + 1 })?;
/// assert_eq!(sum, 2);
/// # Ok::<(), trefoil_io::RunError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it runs something"]
pub struct Builder {
    settings: Settings,
    options: Options,
    instruments: Instruments,
    dump: bool,
}

/// A task that runs for so long is named, unless the builder says otherwise.
const BLOCKED_AFTER: Duration = Duration::from_millis(100);

impl Default for Builder {
    fn default() -> Self {
        let livelock = Some(Limits::default());
        let options =
            Options { deadlock: Detection::Proven, livelock, blocked_after: Some(BLOCKED_AFTER), ..Options::default() };
        Self { settings: Settings::default(), options, instruments: Instruments::default(), dump: false }
    }
}

impl Builder {
    /// The best driver that there is, and real time.
    pub fn new() -> Self {
        Self::default()
    }

    /// After how long a task that has not yielded is named, in a warning (`tracing`): 100 ms by default; `None`: never. Such a task holds up
    /// everything else in its run: it blocks its thread, where it should be on a thread of its own, or it computes for too long
    /// without a [`checkpoint`](trefoil_runtime::checkpoint).
    ///
    /// It is said once while it lasts, with the place where the task was spawned, and again with the whole length when it is over. What lasts
    /// for one and a half times the limit is always found, and what is shorter than the limit never; the length is told to half of the limit. One
    /// thread of the process sees to this for all runs: it looks twice within the limit, and sleeps while they do. That costs a loop one store for
    /// each poll. The time is that of the machine, under virtual time too. Short limits have a price on a core that often goes idle for less
    /// than a millisecond: with a timer of a few milliseconds ahead it wakes later (one connection's echo by some 7 % on a virtual machine).
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use trefoil_io::Builder;
    ///
    /// Builder::new().blocked_after(Some(Duration::from_millis(10))).run(async {
    ///     std::thread::sleep(Duration::from_millis(50)); // a warning: the main task src/main.rs:4
    /// });
    /// ```
    pub fn blocked_after(mut self, limit: Option<Duration>) -> Self {
        self.options.blocked_after = limit;
        self
    }

    /// When a run in which every task waits is ended as a deadlock (N10): where it is certain, by default. See [`Detection`].
    ///
    /// Then the run is cancelled, so that its tasks clean up, and ends when its main future has; what still waits after that is dropped.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use trefoil_io::{Builder, RunError};
    /// use trefoil_nursery::Event;
    /// use trefoil_runtime::Detection;
    ///
    /// // No other thread of this program has to do with the run.
    /// let builder = Builder::new().deadlock(Detection::After(Duration::from_millis(10)));
    /// let ended = builder.try_run(async { Event::new().wait().await });
    /// let Err(RunError::Deadlock(report)) = ended else { panic!("it waits for ever") };
    /// assert_eq!(report.tasks().len(), 1);
    /// assert!(report.to_string().contains("the main task"), "{report}");
    /// ```
    pub fn deadlock(mut self, detection: Detection) -> Self {
        self.options.deadlock = detection;
        self
    }

    /// Whether tasks that wait for each other end the run also while others go on (N10), once they have for a minute of virtual time, or ten seconds
    /// of real time. It is logged as a warning when it is found, in any case.
    pub fn cycles_end(mut self, end: bool) -> Self {
        self.options.cycles_end = end;
        self
    }

    /// Forces a driver, whatever `TREFOIL_DRIVER` says: one that cannot be had is then an error.
    pub fn driver(mut self, kind: DriverKind) -> Self {
        self.settings.driver = Some(kind);
        self
    }

    /// How many entries the submission queue of io_uring has. A small one is slower, and as right.
    pub fn ring_entries(mut self, entries: u32) -> Self {
        self.settings.ring_entries = Some(entries);
        self
    }

    /// For how long a loop with nothing to do looks for events, again and again, before it sleeps. Zero by default.
    ///
    /// It answers sooner, since it need not be woken, and keeps a core busy meanwhile: for a program that has cores to spare and few connections.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use trefoil_io::Builder;
    ///
    /// Builder::new().spin(Duration::from_micros(50)).run(async {});
    /// ```
    pub fn spin(mut self, spin: Duration) -> Self {
        self.options.spin = spin;
        self
    }

    /// Time stands still while anything can run, and then jumps to the next deadline: for tests.
    pub fn virtual_time(mut self, virtual_time: bool) -> Self {
        self.options.virtual_time = virtual_time;
        self
    }

    /// When a run that is busy and gets nowhere is reported, by a warning: after a million turns and 5 seconds by default. `None`: never.
    /// See [`Limits`].
    pub fn livelock(mut self, limits: Option<Limits>) -> Self {
        self.options.livelock = limits;
        self
    }

    /// Installs an instrument from the begin of the run: it sees the life of every task (R116).
    ///
    /// A clone of the builder has the same one. `trefoil::add_instrument` installs one in a run that is going on.
    ///
    /// # Examples
    /// ```
    /// use std::sync::{Arc, Mutex};
    /// use trefoil_io::Builder;
    /// use trefoil_runtime::{Instrument, TaskInfo};
    ///
    /// #[derive(Default)]
    /// struct Polls(Mutex<u32>);
    ///
    /// impl Instrument for Polls {
    ///     fn before_poll(&self, _: &TaskInfo) {
    ///         *self.0.lock().unwrap() += 1;
    ///     }
    /// }
    ///
    /// let polls = Arc::new(Polls::default());
    /// Builder::new().instrument(polls.clone()).run(async {});
    /// assert_eq!(*polls.0.lock().unwrap(), 1);
    /// ```
    pub fn instrument(mut self, instrument: impl Instrument + Send + Sync + 'static) -> Self {
        self.instruments.push(Arc::new(instrument));
        self
    }

    /// Prints the task trees of all runs of the process to the standard error at each `SIGQUIT` (in a terminal: ctrl and `\`), instead of ending
    /// the process. A thread of its own does it, so also while a loop is stuck in a task. It stays so after the run.
    ///
    /// `TREFOIL_DUMP=1` in the environment does the same for a program that does not ask for it; `TREFOIL_DUMP=usr1` and `usr2` do it at
    /// another signal.
    ///
    /// # Examples
    /// ```no_run
    /// // kill -QUIT shows where it hangs.
    /// trefoil_io::Builder::new().dump_on_signal().run(async { std::future::pending::<()>().await });
    /// ```
    pub fn dump_on_signal(mut self) -> Self {
        self.dump = true;
        self
    }

    /// Runs a future to its end on the calling thread.
    ///
    /// # Examples
    /// ```
    /// let answer = trefoil_io::Builder::new().run(async { 42 });
    /// assert_eq!(answer, 42);
    /// ```
    ///
    /// # Panics
    /// With the panic of the future, and where [`try_run`](Self::try_run) returns an error: if it cannot go on, with the report (N10).
    #[track_caller]
    pub fn run<F: Future>(self, main: F) -> F::Output {
        match self.try_run(main) {
            Ok(output) => output,
            Err(error) => panic!("{error}"),
        }
    }

    /// Runs a future to its end on the calling thread; an error if it could not be started, or cannot go on.
    ///
    /// # Examples
    /// ```
    /// use trefoil_io::{Builder, RunError};
    ///
    /// let inner = trefoil_io::run(async { Builder::new().try_run(async {}) });
    /// assert!(matches!(inner, Err(RunError::Nested)));
    /// ```
    ///
    /// # Errors
    /// See [`RunError`].
    ///
    /// # Panics
    /// With the panic of the future.
    #[track_caller]
    pub fn try_run<F: Future>(self, main: F) -> Result<F::Output, RunError> {
        let place = Location::caller();
        if trefoil_runtime::in_run() {
            return Err(RunError::Nested);
        }
        crate::dump::as_the_environment_says();
        if self.dump
            && let Err(error) = crate::dump::on(libc::SIGQUIT)
        {
            trefoil_runtime::report_warn!(%error, "the task trees are not printed at a signal");
        }
        let reactor = Reactor::new(self.settings)?;
        trefoil_runtime::try_run(Rc::new(reactor), self.options, self.instruments, place, main)
            .map_err(RunError::Deadlock)
    }
}
