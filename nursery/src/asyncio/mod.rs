//! asyncio's vocabulary, with its meaning, on the same core: for programs that come from Python, and for who thinks in its terms.
//!
//! The names are asyncio's, and so is what they mean, turn for turn, as CPython 3.13 has it. Underneath is a nursery of the core: the tasks
//! of a loop are its children, and its queue is the loop's. Nothing runs that nobody owns: what is left over when main is done is
//! cancelled and awaited.

mod calls;
mod control;
mod event_loop;
mod future;
mod heap;
mod here;
mod resolver;
mod sleep;
mod task;
mod timers;
mod waiting;

pub use calls::{Handle, call_at, call_later, call_soon};
pub use event_loop::event_loop;
pub use future::{CallbackId, Future, InvalidState};
pub use resolver::{Abandoned, Resolver, create_future};
pub use sleep::sleep;
pub use task::{AnyTask, Task, all_tasks, create_task, current_task};
pub use waiting::Waiting;
