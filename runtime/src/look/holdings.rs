//! What each task holds, for the task tree: locks, permits and tokens, also those that nobody else wants.
//!
//! Who holds a primitive is in the primitive, wherever that is, and the tree cannot point there. So each holder is noted in a [`Cell`] too, of
//! which there are as many as were ever in use at once: they are never freed, and whoever takes a snapshot walks through all of them. A
//! primitive keeps the cells that it has used, and gives them back when it goes. Noting is a few stores: the one who writes has the lock of the
//! primitive, and the version tells a reader that it has read one note and not parts of two.
//!
//! ```text
//!   writer: version := odd    fields := .. (Release)    version := even (Release)
//!   reader: version (Acquire) fields (Acquire)          version again: the same, and even
//! ```
//!
//! A reader that sees a field of a later note sees the odd version before it, or a later one: so it looks again.

use crate::look::holders::Holding;
use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::panic::Location;
use std::ptr;

/// A task holds something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// What.
    pub held: Holding,
    /// The address of the task, to be compared only.
    pub task: usize,
    /// Where it got it.
    pub place: &'static Location<'static>,
    /// How many units.
    pub units: usize,
    /// How many tasks had been buried then, where this one will be.
    pub epoch: u64,
}

/// Room for a note. See the module.
#[derive(Debug)]
pub struct Cell {
    version: AtomicU32,
    held: AtomicU32,
    task: AtomicUsize,
    place: AtomicPtr<Location<'static>>,
    units: AtomicUsize,
    epoch: AtomicU64,
}

impl Default for Cell {
    fn default() -> Self {
        Self {
            version: AtomicU32::new(0),
            held: AtomicU32::new(0),
            task: AtomicUsize::new(0),
            place: AtomicPtr::new(ptr::null_mut()),
            units: AtomicUsize::new(0),
            epoch: AtomicU64::new(0),
        }
    }
}

/// It is being written just now: look again.
#[derive(Debug)]
pub struct Torn;

const LOCK: u32 = Holding::Lock as u32;
const TOKENS: u32 = Holding::Tokens as u32;

impl Cell {
    /// Writes a note, for what is no end of a channel. By one thread at a time.
    #[inline]
    pub fn write(&self, note: Note) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        self.held.store(note.held as u32, Ordering::Release);
        self.task.store(note.task, Ordering::Release);
        self.place.store(ptr::from_ref(note.place).cast_mut(), Ordering::Release);
        self.units.store(note.units, Ordering::Release);
        self.epoch.store(note.epoch, Ordering::Release);
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }

    /// There is nothing to note any more. As [`write`](Self::write).
    #[inline]
    pub fn clear(&self) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        self.task.store(0, Ordering::Release);
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }

    /// The note, if there is one. Any thread.
    ///
    /// # Errors
    /// [`Torn`].
    pub fn read(&self) -> Result<Option<Note>, Torn> {
        let version = self.version.load(Ordering::Acquire);
        let held = self.held.load(Ordering::Acquire);
        let task = self.task.load(Ordering::Acquire);
        let place = self.place.load(Ordering::Acquire);
        let units = self.units.load(Ordering::Acquire);
        let epoch = self.epoch.load(Ordering::Acquire);
        if version & 1 != 0 || self.version.load(Ordering::Relaxed) != version {
            return Err(Torn);
        }
        // SAFETY: only what was `&'static` is stored there.
        let Some(place) = (unsafe { place.as_ref() }) else { return Ok(None) };
        let held = match held {
            LOCK => Holding::Lock,
            TOKENS => Holding::Tokens,
            _ => Holding::Permits,
        };
        Ok((task != 0).then_some(Note { held, task, place, units, epoch }))
    }
}

/// How many cells are made at once.
#[cfg(not(trefoil_loom))]
const MANY: usize = 64;

#[cfg(not(trefoil_loom))]
struct Pool {
    free: Vec<&'static Cell>,
    all: Vec<&'static [Cell]>,
}

#[cfg(not(trefoil_loom))]
static POOL: crate::sync::Mutex<Pool> = crate::sync::Mutex::new(Pool { free: Vec::new(), all: Vec::new() });

/// A cell for one holder of a primitive, from the first time on that there is one.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    cell: Option<&'static Cell>,
}

impl Noted {
    /// Nothing in a model: a cell would outlive its execution.
    #[inline]
    pub fn write(&mut self, note: Note) {
        #[cfg(not(trefoil_loom))]
        self.cell.get_or_insert_with(lend).write(note);
        #[cfg(trefoil_loom)]
        let _ = note;
    }

    #[inline]
    pub fn clear(&mut self) {
        if let Some(cell) = self.cell {
            cell.clear();
        }
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        #[cfg(not(trefoil_loom))]
        if let Some(cell) = self.cell {
            // A guard that was forgotten leaves a note.
            cell.clear();
            POOL.lock().free.push(cell);
        }
    }
}

#[cfg(not(trefoil_loom))]
#[cold]
fn lend() -> &'static Cell {
    let mut pool = POOL.lock();
    if pool.free.is_empty() {
        let cells: &'static [Cell] = Box::leak((0..MANY).map(|_| Cell::default()).collect());
        pool.all.push(cells);
        pool.free.extend(cells);
    }
    pool.free.pop().expect("some were added")
}

/// What is held by tasks that live, in this run and in others.
#[cfg(not(trefoil_loom))]
pub(crate) fn all() -> Vec<Note> {
    /// Who writes a note has only a few instructions to go, or its thread does not run just now: then it is left out.
    const TRIES: usize = 1_000;
    let all = POOL.lock().all.clone();
    let read = |cell: &Cell| (0..TRIES).find_map(|_| cell.read().ok()).flatten();
    all.into_iter()
        .flatten()
        .filter_map(read)
        .filter(|note| crate::look::holders::lives(note.task, note.epoch))
        .collect()
}

#[cfg(trefoil_loom)]
pub(crate) fn all() -> Vec<Note> {
    Vec::new()
}
