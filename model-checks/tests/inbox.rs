//! The queue that any thread pushes to (`runtime/src/sync/inbox.rs`): every accepted push comes out once, the owner is told whenever the
//! queue stops being empty, and after `close` all are refused.

use std::ptr;
use trefoil_model_checks::model;
use trefoil_runtime::model::{Inbox, Linked, Pushed};
use trefoil_runtime::sync::{AtomicPtr, Ordering, UnsafeCell};

struct Node {
    link: AtomicPtr<Node>,
    id: usize,
    /// Written by the pusher, read by the owner: the push has to order that.
    content: UnsafeCell<usize>,
}

// SAFETY: `link` is what the inbox uses.
unsafe impl Linked for Node {
    fn link(&self) -> &AtomicPtr<Node> {
        &self.link
    }
}

impl Node {
    fn new(id: usize) -> Self {
        Self { link: AtomicPtr::new(ptr::null_mut()), id, content: UnsafeCell::new(0) }
    }
}

fn push(inbox: &Inbox<Node>, node: &Node) -> Pushed {
    // SAFETY: loom fails the model if somebody else is at it.
    node.content.with_mut(|content| unsafe { *content = 10 + node.id });
    // SAFETY: the nodes of a model outlive its inbox, and each is pushed by who holds it.
    unsafe { inbox.push(node) }
}

/// Walks a list, and gives the right to push its nodes back.
fn ids(mut node: *const Node) -> Vec<usize> {
    let mut ids = Vec::new();
    while !node.is_null() {
        // SAFETY: as above.
        let here = unsafe { &*node };
        // SAFETY: loom fails the model if somebody writes to it.
        assert_eq!(here.content.with(|content| unsafe { *content }), 10 + here.id);
        ids.push(here.id);
        node = here.link.load(Ordering::Relaxed);
    }
    ids
}

/// Two push, two each and one, while the owner takes twice. Seen: how many it got each time, and what each push was told.
///
/// Whoever is told `First` tells the owner, who then looks: so for every look that finds something there is one `First`.
#[test]
fn every_push_comes_out_once_and_in_order() {
    let mut expected = Vec::new();
    for first in 0..=3 {
        for second in 0..=3 - first {
            let looks = [first, second, 3 - first - second].iter().filter(|&&got| got > 0).count();
            expected.push((first, second, looks));
        }
    }
    model("inbox: push ‖ push ‖ take").three().bound(4).check(expected, |order| {
        let nodes = [Node::new(1), Node::new(2), Node::new(3)];
        let inbox = Inbox::new();
        let (a, b, (first, second)) = order.race3(
            || [push(&inbox, &nodes[0]), push(&inbox, &nodes[1])],
            || [push(&inbox, &nodes[2])],
            || (ids(inbox.take()), ids(inbox.take())),
        );
        let last = ids(inbox.take());
        assert!(inbox.is_empty() && inbox.take().is_null());

        let all = [first.clone(), second.clone(), last.clone()].concat();
        let mut sorted = all.clone();
        sorted.sort();
        assert_eq!(sorted, [1, 2, 3]);
        assert!(all.iter().position(|&id| id == 1) < all.iter().position(|&id| id == 2), "{all:?}");
        let told = a.iter().chain(&b).filter(|&&pushed| pushed == Pushed::First).count();
        assert!(a.iter().chain(&b).all(|&pushed| pushed != Pushed::Refused));
        let looks = [&first, &second, &last].iter().filter(|got| !got.is_empty()).count();
        assert_eq!(told, looks, "every time that it stops being empty the owner is told, once");
        (first.len(), second.len(), looks)
    });
}

/// Two push while the owner takes and then closes, as at the end of a run. Seen: which pushes were accepted, and how many
/// came out of `close`.
#[test]
fn what_is_accepted_before_the_end_comes_out_and_nothing_is_after() {
    let expected = [
        ((false, false), 0),
        ((false, true), 0),
        ((false, true), 1),
        ((true, false), 0),
        ((true, false), 1),
        ((true, true), 0),
        ((true, true), 1),
        ((true, true), 2),
    ];
    model("inbox: push ‖ push ‖ close").three().check(expected, |order| {
        let nodes = [Node::new(1), Node::new(2), Node::new(3)];
        let inbox = Inbox::new();
        let (a, b, (taken, left)) = order.race3(
            || push(&inbox, &nodes[0]) != Pushed::Refused,
            || push(&inbox, &nodes[1]) != Pushed::Refused,
            || (ids(inbox.take()), ids(inbox.close())),
        );
        let mut out = [taken, left.clone()].concat();
        out.sort();
        let accepted: Vec<_> = [(a, 1), (b, 2)].into_iter().filter(|(yes, _)| *yes).map(|(_, id)| id).collect();
        assert_eq!(out, accepted);
        // For ever.
        assert_eq!(push(&inbox, &nodes[2]), Pushed::Refused);
        assert!(inbox.is_empty() && inbox.take().is_null() && inbox.close().is_null());
        ((a, b), left.len())
    });
}

/// A node comes out and goes in again while another is half way in: the head has the same address as before, over another list.
/// Seen: what came out the second time.
#[test]
fn a_node_may_come_back() {
    model("inbox: push ‖ take and push again").check([vec![1], vec![1, 2], vec![2, 1]], |order| {
        let nodes = [Node::new(1), Node::new(2)];
        let inbox = Inbox::new();
        push(&inbox, &nodes[0]);
        let (_, (first, again)) = order.race2(
            || push(&inbox, &nodes[1]),
            || {
                let first = ids(inbox.take());
                if first.contains(&1) {
                    push(&inbox, &nodes[0]);
                }
                (first, ids(inbox.take()))
            },
        );
        let last = ids(inbox.take());
        let mut all = [first.clone(), again.clone(), last].concat();
        all.sort();
        assert_eq!(all, [1, 1, 2]);
        again
    });
}

/// Two push, one of them twice, while the owner takes and watches, and takes and watches no more. Seen: how many found it watched. Whatever they find, each node comes out once, those of one thread in order, and the owner is told once for each time that
/// it stops being empty.
#[test]
fn who_finds_it_watched_says_so_and_pushes_again() {
    let push = |inbox: &Inbox<Node>, node: &Node| match push(inbox, node) {
        // SAFETY: as in `push`: it was not taken.
        Pushed::Watched => (true, unsafe { inbox.push_watched(node) }),
        pushed => (false, pushed),
    };
    model("inbox: push ‖ push ‖ watch and unwatch").three().bound(3).check(0..=3, move |order| {
        let nodes = [Node::new(1), Node::new(2), Node::new(3)];
        let inbox = Inbox::new();
        let (a, b, (first, second)) = order.race3(
            || [push(&inbox, &nodes[0]), push(&inbox, &nodes[1])],
            || push(&inbox, &nodes[2]),
            || (ids(inbox.take_watched()), ids(inbox.take())),
        );
        let last = ids(inbox.take());
        assert!(inbox.is_empty() && inbox.take().is_null());
        let all = [first.clone(), second.clone(), last.clone()].concat();
        let mut sorted = all.clone();
        sorted.sort();
        assert_eq!(sorted, [1, 2, 3]);
        assert!(all.iter().position(|&id| id == 1) < all.iter().position(|&id| id == 2), "{all:?}");
        let pushes = [a[0], a[1], b];
        assert!(pushes.iter().all(|(_, pushed)| matches!(pushed, Pushed::First | Pushed::Behind)));
        let told = pushes.iter().filter(|(_, pushed)| *pushed == Pushed::First).count();
        let looks = [&first, &second, &last].iter().filter(|got| !got.is_empty()).count();
        assert_eq!(told, looks);
        pushes.iter().filter(|(watched, _)| *watched).count()
    });
}
