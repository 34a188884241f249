//! io_uring's three queues (`io/src/uring/queue.rs`), each against a fake kernel on another loom thread.
//!
//! The kernel's side is written as the kernel documents it: load the other side's word with acquire, touch the cells,
//! store its own word with release. The cells are loom's, so that an access which publication does not order fails the
//! model, as does an entry that is lost, doubled or out of order. All indices start just below the point where they
//! wrap.
//!
//! Each side keeps the value of its own word in a field and only stores the word. That is what the kernel does too, and
//! loom 0.7 needs it: it remembers one last access per atomic, so that a load by the very thread that stores next hides
//! the other thread's earlier load, and a model that looks complete explores a single execution.
//!
//! Each model counts its executions and collects what the two sides saw; it fails if there was only one, or if what was
//! seen is not exactly what can be.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::atomic::AtomicUsize as Count;

use trefoil_io::model::{Cells, Completions, Cqe, Full, Offer, Offers, Sqe, Submissions, Word};
use trefoil_runtime::sync::atomic::AtomicU16;
use trefoil_runtime::sync::{Arc, AtomicU32, Ordering, UnsafeCell};

const START: u32 = u32::MAX;

#[derive(Clone, Debug)]
struct Word32(Arc<AtomicU32>);

impl Word32 {
    fn new(value: u32) -> Self {
        Self(Arc::new(AtomicU32::new(value)))
    }
}

impl Word<u32> for Word32 {
    fn load(&self, order: Ordering) -> u32 {
        self.0.load(order)
    }

    fn store(&self, value: u32, order: Ordering) {
        self.0.store(value, order);
    }
}

#[derive(Clone, Debug)]
struct Word16(Arc<AtomicU16>);

impl Word<u16> for Word16 {
    fn load(&self, order: Ordering) -> u16 {
        self.0.load(order)
    }

    fn store(&self, value: u16, order: Ordering) {
        self.0.store(value, order);
    }
}

/// Cells that loom watches, for both sides.
#[derive(Clone, Debug)]
struct Array<T>(Arc<Vec<UnsafeCell<T>>>);

impl<T: Copy> Array<T> {
    fn new(entries: usize, filler: T) -> Self {
        Self(Arc::new((0..entries).map(|_| UnsafeCell::new(filler)).collect()))
    }

    fn get(&self, index: u32) -> T {
        // SAFETY: loom fails the model if somebody writes to it meanwhile.
        self.0[index as usize % self.0.len()].with(|cell| unsafe { cell.read() })
    }

    fn set(&self, index: u32, value: T) {
        // SAFETY: loom fails the model if somebody looks at it meanwhile.
        self.0[index as usize % self.0.len()].with_mut(|cell| unsafe { cell.write(value) });
    }
}

impl<T: Copy> Cells<T> for Array<T> {
    unsafe fn write(&self, index: u32, value: T) {
        assert!((index as usize) < self.0.len());
        self.set(index, value);
    }

    unsafe fn read(&self, index: u32) -> T {
        assert!((index as usize) < self.0.len());
        self.get(index)
    }
}

/// Runs `execution` under loom, and compares all that it returned with `expected`.
fn explore<O>(name: &str, expected: impl IntoIterator<Item = O>, execution: impl Fn() -> O + Sync + Send + 'static)
where
    O: Ord + Debug + Send + 'static,
{
    let executions = std::sync::Arc::new(Count::new(0));
    let outcomes = std::sync::Arc::new(std::sync::Mutex::new(BTreeSet::new()));
    let (count, seen) = (executions.clone(), outcomes.clone());
    loom::model(move || {
        count.fetch_add(1, Ordering::Relaxed);
        let outcome = execution();
        seen.lock().unwrap().insert(outcome);
    });
    let executions = executions.load(Ordering::Relaxed);
    let outcomes = outcomes.lock().unwrap();
    println!("{name}: {executions} executions, {} outcomes: {outcomes:?}", outcomes.len());
    assert!(executions > 1, "loom explored nothing");
    assert_eq!(*outcomes, expected.into_iter().collect::<BTreeSet<_>>());
}

/// The kernel's side of a submission queue.
struct Taker {
    head: Word32,
    tail: Word32,
    cells: Array<Sqe>,
    taken: u32,
    keys: Vec<u64>,
}

impl Taker {
    fn new(head: &Word32, tail: &Word32, cells: &Array<Sqe>) -> Self {
        Self { head: head.clone(), tail: tail.clone(), cells: cells.clone(), taken: START, keys: Vec::new() }
    }

    /// Takes all that is published, as one `io_uring_enter` does; returns how many there were ever.
    fn look(&mut self) -> usize {
        let tail = self.tail.load(Ordering::Acquire);
        assert!(tail.wrapping_sub(self.taken) <= 2, "a tail beyond the cells");
        while self.taken != tail {
            self.keys.push(self.cells.get(self.taken).key());
            self.taken = self.taken.wrapping_add(1);
        }
        self.head.store(self.taken, Ordering::Release);
        self.keys.len()
    }
}

/// Three entries through two cells. Seen: how many the kernel had after each of two looks, and whether there was space
/// for the third.
#[test]
fn submissions_are_published_whole_and_their_cells_are_not_reused_early() {
    let expected = [
        (0, 0, false),
        (0, 1, false),
        (0, 1, true),
        (0, 2, false),
        (0, 2, true),
        (1, 1, false),
        (1, 1, true),
        (1, 2, false),
        (1, 2, true),
        (1, 3, true),
        (2, 2, false),
        (2, 2, true),
        (2, 3, true),
    ];
    explore("submissions", expected, || {
        let (head, tail) = (Word32::new(START), Word32::new(START));
        let cells = Array::new(2, Sqe::nop(0));
        let mut kernel = Taker::new(&head, &tail, &cells);
        // SAFETY: two cells, one queue, one producer.
        let mut queue = unsafe { Submissions::new(head, tail, Word32::new(0), cells, 2) };

        let looks = loom::thread::spawn(move || {
            let looks = (kernel.look(), kernel.look());
            (kernel, looks)
        });
        for key in [1, 2] {
            assert_eq!(queue.push(Sqe::nop(key)), Ok(()));
            assert!(queue.publish() <= 2);
        }
        let third = queue.push(Sqe::nop(3));
        queue.publish();
        let (mut kernel, looks) = looks.join().unwrap();

        // Whatever was seen when, the kernel gets each once and in order.
        kernel.look();
        assert_eq!(kernel.keys, if third == Err(Full) { vec![1, 2] } else { vec![1, 2, 3] });
        assert_eq!((queue.pending(), queue.space(), queue.needs_enter()), (0, 2, false));
        (looks.0, looks.1, third.is_ok())
    });
}

/// An entry that was pushed and not published is invisible; a batch appears at once. Seen: how many the kernel took in
/// one look.
#[test]
fn a_batch_of_submissions_appears_at_once() {
    explore("batch", [0, 2], || {
        let (head, tail) = (Word32::new(START), Word32::new(START));
        let cells = Array::new(2, Sqe::nop(0));
        let mut kernel = Taker::new(&head, &tail, &cells);
        // SAFETY: two cells, one queue, one producer.
        let mut queue = unsafe { Submissions::new(head, tail, Word32::new(0), cells, 2) };
        let look = loom::thread::spawn(move || kernel.look());
        queue.push(Sqe::nop(1)).unwrap();
        queue.push(Sqe::nop(2)).unwrap();
        queue.publish();
        look.join().unwrap()
    });
}

/// The kernel's side of a completion queue.
struct Poster {
    head: Word32,
    tail: Word32,
    cells: Array<Cqe>,
    entries: u32,
    posted: u32,
}

impl Poster {
    fn new(head: &Word32, tail: &Word32, cells: &Array<Cqe>, entries: u32) -> Self {
        Self { head: head.clone(), tail: tail.clone(), cells: cells.clone(), entries, posted: START }
    }

    /// Posts a completion unless the queue is full.
    fn post(&mut self, cqe: Cqe) -> bool {
        let used = self.posted.wrapping_sub(self.head.load(Ordering::Acquire));
        assert!(used <= self.entries, "a head beyond the tail");
        if used == self.entries {
            return false;
        }
        self.cells.set(self.posted, cqe);
        self.posted = self.posted.wrapping_add(1);
        self.tail.store(self.posted, Ordering::Release);
        true
    }
}

/// Three completions through two cells. Seen: how many the kernel could post before the queue was full, and how many of
/// them were popped meanwhile, in three tries.
#[test]
fn completions_are_read_whole_and_their_cells_are_not_given_back_early() {
    let expected = [(2, 0), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3)];
    explore("completions", expected, || {
        let (head, tail) = (Word32::new(START), Word32::new(START));
        let cells = Array::new(2, Cqe::new(0, 0, 0));
        let mut kernel = Poster::new(&head, &tail, &cells, 2);
        // SAFETY: two cells, one queue, one consumer.
        let mut queue = unsafe { Completions::new(head, tail, cells, 2) };

        let posting =
            loom::thread::spawn(move || (1..=3).take_while(|&key| kernel.post(Cqe::new(key, key as i32, 0))).count());
        let mut popped = Vec::new();
        for _ in 0..3 {
            popped.extend(queue.pop());
        }
        let meanwhile = popped.len();
        let posted = posting.join().unwrap();

        assert_eq!(queue.ready() as usize, posted - meanwhile);
        popped.extend(std::iter::from_fn(|| queue.pop()));
        let expected: Vec<_> = (1..=posted as u64).map(|key| Cqe::new(key, key as i32, 0)).collect();
        assert_eq!(popped, expected);
        (posted, meanwhile)
    });
}

/// Two buffers go to the kernel, come back filled with a completion, are read, and go to the kernel again, which has
/// three pieces to deliver. The buffers' memory is watched too, so this checks that the completion orders our reading
/// after its writing, and the recycling its next writing after our reading. Seen: how many pieces found a buffer, and
/// how many were read meanwhile, in two tries.
#[test]
fn buffers_have_one_holder() {
    let expected = [(2, 0), (2, 1), (2, 2), (3, 1), (3, 2)];
    explore("buffers", expected, || {
        let offers_tail = Word16(Arc::new(AtomicU16::new(u16::MAX)));
        let offers = Array::new(2, Offer { at: 0, len: 0, id: 0 });
        let memory = Array::new(2, 0_u64);
        let (head, tail) = (Word32::new(START), Word32::new(START));
        let cells = Array::new(4, Cqe::new(0, 0, 0));

        // SAFETY: two cells, one queue, one producer.
        let mut offering = unsafe { Offers::new(offers_tail.clone(), offers.clone(), 2) };
        // SAFETY: four cells, one queue, one consumer.
        let mut completions = unsafe { Completions::new(head.clone(), tail.clone(), cells.clone(), 4) };
        let offer = |id: u16| Offer { at: u64::from(id), len: 8, id };
        for id in [0, 1] {
            // SAFETY: two buffers for two cells, each once.
            unsafe { offering.offer(offer(id)) };
        }
        offering.publish();

        let filled = memory.clone();
        let mut poster = Poster::new(&head, &tail, &cells, 4);
        let delivering = loom::thread::spawn(move || {
            let mut taken = u16::MAX;
            let mut deliver = |piece: u64| {
                if offers_tail.load(Ordering::Acquire) == taken {
                    return false; // ENOBUFS
                }
                let buffer = offers.get(u32::from(taken));
                assert_eq!((buffer.at, buffer.len), (u64::from(buffer.id), 8));
                taken = taken.wrapping_add(1);
                filled.set(u32::from(buffer.id), piece);
                assert!(poster.post(Cqe::new(piece, 8, u32::from(buffer.id) << 16 | 1)));
                true
            };
            (1..=3).take_while(|&piece| deliver(piece)).count()
        });
        let mut receive = || {
            let cqe = completions.pop()?;
            let id = cqe.buffer().unwrap();
            let piece = memory.get(u32::from(id));
            assert_eq!(piece, cqe.key(), "the buffer holds what its completion says");
            // SAFETY: just received, and read.
            unsafe { offering.offer(offer(id)) };
            offering.publish();
            Some(piece)
        };
        let mut received = Vec::new();
        for _ in 0..2 {
            received.extend(receive());
        }
        let meanwhile = received.len();
        let delivered = delivering.join().unwrap();

        received.extend(std::iter::from_fn(&mut receive));
        assert_eq!(received, (1..=delivered as u64).collect::<Vec<_>>());
        (delivered, meanwhile)
    });
}
