//! `io_uring_register`: what is told to a ring beside its entries.

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::ptr;

use rustix::io::Errno;
use rustix::io_uring::{IoringRegisterOp, io_uring_ptr, io_uring_register, io_uring_rsrc_update};

use super::Ring;
use super::failure::{advice, failed, unsupported};
use crate::uring::sys::{KernelTimespec, flag};

/// `io_uring_register`, with the pointer's type kept until here.
///
/// # Safety
///
/// `arg` must be what `operation` reads and writes, `count` times.
pub(in crate::uring) unsafe fn register<T>(
    fd: BorrowedFd<'_>,
    operation: IoringRegisterOp,
    arg: *const T,
    count: u32,
) -> Result<u32, Errno> {
    // SAFETY: the caller's promise.
    unsafe { io_uring_register(fd, operation, arg.cast::<c_void>(), count) }
}

impl Ring {
    /// Asks the kernel to cancel all that is in flight, without needing an entry. The operations' completions still
    /// come. What was pushed and not submitted is not in flight: enter first.
    ///
    /// It does not wait: an operation that is running on a kernel thread is only told. To drain, call this, then
    /// [`enter`](Self::enter) and [`pop`](Self::pop) until nothing is in flight, under a deadline, and
    /// [`leak`](Self::leak) what is then left.
    ///
    /// # Errors
    ///
    /// `Unsupported` before 6.0: push [`Sqe::cancel_any`](crate::uring::Sqe::cancel_any) (5.19), or a cancel for each.
    pub fn cancel_all(&self) -> io::Result<()> {
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

    /// Since 5.18. A thread has 16 places; without one, calls go through the descriptor.
    pub(super) fn register_fd(&mut self) {
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
