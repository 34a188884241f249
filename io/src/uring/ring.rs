//! [`Ring`]: one io_uring instance, and the system call that drives it.
//!
//! A ring is owned by the worker that made it and used on that thread only (THREAD): it is made with `SINGLE_ISSUER`
//! where the kernel has it. It holds the descriptor, both mappings and our side of both queues; it knows nothing of
//! what its entries mean.
//!
//! | file | its one job |
//! | --- | --- |
//! | `ring` | [`Ring`]: pushing, entering, popping, closing |
//! | `setup` | the richest ring that this kernel has |
//! | `register` | what is told to a ring beside its entries: its place in the thread's table, a cancel of everything |
//! | `probe` | which operations the kernel has |
//! | `mapping` | memory that is shared with the kernel |
//! | `failure` | what an attempt that failed says, with advice |
//! | `whims` | in tests, a kernel that does now and then what it may do at any time |

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use rustix::io::Errno;
use rustix::io_uring::{
    IoringEnterFlags, IoringFeatureFlags, IoringSetupFlags, io_uring_enter, io_uring_enter_arg, io_uring_getevents_arg,
    io_uring_ptr,
};

use super::queue::{Completions, Full, Mapped, MappedCells, Submissions};
use super::sys::{Cqe, KernelTimespec, Sqe, flag, op};
use failure::advice;
use probe::Ops;

mod failure;
mod mapping;
mod probe;
mod register;
mod setup;

pub(super) use failure::{failed, unsupported};
pub(super) use mapping::Mapping;
pub(super) use register::register;
pub use setup::Setup;

/// What became of the entries that were pending when [`Ring::enter`] was called.
///
/// How the *wait* ended (completions, timeout, signal) is not told, since the kernel does not say so itself when the
/// same call has submitted something: look at the completions, and at the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "entries may still be pending"]
pub enum Entered {
    /// The kernel has taken them all.
    All,
    /// It did not take them all, because completions must be popped first or because it has no memory now. They stay
    /// pending: pop what there is, and enter again.
    Backlog,
}

/// How long the kernel is left alone when it had no memory for a request and nothing is complete.
pub const OUT_OF_MEMORY_PAUSE: Duration = Duration::from_millis(1);

/// An io_uring instance. See the [module above](super) for the life of an entry and for what must be done before
/// dropping a ring.
#[derive(Debug)]
pub struct Ring {
    sq: Submissions<Mapped<AtomicU32>, MappedCells<Sqe>>,
    cq: Completions<Mapped<AtomicU32>, MappedCells<Cqe>>,
    /// Both queues' words, and the completions.
    rings: Mapping,
    /// The submissions.
    entries: Mapping,
    /// Shared with buffer rings, which unregister when they are dropped.
    fd: Rc<OwnedFd>,
    /// Our place in this thread's table of registered rings, which spares a reference count per call.
    registered: Option<RawFd>,
    /// Flags of every call.
    enter_flags: IoringEnterFlags,
    flags: IoringSetupFlags,
    features: IoringFeatureFlags,
    ops: Ops,
}

impl Ring {
    /// The flags that setup obtained.
    pub fn flags(&self) -> IoringSetupFlags {
        self.flags
    }

    /// The features that the kernel reports.
    pub fn features(&self) -> IoringFeatureFlags {
        self.features
    }

    /// Whether completions appear only in [`enter`](Self::enter), so that looking at the queue is in vain.
    pub fn defers(&self) -> bool {
        self.flags.contains(IoringSetupFlags::DEFER_TASKRUN)
    }

    /// Whether the kernel has this operation, of [`op`].
    pub fn supports(&self, opcode: u8) -> bool {
        self.ops.contains(opcode)
    }

    /// Whether [`Sqe::accept_multishot`] can be expected to work: it has no probe, and is inferred from an operation of
    /// the same kernel.
    pub fn multishot_accept(&self) -> bool {
        self.supports(op::SOCKET)
    }

    /// Whether an accept that goes on writes who connects where and when we may read it: within [`enter`](Self::enter), on this thread.
    pub fn accepts_say_whom(&self) -> bool {
        self.multishot_accept() && self.defers() && self.supports(op::BIND)
    }

    /// Whether [`Sqe::recv_multishot`] can be expected to work, inferred likewise.
    pub fn multishot_recv(&self) -> bool {
        self.supports(op::SEND_ZC)
    }

    /// Whether [`Sqe::skip_success`] works.
    pub fn skips_success(&self) -> bool {
        self.features.contains(IoringFeatureFlags::CQE_SKIP)
    }

    /// Entries of the submission queue, as obtained.
    pub fn sq_entries(&self) -> u32 {
        self.sq.entries()
    }

    /// Entries of the completion queue, as obtained.
    pub fn cq_entries(&self) -> u32 {
        self.cq.entries()
    }

    /// Queues an entry; the next [`enter`](Self::enter) submits it.
    ///
    /// # Errors
    ///
    /// [`Full`]: enter, and push again.
    #[inline]
    pub fn push(&mut self, entry: Sqe) -> Result<(), Full> {
        #[cfg(test)]
        if whims::is_full() {
            return Err(Full);
        }
        self.sq.push(entry)
    }

    /// How many entries can be pushed before the queue is full.
    #[inline]
    pub fn space(&self) -> u32 {
        self.sq.space()
    }

    /// How many entries were pushed and not yet taken by the kernel.
    #[inline]
    pub fn pending(&self) -> u32 {
        self.sq.pending()
    }

    /// Whether [`enter`](Self::enter) without a wait would do something, without a system call: entries are pending,
    /// deferred work waits, or completions wait because the queue was full.
    #[inline]
    pub fn needs_enter(&self) -> bool {
        self.sq.needs_enter()
    }

    /// Whether the kernel has completions that found no room in the queue.
    #[inline]
    pub fn overflows(&self) -> bool {
        self.sq.flags() & flag::SQ_CQ_OVERFLOW != 0
    }

    /// How many completions can be popped now.
    #[inline]
    pub fn ready(&self) -> u32 {
        self.cq.ready()
    }

    /// Takes the oldest completion. Never enters the kernel: `None` means that there is none in the queue, not that
    /// nothing is complete.
    #[inline]
    pub fn pop(&mut self) -> Option<Cqe> {
        self.cq.pop()
    }

    /// Submits all that is pending, runs deferred work, fetches completions that overflowed, and waits until
    /// `min_complete` completions can be popped or `timeout` is over (`None`: for ever; zero: no wait): in one
    /// system call, except when the kernel takes only a part (before 5.18 it stops behind an entry that fails at once).
    ///
    /// A signal ends the wait as if it had timed out.
    ///
    /// # Errors
    ///
    /// Only what makes the ring unusable: it belongs to another thread, or the kernel lost completions for want of
    /// memory.
    // Where there is no timeout nothing of it is left.
    #[inline(always)]
    pub fn enter(&mut self, min_complete: u32, timeout: Option<Duration>) -> io::Result<Entered> {
        let wait = if timeout.is_some_and(|timeout| timeout.is_zero()) { 0 } else { min_complete };
        loop {
            let pending = self.sq.publish();
            match self.call(pending, wait, timeout) {
                // A part: the kernel did not come to wait. Go on with the rest; each round takes at least one.
                Ok(taken) if taken > 0 && self.sq.pending() != 0 => continue,
                Ok(_) | Err(Errno::INTR | Errno::TIME) => break,
                Err(errno) => {
                    self.refused(errno, wait, timeout)?;
                    break;
                }
            }
        }
        Ok(if self.sq.pending() == 0 { Entered::All } else { Entered::Backlog })
    }

    /// The kernel did not take what it was given.
    #[cold]
    fn refused(&self, errno: Errno, wait: u32, timeout: Option<Duration>) -> io::Result<()> {
        if matches!(errno, Errno::BUSY | Errno::AGAIN) {
            // BUSY: overflowed completions must be popped first (below 5.19). AGAIN: no memory for a request. Fetch what is
            // complete; if nothing is, then pause, as we would otherwise spin on a machine that is short of memory.
            let pause = timeout.unwrap_or(OUT_OF_MEMORY_PAUSE).min(OUT_OF_MEMORY_PAUSE);
            match self.call(0, u32::from(errno == Errno::AGAIN && wait > 0), Some(pause)) {
                Ok(_) | Err(Errno::INTR | Errno::TIME | Errno::BUSY | Errno::AGAIN) => Ok(()),
                Err(errno) => Err(failed("entering the io_uring".into(), advice(errno), errno)),
            }
        } else {
            Err(failed("entering the io_uring".into(), advice(errno), errno))
        }
    }

    /// The system call itself.
    #[inline(always)]
    fn call(&self, to_submit: u32, min_complete: u32, timeout: Option<Duration>) -> Result<u32, Errno> {
        #[cfg(test)]
        let (to_submit, min_complete) = whims::of_call(self, to_submit, min_complete)?;
        let (fd, mut flags) = match self.registered {
            Some(place) => {
                // SAFETY: not a descriptor but a place in this thread's table, as the flag says; rustix only passes the
                // number on. The place is ours until `drop` gives it back.
                let place = unsafe { BorrowedFd::borrow_raw(place) };
                (place, self.enter_flags | IoringEnterFlags::REGISTERED_RING)
            }
            None => (self.fd.as_fd(), self.enter_flags),
        };
        match timeout {
            Some(timeout) if min_complete > 0 => {
                let timeout = KernelTimespec::from(timeout);
                let ts = io_uring_ptr::new(ptr::from_ref(&timeout).cast_mut().cast());
                let arg = io_uring_getevents_arg { ts, ..Default::default() };
                flags |= IoringEnterFlags::EXT_ARG;
                // SAFETY: HONEST-ENTRY covers the memory of the entries; `arg` and `timeout` live through the call; no
                // signal mask.
                unsafe { io_uring_enter_arg(fd, to_submit, min_complete, flags, Some(&arg)) }
            }
            // SAFETY: HONEST-ENTRY covers the memory of the entries.
            _ => unsafe { io_uring_enter(fd, to_submit, min_complete, flags) },
        }
    }

    /// Closes the ring but never gives its mappings back. For a teardown that could not drain: whoever calls this also
    /// leaks the memory of what is in flight, since the kernel may still write to it. Closing makes the kernel cancel
    /// it, at some time (once the last [`BufRing`](super::BufRing) of this ring is gone or leaked, too).
    pub fn leak(mut self) {
        self.rings.forget();
        self.entries.forget();
    }

    /// The descriptor, for registrations.
    pub(super) fn shared_fd(&self) -> Rc<OwnedFd> {
        Rc::clone(&self.fd)
    }
}

#[cfg(test)]
pub(super) mod tests;
#[cfg(test)]
pub(super) mod whims;
