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
use super::errands::{ERRAND, Errands};
use super::home::Home;
use super::outgoing::{CANCEL, Cancelling, Outgoing};
use super::ring::{OUT_OF_MEMORY_PAUSE, Ring, Setup};
use super::slots::{INDEX_BITS, Key, Slots};
use super::sys::{Cqe, Sqe};
use crate::bell::Bell;
use crate::fs::errand::Errand;
use crate::inbound::End;
use crate::readiness::{INBOUND, READ, SHORT_READ_LIES, WRITE};
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

/// How many connections may. What connects within one turn of the loop is accepted in one go, and may be more.
const MOST_CONNECTIONS: usize = 32;

/// Few and small, so that they stay in the cache. A kernel brings no more than some twenty messages per look (since 6.13), and who
/// finds none left receives directly. Measured with `examples/echo_cost`, as server CPU per echo over that of a raw epoll loop:
///
/// | | this | polled for, once (multishot), received directly | polled for each time |
/// | --- | --- | --- | --- |
/// | 64 B, 64 connections | 1.02 | 1.06 | 1.12 |
/// | 64 B, 1,000 connections | 0.99 | 1.05 | 1.13 |
/// | 4 KiB, 64 connections | 1.04 | 1.02 | |
/// | 64 KiB, 64 connections, buffers of 4 KiB / 16 KiB / 64 KiB | 1.54 / 1.26 / 2.5 | 1.03 | |
///
/// So a source whose message fills a buffer is polled for from then on.
const BUFFERS: u16 = 256;
const BUFFER_SIZE: u32 = 2 << 10;

/// Of what a cancel has passed over: it was being worked on.
const CANCEL_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// The only group there is.
const GROUP: u16 = 0;

/// The key of the poll on the bell: of no part that there is.
const BELL: Key = 3 << INDEX_BITS;

/// What of a source an operation is for: its key is that of the source, and this above the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Read,
    Write,
    /// The end of what can be read.
    End,
}

impl Part {
    const ALL: [Self; 3] = [Self::Read, Self::Write, Self::End];

    fn key(self, source: Key) -> Key {
        source | (self as Key) << INDEX_BITS
    }

    /// Of a key: the source, and this.
    fn split(key: Key) -> (Key, Self) {
        let part = key >> INDEX_BITS & 3;
        (key & !(3 << INDEX_BITS), Self::ALL[part as usize])
    }
}

impl From<Direction> for Part {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Read => Part::Read,
            Direction::Write => Part::Write,
        }
    }
}

/// What may be under way for a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A look at readiness: then who waits asks the kernel. Once for room to write, at each edge for something to read.
    Poll(Direction),
    /// Receiving, until told otherwise.
    Receive,
    /// Accepting, until told otherwise.
    Accept,
    /// A look at whether the end has come, once, beside a receive.
    ///
    /// The receive alone misses an end that comes together with the last bytes: it takes both for one event, finds nothing left behind
    /// the bytes, and goes on waiting (a reset of TCP, any end of a UNIX socket; liburing#1549, Linux 6.18 at least). A poll
    /// of its own cannot take one for the other. When it completes, the receive is stopped, and who waits asks the kernel.
    End,
}

impl Kind {
    fn part(self) -> Part {
        match self {
            Kind::Poll(direction) => direction.into(),
            Kind::Receive | Kind::Accept => Part::Read,
            Kind::End => Part::End,
        }
    }

    /// Whether its completions bring something.
    pub fn streams(self) -> bool {
        matches!(self, Kind::Receive | Kind::Accept)
    }
}

/// Of one part of a source. See the module.
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
    under: [Under; 3],
    /// The end has come.
    ended: bool,
    detached: bool,
}

impl Entry {
    fn under(&mut self, part: Part) -> &mut Under {
        &mut self.under[part as usize]
    }

    fn is_idle(&self) -> bool {
        self.under == [Under::Idle; 3]
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Core {
    out: Outgoing,
    buffers: Option<BufRing>,
    home: Arc<Home>,
    /// Whether the poll on the bell is under way.
    bell_armed: bool,
    /// The bell has rung since somebody has set this to false.
    pub rang: bool,
    sources: Slots<Entry>,
    pub errands: Errands,
    /// How many operations of sources, and errands, are.
    under_way: usize,
    /// How many sources are detached, and kept since the kernel has not let go of them.
    leaving: usize,
    /// What cancels have passed over, and when to try again.
    again: Vec<Key>,
    again_at: Instant,
    /// The kernel had no memory for an operation.
    starved: bool,
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
            rang: false,
            sources: Slots::new(),
            errands: Errands::new(),
            under_way: 0,
            leaving: 0,
            again: Vec::new(),
            again_at: Instant::now(),
            starved: false,
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

    /// How many operations of sources the kernel has, and how many errands.
    pub fn under_way(&self) -> usize {
        self.under_way
    }

    /// How many sources the kernel has not let go of, though nobody uses them any more.
    pub fn leaving(&self) -> usize {
        self.leaving
    }

    /// Whether a look at the ring would bring something. No system call.
    pub fn has_news(&self) -> bool {
        self.out.needs_enter() || self.out.ring.ready() > 0 || !self.again.is_empty() || self.errands.has_finished()
    }

    fn arm_bell(&mut self) -> io::Result<()> {
        self.out.submit(self.home.edges(self.home.bell().as_fd(), bits(PollFlags::IN), BELL))?;
        self.bell_armed = true;
        Ok(())
    }

    /// Registers a source, unless it is registered already.
    pub fn attach(&mut self, source: &Arc<Shared>) {
        let mut state = source.lock();
        if state.registration.is_none() && !self.closing {
            let entry = Entry { source: source.clone(), under: [Under::Idle; 3], ended: false, detached: false };
            let key = self.sources.insert(entry);
            let home = crate::reactor::Home::IoUring(self.home.clone());
            state.registration = Some(Registration { home, key, interest: READ | WRITE, armed: 0 });
        }
    }

    /// Begins an operation.
    pub fn arm(&mut self, key: Key, kind: Kind) -> io::Result<()> {
        let Some(entry) = self.sources.get_mut(key) else { return Ok(()) };
        // When all is over, who waits is told by `orphan`.
        if self.closing || entry.detached || *entry.under(kind.part()) != Under::Idle {
            return Ok(());
        }
        let fd = entry.source.fd();
        let operation = kind.part().key(key);
        let (kind, sqe) = match (kind, &self.buffers) {
            // Who waits has just been told that there is nothing, so trying at once would be in vain.
            (Kind::Receive, Some(buffers)) => {
                // SAFETY: [GROUP].
                (kind, unsafe { Sqe::recv_multishot(fd, buffers.group(), operation) }.poll_first())
            }
            (Kind::Accept, _) => (kind, Sqe::accept_multishot(fd, operation)),
            (Kind::Poll(Direction::Write), _) => (kind, Sqe::poll_add(fd, bits(PollFlags::OUT), operation)),
            // An error and the end of both directions are reported without being asked for.
            (Kind::End, _) => (kind, Sqe::poll_add(fd, bits(PollFlags::RDHUP), operation)),
            (Kind::Poll(Direction::Read) | Kind::Receive, _) => {
                // Urgent data is an edge, but not something that a read takes away.
                let events = PollFlags::IN | PollFlags::RDHUP | PollFlags::PRI;
                (Kind::Poll(Direction::Read), self.home.edges(fd, bits(events), operation))
            }
        };
        *entry.under(kind.part()) = Under::Way(kind);
        let alone = kind != Kind::Receive || entry.ended;
        self.under_way += 1;
        self.out.submit(sqe)?;
        if alone { Ok(()) } else { self.arm(key, Kind::End) }
    }

    /// Begins an errand, if the ring can do it; otherwise it comes back. What keeps the ring from being entered is reported by the loop.
    pub fn begin_errand(&mut self, errand: Box<dyn Errand>) -> Result<Key, Box<dyn Errand>> {
        if self.closing {
            return Err(errand);
        }
        let (key, entry) = self.errands.begin(errand, |entry| self.out.ring.supports(entry.opcode()))?;
        self.under_way += 1;
        let _ = self.out.submit(entry);
        Ok(key)
    }

    /// Cancels an errand, if it is not over.
    pub fn stop_errand(&mut self, key: Key) -> io::Result<()> {
        if self.errands.stop(key) { self.cancel(key) } else { Ok(()) }
    }

    /// Cancels what is under way for a part of a source.
    pub fn stop(&mut self, key: Key, part: Part) -> io::Result<()> {
        let Some(entry) = self.sources.get_mut(key) else { return Ok(()) };
        let under = entry.under(part);
        let Under::Way(kind) = *under else { return Ok(()) };
        *under = Under::Stopping(kind);
        self.cancel(part.key(key))
    }

    fn cancel(&mut self, target: Key) -> io::Result<()> {
        if self.out.cancel(target)? == Cancelling::TakenBack {
            self.complete(Cqe::new(target, Errno::CANCELED.raw_os_error().wrapping_neg(), 0))?;
        }
        Ok(())
    }

    /// A cancel is over. If it failed, and what it was for goes on, another one is sent after a while.
    fn cancelled(&mut self, cqe: &Cqe) {
        let target = cqe.key() & !CANCEL;
        if cqe.result().is_err() && target != BELL && self.is_stopping(target) {
            self.again.push(target);
            self.again_at = Instant::now() + CANCEL_AGAIN_AFTER;
        }
    }

    fn is_stopping(&mut self, operation: Key) -> bool {
        if operation & ERRAND != 0 {
            return self.errands.is_stopping(operation);
        }
        let (key, part) = Part::split(operation);
        self.sources.get_mut(key).is_some_and(|entry| matches!(entry.under(part), Under::Stopping(_)))
    }

    fn cancel_again(&mut self) -> io::Result<()> {
        if self.again.is_empty() || Instant::now() < self.again_at {
            return Ok(());
        }
        for target in std::mem::take(&mut self.again) {
            if self.is_stopping(target) {
                self.cancel(target)?;
            }
        }
        Ok(())
    }

    /// Cancels all of it.
    fn stop_all(&mut self, key: Key) -> io::Result<()> {
        Part::ALL.into_iter().try_for_each(|part| self.stop(key, part))
    }

    /// The source is no longer used. When this returns, nor is its descriptor, but in the rare case that the kernel needs longer to
    /// let go of it. Who reads what was received until then does so now.
    pub fn detach(&mut self, key: Key) -> io::Result<()> {
        let Some(entry) = self.sources.get_mut(key).filter(|entry| !entry.detached) else { return Ok(()) };
        entry.detached = true;
        self.leaving += 1;
        // An operation holds the open file: the peer would see the end of the connection only when it is over.
        self.quiesce(key)?;
        self.retire(key);
        Ok(())
    }

    /// Cancels all that is under way for a source, and sees it to its end if the kernel is quick.
    pub fn quiesce(&mut self, key: Key) -> io::Result<()> {
        self.stop_all(key)?;
        for _ in 0..3 {
            if self.sources.get_mut(key).is_none_or(|entry| entry.is_idle()) {
                break;
            }
            self.out.enter(0, None)?;
            self.dispatch()?;
        }
        Ok(())
    }

    /// Forgets a source if it is detached and idle.
    fn retire(&mut self, key: Key) {
        if self.sources.get_mut(key).is_some_and(|entry| entry.detached && entry.is_idle())
            && let Some(entry) = self.sources.remove(key)
        {
            self.leaving -= 1;
            self.gone.push(entry.source);
        }
    }

    /// Submits what there is to submit, and waits.
    pub fn enter(&mut self, min_complete: u32, timeout: Option<Duration>) -> io::Result<()> {
        if std::mem::take(&mut self.starved) {
            // Who waited will order the same again.
            std::thread::sleep(OUT_OF_MEMORY_PAUSE);
        }
        self.cancel_again()?;
        let timeout = if self.again.is_empty() {
            timeout
        } else {
            Some(timeout.unwrap_or(CANCEL_AGAIN_AFTER).min(CANCEL_AGAIN_AFTER))
        };
        self.out.enter(min_complete, timeout)
    }

    /// Does what the completions say that are in the queue.
    pub fn dispatch(&mut self) -> io::Result<()> {
        while let Some(cqe) = self.out.ring.pop() {
            match cqe.key() {
                key if key & CANCEL != 0 => self.cancelled(&cqe),
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
            self.home.polls_once();
        }
        self.home.bell().silence();
        if self.closing { Ok(()) } else { self.arm_bell() }
    }

    /// One completion of one operation of a source, or of an errand.
    fn complete(&mut self, cqe: Cqe) -> io::Result<()> {
        if cqe.key() & ERRAND != 0 {
            self.under_way -= 1;
            self.errands.over(&cqe);
            return Ok(());
        }
        let (key, part) = Part::split(cqe.key());
        let lent = match (cqe.buffer(), &mut self.buffers) {
            // SAFETY: just popped, and there is one group.
            (Some(id), Some(buffers)) => Some(unsafe { buffers.claim(id, cqe.result().unwrap_or(0)) }),
            _ => None,
        };
        let bytes = match (&lent, &self.buffers) {
            (Some(lent), Some(buffers)) => buffers.bytes(lent),
            _ => &[],
        };
        let mut enough = false;
        if let Some(entry) = self.sources.get_mut(key) {
            let (Under::Way(kind) | Under::Stopping(kind)) = *entry.under(part) else {
                unreachable!("a completion of what was not begun: {cqe:?}")
            };
            if !cqe.more() {
                *entry.under(part) = Under::Idle;
                self.under_way -= 1;
            }
            let ended = match kind {
                Kind::End => {
                    entry.ended |= cqe.result().is_ok();
                    enough = *entry.under(Part::Read) == Under::Way(Kind::Receive);
                    0
                }
                Kind::Poll(direction) => {
                    let report = |state: &mut State| {
                        if !cqe.more() {
                            state.disarm(direction);
                        }
                    };
                    entry.source.report(readiness(direction, &cqe), report, &mut self.wake)
                }
                Kind::Receive => {
                    let flags = if bytes.is_empty() { READ } else { READ | INBOUND };
                    let full = Some(bytes.len()) == self.buffers.as_ref().map(|buffers| buffers.size() as usize);
                    let report = |state: &mut State| enough = received(state, &cqe, bytes, full);
                    entry.source.report(flags, report, &mut self.wake)
                }
                Kind::Accept => {
                    let report = |state: &mut State| enough = accepted(state, &cqe);
                    entry.source.report(READ | INBOUND, report, &mut self.wake)
                }
            };
            self.home.waits_ended(ended);
            self.starved |= cqe.result() == Err(Errno::NOMEM);
        } else {
            debug_assert!(false, "[KEPT]: a completion for nobody: {cqe:?}");
        }
        if let (Some(lent), Some(buffers)) = (lent, &mut self.buffers) {
            buffers.recycle(lent);
        }
        if enough {
            self.stop(key, Part::Read)?;
        }
        if !cqe.more() {
            self.retire(key);
        }
        Ok(())
    }

    /// The run is over: cancels everything, and waits until the kernel has let go of it, but not longer than `patience`. Whether it has.
    pub fn drain(&mut self, patience: Duration) -> io::Result<bool> {
        self.closing = true;
        let begin = Instant::now();
        let mut again_at = begin;
        // What is not yet submitted cannot be cancelled.
        self.out.enter(0, None)?;
        loop {
            self.dispatch()?;
            if self.under_way == 0 && !self.bell_armed {
                return Ok(true);
            }
            let Some(left) = patience.checked_sub(begin.elapsed()) else { return Ok(false) };
            // Again and again: a cancel passes over an operation that is being worked on.
            if Instant::now() >= again_at {
                again_at = Instant::now() + CANCEL_AGAIN_AFTER;
                if self.out.ring.cancel_all().is_err() {
                    // Before 6.0.
                    self.cancel_each()?;
                }
            }
            if self.under_way > 0 || self.bell_armed {
                self.out.enter(1, Some(left.min(CANCEL_AGAIN_AFTER)))?;
            }
        }
    }

    /// Cancels everything, one by one; what was cancelled before, too.
    fn cancel_each(&mut self) -> io::Result<()> {
        let mut targets: Vec<Key> = self.errands.stop_all().collect();
        for (key, entry) in self.sources.iter_mut() {
            for part in Part::ALL {
                let under = entry.under(part);
                if let Under::Way(kind) | Under::Stopping(kind) = *under {
                    *under = Under::Stopping(kind);
                    targets.push(part.key(key));
                }
            }
        }
        for target in targets {
            // Some may be over by now: those that were never submitted.
            if self.is_stopping(target) {
                self.cancel(target)?;
            }
        }
        if self.bell_armed && self.out.cancel(BELL)? == Cancelling::TakenBack {
            self.bell_armed = false;
        }
        Ok(())
    }

    /// All sources lose their home. After [`drain`](Self::drain).
    pub fn orphan_all(&mut self) {
        self.closing = true;
        for (key, entry) in self.sources.drain() {
            let ended = entry.source.orphan(|registration| self.home.is_home(registration, key), &mut self.wake);
            self.home.waits_ended(ended);
            self.gone.push(entry.source);
        }
    }
}

fn bits(events: PollFlags) -> u32 {
    events.bits() as u32
}

/// What a poll has found, as flags of a [`Readiness`](crate::readiness::Readiness).
fn readiness(direction: Direction, cqe: &Cqe) -> u32 {
    let events = PollFlags::from_bits_retain(cqe.result().unwrap_or(0) as _);
    // As on epoll: no edge will tell of these again.
    let behind = PollFlags::RDHUP | PollFlags::PRI | PollFlags::HUP | PollFlags::ERR;
    match direction {
        Direction::Read if events.intersects(behind) => READ | SHORT_READ_LIES,
        _ => direction.flag(),
    }
}

/// Queues what a receive has brought, into a buffer that is now full or not. Whether that is enough.
fn received(state: &mut State, cqe: &Cqe, bytes: &[u8], full: bool) -> bool {
    let inbound = &mut state.inbound;
    match cqe.result() {
        Ok(0) => inbound.ended(End::Eof),
        Ok(_) => inbound.received(bytes),
        // No buffer, no memory, a cancel, or not known here: who waits asks the kernel itself.
        Err(Errno::NOBUFS | Errno::NOMEM | Errno::CANCELED | Errno::AGAIN | Errno::INTR) => {}
        Err(Errno::INVAL | Errno::OPNOTSUPP) => inbound.set_polled(),
        Err(error) => inbound.ended(End::Failed(error)),
    }
    if full {
        inbound.set_polled();
    }
    let enough = full || inbound.len() > MOST_BYTES;
    if !cqe.more() {
        state.disarm(Direction::Read);
    }
    enough
}

/// Queues a connection. Whether that is one too many.
fn accepted(state: &mut State, cqe: &Cqe) -> bool {
    let inbound = &mut state.inbound;
    if cqe.result().is_ok() {
        // SAFETY: the completion owns it, and was just popped.
        inbound.connected(unsafe { OwnedFd::from_raw_fd(cqe.res()) });
    }
    if matches!(cqe.result(), Err(Errno::INVAL | Errno::OPNOTSUPP)) {
        inbound.set_polled();
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
        self.errands.leak();
    }
}

#[cfg(all(test, not(trefoil_loom)))]
mod tests {
    use super::*;
    use crate::source::{Source, Want};
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, socketpair};

    fn core() -> Option<Core> {
        Core::new(4).inspect_err(|error| println!("skipped: {error}")).ok()
    }

    fn attached(core: &mut Core, fd: OwnedFd) -> (Source, Key) {
        let source = Source::new(fd);
        core.attach(source.shared());
        let key = source.shared().lock().registration.as_ref().unwrap().key;
        (source, key)
    }

    fn socket() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None).unwrap()
    }

    fn under(core: &mut Core, key: Key, part: Part) -> &mut Under {
        core.sources.get_mut(key).unwrap().under(part)
    }

    fn over(mut core: Core) {
        assert!(core.drain(Duration::from_secs(5)).unwrap());
        core.orphan_all();
    }

    #[test]
    fn a_cancel_that_failed_is_tried_again() {
        let Some(mut core) = core() else { return };
        let (fd, _peer) = socket();
        let (_source, key) = attached(&mut core, fd);
        core.arm(key, Kind::Receive).unwrap();
        core.enter(0, None).unwrap();
        core.dispatch().unwrap();
        let Under::Way(kind) = *under(&mut core, key, Part::Read) else { panic!("it should wait") };
        // As if the kernel had said that it was just being worked on.
        *under(&mut core, key, Part::Read) = Under::Stopping(kind);
        core.cancelled(&Cqe::new(Part::Read.key(key) | CANCEL, Errno::ALREADY.raw_os_error().wrapping_neg(), 0));
        for _ in 0..5 {
            if *under(&mut core, key, Part::Read) == Under::Idle {
                return over(core);
            }
            // Nothing else would end this sleep.
            core.enter(1, Some(Duration::from_secs(1))).unwrap();
            core.dispatch().unwrap();
        }
        panic!("nobody has cancelled it again");
    }

    #[test]
    fn cancels_that_find_nothing_any_more_are_not_repeated() {
        let Some(mut core) = core() else { return };
        core.cancelled(&Cqe::new(BELL | CANCEL, Errno::NOENT.raw_os_error().wrapping_neg(), 0));
        let (fd, _peer) = socket();
        let (_source, key) = attached(&mut core, fd);
        core.cancelled(&Cqe::new(Part::End.key(key) | CANCEL, Errno::NOENT.raw_os_error().wrapping_neg(), 0));
        assert!(core.again.is_empty());
        over(core);
    }

    #[test]
    fn one_by_one_everything_is_cancelled_the_bell_too() {
        for unsent in [false, true] {
            let Some(mut core) = core() else { return };
            // With others there, their cancels make room for it.
            let pairs: Vec<_> = (0..if unsent { 0 } else { 10 }).map(|_| socket()).collect();
            let mut sources = Vec::new();
            let mut peers = Vec::new();
            for (fd, peer) in pairs {
                let (source, key) = attached(&mut core, fd);
                core.arm(key, Kind::Receive).unwrap();
                sources.push(source);
                peers.push(peer);
            }
            core.enter(0, None).unwrap();
            core.closing = true;
            if unsent {
                // The bell has rung, and the poll that is to follow does not fit into the ring.
                let _ = core.out.cancel(BELL).unwrap();
                while core.bell_armed {
                    core.enter(1, None).unwrap();
                    core.dispatch().unwrap();
                }
                let poll = core.home.edges(core.home.bell().as_fd(), bits(PollFlags::IN), BELL);
                core.out.keep(poll);
                core.bell_armed = true;
            }
            core.cancel_each().unwrap();
            assert_eq!(core.bell_armed, !unsent, "what was never sent will not complete");
            while core.under_way > 0 || core.bell_armed {
                core.enter(1, None).unwrap();
                core.dispatch().unwrap();
            }
            over(core);
        }
    }

    #[test]
    fn what_one_listener_cannot_do_is_done_for_the_others() {
        let Some(mut core) = core() else { return };
        if !core.out.ring.multishot_accept() {
            return println!("skipped: no multishot accept");
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let deaf = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
        let (deaf, key) = attached(&mut core, deaf);
        let (good, _) = attached(&mut core, std::net::TcpListener::bind("127.0.0.1:0").unwrap().into());
        let accepts = |source: &Source| {
            let order = Home::order(&mut source.shared().lock(), &source.shared().readiness, Want::Connection);
            format!("{order:?}").contains("Accept")
        };
        assert!(accepts(&deaf));
        core.arm(key, Kind::Accept).unwrap();
        while core.under_way > 0 {
            core.enter(1, None).unwrap();
            core.dispatch().unwrap();
        }
        assert!(!accepts(&deaf), "it does not listen");
        assert!(accepts(&good));
        over(core);
    }

    #[test]
    fn without_memory_it_is_not_tried_again_at_once() {
        let Some(mut core) = core() else { return };
        let (fd, _peer) = socket();
        let (_source, key) = attached(&mut core, fd);
        for part in [Part::Read, Part::Write] {
            let kind = if part == Part::Read { Kind::Receive } else { Kind::Poll(Direction::Write) };
            *under(&mut core, key, part) = Under::Way(kind);
            core.under_way += 1;
            core.complete(Cqe::new(part.key(key), Errno::NOMEM.raw_os_error().wrapping_neg(), 0)).unwrap();
            let before = Instant::now();
            core.enter(0, None).unwrap();
            assert!(before.elapsed() >= OUT_OF_MEMORY_PAUSE);
        }
        over(core);
    }
}
