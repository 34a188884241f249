//! Structured concurrency for Rust: nurseries, cancel scopes and deadlines, on an io_uring or epoll reactor.
//!
//! ```
//! use std::{io, time::Duration};
//! use trefoil::net::{TcpListener, TcpStream};
//! use trefoil::{move_on_after, nursery};
//!
//! fn main() -> io::Result<()> {
//!     trefoil::run(async {
//!         let listener = TcpListener::bind("127.0.0.1:0")?;
//!         let greeting = String::from("hello");
//!         nursery(async |n| -> io::Result<()> {
//!             // Both children borrow from this function. Neither outlives the nursery.
//!             n.spawn(async {
//!                 let (mut stream, _) = listener.accept().await?;
//!                 stream.write_all(greeting.as_bytes()).await
//!             });
//!             let mut stream = TcpStream::connect(listener.local_addr()?).await?;
//!             let mut answer = [0; 5];
//!             let in_time = move_on_after(Duration::from_secs(1), stream.read_exact(&mut answer)).await?;
//!             assert!(in_time.is_some());
//!             assert_eq!(&answer, b"hello");
//!             Ok(())
//!         })
//!         .await?;
//!         Ok(())
//!     })
//! }
//! ```
//!
//! # Where to start
//!
//! - [`run`] and [`Builder`], or [`main`]: from a program to its first future
//! - [`nursery`] and [`local_nursery`]: where tasks come from, and where every one of them ends
//! - [`move_on_after`], [`fail_after`], [`shield`], [`CancelScope`]: deadlines and cancellation; [`until_soft_cancelled`]: to stop politely
//! - [`race`], [`first_success`], [`join()`], [`until`]: several futures side by side; [`generator`]: items on demand
//! - [`with_cleanup`], [`Nursery::service`]: what ends last
//! - [`sleep`], [`checkpoint`], [`Event`], [`channel()`], and the locks of the module [`sync`]: what tasks wait for
//! - [`task_local!`]: values that tasks inherit
//! - the module [`asyncio`]: the names and meanings of Python's asyncio, on the same core
//! - the module [`net`]: TCP; the module [`fs`]: files
//! - [`run_handle`]: closures from other threads
//! - [`tree`] and [`metrics`]: what a program is doing; [`Instrument`]: what its tasks did
//! - [`test`] and the module [`testing`]: virtual time, schedules by seed, cancel sweeps
//!
//! Trefoil is made of crates, and the example of an item names the one that it is in: `use trefoil_nursery::sleep`. Write
//! `trefoil::sleep` instead, as for all that is listed here, and `trefoil::testing` for `trefoil_testing`. The book,
//! in `book/src/first_program.md`, goes from a first program to a server.
//!
//! # The rules in five lines
//!
//! A scope is cancelled by its handle, by its deadline, or because a child of its nursery failed. From then on every operation in it
//! returns [`Cancelled`]; pass it on with `?`. The scope absorbs it at its exit. A [`shield`] holds it off, for clean-up that has to
//! wait. An operation that returned [`Cancelled`] had no effect.

pub mod asyncio;

#[cfg(feature = "inspect")]
#[doc(inline)]
pub use trefoil_inspect as inspect;
pub use trefoil_io::{Builder, DriverKind, IoBuf, IoBufMut, OperationError, RunError, UnknownDriver, fs, net, run};
pub use trefoil_nursery::*;
pub use trefoil_runtime::{
    BlockedTask, BlockedWait, Coalesced, Deadlock, Detection, HoldView, Holder, Holding, Instrument, InstrumentHandle,
    Limits, Metrics, Reason, Role, RunFinished, RunHandle, ScopeView, ServiceThread, TaskInfo, TaskRef, TaskState,
    TaskView, WaitView, WakeSources, add_instrument, metrics, run_handle, tree, trees, wake_sources,
};
#[doc(inline)]
pub use trefoil_testing as testing;

/// Runs an `async fn main` to its end, with everything: tasks, scopes, timers, I/O. It stands for [`Builder::run`].
///
/// | option | |
/// | --- | --- |
/// | `driver = "epoll"`, `driver = "io_uring"` | that one, or an error; see [`Builder::driver`] |
/// | `ring_entries = 64` | see [`Builder::ring_entries`] |
///
/// ```
/// use std::{io, time::Duration};
///
/// #[trefoil::main]
/// async fn main() -> io::Result<()> {
///     trefoil::sleep(Duration::from_millis(1)).await?;
///     Ok(())
/// }
/// ```
/// The function is `async`, and has no arguments:
/// ```compile_fail
/// #[trefoil::main]
/// fn main() {}
/// ```
/// ```compile_fail
/// #[trefoil::main]
/// async fn main(clover: u8) {}
/// ```
/// A driver is one that there is:
/// ```compile_fail
/// #[trefoil::main(driver = "kqueue")]
/// async fn main() {}
/// ```
#[cfg(feature = "macros")]
pub use trefoil_macros::main;

/// Makes an `async fn` a test: under a virtual clock, in an order that follows from a seed, without I/O; see [`testing::run`]. Or, with
/// `real`, as [`run`] does.
///
/// It returns `()` or `Result<(), E>` with `E: Debug`. Other attributes (`#[ignore]`, `#[should_panic]`) go with it.
///
/// | option | |
/// | --- | --- |
/// | (none) | the ordinary order, first in, first out |
/// | `seeds = 100` | once in the ordinary order, and in 99 others: see [`testing::seeds`] |
/// | `seed = 7` | in this order |
/// | `real` | with I/O and the machine's clock, on the best driver or that of `TREFOIL_DRIVER` |
/// | `driver = "epoll"`, `driver = "io_uring"` | the same, on that one |
///
/// A test that cannot go on fails with a report (N10): when some of its tasks wait for each other, or when all wait and nothing can come. At
/// once, if no other thread is there but the harness's own, as where one test is run alone; else after a second, or five with `real`, since a
/// thread may be at work on what will come, and that of another test cannot be told from it.
///
/// When a test fails, its seed is printed; `TREFOIL_SEED=7 cargo test` runs all tests in that order.
///
/// ```
/// use std::{io, time::Duration};
/// use trefoil::net::{TcpListener, TcpStream};
/// use trefoil::{CancelledOrTimedOut, fail_after, sleep_forever};
///
/// #[trefoil::test(seeds = 100)]
/// async fn a_minute_is_over_at_once() {
///     let late = fail_after(Duration::from_secs(60), sleep_forever()).await;
///     assert!(matches!(late, Err(CancelledOrTimedOut::TimedOut(_))));
/// }
///
/// #[trefoil::test(real)]
/// async fn connects() -> io::Result<()> {
///     let listener = TcpListener::bind("127.0.0.1:0")?;
///     TcpStream::connect(listener.local_addr()?).await?;
///     Ok(())
/// }
/// ```
/// An order by seed comes with virtual time:
/// ```compile_fail
/// #[trefoil::test(real, seeds = 100)]
/// async fn connects() {}
/// ```
/// It is a test already:
/// ```compile_fail
/// #[trefoil::test]
/// #[test]
/// async fn twice() {}
/// ```
#[cfg(feature = "macros")]
pub use trefoil_macros::test;

/// What the attributes stand for.
#[cfg(feature = "macros")]
#[doc(hidden)]
pub mod __private {
    use crate::testing::Verdict;
    use crate::{Builder, Detection, DriverKind, ServiceThread};
    use std::time::Duration;

    /// To be kept while a test runs. `#[test]` is libtest's: the first thread of the process is that which starts the tests and waits for them, and
    /// holds nothing of any run.
    pub fn in_harness() -> ServiceThread {
        ServiceThread::of_harness()
    }

    /// After how long a test in which nothing can come is ended, if there are threads that may be at work on what will come, or other tests.
    const QUIET: Duration = Duration::from_secs(5);

    /// A test with I/O and the machine's clock.
    #[track_caller]
    pub fn real_test<T: Verdict>(driver: Option<DriverKind>, test: impl AsyncFnOnce() -> T) {
        let builder = Builder::new().deadlock(Detection::After(QUIET)).cycles_end(true);
        let builder = if let Some(kind) = driver { builder.driver(kind) } else { builder };
        if let Some(failure) = builder.run(test()).failure() {
            panic!("{failure}");
        }
    }
}
