//! [`Ring`]: one io_uring instance, from setup to close, and the system call that drives it.
//!
//! A ring is owned by the worker that made it and used on that thread only (THREAD): it is made with `SINGLE_ISSUER`
//! where the kernel has it. It holds the descriptor, both mappings and our side of both queues; it knows nothing of
//! what its entries mean.
//!
//! What we ask for is the richest set of flags, and what we get is what the kernel has ([`Ring::flags`]). Versions are
//! never compared: setup is tried with less on `EINVAL`, the rest is asked of the kernel (`features`,
//! `REGISTER_PROBE`), since distributions backport and sandboxes forbid. Below Linux 5.11 (no timeout in the wait
//! itself) there is no ring here: epoll does better there than a ring with a timeout operation per turn.

use std::ffi::c_void;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use rustix::io::Errno;
use rustix::io_uring::{
    IORING_OFF_SQ_RING, IORING_OFF_SQES, IoringEnterFlags, IoringFeatureFlags, IoringRegisterOp, IoringSetupFlags,
    io_uring_enter, io_uring_enter_arg, io_uring_getevents_arg, io_uring_params, io_uring_ptr, io_uring_register,
    io_uring_rsrc_update, io_uring_setup,
};
use rustix::mm::{self, Advice, MapFlags, ProtFlags};

use super::queue::{Completions, Full, Mapped, MappedCells, Submissions};
use super::sys::{Cqe, Sqe, flag, op};

/// What to ask for. The kernel rounds up to powers of two and down to its limits.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Entries of the submission queue.
    pub entries: u32,
    /// Entries of the completion queue, at least as many.
    pub completions: u32,
    /// Flags that may be asked for; to test, on a new kernel, what an old one would give.
    pub allowed: IoringSetupFlags,
}

impl Setup {
    /// `entries` to submit with four times as many to complete: multishot operations complete more often than they are
    /// submitted.
    pub fn new(entries: u32) -> Self {
        Self { entries, completions: entries.saturating_mul(4), allowed: IoringSetupFlags::all() }
    }
}

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

const CQ: IoringSetupFlags = IoringSetupFlags::CQSIZE.union(IoringSetupFlags::CLAMP);
const BATCH: IoringSetupFlags = CQ.union(IoringSetupFlags::SUBMIT_ALL);
const COOPERATIVE: IoringSetupFlags = BATCH.union(IoringSetupFlags::COOP_TASKRUN).union(IoringSetupFlags::TASKRUN_FLAG);
const DEFERRED: IoringSetupFlags = BATCH
    .union(IoringSetupFlags::SINGLE_ISSUER)
    .union(IoringSetupFlags::DEFER_TASKRUN)
    .union(IoringSetupFlags::TASKRUN_FLAG);

/// Sets of flags from the richest to none; each is what some kernel was the first to know.
const LADDER: [IoringSetupFlags; 7] = [
    DEFERRED.union(IoringSetupFlags::NO_SQARRAY),       // 6.6
    DEFERRED,                                           // 6.1
    COOPERATIVE.union(IoringSetupFlags::SINGLE_ISSUER), // 6.0
    COOPERATIVE,                                        // 5.19
    BATCH,                                              // 5.18
    CQ,                                                 // 5.6
    IoringSetupFlags::empty(),                          // 5.1
];

/// The smallest ring that is tried before the want of memory is reported.
const SMALLEST: u32 = 8;

/// Without these (5.11 has all) there is no ring.
const NEEDED: IoringFeatureFlags =
    IoringFeatureFlags::EXT_ARG.union(IoringFeatureFlags::NODROP).union(IoringFeatureFlags::SINGLE_MMAP);

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
    /// Sets a ring up, for this thread.
    ///
    /// # Errors
    ///
    /// `Unsupported` if the kernel has no io_uring or too old a one, `PermissionDenied` if it is forbidden,
    /// `OutOfMemory` if not even a small ring could be had, and whatever else the system says. The message says
    /// what was attempted and what to do.
    pub fn new(setup: Setup) -> io::Result<Self> {
        let (entries, flags, outcome) = climb_down(setup, Self::attempt);
        let what = || format!("setting up an io_uring of {entries} entries with {flags:?}");
        match outcome {
            Ok(ring) if ring.features.contains(NEEDED) => Ok(ring.with_extras()),
            Ok(_) => Err(unsupported(what(), advice(Errno::NOSYS), Errno::NOSYS)),
            Err(errno @ Errno::INVAL) => {
                Err(unsupported(what(), "the kernel refuses even a plain ring: use TREFOIL_DRIVER=epoll", errno))
            }
            Err(errno) => Err(failed(what(), advice(errno), errno)),
        }
    }

    fn attempt(entries: u32, completions: u32, flags: IoringSetupFlags) -> Result<Self, Errno> {
        let mut params = io_uring_params::default();
        params.flags = flags;
        if flags.contains(IoringSetupFlags::CQSIZE) {
            params.cq_entries = completions;
        }
        // SAFETY: no ATTACH_WQ. The descriptor comes back close-on-exec.
        let fd = unsafe { io_uring_setup(entries, &mut params) }?;
        let (sq, cq) = (params.sq_off, params.cq_off);

        let with_array = !flags.contains(IoringSetupFlags::NO_SQARRAY);
        let array_end = if with_array { sq.array as usize + params.sq_entries as usize * size_of::<u32>() } else { 0 };
        let cqes_end = cq.cqes as usize + params.cq_entries as usize * size_of::<Cqe>();
        if !params.features.contains(IoringFeatureFlags::SINGLE_MMAP) {
            return Err(Errno::NOSYS); // before 5.4
        }
        let rings = Mapping::of_ring(fd.as_fd(), array_end.max(cqes_end), IORING_OFF_SQ_RING)?;
        let sqes = Mapping::of_ring(fd.as_fd(), params.sq_entries as usize * size_of::<Sqe>(), IORING_OFF_SQES)?;

        if with_array {
            // Each place of the indirection names its own cell, once and for all; NO_SQARRAY is the same without the
            // memory.
            let array: NonNull<u32> = rings.at(sq.array);
            for index in 0..params.sq_entries {
                // SAFETY: MAPPED, up to `array_end`. The kernel reads it only in a later `enter`, on this thread.
                unsafe { array.add(index as usize).write(index) };
            }
        }
        // SAFETY: MAPPED: the kernel says where its words are, and `rings` goes into the same struct as the queues
        // below.
        let word = |offset: u32| unsafe { Mapped::new(rings.at::<AtomicU32>(offset)) };
        // SAFETY: MAPPED: `sqes` has `sq_entries` of them. A new ring, so this is the only producer.
        let sq = unsafe {
            let cells = MappedCells::new(sqes.at(0));
            Submissions::new(word(sq.head), word(sq.tail), word(sq.flags), cells, params.sq_entries)
        };
        // SAFETY: MAPPED: `rings` has `cq_entries` of them. A new ring, so this is the only consumer, and the producer
        // is the kernel.
        let cq = unsafe {
            Completions::new(word(cq.head), word(cq.tail), MappedCells::new(rings.at(cq.cqes)), params.cq_entries)
        };
        Ok(Self {
            sq,
            cq,
            rings,
            entries: sqes,
            fd: Rc::new(fd),
            registered: None,
            enter_flags: IoringEnterFlags::GETEVENTS,
            flags,
            features: params.features,
            ops: Ops::default(),
        })
    }

    /// What makes a ring better but is nothing to fail for.
    fn with_extras(mut self) -> Self {
        if self.features.bits() & flag::FEAT_NO_IOWAIT != 0 {
            self.enter_flags |= IoringEnterFlags::from_bits_retain(flag::ENTER_NO_IOWAIT);
        }
        self.ops = Ops::probe(self.fd.as_fd());
        self.register_fd();
        self
    }

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
    pub fn enter(&mut self, min_complete: u32, timeout: Option<Duration>) -> io::Result<Entered> {
        let wait = if timeout.is_some_and(|timeout| timeout.is_zero()) { 0 } else { min_complete };
        loop {
            let pending = self.sq.publish();
            match self.call(pending, wait, timeout) {
                // A part: the kernel did not come to wait. Go on with the rest; each round takes at least one.
                Ok(taken) if taken > 0 && self.sq.pending() != 0 => continue,
                Ok(_) | Err(Errno::INTR | Errno::TIME) => break,
                Err(errno @ (Errno::BUSY | Errno::AGAIN)) => {
                    // BUSY: overflowed completions must be popped first (below 5.19). AGAIN: no memory for a request.
                    // Fetch what is complete; if nothing is, then pause, as we would otherwise spin on a machine that
                    // is short of memory.
                    let pause = timeout.unwrap_or(OUT_OF_MEMORY_PAUSE).min(OUT_OF_MEMORY_PAUSE);
                    match self.call(0, u32::from(errno == Errno::AGAIN && wait > 0), Some(pause)) {
                        Ok(_) | Err(Errno::INTR | Errno::TIME | Errno::BUSY | Errno::AGAIN) => break,
                        Err(errno) => return Err(failed("entering the io_uring".into(), advice(errno), errno)),
                    }
                }
                Err(errno) => return Err(failed("entering the io_uring".into(), advice(errno), errno)),
            }
        }
        Ok(if self.sq.pending() == 0 { Entered::All } else { Entered::Backlog })
    }

    /// The system call itself.
    fn call(&self, to_submit: u32, min_complete: u32, timeout: Option<Duration>) -> Result<u32, Errno> {
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

    /// Asks the kernel to cancel all that is in flight, without needing an entry. The operations' completions still
    /// come. What was pushed and not submitted is not in flight: enter first.
    ///
    /// It does not wait: an operation that is running on a kernel thread is only told. To drain, call this, then
    /// [`enter`](Self::enter) and [`pop`](Self::pop) until nothing is in flight, under a deadline, and
    /// [`leak`](Self::leak) what is then left.
    ///
    /// # Errors
    ///
    /// `Unsupported` before 6.0: push [`Sqe::cancel_any`] (5.19), or a cancel for each.
    pub fn cancel_all(&mut self) -> io::Result<()> {
        let arg = SyncCancel {
            addr: 0,
            fd: -1,
            flags: flag::ASYNC_CANCEL_ANY | flag::ASYNC_CANCEL_ALL,
            timeout: KernelTimespec { sec: 0, nsec: 0 },
            pad: [0; 4],
        };
        // SAFETY: `arg` is what this operation reads.
        match unsafe { register(self.fd.as_fd(), IoringRegisterOp::RegisterSyncCancel, &raw const arg, 1) } {
            // Told them (how many is not exact), found none, or told some that take their time.
            Ok(_) | Err(Errno::NOENT | Errno::ALREADY | Errno::TIME | Errno::INTR) => Ok(()),
            Err(errno @ Errno::INVAL) => {
                let what = "cancelling all that is in flight".into();
                Err(unsupported(what, "before Linux 6.0, push cancel entries instead", errno))
            }
            Err(errno) => Err(failed("cancelling all that is in flight".into(), advice(errno), errno)),
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

    /// Since 5.18. A thread has 16 places; without one, calls go through the descriptor.
    fn register_fd(&mut self) {
        let mut update = io_uring_rsrc_update::default();
        update.offset = u32::MAX; // any place
        update.data = io_uring_ptr::new(ptr::without_provenance_mut(self.fd.as_raw_fd() as usize));
        // SAFETY: `update` is what this operation reads and writes.
        let done = unsafe { register(self.fd.as_fd(), IoringRegisterOp::RegisterRingFds, &raw mut update, 1) };
        if done == Ok(1) {
            self.registered = RawFd::try_from(update.offset).ok();
        }
    }
}

/// Tries the richest ring first, with fewer flags while they are unknown (`EINVAL`), and a smaller one while there is
/// no memory (`ENOMEM`). Returns what was tried last and what came of it.
fn climb_down<T>(
    setup: Setup,
    mut attempt: impl FnMut(u32, u32, IoringSetupFlags) -> Result<T, Errno>,
) -> (u32, IoringSetupFlags, Result<T, Errno>) {
    let mut entries = setup.entries.max(1);
    let mut completions = setup.completions.max(entries);
    let mut rungs = LADDER.iter().map(|&flags| flags & setup.allowed);
    let mut flags = rungs.next().unwrap_or_default();
    loop {
        match attempt(entries, completions, flags) {
            Err(Errno::INVAL) => match rungs.next() {
                Some(fewer) => flags = fewer,
                None => return (entries, flags, Err(Errno::INVAL)),
            },
            Err(Errno::NOMEM) if entries > SMALLEST => {
                entries = (entries / 2).max(SMALLEST);
                completions = (completions / 2).max(entries);
            }
            outcome => return (entries, flags, outcome),
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if let Some(place) = self.registered.take() {
            let mut update = io_uring_rsrc_update::default();
            update.offset = place as u32;
            // The place holds a reference of its own: without this, closing the descriptor would close nothing.
            // SAFETY: `update` is what this operation reads.
            let _ = unsafe { register(self.fd.as_fd(), IoringRegisterOp::UnregisterRingFds, &raw mut update, 1) };
        }
    }
}

/// `io_uring_register`, with the pointer's type kept until here.
///
/// # Safety
///
/// `arg` must be what `operation` reads and writes, `count` times.
pub(super) unsafe fn register<T>(
    fd: BorrowedFd<'_>,
    operation: IoringRegisterOp,
    arg: *const T,
    count: u32,
) -> Result<u32, Errno> {
    // SAFETY: the caller's promise.
    unsafe { io_uring_register(fd, operation, arg.cast::<c_void>(), count) }
}

/// `struct __kernel_timespec`: 64 bits on every architecture.
#[repr(C)]
struct KernelTimespec {
    sec: i64,
    nsec: i64,
}

impl From<Duration> for KernelTimespec {
    fn from(duration: Duration) -> Self {
        Self { sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX), nsec: duration.subsec_nanos().into() }
    }
}

/// `struct io_uring_sync_cancel_reg`.
#[repr(C)]
struct SyncCancel {
    addr: u64,
    fd: i32,
    flags: u32,
    timeout: KernelTimespec,
    pad: [u64; 4],
}

const _: () = assert!(size_of::<SyncCancel>() == 64);

/// The operations that the kernel has, one bit each.
#[derive(Clone, Copy, Debug, Default)]
struct Ops([u64; 4]);

/// `struct io_uring_probe` with room for every opcode; rustix's has Rust enums where a newer kernel has newer values.
#[repr(C)]
struct Probe {
    last_op: u8,
    ops_len: u8,
    reserved: [u16; 7],
    ops: [ProbeOp; 256],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct ProbeOp {
    op: u8,
    reserved: u8,
    flags: u16,
    reserved2: u32,
}

const _: () = assert!(size_of::<Probe>() == 16 + 256 * 8);

impl Ops {
    /// `REGISTER_PROBE`, since 5.6.
    fn probe(fd: BorrowedFd<'_>) -> Self {
        const SUPPORTED: u16 = 1;
        let none = ProbeOp { op: 0, reserved: 0, flags: 0, reserved2: 0 };
        let mut probe = Probe { last_op: 0, ops_len: 0, reserved: [0; 7], ops: [none; 256] };
        let mut ops = Self::default();
        // SAFETY: `probe` has room for the 256 entries that this operation may write.
        if unsafe { register(fd, IoringRegisterOp::RegisterProbe, &raw mut probe, 256) }.is_ok() {
            for entry in &probe.ops[..usize::from(probe.ops_len)] {
                if entry.flags & SUPPORTED != 0 {
                    ops.0[usize::from(entry.op) / 64] |= 1 << (entry.op % 64);
                }
            }
        }
        ops
    }

    fn contains(&self, opcode: u8) -> bool {
        self.0[usize::from(opcode) / 64] & (1 << (opcode % 64)) != 0
    }
}

/// Memory from `mmap`, which no child process inherits, given back when dropped.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<c_void>,
    /// 0 if it was leaked.
    len: usize,
    /// Like a `*mut`: stays on its thread.
    thread: PhantomData<*mut c_void>,
}

impl Mapping {
    /// A part of a ring.
    fn of_ring(fd: BorrowedFd<'_>, len: usize, offset: u64) -> Result<Self, Errno> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let start =
            unsafe { mm::mmap(ptr::null_mut(), len, protection, MapFlags::SHARED | MapFlags::POPULATE, fd, offset) }?;
        Self::new(start, len)
    }

    /// Zeroed memory of our own.
    pub(super) fn zeroed(len: usize) -> Result<Self, Errno> {
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let start =
            unsafe { mm::mmap_anonymous(ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) }?;
        Self::new(start, len)
    }

    fn new(start: *mut c_void, len: usize) -> Result<Self, Errno> {
        let start = NonNull::new(start).ok_or(Errno::NOMEM)?;
        let mapping = Self { start, len, thread: PhantomData };
        // A forked child that touched these would be a second user of our queues; and copy-on-write after a fork would
        // leave *us* with a copy of what the kernel writes to.
        // SAFETY: the whole of a mapping that is ours.
        unsafe { mm::madvise(start.as_ptr(), len, Advice::LinuxDontFork) }?;
        Ok(mapping)
    }

    /// What lies `offset` bytes from the start.
    pub(super) fn at<T>(&self, offset: u32) -> NonNull<T> {
        let offset = offset as usize;
        assert!(offset + size_of::<T>() <= self.len && offset.is_multiple_of(align_of::<T>()));
        // SAFETY: just checked to be inside the mapping.
        unsafe { self.start.byte_add(offset) }.cast()
    }

    /// Never give it back.
    pub(super) fn forget(&mut self) {
        self.len = 0;
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.len != 0 {
            // SAFETY: MAPPED: ours alone, and its owner, who alone made pointers into it, is being dropped.
            let unmapped = unsafe { mm::munmap(self.start.as_ptr(), self.len) };
            debug_assert!(unmapped.is_ok(), "munmap: {unmapped:?}");
        }
    }
}

/// An attempt that failed, and what to do about it.
#[derive(Debug)]
struct Failed {
    attempt: String,
    advice: &'static str,
    errno: Errno,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed ({}): {}", self.attempt, self.errno, self.advice)
    }
}

impl std::error::Error for Failed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.errno)
    }
}

/// An error of the kind that `errno` has, with a message that helps.
pub(super) fn failed(attempt: String, advice: &'static str, errno: Errno) -> io::Error {
    io::Error::new(io::Error::from(errno).kind(), Failed { attempt, advice, errno })
}

/// The same for what a kernel lacks, however it puts it.
pub(super) fn unsupported(attempt: String, advice: &'static str, errno: Errno) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, Failed { attempt, advice, errno })
}

fn advice(errno: Errno) -> &'static str {
    match errno {
        Errno::PERM | Errno::ACCESS => {
            "io_uring is forbidden here (seccomp or kernel.io_uring_disabled): use TREFOIL_DRIVER=epoll"
        }
        Errno::NOSYS => {
            "the kernel has no io_uring, one older than 5.11, or a sandbox hides it: use TREFOIL_DRIVER=epoll"
        }
        Errno::NOMEM => {
            "not enough memory, or a low limit on locked memory (ulimit -l): raise it, or use TREFOIL_DRIVER=epoll"
        }
        Errno::MFILE | Errno::NFILE => "too many open files: raise the limit (ulimit -n)",
        Errno::EXIST => "a ring belongs to the thread that made it; this is another one (a bug in Trefoil)",
        Errno::BADR => {
            "the kernel had no memory for completions and lost some: nothing that waits on this ring can be trusted"
        }
        _ => "unexpected (a bug in Trefoil, or a kernel we do not know); TREFOIL_DRIVER=epoll avoids io_uring",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::FromRawFd;
    use std::time::Instant;

    pub fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None).unwrap()
    }

    pub fn say(fd: &OwnedFd, what: &[u8]) {
        assert_eq!(send(fd, what, SendFlags::NOSIGNAL), Ok(what.len()));
    }

    /// A ring, or `None` with a printed line where there can be none.
    pub fn ring(setup: Setup) -> Option<Ring> {
        match Ring::new(setup) {
            Ok(ring) => Some(ring),
            Err(error) if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied) => {
                println!("skipped: {error}");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Enters until `count` completions were popped; fails after some seconds without any.
    pub fn collect(ring: &mut Ring, count: usize) -> Vec<Cqe> {
        let mut all = Vec::new();
        while all.len() < count {
            let _ = ring.enter(1, Some(Duration::from_secs(5))).unwrap();
            let before = all.len();
            all.extend(std::iter::from_fn(|| ring.pop()));
            assert!(all.len() > before, "nothing for 5 s after {all:?}");
        }
        assert_eq!(all.len(), count, "{all:?}");
        all
    }

    fn keys_and_results(mut cqes: Vec<Cqe>) -> Vec<(u64, Result<u32, Errno>)> {
        cqes.sort_by_key(Cqe::key);
        cqes.iter().map(|cqe| (cqe.key(), cqe.result())).collect()
    }

    const MOMENT: Option<Duration> = Some(Duration::from_millis(20));
    const POLLIN: u32 = 1;

    #[test]
    fn nops_go_round_on_every_rung_of_the_ladder() {
        for allowed in LADDER {
            let Some(mut ring) = ring(Setup { allowed, ..Setup::new(4) }) else { return };
            println!("{ring:?}");
            assert_eq!(ring.flags() - allowed, IoringSetupFlags::empty());
            assert_eq!(ring.sq_entries(), 4);
            assert_eq!(ring.cq_entries(), if ring.flags().contains(IoringSetupFlags::CQSIZE) { 16 } else { 8 });
            let mut next = 0;
            // Batches of 3 in a ring of 4 start at every cell.
            for _ in 0..5_000 {
                for offset in 0..3 {
                    ring.push(Sqe::nop(next + offset)).unwrap();
                }
                assert!(ring.needs_enter());
                assert_eq!(ring.enter(3, None).unwrap(), Entered::All);
                for _ in 0..3 {
                    let cqe = ring.pop().unwrap();
                    assert_eq!((cqe.key(), cqe.result(), cqe.more()), (next, Ok(0), false));
                    next += 1;
                }
                assert_eq!(ring.pop(), None);
                assert!(!ring.needs_enter());
            }
        }
    }

    #[test]
    fn the_best_this_kernel_has_is_obtained() {
        let Some(ring) = ring(Setup::new(8)) else { return };
        println!("{:?}, {:?}, place {:?}", ring.flags(), ring.features(), ring.registered);
        for opcode in [op::NOP, op::RECV, op::ACCEPT, op::ASYNC_CANCEL] {
            assert!(ring.supports(opcode));
        }
        assert!(!ring.supports(255));
        assert!(ring.multishot_accept() || !ring.multishot_recv(), "6.0 has what 5.19 has");
        let flags = rustix::io::fcntl_getfd(&*ring.fd).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }

    #[test]
    fn more_rings_than_places_in_the_thread_s_table_work_all_the_same() {
        let Some(first) = ring(Setup::new(4)) else { return };
        let mut rings: Vec<_> = std::iter::once(first).chain((0..20).filter_map(|_| ring(Setup::new(4)))).collect();
        for ring in &mut rings {
            ring.push(Sqe::nop(1)).unwrap();
            collect(ring, 1);
        }
        assert!(rings[0].registered.is_some() != rings[20].registered.is_some() || rings[0].registered.is_none());
        drop(rings);
        // The places came back.
        assert_eq!(
            ring(Setup::new(4)).unwrap().registered.is_some(),
            ring(Setup::new(4)).unwrap().registered.is_some()
        );
    }

    #[test]
    fn a_full_queue_says_so_and_takes_more_after_an_enter() {
        let Some(mut ring) = ring(Setup::new(4)) else { return };
        for key in 0..4 {
            assert_eq!(ring.push(Sqe::nop(key)), Ok(()));
        }
        assert_eq!((ring.push(Sqe::nop(4)), ring.pending(), ring.space()), (Err(Full), 4, 0));
        assert_eq!(ring.enter(0, None).unwrap(), Entered::All);
        assert_eq!((ring.push(Sqe::nop(4)), ring.pending(), ring.space()), (Ok(()), 1, 3));
        assert_eq!(keys_and_results(collect(&mut ring, 5)), (0..5).map(|key| (key, Ok(0))).collect::<Vec<_>>());
    }

    #[test]
    fn completions_that_overflow_are_fetched_in_order() {
        for allowed in [LADDER[0], LADDER[5]] {
            let Some(mut ring) = ring(Setup { completions: 4, allowed, ..Setup::new(4) }) else { return };
            assert_eq!(ring.cq_entries(), 4);
            let mut pushed = 0;
            while pushed < 20 {
                match ring.push(Sqe::nop(pushed)) {
                    Ok(()) => pushed += 1,
                    // An old kernel may leave a backlog instead of overflowing further.
                    Err(Full) => {
                        assert!(ring.enter(0, None).unwrap() == Entered::All, "not on kernels known to this test")
                    }
                }
            }
            let _ = ring.enter(0, None).unwrap();
            assert_eq!(ring.ready(), 4);
            let mut seen = Vec::new();
            while seen.len() < 20 {
                seen.extend(std::iter::from_fn(|| ring.pop()).map(|cqe| cqe.key()));
                assert_eq!(ring.needs_enter(), seen.len() < 20, "the flag tells that more wait");
                let _ = ring.enter(0, None).unwrap();
            }
            assert_eq!(seen, (0..20).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_wait_ends_with_its_timeout_and_not_before() {
        let Some(mut ring) = ring(Setup::new(4)) else { return };
        let start = Instant::now();
        assert_eq!(ring.enter(1, MOMENT).unwrap(), Entered::All);
        assert!(start.elapsed() >= MOMENT.unwrap() && ring.ready() == 0);
        // Also when the same call submits, and one completion comes where two were asked for.
        ring.push(Sqe::nop(1)).unwrap();
        let start = Instant::now();
        assert_eq!(ring.enter(2, MOMENT).unwrap(), Entered::All);
        assert!(start.elapsed() >= MOMENT.unwrap() && ring.ready() == 1);
        // Zero does not wait, and completions that are there are not waited for.
        let start = Instant::now();
        assert_eq!(ring.enter(9, Some(Duration::ZERO)).unwrap(), Entered::All);
        assert_eq!(ring.enter(1, Some(Duration::MAX)).unwrap(), Entered::All);
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn bytes_go_through_send_recv_write_and_read() {
        let Some(mut ring) = ring(Setup::new(4)) else { return };
        let (a, b) = pair();
        let mut into = [0_u8; 16];
        // SAFETY: each completion is awaited below, before the memory is looked at.
        unsafe {
            ring.push(Sqe::recv(a.as_fd(), into.as_mut_ptr(), 16, 1).poll_first()).unwrap();
            ring.push(Sqe::send(b.as_fd(), b"over".as_ptr(), 4, 2)).unwrap();
        }
        assert_eq!(keys_and_results(collect(&mut ring, 2)), [(1, Ok(4)), (2, Ok(4))]);
        assert_eq!(&into[..4], b"over");
        // SAFETY: likewise.
        unsafe {
            ring.push(Sqe::write(b.as_fd(), b"again".as_ptr(), 5, super::super::sys::CURRENT_POSITION, 3)).unwrap();
            collect(&mut ring, 1);
            ring.push(Sqe::read(a.as_fd(), into.as_mut_ptr(), 16, super::super::sys::CURRENT_POSITION, 4)).unwrap();
        }
        assert_eq!(keys_and_results(collect(&mut ring, 1)), [(4, Ok(5))]);
        assert_eq!(&into[..5], b"again");
        // SAFETY: given up here; and the memory of the send as above.
        unsafe {
            ring.push(Sqe::close(std::os::fd::IntoRawFd::into_raw_fd(a), 5)).unwrap();
            assert_eq!(keys_and_results(collect(&mut ring, 1)), [(5, Ok(0))]);
            ring.push(Sqe::send(b.as_fd(), b"x".as_ptr(), 1, 6)).unwrap();
        }
        assert_eq!(keys_and_results(collect(&mut ring, 1)), [(6, Err(Errno::PIPE))]);
    }

    #[test]
    fn polls_complete_once_or_at_every_event_and_can_be_removed() {
        let Some(mut ring) = ring(Setup::new(4)) else { return };
        let (a, b) = pair();
        ring.push(Sqe::poll_add(a.as_fd(), POLLIN, 1)).unwrap();
        ring.push(Sqe::poll_add_multishot(a.as_fd(), POLLIN, 2)).unwrap();
        assert_eq!(ring.enter(1, MOMENT).unwrap(), Entered::All);
        assert_eq!(ring.pop(), None);
        say(&b, b"x");
        let mut both = collect(&mut ring, 2);
        both.sort_by_key(Cqe::key);
        assert_eq!(both[0], Cqe::new(1, POLLIN as i32, 0));
        assert!(both[1].key() == 2 && both[1].more());
        say(&b, b"y");
        let again = collect(&mut ring, 1)[0];
        assert!(again.key() == 2 && again.more());
        ring.push(Sqe::poll_remove(2, 3)).unwrap();
        ring.push(Sqe::poll_remove(77, 4)).unwrap();
        assert_eq!(
            keys_and_results(collect(&mut ring, 3)),
            [(2, Err(Errno::CANCELED)), (3, Ok(0)), (4, Err(Errno::NOENT))]
        );
    }

    #[test]
    fn another_thread_s_event_ends_the_wait() {
        let Some(mut ring) = ring(Setup::new(4)) else { return };
        let (a, b) = pair();
        ring.push(Sqe::poll_add_multishot(a.as_fd(), POLLIN, 1)).unwrap();
        let _ = ring.enter(0, None).unwrap();
        let writer = std::thread::spawn(move || {
            std::thread::sleep(MOMENT.unwrap());
            say(&b, b"x");
            b
        });
        assert_eq!(ring.enter(1, None).unwrap(), Entered::All);
        assert_eq!(ring.pop().map(|cqe| cqe.key()), Some(1));
        drop(writer.join().unwrap());
    }

    #[test]
    fn deferred_work_shows_in_the_flag_before_the_enter() {
        let Some(mut ring) = ring(Setup::new(4)) else { return };
        if !ring.defers() {
            println!("skipped: no DEFER_TASKRUN");
            return;
        }
        let (a, b) = pair();
        ring.push(Sqe::poll_add(a.as_fd(), POLLIN, 1)).unwrap();
        let _ = ring.enter(0, None).unwrap();
        assert!(!ring.needs_enter());
        say(&b, b"x");
        assert!(ring.needs_enter() && ring.pop().is_none(), "told, and not yet in the queue");
        let _ = ring.enter(0, None).unwrap();
        assert!(ring.pop().is_some() && !ring.needs_enter());
    }

    #[test]
    fn a_cancelled_receive_completes_as_such_and_its_cancel_not_at_all() {
        let Some(mut ring) = ring(Setup::new(8)) else { return };
        let (a, b) = pair();
        let mut into = [0_u8; 3 * 8];
        for part in 0..3 {
            // SAFETY: each completion is awaited below.
            let entry = unsafe { Sqe::recv(a.as_fd(), into.as_mut_ptr().add(8 * part), 8, 1 + part as u64) };
            ring.push(entry).unwrap();
        }
        let _ = ring.enter(0, None).unwrap();
        let quietly = |cancel: Sqe| if ring.skips_success() { Some(cancel.skip_success()) } else { None };
        let Some(cancel) = quietly(Sqe::cancel(2, 10)) else { return println!("skipped: no CQE_SKIP_SUCCESS") };
        ring.push(cancel).unwrap();
        ring.push(Sqe::cancel(99, 11).skip_success()).unwrap();
        assert_eq!(keys_and_results(collect(&mut ring, 2)), [(2, Err(Errno::CANCELED)), (11, Err(Errno::NOENT))]);
        // By descriptor: the rest, and the count.
        ring.push(Sqe::cancel_fd(a.as_fd(), 12)).unwrap();
        let rest = keys_and_results(collect(&mut ring, 3));
        assert_eq!(rest, [(1, Err(Errno::CANCELED)), (3, Err(Errno::CANCELED)), (12, Ok(2))]);
        // No byte was taken by any of them.
        say(&b, b"kept");
        assert_eq!(recv(&a, &mut into[..], RecvFlags::empty()).unwrap().0, 4);
    }

    #[test]
    fn everything_in_flight_can_be_cancelled_by_an_entry() {
        let Some(mut ring) = ring(Setup::new(8)) else { return };
        let (a, b) = pair();
        ring.push(Sqe::poll_add(a.as_fd(), POLLIN, 1)).unwrap();
        ring.push(Sqe::poll_add_multishot(b.as_fd(), POLLIN, 2)).unwrap();
        ring.push(Sqe::cancel_any(3)).unwrap();
        assert_eq!(
            keys_and_results(collect(&mut ring, 3)),
            [(1, Err(Errno::CANCELED)), (2, Err(Errno::CANCELED)), (3, Ok(2))]
        );
        ring.push(Sqe::poll_add(a.as_fd(), POLLIN, 7)).unwrap();
        ring.push(Sqe::poll_add(b.as_fd(), POLLIN, 7)).unwrap();
        ring.push(Sqe::cancel_all_of(7, 8)).unwrap();
        assert_eq!(keys_and_results(collect(&mut ring, 3))[2], (8, Ok(2)));
    }

    #[test]
    fn teardown_cancels_all_without_an_entry_and_drains() {
        for allowed in LADDER {
            let Some(mut ring) = ring(Setup { allowed, ..Setup::new(4) }) else { return };
            let (a, b) = pair();
            let (r, _w) = std::io::pipe().unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut into = [0_u8; 16];
            // SAFETY: each completion is awaited below.
            unsafe {
                ring.push(Sqe::recv(a.as_fd(), into.as_mut_ptr(), 8, 1)).unwrap();
                ring.push(Sqe::read(r.as_fd(), into.as_mut_ptr().add(8), 8, 0, 2)).unwrap();
            }
            ring.push(Sqe::poll_add_multishot(b.as_fd(), POLLIN, 3)).unwrap();
            ring.push(Sqe::accept_multishot(listener.as_fd(), 4)).unwrap();
            assert_eq!(ring.enter(0, None).unwrap(), Entered::All);
            match ring.cancel_all() {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                    println!("{error}");
                    ring.push(Sqe::cancel_any(9)).unwrap();
                }
                Err(error) => panic!("{error}"),
            }
            let ended = collect(&mut ring, 4);
            assert!(ended.iter().all(|cqe| !cqe.more()), "{ended:?}");
            // A pipe's read is done by a kernel thread on some kernels, which is interrupted.
            let is_end = |error| matches!(error, Err(Errno::CANCELED | Errno::INTR));
            assert!(ended.iter().all(|cqe| is_end(cqe.result())), "{ended:?}");
            ring.cancel_all().expect("nothing left is not an error");
            assert_eq!(ring.enter(1, MOMENT).unwrap(), Entered::All);
            assert_eq!(ring.pop(), None);
        }
    }

    #[test]
    fn multishot_accept_gives_close_on_exec_sockets_until_cancelled() {
        let Some(mut ring) = ring(Setup::new(4)) else { return };
        if !ring.multishot_accept() {
            return println!("skipped: no multishot accept");
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        ring.push(Sqe::accept_multishot(listener.as_fd(), 1)).unwrap();
        let _ = ring.enter(0, None).unwrap();
        let mut clients = Vec::new();
        for _ in 0..5 {
            clients.push(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        }
        for cqe in collect(&mut ring, 5) {
            assert!(cqe.key() == 1 && cqe.more());
            // SAFETY: the completion's descriptor is ours.
            let socket = unsafe { OwnedFd::from_raw_fd(cqe.result().unwrap() as RawFd) };
            assert!(rustix::io::fcntl_getfd(&socket).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
            assert_eq!(recv(&socket, &mut [0_u8; 1][..], RecvFlags::empty()).map(|got| got.0), Err(Errno::AGAIN));
        }
        ring.push(Sqe::cancel(1, 2)).unwrap();
        assert_eq!(keys_and_results(collect(&mut ring, 2)), [(1, Err(Errno::CANCELED)), (2, Ok(0))]);
    }

    #[test]
    fn connect_and_one_accept_meet() {
        let Some(mut ring) = ring(Setup::new(4)) else { return };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let std::net::SocketAddr::V4(address) = listener.local_addr().unwrap() else { unreachable!() };
        let client = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        let encoded = rustix::net::SocketAddrAny::from(address);
        ring.push(Sqe::accept(listener.as_fd(), 1)).unwrap();
        // SAFETY: the completion is awaited below, while `encoded` lives.
        let entry = unsafe { Sqe::connect(client.as_fd(), encoded.as_ptr().cast(), encoded.addr_len(), 2) };
        ring.push(entry).unwrap();
        let done = keys_and_results(collect(&mut ring, 2));
        assert_eq!(done[1], (2, Ok(0)));
        // SAFETY: the completion's descriptor is ours.
        drop(unsafe { OwnedFd::from_raw_fd(done[0].1.unwrap() as RawFd) });
    }

    #[test]
    fn a_leaked_ring_is_closed_and_stays_mapped() {
        let Some(ring) = ring(Setup::new(4)) else { return };
        let fd = Rc::downgrade(&ring.fd);
        let word: NonNull<AtomicU32> = ring.rings.at(0);
        ring.leak();
        assert_eq!(fd.strong_count(), 0);
        // SAFETY: never unmapped, which is what is tested.
        unsafe { word.as_ref() }.load(std::sync::atomic::Ordering::Relaxed);
    }

    #[test]
    fn a_dropped_ring_is_really_closed() {
        let Some(mut ring) = ring(Setup::new(4)) else { return };
        // A poll in flight holds the socket's file: only closing the *ring* lets the peer see the end.
        let (a, b) = pair();
        ring.push(Sqe::poll_add(a.as_fd(), POLLIN, 1)).unwrap();
        let _ = ring.enter(0, None).unwrap();
        drop(a);
        assert_eq!(recv(&b, &mut [0_u8; 1][..], RecvFlags::empty()).map(|got| got.0), Err(Errno::AGAIN));
        drop(ring);
        let start = Instant::now();
        while recv(&b, &mut [0_u8; 1][..], RecvFlags::empty()).map(|got| got.0) != Ok(0) {
            assert!(start.elapsed() < Duration::from_secs(5), "the ring lives on");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn unknown_flags_are_taken_off_one_rung_at_a_time() {
        for (known, rung) in LADDER.into_iter().enumerate() {
            let mut tried = 0;
            let (entries, flags, outcome) = climb_down(Setup::new(64), |entries, completions, flags| {
                assert_eq!((entries, completions, flags), (64, 256, LADDER[tried]));
                tried += 1;
                if tried > known { Ok(()) } else { Err(Errno::INVAL) }
            });
            assert_eq!((entries, flags, outcome), (64, rung, Ok(())));
        }
        let refused = climb_down(Setup::new(64), |_, _, _| Err::<(), _>(Errno::INVAL));
        assert_eq!(refused, (64, IoringSetupFlags::empty(), Err(Errno::INVAL)));
        let forbidden = climb_down(Setup::new(64), |_, _, _| Err::<(), _>(Errno::PERM));
        assert_eq!(forbidden, (64, LADDER[0], Err(Errno::PERM)), "not tried again");
    }

    #[test]
    fn the_want_of_memory_is_met_with_smaller_rings_down_to_eight_entries() {
        let mut sizes = Vec::new();
        let (entries, _, outcome) = climb_down(Setup::new(100), |entries, completions, _| {
            sizes.push((entries, completions));
            Err::<(), _>(Errno::NOMEM)
        });
        assert_eq!(sizes, [(100, 400), (50, 200), (25, 100), (12, 50), (8, 25)]);
        assert_eq!((entries, outcome), (8, Err(Errno::NOMEM)));
        // One that was asked to be smaller stays as it is.
        assert_eq!(climb_down(Setup::new(4), |_, _, _| Err::<(), _>(Errno::NOMEM)).0, 4);
        // The largest there can be: clamped, refused, or had, but no panic.
        match Ring::new(Setup { entries: u32::MAX, ..Setup::new(4) }) {
            Ok(ring) => assert!(ring.sq_entries() <= 1 << 15),
            Err(error) => println!("{error}"),
        }
    }

    #[test]
    fn an_error_says_what_and_what_to_do() {
        let error = failed("setting up".into(), advice(Errno::PERM), Errno::PERM);
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        let text = error.to_string();
        assert!(
            text.contains("setting up") && text.contains("TREFOIL_DRIVER=epoll") && text.contains("io_uring_disabled"),
            "{text}"
        );
        // The ring of another thread: made there, moved here by force, since the type forbids it.
        struct Force(Ring);
        // SAFETY: wrong by intent; the kernel refuses every use, and the closing below is allowed from any thread.
        unsafe impl Send for Force {}
        let Some(ring) = ring(Setup::new(4)) else { return };
        if ring.flags().contains(IoringSetupFlags::SINGLE_ISSUER) {
            let forced = Force(ring);
            let error = std::thread::spawn(move || {
                let mut forced = forced;
                let _whole = &mut forced;
                _whole.0.registered = None; // a place of the other thread's table
                _whole.0.enter(0, None).unwrap_err()
            });
            let error = error.join().unwrap();
            assert!(error.to_string().contains("thread"), "{error}");
        }
    }
}
