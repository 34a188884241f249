//! What happened in a run, event by event, in a ring of a given size: what a timeline is made of.
//!
//! It is off unless somebody [records](record). Then tasks come by the way of [instruments](crate::Instrument), with which it shares the one
//! branch for each poll; waits and scopes look once whether somebody records when they begin and when they end. Everything here is ours: it
//! calls no code of others, and so may be called under the locks of the primitives. All of it is on the thread of the run.

use crate::cause::{Cause, ScopeInfo};
use crate::context;
use crate::instrument::{TaskInfo, Watch};
use crate::park::Park;
use crate::ready::Header;
use crate::reason::Reason;
use crate::scope::Scope;
use crate::worker::{self, Worker};
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::panic::Location;
use std::rc::Rc;

/// Something that happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Event {
    /// When: nanoseconds on the run's clock.
    pub at: u64,
    /// To which task; for a wake, to the one that was woken.
    pub task: TaskInfo,
    /// What.
    pub what: What,
}

/// What happened to a task.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum What {
    /// It came to be.
    Spawned {
        /// By which task.
        by: Option<u64>,
    },
    /// It was woken, or spawned: it can run.
    Woken {
        /// By which task; `None` by the loop, or another thread.
        by: Option<u64>,
    },
    /// It is being polled.
    PollBegins,
    /// It has been.
    PollEnds,
    /// It is over.
    Exited,
    /// An operation of it waits.
    WaitBegins {
        /// Which one: a number that no other wait has.
        wait: u64,
        /// What for.
        reason: Reason,
        /// Where.
        place: &'static Location<'static>,
    },
    /// An operation waits no more. Not told of one that is dropped while it waits.
    WaitEnds {
        /// Which one.
        wait: u64,
        /// Whether it was cancelled.
        cancelled: bool,
    },
    /// It has entered a scope.
    ScopeEntered {
        /// Which one: a number that no other scope has.
        scope: u64,
        /// Its kind, name and place.
        info: ScopeInfo,
    },
    /// It has left a scope.
    ScopeLeft {
        /// Which one.
        scope: u64,
        /// Why it was cancelled, if it was.
        cause: Option<Cause>,
    },
}

/// What was recorded.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Record {
    /// The events, in order: the last ones, if there were too many.
    pub events: Vec<Event>,
    /// How many there were before them, and were dropped.
    pub dropped: u64,
    /// When the recording began, and when this was taken: nanoseconds on the run's clock.
    pub span: (u64, u64),
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Event>,
    dropped: u64,
    /// The tasks that are being polled, the innermost last.
    polled: Vec<TaskInfo>,
    /// The task that began to record, and in which turn: its poll had begun before.
    first: Option<(TaskInfo, u32)>,
    last: u64,
    /// By address, as long as they are open.
    waits: HashMap<usize, (u64, TaskInfo)>,
    scopes: HashMap<usize, (u64, TaskInfo)>,
    /// A queue takes in what others have woken: it was not the task that is being polled.
    draining: bool,
    /// Who woke a task from another queue, until its own hears of it.
    wakers: HashMap<usize, u64>,
}

/// The events of one recording.
#[derive(Debug)]
pub(crate) struct Ring {
    capacity: usize,
    began: u64,
    state: RefCell<State>,
}

impl Ring {
    fn push(&self, state: &mut State, task: TaskInfo, what: What) {
        self.push_at(state, worker::now(), task, what);
    }

    fn push_at(&self, state: &mut State, at: u64, task: TaskInfo, what: What) {
        if state.events.len() == self.capacity {
            state.events.pop_front();
            state.dropped += 1;
        }
        state.events.push_back(Event { at, task, what });
    }

    fn note(&self, task: TaskInfo, what: impl FnOnce(&State) -> What) {
        let state = &mut *self.state.borrow_mut();
        let what = what(state);
        self.push(state, task, what);
    }

    pub fn spawned(&self, task: TaskInfo) {
        self.note(task, |state| What::Spawned { by: state.by() });
    }

    pub fn woken(&self, task: TaskInfo, header: &Header) {
        let state = &mut *self.state.borrow_mut();
        let by = state
            .wakers
            .remove(&std::ptr::from_ref(header).addr())
            .or_else(|| if state.draining { None } else { state.by() });
        self.push(state, task, What::Woken { by });
    }

    pub fn exited(&self, task: TaskInfo, header: &Header) {
        let state = &mut *self.state.borrow_mut();
        state.wakers.remove(&std::ptr::from_ref(header).addr());
        self.push(state, task, What::Exited);
    }

    /// A poll begins, and ends with what is returned.
    pub fn polls(self: &Rc<Self>, task: TaskInfo) -> Polling {
        let state = &mut *self.state.borrow_mut();
        if state.first.as_ref().is_some_and(|(_, turn)| *turn != this_turn())
            && let Some((first, _)) = state.first.take()
        {
            // Its poll is over, and the last that is known of it is the last event.
            let at = state.events.back().map_or(self.began, |event| event.at);
            self.push_at(state, at, first, What::PollEnds);
        }
        state.polled.push(task.clone());
        self.push(state, task, What::PollBegins);
        Polling(self.clone())
    }
}

impl State {
    /// Who is being polled.
    fn polled(&self) -> Option<&TaskInfo> {
        let first = || self.first.as_ref().filter(|(_, turn)| *turn == this_turn()).map(|(task, _)| task);
        self.polled.last().or_else(first)
    }

    fn by(&self) -> Option<u64> {
        self.polled().map(TaskInfo::id)
    }

    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

pub(crate) struct Polling(Rc<Ring>);

impl Drop for Polling {
    fn drop(&mut self) {
        let state = &mut *self.0.state.borrow_mut();
        if let Some(task) = state.polled.pop() {
            self.0.push(state, task, What::PollEnds);
        }
    }
}

/// The recording of the run on this thread, if there is one. One branch if there is none.
#[inline]
fn ring() -> Option<Rc<Ring>> {
    // SAFETY: [CURRENT] of the context module.
    let worker: &Worker = unsafe { context::frame().worker.as_ref() }?;
    worker.watch.get().and_then(Watch::ring)
}

#[inline]
pub(crate) fn wait_begins(park: &Park, reason: Reason, place: &'static Location<'static>) {
    if let Some(ring) = ring() {
        let state = &mut *ring.state.borrow_mut();
        let Some(task) = state.polled().cloned() else { return };
        let wait = state.number();
        state.waits.insert(std::ptr::from_ref(park).addr(), (wait, task.clone()));
        ring.push(state, task, What::WaitBegins { wait, reason, place });
    }
}

#[inline]
pub(crate) fn wait_ends(park: &Park, cancelled: bool) {
    if let Some(ring) = ring() {
        let state = &mut *ring.state.borrow_mut();
        if let Some((wait, task)) = state.waits.remove(&std::ptr::from_ref(park).addr()) {
            ring.push(state, task, What::WaitEnds { wait, cancelled });
        }
    }
}

#[inline]
pub(crate) fn scope_entered(scope: &Scope, info: impl FnOnce() -> ScopeInfo) {
    if let Some(ring) = ring() {
        let state = &mut *ring.state.borrow_mut();
        let Some(task) = state.polled().cloned() else { return };
        let number = state.number();
        state.scopes.insert(std::ptr::from_ref(scope).addr(), (number, task.clone()));
        ring.push(state, task, What::ScopeEntered { scope: number, info: info() });
    }
}

#[inline]
pub(crate) fn scope_left(scope: &Scope) {
    if let Some(ring) = ring() {
        let cause = if scope.is_cancel_called() { scope.cause() } else { None };
        let state = &mut *ring.state.borrow_mut();
        if let Some((scope, task)) = state.scopes.remove(&std::ptr::from_ref(scope).addr()) {
            ring.push(state, task, What::ScopeLeft { scope, cause });
        }
    }
}

/// A task of another queue is woken, which hears of it later.
#[inline]
pub(crate) fn wakes(task: *const Header) {
    if let Some(ring) = ring() {
        let state = &mut *ring.state.borrow_mut();
        if let Some(by) = state.by() {
            state.wakers.insert(task.addr(), by);
        }
    }
}

/// What follows was woken by others, until it is said otherwise.
#[cold]
pub(crate) fn set_draining(draining: bool) {
    if let Some(ring) = ring() {
        ring.state.borrow_mut().draining = draining;
    }
}

/// Records what happens in the run on this thread, from now on, until the result is dropped: the last `capacity` events. Each nursery is seen
/// from its next turn on; those that come later, from their begin.
///
/// The crate `trefoil-inspect` makes a picture of it.
///
/// # Panics
/// Outside of a run, or while it is being recorded already.
///
/// # Examples
/// ```
/// # trefoil_runtime::doc_run(async {
/// use trefoil_runtime::{What, checkpoint, record};
/// let recording = record(1_000);
/// checkpoint().await?;
/// checkpoint().await?;
/// let record = recording.take();
/// assert!(record.events.iter().any(|event| matches!(event.what, What::PollBegins)));
/// # Ok::<(), trefoil_runtime::Cancelled>(()) }).unwrap();
/// ```
#[track_caller]
pub fn record(capacity: usize) -> Recording {
    let began = worker::now();
    let ring = Rc::new(Ring { capacity: capacity.max(1), began, state: RefCell::default() });
    let set = worker::with(|worker| worker.watch.get_or_init(Watch::default).set_ring(ring.clone()));
    match set {
        None => context::outside("`record`"),
        Some(set) => assert!(set, "this run is being recorded already"),
    }
    if let Some(task) = this_task() {
        let state = &mut *ring.state.borrow_mut();
        state.first = Some((task.clone(), this_turn()));
        ring.push(state, task, What::PollBegins);
    }
    Recording { ring }
}

/// The turn of the loop, modulo 2^32.
fn this_turn() -> u32 {
    context::frame().tree.map_or(0, |tree| tree.current.turn())
}

/// The task that asks: not the body of a nursery, but the task around that.
fn this_task() -> Option<TaskInfo> {
    let frame = context::open_frame();
    let locked = frame.tree?.lock();
    let (mut task, mut scope) = (frame.task, frame.scope);
    // SAFETY: [CURRENT] of the context module, for the first; [LOCKED] of the tree for those around.
    let header = unsafe {
        loop {
            match task.as_ref().filter(|task| task.is_task()) {
                Some(task) => break task,
                None => {
                    task = scope.as_ref()?.task();
                    scope = (*scope).parent.load(std::sync::atomic::Ordering::Relaxed);
                }
            }
        }
    };
    let info = worker::with(|worker| worker.watch.get().map(|watch| watch.info(header))).flatten();
    drop(locked);
    info
}

/// A recording that goes on. See [`record`].
pub struct Recording {
    ring: Rc<Ring>,
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recording({} events)", self.ring.state.borrow().events.len())
    }
}

impl Recording {
    /// What was recorded up to now. The recording goes on, without it.
    pub fn take(&self) -> Record {
        let mut state = self.ring.state.borrow_mut();
        let events = std::mem::take(&mut state.events).into();
        let dropped = std::mem::take(&mut state.dropped);
        Record { events, dropped, span: (self.ring.began, worker::now()) }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        worker::with(|worker| worker.watch.get().map(|watch| watch.clear_ring(&self.ring)));
    }
}
