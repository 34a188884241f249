//! [`BufRing`]: equal buffers that the kernel picks from when data arrives, so that an idle connection holds none.
//!
//! One worker owns it, next to its ring, on the same thread (THREAD). It is one mapping: the queue of offers that is
//! shared with the kernel, then the buffers.
//!
//! ```text
//!              offer + publish                  a receive picks it              its completion is popped
//!   ours ----------------------> offered -------------------------> being filled -----------------------> Lent
//!    ^                                                                                 claim(id, len)       |
//!    +----------------------------------- recycle(Lent) ---------------------------------------------------+
//! ```
//!
//! **ONE-HOLDER**: a buffer is with the kernel, or it is one [`Lent`]. That token can be neither copied nor made
//! without [`BufRing::claim`], whose caller promises that the kernel has just handed the buffer over; so reading and
//! recycling are safe. A `Lent` that is lost takes its buffer with it and harms nobody else.
//!
//! Few and hot beats many: buffers that stay in the cache are worth more than a queue that is never empty, and the
//! empty queue is no failure: a receive ends with `ENOBUFS`, and is armed again once something came back.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use rustix::io::Errno;
use rustix::io_uring::{IoringRegisterOp, io_uring_buf_reg, io_uring_ptr};

use super::queue::{Cells, Mapped, Offer, Offers};
use super::ring::{Mapping, Ring, failed, register, unsupported};

/// The most buffers of one group that the kernel allows.
pub const MOST_BUFFERS: u16 = 1 << 15;

/// A group of buffers, registered with a ring. Since 5.19.
///
/// Dropping it unregisters the group and unmaps the buffers: not before the last completion of every receive that names
/// the group (the promise of [`Sqe::recv_multishot`](super::Sqe::recv_multishot)), otherwise [`leak`](Self::leak) it.
/// It may outlive its [`Ring`], which then stays open until this is dropped.
#[derive(Debug)]
pub struct BufRing {
    offers: Offers<Mapped<AtomicU16>, OfferCells>,
    /// The first buffer; the others follow.
    first: NonNull<u8>,
    size: u32,
    count: u16,
    group: u16,
    lent: u16,
    /// Tells this from every other one there was, so that a token which outlives its group fits no later one.
    serial: u64,
    /// The queue and the buffers.
    memory: Mapping,
    fd: Rc<OwnedFd>,
}

/// A buffer that the kernel has filled and that nobody else touches until it is [recycled](BufRing::recycle).
#[must_use = "a buffer that is not recycled is lost to its group"]
#[derive(Debug)]
pub struct Lent {
    /// [`BufRing::serial`].
    of: u64,
    len: u32,
    id: u16,
}

impl Lent {
    /// How many bytes the kernel has put there.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether it has put none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl BufRing {
    /// Maps `count` (a power of two) buffers of `size` bytes, and registers them with `ring` as `group`, all offered.
    ///
    /// # Errors
    ///
    /// `Unsupported` if the kernel cannot do this (before 5.19): poll, and receive then. `AlreadyExists` if `ring` has
    /// such a group. `InvalidInput` for a count which is no power of two up to [`MOST_BUFFERS`], or a size of zero.
    pub fn new(ring: &Ring, group: u16, count: u16, size: u32) -> io::Result<Self> {
        let what = || format!("registering {count} buffers of {size} bytes as group {group}");
        if !count.is_power_of_two() || count > MOST_BUFFERS || size == 0 {
            let advice = "the count must be a power of two up to 32768 and the size not zero";
            return Err(failed(what(), advice, Errno::INVAL));
        }
        let page = rustix::param::page_size();
        let queue_len = (usize::from(count) * Entry::SIZE).next_multiple_of(page);
        let memory = usize::from(count)
            .checked_mul(size as usize)
            .and_then(|buffers| buffers.checked_add(queue_len))
            .ok_or(Errno::NOMEM)
            .and_then(Mapping::zeroed)
            .map_err(|errno| failed(what(), "not enough memory: use fewer or smaller buffers", errno))?;
        let entries: NonNull<Entry> = memory.at(0);
        // The queue is at most half a megabyte.
        let first: NonNull<u8> = memory.at(queue_len as u32);
        // SAFETY: MAPPED, with `count` entries; the tail is the reserved field of the first, which `OfferCells` never
        // touches. A new queue, so this is the only producer.
        let offers = unsafe {
            let tail = entries.byte_add(Entry::TAIL).cast::<AtomicU16>();
            Offers::new(Mapped::new(tail), OfferCells(entries), count)
        };

        let mut arg = io_uring_buf_reg::default();
        arg.ring_addr = io_uring_ptr::new(entries.as_ptr().cast());
        arg.ring_entries = count.into();
        arg.bgid = group;
        let fd = ring.shared_fd();
        // SAFETY: `arg` is what this operation reads; the queue it names is MAPPED, page-aligned, and unregistered
        // before it is unmapped.
        match unsafe { register(fd.as_fd(), IoringRegisterOp::RegisterPbufRing, &raw const arg, 1) } {
            Ok(_) => {}
            Err(errno @ Errno::INVAL) => {
                return Err(unsupported(
                    what(),
                    "the kernel has no buffer rings (before 5.19): poll and receive instead",
                    errno,
                ));
            }
            Err(errno @ Errno::EXIST) => return Err(failed(what(), "the ring has a group of this number", errno)),
            Err(errno) => return Err(failed(what(), "poll and receive instead", errno)),
        }
        let mut this = Self { offers, first, size, count, group, lent: 0, serial: next_serial(), memory, fd };
        for id in 0..count {
            let buffer = Offer { at: this.start_of(id).as_ptr().expose_provenance() as u64, len: size, id };
            // SAFETY: ONE-HOLDER: ours until now, each once, and `count` of them.
            unsafe { this.offers.offer(buffer) };
        }
        this.offers.publish();
        Ok(this)
    }

    /// The number to give to [`Sqe::recv_multishot`](super::Sqe::recv_multishot).
    pub fn group(&self) -> u16 {
        self.group
    }

    /// How many buffers there are.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// The bytes of each.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// How many were claimed and not recycled; with all of them, receives end with `ENOBUFS`.
    pub fn lent(&self) -> u16 {
        self.lent
    }

    /// Takes over the buffer that a completion carries: `id` from [`Cqe::buffer`](super::Cqe::buffer), `len` from its
    /// result, or 0 if that is an error. **Every** completion that carries a buffer must come here, wanted or not,
    /// or its buffer is lost to the group.
    ///
    /// # Safety
    ///
    /// A completion of a receive from this group carried this buffer, was popped from this ring, and was not used for
    /// this before (ONE-HOLDER).
    ///
    /// # Panics
    ///
    /// If there is no such buffer, or it is shorter.
    #[inline]
    pub unsafe fn claim(&mut self, id: u16, len: u32) -> Lent {
        assert!(id < self.count && len <= self.size, "the kernel names a buffer that is not there");
        self.lent += 1;
        Lent { of: self.serial, len, id }
    }

    /// What was received.
    ///
    /// # Panics
    ///
    /// If `lent` is from another group.
    #[inline]
    pub fn bytes<'a>(&'a self, lent: &'a Lent) -> &'a [u8] {
        self.check(lent);
        // SAFETY: MAPPED, as long as `self` is borrowed; `claim` checked the length. ONE-HOLDER: this is the only
        // `Lent` for these bytes, so nobody writes to them while it is borrowed. They are initialised: the
        // mapping started with zeros.
        unsafe { std::slice::from_raw_parts(self.start_of(lent.id).as_ptr(), lent.len as usize) }
    }

    /// Gives a buffer back, to be shown to the kernel by the next [`publish`](Self::publish).
    ///
    /// # Panics
    ///
    /// If `lent` is from another group.
    #[inline]
    pub fn recycle(&mut self, lent: Lent) {
        self.check(&lent);
        let buffer =
            Offer { at: self.start_of(lent.id).as_ptr().expose_provenance() as u64, len: self.size, id: lent.id };
        // SAFETY: ONE-HOLDER: `lent` was the only token for the buffer and is gone now. There are `count` buffers, and
        // the completion that this one came with was popped.
        unsafe { self.offers.offer(buffer) };
        self.lent -= 1;
    }

    /// Shows the kernel what was recycled: once per batch, and before the entry that arms a receive again is submitted.
    #[inline]
    pub fn publish(&mut self) {
        self.offers.publish();
    }

    /// Unregisters the group but never unmaps it: for a teardown that could not drain.
    pub fn leak(mut self) {
        self.memory.forget();
    }

    fn start_of(&self, id: u16) -> NonNull<u8> {
        debug_assert!(id < self.count);
        // SAFETY: MAPPED: `count` buffers of `size` bytes from `first` on.
        unsafe { self.first.add(usize::from(id) * self.size as usize) }
    }

    #[inline]
    fn check(&self, lent: &Lent) {
        assert!(lent.of == self.serial, "a buffer of another group");
    }
}

impl Drop for BufRing {
    fn drop(&mut self) {
        let mut arg = io_uring_buf_reg::default();
        arg.bgid = self.group;
        // SAFETY: `arg` is what this operation reads. What is still in flight from this group is the promise of
        // `Sqe::recv_multishot`.
        let done = unsafe { register(self.fd.as_fd(), IoringRegisterOp::UnregisterPbufRing, &raw const arg, 1) };
        debug_assert!(done.is_ok(), "unregistering a buffer group: {done:?}");
    }
}

fn next_serial() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// `struct io_uring_buf`. In the first one of a queue, `tail` is the queue's tail; in the others it is reserved.
#[repr(C)]
struct Entry {
    at: u64,
    len: u32,
    id: u16,
    tail: u16,
}

impl Entry {
    const SIZE: usize = size_of::<Self>();
    const TAIL: usize = std::mem::offset_of!(Self, tail);
}

const _: () = assert!(Entry::SIZE == 16 && Entry::TAIL == 14);

/// The entries of the queue: written field by field, as the first one contains the tail.
#[derive(Debug)]
struct OfferCells(NonNull<Entry>);

impl Cells<Offer> for OfferCells {
    #[inline]
    unsafe fn write(&self, index: u32, value: Offer) {
        // SAFETY: the caller keeps `index` inside the queue, which is MAPPED, and the cell is on our side.
        unsafe {
            let entry = self.0.add(index as usize).as_ptr();
            (&raw mut (*entry).at).write(value.at);
            (&raw mut (*entry).len).write(value.len);
            (&raw mut (*entry).id).write(value.id);
        }
    }

    #[inline]
    unsafe fn read(&self, index: u32) -> Offer {
        // SAFETY: as in `write`, and filled, by the caller's promise.
        unsafe {
            let entry = self.0.add(index as usize).as_ptr();
            Offer {
                at: (&raw const (*entry).at).read(),
                len: (&raw const (*entry).len).read(),
                id: (&raw const (*entry).id).read(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ring::Setup;
    use super::super::ring::tests::{collect, pair, ring, say};
    use super::super::sys::{Cqe, Sqe};
    use super::*;

    fn with_buffers(count: u16, size: u32) -> Option<(Ring, BufRing)> {
        let ring = ring(Setup::new(8))?;
        match BufRing::new(&ring, 3, count, size) {
            Ok(buffers) if ring.multishot_recv() => Some((ring, buffers)),
            Ok(_) => {
                println!("skipped: no multishot receive");
                None
            }
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                println!("skipped: {error}");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn arm(ring: &mut Ring, fd: &OwnedFd, key: u64) {
        // SAFETY: each test drains, or leaks, before its buffers are dropped.
        ring.push(unsafe { Sqe::recv_multishot(fd.as_fd(), 3, key) }).unwrap();
        let _ = ring.enter(0, None).unwrap();
    }

    fn claim(buffers: &mut BufRing, cqe: &Cqe) -> Lent {
        // SAFETY: each test claims what it has just popped.
        unsafe { buffers.claim(cqe.buffer().unwrap(), cqe.result().unwrap_or(0)) }
    }

    #[test]
    fn pieces_arrive_run_out_of_buffers_and_go_on_when_some_came_back() {
        let Some((mut ring, mut buffers)) = with_buffers(2, 4) else { return };
        let (a, b) = pair();
        arm(&mut ring, &a, 1);
        say(&b, b"0123456789");
        let cqes = collect(&mut ring, 3);
        let lent: Vec<_> = cqes[..2].iter().map(|cqe| claim(&mut buffers, cqe)).collect();
        assert_eq!((buffers.bytes(&lent[0]), buffers.bytes(&lent[1])), (&b"0123"[..], &b"4567"[..]));
        assert!(cqes[0].more() && cqes[1].more() && !cqes[2].more());
        assert_eq!((cqes[2].result(), cqes[2].buffer(), buffers.lent()), (Err(Errno::NOBUFS), None, 2));

        // Recycled and armed again, the rest comes, with nothing lost.
        for buffer in lent {
            buffers.recycle(buffer);
        }
        buffers.publish();
        arm(&mut ring, &a, 2);
        let rest = claim(&mut buffers, &collect(&mut ring, 1)[0]);
        assert_eq!((buffers.bytes(&rest), rest.len(), rest.is_empty()), (&b"89"[..], 2, false));
        buffers.recycle(rest);
        buffers.publish();

        // And the end of the stream is the end of the receive.
        drop(b);
        let end = collect(&mut ring, 1)[0];
        assert_eq!((end.key(), end.result(), end.more()), (2, Ok(0), false));
        if end.buffer().is_some() {
            let empty = claim(&mut buffers, &end);
            buffers.recycle(empty);
        }
        assert_eq!(buffers.lent(), 0);
    }

    #[test]
    fn the_tail_wraps_around_16_bits() {
        let Some((mut ring, mut buffers)) = with_buffers(4, 8) else { return };
        let (a, b) = pair();
        arm(&mut ring, &a, 1);
        for round in 0..70_000_u64 {
            say(&b, &round.to_ne_bytes());
            let cqe = collect(&mut ring, 1)[0];
            let lent = claim(&mut buffers, &cqe);
            assert_eq!(buffers.bytes(&lent), round.to_ne_bytes());
            buffers.recycle(lent);
            buffers.publish();
            if !cqe.more() {
                arm(&mut ring, &a, 1); // for whatever reason
            }
        }
        ring.cancel_all().unwrap();
        collect(&mut ring, 1);
    }

    #[test]
    fn a_cancelled_receive_leaves_all_buffers_with_the_group() {
        let Some((mut ring, mut buffers)) = with_buffers(2, 4) else { return };
        let (a, b) = pair();
        arm(&mut ring, &a, 1);
        say(&b, b"xy");
        let first = claim(&mut buffers, &collect(&mut ring, 1)[0]);
        ring.push(Sqe::cancel(1, 2)).unwrap();
        let cqes = collect(&mut ring, 2);
        let end = cqes.iter().find(|cqe| cqe.key() == 1).unwrap();
        // ENOBUFS up to 6.4.
        assert!(matches!(end.result(), Err(Errno::CANCELED | Errno::NOBUFS)) && !end.more());
        assert_eq!(end.buffer(), None);
        buffers.recycle(first);
        buffers.publish();
        // Both buffers are there: of nine bytes eight come, in two pieces, before any is recycled.
        say(&b, b"abcdefghi");
        arm(&mut ring, &a, 3);
        let cqes = collect(&mut ring, 3);
        let lent: Vec<_> = cqes[..2].iter().map(|cqe| claim(&mut buffers, cqe)).collect();
        assert_eq!([buffers.bytes(&lent[0]), buffers.bytes(&lent[1])].concat(), b"abcdefgh");
        assert_eq!((cqes[2].result(), buffers.lent()), (Err(Errno::NOBUFS), 2));
    }

    #[test]
    fn groups_register_once_and_again_after_a_drop() {
        let Some((ring, buffers)) = with_buffers(1, 1) else { return };
        let again = BufRing::new(&ring, 3, 4, 16).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists, "{again}");
        let other = BufRing::new(&ring, 4, 64, 4096).unwrap();
        assert_eq!((other.group(), other.count(), other.size(), other.lent()), (4, 64, 4096, 0));
        drop(buffers);
        drop(BufRing::new(&ring, 3, 4, 16).unwrap());
        assert_eq!(BufRing::new(&ring, 5, 3, 16).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(BufRing::new(&ring, 5, 4, 0).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        drop(BufRing::new(&ring, 5, MOST_BUFFERS, 1).unwrap());
        // Either may go first.
        drop(ring);
        drop(other);
    }

    #[test]
    #[should_panic = "another group"]
    fn a_buffer_of_another_group_is_refused() {
        let Some((ring, mut buffers)) = with_buffers(2, 4) else { panic!("another group: skipped") };
        let mut other = BufRing::new(&ring, 4, 2, 4).unwrap();
        // SAFETY: nothing is in flight, so nobody writes to it.
        let lent = unsafe { other.claim(0, 0) };
        buffers.recycle(lent);
    }

    #[test]
    fn a_leaked_group_can_be_leaked_with_a_receive_in_flight() {
        let Some((mut ring, buffers)) = with_buffers(2, 4) else { return };
        let (a, b) = pair();
        arm(&mut ring, &a, 1);
        buffers.leak();
        ring.leak();
        // The kernel is free to write now, and nothing of it lands in memory of others.
        say(&b, b"late");
    }
}
