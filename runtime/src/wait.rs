//! A state with queues of operations that wait for it to change: what every primitive (event, channel, lock) is made of, safe to
//! use from outside of this crate.
//!
//! A [`WaitQueue`] is a lock around a state `S` and `N` lists of waiters. A [`Waiter`] is one operation: it looks at the state under
//! the lock and either is done at once or joins a list, with something that it brings (a sender's item) or room for something
//! that it gets (a receiver's). Who changes the state serves waiters in order with [`Guard::hand`], which exchanges the two and
//! completes the wait. A waiter that was cancelled first is passed over (R18, R19); one that is dropped gives back what it had
//! been handed (N5). Wakers are woken after the lock is released.
//!
//! - **\[LISTED\]** `node` and `slot` of a waiter are touched under the lock of its queue while it is in a list; else by its owner. A
//!   waiter leaves its list, under the lock, before it goes away. It does not move: it is pinned from its first poll.
//! - **\[MADE\]** `node` of a waiter is there while `made` is set: from a poll that has to wait to the end of that wait, or to the waiter's.

use crate::blind::BLIND;
use crate::context;
use crate::look::deadlock;
use crate::look::holders::Thing;
use crate::park::{Ahead, Completed, Known, Park, Tail, Wait};
use crate::scope::cancelled::Cancelled;
use crate::sync::UnsafeCell;
use crate::sync::biased::{BiasedGuard, BiasedLock};
use crate::wakers::Wakers;
use crate::worker;
use std::fmt;
use std::marker::PhantomPinned;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::pin::Pin;
use std::ptr;
use std::task::{Context, Poll};

struct Node<T> {
    park: Park<Known>,
    links: UnsafeCell<Links<T>>,
    slot: UnsafeCell<Option<T>>,
}

impl<T> Node<T> {
    #[inline(always)]
    fn new(place: &'static Location<'static>, known: Known) -> Self {
        Self {
            park: Park::with_tail(place, known),
            links: UnsafeCell::new(Links { prev: ptr::null(), next: ptr::null(), list: NO_LIST }),
            slot: UnsafeCell::new(None),
        }
    }

    /// What it brought, or was handed.
    ///
    /// # Safety
    /// \[LISTED\]: it is in no list.
    unsafe fn take(&self) -> Option<T> {
        // SAFETY: the caller's word.
        self.slot.with_mut(|slot| unsafe { (*slot).take() })
    }
}

struct Links<T> {
    prev: *const Node<T>,
    next: *const Node<T>,
    /// The list it is in, or [`NO_LIST`].
    list: usize,
}

const NO_LIST: usize = usize::MAX;

struct List<T> {
    first: *const Node<T>,
    last: *const Node<T>,
    len: usize,
}

struct Inner<S, T, const N: usize> {
    state: S,
    lists: [List<T>; N],
}

// SAFETY: the nodes in the lists are used under the lock ([LISTED]); items of type `T` pass between threads through them.
unsafe impl<S: Send, T: Send, const N: usize> Send for Inner<S, T, N> {}

/// See the module.
pub struct WaitQueue<S, T, const N: usize> {
    inner: BiasedLock<Inner<S, T, N>>,
}

impl<S, T, const N: usize> fmt::Debug for WaitQueue<S, T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WaitQueue")
    }
}

/// What an operation finds when it looks.
#[derive(Debug)]
pub enum Turn<R, T> {
    /// It is done, and need not wait.
    Ready(R),
    /// It waits in this list, and brings this.
    Wait(usize, Option<T>),
    /// The same, for so many units of a thing: a lock, or permits. So a report can say who has them (N10).
    WaitFor(usize, Option<T>, Option<Thing>, usize),
    /// The same, where who has none may end the wait, too: for the other side of a channel. So it is not looked for who waits for ever.
    WaitForSide(usize, Option<T>, Option<Thing>),
    /// The same, for what nobody holds and was made there. So a report can say which one it is.
    WaitForMade(usize, Option<T>, &'static Location<'static>),
}

/// How an operation ended.
#[derive(Debug)]
pub enum Handed<R, T> {
    /// It did not have to wait.
    Ready(R),
    /// It was served, and this is what it has now.
    Handed(Option<T>),
}

/// The end of an operation; a cancelled one returns what it had brought.
pub type Served<R, T> = Result<Handed<R, T>, (Cancelled, Option<T>)>;

impl<S, T, const N: usize> WaitQueue<S, T, N> {
    /// A queue around a state.
    pub fn new(state: S) -> Self {
        let lists = std::array::from_fn(|_| List { first: ptr::null(), last: ptr::null(), len: 0 });
        Self { inner: BiasedLock::new(Inner { state, lists }) }
    }

    /// Takes the lock. It favours a thread that runs a loop, if that uses the queue alone.
    #[inline]
    pub fn lock(&self) -> Guard<'_, S, T, N> {
        Guard { inner: self.inner.lock(worker::in_run), wakers: Wakers::default(), queue: self }
    }

    /// An operation that has not begun.
    pub fn waiter(&self) -> Waiter<'_, S, T, N> {
        Waiter { queue: self, made: false, aborted: false, node: MaybeUninit::uninit(), _pinned: PhantomPinned }
    }
}

/// The state, locked. The order of the fields is that of their end: unlock, then wake.
pub struct Guard<'a, S, T, const N: usize> {
    inner: BiasedGuard<'a, Inner<S, T, N>>,
    wakers: Wakers,
    queue: &'a WaitQueue<S, T, N>,
}

impl<S: fmt::Debug, T, const N: usize> fmt::Debug for Guard<'_, S, T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.state.fmt(f)
    }
}

impl<S, T, const N: usize> Deref for Guard<'_, S, T, N> {
    type Target = S;
    fn deref(&self) -> &S {
        &self.inner.state
    }
}

impl<S, T, const N: usize> DerefMut for Guard<'_, S, T, N> {
    fn deref_mut(&mut self) -> &mut S {
        &mut self.inner.state
    }
}

impl<S, T, const N: usize> Guard<'_, S, T, N> {
    /// Serves the oldest waiter of a list: it gets `give` and wakes up, and what it had brought is returned. `Err(give)` if nobody
    /// waits.
    ///
    /// # Errors
    /// Gives back what nobody took.
    #[inline]
    pub fn hand(&mut self, list: usize, give: Option<T>) -> Result<Option<T>, Option<T>> {
        self.hand_if(list, |_| true, give)
    }

    /// The same if `of` holds with what the oldest waiter brought. To look with [`peek`](Self::peek) and then [`hand`](Self::hand) does
    /// not do: the one that was looked at may be cancelled in between, by who has another lock, and the next one is served.
    ///
    /// # Errors
    /// Gives back what nobody took.
    // Inlined, so that what is given and returned goes by registers: a value of several words that is read whole just after it was put together makes the
    // processor wait for its own stores.
    #[inline(always)]
    pub fn hand_if(
        &mut self,
        list: usize,
        mut of: impl FnMut(Option<&T>) -> bool,
        mut give: Option<T>,
    ) -> Result<Option<T>, Option<T>> {
        loop {
            let node = self.inner.lists[list].first;
            if node.is_null() {
                return Err(give);
            }
            // SAFETY: [LISTED]: it is in a list, and we have the lock.
            unsafe {
                if !(*node).slot.with(|slot| of((*slot).as_ref())) && (*node).park.is_waiting() {
                    return Err(give);
                }
                self.remove_first(list, &*node);
            }
            // The slot is written before the wait is completed, which is what its owner waits for; an owner whose wait was cancelled
            // takes the lock before it looks, or goes away.
            // SAFETY: as above.
            let swap = |give| unsafe { (*node).slot.with_mut(|slot| ptr::replace(slot, give)) };
            let brought = swap(give);
            // SAFETY: as above; if this wins, the node may be gone from here on.
            match unsafe { &(*node).park }.complete() {
                Completed::Won(waker) => {
                    self.wakers.push(waker);
                    return Ok(brought);
                }
                Completed::Lost => give = swap(brought),
            }
        }
    }

    /// Wakes every waiter of a list for which `of` holds with what it had brought, and nothing else: what it waited for is not to be had
    /// any more.
    pub fn release(&mut self, list: usize, mut of: impl FnMut(&T) -> bool) {
        let mut node = self.inner.lists[list].first;
        while !node.is_null() {
            // SAFETY: [LISTED]: it is in a list, and we have the lock. Once it is completed, it may be gone.
            unsafe {
                let next = (*node).links.with(|links| (*links).next);
                if (*node).slot.with(|slot| (*slot).as_ref().is_none_or(&mut of)) {
                    self.remove(&*node);
                    if let Completed::Won(waker) = (*node).park.complete() {
                        self.wakers.push(waker);
                    }
                }
                node = next;
            }
        }
    }

    /// What the oldest waiter of a list brought. Those that were cancelled just now leave the list.
    pub fn peek(&mut self, list: usize) -> Option<&T> {
        loop {
            let node = self.inner.lists[list].first;
            if node.is_null() {
                return None;
            }
            // SAFETY: [LISTED]: it is in a list, and we have the lock, which the result borrows.
            unsafe {
                if (*node).park.is_waiting() {
                    return (*node).slot.with(|slot| (*slot).as_ref());
                }
                self.remove(&*node);
            }
        }
    }

    /// Moves the oldest waiter of a list for which `of` holds to the end of another, without waking it; what it had brought is
    /// returned. `None` if there is none.
    pub fn transfer(&mut self, from: usize, to: usize, mut of: impl FnMut(&T) -> bool) -> Option<T> {
        let mut node = self.inner.lists[from].first;
        while !node.is_null() {
            // SAFETY: [LISTED]: it is in a list, and we have the lock.
            unsafe {
                let next = (*node).links.with(|links| (*links).next);
                let fits = (*node).slot.with(|slot| (*slot).as_ref().is_some_and(&mut of));
                if fits && (*node).park.is_waiting() {
                    self.remove(&*node);
                    self.add(to, &*node);
                    return (*node).slot.with_mut(|slot| (*slot).take());
                }
                node = next;
            }
        }
        None
    }

    /// How many wait in a list, without those that were cancelled just now, which leave it.
    pub fn count(&mut self, list: usize) -> usize {
        let mut node = self.inner.lists[list].first;
        while !node.is_null() {
            // SAFETY: [LISTED]: it is in a list, and we have the lock.
            unsafe {
                let next = (*node).links.with(|links| (*links).next);
                if !(*node).park.is_waiting() {
                    self.remove(&*node);
                }
                node = next;
            }
        }
        self.inner.lists[list].len
    }

    /// How many wait in a list. Some of them may have been cancelled just now.
    pub fn waiting(&self, list: usize) -> usize {
        self.inner.lists[list].len
    }

    fn add(&mut self, list: usize, node: &Node<T>) {
        let queue = &mut self.inner.lists[list];
        // SAFETY: [LISTED]; whoever is last in the list is there.
        unsafe {
            node.links.with_mut(|links| *links = Links { prev: queue.last, next: ptr::null(), list });
            if queue.last.is_null() {
                queue.first = node;
            } else {
                (*queue.last).links.with_mut(|last| (*last).next = node);
            }
        }
        queue.last = node;
        queue.len += 1;
    }

    /// The same as [`remove`](Self::remove), of the first of that list.
    #[inline(always)]
    fn remove_first(&mut self, list: usize, node: &Node<T>) {
        let queue = &mut self.inner.lists[list];
        // SAFETY: [LISTED].
        unsafe {
            let next = node.links.with_mut(|links| {
                (*links).list = NO_LIST;
                (*links).next
            });
            queue.first = next;
            if next.is_null() {
                queue.last = ptr::null();
            } else {
                (*next).links.with_mut(|next| (*next).prev = ptr::null());
            }
        }
        queue.len -= 1;
    }

    fn remove(&mut self, node: &Node<T>) {
        // SAFETY: [LISTED].
        unsafe {
            let (prev, next, list) = node
                .links
                .with_mut(|links| ((*links).prev, (*links).next, std::mem::replace(&mut (*links).list, NO_LIST)));
            let Some(queue) = self.inner.lists.get_mut(list) else { return };
            if prev.is_null() {
                queue.first = next;
            } else {
                (*prev).links.with_mut(|prev| (*prev).next = next);
            }
            if next.is_null() {
                queue.last = prev;
            } else {
                (*next).links.with_mut(|next| (*next).prev = prev);
            }
            queue.len -= 1;
        }
    }
}

/// One operation on a [`WaitQueue`]. See the module.
pub struct Waiter<'a, S, T, const N: usize> {
    queue: &'a WaitQueue<S, T, N>,
    made: bool,
    /// The wait was aborted, and that was not told yet: what it had brought is in the node.
    aborted: bool,
    /// Made when it has to wait, where it stays then ([MADE]): what need not wait has none, and what has not begun is moved about without it.
    node: MaybeUninit<Node<T>>,
    _pinned: PhantomPinned,
}

// SAFETY: it goes between threads with what it holds; the queue is shared under its lock.
unsafe impl<S: Send, T: Send, const N: usize> Send for Waiter<'_, S, T, N> {}
// SAFETY: nothing is done through `&Waiter`.
unsafe impl<S: Send, T: Send, const N: usize> Sync for Waiter<'_, S, T, N> {}

impl<S, T, const N: usize> fmt::Debug for Waiter<'_, S, T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.node() {
            Some(node) => f.debug_tuple("Waiter").field(&node.park).finish(),
            None => f.debug_tuple("Waiter").field(&format_args!("Park(idle)")).finish(),
        }
    }
}

impl<'a, S, T, const N: usize> Waiter<'a, S, T, N> {
    /// The queue it is for.
    pub fn queue(&self) -> &'a WaitQueue<S, T, N> {
        self.queue
    }

    /// Whether it has nothing to give up: it has not waited, or that is over.
    #[inline]
    pub fn is_idle(&self) -> bool {
        !self.made
    }

    /// Begins the operation, or looks how it goes on.
    ///
    /// `look` runs under the lock, when the operation begins, unless the scope is cancelled (R37) or the task has to give up its turn
    /// (N11). A cancelled wait returns what it had brought.
    // Inlined into the one caller that there is for each `look`, so that the reason is a constant.
    #[inline(always)]
    pub fn poll<R>(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        wait: Wait,
        look: impl FnOnce(&mut Guard<'a, S, T, N>) -> Turn<R, T>,
    ) -> Poll<Served<R, T>> {
        // SAFETY: the node is pinned with the waiter, and not moved.
        let this = unsafe { self.get_unchecked_mut() };
        if let Some(node) = this.node() {
            if node.park.is_active() {
                // SAFETY: [OWNER] of the park: `&mut self`; pinned as above.
                return match std::task::ready!(unsafe { Pin::new_unchecked(&node.park).poll(cx) }) {
                    Ok(()) => {
                        // SAFETY: [LISTED]: who completed the wait had taken it out of the list.
                        let handed = unsafe { node.take() };
                        // [MADE]: of a node without a waker and without an item, in no list, nothing is left to be dropped.
                        this.made = false;
                        Poll::Ready(Ok(Handed::Handed(handed)))
                    }
                    Err(_) => {
                        this.queue.lock().remove(node);
                        this.poll_aborted(wait.place)
                    }
                };
            }
            if this.aborted {
                return this.poll_aborted(wait.place);
            }
        }
        if let Err(cancelled) = std::task::ready!(context::poll_checkpoint_if_cancelled(wait.place)) {
            // SAFETY: [LISTED]: it is in no list.
            return Poll::Ready(Err((cancelled, this.node().and_then(|node| unsafe { node.take() }))));
        }
        std::task::ready!(context::poll_budget(cx));
        let ahead = Ahead::of(cx);
        let queue = this.queue;
        let mut guard = queue.lock();
        // Which of them it is, is a constant of most that look: whether to suspect is not asked at run time.
        let (list, bring, known, suspect) = match look(&mut guard) {
            Turn::Ready(result) => return Poll::Ready(Ok(Handed::Ready(result))),
            Turn::Wait(list, bring) => (list, bring, Known::NEW, false),
            Turn::WaitFor(list, bring, thing, units) => (list, bring, Known::of(thing, units), thing.is_some()),
            // As many as there are can end it: no number says more.
            Turn::WaitForSide(list, bring, thing) => (list, bring, Known::of(thing, 0), false),
            Turn::WaitForMade(list, bring, place) => (list, bring, Known::made(place), false),
        };
        // `look` is code of others, and can put the guard of another queue in the place of this one.
        assert!(ptr::eq(guard.queue, queue), "a waiter waits in its own queue");
        let node = this.make(wait.place, known);
        // SAFETY: [LISTED]: not in a list yet, and we have the lock.
        node.slot.with_mut(|slot| unsafe { *slot = bring });
        // SAFETY: [OWNER] of the park, which is pinned as above. Nobody can find it before it is in the list.
        if unsafe { Pin::new_unchecked(&node.park).begin_as_made(cx, wait, ahead) }.is_err() {
            drop(guard);
            // SAFETY: as above.
            unsafe { node.park.end() };
            return this.poll_aborted(wait.place);
        }
        guard.add(list, node);
        if !BLIND && suspect {
            deadlock::suspect();
        }
        Poll::Pending
    }

    /// The end of a wait that was aborted. Who has heard too many is not told (N13 b); who polls it next, outside, is.
    #[cold]
    fn poll_aborted<R>(&mut self, place: &'static Location<'static>) -> Poll<Served<R, T>> {
        self.aborted = true;
        let cancelled = std::task::ready!(context::poll_cancelled(place));
        self.aborted = false;
        // SAFETY: [LISTED]: it is in no list.
        Poll::Ready(Err((cancelled, self.node().and_then(|node| unsafe { node.take() }))))
    }

    fn node(&self) -> Option<&Node<T>> {
        // SAFETY: [MADE].
        self.made.then(|| unsafe { self.node.assume_init_ref() })
    }

    /// Its node, which is made if there is none: it is pinned from here on. It is to wait at this place, for that.
    #[inline(always)]
    fn make(&mut self, place: &'static Location<'static>, known: Known) -> &Node<T> {
        if self.made {
            // SAFETY: [MADE]; [OWNER] of the park: `&mut self`.
            unsafe { self.node.assume_init_ref().park.make_anew(place, known) };
        } else {
            self.node.write(Node::new(place, known));
            self.made = true;
        }
        // SAFETY: [MADE].
        unsafe { self.node.assume_init_ref() }
    }

    /// Gives the operation up, as a drop does. `Some` if it had been served and nobody has looked: what it was handed, to be passed
    /// on (N5).
    #[inline]
    pub fn withdraw(self: Pin<&mut Self>) -> Option<Option<T>> {
        match self.retract() {
            Retracted::Served(handed) => Some(handed),
            Retracted::Waited(_) | Retracted::Idle => None,
        }
    }

    /// Gives the operation up, as a drop does, and says what became of it.
    #[inline]
    pub fn retract(self: Pin<&mut Self>) -> Retracted<T> {
        // SAFETY: nothing is moved out but what the slot holds.
        let this = unsafe { self.get_unchecked_mut() };
        // Most are over, or never waited.
        if this.made { this.give_up() } else { Retracted::Idle }
    }

    /// It goes away.
    #[inline(never)]
    fn end(&mut self) {
        // Also where code of others panics in here: the drop of a waker.
        let _node = Ends(self.node.as_mut_ptr());
        self.give_up();
    }

    #[inline(never)]
    fn give_up(&mut self) -> Retracted<T> {
        if std::mem::take(&mut self.aborted) {
            // SAFETY: [LISTED]: it is in no list.
            return Retracted::Waited(self.node().and_then(|node| unsafe { node.take() }));
        }
        let Some(node) = self.node().filter(|node| node.park.is_active()) else { return Retracted::Idle };
        let mut guard = self.queue.lock();
        guard.remove(node);
        drop(guard);
        // SAFETY: [OWNER] of the park; nobody can find it any more. The lock is free: the waker may own what wants it.
        let done = unsafe { node.park.end() };
        // SAFETY: [LISTED]: in no list.
        let slot = unsafe { node.take() };
        if done { Retracted::Served(slot) } else { Retracted::Waited(slot) }
    }
}

/// What became of an operation that was given up.
#[derive(Debug)]
pub enum Retracted<T> {
    /// It did not wait.
    Idle,
    /// It waited, with this.
    Waited(Option<T>),
    /// It had been served, with this, and nobody has looked.
    Served(Option<T>),
}

impl<S, T, const N: usize> Drop for Waiter<'_, S, T, N> {
    #[inline]
    fn drop(&mut self) {
        if self.made {
            self.end();
        }
    }
}

/// The node of a waiter that goes away.
struct Ends<T>(*mut Node<T>);

impl<T> Drop for Ends<T> {
    fn drop(&mut self) {
        // SAFETY: [MADE], once: it is given up, and in no list.
        unsafe { ptr::drop_in_place(self.0) };
    }
}
