//! The harness of the integration tests. [`run`] is the only place where a test starts a run, so that every test can be run on
//! every driver.
//!
//! `TREFOIL_TEST_DRIVERS` names the drivers to run each test on, one after the other, by comma; all of them by default:
//! `thread` (the one without I/O), `epoll`, `io_uring`, and `io_uring:4`, a ring of 4 entries.
//!
//! Every run is checked at its end: no task, scope, wait, timer or operation in flight may be left over. A run that hangs is ended,
//! with a message, after [`HANG`].

mod every_await;
mod log;

pub use every_await::{End, How, at_every_await, stop, stops};
pub use log::{Log, listen, listen_everywhere};

use std::cell::Cell;
use std::fmt::Display;
use std::future::{Future, poll_fn};
use std::panic::Location;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Mutex, mpsc};
use std::task::Poll;
use std::time::{Duration, Instant};
use trefoil_io::{Builder, DriverKind, RunError};
use trefoil_nursery::{CancelScope, Cancelled, now};
use trefoil_runtime::{Deadlock, Detection, Instruments, Options, ThreadDriver};

/// How long a run may take before the test process is ended.
pub const HANG: Duration = Duration::from_secs(120);

/// After how long a run in which every task waits is ended, with a report (N10). Real time: threads of the tests may be at work meanwhile.
pub const QUIET: Duration = Duration::from_secs(15);

/// What a task or a body returns that is there for what it does, and not for a value.
pub type Ended = Result<(), Cancelled>;

/// What an operation returns in a cancelled scope.
pub const CANCELLED: Cancelled = Cancelled::delivered();

/// Milliseconds.
pub const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// What a test runs on.
#[derive(Clone, Debug)]
enum On {
    /// The driver without I/O.
    Thread,
    /// A reactor, with so many entries where it is a ring.
    Reactor(DriverKind, Option<u32>),
}

/// The drivers that each test runs on, by name.
fn drivers() -> Vec<(String, On)> {
    let names = std::env::var("TREFOIL_TEST_DRIVERS").unwrap_or_else(|_| "thread,epoll,io_uring,io_uring:4".into());
    let on = |name: &str| match name.split_once(':') {
        None if name == "thread" => On::Thread,
        None => On::Reactor(name.parse().expect("TREFOIL_TEST_DRIVERS"), None),
        Some((kind, entries)) => On::Reactor(
            kind.parse().expect("TREFOIL_TEST_DRIVERS"),
            Some(entries.parse().expect("TREFOIL_TEST_DRIVERS: a number of entries")),
        ),
    };
    names.split(',').map(|name| (name.to_string(), on(name))).collect()
}

/// Runs a test on every driver; what it returned last.
#[track_caller]
pub fn run<T>(options: Options, mut main: impl AsyncFnMut() -> T) -> T {
    let place = Location::caller();
    // Every test is run with detection: what waits for ever is a failure that says why, and a report of what goes on is one, too.
    let deadlock = match options.deadlock {
        Detection::Off => Detection::After(QUIET),
        detection => detection,
    };
    let options = Options { deadlock, cycles_end: true, ..options };
    let mut last = None;
    for (name, on) in drivers() {
        let _watch = Watch::new(format!("the test at {place} hangs on the {name} driver"));
        let program = async {
            let output = main().await;
            let left = trefoil_runtime::metrics();
            assert_eq!(
                (left.tasks, left.scopes, left.waits, left.timers, left.in_flight),
                (0, 0, 0, 0, 0),
                "left over (tasks, scopes, waits, timers, in flight) on the {name} driver"
            );
            output
        };
        match on {
            On::Thread => last = Some(trefoil_runtime::run(Rc::new(ThreadDriver::new()), options, place, program)),
            On::Reactor(kind, entries) => {
                let mut builder = Builder::new()
                    .driver(kind)
                    .virtual_time(options.virtual_time)
                    .spin(options.spin)
                    .deadlock(options.deadlock)
                    .cycles_end(options.cycles_end);
                if let Some(entries) = entries {
                    builder = builder.ring_entries(entries);
                }
                match builder.try_run(program) {
                    Ok(output) => last = Some(output),
                    Err(error @ RunError::DriverUnavailable { .. }) => println!("skipped on {name}: {error}"),
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
    last.expect("at least one driver")
}

/// Runs a program that cannot go on, on every driver: with what report each ended (N10).
#[track_caller]
pub fn deadlocks<T>(options: Options, mut main: impl AsyncFnMut() -> T) -> Vec<Deadlock> {
    let place = Location::caller();
    let mut reports = Vec::new();
    for (name, on) in drivers() {
        let _watch = Watch::new(format!("the test at {place} hangs on the {name} driver"));
        let ended = match on {
            On::Thread => {
                let driver = Rc::new(ThreadDriver::new());
                trefoil_runtime::try_run(driver, options, Instruments::default(), place, main())
            }
            On::Reactor(kind, entries) => {
                let mut builder = Builder::new()
                    .driver(kind)
                    .virtual_time(options.virtual_time)
                    .deadlock(options.deadlock)
                    .cycles_end(options.cycles_end);
                if let Some(entries) = entries {
                    builder = builder.ring_entries(entries);
                }
                match builder.try_run(main()) {
                    Ok(output) => Ok(output),
                    Err(RunError::Deadlock(deadlock)) => Err(deadlock),
                    Err(error @ RunError::DriverUnavailable { .. }) => {
                        println!("skipped on {name}: {error}");
                        continue;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        };
        reports.push(ended.err().unwrap_or_else(|| panic!("no deadlock on the {name} driver")));
    }
    assert!(!reports.is_empty(), "at least one driver");
    reports
}

/// Runs a test under a virtual clock, which jumps when nothing can run.
#[track_caller]
pub fn run_virtual<T>(main: impl AsyncFnMut() -> T) -> T {
    run(Options { virtual_time: true, ..Options::default() }, main)
}

/// Runs a test under the machine's clock.
#[track_caller]
pub fn run_real<T>(main: impl AsyncFnMut() -> T) -> T {
    run(Options::default(), main)
}

/// Ends the process if it is not dropped in time.
#[derive(Debug)]
pub struct Watch(#[allow(dead_code)] mpsc::Sender<()>);

impl Watch {
    /// From now on; `what` is said then.
    pub fn new(what: String) -> Self {
        let (alive, gone) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            if let Err(mpsc::RecvTimeoutError::Timeout) = gone.recv_timeout(HANG) {
                eprintln!("{what}: no end after {HANG:?}");
                std::process::abort();
            }
        });
        Self(alive)
    }
}

/// Who did what when: `"30 reader got 7"`, with milliseconds since it was made, in the order in which it happened.
#[derive(Debug)]
pub struct Trace {
    begin: Instant,
    lines: Mutex<Vec<(String, String)>>,
}

impl Default for Trace {
    fn default() -> Self {
        Self::new()
    }
}

impl Trace {
    /// An empty one, which begins now. In a run.
    pub fn new() -> Self {
        Self { begin: now(), lines: Mutex::new(Vec::new()) }
    }

    /// Notes what a task does.
    pub fn note(&self, task: &str, what: impl Display) {
        let line = format!("{} {task} {what}", self.ms());
        self.lines.lock().unwrap().push((task.to_string(), line));
    }

    /// Milliseconds since it began.
    pub fn ms(&self) -> u128 {
        (now() - self.begin).as_millis()
    }

    /// The instant so many milliseconds after it began.
    pub fn at(&self, n: u64) -> Instant {
        self.begin + ms(n)
    }

    /// Everything.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().iter().map(|(_, line)| line.clone()).collect()
    }

    /// What one task did.
    pub fn of(&self, task: &str) -> Vec<String> {
        self.lines.lock().unwrap().iter().filter(|(of, _)| of == task).map(|(_, line)| line.clone()).collect()
    }
}

/// Polls a future until it was pending `k` times, then drops it: `None`. With 0, it is never polled.
pub async fn drop_at<F: Future>(k: usize, future: F) -> Option<F::Output> {
    let mut future = Box::pin(future);
    let mut polls = 0;
    poll_fn(|cx| {
        if polls == k {
            return Poll::Ready(None);
        }
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => {
                polls += 1;
                if polls == k { Poll::Ready(None) } else { Poll::Pending }
            }
        }
    })
    .await
}

/// Runs a future, and does something right before its `k`-th poll (from 0). Whether that came.
pub async fn before_poll<F: Future>(k: usize, act: impl FnOnce(), future: F) -> (F::Output, bool) {
    let mut future = Box::pin(future);
    let (mut polls, mut act) = (0, Some(act));
    let output = poll_fn(|cx| {
        if polls == k
            && let Some(act) = act.take()
        {
            act();
        }
        polls += 1;
        future.as_mut().poll(cx)
    })
    .await;
    (output, act.is_none())
}

/// Runs a future in a scope that is cancelled right after the future was pending for the `k`-th time (from 1), from a turn of its
/// own; with 0 before it is entered. What it returned, as the scope lets it out, and whether the scope was cancelled.
pub async fn cancel_at<T, E, F>(k: usize, future: F) -> (Result<Option<T>, E>, bool)
where
    F: Future<Output = Result<T, E>>,
    E: trefoil_nursery::CancelAware,
{
    let scope = CancelScope::new();
    if k == 0 {
        scope.cancel();
    }
    let mut run = Box::pin(scope.run(future));
    let mut polls = 0;
    let output = poll_fn(|cx| {
        let polled = run.as_mut().poll(cx);
        if polled.is_pending() {
            polls += 1;
            if polls == k {
                scope.cancel();
            }
        }
        polled
    })
    .await;
    (output, scope.cancel_called())
}

/// Counts the polls of a future.
pub fn counted<F: Future>(polls: &Cell<usize>, future: F) -> impl Future<Output = F::Output> {
    let mut future = Box::pin(future);
    poll_fn(move |cx| {
        polls.set(polls.get() + 1);
        future.as_mut().poll(cx)
    })
}

/// Polls a pinned future once, within the task that awaits this.
pub async fn poll_once<F: Future + ?Sized>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

/// A future that has been polled for the first time, within the task that awaits this, and waits.
pub async fn begun<F: Future>(future: F) -> Pin<Box<F>> {
    let mut future = Box::pin(future);
    assert!(poll_once(future.as_mut()).await.is_pending(), "it need not wait");
    future
}

/// Catches a panic's message.
pub fn panic_of(f: impl FnOnce()) -> String {
    let payload = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).expect_err("it was to panic");
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => payload.downcast_ref::<&str>().map_or_else(|| "(no text)".into(), |text| text.to_string()),
    }
}

/// Adds one to a cell when dropped.
#[derive(Debug)]
pub struct OnDrop<'a>(pub &'a std::sync::atomic::AtomicUsize);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }
}
