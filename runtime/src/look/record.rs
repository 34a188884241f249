//! What happened in a run, event by event, in a ring of a given size: what a timeline is made of.
//!
//! It is off unless somebody [records](record). Then tasks come by the way of [instruments](crate::Instrument), with which it shares the one
//! branch for each poll; waits ask whether somebody records only where the lock of their tree does not favour their thread, which it does not as long
//! as that is so, and wakes from elsewhere only where the inbox is watched; scopes look once when they begin and when they end. Everything here is ours: it
//! calls no code of others, and so may be called under the locks of the primitives. All of it is on the thread of the run, but for the notes
//! of those who wake from others (`woken_by`).

use crate::blind::BLIND;
use crate::context;
use crate::look::instrument::{TaskInfo, Watch};
use crate::look::woken_by::{self, NOTES, Recorder, WokenBy};
use crate::park::Core;
use crate::ready::{Header, Ready};
use crate::reason::Reason;
use crate::scope::Scope;
use crate::scope::cause::{Cause, ScopeInfo};
use crate::sync::Ordering;
use crate::time::clock::NEVER;
use crate::worker::{self, Worker};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
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
        /// By whom.
        by: WokenBy,
    },
    /// It was woken, or spawned: it can run. Told once until it is polled, of who was first.
    Woken {
        /// By whom.
        by: WokenBy,
    },
    /// It is being polled.
    PollBegins,
    /// It has been.
    PollEnds {
        /// Whether it is over with that.
        over: bool,
    },
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
        /// When it ends by itself, if it does: nanoseconds on the run's clock.
        until: Option<u64>,
    },
    /// An operation waits no more.
    WaitEnds {
        /// Which one.
        wait: u64,
        /// Why.
        how: Ended,
    },
    /// It has entered a scope.
    ScopeEntered {
        /// Which one: a number that no other scope has.
        scope: u64,
        /// Its kind, name and place.
        info: ScopeInfo,
        /// Its deadline at that time, if it has one: nanoseconds on the run's clock.
        deadline: Option<u64>,
    },
    /// It has left a scope.
    ScopeLeft {
        /// Which one.
        scope: u64,
        /// Why it was cancelled, if it was.
        cause: Option<Box<Cause>>,
    },
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// What it waited for is there.
    Done,
    /// It was cancelled.
    Cancelled,
    /// The operation was dropped while it waited.
    Dropped,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ended::Done => "done",
            Ended::Cancelled => "cancelled",
            Ended::Dropped => "dropped",
        })
    }
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
    /// A queue takes in one that was woken elsewhere: by whom.
    arrived: Option<WokenBy>,
    /// Who woke a task of ours, on this thread, until its queue takes it in.
    woken: HashMap<usize, WokenBy>,
    /// Those that look whether somebody records.
    queues: HashSet<usize>,
    /// What the loop is doing, when it is in no task.
    loops: Option<Loop>,
}

/// What the loop does beside polling tasks and the driver.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Loop {
    /// Deadlines.
    Expires,
    /// What other threads have sent.
    Calls,
    /// Who waits for it to have nothing to do.
    Idles,
}

/// The events of one recording.
#[derive(Debug)]
pub(crate) struct Ring {
    capacity: usize,
    began: u64,
    state: RefCell<State>,
    recorder: Recorder,
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

    pub fn woken(&self, task: TaskInfo) {
        self.note(task, |state| What::Woken { by: state.by() });
    }

    pub fn exited(&self, task: TaskInfo) {
        self.note(task, |_| What::Exited);
    }

    /// A queue is about to poll what is in it.
    pub fn looks_at(&self, queue: *const Ready) {
        if self.state.borrow_mut().queues.insert(queue.addr()) {
            self.recorder.looks_at(queue.addr());
        }
    }

    /// A poll begins, and ends with what is returned.
    pub fn polls(self: &Rc<Self>, task: TaskInfo) -> Polling {
        let state = &mut *self.state.borrow_mut();
        if state.first.as_ref().is_some_and(|(_, turn)| *turn != this_turn())
            && let Some((first, _)) = state.first.take()
        {
            // Its poll is over, and the last that is known of it is the last event.
            let at = state.events.back().map_or(self.began, |event| event.at);
            self.push_at(state, at, first, What::PollEnds { over: false });
        }
        state.polled.push(task.clone());
        self.push(state, task, What::PollBegins);
        Polling { ring: self.clone(), over: false }
    }
}

impl State {
    /// Who is being polled.
    fn polled(&self) -> Option<&TaskInfo> {
        let first = || self.first.as_ref().filter(|(_, turn)| *turn == this_turn()).map(|(task, _)| task);
        self.polled.last().or_else(first)
    }

    /// Who wakes or spawns what is being told of.
    fn by(&self) -> WokenBy {
        if let Some(by) = &self.arrived {
            return by.clone();
        }
        let frame = context::frame();
        if frame.task.is_null() && frame.ready.is_null() {
            // In the loop. A nursery that is dropped is in no task either, but in a queue.
            return match self.loops {
                None => WokenBy::Driver,
                Some(Loop::Expires) => WokenBy::Deadline,
                Some(Loop::Calls) => WokenBy::Call,
                Some(Loop::Idles) => WokenBy::Idle,
            };
        }
        self.polled().map_or(WokenBy::Unknown, |task| WokenBy::Task(task.id()))
    }

    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

pub(crate) struct Polling {
    ring: Rc<Ring>,
    over: bool,
}

impl Polling {
    pub fn ends(mut self, over: bool) {
        self.over = over;
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        let state = &mut *self.ring.state.borrow_mut();
        if let Some(task) = state.polled.pop() {
            self.ring.push(state, task, What::PollEnds { over: self.over });
        }
    }
}

/// Whether it is worth asking for a [`ring`]: one look at a word that is 0, as long as nobody in the process records.
#[inline(always)]
fn perhaps() -> bool {
    !BLIND && woken_by::anybody_records()
}

/// The recording of the run on this thread, if there is one.
#[cold]
fn ring() -> Option<Rc<Ring>> {
    // SAFETY: [CURRENT] of the context module.
    let worker: &Worker = unsafe { context::worker().as_ref() }?;
    worker.watch().and_then(Watch::ring)
}

/// Whether the run on this thread is being recorded.
#[inline]
pub(crate) fn is_recorded() -> bool {
    perhaps() && ring().is_some()
}

/// It is linked, and we have the lock.
#[inline(always)]
pub(crate) fn wait_begins(park: *const Core, until: u64) {
    if perhaps() {
        note_wait(park, until);
    }
}

#[inline(always)]
pub(crate) fn wait_ends(park: &Core, how: impl FnOnce() -> Ended) {
    if perhaps() {
        note_end_of_wait(park, how);
    }
}

#[inline(always)]
pub(crate) fn scope_entered(scope: &Scope, info: impl FnOnce() -> ScopeInfo) {
    if perhaps() {
        note_scope(scope, info);
    }
}

#[inline(always)]
pub(crate) fn scope_left(scope: &Scope) {
    if perhaps() {
        note_end_of_scope(scope);
    }
}

/// It is linked, and we have the lock.
#[cold]
fn note_wait(park: *const Core, until: u64) {
    if let Some(ring) = ring() {
        let state = &mut *ring.state.borrow_mut();
        let Some(task) = state.polled().cloned() else { return };
        // SAFETY: [TAIL] of the parks.
        let (reason, place) = unsafe { (Core::reason(park), Core::place(park)) };
        let until = (until != NEVER).then_some(until);
        let wait = state.number();
        state.waits.insert(park.addr(), (wait, task.clone()));
        ring.push(state, task, What::WaitBegins { wait, reason, place, until });
    }
}

#[cold]
fn note_end_of_wait(park: &Core, how: impl FnOnce() -> Ended) {
    if let Some(ring) = ring() {
        let state = &mut *ring.state.borrow_mut();
        if let Some((wait, task)) = state.waits.remove(&std::ptr::from_ref(park).addr()) {
            ring.push(state, task, What::WaitEnds { wait, how: how() });
        }
    }
}

#[cold]
fn note_scope(scope: &Scope, info: impl FnOnce() -> ScopeInfo) {
    if let Some(ring) = ring() {
        let state = &mut *ring.state.borrow_mut();
        let Some(task) = state.polled().cloned() else { return };
        let number = state.number();
        state.scopes.insert(std::ptr::from_ref(scope).addr(), (number, task.clone()));
        let deadline = Some(scope.deadline.load(Ordering::Relaxed)).filter(|at| *at != NEVER);
        ring.push(state, task, What::ScopeEntered { scope: number, info: info(), deadline });
    }
}

#[cold]
fn note_end_of_scope(scope: &Scope) {
    if let Some(ring) = ring() {
        let cause = if scope.is_cancel_called() { scope.cause().map(Box::new) } else { None };
        let state = &mut *ring.state.borrow_mut();
        if let Some((scope, task)) = state.scopes.remove(&std::ptr::from_ref(scope).addr()) {
            ring.push(state, task, What::ScopeLeft { scope, cause });
        }
    }
}

/// A task is woken, or spawned, elsewhere than in the `run` of its queue, which hears of it later. Asked where the inbox is [watched](crate::sync::inbox).
pub(crate) fn wakes(task: &Header) {
    if perhaps() {
        leave_note(task);
    }
}

#[cold]
fn leave_note(task: &Header) {
    let (queue, address) = (task.queue().addr(), std::ptr::from_ref(task).addr());
    if let Some(ring) = ring()
        && let state = &mut *ring.state.borrow_mut()
        && state.queues.contains(&queue)
    {
        // Those whose queue is closed before they arrive are left.
        if state.woken.len() < NOTES || state.woken.contains_key(&address) {
            let by = state.by();
            state.woken.insert(address, by);
        }
    } else {
        // Of another run, which may be recorded too.
        woken_by::leave_note(queue, address);
    }
}

/// A queue takes in a task that was woken elsewhere: what is told next is about that. Before the task can be woken again.
#[cold]
pub(crate) fn arrives(task: *const Header) {
    if let Some(ring) = ring() {
        let state = &mut *ring.state.borrow_mut();
        let note = state.woken.remove(&task.addr());
        let note = note.or_else(|| woken_by::take_note(task.addr()).map(WokenBy::Thread));
        state.arrived = Some(note.unwrap_or(WokenBy::Unknown));
    }
}

/// The last one has arrived.
#[cold]
pub(crate) fn have_arrived() {
    if let Some(ring) = ring() {
        ring.state.borrow_mut().arrived = None;
    }
}

/// A queue that was looked at is closed.
#[cold]
pub(crate) fn closes(queue: *const Ready) {
    if let Some(ring) = ring() {
        ring.state.borrow_mut().queues.remove(&queue.addr());
        ring.recorder.looks_away(queue.addr());
    }
}

/// What the loop wakes until this is dropped, it wakes for that.
#[inline]
pub(crate) fn in_loop(what: Loop) -> impl Drop {
    struct Doing(Option<Rc<Ring>>);
    impl Drop for Doing {
        fn drop(&mut self) {
            if let Some(ring) = &self.0 {
                ring.state.borrow_mut().loops = None;
            }
        }
    }
    let ring = if woken_by::anybody_records() { ring() } else { None };
    if let Some(ring) = &ring {
        ring.state.borrow_mut().loops = Some(what);
    }
    Doing(ring)
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
    let ring = Rc::new(Ring { capacity: capacity.max(1), began, state: RefCell::default(), recorder: Recorder::new() });
    let set = worker::with(|worker| worker.make_watch().set_ring(ring.clone()));
    match set {
        None => context::outside("`record`"),
        Some(set) => assert!(set, "this run is being recorded already"),
    }
    if let Some(tree) = context::tree() {
        tree.is_recorded_now();
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
    context::tree().map_or(0, |tree| tree.current.turn())
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
                    scope = (*scope).parent.load(Ordering::Relaxed);
                }
            }
        }
    };
    let info = worker::with(|worker| worker.watch().map(|watch| watch.info(header))).flatten();
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
        worker::with(|worker| worker.watch().map(|watch| watch.clear_ring(&self.ring)));
    }
}
