//! What happens once (`nursery/src/event.rs`, `nursery/src/sync/oneshot.rs`), between threads: all who wait hear of it, a value is received or
//! comes back, and a cancel takes nothing away (R18, R75).

#![cfg(trefoil_loom)]

use std::task::Poll;

use trefoil_model_checks::{Drops, Run, Task, model};
use trefoil_nursery::Event;
use trefoil_nursery::sync::oneshot;

// ---- Event ---------------------------------------------------------------------------------------------------------

/// One waits, and another begins to while it is set. Seen: whether the second had to wait.
#[test]
fn r75_set_and_begin_to_wait() {
    model("event: set ‖ wait, beside one that waits").check([false, true], |order| {
        let runs = (Run::new(), Run::new());
        let event = Event::new();
        let (waits, begins) = (Task::waiting(&runs.0, event.wait()), Task::new(&runs.1, event.wait()));
        let (_, polled) = order.race2(|| event.set(), || begins.poll());
        let waited = polled.is_pending();
        assert_eq!((waits.end_of(Poll::Pending), begins.end_of(polled)), (Ok(()), Ok(())));
        assert!(event.is_set());
        waits.end();
        begins.end();
        waited
    });
}

/// R18: the first of the two decides. Seen: which, and whether the poll in the race was the last.
#[test]
fn r18_set_and_cancel_and_poll() {
    let expected = [("set", false), ("set", true), ("cancelled", false), ("cancelled", true)];
    model("event: set ‖ cancel ‖ poll").three().bound(2).check(expected, |order| {
        let run = Run::new();
        let event = Event::new();
        let task = Task::waiting(&run, event.wait());
        let (_, _, polled) = order.race3(|| event.set(), || task.cancel(), || task.poll());
        let at_once = polled.is_ready();
        let how = if task.end_of(polled).is_ok() { "set" } else { "cancelled" };
        task.end();
        (how, at_once)
    });
}

/// Two set it at once, and the first of two who wait goes away: the other hears of it, once. Seen: whether the first was told.
#[test]
fn r75_set_twice_and_drop_the_first_of_two() {
    model("event: set ‖ set ‖ drop the first of two").three().bound(3).check([false, true], |order| {
        let run = Run::new();
        let event = Event::new();
        let (first, second) = (Task::waiting(&run, event.wait()), Task::waiting(&run, event.wait()));
        order.race3(|| event.set(), || event.set(), || first.give_up());
        let told = first.woken.times() > 0;
        assert_eq!(second.woken.times(), 1);
        assert_eq!(second.end_of(Poll::Pending), Ok(()));
        first.end();
        second.end();
        told
    });
}

// ---- One-shot ------------------------------------------------------------------------------------------------------

/// Seen: whether the receiver had to wait.
#[test]
fn send_and_receive() {
    model("one-shot: send ‖ receive").check([false, true], |order| {
        let (run, drops) = (Run::new(), Drops::new());
        let (sender, mut receiver) = oneshot();
        let receives = Task::new(&run, receiver.recv());
        let item = drops.token();
        let (sent, polled) = order.race2(|| sender.send(item), || receives.poll());
        assert!(sent.is_ok());
        let waited = polled.is_pending();
        assert!(matches!(receives.end_of(polled), Ok(Some(_))));
        assert!(drops.all());
        receives.end();
        waited
    });
}

/// A sender that goes without sending ends the wait. Seen: whether there was one.
#[test]
fn drop_the_sender_and_receive() {
    model("one-shot: drop the sender ‖ receive").check([false, true], |order| {
        let run = Run::new();
        let (sender, mut receiver) = oneshot::<()>();
        let receives = Task::new(&run, receiver.recv());
        let (_, polled) = order.race2(|| drop(sender), || receives.poll());
        let waited = polled.is_pending();
        assert_eq!(receives.end_of(polled), Ok(None));
        receives.end();
        waited
    });
}

/// The receiver goes: the value comes back, or goes with it. Seen: whether it came back.
#[test]
fn send_and_drop_the_receiver() {
    model("one-shot: send ‖ drop the receiver").check([false, true], |order| {
        let (_run, drops) = (Run::new(), Drops::new());
        let (sender, receiver) = oneshot();
        let item = drops.token();
        let (sent, ()) = order.race2(|| sender.send(item), || drop(receiver));
        let back = sent.is_err();
        assert_eq!(drops.all(), !back);
        drop(sent);
        assert!(drops.all());
        back
    });
}

/// R36: a receive that is cancelled has not received; the value is there for the next one. Seen: which it was, and whether the poll in the race
/// was the last.
#[test]
fn r36_send_and_cancel_and_poll() {
    let expected = [("received", false), ("received", true), ("cancelled", false), ("cancelled", true)];
    model("one-shot: send ‖ cancel ‖ poll").three().bound(2).check(expected, |order| {
        let (run, drops) = (Run::new(), Drops::new());
        let (sender, mut receiver) = oneshot();
        let receives = Task::waiting(&run, async move { (receiver.recv().await, receiver) });
        let item = drops.token();
        let (sent, _, polled) = order.race3(|| sender.send(item), || receives.cancel(), || receives.poll());
        assert!(sent.is_ok());
        let at_once = polled.is_ready();
        let (received, mut receiver) = receives.end_of(polled);
        let how = if let Ok(item) = received {
            assert!(item.is_some());
            "received"
        } else {
            assert!(receiver.try_recv().is_some());
            "cancelled"
        };
        assert!(drops.all() && receiver.try_recv().is_none());
        receives.end();
        (how, at_once)
    });
}
