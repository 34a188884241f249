//! A lock that favours one thread: for what one thread takes over and over, and others hardly ever.
//!
//! The tree of a run, and most of its channels and locks, are used by the thread of the run alone. A mutex costs that thread two read-modify-writes
//! each time, which were two thirds of the time of a wait. Here the favoured thread takes the lock and gives it back with
//! plain stores, and who comes from elsewhere pays: it takes the favour away first, and the lock is an ordinary mutex from then on, until the
//! same thread has taken it many times on end.
//!
//! ```text
//!   the favoured thread                    another thread
//!                                          takes the gate, a mutex
//!   inside = true                          favoured = nobody
//!   ── light ──                            ── heavy ──
//!   favoured == me ? it has the lock       inside ? waits until it is not
//!                  : inside = false,       it has the lock
//!                    takes the gate
//!   inside = false                         gives the gate back
//! ```
//!
//! The two barriers are those of the `barrier` module. Of the two threads one sees what the other wrote: either the favoured one finds that it
//! is not, or the other one finds it inside and waits. Where the kernel has no such barrier nobody is favoured.
//!
//! Invariants, which the `SAFETY` comments name:
//! - **\[ONE\]** While a thread is favoured, or has been and has not given that up itself, under the gate, no other one is. So `inside` has one writer at
//!   a time: also a thread that does not know yet that it is not favoured any more writes over nobody's word. A thread that has given it up itself cannot
//!   read afterwards that it is favoured, since the last that it can read is what it wrote.
//! - **\[LOCK\]** The value is touched by who has the lock: the favoured thread that has set `inside` and found itself favoured after that, or who has the
//!   gate and has found nobody favoured, or has ended that and found nobody inside.
//! - **\[ORDER\]** What was done under the lock is seen by who has it next. Gate to gate by the mutex; favoured to favoured it is one thread; favoured
//!   to gate by `inside`, which is released and acquired; gate to favoured by the mutex, since a thread becomes favoured by taking the gate itself.
//! - **\[GATE\]** Who has the lock by way of the gate puts the guard of that into `held`, and takes it out to give it back: the same thread, since a guard of
//!   this lock stays on it. Nobody else has the gate in between, so nobody else touches `held`. It is not in our own guard because that is
//!   made, moved and looked at whole, all of it at once, for every wait: with a field that is smaller than a word in it, the processor waited 10 ns for its own
//!   store each time.

use crate::sync::barrier;
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering, UnsafeCell, spin};
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};

/// So often who takes the favour away looks whether the other one is inside, before it sleeps in between.
const PATIENCE: u32 = 100;

/// No thread. See [`this_thread`].
const NOBODY: u64 = u64::MAX;

/// How often on end one thread takes the gate before it is favoured: what is used a few times, such as a channel for one value, never gets so
/// far, and costs who comes from elsewhere no barrier.
#[cfg(not(trefoil_loom))]
const OFTEN: u32 = 64;
/// In the models of others the lock is a mutex: with a word that all look at they would be too large. It has a model of its own.
#[cfg(trefoil_loom)]
const OFTEN: u32 = u32::MAX;

/// After the favour was taken away, it takes so many times as often: where two threads take turns, the favour is soon for nobody.
const MORE: u32 = 8;

/// But not oftener than this, which is some milliseconds: who looks on once in a second does not slow down a thread for good.
const MOST: u32 = 1 << 18;

#[cfg(not(trefoil_loom))]
thread_local! {
    static THREAD: Cell<u64> = const { Cell::new(0) };
}
#[cfg(trefoil_loom)]
loom::thread_local! {
    static THREAD: Cell<u64> = Cell::new(0);
}

/// What names this thread, as no other is named or was; 0 before it has a [name](name_thread).
#[inline]
fn this_thread() -> u64 {
    THREAD.with(Cell::get)
}

fn name_thread() -> u64 {
    static NAMES: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    match this_thread() {
        0 => {
            let name = NAMES.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            THREAD.with(|thread| thread.set(name));
            name
        }
        name => name,
    }
}

/// What decides who is favoured.
#[derive(Debug)]
struct Record {
    /// Who took the gate last, and how often on end.
    last: u64,
    times: u32,
    /// How often it takes to be favoured.
    often: u32,
    /// Who is favoured, or was and has not given it up ([ONE]).
    owner: u64,
}

impl Record {
    const fn new(often: u32) -> Self {
        Self { last: NOBODY, times: 0, often, owner: NOBODY }
    }
}

/// The lock. See the module.
pub struct BiasedLock<T> {
    /// Who is favoured. Written under the gate.
    favoured: AtomicU64,
    /// The favoured thread has the lock, or is trying.
    inside: AtomicBool,
    gate: Mutex<Record>,
    /// The guard of the gate, while somebody has the lock by way of that ([GATE]).
    held: UnsafeCell<MaybeUninit<Gate<'static>>>,
    /// How often it takes to be favoured, at first.
    often: u32,
    value: UnsafeCell<T>,
}

// SAFETY: the value passes between threads under the lock ([LOCK], [ORDER]). What `held` has is not used by another thread than the one that put
// it there ([GATE]).
unsafe impl<T: Send> Sync for BiasedLock<T> {}
// SAFETY: as above; `held` has nothing while nobody has the lock, or what is never used again.
unsafe impl<T: Send> Send for BiasedLock<T> {}

impl<T> fmt::Debug for BiasedLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BiasedLock")
    }
}

#[cfg(not(trefoil_loom))]
type Gate<'a> = std::sync::MutexGuard<'a, Record>;
#[cfg(trefoil_loom)]
type Gate<'a> = loom::sync::MutexGuard<'a, Record>;

impl<T> BiasedLock<T> {
    /// A lock around a value. Nobody is favoured yet.
    pub fn new(value: T) -> Self {
        Self::favouring_after(OFTEN, value)
    }

    /// One that favours who has taken it so often on end.
    pub fn favouring_after(often: u32, value: T) -> Self {
        Self {
            favoured: AtomicU64::new(NOBODY),
            inside: AtomicBool::new(false),
            gate: Mutex::new(Record::new(often)),
            held: UnsafeCell::new(MaybeUninit::uninit()),
            often,
            value: UnsafeCell::new(value),
        }
    }

    /// Takes the lock. `suits` says whether this thread may become the favoured one.
    ///
    /// # Panics
    /// Where this thread has it already, if that is found out; otherwise it never returns.
    #[inline]
    pub fn lock(&self, suits: impl FnOnce() -> bool) -> BiasedGuard<'_, T> {
        let way = if self.favours() && self.enter() { Way::Favour } else { self.lock_gate(suits) };
        BiasedGuard { lock: self, way, _here: PhantomData }
    }

    /// Whether anybody is ever favoured: known beforehand in models alone.
    #[inline(always)]
    fn favours(&self) -> bool {
        !cfg!(trefoil_loom) || self.often != u32::MAX
    }

    /// The way of the favoured thread: whether it has the lock.
    #[inline(always)]
    fn enter(&self) -> bool {
        let me = this_thread();
        if self.favoured.load(Ordering::Relaxed) != me {
            return false;
        }
        // [ONE]: nobody else writes it. A value that is lent twice must not be, whatever the caller does.
        assert!(!self.inside.load(Ordering::Relaxed), "a lock was taken again by the thread that has it");
        self.inside.store(true, Ordering::Relaxed);
        barrier::light();
        if self.favoured.load(Ordering::Relaxed) == me {
            return true;
        }
        self.inside.store(false, Ordering::Release);
        false
    }

    #[cold]
    #[inline(never)]
    fn lock_gate(&self, suits: impl FnOnce() -> bool) -> Way {
        let me = name_thread();
        let mut record = self.gate.lock();
        if self.favours() && self.favoured.load(Ordering::Relaxed) != NOBODY {
            self.disown(&mut record);
        }
        if record.last == me {
            record.times = record.times.saturating_add(1);
        } else {
            (record.last, record.times) = (me, 1);
        }
        if record.times >= record.often && (record.owner == NOBODY || record.owner == me) && suits() && can_favour() {
            // [ONE]. It has the lock as the favoured thread from here on: were it to hold the gate instead, it could come in once more beside that.
            record.owner = me;
            self.inside.store(true, Ordering::Relaxed);
            self.favoured.store(me, Ordering::Relaxed);
            return Way::Favour;
        }
        // SAFETY: the guard borrows the lock, and is given back, or never used again, before the lock is not borrowed any more: it is taken out by
        // our own guard, which borrows the lock as well.
        let record = unsafe { std::mem::transmute::<Gate<'_>, Gate<'static>>(record) };
        // SAFETY: [GATE].
        self.held.with_mut(|held| unsafe { (*held).write(record) });
        Way::Gate
    }

    /// Gives the gate back.
    #[cold]
    #[inline(never)]
    fn unlock_gate(&self) {
        // SAFETY: [GATE]: this is the thread that put it there, and has not taken it out.
        drop(self.held.with(|held| unsafe { (*held).assume_init_read() }));
    }

    /// Takes the favour away from the thread that has it, and waits until that is not inside.
    #[cold]
    fn disown(&self, record: &mut Record) {
        self.favoured.store(NOBODY, Ordering::Relaxed);
        record.often = record.often.saturating_mul(MORE).min(MOST.max(self.often));
        if !barrier::heavy() {
            // A filter of system calls that came after the barrier was promised. What is left is to let the other's store arrive: that takes a
            // processor nanoseconds, and this is a million of them.
            #[cfg(not(trefoil_loom))]
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        // Acquire: what it did ([ORDER]). It has it for a moment, unless it is not running; and where it is of a lower priority, it does not run until this
        // thread sleeps.
        let mut looks = 0;
        while self.inside.load(Ordering::Acquire) {
            looks += 1;
            if cfg!(trefoil_loom) || looks < PATIENCE {
                spin();
            } else {
                std::thread::sleep(std::time::Duration::from_micros(50));
            }
        }
    }

    /// This thread takes the lock no more than others from now on: if it was favoured, another one may be.
    pub fn give_up(&self) {
        let me = name_thread();
        let mut record = self.gate.lock();
        if record.owner == me {
            // [ONE]: written by this thread itself, which therefore never reads an older word. It is not inside, unless it has the lock, and then it
            // does not take it again.
            assert!(!self.inside.load(Ordering::Relaxed), "a lock is given up by the thread that has it");
            self.favoured.store(NOBODY, Ordering::Relaxed);
            *record = Record::new(self.often);
        }
    }
}

/// Whether who is favoured can be told that it is not any more.
fn can_favour() -> bool {
    #[cfg(not(trefoil_loom))]
    return barrier::register();
    // There both barriers are real ones.
    #[cfg(trefoil_loom)]
    return true;
}

/// How the lock was taken. A word: see [GATE].
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
enum Way {
    Favour,
    Gate,
}

/// The lock, taken.
pub struct BiasedGuard<'a, T> {
    lock: &'a BiasedLock<T>,
    way: Way,
    /// It is given back by the thread that took it.
    _here: PhantomData<*mut ()>,
}

impl<T> BiasedGuard<'_, T> {
    /// Whether it was taken by the thread that the lock favours.
    #[inline(always)]
    pub fn is_favoured(&self) -> bool {
        self.way == Way::Favour
    }
}

impl<T: fmt::Debug> fmt::Debug for BiasedGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T> Deref for BiasedGuard<'_, T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: [LOCK].
        self.lock.value.with(|value| unsafe { &*value })
    }
}

impl<T> DerefMut for BiasedGuard<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: [LOCK].
        self.lock.value.with_mut(|value| unsafe { &mut *value })
    }
}

impl<T> Drop for BiasedGuard<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        match self.way {
            // Release: what was done under the lock, for who takes the favour away ([ORDER]).
            Way::Favour => self.lock.inside.store(false, Ordering::Release),
            Way::Gate => self.lock.unlock_gate(),
        }
    }
}

#[cfg(all(test, not(trefoil_loom)))]
mod tests {
    use super::*;
    use std::thread;

    /// With the kernel's barrier, which the models do not have: two words that are the same under the lock, and as many as were counted after.
    fn contend(lock: &BiasedLock<(u64, u64)>, favoured: u64, others: u64) {
        let count = |times: u64, suits: bool| {
            for i in 0..times {
                let mut value = lock.lock(|| suits);
                assert_eq!(value.0, value.1, "two have the lock");
                value.0 += 1;
                std::hint::black_box(&mut value.0);
                value.1 += 1;
                drop(value);
                if !suits && i.is_multiple_of(8) {
                    thread::yield_now();
                }
            }
        };
        thread::scope(|s| {
            s.spawn(|| count(favoured, true));
            s.spawn(|| count(others, false));
            s.spawn(|| count(others, false));
        });
        let total = favoured + 2 * others;
        assert_eq!(*lock.lock(|| false), (total, total));
    }

    #[test]
    fn one_at_a_time_has_a_lock_whose_favour_comes_and_goes() {
        let many = if cfg!(miri) { 20 } else { 200_000 };
        // Favoured again at once, each time.
        contend(&BiasedLock::favouring_after(0, (0, 0)), many, many / 100);
        contend(&BiasedLock::favouring_after(2, (0, 0)), many, many / 100);
        contend(&BiasedLock::new((0, 0)), many, many / 100);
    }

    #[test]
    fn who_has_it_does_not_get_it_again() {
        let lock = BiasedLock::favouring_after(1, 0);
        drop(lock.lock(|| true));
        if lock.favoured.load(Ordering::Relaxed) == NOBODY {
            // The kernel has no barrier: this would wait for ever.
            return;
        }
        let taken = lock.lock(|| true);
        let again = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(lock.lock(|| true))));
        assert!(again.is_err());
        drop(taken);
        *lock.lock(|| true) += 1;
    }

    #[test]
    fn the_favour_is_given_up_for_the_next_thread() {
        let lock = BiasedLock::favouring_after(1, 0);
        let favoured = || lock.favoured.load(Ordering::Relaxed) != NOBODY;
        for _ in 0..3 {
            thread::scope(|s| {
                s.spawn(|| {
                    *lock.lock(|| true) += 1;
                    assert_eq!(favoured(), barrier::register());
                    lock.give_up();
                    assert!(!favoured());
                });
            });
        }
        assert_eq!(*lock.lock(|| false), 3);
    }
}
