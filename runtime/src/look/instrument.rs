//! Instruments: what a program, a test or a profiler installs to see the life of tasks (R116).
//!
//! ```text
//!   spawned ──▶ ( scheduled ──▶ before_poll ──▶ after_poll )* ──▶ exited
//! ```
//!
//! All of it happens on the thread of the run. A run that never had instruments pays for this one look for each batch of a queue, which decides
//! whether it is polled by a loop of its own (`poll_specially`, in `ready`); what that finds is kept in a byte of the queue that is looked at anyway.
//! So an instrument that is installed while tasks run sees each queue from its next batch on.
//!
//! Instruments are user code. They are called where a wake or the end of a task may call user code anyway: under no lock, with every
//! pointer in order; and they may do whatever such code may, which includes installing and removing instruments, waking and spawning.

use crate::context;
use crate::look::record::Ring;
use crate::payload::report_panic;
use crate::ready::{Header, Ready};
use crate::worker;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, Location, RefUnwindSafe, UnwindSafe, catch_unwind};
use std::ptr;
use std::rc::{Rc, Weak};
use std::sync::Arc;

/// Sees the life of the tasks of a run: spawned, then (scheduled, before a poll, after it) any number of times, then exited (R116).
///
/// Every method does nothing unless it is written. They are called on the thread of the run, and hold it up. One that panics is reported
/// through `tracing`, and its instrument is removed; the others, and the run, go on.
///
/// A task is the main future of the run, or a child of a nursery. The body of a nursery is a part of the task that it is in; children are
/// polled while that task is, so their polls are nested in its.
///
/// # Examples
/// A timeline of who runs when:
/// ```
/// use std::cell::RefCell;
/// use std::rc::Rc;
/// use trefoil_runtime::{Instrument, TaskInfo, add_instrument, checkpoint, now};
///
/// #[derive(Default)]
/// struct Timeline(RefCell<Vec<String>>);
///
/// impl Timeline {
///     fn note(&self, what: &str, task: &TaskInfo) {
///         self.0.borrow_mut().push(format!("{:?} {task} {what}", now()));
///     }
/// }
///
/// impl Instrument for Timeline {
///     fn before_poll(&self, task: &TaskInfo) {
///         self.note("runs", task);
///     }
///     fn after_poll(&self, task: &TaskInfo) {
///         self.note("waits", task);
///     }
/// }
///
/// # trefoil_runtime::doc_run(async {
/// let timeline = Rc::new(Timeline::default());
/// let handle = add_instrument(timeline.clone());
/// checkpoint().await?; // from the next turn on
/// checkpoint().await?;
/// handle.remove();
/// for line in timeline.0.borrow().iter() {
///     println!("{line}"); // "Instant { .. } task 1 (src/main.rs:30:9) runs"
/// }
/// assert!(timeline.0.borrow().len() >= 2);
/// # Ok::<(), trefoil_runtime::Cancelled>(()) }).unwrap();
/// ```
pub trait Instrument {
    /// A task has come to be.
    fn spawned(&self, task: &TaskInfo) {
        _ = task;
    }

    /// A task can run, since it was spawned or woken. What another thread woke is told of when the run hears of it.
    fn scheduled(&self, task: &TaskInfo) {
        _ = task;
    }

    /// A task is about to be polled.
    fn before_poll(&self, task: &TaskInfo) {
        _ = task;
    }

    /// A task was polled, and waits or is done.
    fn after_poll(&self, task: &TaskInfo) {
        _ = task;
    }

    /// A task is over: it has returned or panicked, or was dropped.
    fn exited(&self, task: &TaskInfo) {
        _ = task;
    }
}

macro_rules! by_pointer {
    ($($pointer:ident),*) => {$(
        impl<I: Instrument + ?Sized> Instrument for $pointer<I> {
            fn spawned(&self, task: &TaskInfo) {
                (**self).spawned(task);
            }
            fn scheduled(&self, task: &TaskInfo) {
                (**self).scheduled(task);
            }
            fn before_poll(&self, task: &TaskInfo) {
                (**self).before_poll(task);
            }
            fn after_poll(&self, task: &TaskInfo) {
                (**self).after_poll(task);
            }
            fn exited(&self, task: &TaskInfo) {
                (**self).exited(task);
            }
        }
    )*};
}

by_pointer!(Rc, Arc, Box);

/// Which task it is, for an [`Instrument`]: a number, which no other task of the run has, and where it was spawned.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TaskInfo {
    id: u64,
    name: Option<Arc<str>>,
    place: &'static Location<'static>,
}

impl TaskInfo {
    /// The number of the task, from 1 on, in the order in which instruments first saw them.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its name, if it was given one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Where it was spawned; of the main future, where the run was started.
    pub fn place(&self) -> &'static Location<'static> {
        self.place
    }
}

impl fmt::Display for TaskInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "task {} `{name}` ({})", self.id, self.place),
            None => write!(f, "task {} ({})", self.id, self.place),
        }
    }
}

/// The instruments that a run begins with.
#[derive(Clone, Default)]
pub struct Instruments(Vec<Arc<dyn Instrument + Send + Sync>>);

impl fmt::Debug for Instruments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} instruments", self.0.len())
    }
}

// What a panic of theirs leaves behind is not seen again: it removes them. And a builder that has some is as any other.
impl UnwindSafe for Instruments {}
impl RefUnwindSafe for Instruments {}

impl Instruments {
    /// Adds one.
    pub fn push(&mut self, instrument: Arc<dyn Instrument + Send + Sync>) {
        self.0.push(instrument);
    }
}

struct Installed {
    removed: Cell<bool>,
    instrument: Box<dyn Instrument>,
}

type List = Rc<Vec<Rc<Installed>>>;

/// The instruments of a run, and the numbers of the tasks that they have seen.
#[derive(Default)]
pub(crate) struct Watch {
    /// Replaced, never changed: who goes through it has a count of it.
    list: RefCell<List>,
    /// By the address of a task that is not over.
    ids: RefCell<HashMap<*const Header, u64>>,
    last: Cell<u64>,
    /// Who records, if somebody does.
    ring: RefCell<Option<Rc<Ring>>>,
}

impl Watch {
    /// `None` without any.
    pub fn new(instruments: Instruments) -> Option<Self> {
        if instruments.0.is_empty() {
            return None;
        }
        let this = Self::default();
        for instrument in instruments.0 {
            this.add(Box::new(instrument));
        }
        Some(this)
    }

    fn add(&self, instrument: Box<dyn Instrument>) -> Weak<Installed> {
        let installed = Rc::new(Installed { removed: Cell::new(false), instrument });
        let handle = Rc::downgrade(&installed);
        self.replace(|list| list.chain([installed]).collect());
        handle
    }

    fn replace(&self, new: impl FnOnce(&mut dyn Iterator<Item = Rc<Installed>>) -> Vec<Rc<Installed>>) {
        let old = self.list.borrow().clone();
        let list = new(&mut old.iter().filter(|one| !one.removed.get()).cloned());
        let before = self.list.replace(Rc::new(list));
        let_go((old, before));
    }

    /// Whether there are any.
    pub fn is_active(&self) -> bool {
        self.ring.borrow().is_some() || self.list.borrow().iter().any(|one| !one.removed.get())
    }

    /// A queue is about to poll what is in it.
    #[cold]
    pub fn looks_at(&self, queue: *const Ready) {
        if let Some(ring) = self.ring() {
            ring.looks_at(queue);
        }
    }

    pub fn ring(&self) -> Option<Rc<Ring>> {
        self.ring.borrow().clone()
    }

    /// Whether there was none.
    pub fn set_ring(&self, ring: Rc<Ring>) -> bool {
        let mut slot = self.ring.borrow_mut();
        slot.is_none() && slot.replace(ring).is_none()
    }

    pub fn clear_ring(&self, ring: &Rc<Ring>) {
        // One that is dropped in another run than its own stops nothing here.
        self.ring.borrow_mut().take_if(|ours| Rc::ptr_eq(ours, ring));
    }

    #[cold]
    fn tell(&self, task: &TaskInfo, event: impl Fn(&dyn Instrument, &TaskInfo)) {
        let list = self.list.borrow().clone();
        let mut removed = false;
        for one in list.iter() {
            if !one.removed.get()
                && let Err(payload) = catch_unwind(AssertUnwindSafe(|| event(&*one.instrument, task)))
            {
                crate::report_error!(%task, "an instrument panicked, and is removed (R116)");
                one.removed.set(true);
                crate::payload::discard(payload);
            }
            removed |= one.removed.get();
        }
        if removed {
            self.replace(|list| list.collect());
        }
        let_go(list);
    }

    pub fn info(&self, task: &Header) -> TaskInfo {
        let id = *self.ids.borrow_mut().entry(task).or_insert_with(|| self.next());
        TaskInfo { id, name: task.name(), place: task.place }
    }

    fn next(&self) -> u64 {
        self.last.set(self.last.get() + 1);
        self.last.get()
    }

    pub fn spawned(&self, task: &Header) {
        // A new one, even where one with this address was lost sight of in another run.
        self.ids.borrow_mut().insert(task, self.next());
        let info = self.info(task);
        if let Some(ring) = self.ring() {
            ring.spawned(info.clone());
        }
        self.tell(&info, |instrument, task| instrument.spawned(task));
    }

    pub fn scheduled(&self, task: &Header) {
        let info = self.info(task);
        if let Some(ring) = self.ring() {
            ring.woken(info.clone());
        }
        self.tell(&info, |instrument, task| instrument.scheduled(task));
    }

    pub fn exited(&self, task: &Header) {
        let info = self.info(task);
        self.ids.borrow_mut().remove(&ptr::from_ref(task));
        if let Some(ring) = self.ring() {
            ring.exited(info.clone());
        }
        self.tell(&info, |instrument, task| instrument.exited(task));
    }

    /// Polls a task, and tells of it.
    #[cold]
    pub fn poll(&self, task: &Header, poll: impl FnOnce() -> bool) -> bool {
        if !task.is_task() {
            return poll();
        }
        let info = self.info(task);
        self.tell(&info, |instrument, task| instrument.before_poll(task));
        let polling = self.ring().map(|ring| ring.polls(info.clone()));
        let over = poll();
        if let Some(polling) = polling {
            polling.ends(over);
        }
        self.tell(&info, |instrument, task| instrument.after_poll(task));
        over
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let_go(self.list.take());
    }
}

/// The last who has an instrument drops it, in a place that cannot panic.
fn let_go<T>(what: T) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(what))) {
        report_panic(payload, "the destructor of an instrument panicked (R116)");
    }
}

/// Tells the instruments of the run on this thread of a task.
#[cold]
pub(crate) fn tell(task: &Header, event: fn(&Watch, &Header)) {
    if task.is_task() {
        worker::with(|worker| worker.watch().map(|watch| event(watch, task)));
    }
}

/// Installs an instrument in the run on this thread. It sees each nursery from its next turn on; those that come later, from their begin.
///
/// `Builder::instrument` installs one from the begin of a run. To read what one has gathered, install an `Rc` of it.
///
/// # Panics
/// Outside of a run.
///
/// # Examples
/// See [`Instrument`].
#[track_caller]
pub fn add_instrument(instrument: impl Instrument + 'static) -> InstrumentHandle {
    let instrument = Box::new(instrument);
    let Some(handle) = worker::with(|worker| worker.make_watch().add(instrument)) else {
        context::outside("`add_instrument`")
    };
    InstrumentHandle(handle)
}

/// By which an instrument can be removed again. Dropping it changes nothing.
#[derive(Clone)]
pub struct InstrumentHandle(Weak<Installed>);

impl fmt::Debug for InstrumentHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InstrumentHandle")
    }
}

impl InstrumentHandle {
    /// Removes the instrument: it is not called any more, from now on, also if this is called by an instrument. It is dropped soon,
    /// at the latest with the run.
    ///
    /// # Examples
    /// ```
    /// # trefoil_runtime::doc_run(async {
    /// struct Nothing;
    /// impl trefoil_runtime::Instrument for Nothing {}
    ///
    /// let handle = trefoil_runtime::add_instrument(Nothing);
    /// handle.remove();
    /// handle.remove(); // does nothing
    /// # });
    /// ```
    pub fn remove(&self) {
        if let Some(installed) = self.0.upgrade() {
            installed.removed.set(true);
            let_go(installed);
        }
    }
}
