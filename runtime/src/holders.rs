//! Who holds what others wait for: the tasks that have a lock, permits or an end of a channel, and where they got it.
//!
//! A primitive keeps its [`Holders`] in its state, under its own lock, which it has in its hands anyway when they change: some stores. With
//! the first task that has to wait they move into a [`Thing`], which the wait names in the tree of its run. So whoever has the lock of the tree
//! can see who holds what a task waits for, and points to nothing that could be gone: not to the primitive, and not to a task, which is
//! named by a number that no other task has.
//!
//! Locks are taken in this order: that of a primitive, that of a tree, that of a thing.

use crate::context;
use crate::ready::Header;
use crate::sync::{Arc, Mutex};
use std::fmt;
use std::panic::Location;

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
    /// No other task of the process has the same; 0 for what is no task.
    pub(crate) id: u64,
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

    /// The one that runs now.
    pub fn here() -> Option<Self> {
        // SAFETY: [CURRENT] of the context module.
        unsafe { context::frame().task.as_ref() }.map(Self::of)
    }

    pub(crate) fn of(task: &Header) -> Self {
        let role = match (task.is_body(), task.is_task()) {
            (true, true) => Role::Main,
            (true, false) => Role::Body,
            (false, _) => Role::Child,
        };
        Self { id: task.id(), role, place: task.place }
    }
}

impl fmt::Display for TaskRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = crate::snapshot::short(self.place);
        match self.role {
            Role::Main => write!(f, "the main task ({place})"),
            Role::Child => write!(f, "task {place}"),
            Role::Body => write!(f, "the body of nursery {place}"),
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
    /// How many children the task had spawned by then. With another one since, what it held may be that one's by now.
    spawned: u32,
}

impl Holder {
    /// The task that runs now, which got so many units at `place`.
    pub fn here(place: &'static Location<'static>, units: usize) -> Self {
        // SAFETY: [CURRENT] of the context module.
        match unsafe { context::frame().task.as_ref() } {
            Some(task) => Self { task: TaskRef::of(task), place, units, spawned: task.spawned() },
            None => Self { task: TaskRef { id: 0, role: Role::Outside, place }, place, units, spawned: 0 },
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

    /// How many permits; for other things, 1.
    pub fn units(&self) -> usize {
        self.units
    }

    pub(crate) fn spawned(&self) -> u32 {
        self.spawned
    }
}

/// What is held: a lock, permits, the other side of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Holding {
    /// A lock: one holder, or many that read.
    Lock,
    /// Permits or tokens.
    Permits,
    /// The senders of a channel.
    Senders,
    /// The receivers of a channel.
    Receivers,
}

/// Names a holder, to take it out.
#[derive(Clone, Copy, Debug)]
pub struct HolderKey(u32);

#[derive(Clone, Debug)]
struct List {
    /// Units in all.
    capacity: usize,
    /// Somebody may add units, who holds none.
    open: bool,
    /// Most have one at a time.
    first: Option<Holder>,
    rest: Vec<Option<Holder>>,
    free: Vec<u32>,
}

impl List {
    fn add(&mut self, holder: Holder) -> HolderKey {
        if self.first.is_none() {
            self.first = Some(holder);
            return HolderKey(0);
        }
        match self.free.pop() {
            Some(at) => {
                self.rest[at as usize] = Some(holder);
                HolderKey(at + 1)
            }
            None => {
                self.rest.push(Some(holder));
                HolderKey(self.rest.len() as u32)
            }
        }
    }

    fn remove(&mut self, key: HolderKey) {
        match key.0.checked_sub(1) {
            None => self.first = None,
            Some(at) => {
                self.rest[at as usize] = None;
                self.free.push(at);
            }
        }
    }

    fn get_mut(&mut self, key: HolderKey) -> Option<&mut Holder> {
        match key.0.checked_sub(1) {
            None => self.first.as_mut(),
            Some(at) => self.rest[at as usize].as_mut(),
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Holder> {
        self.first.iter().chain(self.rest.iter().flatten())
    }
}

/// What a task waits for, as far as the report of a deadlock is concerned. See the module.
#[derive(Debug)]
pub struct Thing {
    pub(crate) holding: Holding,
    list: Mutex<List>,
}

impl Thing {
    /// Whether a task may be found to wait for ever for it, whatever others do.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.holding, Holding::Lock | Holding::Permits)
    }

    /// Who holds it now.
    pub(crate) fn holders(&self) -> Vec<Holder> {
        self.list.lock().iter().copied().collect()
    }

    /// How many units there are, if nobody can add some.
    pub(crate) fn capacity(&self) -> Option<usize> {
        let list = self.list.lock();
        (!list.open).then_some(list.capacity)
    }
}

/// Who holds a primitive. See the module.
#[derive(Debug)]
pub struct Holders {
    held: Holding,
    here: List,
    /// Instead of `here`, once somebody had to wait.
    thing: Option<Arc<Thing>>,
}

impl Holders {
    /// Nobody holds any of so many units.
    pub fn new(held: Holding, capacity: usize) -> Self {
        let open = matches!(held, Holding::Senders | Holding::Receivers);
        Self { held, here: List { capacity, open, first: None, rest: Vec::new(), free: Vec::new() }, thing: None }
    }

    #[inline]
    fn with<R>(&mut self, f: impl FnOnce(&mut List) -> R) -> R {
        match &self.thing {
            None => f(&mut self.here),
            Some(thing) => f(&mut thing.list.lock()),
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
        self.with(|list| list.first = None);
    }

    /// Another task uses what is held under this key.
    pub fn used_by(&mut self, key: HolderKey, task: TaskRef) {
        self.with(|list| {
            if let Some(holder) = list.get_mut(key) {
                holder.task = task;
            }
        });
    }

    /// From now on there are so many units, and more may come: nothing can be concluded from who holds how many.
    pub fn set_open(&mut self) {
        self.with(|list| list.open = true);
    }

    /// So many units are held for good.
    pub fn forget(&mut self, units: usize) {
        self.with(|list| list.capacity = list.capacity.saturating_sub(units));
    }

    /// What who has to wait names.
    pub fn thing(&mut self) -> Arc<Thing> {
        let (held, here) = (self.held, &mut self.here);
        let thing = self.thing.get_or_insert_with(|| {
            let list = List { first: here.first.take(), rest: std::mem::take(&mut here.rest), ..here.clone() };
            Arc::new(Thing { holding: held, list: Mutex::new(list) })
        });
        thing.clone()
    }

    /// Who holds it now, for a `Debug` output.
    pub fn list(&self) -> Vec<Holder> {
        match &self.thing {
            None => self.here.iter().copied().collect(),
            Some(thing) => thing.holders(),
        }
    }
}
