//! How a run is set up.

use crate::look::deadlock::Detection;
use crate::look::livelock::Limits;
use crate::schedule::Order;
use std::time::Duration;

/// How a run is set up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Time stands still while anything can run, and then jumps to the next deadline.
    pub virtual_time: bool,
    /// After how much real time in which nothing could run virtual time jumps (R51): at once by default, and by hand alone with
    /// [`Duration::MAX`].
    pub autojump: Duration,
    /// In which order tasks are polled (N4).
    pub order: Order,
    /// When the run is ended since every task waits, no deadline is set and the driver has nothing in flight (N10).
    pub deadlock: Detection,
    /// Tasks that have waited for each other for a minute of virtual time, or ten seconds of real time, while others go on, end the run. In any case it is
    /// logged as a warning when it is found.
    pub cycles_end: bool,
    /// When a run that is busy and gets nowhere is reported, by a warning; `None`: never.
    pub livelock: Option<Limits>,
    /// For how long a loop with nothing to do looks at the driver, again and again, before it sleeps.
    pub spin: Duration,
    /// A task that runs for so long without yielding is named, in a warning. `None`: never.
    pub blocked_after: Option<Duration>,
    /// Such a task is an error: the run ends with a panic that names it, once it has yielded.
    pub blocked_is_error: bool,
}
