//! Sources between runs and between threads: a source belongs to the run where it first waited, until that one is over or the source idle.

mod common;

use common::*;
use futures_util::future::join;
use futures_util::{AsyncReadExt, FutureExt, poll};
use std::cell::RefCell;
use std::io::{Read, Write};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use trefoil_io::Builder;
use trefoil_io::net::{TcpListener, TcpStream};
use trefoil_nursery::{local_nursery, move_on_after, sleep};

#[test]
fn a_listener_outlives_its_run_and_serves_in_the_next() {
    for_each_driver(|builder| {
        let (listener, addr) = listen();
        for round in 0..3 {
            builder.clone().run(async {
                // It waits, so that it is registered with this run.
                let (accepted, client) = join(listener.accept(), async {
                    settle().await;
                    TcpStream::connect(addr).await.unwrap()
                })
                .await;
                let (_, peer) = accepted.unwrap();
                assert_eq!(peer, client.local_addr().unwrap(), "in round {round}");
            });
        }
    });
}

#[test]
fn a_stream_moves_to_a_run_on_another_thread() {
    for_each_driver(|builder| {
        let again = builder.clone();
        builder.run(async {
            let (mut stream, mut other) = pair_with_std().await;
            // At home here.
            assert!(AsyncReadExt::read(&mut stream, &mut [0; 8]).now_or_never().is_none());
            let thread = on_thread(again, move || async move {
                // This home is alive: it reports to the other thread.
                let mut buf = [0; 8];
                let n = TcpStream::read(&mut stream, &mut buf).await.unwrap();
                assert_eq!(&buf[..n], b"across");
                TcpStream::read(&mut stream, &mut buf).await.unwrap()
            });
            sleep(Duration::from_millis(20)).await.unwrap();
            other.write_all(b"across").unwrap();
            sleep(Duration::from_millis(20)).await.unwrap();
            drop(other);
            while !thread.is_finished() {
                sleep(Duration::from_millis(1)).await.unwrap();
            }
            assert_eq!(thread.join().unwrap(), 0);
        });
    });
}

#[test]
fn a_wait_survives_the_end_of_its_home() {
    for_each_driver(|builder| {
        let (give, take) = mpsc::channel::<TcpStream>();
        let (waits, is_waiting) = mpsc::channel::<()>();
        let thread = on_thread(builder.clone(), move || async move {
            let mut stream = take.recv().unwrap();
            let mut buf = [0; 8];
            {
                let mut read = pin!(TcpStream::read(&mut stream, &mut buf));
                assert!(poll!(read.as_mut()).is_pending());
                waits.send(()).unwrap();
                let n = read.await.unwrap();
                assert_eq!(n, 4);
            }
            stream
        });
        let mut other = builder.run(async {
            let (mut stream, other) = pair_with_std().await;
            assert!(AsyncReadExt::read(&mut stream, &mut [0; 8]).now_or_never().is_none());
            give.send(stream).unwrap();
            is_waiting.recv().unwrap();
            other
        });
        // The home run is over, with a wait of the other thread in it.
        std::thread::sleep(Duration::from_millis(20));
        assert!(!thread.is_finished());
        other.write_all(b"late").unwrap();
        drop(thread.join().unwrap());
    });
}

#[test]
fn halves_on_two_threads_share_a_stream() {
    for_each_driver(|builder| {
        const ALL: usize = 2 << 20;
        let again = builder.clone();
        builder.run(async {
            let (client, server) = pair().await;
            let (mut reader, mut writer) = client.into_split();
            let echo = on_thread(again.clone(), move || async move {
                let (mut r, mut w) = server.into_split();
                futures_util::io::copy(&mut r, &mut w).await.unwrap()
            });
            let write = on_thread(again, move || async move {
                writer.write_all(&pattern(0, ALL)).await.unwrap();
            });
            let mut all = Vec::new();
            reader.read_to_end(&mut all).await.unwrap();
            assert!(all == pattern(0, ALL));
            write.join().unwrap();
            assert_eq!(echo.join().unwrap(), ALL as u64);
        });
    });
}

/// Streams are dropped on one thread while events for them are dispatched on another.
#[test]
fn dropping_on_another_thread_races_with_events_harmlessly() {
    for_each_driver(|builder| {
        builder.run(async {
            for _ in 0..200 {
                let (mut stream, mut other) = pair_with_std().await;
                assert!(AsyncReadExt::read(&mut stream, &mut [0; 8]).now_or_never().is_none());
                let writer = std::thread::spawn(move || other.write_all(b"x"));
                let dropper = std::thread::spawn(move || drop(stream));
                trefoil_nursery::checkpoint().await.unwrap();
                let _ = writer.join().unwrap();
                dropper.join().unwrap();
            }
        });
    });
}

#[test]
fn polled_where_no_run_is_active_it_says_so() {
    for_each_driver(|builder| {
        let (mut stream, mut other) = builder.run(pair_with_std());
        let (listener, addr) = listen();
        other.write_all(b"x").unwrap();
        let mut buf = [0; 8];
        let says_so = |error: std::io::Error| {
            assert!(error.to_string().contains("polled outside of a run"), "{error}");
        };
        says_so(TcpStream::read(&mut stream, &mut buf).now_or_never().unwrap().unwrap_err());
        says_so(AsyncReadExt::read(&mut stream, &mut buf).now_or_never().unwrap().unwrap_err());
        says_so(stream.write(b"x").now_or_never().unwrap().unwrap_err());
        says_so(listener.accept().now_or_never().unwrap().unwrap_err());
        says_so(TcpStream::connect(addr).now_or_never().unwrap().unwrap_err());
        // In a run that has no reactor, what need not wait is done, and what has to says why it cannot.
        trefoil_runtime::doc_run(async {
            assert_eq!(TcpStream::read(&mut stream, &mut buf).await.unwrap(), 1);
            let error = TcpStream::read(&mut stream, &mut buf).await.unwrap_err();
            assert!(error.to_string().contains("this run has no I/O"), "{error}");
        });
        drop(stream);
    });
}

#[test]
fn r109_several_tasks_accept_and_who_has_waited_longest_is_served_first() {
    for_each_driver(|builder| {
        builder.run(async {
            let (listener, addr) = listen();
            let served = RefCell::new(Vec::new());
            let accept = async |task: char| -> std::io::Result<()> {
                loop {
                    let (_, peer) = listener.accept().await?;
                    served.borrow_mut().push((task, peer));
                }
            };
            let result = local_nursery(async |n| -> std::io::Result<()> {
                n.spawn(accept('a'));
                // One that gives up takes nothing with it.
                n.spawn(async { move_on_after(Duration::from_millis(1), accept('x')).await.map(drop) });
                n.spawn(accept('b'));
                n.spawn(accept('c'));
                let mut clients = Vec::new();
                for _ in 0..12 {
                    settle().await;
                    clients.push(TcpStream::connect(addr).await?);
                }
                settle().await;
                let order = ['a', 'b', 'c'].into_iter().cycle();
                let expected: Vec<_> = order.zip(clients.iter().map(|client| client.local_addr().unwrap())).collect();
                assert_eq!(*served.borrow(), expected);
                n.cancel();
                Ok(())
            });
            result.await.unwrap();
        });
    });
}

/// A wake-up that one does not use is for all.
#[test]
fn r109_connections_that_come_at_once_are_for_as_many_as_wait() {
    for_each_driver(|builder| {
        builder.run(async {
            let (listener, addr) = listen();
            let connect = async {
                settle().await;
                let (a, b, c) = (std::net::TcpStream::connect, std::net::TcpStream::connect, TcpStream::connect);
                (a(addr).unwrap(), b(addr).unwrap(), c(addr).await.unwrap())
            };
            let three = async {
                let (a, (b, c)) = join(listener.accept(), join(listener.accept(), listener.accept())).await;
                (a.unwrap(), b.unwrap(), c.unwrap())
            };
            join(three, connect).await;
            // Cancelled ones have taken none.
            let waits = || move_on_after(Duration::from_millis(5), listener.accept());
            let (a, (b, c)) = join(waits(), join(waits(), waits())).await;
            assert!(a.unwrap().is_none() && b.unwrap().is_none() && c.unwrap().is_none());
            let client = TcpStream::connect(addr).await.unwrap();
            assert_eq!(listener.accept().await.unwrap().1, client.local_addr().unwrap());
        });
    });
}

#[test]
fn an_accept_that_was_forgotten_is_in_nobodys_way() {
    // R109.
    for_each_driver(|builder| {
        builder.run(async {
            let waits = || {
                let metrics = trefoil_runtime::metrics();
                (metrics.waits, metrics.in_flight)
            };
            for forgotten in 0..3 {
                let (listener, addr) = listen();
                let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(listener.accept())).collect();
                for accept in &mut waiting {
                    assert!(poll!(accept.as_mut()).is_pending());
                }
                assert_eq!(waits(), (3, 3));
                std::mem::forget(waiting.remove(forgotten));
                // Who waited already, and who comes later.
                for accept in waiting {
                    let client = TcpStream::connect(addr).await.unwrap();
                    assert_eq!(accept.await.unwrap().1, client.local_addr().unwrap());
                }
                for _ in 0..3 {
                    let mut accept = Box::pin(listener.accept());
                    assert!(poll!(accept.as_mut()).is_pending());
                    std::mem::forget(accept);
                    let mut accept = Box::pin(listener.accept());
                    assert!(poll!(accept.as_mut()).is_pending());
                    let client = TcpStream::connect(addr).await.unwrap();
                    assert_eq!(accept.await.unwrap().1, client.local_addr().unwrap());
                }
                // One that was never woken is counted until the listener goes.
                let mut accept = Box::pin(listener.accept());
                assert!(poll!(accept.as_mut()).is_pending());
                std::mem::forget(accept);
                drop(listener);
                assert_eq!(waits(), (0, 0));
            }
        });
    });
}

#[test]
fn threads_accept_from_one_listener_and_none_is_lost() {
    for_each_driver(|builder| {
        const ALL: usize = 300;
        let again = builder.clone();
        let accepted = Arc::new(AtomicUsize::new(0));
        builder.run(async {
            let (listener, addr) = listen();
            let listener = Arc::new(listener);
            let accept = |listener: Arc<TcpListener>, accepted: Arc<AtomicUsize>| async move {
                let numbers = Numbers::new(7);
                while accepted.load(SeqCst) < ALL {
                    // Cancels, too.
                    let patience = Duration::from_micros(50 + numbers.below(500));
                    if move_on_after(patience, listener.accept()).await.unwrap().is_some() {
                        accepted.fetch_add(1, SeqCst);
                    }
                }
            };
            let threads: Vec<_> = (0..2)
                .map(|_| {
                    let (listener, accepted) = (listener.clone(), accepted.clone());
                    on_thread(again.clone(), move || async move {
                        join(accept(listener.clone(), accepted.clone()), accept(listener, accepted)).await
                    })
                })
                .collect();
            let client = std::thread::spawn(move || {
                (0..ALL).map(|_| std::net::TcpStream::connect(addr).unwrap()).collect::<Vec<_>>()
            });
            join(accept(listener.clone(), accepted.clone()), accept(listener, accepted.clone())).await;
            // The home of all of them goes on until they are done.
            while !threads.iter().all(|thread| thread.is_finished()) {
                sleep(Duration::from_millis(1)).await.unwrap();
            }
            threads.into_iter().for_each(|thread| _ = thread.join().unwrap());
            assert_eq!(client.join().unwrap().len(), ALL);
        });
        assert_eq!(accepted.load(SeqCst), ALL);
    });
}

/// Thousands of waits between two threads, with cancels: the stress of the protocol between owner, driver and cancel.
#[test]
fn waits_across_threads_under_fire() {
    for_each_driver(|builder| {
        const ROUNDS: usize = 2_000;
        let again = builder.clone();
        builder.run(async {
            let (mut here, mut there) = pair().await;
            // Both are at home here, and one is used there.
            assert!(AsyncReadExt::read(&mut there, &mut [0; 8]).now_or_never().is_none());
            let thread = on_thread(again, move || async move {
                let numbers = Numbers::new(12);
                let mut byte = [0; 1];
                for _ in 0..ROUNDS {
                    loop {
                        let patience = Duration::from_micros(numbers.below(60));
                        let read =
                            trefoil_nursery::move_on_after(patience, TcpStream::read_exact(&mut there, &mut byte))
                                .await;
                        if read.unwrap().is_some() {
                            break;
                        }
                    }
                    byte[0] = byte[0].wrapping_add(1);
                    there.write_all(&byte).await.unwrap();
                }
            });
            let mut byte = [0; 1];
            for _ in 0..ROUNDS {
                let before = byte[0];
                here.write_all(&byte).await.unwrap();
                TcpStream::read_exact(&mut here, &mut byte).await.unwrap();
                assert_eq!(byte[0], before.wrapping_add(1));
            }
            thread.join().unwrap();
        });
    });
}

#[test]
fn a_wake_from_another_thread_ends_the_sleep() {
    for_each_driver(|builder| {
        builder.run(async {
            for _ in 0..50 {
                let (send, receive) = futures_channel();
                let thread = std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_micros(300));
                    send.set();
                });
                receive.await;
                thread.join().unwrap();
            }
        });
    });
}

/// A wake-up from another thread at the very moment when the driver dispatches an event: both are heard, in every round.
#[test]
fn a_wake_from_another_thread_beside_an_event_is_not_lost() {
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
    for_each_driver(|builder| {
        const ROUNDS: u32 = 20_000;
        let again = builder.clone();
        builder.run(async {
            let (mut stream, mut other) = pair_with_std().await;
            let heard = AtomicU32::new(0);
            let (bell, flags) = mpsc::channel::<Flag>();
            std::thread::scope(|threads| {
                let heard = &heard;
                let again = again.clone();
                // The run under test is on a thread of its own: this one is busy with the other side.
                let run = threads.spawn(move || {
                    again.run(async {
                        let mut byte = [0; 1];
                        for _ in 0..ROUNDS {
                            let (flag, set) = futures_channel();
                            bell.send(flag).unwrap();
                            let (read, ()) = join(TcpStream::read(&mut stream, &mut byte), set).await;
                            assert_eq!(read.unwrap(), 1);
                            heard.fetch_add(1, SeqCst);
                        }
                    });
                });
                for round in 0..ROUNDS {
                    let flag = flags.recv().unwrap();
                    other.write_all(b"x").unwrap();
                    for _ in 0..round % 200 {
                        std::hint::spin_loop();
                    }
                    flag.set();
                    let since = std::time::Instant::now();
                    while heard.load(SeqCst) <= round {
                        if since.elapsed() > Duration::from_secs(60) {
                            eprintln!("a wake-up was lost in round {round}");
                            std::process::abort();
                        }
                        std::thread::yield_now();
                    }
                }
                run.join().unwrap();
            });
        });
    });
}

/// A one-shot between threads, of std alone.
fn futures_channel() -> (Flag, impl Future<Output = ()>) {
    let flag = Flag::default();
    let other = flag.clone();
    let wait = std::future::poll_fn(move |cx| {
        let mut state = other.0.lock().unwrap();
        if state.0 {
            return std::task::Poll::Ready(());
        }
        state.1 = Some(cx.waker().clone());
        std::task::Poll::Pending
    });
    (flag, wait)
}

#[derive(Clone, Default)]
struct Flag(std::sync::Arc<std::sync::Mutex<(bool, Option<std::task::Waker>)>>);

impl Flag {
    fn set(&self) {
        let mut state = self.0.lock().unwrap();
        state.0 = true;
        if let Some(waker) = state.1.take() {
            waker.wake();
        }
    }
}

#[test]
fn a_sleep_is_never_short_and_io_goes_on_beside_a_busy_task() {
    for_each_driver(|builder: Builder| {
        builder.run(async {
            for length in [
                Duration::from_micros(1),
                Duration::from_micros(70),
                Duration::from_micros(1_300),
                Duration::from_millis(3),
            ] {
                let before = std::time::Instant::now();
                sleep(length).await.unwrap();
                assert!(before.elapsed() >= length);
            }
            let (mut stream, mut other) = pair_with_std().await;
            let mut buf = [0; 8];
            let writer = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(10));
                other.write_all(b"x").unwrap();
                other
            });
            let busy = async {
                loop {
                    trefoil_nursery::yield_now().await;
                }
            };
            let read = pin!(TcpStream::read(&mut stream, &mut buf));
            match futures_util::future::select(read, pin!(busy)).await {
                futures_util::future::Either::Left((n, _)) => assert_eq!(n.unwrap(), 1),
                futures_util::future::Either::Right(((), _)) => unreachable!(),
            }
            writer.join().unwrap();
        });
    });
}

#[test]
fn virtual_time_waits_for_the_real_world() {
    // R51: bytes that are on their way come before a deadline that is far off on the virtual clock.
    for_each_driver(|builder| {
        builder.virtual_time(true).run(async {
            let (mut stream, mut other) = pair_with_std().await;
            let before = std::time::Instant::now();
            sleep(Duration::from_secs(3600)).await.unwrap();
            assert!(before.elapsed() < Duration::from_secs(60));
            other.write_all(b"x").unwrap();
            let mut buf = [0; 8];
            let read =
                trefoil_nursery::move_on_after(Duration::from_secs(3600), TcpStream::read(&mut stream, &mut buf)).await;
            assert_eq!(read.unwrap(), Some(1));
            let _unused: Option<TcpListener> = None;
        });
    });
}

/// A socket that nobody waits for goes with who uses it: where it came from may be blocked.
#[test]
fn an_idle_socket_moves_to_the_run_that_waits_for_it() {
    for_each_driver(|builder| {
        builder.clone().run(async {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            // Connecting is the first wait.
            let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut other, _) = listener.accept().unwrap();
            let builder = builder.clone();
            // Blocks this run.
            let (read, written) = std::thread::spawn(move || {
                builder.run(async {
                    let mut buf = [0; 5];
                    let mut writer = other.try_clone().unwrap();
                    let late = std::thread::spawn(move || {
                        std::thread::sleep(Duration::from_millis(20));
                        writer.write_all(b"hello").unwrap();
                    });
                    let read = move_on_after(PATIENCE, stream.read_exact(&mut buf)).await.unwrap();
                    late.join().unwrap();
                    let drain = std::thread::spawn(move || {
                        std::thread::sleep(Duration::from_millis(20));
                        let _ = Read::read_to_end(&mut other, &mut Vec::new());
                    });
                    let written = move_on_after(PATIENCE, stream.write_all(&[0; 10_000_000])).await.unwrap();
                    drop(stream);
                    drain.join().unwrap();
                    (read.map(|()| buf), written)
                })
            })
            .join()
            .unwrap();
            assert_eq!(read, Some(*b"hello"));
            assert!(written.is_some(), "nobody has said that there is room");
        });
    });
}

/// One that is still received for is heard of from its first run.
#[test]
fn a_socket_that_is_received_for_is_heard_of_from_its_first_run() {
    for_each_driver(|builder| {
        builder.clone().run(async {
            let (mut stream, mut other) = pair_with_std().await;
            assert!(AsyncReadExt::read(&mut stream, &mut [0; 1]).now_or_never().is_none());
            settle().await;
            let elsewhere = on_thread(builder.clone(), move || async move {
                let mut buf = [0; 5];
                let late = std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(20));
                    other.write_all(b"hello").unwrap();
                });
                stream.read_exact(&mut buf).await.unwrap();
                late.join().unwrap();
                buf
            });
            while !elsewhere.is_finished() {
                settle().await;
            }
            assert_eq!(elsewhere.join().unwrap(), *b"hello");
        });
    });
}

/// Two halves, each in a run of its own: who waits where does not matter, and neither does which run ends first.
#[test]
fn halves_of_one_socket_in_two_runs_do_not_lose_each_other() {
    for_each_driver(|builder| {
        const BYTES: usize = 2_000_000;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let other = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let (mut reader, mut writer) = TcpStream::from_std(stream).unwrap().into_split();
        let echo = std::thread::spawn(move || {
            let (mut from, mut to) = (other.try_clone().unwrap(), other);
            let mut buf = vec![0; 30_000];
            loop {
                match Read::read(&mut from, &mut buf).unwrap() {
                    0 => return,
                    n => to.write_all(&buf[..n]).unwrap(),
                }
            }
        });
        let write = {
            let builder = builder.clone();
            std::thread::spawn(move || {
                // Many runs, one after the other.
                for at in (0..BYTES).step_by(BYTES / 40) {
                    builder.clone().run(async { writer.write_all(&pattern(at, BYTES / 40)).await.unwrap() });
                }
                drop(writer);
            })
        };
        let mut all = vec![0; BYTES];
        for piece in all.chunks_mut(BYTES / 25) {
            builder.clone().run(async { reader.read_exact(piece).await.unwrap() });
        }
        assert!(all == pattern(0, BYTES));
        write.join().unwrap();
        drop(reader);
        echo.join().unwrap();
    });
}
