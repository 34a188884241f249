//! The kernel's side of the contract: entries as they lie in shared memory, and every number we use.
//!
//! Plain data, no state, any thread. An [`Sqe`] can only be made by the constructors here. Those that hand memory to
//! the kernel are `unsafe` and say what the caller promises (HONEST-ENTRY in the [module above](super)); with that,
//! everything else about an entry is safe. A descriptor is looked up when the entry is *submitted*, not when it is
//! made: keep it open until [`Ring::enter`](super::Ring::enter) has taken the entry, otherwise the operation reports
//! `EBADF`, or acts on whatever has that number by then.
//!
//! The entries are ours rather than rustix's because rustix has the opcode as a Rust enum, in which a newer opcode
//! cannot be written, and because loom needs plain values.

use std::ffi::c_void;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use rustix::io::Errno;

/// Operations.
pub mod op {
    // name                              number     since
    /// Nothing, completed at once.
    pub const NOP: u8 = 0; //            5.1
    /// `fsync`, `fdatasync`.
    pub const FSYNC: u8 = 3; //          5.1
    /// Readiness; multishot since 5.13.
    pub const POLL_ADD: u8 = 6; //       5.1
    /// Ends a `POLL_ADD`.
    pub const POLL_REMOVE: u8 = 7; //    5.1
    /// Accepts; multishot since 5.19.
    pub const ACCEPT: u8 = 13; //        5.5
    /// Cancels operations; by descriptor, any or all since 5.19.
    pub const ASYNC_CANCEL: u8 = 14; //  5.5
    /// Connects.
    pub const CONNECT: u8 = 16; //       5.5
    /// Closes.
    pub const CLOSE: u8 = 19; //         5.6
    /// `pread`.
    pub const READ: u8 = 22; //          5.6
    /// `pwrite`.
    pub const WRITE: u8 = 23; //         5.6
    /// Sends.
    pub const SEND: u8 = 26; //          5.6
    /// Receives; multishot since 6.0.
    pub const RECV: u8 = 27; //          5.6
    /// Not used: its presence tells that multishot accept is there too, which came with it and has no probe of its own.
    pub const SOCKET: u8 = 45; //        5.19
    /// Not used: its presence tells that multishot receive is there too, likewise.
    pub const SEND_ZC: u8 = 47; //       6.0
    /// Not used: its presence tells that no worker of the kernel does multishot operations any more (6.9).
    pub const BIND: u8 = 56; //          6.11
}

/// Flags, by the field they go into.
pub mod flag {
    // Sqe::flags                                        since
    /// The kernel picks the buffer from a group.
    pub const SQE_BUFFER_SELECT: u8 = 1 << 5; //         5.7
    /// No completion if the operation succeeds.
    pub const SQE_CQE_SKIP_SUCCESS: u8 = 1 << 6; //      5.17

    // Sqe::ioprio of ACCEPT
    /// A completion per connection.
    pub const ACCEPT_MULTISHOT: u16 = 1 << 0; //         5.19

    // Sqe::ioprio of SEND and RECV
    /// Do not try first, wait for readiness: saves the vain attempt if the socket is known to be drained.
    pub const RECVSEND_POLL_FIRST: u16 = 1 << 0; //      5.19
    /// A completion per piece received.
    pub const RECV_MULTISHOT: u16 = 1 << 1; //           6.0

    // Sqe::len of POLL_ADD
    /// A completion per event.
    pub const POLL_ADD_MULTI: u32 = 1 << 0; //           5.13

    // Sqe::op_flags of ASYNC_CANCEL, and SYNC_CANCEL
    /// All that match, not only the first.
    pub const ASYNC_CANCEL_ALL: u32 = 1 << 0; //         5.19
    /// Match the descriptor, not the key.
    pub const ASYNC_CANCEL_FD: u32 = 1 << 1; //          5.19
    /// Match everything.
    pub const ASYNC_CANCEL_ANY: u32 = 1 << 2; //         5.19

    // Sqe::op_flags of FSYNC
    /// As `fdatasync`.
    pub const FSYNC_DATASYNC: u32 = 1 << 0; //           5.1

    // Cqe::flags
    /// The upper half of the flags is a buffer's number.
    pub const CQE_BUFFER: u32 = 1 << 0; //               5.7
    /// More completions for this key will come.
    pub const CQE_MORE: u32 = 1 << 1; //                 5.13
    /// There was more to read when this completed.
    pub const CQE_SOCK_NONEMPTY: u32 = 1 << 2; //        5.19
    /// The memory of a zero-copy send is free.
    pub const CQE_NOTIF: u32 = 1 << 3; //                6.0
    /// Where the buffer's number starts.
    pub const CQE_BUFFER_SHIFT: u32 = 16; //             5.7

    // the submission queue's flag word
    /// Completions wait in the kernel because the queue was full; entering fetches them.
    pub const SQ_CQ_OVERFLOW: u32 = 1 << 1; //           5.8
    /// Deferred work waits; entering does it.
    pub const SQ_TASKRUN: u32 = 1 << 2; //               5.19

    // io_uring_enter
    /// Do not account the wait as waiting for a disk; rustix has no name for it.
    pub const ENTER_NO_IOWAIT: u32 = 1 << 7; //          6.15
    // io_uring_params::features
    /// `ENTER_NO_IOWAIT` is understood; rustix has no name for it.
    pub const FEAT_NO_IOWAIT: u32 = 1 << 17; //          6.15

    // Sqe::op_flags of ACCEPT and of SEND: the socket layer's own
    /// `SOCK_CLOEXEC | SOCK_NONBLOCK`, for accepted sockets.
    pub const SOCK_CLOEXEC_NONBLOCK: u32 =
        rustix::net::SocketFlags::CLOEXEC.bits() | rustix::net::SocketFlags::NONBLOCK.bits();
    /// `MSG_NOSIGNAL`: a closed peer is an error, not a `SIGPIPE`.
    pub const MSG_NOSIGNAL: u32 = rustix::net::SendFlags::NOSIGNAL.bits();
}

/// A submission entry, as the kernel reads it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sqe {
    opcode: u8,
    flags: u8,
    ioprio: u16,
    fd: RawFd,
    off: u64,
    addr: u64,
    len: u32,
    op_flags: u32,
    user_data: u64,
    buf_group: u16,
    personality: u16,
    file_index: u32,
    addr3: u64,
    pad: u64,
}

/// A completion entry, as the kernel writes it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cqe {
    user_data: u64,
    res: i32,
    flags: u32,
}

const _: () = assert!(size_of::<Sqe>() == 64 && align_of::<Sqe>() == 8);
const _: () = assert!(size_of::<Cqe>() == 16 && align_of::<Cqe>() == 8);
const _: () = assert!(std::mem::offset_of!(Sqe, user_data) == 32 && std::mem::offset_of!(Sqe, buf_group) == 40);

/// The file's own position, for [`Sqe::read`] and [`Sqe::write`]; also what a pipe or a socket needs.
pub const CURRENT_POSITION: u64 = u64::MAX;

impl Sqe {
    const fn new(opcode: u8, fd: RawFd, key: u64) -> Self {
        Self {
            opcode,
            flags: 0,
            ioprio: 0,
            fd,
            off: 0,
            addr: 0,
            len: 0,
            op_flags: 0,
            user_data: key,
            buf_group: 0,
            personality: 0,
            file_index: 0,
            addr3: 0,
            pad: 0,
        }
    }

    fn with_memory(mut self, at: *const c_void, len: u32) -> Self {
        self.addr = at.expose_provenance() as u64;
        self.len = len;
        self
    }

    /// Does nothing and completes with 0.
    pub const fn nop(key: u64) -> Self {
        Self::new(op::NOP, -1, key)
    }

    /// Completes once, when one of `events` (`POLLIN`, ..) is there, with the events that are.
    pub fn poll_add(fd: BorrowedFd<'_>, events: u32, key: u64) -> Self {
        let mut sqe = Self::new(op::POLL_ADD, fd.as_raw_fd(), key);
        // The field is two 16-bit halves in the old order on big-endian machines.
        sqe.op_flags = if cfg!(target_endian = "big") { events.rotate_left(16) } else { events };
        sqe
    }

    /// Completes at every change that brings one of `events` (edge-triggered), until a completion comes without
    /// [`Cqe::more`]: then arm it again.
    pub fn poll_add_multishot(fd: BorrowedFd<'_>, events: u32, key: u64) -> Self {
        let mut sqe = Self::poll_add(fd, events, key);
        sqe.len = flag::POLL_ADD_MULTI;
        sqe
    }

    /// Ends the poll whose key is `target`: 0, or `ENOENT` if there is none. The poll itself completes with
    /// `ECANCELED`.
    pub const fn poll_remove(target: u64, key: u64) -> Self {
        let mut sqe = Self::new(op::POLL_REMOVE, -1, key);
        sqe.addr = target;
        sqe
    }

    /// Cancels one operation whose key is `target`: 0, `ENOENT` if there is none (it may be complete, with its
    /// completion still to be popped), or `EALREADY` if it is running and cannot be stopped. Retire `target` on
    /// *its own* last completion, whatever this says.
    pub const fn cancel(target: u64, key: u64) -> Self {
        let mut sqe = Self::new(op::ASYNC_CANCEL, -1, key);
        sqe.addr = target;
        sqe
    }

    /// Cancels every operation whose key is `target` and completes with their number, since 5.19.
    pub const fn cancel_all_of(target: u64, key: u64) -> Self {
        let mut sqe = Self::cancel(target, key);
        sqe.op_flags = flag::ASYNC_CANCEL_ALL;
        sqe
    }

    /// Cancels every operation on `fd` and completes with their number, since 5.19. A descriptor that is no longer open
    /// is `EBADF`: cancel before closing.
    pub fn cancel_fd(fd: BorrowedFd<'_>, key: u64) -> Self {
        let mut sqe = Self::new(op::ASYNC_CANCEL, fd.as_raw_fd(), key);
        sqe.op_flags = flag::ASYNC_CANCEL_FD | flag::ASYNC_CANCEL_ALL;
        sqe
    }

    /// Cancels everything in flight on this ring and completes with the number, since 5.19.
    pub const fn cancel_any(key: u64) -> Self {
        let mut sqe = Self::new(op::ASYNC_CANCEL, -1, key);
        sqe.op_flags = flag::ASYNC_CANCEL_ANY | flag::ASYNC_CANCEL_ALL;
        sqe
    }

    /// Accepts one connection; completes with its descriptor, which is close-on-exec and non-blocking. **The completion
    /// owns a descriptor**: whoever pops it must close or keep it, also if nobody waits any more. The peer's
    /// address is not asked for: see [`with_peer`](Self::with_peer), or ask with `getpeername`.
    pub fn accept(listener: BorrowedFd<'_>, key: u64) -> Self {
        let mut sqe = Self::new(op::ACCEPT, listener.as_raw_fd(), key);
        sqe.op_flags = flag::SOCK_CLOEXEC_NONBLOCK;
        sqe
    }

    /// Accepts until a completion comes without [`Cqe::more`]; otherwise as [`accept`](Self::accept). Since 5.19, see
    /// [`Ring::multishot_accept`](super::Ring::multishot_accept).
    pub fn accept_multishot(listener: BorrowedFd<'_>, key: u64) -> Self {
        let mut sqe = Self::accept(listener, key);
        sqe.ioprio = flag::ACCEPT_MULTISHOT;
        sqe
    }

    /// The same with the peer's address written to `address`, and its length to `length`, which says how much room there is.
    ///
    /// # Safety
    ///
    /// Both must be valid for writes, `address` of `length` bytes, and nothing else may touch them while the kernel may write, until the last
    /// completion was popped (HONEST-ENTRY).
    pub unsafe fn with_peer(mut self, address: *mut c_void, length: *mut u32) -> Self {
        self.addr = address.expose_provenance() as u64;
        self.off = length.expose_provenance() as u64; // this operation has its second address here
        self
    }

    /// Receives up to `len` bytes into `at`.
    ///
    /// # Safety
    ///
    /// `at` must be valid for writes of `len` bytes, and nothing else may touch them, until this operation's completion
    /// was popped (HONEST-ENTRY). That a cancel was sent, or the ring closed, ends nothing.
    pub unsafe fn recv(fd: BorrowedFd<'_>, at: *mut u8, len: u32, key: u64) -> Self {
        Self::new(op::RECV, fd.as_raw_fd(), key).with_memory(at.cast(), len)
    }

    /// Receives into buffers which the kernel picks from `group`, until a completion comes without [`Cqe::more`]: end
    /// of stream (0), an error, `ENOBUFS` when the group is empty, or for no reason at all. Since 6.0, see
    /// [`Ring::multishot_recv`](super::Ring::multishot_recv).
    ///
    /// Each completion with a [`Cqe::buffer`] must be claimed and recycled, also if it is an error or nobody waits any
    /// more.
    ///
    /// # Safety
    ///
    /// The [`BufRing`](super::BufRing) that is registered as `group` when this is submitted must not be dropped before
    /// the last completion was popped (HONEST-ENTRY); it may be leaked.
    pub unsafe fn recv_multishot(fd: BorrowedFd<'_>, group: u16, key: u64) -> Self {
        let mut sqe = Self::new(op::RECV, fd.as_raw_fd(), key);
        sqe.flags = flag::SQE_BUFFER_SELECT;
        sqe.ioprio = flag::RECV_MULTISHOT;
        sqe.buf_group = group;
        sqe
    }

    /// Sends up to `len` bytes from `at`; a closed peer is `EPIPE`, without a signal.
    ///
    /// # Safety
    ///
    /// `at` must be valid for reads of `len` bytes, and nobody may write to them, until this operation's completion was
    /// popped (HONEST-ENTRY).
    pub unsafe fn send(fd: BorrowedFd<'_>, at: *const u8, len: u32, key: u64) -> Self {
        let mut sqe = Self::new(op::SEND, fd.as_raw_fd(), key).with_memory(at.cast(), len);
        sqe.op_flags = flag::MSG_NOSIGNAL;
        sqe
    }

    /// Connects to the socket address of `len` bytes at `address`.
    ///
    /// # Safety
    ///
    /// `address` must be valid for reads of `len` bytes, and nobody may write to them, until this operation's
    /// completion was popped (HONEST-ENTRY).
    pub unsafe fn connect(fd: BorrowedFd<'_>, address: *const c_void, len: u32, key: u64) -> Self {
        let mut sqe = Self::new(op::CONNECT, fd.as_raw_fd(), key).with_memory(address, 0);
        sqe.off = u64::from(len); // this operation has its length here
        sqe
    }

    /// Reads up to `len` bytes at `position`, or at [`CURRENT_POSITION`], into `at`.
    ///
    /// # Safety
    ///
    /// `at` must be valid for writes of `len` bytes, and nothing else may touch them, until this operation's completion
    /// was popped (HONEST-ENTRY).
    pub unsafe fn read(fd: BorrowedFd<'_>, at: *mut u8, len: u32, position: u64, key: u64) -> Self {
        let mut sqe = Self::new(op::READ, fd.as_raw_fd(), key).with_memory(at.cast(), len);
        sqe.off = position;
        sqe
    }

    /// Writes up to `len` bytes from `at`, at `position` or at [`CURRENT_POSITION`].
    ///
    /// # Safety
    ///
    /// `at` must be valid for reads of `len` bytes, and nobody may write to them, until this operation's completion was
    /// popped (HONEST-ENTRY).
    pub unsafe fn write(fd: BorrowedFd<'_>, at: *const u8, len: u32, position: u64, key: u64) -> Self {
        let mut sqe = Self::new(op::WRITE, fd.as_raw_fd(), key).with_memory(at.cast(), len);
        sqe.off = position;
        sqe
    }

    /// Writes what the file has in memory to its disk; without what is not needed to read it again, if `data_only`.
    pub fn fsync(fd: BorrowedFd<'_>, data_only: bool, key: u64) -> Self {
        let mut sqe = Self::new(op::FSYNC, fd.as_raw_fd(), key);
        sqe.op_flags = if data_only { flag::FSYNC_DATASYNC } else { 0 };
        sqe
    }

    /// Closes `fd`. Operations in flight on it keep the open file, and the connection, alive: cancel them first.
    ///
    /// # Safety
    ///
    /// The caller must own `fd` and give it up (`IntoRawFd`), except that it gets it back if the entry is never
    /// submitted.
    pub const unsafe fn close(fd: RawFd, key: u64) -> Self {
        Self::new(op::CLOSE, fd, key)
    }

    /// No completion if the operation succeeds ([`Ring::skips_success`](super::Ring::skips_success) says whether the
    /// kernel can); failures still complete. Meant for cancels.
    pub const fn skip_success(mut self) -> Self {
        self.flags |= flag::SQE_CQE_SKIP_SUCCESS;
        self
    }

    /// For sends and receives: wait for readiness first. Good when the socket is known to be drained or full. Since
    /// 5.19.
    pub fn poll_first(mut self) -> Self {
        debug_assert!(matches!(self.opcode, op::SEND | op::RECV), "the bit means something else elsewhere");
        self.ioprio |= flag::RECVSEND_POLL_FIRST;
        self
    }

    /// The operation.
    pub const fn opcode(&self) -> u8 {
        self.opcode
    }

    /// What the completions of this entry will carry.
    pub const fn key(&self) -> u64 {
        self.user_data
    }
}

impl Cqe {
    /// A completion as the kernel would write it; only fakes of the kernel need this.
    pub const fn new(key: u64, res: i32, flags: u32) -> Self {
        Self { user_data: key, res, flags }
    }

    /// The key of the entry that this completes.
    pub const fn key(&self) -> u64 {
        self.user_data
    }

    /// The kernel's own number: a count, a descriptor, a mask of events, or a negative error.
    pub const fn res(&self) -> i32 {
        self.res
    }

    /// The result.
    ///
    /// # Errors
    ///
    /// What the operation failed with.
    pub fn result(&self) -> Result<u32, Errno> {
        u32::try_from(self.res).map_err(|_| Errno::from_raw_os_error(self.res.wrapping_neg()))
    }

    /// Whether more completions for this key will come.
    pub const fn more(&self) -> bool {
        self.flags & flag::CQE_MORE != 0
    }

    /// The buffer that the kernel picked and hands over with this completion.
    pub const fn buffer(&self) -> Option<u16> {
        if self.flags & flag::CQE_BUFFER != 0 { Some((self.flags >> flag::CQE_BUFFER_SHIFT) as u16) } else { None }
    }

    /// Whether there was more to receive when this completed. `false` is only known to mean "drained" after a receive.
    pub const fn sock_nonempty(&self) -> bool {
        self.flags & flag::CQE_SOCK_NONEMPTY != 0
    }

    /// Whether this only says that the memory of a zero-copy send is free.
    pub const fn is_notification(&self) -> bool {
        self.flags & flag::CQE_NOTIF != 0
    }
}

/// `struct __kernel_timespec`: 64 bits on every architecture.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct KernelTimespec {
    pub sec: i64,
    pub nsec: i64,
}

impl From<Duration> for KernelTimespec {
    fn from(duration: Duration) -> Self {
        Self { sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX), nsec: duration.subsec_nanos().into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io_uring as theirs;
    use std::os::fd::AsFd;

    #[test]
    fn our_numbers_are_the_kernels() {
        use theirs::IoringOp as Op;
        let ops = [
            (op::NOP, Op::Nop),
            (op::FSYNC, Op::Fsync),
            (op::POLL_ADD, Op::PollAdd),
            (op::POLL_REMOVE, Op::PollRemove),
            (op::ACCEPT, Op::Accept),
            (op::ASYNC_CANCEL, Op::AsyncCancel),
            (op::CONNECT, Op::Connect),
            (op::CLOSE, Op::Close),
            (op::READ, Op::Read),
            (op::WRITE, Op::Write),
            (op::SEND, Op::Send),
            (op::RECV, Op::Recv),
            (op::SOCKET, Op::Socket),
            (op::SEND_ZC, Op::SendZc),
        ];
        for (ours, kernels) in ops {
            assert_eq!(ours, kernels as u8, "{kernels:?}");
        }
        assert_eq!(flag::SQE_BUFFER_SELECT, theirs::IoringSqeFlags::BUFFER_SELECT.bits());
        assert_eq!(flag::SQE_CQE_SKIP_SUCCESS, theirs::IoringSqeFlags::CQE_SKIP_SUCCESS.bits());
        assert_eq!(flag::ACCEPT_MULTISHOT, theirs::IoringAcceptFlags::MULTISHOT.bits());
        assert_eq!(flag::RECVSEND_POLL_FIRST, theirs::IoringRecvFlags::POLL_FIRST.bits());
        assert_eq!(flag::RECV_MULTISHOT, theirs::IoringRecvFlags::MULTISHOT.bits());
        assert_eq!(flag::POLL_ADD_MULTI, theirs::IoringPollFlags::ADD_MULTI.bits());
        assert_eq!(flag::FSYNC_DATASYNC, theirs::IoringFsyncFlags::DATASYNC.bits());
        assert_eq!(flag::ASYNC_CANCEL_ALL, theirs::IoringAsyncCancelFlags::ALL.bits());
        assert_eq!(flag::ASYNC_CANCEL_FD, theirs::IoringAsyncCancelFlags::FD.bits());
        assert_eq!(flag::ASYNC_CANCEL_ANY, theirs::IoringAsyncCancelFlags::ANY.bits());
        assert_eq!(flag::CQE_BUFFER, theirs::IoringCqeFlags::BUFFER.bits());
        assert_eq!(flag::CQE_MORE, theirs::IoringCqeFlags::MORE.bits());
        assert_eq!(flag::CQE_SOCK_NONEMPTY, theirs::IoringCqeFlags::SOCK_NONEMPTY.bits());
        assert_eq!(flag::CQE_NOTIF, theirs::IoringCqeFlags::NOTIF.bits());
        assert_eq!(flag::CQE_BUFFER_SHIFT, theirs::IORING_CQE_BUFFER_SHIFT);
        assert_eq!(flag::SQ_CQ_OVERFLOW, theirs::IoringSqFlags::CQ_OVERFLOW.bits());
        assert_eq!(flag::SQ_TASKRUN, theirs::IoringSqFlags::TASKRUN.bits());
    }

    #[test]
    fn our_entry_is_laid_out_as_the_kernels() {
        use std::mem::offset_of;
        type Theirs = theirs::io_uring_sqe;
        assert_eq!(size_of::<Theirs>(), size_of::<Sqe>());
        assert_eq!(offset_of!(Theirs, fd), offset_of!(Sqe, fd));
        assert_eq!(offset_of!(Theirs, off_or_addr2), offset_of!(Sqe, off));
        assert_eq!(offset_of!(Theirs, addr_or_splice_off_in), offset_of!(Sqe, addr));
        assert_eq!(offset_of!(Theirs, len), offset_of!(Sqe, len));
        assert_eq!(offset_of!(Theirs, op_flags), offset_of!(Sqe, op_flags));
        assert_eq!(offset_of!(Theirs, user_data), offset_of!(Sqe, user_data));
        assert_eq!(offset_of!(Theirs, buf), offset_of!(Sqe, buf_group));
        assert_eq!(offset_of!(Theirs, personality), offset_of!(Sqe, personality));
    }

    #[test]
    fn a_completion_reads_as_the_kernel_wrote_it() {
        let fails = Cqe::new(7, -105, flag::CQE_MORE);
        assert_eq!((fails.key(), fails.result(), fails.more(), fails.buffer()), (7, Err(Errno::NOBUFS), true, None));
        let picked = Cqe::new(8, 3, flag::CQE_BUFFER | 0xfffe << flag::CQE_BUFFER_SHIFT);
        assert_eq!((picked.result(), picked.more(), picked.buffer()), (Ok(3), false, Some(0xfffe)));
    }

    #[test]
    fn accepted_sockets_are_close_on_exec() {
        let any = std::io::stdin();
        assert_eq!(Sqe::accept(any.as_fd(), 0).op_flags & 0o2000000, 0o2000000);
    }
}
