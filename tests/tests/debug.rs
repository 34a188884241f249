//! The `Debug` output of what users have in their hands: its exact text; and that it goes to code of others under no lock.

use std::fmt::{self, Write};
use std::sync::Arc;
use trefoil::net::{TcpListener, TcpStream};
use trefoil::sync::{Barrier, CapacityLimiter, Condition, Mutex, RwLock, Semaphore, oneshot, watch};
use trefoil::{
    Builder, CancelScope, Event, channel, checkpoint, local_nursery, move_on_after, nursery, shield, sleep,
    sleep_forever, unbounded,
};
use trefoil_tests::{Ended, ms, poll_once, run_virtual};

#[track_caller]
fn assert_text(what: &dyn fmt::Debug, text: &str) {
    assert_eq!(format!("{what:?}"), text);
}

#[test]
fn of_a_nursery_and_its_handles() {
    let base = line!();
    run_virtual(async || {
        local_nursery(async |n| -> Ended {
            assert_text(
                &n,
                &format!(
                    "Nursery {{ opened: `uploads` (debug.rs:{}), state: entered, cancelled: false, children: 0 }}",
                    base + 2
                ),
            );
            let line = line!() + 1;
            let mut child = n.spawn_named("one", async { Ok(1) });
            assert_text(&child, &format!("Join {{ child: `one` (debug.rs:{line}), done: false }}"));
            let plain = n.spawn(async { Ok(()) });
            assert_text(&plain, &format!("Join {{ child: debug.rs:{}, done: false }}", line!() - 1));
            n.spawn(sleep_forever());
            assert!(format!("{n:?}").ends_with("children: 3 }"), "{n:?}");
            checkpoint().await?;
            assert_text(&child, &format!("Join {{ child: `one` (debug.rs:{line}), done: true }}"));
            assert_eq!(child.try_take(), Some(1));
            assert!(format!("{n:?}").ends_with("children: 1 }"), "{n:?}");
            let line = line!() + 1;
            n.cancel();
            let cause = format!("cancelled: nursery `uploads` (debug.rs:{}), by a call at debug.rs:{line}", base + 2);
            assert_text(
                &n,
                &format!(
                    "Nursery {{ opened: `uploads` (debug.rs:{}), state: entered, {cause}, children: 1 }}",
                    base + 2
                ),
            );
            Ok(())
        })
        .named("uploads")
        .await
        .unwrap();
    });
}

#[test]
fn of_a_scope() {
    run_virtual(async || {
        let line = line!() + 1;
        let scope = CancelScope::new();
        let opened = format!("opened: debug.rs:{line}");
        assert_text(&scope, &format!("CancelScope {{ {opened}, state: not entered, cancelled: false }}"));
        scope.set_deadline(Some(trefoil::now() + ms(1500)));
        scope.set_shield(true);
        let inside = scope.run(async {
            assert_text(
                &scope,
                &format!(
                    "CancelScope {{ {opened}, state: entered, cancelled: false, deadline_in: 1.5s, shield: true }}"
                ),
            );
            sleep(ms(500)).await?;
            assert!(format!("{scope:?}").contains("deadline_in: 1s"), "{scope:?}");
            sleep_forever().await
        });
        assert_eq!(inside.await, Ok(None));
        let text = format!("{scope:?}");
        let cause = format!("cancelled: the deadline of scope debug.rs:{line} passed");
        assert!(text.contains("state: left") && text.contains(&cause), "{text}");
        assert!(text.ends_with("deadline_in: 0ns, shield: true }"), "{text}");
    });
}

#[test]
fn of_a_scope_that_is_not_entered() {
    run_virtual(async || {
        let line = line!() + 1;
        let scope = CancelScope::new();
        scope.cancel();
        let text = format!("{scope:?}");
        assert!(text.starts_with(&format!("CancelScope {{ opened: debug.rs:{line}, state: not entered, ")), "{text}");
        assert!(scope.cancel_called() && !text.contains("cancelled: false"), "{text}");

        let line = line!() + 1;
        let (limited, shielded) = (move_on_after(ms(1500), sleep_forever()), shield(sleep_forever()));
        let opened = format!("opened: debug.rs:{line}, state: not entered");
        assert_text(&limited, &format!("Scope {{ {opened}, deadline_in: 1.5s }}"));
        assert_text(&shielded, &format!("Scope {{ {opened}, shield: true }}"));
    });
}

#[test]
fn of_what_tasks_wait_for() {
    run_virtual(async || {
        let (event, barrier, condition) = (Event::new(), Barrier::new(3), Condition::new());
        let mut one = Box::pin(event.wait());
        let mut two = Box::pin(barrier.wait());
        assert!(poll_once(one.as_mut()).await.is_pending() && poll_once(two.as_mut()).await.is_pending());
        assert_text(&event, "Event { set: false, waiting: 1 }");
        assert_text(&barrier, "Barrier { parties: 3, waiting: 1 }");
        assert_text(&condition, "Condition { .. }");
        event.set();
        assert_text(&event, "Event { set: true, waiting: 0 }");

        let line = line!() + 1;
        let mut nap = Box::pin(sleep(ms(20)));
        assert_text(&nap, &format!("Sleep {{ at: debug.rs:{line}, left: 20ms, begun: false }}"));
        assert!(poll_once(nap.as_mut()).await.is_pending());
        sleep(ms(5)).await.unwrap();
        assert_text(&nap, &format!("Sleep {{ at: debug.rs:{line}, left: 15ms, begun: true }}"));
        sleep(ms(20)).await.unwrap();
        assert_text(&nap, &format!("Sleep {{ at: debug.rs:{line}, left: 0ns, begun: true }}"));
        let line = line!() + 1;
        let never = sleep_forever();
        assert_text(&never, &format!("Sleep {{ at: debug.rs:{line}, left: for ever, begun: false }}"));
    });
}

#[test]
fn of_what_carries_values() {
    run_virtual(async || {
        let (sender, receiver) = channel(3);
        let more = sender.clone();
        sender.try_send(String::from("secret")).unwrap();
        more.close();
        assert_text(
            &sender,
            "Sender { closed: false, items: 1, capacity: 3, senders: 1, receivers: 1, waiting_to_send: 0, waiting_to_receive: 0 }",
        );
        assert!(format!("{more:?}").starts_with("Sender { closed: true, items: 1,"), "{more:?}");
        drop((sender, more));
        assert_text(
            &receiver,
            "Receiver { closed: false, items: 1, capacity: 3, senders: 0, receivers: 1, waiting_to_send: 0, waiting_to_receive: 0 }",
        );
        let (_sender, receiver) = unbounded::<u8>();
        assert!(format!("{receiver:?}").contains("capacity: \"unbounded\""), "{receiver:?}");

        let (sender, mut receiver) = oneshot();
        assert_text(&sender, "OneshotSender { receiver: true }");
        assert_text(&receiver, "OneshotReceiver { ready: false, sender: true }");
        sender.send("secret").unwrap();
        assert_text(&receiver, "OneshotReceiver { ready: true, sender: false }");
        assert_eq!(receiver.try_recv(), Some("secret"));

        let (sender, mut receiver) = watch(7);
        assert_text(&sender, "WatchSender { value: 7, waiting: 0 }");
        assert_text(&receiver, "WatchReceiver { value: 7, changed: false, sender: true }");
        sender.set(8);
        assert_text(&receiver, "WatchReceiver { value: 8, changed: true, sender: true }");
        assert_eq!(receiver.changed().await, Ok(true));
        drop(sender);
        assert_text(&receiver, "WatchReceiver { value: 8, changed: false, sender: false }");
    });
}

#[test]
fn of_locks() {
    let base = line!();
    run_virtual(async || {
        let (lock, permits, tokens, shared) =
            (Mutex::new(7), Semaphore::new(3), CapacityLimiter::new(2), RwLock::new(7));
        assert_text(&lock, "Mutex { value: 7, waiting: 0 }");
        assert_text(&permits, "Semaphore { available: 3, holders: [], waiting: 0 }");
        assert_text(&tokens, "CapacityLimiter { total: 2, borrowed: 0, holders: [], waiting: 0 }");
        assert_text(&shared, "RwLock { readers: 0, writer: false, waiting: 0, holders: [], value: 7 }");
        nursery(async |n| -> Ended {
            n.spawn(async {
                let _lock = lock.lock().await?; // base + 10
                let _two = permits.acquire(2).await?; // base + 11
                let _shared = shared.read().await?; // base + 12
                sleep(ms(1)).await
            });
            n.spawn(async { lock.lock().await.map(drop) });
            checkpoint().await?;
            let task = format!("task debug.rs:{}", base + 9);
            let at = |line: u32| format!("{task} at {}:{line}", file!());
            assert_text(&lock, &format!("Mutex {{ holder: [{}], waiting: 1 }}", at(base + 10)));
            assert_text(&permits, &format!("Semaphore {{ available: 1, holders: [{}], waiting: 0 }}", at(base + 11)));
            assert_text(
                &shared,
                &format!("RwLock {{ readers: 1, writer: false, waiting: 0, holders: [{}], value: 7 }}", at(base + 12)),
            );
            Ok(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn of_sockets() {
    Builder::new().run(async {
        use std::os::fd::AsRawFd;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (at, fd) = (listener.local_addr().unwrap(), listener.as_raw_fd());
        let mut accepts = Box::pin(listener.accept());
        assert!(poll_once(accepts.as_mut()).await.is_pending());
        assert_text(&listener, &format!("TcpListener {{ at: {at}, fd: {fd}, waits_to_accept: true }}"));
        let stream = TcpStream::connect(at).await.unwrap();
        let fd = stream.as_raw_fd();
        assert_text(
            &stream,
            &format!("TcpStream {{ peer: {at}, fd: {fd}, waits_to_read: false, waits_to_write: false }}"),
        );
        accepts.await.unwrap();
        assert!(format!("{listener:?}").ends_with("waits_to_accept: false }"), "{listener:?}");
    });
}

/// Where the text goes is code of others, which may use the very thing that is shown.
#[test]
fn no_lock_is_held_while_it_is_written() {
    struct Uses<F>(F, usize);
    impl<F: FnMut()> Write for Uses<F> {
        fn write_str(&mut self, _: &str) -> fmt::Result {
            (self.0)();
            self.1 += 1;
            Ok(())
        }
    }
    /// Shows it to a writer that uses it, and counts how often it did.
    fn check(what: &impl fmt::Debug, using: impl FnMut()) {
        let mut uses = Uses(using, 0);
        write!(uses, "{what:?}").unwrap();
        write!(uses, "{what:#?}").unwrap();
        assert!(uses.1 > 2);
    }
    run_virtual(async || {
        let event = Event::new();
        check(&event, || event.set());
        let barrier = Barrier::new(2);
        check(&barrier, || drop(format!("{barrier:?}")));
        let lock = Mutex::new(7);
        check(&lock, || drop(lock.try_lock()));
        let guard = lock.lock().await.unwrap();
        check(&lock, || drop(lock.try_lock()));
        drop(guard);
        let shared = RwLock::new(7);
        check(&shared, || drop(shared.try_read()));
        let permits = Semaphore::new(3);
        check(&permits, || drop(permits.try_acquire(1)));
        let tokens = CapacityLimiter::new(3);
        check(&tokens, || drop(tokens.try_acquire()));
        let (sender, receiver) = unbounded();
        check(&sender, || sender.try_send(1).unwrap());
        check(&receiver, || {
            let _ = receiver.try_recv();
        });
        let (sender, receiver) = oneshot::<u8>();
        check(&sender, || assert!(!sender.is_closed()));
        check(&receiver, || assert!(!sender.is_closed()));
        let (sender, receiver) = watch(7);
        check(&sender, || sender.set(8));
        check(&receiver, || sender.set(8));
        let scope = CancelScope::new();
        check(&scope, || scope.cancel());
        local_nursery(async |n| -> Ended {
            check(&n, || {
                n.cancel();
                drop(n.spawn(async { Ok(()) }));
            });
            let child = n.spawn(async { Ok(()) });
            check(&child, || assert!(!child.is_done()));
            Ok(())
        })
        .await
        .unwrap();
        // A value whose own output uses what it is in.
        struct Inside(std::sync::Mutex<Option<Arc<Mutex<Inside>>>>);
        impl fmt::Debug for Inside {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let around = self.0.lock().unwrap().take();
                f.write_str(if around.is_some_and(|around| around.try_lock().is_err()) { "held" } else { "free" })
            }
        }
        let around = Arc::new(Mutex::new(Inside(std::sync::Mutex::new(None))));
        *around.try_lock().unwrap().0.lock().unwrap() = Some(around.clone());
        assert_text(&*around, "Mutex { value: held, waiting: 0 }");
    });
}
