//! [`RwLock`].

use super::{Listed, WouldBlock};
use std::cell::UnsafeCell;
use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use trefoil_runtime::{
    Cancelled, Guard, Handed, Holder, HolderKey, Holders, Holding, Reason, Retracted, Turn, Wait, WaitQueue, Waiter,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

/// All that there is to hold: what a writer has. A reader has 1.
const ALL: usize = (u32::MAX / 2) as usize;

impl Access {
    fn units(self) -> usize {
        match self {
            Access::Read => 1,
            Access::Write => ALL,
        }
    }
}

struct State {
    readers: usize,
    writer: bool,
    holders: Holders,
}

impl State {
    fn allows(&self, access: Access) -> bool {
        !self.writer && (access == Access::Read || self.readers == 0)
    }

    fn grant(&mut self, access: Access) {
        match access {
            Access::Read => self.readers += 1,
            Access::Write => self.writer = true,
        }
    }

    fn hold(&mut self, access: Access, place: &'static Location<'static>) -> HolderKey {
        self.holders.add(Holder::here(place, access.units()))
    }
}

type Queue = WaitQueue<State, Access, 1>;
type Locked<'a> = Guard<'a, State, Access, 1>;

/// Many readers or one writer, first come, first served: a reader that comes behind a waiting writer waits too, so that writers are not
/// starved, and readers that wait side by side are served together.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use trefoil_nursery::sync::RwLock;
/// let lock = RwLock::new(1);
/// {
///     let (one, two) = (lock.read().await?, lock.read().await?);
///     assert_eq!(*one + *two, 2);
///     assert!(lock.try_write().is_err());
/// }
/// *lock.write().await? += 1;
/// assert_eq!(lock.into_inner(), 2);
/// # Ok::<(), trefoil_nursery::Cancelled>(()) }).unwrap();
/// ```
pub struct RwLock<T: ?Sized> {
    queue: Queue,
    value: UnsafeCell<T>,
}

// SAFETY: the value goes between threads with the locks.
unsafe impl<T: ?Sized + Send> Send for RwLock<T> {}
// SAFETY: many readers have `&T` at once, a writer has `&mut T`.
unsafe impl<T: ?Sized + Send + Sync> Sync for RwLock<T> {}

fn serve(state: &mut Locked<'_>) {
    loop {
        let (read, write) = (state.allows(Access::Read), state.allows(Access::Write));
        let allowed = |access: Option<&Access>| access.is_some_and(|&a| if a == Access::Read { read } else { write });
        match state.hand_if(0, allowed, None) {
            Ok(access) => state.grant(access.expect("who waits has said what for")),
            Err(_) => return,
        }
    }
}

impl<T> RwLock<T> {
    /// An unlocked one.
    pub fn new(value: T) -> Self {
        let state = State { readers: 0, writer: false, holders: Holders::new(Holding::Lock, ALL) };
        Self { queue: Queue::new(state), value: UnsafeCell::new(value) }
    }

    /// The value.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Locks it for reading; waits while somebody writes, or waits to write.
    ///
    /// # Errors
    /// [`Cancelled`] if the scope is cancelled before.
    ///
    /// # Cancellation
    /// The lock is not held.
    #[track_caller]
    pub fn read(&self) -> ReadLock<'_, T> {
        ReadLock { lock: self.acquire(Access::Read) }
    }

    /// Locks it for writing; waits while anybody else has it.
    ///
    /// # Errors
    /// [`Cancelled`] if the scope is cancelled before.
    ///
    /// # Cancellation
    /// The lock is not held, and readers behind this one are served.
    #[track_caller]
    pub fn write(&self) -> WriteLock<'_, T> {
        WriteLock { lock: self.acquire(Access::Write) }
    }

    #[track_caller]
    fn acquire(&self, access: Access) -> Acquire<'_, T> {
        Acquire { rwlock: self, access, waiter: self.queue.waiter(), place: Location::caller() }
    }

    /// Locks it for reading if that needs no wait.
    ///
    /// # Errors
    /// [`WouldBlock`].
    #[track_caller]
    pub fn try_read(&self) -> Result<ReadGuard<'_, T>, WouldBlock> {
        let key = self.try_acquire(Access::Read, Location::caller())?;
        Ok(ReadGuard { rwlock: self, key })
    }

    /// Locks it for writing if that needs no wait.
    ///
    /// # Errors
    /// [`WouldBlock`].
    #[track_caller]
    pub fn try_write(&self) -> Result<WriteGuard<'_, T>, WouldBlock> {
        let key = self.try_acquire(Access::Write, Location::caller())?;
        Ok(WriteGuard { rwlock: self, key })
    }

    fn try_acquire(&self, access: Access, place: &'static Location<'static>) -> Result<HolderKey, WouldBlock> {
        let mut state = self.queue.lock();
        if state.peek(0).is_some() || !state.allows(access) {
            return Err(WouldBlock::new());
        }
        state.grant(access);
        Ok(state.hold(access, place))
    }

    /// The value, through the only reference.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// `key`: of who is known to hold it.
    fn release(&self, access: Access, key: Option<HolderKey>) {
        let mut state = self.queue.lock();
        if let Some(key) = key {
            state.holders.remove(key);
        }
        match access {
            Access::Read => state.readers -= 1,
            Access::Write => state.writer = false,
        }
        serve(&mut state);
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.queue.lock();
        let (readers, writer, waiting, holders) = (state.readers, state.writer, state.waiting(0), state.holders.list());
        // The text goes to code of others.
        drop(state);
        let mut debug = f.debug_struct("RwLock");
        debug.field("readers", &readers).field("writer", &writer).field("waiting", &waiting);
        debug.field("holders", &Listed(holders));
        if let Ok(guard) = self.try_read() {
            debug.field("value", &&*guard);
        }
        debug.finish()
    }
}

struct Acquire<'a, T: ?Sized> {
    rwlock: &'a RwLock<T>,
    access: Access,
    waiter: Waiter<'a, State, Access, 1>,
    place: &'static Location<'static>,
}

impl<T: ?Sized> Acquire<'_, T> {
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<HolderKey, Cancelled>> {
        // SAFETY: `waiter` is pinned with this.
        let (rwlock, access, waiter, place) = unsafe {
            let this = self.get_unchecked_mut();
            (this.rwlock, this.access, Pin::new_unchecked(&mut this.waiter), this.place)
        };
        let polled = waiter.poll(cx, Wait::new(Reason::Lock).at(place), |state| {
            if state.peek(0).is_some() || !state.allows(access) {
                let lock = state.holders.thing_in_line();
                return Turn::WaitFor(0, Some(access), lock, access.units());
            }
            state.grant(access);
            Turn::Ready(state.hold(access, place))
        });
        Poll::Ready(match ready!(polled) {
            Ok(Handed::Ready(key)) => Ok(key),
            Ok(Handed::Handed(_)) => Ok(rwlock.queue.lock().hold(access, place)),
            Err((cancelled, _)) => {
                // A writer that gives up lets the readers behind it through.
                serve(&mut rwlock.queue.lock());
                Err(cancelled)
            }
        })
    }
}

impl<T: ?Sized> Drop for Acquire<'_, T> {
    fn drop(&mut self) {
        // SAFETY: pinned, and not moved.
        let waiter = unsafe { Pin::new_unchecked(&mut self.waiter) };
        match waiter.retract() {
            // N5: it was given the lock and never looked.
            Retracted::Served(_) => self.rwlock.release(self.access, None),
            Retracted::Waited(_) => serve(&mut self.rwlock.queue.lock()),
            Retracted::Idle => {}
        }
    }
}

macro_rules! side {
    ($future:ident, $guard:ident, $access:expr, $future_doc:literal, $guard_doc:literal) => {
        #[doc = $future_doc]
        #[must_use = "a lock is not taken until it is awaited"]
        pub struct $future<'a, T: ?Sized> {
            lock: Acquire<'a, T>,
        }

        impl<T: ?Sized> fmt::Debug for $future<'_, T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($future)).field(&self.lock.access).finish()
            }
        }

        impl<'a, T: ?Sized> Future for $future<'a, T> {
            type Output = Result<$guard<'a, T>, Cancelled>;

            fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
                let rwlock = self.lock.rwlock;
                // SAFETY: `lock` is pinned with this.
                let lock = unsafe { self.map_unchecked_mut(|this| &mut this.lock) };
                Poll::Ready(ready!(lock.poll(cx)).map(|key| $guard { rwlock, key }))
            }
        }

        #[doc = $guard_doc]
        #[must_use = "dropping the guard unlocks at once"]
        pub struct $guard<'a, T: ?Sized> {
            rwlock: &'a RwLock<T>,
            key: HolderKey,
        }

        impl<T: ?Sized> Deref for $guard<'_, T> {
            type Target = T;
            fn deref(&self) -> &T {
                // SAFETY: nobody writes while this guard is there, but through this guard.
                unsafe { &*self.rwlock.value.get() }
            }
        }

        impl<T: ?Sized + fmt::Debug> fmt::Debug for $guard<'_, T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                (**self).fmt(f)
            }
        }

        impl<T: ?Sized> Drop for $guard<'_, T> {
            fn drop(&mut self) {
                self.rwlock.release($access, Some(self.key));
            }
        }
    };
}

side!(
    ReadLock,
    ReadGuard,
    Access::Read,
    "The future of [`RwLock::read`].",
    "Access to the value, shared with other readers."
);
side!(WriteLock, WriteGuard, Access::Write, "The future of [`RwLock::write`].", "Access to the value, for one.");

impl<T: ?Sized> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: nobody else has access while this guard is there.
        unsafe { &mut *self.rwlock.value.get() }
    }
}

// SAFETY: it is `&T` and the right to unlock, from any thread.
unsafe impl<T: ?Sized + Sync> Send for ReadGuard<'_, T> {}
// SAFETY: through it there is `&T`.
unsafe impl<T: ?Sized + Sync> Sync for ReadGuard<'_, T> {}
// SAFETY: it is `&mut T` and the right to unlock, from any thread.
unsafe impl<T: ?Sized + Send + Sync> Send for WriteGuard<'_, T> {}
// SAFETY: through `&WriteGuard` there is `&T`.
unsafe impl<T: ?Sized + Sync> Sync for WriteGuard<'_, T> {}
