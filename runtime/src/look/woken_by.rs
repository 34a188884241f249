//! Who woke a task, for who [records](crate::look::record()).
//!
//! A task that is woken in the `run` of its own queue is asked about at once. One that is woken elsewhere comes into its queue later, when
//! nobody knows any more who it was. So who wakes it leaves a note: with the ring, on the thread of the run; from other threads, in a table
//! of the process. Only tasks of queues that somebody records get one, it is taken when the task arrives, and the end of a recording takes
//! away what is left. The inbox of a queue that is recorded is [watched](crate::sync::inbox), so who wakes a task of another one does not look for that.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};

/// Who woke a task, or spawned it.
///
/// # Examples
/// ```
/// # trefoil_runtime::doc_run(async {
/// use trefoil_runtime::{What, WokenBy, checkpoint, record};
/// let recording = record(1_000);
/// checkpoint().await?; // the task wakes itself, so that others have their turn
/// checkpoint().await?;
/// let record = recording.take();
/// let itself = |task: u64, by: &WokenBy| by.task() == Some(task);
/// assert!(record.events.iter().any(|event| match &event.what {
///     What::Woken { by } => itself(event.task.id(), by),
///     _ => false,
/// }));
/// # Ok::<(), trefoil_runtime::Cancelled>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum WokenBy {
    /// A task of this run, with this number, in a poll of its own. It may be the task itself, which yields.
    Task(u64),
    /// A deadline that passed: that of a sleep, or that of a scope.
    Deadline,
    /// The driver: an operation is done, or a descriptor is ready. Which one says the wait that ends then.
    Driver,
    /// A call by a run handle, that another thread has sent.
    Call,
    /// Another thread.
    Thread(Thread),
    /// The run had nothing to do, and tells those who wait for that.
    Idle,
    /// It was before anybody looked, or while the run ended.
    Unknown,
}

impl WokenBy {
    /// The number of the task, if it was one.
    ///
    /// # Examples
    /// ```
    /// use trefoil_runtime::WokenBy;
    /// assert_eq!(WokenBy::Task(7).task(), Some(7));
    /// assert_eq!(WokenBy::Deadline.task(), None);
    /// ```
    pub fn task(&self) -> Option<u64> {
        match self {
            WokenBy::Task(task) => Some(*task),
            _ => None,
        }
    }
}

impl fmt::Display for WokenBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WokenBy::Task(task) => write!(f, "task {task}"),
            WokenBy::Deadline => f.write_str("a deadline"),
            WokenBy::Driver => f.write_str("the driver"),
            WokenBy::Call => f.write_str("a call from another thread"),
            WokenBy::Thread(thread) => match thread.name() {
                Some(name) => write!(f, "thread `{name}`"),
                None => write!(f, "a thread without a name ({:?})", thread.id()),
            },
            WokenBy::Idle => f.write_str("the loop, since nothing could run"),
            WokenBy::Unknown => f.write_str("unknown"),
        }
    }
}

/// How many notes there may be at once, so that those which nobody takes are not many.
pub(crate) const NOTES: usize = 65_536;

/// What threads leave for the recordings of others. By address, all of it: to be compared only.
struct Notes {
    /// Which recording looks at a queue.
    queues: BTreeMap<usize, usize>,
    /// Who woke a task, and for which recording that is.
    woken: BTreeMap<usize, (usize, Thread)>,
}

// Not of `sync`: the count decides nothing but whether to look, and what is under the lock is whole.
static NOTES_LEFT: Mutex<Notes> = Mutex::new(Notes { queues: BTreeMap::new(), woken: BTreeMap::new() });
static RECORDINGS: AtomicUsize = AtomicUsize::new(0);

fn notes() -> MutexGuard<'static, Notes> {
    NOTES_LEFT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether anybody records in this process.
#[inline(always)]
pub(crate) fn anybody_records() -> bool {
    RECORDINGS.load(Ordering::Relaxed) != 0
}

/// Another thread than that of the run wakes a task of this queue.
pub(crate) fn leave_note(queue: usize, task: usize) {
    let thread = thread::current();
    let mut notes = notes();
    if let Some(recording) = notes.queues.get(&queue).copied()
        && (notes.woken.len() < NOTES || notes.woken.contains_key(&task))
    {
        notes.woken.insert(task, (recording, thread));
    }
}

/// What is known of this task, which was woken by another thread.
pub(crate) fn take_note(task: usize) -> Option<Thread> {
    notes().woken.remove(&task).map(|(_, thread)| thread)
}

/// A recording: the queues that it looks at, and the notes that are left for it.
#[derive(Debug)]
pub(crate) struct Recorder(usize);

impl Recorder {
    pub fn new() -> Self {
        static LAST: AtomicUsize = AtomicUsize::new(0);
        RECORDINGS.fetch_add(1, Ordering::Relaxed);
        Self(LAST.fetch_add(1, Ordering::Relaxed))
    }

    pub fn looks_at(&self, queue: usize) {
        notes().queues.insert(queue, self.0);
    }

    pub fn looks_away(&self, queue: usize) {
        let mut notes = notes();
        if notes.queues.get(&queue) == Some(&self.0) {
            notes.queues.remove(&queue);
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        RECORDINGS.fetch_sub(1, Ordering::Relaxed);
        let mut notes = notes();
        notes.queues.retain(|_, recording| *recording != self.0);
        notes.woken.retain(|_, (recording, _)| *recording != self.0);
    }
}

#[cfg(all(test, not(trefoil_loom)))]
mod tests {
    use super::*;

    /// Addresses that no queue and no task has, and that other tests do not use.
    #[test]
    fn notes_are_for_queues_that_are_looked_at_and_end_with_the_recording() {
        let (one, two) = (Recorder::new(), Recorder::new());
        one.looks_at(1);
        two.looks_at(3);
        leave_note(1, 11);
        leave_note(3, 13);
        leave_note(5, 15);
        assert!(take_note(15).is_none(), "nobody looks at that queue");
        assert_eq!(take_note(11).unwrap().id(), thread::current().id());
        assert!(take_note(11).is_none(), "it was taken");
        leave_note(1, 11);
        one.looks_away(3);
        drop(one);
        assert!(take_note(11).is_none(), "it went with its recording");
        leave_note(3, 17);
        assert!(take_note(13).is_some() && take_note(17).is_some(), "the other recording goes on");
        two.looks_away(3);
        leave_note(3, 13);
        assert!(take_note(13).is_none());
    }
}
