//! asyncio's vocabulary, with its meaning, on the same core: for programs that come from Python, and for who thinks in its terms.
//!
//! The names are asyncio's, and so is what they mean, turn for turn, as CPython 3.13 has it. Underneath is a nursery of the core: the tasks
//! of a loop are its children, and its queue is the loop's. Nothing runs that nobody owns: what is left over when main is done is
//! cancelled and awaited.

mod as_completed;
mod awaitable;
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
mod queue;
mod resolver;
mod semaphore;
mod shield;
mod sleep;
mod task;
mod timeout;
mod timers;
mod wait;
mod waiters;
mod waiting;

#[doc(inline)]
pub use crate::__asyncio_gather as gather;
pub use as_completed::{AsCompleted, as_completed};
pub use awaitable::{Awaitable, Ensured, Waitable, ensure_future};
pub use barrier::{Barrier, BarrierError};
pub use calls::{Handle, call_at, call_later, call_soon};
pub use condition::{Condition, ConditionGuard, WaitError};
pub use event::Event;
pub use event_loop::event_loop;
pub use future::{CallbackId, Future, InvalidState};
#[doc(hidden)]
pub use gather::{GatherTuple, gather_tuple};
pub use gather::{gather, gather_settled};
pub use group::{GroupClosed, TaskGroup, task_group};
pub use lock::{Lock, LockGuard, NotLocked};
pub use queue::{
    Fifo, GetError, GetNowaitError, Least, Lifo, LifoQueue, Order, PriorityQueue, PutError, PutNowaitError, Queue,
    TooManyDone,
};
pub use resolver::{Abandoned, Resolver, create_future};
pub use semaphore::{BoundedPermit, BoundedSemaphore, OverReleased, Permit, Semaphore};
pub use shield::shield;
pub use sleep::sleep;
pub use task::{AnyTask, Task, TaskBuilder, all_tasks, create_task, current_task};
pub use timeout::{NotActive, Timeout, timeout, timeout_at, wait_for};
pub use wait::{Waited, When, wait};
pub use waiting::Waiting;
