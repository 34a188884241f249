//! N10: programs that cannot go on, and how they say so. What depends on there being no other thread in the process is in `deadlock_alone.rs`. One
//! binary: to link each file takes longer than to compile it.

mod cycles;
mod deadlock_programs;
mod deadlock_scale;
mod ended_runs;
mod handed_on;
mod holders;
mod kinds;
mod livelock;
mod no_deadlock;
mod others_go_on;
mod texts;
mod unpolled;

use std::panic::Location;
use std::pin::Pin;
use trefoil::sync::Mutex;
use trefoil::{Deadlock, Detection, checkpoint, sleep};
use trefoil_runtime::Options;
use trefoil_tests::{Ended, ms, poll_once};

/// A run that is ended when nothing moves. No other thread has to do with it.
pub fn quiet() -> Options {
    Options { deadlock: Detection::After(ms(1)), ..Options::default() }
}

/// The line of a place, if it is in one of these files.
pub fn line(place: &Location<'_>) -> u32 {
    assert!(place.file().contains("tests/deadlocks/"), "{place}");
    place.line()
}

/// The lines of the tasks of the only cycle, from the smallest.
pub fn cycle(report: &Deadlock) -> Vec<u32> {
    let cycles: Vec<_> = report.cycles().collect();
    assert_eq!(cycles.len(), 1, "{report}");
    let mut lines: Vec<u32> = cycles[0].iter().map(|task| line(task.place())).collect();
    let first = (0..lines.len()).min_by_key(|at| lines[*at]).unwrap();
    lines.rotate_left(first);
    lines
}

/// Takes two locks, one after the other.
pub async fn crossed(left: &Mutex<()>, right: &Mutex<()>) -> Ended {
    let _left = left.lock().await?;
    checkpoint().await?;
    right.lock().await.map(drop)
}

/// Cycles that stand for a minute end the run; a deadline is always set, so that nothing is quiet for good.
pub fn partial() -> Options {
    Options { virtual_time: true, cycles_end: true, ..Options::default() }
}

/// Goes on for ever.
pub async fn busy() -> Ended {
    loop {
        sleep(ms(100)).await?;
    }
}

/// Polls a future for the first time: it waits from then on.
pub async fn begin(future: Pin<&mut impl Future>) {
    assert!(poll_once(future).await.is_pending());
}
