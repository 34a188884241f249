//! Runs for tests: virtual time, an order by seed, a report instead of a hang.

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::rc::Rc;
use std::time::Duration;
use trefoil_runtime::{Detection, Limits, Options, Order, ThreadDriver};

/// The environment variable whose seed is used instead of any other.
const VARIABLE: &str = "TREFOIL_SEED";

/// Runs a future to its end under a virtual clock, in an order that follows from the seed.
///
/// Time stands still while anything can run, and jumps to the next deadline when nothing can (R51, R52). The same seed gives the same
/// order, always (R87). Seed 0 is the ordinary one: first in, first out (N4). Under any other, each batch of tasks that can run, in the
/// run and in each nursery, is shuffled, and operations that need not wait give up their turn at random, as they may (N11).
///
/// If the future panics, the seed is printed, with how to see it again: `TREFOIL_SEED=7` in the environment overrides every seed.
///
/// There is no I/O in it; see [`memory_stream_pair`](crate::memory_stream_pair) instead. Threads may wake it, but time does not wait for
/// them.
///
/// # Panics
/// With the panic of the future. If every task waits and nothing can come, with the task tree: who waits for what, and where (N10).
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use trefoil_nursery::sleep;
///
/// let slept = trefoil_testing::run(7, async {
///     sleep(Duration::from_secs(86_400)).await.is_ok()
/// });
/// assert!(slept);
/// ```
/// A deadlock is no hang:
/// ```should_panic
/// let never = trefoil_nursery::Event::new();
/// trefoil_testing::run(0, never.wait()).unwrap(); // deadlock (N10): … waits for an event (made at …) at …
/// ```
#[track_caller]
pub fn run<F: Future>(seed: u64, future: F) -> F::Output {
    Builder::new().seed(seed).run(future)
}

/// Runs a test once under each of several seeds; see [`run`]. `0..100` has the ordinary order in it, and 99 others.
///
/// # Panics
/// As [`run`], and with the error of a test that returns one, at the place of the call.
///
/// # Examples
/// ```
/// use trefoil_nursery::{Cancelled, checkpoint};
///
/// trefoil_testing::seeds(0..10, async || -> Result<(), Cancelled> {
///     checkpoint().await?;
///     Ok(())
/// });
/// ```
#[track_caller]
pub fn seeds<T: Verdict>(seeds: impl IntoIterator<Item = u64>, mut test: impl AsyncFnMut() -> T) {
    let seeds: Vec<u64> = match from_environment() {
        Some(seed) => vec![seed],
        None => seeds.into_iter().collect(),
    };
    for seed in seeds {
        let _again = Again::new(seed);
        let verdict = Builder::new().seed(seed).run_once(async { test().await });
        // Outside of the run, for the place of the caller: it is the test that failed, and not a line in here.
        if let Some(failure) = verdict.failure() {
            panic!("{failure}");
        }
    }
}

/// What a test returns: nothing, or a result.
#[diagnostic::on_unimplemented(
    message = "a test returns `()` or `Result<(), E>` with `E: Debug`, and not `{Self}`",
    label = "this is no verdict on a test"
)]
pub trait Verdict {
    /// Why it failed, if it did.
    fn failure(self) -> Option<String>;
}

impl Verdict for () {
    fn failure(self) -> Option<String> {
        None
    }
}

impl<E: fmt::Debug> Verdict for Result<(), E> {
    fn failure(self) -> Option<String> {
        self.err().map(|error| format!("the test returned an error: {error:?}"))
    }
}

/// How a run for a test is set up.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use trefoil_nursery::{Cancelled, nursery, now, sleep};
/// use trefoil_testing::{Builder, Clock};
///
/// // Time that is moved by hand alone.
/// Builder::new().autojump(None).run(async {
///     let begin = now();
///     nursery(async |n| -> Result<(), Cancelled> {
///         n.spawn(sleep(Duration::from_secs(60)));
///         Clock::current().advance(Duration::from_secs(61)).await
///     })
///     .await
///     .unwrap();
///     assert_eq!(now() - begin, Duration::from_secs(61));
/// });
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it runs something"]
pub struct Builder {
    options: Options,
    seed: u64,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// The ordinary order, virtual time that jumps at once, and a deadlock reported after a second.
    pub fn new() -> Self {
        let deadlock = Detection::After(Duration::from_secs(1));
        // Time stands still while it is busy: turns count alone.
        let livelock = Some(Limits { time: Duration::ZERO, ..Limits::default() });
        let options = Options { virtual_time: true, deadlock, cycles_end: true, livelock, ..Options::default() };
        Self { options, seed: 0 }
    }

    /// The order in which tasks are polled; see [`run`]. `TREFOIL_SEED` overrides it.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// First in, first out; and an operation that need not wait gives up its turn if its task has done one before in this turn. So each
    /// operation is an await that a sweep can stop. A seed in the environment overrides this too.
    pub(crate) fn each_turn(mut self) -> Self {
        self.options.order = Order::EachTurn;
        self
    }

    /// After how much real time in which nothing could run virtual time jumps; `None`: it is moved by [`Clock`](crate::Clock) alone.
    ///
    /// Give it some where threads of your own have a part in the test.
    pub fn autojump(mut self, after: Option<Duration>) -> Self {
        self.options.autojump = after.unwrap_or(Duration::MAX);
        self
    }

    /// After how much real time in which nothing could run, and nothing was going to come, the run is ended as a deadlock; `None`: never.
    ///
    /// It is real time since another thread may still be at work on what will wake the run. A test without threads needs none; and where no other
    /// thread is there, it does not wait for so long. The one on which `cargo test` waits for its tests does not count under `#[trefoil::test]`.
    pub fn deadlock_after(mut self, after: Option<Duration>) -> Self {
        self.options.deadlock = after.map_or(Detection::Off, Detection::After);
        self
    }

    /// Whether tasks that wait for each other end the run, with a report, also while others go on (N10). They do, when they have for a minute of
    /// virtual time and nobody has cancelled them or given them what they want, unless this says no.
    pub fn cycles_end(mut self, end: bool) -> Self {
        self.options.cycles_end = end;
        self
    }

    /// A task that runs for so long without yielding is an error: the run ends with a panic that names the task, once it has yielded.
    /// `None`, the default: it is not, since a machine that is busy elsewhere lets every task run for long. It is real time.
    ///
    /// # Examples
    /// ```should_panic
    /// use std::time::Duration;
    ///
    /// let limit = Some(Duration::from_millis(20));
    /// trefoil_testing::Builder::new().blocked_after(limit).run(async {
    ///     std::thread::sleep(Duration::from_millis(200)); // the main task held up its loop for 200 ms
    /// });
    /// ```
    pub fn blocked_after(mut self, limit: Option<Duration>) -> Self {
        self.options.blocked_after = limit;
        self.options.blocked_is_error = true;
        self
    }

    /// Runs a future to its end on the calling thread; see [`run`].
    ///
    /// # Panics
    /// As [`run`](crate::run).
    #[track_caller]
    pub fn run<F: Future>(mut self, future: F) -> F::Output {
        self.seed = from_environment().unwrap_or(self.seed);
        let _again = Again::new(self.seed);
        self.run_once(future)
    }

    /// The same where the environment was looked at, and the seed of a failure is printed already.
    #[track_caller]
    fn run_once<F: Future>(mut self, future: F) -> F::Output {
        if self.seed != 0 {
            self.options.order = Order::Shuffled(self.seed);
        }
        trefoil_runtime::run(Rc::new(ThreadDriver::new()), self.options, Location::caller(), future)
    }
}

/// Says how to see a failure again.
struct Again {
    seed: u64,
    before: bool,
}

impl Again {
    fn new(seed: u64) -> Self {
        Self { seed, before: std::thread::panicking() }
    }
}

impl Drop for Again {
    fn drop(&mut self) {
        // Without a seed the order is the ordinary one, and nothing has to be said to see it again.
        if std::thread::panicking() && !self.before && self.seed != 0 {
            let seed = self.seed;
            let thread = std::thread::current();
            let test = thread.name().filter(|name| *name != "main").unwrap_or("");
            eprintln!("trefoil: it failed under the seed {seed}. To see it again: {VARIABLE}={seed} cargo test {test}");
        }
    }
}

/// The seed that the environment asks for.
///
/// # Panics
/// If it is no number: a seed that is not used would be worse.
fn from_environment() -> Option<u64> {
    let text = std::env::var(VARIABLE).ok().filter(|text| !text.is_empty())?;
    match text.parse() {
        Ok(seed) => Some(seed),
        Err(_) => panic!("{VARIABLE}={text}: a seed is a number from 0 to {}", u64::MAX),
    }
}
