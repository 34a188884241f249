//! What people look with: the library's account of itself, for who asks what a program does, and for a program that does nothing.
//!
//! - [`snapshot`]: the task tree, as data and as text; [`onlook`]: how another thread may walk the lists of tasks for it
//! - [`deadlock`]: programs that cannot go on, over the [`wait_graph`], and [`threads`], who else could wake a task;
//!   [`livelock`]: those that run and get nowhere; [`watchdog`]: a task that holds up its loop
//! - [`instrument`]: who is told of the life of tasks; [`woken_by`]: who woke one, for a record
//! - [`report`]: warnings that must not be lost
//!
//! What they look at is noted as it happens: who has what others wait for in [`holders`], what each task has in [`holdings`], events in
//! [`record`]; and, outside of here, what a wait is for in `reason`.

pub(crate) mod deadlock;
#[cfg_attr(trefoil_loom, allow(dead_code))]
pub(crate) mod holders;
pub mod holdings;
pub(crate) mod instrument;
pub(crate) mod livelock;
pub(crate) mod onlook;
pub(crate) mod record;
pub mod report;
pub(crate) mod snapshot;
#[cfg_attr(trefoil_loom, allow(dead_code, unused_imports))]
pub(crate) mod threads;
pub(crate) mod wait_graph;
pub(crate) mod watchdog;
pub(crate) mod woken_by;
