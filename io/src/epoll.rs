//! The epoll driver.
//!
//! A descriptor is registered once, at its first wait, edge-triggered: from then on waiting costs no system call, since an
//! edge only sets the source's [`Readiness`](crate::readiness) and wakes who waits. Reading is not watched for who only writes, and the
//! other way round: the second direction is added when it is first waited for.
//!
//! - [`Epoll`] belongs to the worker's thread: it sleeps and dispatches.
//! - [`Home`] is what sources hold of it, on any thread: `epoll_ctl` may be called from anywhere. It names sources to the kernel by
//!   index and generation, so an event that comes late (a descriptor closed behind our back, or duplicated) finds nobody instead
//!   of a stranger (R110).
//! - [`Bell`] wakes it.
//!
//! **\[TABLE\]** A source is in the table exactly as long as it has a registration that names this home; both change under the table's
//! lock, or (at the end of the run, or of the source) one after the other.

mod pace;

use crate::bell::Bell;
use crate::fs::errand::{Errand, OnThread, Under};
use crate::reactor::Seat;
use crate::readiness::{READ, SHORT_READ_LIES, WRITE};
use crate::source::{Registration, Shared, Want};
use crate::wake::WakeList;
use pace::Pace;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};
use trefoil_runtime::sync::biased::{BiasedGuard, BiasedLock};
use trefoil_runtime::{Driver, Pool, Unpark, nothing_in_flight};

/// How many events one look takes.
const EVENTS: usize = 256;

/// What the kernel says when the bell has rung. No key of the table is like it.
const BELL: u64 = u64::MAX;

/// The driver. See the module.
pub(crate) struct Epoll {
    home: Arc<Home>,
    bell: Arc<Bell>,
    found: RefCell<Found>,
    pace: Pace,
    /// Whether the kernel has `epoll_pwait2` (5.11), as far as we know.
    precise: Cell<bool>,
    /// For what blocks.
    threads: Pool<OnThread>,
}

/// What a look finds: memory for the next one.
struct Found {
    events: Vec<Event>,
    wake: WakeList,
}

impl fmt::Debug for Epoll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Epoll").field("home", &self.home).finish_non_exhaustive()
    }
}

impl Epoll {
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let bell = Bell::new()?;
        // Edge-triggered, so that it need not be read: each write is an edge, and the counter is too large to fill.
        epoll::add(&epoll, &bell, EventData::new_u64(BELL), EventFlags::IN | EventFlags::ET)?;
        Ok(Self {
            home: Arc::new(Home { epoll, table: BiasedLock::new(Table::default()), seat: Seat::default() }),
            bell: Arc::new(bell),
            found: RefCell::new(Found { events: Vec::with_capacity(EVENTS), wake: WakeList::default() }),
            pace: Pace::new(Instant::now()),
            precise: Cell::new(true),
            threads: crate::fs::errand::threads(),
        })
    }

    pub fn home(&self) -> &Arc<Home> {
        &self.home
    }

    /// Begins an errand, on a thread.
    ///
    /// # Errors
    /// If none can be had.
    pub fn begin(&self, errand: Box<dyn Errand>) -> Result<Under, (io::Error, Box<dyn Errand>)> {
        Under::on_thread(&self.threads, errand)
    }

    /// Waits for events, and dispatches them.
    #[inline(never)]
    fn look(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.look_inline(timeout)
    }

    #[inline(always)]
    fn look_inline(&self, timeout: Option<Duration>) -> io::Result<()> {
        let mut found = self.found.borrow_mut();
        found.events.clear();
        match self.wait(&mut found.events, timeout) {
            // A signal: the loop comes back.
            Ok(()) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if found.events.is_empty() {
            return Ok(());
        }
        let mut wake = std::mem::take(&mut found.wake);
        let ended = self.home.dispatch(&found.events, &mut wake);
        drop(found);
        self.home.seat.count(ended.wrapping_neg(), true);
        wake.wake();
        wake.put_back(&mut self.found.borrow_mut().wake);
        Ok(())
    }

    #[inline(never)]
    fn poll_by_the_clock(&self) -> io::Result<()> {
        if self.pace.is_due(Instant::now()) { self.look(Some(Duration::ZERO)) } else { Ok(()) }
    }

    #[inline(always)]
    fn wait(&self, events: &mut Vec<Event>, timeout: Option<Duration>) -> rustix::io::Result<()> {
        if let Some(timeout) = timeout
            && timeout.subsec_nanos() % 1_000_000 != 0
            && self.precise.get()
        {
            match wait_precisely(&self.home.epoll, events, timeout) {
                // The kernel is older, or a filter does not know the call: this makes do with milliseconds.
                Err(Errno::NOSYS | Errno::PERM) => self.precise.set(false),
                result => return result,
            }
        }
        // Never early: rustix rounds up to milliseconds.
        let timeout = timeout.map(|t| rustix::time::Timespec::try_from(t).unwrap_or(LONG));
        epoll::wait(&self.home.epoll, rustix::buffer::spare_capacity(events), timeout.as_ref())?;
        Ok(())
    }
}

/// Longer than anybody waits, and short enough for every system call.
const LONG: rustix::time::Timespec = rustix::time::Timespec { tv_sec: 1_000_000, tv_nsec: 0 };

/// `epoll_pwait2`: to the nanosecond.
fn wait_precisely(epoll: &OwnedFd, events: &mut Vec<Event>, timeout: Duration) -> rustix::io::Result<()> {
    let timeout = libc::timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    let room = events.spare_capacity_mut();
    // SAFETY: the kernel writes at most `room.len()` events where there is room for them: `Event` is laid out as the
    // kernel's `epoll_event` is. No signal mask, so its size means nothing.
    let n = unsafe {
        libc::syscall(
            libc::SYS_epoll_pwait2,
            epoll.as_raw_fd(),
            room.as_mut_ptr(),
            room.len(),
            &raw const timeout,
            std::ptr::null::<libc::sigset_t>(),
            0,
        )
    };
    match usize::try_from(n) {
        Ok(n) => {
            // SAFETY: so many were written.
            unsafe { events.set_len(events.len() + n) };
            Ok(())
        }
        Err(_) => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL)),
    }
}

impl Driver for Epoll {
    fn name(&self) -> &'static str {
        "epoll"
    }

    fn park(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.look(timeout)
    }

    // What a loop does all the time: a copy of its own, in which nothing is asked of a timeout.
    #[inline(never)]
    fn park_in_flight(&self) -> io::Result<()> {
        if !cfg!(trefoil_blind) && self.home.seat.waits() == 0 {
            return Err(nothing_in_flight());
        }
        self.look_inline(None)
    }

    fn poll(&self) -> io::Result<()> {
        if self.pace.passes_over() { Ok(()) } else { self.poll_by_the_clock() }
    }

    fn poll_now(&self) -> io::Result<()> {
        self.look(Some(Duration::ZERO))
    }

    fn unparker(&self) -> Arc<dyn Unpark> {
        self.bell.clone()
    }

    fn in_flight(&self) -> usize {
        self.home.seat.waits()
    }

    fn shutdown(&self) {
        self.home.close();
    }
}

impl Drop for Epoll {
    fn drop(&mut self) {
        self.home.close();
    }
}

/// What sources hold of their driver. See the module.
pub(crate) struct Home {
    epoll: OwnedFd,
    /// The driver takes it in each look that finds something, others when they register and when they are gone: it favours the driver's thread.
    table: BiasedLock<Table>,
    pub seat: Seat,
}

impl fmt::Debug for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Home")
            .field("epoll", &self.epoll.as_raw_fd())
            .field("waits", &self.seat.waits())
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    closed: bool,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    source: Option<Arc<Shared>>,
}

fn key(index: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(index)
}

fn index(key: u64) -> usize {
    (key & u64::from(u32::MAX)) as usize
}

impl Table {
    fn insert(&mut self, source: Arc<Shared>) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).expect("fewer sources than descriptors")
        });
        let slot = &mut self.slots[index as usize];
        slot.source = Some(source);
        key(index, slot.generation)
    }

    fn get(&self, key: u64) -> Option<&Arc<Shared>> {
        let slot = self.slots.get(index(key))?;
        if u64::from(slot.generation) == key >> 32 { slot.source.as_ref() } else { None }
    }

    fn remove(&mut self, key: u64) -> Option<Arc<Shared>> {
        self.get(key)?;
        let slot = &mut self.slots[index(key)];
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index(key) as u32);
        slot.source.take()
    }
}

impl Home {
    fn table(&self) -> BiasedGuard<'_, Table> {
        self.table.lock(|| self.seat.is_here())
    }

    /// Registers a source, or a further direction of it. It may find the run over, or the source registered elsewhere
    /// meanwhile: then it does nothing, and the caller looks again.
    pub fn attach(self: &Arc<Self>, source: &Arc<Shared>, want: Want) -> io::Result<()> {
        let mut table = self.table();
        if table.closed {
            return Ok(());
        }
        let mut state = source.lock();
        match &mut state.registration {
            None => {
                let key = table.insert(source.clone());
                if let Err(error) =
                    epoll::add(&self.epoll, source.fd(), EventData::new_u64(key), flags(want.interest()))
                {
                    // Not the last reference: the caller has one.
                    table.remove(key);
                    return Err(unwatched(error));
                }
                let home = crate::reactor::Home::Epoll(self.clone());
                state.registration = Some(Registration { home, key, interest: want.interest(), armed: 0 });
            }
            Some(Registration { home: crate::reactor::Home::Epoll(home), key, interest, .. })
                if Arc::ptr_eq(home, self) =>
            {
                let both = *interest | want.interest();
                epoll::modify(&self.epoll, source.fd(), EventData::new_u64(*key), flags(both))?;
                *interest = both;
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// Takes a source out.
    pub fn detach(&self, source: &Shared, key: u64) {
        let removed = self.remove(&mut self.table(), source, key);
        drop(removed);
    }

    fn remove(&self, table: &mut Table, source: &Shared, key: u64) -> Option<Arc<Shared>> {
        let removed = table.remove(key)?;
        // Closing would not do: a duplicate of the descriptor, in a forked child perhaps, would go on waking us. An error means that it was
        // closed behind our back.
        let _ = epoll::delete(&self.epoll, source.fd());
        Some(removed)
    }

    /// Lets a source go that is idle: it moves to another run.
    pub fn leave(self: &Arc<Self>, source: &Shared, key: u64) {
        let mut table = self.table();
        let mut state = source.lock();
        let left = if state.waiting == 0 {
            state.registration.take_if(|registration| self.is_home(registration, key))
        } else {
            None
        };
        // If it is no longer in the table, the run is over, and whoever ends it leaves alone what is not registered here.
        let removed = if left.is_some() { self.remove(&mut table, source, key) } else { None };
        drop(state);
        drop(table);
        drop((left, removed));
    }

    fn is_home(self: &Arc<Self>, registration: &Registration, key: u64) -> bool {
        registration.key == key
            && matches!(&registration.home, crate::reactor::Home::Epoll(home) if Arc::ptr_eq(home, self))
    }

    /// How many waits ended by what the kernel says.
    #[inline(always)]
    fn dispatch(&self, events: &[Event], wake: &mut WakeList) -> usize {
        let table = self.table();
        let mut ended = 0;
        for event in events {
            let (key, flags) = (event.data.u64(), event.flags);
            if key != BELL
                && let Some(source) = table.get(key)
            {
                ended += source.notify(readiness(flags), wake);
            }
        }
        ended
    }

    /// What an edge to read does.
    #[cfg(trefoil_loom)]
    pub fn dispatch_edge(&self, key: u64, wake: &mut WakeList) {
        let ended = self.dispatch(&[Event { flags: EventFlags::IN, data: EventData::new_u64(key) }], wake);
        self.seat.waits_ended(ended);
    }

    /// The run is over: its sources lose their home.
    pub fn close(self: &Arc<Self>) {
        let mut table = self.table();
        table.closed = true;
        let slots = std::mem::take(&mut table.slots);
        drop(table);
        let mut wake = WakeList::default();
        for (at, slot) in slots.into_iter().enumerate() {
            if let Some(source) = slot.source {
                let key = key(at as u32, slot.generation);
                source.orphan(|registration| self.is_home(registration, key), &mut wake);
            }
        }
    }
}

/// Why a descriptor is not watched. What the system says of too many of them is "no space left on device".
fn unwatched(error: Errno) -> io::Error {
    match error {
        Errno::NOSPC => {
            let why =
                "epoll watches as many descriptors as this user may have: raise fs.epoll.max_user_watches (sysctl)";
            io::Error::new(io::ErrorKind::QuotaExceeded, why)
        }
        error => error.into(),
    }
}

/// What to ask of the kernel.
fn flags(interest: u32) -> EventFlags {
    let mut flags = EventFlags::ET;
    if interest & READ != 0 {
        flags |= EventFlags::IN | EventFlags::RDHUP | EventFlags::PRI;
    }
    if interest & WRITE != 0 {
        flags |= EventFlags::OUT;
    }
    flags
}

/// What the kernel says, as flags of a [`Readiness`](crate::readiness::Readiness).
fn readiness(event: EventFlags) -> u32 {
    let mut ready = 0;
    if event.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::PRI | EventFlags::HUP | EventFlags::ERR) {
        ready |= READ;
    }
    if event.intersects(EventFlags::OUT | EventFlags::HUP | EventFlags::ERR) {
        ready |= WRITE;
    }
    // The end, or an error, may be all that is left behind the bytes that a read takes; and a read stops short at urgent data.
    if event.intersects(EventFlags::RDHUP | EventFlags::PRI | EventFlags::HUP | EventFlags::ERR) {
        ready |= SHORT_READ_LIES;
    }
    ready
}

#[cfg(all(test, not(trefoil_loom)))]
mod tests {
    use super::*;
    use crate::source::Source;
    use rustix::event::{EventfdFlags, eventfd};

    #[test]
    fn an_event_that_comes_late_finds_nobody_instead_of_a_stranger() {
        let source = || Source::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap());
        let (gone, stranger) = (source(), source());
        let mut table = Table::default();
        let old = table.insert(gone.shared().clone());
        assert!(table.get(old).is_some());
        assert!(table.remove(old).is_some());
        assert!(table.get(old).is_none());
        let new = table.insert(stranger.shared().clone());
        assert_eq!(index(new), index(old), "the place is used again");
        assert!(table.get(old).is_none());
        assert!(table.remove(old).is_none());
        assert!(Arc::ptr_eq(table.get(new).unwrap(), stranger.shared()));
        assert!(table.get(BELL).is_none());
    }

    #[test]
    fn a_loop_that_spins_sees_each_event_at_its_next_look() {
        let epoll = Epoll::new().unwrap();
        let source = Source::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap());
        epoll.home().attach(source.shared(), Want::Bytes).unwrap();
        let readiness = &source.shared().readiness;
        for _ in 0..100 {
            epoll.poll_now().unwrap();
            readiness.clear(readiness.look(), READ);
            rustix::io::write(source.fd(), &1u64.to_ne_bytes()).unwrap();
            epoll.poll_now().unwrap();
            assert!(readiness.look().has(READ));
        }
    }

    #[test]
    fn a_kernel_without_the_precise_call_rounds_up() {
        let epoll = Epoll::new().unwrap();
        for precise in [true, false] {
            epoll.precise.set(precise);
            for micros in [1, 300, 1_100] {
                let timeout = Duration::from_micros(micros);
                let before = Instant::now();
                epoll.park(Some(timeout)).unwrap();
                assert!(before.elapsed() >= timeout);
            }
        }
    }
}
