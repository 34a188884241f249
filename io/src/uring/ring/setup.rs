//! Making a [`Ring`].
//!
//! What we ask for is the richest set of flags, and what we get is what the kernel has ([`Ring::flags`]). Versions are
//! never compared: setup is tried with less on `EINVAL`, the rest is asked of the kernel (`features`,
//! `REGISTER_PROBE`), since distributions backport and sandboxes forbid. Below Linux 5.11 (no timeout in the wait
//! itself) there is no ring here: epoll does better there than a ring with a timeout operation per turn.

use std::io;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::AtomicU32;

use rustix::io::Errno;
use rustix::io_uring::{
    IORING_OFF_SQ_RING, IORING_OFF_SQES, IoringEnterFlags, IoringFeatureFlags, IoringSetupFlags, io_uring_params,
    io_uring_setup,
};

use super::Ring;
use super::failure::{advice, failed, unsupported};
use super::mapping::Mapping;
use super::probe::Ops;
use crate::uring::queue::{Completions, Mapped, MappedCells, Submissions};
use crate::uring::sys::{Cqe, Sqe, flag};

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

const CQ: IoringSetupFlags = IoringSetupFlags::CQSIZE.union(IoringSetupFlags::CLAMP);
const BATCH: IoringSetupFlags = CQ.union(IoringSetupFlags::SUBMIT_ALL);
const COOPERATIVE: IoringSetupFlags = BATCH.union(IoringSetupFlags::COOP_TASKRUN).union(IoringSetupFlags::TASKRUN_FLAG);
const DEFERRED: IoringSetupFlags = BATCH
    .union(IoringSetupFlags::SINGLE_ISSUER)
    .union(IoringSetupFlags::DEFER_TASKRUN)
    .union(IoringSetupFlags::TASKRUN_FLAG);

/// Sets of flags from the richest to none; each is what some kernel was the first to know.
pub(super) const LADDER: [IoringSetupFlags; 7] = [
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
