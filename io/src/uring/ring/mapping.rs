//! Memory that is shared with the kernel.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};

use rustix::io::Errno;
use rustix::mm::{self, Advice, MapFlags, ProtFlags};

/// Memory from `mmap`, which no child process inherits, given back when dropped.
#[derive(Debug)]
pub(in crate::uring) struct Mapping {
    start: NonNull<c_void>,
    /// 0 if it was leaked.
    len: usize,
    /// Like a `*mut`: stays on its thread.
    thread: PhantomData<*mut c_void>,
}

impl Mapping {
    /// A part of a ring.
    pub(super) fn of_ring(fd: BorrowedFd<'_>, len: usize, offset: u64) -> Result<Self, Errno> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let start =
            unsafe { mm::mmap(ptr::null_mut(), len, protection, MapFlags::SHARED | MapFlags::POPULATE, fd, offset) }?;
        Self::new(start, len)
    }

    /// Zeroed memory of our own.
    pub(in crate::uring) fn zeroed(len: usize) -> Result<Self, Errno> {
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
    pub(in crate::uring) fn at<T>(&self, offset: u32) -> NonNull<T> {
        let offset = offset as usize;
        assert!(offset + size_of::<T>() <= self.len && offset.is_multiple_of(align_of::<T>()));
        // SAFETY: just checked to be inside the mapping.
        unsafe { self.start.byte_add(offset) }.cast()
    }

    /// Never give it back.
    pub(in crate::uring) fn forget(&mut self) {
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
