//! What can be done with a file at once: reading what the page cache has, writing to it. Nothing else blocks the loop.
//!
//! `None` means that it would block; or that it failed in some other way, of which the operation that may block will tell more
//! reliably: a file system that does not know `RWF_NOWAIT`, an old kernel, a filter of system calls, a real error.

use std::os::fd::{AsRawFd, BorrowedFd};

/// `RWF_NOWAIT`, since Linux 4.14.
const NOWAIT: libc::c_int = rustix::io::ReadWriteFlags::NOWAIT.bits() as libc::c_int;

/// Reads into memory that may be uninitialized: so many bytes of it are written then. 0 is the end, if there is room.
///
/// # Safety
/// `to` is valid for writes of `len` bytes.
pub(super) unsafe fn read(file: BorrowedFd<'_>, to: *mut u8, len: usize, position: u64) -> Option<usize> {
    // SAFETY: the caller's promise.
    let n = unsafe { now(libc::SYS_preadv2, file, to, len, position) }?;
    // Linux 5.9 and 5.10 say that the file ends where nothing is cached (preadv2(2), BUGS).
    (n > 0 || len == 0 || ends_at(file, position)).then_some(n)
}

/// Writes, and says how much.
pub(super) fn write(file: BorrowedFd<'_>, bytes: &[u8], position: u64) -> Option<usize> {
    // SAFETY: valid for reads, and the kernel does not write to it.
    unsafe { now(libc::SYS_pwritev2, file, bytes.as_ptr().cast_mut(), bytes.len(), position) }
}

/// # Safety
/// `at` is valid for what the system call does with `len` bytes there.
unsafe fn now(call: libc::c_long, file: BorrowedFd<'_>, at: *mut u8, len: usize, position: u64) -> Option<usize> {
    let vector = libc::iovec { iov_base: at.cast(), iov_len: len };
    // The kernel takes the position in two halves, and ignores the upper one where the lower is 64 bits wide.
    let (low, high) = (position as libc::c_ulong, (position >> 32) as libc::c_ulong);
    // SAFETY: one vector, that lives through the call; the caller's promise for what it names.
    let n = unsafe { libc::syscall(call, file.as_raw_fd(), &raw const vector, 1, low, high, NOWAIT) };
    usize::try_from(n).ok()
}

/// Whether a file is known to have nothing at a position, nor behind it. Of what has no size, as in `/proc`, that is not known.
pub(super) fn ends_at(file: BorrowedFd<'_>, position: u64) -> bool {
    rustix::fs::fstat(file).is_ok_and(|stat| stat.st_size > 0 && position >= stat.st_size.cast_unsigned())
}
