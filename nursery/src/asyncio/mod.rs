//! asyncio's vocabulary, with its meaning, on the same core: for programs that come from Python, and for who thinks in its terms.
//!
//! The names are asyncio's, and so is what they mean, turn for turn, as CPython 3.13 has it. Underneath is a nursery of the core: the tasks
//! of a loop are its children, and its queue is the loop's. Nothing runs that nobody owns: what is left over when main is done is
//! cancelled and awaited.
//!
//! A program begins with `trefoil::asyncio::run`, or inside of a run with [`event_loop`]. All of it is on one thread, and nothing of it is
//! `Send`. Async code returns a `Result` whose error can say that it is a [cancellation](crate::CancelAware), since that travels as an
//! error here as it does there: `?` passes it on, and a task that ends with it is cancelled.
//!
//! ```
//! # trefoil_nursery::doc_run(trefoil_nursery::asyncio::event_loop(async {
//! use std::{io, time::Duration};
//! use trefoil_nursery::asyncio;
//!
//! async fn fetch(page: u64) -> io::Result<u64> {
//!     asyncio::sleep(Duration::from_millis(page)).await?;
//!     Ok(page * 100)
//! }
//!
//! let pages = asyncio::timeout(Duration::from_secs(5), async |_| asyncio::gather((1..4).map(fetch)).await).await?;
//! assert_eq!(pages, [100, 200, 300]);
//! # Ok::<(), io::Error>(())
//! # })).unwrap();
//! ```
//!
//! # With the core
//!
//! All of the core works inside of a task: its sleeps, channels, locks and sockets, its scopes and nurseries. What tells them apart is the
//! cancellation, which in asyncio is an event, told once, and in the core a state of a scope. So:
//!
//! - [`Task::cancel`](Future::cancel) ends the waits of the core in the task, once; scopes and nurseries in between pass it on, and a
//!   [`shield`](crate::shield()) holds it off. After that the task may wait again.
//! - A scope of the core that is cancelled around waits of asyncio, as [`move_on_after`](crate::move_on_after) is, tells them as it does its
//!   own, each that is begun in it. What they wait for is left alone: a task that is awaited goes on, and nobody is
//!   [`cancelling`](Task::cancelling). The core sees what they wait for, in its tree and in its report of a program that cannot go on (N10).
//! - A task that is cancelled while it waits for nothing that is known here, a future of another library, is dropped where it waits (N13).
//! - When the scope around a loop is cancelled, its main task is, once (R5).
//!
//! # Where the meaning differs
//!
//! The rules that the items name (G5, C8) are those of the notes on asyncio that the tests are named after. Of these, on purpose:
//!
//! - **D-1.** A wait *of the core* that ends with a value in the instant of a cancel keeps the value, and the next wait is told: a byte that was
//!   read is not lost. Waits of asyncio are as in CPython (C9), where the value stays in the future.
//! - **D-3.** Errors that [`gather`](fn@gather) drops after its first (G7) are not thought to be seen: like any error of a task, they are reported
//!   through `tracing` when the last handle goes and nobody has looked.
//! - **D-5.** A wait that nobody can end any more ends with an error: that for a future whose [`Resolver`] was dropped ([`Abandoned`]).
//! - **D-7.** Where asyncio goes through a set, those that [`wait`](fn@wait) and [`as_completed`] were given, or the tasks of a group, it is here in
//!   the order of the arguments, or of their creation. In CPython it is that of addresses, which is another one in another run.
//! - **D-9.** A cancelled [`to_thread`] waits for its thread, which nobody can stop: what it does is done when the call returns. To abandon it
//!   is said: [`OnCancel::Abandon`].
//!
//! And what follows from Rust: an error has one owner, so that what others see of one that was taken is a
//! [copy](crate::CancelAware::to_copy); and a panic is Python's `KeyboardInterrupt`, which ends the loop, here when all tasks have ended.

mod as_completed;
mod awaitable;
mod background;
mod barrier;
mod calls;
mod condition;
mod control;
mod event;
mod event_loop;
mod future;
mod gather;
mod group;
mod heap;
mod here;
mod lock;
mod loop_handle;
mod queue;
mod resolver;
mod semaphore;
mod shield;
mod sleep;
mod task;
mod threads;
mod timeout;
mod timers;
mod unhandled;
mod wait;
mod waiters;
mod waiting;

#[doc(inline)]
pub use crate::__asyncio_gather as gather;
pub use as_completed::{AsCompleted, as_completed};
pub use awaitable::{Awaitable, Ensured, Waitable, ensure_future};
#[doc(hidden)]
pub use background::background;
pub use barrier::{Barrier, BarrierError};
pub use calls::{Handle, call_at, call_later, call_soon};
pub use condition::{Condition, ConditionGuard, WaitError};
pub use event::Event;
pub use event_loop::{EventLoop, event_loop};
pub use future::{CallbackId, Future, InvalidState};
#[doc(hidden)]
pub use gather::{GatherTuple, gather_tuple};
pub use gather::{gather, gather_settled};
pub use group::{GroupClosed, TaskGroup, task_group};
pub use lock::{Lock, LockGuard, NotLocked};
pub use loop_handle::{LoopClosed, LoopHandle, RemoteError, RemoteTask, get_running_loop, run_coroutine_threadsafe};
pub use queue::{
    Fifo, GetError, GetNowaitError, Least, Lifo, LifoQueue, Order, PriorityQueue, PutError, PutNowaitError, Queue,
    TooManyDone,
};
#[doc(hidden)]
pub use resolver::create_future_for;
pub use resolver::{Abandoned, Resolver, create_future};
pub use semaphore::{BoundedPermit, BoundedSemaphore, OverReleased, Permit, Semaphore};
pub use shield::shield;
pub use sleep::sleep;
pub use task::{AnyTask, Task, TaskBuilder, all_tasks, create_task, current_task};
pub use threads::{OnCancel, run_in_executor, set_executor_timeout, to_thread};
pub use timeout::{NotActive, Timeout, timeout, timeout_at, wait_for};
pub use unhandled::{ExceptionHandler, Unhandled, exception_handler, set_exception_handler};
pub use wait::{Waited, When, wait};
pub use waiting::Waiting;
