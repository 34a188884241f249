//! Publication: who may touch which cell, and the two words through which each side tells the other.
//!
//! Three queues, one producer and one consumer each. We are the producer of [`Submissions`] and of [`Offers`] (provided
//! buffers) and the consumer of [`Completions`]; the kernel is the other side. Our side is one thread (THREAD).
//!
//! The rules, for all three:
//!
//! * Heads and tails only grow, wrap at their width, and are masked to find a cell. `tail - head` (wrapping) is the
//!   number of cells in use.
//! * The producer writes cells, *then* stores the tail with `Release`. The consumer loads the tail with `Acquire`,
//!   *then* reads the cells below it.
//! * The consumer copies cells out, *then* stores the head with `Release`. The producer loads the head with `Acquire`,
//!   *then* writes the cells that this freed.
//! * A word has one writer, so its owner keeps the true value in a plain field and never reads the shared one back.
//!   Should anybody scribble over the shared word, we still stay inside the cells.
//!
//! A queue is generic over its words and cells: in production they are [`Mapped`] and [`MappedCells`] (shared memory),
//! in `model-checks/tests/ring.rs` they are loom's, with a fake kernel on another loom thread, and the code in between
//! is this.

use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU32};

use trefoil_runtime::sync::Ordering;

use super::sys::{Cqe, Sqe, flag};

/// A word that both sides can see.
pub trait Word<V> {
    /// Loads it.
    fn load(&self, order: Ordering) -> V;
    /// Stores to it.
    fn store(&self, value: V, order: Ordering);
}

/// The entries between two words. They are copied in and out and never borrowed, since the other side's access is not
/// ours to exclude.
pub trait Cells<T: Copy> {
    /// Fills a cell.
    ///
    /// # Safety
    ///
    /// `index` must be below the number of cells and that cell must be on our side (SQ-CELL, CQ-CELL).
    unsafe fn write(&self, index: u32, value: T);

    /// Copies a cell out.
    ///
    /// # Safety
    ///
    /// As for [`write`](Self::write), and the cell must have been filled.
    unsafe fn read(&self, index: u32) -> T;
}

/// The submission queue is full: enter the kernel, which empties it, and push again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the submission queue is full: enter the kernel and push again")
    }
}

impl std::error::Error for Full {}

/// Our side of the submission queue.
#[derive(Debug)]
pub struct Submissions<W, C> {
    head: W,
    tail: W,
    flags: W,
    cells: C,
    mask: u32,
    /// One beyond the last entry pushed; ahead of the shared tail until [`publish`](Self::publish).
    pushed: u32,
    /// What the shared tail says.
    published: u32,
    /// A head that the kernel has stored at some time; the real one may be further.
    known_head: u32,
}

impl<W: Word<u32>, C: Cells<Sqe>> Submissions<W, C> {
    /// A queue of `entries` cells, at whatever place its words say.
    ///
    /// # Safety
    ///
    /// `cells` must have `entries` cells, a power of two. The words and cells must be those of one queue, of which this
    /// becomes the only producer.
    pub unsafe fn new(head: W, tail: W, flags: W, cells: C, entries: u32) -> Self {
        assert!(entries.is_power_of_two());
        let pushed = tail.load(Ordering::Relaxed); // ours: nobody else stores to it
        let known_head = head.load(Ordering::Acquire);
        Self { head, tail, flags, cells, mask: entries - 1, pushed, published: pushed, known_head }
    }

    /// Puts `entry` into the next cell; [`publish`](Self::publish) shows it to the kernel.
    ///
    /// # Errors
    ///
    /// [`Full`] if the kernel has not yet taken the entry which is there.
    #[inline]
    pub fn push(&mut self, entry: Sqe) -> Result<(), Full> {
        if self.pushed.wrapping_sub(self.known_head) > self.mask {
            self.known_head = self.head.load(Ordering::Acquire);
            if self.pushed.wrapping_sub(self.known_head) > self.mask {
                return Err(Full);
            }
        }
        // SAFETY: masked, so below the number of cells that `new` was promised. SQ-CELL: fewer than that many entries
        // are between a head that the kernel stored (seen with Acquire) and `pushed`, so it is done with this
        // cell, and no published tail is beyond it.
        unsafe { self.cells.write(self.pushed & self.mask, entry) };
        self.pushed = self.pushed.wrapping_add(1);
        Ok(())
    }

    /// Shows the kernel all that was pushed; returns how many entries it has not taken yet.
    #[inline]
    pub fn publish(&mut self) -> u32 {
        if self.published != self.pushed {
            self.tail.store(self.pushed, Ordering::Release);
            self.published = self.pushed;
        }
        self.pending()
    }

    /// How many entries the kernel has not taken yet, published or not. `Relaxed`: only a number; `push` looks again
    /// before it relies on it.
    #[inline]
    pub fn pending(&self) -> u32 {
        self.pushed.wrapping_sub(self.head.load(Ordering::Relaxed))
    }

    /// For how many entries there is space.
    #[inline]
    pub fn space(&self) -> u32 {
        self.entries().saturating_sub(self.pending())
    }

    /// The number of cells.
    pub fn entries(&self) -> u32 {
        self.mask + 1
    }

    /// What the kernel says through the queue's flag word. `Relaxed`: a hint to enter; the system call orders what
    /// follows from it.
    #[inline]
    pub fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }

    /// Whether entering the kernel would do something: entries to take, or work and completions it holds back.
    #[inline]
    pub fn needs_enter(&self) -> bool {
        self.pending() != 0 || self.flags() & (flag::SQ_TASKRUN | flag::SQ_CQ_OVERFLOW) != 0
    }
}

/// Our side of the completion queue.
#[derive(Debug)]
pub struct Completions<W, C> {
    head: W,
    tail: W,
    cells: C,
    mask: u32,
    /// What the shared head says: the first completion not popped.
    popped: u32,
    /// A tail that the kernel has stored at some time; the real one may be further.
    known_tail: u32,
}

impl<W: Word<u32>, C: Cells<Cqe>> Completions<W, C> {
    /// A queue of `entries` cells, at whatever place its words say.
    ///
    /// # Safety
    ///
    /// `cells` must have `entries` cells, a power of two. The words and cells must be those of one queue, of which this
    /// becomes the only consumer, and whose producer keeps the rules above.
    pub unsafe fn new(head: W, tail: W, cells: C, entries: u32) -> Self {
        assert!(entries.is_power_of_two());
        let popped = head.load(Ordering::Relaxed); // ours: nobody else stores to it
        Self { head, tail, cells, mask: entries - 1, popped, known_tail: popped }
    }

    /// Takes the oldest completion out and gives its cell back.
    ///
    /// One store of the head for each, not one for a batch: it is a plain `mov` on x86 and nearly so elsewhere, and
    /// whoever stops in the middle of a batch (an early return, a panic in a destructor) has lost nothing.
    #[inline]
    pub fn pop(&mut self) -> Option<Cqe> {
        if self.popped == self.known_tail {
            self.known_tail = self.tail.load(Ordering::Acquire);
            if self.popped == self.known_tail {
                return None;
            }
        }
        // SAFETY: masked, so below the number of cells that `new` was promised. CQ-CELL: below a tail that the kernel
        // stored (seen with Acquire) and not below the head that we stored, so it is filled and the kernel
        // leaves it alone.
        let entry = unsafe { self.cells.read(self.popped & self.mask) };
        self.popped = self.popped.wrapping_add(1);
        self.head.store(self.popped, Ordering::Release);
        Some(entry)
    }

    /// How many completions can be popped now. `Relaxed`, for the same reason.
    #[inline]
    pub fn ready(&self) -> u32 {
        self.tail.load(Ordering::Relaxed).wrapping_sub(self.popped)
    }

    /// The number of cells.
    pub fn entries(&self) -> u32 {
        self.mask + 1
    }
}

/// A buffer for the kernel to receive into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Where it starts.
    pub at: u64,
    /// Its bytes.
    pub len: u32,
    /// Its number, which comes back in [`Cqe::buffer`].
    pub id: u16,
}

/// Our side of a provided-buffer ring. It has no shared head: that the kernel took a buffer is told by the completion
/// that carries it (whose own publication orders our reads), so the owner never offers more buffers than there are
/// cells (ONE-HOLDER).
#[derive(Debug)]
pub struct Offers<W, C> {
    tail: W,
    cells: C,
    mask: u16,
    /// One beyond the last buffer offered; ahead of the shared tail until [`publish`](Self::publish).
    offered: u16,
    /// What the shared tail says.
    published: u16,
}

impl<W: Word<u16>, C: Cells<Offer>> Offers<W, C> {
    /// A queue of `entries` cells with nothing in it, at whatever place its tail says.
    ///
    /// # Safety
    ///
    /// `cells` must have `entries` cells, a power of two. The tail and cells must be those of one queue, of which this
    /// becomes the only producer.
    pub unsafe fn new(tail: W, cells: C, entries: u16) -> Self {
        assert!(entries.is_power_of_two());
        let offered = tail.load(Ordering::Relaxed); // ours: nobody else stores to it
        Self { tail, cells, mask: entries - 1, offered, published: offered }
    }

    /// Puts a buffer into the next cell; [`publish`](Self::publish) shows it to the kernel.
    ///
    /// # Safety
    ///
    /// The caller must be the buffer's holder and thereby gives it up (ONE-HOLDER). No more buffers than `entries` may
    /// exist, so that of as many offers the kernel must have taken the oldest before its buffer could come back;
    /// and it must have been seen to, through its completion.
    #[inline]
    pub unsafe fn offer(&mut self, buffer: Offer) {
        // SAFETY: masked, so below the number of cells that `new` was promised. ONE-HOLDER: at most `entries - 1`
        // buffers are with the kernel, so it has taken the one that was in this cell, which the caller saw.
        unsafe { self.cells.write(u32::from(self.offered & self.mask), buffer) };
        self.offered = self.offered.wrapping_add(1);
    }

    /// Shows the kernel all that was offered.
    #[inline]
    pub fn publish(&mut self) {
        if self.published != self.offered {
            self.tail.store(self.offered, Ordering::Release);
            self.published = self.offered;
        }
    }
}

/// An atomic word in a mapping.
///
/// `std`'s atomics even under loom: what is in shared memory with the kernel cannot be loom's.
#[derive(Debug)]
pub struct Mapped<A>(NonNull<A>);

impl<A> Mapped<A> {
    /// # Safety
    ///
    /// `at` must be aligned, inside a mapping that outlives the result (MAPPED), and touched only atomically as long.
    pub unsafe fn new(at: NonNull<A>) -> Self {
        Self(at)
    }
}

impl Word<u32> for Mapped<AtomicU32> {
    #[inline]
    fn load(&self, order: Ordering) -> u32 {
        // SAFETY: MAPPED, promised to `new`.
        unsafe { self.0.as_ref() }.load(order)
    }

    #[inline]
    fn store(&self, value: u32, order: Ordering) {
        // SAFETY: MAPPED, promised to `new`.
        unsafe { self.0.as_ref() }.store(value, order);
    }
}

impl Word<u16> for Mapped<AtomicU16> {
    #[inline]
    fn load(&self, order: Ordering) -> u16 {
        // SAFETY: MAPPED, promised to `new`.
        unsafe { self.0.as_ref() }.load(order)
    }

    #[inline]
    fn store(&self, value: u16, order: Ordering) {
        // SAFETY: MAPPED, promised to `new`.
        unsafe { self.0.as_ref() }.store(value, order);
    }
}

/// An array of entries in a mapping.
#[derive(Debug)]
pub struct MappedCells<T> {
    first: NonNull<T>,
    entry: PhantomData<*mut T>,
}

impl<T> MappedCells<T> {
    /// # Safety
    ///
    /// `first` must be aligned and the start of the cells of one queue, inside a mapping that outlives the result
    /// (MAPPED).
    pub unsafe fn new(first: NonNull<T>) -> Self {
        Self { first, entry: PhantomData }
    }
}

impl<T: Copy> Cells<T> for MappedCells<T> {
    #[inline]
    unsafe fn write(&self, index: u32, value: T) {
        // SAFETY: the caller keeps `index` inside the queue, which is MAPPED, and the cell is on our side.
        unsafe { self.first.add(index as usize).write(value) };
    }

    #[inline]
    unsafe fn read(&self, index: u32) -> T {
        // SAFETY: as in `write`, and filled, by the caller's promise.
        unsafe { self.first.add(index as usize).read() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words and cells in ordinary memory, with the test as the kernel.
    struct Fake<T> {
        head: AtomicU32,
        tail: AtomicU32,
        flags: AtomicU32,
        cells: Vec<T>,
    }

    impl<T: Copy> Fake<T> {
        fn starting_at(index: u32, filler: T) -> Self {
            Self { head: index.into(), tail: index.into(), flags: 0.into(), cells: vec![filler; 4] }
        }

        /// All pointers are made at once and used until the end: the kernel's view and ours.
        fn words(&mut self) -> ([NonNull<AtomicU32>; 3], NonNull<T>) {
            let cells = NonNull::new(self.cells.as_mut_ptr()).unwrap();
            ([NonNull::from(&self.head), NonNull::from(&self.tail), NonNull::from(&self.flags)], cells)
        }
    }

    fn word(at: NonNull<AtomicU32>) -> Mapped<AtomicU32> {
        // SAFETY: each test keeps its `Fake` to its end.
        unsafe { Mapped::new(at) }
    }

    const BEFORE_WRAP: u32 = u32::MAX - 1;

    #[test]
    fn submissions_fill_publish_and_wrap_around_32_bits() {
        let mut fake = Fake::starting_at(BEFORE_WRAP, Sqe::nop(0));
        let ([head, tail, flags], cells) = fake.words();
        // SAFETY: four cells of one queue, alive to the end of the test.
        let mut queue = unsafe { Submissions::new(word(head), word(tail), word(flags), MappedCells::new(cells), 4) };
        let (head, tail) = (word(head), word(tail));
        let mut expected = 0;
        let mut next = 0;
        for _ in 0..5 {
            for _ in 0..4 {
                assert_eq!(queue.push(Sqe::nop(next)), Ok(()));
                next += 1;
            }
            assert_eq!(queue.push(Sqe::nop(99)), Err(Full));
            assert_eq!((queue.pending(), queue.space()), (4, 0));
            let before = tail.load(Ordering::Relaxed);
            assert_eq!(queue.publish(), 4);
            assert_eq!(tail.load(Ordering::Relaxed), before.wrapping_add(4));
            // The kernel takes three, so that the next round starts in the middle of the cells.
            for _ in 0..3 {
                let at = head.load(Ordering::Relaxed);
                // SAFETY: inside the four cells.
                let entry = unsafe { cells.add((at & 3) as usize).read() };
                assert_eq!(entry.key(), expected);
                expected += 1;
                head.store(at.wrapping_add(1), Ordering::Relaxed);
            }
            assert_eq!(queue.pending(), 1);
            let at = head.load(Ordering::Relaxed);
            head.store(at.wrapping_add(1), Ordering::Relaxed);
            expected += 1;
        }
        assert!(!queue.needs_enter());
        fake.flags.store(flag::SQ_TASKRUN, Ordering::Relaxed);
        assert!(queue.needs_enter());
    }

    #[test]
    fn completions_come_in_order_and_wrap_around_32_bits() {
        let mut fake = Fake::starting_at(BEFORE_WRAP, Cqe::new(0, 0, 0));
        let ([head, tail, _], cells) = fake.words();
        // SAFETY: four cells of one queue, alive to the end of the test.
        let mut queue = unsafe { Completions::new(word(head), word(tail), MappedCells::new(cells), 4) };
        let (head, tail) = (word(head), word(tail));
        let mut posted = 0;
        for batch in [1, 4, 3, 2, 4] {
            for _ in 0..batch {
                let at = tail.load(Ordering::Relaxed);
                // SAFETY: inside the four cells.
                unsafe { cells.add((at & 3) as usize).write(Cqe::new(posted, 0, 0)) };
                posted += 1;
                tail.store(at.wrapping_add(1), Ordering::Relaxed);
            }
            assert_eq!(queue.ready(), batch);
            for left in (0..batch).rev() {
                assert_eq!(queue.pop().map(|cqe| cqe.key()), Some(posted - 1 - u64::from(left)));
                assert_eq!(queue.ready(), left, "each pop gives its cell back");
                assert_eq!(tail.load(Ordering::Relaxed).wrapping_sub(head.load(Ordering::Relaxed)), left);
            }
            assert_eq!(queue.pop(), None);
        }
    }
}
