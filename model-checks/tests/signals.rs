//! What happens once, and what changes (`nursery/src/event.rs`, `nursery/src/sync/{oneshot,watch}.rs`), between threads: all who wait hear of it, a value is received or
//! comes back, and a cancel takes nothing away (R18, R75).

use std::task::Poll;

use trefoil_model_checks::{Drops, Run, Task, model};
use trefoil_nursery::Event;
use trefoil_nursery::sync::{oneshot, watch};

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

// ---- Watched value -------------------------------------------------------------------------------------------------

/// Seen: whether who watches had to wait, and what it saw; who waited looks when both were set.
#[test]
fn set_twice_and_look() {
    let expected = [(false, 1), (false, 2), (true, 2)];
    model("watch: set, set ‖ changed").check(expected, |order| {
        let run = Run::new();
        let (sender, mut receiver) = watch(0);
        let watches = Task::new(&run, async {
            let changed = receiver.changed().await;
            (changed, *receiver.get(), receiver)
        });
        let (_, polled) = order.race2(
            || {
                sender.set(1);
                sender.set(2);
            },
            || watches.poll(),
        );
        let waited = polled.is_pending();
        let (changed, saw, mut receiver) = watches.end_of(polled);
        assert_eq!(changed, Ok(true));
        // What came after the look is told by the next wait, or was seen already.
        let next = Task::new(&run, async { (receiver.changed().await, *receiver.get()) });
        drop(sender);
        let (changed, last) = next.end_of(next.poll());
        assert!(changed.is_ok() && last == 2);
        watches.end();
        next.end();
        (waited, saw)
    });
}

/// R36, N5: a change that came to a wait that is cancelled is told by the next one. Seen: whether it was cancelled, and whether the poll in the
/// race was the last.
#[test]
fn r36_set_and_cancel_a_watcher_that_is_polled() {
    let expected = [("told", false), ("told", true), ("cancelled", false), ("cancelled", true)];
    model("watch: set ‖ cancel ‖ poll").three().bound(2).check(expected, |order| {
        let runs = (Run::new(), Run::new());
        let (sender, mut receiver) = watch(0);
        let watches = Task::waiting(&runs.0, async move { (receiver.changed().await, receiver) });
        let (_, _, polled) = order.race3(|| sender.set(1), || watches.cancel(), || watches.poll());
        let at_once = polled.is_ready();
        let (changed, mut receiver) = watches.end_of(polled);
        let how = if changed == Ok(true) { "told" } else { "cancelled" };
        let next = Task::new(&runs.1, async { (receiver.changed().await, *receiver.get()) });
        drop(sender);
        assert_eq!(next.end_of(next.poll()), (Ok(how == "cancelled"), 1));
        watches.end();
        next.end();
        (how, at_once)
    });
}

/// Two change it at once: neither change is lost. Seen: how often the changes were made.
#[test]
fn update_and_update() {
    model("watch: update ‖ update").check([2, 3], |order| {
        let _run = Run::new();
        let (sender, receiver) = watch(0);
        let tries = std::sync::atomic::AtomicUsize::new(0);
        let add = |n: u32| {
            sender.update(|value| {
                tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                value + n
            });
        };
        order.race2(|| add(1), || add(2));
        assert_eq!(*receiver.get(), 3);
        tries.into_inner()
    });
}
