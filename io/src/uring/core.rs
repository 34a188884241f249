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
//!   [`Sqe::recv_multishot`](super::sys::Sqe::recv_multishot).
//! - The same goes for `peer`, and accepts: [`PLACE`](super::peer).
//! - No user code runs in here: wakers are collected in `wake`, and sources that may be the last of their kind (their parks hold wakers) in
//!   `gone`, for the caller to deal with when the core is no longer borrowed.
//!
//! # Files
//!
//! | file | its one job |
//! | --- | --- |
//! | `core` | [`Core`]: its sources, its sleep, and whom a completion is for |
//! | `operation` | names for what may be under way |
//! | `begin` | operations begin |
//! | `stop` | cancels, and what they pass over |
//! | `complete` | what a completion of a source says |
//! | `teardown` | the end of the run |

use super::buf_ring::BufRing;
use super::errands::Errands;
use super::home::Home;
use super::outgoing::{CANCEL, Outgoing};
use super::peer::PeerPlace;
use super::ring::{OUT_OF_MEMORY_PAUSE, Ring, Setup};
use super::slots::{Key, Slots};
use super::sys::Cqe;
use crate::bell::Bell;
use crate::readiness::{READ, WRITE};
use crate::source::{Registration, Shared};
use crate::wake::WakeList;
use operation::{Accepted, BELL, Entry, Under, bits};
use rustix::event::PollFlags;
use rustix::io::Errno;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stop::CANCEL_AGAIN_AFTER;

mod begin;
mod complete;
mod operation;
mod stop;
mod teardown;

pub(crate) use operation::{Kind, Part};

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

/// The only group there is.
const GROUP: u16 = 0;

/// See the module.
#[derive(Debug)]
pub(crate) struct Core {
    out: Outgoing,
    buffers: Option<BufRing>,
    /// Where accepts write who connects, if they can.
    peer: Option<PeerPlace>,
    accepted: Accepted,
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
        let peer = ring.accepts_say_whom().then(PeerPlace::new);
        let mut core = Self {
            out: Outgoing::new(ring),
            buffers,
            peer,
            accepted: Accepted::None,
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
            let entry = Entry { source: source.clone(), under: [Under::Idle; 3], errs: false, detached: false };
            let key = self.sources.insert(entry);
            let home = crate::reactor::Home::IoUring(self.home.clone());
            state.registration = Some(Registration { home, key, interest: READ | WRITE, armed: 0 });
        }
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
    #[inline(always)]
    pub fn enter(&mut self, min_complete: u32, timeout: Option<Duration>) -> io::Result<()> {
        if self.starved || !self.again.is_empty() {
            return self.enter_after_trouble(min_complete, timeout);
        }
        self.out.enter(min_complete, timeout)
    }

    #[cold]
    fn enter_after_trouble(&mut self, min_complete: u32, timeout: Option<Duration>) -> io::Result<()> {
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
                _ => match cqe.buffer() {
                    Some(id) => self.arrived(&cqe, id)?,
                    None => self.complete(&cqe)?,
                },
            }
        }
        if let Some(buffers) = &mut self.buffers {
            buffers.publish();
        }
        if self.accepted != Accepted::None {
            self.say_who_connected();
        }
        self.forget_cancelled();
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
}

#[cfg(all(test, not(trefoil_loom)))]
mod tests;
