//! A loop that looks for a while before it sleeps: because it was asked to, or because that paid before.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use trefoil::net::{TcpListener, TcpStream};
use trefoil::{Builder, Event, channel, metrics, nursery, sleep};
use trefoil_runtime::Options;
use trefoil_tests::{ms, run, run_real};

/// An item there and one back, so often. Now and then one side lets the other wait: for less than it looks, for longer, and for long.
fn round_trips(spin: Duration, trips: u64) {
    let pause = |i: u64| match i % 500 {
        100 => thread::sleep(Duration::from_micros(20)),
        200 => thread::sleep(Duration::from_micros(300)),
        300 => thread::sleep(ms(2)),
        _ => {}
    };
    run(Options { spin, ..Options::default() }, async || {
        let ((there, echo_there), (echo_back, back)) = (channel(1), channel(1));
        let thread = thread::spawn(move || {
            Builder::new().spin(spin).run(async {
                while let Some(i) = echo_there.recv().await.unwrap() {
                    pause(i);
                    echo_back.send(i).await.unwrap();
                }
            });
        });
        for i in 0..trips {
            pause(i + 250);
            there.send(i).await.unwrap();
            assert_eq!(back.recv().await, Ok(Some(i)));
        }
        drop(there);
        thread.join().unwrap();
    });
}

#[test]
fn two_threads_that_answer_each_other_lose_nothing() {
    round_trips(Duration::ZERO, 5_000);
}

#[test]
fn nor_do_they_if_they_always_look() {
    round_trips(Duration::from_micros(50), 2_000);
}

#[test]
fn a_loop_that_looks_sees_the_kernel_its_deadlines_and_other_threads() {
    run(Options { spin: ms(1_000_000), ..Options::default() }, async || {
        // A deadline ends the look, however long that was to be.
        sleep(ms(3)).await.unwrap();
        // Another thread.
        let event = Arc::new(Event::new());
        let set = event.clone();
        let thread = thread::spawn(move || {
            thread::sleep(ms(3));
            set.set();
        });
        event.wait().await.unwrap();
        thread.join().unwrap();
    });
}

#[test]
fn a_socket_is_looked_at_beside_a_hot_pair() {
    use std::io::{Read, Write};
    run_real(async || {
        if metrics().driver == "thread" {
            return; // It has no sockets.
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, ask) = mpsc::channel::<()>();
        let client = thread::spawn(move || {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            while ask.recv().is_ok() {
                stream.write_all(b"?").unwrap();
                stream.read_exact(&mut [0]).unwrap();
            }
        });
        let ((there, echo_there), (echo_back, back)) = (channel(1), channel(1));
        let pair = thread::spawn(move || {
            trefoil::run(async {
                while let Some(i) = echo_there.recv().await.unwrap() {
                    echo_back.send(i).await.unwrap();
                }
            });
        });
        nursery(async |n| -> std::io::Result<()> {
            let (mut stream, _): (TcpStream, _) = listener.accept().await?;
            let hot = n.spawn(async {
                for i in 0u64.. {
                    if there.send(i).await.is_err() || back.recv().await != Ok(Some(i)) {
                        break;
                    }
                }
                Ok(())
            });
            for _ in 0..200 {
                asked.send(()).unwrap();
                stream.read_exact(&mut [0]).await?;
                stream.write_all(b"!").await?;
            }
            drop(asked);
            n.cancel();
            _ = hot.await;
            Ok(())
        })
        .await
        .unwrap();
        drop(there);
        client.join().unwrap();
        pair.join().unwrap();
    });
}
