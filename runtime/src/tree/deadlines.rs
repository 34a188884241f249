//! Deadlines: which there are, when the loop has to wake up for the next one, and what is done about those that are due.

use super::{Locked, Tree};
use crate::park::{Completed, Core};
use crate::prefetch::prefetch;
use crate::scope::{CANCEL_CALLED, Scope};
use crate::sync::Ordering;
use crate::time::clock::NEVER;
use crate::time::wheel::{Entry, Key, Owner, SLEEPER};
use std::ptr::NonNull;

/// Whose deadline it is: a [`Who`] in one word, with the lowest bit for a park.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timer(NonNull<()>);

enum Who {
    Scope(*const Scope),
    Park(*const Core),
}

impl Timer {
    fn scope(scope: &Scope) -> Self {
        Self(NonNull::from(scope).cast())
    }

    fn park(park: &Core) -> Self {
        const { assert!(align_of::<Core>() > 1 && align_of::<Scope>() > 1, "the lowest bit is free") };
        Self(NonNull::from(park).cast().map_addr(|at| at | 1))
    }

    fn who(self) -> Who {
        let timer = self.0.as_ptr();
        match timer.addr() & 1 {
            0 => Who::Scope(timer.cast()),
            _ => Who::Park(timer.map_addr(|at| at & !1).cast()),
        }
    }
}

impl Owner for Timer {
    fn keyed(self, key: Option<Key>) {
        // SAFETY: [LOCKED]: the wheel is only touched under the lock, and what is in it is linked.
        unsafe {
            match self.who() {
                Who::Scope(scope) => (*scope).links.with_mut(|links| (*links).key = key),
                Who::Park(park) => (*park).key.set(key),
            }
        }
    }

    fn order(self) -> u64 {
        match self.who() {
            // SAFETY: [LOCKED].
            Who::Scope(scope) => unsafe { (*scope).links.with(|links| (*links).made) },
            Who::Park(_) => SLEEPER,
        }
    }

    /// A child that has slept for a while is in cold memory: to wait for it was a seventh of what 100,000 timers took. Its header is before its park, as a rule.
    #[inline(always)]
    fn prefetch(self) {
        let timer = self.0.as_ptr().cast::<u8>();
        for at in [timer.wrapping_sub(64), timer, timer.wrapping_add(64)] {
            prefetch(at);
        }
    }

    /// Those between which it stands, in the list of waits and in that of children, are written when it is taken out.
    #[inline(always)]
    fn prefetch_neighbours(self) {
        if let Who::Park(park) = self.who() {
            // SAFETY: [LOCKED].
            unsafe { (*park).prefetch_neighbours() };
        }
    }
}

impl Timer {
    fn deadline(self) -> u64 {
        // SAFETY: [LOCKED].
        unsafe {
            match self.who() {
                Who::Scope(scope) => (*scope).deadline.load(Ordering::Relaxed),
                // Never moved: it is what its entry says.
                Who::Park(_) => 0,
            }
        }
    }
}

impl Tree {
    /// The next deadline, exactly, for which the worker is about to sleep. Who sets an earlier one on another thread unparks it: that is seen here,
    /// or where it goes to sleep.
    #[inline(always)]
    pub fn set_alarm(&'static self) -> u64 {
        // Where there is none: a hundred instructions of a turn less, for the lock here and after the sleep.
        if self.alarm.load(Ordering::Relaxed) == NEVER { NEVER } else { self.find_alarm() }
    }

    #[inline(never)]
    fn find_alarm(&'static self) -> u64 {
        let mut locked = self.lock();
        let alarm = locked.next_deadline();
        self.alarm.store(alarm, Ordering::Relaxed);
        drop(locked);
        alarm
    }
}

impl Locked<'_> {
    /// A scope has its first deadline, or again one.
    #[inline(never)]
    pub(super) fn arm_scope(&mut self, scope: &Scope, at: u64) {
        self.state.made += 1;
        // SAFETY: [LOCKED].
        scope.links.with_mut(|links| unsafe { (*links).made = self.state.made });
        self.arm(at, Timer::scope(scope));
    }

    /// A wait that is linked ends by itself.
    #[inline(never)]
    pub(super) fn arm_park(&mut self, park: &Core, at: u64) {
        self.arm(at, Timer::park(park));
    }

    /// In two copies: the wheel does not have to ask which of the two it is.
    #[inline(always)]
    fn arm(&mut self, at: u64, timer: Timer) {
        self.state.wheel.insert(Entry { at, owner: timer });
        self.earlier(at);
    }

    /// Takes a deadline out.
    #[inline(never)]
    pub(super) fn disarm(&mut self, key: Key) {
        self.state.wheel.remove(key);
    }

    /// The worker may be asleep until a later deadline than this one, or be about to. Its own thread comes to look again before it sleeps.
    fn earlier(&mut self, at: u64) {
        if at < self.tree.next_look() {
            self.tree.next.store(at, Ordering::Relaxed);
        }
        if at < self.tree.alarm.load(Ordering::Relaxed) {
            self.tree.alarm.store(0, Ordering::Relaxed);
            if !self.tree.is_here() {
                self.tree.parker.unpark();
            }
        }
    }

    /// Gives a scope its deadline (`u64::MAX`: none), now (R48). A later one than before is only stored: the wheel finds out
    /// when the old one comes up (R50).
    pub(crate) fn set_deadline(&mut self, scope: &Scope, at: u64) {
        scope.deadline.store(at, Ordering::Relaxed);
        if scope.has(CANCEL_CALLED) {
            return;
        }
        // SAFETY: [LOCKED].
        let key = scope.links.with(|links| unsafe { (*links).key });
        match (key, at) {
            (None, u64::MAX) => {}
            (None, _) => self.arm_scope(scope, at),
            (Some(key), u64::MAX) => self.disarm(key),
            (Some(key), _) if at < self.state.wheel.at(key) => {
                self.state.wheel.change(key, at);
                self.earlier(at);
            }
            (Some(_), _) => {}
        }
    }

    /// The next deadline, exactly; [`NEVER`] if there is none.
    pub fn next_deadline(&mut self) -> u64 {
        let now = self.now();
        self.first(now).map_or(NEVER, |(_, first)| first.at)
    }

    /// The next deadline, and its key.
    fn first(&mut self, now: u64) -> Option<(Key, Entry<Timer>)> {
        let first = loop {
            let Some((key, first)) = self.state.wheel.first(now) else { break None };
            let deadline = first.owner.deadline();
            if deadline <= first.at {
                break Some((key, first));
            }
            self.state.wheel.change(key, deadline);
        };
        self.tree.next.store(first.map_or(NEVER, |(_, first)| first.at), Ordering::Relaxed);
        first
    }

    /// Applies every deadline that is due, in order (R45, R46). How many there were.
    pub fn expire(&mut self, now: u64) -> usize {
        let mut expired = 0;
        let mut first = self.first(now);
        self.state.wheel.prefetch_near();
        while let Some((key, entry)) = first.filter(|(_, entry)| entry.at <= now) {
            expired += 1;
            match entry.owner.who() {
                Who::Scope(scope) => {
                    // SAFETY: [LOCKED].
                    let scope = unsafe { &*scope };
                    self.disarm(key);
                    self.cancel_due(scope, now);
                }
                Who::Park(park) => {
                    // SAFETY: [LOCKED].
                    let park = unsafe { &*park };
                    match park.complete() {
                        Completed::Won(waker) => {
                            self.unlink_park(park);
                            self.wakers.push(waker);
                        }
                        Completed::Lost => self.disarm(key),
                    }
                }
            }
            first = self.first(now);
        }
        expired
    }
}
