//! Channels (`nursery/src/channel.rs`) between threads: each item is in one place always, whatever is cancelled, dropped or closed meanwhile,
//! and who closes wakes all that wait (R92–R98, N5, N6).
//!
//! Tasks on two threads are in runs of their own, as they are in programs.

use std::task::Poll;

use trefoil_model_checks::{Drops, Run, Task, model};
use trefoil_nursery::{SendError, TryRecvError, TrySendError, channel};

/// Seen: who had to wait, without room and with it.
#[test]
fn r92_send_and_receive() {
    for (capacity, expected) in [(0, vec![(false, true), (true, false)]), (1, vec![(false, false), (false, true)])] {
        model("channel: send ‖ receive").check(expected, move |order| {
            let (runs, drops) = ((Run::new(), Run::new()), Drops::new());
            let (sender, receiver) = channel(capacity);
            let (sends, receives) =
                (Task::new(&runs.0, sender.send(drops.token())), Task::new(&runs.1, receiver.recv()));
            let (sent, received) = order.race2(|| sends.poll(), || receives.poll());
            let waited = (sent.is_pending(), received.is_pending());
            // With no room the one that waits is served by the other.
            let item = receives.end_of(received);
            assert!(sends.end_of(sent).is_ok() && matches!(item, Ok(Some(_))));
            drop(item);
            assert!(drops.all());
            sends.end();
            receives.end();
            waited
        });
    }
}

/// R98: who has the item. Seen: that, and whether the poll in the race was the last.
#[test]
fn r98_send_and_cancel_a_receiver_that_is_polled() {
    let expected = [("receiver", false), ("receiver", true), ("channel", false), ("channel", true)];
    model("channel: send ‖ cancel the receiver ‖ poll it").three().bound(2).check(expected, |order| {
        let (run, drops) = (Run::new(), Drops::new());
        let (sender, receiver) = channel(1);
        let receives = Task::waiting(&run, receiver.recv());
        let item = drops.token();
        let (sent, _, polled) = order.race3(|| sender.try_send(item), || receives.cancel(), || receives.poll());
        assert!(sent.is_ok());
        let at_once = polled.is_ready();
        let who = match receives.end_of(polled) {
            Ok(item) => {
                assert!(item.is_some() && matches!(receiver.try_recv(), Err(TryRecvError::Empty)));
                "receiver"
            }
            Err(_) => {
                assert!(receiver.try_recv().is_ok());
                "channel"
            }
        };
        assert!(drops.all());
        receives.end();
        (who, at_once)
    });
}

/// N6, R98: a sender that is cancelled while its item is taken has it back, or has sent it. Seen: which.
#[test]
fn n6_receive_and_cancel_a_sender_that_is_polled() {
    let expected = [("sent", false), ("sent", true), ("back", false), ("back", true)];
    model("channel: receive ‖ cancel the sender ‖ poll it").three().bound(2).check(expected, |order| {
        let (run, drops) = (Run::new(), Drops::new());
        let (sender, receiver) = channel(0);
        let sends = Task::waiting(&run, sender.send(drops.token()));
        let (received, _, polled) = order.race3(|| receiver.try_recv(), || sends.cancel(), || sends.poll());
        let at_once = polled.is_ready();
        let how = match (sends.end_of(polled), received) {
            (Ok(()), Ok(_)) => "sent",
            (Err(SendError::Cancelled(_, _)), Err(TryRecvError::Empty)) => "back",
            other => panic!("{other:?}"),
        };
        assert!(drops.all());
        sends.end();
        (how, at_once)
    });
}

/// N5: an item that was handed to a receive that goes away goes to the next one. Seen: whether it had been handed to the first.
#[test]
fn n5_send_and_drop_the_first_of_two_receivers() {
    model("channel: send ‖ drop the first of two receivers").check([false, true], |order| {
        let (run, drops) = (Run::new(), Drops::new());
        let (sender, receiver) = channel(1);
        let (first, second) = (Task::waiting(&run, receiver.recv()), Task::waiting(&run, receiver.recv()));
        let item = drops.token();
        let (sent, ()) = order.race2(|| sender.try_send(item), || first.give_up());
        assert!(sent.is_ok());
        let handed = first.woken.times() > 0;
        assert!(matches!(second.end_of(Poll::Pending), Ok(Some(_))));
        assert!(drops.all() && receiver.is_empty());
        first.end();
        second.end();
        handed
    });
}

/// R94: the last sender goes while one receiver waits and another begins to. All hear of it. Seen: whether the second had to wait.
#[test]
fn r94_close_the_last_sender_and_receive() {
    model("channel: drop the last sender ‖ receive, beside one that waits").check([false, true], |order| {
        let runs = (Run::new(), Run::new());
        let (sender, receiver) = channel::<()>(1);
        let (waits, begins) = (Task::waiting(&runs.0, receiver.recv()), Task::new(&runs.1, receiver.recv()));
        let (_, polled) = order.race2(|| drop(sender), || begins.poll());
        let waited = polled.is_pending();
        assert_eq!((waits.end_of(Poll::Pending), begins.end_of(polled)), (Ok(None), Ok(None)));
        waits.end();
        begins.end();
        waited
    });
}

/// R94: what was sent before the last sender went is received. Seen: how many of the two polls gave an item at once.
#[test]
fn r94_send_and_close_and_receive() {
    model("channel: send, drop the sender ‖ receive, receive").check([0, 1, 2], |order| {
        let (run, drops) = (Run::new(), Drops::new());
        let (sender, receiver) = channel(1);
        let (first, second) = (Task::new(&run, receiver.recv()), Task::new(&run, receiver.recv()));
        let item = drops.token();
        let ((), (one, two)) = order.race2(
            || {
                assert!(sender.try_send(item).is_ok());
                drop(sender);
            },
            || (first.poll(), second.poll()),
        );
        let at_once = usize::from(one.is_ready()) + usize::from(two.is_ready());
        let (one, two) = (first.end_of(one), second.end_of(two));
        assert!(matches!((&one, &two), (Ok(Some(_)), Ok(None))), "in order, and then the end");
        drop((one, two));
        assert!(drops.all());
        first.end();
        second.end();
        at_once
    });
}

/// R95: the last receiver goes while one sender waits, and another tries. Each item comes back, or goes with the channel. Seen: what became of
/// the two.
#[test]
fn r95_close_the_last_receiver_and_send() {
    let expected = [("back", "back"), ("back", "full")];
    model("channel: drop the last receiver ‖ try to send, beside one that waits").check(expected, |order| {
        let (run, drops) = (Run::new(), Drops::new());
        let (sender, receiver) = channel(1);
        sender.try_send(drops.token()).unwrap();
        let waits = Task::waiting(&run, sender.send(drops.token()));
        let item = drops.token();
        let (_, tried) = order.race2(|| drop(receiver), || sender.try_send(item));
        let first = match waits.end_of(Poll::Pending) {
            Err(SendError::Closed(_)) => "back",
            other => panic!("{other:?}"),
        };
        let second = match &tried {
            Err(TrySendError::Closed(_)) => "back",
            Err(TrySendError::Full(_)) => "full",
            other => panic!("{other:?}"),
        };
        drop(tried);
        assert!(drops.all(), "what was in the buffer went with it");
        waits.end();
        (first, second)
    });
}

/// R95: a send that finds room while the last receiver goes. Seen: whether it was sent; the item is gone either way.
#[test]
fn r95_close_the_last_receiver_and_send_into_room() {
    model("channel: drop the last receiver ‖ send").check([false, true], |order| {
        let (run, drops) = (Run::new(), Drops::new());
        let (sender, receiver) = channel(1);
        let sends = Task::new(&run, sender.send(drops.token()));
        let (_, polled) = order.race2(|| drop(receiver), || sends.poll());
        let Poll::Ready(sent) = polled else { panic!("it need not wait") };
        let ok = sent.is_ok();
        assert_eq!(drops.all(), ok, "it comes back, or went");
        assert!(ok || matches!(sent, Err(SendError::Closed(_))));
        drop(sent);
        assert!(drops.all());
        sends.end();
        ok
    });
}

/// R96: the handle is closed through which a send waits, while a receiver takes. Seen: what became of the item.
#[test]
fn r96_close_the_handle_and_receive() {
    model("channel: close the sender ‖ receive what it waits to send").check(["back", "sent"], |order| {
        let (run, drops) = (Run::new(), Drops::new());
        let (sender, receiver) = channel(0);
        let _other = sender.clone();
        let sends = Task::waiting(&run, sender.send(drops.token()));
        let (_, received) = order.race2(|| sender.close(), || receiver.try_recv());
        let how = match (sends.end_of(Poll::Pending), received) {
            (Ok(()), Ok(_)) => "sent",
            (Err(SendError::HandleClosed(_)), Err(TryRecvError::Empty)) => "back",
            other => panic!("{other:?}"),
        };
        assert!(drops.all());
        sends.end();
        how
    });
}

/// R96: closed twice at once, by a call and by a drop of a clone's: each handle counts once. Seen: whether the clone was open.
#[test]
fn r96_close_and_clone_and_drop() {
    model("channel: close ‖ clone, drop").check([false, true], |order| {
        let run = Run::new();
        let (sender, receiver) = channel::<()>(1);
        let waits = Task::waiting(&run, receiver.recv());
        let (_, open) = order.race2(
            || sender.close(),
            || {
                let clone = sender.clone();
                let open = !clone.is_closed();
                drop(clone);
                open
            },
        );
        assert_eq!(waits.end_of(Poll::Pending), Ok(None));
        assert_eq!(receiver.statistics().senders, 0);
        drop(sender);
        assert_eq!(receiver.statistics().senders, 0);
        waits.end();
        open
    });
}

/// R92: two threads send, and a third receives twice. Each item comes once. Seen: in which order, and who had to wait.
#[test]
fn r92_two_senders_and_a_receiver() {
    let expected = [(1, 2), (2, 1)];
    model("channel: send 1 ‖ send 2 ‖ receive").three().bound(2).check(expected, |order| {
        let runs = (Run::new(), Run::new(), Run::new());
        let (sender, receiver) = channel(1);
        let (a, b) = (Task::new(&runs.0, sender.send(1)), Task::new(&runs.1, sender.send(2)));
        let receives = Task::new(&runs.2, async {
            let first = receiver.recv().await.unwrap().unwrap();
            (first, receiver.recv().await.unwrap().unwrap())
        });
        let (in_a, in_b, both) = order.race3(|| a.poll(), || b.poll(), || receives.poll());
        let both = receives.settle(both);
        assert!(a.end_of(in_a).is_ok() && b.end_of(in_b).is_ok());
        let got = receives.end_of(both);
        a.end();
        b.end();
        receives.end();
        got
    });
}

/// The same with one sender, two receivers of which one is cancelled, and no room. Seen: who has the item.
#[test]
fn r92_a_sender_and_two_receivers_of_which_one_is_cancelled() {
    let expected = ["first", "second"];
    model("channel: send ‖ cancel the first ‖ second receives").three().bound(2).check(expected, |order| {
        let (runs, drops) = ((Run::new(), Run::new(), Run::new()), Drops::new());
        let (sender, receiver) = channel(0);
        let first = Task::waiting(&runs.0, receiver.recv());
        let second = Task::new(&runs.1, receiver.recv());
        let sends = Task::new(&runs.2, sender.send(drops.token()));
        let (sent, _, polled) = order.race3(|| sends.poll(), || first.cancel(), || second.poll());
        let one = first.end_of(Poll::Pending);
        let two = second.settle(polled);
        assert!(sends.end_of(sent).is_ok());
        let who = match (one, two) {
            (Ok(Some(_)), Poll::Pending) => "first",
            (Err(_), Poll::Ready(Ok(Some(_)))) => "second",
            other => panic!("{other:?}"),
        };
        assert!(drops.all());
        first.end();
        second.end();
        sends.end();
        who
    });
}
