//! The protocol of waits, taken apart: what threads and drivers do to each other, and what a ring will deliver.

use super::*;
use crate::inbound::End;
use crate::net::{TcpListener, TcpStream};
use crate::wake::WakeList;
use rustix::io::Errno;
use std::task::{Context, Poll, Waker};
use std::{future::Future, pin::pin};

/// Polled by hand, with a waker that nobody hears.
fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

/// Where the driver delivers nothing, for who takes its part.
fn on_epoll<F: Future>(main: F) -> F::Output {
    crate::Builder::new().driver(crate::DriverKind::Epoll).run(main)
}

/// What a driver does that receives by itself: bytes, silence, the end.
#[test]
fn what_is_delivered_ends_the_wait_and_is_read_before_the_kernel_is_asked() {
    on_epoll(async {
        let (mut stream, mut peer) = pair().await;
        let shared = stream.source().shared().clone();
        let mut buf = [0; 8];
        {
            let mut read = pin!(stream.read(&mut buf));
            assert!(poll(read.as_mut()).is_pending());
            let mut wake = WakeList::default();
            shared.expect_delivery();
            assert!(poll(read.as_mut()).is_pending());
            assert_eq!(shared.deliver(|inbound| inbound.received(b"abc"), &mut wake), 1);
            assert!(matches!(poll(read.as_mut()), Poll::Ready(Ok(3))));
        }
        // More is on its way, so the kernel is not asked, although it has something.
        peer.write_all(b"behind").await.unwrap();
        trefoil_runtime::sleep(std::time::Duration::from_millis(5)).await.unwrap();
        assert!(poll(pin!(stream.read(&mut buf))).is_pending());
        // The stream of completions ends with an error, reported once; then the kernel is asked.
        let mut wake = WakeList::default();
        shared.deliver(
            |inbound| {
                inbound.set_streaming(false);
                inbound.ended(End::Failed(Errno::NOBUFS))
            },
            &mut wake,
        );
        let error = stream.read(&mut buf).await.unwrap_err();
        assert_eq!(crate::OperationError::of(&error).unwrap().raw_os_error(), Some(Errno::NOBUFS.raw_os_error()));
        assert_eq!(stream.read(&mut buf).await.unwrap(), 6);
        shared.deliver(|inbound| inbound.ended(End::Eof), &mut wake);
        assert_eq!(stream.read(&mut buf).await.unwrap(), 0);
        assert_eq!(stream.read(&mut buf).await.unwrap(), 0);
    });
}

#[test]
fn connections_that_are_delivered_are_accepted_in_order_and_closed_with_the_listener() {
    on_epoll(async {
        let (a, a_peer) = pair().await;
        let (b, mut b_peer) = pair().await;
        let listening = Source::new(crate::net::TcpListener::bind("127.0.0.1:0").unwrap().into_std().unwrap().into());
        let shared = listening.shared().clone();
        let mut wake = WakeList::default();
        shared.deliver(|inbound| inbound.connected(a.into_std().unwrap().into()), &mut wake);
        shared.deliver(|inbound| inbound.connected(b.into_std().unwrap().into()), &mut wake);
        let taken = listening
            .attempt(Direction::Read, &mut |ready| crate::net::accept_for_tests(ready, &mut 0))
            .unwrap()
            .unwrap();
        assert_eq!(taken.1, a_peer.local_addr().unwrap());
        drop(shared);
        drop(listening);
        assert_eq!(b_peer.read(&mut [0; 1]).await.unwrap(), 0);
    });
}

#[test]
fn in_flight_counts_who_waits() {
    crate::run(async {
        let in_flight = || trefoil_runtime::with_driver::<Reactor, _>(trefoil_runtime::Driver::in_flight).unwrap();
        let (mut stream, _peer) = pair().await;
        let (mut x, mut y) = ([0; 1], [0; 1]);
        assert_eq!(in_flight(), 0);
        {
            let mut read = pin!(stream.read(&mut x));
            assert!(poll(read.as_mut()).is_pending());
            assert_eq!(in_flight(), 1);
        }
        assert_eq!(in_flight(), 0);
        let mut left = Box::pin(stream.read(&mut y));
        assert!(poll(left.as_mut()).is_pending());
        std::mem::forget(left);
        assert_eq!(in_flight(), 1);
        drop(stream);
        assert_eq!(in_flight(), 0);
    });
}

/// Steps 1 to 4 against a to c of the module, on two threads, with the driver's part called as close to the owner's as can be.
#[test]
fn a_notification_between_the_question_and_the_wait_is_not_lost() {
    use crate::operation::Operation;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
    use std::time::{Duration, Instant};
    const ROUNDS: u32 = 30_000;
    let (given, taken, late) = (AtomicU32::new(0), AtomicU32::new(0), AtomicBool::new(false));
    crate::run(async {
        let (stream, _peer) = pair().await;
        let shared = stream.source().shared().clone();
        let (given, taken, late) = (&given, &taken, &late);
        std::thread::scope(|threads| {
            threads.spawn(move || {
                let mut wake = WakeList::default();
                for round in 1..=ROUNDS {
                    let since = Instant::now();
                    while taken.load(SeqCst) < round - 1 {
                        if since.elapsed() > Duration::from_secs(5) {
                            // The wait was not ended: end it, so that the test does.
                            late.store(true, SeqCst);
                            given.store(ROUNDS, SeqCst);
                            shared.notify(READ, &mut wake);
                            wake.wake();
                            return;
                        }
                        std::hint::spin_loop();
                    }
                    for _ in 0..round % 64 {
                        std::hint::spin_loop();
                    }
                    given.store(round, SeqCst);
                    shared.notify(READ, &mut wake);
                    wake.wake();
                }
            });
            // Another thread waits, in a run of its own: this one is the home, and does nothing.
            threads.spawn(move || {
                crate::run(async {
                    while taken.load(SeqCst) < ROUNDS {
                        // SAFETY: [OWNER]: nobody else reads.
                        let mut operation =
                            unsafe { Operation::new(stream.source(), ForBytes, std::panic::Location::caller()) };
                        let next = std::future::poll_fn(|cx| {
                            operation.poll(cx, |_| match given.load(SeqCst) {
                                given if given > taken.load(SeqCst) => Ok(given),
                                _ => Err(io::ErrorKind::WouldBlock.into()),
                            })
                        });
                        taken.store(next.await.unwrap(), SeqCst);
                    }
                });
                drop(stream);
            });
        });
    });
    assert!(!late.into_inner(), "a wake-up was lost in round {}", taken.into_inner());
}

thread_local! {
    /// What to do when a waker is cloned, which is in the midst of the begin of a wait.
    static ON_CLONE: std::cell::RefCell<Option<Arc<Shared>>> = const { std::cell::RefCell::new(None) };
}

fn notifying_waker() -> Waker {
    use std::task::{RawWaker, RawWakerVTable};
    static VTABLE: RawWakerVTable = RawWakerVTable::new(
        |_| {
            if let Some(shared) = ON_CLONE.take() {
                shared.notify(READ, &mut WakeList::default());
            }
            RawWaker::new(std::ptr::null(), &VTABLE)
        },
        |_| {},
        |_| {},
        |_| {},
    );
    // SAFETY: it has no data.
    unsafe { Waker::from_raw(RawWaker::new(std::ptr::null(), &VTABLE)) }
}

/// The same between 2 and 4, on one thread: each of the moments in turn.
#[test]
fn a_notification_at_each_moment_of_a_beginning_wait_makes_it_ask_again() {
    use crate::operation::Operation;
    crate::run(async {
        let (mut stream, _peer) = pair().await;
        assert!(poll(pin!(stream.read(&mut [0; 1]))).is_pending());
        let shared = stream.source().shared().clone();
        for while_asked in [true, false] {
            let mut asked = 0;
            // SAFETY: [OWNER]: nobody else reads.
            let mut operation = unsafe { Operation::new(stream.source(), ForBytes, std::panic::Location::caller()) };
            shared.notify(READ, &mut WakeList::default());
            let polled = operation.poll(&mut Context::from_waker(&notifying_waker()), |_| {
                asked += 1;
                if asked > 1 {
                    return Ok(());
                }
                if while_asked {
                    shared.notify(READ, &mut WakeList::default());
                } else {
                    ON_CLONE.set(Some(shared.clone()));
                }
                Err(io::ErrorKind::WouldBlock.into())
            });
            assert!(
                polled.is_ready(),
                "notified {}, and waits",
                if while_asked { "while asked" } else { "after that" }
            );
        }
    });
}
