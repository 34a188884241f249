//! Who holds what others wait for: the tasks that have a lock, permits or an end of a channel, and where they got it.
//!
//! A primitive keeps its [`Holders`] in its state, under its own lock, which it has in its hands anyway when they change: some stores. With
//! the first task that has to wait they move into a slot that is never freed, which the wait names in the tree of its run, with its generation ([`Thing`]). So whoever has the lock of the tree
//! can see who holds what a task waits for, and points to nothing that could be gone: not to the primitive, and not to a task, of which it
//! has the address, to be compared only. A task that held something and ends is buried, so that another one with its address is not taken for it.
//!
//! Locks are taken in this order: that of a primitive, that of a tree, that of a thing.

#[cfg(not(trefoil_loom))]
use crate::blind::BLIND;
use crate::context;
use crate::look::holdings::{Note, Noted};
use crate::ready::Header;
use crate::scope::cause::Named;
use crate::sync::Mutex;
use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU64;
use std::panic::Location;
use std::ptr;
use std::sync::{PoisonError, atomic};

/// What kind of task it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// The main future of the run.
    Main,
    /// A child of a nursery.
    Child,
    /// The body of a nursery, which is a part of the task that opened that.
    Body,
    /// No task: a thread, or code outside of every task.
    Outside,
}

/// Which task it is, in a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TaskRef {
    /// Its address, which no other task has while it lives; 0 for what is no task. To be compared only.
    pub(crate) id: usize,
    pub(crate) role: Role,
    pub(crate) place: &'static Location<'static>,
}

impl TaskRef {
    /// What kind of task it is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Where it was spawned; for the main future where the run was started, for the body of a nursery where that was opened.
    pub fn place(&self) -> &'static Location<'static> {
        self.place
    }

    pub(crate) fn of(task: &Header) -> Self {
        let role = match (task.is_body(), task.is_task()) {
            (true, true) => Role::Main,
            (true, false) => Role::Body,
            (false, _) => Role::Child,
        };
        Self { id: ptr::from_ref(task).addr(), role, place: task.place }
    }
}

impl fmt::Display for TaskRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Called(*self, None).fmt(f)
    }
}

/// A task and its name, as a person reads it: ``task `fetch` (main.rs:10)``, or without a name `task main.rs:10`.
pub(crate) struct Called<'a>(pub TaskRef, pub Option<&'a str>);

impl fmt::Display for Called<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = Named(self.1, self.0.place);
        match self.0.role {
            Role::Main => write!(f, "the main task ({})", crate::look::snapshot::short(self.0.place)),
            Role::Child => write!(f, "task {who}"),
            Role::Body => write!(f, "the body of nursery {who}"),
            Role::Outside => write!(f, "code outside of every task"),
        }
    }
}

/// Who holds something, and since where in the program.
#[derive(Clone, Copy, Debug)]
pub struct Holder {
    task: TaskRef,
    place: &'static Location<'static>,
    units: usize,
    /// How many children the task had spawned by then, if that is known. With another one since, what it held may be that one's by now.
    spawned: Option<u16>,
    /// How many tasks had been buried by then, where this one will be.
    epoch: u64,
}

impl Holder {
    /// The task that runs now, which got so many units at `place`.
    pub fn here(place: &'static Location<'static>, units: usize) -> Self {
        // SAFETY: [CURRENT] of the context module.
        match unsafe { context::task().as_ref() } {
            Some(task) => {
                let (spawned, epoch) = (task.holds(), GRAVES.part(ptr::from_ref(task).addr()).now());
                Self { task: TaskRef::of(task), place, units, spawned, epoch }
            }
            None => Self { task: TaskRef { id: 0, role: Role::Outside, place }, place, units, spawned: None, epoch: 0 },
        }
    }

    /// Who got it. It may have passed it on since.
    pub fn task(&self) -> TaskRef {
        self.task
    }

    /// Where in the program: of the lock that was acquired, or of the end of a channel that was made.
    pub fn place(&self) -> &'static Location<'static> {
        self.place
    }

    /// How many permits or tokens; for other things, 1.
    pub fn units(&self) -> usize {
        self.units
    }

    pub(crate) fn spawned(&self) -> Option<u16> {
        self.spawned
    }

    /// Whether the task lives that got it. Another one may have its address by now.
    pub(crate) fn is_alive(&self) -> bool {
        lives(self.task.id, self.epoch)
    }
}

/// Tasks that have ended and held something at some time, by address. In parts, so that the loops of several runs seldom meet at one.
struct Graves {
    parts: [Part; PARTS],
}

#[repr(align(128))]
struct Part {
    /// How many were buried here.
    buried: atomic::AtomicU64,
    known: std::sync::Mutex<Known>,
}

struct Known {
    /// By the address, when the last of them ended that had it.
    last: BTreeMap<usize, u64>,
    /// Of those that were buried up to here some are forgotten: of who got something before, and is not among the last, nothing is known.
    before: u64,
}

const PARTS: usize = 32;

/// How many are remembered in each part, at most. As a rule tasks get the addresses of those that have ended, and there are not so many.
const REMEMBERED: usize = 1 << 12;

static GRAVES: Graves = Graves {
    parts: [const {
        let known = std::sync::Mutex::new(Known { last: BTreeMap::new(), before: 0 });
        Part { buried: atomic::AtomicU64::new(0), known }
    }; PARTS],
};

impl Graves {
    fn part(&self, address: usize) -> &Part {
        // What tells tasks from each other is above the size of the smallest.
        &self.parts[(address >> 6) % PARTS]
    }
}

impl Part {
    fn now(&self) -> u64 {
        self.buried.load(atomic::Ordering::Acquire)
    }
}

/// Whether the task with this address lives that got something when so many had been buried.
pub(crate) fn lives(address: usize, epoch: u64) -> bool {
    let known = GRAVES.part(address).known.lock().unwrap_or_else(PoisonError::into_inner);
    address != 0 && known.last.get(&address).copied().unwrap_or(known.before) <= epoch
}

/// A task that held something at some time has ended.
#[cold]
pub(crate) fn bury(address: usize) {
    let part = GRAVES.part(address);
    let mut known = part.known.lock().unwrap_or_else(PoisonError::into_inner);
    let now = part.buried.fetch_add(1, atomic::Ordering::AcqRel) + 1;
    known.last.insert(address, now);
    if known.last.len() == REMEMBERED {
        known.forget_half();
    }
}

impl Known {
    /// The older ones. Who got something just now would be taken for dead if all were forgotten.
    fn forget_half(&mut self) {
        let mut numbers: Vec<u64> = self.last.values().copied().collect();
        let (_, middle, _) = numbers.select_nth_unstable(REMEMBERED / 2);
        self.before = *middle;
        self.last.retain(|_, number| *number > self.before);
    }
}

/// What is held: a lock, permits, tokens, the other side of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Holding {
    /// A lock: one holder, or many that read.
    Lock,
    /// Permits of a semaphore.
    Permits,
    /// The senders of a channel.
    Senders,
    /// The receivers of a channel.
    Receivers,
    /// Tokens of a limiter.
    Tokens,
}

impl Holding {
    /// Whether it is the other side of a channel. That is made to be handed on; anything else is got, and given back.
    pub(crate) fn is_end(self) -> bool {
        matches!(self, Holding::Senders | Holding::Receivers)
    }
}

/// Names a holder, to take it out.
#[derive(Clone, Copy, Debug)]
pub struct HolderKey(u32);

#[derive(Debug)]
struct List {
    held: Holding,
    /// Units in all.
    capacity: usize,
    /// Somebody may add units, who holds none.
    open: bool,
    /// Most have one at a time.
    first: Entry,
    rest: Vec<Entry>,
    free: Vec<u32>,
}

/// A holder, or room for one; and what says so to the task tree.
#[derive(Debug, Default)]
struct Entry {
    holder: Option<Holder>,
    note: Noted,
}

impl Entry {
    fn set(&mut self, held: Holding, holder: Holder) {
        // Ends of channels are not what a task holds, for who looks at the tree.
        if !held.is_end() {
            self.note.write(Note {
                held,
                task: holder.task.id,
                place: holder.place,
                units: holder.units,
                epoch: holder.epoch,
            });
        }
        self.holder = Some(holder);
    }

    fn clear(&mut self) {
        self.holder = None;
        self.note.clear();
    }
}

impl List {
    fn new(held: Holding, capacity: usize, open: bool) -> Self {
        Self { held, capacity, open, first: Entry::default(), rest: Vec::new(), free: Vec::new() }
    }

    fn add(&mut self, holder: Holder) -> HolderKey {
        if self.first.holder.is_none() {
            self.first.set(self.held, holder);
            return HolderKey(0);
        }
        let at = self.free.pop().unwrap_or_else(|| {
            self.rest.push(Entry::default());
            self.rest.len() as u32 - 1
        });
        self.rest[at as usize].set(self.held, holder);
        HolderKey(at + 1)
    }

    fn remove(&mut self, key: HolderKey) {
        match key.0.checked_sub(1) {
            None => self.first.clear(),
            Some(at) => {
                self.rest[at as usize].clear();
                self.free.push(at);
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Holder> {
        std::iter::once(&self.first).chain(&self.rest).filter_map(|entry| entry.holder.as_ref())
    }
}

/// Who holds something that somebody waits for. Never freed: used for another thing when that is gone, in a new generation.
#[derive(Debug)]
struct Slot {
    /// In [`Pool::all`], counted from 1.
    number: u32,
    shared: Mutex<Shared>,
}

#[derive(Debug)]
struct Shared {
    generation: u32,
    /// How many have joined the line of those that wait.
    joined: u32,
    list: List,
}

#[cfg(not(trefoil_loom))]
struct Pool {
    free: Vec<&'static Slot>,
    all: Vec<&'static Slot>,
}

#[cfg(not(trefoil_loom))]
static POOL: Mutex<Pool> = Mutex::new(Pool { free: Vec::new(), all: Vec::new() });

/// The bit of a tag that says that a task may be found to wait for ever for it; the others are the generation.
const CLOSED: u32 = 1;

/// Names what a task waits for, for the report of a deadlock. It may be gone by now.
#[derive(Clone, Copy, Debug)]
pub struct Thing {
    /// The number of its slot, and in the lower half the tag: one word, which every wait for it writes down.
    name: NonZeroU64,
    /// Where in the line, modulo 2^32, if nobody is served before those in front; 0 if there is no such line.
    ticket: u32,
}

/// What is to be said of a thing.
pub(crate) struct Held {
    pub held: Holding,
    pub holders: Vec<Holder>,
    /// How many units there are, if nobody can add some.
    pub capacity: Option<usize>,
    /// How many have joined the line, modulo 2^32.
    pub joined: u32,
}

impl Thing {
    fn tag(self) -> u32 {
        // Cut on purpose.
        self.name.get() as u32
    }

    #[cfg(not(trefoil_loom))]
    fn slot(self) -> &'static Slot {
        POOL.lock().all[(self.name.get() >> 32) as usize - 1]
    }

    /// Whether a task may be found to wait for ever for it, whatever others do.
    #[inline]
    pub(crate) fn is_closed(self) -> bool {
        self.tag() & CLOSED != 0
    }

    /// Where in the line, counted from its begin; `None` where there is none.
    pub(crate) fn ticket(self) -> Option<u32> {
        (self.ticket != 0).then_some(self.ticket)
    }

    /// What tells it from others.
    pub(crate) fn key(self) -> NonZeroU64 {
        self.name
    }

    /// In a model there are none.
    #[cfg(trefoil_loom)]
    pub(crate) fn look(self) -> Option<Held> {
        None
    }

    /// Who holds it now; `None` if it is gone.
    #[cfg(not(trefoil_loom))]
    pub(crate) fn look(self) -> Option<Held> {
        let shared = self.slot().shared.lock();
        (shared.generation == self.tag() & !CLOSED).then(|| Held {
            held: shared.list.held,
            holders: shared.list.iter().copied().collect(),
            capacity: (!shared.list.open).then_some(shared.list.capacity),
            joined: shared.joined,
        })
    }
}

impl Slot {
    #[cfg(not(trefoil_loom))]
    fn lend(list: List) -> &'static Self {
        let mut pool = POOL.lock();
        if let Some(slot) = pool.free.pop() {
            drop(pool);
            slot.shared.lock().list = list;
            return slot;
        }
        let number = u32::try_from(pool.all.len() + 1).expect("no more than 2^32 things at once");
        let shared = Mutex::new(Shared { generation: 0, joined: 0, list });
        let slot: &'static Slot = Box::leak(Box::new(Slot { number, shared }));
        pool.all.push(slot);
        slot
    }

    /// The thing is gone.
    #[cfg(not(trefoil_loom))]
    fn give_back(&'static self) {
        let mut shared = self.shared.lock();
        shared.generation = shared.generation.wrapping_add(2);
        let list = std::mem::replace(&mut shared.list, List::new(Holding::Lock, 0, true));
        drop(shared);
        drop(list);
        POOL.lock().free.push(self);
    }

    /// What names the thing that has it now.
    fn name(&self) -> NonZeroU64 {
        let shared = self.shared.lock();
        let closed = !shared.list.held.is_end();
        let tag = shared.generation | if closed { CLOSED } else { 0 };
        NonZeroU64::new((u64::from(self.number) << 32) | u64::from(tag)).expect("numbers begin with 1")
    }
}

/// Who holds a primitive. See the module.
#[derive(Debug)]
pub struct Holders {
    here: List,
    /// Instead of `here`, once somebody had to wait.
    slot: Option<&'static Slot>,
    /// What names that.
    name: Option<NonZeroU64>,
}

impl Drop for Holders {
    fn drop(&mut self) {
        #[cfg(not(trefoil_loom))]
        if let Some(slot) = self.slot {
            slot.give_back();
        }
    }
}

impl Holders {
    /// Nobody holds any of so many units.
    pub fn new(held: Holding, capacity: usize) -> Self {
        let open = held.is_end();
        Self { here: List::new(held, capacity, open), slot: None, name: None }
    }

    #[inline]
    fn with<R>(&mut self, f: impl FnOnce(&mut List) -> R) -> R {
        match self.slot {
            None => f(&mut self.here),
            Some(slot) => f(&mut slot.shared.lock().list),
        }
    }

    /// One more holder.
    pub fn add(&mut self, holder: Holder) -> HolderKey {
        self.with(|list| list.add(holder))
    }

    /// It holds it no more.
    pub fn remove(&mut self, key: HolderKey) {
        self.with(|list| list.remove(key));
    }

    /// The only holder, of what has one at most, holds it no more.
    pub fn remove_only(&mut self) {
        self.with(|list| list.first.clear());
    }

    /// From now on there are so many units, and more may come: nothing can be concluded from who holds how many.
    pub fn set_open(&mut self) {
        self.with(|list| list.open = true);
    }

    /// So many units are held for good.
    pub fn forget(&mut self, units: usize) {
        self.with(|list| list.capacity = list.capacity.saturating_sub(units));
    }

    /// What who has to wait names. Nothing in a model: a slot would outlive its execution.
    #[inline]
    pub fn thing(&mut self) -> Option<Thing> {
        #[cfg(not(trefoil_loom))]
        if !BLIND && self.name.is_none() {
            self.share();
        }
        self.name.map(|name| Thing { name, ticket: 0 })
    }

    /// The same for who joins a line in which nobody is served before those in front. Call it in the order of the line.
    pub fn thing_in_line(&mut self) -> Option<Thing> {
        let thing = self.thing()?;
        let mut shared = self.slot?.shared.lock();
        shared.joined = match shared.joined.wrapping_add(1) {
            0 => 1,
            next => next,
        };
        Some(Thing { ticket: shared.joined, ..thing })
    }

    #[cfg(not(trefoil_loom))]
    #[cold]
    fn share(&mut self) {
        let none = List::new(self.here.held, 0, true);
        let slot = Slot::lend(std::mem::replace(&mut self.here, none));
        (self.slot, self.name) = (Some(slot), Some(slot.name()));
    }

    /// Who holds it now, for a `Debug` output.
    pub fn list(&self) -> Vec<Holder> {
        match self.slot {
            None => self.here.iter().copied().collect(),
            Some(slot) => slot.shared.lock().list.iter().copied().collect(),
        }
    }
}

#[cfg(all(test, not(trefoil_loom)))]
mod tests {
    use super::*;

    /// However many end meanwhile, who got something just now is not taken for dead.
    #[test]
    #[cfg_attr(miri, ignore = "no pointers, and ten minutes")]
    fn who_got_something_lately_is_known_to_live() {
        // In one part. No task has such an address: they are aligned.
        let address = |number: usize| ((number * PARTS) << 6) + 1;
        let part = GRAVES.part(address(1));
        for number in 2..4 * REMEMBERED {
            let epoch = part.now();
            assert!(lives(address(1), epoch), "{number}");
            bury(address(number));
            assert!(!lives(address(number), epoch) && lives(address(number), part.now()), "{number}");
            if let Some(before) = epoch.checked_sub(REMEMBERED as u64 / 2 - 2) {
                assert!(lives(address(1), before), "{number}");
            }
        }
        assert!(part.known.lock().unwrap().last.len() < REMEMBERED);
        bury(address(1));
        assert!(!lives(address(1), part.now() - 1));
    }
}
