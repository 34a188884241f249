//! [`Semaphore`] and [`BoundedSemaphore`].

use super::waiters::{Waiter, Waiters};
use std::cell::{Cell, RefCell};
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use trefoil_runtime::{Cancelled, Holder, HolderKey, Holders, Holding, Reason};

/// A number of permits, given out in the order in which tasks ask: `asyncio.Semaphore` (L10–L12).
///
/// [`acquire`](Self::acquire) returns a permit that comes back when it is dropped, which is `async with semaphore`. As in Python nobody
/// owns a permit: where another task is to give it back, [`forget`](Permit::forget) it, and call [`release`](Self::release), which may
/// also add permits that were never taken. A [`BoundedSemaphore`] refuses those.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use trefoil_nursery::{Cancelled, asyncio};
/// use trefoil_nursery::asyncio::Semaphore;
/// asyncio::event_loop(async {
///     let slots = Semaphore::new(2);
///     let one = slots.acquire().await?;
///     let two = slots.acquire().await?;
///     assert!(slots.locked());
///     drop((one, two));
///     assert!(!slots.locked());
///     Ok::<(), Cancelled>(())
/// })
/// .await
/// .unwrap();
/// # });
/// ```
#[derive(Debug)]
pub struct Semaphore {
    /// Those that are free and promised to nobody.
    value: Cell<usize>,
    waiters: Waiters,
    /// For reports and the tree: nothing here depends on it.
    holders: RefCell<Holders>,
}

impl Semaphore {
    /// One with so many permits. Where Python refuses a negative number when it runs, there is none here.
    pub fn new(permits: usize) -> Self {
        let holders = RefCell::new(Holders::new(Holding::Permits, permits));
        Self { value: Cell::new(permits), waiters: Waiters::default(), holders }
    }

    /// Whether a task that asks would have to wait: there is no permit, or others ask before it (L10).
    pub fn locked(&self) -> bool {
        self.value.get() == 0 || self.waiters.any_not_cancelled()
    }

    /// Waits for a permit. Where one is free and nobody waits, this does not give up the turn.
    ///
    /// # Errors
    /// [`Cancelled`] if the task is cancelled before.
    ///
    /// # Cancellation
    /// Whoever was given a permit and is cancelled, or dropped, before it runs hands it to the next (L11).
    #[track_caller]
    pub fn acquire(&self) -> impl Future<Output = Result<Permit<'_>, Cancelled>> {
        let place = Location::caller();
        async move {
            let key = self.take(place).await?;
            Ok(Permit { semaphore: self, key })
        }
    }

    /// Adds a permit, taken before or not (L12), which goes to the first of those who wait.
    pub fn release(&self) {
        // From now on nobody can say how many there will be, and who has them (N10).
        self.holders.borrow_mut().set_open();
        self.add_one();
    }

    fn add_one(&self) {
        self.value.set(self.value.get() + 1);
        self.wake_next();
    }

    async fn take(&self, place: &'static Location<'static>) -> Result<HolderKey, Cancelled> {
        if !self.locked() {
            self.value.set(self.value.get() - 1);
            return Ok(self.hold(place));
        }
        let at = place;
        let held = self.holders.borrow_mut().thing();
        let mut place = Place { semaphore: self, waiter: self.waiters.join_held(Reason::Permits, held), woken: false };
        place.waiter.wait_at(at).await?;
        place.woken = true;
        Ok(self.hold(at))
    }

    /// The task that runs has a permit.
    fn hold(&self, place: &'static Location<'static>) -> HolderKey {
        self.holders.borrow_mut().add(Holder::here(place, 1))
    }

    /// Who had it does not have it any more, but for what is forgotten.
    fn give_back(&self, key: HolderKey) {
        self.holders.borrow_mut().remove(key);
    }

    /// Gives a permit, of which there is one, to the first who waits for one; whether there was somebody.
    fn wake_next(&self) -> bool {
        let woken = self.waiters.wake_first();
        if woken {
            self.value.set(self.value.get() - 1);
        }
        woken
    }
}

/// In line for a permit.
struct Place<'a> {
    semaphore: &'a Semaphore,
    waiter: Waiter,
    /// It runs, and has the permit.
    woken: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let semaphore = self.semaphore;
        semaphore.waiters.leave(&self.waiter);
        if !self.woken && self.waiter.done() && !self.waiter.cancelled() {
            semaphore.value.set(semaphore.value.get() + 1);
        }
        // Others may have had to wait because of us, though there are permits.
        while semaphore.value.get() > 0 && semaphore.wake_next() {}
    }
}

/// A permit of a [`Semaphore`], which it gets back when this is dropped.
#[must_use = "the permit goes back at once if it is dropped"]
#[derive(Debug)]
pub struct Permit<'a> {
    semaphore: &'a Semaphore,
    key: HolderKey,
}

impl Permit<'_> {
    /// Does not give the permit back: somebody may [`release`](Semaphore::release) it.
    pub fn forget(self) {
        self.semaphore.give_back(self.key);
        self.semaphore.holders.borrow_mut().set_open();
        std::mem::forget(self);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.semaphore.give_back(self.key);
        self.semaphore.add_one();
    }
}

/// A [`Semaphore`] that never has more permits than in the beginning: `asyncio.BoundedSemaphore` (L12).
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use trefoil_nursery::{Cancelled, asyncio};
/// use trefoil_nursery::asyncio::BoundedSemaphore;
/// asyncio::event_loop(async {
///     let slots = BoundedSemaphore::new(1);
///     slots.acquire().await?.forget();
///     assert!(slots.release().is_ok());
///     assert!(slots.release().is_err());
///     Ok::<(), Cancelled>(())
/// })
/// .await
/// .unwrap();
/// # });
/// ```
#[derive(Debug)]
pub struct BoundedSemaphore {
    semaphore: Semaphore,
    bound: usize,
}

impl BoundedSemaphore {
    /// One with so many permits.
    pub fn new(permits: usize) -> Self {
        Self { semaphore: Semaphore::new(permits), bound: permits }
    }

    /// As [`Semaphore::locked`].
    pub fn locked(&self) -> bool {
        self.semaphore.locked()
    }

    /// As [`Semaphore::acquire`].
    ///
    /// # Errors
    /// [`Cancelled`] if the task is cancelled before.
    ///
    /// # Cancellation
    /// As [`Semaphore::acquire`].
    #[track_caller]
    pub fn acquire(&self) -> impl Future<Output = Result<BoundedPermit<'_>, Cancelled>> {
        let place = Location::caller();
        async move {
            let key = self.semaphore.take(place).await?;
            Ok(BoundedPermit { semaphore: self, key })
        }
    }

    /// Gives back a permit that was taken.
    ///
    /// # Errors
    /// [`OverReleased`] if none is out: `ValueError` in Python.
    pub fn release(&self) -> Result<(), OverReleased> {
        if self.semaphore.value.get() >= self.bound {
            return Err(OverReleased(()));
        }
        self.semaphore.release();
        Ok(())
    }
}

/// A permit of a [`BoundedSemaphore`], which it gets back when this is dropped.
#[must_use = "the permit goes back at once if it is dropped"]
#[derive(Debug)]
pub struct BoundedPermit<'a> {
    semaphore: &'a BoundedSemaphore,
    key: HolderKey,
}

impl BoundedPermit<'_> {
    /// Does not give the permit back: somebody may [`release`](BoundedSemaphore::release) it.
    pub fn forget(self) {
        let semaphore = &self.semaphore.semaphore;
        semaphore.give_back(self.key);
        semaphore.holders.borrow_mut().set_open();
        std::mem::forget(self);
    }
}

impl Drop for BoundedPermit<'_> {
    fn drop(&mut self) {
        let BoundedSemaphore { semaphore, bound } = self.semaphore;
        semaphore.give_back(self.key);
        // Somebody may have released it in our place.
        if semaphore.value.get() < *bound {
            semaphore.add_one();
        }
    }
}

/// A [`BoundedSemaphore`] was given more permits than were taken: `ValueError` in Python.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverReleased(());

impl fmt::Display for OverReleased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the semaphore was released too many times")
    }
}

impl Error for OverReleased {}
