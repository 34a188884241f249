//! What `trefoil-testing` asks of the run on this thread: to move its virtual time, to let an operation find its budget spent, and to
//! tell where a cancellation was delivered.

use crate::context;
use crate::look::snapshot::{self, ScopeView};
use crate::time::clock::{self, NEVER};
use crate::worker::{self, Worker};
use std::panic::Location;
use std::time::Duration;

#[track_caller]
fn run<R>(what: &str, f: impl FnOnce(&Worker) -> R) -> R {
    worker::with(f).unwrap_or_else(|| context::outside(what))
}

/// When the next deadline of the run is, in nanoseconds; [`NEVER`] if there is none.
///
/// # Panics
/// Outside of a run, as all of this module.
#[track_caller]
pub fn next_deadline() -> u64 {
    let Some(tree) = context::tree() else { context::outside("a question about the run") };
    tree.lock().next_deadline()
}

/// Whether the time of the run is virtual.
pub fn is_virtual() -> bool {
    context::tree().is_some_and(|tree| tree.clock.is_virtual())
}

/// Moves virtual time forward, never back. Deadlines that are due by then expire in the next turn, in order (R46).
///
/// # Panics
/// Outside of a run, and where its time is the machine's.
#[track_caller]
pub fn jump(to: u64) {
    let Some(tree) = context::tree() else { context::outside("a virtual clock") };
    assert!(tree.clock.is_virtual(), "only virtual time can be moved: this run goes by the machine's clock");
    assert!(to != NEVER, "time cannot be moved to its end");
    tree.clock.jump(to);
    // Nobody is woken by it, and the loop may be about to wait for nothing: it expires deadlines after it.
    tree.parker.unpark();
}

/// Moves virtual time forward by a length; see [`jump`].
#[track_caller]
pub fn jump_by(length: Duration) {
    jump(clock::after(worker::now(), length));
}

/// Changes [`Options::autojump`](crate::Options::autojump) of the run.
#[track_caller]
pub fn set_autojump(after: Duration) {
    run("a virtual clock", |worker| worker.quiet.autojump.set(after));
}

/// Spends the budget of the current task: its next operation that need not wait gives up the turn first (N11).
pub fn spend_budget() {
    context::refill(0);
}

/// Polls something, and says which operation in it was the first to be told of a cancellation, if one was.
#[track_caller]
pub fn told<R>(poll: impl FnOnce() -> R) -> (R, Option<&'static Location<'static>>) {
    let before = run("a question about the run", |worker| worker.told.take());
    let result = poll();
    let told = run("a question about the run", |worker| worker.told.replace(before.or(worker.told.get())));
    (result, told)
}

/// The current scope and what is below it; [`tree`](crate::tree) is the same from the top.
#[track_caller]
pub fn subtree() -> ScopeView {
    let (tree, scope) = crate::current();
    snapshot::view(tree, |_| Some(scope)).expect("it is there")
}

/// How many scopes, waits and holders were looked at since the begin of the run, in search of tasks that wait for each other (N10).
#[track_caller]
pub fn search_steps() -> usize {
    run("a question about the run", |worker| worker.suspicion.steps())
}
