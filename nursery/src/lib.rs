//! Nurseries, cancel scopes, error groups and channels, on the loop of `trefoil-runtime`.
//!
//! Users want the crate `trefoil`, which adds I/O. Read here in this order: `nursery` (where tasks come from and end), `scope` (cancel scopes,
//! deadlines, shields), then `event` and `channel`, which are made of `trefoil_runtime::WaitQueue` alone, as a primitive of your own
//! would be.

pub mod asyncio;
mod blocking;
mod branches;
mod channel;
mod cleanup;
mod event;
mod generator;
mod join;
mod join_all;
mod nursery;
mod race;
mod scope;
mod service;
mod start;
#[cfg(feature = "futures")]
mod streams;
pub mod sync;
mod unseen;

pub use branches::{Alternatives, Branches};
pub use channel::{
    ChannelStatistics, Receiver, RecvFuture, SendError, SendFuture, Sender, TryRecvError, TrySendError, channel,
    unbounded,
};
pub use cleanup::{Cleanup, local_with_cleanup, with_cleanup};
pub use event::{Event, WaitEvent};
pub use generator::{Items, Yielder, generator};
pub use join::Join;
pub use join_all::{join, until};
pub use nursery::{Local, Nursery, Open, OrCancelled, Shared, local_nursery, nursery};
pub use race::{first_success, race, race_with};
pub use scope::{
    CancelScope, EffectiveDeadline, InScope, OrTimedOut, Shielded, cancel_cause, effective_deadline, fail_after,
    fail_at, move_on_after, move_on_at, shield, shield_for, soft_cancelled, until_soft_cancelled,
};
pub use start::{NotStarted, Started};
#[doc(hidden)]
pub use trefoil_runtime::doc_run;
pub use trefoil_runtime::{
    CancelAware, Cancelled, CancelledOrTimedOut, Cause, Culprit, DeadlineAware, ErrorGroup, FailedBy, Failure, Kind,
    ScopeInfo, Sleep, Source, TaskLocal, TaskLocalError, TaskLocalScope, TimedOut, checkpoint, checkpoint_if_cancelled,
    now, sleep, sleep_forever, sleep_until, task_local, yield_now,
};
