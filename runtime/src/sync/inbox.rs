//! An intrusive queue that any thread pushes to and one owner empties: how a wake-up from elsewhere arrives.
//!
//! A stack with one atomic head: `push` is a compare-and-swap, [`Inbox::take`] swaps the whole list out and turns it round,
//! so that the order is first in, first out. There is no allocation: the link lives in the node.
//!
//! ```text
//!            push (was empty: tell the owner)           push
//!   EMPTY ──────────────────────────────────▶ node ──────────▶ node ─▶ node
//!     ▲                                         │                 │
//!     └──────────────────── take ───────────────┴─────────────────┘
//!   any ── close ──▶ CLOSED   (for ever: a push is refused, its node stays with the pusher)
//! ```
//!
//! An inbox can be **watched**: then who pushes is told so instead, says first who it is, and pushes by [`Inbox::push_watched`]. The mark of that is in the
//! lowest bit of the head, which is set in `CLOSED` too: so those who push to one that is not watched do not ask for it by itself. It is set and taken away
//! by the owner, with a take.
//!
//! Invariants, which the `SAFETY` comments name:
//! - **\[LINKED\]** a node is in at most one list at a time. Who holds the right to push it gives that right to the inbox, and
//!   gets it back from `take`, or from a refused `push`.
//! - **\[ALIVE\]** a node in the inbox is kept alive by its pusher's reference, which travels with it.

use crate::sync::{AtomicPtr, Ordering};
use std::ptr;

/// A node that carries its own link.
///
/// # Safety
/// `link` returns the same field for the same node always, and nobody but the list that holds the node touches it.
pub unsafe trait Linked {
    /// The field for the next node of the list.
    fn link(&self) -> &AtomicPtr<Self>
    where
        Self: Sized;
}

/// The queue. See the module.
pub struct Inbox<N> {
    head: AtomicPtr<N>,
}

impl<N> std::fmt::Debug for Inbox<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inbox")
    }
}

/// What became of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// The inbox was empty: its owner may be asleep and must be told.
    First,
    /// Others were there already: whoever was first has told the owner.
    Behind,
    /// The inbox is closed; the node was not taken.
    Refused,
    /// The inbox is watched; the node was not taken. Say who you are, and push again by [`Inbox::push_watched`], which never returns this.
    Watched,
}

/// The mark of an inbox that is watched. Nodes are aligned.
const WATCHED: usize = 1;

fn closed<N>() -> *mut N {
    ptr::without_provenance_mut(usize::MAX)
}

/// The one that was watched and empty.
fn watched<N>() -> *mut N {
    ptr::without_provenance_mut(WATCHED)
}

fn is_watched_or_closed<N>(head: *mut N) -> bool {
    const { assert!(align_of::<N>() > WATCHED) };
    head.addr() & WATCHED != 0
}

/// The first node of the list, of an inbox that is not closed.
fn first<N>(head: *mut N) -> *mut N {
    head.map_addr(|address| address & !WATCHED)
}

impl<N: Linked> Inbox<N> {
    /// An empty one.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self { head: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Whether a `take` would find something now.
    pub fn is_empty(&self) -> bool {
        // By one comparison: `CLOSED` is the highest of all.
        let head = self.head.load(Ordering::Acquire);
        head.addr().wrapping_add(1) <= WATCHED + 1
    }

    /// Adds a node at the end, from any thread.
    ///
    /// # Safety
    /// \[LINKED\] and \[ALIVE\]: the caller may push this node, and it stays alive until `take` returns it.
    pub unsafe fn push(&self, node: *const N) -> Pushed {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            if is_watched_or_closed(head) {
                return if head == closed() { Pushed::Refused } else { Pushed::Watched };
            }
            // SAFETY: [ALIVE], and [LINKED] lets us write its link.
            unsafe { &*node }.link().store(head, Ordering::Relaxed);
            // Release: the owner sees the link and whatever was written before the wake-up.
            match self.head.compare_exchange_weak(head, node.cast_mut(), Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) if head.is_null() => return Pushed::First,
                Ok(_) => return Pushed::Behind,
                Err(now) => head = now,
            }
        }
    }

    /// The same by who has said who it is. It may not be watched any more.
    ///
    /// # Safety
    /// As for [`push`](Self::push).
    #[cold]
    pub unsafe fn push_watched(&self, node: *const N) -> Pushed {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            if head == closed() {
                return Pushed::Refused;
            }
            // SAFETY: as in `push`.
            unsafe { &*node }.link().store(first(head), Ordering::Relaxed);
            let marked = node.cast_mut().map_addr(|address| address | (head.addr() & WATCHED));
            match self.head.compare_exchange_weak(head, marked, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) if first(head).is_null() => return Pushed::First,
                Ok(_) => return Pushed::Behind,
                Err(now) => head = now,
            }
        }
    }

    /// The same if others are there already, and it is not watched; whether that was so. When it was, the inbox is not touched after the push: it may be
    /// gone then.
    ///
    /// # Safety
    /// As for [`push`](Self::push).
    pub unsafe fn push_behind(&self, node: *const N) -> bool {
        let mut head = self.head.load(Ordering::Relaxed);
        while !head.is_null() && !is_watched_or_closed(head) {
            // SAFETY: as in `push`.
            unsafe { &*node }.link().store(head, Ordering::Relaxed);
            match self.head.compare_exchange_weak(head, node.cast_mut(), Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => head = now,
            }
        }
        false
    }

    /// Takes everything out, oldest first, as a list linked through [`Linked::link`]. It is not watched any more.
    pub fn take(&self) -> *const N {
        let head = self.head.load(Ordering::Relaxed);
        if head.is_null() || head == closed() {
            return ptr::null();
        }
        // Only the owner empties or closes it, so it is neither empty nor closed now.
        Self::reversed(first(self.head.swap(ptr::null_mut(), Ordering::AcqRel)))
    }

    /// The same; it is watched from here on.
    pub fn take_watched(&self) -> *const N {
        // Only the owner closes it.
        if self.head.load(Ordering::Relaxed) == closed() {
            return ptr::null();
        }
        Self::reversed(first(self.head.swap(watched(), Ordering::AcqRel)))
    }

    /// Refuses all further pushes and returns what was there, oldest first.
    pub fn close(&self) -> *const N {
        let head = self.head.swap(closed(), Ordering::AcqRel);
        if head == closed() { ptr::null() } else { Self::reversed(first(head)) }
    }

    fn reversed(mut node: *mut N) -> *const N {
        let mut done: *mut N = ptr::null_mut();
        while !node.is_null() {
            // SAFETY: [ALIVE], [LINKED]: the list is ours since the swap.
            let link = unsafe { &*node }.link();
            let next = link.load(Ordering::Relaxed);
            link.store(done, Ordering::Relaxed);
            done = node;
            node = next;
        }
        done
    }
}

#[cfg(all(test, not(trefoil_loom)))]
mod tests {
    use super::*;

    struct Node {
        link: AtomicPtr<Node>,
        id: usize,
    }

    // SAFETY: `link` is what the inbox uses.
    unsafe impl Linked for Node {
        fn link(&self) -> &AtomicPtr<Node> {
            &self.link
        }
    }

    fn ids(mut node: *const Node) -> Vec<usize> {
        let mut ids = Vec::new();
        while !node.is_null() {
            // SAFETY: the nodes outlive their inbox, and the list is ours.
            let here = unsafe { &*node };
            ids.push(here.id);
            node = here.link.load(Ordering::Relaxed);
        }
        ids
    }

    /// The mark is never taken for a node, and stays until the owner takes it away.
    #[test]
    fn an_inbox_is_watched_until_it_is_not() {
        let nodes = [1, 2, 3].map(|id| Node { link: AtomicPtr::new(ptr::null_mut()), id });
        let (inbox, [one, two, three]) = (Inbox::new(), nodes.each_ref().map(ptr::from_ref));
        // SAFETY: they outlive the inbox, and each is in it once.
        unsafe {
            assert_eq!(inbox.push(one), Pushed::First);
            assert_eq!(ids(inbox.take_watched()), [1]);
            assert!(inbox.is_empty() && inbox.take_watched().is_null() && inbox.is_empty());
            assert_eq!((inbox.push(one), inbox.push_behind(one)), (Pushed::Watched, false));
            assert_eq!(inbox.push_watched(one), Pushed::First);
            assert!(!inbox.is_empty());
            assert_eq!((inbox.push(two), inbox.push_behind(two)), (Pushed::Watched, false));
            assert_eq!(inbox.push_watched(two), Pushed::Behind);
            assert_eq!(ids(inbox.take_watched()), [1, 2]);
            assert_eq!(inbox.push_watched(one), Pushed::First);
            assert_eq!(ids(inbox.take()), [1]);
            // Also by who was told that it is, and comes late.
            assert_eq!(inbox.push_watched(one), Pushed::First);
            assert_eq!(inbox.push(two), Pushed::Behind);
            assert!(inbox.push_behind(three));
            assert_eq!(ids(inbox.take_watched()), [1, 2, 3]);
            assert!(inbox.take().is_null());
            assert_eq!(inbox.push(one), Pushed::First);
            inbox.take_watched();
            inbox.push_watched(two);
            assert_eq!(ids(inbox.close()), [2]);
            assert_eq!((inbox.push(one), inbox.push_watched(one)), (Pushed::Refused, Pushed::Refused));
            assert!(inbox.is_empty() && inbox.take_watched().is_null() && inbox.take().is_null());
        }
    }
}
