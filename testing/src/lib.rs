//! Tests of programs on Trefoil, quick and repeatable.
//!
//! Users name this module `trefoil::testing`.
//!
//! - [`run`] and [`Builder`]: a run under a virtual clock, in an order that follows from a seed, which reports a deadlock instead of
//!   hanging; [`seeds`] for many orders
//! - [`Clock`] and [`wait_all_tasks_blocked`]: time moved by hand, step by step
//! - [`assert_checkpoints`], [`assert_no_checkpoints`]: whether an operation hears a cancel, and lets others run
//! - [`cancel_sweep`] and [`drop_sweep`]: stop an operation at each of its awaits, and look whether anything was lost
//! - [`memory_stream_pair`], [`lockstep_stream_pair`]: connected streams without a kernel; [`check_stream`]: whether a stream of your own
//!   does what streams have to
//!
//! A run of this module has no I/O, so that nothing in it depends on the kernel or on how busy the machine is.
//!
//! ```
//! use std::time::Duration;
//! use trefoil_nursery::{Cancelled, channel, nursery, sleep};
//!
//! // A day passes, in no time; and in a hundred orders.
//! trefoil_testing::seeds(0..100, async || -> Result<(), Cancelled> {
//!     let (tx, rx) = channel(1);
//!     nursery(async |n| -> Result<(), Cancelled> {
//!         n.spawn(async move {
//!             sleep(Duration::from_secs(86_400)).await?;
//!             tx.try_send("tick").unwrap();
//!             Ok(())
//!         });
//!         assert_eq!(rx.recv().await?, Some("tick"));
//!         Ok(())
//!     })
//!     .await?;
//!     Ok(())
//! });
//! ```

mod checkpoints;
mod clock;
mod memory;
mod run;
mod streams;
mod sweep;

pub use checkpoints::{assert_checkpoints, assert_no_checkpoints};
pub use clock::Clock;
pub use memory::{MemoryStream, lockstep_stream_pair, memory_stream_pair};
pub use run::{Builder, Verdict, run, seeds};
pub use streams::check_stream;
pub use sweep::{Await, Cut, Moment, Point, cancel_sweep, drop_sweep};
pub use trefoil_runtime::wait_all_tasks_blocked;
