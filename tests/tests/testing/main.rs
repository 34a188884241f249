//! The testing module. What is tested here are ways to start a run, so these files start some by themselves. One binary: to link each file takes longer than to compile it.

mod assertions;
mod blocked;
mod hand_clock;
mod seeds;
mod sweep_finds;

use std::time::Duration;
use trefoil_testing::Builder;

const NONE: Duration = Duration::ZERO;

const HOUR: Duration = Duration::from_secs(3600);

/// A run that is ended as soon as all its tasks wait.
fn at_once() -> Builder {
    Builder::new().deadlock_after(Some(NONE))
}
