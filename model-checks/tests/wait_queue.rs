//! A state with queues of waiting operations (`runtime/src/wait.rs`), from which events and channels are made: an item that is handed over
//! while its receiver is cancelled, withdraws or goes away has one owner always, and is dropped once.
//!
//! The queue of the models is a slot for one item: who sends hands the item to whoever waits, or puts it into the slot.

use std::cell::RefCell;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

use trefoil_model_checks::{Drops, Run, Token, Woken, model};
use trefoil_runtime::model::{link, unlink};
use trefoil_runtime::{Cancelled, Handed, Kind, Reason, Scope, Source, Turn, Wait, WaitQueue, Waiter};

const RECEIVERS: usize = 0;
const SENDERS: usize = 1;

type Slot = WaitQueue<Option<Token>, Token, 2>;
type Op<'a> = Waiter<'a, Option<Token>, Token, 2>;

/// Sends without waiting; `Err` where the slot is full.
fn send(slot: &Slot, item: Token) -> Result<(), Token> {
    let mut guard = slot.lock();
    match guard.hand(RECEIVERS, Some(item)) {
        Ok(nothing) => {
            assert!(nothing.is_none(), "a receiver brings nothing");
            Ok(())
        }
        Err(item) if guard.is_none() => {
            *guard = item;
            Ok(())
        }
        Err(item) => Err(item.unwrap()),
    }
}

/// Takes without waiting, and lets the oldest sender put its item in.
fn receive(slot: &Slot) -> Option<Token> {
    let mut guard = slot.lock();
    let item = guard.take();
    if let Ok(next) = guard.hand(SENDERS, None) {
        if item.is_none() {
            return next;
        }
        *guard = next;
    }
    item
}

/// How a receiver ended: with an item, if it was not cancelled.
type Got = Result<Token, Cancelled>;

/// One operation in a scope of its own. It is freed as soon as it is over.
struct Receiver<'a> {
    op: RefCell<Option<Pin<Box<Op<'a>>>>>,
    scope: Pin<Box<Scope>>,
    woken: Woken,
    run: &'a Run,
}

impl<'a> Receiver<'a> {
    fn new(run: &'a Run, slot: &'a Slot) -> Self {
        let scope = Box::pin(Scope::new(Kind::Scope, Location::caller()));
        // SAFETY: it is pinned, and unlinked in `end`.
        unsafe { link(&scope, run.tree, None) };
        Self { op: RefCell::new(Some(Box::pin(slot.waiter()))), scope, woken: Woken::new(), run }
    }

    fn waiting(run: &'a Run, slot: &'a Slot) -> Self {
        let this = Self::new(run, slot);
        assert!(this.poll_now().is_pending());
        this
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Got> {
        let mut op = self.op.borrow_mut();
        let waiter = op.as_mut().expect("polled after it was over").as_mut();
        let polled = self.run.within(&self.scope, || {
            waiter.poll(cx, Wait::new(Reason::Receive), |slot| match slot.take() {
                Some(item) => Turn::Ready(item),
                None => Turn::Wait(RECEIVERS, None),
            })
        });
        let Poll::Ready(end) = polled else { return Poll::Pending };
        *op = None;
        Poll::Ready(match end {
            Ok(Handed::Ready(item)) => Ok(item),
            Ok(Handed::Handed(item)) => Ok(item.expect("handed with an item")),
            Err((cancelled, nothing)) => {
                assert!(nothing.is_none(), "it had brought nothing");
                Err(cancelled)
            }
        })
    }

    fn poll_now(&self) -> Poll<Got> {
        self.woken.poll(|cx| self.poll(cx))
    }

    /// Polls whenever it is woken.
    fn settle(&self, polled: Poll<Got>) -> Poll<Got> {
        let mut polled = polled;
        self.woken.settle(|cx| {
            if polled.is_pending() {
                polled = self.poll(cx);
            }
        });
        polled
    }

    fn cancel(&self) {
        self.scope.cancel(Source::Explicit, Location::caller());
    }

    /// Gives it up: `Some` if it had been served.
    fn withdraw(&self) -> Option<Token> {
        let mut op = self.op.borrow_mut().take().unwrap();
        op.as_mut().withdraw().map(|item| item.expect("served with an item"))
    }

    fn end(self) {
        self.op.take();
        unlink(&self.scope);
        assert_eq!(self.woken.wakers(), 0, "a waker was kept");
    }
}

/// A receiver begins while an item is sent: it finds it, or is handed it. Seen: whether it waited.
#[test]
fn send_and_receive() {
    model("wait: send ‖ receive").check([false, true], |order| {
        let (run, drops) = (Run::new(), Drops::new());
        let slot = Slot::new(None);
        let receiver = Receiver::new(&run, &slot);
        let item = drops.token();
        let (_, polled) = order.race2(|| send(&slot, item).unwrap(), || receiver.poll_now());
        let waited = polled.is_pending();
        let Poll::Ready(Ok(item)) = receiver.settle(polled) else { panic!("the item was lost") };
        drop(item);
        assert!(drops.all() && receive(&slot).is_none());
        receiver.end();
        waited
    });
}

/// An item is handed to a receiver that is polled with another waker, and frees itself at once. Seen: whether that poll was the last.
#[test]
fn hand_and_poll() {
    model("wait: hand ‖ poll with another waker, free").check([false, true], |order| {
        let (run, drops) = (Run::new(), Drops::new());
        let slot = Slot::new(None);
        let mut receiver = Receiver::waiting(&run, &slot);
        let first = std::mem::replace(&mut receiver.woken, Woken::new());
        let item = drops.token();
        let (_, polled) = order.race2(|| send(&slot, item).unwrap(), || receiver.poll_now());
        let at_once = polled.is_ready();
        let Poll::Ready(Ok(item)) = receiver.settle(polled) else { panic!("the item was lost") };
        drop(item);
        assert!(drops.all() && first.wakers() == 0);
        receiver.end();
        at_once
    });
}

/// An item is handed to a receiver whose scope is cancelled, and which is polled: it has the item, or the slot has. Seen: who has,
/// and whether the poll in the race was the last.
#[test]
fn hand_and_cancel_and_poll() {
    let expected = [("receiver", false), ("receiver", true), ("slot", false), ("slot", true)];
    model("wait: hand ‖ cancel ‖ poll").three().bound(2).check(expected, |order| {
        let (run, drops) = (Run::new(), Drops::new());
        let slot = Slot::new(None);
        let receiver = Receiver::waiting(&run, &slot);
        let item = drops.token();
        let (_, _, polled) = order.race3(|| send(&slot, item).unwrap(), || receiver.cancel(), || receiver.poll_now());
        let at_once = polled.is_ready();
        let Poll::Ready(end) = receiver.settle(polled) else { panic!("the waker was lost") };
        let left = receive(&slot);
        assert_eq!(end.is_ok(), left.is_none(), "the item has one owner");
        let who = if end.is_ok() { "receiver" } else { "slot" };
        drop((end, left));
        assert!(drops.all());
        receiver.end();
        (who, at_once)
    });
}

/// Two receivers wait, and one of them is cancelled while an item is sent: a cancelled one is passed over. Seen: who has the item.
#[test]
fn hand_and_cancel_one_of_two() {
    model("wait: hand ‖ cancel the first of two").check(["first", "second"], |order| {
        let (run, drops) = (Run::new(), Drops::new());
        let slot = Slot::new(None);
        let (first, second) = (Receiver::waiting(&run, &slot), Receiver::waiting(&run, &slot));
        let item = drops.token();
        order.race2(|| send(&slot, item).unwrap(), || first.cancel());
        let Poll::Ready(ended) = first.settle(Poll::Pending) else { panic!("a waker was lost") };
        let who = match (ended, second.settle(Poll::Pending)) {
            (Ok(_), Poll::Pending) => "first",
            (Err(_), Poll::Ready(Ok(_))) => "second",
            other => panic!("{other:?}"),
        };
        assert!(drops.all() && receive(&slot).is_none());
        first.end();
        second.end();
        who
    });
}

/// A receiver withdraws while it is handed an item, and another is cancelled: what it had got it gives back. Seen: whether it had.
#[test]
fn hand_and_withdraw() {
    model("wait: hand ‖ withdraw").check([false, true], |order| {
        let (run, drops) = (Run::new(), Drops::new());
        let slot = Slot::new(None);
        let receiver = Receiver::waiting(&run, &slot);
        let item = drops.token();
        let (_, withdrawn) = order.race2(|| send(&slot, item).unwrap(), || receiver.withdraw());
        let left = receive(&slot);
        let served = withdrawn.is_some();
        assert_eq!(served, left.is_none(), "the item has one owner");
        drop((withdrawn, left));
        assert!(drops.all());
        receiver.end();
        served
    });
}

/// The same while it is cancelled.
#[test]
fn hand_and_cancel_and_withdraw() {
    model("wait: hand ‖ cancel ‖ withdraw").three().bound(3).check([false, true], |order| {
        let (run, drops) = (Run::new(), Drops::new());
        let slot = Slot::new(None);
        let receiver = Receiver::waiting(&run, &slot);
        let item = drops.token();
        let (_, _, withdrawn) =
            order.race3(|| send(&slot, item).unwrap(), || receiver.cancel(), || receiver.withdraw());
        let left = receive(&slot);
        let served = withdrawn.is_some();
        assert_eq!(served, left.is_none(), "the item has one owner");
        drop((withdrawn, left));
        assert!(drops.all());
        receiver.end();
        served
    });
}

/// A receiver goes away while it is handed an item, which then goes with it. Seen: whether it had got it.
#[test]
fn hand_and_drop() {
    model("wait: hand ‖ drop").check([false, true], |order| {
        let (run, drops) = (Run::new(), Drops::new());
        let slot = Slot::new(None);
        let receiver = Receiver::waiting(&run, &slot);
        let item = drops.token();
        order.race2(|| send(&slot, item).unwrap(), || drop(receiver.op.borrow_mut().take()));
        let left = receive(&slot);
        let went = left.is_none();
        assert_eq!(drops.count(), usize::from(went));
        drop(left);
        assert!(drops.all());
        receiver.end();
        went
    });
}

/// A sender that waits brings an item. It is cancelled while the item is taken: it gets it back, or the other side has it. Seen: who has.
#[test]
fn take_and_cancel_a_sender() {
    model("wait: take ‖ cancel a sender ‖ poll it").three().bound(2).check(["sender", "taker"], |order| {
        let (run, drops) = (Run::new(), Drops::new());
        let slot = Slot::new(Some(drops.token()));
        let scope = Box::pin(Scope::new(Kind::Scope, Location::caller()));
        // SAFETY: it is pinned, and unlinked below.
        unsafe { link(&scope, run.tree, None) };
        let woken = Woken::new();
        let op = RefCell::new(Some(Box::pin(slot.waiter())));
        let item = RefCell::new(Some(drops.token()));
        let poll = |cx: &mut Context<'_>| {
            let mut slot = op.borrow_mut();
            let waiter = slot.as_mut().expect("polled after it was over").as_mut();
            let polled = run.within(&scope, || {
                waiter.poll(cx, Wait::new(Reason::Send), |slot| {
                    assert!(slot.is_some());
                    Turn::<(), _>::Wait(SENDERS, item.borrow_mut().take())
                })
            });
            if polled.is_ready() {
                *slot = None;
            }
            polled
        };
        assert!(woken.poll(poll).is_pending());
        let (first, _, polled) =
            order.race3(|| receive(&slot), || scope.cancel(Source::Explicit, Location::caller()), || woken.poll(poll));
        assert!(first.is_some());
        let mut polled = polled;
        woken.settle(|cx| {
            if polled.is_pending() {
                polled = poll(cx);
            }
        });
        let Poll::Ready(end) = polled else { panic!("the waker was lost") };
        let second = receive(&slot);
        let who = match (end, &second) {
            (Ok(Handed::Handed(None)), Some(_)) => "taker",
            (Err((_, Some(_))), None) => "sender",
            other => panic!("{other:?}"),
        };
        drop((first, second));
        assert!(drops.all());
        unlink(&scope);
        assert_eq!(woken.wakers(), 0);
        who
    });
}
