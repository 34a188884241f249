//! The thread's own part of the driver: which operation is under way for which source, and what its completions mean.
//!
//! # What is under way
//!
//! Per source and direction at most one operation; `armed` in its registration says whether there is one, so that a wait
//! which finds it set does nothing at all. From idle to idle:
//!
//! ```text
//!              order: `armed` (and `streaming`) set,             a completion with MORE:
//!              under the source's lock                           deliver
//!                                                                ┌──────┐
//!   Idle ───────────────────────────────────────────▶ Under way ─┴──────▼
//!    ▲                                                 │    │ too much is queued; the source was dropped
//!    │   the last completion: deliver, unset           │    ▼
//!    └──── `armed` and `streaming`, wake ◀─────────────┴─ Stopping
//! ```
//!
//! Whatever the reason for the last completion (the end, an error, a cancel, no buffer, the kernel's whim), who waits is woken, takes
//! what is queued, and then asks the kernel directly; only if that would block is an operation armed again. So a lack of buffers
//! is not even noticed by readers, and a slow reader stops what is received ahead of it: what is over the bound stays in the
//! kernel until the queue was read.
//!
//! # Invariants
//!
//! - **\[KEPT\]** A source that was attached stays in `sources`, and with it its descriptor open, until it was detached *and* the last
//!   completion of each of its operations was popped. So keys in flight always name somebody.
//! - **\[GROUP\]** `buffers` is dropped only with no receive in flight, and leaked otherwise (`Drop` of [`Core`]): the promise of
//!   [`Sqe::recv_multishot`].
//! - No user code runs in here: wakers are collected in `wake`, and sources that may be the last of their kind (their parks hold wakers) in
//!   `gone`, for the caller to deal with when the core is no longer borrowed.

use super::buf_ring::BufRing;
use super::home::Home;
use super::outgoing::{CANCEL, Cancelling, Outgoing};
use super::ring::{Ring, Setup};
use super::slots::{INDEX_BITS, Key, Slots};
use super::sys::{Cqe, Sqe};
use crate::bell::Bell;
use crate::inbound::End;
use crate::readiness::{INBOUND, READ, WRITE};
use crate::source::{Direction, Registration, Shared, State};
use crate::wake::WakeList;
use rustix::event::PollFlags;
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many bytes may be queued for a source before no more are received ahead.
const MOST_BYTES: usize = 64 << 10;

/// How many connections may.
const MOST_CONNECTIONS: usize = 32;

/// Few and small, so that they stay in the cache.
const BUFFERS: u16 = 256;
const BUFFER_SIZE: u32 = 4 << 10;

/// While draining.
const CANCEL_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// The only group there is.
const GROUP: u16 = 0;

/// The key of the poll on the bell.
const BELL: Key = CANCEL + 1;

/// Marks the keys of a source's writing direction; that of the reading one is the source's own.
const WRITING: Key = 1 << INDEX_BITS;

/// A part of a key.
const PARTS: Key = 3 << INDEX_BITS;

/// What may be under way for a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A look at readiness, once: then who waits asks the kernel.
    Poll(Direction),
    /// Receiving, until told otherwise.
    Receive,
    /// Accepting, until told otherwise.
    Accept,
}

impl Kind {
    fn direction(self) -> Direction {
        match self {
            Kind::Poll(direction) => direction,
            Kind::Receive | Kind::Accept => Direction::Read,
        }
    }

    /// Whether its completions bring something.
    pub fn streams(self) -> bool {
        matches!(self, Kind::Receive | Kind::Accept)
    }
}

/// Of one direction. See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Under {
    Idle,
    Way(Kind),
    Stopping(Kind),
}

/// An attached source.
#[derive(Debug)]
struct Entry {
    source: Arc<Shared>,
    read: Under,
    write: Under,
    detached: bool,
}

impl Entry {
    fn under(&mut self, direction: Direction) -> &mut Under {
        match direction {
            Direction::Read => &mut self.read,
            Direction::Write => &mut self.write,
        }
    }

    fn is_idle(&self) -> bool {
        self.read == Under::Idle && self.write == Under::Idle
    }
}

/// The key of an operation.
fn operation(source: Key, direction: Direction) -> Key {
    match direction {
        Direction::Read => source,
        Direction::Write => source | WRITING,
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Core {
    out: Outgoing,
    buffers: Option<BufRing>,
    home: Arc<Home>,
    /// Whether the poll on the bell is under way, and whether it is a multishot one as far as we know (5.13).
    bell_armed: bool,
    bell_multishot: bool,
    /// The bell has rung since somebody has set this to false.
    pub rang: bool,
    sources: Slots<Entry>,
    /// How many operations of sources are.
    under_way: usize,
    /// No operation begins any more.
    closing: bool,
    pub wake: WakeList,
    pub gone: Vec<Arc<Shared>>,
}

impl Core {
    /// On the thread that will use it.
    ///
    /// # Errors
    /// Those of [`Ring::new`] and of eventfd(2).
    pub fn new(entries: u32) -> io::Result<Self> {
        let ring = Ring::new(Setup::new(entries))?;
        let buffers = if ring.multishot_recv() {
            BufRing::new(&ring, GROUP, BUFFERS, BUFFER_SIZE)
                .inspect_err(|error| tracing::debug!("receiving without provided buffers: {error}"))
                .ok()
        } else {
            None
        };
        let home = Arc::new(Home::new(Bell::new()?, buffers.is_some(), ring.multishot_accept()));
        let mut core = Self {
            out: Outgoing::new(ring),
            buffers,
            home,
            bell_armed: false,
            bell_multishot: true,
            rang: false,
            sources: Slots::new(),
            under_way: 0,
            closing: false,
            wake: WakeList::default(),
            gone: Vec::new(),
        };
        core.arm_bell()?;
        Ok(core)
    }

    pub fn home(&self) -> &Arc<Home> {
        &self.home
    }

    /// How many operations of sources the kernel has.
    pub fn under_way(&self) -> usize {
        self.under_way
    }

    /// Whether a look at the ring would bring something. No system call.
    pub fn has_news(&self) -> bool {
        self.out.needs_enter() || self.out.ring.ready() > 0
    }

    fn arm_bell(&mut self) -> io::Result<()> {
        let events = u32::from(PollFlags::IN.bits());
        let poll = if self.bell_multishot { Sqe::poll_add_multishot } else { Sqe::poll_add };
        self.out.submit(poll(self.home.bell().as_fd(), events, BELL))?;
        self.bell_armed = true;
        Ok(())
    }

    /// Registers a source, unless it is registered already.
    pub fn attach(&mut self, source: &Arc<Shared>) {
        let mut state = source.lock();
        if state.registration.is_none() && !self.closing {
            let entry = Entry { source: source.clone(), read: Under::Idle, write: Under::Idle, detached: false };
            let key = self.sources.insert(entry);
            let home = crate::reactor::Home::IoUring(self.home.clone());
            state.registration = Some(Registration { home, key, interest: READ | WRITE, armed: 0 });
        }
    }

    /// Begins an operation.
    pub fn arm(&mut self, key: Key, kind: Kind) -> io::Result<()> {
        let Some(entry) = self.sources.get_mut(key) else { return Ok(()) };
        let direction = kind.direction();
        // When all is over, who waits is told by `orphan`.
        if self.closing || entry.detached || *entry.under(direction) != Under::Idle {
            return Ok(());
        }
        let (fd, key) = (entry.source.fd(), operation(key, direction));
        let (kind, sqe) = match (kind, &self.buffers) {
            // Who waits has just been told that there is nothing, so trying at once would be in vain.
            (Kind::Receive, Some(buffers)) => {
                // SAFETY: [GROUP].
                (kind, unsafe { Sqe::recv_multishot(fd, buffers.group(), key) }.poll_first())
            }
            (Kind::Accept, _) => (kind, Sqe::accept_multishot(fd, key)),
            (Kind::Poll(Direction::Write), _) => (kind, Sqe::poll_add(fd, u32::from(PollFlags::OUT.bits()), key)),
            (Kind::Poll(Direction::Read) | Kind::Receive, _) => {
                (Kind::Poll(Direction::Read), Sqe::poll_add(fd, u32::from(PollFlags::IN.bits()), key))
            }
        };
        *entry.under(direction) = Under::Way(kind);
        self.under_way += 1;
        self.out.submit(sqe)
    }

    /// Cancels what is under way for a direction of a source.
    fn stop(&mut self, key: Key, direction: Direction) -> io::Result<()> {
        let Some(entry) = self.sources.get_mut(key) else { return Ok(()) };
        let under = entry.under(direction);
        let Under::Way(kind) = *under else { return Ok(()) };
        *under = Under::Stopping(kind);
        let target = operation(key, direction);
        if self.out.cancel(target)? == Cancelling::TakenBack {
            self.complete(Cqe::new(target, Errno::CANCELED.raw_os_error().wrapping_neg(), 0))?;
        }
        Ok(())
    }

    /// The source is no longer used. When this returns, nor is its descriptor, but in the rare case that the kernel needs longer to
    /// let go of it. Who reads what was received until then does so now.
    pub fn detach(&mut self, key: Key) -> io::Result<()> {
        let Some(entry) = self.sources.get_mut(key) else { return Ok(()) };
        entry.detached = true;
        self.stop(key, Direction::Read)?;
        self.stop(key, Direction::Write)?;
        // An operation holds the open file: the peer would see the end of the connection only when it is over.
        for _ in 0..3 {
            if !self.retire(key) {
                return Ok(());
            }
            self.out.enter(0, None)?;
            self.dispatch()?;
        }
        Ok(())
    }

    /// Forgets a source that is detached and idle. Whether it is still there.
    fn retire(&mut self, key: Key) -> bool {
        match self.sources.get_mut(key) {
            Some(entry) if entry.detached && entry.is_idle() => {
                if let Some(entry) = self.sources.remove(key) {
                    self.gone.push(entry.source);
                }
                false
            }
            Some(_) => true,
            None => false,
        }
    }

    /// Submits what there is to submit, and waits.
    pub fn enter(&mut self, min_complete: u32, timeout: Option<Duration>) -> io::Result<()> {
        self.out.enter(min_complete, timeout)
    }

    /// Does what the completions say that are in the queue.
    pub fn dispatch(&mut self) -> io::Result<()> {
        while let Some(cqe) = self.out.ring.pop() {
            match cqe.key() {
                CANCEL => {}
                BELL => self.rung(cqe)?,
                _ => self.complete(cqe)?,
            }
        }
        if let Some(buffers) = &mut self.buffers {
            buffers.publish();
        }
        Ok(())
    }

    fn rung(&mut self, cqe: Cqe) -> io::Result<()> {
        self.rang = true;
        if cqe.more() {
            return Ok(());
        }
        self.bell_armed = false;
        if cqe.result() == Err(Errno::INVAL) {
            self.bell_multishot = false;
        }
        self.home.bell().silence();
        if self.closing { Ok(()) } else { self.arm_bell() }
    }

    /// One completion of one operation of a source.
    fn complete(&mut self, cqe: Cqe) -> io::Result<()> {
        let (key, direction) =
            (cqe.key() & !PARTS, if cqe.key() & WRITING == 0 { Direction::Read } else { Direction::Write });
        let lent = match (cqe.buffer(), &mut self.buffers) {
            // SAFETY: just popped, and there is one group.
            (Some(id), Some(buffers)) => Some(unsafe { buffers.claim(id, cqe.result().unwrap_or(0)) }),
            _ => None,
        };
        let bytes = match (&lent, &self.buffers) {
            (Some(lent), Some(buffers)) => buffers.bytes(lent),
            _ => &[],
        };
        let mut too_much = false;
        if let Some(entry) = self.sources.get_mut(key) {
            let (Under::Way(kind) | Under::Stopping(kind)) = *entry.under(direction) else {
                unreachable!("a completion of what was not begun: {cqe:?}")
            };
            if !cqe.more() {
                *entry.under(direction) = Under::Idle;
                self.under_way -= 1;
            }
            let ended = match kind {
                Kind::Poll(_) => entry.source.report(direction.flag(), |state| state.disarm(direction), &mut self.wake),
                Kind::Receive => {
                    let flags = if bytes.is_empty() { READ } else { READ | INBOUND };
                    let report = |state: &mut State| too_much = received(state, &cqe, bytes);
                    entry.source.report(flags, report, &mut self.wake)
                }
                Kind::Accept => {
                    let report = |state: &mut State| too_much = accepted(state, &cqe);
                    entry.source.report(READ | INBOUND, report, &mut self.wake)
                }
            };
            self.home.waits_ended(ended);
            // An older kernel, or a socket that does not know how: whoever waits next is polled for.
            if kind.streams() && matches!(cqe.result(), Err(Errno::INVAL | Errno::OPNOTSUPP)) {
                self.home.cannot(kind);
            }
        } else {
            debug_assert!(false, "[KEPT]: a completion for nobody: {cqe:?}");
        }
        if let (Some(lent), Some(buffers)) = (lent, &mut self.buffers) {
            buffers.recycle(lent);
        }
        if !cqe.more() {
            self.retire(key);
        } else if too_much {
            self.stop(key, direction)?;
        }
        Ok(())
    }

    /// The run is over: cancels everything, and waits until the kernel has let go of it, but not longer than `patience`. Whether it has.
    pub fn drain(&mut self, patience: Duration) -> io::Result<bool> {
        self.closing = true;
        let begin = Instant::now();
        // What is not yet submitted cannot be cancelled.
        self.out.enter(0, None)?;
        loop {
            self.dispatch()?;
            if self.under_way == 0 && !self.bell_armed {
                return Ok(true);
            }
            let Some(left) = patience.checked_sub(begin.elapsed()) else { return Ok(false) };
            if self.out.ring.cancel_all().is_err() {
                // Before 6.0.
                let keys: Vec<Key> = self.sources.iter_mut().map(|(key, _)| key).collect();
                for key in keys {
                    self.stop(key, Direction::Read)?;
                    self.stop(key, Direction::Write)?;
                }
                let _ = self.out.cancel(BELL)?;
            }
            // Again and again: a cancel passes over an operation that is being worked on.
            self.out.enter(1, Some(left.min(CANCEL_AGAIN_AFTER)))?;
        }
    }

    /// All sources lose their home. After [`drain`](Self::drain).
    pub fn orphan_all(&mut self) {
        self.closing = true;
        for entry in self.sources.drain() {
            let ended = entry.source.orphan(&mut self.wake);
            self.home.waits_ended(ended);
            self.gone.push(entry.source);
        }
    }
}

/// Queues what a receive has brought. Whether that is too much.
fn received(state: &mut State, cqe: &Cqe, bytes: &[u8]) -> bool {
    let inbound = state.inbound.get_or_insert_default();
    match cqe.result() {
        Ok(0) => inbound.ended(End::Eof),
        Ok(_) => inbound.received(bytes),
        // No buffer, no memory, a cancel, or not known here: who waits asks the kernel itself.
        Err(
            Errno::NOBUFS
            | Errno::NOMEM
            | Errno::CANCELED
            | Errno::AGAIN
            | Errno::INTR
            | Errno::INVAL
            | Errno::OPNOTSUPP,
        ) => {}
        Err(error) => inbound.ended(End::Failed(error)),
    }
    let too_much = inbound.len() > MOST_BYTES;
    if !cqe.more() {
        state.disarm(Direction::Read);
    }
    too_much
}

/// Queues a connection. Whether that is one too many.
fn accepted(state: &mut State, cqe: &Cqe) -> bool {
    let inbound = state.inbound.get_or_insert_default();
    if cqe.result().is_ok() {
        // SAFETY: the completion owns it, and was just popped.
        inbound.connected(unsafe { OwnedFd::from_raw_fd(cqe.res()) });
    }
    // Errors are not kept: who waits asks the kernel itself, and hears it from there if it is still true (out of descriptors), or that
    // another connection is there (R113).
    let too_many = inbound.len() >= MOST_CONNECTIONS;
    if !cqe.more() {
        state.disarm(Direction::Read);
    }
    too_many
}

impl Drop for Core {
    fn drop(&mut self) {
        // [GROUP]: the ring goes with it, so that the kernel will let go some time; until then it may write.
        if self.under_way != 0
            && let Some(buffers) = self.buffers.take()
        {
            buffers.leak();
        }
    }
}
